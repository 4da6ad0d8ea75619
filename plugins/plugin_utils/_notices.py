# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worth knowing about the GPU stack of a host and stops nothing. A host about which there is nothing to say gets no warning."""

from __future__ import annotations

import datetime
from collections.abc import Collection

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _devices,
    _document,
    _driver,
    _driver_notices,
    _plan_codes,
    _platform,
    _toolkit,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host

Warnings = list[dict[str, str]]


def of_host(host: Host, driver: _driver.Decision | None, settings: Settings, today: datetime.date) -> Warnings:
    """Return the warnings about GPUs and driver. `driver` is None where no GPU is to be used."""
    found = [warning(_plan_codes.LEFT_ALONE, f"{card.label} is bound to vfio-pci and left alone") for card in host.left_alone]
    found += _driver_notices.of_driver(host, driver, settings, today)
    return found + [note for card in host.present for note in _mig_pending(card)]


def of_toolkit(host: Host, planned: str) -> Warnings:
    """Return the warnings about the container toolkit, save what its `planned` action will mend."""
    found: Warnings = []
    version = _document.text(host.facts, "toolkit", "version")
    renewed = planned in (_platform.INSTALL, _platform.UPGRADE, "remove")
    if _toolkit.is_unsafe(version) and not renewed:
        found.append(warning(_plan_codes.TOOLKIT_UNSAFE, _platform.unsafe(version)))
    if _document.flag(host.facts, "toolkit", "lockstep") is False and not renewed:
        found.append(warning(_plan_codes.TOOLKIT_MIXED, "the packages of the NVIDIA Container Toolkit have different versions"))
    if planned == "none":
        found += [warning(_plan_codes.CDI_SPEC_STALE, text) for text in _platform.stale(host)]
    return found


def of_choice(host: Host, choice: _devices.Choice, asked: Collection[str]) -> Warnings:
    """Return the warnings about MIG devices, of which CUDA uses one."""
    parts = [use for use in choice.uses if use.mig is not None]
    if len(parts) > 1 or (parts and len(choice.uses) > len(parts)):
        names = ", ".join(use.label for use in choice.uses)
        return [warning(_plan_codes.MIG_ONE_DEVICE, f"CUDA sees the first MIG device only of {names}")]
    if asked:
        return []
    sizes = [mig.memory for card in host.present for mig in card.mig if card.in_mig_mode]
    which = "the largest of this host" if None not in sizes else "and nobody can tell whether it is the largest of this host"
    found = [
        warning(_plan_codes.MIG_ONE_DEVICE, f"only {use.label} is used, {which}")
        for use in parts
        if len(use.card.mig) > 1 or len(host.present) > 1
    ]
    for card in host.present:
        if card in choice.cards or not card.in_mig_mode or (parts and card.defect is None):
            continue
        why = card.defect or "is in MIG mode"
        message = f"{card.label} {why} and not used, since CUDA sees no full GPU beside a MIG device and one MIG device only"
        found.append(warning(_plan_codes.MIG_ONE_DEVICE, message))
    return found


def _mig_pending(card: Card) -> Warnings:
    if card.mig_pending is None or card.mig_pending == card.in_mig_mode:
        return []
    message = f"MIG mode of {card.label} is {_word(card.in_mig_mode)} and becomes {_word(card.mig_pending)}"
    return [warning(_plan_codes.MIG_CHANGE_PENDING, message)]


def _word(on: bool) -> str:
    return "on" if on else "off"
