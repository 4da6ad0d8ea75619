# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CDI specification of a host: who makes it, whether it has to be made anew, and which other one is in its place or beside it.

Facts about the toolkit: since 1.18 its packages have units (nvidia-cdi-refresh) that make /var/run/cdi/nvidia.yaml; before, nvidia-ctk
makes one where it is told to. Of two specifications for one device the later directory of the engine's list counts.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _devices, _document, _plan_codes, _platform, _toolkit, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_settings import REMOVE, Settings

REFRESH, GENERATE = "refresh", "generate"
REFRESHED, GENERATED = "/var/run/cdi/nvidia.yaml", "/etc/cdi/nvidia.yaml"
# First release whose packages have the units.
REFRESH_SINCE = "1.18.0"
# Without it a specification says what engines before Docker 26.1 cannot read (schema 0.7.0).
OLD_ENGINE_FLAG = "no-additional-gids-for-device-nodes"
# Files that nvidia-ctk makes; one of another name is somebody's own.
_BY_CTK = ("nvidia.yaml", "nvidia.json", "nvidia.yml")


@dataclass(frozen=True)
class Specification:
    """A specification that is to be made: by what (`how` None: none is made, and only files go), where, with which flags, and why."""

    how: str | None
    output: str | None
    feature_flags: tuple[str, ...] = ()
    enable: bool = False
    reasons: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        return {
            "how": self.how,
            "output": self.output,
            "feature_flags": list(self.feature_flags),
            "enable": self.enable,
            "reasons": list(self.reasons),
            "remove": list(self.remove),
        }


def of(
    host: Host, choice: _devices.Choice, settings: Settings, before: str | None, version: str | None, brings: bool, driver_changes: bool
) -> tuple[Specification | None, list[dict[str, str]]]:
    """Return the specification that is to be made, None where nothing of it differs, and what is worth knowing.

    Args:
        host: what was observed.
        choice: the GPUs that containers are given.
        settings: what the operator wants.
        before: the toolkit that is there, None where none is.
        version: the one that comes, None for the newest.
        brings: whether one comes.
        driver_changes: whether another driver is loaded before.
    """
    if host.loaded is None and not driver_changes:
        message = "no NVIDIA driver is loaded, so no CDI specification can be made now"
        remedy = "it is made when the driver is loaded: by this run where that brings the driver, else by the next"
        return None, [warning(_plan_codes.SPECIFICATION_NOT_MADE, message, remedy)]
    how = _how(host, settings, version, brings)
    output = REFRESHED if how == REFRESH else GENERATED
    flags = _flags(host)
    enable = settings.cdi_refresh and how == REFRESH and (brings or _is_off(host))
    reasons = _reasons(host, choice, output, brings, driver_changes)
    if how == REFRESH and not brings:
        refresh = _document.mapping(host.facts, "toolkit", "refresh")
        missing = [flag for flag in flags if flag not in _document.texts(refresh, "feature_flags")]
        reasons += [f"{', '.join(missing)} is not set, without which this Docker cannot read the specification"] if missing else []
        reasons += ["the units that keep the CDI specification up to date are not enabled"] if enable else []
    others = _left_over(host, output, made=bool(reasons))
    # What the role made goes without being asked for, as the packages' own does: out of date, it would count more than a new one in /etc.
    ours = {*_document.mapping(host.facts, "toolkit", "managed"), *_outdated(host, REFRESHED)}
    paths = [path for path, _why in others if settings.stale_specs == REMOVE or path in ours]
    reasons += [f"{path} {why}, and is removed" for path, why in others if path in paths]
    notes = [warning(_plan_codes.SPECIFICATION_LEFT, f"{path} {why}") for path, why in others if path not in paths]
    if not reasons:
        return None, notes
    known = _document.texts(host.facts, "toolkit", "refresh", "feature_flags") if how == REFRESH else []
    every = tuple(dict.fromkeys([*known, *flags]))
    return Specification(how, output, every, enable, tuple(dict.fromkeys(reasons)), tuple(paths)), notes


