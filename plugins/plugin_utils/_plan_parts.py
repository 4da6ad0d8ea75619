# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a plan's document: what is used, what is to be done to each part, what it costs and what is worth knowing."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _advice,
    _compose,
    _devices,
    _document,
    _driver,
    _engine,
    _host,
    _notices,
    _plan_codes,
    _recipe,
    _require_cuda,
    _service,
    _toolkit_settings,
    _toolkit_wanted,
    _wheels,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._decision import DEGRADED, GPU, Decision, Gpus, Wishes
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_guard import Guard
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

NOT_PART_OF_THIS_RUN = "left as it is: not part of this run"


class Platform(NamedTuple):
    """What becomes of engine and toolkit; None of a part that the caller leaves."""

    engine: _engine.Decision | None
    toolkit: _toolkit_wanted.Decision | None


_retired = functools.lru_cache(maxsize=64)(_wheels.retired)


def device_names(host: Host, decision: Decision) -> dict[_devices.Use, str]:
    """Return the CDI device of everything that is used: one that is there, else the one that a new specification will have."""
    if decision.mode != GPU or decision.gpus is None:
        return {}
    # NVIDIA's runtime looks for names in no specification.
    by_cdi = decision.gpus.injection != _toolkit_settings.RUNTIME
    offered = set(_devices.offered(host.facts)) if by_cdi else set()
    names = {}
    for use in decision.gpus.choice.uses:
        known = _devices.candidates(decision.gpus.choice, use)
        name = next((candidate for candidate in known if candidate in offered), next(iter(known), None))
        if name is not None:
            names[use] = _devices.full_name(name)
    return names


def gpu_list(host: Host, decision: Decision, devices: Mapping[_devices.Use, str], blocks: Sequence[Block]) -> list[dict[str, Any]]:
    choice = decision.gpus.choice if decision.gpus is not None else None
    listed = []
    for card in host.cards:
        name = next((devices[use] for use in choice.uses if use.card == card and use in devices), None) if choice else None
        reason = _why_unused(card, choice, decision, blocks)
        if reason is None and name is None:
            reason = "is not used: no driver has it, and so nobody knows its CDI device yet"
        used = reason is None
        usable = not card.left_alone and card.trouble is None
        trouble = None if usable or card.left_alone else card.trouble
        listed.append(
            {
                "pci_address": card.address,
                "name": card.name,
                "usable": usable,
                "used": used,
                "reason": reason or trouble,
                "device": name if used else None,
            }
        )
    return listed


def _why_unused(card: _host.Card, choice: _devices.Choice | None, decision: Decision, blocks: Sequence[Block]) -> str | None:
    if card.left_alone:
        return "is bound to vfio-pci and left to a virtual machine"
    if decision.mode != GPU or choice is None:
        return card.trouble or "is not used: the service runs on the CPU"
    if choice.block is None and card not in choice.cards:
        if not card.in_mig_mode:
            return "is not among the GPUs to use"
        return card.defect or "is in MIG mode, and CUDA sees no full GPU beside a MIG device"
    if blocks:
        return card.trouble or f"is not used: the plan is blocked ({blocks[0].code})"
    return None


def image_of(host: Host, decision: Decision, devices: Mapping[_devices.Use, str], wishes: Wishes) -> dict[str, Any] | None:
    if decision.fit is None:
        return None
    variant = decision.fit.variant
    build = None
    if variant.source == "build":
        args = _recipe.build_args(variant, wishes.image_base, wishes.image_version)
        build = {
            "recipe_digest": _recipe.digest(wishes.context_digest(), args),
            "args": args,
            "host": wishes.build_host,
            "bring": _bring(wishes),
        }
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
        "expected": decision.driver is not None and decision.driver.changes,
        "devices": list(dict.fromkeys(devices.values())),
        "injection": decision.gpus.injection if devices and decision.gpus is not None else None,
        "gpu_count": 1 if any(use.mig for use in devices) else len(devices),
        "require_cuda": _requirement(host, decision, variant),
        "build": build,
    }


