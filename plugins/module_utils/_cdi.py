# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CDI specifications of a host: which devices a container engine finds in them, and whether they are true today.

This is private to difyops.gpu.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_LIBRARY = re.compile(r"/lib(?:nvidia-ml|cuda)\.so\.([0-9]{3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?)\b")
_HOST_PATH = re.compile(r"""\b(?:hostPath|path)["']?\s*:\s*["']?(/[^"'\s,}#]+)""")
_FLOW = "its devices are not in block style, the only style of YAML that is read here."
_KIND = re.compile(r"[\w.-]+/[\w.-]+")


class SpecError(Exception):
    """A file is no CDI specification that can be read. Its text is a sentence."""


class Now(NamedTuple):
    """What specifications have to agree with: the version of the loaded driver, and the GPU facts."""

    driver: str | None
    gpus: Sequence[Facts]


def specs(root: str, directories: Sequence[str], now: Now) -> list[Facts]:
    """Return every CDI specification in the directories, the last of which has priority."""
    found = []
    seen = set()
    for directory in directories:
        place = os.path.realpath(os.path.join(root, directory.lstrip("/")))
        if place not in seen:  # /run/cdi and /var/run/cdi are one
            found += [
                _spec(root, os.path.join(directory, name), now) for name in _sysfs.listing(place) if name.endswith((".json", ".yaml"))
            ]
        seen.add(place)
    for number, spec in enumerate(found):
        # A device that two files of one directory define is in conflict, and an engine takes it from neither.
        here = os.path.dirname(spec["path"])
        rivals = [other for other in found[:number] if os.path.dirname(other["path"]) == here] + found[number + 1 :]
        taken = {device for other in rivals if other["kind"] == spec["kind"] for device in other["devices"]}
        spec["shadowed"] = [device for device in spec["devices"] if device in taken]
    return found


def _spec(root: str, path: str, now: Now) -> Facts:
    nothing: Facts = dict.fromkeys(("kind", "driver_version", "stale", "error"))
    facts = {"path": path, **nothing, "devices": [], "reasons": [], "shadowed": []}
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8") as file:
            text = file.read(4 * 1024 * 1024)
        facts["kind"], facts["devices"] = parse(text)
    except OSError as error:
        facts["error"] = f"{path} cannot be read: {error.strerror}."
    except (SpecError, UnicodeDecodeError) as error:
        facts["error"] = f"{path} is not a CDI specification: {error}"
    else:
        if facts["kind"].startswith("nvidia.com/"):
            library = _LIBRARY.search(text)
            facts["driver_version"] = library and library[1]
            facts["reasons"] = differences(root, text, facts, now)
            facts["stale"] = bool(facts["reasons"]) if facts["reasons"] or (now.driver and library) else None
    return facts


def differences(root: str, text: str, facts: Facts, now: Now) -> list[str]:
    """Return in what a specification is not that of today's driver and devices. Only one with all has to be complete."""
    reasons = []
    made_for, devices = facts["driver_version"], facts["devices"]
    if made_for and now.driver and made_for != now.driver:
        reasons.append(f"made for driver {made_for}, loaded is {now.driver}")
    paths = dict.fromkeys(_HOST_PATH.findall(text))
    reasons += [f"names {path}, which is not there" for path in paths if not os.path.lexists(os.path.join(root, path.lstrip("/")))][:3]
    ours = [gpu for gpu in now.gpus if gpu["bound_driver"] == "nvidia" or gpu["class"] is None]
    nodes = _sysfs.nodes(root)
    # The node of a GPU that was handed to a virtual machine since stays behind; one in MIG mode without parts is in no specification.
    whole = [gpu for gpu in ours if not (gpu["mig"] or {}).get("current") or gpu["mig"]["devices"]]
    if "all" in devices and sum(node in paths for node in nodes) < len(whole):
        reasons += [f"lacks {node}" for node in nodes if node not in paths]
    # By its names a GPU can be missed only where every GPU tells its own; one that is lost tells none.
    if all(gpu["uuid"] for gpu in ours):
        reasons += _names_that_differ(devices, ours)
    return reasons


