# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of packages: what makes a driver for computing on each system, and which packages are the driver's at all.

Only what computing in containers needs: kernel modules, libcuda, NVML, nvidia-smi, the persistence daemon; nothing of X. Sources: NVIDIA's
driver installation guide ("Compute-only", "Kernel Modules", "Version locking", the renaming of branch 590), the package lists of Debian 12
and 13 (tried with apt) and of Ubuntu of 2026-11-22. From memory: that NVIDIA's repository for Ubuntu has nvidia-utils and
nvidia-compute-utils up to 580 (the guide names the libraries and the modules only), hence the second alternative without them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _packages
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import DISTRIBUTION, DKMS, OPEN, PREBUILT, PROPRIETARY
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_source import DEBIAN, RHEL, UBUNTU, Target
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT

# From this branch on names of NVIDIA's repository for Ubuntu have no branch.
UNSUFFIXED_SINCE = 590
# From this branch on the open modules are NVIDIA's default.
_OPEN_BY_DEFAULT_SINCE = 560
MODULE = "nvidia-driver"
PINNING, FABRIC_MANAGER, PERSISTENCE, HEADERS = "pinning", "fabric manager", "persistence daemon", "headers"
LATER_HEADERS = "headers of later kernels"
# At the end of a kernel's name, such as 6.1.0-40-cloud-amd64.
_DEBIAN_KIND = re.compile(r"-((?:cloud-|rt-)?(?:amd64|arm64(?:-16k)?))$")
_RELEASES = {"jammy": "22.04", "noble": "24.04", "resolute": "26.04"}

# Of apt. Libraries beginning with c and e are listed, since libnvidia-container* and libnvidia-egl-* are none of the driver.
_APT_GLOBS = (
    "cuda-drivers*",
    "firmware-nvidia-gsp*",
    "firmware-nvidia-tesla-*",
    "libcuda1",
    "libcudadebugger1",
    "libegl-nvidia*",
    "libgl1-nvidia-*",
    "libgles-nvidia*",
    "libglx-nvidia*",
    "libnvcuvid1",
    "libnvidia-[!cem]*",
    "libnvidia-cbl*",
    "libnvidia-cfg1*",
    "libnvidia-common*",
    "libnvidia-compiler*",
    "libnvidia-compute*",
    "libnvidia-eglcore*",
    "libnvidia-encode*",
    "libnvidia-extra*",
    "libnvidia-ml1*",
    "libnvoptix1*",
    "libnvsdm*",
    "nvidia-alternative",
    "nvidia-compute-utils*",
    "nvidia-cuda-mps",
    "nvidia-dkms*",
    "nvidia-driver*",
    "nvidia-egl-common",
    "nvidia-egl-icd",
    "nvidia-fabricmanager*",
    "nvidia-firmware*",
    "nvidia-headless*",
    "nvidia-imex*",
    "nvidia-kernel-*",
    "nvidia-legacy-check",
    "nvidia-libopencl1",
    "nvidia-modprobe",
    "nvidia-open",
    "nvidia-open-*",
    "nvidia-opencl-common",
    "nvidia-opencl-icd",
    "nvidia-persistenced",
    "nvidia-powerd",
    "nvidia-smi",
    "nvidia-suspend-common",
    "nvidia-tesla-*",
    "nvidia-utils*",
    "nvidia-vdpau-driver",
    "nvidia-vulkan-*",
    "xserver-xorg-video-nvidia*",
)
# The packages that tell which drivers a repository has: those of the kernel modules and of the libraries.
_PATTERNS = {
    DEBIAN: (
        "nvidia-kernel-dkms",
        "nvidia-open-kernel-dkms",
        "nvidia-tesla-*-kernel-dkms",
        "nvidia-kernel-open-dkms",
        "nvidia-driver-cuda",
    ),
    UBUNTU: ("nvidia-headless-no-dkms-*", "nvidia-dkms-*", "nvidia-dkms", "nvidia-dkms-open", "libnvidia-compute", "libnvidia-compute-*"),
    RHEL: ("nvidia-driver-cuda", "kmod-nvidia-open-dkms", "kmod-nvidia-latest-dkms"),
}


class Wanted(NamedTuple):
    """A driver for which names are looked for: `kernels` are those that are to get its modules, `flavour` None where either will do."""

    target: Target
    source: str
    branch: int
    flavour: str | None
    kernel_modules: str
    kernels: tuple[str, ...]


