# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver's part of the plan in full: packages, repositories, pins, files and services, as role nvidia_driver does them.

What comes is known in steps: first what is wanted, then (the host was asked which packages it could get) what that means in packages, and
where the host lacks a source of packages, only after that was added.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _document,
    _driver_activation,
    _driver_files,
    _driver_names,
    _driver_query,
    _driver_source,
    _driver_state,
    _driver_transaction,
    _driver_wanted,
    _package_answer,
    _plan_codes,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver import CONFIGURE, INSTALL, NONE, REMOVE, UPGRADE
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import ABSENT, KEEP, NVIDIA, UNMANAGED, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_transaction import Transaction
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_answer import Answer
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, DNF, Needed

if TYPE_CHECKING:
    from ansible_collections.difyops.gpu.plugins.plugin_utils._driver import Decision
    from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
    from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

SCHEMA = 1


def make(
    host: Host,
    decision: Decision,
    settings: Settings,
    packages: Mapping[str, Any] | None,
    today: datetime.date,
    key: bytes | None = None,
) -> dict[str, Any]:
    """Return the document gpu_driver.

    Args:
        host: what was observed.
        decision: what becomes of the driver.
        settings: what the operator wants.
        packages: what nvidia_packages_info answered, None before it was asked.
        today: the day of the plan.
        key: content of the repository's key file, None before it was fetched.
    """
    document = _empty(decision)
    if settings.way == KEEP and settings.state != ABSENT:
        return _left_alone(document, host, decision, settings)
    if decision.blocks:
        return _blocked(document, host, decision, decision.blocks)
    if decision.action == NONE:
        return document
    document["status"] = "change"
    refused = _driver_source.refusal(host) or _driver_source.unavailable(host, decision.source)
    if refused is not None:
        return _blocked(document, host, decision, [refused])
    work = _removal(host, decision, packages) if decision.action == REMOVE else _presence(host, decision, settings, packages, key)
    document.update(work.parts)
    document["warnings"] += work.warnings
    return _blocked(document, host, decision, work.blocks) if work.blocks else document


class _Work:
    """Parts of the document, with what is in the way and what is to be known."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self.blocks: list[Block] = []
        self.warnings: list[dict[str, str]] = []


def _empty(decision: Decision) -> dict[str, Any]:
    """Return the document in which nothing is to be done."""
    target = decision.target
    return {
        "schema": SCHEMA,
        "host": "",
        "status": "ok",
        "action": decision.action,
        "from": decision.before,
        "to": decision.to,
        "reason": decision.reason,
        "blocked": [],
        "warnings": [],
        "target": None
        if target is None
        else {
            "branch": str(target.branch),
            "version": target.version,
            "flavour": target.flavour,
            "source": target.source,
            "kernel_modules": None,
        },
        "exact": True,
        "expects": decision.to,
        "repository": None,
        "query": None,
        "packages": Transaction().as_dict(),
        "repair": decision.repair,
        "pins": {"release": {"holds": [], "versionlocks": []}, "files": {}, "holds": False, "versionlocks": False},
        "files": {},
        "initramfs": False,
        "services": [],
        "guard": decision.guard.as_dict() if decision.guard is not None else None,
        "restart": [container._asdict() for container in decision.restart],
        "activation": decision.activation,
        "fallback": decision.fallback,
        "reboot": {
            "required": decision.activation in (_driver_activation.REBOOT, _driver_activation.LATER),
            "reasons": [decision.reboot] if decision.reboot else [],
        },
    }


def _left_alone(document: dict[str, Any], host: Host, decision: Decision, settings: Settings) -> dict[str, Any]:
    """Return the document of a driver that nobody is to touch: what is wrong with it is told, and is in the way of nothing.

    Only containers that an interrupted run stopped are started again.
    """
    wish = f"{option_of('state')} is {UNMANAGED}" if settings.state == UNMANAGED else f"{option_of('policy')} is {KEEP}"
    told = [warning(block.code, block.message, block.remedy) for block in decision.blocks]
    reason = f"{wish}, and the driver is left as it is"
    return {**document, "action": NONE, "reason": reason, "warnings": told, "restart": _to_start(host, decision)}


def _to_start(host: Host, decision: Decision) -> list[dict[str, str]]:
    """Return the containers of an interrupted run that can be started though nothing else is done: the driver that is there serves them."""
    return [container._asdict() for container in decision.restart] if _driver_state.works(host) else []


def _blocked(document: dict[str, Any], host: Host, decision: Decision, blocks: Sequence[Block]) -> dict[str, Any]:
    """Return the document of a host that nothing is done on: of the work, only what is in the way is told.

    Containers that an interrupted run stopped need not wait for what is in the way.
    """
    nothing = {
        "status": "blocked",
        "blocked": [block.as_dict() for block in blocks],
        "repository": None,
        "query": None,
        "packages": Transaction().as_dict(),
        "repair": False,
        "pins": {"release": {"holds": [], "versionlocks": []}, "files": {}, "holds": False, "versionlocks": False},
        "files": {},
        "initramfs": False,
        "services": [],
        "restart": _to_start(host, decision),
        "activation": _driver_activation.NONE,
        "fallback": None,
        "reboot": {"required": False, "reasons": []},
    }
    return {**document, **nothing}


# -- a driver that is to be there ------------------------------------------------------------------------------------


def _presence(host: Host, decision: Decision, settings: Settings, packages: Mapping[str, Any] | None, key: bytes | None) -> _Work:
    work = _Work()
    # Nobody knows how far an interrupted run came with the initramfs.
    work.parts["initramfs"] = decision.finishes
    kept = _is_kept(host, decision, settings)
    beside = decision.action == CONFIGURE and kept and _driver_files.lacks_fabric_manager(host, settings)
    transaction = None
    if (decision.brings_packages or beside) and decision.target is not None:
        transaction = _bring(work, host, decision, settings, packages, key)
        if work.blocks or transaction is None:
            return work
    elif kept:
        source = _driver_files.source_of_installed(host, settings)
        _add_repository(work, _driver_query.by_options(host, settings, source, key) if source is not None else None)
        if work.blocks:
            return work
    version = transaction.version if transaction is not None and transaction.version else host.installed
    if kept and version is not None and version.partition(".")[0].isdigit():
        _keep(work, host, decision, settings, version, transaction)
    return work


def _is_kept(host: Host, decision: Decision, settings: Settings) -> bool:
    """Whether the driver is ours to keep: brought by this run, named by the operator, or kept already. Somebody else's is left as it is."""
    brought = decision.action in (INSTALL, UPGRADE) and decision.to != host.installed
    return brought or bool(_driver_files.managed(host)) or _driver_wanted.meets(host, settings, host.installed)


