# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document gpu_driver: every scenario of a driver that comes, changes, is kept or goes, and what is in the way."""

from __future__ import annotations

import copy
from typing import Any

import driver_scenarios as scenarios
import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_files, _driver_names
from driver_scenarios import answer, facts, plan, settings, settled, with_driver
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

SERVER = ["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server", "nvidia-compute-utils-580-server"]
UBUNTU = scenarios.KERNELS["ubuntu"]
KEYS = {
    "schema",
    "host",
    "status",
    "action",
    "from",
    "to",
    "reason",
    "blocked",
    "warnings",
    "target",
    "exact",
    "expects",
    "repository",
    "query",
    "packages",
    "repair",
    "pins",
    "files",
    "initramfs",
    "services",
    "guard",
    "restart",
    "activation",
    "fallback",
    "reboot",
}


def codes(document: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in document["blocked"]]


def sentence(document: dict[str, Any]) -> str:
    assert len(document["blocked"]) == 1, document["blocked"]
    finding = document["blocked"][0]
    return f"{finding['code']} {finding['message']} -> {finding['remedy']}"


def installed(version: str = "580.95.05", names: list[str] | None = None, **changed: Any) -> dict[str, Any]:
    """Return the facts of an Ubuntu whose driver the role brought: pinned, held, with its files."""
    document = with_driver(facts(), version, SERVER if names is None else names, "-0ubuntu1", **changed)
    there = document["driver"]["installed"]
    there["pins"] = [{"kind": "hold", "name": package["name"], "value": None, "path": None} for package in there["packages"]]
    files = {
        _driver_files.PREFERENCES: _driver_files.preferences(_driver_files.Pin(version, True)),
        _driver_files.BLOCKLIST: _driver_files.blocklist(),
        _driver_files.MODPROBE: _driver_files.modprobe(),
    }
    document["driver"]["managed"] = {path: {"sha256": file["sha256"], "mode": "0644"} for path, file in files.items()}
    document["driver"]["persistenced"] = {"installed": True, "running": True, "enabled": True}
    return document


# -- a first driver --------------------------------------------------------------------------------------------------


def test_ubuntu_gets_its_own_signed_modules() -> None:
    first = plan(facts(), settings(branch="580"))
    assert (first["status"], first["action"], first["exact"], first["repository"]) == ("change", "install", False, None)
    assert first["expects"] == "580.*, exact version after the package lists are read"
    document = settled(facts(), settings(branch="580"), "580.95.05", revision="-0ubuntu1")
    assert set(document) == KEYS
    assert (document["exact"], document["expects"], document["repository"]) == (True, "580.95.05", None)
    assert document["target"] == {
        "branch": "580",
        "version": None,
        "flavour": "open",
        "source": "distribution",
        "kernel_modules": "prebuilt",
    }
    packages = document["packages"]
    assert f"linux-modules-nvidia-580-server-open-{UBUNTU}=580.95.05-0ubuntu1" in packages["specs"]
    assert "nvidia-utils-580-server=580.95.05-0ubuntu1" in packages["specs"]
    assert (packages["first"], packages["stream"], packages["download_mib"]) == ([], None, 300)
    assert document["pins"]["holds"] is True
    assert set(document["pins"]["files"]) == {_driver_files.PREFERENCES, _driver_files.BLOCKLIST}
    assert "Pin: version 580.95.05*" in document["pins"]["files"][_driver_files.PREFERENCES]["content"]
    assert (set(document["files"]), document["initramfs"]) == ({_driver_files.MODPROBE}, True)
    assert document["services"] == [{"name": "nvidia-persistenced", "enabled": True, "running": True}]
    assert document["activation"] == "load"


def test_a_dependency_is_in_the_list_and_not_asked_for() -> None:
    query = plan(facts(), settings(branch="580"))["query"]
    found = answer(query, "580.95.05")
    found["install"] += [
        {"name": "libnvidia-compute-580-server", "from": None, "to": "580.95.05-1"},
        {"name": "libdrm2", "from": "2.4.1", "to": "2.4.2"},
    ]
    packages = plan(facts(), settings(branch="580"), found)["packages"]
    assert {"name": "libdrm2", "from": "2.4.1", "to": "2.4.2"} in packages["install"]
    assert "libnvidia-compute-580-server=580.95.05-1" in packages["specs"]
    assert not [spec for spec in packages["specs"] if spec.startswith("libdrm2")]


def test_headers_come_without_a_version() -> None:
    wanted = settings(branch="535")
    document = settled(facts("debian", "12", scenarios.V100), wanted, "535.261.03")
    kernel = scenarios.KERNELS["debian"]
    assert document["query"]["also"][f"headers {kernel}"] == [f"linux-headers-{kernel}"]
    assert f"linux-headers-{kernel}" in document["packages"]["specs"]
    assert "nvidia-kernel-dkms=535.261.03-1" in document["packages"]["specs"]
    assert document["target"]["kernel_modules"] == "dkms"
    assert "nvidia-persistenced" in document["query"]["also"]["persistence daemon"]


def test_debian_adds_the_components_that_its_own_mirror_has() -> None:
    host, wanted = facts("debian", "12", scenarios.V100), settings(branch="535")
    source = {
        "file": "/etc/apt/sources.list",
        "uris": ["http://m.example/debian"],
        "suites": ["bookworm"],
        "components": ["main"],
        "signed_by": None,
    }
    document = plan(host, wanted, answer(sources=[source], error="nvidia-kernel-dkms is in no package source of this host."))
    assert (document["status"], document["exact"]) == ("change", False)
    assert document["expects"] == "535.*, exact version after the repository is added"
    assert [warning["code"] for warning in document["warnings"]] == ["DG788"]
    assert (document["repository"]["change"], document["repository"]["key"]) == (True, None)
    assert "Components: contrib non-free non-free-firmware" in document["repository"]["files"][_driver_files.APT_SOURCES]["content"]
    assert (document["files"], document["pins"]["files"], document["packages"]["specs"]) == ({}, {}, [])
    after = plan(host, wanted, answer(document["query"], "535.261.03", sources=[source, *scenarios.sources_of(document)]))
    assert (after["exact"], after["repository"]["change"], after["expects"]) == (True, False, "535.261.03")


