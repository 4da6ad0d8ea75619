# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the NVIDIA Container Toolkit comes from: NVIDIA's repository or a mirror of it, and what keeps its packages as they are.

Repository and key are those of NVIDIA's installation guide of the toolkit; so are the four packages, which are to have one version.
"""

from __future__ import annotations

from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_source, _package_sources
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, TOOLKIT, Rendered, Repository
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_settings import Settings

PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
# From 1000 on apt goes back to an older version, which is what a pin is for. Not more: Ansible's apt module asks for a version with 1001,
# and on the way back to an older one it has to win over the pin of the version that is there.
PRIORITY = 1000

_BASE = "https://nvidia.github.io/libnvidia-container"
_KEY = f"{_BASE}/gpgkey"
_FINGERPRINT = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
_DEB = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_RPM = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def is_own(name: str) -> bool:
    """Whether a package belongs to the toolkit; its debugging and development packages go with the library."""
    return name in PACKAGES or name.startswith("libnvidia-container")


def target(host: Host) -> _driver_source.Target | None:
    """Return the operating system of a host, None where no toolkit is brought to it."""
    return _driver_source.target(host)


def repository(host: Host, settings: Settings) -> Repository | None:
    """Return the repository that has the toolkit for a host; None where there is none."""
    here, given = target(host), settings.repository
    if here is None:
        return None
    machine = str(host.facts["host"]["architecture"])
    base = f"{_BASE}/stable/deb/{_DEB[machine]}/" if here.manager == APT else f"{_BASE}/stable/rpm/{_RPM[machine]}/"
    url = given.url or base
    url = url if url.endswith("/") else f"{url}/"
    flat = not given.suite or given.suite.endswith("/")
    # A file on the controller is trusted as it is: whoever runs the play put it there.
    known = None if given.key and "://" not in given.key else _FINGERPRINT
    components = "" if flat else given.components or "main"
    return Repository(url, given.suite or "/", components, given.key or _KEY, given.fingerprint or known)


def preferences(version: str, priority: int = PRIORITY) -> Rendered:
    """Return apt's preferences that keep the four packages at a version, whatever revision its package has."""
    names = "\n".join(f" {name}" for name in PACKAGES)
    return _package_sources.rendered(f"# {TOOLKIT.head}\nPackage:\n{names}\nPin: version {version}-*\nPin-Priority: {priority}\n")
