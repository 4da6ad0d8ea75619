# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile of a simulated host: `key=value` lines, shared by the boot unit and the stub packages."""

from __future__ import annotations

import os

PROFILE = "/etc/simgpu/profile"
LIBRARY_DIR = "/usr/lib/x86_64-linux-gnu"
STAMP = b"@@SIMGPU-LIBRARY-VERSION@@............"
STAMP_SIZE = 40


def read(path: str = PROFILE) -> dict[str, str]:
    """The profile's keys and values, all strings."""
    pairs = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            key, equals, value = line.rstrip("\n").partition("=")
            if equals and not key.startswith("#"):
                pairs[key] = value
    return pairs


def gpus(profile: dict[str, str]) -> list[dict[str, str]]:
    """The GPUs of a profile, in the order of their index."""
    found: dict[int, dict[str, str]] = {}
    for key, value in profile.items():
        parts = key.split(".", 2)
        if parts[0] == "gpu" and len(parts) == 3:
            found.setdefault(int(parts[1]), {"minor": parts[1]})[parts[2]] = value
    return [found[index] for index in sorted(found)]


def stamped(library: bytes, version: str) -> bytes:
    """The library with its version written in, as a genuine one carries it."""
    place = library.index(STAMP)
    return library[:place] + version.encode().ljust(STAMP_SIZE, b"\0") + library[place + STAMP_SIZE :]


def installed_version() -> str | None:
    """The version of the driver libraries that are installed, by the name of the file; None without any."""
    path = os.path.realpath(os.path.join(LIBRARY_DIR, "libnvidia-ml.so.1"))
    return path.partition(".so.")[2] if os.path.isfile(path) else None
