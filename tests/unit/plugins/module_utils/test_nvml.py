# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
import json
from types import SimpleNamespace

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _nvml
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Guard, Leftovers

MIB = 1024 * 1024


class NvmlError(Exception):
    def __init__(self, value):
        self.value = value

    def __str__(self):
        return f"error {self.value}"


class FakeGpu:
    def __init__(self, bus_id, name="NVIDIA A10", capability=(8, 6), architecture=7, fault=None, mig=None):
        self.bus_id, self.name, self.capability, self.fault, self.mig = bus_id, name, capability, fault, mig
        self.architecture = architecture


class FakeNvml:
    """Stands for pynvml. ``missing`` names functions that its driver does not have."""

    NVMLError = NvmlError
    nvmlMemory_v2 = 33554472

    def __init__(self, *gpus, init=None, missing=(), unlisted=()):
        self.gpus, self.init, self.missing, self.unlisted = gpus, init, missing, dict(unlisted)

    def __getattribute__(self, name):
        if name.startswith("nvml") and name in object.__getattribute__(self, "missing"):
            raise NvmlError(13)
        return object.__getattribute__(self, name)

    def _of(self, gpu, value):
        if gpu.fault:
            raise NvmlError(gpu.fault)
        return value

    def nvmlInit(self):
        if self.init:
            raise NvmlError(self.init)

    def nvmlShutdown(self):
        pass

    def nvmlSystemGetDriverVersion(self):
        return b"535.247.01"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 12020

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.gpus[index]

    def nvmlDeviceGetHandleByPciBusId(self, bus_id):
        raise NvmlError(self.unlisted.get(bus_id.decode(), 6))

    def nvmlDeviceGetPciInfo(self, gpu):
        return SimpleNamespace(busId=gpu.bus_id, pciDeviceId=0x223610DE, pciSubSystemId=0x148210DE)

    def nvmlDeviceGetName(self, gpu):
        return self._of(gpu, gpu.name)

    def nvmlDeviceGetUUID(self, gpu):
        return self._of(gpu, "GPU-1")

    def nvmlDeviceGetCudaComputeCapability(self, gpu):
        return self._of(gpu, gpu.capability)

    def nvmlDeviceGetArchitecture(self, gpu):
        return self._of(gpu, gpu.architecture)

    def nvmlDeviceGetMemoryInfo(self, gpu, version=None):
        if version and "v2" in self.missing:
            raise NvmlError(13)
        return self._of(gpu, SimpleNamespace(total=23028 * MIB, used=(5 if version else 300) * MIB))

    def nvmlDeviceGetComputeMode(self, gpu):
        return self._of(gpu, 3)

    def nvmlDeviceGetPersistenceMode(self, gpu):
        return self._of(gpu, 1)

    def nvmlDeviceGetEccMode(self, gpu):
        return self._of(gpu, [1, 0])

    def nvmlDeviceGetMigMode(self, gpu):
        if gpu.mig is None:
            raise NvmlError(3)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu, number):
        if number not in gpu.mig:
            raise NvmlError(6)
        return FakeGpu("", name=f"NVIDIA A100-SXM4-40GB MIG {number + 1}g.5gb")


def collect(nvml, addresses=()):
    answer = _nvml.collect(lambda: nvml, addresses)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def test_a_good_gpu():
    answer = collect(FakeNvml(FakeGpu("00000000:00:05.0")))
    assert (answer["driver_version"], answer["cuda_version"]) == ("535.247.01", "12.2")
    assert answer["gpus"] == {
        "0000:00:05.0": {
            "index": 0,
            "name": "NVIDIA A10",
            "uuid": "GPU-1",
            "architecture": "ampere",
            "compute_capability": "8.6",
            "memory_total_mib": 23028,
            "memory_used_mib": 5,
            "compute_mode": "exclusive_process",
            "persistence_mode": True,
            "ecc": {"current": True, "pending": False},
            "mig": {"current": None, "pending": None, "devices": []},
            "fabric": None,
            "recovery_action": None,
            "processes": None,
            "health": "ok",
            "pci": {
                "vendor_id": "0x10de",
                "device_id": "0x2236",
                "subsystem_vendor_id": "0x10de",
                "subsystem_device_id": "0x1482",
            },
        }
    }


def test_a_driver_of_branch_470_knows_less():
    missing = ("v2", "nvmlDeviceGetArchitecture", "nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetMigMode")
    answer = collect(FakeNvml(FakeGpu(b"00000000:00:05.0", name=b"Tesla T4", capability=(7, 5)), missing=missing))
    gpu = answer["gpus"]["0000:00:05.0"]
    assert (gpu["name"], gpu["architecture"], gpu["memory_used_mib"]) == ("Tesla T4", "turing", 300)
    assert answer["cuda_version"] is None


