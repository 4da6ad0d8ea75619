# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything there is to know about a host's NVIDIA GPUs, put together from all sources.

This is private to difyops.gpu.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Optional

from ansible_collections.difyops.gpu.plugins.module_utils import (
    _cdi,
    _command,
    _engine,
    _host,
    _managed,
    _nvml,
    _observer,
    _packages,
    _smi,
    _sysfs,
)
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts, Guard, Observation

SCHEMA = 1
Complaints = list[tuple[str, Optional[str]]]

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
    "fabric",
    "recovery_action",
    "health",
    "processes",
)
_OTHER_DRIVERS = {"nouveau", "nova_core", "nova-core"}
# The driver's own daemons keep GPUs open and use none; the kernel cuts names off after 15 characters.
_DAEMONS = {"nvidia-persiste", "nv-fabricmanage", "nv-hostengine"}


def gather(root: str, timeout_s: float) -> Facts:
    """Return the document ``ansible_facts['nvidia']``.

    ``root`` is the root of the file system to observe. Each source gets ``timeout_s`` seconds at most. What runs as a
    program is started first and read last, so that it runs while the driver is asked.
    """
    host = _host.facts(root)
    family = host["os"]["family"]
    warnings: list[Facts] = []
    packages_said = _ask_packages(root, family)
    units = _host.ask_units(timeout_s)
    modules = _host.ask_modules(root, (host["kernel"]["running"], host["kernel"]["next"]), timeout_s)
    engine_said = _engine.ask(root, timeout_s)
    pci = _sysfs.gpus(root)
    loaded = _sysfs.loaded_driver(root)
    observations = observe(_sources(root, pci, loaded, timeout_s))
    best = observations[-1]  # the first that answered, or the kernel, which always does
    error = next((observation.error for observation in observations if observation.error), None)
    answered = best.ok and best.source != _sysfs.SOURCE
    packages = _told(packages_said, warnings)
    engine, names = engine_said()
    gpus = merge(pci, best)
    for gpu in gpus:
        gpu["processes"] = gpu["processes"] and [_process(root, process, names) for process in gpu["processes"]]
    rules = _packages.rules(root, family)
    installed = _packages.driver(packages, _packages.pins(rules, _packages.parts(packages)))
    version = (loaded or {}).get("version")
    known_modules = modules()
    reboot_required, reasons = _host.reboot(root, family, host["kernel"], loaded, installed, gpus)
    known_units = units()
    fabric_manager, persistenced = _host.services(packages, version, host["nvswitches"], known_units)
    directories = engine["cdi_spec_dirs"] or list(_cdi.DIRECTORIES)
    facts = {
        "schema": SCHEMA,
        "host": host,
        "gpus": gpus,
        "driver": {
            "loaded": loaded,
            "installed": installed,
            "cuda_version": best.cuda_version,
            "branch": version.split(".")[0] if version else None,
            "mismatch": True if error and error["code"] == _observer.VERSION_MISMATCH else False if answered else None,
            "modules": known_modules,
            "next_kernel_has_module": host["kernel"]["next"] and known_modules.get(host["kernel"]["next"]) is not None,
            "reboot_required": reboot_required,
            "reboot_reasons": reasons,
            "fabric_manager": fabric_manager,
            "persistenced": persistenced,
            "users": _users(root, loaded, names),
            "broken": _packages.broken(_packages.parts(packages)),
            "managed": _managed.files(root, _managed.DRIVER),
            "journal": _managed.document(root, _managed.DRIVER),
            "upgrade": _managed.upgrade(root),
        },
        "nvml": {
            "source": best.source,
            "error": None if answered else error,
            "attempts": [{key: getattr(observation, key) for key in ("source", "ok", "message")} for observation in observations],
        },
        "toolkit": {
            **_packages.toolkit(packages, rules),
            "managed": _managed.files(root, _managed.TOOLKIT),
            "refresh": _host.refresh(root, known_units),
            "mode": _cdi.runtime_mode(_sysfs.read(root, "etc/nvidia-container-runtime/config.toml") or ""),
            "cdi": {"directories": directories, "specs": _cdi.specs(root, directories, _cdi.Now(version, gpus))},
        },
        "engine": {
            **engine,
            **_packages.engine(packages, rules),
            "service": _host.unit(root, known_units, "docker.service"),
            "managed": _managed.files(root, _managed.ENGINE),
            "journal": _managed.document(root, _managed.ENGINE),
        },
        "warnings": warnings,
    }
    return {**facts, "warnings": warnings + complaints(facts)}


