# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU facts from NVML, through pynvml (the package nvidia-ml-py).

All of it happens in a child process, since NVML hangs when the driver hangs and takes its process down when it crashes.

This is private to difyops.gpu.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _observer
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts, Observation

SOURCE = "nvml"

# nvml.h: nvmlDeviceArchitecture_t, nvmlComputeMode_t. Exclusive-thread mode is gone since CUDA 8 and meant the same.
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
_MIB = 1024 * 1024


def _import() -> Any:
    return importlib.import_module("pynvml")


class NvmlObserver:
    """Asks NVML about the driver and every GPU.

    ``addresses`` are the PCI addresses of the GPUs that the driver should know; one that NVML does not list is asked
    for by its address, to learn what is wrong with it.
    """

    source = SOURCE

    def __init__(self, guard: _observer.Guard, addresses: Sequence[str], load: Callable[[], Any] = _import) -> None:
        self._guard = guard
        self._addresses = addresses
        self._load = load

    def observe(self) -> Observation:
        answer = self._guard.call(lambda: collect(self._load, self._addresses))
        if isinstance(answer, Observation):
            return answer
        failure = answer.get("error")
        return Observation(
            SOURCE,
            ok=not failure and not answer.get("absent"),
            message=answer.get("absent") or (failure and failure["message"]),
            error=failure,
            driver_version=answer.get("driver_version"),
            cuda_version=answer.get("cuda_version"),
            gpus=answer.get("gpus", {}),
        )


def collect(load: Callable[[], Any], addresses: Sequence[str]) -> Facts:
    """Return all that NVML says, as plain data. Runs in the child process."""
    try:
        nvml = load()
    except Exception as error:
        return {"absent": f"The Python module pynvml (package nvidia-ml-py) cannot be imported: {error}"}
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return {"error": _observer.error(int(error.value), str(error))}
    session = _Session(nvml)
    answer = {
        "driver_version": session.text("nvmlSystemGetDriverVersion"),
        "cuda_version": session.cuda_version(),
        "gpus": session.gpus(addresses),
    }
    session.ask("nvmlShutdown")
    return answer


class _Session:
    """Questions to an initialised NVML. What a driver or a device does not know is None, not an error."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._fault: int | None = None

    def ask(self, name: str, *arguments: Any) -> Any:
        """Return what one function says. A fault of the device is kept for its health."""
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in (_observer.GPU_IS_LOST, _observer.RESET_REQUIRED):
                self._fault = int(error.value)
        except (AttributeError, TypeError, ValueError):  # this pynvml is older than the function
            pass
        return None

    def text(self, name: str, *arguments: Any) -> str | None:
        value = self.ask(name, *arguments)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def cuda_version(self) -> str | None:
        number = self.ask("nvmlSystemGetCudaDriverVersion_v2") or self.ask("nvmlSystemGetCudaDriverVersion")
        return f"{number // 1000}.{number % 1000 // 10}" if number else None

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

    def _refusal(self, address: str) -> int | None:
        """Return why NVML gives no handle for a GPU that its driver is bound to."""
        try:
            self._nvml.nvmlDeviceGetHandleByPciBusId(address.encode())
        except self._nvml.NVMLError as error:
            return int(error.value)
        return _observer.ERROR_UNKNOWN

    def _gpu(self, handle: Any, index: int) -> tuple[str | None, Facts]:
        pci = self.ask("nvmlDeviceGetPciInfo", handle)
        bus_id = getattr(pci, "busId", "") or ""
        capability = self.ask("nvmlDeviceGetCudaComputeCapability", handle)
        compute_capability = f"{capability[0]}.{capability[1]}" if capability else None
        memory = self.ask("nvmlDeviceGetMemoryInfo", handle, getattr(self._nvml, "nvmlMemory_v2", None)) or self.ask(
            "nvmlDeviceGetMemoryInfo", handle
        )
        persistence = self.ask("nvmlDeviceGetPersistenceMode", handle)
        facts: Facts = {
            "index": index,
            "name": self.text("nvmlDeviceGetName", handle),
            "uuid": self.text("nvmlDeviceGetUUID", handle),
            "architecture": _ARCHITECTURES.get(self.ask("nvmlDeviceGetArchitecture", handle))
            or _observer.architecture_of(compute_capability),
            "compute_capability": compute_capability,
            "memory_total_mib": memory.total // _MIB if memory else None,
            "memory_used_mib": memory.used // _MIB if memory else None,
            "compute_mode": _COMPUTE_MODES.get(self.ask("nvmlDeviceGetComputeMode", handle)),
            "persistence_mode": None if persistence is None else bool(persistence),
            "ecc": self._current_and_pending("nvmlDeviceGetEccMode", handle),
            "mig": self._mig(handle),
            "pci": _ids(pci),
        }
        facts["health"] = _observer.health_of(self._fault)
        return _observer.pci_address(bus_id.decode() if isinstance(bus_id, bytes) else bus_id), facts

    def _current_and_pending(self, name: str, handle: Any) -> Facts:
        modes = self.ask(name, handle)
        current, pending = (bool(modes[0]), bool(modes[1])) if modes else (None, None)
        return {"current": current, "pending": pending}

    def _mig(self, handle: Any) -> Facts:
        facts = self._current_and_pending("nvmlDeviceGetMigMode", handle)
        facts["devices"] = []
        if facts["current"]:
            for number in range(self.ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
                device = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
                if device is not None:  # not every slot is taken
                    facts["devices"].append(self._mig_device(device, number))
        return facts

    def _mig_device(self, device: Any, number: int) -> Facts:
        memory = self.ask("nvmlDeviceGetMemoryInfo", device)
        return {
            "index": number,
            "name": self.text("nvmlDeviceGetName", device),
            "uuid": self.text("nvmlDeviceGetUUID", device),
            "memory_total_mib": memory.total // _MIB if memory else None,
        }


def _ids(pci: Any) -> Facts | None:
    """Return the ids that NVML knows of a device, for hosts whose kernel does not list it (WSL)."""
    if pci is None:
        return None
    device, subsystem = int(pci.pciDeviceId), int(pci.pciSubSystemId)
    return {
        "vendor_id": f"0x{device & 0xFFFF:04x}",
        "device_id": f"0x{device >> 16:04x}",
        "subsystem_vendor_id": f"0x{subsystem & 0xFFFF:04x}",
        "subsystem_device_id": f"0x{subsystem >> 16:04x}",
    }
