# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA Container Toolkit and Docker Compose: the versions that matter here.

Source: CVE-2026-24260 (NVIDIA security bulletin a_id 5850; every toolkit before 1.19.1 is affected, earlier container escapes were fixed
in 1.16.2, 1.17.4 and 1.17.8). To update: raise FIRST_SAFE with the next security bulletin.
"""

from __future__ import annotations

from ansible_collections.difyops.gpu.plugins.plugin_utils import _versions

FIRST_SAFE = "1.19.1"
FIRST_SAFE_CVE = "CVE-2026-24260"

# First release of Docker Compose that understands all that our project file says (a device request with driver cdi among it); the oldest
# seen working is 2.26.1.
COMPOSE_FLOOR = "2.20.0"

CDI_KIND = "nvidia.com/gpu"


def is_unsafe(version: object) -> bool | None:
    """Whether this toolkit version has a known container escape; None when the version is not known."""
    if _versions.parse(version) is None:
        return None
    return not _versions.at_least(version, FIRST_SAFE)
