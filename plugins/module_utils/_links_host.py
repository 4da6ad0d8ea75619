# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The links of the host and its engine: pci, bound, driver, nvml, toolkit, engine.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _links_given
from ansible_collections.difyops.gpu.plugins.module_utils._chain import (
    DRIVER,
    Case,
    Link,
    broken,
    counted,
    dig,
    failed,
    items,
    mapping,
    mappings,
    ok,
    plural,
    skipped,
    untested,
)

_MISMATCH = 18
_LIBRARY_NOT_FOUND = 12
# Characters of a health check's answer that go into a verdict.
_HEALTH_OUTPUT = 200
FOREIGN_OPEN_DRIVERS = ("nouveau", "nova_core")


# What a GPU can suffer from, by what the facts call it.
_ILLNESSES = {"lost": "DG111", "reset_required": "DG112", "error": "DG108"}


def illness(gpu: Mapping[str, Any]) -> str | None:
    """Return the code of what a GPU suffers from, None of one that is well."""
    return _ILLNESSES.get(str(gpu.get("health")))


def pci(case: Case) -> Link:
    expected = plural(case.wanted, "NVIDIA GPU")
    if not case.gpus:
        return failed("pci", expected, "no NVIDIA GPU", "DG101")
    places = ", ".join(
        f"{gpu['name']} at {gpu.get('pci_address')}" if gpu.get("name") else str(gpu.get("pci_address"))
        for gpu in case.gpus
    )
    seen = f"{len(case.gpus)} ({places})"
    if len(case.gpus) < case.wanted:
        return failed("pci", expected, seen, "DG102")
    return ok("pci", expected, seen)


def bound(case: Case) -> Link:
    expected = f"{plural(case.wanted, 'GPU')} bound to {DRIVER}"
    if reason := broken(case, "pci"):
        return skipped("bound", expected, reason)
    seen = counted([str(gpu.get("bound_driver") or "no driver") for gpu in case.gpus])
    loose = [gpu for gpu in [*case.given.gpus, *case.gpus] if gpu.get("bound_driver") != DRIVER]
    if len(case.bound) >= case.wanted or not loose:
        return ok("bound", expected, seen)
    culprit = loose[0]
    driver, address = culprit.get("bound_driver"), culprit.get("pci_address")
    if driver in FOREIGN_OPEN_DRIVERS:
        return failed("bound", expected, seen, "DG103", driver=driver)
    if driver:
        return failed("bound", expected, seen, "DG104", driver=driver, address=address)
    if case.fact("driver", "loaded"):
        return failed("bound", expected, seen, "DG105")
    return failed("bound", expected, "the driver is not loaded", "DG106", action=_load_action(case))


def _load_action(case: Case) -> str:
    installed = case.fact("driver", "installed")
    if not installed:
        return "install NVIDIA's driver and reboot"
    action = f"load it with modprobe nvidia (driver {dig(installed, 'version')} is installed)"
    if case.fact("host", "secure_boot"):
        return f"{action}; Secure Boot is on here, so the module's signing key must be enrolled first"
    return f"{action}; if that fails, see dkms status and journalctl -k -g NVRM, or reboot"


def driver(case: Case) -> Link:
    expected = "NVIDIA driver loaded"
    if reason := broken(case, "pci", "bound"):
        return skipped("driver", expected, reason)
    version = case.fact("driver", "loaded", "version")
    if not version:
        return failed("driver", expected, "not loaded", "DG106", action=_load_action(case))
    cuda = case.fact("driver", "cuda_version")
    seen = f"{version}, serves CUDA {cuda}" if cuda else str(version)
    if case.fact("driver", "mismatch") is True or case.fact("nvml", "error", "code") == _MISMATCH:
        return failed("driver", expected, f"{version} loaded, another version's library installed", "DG107")
    return ok("driver", expected, seen)


def nvml(case: Case) -> Link:
    expected = "NVML answers, GPUs are well"
    if reason := broken(case, "pci", "bound", "driver"):
        return skipped("nvml", expected, reason)
    error, source = case.fact("nvml", "error"), case.fact("nvml", "source")
    if source not in ("nvml", "nvidia-smi"):
        return _nvml_silent(expected, error if isinstance(error, Mapping) else {})
    ill = [gpu for gpu in case.given.gpus if illness(gpu)]
    # Where nobody knows which GPUs the container has, there must be enough that are well.
    if ill and (case.given.certain or len(case.given.gpus) - len(ill) < case.wanted):
        address, health = ill[0].get("pci_address"), str(ill[0].get("health"))
        return failed("nvml", expected, f"{address}: {health}", str(illness(ill[0])), address=address, name=health)
    return ok("nvml", expected, f"answered by {source}")


