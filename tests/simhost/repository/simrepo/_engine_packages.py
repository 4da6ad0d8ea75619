# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker as others than Debian package it: Docker's own repository, Ubuntu's compose plugin, Amazon's package.

The programs are Debian's genuine ones. They lie once in the folder `engine` of the repositories, and the packages have links to them: so
every package of every system says the version that its programs say. Names, relations and places: Docker's public packaging
(docker-ce-packaging, containerd-packaging). Simulated are the packages.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from simrepo._package import Package

DOCKER, AMAZON, UBUNTU = "Docker", "Amazon Linux", "Ubuntu Developers"
# Where hosts have the repositories.
STORE = "/srv/simrepo/engine"
PLUGINS = "/usr/libexec/docker/cli-plugins"
UNITS = "/usr/lib/systemd/system"
PROGRAMS = {
    "dockerd": "/usr/sbin/dockerd",
    "docker-proxy": "/usr/sbin/docker-proxy",
    "docker-init": "/usr/bin/tini-static",
    "docker": "/usr/bin/docker",
    "docker-compose": f"{PLUGINS}/docker-compose",
    "docker-buildx": f"{PLUGINS}/docker-buildx",
    "containerd": "/usr/bin/containerd",
    "containerd-shim-runc-v2": "/usr/bin/containerd-shim-runc-v2",
    "ctr": "/usr/bin/ctr",
    "runc": "/usr/sbin/runc",
}
SERVICES = {"docker-ce": ("docker.service", "docker.socket"), "containerd.io": ("containerd.service",)}
CONTAINERD_CONFIG = b'# SIMULATED package of tests/simhost; as Docker packages it.\ndisabled_plugins = ["cri"]\n'


@dataclass(frozen=True)
class Genuine:
    """Debian's engine: upstream versions by the name of its packages, texts of units by their names."""

    versions: dict[str, str]
    units: dict[str, str]


def upstream(version: str) -> str:
    """26.1.5 of 26.1.5+dfsg1-9."""
    return (re.match(r"[0-9.]+", version.rpartition(":")[2]) or [version])[0]


def genuine() -> Genuine:
    """What is installed where this runs."""
    names = ("docker.io", "docker-compose", "docker-buildx", "containerd", "runc")
    command = ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\n", *names]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    versions = {name: upstream(version) for name, _tab, version in (row.partition("\t") for row in rows)}
    units = {unit: Path(UNITS, unit).read_text(encoding="utf-8") for pair in SERVICES.values() for unit in pair}
    return Genuine(versions, units)


def store(out: Path) -> None:
    """Puts the programs where the links of the packages lead."""
    out.mkdir(parents=True)
    for name, path in PROGRAMS.items():
        shutil.copy2(path, out / name)


def linked(*names: str) -> dict[str, str]:
    return {f"/usr/bin/{name}": f"{STORE}/{name}" for name in names}


def plugin(name: str) -> dict[str, str]:
    return {f"{PLUGINS}/{name}": f"{STORE}/{name}"}


def _units(found: Genuine, *names: str) -> dict[str, tuple[bytes, int]]:
    """Debian's units with the places of Docker's packages."""
    return {f"{UNITS}/{name}": (found.units[name].replace("/usr/sbin/dockerd", "/usr/bin/dockerd").encode(), 0o644) for name in names}


def _service_scripts(form: str, *units: str) -> dict[str, str]:
    """What packages do with their units: Debian's way enables and starts, the other leaves that to the administrator."""
    names = " ".join(units)
    group = "getent group docker > /dev/null || groupadd --system docker\n"
    if form == "deb":
        helper = f"if command -v deb-systemd-helper > /dev/null; then deb-systemd-helper unmask {names} > /dev/null; fi\n"
        start = f"systemctl --quiet enable {names}\nsystemctl start {units[0]} || :"
        return {
            "configured": f"{group}{helper}systemctl daemon-reload\n{start}",
            "removing": f'if [ "$1" = remove ]; then systemctl --quiet disable --now {names} || :; fi',
            "removed": "systemctl daemon-reload || :",
        }
    return {
        "configured": f"{group}systemctl daemon-reload",
        "removing": f"if [ $1 -eq 0 ]; then systemctl --quiet disable --now {names}; fi",
        "removed": "systemctl daemon-reload",
    }


