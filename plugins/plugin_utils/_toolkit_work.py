# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolkit's part of the plan in full, the document gpu_toolkit, as role nvidia_container_toolkit does it."""

from __future__ import annotations

from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _managed
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _package_answer,
    _package_sources,
    _plan_codes,
    _platform_document,
    _platform_packages,
    _platform_work,
    _toolkit,
    _toolkit_source,
    _toolkit_wanted,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_source import Target
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_answer import Answer
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT
from ansible_collections.difyops.gpu.plugins.plugin_utils._platform_packages import Transaction, Wanted
from ansible_collections.difyops.gpu.plugins.plugin_utils._platform_work import Told, Work
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_settings import UNMANAGED, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_wanted import Decision

_PLACE = _package_sources.TOOLKIT
_TITLE = "the NVIDIA Container Toolkit"
_RULES = "Holds and version locks of the container toolkit were set by the role difyops.gpu.nvidia_container_toolkit.\n"


def make(host: Host, decision: Decision, settings: Settings, told: Told) -> dict[str, Any]:
    """Return the document gpu_toolkit.

    Args:
        host: what was observed.
        decision: what becomes of the toolkit.
        settings: what the operator wants.
        told: what the host said so far.
    """
    document = _empty(decision)
    if settings.state == UNMANAGED:
        alone = _platform_work.left_alone(document, f"{option_of('state')} is {UNMANAGED}", "the toolkit", decision.blocks)
        return {**alone, "cdi": None, "containers": []}
    if decision.blocks:
        return _blocked(document, list(decision.blocks))
    if decision.action == _toolkit_wanted.NONE:
        return document
    work = Work()
    work.parts.update(
        status="change",
        repair=decision.repair,
        daemon_config=decision.daemon_config,
        activation=decision.activation,
        cdi=decision.cdi.as_dict() if decision.cdi is not None else None,
    )
    here = _toolkit_source.target(host)
    if here is not None and decision.action == _toolkit_wanted.REMOVE:
        _removal(work, host, decision, here, told)
    elif here is not None:
        _presence(work, host, decision, settings, here, told)
    document = {**document, **work.parts, "warnings": [*document["warnings"], *work.warnings]}
    return _blocked(document, work.blocks) if work.blocks else document


def _empty(decision: Decision) -> dict[str, Any]:
    return {
        **_platform_document.toolkit(),
        "action": decision.action,
        "from": decision.before,
        "to": decision.to,
        "expects": decision.expects,
        "reason": decision.reason,
        "source": "nvidia" if decision.brings and decision.action != _toolkit_wanted.REMOVE else None,
        "injection": decision.injection,
        "containers": [dict(container) for container in decision.containers],
        "warnings": list(decision.warnings),
    }


def _blocked(document: dict[str, Any], blocks: list[Block]) -> dict[str, Any]:
    unhurt = [{**container, "needs": "nothing", "reason": "nothing changes for it"} for container in document["containers"]]
    told = [note for note in document["warnings"] if note["code"] != _plan_codes.CONTAINERS_LOSE_GPU]
    return {**_platform_work.blocked(document, blocks), "cdi": None, "containers": unhurt, "warnings": told}


def _presence(work: Work, host: Host, decision: Decision, settings: Settings, here: Target, told: Told) -> None:
    named = _toolkit_source.repository(host, settings)
    version = decision.before
    if decision.brings:
        floor = None if decision.version is not None else _toolkit_wanted.floor(host, settings)
        apt_rules = here.manager == APT and decision.version is not None
        wanted = Wanted(
            place=_PLACE,
            manager=here.manager,
            title=_TITLE,
            origin="NVIDIA's repository" if not settings.repository.url else f"the repository {settings.repository.url}",
            remedy=_remedy(settings, floor),
            sets=(_toolkit_source.PACKAGES,),
            version=decision.version,
            minimum=floor,
            lockstep=True,
            is_own=_toolkit_source.is_own,
            # Counts more than the role's own file of an earlier version, which is still there while the transaction is tried.
            preferences=_toolkit_source.preferences(str(decision.version), _toolkit_source.PRIORITY + 1)["content"] if apt_rules else None,
        )
        # What an earlier run of the role left half installed is among the toolkit's own packages.
        transaction = _platform_work.bring(work, host, wanted, named, bool(settings.repository.url), told, decision.expects, False)
        if transaction is None:
            return
        version = transaction.version
        work.parts.update(to=version, expects=version)
    elif decision.keeps:
        _platform_work.add_repository(work, _platform_work.by_options(host, _PLACE, here.manager, named, told.key))
        if work.blocks:
            return
    if decision.keeps and version is not None:
        work.parts["pins"] = _pins(host, settings, here, version, decision.brings)