def _nvml_silent(expected: str, error: Mapping[str, Any]) -> Link:
    name = str(error.get("name") or error.get("message") or "an unknown error")
    if name == "TIMEOUT":
        return failed("nvml", expected, "no answer in time", "DG109")
    if not error or error.get("code") == _LIBRARY_NOT_FOUND:
        return untested("nvml", expected, "neither NVML nor nvidia-smi can be used on this host", "DG110")
    return failed("nvml", expected, name, "DG108", name=name)


def toolkit(case: Case) -> Link:
    container = case.evidence.container
    if container is None:
        return _toolkit_unused(case)
    devices, expected = _links_given.cdi_devices(container), "the container asks for a GPU"
    if devices:
        return _toolkit_cdi(case, devices)
    if (name := _links_given.runtime(container)) is not None:
        return _toolkit_runtime(case, name)
    if _links_given.is_requested(container):
        return ok("toolkit", expected, f"asked for with --gpus, {_toolkit_version(case)}")
    if _links_given.has_nodes(container):
        return ok("toolkit", expected, "device files passed by hand, no toolkit involved")
    if dig(container, "HostConfig", "Privileged"):
        return ok("toolkit", expected, "privileged container, no toolkit involved")
    return failed("toolkit", expected, "no CDI device, no nvidia runtime, no device file", "DG210")


def works_all_the_same(link: Link) -> Link:
    """Return a link that is not as it should be as a good one: the container computes on its GPU."""
    return ok(link.link, link.expected, f"{link.seen}; the container computes on the GPU all the same")


def _toolkit_version(case: Case) -> str:
    return f"toolkit {case.fact('toolkit', 'version') or 'of unknown version'}"


def _toolkit_runtime(case: Case, name: str) -> Link:
    expected, known = f"runtime {name} in the engine", [str(runtime) for runtime in items(case.fact("engine", "runtimes"))]
    if known and name not in known:
        return failed("toolkit", expected, f"runtimes: {', '.join(known)}", "DG211")
    wish = _links_given.visible(case.evidence.container)
    if wish in ("none", "void") and not case.given.certain:
        return failed("toolkit", expected, f"runtime {name}, and NVIDIA_VISIBLE_DEVICES is {wish}", "DG210")
    return ok("toolkit", expected, f"runtime {name}, {_toolkit_version(case)}")


def _toolkit_unused(case: Case) -> Link:
    """Without a container only the host's side can be judged."""
    expected = "CDI specification, nvidia runtime, or the toolkit's hook for --gpus"
    runtimes = [name for name in map(str, items(case.fact("engine", "runtimes"))) if name.startswith("nvidia")]
    if runtimes:
        return ok("toolkit", expected, f"runtime {', '.join(runtimes)}")
    if case.fact("engine", "cdi_enabled") is False:
        if _toolkit_absent(case):
            return failed("toolkit", expected, "CDI is off, and there is neither an nvidia runtime nor the toolkit", "DG217")
        # The toolkit's hook needs neither a runtime nor CDI.
        return ok("toolkit", expected, f"CDI is off; {_toolkit_version(case)} with its hook for --gpus")
    if not _spec_devices(case):
        return _undescribed(case, expected)
    return ok("toolkit", expected, _spec_seen(case))


def _toolkit_cdi(case: Case, devices: Sequence[str]) -> Link:
    expected = f"CDI describes {', '.join(devices)}"
    if case.fact("engine", "cdi_enabled") is False:
        return failed("toolkit", expected, "CDI is off in the engine", "DG202")
    known = _spec_devices(case)
    # The kind runtime.nvidia.com/gpu is described by NVIDIA's runtime itself, for each container.
    missing = [device for device in devices if device not in known and not device.startswith("runtime.")]
    if missing:
        return _undescribed(case, expected)
    return ok("toolkit", expected, _spec_seen(case) or "described by NVIDIA's runtime")


def _undescribed(case: Case, expected: str) -> Link:
    """Return the link of a device that no specification describes, with the cause that comes first."""
    known = sorted(name.partition("=")[2] for name in _spec_devices(case))
    seen = f"described: {', '.join(known)}" if known else "no specification for nvidia.com/gpu"
    for spec in mappings(case.fact("toolkit", "cdi", "specs")):
        path, error = spec.get("path"), spec.get("error")
        if error:
            return failed("toolkit", expected, f"{seen}; {path} cannot be read: {error}", "DG215", path=path, error=error)
    for spec in specs(case):
        if spec.get("stale"):
            why = "; ".join(map(str, items(spec.get("reasons")))) or "out of date"
            return failed("toolkit", expected, f"{seen}; {spec.get('path')}: {why}", "DG214", path=spec.get("path"))
    if not known and _toolkit_absent(case):
        return failed("toolkit", expected, f"{seen}, and no package of the toolkit", "DG212")
    return failed("toolkit", expected, seen, "DG203")


