# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything there is to know about a host's NVIDIA GPUs, put together from all sources.

This is private to difyops.gpu.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ansible_collections.difyops.gpu.plugins.module_utils import _cdi, _engine, _host, _nvml, _observer, _packages, _smi, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._leftovers import Leftovers
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts, Observation, Observer

SCHEMA = 1

# What only a driver that answers can tell of a GPU.
_DRIVER_KNOWS = (
    "index",
    "name",
    "uuid",
    "architecture",
    "compute_capability",
    "memory_total_mib",
    "memory_used_mib",
    "compute_mode",
    "persistence_mode",
    "ecc",
    "mig",
    "health",
    "processes",
)
_OTHER_DRIVERS = {"nouveau", "nova_core", "nova-core"}


def gather(root: str, timeout_s: float) -> Facts:
    """Return the document ``ansible_facts['nvidia']``.

    ``root`` is the root of the file system to observe. Each source gets ``timeout_s`` seconds at most.
    """
    warnings: list[Facts] = []
    host = _host.facts(root)
    pci = _sysfs.gpus(root)
    observations = observe(_observers(root, pci, timeout_s))
    best = observations[-1]  # the first that answered, or the kernel, which always does
    error = next((observation.error for observation in observations if observation.error), None)
    loaded = _sysfs.loaded_driver(root)
    packages = _installed(root, host["os"]["family"], warnings)
    engine = _engine.facts(root, timeout_s)
    gpus = merge(pci, best)
    facts = {
        "schema": SCHEMA,
        "host": host,
        "gpus": gpus,
        "driver": _driver(loaded, packages, best, error),
        "nvml": {
            "source": best.source,
            "error": None if best.ok and best.source != _sysfs.SOURCE else error,
            "attempts": [
                {"source": observation.source, "ok": observation.ok, "message": observation.message} for observation in observations
            ],
        },
        "toolkit": _toolkit(root, packages, engine, loaded),
        "engine": engine,
    }
    return {**facts, "warnings": warnings + complaints(facts)}


def _observers(root: str, pci: Sequence[Facts], timeout_s: float) -> list[Observer]:
    """Return the sources to ask, best first.

    Asking NVML may load the kernel module. Where no GPU waits for it (none there, or all handed to virtual machines),
    only the kernel is asked, so that looking at a host does not change it.
    """
    leftovers = Leftovers(root)

    def guard(source: str) -> _observer.Guard:
        return _observer.Guard(source, leftovers, timeout_s)

    sysfs = _sysfs.SysfsObserver(guard(_sysfs.SOURCE), root)
    waiting = [gpu for gpu in pci if gpu["bound_driver"] != "vfio-pci"]
    if not waiting and not _sysfs.module_loaded(root, "nvidia") and not os.path.exists(os.path.join(root, "dev/dxg")):
        return [sysfs]
    bound = [gpu["pci_address"] for gpu in pci if gpu["bound_driver"] == "nvidia"]
    return [
        _nvml.NvmlObserver(guard(_nvml.SOURCE), bound),
        _smi.SmiObserver(guard(_smi.SOURCE), bound),
        sysfs,
    ]


def observe(observers: Sequence[Observer]) -> list[Observation]:
    """Ask one source after the other until one answers. After one has hung, no other is sent into the same driver."""
    observations: list[Observation] = []
    for observer in observers:
        hung = next((past for past in observations if past.hung), None)
        if hung is None:
            observations.append(observer.observe())
        else:
            message = f"Not asked, since {hung.source} did not come back."
            observations.append(Observation(observer.source, ok=False, message=message))
        if observations[-1].ok:
            break
    return observations


def merge(pci: Sequence[Facts], best: Observation) -> list[Facts]:
    """Return the GPUs that PCI lists, with what the best source knows of them, and those that only it knows."""
    nothing: Facts = dict.fromkeys(_DRIVER_KNOWS)
    known = {gpu["pci_address"] for gpu in pci}
    gpus = [{**gpu, **nothing, **_of(best, gpu["pci_address"])} for gpu in pci]
    for address in sorted(set(best.gpus) - known):
        if best.source == _sysfs.SOURCE:
            continue
        ids = best.gpus[address].get("pci") or dict.fromkeys(("vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id"))
        place = {"pci_address": address, **ids, "class": None, "bound_driver": None}
        gpus.append({**place, **nothing, **_of(best, address)})
    return gpus


def _of(best: Observation, address: str) -> Facts:
    return {key: value for key, value in best.gpus.get(address, {}).items() if key in _DRIVER_KNOWS}


def _installed(root: str, family: str | None, warnings: list[Facts]) -> list[_packages.Package]:
    try:
        packages = _packages.installed(root, family)
    except _packages.PackagesUnknown as error:
        warnings.append({"code": "DG114", "message": str(error)})
        return []
    broken = [package.name for package in packages if package.broken]
    if broken:
        message = f"The installation of {', '.join(broken)} was not finished; run dpkg --configure -a and read why."
        warnings.append({"code": "DG113", "message": message})
    return packages


