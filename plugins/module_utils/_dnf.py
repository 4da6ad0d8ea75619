# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host with dnf 4 could get: by its Python API, in memory, from the lists that dnf has read before.

The API is asked in a child process, since it writes to the terminal and may wait. This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _package_query, _packages, _subject_query, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._package_query import Change, Impossible, Query
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

# rpm locks its database, dnf and yum write their number into a file.
LOCKS = ("/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock")
NUMBERS = (
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/run/dnf.pid",
    "/var/run/yum.pid",
)


def ask(query: Query, root: str, timeout_s: float) -> Facts:
    """Return the answer to a question; dnf gets ``timeout_s`` seconds."""
    told = _package_query.answer(root, "dnf", query)
    told["locked_by"] = _package_query.lock_holder(root, LOCKS) or written_holder(root)
    try:
        result = _command.call(lambda: _ask(query, told), timeout_s)
        found = json.loads(result.stdout) if not result.timed_out else {"error": f"dnf did not end within {timeout_s:g} seconds."}
    except _command.CannotStart as error:
        found = {"error": str(error)}
    except ValueError:
        found = {"error": "The child process that asked dnf ended without an answer."}
    told.update(found)
    return told


def written_holder(root: str) -> Facts | None:
    """Return the process whose number is in a lock file; None where there is none that lives."""
    for path in NUMBERS:
        number = _sysfs.read(root, path.lstrip("/")) or ""
        if number.isdigit() and int(number) != os.getpid() and _command.start_time(int(number)) is not None:
            return _package_query.process(int(number))
    return None


def _ask(query: Query, told: Facts) -> Facts:
    """Return what changes in the answer, for the child process."""
    dnf: Any = importlib.import_module("dnf")
    with tempfile.TemporaryDirectory(prefix="difyops-") as folder:
        try:
            with contextlib.closing(_base(dnf, folder)) as base:
                return _asked(Solver(dnf, base, query), query, told)
        except (dnf.exceptions.Error, OSError) as error:
            return {**told, "error": f"dnf failed: {_package_query.sentence(str(error))}"}


def _base(dnf: Any, folder: str) -> Any:
    """Return dnf as the host has it set up, but for the network, its plugin versionlock, and its memory of transactions."""
    base = dnf.Base()
    conf = base.conf
    conf.read()
    with contextlib.suppress(AttributeError):
        # pylint: disable=protected-access
        conf.substitutions.update_from_etc(conf.installroot, varsdir=conf._get_value("varsdir"))
    # An ordinary user has a cache of its own, which nobody fills.
    conf.cachedir = conf.system_cachedir
    conf.persistdir = folder
    conf.cacheonly = True
    conf.exit_on_lock = True
    conf.install_weak_deps = False
    conf.clean_requirements_on_remove = False
    base.init_plugins(disabled_glob=["versionlock"])
    with contextlib.suppress(AttributeError):
        base.pre_configure_plugins()
    base.read_all_repos()
    with contextlib.suppress(AttributeError):
        base.configure_plugins()
    return base


def _asked(solver: Solver, query: Query, told: Facts) -> Facts:
    told["sources"] = [source(repo) for repo in solver.repositories()]
    missing, age = solver.load()
    told["lists_at"] = None if age is None else _package_query.timestamp(time.time() - age)
    told["broken"] = solver.duplicates()
    try:
        if query.state == "absent":
            going = _package_query.without(solver.names(), told["brought"], solver.needs(), query.subject)
            changes = _package_query.only(solver.removal(going), going, query.subject) if going else []
        elif query.subject != "driver":
            changes = _subject_query.choose(query, solver, solver.installed, told)
        else:
            told["available"] = _package_query.by_branch(solver.available(query.patterns))
            solver.enable(query.stream)
            changes = _package_query.choose(query, solver, solver.installed, told)
        told.update(_package_query.changed(changes), **solver.sizes(changes))
    except Impossible as error:
        unread = f" The lists of {', '.join(missing)} were not read on this host yet." if missing else ""
        told["error"] = told["error"] or f"{error}{unread}"
    return told