def _toolkit_absent(case: Case) -> bool:
    """Whether the package database was read and has no package of the toolkit."""
    packages = mapping(case.fact("toolkit", "packages"))
    unread = any(warning.get("code") == "DG114" for warning in mappings(case.fact("warnings")))
    return bool(packages) and not any(packages.values()) and not unread


def specs(case: Case) -> list[Mapping[str, Any]]:
    """The specifications of the host that describe NVIDIA's GPUs and can be read."""
    found = mappings(case.fact("toolkit", "cdi", "specs"))
    return [spec for spec in found if str(spec.get("kind")).endswith("nvidia.com/gpu") and not spec.get("error")]


def _spec_devices(case: Case) -> set[str]:
    """The names of the devices that are described, as in nvidia.com/gpu=0."""
    return {f"{spec['kind']}={device}" for spec in specs(case) for device in items(spec.get("devices"))}


def _spec_seen(case: Case) -> str:
    paths = ", ".join(f"{spec.get('path')}{' (stale)' if spec.get('stale') else ''}" for spec in specs(case))
    version = case.fact("toolkit", "version")
    return f"{paths}, toolkit {version}" if version else paths


def engine(case: Case) -> Link:
    evidence = case.evidence
    expected, name = f"container {evidence.container_name} running", evidence.container_name
    broken_file = case.fact("engine", "daemon_config", "error")
    if evidence.engine_error and broken_file:
        path = case.fact("engine", "daemon_config", "path")
        return failed("engine", expected, f"{evidence.engine_error} {path}: {broken_file}", "DG216", path=path)
    if evidence.engine_error:
        return failed("engine", expected, evidence.engine_error, "DG201", error=evidence.engine_error)
    if evidence.container is None:
        return failed("engine", expected, "no such container", "DG204")
    state = mapping(dig(evidence.container, "State"))
    status = str(state.get("Status") or "unknown")
    if not state.get("Running") or status in ("restarting", "paused"):
        return failed("engine", expected, _state_seen(state, status), "DG205", container=name)
    if evidence.exec_error:
        return untested("engine", expected, evidence.exec_error, "DG209", container=name, error=evidence.exec_error)
    health = dig(state, "Health", "Status")
    return ok("engine", expected, f"running, {health}" if health and health != "none" else "running, no health check")


def _state_seen(state: Mapping[str, Any], status: str) -> str:
    details = [f"exit status {state['ExitCode']}"] if state.get("ExitCode") else []
    if state.get("OOMKilled"):
        details.append("killed for memory")
    if state.get("Error"):
        details.append(str(state["Error"])[:200])
    return f"{status} ({', '.join(details)})" if details else status


def health(case: Case, link: Link) -> Link:
    health = dig(case.evidence.container, "State", "Health", "Status")
    if not case.evidence.health_wanted or health in (None, "none", "healthy", ""):
        return link
    expected, name = link.expected + " and healthy", case.evidence.container_name
    if health == "starting":
        seen = f"still starting after {case.evidence.health_waited_s:.0f} s"
        return failed("engine", expected, seen, "DG207", container=name)
    said = _health_output(case)
    return failed("engine", expected, f"running, {health}{f': {said}' if said else ''}", "DG206", container=name)


def _health_output(case: Case) -> str:
    """Return the last line that the container's own health check printed, fit for a sentence."""
    runs = mappings(dig(case.evidence.container, "State", "Health", "Log"))
    lines = [line.strip() for line in str(dig(runs[-1], "Output") or "").splitlines()] if runs else []
    last = next((line for line in reversed(lines) if line), "")
    text = "".join(char if char.isprintable() else " " for char in last)
    return text if len(text) <= _HEALTH_OUTPUT else f"{text[: _HEALTH_OUTPUT - 3]}..."


def unneeded(name: str) -> Callable[[Case], Link]:
    """Return the judge of a link that a service on the CPU does not need."""

    def link(case: Case) -> Link:
        planned = "planned without a GPU" if case.expected.mode == "cpu" else "planned for the CPU by consent"
        return skipped(name, "nothing", f"not needed: {planned}")

    return link


def pci_cpu(case: Case) -> Link:
    planned = (
        "not needed: planned without a GPU"
        if case.expected.mode == "cpu"
        else "not used: planned for the CPU by consent"
    )
    seen = f"{plural(len(case.gpus), 'NVIDIA GPU')}, " if case.gpus else "no NVIDIA GPU, "
    return skipped("pci", "nothing", seen + planned)