def alternatives(wanted: Wanted) -> list[list[str]]:
    """Return the sets of packages that make the driver, the preferred first; empty where there is none of that kind."""
    family, ours = wanted.target.family, wanted.source == DISTRIBUTION
    sets: list[list[str]] = []
    for flavour in _flavours(wanted):
        if family == RHEL:
            sets += _rpm(wanted, flavour)
        elif family == UBUNTU:
            sets += _ubuntu(wanted, flavour) if ours else _nvidia_ubuntu(wanted, flavour)
        else:
            sets += _debian(wanted, flavour) if ours else _nvidia_debian(wanted, flavour)
    return [names for number, names in enumerate(sets) if names not in sets[:number]]


def _flavours(wanted: Wanted) -> tuple[str, ...]:
    if wanted.flavour is not None:
        return (wanted.flavour,)
    return (OPEN, PROPRIETARY) if wanted.branch >= _OPEN_BY_DEFAULT_SINCE else (PROPRIETARY, OPEN)


def _debian(wanted: Wanted, flavour: str) -> list[list[str]]:
    """Debian's own driver and the one of its branch for data centers, which has the older branch.

    What makes the rest work comes by dependencies: nvidia-kernel-support with the glue for modprobe, nvidia-alternative and update-glx.
    """
    if wanted.kernel_modules == PREBUILT:
        return []
    if flavour == OPEN:
        return [["nvidia-open-kernel-dkms", "nvidia-smi", "libcuda1", "libnvidia-ml1", "libnvidia-cfg1"]]
    tesla = f"nvidia-tesla-{wanted.branch}"
    return [
        ["nvidia-kernel-dkms", "nvidia-smi", "libcuda1", "libnvidia-ml1", "libnvidia-cfg1"],
        [f"{tesla}-kernel-dkms", f"{tesla}-smi", f"lib{tesla}-cuda1", f"lib{tesla}-ml1", f"lib{tesla}-cfg1"],
    ]


def _nvidia_debian(wanted: Wanted, flavour: str) -> list[list[str]]:
    if wanted.kernel_modules == PREBUILT:
        return []
    modules = "nvidia-kernel-open-dkms" if flavour == OPEN else "nvidia-kernel-dkms"
    # The first since 560; before, the names were Debian's.
    return [["nvidia-driver-cuda", modules], [modules, "nvidia-smi", "libcuda1", "libnvidia-ml1"]]


def _ubuntu(wanted: Wanted, flavour: str) -> list[list[str]]:
    """The server's variant first, which changes less; of each the modules that Ubuntu built and signed, then those built on the host."""
    opened = "-open" if flavour == OPEN else ""
    sets = []
    for modules in (PREBUILT, DKMS):
        if wanted.kernel_modules not in (modules, "auto"):
            continue
        for kind in (f"{wanted.branch}-server", f"{wanted.branch}"):
            tools = [f"nvidia-utils-{kind}", f"nvidia-compute-utils-{kind}"]
            if modules == DKMS:
                sets.append([f"nvidia-headless-no-dkms-{kind}{opened}", f"nvidia-dkms-{kind}{opened}", *tools])
            elif wanted.kernels:
                stem = f"linux-modules-nvidia-{kind}{opened}"
                prebuilt = [f"{stem}-{kernel}" for kernel in wanted.kernels]
                driver = [f"nvidia-headless-no-dkms-{kind}{opened}", *tools]
                later = [f"{stem}-{name}" for name in _later_kernels(wanted)]
                # Without the metapackage the modules are those of the kernels of now only, which is better than none.
                sets += [[*prebuilt, *later, *driver], [*prebuilt, *driver]] if later else [[*prebuilt, *driver]]
    return sets


def _later_kernels(wanted: Wanted) -> list[str]:
    """Return the end of the metapackage's name that brings the modules of a later kernel together with that kernel.

    It is the kernel's kind; the newer series of a release (HWE) are a kind of their own.
    """
    kernel = wanted.kernels[-1]
    series, kind = ".".join(kernel.partition("-")[0].split(".")[:2]), re.sub(r"^[^-]*-[0-9.]+-", "", kernel)
    if not re.fullmatch(r"[a-z][a-z0-9-]*", kind):
        return []
    if kind == "generic" and series != wanted.target.kernel:
        return [f"generic-hwe-{_RELEASES[wanted.target.codename]}"] if wanted.target.codename in _RELEASES else []
    return [kind]