def test_an_embedded_key_cannot_be_shared() -> None:
    source = {
        "file": "/etc/apt/x.sources",
        "uris": ["http://m.example/"],
        "suites": ["bookworm"],
        "components": ["main"],
        "signed_by": "embedded key",
    }
    document = plan(facts("debian", "12", scenarios.V100), settings(branch="535"), answer(sources=[source]))
    assert "DG774 the host's own package sources lack contrib, non-free, non-free-firmware, and have their key inside" in sentence(document)


def test_nvidias_repository_for_debian_with_nvidias_pin() -> None:
    host, wanted = facts("debian", "13"), settings()
    query = plan(host, wanted)["query"]
    assert query["also"]["pinning"] == ["nvidia-driver-pinning-{version}"]
    second = plan(host, wanted, answer(query))
    assert (second["exact"], second["repository"]["change"]) == (False, True)
    assert second["repository"]["key"] == {
        "source": "https://developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64/8793F200.pub",
        "fingerprint": "02182E60104FCDC26EAE1B8597A5D4CB8793F200",
        "path": _driver_files.APT_KEY,
    }
    third = plan(host, wanted, answer(query, "580.95.05", sources=scenarios.sources_of(second)))
    assert (third["exact"], third["repository"]["change"]) == (True, False)
    assert third["packages"]["first"] == ["nvidia-driver-pinning-580.95.05"]
    assert not any("pinning" in spec for spec in third["packages"]["specs"])
    assert third["pins"]["holds"] is False
    assert set(third["pins"]["files"]) == {_driver_files.BLOCKLIST}


def test_without_nvidias_pinning_package_the_role_pins() -> None:
    host, wanted = facts("debian", "13"), settings()
    second = plan(host, wanted, answer(plan(host, wanted)["query"]))
    found = answer(second["query"], "580.95.05", sources=scenarios.sources_of(second))
    found["also"]["pinning"] = None
    document = plan(host, wanted, found)
    assert (document["packages"]["first"], document["pins"]["holds"]) == ([], True)
    assert set(document["pins"]["files"]) == {_driver_files.PREFERENCES, _driver_files.BLOCKLIST}


def test_a_repository_that_somebody_else_added_is_used_as_it_is() -> None:
    host, wanted = facts("debian", "13"), settings()
    url = "https://developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64/"
    source = {
        "file": "/etc/apt/sources.list.d/cuda.list",
        "uris": [url],
        "suites": ["/"],
        "components": [],
        "signed_by": "/usr/share/x.gpg",
    }
    document = plan(host, wanted, answer(plan(host, wanted)["query"], "580.95.05", sources=[source]))
    assert (document["exact"], document["repository"]) == (True, None)


@pytest.mark.parametrize(
    ("system", "version", "stream", "locks"),
    [("rocky", "9.5", "580-open", True), ("amzn", "2023", "580-open", True), ("rocky", "10.0", None, True)],
)
def test_the_family_of_rhel(system: str, version: str, stream: str | None, locks: bool) -> None:
    wanted = settings(repository={"url": "https://mirror.example/cuda", "fingerprint": scenarios.KEY_FINGERPRINT})
    host = facts(system, version)
    second = plan(host, wanted, answer(plan(host, wanted)["query"]))
    assert "baseurl=https://mirror.example/cuda/" in second["repository"]["files"][_driver_files.YUM_REPO]["content"]
    document = settled(host, wanted, "580.95.05", revision="-1.el")
    assert document["query"]["stream"] == (f"nvidia-driver:{stream}" if stream else None)
    assert document["query"]["preferences"] is None
    assert document["packages"]["stream"] == ({"name": "nvidia-driver", "stream": stream, "reset": False} if stream else None)
    assert "nvidia-driver-cuda-580.95.05-1.el" in document["packages"]["specs"]
    assert "kmod-nvidia-open-dkms-580.95.05-1.el" in document["packages"]["specs"]
    assert (document["pins"]["versionlocks"], document["pins"]["holds"], document["pins"]["files"]) == (locks, False, {})


def test_a_service_is_wanted_only_where_its_package_stays_or_comes() -> None:
    old = "580.95.05"
    host = with_driver(facts("ubuntu", "24.04"), old, ["nvidia-dkms-580-open", "libnvidia-compute-580"], origin="nvidia")
    host["driver"]["persistenced"] = {"installed": True, "running": True, "enabled": True}
    repository = {"url": "https://mirror.example/cuda", "fingerprint": scenarios.KEY_FINGERPRINT}
    wanted = settings(version="595.91.07", source="nvidia", reboot="if_needed", repository=repository)
    goes = [{"name": "nvidia-compute-utils-580", "from": f"{old}-1"}]
    for also, expected in ((None, []), ("nvidia-persistenced", ["nvidia-persistenced"])):
        query = plan(host, wanted)["query"]
        found = answer(query, "595.91.07", remove=goes)
        found["also"]["persistence daemon"] = also
        daemon = [{"name": also, "from": None, "to": "595.91.07-1"}] if also else []
        found["install"] = [entry for entry in found["install"] if "persistenced" not in entry["name"]] + daemon
        found["sources"] = scenarios.sources_of(plan(host, wanted, {**found, "sources": []}))
        document = plan(host, wanted, found)
        assert document["exact"], document["blocked"]
        assert [service["name"] for service in document["services"]] == expected


def test_headers_that_dnf_calls_otherwise_are_asked_for_with_their_version() -> None:
    wanted = settings(repository={"url": "https://mirror.example/cuda", "fingerprint": scenarios.KEY_FINGERPRINT})
    host = facts("rocky", "9.5")
    host["host"]["kernel"] = {"running": "5.14.0-1.el9.x86_64", "next": "5.14.0-1.el9.x86_64", "headers": []}
    devel = "kernel-devel-5.14.0-1.el9.x86_64"
    package = {"name": "kernel-devel", "from": None, "to": "5.14.0-1.el9"}
    query = plan(host, wanted)["query"]
    found = answer(query, "580.95.05", "-1.el9")
    assert found["also"]["headers 5.14.0-1.el9.x86_64"] == devel
    install = [entry for entry in found["install"] if entry["name"] != devel] + [package]
    second = plan(host, wanted, {**found, "install": install, "sources": scenarios.sources_of(plan(host, wanted, answer(query)))})
    assert second["exact"] and devel in second["packages"]["specs"] and "kernel-devel" not in second["packages"]["specs"]


