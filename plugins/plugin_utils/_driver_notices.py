# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worth knowing about the driver of a host and stops nothing."""

from __future__ import annotations

import datetime
import functools

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _branches,
    _cuda,
    _document,
    _driver,
    _driver_activation,
    _driver_choice,
    _driver_module,
    _driver_rules,
    _driver_state,
    _plan_codes,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import AUTO, NONE, REPLACE, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._gpus import Product
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

Warnings = list[dict[str, str]]


def of_driver(host: Host, driver: _driver.Decision | None, settings: Settings, today: datetime.date) -> Warnings:
    """Return the warnings about the driver of a host. `driver` is None where no GPU is to be used."""
    found = _interrupted(host, driver)
    if not host.present or (driver is not None and driver.action == _driver.REMOVE):
        return found
    found += _branch(host, driver, today)
    found += _reboot(host, driver)
    found += _secure_boot(host, driver) + _headers(host, driver, settings)
    found += _pins(host, driver, settings) + _held(host, driver, settings)
    return found + _fabric_manager(host, driver, settings)


def _headers(host: Host, driver: _driver.Decision | None, settings: Settings) -> Warnings:
    """Return that no module is built for want of headers, which the operator wants to look after himself."""
    if driver is None or driver.blocks:
        return []
    waits = host.loaded is None and host.installed is not None and driver.activation == _driver_activation.NONE
    missing = _driver_module.without_headers(host, settings, driver.target) if driver.brings_packages or waits else None
    return [warning(_plan_codes.NO_HEADERS, missing)] if missing else []


def _interrupted(host: Host, driver: _driver.Decision | None) -> Warnings:
    """Return what an interrupted run of role nvidia_driver left, and who finishes it."""
    journal = _document.mapping(host.facts, "driver", "journal")
    if not journal:
        return []
    finishes = driver is not None and driver.finishes and not driver.blocks
    remedy = "this run finishes it" if finishes else None
    if driver is not None and not finishes and driver.restart and _driver_state.works(host):
        remedy = "this run starts again what it stopped"
    error = _document.text(journal, "error")
    if error is not None:
        message = f"a run that changed the driver was interrupted, and what it left cannot be read: {error}"
        return [warning(_plan_codes.RUN_WAS_INTERRUPTED, message, remedy)]
    to = _document.text(journal, "to")
    what = f"bring driver {to}" if to else "remove the driver"
    names = ", ".join(_document.text(entry, "name") or "?" for entry in _document.mappings(journal, "containers"))
    stopped = f", after it had stopped {names}" if names else ""
    message = f"the run of {_document.text(journal, 'started_at') or 'unknown time'} that was to {what} was interrupted{stopped}"
    return [warning(_plan_codes.RUN_WAS_INTERRUPTED, message, remedy)]


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
    found: Warnings = []
    if driver is not None and changes and driver.activation == _driver_activation.LATER:
        found.append(warning(_plan_codes.REBOOT_TO_LOAD, str(driver.reboot)))
    # Only a driver that is installed anew brings the module of that kernel with it.
    if driver is not None and changes and driver.action != _driver.CONFIGURE:
        return found
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
    """A driver that works under Secure Boot is signed well, and one that comes was looked at; what matters is that of the next kernel."""
    if not _document.flag(host.facts, "host", "secure_boot") or (driver is not None and driver.changes):
        return []
    running, upcoming = (_document.text(host.facts, "host", "kernel", which) for which in ("running", "next"))
    module = _document.mapping(_document.at(host.facts, "driver", "modules"), upcoming or "")
    if upcoming in (None, running) or not module or _document.text(module, "signer") is not None:
        return []
    message = f"Secure Boot is on, and the NVIDIA module for kernel {upcoming}, which boots next, is not signed"
    return [warning(_plan_codes.SECURE_BOOT, message)]


def _pins(host: Host, driver: _driver.Decision | None, settings: Settings) -> Warnings:
    """Nobody is told to hold packages without a reason: a version was asked for, or another one came under the running driver."""
    installed = _document.mapping(host.facts, "driver", "installed")
    if settings.pin == NONE or not installed.get("packages") or _document.flag(installed, "pinned") is not False:
        return []
    if driver is not None and not driver.blocks and (driver.brings_packages or driver.upkeep):
        return []
    if _differs(host):
        message = f"driver {host.installed} was installed under the running {host.loaded}, and nothing holds it"
        return [warning(_plan_codes.DRIVER_NOT_PINNED, message)]
    if settings.version is not None and _versions.parse(settings.version) == _versions.parse(host.installed):
        return [warning(_plan_codes.DRIVER_NOT_PINNED, f"driver {settings.version} is asked for, and any upgrade of packages replaces it")]
    return []


def _held(host: Host, driver: _driver.Decision | None, settings: Settings) -> Warnings:
    """Return what stands in the way of a driver that this caller does not bring, and what is taken away for one that it brings."""
    if driver is None or driver.target is None or driver.blocks:
        return []
    brought = driver.action in (_driver.INSTALL, _driver.UPGRADE) and driver.to != host.installed
    if not brought and not driver.wanted:
        return []
    name = driver.target.name
    if host.installed is None and host.loaded is not None:
        message = f"the loaded driver {host.loaded} was not installed from packages, and packages of {name} do not take its place"
        return [] if brought else [warning(_plan_codes.DRIVER_NOT_FROM_PACKAGES, message)]
    rules = _driver_rules.told(host, driver.target.branch, driver.target.version)
    if rules is None or (brought and settings.foreign_pins != REPLACE):
        return []
    remedy = f"these rules are taken away first, since {option_of('foreign_pins')} is {REPLACE}" if brought else None
    return [warning(_plan_codes.DRIVER_HELD, f"driver {name} is to be installed, and {rules}", remedy)]


def _fabric_manager(host: Host, driver: _driver.Decision | None, settings: Settings) -> Warnings:
    manager = _document.mapping(host.facts, "driver", "fabric_manager")
    if not _document.flag(manager, "needed"):
        return []
    if driver is not None and not driver.blocks and driver.brings_packages and settings.fabric_manager == AUTO:
        # It comes with the driver, or the driver does not come.
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
