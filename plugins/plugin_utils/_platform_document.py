# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents gpu_engine and gpu_toolkit with nothing in them, so that every key is there always (docs/contracts.md)."""

from __future__ import annotations

from typing import Any

SCHEMA = 1


def common() -> dict[str, Any]:
    """Return what both documents have."""
    return {
        "schema": SCHEMA,
        "host": "",
        "status": "ok",
        "action": "none",
        "from": None,
        "to": None,
        "reason": "",
        "blocked": [],
        "warnings": [],
        "exact": True,
        "expects": None,
        "source": None,
        **no_work(),
    }


def no_work() -> dict[str, Any]:
    """Return the parts of both documents that are work, without any."""
    return {
        "repository": None,
        "query": None,
        "packages": {"install": [], "remove": [], "specs": [], "download_mib": 0},
        "pins": {"release": {"holds": [], "versionlocks": []}, "files": {}, "holds": [], "versionlocks": []},
        "repair": False,
        "daemon_config": None,
        "activation": "none",
    }


def engine() -> dict[str, Any]:
    """Return the document gpu_engine in which nothing is to be done."""
    return {**common(), "service": None, "guard": None, "restart": []}


def toolkit() -> dict[str, Any]:
    """Return the document gpu_toolkit in which nothing is to be done."""
    return {**common(), "injection": None, "cdi": None, "containers": []}
