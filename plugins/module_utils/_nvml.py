# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU facts from NVML, through pynvml (the package nvidia-ml-py).

All of it happens in a child process, since NVML hangs when the driver hangs and takes its process down when it crashes.

This is private to difyops.gpu.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _observer
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts, Guard, Observation

SOURCE = "nvml"

# nvml.h: enumerations. Exclusive-thread mode is gone since CUDA 8 and meant the same.
_ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
_COMPUTE_MODES = {0: "default", 1: "exclusive_process", 2: "prohibited", 3: "exclusive_process"}
_FABRIC_STATES = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}
_RECOVERY_ACTIONS = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "recover_imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}
_RECOVERY_ACTION_FIELD = 230
_MIB = 1024 * 1024


def _import() -> Any:
    return importlib.import_module("pynvml")


def observe(guard: Guard, addresses: Sequence[str], load: Callable[[], Any] = _import) -> Observation:
    """Ask NVML about the driver and every GPU.

    ``addresses`` are the PCI addresses of the GPUs that the driver should know; one that NVML does not list is asked
    for by its address, to learn what is wrong with it.
    """
    answer = guard.call(lambda: collect(load, addresses))
    if isinstance(answer, Observation):
        return answer
    failure = answer.pop("error", None)
    absent = answer.pop("absent", None) or (failure and failure["message"])
    return Observation(SOURCE, not absent, absent, failure, **answer)


def collect(load: Callable[[], Any], addresses: Sequence[str]) -> Facts:
    """Return all that NVML says, as plain data. Runs in the child process."""
    try:
        library = load()
    except Exception as problem:
        return {"absent": f"The Python module pynvml (package nvidia-ml-py) cannot be imported: {problem}"}
    try:
        library.nvmlInit()
    except library.NVMLError as problem:
        code = int(problem.value)
        names = (name for name, value in vars(library).items() if name.startswith("NVML_ERROR_") and value == code)
        return {"error": _observer.error(code, str(problem), next(names, None))}
    session = _Session(library)
    number = session.ask("nvmlSystemGetCudaDriverVersion_v2") or session.ask("nvmlSystemGetCudaDriverVersion")
    return {
        "driver_version": session.text("nvmlSystemGetDriverVersion"),
        "cuda_version": f"{number // 1000}.{number % 1000 // 10}" if number else None,
        "gpus": session.gpus(addresses),
    }


def _mib(count: int | None) -> int | None:
    return None if count is None else count // _MIB


