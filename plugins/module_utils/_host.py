# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host itself: distribution, kernel, Secure Boot, virtualization.

This is private to difyops.gpu.
"""

from __future__ import annotations

import os
import shlex

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts

_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_FAMILIES = {"debian": "debian", "ubuntu": "debian", "rhel": "rhel", "fedora": "rhel", "centos": "rhel"}


def facts(root: str) -> Facts:
    """Return what does not change while the host runs."""
    system = os.uname()
    return {
        "os": distribution(_sysfs.read(root, "etc/os-release") or _sysfs.read(root, "usr/lib/os-release") or ""),
        "architecture": system.machine,
        "kernel": {"running": system.release, "next": None},
        "secure_boot": secure_boot(root),
        "virtualization": _virtualization(),
        "nouveau_loaded": _sysfs.module_loaded(root, "nouveau"),
        "nova_core_loaded": _sysfs.module_loaded(root, "nova_core"),
    }


def distribution(text: str) -> Facts:
    """Return the distribution that an os-release file describes; None for what it does not say."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if sign and not key.startswith("#"):
            try:
                values[key] = " ".join(shlex.split(value))
            except ValueError:  # an unpaired quote
                continue
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    return {
        "id": values.get("ID") or None,
        "version": values.get("VERSION_ID") or None,
        "family": next((_FAMILIES[name] for name in names if name in _FAMILIES), None),
        "name": values.get("PRETTY_NAME") or None,
    }


def secure_boot(root: str) -> bool | None:
    """Say whether Secure Boot is on; None when it cannot be known, as in a container that hides the firmware."""
    if "efi" not in _sysfs.listing(root, "sys/firmware"):
        return False if _sysfs.listing(root, "sys/firmware") else None
    try:
        with open(os.path.join(root, "sys/firmware/efi/efivars", _SECURE_BOOT), "rb") as file:
            variable = file.read(5)
    except OSError:
        return None
    # Four bytes of attributes, then the value.
    return variable[4] == 1 if len(variable) == 5 else None


def _virtualization() -> str | None:
    program = _command.find("systemd-detect-virt")
    if program is None:
        return None
    try:
        # Ends with 1 on bare metal, where it says none.
        return _command.run([program], 5.0).out.strip() or None
    except _command.CannotStart:
        return None
