# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decide phase: documented in plugins/modules/gpu_plan.py, decided in plugins/plugin_utils/_planner.py."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import json
import os.path
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _catalog,
    _document,
    _driver_notices,
    _driver_work,
    _engine_work,
    _findings,
    _fleet,
    _host,
    _notices,
    _options,
    _planner,
    _platform_work,
    _recipe,
    _selector,
    _toolkit_work,
    _upgrade,
    _upgrade_waves,
    _versions,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "nvidia": {"type": "dict"},
    "dify": {"type": "dict"},
    "scope": {"type": "str", "default": "host", "choices": ["host", "driver", "engine", "toolkit", "fleet", "upgrade"]},
    "hosts": {"type": "list", "elements": "str"},
    "missing": {"type": "str", "default": _fleet.BLOCK, "choices": list(_fleet.MISSING)},
    "gpus_of": {"type": "dict"},
    "fleet": {"type": "dict"},
    "upgrade": {"type": "dict", "default": {}},
    "labels": {"type": "dict", "default": {}},
    "apply": {"type": "list", "elements": "str", "choices": list(_planner.PARTS), "default": list(_planner.PARTS)},
    "driver": {"type": "dict", "default": {}},
    "engine": {"type": "dict", "default": {}},
    "toolkit": {"type": "dict", "default": {}},
    "packages": {"type": "dict"},
    "repository_key": {"type": "str", "default": ""},
    "gpus": {"type": "list", "elements": "str", "default": []},
    "variant": {"type": "str", "default": ""},
    "force": {"type": "bool", "default": False},
    "prefer": {"type": "str", "default": _selector.NEWEST, "choices": list(_selector.PREFERENCES)},
    "cpu_fallback": {"type": "str", "default": _planner.WHEN_NO_GPU, "choices": list(_planner.CPU_FALLBACKS)},
    "forward_compatibility": {"type": "bool", "default": False},
    "min_cuda": {"type": "str", "default": ""},
    "max_cuda": {"type": "str", "default": ""},
    "require_features": {"type": "list", "elements": "str", "default": []},
    "catalog": {"type": "list", "elements": "dict", "default": []},
    "catalog_defaults": {"type": "bool", "default": True},
    "image_repository": {"type": "str", "default": "difyops/dify-gpu"},
    "image_version": {"type": "str", "default": "0.1.0"},
    "image_context": {"type": "path", "default": ""},
    "image_build_host": {"type": "str", "default": ""},
    "image_push": {"type": "bool", "default": False},
    "image_base": {"type": "str", "default": "python:3.12-slim-bookworm"},
    "home": {"type": "str", "default": "/opt/dify-gpu"},
    "project": {"type": "str", "default": "dify-gpu"},
    "service_name": {"type": "str", "default": "dify-gpu"},
    "bind_address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 8000},
    "health_timeout": {"type": "int", "default": 300},
    "models_dir": {"type": "str", "default": ""},
    "embedding_model": {"type": "str", "default": "BAAI/bge-small-en-v1.5"},
    "rerank_model": {"type": "str", "default": ""},
    "environment": {"type": "dict", "default": {}},
}

_COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEFAULT_CONTEXT = os.path.join(_COLLECTION, "roles", "dify_image", "files", "image")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Turn facts, catalog and policy into a plan, on the controller and without a connection."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan. Raises AnsibleActionFail with one sentence when the options cannot be used."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if _versions.PACKAGING_ERROR is not None:
            raise AnsibleActionFail(f"gpu_plan needs the Python library packaging on the controller: {_versions.PACKAGING_ERROR}.")
        variables = task_vars or {}
        options = validated(self._task.args)
        if options["scope"] == "fleet":
            fleet = decide_fleet(options, variables)
            result.update(changed=False, fleet=fleet, ansible_facts={"gpu_fleet": fleet}, _ansible_verbose_override=True)
            return result
        if options["scope"] == "upgrade":
            upgrade = decide_upgrade(options, variables)
            result.update(changed=False, upgrade=upgrade, ansible_facts={"gpu_upgrade": upgrade}, _ansible_verbose_override=True)
            return result
        facts, host = variables.get("ansible_facts") or {}, str(variables.get("inventory_hostname", ""))
        if options["scope"] in _OF_A_PART:
            part = _OF_A_PART[options["scope"]](options, facts, host)
            result.update({"changed": False, options["scope"]: part, "ansible_facts": {f"gpu_{options['scope']}": part}})
            return result
        plan = make_plan(options, facts, host)
        # A verdict proves an earlier plan. Where facts are cached, it would pass for that of a run that was cut short after this plan.
        result.update(changed=False, plan=plan, ansible_facts={"gpu_plan": plan, "gpu_verdict": {}})
        return result


