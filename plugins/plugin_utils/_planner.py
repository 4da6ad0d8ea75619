# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one host: what is there, what is wanted, what differs, and why.

Pure: facts, catalog and wishes in, the document of docs/contracts.md out. Bad facts never raise; what was not observed counts as not there.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _compose,
    _cuda,
    _document,
    _host,
    _plan_codes,
    _recipe,
    _selector,
    _service,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, option, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Fit

SCHEMA = 1
GPU, CPU, DEGRADED = "gpu", "cpu", "degraded"
NEVER, WHEN_NO_GPU, WHEN_GPU_UNUSABLE = "never", "when_no_gpu", "when_gpu_unusable"
CPU_FALLBACKS = (NEVER, WHEN_NO_GPU, WHEN_GPU_UNUSABLE)


@dataclass(frozen=True)
class Wishes:
    """What the operator decided. `context_digest` reads the build context, and is called only when an image is to be built."""

    host: str
    variant: str | None = None
    force: bool = False
    prefer: str = _selector.NEWEST
    cpu_fallback: str = WHEN_NO_GPU
    forward_compat: bool = False
    image_base: str = "python:3.12-slim-bookworm"
    image_version: str = "0.1.0"
    service: _compose.Service = field(default_factory=_compose.Service)
    context_digest: Callable[[], str] = lambda: ""
    today: datetime.date = field(default_factory=datetime.date.today)


class WishError(ValueError):
    """What was asked for cannot be planned for any host; the text is one sentence for the operator."""


@dataclass
class Decision:
    """What the service is to be. `fit` is None when no variant can be used."""

    mode: str
    fit: Fit | None
    rejected: tuple[Fit, ...] = ()
    blocks: tuple[Block, ...] = ()
    warnings: tuple[dict[str, str], ...] = ()


def make_plan(nvidia: object, dify: object, catalog: Sequence[Variant], wishes: Wishes) -> dict[str, Any]:
    """Return the plan of one host.

    Args:
        nvidia: ``ansible_facts['nvidia']``, or None.
        dify: ``ansible_facts['dify']``; None when what is deployed was not observed, which is warned of; empty when it is to be looked at
            after this plan, which then leaves out all that only a look could tell.
        catalog: the variants to choose from.
        wishes: the operator's decisions.

    Raises:
        WishError: a variant was named that is not in the catalog, or something was asked for that no host could have.
        RecipeError: an image is to be built and its build context cannot be read.
    """
    _check(catalog, wishes)
    host = _host.read(nvidia)
    decision = _decide(host, dify, catalog, wishes)
    image = _image(decision, wishes)
    blocks = [*decision.blocks, *(_blocks_of_the_engine(host, dify, image) if host.observed else ())]
    error = _document.text(dify, "error")
    if error and not blocks:
        blocks.append(Block("dify", _plan_codes.DIFY_NOT_READABLE, f"what is deployed could not be read: {error}"))
    rendered = _render(decision.fit.variant, decision.mode, wishes) if decision.fit is not None and not blocks else None
    warnings = [*_host.warnings(host, wishes.today), *decision.warnings]
    if not blocks and not isinstance(dify, Mapping):
        warnings.append(warning(_plan_codes.DIFY_NOT_OBSERVED, "what is deployed was not observed and is taken for not there"))
    parts = _parts(host, dify, decision, image, rendered, blocks, wishes)
    return {
        "schema": SCHEMA,
        "host": wishes.host,
        "status": _status(parts, blocks),
        "mode": decision.mode,
        "blocked": [block.as_dict() for block in blocks],
        "parts": parts,
        "image": image,
        "rejected": [{"variant": fit.variant.name, "code": fit.code, "reason": fit.reason} for fit in decision.rejected],
        "render": {"files": rendered.as_dict() if rendered else {}},
        "reboot": {
            "required": _document.flag(nvidia, "driver", "reboot_required") is True,
            "reasons": _document.texts(nvidia, "driver", "reboot_reasons"),
        },
        "warnings": warnings,
    }


