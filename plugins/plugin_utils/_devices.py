# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs of a host the container is given, and by which CDI device.

CUDA uses one MIG device per process and sees no full GPU beside it. So without a selection the full GPUs are taken, and on a host that has
none the largest MIG device (of several the first), which is always the same one. Where sizes are not known it is the first as well.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes, _toolkit
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Card, Host, Mig

ALL = "all"

_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
_WANTED = re.compile(r"GPU-[0-9a-f-]{8,}|MIG-[0-9a-zA-Z/-]{8,}|(?:0|[1-9][0-9]{0,2})(?::(?:0|[1-9][0-9]?))?")


@dataclass(frozen=True)
class Use:
    """A GPU, or a MIG device of it, that the container is given."""

    card: Card
    mig: Mig | None = None

    @property
    def label(self) -> str:
        """Name for sentences."""
        if self.mig is None:
            return self.card.label
        return f"MIG device {self.mig.profile or self.mig.uuid or self.mig.index} of {self.card.label}"


@dataclass(frozen=True)
class Choice:
    """What of a host is used. `everything` when it is every GPU that is ours; `block` when what was asked for is not there."""

    uses: tuple[Use, ...]
    everything: bool
    block: Block | None = None

    @property
    def cards(self) -> tuple[Card, ...]:
        """The GPUs that are used, as a whole or in part."""
        return tuple(dict.fromkeys(use.card for use in self.uses))

    @property
    def gpu_count(self) -> int:
        """How many GPUs CUDA sees in the container."""
        return 1 if any(use.mig for use in self.uses) else len(self.uses)


def is_selector(text: str) -> bool:
    """Whether a text has the form of a UUID, an index, a PCI address, a MIG UUID or ``index:mig index``."""
    return _ADDRESS.fullmatch(text.lower()) is not None or _WANTED.fullmatch(text) is not None


def choose(host: Host, wanted: Sequence[str]) -> Choice:
    """Return what is used of a host with a GPU of ours; without a wish all that CUDA can use together."""
    if not wanted:
        return _unasked(host)
    uses: dict[Use, None] = {}
    for text in wanted:
        card, mig, problem = _find(host, text)
        if card is None:
            return Choice((), False, Block("image", _plan_codes.NO_SUCH_GPU, f"{option('gpus')} names {text}: {problem}"))
        uses[Use(card, mig or _largest(card))] = None
    full = tuple(sorted(uses, key=lambda use: (host.cards.index(use.card), use.mig.index or 0 if use.mig else 0)))
    return Choice(full, everything={use.card for use in full} == set(host.present) and not any(use.mig for use in full))


def _unasked(host: Host) -> Choice:
    full = tuple(Use(card) for card in host.present if not card.in_mig_mode)
    if full:
        return Choice(full, everything=len(full) == len(host.present))
    # A GPU that cannot compute comes last: it is taken where there is nothing else, and then tells why.
    best = max((Use(card, _largest(card)) for card in host.present), key=lambda use: (use.card.defect is None, _size(use.mig)))
    return Choice((best,), everything=False)


def _largest(card: Card) -> Mig | None:
    """Return the MIG device with the most memory, of several the first; None of a GPU that is not in MIG mode."""
    return max(card.mig, key=_size, default=None) if card.in_mig_mode else None


def _size(mig: Mig | None) -> int:
    return (mig.memory or 0) if mig is not None else 0


def _find(host: Host, text: str) -> tuple[Card | None, Mig | None, str]:
    """Return the GPU and MIG device that a text names, or the rest of a sentence that says why there is none."""
    for card in host.cards:
        mig = _mig_named(card, text)
        if mig is None and not _is_named(card, text):
            continue
        if card.left_alone:
            return None, None, f"{card.label} is bound to vfio-pci, and so a virtual machine's"
        return card, mig, ""
    return None, None, f"there is no such GPU; there is {_names_of(host.present)}"


def _is_named(card: Card, text: str) -> bool:
    if text == card.uuid or (card.index is not None and text == str(card.index)):
        return True
    return _ADDRESS.fullmatch(text.lower()) is not None and _address(text) == _address(card.address)


def _mig_named(card: Card, text: str) -> Mig | None:
    names = {f"{card.index}:{mig.index}": mig for mig in card.mig if card.index is not None and mig.index is not None}
    names.update({mig.uuid: mig for mig in card.mig if mig.uuid})
    return names.get(text) if card.in_mig_mode else None


def _address(text: str) -> str:
    """Return a PCI address in one form: nvidia-smi writes eight digits of domain, the kernel four, people none."""
    match = _ADDRESS.fullmatch(text.lower())
    return f"{int(match.group(1) or '0', 16):04x}:{match.group(2)}" if match else text


def _names_of(cards: Iterable[Card]) -> str:
    """Return all names by which these GPUs can be asked for, those of one product together."""
    products: dict[str, list[str]] = {}
    for card in cards:
        product, _at, place = card.label.rpartition(" at ")
        products.setdefault(product, []).append(place + _names(card))
    return "; ".join(f"{product} at {', '.join(places)}" for product, places in products.items())


def _names(card: Card) -> str:
    if card.index is None:
        return ""
    parts = [str(card.index), card.uuid, *(f"{card.index}:{mig.index}" for mig in card.mig if mig.index is not None)]
    return f" ({', '.join(part for part in parts if part)})"


# --- CDI --------------------------------------------------------------------------------------------------------------


def specs_of(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the CDI specifications for NVIDIA's GPUs, wherever they lie."""
    return [spec for spec in _document.mappings(facts, "toolkit", "cdi", "specs") if spec.get("kind") == _toolkit.CDI_KIND]


def directories_of(facts: Mapping[str, Any]) -> list[str]:
    """Return the directories from which the engine takes CDI specifications; empty when it does not tell."""
    return _document.texts(facts, "engine", "cdi_spec_dirs")


def offered(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of the CDI devices that the engine finds, in order and each once."""
    directories = directories_of(facts)
    inside = [spec for spec in specs_of(facts) if not directories or os.path.dirname(_document.text(spec, "path") or "") in directories]
    return list(dict.fromkeys(name for spec in inside for name in _document.texts(spec, "devices")))


def candidates(choice: Choice, use: Use) -> list[str]:
    """Return the names that a CDI specification may give to what is used, the preferred first.

    All GPUs of a host together are ``all``, which stays right when one is added. A name by UUID stays right when the order changes.
    The last is that of nvidia-ctk's strategy type-index (``gpu0``, ``mig0:1``). Empty for a GPU that no driver has listed yet.
    """
    if choice.everything:
        return [ALL]
    if use.mig is None:
        index = use.card.index
        return [name for name in (use.card.uuid, *((str(index), f"gpu{index}") if index is not None else ())) if name]
    pair = f"{use.card.index}:{use.mig.index}" if use.card.index is not None and use.mig.index is not None else None
    return [name for name in (use.mig.uuid, pair, f"mig{pair}" if pair else None) if name]


def full_name(device: str) -> str:
    """Return a device's name as compose and the engine write it."""
    return f"{_toolkit.CDI_KIND}={device}"
