# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Docker comes from: what each distribution has of it, Docker's own repository, and the names of the packages.

Sources: the package lists of Debian 12 and 13; Docker's installation guides for Debian, Ubuntu and RHEL, which name the repositories, the
packages and the fingerprints of both keys. From memory: the names of Ubuntu's packages, that Ubuntu brings newer releases of them to all
its supported releases, and that Amazon Linux 2023 has docker without a compose plugin. The repository has the last word.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _driver_source, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_source import DEBIAN, Target
from ansible_collections.difyops.gpu.plugins.plugin_utils._engine_settings import AUTO, DISTRIBUTION, DOCKER, Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, Repository

_BASE = "https://download.docker.com/linux"
_DEB_KEY = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
_RPM_KEY = "060A61C51B558A7F742B77AAC52FEB6B621E9F35"
AMAZON = "amzn2023"


class Names(NamedTuple):
    """Packages that make Docker. `compose` and `buildx` are None where a source has no such plugin.

    `compose_version` is what the source has by our tables, None where they do not tell; `too_old` that its engine is older than any that
    is brought.
    """

    engine: tuple[str, ...]
    compose: str | None
    buildx: str | None
    compose_version: str | None = None
    too_old: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """Every package that an installation brings."""
        return (*self.engine, *(name for name in (self.compose, self.buildx) if name))


_UBUNTU = Names(("docker.io",), "docker-compose-v2", "docker-buildx")
_DISTRIBUTIONS: dict[str, Names] = {
    "bookworm": Names(("docker.io",), None, None, too_old="20.10"),
    "trixie": Names(("docker.io", "docker-cli"), "docker-compose", "docker-buildx", "2.26.1"),
    "jammy": _UBUNTU,
    "noble": _UBUNTU,
    "resolute": _UBUNTU,
    AMAZON: Names(("docker",), None, None),
}
_DOCKER = Names(("docker-ce", "docker-ce-cli", "containerd.io"), "docker-compose-plugin", "docker-buildx-plugin")
# Everything that belongs to one or the other, and so changes or goes when Docker is exchanged.
_ENGINES = frozenset({"docker.io", "docker-ce", "docker", "moby-engine"})
# What others run containers with too, Kubernetes among them.
SHARED = frozenset({"containerd", "containerd.io", "runc"})
_RUNTIMES = _ENGINES | SHARED
_OWN = _RUNTIMES | {
    "docker-cli",
    "docker-ce-cli",
    "docker-ce-rootless-extras",
    "docker-compose",
    "docker-compose-v2",
    "docker-compose-plugin",
    "docker-buildx",
    "docker-buildx-plugin",
    "docker-model-plugin",
    "docker-doc",
}


def is_own(name: str) -> bool:
    """Whether a package belongs to Docker, whoever built it."""
    return name in _OWN


def is_engine(name: str) -> bool:
    """Whether a package is Docker itself, whose version is Docker's."""
    return name in _ENGINES


def restarts(name: str) -> bool:
    """Whether a new version of a package takes effect with a restart of Docker or of what its containers hang on."""
    return name in _RUNTIMES


def target(host: Host) -> Target | None:
    """Return the operating system of a host, None where no Docker is brought to it."""
    return _driver_source.target(host)


def distribution(here: Target) -> Names | None:
    """Return what the distribution itself has of Docker, None where it has nothing."""
    return _DISTRIBUTIONS.get(here.codename or here.directory)


def docker(here: Target) -> Names | None:
    """Return what Docker's repository has for a system, None where it has nothing for it."""
    return None if here.directory == AMAZON else _DOCKER


def names(here: Target, source: str) -> Names | None:
    """Return what a source has for a system, None where it has nothing."""
    return docker(here) if source == DOCKER else distribution(here)


def installed_from(host: Host) -> str | None:
    """Return the source of the Docker that is there, None where that is not from packages, or there is none."""
    return _document.text(host.facts, "engine", "origin")


def version(host: Host) -> str | None:
    """Return the version of the Docker that is there; of one that does not answer that of its package."""
    told = _document.text(host.facts, "engine", "version")
    if told is not None:
        return told
    for package in _document.mappings(host.facts, "engine", "packages"):
        if is_engine(_document.text(package, "name") or ""):
            return upstream(_document.text(package, "version"))
    return None


def upstream(text: str | None) -> str | None:
    """Return the version of Docker in that of a package, None where there is none."""
    parsed = _versions.parse((text or "").rpartition(":")[2])
    return str(parsed) if parsed is not None else None


def choose(here: Target, settings: Settings) -> str:
    """Return the source for a host without Docker: the distribution's own where it has all that is needed."""
    if settings.source != AUTO:
        return settings.source
    own = distribution(here)
    if own is None or own.too_old is not None:
        return DOCKER
    if docker(here) is None:
        return DISTRIBUTION
    enough = own.compose_version is None or _versions.at_least(own.compose_version, settings.compose_min)
    return DISTRIBUTION if own.compose is not None and enough else DOCKER


def repository(host: Host, settings: Settings, source: str) -> Repository | None:
    """Return the repository that the host needs beside its own sources; None where there is none to name."""
    here, given = target(host), settings.repository
    if here is None or (source == DISTRIBUTION and not given.url):
        return None
    apt = here.manager == APT
    if source == DISTRIBUTION:
        components = given.components or ("main" if here.family == DEBIAN else "main universe")
        return Repository(given.url, given.suite or here.codename, components, given.key, given.fingerprint or None)
    family = here.family if apt else "rhel"
    version = (_document.text(host.facts, "host", "os", "version") or "").partition(".")[0]
    base = f"{_BASE}/{family}/" if apt else f"{_BASE}/{family}/{version}/$basearch/stable/"
    url = given.url or base
    url = url if url.endswith("/") else f"{url}/"
    suite = given.suite or (here.codename if apt else "/")
    components = "" if suite.endswith("/") else given.components or "stable"
    # A file on the controller is trusted as it is: whoever runs the play put it there.
    known = None if given.key and "://" not in given.key else _DEB_KEY if apt else _RPM_KEY
    return Repository(url, suite, components, given.key or f"{_BASE}/{family}/gpg", given.fingerprint or known)


def phrase(source: str | None) -> str:
    """Return a source for sentences."""
    return {DISTRIBUTION: "the distribution", DOCKER: "Docker's repository"}.get(source or "", "where it came from")
