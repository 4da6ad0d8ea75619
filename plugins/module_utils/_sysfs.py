# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says about NVIDIA GPUs and their driver, in /sys and /proc. True without any NVIDIA software.

This is private to difyops.gpu.
"""

from __future__ import annotations

import os
import re

from ansible_collections.difyops.gpu.plugins.module_utils import _observer
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts, Observation

SOURCE = "sysfs"
NVIDIA = "0x10de"
_VERSION = re.compile(r"\b([0-9]{3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?)\b")


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


def gpus(root: str) -> list[Facts]:
    """Return every NVIDIA display or 3D controller on PCI, whatever drives it, sorted by address."""
    found = []
    for address in listing(root, "sys/bus/pci/devices"):
        device = os.path.join("sys/bus/pci/devices", address)
        if read(root, device, "vendor") != NVIDIA or not (read(root, device, "class") or "").startswith("0x03"):
            continue
        found.append(
            {
                "pci_address": address.lower(),
                "vendor_id": NVIDIA,
                "device_id": read(root, device, "device"),
                "subsystem_vendor_id": read(root, device, "subsystem_vendor"),
                "subsystem_device_id": read(root, device, "subsystem_device"),
                "class": read(root, device, "class"),
                "bound_driver": _bound_driver(os.path.join(root, device, "driver")),
            }
        )
    return found


def _bound_driver(link: str) -> str | None:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return None


def module_loaded(root: str, name: str) -> bool:
    """Say whether a kernel module is loaded (or built in)."""
    return os.path.isdir(os.path.join(root, "sys/module", name))


def loaded_driver(root: str) -> Facts | None:
    """Return version and flavour of the loaded nvidia module, None when none is loaded."""
    text = read(root, "proc/driver/nvidia/version")
    version, flavour = parse_version(text or "")
    version = read(root, "sys/module/nvidia/version") or version
    if text is None and not module_loaded(root, "nvidia"):
        return None
    return {"version": version, "flavour": flavour}


def parse_version(text: str) -> tuple[str | None, str | None]:
    """Return version and flavour that /proc/driver/nvidia/version tells; None for what it does not."""
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), "")
    version = _VERSION.search(line)
    if "Open Kernel Module" in line:
        return (version and version[1]) or None, "open"
    return (version and version[1]) or None, "proprietary" if "Kernel Module" in line else None


def parse_information(text: str) -> Facts:
    """Return name and UUID from a GPU's file in /proc/driver/nvidia/gpus; None for what is not known there yet."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    uuid = lines.get("GPU UUID", "").strip()
    return {
        "name": lines.get("Model", "").strip() or None,
        # The driver writes question marks until the GPU was used for the first time.
        "uuid": uuid if uuid and "?" not in uuid else None,
    }


class SysfsObserver:
    """The last resort: names and UUIDs from /proc. The driver answers these too, so they may hang like it."""

    source = SOURCE

    def __init__(self, guard: _observer.Guard, root: str) -> None:
        self._guard = guard
        self._root = root

    def observe(self) -> Observation:
        answer = self._guard.call(self._collect)
        if isinstance(answer, Observation):
            return answer
        return Observation(SOURCE, ok=True, gpus=answer)

    def _collect(self) -> Facts:
        directory = "proc/driver/nvidia/gpus"
        texts = {name: read(self._root, directory, name, "information") for name in listing(self._root, directory)}
        return {name.lower(): parse_information(text) for name, text in texts.items() if text is not None}
