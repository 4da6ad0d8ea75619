# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document ``ansible_facts['dify_plan']``, and what is to be looked at on the host before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _app_decision,
    _app_needs,
    _app_override,
    _app_release,
    _app_services,
    _document,
    _findings,
    _plan_codes,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_decision import Decision
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_options import ABSENT, DEPLOYED, EXTERNAL, Settings, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_release import PART, Wanted
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block

SCHEMA = 1


def look(settings: Settings, wanted: Wanted | None) -> dict[str, Any]:
    """Return the options of dify_app_facts: what it is to look at for the plan."""
    found: dict[str, Any] = {
        "home": settings.home,
        "project": settings.project,
        "backup_dir": settings.backup_dir,
        "version": settings.version if settings.state == DEPLOYED else "",
        "files": [],
        "images": [],
        "ports": [],
        "env": None,
        "databases": [],
    }
    if wanted is None:
        return found
    files = [settings.override, settings.env_file, f"{settings.home}/secrets/dify.env", *_app_decision.upstream_files(settings, wanted)]
    ports = sorted({port for _address, port in _app_needs.ports(settings, wanted)})
    return {**found, "files": files, "images": list(wanted.images), "ports": ports, "env": env_options(settings, wanted)}


def env_options(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    """Return the options of dify_env, without the secrets that are given."""
    release = wanted.release
    return {
        "path": settings.env_file,
        "template": f"{settings.directory}/.env.example",
        "settings": dict(wanted.env),
        "secrets_file": f"{settings.home}/secrets/dify.env",
        "secrets": [dict(item) for item in release.secrets],
        "derived": dict(release.derived),
        "forbidden": {name: list(digests) for name, digests in release.forbidden.items()},
    }


def make(settings: Settings, wanted: Wanted | None, facts: object, nvidia: object, host: str, found: list[Block]) -> dict[str, Any]:
    """Return the plan.

    Args:
        settings: the operator's.
        wanted: the release with them; None where there is none, or where it could not be read.
        facts: the document of dify_app_facts, of which anything may be missing or wrong.
        nvidia: the facts of nvidia_facts, for Docker Compose's version.
        host: its name in the inventory.
        found: what is in the way already.
    """
    decision = _app_decision.decide(settings, wanted, facts)
    blocks = [*found, *decision.blocks, *_option_blocks(settings), *_fact_blocks(facts)]
    if wanted is not None:
        blocks += _app_decision.secret_blocks(facts)
    needs: _app_needs.Needs | None = None
    unpack = settings.version not in _document.texts(facts, "releases")
    backup = decision.action in (_app_decision.UPGRADE, _app_decision.ROLLBACK)
    if wanted is not None and decision.action not in (_app_decision.NONE, _app_decision.REMOVE):
        needs = _app_needs.needs(settings, wanted, facts, unpack, backup)
    if wanted is not None and needs is not None and not _under_way(decision):
        blocks += _app_needs.port_blocks(_app_needs.ports(settings, wanted), facts)
        blocks += _app_needs.disk_blocks(needs, facts) + _app_needs.memory_blocks(needs, facts) + _app_needs.compose_blocks(wanted, nvidia)
    if wanted is not None:
        blocks += _app_release.trouble(wanted, settings)
    status = "blocked" if blocks else "ok" if decision.action == _app_decision.NONE else "change"
    plan: dict[str, Any] = {
        "schema": SCHEMA,
        "host": host,
        "state": settings.state,
        "status": status,
        "action": decision.action,
        "from": decision.before,
        "to": settings.version if settings.state == DEPLOYED else None,
        "reason": decision.reason,
        "blocked": [block.as_dict() for block in blocks],
        "warnings": _warnings(settings, wanted, decision),
        "project": settings.project,
        **_of_release(settings, wanted, facts, unpack),
        "containers": decision.containers.as_dict(),
        "order": {"stop": _app_services.stop_order(wanted.services) if wanted is not None and _stops(decision) else []},
        "backup": _backup(settings, wanted) if wanted is not None and (backup or decision.action == _app_decision.FINISH) else None,
        "tls": {"certificate": f"nginx/ssl/{_app_release.CERTIFICATE}", "key": f"nginx/ssl/{_app_release.KEY}"} if settings.tls else None,
        "needs": needs.as_dict() if needs is not None else {"disk": {}, "memory_mib": 0, "download_images": 0},
        "model_server": _model_server(settings),
        "remove_data": settings.remove_data and settings.state == ABSENT,
        "resume": dict(decision.resume) if decision.resume is not None else None,
        "downtime": decision.downtime,
    }
    return plan


def _under_way(decision: Decision) -> bool:
    """Whether an interrupted run has stopped services already: half an upgrade is worse than little room."""
    return decision.resume is not None and decision.resume["phase"] != "pull"


def _stops(decision: Decision) -> bool:
    return decision.action in (_app_decision.UPGRADE, _app_decision.ROLLBACK, _app_decision.FINISH)


def _of_release(settings: Settings, wanted: Wanted | None, facts: object, unpack: bool) -> dict[str, Any]:
    if wanted is None:
        return {"release": None, "services": [], "images": [], "files": {}, "env": None, "databases": []}
    missing = set(_app_needs.missing_images(wanted, facts))
    release = wanted.release
    return {
        "release": {
            "version": settings.version,
            "archive": settings.archive,
            "sha256": release.sha256,
            "directory": f"{settings.home}/releases/{settings.version}",
            "unpack": unpack,
            "layout": release.layout,
            "compose_min": _app_needs.compose_min(wanted),
        },
        "services": [_service(service, wanted) for service in wanted.services],
        "images": [{"reference": name, "present": name not in missing, "services": users} for name, users in wanted.images.items()],
        "files": {
            settings.override: {
                "content": wanted.override.content,
                "sha256": wanted.override.sha256,
                "mode": _app_override.FILE_MODE,
            }
        },
        "env": env_options(settings, wanted),
        "databases": _app_release.databases(wanted),
    }


def _service(service: _app_services.Service, wanted: Wanted) -> dict[str, Any]:
    return {
        "name": service.name,
        "image": wanted.image(service),
        "kind": service.kind,
        "one_shot": service.one_shot,
        "health": service.health,
        "healthcheck": service.healthcheck,
        "depends_on": list(service.depends_on),
    }


def _backup(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    volumes = _app_services.state_volumes(wanted.document, wanted.services, settings.project)
    return {"paths": _app_services.state_paths(wanted.services), "volumes": volumes, "keep": settings.backup_keep}


def _model_server(settings: Settings) -> dict[str, Any] | None:
    server = settings.server
    if server is None or settings.state == ABSENT:
        return None
    return {
        "endpoint_url": server.endpoint_url,
        "network": server.network,
        "embedding_model": server.embedding_model,
        "rerank_model": server.rerank_model,
        "register": server.register,
    }


def _option_blocks(settings: Settings) -> list[Block]:
    found = []
    if settings.url_trouble:
        found.append(Block(PART, _plan_codes.APP_OPTION, settings.url_trouble))
    server = settings.server
    if settings.state == EXTERNAL and not settings.url and server is not None and server.register:
        found.append(Block(PART, _plan_codes.APP_OPTION, f"{option('url')} has to be the address of the Dify that is there already."))
    if settings.state != ABSENT and server is not None and server.register and not server.key_known:
        told = f"The models of {server.endpoint_url} are to be registered, and its API key is not known here."
        found.append(Block(PART, _plan_codes.APP_NO_KEY, told))
    return found


def _fact_blocks(facts: object) -> list[Block]:
    error = _document.text(facts, "error")
    return [Block(PART, _plan_codes.DIFY_NOT_READABLE, f"What runs on the host could not be read: {error}")] if error else []


def _warnings(settings: Settings, wanted: Wanted | None, decision: Decision) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    if decision.resume is not None:
        found.append(_findings.warning(_plan_codes.APP_INTERRUPTED, decision.reason.rstrip(".")))
    if wanted is None:
        return found
    unknown = sorted(set(settings.env) - wanted.release.known - wanted.release.secret_names)
    if unknown:
        told = f"{option('env')} has {', '.join(unknown)}, which release {settings.version} does not know"
        found.append(_findings.warning(_plan_codes.APP_UNKNOWN_KEY, told))
    loose = [reference for reference in wanted.images if _app_services.unpinned(reference)]
    if loose:
        found.append(_findings.warning(_plan_codes.APP_UNPINNED, f"{', '.join(sorted(loose))} may be another image tomorrow"))
    if wanted.release.unknown_secrets:
        told = f"{', '.join(sorted(wanted.release.unknown_secrets))} look like secrets with a public default that is not known here"
        found.append(_findings.warning(_plan_codes.APP_DEFAULT_KEPT, told))
    return found


def merged(options: Mapping[str, Any], name: str, facts: Mapping[str, Any]) -> Any:
    """Return the facts that an option hands in, or those of the host."""
    return options[name] if options.get(name) is not None else facts.get(name)
