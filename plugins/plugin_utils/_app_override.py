# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The override of a release's compose project: one pure function from release and settings to its text.

The same input gives the same bytes. Nothing of the release is edited; all that a site has of its own is in this file and in `.env`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_services
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_options import Settings

CONFIG_LABEL = "org.difyops.config"
FILE_MODE = "0644"
# `!override` replaces a list of the release instead of adding to it.
COMPOSE_MIN = "2.24.4"
# What the external network is called in the file.
NETWORK = "model_server"

_HEADER = "# Managed by difyops.gpu: changes made here are seen as drift and undone by the next run.\n"


class _Replaced(list):  # type: ignore[type-arg]
    """A list that stands in the place of the release's own."""


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 reads as a number, and writes compose's tag for lists that replace others."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out, so that the file reads plainly."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if text[:1] in "0123456789+-." else None)


def _replaced(dumper: yaml.SafeDumper, items: _Replaced) -> yaml.SequenceNode:
    return dumper.represent_sequence("!override", list(items), flow_style=not items)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_Replaced, _replaced)


@dataclass(frozen=True)
class Override:
    """The text of the file, and the config label of each service."""

    content: str
    labels: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the text as it is written (UTF-8)."""
        return hashlib.sha256(self.content.encode("utf-8")).hexdigest()


def image_of(reference: str, settings: Settings) -> str:
    """Return the reference that is deployed for one of the release: pinned, and from the site's registry where it has one."""
    pin = settings.pins.get(reference)
    if pin is not None and not pin.startswith("sha256:"):
        return pin
    name = reference.partition("@")[0] if pin else reference
    pinned = f"{name}@{pin}" if pin else reference
    for known in ("docker.io/", "index.docker.io/"):
        if settings.registry and pinned.startswith(known):
            pinned = pinned[len(known) :]
    return f"{settings.registry}/{pinned}" if settings.registry else pinned


def published(service: _app_services.Service, settings: Settings, https_target: str) -> list[dict[str, str | int]]:
    """Return the ports that a service publishes: those of the site's proxy, at the site's address; of all others none."""
    if service.kind != _app_services.PROXY:
        return []
    found: list[dict[str, str | int]] = []
    for port in service.ports:
        secure = port.target == https_target
        if secure and not settings.tls:
            continue
        number = settings.https_port if secure else settings.http_port
        if not port.target.isdigit() or number in [int(known["published"]) for known in found]:
            continue
        found.append({"target": int(port.target), "published": str(number), "host_ip": settings.bind_address, "protocol": port.protocol})
    return found


def render(services: Sequence[_app_services.Service], settings: Settings, variables: Mapping[str, str]) -> Override:
    """Return the override for the services that run. `variables` are those of `.env` that are no secrets."""
    definitions: dict[str, dict[str, Any]] = {}
    labels: dict[str, str] = {}
    for service in sorted(services, key=lambda item: item.name):
        definition = _definition(service, settings, variables.get("NGINX_SSL_PORT") or "443")
        labels[service.name] = _digest(service, definition, settings, variables)
        definition["labels"] = {CONFIG_LABEL: labels[service.name]}
        definitions[service.name] = definition
    document: dict[str, Any] = {"name": settings.project, "services": definitions}
    if any(NETWORK in definition.get("networks", {}) for definition in definitions.values()):
        document["networks"] = {NETWORK: {"external": True, "name": settings.server.network if settings.server else None}}
    text = yaml.dump(_escaped(document), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1000, allow_unicode=True)
    return Override(_HEADER + str(text), labels)


def _digest(service: _app_services.Service, definition: Mapping[str, Any], settings: Settings, variables: Mapping[str, str]) -> str:
    """Return the label: a digest of what the container is made of, as far as it is no secret."""
    made_of = {
        "own": {key: list(item) if isinstance(item, _Replaced) else item for key, item in definition.items()},
        "release": service.definition,
        "directory": settings.directory,
        "env": dict(variables) if service.env_file else {},
        "network": settings.server.network if settings.server else None,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode("utf-8")).hexdigest()


def _definition(service: _app_services.Service, settings: Settings, https_target: str) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "image": image_of(service.image, settings),
        # Images are brought before anything is stopped; one that is missing then is an error and no download.
        "pull_policy": "never",
        "logging": {"driver": "json-file", "options": {"max-size": settings.log_max_size, "max-file": str(settings.log_max_file)}},
    }
    limits = settings.resources.get(service.name)
    if limits is not None:
        wanted = {"cpus": limits.cpus, "memory": limits.memory}
        definition["deploy"] = {"resources": {"limits": {key: value for key, value in wanted.items() if value is not None}}}
    mounts = [_mount(mount, settings) for mount in service.mounts if mount.state]
    if mounts:
        definition["volumes"] = mounts
    if service.ports:
        definition["ports"] = _Replaced(published(service, settings, https_target))
    if service.kind == _app_services.PLUGIN_DAEMON and settings.server is not None and settings.server.network:
        # To name one network takes all others away that compose gives without being told.
        definition["networks"] = {name: {} for name in (*service.networks, NETWORK)}
    return definition


def _mount(mount: _app_services.Mount, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "bind", "source": f"{settings.home}/{mount.state}", "target": mount.target}
    if mount.read_only:
        found["read_only"] = True
    return {**found, "bind": {"create_host_path": True}}


def _escaped(value: Any) -> Any:
    """Double every dollar sign in texts, since compose would put a variable in its place."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, _Replaced):
        return _Replaced(_escaped(item) for item in value)
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value
