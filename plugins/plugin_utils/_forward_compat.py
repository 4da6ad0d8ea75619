# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA forward compatibility: newer CUDA than the driver's, through the cuda-compat package inside the image.

Source: NVIDIA's CUDA Compatibility guide "615" (updated 2026-09-09), the base driver branches it marks per cuda-compat release. Branches
past their end of life (525, 550 to 565, 575) are no longer listed there, although notes inside the libraries still name some: the guide
decides. NVIDIA supports it on data center GPUs, some NGC-ready RTX products and Jetson; which RTX products is not in any table that we
could read, so here only data center GPUs count.

To update: copy the matrix of the newest guide.
"""

from __future__ import annotations

# CUDA X.Y of the cuda-compat package -> driver branches it serves.
SERVES: dict[str, tuple[int, ...]] = {
    "12.2": (),
    "12.3": (535,),
    "12.4": (535,),
    "12.5": (535,),
    "12.6": (535,),
    "12.8": (535,),
    "12.9": (535, 570),
    "13.0": (535, 570),
    "13.1": (535, 570, 580),
    "13.2": (535, 570, 580, 590),
    "13.3": (535, 570, 580, 590, 595),
    "13.4": (535, 570, 580, 590, 595, 610),
}

# The `features` entry of a catalog variant whose image carries the cuda-compat package of its CUDA. Without it there is nothing in the
# image that could make a newer CUDA work on an older driver.
FEATURE = "cuda_compat"


def serves(cuda: str, branch: int) -> bool:
    """Whether the cuda-compat package of this CUDA serves this driver branch."""
    return branch in SERVES.get(cuda, ())
