# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of role nvidia_driver on a host: their content, whose driver it is, and what differs from what they should be."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _driver_names, _driver_source, _package_sources
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import BRANCH, NONE, NVIDIA, PRESENT, VERSION
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_source import Target
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import (
    APT,
    DRIVER,
    Rendered,
    Repository,
    rendered,
    stanza,
    stanzas,
)

if TYPE_CHECKING:
    from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
    from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

APT_SOURCES, APT_KEY, YUM_REPO, RPM_KEY = DRIVER.apt_sources, DRIVER.apt_key, DRIVER.yum_repo, DRIVER.rpm_key
PREFERENCES = DRIVER.preferences
BLOCKLIST = "/etc/apt/apt.conf.d/52difyops-nvidia-driver"
MODPROBE = "/etc/modprobe.d/difyops-nvidia-driver.conf"
PERSISTENCED = "nvidia-persistenced"
OF_REPOSITORY = (APT_SOURCES, APT_KEY, YUM_REPO, RPM_KEY)
OF_PINS = (PREFERENCES, BLOCKLIST)

# From 1000 on apt goes back to an older version, which is what a pin is for.
PRIORITY = 1001
_HEAD = DRIVER.head
# Suites that belong to a release, by what follows its name.
_SUITE = re.compile(r"(?:-updates|-security|/updates)?")
# What the answer has in place of a key that stands in a source itself.
EMBEDDED = "embedded key"
_RELEASE_NAMES = ("stable", "oldstable", "oldoldstable")


class Pin(NamedTuple):
    """How the driver is kept: the version or branch (`580`) that its packages stay at, and whether at exactly that version."""

    name: str
    exact: bool


def managed(host: Host) -> Mapping[str, Any]:
    """Return the files of the role that are on the host, by path."""
    return _document.mapping(host.facts, "driver", "managed")


def is_there(host: Host, path: str, file: Rendered) -> bool:
    """Whether a file is on the host as it should be."""
    return _package_sources.is_there(managed(host), path, file)


def ours(host: Host, settings: Settings) -> bool:
    """Whether the driver may be ours to keep: a branch or version is named, or a file of role nvidia_driver is there."""
    return settings.named or bool(managed(host))


# -- content ---------------------------------------------------------------------------------------------------------


def components_added(here: Target, entries: Sequence[Mapping[str, Any]]) -> Rendered | None:
    """Return a source that adds to the host's own mirrors what the driver needs of them (contrib, non-free), None where nothing lacks.

    `entries` are the sources that the host has. Only those of the distribution's release itself count, so the mirror is the host's own.
    """
    found: dict[tuple[str, str], set[str]] = {}
    suites: dict[tuple[str, str], str] = {}
    for entry in entries:
        if _document.text(entry, "file") == APT_SOURCES:
            continue
        for uri in _document.texts(entry, "uris"):
            for suite in _document.texts(entry, "suites"):
                parts = set(_document.texts(entry, "components"))
                if _is_of(here, suite):
                    found.setdefault((uri.rstrip("/"), suite), set()).update(parts)
                    suites.setdefault((uri.rstrip("/"), suite), _document.text(entry, "signed_by") or "")
    lacks: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (uri, suite), parts in found.items():
        lacking = tuple(name for name in here.components if name not in parts)
        if "main" in parts and lacking:
            lacks.setdefault((uri, suites[uri, suite], lacking), []).append(suite)
    if not lacks:
        return None
    return stanzas(DRIVER, [stanza([uri], names, lacking, key) for (uri, key, lacking), names in lacks.items()])


def of_repository(here: Target, named: Repository) -> tuple[str, Rendered]:
    """Return path and content of the role's file for a repository that the options alone tell."""
    return _package_sources.of_repository(DRIVER, here.manager, named, here.keyring)


def preferences(pin: Pin, priority: int = PRIORITY) -> Rendered:
    """Return apt's preferences that keep every package of the driver at a version or a branch."""
    wanted = f"{pin.name}*" if pin.exact else f"{pin.name}.*"
    names = "\n".join(f" {glob}" for glob in _driver_names.globs())
    return rendered(f"# {_HEAD}\nPackage:\n{names}\nPin: version {wanted}\nPin-Priority: {priority}\n")


