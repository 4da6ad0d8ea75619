# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host as the planner sees it: its GPUs and whether each can compute, its driver, and what tells that a GPU was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose, _document, _gpus, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver, Gpu

# Values of the label org.difyops.mode that only a host with a GPU gives its container.
_MODES_WITH_GPU = {"gpu", "degraded"}


@dataclass(frozen=True)
class Mig:
    """A MIG device: a part of a GPU that counts as a GPU of its own. Memory in MiB, None where nobody can tell."""

    index: int | None
    uuid: str | None
    profile: str | None
    memory: int | None


@dataclass(frozen=True)
class Card:
    """A GPU on PCI.

    `unbound` is why no NVIDIA driver has it, `defect` why it cannot compute although one has; both None for a GPU that can. `gpu` is what
    decides about images, `product` what decides about drivers (None where no table knows the GPU).
    """

    address: str
    name: str
    index: int | None
    uuid: str | None
    gpu: Gpu
    product: _gpus.Product | None
    left_alone: bool
    unbound: str | None
    defect: str | None
    in_mig_mode: bool
    mig_pending: bool | None
    mig: tuple[Mig, ...]

    @property
    def label(self) -> str:
        """The GPU's name for sentences: product and PCI address."""
        return f"{self.name} at {self.address}"

    @property
    def trouble(self) -> str | None:
        """Why this GPU cannot compute now, as the rest of a sentence; None when it can."""
        return self.unbound or self.defect


@dataclass(frozen=True)
class Host:
    """What ``ansible_facts['nvidia']`` says, read once.

    `present` are the GPUs that are ours, `left_alone` those that are passed through to virtual machines. `loaded` is what the loaded driver
    calls its version (`driver` is None where that is no version), `installed` that of the driver in packages.
    """

    facts: Mapping[str, Any]
    observed: bool
    cards: tuple[Card, ...]
    present: tuple[Card, ...]
    left_alone: tuple[Card, ...]
    driver: Driver | None
    loaded: str | None
    installed: str | None


def read(facts: object) -> Host:
    """Return the host of a facts document; of None or an empty one, a host that was not observed."""
    version = _document.text(facts, "driver", "loaded", "version")
    cards = tuple(_card(gpu) for gpu in _document.mappings(facts, "gpus"))
    return Host(
        facts=facts if isinstance(facts, Mapping) else {},
        observed=isinstance(_document.at(facts, "gpus"), (list, tuple)),
        cards=cards,
        present=tuple(card for card in cards if not card.left_alone),
        left_alone=tuple(card for card in cards if card.left_alone),
        driver=Driver(version, _document.text(facts, "driver", "cuda_version")) if version and _versions.is_dotted(version) else None,
        loaded=version,
        installed=_document.text(facts, "driver", "installed", "version"),
    )


def lost_gpu(host: Host, dify: object) -> str | None:
    """Return what tells that a host without a GPU of ours had one, or None when nothing does."""
    if host.present:
        return None
    if host.loaded is not None and not host.left_alone:
        # A passed-through GPU is reason enough for a loaded driver.
        return f"NVIDIA driver {host.loaded} is loaded"
    modes = [_document.text(container, "labels", _compose.MODE_LABEL) for container in _document.mappings(dify, "containers")]
    return "its container was deployed when there was one" if set(modes) & _MODES_WITH_GPU else None


def driver_without_gpu(host: Host) -> list[dict[str, str]]:
    """Return the warning about driver packages on a host that has no GPU and shows no sign that it had one."""
    if host.installed is None or host.cards:
        return []
    return [warning(_plan_codes.DRIVER_WITHOUT_GPU, f"NVIDIA driver {host.installed} is installed and there is no NVIDIA GPU")]


def _card(facts: Mapping[str, Any]) -> Card:
    known = _document.text(facts, "name")
    capability = _document.text(facts, "compute_capability")
    if not _versions.is_dotted(capability, "{1}"):
        capability = None
    product = _gpus.describe(_document.text(facts, "device_id"), known, _document.text(facts, "architecture"), capability)
    name = known or (product.name if product else None) or "unknown NVIDIA GPU"
    index = _number(facts.get("index"))
    mig = _document.mapping(facts, "mig")
    return Card(
        address=_document.text(facts, "pci_address") or "an unknown address",
        name=name,
        index=index,
        uuid=_document.text(facts, "uuid"),
        gpu=Gpu(name, capability or (product.compute_capability if product else None), _is_data_center(known, product)),
        product=product,
        left_alone=facts.get("bound_driver") == "vfio-pci",
        unbound=_unbound(facts),
        defect=_defect(facts),
        in_mig_mode=mig.get("current") is True,
        mig_pending=_document.flag(mig, "pending"),
        mig=tuple(_mig(device) for device in _document.mappings(mig, "devices")),
    )


def _is_data_center(known: str | None, product: _gpus.Product | None) -> bool:
    return any(_gpus.is_data_center(name) for name in (known, product.name if product else None))


def _mig(device: Mapping[str, Any]) -> Mig:
    return Mig(
        index=_number(device.get("index")),
        uuid=_document.text(device, "uuid"),
        profile=_document.text(device, "profile") or _document.text(device, "name"),
        memory=_number(device.get("memory_total_mib")) or None,
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _unbound(gpu: Mapping[str, Any]) -> str | None:
    """Return why no NVIDIA driver has this GPU, or None. An index means that the driver itself listed it."""
    bound = _document.text(gpu, "bound_driver")
    if bound == "nvidia" or gpu.get("index") is not None:
        return None
    return f"is bound to {bound or 'no kernel driver'} instead of nvidia"


def _defect(gpu: Mapping[str, Any]) -> str | None:
    health = _document.text(gpu, "health")
    if health not in (None, "ok"):
        return f"is {health.replace('_', ' ')}" if health != "error" else "reports an error"
    if gpu.get("compute_mode") == "prohibited":
        return "is in compute mode prohibited"
    devices = _document.at(gpu, "mig", "devices")
    if _document.flag(gpu, "mig", "current") and not devices:
        return "is in MIG mode without a MIG device" if devices == [] else "is in MIG mode, and its MIG devices could not be listed"
    return None
