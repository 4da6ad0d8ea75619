# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the packages of an installed driver aside on the host, so that it can come back without any package source.

A package is taken from the package manager's own cache, from a source that still has that very version, or, with dpkg, is made anew from
the files on the host by dpkg-repack, since archives drop a version when the next one comes. Each file is read back before it counts.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Protocol

from ansible_collections.difyops.gpu.plugins.module_utils import _command

PATH = "/var/lib/difyops/upgrade/packages"
INDEX = "index.json"
SAVED, CACHE, DOWNLOAD, REPACK = "saved", "cache", "download", "repack"
MIB = 1024 * 1024
# More than the index and what the file system keeps for itself.
_MARGIN = 32 * MIB
_QUOTED = 300
_PARTIAL = ".partial"
_WAYS = "neither a cache nor a package source has the installed version"
_KEYS = ("name", "version", "how", "file", "size")
_STANZA = re.compile(r"\n\s*\n")

Run = Callable[[Sequence[str], str], _command.Result]


class Problem(Exception):  # noqa: N818
    """What keeps packages from being saved at all. Its text is one sentence."""


class Installed(NamedTuple):
    """A package as it is installed; ``size`` in bytes is what its files take."""

    name: str
    version: str
    architecture: str
    size: int


class Source(NamedTuple):
    """Where a package is to be had from, and in how many bytes; ``path`` of a file that is here already."""

    how: str
    size: int
    path: str | None = None


class Manager(Protocol):
    """What dpkg with apt and rpm with dnf are asked for."""

    def installed(self, names: Sequence[str]) -> list[Installed]:
        """Return the packages of these names that are installed."""

    def sources(self, packages: Sequence[Installed], repack: bool) -> dict[Installed, Source]:
        """Return where each can be had from; one that cannot be had is left out."""

    def brings(self, sources: Iterable[Source]) -> list[str]:
        """Return what has to be installed before that."""

    def ways(self, repack: bool) -> str:
        """Return in words which ways there are to a package that cannot be had."""

    def fetch(self, packages: Mapping[Installed, Source], folder: str) -> None:
        """Put the files of these packages into a folder, as far as that succeeds."""

    def read(self, path: str) -> tuple[str, str, str] | None:
        """Return name, version and architecture of a file, None of one that is no package."""


# -- dpkg and apt ----------------------------------------------------------------------------------------------------


