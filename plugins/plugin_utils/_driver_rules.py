# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of the package manager that keep another driver away, and which of them are not ours to take away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import REPLACE, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

# Rules that keep a driver as it is. What keeps unattended upgrades away stands in nobody's way.
_WORDS = {
    "hold": "is held",
    "preference": "is pinned",
    "versionlock": "is locked",
    "exclude": "is excluded",
    "module_stream": "has its module stream fixed",
}
# What the package manager itself keeps and can be told to forget. The others are in files that somebody wrote.
_REPLACEABLE = ("hold", "versionlock", "module_stream")
# Files of role nvidia_driver with which its holds go.
_OUR_APT_PINS = ("/etc/apt/preferences.d/difyops-nvidia-driver.pref", "/etc/apt/apt.conf.d/52difyops-nvidia-driver")
_PINNING = "/nvidia-driver-pinning"
_VERSION = re.compile(r"(?<![0-9.])([0-9]{3,4})((?:\.[0-9]+)*)")
_PRIORITY = re.compile(r"priority\s+(-?[0-9]+)")


def in_the_way(host: Host, branch: int | None, version: str | None) -> list[Mapping[str, Any]]:
    """Return the rules of others that keep a driver away, or, with `branch` None, that keep the driver from being removed."""
    pins = _document.mappings(host.facts, "driver", "installed", "pins")
    return [pin for pin in pins if not _is_ours(host, pin) and _keeps_away(pin, branch, version)]


def block(host: Host, settings: Settings, branch: int | None, version: str | None) -> Block | None:
    """Return which rules of others are in the way of a change and are not to be replaced; None where none is."""
    rules = in_the_way(host, branch, version)
    if settings.foreign_pins == REPLACE:
        rules = [pin for pin in rules if pin.get("kind") not in _REPLACEABLE]
    if not rules:
        return None
    what = f"driver {version or branch} is to be installed" if branch is not None else "the driver is to be removed"
    message = f"{what}, and {', '.join(dict.fromkeys(_words(pin) for pin in rules))}"
    return Block("driver", _plan_codes.HELD_BY_OTHERS, message, _remedy(rules))


def told(host: Host, branch: int, version: str | None) -> str | None:
    """Return what keeps a driver away as part of a sentence, None where nothing does."""
    return ", ".join(dict.fromkeys(_words(pin) for pin in in_the_way(host, branch, version))) or None


def _remedy(rules: list[Mapping[str, Any]]) -> str:
    loose = [pin for pin in rules if pin.get("kind") in _REPLACEABLE]
    files = list(dict.fromkeys(_document.text(pin, "path") or "the package manager's settings" for pin in rules if pin not in loose))
    steps = [f"change {', '.join(files)}, which is not written by this collection"] if files else []
    steps += [f"take holds, locks and streams away, or set {option_of('foreign_pins')} to {REPLACE}"] if loose else []
    return "; ".join(steps)


def _words(pin: Mapping[str, Any]) -> str:
    kind, value = _document.text(pin, "kind") or "", _document.text(pin, "value")
    name, path = _document.text(pin, "name") or "a package", _document.text(pin, "path")
    return f"{name} {_WORDS[kind]}{f' to {value}' if value else ''} ({path or 'in the package database'})"


def _is_ours(host: Host, pin: Mapping[str, Any]) -> bool:
    """Whether role nvidia_driver made a rule: it is in a file of the role, or goes with one that is there."""
    managed = _document.mapping(host.facts, "driver", "managed")
    path = _document.text(pin, "path")
    if path in managed or (path is not None and "difyops-nvidia-driver" in path):
        return True
    if pin.get("kind") == "hold":
        return any(name in managed for name in _OUR_APT_PINS)
    # The role has NVIDIA's own package pin the driver where its repository has one.
    by_nvidia = path is not None and _PINNING in path
    return (by_nvidia or pin.get("kind") in ("versionlock", "module_stream")) and bool(managed)


def _keeps_away(pin: Mapping[str, Any], branch: int | None, version: str | None) -> bool:
    kind, value = _document.text(pin, "kind") or "", _document.text(pin, "value")
    if kind not in _WORDS:
        return False
    if branch is None:
        # Of all rules only a hold keeps packages from being removed.
        return kind == "hold"
    if value is None:
        return True
    about = _names(value, branch, version)
    if kind == "preference":
        priority = _PRIORITY.search(value)
        if priority is not None and int(priority[1]) < 0:
            return about is not False
        # One that prefers an origin or a release keeps no version.
        return about is False
    if kind == "versionlock" and value.startswith("!"):
        return about is True
    if kind == "exclude":
        # Limited to a version, or to a repository, which need not be ours.
        return about is True
    return about is not True


def _names(value: str, branch: int, version: str | None) -> bool | None:
    """Whether a rule's condition is about this driver, as ``580.*`` and the stream ``580-open`` are; None where it names no version."""
    text = _PRIORITY.sub("", value)
    found = _VERSION.search(text)
    if found is None:
        return None
    if int(found[1]) != branch:
        return False
    if version is None or not found[2]:
        return True
    named = f"{found[1]}{found[2]}"
    # A pattern such as 580.9* names all that begin so.
    return version.startswith(named) if "*" in text else _versions.parse(named) == _versions.parse(version)
