# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host can carry what is planned: ports, disk, memory, compose."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_override, _app_services, _document, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_options import Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_release import PART, Wanted
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block

# MiB that upstream asks for, and the share of it that a machine of that size shows (firmware and kernel take the rest).
MEMORY_MIB = 4096
_SHOWN = 0.9
# MiB of an image on disk with what is needed to unpack it, estimated, by the image's name.
_IMAGES_MIB = {
    "dify-api": 3000,
    "dify-web": 700,
    "dify-plugin-daemon": 1800,
    "dify-sandbox": 900,
    "dify-agent-backend": 1500,
    "dify-agent-local-sandbox": 1500,
    "postgres": 300,
    "redis": 60,
    "nginx": 200,
    "weaviate": 200,
    "squid": 300,
    "busybox": 5,
}
_IMAGE_MIB = 1000
# MiB for the unpacked release and for what a first day of use writes.
_HOME_MIB = 1024


@dataclass(frozen=True)
class Needs:
    """MiB by path, MiB of memory, and how many images are to be fetched."""

    disk: Mapping[str, int]
    memory_mib: int
    download_images: int

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        return {"disk": dict(self.disk), "memory_mib": self.memory_mib, "download_images": self.download_images}


def needs(settings: Settings, wanted: Wanted, facts: object, unpack: bool, backup: bool) -> Needs:
    """Return what the plan takes. Images are estimated, since nobody has asked the registry."""
    missing = missing_images(wanted, facts)
    disk: dict[str, int] = {}
    if missing:
        root = _document.text(facts, "docker_root") or "/var/lib/docker"
        disk[root] = sum(_IMAGES_MIB.get(_app_services.base_name(reference), _IMAGE_MIB) for reference in missing)
    if unpack:
        disk[settings.home] = disk.get(settings.home, 0) + _HOME_MIB
    size = _number(facts, "volumes_mib")
    if backup and size is not None:
        disk[settings.backup_dir] = disk.get(settings.backup_dir, 0) + size
    asked = sum(limit.memory_mib for limit in settings.resources.values())
    return Needs(disk, max(MEMORY_MIB, asked), len(missing))


def missing_images(wanted: Wanted, facts: object) -> list[str]:
    """Return the references that the host does not have."""
    images = _document.mapping(facts, "images")
    return [reference for reference in wanted.images if not _document.mapping(images, reference)]


def disk_blocks(need: Needs, facts: object) -> list[Block]:
    """Return a block for each file system that has too little space; what shares one is added up."""
    groups: dict[object, list[str]] = {}
    for path in need.disk:
        device = _document.at(_document.mapping(facts, "disk"), path, "file_system")
        groups.setdefault(device if isinstance(device, (int, str)) else path, []).append(path)
    found = []
    for paths in groups.values():
        free = [value for value in (_number(_document.mapping(facts, "disk"), path, "free_mib") for path in paths) if value is not None]
        asked = sum(need.disk[path] for path in paths)
        if free and min(free) < asked:
            parts = ", ".join(f"{path} {need.disk[path]} MiB" for path in paths)
            told = f"The plan needs {asked} MiB ({parts}; images are estimated), and {min(free)} MiB are free."
            found.append(Block(PART, _plan_codes.APP_DISK, told))
    return found


def memory_blocks(need: Needs, facts: object) -> list[Block]:
    """Return a block where the host has less memory than is asked for."""
    total = _number(facts, "memory", "total_mib")
    if total is None or total >= need.memory_mib * _SHOWN:
        return []
    told = f"The host has {total} MiB of memory; the services need {need.memory_mib} MiB."
    return [Block(PART, _plan_codes.APP_MEMORY, told)]


def ports(settings: Settings, wanted: Wanted) -> list[tuple[str, int]]:
    """Return the addresses and ports that are published."""
    secure = wanted.variables.get("NGINX_SSL_PORT") or "443"
    entries = [port for service in wanted.services for port in _app_override.published(service, settings, secure)]
    return [(str(port["host_ip"]), int(port["published"])) for port in entries]


def port_blocks(published: Sequence[tuple[str, int]], facts: object) -> list[Block]:
    """Return a block for each port that somebody else holds."""
    found = []
    for address, port in published:
        for item in _document.mappings(facts, "ports"):
            if item.get("port") != port or _document.text(item, "container") or not _overlap(address, _document.text(item, "address")):
                continue
            who = _document.text(item, "name") or "another program"
            number = f" (process {item['pid']})" if isinstance(item.get("pid"), int) else ""
            found.append(Block(PART, _plan_codes.APP_PORT, f"Port {port} on {item.get('address')} is held by {who}{number}."))
            break
    return found


def _overlap(wanted: str, held: str | None) -> bool:
    """Whether one socket keeps the other from listening; addresses that cannot be read do."""
    try:
        first, second = ipaddress.ip_address(wanted), ipaddress.ip_address(held or "")
    except ValueError:
        return True
    return first.is_unspecified or second.is_unspecified or first == second


def compose_blocks(wanted: Wanted, nvidia: object) -> list[Block]:
    """Return a block where Docker Compose is known and too old for the release or for the override."""
    have = _document.text(nvidia, "engine", "compose_version")
    floor = compose_min(wanted)
    if have is None or _versions.parse(have) is None or _versions.at_least(have, floor):
        return []
    told = f"Docker Compose is {have}; release {wanted.release.version} as it is deployed here needs {floor} or newer."
    return [Block(PART, _plan_codes.APP_COMPOSE, told)]


def compose_min(wanted: Wanted) -> str:
    """Return the oldest Docker Compose that will do: the release's own floor, or that of the override."""
    own = wanted.release.compose_min
    newer = _versions.parse(own) is not None and not _versions.at_least(_app_override.COMPOSE_MIN, own)
    return own if newer else _app_override.COMPOSE_MIN


def _number(document: object, *path: str) -> int | None:
    value = _document.at(document, *path)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    # False for what is not a number, too.
    return int(value) if abs(value) < 1e15 else None