class Apt:
    """dpkg and apt."""

    suffix = ".deb"

    def __init__(self, run: Run, root: str = "/") -> None:
        self._run = run
        self._cache = os.path.join(root, "var/cache/apt/archives")

    def installed(self, names: Sequence[str]) -> list[Installed]:
        form = "${Package}\t${Version}\t${Architecture}\t${Installed-Size}\t${db:Status-Status}\n"
        rows = [line.split("\t") for line in self._run(["dpkg-query", "--show", f"--showformat={form}", *names], "/").out.splitlines()]
        return [Installed(row[0], row[1], row[2], _number(row[3]) * 1024) for row in rows if len(row) == 5 and row[4] == "installed"]

    def sources(self, packages: Sequence[Installed], repack: bool) -> dict[Installed, Source]:
        archive = self._archive(packages)
        can_repack = repack and self._repacks()
        found: dict[Installed, Source] = {}
        for package in packages:
            cached = os.path.join(self._cache, f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb")
            if os.path.isfile(cached):
                found[package] = Source(CACHE, os.path.getsize(cached), cached)
            elif package[:3] in archive:
                found[package] = Source(DOWNLOAD, archive[package[:3]])
            elif can_repack:
                # It copies the files before it packs them.
                found[package] = Source(REPACK, 2 * package.size)
        return found

    def _archive(self, packages: Sequence[Installed]) -> dict[tuple[str, str, str], int]:
        names = [f"{package.name}:{package.architecture}" if package.architecture != "all" else package.name for package in packages]
        answer = self._run(["apt-cache", "--quiet", "show", *names], "/").out if names else ""
        found = {}
        for stanza in _STANZA.split(answer):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
            # One that only dpkg knows has no file.
            if "Filename" in fields:
                name, version, architecture, size = (fields.get(key, "") for key in ("Package", "Version", "Architecture", "Size"))
                found[(name, version, architecture)] = _number(size)
        return found

    def _repacks(self) -> bool:
        """Whether there is a dpkg-repack, or is one to be had."""
        if _command.find("dpkg-repack") is not None:
            return True
        return "Filename: " in self._run(["apt-cache", "--quiet", "show", "dpkg-repack"], "/").out

    def ways(self, repack: bool) -> str:
        if not repack:
            return f"{_WAYS}, and dpkg-repack is not to make it anew (repack)"
        if not self._repacks():
            return f"{_WAYS}, and dpkg-repack, which would make it anew, is not in the package lists (apt-get update)"
        return f"{_WAYS}, and dpkg-repack could not make it anew"

    def brings(self, sources: Iterable[Source]) -> list[str]:
        wanted = any(source.how == REPACK for source in sources)
        return ["dpkg-repack"] if wanted and _command.find("dpkg-repack") is None else []

    def fetch(self, packages: Mapping[Installed, Source], folder: str) -> None:
        download = [f"{one.name}:{one.architecture}={one.version}" for one, source in packages.items() if source.how == DOWNLOAD]
        if download:
            self._run(["apt-get", "--quiet", "download", *download], folder)
        for package, source in packages.items():
            if source.how == REPACK:
                self._run(["dpkg-repack", f"{package.name}:{package.architecture}"], folder)

    def read(self, path: str) -> tuple[str, str, str] | None:
        answer = self._run(["dpkg-deb", "--field", path, "Package", "Version", "Architecture"], "/")
        fields = dict(line.split(": ", 1) for line in answer.out.splitlines() if ": " in line)
        return (fields["Package"], fields["Version"], fields["Architecture"]) if answer.rc == 0 and len(fields) == 3 else None


# -- rpm and dnf -----------------------------------------------------------------------------------------------------


class Dnf:
    """rpm and dnf 4."""

    suffix = ".rpm"
    _FORM = r"%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\t%{SIZE}\n"

    def __init__(self, run: Run, root: str = "/") -> None:
        self._run = run
        self._cache = os.path.join(root, "var/cache/dnf/*/packages")

    def installed(self, names: Sequence[str]) -> list[Installed]:
        rows = [line.split("\t") for line in self._run(["rpm", "--query", "--queryformat", self._FORM, *names], "/").out.splitlines()]
        return [Installed(row[0], row[1], row[2], _number(row[3])) for row in rows if len(row) == 4]

    def sources(self, packages: Sequence[Installed], repack: bool) -> dict[Installed, Source]:
        form = r"%{name}\t%{version}-%{release}\t%{arch}\t%{downloadsize}\n"
        specs = [_spec(package) for package in packages]
        answer = self._run(["dnf", "--quiet", "--cacheonly", "repoquery", "--queryformat", form, *specs], "/").out if specs else ""
        rows = [line.split("\t") for line in answer.splitlines()]
        archive = {(row[0], row[1], row[2]): _number(row[3]) for row in rows if len(row) == 4}
        found: dict[Installed, Source] = {}
        for package in packages:
            cached = glob.glob(os.path.join(self._cache, f"{glob.escape(_spec(package))}.rpm"))
            if cached:
                found[package] = Source(CACHE, os.path.getsize(cached[0]), cached[0])
            elif package[:3] in archive:
                found[package] = Source(DOWNLOAD, archive[package[:3]])
        return found

    def brings(self, sources: Iterable[Source]) -> list[str]:
        if not any(source.how == DOWNLOAD for source in sources):
            return []
        return [] if self._run(["dnf", "download", "--help"], "/").rc == 0 else ["dnf-plugins-core"]

    def ways(self, repack: bool) -> str:
        return _WAYS

    def fetch(self, packages: Mapping[Installed, Source], folder: str) -> None:
        download = [_spec(package) for package, source in packages.items() if source.how == DOWNLOAD]
        if download:
            self._run(["dnf", "--quiet", "--assumeyes", "download", "--destdir", folder, *download], folder)

    def read(self, path: str) -> tuple[str, str, str] | None:
        answer = self._run(["rpm", "--query", "--package", "--queryformat", self._FORM, path], "/")
        row = answer.out.strip("\n").split("\t")
        return (row[0], row[1], row[2]) if answer.rc == 0 and len(row) == 4 else None


def _spec(package: Installed) -> str:
    return f"{package.name}-{package.version}.{package.architecture}"


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


# -- what is saved ---------------------------------------------------------------------------------------------------


def manager_of(name: str | None, run: Run) -> Manager:
    """Return apt or dnf, by its name. Raises Problem where the host has neither."""
    if name == "apt":
        return Apt(run)
    if name == "dnf":
        return Dnf(run)
    raise Problem("The packages of the driver cannot be saved: this host has neither apt nor dnf.")


def runner(timeout_s: float, last: list[str]) -> Run:
    """Return what runs a program with a deadline, in a folder; ``last`` gets the last words of one that failed."""

    def run(argv: Sequence[str], folder: str) -> _command.Result:
        home = os.getcwd()
        try:
            os.chdir(folder)
            result = _command.run(argv, timeout_s, env={"DEBIAN_FRONTEND": "noninteractive"})
        except _command.CannotStart as error:
            result = _command.Result(127, b"", str(error).encode())
        finally:
            os.chdir(home)
        if result.rc != 0:
            words = "no answer within the time that was given" if result.timed_out else result.err.strip().rpartition("\n")[2]
            last[:] = [f"{argv[0]}: {words}"[:_QUOTED]]
        return result

    return run


def _index(path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what is saved already, by name and version; entries whose file is not as it was are left out."""
    try:
        with open(os.path.join(path, INDEX), encoding="utf-8") as file:
            entries = json.load(file)["packages"]
        found = {(str(entry["name"]), str(entry["version"])): dict(entry) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return {key: entry for key, entry in found.items() if _digest(os.path.join(path, str(entry.get("file")))) == entry.get("sha256")}


def _digest(path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(MIB):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def save(
    manager: Manager, wanted: Sequence[Mapping[str, Any]], path: str, repack: bool, check: bool, last: Sequence[str] = ()
) -> dict[str, Any]:
    """Save packages, ``{name, version}`` each, and return what the module answers. Raises Problem.

    With ``check`` nothing is written, and the answer says how each would be had. ``last`` has the last words of a program that failed.
    """
    names = list(dict.fromkeys(str(one.get("name", "")) for one in wanted))
    versions = {(str(one.get("name", "")), str(one.get("version", ""))) for one in wanted}
    installed = [one for one in (manager.installed(names) if names else []) if (one.name, one.version) in versions]
    known = _index(path)
    open_ones = [one for one in installed if (one.name, one.version) not in known]
    sources = manager.sources(open_ones, repack)
    entries = {key: {**entry, "how": SAVED} for key, entry in known.items() if key in versions}
    changed = bool(sources)
    if check:
        entries.update({(one.name, one.version): _entry(one, source.how, None, source.size) for one, source in sources.items()})
    elif sources:
        _room(path, sources.values())
        entries.update(_bring(manager, sources, path))
        _write_index(path, entries.values())
    missing = sorted({name for name, version in versions if (name, version) not in entries})
    return {
        "changed": changed,
        "complete": not missing,
        "packages": [entries.get(key) or dict(zip(_KEYS, (*key, None, None, None))) for key in sorted(versions)],
        "missing": missing,
        "bytes": sum(int(entry["size"] or 0) for entry in entries.values()),
        "bring": manager.brings(sources.values()),
        "msg": _sentence(missing, repack, manager, last) if missing else "",
    }


def _entry(package: Installed, how: str, file: str | None, size: int) -> dict[str, Any]:
    return dict(zip(_KEYS, (package.name, package.version, how, file, size)))


def _sentence(missing: Sequence[str], repack: bool, manager: Manager, last: Sequence[str]) -> str:
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    words = f"; {last[0]}" if last else ""
    return f"{shown}: {manager.ways(repack)}{words}."


def _room(path: str, sources: Iterable[Source]) -> None:
    """Raise Problem where the file system has not enough room."""
    place = path
    while not os.path.isdir(place):
        place = os.path.dirname(place) or "/"
    state = os.statvfs(place)
    needed, free = sum(source.size for source in sources) + _MARGIN, state.f_bavail * state.f_frsize
    if free < needed:
        raise Problem(
            f"DG782: there is not enough room for the packages of the present driver: up to {needed // MIB} MiB are needed at {path}, "
            f"{free // MIB} MiB are free. Free space, and run the same again."
        )


def _bring(manager: Manager, sources: Mapping[Installed, Source], path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Put the files of all that can be had into the folder, and return their entries. Raises Problem."""
    partial = os.path.join(path, _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        os.makedirs(partial, mode=0o700)
        manager.fetch({one: source for one, source in sources.items() if source.path is None}, partial)
        found = {}
        for file in sorted(os.listdir(partial)):
            told = manager.read(os.path.join(partial, file))
            if told is not None:
                found[told] = os.path.join(partial, file)
        entries = {}
        for package, source in sources.items():
            place = source.path or found.get(package[:3])
            if place is None or manager.read(place) != package[:3]:
                continue
            name = os.path.basename(place)
            target = os.path.join(path, name)
            _keep(place, target, source.path is None)
            entry = _entry(package, source.how, name, os.path.getsize(target))
            entries[(package.name, package.version)] = {**entry, "sha256": _digest(target)}
    except OSError as error:
        raise Problem(_unwritten(path, error)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return entries


def _keep(file: str, target: str, own: bool) -> None:
    if own:
        os.replace(file, target)
        return
    try:
        shutil.copyfile(file, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(target)
        raise


def _write_index(path: str, entries: Iterable[Mapping[str, Any]]) -> None:
    kept = [{key: entry[key] for key in ("name", "version", "file", "sha256", "size")} for entry in entries]
    target = os.path.join(path, INDEX)
    try:
        with open(f"{target}.new", "w", encoding="utf-8") as file:
            json.dump({"schema": 1, "packages": kept}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{target}.new", target)
    except OSError as error:
        raise Problem(_unwritten(path, error)) from None


def _unwritten(path: str, error: OSError) -> str:
    code = "DG782: " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{code}the packages of the present driver cannot be saved at {path}: {error.strerror or error}."


def remove(path: str, check: bool) -> bool:
    """Take the folder away, and return whether there was one. Raises Problem."""
    if not os.path.isdir(path):
        return False
    # Somebody's folder that was named by mistake is left alone.
    strange = [name for name in os.listdir(path) if not name.endswith((".deb", ".rpm")) and name not in (INDEX, f"{INDEX}.new", _PARTIAL)]
    if strange:
        raise Problem(f"{path} has more in it than saved packages ({strange[0]}), and is left as it is.")
    if not check:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise Problem(f"{path} cannot be taken away: {error.strerror or error}.") from None
    return True