def docker_repository(found: Genuine, form: str, end: str) -> list[Package]:
    """The packages of Docker's own repository; end: of versions, `~debian.13~trixie` or `.el9`."""

    def package(name: str, version: str, epoch: str, what: str, **fields: object) -> Package:
        release = f"{version}-1{end}"
        return Package(name, f"{epoch}:{release}" if epoch else release, f"{what} (Debian's programs)", DOCKER).but(**fields)

    of = found.versions
    engine, client = ("5", "5") if form == "deb" else ("3", "1")
    least = "containerd.io (>= 1.6.24)" if form == "deb" else "containerd.io >= 1.6.24"
    others = ["docker.io"] if form == "deb" else ["docker", "docker-io", "docker-engine-cs", "docker-ee"]
    runtimes = ["containerd", "runc"]
    compose = ["docker-compose"] if form == "deb" else []
    # Like the genuine one, the plugin for buildx keeps nobody out: where Debian's docker-buildx is, dpkg finds the file taken.
    return [
        package(
            "docker-ce",
            of["docker.io"],
            engine,
            "Docker engine",
            depends=[least, "docker-ce-cli", *(["iptables"] if form == "deb" else [])],
            conflicts=others,
            links=linked("dockerd", "docker-proxy", "docker-init"),
            files=_units(found, *SERVICES["docker-ce"]),
            installed_kib=102000,
            **_service_scripts(form, *SERVICES["docker-ce"]),
        ),
        package("docker-ce-cli", of["docker.io"], client, "Docker's client", conflicts=others, links=linked("docker"), installed_kib=42000),
        package(
            "containerd.io",
            of["containerd"],
            "",
            "containerd and runc",
            conflicts=runtimes,
            replaces=runtimes if form == "deb" else [],
            provides=runtimes,
            links=linked("containerd", "containerd-shim-runc-v2", "ctr", "runc"),
            files={**_units(found, *SERVICES["containerd.io"]), "/etc/containerd/config.toml": (CONTAINERD_CONFIG, 0o644)},
            config=["/etc/containerd/config.toml"],
            installed_kib=125000,
            **_service_scripts(form, *SERVICES["containerd.io"]),
        ),
        package("docker-buildx-plugin", of["docker-buildx"], "", "plugin buildx", links=plugin("docker-buildx"), installed_kib=64000),
        package(
            "docker-compose-plugin",
            of["docker-compose"],
            "",
            "plugin compose",
            conflicts=compose,
            replaces=compose,
            links=plugin("docker-compose"),
            installed_kib=63000,
        ),
    ]


def ubuntu_archive(found: Genuine, release: str) -> list[Package]:
    """Ubuntu's compose plugin. Its docker.io is Debian's here; Ubuntu's brings the client, so that here this package does."""
    version = f"{found.versions['docker-compose']}+ds1-0ubuntu1~{release}.1"
    made = Package(
        "docker-compose-v2", version, "Docker's plugin compose (Debian's program)", UBUNTU, depends=["docker-cli"], installed_kib=63000
    )
    return [made.but(conflicts=["docker-compose"], replaces=["docker-compose"], links=plugin("docker-compose"))]


def amazon_base(found: Genuine) -> list[Package]:
    """Amazon Linux 2023 has an engine of its own and no compose plugin. Its version in life is another one."""

    def package(name: str, version: str, what: str, **fields: object) -> Package:
        return Package(name, f"{version}-1.amzn2023.0.1", f"{what} (Debian's programs)", AMAZON).but(**fields)

    of = found.versions
    return [
        package(
            "docker",
            of["docker.io"],
            "Docker engine and client",
            depends=["containerd >= 1.3.2", "runc >= 1.0.0"],
            links=linked("dockerd", "docker-proxy", "docker-init", "docker"),
            files=_units(found, *SERVICES["docker-ce"]),
            **_service_scripts("rpm", *SERVICES["docker-ce"]),
        ),
        package(
            "containerd",
            of["containerd"],
            "containerd",
            depends=["runc"],
            links=linked("containerd", "containerd-shim-runc-v2", "ctr"),
            files=_units(found, *SERVICES["containerd.io"]),
            **_service_scripts("rpm", *SERVICES["containerd.io"]),
        ),
        package("runc", of["runc"], "runc", links=linked("runc")),
    ]
