# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is reported of a host: one record, from its facts, its plan, its verdict and what became of its run.

A record is plain data with every key always; the renderers (terminal, JSON lines) read records and nothing else but what
the fleet decided.

This is private to difyops.gpu.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = 1

# What a host can come out as; only the first five leave nothing to do.
RESULTS = (
    "proven",
    "cpu",
    "degraded",
    "checked",
    "observed",
    "unproven",
    "failed",
    "blocked",
    "unreachable",
    "not_run",
)
GOOD_RESULTS = frozenset(RESULTS[:5])
# What the verdicts on several containers of a host come to: the worst of them.
_WORST_FIRST = ("failed", "unproven", "degraded", "cpu", "proven")

# What an outcome that a playbook recorded means for the result.
_OUTCOMES = {
    "failed": "failed",
    "restored": "failed",
    "stopped": "failed",
    "restore_failed": "failed",
    "unreachable": "unreachable",
}
# What facts and verdicts call by the first code, the plan calls by one of the others, and says what to do about it as well.
_TWINS = {
    "DG104": ("DG753",),
    "DG115": ("DG752",),
    "DG117": ("DG767",),
    "DG118": ("DG757",),
    "DG119": ("DG757", "DG758", "DG769"),
    "DG121": ("DG768",),
    "DG122": ("DG758",),
    "DG213": ("DG751",),
    "DG214": ("DG759",),
}
# What those are about of which a host may have several: a GPU by its PCI address, a file, the kernel that boots next.
_SUBJECTS = {
    "DG104": re.compile(r"\b[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b"),
    "DG119": re.compile(r"(?<=Kernel )\S+"),
    "DG121": re.compile(r"\b[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b"),
    "DG214": re.compile(r"/\S+"),
}
_PLAN_KEYS = ("status", "mode", "gpus", "blocked", "parts", "image", "rejected", "reboot", "restart", "advice", "warnings")


