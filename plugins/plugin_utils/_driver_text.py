# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver's part of a plan as text for a terminal, with what the parts about engine and toolkit have in common with it.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _text, _versions

_ACTIVATION = {
    "load": "the driver is loaded, without a reboot",
    "reload": "the modules are reloaded, without a reboot",
    "reboot": "the host is REBOOTED",
    "later": "a reboot is left to you",
}
_PHRASES = {"distribution": "the distribution", "nvidia": "NVIDIA's repository"}
# How many packages, users and paths a line names.
_NAMED = 4
_INDENT = " " * 14


# -- the plan --------------------------------------------------------------------------------------------------------


def plan_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about the driver's part of a plan."""
    status = str(document.get("status"))
    lines = blocked_lines(document)
    if status != "change":
        there = _document.text(document, "from") or "none"
        return lines + entry("driver", f"{there} ({document.get('reason')})") + restart_lines(document)
    lines += entry("driver", f"{change(document)} ({document.get('reason')})")
    for part in (_source_lines, repository_lines, package_lines, pin_lines, _file_lines, _guard_lines, _end_lines):
        lines += part(document)
    return lines


def blocked_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about what is in the way of a part of a plan."""
    lines = []
    for finding in _document.mappings(document, "blocked"):
        lines += entry("blocked", f"{finding.get('code')} {finding.get('message')}")
        lines += entry("", f"-> {finding.get('remedy')}") if finding.get("remedy") else []
    return lines


def entry(label: str, text: str) -> list[str]:
    """Return an entry of a plan, in lines of a bearable width."""
    return _text.wrap(text, _INDENT, f"  {label:<12}")


def change(document: Mapping[str, Any]) -> str:
    """Return what becomes of a part, in words."""
    before, after = _document.text(document, "from"), _document.text(document, "expects") or _document.text(document, "to")
    action = _document.text(document, "action") or "change"
    old, new = _versions.parse(before), _versions.parse(after)
    if action == "upgrade" and old is not None and new is not None and new < old:
        action = "downgrade"
    if action == "remove":
        return f"remove {before or 'what is left of one'}"
    if action == "configure":
        return f"configure {after or before or 'nothing'}"
    return f"{action} {f'{before} -> ' if before and before != after else ''}{after}"


def _source_lines(document: Mapping[str, Any]) -> list[str]:
    target = _document.mapping(document, "target")
    source = _PHRASES.get(_document.text(target, "source") or "")
    if source is None or document.get("action") == "configure":
        return []
    built = {"prebuilt": "prebuilt", "dkms": "built on the host"}.get(_document.text(target, "kernel_modules") or "")
    kinds = [text for text in (_document.text(target, "flavour"), built) if text]
    return entry(
        "from", f"{source}{f'; {chr(32).join(kinds[:1])} kernel modules' if kinds else ''}{f', {kinds[1]}' if len(kinds) > 1 else ''}"
    )


def repository_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about a repository that is added."""
    repository = _document.mapping(document, "repository")
    if repository.get("change") is not True:
        return []
    paths = [str(path) for path in _document.mapping(repository, "files")]
    key = _document.mapping(repository, "key")
    fingerprint = _document.text(key, "fingerprint")
    signed = f", with the key {fingerprint or 'of the file'} from {key.get('source')}" if key else ""
    return entry("repository", f"{some(paths)} is written{signed}")


def package_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about packages."""
    packages = _document.mapping(document, "packages")
    come, go = _document.mappings(packages, "install"), _document.mappings(packages, "remove")
    lines = entry("repair", "packages that are half installed are finished first") if document.get("repair") is True else []
    first = _document.texts(packages, "first")
    lines += entry("first", f"{some(first)}, in a step of its own") if first else []
    if come:
        size = packages.get("download_mib")
        load = f"; {size} MiB to load" if isinstance(size, int) and size else ""
        lines += entry("packages", f"{count(come)} come or change{load}: {some([_package(package) for package in _driver_first(come)])}")
    if go:
        lines += entry("removed", f"{count(go)}: {', '.join(str(package.get('name')) for package in go)}")
    stream = _document.mapping(packages, "stream")
    if stream:
        wanted = _document.text(stream, "stream")
        lines += entry("stream", f"{stream.get('name')}:{wanted}" if wanted else f"{stream.get('name')} is reset")
    return lines


def _driver_first(packages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return packages with those that change first, then the driver's: what is worth reading of a long list."""

    def weight(package: Mapping[str, Any]) -> tuple[bool, bool, bool]:
        name = str(package.get("name"))
        return package.get("from") is None, not name.startswith(("nvidia-", "kmod-nvidia")), "nvidia" not in name

    return sorted(packages, key=weight)


