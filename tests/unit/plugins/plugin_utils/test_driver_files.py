# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's files: their content (apt itself reads it where there is an apt), whose driver it is, and what differs."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import driver_scenarios as scenarios
import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _packages
from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_files, _driver_source, _host, _package_sources
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_files import Pin
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import DRIVER, Repository
from hypothesis import given
from hypothesis import strategies as st

VERSION = Pin("580.95.05", True)
NAMES = ["nvidia-utils-580-server", "libnvidia-compute-580-server", "nvidia-dkms-580-server-open"]


def target(system: str = "debian", version: str = "12") -> _driver_source.Target:
    here = _driver_source.target(_host.read(scenarios.facts(system, version)))
    assert here is not None
    return here


def all_files() -> dict[str, _driver_files.Rendered]:
    repository = Repository("https://mirror.example/cuda/", "/", "", "https://mirror.example/key", None)
    return {
        **dict(_package_sources.of_repository(DRIVER, manager, repository) for manager in ("apt", "dnf")),
        _driver_files.PREFERENCES: _driver_files.preferences(VERSION),
        _driver_files.BLOCKLIST: _driver_files.blocklist(),
        _driver_files.MODPROBE: _driver_files.modprobe(),
    }


@pytest.mark.parametrize("path", sorted(all_files()))
def test_every_file_says_who_manages_it(path: str) -> None:
    file = all_files()[path]
    first = file["content"].splitlines()[0]
    assert re.match(r"(#|//) Managed by the role difyops\.gpu\.nvidia_driver", first)
    assert file["content"].endswith("\n")
    assert (file["sha256"], file["mode"]) == (hashlib.sha256(file["content"].encode()).hexdigest(), "0644")


def test_a_flat_repository_and_one_with_components() -> None:
    flat = _package_sources.of_repository(DRIVER, "apt", Repository("https://a.example/x/", "/", "", "", None), "/k.asc")[1]["content"]
    assert flat.splitlines()[1:] == ["Types: deb", "URIs: https://a.example/x/", "Suites: /", "Signed-By: /k.asc"]
    full = _package_sources.of_repository(DRIVER, "apt", Repository("https://a.example/x/", "noble", "main extra", "", None))[1]["content"]
    assert full.splitlines()[1:] == ["Types: deb", "URIs: https://a.example/x/", "Suites: noble", "Components: main extra"]


def test_dnf_checks_signatures_with_the_key_of_the_role() -> None:
    lines = all_files()[_driver_files.YUM_REPO]["content"].splitlines()
    assert lines[1:] == [
        "[difyops-nvidia-driver]",
        "name=NVIDIA driver",
        "baseurl=https://mirror.example/cuda/",
        "enabled=1",
        "gpgcheck=1",
        "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-difyops-nvidia-driver",
    ]


def test_other_kernel_drivers_are_kept_away() -> None:
    lines = all_files()[_driver_files.MODPROBE]["content"].splitlines()
    assert lines[1:] == ["blacklist nouveau", "blacklist nova_core", "options nouveau modeset=0"]


def test_the_facts_read_the_pins_as_they_are_meant() -> None:
    rules = list(_packages.preferences(_driver_files.preferences(VERSION)["content"]))
    assert ("preference", "nvidia-utils*", "version 580.95.05*, priority 1001") in rules
    packages = [_packages.Package(name, "580.95.05-0ubuntu1", "Ubuntu", broken=False) for name in NAMES]
    pins = [{"kind": kind, "name": name, "value": value} for kind, name, value in rules]
    assert _packages.pinned(packages, pins)
    blocked = [name for _kind, name, _value in _packages.blocklist(_driver_files.blocklist()["content"])]
    assert all(any(re.match(rule, name) for rule in blocked) for name in NAMES)
    assert not any(
        re.match(rule, name) for rule in blocked for name in ("nvidia-container-toolkit", "libnvidia-container1", "nvidia-docker2")
    )


# -- read by apt itself ----------------------------------------------------------------------------------------------

