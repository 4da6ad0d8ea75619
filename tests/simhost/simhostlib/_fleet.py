# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet file: which hosts, with which profile, ports, images and mounts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simhostlib._common import HERE, SimhostError
from simhostlib._systems import DEFAULT_SYSTEM, SYSTEMS, System

DEFAULT_FLEET = HERE / "fleets" / "demo.json"
INNER_PORTS = {"ssh": 22, "api": 8000, "web": 80, "https": 443}
IMAGES = ("python", "cuda")
ASSETS = ("wheels", "models")
HOST_KEYS = {"os", "profile", "set", "publish", "images", "mounts", "pynvml", "without", "repositories", "engine", "dify"}


@dataclass(frozen=True)
class Host:
    name: str
    container: str
    profile: Path | None
    publish: dict[str, int]
    system: System = SYSTEMS[DEFAULT_SYSTEM]
    overrides: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    mounts: dict[str, str] = field(default_factory=dict)
    pynvml: bool = False
    without: list[str] = field(default_factory=list)
    repositories: bool = False
    dify: bool = False
    # False: the system could have one here, and the host has none until somebody brings it.
    engine: bool = True

    def profile_text(self) -> str | None:
        """The profile with what the fleet file sets otherwise; None for a host without one."""
        return with_overrides(self.profile.read_text(encoding="utf-8"), self.overrides) if self.profile else None

    @property
    def volume(self) -> str:
        return f"{self.container}-docker"


@dataclass(frozen=True)
class Fleet:
    prefix: str
    hosts: dict[str, Host]

    def select(self, names: list[str]) -> list[Host]:
        """The named hosts, or all."""
        for name in names:
            if name not in self.hosts:
                raise SimhostError(f"there is no host {name!r} in this fleet; it has: {', '.join(self.hosts)}.")
        return [self.hosts[name] for name in names] if names else list(self.hosts.values())


def profile_file(name: str, beside: Path) -> Path:
    """The file of a profile: one of `profiles/` by its name, or a path beside the fleet file."""
    for file in (HERE / "profiles" / f"{name}.profile", beside / name):
        if file.is_file():
            return file
    raise SimhostError(f"the profile {name!r}, and {HERE / 'profiles'} has no such file.")


def with_overrides(text: str, overrides: list[str]) -> str:
    """The text of a profile with some keys set otherwise; `key=` takes the key away."""
    lines = text.splitlines()
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise SimhostError(f"{override!r} is not of the form key=value.")
        lines = [line for line in lines if line.partition("=")[0] != key]
        lines += [override] if value else []
    return "".join(f"{line}\n" for line in lines)


def _host(prefix: str, name: str, raw: dict[str, Any], path: Path) -> Host:
    unknown = set(raw) - HOST_KEYS
    if unknown:
        raise SimhostError(f"{path}: host {name} has the unknown key {sorted(unknown)[0]!r}; known are {', '.join(sorted(HOST_KEYS))}.")
    publish = raw.get("publish", {})
    if "ssh" not in publish or set(publish) - set(INNER_PORTS) or not all(isinstance(port, int) for port in publish.values()):
        others = ", ".join(name for name in INNER_PORTS if name != "ssh")
        raise SimhostError(f"{path}: `publish` of host {name} must map ssh (and may map {others}) to a port number.")
    for key, known in (("images", IMAGES), ("mounts", ASSETS)):
        for wanted in raw.get(key, ()):
            if wanted not in known:
                raise SimhostError(f"{path}: {key} of host {name} names {wanted!r}; known are {', '.join(known)}.")
    try:
        profile = profile_file(raw["profile"], path.parent) if raw.get("profile") else None
    except SimhostError as error:
        raise SimhostError(f"{path}: host {name} wants {error}") from None
    system = raw.get("os", DEFAULT_SYSTEM)
    if system not in SYSTEMS:
        raise SimhostError(f"{path}: host {name} has the os {system!r}; known are {', '.join(SYSTEMS)}.")
    made = Host(
        name=name,
        container=f"{prefix}-{name}",
        profile=profile,
        publish=dict(publish),
        images=list(raw.get("images", [])),
        mounts=dict(raw.get("mounts", {})),
        pynvml=bool(raw.get("pynvml", False)),
        without=list(raw.get("without", [])),
        system=SYSTEMS[system],
        overrides=list(raw.get("set", [])),
        repositories=bool(raw.get("repositories", False)),
        dify=bool(raw.get("dify", False)),
        engine=SYSTEMS[system].engine and raw.get("engine", True),
    )
    if not isinstance(raw.get("engine", True), bool):
        raise SimhostError(f"{path}: `engine` of host {name} is true or false.")
    refuse_packages(made, made.profile_text())
    _refuse_without_engine(made, system, path)
    return made


def _refuse_without_engine(made: Host, system: str, path: Path) -> None:
    """Images, and the registry that came with the engine, are for hosts that have one."""
    name = made.name
    if made.images and not made.system.engine:
        raise SimhostError(f"{path}: host {name} is to get images, and {system} has no engine here.")
    if made.dify and not made.engine:
        raise SimhostError(f"{path}: host {name} is to have the registry of Dify's stand-ins, which came with its engine.")


def refuse_packages(host: Host, profile: str | None) -> None:
    """Drivers of a profile are Debian packages, which a host with rpm cannot have."""
    if host.system.manager == "rpm" and profile and any(line.startswith("driver_version=") for line in profile.splitlines()):
        raise SimhostError(f"{host.name} has rpm: its drivers come from the stub repositories only, so set driver_version= to nothing.")


def load(path: Path) -> Fleet:
    """Reads and checks a fleet file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SimhostError(f"the fleet file {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SimhostError(f"the fleet file {path} is not JSON: {error}.") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("prefix"), str) or not isinstance(raw.get("hosts"), dict):
        raise SimhostError(f"the fleet file {path} needs `prefix` (a string) and `hosts` (an object).")
    hosts = {name: _host(raw["prefix"], name, host, path) for name, host in raw["hosts"].items()}
    ports: dict[int, str] = {}
    for host in hosts.values():
        for port in host.publish.values():
            if port in ports:
                raise SimhostError(f"{path}: port {port} is published by {ports[port]} and by {host.name}.")
            ports[port] = host.name
    return Fleet(raw["prefix"], hosts)
