# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the stand-in, with the words by which programs know CUDA's."""

from __future__ import annotations

NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
PTX_TOO_NEW = "CUDA error: the provided PTX was compiled with an unsupported toolchain."
BUSY = "CUDA error: CUDA-capable device(s) is/are busy or unavailable"
NO_GPU = "No CUDA GPUs are available"
NO_DRIVER = "Found no NVIDIA driver on your system. (simulated PyTorch)"
NOT_COMPILED = "Torch not compiled with CUDA enabled"


def driver_too_old(found: int) -> str:
    todo = "Update the driver, or use a build for its CUDA. (simulated PyTorch)"
    return f"The NVIDIA driver on your system is too old (found version {found}). {todo}"


def count_failed(code: int, text: str) -> str:
    return f"Unexpected error from cudaGetDeviceCount(). Error {code}: {text}"


class OutOfMemoryError(RuntimeError):
    """A device has not enough memory."""
