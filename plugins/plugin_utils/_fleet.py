# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One image variant for many hosts: what every GPU host can run, who holds the fleet back from what, and what differs between hosts.

Pure, and the order in which the hosts are given does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _document, _host, _plan_codes, _planner, _selector, _text
from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._planner import Wishes
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Fit

SCHEMA = 1
BLOCK, ALLOW = "block", "allow"
MISSING = (BLOCK, ALLOW)

_NO_FACTS = "no facts"


@dataclass(frozen=True)
class _Candidate:
    """A CUDA variant and how it does on the hosts: `refused` has the reason of each host that cannot run it."""

    variant: Variant
    fits: tuple[Fit, ...]
    refused: Mapping[str, str]


def decide(
    facts: Mapping[str, object],
    catalog: Sequence[Variant],
    wishes: Wishes,
    missing: str = BLOCK,
    gpus_of: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Return the decision over all hosts, the document ``ansible_facts['gpu_fleet']`` of docs/contracts.md.

    Args:
        facts: by host, its ``ansible_facts['nvidia']``, None (or anything else) where there is none.
        catalog: the variants to choose from.
        wishes: the operator's decisions; `host` and `fleet` in them do not count.
        missing: whether hosts about which nothing is known block the decision or are left out of it.
        gpus_of: by host, the GPUs that it uses; of a host that is not in it the wishes tell.

    Raises:
        WishError: a variant was named that is not in the catalog, or something was asked for that no host could have.
    """
    _planner.check(catalog, wishes)
    variants = [variant for variant in _catalog.enabled(catalog) if variant.cuda is not None and wishes.variant in (None, variant.name)]
    hosts = {name: _host.read(facts[name]) for name in sorted(facts, key=natural)}
    on_the_cpu = wishes.variant is not None and not variants
    unknown: dict[str, str] = {}
    judged: dict[str, tuple[Fit, ...]] = {}
    for name, host in hosts.items():
        if not host.observed:
            unknown[name] = _NO_FACTS
        elif host.present and not on_the_cpu:
            fits = _judged(host, variants, wishes, (gpus_of or {}).get(name))
            if isinstance(fits, str):
                unknown[name] = fits
            else:
                judged[name] = fits
    candidates = _candidates(variants, judged, wishes)
    chosen = next((candidate for candidate in candidates if not candidate.refused), None) if judged else None
    blocks = _blocks(unknown if missing == BLOCK else {}, judged, candidates, chosen, wishes)
    better = candidates if chosen is None else candidates[: candidates.index(chosen)]
    return {
        "schema": SCHEMA,
        "status": "blocked" if blocks else "ok",
        "variant": chosen.variant.name if chosen is not None and not blocks else None,
        "blocked": [block.as_dict() for block in blocks],
        "hosts": len(hosts) - len(unknown),
        "missing": list(unknown),
        "gpu_hosts": list(judged),
        "held_back_by": [entry for candidate in better for entry in _held_back(candidate, len(judged))],
        "candidates": [
            {"variant": candidate.variant.name, "hosts": len(candidate.fits), "refused_by": len(candidate.refused)}
            for candidate in candidates
        ],
        "drift": _drift({name: hosts[name] for name in judged}),
    }


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key by which gpu-9 comes before gpu-10."""
    return tuple((0, int(part), part) if part.isdecimal() and part.isascii() else (1, 0, part) for part in re.split(r"([0-9]+)", name))


def _judged(host: Host, variants: Sequence[Variant], wishes: Wishes, selection: Sequence[str] | None) -> tuple[Fit, ...] | str:
    """Return how every variant does on this host, or why nobody can tell."""
    gpus = _planner.gpus_of(host, wishes, selection)
    if gpus.choice.block is not None:
        return gpus.choice.block.message
    if gpus.driver.expected is None:
        return gpus.driver.block.message if gpus.driver.block is not None else "its driver is not known"
    cards = tuple(card.gpu for card in gpus.choice.cards)
    # One at a time: what is not the best of this host may be the best of all.
    selections = [_selector.select((variant,), gpus.driver.expected, cards, wishes.preference) for variant in variants]
    fits = (selection.chosen or selection.others[0] for selection in selections)
    return tuple(_selector.force(fit) if wishes.force else fit for fit in fits)


def _candidates(variants: Sequence[Variant], judged: Mapping[str, tuple[Fit, ...]], wishes: Wishes) -> list[_Candidate]:
    """Return the variants, the preferred first. Where one does differently on different hosts, its worst counts."""
    found = []
    for number, variant in enumerate(variants):
        entries = [(host, fits[number]) for host, fits in judged.items()]
        fitting = tuple(fit for _name, fit in entries if fit.support is not None)
        found.append(_Candidate(variant, fitting, {name: fit.reason for name, fit in entries if fit.support is None}))
    return sorted(found, key=lambda candidate: _worst_rank(candidate, wishes), reverse=True)


def _worst_rank(candidate: _Candidate, wishes: Wishes) -> tuple[object, ...]:
    supports = {fit.support for fit in candidate.fits} or {_selector.MINOR}
    return min((_selector.rank(Fit(candidate.variant, support, None, ""), wishes.prefer) for support in supports), key=tuple)


def _blocks(
    unknown: Mapping[str, str],
    judged: Mapping[str, object],
    candidates: Sequence[_Candidate],
    chosen: _Candidate | None,
    wishes: Wishes,
) -> list[Block]:
    blocks = []
    if unknown:
        groups = _grouped(unknown.items())
        known = "; ".join(f"{_text.some_hosts(hosts)} ({reason})" for reason, hosts in groups.items())
        message = f"{_text.count_hosts(len(unknown))} of the fleet cannot be judged: {known}"
        blocks.append(Block("image", _plan_codes.FLEET_MISSING, message, _known_again(groups)))
    if judged and chosen is None:
        blocks.append(Block("image", _plan_codes.FLEET_NO_VARIANT, _nothing_for_all(candidates, len(judged), wishes.variant)))
    return blocks


def _known_again(reasons: Iterable[str]) -> str:
    """Return the remedy for hosts that cannot be judged for these reasons."""
    whole = set(reasons)
    steps = ["gather the facts of the hosts without them"] if _NO_FACTS in whole else []
    steps += ["repair what is named for the others" if steps else "repair what is named for each"] if whole - {_NO_FACTS} else []
    rest = "or take the hosts out of the group"
    return f"{' and '.join(steps)}, {rest}; or decide without them with {option('missing')}: allow"


def _nothing_for_all(candidates: Sequence[_Candidate], hosts: int, named: str | None) -> str:
    if not candidates:
        return "the catalog has no CUDA variant"
    nearest = min(candidates, key=lambda candidate: len(candidate.refused))
    reason, refusing = max(_grouped(nearest.refused.items()).items(), key=lambda item: len(item[1]))
    name = nearest.variant.name
    head = f"{name} was asked for by name and" if named else f"no variant runs on all {hosts} GPU hosts; the nearest, {name},"
    return f"{head} does not run on {_text.count_hosts(len(nearest.refused))}, on {_text.some_hosts(refusing)} because of this: {reason}"


def _held_back(candidate: _Candidate, hosts: int) -> list[dict[str, Any]]:
    """Return who refuses a variant, a group for each reason; nothing of a variant that no host could run anyway."""
    if len(candidate.refused) == hosts:
        return []
    groups = _grouped(candidate.refused.items())
    return [{"hosts": names, "variant": candidate.variant.name, "reason": reason} for reason, names in groups.items()]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return by the second of each pair the first ones, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for name, what in pairs:
        groups.setdefault(what, []).append(name)
    return groups


# --- drift ------------------------------------------------------------------------------------------------------------


def _drift(hosts: Mapping[str, Host]) -> list[dict[str, Any]]:
    """Return what is not the same on all GPU hosts."""
    found = []
    for what in ("driver", "flavour", "toolkit", "engine", "gpus"):
        values = _grouped((name, _value(host, what)) for name, host in hosts.items())
        if len(values) > 1:
            found.append({"what": what, "values": dict(sorted(values.items(), key=lambda item: natural(item[0])))})
    return found


def _value(host: Host, what: str) -> str:
    if what == "gpus":
        names = [card.name for card in host.present]
        return ", ".join(f"{names.count(name)} x {name}" for name in sorted(set(names)))
    paths = {
        "driver": ("driver", "loaded", "version"),
        "flavour": ("driver", "loaded", "flavour"),
        "toolkit": ("toolkit", "version"),
        "engine": ("engine", "version"),
    }
    name = _document.text(host.facts, "engine", "name") if what == "engine" else None
    value = _document.text(host.facts, *paths[what]) or "unknown"
    return f"{name} {value}" if name else value
