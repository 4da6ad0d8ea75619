# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan does about driver, engine and toolkit: by policy, by what the caller applies, and what the image is chosen for then."""

from __future__ import annotations

import copy
import datetime

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _engine_settings, _plan_codes, _plan_parts, _planner
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import (
    A10,
    B200,
    H100,
    P4,
    T4,
    V100,
    applied,
    gpu,
    nvidia,
    plan,
    without_gpu,
)

EVERYTHING = frozenset(_planner.PARTS)


def codes(entries):
    return [entry["code"] for entry in entries]


def brought(facts, policy="upgrade", branch=None, version=None, apply=EVERYTHING, dify=None, **changed):
    """Return the plan of a caller that brings every part to its plan."""
    wanted = Settings(policy=policy, branch=branch, version=version, reboot="if_needed", busy="wait")
    return plan(facts, {} if dify is None else dify, driver=wanted, apply=apply, **changed)


def bare(board=A10, **changed):
    """Return the facts of a host with a GPU and without a driver."""
    return nvidia(None, [gpu(board, bound_driver=None, index=None)], **changed)


def fact(facts, *path, value):
    changed = copy.deepcopy(facts)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


# --- policies ---


@pytest.mark.parametrize("policy", ["keep", "install"])
def test_a_driver_that_is_there_stays(policy):
    made = brought(nvidia("535.247.01"), policy)
    part = made["parts"]["driver"]
    assert (part["action"], part["from"], part["to"]) == ("none", "535.247.01", "535.247.01") and "stays" in part["reason"]
    assert made["image"]["variant"] == "cuda12.6" and made["image"]["expected"] is False and made["reboot"]["required"] is False
    # An exact version asks for nothing either where a driver is there.
    assert brought(nvidia("535.247.01"), policy, version="580.95.05")["parts"]["driver"]["action"] == "none"


def test_keep_installs_nothing():
    made = brought(bare(), "keep")
    assert codes(made["blocked"]) == [_plan_codes.DRIVER_NOT_LOADED] and made["parts"]["driver"]["action"] == "blocked"


@pytest.mark.parametrize("policy", ["install", "upgrade"])
def test_a_driver_is_installed_where_there_is_none(policy):
    made = brought(bare(), policy)
    part = made["parts"]["driver"]
    assert (made["status"], part["action"], part["from"], part["to"], part["flavour"]) == ("change", "install", None, "580", "open")
    assert "long-term support" in part["reason"] and made["gpus"][0]["used"] is True
    # The image is chosen for the driver expected then, whose version nobody knows but by its branch.
    assert (made["image"]["variant"], made["image"]["expected"]) == ("cuda13.2", True)
    assert "driver branch 580" in made["image"]["reason"] and made["image"]["reason"].count("580.65.06") == 1
    assert made["parts"]["toolkit"]["action"] == "configure" and "driver" in made["parts"]["toolkit"]["reason"]
    assert made["reboot"] == {"required": False, "reasons": []}


def test_a_driver_that_takes_over_from_nouveau_needs_a_reboot():
    facts = nvidia(None, [gpu(bound_driver="nouveau", index=None)])
    facts["host"]["nouveau_loaded"] = True
    made = brought(facts, "install")
    assert made["status"] == "change" and made["reboot"]["required"] is True and "nouveau" in made["reboot"]["reasons"][0]


@pytest.mark.parametrize(
    "wish, before, to, expected_variant",
    [
        ({}, "535.247.01", "580", "cuda13.2"),
        ({"branch": 580}, "570.124.06", "580", "cuda13.2"),
        ({"branch": 595}, "580.95.05", "595", "cuda13.2"),
        ({"version": "580.95.05"}, "580.65.06", "580.95.05", "cuda13.2"),
        ({"version": "535.247.01"}, "580.95.05", "535.247.01", "cuda12.6"),
        ({"branch": 550}, "580.95.05", "550", "cuda12.6"),
    ],
)
def test_an_upgrade_goes_to_its_target(wish, before, to, expected_variant):
    made = brought(nvidia(before), **wish)
    part = made["parts"]["driver"]
    assert (part["action"], part["from"], part["to"]) == ("upgrade", before, to)
    assert made["image"]["variant"] == expected_variant and made["image"]["expected"] is True
    assert made["reboot"]["required"] is True and before in made["reboot"]["reasons"][0]


@pytest.mark.parametrize(
    "wish, version",
    [({}, "580.95.05"), ({}, "595.45.04"), ({}, "610.43.02"), ({"branch": 580}, "580.65.06"), ({"version": "580.95.05"}, "580.95.05")],
)
def test_a_driver_that_meets_its_target_stays(wish, version):
    made = brought(nvidia(version), **wish)
    # One that was asked for by name is ours from then on: its packages stay, and are pinned.
    assert made["parts"]["driver"]["action"] == ("configure" if wish else "none") and made["parts"]["driver"]["to"] == version
    assert made["image"]["expected"] is False and made["reboot"]["required"] is False and made["restart"]["reasons"] == []


