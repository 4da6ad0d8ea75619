# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of a host and its configuration, as facts.

This is private to difyops.gpu.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _docker
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts

DAEMON_CONFIG = "/etc/docker/daemon.json"
MASK = "********"
_TIMEOUT_S = 15.0
_VERSION = re.compile(r"\bv?([0-9]+(?:\.[0-9]+)+)")
_SECRET_NAME = re.compile(r"passw|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key", re.IGNORECASE)
_USER_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s]+@")


def facts(root: str, timeout_s: float, connect: Callable[[float], _docker.Engine] = _docker.connect) -> Facts:
    """Return what engine is there and how it is set up. An engine that does not answer is a fact with an error."""
    result: Facts = {
        "name": None,
        "version": None,
        "running": False,
        "error": None,
        "compose_version": None,
        "buildx_version": None,
        "runtimes": [],
        "default_runtime": None,
        "cdi_enabled": None,
        "cdi_spec_dirs": [],
        "cgroup_driver": None,
        "cgroup_version": None,
        "gpu_containers": None,
        "daemon_config": daemon_config(root),
    }
    try:
        result.update(describe(connect(timeout_s).info()))
    except (_docker.DockerUnavailable, _docker.DockerError) as error:
        if not _docker_installed(root):
            return {**result, **_podman()}
        result.update(name="docker", error=str(error))
    result["compose_version"] = _version_of("docker", "compose", "version", "--short")
    result["buildx_version"] = _version_of("docker", "buildx", "version")
    return result


def describe(info: dict[str, Any]) -> Facts:
    """Return the facts that ``docker info`` holds."""
    # Engines before 25 do not know CDI and do not name directories for it; newer ones name none while it is off.
    directories = [str(directory) for directory in info.get("CDISpecDirs") or []]
    return {
        "name": "docker",
        "version": _first_version(str(info.get("ServerVersion", ""))),
        "running": True,
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime") or None,
        "cdi_enabled": bool(directories),
        "cdi_spec_dirs": directories,
        "cgroup_driver": info.get("CgroupDriver") or None,
        "cgroup_version": info.get("CgroupVersion") or None,
    }


def _first_version(text: str) -> str | None:
    match = _VERSION.search(text)
    return match[1] if match else None


def _docker_installed(root: str) -> bool:
    """Say whether there is an engine to start: the command alone may be a client of another host, or podman's."""
    return _command.find("dockerd") is not None or os.path.exists(os.path.join(root, "var/run/docker.sock"))


def _version_of(name: str, *arguments: str) -> str | None:
    """Return the version that a program tells of itself; None when it is not there or does not say."""
    program = _command.find(name)
    if program is None:
        return None
    try:
        result = _command.run([program, *arguments], _TIMEOUT_S)
    except _command.CannotStart:
        return None
    return _first_version(result.out) if result.rc == 0 else None


def _podman() -> Facts:
    version = _version_of("podman", "--version")
    # Podman has no daemon: where the program runs, the engine does.
    return {"name": "podman", "version": version, "running": True} if version else {}


def daemon_config(root: str) -> Facts:
    """Return Docker's configuration file, without secrets. A broken file is a fact with an error."""
    result: Facts = {"path": DAEMON_CONFIG, "exists": False, "content": {}, "sha256": None, "error": None}
    try:
        with open(os.path.join(root, DAEMON_CONFIG.lstrip("/")), "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return result
    except OSError as error:
        return {**result, "exists": True, "error": f"{DAEMON_CONFIG} cannot be read: {error.strerror}."}
    result.update(exists=True, sha256=hashlib.sha256(raw).hexdigest())
    try:
        content = json.loads(raw) if raw.strip() else {}
        if isinstance(content, dict):
            return {**result, "content": mask(content)}
        problem = "it holds no JSON object"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    # The error's text quotes nothing of the file, which may hold passwords.
    return {**result, "error": f"{DAEMON_CONFIG} is not valid: {problem}. Docker does not start with it; correct it."}


def mask(value: Any, secret: bool = False) -> Any:
    """Return a copy with all below secret-looking names, and the users and passwords in URLs, made unreadable.

    ``secret`` says that such a name is above.
    """
    if isinstance(value, dict):
        return {key: mask(item, secret or bool(_SECRET_NAME.search(str(key)))) for key, item in value.items()}
    if isinstance(value, list):
        return [mask(item, secret) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if secret:
        return MASK
    if not isinstance(value, str):
        return value
    key, sign, _rest = value.partition("=")
    if sign and _SECRET_NAME.search(key):
        return f"{key}={MASK}"
    return _USER_IN_URL.sub(rf"\g<1>{MASK}@", value)
