# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of packages on a host, whatever is in them: the files of a role that name one, their key, and what the host has already."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _openpgp, _plan_codes
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, option

APT, DNF = "apt", "dnf"
_MODE = "0644"

Rendered = dict[str, str]


class Repository(NamedTuple):
    """Where packages come from. `components` is empty for a flat repository; `key` a URL, or a file on the controller, or empty."""

    url: str
    suite: str
    components: str
    key: str
    fingerprint: str | None


class Place(NamedTuple):
    """Where a role has its files: `part` of the plan, `role` and `title` of what it brings, and what its files are called."""

    part: str
    role: str
    title: str
    name: str

    @property
    def head(self) -> str:
        """The comment with which every file of the role begins."""
        end = "" if self.part == "engine" else ", and the file goes with state: absent"
        return f"Managed by the role difyops.gpu.{self.role}: changes here are overwritten{end}."

    @property
    def apt_sources(self) -> str:
        """Path of apt's source."""
        return f"/etc/apt/sources.list.d/{self.name}.sources"

    @property
    def apt_key(self) -> str:
        """Path of the key of apt's source."""
        return f"/etc/apt/keyrings/{self.name}.asc"

    @property
    def preferences(self) -> str:
        """Path of apt's preferences."""
        return f"/etc/apt/preferences.d/{self.name}.pref"

    @property
    def yum_repo(self) -> str:
        """Path of dnf's repository."""
        return f"/etc/yum.repos.d/{self.name}.repo"

    @property
    def rpm_key(self) -> str:
        """Path of the key of dnf's repository."""
        return f"/etc/pki/rpm-gpg/RPM-GPG-KEY-{self.name}"

    def file(self, manager: str) -> str:
        """Return the path of the file that names the repository."""
        return self.apt_sources if manager == APT else self.yum_repo

    def key(self, manager: str) -> str:
        """Return the path of the repository's key."""
        return self.apt_key if manager == APT else self.rpm_key

    @property
    def all_of_repository(self) -> tuple[str, ...]:
        """Every file that a repository may have."""
        return (self.apt_sources, self.apt_key, self.yum_repo, self.rpm_key)


DRIVER = Place("driver", "nvidia_driver", "NVIDIA driver", "difyops-nvidia-driver")
ENGINE = Place("engine", "container_engine", "Docker", "difyops-docker")
TOOLKIT = Place("toolkit", "nvidia_container_toolkit", "NVIDIA Container Toolkit", "difyops-nvidia-container-toolkit")


# -- content ---------------------------------------------------------------------------------------------------------


def rendered(content: str) -> Rendered:
    """Return a file in the form that the plan has."""
    return {"content": content, "sha256": hashlib.sha256(content.encode()).hexdigest(), "mode": _MODE}


def stanzas(place: Place, texts: Iterable[str]) -> Rendered:
    """Return apt's sources of these stanzas."""
    return rendered("\n".join([f"# {place.head}\n{text}" if number == 0 else text for number, text in enumerate(texts)]))


def stanza(uris: Sequence[str], suites: Sequence[str], components: Sequence[str], signed_by: str) -> str:
    """Return one of apt's sources; `signed_by` is the path of its key."""
    lines = ["Types: deb", f"URIs: {' '.join(uris)}", f"Suites: {' '.join(suites)}"]
    lines += [f"Components: {' '.join(components)}"] if components else []
    lines += [f"Signed-By: {signed_by}"] if signed_by else []
    return "\n".join(lines) + "\n"


def of_repository(place: Place, manager: str, named: Repository, keyring: str = "") -> tuple[str, Rendered]:
    """Return path and content of the role's file for a repository. `keyring` signs one that has no key of its own (apt)."""
    if manager == APT:
        signed_by = place.apt_key if named.key else keyring
        return place.apt_sources, stanzas(place, [stanza([named.url], [named.suite], named.components.split(), signed_by)])
    return place.yum_repo, rendered(
        f"# {place.head}\n[{place.name}]\nname={place.title}\nbaseurl={named.url}\nenabled=1\ngpgcheck=1\ngpgkey=file://{place.rpm_key}\n"
    )


def key_file(data: bytes) -> Rendered:
    """Return the file of a repository's key. Raises _openpgp.KeyFileError."""
    return rendered(_openpgp.armored(data))


# -- what the host has -----------------------------------------------------------------------------------------------


def is_there(managed: Mapping[str, Any], path: str, file: Rendered) -> bool:
    """Whether a file of the role is on the host as it should be; `managed` are those that are there."""
    found = managed.get(path)
    return _document.text(found, "sha256") == file["sha256"] and _document.text(found, "mode") in (None, file["mode"])


