# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of a host, its configuration, and the containers that it has given a GPU.

This is private to difyops.gpu.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

DAEMON_CONFIG = "/etc/docker/daemon.json"
MASK = "********"
_SOCKET = "/var/run/docker.sock"
_PLUGINS = ["~/.docker/cli-plugins", *(f"/usr/{place}/docker/cli-plugins" for place in ("local/lib", "local/libexec", "lib", "libexec"))]
_VERSION = re.compile(r"\bv?([0-9]+(?:\.[0-9]+)+)")
_CONTAINER_ID = re.compile("[0-9a-f]{64}")
_SECRET_NAME = re.compile(r"passw|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key", re.IGNORECASE)
# Up to the last @ before white space: passwords that were not encoded have @ and / in them.
_USER_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S+@")


class NoAnswer(Exception):  # noqa: N818
    """The engine did not answer what it was asked. Its text is a sentence."""


def ask(root: str, timeout_s: float) -> Callable[[], tuple[Facts, dict[str, str]]]:
    """Start to ask the engine. Call the result for the facts and the names of the running containers by id."""
    plugins = {
        name: _start(_command.find(f"docker-{name}", [os.path.expanduser(place) for place in _PLUGINS])) for name in ("compose", "buildx")
    }
    podman = _start(_command.find("podman"), "--version")
    return lambda: _facts(root, Client(root, timeout_s), {name: _version(plugin) for name, plugin in plugins.items()}, _version(podman))


def _start(program: str | None, argument: str = "docker-cli-plugin-metadata") -> _command.Running | None:
    try:
        return _command.start([program, argument], 15.0) if program else None
    except _command.CannotStart:
        return None


def _version(running: _command.Running | None) -> str | None:
    """Return the version that a program tells, plainly or as the metadata of a plugin; None when it does not."""
    text = running.result().out if running else ""
    return first_version(text.rpartition('"Version"')[2])


def first_version(text: str) -> str | None:
    """Return the first version in a text, without what packagers add to it."""
    match = _VERSION.search(text)
    return match[1] if match else None


def _facts(root: str, client: Client, plugins: dict[str, str | None], podman: str | None) -> tuple[Facts, dict[str, str]]:
    facts: Facts = {
        **dict.fromkeys(("name", "version", "error", "compose_version", "buildx_version", "default_runtime", "cdi_enabled")),
        **dict.fromkeys(("cgroup_driver", "cgroup_version", "live_restore", "containers", "gpu_containers")),
        "running": False,
        "runtimes": [],
        "cdi_spec_dirs": [],
        "podman_version": podman,
        "daemon_config": daemon_config(root),
    }
    names: dict[str, str] = {}
    try:
        info = answered(client.get("info"))
        facts.update(describe(info))
        documents = [client.get(f"containers/{entry['Id']}/json") for entry in client.get("containers/json")]
        running = [document for document in documents if document]
        every = [container(document) for document in running]
        names = {one["id"]: one["name"] for one in every}
        nvidia = {name for name, runtime in info["Runtimes"].items() if "nvidia" in f"{name} {runtime}"}
        facts["gpu_containers"] = [grant for grant in (granted(document, nvidia, _sysfs.nodes(root)) for document in running) if grant]
        facts["containers"] = every
    except NoAnswer as error:
        # The command alone may be a client of another host, or podman's: there has to be an engine to start.
        if not (facts["running"] or _is_there(root, error)):
            facts.update({f"{name}_version": version for name, version in plugins.items()})
            # Podman has no daemon: where the program runs, the engine does.
            return {**facts, **({"name": "podman", "version": podman, "running": True} if podman else {})}, names
        facts.update(name="docker", error=str(error))
    except (AttributeError, KeyError, TypeError) as error:
        facts.update(name="docker", error=f"The container engine answered in a form that is not known ({error!r}).")
    facts.update({f"{name}_version": version for name, version in plugins.items()})
    return facts, names


def _is_there(root: str, error: NoAnswer) -> bool:
    """Say whether there is an engine that does not answer; a socket at which nobody listens outlives one that was removed."""
    stale = isinstance(error.__cause__, ConnectionRefusedError)
    hints = ("snap/docker", "etc/systemd/system/docker.service", *(() if stale else (_SOCKET.lstrip("/"),)))
    return bool(_command.find("dockerd")) or any(os.path.exists(os.path.join(root, hint)) for hint in hints)


def answered(info: dict[str, Any]) -> dict[str, Any]:
    """Return what ``docker info`` told. The command may end well where nobody answered it. Raises NoAnswer."""
    if info.get("ServerErrors"):
        raise NoAnswer(f"The container engine does not answer: {'; '.join(map(str, info['ServerErrors']))[:400].rstrip('.')}.")
    return info


def describe(info: dict[str, Any]) -> Facts:
    """Return the facts that ``docker info`` holds."""
    # Engines before 25 do not know CDI and do not name directories for it; newer ones name none while it is off.
    directories = [str(directory) for directory in info.get("CDISpecDirs") or []]
    return {
        "name": "docker",
        "version": first_version(str(info.get("ServerVersion", ""))),
        "running": True,
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime") or None,
        "cdi_enabled": bool(directories),
        "cdi_spec_dirs": directories,
        "cgroup_driver": info.get("CgroupDriver") or None,
        "cgroup_version": info.get("CgroupVersion") or None,
        "live_restore": info.get("LiveRestoreEnabled"),
    }