def test_a_stream_keeps_a_branch_and_without_streams_versions_are_locked() -> None:
    repository = {"url": "https://mirror.example/cuda", "fingerprint": scenarios.KEY_FINGERPRINT}
    assert settled(facts("rocky", "9.5"), settings(pin="branch", repository=repository), "580.95.05")["pins"]["versionlocks"] is False
    assert settled(facts("rocky", "10.0"), settings(pin="branch", repository=repository), "580.95.05")["pins"]["versionlocks"] is True


def test_exact_names_of_the_operator_count() -> None:
    document = settled(facts(), settings(version="580.95.05", packages=["our-driver", "nvidia-utils-580"]), "580.95.05")
    assert document["query"]["alternatives"] == [["our-driver", "nvidia-utils-580"]]
    assert document["packages"]["specs"] == ["our-driver", "nvidia-utils-580=580.95.05-1"]


def test_a_persistence_daemon_that_cannot_be_had_is_not_started() -> None:
    host, wanted = facts("debian", "12", scenarios.V100), settings(branch="535")
    found = answer(plan(host, wanted)["query"], "535.261.03")
    found["also"]["persistence daemon"] = None
    found["install"] = [package for package in found["install"] if package["name"] != "nvidia-persistenced"]
    assert plan(host, wanted, found)["services"] == []
    assert settled(host, settings(branch="535", persistence=False), "535.261.03")["services"] == []


def test_without_a_reboot_a_first_driver_ends_before_it_is_loaded() -> None:
    host = facts()
    host["host"]["nouveau_loaded"] = True
    document = settled(host, settings(branch="580", reboot="never"), "580.95.05")
    assert (document["status"], document["activation"], document["reboot"]["required"]) == ("change", "later", True)
    assert document["services"] == [{"name": "nvidia-persistenced", "enabled": True, "running": False}]


# -- a driver that changes -------------------------------------------------------------------------------------------


def test_upgrade_releases_and_pins_anew() -> None:
    document = settled(installed("580.65.06"), settings(version="580.95.05"), "580.95.05", revision="-0ubuntu1")
    assert (document["action"], document["from"], document["to"]) == ("upgrade", "580.65.06", "580.95.05")
    assert document["pins"]["release"] == {"holds": SERVER, "versionlocks": []}
    assert document["pins"]["holds"] is True
    assert "Pin: version 580.95.05*" in document["pins"]["files"][_driver_files.PREFERENCES]["content"]
    assert document["initramfs"] is False
    assert document["query"]["version"] == "580.95.05"
    assert "Pin-Priority: 1002" in document["query"]["preferences"]


def test_downgrade_by_exact_version_takes_every_package_of_the_driver() -> None:
    host = installed("580.105.08")
    query = plan(host, settings(version="580.95.05"))["query"]
    closure = [*SERVER, "libnvidia-compute-580-server", "nvidia-kernel-common-580-server", "nvidia-firmware-580-server-580.95.05"]
    changes = [{"name": name, "from": "580.105.08-0ubuntu1", "to": "580.95.05-0ubuntu1"} for name in closure]
    found = answer(query, "580.95.05", install=changes)
    document = plan(host, settings(version="580.95.05"), found)
    assert document["packages"]["specs"] == [f"{name}=580.95.05-0ubuntu1" for name in closure]
    assert document["expects"] == "580.95.05"


def test_packages_of_others_are_not_pushed_out() -> None:
    host, wanted = installed("580.65.06"), settings(version="580.95.05")
    query = plan(host, wanted)["query"]
    old = [{"name": name, "from": "580.65.06-0ubuntu1"} for name in ("nvidia-firmware-580-server-580.65.06", "nvidia-driver-pinning-580")]
    brought = [{"name": "dkms:all", "from": "3.0"}]
    assert plan(host, wanted, answer(query, "580.95.05", remove=old + brought, brought=["dkms"]))["packages"]["remove"] == old + brought
    site = [{"name": name, "from": "1.0"} for name in ("site-gpu-tools", "cuda-12-8")]
    text = sentence(plan(host, wanted, answer(query, "580.95.05", remove=old + site)))
    assert text.startswith("DG777 for driver 580.95.05 with the open kernel modules packages of others would be removed")
    assert "which do not go with it: site-gpu-tools, cuda-12-8 ->" in text and "foreign_pins" not in text
    assert "nvidia-firmware" not in text
    assert "dkms" in sentence(plan(host, wanted, answer(query, "580.95.05", remove=old + brought)))


def test_another_branch_across_the_renaming() -> None:
    old = ["libnvidia-compute-580", "nvidia-dkms-580-open", "nvidia-utils-580", "nvidia-compute-utils-580"]
    host = installed("580.95.05", old, origin="nvidia")
    wanted = settings(branch="595")
    first = plan(host, wanted)
    assert first["query"]["alternatives"] == [["libnvidia-compute", "nvidia-dkms-open"]]
    assert first["target"]["source"] == "nvidia"
    second = plan(host, wanted, answer(first["query"]))
    gone = [{"name": name, "from": "580.95.05-0ubuntu1"} for name in old]
    document = plan(host, wanted, answer(first["query"], "595.71.05", sources=scenarios.sources_of(second), remove=gone))
    assert document["packages"]["remove"] == gone
    assert document["packages"]["first"] == ["nvidia-driver-pinning-595.71.05"]
    # NVIDIA's package pins from now on, so what pinned before goes.
    assert document["pins"]["release"]["holds"] == old
    assert document["pins"]["files"][_driver_files.PREFERENCES] is None


