# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIMULATED hosts for the tests of engine and toolkit: facts of each system, and answers of a package manager."""

from __future__ import annotations

import copy
from typing import Any

import driver_scenarios
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _engine_settings,
    _engine_work,
    _host,
    _planner,
    _platform_work,
    _toolkit_settings,
    _toolkit_work,
)

PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
WEB = {"id": "aa11", "name": "web", "image": "nginx", "restart_policy": "no", "auto_remove": False, "project": None}
DIFY = {
    "id": "bb22",
    "name": "dify-gpu-dify-gpu-1",
    "image": "x",
    "restart_policy": "unless-stopped",
    "auto_remove": False,
    "project": "dify-gpu",
}
ONCE = {"id": "cc33", "name": "once", "image": "busybox", "restart_policy": "no", "auto_remove": True, "project": None}

_NO_ENGINE: dict[str, Any] = {
    "name": None,
    "version": None,
    "running": None,
    "error": None,
    "compose_version": None,
    "buildx_version": None,
    "runtimes": [],
    "cdi_enabled": None,
    "cdi_spec_dirs": [],
    "live_restore": None,
    "packages": [],
    "origin": None,
    "containers": None,
    "service": None,
    "pins": [],
    "broken": [],
    "managed": {},
    "journal": None,
    "gpu_containers": None,
    "daemon_config": {"path": "/etc/docker/daemon.json", "exists": False, "content": {}, "sha256": None, "error": None},
}
_NO_TOOLKIT: dict[str, Any] = {
    "packages": dict.fromkeys(PACKAGES),
    "version": None,
    "lockstep": None,
    "mode": None,
    "pinned": None,
    "pins": [],
    "broken": [],
    "managed": {},
    "refresh": None,
    "cdi": {"directories": ["/etc/cdi", "/var/run/cdi"], "specs": []},
}


def bare(system: str = "debian", version: str = "13") -> dict[str, Any]:
    """Return the facts of a host with a GPU and its driver, and nothing of Docker or the toolkit."""
    facts = driver_scenarios.with_driver(driver_scenarios.facts(system, version), "580.95.05", ["nvidia-utils-580"])
    return {**facts, "engine": copy.deepcopy(_NO_ENGINE), "toolkit": copy.deepcopy(_NO_TOOLKIT)}


def with_engine(facts: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return facts in which a Docker runs that will do."""
    facts["engine"].update(
        name="docker",
        version="28.5.2",
        running=True,
        compose_version="2.40.3",
        buildx_version="0.29.1",
        runtimes=["runc"],
        cdi_enabled=True,
        cdi_spec_dirs=["/etc/cdi", "/var/run/cdi"],
        live_restore=False,
        packages=[{"name": "docker-ce", "version": "5:28.5.2-1"}],
        origin="docker",
        containers=[],
        service={"enabled": True, "active": True},
        gpu_containers=[],
    )
    facts["engine"].update(changed)
    return facts


def with_toolkit(facts: dict[str, Any], version: str = "1.19.1", **changed: Any) -> dict[str, Any]:
    """Return facts in which this toolkit is installed and its units have made the specification."""
    refresh = {"path_enabled": True, "path_active": True, "service_enabled": True, "feature_flags": []}
    spec = {
        "path": "/var/run/cdi/nvidia.yaml",
        "kind": "nvidia.com/gpu",
        "devices": ["0", "all"],
        "stale": False,
        "reasons": [],
        "error": None,
    }
    facts["toolkit"].update(
        packages=dict.fromkeys(PACKAGES, f"{version}-1"),
        version=version,
        lockstep=True,
        pinned=False,
        refresh=refresh,
        cdi={"directories": ["/etc/cdi", "/var/run/cdi"], "specs": [spec]},
    )
    facts["toolkit"].update(changed)
    return facts


def answer(query: dict[str, Any], version: str | None, revision: str = "-1", **changed: Any) -> dict[str, Any]:
    """Return what the package manager of a host says: that the first alternative comes in this version."""
    names = query["alternatives"][0] if query["alternatives"] else []
    install = [{"name": name, "from": None, "to": f"{version}{revision}"} for name in names] if version else []
    return {
        "manager": "apt",
        "lists_at": "2026-11-22T14:05:00Z",
        "locked_by": None,
        "broken": [],
        "sources": [],
        "available": {name: [version] for name in names} if version else {},
        "choice": 0 if version else None,
        "version": version,
        "install": install,
        "remove": [],
        "also": {},
        "download_mib": 60,
        "needed_mib": 200,
        "free_mib": {"/usr": 9000, "/var": 9000, "/boot": 300},
        "brought": [],
        "error": None if version else "no such package",
        **changed,
    }


def engine(
    facts: dict[str, Any], packages: dict[str, Any] | None = None, toolkit: dict[str, Any] | None = None, **given: Any
) -> dict[str, Any]:
    """Return the document gpu_engine of a host."""
    settings = _engine_settings.parse(given)
    wishes = _planner.Wishes("host", engine=settings, toolkit=_toolkit_settings.parse(toolkit), apply=frozenset({"engine"}))
    host = _host.read(facts)
    return _engine_work.make(host, _planner.engine_of(host, wishes), settings, _platform_work.Told(packages))


def toolkit(facts: dict[str, Any], packages: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    """Return the document gpu_toolkit of a host."""
    settings = _toolkit_settings.parse(given)
    wishes = _planner.Wishes("host", toolkit=settings, apply=frozenset({"toolkit"}))
    host = _host.read(facts)
    return _toolkit_work.make(host, _planner.toolkit_of(host, wishes), settings, _platform_work.Told(packages))


def codes(document: dict[str, Any], where: str = "blocked") -> list[str]:
    """Return the codes of what is in the way, or of the warnings."""
    return [entry["code"] for entry in document[where]]