def blocklist() -> Rendered:
    """Return the settings by which unattended-upgrades leaves the driver alone, and nothing else.

    Modules that the distribution built are not on the list: they come together with a new kernel, and only for the driver that is there.
    """
    names = "\n".join(f'    "{_driver_names.regular_expression(glob)}";' for glob in _driver_names.globs())
    return rendered(f"// {_HEAD}\nUnattended-Upgrade::Package-Blacklist {{\n{names}\n}};\n")


def modprobe() -> Rendered:
    """Return the rules by which no other kernel driver takes the GPUs."""
    return rendered(f"# {_HEAD}\nblacklist nouveau\nblacklist nova_core\noptions nouveau modeset=0\n")


def _is_of(here: Target, suite: str) -> bool:
    names = (here.codename, *_RELEASE_NAMES) if here.family == _driver_source.DEBIAN else (here.codename,)
    return any(suite.startswith(name) and _SUITE.fullmatch(suite[len(name) :]) for name in names)


# -- what differs ----------------------------------------------------------------------------------------------------


def pin_of(settings: Settings, version: str, branch: int) -> Pin | None:
    """Return how a driver is to be kept, None where it is not."""
    if settings.pin == NONE:
        return None
    return Pin(version, True) if settings.pin == VERSION else Pin(str(branch), False)


def pinned_by_nvidia(host: Host, pin: Pin) -> bool:
    """Whether NVIDIA's own package pins the driver so already: a rule in a file of its that means this version or branch."""
    rules = _document.mappings(host.facts, "driver", "installed", "pins")
    paths = [_document.text(rule, "path") or "" for rule in rules if rule.get("kind") == "preference"]
    values = [_document.text(rule, "value") or "" for rule in rules if rule.get("kind") == "preference"]
    wanted = re.compile(rf"version {re.escape(pin.name)}(?![0-9]){'' if pin.exact else '[.*]'}")
    own = [value for path, value in zip(paths, values) if path not in ("", PREFERENCES) and "nvidia" in path]
    return any(wanted.match(value) for value in own)


def differences(host: Host, settings: Settings) -> tuple[str, ...]:
    """Return what of pins, files and services differs for the installed driver, as short sentences; empty where nothing does."""
    here, version = _driver_source.target(host), host.installed
    branch = (version or "").partition(".")[0]
    if here is None or version is None or not branch.isdigit() or settings.state != PRESENT:
        return ()
    pin = pin_of(settings, version, int(branch))
    pins = _apt_pins(host, pin) if here.manager == APT else _dnf_pins(host, settings, here, int(branch), pin)
    return (*pins, *_files(host, {MODPROBE: modprobe()}), *_repository(host, settings, here), *_services(host, settings))


def source_of_installed(host: Host, settings: Settings) -> str | None:
    """Return the source that the installed driver came from and is to come from; None where that is another, or nobody can tell.

    Where the options name another source than that of a driver that stays, its repository stays too.
    """
    here, branch = _driver_source.target(host), (host.installed or "").partition(".")[0]
    if here is None or not branch.isdigit():
        return None
    source = _driver_source.choose(host, settings, int(branch), None)
    return source if here.manager != APT or (source == NVIDIA) == (_origin(host) == NVIDIA) else None


def _repository(host: Host, settings: Settings, here: Target) -> list[str]:
    """Return whether the role's repository file is another than the options tell. What hangs on the host's own sources is not looked at."""
    source = source_of_installed(host, settings)
    named = _driver_source.repository(host, settings, source) if source is not None else None
    if named is None:
        return []
    path, file = of_repository(here, named)
    return _files(host, {path: file}) if path in managed(host) else []


def pin_files(host: Host, pin: Pin | None, by_nvidia: bool) -> dict[str, Rendered | None]:
    """Return the files that pin a driver for apt; None in place of one that is there and is to go."""
    wanted = {PREFERENCES: preferences(pin) if pin and not by_nvidia else None, BLOCKLIST: blocklist() if pin else None}
    return {path: file for path, file in wanted.items() if file is not None or path in managed(host)}


