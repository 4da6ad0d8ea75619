# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit decides as the deployment does, and has no task that could change a host."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import yaml

PLAYBOOKS = pathlib.Path(__file__).parents[3] / "playbooks"
# What an audit is made of: modules that observe, and what Ansible does on the controller.
READ_ONLY = {
    "difyops.gpu.nvidia_facts",
    "difyops.gpu.dify_facts",
    "difyops.gpu.gpu_plan",
    "difyops.gpu.gpu_verify",
    "difyops.gpu.gpu_report",
    "ansible.builtin.fail",
    "ansible.builtin.meta",
    "ansible.builtin.set_fact",
}
KEYWORDS = {
    "block", "rescue", "hosts", "ignore_unreachable", "loop", "module_defaults", "name", "register", "run_once", "vars", "when",
}  # fmt: skip


def tasks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every task of a list, and of the blocks in it."""
    for entry in entries:
        yield entry
        for part in ("block", "rescue", "always"):
            yield from tasks(entry.get(part) or [])


def plays(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((PLAYBOOKS / name).read_text(encoding="utf-8"))
    return loaded


def plan_defaults(name: str) -> dict[str, Any]:
    found = [task["module_defaults"] for play in plays(name) for task in tasks(play["tasks"]) if "module_defaults" in task]
    assert len(found) == 1
    defaults: dict[str, Any] = found[0]["difyops.gpu.gpu_plan"]
    return defaults


def test_the_audit_plans_with_the_variables_of_the_deployment() -> None:
    """But for what a deployment applies: the audit tells of every part, and of the driver that should be installed."""
    audit, deploy = plan_defaults("audit.yml"), plan_defaults("deploy_dify.yml")
    other = {"apply": None, "driver_policy": None}
    assert {**audit, **other} == {**deploy, **other}
    assert "apply" not in audit


def test_no_task_of_the_audit_can_change_a_host() -> None:
    for play in plays("audit.yml"):
        assert not play.keys() & {"roles", "pre_tasks", "post_tasks", "handlers"}
        for task in tasks(play["tasks"]):
            if "ansible.builtin.import_role" in task:
                assert task["when"] is False, "a role is there for its defaults only"
                continue
            assert task.keys() - KEYWORDS <= READ_ONLY, task["name"]
