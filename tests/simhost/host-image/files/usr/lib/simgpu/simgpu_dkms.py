# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A SIMULATED dkms for the packages of the stub repositories: it builds nothing, and puts modules without code where DKMS puts them.

As the genuine one it skips kernels without headers, keeps what it knows in /var/lib/dkms, and is called by the packages of headers.
The profile's `dkms_fails` (versions or branches, with commas between) makes builds fail.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import simgpu_kernel
import simgpu_profile

TREE = "/var/lib/dkms"
# What the packages call their source: the open modules of rpm packages have a name of their own.
NAMES = ("nvidia", "nvidia-open")
SOURCES = "/usr/src"
BUILD_FAILED, NO_HEADERS, AUTOINSTALL_FAILED = 10, 21, 11


def command(action: str, argument: str, name: str = NAMES[0]) -> str:
    """What a maintainer script says to call this; on a host that is real it does nothing."""
    words = {"autoinstall": f"autoinstall -k {argument}"}.get(action, f"{action} -m {name} -v {argument}")
    program = "/usr/lib/simgpu/simgpu_dkms.py"
    return f"if [ -e {program} ]; then python3 {program} {words} --package; fi"


class Source(NamedTuple):
    """What was added to DKMS, as nvidia/580.95.05."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def tree(self) -> str:
        return f"{TREE}/{self.name}/{self.version}"

    def flavour(self) -> str:
        with open(f"{SOURCES}/{self.name}-{self.version}/dkms.conf", encoding="ascii") as file:
            return re.findall(r"flavour: (\w+)", file.read())[0]


def known() -> list[Source]:
    """What was added."""
    folders = ((name, f"{TREE}/{name}") for name in NAMES)
    return [Source(name, version) for name, folder in folders if os.path.isdir(folder) for version in sorted(os.listdir(folder))]


def has_headers(kernel: str) -> bool:
    return os.path.isdir(f"{simgpu_kernel.MODULES}/{kernel}/build")


def all_kernels() -> list[str]:
    """The running kernel, and those that have headers."""
    others = sorted(os.listdir(simgpu_kernel.MODULES)) if os.path.isdir(simgpu_kernel.MODULES) else []
    return list(dict.fromkeys([platform.release(), *(name for name in others if has_headers(name))]))


def profile() -> dict[str, str]:
    return simgpu_profile.read() if os.path.exists(simgpu_profile.PROFILE) else {}


def fails(version: str) -> bool:
    names = [name.strip() for name in profile().get("dkms_fails", "").split(",")]
    return version in names or version.partition(".")[0] in names


def build(source: Source, kernel: str) -> int:
    """Builds and installs for one kernel; the exit code of the genuine program."""
    if not has_headers(kernel):
        print(f"Error! Your kernel headers for kernel {kernel} cannot be found at /lib/modules/{kernel}/build or source.", file=sys.stderr)
        return NO_HEADERS
    print(f"Building module(s)... (SIMULATED) {source} for {kernel}")
    log = f"{source.tree}/build/make.log"
    os.makedirs(os.path.dirname(log), exist_ok=True)
    failed = fails(source.version)
    with open(log, "w", encoding="ascii") as out:
        out.write(f"DKMS (SIMULATED) make.log for {source.name}-{source.version} for kernel {kernel} (x86_64)\n")
        if failed:
            out.write("nvidia/nv-dma.c:42:9: error: implicit declaration of function 'simulated_api' (SIMULATED)\n")
            out.write("make: *** [nvidia] Error 2\n")
    if failed:
        print(f"Error! Bad return status for module build on kernel: {kernel} (x86_64)", file=sys.stderr)
        print(f"Consult {log} for more information.", file=sys.stderr)
        return BUILD_FAILED
    # The genuine one always signs; here only where somebody could care.
    signer = simgpu_kernel.dkms_key() if "secure_boot" in profile() else None
    simgpu_kernel.build(kernel, source.version, source.flavour(), "nvidia", profile(), signer)
    os.makedirs(f"{source.tree}/{kernel}/x86_64/module", exist_ok=True)
    return 0


def autoinstall(kernel: str) -> int:
    """Builds all that was added for a kernel."""
    if not has_headers(kernel):
        print(f"Module build for kernel {kernel} was skipped since the")
        print("kernel headers for this kernel do not seem to be installed.")
        return 0
    failed = [source for source in known() if not os.path.isdir(f"{source.tree}/{kernel}") and build(source, kernel)]
    if failed:
        print(f"dkms autoinstall on {kernel}/x86_64 failed for {failed[0].name}({BUILD_FAILED})", file=sys.stderr)
        return AUTOINSTALL_FAILED
    return 0


def install(source: Source) -> int:
    """What the script of a package does: adds the source and builds it for every kernel that has headers."""
    print(f"Loading new {source} DKMS files... (SIMULATED)")
    os.makedirs(source.tree, exist_ok=True)
    return max(build(source, kernel) if has_headers(kernel) else autoinstall(kernel) for kernel in all_kernels())


def remove(source: Source) -> int:
    """Forgets a source and takes away its modules; those of another version or flavour that took their place stay."""
    print(f"Module {source} is removed (SIMULATED)")
    flavour = source.flavour()
    for kernel in os.listdir(simgpu_kernel.MODULES) if os.path.isdir(simgpu_kernel.MODULES) else []:
        module = simgpu_kernel.module_of(kernel)
        files = simgpu_kernel.module_files(kernel)
        if module and module.path in files and (module.version, module.flavour) == (source.version, flavour):
            for file in files:
                os.unlink(file)
            simgpu_kernel.depmod(kernel)
    shutil.rmtree(source.tree, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(source.tree))
    return 0


def status() -> int:
    for source in known():
        kernels = [name for name in sorted(os.listdir(source.tree)) if os.path.isdir(f"{source.tree}/{name}/x86_64")]
        for kernel in kernels:
            print(f"{source}, {kernel}, x86_64: installed")
        if not kernels:
            print(f"{source}: added")
    return 0


def option(arguments: list[str], *names: str) -> str | None:
    return next((arguments[place + 1] for place, word in enumerate(arguments[:-1]) if word in names), None)


def main(arguments: list[str]) -> int:
    action = next((word for word in arguments if not word.startswith("-")), "")
    whole = next((word.partition("/")[::2] for word in arguments if word.partition("/")[0] in NAMES and "/" in word), None)
    name, version = whole or (option(arguments, "-m") or NAMES[0], option(arguments, "-v"))
    kernel = option(arguments, "-k")
    if "--version" in arguments:
        print("dkms-3.2.2 (SIMULATED)")
        return 0
    if action == "status":
        return status()
    if action == "autoinstall":
        return max(autoinstall(one) for one in ([kernel] if kernel else all_kernels()))
    if action in ("add", "build", "install", "remove") and version:
        source = Source(name, version)
        if action == "remove":
            return remove(source)
        os.makedirs(source.tree, exist_ok=True)
        if action == "add":
            return 0
        return install(source) if "--package" in arguments else build(source, kernel or platform.release())
    print("usage: dkms status | autoinstall [-k KERNEL] | add|build|install|remove -m nvidia -v VERSION [-k KERNEL]", file=sys.stderr)
    return 1


if __name__ == "__main__":
    # Output of children and of this in one order.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"dkms (SIMULATED): {error}")
