# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver of a host: what is wrong with it, what it is to be by the operator's policy, and which one is there when the image starts."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _cuda,
    _document,
    _driver_choice,
    _driver_state,
    _plan_codes,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._gpus import Product
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver

KEEP, INSTALL, UPGRADE = "keep", "install", "upgrade"
POLICIES = (KEEP, INSTALL, UPGRADE)
AUTO = "auto"
NONE, CONFIGURE = "none", "configure"

# Kernel drivers that hold an NVIDIA GPU and leave it at a reboot only.
_RIVALS = ("nouveau", "nova_core")


@dataclass(frozen=True)
class Wish:
    """What the operator wants of drivers: a version, or the newest of a branch, or (branch None) the branch that fits the GPUs best."""

    policy: str = INSTALL
    branch: int | None = None
    version: str | None = None


@dataclass(frozen=True)
class Decision:
    """What becomes of the driver.

    `expected` is the driver that is loaded when the image starts; where only its branch is known, the oldest version of the branch, and
    `assumed` is True. `flavour` is that of the kernel modules that are to be there after a change.
    """

    action: str
    before: str | None
    to: str | None
    reason: str
    expected: Driver | None
    assumed: bool = False
    flavour: str | None = None
    reboot: str | None = None
    block: Block | None = None
    wanted: str | None = None

    @property
    def changes(self) -> bool:
        """Whether another driver is to be loaded than is now."""
        return self.action != NONE


@dataclass(frozen=True)
class _Target:
    branch: int
    version: str | None
    flavour: str | None
    reason: str

    @property
    def name(self) -> str:
        return self.version or str(self.branch)

    def is_met_by(self, version: str | None, exact: bool) -> bool:
        """Whether a driver is the target; without `exact` one of a newer branch is too, since nothing goes back by itself."""
        if version is None or not _versions.is_dotted(version):
            return False
        if self.version is not None:
            return _versions.parse(version) == _versions.parse(self.version)
        return _cuda.branch(version) == self.branch or (not exact and _cuda.branch(version) > self.branch)


def decide(host: Host, cards: Sequence[Card], wish: Wish, applied: bool, today: datetime.date) -> Decision:
    """Return what becomes of the driver of a host with GPUs that are ours.

    Args:
        host: what was observed.
        cards: the GPUs that are to be used.
        wish: the operator's policy.
        applied: whether the caller changes drivers; without it the driver stays, and one that does not work blocks.
        today: the day, on which the support of branches depends.
    """
    trouble = _driver_state.trouble(host, cards)
    stays = Decision(NONE, host.loaded, host.loaded, "a driver that is there stays; the image is chosen for it", host.driver, block=trouble)
    if wish.policy == KEEP or (trouble is not None and trouble.code == _plan_codes.DRIVER_SILENT):
        return stays
    if wish.policy == INSTALL and (host.installed or host.loaded) is not None:
        planned = _woken(host, cards, stays, trouble)
    else:
        planned = _brought_to_target(host, cards, wish, stays, trouble, today)
    if applied:
        return planned
    if trouble is not None or not (planned.changes or planned.block):
        return stays
    wanted = planned.block.message if planned.block else f"{planned.to} is wanted ({planned.reason}) and {host.loaded} is loaded"
    return replace(stays, wanted=wanted)


def _woken(host: Host, cards: Sequence[Card], stays: Decision, trouble: Block | None) -> Decision:
    """A driver that is installed and not loaded, or whose library is already of the installed version: a reboot loads it."""
    if trouble is None or not _driver_state.installed_drives(host, cards):
        return stays
    return _to_be_loaded(host, str(host.installed), trouble.message)


def after_a_reboot(host: Host, cards: Sequence[Card]) -> Driver | None:
    """Return the installed driver that a reboot would load in place of the loaded one; None where there is none or it cannot be loaded."""
    version = host.installed
    if (
        version is None
        or version == host.loaded
        or not _driver_state.installed_drives(host, cards)
        or _driver_state.no_module(host) is not None
    ):
        return None
    return Driver(version)


def _to_be_loaded(host: Host, version: str, why: str) -> Decision:
    flavour = _driver_state.installed_flavour(host)
    missing = _driver_state.no_module(host)
    if missing is not None:
        reason = f"{version} is installed, and kernel {missing.kernel} {missing.found}: a module of {version} for it is to be installed"
        here = missing.kernel == _document.text(host.facts, "host", "kernel", "running")
        reboot = _takes_over(host, version) if here else f"driver {version} is loaded by kernel {missing.kernel}"
        return Decision(INSTALL, host.loaded, version, reason, Driver(version), flavour=flavour, reboot=reboot)
    reason = f"{version} is installed and is to be loaded: {why}"
    reboot = f"driver {version} is installed and not loaded"
    return Decision(CONFIGURE, host.loaded, version, reason, Driver(version), flavour=flavour, reboot=reboot)


