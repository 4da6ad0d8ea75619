# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs and MIG devices of a host the container is given, and by which CDI device."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.difyops.gpu.plugins.plugin_utils import _devices, _plan_codes, _planner
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import (
    A10,
    A100,
    H100,
    T4,
    V100,
    applied,
    gpu,
    nvidia,
    plan,
)
from hypothesis import given
from hypothesis import strategies as st

COMPOSE = "/opt/dify-gpu/compose.yaml"
UUIDS = ["GPU-aaaaaaaa-0000-4000-8000-000000000000", "GPU-bbbbbbbb-0000-4000-8000-000000000000"]
MIG = ["MIG-11111111-0000-4000-8000-000000000000", "MIG-22222222-0000-4000-8000-000000000000"]


def codes(entries):
    return [entry["code"] for entry in entries]


def host(devices, gpus=None):
    """Return a host with an A10 and a T4, whose CDI specification has these devices."""
    two = [
        gpu(A10, 5, index=0, uuid=UUIDS[0], name="NVIDIA A10"),
        gpu(T4, 6, index=1, uuid=UUIDS[1], name="Tesla T4"),
    ]
    facts = nvidia("580.95.05", gpus or two)
    facts["toolkit"]["cdi"]["specs"][0]["devices"] = list(devices)
    return facts


def mig_gpu(slot=5, index=0, sizes=(10240, 20480), **changed):
    devices = [
        {"index": number, "name": f"MIG {size}", "uuid": MIG[number], "profile": f"{number + 1}g", "memory_total_mib": size}
        for number, size in enumerate(sizes)
    ]
    mig = {"current": True, "pending": True, "devices": devices, **changed}
    return gpu(A100, slot, index=index, uuid=UUIDS[index], name="NVIDIA A100", mig=mig)


def given_to_the_container(made):
    service = yaml.safe_load(made["render"]["files"][COMPOSE]["content"])["services"]["dify-gpu"]
    return service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]


def test_all_gpus_are_all():
    made = plan(host(["0", "1", "all"]))
    assert made["image"]["devices"] == given_to_the_container(made) == ["nvidia.com/gpu=all"] and made["image"]["gpu_count"] == 2
    assert made["gpus"][1] == {
        "pci_address": "0000:00:06.0",
        "name": "Tesla T4",
        "usable": True,
        "used": True,
        "reason": None,
        "device": "nvidia.com/gpu=all",
    }


@pytest.mark.parametrize("wanted", ["1", UUIDS[1], "0000:00:06.0", "00000000:00:06.0", "00:06.0"])
def test_one_gpu_by_each_of_its_names(wanted):
    made = plan(host([*UUIDS, "0", "1", "all"]), gpus=(wanted,))
    assert made["image"]["devices"] == given_to_the_container(made) == [f"nvidia.com/gpu={UUIDS[1]}"] and made["image"]["gpu_count"] == 1
    assert [entry["used"] for entry in made["gpus"]] == [False, True] and made["gpus"][0]["reason"] == "is not among the GPUs to use"
    assert made["gpus"][0]["device"] is None


def test_the_name_is_one_that_the_specification_has():
    assert plan(host(["0", "1", "all"]), gpus=(UUIDS[1],))["image"]["devices"] == ["nvidia.com/gpu=1"]
    lacking = plan(host(["0", "all"]), gpus=("1",))
    assert codes(lacking["blocked"]) == [_plan_codes.NO_CDI_DEVICE]
    assert f"no device {UUIDS[1]} or 1 for Tesla T4 at 0000:00:06.0; it has 0, all" in lacking["blocked"][0]["message"]
    assert lacking["parts"]["toolkit"]["action"] == "blocked"
    mended = plan(host(["0", "all"]), gpus=("1",), apply=frozenset(_planner.PARTS))
    assert mended["parts"]["toolkit"]["action"] == "configure" and mended["image"]["devices"] == [f"nvidia.com/gpu={UUIDS[1]}"]


def test_every_gpu_by_name_is_all_again():
    assert plan(host(["0", "1", "all"]), gpus=("1", "0"))["image"]["devices"] == ["nvidia.com/gpu=all"]


def test_two_of_three_in_the_order_of_the_host():
    facts = host(["0", "1", "2", "all"])
    facts["gpus"].append(gpu(A10, 7, index=2))
    for wanted in (("2", "0"), ("0", "2"), ("0", "2", "0000:00:07.0")):
        made = plan(facts, gpus=wanted)
        assert made["image"]["devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=2"] and made["image"]["gpu_count"] == 2


