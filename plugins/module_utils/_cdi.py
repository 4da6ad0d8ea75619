# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CDI specifications of a host: which devices a container engine finds in them, and for which driver they are.

This is private to difyops.gpu.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_LIBRARY = re.compile(r"/lib(?:nvidia-ml|cuda)\.so\.([0-9]{3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?)\b")
_LIMIT = 4 * 1024 * 1024


class SpecError(Exception):
    """A file is no CDI specification. Its text is a sentence."""


def specs(root: str, directories: Sequence[str], loaded: str | None) -> list[Facts]:
    """Return every CDI specification in the directories. ``loaded`` is the version of the loaded driver, if any."""
    return [_spec(root, path, loaded) for directory in directories for path in _files(root, directory)]


def _files(root: str, directory: str) -> Iterator[str]:
    for name in _sysfs.listing(root, directory.lstrip("/")):
        if name.endswith((".json", ".yaml")):
            yield os.path.join(directory, name)


def _spec(root: str, path: str, loaded: str | None) -> Facts:
    facts: Facts = {
        "path": path,
        "kind": None,
        "devices": [],
        "driver_version": None,
        "stale": None,
        "reasons": [],
        "error": None,
    }
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8") as file:
            text = file.read(_LIMIT)
        facts["kind"], facts["devices"] = parse(text)
    except OSError as error:
        facts["error"] = f"{path} cannot be read: {error.strerror}."
    except (SpecError, UnicodeDecodeError) as error:
        facts["error"] = f"{path} is not a CDI specification: {error}"
    else:
        library = _LIBRARY.search(text)
        if library:
            facts["driver_version"] = library[1]
            if loaded:
                facts["stale"] = library[1] != loaded
        if facts["stale"]:
            facts["reasons"] = [f"made for driver {library[1] if library else None}, loaded is {loaded}"]
    return facts


def parse(text: str) -> tuple[str, list[str]]:
    """Return kind and device names of a specification in JSON or YAML. Raises SpecError."""
    if text.lstrip().startswith("{"):
        try:
            return _understand(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise SpecError(f"broken JSON ({error}).") from error
    try:
        import yaml
    except ImportError:
        return scan(text)
    try:
        return _understand(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"broken YAML ({' '.join(str(error).split())[:200]}).") from error


def _understand(document: Any) -> tuple[str, list[str]]:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise SpecError("it names no kind.")
    devices = document.get("devices")
    if devices is not None and not isinstance(devices, list):
        raise SpecError("its devices are not a list.")
    return document["kind"], [str(device["name"]) for device in devices or [] if isinstance(device, dict) and "name" in device]


def scan(text: str) -> tuple[str, list[str]]:
    """Return the same for YAML in block style without a YAML library: what nvidia-ctk writes, and what people write.

    Only two things matter: the top-level ``kind``, and ``name`` directly below an item of the top-level ``devices``.
    """
    kind, names, inside, item, column = None, [], False, -1, -1
    for line in text.splitlines():
        match = re.match(r"^( *)((?:- +)?)([A-Za-z]+):(?: +(.*?))?\s*$", line)
        if not match:
            continue
        indent, key_column = len(match[1]), len(match[1]) + len(match[2])
        if key_column == 0:
            inside, item = match[3] == "devices", -1
            if match[3] == "kind":
                kind = _scalar(match[4])
        elif inside:
            if match[2] and item in (-1, indent):  # an item of the list itself, not of one within
                item, column = indent, key_column
            if key_column == column and match[3] == "name":
                names.append(_scalar(match[4]))
    if not kind:
        raise SpecError("it names no kind.")
    return kind, [name for name in names if name]


def _scalar(text: str | None) -> str:
    """Return a plain or quoted YAML scalar without quotes and without a comment behind it."""
    match = re.match(r"""^(?:"([^"]*)"|'([^']*)'|([^#]*?))\s*(?:#.*)?$""", text or "")
    return next((group for group in match.groups() if group is not None), "") if match else ""


def runtime_mode(text: str) -> str | None:
    """Return the mode in the configuration of NVIDIA's container runtime (TOML); None when it is not set there."""
    section = ""
    for line in text.splitlines():
        header = re.match(r"^\s*\[([^\]]+)\]\s*(?:#.*)?$", line)
        if header:
            section = header[1].strip()
        match = re.match(r"""^\s*mode\s*=\s*["']([^"']*)["']""", line)
        if match and section == "nvidia-container-runtime":
            return match[1] or None
    return None