def _bring(
    work: _Work, host: Host, decision: Decision, settings: Settings, packages: Mapping[str, Any] | None, key: bytes | None
) -> Transaction | None:
    """Add the part about packages; None while it is not known exactly which come."""
    target = decision.target
    if target is None:
        return None
    wanted = _driver_query.wanted(host, settings, target)
    query = _driver_query.present(host, settings, wanted, target.version)
    work.parts["query"] = query
    answer = Answer(packages) if packages is not None else None
    # Whoever has fetched the key was told by an answer before that the repository is needed.
    known = Answer({}) if answer is None and key is not None else answer
    if known is None:
        repository = _driver_query.by_options(host, settings, wanted.source, None)
    else:
        repository = _driver_query.repository(host, settings, wanted.source, known, key)
    _add_repository(work, repository)
    if answer is not None:
        work.blocks += _driver_transaction.hindrances(answer, decision.finishes)
        work.parts["repair"] = decision.repair or _package_answer.is_interrupted(answer)
    if work.blocks:
        return None
    if answer is None or (repository is not None and repository.change):
        _wait(work, target.name, target.version, answer is not None)
        return None
    return _settle(work, host, settings, wanted, query, answer)


def _add_repository(work: _Work, repository: Needed | None) -> None:
    work.parts["repository"] = repository.as_dict() if repository is not None else None
    work.blocks += [repository.block] if repository is not None and repository.block is not None else []


def _settle(
    work: _Work, host: Host, settings: Settings, wanted: _driver_names.Wanted, query: Mapping[str, Any], answer: Answer
) -> Transaction | None:
    result = _driver_transaction.of(host, settings, wanted, query, answer)
    work.blocks += result.blocks
    transaction = result.transaction
    if transaction is None:
        return None
    work.parts.update(exact=True, expects=transaction.version, packages=transaction.as_dict())
    work.parts["target"] = {
        "branch": str(wanted.branch),
        "version": query["version"],
        "flavour": wanted.flavour,
        "source": wanted.source,
        "kernel_modules": transaction.kernel_modules,
    }
    return transaction


