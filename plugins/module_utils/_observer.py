# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every source of GPU facts has in common: the form of its answer, the errors of NVML, and how it is asked.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from dataclasses import dataclass, field
from typing import Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _sysfs

Facts = _sysfs.Facts

# nvml.h: errors, as far as a text of nvidia-smi tells them apart or something is decided by them.
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
GPU_NOT_FOUND = 28
ERROR_UNKNOWN = 999
ERROR_NAMES = {
    4: "NO_PERMISSION",
    9: "DRIVER_NOT_LOADED",
    12: "LIBRARY_NOT_FOUND",
    15: "GPU_IS_LOST",
    16: "RESET_REQUIRED",
    17: "OPERATING_SYSTEM",
    18: "LIB_RM_VERSION_MISMATCH",
    28: "GPU_NOT_FOUND",
    999: "UNKNOWN",
}
# For drivers too old to tell the architecture. 10.7 lies between the compute capabilities of Blackwell and is Rubin's.
_FIRST_CAPABILITIES = {
    (3, 0): "kepler",
    (5, 0): "maxwell",
    (6, 0): "pascal",
    (7, 0): "volta",
    (7, 5): "turing",
    (8, 0): "ampere",
    (8, 9): "ada",
    (9, 0): "hopper",
    (10, 0): "blackwell",
    (10, 7): "rubin",
    (10, 8): "blackwell",
}


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


def error(code: int | None, message: str, name: str | None = None) -> Facts:
    """Return an NVML error as the facts tell it."""
    return {"code": code, "name": name or f"NVML_ERROR_{ERROR_NAMES.get(code or 0, code)}", "message": message}


def health_of(code: int | None) -> str:
    """Return the health that an NVML error of a GPU stands for."""
    return {None: "ok", GPU_IS_LOST: "lost", RESET_REQUIRED: "reset_required"}.get(code, "error")


def architecture_of(capability: str | None) -> str | None:
    """Return the architecture that a compute capability belongs to; None below Kepler and where there is none."""
    match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", capability or "")
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    return next((name for start, name in reversed(_FIRST_CAPABILITIES.items()) if version >= start), None)


def pci_address(text: str) -> str | None:
    """Return a PCI address as sysfs writes it. NVML writes the domain with eight digits."""
    match = re.fullmatch(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])", text.strip())
    return f"{int(match[1] or '0', 16):04x}:{match[2]}".lower() if match else None


def switches(current: object, pending: object) -> Facts:
    """Return the facts of something that is on or off now and after the next reset."""
    return {"current": None if current is None else bool(current), "pending": None if pending is None else bool(pending)}


def mig_device(index: int | None, name: str | None, uuid: str | None, profile: str | None, memory_mib: int | None) -> Facts:
    """Return the facts of a part of a GPU."""
    return {"index": index, "name": name, "uuid": uuid, "profile": profile, "memory_total_mib": memory_mib}


class Leftovers:
    """Which queries of an earlier run still hang in the driver, so that no run adds another one.

    A note per query, below /run, so that a reboot clears it: the process that could not be killed.
    """

    def __init__(self, root: str = "/") -> None:
        user = os.geteuid()
        self._directory = os.path.join(root, "run", f"user/{user}" if user else "", "difyops-gpu")

    def living(self, name: str) -> _command.Process | None:
        """Return the process that an earlier run left behind for this query, None when there is none or it has ended."""
        path = os.path.join(self._directory, name)
        try:
            with open(path, encoding="utf-8") as file:
                process = _command.Process(*json.load(file))
        except (OSError, ValueError, TypeError):
            return None
        if not self._is_ours():
            return None
        if process.start_time and _command.start_time(process.pid) == process.start_time:
            return process
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None

    def remember(self, name: str, process: _command.Process) -> bool:
        """Note a process that stays behind; return False where no note can be kept."""
        path = os.path.join(self._directory, name)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory, 0o700)
            if not self._is_ours():
                return False
            with open(path + ".new", "w", encoding="utf-8") as file:
                json.dump((process.pid, process.start_time), file)
            os.replace(path + ".new", path)
        except OSError:
            return False
        return True

    def _is_ours(self) -> bool:
        """Nobody else may steer which process this user takes for a hanging query."""
        try:
            status = os.lstat(self._directory)
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


class Guard:
    """Asks a source that may hang in the driver, at most once at a time and never longer than its limit."""

    def __init__(self, source: str, leftovers: Leftovers, timeout_s: float) -> None:
        self.source = source
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
            return self._failed(f"The child process that asked {self.source} ended with {end} and no answer.", "CRASHED")
        return answer if isinstance(answer, dict) else {}

    def run(self, *argv: str) -> _command.Result | Observation:
        """Return what a command said, or the observation that it did not come back."""
        return self._ask(lambda: _command.run(argv, self._timeout_s))

    def _ask(self, question: Callable[[], _command.Result]) -> _command.Result | Observation:
        left = self._leftovers.living(self.source)
        story = f"an earlier query (process {left.pid}) still hangs in the driver" if left else ""
        if not left:
            try:
                result = question()
            except _command.CannotStart as failure:
                return Observation(self.source, ok=False, message=str(failure))
            if not result.timed_out:
                return result
            story = f"no answer within {self._timeout_s:g} seconds"
            if result.survivor:
                story += f"; the query (process {result.survivor.pid}) cannot be killed and was left behind"
                if not self._leftovers.remember(self.source, result.survivor):
                    story += ", and no note of it could be kept"
        return self._failed(f"The NVIDIA driver hangs: {story}. Read the kernel log for NVRM and Xid, then reboot this host.", "TIMEOUT")

    def _failed(self, message: str, name: str) -> Observation:
        return Observation(self.source, False, message, error(None, message, name), hung=name == "TIMEOUT")


def kernel(guard: Guard, root: str) -> Observation:
    """Ask the last resort: the driver's files in /proc."""
    answer = guard.call(lambda: _sysfs.names(root)) if os.path.isdir(os.path.join(root, "proc/driver/nvidia")) else {}
    return answer if isinstance(answer, Observation) else Observation(_sysfs.SOURCE, ok=True, gpus=answer)