def make_plan(options: Mapping[str, Any], facts: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return the plan of a host for the checked options of one task. Raises AnsibleActionFail."""
    _refuse_fleet(options)
    _refuse_driver(options)
    nvidia = options["nvidia"] if options["nvidia"] is not None else facts.get("nvidia")
    # Empty as an option means not looked at yet. Empty as a fact is no observation either, and nobody said so.
    dify = options["dify"] if options["dify"] is not None else facts.get("dify") or None
    with _one_sentence():
        return _planner.make_plan(_plain(nvidia), _plain(dify), _catalog_of(options), _wishes(options, host))


def plan_driver(options: Mapping[str, Any], facts: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return the driver's part of a host's plan in full, the document ``gpu_driver``. Raises AnsibleActionFail."""
    _refuse_fleet(options)
    nvidia = options["nvidia"] if options["nvidia"] is not None else facts.get("nvidia")
    with _one_sentence():
        wishes = _wishes({**options, "apply": ["driver"]}, host)
        observed = _host.read(_plain(nvidia))
        decision = _planner.driver_of(observed, wishes)
        key = _key(options["repository_key"])
        document = _driver_work.make(observed, decision, wishes.driver, options["packages"] or None, wishes.today, key)
    if document["status"] == "blocked" and not decision.blocks:
        # What is in the way was known with the answer of the host only.
        found = [_findings.Block("driver", block["code"], block["message"], block["remedy"]) for block in document["blocked"]]
        decision = dataclasses.replace(decision, blocks=tuple(found))
    return _noted(document, host, _driver_notices.of_driver(observed, decision, wishes.driver, wishes.today))


def plan_engine(options: Mapping[str, Any], facts: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return the engine's part of a host's plan in full, the document ``gpu_engine``. Raises AnsibleActionFail."""
    with _one_sentence():
        wishes, observed = _of_one_part(options, facts, host)
        document = _engine_work.make(observed, _planner.engine_of(observed, wishes), wishes.engine, _told(options))
    return {**document, "host": host}


def plan_toolkit(options: Mapping[str, Any], facts: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return the toolkit's part of a host's plan in full, the document ``gpu_toolkit``. Raises AnsibleActionFail."""
    with _one_sentence():
        wishes, observed = _of_one_part(options, facts, host)
        document = _toolkit_work.make(observed, _planner.toolkit_of(observed, wishes), wishes.toolkit, _told(options))
    planned = str(document["action"]) if document["status"] == "change" else "none"
    return _noted(document, host, _notices.of_toolkit(observed, planned) if observed.present else [])


def _of_one_part(options: Mapping[str, Any], facts: Mapping[str, Any], host: str) -> tuple[_planner.Wishes, _host.Host]:
    _refuse_fleet(options)
    nvidia = options["nvidia"] if options["nvidia"] is not None else facts.get("nvidia")
    return _wishes({**options, "apply": [options["scope"]]}, host), _host.read(_plain(nvidia))


def _told(options: Mapping[str, Any]) -> _platform_work.Told:
    return _platform_work.Told(options["packages"] or None, _key(options["repository_key"]))


def _noted(document: Mapping[str, Any], host: str, notices: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return a document with notices about the host, save those whose codes it has already."""
    told = {_document.text(note, "code") for note in document["warnings"]}
    return {**document, "host": host, "warnings": [*(note for note in notices if note["code"] not in told), *document["warnings"]]}


# The scopes of which the answer is one part of the plan in full.
_OF_A_PART: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], str], dict[str, Any]]] = {
    "driver": plan_driver,
    "engine": plan_engine,
    "toolkit": plan_toolkit,
}


def _key(text: str) -> bytes | None:
    """Return the bytes of a repository's key file that the role has fetched, None before it has."""
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise AnsibleActionFail("gpu_plan: repository_key must be the content of a key file in base64.") from None


def _refuse_fleet(options: Mapping[str, Any]) -> None:
    if options["hosts"] is not None:
        raise AnsibleActionFail("gpu_plan: hosts is for scope fleet only; this task plans the host that it runs for.")
    if options["gpus_of"] is not None:
        raise AnsibleActionFail("gpu_plan: gpus_of is for scope fleet only; the GPUs of the host that this task plans are in gpus.")


def _refuse_driver(options: Mapping[str, Any]) -> None:
    for name in ("packages", "repository_key"):
        if options[name]:
            raise AnsibleActionFail(f"gpu_plan: {name} is for scopes driver, engine and toolkit only, which plan packages.")


def decide_fleet(options: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decision over the hosts of the play, or those that are named. Raises AnsibleActionFail."""
    for name in ("nvidia", "dify", "fleet"):
        if options[name] is not None:
            raise AnsibleActionFail(f"gpu_plan: {name} is for scope host only; a fleet is decided by the facts of its hosts.")
    _refuse_driver(options)
    hosts, hostvars = _hosts_of(options, variables)
    facts = {host: _plain((hostvars[host].get("ansible_facts") or {}).get("nvidia")) for host in hosts}
    with _one_sentence():
        return _fleet.decide(facts, _catalog_of(options), _wishes(options, ""), options["missing"], _options.gpus_of(options["gpus_of"]))


def _hosts_of(options: Mapping[str, Any], variables: Mapping[str, Any]) -> tuple[list[str], Mapping[str, Any]]:
    """Return the hosts of the play, or those that are named, and the variables of all. Raises AnsibleActionFail."""
    hostvars = variables.get("hostvars") or {}
    hosts = options["hosts"] if options["hosts"] is not None else list(variables.get("ansible_play_hosts_all") or [])
    unknown = [host for host in hosts if host not in hostvars]
    if unknown:
        raise AnsibleActionFail(f"gpu_plan: option hosts names {', '.join(unknown)}, which the inventory does not have.")
    return hosts, hostvars


_OF_UPGRADE = ("nvidia", "gpu_driver", "gpu_plan")
_SETTINGS = ("canary", "serial", "max_unavailable", "host_minutes", "on_failure", "without_rollback")


def decide_upgrade(options: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan of an upgrade over the hosts of the play, or those that are named. Raises AnsibleActionFail."""
    hosts, hostvars = _hosts_of(options, variables)
    settings = {"canary": 1, "serial": "25%", "max_unavailable": "50%", "host_minutes": 10, **options["upgrade"]}
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise AnsibleActionFail(f"gpu_plan: upgrade has {', '.join(unknown)}, which is none of its settings: {', '.join(_SETTINGS)}.")
    with _one_sentence():
        waves = _upgrade_waves.wishes(settings["canary"], settings["serial"], settings["max_unavailable"])
        strange = [name for name in waves.canary if name not in hosts] if isinstance(waves.canary, tuple) else []
        if strange:
            raise _planner.WishError(f"upgrade_canary names {', '.join(strange)}, which is no host of this run.")
    policy = _upgrade.Policy(
        waves,
        _number("upgrade_host_minutes", settings["host_minutes"]),
        settings.get("on_failure", "rollback") == "rollback",
        boolean(settings.get("without_rollback", False), strict=False),
    )
    known = {host: _known(hostvars[host]) for host in hosts}
    return _upgrade.make(known, {host: label for host, label in options["labels"].items() if isinstance(label, str)}, policy)


def _known(variables: Mapping[str, Any]) -> _upgrade.Known:
    facts = variables.get("ansible_facts") or {}
    told = {name: _plain(variables.get(name)) or {} for name in ("upgrade_outcome", "upgrade_saving")}
    return _upgrade.Known(
        {key: _plain(facts[key]) for key in _OF_UPGRADE if isinstance(facts.get(key), Mapping)},
        told["upgrade_outcome"],
        told["upgrade_saving"],
        bool(variables.get("upgrade_served")),
        str(variables.get("upgrade_variant") or "") or None,
    )


def _number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not str(value).strip().isdigit():
        raise AnsibleActionFail(f"gpu_plan: {name} has to be a whole number; found {value}.")
    return int(value)


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except (_catalog.CatalogError, _planner.WishError, _recipe.RecipeError) as exc:
        raise AnsibleActionFail(f"gpu_plan: {exc}") from exc


def _catalog_of(options: Mapping[str, Any]) -> list[_catalog.Variant]:
    return _catalog.load(options["catalog"], options["image_repository"], options["image_version"], options["catalog_defaults"])


def _wishes(options: Mapping[str, Any], host: str) -> _planner.Wishes:
    return _options.wishes(options, host, DEFAULT_CONTEXT, datetime.date.today())


def validated(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with their defaults, as plain data."""
    given = {key: value for key, value in args.items() if value is not None}
    _check_forms(given)
    checked = ArgumentSpecValidator(ARGUMENT_SPEC).validate(given)
    if checked.unsupported_parameters:
        unknown = ", ".join(sorted(str(name) for name in checked.unsupported_parameters))
        raise AnsibleActionFail(f"gpu_plan: unknown option {unknown}; the options are {', '.join(ARGUMENT_SPEC)}.")
    if checked.error_messages:
        raise AnsibleActionFail(f"gpu_plan: {checked.error_messages[0]}")
    options: dict[str, Any] = _plain(checked.validated_parameters)
    # An empty text is how a role variable says "as the collection has it".
    for name, spec in ARGUMENT_SPEC.items():
        if options[name] == "":
            options[name] = spec["default"]
    return options


def _check_forms(given: Mapping[str, Any]) -> None:
    """Refuse what ansible-core would refuse in the words of its own classes."""
    try:
        _catalog.listed(given.get("catalog"))
    except _catalog.CatalogError as exc:
        raise AnsibleActionFail(f"gpu_plan: {exc}") from exc
    for name, value in given.items():
        if ARGUMENT_SPEC.get(name, {}).get("type") == "dict" and not isinstance(value, Mapping):
            shown = _findings.option(name) if name == "environment" else name
            raise AnsibleActionFail(f"gpu_plan: {shown} must be a dictionary; found {_catalog.kind(value)}.")
        if name in ("min_cuda", "max_cuda") and isinstance(value, float):
            # 12.10 is 12.1 by now, and nobody can tell.
            raise AnsibleActionFail(f"gpu_plan: {_findings.option(name)} must be quoted in YAML, since it is no number; found {value}.")


def _plain(value: Any) -> Any:
    """Return a copy of plain dictionaries, lists and texts: Ansible's marked texts cannot be written as YAML."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as exc:
        raise AnsibleActionFail(f"gpu_plan: an option or a fact holds something that is no plain data ({exc}).") from exc
