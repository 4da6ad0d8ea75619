# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts documents for the tests of the decide phase, and what a host looks like after its plan was carried out."""

from __future__ import annotations

import datetime
from typing import Any

import yaml
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _compose, _planner, _recipe
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings

TODAY = datetime.date(2026, 11, 22)
CATALOG = _catalog.load([], "difyops/dify-gpu", "0.1.0")

# PCI device id and compute capability, from NVIDIA's own lists.
A10, A30, A100, H100, P4, T4, V100, B200, RTX_3090 = (
    ("0x2236", "8.6"),
    ("0x20b7", "8.0"),
    ("0x20b0", "8.0"),
    ("0x2330", "9.0"),
    ("0x1bb3", "6.1"),
    ("0x1eb8", "7.5"),
    ("0x1db4", "7.0"),
    ("0x2901", "10.0"),
    ("0x2204", "8.6"),
)


def gpu(board: tuple[str, str] = A10, slot: int = 5, **changed: Any) -> dict[str, Any]:
    """Return a healthy GPU as a driver of today reports it."""
    device_id, capability = board
    return {
        "pci_address": f"0000:00:{slot:02x}.0",
        "vendor_id": "0x10de",
        "device_id": device_id,
        "bound_driver": "nvidia",
        "index": 0,
        "name": None,
        "compute_capability": capability,
        "compute_mode": "default",
        "health": "ok",
        "mig": {"current": False, "pending": False, "devices": []},
        **changed,
    }


def nvidia(version: str | None = "535.247.01", gpus: list[dict[str, Any]] | None = None, **changed: Any) -> dict[str, Any]:
    """Return the facts of a host where everything works. `version` None is a host without a driver."""
    return {
        "schema": 1,
        "host": {
            "os": {"id": "debian", "version": "13", "family": "debian", "name": "Debian GNU/Linux 13 (trixie)"},
            "architecture": "x86_64",
            "kernel": {"running": "6.12.9-amd64", "next": None},
        },
        "gpus": [gpu()] if gpus is None else gpus,
        "driver": {
            "loaded": {"version": version, "flavour": "proprietary"} if version else None,
            "installed": {"version": version} if version else None,
            "cuda_version": None,
            "mismatch": False if version else None,
            "next_kernel_has_module": None,
            "reboot_required": None,
            "reboot_reasons": [],
        },
        "nvml": {"source": "nvml" if version else "sysfs", "error": None},
        "toolkit": {
            "version": "1.19.1",
            "lockstep": True,
            "packages": {},
            "pinned": None,
            "pins": [],
            "broken": [],
            "managed": {},
            "refresh": None,
            "cdi": {
                "specs": [{"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": ["0", "all"], "stale": None, "error": None}]
            },
        },
        "engine": {
            "name": "docker",
            "version": "26.1.5",
            "running": True,
            "error": None,
            "compose_version": "2.26.1-4",
            "buildx_version": "0.13.1",
            "cdi_enabled": True,
            "cdi_spec_dirs": ["/etc/cdi", "/var/run/cdi"],
            "runtimes": ["runc"],
            "live_restore": False,
            "packages": [{"name": "docker.io", "version": "26.1.5+dfsg1-9"}],
            "origin": "distribution",
            "containers": [],
            "service": {"enabled": True, "active": True},
            "pins": [],
            "broken": [],
            "managed": {},
            "journal": None,
            "gpu_containers": [],
            "daemon_config": {"path": "/etc/docker/daemon.json", "exists": False, "content": {}, "sha256": None, "error": None},
        },
        "warnings": [],
        **changed,
    }


def without_gpu() -> dict[str, Any]:
    """Return the facts of a host without a GPU and with a plain Docker."""
    facts = nvidia(None, [], toolkit={"version": None, "lockstep": None, "cdi": {"specs": []}})
    facts["engine"].update(cdi_enabled=None, cdi_spec_dirs=[])
    return facts


def wishes(**changed: Any) -> _planner.Wishes:
    """Return the decisions of the playbook for a host named h1: it leaves drivers, engine and toolkit alone. The build context is fixed."""
    of_the_playbook = {"driver": Settings(policy="keep"), "apply": frozenset({"image", "service"})}
    return _planner.Wishes(host="h1", **{"context_digest": lambda: "c0ffee", "today": TODAY, **of_the_playbook, **changed})


def plan(facts: object, dify: object = None, catalog: list[Any] | None = None, **changed: Any) -> dict[str, Any]:
    """Return the plan for these facts."""
    return _planner.make_plan(facts, dify, CATALOG if catalog is None else catalog, wishes(**changed))


def applied(made: dict[str, Any], service: _compose.Service | None = None) -> dict[str, Any]:
    """Return what dify_facts would see after the roles did what a plan says."""
    service = service or _compose.Service()
    image, reference = made["image"], made["image"]["reference"]
    labels = {_recipe.LABEL: image["build"]["recipe_digest"]} if image["build"] else {}
    files = made["render"]["files"]
    project = yaml.safe_load(files[service.compose_file]["content"])
    return {
        "schema": 1,
        "home": service.home,
        "files": {
            **{path: {"exists": True, "owner": "root", "mode": file["mode"], "sha256": file["sha256"]} for path, file in files.items()},
            service.secrets_dir: {"exists": True, "directory": True, "owner": "root", "mode": "0700", "sha256": None},
        },
        "secrets": {service.key_file: {"exists": True, "owner": "root", "mode": "0600", "matches": None}},
        "images": {
            reference: {"id": "sha256:1", "labels": labels, "repo_digests": [f"x@{image['digest']}"] if image["digest"] else []},
        },
        "containers": [
            {
                "name": "dify-gpu-dify-gpu-1",
                "service": service.name,
                "image": reference,
                "image_id": "sha256:1",
                "state": "running",
                "health": "healthy" if image["health"] else None,
                "restart_policy": "unless-stopped",
                "labels": project["services"][service.name]["labels"],
                "secrets_applied": True,
            }
        ],
        "error": None,
    }
