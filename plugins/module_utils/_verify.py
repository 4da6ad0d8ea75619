# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gather the evidence about one container and have it judged: engine, container, probe, health.

This is private to difyops.gpu.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _docker, _probe
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Evidence, Expected
from ansible_collections.difyops.gpu.plugins.module_utils._verdict import GOOD, judge, needs_health

OBSERVE_TIMEOUT_S = 30
_HEALTH_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Request:
    """What to verify, and how long to wait. Times in seconds."""

    container: str
    expected: Expected
    pythons: Sequence[str]
    timeout_s: float
    health: bool
    health_timeout_s: float


def complaint(params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the module's options, in one sentence; None when they can be used."""
    if not str(params["container"]).strip():
        return "Option container has to be the name or id of a container, and is empty."
    if not params["python"] or not all(str(python).strip() for python in params["python"]):
        return "Option python has to list at least one interpreter, and none of them may be empty."
    for name, least in (("timeout_s", 1), ("health_timeout_s", 0), ("gpu_count", 1)):
        value = params[name]
        if value is not None and value < least:
            return f"Option {name} has to be at least {least}, not {value}."
    return None


def is_as_expected(verdict: Mapping[str, Any]) -> bool:
    """Whether a verdict is the one that the plan's mode promises."""
    return bool(verdict["overall"] == GOOD[verdict["expected"]["mode"]])


def sentence(verdict: Mapping[str, Any]) -> str:
    """Return a verdict that is not as expected as one line with code and remedy."""
    return f"{verdict['overall']} ({verdict['code']}): {verdict['summary']}. Remedy: {verdict['remedy']}."


def verify(
    request: Request,
    facts: Mapping[str, Any],
    connect: Callable[[], _docker.Engine] = _docker.connect,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Return the verdict on a container. Whatever cannot be asked becomes part of it; nothing is raised for that."""
    started, now = clock(), datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    evidence = Evidence(facts=facts, container_name=request.container, health_wanted=request.health)
    try:
        engine = connect()
        container = engine.inspect_container(request.container)
    except (_docker.DockerUnavailable, _docker.DockerError) as error:
        evidence = replace(evidence, engine_error=str(error))
        return judge(request.expected, evidence, _since(started, clock), now)
    evidence = replace(evidence, container=container, settled=_health_of(container) == "healthy")
    if is_running(container):
        evidence = _with_probe(engine, request, evidence)
    verdict = judge(request.expected, evidence, _since(started, clock), now)
    if not needs_health(verdict):
        return verdict
    # Only a chain that is good is worth waiting for: the reason of a broken one is known by now.
    evidence = _with_health(engine, request, evidence, clock, sleep)
    return judge(request.expected, evidence, _since(started, clock), now)


def _since(started: float, clock: Callable[[], float]) -> int:
    return int((clock() - started) * 1000)


def is_running(container: Mapping[str, Any] | None) -> bool:
    """Whether a program can be started in a container, by its inspect document."""
    state = (container or {}).get("State") or {}
    return bool(state.get("Running")) and state.get("Status") not in ("restarting", "paused")


def _health_of(container: Mapping[str, Any] | None) -> str | None:
    state = (container or {}).get("State") or {}
    return (state.get("Health") or {}).get("Status")


def _with_probe(engine: _docker.Engine, request: Request, evidence: Evidence) -> Evidence:
    gpu = request.expected.mode == "gpu"
    try:
        probe = _probe.run(engine, request.container, request.pythons, gpu, request.timeout_s)
    except (_docker.DockerUnavailable, _docker.DockerError) as error:
        # A container that keeps ending refuses a program as well: then its state is the finding, not the refusal.
        return replace(evidence, exec_error=str(error), container=_look_again(engine, request, evidence.container))
    return replace(evidence, probe=probe)


def _look_again(engine: _docker.Engine, request: Request, before: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    try:
        return engine.inspect_container(request.container)
    except (_docker.DockerUnavailable, _docker.DockerError):
        return before


def _with_health(
    engine: _docker.Engine,
    request: Request,
    evidence: Evidence,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Evidence:
    """Wait until the health check has spoken, the container has gone, or the time is over."""
    started = clock()
    while clock() - started < request.health_timeout_s:
        sleep(_HEALTH_INTERVAL_S)
        evidence = replace(
            evidence,
            container=_look_again(engine, request, evidence.container),
            health_waited_s=clock() - started,
        )
        if not is_running(evidence.container) or _health_of(evidence.container) != "starting":
            break
    return evidence
