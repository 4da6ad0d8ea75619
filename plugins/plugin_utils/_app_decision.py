# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done about the upstream release on a host: what is there compared with what would be rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_override, _app_services, _document, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_options import ABSENT, EXTERNAL, Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_release import PART, Wanted
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block

NONE, INSTALL, CONFIGURE, UPGRADE = "none", "install", "configure", "upgrade"
ROLLBACK, REMOVE, FINISH = "rollback", "remove", "finish"
_WORKING_DIR = "com.docker.compose.project.working_dir"
_ONE_OFF = "com.docker.compose.oneoff"
# With another value of these nobody reads what was written with the former one.
_OF_THE_DATA = frozenset({"DB_PASSWORD", "SECRET_KEY"})


@dataclass(frozen=True)
class Containers:
    """What becomes of the containers: services without one, services whose container is made anew and why, names that go."""

    create: Sequence[str] = ()
    recreate: Sequence[tuple[str, str]] = ()
    remove: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.create or self.recreate or self.remove)

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        recreate = [{"service": service, "reason": reason} for service, reason in self.recreate]
        return {"create": list(self.create), "recreate": recreate, "remove": list(self.remove)}


@dataclass(frozen=True)
class Decision:
    """An action and its reason; `resume` is the journal of an interrupted run that is finished."""

    action: str
    reason: str
    before: str | None = None
    containers: Containers = Containers()
    blocks: tuple[Block, ...] = ()
    resume: Mapping[str, Any] | None = None

    @property
    def downtime(self) -> bool:
        """Whether Dify does not answer for a time."""
        touched = bool(self.containers.recreate or self.containers.remove)
        return self.action in (UPGRADE, ROLLBACK, REMOVE, FINISH) or (self.action == CONFIGURE and touched)


def decide(settings: Settings, wanted: Wanted | None, facts: object) -> Decision:
    """Return what is to be done. `wanted` is None with a Dify elsewhere, one that is to go, and a release that could not be read."""
    before = _document.text(facts, "current")
    foreign = _foreign(settings, facts)
    if settings.state == EXTERNAL:
        return Decision(NONE, "Dify runs elsewhere; the models are registered there.", before)
    if settings.state == ABSENT:
        return _removal(facts, before, foreign)
    if wanted is None:
        return Decision(NONE, "The release is not known.", before, blocks=foreign)
    journal = _document.at(facts, "journal")
    if journal:
        return _finish(settings, journal, facts, before, foreign)
    containers = _containers(settings, wanted, facts)
    if settings.rollback:
        return _rollback(settings, facts, before, containers, foreign)
    if before is None:
        return Decision(INSTALL, f"Dify is not there; release {settings.version} is installed.", None, containers, foreign)
    if before != settings.version:
        return _upgrade(settings, before, containers, foreign)
    return _same(settings, wanted, facts, containers, foreign)


def _finish(settings: Settings, journal: object, facts: object, before: str | None, foreign: tuple[Block, ...]) -> Decision:
    phase, to = _document.text(journal, "phase"), _document.text(journal, "to")
    if phase is None or to is None:
        why = _document.text(journal, "error") or "it has no phase or no target"
        unreadable = Block(PART, _plan_codes.APP_INTERRUPTED, f"A run was interrupted, and its journal tells nothing: {why}.")
        return Decision(NONE, "An interrupted run cannot be finished.", before, blocks=(*foreign, unreadable))
    if _document.at(facts, "busy") is True:
        at_work = Block(PART, _plan_codes.APP_INTERRUPTED, f"A run was interrupted (phase {phase}), and its last command is still at work.")
        return Decision(NONE, "An interrupted run has not ended.", before, blocks=(*foreign, at_work))
    action, back = _document.text(journal, "action") or UPGRADE, to != settings.version
    came_from = _document.text(journal, "from")
    resume = {
        "phase": phase,
        "action": action,
        "from": came_from,
        "to": to,
        "backup": _document.text(journal, "backup"),
        "go_back": back,
    }
    told = f"An interrupted {action} to {to} (phase {phase})"
    reason = f"{told} is undone first, since {settings.version} is wanted now." if back else f"{told} is finished."
    return Decision(FINISH, reason, came_from or before, blocks=foreign, resume=resume)


