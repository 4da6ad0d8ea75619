# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU facts from nvidia-smi, for hosts whose Python cannot import pynvml.

The fields of a query differ between driver branches, and one unknown field spoils the whole query, so they are
negotiated. The exit status is no guide: a lost GPU may come with 0, and a failed start with the number of an NVML error
or with 255, depending on the branch. The rows and the sentences are.

This is private to difyops.gpu.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _observer
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts, Observation

SOURCE = "nvidia-smi"

# compute_cap is missing before branch 510. driver_version is deprecated in favour of kmd_version from branch 615 on.
FIELDS = (
    "pci.bus_id",
    "index",
    "name",
    "uuid",
    "driver_version",
    "compute_cap",
    "memory.total",
    "memory.used",
    "compute_mode",
    "persistence_mode",
    "ecc.mode.current",
    "ecc.mode.pending",
    "mig.mode.current",
    "mig.mode.pending",
)
_SUCCESSORS = {"driver_version": "kmd_version"}

_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
_NO_HANDLE = re.compile(r"device handle for GPU\s*([0-9A-Fa-f][0-9A-Fa-f:.]*): (.+)")
_CUDA_VERSION = re.compile(r"(?:^CUDA Version\s*: *|<cuda_version>)([0-9]+\.[0-9]+)", re.MULTILINE)

# The start of what it says when nothing works, and of what stands in place of a value, as NVML errors.
_SENTENCES = (
    ("couldn't communicate with the NVIDIA driver", 9),
    ("couldn't find libnvidia-ml", 12),
    ("Driver/library version mismatch", 18),
    ("Insufficient Permissions", 4),
    ("/dev/nvidia* files are readable", 4),
    ("blocked by the operating system", 17),
    ("GPU is lost", 15),
    ("GPU requires reset", 16),
    ("GPU reset must occur", 16),
    ("No devices were found", 28),
    ("Unknown Error", 999),
)
_COMPUTE_MODES = {
    "Default": "default",
    "Exclusive_Process": "exclusive_process",
    "Exclusive_Thread": "exclusive_process",
    "Prohibited": "prohibited",
}
_SWITCH = {"Enabled": True, "Disabled": False}


class SmiObserver:
    """Asks nvidia-smi. ``addresses`` are the PCI addresses of the GPUs that the driver should know, in order."""

    source = SOURCE

    def __init__(self, guard: _observer.Guard, addresses: Sequence[str], search: Sequence[str] = ()) -> None:
        self._guard = guard
        self._addresses = addresses
        self._program = _command.find("nvidia-smi", search)

    def observe(self) -> Observation:
        if self._program is None:
            return Observation(SOURCE, ok=False, message="The command nvidia-smi is not on this host.")
        fields = list(FIELDS)
        while fields:
            result = self._guard.run(self._program, "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits")
            if isinstance(result, Observation):
                return result
            unknown = _UNKNOWN_FIELD.search(result.out + result.err)
            if not unknown or unknown[1] not in fields:
                return self._understand(result, fields)
            fields = without(fields, unknown[1])
        return Observation(SOURCE, ok=False, message="nvidia-smi knows none of the fields that were asked for.")

    def _understand(self, result: _command.Result, fields: Sequence[str]) -> Observation:
        rows, driver_version = parse_rows(result.out, fields)
        gpus = {address: gpu for address, gpu in ((self._address(place), gpu) for place, gpu in rows.items()) if address}
        for place, code in parse_refusals(result.out + "\n" + result.err):
            address = self._address(place)
            if address:
                gpus.setdefault(address, {"health": _observer.health_of(code)})
        if not gpus:
            failure = parse_failure(result)
            return Observation(SOURCE, ok=False, message=failure["message"], error=failure)
        for address in self._addresses:
            gpus.setdefault(address, {"health": "error"})
        return Observation(SOURCE, ok=True, driver_version=driver_version, cuda_version=self._cuda_version(), gpus=gpus)

    def _address(self, place: str) -> str | None:
        """Return the address of a GPU that is named by address or by index, which counts in the order of addresses."""
        address = _observer.pci_address(place)
        if address is None and place.isdecimal() and int(place) < len(self._addresses):
            return self._addresses[int(place)]
        return address

    def _cuda_version(self) -> str | None:
        """Ask for the CUDA version, which is no field of a query: newer branches list it, older ones put it in XML."""
        for arguments in (("--version",), ("-q", "-x")):
            result = self._guard.run(str(self._program), *arguments)
            if isinstance(result, Observation):
                return None
            found = _CUDA_VERSION.search(result.out)
            if found:
                return found[1]
        return None