def test_the_best_branch_is_never_a_new_feature_branch_and_never_an_older_one():
    for version in ("535.247.01", "570.124.06", "580.95.05", "590.44.01", "610.43.02", "615.71.09"):
        to = brought(nvidia(version))["parts"]["driver"]["to"]
        assert to in ("580", version)


@pytest.mark.parametrize(
    "boards, wish, sentence",
    [
        ([V100], {"branch": 595}, "driver.branch (nvidia_driver_branch) is 595, and Tesla V100"),
        ([V100, B200], {}, "no supported branch drives"),
        ([B200], {"branch": 535}, "newer than branch 535"),
        ([V100], {"version": "595.45.04"}, "driver.version (nvidia_driver_version) is 595.45.04"),
        ([("0xffff", None)], {}, "nobody here knows which driver"),
    ],
)
def test_impossible_drivers_block_with_the_reason(boards, wish, sentence):
    facts = nvidia("580.95.05", [gpu(board, slot) for slot, board in enumerate(boards, 5)])
    made = brought(facts, **wish)
    assert codes(made["blocked"])[0] == _plan_codes.DRIVER_IMPOSSIBLE and sentence in made["blocked"][0]["message"]
    assert made["parts"]["driver"]["action"] == "blocked" and "nvidia_driver_branch" in made["blocked"][0]["remedy"]
    # Where no driver is to be changed, the wish stops nothing.
    assert _plan_codes.DRIVER_IMPOSSIBLE not in codes(brought(facts, "install", **wish)["blocked"])


def test_an_exact_version_for_a_gpu_that_no_table_knows_is_taken_at_its_word():
    facts = nvidia("580.95.05", [gpu(("0xffff", "9.0"))])
    assert brought(facts, version="595.45.04")["parts"]["driver"]["to"] == "595.45.04"


def test_the_flavour_stays_where_it_can():
    facts = nvidia("535.247.01", [gpu(H100)])
    assert brought(facts)["parts"]["driver"]["flavour"] == "proprietary"
    assert brought(nvidia("535.247.01", [gpu(V100)]))["parts"]["driver"]["flavour"] == "proprietary"
    assert brought(facts, branch=620)["parts"]["driver"]["flavour"] == "open"
    assert brought(bare(V100), "install")["parts"]["driver"]["flavour"] == "proprietary"


def test_an_installed_driver_that_is_not_loaded_is_loaded():
    facts = fact(bare(), "driver", "installed", value={"version": "580.95.05", "flavour": "open"})
    for policy in ("install", "upgrade"):
        made = brought(facts, policy)
        assert made["parts"]["driver"]["action"] == "configure" and made["reboot"]["required"] is False
        assert (made["image"]["variant"], made["image"]["expected"]) == ("cuda13.2", True)
    assert codes(brought(facts, "keep")["blocked"]) == [_plan_codes.DRIVER_NOT_LOADED]
    held = fact(facts, "host", "nouveau_loaded", value=True)
    assert brought(held, "install")["reboot"] == {"required": True, "reasons": ["driver 580.95.05 takes the GPU over from nouveau"]}
    older = fact(facts, "driver", "installed", value={"version": "535.247.01"})
    assert brought(older, "install")["image"]["variant"] == "cuda12.6"
    assert brought(older, "upgrade")["parts"]["driver"]["to"] == "580"


def test_a_library_of_another_version_is_mended_by_a_reboot():
    facts = fact(nvidia("535.247.01"), "driver", "mismatch", value=True)
    facts["driver"]["installed"] = {"version": "580.95.05"}
    made = brought(facts, "install")
    assert (made["status"], made["parts"]["driver"]["action"], made["parts"]["driver"]["to"]) == ("change", "configure", "580.95.05")
    assert codes(brought(facts, "keep")["blocked"]) == [_plan_codes.DRIVER_MISMATCH]
    # Nobody knows which version a reboot would load.
    assert codes(brought(fact(facts, "driver", "installed", value=None), "install")["blocked"]) == [_plan_codes.DRIVER_MISMATCH]


def test_an_upgrade_that_was_installed_and_not_loaded_waits_for_a_reboot():
    facts = fact(nvidia("535.247.01"), "driver", "installed", value={"version": "580.95.05"})
    made = brought(facts)
    assert made["parts"]["driver"]["action"] == "configure" and made["image"]["variant"] == "cuda13.2" and made["reboot"]["required"]
    assert _plan_codes.REBOOT_CHANGES_DRIVER not in codes(made["warnings"])


def installed(board, version, flavour, **driver):
    """Return the facts of a host on which a driver is installed and not loaded."""
    facts = bare(board)
    facts["driver"].update(installed={"version": version, "flavour": flavour}, **driver)
    return facts