def _brought_to_target(
    host: Host, cards: Sequence[Card], wish: Wish, stays: Decision, trouble: Block | None, today: datetime.date
) -> Decision:
    target = _target(host, cards, wish, today)
    if isinstance(target, Block):
        # Where the driver does not work either, the one that cannot take its place is what the operator can mend.
        # A host that works could be served without the policy.
        message = f"{trouble.message}; {target.message}" if trouble else target.message
        found = replace(target, message=message, by_wish=target.by_wish or trouble is None)
        return replace(stays, block=found)
    exact = wish.branch is not None or wish.version is not None
    here = host.installed or host.loaded
    if _serves(host, cards, target, here, exact):
        if trouble is None and (host.loaded == here or _serves(host, cards, target, host.loaded, exact)):
            return replace(stays, reason=f"{host.loaded} is what is wanted ({target.reason})")
        if _versions.is_dotted(host.installed):
            return _to_be_loaded(host, str(host.installed), trouble.message if trouble else f"{host.loaded} is loaded")
    version = target.version or oldest_of(target.branch)
    flavour = f", with the {target.flavour} kernel modules" if target.flavour else ""
    wrong = _misfit_of(host, cards, here)
    return Decision(
        INSTALL if here is None else UPGRADE,
        here,
        target.name,
        f"{target.reason}{flavour}{f'; {wrong}' if wrong else ''}",
        Driver(version),
        assumed=target.version is None,
        flavour=target.flavour,
        reboot=_takes_over(host, target.name),
    )


def _serves(host: Host, cards: Sequence[Card], target: _Target, version: str | None, exact: bool) -> bool:
    """Whether a driver that is there is the target, and of the kind that drives the GPUs."""
    return target.is_met_by(version, exact) and _misfit_of(host, cards, version) is None


def _misfit_of(host: Host, cards: Sequence[Card], version: str | None) -> str | None:
    """Return why the installed or loaded driver of this version does not drive the GPUs, None when it does."""
    if version is None or not _versions.is_dotted(version):
        return None
    state = _driver_state
    return state.misfit(host, cards, version, state.installed_flavour(host) if version == host.installed else state.loaded_flavour(host))


def _target(host: Host, cards: Sequence[Card], wish: Wish, today: datetime.date) -> _Target | Block:
    products = [card.product for card in cards if card.product is not None]
    unknown = [card for card in cards if card.product is None]
    asked = _cuda.branch(wish.version) if wish.version else wish.branch
    if asked is None:
        if unknown:
            message = f"nobody here knows which driver {unknown[0].label} needs; name one in {option('driver_branch')}"
            return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, message)
        return _chosen(host, products, today)
    refusal = _driver_choice.why_not(products, asked) if products else None
    if refusal is not None:
        name = option("driver_version") if wish.version else option("driver_branch")
        return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, f"{name} is {wish.version or asked}, and {refusal}", by_wish=True)
    reason = f"asked for by {option('driver_version')}" if wish.version else f"asked for by {option('driver_branch')}"
    return _Target(asked, wish.version, _flavour(host, products, asked), reason)


def _chosen(host: Host, products: Sequence[Product], today: datetime.date) -> _Target | Block:
    choice = _driver_choice.choose(products, today)
    if choice.branch is None:
        return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, choice.reason)
    return _Target(choice.branch, None, _flavour(host, products, choice.branch), choice.reason)


def _flavour(host: Host, products: Sequence[Product], branch: int) -> str | None:
    """Return the flavour that is there now, where it drives the GPUs on this branch too, else the one that NVIDIA prefers."""
    possible = _driver_choice.flavours(products, branch) if products else ()
    now = _driver_state.loaded_flavour(host) or _driver_state.installed_flavour(host)
    return now if now in possible else next(iter(possible), None)


def oldest_of(branch: int) -> str:
    """Return the oldest version of a branch that counts for a CUDA release: what every driver of the branch is at least."""
    first = _cuda.TOOLKIT_DRIVER.get(_cuda.BRANCH_CUDA.get(branch, ""), "")
    return first if _versions.is_dotted(first) and _cuda.branch(first) == branch else f"{branch}.0"


def _takes_over(host: Host, name: str) -> str | None:
    """Return why this driver needs a reboot, None when it can be loaded as it is."""
    if host.loaded is not None:
        return f"driver {name} takes the place of the loaded {host.loaded}"
    rivals = [name for name in _RIVALS if _document.flag(host.facts, "host", f"{name}_loaded")]
    bound = {text for text in (card.unbound or "" for card in host.present) for name in _RIVALS if name in text}
    if rivals or bound:
        return f"driver {name} takes the GPU over from {' and '.join(rivals) or 'another kernel driver'}"
    return None
