# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes this host bare again; what `simhost reset` runs on the host, with the profile of the fleet file on stdin.

No packages of driver and container toolkit, whoever brought them, no modules, nothing of the product, no containers. A host that started
with an engine has that one again, configured as at the start, with its images and volumes; one that started without has none. Other
packages that are no stubs stay.
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

# Files of the roles (docs/contracts.md), what NVIDIA's packages leave, and what tests are known to leave.
FILES = (
    "/etc/cdi/*",
    "/var/run/cdi/*",
    "/etc/systemd/system/nvidia-cdi-refresh.*",
    "/etc/systemd/system/*.wants/nvidia-cdi-refresh.*",
    "/etc/*/nvidia-container-toolkit*",
    "/etc/*/*/nvidia-container-toolkit*",
    "/usr/share/keyrings/nvidia-container-toolkit*",
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
FOLDERS = ("/var/lib/difyops", simgpu_dkms.TREE, "/etc/nvidia-container-runtime", "/etc/nvidia-container-toolkit")
# What simhost left on a host that has an engine from the start: its configuration, and the names of its packages.
ENGINE = "/var/lib/simhost-engine"
ENGINE_CONFIG = "/etc/docker/daemon.json"
DROP_INS = "/etc/systemd/system/docker.service.d"
# Of Debian and of this simulation's Ubuntu; those of Docker's repository are stubs.
ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-compose-v2", "docker-buildx", "containerd", "runc")
ENGINE_DATA = "/var/lib/docker"
ENGINE_FOLDERS = ("/etc/docker", "/etc/containerd", "/var/lib/containerd", DROP_INS)
GENUINE = ("*nvidia*", "libcuda1", "glx-*", "update-glx", "dkms")
VERSIONLOCK = "/etc/dnf/plugins/versionlock.list"
# They are part of the image of hosts that have rpm.
KEPT = ("simhost-base-system",)


def quietly(*command: str) -> None:
    """Runs what may fail where there is nothing to do."""
    subprocess.run(command, check=False, capture_output=True)


def remove_genuine() -> None:
    """NVIDIA's packages of Debian itself, and what came with them."""
    names = list(states(*GENUINE))
    if names:
        simgpu_stub.purge(names)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "autoremove", "--purge", "--yes", "-qq"], check=False, capture_output=True, env=environment)


def states(*patterns: str) -> dict[str, str]:
    """The packages of dpkg with these names that have left something: `installed`, `config-files`, or a state between, by name."""
    query = ["dpkg-query", "--show", "--showformat", "${Package}\t${db:Status-Status}\n", *patterns]
    rows = [line.split("\t") for line in subprocess.run(query, check=False, capture_output=True, text=True).stdout.splitlines()]
    return {name: state for name, state in rows if state != "not-installed"}


def apt_get(*words: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "--yes", "-qq", *words], check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"apt-get {' '.join(words)}: {done.stderr.strip()}")


def read(path: str) -> str | None:
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def configure_engine() -> None:
    """Gives the engine the configuration that the host started with, and starts it where that is needed."""
    first, now = read(f"{ENGINE}/daemon.json"), read(ENGINE_CONFIG)
    changed = first != now or os.path.isdir(DROP_INS)
    if first is not None and first != now:
        os.makedirs(os.path.dirname(ENGINE_CONFIG), exist_ok=True)
        with open(ENGINE_CONFIG, "w", encoding="utf-8") as file:
            file.write(first)
    shutil.rmtree(DROP_INS, ignore_errors=True)
    quietly("systemctl", "daemon-reload")
    active = subprocess.run(["systemctl", "is-active", "--quiet", "docker.service"], check=False).returncode == 0
    if shutil.which("dockerd") and (changed or not active):
        quietly("systemctl", "unmask", "docker.service", "docker.socket")
        quietly("systemctl", "enable", "docker.service", "docker.socket")
        quietly("systemctl", "reset-failed", "docker.service", "docker.socket")
        quietly("systemctl", "restart", "docker.service")


def bring_engine_back() -> None:
    """The packages of the engine that the host started with, where others have taken their place."""
    names = (read(f"{ENGINE}/packages") or "").split()
    found = states(*names)
    if any(found.get(name) != "installed" for name in names):
        apt_get("update")
        apt_get("install", "--no-install-recommends", *names)
        configure_engine()


def take_engine_away() -> None:
    """For a host that started without one."""
    names = list(states(*ENGINE_PACKAGES))
    if names:
        apt_get("purge", *names)
        apt_get("autoremove", "--purge")
    for folder in ENGINE_FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)
    # Where the engine keeps its data is a mount.
    for name in os.listdir(ENGINE_DATA) if os.path.isdir(ENGINE_DATA) else []:
        path = f"{ENGINE_DATA}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def reset_engine(hook: bool) -> None:
    """The engine, or the lack of one, that the host started with; hook: there was a toolkit, which is gone by now."""
    if not os.path.isdir(ENGINE):
        take_engine_away()
        return
    bring_engine_back()
    if hook:
        # An engine looks for the hook of --gpus only when it starts.
        quietly("systemctl", "restart", "docker.service")


def remove_containers() -> None:
    if shutil.which("docker"):
        containers = subprocess.run(["docker", "ps", "--all", "--quiet"], check=False, capture_output=True, text=True).stdout.split()
        if containers:
            quietly("docker", "rm", "--force", "--volumes", *containers)


def unhold() -> None:
    held = subprocess.run(["apt-mark", "showhold"], check=False, capture_output=True, text=True).stdout.split()
    if held:
        quietly("apt-mark", "unhold", *held)


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
    hook = shutil.which("nvidia-container-runtime-hook") is not None
    if os.path.isdir(ENGINE):
        # First, or an engine that a test has broken keeps its containers.
        configure_engine()
    remove_containers()
    unhold()
    quietly("systemctl", "stop", *simgpu_stub.UNITS)
    simgpu_stub.purge(list(simgpu_stub.installed(simgpu_stub.MARKS)))
    remove_genuine()
    remove_rpms()
    reset_engine(hook)
    for pattern in FILES:
        for path in glob.glob(pattern):
            if not os.path.isdir(path):
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
