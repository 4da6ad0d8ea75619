# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathering the evidence: which questions are asked, in which order, and what becomes of an engine that fails."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _docker, _probe_program, _verify
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Expected

NAME = "dify-gpu-image-1"
PARAMS: dict[str, Any] = {
    "container": NAME,
    "python": ["python3"],
    "timeout_s": 60,
    "health_timeout_s": 10,
    "gpu_count": None,
}


def request(**changes: Any) -> _verify.Request:
    fields: dict[str, Any] = {
        "container": NAME,
        "expected": Expected(mode="cpu"),
        "pythons": ["python3"],
        "timeout_s": 5,
        "health": True,
        "health_timeout_s": 10,
    }
    return _verify.Request(**{**fields, **changes})


def container(health: str | None = "healthy", status: str = "running") -> dict[str, Any]:
    state: dict[str, Any] = {"Status": status, "Running": status in ("running", "restarting", "paused")}
    if health:
        state["Health"] = {"Status": health}
    return {"Id": "c0ffee", "Name": f"/{NAME}", "State": state, "Config": {"Image": "x"}, "HostConfig": {}}


def cpu_probe() -> bytes:
    stages: dict[str, dict[str, Any]] = {
        "python": {"torch_found": True},
        "nodes": {"nodes": []},
        "torch": {"version": "2.14.1+cpu", "cuda": None},
        "torch_cuda": {"available": False},
        "cpu": {"right": True, "relative_error": 1e-7, "device": "cpu"},
    }
    lines = [{"stage": name, "event": "end", "data": data} for name, data in stages.items()]
    lines.append({"stage": "done", "event": "end", "data": {}})
    return "".join(f"{_probe_program.MARKER}{json.dumps(line)}\n" for line in lines).encode()


class FakeEngine:
    """Answers each inspection with the next document, the last one for ever."""

    def __init__(self, *documents: dict[str, Any] | None, answer: bytes | Exception | None = None) -> None:
        self.documents = list(documents)
        self.answer = cpu_probe() if answer is None else answer
        self.asked: list[str] = []

    def inspect_container(self, name: str) -> dict[str, Any] | None:
        assert name == NAME
        self.asked.append("inspect")
        document = self.documents.pop(0) if len(self.documents) > 1 else self.documents[0]
        return copy.deepcopy(document)

    def exec(self, name: str, argv: Any, stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        self.asked.append("exec")
        if isinstance(self.answer, Exception):
            raise self.answer
        return 0, self.answer, b""


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def verify(engine: FakeEngine, **changes: Any) -> dict[str, Any]:
    clock = Clock()
    return _verify.verify(request(**changes), {}, connect=lambda: engine, clock=clock, sleep=clock.sleep)  # type: ignore[arg-type, return-value]


def test_a_healthy_container_costs_one_look_and_one_probe() -> None:
    engine = FakeEngine(container())
    verdict = verify(engine)
    assert verdict["overall"] == "cpu"
    assert engine.asked == ["inspect", "exec"]
    assert _verify.is_as_expected(verdict)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", verdict["checked_at"])


@pytest.mark.parametrize(("health", "settled"), [("healthy", True), ("starting", False), ("unhealthy", False), (None, False)])
def test_only_a_healthy_service_is_expected_to_have_opened_the_gpu(
    health: str | None, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    really_judge = _verify.judge

    def judge(expected: Any, evidence: Any, *rest: Any) -> dict[str, Any]:
        seen.append(evidence.settled)
        return really_judge(expected, evidence, *rest)

    monkeypatch.setattr(_verify, "judge", judge)
    verify(FakeEngine(container(health), container("healthy")))
    assert set(seen) == {settled}


def test_an_engine_that_is_not_there_is_a_verdict_and_no_traceback() -> None:
    def refuse() -> _docker.Engine:
        raise _docker.DockerUnavailable("The container engine does not answer: connection refused.")

    verdict = _verify.verify(request(), {}, connect=refuse)
    assert verdict["code"] == "DG201"
    assert "connection refused" in verdict["remedy"]
    assert not _verify.is_as_expected(verdict)


@pytest.mark.parametrize("document", [None, container(status="exited"), container(status="restarting")])
def test_nothing_is_run_where_nothing_runs(document: dict[str, Any] | None) -> None:
    engine = FakeEngine(document)
    assert verify(engine)["code"] == ("DG204" if document is None else "DG205")
    assert engine.asked == ["inspect"]


def test_the_probe_does_not_wait_for_health_but_the_verdict_does() -> None:
    engine = FakeEngine(container("starting"), container("starting"), container("healthy"))
    assert verify(engine)["overall"] == "cpu"
    assert engine.asked == ["inspect", "exec", "inspect", "inspect"]


def test_waiting_for_health_ends() -> None:
    engine = FakeEngine(container("starting"))
    verdict = verify(engine, health_timeout_s=4)
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG207")
    assert "4 s" in verdict["summary"]
    assert verdict["duration_ms"] == 4000
    assert "dify_gpu_health_timeout" in verdict["remedy"] and "health_timeout_s" in verdict["remedy"]


@pytest.mark.parametrize(
    ("later", "code"), [(container("unhealthy"), "DG206"), (container(status="exited"), "DG205"), (None, "DG204")]
)
def test_waiting_for_health_stops_when_it_is_decided(later: dict[str, Any] | None, code: str) -> None:
    engine = FakeEngine(container("starting"), later)
    assert verify(engine)["code"] == code
    assert engine.asked == ["inspect", "exec", "inspect"]


def test_a_broken_chain_is_not_waited_for() -> None:
    engine = FakeEngine(container("starting"), answer=b"")
    assert verify(engine)["code"] == "DG209"
    assert engine.asked == ["inspect", "exec"]


def test_health_that_is_not_wanted_is_not_waited_for() -> None:
    engine = FakeEngine(container("starting"))
    assert verify(engine, health=False)["overall"] == "cpu"
    assert engine.asked == ["inspect", "exec"]


def test_a_container_that_ends_under_the_probe_is_what_is_found() -> None:
    refusal = _docker.DockerError("Container dify-gpu-image-1 is not running.")
    engine = FakeEngine(container(), container(status="exited"), answer=refusal)
    assert verify(engine)["code"] == "DG205"


def test_an_engine_that_refuses_the_probe_leaves_it_unproven() -> None:
    engine = FakeEngine(container(), answer=_docker.DockerError("The container engine refused: no space left."))
    verdict = verify(engine)
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG209")


def test_what_failed_is_one_sentence_with_code_and_remedy() -> None:
    text = _verify.sentence(verify(FakeEngine(None)))
    assert text.startswith("failed (DG204): The container is not there")
    assert "Remedy: start the service" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"container": " "}, "Option container"),
        ({"python": []}, "Option python"),
        ({"python": ["python3", ""]}, "Option python"),
        ({"timeout_s": 0}, "Option timeout_s has to be at least 1, not 0."),
        ({"health_timeout_s": -1}, "Option health_timeout_s"),
        ({"gpu_count": 0}, "Option gpu_count"),
    ],
)
def test_options_that_cannot_be_used_are_named(changes: dict[str, Any], words: str) -> None:
    problem = _verify.complaint({**PARAMS, **changes})
    assert problem is not None and words in problem


def test_good_options_are_no_complaint() -> None:
    assert _verify.complaint(PARAMS) is None
