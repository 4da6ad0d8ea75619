# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver a host is to have by the operator's settings: branch, version, flavour of the kernel modules, and where it comes from."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _cuda,
    _driver_choice,
    _driver_source,
    _driver_state,
    _plan_codes,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import AUTO, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._gpus import EITHER, Product
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host

_SOURCES = {"distribution": "the distribution", "nvidia": "NVIDIA's repository"}


@dataclass(frozen=True)
class Target:
    """A driver that is to be there. `version` is None for the newest of the branch, `source` where this host gets no packages of ours."""

    branch: int
    version: str | None
    flavour: str | None
    reason: str
    source: str | None = None

    @property
    def name(self) -> str:
        """The version, else the branch."""
        return self.version or str(self.branch)

    def is_met_by(self, version: str | None, exact: bool) -> bool:
        """Whether a driver is the target; without `exact` one of a newer branch is too, since nothing goes back by itself."""
        if version is None or not _versions.is_dotted(version):
            return False
        if self.version is not None:
            return _versions.parse(version) == _versions.parse(self.version)
        return _cuda.branch(version) == self.branch or (not exact and _cuda.branch(version) > self.branch)


def of(host: Host, cards: Sequence[Card], settings: Settings, today: datetime.date) -> Target | Block:
    """Return the driver that the settings lead to on this host, or why there is none."""
    products = [card.product for card in cards if card.product is not None]
    unknown = [card for card in cards if card.product is None]
    asked = settings.asked
    if asked is None:
        if unknown:
            message = f"nobody here knows which driver {unknown[0].label} needs; name one in {option_of('branch')}"
            return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, message)
        return _chosen(host, products, settings, today)
    name = option_of("version" if settings.version else "branch")
    refusal = _driver_choice.why_not(products, asked) if products else None
    if refusal is not None:
        return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, f"{name} is {settings.version or asked}, and {refusal}", by_wish=True)
    wrong = _wrong_flavour(products, asked, settings)
    if wrong is not None:
        return wrong
    flavour = _flavour(host, products, asked, settings)
    return Target(asked, settings.version, flavour, f"asked for by {name}", source_of(host, settings, asked, flavour))


def of_installed(host: Host, settings: Settings, reason: str) -> Target:
    """Return the installed driver as a target: one that stays, or that is to be loaded. `host` has one with a version."""
    version = str(host.installed)
    branch, flavour = _cuda.branch(version), _driver_state.installed_flavour(host)
    return Target(branch, version, flavour, reason, source_of(host, settings, branch, flavour))


def source_of(host: Host, settings: Settings, branch: int, flavour: str | None) -> str | None:
    """Return where a driver comes from, None on a host whose driver is not ours to change."""
    if _driver_source.refusal(host) is not None:
        return None
    return _driver_source.choose(host, settings, branch, flavour)


def oldest_of(branch: int) -> str:
    """Return the oldest version of a branch that counts for a CUDA release: what every driver of the branch is at least."""
    first = _cuda.TOOLKIT_DRIVER.get(_cuda.BRANCH_CUDA.get(branch, ""), "")
    return first if _versions.is_dotted(first) and _cuda.branch(first) == branch else f"{branch}.0"


def _chosen(host: Host, products: Sequence[Product], settings: Settings, today: datetime.date) -> Target | Block:
    forced = None if settings.flavour == AUTO else settings.flavour
    # Where the source is named, its branches are all there are; else the branch is chosen first, and the source that has it.
    source = settings.source if settings.source != AUTO else None
    choice = _driver_choice.choose(products, today, _had_from(host, source), settings.channel, forced)
    if choice.branch is not None and source is None:
        source = source_of(host, settings, choice.branch, choice.flavour)
        offered = _had_from(host, source)
        if offered is not None and choice.branch not in offered:
            choice = _driver_choice.choose(products, today, offered, settings.channel, forced)
    if choice.branch is None:
        wish = f"; {option_of('flavour')} is {forced}" if forced else ""
        where = f" from {_SOURCES[source]}" if source in _SOURCES and _had_from(host, source) is not None else ""
        return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, f"{choice.reason}{where}{wish}", by_wish=bool(forced))
    flavour = _flavour(host, products, choice.branch, settings)
    target = Target(choice.branch, None, flavour, choice.reason)
    return replace(target, source=source_of(host, settings, choice.branch, flavour))


def _had_from(host: Host, source: str | None) -> frozenset[int] | None:
    return _driver_source.offered(host, source) if source is not None and _driver_source.refusal(host) is None else None


def _wrong_flavour(products: Sequence[Product], branch: int, settings: Settings) -> Block | None:
    """Return that the flavour that was asked for cannot be had, or does not drive the GPUs."""
    if settings.flavour == AUTO or settings.flavour in _driver_choice.flavours(products, branch):
        return None
    needy = next((product for product in products if product.flavour not in (EITHER, settings.flavour)), None)
    why = f"{needy.name} needs the {needy.flavour} kernel modules" if needy else f"branch {branch} has no {settings.flavour} kernel modules"
    message = f"{option_of('flavour')} is {settings.flavour}, and {why}"
    remedy = f"set {option_of('flavour')} to auto, or to what the GPUs need"
    return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, message, remedy, by_wish=True)


def _flavour(host: Host, products: Sequence[Product], branch: int, settings: Settings) -> str | None:
    """Return the flavour asked for, else the one that is there now where it drives the GPUs too, else the one that NVIDIA prefers."""
    if settings.flavour != AUTO:
        return settings.flavour
    possible = _driver_choice.flavours(products, branch) if products else ()
    now = _driver_state.loaded_flavour(host) or _driver_state.installed_flavour(host)
    return now if now in possible else next(iter(possible), None)