def test_from_a_stream_to_another() -> None:
    host = with_driver(facts("rocky", "9.5"), "575.57.08", ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"], "-1.el9", origin="nvidia")
    host["driver"]["managed"] = {_driver_files.MODPROBE: {"sha256": "x", "mode": "0644"}}
    host["driver"]["installed"]["pins"] = [
        {"kind": "module_stream", "name": "nvidia-driver", "value": "575-open", "path": None},
        {"kind": "versionlock", "name": "nvidia-driver-cuda", "value": "3:575.57.08-1.el9.*", "path": "/etc/dnf/plugins/versionlock.list"},
        {"kind": "versionlock", "name": "nvidia-driver-cuda", "value": "!3:560.28.03-1.el9.*", "path": "/etc/dnf/plugins/versionlock.list"},
    ]
    document = settled(host, settings(branch="580"), "580.95.05")
    assert document["packages"]["stream"] == {"name": "nvidia-driver", "stream": "580-open", "reset": True}
    assert document["pins"]["release"]["versionlocks"] == ["nvidia-driver-cuda-3:575.57.08-1.el9.*"]


def test_the_repository_of_a_source_that_was_left_goes() -> None:
    host = installed("580.65.06", origin="nvidia")
    host["driver"]["managed"].update({_driver_files.APT_SOURCES: {"sha256": "x"}, _driver_files.APT_KEY: {"sha256": "x"}})
    document = settled(host, settings(branch="580", version="580.95.05", source="distribution"), "580.95.05")
    assert document["files"][_driver_files.APT_SOURCES] is None
    assert document["files"][_driver_files.APT_KEY] is None
    assert document["repository"] is None


# -- a driver that stays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"branch": "580"}, {"version": "580.95.05"}])
def test_nothing_is_to_be_done_and_the_document_says_nothing(given: dict[str, str]) -> None:
    document = plan(installed(), settings(**given))
    assert set(document) == KEYS
    assert (document["status"], document["action"], document["exact"], document["query"]) == ("ok", "none", True, None)
    assert document["packages"] == {"install": [], "remove": [], "specs": [], "first": [], "stream": None, "download_mib": 0}
    assert document["pins"] == {"release": {"holds": [], "versionlocks": []}, "files": {}, "holds": False, "versionlocks": False}
    assert (document["files"], document["services"], document["initramfs"], document["activation"]) == ({}, [], False, "none")


def test_drift_of_the_pin_is_mended_without_packages() -> None:
    host = installed()
    host["driver"]["installed"]["pins"].pop()
    del host["driver"]["managed"][_driver_files.PREFERENCES]
    document = plan(host, settings(version="580.95.05"))
    assert (document["status"], document["action"], document["activation"], document["query"]) == ("change", "configure", "none", None)
    assert (document["pins"]["holds"], document["pins"]["release"]["holds"]) == (True, [])
    assert document["pins"]["files"][_driver_files.PREFERENCES]["content"].count("580.95.05*") == 1
    assert document["exact"] is True


def test_somebody_elses_driver_is_not_pinned() -> None:
    host = with_driver(facts(), "580.95.05", SERVER)
    host["driver"]["loaded"] = None
    host["gpus"][0].update(bound_driver=None, index=None)
    host["nvml"]["source"] = "sysfs"
    document = plan(host, settings())
    assert (document["action"], document["activation"]) == ("configure", "load")
    assert (document["pins"]["files"], document["pins"]["holds"], document["files"], document["services"]) == ({}, False, {}, [])


def test_half_installed_packages_of_the_driver_are_finished() -> None:
    host = installed()
    host["driver"]["broken"] = [{"name": "nvidia-utils-580-server", "version": "580.95.05-0ubuntu1", "state": "unpacked"}]
    wanted = settings(version="580.95.05")
    broken = [{"name": name, "version": None, "state": "half-configured"} for name in ("nvidia-utils-580-server", "dkms", "dpkg")]
    document = settled(host, wanted, "580.95.05", broken=broken, brought=["dkms"])
    assert (document["status"], document["repair"]) == ("change", True)
    assert document["packages"]["specs"]


def test_what_an_interrupted_run_left_is_finished_whatever_is_broken() -> None:
    host = facts()
    host["driver"]["journal"] = {"schema": 1, "phase": "packages", "action": "install", "from": None, "to": "580", "containers": []}
    broken = [{"name": "libc6", "version": "2.39", "state": "unpacked"}]
    assert settled(host, settings(branch="580"), "580.95.05", broken=broken)["status"] == "change"


JOURNAL = {
    "schema": 1,
    "phase": "packages",
    "action": "install",
    "from": None,
    "to": "580",
    "containers": [{"id": "c0ffee", "name": "ollama"}],
}
OLLAMA = [{"id": "c0ffee", "name": "ollama"}]


def test_an_interrupted_run_leaves_an_initramfs_that_nobody_knows() -> None:
    host = installed("580.65.06")
    assert settled(host, settings(version="580.95.05"), "580.95.05")["initramfs"] is False
    host["driver"]["journal"] = JOURNAL
    assert settled(host, settings(version="580.95.05"), "580.95.05")["initramfs"] is True
    done = installed()
    done["driver"]["journal"] = JOURNAL
    document = plan(done, settings(version="580.95.05"))
    assert (document["action"], document["initramfs"], document["restart"]) == ("configure", True, OLLAMA)


def test_a_removal_that_was_interrupted_makes_the_initramfs_anew() -> None:
    host = installed()
    del host["driver"]["managed"][_driver_files.MODPROBE]
    gone = answer(remove=[{"name": name, "from": "580.95.05-0ubuntu1"} for name in SERVER])
    assert plan(host, settings(state="absent"), gone)["initramfs"] is False
    host["driver"]["journal"] = {**JOURNAL, "action": "remove", "to": None}
    assert plan(host, settings(state="absent"), gone)["initramfs"] is True
    # All of it went before the initramfs was made.
    bare = facts()
    bare["driver"]["journal"] = {**JOURNAL, "action": "remove", "to": None, "containers": []}
    document = plan(bare, settings(state="absent"))
    assert (document["status"], document["action"], document["initramfs"]) == ("change", "configure", True)


# -- a driver that is left alone, and an interrupted run beside it ---------------------------------------------------


@pytest.mark.parametrize(("given", "why"), [({"state": "unmanaged"}, "driver.state"), ({"policy": "keep"}, "driver.policy")])
def test_a_driver_that_is_left_alone_is_in_the_way_of_nothing(given: dict[str, str], why: str) -> None:
    apart = installed()
    apart["driver"]["mismatch"] = True
    vgpu = installed()
    vgpu["host"]["vgpu"] = True
    for host, codes_told in ((facts(), ["DG711"]), (apart, ["DG712"]), (vgpu, []), (facts("sles", "15.6"), ["DG711"]), ({}, ["DG715"])):
        document = plan(host, settings(**given))
        assert set(document) == KEYS
        assert (document["status"], document["action"], document["blocked"]) == ("ok", "none", []), host
        assert document["reason"].startswith(f"{why} (nvidia_{why.replace('.', '_')}) is ")
        assert document["reason"].endswith("and the driver is left as it is")
        assert [note["code"] for note in document["warnings"]] == codes_told


def test_containers_of_an_interrupted_run_are_started_whatever_is_in_the_way() -> None:
    host = installed()
    host["driver"]["journal"] = JOURNAL
    assert plan(host, settings(state="unmanaged"))["restart"] == OLLAMA
    assert plan(host, settings(policy="keep"))["restart"] == OLLAMA
    # Blocked before packages are looked at, and by their answer.
    assert plan(host, settings(version="595.71.05", reboot="never"))["restart"] == OLLAMA
    query = plan(host, settings(version="595.71.05"))["query"]
    document = plan(host, settings(version="595.71.05"), answer(available={"580": ["580.95.05"]}))
    assert query is not None and (codes(document), document["restart"]) == (["DG774"], OLLAMA)


@pytest.mark.parametrize(
    "changed",
    [
        {"mismatch": True},
        {"mismatch": None},
        {"loaded": {"version": "580.65.06", "flavour": "open"}},
        {"loaded": None},
        {"broken": [{"name": "nvidia-utils-580-server", "version": "1", "state": "unpacked"}]},
    ],
)
def test_containers_are_not_started_on_a_driver_that_does_not_work(changed: dict[str, Any]) -> None:
    host = installed()
    host["driver"].update(journal=JOURNAL, **changed)
    assert plan(host, settings(state="unmanaged"))["restart"] == []
    document = plan(host, settings(version="595.71.05", reboot="never"), answer())
    assert (document["status"], document["restart"]) == ("blocked", [])


def test_libraries_that_are_gone_start_no_container() -> None:
    host = installed()
    host["driver"].update(journal=JOURNAL, installed=None)
    assert plan(host, settings(state="unmanaged"))["restart"] == OLLAMA
    host["nvml"]["source"] = "sysfs"
    assert plan(host, settings(state="unmanaged"))["restart"] == []


def test_a_fabric_manager_that_is_missing_comes_alone() -> None:
    host = installed()
    host["host"]["nvswitches"] = 4
    host["driver"]["fabric_manager"] = {"installed": False, "version": None, "running": None, "enabled": None, "needed": True}
    first = plan(host, settings(version="580.95.05"))
    assert (first["action"], first["query"]["also"]["fabric manager"]) == ("configure", ["nvidia-fabricmanager-580"])
    manager = {"name": "nvidia-fabricmanager-580", "from": None, "to": "580.95.05-0ubuntu1"}
    document = plan(host, settings(version="580.95.05"), answer(first["query"], "580.95.05", install=[manager]))
    assert document["packages"]["specs"] == ["nvidia-fabricmanager-580=580.95.05-0ubuntu1"]
    assert [service["name"] for service in document["services"]] == ["nvidia-persistenced", "nvidia-fabricmanager"]


# -- a driver that goes ----------------------------------------------------------------------------------------------


def test_removal_takes_everything_of_the_role_away() -> None:
    host = installed()
    paths = [_driver_files.APT_SOURCES, _driver_files.APT_KEY]
    host["driver"]["managed"].update({path: {"sha256": "x", "mode": "0644"} for path in paths})
    wanted = settings(state="absent")
    first = plan(host, wanted)
    assert (first["exact"], first["query"]["state"], first["query"]["branch"]) == (False, "absent", None)
    gone = [{"name": name, "from": "580.95.05-0ubuntu1", "to": None} for name in [*SERVER, "dkms"]]
    document = plan(host, wanted, answer(remove=gone))
    assert (document["exact"], document["action"], document["to"], document["target"]) == (True, "remove", None, None)
    assert [package["name"] for package in document["packages"]["remove"]] == [*SERVER, "dkms"]
    assert document["pins"]["release"]["holds"] == SERVER
    assert {**document["files"], **document["pins"]["files"]} == dict.fromkeys(host["driver"]["managed"])
    assert (document["pins"]["holds"], document["services"], document["initramfs"]) == (False, [], True)


def test_removal_resets_the_module_stream() -> None:
    host = with_driver(facts("rocky", "9.5"), "580.95.05", ["nvidia-driver-cuda"], origin="nvidia")
    host["driver"]["managed"] = {_driver_files.YUM_REPO: {"sha256": "x"}}
    host["driver"]["installed"]["pins"] = [{"kind": "module_stream", "name": "nvidia-driver", "value": "580-open", "path": None}]
    document = plan(host, settings(state="absent"), answer(remove=[{"name": "nvidia-driver-cuda", "from": "580"}]))
    assert document["packages"]["stream"] == {"name": "nvidia-driver", "stream": None, "reset": True}
    assert document["files"] == {_driver_files.YUM_REPO: None}


def test_a_driver_that_others_need_is_not_removed() -> None:
    document = plan(
        installed(), settings(state="absent"), answer(error="nvidia-utils-580-server is needed by cuda, which the driver did not bring.")
    )
    assert "DG793 driver 580.95.05 cannot be removed: nvidia-utils-580-server is needed by cuda" in sentence(document)


def test_nothing_to_remove() -> None:
    assert plan(facts(), settings(state="absent"))["status"] == "ok"


# -- what is in the way ----------------------------------------------------------------------------------------------


def blocked(packages: dict[str, Any], host: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    document = plan(facts() if host is None else host, settings(**{"branch": "580", **given}), packages)
    assert document["status"] == "blocked"
    assert set(document) == KEYS
    assert (document["packages"]["specs"], document["files"], document["pins"]["files"], document["activation"]) == ([], {}, {}, "none")
    return document


def test_a_branch_that_does_not_exist_names_what_there_is_newest_first() -> None:
    found = answer(available={"470": ["470.256.02"], "580": ["580.105.08", "580.95.05"], "595": ["595.71.05"]}, error="x is nowhere.")
    text = sentence(blocked(found, branch="570"))
    assert text == (
        "DG774 driver of branch 570 with the open kernel modules cannot be had from the distribution; of other branches 595.71.05, "
        "580.105.08, 470.256.02 -> set driver.branch (nvidia_driver_branch) to one of these, "
        "or driver.source (nvidia_driver_source) to nvidia"
    )


def test_a_version_that_is_gone_names_those_of_its_branch_first() -> None:
    versions = [f"580.{number}.01" for number in range(110, 102, -1)]
    text = sentence(blocked(answer(available={"580": versions, "595": ["595.71.05"]}), version="580.95.05"))
    assert (
        "of branch 580 there are 580.110.01, 580.109.01, 580.108.01, 580.107.01, 580.106.01 and 3 more; of other branches 595.71.05" in text
    )
    assert "set driver.version (nvidia_driver_version) to one of these" in text


def test_a_name_that_leads_to_another_branch_is_seen_through() -> None:
    query = plan(facts(), settings(branch="535"))["query"]
    available = {"535": ["535.309.01"], "580": ["580.178.04"]}
    text = sentence(blocked(answer(query, "580.178.04", available=available), branch="535"))
    assert "nvidia-headless-no-dkms-535-server leads to driver 580.178.04; of other branches 580.178.04 ->" in text
    assert "535.309.01" not in text
    told = "nvidia-utils-535-server leads to driver 580.178.04, not to branch 535."
    text = sentence(blocked(answer(version=None) | {"version": "580.178.04", "available": available, "error": told}, branch="535"))
    assert told.rstrip(".") in text
    assert "535.309.01" not in text


def test_prebuilt_modules_where_there_are_none() -> None:
    text = sentence(blocked(answer(), facts("debian", "13"), branch="550", kernel_modules="prebuilt", source="distribution"))
    assert "DG774 driver.kernel_modules (nvidia_driver_kernel_modules) is prebuilt, and the distribution has no prebuilt modules" in text


def test_no_package_lists() -> None:
    assert sentence(blocked(answer(lists_at=None, error="E: nothing."))).startswith(
        "DG783 there are no package lists on the host: E: nothing."
    )


def test_the_lock_of_another_process() -> None:
    text = sentence(blocked(answer(locked_by={"pid": 4711, "name": "unattended-upgr"})))
    assert text.startswith("DG780 the package manager is locked by process 4711 (unattended-upgr)")


def test_packages_of_others_that_are_broken() -> None:
    broken = [
        {"name": "postgresql", "version": "16", "state": "half-configured"},
        {"name": "nvidia-smi", "version": "1", "state": "unpacked"},
    ]
    text = sentence(blocked(answer(broken=broken)))
    assert text.startswith("DG781 packages that are not the driver's are half installed")
    assert "postgresql (half-configured)" in text
    assert "nvidia-smi" not in text


@pytest.mark.parametrize(
    ("free", "told"),
    [
        ({"/usr": 800, "/var": 5000, "/boot": 500}, "/usr has 800 MiB free and 900 are needed"),
        ({"/usr": 5000, "/var": 100, "/boot": 500}, "/var has 100 MiB free and 300 are needed"),
        ({"/usr": 1000, "/var": 1000, "/boot": 500}, "/usr has 1000 MiB free and 1200 are needed"),
        ({"/usr": 5000, "/var": 6000, "/boot": 0}, "/boot has 0 MiB free and 64 are needed"),
    ],
)
def test_a_full_disk(free: dict[str, int], told: str) -> None:
    query = plan(facts(), settings(branch="580"))["query"]
    text = sentence(blocked(answer(query, "580.95.05", free_mib=free)))
    assert text.startswith(f"DG782 there is not enough disk space for the packages: {told} ->")


def test_kernel_headers_that_are_nowhere() -> None:
    host = facts("debian", "12", scenarios.V100)
    found = answer(plan(host, settings(branch="535"))["query"], "535.261.03")
    found["also"] = {purpose: name for purpose, name in found["also"].items() if "headers" not in purpose}
    text = sentence(blocked(found, host, branch="535"))
    assert text.startswith("DG779 the kernel modules are built on the host, and there are no headers for kernel 6.1.0-40-amd64")
    assert "linux-headers-6.1.0-40-amd64 cannot be had" in text
    host["host"]["kernel"]["headers"] = ["6.1.0-40-amd64"]
    assert plan(host, settings(branch="535"), found)["status"] == "change"


def test_the_fabric_manager_of_another_version() -> None:
    host = facts()
    host["host"]["nvswitches"] = 4
    host["driver"]["fabric_manager"]["needed"] = True
    query = plan(host, settings(branch="580"))["query"]
    found = answer(query, "580.95.05")
    found["also"]["fabric manager"] = None
    assert "DG786" in sentence(blocked(found, host))
    found = answer(query, "580.95.05")
    next(entry for entry in found["install"] if entry["name"] == "nvidia-fabricmanager-580")["to"] = "580.65.06-1"
    assert "nvidia-fabricmanager-580 is of version 580.65.06-1" in sentence(blocked(found, host))
    assert plan(host, settings(branch="580", fabric_manager="unmanaged"), answer(query, "580.95.05"))["status"] == "change"


def test_secure_boot_and_modules_that_only_the_host_can_build() -> None:
    host = facts()
    host["host"]["secure_boot"] = True
    query = plan(host, settings(branch="580"))["query"]
    dkms = next(number for number, names in enumerate(query["alternatives"]) if _driver_names.builds(names))
    assert plan(host, settings(branch="580"), answer(query, "580.95.05"))["status"] == "change"
    found = answer(query, "580.95.05", choice=dkms)
    assert sentence(blocked(found, host)).startswith("DG778 Secure Boot is on")
    host["host"]["dkms_key"] = {"path": "/var/lib/dkms/mok.pub", "enrolled": True}
    assert plan(host, settings(branch="580"), found)["status"] == "change"


def test_a_source_that_a_system_has_not() -> None:
    assert "DG773 driver.source (nvidia_driver_source) is distribution" in sentence(
        blocked(answer(), facts("rocky", "9.5"), source="distribution")
    )


# -- the repository's key --------------------------------------------------------------------------------------------

MIRROR = {"url": "https://mirror.example/cuda", "fingerprint": scenarios.KEY_FINGERPRINT}


def with_key(key: bytes | None, **repository: str) -> dict[str, Any]:
    host, wanted = facts("rocky", "9.5"), settings(repository={**MIRROR, **repository})
    return plan(host, wanted, answer(plan(host, wanted)["query"]), key)


def test_the_right_key_is_one_of_the_repositorys_files() -> None:
    assert set(with_key(None)["repository"]["files"]) == {_driver_files.YUM_REPO}
    document = with_key(scenarios.KEY)
    assert set(document["repository"]["files"]) == {_driver_files.YUM_REPO, _driver_files.RPM_KEY}
    # The role asks for the files with the key alone, and for the packages once they are there.
    alone = plan(facts("rocky", "9.5"), settings(repository=MIRROR), key=scenarios.KEY)
    assert (alone["repository"], alone["exact"]) == (document["repository"], False)
    assert document["repository"]["files"][_driver_files.RPM_KEY]["content"].startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert document["status"] == "change"


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b"<html>", "it is no OpenPGP key"),
        (scenarios.KEY + b"\x98\x06\x04\x00\x00\x00\x00\x01", f"it has {scenarios.KEY_FINGERPRINT}, "),
        (b"\x98\x06\x04\x00\x00\x00\x00\x01", "it has "),
    ],
)
def test_another_key_or_one_more_is_refused(key: bytes, found: str) -> None:
    text = sentence(with_key(key))
    assert text.startswith(
        "DG784 the key https://mirror.example/cuda/D42D0685.pub of the repository https://mirror.example/cuda/ is not the one expected"
    )
    assert scenarios.KEY_FINGERPRINT in text
    assert found in text