def has_own(place: Place, entries: Sequence[Mapping[str, Any]], url: str) -> bool:
    """Whether the host has this repository already, in a file that is not the role's."""
    wanted = same(url)
    others = [entry for entry in entries if not _is_ours(place, entry)]
    return any(wanted in map(same, _document.texts(entry, "uris")) for entry in others)


def has_ours(place: Place, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a file of the role is among the sources that the package manager reads."""
    return any(_is_ours(place, entry) for entry in entries)


def is_read(place: Place, entries: Sequence[Mapping[str, Any]], files: Mapping[str, Rendered]) -> bool:
    """Whether the package manager reads all repositories that are in rendered files of the role."""
    text = "".join(file["content"] for path, file in files.items() if path in (place.apt_sources, place.yum_repo))
    wanted = {same(url) for line in re.findall(r"(?m)^(?:URIs: |baseurl=)(.*)$", text) for url in line.split()}
    ours = [entry for entry in entries if _is_ours(place, entry)]
    there = {same(url) for entry in ours for url in _document.texts(entry, "uris")}
    parts = {part for entry in ours for part in _document.texts(entry, "components")}
    components = {part for line in re.findall(r"(?m)^Components: (.*)$", text) for part in line.split()}
    return bool(wanted) and wanted <= there and components <= parts


def same(url: str) -> str:
    """Return a URL in the form in which two of one repository are equal."""
    return re.sub(r"^https?://", "", url).rstrip("/").lower()


def _is_ours(place: Place, entry: Mapping[str, Any]) -> bool:
    return _document.text(entry, "file") in (place.apt_sources, place.yum_repo)


# -- what the host is to have ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Needed:
    """A repository that the host is to have: its files, where its key comes from (None for keys that the host has), and what is wrong."""

    files: Mapping[str, Rendered]
    key: Mapping[str, str | None] | None
    change: bool
    block: Block | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        return {"files": dict(self.files), "key": dict(self.key) if self.key is not None else None, "change": self.change}


class Wanted(NamedTuple):
    """A repository that a role is to bring to a host: in which place, for which package manager, beside which files of the role."""

    place: Place
    manager: str
    named: Repository
    managed: Mapping[str, Any]
    keyring: str = ""


def needed(wanted: Wanted, entries: Sequence[Mapping[str, Any]], key: bytes | None) -> Needed:
    """Return a repository that the host needs, with the file of its key where that was fetched.

    Args:
        wanted: the repository.
        entries: the sources that the package manager reads.
        key: content of the key file, None before it was fetched.
    """
    place, named = wanted.place, wanted.named
    path = place.key(wanted.manager)
    file, content = of_repository(place, wanted.manager, named, wanted.keyring)
    if not named.key:
        return as_needed(place, wanted.managed, entries, {file: content})
    fetched = {"source": named.key, "fingerprint": named.fingerprint, "path": path}
    found = as_needed(place, wanted.managed, entries, {file: content}, fetched)
    if not found.change:
        return found
    if named.fingerprint is None and "://" in named.key:
        return Needed(found.files, fetched, True, _nameless(place, named))
    if key is None:
        return found
    try:
        there = _openpgp.fingerprints(key)
        text = key_file(key)
    except _openpgp.KeyFileError as exc:
        return Needed(found.files, fetched, True, _wrong(place, named, f"it {exc}"))
    # A second key in the file would sign for the repository too.
    if named.fingerprint is not None and set(there) != {named.fingerprint}:
        return Needed(found.files, fetched, True, _wrong(place, named, f"it has {', '.join(there)}"))
    return Needed({**found.files, path: text}, fetched, True)


def as_needed(
    place: Place,
    managed: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    files: Mapping[str, Rendered],
    key: Mapping[str, str | None] | None = None,
) -> Needed:
    """Return files that the host is to have, with whether that is a change."""
    there = all(is_there(managed, path, file) for path, file in files.items())
    there = there and (key is None or key["path"] in managed)
    # The facts are older than the answer: what the role has just added is among the sources already.
    return Needed(files, key, not there and not is_read(place, entries, files))


def _nameless(place: Place, named: Repository) -> Block:
    message = f"the fingerprint of the key {named.key} of the repository {named.url} is not known here, so nobody could tell a wrong key"
    name = option(f"{place.part}.repository")
    remedy = f"set fingerprint in {name} to the one that NVIDIA or whoever signs the repository names; gpg --show-keys shows that of a file"
    return Block(place.part, _plan_codes.WRONG_KEY, message, remedy)


def _wrong(place: Place, named: Repository, found: str) -> Block:
    wanted_key = named.fingerprint or "any public key"
    message = f"the key {named.key} of the repository {named.url} is not the one expected, {wanted_key}: {found}"
    name = option(f"{place.part}.repository")
    remedy = f"look who changed it before anything else; where the new key is right, set fingerprint in {name}"
    return Block(place.part, _plan_codes.WRONG_KEY, message, remedy)