def _bring(wishes: Wishes) -> str:
    """Return how an image that is built comes to this host: build (here), pull (from the registry) or copy (from the build host)."""
    if wishes.build_host in (None, wishes.host):
        return "build"
    return "pull" if wishes.push else "copy"


def _brought(image: Mapping[str, Any], reason: str) -> tuple[str, str]:
    """Return the action that brings an image which is not there as planned, and the reason with the way that it takes."""
    if image["build"] is None:
        return image["source"], reason
    bring, builder = image["build"]["bring"], image["build"]["host"]
    ways = {"pull": f"; built once on {builder} and pulled from the registry", "copy": f"; built once on {builder} and copied from there"}
    return bring, reason + ways.get(bring, "")


def _requirement(host: Host, decision: Decision, variant: Variant) -> dict[str, Any] | None:
    """Return what the image's NVIDIA_REQUIRE_CUDA would say, and whether anybody asks."""
    if variant.require_cuda is None or decision.driver is None or decision.driver.expected is None or decision.gpus is None:
        return None
    driver = decision.driver.expected
    gpus = [(card.gpu.compute_capability, _require_cuda.brand(card.name)) for card in decision.gpus.choice.cards]
    mode, version = (_document.text(host.facts, "toolkit", key) for key in ("mode", "version"))
    enforced, why = _require_cuda.enforced(version, mode, _document.text(host.facts, "engine", "version"), decision.gpus.injection)
    try:
        result = _require_cuda.check_host(variant.require_cuda, driver.cuda, driver.version, gpus)
        satisfied, reason = result.satisfied, result.reason
    except _require_cuda.RequirementError as exc:
        satisfied, reason = None, str(exc).rstrip(".")
    return {
        "requirement": variant.require_cuda,
        "satisfied": satisfied,
        "enforced": enforced,
        "reason": f"{reason}; {'enforced' if enforced else 'not enforced'}: {why}",
    }


def rendered_of(decision: Decision, devices: Mapping[_devices.Use, str], wishes: Wishes) -> _service.Rendered | None:
    if decision.fit is None:
        return None
    variant = decision.fit.variant
    labels = {
        "org.difyops.variant": variant.name,
        "org.difyops.cuda": variant.cuda or "",
        "org.difyops.torch": variant.torch,
        _compose.MODE_LABEL: decision.mode,
    }
    image = _compose.Image(variant.image, variant.port, variant.health)
    by_runtime = decision.gpus is not None and decision.gpus.injection == _toolkit_settings.RUNTIME
    content, config = _compose.render(wishes.service, image, labels, list(dict.fromkeys(devices.values())), by_runtime)
    return _service.Rendered(wishes.service.compose_file, content, config, variant.health is not None)


def all_parts(
    host: Host,
    dify: object,
    decision: Decision,
    image: Mapping[str, Any] | None,
    rendered: _service.Rendered | None,
    platform: Platform,
    blocks: Sequence[Block],
    wishes: Wishes,
) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {
        "driver": _driver_part(host, decision),
        "engine": _platform_part(host, "engine", platform.engine, "Docker and its compose plugin are as needed"),
        "toolkit": _platform_part(host, "toolkit", platform.toolkit, _toolkit_reason(decision)),
        "image": image_part(dify, image) if "image" in wishes.apply else _left(_document.text(image, "reference")),
        "service": _service_part(dify, image, rendered, wishes),
    }
    for name, part in parts.items():
        messages = [block.message for block in blocks if block.part == name]
        if messages:
            part.update(action="blocked", to=None, reason="; ".join(messages))
        elif blocks and part["action"] != "none":
            # A role that looks at its own part only must not act on a blocked host either.
            part.update(action="blocked", reason=f"held back, because the plan is blocked ({blocks[0].code})")
    return parts


def _platform_part(host: Host, name: str, decision: _engine.Decision | _toolkit_wanted.Decision | None, fine: str) -> dict[str, Any]:
    version = _document.text(host.facts, name, "version")
    if decision is None or decision.action == _engine.NONE:
        return _part("none", version, version, fine)
    return _part(decision.action, decision.before, decision.expects or decision.to, decision.reason)


