# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the service on a host is what the plan renders: its files, its key, its container."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose, _document

OWNER = "root"
KEY_MODE = "0600"
SECRETS_MODE = "0700"


@dataclass(frozen=True)
class Rendered:
    """The project file as text, the config label of the container that it makes, and whether that has a health check."""

    path: str
    content: str
    config: str
    has_health: bool = True

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the text as it is written (UTF-8)."""
        return hashlib.sha256(self.content.encode("utf-8")).hexdigest()

    def as_dict(self) -> dict[str, dict[str, str]]:
        """Return the form that the plan has under ``render.files``."""
        return {self.path: {"content": self.content, "sha256": self.sha256, "mode": _compose.FILE_MODE}}


def container_of(facts: object, service: _compose.Service) -> Mapping[str, Any] | None:
    """Return the container of the service, or None."""
    return next((item for item in _document.mappings(facts, "containers") if item.get("service") == service.name), None)


def exists(facts: object, service: _compose.Service) -> bool:
    """Whether anything of the service is on the host already."""
    file = _document.at(facts, "files", service.compose_file)
    return container_of(facts, service) is not None or _document.flag(file, "exists") is True


def differences(facts: object, service: _compose.Service, rendered: Rendered, image_id: str | None) -> list[str]:
    """Return what differs from the wanted service, as parts of a sentence; empty when nothing does.

    `image_id` is the id of the wanted image on the host, None where it is not there yet.
    """
    return (
        _file_differences(facts, rendered)
        + _directory_differences(facts, service)
        + _key_differences(facts, service)
        + _container_differences(facts, service, rendered, image_id)
    )


def _file_differences(facts: object, rendered: Rendered) -> list[str]:
    file = _document.mapping(_document.at(facts, "files"), rendered.path)
    if not _document.flag(file, "exists"):
        return [f"{rendered.path} is not there"]
    found = []
    if file.get("sha256") != rendered.sha256:
        found.append(f"{rendered.path} has another content")
    return found + _access_differences(file, rendered.path, _compose.FILE_MODE)


def _directory_differences(facts: object, service: _compose.Service) -> list[str]:
    """Return what is wrong with the directory of the secrets; nothing where it was not looked at or is not there (nor is the key then)."""
    directory = _document.mapping(_document.at(facts, "files"), service.secrets_dir)
    return _access_differences(directory, service.secrets_dir, SECRETS_MODE) if _document.flag(directory, "exists") else []


def _key_differences(facts: object, service: _compose.Service) -> list[str]:
    key = _document.mapping(_document.at(facts, "secrets"), service.key_file)
    if not _document.flag(key, "exists"):
        return ["there is no API key yet"]
    found = _access_differences(key, service.key_file, KEY_MODE)
    if _document.flag(key, "matches") is False:
        found.append("the API key is another one than the one given")
    return found


def _access_differences(file: Mapping[str, Any], path: str, mode: str) -> list[str]:
    found = []
    if _octal(file.get("mode")) != _octal(mode):
        found.append(f"{path} has mode {file.get('mode')} instead of {mode}")
    # null: the owner was not gathered
    if file.get("owner") not in (None, OWNER):
        found.append(f"{path} belongs to {file.get('owner')} instead of {OWNER}")
    return found


def _octal(mode: object) -> int | None:
    try:
        return int(mode, 8) if isinstance(mode, str) else None
    except ValueError:
        return None


def _container_differences(facts: object, service: _compose.Service, rendered: Rendered, image_id: str | None) -> list[str]:
    container = container_of(facts, service)
    if container is None:
        return ["its container is not there"]
    found = []
    if image_id is None or container.get("image_id") != image_id:
        found.append("its container runs another image")
    if _document.text(container, "labels", _compose.CONFIG_LABEL) != rendered.config:
        found.append("its container was made from another configuration")
    if _document.flag(container, "secrets_applied") is False:
        found.append("its container has another API key than the file")
    if container.get("restart_policy") != _compose.RESTART_POLICY:
        found.append(f"its restart policy is {container.get('restart_policy')} instead of {_compose.RESTART_POLICY}")
    if container.get("state") != "running":
        found.append(f"its container is {container.get('state')}")
    elif rendered.has_health and container.get("health") != "healthy":
        found.append(f"its health is {container.get('health')}")
    others = sorted(str(item.get("service")) for item in _document.mappings(facts, "containers") if item.get("service") != service.name)
    return found + [f"the project still runs {name}, which is no part of it" for name in others]
