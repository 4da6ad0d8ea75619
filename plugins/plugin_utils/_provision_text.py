# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of driver, engine and toolkit of many hosts as text, what became of them as a table, and the records of both.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _driver_text, _platform_text, _text

SCHEMA = 1
PARTS = ("driver", "engine", "toolkit")
# What a part and a host can come out as, of a host the last of those of its parts; the first five leave nothing to do but, after the
# fifth, a reboot when it suits.
RESULTS = ("unchanged", "changed", "planned", "checked", "reboot_required", "not_run", "blocked", "failed", "unreachable")
GOOD_RESULTS = frozenset(RESULTS[:5])

_WORDS = {
    "planned": "to change",
    "checked": "would change",
    "reboot_required": "REBOOT REQUIRED",
    "blocked": "BLOCKED",
    "failed": "FAILED",
    "not_run": "not run",
}
_STATUS = {"change": "change", "ok": "nothing to change", "blocked": "BLOCKED, nothing is touched"}
_OUTCOMES = frozenset({"unchanged", "changed", "reboot_required", "blocked", "failed", "unreachable"})
_DEFAULT_MESSAGES = {
    "unreachable": "the host did not answer in this run",
    "failed": "left the run before it was as wanted; the output above says why",
    "not_run": "nothing was decided about this host",
}
# Paints a text that stands for a result.
Paint = Callable[[str, str], str]


# -- records ---------------------------------------------------------------------------------------------------------


def build_record(
    host: str, facts: Mapping[str, Any], outcomes: Mapping[str, Any] | None, in_play: bool, check: bool, time: str
) -> dict[str, Any]:
    """Return the record of one host.

    ``facts`` are the host's ansible_facts, ``outcomes`` is its variable provision_outcome, None before it has one. ``in_play`` is False
    for a host that left the play.
    """
    told = outcomes if isinstance(outcomes, Mapping) else {}
    documents = {part: _document.mapping(facts, f"gpu_{part}") for part in PARTS}
    known = {part: _part(documents[part], _document.mapping(told, part), in_play, check) for part in PARTS}
    if any(_document.text(told, part, "status") in ("failed", "unreachable", "blocked") for part in PARTS):
        # What comes after a part that went wrong was planned at most, and is not to be done any more.
        known = {part: found for part, found in known.items() if _document.mapping(told, part)}
    parts = {part: found for part, found in known.items() if found is not None}
    if not parts:
        missing = "not_run" if in_play else "unreachable"
        parts = {"driver": {"result": missing, "before": None, "after": None, "message": None, "code": None, "remedy": None}}
        shown: dict[str, Any] = dict.fromkeys(PARTS)
    else:
        shown = {part: _without_result(parts[part]) if part in parts else None for part in PARTS}
    worst = max(parts.values(), key=lambda part: (RESULTS.index(part["result"]), part["code"] is not None))
    result = str(worst["result"])
    gone = result == "unreachable"
    first = next(iter(parts.values()))
    plans = {part: None if gone or not documents[part] else _without_content(documents[part]) for part in PARTS}
    warnings = [] if gone else [dict(note) for part in PARTS for note in _document.mappings(documents[part], "warnings")]
    return {
        "schema": SCHEMA,
        "time": time,
        "host": host,
        "check": check,
        "result": result,
        "ok": result in GOOD_RESULTS,
        "before": first["before"],
        "after": first["after"],
        "message": worst["message"] or _DEFAULT_MESSAGES.get(result),
        "code": worst["code"],
        "remedy": worst["remedy"],
        "parts": shown,
        "plan": plans if any(plans.values()) else None,
        "warnings": list({(note.get("code"), note.get("message")): note for note in warnings}.values()),
    }


def _part(document: Mapping[str, Any], outcome: Mapping[str, Any], in_play: bool, check: bool) -> dict[str, Any] | None:
    """Return what became of one part, None of one that nobody came to."""
    if not document and not outcome:
        return None
    result = _result(document, outcome, in_play, check)
    gone = result == "unreachable"
    blocked = next(iter(_document.mappings(document, "blocked")), {})
    code = _document.text(outcome, "code") or (_document.text(blocked, "code") if result == "blocked" else None)
    message = _document.text(outcome, "message") or (_document.text(blocked, "message") if result == "blocked" else None)
    return {
        "result": result,
        "before": _document.text(outcome, "before") or (None if gone else _document.text(document, "from")),
        "after": _document.text(outcome, "after"),
        "message": message or _DEFAULT_MESSAGES.get(result) or _document.text(document, "reason"),
        "code": code,
        # What the role says of a failure or a missing reboot has the remedy in its sentence.
        "remedy": _document.text(blocked, "remedy") if code is not None and blocked.get("code") == code else None,
    }


