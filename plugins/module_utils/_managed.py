# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What role nvidia_driver keeps on a host: its files, and the journal that an interrupted run leaves.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

FILES = (
    "/etc/apt/sources.list.d/difyops-nvidia-driver.sources",
    "/etc/apt/keyrings/difyops-nvidia-driver.asc",
    "/etc/apt/preferences.d/difyops-nvidia-driver.pref",
    "/etc/apt/apt.conf.d/52difyops-nvidia-driver",
    "/etc/yum.repos.d/difyops-nvidia-driver.repo",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-difyops-nvidia-driver",
    "/etc/modprobe.d/difyops-nvidia-driver.conf",
)
STATE = "/var/lib/difyops/nvidia_driver"


def files(root: str) -> Facts:
    """Return digest and mode of each file that is there; the digest is None for one that cannot be read."""
    found: Facts = {}
    for path in FILES:
        place = os.path.join(root, path.lstrip("/"))
        with contextlib.suppress(OSError):
            mode = os.stat(place).st_mode & 0o7777
            content = None
            with contextlib.suppress(OSError), open(place, "rb") as file:
                content = file.read()
            found[path] = {"sha256": None if content is None else hashlib.sha256(content).hexdigest(), "mode": f"{mode:04o}"}
    return found


def journal(root: str) -> Facts | None:
    """Return the journal; None when there is none, and its ``error`` alone when it cannot be read."""
    return document(root, "journal.json")


def document(root: str, name: str) -> Facts | None:
    """Return a document of the role; None when there is none, and its ``error`` alone when it cannot be read."""
    path = f"{STATE}/{name}"
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8") as file:
            content: Any = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        return {"error": f"{path} cannot be read: {error}."}
    return content if isinstance(content, dict) else {"error": f"{path} is no JSON object."}