def _left(version: str | None) -> dict[str, Any]:
    return _part("none", version, version, NOT_PART_OF_THIS_RUN)


def _part(action: str, before: str | None, after: str | None, reason: str) -> dict[str, Any]:
    return {"action": action, "from": before, "to": after, "reason": reason}


def _driver_part(host: Host, decision: Decision) -> dict[str, Any]:
    flavour = _document.text(host.facts, "driver", "loaded", "flavour")
    if decision.driver is not None:
        driver = decision.driver
        part = _part(driver.action, driver.before, driver.to, driver.reason)
        comes = driver.changes or driver.action in (_driver.INSTALL, _driver.UPGRADE, _driver.REMOVE)
        return {**part, "flavour": driver.flavour if comes else flavour}
    reason = "left as it is: the service runs on the CPU" if decision.mode == DEGRADED else "no GPU needs a driver here"
    return {**_part("none", host.loaded, host.loaded, reason), "flavour": flavour}


def _toolkit_reason(decision: Decision) -> str:
    if decision.mode != GPU:
        return "not needed on the CPU"
    by_runtime = decision.gpus is not None and decision.gpus.injection == _toolkit_settings.RUNTIME
    return f"the engine can give the GPU to containers by {'NVIDIA' + chr(39) + 's runtime' if by_runtime else 'CDI'}"


def image_part(dify: object, image: Mapping[str, Any] | None) -> dict[str, Any]:
    if image is None:
        return _part("blocked", None, None, "no variant can be used")
    reference = image["reference"]
    there = _document.mapping(_document.at(dify, "images"), reference)
    have = _document.text(there, "id")
    if have is None:
        action, reason = _brought(image, "not on this host")
        return _part(action, None, reference, reason)
    if image["build"] is not None:
        label = _document.text(there, "labels", _recipe.LABEL)
        if label != image["build"]["recipe_digest"]:
            action, reason = _brought(image, "the recipe has changed" if label else "it was not built from a recipe of this collection")
            return _part(action, have, reference, reason)
    elif image["digest"] is not None and not any(known.endswith(f"@{image['digest']}") for known in _document.texts(there, "repo_digests")):
        return _part("pull", have, reference, "the image on this host has another digest")
    return _part("none", reference, reference, "on this host")


def _service_part(dify: object, image: Mapping[str, Any] | None, rendered: _service.Rendered | None, wishes: Wishes) -> dict[str, Any]:
    service = wishes.service
    container = _service.container_of(dify, service)
    before = _document.text(container, "image")
    if "service" not in wishes.apply:
        return _left(before)
    if image is None or rendered is None:
        return _part("blocked", before, None, "no service can be planned")
    reference = image["reference"]
    bringing = image_part(dify, image)
    image_id = _document.text(_document.at(dify, "images"), reference, "id") if bringing["action"] == "none" else None
    found = _service.differences(dify, service, rendered, image_id)
    if not found:
        return _part("none", before, reference, "as planned, running and healthy" if rendered.has_health else "as planned and running")
    return _part("update" if _service.exists(dify, service) else "create", before, reference, "; ".join(found))


def status(parts: Mapping[str, Mapping[str, Any]], blocks: Sequence[Block]) -> str:
    if blocks:
        return "blocked"
    return "change" if any(part["action"] != "none" for part in parts.values()) else "ok"


def reboot(host: Host, decision: Decision, blocks: Sequence[Block]) -> dict[str, Any]:
    planned = [decision.driver.reboot] if decision.driver is not None and decision.driver.reboot and not blocks else []
    reasons = dict.fromkeys([*planned, *_document.texts(host.facts, "driver", "reboot_reasons")])
    return {"required": bool(planned) or _document.flag(host.facts, "driver", "reboot_required") is True, "reasons": list(reasons)}


