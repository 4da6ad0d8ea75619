# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services of a release: what its compose project runs with the chosen profiles, told by image and mode, not by the services' names."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document

API, WORKER, BEAT, WEBSOCKET, WEB, PROXY = "api", "worker", "beat", "websocket", "web", "proxy"
DATABASE, CACHE, VECTOR_STORE = "database", "cache", "vector_store"
PLUGIN_DAEMON, AGENT, SANDBOX, SSRF, INIT, OTHER = "plugin_daemon", "agent", "sandbox", "ssrf", "init", "other"
# The order in which services are waited for, where none depends on the other.
ORDER = (INIT, DATABASE, CACHE, VECTOR_STORE, SSRF, SANDBOX, PLUGIN_DAEMON, AGENT, OTHER, API, WORKER, BEAT, WEBSOCKET, WEB, PROXY)
# What writes into databases and files, in the order in which it is stopped; then what is backed up as files.
STOPPED = (API, WORKER, BEAT, WEBSOCKET, AGENT, PLUGIN_DAEMON, VECTOR_STORE)
# Where a service without a health check of compose answers. A test asks inside its network.
_HEALTH = {
    "dify-api": "http://127.0.0.1:5001/health",
    "dify-plugin-daemon": "http://127.0.0.1:5002/health/check",
    "dify-sandbox": "http://127.0.0.1:8194/health",
    "dify-agent-local-sandbox": "http://127.0.0.1:5004/healthz",
}
_KIND_OF_IMAGE = {
    "dify-web": WEB,
    "dify-plugin-daemon": PLUGIN_DAEMON,
    "dify-agent-backend": AGENT,
    "dify-sandbox": SANDBOX,
    "dify-agent-local-sandbox": SANDBOX,
    "nginx": PROXY,
    "squid": SSRF,
    "busybox": INIT,
    "postgres": DATABASE,
    "mysql": DATABASE,
    "redis": CACHE,
    "valkey": CACHE,
}
_VECTOR_STORES = (
    "weaviate",
    "qdrant",
    "milvus",
    "chroma",
    "pgvector",
    "pgvecto",
    "opensearch",
    "elasticsearch",
    "myscale",
    "couchbase",
    "vastbase",
)
_MODES = {"api": API, "worker": WORKER, "beat": BEAT, "migration": INIT, "job": INIT}
_REFERENCED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Mount:
    """One mount: `source` as the release writes it (relative ones begin with ./), None for a volume without a name."""

    source: str | None
    target: str
    read_only: bool = False

    @property
    def state(self) -> str | None:
        """Path below the deployment's home, where this is a folder of data of the release; None else."""
        if self.source is None or not re.match(r"\./volumes(/|$)", self.source):
            return None
        return self.source[2:].rstrip("/")

    @property
    def named(self) -> str | None:
        """Name of the volume in the compose project, None where it is none."""
        return self.source if self.source and not self.source.startswith((".", "/", "~")) else None


@dataclass(frozen=True)
class Port:
    """A published port: `host` empty where the release names no address; `protocol` tcp or udp."""

    target: str
    published: str
    protocol: str = "tcp"


@dataclass(frozen=True)
class Service:
    """One service of the release, with its values interpolated."""

    name: str
    image: str
    kind: str
    one_shot: bool
    healthcheck: bool
    health: str | None
    depends_on: tuple[str, ...]
    mounts: tuple[Mount, ...]
    ports: tuple[Port, ...]
    networks: tuple[str, ...]
    env_file: bool
    variables: frozenset[str]
    definition: Mapping[str, Any]


def read(document: Mapping[str, Any], raw: Mapping[str, Any], profiles: Iterable[str]) -> list[Service]:
    """Return the services that run with the profiles, in the order in which they are waited for.

    Args:
        document: the compose project with its variables replaced.
        raw: the same project as it is written, from which the names of the variables are read.
        profiles: those that are chosen.
    """
    chosen = set(profiles)
    defined = {name: item for name, item in _document.mapping(document, "services").items() if isinstance(item, Mapping)}
    awaited = _awaited(defined)
    found = []
    for name, definition in defined.items():
        if not _runs(definition, chosen) or not _document.text(definition, "image"):
            continue
        found.append(_service(str(name), definition, _document.mapping(raw, "services", str(name)), str(name) in awaited))
    return _ordered(found)


def without_image(document: Mapping[str, Any], profiles: Iterable[str]) -> list[str]:
    """Return the services that run with the profiles and have no image, so that they would have to be built."""
    services, chosen = _document.mapping(document, "services"), set(profiles)
    return sorted(str(name) for name, item in services.items() if _runs(item, chosen) and not _document.text(item, "image"))


def _runs(definition: object, chosen: set[str]) -> bool:
    wanted = set(_document.texts(definition, "profiles"))
    return not wanted or bool(wanted & chosen)


