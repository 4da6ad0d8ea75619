# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the driver of a host stands: whether it works, whether it can drive the GPUs at all, and what a reboot would load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _cuda, _document, _driver_choice, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._gpus import EITHER, OPEN, PROPRIETARY, Product
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host

_MISMATCH_ERROR = 18
_FLAVOURS = (OPEN, PROPRIETARY)


class Module(NamedTuple):
    """That a kernel has no module of the installed driver; `found` is the rest of a sentence about the kernel."""

    kernel: str
    found: str


def trouble(host: Host, cards: Sequence[Card]) -> Block | None:
    """Return why the driver does not work now for the GPUs that are to be used, None when it does."""
    facts = host.facts
    error = _document.mapping(facts, "nvml", "error")
    what = _document.text(error, "message") or _document.text(error, "name")
    if host.loaded is None:
        message = f"{host.present[0].label} has no NVIDIA driver loaded{_holder(host)}"
        return _and_installed(host, cards, Block("driver", _plan_codes.DRIVER_NOT_LOADED, message))
    if host.driver is None:
        return Block("driver", _plan_codes.DRIVER_SILENT, f"the loaded driver calls itself {host.loaded!r}, which is no driver version")
    if _document.flag(facts, "driver", "mismatch") or error.get("code") == _MISMATCH_ERROR:
        message = f"driver {host.driver.version} is loaded, its library is of another version"
        return _and_installed(host, cards, Block("driver", _plan_codes.DRIVER_MISMATCH, message))
    if _document.text(facts, "nvml", "source") == "sysfs" and error:
        return Block(
            "driver", _plan_codes.DRIVER_SILENT, f"driver {host.driver.version} is loaded and does not answer: {what or 'unknown error'}"
        )
    return _wrong(host, cards)


def works(host: Host) -> bool:
    """Whether the loaded driver and its libraries fit, as far as is known for sure: a container with a GPU can be started."""
    answered = _document.text(host.facts, "nvml", "source") in ("nvml", "nvidia-smi")
    apart = _document.flag(host.facts, "driver", "mismatch") is not False or bool(_document.mappings(host.facts, "driver", "broken"))
    return answered and not apart and host.driver is not None and host.installed in (None, host.loaded)


def misfit(host: Host, cards: Sequence[Card], version: str, flavour: str | None) -> str | None:
    """Return why a driver does not drive the GPUs, as a clause; None when it does, or when nobody can tell.

    A GPU that the loaded driver has is driven by it, whatever the tables say.
    """
    now = loaded_flavour(host)
    running = version == host.loaded and (flavour == now or flavour is None or now is None)
    open_to_doubt = [card for card in cards if card.unbound is not None or not running]
    return _misfit([card.product for card in open_to_doubt if card.product is not None], version, flavour)


def installed_drives(host: Host, cards: Sequence[Card]) -> bool:
    """Whether a driver is installed that can drive the GPUs, as far as anybody can tell."""
    if not _versions.is_dotted(host.installed):
        return False
    return misfit(host, cards, str(host.installed), installed_flavour(host)) is None


def loaded_flavour(host: Host) -> str | None:
    """Return the flavour of the loaded kernel modules, None when it is not known."""
    return _known(_document.text(host.facts, "driver", "loaded", "flavour"))


def installed_flavour(host: Host) -> str | None:
    """Return the flavour that a reboot loads: that of the module, else of the packages, else of the same driver while it is loaded.

    None when nobody can tell.
    """
    module = _document.mapping(_document.at(host.facts, "driver", "modules"), _kernel(host) or "")
    same = _document.text(module, "version") in (None, host.installed)
    found = _known(_document.text(module, "flavour")) if same else None
    found = found or _known(_document.text(host.facts, "driver", "installed", "flavour"))
    return found or (loaded_flavour(host) if host.loaded == host.installed else None)


def no_module(host: Host) -> Module | None:
    """Return that the kernel which boots next (the running one where that is not known) has no module of the installed driver."""
    kernel = _kernel(host)
    modules = _document.mapping(host.facts, "driver", "modules")
    if _document.flag(host.facts, "driver", "next_kernel_has_module") is False:
        return Module(kernel or "that boots next", "has no NVIDIA module")
    if kernel is None or kernel not in modules:
        return None
    if modules[kernel] is None:
        return Module(kernel, "has no NVIDIA module")
    version = _document.text(modules, kernel, "version")
    if _versions.is_dotted(version) and _versions.is_dotted(host.installed) and _versions.parse(version) != _versions.parse(host.installed):
        return Module(kernel, f"has a module of {version}")
    return None


def _kernel(host: Host) -> str | None:
    return _document.text(host.facts, "host", "kernel", "next") or _document.text(host.facts, "host", "kernel", "running")


def _known(flavour: str | None) -> str | None:
    return flavour if flavour in _FLAVOURS else None


def _misfit(products: Sequence[Product], version: str, flavour: str | None) -> str | None:
    branch = _cuda.branch(version)
    refusal = _driver_choice.why_not(products, branch) if products else None
    if refusal is not None:
        return f"driver {version} does not drive every GPU: {refusal}"
    other = next((product for product in products if flavour in _FLAVOURS and product.flavour not in (EITHER, flavour)), None)
    if other is None:
        return None
    return f"driver {version} has the {flavour} kernel modules, and {other.name} needs the {other.flavour} ones"


def _and_installed(host: Host, cards: Sequence[Card], block: Block) -> Block:
    """Return the block of a driver that a reboot may load, and what keeps a reboot from helping."""
    if not _versions.is_dotted(host.installed):
        return block
    wrong = misfit(host, cards, str(host.installed), installed_flavour(host))
    if wrong is not None:
        return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, f"{block.message}; installed {wrong}", _another())
    missing = no_module(host)
    if missing is None:
        return block
    message = f"{block.message}; driver {host.installed} is installed, and kernel {missing.kernel} {missing.found}"
    return replace(block, message=message, remedy=_plan_codes.CODES[_plan_codes.NEXT_KERNEL_WITHOUT_MODULE].remedy)


def _wrong(host: Host, cards: Sequence[Card]) -> Block | None:
    """Return that the loaded driver leaves GPUs alone that it cannot drive: no repair of the GPU helps there."""
    wrong = misfit(host, cards, str(host.loaded), loaded_flavour(host))
    if wrong is None:
        return None
    waits = installed_drives(host, cards) and no_module(host) is None
    remedy = f"reboot, so that the installed {host.installed} is loaded, then run again" if waits else _another()
    return Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, f"the loaded {wrong}", remedy)


def _another() -> str:
    return (
        f"bring another driver or its other kernel modules with the play that changes drivers and {option('driver.policy')} upgrade; "
        f"or leave the GPU out with {option('gpus')}"
    )


def _holder(host: Host) -> str:
    bound = sorted({str(gpu["bound_driver"]) for gpu in _document.mappings(host.facts, "gpus") if gpu.get("bound_driver")} - {"vfio-pci"})
    return f"; {', '.join(bound)} holds the device" if bound else ""
