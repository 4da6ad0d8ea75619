# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of the upstream release of many hosts as text, what became of them as a table, and the records of both.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _text

SCHEMA = 1
# The facts of a host that are reported.
FACTS = ("dify_plan", "dify_verdict")
# What a host can come out as; the first five leave nothing to do.
RESULTS = ("proven", "changed", "unchanged", "checked", "planned", "not_run", "unproven", "blocked", "rolled_back", "failed", "unreachable")
GOOD_RESULTS = frozenset(RESULTS[:5])

_WORDS = {
    "checked": "would change",
    "planned": "to change",
    "not_run": "not run",
    "unproven": "UNPROVEN",
    "blocked": "BLOCKED",
    "rolled_back": "ROLLED BACK",
    "failed": "FAILED",
}
_STATUS = {"change": "change", "ok": "nothing to change", "blocked": "BLOCKED, nothing is touched"}
_TOLD = {
    "failed": "failed",
    "restore_failed": "failed",
    "stopped": "failed",
    "restored": "rolled_back",
    "rolled_back": "rolled_back",
    "blocked": "blocked",
    "unreachable": "unreachable",
}
_DEFAULT_MESSAGES = {
    "unreachable": "the host did not answer in this run",
    "failed": "left the run before it was proven; the output above says why",
    "not_run": "nothing was decided about this host",
    "unproven": "what runs could not be tested",
}
# How many services and images are named on one line before the rest is counted.
_NAMED = 12
# Paints a text that stands for a result.
Paint = Callable[[str, str], str]


# -- records ---------------------------------------------------------------------------------------------------------


def build_record(
    host: str, facts: Mapping[str, Any], outcome: Mapping[str, Any] | None, in_play: bool, check: bool, time: str
) -> dict[str, Any]:
    """Return the record of one host.

    ``facts`` are the host's ansible_facts, ``outcome`` is its variable dify_app_outcome, None before it has one. ``in_play`` is False for
    a host that left the play.
    """
    plan, verdict = _document.mapping(facts, "dify_plan"), _document.mapping(facts, "dify_verdict")
    told = outcome if isinstance(outcome, Mapping) else {}
    result = _result(plan, verdict, told, in_play, check)
    gone = result == "unreachable"
    blocked = next(iter(_document.mappings(plan, "blocked")), {})
    code = _document.text(told, "code") or (_document.text(blocked, "code") if result == "blocked" else None)
    message = _document.text(told, "message") or (_document.text(blocked, "message") if result == "blocked" else None)
    if result == "proven":
        message = _document.text(verdict, "summary") or message
    remedy = next((_document.text(item, "remedy") for item in (blocked, verdict) if code and _document.text(item, "code") == code), None)
    notes = [] if gone else [dict(note) for item in (plan, verdict) for note in _document.mappings(item, "warnings")]
    return {
        "schema": SCHEMA,
        "time": time,
        "host": host,
        "check": check,
        "result": result,
        "ok": result in GOOD_RESULTS,
        "before": _document.text(told, "before") or (None if gone else _document.text(plan, "from")),
        "after": _document.text(told, "after"),
        "message": message or _DEFAULT_MESSAGES.get(result) or _document.text(plan, "reason"),
        "code": code,
        "remedy": remedy,
        "outcome": dict(told) if told else None,
        "backup": _document.text(told, "backup"),
        "downtime_s": _seconds(told.get("downtime_s")),
        "plan": None if gone or not plan else _without_content(plan),
        "verdict": None if gone or not verdict else dict(verdict),
        "warnings": list({(note.get("code"), note.get("message")): note for note in notes}.values()),
    }


def _result(
    plan: Mapping[str, Any], verdict: Mapping[str, Any], outcome: Mapping[str, Any], in_play: bool, check: bool
) -> str:
    status = _document.text(outcome, "status")
    told = _TOLD.get(status or "")
    if told is not None:
        return told
    if not in_play:
        return "failed" if plan else "unreachable"
    planned = _document.text(plan, "status")
    if planned == "blocked":
        return "blocked"
    overall = _document.text(verdict, "overall")
    if overall in ("proven", "failed", "unproven"):
        return str(overall)
    if status == "changed":
        return "checked" if check else "changed"
    if planned == "change":
        return "checked" if check else "planned"
    return "unchanged" if planned == "ok" else "not_run"


