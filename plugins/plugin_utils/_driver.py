# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver of a host: what becomes of it, what that takes, what is in its way, and which driver is there when the image starts."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _document,
    _driver_activation,
    _driver_files,
    _driver_guard,
    _driver_module,
    _driver_rules,
    _driver_source,
    _driver_state,
    _driver_wanted,
    _plan_codes,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_activation import Activation
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import ABSENT, INSTALL, KEEP, UPGRADE, Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_target import oldest_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_wanted import CONFIGURE, NONE, REMOVE, Decision, after_a_reboot
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host

# What the callers need to know of decisions.
__all__ = ["CONFIGURE", "INSTALL", "NONE", "REMOVE", "UPGRADE", "Decision", "after_a_reboot", "decide", "idle", "oldest_of"]


def decide(host: Host, cards: Sequence[Card], settings: Settings, applied: bool, today: datetime.date) -> Decision:
    """Return what becomes of the driver of a host.

    Args:
        host: what was observed. Unless the driver is to be absent, it has GPUs that are ours.
        cards: the GPUs that are to be used.
        settings: what the operator wants.
        applied: whether the caller changes drivers; without it the driver stays, and one that does not work blocks.
        today: the day, on which the support of branches depends.
    """
    gone = settings.state == ABSENT
    found = _driver_wanted.absent(host) if gone else _driver_wanted.present(host, cards, settings, today)
    if not applied:
        return _left(host, cards, found, gone)
    if settings.way == KEEP and not gone:
        return replace(found, restart=_driver_guard.restarts(host))
    return _carried_out(host, cards, settings, found)


def idle(host: Host) -> Decision:
    """Return the decision for a host on which no GPU needs a driver."""
    return replace(_driver_wanted.unchanged(host, None), reason="no GPU needs a driver here")


def _left(host: Host, cards: Sequence[Card], found: Decision, gone: bool) -> Decision:
    """Return that the driver stays, since this caller changes none, and what it should be."""
    trouble = _driver_state.trouble(host, cards) if host.present else None
    stays = _driver_wanted.unchanged(host, trouble)
    if trouble is not None or (found.action == NONE and not found.blocks):
        return stays
    if gone:
        there = host.installed or host.loaded or "what is left of one"
        return replace(stays, wanted=f"no driver is wanted ({found.reason}), and {there} is there")
    message = found.block.message if found.block else f"{found.to} is wanted ({found.reason}) and {host.loaded} is loaded"
    return replace(stays, wanted=message, target=found.target)


def _carried_out(host: Host, cards: Sequence[Card], settings: Settings, found: Decision) -> Decision:
    """Return a decision with all that it takes, or with everything that is in its way."""
    journal = _document.mapping(host.facts, "driver", "journal")
    found = replace(found, restart=_driver_guard.restarts(host), finishes=bool(journal))
    if found.blocks:
        return found
    refusal = _driver_source.refusal(host)
    halves = _driver_wanted.broken(host) if refusal is None else []
    found = replace(found, repair=bool(halves))
    if refusal is not None and (found.brings_packages or (found.action != NONE and refusal.code == _plan_codes.VGPU_HOST)):
        return _blocked(host, found, [refusal])
    if refusal is None:
        found = _kept_up(host, cards, settings, found)
    activation = _activation(host, settings, found)
    found = _finished(host, found, halves)
    touches = activation.block is not None or activation.how in (_driver_activation.RELOAD, _driver_activation.REBOOT)
    guard = _driver_guard.of(host, settings) if touches else None
    found = replace(found, activation=activation.how, fallback=activation.fallback, reboot=activation.reboot, guard=guard)
    if guard is not None and _driver_guard.unasked(host):
        found = replace(found, reason=f"{found.reason}; which processes are on the GPUs could not be asked")
    blocks = [
        _driver_source.unavailable(host, found.source) if _brings_module(found) else None,
        _not_from_packages(host, found),
        _rules(host, settings, found),
        _driver_module.refused(host, settings, found.target, _brings_module(found)) if _comes(found) else None,
        activation.block,
        guard.block if guard is not None else None,
    ]
    return _blocked(host, found, [block for block in blocks if block is not None])


