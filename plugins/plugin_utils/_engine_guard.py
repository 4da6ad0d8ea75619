# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers stop when Docker is restarted, which of them come back, and whether that may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes
from ansible_collections.difyops.gpu.plugins.plugin_utils._engine_settings import IF_NEEDED, NEVER, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

# The policies by which Docker starts a container again when it starts itself; on-failure is none of them (Docker's documentation).
_COMES_BACK = ("always", "unless-stopped")
_NAMED = 8


class Container(NamedTuple):
    """A container, by its id and name."""

    id: str
    name: str


class Running(NamedTuple):
    """A container that runs and would stop."""

    id: str
    name: str
    image: str
    gpu: bool
    comes_back: bool
    auto_remove: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        return {"id": self.id, "name": self.name, "image": self.image, "gpu": self.gpu, "comes_back": self.comes_back}


@dataclass(frozen=True)
class Guard:
    """Who is cut off by a restart of Docker, by which policy it may be. `silent` is why nobody can tell who runs."""

    policy: str
    containers: tuple[Running, ...]
    silent: str | None = None

    @property
    def again(self) -> tuple[Container, ...]:
        """The containers that have to be started again, since Docker itself does not."""
        return tuple(Container(one.id, one.name) for one in self.containers if not one.comes_back and not one.auto_remove)

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        containers = [one.as_dict() for one in self.containers]
        return {"policy": self.policy, "containers": containers, "again": [one._asdict() for one in self.again]}

    def block(self, reason: str) -> Block | None:
        """Return why Docker is not restarted for this reason, None where it may be."""
        name = option_of("restart")
        if self.silent is not None:
            message = f"Docker has to be restarted ({reason}), and which containers run could not be asked: {self.silent}"
            return Block("engine", _plan_codes.ENGINE_RESTART, message, "run with root, or bring Docker to answer, then run again")
        if self.policy == IF_NEEDED or (self.policy != NEVER and not self.containers):
            return None
        if not self.containers:
            message = f"Docker has to be restarted ({reason}), and {name} is {NEVER}"
            return Block("engine", _plan_codes.ENGINE_RESTART, message, f"set {name} to if_idle: no container would stop now", by_wish=True)
        names = ", ".join(one.name for one in self.containers[:_NAMED])
        more = f" and {len(self.containers) - _NAMED} more" if len(self.containers) > _NAMED else ""
        message = f"Docker has to be restarted ({reason}), which would stop running containers: {names}{more}"
        gone = [one.name for one in self.containers if one.auto_remove]
        lost = f"; {', '.join(gone)} would not come back, being removed when it stops" if gone else ""
        remedy = f"set {name} to {IF_NEEDED}: Docker is restarted and what ran is started again{lost}; or stop them yourself first"
        return Block("engine", _plan_codes.ENGINE_RESTART, message, remedy)


def of(host: Host, settings: Settings, outlived: bool) -> Guard:
    """Return who is cut off by a restart of the engine that runs. Nobody is where it is `outlived` by live-restore."""
    facts = _document.mapping(host.facts, "engine")
    if outlived:
        return Guard(settings.restart, ())
    if not isinstance(facts.get("containers"), list):
        return Guard(settings.restart, (), (_document.text(facts, "error") or "the engine told nothing of them").rstrip("."))
    with_gpu = {_document.text(entry, "id") for entry in _document.mappings(facts, "gpu_containers")}
    found = []
    for entry in _document.mappings(facts, "containers"):
        identity = _document.text(entry, "id") or _document.text(entry, "name") or "unknown"
        transient = _document.flag(entry, "auto_remove") is True
        found.append(
            Running(
                id=identity,
                name=_document.text(entry, "name") or identity[:12],
                image=_document.text(entry, "image") or "",
                gpu=identity in with_gpu,
                comes_back=_document.text(entry, "restart_policy") in _COMES_BACK and not transient,
                auto_remove=transient,
            )
        )
    return Guard(settings.restart, tuple(found))


def restarts(host: Host) -> tuple[Container, ...]:
    """Return the containers that an interrupted run stopped and that do not run, as far as that is known."""
    facts = _document.mapping(host.facts, "engine")
    running = {_document.text(entry, "id") for entry in _document.mappings(facts, "containers")}
    return tuple(
        Container(_document.text(entry, "id") or "", _document.text(entry, "name") or _document.text(entry, "id") or "")
        for entry in _document.mappings(facts, "journal", "containers")
        if _document.text(entry, "id") and _document.text(entry, "id") not in running
    )
