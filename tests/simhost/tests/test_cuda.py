# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libcuda.so.1 by ctypes, per profile and per fault."""

from __future__ import annotations

import json
import subprocess

import pytest
import simgpu_profile
from conftest import PROFILES, Machine

PREAMBLE = """
import ctypes as c, json
cu = c.CDLL("libcuda.so.1")
i, s, t, u = c.c_int(), c.c_size_t(), c.c_size_t(), c.c_ulonglong()
"""
INIT = PREAMBLE + "print(cu.cuInit(0))\n"
ASK = (
    PREAMBLE
    + """
seen = {"before": cu.cuDeviceGetCount(c.byref(i)), "init": cu.cuInit(0)}
cu.cuDriverGetVersion(c.byref(i)); seen["version"] = i.value
cu.cuDeviceGetCount(c.byref(i)); seen["count"] = i.value
name = c.create_string_buffer(100); cu.cuDeviceGetName(name, 100, 0); seen["name"] = name.value.decode()
seen["cc"] = [(cu.cuDeviceGetAttribute(c.byref(i), a, 0), i.value)[1] for a in (75, 76)]
seen["clock"], seen["multiprocessors"] = [(cu.cuDeviceGetAttribute(c.byref(i), a, 0), i.value)[1] for a in (13, 16)]
uuid = (c.c_ubyte * 16)(); cu.cuDeviceGetUuid(uuid, 0); seen["uuid"] = bytes(uuid).hex()
cu.cuDeviceTotalMem_v2(c.byref(s), 0); seen["total"] = s.value
seen["second"] = cu.cuDeviceGet(c.byref(i), 1)
ctx = c.c_void_p()
seen["no_context"] = cu.cuMemGetInfo_v2(c.byref(s), c.byref(t))
seen["retain"] = cu.cuDevicePrimaryCtxRetain(c.byref(ctx), 0)
seen["current"] = cu.cuCtxSetCurrent(ctx)
def free():
    cu.cuMemGetInfo_v2(c.byref(s), c.byref(t)); return s.value
before = free()
seen["alloc"] = cu.cuMemAlloc_v2(c.byref(u), c.c_size_t(1 << 20)); seen["taken"] = before - free()
seen["free"] = cu.cuMemFree_v2(u); seen["given_back"] = before - free(); seen["twice"] = cu.cuMemFree_v2(u)
seen["too_much"] = cu.cuMemAlloc_v2(c.byref(u), c.c_size_t(1 << 40))
text = c.c_char_p(); cu.cuGetErrorName(803, c.byref(text)); seen["803"] = text.value.decode()
print(json.dumps(seen))
"""
)


def init(machine: Machine, **environment: str) -> int:
    return int(machine.python(INIT, **environment).stdout)


@pytest.mark.parametrize("profile", PROFILES)
def test_describes_what_the_profile_says(machine: Machine, profile: str) -> None:
    gpus = simgpu_profile.gpus(machine.set(profile))
    gpu = gpus[0]
    mig = simgpu_profile.mig_devices(gpu)
    answer = machine.python(ASK)
    assert answer.returncode == 0, answer.stderr
    seen = json.loads(answer.stdout)
    assert (seen["before"], seen["init"], seen["count"]) == (3, 0, len(gpus))
    assert ".".join(map(str, seen["cc"])) == gpu["compute_capability"]
    assert seen["clock"] == int(gpu["clock_khz"])
    assert seen["second"] == (101 if len(gpus) == 1 else 0)
    if mig:
        assert seen["name"] == f"{gpu['name']} MIG {mig[0].profile}"
        assert seen["uuid"] == mig[0].uuid.replace("MIG-", "").replace("-", "")
        assert (seen["total"], seen["multiprocessors"]) == (mig[0].memory_mib << 20, 42)
    else:
        assert seen["name"] == gpu["name"]
        assert seen["uuid"] == gpu["uuid"].replace("GPU-", "").replace("-", "")
        assert seen["total"] == (int(gpu["memory_mib"]) - int(gpu["memory_reserved_mib"])) << 20
        assert seen["multiprocessors"] == int(gpu["multiprocessors"])
    assert (seen["no_context"], seen["retain"], seen["current"]) == (201, 0, 0)
    assert (seen["alloc"], seen["taken"], seen["free"], seen["given_back"], seen["twice"]) == (0, 1 << 20, 0, 0, 1)
    assert seen["too_much"] == 2
    assert seen["803"] == "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"


@pytest.mark.parametrize(("profile", "version"), [("a10-535", 12020), ("t4-470", 11040)])
def test_version(machine: Machine, profile: str, version: int) -> None:
    machine.set(profile)
    assert json.loads(machine.python(ASK).stdout)["version"] == version