def _files(host: Host, wanted: Mapping[str, Rendered | None]) -> list[str]:
    found = []
    for path, file in wanted.items():
        if file is None:
            found.append(f"{path} is to go")
        elif not is_there(host, path, file):
            found.append(f"{path} differs" if path in managed(host) else f"{path} is missing")
    return found


def _apt_pins(host: Host, pin: Pin | None) -> list[str]:
    by_nvidia = pin is not None and _origin(host) == NVIDIA and pinned_by_nvidia(host, pin)
    found = _files(host, pin_files(host, pin, by_nvidia))
    if pin is None or not pin.exact or by_nvidia:
        return found
    loose = _without(host, "hold", None)
    return [*found, f"{_count(loose)} not held: {_some(loose)}"] if loose else found


def _dnf_pins(host: Host, settings: Settings, here: Target, branch: int, pin: Pin | None) -> list[str]:
    if pin is None:
        return []
    if settings.pin == BRANCH and here.streams:
        rules = _rules(host, "module_stream")
        kept = any((_document.text(rule, "value") or "").startswith(f"{branch}-") for rule in rules)
        return [] if kept else [f"the module stream of branch {branch} is not enabled"]
    loose = _without(host, "versionlock", host.installed)
    return [f"{_count(loose)} not locked: {_some(loose)}"] if loose else []


def _without(host: Host, kind: str, version: str | None) -> list[str]:
    """Return the packages of the driver that no rule of a kind keeps (at a version)."""
    rules = [rule for rule in _rules(host, kind) if version is None or version in (_document.text(rule, "value") or "")]
    patterns = [_document.text(rule, "name") or "" for rule in rules]
    names = [_document.text(package, "name") or "" for package in _document.mappings(host.facts, "driver", "installed", "packages")]
    # Prebuilt modules come with their kernel, and their dependencies keep them with the driver.
    kept = [name for name in names if name and not _driver_names.is_prebuilt(name)]
    return [name for name in kept if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _rules(host: Host, kind: str) -> list[Mapping[str, Any]]:
    return [rule for rule in _document.mappings(host.facts, "driver", "installed", "pins") if rule.get("kind") == kind]


def _origin(host: Host) -> str | None:
    return _document.text(host.facts, "driver", "installed", "origin")


def services(host: Host, settings: Settings, loads: bool) -> list[dict[str, Any]]:
    """Return the services that the driver is to have; `loads` tells whether it is in the kernel when the role has ended."""
    wanted = [PERSISTENCED] if settings.persistence else []
    if needs_fabric_manager(host, settings):
        wanted.append("nvidia-fabricmanager")
    return [{"name": name, "enabled": True, "running": loads} for name in wanted]


def needs_fabric_manager(host: Host, settings: Settings) -> bool:
    """Whether the fabric manager is to be there: NVSwitches are, and nobody said to leave it alone."""
    needed = _document.flag(host.facts, "driver", "fabric_manager", "needed")
    switches = _document.at(host.facts, "host", "nvswitches")
    return settings.fabric_manager != "unmanaged" and (needed is True or (needed is None and isinstance(switches, int) and switches > 0))


def lacks_fabric_manager(host: Host, settings: Settings) -> bool:
    """Whether the fabric manager is needed and is not there in the version of the installed driver."""
    facts = _document.mapping(host.facts, "driver", "fabric_manager")
    there = facts.get("installed") is True and _document.text(facts, "version") in (None, host.installed)
    return needs_fabric_manager(host, settings) and not there


def _services(host: Host, settings: Settings) -> list[str]:
    facts = _document.mapping(host.facts, "driver")
    found = []
    if lacks_fabric_manager(host, settings):
        found.append(f"the fabric manager of {host.installed} is not installed")
    names = {PERSISTENCED: "persistenced", "nvidia-fabricmanager": "fabric_manager"}
    for service in services(host, settings, loads=True):
        state = _document.mapping(facts, names[service["name"]])
        if state.get("installed") is not True:
            continue
        if state.get("enabled") is False:
            found.append(f"{service['name']} does not start at boot")
        elif state.get("running") is False and host.loaded == host.installed:
            found.append(f"{service['name']} does not run")
    return found


def _count(names: Sequence[str]) -> str:
    return "1 package of the driver is" if len(names) == 1 else f"{len(names)} packages of the driver are"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
