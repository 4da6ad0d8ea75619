# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""torch.cuda of the stand-in."""

from __future__ import annotations

import types
import warnings

from torch import _driver, _errors, version
from torch._errors import OutOfMemoryError

_current = 0


def _get() -> _driver.Driver:
    if version.cuda is None:
        raise AssertionError(_errors.NOT_COMPILED)
    try:
        return _driver.get()
    except _driver.CudaError as problem:
        raise RuntimeError(str(problem)) from None


def _index(device: object = None) -> int:
    """The number of a device given as number, text or torch.device; the current one for None."""
    if device is None:
        return _current
    if isinstance(device, str):
        kind, _colon, number = device.partition(":")
        if kind != "cuda":
            raise ValueError(f"Expected a cuda device, but got: {device}")
        index = int(number) if number else _current
    else:
        index = getattr(device, "index", device)
        index = _current if index is None else index
    if not 0 <= index < _get().count:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return index


def is_available() -> bool:
    """Whether there is a GPU; a warning says why not, where PyTorch warns."""
    return device_count() > 0


def device_count() -> int:
    if version.cuda is None:
        return 0
    try:
        return _driver.get().count
    except _driver.CudaError as problem:
        if problem.warns:
            warnings.warn(f"CUDA initialization: {problem}", UserWarning, stacklevel=2)
        return 0


def init() -> None:
    """Raises RuntimeError where CUDA cannot be used."""
    _get()


def is_initialized() -> bool:
    return _driver._driver is not None


def current_device() -> int:
    _get()
    return _current


def set_device(device: object) -> None:
    global _current
    _current = _index(device)


def get_arch_list() -> list[str]:
    return list(version.architectures) if is_available() else []


def get_device_name(device: object = None) -> str:
    return _get().name(_index(device))


def get_device_capability(device: object = None) -> tuple[int, int]:
    return _get().capability(_index(device))


def get_device_properties(device: object = None) -> types.SimpleNamespace:
    index = _index(device)
    major, minor = _get().capability(index)
    return types.SimpleNamespace(
        name=_get().name(index),
        major=major,
        minor=minor,
        total_memory=_get().memory(index)[1],
        multi_processor_count=_get().attribute(index, _driver.MULTIPROCESSORS),
    )


def mem_get_info(device: object = None) -> tuple[int, int]:
    """Free and total bytes."""
    return _get().memory(_index(device))


def synchronize(device: object = None) -> None:
    _get().use(_index(device))


def empty_cache() -> None:
    """Nothing is cached here."""


class Event:
    """A point in the simulated time of the current device."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self._timing = enable_timing
        self._at: float | None = None

    def record(self, stream: object = None) -> None:
        self._at = _get().clock_ms[_current]

    def synchronize(self) -> None:
        synchronize()

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds of the simulated clock."""
        if not (self._timing and end._timing):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
        if self._at is None or end._at is None:
            raise RuntimeError("Both events must be recorded before calculating elapsed time.")
        return end._at - self._at


__all__ = [
    "Event",
    "OutOfMemoryError",
    "current_device",
    "device_count",
    "empty_cache",
    "get_arch_list",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "init",
    "is_available",
    "is_initialized",
    "mem_get_info",
    "set_device",
    "synchronize",
]
