# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU facts from nvidia-smi, for hosts whose Python cannot import pynvml.

The fields of a query differ between driver branches, and one unknown field spoils the whole query, so only those of the
branch are asked for, and one that is refused is left out. The exit status is no guide: a lost GPU may come with 0, and a
failed start with the number of an NVML error or with 255, depending on the branch. The rows and the sentences are.

This is private to difyops.gpu.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Callable, Union

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _observer
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts, Guard, Observation

SOURCE = "nvidia-smi"

FIELDS = (
    "pci.bus_id",
    "index",
    "name",
    "uuid",
    "driver_version",
    "memory.total",
    "memory.used",
    "compute_mode",
    "persistence_mode",
    "ecc.mode.current",
    "ecc.mode.pending",
    "mig.mode.current",
    "mig.mode.pending",
    "compute_cap",
    "fabric.state",
    "fabric.status",
    "gpu_recovery_action",
)
# The oldest branch that is known to have a field. driver_version is deprecated in favour of kmd_version.
_SINCE = {"compute_cap": 510, "fabric.state": 535, "fabric.status": 535, "gpu_recovery_action": 565, "kmd_version": 615}
_SUCCESSORS = {"driver_version": "kmd_version"}
_FORM = "--format=csv,noheader,nounits"
_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
_NO_HANDLE = re.compile(r"device handle for GPU\s*([0-9A-Fa-f][0-9A-Fa-f:.]*): (.+)")
_CUDA_VERSION = re.compile(r"(?:^CUDA Version\s*: *|<cuda_version>)([0-9]+\.[0-9]+)", re.MULTILINE)
_MIG_MEMORY = re.compile(
    r"<mig_device>\s*<index>([0-9]+)</index>(?:(?!</?mig_device>).)*?<fb_memory_usage>\s*<total>([0-9]+) MiB", re.DOTALL
)
_LISTED = re.compile(r"^(?:GPU [0-9]+:|\s+MIG (\S+)\s+Device\s+([0-9]+):).*\(UUID: ([^)]+)\)", re.MULTILINE)
_SWITCH = {"enabled": True, "disabled": False}
# What nvidia-smi calls otherwise than nvml.h does.
_ACTIONS = {"reset": "gpu_reset", "reboot": "node_reboot"}
# The start of what it says when nothing works, and of what stands in place of a value.
_SENTENCES = {
    "couldn't communicate with the NVIDIA driver": 9,
    "couldn't find libnvidia-ml": 12,
    "Driver/library version mismatch": 18,
    "Insufficient Permissions": 4,
    "/dev/nvidia* files are readable": 4,
    "blocked by the operating system": 17,
    "GPU is lost": 15,
    "GPU requires reset": 16,
    "GPU reset must occur": 16,
    "No devices were found": 28,
    "Unknown Error": 999,
}

Asked = Union[_command.Result, Observation]


def observe(guard: Guard, addresses: Sequence[str], branch: int = 0, search: Sequence[str] = ()) -> Observation:
    """Ask nvidia-smi.

    ``addresses`` are the PCI addresses of the GPUs that the driver should know, in order; ``branch`` is that of the
    loaded driver, 0 when it is not known.
    """
    program = _command.find("nvidia-smi", search)
    if program is None:
        return Observation(SOURCE, ok=False, message="The command nvidia-smi is not on this host.")

    def ask(*arguments: str) -> Asked:
        return guard.run(program, *arguments)

    fields = [name for name in FIELDS if not branch or branch >= _SINCE.get(name, 0)]
    if branch >= _SINCE["kmd_version"]:
        fields = without(fields, "driver_version")
    while fields:
        result = ask("--query-gpu=" + ",".join(fields), _FORM)
        if isinstance(result, Observation):
            return result
        unknown = _UNKNOWN_FIELD.search(result.out + result.err)
        if not unknown or unknown[1] not in fields:
            return _understand(result, fields, addresses, ask)
        fields = without(fields, unknown[1])
    return Observation(SOURCE, ok=False, message="nvidia-smi knows none of the fields that were asked for.")


