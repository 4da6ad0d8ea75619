# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says about NVIDIA GPUs and their driver, in /sys and /proc. True without any NVIDIA software.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

SOURCE = "sysfs"
NVIDIA = "0x10de"
_VERSION = re.compile(r"\b([0-9]{3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?)\b")

Facts = dict[str, Any]


def read(root: str, *parts: str) -> str | None:
    """Return the content of a small text file without the white space around it; None when it cannot be read."""
    try:
        with open(os.path.join(root, *parts), encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return None


def listing(root: str, *parts: str) -> list[str]:
    """Return the names in a directory, sorted; none when it cannot be read."""
    try:
        return sorted(os.listdir(os.path.join(root, *parts)))
    except OSError:
        return []


def devices(root: str, kind: str) -> list[tuple[str, str]]:
    """Return address and directory of each NVIDIA device on PCI whose class starts with ``kind``, sorted."""
    directory = os.path.join(root, "sys/bus/pci/devices")
    places = [(address, os.path.join(directory, address)) for address in listing(directory)]
    return [(name, place) for name, place in places if read(place, "vendor") == NVIDIA and (read(place, "class") or "").startswith(kind)]


def gpus(root: str) -> list[Facts]:
    """Return every NVIDIA display or 3D controller on PCI, whatever drives it, sorted by address."""
    return [
        {
            "pci_address": address.lower(),
            "vendor_id": NVIDIA,
            "device_id": read(device, "device"),
            "subsystem_vendor_id": read(device, "subsystem_vendor"),
            "subsystem_device_id": read(device, "subsystem_device"),
            "class": read(device, "class"),
            "bound_driver": os.path.basename(os.readlink(link)) if os.path.islink(link) else None,
        }
        for address, device in devices(root, "0x03")
        for link in [os.path.join(device, "driver")]
    ]


def nodes(root: str) -> list[str]:
    """Return the device nodes of the GPUs, sorted by name."""
    return [f"/dev/{name}" for name in listing(root, "dev") if re.fullmatch("nvidia[0-9]+", name)]


def openers(root: str) -> list[int]:
    """Return the processes that have a GPU open, whether the driver can be asked for them or not; an ordinary user sees only his own."""
    return [pid for pid in sorted(int(name) for name in listing(root, "proc") if name.isdigit()) if _has_gpu_open(root, pid)]


def _has_gpu_open(root: str, pid: int) -> bool:
    directory = os.path.join(root, "proc", str(pid), "fd")
    for name in listing(directory):
        with contextlib.suppress(OSError):
            if re.fullmatch(r"/dev/nvidia([0-9]+|-uvm)", os.readlink(os.path.join(directory, name))):
                return True
    return False


def module_loaded(root: str, name: str) -> bool:
    """Say whether a kernel module is loaded (or built in)."""
    return os.path.isdir(os.path.join(root, "sys/module", name))


def loaded_driver(root: str) -> Facts | None:
    """Return version and flavour of the loaded nvidia module, None when none is loaded."""
    text = read(root, "proc/driver/nvidia/version")
    version, flavour = parse_version(text or "")
    version = read(root, "sys/module/nvidia/version") or version
    return None if text is None and not module_loaded(root, "nvidia") else {"version": version, "flavour": flavour}


def parse_version(text: str) -> tuple[str | None, str | None]:
    """Return version and flavour that /proc/driver/nvidia/version tells; None for what it does not."""
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), "")
    version = _VERSION.search(line)
    flavour = "open" if "Open Kernel Module" in line else "proprietary" if "Kernel Module" in line else None
    return version[1] if version else None, flavour


def names(root: str) -> dict[str, Facts]:
    """Return name and UUID of each GPU by address. The driver answers this, so it may hang."""
    directory = os.path.join(root, "proc/driver/nvidia/gpus")
    return {address.lower(): parse_information(read(directory, address, "information") or "") for address in listing(directory)}


def parse_information(text: str) -> Facts:
    """Return name and UUID from a GPU's file in /proc/driver/nvidia/gpus; None for what is not known there yet."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    uuid = lines.get("GPU UUID", "").strip()
    # The driver writes question marks until the GPU was used for the first time.
    return {"name": lines.get("Model", "").strip() or None, "uuid": uuid if uuid and "?" not in uuid else None}
