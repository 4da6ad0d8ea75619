# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which transaction brings the engine or the container toolkit: names and versions as they are, without the rules of drivers.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ansible_collections.difyops.gpu.plugins.module_utils import _packages
from ansible_collections.difyops.gpu.plugins.module_utils._package_query import Change, Impossible, Query
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

# So many versions are tried, the newest first; a sentence names no more than this of those that are there.
_TRIES, _NAMED = 3, 8
_EARLY = re.compile(r"(\d+:)?[\d.]+[~-]?(rc|alpha|beta|pre|dev|test)")
_DOCKERS_OWN = re.compile(r"docker-ce(-.+)?|docker-.+-plugin|containerd\.io")
_CARRIERS = {"docker-ce", "docker.io", "docker", "moby-engine"}
# By declared conflicts the package manager keeps them apart itself, and others than Docker need them too.
_BELOW = {"containerd", "containerd.io", "runc"}


class Manager(Protocol):
    """What apt and dnf are asked for."""

    def versions(self, name: str) -> Sequence[str]:
        """Return the versions that the sources have of a package, the newest first."""

    def missing(self, name: str) -> str:
        """Return a sentence that says why there is no version of a package."""

    def exact(self, wanted: Mapping[str, str], gone: Sequence[str]) -> list[Change]:
        """Return what installing packages, each in one version, and removing others would change. Raises Impossible."""


def choose(query: Query, manager: Manager, installed: Sequence[Package], told: Facts) -> list[Change]:
    """Fill in what the sources have and which alternative is chosen, and return its transaction. Raises Impossible."""
    names = dict.fromkeys(name for group in query.alternatives for name in group)
    sources = {name: list(manager.versions(name)) for name in names}
    told["available"] = {name: _upstreams(versions) for name, versions in sources.items()}
    there = {package.name: package.version for package in installed}
    # What is installed need not be had once more.
    known = {name: [*versions, *({there[name]} - {*versions} if name in there else ())] for name, versions in sources.items()}
    reasons: list[str] = []
    for number, group in enumerate(query.alternatives):
        try:
            version, changes = _plan(query, manager, installed, group, known)
        except Impossible as error:
            reasons.append(str(error))
            continue
        told.update(choice=number, version=version)
        return changes
    raise Impossible(" ".join(dict.fromkeys(reasons)) or "No packages were named.")


def _plan(
    query: Query, manager: Manager, installed: Sequence[Package], names: Sequence[str], known: Mapping[str, Sequence[str]]
) -> tuple[str, list[Change]]:
    """Return the upstream version of the first name, and the transaction. Raises Impossible with the reason of the newest version."""
    if not names:
        raise Impossible("A set of packages has no name in it.")
    for name in names:
        if not known[name]:
            raise Impossible(manager.missing(name))
    gone = sorted(rivals(installed, names)) if query.subject == "engine" else []
    failure: Impossible | None = None
    for version in _targets(query, names[0], known[names[0]])[:_TRIES]:
        found = _attempt(manager, names, version, known, query.lockstep, gone)
        if not isinstance(found, Impossible):
            return version, found
        failure = failure or found
    raise failure or Impossible(f"{names[0]}: no version was found.")


def _attempt(
    manager: Manager, names: Sequence[str], version: str, known: Mapping[str, Sequence[str]], lockstep: bool, gone: Sequence[str]
) -> list[Change] | Impossible:
    try:
        wanted = versions_at(names, version, known, lockstep)
        return _checked(manager.exact(wanted, gone), wanted)
    except Impossible as error:
        return error


def _checked(changes: list[Change], wanted: Mapping[str, str]) -> list[Change]:
    """Return what changes a version. Raises Impossible where a package that was named would not come in its version."""
    others = [change for change in changes if change.name in wanted and change.after != wanted[change.name]]
    if others:
        found = ", ".join(f"{change.name} would {'become ' + change.after if change.after else 'go'}" for change in others)
        raise Impossible(f"{found} in place of {', '.join(wanted[change.name] for change in others)}.")
    # apt would bring the same version once more where a source describes it otherwise than what is installed.
    return [change for change in changes if change.before != change.after]


def _targets(query: Query, name: str, versions: Sequence[str]) -> list[str]:
    """Return the upstream versions that will do, the newest first. Raises Impossible where there is none."""
    every = _upstreams(versions)
    fitting = [one for one in every if query.version is None or one == query.version or one.startswith(f"{query.version}.")]
    enough = [one for one in fitting if query.minimum is None or _key(one) >= _key(query.minimum)]
    if not enough:
        wish = f"not as {query.version}" if not fitting else f"and at least {query.minimum} is needed"
        raise Impossible(f"{name} is there as {_listed(every)} only, {wish}.")
    return enough


def versions_at(names: Sequence[str], version: str, known: Mapping[str, Sequence[str]], lockstep: bool) -> dict[str, str]:
    """Return the package version of each name with which the first one has an upstream version.

    Another name comes in the same upstream version where it has that, with ``lockstep`` in no other, else in its newest.
    Raises Impossible, which names the package.
    """
    first = next(one for one in known[names[0]] if _upstream(one) == version)
    found = {names[0]: first}
    for name in names[1:]:
        same = [one for one in known[name] if _upstream(one) == version]
        if lockstep and not same:
            raise Impossible(f"{name} is not to be had in version {version}, only as {_listed(_upstreams(known[name]))}.")
        # Packages that need each other do so by their whole version.
        found[name] = first if first in same else (same or _newest(known[name]))[0]
    return found


def _newest(versions: Sequence[str]) -> list[str]:
    newest = _upstreams(versions)[:1]
    return [one for one in versions if [_upstream(one)] == newest] or list(versions)


def rivals(installed: Iterable[Package], names: Sequence[str]) -> set[str]:
    """Return installed packages whose files those of a set would overwrite, since they are the same from another source.

    Not all of them are declared as conflicts: the plugins of Docker and of distributions lie in the same place.
    """
    own = any(_DOCKERS_OWN.fullmatch(name) for name in names)
    whole = not _CARRIERS.isdisjoint(names)
    kinds = {_plugin(name) for name in names} - {None}
    found = set()
    for package in installed:
        name = package.name
        if name in names or name in _BELOW:
            continue
        other = _packages.is_engine(package) and (_DOCKERS_OWN.fullmatch(name) is not None) is not own
        # The first docker-compose was a program of its own, and no plugin.
        plain = name == "docker-compose" and package.version.startswith("1.")
        if (other and not plain and (whole or _plugin(name) in kinds)) or (name == "podman-docker" and whole):
            found.add(name)
    return found


def _plugin(name: str) -> str | None:
    found = re.search("compose|buildx", name)
    return found[0] if found else None


def _upstream(version: str) -> str | None:
    """Return the upstream version, None for one that was made before a release."""
    return None if _EARLY.match(version) else _packages.upstream(version)


def _upstreams(versions: Iterable[str]) -> list[str]:
    return sorted({one for one in map(_upstream, versions) if one}, key=_key, reverse=True)


def _key(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def _listed(versions: Sequence[str]) -> str:
    more = f" and {len(versions) - _NAMED} more" if len(versions) > _NAMED else ""
    return (", ".join(versions[:_NAMED]) or "a version before a release") + more