class Solver:
    """dnf as something to ask what a transaction would be. Its sack is that of the host's repositories."""

    def __init__(self, dnf: Any, base: Any, query: Query) -> None:
        self._dnf = dnf
        self._base = base
        self._query = query
        self._excluded: Any = None
        self.installed: list[Package] = []
        self._held: dict[str, list[Any]] = {}
        self._twice: dict[str, list[str]] = {}

    def repositories(self) -> list[Any]:
        """Return the repositories that are enabled."""
        return sorted(self._base.repos.iter_enabled(), key=lambda repo: str(repo.id))

    def load(self) -> tuple[list[str], float | None]:
        """Read the lists that are there; return the repositories without any, and how old the newest list is, in seconds."""
        missing, ages = [], []
        for repo in self.repositories():
            if self._is_read(repo):
                ages.append(float(repo._repo.getAge()))  # pylint: disable=protected-access
            else:
                missing.append(str(repo.id))
                repo.disable()
        self._base.fill_sack()
        self.know(self._base.sack.query().installed(), self._duplicated())
        return missing, min(ages, default=None)

    def know(self, installed: Iterable[Any], duplicated: Iterable[Any]) -> None:
        """Take note of what is installed; of what is there twice the newest counts, which is what a repair leaves."""
        for package in sorted(duplicated, reverse=True):
            self._twice.setdefault(package.name, []).append(package.evr)
        for package in installed:
            self._held.setdefault(package.name, []).append(package)
            if package.evr == self._twice.get(package.name, [package.evr])[0]:
                self.installed.append(Package(package.name, package.evr, str(package.vendor or ""), broken=False))

    def _is_read(self, repo: Any) -> bool:
        repo._repo.setSyncStrategy(self._dnf.repo.SYNC_ONLY_CACHE)  # pylint: disable=protected-access
        with contextlib.suppress(self._dnf.exceptions.RepoError):
            repo.load()
            return True
        return False

    def names(self) -> list[str]:
        """Return the names of all installed packages."""
        return [package.name for package in self.installed]

    def duplicates(self) -> list[Facts]:
        """Return packages that are there in two versions, as an upgrade that was cut off leaves them."""
        twice = sorted({(name, version) for name, versions in self._twice.items() for version in versions})
        return [{"name": name, "version": version, "state": "duplicate"} for name, version in twice]

    def _duplicated(self) -> list[Any]:
        query = self._base.sack.query().installed()
        with contextlib.suppress(AttributeError):
            # Kernels are there in several versions.
            query = query.difference(self._base._get_installonly_query(query))  # pylint: disable=protected-access
        return list(query.duplicated())

    def available(self, patterns: Sequence[str]) -> set[str]:
        """Return the driver versions that the repositories have in any stream."""
        modules = importlib.import_module("hawkey").IGNORE_MODULAR_EXCLUDES
        query = self._base.sack.query(flags=modules).available().filter(name__glob=list(patterns))
        return {version for version in (_packages.driver_version(package.evr) for package in query) if version}

    def enable(self, stream: str | None) -> None:
        """Enable a module stream in memory. Raises Impossible where there is none of that name."""
        if stream is None:
            return
        try:
            # Without a reset, which would be a second change of the stream in one transaction.
            importlib.import_module("dnf.module.module_base").ModuleBase(self._base).enable([stream])
        except self._dnf.exceptions.Error as error:
            raise Impossible(f"Module stream {stream} cannot be enabled: {_package_query.sentence(str(error))}") from error

    def versions(self, name: str) -> list[str]:
        """Return the versions that the repositories have of a package, in the streams that are enabled, the newest first."""
        return [*dict.fromkeys(package.evr for package in sorted(self._find(name, there=False), reverse=True))]

    def is_there(self, name: str) -> bool:
        """Say whether a package is installed."""
        return bool(self._find(name, there=True))

    def _find(self, name: str, there: bool) -> list[Any]:
        """Return packages by name, or by name and version, of this host's architecture and none."""
        architectures = [self._base.conf.substitutions["basearch"], "noarch"]
        query = self._dnf.subject.Subject(name).get_best_query(self._base.sack, with_provides=False, with_filenames=False)
        return list(query.installed() if there else query.available().filter(arch=architectures))

    def missing(self, name: str) -> str:
        """Return a sentence that says why there is no version of a package: nobody has it, or a rule keeps it out."""
        every = self._base.sack.query(flags=importlib.import_module("hawkey").IGNORE_EXCLUDES).available()
        if every.filter(name=name):
            return f"{name} is kept out by an exclude in the settings of dnf, or is in another module stream."
        return _package_query.missing(name)

    def simulate(self, names: Sequence[str], gone: Sequence[str], target: str | None) -> list[Change]:
        """Return what installing and removing packages would change, the driver's in version ``target``. Raises Impossible."""
        with self._driver_only(target):
            self._base.reset(goal=True)
            for name in dict.fromkeys(names):
                self._mark(name)
            for name in gone:
                for package in self._held[name]:
                    self._base.package_remove(package)
            return self._repaired(self._resolve(), lambda _name, evr: bool(target) and _packages.driver_version(evr) == target)

    def exact(self, wanted: Mapping[str, str], gone: Sequence[str]) -> list[Change]:
        """Return what installing packages, each in one version, and removing others would change. Raises Impossible."""
        there = {package.name: package.version for package in self.installed}
        self._base.reset(goal=True)
        for name, version in wanted.items():
            if there.get(name) != version:
                self._mark(name, version)
        for name in gone:
            for package in self._held[name]:
                self._base.package_remove(package)
        return self._repaired(self._resolve(), lambda name, evr: wanted.get(name) == evr)

    def removal(self, names: Sequence[str]) -> list[Change]:
        """Return what removing packages would change. Raises Impossible."""
        self._base.reset(goal=True)
        for name in names:
            for package in self._base.sack.query().installed().filter(name=name):
                self._base.package_remove(package)
        return self._resolve()

    def _mark(self, name: str, version: str | None = None) -> None:
        found = [package for package in self._find(name, there=False) if version in (None, package.evr)]
        if not found:
            if self.is_there(name):
                return
            raise Impossible(self.missing(name))
        package = max(found)
        old = max(self._held.get(package.name, ()), default=None)
        if old is None or package.name.startswith("kernel"):
            self._base.package_install(package)
        elif old < package:
            self._base.package_upgrade(package)
        elif old > package:
            self._base.package_downgrade(package)

    def _resolve(self) -> list[Change]:
        try:
            self._base.resolve(allow_erasing=True)
        except self._dnf.exceptions.Error as error:
            raise Impossible(_package_query.sentence(str(error))) from error
        transaction = self._base.transaction
        new, old = transaction.install_set, transaction.remove_set
        after = {package.name: package.evr for package in new}
        # A kernel's headers come beside those that are there, and the name is not new then: nobody brought all that has it.
        beside = {name: max(self._held[name]).evr for name in after if name in self._held}
        before = {**beside, **{package.name: package.evr for package in old}}
        return sorted(Change(name, before.get(name), after.get(name)) for name in {*before, *after})

    def _repaired(self, changes: Sequence[Change], is_right: Callable[[str, str], bool]) -> list[Change]:
        """Return a transaction as it is after a repair, which leaves the newest of what is there twice, wanted or not."""
        transaction = self._base.transaction
        new, old = ({(one.name, one.evr) for one in every} for every in (transaction.install_set, transaction.remove_set))
        found = [change for change in changes if change.name not in self._twice]
        for name, versions in self._twice.items():
            came = [version for other, version in new if other == name]
            left = [version for version in [*came, *versions] if (name, version) in new or (name, version) not in old]
            right = [version for version in left if is_right(name, version)]
            after = next(iter(right or left), None)
            if after != versions[0]:
                found.append(Change(name, versions[0], after))
        return sorted(found)

    @contextlib.contextmanager
    def _driver_only(self, target: str | None) -> Iterator[None]:
        """Hide every other version of the driver for as long as a transaction is looked for."""
        sack = self._base.sack
        parts = [package for package in sack.query().available() if _packages.is_part(package.name)]
        fitting = {package.name for package in parts if not self._is_other(package.evr, target)}
        # What has versions of its own need not be there in the driver's.
        hidden = [one for one in parts if one.name in fitting or one.name not in _package_query.INDEPENDENT]
        others = [package for package in hidden if self._is_other(package.evr, target)]
        query = sack.query().filterm(pkg=others)
        sack.add_excludes(query)
        try:
            yield
        finally:
            sack.remove_excludes(query)

    def _is_other(self, evr: str, target: str | None) -> bool:
        version = _packages.driver_version(evr)
        if version is None:
            return False
        return version != target if target else not _package_query.wanted(self._query, version)

    def needs(self) -> list[tuple[str, frozenset[str]]]:
        """Return the needs of all installed packages with those by which they are met."""
        installed = self._base.sack.query().installed()
        met: dict[str, frozenset[str]] = {}
        found = []
        for package in installed:
            for relation in package.requires:
                key = str(relation)
                if key not in met:
                    met[key] = frozenset(provider.name for provider in installed.filter(provides=relation))
                if met[key] and package.name not in met[key]:
                    found.append((package.name, met[key]))
        return found

    def sizes(self, changes: Iterable[Change]) -> Facts:
        """Return what is to be loaded and by how much the packages grow."""
        known = list(changes)
        if not known:
            return {"download_mib": 0, "needed_mib": 0}
        new, old = self._base.transaction.install_set, self._base.transaction.remove_set
        grown = sum(package.installsize for package in new) - sum(package.installsize for package in old)
        return {
            "download_mib": _package_query.mebibytes(sum(package.downloadsize for package in new)),
            "needed_mib": _package_query.mebibytes(grown),
        }


def source(repo: Any) -> Facts:
    """Return a repository in the form that apt's sources have."""
    addresses = [*(repo.baseurl or ()), *filter(None, (repo.metalink, repo.mirrorlist))]
    return {
        "file": str(repo.repofile or "") or None,
        "uris": [_package_query.masked(str(address)) for address in addresses],
        "suites": [str(repo.id)],
        "components": [],
        "signed_by": " ".join(map(str, repo.gpgkey or ())) or None,
    }