def _check(catalog: Sequence[Variant], wishes: Wishes) -> None:
    names = [variant.name for variant in catalog]
    if wishes.variant is not None and wishes.variant not in names:
        raise WishError(f"{option('variant')}: {wishes.variant!r} is not in the catalog; it has {', '.join(names)}.")
    if wishes.force and wishes.variant is None:
        raise WishError(f"{option('force')} needs {option('variant')}: the name of the image variant that is to run against the rules.")


def _blocks_of_the_engine(host: Host, dify: object, image: Mapping[str, Any] | None) -> list[Block]:
    blocks = _host.engine_blocks(host)
    # Before anybody looked, and where the look failed, nobody knows whether the image is there already.
    looked = dify != {} and _document.text(dify, "error") is None
    if not blocks and looked and image is not None and _image_part(dify, image)["action"] == "build":
        blocks = _host.buildx_blocks(host)
    return blocks


def _decide(host: Host, dify: object, catalog: Sequence[Variant], wishes: Wishes) -> Decision:
    named = next((variant for variant in catalog if variant.name == wishes.variant), None)
    if not host.observed:
        message = "nothing is known about this host's GPUs, driver and engine"
        return Decision(CPU, None, blocks=(Block("driver", _plan_codes.NOT_OBSERVED, message),))
    if named is not None and named.cuda is None:
        return _named_cpu(host, named)
    if not host.present:
        return _without_gpu(host, dify, catalog, named, wishes)
    return _with_gpu(host, catalog, named, wishes)


def _named_cpu(host: Host, variant: Variant) -> Decision:
    fit = Fit(variant, _selector.CPU, None, f"{variant.name} was asked for by name")
    if not host.present:
        return Decision(CPU, fit)
    message = f"{_host.label(host.present[0])} is not used, because the CPU variant {variant.name} was asked for by name"
    return Decision(DEGRADED, fit, warnings=({"code": _plan_codes.DEGRADED, "message": message},))


def _without_gpu(host: Host, dify: object, catalog: Sequence[Variant], named: Variant | None, wishes: Wishes) -> Decision:
    reason = "this host has no NVIDIA GPU" if not host.left_alone else "every NVIDIA GPU of this host is passed through to virtual machines"
    rejected = tuple(Fit(variant, None, _plan_codes.NEEDS_A_GPU, reason) for variant in catalog if variant.cuda is not None)
    evidence = _host.lost_gpu(host, dify)
    if evidence is not None:
        gone = Block("driver", _plan_codes.GPU_GONE, f"this host had a GPU: {reason}, but {evidence}")
        if named is None and wishes.cpu_fallback == WHEN_GPU_UNUSABLE:
            return _degraded(host, catalog, rejected, [gone], None)
        return Decision(GPU, None, rejected, (gone,))
    if named is not None:
        block = Block("image", _plan_codes.NEEDS_A_GPU, f"{named.name} was asked for by name, but {reason}")
        return Decision(GPU, None, rejected, (block,))
    if wishes.cpu_fallback == NEVER:
        return Decision(GPU, None, rejected, (Block("image", _plan_codes.NO_GPU, f"{reason}, and {option('cpu_fallback')} is never"),))
    variant = _cpu_variant(catalog)
    if variant is None:
        return Decision(CPU, None, rejected, (Block("image", _plan_codes.NO_CPU_VARIANT, f"{reason}, and the catalog has no CPU variant"),))
    return Decision(CPU, Fit(variant, _selector.CPU, None, reason), rejected, warnings=tuple(_host.driver_without_gpu(host)))


def _with_gpu(host: Host, catalog: Sequence[Variant], named: Variant | None, wishes: Wishes) -> Decision:
    blocks = _host.gpu_blocks(host)
    fit: Fit | None = None
    rejected: tuple[Fit, ...] = ()
    if not blocks and host.driver is not None:
        selection = _selector.select(catalog, host.driver, host.usable, wishes.prefer, wishes.forward_compat, named.name if named else None)
        fit, rejected = _forced_or_chosen(selection, named, wishes)
        if fit is None:
            blocks.append(_no_fit_block(host, rejected, named))
    blocks += _host.cdi_blocks(host)
    if not blocks:
        return Decision(GPU, fit, rejected, warnings=_fit_warnings(fit))
    if named is None and wishes.cpu_fallback == WHEN_GPU_UNUSABLE:
        return _degraded(host, catalog, rejected, blocks, fit)
    return Decision(GPU, fit, rejected, tuple(blocks))


