# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA driver branches: type and end of life.

Sources: docs.nvidia.com/datacenter/tesla/drivers (September 2026) for 535, 580, 595 and 610; a copy of endoflife.date (August 2025, itself
from NVIDIA's releases.json) for the others. Where a source gives a span, the later month counts. 590 was superseded by 595 without a date;
615 and 620 are in no table yet, so they are never chosen.

To update: copy the life cycle table of NVIDIA's newest data center driver guide; a branch must be in _cuda.BRANCH_CUDA too.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

LTS, PB, NFB = "LTS", "PB", "NFB"


class Branch(NamedTuple):
    """Type (LTS: long-term support, PB: production, NFB: new feature) and last month of support (``YYYY-MM``), None when not known."""

    kind: str
    end_of_life: str | None


BRANCHES: dict[int, Branch] = {
    450: Branch(LTS, "2023-07"),
    460: Branch(PB, "2022-01"),
    470: Branch(LTS, "2024-07"),
    510: Branch(PB, "2023-01"),
    515: Branch(PB, "2023-05"),
    525: Branch(PB, "2023-12"),
    535: Branch(LTS, "2026-06"),
    550: Branch(PB, "2025-04"),
    560: Branch(PB, "2025-08"),
    565: Branch(NFB, "2025-10"),
    570: Branch(PB, "2026-02"),
    575: Branch(NFB, "2026-06"),
    580: Branch(LTS, "2028-06"),
    590: Branch(NFB, None),
    595: Branch(PB, "2027-03"),
    610: Branch(NFB, "2026-08"),
}


def ended(branch: int, today: datetime.date) -> str | None:
    """Return the last month of support (``YYYY-MM``) of a branch whose support has ended, else None."""
    known = BRANCHES.get(branch)
    if known is None or known.end_of_life is None or today.strftime("%Y-%m") <= known.end_of_life:
        return None
    return known.end_of_life


def supported(today: datetime.date) -> list[int]:
    """Return the branches whose end of life is known and not over, the oldest first."""
    return sorted(branch for branch, known in BRANCHES.items() if known.end_of_life is not None and ended(branch, today) is None)


def newest(kind: str, today: datetime.date) -> int | None:
    """Return the newest branch of a type that has support today, or None."""
    return max((branch for branch in supported(today) if BRANCHES[branch].kind == kind), default=None)
