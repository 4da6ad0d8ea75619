# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole release for tests of the planner, read from an archive in upstream's shape, and facts of a host after a plan."""

from __future__ import annotations

import copy
import functools
import sys
import tempfile
from pathlib import Path

import yaml
from ansible_collections.difyops.gpu.plugins.action import dify_plan
from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_document, _app_load, _app_options, _app_release

MAKER = Path(__file__).parents[3] / "simhost/release"
URL = "http://dify.example.org"


@functools.lru_cache(maxsize=8)
def packed(version):
    """Return the archive of a release, or one of those that are broken, as it is in its file."""
    sys.path.insert(0, str(MAKER))
    try:
        import upstream_release
    finally:
        sys.path.remove(str(MAKER))
    return upstream_release.broken(version) if version in upstream_release.BROKEN else upstream_release.make(version)


def archive_file(version, folder):
    """Write the archive of a release into a folder and return its path."""
    path = folder / f"dify-{version}.tar.gz"
    path.write_bytes(packed(version))
    return str(path)


@functools.lru_cache(maxsize=8)
def release(version="1.17.1"):
    """Return a release as the planner takes it."""
    with tempfile.TemporaryDirectory() as folder:
        return _app_load.read(archive_file(version, Path(folder)), _app_options.Settings(version=version)).release


def settings(**options):
    """Return checked settings, those of the defaults with a site's URL."""
    return _app_options.settings(dify_plan.validated({"url": URL, **options}))


def wanted(of=None, **options):
    """Return a release with settings."""
    chosen = settings(**options)
    return chosen, _app_release.combine(of or release(chosen.version), chosen)


def plan(facts, of=None, nvidia=None, **options):
    """Return the plan of a host with the facts."""
    chosen, made = wanted(of, **options) if options.get("state", "deployed") == "deployed" else (settings(**options), None)
    return _app_document.make(chosen, made, facts, nvidia, "h1", [])


def bare():
    """Return the facts of a host with nothing of Dify on it."""
    return {
        "schema": 1,
        "home": "/opt/dify",
        "project": "dify",
        "current": None,
        "current_error": None,
        "releases": [],
        "files": {},
        "env": None,
        "secrets": {"exists": False, "keys": []},
        "images": {},
        "containers": [],
        "backups": [],
        "journal": None,
        "docker_root": None,
        "disk": {
            "/opt/dify": {"free_mib": 90000, "file_system": 1},
            "/var/lib/docker": {"free_mib": 90000, "file_system": 1},
            "/var/backups/dify": {"free_mib": 50000, "file_system": 2},
        },
        "memory": {"total_mib": 15900, "available_mib": 9000},
        "ports": [],
        "volumes_mib": None,
        "database": {},
        "registration": None,
        "error": None,
    }


def applied(made):
    """Return the facts of a host on which a plan was carried out."""
    facts = bare()
    directory = f"{made['release']['directory']}/docker"
    labels = {name: item["labels"]["org.difyops.config"] for name, item in override(made)["services"].items()}
    facts.update(current=made["to"], releases=[made["to"]])
    facts["files"] = {path: {"exists": True, "sha256": file["sha256"], "mode": file["mode"]} for path, file in made["files"].items()}
    facts["files"][f"{directory}/docker-compose.yaml"] = {"exists": True, "sha256": release(made["to"]).compose_sha256, "mode": "0644"}
    for path in (f"{directory}/.env", "/opt/dify/secrets/dify.env"):
        facts["files"][path] = {"exists": True, "sha256": "b" * 64, "mode": "0600"}
    facts["env"] = {"changes": {"added": [], "changed": [], "removed": []}, "generates": [], "replaces": [], "defaults": [], "error": None}
    facts["images"] = {item["reference"]: {"id": f"sha256:{item['reference']}"} for item in made["images"]}
    for service in made["services"]:
        name = service["name"]
        facts["containers"].append(
            {
                "name": f"dify-{name}-1",
                "service": name,
                "image": service["image"],
                "image_id": f"sha256:{service['image']}",
                "state": "exited" if service["one_shot"] else "running",
                "exit_code": 0 if service["one_shot"] else None,
                "health": "healthy" if service["healthcheck"] else None,
                "labels": {"org.difyops.config": labels[name], "com.docker.compose.project.working_dir": directory},
                "env_applied": True,
            }
        )
    facts["ports"] = [{"address": "0.0.0.0", "port": 80, "pid": 7, "name": "docker-proxy", "container": "dify-nginx-1"}]
    return facts


def override(made):
    """Return the override of a plan as data."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))
    (file,) = made["files"].values()
    return yaml.load(file["content"], Loader)  # noqa: S506  a safe loader with one tag more


def changed(facts, **values):
    """Return a copy of facts with other values."""
    return {**copy.deepcopy(facts), **values}


def codes(made):
    """Return the codes that block a plan."""
    return [block["code"] for block in made["blocked"]]
