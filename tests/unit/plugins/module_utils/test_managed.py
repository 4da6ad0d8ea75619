# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _managed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(("role", "path"), [(role, path) for role, paths in _managed.FILES.items() for path in paths])
def test_a_file_of_a_role(tmp_path, role, path):
    file = tmp_path / path[1:]
    file.parent.mkdir(parents=True)
    (file.parent / f"{file.name}.bak").write_text("another")
    assert _managed.files(str(tmp_path), role) == {}
    file.write_bytes(b"text\n")
    file.chmod(0o640)
    assert _managed.files(str(tmp_path), role) == {path: {"sha256": hashlib.sha256(b"text\n").hexdigest(), "mode": "0640"}}
    assert [other for other in _managed.FILES if _managed.files(str(tmp_path), other)] == [role]


def test_the_files_of_each_role():
    assert {role: len(paths) for role, paths in _managed.FILES.items()} == {
        "nvidia_driver": 7,
        "container_engine": 5,
        "nvidia_container_toolkit": 5,
    }
    assert "/etc/apt/sources.list.d/difyops-docker.sources" in _managed.FILES["container_engine"]
    assert "/etc/pki/rpm-gpg/RPM-GPG-KEY-difyops-nvidia-container-toolkit" in _managed.FILES["nvidia_container_toolkit"]


def test_what_is_there_and_is_no_file(tmp_path):
    path = _managed.FILES["container_engine"][0]
    (tmp_path / path[1:]).mkdir(parents=True, mode=0o755)
    assert _managed.files(str(tmp_path), "container_engine") == {path: {"sha256": None, "mode": "0755"}}


def journal(root, content):
    folder = root / "var/lib/difyops/nvidia_driver"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.json").write_bytes(content)
    return _managed.document(str(root), "nvidia_driver")


def test_a_journal(tmp_path):
    assert _managed.document(str(tmp_path), "nvidia_driver") is None
    assert journal(tmp_path, b'{"schema": 1, "phase": "drain", "containers": []}') == {"schema": 1, "phase": "drain", "containers": []}
    assert _managed.document(str(tmp_path), "container_engine") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000])
def test_a_journal_that_cannot_be_read(tmp_path, content):
    told = journal(tmp_path, content)
    assert list(told) == ["error"]
    assert told["error"].startswith("/var/lib/difyops/nvidia_driver/journal.json ")


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_breaks_the_reader(tmp_path, content):
    assert isinstance(journal(tmp_path, content), dict)
