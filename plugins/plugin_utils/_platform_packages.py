# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of engine and toolkit: what a host is asked, what its answer means, and which rules of others are in the way."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _package_answer, _package_sources, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_answer import Answer, few
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, Place

_KINDS = {"hold": "is held", "preference": "is pinned", "versionlock": "is locked", "exclude": "is excluded"}
_PRIORITY = re.compile(r"priority\s+(-?[0-9]+)")
# How nvidia_packages_info ends its sentence where a repository of dnf has no lists on the host.
_UNREAD = "were not read on this host"
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)+")


class Wanted(NamedTuple):
    """Packages that are to come.

    `title` is what they are for sentences, `origin` where they come from, `remedy` what to do where they cannot be had. `sets` are
    alternatives of names; `version` is an upstream version, what it begins with, or None; below `minimum` nothing is taken. With
    `lockstep` all have one upstream version. `is_own` tells which packages of a host may change or go for them. `preferences` is text
    for apt that counts while the host is asked. `keeps` are own packages that may not go, since others use them here.
    """

    place: Place
    manager: str
    title: str
    origin: str
    remedy: str
    sets: tuple[tuple[str, ...], ...]
    version: str | None
    minimum: str | None
    lockstep: bool
    is_own: Callable[[str], bool]
    preferences: str | None = None
    keeps: frozenset[str] = frozenset()

    def query(self) -> dict[str, Any]:
        """Return the options of nvidia_packages_info."""
        return {
            "subject": self.place.part,
            "state": "present",
            "version": self.version,
            "minimum": self.minimum,
            "alternatives": [list(names) for names in self.sets],
            "lockstep": self.lockstep,
            "preferences": self.preferences,
        }


def absent(place: Place) -> dict[str, Any]:
    """Return the question about packages that are to go."""
    return {
        "subject": place.part,
        "state": "absent",
        "version": None,
        "minimum": None,
        "alternatives": [],
        "lockstep": False,
        "preferences": None,
    }


