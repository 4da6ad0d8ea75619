# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action: which hosts it takes, what it prints, returns and writes, and how it refuses."""

from __future__ import annotations

import json
import pathlib
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.difyops.gpu.plugins.action import gpu_report

FACTS: dict[str, Any] = {
    "nvidia": {"gpus": [{"name": "NVIDIA A10"}], "driver": {"loaded": {"version": "535.247.01"}, "cuda_version": "12.2"}},
    "dify": {"files": {"/opt/dify-gpu/compose.yaml": {"exists": False}}},
    "gpu_plan": {
        "status": "change",
        "mode": "gpu",
        "parts": {"service": {"action": "create", "reason": "not there yet"}},
        "image": {"variant": "cuda12.6", "reference": "x:1", "reason": "fits"},
        "render": {"files": {"/opt/dify-gpu/compose.yaml": {"content": "services: {}\n", "sha256": "b"}}},
    },
}
VERDICT = {"overall": "proven", "summary": "good", "code": None, "remedy": None, "links": []}


def variables(hosts: dict[str, dict[str, Any]], left: tuple[str, ...] = ()) -> dict[str, Any]:
    names = list(hosts)
    return {
        "hostvars": hosts,
        "ansible_play_hosts_all": names,
        "ansible_play_hosts": [name for name in names if name not in left],
    }


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(gpu_report, "Display", lambda: SimpleNamespace(display=texts.append))
    return texts


def report(task_vars: dict[str, Any], check: bool = False, **args: Any) -> dict[str, Any]:
    task = SimpleNamespace(args=args, check_mode=check, diff=False, async_val=0, action="difyops.gpu.gpu_report")
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
    action = gpu_report.ActionModule(task, connection, SimpleNamespace(check_mode=check), None, None, None)
    result: dict[str, Any] = action.run(task_vars=task_vars)
    return result


def test_one_host(printed: list[str]) -> None:
    result = report(variables({"a": {"ansible_facts": {**FACTS, "gpu_verdict": VERDICT}}}), show="verdict")
    assert (result["changed"], result["failed_hosts"], result["summary"]["proven"]) == (False, [], 1)
    assert [record["host"] for record in result["records"]] == ["a"]
    assert len(printed) == 1
    assert "535.247.01" in printed[0]


def test_two_hundred_hosts_are_one_print(printed: list[str]) -> None:
    hosts = {f"gpu-{n:03}": {"ansible_facts": FACTS} for n in range(200)}
    result = report(variables(hosts), show="plan")
    assert len(result["records"]) == 200
    assert len(printed) == 1
    assert "gpu-[000:199]: change" in printed[0]


def test_hosts_that_left_the_play_are_listed(printed: list[str]) -> None:
    hosts: dict[str, Any] = {"a": {"ansible_facts": {**FACTS, "gpu_verdict": VERDICT}}, "gone": {}, "broken": {"ansible_facts": FACTS}}
    result = report(variables(hosts, left=("gone", "broken")), show="verdict")
    assert [record["result"] for record in result["records"]] == ["proven", "unreachable", "failed"]
    assert result["failed_hosts"] == ["gone", "broken"]


def test_hosts_of_another_play_can_be_named(printed: list[str]) -> None:
    task_vars = variables({"localhost": {}})
    task_vars["hostvars"]["a"] = {"ansible_facts": {**FACTS, "gpu_verdict": VERDICT}, "dify_outcome": {"status": "failed"}}
    result = report(task_vars, show="verdict", hosts=["a", "a"])
    assert [record["host"] for record in result["records"]] == ["a"]
    assert result["records"][0]["outcome"] == {"status": "failed", "message": None}


def test_check_mode_says_that_nothing_was_applied(printed: list[str]) -> None:
    result = report(variables({"a": {"ansible_facts": FACTS}}), check=True, show="verdict")
    assert "checked, not applied" in printed[0]
    assert result["records"][0]["check"] is True
    assert result["failed_hosts"] == []


def test_the_file_holds_one_record_for_each_host(printed: list[str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.jsonl"
    result = report(variables({"a": {"ansible_facts": FACTS}, "b": {}}), show="verdict", path=str(path))
    assert [json.loads(line) for line in path.read_text().splitlines()] == result["records"]
    assert "content" not in path.read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "show"),
        ({"show": "everything"}, "everything"),
        ({"show": "plan", "host": ["a"]}, "unknown option host"),
        ({"show": "plan", "hosts": ["nobody"]}, "nobody, which the inventory does not have"),
        ({"show": "plan", "path": "/nonexistent/dir/report.jsonl"}, "/nonexistent/dir/report.jsonl: No such file or directory"),
    ],
)
def test_bad_options_are_one_sentence(printed: list[str], args: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleActionFail, match="gpu_report: ") as caught:
        report(variables({"a": {"ansible_facts": FACTS}}), **args)
    assert words in str(caught.value)
    # Ansible adds what an error was raised from to its text, which would say the reason twice.
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)