APT = shutil.which("apt-cache"), shutil.which("apt-get"), shutil.which("apt-config")
VERSIONS = {
    **dict.fromkeys(("nvidia-utils-580-server", "libnvidia-compute-580-server", "libcuda1"), ("580.95.05-0ubuntu1", "580.105.08-0ubuntu1")),
    "nvidia-persistenced": ("535.171.04-1",),
    "nvidia-container-toolkit": ("1.19.1-1", "580.95.05-1"),
    "libnvidia-container1": ("1.19.1-1", "580.95.05-1"),
    "nvidia-driver-pinning-595": ("595-1",),
}


def apt(root: pathlib.Path, *command: str) -> str:
    environment = {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Make a repository of package names without packages, and an apt of its own that knows it."""
    root = tmp_path_factory.mktemp("apt")
    for folder in (
        "etc/apt/preferences.d",
        "etc/apt/sources.list.d",
        "etc/apt/apt.conf.d",
        "lists/partial",
        "cache/archives/partial",
        "dpkg",
    ):
        (root / folder).mkdir(parents=True)
    (root / "dpkg/status").write_text("")
    rest = f"Size: 1\nSHA256: {'0' * 64}\nDescription: none\n"
    stanzas = [
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: ./{name}_{version}.deb\n{rest}"
        for name, versions in VERSIONS.items()
        for version in versions
    ]
    (root / "repository").mkdir()
    (root / "repository/Packages").write_text("\n".join(stanzas))
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{root}/repository ./\n")
    folders = {"Dir": "", "Dir::State": "", "Dir::State::status": "/dpkg/status", "Dir::Cache": "/cache"}
    own = [f'{name} "{root}{path}";' for name, path in folders.items()]
    (root / "apt.conf").write_text("\n".join([*own, 'APT::Sandbox::User "root";', ""]))
    apt(root, "apt-get", "update")
    return root


def candidates(root: pathlib.Path) -> dict[str, str]:
    out = apt(root, "apt-cache", "policy", *VERSIONS)
    return dict(re.findall(r"(?m)^(\S+):\n.*\n  Candidate: (\S+)", out))


@pytest.mark.skipif(None in APT, reason="there is no apt")
def test_apt_takes_the_pinned_version_of_the_driver_and_leaves_the_rest(repository: pathlib.Path) -> None:
    newest = {name: versions[-1] for name, versions in VERSIONS.items()}
    assert candidates(repository) == newest
    path = repository / "etc/apt/preferences.d/difyops-nvidia-driver.pref"
    path.write_text(_driver_files.preferences(VERSION)["content"])
    driver = dict.fromkeys(("nvidia-utils-580-server", "libnvidia-compute-580-server", "libcuda1"), "580.95.05-0ubuntu1")
    assert candidates(repository) == {**newest, **driver}
    path.write_text(_driver_files.preferences(Pin("580", False))["content"])
    assert candidates(repository) == newest
    path.write_text(_driver_files.preferences(Pin("570", False))["content"])
    assert candidates(repository) == newest
    path.unlink()


@pytest.mark.skipif(None in APT, reason="there is no apt")
def test_apt_reads_the_blocklist_and_the_sources(repository: pathlib.Path) -> None:
    settings = repository / "etc/apt/apt.conf.d/52difyops-nvidia-driver"
    settings.write_text(_driver_files.blocklist()["content"])
    dump = apt(repository, "apt-config", "dump", "Unattended-Upgrade::Package-Blacklist")
    settings.unlink()
    assert 'Unattended-Upgrade::Package-Blacklist:: "^nvidia-utils.*$";' in dump
    assert 'Unattended-Upgrade::Package-Blacklist:: "^libnvidia-[^cem].*$";' in dump
    source = repository / "etc/apt/sources.list.d/difyops-nvidia-driver.sources"
    source.write_text(all_files()[_driver_files.APT_SOURCES]["content"])
    uris = apt(repository, "apt-get", "update", "--print-uris")
    source.unlink()
    assert "'https://mirror.example/cuda/InRelease'" in uris


# -- the host's own sources ------------------------------------------------------------------------------------------


def entry(components: list[str], suites: list[str], uri: str = "http://mirror.example/debian", **changed: Any) -> dict[str, Any]:
    return {"file": "/etc/apt/sources.list", "uris": [uri], "suites": suites, "components": components, "signed_by": "/key.gpg", **changed}


def test_what_the_hosts_own_mirror_lacks_is_added_for_its_own_suites() -> None:
    entries = [
        entry(["main"], ["bookworm", "bookworm-updates"]),
        entry(["main", "contrib"], ["bookworm-security"], "http://mirror.example/security"),
        entry(["main"], ["bookworm-backports"]),
        entry(["main"], ["cloud-sdk-bookworm"], "https://other.example/apt"),
        entry(["stable"], ["bookworm"], "https://docker.example/debian"),
    ]
    added = _driver_files.components_added(target(), entries)
    assert added is not None
    assert added["content"].splitlines()[1:] == [
        "Types: deb",
        "URIs: http://mirror.example/debian",
        "Suites: bookworm bookworm-updates",
        "Components: contrib non-free non-free-firmware",
        "Signed-By: /key.gpg",
        "",
        "Types: deb",
        "URIs: http://mirror.example/security",
        "Suites: bookworm-security",
        "Components: non-free non-free-firmware",
        "Signed-By: /key.gpg",
    ]


def test_nothing_is_added_where_nothing_lacks() -> None:
    parts = ["main", "contrib", "non-free", "non-free-firmware"]
    assert _driver_files.components_added(target(), [entry(parts, ["bookworm"])]) is None
    assert _driver_files.components_added(target(), [entry(parts[:1], ["bookworm"]), entry(parts[1:], ["bookworm"])]) is None
    assert _driver_files.components_added(target(), []) is None


def test_the_roles_own_file_is_not_counted_so_that_it_stays() -> None:
    own = entry(["contrib", "non-free", "non-free-firmware"], ["bookworm"], file=_driver_files.APT_SOURCES)
    added = _driver_files.components_added(target(), [entry(["main"], ["bookworm"]), own])
    assert added is not None
    assert _package_sources.is_read(DRIVER, [own], {_driver_files.APT_SOURCES: added})
    assert not _package_sources.is_read(DRIVER, [entry(["main"], ["bookworm"])], {_driver_files.APT_SOURCES: added})


def test_ubuntu_needs_restricted_only() -> None:
    added = _driver_files.components_added(
        target("ubuntu", "24.04"), [entry(["main", "universe"], ["noble"], "http://ports.example/ubuntu")]
    )
    assert added is not None
    assert "Components: restricted\n" in added["content"]
    assert _driver_files.components_added(target("ubuntu", "24.04"), [entry(["main", "restricted"], ["noble"])]) is None


# -- what differs ----------------------------------------------------------------------------------------------------


def kept(**changed: Any) -> dict[str, Any]:
    """Return the facts of a host whose driver is kept as it should be by the role."""
    facts = scenarios.with_driver(scenarios.facts(), "580.95.05", NAMES, "-0ubuntu1")
    holds = [{"kind": "hold", "name": name, "value": None, "path": None} for name in NAMES]
    facts["driver"]["installed"].update(pins=holds, pinned=True)
    files = {
        _driver_files.PREFERENCES: _driver_files.preferences(VERSION),
        _driver_files.BLOCKLIST: _driver_files.blocklist(),
        _driver_files.MODPROBE: _driver_files.modprobe(),
    }
    facts["driver"]["managed"] = {path: {"sha256": file["sha256"], "mode": "0644"} for path, file in files.items()}
    facts["driver"]["persistenced"] = {"installed": True, "running": True, "enabled": True}
    facts["driver"].update(changed)
    return facts


def differences(facts: dict[str, Any], **given: Any) -> tuple[str, ...]:
    return _driver_files.differences(_host.read(facts), scenarios.settings(**given))


def test_a_driver_that_is_kept_has_no_differences() -> None:
    assert differences(kept()) == ()


def test_what_somebody_took_away_or_changed_is_seen() -> None:
    facts = kept()
    del facts["driver"]["managed"][_driver_files.PREFERENCES]
    facts["driver"]["managed"][_driver_files.MODPROBE]["sha256"] = "0" * 64
    facts["driver"]["installed"]["pins"].pop()
    facts["driver"]["persistenced"]["enabled"] = False
    assert differences(facts) == (
        f"{_driver_files.PREFERENCES} is missing",
        "1 package of the driver is not held: nvidia-dkms-580-server-open",
        f"{_driver_files.MODPROBE} differs",
        "nvidia-persistenced does not start at boot",
    )


def test_a_mode_that_lets_others_write_is_seen() -> None:
    facts = kept()
    facts["driver"]["managed"][_driver_files.BLOCKLIST]["mode"] = "0666"
    assert differences(facts) == (f"{_driver_files.BLOCKLIST} differs",)


def test_another_pin_is_another_file() -> None:
    assert differences(kept(), pin="branch") == (f"{_driver_files.PREFERENCES} differs",)
    assert differences(kept(), pin="none") == (f"{_driver_files.PREFERENCES} is to go", f"{_driver_files.BLOCKLIST} is to go")


def test_prebuilt_modules_need_no_hold() -> None:
    facts = kept()
    facts["driver"]["installed"]["packages"].append({"name": "linux-modules-nvidia-580-server-open-generic", "version": "6.8.0-50.51"})
    assert differences(facts) == ()


def test_a_driver_that_nvidias_package_pins_has_no_preferences_and_no_holds() -> None:
    rule = {
        "kind": "preference",
        "name": "src:*nvidia*",
        "value": "version 580.95.05*, priority 1000",
        "path": "/etc/apt/preferences.d/nvidia-pin",
    }
    facts = kept()
    facts["driver"]["installed"].update(origin="nvidia", pins=[rule])
    assert differences(facts) == (f"{_driver_files.PREFERENCES} is to go",)
    del facts["driver"]["managed"][_driver_files.PREFERENCES]
    assert differences(facts) == ()
    rule["value"] = "version 580.105.08*, priority 1000"
    assert f"{_driver_files.PREFERENCES} is missing" in differences(facts)


def dnf(**pins: Any) -> dict[str, Any]:
    facts = scenarios.with_driver(scenarios.facts("rocky", "9.5"), "580.95.05", ["nvidia-driver-cuda"], "-1.el9", origin="nvidia")
    facts["driver"]["managed"] = {_driver_files.MODPROBE: {"sha256": _driver_files.modprobe()["sha256"], "mode": "0644"}}
    facts["driver"]["installed"]["pins"] = [{"path": None, **pins}]
    return facts


def test_dnf_locks_versions_or_a_stream() -> None:
    lock = {"kind": "versionlock", "name": "nvidia-driver-cuda", "value": "3:580.95.05-1.el9.*"}
    assert differences(dnf(**lock)) == ()
    assert differences(dnf(**{**lock, "value": "3:575.57.08-1.el9.*"})) == ("1 package of the driver is not locked: nvidia-driver-cuda",)
    stream = {"kind": "module_stream", "name": "nvidia-driver", "value": "580-open"}
    assert differences(dnf(**stream), pin="branch") == ()
    assert differences(dnf(**{**stream, "value": "575-open"}), pin="branch") == ("the module stream of branch 580 is not enabled",)
    assert differences(dnf(**stream), pin="none") == ()


def test_the_fabric_manager_that_nvswitches_need() -> None:
    manager = {"installed": True, "version": "580.95.05", "running": True, "enabled": True, "needed": True}
    assert differences(kept(fabric_manager=manager)) == ()
    assert differences(kept(fabric_manager={**manager, "version": "580.65.06"})) == ("the fabric manager of 580.95.05 is not installed",)
    assert differences(kept(fabric_manager={**manager, "running": False})) == ("nvidia-fabricmanager does not run",)
    assert differences(kept(fabric_manager={**manager, "installed": False}), fabric_manager="unmanaged") == ()


def test_whose_driver_it_is() -> None:
    bare = scenarios.with_driver(scenarios.facts(), "580.95.05", NAMES)
    assert not _driver_files.ours(_host.read(bare), scenarios.settings())
    assert _driver_files.ours(_host.read(bare), scenarios.settings(branch="580"))
    assert _driver_files.ours(_host.read(kept()), scenarios.settings())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
)


@given(anything, anything, anything, anything)
def test_bad_facts_never_raise(pins: object, packages: object, managed: object, services: object) -> None:
    facts = kept(managed=managed, persistenced=services, fabric_manager=services)
    facts["driver"]["installed"].update(pins=pins, packages=packages)
    assert all(isinstance(text, str) for text in differences(facts))
    _driver_files.components_added(target(), [entry for entry in [pins, packages] if isinstance(entry, dict)])