def _blocked(host: Host, found: Decision, blocks: Sequence[Block]) -> Decision:
    """Return a decision with what is in its way. Nothing is begun then, so the driver that is loaded stays."""
    return replace(found, blocks=tuple(blocks), expected=host.driver, assumed=False) if blocks else found


def _kept_up(host: Host, cards: Sequence[Card], settings: Settings, found: Decision) -> Decision:
    """Add what of pins, files and services differs, where the driver is ours and its packages stay."""
    if found.action not in (NONE, CONFIGURE) or host.installed is None or not _driver_files.ours(host, settings):
        return found
    if not _driver_state.installed_drives(host, cards):
        # It was installed under one that works and stays: kept, it would be loaded by the next reboot, and leave GPUs alone.
        return found
    managed = _document.mapping(host.facts, "driver", "managed")
    if not managed and not _driver_wanted.meets(host, settings, host.installed):
        # By policy a driver stays that is not the one that was named: it is somebody else's.
        return found
    return replace(found, upkeep=_driver_files.differences(host, settings))


def _finished(host: Host, found: Decision, halves: Sequence[str]) -> Decision:
    """Make an action of what is to be done beside the driver itself."""
    reasons = [f"packages are half installed and are finished: {', '.join(halves)}"] if halves else []
    reasons += found.upkeep
    reasons += [f"a run that was interrupted is finished{_started_again(found)}"] if found.finishes else []
    if not reasons:
        return found
    if found.action != NONE:
        return replace(found, reason="; ".join([found.reason, *reasons]))
    here = host.installed or host.loaded
    return replace(found, action=CONFIGURE, before=here, to=here, reason="; ".join(reasons))


def _started_again(found: Decision) -> str:
    names = ", ".join(container.name for container in found.restart)
    return f", and {names} started again" if names else ""


def _activation(host: Host, settings: Settings, found: Decision) -> Activation:
    """Return how the kernel gets what was decided: before anything is done beside it, CONFIGURE says that a driver is to be loaded."""
    if found.action == REMOVE:
        return _driver_activation.out_of_kernel(host, settings)
    if found.action == NONE or found.target is None:
        return Activation(_driver_activation.NONE)
    brought = found.action in (INSTALL, UPGRADE) or found.repair
    return _driver_activation.into_kernel(host, settings, found.target.version, str(found.to), found.flavour, brought)


def _brings_module(found: Decision) -> bool:
    return found.action in (INSTALL, UPGRADE)


def _comes(found: Decision) -> bool:
    """Whether a kernel is to load a module that it has not loaded yet."""
    return _brings_module(found) or (found.action == CONFIGURE and found.activation != _driver_activation.NONE)


def _rules(host: Host, settings: Settings, found: Decision) -> Block | None:
    """Return the rules of others that are in the way of packages that come or go. They may keep what is there already."""
    if found.action == REMOVE:
        return _driver_rules.block(host, settings, None, None)
    if not _brings_module(found) or found.target is None or found.to == host.installed:
        return None
    return _driver_rules.block(host, settings, found.target.branch, found.target.version)


def _not_from_packages(host: Host, found: Decision) -> Block | None:
    """Return that the loaded driver came without packages: its files stay, and those of two drivers break each other."""
    if found.action not in (INSTALL, UPGRADE, REMOVE) or host.installed is not None or host.loaded is None:
        return None
    running = _document.text(host.facts, "host", "kernel", "running") or ""
    modules = _document.mapping(host.facts, "driver", "modules")
    taken_away = running in modules and modules[running] is None
    if found.finishes or found.repair or (found.action == REMOVE and taken_away):
        return None
    what = "be taken away by the package manager" if found.action == REMOVE else f"be replaced by packages of {found.to}"
    message = f"the loaded driver {host.loaded} was not installed from packages, and cannot {what}"
    return Block("driver", _plan_codes.DRIVER_NOT_FROM_PACKAGES, message)
