# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia_packages_info answered, and what of it is in the way of any packages, whatever they bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import Place

# How many names or versions a sentence has.
_NAMED = 5
# What /boot should have for a new initramfs beside the old one.
_BOOT_MIB = 64


class Answer:
    """What nvidia_packages_info answered, read so that no answer can be a surprise."""

    def __init__(self, packages: Mapping[str, Any]) -> None:
        self.raw = packages
        choice = packages.get("choice")
        self.choice = choice if isinstance(choice, int) and not isinstance(choice, bool) and choice >= 0 else None
        self.version = _document.text(packages, "version")
        self.error = _document.text(packages, "error")
        self.lists_at = _document.text(packages, "lists_at")
        self.sources = _document.mappings(packages, "sources")
        self.install = _named(packages, "install")
        self.remove = _named(packages, "remove")

    def available(self) -> dict[int, list[str]]:
        """Return the driver versions that can be had, by branch, the newest branch first."""
        found = _document.mapping(self.raw, "available")
        known = {int(name): _document.texts(found, name) for name in found if isinstance(name, str) and name.isdecimal() and len(name) < 9}
        return {branch: known[branch] for branch in sorted(known, reverse=True) if known[branch]}

    def versions(self, name: str) -> list[str]:
        """Return the upstream versions in which a package can be had, newest first."""
        return _document.texts(self.raw, "available", name)

    def also(self, purpose: str) -> str | None:
        """Return the package that was found for a purpose, None where none can be had."""
        return _document.text(self.raw, "also", purpose)

    def mib(self, *path: str) -> int | None:
        """Return a size in MiB, None where it is not known."""
        value = _document.at(self.raw, *path)
        return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**40 else None


def _named(packages: Mapping[str, Any], key: str) -> list[dict[str, str | None]]:
    """Return the packages of a list, each with name, from and to."""
    entries = _document.mappings(packages, key)
    texts = [{part: _document.text(entry, part) for part in ("name", "from", "to")} for entry in entries]
    return [entry for entry in texts if entry["name"]]


def few(names: Sequence[str]) -> str:
    """Return names for a sentence, of many the first and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def hindrances(place: Place, what: str, answer: Answer, finishes: bool, is_ours: Callable[[str], bool]) -> list[Block]:
    """Return what keeps the package manager from working at all: its lock, and packages of others that are half installed.

    Args:
        place: whose work it is.
        what: "the driver", for sentences.
        answer: what the host answered.
        finishes: whether an earlier run of the role may have left packages half installed, which it then finishes.
        is_ours: whether a package is one that the role brings.
    """
    found = []
    lock = _document.mapping(answer.raw, "locked_by")
    if _document.at(answer.raw, "locked_by") is not None:
        who = f"process {lock.get('pid') or '?'} ({_document.text(lock, 'name') or 'name not known'})"
        remedy = f"wait until it has ended, then run again; a run waits for {place.role}_lock_timeout seconds"
        found.append(Block(place.part, _plan_codes.PACKAGES_LOCKED, f"the package manager is locked by {who}", remedy))
    brought = _document.texts(answer.raw, "brought")
    entries = [] if finishes else _document.mappings(answer.raw, "broken")
    names = [(_document.text(entry, "name") or "", _document.text(entry, "state") or "broken") for entry in entries]
    broken = [(name, state) for name, state in names if name != "dpkg" and not is_ours(name) and name not in brought]
    if broken:
        listed = few([f"{name or 'a package'} ({state})" for name, state in broken])
        message = f"packages that are not {what}'s are half installed, and nothing can be installed beside them: {listed}"
        remedy = "finish them first: dpkg --configure -a and apt-get --fix-broken install, or dnf check, say why they are not"
        found.append(Block(place.part, _plan_codes.PACKAGES_BROKEN, message, remedy))
    return found


def is_interrupted(answer: Answer) -> bool:
    """Whether the package manager was killed in its work, so that it has to be told to tidy up first."""
    return any(_document.text(entry, "name") == "dpkg" for entry in _document.mappings(answer.raw, "broken"))


def no_lists(place: Place, answer: Answer) -> Block | None:
    """Return that nobody could tell what there is, since the host has no package lists; None where it has some."""
    if answer.lists_at is not None:
        return None
    why = f": {answer.error}" if answer.error else ""
    remedy = "look at the sources of packages on the host, and whether it reaches them; apt-get update and dnf makecache say more"
    return Block(place.part, _plan_codes.REPOSITORY_UNREACHABLE, f"there are no package lists on the host{why}", remedy)


def space(place: Place, answer: Answer, initramfs: bool = False) -> list[Block]:
    """Return which file system is too small for the packages."""
    needed, download = answer.mib("needed_mib") or 0, answer.mib("download_mib") or 0
    free = {path: answer.mib("free_mib", path) for path in ("/usr", "/var", "/boot")}
    # Two names with exactly the same space are one file system.
    wants = {
        "/usr": needed + (download if free["/usr"] == free["/var"] else 0),
        "/var": download,
        "/boot": _BOOT_MIB if needed and initramfs else 0,
    }
    known = [(path, there) for path, there in free.items() if there is not None]
    short = [f"{path} has {there} MiB free and {wants[path]} are needed" for path, there in known if there < wants[path]]
    if not short:
        return []
    message = f"there is not enough disk space for the packages: {'; '.join(short)}"
    remedy = "free some, then run again; apt-get clean or dnf clean packages may be enough"
    return [Block(place.part, _plan_codes.NO_DISK_SPACE, message, remedy)]
