# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan is made from and made of: the operator's wishes, and the decision about one host."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _compose,
    _devices,
    _document,
    _driver,
    _engine_settings,
    _plan_codes,
    _selector,
    _toolkit_settings,
    _toolkit_wanted,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, Need
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Fit, Preference

GPU, CPU, DEGRADED = "gpu", "cpu", "degraded"
NEVER, WHEN_NO_GPU, WHEN_GPU_UNUSABLE = "never", "when_no_gpu", "when_gpu_unusable"
CPU_FALLBACKS = (NEVER, WHEN_NO_GPU, WHEN_GPU_UNUSABLE)
PARTS = ("driver", "engine", "toolkit", "image", "service")


@dataclass(frozen=True)
class Wishes:
    """What the operator decided. `context_digest` reads the build context, and is called only when an image is to be built.

    `apply` are the parts that the caller brings to their plan. `fleet` is the decision that this host follows, as it was returned for many.
    """

    host: str
    variant: str | None = None
    force: bool = False
    prefer: str = _selector.NEWEST
    cpu_fallback: str = WHEN_NO_GPU
    forward_compat: bool = False
    min_cuda: str | None = None
    max_cuda: str | None = None
    features: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    driver: Settings = field(default_factory=Settings)
    engine: _engine_settings.Settings = field(default_factory=_engine_settings.Settings)
    toolkit: _toolkit_settings.Settings = field(default_factory=_toolkit_settings.Settings)
    apply: frozenset[str] = frozenset(PARTS)
    fleet: Mapping[str, Any] | None = None
    image_base: str = "python:3.12-slim-bookworm"
    image_version: str = "0.1.0"
    # The host that builds for all, None where each builds its own; and whether the others get it by the registry.
    build_host: str | None = None
    push: bool = False
    service: _compose.Service = field(default_factory=_compose.Service)
    context_digest: Callable[[], str] = lambda: ""
    today: datetime.date = field(default_factory=datetime.date.today)

    @property
    def changes(self) -> frozenset[str]:
        """The parts that the caller brings to their plan and that are not left alone by the operator's own word."""
        unmanaged = {
            "engine": self.engine.state == _engine_settings.UNMANAGED,
            "toolkit": self.toolkit.state == _toolkit_settings.UNMANAGED,
        }
        return frozenset(part for part in self.apply if not unmanaged.get(part, False))

    @property
    def fleet_variant(self) -> str | None:
        """The variant that the fleet agreed on, None where it decided nothing or is not asked."""
        return _document.text(self.fleet, "variant")

    @functools.cached_property
    def preference(self) -> Preference:
        """What the selector is to choose by."""
        named = self.variant or self.fleet_variant
        return Preference(self.prefer, self.forward_compat, named, self.min_cuda, self.max_cuda, self.features)


@dataclass(frozen=True)
class Gpus:
    """How the GPUs of a host stand: which are used, what becomes of their driver, and what engine and toolkit lack for them.

    `injection` is how containers get them. `toolkit` is what becomes of the toolkit, None where the caller leaves it.
    """

    choice: _devices.Choice
    driver: _driver.Decision
    needs: tuple[Need, ...] = ()
    injection: str = _toolkit_settings.CDI
    toolkit: _toolkit_wanted.Decision | None = None

    @functools.cached_property
    def blocks(self) -> list[Block]:
        """Why the GPUs that are to be used cannot compute, whatever the image; empty when they can.

        A container is given all of them, and the proof asks for all of them, so one that cannot compute is in the way of the others.
        """
        if self.driver.blocks:
            return list(self.driver.blocks)
        if self.choice.block is not None:
            return [self.choice.block]
        # A driver that is to come takes over the GPUs that none or another one has now.
        found = [(card, card.defect or (None if self.driver.changes else card.unbound)) for card in self.choice.cards]
        reasons = "; ".join(f"{card.label} {trouble}" for card, trouble in found if trouble is not None)
        if all(trouble is not None for _card, trouble in found):
            return [Block("driver", _plan_codes.NO_USABLE_GPU, f"no GPU can be used: {reasons}")]
        return [Block("driver", _plan_codes.SICK_GPU, f"not every GPU can be used: {reasons}")] if reasons else []


@dataclass(frozen=True)
class Decision:
    """What the service is to be.

    `fit` is None when no variant can be used, `gpus` when none of the host's GPUs is looked at. `removal` is what becomes of a driver that
    is to be absent, whatever the service is.
    """

    mode: str
    fit: Fit | None
    rejected: tuple[Fit, ...] = ()
    blocks: tuple[Block, ...] = ()
    warnings: tuple[dict[str, str], ...] = ()
    gpus: Gpus | None = None
    removal: _driver.Decision | None = None

    @property
    def needs(self) -> tuple[Need, ...]:
        """What engine and toolkit lack for the GPUs that are really used."""
        return self.gpus.needs if self.gpus is not None and self.mode == GPU else ()

    @property
    def driver(self) -> _driver.Decision | None:
        """What becomes of the driver, None where it is not the plan's business."""
        if self.removal is not None:
            return self.removal
        return self.gpus.driver if self.gpus is not None and self.mode == GPU else None
