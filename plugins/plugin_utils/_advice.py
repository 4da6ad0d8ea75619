# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a newer driver would be good for. Advice only: the plan is made for the driver that is there or planned."""

from __future__ import annotations

import datetime
import functools
import itertools
from collections.abc import Iterator
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _branches, _cuda, _driver, _driver_choice, _plan_codes, _selector
from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._gpus import Product
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver, Gpu, Preference, Selection


@functools.lru_cache(maxsize=4096)
def _driver_advice(
    variants: tuple[Variant, ...],
    preference: Preference,
    gpus: tuple[Gpu, ...],
    products: tuple[Product, ...],
    driver: Driver,
    today: datetime.date,
    waiting: Driver | None,
) -> tuple[Driver, tuple[str, ...], str] | None:
    now = _selector.select(variants, driver, gpus, preference)
    newer = (Driver(_driver.oldest_of(branch)) for branch in _branches_above(products, _cuda.branch(driver.version), today))
    for candidate in itertools.chain([waiting] if waiting else [], newer):
        then = _selector.select(variants, candidate, gpus, preference)
        # In the order of the catalog.
        opened = _fitting(then) - _fitting(now)
        opens = tuple(variant.name for variant in variants if variant.name in opened and preference.named in (None, variant.name))
        if then.chosen is not None and then.chosen.variant.name in opens and (now.chosen is None or _is_better(then, now, preference)):
            return candidate, opens, then.chosen.variant.name
    return None


def driver_advice(
    variants: tuple[Variant, ...],
    preference: Preference,
    gpus: tuple[Gpu, ...],
    products: tuple[Product, ...],
    driver: Driver,
    today: datetime.date,
    waiting: Driver | None = None,
) -> dict[str, Any] | None:
    """Return the supported branch that drives all GPUs and opens a variant that would be chosen, with all that it opens; or None.

    A driver that is installed and `waiting` for a reboot comes first. Of several branches the one that would be installed here comes
    first, then the oldest, which is the smallest step.
    """
    found = _driver_advice(variants, preference, gpus, products, driver, today, waiting)
    if found is None:
        return None
    candidate, opens, best = found
    branch = _cuda.branch(candidate.version)
    count = "one more variant opens up" if len(opens) == 1 else f"{len(opens)} more variants open up"
    chosen = "" if len(opens) == 1 else f"; {best} would be chosen"
    if candidate == waiting:
        step = f"reboot: {candidate.version} is installed,"
    else:
        step = f"upgrade the driver to branch {branch} (supported until {_branches.BRANCHES[branch].end_of_life})"
    message = f"{step} and {count}: {', '.join(opens)}{chosen}"
    return {"branch": str(branch), "opens": list(opens), "message": message}


def _branches_above(products: tuple[Product, ...], current: int, today: datetime.date) -> Iterator[int]:
    first = _driver_choice.choose(products, today).branch
    others = [branch for branch in _branches.supported(today) if _branches.BRANCHES[branch].kind != _branches.NFB]
    for branch in dict.fromkeys([first, *others]):
        if branch is not None and branch > current and _driver_choice.flavours(products, branch):
            yield branch


def _fitting(selection: Selection) -> set[str]:
    names = {fit.variant.name for fit in selection.others if fit.code == _plan_codes.NOT_PREFERRED}
    return names | ({selection.chosen.variant.name} if selection.chosen else set())


def _is_better(then: Selection, now: Selection, preference: Preference) -> bool:
    if then.chosen is None or now.chosen is None:
        return then.chosen is not None
    return _selector.rank(then.chosen, preference.prefer) > _selector.rank(now.chosen, preference.prefer)
