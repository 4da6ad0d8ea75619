# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Element types."""

from __future__ import annotations

import numpy


class dtype:  # noqa: N801  PyTorch's name
    """An element type, known by the name that PyTorch gives it."""

    def __init__(self, name: str, array_type: type) -> None:
        self.name = name
        self.array_type = numpy.dtype(array_type)

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    @property
    def itemsize(self) -> int:
        return self.array_type.itemsize


float16 = half = dtype("float16", numpy.float16)
float32 = float = dtype("float32", numpy.float32)  # noqa: A001
float64 = double = dtype("float64", numpy.float64)
# numpy has no bfloat16: its values are kept in more precise ones.
bfloat16 = dtype("bfloat16", numpy.float32)
int32 = dtype("int32", numpy.int32)
int64 = long = dtype("int64", numpy.int64)
bool_ = dtype("bool", numpy.bool_)


def of(array: numpy.ndarray) -> dtype:
    """The dtype of an array."""
    for known in (float32, float64, float16, int64, int32, bool_):
        if known.array_type == array.dtype:
            return known
    raise TypeError(f"can't convert np.ndarray of type {array.dtype}")
