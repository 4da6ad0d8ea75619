# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses the GPUs while their driver is to be changed, and what becomes of that: nobody's work is ended without consent."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import DRAIN, REFUSE, WAIT, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

CONTAINER, PROCESS = "container", "process"
_DOCKER = "docker"
# What the system says of a socket behind which no engine listens. All else may be an engine that runs and does not answer.
_STOPPED = ("No such file or directory", "Connection refused")
_GONE_WHEN_STOPPED = "removed when it stops, so it is never stopped for you"


class User(NamedTuple):
    """What uses a GPU: a container or a process, by its id and name; `what` is what it has of the GPU, for sentences."""

    kind: str
    id: str
    name: str
    what: str

    @property
    def label(self) -> str:
        """The user for sentences."""
        which = f"{self.kind} {self.name}" if self.kind == CONTAINER else f"{self.kind} {self.id} ({self.name})"
        return f"{which}: {self.what}"


class Container(NamedTuple):
    """A container, by its id and name."""

    id: str
    name: str


@dataclass(frozen=True)
class Guard:
    """Who uses the GPUs, by which policy the change goes on, and which containers are stopped for it and started again.

    `silent` is why the containers with a GPU could not be asked for, None where they were. `kept` are the ids of the containers that are
    never stopped, whatever they are called.
    """

    policy: str
    users: tuple[User, ...]
    stop: tuple[Container, ...] = ()
    silent: str | None = None
    kept: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        users = [user._asdict() for user in self.users]
        return {"policy": self.policy, "users": users, "stop": [container._asdict() for container in self.stop]}

    @property
    def in_the_way(self) -> tuple[User, ...]:
        """The users that the change neither stops nor waits for."""
        if self.policy == WAIT:
            return ()
        stopped = {container.id for container in self.stop}
        return tuple(user for user in self.users if user.kind != CONTAINER or user.id not in stopped)

    @property
    def block(self) -> Block | None:
        """Why the change is not begun; None where nobody is in its way."""
        users = self.in_the_way
        unknown = None if self.policy == WAIT or self.silent is None else f"which containers have a GPU could not be asked: {self.silent}"
        parts = [f"the GPUs are in use by {'; '.join(user.label for user in users)}"] if users else []
        parts += [unknown] if unknown is not None else []
        if not parts:
            return None
        steps = [self._remedy(users)] if users else []
        steps += ["bring the engine to answer, or stop it, then run again"] if unknown is not None else []
        return Block("driver", _plan_codes.GPU_IN_USE, "; ".join(parts), "; ".join(steps))

    def _remedy(self, users: Sequence[User]) -> str:
        """Return what to do about users that are in the way, without what is set already."""
        others = f"set {option_of('busy')} to {WAIT}"
        never = [user for user in users if user.kind != CONTAINER or user.id in self.kept]
        if len(never) == len(users):
            # No name in drain_containers helps.
            return f"end what is named, which is never done for you, or {others}"
        if self.policy == REFUSE:
            drained = f"to {DRAIN} with the containers that may be stopped in {option_of('drain_containers')}"
            return f"stop what is named, or {others}, or {drained}"
        if not never:
            return f"stop what is named, or name it in {option_of('drain_containers')}, or {others}"
        return f"end what is named, which is never done for you but for containers in {option_of('drain_containers')}, or {others}"


def of(host: Host, settings: Settings) -> Guard:
    """Return who uses the GPUs of a host now, and which of them are stopped for a change of the driver."""
    found, transient = users(host), _transient(host)
    kept = frozenset(user.id for user in found if user.kind == CONTAINER and _same(user.id, transient))
    may_stop = [user for user in found if user.kind == CONTAINER and user.id not in kept and _may_stop(user.name, settings)]
    return Guard(settings.busy, tuple(found), tuple(Container(user.id, user.name) for user in may_stop), silent(host), kept)