# What is installed, and what drives the GPU in its place.
MISFITS = [
    (B200, "580.95.05", "proprietary", "open"),
    (B200, "535.247.01", "proprietary", "open"),
    (B200, "535.247.01", None, "open"),
    (V100, "595.45.04", "open", "proprietary"),
    (V100, "580.95.05", "open", "proprietary"),
    (P4, "615.71.09", "open", "proprietary"),
]


@pytest.mark.parametrize("board, version, flavour, wanted", MISFITS)
def test_a_driver_that_cannot_drive_the_gpu_is_not_loaded_by_a_reboot(board, version, flavour, wanted):
    facts = installed(board, version, flavour)
    for policy in ("keep", "install"):
        left = brought(facts, policy)
        assert codes(left["blocked"]) == [_plan_codes.DRIVER_IMPOSSIBLE] and left["reboot"]["required"] is False
        assert version in left["blocked"][0]["message"] and "(nvidia_driver_policy) upgrade" in left["blocked"][0]["remedy"]
    made = brought(facts)
    part = made["parts"]["driver"]
    assert (made["status"], part["action"], part["from"], part["to"], part["flavour"]) == ("change", "upgrade", version, "580", wanted)
    assert f"with the {wanted} kernel modules" in part["reason"] and f"driver {version} " in part["reason"]
    assert made["reboot"]["required"] is False
    # Whoever asks for the same branch gets its other modules.
    again = brought(facts, branch=580)["parts"]["driver"]
    assert (again["action"], again["to"], again["flavour"]) == ("upgrade", "580", wanted)


def test_the_flavour_of_the_module_counts_where_the_packages_do_not_tell():
    facts = installed(B200, "580.95.05", None, modules={"6.12.9-amd64": {"version": "580.95.05", "flavour": "proprietary"}})
    assert "NVIDIA B200 needs the open ones" in brought(facts, "install")["blocked"][0]["message"]
    facts["driver"]["modules"]["6.12.9-amd64"]["flavour"] = "open"
    assert brought(facts, "install")["parts"]["driver"]["action"] == "configure"


NO_MODULE = [
    ({"modules": {"6.8": None}, "next_kernel_has_module": False}, "6.8", "6.8"),
    ({"modules": {"6.8": None}}, "6.8", None),
    ({"modules": {"6.8": {"version": "580.95.05"}}, "next_kernel_has_module": False}, "6.8", "6.9"),
    ({"modules": {"6.8": {"version": "580.95.05"}, "6.9": None}}, "6.8", "6.9"),
    ({"modules": {"6.8": {"version": "535.247.01"}}}, "6.8", "6.8"),
]


@pytest.mark.parametrize("driver, running, upcoming", NO_MODULE)
@pytest.mark.parametrize("policy", ["install", "upgrade"])
def test_a_reboot_into_a_kernel_without_the_module_is_not_planned(driver, running, upcoming, policy):
    facts = installed(A10, "580.95.05", "open", **driver)
    facts["host"]["kernel"] = {"running": running, "next": upcoming}
    made = brought(facts, policy)
    part = made["parts"]["driver"]
    assert (part["action"], part["to"], part["flavour"]) == ("install", "580.95.05", "open")
    assert f"kernel {upcoming or running} has " in part["reason"]
    # The packages bring the module for the running kernel too, so nothing waits for a reboot.
    assert made["reboot"]["required"] is False
    left = brought(facts, "keep")
    assert codes(left["blocked"]) == [_plan_codes.DRIVER_NOT_LOADED] and "kernel 6." in left["blocked"][0]["message"]
    assert left["blocked"][0]["remedy"] == _plan_codes.CODES[_plan_codes.NEXT_KERNEL_WITHOUT_MODULE].remedy


def test_a_module_that_the_next_kernel_lacks_is_told_of_whatever_waits_for_a_reboot():
    facts = nvidia("535.247.01")
    facts["host"]["kernel"] = {"running": "6.8", "next": "6.9"}
    facts["driver"].update(installed={"version": "580.95.05", "flavour": "open"}, modules={"6.9": None}, next_kernel_has_module=False)
    assert _plan_codes.NEXT_KERNEL_WITHOUT_MODULE in codes(brought(facts, "install")["warnings"])
    made = brought(facts)
    assert made["parts"]["driver"]["action"] == "install" and "kernel 6.9" in made["parts"]["driver"]["reason"]
    assert made["reboot"]["required"] is True and "535.247.01" in made["reboot"]["reasons"][0]


def wrong_modules(flavour, *boards):
    """Return the facts of a host whose loaded 580 has modules of a flavour that the first of the GPUs cannot use."""
    cards = [gpu(board, 5 + number, index=number) for number, board in enumerate(boards)]
    cards[0].update(bound_driver=None, index=None)
    facts = nvidia("580.95.05", cards)
    facts["driver"]["loaded"]["flavour"] = facts["driver"]["installed"]["flavour"] = flavour
    facts["toolkit"]["cdi"]["specs"][0]["devices"] = ["0", "1", "all"]
    return facts


