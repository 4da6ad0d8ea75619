# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages of the NVIDIA driver and of its container toolkit are installed, from dpkg or rpm.

This is private to difyops.gpu.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _command
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
_TIMEOUT_S = 30.0
_PATTERNS = ("*nvidia*", "libcuda1", "cuda-drivers*")
_UPSTREAM = re.compile(r"^(?:[0-9]+:)?([0-9]+(?:\.[0-9]+)+)")
_DRIVER_VERSION = re.compile(r"^[0-9]{3}\.[0-9]{1,3}(\.[0-9]{1,3})?$")

# Which packages tell the driver's version, the surest first. A metapackage may be a leftover that only depends on
# another branch (on Ubuntu most are), so it comes last.
_KERNEL = re.compile(
    r"^(nvidia-(\w+-)*kernel-(\w+-)*(dkms|source)|nvidia-dkms(-.+)?|dkms-nvidia(-.+)?|a?kmod-nvidia(-.+)?"
    r"|nvidia-kernel-source(-.+)?|linux-modules-nvidia-.+)$"
)
_LIBRARY = re.compile(r"^(libcuda1|libnvidia-compute-.+|(lib)?nvidia-[\w-]*cuda1|nvidia-driver-cuda-libs|xorg-x11-drv-nvidia-cuda-libs)$")
_META = re.compile(
    r"^(nvidia-driver(-[0-9]+(-server)?(-open)?)?|nvidia-tesla(-[0-9]+)?-driver|nvidia-legacy-[0-9]+xx-driver"
    r"|nvidia-open(-[0-9]+)?|cuda-drivers(-[0-9]+)?|nvidia-headless-.+|xorg-x11-drv-nvidia)$"
)
# Where a package comes from, by the text of its maintainer or vendor.
_ORIGINS = (
    ("rpm fusion", "rpmfusion"),
    ("debian", "debian"),
    ("ubuntu", "ubuntu"),
    ("nvidia", "nvidia"),
    ("negativo17", "negativo17"),
)


class Package(NamedTuple):
    """An installed package. ``broken`` says that its installation was not finished."""

    name: str
    version: str
    maker: str
    broken: bool


class PackagesUnknown(Exception):  # noqa: N818
    """The package manager could not be asked. Its text is a sentence."""


def installed(root: str, family: str | None, search: Sequence[str] = ()) -> list[Package]:
    """Return the installed packages that may concern the driver or the toolkit. Raises PackagesUnknown."""
    managers = (_rpm, _dpkg) if family == "rhel" else (_dpkg, _rpm)
    for manager in managers:
        packages = manager(root, search)
        if packages is not None:
            return packages
    raise PackagesUnknown("Neither dpkg-query nor rpm is on this host, so nobody knows which packages are installed.")


def _dpkg(root: str, search: Sequence[str]) -> list[Package] | None:
    program = _command.find("dpkg-query", search)
    database = os.path.join(root, "var/lib/dpkg")
    if program is None or not os.path.exists(os.path.join(database, "status")):
        return None
    form = r"${db:Status-Status}\t${Package}\t${Version}\t${Maintainer}\n"
    result = _ask(program, f"--admindir={database}", "--show", f"--showformat={form}", *_PATTERNS)
    # 1 says that a pattern matched nothing, which is an answer.
    if result.rc not in (0, 1):
        raise PackagesUnknown(f"dpkg-query failed: {' '.join(result.err.split())[:200]}")
    return parse_dpkg(result.out)


def _rpm(root: str, search: Sequence[str]) -> list[Package] | None:
    program = _command.find("rpm", search)
    if program is None:
        return None
    form = r"%{NAME}\t%{VERSION}-%{RELEASE}\t%{VENDOR}\n"
    result = _ask(program, "--root", os.path.abspath(root), "--query", "--all", f"--queryformat={form}", *_PATTERNS)
    if result.rc != 0:
        raise PackagesUnknown(f"rpm failed: {' '.join(result.err.split())[:200]}")
    return parse_rpm(result.out)


def _ask(*argv: str) -> _command.Result:
    try:
        result = _command.run(argv, _TIMEOUT_S)
    except _command.CannotStart as error:
        raise PackagesUnknown(str(error)) from error
    if result.timed_out:
        raise PackagesUnknown(f"{os.path.basename(argv[0])} did not answer within {_TIMEOUT_S:g} seconds.")
    return result


def parse_dpkg(text: str) -> list[Package]:
    """Return the packages of an answer in the form asked for; those of which only configuration is left do not count."""
    packages = set()
    for line in text.splitlines():
        state, name, version, maker = [*line.split("\t"), "", "", ""][:4]
        if name and version and state not in ("not-installed", "config-files"):
            packages.add(Package(name, version, maker, broken=state not in ("installed", "triggers-pending")))
    return sorted(packages)


def parse_rpm(text: str) -> list[Package]:
    """Return the packages of an answer in the form asked for. rpm writes (none) for a vendor that is not known."""
    packages = set()
    for line in text.splitlines():
        name, version, maker = [*line.split("\t"), "", ""][:3]
        if name and version:
            packages.add(Package(name, version, maker, broken=False))
    return sorted(packages)


def upstream(version: str) -> str | None:
    """Return the upstream part of a package version: 535.261.03 of 535.261.03-1~deb12u1, without the epoch."""
    match = _UPSTREAM.match(version)
    return match[1] if match else None


def driver(packages: Iterable[Package]) -> Facts | None:
    """Return the installed driver; None when no package carries one. A library alone is no driver."""
    ranks: dict[str, list[Package]] = {"kernel": [], "library": [], "meta": []}
    for package in packages:
        for rank, pattern in (("kernel", _KERNEL), ("library", _LIBRARY), ("meta", _META)):
            if pattern.match(package.name):
                ranks[rank].append(package)
                break
    if not ranks["kernel"] and not ranks["meta"]:
        return None
    known = [*ranks["kernel"], *ranks["library"], *ranks["meta"]]
    version = next((found for found in map(_driver_version, known) if found), None)
    carriers = ranks["kernel"] or ranks["meta"]
    return {
        "version": version,
        "flavour": "open" if any("open" in package.name.split("-") for package in carriers) else "proprietary",
        "origin": next((origin for package in known for key, origin in _ORIGINS if key in package.maker.lower()), None),
        "packages": [{"name": package.name, "version": package.version} for package in sorted(known)],
        "pinned": None,
    }


def _driver_version(package: Package) -> str | None:
    """Return the driver's version; None where the version is another thing's, such as the kernel's."""
    version = upstream(package.version)
    return version if version and _DRIVER_VERSION.match(version) else None


def toolkit(packages: Iterable[Package]) -> tuple[dict[str, str | None], str | None, bool | None]:
    """Return the versions of the toolkit's packages, its upstream version, and whether all that are there are alike."""
    there = {package.name: package.version for package in packages}
    versions = {name: there.get(name) for name in TOOLKIT}
    present = [version for version in versions.values() if version]
    return versions, upstream(present[0]) if present else None, len(set(map(upstream, present))) == 1 if present else None
