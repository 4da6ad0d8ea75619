# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host could get from its package sources: the question, the form of the answer, and what apt and dnf have in common.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, NamedTuple, Protocol

from ansible_collections.difyops.gpu.plugins.module_utils import _managed, _packages, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

MIB = 1024 * 1024
PINNING = "pinning"
# Debian gives them versions of their own, since any driver works with them.
INDEPENDENT = ("nvidia-modprobe", "nvidia-persistenced")
_PLACES = ("/usr", "/boot", "/var")
_BRANCH = re.compile(r"-([0-9]{3})(?=-|$)")
# On Linux with 64 bits: type, whence, start, length, process.
_FLOCK = "hhqqi0q"
# So many versions of a branch are tried, the newest first.
_TRIES = 3
# A sentence quotes no more than this of what a package manager says.
_QUOTED = 400


class Query(NamedTuple):
    """The options of nvidia_packages_info."""

    state: str = "present"
    branch: str | None = None
    version: str | None = None
    alternatives: Sequence[Sequence[str]] = ()
    also: Mapping[str, Sequence[str]] = {}
    patterns: Sequence[str] = ()
    stream: str | None = None
    preferences: str | None = None
    subject: str = "driver"
    minimum: str | None = None
    lockstep: bool = False


class Change(NamedTuple):
    """What a transaction does with a package: None before for a new one, None after for one that goes."""

    name: str
    before: str | None
    after: str | None


class Impossible(Exception):  # noqa: N818
    """A transaction that cannot be. Its text is a sentence that names package and reason."""


class Plan(NamedTuple):
    """A transaction that would be carried out, the driver's version that it leads to, and what of ``also`` joins it."""

    changes: list[Change]
    version: str | None
    also: dict[str, str | None]


class Manager(Protocol):
    """What apt and dnf are asked for."""

    def versions(self, name: str) -> Sequence[str]:
        """Return the versions that the sources have of a package."""

    def is_there(self, name: str) -> bool:
        """Say whether a package is installed."""

    def missing(self, name: str) -> str:
        """Return a sentence that says why there is no version of a package."""

    def simulate(self, names: Sequence[str], gone: Sequence[str], target: str | None) -> list[Change]:
        """Return what installing and removing packages would change, the driver's in version ``target``. Raises Impossible."""


def missing(name: str) -> str:
    """Return what is said of a package that nobody has."""
    return f"{name} is in no package source of this host."


def problem(query: Query) -> str | None:
    """Return what is wrong with a question as a sentence; None when nothing is."""
    names = [name for group in (*query.alternatives, *query.also.values()) for name in group]
    for name in names:
        # A hyphen before or behind a name is an order to apt-get.
        if not re.fullmatch(r"[A-Za-z0-9]([\w.+:~={}-]*[\w.+~}])?", name):
            return f"{name!r} is no name of a package."
    if query.subject != "driver":
        return _plain_problem(query)
    if query.version is not None and _packages.driver_version(query.version) != query.version:
        return f"version has to be a driver's, such as 580.95.05, not {query.version!r}."
    if query.branch is not None and not re.fullmatch("[0-9]{3}", query.branch):
        return f"branch has to be three digits, such as '580', not {query.branch!r}."
    if query.version and query.branch and branch_of(query.version) != query.branch:
        return f"version {query.version} is not of branch {query.branch}."
    if query.state == "present" and not (query.branch or query.version):
        return "branch or version is needed to look for a driver."
    if query.stream is not None and not re.fullmatch(r"[\w.+-]+:[\w.+-]+", query.stream):
        return f"stream has to be a module and its stream, such as nvidia-driver:580-open, not {query.stream!r}."
    return None


def _plain_problem(query: Query) -> str | None:
    """Return what is wrong with a question for the engine or the toolkit."""
    if query.subject not in SUBJECTS:
        return f"subject has to be one of {', '.join(SUBJECTS)}, not {query.subject!r}."
    for option, version in (("version", query.version), ("minimum", query.minimum)):
        if version is not None and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}", version):
            return f"{option} has to be numbers with dots, such as 1.19.1, not {version!r}."
    if query.state == "absent" and query.subject == "engine":
        return "The container engine is not taken away by this collection, so what would go with it cannot be asked."
    return None


def answer(root: str, manager: str | None, query: Query) -> Facts:
    """Return an answer that has every key and knows nothing but the host."""
    document = _managed.document(root, SUBJECTS[query.subject].role, "brought.json") or {}
    brought = document.get("packages")
    return {
        "manager": manager,
        "lists_at": None,
        "locked_by": None,
        "broken": [],
        "sources": [],
        "available": {},
        "choice": None,
        "version": None,
        "install": [],
        "remove": [],
        "also": dict.fromkeys(query.also),
        "download_mib": None,
        "needed_mib": None,
        "free_mib": {place: free_mib(root, place) for place in _PLACES},
        "brought": [name for name in brought if isinstance(name, str)] if isinstance(brought, list) else [],
        "error": document.get("error") if query.state == "absent" else None,
    }


