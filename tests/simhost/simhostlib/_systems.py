# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operating systems that a host can be, or look like: the image it is made from, and the files that make it look so."""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_SYSTEM = "debian13"


@dataclass(frozen=True)
class System:
    """image: a kind in _images; manager: deb or rpm; repository: the distribution's own part of the stub repositories."""

    name: str
    image: str = "host"
    manager: str = "deb"
    engine: bool = True
    # For apt: folder, suite, component. For dnf: folder.
    repository: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()


def _os_release(**values: str) -> str:
    return "".join(f'{key}="{value}"\n' for key, value in values.items())


def _ubuntu(version: str, codename: str) -> System:
    """Debian 13 that says it is Ubuntu; apt is Debian's."""
    text = _os_release(
        PRETTY_NAME=f"Ubuntu {version} LTS",
        NAME="Ubuntu",
        VERSION_ID=version,
        VERSION=f"{version} LTS",
        VERSION_CODENAME=codename,
        ID="ubuntu",
        ID_LIKE="debian",
        UBUNTU_CODENAME=codename,
    )
    return System(f"ubuntu{version}", repository=("ubuntu", codename, "restricted"), files={"usr/lib/os-release": text})


def _enterprise(name: str, release: str, releasever: str, os_release: str, release_files: tuple[str, ...]) -> System:
    """Debian 13 with dnf and rpm that says it is a distribution with rpm."""
    files = {"usr/lib/os-release": os_release, "etc/dnf/vars/releasever": f"{releasever}\n"}
    files.update({f"etc/{file}": f"{release}\n" for file in release_files})
    # dnf's plugin keeps copies of packages, and fails where its folder is missing.
    files["etc/dnf/plugins/local.conf"] = "[main]\nenabled = false\n"
    return System(name, image="host-rpm", manager="rpm", repository=(name,), files=files, prepare=("rm -f /etc/debian_version",))


def _rocky(version: str, codename: str) -> System:
    major = version.partition(".")[0]
    text = _os_release(
        NAME="Rocky Linux",
        VERSION=f"{version} ({codename})",
        ID="rocky",
        ID_LIKE="rhel centos fedora",
        VERSION_ID=version,
        PLATFORM_ID=f"platform:el{major}",
        PRETTY_NAME=f"Rocky Linux {version} ({codename})",
    )
    return _enterprise(f"el{major}", f"Rocky Linux release {version} ({codename})", major, text, ("redhat-release", "rocky-release"))


def _amazon() -> System:
    text = _os_release(
        NAME="Amazon Linux",
        VERSION="2023",
        ID="amzn",
        ID_LIKE="fedora",
        VERSION_ID="2023",
        PLATFORM_ID="platform:al2023",
        PRETTY_NAME="Amazon Linux 2023.9.20260105",
    )
    release = "2023.9.20260105"
    return _enterprise(
        "amzn2023", f"Amazon Linux release {release} (Amazon Linux)", release, text, ("system-release", "amazon-linux-release")
    )


SYSTEMS = {
    system.name: system
    for system in (
        System("debian13", repository=("debian", "trixie", "main")),
        System("debian12", image="host-bookworm", engine=False, repository=("debian", "bookworm", "main")),
        _ubuntu("22.04", "jammy"),
        _ubuntu("24.04", "noble"),
        _ubuntu("26.04", "resolute"),
        _rocky("9.6", "Blue Onyx"),
        _rocky("10.0", "Red Quartz"),
        _amazon(),
    )
}