class _Session:
    """Questions to an initialised NVML. What a driver or a device does not know is None, not an error."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._fault: int | None = None

    def ask(self, name: str, *arguments: Any) -> Any:
        """Return what one function says. A fault of the device is kept for its health."""
        try:
            return getattr(self._library, name)(*arguments)
        except self._library.NVMLError as problem:
            if problem.value in (_observer.GPU_IS_LOST, _observer.RESET_REQUIRED):
                self._fault = int(problem.value)
        except Exception:
            # This pynvml is older than the function, or the library is: then it raises what is no NVMLError.
            return None
        return None

    def text(self, name: str, *arguments: Any) -> str | None:
        value = self.ask(name, *arguments)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def gpus(self, addresses: Sequence[str]) -> dict[str, Facts]:
        found: dict[str, Facts] = {}
        count = self.ask("nvmlDeviceGetCount") or 0
        for index in range(count):
            self._fault = None
            handle = self.ask("nvmlDeviceGetHandleByIndex", index)
            if handle is not None:
                address, facts = self._gpu(handle, index)
                if address is None and count == len(addresses):
                    address = addresses[index]  # too ill to tell; NVML counts in the order of the addresses
                if address:
                    found[address] = facts
        for address in addresses:
            if address not in found:
                found[address] = {"health": _observer.health_of(self._refusal(address))}
        return found

    def _refusal(self, address: str) -> int:
        """Return why NVML gives no handle for a GPU that its driver is bound to."""
        try:
            self._library.nvmlDeviceGetHandleByPciBusId(address.encode())
        except self._library.NVMLError as problem:
            return int(problem.value)
        return _observer.ERROR_UNKNOWN

    def _gpu(self, handle: Any, index: int) -> tuple[str | None, Facts]:
        pci = self.ask("nvmlDeviceGetPciInfo", handle)
        bus_id = getattr(pci, "busId", "") or ""
        capability = ".".join(map(str, self.ask("nvmlDeviceGetCudaComputeCapability", handle) or ())) or None
        newer = getattr(self._library, "nvmlMemory_v2", None)
        memory = self.ask("nvmlDeviceGetMemoryInfo", handle, newer) or self.ask("nvmlDeviceGetMemoryInfo", handle)
        mig = _observer.switches(*(self.ask("nvmlDeviceGetMigMode", handle) or (None, None)))
        values = self.ask("nvmlDeviceGetFieldValues", handle, [_RECOVERY_ACTION_FIELD])
        facts: Facts = {
            "index": index,
            "name": self.text("nvmlDeviceGetName", handle),
            "uuid": self.text("nvmlDeviceGetUUID", handle),
            "architecture": _ARCHITECTURES.get(self.ask("nvmlDeviceGetArchitecture", handle)) or _observer.architecture_of(capability),
            "compute_capability": capability,
            "memory_total_mib": _mib(memory and memory.total),
            "memory_used_mib": _mib(memory and memory.used),
            "compute_mode": _COMPUTE_MODES.get(self.ask("nvmlDeviceGetComputeMode", handle)),
            "persistence_mode": _observer.switches(self.ask("nvmlDeviceGetPersistenceMode", handle), None)["current"],
            "ecc": _observer.switches(*(self.ask("nvmlDeviceGetEccMode", handle) or (None, None))),
            "mig": {**mig, "devices": self._mig_devices(handle) if mig["current"] else []},
            "fabric": self._fabric(handle),
            "recovery_action": _RECOVERY_ACTIONS.get(values[0].value.uiVal) if values and not values[0].nvmlReturn else None,
            "processes": self._processes(handle),
            "pci": _ids(pci),
        }
        facts["health"] = _observer.health_of(self._fault)
        return _observer.pci_address(bus_id.decode() if isinstance(bus_id, bytes) else bus_id), facts

    def _mig_devices(self, handle: Any) -> list[Facts] | None:
        found = []
        slots = self.ask("nvmlDeviceGetMaxMigDeviceCount", handle)
        if slots is None:
            return None
        for slot in range(slots):
            device = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, slot)
            if device is not None:  # not every slot is taken
                name, memory = self.text("nvmlDeviceGetName", device), self.ask("nvmlDeviceGetMemoryInfo", device)
                profile = (name or "").partition(" MIG ")[2] or None
                found.append(
                    _observer.mig_device(slot, name, self.text("nvmlDeviceGetUUID", device), profile, _mib(memory and memory.total))
                )
        return found

    def _fabric(self, handle: Any) -> Facts | None:
        """Return whether the GPU is registered with its NVLink fabric; only newer drivers have the function with a V."""
        for version in ("V", ""):
            structure = getattr(self._library, f"c_nvmlGpuFabricInfo{version}_t", None)
            info = structure and structure()
            if info is not None and self.ask(f"nvmlDeviceGetGpuFabricInfo{version}", handle, ctypes.byref(info)) is not None:
                return {"state": _FABRIC_STATES.get(info.state), "status": info.status}
        return None

    def _processes(self, handle: Any) -> list[Facts] | None:
        found: list[Facts] = []
        for kind in ("Compute", "Graphics"):
            processes = None
            for version in ("", "_v2"):  # branches before 510 know the second version only
                processes = self.ask(f"nvmlDeviceGet{kind}RunningProcesses{version}", handle) if processes is None else processes
            if processes is None and kind == "Compute":
                return None
            found += [{"pid": one.pid, "type": kind.lower(), "memory_mib": _mib(one.usedGpuMemory)} for one in processes or ()]
        return found


def _ids(pci: Any) -> Facts | None:
    """Return the ids that NVML knows of a device, for hosts whose kernel does not list it (WSL)."""
    if pci is None:
        return None
    return {
        f"{prefix}{kind}_id": f"0x{number >> shift & 0xFFFF:04x}"
        for prefix, number in (("", int(pci.pciDeviceId)), ("subsystem_", int(pci.pciSubSystemId)))
        for kind, shift in (("vendor", 0), ("device", 16))
    }