def _nvidia_ubuntu(wanted: Wanted, flavour: str) -> list[list[str]]:
    if wanted.kernel_modules == PREBUILT:
        return []
    opened = "-open" if flavour == OPEN else ""
    if wanted.branch >= UNSUFFIXED_SINCE:
        return [["libnvidia-compute", f"nvidia-dkms{opened}"]]
    driver = [f"libnvidia-compute-{wanted.branch}", f"nvidia-dkms-{wanted.branch}{opened}"]
    return [[*driver, f"nvidia-utils-{wanted.branch}", f"nvidia-compute-utils-{wanted.branch}"], driver]


def _rpm(wanted: Wanted, flavour: str) -> list[list[str]]:
    if wanted.kernel_modules == PREBUILT:
        return []
    return [["nvidia-driver-cuda", "kmod-nvidia-open-dkms" if flavour == OPEN else "kmod-nvidia-latest-dkms"]]


def stream(wanted: Wanted) -> str | None:
    """Return the module stream that has the driver (``580-open``), None where the system's repository has no streams."""
    if not wanted.target.streams:
        return None
    return f"{wanted.branch}-{'open' if _flavours(wanted)[0] == OPEN else 'dkms'}"


def builds(names: Sequence[str]) -> bool:
    """Whether a set of packages has its modules built on the host, for which kernel headers are needed."""
    return any("dkms" in name.split("-") for name in names if "no-dkms" not in name)


def headers(target: Target, kernel: str) -> list[str]:
    """Return the packages that may have the headers of a kernel, the likeliest first."""
    if target.manager == APT:
        return [f"linux-headers-{kernel}"]
    if "uek" in kernel:
        return [f"kernel-uek-devel-{kernel}"]
    # Amazon Linux has its newer kernels under names of their own.
    series = re.match(r"[0-9]+\.[0-9]+", kernel)
    newer = [f"kernel{series[0]}-devel-{kernel}"] if series and target.directory == "amzn2023" else []
    return [f"kernel-devel-{kernel}", *newer]


def later_headers(target: Target, kernels: Sequence[str]) -> list[str]:
    """Return the metapackage of Debian that brings the headers of a later kernel together with it; empty where there is none."""
    kernel = kernels[-1] if kernels else ""
    kind = _DEBIAN_KIND.search(kernel)
    # Kernels of backports have the name of the release's own, whose headers are of no use to them.
    return [f"linux-headers-{kind[1]}"] if target.family == DEBIAN and kind is not None and "bpo" not in kernel else []


def fabric_manager(wanted: Wanted) -> list[str]:
    """Return the packages that may have the fabric manager of the driver, the likeliest first."""
    if wanted.target.family == RHEL:
        return ["nvidia-fabricmanager", "nvidia-fabric-manager"]
    if wanted.source == DISTRIBUTION or wanted.branch < UNSUFFIXED_SINCE:
        return [f"nvidia-fabricmanager-{wanted.branch}"]
    return ["nvidia-fabricmanager"]


def persistence(wanted: Wanted) -> list[str]:
    """Return the package of the persistence daemon where it is one of its own, which need not have the driver's version."""
    # Ubuntu has it in nvidia-compute-utils.
    return [] if wanted.target.family == UBUNTU and wanted.source == DISTRIBUTION else ["nvidia-persistenced"]


def pinning(version: str | None, branch: int) -> list[str]:
    """Return NVIDIA's package that pins a driver in NVIDIA's repositories for apt; version None: that of the branch."""
    return [f"nvidia-driver-pinning-{version or branch}"]


def patterns(target: Target) -> list[str]:
    """Return the patterns of packages whose versions tell which drivers the repositories have."""
    return list(_PATTERNS[target.family])


def globs() -> tuple[str, ...]:
    """Return patterns of the names of all packages of a driver in apt, and of nothing else."""
    return _APT_GLOBS


def regular_expression(glob: str) -> str:
    """Return the regular expression that means what one of the patterns does, for programs that match names with one."""
    return f"^{glob.replace('*', '.*').replace('[!', '[^')}$"


def is_driver(name: str) -> bool:
    """Whether a package belongs to a driver, by the rule of the facts; its version is that of the driver nearly always."""
    return _packages.is_part(name.partition(":")[0])


def is_prebuilt(name: str) -> bool:
    """Whether a package has modules that the distribution built: its version is the kernel's, and apt keeps it with its driver."""
    return _packages.is_prebuilt(name)