def _sources(root: str, pci: Sequence[Facts], loaded: Facts | None, timeout_s: float) -> list[tuple[str, Callable[[], Observation]]]:
    """Return the sources to ask, best first.

    Asking NVML may load the kernel module. Where no GPU waits for it (none there, or all handed to virtual machines),
    only the kernel is asked, so that looking at a host does not change it.
    """
    leftovers = _observer.Leftovers(root)
    nvml, smi, sysfs = (Guard(source, leftovers, timeout_s) for source in (_nvml.SOURCE, _smi.SOURCE, _sysfs.SOURCE))
    kernel = (sysfs.source, lambda: _observer.kernel(sysfs, root))
    waiting = [gpu for gpu in pci if gpu["bound_driver"] != "vfio-pci"]
    if not (waiting or loaded or os.path.exists(os.path.join(root, "dev/dxg"))):
        return [kernel]
    bound = [gpu["pci_address"] for gpu in pci if gpu["bound_driver"] == "nvidia"]
    branch = ((loaded or {}).get("version") or "0").split(".")[0]
    return [(nvml.source, lambda: _nvml.observe(nvml, bound)), (smi.source, lambda: _smi.observe(smi, bound, int(branch))), kernel]


def observe(sources: Iterable[tuple[str, Callable[[], Observation]]]) -> list[Observation]:
    """Ask one source after the other until one answers. After one has hung, no other is sent into the same driver."""
    observations: list[Observation] = []
    hung = None
    for source, ask in sources:
        observation = Observation(source, ok=False, message=f"Not asked, since {hung} did not come back.") if hung else ask()
        observations.append(observation)
        hung = source if observation.hung else hung
        if observation.ok:
            break
    return observations


def merge(pci: Sequence[Facts], best: Observation) -> list[Facts]:
    """Return the GPUs that PCI lists, with what the best source knows of them, and those that only it knows (WSL)."""
    places = {gpu["pci_address"]: gpu for gpu in pci}
    for address, known in sorted(best.gpus.items()) if best.source != _sysfs.SOURCE else ():
        ids = known.get("pci") or dict.fromkeys(("vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id"))
        places.setdefault(address, {"pci_address": address, **ids, "class": None, "bound_driver": None})
    return [{**place, **{key: best.gpus.get(address, {}).get(key) for key in _DRIVER_KNOWS}} for address, place in places.items()]


def _process(root: str, process: Facts, names: dict[str, str]) -> Facts:
    place = f"proc/{process['pid']}"
    container = _engine.container_of(_sysfs.read(root, place, "cgroup") or "", names, _sysfs.read(root, "proc/1/cgroup") or "")
    return {**process, "name": _sysfs.read(root, place, "comm"), "container": container}


def _users(root: str, loaded: Facts | None, names: dict[str, str]) -> list[Facts] | None:
    """Return who has a GPU open: the driver itself tells it of nobody under a mismatch of versions, and never of a monitor."""
    if loaded is None or os.geteuid():
        return None
    users = [_process(root, {"pid": pid}, names) for pid in _sysfs.openers(root)]
    return [user for user in users if user["name"] not in _DAEMONS]


def _ask_packages(root: str, family: str | None) -> Callable[[], list[_packages.Package]]:
    """Start to ask for the packages. What goes wrong is raised by the function returned."""
    try:
        return _packages.ask(root, family)
    except _packages.PackagesUnknown as error:
        reason = str(error)

    def fail() -> list[_packages.Package]:
        raise _packages.PackagesUnknown(reason)

    return fail