def without(fields: Sequence[str], unknown: str) -> list[str]:
    """Return the fields to ask for after one was refused: its successor in its place, or one field less."""
    successor = _SUCCESSORS.get(unknown)
    return [successor or field if field == unknown else field for field in fields if field != unknown or successor]


def parse_rows(text: str, fields: Sequence[str]) -> tuple[dict[str, Facts], str | None]:
    """Return the GPU facts of a CSV answer, and the driver's version. Lines that are no row are skipped.

    The facts are by PCI address, or by index where the GPU is too ill to tell its address.
    """
    gpus: dict[str, Facts] = {}
    driver_version = None
    for line in text.splitlines():
        values = next(csv.reader([line], skipinitialspace=True, strict=False), [])
        row = dict(zip(fields, (value.strip() for value in values)))
        place = _observer.pci_address(row.get("pci.bus_id", "")) or row.get("index", "")
        if len(values) != len(fields) or not (":" in place or place.isdecimal()):
            continue
        gpus[place] = _gpu(row)
        driver_version = driver_version or _value(row.get("driver_version") or row.get("kmd_version") or "")
    return gpus, driver_version


def _gpu(row: dict[str, str]) -> Facts:
    def get(name: str) -> str | None:
        return _value(row.get(name, ""))

    capability = get("compute_cap")
    return {
        "index": _number(get("index")),
        "name": get("name"),
        "uuid": get("uuid"),
        "architecture": _observer.architecture_of(capability),
        "compute_capability": capability,
        "memory_total_mib": _number(get("memory.total")),
        "memory_used_mib": _number(get("memory.used")),
        "compute_mode": _COMPUTE_MODES.get(get("compute_mode") or ""),
        "persistence_mode": _SWITCH.get(get("persistence_mode") or ""),
        "ecc": {when: _SWITCH.get(get(f"ecc.mode.{when}") or "") for when in ("current", "pending")},
        "mig": {
            **{when: _SWITCH.get(get(f"mig.mode.{when}") or "") for when in ("current", "pending")},
            "devices": [],
        },
        "health": _health(row),
    }


def _value(text: str) -> str | None:
    """Return a value, None for what stands in its place: [N/A], [Not Supported], [GPU is lost] and the like."""
    return None if not text or text.startswith("[") or text == "N/A" else text


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,12}", text) else None


def _health(row: dict[str, str]) -> str:
    """Return the health of a GPU: lost, or in need of a reset, when any value says so.

    A single value that cannot be read is no illness; a GPU that cannot even tell its name is ill.
    """
    codes = {_code(value) for value in row.values() if value.startswith("[")}
    for code in (_observer.GPU_IS_LOST, _observer.RESET_REQUIRED):
        if code in codes:
            return _observer.health_of(code)
    return "error" if row.get("name", "").startswith("[Unknown Error") else "ok"


def _code(text: str) -> int | None:
    return next((code for sentence, code in _SENTENCES if sentence in text), None)


def parse_refusals(text: str) -> list[tuple[str, int]]:
    """Return the GPUs, by address or index, that nvidia-smi got no handle for, each with the NVML error."""
    return [(place, _code(reason) or _observer.ERROR_UNKNOWN) for place, reason in _NO_HANDLE.findall(text)]


def parse_failure(result: _command.Result) -> dict[str, Any]:
    """Return the NVML error behind an answer without a single GPU."""
    text = " ".join((result.out + " " + result.err).split())
    code = _code(text)
    if code is None and result.rc in _observer.ERROR_NAMES:
        code = result.rc
    message = text[:300] or f"nvidia-smi said nothing and ended with exit status {result.rc}."
    return _observer.error(_observer.ERROR_UNKNOWN if code is None else code, message)
