# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decide phase of the upstream release: documented in plugins/modules/dify_plan.py, decided in plugin_utils/_app_document.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _app_document,
    _app_load,
    _app_options,
    _app_release,
    _app_tls,
    _findings,
    _plan_codes,
    _versions,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "scope": {"type": "str", "default": "host", "choices": ["host", "release"]},
    "dify_app": {"type": "dict"},
    "nvidia": {"type": "dict"},
    "state": {"type": "str", "default": _app_options.DEPLOYED, "choices": list(_app_options.STATES)},
    "version": {"type": "str", "default": "1.17.1"},
    "archive_file": {"type": "str", "default": ""},
    "archive_checksum": {"type": "str", "default": ""},
    "home": {"type": "str", "default": "/opt/dify"},
    "project": {"type": "str", "default": "dify"},
    "url": {"type": "str", "default": ""},
    "bind_address": {"type": "str", "default": "0.0.0.0"},  # noqa: S104  a site is there to be visited
    "http_port": {"type": "int", "default": 80},
    "https_port": {"type": "int", "default": 443},
    "public_secrets": {"type": "list", "elements": "str", "default": []},
    "tls_certificate": {"type": "str", "default": ""},
    "tls_key": {"type": "str", "default": ""},
    "behind_proxy": {"type": "bool", "default": False},
    "env": {"type": "dict", "default": {}},
    "registry": {"type": "str", "default": ""},
    "image_pins": {"type": "dict", "default": {}},
    "resources": {"type": "dict", "default": {}},
    "log_max_size": {"type": "str", "default": "10m"},
    "log_max_file": {"type": "int", "default": 5},
    "backup_dir": {"type": "str", "default": "/var/backups/dify"},
    "backup_keep": {"type": "int", "default": 3},
    "allow_downgrade": {"type": "bool", "default": False},
    "remove_data": {"type": "bool", "default": False},
    "rollback": {"type": "str", "default": ""},
    "model_endpoint_url": {"type": "str", "default": ""},
    "model_register": {"type": "bool", "default": True},
    "model_server": {"type": "dict", "default": {}},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Turn release, settings and facts into a plan, on the controller and without a connection."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan, or what is to be looked at for it. Raises AnsibleActionFail with one sentence when an option cannot be used."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if _versions.PACKAGING_ERROR is not None:
            raise AnsibleActionFail(f"dify_plan needs the Python library packaging on the controller: {_versions.PACKAGING_ERROR}.")
        variables = task_vars or {}
        options = validated(self._task.args)
        facts, host = variables.get("ansible_facts") or {}, str(variables.get("inventory_hostname", ""))
        if options["scope"] == "release":
            look, blocked = make_look(options)
            result.update(changed=False, look=look, blocked=blocked)
            return result
        plan = make_plan(options, facts, host)
        # A verdict proves an earlier plan; where facts are cached, it would pass for one of this run.
        result.update(changed=False, plan=plan, ansible_facts={"dify_plan": plan, "dify_verdict": {}})
        return result


def make_look(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the options of dify_app_facts for the plan, and what is wrong with the release. Raises AnsibleActionFail."""
    settings, wanted, found = _read(options)
    return _app_document.look(settings, wanted), [block.as_dict() for block in found]


def make_plan(options: Mapping[str, Any], facts: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return the plan of a host for the checked options of one task. Raises AnsibleActionFail."""
    settings, wanted, found = _read(options)
    observed, nvidia = (_plain(_app_document.merged(options, name, facts)) for name in ("dify_app", "nvidia"))
    return _app_document.make(settings, wanted, observed, nvidia, host, found)


def _read(options: Mapping[str, Any]) -> tuple[_app_options.Settings, _app_release.Wanted | None, list[_findings.Block]]:
    try:
        settings = _app_options.settings(options)
    except _findings.WishError as exc:
        raise AnsibleActionFail(f"dify_plan: {exc}") from exc
    if settings.state != _app_options.DEPLOYED:
        return settings, None, []
    wanted, found = _app_load.load(settings)
    told = _app_tls.trouble(options["tls_certificate"], options["tls_key"]) if settings.tls else None
    if told:
        found = [*found, _findings.Block(_app_release.PART, _plan_codes.APP_TLS, told)]
    if options["public_secrets"]:
        names = ", ".join(sorted(options["public_secrets"]))
        known = f"{_app_options.option('secrets')} has {names} with a value that the release publishes as its default."
        found = [*found, _findings.Block(_app_release.PART, _plan_codes.APP_DEFAULT_KEPT, known)]
    return settings, wanted, found


def validated(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with their defaults, as plain data. Raises AnsibleActionFail."""
    given = {key: value for key, value in args.items() if value is not None}
    for name, value in given.items():
        if ARGUMENT_SPEC.get(name, {}).get("type") == "dict" and not isinstance(value, Mapping):
            raise AnsibleActionFail(f"dify_plan: {_app_options.option(name)} must be a dictionary.")
        if name == "version" and isinstance(value, float):
            # 1.10 is 1.1 by now, and nobody can tell.
            raise AnsibleActionFail(f"dify_plan: {_app_options.option(name)} must be quoted in YAML, since it is no number; found {value}.")
    checked = ArgumentSpecValidator(ARGUMENT_SPEC).validate(given)
    if checked.unsupported_parameters:
        unknown = ", ".join(sorted(str(name) for name in checked.unsupported_parameters))
        raise AnsibleActionFail(f"dify_plan: unknown option {unknown}; the options are {', '.join(ARGUMENT_SPEC)}.")
    if checked.error_messages:
        raise AnsibleActionFail(f"dify_plan: {checked.error_messages[0]}")
    options: dict[str, Any] = _plain(checked.validated_parameters)
    # An empty text is how a role variable says "as the collection has it".
    for name, spec in ARGUMENT_SPEC.items():
        if options[name] == "":
            options[name] = spec["default"]
    return options


def _plain(value: Any) -> Any:
    """Return a copy of plain dictionaries, lists and texts: Ansible's marked texts cannot be written as YAML."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as exc:
        raise AnsibleActionFail(f"dify_plan: an option or a fact holds something that is no plain data ({exc}).") from exc