@dataclass(frozen=True)
class Transaction:
    """What the package manager does, as far as nothing is in the way (`blocks`). `version` is that of what comes."""

    version: str | None = None
    install: tuple[dict[str, Any], ...] = ()
    remove: tuple[dict[str, Any], ...] = ()
    specs: tuple[str, ...] = ()
    download: int | None = 0
    blocks: tuple[Block, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        install, remove = [dict(package) for package in self.install], [dict(package) for package in self.remove]
        return {"install": install, "remove": remove, "specs": list(self.specs), "download_mib": self.download}


def begins(version: str | None, wanted: str | None) -> bool:
    """Whether an upstream version is the wanted one, or begins with it: 28.5.2 begins with 28 and 28.5, and not with 28.50."""
    if wanted is None:
        return True
    return version is not None and (version == wanted or version.startswith(f"{wanted}."))


def fits(version: str | None, wanted: Wanted) -> bool:
    """Whether an upstream version is what was asked for."""
    return begins(version, wanted.version) and (wanted.minimum is None or _versions.at_least(version, wanted.minimum))


def transaction(wanted: Wanted, answer: Answer) -> Transaction:
    """Return what the package manager would do by its answer, or why that is not to be."""
    names = wanted.sets[answer.choice] if answer.choice is not None and answer.choice < len(wanted.sets) else ()
    if not names or not fits(answer.version, wanted):
        return Transaction(blocks=(_not_to_be_had(wanted, answer, bool(names)),))
    brought = {_bare(name) for name in _document.texts(answer.raw, "brought")}
    gone = [str(entry["name"]) for entry in answer.remove]
    ours = {_bare(name) for name in gone if wanted.is_own(_bare(name)) and _bare(name) not in wanted.keeps}
    others = [name for name in gone if _bare(name) not in ours | brought]
    blocks = list(_package_answer.space(wanted.place, answer))
    if others:
        message = f"for {wanted.title} packages of others would be removed: {few(others)}"
        remedy = "see what needs them, and remove them yourself where nobody does, then run again"
        blocks.insert(0, Block(wanted.place.part, _plan_codes.REMOVES_OTHERS, message, remedy))
    known = [entry for entry in answer.install if wanted.is_own(_bare(str(entry["name"]))) or entry["name"] in names]
    return Transaction(
        version=answer.version,
        install=tuple(dict(entry) for entry in answer.install),
        remove=tuple({"name": entry["name"], "from": entry["from"]} for entry in answer.remove),
        specs=tuple(_spec(entry, wanted.manager) for entry in known),
        download=answer.mib("download_mib"),
        blocks=tuple(blocks),
    )


def _bare(name: str) -> str:
    return name.partition(":")[0]


def _spec(entry: Mapping[str, str | None], manager: str) -> str:
    name, version = str(entry["name"]), entry["to"]
    if version is None:
        return name
    return f"{name}={version}" if manager == APT else f"{name}-{version}"


def _not_to_be_had(wanted: Wanted, answer: Answer, installable: bool) -> Block:
    unknown = _package_answer.no_lists(wanted.place, answer)
    if unknown is not None and not installable:
        return unknown
    part = wanted.place.part
    if not installable and _UNREAD in (answer.error or "") and _package_sources.has_ours(wanted.place, answer.sources):
        # The role's own repository is there, and dnf had its lists read and got none of them.
        message = f"the package lists of {wanted.origin} could not be read ({str(answer.error).rstrip('.')})"
        remedy = f"look whether the host reaches it, at its proxy, and at {option(f'{part}.repository')}, then run again"
        return Block(part, _plan_codes.REPOSITORY_UNREACHABLE, message, remedy)
    asked = f" {wanted.version}" if wanted.version else ""
    floor = f", {wanted.minimum} or newer" if wanted.minimum and not wanted.version else ""
    first = wanted.sets[0][0] if wanted.sets and wanted.sets[0] else ""
    there = answer.versions(first)
    have = f"; there are {few(there)}" if there else f"; {first} cannot be had there at all" if first else ""
    why = f" ({answer.error.rstrip('.')})" if answer.error else ""
    leads = f": {first} there leads to {answer.version}" if installable and answer.version else ""
    message = f"{wanted.title}{asked}{floor} cannot be had from {wanted.origin}{leads}{why}{have}"
    # Where one version would do, what is wrong is that not all of the packages have it.
    split = wanted.lockstep and any(fits(version, wanted) for version in there)
    return Block(part, _plan_codes.NOT_IN_LOCKSTEP if split else _plan_codes.SOURCE_TOO_OLD, message, wanted.remedy)


# -- rules -----------------------------------------------------------------------------------------------------------


def in_the_way(
    pins: Sequence[Mapping[str, Any]], names: Sequence[str], version: str | None, ours: Callable[[Mapping[str, Any]], bool]
) -> list[Mapping[str, Any]]:
    """Return the rules of others that keep packages from changing to a version, or, with None, from changing to just any."""
    found = []
    for pin in pins:
        pattern = _document.text(pin, "name") or ""
        about = any(fnmatch.fnmatchcase(name, pattern) or pattern == name for name in names)
        if about and not ours(pin) and _keeps(pin, version):
            found.append(pin)
    return found


def _keeps(pin: Mapping[str, Any], version: str | None) -> bool:
    kind, value = _document.text(pin, "kind"), _document.text(pin, "value")
    if kind == "hold":
        return True
    if kind == "exclude":
        # Limited to a version, or to a repository, which need not be ours.
        return value is None
    if kind == "versionlock":
        if value is None:
            return True
        if value.startswith("!"):
            return version is not None and version in value
        return version is None or version not in value
    if kind == "preference" and value is not None:
        priority = _PRIORITY.search(value)
        if priority is not None and int(priority[1]) < 0:
            return True
        named = _NUMBER.search(_PRIORITY.sub("", value))
        return named is not None and version is not None and not version.startswith(named[0])
    return False


def words(pin: Mapping[str, Any]) -> str:
    """Return a rule for sentences."""
    kind, value = _document.text(pin, "kind") or "", _document.text(pin, "value")
    name, path = _document.text(pin, "name") or "a package", _document.text(pin, "path")
    return f"{name} {_KINDS.get(kind, 'has a rule')}{f' to {value}' if value else ''} ({path or 'in the package database'})"


def of_kind(pins: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    """Return the names that the rules of one kind have, each once."""
    names = [_document.text(pin, "name") for pin in pins if pin.get("kind") == kind]
    return list(dict.fromkeys(name for name in names if name))


def locks(pins: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return dnf's locks as they are written, without those that only name versions to avoid."""
    found = []
    for pin in pins:
        name, value = _document.text(pin, "name"), _document.text(pin, "value")
        if pin.get("kind") == "versionlock" and name and not (value or "").startswith("!"):
            found.append(f"{name}-{value}" if value else name)
    return list(dict.fromkeys(found))


def loose(pins: Sequence[Mapping[str, Any]], kind: str, names: Sequence[str], version: str | None) -> list[str]:
    """Return those of these packages that no rule of a kind keeps; of versionlocks only those for the version count."""
    rules = [pin for pin in pins if pin.get("kind") == kind]
    if kind == "versionlock" and version is not None:
        rules = [pin for pin in rules if version in (_document.text(pin, "value") or "")]
    patterns = [_document.text(pin, "name") or "" for pin in rules]
    return [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