def _forced_or_chosen(selection: _selector.Selection, named: Variant | None, wishes: Wishes) -> tuple[Fit | None, tuple[Fit, ...]]:
    if selection.chosen is not None or named is None or not wishes.force:
        return selection.chosen, selection.others
    refused = next(fit for fit in selection.others if fit.variant == named)
    return _selector.force(refused), tuple(other for other in selection.others if other is not refused)


def _no_fit_block(host: Host, rejected: Sequence[Fit], named: Variant | None) -> Block:
    if named is not None:
        reason = next(fit.reason for fit in rejected if fit.variant == named)
        return Block("image", _plan_codes.NAMED_VARIANT_DOES_NOT_FIT, f"{named.name} was asked for by name and does not fit: {reason}")
    gpus = ", ".join(gpu.name for gpu in host.usable)
    driver = host.driver.version if host.driver else "unknown"
    if not rejected:
        return Block("image", _plan_codes.NO_VARIANT_FITS, "the catalog has no CUDA variant")
    # One reason is enough for the sentence, all of them are in `rejected`: the variant that the driver could carry, else the oldest CUDA.
    nearest = min(rejected, key=lambda fit: (fit.code == _plan_codes.DRIVER_TOO_OLD, _cuda.number(fit.variant.cuda or "0.0")))
    message = f"no variant of the catalog fits driver {driver} and {gpus}; the nearest is {nearest.variant.name}: {nearest.reason}"
    return Block("image", _plan_codes.NO_VARIANT_FITS, message)


def _degraded(host: Host, catalog: Sequence[Variant], rejected: tuple[Fit, ...], blocks: Sequence[Block], fit: Fit | None) -> Decision:
    reason = "; ".join(block.message for block in blocks)
    variant = _cpu_variant(catalog)
    if fit is not None:
        rejected = (*rejected, Fit(fit.variant, None, blocks[0].code, f"would fit, but {blocks[0].message}"))
    if variant is None:
        no_cpu = Block("image", _plan_codes.NO_CPU_VARIANT, "the GPU cannot be used, and the catalog has no CPU variant to fall back to")
        return Decision(DEGRADED, None, rejected, (*blocks, no_cpu))
    chosen = Fit(variant, _selector.CPU, None, f"CPU by consent ({option('cpu_fallback')} is {WHEN_GPU_UNUSABLE}): {reason}")
    unused = f"{_host.label(host.present[0])} is not used" if host.present else "the GPU that this host had is not used"
    note = warning(_plan_codes.DEGRADED, f"{unused}: {reason}")
    return Decision(DEGRADED, chosen, rejected, warnings=(note,))


def _cpu_variant(catalog: Sequence[Variant]) -> Variant | None:
    """Return the variant named cpu, or the first one without CUDA."""
    without = [variant for variant in catalog if variant.cuda is None]
    return next((variant for variant in without if variant.name == "cpu"), without[0] if without else None)


def _fit_warnings(fit: Fit | None) -> tuple[dict[str, str], ...]:
    if fit is not None and fit.support == _selector.FORCED:
        return (warning(_plan_codes.FORCED, f"{fit.variant.name} is {fit.reason}"),)
    if fit is not None and fit.support == _selector.FORWARD:
        return (warning(_plan_codes.FORWARD_COMPAT_USED, fit.reason),)
    return ()


def _image(decision: Decision, wishes: Wishes) -> dict[str, Any] | None:
    if decision.fit is None:
        return None
    variant = decision.fit.variant
    build = None
    if variant.source == "build":
        args = _recipe.build_args(variant, wishes.image_base, wishes.image_version)
        build = {"recipe_digest": _recipe.digest(wishes.context_digest(), args), "args": args}
    return {
        "variant": variant.name,
        "reference": variant.image,
        "cuda": variant.cuda,
        "torch": variant.torch,
        "sm": list(variant.sm),
        "source": variant.source,
        "digest": variant.digest,
        "port": variant.port,
        "health": variant.health,
        "support": decision.fit.support,
        "reason": decision.fit.reason,
        # This version installs no driver, so every image is chosen for the driver that is loaded now.
        "expected": False,
        "build": build,
    }


