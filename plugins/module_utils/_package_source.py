# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which package manager a host has, and its answer.

This is private to difyops.gpu.
"""

from __future__ import annotations

import importlib.util
import os

from ansible_collections.difyops.gpu.plugins.module_utils import _apt, _command, _dnf, _host, _package_query, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._sysfs import Facts

# Where the Python API of dnf may be, when it is not in Ansible's own interpreter.
INTERPRETERS = ("/usr/libexec/platform-python", "/usr/bin/python3")
_PROGRAMS = {"apt": ("apt-get", "dpkg-query"), "dnf": ("dnf", "rpm")}


def manager(root: str) -> str | None:
    """Return the package manager of the host: that of its family first, since a host may have both."""
    told = _host.distribution(_sysfs.read(root, "etc/os-release") or _sysfs.read(root, "usr/lib/os-release") or "")
    for name in sorted(_PROGRAMS, reverse=told["family"] == "rhel"):
        if all(_command.find(program) for program in _PROGRAMS[name]):
            return name
    return None


def has_dnf() -> bool:
    """Say whether this interpreter has the Python API of dnf."""
    return importlib.util.find_spec("dnf") is not None


def ask(query: _package_query.Query, name: str | None, root: str, timeout_s: float) -> Facts:
    """Return the answer of a package manager; one that says why where there is none to ask."""
    if name == "apt":
        return _apt.ask(query, root, timeout_s)
    if name == "dnf" and has_dnf():
        return _dnf.ask(query, os.path.abspath(root), timeout_s)
    told = _package_query.answer(root, name, query)
    reason = "dnf is there without its Python API (package python3-dnf)" if name else "Neither apt nor dnf is on this host"
    return {**told, "error": f"{reason}, so nobody can say which packages could be installed."}