@pytest.mark.parametrize(
    "boards, flavour, wanted", [((B200,), "proprietary", "open"), ((V100, H100), "open", "proprietary"), ((V100,), "open", "proprietary")]
)
def test_modules_that_leave_a_gpu_alone_are_replaced_and_not_repaired(boards, flavour, wanted):
    facts = wrong_modules(flavour, *boards)
    for policy in ("keep", "install"):
        made = brought(facts, policy)
        assert codes(made["blocked"]) == [_plan_codes.DRIVER_IMPOSSIBLE]
        message = made["blocked"][0]["message"]
        assert f"the {flavour} kernel modules" in message and f"needs the {wanted} ones" in message
        assert "repair" not in made["blocked"][0]["remedy"]
    made = brought(facts)
    part = made["parts"]["driver"]
    assert (made["status"], part["action"], part["to"], part["flavour"]) == ("change", "upgrade", "580", wanted)
    assert made["reboot"]["required"] is True and all(entry["used"] for entry in made["gpus"])
    left = brought(facts, apply=frozenset({"image", "service"}))
    assert codes(left["blocked"]) == [_plan_codes.DRIVER_IMPOSSIBLE]


def test_the_right_modules_that_wait_for_a_reboot_get_one():
    facts = wrong_modules("proprietary", B200)
    facts["driver"]["installed"]["flavour"] = "open"
    assert brought(facts, "install")["parts"]["driver"]["action"] == "configure"
    assert brought(facts, "keep")["blocked"][0]["remedy"].startswith("reboot, so that the installed 580.95.05 is loaded")


def test_a_gpu_that_the_right_driver_does_not_have_is_still_to_be_repaired():
    facts = wrong_modules("open", B200)
    for policy in ("keep", "install", "upgrade"):
        made = brought(facts, policy)
        assert codes(made["blocked"]) == [_plan_codes.NO_USABLE_GPU] and "no kernel driver" in made["blocked"][0]["message"]


def test_a_newer_driver_that_lost_the_gpu_goes_back():
    facts = nvidia("615.71.09", [gpu(V100, bound_driver=None, index=None)])
    facts["driver"]["loaded"]["flavour"] = "open"
    made = brought(facts)
    part = made["parts"]["driver"]
    assert (part["action"], part["from"], part["to"], part["flavour"]) == ("upgrade", "615.71.09", "580", "proprietary")
    assert made["image"]["variant"] == "cuda12.6"


def test_a_silent_driver_is_nobodys_upgrade():
    facts = nvidia(nvml={"source": "sysfs", "error": {"code": None, "name": "TIMEOUT", "message": "no answer"}})
    assert codes(brought(facts)["blocked"]) == [_plan_codes.DRIVER_SILENT]


def test_a_sick_gpu_is_not_healed_by_a_driver():
    assert codes(brought(nvidia("535.247.01", [gpu(health="lost")]))["blocked"]) == [_plan_codes.NO_USABLE_GPU]


# --- what stands in the way of a change ---


PINS = [
    ({"kind": "hold", "name": "nvidia-driver-535", "value": None, "path": None}, "nvidia-driver-535 is held (in the package database)"),
    (
        {"kind": "preference", "name": "nvidia-*", "value": "version 535.247.01-1, priority 1001", "path": "/etc/apt/preferences.d/nvidia"},
        "(/etc/apt/preferences.d/nvidia)",
    ),
    ({"kind": "versionlock", "name": "nvidia-driver", "value": "3:535.247.01", "path": "/etc/dnf/versionlock.list"}, "locked to 3:535"),
    ({"kind": "versionlock", "name": "nvidia-driver", "value": "!580.95.05", "path": "/x"}, "is locked to !580"),
    ({"kind": "module_stream", "name": "nvidia-driver", "value": "535", "path": "/x"}, "has its module stream fixed to 535"),
    ({"kind": "exclude", "name": "nvidia*", "value": None, "path": "/etc/dnf/dnf.conf"}, "nvidia* is excluded (/etc/dnf/dnf.conf)"),
    ({"kind": "preference", "name": "nvidia-*", "value": "version 580.*, priority 600", "path": "/x"}, None),
    ({"kind": "module_stream", "name": "nvidia-driver", "value": "580-open", "path": "/x"}, None),
    ({"kind": "blocklist", "name": "nvidia", "value": None, "path": "/x"}, None),
]


@pytest.mark.parametrize("pin, sentence", PINS)
def test_a_rule_that_holds_the_driver_is_told_of_before_the_change(pin, sentence):
    facts = nvidia("535.247.01")
    facts["driver"]["installed"].update(packages=[{"name": "x", "version": "1"}], pinned=True, pins=[pin])
    left = brought(facts, apply=frozenset({"image", "service"}))
    notes = [note for note in left["warnings"] if note["code"] == _plan_codes.DRIVER_HELD]
    assert [sentence in note["message"] and "the role that changes drivers" in note["message"] for note in notes] == [True] * bool(sentence)
    blocks = brought(facts)["blocked"]
    assert [(block["code"], sentence in block["message"]) for block in blocks] == [(_plan_codes.HELD_BY_OTHERS, True)] * bool(sentence)
    assert brought(facts, "install")["blocked"] == [] and _plan_codes.DRIVER_HELD not in codes(brought(facts, "install")["warnings"])


