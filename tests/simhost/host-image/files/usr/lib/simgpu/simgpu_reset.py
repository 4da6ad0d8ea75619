# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes this host bare again; what `simhost reset` runs on the host, with the profile of the fleet file on stdin.

No driver packages, whoever brought them, none of their modules, nothing of the product, no containers. Images and volumes of the engine
stay, and so do packages that are no stubs.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

import simgpu_dkms
import simgpu_kernel
import simgpu_stub
import simgpu_switch

# Files of role nvidia_driver (docs/contracts.md), what NVIDIA's pinning packages bring, and what tests are known to leave.
FILES = (
    "/etc/apt/*/*difyops*",
    "/etc/apt/preferences.d/*",
    "/etc/yum.repos.d/*difyops*",
    "/etc/pki/rpm-gpg/*difyops*",
    "/etc/modprobe.d/*difyops*",
    "/etc/dnf/modules.d/nvidia*.module",
    "/var/log/simgpu-initramfs.log",
    "/run/reboot-required*",
    "/run/nvidia-cdi-refresh*",
)
FOLDERS = ("/var/lib/difyops", simgpu_dkms.TREE)
GENUINE = ("*nvidia*", "libcuda1", "glx-*", "update-glx", "dkms")
VERSIONLOCK = "/etc/dnf/plugins/versionlock.list"
# They are part of the image of hosts that have rpm.
KEPT = ("simhost-base-system",)


def quietly(*command: str) -> None:
    """Runs what may fail where there is nothing to do."""
    subprocess.run(command, check=False, capture_output=True)


def remove_genuine() -> None:
    """NVIDIA's packages of Debian itself, and what came with them."""
    query = ["dpkg-query", "--show", "--showformat", "${Package}\t${db:Status-Status}\n", *GENUINE]
    rows = [line.split("\t") for line in subprocess.run(query, check=False, capture_output=True, text=True).stdout.splitlines()]
    names = [name for name, status in rows if status != "not-installed"]
    if names:
        simgpu_stub.purge(names)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "autoremove", "--purge", "--yes", "-qq"], check=False, capture_output=True, env=environment)


def remove_rpms() -> None:
    if not shutil.which("rpm"):
        return
    query = ["rpm", "--query", "--all", "--queryformat", "%{NAME}\\t%{SUMMARY}\\n"]
    rows = [line.partition("\t") for line in subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()]
    names = [name for name, _tab, summary in rows if summary.startswith(simgpu_stub.MARKS) and name not in KEPT]
    if names:
        quietly("rpm", "--erase", "--nodeps", "--allmatches", *names)
    if os.path.exists(VERSIONLOCK):
        with open(VERSIONLOCK, "w", encoding="ascii"):
            pass


def main() -> None:
    if shutil.which("docker"):
        containers = subprocess.run(["docker", "ps", "--all", "--quiet"], check=False, capture_output=True, text=True).stdout.split()
        if containers:
            quietly("docker", "rm", "--force", "--volumes", *containers)
    quietly("systemctl", "stop", *simgpu_stub.UNITS)
    simgpu_stub.purge(list(simgpu_stub.installed(simgpu_stub.MARKS)))
    remove_genuine()
    remove_rpms()
    for pattern in FILES:
        for path in glob.glob(pattern):
            os.unlink(path)
    for folder in FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)
    for kernel in os.listdir(simgpu_kernel.MODULES) if os.path.isdir(simgpu_kernel.MODULES) else []:
        shutil.rmtree(f"{simgpu_kernel.MODULES}/{kernel}")
    quietly("systemctl", "daemon-reload")
    quietly("systemctl", "start", "simrepo.service")
    simgpu_switch.switch(sys.stdin.read())


if __name__ == "__main__":
    main()