def _package(package: Mapping[str, Any]) -> str:
    before, after = _document.text(package, "from"), _document.text(package, "to")
    return f"{package.get('name')} {f'{before} -> ' if before else ''}{after or ''}".rstrip()


def count(packages: Sequence[object]) -> str:
    """Return a number of packages in words."""
    return "1 package" if len(packages) == 1 else f"{len(packages)} packages"


def some(names: Sequence[str]) -> str:
    """Return names for a line, of many the first and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def pin_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about what keeps packages as they are."""
    pins = _document.mapping(document, "pins")
    files = _document.mapping(pins, "files")
    kept = [
        words for flag, words in (("holds", "every package is held"), ("versionlocks", "every package is locked")) if pins.get(flag) is True
    ]
    for flag, words in (("holds", "held"), ("versionlocks", "locked")):
        names = _document.texts(pins, flag)
        kept += [f"{words}: {some(names)}"] if names else []
    written = [str(path) for path, file in files.items() if file is not None]
    gone = [str(path) for path, file in files.items() if file is None]
    texts = [*kept, *([some(written)] if written else []), *([f"{some(gone)} goes"] if gone else [])]
    free = [*_document.texts(pins, "release", "holds"), *_document.texts(pins, "release", "versionlocks")]
    texts += [f"{count(free)} released first"] if free and (document.get("action") == "remove" or not kept) else []
    return entry("pins", "; ".join(texts)) if texts else []


def _file_lines(document: Mapping[str, Any]) -> list[str]:
    files = _document.mapping(document, "files")
    lines = []
    written = [str(path) for path, file in files.items() if file is not None]
    gone = [str(path) for path, file in files.items() if file is None]
    texts = [*([some(written)] if written else []), *([f"{some(gone)} goes" if len(gone) == 1 else f"{some(gone)} go"] if gone else [])]
    texts += ["the initramfs is made anew"] if document.get("initramfs") is True else []
    lines += entry("files", "; ".join(texts)) if texts else []
    services = [str(service.get("name")) for service in _document.mappings(document, "services")]
    return lines + (entry("services", f"{some(services)}, started at boot") if services else [])


def _guard_lines(document: Mapping[str, Any]) -> list[str]:
    guard = _document.mapping(document, "guard")
    users = [f"{user.get('kind')} {user.get('name')} ({user.get('what')})" for user in _document.mappings(guard, "users")]
    stops = [str(container.get("name")) for container in _document.mappings(guard, "stop")]
    lines = entry("in use", f"by {some(users)}") if users else []
    lines += entry("stops", f"{some(stops)}, started again afterwards") if stops else []
    if users and guard.get("policy") == "wait":
        lines += entry("waits", "until the GPUs are free")
    return lines + restart_lines(document)


def restart_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about containers of an interrupted run."""
    again = [str(container.get("name")) for container in _document.mappings(document, "restart")]
    return entry("starts", f"{some(again)}, which an interrupted run stopped") if again else []


def _end_lines(document: Mapping[str, Any]) -> list[str]:
    how = _ACTIVATION.get(_document.text(document, "activation") or "")
    if how is None:
        return []
    if document.get("action") == "remove" and document.get("activation") == "reload":
        how = "the modules are unloaded, without a reboot"
    reasons = "; ".join(_document.texts(document, "reboot", "reasons"))
    fallback = "; where that fails, the host is REBOOTED" if document.get("fallback") == "reboot" else ""
    return entry("then", f"{how}{fallback}{f': {reasons}' if reasons else ''}")