def test_a_key_whose_fingerprint_nobody_knows_is_refused_before_it_is_fetched() -> None:
    host = facts("rocky", "10.0")
    text = sentence(plan(host, settings(), answer(plan(host, settings())["query"])))
    assert text.startswith(
        "DG784 the fingerprint of the key https://developer.download.nvidia.com/compute/cuda/repos/rhel10/x86_64/CDF6BA43.pub"
    )
    assert "set fingerprint in driver.repository (nvidia_driver_repository)" in text


def test_a_file_on_the_controller_is_trusted() -> None:
    host, wanted = facts("rocky", "10.0"), settings(repository={"url": "https://mirror.example/cuda", "key": "/etc/keys/ours.asc"})
    document = plan(host, wanted, answer(plan(host, wanted)["query"]), scenarios.KEY)
    assert document["repository"]["key"] == {"source": "/etc/keys/ours.asc", "fingerprint": None, "path": _driver_files.RPM_KEY}
    assert _driver_files.RPM_KEY in document["repository"]["files"]


def test_a_repository_that_is_as_it_should_be_needs_no_key() -> None:
    second = with_key(scenarios.KEY)
    host = facts("rocky", "9.5")
    host["driver"]["managed"] = {path: {"sha256": file["sha256"], "mode": "0644"} for path, file in second["repository"]["files"].items()}
    wanted = settings(repository=MIRROR)
    document = plan(host, wanted, answer(plan(host, wanted)["query"], "580.95.05"))
    assert (document["exact"], document["repository"]["change"]) == (True, False)