def _told(packages_said: Callable[[], list[_packages.Package]], warnings: list[Facts]) -> list[_packages.Package]:
    try:
        packages = packages_said()
    except _packages.PackagesUnknown as error:
        warnings.append({"code": "DG114", "message": str(error)})
        return []
    broken = _packages.broken(packages)
    if broken:
        names = dict.fromkeys(package["name"] for package in broken)
        command = "dnf remove --duplicates" if all(package["state"] == "duplicate" for package in broken) else "dpkg --configure -a"
        message = f"The installation of {', '.join(names)} was not finished; run {command} and read why."
        warnings.append({"code": "DG113", "message": message})
    return packages


def _at(facts: Any, *way: str) -> Any:
    """Return what lies at the end of a way into a document; None where the way ends before."""
    for key in way:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts


def _text(facts: Any, *way: str) -> str:
    """Return the text at the end of a way, empty where there is none."""
    found = _at(facts, *way)
    return found if isinstance(found, str) else ""


def _list(facts: Any, *way: str) -> list[Any]:
    found = _at(facts, *way)
    return found if isinstance(found, list) else []


def _dicts(facts: Any, *way: str) -> list[Facts]:
    return [entry for entry in _list(facts, *way) if isinstance(entry, dict)]


def complaints(facts: Facts) -> list[Facts]:
    """Return what an operator should know, as codes with sentences. The codes are those of the verdict."""
    error, configuration = _text(facts, "engine", "error"), _at(facts, "engine", "daemon_config")
    found = [
        *(complaint for gpu in _dicts(facts, "gpus") for complaint in _gpu_complaints(gpu, facts)),
        *_nvml_complaints(facts),
        *_driver_complaints(facts),
        *_container_complaints(facts),
        ("DG201", None if os.geteuid() and "permission" in error else error),
        # A file that only root may read is not broken.
        ("DG216", None if os.geteuid() and not _text(configuration, "sha256") else _text(configuration, "error")),
        ("DG116", "Facts were gathered without root, so those that only root may read are null." if os.geteuid() else None),
    ]
    return [{"code": code, "message": message} for code, message in found if message]


def _is_driven(gpu: Facts) -> bool:
    """Say whether NVIDIA's driver has a GPU; the only one that PCI does not list has it from outside (WSL)."""
    return _at(gpu, "bound_driver") == "nvidia" or _at(gpu, "class") is None


def _gpu_complaints(gpu: Facts, facts: Facts) -> Complaints:
    address, driver, health = _at(gpu, "pci_address"), _at(gpu, "bound_driver"), _at(gpu, "health")
    if health == "lost":
        return [("DG111", f"The driver has lost the GPU at {address}.")]
    if health == "reset_required":
        return [("DG112", f"The GPU at {address} needs a reset before it can be used again.")]
    if health == "error":
        return [("DG108", f"The driver cannot talk to the GPU at {address}.")]
    if str(driver) in _OTHER_DRIVERS:
        return [("DG103", f"The GPU at {address} is held by {driver}, so NVIDIA's driver cannot have it.")]
    if _is_driven(gpu):
        found: Complaints = []
        current, pending = _at(gpu, "mig", "current"), _at(gpu, "mig", "pending")
        # An ordinary user sees only the MIG devices that were opened to him.
        if current and _at(gpu, "mig", "devices") == [] and not os.geteuid():
            found.append(("DG120", f"The GPU at {address} is in MIG mode and has no MIG device, so nothing can use it."))
        if current is not pending:
            found.append(("DG121", f"MIG mode of the GPU at {address} will be {'on' if pending else 'off'} after its next reset."))
        return found
    if driver is not None:
        return [("DG104", f"The GPU at {address} is handed to {driver}.")]
    if _at(facts, "driver", "loaded"):
        version = _at(facts, "driver", "loaded", "version")
        return [("DG105", f"NVIDIA's driver {version} is loaded and does not drive the GPU at {address}.")]
    return [("DG106", f"No driver is loaded for the GPU at {address}.")]


