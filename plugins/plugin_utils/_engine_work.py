# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's part of the plan in full, the document gpu_engine, as role container_engine does it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _document,
    _engine,
    _engine_source,
    _package_sources,
    _plan_codes,
    _platform_document,
    _platform_packages,
    _platform_work,
    _toolkit,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._engine import Decision
from ansible_collections.difyops.gpu.plugins.plugin_utils._engine_settings import DOCKER, UNMANAGED, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._platform_packages import Transaction
from ansible_collections.difyops.gpu.plugins.plugin_utils._platform_work import Told, Work

_PLACE = _package_sources.ENGINE
_COMPOSE = frozenset({"docker-compose", "docker-compose-v2", "docker-compose-plugin"})


def make(host: Host, decision: Decision, settings: Settings, told: Told) -> dict[str, Any]:
    """Return the document gpu_engine.

    Args:
        host: what was observed.
        decision: what becomes of the engine.
        settings: what the operator wants.
        told: what the host said so far.
    """
    document = _empty(decision)
    if settings.state == UNMANAGED:
        wish = f"{option_of('state')} is {UNMANAGED}"
        return {**_platform_work.left_alone(document, wish, "Docker", decision.blocks), "service": None, "guard": None}
    if decision.blocks:
        return _blocked(document, decision, list(decision.blocks))
    if decision.action == _engine.NONE:
        return {**document, "reason": "Docker and its compose plugin are as needed"}
    work = Work()
    work.parts.update(status="change", daemon_config=decision.daemon_config, service=decision.service, repair=decision.repair)
    work.parts["activation"] = decision.activation
    transaction = _packages(work, host, decision, settings, told) if decision.names else None
    if transaction is not None:
        _settle(work, host, decision, settings, transaction)
    elif decision.names == () and decision.holds:
        work.parts["pins"] = _pins(host, decision, settings, None)
    document = {**document, **work.parts, "warnings": [*document["warnings"], *work.warnings]}
    return _blocked(document, decision, work.blocks) if work.blocks else document


def _empty(decision: Decision) -> dict[str, Any]:
    notes = [*_journal(decision), *decision.warnings]
    return {
        **_platform_document.engine(),
        "action": decision.action,
        "from": decision.before,
        "to": decision.to,
        "expects": decision.expects,
        "reason": decision.reason,
        "source": decision.source if decision.names else None,
        "guard": decision.guard.as_dict() if decision.guard is not None else None,
        "restart": [container._asdict() for container in decision.restart],
        "warnings": notes,
    }


def _journal(decision: Decision) -> list[dict[str, str]]:
    what = "a run that changed Docker was interrupted"
    return [warning(_plan_codes.RUN_WAS_INTERRUPTED, what, "this run finishes it")] if decision.finishes else []


def _blocked(document: dict[str, Any], decision: Decision, blocks: list[Block]) -> dict[str, Any]:
    """Return the document of an engine that nothing is done to. Containers of an interrupted run need not wait for what is in the way."""
    told = [note for note in document["warnings"] if note["code"] != _plan_codes.RUN_WAS_INTERRUPTED]
    if decision.finishes:
        told.insert(0, warning(_plan_codes.RUN_WAS_INTERRUPTED, "a run that changed Docker was interrupted"))
    return {**_platform_work.blocked(document, blocks), "service": None, "warnings": told}


def _packages(work: Work, host: Host, decision: Decision, settings: Settings, told: Told) -> Transaction | None:
    here = _engine_source.target(host)
    if here is None or decision.source is None:
        return None
    wanted = _platform_packages.Wanted(
        place=_PLACE,
        manager=here.manager,
        title="Docker" if decision.whole else " and ".join(decision.names),
        origin=_engine_source.phrase(decision.source),
        remedy=_remedy(settings, decision.source),
        sets=(decision.names,),
        version=settings.version if decision.whole else None,
        minimum=_toolkit.CDI_FLOOR if decision.whole else settings.compose_min if decision.names[0] in _COMPOSE else None,
        lockstep=False,
        is_own=_engine_source.is_own,
        # Without a Docker they serve somebody else, unless an interrupted run has taken Docker away.
        keeps=frozenset() if decision.finishes or _has_docker(host) else _engine_source.SHARED,
    )
    named = _engine_source.repository(host, settings, decision.source)
    finishes = decision.finishes or decision.repair
    return _platform_work.bring(work, host, wanted, named, bool(settings.repository.url), told, decision.expects, finishes)


def _remedy(settings: Settings, source: str) -> str:
    named = [f"set {option_of('version')} to one of these, or leave it empty"] if settings.version else []
    return ", or ".join([*named, _elsewhere(source)])


