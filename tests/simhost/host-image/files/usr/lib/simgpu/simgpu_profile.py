# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile of a simulated host: `key=value` lines, shared by the boot unit and the stub packages."""

from __future__ import annotations

import os
from typing import NamedTuple

PROFILE = "/etc/simgpu/profile"
PROVISIONED = "/var/lib/simgpu/provisioned"
# There when the rivals of NVIDIA's driver were kept out of the kernel at this boot.
RIVALS_GONE = "/run/simgpu/rivals-gone"
RIVALS = ("nouveau", "nova_core")
OS_RELEASE = "/etc/os-release"
LIBRARY_DIR = "/usr/lib/x86_64-linux-gnu"
STAMP = b"@@SIMGPU-LIBRARY-VERSION@@............"
STAMP_SIZE = 40
# Functions that came with a driver branch (the first whose nvml.h has them): libraries before it do not export them.
SINCE = {
    "nvmlDeviceGetMemoryInfo_v2": 510,
    "nvmlDeviceGetComputeRunningProcesses_v3": 510,
    "nvmlDeviceGetGraphicsRunningProcesses_v3": 510,
    "nvmlDeviceGetGpuFabricInfo": 525,
    "nvmlDeviceGetPciInfoExt": 535,
    "nvmlDeviceGetGpuFabricInfoV": 550,
}


class MigDevice(NamedTuple):
    """A MIG device of a GPU: its slot, its profile (1g.5gb), its instances, its UUID and its memory."""

    slot: int
    profile: str
    gpu_instance: int
    compute_instance: int
    uuid: str
    memory_mib: int


def read(path: str | None = None) -> dict[str, str]:
    """The profile's keys and values, all strings."""
    pairs = {}
    with open(path or PROFILE, encoding="utf-8") as lines:
        for line in lines:
            key, equals, value = line.rstrip("\n").partition("=")
            if equals and not key.startswith("#"):
                pairs[key] = value
    return pairs


def now() -> dict[str, str]:
    """The profile as it counts since this boot: without rivals that were kept out."""
    profile = read()
    if not os.path.exists(RIVALS_GONE):
        return profile
    return {key: value for key, value in profile.items() if not (key.endswith("bound_driver") and value in RIVALS)}


def family() -> str:
    """`rhel` on a host that looks like Enterprise Linux, else `debian`."""
    with open(OS_RELEASE, encoding="utf-8") as lines:
        words = " ".join(line.partition("=")[2] for line in lines if line.startswith(("ID=", "ID_LIKE=")))
    return "rhel" if {"rhel", "fedora", "amzn"} & set(words.replace('"', " ").split()) else "debian"


def gpus(profile: dict[str, str]) -> list[dict[str, str]]:
    """The GPUs of a profile, in the order of their index."""
    found: dict[int, dict[str, str]] = {}
    for key, value in profile.items():
        parts = key.split(".", 2)
        if parts[0] == "gpu" and len(parts) == 3:
            found.setdefault(int(parts[1]), {"minor": parts[1]})[parts[2]] = value
    return [found[index] for index in sorted(found)]


def mig_devices(gpu: dict[str, str]) -> list[MigDevice]:
    """The MIG devices of a GPU; none when its MIG mode is off."""
    found = []
    for key, value in gpu.items():
        name, _dot, slot = key.partition(".")
        if name == "mig_device" and gpu.get("mig") == "1":
            profile, gpu_instance, compute_instance, uuid, memory = value.split(",")
            found.append(MigDevice(int(slot), profile, int(gpu_instance), int(compute_instance), uuid, int(memory)))
    return sorted(found)


def capability(minor: int, gpu_instance: int, compute_instance: int | None = None) -> int:
    """The number of the node that guards a MIG instance, as the driver counts them in mig-minors."""
    return 3 + minor * 135 + gpu_instance * 9 + (0 if compute_instance is None else 1 + compute_instance)


def driver_of(gpu: dict[str, str], profile: dict[str, str], loaded: str | None) -> str | None:
    """Which driver is bound to a GPU."""
    return gpu.get("bound_driver") or profile.get("bound_driver") or ("nvidia" if loaded else None)


def stamped(library: bytes, version: str) -> bytes:
    """The library with its version written in, as a genuine one carries it."""
    place = library.index(STAMP)
    return library[:place] + version.encode().ljust(STAMP_SIZE, b"\0") + library[place + STAMP_SIZE :]


def without_newer(library: bytes, version: str) -> bytes:
    """The library without the functions that came after its branch: their names are made unfindable."""
    branch = int(version.partition(".")[0])
    for name, since in SINCE.items():
        if branch < since:
            library = library.replace(b"\0" + name.encode() + b"\0", b"\0" + b"absent" + name.encode()[6:] + b"\0")
    return library


def installed_version() -> str | None:
    """The version of the driver libraries that are installed, by the name of the file; None without any."""
    path = os.path.realpath(os.path.join(LIBRARY_DIR, "libnvidia-ml.so.1"))
    return path.partition(".so.")[2] if os.path.isfile(path) else None
