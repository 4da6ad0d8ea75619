# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of CUDA's runtime, on top of the driver API of libcuda.so.1 by ctypes."""

from __future__ import annotations

import ctypes
import re
import weakref

from torch import _errors, version

SUCCESS, OUT_OF_MEMORY, DEVICE_UNAVAILABLE, NO_DEVICE = 0, 2, 46, 100
CLOCK_KHZ, MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR = 13, 16, 75, 76
# Float32 lanes per multiprocessor, by compute capability.
LANES = {(5, 0): 128, (5, 2): 128, (6, 0): 64, (6, 1): 128, (7, 0): 64, (7, 5): 64, (8, 0): 64}
LANES_OTHERWISE = 128
LAUNCH_MS = 0.005
USABLE_SHARE = 0.6


class CudaError(Exception):
    """Why CUDA cannot be used; `warns`: is_available() says so in a warning."""

    def __init__(self, text: str, warns: bool) -> None:
        super().__init__(text)
        self.warns = warns


class Driver:
    """libcuda, initialized."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise CudaError(_errors.NO_DRIVER, warns=False) from None
        number = ctypes.c_int()
        self.library.cuDriverGetVersion(ctypes.byref(number))
        self.cuda = number.value
        # Minor-version compatibility: a driver of the same major release is enough.
        if self.cuda // 1000 < int(str(version.cuda).partition(".")[0]):
            raise CudaError(_errors.driver_too_old(self.cuda), warns=True)
        code = self.library.cuInit(0)
        if code == NO_DEVICE:
            raise CudaError(_errors.NO_GPU, warns=False)
        if code:
            raise CudaError(_errors.count_failed(code, self.text(code)), warns=True)
        self.library.cuDeviceGetCount(ctypes.byref(number))
        self.count = number.value
        self.clock_ms = [0.0] * self.count
        self.contexts: dict[int, ctypes.c_void_p] = {}

    def text(self, code: int) -> str:
        text = ctypes.c_char_p()
        self.library.cuGetErrorString(code, ctypes.byref(text))
        said: bytes | None = text.value
        return said.decode() if said is not None else "unknown error"

    def check(self, code: int) -> None:
        if code == DEVICE_UNAVAILABLE:
            raise RuntimeError(_errors.BUSY)
        if code:
            raise RuntimeError(f"CUDA error: {self.text(code)}")

    def attribute(self, index: int, attribute: int) -> int:
        value = ctypes.c_int()
        self.check(self.library.cuDeviceGetAttribute(ctypes.byref(value), attribute, index))
        return value.value

    def capability(self, index: int) -> tuple[int, int]:
        return self.attribute(index, CAPABILITY_MAJOR), self.attribute(index, CAPABILITY_MINOR)

    def slowness(self, index: int) -> float:
        """How many times slower than its clock tells the simulated GPU is; no property that a program could see."""
        return float(self.library.simgpuSlowFactor(index)) / 1000

    def name(self, index: int) -> str:
        text = ctypes.create_string_buffer(256)
        self.check(self.library.cuDeviceGetName(text, 256, index))
        return text.value.decode()

    def use(self, index: int) -> None:
        """Makes the primary context of a device current."""
        if index not in self.contexts:
            context = ctypes.c_void_p()
            self.check(self.library.cuDevicePrimaryCtxRetain(ctypes.byref(context), index))
            self.contexts[index] = context
        self.check(self.library.cuCtxSetCurrent(self.contexts[index]))

    def memory(self, index: int) -> tuple[int, int]:
        self.use(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.check(self.library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
        return free.value, total.value

    def allocate(self, index: int, size: int, owner: object) -> None:
        """Memory of a device for as long as the owner lives."""
        self.use(index)
        address = ctypes.c_ulonglong()
        code = self.library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        if code == OUT_OF_MEMORY:
            raise _errors.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. (simulated PyTorch)")
        self.check(code)
        weakref.finalize(owner, self.library.cuMemFree_v2, ctypes.c_ulonglong(address.value))

    def launch(self, index: int, operations: float) -> None:
        """Runs a kernel, as far as rules go: there must be code for this GPU, and the device's clock goes on."""
        self.use(index)
        problem = no_code_for(self.capability(index), self.cuda)
        if problem:
            raise RuntimeError(problem)
        lanes = LANES.get(self.capability(index), LANES_OTHERWISE)
        per_ms = (
            2.0 * lanes * self.attribute(index, MULTIPROCESSORS) * self.attribute(index, CLOCK_KHZ) * USABLE_SHARE / self.slowness(index)
        )
        self.clock_ms[index] += LAUNCH_MS + (operations / per_ms if per_ms else 0.0)


def no_code_for(gpu: tuple[int, int], driver_cuda: int) -> str | None:
    """Why nothing in this build runs on a GPU of that compute capability; None when something does."""
    jit_refused = False
    for architecture in version.architectures:
        kind, major, minor, suffix = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture).groups()
        target = (int(major), int(minor))
        if suffix == "a":
            fits = gpu == target
        elif kind == "sm" or suffix == "f":
            fits = gpu[0] == target[0] and gpu[1] >= target[1]
        else:
            fits = gpu >= target
        if not fits:
            continue
        if kind == "sm" or toolkit_number() <= driver_cuda:
            return None
        jit_refused = True
    return _errors.PTX_TOO_NEW if jit_refused else _errors.NO_KERNEL


def toolkit_number() -> int:
    """12060 for CUDA 12.6."""
    major, minor = str(version.cuda).split(".")
    return int(major) * 1000 + int(minor) * 10


_driver: Driver | None = None


def get() -> Driver:
    """The driver; initialized on first use. Raises CudaError."""
    global _driver
    if _driver is None:
        _driver = Driver()
    return _driver