def test_facts_of_a_strange_form_do_not_break_the_report(printed: list[str]) -> None:
    strange = {"ansible_facts": {"nvidia": [], "gpu_plan": {"status": "change", "render": 3}, "dify": 4}, "dify_outcome": "x"}
    result = report(variables({"a": strange}), show="plan")
    assert result["records"][0]["ok"] is False


def test_the_documentation_names_the_same_options() -> None:
    yaml = pytest.importorskip("yaml")
    from ansible_collections.difyops.gpu.plugins.modules import gpu_report as stub

    options = yaml.safe_load(stub.DOCUMENTATION)["options"]
    assert set(options) == set(gpu_report.ARGUMENT_SPEC)
    for name, spec in gpu_report.ARGUMENT_SPEC.items():
        assert {key: options[name].get(key) for key in ("type", "choices", "elements", "required")} == {
            key: spec.get(key) for key in ("type", "choices", "elements", "required")
        }


def test_an_audit_reads_other_verdicts_and_the_decision_for_the_fleet(printed: list[str], tmp_path: pathlib.Path) -> None:
    fleet = {
        **{key: [] for key in ("blocked", "missing", "held_back_by", "candidates")},
        "schema": 1,
        "status": "ok",
        "variant": "cuda12.6",
        "hosts": 2,
        "gpu_hosts": ["a", "b"],
        "drift": [{"what": "driver", "values": {"535": ["a"], "470": ["b"]}}],
    }
    failed = {**VERDICT, "overall": "failed", "code": "DG404", "summary": "bad", "container": {"name": "other"}}
    hosts = {
        "a": {"ansible_facts": {**FACTS, "gpu_verdict": VERDICT, "gpu_fleet": fleet}},
        "b": {"ansible_facts": {**FACTS, "gpu_verdict": VERDICT}, "gpu_audit_verdicts": [failed]},
        "c": {},
    }
    result = report(variables(hosts, left=("c",)), show="audit", path=str(tmp_path / "audit.jsonl"))
    assert [record["result"] for record in result["records"]] == ["proven", "failed", "unreachable"]
    assert result["failed_hosts"] == ["b", "c"]
    assert "535 on a; 470 on b" in printed[0]
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["containers"] for line in lines] == [[], [failed], []]
    report(variables(hosts, left=("c",)), show="fleet")
    assert printed[1].startswith("\nFLEET of 2 hosts: cuda12.6 for 2 hosts") and "535 on a; 470 on b" in printed[1]
    report(variables({"c": {}}), show="fleet")
    assert printed[2] == "\nFLEET: nothing was decided over its hosts\n"
    # The same hosts in another report: nothing of the audit counts there.
    assert report(variables(hosts, left=("c",)), show="verdict")["failed_hosts"] == ["c"]


def test_drivers_and_what_became_of_them(printed: list[str], tmp_path: pathlib.Path) -> None:
    document = {"status": "change", "action": "upgrade", "from": "535.288.01", "to": "580", "expects": "580.95.05", "reason": "asked for"}
    hosts = {
        "a": {
            "ansible_facts": {"gpu_driver": document},
            "provision_outcome": {"driver": {"status": "changed", "before": "535.288.01", "after": "580.95.05"}},
        },
        "b": {"ansible_facts": {}, "provision_outcome": {"driver": {"status": "unreachable", "message": "no route to host"}}},
    }
    result = report(variables(hosts), show="provision", path=str(tmp_path / "drivers.jsonl"))
    assert [record["result"] for record in result["records"]] == ["planned", "unreachable"]
    assert (result["failed_hosts"], result["changed"]) == (["b"], False)
    assert "upgrade 535.288.01 -> 580.95.05 (asked for)" in printed[0]
    assert [json.loads(line)["host"] for line in (tmp_path / "drivers.jsonl").read_text().splitlines()] == ["a", "b"]
    result = report(variables(hosts), show="provision_outcome")
    assert [record["result"] for record in result["records"]] == ["changed", "unreachable"]
    assert result["summary"]["changed"] == 1
    assert "no route to host" in printed[1]