def without(fields: Sequence[str], unknown: str) -> list[str]:
    """Return the fields to ask for after one was refused: its successor in its place, or one field less."""
    successor = _SUCCESSORS.get(unknown)
    return [successor or name if name == unknown else name for name in fields if name != unknown or successor]


def _understand(result: _command.Result, fields: Sequence[str], addresses: Sequence[str], ask: Callable[..., Asked]) -> Observation:
    def address_of(place: str) -> str:
        # A number counts in the order of the addresses.
        return _observer.pci_address(place) or next((address for index, address in enumerate(addresses) if str(index) == place), "")

    rows, driver_version = parse_rows(result.out, fields)
    gpus = {address_of(place): gpu for place, gpu in rows.items()}
    for place, code in parse_refusals(result.out + "\n" + result.err):
        gpus.setdefault(address_of(place), {"health": _observer.health_of(code)})
    gpus.pop("", None)
    if not gpus:
        failure = parse_failure(result)
        if failure["code"] == _observer.GPU_NOT_FOUND and not addresses:
            # The driver answers, and every GPU is somebody else's.
            return Observation(SOURCE, ok=True, cuda_version=_cuda_version(ask))
        return Observation(SOURCE, False, failure["message"], failure)
    apps = ask("--query-compute-apps=gpu_uuid,pid,used_memory", _FORM)
    processes = parse_processes(apps.out) if isinstance(apps, _command.Result) and apps.rc == 0 else None
    divided = any((gpu.get("mig") or {}).get("current") for gpu in gpus.values())
    listed = _said(ask("--list-gpus")) if divided else ""
    everything = _said(ask("-q", "-x")) if listed else ""  # not into a driver that hangs
    parts, sizes = parse_mig_devices(listed), parse_mig_memory(everything)
    for address, gpu in gpus.items():
        if gpu.get("uuid"):
            gpu["processes"] = None if processes is None else processes.get(gpu["uuid"], [])
            if gpu["mig"]["current"]:
                gpu["mig"]["devices"] = parts.get(gpu["uuid"])
            for part in gpu["mig"]["devices"] or ():
                part["memory_total_mib"] = sizes.get((address, part["index"]))
    return Observation(
        SOURCE,
        ok=True,
        driver_version=driver_version,
        cuda_version=_cuda_version(ask, everything),
        gpus={**{address: {"health": "error"} for address in addresses}, **gpus},
    )


def _said(result: Asked) -> str:
    return result.out if isinstance(result, _command.Result) else ""


def _cuda_version(ask: Callable[..., Asked], everything: str = "") -> str | None:
    """Ask for the CUDA version, which is no field of a query: newer branches list it, older ones put it in XML.

    ``everything`` is that XML where it was asked for already.
    """
    known = _CUDA_VERSION.search(everything)
    if known:
        return known[1]
    for arguments in (("--version",), ("-q", "-x")):
        result = ask(*arguments)
        found = None if isinstance(result, Observation) else _CUDA_VERSION.search(result.out)
        if found or isinstance(result, Observation):
            return found and found[1]
    return None