def free_mib(root: str, place: str) -> int | None:
    """Return what is free for root on the file system of a folder, in MiB; None where there is no such folder."""
    with contextlib.suppress(OSError):
        status = os.statvfs(os.path.join(root, place.lstrip("/")))
        return status.f_bfree * status.f_frsize // MIB
    return None


def mebibytes(size: int) -> int:
    """Return bytes as MiB, rounded up where something grows."""
    return -(-size // MIB)


def timestamp(seconds: float) -> str:
    """Return a time of the clock as ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def branch_of(version: str) -> str:
    """Return the branch of a driver's version."""
    return version.partition(".")[0]


def name_branch(name: str) -> str | None:
    """Return the branch that is part of a package's name: 580 of libnvidia-compute-580-server."""
    found = _BRANCH.search(name)
    return found[1] if found else None


def newest_first(versions: Iterable[str]) -> list[str]:
    """Return versions of drivers without repetition, the newest first."""
    return sorted(set(versions), key=lambda version: [int(number) for number in version.split(".")], reverse=True)


def by_branch(versions: Iterable[str]) -> dict[str, list[str]]:
    """Return the versions of drivers by branch, the newest branch and the newest version first."""
    found: dict[str, list[str]] = {}
    for version in newest_first(versions):
        found.setdefault(branch_of(version), []).append(version)
    return found


def is_fixed(name: str) -> bool:
    """Say whether a package has to have the version of the driver that it belongs to, where it has the form of one."""
    return _packages.is_part(name) and name not in INDEPENDENT


def wanted(query: Query, version: str | None) -> bool:
    """Say whether a version of a driver is what was asked for."""
    return version is not None and (version == query.version if query.version else branch_of(version) == query.branch)


def strangers(changes: Iterable[Change], target: str | None) -> list[str]:
    """Return the packages of a transaction that would be of another driver's version, each with it."""
    versions = ((change.name, _packages.driver_version(change.after)) for change in changes if change.after and is_fixed(change.name))
    return [f"{name} {version}" for name, version in versions if version and target and version != target]


def stale(installed: Iterable[Package], changes: Iterable[Change], version: str) -> set[str]:
    """Return the packages of another driver that a transaction would leave beside the one of ``version``."""
    touched = {change.name for change in changes}
    found = set()
    for package in installed:
        if package.name in touched or not is_fixed(package.name):
            continue
        own, named = _packages.driver_version(package.version), name_branch(package.name)
        if own != version if own else named not in (None, branch_of(version)):
            found.add(package.name)
    return found


def rivals(installed: Iterable[Package], names: Iterable[str]) -> set[str]:
    """Return installed packages with kernel modules of another kind than those that are wanted: open or not, prebuilt or not."""
    wanted_names = set(names)
    kinds = {_kind(name) for name in wanted_names if _packages.is_kernel(name)}
    # The source of modules is needed by drivers without DKMS too.
    kinds |= {(opened, built, True) for opened, _built, _source in kinds for built in (True, False)}
    there = (package.name for package in installed if _packages.is_kernel(package.name))
    return {name for name in there if kinds and name not in wanted_names and _kind(name) not in kinds}


def _kind(name: str) -> tuple[bool, bool, bool]:
    words = name.split("-")
    return "open" in words, _packages.is_prebuilt(name), "source" in words


def outcome(installed: Iterable[Package], changes: Iterable[Change]) -> str | None:
    """Return the version of the driver that a transaction leads to, by the rule by which facts tell an installed one."""
    changed = {change.name: change for change in changes}
    left = [package for package in installed if package.name not in changed]
    new = [Package(name, change.after, "", broken=False) for name, change in changed.items() if change.after]
    # A package that is not touched may be what is left of another driver, and a new one may only lead to what is there.
    return _packages.told_version(new, surely=True) or _packages.told_version([*left, *new])


def removable(candidates: Iterable[str], needs: Iterable[tuple[str, frozenset[str]]]) -> tuple[set[str], dict[str, str]]:
    """Return those of the candidates that nobody else needs, and for each of the others one that needs it.

    ``needs`` are the needs of installed packages: who has it, and all installed packages by which it is met.
    """
    going, kept = set(candidates), dict[str, str]()
    every = [(who, providers) for who, providers in needs if providers & going]
    changed = True
    while changed:
        changed = False
        for who, providers in every:
            if who not in going and providers <= going:
                kept.update((name, who) for name in providers)
                going -= providers
                changed = True
    return going, kept


def carriers(names: Iterable[str]) -> list[str]:
    """Return the packages without which there is no driver: kernel modules, and what stands for a whole driver."""
    packages = [Package(name, "1", "", broken=False) for name in names]
    return sorted(package.name for package in packages if _packages.driver([package]))


class Subject(NamedTuple):
    """What a question may be about: its name in sentences, and the role that brings it.

    ``belongs`` says whether a package is of it; ``carriers`` gives those of some packages without which there is none of it.
    """

    label: str
    role: str
    belongs: Callable[[str], bool]
    carriers: Callable[[Iterable[str]], list[str]]


SUBJECTS = {
    "driver": Subject("the driver", _managed.DRIVER, _packages.is_part, carriers),
    "engine": Subject("Docker", _managed.ENGINE, lambda name: False, lambda names: []),
    "toolkit": Subject(
        "the container toolkit",
        _managed.TOOLKIT,
        lambda name: name in _packages.TOOLKIT,
        lambda names: sorted(name for name in names if name.startswith("nvidia-container-toolkit")),
    ),
}


def sentence(reason: str) -> str:
    """Return what a package manager says as one sentence of bounded length."""
    text = " ".join(reason.split()).rstrip(". ")
    return f"{text[:_QUOTED]}{'...' if len(text) > _QUOTED else '.'}"


def masked(uri: str) -> str:
    """Return an address without the password in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", uri)


def lock_holder(root: str, paths: Iterable[str]) -> Facts | None:
    """Return the process that has a lock on one of the files; None when nobody has, or the files are closed to this user."""
    for path in paths:
        with contextlib.suppress(OSError, struct.error), open(os.path.join(root, path.lstrip("/")), "rb") as file:
            told = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, told)
            if kind != fcntl.F_UNLCK:
                # Of a process outside this container there is no number.
                return process(pid) if pid > 0 else {"pid": None, "name": None}
    return None


def process(pid: int) -> Facts:
    """Return number and name of a process; the script's, where an interpreter runs one."""
    words = [word for word in (_sysfs.read("/proc", str(pid), "cmdline") or "").split("\0") if word]
    scripts = [word for word in words[1:2] if word.startswith("/") and re.search(r"(python[0-9.]*|perl|sh)$", words[0])]
    names = [os.path.basename(word) for word in (*scripts, *words[:1])]
    return {"pid": pid, "name": next(iter(names), None) or _sysfs.read("/proc", str(pid), "comm")}


def choose(query: Query, manager: Manager, installed: Sequence[Package], told: Facts) -> list[Change]:
    """Fill in which alternative is chosen, and return its transaction. Raises Impossible when none can be installed."""
    reasons: list[str] = []
    search = Search(query, manager, installed)
    for number, names in enumerate(query.alternatives):
        try:
            plan = search.plan(names)
        except Impossible as error:
            reasons.append(str(error))
            continue
        if wanted(query, plan.version):
            told.update(choice=number, version=plan.version, also=plan.also)
            return plan.changes
        # A name may lead to another branch than its own: the version tells it, and nothing is chosen.
        told["version"] = told["version"] or plan.version
        asked = f"driver {query.version}" if query.version else f"branch {query.branch}"
        reasons.append(f"{names[0]} leads to {f'driver {plan.version}' if plan.version else 'no driver'}, not to {asked}.")
    raise Impossible(" ".join(dict.fromkeys(reasons)) or "No packages were named that would make the driver.")


class Search:
    """Looks for the transaction by which one alternative is installed with one version of the driver."""

    def __init__(self, query: Query, manager: Manager, installed: Sequence[Package]) -> None:
        self._query = query
        self._manager = manager
        self._installed = installed

    def plan(self, names: Sequence[str]) -> Plan:
        """Return the transaction of an alternative. Raises Impossible when there is none."""
        for name in names:
            if not (self._manager.versions(name) or self._manager.is_there(name)):
                raise Impossible(self._manager.missing(name))
        failure: Impossible | None = None
        for target in self._targets(names):
            found = self._attempt(names, target)
            if isinstance(found, Plan):
                return found
            failure = failure or found
        raise failure or Impossible(f"{names[0]}: no version was found.")

    def _attempt(self, names: Sequence[str], target: str | None) -> Plan | Impossible:
        try:
            return self._at(names, target)
        except Impossible as error:
            return error

    def _targets(self, names: Sequence[str]) -> list[str | None]:
        """Return the versions to try: those that all packages have whose versions are a driver's."""
        common: set[str] | None = None
        for name in names:
            own = set(filter(None, map(_packages.driver_version, self._manager.versions(name))))
            fitting = {version for version in own if wanted(self._query, version)}
            if not own or name in INDEPENDENT:
                continue
            if not fitting:
                there = ", ".join(newest_first(own))
                raise Impossible(f"{name} is there as {there} only, not as {self._query.version or f'{self._query.branch}.*'}.")
            common = fitting if common is None else common & fitting
        if common == set():
            raise Impossible(f"{', '.join(names)} are not there in one version of branch {self._query.branch}.")
        return [*newest_first(common)[:_TRIES]] if common else [self._query.version]

    def _at(self, names: Sequence[str], target: str | None) -> Plan:
        others = rivals(self._installed, names)
        order = [*names, *(one.name for one in self._installed if one.name not in others and self._moves(one, target))]
        changes = self._replaced(order, target)
        version = outcome(self._installed, changes)
        if version is None or not wanted(self._query, version):
            return Plan(changes, version, dict.fromkeys(self._query.also))
        wrong = strangers(changes, target or version)
        if wrong:
            raise Impossible(f"{names[0]} would bring {', '.join(wrong)} beside driver {version}.")
        gone = sorted(stale(self._installed, changes, version) | others - {one.name for one in changes if one.after is None})
        if gone:
            try:
                changes = self._manager.simulate(order, gone, target)
            except Impossible:
                gone = []
        return self._with_also(Plan(changes, version, {}), order, gone, target)

    def _replaced(self, order: Sequence[str], target: str | None) -> list[Change]:
        """Return the transaction; where packages of another driver stand in its way and would not go by themselves, without them."""
        try:
            return self._manager.simulate(order, (), target)
        except Impossible:
            others = sorted(stale(self._installed, (), target) - set(order)) if target else []
            if not others:
                raise
            return self._manager.simulate(order, others, target)

    def _with_also(self, plain: Plan, order: Sequence[str], gone: Sequence[str], target: str | None) -> Plan:
        """Add what else was asked for, as far as it is to be had together with the driver."""
        version = str(plain.version)
        found = {purpose: self._first(names, version) for purpose, names in self._query.also.items()}
        joining = {purpose: name for purpose, name in found.items() if name and purpose != PINNING}

        def together(names: Iterable[str]) -> list[Change] | None:
            try:
                changes = self._manager.simulate([*names, *order], gone, target)
            except Impossible:
                return None
            same = outcome(self._installed, changes) == version and not strangers(changes, version)
            return changes if same else None

        changes = together(joining.values()) if joining else plain.changes
        if changes is not None:
            return Plan(changes, version, found)
        accepted: list[str] = []
        changes = plain.changes
        for purpose, name in joining.items():
            more = together([*accepted, name])
            if more is None:
                found[purpose] = None
            else:
                changes = more
                accepted.append(name)
        return Plan(changes, version, found)

    def _first(self, names: Iterable[str], version: str) -> str | None:
        """Return the first package that is to be had; one whose versions are those of drivers in the driver's only."""
        for pattern in names:
            name = pattern.replace("{version}", version).replace("{branch}", branch_of(version))
            versions = self._manager.versions(name)
            own = set(filter(None, map(_packages.driver_version, versions)))
            if is_fixed(name) and own:
                if version in own:
                    return name
            elif versions or self._manager.is_there(name):
                return name
        return None

    def _moves(self, package: Package, target: str | None) -> bool:
        """Say whether an installed package of the driver is there in the wanted version and has another."""
        return (
            target is not None
            and _packages.is_part(package.name)
            and _packages.driver_version(package.version) != target
            and target in map(_packages.driver_version, self._manager.versions(package.name))
        )


def without(
    installed: Iterable[str], brought: Iterable[str], needs: Iterable[tuple[str, frozenset[str]]], subject: str = "driver"
) -> list[str]:
    """Return what goes with the driver or another subject, sorted. Raises Impossible where something else needs the subject itself."""
    names, about = set(installed), SUBJECTS[subject]
    candidates = {name for name in names if about.belongs(name)} | (names & set(brought))
    going, kept = removable(candidates, needs)
    staying = about.carriers(kept)
    if staying:
        user = kept[staying[0]]
        raise Impossible(f"{staying[0]} is needed by {user}, which {about.label} did not bring. Remove {user} first.")
    return sorted(going)


def only(changes: Sequence[Change], going: Iterable[str], subject: str = "driver") -> list[Change]:
    """Return a removal as it is. Raises Impossible where it would reach further than it should."""
    known = set(going)
    others = [change.name for change in changes if change.after or change.name not in known]
    if others:
        without_it = f"Without {SUBJECTS[subject].label} {', '.join(others)} would change as well"
        raise Impossible(f"{without_it}, which it did not bring. Look at their dependencies.")
    return list(changes)


def changed(changes: Iterable[Change]) -> Facts:
    """Return a transaction in the form of the answer."""
    known = sorted(changes)
    return {
        "install": [{"name": name, "from": before, "to": after} for name, before, after in known if after],
        "remove": [{"name": name, "from": before} for name, before, after in known if not after],
    }
