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
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _docker, _model_files

SCHEMA = 1
_SERVICE_LABEL = "com.docker.compose.service"
# What Docker writes for a container that was never started.
_NEVER = "0001-01-01T00:00:00Z"
# Bytes that are read at once; a file of variables is never larger.
_SMALL = 1024 * 1024
# A line of an env file that reaches the container as it is written: no quotes, escapes, references, comments, outer spaces.
_PLAIN = r"[!%&(-\[\]-~]"
_VARIABLE = re.compile(rf"([A-Za-z_][A-Za-z0-9_]*)=(?:{_PLAIN}(?:[ ]*{_PLAIN})*)?")

Facts = dict[str, Any]
# Whole lines (NAME=VALUE) by the name in them.
Variables = dict[str, str]


def gather(
    home: str,
    files: Sequence[str],
    secrets: Mapping[str, str | None],
    images: Sequence[str],
    project: str,
    timeout_s: float,
    connect: Callable[[float], _docker.Engine] = _docker.connect,
    models: Sequence[str] = (),
) -> tuple[Facts, list[str]]:
    """Return the document ``ansible_facts['dify']``, and a sentence for each file that could not be read."""
    complaints: list[str] = []
    facts: Facts = {
        "schema": SCHEMA,
        "home": home,
        "release": None,
        "layout": None,
        "files": {path: _file(path, complaints) for path in files},
        "secrets": {},
        "models": {path: _model_files.look(path) for path in models},
        "images": dict.fromkeys(images),
        "containers": [],
        "error": None,
    }
    written: list[Variables | None] = []
    for path, wanted in secrets.items():
        facts["secrets"][path], lines = _secret(path, wanted, complaints)
        written.append(lines)
    try:
        engine = connect(timeout_s)
        found = engine.images(images)
        facts["containers"] = [container(document, written) for document in engine.containers(project)]
        facts["images"] = {ref: image(document) if document else None for ref, document in found.items()}
    except (_docker.DockerUnavailable, _docker.DockerError) as error:
        facts["error"] = str(error)
    return facts, complaints


def _file(path: str, complaints: list[str]) -> Facts:
    facts, mode = _look(path, complaints)
    directory = None if mode is None else stat.S_ISDIR(mode)
    if directory:
        facts["size"] = None  # the size of its own list of names, which differs between file systems
    digest, _content = _read(path, mode, complaints)
    return {"exists": facts.pop("exists"), "directory": directory, "sha256": digest, **facts}


def _secret(path: str, wanted: str | None, complaints: list[str]) -> tuple[Facts, Variables | None]:
    """Compare the digest here, so that not even it leaves the host; return the file's variables as well.

    They are empty where there are none to compare, None where the file cannot be read.
    """
    facts, mode = _look(path, complaints)
    digest, content = _read(path, mode, complaints)
    matches = None
    if wanted is not None and (digest or facts["exists"] is False):
        matches = hmac.compare_digest(digest or "", wanted.lower())
    unreadable = digest is None and facts["exists"] is not False
    return {**facts, "matches": matches}, None if unreadable else variables(content)


def variables(content: bytes) -> Variables:
    """Return the NAME=VALUE lines of an env file by name; none when the content is something else.

    Compose takes quotes, escapes, references and comments out of a value, so a file with any of these is something else:
    what a container has of it cannot be compared with what is written there.
    """
    found: Variables = {}
    for line in content.decode("ascii", "replace").split("\n"):
        if not line or line.startswith("#"):
            continue
        match = _VARIABLE.fullmatch(line)
        if match is None:
            return {}
        found[match.group(1)] = line
    return found


def _look(path: str, complaints: list[str]) -> tuple[Facts, int | None]:
    """Return what is known of a file without its content, and its mode with its type; None when there is nothing."""
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
    return facts, status.st_mode


def _read(path: str, mode: int | None, complaints: list[str]) -> tuple[str | None, bytes]:
    """Return the SHA-256 of a regular file, None for anything else, and its content when it is a small one."""
    # Opening anything but a regular file may wait for ever.
    if mode is None or not stat.S_ISREG(mode):
        return None, b""
    digest, content, size = hashlib.sha256(), b"", 0
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_SMALL):
                digest.update(chunk)
                size += len(chunk)
                content = chunk if size <= _SMALL else b""
    except OSError as error:
        complaints.append(f"{path} cannot be read: {error.strerror}.")
        return None, b""
    return digest.hexdigest(), content


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


def secrets_applied(document: Mapping[str, Any], files: Sequence[Variables | None]) -> bool | None:
    """Return whether a running container has every variable of the secret files as they are written there now.

    ``files`` are the variables of each file, None for one that cannot be read. Returns None where this is not known: the
    container does not run, there is no variable to compare, or a file that could differ cannot be read.
    """
    wanted: Variables = {}
    for lines in files:
        wanted.update(lines or {})  # as with Compose, a later file has the last word
    if not wanted or (document.get("State") or {}).get("Status") != "running":
        return None
    if not set(wanted.values()) <= set(map(str, (document.get("Config") or {}).get("Env") or [])):
        return False
    return None if None in files else True


def container(document: Mapping[str, Any], secret_files: Sequence[Variables | None] = ()) -> Facts:
    """Return what the facts tell of a container's inspect document; of the secrets no more than whether they are its own."""
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
        "secrets_applied": secrets_applied(document, secret_files),
    }