def restart(
    host: Host, dify: object, decision: Decision, platform: Platform, parts: Mapping[str, Mapping[str, Any]], wishes: Wishes
) -> dict[str, Any]:
    """Return what stops for a moment: an engine that is restarted, a driver that is replaced, a service that is made anew."""
    found = platform.engine
    planned = parts["engine"]["action"] != "blocked"
    engine = found is not None and planned and found.activation == _engine.RESTART
    cut_off = found is not None and engine and found.cuts_off
    guard = decision.driver.guard if decision.driver is not None and parts["driver"]["action"] != "blocked" else None
    driver = guard is not None
    there = _document.text(_service.container_of(dify, wishes.service), "state") == "running"
    service = there and (cut_off or driver or parts["service"]["action"] == "update")
    reasons = []
    if engine and found is not None:
        reasons.append(f"Docker is restarted, and {_stopped_with_docker(found)}")
    if guard is not None:
        reasons.append(f"the driver is changed, and {_stopped_on_the_gpu(guard)}")
    if service and parts["service"]["action"] == "update":
        reasons.append("the service's container is made anew")
    return {"engine": engine, "service": service, "reasons": reasons}


def _stopped_with_docker(engine: _engine.Decision) -> str:
    if engine.guard is None:
        return "no container stops for it"
    names = ", ".join(sorted(container.name for container in engine.guard.containers))
    return f"containers stop for a moment: {names}"


def _stopped_on_the_gpu(guard: Guard) -> str:
    names = sorted(container.name for container in guard.stop)
    if names:
        return f"containers are stopped and started again: {', '.join(names)}"
    return "what uses a GPU has to end by itself before" if guard.users else "nothing uses a GPU now"


def driver_advice(host: Host, gpus: Gpus | None, variants: Sequence[Variant], wishes: Wishes) -> dict[str, Any] | None:
    """Return what another driver would open: one that a reboot loads, or one that is supported; None where none would."""
    if gpus is None or gpus.driver.expected is None or gpus.blocks or wishes.force:
        return None
    cards = gpus.choice.cards
    products = tuple(card.product for card in cards if card.product is not None)
    if not cards or len(products) < len(cards):
        return None
    uses = tuple(card.gpu for card in cards)
    waiting = None if gpus.driver.changes else _driver.after_a_reboot(host, cards)
    return _advice.driver_advice(tuple(variants), wishes.preference, uses, products, gpus.driver.expected, wishes.today, waiting)


def warnings(
    host: Host,
    dify: object,
    decision: Decision,
    platform: Platform,
    parts: Mapping[str, Mapping[str, Any]],
    blocks: Sequence[Block],
    wishes: Wishes,
) -> list[dict[str, str]]:
    found = _notices.of_host(host, decision.driver, wishes.driver, wishes.today)
    if host.present:
        found += _notices.of_toolkit(host, str(parts["toolkit"]["action"]))
    found += _of_platform(host, decision, platform)
    found += decision.warnings
    retired = _retired(decision.fit.variant.wheel_index) if decision.fit is not None and decision.mode == GPU else None
    if retired is not None and not blocks:
        found.append(warning(_plan_codes.TORCH_RETIRED, retired))
    if not blocks and not isinstance(dify, Mapping):
        found.append(warning(_plan_codes.DIFY_NOT_OBSERVED, "what is deployed was not observed and is taken for not there"))
    return found


def _of_platform(host: Host, decision: Decision, platform: Platform) -> list[dict[str, str]]:
    """Return what is worth knowing of engine and toolkit, whoever changes them."""
    found = [*(platform.engine.warnings if platform.engine else ()), *(platform.toolkit.warnings if platform.toolkit else ())]
    by_runtime = decision.mode == GPU and decision.gpus is not None and decision.gpus.injection == _toolkit_settings.RUNTIME
    if by_runtime and not any(note["code"] == _plan_codes.LEGACY_INJECTION for note in found):
        found.append(warning(_plan_codes.LEGACY_INJECTION, _toolkit_wanted.legacy(host)))
    return found