def test_a_driver_without_packages_is_uninstalled_first():
    facts = fact(nvidia("535.247.01"), "driver", "installed", value=None)
    block = next(block for block in brought(facts)["blocked"] if block["code"] == _plan_codes.DRIVER_NOT_FROM_PACKAGES)
    assert "535.247.01 was not installed from packages" in block["message"] and "uninstall it first" in block["remedy"]
    left = brought(facts, apply=frozenset({"image", "service"}))
    assert _plan_codes.DRIVER_NOT_FROM_PACKAGES in codes(left["warnings"]) and left["blocked"] == []
    assert _plan_codes.DRIVER_NOT_FROM_PACKAGES not in codes(brought(facts, "install")["warnings"])


def test_the_fabric_manager_comes_with_the_driver():
    manager = {"installed": True, "version": "550.163.01", "running": True, "matches_driver": True, "needed": True}
    facts = fact(nvidia("550.163.01", [gpu(H100)]), "driver", "fabric_manager", value=manager)
    assert _plan_codes.FABRIC_MANAGER not in codes(brought(facts)["warnings"])
    own = Settings(policy="upgrade", reboot="if_needed", fabric_manager="unmanaged")
    note = next(n for n in plan(facts, {}, driver=own, apply=EVERYTHING)["warnings"] if n["code"] == _plan_codes.FABRIC_MANAGER)
    assert "driver 580 needs the fabric manager of exactly its version (here it is 550.163.01)" in note["message"]
    assert _plan_codes.FABRIC_MANAGER not in codes(brought(facts, "install")["warnings"])
    waiting = fact(facts, "driver", "installed", value={"version": "580.95.05", "flavour": "open"})
    waiting["driver"]["fabric_manager"] = {**manager, "version": "580.95.05", "matches_driver": False}
    assert brought(waiting)["parts"]["driver"]["action"] == "configure"
    assert _plan_codes.FABRIC_MANAGER not in codes(brought(waiting)["warnings"])


# --- what the caller applies ---


def test_a_caller_that_changes_no_driver_is_blocked_where_none_works():
    made = brought(bare(), "install", apply=frozenset({"image", "service"}))
    assert codes(made["blocked"]) == [_plan_codes.DRIVER_NOT_LOADED]
    assert made["blocked"][0]["remedy"] == _plan_codes.CODES[_plan_codes.DRIVER_NOT_LOADED].remedy


def test_a_wanted_upgrade_that_the_caller_does_not_make_is_a_warning():
    made = brought(nvidia("535.247.01"), apply=frozenset({"image", "service"}))
    assert (made["status"], made["parts"]["driver"]["action"], made["image"]["variant"]) == ("change", "none", "cuda12.6")
    notes = [note for note in made["warnings"] if note["code"] == _plan_codes.DRIVER_NOT_APPLIED]
    assert "580 is wanted" in notes[0]["message"] and "535.247.01 is loaded" in notes[0]["message"]
    impossible = brought(nvidia("535.247.01", [gpu(V100)]), branch=595, apply=frozenset({"image", "service"}))
    assert impossible["status"] == "change" and _plan_codes.DRIVER_NOT_APPLIED in codes(impossible["warnings"])


def test_an_engine_before_cdi_is_upgraded_first():
    facts = nvidia("580.95.05")
    facts["engine"].update(cdi_enabled=False, version="24.0.7")
    block = plan(facts)["blocked"][0]
    assert block["code"] == _plan_codes.CDI_OFF and block["remedy"].startswith("upgrade Docker to 25.0.0 or newer first; then set")


ENGINES = [
    ({"name": None, "version": None, "running": None, "cdi_enabled": None}, "install", "25.0.0 or newer"),
    ({"running": False, "error": "no socket", "cdi_enabled": None, "service": {"active": False}}, "configure", "26.1.5"),
    ({"compose_version": None}, "upgrade", "26.1.5 with Compose 2.24.0 or newer"),
    ({"compose_version": "2.23.1"}, "upgrade", "26.1.5 with Compose 2.24.0 or newer"),
    ({"cdi_enabled": False}, "configure", "26.1.5"),
    ({"cdi_enabled": False, "version": "24.0.7"}, "none", "24.0.7"),
]


