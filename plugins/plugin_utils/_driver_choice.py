# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver branch, and which flavour of its kernel modules, drives all the GPUs of a host together.

One driver serves a whole host. So a V100 (proprietary modules only, gone after branch 580) beside an A100 (either) leaves the proprietary
modules of 580 or older, and beside a B200 (open modules only) leaves nothing. Pure functions over the tables _gpus and _branches.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _branches, _gpus
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import LONG_TERM, PRODUCTION
from ansible_collections.difyops.gpu.plugins.plugin_utils._gpus import EITHER, OPEN, PROPRIETARY, Product

# From this branch on NVIDIA installs the open modules where nothing else is asked for (driver installation guide, "Kernel Modules").
OPEN_BY_DEFAULT_SINCE = 560

# What is tried in turn, by channel: kinds of branches, and their name for sentences.
_ORDER = {
    LONG_TERM: (((_branches.LTS,), "long-term support"), ((_branches.PB,), "production")),
    PRODUCTION: (((_branches.LTS, _branches.PB), "long-term support or production"),),
}


class Choice(NamedTuple):
    """A branch and a flavour (OPEN or PROPRIETARY), both None where no supported branch drives all GPUs; `reason` is part of a sentence."""

    branch: int | None
    flavour: str | None
    reason: str


def flavours(products: Sequence[Product], branch: int) -> tuple[str, ...]:
    """Return the flavours of this branch that drive all of these GPUs, the one that NVIDIA prefers first; empty when none does."""
    if any(_refusal(product, branch) is not None for product in products):
        return ()
    can = [flavour for flavour in _offered(branch) if all(product.flavour in (EITHER, flavour) for product in products)]
    return tuple(can)


def why_not(products: Sequence[Product], branch: int) -> str | None:
    """Return why no flavour of this branch drives all of these GPUs, as part of a sentence; None when one does."""
    if flavours(products, branch):
        return None
    for product in products:
        reason = _refusal(product, branch)
        if reason is not None:
            return reason
    closed = next((product for product in products if product.flavour == PROPRIETARY), None)
    opened = next((product for product in products if product.flavour == OPEN), None)
    if closed is not None and opened is not None:
        return f"{closed.name} needs the proprietary kernel modules and {opened.name} the open ones, and a host has one driver"
    if closed is not None:
        return f"{closed.name} needs the proprietary kernel modules, which branch {branch} has not"
    # What is left: open modules are needed and the branch is older than they are.
    return f"{opened.name if opened else 'a GPU'} needs the open kernel modules, which branch {branch} has not"


def choose(
    products: Sequence[Product],
    today: datetime.date,
    offered: Collection[int] | None = None,
    channel: str = LONG_TERM,
    flavour: str | None = None,
) -> Choice:
    """Return the driver to install for these GPUs.

    With the channel LONG_TERM the newest long-term branch that has support today and drives all of them, else the newest such production
    branch; with PRODUCTION the newest of both kinds. New-feature branches are never chosen. `offered` limits the choice to branches that
    a host can get, `flavour` to those whose modules of this flavour drive the GPUs.
    """
    if not products:
        return Choice(None, None, "there is no GPU whose driver could be chosen")
    supported = [branch for branch in _branches.supported(today) if offered is None or branch in offered]
    for kinds, words in _ORDER[channel]:
        for branch in sorted((known for known in supported if _branches.BRANCHES[known].kind in kinds), reverse=True):
            possible = [kind for kind in flavours(products, branch) if flavour in (None, kind)]
            if possible:
                until = _branches.BRANCHES[branch].end_of_life
                return Choice(branch, possible[0], f"the newest {words} branch that drives {_names(products)}, supported until {until}")
    return Choice(None, None, _no_branch(products, supported, flavour))


def _no_branch(products: Sequence[Product], supported: Sequence[int], flavour: str | None) -> str:
    candidates = [branch for branch in supported if _branches.BRANCHES[branch].kind in (_branches.LTS, _branches.PB)]
    if not candidates:
        return "no long-term or production branch that is still supported can be had"
    other = f"the {flavour} kernel modules do not"
    reasons = {branch: why_not(products, branch) or other for branch in reversed(candidates)}
    first = next(iter(reasons.values()))
    if len(set(reasons.values())) == 1:
        return f"no supported branch drives {_names(products)}: {first}"
    return f"no supported branch drives {_names(products)}: " + "; ".join(f"{branch}: {reason}" for branch, reason in reasons.items())


def _offered(branch: int) -> tuple[str, ...]:
    """Return the flavours that a branch has at all, the preferred one first."""
    if branch >= _gpus.OPEN_ONLY_SINCE:
        return (OPEN,)
    if branch >= OPEN_BY_DEFAULT_SINCE:
        return (OPEN, PROPRIETARY)
    return (PROPRIETARY, OPEN) if branch >= _gpus.OPEN_SINCE else (PROPRIETARY,)


def _refusal(product: Product, branch: int) -> str | None:
    """Return why no flavour of this branch drives this GPU, as far as the tables tell: between two sampled branches nobody knows."""
    if product.last_branch is not None and branch > product.last_branch:
        return f"{product.name} is driven by branches up to {product.last_branch} only"
    if product.first_branch is not None:
        before = max((sampled for sampled in _gpus.SAMPLED if sampled < product.first_branch), default=0)
        if branch <= before:
            return f"{product.name} is newer than branch {branch}: NVIDIA's lists name it from {product.first_branch} on"
    return None


def _names(products: Sequence[Product]) -> str:
    names = list(dict.fromkeys(product.name for product in products))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} together"
