# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA toolkits, the drivers they need, and the GPUs they can compile for.

Sources: release notes of CUDA 13.2 Update 2, tables 2 and 3 (docs.nvidia.com/cuda/archive/13.2.2), for 11.0 to 13.2; 13.3 from
repositories that quote NVIDIA's notes; 13.4 and 13.5 by the branch that reports them (580 = 13.0, 595 = 13.2 and 615 = 13.4 were read
from the libraries themselves, 620 = 13.5 is inferred, 565 = 12.7 is from memory: no 12.7 toolkit was released).
COMPILES_FOR was asked of each toolkit's own runtime compiler (nvrtcGetSupportedArchs).

To update for a new CUDA release X.Y: add it to TOOLKIT_DRIVER (Linux driver of its first release), its driver branch to BRANCH_CUDA, what
its compiler answers to COMPILES_FOR, and for a new major its floor to MINOR_FLOOR. The unit tests say what was forgotten.
"""

from __future__ import annotations

import functools

from ansible_collections.difyops.gpu.plugins.plugin_utils import _versions

# CUDA X.Y -> the Linux driver that shipped with its first release. Updates of the same X.Y have newer ones; what a driver can run is
# decided by X.Y alone.
TOOLKIT_DRIVER: dict[str, str] = {
    "11.0": "450.51.05",
    "11.1": "455.23",
    "11.2": "460.27.03",
    "11.3": "465.19.01",
    "11.4": "470.42.01",
    "11.5": "495.29.05",
    "11.6": "510.39.01",
    "11.7": "515.43.04",
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
    "13.2": "595.45.04",
    "13.3": "610.43.02",
    # The exact driver is not published in what we could read: the first of the branch that reports this CUDA.
    "13.4": "615",
    "13.5": "620",
}

# CUDA major -> the oldest driver on which every release of that major runs by minor-version compatibility.
MINOR_FLOOR: dict[int, str] = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

# Driver branch -> the CUDA version that it reports.
BRANCH_CUDA: dict[int, str] = {
    450: "11.0",
    455: "11.1",
    460: "11.2",
    465: "11.3",
    470: "11.4",
    495: "11.5",
    510: "11.6",
    515: "11.7",
    520: "11.8",
    525: "12.0",
    530: "12.1",
    535: "12.2",
    545: "12.3",
    550: "12.4",
    555: "12.5",
    560: "12.6",
    565: "12.7",
    570: "12.8",
    575: "12.9",
    580: "13.0",
    590: "13.1",
    595: "13.2",
    610: "13.3",
    615: "13.4",
    620: "13.5",
}

_CUDA_12 = "5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2 7.5 8.0 8.6 8.7 8.9 9.0"
_CUDA_13 = "7.5 8.0 8.6 8.7 8.8 8.9 9.0 10.0 10.3 11.0 12.0 12.1"
_CUDA_13_4 = "7.5 8.0 8.6 8.7 8.8 8.9 9.0 10.0 10.3 10.7 11.0 12.0 12.1"

# CUDA X.Y -> compute capabilities that its compiler makes code for.
COMPILES_FOR: dict[str, tuple[str, ...]] = {
    release: tuple(archs.split())
    for release, archs in {
        "11.7": "3.5 3.7 5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2 7.5 8.0 8.6 8.7",
        "11.8": "3.5 3.7 5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2 7.5 8.0 8.6 8.7 8.9 9.0",
        "12.0": _CUDA_12,
        "12.1": _CUDA_12,
        "12.2": _CUDA_12,
        "12.3": _CUDA_12,
        "12.4": _CUDA_12,
        "12.5": _CUDA_12,
        "12.6": _CUDA_12,
        "12.8": _CUDA_12 + " 10.0 10.1 12.0",
        "12.9": _CUDA_12 + " 10.0 10.1 10.3 12.0 12.1",
        "13.0": _CUDA_13,
        "13.1": _CUDA_13,
        "13.2": _CUDA_13,
        "13.3": _CUDA_13,
        "13.4": _CUDA_13_4,
        "13.5": _CUDA_13_4,
    }.items()
}

# Jetson parts: code for them does not run on their desktop cousins of the same major and the other way round, before CUDA 13.2.
JETSON: tuple[str, ...] = ("5.3", "6.2", "7.2", "8.7")
JETSON_SHARES_SINCE = "13.2"


def number(version: str) -> tuple[int, int]:
    """Return ``"12.6"`` as ``(12, 6)``. The caller has checked the form."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def branch(driver: str) -> int:
    """Return the branch of a driver version: ``"535.247.01"`` -> 535. The caller has checked the form."""
    return int(driver.split(".", 1)[0])


@functools.lru_cache(maxsize=4096)
def driver_cuda(driver: str, reported: str | None = None) -> str | None:
    """Return the CUDA version a driver supports, as ``"12.2"``, or None for a driver older than the tables.

    The table decides for every branch in it. `reported` (what the driver itself said) counts for branches newer than the table; without
    it such a driver is taken for the newest branch below it, which it is at least.
    """
    wanted = branch(driver)
    older = [listed for listed in BRANCH_CUDA if listed <= wanted]
    known = BRANCH_CUDA[max(older)] if older else None
    if wanted > max(BRANCH_CUDA) and known and reported and _versions.is_dotted(reported, "{1}"):
        return max(known, reported, key=number)
    return known


@functools.lru_cache(maxsize=4096)
def is_full(cuda: str, driver: str, cuda_of_driver: str | None) -> bool:
    """Whether a driver is as new as the toolkit's own, or of a newer CUDA major."""
    if cuda in TOOLKIT_DRIVER and _versions.at_least(driver, TOOLKIT_DRIVER[cuda]):
        return True
    if cuda_of_driver is None:
        return False
    if cuda not in TOOLKIT_DRIVER and number(cuda_of_driver) >= number(cuda):
        return True
    return number(cuda_of_driver)[0] > number(cuda)[0]


def is_minor(cuda: str, driver: str) -> bool:
    """Whether a driver is at or above the floor of minor-version compatibility of this CUDA's major."""
    floor = MINOR_FLOOR.get(number(cuda)[0])
    return floor is not None and _versions.at_least(driver, floor)