@pytest.mark.parametrize("changed, action, to", ENGINES)
def test_an_engine_is_brought_to_what_is_needed(changed, action, to):
    facts = nvidia("580.95.05")
    facts["engine"].update(changed)
    made = brought(facts)
    part = made["parts"]["engine"]
    assert (made["blocked"], part["action"], part["to"]) == ([], action, to) and made["image"]["variant"] == "cuda13.2"
    # A plugin and a first Docker stop nobody; CDI is switched on by a restart.
    assert made["restart"]["engine"] is (changed == {"cdi_enabled": False})
    by_runtime = made["image"]["injection"] == "runtime"
    assert by_runtime is (facts["engine"]["version"] == "24.0.7")
    assert made["parts"]["toolkit"]["action"] == ("configure" if by_runtime else "none")
    left = brought(facts, apply=EVERYTHING - {"engine"})
    assert codes(left["blocked"]) != [] or by_runtime
    assert codes(brought(facts, apply=frozenset({"image", "service"}))["blocked"]) != []


def test_an_engine_without_buildx_gets_it_where_an_image_is_built():
    facts = fact(nvidia("580.95.05"), "engine", "buildx_version", value=None)
    made = brought(facts, dify=applied(brought(nvidia("580.95.05"))) | {"images": {}})
    assert (made["parts"]["engine"]["action"], made["parts"]["engine"]["to"]) == ("upgrade", "26.1.5 with the buildx plugin")


def test_another_engine_blocks_every_caller():
    facts = fact(nvidia("580.95.05"), "engine", "name", value="podman")
    assert codes(brought(facts)["blocked"]) == [_plan_codes.OTHER_ENGINE]


def test_what_an_engine_could_not_tell_before_it_is_started_does_not_block():
    facts = nvidia("580.95.05")
    facts["engine"].update(running=False, error="no socket", service={"enabled": True, "active": False})
    made = brought(facts, dify={"error": "no socket"})
    assert made["status"] == "change" and made["parts"]["service"]["action"] == "create"


@pytest.mark.parametrize(
    "toolkit, action, to",
    [
        ({"version": None, "cdi": {"specs": []}}, "install", "1.19.1 or newer"),
        ({"version": "1.12.1", "cdi": {"specs": []}}, "upgrade", "1.19.1 or newer"),
        ({"version": "1.19.1", "cdi": {"specs": []}}, "configure", "1.19.1"),
        ({"version": "1.17.8"}, "upgrade", "1.19.1 or newer"),
        ({"lockstep": False}, "upgrade", "1.19.1 or newer"),
    ],
)
def test_a_toolkit_is_brought_to_what_is_needed(toolkit, action, to):
    facts = nvidia("580.95.05")
    facts["toolkit"].update(toolkit)
    made = brought(facts)
    assert (made["blocked"], made["parts"]["toolkit"]["action"], made["parts"]["toolkit"]["to"]) == ([], action, to)
    assert not {_plan_codes.TOOLKIT_UNSAFE, _plan_codes.TOOLKIT_MIXED} & set(codes(made["warnings"]))
    assert made["image"]["devices"] == ["nvidia.com/gpu=all"]


def test_a_stale_specification_is_made_anew_by_who_may():
    facts = nvidia("580.95.05")
    facts["toolkit"]["cdi"]["specs"][0].update(stale=True, reasons=["made for 535"])
    made = brought(facts)
    assert made["parts"]["toolkit"]["action"] == "configure" and _plan_codes.CDI_SPEC_STALE not in codes(made["warnings"])
    left = brought(facts, apply=frozenset({"image", "service"}))
    assert left["parts"]["toolkit"]["action"] == "none" and _plan_codes.CDI_SPEC_STALE in codes(left["warnings"])


def test_an_unsafe_toolkit_names_its_weaknesses():
    facts = fact(nvidia("580.95.05"), "toolkit", "version", value="1.17.7")
    note = next(note for note in plan(facts)["warnings"] if note["code"] == _plan_codes.TOOLKIT_UNSAFE)
    assert "CVE-2026-24260" in note["message"] and "CVE-2025-23266" in note["message"] and "CVE-2024-0132" not in note["message"]


def test_a_cpu_host_needs_no_gpu_platform():
    made = brought(without_gpu())
    assert [made["parts"][name]["action"] for name in ("driver", "engine", "toolkit")] == ["none", "none", "none"]
    degraded = brought(nvidia("535.247.01"), variant="cpu")
    assert degraded["parts"]["driver"]["action"] == "none" and degraded["advice"] == {"driver": None}


def test_parts_that_are_not_applied_are_left():
    made = brought(nvidia("535.247.01"), apply=frozenset({"driver", "toolkit"}))
    assert made["parts"]["driver"]["action"] == "upgrade"
    assert made["parts"]["image"]["action"] == made["parts"]["service"]["action"] == "none"
    assert made["parts"]["image"]["reason"] == made["parts"]["service"]["reason"] == _plan_parts.NOT_PART_OF_THIS_RUN
    assert made["render"]["files"] == {} and made["image"]["variant"] == "cuda13.2"