@pytest.mark.parametrize("wanted", ["7", "GPU-cccccccc-0000-4000-8000-000000000000", "0000:00:09.0", "0:1", MIG[0]])
def test_a_gpu_that_is_not_there(wanted):
    made = plan(host(["0", "1", "all"]), gpus=(wanted,))
    assert codes(made["blocked"]) == [_plan_codes.NO_SUCH_GPU]
    message = made["blocked"][0]["message"]
    assert f"gpus (dify_image_gpus) names {wanted}: there is no such GPU; there is NVIDIA A10 at 0000:00:05.0 (0, {UUIDS[0]})" in message
    assert "Tesla T4" in message and made["status"] == "blocked"


def test_gpus_of_one_product_are_named_together():
    alike = nvidia("580.95.05", [gpu(A10, slot, name="NVIDIA A10", index=slot, uuid=f"GPU-{slot}") for slot in range(2)])
    [block] = plan(alike, gpus=("7",))["blocked"]
    assert "there is NVIDIA A10 at 0000:00:00.0 (0, GPU-0), 0000:00:01.0 (1, GPU-1)" in block["message"]


def test_a_gpu_that_is_passed_through():
    facts = host(["0", "all"], [gpu(A10, 5, index=0), gpu(T4, 6, bound_driver="vfio-pci", index=None, name="Tesla T4")])
    assert "Tesla T4 at 0000:00:06.0 is bound to vfio-pci" in plan(facts, gpus=("0000:00:06.0",))["blocked"][0]["message"]
    assert plan(facts)["image"]["devices"] == ["nvidia.com/gpu=all"]


def test_a_sick_gpu_that_is_not_used_stops_nothing():
    facts = host(["0", "1", "all"])
    facts["gpus"][1]["health"] = "lost"
    assert codes(plan(facts)["blocked"]) == [_plan_codes.SICK_GPU] and "dify_image_gpus" in plan(facts)["blocked"][0]["remedy"]
    made = plan(facts, gpus=("0",))
    assert made["status"] == "change" and made["image"]["devices"] == ["nvidia.com/gpu=0"]
    assert (made["gpus"][1]["usable"], made["gpus"][1]["used"], made["gpus"][1]["reason"]) == (False, False, "is not among the GPUs to use")
    assert codes(plan(facts, gpus=("1",))["blocked"]) == [_plan_codes.NO_USABLE_GPU]


def test_the_image_is_chosen_for_the_gpus_that_are_used():
    facts = host(["0", "1", "all"])
    facts["gpus"][1].update(device_id="0x1db4", compute_capability="7.0", name="Tesla V100")
    assert plan(facts)["image"]["variant"] == "cuda12.6" and plan(facts, gpus=("0",))["image"]["variant"] == "cuda13.2"


def test_a_changed_selection_updates_the_service():
    facts = host(["0", "1", "all"])
    made = plan(facts, applied(plan(facts)), gpus=("0",))
    assert (made["parts"]["image"]["action"], made["parts"]["service"]["action"]) == ("none", "update")
    assert plan(facts, applied(plan(facts, gpus=("0",))), gpus=("0",))["status"] == "ok"


def test_without_a_driver_only_the_trouble_of_the_driver_is_told():
    facts = nvidia(None, [gpu(A10, bound_driver=None, index=None)])
    assert codes(plan(facts, gpus=("0",))["blocked"]) == [_plan_codes.DRIVER_NOT_LOADED]
    # A driver that is to be installed tells nobody which GPU has the index 0 then.
    wish = {"driver": Settings(policy="install", reboot="if_needed"), "apply": frozenset(_planner.PARTS)}
    assert codes(plan(facts, gpus=("0",), **wish)["blocked"]) == [_plan_codes.NO_SUCH_GPU]
    assert plan(facts, gpus=("00:05.0",), **wish)["status"] == "change"


def test_on_the_cpu_no_gpu_is_used():
    made = plan(host(["all"]), variant="cpu")
    assert made["image"]["devices"] == [] and made["image"]["gpu_count"] == 0
    assert {(entry["used"], entry["device"], entry["reason"]) for entry in made["gpus"]} == {
        (False, None, "is not used: the service runs on the CPU")
    }


# --- MIG ---


