# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worth knowing about the GPU stack of a host and stops nothing. A host about which there is nothing to say gets no warning."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Collection

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _branches,
    _cuda,
    _devices,
    _document,
    _driver,
    _driver_choice,
    _plan_codes,
    _platform,
    _toolkit,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._gpus import Product
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host

Warnings = list[dict[str, str]]


def of_host(host: Host, driver: _driver.Decision | None, wish: _driver.Wish, today: datetime.date) -> Warnings:
    """Return the warnings about GPUs and driver. `driver` is None where no GPU is to be used."""
    found = [warning(_plan_codes.LEFT_ALONE, f"{card.label} is bound to vfio-pci and left alone") for card in host.left_alone]
    if not host.present:
        return found
    found += _branch(host, driver, today)
    found += _reboot(host, driver)
    found += _secure_boot(host, driver)
    found += _pins(host, wish) + _held(host, driver)
    found += _fabric_manager(host, driver)
    return found + [note for card in host.present for note in _mig_pending(card)]


def of_toolkit(host: Host, planned: str) -> Warnings:
    """Return the warnings about the container toolkit, save what its `planned` action will mend."""
    found: Warnings = []
    version = _document.text(host.facts, "toolkit", "version")
    renewed = planned in (_platform.INSTALL, _platform.UPGRADE)
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


def _branch(host: Host, driver: _driver.Decision | None, today: datetime.date) -> Warnings:
    found: Warnings = []
    if driver is not None and driver.wanted:
        found.append(warning(_plan_codes.DRIVER_NOT_APPLIED, driver.wanted))
    expected = driver.expected if driver is not None else host.driver
    if expected is not None:
        branch = _cuda.branch(expected.version)
        ended = _branches.ended(branch, today)
        if ended is not None:
            remedy = _newer(host, branch, today)
            found.append(warning(_plan_codes.BRANCH_ENDED, f"driver branch {branch} reached its end of life in {ended}", remedy))
    return found


def _newer(host: Host, branch: int, today: datetime.date) -> str | None:
    """Return what to do about a branch past its end of life that is more precise than the code's remedy."""
    installed = _cuda.branch(str(host.installed)) if _differs(host) else branch
    if installed > branch and _branches.ended(installed, today) is None:
        return f"reboot: {host.installed} is installed"
    products = tuple(card.product for card in host.present if card.product is not None)
    if len(products) == len(host.present) and _best(products, today) is None:
        names = ", ".join(dict.fromkeys(product.name for product in products))
        return f"no branch that is still supported drives {names}, so only another GPU ends this"
    return None


@functools.lru_cache(maxsize=1024)
def _best(products: tuple[Product, ...], today: datetime.date) -> int | None:
    return _driver_choice.choose(products, today).branch


def _reboot(host: Host, driver: _driver.Decision | None) -> Warnings:
    """Return what the next reboot brings, unless the plan asks for a reboot itself."""
    changes = driver is not None and driver.changes
    # Only a driver that is installed anew brings the module of that kernel with it.
    if driver is not None and changes and driver.action != _driver.CONFIGURE:
        return []
    found: Warnings = []
    if _differs(host) and not changes:
        found.append(warning(_plan_codes.REBOOT_CHANGES_DRIVER, f"driver {host.loaded} is loaded and {host.installed} is installed"))
    if _document.flag(host.facts, "driver", "next_kernel_has_module") is False:
        kernel = _document.text(host.facts, "host", "kernel", "next") or "that boots next"
        found.append(warning(_plan_codes.NEXT_KERNEL_WITHOUT_MODULE, f"kernel {kernel} has no NVIDIA module"))
    if not found and not changes and _document.flag(host.facts, "driver", "reboot_required"):
        reasons = "; ".join(_document.texts(host.facts, "driver", "reboot_reasons")) or "no reason given"
        found.append(warning(_plan_codes.REBOOT_PENDING, f"a reboot is pending ({reasons})"))
    return found


def _differs(host: Host) -> bool:
    """Whether the loaded driver is another than the packages carry."""
    return (
        host.driver is not None
        and _versions.is_dotted(host.installed)
        and _versions.parse(host.installed) != _versions.parse(host.driver.version)
    )


