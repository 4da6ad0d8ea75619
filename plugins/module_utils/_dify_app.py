# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of an upstream Dify on a host: its releases, files, images, containers, backups, and what it has room for.

Of secrets no more than their names. This is private to difyops.gpu.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _dify, _docker

SCHEMA = 1
# Held by each command of the role that starts or stops something.
LOCK = ".lock"
_CONFIG_HASH = "com.docker.compose.config-hash"
_SERVICE = "com.docker.compose.service"
_LISTEN = "0A"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MIB = 1024 * 1024
# Bytes of a small file that is read whole (a journal, a manifest, a file of variables).
_SMALL = 4 * _MIB

Facts = dict[str, Any]
Preview = Callable[[Mapping[str, Any]], Facts]


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at. `env` has the options of dify_env; `version` is that of the release that is wanted."""

    home: str
    project: str
    backup_dir: str
    version: str = ""
    files: Sequence[str] = ()
    images: Sequence[str] = ()
    ports: Sequence[int] = ()
    env: Mapping[str, Any] | None = None
    databases: Sequence[Mapping[str, Any]] = ()
    timeout_s: float = 15.0
    # How long the last command of an interrupted run is waited for.
    busy_s: float = 120.0


@dataclass(frozen=True)
class Host:
    """Where the host's own state is read; another folder in tests."""

    proc: str = "/proc"
    compose: Callable[[str, float], Mapping[str, Any] | None] | None = None


def gather(
    wanted: Wanted,
    preview: Preview | None,
    host: Host | None = None,
    connect: Callable[[float], _docker.Engine] = _docker.connect,
) -> tuple[Facts, list[str]]:
    """Return the document ``ansible_facts['dify_app']``, and a sentence for each thing that could not be read."""
    complaints: list[str] = []
    host = host or Host()
    # What is seen while something of an interrupted run still goes on is not true a moment later.
    busy = os.path.lexists(f"{wanted.home}/journal.json") and under_way(f"{wanted.home}/{LOCK}", wanted.busy_s)
    current, current_error = current_release(wanted.home)
    facts: Facts = {
        "schema": SCHEMA,
        "home": wanted.home,
        "project": wanted.project,
        "current": current,
        "current_error": current_error,
        "releases": releases(wanted.home),
        "files": {path: _dify._file(path, complaints) for path in wanted.files},
        "env": _preview(wanted.env, preview),
        "secrets": _secrets(f"{wanted.home}/secrets/dify.env", complaints),
        "images": dict.fromkeys(wanted.images),
        "containers": [],
        "backups": backups(wanted.backup_dir),
        "journal": journal(f"{wanted.home}/journal.json"),
        "busy": busy,
        "disk": {},
        "docker_root": None,
        "memory": memory(host.proc),
        "ports": [],
        "volumes_mib": None,
        "database": dict.fromkeys(str(item.get("name")) for item in wanted.databases),
        "registration": registration(f"{wanted.home}/model_server/api_key.sha256"),
        "error": None,
    }
    if current is not None and wanted.version and current != wanted.version:
        facts["volumes_mib"] = size_mib(f"{wanted.home}/volumes")
    held: dict[int, str] = {}
    try:
        held = _of_engine(facts, wanted, host, connect(wanted.timeout_s))
    except (_docker.DockerUnavailable, _docker.DockerError) as error:
        facts["error"] = str(error)
    facts["ports"] = listeners(wanted.ports, host.proc, held)
    facts["disk"] = {path: disk(path) for path in (wanted.home, facts["docker_root"] or "/var/lib/docker", wanted.backup_dir)}
    return facts, complaints


def _of_engine(facts: Facts, wanted: Wanted, host: Host, engine: _docker.Engine) -> dict[int, str]:
    """Add what the engine knows to the facts, and return the names of the project's containers by the ports that they publish."""
    found = engine.images(wanted.images)
    documents = engine.containers(wanted.project)
    facts["images"] = {reference: _dify.image(document) if document else None for reference, document in found.items()}
    # Compose is asked only where there is a container to compare: it takes most of a second.
    folder = f"{wanted.home}/releases/{facts['current']}/docker"
    ask = host.compose or compose_config
    config = ask(folder, wanted.timeout_s) if documents and facts["current"] else None
    facts["containers"] = [container(document, config) for document in documents]
    facts["docker_root"] = _docker_root(documents)
    for item in wanted.databases:
        facts["database"][str(item.get("name"))] = _schema_of(item, documents, engine, wanted.timeout_s)
    return published(documents)


def _docker_root(documents: Sequence[Mapping[str, Any]]) -> str | None:
    """Return Docker's data folder as the containers' own files tell it, None where nothing does."""
    for document in documents:
        root, found, _rest = str(document.get("LogPath") or document.get("HostnamePath") or "").partition("/containers/")
        if found and root.startswith("/"):
            return root
    return None