def _elsewhere(source: str | None) -> str:
    """Return where something newer may be had than a source has."""
    if source != DOCKER:
        return f"set {option_of('source')} to {DOCKER}"
    return f"set {option_of('compose_min')} to what is there, or {option_of('repository')} to a mirror that has more"


def _settle(work: Work, host: Host, decision: Decision, settings: Settings, transaction: Transaction) -> None:
    """Add what follows from the packages: the version, who is cut off after all, and holds."""
    core = [entry for entry in transaction.install if _engine_source.restarts(_bare(entry))]
    engine = next((entry for entry in core if _engine_source.is_engine(_bare(entry))), None)
    version = _engine_source.upstream(engine["to"]) if engine is not None else None
    again = replace(decision, names=tuple(sorted(_touched(transaction))), to=transaction.version if decision.whole else version)
    found = (
        _compose_too_old(decision, settings, transaction),
        _engine.backwards(decision, version),
        _engine.held(host, settings, again),
    )
    if any(block is not None for block in found):
        work.blocks += [block for block in found if block is not None]
        return
    if not decision.whole:
        work.parts.update(to=version or decision.before)
        work.parts["expects"] = work.parts["to"]
        if core:
            _more_than_a_plugin(work, host, decision, settings, core)
    else:
        work.parts.update(to=transaction.version, expects=transaction.version)
    work.parts["pins"] = _pins(host, decision, settings, transaction)


def _has_docker(host: Host) -> bool:
    return _document.text(host.facts, "engine", "name") is not None


def _bare(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).partition(":")[0]


def _touched(transaction: Transaction) -> set[str]:
    """Return those of Docker's packages that come, change or go."""
    return {_bare(entry) for entry in (*transaction.install, *transaction.remove) if _engine_source.is_own(_bare(entry))}


def _upstream(version: str | None) -> str | None:
    return version.rpartition(":")[2] if version else None


def _more_than_a_plugin(work: Work, host: Host, decision: Decision, settings: Settings, core: list[dict[str, Any]]) -> None:
    names = ", ".join(str(entry["name"]) for entry in core)
    again = _engine.reguarded(host, settings, decision, f"{decision.reason}; {names} changes with it")
    work.parts.update(activation=again.activation, guard=again.guard.as_dict() if again.guard is not None else None)
    work.blocks += again.blocks


def _compose_too_old(decision: Decision, settings: Settings, transaction: Transaction) -> Block | None:
    """Return that the compose plugin that comes is too old; None where it will do, or none comes."""
    for entry in transaction.install:
        if str(entry["name"]).partition(":")[0] in _COMPOSE and entry["to"] is not None:
            version = _upstream(str(entry["to"]))
            if _versions.parse(version) is not None and not _versions.at_least(version, settings.compose_min):
                where = _engine_source.phrase(decision.source)
                message = f"needed is Compose {settings.compose_min} or newer, and {where} has {entry['to']} ({entry['name']})"
                return Block("engine", _plan_codes.SOURCE_TOO_OLD, message, _elsewhere(decision.source))
    return None


def _pins(host: Host, decision: Decision, settings: Settings, transaction: Transaction | None) -> dict[str, Any]:
    """Return which rules are taken away for the packages and set again after them: with `hold` for all of Docker's, else the same ones."""
    here = _engine_source.target(host)
    manager = here.manager if here is not None else _package_sources.APT
    touched = _touched(transaction) if transaction is not None else set()
    gone = {_bare(entry) for entry in transaction.remove} if transaction is not None else set()
    pins = _document.mappings(host.facts, "engine", "pins")
    in_the_way = [pin for pin in pins if any(_names(pin, name) for name in touched)]
    release = _platform_work.released(in_the_way, sorted(touched), manager, transaction is not None)
    names = [name for name in (*_platform_work.installed(host, _PLACE), *decision.names) if name not in gone]
    own = list(dict.fromkeys(name for name in names if _engine_source.is_own(name)))
    if settings.hold:
        loose = _platform_work.kept(pins, own, manager, None, False)
        keep = {name for name in own if name in touched} | {name for kind in loose.values() for name in kind}
    else:
        kinds = ("hold",) if manager == _package_sources.APT else ("versionlock",)
        keep = {name for name in own for pin in in_the_way if pin.get("kind") in kinds and _names(pin, name)}
    again = _platform_work.kept(pins, [name for name in own if name in keep], manager, None, True)
    return {"release": release, "files": {}, **again}


def _names(pin: Mapping[str, Any], name: str) -> bool:
    pattern = _document.text(pin, "name") or ""
    return pattern == name or fnmatch.fnmatchcase(name, pattern)
