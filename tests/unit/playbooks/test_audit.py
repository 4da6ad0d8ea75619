# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit decides as the deployment does, and has no task that could change a host."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

try:  # ansible-core 2.19 renders only what somebody vouches for
    from ansible.template import trust_as_template
except ImportError:

    def trust_as_template(value: Any) -> Any:
        """Older cores render every text."""
        return value


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


def plan_defaults(name: str) -> Any:
    places = [place for play in plays(name) for place in (play, *tasks(play["tasks"]))]
    found = [place["module_defaults"] for place in places if "difyops.gpu.gpu_plan" in place.get("module_defaults", {})]
    assert found and all(defaults == found[0] for defaults in found)
    return found[0]["difyops.gpu.gpu_plan"]


@pytest.mark.parametrize("name", ["deploy_dify.yml", "upgrade_drivers.yml"])
def test_the_audit_plans_with_the_variables_of_the_deployment(name: str) -> None:
    """But for what a playbook applies, which each says itself: the audit tells of every part."""
    assert plan_defaults("audit.yml") == plan_defaults(name) == "{{ __plan_options }}"
    planned = [play for play in plays(name) if "difyops.gpu.gpu_plan" in play.get("module_defaults", {})]
    for play in [plays("audit.yml")[0], *planned]:
        assert "vars/plan.yml" in play["vars_files"] and "__plan_apply" in play["vars"]
    assert plays("audit.yml")[0]["vars"]["__plan_apply"] == ["driver", "engine", "toolkit", "image", "service"]


def test_both_decide_for_the_fleet_by_the_gpus_of_each_host() -> None:
    found = []
    for name in ("audit.yml", "deploy_dify.yml"):
        steps = [task for play in plays(name) for task in tasks(play["tasks"])]
        fleet = [number for number, task in enumerate(steps) if (task.get("difyops.gpu.gpu_plan") or {}).get("scope") == "fleet"]
        told = [number for number, task in enumerate(steps) if "dify_fleet_gpus" in (task.get("ansible.builtin.set_fact") or {})]
        assert len(fleet) == len(told) == 1 and told[0] < fleet[0] and "run_once" not in steps[told[0]]
        found.append((steps[told[0]]["ansible.builtin.set_fact"], steps[fleet[0]]["difyops.gpu.gpu_plan"]["gpus_of"]))
    assert found[0] == found[1] and found[0][0]["dify_fleet_gpus"] == "{{ dify_image_gpus }}"


def test_no_task_of_the_audit_can_change_a_host() -> None:
    for play in plays("audit.yml"):
        assert not play.keys() & {"roles", "pre_tasks", "post_tasks", "handlers"}
        for task in tasks(play["tasks"]):
            if "ansible.builtin.import_role" in task:
                assert task["when"] is False, "a role is there for its defaults only"
                continue
            assert task.keys() - KEYWORDS <= READ_ONLY, task["name"]


NAME = "dify-gpu-dify-gpu-1"
A10, VFIO = {"bound_driver": "nvidia"}, {"bound_driver": "vfio-pci"}


def mode(labels: Any, plan_mode: str, blocked: bool, gpus: list[dict[str, Any]]) -> str:
    """The mode in which the audit proves the service's container, as the playbook's own variables give it."""
    own = {
        name: trust_as_template(text) if isinstance(text, str) else text
        for name, text in plays("audit.yml")[0]["vars"].items()
        if name in ("__audit_label", "__audit_mode", "__audit_blocked")
    }
    containers = [{"name": "other", "labels": {"org.difyops.mode": "cpu"}}, {"name": NAME, "labels": labels}]
    known = {
        "dify": {"containers": containers if labels is not None else []},
        "gpu_plan": {"mode": plan_mode, "status": "blocked" if blocked else "ok"},
        "nvidia": {"gpus": gpus},
    }
    variables = {**own, "ansible_facts": known, "__audit_service": NAME}
    return str(Templar(loader=DataLoader(), variables=variables).template(trust_as_template("{{ __audit_mode }}")))


@pytest.mark.parametrize(
    ("labels", "plan_mode", "blocked", "gpus", "expected"),
    [
        ({"org.difyops.mode": "degraded"}, "gpu", False, [A10], "degraded"),
        ({"org.difyops.mode": "degraded"}, "gpu", True, [A10], "degraded"),
        ({"org.difyops.mode": "gpu"}, "degraded", False, [A10], "gpu"),
        ({"org.difyops.mode": "cpu"}, "gpu", False, [A10], "cpu"),
        ({"org.difyops.mode": "gpu"}, "cpu", True, [], "gpu"),
        ({}, "gpu", False, [A10], "gpu"),
        ({"org.difyops.mode": "nonsense"}, "cpu", False, [A10], "cpu"),
        (None, "degraded", False, [A10], "degraded"),  # nothing is there: then what should be
        ({}, "gpu", True, [A10], "gpu"),
        ({}, "gpu", True, [A10, VFIO], "gpu"),
        ({}, "gpu", True, [VFIO], "cpu"),
        (None, "gpu", True, [], "cpu"),
    ],
)
def test_a_container_is_proven_for_what_it_is(
    labels: Any, plan_mode: str, blocked: bool, gpus: list[dict[str, Any]], expected: str
) -> None:
    assert mode(labels, plan_mode, blocked, gpus) == expected


def test_the_proof_of_the_service_uses_that_mode() -> None:
    proofs = [task for play in plays("audit.yml") for task in tasks(play["tasks"]) if "difyops.gpu.gpu_verify" in task]
    assert [task["difyops.gpu.gpu_verify"].get("mode") for task in proofs] == [None, "{{ __audit_mode }}"]