def container(document: Mapping[str, Any], config: Mapping[str, Any] | None) -> Facts:
    """Return what the facts tell of a container's inspect document."""
    state, labels = document.get("State") or {}, (document.get("Config") or {}).get("Labels") or {}
    known = _dify.container(document)
    known.pop("secrets_applied")
    ended = state.get("Status") in ("exited", "dead")
    return {
        **known,
        "exit_code": state.get("ExitCode") if ended else None,
        "config_hash": labels.get(_CONFIG_HASH),
        "env_applied": env_applied(document, config),
    }


def env_applied(document: Mapping[str, Any], config: Mapping[str, Any] | None) -> bool | None:
    """Return whether a container has every variable that compose would give it now, None where this is not known."""
    own = document.get("Config") or {}
    service = (own.get("Labels") or {}).get(_SERVICE)
    services = (config or {}).get("services")
    definition = services.get(service) if isinstance(services, dict) else None
    wanted = definition.get("environment") if isinstance(definition, dict) else None
    if not isinstance(wanted, dict):
        return None
    there = set(map(str, own.get("Env") or []))
    # Compose doubles each dollar sign in what it prints.
    return all(f"{name}={str(value).replace('$$', '$')}" in there for name, value in wanted.items() if value is not None)


def compose_config(folder: str, timeout_s: float) -> Mapping[str, Any] | None:
    """Return the project in a folder as Docker Compose reads it, None where it cannot be asked."""
    docker, env = _command.find("docker"), _command.find("env")
    if docker is None or env is None or not os.path.isdir(folder):
        return None
    # Variables of whoever runs this would count more than those of .env.
    plain = [f"{name}={os.environ[name]}" for name in ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG") if name in os.environ]
    argv = [env, "-i", *plain, "LC_ALL=C", docker, "compose", "--project-directory", folder, "config", "--format", "json"]
    try:
        result = _command.run(argv, timeout_s)
    except _command.CannotStart:
        return None
    if result.rc != 0:
        return None
    try:
        found = json.loads(result.stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def published(documents: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return the names of containers by the TCP ports of the host that they hold."""
    found: dict[int, str] = {}
    for document in documents:
        ports = (document.get("NetworkSettings") or {}).get("Ports")
        for target, bindings in ports.items() if isinstance(ports, dict) else ():
            for binding in bindings if isinstance(bindings, list) and str(target).endswith("/tcp") else ():
                number = str(binding.get("HostPort", "")) if isinstance(binding, dict) else ""
                if number.isdigit():
                    found[int(number)] = str(document.get("Name", "")).lstrip("/")
    return found


def _schema_of(item: Mapping[str, Any], documents: Sequence[Mapping[str, Any]], engine: _docker.Engine, timeout_s: float) -> str | None:
    """Return the revision of a database's schema, None where it cannot be asked."""
    for document in documents:
        labels = (document.get("Config") or {}).get("Labels") or {}
        if labels.get(_SERVICE) != item.get("service") or not (document.get("State") or {}).get("Running"):
            continue
        argv = ["psql", "--username", str(item.get("user")), "--dbname", str(item.get("name")), "--tuples-only", "--no-align"]
        try:
            rc, out, _err = engine.exec(
                str(document.get("Id")), [*argv, "--command", "SELECT version_num FROM alembic_version"], b"", timeout_s
            )
        except _docker.DockerError:
            return None
        return out.decode("ascii", "replace").strip() or None if rc == 0 else None
    return None


def _preview(env: Mapping[str, Any] | None, preview: Preview | None) -> Facts | None:
    return None if env is None or preview is None else preview(env)


def current_release(home: str) -> tuple[str | None, str | None]:
    """Return the version that `current` leads to, and a sentence where it is none of this deployment's."""
    path = f"{home}/current"
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        return None, None
    except OSError:
        return (None, f"{path} is no link.") if os.path.lexists(path) else (None, None)
    whole = os.path.normpath(os.path.join(home, target))
    match = re.fullmatch(re.escape(os.path.normpath(home)) + r"/releases/([^/]+)/docker", whole)
    if match is None:
        return None, f"{path} leads to {target}, which is no release below {home}/releases."
    return match.group(1), None


def releases(home: str) -> list[str]:
    """Return the versions that are unpacked and whole, oldest first."""
    folder = f"{home}/releases"
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    whole = [name for name in names if name[:1].isdigit() and os.path.isfile(f"{folder}/{name}/docker/docker-compose.yaml")]
    return sorted((name for name in whole if not name.endswith(".partial")), key=_natural)


def _natural(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in re.split(r"[.-]", version)]


def _secrets(path: str, complaints: list[str]) -> Facts:
    facts, mode = _dify._look(path, complaints)
    _digest, content = _dify._read(path, mode, complaints)
    names = (line.partition("=")[0].strip() for line in content.decode("utf-8", "replace").splitlines() if "=" in line)
    keys = sorted({name for name in names if _NAME.fullmatch(name)})
    return {"path": path, "exists": facts["exists"], "mode": facts["mode"], "owner": facts["owner"], "keys": keys}


def _small(path: str) -> bytes | None:
    """Return the content of a small regular file, None where there is none. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(_SMALL)


def under_way(path: str, limit_s: float) -> bool:
    """Whether a command of another run still holds the lock after `limit_s` seconds: one that was killed leaves its last command behind."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    deadline = time.monotonic() + limit_s
    try:
        while not _unlocked(number):
            if time.monotonic() >= deadline:
                return True
            time.sleep(0.5)
    finally:
        os.close(number)
    return False


def _unlocked(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def journal(path: str) -> Facts | None:
    """Return the journal of an interrupted run, None where there is none; with the key `error` where it cannot be read."""
    try:
        content = _small(path)
        found = None if content is None else json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        return {"error": f"{path} cannot be read: {error}"}
    if found is None and content is None:
        return None
    return found if isinstance(found, dict) and found else {"error": f"{path} holds no journal"}


def registration(path: str) -> Facts | None:
    """Return what is written down of the models that are registered, None where nothing is."""
    try:
        content = _small(path)
    except OSError:
        return None
    text = (content or b"").decode("ascii", "replace").strip()
    return {"sha256": text} if re.fullmatch(r"[0-9a-f]{64}", text) else None


def backups(folder: str) -> list[Facts]:
    """Return the backups, newest first."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    found = []
    for name in names:
        manifest = _manifest(f"{folder}/{name}/manifest.json")
        if manifest is None and not name.endswith(".partial"):
            continue
        version, made_at = (manifest or {}).get("version"), (manifest or {}).get("made_at")
        whole = manifest is not None and not name.endswith(".partial")
        found.append({"name": name, "version": version, "made_at": made_at, "size_mib": size_mib(f"{folder}/{name}"), "complete": whole})
    return sorted(found, key=lambda item: (str(item["made_at"] or ""), str(item["name"])), reverse=True)


def _manifest(path: str) -> Facts | None:
    try:
        found = json.loads(_small(path) or b"null")
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def size_mib(folder: str) -> int | None:
    """Return what a folder takes on disk in MiB, None where it is not there. What goes away meanwhile does not count."""
    if not os.path.isdir(folder):
        return None
    total = 0
    for path, _folders, files in os.walk(folder):
        total += sum(_bytes(os.path.join(path, name)) for name in files)
    return -(-total // _MIB)


def _bytes(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


def disk(path: str) -> Facts:
    """Return the free MiB of the nearest folder that exists, and the number of its file system."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    try:
        status = os.statvfs(folder)
        return {"free_mib": status.f_bavail * status.f_frsize // _MIB, "file_system": os.stat(folder).st_dev}
    except OSError:
        return {"free_mib": None, "file_system": None}


def memory(proc: str) -> Facts:
    """Return the host's memory in MiB."""
    found = {}
    try:
        with open(f"{proc}/meminfo", encoding="ascii", errors="replace") as file:
            for line in file:
                match = re.match(r"(MemTotal|MemAvailable):\s*([0-9]+) kB", line)
                if match:
                    found[match.group(1)] = int(match.group(2)) // 1024
    except OSError:
        pass
    return {"total_mib": found.get("MemTotal"), "available_mib": found.get("MemAvailable")}


def listeners(ports: Sequence[int], proc: str, held: Mapping[int, str]) -> list[Facts]:
    """Return who listens on the ports. `held` are the project's own containers by port."""
    wanted, found = set(ports), []
    for name in ("tcp", "tcp6") if wanted else ():
        for address, port, inode in _listening(f"{proc}/net/{name}"):
            if port in wanted:
                found.append((address, port, inode))
    owners = _owners({inode for _address, _port, inode in found}, proc) if found else {}
    facts = []
    for address, port, inode in sorted(found):
        pid = owners.get(inode)
        facts.append({"address": address, "port": port, "pid": pid, "name": _comm(proc, pid), "container": held.get(port)})
    return facts


def _listening(path: str) -> list[tuple[str, int, str]]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return []
    found = []
    for line in lines:
        parts = line.split()
        if len(parts) < 10 or parts[3] != _LISTEN:
            continue
        address, _colon, port = parts[1].partition(":")
        text = _address(address)
        if text is not None and re.fullmatch(r"[0-9A-Fa-f]{4}", port):
            found.append((text, int(port, 16), parts[9]))
    return found


def _address(text: str) -> str | None:
    """Return an address of /proc/net/tcp, which has each group of four bytes in the machine's own order."""
    if not re.fullmatch(r"[0-9A-Fa-f]{8}|[0-9A-Fa-f]{32}", text):
        return None
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _owners(inodes: set[str], proc: str) -> dict[str, int]:
    """Return the processes that hold the sockets."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, int] = {}
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        try:
            names = os.listdir(f"{proc}/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                inode = links.get(os.readlink(f"{proc}/{pid}/fd/{name}"))
            except OSError:
                continue
            if inode is not None:
                found.setdefault(inode, int(pid))
        if len(found) == len(inodes):
            break
    return found


def _comm(proc: str, pid: int | None) -> str | None:
    if pid is None:
        return None
    try:
        with open(f"{proc}/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() or None
    except OSError:
        return None
