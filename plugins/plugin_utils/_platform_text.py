# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a plan about engine and toolkit as text for a terminal.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_text import (
    blocked_lines,
    change,
    entry,
    package_lines,
    pin_lines,
    repository_lines,
    restart_lines,
    some,
)

_SOURCES = {"distribution": "the distribution", "docker": "Docker's repository", "nvidia": "NVIDIA's repository"}
_ACTIVATION = {
    "start": "Docker is started",
    "reload": "Docker reads its configuration anew, and no container stops",
    "restart": "Docker is RESTARTED",
}
_INJECTIONS = {"cdi": "by CDI", "runtime": "by NVIDIA's runtime"}


def plan_lines(part: str, document: Mapping[str, Any]) -> list[str]:
    """Return the lines about the engine's or the toolkit's part of a plan."""
    lines = blocked_lines(document)
    if document.get("status") != "change":
        there = _document.text(document, "from") or "none"
        return lines + entry(part, f"{there} ({document.get('reason')})") + restart_lines(document)
    lines += entry(part, f"{change(document)} ({document.get('reason')})")
    packages = _document.mapping(document, "packages")
    source = _SOURCES.get(_document.text(document, "source") or "")
    if source is not None and (packages.get("install") or document.get("query") is not None):
        lines += entry("from", source)
    for about in (repository_lines, package_lines, pin_lines, _config_lines, _cdi_lines, _guard_lines, restart_lines, _end_lines):
        lines += about(document)
    return lines


def _config_lines(document: Mapping[str, Any]) -> list[str]:
    config = _document.mapping(document, "daemon_config")
    keys = _document.texts(config, "settings")
    texts = [f"{', '.join(keys)} {'is' if len(keys) == 1 else 'are'} set"] if keys else []
    gone = [".".join(str(key) for key in path) for path in config.get("absent") or [] if isinstance(path, (list, tuple))]
    texts += [f"{', '.join(gone)} goes"] if gone else []
    return entry("daemon.json", "; ".join(texts)) if texts else []


def keys_of(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the keys of settings for daemon.json, two levels deep, without their values."""
    found: list[str] = []
    for key, value in settings.items():
        inner = value if isinstance(value, Mapping) and not above else None
        found += keys_of(inner, f"{key}.") if inner else [f"{above}{key}"]
    return found


def _cdi_lines(document: Mapping[str, Any]) -> list[str]:
    cdi = _document.mapping(document, "cdi")
    way = _INJECTIONS.get(_document.text(document, "injection") or "")
    lines = entry("GPUs", f"{way}, as containers get them afterwards") if way else []
    if not cdi:
        return lines
    how = {"refresh": "by the packaged service", "generate": "by nvidia-ctk"}.get(_document.text(cdi, "how") or "")
    flags = _document.texts(cdi, "feature_flags")
    texts = [f"{cdi.get('output')} is made anew {how}{f', with {some(flags)}' if flags else ''}"] if how else []
    texts += ["the packaged units are enabled"] if cdi.get("enable") is True else []
    remove = _document.texts(cdi, "remove")
    texts += [f"removed: {some(remove)}"] if remove else []
    return lines + (entry("CDI", "; ".join(texts)) if texts else [])


def _guard_lines(document: Mapping[str, Any]) -> list[str]:
    stops = [str(entry_.get("name")) for entry_ in _document.mappings(document, "guard", "containers")]
    again = [str(entry_.get("name")) for entry_ in _document.mappings(document, "guard", "again")]
    lines = entry("stops", f"{some(stops)}, for a moment{f'; started again by the role: {some(again)}' if again else ''}") if stops else []
    needs: dict[str, list[str]] = {}
    for container in _document.mappings(document, "containers"):
        needs.setdefault(str(container.get("needs")), []).append(str(container.get("name")))
    for need, words in (("recreate", "to be recreated by you"), ("restart", "to be restarted by you")):
        lines += entry("afterwards", f"{some(needs[need])}: {words}") if need in needs else []
    return lines


def _end_lines(document: Mapping[str, Any]) -> list[str]:
    how = _ACTIVATION.get(_document.text(document, "activation") or "")
    return entry("then", how) if how is not None else []
