# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libnvidia-ml.so.1 through the genuine nvidia-ml-py, per profile and per fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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
    "v3": maybe(n.nvmlDeviceGetComputeRunningProcesses_v3), "minor": n.nvmlDeviceGetMinorNumber(h), "index": n.nvmlDeviceGetIndex(h),
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
    gpus = simgpu_profile.gpus(pairs)
    gpu = gpus[0]
    answer = machine.python(ASK)
    assert answer.returncode == 0, answer.stderr
    seen = json.loads(answer.stdout)
    domain, bus, slot = gpu["pci"].split(":")
    assert seen["count"] == len(gpus)
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
    assert seen["mig"] == (NOT_SUPPORTED if gpu["mig"] == "na" else [int(gpu["mig"])] * 2)
    assert seen["persistence"] == int(gpu["persistence"])
    assert (seen["compute_mode"], seen["processes"], seen["minor"], seen["index"], seen["same"]) == (0, [], 0, 0, True)


@pytest.mark.parametrize(
    ("profile", "cuda"),
    [
        ("a10-535", 12020),
        ("t4-470", 11040),
        ("t4-515", 11070),
        ("h100x8-550", 12040),
        ("l4-580", 13000),
        ("rtxpro6000-595", 13020),
        ("a10-615", 13040),
    ],
)
def test_cuda_version_follows_the_branch(machine: Machine, profile: str, cuda: int) -> None:
    machine.set(profile)
    assert json.loads(machine.python(ASK).stdout)["cuda"] == cuda


def test_calls_newer_than_the_branch_are_missing(machine: Machine) -> None:
    machine.set("a10-535")
    seen = json.loads(machine.python(ASK).stdout)
    assert (seen["v2"], seen["v3"]) == (512 << 20, [])
    machine.set("t4-470")
    seen = json.loads(machine.python(ASK).stdout)
    assert (seen["v2"], seen["v3"], seen["processes"]) == (FUNCTION_NOT_FOUND, FUNCTION_NOT_FOUND, [])


SYMBOLS = "import ctypes, sys; l = ctypes.CDLL('libnvidia-ml.so.1'); print(*[n for n in sys.argv[1:] if hasattr(l, n)])"


@pytest.mark.parametrize("version", ["470.256.02", "525.147.05", "535.274.02", "580.178.04"])
def test_a_library_exports_what_its_branch_had(machine: Machine, version: str) -> None:
    machine.set("a10-535", f"driver_version={version}")
    names = [*simgpu_profile.SINCE, "nvmlInit_v2", "nvmlDeviceGetComputeRunningProcesses_v2"]
    there = machine.run(sys.executable, "-c", SYMBOLS, *names).stdout.split()
    assert there == [name for name in names if simgpu_profile.SINCE.get(name, 0) <= int(version[:3])]


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


def test_a_gpu_with_another_driver_is_not_nvmls(machine: Machine) -> None:
    count = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetCount())"
    machine.set("h100x8-580", "gpu.2.bound_driver=vfio-pci")
    assert machine.python(count).stdout.strip() == "7"
    machine.set("h100x8-580", "bound_driver=nouveau")
    assert machine.python(count).stdout.strip() == "0"


PROCESSES = """
import json, pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
def of(call):
    try:
        return [(p.pid, p.usedGpuMemory, getattr(p, "gpuInstanceId", None)) for p in call(h)]
    except n.NVMLError as error:
        return error.value
def name(pid):
    try:
        return n.nvmlSystemGetProcessName(pid)
    except n.NVMLError as error:
        return error.value
compute = of(n.nvmlDeviceGetComputeRunningProcesses_v2)
print(json.dumps({
    "compute": compute, "v3": of(n.nvmlDeviceGetComputeRunningProcesses_v3), "graphics": of(n.nvmlDeviceGetGraphicsRunningProcesses_v2),
    "names": [name(row[0]) for row in compute], "used": n.nvmlDeviceGetMemoryInfo(h).used,
}))
"""
NO_INSTANCE = 0xFFFFFFFF


@pytest.mark.parametrize(("profile", "newer"), [("a10-535", True), ("t4-470", False)])
def test_processes(machine: Machine, profile: str, newer: bool) -> None:
    with subprocess.Popen(["sleep", "987654"]) as sleeper:
        try:
            machine.set(
                profile,
                "gpu.0.process.0=sleep 987654,4096,compute",
                "gpu.0.process.1=999999999,na",
                f"gpu.0.process.2={os.getpid()},100,graphics",
                "gpu.0.process.3=no such program anywhere,7",
            )
            seen = json.loads(machine.python(PROCESSES).stdout)
        finally:
            sleeper.kill()
    assert seen["compute"] == [[sleeper.pid, 4096 << 20, NO_INSTANCE], [999999999, None, NO_INSTANCE]]
    assert seen["v3"] == (seen["compute"] if newer else FUNCTION_NOT_FOUND)
    assert seen["graphics"] == [[os.getpid(), 100 << 20, NO_INSTANCE]]
    assert seen["names"] == ["sleep", 6]
    assert seen["used"] >= 4203 << 20