def build_record(
    host: str,
    facts: Mapping[str, Any],
    outcome: Mapping[str, Any] | None,
    in_play: bool,
    check: bool,
    time: str,
    others: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Return the record of one host.

    ``facts`` are the host's ansible_facts, empty for one that was never reached. ``outcome`` is its variable
    dify_outcome. ``in_play`` is False for a host that left the play, be it failed or unreachable: what is then known of
    it may stem from an earlier run. ``others`` is for an audit, where nothing is deployed: the verdicts on containers that
    are not the service's, None when this is no audit.
    """
    nvidia, plan, verdict = (_mapping(facts.get(key)) for key in ("nvidia", "gpu_plan", "gpu_verdict"))
    told = _mapping(outcome)
    containers = _list(list(others)) if others is not None else []
    if others is None:
        result = _result(facts, told, in_play, check)
        decisive = verdict = {} if result in ("unreachable", "not_run", "blocked") else verdict
    else:
        result, decisive = _audit_result(facts, told, in_play, containers)
        verdict = {} if result == "unreachable" else verdict
    words = _words(result, plan, decisive, told)
    return {
        "schema": SCHEMA,
        "time": time,
        "host": host,
        "check": check,
        "result": result,
        "ok": result in GOOD_RESULTS,
        **words,
        "outcome": {key: told.get(key) for key in ("status", "message")} if told else None,
        "gpus": _gpus(nvidia),
        "driver": _dig(nvidia, "driver", "loaded", "version"),
        "cuda": _dig(nvidia, "driver", "cuda_version"),
        "toolkit": _dig(nvidia, "toolkit", "version"),
        "engine": _engine(nvidia),
        "variant": _dig(plan, "image", "variant") or _dig(verdict, "expected", "variant"),
        "image": _dig(plan, "image", "reference") or _dig(verdict, "container", "image"),
        "plan": {key: plan.get(key) for key in _PLAN_KEYS} if plan else None,
        "verdict": dict(verdict) if verdict else None,
        "containers": [dict(other) for other in containers] if result != "unreachable" else [],
        "warnings": _warnings(nvidia, plan, verdict, containers) if result != "unreachable" else [],
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _dig(document: Any, *path: str) -> Any:
    for key in path:
        document = _mapping(document).get(key)
    return document


def _result(facts: Mapping[str, Any], outcome: Mapping[str, Any], in_play: bool, check: bool) -> str:
    told = _OUTCOMES.get(str(outcome.get("status")))
    if told is not None:
        return told
    nvidia, plan, verdict = (_mapping(facts.get(key)) for key in ("nvidia", "gpu_plan", "gpu_verdict"))
    if not in_play:
        return "failed" if nvidia or plan or verdict else "unreachable"
    if plan.get("status") == "blocked":
        return "blocked"
    if verdict:
        overall = str(verdict.get("overall"))
        return overall if overall in RESULTS else "unproven"
    if plan:
        return "checked" if check else "not_run"
    return "unreachable"


def _audit_result(
    facts: Mapping[str, Any], outcome: Mapping[str, Any], in_play: bool, others: Sequence[Mapping[str, Any]]
) -> tuple[str, Mapping[str, Any]]:
    """Return what an audit found, and the verdict that decided it, empty when none did."""
    nvidia, plan, verdict = (_mapping(facts.get(key)) for key in ("nvidia", "gpu_plan", "gpu_verdict"))
    told = _OUTCOMES.get(str(outcome.get("status")))
    if told is not None:
        return told, {}
    if not in_play:
        return ("failed" if nvidia or plan or verdict else "unreachable"), {}
    verdicts = [entry for entry in (verdict, *others) if entry]
    for result in _WORST_FIRST:
        for entry in verdicts:
            if entry.get("overall") == result:
                return result, entry
    if verdicts:
        return "unproven", {}
    if plan.get("status") == "blocked":
        return "blocked", {}
    return ("observed" if nvidia else "unreachable"), {}


def _engine(nvidia: Mapping[str, Any]) -> str | None:
    name, version = _dig(nvidia, "engine", "name"), _dig(nvidia, "engine", "version")
    return f"{name} {version}" if name and version else str(name) if name else None


def _warnings(
    nvidia: Mapping[str, Any], plan: Mapping[str, Any], verdict: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return what facts, plan and verdicts warn of, each code with each of its messages once, sorted by code.

    Where the plan says the same with its remedy, it alone has the word.
    """
    found: list[tuple[str, str]] = []
    for document in (nvidia, plan, verdict, *others):
        for warning in _list(document.get("warnings")):
            entry = (str(warning.get("code")), str(warning.get("message")))
            if entry not in found:
                found.append(entry)
    return [{"code": code, "message": message} for code, message in sorted(found) if not _said_by_plan(code, message, found)]


def _said_by_plan(code: str, message: str, found: Sequence[tuple[str, str]]) -> bool:
    """Whether a warning of the plan says what another one says, of the same GPU, file or kernel."""
    twins = [text for twin, text in found if twin in _TWINS.get(code, ())]
    pattern = _SUBJECTS.get(code)
    subject = pattern.search(message) if pattern else None
    return any(subject is None or subject.group() in text for text in twins)


def _words(
    result: str, plan: Mapping[str, Any], verdict: Mapping[str, Any], outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """Return message, code and remedy of a host, from the document that has most to say about its result."""
    blocked = next(iter(_list(plan.get("blocked"))), {})
    if result == "blocked" and blocked:
        return {"message": blocked.get("message"), "code": blocked.get("code"), "remedy": blocked.get("remedy")}
    message: Any = str(outcome.get("message") or "")
    code = remedy = None
    going_back = restore_failure(outcome)
    if verdict.get("code") or verdict.get("overall") == result:
        message, code, remedy = verdict.get("summary"), verdict.get("code"), verdict.get("remedy")
    elif going_back or not message:
        message = "the error is in the output above" if outcome and result == "failed" else _DEFAULT_MESSAGES.get(result)
    if going_back:
        message = f"{str(message).rstrip('.')}. G{going_back[1:]}"
    return {"message": message, "code": code, "remedy": remedy}


def restore_failure(outcome: Mapping[str, Any]) -> str | None:
    """Return why the service that ran before is not back either, None unless going back to it was tried in vain."""
    if outcome.get("status") != "restore_failed":
        return None
    return f"going back failed: {outcome.get('message') or 'the error is in the output above'}"


_DEFAULT_MESSAGES = {
    "unreachable": "the host did not answer in this run",
    # Ansible does not tell afterwards which of the two it was.
    "failed": "left the run before it was proven (connection lost or a task failed); the output above says why",
    "unproven": "the verdict cannot be read",
    "not_run": "nothing was proven on this host in this run",
    "blocked": "the plan is blocked",
    "checked": "checked, not applied",
    "observed": "nothing runs here that could be proven",
}


def _gpus(nvidia: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the kinds of GPUs with their number, in the order of their addresses."""
    names = [str(gpu.get("name") or f"GPU {gpu.get('device_id') or '?'}") for gpu in _list(nvidia.get("gpus"))]
    return [{"name": name, "count": names.count(name)} for name in dict.fromkeys(names)]


def failed_hosts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the hosts that need somebody."""
    return [record["host"] for record in records if not record["ok"]]


def json_lines(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the records as JSON, one on each line."""
    return "".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records)


def write_file(path: str, text: str) -> None:
    """Write a file at once or not at all. Raises OSError."""
    folder = os.path.dirname(os.path.abspath(path))
    umask = os.umask(0o077)
    os.umask(umask)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