def _names_that_differ(devices: Sequence[str], gpus: Sequence[Facts]) -> list[str]:
    """Compare the names of devices with the GPUs and MIG devices that are there."""
    known = {gpu["uuid"] for gpu in gpus}
    parts = []
    for gpu in gpus:
        for part in (gpu["mig"] or {}).get("devices") or []:
            pair = f"{gpu['index']}:{part['index']}"
            parts.append((pair, {pair, f"mig{pair}", part["uuid"]}))  # by the strategies of nvidia-ctk
            known |= parts[-1][1]
    telling = ["GPU-"]
    # An ordinary user sees only the MIG devices that were opened to him.
    if not any(gpu["mig"] is None or gpu["mig"]["devices"] is None or (gpu["mig"]["current"] and os.geteuid()) for gpu in gpus):
        telling += ["MIG-", "(mig)?[0-9]+:[0-9]+$"]
    named = [name for name in devices if re.match("|".join(telling), name)] if gpus else []
    return [
        *(f"names the device {name}, which is not there" for name in named if name not in known),
        *(f"lacks the MIG device {pair}" for pair, names in parts if "all" in devices and not names.intersection(devices)),
    ]


def parse(text: str) -> tuple[str, list[str]]:
    """Return kind and device names of a specification in JSON or YAML. Raises SpecError."""
    if text.lstrip().startswith("{"):
        try:
            document: Any = json.loads(text)
            kind, names = str(document.get("kind")), [str(device["name"]) for device in document.get("devices") or []]
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            raise SpecError(f"broken JSON ({error}).") from error
    else:
        kind, names = scan(text)
    if not _KIND.fullmatch(kind):
        raise SpecError("it names no kind.")
    return kind, names


def scan(text: str) -> tuple[str, list[str]]:
    """Return the same for YAML in block style, which nvidia-ctk writes, and most people: no YAML library may be there.

    Only two things matter: the top-level ``kind``, and ``name`` directly below an item of the top-level ``devices``.
    """
    kind, names, inside, item, column = "", [], False, -1, -1
    for line in text.splitlines():
        match = re.match(r"^( *)((?:- +)?)([A-Za-z]+):(?: +(.*?))?\s*$", line)
        if not match:
            flow = re.match(r"^( *)- +[{&*\[!]", line)
            if inside and flow and item in (-1, len(flow[1])):
                raise SpecError(_FLOW)
            continue
        indent, key_column = len(match[1]), len(match[1]) + len(match[2])
        value = _scalar(match[4])
        if key_column == 0:
            inside, item = match[3] == "devices", -1
            if match[3] == "kind":
                kind = value
            elif inside and value not in ("", "[]"):
                raise SpecError(_FLOW)
        elif inside:
            if match[2] and item in (-1, indent):  # an item of the list itself, not of one within
                item, column = indent, key_column
            if key_column == column and match[3] == "name":
                names.append(value)
    return kind, [name for name in names if name]


def _scalar(text: str | None) -> str:
    """Return a plain or quoted YAML scalar without quotes and without a comment behind it."""
    match = re.match(r"""^(?:"([^"]*)"|'([^']*)'|([^#]*?))\s*(?:#.*)?$""", text or "")
    return next((group for group in match.groups() if group is not None), "") if match else ""


def runtime_mode(text: str) -> str | None:
    """Return the mode in the configuration of NVIDIA's container runtime (TOML); None when it is not set there."""
    section = re.search(r"^\s*\[nvidia-container-runtime\](.*?)(?:^\s*\[|\Z)", text, re.MULTILINE | re.DOTALL)
    mode = re.search(r"""^\s*mode\s*=\s*["']([^"']+)["']""", section[1], re.MULTILINE) if section else None
    return mode and mode[1]