def test_of_mig_devices_the_largest_is_taken():
    made = plan(host([MIG[0], MIG[1], "0:0", "0:1", "all"], [mig_gpu()]))
    assert made["image"]["devices"] == [f"nvidia.com/gpu={MIG[1]}"] and made["image"]["gpu_count"] == 1
    note = next(note for note in made["warnings"] if note["code"] == _plan_codes.MIG_ONE_DEVICE)
    assert "only MIG device 2g of NVIDIA A100 at 0000:00:05.0 is used" in note["message"]
    same = plan(host(["0:0", "0:1", "all"], [mig_gpu(sizes=(10240, 10240))]))
    assert same["image"]["devices"] == ["nvidia.com/gpu=0:0"]


@pytest.mark.parametrize("wanted, device", [("0:0", MIG[0]), (MIG[0], MIG[0]), ("0:1", MIG[1]), ("0", MIG[1]), (UUIDS[0], MIG[1])])
def test_a_mig_device_by_name(wanted, device):
    made = plan(host([*MIG, "0:0", "0:1", "all"], [mig_gpu()]), gpus=(wanted,))
    assert made["image"]["devices"] == [f"nvidia.com/gpu={device}"]
    assert _plan_codes.MIG_ONE_DEVICE not in codes(made["warnings"])


def test_two_mig_devices_are_one_too_many():
    made = plan(host([*MIG, "all"], [mig_gpu()]), gpus=("0:0", "0:1"))
    assert made["image"]["devices"] == [f"nvidia.com/gpu={uuid}" for uuid in MIG] and made["image"]["gpu_count"] == 1
    assert _plan_codes.MIG_ONE_DEVICE in codes(made["warnings"])


def test_full_gpus_come_before_mig_devices():
    facts = host(["0", "1:0", "1:1", "all"], [gpu(A10, 5, index=0, name="NVIDIA A10"), mig_gpu(6, 1)])
    made = plan(facts)
    assert made["image"]["devices"] == ["nvidia.com/gpu=0"] and made["image"]["gpu_count"] == 1
    assert [entry["used"] for entry in made["gpus"]] == [True, False] and "MIG" in made["gpus"][1]["reason"]
    assert _plan_codes.MIG_ONE_DEVICE in codes(made["warnings"])
    assert plan(facts, gpus=("1:0",))["image"]["devices"] == ["nvidia.com/gpu=1:0"]


def test_the_only_mig_device_needs_no_warning():
    assert plan(host(["0:0", "all"], [mig_gpu(sizes=(10240,))]), {})["warnings"] == []


def test_a_change_of_mig_mode_is_a_warning():
    made = plan(host(["0:0", "0:1", "all"], [mig_gpu(pending=False)]))
    note = next(note for note in made["warnings"] if note["code"] == _plan_codes.MIG_CHANGE_PENDING)
    assert "is on and becomes off" in note["message"]
    off = gpu(A100, index=0, mig={"current": False, "pending": True, "devices": []})
    assert _plan_codes.MIG_CHANGE_PENDING in codes(plan(host(["all"], [off]))["warnings"])


def test_the_largest_is_said_only_where_it_is_known():
    card = mig_gpu()
    for device in card["mig"]["devices"]:
        device["memory_total_mib"] = None
    made = plan(host([*MIG, "all"], [card]))
    note = next(note for note in made["warnings"] if note["code"] == _plan_codes.MIG_ONE_DEVICE)
    assert made["image"]["devices"] == [f"nvidia.com/gpu={MIG[0]}"] and "nobody can tell whether it is the largest" in note["message"]
    # Of those whose size is known the largest is taken all the same.
    card["mig"]["devices"][1]["memory_total_mib"] = 10240
    made = plan(host([*MIG, "all"], [card]))
    assert made["image"]["devices"] == [f"nvidia.com/gpu={MIG[1]}"]
    assert "nobody can tell" in next(note for note in made["warnings"] if note["code"] == _plan_codes.MIG_ONE_DEVICE)["message"]


def empty_mig(slot, index):
    return gpu(H100, slot, index=index, uuid=UUIDS[index], name="NVIDIA H100", mig={"current": True, "pending": True, "devices": []})