def _awaited(defined: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the services that others wait for until they have ended."""
    conditions = [_document.mapping(definition, "depends_on") for definition in defined.values()]
    return {
        str(name)
        for item in conditions
        for name, how in item.items()
        if _document.text(how, "condition") == "service_completed_successfully"
    }


def _service(name: str, definition: Mapping[str, Any], raw: Mapping[str, Any], awaited: bool) -> Service:
    image = str(definition["image"])
    check = _document.mapping(definition, "healthcheck")
    has_check = bool(check.get("test")) and str(check.get("disable", "")).lower() != "true" and check.get("test") != ["NONE"]
    kind = kind_of(name, image, environment(definition))
    one_shot = awaited or (kind == INIT and str(definition.get("restart", "no")) == "no")
    asks = kind not in (WORKER, BEAT, WEBSOCKET) and not has_check and not one_shot
    return Service(
        name=name,
        image=image,
        kind=kind,
        one_shot=one_shot,
        healthcheck=has_check and not one_shot,
        health=_HEALTH.get(base_name(image)) if asks else None,
        depends_on=_names(definition.get("depends_on")),
        mounts=tuple(_mounts(definition.get("volumes"))),
        ports=tuple(_ports(definition.get("ports"))),
        networks=_names(definition.get("networks")) or ("default",),
        env_file=bool(definition.get("env_file")),
        variables=frozenset(_REFERENCED.findall(_flat(raw))),
        definition=definition,
    )


def base_name(image: str) -> str:
    """Return what an image is called without its registry, its user and its tag."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def kind_of(name: str, image: str, variables: Mapping[str, str]) -> str:
    """Return what a service is for, by its image and, where one image serves several, by its mode."""
    base = base_name(image)
    if base == "dify-api":
        if "websocket" in name:
            return WEBSOCKET
        return _MODES.get(variables.get("MODE", "api"), OTHER)
    if any(store in base for store in _VECTOR_STORES):
        return VECTOR_STORE
    return _KIND_OF_IMAGE.get(base, OTHER)


def environment(definition: Mapping[str, Any]) -> dict[str, str]:
    """Return a service's own variables, in either form that compose has for them."""
    value = definition.get("environment")
    if isinstance(value, Mapping):
        return {str(key): "" if item is None else str(item) for key, item in value.items()}
    pairs = (item.partition("=") for item in _document.texts(definition, "environment"))
    return {key: item for key, _equals, item in pairs}


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, (Mapping, list, tuple)):
        return tuple(str(name) for name in value if isinstance(name, str))
    return ()


def _mounts(value: object) -> Iterable[Mount]:
    for item in value if isinstance(value, list) else []:
        if isinstance(item, str):
            source, colon, rest = item.partition(":")
            target, _colon, mode = rest.partition(":")
            yield Mount(source, target, "ro" in mode.split(",")) if colon else Mount(None, source)
        elif isinstance(item, Mapping) and item.get("type") in ("bind", "volume") and isinstance(item.get("target"), str):
            yield Mount(_document.text(item, "source"), item["target"], item.get("read_only") is True)


def _ports(value: object) -> Iterable[Port]:
    for item in value if isinstance(value, list) else []:
        if isinstance(item, Mapping):
            yield Port(str(item.get("target", "")), str(item.get("published", "")), str(item.get("protocol", "tcp")))
        elif isinstance(item, (str, int)):
            text, _slash, protocol = str(item).partition("/")
            published, _colon, target = text.rpartition(":")
            yield Port(target, published.rpartition(":")[2], protocol or "tcp")


def _flat(value: object) -> str:
    """Return every text in a definition, one after the other."""
    if isinstance(value, Mapping):
        return "\n".join(_flat(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return "\n".join(_flat(item) for item in value)
    return value if isinstance(value, str) else ""


def _ordered(services: Sequence[Service]) -> list[Service]:
    """Return the services so that none comes before one that it depends on; a circle is cut at its first one."""
    left = sorted(services, key=lambda item: (ORDER.index(item.kind), item.name))
    there = {item.name for item in left}
    done: list[Service] = []
    while left:
        names = {item.name for item in done}
        ready = next((item for item in left if set(item.depends_on) & there <= names), left[0])
        done.append(ready)
        left.remove(ready)
    return done


def stop_order(services: Sequence[Service]) -> list[str]:
    """Return the services that are stopped before a backup: those that write first, then the vector store."""
    return [item.name for kind in STOPPED for item in services if item.kind == kind and not item.one_shot]


def state_paths(services: Sequence[Service]) -> list[str]:
    """Return the folders below the deployment's home that a backup takes as files: all data but that of database and cache."""
    kept = [mount.state for item in services if item.kind in STOPPED for mount in item.mounts]
    found = sorted({path for path in kept if path})
    # A folder is taken with all that is in it.
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def state_volumes(document: Mapping[str, Any], services: Sequence[Service], project: str) -> list[str]:
    """Return the engine's names of the volumes that a backup takes."""
    names = {mount.named for item in services if item.kind not in (DATABASE, CACHE) for mount in item.mounts if mount.named}
    return sorted(_document.text(document, "volumes", name, "name") or f"{project}_{name}" for name in names)


@functools.lru_cache(maxsize=64)
def unpinned(reference: str) -> bool:
    """Whether an image reference may be another image tomorrow: no tag or `latest`, and no digest."""
    if "@" in reference:
        return False
    _name, colon, tag = reference.rpartition("/")[2].partition(":")
    return not colon or tag == "latest"
