# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds all repositories: python3 -m simrepo OUT KEY_HOME KERNEL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from simrepo import _apt_packages, _deb, _engine_packages, _rpm, _rpm_packages, _toolkit_packages
from simrepo._package import Package

UBUNTU_SUITES = {"jammy": "22.04", "noble": "24.04", "resolute": "26.04"}
DEBIAN_SUITES = ("bookworm", "trixie")
NVIDIA_APT = {
    "ubuntu2204": _apt_packages.nvidia_repository,
    "ubuntu2404": _apt_packages.nvidia_repository,
    "ubuntu2604": _apt_packages.nvidia_repository,
    "debian12": _apt_packages.debian_repository,
    "debian13": _apt_packages.debian_repository,
}


# Docker's repository: suites by distribution. Debian's programs do not run on Debian 12, so that there is nothing for it.
DOCKER_DEBIAN = {"trixie": "~debian.13~trixie"}
DOCKER_ENTERPRISE = ("9", "10")
# Folders of the toolkit's repository and of a mirror of it that lacks a package.
TOOLKIT = {"toolkit": None, "toolkit-incomplete": _toolkit_packages.MISSING}
# By operating system: folder of NVIDIA's repository, the end of package versions, whether it has module streams.
NVIDIA_DNF = {"el9": ("rhel9", "el9", True), "el10": ("rhel10", "el10", False), "amzn2023": ("amzn2023", "amzn2023", True)}


def gpg(home: Path) -> list[str]:
    """How to call gpg with the test key."""
    return ["gpg", "--homedir", str(home), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]


def make_key(home: Path, name: str) -> str:
    """A signing key of that name, made when there is none; returns its fingerprint."""
    listing = [*gpg(home), "--with-colons", "--list-keys", name]
    if subprocess.run(listing, check=False, capture_output=True).returncode:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        make = [*gpg(home), "--quick-gen-key", f"{name} (SIMULATED) <nobody@localhost>", "rsa3072", "sign", "never"]
        subprocess.run(make, check=True, capture_output=True)
    lines = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))


def keys(out: Path, home: Path) -> list[str]:
    """Writes the public keys and returns how to sign."""
    fingerprint = make_key(home, "simhost-repository")
    other = make_key(home, "simhost-wrong")
    for name, options in ((fingerprint, ["key.asc", "--armor"]), (fingerprint, ["key.gpg"]), (other, ["wrong-key.asc", "--armor"])):
        file, *armor = options
        exported = subprocess.run([*gpg(home), *armor, "--export", name], check=True, capture_output=True).stdout
        (out / file).write_bytes(exported)
    for name, text in (("fingerprint", fingerprint), ("wrong-fingerprint", other)):
        (out / name).write_text(f"{text}\n", encoding="ascii")
    return [*gpg(home), "--local-user", fingerprint]


def ubuntu_archive(suite: str, release: str, running: str, engine: _engine_packages.Genuine) -> list[Package]:
    """What Ubuntu has of drivers, engine and toolkit."""
    toolkit = _toolkit_packages.ubuntu_universe(release) if suite == "resolute" else []
    return [*_apt_packages.archive(suite, release, running), *_engine_packages.ubuntu_archive(engine, release), *toolkit]


def build_apt(out: Path, running: str, key: list[str], engine: _engine_packages.Genuine) -> None:
    ubuntu = {suite: ubuntu_archive(suite, release, running, engine) for suite, release in UBUNTU_SUITES.items()}
    _deb.suites(out / "ubuntu", "Ubuntu", "restricted", ubuntu, key)
    debian = {suite: _apt_packages.debian_archive(suite, running) for suite in DEBIAN_SUITES}
    _deb.suites(out / "debian", "Debian", "main", debian, key)
    for name, make in NVIDIA_APT.items():
        _deb.flat(out / "nvidia" / name / "x86_64", "NVIDIA", make(), key)
    for folder, missing in TOOLKIT.items():
        stubs = [package for group in _toolkit_packages.everything("deb", missing) for package in group]
        _deb.flat(out / folder / "deb", "NVIDIA", stubs, key, "NVIDIA container toolkit")
        # NVIDIA's own has a folder for each architecture.
        (out / folder / "deb/amd64").symlink_to(".")
    ends = {suite: f"~ubuntu.{release}~{suite}" for suite, release in UBUNTU_SUITES.items()}
    for distribution, suites in (("debian", DOCKER_DEBIAN), ("ubuntu", ends)):
        made = {suite: _engine_packages.docker_repository(engine, "deb", end) for suite, end in suites.items()}
        _deb.suites(out / "docker" / distribution, "Docker", "stable", made, key)


def signed_repository(target: Path, groups: list[list[Package]], streams: list[_rpm.Stream], home: Path, key: list[str]) -> None:
    """A repository for dnf, whose packages and index are signed."""
    _rpm.build(groups, target)
    _rpm.sign(target, home, key[-1])
    _rpm.repository(target, _rpm_packages.MODULE, streams, _rpm_packages.DEFAULT_STREAM, key)


def build_dnf(out: Path, running: str, key: list[str], home: Path, engine: _engine_packages.Genuine) -> None:
    for system, (folder, dist, has_streams) in NVIDIA_DNF.items():
        drivers = {version: _rpm_packages.driver(version, dist) for version in _rpm_packages.VERSIONS}
        streams = _rpm_packages.streams(drivers) if has_streams else []
        own = [_engine_packages.amazon_base(engine)] if system == "amzn2023" else []
        signed_repository(out / "nvidia" / folder / "x86_64", list(drivers.values()), streams, home, key)
        signed_repository(out / "enterprise" / system, [*_rpm_packages.base(running, dist), *own], [], home, key)
    for folder, missing in TOOLKIT.items():
        signed_repository(out / folder / "rpm/x86_64", _toolkit_packages.everything("rpm", missing), [], home, key)
    for release in DOCKER_ENTERPRISE:
        made = _engine_packages.docker_repository(engine, "rpm", f".el{release}")
        signed_repository(out / "docker/rhel" / release / "x86_64/stable", [made], [], home, key)


def main(out: Path, home: Path, running: str) -> None:
    key = keys(out, home)
    engine = _engine_packages.genuine()
    _engine_packages.store(out / "engine")
    build_apt(out, running, key, engine)
    build_dnf(out, running, key, home, engine)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python3 -m simrepo OUT KEY_HOME KERNEL")
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
