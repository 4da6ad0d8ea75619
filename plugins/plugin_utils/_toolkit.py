# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA Container Toolkit, Docker and Docker Compose: the versions that matter here.

Sources: tags of NVIDIA/nvidia-container-toolkit (August 2026; 1.20.1 seen installed elsewhere, its notes not read). CVE numbers with the
versions that NVIDIA names (CVE-2026-24260: bulletin a_id 5850, through a third party); what a CVE without a CVSS score does is from memory,
and whether CDI mode has it is published only where `cdi` is set. Docker's release notes for CDI; the CDI project's list of first engines
for schema 0.7.0.

To update: add a new release to VERSIONS, and with a security bulletin its entry to CVES; FIRST_SAFE follows from them.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _versions

# Releases since 1.17.5, oldest first. A version that is not here is no error: the figures below are compared as numbers.
VERSIONS: tuple[str, ...] = (
    "1.17.5",
    "1.17.6",
    "1.17.7",
    "1.17.8",
    "1.17.9",
    "1.18.0",
    "1.18.1",
    "1.18.2",
    "1.19.0",
    "1.19.1",
    "1.20.0",
    "1.20.1",
)


class Cve(NamedTuple):
    """One published weakness: every version below `fixed` has it. `cdi` says whether CDI mode is affected; None is not published."""

    ids: tuple[str, ...]
    fixed: str
    cdi: bool | None
    what: str


CVES: tuple[Cve, ...] = (
    Cve(("CVE-2024-0132",), "1.16.2", False, "container escape (CVSS 9.0)"),
    Cve(("CVE-2024-0133",), "1.16.2", None, "an image can create empty files on the host"),
    Cve(("CVE-2024-0134",), "1.17.0", None, "an image can create files on the host"),
    Cve(("CVE-2024-0135", "CVE-2024-0136", "CVE-2024-0137"), "1.17.3", None, "improper isolation of the container"),
    Cve(("CVE-2025-23359",), "1.17.4", None, "container escape, the first fix of CVE-2024-0132 being incomplete (CVSS 8.3)"),
    Cve(("CVE-2025-23266",), "1.17.8", True, "container escape through a hook, NVIDIAScape (CVSS 9.0); before 1.17.5 in CDI mode only"),
    Cve(("CVE-2025-23267",), "1.17.8", None, "link following in the hook that updates the library cache (CVSS 8.5)"),
    Cve(("CVE-2026-24260",), "1.19.1", None, "container escape (CVSS 8.5)"),
)

# Below it a toolkit is never installed unless asked for, and one that is there is warned of.
FIRST_SAFE = CVES[-1].fixed
FIRST_SAFE_CVE = CVES[-1].ids[0]

# The nvidia runtime in mode auto makes its CDI specification just in time from this release on; before, it took the legacy way.
JIT_CDI_SINCE = "1.18.0"

# Docker: CDI can be switched on (features.cdi), reads the newest schema, is on unless switched off, is what --gpus uses.
CDI_FLOOR = "25.0.0"
CDI_SCHEMA_070_FLOOR = "26.1.0"
CDI_DEFAULT_SINCE = "28.2.0"
GPUS_BY_CDI_SINCE = "29.2.0"

# First release of Docker Compose that is deployed with: 2.20 understands all that our own project file says (a device request with driver
# cdi among it), and that of Dify since 1.16 has an env_file that may be missing, which 2.24 is the first to know. 2.26.1 was seen working.
COMPOSE_FLOOR = "2.24.0"

CDI_KIND = "nvidia.com/gpu"


def is_unsafe(version: object) -> bool | None:
    """Whether this toolkit version has a known container escape; None when the version is not known."""
    if _versions.parse(version) is None:
        return None
    return not _versions.at_least(version, FIRST_SAFE)


def cves(version: object) -> tuple[Cve, ...]:
    """Return the published weaknesses of this toolkit version, the newest first; empty when it has none, and when it is not known."""
    if _versions.parse(version) is None:
        return ()
    return tuple(cve for cve in reversed(CVES) if not _versions.at_least(version, cve.fixed))


def cdi_floor(docker: object) -> str | None:
    """Return what stands between this Docker version and giving out GPUs by CDI, as part of a sentence; None when nothing has to be done.

    An unknown version is nothing that could be said about.
    """
    if _versions.parse(docker) is None:
        return None
    if not _versions.at_least(docker, CDI_FLOOR):
        return f"Docker {docker} has no CDI; Docker {CDI_FLOOR} is the first that has"
    if not _versions.at_least(docker, CDI_SCHEMA_070_FLOOR):
        return (
            f"Docker {docker} has CDI once features.cdi is set, and reads no specification of schema 0.7.0; "
            f"Docker {CDI_SCHEMA_070_FLOOR} is the first that does"
        )
    if not _versions.at_least(docker, CDI_DEFAULT_SINCE):
        return f"Docker {docker} has CDI once features.cdi is set; from {CDI_DEFAULT_SINCE} on it is set unless switched off"
    return None
