# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which device the models run on, found by running something on it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

log = logging.getLogger(__name__)


class DeviceError(Exception):
    """A GPU was expected and cannot be used; the text is one sentence for the operator."""


@dataclass(frozen=True)
class Device:
    """The device that serves.

    Attributes:
        mode: ``gpu`` or ``cpu``.
        torch_name: what PyTorch calls it.
        name: product name of the GPU, or ``CPU``.
        note: why a GPU that is there is not used, if so.
    """

    mode: str
    torch_name: str
    name: str
    note: str | None = None

    def memory(self) -> tuple[int, int] | None:
        """Free and total memory in bytes, for a GPU that answers."""
        if self.mode != "gpu":
            return None
        try:
            free, total = torch.cuda.mem_get_info(self.torch_name)
        except RuntimeError:
            return None
        return int(free), int(total)


def find_device(expect_gpu: bool) -> Device:
    """Pick the GPU when a kernel really runs on it, else the CPU.

    Args:
        expect_gpu: a host that should use its GPU must never quietly serve from the CPU.

    Raises:
        DeviceError: a GPU is expected and cannot be used.
    """
    problem = gpu_problem()
    if problem is None:
        return Device("gpu", "cuda:0", torch.cuda.get_device_name(0))
    if expect_gpu:
        raise DeviceError(f"A GPU is expected (EXPECT_GPU=1) and cannot be used: {problem}.")
    if torch.version.cuda is None:
        return Device("cpu", "cpu", "CPU")
    log.warning("serving from the CPU: %s", problem)
    return Device("cpu", "cpu", "CPU", note=problem)


def bound_memory(device: Device, fraction: float) -> None:
    """Keep this process from taking more than a share of the GPU's memory; what goes beyond it fails as if the GPU were full.

    Args:
        device: the device that serves; the CPU has no such bound.
        fraction: above 0 and up to 1.
    """
    if device.mode == "gpu" and fraction < 1:
        torch.cuda.set_per_process_memory_fraction(fraction, device.torch_name)
        log.info("at most %.0f %% of the memory of %s is taken", fraction * 100, device.name)


def gpu_problem() -> str | None:
    """Why the GPU cannot be used, or None when a small matrix product on it came out right."""
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} in this image is built without CUDA; deploy a CUDA variant of the image"
    try:
        left = torch.arange(64, dtype=torch.float32, device="cuda:0").reshape(8, 8)
        agrees = torch.equal((left @ left).cpu(), left.cpu() @ left.cpu())
    except (RuntimeError, AssertionError) as error:
        return f"CUDA {torch.version.cuda} answered '{first_line(error)}'"
    return None if agrees else "a matrix product on it does not agree with the CPU"


def first_line(error: BaseException) -> str:
    """The part of an error that fits into a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