def with_repository(host: dict[str, Any], path: str, **repository: str) -> dict[str, Any]:
    """Return a host on which the role wrote a repository file for other options, and the key."""
    key_path = _driver_files.APT_KEY if path == _driver_files.APT_SOURCES else _driver_files.RPM_KEY
    host["driver"]["managed"].update({path: {"sha256": "0" * 64, "mode": "0644"}, key_path: {"sha256": "1" * 64, "mode": "0644"}})
    return host


@pytest.mark.parametrize(
    ("host", "path", "key_path"),
    [
        (installed(origin="nvidia"), _driver_files.APT_SOURCES, _driver_files.APT_KEY),
        (
            with_driver(facts("rocky", "9.5"), "580.95.05", ["nvidia-driver-cuda"], "-1.el9", origin="nvidia"),
            _driver_files.YUM_REPO,
            _driver_files.RPM_KEY,
        ),
    ],
)
def test_a_repository_file_that_is_not_as_the_options_tell_is_mended_first(host: dict[str, Any], path: str, key_path: str) -> None:
    host = with_repository(copy.deepcopy(host), path)
    wanted = settings(version="580.95.05", repository=MIRROR)
    document = plan(host, wanted)
    assert (document["status"], document["action"], document["exact"], document["query"]) == ("change", "configure", True, None)
    assert f"{path} differs" in document["reason"]
    assert (document["repository"]["change"], set(document["repository"]["files"])) == (True, {path})
    assert "mirror.example" in document["repository"]["files"][path]["content"]
    assert document["repository"]["key"]["fingerprint"] == scenarios.KEY_FINGERPRINT
    keyed = plan(host, wanted, key=scenarios.KEY)
    assert set(keyed["repository"]["files"]) == {path, key_path}
    assert codes(plan(host, wanted, key=b"no key")) == ["DG784"]
    # Another driver: the file is written before the host is asked what it could get.
    other = settings(version="595.71.05", repository=MIRROR)
    first = plan(host, other)
    assert (first["exact"], first["repository"]["change"], first["query"]["version"]) == (False, True, "595.71.05")
    assert first["repository"] == document["repository"]
    # The second time it is as it should be.
    file = document["repository"]["files"][path]
    host["driver"]["managed"][path] = {"sha256": file["sha256"], "mode": "0644"}
    again = plan(host, wanted)
    assert again["repository"] is None and f"{path} differs" not in again["reason"]
    assert plan(host, other)["repository"] is None