def test_a_service_whose_image_nobody_brings_is_blocked():
    facts = nvidia("580.95.05")
    made = brought(facts, apply=frozenset({"service"}), dify={"images": {}})
    assert codes(made["blocked"]) == [_plan_codes.IMAGE_NOT_APPLIED]
    assert brought(facts, apply=frozenset({"service"}), dify=applied(brought(facts)))["status"] == "ok"


# --- what it costs ---


def test_what_stops_for_a_moment():
    facts = nvidia("535.247.01")
    facts["engine"]["gpu_containers"] = [{"id": "1", "name": "ollama"}, {"id": "2", "name": "dify-gpu-dify-gpu-1"}]
    running = applied(brought(facts, "keep"))
    quiet = brought(facts, "keep", dify=running)
    assert quiet["status"] == "ok" and quiet["restart"] == {"engine": False, "service": False, "reasons": []}
    drain = Settings(policy="upgrade", reboot="if_needed", busy="drain", drain_containers=("*",))
    made = plan(facts, running, driver=drain, apply=EVERYTHING)
    assert made["restart"]["service"] is True and made["restart"]["engine"] is False
    assert "dify-gpu-dify-gpu-1, ollama" in made["restart"]["reasons"][0]
    assert "has to end by itself" in brought(facts, dify=running)["restart"]["reasons"][0]
    off = fact(facts, "engine", "cdi_enabled", value=False)
    assert brought(off, "keep", dify=running)["restart"]["engine"] is True
    off["engine"]["containers"] = [{"id": "2", "name": "dify-gpu-dify-gpu-1", "restart_policy": "unless-stopped"}]
    refused = brought(off, "keep", dify=running)
    assert codes(refused["blocked"]) == [_plan_codes.ENGINE_RESTART] and refused["restart"]["engine"] is False
    consented = brought(off, "keep", dify=running, engine=_engine_settings.Settings(restart="if_needed"))
    assert consented["restart"]["service"] is True and "dify-gpu-dify-gpu-1" in consented["restart"]["reasons"][0]


# --- advice ---


@pytest.mark.parametrize(
    "version, board, branch, opens",
    [
        ("535.247.01", A10, "580", ["cuda13.0", "cuda13.2"]),
        ("470.256.02", T4, "580", ["cuda12.1", "cuda12.4", "cuda12.6", "cuda12.8", "cuda13.0", "cuda13.2"]),
        ("470.256.02", V100, "580", ["cuda12.1", "cuda12.4", "cuda12.6"]),
        ("580.95.05", A10, None, None),
        ("535.247.01", V100, None, None),
        ("595.45.04", B200, None, None),
        ("610.43.02", A10, None, None),
    ],
)
def test_driver_advice(version, board, branch, opens):
    advice = plan(nvidia(version, [gpu(board)]))["advice"]["driver"]
    assert (advice and advice["branch"], advice and advice["opens"]) == (branch, opens)
    assert advice is None or all(name in advice["message"] for name in opens)


def test_advice_is_a_reboot_where_a_better_driver_is_installed():
    facts = fact(nvidia("550.163.01"), "driver", "installed", value={"version": "580.95.05", "flavour": "open"})
    for made in (brought(facts, "install"), plan(facts)):
        assert made["advice"]["driver"]["message"].startswith("reboot: 580.95.05 is installed, and 2 more variants open up")
        note = next(note for note in made["warnings"] if note["code"] == _plan_codes.BRANCH_ENDED)
        assert note["message"].endswith("reboot: 580.95.05 is installed")
    # A reboot that does not load it is no advice.
    lacking = fact(facts, "driver", "modules", value={"6.12.9-amd64": None})
    assert plan(lacking)["advice"]["driver"]["message"].startswith("upgrade the driver to branch 580")
    # One that opens nothing is none either.
    same = fact(facts, "driver", "installed", value={"version": "550.163.02"})
    assert plan(same)["advice"]["driver"]["message"].startswith("upgrade the driver to branch 580")


def test_no_upgrade_is_advised_where_there_is_none():
    made = plan(nvidia("470.256.02", [gpu(("0x102d", "3.7"), name="Tesla K80")]))
    assert codes(made["blocked"]) == [_plan_codes.NO_VARIANT_FITS] and made["advice"]["driver"] is None
    assert "upgrade" not in made["blocked"][0]["remedy"] and "no driver that is still supported" in made["blocked"][0]["remedy"]
    note = next(note for note in made["warnings"] if note["code"] == _plan_codes.BRANCH_ENDED)
    assert "upgrade" not in note["message"] and "Tesla K80" in note["message"]


def test_advice_where_nothing_fits():
    made = plan(nvidia("440.100", [gpu(T4)]))
    assert codes(made["blocked"]) == [_plan_codes.NO_VARIANT_FITS] and made["advice"]["driver"]["branch"] == "580"


def test_advice_follows_the_wishes():
    facts = nvidia("535.247.01")
    assert plan(facts, max_cuda="12.8")["advice"]["driver"] is None
    assert plan(facts, variant="cuda12.6")["advice"]["driver"] is None
    assert plan(facts, variant="cuda13.0")["advice"]["driver"]["opens"] == ["cuda13.0"]
    assert brought(facts)["advice"]["driver"] is None


