# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles keep on a host: their files, and the journal that an interrupted run leaves.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

DRIVER, ENGINE, TOOLKIT = "nvidia_driver", "container_engine", "nvidia_container_toolkit"
# Of playbook upgrade_drivers: what is under way, and what failed last.
UPGRADE = "upgrade"
# Of a package source: the source itself, its key, and what keeps versions.
_SOURCE = (
    "/etc/apt/sources.list.d/difyops-{}.sources",
    "/etc/apt/keyrings/difyops-{}.asc",
    "/etc/apt/preferences.d/difyops-{}.pref",
    "/etc/yum.repos.d/difyops-{}.repo",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-difyops-{}",
)
_NAMES = {DRIVER: "nvidia-driver", ENGINE: "docker", TOOLKIT: "nvidia-container-toolkit"}
FILES = {role: [path.format(name) for path in _SOURCE] for role, name in _NAMES.items()}
FILES[DRIVER] += ["/etc/apt/apt.conf.d/52difyops-nvidia-driver", "/etc/modprobe.d/difyops-nvidia-driver.conf"]
# Anybody may make it by the same command, which writes the whole file: the role's own has the mark as its first line.
SPECIFICATION = "/etc/cdi/nvidia.yaml"
MARK = b"# Made by role nvidia_container_toolkit of collection difyops.gpu.\n"
# Locks of dnf tell nobody who made them. It is there from before the packages change until the role's own rules are gone.
RULES = "/var/lib/difyops/nvidia_container_toolkit/rules"
FILES[TOOLKIT] += [SPECIFICATION, RULES]


def files(root: str, role: str) -> Facts:
    """Return digest and mode of each file of a role that is there; the digest is None for one that cannot be read."""
    found: Facts = {}
    for path in FILES[role]:
        place = os.path.join(root, path.lstrip("/"))
        with contextlib.suppress(OSError):
            mode = os.stat(place).st_mode & 0o7777
            content = None
            with contextlib.suppress(OSError), open(place, "rb") as file:
                content = file.read()
            if path == SPECIFICATION and not (content or b"").startswith(MARK):
                continue
            found[path] = {"sha256": None if content is None else hashlib.sha256(content).hexdigest(), "mode": f"{mode:04o}"}
    return found


def document(root: str, role: str, name: str = "journal.json") -> Facts | None:
    """Return a document of a role; None when there is none, and its ``error`` alone when it cannot be read."""
    path = f"/var/lib/difyops/{role}/{name}"
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8") as file:
            content: Any = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        return {"error": f"{path} cannot be read: {error}."}
    return content if isinstance(content, dict) else {"error": f"{path} is no JSON object."}


def upgrade(root: str) -> Facts | None:
    """Return what upgrades of the driver left: ``journal`` of one under way, ``failed`` of one that failed; None without either."""
    found: Facts = {name: document(root, UPGRADE, f"{name}.json") for name in ("journal", "failed")}
    return found if any(found.values()) else None