def _without_result(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": part["result"], **{key: part[key] for key in ("before", "after", "message", "code")}}


def _result(document: Mapping[str, Any], outcome: Mapping[str, Any], in_play: bool, check: bool) -> str:
    told = _document.text(outcome, "status")
    if told in _OUTCOMES:
        return "checked" if told == "changed" and check else str(told)
    if not in_play:
        return "failed" if document else "unreachable"
    status = _document.text(document, "status")
    if status == "change":
        return "checked" if check else "planned"
    return {"ok": "unchanged", "blocked": "blocked"}.get(status or "", "not_run")


def _without_content(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document without the content of files, which would bury the report, and without values of daemon.json."""

    def bare(files: object) -> dict[str, Any]:
        entries = _document.mapping(files)
        return {path: None if file is None else {"sha256": _document.text(file, "sha256")} for path, file in entries.items()}

    repository, pins = _document.mapping(document, "repository"), _document.mapping(document, "pins")
    found = {
        **{key: value for key, value in document.items() if key != "query"},
        "repository": {**repository, "files": bare(repository.get("files"))} if repository else None,
        "pins": {**pins, "files": bare(pins.get("files"))},
    }
    if "files" in document:
        found["files"] = bare(document.get("files"))
    config = _document.mapping(document, "daemon_config")
    if config:
        # An operator's own keys may have a secret as their value, so only they are told.
        found["daemon_config"] = {**config, "settings": _platform_text.keys_of(_document.mapping(config, "settings"))}
    return found


def _title(records: Sequence[Mapping[str, Any]], check: bool) -> str:
    return _text.title("PROVISIONING of", records, _text.count_results(records, _WORDS, RESULTS), check)


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
    documents = {part: document for part, document in (record["plan"] or {}).items() if document}
    if not documents:
        code = f"{record['code']} " if record["code"] else ""
        return [f"no plan: {code}{record['message']}"]
    statuses = {str(document.get("status")) for document in documents.values()}
    status = next((status for status in ("blocked", "change", "ok") if status in statuses), "ok")
    lines = [_STATUS[status]]
    for part, document in documents.items():
        lines += _driver_text.plan_lines(document) if part == "driver" else _platform_text.plan_lines(part, document)
    return lines


# -- what became of it -----------------------------------------------------------------------------------------------


def render_outcome(records: Sequence[Mapping[str, Any]], check: bool, paint: Paint) -> str:
    """Return the table of all hosts, and under it what to do where something is wrong."""
    columns = [part for part in PARTS if any(record["parts"][part] for record in records)] or ["driver"]
    head = ["HOST", *(part.upper() for part in columns), "RESULT"]
    rows = [
        [str(record["host"]), *(_versions(record["parts"][part]) for part in columns), _WORDS.get(record["result"], record["result"])]
        for record in records
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [_title(records, check), ""]
    lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(head, widths)), "WHY"]))
    for row, record in zip(rows, records):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        # Painted after it is filled up, since colours take no room on the terminal.
        painted = [*cells[:-1], paint(row[-1], str(record["result"])) + " " * (widths[-1] - len(row[-1]))]
        room = max(_text.WIDTH - sum(widths) - 2 * len(widths), 20)
        lines.append("  ".join([*painted, _why(record, room)]).rstrip())
    return "\n".join([*lines, *_explanations(records)])


def _versions(part: Mapping[str, Any] | None) -> str:
    """Return what a part was and is, in few characters."""
    before, after = _document.text(part, "before"), _document.text(part, "after")
    if after is not None and after != before:
        return f"{before or 'none'} -> {after}"
    return after or before or "-"


def _why(record: Mapping[str, Any], room: int) -> str:
    text = " ".join(str(part) for part in (record["code"], record["message"]) if part)
    return text if len(text) <= room else f"{text[: room - 2].rstrip()}.."


def _explanations(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A few lines for each trouble, with the hosts that share it."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if record["result"] in GOOD_RESULTS - {"reboot_required"}:
            continue
        head = " ".join(str(part) for part in (_WORDS.get(record["result"], record["result"]), record["code"]) if part)
        texts = (f"{head}: {record['message']}", *([str(record["remedy"])] if record["remedy"] else []))
        groups.setdefault(texts, []).append(str(record["host"]))
    lines: list[str] = []
    for texts, hosts in groups.items():
        lines += ["", *_text.wrap(f"{_text.host_list(hosts)}: {texts[0]}", "    ", "")]
        for text in texts[1:]:
            lines += _text.wrap(text, "       ", "    -> ")
    return lines