def test_advice_depends_on_what_is_supported_that_day():
    assert plan(nvidia("535.247.01"), today=datetime.date(2029, 1, 1))["advice"]["driver"] is None


# --- warnings ---


def test_a_plan_with_nothing_to_say_has_no_warnings():
    facts = nvidia("580.95.05")
    facts["driver"]["installed"].update(packages=[{"name": "x", "version": "1"}], pinned=False)
    facts["host"].update(secure_boot=True)
    facts["driver"]["fabric_manager"] = {"installed": False, "version": None, "running": False, "matches_driver": None, "needed": False}
    assert plan(facts, {})["warnings"] == []


def test_a_variant_without_newer_releases():
    notes = plan(nvidia("470.256.02", [gpu(T4)]), {})["warnings"]
    assert any(note["code"] == _plan_codes.TORCH_RETIRED and "2.7.1" in note["message"] for note in notes)
    assert _plan_codes.TORCH_RETIRED not in codes(plan(nvidia("580.95.05"), {})["warnings"])


def test_secure_boot_where_it_matters():
    facts = fact(nvidia("580.95.05"), "host", "secure_boot", value=True)
    facts["host"]["kernel"] = {"running": "6.12.9", "next": "6.12.12"}
    facts["driver"]["modules"] = {"6.12.12": {"version": "580.95.05", "signer": None}}
    note = next(note for note in plan(facts)["warnings"] if note["code"] == _plan_codes.SECURE_BOOT)
    assert "6.12.12" in note["message"]
    signed = fact(facts, "driver", "modules", value={"6.12.12": {"version": "580.95.05", "signer": "Canonical"}})
    assert _plan_codes.SECURE_BOOT not in codes(plan(signed)["warnings"])
    refused = brought(signed, branch=595)["blocked"]
    assert codes(refused) == [_plan_codes.SECURE_BOOT_REFUSES] and "mokutil --import" in refused[0]["remedy"]


def test_packages_that_nothing_holds_where_it_matters():
    facts = nvidia("580.95.05")
    facts["driver"]["installed"].update(packages=[{"name": "x", "version": "1"}], pinned=False)
    wish = {"driver": Settings(policy="keep", version="580.95.05")}
    assert _plan_codes.DRIVER_NOT_PINNED in codes(plan(facts, **wish)["warnings"])
    assert _plan_codes.DRIVER_NOT_PINNED not in codes(plan(facts)["warnings"])
    facts["driver"]["installed"]["version"] = "580.105.08"
    assert _plan_codes.DRIVER_NOT_PINNED in codes(plan(facts)["warnings"])
    facts["driver"]["installed"]["pinned"] = True
    assert _plan_codes.DRIVER_NOT_PINNED not in codes(plan(facts, **wish)["warnings"])


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"installed": False, "running": False}, "is not installed"),
        ({"matches_driver": False, "version": "580.65.06"}, "is of version 580.65.06, and the driver of 580.95.05"),
        ({"running": False}, "does not run"),
        ({}, None),
        ({"needed": False, "running": False}, None),
    ],
)
def test_the_fabric_manager(changed, sentence):
    manager = {"installed": True, "version": "580.95.05", "running": True, "matches_driver": True, "needed": True, **changed}
    notes = [n for n in plan(fact(nvidia("580.95.05"), "driver", "fabric_manager", value=manager))["warnings"] if n["code"] == "DG767"]
    assert [sentence in note["message"] for note in notes] == ([True] if sentence else [])


def test_a_pending_reboot():
    facts = nvidia("580.95.05")
    facts["driver"].update(reboot_required=True, reboot_reasons=["a new kernel is installed"])
    assert "a new kernel is installed" in next(n for n in plan(facts)["warnings"] if n["code"] == _plan_codes.REBOOT_PENDING)["message"]
    facts["driver"]["installed"] = {"version": "580.105.08"}
    assert _plan_codes.REBOOT_PENDING not in codes(plan(facts)["warnings"])


# --- the image's own requirement ---


def test_what_the_image_requires_is_told_and_not_enforced_by_cdi():
    site = {"name": "site", "image": "registry.example.org/x:1", "cuda": "12.4", "torch": "2.6.0", "sm": ["8.6"]}
    catalog = _catalog.load([{**site, "require_cuda": "cuda>=12.4"}], "x/y", "1")
    told = plan(nvidia("535.247.01"), catalog=catalog, variant="site")["image"]["require_cuda"]
    assert (told["requirement"], told["satisfied"], told["enforced"]) == ("cuda>=12.4", False, False) and "CDI" in told["reason"]
    assert plan(nvidia("580.95.05"), catalog=catalog, variant="site")["image"]["require_cuda"]["satisfied"] is True
    assert plan(nvidia("535.247.01"))["image"]["require_cuda"] is None