def _secure_boot(host: Host, driver: _driver.Decision | None) -> Warnings:
    """A driver that works under Secure Boot is signed well; what matters is the module that comes: by a change or with the next kernel."""
    if not _document.flag(host.facts, "host", "secure_boot"):
        return []
    if driver is not None and driver.changes:
        return [warning(_plan_codes.SECURE_BOOT, f"Secure Boot is on, and it may refuse the module of driver {driver.to}")]
    running, upcoming = (_document.text(host.facts, "host", "kernel", which) for which in ("running", "next"))
    module = _document.mapping(_document.at(host.facts, "driver", "modules"), upcoming or "")
    if upcoming in (None, running) or not module or _document.text(module, "signer") is not None:
        return []
    message = f"Secure Boot is on, and the NVIDIA module for kernel {upcoming}, which boots next, is not signed"
    return [warning(_plan_codes.SECURE_BOOT, message)]


def _pins(host: Host, wish: _driver.Wish) -> Warnings:
    """Nobody is told to hold packages without a reason: a version was asked for, or another one came under the running driver."""
    installed = _document.mapping(host.facts, "driver", "installed")
    if not installed.get("packages") or _document.flag(installed, "pinned") is not False:
        return []
    if _differs(host):
        message = f"driver {host.installed} was installed under the running {host.loaded}, and nothing holds it"
        return [warning(_plan_codes.DRIVER_NOT_PINNED, message)]
    if wish.version is not None and _versions.parse(wish.version) == _versions.parse(host.installed):
        return [warning(_plan_codes.DRIVER_NOT_PINNED, f"driver {wish.version} is asked for, and any upgrade of packages replaces it")]
    return []


# Rules that keep a driver as it is. What keeps unattended upgrades away stands in nobody's way.
_RULES = {
    "hold": "is held",
    "preference": "is pinned",
    "versionlock": "is locked",
    "exclude": "is excluded",
    "module_stream": "has its module stream fixed",
}


def _held(host: Host, driver: _driver.Decision | None) -> Warnings:
    """Return what has to be taken away before another driver can be installed: rules of the package manager, a driver without packages."""
    if driver is None or driver.action not in (_driver.INSTALL, _driver.UPGRADE):
        return []
    if host.installed is None and host.loaded is not None:
        message = f"the loaded driver {host.loaded} was not installed from packages, and packages of {driver.to} do not take its place"
        return [warning(_plan_codes.DRIVER_NOT_FROM_PACKAGES, message)]
    target = str(driver.to).partition(".")[0]
    rules = []
    for pin in _document.mappings(host.facts, "driver", "installed", "pins"):
        kind, value = _document.text(pin, "kind") or "", _document.text(pin, "value")
        if kind not in _RULES or (value is not None and _names_branch(value, target)):
            continue
        name, path = _document.text(pin, "name") or "a package", _document.text(pin, "path")
        rules.append(f"{name} {_RULES[kind]}{f' to {value}' if value else ''} ({path or 'in the package database'})")
    if not rules:
        return []
    return [warning(_plan_codes.DRIVER_HELD, f"driver {driver.to} is to be installed, and {', '.join(dict.fromkeys(rules))}")]


def _names_branch(value: str, branch: str) -> bool:
    """Whether a rule is about this branch already, as ``580.*`` or the stream ``580-open`` are."""
    return not value.startswith("!") and re.search(rf"(?<![0-9.]){re.escape(branch)}(?![0-9])", value) is not None


def _fabric_manager(host: Host, driver: _driver.Decision | None) -> Warnings:
    manager = _document.mapping(host.facts, "driver", "fabric_manager")
    if not _document.flag(manager, "needed"):
        return []
    if driver is not None and driver.changes:
        version = _document.text(manager, "version")
        if version is not None and version == driver.to:
            return []
        here = f"here it is {version}" if version else "here there is none"
        message = f"this host has NVSwitches, and driver {driver.to} needs the fabric manager of exactly its version ({here})"
        return [warning(_plan_codes.FABRIC_MANAGER, message)]
    if _document.flag(manager, "installed") is False:
        what = "is not installed"
    elif _document.flag(manager, "matches_driver") is False:
        what = f"is of version {_document.text(manager, 'version') or 'unknown'}, and the driver of {host.loaded or 'none'}"
    elif _document.flag(manager, "running") is False:
        what = "does not run"
    else:
        return []
    return [warning(_plan_codes.FABRIC_MANAGER, f"this host has NVSwitches and its fabric manager {what}, so CUDA may not start")]


def _mig_pending(card: Card) -> Warnings:
    if card.mig_pending is None or card.mig_pending == card.in_mig_mode:
        return []
    message = f"MIG mode of {card.label} is {_word(card.in_mig_mode)} and becomes {_word(card.mig_pending)}"
    return [warning(_plan_codes.MIG_CHANGE_PENDING, message)]


def _word(on: bool) -> str:
    return "on" if on else "off"
