# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a Dify deployment on a host: its files, its secrets (never what is in them), its images and containers.

This is private to difyops.gpu.
"""

from __future__ import annotations

import grp
import hashlib
import hmac
import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _docker

SCHEMA = 1
_SERVICE_LABEL = "com.docker.compose.service"
# What Docker writes for a container that was never started.
_NEVER = "0001-01-01T00:00:00Z"

Facts = dict[str, Any]


def gather(
    home: str,
    files: Sequence[str],
    secrets: Mapping[str, str | None],
    images: Sequence[str],
    project: str,
    timeout_s: float,
    connect: Callable[[float], _docker.Engine] = _docker.connect,
) -> tuple[Facts, list[str]]:
    """Return the document ``ansible_facts['dify']``, and a sentence for each file that could not be read."""
    complaints: list[str] = []
    facts: Facts = {
        "schema": SCHEMA,
        "home": home,
        "release": None,
        "layout": None,
        "files": {path: _file(path, complaints) for path in files},
        "secrets": {path: _secret(path, wanted, complaints) for path, wanted in secrets.items()},
        "images": dict.fromkeys(images),
        "containers": [],
        "error": None,
    }
    try:
        engine = connect(timeout_s)
        found = engine.images(images)
        facts["containers"] = [container(document) for document in engine.containers(project)]
        facts["images"] = {ref: image(document) if document else None for ref, document in found.items()}
    except (_docker.DockerUnavailable, _docker.DockerError) as error:
        facts["error"] = str(error)
    return facts, complaints


def _file(path: str, complaints: list[str]) -> Facts:
    facts, digest = _look(path, complaints)
    return {"exists": facts.pop("exists"), "sha256": digest, **facts}


def _secret(path: str, wanted: str | None, complaints: list[str]) -> Facts:
    """Compare the digest here, so that not even it leaves the host."""
    facts, digest = _look(path, complaints)
    matches = None
    if wanted is not None and (digest or facts["exists"] is False):
        matches = hmac.compare_digest(digest or "", wanted.lower())
    return {**facts, "matches": matches}


def _look(path: str, complaints: list[str]) -> tuple[Facts, str | None]:
    """Return what is known of a file without its content, and the SHA-256 of a regular file."""
    unknown: Facts = dict.fromkeys(("exists", "owner", "group", "mode", "size"))
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {**unknown, "exists": False}, None
    except (OSError, ValueError) as error:
        complaints.append(f"{path} cannot be examined: {error}.")
        return unknown, None
    facts = {
        "exists": True,
        "owner": _name(pwd.getpwuid, status.st_uid),
        "group": _name(grp.getgrgid, status.st_gid),
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "size": status.st_size,
    }
    # Opening anything but a regular file may wait for ever.
    return facts, _digest(path, complaints) if stat.S_ISREG(status.st_mode) else None


def _digest(path: str, complaints: list[str]) -> str | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1024 * 1024):
                digest.update(chunk)
    except OSError as error:
        complaints.append(f"{path} cannot be read: {error.strerror}.")
        return None
    return digest.hexdigest()


def _name(lookup: Callable[[int], Any], number: int) -> str:
    """Return the name of a user or group, the number where it has none."""
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def image(document: Mapping[str, Any]) -> Facts:
    """Return what the facts tell of an image's inspect document."""
    return {
        "id": document.get("Id"),
        "labels": (document.get("Config") or {}).get("Labels") or {},
        "repo_digests": document.get("RepoDigests") or [],
        "created": document.get("Created") or None,
        "size_mib": round((document.get("Size") or 0) / 1024 / 1024),
    }


def container(document: Mapping[str, Any]) -> Facts:
    """Return what the facts tell of a container's inspect document."""
    config, state = document.get("Config") or {}, document.get("State") or {}
    labels = config.get("Labels") or {}
    started = state.get("StartedAt")
    return {
        "name": str(document.get("Name", "")).lstrip("/"),
        "service": labels.get(_SERVICE_LABEL),
        "id": document.get("Id"),
        "image": config.get("Image"),
        "image_id": document.get("Image"),
        "state": state.get("Status"),
        "health": (state.get("Health") or {}).get("Status"),
        "restart_policy": ((document.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name"),
        "started_at": started if started and started != _NEVER else None,
        "labels": labels,
    }
