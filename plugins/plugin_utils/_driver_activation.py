# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a driver gets into the running kernel, or out of it, and whether the operator consents to what that takes.

The libraries of a driver work with the module of exactly their version. So where the loaded driver cannot be exchanged with consent, no
package is changed: what runs now would fail at its next start.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _driver_state, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import IF_NEEDED, IF_POSSIBLE, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

NONE, LOAD, RELOAD, REBOOT, LATER = "none", "load", "reload", "reboot", "later"

# Kernel drivers that hold an NVIDIA GPU and leave it at a reboot only.
_RIVALS = ("nouveau", "nova_core")


class Activation(NamedTuple):
    """`how` is one of NONE, LOAD, RELOAD, REBOOT and LATER (the operator reboots); `fallback` is REBOOT or None.

    `reboot` is why the host is rebooted, or has to be by the operator. With a `block`, nothing is done.
    """

    how: str
    fallback: str | None = None
    reboot: str | None = None
    block: Block | None = None


def is_loaded(host: Host, version: str | None, flavour: str | None) -> bool:
    """Whether exactly this driver is loaded: its version, and its flavour as far as that is known."""
    if version is None or host.driver is None or _versions.parse(version) != _versions.parse(host.driver.version):
        return False
    now = _driver_state.loaded_flavour(host)
    return now is None or flavour is None or now == flavour


def into_kernel(host: Host, settings: Settings, version: str | None, name: str, flavour: str | None, brought: bool) -> Activation:
    """Return how a driver gets into the kernel.

    Args:
        host: what was observed.
        settings: what is wanted, the consents among it.
        version: the driver's version, None where only its branch is known.
        name: the version or branch, for sentences.
        flavour: that of its modules, None where it is not known.
        brought: whether packages bring the module, for the running kernel too; without, it is there or is not.
    """
    if is_loaded(host, version, flavour):
        return Activation(NONE)
    rivals = _rivals(host)
    hindrance = _hindrance(host, name, rivals, brought)
    if host.loaded is None and hindrance is None:
        return Activation(LOAD, _fallback(settings))
    why = f"driver {name} takes the place of the loaded {host.loaded}" if host.loaded is not None else str(hindrance)
    return _exchange(host, settings, why, hindrance)


def out_of_kernel(host: Host, settings: Settings) -> Activation:
    """Return how the loaded driver gets out of the kernel; a reload ends without a driver then."""
    if host.loaded is None:
        return Activation(NONE)
    return _exchange(host, settings, f"driver {host.loaded} is loaded and is to be removed", None)


def _exchange(host: Host, settings: Settings, why: str, hindrance: str | None) -> Activation:
    """Return what takes the place of the kernel's driver; `hindrance` is why a reload does not help, None where it may."""
    if host.loaded is not None and hindrance is None and settings.reload == IF_POSSIBLE:
        return Activation(RELOAD, _fallback(settings))
    if settings.reboot == IF_NEEDED:
        return Activation(REBOOT, None, why)
    if host.loaded is None:
        # Nothing that runs now depends on it, so the packages may come, and the operator reboots when the host can spare it.
        return Activation(LATER, None, why)
    return Activation(NONE, block=_no_consent(why, hindrance))


def _no_consent(why: str, hindrance: str | None) -> Block:
    reboot = f"{option_of('reboot')} to {IF_NEEDED}"
    if hindrance is not None:
        message = f"{why}, for which the host has to be rebooted ({hindrance}), and that is not allowed"
        return Block("driver", _plan_codes.NO_CONSENT, message, f"set {reboot}")
    message = f"{why}, for which its modules have to be reloaded or the host rebooted, and neither is allowed"
    return Block("driver", _plan_codes.NO_CONSENT, message, f"set {reboot}, or {option_of('reload')} to {IF_POSSIBLE}")


def _fallback(settings: Settings) -> str | None:
    return REBOOT if settings.reboot == IF_NEEDED else None


def _hindrance(host: Host, name: str, rivals: list[str], brought: bool) -> str | None:
    """Return why the module cannot be loaded into the kernel that runs now, None when it can as far as anybody can tell."""
    if rivals:
        return f"driver {name} takes the GPU over from {' and '.join(rivals)}"
    running = _document.text(host.facts, "host", "kernel", "running")
    modules = _document.mapping(host.facts, "driver", "modules")
    if brought or running is None or running not in modules:
        return None
    version = _document.text(modules, running, "version")
    if modules[running] is None or (version is not None and _versions.parse(version) != _versions.parse(host.installed)):
        return f"driver {name} has no module for the running kernel {running}"
    return None


def _rivals(host: Host) -> list[str]:
    """Return the other kernel drivers that are loaded, or that have a GPU of ours."""
    bound = {text for text in (card.unbound or "" for card in host.present) for name in _RIVALS if name in text}
    return [name for name in _RIVALS if _document.flag(host.facts, "host", f"{name}_loaded") or any(name in text for text in bound)]