def test_repositories_that_options_alone_do_not_tell_wait_for_the_answer() -> None:
    # Of the distribution: what is added hangs on the sources of the host.
    host = with_repository(installed(), _driver_files.APT_SOURCES)
    assert plan(host, settings(version="580.95.05"))["status"] == "ok"
    assert plan(host, settings(version="595.71.05"))["repository"] is None
    # The driver that stays came from elsewhere than the source that is named.
    assert plan(host, settings(version="580.95.05", source="nvidia", repository=MIRROR))["status"] == "ok"
    # A file of somebody else's is not the role's to write.
    assert plan(installed(origin="nvidia"), settings(version="580.95.05", repository=MIRROR))["repository"] is None


# -- what EPEL has ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "version", "error", "epel"),
    [
        ("rocky", "9.5", "nothing provides dkms needed by kmod-nvidia-open-dkms-3:580.95.05-1.el9.noarch.", True),
        ("rocky", "9.5", "nothing provides dkms >= 3.1.8 needed by kmod-nvidia-open-dkms.", True),
        ("rocky", "9.5", "kmod-nvidia-open-dkms is in no repository of this host.", False),
        ("amzn", "2023", "nothing provides dkms needed by kmod-nvidia-open-dkms.", False),
    ],
)
def test_dkms_of_enterprise_linux_is_in_epel(system: str, version: str, error: str, epel: bool) -> None:
    host, wanted = facts(system, version), settings(branch="580", repository=MIRROR)
    sources = scenarios.sources_of(plan(host, wanted, answer()))
    text = sentence(plan(host, wanted, answer(error=error, available={"580": ["580.95.05"]}, sources=sources)))
    assert text.startswith("DG774") and ("enable EPEL" in text) is epel
    assert ("to one of these" in text) is not epel


