# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch releases: their CUDA wheel indexes, the Pythons they support, and the GPU code inside (Linux x86_64).

Sources: PyTorch's RELEASE.md (copy of September 2026, up to 2.14) and the package index (pip --report, PEP 691) on 2026-11-22 for
releases and Pythons; PyTorch's build scripts and `torch.cuda.get_arch_list()` answers in pytorch/pytorch#182250 for the code lists.
Weaker spots, said plainly: the lists of cu118, cu121 and cu124 for torch 2.2 to 2.6 are from memory, cu118 of 2.7 continues them; the
cu130 wheel of torch 2.15 is from PyTorch's release plan (RFC #190385), so the default catalog does not use it. There never were cu122,
cu123, cu125, cu127 or cu131 wheels.

To update for a new torch release: add a row to RELEASES, and to CODE when one of its wheels carries another list. Which indexes are
retired follows from RELEASES.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _cuda


class Release(NamedTuple):
    """One torch release: CUDA wheel indexes and CPython versions that have a wheel."""

    indexes: tuple[str, ...]
    pythons: tuple[str, ...]


class Code(NamedTuple):
    """GPU code in the wheels of one index, from torch `first` to `last` (major, minor), both included."""

    wheels: str
    first: tuple[int, int]
    last: tuple[int, int]
    sm: tuple[str, ...]
    ptx: str | None


def _release(indexes: str, pythons: str) -> Release:
    return Release(tuple(indexes.split()), tuple(pythons.split()))


RELEASES: dict[str, Release] = {
    "2.15.0": _release("cu130 cu132", "3.11 3.12 3.13 3.14 3.15"),
    "2.14.1": _release("cu126 cu130 cu132", "3.10 3.11 3.12 3.13 3.14"),
    "2.13.0": _release("cu126 cu130 cu132", "3.10 3.11 3.12 3.13 3.14"),
    "2.12.1": _release("cu126 cu130 cu132", "3.10 3.11 3.12 3.13 3.14"),
    "2.11.0": _release("cu126 cu128 cu130", "3.10 3.11 3.12 3.13 3.14"),
    "2.10.0": _release("cu126 cu128 cu130", "3.10 3.11 3.12 3.13 3.14"),
    "2.9.1": _release("cu126 cu128 cu130", "3.10 3.11 3.12 3.13 3.14"),
    "2.8.0": _release("cu126 cu128 cu129", "3.9 3.10 3.11 3.12 3.13"),
    "2.7.1": _release("cu118 cu126 cu128", "3.9 3.10 3.11 3.12 3.13"),
    "2.6.0": _release("cu118 cu124 cu126", "3.9 3.10 3.11 3.12 3.13"),
    "2.5.1": _release("cu118 cu121 cu124", "3.9 3.10 3.11 3.12 3.13"),
    "2.4.1": _release("cu118 cu121 cu124", "3.8 3.9 3.10 3.11 3.12"),
    "2.3.1": _release("cu118 cu121", "3.8 3.9 3.10 3.11 3.12"),
    "2.2.2": _release("cu118 cu121", "3.8 3.9 3.10 3.11 3.12"),
    "2.1.2": _release("cu118 cu121", "3.8 3.9 3.10 3.11"),
    "2.0.1": _release("cu117 cu118", "3.8 3.9 3.10 3.11"),
    "1.13.1": _release("cu116 cu117", "3.8 3.9 3.10 3.11"),
}

_MAXWELL_TO_HOPPER = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
_TURING_TO_BLACKWELL = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
_NEWEST = (2, 15)

CODE: tuple[Code, ...] = (
    Code("cu118", (2, 0), (2, 0), ("3.7", *_MAXWELL_TO_HOPPER), None),
    # 2.1 is in two sources, one with 3.7 and one without: the smaller list cannot promise too much.
    Code("cu118", (2, 1), (2, 7), _MAXWELL_TO_HOPPER, None),
    Code("cu121", (2, 1), (2, 5), _MAXWELL_TO_HOPPER, None),
    Code("cu124", (2, 4), (2, 6), _MAXWELL_TO_HOPPER, None),
    Code("cu126", (2, 6), (2, 14), _MAXWELL_TO_HOPPER, None),
    Code("cu128", (2, 7), (2, 7), _TURING_TO_BLACKWELL, "12.0"),
    Code("cu128", (2, 8), (2, 10), ("7.0", *_TURING_TO_BLACKWELL), None),
    Code("cu128", (2, 11), (2, 11), _TURING_TO_BLACKWELL, None),
    Code("cu129", (2, 8), (2, 8), ("7.0", *_TURING_TO_BLACKWELL), "12.0"),
    Code("cu130", (2, 9), _NEWEST, _TURING_TO_BLACKWELL, "12.0"),
    Code("cu132", (2, 12), (2, 14), _TURING_TO_BLACKWELL, "12.0"),
    # Read from the wheel 2.15.0+cu132 itself: get_arch_list() has no compute_120 any more.
    Code("cu132", (2, 15), _NEWEST, _TURING_TO_BLACKWELL, None),
)


def index_of(url: str) -> str | None:
    """Return the index that a wheel URL ends in (``cu126``, ``cpu``), or None for a site's own."""
    match = re.search(r"/(cpu|cu[0-9]{3})/?$", url)
    return match.group(1) if match else None


def cuda_of(index: str) -> str | None:
    """Return the CUDA version of an index: ``cu126`` -> ``12.6``; None for ``cpu``."""
    return f"{index[2:4]}.{index[4:]}" if re.fullmatch(r"cu[0-9]{3}", index) else None


def code_of(torch: str, index: str) -> Code | None:
    """Return what GPU code torch X.Y.Z from this index carries, or None when the table does not know the pair."""
    release = _cuda.number(torch)
    return next((code for code in CODE if code.wheels == index and code.first <= release <= code.last), None)


def last_torch(index: str) -> str | None:
    """Return the newest torch of an index that the newest release has left out; None for an index that is still served, or unknown."""
    having = [torch for torch, release in RELEASES.items() if index in release.indexes]
    if not having or index in RELEASES[newest_torch()].indexes:
        return None
    return max(having, key=_numbers)


def newest_torch() -> str:
    """Return the newest release of the table."""
    return max(RELEASES, key=_numbers)


def retired(wheel_index: str | None) -> str | None:
    """Return, as part of a sentence, that an index (its name or URL) gets no newer PyTorch; None when it does, or nobody knows."""
    if wheel_index is None:
        return None
    index = wheel_index if re.fullmatch(r"cu[0-9]{3}", wheel_index) else index_of(wheel_index)
    last = last_torch(index) if index is not None else None
    if last is None:
        return None
    return f"PyTorch {last} is the last one with wheels for {index}; {newest_torch()} is out without them"


def _numbers(torch: str) -> tuple[int, ...]:
    return tuple(int(part) for part in torch.split("."))
