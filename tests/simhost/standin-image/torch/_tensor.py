# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensors: numpy arrays that know which device they are on."""

from __future__ import annotations

from typing import Any, Callable

import numpy

from torch import _driver, _dtype, cuda


class device:  # noqa: N801  PyTorch's name
    """A device by name: cpu, cuda, cuda:1."""

    def __init__(self, name: str | device, index: int | None = None) -> None:
        if isinstance(name, device):
            self.type, self.index = name.type, name.index
            return
        self.type, _colon, number = name.partition(":")
        if self.type not in ("cpu", "cuda"):
            raise RuntimeError(f"Expected one of cpu, cuda device type at start of device string: {name}")
        self.index = int(number) if number else index
        if self.type == "cuda":
            self.index = cuda._index(name if self.index is None else self.index)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type='{self.type}'{'' if self.index is None else f', index={self.index}'})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


CPU = device("cpu")


def _on(place: object) -> device:
    if place is None:
        return CPU
    if isinstance(place, int):
        return device("cuda", place)
    return device(place)  # type: ignore[arg-type]


class Tensor:
    """An array on a device. On a GPU it holds memory of the device, and every operation needs a kernel."""

    def __init__(self, array: numpy.ndarray, place: device = CPU) -> None:
        self._array = numpy.asarray(array)
        self.device = place
        if place.type == "cuda":
            _driver.get().allocate(place.index or 0, self._array.nbytes, self)

    # what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> _dtype.dtype:
        return _dtype.of(self._array)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def T(self) -> Tensor:
        return Tensor(self._array.T, self.device)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self._array.ndim

    def numel(self) -> int:
        return int(self._array.size)

    def __len__(self) -> int:
        return len(self._array)

    def __repr__(self) -> str:
        return f"tensor({self._array!r}, device='{self.device}')"

    # where it is: copies need no kernel

    def to(self, *wanted: object, dtype: _dtype.dtype | None = None, device: object = None, non_blocking: bool = False) -> Tensor:
        result = self
        for one in (*wanted, dtype, device):
            if isinstance(one, _dtype.dtype):
                result = result._run(lambda array, kind=one: array.astype(kind.array_type))
            elif one is not None:
                place = _on(one.device if isinstance(one, Tensor) else one)
                if place != result.device:
                    result = Tensor(result._array.copy(), place)
        return result

    def cuda(self, device: object = None) -> Tensor:
        return self.to("cuda" if device is None else device)

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def numpy(self) -> numpy.ndarray:
        if self.is_cuda:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")
        return self._array

    def item(self) -> Any:
        return self._array.item()

    def tolist(self) -> Any:
        return self._array.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    # what is computed

    def _run(self, work: Callable[..., Any], *others: object, operations: float | None = None) -> Tensor:
        """One operation on the device of this tensor."""
        arrays = []
        for other in others:
            if isinstance(other, Tensor):
                # As in PyTorch, only a single number may come from the CPU.
                if other.device != self.device and other._array.ndim:
                    raise RuntimeError(
                        f"Expected all tensors to be on the same device, but found at least two devices, {self.device} and {other.device}!"
                    )
                arrays.append(other._array)
            else:
                arrays.append(other)
        if self.is_cuda:
            _driver.get().launch(self.device.index or 0, self.numel() if operations is None else operations)
        return Tensor(work(self._array, *arrays), self.device)

    def __matmul__(self, other: Tensor) -> Tensor:
        if self.shape[-1] != other.shape[max(other.dim() - 2, 0)]:
            raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({self.shape} and {other.shape})")
        return self._run(_product_on_gpu if self.is_cuda else _product, other, operations=2.0 * self.numel() * other.shape[-1])

    matmul = mm = __matmul__

    def __add__(self, other: object) -> Tensor:
        return self._run(numpy.add, other)

    def __radd__(self, other: object) -> Tensor:
        return self._run(numpy.add, other)

    def __sub__(self, other: object) -> Tensor:
        return self._run(numpy.subtract, other)

    def __mul__(self, other: object) -> Tensor:
        return self._run(numpy.multiply, other)

    def __rmul__(self, other: object) -> Tensor:
        return self._run(numpy.multiply, other)

    def __truediv__(self, other: object) -> Tensor:
        return self._run(numpy.divide, other)

    def __neg__(self) -> Tensor:
        return self._run(numpy.negative)

    def __le__(self, other: object) -> Tensor:
        return self._run(numpy.less_equal, other)

    def __lt__(self, other: object) -> Tensor:
        return self._run(numpy.less, other)

    def __getitem__(self, place: Any) -> Tensor:
        return Tensor(self._array[place], self.device)

    def abs(self) -> Tensor:
        return self._run(numpy.abs)

    def max(self) -> Tensor:
        return self._run(numpy.max)

    def min(self) -> Tensor:
        return self._run(numpy.min)

    def sum(self) -> Tensor:
        return self._run(numpy.sum)

    def mean(self) -> Tensor:
        return self._run(numpy.mean)

    def norm(self) -> Tensor:
        return self._run(numpy.linalg.norm)

    def all(self) -> Tensor:
        return self._run(numpy.all)

    def t(self) -> Tensor:
        return self.T

    def reshape(self, *shape: int) -> Tensor:
        return Tensor(self._array.reshape(*shape), self.device)

    view = reshape

    def clone(self) -> Tensor:
        return Tensor(self._array.copy(), self.device)

    def float(self) -> Tensor:
        return self.to(_dtype.float32)

    def double(self) -> Tensor:
        return self.to(_dtype.float64)

    def half(self) -> Tensor:
        return self.to(_dtype.float16)


