# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _host
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from hypothesis import given
from hypothesis import strategies as st

FABRIC_MANAGER, PERSISTENCED = _host._UNITS


def systemd(monkeypatch, directory, **units):
    """Put a systemctl in front that says of each unit what it is told to, in the form of the genuine one."""
    blocks = [
        f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={state}\n"
        for name, (load, active, state) in {
            FABRIC_MANAGER: units.get("manager", ("not-found", "inactive", "")),
            PERSISTENCED: units.get("persistenced", ("not-found", "inactive", "")),
        }.items()
    ]
    program = directory / "systemctl"
    text = "\n".join(blocks)
    program.write_text(f"#!/bin/sh\necho \"$*\" >> {directory}/log\ncat <<'END'\n{text}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def package(name, version="535.247.01-1"):
    return Package(name, version, "NVIDIA", broken=False)


def test_a_fabric_manager_of_the_drivers_version(monkeypatch, tmp_path):
    systemd(monkeypatch, tmp_path, manager=("loaded", "active", "enabled"), persistenced=("loaded", "inactive", "disabled"))
    packages = [package("nvidia-fabricmanager-535", "535.247.01-0ubuntu0.22.04.1"), package("nvidia-compute-utils-535-server")]
    manager, persistenced = _host.services(packages, "535.247.01", 6, _host.ask_units(5.0)())
    assert manager == {"installed": True, "version": "535.247.01", "running": True, "enabled": True, "matches_driver": True, "needed": True}
    assert persistenced == {"installed": True, "running": False, "enabled": False}
    assert len((tmp_path / "log").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-fabricmanager",
        "nvidia-fabricmanager-580",
        "nvidia-fabric-manager",
        "cuda-drivers-fabricmanager-580",
        "nvidia-fabricmanager-dev-580",
    ],
)
def test_packages_of_the_fabric_manager(monkeypatch, tmp_path, name):
    systemd(monkeypatch, tmp_path)
    manager, _persistenced = _host.services([package(name)], "580.105.08", 0, _host.ask_units(5.0)())
    really = name.startswith("nvidia-fabric") and "dev" not in name
    assert manager["installed"] is really
    assert manager["matches_driver"] is (False if really else None)
    assert (manager["running"], manager["needed"]) == (False, False)


def test_a_service_without_a_package(monkeypatch, tmp_path):
    systemd(monkeypatch, tmp_path, persistenced=("loaded", "active", "static"))
    manager, persistenced = _host.services([], "535.247.01", 0, _host.ask_units(5.0)())
    nothing = {"installed": False, "running": False, "enabled": False}
    assert manager == {**nothing, "version": None, "matches_driver": None, "needed": False}
    assert persistenced == {"installed": True, "running": True, "enabled": True}


@pytest.mark.parametrize(
    ("state", "enabled"),
    [("enabled", True), ("static", True), ("indirect", True), *((name, False) for name in ("enabled-runtime", "masked", "disabled", ""))],
)
def test_what_starts_at_boot(monkeypatch, tmp_path, state, enabled):
    systemd(monkeypatch, tmp_path, persistenced=("loaded", "active", state))
    assert _host.services([], None, 0, _host.ask_units(5.0)())[1]["enabled"] is enabled


@pytest.mark.parametrize("script", ["echo no bus >&2; exit 1", "sleep 60"])
def test_where_systemd_does_not_answer(monkeypatch, tmp_path, script):
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    manager, persistenced = _host.services([package("nvidia-persistenced")], None, 0, _host.ask_units(0.5)())
    assert (manager["installed"], manager["running"], manager["enabled"]) == (False, None, None)
    assert persistenced == {"installed": True, "running": None, "enabled": None}


def test_without_systemd(monkeypatch):
    monkeypatch.setattr(_host._command, "find", lambda name: None)
    assert _host.services([], None, 0, _host.ask_units(0.5)())[1] == {"installed": False, "running": None, "enabled": None}


REFRESH = "nvidia-cdi-refresh"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (None, []),
        ("", []),
        ("#NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=x\nNVIDIA_CTK_DEBUG=1\n", []),
        ("NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=no-additional-gids-for-device-nodes\n", ["no-additional-gids-for-device-nodes"]),
        ('A=1\nNVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS="a, b"', ["a", "b"]),
        ("NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=a\nNVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=\n", []),
    ],
)
def test_feature_flags_of_the_refresh_units(tmp_path, text, flags):
    if text is not None:
        folder = tmp_path / "etc/nvidia-container-toolkit"
        folder.mkdir(parents=True)
        (folder / "nvidia-cdi-refresh.env").write_text(text)
    loaded = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
    told = _host.refresh(str(tmp_path), {f"{REFRESH}.path": loaded, f"{REFRESH}.service": {**loaded, "UnitFileState": "disabled"}})
    assert told == {"path_enabled": True, "path_active": True, "service_enabled": False, "feature_flags": flags}


def test_where_there_is_no_unit(tmp_path):
    absent = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    assert _host.refresh(str(tmp_path), {}) is None
    assert _host.refresh(str(tmp_path), {f"{REFRESH}.path": absent, f"{REFRESH}.service": absent}) is None
    root = str(tmp_path)
    assert _host.unit(root, {}, "docker.service") is _host.unit(root, {"docker.service": absent}, "docker.service") is None
    masked = {"LoadState": "masked", "ActiveState": "inactive", "UnitFileState": "masked"}
    assert _host.unit(root, {"docker.service": masked}, "docker.service") == {"enabled": False, "active": False}


@pytest.mark.parametrize(("state", "linked", "enabled"), [("disabled", True, True), ("disabled", False, False), ("masked", True, False)])
def test_systemd_does_not_know_yet_that_a_unit_was_switched_on(tmp_path, state, linked, enabled):
    folder = tmp_path / "etc/systemd/system/multi-user.target.wants"
    folder.mkdir(parents=True)
    if linked:
        # Of the host, so that it leads nowhere where its root is elsewhere.
        (folder / "docker.service").symlink_to("/usr/lib/systemd/system/docker.service.elsewhere")
    said = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": state}
    assert _host.unit(str(tmp_path), {"docker.service": said}, "docker.service") == {"enabled": enabled, "active": True}


def test_systemd_is_asked_once_for_all_units(monkeypatch, tmp_path):
    systemd(monkeypatch, tmp_path)
    _host.ask_units(5.0)()
    [asked] = (tmp_path / "log").read_text().splitlines()
    assert {f"{REFRESH}.path", f"{REFRESH}.service", "docker.service"} <= set(asked.split())


@given(st.text())
def test_no_answer_breaks_the_parser(text):
    units = _host.parse_units(text)
    assert all(unit["Id"] == name for name, unit in units.items())