def silent(host: Host) -> str | None:
    """Return why nobody can tell which containers have a GPU, None where that is known or where there is no engine that runs any.

    Only Docker is asked for them: those of Podman are seen by their processes.
    """
    engine = _document.mapping(host.facts, "engine")
    if _document.text(engine, "name") != _DOCKER or isinstance(engine.get("gpu_containers"), list):
        return None
    error = _document.text(engine, "error")
    running = _document.flag(engine, "running")
    if running is False and (error is None or any(words in error for words in _STOPPED)):
        return None
    return (error or "the engine told nothing of them").rstrip(".")


def restarts(host: Host) -> tuple[Container, ...]:
    """Return the containers that a run which was interrupted stopped, and that are to be started again."""
    return tuple(
        Container(_document.text(entry, "id") or "", _document.text(entry, "name") or _document.text(entry, "id") or "")
        for entry in _document.mappings(host.facts, "driver", "journal", "containers")
        if _document.text(entry, "id")
    )


def users(host: Host) -> list[User]:
    """Return what uses a GPU, containers first. A process in a container counts as the container.

    A privileged container has every device of the host, and is a user only where a process of it is on a GPU.
    """
    inside: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    alone: dict[str, User] = {}
    for process, where in _processes(host):
        container = _document.mapping(process, "container")
        identity = _document.text(container, "id")
        if identity is not None:
            inside.setdefault(identity, []).append(where)
            names.setdefault(identity, _document.text(container, "name") or identity[:12])
            continue
        pid = str(process.get("pid"))
        before = alone[pid].what if pid in alone else None
        alone[pid] = User(PROCESS, pid, _document.text(process, "name") or "unknown", f"{before}, {where}" if before else where)
    found: dict[str, User] = {}
    for entry in _document.mappings(host.facts, "engine", "gpu_containers"):
        # One that the engine told nothing of but that it is there is still somebody's work.
        identity = _document.text(entry, "id") or _document.text(entry, "name") or "unknown"
        if (entry.get("how") == "privileged") and not _same(identity, inside):
            continue
        given = ", ".join(_document.texts(entry, "devices")) or _document.text(entry, "how") or "a GPU"
        given = f"{given}, {_GONE_WHEN_STOPPED}" if _document.flag(entry, "auto_remove") else given
        found[identity] = User(CONTAINER, identity, _document.text(entry, "name") or identity[:12], given)
    for identity, places in inside.items():
        if not _same(identity, found):
            found[identity] = User(CONTAINER, identity, names[identity], ", ".join(dict.fromkeys(places)))
    return [*found.values(), *alone.values()]


def unasked(host: Host) -> bool:
    """Whether nobody can tell which processes are on the GPUs of the loaded driver."""
    gpus = _document.mappings(host.facts, "gpus")
    silent = any("processes" in gpu and gpu["processes"] is None for gpu in gpus)
    return host.loaded is not None and silent and not isinstance(_document.at(host.facts, "driver", "users"), list)


def _transient(host: Host) -> set[str]:
    """Return the containers that the engine removes when they stop, so that nobody could start them again."""
    entries = _document.mappings(host.facts, "engine", "gpu_containers")
    return {_document.text(entry, "id") or "" for entry in entries if _document.flag(entry, "auto_remove")} - {""}


def _same(identity: str, others: Collection[str]) -> bool:
    """Whether a container is among others; an engine shortens ids in some answers."""
    return any(identity.startswith(other) or other.startswith(identity) for other in others)


def _processes(host: Host) -> list[tuple[Mapping[str, Any], str]]:
    """Return every process on a GPU, and where it is."""
    found = []
    for number, gpu in enumerate(_document.mappings(host.facts, "gpus")):
        index = gpu.get("index") if gpu.get("index") is not None else number
        for process in _document.mappings(gpu, "processes"):
            memory = process.get("memory_mib")
            size = f", {memory} MiB" if isinstance(memory, int) and not isinstance(memory, bool) else ""
            found.append((process, f"GPU {index}{size}"))
    # The driver does not tell who only has a device open, and nothing at all under a mismatch of versions.
    known = {process.get("pid") for process, _where in found}
    openers = _document.mappings(host.facts, "driver", "users")
    return [*found, *((process, "a GPU is open") for process in openers if process.get("pid") not in known)]


def _may_stop(name: str, settings: Settings) -> bool:
    return settings.busy == DRAIN and _matches(name, settings.drain_containers)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
