# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every source of GPU facts has in common: the form of its answer, the errors of NVML, and how it is asked.

This is private to difyops.gpu.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Protocol

from ansible_collections.difyops.gpu.plugins.module_utils import _command
from ansible_collections.difyops.gpu.plugins.module_utils._leftovers import Leftovers

# nvml.h
ERROR_NAMES = {
    1: "UNINITIALIZED",
    2: "INVALID_ARGUMENT",
    3: "NOT_SUPPORTED",
    4: "NO_PERMISSION",
    5: "ALREADY_INITIALIZED",
    6: "NOT_FOUND",
    7: "INSUFFICIENT_SIZE",
    8: "INSUFFICIENT_POWER",
    9: "DRIVER_NOT_LOADED",
    10: "TIMEOUT",
    11: "IRQ_ISSUE",
    12: "LIBRARY_NOT_FOUND",
    13: "FUNCTION_NOT_FOUND",
    14: "CORRUPTED_INFOROM",
    15: "GPU_IS_LOST",
    16: "RESET_REQUIRED",
    17: "OPERATING_SYSTEM",
    18: "LIB_RM_VERSION_MISMATCH",
    19: "IN_USE",
    20: "MEMORY",
    21: "NO_DATA",
    22: "VGPU_ECC_NOT_SUPPORTED",
    23: "INSUFFICIENT_RESOURCES",
    24: "FREQ_NOT_SUPPORTED",
    25: "ARGUMENT_VERSION_MISMATCH",
    26: "DEPRECATED",
    27: "NOT_READY",
    28: "GPU_NOT_FOUND",
    29: "INVALID_STATE",
    30: "RESET_TYPE_NOT_SUPPORTED",
    999: "UNKNOWN",
}
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
ERROR_UNKNOWN = 999

# A GPU's architecture from its compute capability, for drivers too old to be asked (nvmlDeviceGetArchitecture).
_ARCHITECTURES = (
    ((3, 0), "kepler"),
    ((5, 0), "maxwell"),
    ((6, 0), "pascal"),
    ((7, 0), "volta"),
    ((7, 5), "turing"),
    ((8, 0), "ampere"),
    ((8, 9), "ada"),
    ((9, 0), "hopper"),
    ((10, 0), "blackwell"),
)
# Compute capability 10.7 lies between those of Blackwell and is Rubin's.
_RUBIN = (10, 7)

Facts = dict[str, Any]


@dataclass
class Observation:
    """What one source said. ``gpus`` are partial GPU facts by PCI address; ``hung`` says that it did not come back."""

    source: str
    ok: bool
    message: str | None = None
    error: Facts | None = None
    driver_version: str | None = None
    cuda_version: str | None = None
    gpus: dict[str, Facts] = field(default_factory=dict)
    hung: bool = False


class Observer(Protocol):
    """A source of GPU facts. It never raises and never hangs: what goes wrong is part of the observation."""

    source: str

    def observe(self) -> Observation:
        """Return what the source says."""


def error(code: int | None, message: str) -> Facts:
    """Return an NVML error as the facts tell it."""
    name = ERROR_NAMES.get(code) if code is not None else None
    return {"code": code, "name": f"NVML_ERROR_{name}" if name else f"NVML_ERROR_{code}", "message": message}


def health_of(code: int | None) -> str:
    """Return the health that an NVML error of a GPU stands for."""
    return {None: "ok", GPU_IS_LOST: "lost", RESET_REQUIRED: "reset_required"}.get(code, "error")


def architecture_of(capability: str | None) -> str | None:
    """Return the architecture that a compute capability belongs to; None below Kepler and where there is none."""
    match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", capability or "")
    if not match:
        return None
    version = (int(match[1]), int(match[2]))
    if version == _RUBIN:
        return "rubin"
    return next((name for start, name in reversed(_ARCHITECTURES) if version >= start), None)


def pci_address(text: str) -> str | None:
    """Return a PCI address as sysfs writes it. NVML writes the domain with eight digits."""
    match = re.fullmatch(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])", text.strip())
    if not match:
        return None
    return f"{int(match[1] or '0', 16):04x}:{match[2]}:{match[3]}.{match[4]}".lower()


class Guard:
    """Asks something that may hang in the driver, at most once at a time and never longer than its limit."""

    def __init__(self, source: str, leftovers: Leftovers, timeout_s: float) -> None:
        self._source = source
        self._leftovers = leftovers
        self._timeout_s = timeout_s

    def call(self, function: Callable[[], Facts]) -> Facts | Observation:
        """Return what the function returned in a child process, or the observation that it did not."""
        result = self._ask(lambda: _command.call(function, self._timeout_s))
        if isinstance(result, Observation):
            return result
        try:
            answer = json.loads(result.stdout)
        except ValueError:
            end = f"signal {-result.rc}" if result.rc and result.rc < 0 else f"exit status {result.rc}"
            message = f"The child process that asked {self._source} ended with {end} and no answer."
            failure = {"code": None, "name": "CRASHED", "message": message}
            return Observation(self._source, ok=False, message=message, error=failure)
        return answer if isinstance(answer, dict) else {}

    def run(self, *argv: str) -> _command.Result | Observation:
        """Return what a command said, or the observation that it did not come back."""
        return self._ask(lambda: _command.run(argv, self._timeout_s))

    def _ask(self, question: Callable[[], _command.Result]) -> _command.Result | Observation:
        left = self._leftovers.living(self._source)
        if left is not None:
            return self._timed_out(f"an earlier query (process {left.pid}) still hangs in the driver")
        try:
            result = question()
        except _command.CannotStart as failure:
            return Observation(self._source, ok=False, message=str(failure))
        if not result.timed_out:
            return result
        story = f"no answer within {self._timeout_s:g} seconds"
        if result.survivor is not None:
            story += f"; the query (process {result.survivor.pid}) cannot be killed and was left behind"
            if not self._leftovers.remember(self._source, result.survivor):
                story += ", and no note of it could be kept"
        return self._timed_out(story)

    def _timed_out(self, story: str) -> Observation:
        message = f"The NVIDIA driver hangs: {story}. Read the kernel log for NVRM and Xid, then reboot this host."
        failure = {"code": None, "name": "TIMEOUT", "message": message}
        return Observation(self._source, ok=False, message=message, error=failure, hung=True)
