# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _managed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("path", _managed.FILES)
def test_a_file_of_the_role(tmp_path, path):
    file = tmp_path / path[1:]
    file.parent.mkdir(parents=True)
    (file.parent / f"{file.name}.bak").write_text("another")
    assert _managed.files(str(tmp_path)) == {}
    file.write_bytes(b"text\n")
    file.chmod(0o640)
    assert _managed.files(str(tmp_path)) == {path: {"sha256": hashlib.sha256(b"text\n").hexdigest(), "mode": "0640"}}


def test_what_is_there_and_is_no_file(tmp_path):
    (tmp_path / _managed.FILES[0][1:]).mkdir(parents=True, mode=0o755)
    assert _managed.files(str(tmp_path)) == {_managed.FILES[0]: {"sha256": None, "mode": "0755"}}


def journal(root, content):
    folder = root / "var/lib/difyops/nvidia_driver"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.json").write_bytes(content)
    return _managed.journal(str(root))


def test_a_journal(tmp_path):
    assert _managed.journal(str(tmp_path)) is None
    assert journal(tmp_path, b'{"schema": 1, "phase": "drain", "containers": []}') == {"schema": 1, "phase": "drain", "containers": []}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000])
def test_a_journal_that_cannot_be_read(tmp_path, content):
    told = journal(tmp_path, content)
    assert list(told) == ["error"]
    assert told["error"].startswith("/var/lib/difyops/nvidia_driver/journal.json ")


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_breaks_the_reader(tmp_path, content):
    assert isinstance(journal(tmp_path, content), dict)
