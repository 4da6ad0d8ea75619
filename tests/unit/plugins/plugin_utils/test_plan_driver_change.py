# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of the driver takes, and what is in its way: the rule as a table, and what must hold whatever the host is like."""

from __future__ import annotations

import copy
import fnmatch
import itertools
from unittest import mock

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver, _driver_files, _driver_guard, _driver_source, _host, _planner
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import CHOICES, Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import (
    A10,
    H100,
    TODAY,
    V100,
    applied,
    gpu,
    nvidia,
    plan,
    without_gpu,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EVERYTHING = frozenset(_planner.PARTS)
OLD, NEW = "535.247.01", "580.95.05"
KERNEL, NEXT = "6.12.9-amd64", "6.12.12-amd64"


def codes(blocks):
    return [block.code for block in blocks]


def decided(facts, applied=True, **wanted):
    """Return what becomes of the driver, nothing of pins and files counting: what differs of those is told elsewhere."""
    host = _host.read(facts)
    with mock.patch.object(_driver_files, "differences", return_value=()):
        return _driver.decide(host, host.present, Settings(**wanted), applied, TODAY)


def driver(loaded=None, installed=None, flavour="open", **changed):
    """Return the facts of a host with an A10 and a loaded and an installed driver, each None or a version."""
    bound = {} if loaded else {"bound_driver": None, "index": None}
    facts = nvidia(loaded, [gpu(A10, processes=[], **bound)])
    facts["engine"]["gpu_containers"] = []
    facts["driver"].update(
        loaded={"version": loaded, "flavour": flavour} if loaded else None,
        installed={"version": installed, "flavour": flavour, "packages": [], "pins": []} if installed else None,
        modules={KERNEL: {"version": installed, "flavour": flavour, "signer": None, "path": "/x"}} if installed else {},
        broken=[],
        managed={},
        journal=None,
    )
    facts["driver"].update(changed)
    return facts


def held_by_nouveau():
    facts = driver()
    facts["gpus"][0]["bound_driver"] = "nouveau"
    facts["host"]["nouveau_loaded"] = True
    return facts


def for_the_next_kernel():
    facts = driver(None, NEW, next_kernel_has_module=True)
    facts["host"]["kernel"]["next"] = NEXT
    facts["driver"]["modules"] = {KERNEL: None, NEXT: {"version": NEW, "flavour": "open"}}
    return facts


# State, action for the version NEW, and by (reload, reboot) allowed how the kernel gets the driver; None: the consent is missing.
FIRST = {(False, False): "load", (True, False): "load", (False, True): "load", (True, True): "load"}
AT_A_REBOOT = {(False, False): "later", (True, False): "later", (False, True): "reboot", (True, True): "reboot"}
EXCHANGED = {(False, False): None, (True, False): "reload", (False, True): "reboot", (True, True): "reload"}
BY_REBOOT = {(False, False): None, (True, False): None, (False, True): "reboot", (True, True): "reboot"}
NOTHING = dict.fromkeys(FIRST, "none")
STATES = {
    "bare": (driver(), "install", FIRST),
    "bare, held by nouveau": (held_by_nouveau(), "install", AT_A_REBOOT),
    "installed, not loaded": (driver(None, NEW), "configure", FIRST),
    "installed for the next kernel": (for_the_next_kernel(), "configure", AT_A_REBOOT),
    "installed, for no kernel": (driver(None, NEW, modules={KERNEL: None}), "install", FIRST),
    "another one installed, not loaded": (driver(None, OLD), "upgrade", FIRST),
    "as wanted": (driver(NEW, NEW), "none", NOTHING),
    "another one": (driver(OLD, OLD), "upgrade", EXCHANGED),
    "a newer one": (driver("595.45.04", "595.45.04"), "upgrade", EXCHANGED),
    "another one loaded": (driver(OLD, NEW), "configure", EXCHANGED),
    "mismatch": (driver(OLD, NEW, mismatch=True), "configure", EXCHANGED),
    "mismatch the other way": (driver(NEW, OLD, mismatch=True), "upgrade", NOTHING),
    "another one loaded, for the next kernel": (
        driver(OLD, NEW, modules={KERNEL: {"version": OLD}, NEXT: {"version": NEW}}),
        "configure",
        BY_REBOOT,
    ),
}
STATES["another one loaded, for the next kernel"][0]["host"]["kernel"]["next"] = NEXT


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("reload, reboot", FIRST)
def test_the_table_of_states_and_consents(state, reload, reboot):
    facts, action, ways = STATES[state]
    consents = {"reload": "if_possible" if reload else "never", "reboot": "if_needed" if reboot else "never"}
    found = decided(facts, version=NEW, **consents)
    way = ways[reload, reboot]
    assert found.action == action
    if way is None:
        assert codes(found.blocks) == ["DG775"] and found.changes is False
        remedy = found.blocks[0].remedy
        assert "driver.reboot (nvidia_driver_reboot) to if_needed" in remedy
        # A reload is named where it would help.
        assert ("driver.reload (nvidia_driver_reload) to if_possible" in remedy) is (ways is EXCHANGED)
        return
    assert (found.activation, found.blocks) == (way, ())
    assert (found.reboot is not None) is (way in ("reboot", "later"))
    assert found.fallback == ("reboot" if way in ("load", "reload") and reboot else None)
    assert (found.guard is not None) is (way in ("reload", "reboot"))
    assert found.expected is not None and found.expected.version == NEW


PROCESS = {"pid": 4711, "name": "python3", "type": "compute", "memory_mib": 512, "container": None}
INSIDE = {**PROCESS, "pid": 4712, "container": {"id": "c0ffee", "name": "ollama"}}
OLLAMA = {"id": "c0ffee", "name": "ollama", "how": "cdi", "devices": ["nvidia.com/gpu=all"]}
DIFY = {"id": "badcafe", "name": "dify-gpu-dify-gpu-1", "how": "cdi", "devices": ["nvidia.com/gpu=0"]}
ADMIN = {"id": "ad314", "name": "monitor", "how": "privileged", "devices": []}
USERS = {
    "nobody": ([], [], []),
    "a process": ([PROCESS], [], ["python3"]),
    "a container": ([], [OLLAMA], ["ollama"]),
    "a container with a process": ([INSIDE], [OLLAMA], ["ollama"]),
    "a container of which only the process is known": ([INSIDE], [], ["ollama"]),
    "a privileged container": ([], [ADMIN], []),
    "a privileged container with a process": ([{**PROCESS, "container": {"id": "ad314", "name": "monitor"}}], [ADMIN], ["monitor"]),
    "two containers": ([], [OLLAMA, DIFY], ["ollama", "dify-gpu-dify-gpu-1"]),
    "a container and a process": ([PROCESS], [DIFY], ["dify-gpu-dify-gpu-1", "python3"]),
}


@pytest.mark.parametrize("who", USERS)
@pytest.mark.parametrize("busy, drained", [("refuse", ()), ("wait", ()), ("drain", ()), ("drain", ("dify-*",)), ("drain", ("*",))])
def test_the_table_of_users_and_policies(who, busy, drained):
    processes, containers, names = USERS[who]
    facts = driver(OLD, OLD)
    facts["gpus"][0]["processes"], facts["engine"]["gpu_containers"] = processes, containers
    found = decided(facts, version=NEW, reboot="if_needed", busy=busy, drain_containers=drained)
    assert [user.name for user in found.guard.users] == names
    stopped = [name for name in names if name != "python3" and any(fnmatch.fnmatchcase(name, glob) for glob in drained)]
    assert [container.name for container in found.guard.stop] == stopped
    left = [] if busy == "wait" else [name for name in names if name not in stopped]
    assert codes(found.blocks) == (["DG776"] if left else [])
    assert (found.changes, found.activation) == (not left, "reboot")
    assert all(name in found.blocks[0].message for name in left)
    assert not any(name in found.blocks[0].message for name in stopped if left)
    # Nothing that runs is touched by a driver that is loaded for the first time.
    assert decided({**facts, "driver": driver()["driver"]}, version=NEW, reboot="if_needed").guard is None


ONCE = {**OLLAMA, "auto_remove": True}


@pytest.mark.parametrize("busy, drained", [("refuse", ()), ("wait", ()), ("drain", ("ollama",)), ("drain", ("*",))])
def test_a_container_that_would_be_gone_is_never_stopped(busy, drained):
    facts = driver(OLD, OLD)
    for auto_remove, stays in ((True, True), (False, False), (None, False)):
        facts["engine"]["gpu_containers"] = [{**OLLAMA, "auto_remove": auto_remove}, DIFY]
        found = decided(facts, version=NEW, reboot="if_needed", busy=busy, drain_containers=drained)
        stopped = [container.name for container in found.guard.stop]
        assert stopped == [name for name in ("ollama", DIFY["name"]) if any(fnmatch.fnmatchcase(name, glob) for glob in drained)][stays:]
        assert any("removed when it stops" in user.what for user in found.guard.users) is stays
        assert ("ollama" in " ".join(block.message for block in found.blocks)) is (busy == "refuse" or (stays and busy == "drain"))
    facts["engine"]["gpu_containers"] = [ONCE]
    found = decided(facts, version=NEW, reboot="if_needed", busy="drain", drain_containers=("*",))
    assert codes(found.blocks) == ["DG776"] and "so it is never stopped for you" in found.blocks[0].message
    # A name in drain_containers would not help.
    assert "drain_containers" not in found.blocks[0].remedy and "driver.busy (nvidia_driver_busy) to wait" in found.blocks[0].remedy


SILENT = {
    "hangs": ({"running": False, "error": "The container engine did not answer within 5 seconds."}, True),
    "hangs later": ({"running": True, "error": "The container engine did not answer within 5 seconds."}, True),
    "belongs to root": (
        {"running": False, "error": "The container engine cannot be asked: permission to its socket is denied; become root."},
        True,
    ),
    "tells nothing": ({"running": True}, True),
    "is not known": ({"running": None}, True),
    "was stopped": (
        {"running": False, "error": "The container engine does not answer: /run/docker.sock: No such file or directory."},
        False,
    ),
    "left its socket": ({"running": False, "error": "The container engine does not answer: /run/docker.sock: Connection refused."}, False),
    "does not run": ({"running": False}, False),
    "is podman, which tells of no containers": ({"name": "podman", "running": True}, False),
    "is not there": ({"name": None, "running": False}, False),
}


@pytest.mark.parametrize("engine", SILENT)
@pytest.mark.parametrize("busy", ["refuse", "wait", "drain"])
def test_an_engine_that_tells_of_no_containers(engine, busy):
    changed, unknown = SILENT[engine]
    facts = driver(OLD, OLD)
    facts["engine"].update(gpu_containers=None, **changed)
    found = decided(facts, version=NEW, reboot="if_needed", busy=busy)
    assert codes(found.blocks) == (["DG776"] if unknown and busy != "wait" else [])
    for block in found.blocks:
        assert block.message.startswith("which containers have a GPU could not be asked: ")
        assert "bring the engine to answer, or stop it" in block.remedy and "to wait" not in block.remedy
    facts["gpus"][0]["processes"] = [PROCESS]
    found = decided(facts, version=NEW, reboot="if_needed", busy=busy)
    assert codes(found.blocks) == ([] if busy == "wait" else ["DG776"])
    assert all(("python3" in block.message, "could not be asked" in block.message) == (True, unknown) for block in found.blocks)
    # A driver that is loaded for the first time is in nobody's hands.
    assert decided({**facts, "driver": driver()["driver"]}, version=NEW, reboot="if_needed", busy=busy).blocks == ()


def test_a_first_driver_that_cannot_be_loaded_yet_waits_for_the_operator():
    bound = held_by_nouveau()
    made = plan(bound, {}, driver=Settings(), apply=frozenset({"driver"}))
    assert (made["status"], made["parts"]["driver"]["action"], made["reboot"]["required"]) == ("change", "install", True)
    note = next(note for note in made["warnings"] if note["code"] == "DG791")
    assert "takes the GPU over from nouveau" in note["message"]
    allowed = plan(bound, {}, driver=Settings(reboot="if_needed"), apply=frozenset({"driver"}))
    assert allowed["reboot"]["required"] is True and "DG791" not in [note["code"] for note in allowed["warnings"]]


def test_everything_in_the_way_is_told_at_once():
    facts = driver(OLD, OLD)
    facts["gpus"][0]["processes"] = [PROCESS]
    facts["host"]["secure_boot"] = True
    facts["host"]["kernel"]["headers"] = []
    facts["driver"]["installed"]["pins"] = [{"kind": "hold", "name": "nvidia-driver", "value": None, "path": None}]
    found = decided(facts, version=NEW, kernel_headers="unmanaged")
    assert codes(found.blocks) == ["DG777", "DG778", "DG775", "DG776"]
    made = plan(facts, {}, driver=Settings(version=NEW, kernel_headers="unmanaged"), apply=EVERYTHING)
    assert [block["code"] for block in made["blocked"]] == codes(found.blocks)
    assert {part["action"] for part in made["parts"].values()} <= {"none", "blocked"}
    assert made["parts"]["driver"]["action"] == "blocked" and made["reboot"]["required"] is False


def test_which_processes_are_there_is_not_guessed():
    facts = driver(OLD, NEW, mismatch=True)
    facts["gpus"][0]["processes"] = None
    found = decided(facts, reboot="if_needed")
    assert (found.activation, found.guard.users) == ("reboot", ()) and "could not be asked" in found.reason
    facts["driver"]["users"] = [{"pid": 4711, "name": "train", "container": None}, {"pid": 4712, "name": "sh", "container": OLLAMA}]
    found = decided(facts, reboot="if_needed")
    assert codes(found.blocks) == ["DG776"] and "process 4711 (train): a GPU is open" in found.blocks[0].message
    assert [user.name for user in found.guard.users] == ["ollama", "train"] and "could not be asked" not in found.reason


# --- rules of others ---

PREFERENCE = "/etc/apt/preferences.d/difyops-nvidia-driver.pref"
HOLD = {"kind": "hold", "name": "nvidia-driver-535-server", "value": None, "path": None}
LOCK = {"kind": "versionlock", "name": "nvidia-driver", "value": "3:535.247.01", "path": "/etc/dnf/plugins/versionlock.list"}
STREAM = {"kind": "module_stream", "name": "nvidia-driver", "value": "535", "path": "/etc/dnf/modules.d/nvidia-driver.module"}


def pinned(value, path="/etc/apt/preferences.d/site"):
    return {"kind": "preference", "name": "nvidia-*", "value": value, "path": path}


def locked(value):
    return {**LOCK, "value": value}


def excluded(value):
    return {"kind": "exclude", "name": "nvidia*", "value": value, "path": "/etc/dnf/dnf.conf"}


@pytest.mark.parametrize(
    "pin, managed, keeps_away, replaceable",
    [
        (HOLD, [], True, True),
        (HOLD, [PREFERENCE], False, None),
        (HOLD, ["/etc/apt/apt.conf.d/52difyops-nvidia-driver"], False, None),
        (HOLD, ["/etc/modprobe.d/difyops-nvidia-driver.conf"], True, True),
        (LOCK, [], True, True),
        (LOCK, ["/etc/yum.repos.d/difyops-nvidia-driver.repo"], False, None),
        (STREAM, [], True, True),
        (STREAM, ["/etc/yum.repos.d/difyops-nvidia-driver.repo"], False, None),
        ({**STREAM, "value": "disabled"}, [], True, True),
        ({**STREAM, "value": "580-open"}, [], False, None),
        (pinned("version 535.247.01-1, priority 1001"), [], True, False),
        (pinned("version 535.247.01-1, priority 1001", PREFERENCE), [PREFERENCE], False, None),
        (pinned("version 580.95.05*, priority 1001"), [], False, None),
        (pinned("version 580.9*, priority 1001"), [], False, None),
        (pinned("version 580.65.06-1, priority 1001"), [], True, False),
        (pinned("version 580.*, priority -1"), [], True, False),
        (pinned("version 535.*, priority -1"), [], False, None),
        (pinned("origin mirror.example.org, priority -1"), [], True, False),
        (pinned("release l=NVIDIA CUDA, priority 600"), [], False, None),
        (locked("!580.95.05"), [], True, True),
        (locked("!580.65.06"), [], False, None),
        (locked("580.*"), [], False, None),
        (excluded(None), [], True, False),
        (excluded("cuda-rhel9-x86_64"), [], False, None),
        (excluded("580.95.05"), [], True, False),
        (excluded("535.247.01"), [], False, None),
        ({"kind": "blocklist", "name": "nvidia", "value": None, "path": "/x"}, [], False, None),
    ],
)
def test_the_table_of_rules(pin, managed, keeps_away, replaceable):
    facts = driver(OLD, OLD, managed={path: {"sha256": "0", "mode": "0644"} for path in managed})
    facts["driver"]["installed"]["pins"] = [pin]
    found = decided(facts, version=NEW, reboot="if_needed")
    assert codes(found.blocks) == ["DG777"] * keeps_away
    replaced = decided(facts, version=NEW, reboot="if_needed", foreign_pins="replace")
    assert codes(replaced.blocks) == ["DG777"] * (keeps_away and not replaceable)
    if replaced.blocks:
        assert pin["path"] in replaced.blocks[0].remedy and "foreign_pins" not in replaced.blocks[0].remedy
    # What stays is nobody's business, and what is not brought is a warning.
    assert decided(facts).blocks == () and decided(facts, applied=False, version=NEW).blocks == ()
    # Of all rules a hold keeps packages from going.
    gone = decided(facts, state="absent", reboot="if_needed")
    assert codes(gone.blocks) == ["DG777"] * (pin["kind"] == "hold" and keeps_away)


# --- the module ---


@pytest.mark.parametrize(
    "system, wanted, key, loaded, refused",
    [
        ("ubuntu", {"source": "distribution"}, None, None, False),
        ("ubuntu", {"source": "distribution", "kernel_modules": "dkms"}, None, None, True),
        ("ubuntu", {"source": "nvidia"}, None, None, True),
        ("ubuntu", {"source": "nvidia"}, {"path": "/var/lib/shim-signed/mok/MOK.der", "enrolled": True}, None, False),
        ("debian", {}, {"path": "/k", "enrolled": False}, None, True),
        ("debian", {}, {"path": "/k", "enrolled": None}, None, True),
        ("debian", {}, None, {"signer": "DKMS", "path": f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko"}, False),
        ("debian", {}, None, {"signer": None, "path": f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko"}, True),
        ("debian", {}, None, {"signer": "Canonical", "path": f"/lib/modules/{KERNEL}/kernel/nvidia.ko"}, True),
    ],
)
def test_secure_boot(system, wanted, key, loaded, refused):
    facts = driver(OLD, OLD) if loaded else driver()
    facts["host"]["os"].update(id=system, version="24.04" if system == "ubuntu" else "13")
    facts["host"].update(secure_boot=True, dkms_key=key)
    if loaded:
        facts["driver"]["modules"] = {KERNEL: {"version": OLD, "flavour": "open", **loaded}}
    found = decided(facts, version=NEW, reboot="if_needed", **wanted)
    assert codes(found.blocks) == ["DG778"] * refused
    assert not refused or (key or {}).get("path", "/var/lib/dkms/mok.pub") in found.blocks[0].remedy
    facts["host"]["secure_boot"] = None
    assert decided(facts, version=NEW, reboot="if_needed", **wanted).blocks == ()


def test_an_unsigned_module_that_is_there_is_not_loaded_under_secure_boot():
    facts = driver(None, NEW)
    facts["host"]["secure_boot"] = True
    found = decided(facts)
    assert (found.action, codes(found.blocks)) == ("configure", ["DG778"]) and KERNEL in found.blocks[0].message
    facts["driver"]["modules"][KERNEL].update(signer="DKMS module signing key", path="/lib/modules/x/updates/dkms/nvidia.ko")
    assert decided(facts).activation == "load"
    facts["host"]["dkms_key"] = {"path": "/var/lib/dkms/mok.pub", "enrolled": False}
    assert codes(decided(facts).blocks) == ["DG778"]


@pytest.mark.parametrize(
    "headers, wanted, missing",
    [
        ([KERNEL, NEXT], {}, None),
        ([KERNEL], {}, NEXT),
        ([], {}, f"{KERNEL} and {NEXT}"),
        (None, {}, None),
        ([], {"kernel_headers": "present"}, None),
        ([], {"kernel_modules": "prebuilt"}, None),
    ],
)
def test_headers_that_are_not_ours_to_bring(headers, wanted, missing):
    facts = driver()
    facts["host"]["kernel"] = {"running": KERNEL, "next": NEXT, "headers": headers}
    settings = Settings(**{"version": NEW, "kernel_headers": "unmanaged", **wanted})
    made = plan(facts, {}, driver=settings, apply=frozenset({"driver"}))
    assert made["status"] == "change", made["blocked"]
    notes = [note["message"] for note in made["warnings"] if note["code"] == "DG779"]
    assert len(notes) == bool(missing)
    assert missing is None or f"the headers of kernel {missing} are missing" in notes[0]


def test_a_driver_that_waits_for_headers_of_the_operator_has_nothing_to_do():
    facts = driver(None, NEW)
    facts["driver"]["modules"] = {KERNEL: None}
    facts["host"]["kernel"] = {"running": KERNEL, "next": None, "headers": []}
    unmanaged = Settings(version=NEW, kernel_headers="unmanaged")
    found = decided(facts, version=NEW, kernel_headers="unmanaged")
    assert (found.action, found.blocks, found.activation) == ("none", (), "none")
    assert f"the headers of kernel {KERNEL} are missing" in found.reason
    made = plan(facts, {}, driver=unmanaged, apply=frozenset({"driver"}))
    assert "DG779" in [note["code"] for note in made["warnings"]]
    assert plan(facts, {}, driver=unmanaged, apply=EVERYTHING)["status"] == "blocked", "nothing can be served without a module"
    assert decided(facts, version=NEW).action == "install", "headers that are ours to bring are brought"
    facts["host"]["kernel"]["headers"] = [KERNEL]
    assert decided(facts, version=NEW, kernel_headers="unmanaged").action == "install", "with headers the module can be built"


def test_the_package_of_nvidia_that_pins_the_driver_is_ours_on_a_host_of_ours():
    facts = driver(OLD, OLD)
    path = "/etc/apt/preferences.d/nvidia-driver-pinning-595.91.07.pref"
    rule = {"kind": "preference", "name": "*nvidia*", "value": "version 595.91.07-*, priority 1001", "path": path}
    facts["driver"]["installed"]["pins"] = [rule]
    assert codes(decided(facts, version=NEW, reboot="if_needed").blocks) == ["DG777"], "somebody else installed it"
    facts["driver"]["managed"] = {"/etc/modprobe.d/difyops-nvidia-driver.conf": {"sha256": "", "mode": "0644"}}
    assert decided(facts, version=NEW, reboot="if_needed").blocks == ()


# --- flavour, channel, source ---


def test_another_flavour_at_the_same_version_is_an_upgrade():
    facts = driver(NEW, NEW, "proprietary")
    for wanted in ({"version": NEW}, {"branch": 580}, {"policy": "upgrade"}):
        found = decided(facts, flavour="open", reboot="if_needed", **wanted)
        assert (found.action, found.flavour, found.activation) == ("upgrade", "open", "reboot")
    assert decided(facts, version=NEW).action == decided(driver(NEW, NEW), version=NEW, flavour="open").action == "none"
    # A driver that is there stays where nobody names one.
    assert decided(facts, flavour="open").action == "none"


@pytest.mark.parametrize(
    "board, wanted, sentence",
    [
        (V100, {"flavour": "open", "branch": 580}, "Tesla V100"),
        (H100, {"flavour": "proprietary", "branch": 620}, "branch 620 has no proprietary kernel modules"),
        (A10, {"flavour": "open", "branch": 470}, "branch 470 has no open kernel modules"),
        (V100, {"flavour": "open", "policy": "upgrade"}, "driver.flavour (nvidia_driver_flavour) is open"),
    ],
)
def test_a_flavour_that_cannot_be_is_refused(board, wanted, sentence):
    facts = driver(OLD, OLD, "proprietary")
    facts["gpus"] = [gpu(board)]
    found = decided(facts, **wanted)
    assert codes(found.blocks) == ["DG719"] and sentence in found.blocks[0].message and found.blocks[0].by_wish


def test_the_production_channel_takes_what_is_newest_of_both():
    assert decided(driver()).to == "580" and decided(driver(), channel="production").to == "595"
    facts = driver()
    facts["gpus"][0]["device_id"] = V100[0]
    assert decided(facts, channel="production").to == "580"


def test_what_a_source_has_limits_what_is_chosen():
    with mock.patch.object(_driver_source, "offered", return_value=frozenset({535, 595})):
        assert decided(driver(), source="distribution").to == "595"
    with mock.patch.object(_driver_source, "offered", return_value=frozenset({535})):
        found = decided(driver(), source="distribution")
        assert codes(found.blocks) == ["DG719"] and "from the distribution" in found.blocks[0].message
        # Who names one may have it: only the repository itself can tell.
        assert decided(driver(), source="distribution", branch=580).to == "580"
    with mock.patch.object(_driver_source, "choose", return_value="nvidia"):
        assert decided(driver()).source == "nvidia"


# --- systems that are no targets ---


@pytest.mark.parametrize("code", ["DG773", "DG785"])
def test_a_host_that_is_no_target_is_not_changed(code):
    with mock.patch.object(_driver_source, "refusal", return_value=Block("driver", code, "not here")):
        assert codes(decided(driver(), version=NEW).blocks) == [code]
        assert codes(decided(driver(OLD, OLD), version=NEW).blocks) == [code]
        assert codes(decided(driver(OLD, OLD), state="absent").blocks) == [code]
        assert decided(driver(NEW, NEW), version=NEW).blocks == () == decided(driver(OLD, OLD)).blocks
        # What is installed may be loaded; that of a host of virtual GPUs may not.
        assert codes(decided(driver(None, NEW)).blocks) == ([code] if code == "DG785" else [])


# --- half installed packages, and runs that were interrupted ---


def test_half_installed_packages_are_finished():
    halves = [{"name": "nvidia-dkms-580", "version": "580.95.05-1", "state": "unpacked"}]
    found = decided(driver(NEW, NEW, broken=halves))
    assert (found.action, found.repair, found.activation, found.blocks) == ("configure", True, "none", ())
    assert "nvidia-dkms-580 (unpacked)" in found.reason
    first = decided(driver(None, NEW, broken=halves, modules={KERNEL: None}), version=NEW)
    assert (first.action, first.repair, first.activation) == ("install", True, "load")
    # Unpacked under another that is loaded: to finish it takes a consent, as the change itself did.
    assert codes(decided(driver(OLD, NEW, broken=halves)).blocks) == ["DG775"]
    assert decided(driver(OLD, NEW, broken=halves), reboot="if_needed").activation == "reboot"
    assert decided(driver(NEW, NEW, broken=halves), policy="keep").action == "none"


def journal(*names, **changed):
    containers = [{"id": f"id-{name}", "name": name} for name in names]
    return {"schema": 1, "started_at": "2026-11-22T14:05:00Z", "phase": "drain", "action": "upgrade", "from": OLD, "to": NEW} | {
        "containers": containers,
        **changed,
    }


def test_an_interrupted_run_is_finished():
    facts = driver(NEW, NEW, journal=journal("ollama"))
    found = decided(facts)
    assert (found.action, found.finishes, found.activation) == ("configure", True, "none")
    assert [(container.id, container.name) for container in found.restart] == [("id-ollama", "ollama")] and "ollama" in found.reason
    facts = driver(OLD, OLD, journal=journal("ollama"))
    again = decided(facts, version=NEW, reboot="if_needed")
    assert (again.action, again.activation, [container.name for container in again.restart]) == ("upgrade", "reboot", ["ollama"])
    notes = plan(facts, {}, driver=Settings(version=NEW, reboot="if_needed"), apply=EVERYTHING)["warnings"]
    note = next(note for note in notes if note["code"] == "DG787")
    assert "had stopped ollama" in note["message"] and "this run finishes it" in note["message"]
    left = next(note for note in plan(facts, {}, apply=frozenset({"image", "service"}))["warnings"] if note["code"] == "DG787")
    assert "the next run of the role finishes it" in left["message"]


def test_a_journal_that_cannot_be_read_is_finished_too():
    facts = driver(NEW, NEW, journal={"error": "it is no JSON"})
    assert decided(facts).action == "configure"
    notes = plan(facts, {}, driver=Settings(), apply=EVERYTHING)["warnings"]
    assert "it is no JSON" in next(note for note in notes if note["code"] == "DG787")["message"]


def test_the_old_packages_were_gone_when_it_was_interrupted():
    facts = driver(OLD, None, journal=journal(phase="packages"))
    assert decided(facts, version=NEW, reboot="if_needed").blocks == ()
    facts["driver"]["journal"] = None
    assert codes(decided(facts, version=NEW, reboot="if_needed").blocks) == ["DG772"]


# --- upkeep ---


def kept_up(facts, differs=("the packages are not held",), **wanted):
    host = _host.read(facts)
    with mock.patch.object(_driver_files, "differences", return_value=differs):
        return _driver.decide(host, host.present, Settings(**wanted), True, TODAY)


def test_only_a_driver_of_ours_is_kept_up():
    ours = {PREFERENCE: {"sha256": "0", "mode": "0644"}}
    found = kept_up(driver(NEW, NEW), version=NEW)
    assert (found.action, found.activation, found.upkeep) == ("configure", "none", ("the packages are not held",))
    assert found.changes is False and found.guard is None and "not held" in found.reason
    assert kept_up(driver(NEW, NEW, managed=ours)).action == "configure"
    assert kept_up(driver(NEW, NEW)).action == "none" == kept_up(driver(NEW, NEW), differs=(), version=NEW).action
    # What was named and is not there, and by policy does not come, is no reason to pin what is there.
    assert kept_up(driver(OLD, OLD), version=NEW, policy="install").action == "none"
    assert kept_up(driver(NEW, NEW, managed=ours), state="unmanaged").action == "none"
    assert kept_up(driver(NEW, NEW, managed=ours), policy="keep").action == "none"


def test_an_installed_driver_that_leaves_gpus_alone_is_not_kept_up():
    facts = driver("550.163.01", OLD, "proprietary")
    assert kept_up(facts, version=OLD, policy="install").action == "configure"
    # Open modules of 535 are for data centres alone, and those of Volta are proprietary.
    facts["gpus"] = [gpu(V100, processes=[])]
    facts["driver"]["installed"]["flavour"] = facts["driver"]["modules"][KERNEL]["flavour"] = "open"
    found = kept_up(facts, version=OLD, policy="install")
    assert (found.action, found.upkeep) == ("none", ())


# --- removal ---

GONE = {(False, False): None, (True, False): "reload", (False, True): "reboot", (True, True): "reload"}


@pytest.mark.parametrize("reload, reboot", GONE)
def test_a_driver_is_removed_with_consent(reload, reboot):
    consents = {"reload": "if_possible" if reload else "never", "reboot": "if_needed" if reboot else "never"}
    found = decided(driver(OLD, OLD), state="absent", **consents)
    assert (found.action, found.before, found.to, found.expected is None) == ("remove", OLD, None, GONE[reload, reboot] is not None)
    assert codes(found.blocks) == ([] if GONE[reload, reboot] else ["DG775"])
    assert not GONE[reload, reboot] or found.activation == GONE[reload, reboot]
    assert decided(driver(None, OLD), state="absent").activation == "none"


def test_nothing_is_removed_where_nothing_is():
    assert decided(driver(), state="absent").action == "none" and decided(without_gpu(), state="absent").action == "none"
    left = driver(managed={PREFERENCE: {"sha256": "0", "mode": "0644"}})
    assert (decided(left, state="absent").action, decided(left, state="absent").activation) == ("remove", "none")
    # The packages went, and the module is still in the kernel.
    waiting = driver(OLD, None, modules={KERNEL: None})
    assert decided(waiting, state="absent", reboot="if_needed").activation == "reboot"
    assert codes(decided(driver(OLD, None), state="absent", reboot="if_needed").blocks) == ["DG772"]


def test_no_service_on_the_gpu_is_brought_to_a_host_whose_driver_goes():
    absent = Settings(state="absent", reboot="if_needed")
    made = plan(driver(OLD, OLD), {}, driver=absent, apply=EVERYTHING)
    assert made["status"] == "blocked" and "image and service on the GPU cannot" in made["blocked"][0]["message"]
    assert {part["action"] for part in made["parts"].values()} <= {"none", "blocked"}
    alone = plan(driver(OLD, OLD), {}, driver=absent, apply=frozenset({"driver", "toolkit"}))
    assert (alone["status"], alone["parts"]["driver"]["action"], alone["parts"]["driver"]["to"]) == ("change", "remove", None)
    assert alone["parts"]["driver"]["flavour"] is None and alone["reboot"]["required"] is True
    on_the_cpu = plan(driver(OLD, OLD), {}, driver=absent, apply=EVERYTHING, variant="cpu")
    assert (on_the_cpu["status"], on_the_cpu["parts"]["driver"]["action"], on_the_cpu["image"]["variant"]) == ("change", "remove", "cpu")
    left = plan(driver(OLD, OLD), {}, driver=absent, apply=frozenset({"image", "service"}))
    note = next(note for note in left["warnings"] if note["code"] == "DG770")
    assert left["parts"]["driver"]["action"] == "none" and "no driver is wanted" in note["message"]
    spare = {**without_gpu(), "driver": {**driver(None, OLD)["driver"]}}
    assert plan(spare, {}, driver=absent, apply=EVERYTHING)["parts"]["driver"]["action"] == "remove"


# --- the driver alone ---


def test_the_driver_of_any_host():
    def of(facts, **wanted):
        return _planner.driver_of(_host.read(facts), _planner.Wishes("h", driver=Settings(**wanted), today=TODAY))

    assert codes(of(None).blocks) == ["DG715"]
    assert (of(without_gpu()).action, of(without_gpu()).reason) == ("none", "no GPU needs a driver here")
    assert of(driver()).action == "install"
    # A GPU that is broken is in the way of a service, not of a driver.
    sick = driver(OLD, OLD)
    sick["gpus"][0]["health"] = "lost"
    assert of(sick, version=NEW, reboot="if_needed").blocks == ()


def test_a_library_that_no_package_brought_is_no_matter_of_loading():
    found = decided(driver(NEW, NEW, mismatch=True), reboot="if_needed", reload="if_possible")
    assert codes(found.blocks) == ["DG712"] and "ldconfig -p" in found.blocks[0].remedy


# --- whatever the host is like ---

VERSIONS = st.sampled_from([None, "470.256.02", OLD, "580.65.06", NEW, "595.45.04"])
CONTAINERS = st.lists(st.sampled_from([OLLAMA, ONCE, DIFY, ADMIN]), max_size=3, unique_by=lambda entry: entry["id"])
PROCESSES = st.lists(st.sampled_from([PROCESS, INSIDE, {**PROCESS, "pid": 1, "name": "Xorg", "type": "graphics"}]), max_size=2)
PINS = st.lists(st.sampled_from([HOLD, LOCK, STREAM, pinned("version 535.*, priority 1001"), excluded(None)]), max_size=2)


@st.composite
def hosts(draw):
    loaded, installed = draw(VERSIONS), draw(VERSIONS)
    facts = driver(loaded, installed, draw(st.sampled_from(["open", "proprietary"])))
    facts["gpus"][0]["processes"] = draw(st.none() | PROCESSES)
    facts["engine"]["gpu_containers"] = draw(st.none() | CONTAINERS)
    facts["host"].update(
        secure_boot=draw(st.none() | st.booleans()),
        dkms_key=draw(st.sampled_from([None, {"path": "/k", "enrolled": True}])),
        nouveau_loaded=draw(st.booleans()),
        vgpu=draw(st.sampled_from([False, False, False, True])),
    )
    system = draw(st.sampled_from([("debian", "13"), ("ubuntu", "24.04"), ("rocky", "9.4"), ("rocky", "8.10")]))
    facts["host"]["os"].update(id=system[0], version=system[1], family="rhel" if system[0] == "rocky" else "debian")
    if installed:
        facts["driver"]["installed"]["pins"] = draw(PINS)
        facts["driver"]["modules"] = draw(st.sampled_from([facts["driver"]["modules"], {}, {KERNEL: None}]))
    facts["driver"].update(
        mismatch=draw(st.booleans()) if loaded else None,
        broken=draw(st.sampled_from([[], [], [{"name": "nvidia-dkms-580", "version": "1", "state": "unpacked"}]])),
        managed=draw(st.sampled_from([{}, {PREFERENCE: {"sha256": "0", "mode": "0644"}}])),
        journal=draw(st.sampled_from([None, None, journal("ollama"), {"error": "x"}])),
    )
    return facts


WANTED = st.fixed_dictionaries(
    {name: st.sampled_from(choices) for name, choices in CHOICES.items()},
    optional={
        "branch": st.sampled_from([535, 580, 595]),
        "version": st.sampled_from([OLD, NEW]),
        "drain_containers": st.sampled_from([(), ("ollama",), ("dify-*", "mon*")]),
    },
)
SLOW = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def places(version):
    return [int(part) for part in str(version).split(".")]


@SLOW
@given(hosts(), WANTED)
def test_no_change_is_begun_that_leaves_loaded_and_libraries_apart_without_consent(facts, wanted):
    found = decided(facts, **wanted)
    loaded = (facts["driver"]["loaded"] or {}).get("version")
    if found.blocks or loaded is None or found.action == "none":
        return
    other_comes = found.action in ("install", "upgrade", "remove") and found.to != loaded
    finished = found.repair and found.to not in (None, loaded)
    if other_comes or finished:
        consent = {"reload": wanted["reload"] == "if_possible", "reboot": wanted["reboot"] == "if_needed"}
        assert consent.get(found.activation) is True


@SLOW
@given(hosts(), WANTED)
def test_consents_are_kept_and_nobody_is_stopped_who_may_not_be(facts, wanted):
    found = decided(facts, **wanted)
    assert found.activation in ("none", "load", "reload", "reboot", "later")
    assert found.activation != "reload" or wanted["reload"] == "if_possible"
    assert "reboot" not in (found.activation, found.fallback) or wanted["reboot"] == "if_needed"
    assert found.activation not in ("load", "later") or facts["driver"]["loaded"] is None
    if found.guard is None:
        assert found.blocks or found.activation in ("none", "load", "later")
        return
    for container in found.guard.stop:
        assert wanted["busy"] == "drain" and any(fnmatch.fnmatchcase(container.name, glob) for glob in wanted.get("drain_containers", ()))
    if facts["engine"]["gpu_containers"] is None and wanted["busy"] != "wait":
        assert "DG776" in codes(found.blocks)
    assert not {entry["id"] for entry in facts["engine"]["gpu_containers"] or [] if entry.get("auto_remove")} & {
        container.id for container in found.guard.stop
    }
    for block in found.blocks:
        # No remedy tells what is set already.
        for name, value in (
            ("busy", "wait"),
            ("busy", "drain"),
            ("reload", "if_possible"),
            ("reboot", "if_needed"),
            ("foreign_pins", "replace"),
        ):
            told = f"driver.{name} (nvidia_driver_{name}) to {value}"
            assert wanted[name] != value or told not in block.as_dict()["remedy"]
    given_a_gpu = {entry["id"] for entry in facts["engine"]["gpu_containers"] or [] if entry["how"] != "privileged"}
    assert given_a_gpu <= {user.id for user in found.guard.users}
    stopped = {container.id for container in found.guard.stop}
    if not found.blocks and wanted["busy"] != "wait":
        assert {user.id for user in found.guard.users} <= stopped


@SLOW
@given(hosts(), WANTED, st.sampled_from([EVERYTHING, *map(frozenset, ({"driver"}, {"driver", "toolkit"}, {"image", "service"}))]))
def test_what_is_blocked_has_no_action_and_the_same_facts_give_the_same_plan(facts, wanted, apply):
    one, other = (plan(copy.deepcopy(facts), {}, driver=Settings(**wanted), apply=apply) for _number in range(2))
    assert one == other
    if one["blocked"]:
        assert {part["action"] for part in one["parts"].values()} <= {"none", "blocked"} and one["render"]["files"] == {}
        assert all(block["remedy"] and "\n" not in block["message"] for block in one["blocked"])
    assert "driver" in apply or one["parts"]["driver"]["action"] in ("none", "blocked")
    assert one["parts"]["driver"]["action"] != "remove" or wanted["state"] == "absent"


@SLOW
@given(st.sampled_from([OLD, "580.65.06", NEW, "595.45.04"]), WANTED, st.sampled_from(["open", "proprietary"]))
def test_a_host_as_wanted_has_nothing_to_do(version, wanted, flavour):
    wanted = {**wanted, "state": "present", "version": version, "branch": int(version.split(".")[0]), "flavour": flavour}
    found = decided(driver(version, version, flavour), **wanted)
    assert (found.action, found.blocks, found.activation, found.guard) == ("none", (), "none", None)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "name", "kind", "value", "error"]), inner),
    max_leaves=5,
)
PLACES = list(
    itertools.chain(
        (("driver", name) for name in ("broken", "managed", "journal", "modules", "installed", "loaded", "mismatch")),
        (("host", name) for name in ("secure_boot", "dkms_key", "vgpu", "kernel", "os", "nouveau_loaded")),
        (("engine", "gpu_containers"), ("driver", "installed", "pins"), ("gpus",)),
    )
)


@SLOW
@given(hosts(), WANTED, st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=3), st.booleans())
def test_nothing_in_the_facts_makes_a_decision_raise(facts, wanted, junk, applied):
    for (*path, last), value in junk:
        inner = facts
        for key in path:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[last] = value
    host = _host.read(facts)
    wishes = _planner.Wishes("h", driver=Settings(**wanted), apply=EVERYTHING if applied else frozenset({"image"}), today=TODAY)
    _planner.driver_of(host, wishes)
    _driver_guard.users(host)
    plan(facts, {}, driver=Settings(**wanted), apply=wishes.apply)


def test_a_second_run_after_the_role_has_nothing_to_do():
    for facts, _action, _ways in STATES.values():
        found = decided(facts, version=NEW, reboot="if_needed")
        assert found.to == NEW and decided(driver(NEW, NEW, found.flavour or "open"), version=NEW).action == "none"
    assert applied(plan(driver(NEW, NEW), driver=Settings(version=NEW)))
