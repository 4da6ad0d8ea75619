# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libnvidia-ml.so.1 through the genuine nvidia-ml-py, per profile and per fault."""

from __future__ import annotations

import json
import subprocess

import pytest
import simgpu_profile
from conftest import PROFILES, Machine

ASK = """
import json, pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
pci = n.nvmlDeviceGetPciInfo(h)
memory = n.nvmlDeviceGetMemoryInfo(h)
def maybe(call):
    try:
        return call(h)
    except n.NVMLError as error:
        return error.value
print(json.dumps({
    "count": n.nvmlDeviceGetCount(), "driver": n.nvmlSystemGetDriverVersion(), "cuda": n.nvmlSystemGetCudaDriverVersion_v2(),
    "name": n.nvmlDeviceGetName(h), "uuid": n.nvmlDeviceGetUUID(h), "serial": n.nvmlDeviceGetSerial(h),
    "bus": pci.busId, "legacy": pci.busIdLegacy, "device": pci.pciDeviceId, "subsystem": pci.pciSubSystemId,
    "architecture": n.nvmlDeviceGetArchitecture(h), "cc": n.nvmlDeviceGetCudaComputeCapability(h),
    "total": memory.total, "used": memory.used, "sum": memory.free + memory.used,
    "v2": maybe(lambda h: n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2).reserved),
    "ecc": maybe(n.nvmlDeviceGetEccMode), "mig": maybe(n.nvmlDeviceGetMigMode), "persistence": n.nvmlDeviceGetPersistenceMode(h),
    "compute_mode": n.nvmlDeviceGetComputeMode(h), "processes": n.nvmlDeviceGetComputeRunningProcesses_v2(h),
    "minor": n.nvmlDeviceGetMinorNumber(h), "index": n.nvmlDeviceGetIndex(h),
    "same": n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByPciBusId(pci.busId)) == n.nvmlDeviceGetUUID(h),
}))
n.nvmlShutdown()
"""
INIT = "import pynvml as n\ntry:\n    n.nvmlInit()\nexcept n.NVMLError as e:\n    print(e.value)\nelse:\n    print(0)\n"
NOT_SUPPORTED, FUNCTION_NOT_FOUND = 3, 13


def init(machine: Machine) -> int:
    return int(machine.python(INIT).stdout)


@pytest.mark.parametrize("profile", PROFILES)
def test_describes_what_the_profile_says(machine: Machine, profile: str) -> None:
    pairs = machine.set(profile)
    gpu = simgpu_profile.gpus(pairs)[0]
    answer = machine.python(ASK)
    assert answer.returncode == 0, answer.stderr
    seen = json.loads(answer.stdout)
    domain, bus, slot = gpu["pci"].split(":")
    assert seen["count"] == 1
    assert seen["driver"] == pairs["driver_version"]
    assert (seen["name"], seen["uuid"], seen["serial"]) == (gpu["name"], gpu["uuid"], gpu["serial"])
    assert seen["bus"] == f"{int(domain, 16):08X}:{bus.upper()}:{slot.upper()}"
    assert seen["legacy"] == gpu["pci"].upper()
    assert seen["device"] == int(gpu["device_id"], 16) << 16 | 0x10DE
    assert seen["subsystem"] == int(gpu["subsystem_device"], 16) << 16 | int(gpu["subsystem_vendor"], 16)
    assert ".".join(map(str, seen["cc"])) == gpu["compute_capability"]
    assert seen["architecture"] == int(gpu["architecture"])
    assert seen["total"] == seen["sum"] == int(gpu["memory_mib"]) << 20
    assert seen["ecc"] == [1, 1]
    assert seen["mig"] == NOT_SUPPORTED
    assert seen["persistence"] == int(gpu["persistence"])
    assert (seen["compute_mode"], seen["processes"], seen["minor"], seen["index"], seen["same"]) == (0, [], 0, 0, True)


@pytest.mark.parametrize(("profile", "cuda"), [("a10-535", 12020), ("t4-470", 11040)])
def test_cuda_version_follows_the_branch(machine: Machine, profile: str, cuda: int) -> None:
    machine.set(profile)
    assert json.loads(machine.python(ASK).stdout)["cuda"] == cuda


def test_calls_newer_than_the_branch_are_missing(machine: Machine) -> None:
    machine.set("a10-535")
    assert json.loads(machine.python(ASK).stdout)["v2"] == 512 << 20
    machine.set("t4-470")
    assert json.loads(machine.python(ASK).stdout)["v2"] == FUNCTION_NOT_FOUND


def test_no_module_is_driver_not_loaded(machine: Machine) -> None:
    machine.set("a10-535", loaded=None)
    assert init(machine) == 9


def test_another_module_is_a_version_mismatch(machine: Machine) -> None:
    machine.set("a10-535", loaded="535.161.08")
    assert init(machine) == 18


def test_no_device_node_is_driver_not_loaded(machine: Machine) -> None:
    machine.set("a10-535")
    (machine.root / "dev/nvidiactl").unlink()
    assert init(machine) == 9


def test_a_node_that_does_not_open_is_an_unknown_error(machine: Machine) -> None:
    machine.set("a10-535")
    (machine.root / "dev/nvidiactl").unlink()
    (machine.root / "dev/nvidiactl").mkdir()
    assert init(machine) == 999


@pytest.mark.parametrize("code", [9, 12, 17, 18, 999])
def test_init_fails_as_told(machine: Machine, code: int) -> None:
    machine.set("a10-535", f"nvml_init_error={code}")
    assert init(machine) == code


QUERY = """
import pynvml as n
n.nvmlInit()
try:
    h = n.nvmlDeviceGetHandleByIndex(0)
except n.NVMLError as e:
    print("handle", e.value)
else:
    try:
        n.nvmlDeviceGetName(h)
    except n.NVMLError as e:
        print("query", e.value)
"""


@pytest.mark.parametrize(("line", "seen"), [([], "query 15"), (["gpu.0.error_at=handle"], "handle 15")])
def test_a_lost_gpu(machine: Machine, line: list[str], seen: str) -> None:
    machine.set("a10-535", "gpu.0.error=15", *line)
    assert machine.python(QUERY).stdout.strip() == seen


@pytest.mark.parametrize(("where", "program"), [("nvml_init", INIT), ("nvml_query", ASK)])
def test_hang(machine: Machine, where: str, program: str) -> None:
    machine.set("a10-535", f"hang={where}")
    with pytest.raises(subprocess.TimeoutExpired):
        machine.python(program, timeout=1)


def test_two_gpus_of_which_one_may_be_opened(machine: Machine) -> None:
    machine.set("a10-535", "gpu.1.pci=0000:5e:00.0", "gpu.1.name=NVIDIA A10 (simulated)", "gpu.1.uuid=GPU-second")
    count = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetCount(), n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(0)))"
    assert machine.python(count).stdout.split()[0] == "2"
    (machine.root / "dev/nvidia0").unlink()
    assert machine.python(count).stdout.split() == ["1", "GPU-second"]
