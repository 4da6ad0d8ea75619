# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in the stub packages: the libraries and programs of tests/simhost/simgpu, stamped with the driver's version.

Installing changes what is on disk. What is loaded changes at the next boot or by modprobe (simgpu_modprobe.py on the host).
"""

from __future__ import annotations

import functools

import simgpu_kernel
import simgpu_profile
import simgpu_stub

HOST = "/usr/lib/simgpu"
# Nobody can sign with the distributor's key, and the host knows this one as trusted.
PREBUILT_SIGNER = simgpu_kernel.PREBUILT_SIGNER
PERSISTENCED_UNIT = "nvidia-persistenced.service"
FABRIC_UNIT = "nvidia-fabricmanager.service"
Files = dict[str, tuple[bytes, int]]


@functools.cache
def built(name: str, version: str) -> bytes:
    return simgpu_stub.built(name, version)


def library(stem: str, version: str) -> tuple[Files, dict[str, str]]:
    """Files and links of libcuda or libnvidia-ml."""
    path = f"{simgpu_profile.LIBRARY_DIR}/{stem}.so"
    return {f"{path}.{version}": (built(f"{stem}.so.1", version), 0o644)}, {f"{path}.1": f"{stem}.so.{version}"}


def libraries(version: str) -> tuple[Files, dict[str, str]]:
    """Both libraries, as packages have them that do not part them."""
    (cuda, cuda_links), (nvml, nvml_links) = library("libcuda", version), library("libnvidia-ml", version)
    return {**cuda, **nvml}, {**cuda_links, **nvml_links}


def smi(version: str) -> Files:
    return {"/usr/bin/nvidia-smi": (built("nvidia-smi", version), 0o755)}


def daemon(name: str, program: str, title: str, unit: str, version: str, check: str = "", installable: bool = True) -> Files:
    """A program that runs and its unit; not installable: the unit is static, since udev starts it in life."""
    script = simgpu_stub.DAEMON.format(name=name, title=title, version=version, check=check.format(version=version))
    text = simgpu_stub.UNIT.format(title=title, program=program)
    if not installable:
        text = text.partition("[Install]")[0]
    return {program: (script.encode(), 0o755), f"/usr/lib/systemd/system/{unit}": (text.encode(), 0o644)}


def persistenced(version: str, installable: bool = True) -> Files:
    return daemon("nvidia-persistenced", "/usr/bin/nvidia-persistenced", "persistenced", PERSISTENCED_UNIT, version, "", installable)


def fabric_manager(version: str) -> Files:
    return daemon("fabricmanager", "/usr/bin/nv-fabricmanager", "Fabric Manager", FABRIC_UNIT, version, simgpu_stub.FABRIC_CHECK)


def dkms_source(version: str, flavour: str, name: str = "nvidia") -> Files:
    """What dkms builds from."""
    text = (
        "# SIMULATED by tests/simhost: nothing is compiled, see simgpu_dkms.py.\n"
        f'PACKAGE_NAME="{name}"\nPACKAGE_VERSION="{version}"\nBUILT_MODULE_NAME[0]="nvidia"\nAUTOINSTALL="yes"\n'
        f"# flavour: {flavour}\n"
    )
    return {f"/usr/src/{name}-{version}/dkms.conf": (text.encode(), 0o644)}


def modules(kernel: str, version: str, flavour: str, folder: str) -> Files:
    """Modules that the distributor built and signed."""
    return {
        f"/usr/lib/modules/{kernel}/{folder}/nvidia{part}.ko": (_module(kernel, version, flavour, part), 0o644)
        for part in simgpu_kernel.PARTS
    }


@functools.cache
def _module(kernel: str, version: str, flavour: str, part: str) -> bytes:
    plain = simgpu_kernel.elf({".modinfo": simgpu_kernel.modinfo(f"nvidia{part.replace('-', '_')}", kernel, version, flavour)})
    return simgpu_kernel.signed(plain, simgpu_kernel.new_key(PREBUILT_SIGNER))


def headers(kernel: str) -> tuple[Files, dict[str, str]]:
    """The build tree of a kernel, which is all that DKMS looks for."""
    tree = f"/usr/src/linux-headers-{kernel}"
    return {f"{tree}/Makefile": (b"# SIMULATED by tests/simhost\n", 0o644)}, {f"/usr/lib/modules/{kernel}/build": tree}


def tool(name: str, *arguments: str) -> str:
    """A command of the simulated host, which is not there on a real one."""
    return f"if [ -e {HOST}/{name}.py ]; then python3 {HOST}/{name}.py {' '.join(arguments)}; fi"