def test_a_gpu_in_mig_mode_without_devices_stops_no_full_gpu():
    full = gpu(H100, 5, index=0, uuid=UUIDS[0], name="NVIDIA H100")
    made = plan(host(["0", "1", "all"], [full, empty_mig(6, 1)]))
    assert (made["blocked"], made["image"]["devices"], made["image"]["gpu_count"]) == ([], ["nvidia.com/gpu=0"], 1)
    assert [(entry["used"], entry["usable"]) for entry in made["gpus"]] == [(True, True), (False, False)]
    assert made["gpus"][1]["reason"] == "is in MIG mode without a MIG device"
    note = next(note for note in made["warnings"] if note["code"] == _plan_codes.MIG_ONE_DEVICE)
    assert "0000:00:06.0 is in MIG mode without a MIG device and not used" in note["message"]


def test_a_gpu_in_mig_mode_without_devices_stops_no_mig_device():
    made = plan(host([*MIG, "0", "all"], [empty_mig(5, 0), mig_gpu(6, 1)]))
    assert (made["blocked"], made["image"]["devices"]) == ([], [f"nvidia.com/gpu={MIG[1]}"])
    assert "0000:00:05.0 is in MIG mode without a MIG device" in str(made["warnings"])
    alone = plan(host(["0", "all"], [empty_mig(5, 0)]))
    assert codes(alone["blocked"]) == [_plan_codes.NO_USABLE_GPU]


@pytest.mark.parametrize(
    "gpus, wanted, name",
    [(None, ("1",), "gpu1"), ([mig_gpu(5, 0)], ("0:1",), "mig0:1"), ([mig_gpu(5, 0)], (), "mig0:1"), (None, (UUIDS[0],), "gpu0")],
)
def test_names_of_the_strategy_type_index(gpus, wanted, name):
    made = plan(host(["gpu0", "gpu1", "mig0:0", "mig0:1", "all"], gpus), gpus=wanted)
    assert (made["blocked"], made["image"]["devices"]) == ([], [f"nvidia.com/gpu={name}"])


def test_a_gpu_without_a_name_is_not_counted():
    """A V100 that only the driver to come will have, beside a GPU in MIG mode: no specification has a name for it yet."""
    facts = host(["0:0", "0:1", "all"], [mig_gpu(5, 0), gpu(V100, 6, bound_driver=None, index=None, name="Tesla V100")])
    facts["driver"]["loaded"]["flavour"] = "open"
    wish = {"driver": Settings(policy="upgrade", branch=580, reboot="if_needed")}
    brought = plan(facts, {}, apply=frozenset({"driver", "toolkit"}), **wish)
    assert (brought["status"], brought["parts"]["driver"]["action"]) == ("change", "upgrade")
    assert (brought["gpus"][1]["used"], brought["gpus"][1]["device"]) == (False, None) and brought["image"]["gpu_count"] == 0
    whole = plan(facts, {}, apply=frozenset(_planner.PARTS), **wish)
    assert codes(whole["blocked"]) == [_plan_codes.NO_CDI_DEVICE] and "Tesla V100 at 0000:00:06.0" in whole["blocked"][0]["message"]
    assert "(apply without service)" in whole["blocked"][0]["remedy"]
    assert whole["parts"]["service"]["reason"] == whole["blocked"][0]["message"]


# --- names ---


@pytest.mark.parametrize(
    "text", ["0", "12", "0:1", UUIDS[0], MIG[0], "0000:00:05.0", "00000000:af:00.0", "AF:00.0", "MIG-GPU-a1b2c3d4/1/0"]
)
def test_names_of_gpus(text):
    assert _devices.is_selector(text)


@pytest.mark.parametrize("text", ["", "all", "gpu0", "-1", "0:", "00:05", "GPU-", "NVIDIA A10", "0,1", "0 1"])
def test_what_names_no_gpu(text):
    assert not _devices.is_selector(text)


@given(st.lists(st.sampled_from(["0", "1", "2", "0:0", "1:1", UUIDS[1], MIG[0], "00:05.0", "0000:00:06.0"]), max_size=4))
def test_any_selection_gives_a_plan_of_these_gpus_only(wanted):
    facts = host([*UUIDS, *MIG, "0", "1", "0:0", "0:1", "all"], [mig_gpu(5, 0), gpu(T4, 6, index=1, uuid=UUIDS[1])])
    made = plan(facts, gpus=tuple(wanted))
    if made["blocked"]:
        assert codes(made["blocked"]) == [_plan_codes.NO_SUCH_GPU]
        return
    assert made["image"]["devices"] and all(name.startswith("nvidia.com/gpu=") for name in made["image"]["devices"])
    assert {entry["device"] for entry in made["gpus"]} - {None} <= set(made["image"]["devices"])
    assert 1 <= made["image"]["gpu_count"] <= len(made["image"]["devices"])