MIG = """
import json, pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
seen = {"most": n.nvmlDeviceGetMaxMigDeviceCount(h), "devices": []}
for slot in range(seen["most"]):
    try:
        d = n.nvmlDeviceGetMigDeviceHandleByIndex(h, slot)
    except n.NVMLError as error:
        seen["none"] = error.value
        continue
    parent = n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(d)
    identity = [n.nvmlDeviceGetName(d), n.nvmlDeviceGetUUID(d), n.nvmlDeviceGetGpuInstanceId(d), n.nvmlDeviceGetComputeInstanceId(d)]
    same = n.nvmlDeviceGetUUID(parent) == n.nvmlDeviceGetUUID(h)
    seen["devices"].append([slot, *identity, n.nvmlDeviceGetMemoryInfo(d).total >> 20, n.nvmlDeviceIsMigDeviceHandle(d).value, same])
print(json.dumps(seen))
"""


def test_mig_devices(machine: Machine) -> None:
    machine.set("a100-mig-550")
    seen = json.loads(machine.python(MIG).stdout)
    name = "NVIDIA A100-SXM4-40GB (simulated) MIG {}"
    assert (seen["most"], seen["none"]) == (7, 6)
    assert seen["devices"] == [
        [0, name.format("3g.20gb"), "MIG-a1004000-0002-5550-8000-000000000001", 2, 0, 19968, 1, True],
        [1, name.format("1g.5gb"), "MIG-a1004000-0009-5550-8000-000000000002", 9, 0, 4864, 1, True],
        [2, name.format("1g.5gb"), "MIG-a1004000-0010-5550-8000-000000000003", 10, 0, 4864, 1, True],
    ]


def test_a_mig_device_needs_its_capability(machine: Machine) -> None:
    machine.set("a100-mig-550")
    (machine.root / "dev/nvidia-caps/nvidia-cap84").unlink()
    assert [device[3] for device in json.loads(machine.python(MIG).stdout)["devices"]] == [2, 10]


def test_without_mig_mode_there_are_no_mig_devices(machine: Machine) -> None:
    machine.set("a100-mig-550", "gpu.0.mig=0")
    assert json.loads(machine.python(MIG).stdout) == {"most": 0, "devices": []}


FABRIC = """
import ctypes, json, pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
def state(info, call):
    try:
        call(h, ctypes.byref(info))
    except n.NVMLError as error:
        return -error.value
    return [info.state, info.status]
new = n.c_nvmlGpuFabricInfo_v3_t(); new.version = n.nvmlGpuFabricInfo_v3
two = n.c_nvmlGpuFabricInfo_v2_t(); two.version = n.nvmlGpuFabricInfo_v2
value = n.nvmlDeviceGetFieldValues(h, [n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])[0]
print(json.dumps({
    "old": state(n.c_nvmlGpuFabricInfo_t(), n.nvmlDeviceGetGpuFabricInfo), "v2": state(two, n.nvmlDeviceGetGpuFabricInfoV),
    "v3": state(new, n.nvmlDeviceGetGpuFabricInfoV), "recovery": value.value.uiVal if value.nvmlReturn == 0 else -value.nvmlReturn,
}))
"""


@pytest.mark.parametrize(
    ("profile", "overrides", "manager", "old", "new", "recovery"),
    [
        ("h100x8-580", [], True, [3, 0], [3, 0], 0),
        ("h100x8-580", [], False, [2, 0], [2, 0], 0),
        ("h100x8-580", ["gpu.0.fabric_state=3", "gpu.0.fabric_status=999"], False, [3, 999], [3, 999], 0),
        ("h100x8-580", ["gpu.0.recovery_action=4"], True, [3, 0], [3, 0], 4),
        ("b200x8-580", [], False, [2, 0], [2, 0], 0),
        ("h100x8-550", ["gpu.0.recovery_action=4"], True, [3, 0], [3, 0], -NOT_SUPPORTED),
        ("a100-mig-550", ["nvswitches=6"], False, [0, 0], [0, 0], -NOT_SUPPORTED),  # only Hopper and later tell
        ("a10-535", [], True, [0, 0], -FUNCTION_NOT_FOUND, -NOT_SUPPORTED),
        ("t4-470", [], True, -FUNCTION_NOT_FOUND, -FUNCTION_NOT_FOUND, -NOT_SUPPORTED),
    ],
)
def test_fabric_and_recovery(
    machine: Machine, profile: str, overrides: list[str], manager: bool, old: object, new: object, recovery: int
) -> None:
    machine.set(profile, *overrides, fabric_manager=manager)
    assert json.loads(machine.python(FABRIC).stdout) == {"old": old, "v2": new, "v3": new, "recovery": recovery}
