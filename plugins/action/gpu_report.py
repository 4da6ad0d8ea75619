# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report phase: documented in plugins/modules/gpu_report.py, rendered in plugins/plugin_utils/_report_text.py."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.color import stringc
from ansible.utils.display import Display
from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_text, _provision_text, _report, _report_text, _text, _upgrade_text

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "show": {
        "type": "str",
        "choices": [
            *("plan", "fleet", "verdict", "audit", "provision", "provision_outcome", "app", "app_outcome"),
            *("upgrade", "upgrade_outcome"),
        ],
        "required": True,
    },
    "hosts": {"type": "list", "elements": "str"},
    "path": {"type": "path"},
}
_COLORS = {
    "proven": "green",
    "cpu": "green",
    "degraded": "yellow",
    "checked": "cyan",
    "observed": "cyan",
    "unproven": "yellow",
    "unchanged": "green",
    "changed": "green",
    "reboot_required": "yellow",
    "planned": "cyan",
    "rolled_back": "yellow",
    "upgraded": "green",
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Print what is known of all hosts of the play, once, and return it."""

    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the records. Raises AnsibleActionFail with one sentence when the options cannot be used."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        options = _validated(self._task.args)
        hosts = _hosts(options["hosts"], variables)
        check = bool(self._task.check_mode)
        known = {host: _known(variables["hostvars"], host) for host in hosts}
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        in_play = _in_play(variables)
        if options["show"] in ("provision", "provision_outcome"):
            told = {host: _outcomes(variables["hostvars"], host, options["show"]) for host in hosts}
            records = [_provision_text.build_record(host, known[host][0], told[host], in_play(host), check, now) for host in hosts]
            plan = options["show"] == "provision"
            text = _provision_text.render_plan(records, check) if plan else _provision_text.render_outcome(records, check, _paint)
            return _reported(result, options["path"], records, text, _provision_text.RESULTS)
        if options["show"] in ("app", "app_outcome"):
            told = {host: _plain(host, variables["hostvars"][host].get("dify_app_outcome")) for host in hosts}
            records = [_app_text.build_record(host, known[host][0], told[host], in_play(host), check, now) for host in hosts]
            plan = options["show"] == "app"
            text = _app_text.render_plan(records, check) if plan else _app_text.render_outcome(records, check, _paint)
            return _reported(result, options["path"], records, text, _app_text.RESULTS)
        if options["show"] in ("upgrade", "upgrade_outcome"):
            ended = options["show"] == "upgrade_outcome"
            plan = _upgrade_plan(variables["hostvars"], hosts)
            outcomes = {host: _plain(host, variables["hostvars"][host].get("upgrade_outcome")) or {} for host in hosts}
            records = _upgrade_text.build_records(plan, outcomes, in_play, ended, check, now, _run(variables, now))
            text = _upgrade_text.render_outcome(records, _paint) if ended else _upgrade_text.render_plan(plan, records, check)
            return _reported(result, options["path"], records, text, _upgrade_text.RESULTS)
        audit = options["show"] == "audit"
        records = []
        for host, (facts, outcome, others) in known.items():
            records.append(_report.build_record(host, facts, outcome, in_play(host), check, now, others if audit else None))
        if audit:
            text = _report_text.render_audit(records, _fleet(known), _paint)
        elif options["show"] == "fleet":
            text = _report_text.render_decision(_fleet(known))
        elif options["show"] == "plan":
            # The plan of a host that is gone now may stem from an earlier run.
            plans = [(record["host"], None if record["result"] == "unreachable" else record["plan"]) for record in records]
            text = _report_text.render_plan(plans, check)
        else:
            text = _report_text.render_verdict(records, check, _paint)
        return _reported(result, options["path"], records, text, _report.RESULTS)


def _reported(
    result: dict[str, Any], path: str | None, records: Sequence[Mapping[str, Any]], text: str, results: Sequence[str]
) -> dict[str, Any]:
    """Print a report, write its records where that is wanted, and return the result with them. Raises AnsibleActionFail."""
    Display().display(f"\n{text}\n")
    if path:
        _write(path, records)
    result.update(
        changed=False,
        records=records,
        summary=_text.summarize(records, results),
        failed_hosts=_report.failed_hosts(records),
        # With -v the records of a large fleet would bury the report itself.
        _ansible_verbose_override=True,
    )
    return result


def _paint(text: str, result: str) -> str:
    painted: str = stringc(text, _COLORS.get(result, "red"))
    return painted


def _validated(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as plain data."""
    checked = ArgumentSpecValidator(ARGUMENT_SPEC).validate({key: value for key, value in args.items() if value is not None})
    if checked.unsupported_parameters:
        unknown = ", ".join(sorted(str(name) for name in checked.unsupported_parameters))
        raise AnsibleActionFail(f"gpu_report: unknown option {unknown}; the options are {', '.join(ARGUMENT_SPEC)}.")
    if checked.error_messages:
        raise AnsibleActionFail(f"gpu_report: {checked.error_messages[0]}")
    return {name: checked.validated_parameters.get(name) for name in ARGUMENT_SPEC}


def _hosts(asked: Sequence[str] | None, variables: Mapping[str, Any]) -> list[str]:
    hosts = list(dict.fromkeys(str(host) for host in (variables.get("ansible_play_hosts_all", []) if asked is None else asked)))
    unknown = [host for host in hosts if host not in variables["hostvars"]]
    if unknown:
        raise AnsibleActionFail(f"gpu_report: option hosts names {', '.join(unknown)}, which the inventory does not have.")
    return hosts


def _known(hostvars: Mapping[str, Any], host: str) -> tuple[dict[str, Any], dict[str, Any] | None, list[Any]]:
    """Return a host's facts, as far as they are reported, its outcome, and the verdicts on its other containers."""
    variables = hostvars[host]
    facts = variables.get("ansible_facts") or {}
    keys = ("nvidia", "dify", "gpu_plan", "gpu_verdict", "gpu_fleet", "gpu_driver", "gpu_engine", "gpu_toolkit", *_app_text.FACTS)
    outcome, others = _plain(host, variables.get("dify_outcome")), _plain(host, variables.get("gpu_audit_verdicts"))
    return (
        {key: _plain(host, facts[key]) for key in keys if isinstance(facts.get(key), Mapping)},
        outcome if isinstance(outcome, dict) else None,
        others if isinstance(others, list) else [],
    )


def _outcomes(hostvars: Mapping[str, Any], host: str, show: str) -> dict[str, Any] | None:
    """Return what became of the parts of a host. A report of plans shows only who fell out."""
    outcomes = _plain(host, hostvars[host].get("provision_outcome"))
    if not isinstance(outcomes, dict):
        return None
    if show == "provision_outcome":
        return outcomes
    return {part: told for part, told in outcomes.items() if isinstance(told, dict) and told.get("status") in ("failed", "unreachable")}


def _fleet(known: Mapping[str, tuple[dict[str, Any], Any, Any]]) -> dict[str, Any] | None:
    """Return what was decided for all hosts; the decision is the same on each that has it."""
    return next((facts["gpu_fleet"] for facts, _outcome, _others in known.values() if facts.get("gpu_fleet")), None)


def _upgrade_plan(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    """Return the plan of the run, which is the same on each host that has it."""
    plans = ((host, (hostvars[host].get("ansible_facts") or {}).get("gpu_upgrade")) for host in hosts)
    return next((_plain(host, plan) for host, plan in plans if plan), {})


def _run(variables: Mapping[str, Any], now: str) -> str:
    """Return what the records of one run have in common: the id of the job where a controller gives one, else when this is."""
    return str(variables.get("tower_job_id") or variables.get("awx_job_id") or now)


def _plain(host: str, value: Any) -> Any:
    """Return plain data: what Ansible hands out may be lazy or marked, and would not survive a file."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as exc:
        raise AnsibleActionFail(f"gpu_report: a fact of {host} holds something that is no plain data ({exc}).") from None


def _in_play(variables: Mapping[str, Any]) -> Any:
    """Return the test whether a host is still in the play; hosts of other plays count as being in."""
    everybody = set(variables.get("ansible_play_hosts_all") or [])
    left = everybody - set(variables.get("ansible_play_hosts") or [])
    return lambda host: host not in left


def _write(path: str, records: Sequence[Mapping[str, Any]]) -> None:
    target = os.path.abspath(os.path.expanduser(path))
    try:
        _report.write_file(target, _report.json_lines(records))
    except OSError as exc:
        raise AnsibleActionFail(f"gpu_report: the report cannot be written to {target}: {exc.strerror or exc}.") from None