def _product(left: numpy.ndarray, right: numpy.ndarray) -> numpy.ndarray:
    """Half precision is summed in single precision, as GPUs do (and numpy's own is very slow)."""
    if left.dtype == numpy.float16:
        return (left.astype(numpy.float32) @ right.astype(numpy.float32)).astype(numpy.float16)
    return left @ right


def _product_on_gpu(left: numpy.ndarray, right: numpy.ndarray) -> numpy.ndarray:
    """Summed otherwise than on the CPU, so that the two differ by rounding, as real ones do."""
    return (left.astype(numpy.float64) @ right.astype(numpy.float64)).astype(left.dtype)


# --- functions --------------------------------------------------------------------------------------------------------


class Generator:
    """A source of random numbers."""

    def __init__(self, device: object = "cpu") -> None:
        self.device = _on(device)
        self.random = numpy.random.default_rng()

    def manual_seed(self, seed: int) -> Generator:
        self.random = numpy.random.default_rng(seed)
        return self


_default = Generator()


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator."""
    return _default.manual_seed(seed)


def _shape(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def _filled(array: numpy.ndarray, dtype: _dtype.dtype | None, place: object) -> Tensor:
    """A new tensor; filling it on a GPU takes a kernel."""
    result = Tensor(array.astype((dtype or _dtype.float32).array_type), _on(place))
    if result.is_cuda:
        _driver.get().launch(result.device.index or 0, result.numel())
    return result


def randn(*sizes: Any, generator: Generator | None = None, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    return _filled((generator or _default).random.standard_normal(_shape(sizes)), dtype, device)


def rand(*sizes: Any, generator: Generator | None = None, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    return _filled((generator or _default).random.random(_shape(sizes)), dtype, device)


def zeros(*sizes: Any, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    return _filled(numpy.zeros(_shape(sizes)), dtype, device)


def ones(*sizes: Any, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    return _filled(numpy.ones(_shape(sizes)), dtype, device)


def eye(size: int, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    return _filled(numpy.eye(size), dtype, device)


def arange(*limits: float, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    array = numpy.arange(*limits)
    return _filled(array, dtype or (_dtype.int64 if array.dtype.kind == "i" else None), device)


def empty(*sizes: Any, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    return Tensor(numpy.empty(_shape(sizes), (dtype or _dtype.float32).array_type), _on(device))


def tensor(data: Any, dtype: _dtype.dtype | None = None, device: object = None) -> Tensor:
    array = numpy.asarray(data)
    if dtype is not None:
        array = array.astype(dtype.array_type)
    elif array.dtype == numpy.float64:
        array = array.astype(numpy.float32)
    return Tensor(array, _on(device))


def matmul(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


mm = matmul


def allclose(left: Tensor, right: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    return bool(left._run(lambda a, b: numpy.allclose(a, b, rtol, atol, equal_nan), right))


def equal(left: Tensor, right: Tensor) -> bool:
    return bool(left._run(numpy.array_equal, right))


def isfinite(values: Tensor) -> Tensor:
    return values._run(numpy.isfinite)
