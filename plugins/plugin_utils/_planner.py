# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one host: what is there, what is wanted, what differs, and why.

Pure: facts, catalog and wishes in, the document of docs/contracts.md out. Bad facts never raise; what was not observed counts as not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _catalog,
    _cuda,
    _devices,
    _document,
    _driver,
    _engine,
    _features,
    _host,
    _notices,
    _plan_codes,
    _plan_parts,
    _platform,
    _selector,
    _toolkit_settings,
    _toolkit_wanted,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._decision import (
    CPU,
    CPU_FALLBACKS,
    DEGRADED,
    GPU,
    NEVER,
    PARTS,
    WHEN_GPU_UNUSABLE,
    WHEN_NO_GPU,
    Decision,
    Gpus,
    Wishes,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import ABSENT, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, Need, WishError, option, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Fit

# What the callers of the planner need to know of wishes.
__all__ = [
    "CPU_FALLBACKS",
    "PARTS",
    "WHEN_NO_GPU",
    "WishError",
    "Wishes",
    "check",
    "driver_of",
    "engine_of",
    "gpus_of",
    "make_plan",
    "toolkit_of",
]

SCHEMA = 1

# What tells that the GPU, its driver or the way into a container does not serve, for which the CPU may stand in by consent.
_UNUSABLE = {
    _plan_codes.NO_VARIANT_FITS,
    _plan_codes.DRIVER_NOT_LOADED,
    _plan_codes.DRIVER_MISMATCH,
    _plan_codes.DRIVER_SILENT,
    _plan_codes.NO_USABLE_GPU,
    _plan_codes.SICK_GPU,
    _plan_codes.DRIVER_IMPOSSIBLE,
    _plan_codes.CDI_OFF,
    _plan_codes.CDI_SWITCHED_OFF,
    _plan_codes.NO_CDI_SPEC,
    _plan_codes.NO_CDI_DEVICE,
}
_BY_WISH = (_plan_codes.OUTSIDE_CUDA_RANGE, _plan_codes.FEATURE_MISSING)


def make_plan(nvidia: object, dify: object, catalog: Sequence[Variant], wishes: Wishes) -> dict[str, Any]:
    """Return the plan of one host.

    Args:
        nvidia: ``ansible_facts['nvidia']``, or None.
        dify: ``ansible_facts['dify']``; None when what is deployed was not observed, which is warned of; empty when it is to be looked at
            after this plan, which then leaves out all that only a look could tell.
        catalog: the variants to choose from, those that are switched off included.
        wishes: the operator's decisions.

    Raises:
        WishError: a variant was named that is not in the catalog, or something was asked for that no host could have.
        RecipeError: an image is to be built and its build context cannot be read.
    """
    check(catalog, wishes)
    variants = tuple(_catalog.enabled(catalog))
    host = _host.read(nvidia)
    decision = _decide(host, dify, variants, wishes)
    devices = _plan_parts.device_names(host, decision)
    image = _plan_parts.image_of(host, decision, devices, wishes)
    engine = _engine_decision(host, dify, decision, image, wishes)
    toolkit = _toolkit_decision(host, decision, wishes)
    left = _engine_needs(host, dify, image, wishes) if host.observed and engine is None else []
    needs = [*decision.needs, *left]
    blocks = [*decision.blocks, *_unmet(needs, wishes, besides=decision.blocks)]
    blocks += [block for block in (*(engine.blocks if engine else ()), *(toolkit.blocks if toolkit else ())) if block not in blocks]
    starts = engine is not None and engine.activation != _engine.NOTHING
    blocks += [*_unnamed(decision, devices, wishes), *_deployment_blocks(dify, image, starts, wishes)] if not blocks else []
    rendered = _plan_parts.rendered_of(decision, devices, wishes) if not blocks and "service" in wishes.apply else None
    platform = _plan_parts.Platform(engine, toolkit)
    parts = _plan_parts.all_parts(host, dify, decision, image, rendered, platform, blocks, wishes)
    return {
        "schema": SCHEMA,
        "host": wishes.host,
        "status": _plan_parts.status(parts, blocks),
        "mode": decision.mode,
        "gpus": _plan_parts.gpu_list(host, decision, devices, blocks),
        "blocked": [block.as_dict() for block in blocks],
        "parts": parts,
        "image": image,
        "rejected": [{"variant": fit.variant.name, "code": fit.code, "reason": fit.reason} for fit in decision.rejected],
        "models": sorted(wishes.service.model_folders) if "service" in wishes.apply else [],
        "render": {"files": rendered.as_dict() if rendered else {}},
        "reboot": _plan_parts.reboot(host, decision, blocks),
        "restart": _plan_parts.restart(host, dify, decision, platform, parts, wishes),
        "advice": {"driver": _plan_parts.driver_advice(host, decision.gpus, variants, wishes)},
        "warnings": _plan_parts.warnings(host, dify, decision, platform, parts, blocks, wishes),
    }


def check(catalog: Sequence[Variant], wishes: Wishes) -> None:
    """Refuse what no host could have. Raises WishError."""
    if wishes.variant is not None:
        unknown = _catalog.why_not(catalog, wishes.variant)
        if unknown is not None:
            raise WishError(unknown)
    if wishes.force and wishes.variant is None:
        raise WishError(f"{option('force')} needs {option('variant')}: the name of the image variant that is to run against the rules.")
    unknown = _features.unknown(wishes.features, _catalog.enabled(catalog))
    if unknown is not None:
        raise WishError(unknown)


# --- what the service is to be ----------------------------------------------------------------------------------------


def _decide(host: Host, dify: object, variants: Sequence[Variant], wishes: Wishes) -> Decision:
    named = next((variant for variant in variants if variant.name == wishes.variant), None)
    if not host.observed:
        return Decision(CPU, None, blocks=(_not_observed(),))
    if named is not None and named.cuda is None:
        return _and_no_driver(host, _named_cpu(host, named), wishes)
    if not host.present:
        return _and_no_driver(host, _without_gpu(host, dify, variants, named, wishes), wishes)
    if _removes(wishes):
        return _with_gpu_and_no_driver(host, wishes)
    return _with_gpu(host, variants, named, wishes)


def _removes(wishes: Wishes) -> bool:
    return wishes.driver.state == ABSENT and "driver" in wishes.apply


def _and_no_driver(host: Host, found: Decision, wishes: Wishes) -> Decision:
    """Add the removal of the driver to what a host does on the CPU."""
    if not _removes(wishes):
        return found
    removal = _driver.decide(host, (), wishes.driver, True, wishes.today)
    return replace(found, removal=removal, blocks=(*found.blocks, *removal.blocks))


def _with_gpu_and_no_driver(host: Host, wishes: Wishes) -> Decision:
    """A host whose GPU is to have no driver gets no service, and nobody is to think that it has one."""
    found = _and_no_driver(host, Decision(CPU, None), wishes)
    asked = [part for part in ("image", "service") if part in wishes.apply]
    if not asked:
        return found
    message = f"{option_of('state')} is {ABSENT}, and {' and '.join(asked)} on the GPU cannot be brought without a driver"
    remedy = f"set {option_of('state')} to present, name the CPU variant in {option('variant')}, or take {' and '.join(asked)} out of apply"
    block = Block("driver", _plan_codes.DRIVER_IMPOSSIBLE, message, remedy, by_wish=True)
    return replace(found, blocks=(block, *found.blocks))


def driver_of(host: Host, wishes: Wishes) -> _driver.Decision:
    """Return what becomes of the driver of any host, for a caller that changes drivers and looks at nothing else.

    A GPU that is broken stops nothing here: another driver may be what it needs.
    """
    if not host.observed:
        return replace(_driver.idle(host), blocks=(_not_observed(),))
    if wishes.driver.state == ABSENT:
        return _driver.decide(host, (), wishes.driver, True, wishes.today)
    if not host.present:
        return _driver.idle(host)
    choice = _devices.choose(host, wishes.gpus)
    found = _driver.decide(host, choice.cards or host.present, wishes.driver, True, wishes.today)
    if choice.block is None or choice.block.code != _plan_codes.NO_SUCH_GPU or found.blocks:
        return found
    return replace(found, blocks=(choice.block,))


def engine_of(host: Host, wishes: Wishes) -> _engine.Decision:
    """Return what becomes of the engine of any host, for a caller that changes engines and looks at nothing else."""
    if not host.observed:
        return _engine.Decision(blocks=(replace(_not_observed(), part="engine"),))
    return _engine.decide(host, wishes.engine, wishes.toolkit, gpu=bool(host.present))


def toolkit_of(host: Host, wishes: Wishes) -> _toolkit_wanted.Decision:
    """Return what becomes of the toolkit of any host, for a caller that changes toolkits and looks at nothing else.

    It decides for the engine that runs now, and a GPU that is broken stops nothing here.
    """
    if not host.observed:
        return _toolkit_wanted.Decision(blocks=(replace(_not_observed(), part="toolkit"),))
    if not host.present:
        return _toolkit_wanted.decide(host, None, wishes.toolkit, None)
    choice = _devices.choose(host, wishes.gpus)
    chosen = choice if choice.block is None else _devices.choose(host, ())
    injection = _engine.will_be(host, wishes.engine, wishes.toolkit, changed=False)
    found = _toolkit_wanted.decide(host, chosen, wishes.toolkit, injection)
    return found if choice.block is None or found.blocks else replace(found, blocks=(replace(choice.block, part="toolkit"),))


def _not_observed() -> Block:
    return Block("driver", _plan_codes.NOT_OBSERVED, "nothing is known about this host's GPUs, driver and engine")


def _named_cpu(host: Host, variant: Variant) -> Decision:
    fit = Fit(variant, _selector.CPU, None, f"{variant.name} was asked for by name")
    if not host.present:
        return Decision(CPU, fit)
    message = f"{host.present[0].label} is not used, because the CPU variant {variant.name} was asked for by name"
    return Decision(DEGRADED, fit, warnings=({"code": _plan_codes.DEGRADED, "message": message},))


def _without_gpu(host: Host, dify: object, variants: Sequence[Variant], named: Variant | None, wishes: Wishes) -> Decision:
    reason = "this host has no NVIDIA GPU" if not host.left_alone else "every NVIDIA GPU of this host is passed through to virtual machines"
    rejected = tuple(Fit(variant, None, _plan_codes.NEEDS_A_GPU, reason) for variant in variants if variant.cuda is not None)
    evidence = _host.lost_gpu(host, dify)
    if evidence is not None:
        gone = Block("driver", _plan_codes.GPU_GONE, f"this host had a GPU: {reason}, but {evidence}")
        if named is None and wishes.cpu_fallback == WHEN_GPU_UNUSABLE:
            return _degraded(host, variants, Decision(GPU, None, rejected, (gone,)))
        return Decision(GPU, None, rejected, (gone,))
    if named is not None:
        block = Block("image", _plan_codes.NEEDS_A_GPU, f"{named.name} was asked for by name, but {reason}")
        return Decision(GPU, None, rejected, (block,))
    if wishes.cpu_fallback == NEVER:
        return Decision(GPU, None, rejected, (Block("image", _plan_codes.NO_GPU, f"{reason}, and {option('cpu_fallback')} is never"),))
    variant = _cpu_variant(variants)
    if variant is None:
        return Decision(CPU, None, rejected, (Block("image", _plan_codes.NO_CPU_VARIANT, f"{reason}, and the catalog has no CPU variant"),))
    return Decision(CPU, Fit(variant, _selector.CPU, None, reason), rejected, warnings=tuple(_host.driver_without_gpu(host)))


def gpus_of(host: Host, wishes: Wishes, selection: Sequence[str] | None = None) -> Gpus:
    """Return how the GPUs of a host with a GPU of ours stand. A `selection` of the host's own takes the place of that in the wishes."""
    choice = _devices.choose(host, wishes.gpus if selection is None else selection)
    driver = _driver.decide(host, choice.cards or host.present, wishes.driver, "driver" in wishes.apply, wishes.today)
    changes = wishes.changes
    coming = _engine.decide(host, wishes.engine, wishes.toolkit, gpu=True) if "engine" in changes else None
    injection = (coming.injection if coming is not None else None) or _engine.will_be(host, wishes.engine, wishes.toolkit, changed=False)
    toolkit = None
    if "toolkit" in changes and wishes.toolkit.state != _toolkit_settings.ABSENT:
        toolkit = _toolkit_wanted.decide(host, choice, wishes.toolkit, injection, driver.changes)
    needs = [need for need in _platform.gpu_needs(host, choice, driver.changes, injection) if need.part not in changes]
    return Gpus(choice, driver, tuple(needs), injection, toolkit)


def _with_gpu(host: Host, variants: Sequence[Variant], named: Variant | None, wishes: Wishes) -> Decision:
    gpus = gpus_of(host, wishes)
    blocks = _fleet_blocks(wishes) + gpus.blocks
    fit: Fit | None = None
    rejected: tuple[Fit, ...] = ()
    driver = gpus.driver.expected
    if not blocks and driver is not None:
        selection = _selector.select(variants, driver, tuple(card.gpu for card in gpus.choice.cards), wishes.preference)
        fit, rejected = _forced_or_chosen(selection, named, wishes)
        if fit is None:
            blocks.append(_no_fit_block(host, gpus, variants, rejected, wishes))
        fit, *others = (_in_our_words(one, gpus.driver, wishes) for one in (fit, *rejected))
        rejected = tuple(one for one in others if one is not None)
    unmet = [*_unmet(gpus.needs, wishes), *_platform_blocks(host, gpus, wishes)]
    found = Decision(GPU, fit, rejected, (*blocks, *unmet), gpus=gpus)
    if not found.blocks:
        return replace(found, warnings=(*_notices.of_choice(host, gpus.choice, wishes.gpus), *_fit_warnings(fit)))
    consented = named is None and wishes.cpu_fallback == WHEN_GPU_UNUSABLE
    # A decision of the fleet or a mistake in the options says nothing about the GPU, which may be fine.
    if consented and all(block.code in _UNUSABLE and not block.by_wish for block in found.blocks):
        return _degraded(host, variants, found)
    return found


def _platform_blocks(host: Host, gpus: Gpus, wishes: Wishes) -> list[Block]:
    """Return why the caller cannot bring to engine and toolkit what these GPUs need."""
    found = list(gpus.toolkit.blocks) if gpus.toolkit is not None else []
    if "engine" in wishes.changes:
        engine = _engine.decide(host, wishes.engine, wishes.toolkit, gpu=True)
        found += [block for block in engine.blocks if block.code == _plan_codes.CDI_SWITCHED_OFF]
    return found


def _fleet_blocks(wishes: Wishes) -> list[Block]:
    """Return why the fleet came to no decision, which then holds for every host of it that has a GPU."""
    return [
        Block("image", _document.text(block, "code") or "", _document.text(block, "message") or "", _document.text(block, "remedy"))
        for block in _document.mappings(wishes.fleet, "blocked")
        if _document.text(block, "code") in _plan_codes.CODES
    ]


def _forced_or_chosen(selection: _selector.Selection, named: Variant | None, wishes: Wishes) -> tuple[Fit | None, tuple[Fit, ...]]:
    if selection.chosen is not None or named is None or not wishes.force:
        return selection.chosen, selection.others
    refused = next(fit for fit in selection.others if fit.variant == named)
    return _selector.force(refused), tuple(other for other in selection.others if other is not refused)


def _no_fit_block(host: Host, gpus: Gpus, variants: Sequence[Variant], rejected: Sequence[Fit], wishes: Wishes) -> Block:
    name = wishes.preference.named
    if name is not None:
        refused = next((fit for fit in rejected if fit.variant.name == name), None)
        who = "was asked for by name" if wishes.variant else f"is the variant of the fleet ({option('scope')})"
        why = refused.reason if refused else "the catalog has no such variant"
        return Block("image", _plan_codes.NAMED_VARIANT_DOES_NOT_FIT, _planned(f"{name} {who} and does not fit: {why}", gpus.driver))
    names = ", ".join(dict.fromkeys(card.name for card in gpus.choice.cards))
    driver = gpus.driver.expected.version if gpus.driver.expected else "unknown"
    if not rejected:
        return Block("image", _plan_codes.NO_VARIANT_FITS, "the catalog has no CUDA variant")
    nearest = _nearest(rejected, wishes)
    message = f"no variant of the catalog fits driver {driver} and {names}; the nearest is {nearest.variant.name}: {nearest.reason}"
    remedy = _fitting_remedy(host, gpus, variants, nearest, wishes)
    return Block("image", _plan_codes.NO_VARIANT_FITS, _planned(message, gpus.driver), remedy, by_wish=nearest.code in _BY_WISH)


def _nearest(rejected: Sequence[Fit], wishes: Wishes) -> Fit:
    """Return the variant whose reason is the one to tell, since all of them are in `rejected`.

    One that runs here and was not asked for, the nearest to the range; else one that the driver could carry; else the oldest CUDA.
    """
    unwanted = [fit for fit in rejected if fit.code in _BY_WISH]
    if unwanted:
        return min(unwanted, key=lambda fit: (fit.code == _plan_codes.OUTSIDE_CUDA_RANGE, *_distance(fit.variant.cuda or "0.0", wishes)))
    return min(rejected, key=lambda fit: (fit.code == _plan_codes.DRIVER_TOO_OLD, _cuda.number(fit.variant.cuda or "0.0")))


def _distance(cuda: str, wishes: Wishes) -> tuple[int, int]:
    """Return how far a CUDA is from the range that was asked for, as majors and minors. Inside, the newest is the nearest."""
    major, minor = _cuda.number(cuda)
    if wishes.max_cuda is not None and _cuda.number(cuda) > _cuda.number(wishes.max_cuda):
        return major, minor
    return -major, -minor


def _fitting_remedy(host: Host, gpus: Gpus, variants: Sequence[Variant], nearest: Fit, wishes: Wishes) -> str | None:
    """Return what makes a variant fit, None where it is what the code says: a newer driver."""
    if nearest.code in _BY_WISH:
        return _plan_codes.CODES[nearest.code].remedy
    if any(card.product is None for card in gpus.choice.cards) or wishes.force or gpus.driver.changes:
        return None
    advice = _plan_parts.driver_advice(host, gpus, variants, wishes)
    if advice is None:
        return "add a variant that fits to the catalog; no driver that is still supported would help these GPUs"
    return str(advice["message"]) if _driver.after_a_reboot(host, gpus.choice.cards) else None


def _in_our_words(fit: Fit | None, driver: _driver.Decision, wishes: Wishes) -> Fit | None:
    """Return a fit whose reason tells of drivers to come and of the fleet, of which the selector knows nothing."""
    if fit is None:
        return None
    reason = _planned(fit.reason, driver)
    name = wishes.fleet_variant if wishes.variant is None else None
    if name is not None:
        reason = reason.replace(f"but {name} was asked for by name", f"but {name} is the variant of the fleet")
        reason += "; it is the variant of the fleet" if fit.support is not None else ""
    return fit if reason == fit.reason else replace(fit, reason=reason)


def _planned(text: str, driver: _driver.Decision) -> str:
    """Return a reason of the selector about a driver that is not loaded yet: planned, and of which perhaps only the branch is known."""
    if not driver.changes or driver.expected is None:
        return text
    version = driver.expected.version
    name = f"branch {driver.to}" if driver.assumed else version
    return text.replace(f"loaded is {version}", f"planned is {name}").replace(f"driver {version}", f"driver {name}")


def _degraded(host: Host, variants: Sequence[Variant], found: Decision) -> Decision:
    """Return the decision for the CPU by consent, in place of one that is blocked."""
    reason = "; ".join(block.message for block in found.blocks)
    variant = _cpu_variant(variants)
    rejected = found.rejected
    if found.fit is not None:
        rejected = (*rejected, Fit(found.fit.variant, None, found.blocks[0].code, f"would fit, but {found.blocks[0].message}"))
    if variant is None:
        no_cpu = Block("image", _plan_codes.NO_CPU_VARIANT, "the GPU cannot be used, and the catalog has no CPU variant to fall back to")
        return Decision(DEGRADED, None, rejected, (*found.blocks, no_cpu), gpus=found.gpus)
    chosen = Fit(variant, _selector.CPU, None, f"CPU by consent ({option('cpu_fallback')} is {WHEN_GPU_UNUSABLE}): {reason}")
    unused = f"{host.present[0].label} is not used" if host.present else "the GPU that this host had is not used"
    note = warning(_plan_codes.DEGRADED, f"{unused}: {reason}")
    return Decision(DEGRADED, chosen, rejected, warnings=(note,), gpus=found.gpus)


def _cpu_variant(variants: Sequence[Variant]) -> Variant | None:
    """Return the variant named cpu, or the first one without CUDA."""
    without = [variant for variant in variants if variant.cuda is None]
    return next((variant for variant in without if variant.name == "cpu"), without[0] if without else None)


def _fit_warnings(fit: Fit | None) -> tuple[dict[str, str], ...]:
    if fit is not None and fit.support == _selector.FORCED:
        return (warning(_plan_codes.FORCED, f"{fit.variant.name} is {fit.reason}"),)
    if fit is not None and fit.support == _selector.FORWARD:
        return (warning(_plan_codes.FORWARD_COMPAT_USED, fit.reason),)
    return ()


# --- what is in the way -----------------------------------------------------------------------------------------------


def _builds(dify: object, image: Mapping[str, Any] | None, wishes: Wishes) -> bool:
    """Whether an image is to be built on the host, as far as that is known."""
    # Before anybody looked, and where the look failed, nobody knows whether the image is there already.
    looked = dify != {} and _document.text(dify, "error") is None
    return looked and image is not None and "image" in wishes.apply and _plan_parts.image_part(dify, image)["action"] == "build"


def _engine_needs(host: Host, dify: object, image: Mapping[str, Any] | None, wishes: Wishes) -> list[Need]:
    """Return what an engine lacks that the caller does not change."""
    needs = _platform.engine_needs(host, wishes.engine.compose_min)
    return needs or (_platform.buildx_needs(host) if _builds(dify, image, wishes) else [])


def _engine_decision(
    host: Host, dify: object, decision: Decision, image: Mapping[str, Any] | None, wishes: Wishes
) -> _engine.Decision | None:
    """Return what becomes of the engine, None where the caller leaves it."""
    if "engine" not in wishes.changes or not host.observed:
        return None
    gpu = decision.mode == GPU and decision.gpus is not None
    return _engine.decide(host, wishes.engine, wishes.toolkit, gpu, _builds(dify, image, wishes))


def _toolkit_decision(host: Host, decision: Decision, wishes: Wishes) -> _toolkit_wanted.Decision | None:
    """Return what becomes of the toolkit, None where the caller leaves it."""
    if "toolkit" not in wishes.changes or not host.observed:
        return None
    if wishes.toolkit.state != _toolkit_settings.ABSENT:
        used = decision.gpus if decision.mode == GPU else None
        return used.toolkit if used is not None else _toolkit_wanted.decide(host, None, wishes.toolkit, None)
    found = _toolkit_wanted.decide(host, None, wishes.toolkit, None)
    asked = [part for part in ("image", "service") if part in wishes.apply]
    if decision.mode != GPU or decision.gpus is None or not asked:
        return found
    state = _toolkit_settings.option_of("state")
    message = f"{state} is {_toolkit_settings.ABSENT}, and {' and '.join(asked)} on the GPU cannot be brought without it"
    remedy = f"set {state} to present, name the CPU variant in {option('variant')}, or take {' and '.join(asked)} out of apply"
    block = Block("toolkit", _plan_codes.NO_CDI_SPEC, message, remedy, by_wish=True)
    return replace(found, blocks=(*found.blocks, block))


def _unmet(needs: Sequence[Need], wishes: Wishes, besides: Sequence[Block] = ()) -> list[Block]:
    """Return the blocks of what is missing and is not the caller's to bring, each once."""
    missing = [need.block for need in needs if need.block is not None and (need.action is None or need.part not in wishes.changes)]
    return [block for block in dict.fromkeys(missing) if block not in besides]


def _unnamed(decision: Decision, devices: Mapping[_devices.Use, str], wishes: Wishes) -> list[Block]:
    """Return that a service cannot be planned yet, because nobody knows by which name its container gets a GPU."""
    if decision.mode != GPU or decision.gpus is None or "service" not in wishes.apply:
        return []
    unknown = [use.label for use in decision.gpus.choice.uses if use not in devices]
    if not unknown:
        return []
    message = f"nobody knows the CDI device of {', '.join(unknown)} before a driver has it"
    remedy = "change the driver first, in a run that leaves the service (apply without service), then run again"
    return [Block("service", _plan_codes.NO_CDI_DEVICE, message, remedy)]


def _deployment_blocks(dify: object, image: Mapping[str, Any] | None, starts: bool, wishes: Wishes) -> list[Block]:
    error = _document.text(dify, "error")
    # An engine that is to be installed or started first cannot have told anything.
    if error and not starts:
        return [Block("service", _plan_codes.DIFY_NOT_READABLE, f"what is deployed could not be read: {error}")]
    if image is not None and "service" in wishes.apply and "image" not in wishes.apply and dify != {}:
        part = _plan_parts.image_part(dify, image)
        if part["action"] != "none":
            message = f"the service needs {image['reference']}, and this run brings no image ({part['reason']})"
            return [Block("image", _plan_codes.IMAGE_NOT_APPLIED, message)]
    return _model_blocks(dify, wishes) if "service" in wishes.apply else []


_COPY_THE_MODEL = (
    "copy the whole model (config.json, tokenizer and safetensors weights) there, or correct models_dir (dify_gpu_models_dir), "
    "embedding_model (dify_gpu_embedding_model) or rerank_model (dify_gpu_rerank_model)"
)


def _model_blocks(dify: object, wishes: Wishes) -> list[Block]:
    """Return which models that are to be read from the host are not there, or not whole. What was not looked at is in nobody's way."""
    found = []
    for folder, variable in sorted(wishes.service.model_folders.items()):
        facts = _document.mapping(_document.at(dify, "models"), folder)
        if _document.flag(facts, "complete") is False:
            message = f"{variable} names the folder {folder} on the host, which {_document.text(facts, 'reason') or 'is not complete'}"
            found.append(Block("service", _plan_codes.APP_NO_MODELS, message, _COPY_THE_MODEL))
    return found