def _rows(text: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV answer. Lines that are no row are skipped."""
    rows = (next(csv.reader([line], skipinitialspace=True, strict=False), []) for line in text.splitlines())
    return [dict(zip(fields, (value.strip() for value in row))) for row in rows if len(row) == len(fields)]


def parse_rows(text: str, fields: Sequence[str]) -> tuple[dict[str, Facts], str | None]:
    """Return the GPU facts of an answer, and the driver's version.

    The facts are by PCI address, or by index where the GPU is too ill to tell its address.
    """
    gpus: dict[str, Facts] = {}
    driver_version = None
    for row in _rows(text, fields):
        place = _observer.pci_address(row.get("pci.bus_id", "")) or row.get("index", "")
        if ":" in place or place.isdecimal():
            gpus[place] = _gpu(row)
            driver_version = driver_version or _value(row.get("driver_version") or row.get("kmd_version"))
    return gpus, driver_version


def _gpu(row: dict[str, str]) -> Facts:
    values = {name: _value(text) for name, text in row.items()}
    words = {name: re.sub("[ _]+", "_", text or "").lower() for name, text in values.items()}
    capability, status = values.get("compute_cap"), values.get("fabric.status")
    state, action = words.get("fabric.state"), words.get("gpu_recovery_action", "")

    def switches(name: str) -> Facts:
        return _observer.switches(*(_SWITCH.get(words.get(f"{name}.mode.{when}", "")) for when in ("current", "pending")))

    return {
        "index": _number(row.get("index")),
        "name": values.get("name"),
        "uuid": values.get("uuid"),
        "architecture": _observer.architecture_of(capability),
        "compute_capability": capability,
        "memory_total_mib": _number(row.get("memory.total")),
        "memory_used_mib": _number(row.get("memory.used")),
        "compute_mode": words.get("compute_mode", "").replace("_thread", "_process") or None,
        "persistence_mode": _SWITCH.get(words.get("persistence_mode", "")),
        "ecc": switches("ecc"),
        "mig": {**switches("mig"), "devices": []},
        "fabric": {"state": state, "status": 0 if status == "Success" else _code(status or "")} if state else None,
        "recovery_action": _ACTIONS.get(action, action) or None,
        "health": _health(row),
    }


def _value(text: str | None) -> str | None:
    """Return a value, None for what stands in its place: [N/A], [Not Supported], [GPU is lost] and the like."""
    return None if not text or text.startswith("[") or text == "N/A" else text


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,12}", text) else None


def _health(row: dict[str, str]) -> str:
    """Return the health of a GPU: lost, or in need of a reset, when any value says so.

    A single value that cannot be read is no illness; a GPU that cannot even tell its name is ill.
    """
    codes = {_code(value) for value in row.values() if value.startswith("[")}
    nameless = _observer.ERROR_UNKNOWN if row.get("name", "").startswith("[Unknown Error") else None
    return _observer.health_of(next((code for code in (_observer.GPU_IS_LOST, _observer.RESET_REQUIRED) if code in codes), nameless))


def _code(text: str) -> int | None:
    return next((code for sentence, code in _SENTENCES.items() if sentence in text), None)


def parse_processes(text: str) -> dict[str, list[Facts]]:
    """Return the compute processes by the UUID of their GPU. nvidia-smi lists no others in a form to be read."""
    found: dict[str, list[Facts]] = {}
    for row in _rows(text, ("uuid", "pid", "memory")):
        pid = _number(row["pid"])
        if pid:
            found.setdefault(row["uuid"], []).append({"pid": pid, "type": "compute", "memory_mib": _number(row["memory"])})
    return found


def parse_mig_devices(text: str) -> dict[str, list[Facts]]:
    """Return the MIG devices that a list of GPUs names below each, by the UUID of the GPU; none for a GPU without any."""
    found: dict[str, list[Facts]] = {}
    parent = ""
    for profile, index, uuid in _LISTED.findall(text):
        parent = parent if profile else uuid
        parts = found.setdefault(parent, [])
        if profile:
            parts.append(_observer.mig_device(_number(index), f"MIG {profile}", uuid, profile, None))
    return found


def parse_mig_memory(text: str) -> dict[tuple[str | None, int], int]:
    """Return the memory of the MIG devices in MiB, by PCI address and number, that the XML of everything tells."""
    gpus = [part.partition('"') for part in text.split('<gpu id="')[1:]]
    return {
        (_observer.pci_address(place), int(index)): int(memory)
        for place, _quote, rest in gpus
        for index, memory in _MIG_MEMORY.findall(rest)
    }


def parse_refusals(text: str) -> list[tuple[str, int]]:
    """Return the GPUs, by address or index, that nvidia-smi got no handle for, each with the NVML error."""
    return [(place, _code(reason) or _observer.ERROR_UNKNOWN) for place, reason in _NO_HANDLE.findall(text)]


def parse_failure(result: _command.Result) -> Facts:
    """Return the NVML error behind an answer without a single GPU."""
    text = " ".join((result.out + " " + result.err).split())
    code = _code(text) or (result.rc if result.rc in _observer.ERROR_NAMES else _observer.ERROR_UNKNOWN)
    return _observer.error(code, text[:300] or f"nvidia-smi said nothing and ended with exit status {result.rc}.")