def _render(variant: Variant, mode: str, wishes: Wishes) -> _service.Rendered:
    labels = {
        "org.difyops.variant": variant.name,
        "org.difyops.cuda": variant.cuda or "",
        "org.difyops.torch": variant.torch,
        _compose.MODE_LABEL: mode,
    }
    image = _compose.Image(variant.image, variant.port, variant.health)
    content, config = _compose.render(wishes.service, image, labels, mode == GPU)
    return _service.Rendered(wishes.service.compose_file, content, config, variant.health is not None)


def _parts(
    host: Host,
    dify: object,
    decision: Decision,
    image: Mapping[str, Any] | None,
    rendered: _service.Rendered | None,
    blocks: Sequence[Block],
    wishes: Wishes,
) -> dict[str, dict[str, Any]]:
    parts = {
        "driver": _driver_part(host, decision),
        "engine": _same(_document.text(host.facts, "engine", "version"), "Docker and its compose plugin are as needed"),
        "toolkit": _same(_document.text(host.facts, "toolkit", "version"), _toolkit_reason(decision)),
        "image": _image_part(dify, image),
        "dify": _dify_part(dify, image, rendered, wishes),
    }
    for name, part in parts.items():
        own = [block.message for block in blocks if block.part == name]
        if own:
            part.update(action="blocked", to=None, reason="; ".join(own))
        elif blocks and part["action"] != "none":
            # A role that looks at its own part only must not act on a blocked host either.
            part.update(action="blocked", reason=f"held back, because the plan is blocked ({blocks[0].code})")
    return parts


def _same(version: str | None, reason: str) -> dict[str, Any]:
    return _part("none", version, version, reason)


def _part(action: str, before: str | None, after: str | None, reason: str) -> dict[str, Any]:
    return {"action": action, "from": before, "to": after, "reason": reason}


def _driver_part(host: Host, decision: Decision) -> dict[str, Any]:
    version = _document.text(host.facts, "driver", "loaded", "version")
    if decision.mode == DEGRADED:
        return _same(version, "left as it is: the service runs on the CPU")
    if not host.present:
        return _same(version, "no GPU needs a driver here")
    return _same(version, "a driver that is there stays; the image is chosen for it")


def _toolkit_reason(decision: Decision) -> str:
    return "the engine can give the GPU to containers by CDI" if decision.mode == GPU else "not needed on the CPU"


def _image_part(dify: object, image: Mapping[str, Any] | None) -> dict[str, Any]:
    if image is None:
        return _part("blocked", None, None, "no variant can be used")
    reference = image["reference"]
    there = _document.mapping(_document.at(dify, "images"), reference)
    have = _document.text(there, "id")
    if have is None:
        return _part(image["source"], None, reference, "not on this host")
    if image["build"] is not None:
        label = _document.text(there, "labels", _recipe.LABEL)
        if label != image["build"]["recipe_digest"]:
            return _part(
                "build", have, reference, "the recipe has changed" if label else "it was not built from a recipe of this collection"
            )
    elif image["digest"] is not None and not any(known.endswith(f"@{image['digest']}") for known in _document.texts(there, "repo_digests")):
        return _part("pull", have, reference, "the image on this host has another digest")
    return _part("none", reference, reference, "on this host")


def _dify_part(dify: object, image: Mapping[str, Any] | None, rendered: _service.Rendered | None, wishes: Wishes) -> dict[str, Any]:
    service = wishes.service
    container = _service.container_of(dify, service)
    before = _document.text(container, "image")
    if image is None or rendered is None:
        return _part("blocked", before, None, "no service can be planned")
    reference = image["reference"]
    image_part = _image_part(dify, image)
    image_id = _document.text(_document.at(dify, "images"), reference, "id") if image_part["action"] == "none" else None
    found = _service.differences(dify, service, rendered, image_id)
    if not found:
        return _part("none", before, reference, "as planned, running and healthy" if rendered.has_health else "as planned and running")
    return _part("update" if _service.exists(dify, service) else "create", before, reference, "; ".join(found))


def _status(parts: Mapping[str, Mapping[str, Any]], blocks: Sequence[Block]) -> str:
    if blocks:
        return "blocked"
    return "change" if any(part["action"] != "none" for part in parts.values()) else "ok"
