# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release of Dify, read from its source archive on the controller: its compose project and the files of its variables."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import yaml
from ansible_collections.difyops.gpu.plugins.module_utils import _dotenv
from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose_text, _plan_codes

# Of the source archive of a tag: dify-<version>/docker/...
_FOLDER = "docker"
COMPOSE_FILE, ENV_EXAMPLE = "docker-compose.yaml", ".env.example"
_ENV_FILES = re.compile(r"envs/.+\.env\.example")
# Bytes: of the archive (those of upstream have about 20 MiB), of one of the files that are read, and of all that is in it.
_ARCHIVE_MAX, _FILE_MAX, _UNPACKED_MAX = 1 << 30, 8 << 20, 4 << 30
_ENTRIES_MAX = 200_000
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:[-.]?(?:a|b|rc|alpha|beta|fix|post)[-.]?\d*)?")
# From which release on which Docker Compose is needed, newest first. Upstream's instructions ask for 2.24.0 since the variables
# are in optional files (`env_file` with `required`, which compose has since then), and its newest ones for 2.35.0.
COMPOSE_MIN = (((1, 18), "2.35.0"), ((1, 15), "2.24.0"), ((0, 0), "2.20.0"))
ENV, ENVS = "env", "envs"


class ReleaseError(Exception):
    """An archive that cannot be used: a code of `_plan_codes`, and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Release:
    """A release as it is in its archive.

    Attributes:
        version: of the archive's folder, without a leading v.
        layout: `env`, where `.env.example` has every variable, or `envs`, where most are in optional files below `envs/`.
        sha256: digest of the archive.
        compose_text: the file `docker-compose.yaml`.
        compose: the same as data, with the anchors and merges of YAML done and variables as they are written.
        env_example: the variables of `.env.example` in their order, as they are written; a dollar sign that is one is doubled.
        envs: the same for each file below `envs/`, by its path.
        compose_min: the oldest Docker Compose that upstream asks for.
    """

    version: str
    layout: str
    sha256: str
    compose_text: str
    compose: Mapping[str, Any]
    env_example: Mapping[str, str]
    envs: Mapping[str, Mapping[str, str]]
    compose_min: str

    @property
    def compose_sha256(self) -> str:
        """Digest of `docker-compose.yaml`."""
        return hashlib.sha256(self.compose_text.encode("utf-8")).hexdigest()

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """Every text of the compose project, names of services and keys left out."""
        found: list[str] = []
        _collect(self.compose, found)
        return tuple(found)

    @functools.cached_property
    def references(self) -> tuple[_compose_text.Reference, ...]:
        """The variables that the compose project asks for."""
        return tuple(item for text in self.texts for item in _compose_text.references(text))

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """Names of all variables that the release knows: of its files, and of the compose project."""
        of_files = {name for file in self.envs.values() for name in file}
        return frozenset({*self.env_example, *of_files, *(item.name for item in self.references)})

    @functools.cached_property
    def defaults(self) -> Mapping[str, str]:
        """Values of `.env.example` with the variables in them replaced, in their order."""
        found: dict[str, str] = {}
        for name, text in self.env_example.items():
            found[name] = _replaced(f"{ENV_EXAMPLE}: {name}", text, found)
        return found

    @functools.cached_property
    def profiles(self) -> tuple[str, ...]:
        """The profiles that `.env.example` chooses."""
        return tuple(name.strip() for name in self.defaults.get("COMPOSE_PROFILES", "").split(",") if name.strip())


def _collect(value: object, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found)


def read(path: str, version: str = "") -> Release:
    """Return the release in an archive.

    Args:
        path: of the archive on this machine.
        version: that it has to be; empty where any will do.

    Raises ReleaseError: DG901 where there is no such file, DG902 where it is no release, DG904 where the release has something unknown.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as exc:
        raise ReleaseError(_plan_codes.APP_NO_ARCHIVE, f"The archive {path} cannot be read: {_reason(exc)}.") from exc
    if not stat.S_ISREG(status.st_mode):
        raise _broken(path, "it is no file")
    release = _read(path, status.st_mtime_ns, status.st_size)
    if version and release.version != version.removeprefix("v"):
        raise _broken(path, f"it has release {release.version}, and {version} was expected")
    return release


@functools.lru_cache(maxsize=8)
def _read(path: str, _changed_ns: int, size: int) -> Release:
    if size > _ARCHIVE_MAX:
        raise _broken(path, f"it has {size >> 20} MiB, and no release has more than {_ARCHIVE_MAX >> 20} MiB")
    folder, files = _files(path)
    version = _version(path, folder)
    for name in (COMPOSE_FILE, ENV_EXAMPLE):
        if name not in files:
            raise _broken(path, f"it has no {_FOLDER}/{name}")
    texts = {name: _decoded(path, name, content) for name, content in files.items()}
    envs = {name: _variables(name, text) for name, text in sorted(texts.items()) if _ENV_FILES.fullmatch(name)}
    compose = _compose(path, texts[COMPOSE_FILE])
    release = Release(
        version=version,
        layout=ENVS if envs else ENV,
        sha256=_digest(path),
        compose_text=texts[COMPOSE_FILE],
        compose=compose,
        env_example=_variables(ENV_EXAMPLE, texts[ENV_EXAMPLE]),
        envs=envs,
        compose_min=compose_min(version),
    )
    _check(release)
    return release