def _nvml_complaints(facts: Facts) -> Complaints:
    error, loaded = _at(facts, "nvml", "error"), _at(facts, "driver", "loaded")
    code, name, message = (_at(error, key) for key in ("code", "name", "message"))
    if error is None:
        if loaded and _at(facts, "nvml", "source") == _sysfs.SOURCE:
            return [("DG110", "A driver is loaded, and neither pynvml nor nvidia-smi is there to ask it.")]
        return []
    if name == "TIMEOUT":
        return [("DG109", _text(error, "message") or "The NVIDIA driver hangs.")]
    if code == _observer.VERSION_MISMATCH:
        installed, version = _at(facts, "driver", "installed", "version"), _at(loaded, "version")
        library = f" ({installed} is installed)" if installed and installed != version else ""
        return [("DG107", f"The loaded driver ({version}) and the driver's library differ{library}.")]
    # Without a loaded driver there is nothing to talk to; that was said for the GPU.
    if not loaded and code in (_observer.DRIVER_NOT_LOADED, _observer.LIBRARY_NOT_FOUND):
        return []
    return [("DG108", f"{name}: {message}")]


def _driver_complaints(facts: Facts) -> Complaints:
    driver = _at(facts, "driver")
    manager = {key: _at(driver, "fabric_manager", key) for key in ("needed", "installed", "running", "matches_driver", "version")}
    installed, loaded = _text(driver, "installed", "version"), _text(driver, "loaded", "version")
    found: Complaints = []
    if manager["needed"]:
        trouble = "is not installed" if not manager["installed"] else "does not run" if manager["running"] is False else None
        if trouble is None and manager["matches_driver"] is False:
            trouble = f"is of version {manager['version']}, the loaded driver of {loaded or 'an unknown one'}"
        found.append(("DG117", trouble and f"This host has NVSwitches, and their fabric manager {trouble}."))
    if (installed or loaded) and _at(driver, "next_kernel_has_module") is False:
        following = _at(facts, "host", "kernel", "next")
        found.append(("DG118", f"Kernel {following} boots next, and no NVIDIA module is there for it."))
    if _at(driver, "reboot_required"):
        found.append(("DG119", f"A reboot is pending: {' '.join(map(str, _list(driver, 'reboot_reasons')))}"))
    if installed and loaded and installed != loaded and not _at(driver, "mismatch"):
        found.append(("DG122", f"Driver {installed} is installed, {loaded} is loaded until the next reboot."))
    return found


def _container_complaints(facts: Facts) -> Complaints:
    engine, specs = _at(facts, "engine"), _dicts(facts, "toolkit", "cdi", "specs")
    driven = any(map(_is_driven, _dicts(facts, "gpus")))
    runtime = any("nvidia" in str(name) for name in _list(engine, "runtimes"))
    packages = _at(facts, "toolkit", "packages")
    versions = {name: version for name, version in packages.items() if version} if isinstance(packages, dict) else {}
    known = not any(warning.get("code") == "DG114" for warning in _dicts(facts, "warnings"))
    found: Complaints = []
    # Where Docker finds this program of the toolkit, docker run --gpus needs neither CDI nor a runtime.
    hook = versions.get("nvidia-container-toolkit") or _command.find("nvidia-container-runtime-hook")
    ours = any(_text(spec, "kind").startswith("nvidia.com/") for spec in specs)
    if driven and known and not (versions or hook or runtime or ours):
        found.append(("DG212", "The NVIDIA container toolkit is not installed, so containers cannot be given the GPU."))
    docker = _at(engine, "running") and _at(engine, "name") == "docker"
    if driven and docker and not (runtime or _at(engine, "cdi_enabled") or hook):
        found.append(("DG217", "Docker gives GPUs to containers neither by CDI nor by the nvidia runtime, and finds no hook for --gpus."))
    if _at(facts, "toolkit", "lockstep") is False:
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        found.append(("DG115", f"The packages of the container toolkit are of different versions: {told}."))
    for spec in specs:
        path, shadowed = _at(spec, "path"), ", ".join(map(str, _list(spec, "shadowed")))
        found.append(("DG215", _text(spec, "error")))
        if _at(spec, "stale"):
            found.append(("DG214", f"{path} is out of date: {'; '.join(map(str, _list(spec, 'reasons')))}."))
        if shadowed:
            found.append(("DG218", f"{path} is not used for {shadowed}: another CDI specification defines the same."))
    return found