def _remedy(settings: Settings, floor: str | None) -> str:
    named = f"set {option_of('version')} to one that has all four packages, or leave it empty; " if settings.version else ""
    wanted = floor or _toolkit.FIRST_SAFE
    kept = wanted != _toolkit.FIRST_SAFE
    older = f"; or set {option_of('allow_downgrade')} to true: {wanted} is installed, and nothing older is taken unasked" if kept else ""
    return f"{named}complete the mirror, or set {option_of('repository')} to one that has {wanted} or newer{older}"


def _pins(host: Host, settings: Settings, here: Target, version: str, changes: bool) -> dict[str, Any]:
    rules = _toolkit_wanted.pins(host)
    managed = _platform_work.managed(host, _PLACE)
    names = _toolkit_source.PACKAGES if changes else tuple(_toolkit_wanted.installed(host))
    release = _platform_work.released(rules, names, here.manager, changes)
    if not settings.pin:
        mine = [pin for pin in rules if _toolkit_wanted.is_ours(host, pin)]
        release = release if changes else _platform_work.released(mine, names, here.manager, True)
        return {
            "release": release,
            "files": {path: None for path in (_PLACE.preferences, _managed.RULES) if path in managed},
            "holds": [],
            "versionlocks": [],
        }
    kept = _platform_work.kept(rules, names, here.manager, version, changes)
    if not changes and kept["versionlocks"]:
        # A lock to another version stays in the way of one to this.
        release = _platform_work.released(rules, names, here.manager, True)
        kept["versionlocks"] = list(names)
    files = {_PLACE.preferences: _toolkit_source.preferences(version)} if here.manager == APT else {}
    if changes or kept["versionlocks"] or kept["holds"]:
        files[_managed.RULES] = _package_sources.rendered(_RULES)
    return {"release": release, "files": files, **kept}


def _removal(work: Work, host: Host, decision: Decision, here: Target, told: Told) -> None:
    """Add the work of taking everything away that the role brought, and the toolkit."""
    rules = _toolkit_wanted.pins(host)
    managed = _platform_work.managed(host, _PLACE)
    answer = Answer(told.packages) if told.packages is not None else None
    names = list(dict.fromkeys([*_toolkit_source.PACKAGES, *_platform_packages.of_kind(rules, "hold")]))
    work.parts.update(query=_platform_packages.absent(_PLACE), to=None, expects=None)
    # With the content null each of these files goes, after the packages.
    files = {path: None for path in (*_PLACE.all_of_repository, _PLACE.preferences, _managed.RULES) if path in managed}
    release = _platform_work.released(rules, names, here.manager, True)
    work.parts["pins"] = {"release": release, "files": files, "holds": [], "versionlocks": []}
    if answer is None:
        work.parts["exact"] = False
        return
    work.blocks += _package_answer.hindrances(_PLACE, _TITLE, answer, decision.repair, _toolkit_source.is_own)
    if decision.before is not None and not answer.remove:
        why = (answer.error or "the package manager names no package that would go").rstrip(".")
        message = f"NVIDIA Container Toolkit {decision.before} cannot be removed: {why}"
        work.blocks.append(Block("toolkit", _plan_codes.PACKAGES_FAILED, message, "do what is named, then run again"))
    work.parts["repair"] = decision.repair or _package_answer.is_interrupted(answer)
    remove = tuple({"name": entry["name"], "from": entry["from"]} for entry in answer.remove)
    work.parts["packages"] = Transaction(remove=remove).as_dict()