def test_mig_devices():
    mig = collect(FakeNvml(FakeGpu("00000000:00:05.0", mig={0, 3})))["gpus"]["0000:00:05.0"]["mig"]
    assert (mig["current"], mig["pending"]) == (True, True)
    assert mig["devices"] == [
        {
            "index": slot,
            "name": f"NVIDIA A100-SXM4-40GB MIG {slot + 1}g.5gb",
            "uuid": "GPU-1",
            "profile": f"{slot + 1}g.5gb",
            "memory_total_mib": 23028,
        }
        for slot in (0, 3)
    ]


def test_mig_devices_that_cannot_be_listed():
    nvml = FakeNvml(FakeGpu("00000000:00:05.0", mig={0}), missing=["nvmlDeviceGetMaxMigDeviceCount"])
    assert collect(nvml)["gpus"]["0000:00:05.0"]["mig"] == {"current": True, "pending": True, "devices": None}


class Newer(FakeNvml):
    """What later branches know beside: the fabric by a versioned structure, the recovery action, processes."""

    class c_nvmlGpuFabricInfoV_t(ctypes.Structure):  # noqa: N801  the name in pynvml
        _fields_ = [("version", ctypes.c_uint), ("status", ctypes.c_uint), ("state", ctypes.c_ubyte)]

    def nvmlDeviceGetGpuFabricInfoV(self, gpu, reference):
        reference._obj.state, reference._obj.status = 3, 0
        return 0

    def nvmlDeviceGetFieldValues(self, gpu, fields):
        assert fields == [230]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=2))]

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        return [SimpleNamespace(pid=7, usedGpuMemory=300 * MIB), SimpleNamespace(pid=8, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu):
        return [SimpleNamespace(pid=9, usedGpuMemory=0)]


def test_what_newer_branches_know():
    gpu = collect(Newer(FakeGpu("00000000:00:05.0")))["gpus"]["0000:00:05.0"]
    assert gpu["fabric"] == {"state": "completed", "status": 0}
    assert gpu["recovery_action"] == "node_reboot"
    assert gpu["processes"] == [
        {"pid": 7, "type": "compute", "memory_mib": 300},
        {"pid": 8, "type": "compute", "memory_mib": None},
        {"pid": 9, "type": "graphics", "memory_mib": 0},
    ]


def test_a_branch_without_the_fabric_by_version():
    class Older(Newer):
        c_nvmlGpuFabricInfo_t = Newer.c_nvmlGpuFabricInfoV_t

        def nvmlDeviceGetGpuFabricInfo(self, gpu, reference):
            reference._obj.state, reference._obj.status = 1, 999
            return 0

    gpu = collect(Older(FakeGpu("00000000:00:05.0"), missing=["nvmlDeviceGetGpuFabricInfoV"]))["gpus"]["0000:00:05.0"]
    assert gpu["fabric"] == {"state": "not_started", "status": 999}


def test_a_field_that_the_driver_does_not_know():
    class Refusing(Newer):
        def nvmlDeviceGetFieldValues(self, gpu, fields):
            return [SimpleNamespace(nvmlReturn=3, value=SimpleNamespace(uiVal=1))]

    assert collect(Refusing(FakeGpu("00000000:00:05.0")))["gpus"]["0000:00:05.0"]["recovery_action"] is None


def test_processes_of_branch_470():
    class Branch470(Newer):
        def nvmlDeviceGetComputeRunningProcesses_v2(self, gpu):
            return [SimpleNamespace(pid=7, usedGpuMemory=MIB)]

        def nvmlDeviceGetGraphicsRunningProcesses_v2(self, gpu):
            raise NvmlError(3)

    missing = ["nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"]
    processes = collect(Branch470(FakeGpu("00000000:00:05.0"), missing=missing))["gpus"]["0000:00:05.0"]["processes"]
    assert processes == [{"pid": 7, "type": "compute", "memory_mib": 1}]


def test_a_library_that_lacks_the_function_of_this_pynvml():
    class LibraryMismatchError(Exception):
        """Stands for NVMLLibraryMismatchError, which is no NVMLError."""

    class Branch470(Newer):
        def nvmlDeviceGetComputeRunningProcesses(self, gpu):
            raise LibraryMismatchError("Unversioned function called and the pyNVML version does not match the NVML lib version.")

        nvmlDeviceGetGraphicsRunningProcesses = nvmlDeviceGetComputeRunningProcesses

        def nvmlDeviceGetComputeRunningProcesses_v2(self, gpu):
            return [SimpleNamespace(pid=7, usedGpuMemory=MIB)]

        def nvmlDeviceGetGraphicsRunningProcesses_v2(self, gpu):
            return []

    gpu = collect(Branch470(FakeGpu("00000000:00:05.0")))["gpus"]["0000:00:05.0"]
    assert gpu["processes"] == [{"pid": 7, "type": "compute", "memory_mib": 1}]
    assert gpu["health"] == "ok"


def test_processes_that_nobody_may_see():
    class Secret(Newer):
        def nvmlDeviceGetComputeRunningProcesses(self, gpu):
            raise NvmlError(4)

    assert collect(Secret(FakeGpu("00000000:00:05.0")))["gpus"]["0000:00:05.0"]["processes"] is None


@pytest.mark.parametrize(("fault", "health"), [(15, "lost"), (16, "reset_required"), (3, "ok")])
def test_health_by_what_the_gpu_answers(fault, health):
    gpu = collect(FakeNvml(FakeGpu("00000000:00:05.0", fault=fault)))["gpus"]["0000:00:05.0"]
    assert gpu["health"] == health
    assert gpu["memory_total_mib"] is None


def test_a_gpu_too_ill_to_tell_its_address():
    class Ill(FakeNvml):
        def nvmlDeviceGetPciInfo(self, gpu):
            return self._of(gpu, super().nvmlDeviceGetPciInfo(gpu))

    nvml = Ill(FakeGpu("00000000:00:05.0"), FakeGpu("00000000:00:06.0", fault=15))
    gpus = collect(nvml, ["0000:00:05.0", "0000:00:06.0"])["gpus"]
    assert {address: (gpu["health"], gpu["index"]) for address, gpu in gpus.items()} == {
        "0000:00:05.0": ("ok", 0),
        "0000:00:06.0": ("lost", 1),
    }
    assert collect(nvml, ["0000:00:06.0"])["gpus"]["0000:00:06.0"] == {"health": "error"}


@pytest.mark.parametrize(("code", "health"), [(15, "lost"), (16, "reset_required"), (6, "error"), (999, "error")])
def test_health_of_a_gpu_without_a_handle(code, health):
    nvml = FakeNvml(FakeGpu("00000000:00:05.0"), unlisted={"0000:00:06.0": code})
    answer = collect(nvml, ["0000:00:05.0", "0000:00:06.0"])
    assert answer["gpus"]["0000:00:06.0"] == {"health": health}
    assert answer["gpus"]["0000:00:05.0"]["health"] == "ok"


def test_an_error_at_the_start():
    assert collect(FakeNvml(init=18))["error"] == {
        "code": 18,
        "name": "NVML_ERROR_LIB_RM_VERSION_MISMATCH",
        "message": "error 18",
    }


def test_no_pynvml():
    def load():
        raise ModuleNotFoundError("No module named 'pynvml'")

    answer = _nvml.collect(load, [])
    assert "cannot be imported: No module named 'pynvml'" in answer["absent"]
    observation = _nvml.observe(Guard("nvml", Leftovers("/nonexistent"), 5), [], load)
    assert (observation.ok, observation.error, observation.hung) == (False, None, False)
    assert observation.message == answer["absent"]


def observe(load):
    return _nvml.observe(Guard("nvml", Leftovers("/nonexistent"), 0.5), [], load)


def test_observation_of_a_good_driver():
    observation = observe(lambda: FakeNvml(FakeGpu("00000000:00:05.0")))
    assert (observation.ok, observation.driver_version, observation.cuda_version) == (True, "535.247.01", "12.2")
    assert list(observation.gpus) == ["0000:00:05.0"]


def test_observation_of_a_broken_driver():
    observation = observe(lambda: FakeNvml(init=9))
    assert (observation.ok, observation.hung, observation.error["code"]) == (False, False, 9)


def test_observation_of_a_hanging_driver():
    class Hanging(FakeNvml):
        def nvmlInit(self):
            while True:
                pass

    observation = observe(Hanging)
    assert (observation.ok, observation.hung, observation.error["name"]) == (False, True, "TIMEOUT")


def test_observation_of_a_library_that_crashes():
    class Crashing(FakeNvml):
        def nvmlInit(self):
            ctypes.string_at(0)

    observation = observe(Crashing)
    assert (observation.ok, observation.hung, observation.error["name"]) == (False, False, "CRASHED")


def test_a_module_of_the_same_name_that_is_another():
    observation = observe(SimpleNamespace)
    assert (observation.ok, observation.error["name"]) == (False, "CRASHED")


def test_the_genuine_pynvml_without_a_library():
    pytest.importorskip("pynvml")
    observation = _nvml.observe(Guard("nvml", Leftovers("/nonexistent"), 20), [])
    if observation.ok:
        pytest.skip("this machine has an NVIDIA driver")
    assert observation.error["name"] in ("NVML_ERROR_LIBRARY_NOT_FOUND", "NVML_ERROR_DRIVER_NOT_LOADED")