def _files(path: str) -> tuple[str, dict[str, bytes]]:
    """Return the archive's folder, and the files of `docker/` that are read, by their path below it. Raises ReleaseError."""
    found: dict[str, bytes] = {}
    top, unpacked = "", 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for count, member in enumerate(archive):
                _safe(path, member)
                unpacked += member.size
                if count >= _ENTRIES_MAX or unpacked > _UNPACKED_MAX:
                    raise _broken(path, f"it holds more than {_UNPACKED_MAX >> 30} GiB or {_ENTRIES_MAX} entries")
                folder, _slash, name = member.name.partition("/")
                if top and folder != top:
                    raise _broken(path, f"it has more than one folder at its top: {top} and {folder}")
                top = folder
                inner = name.removeprefix(f"{_FOLDER}/") if name.startswith(f"{_FOLDER}/") else ""
                if member.isfile() and (inner in (COMPOSE_FILE, ENV_EXAMPLE) or _ENV_FILES.fullmatch(inner)):
                    found[inner] = _content(path, archive.extractfile(member), member)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as exc:
        raise _broken(path, f"it is no whole .tar.gz archive ({_reason(exc)})") from exc
    return top, found


def _safe(path: str, member: tarfile.TarInfo) -> None:
    """Refuse what would be written elsewhere when the archive is unpacked. Raises ReleaseError."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts:
        raise _broken(path, f"{member.name[:100]} in it leads out of its folder")
    if parts[1:2] != [_FOLDER]:
        # Nothing else of the archive is unpacked.
        return
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise _broken(path, f"{member.name[:100]} in it is neither a file, a folder nor a link")
    if member.issym() or member.islnk():
        # What a link of the file system leads to is told from its folder, what a hard one leads to from the archive's top.
        target = os.path.normpath("/".join([*(parts[:-1] if member.issym() else []), member.linkname]))
        if member.linkname.startswith("/") or target.split("/")[:2] != parts[:2]:
            raise _broken(path, f"the link {member.name[:100]} in it leads out of its folder")


def _content(path: str, file: IO[bytes] | None, member: tarfile.TarInfo) -> bytes:
    if member.size > _FILE_MAX or file is None:
        raise _broken(path, f"{member.name} in it has {member.size >> 20} MiB, and no such file has more than {_FILE_MAX >> 20} MiB")
    return file.read()


def _version(path: str, folder: str) -> str:
    found = re.fullmatch(r"dify-v?(.+)", folder)
    if not folder:
        raise _broken(path, "it is empty")
    if found is None or not _VERSION.fullmatch(found[1]):
        raise _broken(path, f"its folder is {folder[:100]}, and that of a release is dify-<version>")
    return found[1]


def _decoded(path: str, name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        raise _broken(path, f"{_FOLDER}/{name} is no text in UTF-8") from exc


def _variables(name: str, text: str) -> dict[str, str]:
    try:
        return _dotenv.values(text)
    except _dotenv.DotenvError as exc:
        raise _unknown(f"{name}: {exc}") from exc


def _compose(path: str, text: str) -> Mapping[str, Any]:
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  a loader of plain data
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise _broken(path, f"{_FOLDER}/{COMPOSE_FILE} is no valid YAML{where}") from exc
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict) or not services:
        raise _broken(path, f"{_FOLDER}/{COMPOSE_FILE} has no services")
    project: dict[str, Any] = document
    return project


class _Loader(yaml.SafeLoader):
    """Plain data. Compose's own tags, and dates, stay texts."""


_Loader.add_multi_constructor("!", lambda loader, _suffix, node: _untagged(loader, node))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _untagged(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


def _check(release: Release) -> None:
    """Refuse what this collection would handle wrongly. Raises ReleaseError."""
    if "include" in release.compose:
        raise _unknown(f"{COMPOSE_FILE} includes other compose files")
    odd = sorted(str(name) for name, item in release.compose["services"].items() if not isinstance(item, Mapping))
    if odd:
        raise _unknown(f"{COMPOSE_FILE}: the service {odd[0]} is no mapping")
    extended = sorted(str(name) for name, item in release.compose["services"].items() if "extends" in item)
    if extended:
        raise _unknown(f"{COMPOSE_FILE}: the service {extended[0]} extends another one")
    for text in release.texts:
        _replaced(COMPOSE_FILE, text, _Anything())
    # Read once here, so that what is wrong in it is told now.
    _told = release.defaults


def _replaced(where: str, text: str, variables: Mapping[str, str]) -> str:
    try:
        return _compose_text.interpolate(text, variables)
    except _compose_text.InterpolationError as exc:
        raise _unknown(f"{where}: {exc}") from exc


class _Anything(dict[str, str]):
    """Variables of which each is set, so that only what is written wrongly is an error."""

    def get(self, _key: str, default: Any = None) -> Any:
        return default if default is not None else "x"


def compose_min(version: str) -> str:
    """Return the oldest Docker Compose that upstream asks for with a release."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return next(floor for first, floor in COMPOSE_MIN if (major, minor) >= first)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as exc:
        raise ReleaseError(_plan_codes.APP_NO_ARCHIVE, f"The archive {path} cannot be read: {_reason(exc)}.") from exc
    return digest.hexdigest()


def _reason(exc: Exception) -> str:
    return str(getattr(exc, "strerror", None) or exc).rstrip(".") or type(exc).__name__


def _broken(path: str, what: str) -> ReleaseError:
    return ReleaseError(_plan_codes.APP_BROKEN_ARCHIVE, f"The archive {path} is no release of Dify: {what}.")


def _unknown(what: str) -> ReleaseError:
    told = f"The release has something that this collection does not know how to handle: {what.rstrip('.')}."
    return ReleaseError(_plan_codes.APP_UNKNOWN, told)