def _seconds(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9 else None


def _without_content(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan without the content of files and the variables of `.env`, which would bury the report."""
    files = {path: {"sha256": _document.text(file, "sha256")} for path, file in _document.mapping(plan, "files").items()}
    return {**{key: value for key, value in plan.items() if key != "env"}, "files": files}


def _title(records: Sequence[Mapping[str, Any]], check: bool) -> str:
    return _text.title("DIFY on", records, _text.count_results(records, _WORDS, RESULTS), check)


# -- the plan --------------------------------------------------------------------------------------------------------


def render_plan(records: Sequence[Mapping[str, Any]], check: bool) -> str:
    """Return the plans of all hosts; hosts with the same plan share one block."""
    blocks: dict[tuple[str, ...], list[str]] = {}
    warnings: dict[str, list[str]] = {}
    for record in records:
        blocks.setdefault(tuple(_plan_lines(record)), []).append(record["host"])
        for warning in dict.fromkeys(f"{entry.get('code')} {entry.get('message')}" for entry in record["warnings"]):
            warnings.setdefault(warning, []).append(record["host"])
    lines = [_title(records, check)]
    for (first, *rest), hosts in blocks.items():
        lines += ["", *_text.wrap(f"{_text.host_list(hosts)}: {first}", "    ", ""), *rest]
    lines += ["", "WARNINGS"] if warnings else []
    for warning, hosts in sorted(warnings.items()):
        lines += _text.wrap(f"{warning} [{'every host' if len(hosts) == len(records) > 1 else _text.some_hosts(hosts)}]", "        ", "  ")
    return "\n".join(lines)


def _plan_lines(record: Mapping[str, Any]) -> list[str]:
    plan = record["plan"]
    if not plan:
        code = f"{record['code']} " if record["code"] else ""
        return [f"no plan: {code}{record['message']}"]
    lines = [_STATUS.get(str(plan.get("status")), str(plan.get("status")))]
    lines += _line("dify", _headline(plan))
    for block in _document.mappings(plan, "blocked"):
        lines += _text.wrap(f"{block.get('code')} {block.get('message')}", "            ", "  BLOCKED   ")
        lines += _text.wrap(str(block["remedy"]), "            -> ", "            -> ") if block.get("remedy") else []
    if plan.get("status") == "change":
        lines += _change_lines(plan)
    return lines


def _headline(plan: Mapping[str, Any]) -> str:
    before, after = _document.text(plan, "from"), _document.text(plan, "to")
    versions = f" {before or 'none'} -> {after or 'none'}" if before != after else f" {after}" if after else ""
    return f"{plan.get('action')}{versions}: {_document.text(plan, 'reason') or ''}"


def _change_lines(plan: Mapping[str, Any]) -> list[str]:
    missing = [str(image.get("reference")) for image in _document.mappings(plan, "images") if image.get("present") is not True]
    containers = _document.mapping(plan, "containers")
    lines = _line("images", f"pull {len(missing)}: {_names(missing)}") if missing else []
    created, removed = _document.texts(containers, "create"), _document.texts(containers, "remove")
    lines += _line("create", _names(created)) if created else []
    reasons: dict[str, list[str]] = {}
    for item in _document.mappings(containers, "recreate"):
        reasons.setdefault(str(item.get("reason")), []).append(str(item.get("service")))
    for reason, services in reasons.items():
        lines += _line("recreate", f"{_names(services)}: {reason}")
    lines += _line("remove", _names(removed)) if removed else []
    backup = _document.mapping(plan, "backup")
    if backup:
        names = [str(item.get("name")) for item in _document.mappings(plan, "databases")]
        kept = [*_document.texts(backup, "paths"), *_document.texts(backup, "volumes")]
        lines += _line("backup", f"databases {_names(names)}; {_names(kept)}; {backup.get('keep')} are kept")
    if plan.get("remove_data") is True:
        lines += _line("data", "is removed with it; the backups stay")
    server = _document.mapping(plan, "model_server")
    if server.get("register") is True:
        models = [name for name in (_document.text(server, "embedding_model"), _document.text(server, "rerank_model")) if name]
        lines += _line("models", f"{_names(models)} of {server.get('endpoint_url')}")
    return lines + _line("downtime", "Dify does not answer for a time" if plan.get("downtime") is True else "none")


def _line(name: str, text: str) -> list[str]:
    return _text.wrap(text, " " * 12, f"  {name:<10}")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


# -- what became of it -----------------------------------------------------------------------------------------------


def render_outcome(records: Sequence[Mapping[str, Any]], check: bool, paint: Paint) -> str:
    """Return the table of all hosts, and under it what to do where something is wrong."""
    head = ["HOST", "RELEASE", "DOWNTIME", "RESULT"]
    words = [_WORDS.get(record["result"], record["result"]) for record in records]
    rows = [[str(record["host"]), _versions(record), _downtime(record), word] for record, word in zip(records, words)]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [_title(records, check), "", "  ".join([*(cell.ljust(width) for cell, width in zip(head, widths)), "WHY"])]
    room = max(_text.WIDTH - sum(widths) - 2 * len(widths), 20)
    for row, record in zip(rows, records):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        # Painted after it is filled up, since colours take no room on the terminal.
        painted = [*cells[:-1], paint(row[-1], str(record["result"])) + " " * (widths[-1] - len(row[-1]))]
        lines.append("  ".join([*painted, _why(record, room)]).rstrip())
    return "\n".join([*lines, *_explanations(records)])


def _versions(record: Mapping[str, Any]) -> str:
    before, after = record["before"], record["after"]
    if after is not None and after != before:
        return f"{before or 'none'} -> {after}"
    return str(after or before or "-")


def _downtime(record: Mapping[str, Any]) -> str:
    seconds = record["downtime_s"]
    return "-" if seconds is None else f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"


def _why(record: Mapping[str, Any], room: int) -> str:
    text = " ".join(str(part) for part in (record["code"], record["message"]) if part)
    return text if len(text) <= room else f"{text[: room - 2].rstrip()}.."


def _explanations(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A few lines for each trouble and each backup, with the hosts that share it."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        texts: list[str] = []
        if record["result"] not in GOOD_RESULTS:
            head = " ".join(str(part) for part in (_WORDS.get(record["result"], record["result"]), record["code"]) if part)
            texts += [f"{head}: {record['message']}", *([str(record["remedy"])] if record["remedy"] else [])]
        if record["backup"]:
            texts.append(f"the state of before is in {record['backup']} on the host")
        if texts:
            groups.setdefault(tuple(texts), []).append(str(record["host"]))
    lines: list[str] = []
    for (first, *rest), hosts in groups.items():
        lines += ["", *_text.wrap(f"{_text.host_list(hosts)}: {first}", "    ", "")]
        for text in rest:
            lines += _text.wrap(text, "       ", "    -> ")
    return lines