class Client:
    """Docker's API, read only: over the engine's socket; where DOCKER_HOST names none, with the docker command."""

    def __init__(self, root: str, timeout_s: float) -> None:
        host = os.environ.get("DOCKER_HOST") or f"unix://{os.path.join(root, _SOCKET.lstrip('/'))}"
        self._socket = host[7:] if host.startswith("unix://") else None
        self._limit = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def get(self, path: str) -> Any:
        """Return a document of the API, None where there is none. Raises NoAnswer."""
        try:
            status, body = self._over_socket(path) if self._socket else self._by_command(path)
            answer = json.loads(body or b"null")
        except PermissionError as error:
            raise NoAnswer("The container engine cannot be asked: permission to its socket is denied; become root.") from error
        except socket.timeout as error:
            raise NoAnswer(f"The container engine did not answer within {self._limit:g} seconds.") from error
        except (OSError, ValueError, _command.CannotStart) as error:
            reason = f"{self._socket}: {error.strerror}" if isinstance(error, OSError) else " ".join(str(error).split())
            raise NoAnswer(f"The container engine does not answer: {reason[:400].rstrip('.')}.") from error
        if status == 404:
            return None
        if status != 200:
            raise NoAnswer(f"The container engine refused: {answer}.")
        return answer

    def _over_socket(self, path: str) -> tuple[int, bytes]:
        received = bytearray()
        with socket.socket(socket.AF_UNIX) as connection:
            self._hurry(connection)
            connection.connect(str(self._socket))
            # HTTP/1.0: the answer comes in one piece and ends with the connection.
            connection.sendall(f"GET /{path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            while True:
                self._hurry(connection)
                chunk = connection.recv(65536)
                if not chunk:
                    break
                received += chunk
        head, _blank, body = bytes(received).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1."):
            raise ValueError("what listens at its socket speaks no HTTP")
        return int(head[9:12]), body

    def _hurry(self, connection: socket.socket) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout
        connection.settimeout(left)

    def _by_command(self, path: str) -> tuple[int, bytes]:
        """Ask a remote engine as the docker command does, which knows of TLS, of SSH and of contexts."""
        asked = {"info": ["info"], "containers/json": ["ps", "--no-trunc"]}.get(path) or ["inspect", path.split("/")[1]]
        result = _command.run(["docker", *asked, "--format", "{{json .}}"], max(0.1, self._deadline - time.monotonic()))
        if result.timed_out:
            raise socket.timeout
        if re.search("no such (object|container)", result.err, re.IGNORECASE):
            return 404, b""
        if result.rc:
            raise ValueError(result.err or result.out)
        if asked[0] != "ps":
            return 200, result.stdout
        return 200, b"[" + b",".join(
            b'{"Id":' + json.dumps(json.loads(line)["ID"]).encode() + b"}" for line in result.stdout.splitlines()
        ) + b"]"


def container(document: dict[str, Any]) -> Facts:
    """Return a running container, and what becomes of it when the engine stops."""
    config, host = document.get("Config") or {}, document.get("HostConfig") or {}
    return {
        "id": document["Id"],
        "name": document["Name"].lstrip("/"),
        "image": config.get("Image"),
        "restart_policy": (host.get("RestartPolicy") or {}).get("Name") or "no",
        "auto_remove": host.get("AutoRemove"),
        "project": (config.get("Labels") or {}).get("com.docker.compose.project"),
    }


def granted(document: dict[str, Any], nvidia_runtimes: set[str], nodes: list[str]) -> Facts | None:
    """Return by what a running container was given which GPUs, None when it was given none.

    ``nodes`` are the GPU device nodes of the host, which a privileged container has all of.
    """
    config, host = document.get("Config") or {}, document.get("HostConfig") or {}
    requests = host.get("DeviceRequests") or []
    environment = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
    visible = environment.get("NVIDIA_VISIBLE_DEVICES", "") if host.get("Runtime") in nvidia_runtimes else ""
    ways = {
        "cdi": [
            name for request in requests if request.get("Driver") == "cdi" for name in request.get("DeviceIDs") or [] if "nvidia" in name
        ],
        "request": [
            name
            for request in requests
            if any("gpu" in capabilities for capabilities in request.get("Capabilities") or [])
            for name in request.get("DeviceIDs") or ["all" if request.get("Count") == -1 else f"count={request.get('Count')}"]
        ],
        "runtime": [] if visible in ("void", "none", "") else visible.split(","),
        "device": [device["PathOnHost"] for device in host.get("Devices") or [] if re.match("/dev/nvidia[0-9]", device["PathOnHost"])],
        "privileged": nodes if host.get("Privileged") else [],
    }
    for how, devices in ways.items():
        if devices:
            known = container(document)
            return {**{key: known[key] for key in ("id", "name", "image", "auto_remove")}, "how": how, "devices": devices}
    return None


def container_of(cgroups: str, names: dict[str, str], own: str = "") -> Facts | None:
    """Return the container of a process from its file in /proc: the innermost that the engine knows, else the innermost.

    ``own`` is the file of the host's first process: a container in it is the host itself.
    """
    ids = [found for found in _CONTAINER_ID.findall(cgroups)[::-1] if found not in own]
    found = next((found for found in ids if found in names), ids[0] if ids else None)
    return {"id": found, "name": names.get(found)} if found else None


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