# -- headers of later kernels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "names"),
    [
        ("6.1.0-40-amd64", ["linux-headers-amd64"]),
        ("6.1.0-40-cloud-amd64", ["linux-headers-cloud-amd64"]),
        ("6.12.43+deb13-rt-amd64", ["linux-headers-rt-amd64"]),
        ("6.1.0-40-arm64", ["linux-headers-arm64"]),
        ("6.12.9+bpo-amd64", None),
        ("6.1.0-custom", None),
    ],
)
def test_later_kernels_of_debian_get_their_headers_too(kernel: str, names: list[str] | None) -> None:
    host = facts("debian", "12", scenarios.V100)
    # Those of the kernel of now are there already.
    host["host"]["kernel"] = {"running": kernel, "next": kernel, "headers": [kernel]}
    wanted = settings(branch="535")
    assert plan(host, wanted)["query"]["also"].get("headers of later kernels") == names
    unmanaged = plan(host, settings(branch="535", kernel_headers="unmanaged"))["query"]["also"]
    assert "headers of later kernels" not in unmanaged
    if names is None:
        return
    document = settled(host, wanted, "535.261.03")
    assert names[0] in document["packages"]["specs"]
    # They are no condition.
    found = answer(plan(host, wanted)["query"], "535.261.03")
    found["also"]["headers of later kernels"] = None
    assert plan(host, wanted, {**found, "install": [one for one in found["install"] if one["name"] != names[0]]})["status"] == "change"
    assert "headers of later kernels" not in plan(facts(), settings(branch="580"))["query"]["also"]


# -- properties ------------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
names = st.sampled_from(["nvidia-utils-580-server", "libcuda1", "dkms", "linux-headers-x", "nvidia-driver-pinning-580", "", "x"])
packages = st.lists(
    st.fixed_dictionaries({"name": names | anything, "from": st.none() | st.just("1"), "to": st.sampled_from(["580.95.05-1", "1", None])}),
    max_size=6,
)
answers = st.fixed_dictionaries(
    {},
    optional={
        "choice": st.integers(-1, 9) | anything,
        "version": st.sampled_from(["580.95.05", "535.1.1", None]) | anything,
        "install": packages | anything,
        "remove": packages | anything,
        "also": st.dictionaries(st.sampled_from(["pinning", "fabric manager", f"headers {UBUNTU}"]), names | anything) | anything,
        "available": st.dictionaries(st.text(max_size=4), anything) | anything,
        "locked_by": anything,
        "broken": packages | anything,
        "sources": anything,
        "lists_at": st.text(max_size=3) | anything,
        "free_mib": anything,
        "needed_mib": anything,
        "download_mib": anything,
        "brought": anything,
        "error": anything,
    },
)
hosts = st.sampled_from(
    [
        ("ubuntu", {"branch": "580"}),
        ("ubuntu", {"source": "nvidia"}),
        ("debian", {}),
        ("rocky", {}),
        ("amzn", {"pin": "branch"}),
        ("kept", {"state": "absent"}),
    ]
)
RELEASES = {"ubuntu": "24.04", "debian": "13", "rocky": "9.5", "amzn": "2023"}


@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(hosts, answers, st.none() | st.binary(max_size=20) | st.just(scenarios.KEY))
def test_no_answer_is_a_surprise(system: tuple[str, dict[str, str]], found: dict[str, Any], key: bytes | None) -> None:
    name, given_settings = system
    host = installed() if name == "kept" else facts(name, RELEASES[name])
    document = plan(host, settings(**given_settings), found, key)
    assert set(document) == KEYS
    assert (document["status"] == "blocked") == bool(document["blocked"])
    known = {package["name"]: package["to"] for package in document["packages"]["install"]}
    for spec in document["packages"]["specs"]:
        whole = [package for package, to in known.items() if spec in (package, f"{package}={to}", f"{package}-{to}")]
        assert whole, spec
    if not document["exact"] or document["status"] == "blocked":
        assert not document["packages"]["specs"]
        assert not document["packages"]["install"]
    if document["packages"]["install"]:
        # Each package of the driver has its version, so that no other one is taken.
        of_driver = {package for package, to in known.items() if _driver_names.is_driver(package) and to}
        assert of_driver <= {
            package
            for package in known
            if {f"{package}={known[package]}", f"{package}-{known[package]}"} & set(document["packages"]["specs"])
        }