def _wait(work: _Work, name: str, version: str | None, asked: bool) -> None:
    """Add that the exact packages are not known yet, and after what they are."""
    after = "the repository is added" if asked else "the package lists are read"
    expects = version or f"{name}.*, exact version after {after}"
    work.parts.update(exact=False, expects=expects)
    if asked:
        message = f"driver {version or f'{name}.*'} is wanted; whether and in which version it can be had is known after {after}"
        work.warnings.append(warning(_plan_codes.VERSION_NOT_KNOWN_YET, message))


def _keep(work: _Work, host: Host, decision: Decision, settings: Settings, version: str, transaction: Transaction | None) -> None:
    """Add what keeps the driver as it is: pins, the rules of modprobe, services."""
    here = _driver_source.of_target(host)
    pin = _driver_files.pin_of(settings, version, int(version.partition(".")[0]))
    changes = transaction is not None and bool(transaction.install or transaction.remove)
    if here.manager == APT:
        by_nvidia = pin is not None and (
            transaction.pinned if transaction is not None else decision.source == NVIDIA and _driver_files.pinned_by_nvidia(host, pin)
        )
        holds = pin is not None and pin.exact and not by_nvidia
        release = {"holds": _driver_query.rules(host, "hold") if changes or not holds else [], "versionlocks": []}
        files = _driver_files.pin_files(host, pin, by_nvidia)
        work.parts["pins"] = {"release": release, "files": files, "holds": holds, "versionlocks": False}
    else:
        # Without streams nothing but the version can be locked.
        locks = pin is not None and (pin.exact or not here.streams)
        release = {"holds": [], "versionlocks": _driver_query.locks(host) if changes or not locks else []}
        work.parts["pins"] = {"release": release, "files": {}, "holds": False, "versionlocks": locks}
    modprobe = _driver_files.modprobe()
    stale = _driver_query.stale_repository(host, work.parts.get("repository"), decision.source, transaction is not None)
    work.parts["files"] = {_driver_files.MODPROBE: modprobe, **stale}
    work.parts["initramfs"] = decision.finishes or not _driver_files.is_there(host, _driver_files.MODPROBE, modprobe)
    wanted = _driver_files.services(host, settings, _loads(host, decision))
    daemon = _has_daemon(host, transaction)
    work.parts["services"] = [service for service in wanted if daemon or service["name"] != _driver_files.PERSISTENCED]


def _has_daemon(host: Host, transaction: Transaction | None) -> bool:
    """Whether the persistence daemon is there when the role has ended: Ubuntu has it in a package of another name."""
    brings = _carries_daemon(transaction.install) if transaction is not None else False
    takes = _carries_daemon(transaction.remove) if transaction is not None else False
    return brings or (_document.flag(host.facts, "driver", "persistenced", "installed") is True and not takes)


def _carries_daemon(packages: Sequence[Mapping[str, Any]]) -> bool:
    return any(str(package["name"]).startswith((_driver_files.PERSISTENCED, "nvidia-compute-utils")) for package in packages)


def _loads(host: Host, decision: Decision) -> bool:
    """Whether the driver is in the kernel when the role has ended."""
    if decision.activation == _driver_activation.NONE:
        return host.loaded is not None
    return decision.activation != _driver_activation.LATER


# -- a driver that is to go ------------------------------------------------------------------------------------------


def _removal(host: Host, decision: Decision, packages: Mapping[str, Any] | None) -> _Work:
    """Return the work of taking everything away that the role brought, and the driver."""
    work = _Work()
    here = _driver_source.of_target(host)
    managed = _driver_files.managed(host)
    work.parts.update(expects=None, query=_driver_query.absent(here), target=None)
    work.parts["pins"] = {
        "release": {"holds": _driver_query.rules(host, "hold"), "versionlocks": _driver_query.locks(host)},
        "files": {path: None for path in _driver_files.OF_PINS if path in managed},
        "holds": False,
        "versionlocks": False,
    }
    work.parts["files"] = {path: None for path in managed if path not in _driver_files.OF_PINS}
    work.parts["initramfs"] = decision.finishes or _driver_files.MODPROBE in managed
    answer = Answer(packages) if packages is not None else None
    if answer is None:
        work.parts["exact"] = False
        return work
    work.blocks += _driver_transaction.hindrances(answer, decision.finishes) + _driver_transaction.not_removable(host, answer)
    work.parts["repair"] = decision.repair or _package_answer.is_interrupted(answer)
    has_stream = here.manager == DNF and bool(_driver_query.rules(host, "module_stream"))
    work.parts["packages"] = _driver_transaction.removal(answer, reset=has_stream).as_dict()
    return work