def _driver(loaded: Facts | None, packages: Sequence[_packages.Package], best: Observation, error: Facts | None) -> Facts:
    version = (loaded or {}).get("version")
    mismatch = None
    if error and error["code"] == _observer.VERSION_MISMATCH:
        mismatch = True
    elif best.ok and best.source != _sysfs.SOURCE:
        mismatch = False
    return {
        "loaded": loaded,
        "installed": _packages.driver(packages),
        "cuda_version": best.cuda_version,
        "branch": version.split(".")[0] if version else None,
        "mismatch": mismatch,
        "next_kernel_has_module": None,
        "reboot_required": None,
        "reboot_reasons": [],
        "fabric_manager": None,
        "persistenced": None,
    }


def _toolkit(root: str, packages: Sequence[_packages.Package], engine: Facts, loaded: Facts | None) -> Facts:
    versions, version, lockstep = _packages.toolkit(packages)
    directories = engine["cdi_spec_dirs"] or list(_cdi.DIRECTORIES)
    return {
        "packages": versions,
        "version": version,
        "lockstep": lockstep,
        "mode": _cdi.runtime_mode(_sysfs.read(root, "etc/nvidia-container-runtime/config.toml") or ""),
        "cdi": {
            "directories": directories,
            "specs": _cdi.specs(root, directories, (loaded or {}).get("version")),
        },
    }


def complaints(facts: Facts) -> list[Facts]:
    """Return what an operator should know, as codes with sentences. The codes are those of the verdict."""
    found: list[tuple[str, str]] = []
    found += [complaint for gpu in facts["gpus"] for complaint in _gpu_complaints(gpu, facts["driver"]["loaded"])]
    found += _nvml_complaints(facts)
    if facts["engine"]["error"]:
        found.append(("DG201", facts["engine"]["error"]))
    if facts["engine"]["daemon_config"]["error"]:
        found.append(("DG201", facts["engine"]["daemon_config"]["error"]))
    for spec in facts["toolkit"]["cdi"]["specs"]:
        if spec["error"]:
            found.append(("DG203", spec["error"]))
        elif spec["stale"]:
            found.append(("DG203", f"{spec['path']} is out of date: {'; '.join(spec['reasons'])}."))
    if facts["toolkit"]["lockstep"] is False:
        versions = ", ".join(f"{name} {version}" for name, version in facts["toolkit"]["packages"].items() if version)
        found.append(("DG115", f"The packages of the container toolkit are of different versions: {versions}."))
    if os.geteuid() != 0:
        found.append(("DG116", "Facts were gathered without root, so those that only root may read are null."))
    return [{"code": code, "message": message} for code, message in found]


def _gpu_complaints(gpu: Facts, loaded: Facts | None) -> list[tuple[str, str]]:
    address, driver = gpu["pci_address"], gpu["bound_driver"]
    if gpu["health"] == "lost":
        return [("DG111", f"The driver has lost the GPU at {address}.")]
    if gpu["health"] == "reset_required":
        return [("DG112", f"The GPU at {address} needs a reset before it can be used again.")]
    if gpu["health"] == "error":
        return [("DG108", f"The driver cannot talk to the GPU at {address}.")]
    if driver in _OTHER_DRIVERS:
        return [("DG103", f"The GPU at {address} is held by {driver}, so NVIDIA's driver cannot have it.")]
    if driver == "nvidia" or gpu["class"] is None:
        return []
    if driver is not None:
        return [("DG104", f"The GPU at {address} is handed to {driver}.")]
    if loaded:
        return [("DG105", f"NVIDIA's driver {loaded['version']} is loaded and does not drive the GPU at {address}.")]
    return [("DG106", f"No driver is loaded for the GPU at {address}.")]


def _nvml_complaints(facts: Facts) -> list[tuple[str, str]]:
    error, loaded = facts["nvml"]["error"], facts["driver"]["loaded"]
    if error is None:
        if loaded and facts["nvml"]["source"] == _sysfs.SOURCE:
            return [("DG110", "A driver is loaded, and neither pynvml nor nvidia-smi is there to ask it.")]
        return []
    if error["name"] == "TIMEOUT":
        return [("DG109", error["message"])]
    if error["code"] == _observer.VERSION_MISMATCH:
        installed = (facts["driver"]["installed"] or {}).get("version")
        version = loaded["version"] if loaded else None
        library = f" ({installed} is installed)" if installed and installed != version else ""
        return [("DG107", f"The loaded driver ({version}) and the driver's library differ{library}.")]
    # Without a loaded driver there is nothing to talk to; that was said for the GPU.
    if not loaded and error["code"] in (_observer.DRIVER_NOT_LOADED, _observer.LIBRARY_NOT_FOUND):
        return []
    return [("DG108", f"{error['name']}: {error['message']}")]
