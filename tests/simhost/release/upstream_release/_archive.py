# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives as a tag's source archive is: one folder ``dify-<version>``, with more beside ``docker`` in it."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from typing import NamedTuple

from upstream_release._compose import compose
from upstream_release._files import files
from upstream_release._settings import OPTIONAL, env_text, settings


class Release(NamedTuple):
    """What differs between releases: the layout, and the tags of the images that move at another pace."""

    envs: bool
    daemon: str
    sandbox: str


RELEASES = {
    "1.14.2": Release(False, "0.5.3", "0.2.14"),
    "1.16.1": Release(True, "0.6.3", "0.2.15"),
    "1.17.1": Release(True, "0.6.10", "0.2.15"),
    # No such release is known; it stands for the next small one.
    "1.17.2": Release(True, "0.6.10", "0.2.15"),
    "1.18.0": Release(True, "0.6.12", "0.2.15"),
}
# Names of archives that are none: without a compose file, cut off, and with a path that leads out.
BROKEN = ("9.0.0-no-compose", "9.0.1-cut", "9.0.2-leads-out")
MADE_AT = 1767225600
OPTIONAL_FILES = {
    "core-services/shared": ("Files", "Other stores"), "vectorstores/weaviate": ("Weaviate",), "core-services/api": (),
    "core-services/worker": (), "core-services/worker-beat": (), "core-services/plugin-daemon": (), "core-services/dify-agent": (),
    "databases/db-postgres": (), "databases/redis": (), "security": (),
}


def name_of(version: str) -> str:
    """Return the file name of an archive."""
    return f"dify-{version}.tar.gz"


def contents(version: str) -> dict[str, tuple[str, int]]:
    """Return text and mode of each file by its path in the folder of the release."""
    release = RELEASES[version]
    sections = settings(version, envs=release.envs)
    found = {
        "README.md": ("# A release in upstream's shape\n\nMade for tests; no part of Dify is in it.\n", 0o644),
        "api/README.md": ("not for deployments\n", 0o644),
        "docker/docker-compose.yaml": (compose(version, release.daemon, release.sandbox, envs=release.envs), 0o644),
        **{f"docker/{path}": entry for path, entry in files(envs=release.envs).items()},
    }
    essential = {title: values for title, values in sections.items() if not (release.envs and title in OPTIONAL)}
    found["docker/.env.example"] = (env_text(essential), 0o644)
    if release.envs:
        for path, titles in OPTIONAL_FILES.items():
            text = env_text({title: sections[title] for title in titles}) or "# Nothing beyond .env.example.\n"
            found[f"docker/envs/{path}.env.example"] = (text, 0o644)
    return found


def _pack(version: str, entries: dict[str, tuple[str, int]]) -> bytes:
    """Return a gzipped tar that does not depend on when and where it is made."""
    buffer = io.BytesIO()
    commit = hashlib.sha1(version.encode()).hexdigest()  # noqa: S324  looks like a commit, protects nothing
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": commit}) as tar:
        top = f"dify-{version}"
        folders = {top} | {f"{top}/{part}" for path in entries for part in _parents(path)}
        for folder in sorted(folders):
            info = tarfile.TarInfo(folder)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o775, MADE_AT
            tar.addfile(info)
        for path, (text, mode) in sorted(entries.items()):
            info = tarfile.TarInfo(f"{top}/{path}")
            data = text.encode()
            info.size, info.mode, info.mtime = len(data), mode, MADE_AT
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts)) if ".." not in parts[: count + 1]]


def make(version: str) -> bytes:
    """Return the archive of a release."""
    return _pack(version, contents(version))


def broken(name: str) -> bytes:
    """Return one of the archives that are none."""
    # Of the right name inside, so that what is broken is the only thing that is.
    version = "1.17.1"
    whole = contents(version)
    if name == BROKEN[0]:
        return _pack(version, {path: entry for path, entry in whole.items() if not path.endswith("docker-compose.yaml")})
    if name == BROKEN[1]:
        archive = _pack(version, whole)
        return archive[: len(archive) // 2]
    return _pack(version, {**whole, "docker/../../../../leads-out": ("no archive may write here\n", 0o644)})


def image_names(versions: tuple[str, ...] = tuple(RELEASES)) -> list[str]:
    """Return the images that the services of these releases run in the profiles of their own defaults."""
    names = {"busybox:latest", "nginx:latest", "ubuntu/squid:latest"}
    names |= {"postgres:15-alpine", "redis:6-alpine", "semitechnologies/weaviate:1.27.0"}
    for version in versions:
        release = RELEASES[version]
        names |= {f"langgenius/dify-{kind}:{version}" for kind in ("api", "web")}
        names |= {f"langgenius/dify-plugin-daemon:{release.daemon}-local", f"langgenius/dify-sandbox:{release.sandbox}"}
        if release.envs:
            names |= {f"langgenius/dify-agent-{kind}:{version}" for kind in ("backend", "local-sandbox")}
    return sorted(names)