def _rollback(settings: Settings, facts: object, before: str | None, containers: Containers, foreign: tuple[Block, ...]) -> Decision:
    backup = next((item for item in _document.mappings(facts, "backups") if item.get("name") == settings.rollback), None)
    blocks = list(foreign)
    if backup is None:
        blocks.append(Block(PART, _plan_codes.APP_BACKUP, f"There is no backup {settings.rollback} in {settings.backup_dir}."))
    elif backup.get("complete") is not True:
        blocks.append(Block(PART, _plan_codes.APP_BACKUP, f"The backup {settings.rollback} is not complete."))
    elif backup.get("version") != settings.version:
        told = f"The backup {settings.rollback} is of release {backup.get('version')}, and {settings.version} is wanted."
        blocks.append(Block(PART, _plan_codes.APP_BACKUP, told))
    reason = f"Release {settings.version} comes back with the backup {settings.rollback}."
    return Decision(ROLLBACK, reason, before, containers, tuple(blocks))


def _upgrade(settings: Settings, before: str, containers: Containers, foreign: tuple[Block, ...]) -> Decision:
    old, new = _versions.parse(before), _versions.parse(settings.version)
    blocks = list(foreign)
    if old is not None and new is not None and new < old and not settings.allow_downgrade:
        told = f"Release {before} runs, and {settings.version} is older: its databases may not fit."
        blocks.append(Block(PART, _plan_codes.APP_DOWNGRADE, told))
    return Decision(UPGRADE, f"Release {before} runs, and {settings.version} is wanted.", before, containers, tuple(blocks))


def _same(settings: Settings, wanted: Wanted, facts: object, containers: Containers, foreign: tuple[Block, ...]) -> Decision:
    reasons = _file_differences(settings, wanted, facts) + _env_differences(facts)
    if containers.create:
        reasons.append(f"no container of {', '.join(containers.create)}")
    reasons += [f"{service} {why}" for service, why in containers.recreate]
    if containers.remove:
        reasons.append(f"{', '.join(containers.remove)} is no part of the release")
    if not reasons:
        return Decision(NONE, f"Release {settings.version} runs as wanted.", settings.version, blocks=foreign)
    told = f"Release {settings.version} runs otherwise than wanted: {'; '.join(reasons)}."
    return Decision(CONFIGURE, told, settings.version, containers, foreign)


def _removal(facts: object, before: str | None, foreign: tuple[Block, ...]) -> Decision:
    names = [str(item.get("name")) for item in _document.mappings(facts, "containers")]
    if not names and before is None and not _document.texts(facts, "releases"):
        return Decision(NONE, "Dify is not there.", None)
    return Decision(REMOVE, "Dify is to be absent.", before, Containers(remove=names), foreign)


def _foreign(settings: Settings, facts: object) -> tuple[Block, ...]:
    """Return the blocks for what stands in the place of the deployment and is not ours."""
    folders = {_document.text(item, "labels", _WORKING_DIR) for item in _document.mappings(facts, "containers")}
    others = sorted(path for path in folders if path and not path.startswith(f"{settings.home}/"))
    found = []
    if others:
        told = f"A compose project {settings.project} runs already from {', '.join(others)}, which is not below {settings.home}."
        found.append(Block(PART, _plan_codes.APP_FOREIGN, told))
    wrong = _document.text(facts, "current_error")
    if wrong:
        found.append(Block(PART, _plan_codes.APP_FOREIGN, wrong))
    return tuple(found) if settings.state != EXTERNAL else ()


def secret_blocks(facts: object) -> list[Block]:
    """Return a block where a secret is given that does not fit the data that is there."""
    names = sorted(_OF_THE_DATA & set(_document.texts(facts, "env", "replaces")))
    if not names or (_document.text(facts, "current") is None and not _document.mappings(facts, "containers")):
        return []
    told = f"{' and '.join(names)} of dify_secrets is not the value that the data of Dify on this host was made with."
    return [Block(PART, _plan_codes.APP_NOT_OF_THE_DATA, told)]


