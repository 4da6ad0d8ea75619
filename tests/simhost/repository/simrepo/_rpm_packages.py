# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers as NVIDIA packages them for Enterprise Linux and Amazon Linux, and what such a system itself has to have.

Epoch, relations and what the scripts do: NVIDIA's public spec files (yum-packaging-*). Names of the compute set and of the streams: its
installation guide. From memory: which stream is the default, and that the open modules' source has a name of its own.
"""

from __future__ import annotations

import simgpu_dkms

from simrepo import _contents, _rpm
from simrepo._package import Package

NVIDIA = "NVIDIA Corporation"
MODULE = "nvidia-driver"
DEFAULT_STREAM = "latest-dkms"
LIBRARY_KIB, FIRMWARE_KIB = 180000, 70000
KMOD = {"open": "kmod-nvidia-open-dkms", "proprietary": "kmod-nvidia-latest-dkms"}
SOURCE_NAME = {"open": "nvidia-open", "proprietary": "nvidia"}
# Branches without streams are those of Enterprise Linux 10.
VERSIONS = ("550.163.01", "570.211.01", "580.95.05", "580.105.08", "595.91.07")


def driver(version: str, dist: str) -> list[Package]:
    """The packages of one driver."""
    full = f"{_rpm.DRIVER_EPOCH}:{version}-1.{dist}"
    same = f"{_rpm.DRIVER_EPOCH}:{version}"

    def package(name: str, what: str, *depends: str, **fields: object) -> Package:
        needs = [need if " " in need else f"{need} = {same}" for need in depends]
        made = Package(name, full, f"{what}, NVIDIA driver {version}", NVIDIA, depends=needs)
        return made.but(**fields)

    cuda, cuda_links = _contents.library("libcuda", version)
    nvml, nvml_links = _contents.library("libnvidia-ml", version)
    firmware = {f"/usr/lib/firmware/nvidia/{version}/gsp_ga10x.bin": (b"SIMULATED by tests/simhost\n", 0o644)}
    stop = "if [ $1 -eq 0 ]; then systemctl --quiet disable --now {}; fi"
    reload = "systemctl daemon-reload"
    found = [
        package("nvidia-driver-cuda-libs", "CUDA libraries", files=cuda, links=cuda_links, installed_kib=LIBRARY_KIB),
        package("libnvidia-ml", "management library", files=nvml, links=nvml_links),
        package("libnvidia-cfg", "configuration library"),
        package("nvidia-kmod-common", "files shared by the kernel modules", "nvidia-kmod", "nvidia-modprobe", files=firmware),
        package("nvidia-modprobe", "loads the modules for users"),
        package(
            "nvidia-persistenced",
            "persistence daemon",
            files=_contents.persistenced(version),
            configured=reload,
            removing=stop.format(_contents.PERSISTENCED_UNIT),
            removed=reload,
        ),
        package(
            "nvidia-driver-cuda",
            "compute part of the driver",
            *("nvidia-driver-cuda-libs", "libnvidia-ml", "nvidia-kmod-common", "nvidia-persistenced"),
            files=_contents.smi(version),
        ),
        package("nvidia-driver-libs", "graphics libraries", "libnvidia-ml"),
        package("nvidia-driver", "display part of the driver", "nvidia-driver-libs", "nvidia-kmod-common"),
        package(
            "nvidia-fabricmanager",
            "Fabric Manager",
            files=_contents.fabric_manager(version),
            configured=reload,
            removing=stop.format(_contents.FABRIC_UNIT),
            removed=reload,
        ),
        package("nvidia-open", "everything, with open modules", "nvidia-driver", "nvidia-driver-cuda", KMOD["open"]),
        package("cuda-drivers", "everything, with proprietary modules", "nvidia-driver", "nvidia-driver-cuda", KMOD["proprietary"]),
    ]
    for flavour, name in KMOD.items():
        other = KMOD["open" if flavour == "proprietary" else "proprietary"]
        found.append(
            package(
                name,
                f"kernel modules by DKMS ({flavour})",
                *("nvidia-kmod-common", "dkms >= 0"),
                provides=[f"nvidia-kmod = {same}"],
                conflicts=[other],
                files=_contents.dkms_source(version, flavour, SOURCE_NAME[flavour]),
                configured=simgpu_dkms.command("install", version, SOURCE_NAME[flavour]),
                removing=simgpu_dkms.command("remove", version, SOURCE_NAME[flavour]),
            )
        )
    return found


def streams(drivers: dict[str, list[Package]]) -> list[_rpm.Stream]:
    """The streams of the module over all drivers, by their versions: of each branch one per flavour, and those that follow the newest."""
    found = []
    branches = sorted({version.partition(".")[0] for version in drivers})
    wanted = [(f"{branch}-{{}}", [branch]) for branch in branches]
    for flavour, ending, newest in (("proprietary", "dkms", "latest-dkms"), ("open", "open", "open-dkms")):
        other = KMOD["open" if flavour == "proprietary" else "proprietary"]
        meta = {"proprietary": "cuda-drivers", "open": "nvidia-open"}
        left_out = (other, meta["open" if flavour == "proprietary" else "proprietary"])
        for name, members in [*wanted, (newest, branches)]:
            packages = [
                package
                for version, made in drivers.items()
                if version.partition(".")[0] in members
                for package in made
                if package.name not in left_out
            ]
            default = ["nvidia-driver", "nvidia-driver-cuda", KMOD[flavour]]
            found.append(_rpm.Stream(name.format(ending), packages, default, [*default, "nvidia-fabricmanager"]))
    return found


def next_kernel(dist: str) -> str:
    """A kernel that no machine runs, as its packages and `uname` would call it."""
    return f"6.99.1-1.{dist}.x86_64"


def base(running: str, dist: str) -> list[list[Package]]:
    """What the distribution itself has, in groups to build."""
    maker = "The distribution"
    following = next_kernel(dist)
    release = following.partition("-")[2].rpartition(".")[0]
    script = b'#!/bin/sh\n# SIMULATED by tests/simhost.\nexec python3 /usr/lib/simgpu/simgpu_dkms.py "$@"\n'
    # rpm knows nothing of Debian's packages below it, and scripts of packages need a shell.
    system = Package("simhost-base-system", "1-1", "what Debian below brings", maker, provides=["/bin/sh", "/usr/bin/sh"])
    dkms = Package("dkms", f"3.2.2-1.{dist}", "DKMS that builds SIMULATED modules", maker, files={"/usr/sbin/dkms": (script, 0o755)})
    # The plugin itself is part of the image.
    versionlock = Package("python3-dnf-plugin-versionlock", f"4.99-1.{dist}", "dnf's versionlock, which Debian's dnf has already", maker)
    boot = _contents.tool("simgpu_kernel", "boot")
    image = {f"/boot/vmlinuz-{following}": (b"SIMULATED by tests/simhost\n", 0o644)}
    autoinstall = simgpu_dkms.command("autoinstall", following)
    kernel = f"6.99.1-{release}"
    core = Package("kernel-core", kernel, f"kernel {following}", maker, files=image, configured=f"{boot}\n{autoinstall}", removed=boot)
    devel_files, devel_links = _contents.headers(following)
    devel = Package("kernel-devel", kernel, f"headers of kernel {following}", maker, files=devel_files, links=devel_links)
    devel = devel.but(configured=autoinstall, removed=_contents.tool("simgpu_kernel", "depmod", following))
    whole = Package("kernel", kernel, f"kernel {following}", maker, depends=[f"kernel-core = {kernel}"])
    # The machine's own kernel need not have a name that rpm could take apart: all of it is the package's name.
    own_files, own_links = _contents.headers(running)
    own = Package(f"kernel-devel-{running}", "1-1", f"headers of kernel {running}", maker, files=own_files, links=own_links)
    own = own.but(configured=simgpu_dkms.command("autoinstall", running), removed=_contents.tool("simgpu_kernel", "depmod", running))
    return [[system, dkms, versionlock], [core, devel, whole], [own]]
