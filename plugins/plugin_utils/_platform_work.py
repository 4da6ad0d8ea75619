# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents gpu_engine and gpu_toolkit have in common: packages, their repository, and what keeps them as they are.

What comes is known in steps, as with the driver: first what is wanted, then (the host was asked) what that means in packages, and where
the host lacks a source of packages, only after that was added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _document,
    _package_answer,
    _package_sources,
    _plan_codes,
    _platform_document,
    _platform_packages,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_answer import Answer
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, Needed, Repository
from ansible_collections.difyops.gpu.plugins.plugin_utils._platform_packages import Transaction, Wanted


class Work:
    """Parts of a document, with what is in the way and what is to be known."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self.blocks: list[Block] = []
        self.warnings: list[dict[str, str]] = []


class Told(NamedTuple):
    """What the host answered, and the content of the repository's key file; None before either is known."""

    packages: Mapping[str, Any] | None = None
    key: bytes | None = None


def facts(host: Host, place: _package_sources.Place) -> Mapping[str, Any]:
    """Return what was observed of a part."""
    return _document.mapping(host.facts, place.part)


def managed(host: Host, place: _package_sources.Place) -> Mapping[str, Any]:
    """Return the files of a role that are on the host, by path."""
    return _document.mapping(host.facts, place.part, "managed")


def installed(host: Host, place: _package_sources.Place) -> list[str]:
    """Return the packages of a part that are on the host."""
    packages = facts(host, place).get("packages")
    if isinstance(packages, Mapping):
        return [str(name) for name, version in packages.items() if isinstance(version, str) and version]
    return [name for name in (_document.text(package, "name") for package in _document.mappings({"all": packages}, "all")) if name]


def bring(
    work: Work, host: Host, wanted: Wanted, named: Repository | None, own_url: bool, told: Told, expects: str | None, finishes: bool
) -> Transaction | None:
    """Add the parts about packages that come; return them, or None while it is not known exactly which do, or where they cannot.

    Args:
        work: what is added to.
        host: what was observed.
        wanted: the packages.
        named: the repository that has them, None where the host's own sources have.
        own_url: whether the operator named the repository, so that it is used even where the host has another.
        told: what the host said so far.
        expects: the version for sentences.
        finishes: whether an earlier run may have left packages half installed.
    """
    place = wanted.place
    work.parts["query"] = wanted.query()
    answer = Answer(told.packages) if told.packages is not None else None
    # Whoever has fetched the key was told by an answer before that the repository is needed.
    known = Answer({}) if answer is None and told.key is not None else answer
    if known is None:
        repository = by_options(host, wanted.place, wanted.manager, named, None)
    else:
        repository = _repository(host, wanted, named, own_url, known, told.key)
    add_repository(work, repository)
    if answer is not None:
        work.blocks += _package_answer.hindrances(place, wanted.title, answer, finishes, wanted.is_own)
        work.parts["repair"] = bool(_document.mappings(facts(host, place), "broken")) or _package_answer.is_interrupted(answer)
    if work.blocks:
        return None
    if answer is None or (repository is not None and repository.change):
        _wait(work, wanted, expects, answer is not None)
        return None
    found = _platform_packages.transaction(wanted, answer)
    work.blocks += found.blocks
    if found.blocks:
        return None
    work.parts.update(exact=True, packages=found.as_dict())
    return found


def by_options(host: Host, place: _package_sources.Place, manager: str, named: Repository | None, key: bytes | None) -> Needed | None:
    """Return the repository whose file of the role is another than the options tell; None where it is not there or as it should be."""
    if named is None:
        return None
    path, content = _package_sources.of_repository(place, manager, named)
    there = managed(host, place)
    if path not in there or _package_sources.is_there(there, path, content):
        return None
    return _package_sources.needed(_package_sources.Wanted(place, manager, named, there), [], key)


def _repository(host: Host, wanted: Wanted, named: Repository | None, own_url: bool, answer: Answer, key: bytes | None) -> Needed | None:
    """Return the repository that the host needs, None where its own sources will do."""
    if named is None:
        return None
    place, there = wanted.place, managed(host, wanted.place)
    if not own_url and place.file(wanted.manager) not in there:
        enough = answer.choice is not None and _platform_packages.fits(answer.version, wanted)
        if not _package_sources.has_ours(place, answer.sources) and enough:
            return None
        if _package_sources.has_own(place, answer.sources, named.url):
            return None
    return _package_sources.needed(_package_sources.Wanted(place, wanted.manager, named, there), answer.sources, key)


def add_repository(work: Work, repository: Needed | None) -> None:
    """Add a repository to the document, or that there is none."""
    work.parts["repository"] = repository.as_dict() if repository is not None else None
    work.blocks += [repository.block] if repository is not None and repository.block is not None else []


def _wait(work: Work, wanted: Wanted, expects: str | None, asked: bool) -> None:
    """Add that the exact packages are not known yet, and after what they are."""
    after = "the repository is added" if asked else "the package lists are read"
    text = expects or wanted.version or "the newest"
    exact = text if wanted.version == text and text.count(".") > 1 else f"{text}, exact version after {after}"
    work.parts.update(exact=False, expects=exact)
    if asked:
        message = f"{wanted.title} {text} is wanted; whether and in which version it can be had is known after {after}"
        work.warnings.append(warning(_plan_codes.VERSION_NOT_KNOWN_YET, message))


def released(pins: Sequence[Mapping[str, Any]], names: Sequence[str], manager: str, changes: bool) -> dict[str, list[str]]:
    """Return which rules are taken away before packages change."""
    if not changes:
        return {"holds": [], "versionlocks": []}
    if manager == APT:
        return {"holds": [name for name in _platform_packages.of_kind(pins, "hold") if name in names], "versionlocks": []}
    return {"holds": [], "versionlocks": _platform_packages.locks(pins)}


def kept(pins: Sequence[Mapping[str, Any]], names: Sequence[str], manager: str, version: str | None, changes: bool) -> dict[str, list[str]]:
    """Return which packages are held (apt) or locked (dnf) afterwards: only what no rule keeps already."""
    kind = "hold" if manager == APT else "versionlock"
    found = list(names) if changes else _platform_packages.loose(pins, kind, names, version)
    return {"holds": found if manager == APT else [], "versionlocks": [] if manager == APT else found}


def blocked(document: dict[str, Any], blocks: Sequence[Block]) -> dict[str, Any]:
    """Return the document of a host that nothing is done on: of the work, only what is in the way is told."""
    return {**document, **_platform_document.no_work(), "status": "blocked", "blocked": [block.as_dict() for block in blocks]}


def left_alone(document: dict[str, Any], wish: str, what: str, blocks: Sequence[Block]) -> dict[str, Any]:
    """Return the document of what nobody is to touch: what is wrong with it is told, and is in the way of nothing."""
    told = [warning(block.code, block.message, block.remedy) for block in blocks]
    return {
        **document,
        **_platform_document.no_work(),
        "status": "ok",
        "action": "none",
        "to": document["from"],
        "expects": document["from"],
        "reason": f"{wish}, and {what} is left as it is",
        "warnings": told,
    }