def gone(host: Host) -> Specification | None:
    """Return which specifications go with the toolkit: that of its units, and the role's own.

    Another one in /etc is left, as files of an operator are.
    """
    ours = _document.mapping(host.facts, "toolkit", "managed")
    paths = [path for path in _paths(host) if path == REFRESHED or path in ours]
    return Specification(None, None, remove=tuple(paths)) if paths else None


def _how(host: Host, settings: Settings, version: str | None, brings: bool) -> str:
    units = _document.at(host.facts, "toolkit", "refresh") is not None
    # Units that somebody else switched on go on making theirs.
    if not settings.cdi_refresh and (not units or _is_off(host)):
        return GENERATE
    if brings:
        return REFRESH if version is None or _versions.at_least(version, REFRESH_SINCE) else GENERATE
    return REFRESH if units else GENERATE


def _outdated(host: Host, path: str) -> list[str]:
    """Return this path where the specification there is out of date, else nothing."""
    return [path for spec in _devices.specs_of(host.facts) if _document.text(spec, "path") == path and _document.flag(spec, "stale")]


def _is_off(host: Host) -> bool:
    refresh = _document.mapping(host.facts, "toolkit", "refresh")
    return refresh.get("path_enabled") is False or refresh.get("service_enabled") is False


def _flags(host: Host) -> list[str]:
    docker = _document.text(host.facts, "engine", "version")
    old = _versions.at_least(docker, _toolkit.CDI_FLOOR) and not _versions.at_least(docker, _toolkit.CDI_SCHEMA_070_FLOOR)
    return [OLD_ENGINE_FLAG] if old else []


def _reasons(host: Host, choice: _devices.Choice, output: str, brings: bool, driver_changes: bool) -> list[str]:
    """Return why a specification has to be made; empty where a fresh one has every device that is used."""
    found = []
    if brings:
        found.append("a CDI specification is made by the toolkit that comes")
    if driver_changes:
        found.append("a CDI specification names the files of the driver it was made for")
    stale = [spec for spec in _devices.specs_of(host.facts) if _document.flag(spec, "stale")]
    fresh = set(_fresh(host))
    lacking = [use for use in choice.uses if not set(_devices.candidates(choice, use)) & fresh]
    replaced = [spec for spec in stale if _document.text(spec, "path") == output or lacking]
    found += _platform.stale_sentences(replaced)
    if lacking and not replaced:
        missing = _platform.lacking(host, choice)
        found += [missing] if missing is not None else []
    return found


def _fresh(host: Host) -> list[str]:
    """Return the devices that the engine finds in specifications that are not out of date."""
    directories = _devices.directories_of(host.facts)
    names: list[str] = []
    for spec in _devices.specs_of(host.facts):
        inside = not directories or os.path.dirname(_document.text(spec, "path") or "") in directories
        if inside and not _document.flag(spec, "stale"):
            names += _document.texts(spec, "devices")
    return names


def _left_over(host: Host, output: str, made: bool) -> list[tuple[str, str]]:
    """Return the specifications beside that of `output` which nobody needs, each with what is wrong with it."""
    there = made or _path_is_there(host, output)
    found: list[tuple[str, str]] = []
    for spec in _devices.specs_of(host.facts):
        path = _document.text(spec, "path") or ""
        if path in ("", output) or not there or os.path.basename(path) not in _BY_CTK:
            continue
        why = "is out of date" if _document.flag(spec, "stale") else "is a second specification for the same GPUs"
        found.append((path, f"{why}, beside {output}"))
    return found


def _paths(host: Host) -> Sequence[str]:
    return [_document.text(spec, "path") or "" for spec in _devices.specs_of(host.facts)]


def _path_is_there(host: Host, path: str) -> bool:
    return path in _paths(host)