@pytest.mark.parametrize("node", ["nvidiactl", "nvidia0"])
def test_without_its_device_nodes_there_is_no_device(machine: Machine, node: str) -> None:
    machine.set("a10-535")
    (machine.root / "dev" / node).unlink()
    assert init(machine) == 100


def test_no_module_means_no_device(machine: Machine) -> None:
    machine.set("a10-535", loaded=None)
    assert init(machine) == 100


def test_another_module_is_a_mismatch(machine: Machine) -> None:
    machine.set("a10-535", loaded="535.161.08")
    assert init(machine) == 803


@pytest.mark.parametrize("code", [34, 100, 802, 803, 804, 999])
def test_init_fails_as_told(machine: Machine, code: int) -> None:
    machine.set("a10-535", f"cu_init_error={code}")
    assert init(machine) == code


def test_a_lost_gpu_is_not_counted(machine: Machine) -> None:
    machine.set("a10-535", "gpu.0.error=15")
    assert init(machine) == 100


def test_prohibited_compute_mode_refuses_a_context(machine: Machine) -> None:
    machine.set("a10-535", "gpu.0.compute_mode=2")
    assert json.loads(machine.python(ASK).stdout)["retain"] == 46


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["gpu.0.compute_mode=3"], 0),
        (["gpu.0.compute_mode=3", "gpu.0.process.0=1,100,graphics"], 0),
        (["gpu.0.compute_mode=3", "gpu.0.process.0=1,100"], 46),
        (["gpu.0.process.0=1,100"], 0),
    ],
)
def test_an_exclusive_gpu_is_for_one_process(machine: Machine, overrides: list[str], code: int) -> None:
    machine.set("a10-535", *overrides)
    assert json.loads(machine.python(ASK).stdout)["retain"] == code


def test_memory_of_other_processes_is_taken(machine: Machine) -> None:
    machine.set("a10-535", "gpu.0.process.0=1,22516,compute")
    assert json.loads(machine.python(ASK).stdout)["alloc"] == 2


@pytest.mark.parametrize("visible", [None, "0", "MIG-a1004000-0010-5550-8000-000000000003"])
def test_cuda_has_one_mig_device(machine: Machine, visible: str | None) -> None:
    machine.set("a100-mig-550")
    seen = json.loads(machine.python(ASK, **({"CUDA_VISIBLE_DEVICES": visible} if visible else {})).stdout)
    assert seen["count"] == 1
    assert seen["uuid"].endswith("3" if visible and "-" in visible else "1")


def test_mig_mode_without_devices_is_no_device(machine: Machine) -> None:
    machine.set("a100-mig-550", *(f"gpu.0.mig_device.{slot}=" for slot in range(3)))
    assert init(machine) == 100


def test_a_whole_gpu_comes_before_mig_devices(machine: Machine) -> None:
    machine.set("a100-mig-550", "gpu.1.pci=0000:0f:00.0", "gpu.1.name=whole (simulated)", "gpu.1.uuid=GPU-second")
    seen = json.loads(machine.python(ASK).stdout)
    assert (seen["count"], seen["name"]) == (1, "whole (simulated)")


@pytest.mark.parametrize(
    ("profile", "overrides", "manager", "code"),
    [
        ("h100x8-580", [], True, 0),
        ("h100x8-580", [], False, 802),
        ("b200x8-580", [], False, 802),
        ("h100x8-580", ["gpu.5.fabric_state=2"], True, 802),
        ("h100x8-580", [f"gpu.{number}.fabric_state=3" for number in range(8)], False, 0),
        ("a100-mig-550", ["nvswitches=6"], False, 802),
        ("a100-mig-550", ["nvswitches=6"], True, 0),
    ],
)
def test_a_fabric_needs_its_manager(machine: Machine, profile: str, overrides: list[str], manager: bool, code: int) -> None:
    machine.set(profile, *overrides, fabric_manager=manager)
    assert init(machine) == code


def test_a_gpu_with_another_driver_is_not_cudas(machine: Machine) -> None:
    machine.set("a10-535", "gpu.0.bound_driver=vfio-pci")
    assert init(machine) == 100


def test_hang(machine: Machine) -> None:
    machine.set("a10-535", "hang=cu_init")
    with pytest.raises(subprocess.TimeoutExpired):
        machine.python(INIT, timeout=1)


@pytest.mark.parametrize(("visible", "code"), [("0", 0), ("GPU-a1000000", 0), ("", 100), ("1", 100), ("-1,0", 100), ("none", 100)])
def test_cuda_visible_devices(machine: Machine, visible: str, code: int) -> None:
    machine.set("a10-535")
    assert init(machine, CUDA_VISIBLE_DEVICES=visible) == code
