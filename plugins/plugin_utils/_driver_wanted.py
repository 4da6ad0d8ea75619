# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted of the driver of a host, whatever it takes: _driver tells what that is, and what is in its way."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _document,
    _driver_activation,
    _driver_module,
    _driver_state,
    _driver_target,
    _plan_codes,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_guard import Container, Guard
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import (
    ABSENT,
    AUTO,
    INSTALL,
    KEEP,
    UPGRADE,
    Settings,
    option_of,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_target import Target, oldest_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver

NONE, CONFIGURE, REMOVE = "none", "configure", "remove"


@dataclass(frozen=True)
class Decision:
    """What becomes of the driver. With `blocks`, nothing does, and the rest tells what would.

    `action` is NONE, INSTALL, UPGRADE, REMOVE, or CONFIGURE: files, pins, services, loading, or what an interrupted run left.
    `before` is the installed driver, else the loaded one; `to` the version or branch that comes, None where none is to be there.
    `expected` is the driver that is loaded when the image starts; where only its branch is known, the oldest version of the branch, and
    `assumed` is True. `flavour` is that of the kernel modules that are to be there after a change.
    `target` is what is wanted, None where nothing is. `activation` and `fallback` are of _driver_activation, `reboot` is why the host is
    rebooted, or has to be. `guard` is who uses the GPUs, None where nothing that runs is touched. `restart` are the containers that an
    interrupted run stopped, `finishes` is that there was one. `repair` tells that packages are half installed. `upkeep` is what of pins,
    files and services differs, as short sentences. `wanted` is what should be, where the caller changes no drivers.
    """

    action: str
    before: str | None
    to: str | None
    reason: str
    expected: Driver | None
    assumed: bool = False
    flavour: str | None = None
    reboot: str | None = None
    blocks: tuple[Block, ...] = ()
    wanted: str | None = None
    target: Target | None = None
    activation: str = _driver_activation.NONE
    fallback: str | None = None
    guard: Guard | None = None
    restart: tuple[Container, ...] = ()
    finishes: bool = False
    repair: bool = False
    upkeep: tuple[str, ...] = ()

    @property
    def block(self) -> Block | None:
        """The first of the blocks, None where there is none."""
        return next(iter(self.blocks), None)

    @property
    def source(self) -> str | None:
        """Where packages come from: "distribution" or "nvidia"; None where none are to come or nobody can tell."""
        return self.target.source if self.target is not None else None

    @property
    def changes(self) -> bool:
        """Whether another driver is to be in the kernel than is now."""
        return not self.blocks and self.action != NONE and self.activation != _driver_activation.NONE

    @property
    def brings_packages(self) -> bool:
        """Whether packages of the driver come, go or are finished."""
        return self.action in (INSTALL, UPGRADE, REMOVE) or self.repair


def present(host: Host, cards: Sequence[Card], settings: Settings, today: datetime.date) -> Decision:
    """Return what is wanted of the driver of a host with GPUs that are ours, without what it takes.

    Args:
        host: what was observed.
        cards: the GPUs that are to be used.
        settings: what the operator wants; of `state` present or unmanaged.
        today: the day, on which the support of branches depends.
    """
    trouble = _driver_state.trouble(host, cards)
    stays = unchanged(host, trouble)
    if settings.way == KEEP or (trouble is not None and trouble.code == _plan_codes.DRIVER_SILENT):
        return stays
    if settings.way == INSTALL and (host.installed or host.loaded) is not None:
        return _woken(host, cards, settings, stays, trouble)
    return _brought_to_target(host, cards, settings, stays, trouble, today)


def absent(host: Host) -> Decision:
    """Return what is wanted of a driver that is to be absent, without what it takes."""
    here = host.installed or host.loaded
    managed = list(_document.mapping(host.facts, "driver", "managed"))
    state = f"{option_of('state')} is {ABSENT}"
    if here is None and not managed and not broken(host):
        return Decision(NONE, None, None, f"no driver is installed, and {state}", None)
    what = "" if here is not None else ": what is left of it is taken away"
    return Decision(REMOVE, here, None, f"{state}{what}", None, repair=bool(broken(host)))


def broken(host: Host) -> list[str]:
    """Return the packages of the driver that are half installed, each with its state."""
    packages = _document.mappings(host.facts, "driver", "broken")
    return [f"{_document.text(entry, 'name') or 'a package'} ({_document.text(entry, 'state') or 'broken'})" for entry in packages]


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


def unchanged(host: Host, trouble: Block | None) -> Decision:
    """Return that the driver stays, with what is wrong with it."""
    reason = "a driver that is there stays; the image is chosen for it"
    return Decision(NONE, host.loaded, host.loaded, reason, host.driver, blocks=(trouble,) if trouble is not None else ())


def _woken(host: Host, cards: Sequence[Card], settings: Settings, stays: Decision, trouble: Block | None) -> Decision:
    """A driver that is installed and not loaded, or whose library is already of the installed version, is to be loaded.

    So is one whose packages are half installed, which are finished.
    """
    drives = _driver_state.installed_drives(host, cards)
    if (trouble is not None or broken(host)) and drives:
        return _to_be_loaded(host, settings, stays, trouble, trouble.message if trouble else "its packages are half installed")
    return stays


def _to_be_loaded(host: Host, settings: Settings, stays: Decision, trouble: Block | None, why: str) -> Decision:
    version = str(host.installed)
    target = _driver_target.of_installed(host, settings, why)
    flavour = target.flavour
    missing = _driver_state.no_module(host)
    if missing is not None:
        waits = _driver_module.without_headers(host, settings, target)
        if waits is not None and host.loaded is None:
            # To bring its packages again would change nothing: the module comes when the operator has brought the headers.
            reason = f"{version} is installed and not loaded: {waits}"
            return replace(stays, before=version, to=version, reason=reason, blocks=(), target=target)
        reason = f"{version} is installed, and kernel {missing.kernel} {missing.found}: a module of {version} for it is to be installed"
        return Decision(INSTALL, host.loaded, version, reason, Driver(version), flavour=flavour, target=target)
    if _driver_activation.is_loaded(host, version, flavour):
        if trouble is not None:
            # Neither a reload nor a reboot brings another driver than the one that is loaded.
            return replace(stays, blocks=(replace(trouble, remedy=_stray_library(version)),))
        return replace(stays, reason=f"{version} is installed and loaded", target=target)
    reason = f"{version} is installed and is to be loaded: {why}"
    return Decision(CONFIGURE, host.loaded, version, reason, Driver(version), flavour=flavour, target=target)


def _stray_library(version: str) -> str:
    return (
        f"the loaded driver and the packages are {version}, so a library that no package brought is found first: look for libnvidia-ml "
        "with ldconfig -p, take away what does not belong to a package, then run again"
    )


def _brought_to_target(
    host: Host, cards: Sequence[Card], settings: Settings, stays: Decision, trouble: Block | None, today: datetime.date
) -> Decision:
    target = _driver_target.of(host, cards, settings, today)
    if isinstance(target, Block):
        # Where the driver does not work either, the one that cannot take its place is what the operator can mend.
        # A host that works could be served without the policy.
        message = f"{trouble.message}; {target.message}" if trouble else target.message
        found = replace(target, message=message, by_wish=target.by_wish or trouble is None)
        return replace(stays, blocks=(found,))
    here = host.installed or host.loaded
    if _serves(host, cards, target, here, settings):
        if trouble is None and (host.loaded == here or _serves(host, cards, target, host.loaded, settings)):
            return replace(stays, reason=f"{host.loaded} is what is wanted ({target.reason})", target=target)
        if _versions.is_dotted(host.installed):
            why = trouble.message if trouble else f"{host.loaded} is loaded"
            return _to_be_loaded(host, settings, stays, trouble, why)
    flavour = f", with the {target.flavour} kernel modules" if target.flavour else ""
    wrong = _misfit_of(host, cards, here)
    return Decision(
        INSTALL if here is None else UPGRADE,
        here,
        target.name,
        f"{target.reason}{flavour}{f'; {wrong}' if wrong else ''}",
        Driver(target.version or oldest_of(target.branch)),
        assumed=target.version is None,
        flavour=target.flavour,
        target=target,
    )


def meets(host: Host, settings: Settings, version: str | None) -> bool:
    """Whether a driver is the one that was named, by branch or version and by its flavour, as far as anybody can tell."""
    if settings.asked is None:
        return False
    return Target(settings.asked, settings.version, None, "").is_met_by(version, exact=True) and _has_flavour(host, settings, version)


def _serves(host: Host, cards: Sequence[Card], target: Target, version: str | None, settings: Settings) -> bool:
    """Whether a driver that is there is the target, and of the kind that drives the GPUs and was asked for."""
    met = target.is_met_by(version, settings.named) and _has_flavour(host, settings, version)
    return met and _misfit_of(host, cards, version) is None


def _has_flavour(host: Host, settings: Settings, version: str | None) -> bool:
    return settings.flavour == AUTO or _flavour_of(host, version) in (None, settings.flavour)


def _flavour_of(host: Host, version: str | None) -> str | None:
    state = _driver_state
    return state.installed_flavour(host) if version == host.installed else state.loaded_flavour(host)


def _misfit_of(host: Host, cards: Sequence[Card], version: str | None) -> str | None:
    """Return why the installed or loaded driver of this version does not drive the GPUs, None when it does."""
    if version is None or not _versions.is_dotted(version):
        return None
    return _driver_state.misfit(host, cards, version, _flavour_of(host, version))
