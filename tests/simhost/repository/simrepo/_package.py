# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stub package, in words that fit both package formats."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

# How the description of every package here begins; stubs that come with a host's profile begin otherwise (simgpu_stub.MARK).
MARK = "SIMULATED repository package:"
DETAIL = "A stub of tests/simhost with the name, version and relations of the real package. It drives no hardware."


@dataclass(frozen=True)
class Package:
    """Relations are as the format writes them (`name (= 1)` or `name = 1`); contents are (bytes, mode) by path."""

    name: str
    version: str
    what: str
    maker: str
    depends: list[str] = field(default_factory=list)
    recommends: list[str] = field(default_factory=list)
    provides: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    replaces: list[str] = field(default_factory=list)
    source: str = ""
    # What the real package takes on disk, since a full disk is judged by it; the stub takes less.
    installed_kib: int = 64
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    # Those of the files that an administrator may edit: an upgrade keeps what he wrote.
    config: list[str] = field(default_factory=list)
    # Shell commands: after the package is configured, before it goes, after it has gone.
    configured: str = ""
    removing: str = ""
    removed: str = ""

    def but(self, **changes: object) -> Package:
        """The same package with some fields otherwise."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
