# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A SIMULATED stand-in for PyTorch, on numpy: no GPU computes here.

It has the small part of PyTorch's interface that proves a GPU, and follows CUDA's rules about drivers, architectures,
memory and devices through the libcuda.so.1 that the container gets. Times on its devices are those of a simulated clock.
"""

from __future__ import annotations

import contextlib

from torch import backends, cuda, version
from torch._dtype import bfloat16, bool_, double, dtype, float, float16, float32, float64, half, int32, int64, long  # noqa: A004  PyTorch's names
from torch._errors import OutOfMemoryError
from torch._tensor import (
    Generator,
    Tensor,
    allclose,
    arange,
    device,
    empty,
    equal,
    eye,
    isfinite,
    manual_seed,
    matmul,
    mm,
    ones,
    rand,
    randn,
    tensor,
    zeros,
)

__version__ = version.__version__
__simulated__ = True

bool = bool_  # noqa: A001
no_grad = contextlib.nullcontext
inference_mode = contextlib.nullcontext


def get_num_threads() -> int:
    """One: numpy decides by itself how many it uses."""
    return 1


__all__ = [
    "Generator",
    "OutOfMemoryError",
    "Tensor",
    "allclose",
    "arange",
    "backends",
    "bfloat16",
    "bool",
    "cuda",
    "device",
    "double",
    "dtype",
    "empty",
    "equal",
    "eye",
    "float",
    "float16",
    "float32",
    "float64",
    "half",
    "inference_mode",
    "int32",
    "int64",
    "isfinite",
    "long",
    "manual_seed",
    "matmul",
    "mm",
    "no_grad",
    "ones",
    "rand",
    "randn",
    "tensor",
    "version",
    "zeros",
]