def upstream_files(settings: Settings, wanted: Wanted) -> dict[str, str]:
    """Return files of the release on the host with the SHA-256 that they have in its archive."""
    return {f"{settings.directory}/docker-compose.yaml": wanted.release.compose_sha256}


def _file_differences(settings: Settings, wanted: Wanted, facts: object) -> list[str]:
    expected = {settings.override: wanted.override.sha256, **upstream_files(settings, wanted)}
    found = []
    for path, digest in expected.items():
        file = _document.mapping(_document.mapping(facts, "files"), path)
        if file.get("exists") is not True:
            found.append(f"{path} is not there")
        elif file.get("sha256") != digest:
            found.append(f"{path} has another content")
    override = _document.mapping(_document.mapping(facts, "files"), settings.override)
    found += _access(override, settings.override, _app_override.FILE_MODE)
    for path in (settings.env_file, f"{settings.home}/secrets/dify.env"):
        file = _document.mapping(_document.mapping(facts, "files"), path)
        found += _access(file, path, "0600") if file.get("exists") is True else [f"{path} is not there"]
    return found


def _access(file: Mapping[str, Any], path: str, mode: str) -> list[str]:
    if file.get("exists") is not True or file.get("mode") in (None, mode):
        return []
    return [f"{path} has mode {file.get('mode')} instead of {mode}"]


def changed_keys(facts: object) -> list[str]:
    """Return the variables of `.env` that would change: names only."""
    kinds = ("added", "changed", "removed")
    return sorted({key for kind in kinds for key in _document.texts(facts, "env", "changes", kind)})


def _env_differences(facts: object) -> list[str]:
    keys = changed_keys(facts)
    found = [f".env changes in {', '.join(keys[:8])}{' and more' if len(keys) > 8 else ''}"] if keys else []
    missing = [key for key in _document.texts(facts, "env", "generates") if key not in keys]
    found += [f"{', '.join(missing)} is not there yet"] if missing else []
    error = _document.text(facts, "env", "error")
    found += [f".env cannot be compared ({error})"] if error else []
    defaults = _document.texts(facts, "env", "defaults")
    return found + ([f"{', '.join(defaults)} has a public default"] if defaults else [])


def _containers(settings: Settings, wanted: Wanted, facts: object) -> Containers:
    there = [item for item in _document.mappings(facts, "containers") if str(_document.at(item, "labels", _ONE_OFF)).lower() != "true"]
    by_service: dict[str, list[Mapping[str, Any]]] = {}
    for item in there:
        by_service.setdefault(str(item.get("service")), []).append(item)
    planned = {service.name for service in wanted.services}
    create = [service.name for service in wanted.services if service.name not in by_service]
    keys = set(changed_keys(facts))
    recreate = []
    for service in wanted.services:
        for item in by_service.get(service.name, []):
            why = _why(service, item, wanted, facts, keys)
            if why:
                recreate.append((service.name, "; ".join(why)))
                break
    remove = sorted(str(item.get("name")) for item in there if str(item.get("service")) not in planned)
    return Containers(create, recreate, remove)


def _why(service: _app_services.Service, item: Mapping[str, Any], wanted: Wanted, facts: object, keys: set[str]) -> list[str]:
    reference = wanted.image(service)
    found = []
    wanted_id = _document.text(_document.mapping(facts, "images"), reference, "id")
    if item.get("image") != reference or (wanted_id is not None and item.get("image_id") != wanted_id):
        found.append(f"runs the image {item.get('image')}" if item.get("image") != reference else f"runs an older image of {reference}")
    elif _document.text(item, "labels", _app_override.CONFIG_LABEL) != wanted.override.labels[service.name]:
        found.append("was made from another configuration")
    if item.get("env_applied") is False:
        found.append("has other variables than .env")
    elif keys and (service.env_file or keys & service.variables):
        found.append("takes variables of .env that change")
    return found + _state(service, item)


def _state(service: _app_services.Service, item: Mapping[str, Any]) -> list[str]:
    state = item.get("state")
    if service.one_shot:
        ended = state in ("running", "created") or item.get("exit_code") in (0, None)
        return [] if ended else [f"ended with {item.get('exit_code')}"]
    if state != "running":
        return [f"is {state}"]
    return ["is unhealthy"] if item.get("health") == "unhealthy" else []
