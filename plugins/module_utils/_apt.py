# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host with apt could get: by its own simulation, which needs no lock and changes nothing.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Callable, NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _managed, _package_query, _packages, _subject_query, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._package_query import Change, Impossible, Query
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")
_FORMAT = (
    r"${db:Status-Status}\t${Package}\t${Version}\t${Maintainer}\t${db:Status-Want}\t${source:Package}"
    r"\t${Installed-Size}\t${Pre-Depends}\t${Depends}\t${Provides}\t${Architecture}\n"
)
# Whatever else is in a driver's closure has no version of the form that is pinned.
_GLOBS = "*nvidia* cuda-drivers* libcuda* libnv* nvlsm*"
# More than any rule of somebody else; the role names every package with its version, so those rules do not count then either.
_ABOVE_ALL = 30000
_RELATION = re.compile(r"\s*([A-Za-z0-9][\w.+-]*)(?::\w+)?(?:\s*\(\s*(<<|<=|=|>=|>>)\s*([A-Za-z0-9][^)\s]*)\s*\))?")
_INSTALL = ("--simulate", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages", "install")


class Installed(NamedTuple):
    """An installed package, its size in KiB and the relations that its removal is judged by."""

    package: Package
    size_kib: int
    needs: str
    provides: str


class Record(NamedTuple):
    """A package that a source has: sizes in bytes and KiB; ``needs`` are what it depends on."""

    name: str
    version: str
    needs: str
    download: int
    size_kib: int


class Relation(NamedTuple):
    """What a package depends on: a name, and where only some versions will do dpkg's operator and the version that it compares with."""

    name: str
    operator: str | None
    version: str | None


class Apt:
    """The package manager of one host, or of the file system below ``root``."""

    def __init__(self, root: str, timeout_s: float) -> None:
        self.root = root
        self.timeout_s = timeout_s
        own = os.path.abspath(root) != "/"
        self._options = [f"-oDir={root}", f"-oDir::State::status={root}/var/lib/dpkg/status"] if own else []

    def run(self, program: str, *arguments: str, options: Sequence[str] = ()) -> _command.Result:
        """Run a program of apt. Raises Impossible where it cannot be run or does not end."""
        path = _command.find(program)
        try:
            if path is None:
                raise Impossible(f"{program} is not on this host.")
            result = _command.run([path, *self._options, *options, *arguments], self.timeout_s, env={"DEBIAN_FRONTEND": "noninteractive"})
        except _command.CannotStart as error:
            raise Impossible(str(error)) from error
        if result.timed_out:
            raise Impossible(f"{program} did not end within {self.timeout_s:g} seconds.")
        return result

    def installed(self) -> list[Installed]:
        """Return all packages that dpkg knows, those of which only configuration is left not."""
        program = _command.find("dpkg-query")
        database = os.path.join(self.root, "var/lib/dpkg")
        try:
            result = _command.run([program or "dpkg-query", f"--admindir={database}", "--show", f"--showformat={_FORMAT}"], self.timeout_s)
        except _command.CannotStart as error:
            raise Impossible(str(error)) from error
        if result.rc:
            raise Impossible(f"dpkg-query failed: {_package_query.sentence(result.err)}")
        return parse_installed(result.out)

    def records(self, names: Iterable[str]) -> list[Record]:
        """Return every version that the sources have of some packages."""
        wanted = sorted(set(names))
        return parse_records(self.run("apt-cache", "show", *wanted).out) if wanted else []

    def names(self) -> list[str]:
        """Return the names of all packages that apt knows."""
        return self.run("apt-cache", "pkgnames").out.split()

    def compares(self, version: str, operator: str, other: str) -> bool:
        """Say what dpkg says of two versions. Raises Impossible where it cannot be asked."""
        try:
            command = [_command.find("dpkg") or "dpkg", "--compare-versions", version, operator, other]
            return _command.run(command, self.timeout_s).rc == 0
        except _command.CannotStart as error:
            raise Impossible(str(error)) from error

    def simulate(self, order: Sequence[str], options: Sequence[str] = ()) -> list[Change]:
        """Return what apt-get would do. Raises Impossible with apt's own reason."""
        result = self.run("apt-get", *order, options=options)
        if result.rc:
            raise Impossible(reason(result.out, result.err))
        return parse_changes(result.out)


def ask(query: Query, root: str, timeout_s: float) -> Facts:
    """Return the answer to a question. Each program gets ``timeout_s`` seconds."""
    apt = Apt(root, timeout_s)
    told = _package_query.answer(root, "apt", query)
    told.update(lists_at=lists_at(root), locked_by=_package_query.lock_holder(root, LOCKS), sources=sources(root))
    try:
        installed = apt.installed()
        told["broken"] = [*_packages.broken(one.package for one in installed), *interrupted(root)]
        changes = _remove(apt, query, installed, told) if query.state == "absent" else _install(apt, query, installed, told)
        told.update(_package_query.changed(changes), **_sizes(apt, installed, changes))
    except Impossible as error:
        told["error"] = told["error"] or str(error)
    return told


def _sizes(apt: Apt, installed: Sequence[Installed], changes: Sequence[Change]) -> Facts:
    """Return what is to be loaded (archives that lie in apt's cache count too) and by how much the packages grow."""
    wanted = {(name, after) for name, _before, after in changes if after}
    records = {(one.name, one.version): one for one in apt.records(f"{name}={after}" for name, after in wanted)}
    there = {one.package.name: one.size_kib for one in installed}
    grown = sum(one.size_kib for one in records.values()) - sum(there.get(change.name, 0) for change in changes)
    return {
        "download_mib": _package_query.mebibytes(sum(one.download for one in records.values())),
        "needed_mib": _package_query.mebibytes(grown * 1024),
    }


def _install(apt: Apt, query: Query, installed: Sequence[Installed], told: Facts) -> list[Change]:
    """Fill in what the sources have and which alternative is chosen, and return its transaction. Raises Impossible."""
    known = apt.names()
    packages = [one.package for one in installed]
    if query.subject != "driver":
        wanted = {name for group in query.alternatives for name in group}
        simulation = Simulation(apt, query, packages, apt.records(wanted & set(known)))
        return _subject_query.choose(query, simulation, packages, told)
    matched = [name for pattern in query.patterns for name in fnmatch.filter(known, pattern)]
    parts = [one.package.name for one in installed if _packages.is_part(one.package.name)]
    named = [name for group in (*query.alternatives, *query.also.values()) for name in group]
    records = apt.records([*matched, *parts, *(set(named) & set(known))])
    told["available"] = _package_query.by_branch(available(records, matched))
    return _package_query.choose(query, Simulation(apt, query, packages, records), packages, told)


class Simulation:
    """apt as something to ask what a transaction would be."""

    def __init__(self, apt: Apt, query: Query, installed: Sequence[Package], records: Sequence[Record]) -> None:
        self._apt = apt
        self._query = query
        self._there = {package.name: package.version for package in installed}
        self._records: dict[str, list[Record]] = {}
        self._prebuilt = Prebuilt(apt, self._of)
        for record in records:
            self._records.setdefault(record.name, []).append(record)

    def _of(self, name: str) -> list[Record]:
        """Return what the sources have of a package, in apt's order, which is the newest first."""
        if name not in self._records:
            self._records[name] = [record for record in self._apt.records([name]) if record.name == name]
        return self._records[name]

    def versions(self, name: str) -> Sequence[str]:
        """Return the versions that the sources have of a package."""
        return [record.version for record in self._of(name)]

    def is_there(self, name: str) -> bool:
        """Say whether a package is installed."""
        return name in self._there

    def missing(self, name: str) -> str:
        """Return a sentence that says why there is no version of a package."""
        return _package_query.missing(name)

    def simulate(self, names: Sequence[str], gone: Sequence[str], target: str | None) -> list[Change]:
        """Return what installing and removing packages would change, the driver's in version ``target``. Raises Impossible."""
        # Those of kernels that nobody asked for, an older one for instance, are of no use with another driver than their own either.
        prebuilt = self._prebuilt.versions({*names, *self._there} - {*gone}, target) if target else {}
        moving = [name for name, version in prebuilt.items() if self._there.get(name, version) != version]
        order = dict.fromkeys([*names, *moving])
        query = self._query
        pin = f"{target or query.version}*" if target or query.version else f"{query.branch}.*"
        with self._preferences([*sorted(prebuilt.items()), (_GLOBS, pin)]) as options:
            return self._apt.simulate([*_INSTALL, *order, *(f"{name}-" for name in gone)], options)

    def exact(self, wanted: Mapping[str, str], gone: Sequence[str]) -> list[Change]:
        """Return what installing packages, each in one version, and removing others would change. Raises Impossible."""
        order = [*(f"{name}={version}" for name, version in wanted.items()), *(f"{name}-" for name in gone)]
        with self._preferences(sorted(wanted.items())) as options:
            return self._apt.simulate([*_INSTALL, *order], options)

    @contextlib.contextmanager
    def _preferences(self, pins: Sequence[tuple[str, str]]) -> Iterator[list[str]]:
        """Give the options by which apt takes the versions of ``pins``; of several rules for a version the first counts."""
        root, query = self._apt.root, self._query
        with tempfile.TemporaryDirectory(prefix="difyops-") as folder:
            rules = [f"Package: {names}\nPin: version {version}\nPin-Priority: {_ABOVE_ALL}\n" for names, version in pins]
            rules += [query.preferences or "", _sysfs.read(root, "etc/apt/preferences") or ""]
            with open(os.path.join(folder, "preferences"), "w", encoding="utf-8") as file:
                file.write("\n\n".join(rules))
            os.mkdir(os.path.join(folder, "parts"))
            own = _managed.FILES[_package_query.SUBJECTS[query.subject].role]
            left_out = {*map(os.path.basename, own), *_of_pinning(root, query)}
            for name in set(_sysfs.listing(root, "etc/apt/preferences.d")) - left_out:
                os.symlink(os.path.abspath(os.path.join(root, "etc/apt/preferences.d", name)), os.path.join(folder, "parts", name))
            yield [f"-oDir::Etc::Preferences={folder}/preferences", f"-oDir::Etc::PreferencesParts={folder}/parts"]


class Prebuilt:
    """Finds the version of modules that the distribution built for one version of the driver, of which apt would only try the newest.

    Its packages have the version of a kernel; what driver they are for only their dependencies tell: those of the modules a range
    of versions of nvidia-kernel-common, and those of the metapackage one version of the modules.
    """

    def __init__(self, apt: Apt, records: Callable[[str], Sequence[Record]]) -> None:
        self._apt = apt
        self._records = records
        self._known: dict[tuple[str, str], list[dict[str, str]]] = {}

    def versions(self, names: Iterable[str], target: str) -> dict[str, str]:
        """Return the newest versions that go with a driver and with each other, by package: of those named and those that they need.

        A package of which no version does is left out. Raises Impossible where dpkg or apt cannot be asked.
        """
        sets = [self._sets(name, target) for name in sorted(names) if _packages.is_prebuilt(name)]
        found: dict[str, str] = {}
        # Who needs most comes first: a metapackage decides on the modules that are named beside it.
        for candidates in sorted(sets, key=lambda some: max(map(len, some), default=0), reverse=True):
            fitting = (one for one in candidates if all(found.get(name, version) == version for name, version in one.items()))
            found.update(next(fitting, {}))
        return found

    def _sets(self, name: str, target: str) -> list[dict[str, str]]:
        """Return each version of a package that goes with a driver, together with those of the prebuilt packages that it needs."""
        if (name, target) not in self._known:
            # Whatever needs itself finds nothing here.
            self._known[name, target] = []
            every = (self._with_needs(record, target) for record in self._records(name))
            self._known[name, target] = [one for one in every if one is not None]
        return self._known[name, target]

    def _with_needs(self, record: Record, target: str) -> dict[str, str] | None:
        found = {record.name: record.version}
        for alternatives in relations(record.needs):
            needed = next((one for one in (self._met(relation, target) for relation in alternatives) if one is not None), None)
            if needed is None:
                return None
            found.update(needed)
        return found

    def _met(self, relation: Relation, target: str) -> dict[str, str] | None:
        """Return the prebuilt packages by which a need is met beside one version of the driver; None where it is not met."""
        if _packages.is_prebuilt(relation.name):
            return next((one for one in self._sets(relation.name, target) if self._allows(relation, one[relation.name])), None)
        if not _package_query.is_fixed(relation.name):
            return {}
        versions = [(_packages.driver_version(record.version), record.version) for record in self._records(relation.name)]
        right = next((version for own, version in versions if own == target), None)
        if right is None:
            return None if any(own for own, _version in versions) else {}
        return {} if self._allows(relation, right) else None

    def _allows(self, relation: Relation, version: str) -> bool:
        operator, other = relation.operator, relation.version
        return operator is None or other is None or self._apt.compares(version, operator, other)


def _of_pinning(root: str, query: Query) -> set[str]:
    """Return the preferences of NVIDIA's pinning package, which is replaced by another one before the driver is."""
    if _package_query.PINNING not in query.also:
        return set()
    lists = glob.glob(os.path.join(glob.escape(root), "var/lib/dpkg/info/nvidia-driver-pinning-*.list"))
    paths = "\n".join(_sysfs.read(path) or "" for path in lists)
    return set(re.findall(r"(?m)^/etc/apt/preferences\.d/([^/\n]+)$", paths))


def available(records: Iterable[Record], names: Iterable[str]) -> set[str]:
    """Return the driver versions that packages of those names carry; not those that only lead to another branch."""
    wanted = set(names)
    found = set()
    for record in records:
        version = _packages.driver_version(record.version)
        if version is None or record.name not in wanted:
            continue
        # What is there in several alternatives is needed of any driver.
        needed = [group[0] for group in groups(record.needs) if len(group) == 1 and _packages.is_part(group[0])]
        branches = set(filter(None, map(_package_query.name_branch, needed)))
        if not branches or _package_query.branch_of(version) in branches:
            found.add(version)
    return found


def _remove(apt: Apt, query: Query, installed: Sequence[Installed], told: Facts) -> list[Change]:
    """Return the removal of the driver, say, and of what it brought and nobody else needs. Raises Impossible."""
    going = _package_query.without([one.package.name for one in installed], told["brought"], needs(installed), query.subject)
    if not going:
        return []
    return _package_query.only(apt.simulate(["--simulate", "--allow-change-held-packages", "remove", *going]), going, query.subject)


def needs(installed: Iterable[Installed]) -> list[tuple[str, frozenset[str]]]:
    """Return each need of each package with all installed packages by which it is met; versions are not compared."""
    every = list(installed)
    providers: dict[str, set[str]] = {}
    for one in every:
        for name in (one.package.name, *(name for group in groups(one.provides) for name in group)):
            providers.setdefault(name, set()).add(one.package.name)
    met = (
        (one.package.name, frozenset().union(*(providers.get(name, ()) for name in group))) for one in every for group in groups(one.needs)
    )
    return [(who, names) for who, names in met if names and who not in names]


def groups(text: str) -> list[list[str]]:
    """Return the names in a field of relations: alternatives together."""
    return [[relation.name for relation in group] for group in relations(text)]


def relations(text: str) -> list[list[Relation]]:
    """Return a field of relations: alternatives together."""
    alternatives = ((_RELATION.match(name) for name in group.split("|")) for group in text.split(","))
    return [known for known in ([Relation(*match.groups()) for match in group if match] for group in alternatives) if known]


def parse_installed(text: str) -> list[Installed]:
    """Return the packages in an answer of dpkg-query."""
    found = []
    for line in text.splitlines():
        fields = [*line.split("\t"), *[""] * 11]
        for package in _packages.parse("\t".join(fields[:6])):
            size = int(fields[6]) if re.fullmatch("[0-9]{1,12}", fields[6]) else 0
            found.append(Installed(package, size, f"{fields[7]},{fields[8]}", fields[9]))
    return found


def parse_records(text: str) -> list[Record]:
    """Return the packages in an answer of apt-cache show that a source has."""
    found = []
    for stanza in re.split(r"\n\n+", text):
        fields = dict(re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*)$", stanza))
        # What only the database of installed packages has cannot be got.
        if fields.get("Package") and fields.get("Version") and "Status" not in fields:
            sizes = [
                int(value) if re.fullmatch("[0-9]{1,15}", value) else 0 for value in map(fields.get, ("Size", "Installed-Size"), ("", ""))
            ]
            relations = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
            found.append(Record(fields["Package"], fields["Version"], relations, *sizes))
    return found


def parse_changes(text: str) -> list[Change]:
    """Return what a simulation of apt-get says it would do, sorted; of a package that is there twice (i386) one change."""
    found: dict[str, Change] = {}
    for verb, name, before, after in re.findall(r"(?m)^(Inst|Remv|Purg) ([^\s:]+)\S*(?: \[([^]\n]*)\])?(?: \(([^\s)]+))?", text):
        found.setdefault(name, Change(name, before or None, after or None if verb == "Inst" else None))
    return sorted(change for change in found.values() if change.before or change.after)


def reason(out: str, err: str) -> str:
    """Return why apt-get refuses, as a sentence: unmet dependencies with their packages, else its errors."""
    unmet = re.search(r"unmet dependencies[^\n]*\n((?:[ \t]+\S.*(?:\n|$))+)", out)
    # The newer solver tells which decisions contradict each other, and lists every dependency as unmet.
    if unmet and "conflicting decisions" not in err:
        return _package_query.sentence(re.sub(r"\n (?=\S)", "; ", unmet[1].rstrip()))
    errors = " ".join(re.findall(r"(?m)^E: (.*(?:\n[ \t]+.*)*)", err))
    # apt 3 asks the newer solver for a better reason, after it has told its own.
    return _package_query.sentence(errors[max(0, errors.find("Unable to satisfy")) :] or err or out or "apt-get failed without a word")


def interrupted(root: str) -> list[Facts]:
    """Return an entry for dpkg itself where it was killed in its work: it refuses to go on before it is told to tidy up."""
    if any(name.isdigit() for name in _sysfs.listing(root, "var/lib/dpkg/updates")):
        return [{"name": "dpkg", "version": None, "state": "interrupted"}]
    return []


def lists_at(root: str) -> str | None:
    """Return when package lists were last read; None where there are none."""
    lists = os.path.join(root, "var/lib/apt/lists")
    if not any(re.search(r"_(Packages|InRelease|Release)(\.\w+)?$", name) for name in _sysfs.listing(lists)):
        return None
    times = []
    for path in (lists, os.path.join(lists, "partial"), os.path.join(root, "var/lib/apt/periodic/update-success-stamp")):
        with contextlib.suppress(OSError):
            times.append(os.stat(path).st_mtime)
    return _package_query.timestamp(max(times)) if times else None


def sources(root: str) -> list[Facts]:
    """Return the package sources that are enabled, in files of both forms."""
    found: list[Facts] = []
    for folder, name in (
        ("etc/apt", "sources.list"),
        *(("etc/apt/sources.list.d", name) for name in _sysfs.listing(root, "etc/apt/sources.list.d")),
    ):
        text = _sysfs.read(root, folder, name)
        if text and name.endswith((".list", ".sources")):
            parse = parse_list if name.endswith(".list") else parse_deb822
            found += [{"file": f"/{folder}/{name}", **source} for source in parse(text)]
    return found


def parse_list(text: str) -> Iterator[Facts]:
    """Give the sources of a file with one on each line."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)", line)
        if match:
            signed = re.search(r"(?i)(?:^|\s)signed-by=(\S+)", match[1] or "")
            yield _source([match[2]], [match[3]], match[4].split(), signed and signed[1])


def parse_deb822(text: str) -> Iterator[Facts]:
    """Give the sources of a file with one in each paragraph."""
    for stanza in re.split(r"\n[ \t]*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = {key.lower(): value.strip() for key, value in re.findall(r"(?m)^([\w-]+)[ \t]*:[ \t]*(.*(?:\n[ \t].*)*)", stanza)}
        uris, suites, parts = (fields.get(key, "").split() for key in ("uris", "suites", "components"))
        on = fields.get("enabled", "yes").lower() not in ("no", "false", "without", "off", "disable", "0")
        if on and uris and suites and "deb" in fields.get("types", "").split():
            yield _source(uris, suites, parts, fields.get("signed-by"))


def _source(uris: Sequence[str], suites: Sequence[str], components: Sequence[str], signed: str | None) -> Facts:
    return {
        "uris": [_package_query.masked(uri) for uri in uris],
        "suites": list(suites),
        "components": list(components),
        # A key may stand in the file itself.
        "signed_by": "embedded key" if signed and "-----BEGIN" in signed else signed or None,
    }
