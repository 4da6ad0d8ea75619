# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a kernel module that is to be loaded would be: Secure Boot, and the headers that DKMS builds it with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import (
    DISTRIBUTION,
    DKMS,
    NVIDIA,
    PREBUILT,
    UNMANAGED,
    Settings,
    option_of,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_target import Target
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

# Where DKMS puts modules: updates/dkms on Debian and Ubuntu, extra on the family of RHEL.
_DKMS_PLACES = ("/updates/dkms/", "/extra/")


def refused(host: Host, settings: Settings, target: Target | None, built: bool) -> Block | None:
    """Return that Secure Boot would refuse the module of a driver; None where it would not, or where nobody can tell.

    Args:
        host: what was observed.
        settings: what is wanted.
        target: the driver.
        built: whether its module comes; without, it is there already.
    """
    if not _document.flag(host.facts, "host", "secure_boot") or target is None:
        return None
    if built:
        if prebuilt(host, settings, target.source) or dkms_is_trusted(host):
            return None
        signed = f"the module of driver {target.name} is signed by DKMS on this host"
        message = f"Secure Boot is on, {signed}, and nothing tells that the firmware trusts its key"
        return Block("driver", _plan_codes.SECURE_BOOT_REFUSES, message, _enrol(host, settings, target))
    kernel, module = _module(host)
    if not module:
        return None
    if _document.text(module, "signer") is None:
        message = f"Secure Boot is on, and the module of driver {target.name} for kernel {kernel} is not signed"
        return Block("driver", _plan_codes.SECURE_BOOT_REFUSES, message, _enrol(host, settings, target))
    if _by_dkms(module) and _document.flag(host.facts, "host", "dkms_key", "enrolled") is False:
        message = f"Secure Boot is on, and the module of driver {target.name} for kernel {kernel} is signed with a key that is not enrolled"
        return Block("driver", _plan_codes.SECURE_BOOT_REFUSES, message, _enrol(host, settings, target))
    return None


def prebuilt(host: Host, settings: Settings, source: str | None) -> bool:
    """Whether the modules of a source can be had as the distribution builds and signs them: those of Ubuntu are."""
    return source == DISTRIBUTION and settings.kernel_modules != DKMS and _document.text(host.facts, "host", "os", "id") == "ubuntu"


def dkms_is_trusted(host: Host) -> bool:
    """Whether the firmware trusts the key that DKMS signs with: it is enrolled, or a module signed with it is loaded under Secure Boot."""
    if _document.flag(host.facts, "host", "dkms_key", "enrolled"):
        return True
    running = _document.text(host.facts, "host", "kernel", "running") or ""
    module = _document.mapping(_document.mapping(host.facts, "driver", "modules"), running)
    same = host.driver is not None and _versions.parse(_document.text(module, "version")) == _versions.parse(host.driver.version)
    return same and _by_dkms(module) and _document.text(module, "signer") is not None


def without_headers(host: Host, settings: Settings, target: Target | None) -> str | None:
    """Return that DKMS builds no module for a kernel, where headers are the operator's to bring and facts tell that they are missing."""
    headers = _document.at(host.facts, "host", "kernel", "headers")
    if settings.kernel_headers != UNMANAGED or target is None or not _by_dkms_surely(host, settings, target):
        return None
    if not isinstance(headers, list):
        return None
    kernels = [_document.text(host.facts, "host", "kernel", which) for which in ("running", "next")]
    missing = [kernel for kernel in dict.fromkeys(kernels) if kernel is not None and kernel not in headers]
    if not missing:
        return None
    built = f"the module of driver {target.name} is built with DKMS"
    return f"{built}, the headers of kernel {' and '.join(missing)} are missing, and {option_of('kernel_headers')} is {UNMANAGED}"


def _by_dkms_surely(host: Host, settings: Settings, target: Target) -> bool:
    """Whether the module can come by DKMS only, whatever the repository has: NVIDIA builds none for Debian and Ubuntu, nor does Debian."""
    system = _document.text(host.facts, "host", "os", "id")
    if settings.kernel_modules == PREBUILT:
        return False
    return settings.kernel_modules == DKMS or system == "debian" or (system == "ubuntu" and target.source == NVIDIA)


def _enrol(host: Host, settings: Settings, target: Target) -> str:
    path = _document.text(host.facts, "host", "dkms_key", "path") or "/var/lib/dkms/mok.pub"
    steps = f"enrol its key: run mokutil --import {path}, reboot, confirm at the console, then run again"
    if settings.kernel_modules == DKMS and target.source == DISTRIBUTION and _document.text(host.facts, "host", "os", "id") == "ubuntu":
        return f"{steps}; or set {option_of('kernel_modules')} to {PREBUILT}, which Ubuntu signs"
    return steps


def _by_dkms(module: Mapping[str, Any]) -> bool:
    path = _document.text(module, "path") or ""
    return any(place in path for place in _DKMS_PLACES)


def _module(host: Host) -> tuple[str, Mapping[str, Any]]:
    """Return the kernel that is to load the driver, the one that boots next where that is known, and its module."""
    modules = _document.mapping(host.facts, "driver", "modules")
    for which in ("next", "running"):
        kernel = _document.text(host.facts, "host", "kernel", which)
        if kernel is not None:
            return kernel, _document.mapping(modules, kernel)
    return "", {}
