# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from pathlib import Path

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
    text = _managed.MARK + b"text\n"
    file.write_bytes(text)
    file.chmod(0o640)
    assert _managed.files(str(tmp_path), role) == {path: {"sha256": hashlib.sha256(text).hexdigest(), "mode": "0640"}}
    assert [other for other in _managed.FILES if _managed.files(str(tmp_path), other)] == [role]


def test_the_files_of_each_role():
    assert {role: len(paths) for role, paths in _managed.FILES.items()} == {
        "nvidia_driver": 7,
        "container_engine": 5,
        "nvidia_container_toolkit": 7,
    }
    assert "/etc/apt/sources.list.d/difyops-docker.sources" in _managed.FILES["container_engine"]
    assert "/etc/pki/rpm-gpg/RPM-GPG-KEY-difyops-nvidia-container-toolkit" in _managed.FILES["nvidia_container_toolkit"]


def test_a_specification_without_the_mark_is_an_operators(tmp_path):
    file = tmp_path / _managed.SPECIFICATION[1:]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"---\n" + _managed.MARK)
    assert _managed.files(str(tmp_path), "nvidia_container_toolkit") == {}


@pytest.mark.parametrize("tasks", ["nvidia_container_toolkit/tasks/cdi_generate.yml", "nvidia_driver/tasks/cdi.yml"])
def test_roles_write_the_mark_that_is_looked_for(tasks):
    text = (Path(__file__).parents[4] / "roles" / tasks).read_text(encoding="utf-8")
    assert f'line: "{_managed.MARK.decode().strip()}"' in text


def test_the_role_marks_its_rules_where_that_is_looked_for():
    text = (Path(__file__).parents[4] / "roles/nvidia_container_toolkit/vars/main.yml").read_text(encoding="utf-8")
    assert f"__nvidia_container_toolkit_rules: {_managed.RULES}\n" in text


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


def test_what_an_upgrade_left(tmp_path):
    assert _managed.upgrade(str(tmp_path)) is None
    folder = tmp_path / "var/lib/difyops/upgrade"
    folder.mkdir(parents=True)
    (folder / "journal.json").write_text('{"schema": 1, "phase": "driver"}')
    assert _managed.upgrade(str(tmp_path)) == {"journal": {"schema": 1, "phase": "driver"}, "failed": None}
    (folder / "failed.json").write_text("[")
    told = _managed.upgrade(str(tmp_path))
    assert told["failed"]["error"].startswith("/var/lib/difyops/upgrade/failed.json ")
