# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIMULATED modprobe and rmmod for NVIDIA's modules; kmod's own do the others (see bin/modprobe).

Loads what is installed for the running kernel, by the rules of life: a GPU must be free, Secure Boot must trust the module, helpers are
unloaded first, and users of the devices keep the modules in the kernel.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import simgpu_boot
import simgpu_kernel
import simgpu_profile

HELPERS = ("nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_peermem")
DAEMONS = ("nvidia-persistenced.service", "nvidia-fabricmanager.service")
CAP_SYS_MODULE = 16


def is_loaded(name: str) -> bool:
    return os.path.isdir(f"/sys/module/{name}")


def _holds(pid: str) -> bool:
    """Whether a process has a GPU open, or runs in a container that was given one (a privileged one has every device)."""
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{number}").startswith("/dev/nvidia"):
                return True
        # Services have mounts of their own too, but the host's devices.
        devices = os.path.join("/proc", pid, "root", "dev")
        own = os.stat(devices).st_dev == os.stat("/dev").st_dev
        nodes = [] if own else [name for name in os.listdir(devices) if name.startswith("nvidia")]
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            privileges = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:"))
    except (OSError, StopIteration):
        return False
    return bool(nodes) and not privileges >> CAP_SYS_MODULE & 1


def _command_line(pid: str) -> str:
    """The command of a process; empty for one that has just ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def users(profile: dict[str, str]) -> list[str]:
    """What keeps the modules in use."""
    pids = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    found = [f"process {pid}" for pid in pids if _holds(pid)]
    lines = {pid: _command_line(pid) for pid in pids}
    for gpu in simgpu_profile.gpus(profile):
        for key, value in gpu.items():
            who = value.partition(",")[0]
            if key.startswith("process."):
                found += [f"process {pid}" for pid, line in lines.items() if (who == pid if who.isdigit() else who in line)]
    active = subprocess.run(["systemctl", "is-active", *DAEMONS], check=False, capture_output=True, text=True).stdout.split()
    return found + [name for name, state in zip(DAEMONS, active) if state == "active"]


def load(name: str, profile: dict[str, str]) -> str | None:
    """Loads a module with what it needs; returns what kmod would complain about."""
    if is_loaded(name):
        return None
    module = simgpu_kernel.module_of(platform.release())
    if not module:
        return f"FATAL: Module {name} not found in directory /lib/modules/{platform.release()}"
    if is_loaded("nvidia"):
        simgpu_boot.show_module(name, module.version, module.flavour)
        return None
    reason = simgpu_boot.refusal(profile, module)
    if reason:
        return f"ERROR: could not insert 'nvidia': {reason}"
    simgpu_boot.load(profile, module.version, module.flavour)
    simgpu_boot.describe_devices(profile, module.version)
    simgpu_boot.wake_persistenced()
    return None


def unload(name: str, profile: dict[str, str]) -> str | None:
    """Takes a module out; returns what kmod would complain about."""
    if not is_loaded(name):
        return None
    if name in simgpu_profile.RIVALS:
        return f"FATAL: Module {name} is in use."
    held = users(profile)
    if held and name != "nvidia_modeset":
        return f"FATAL: Module {name} is in use."
    if name != "nvidia":
        shutil.rmtree(f"/sys/module/{name}")
        return None
    if any(is_loaded(helper) for helper in HELPERS):
        return "FATAL: Module nvidia is in use."
    simgpu_boot.load(profile, None, "")
    simgpu_boot.describe_devices(profile, None)
    return None


def main(program: str, arguments: list[str]) -> int:
    names = [word.replace("-", "_") for word in arguments if not word.startswith("-") and "=" not in word]
    removing = program == "rmmod" or any(
        word in ("--remove", "--remove-holders") or (word.startswith("-") and word[1:2] != "-" and "r" in word) for word in arguments
    )
    every = removing or any(word in ("--all",) or (word.startswith("-") and word[1:2] != "-" and "a" in word) for word in arguments)
    quiet = any(word in ("-q", "--quiet") for word in arguments)
    if any(word in ("-n", "--dry-run", "--show") for word in arguments):
        return 0
    profile = simgpu_profile.now()
    for name in names if every else names[:1]:
        if program == "rmmod" and not is_loaded(name):
            print(f"rmmod: ERROR: Module {name} is not currently loaded", file=sys.stderr)
            return 1
        complaint = unload(name, profile) if removing else load(name, profile)
        if complaint:
            if not quiet:
                print(f"{program}: {complaint}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
