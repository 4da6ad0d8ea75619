# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of drivers as text for a terminal, what became of drivers as a table, and the records of both.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _text, _versions

SCHEMA = 1
# What a host can come out as; the first five leave nothing to do but, after the fifth, a reboot when it suits.
RESULTS = ("unchanged", "changed", "planned", "checked", "reboot_required", "blocked", "failed", "unreachable", "not_run")
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
_ACTIVATION = {
    "load": "the driver is loaded, without a reboot",
    "reload": "the modules are reloaded, without a reboot",
    "reboot": "the host is REBOOTED",
    "later": "a reboot is left to you",
}
_PHRASES = {"distribution": "the distribution", "nvidia": "NVIDIA's repository"}
# How many packages, users and paths a line names.
_NAMED = 4
_INDENT = " " * 14
# Paints a text that stands for a result.
Paint = Callable[[str, str], str]


def build_record(
    host: str, facts: Mapping[str, Any], outcome: Mapping[str, Any] | None, in_play: bool, check: bool, time: str
) -> dict[str, Any]:
    """Return the record of one host.

    ``facts`` are the host's ansible_facts, ``outcome`` is its variable driver_outcome, None before it has one. ``in_play`` is False for a
    host that left the play.
    """
    document, told = _document.mapping(facts, "gpu_driver"), outcome if isinstance(outcome, Mapping) else {}
    result = _result(document, told, in_play, check)
    gone = result == "unreachable"
    blocked = next(iter(_document.mappings(document, "blocked")), {})
    code = _document.text(told, "code") or (_document.text(blocked, "code") if result == "blocked" else None)
    message = _document.text(told, "message") or (_document.text(blocked, "message") if result == "blocked" else None)
    return {
        "schema": SCHEMA,
        "time": time,
        "host": host,
        "check": check,
        "result": result,
        "ok": result in GOOD_RESULTS,
        "before": _document.text(told, "before") or (None if gone else _document.text(document, "from")),
        "after": _document.text(told, "after"),
        "message": message or _DEFAULT_MESSAGES.get(result) or _document.text(document, "reason"),
        "code": code,
        "remedy": _remedy(code, blocked),
        "plan": None if gone or not document else _without_content(document),
        "warnings": [] if gone else [dict(warning) for warning in _document.mappings(document, "warnings")],
    }


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


_DEFAULT_MESSAGES = {
    "unreachable": "the host did not answer in this run",
    "failed": "left the run before its driver was as wanted; the output above says why",
    "not_run": "nothing was decided about the driver of this host",
}


def _remedy(code: str | None, blocked: Mapping[str, Any]) -> str | None:
    """Return what to do about a plan that is blocked. What the role says of a failure or a missing reboot has it in its sentence."""
    return _document.text(blocked, "remedy") if code is not None and blocked.get("code") == code else None


def _without_content(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document without the content of files, which would bury the report."""

    def bare(files: object) -> dict[str, Any]:
        entries = _document.mapping(files)
        return {path: None if file is None else {"sha256": _document.text(file, "sha256")} for path, file in entries.items()}

    repository, pins = _document.mapping(document, "repository"), _document.mapping(document, "pins")
    return {
        **{key: value for key, value in document.items() if key != "query"},
        "repository": {**repository, "files": bare(repository.get("files"))} if repository else None,
        "pins": {**pins, "files": bare(pins.get("files"))},
        "files": bare(document.get("files")),
    }


def summarize(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many hosts came out as what, with ``hosts`` for all of them."""
    return {"hosts": len(records), **{result: sum(record["result"] == result for record in records) for result in RESULTS}}


def _counts(records: Sequence[Mapping[str, Any]]) -> str:
    counts = summarize(records)
    return ", ".join(f"{counts[result]} {_WORDS.get(result, result)}" for result in RESULTS if counts[result]) or "none"


# -- the plan --------------------------------------------------------------------------------------------------------


def render_plan(records: Sequence[Mapping[str, Any]], check: bool) -> str:
    """Return the plans of the drivers of all hosts; hosts with the same plan share one block."""
    blocks: dict[tuple[str, ...], list[str]] = {}
    warnings: dict[str, list[str]] = {}
    for record in records:
        blocks.setdefault(tuple(_plan_lines(record)), []).append(record["host"])
        for warning in dict.fromkeys(f"{entry.get('code')} {entry.get('message')}" for entry in record["warnings"]):
            warnings.setdefault(warning, []).append(record["host"])
    lines = [f"DRIVERS of {_text.count_hosts(len(records))}: {_counts(records)}{f' ({_text.CHECKED})' if check else ''}"]
    for (first, *rest), hosts in blocks.items():
        lines += ["", *_text.wrap(f"{_text.host_list(hosts)}: {first}", "    ", ""), *rest]
    lines += ["", "WARNINGS"] if warnings else []
    for warning, hosts in sorted(warnings.items()):
        lines += _text.wrap(f"{warning} [{'every host' if len(hosts) == len(records) > 1 else _text.some_hosts(hosts)}]", "        ", "  ")
    return "\n".join(lines)


def _plan_lines(record: Mapping[str, Any]) -> list[str]:
    document = record["plan"]
    if not document:
        code = f"{record['code']} " if record["code"] else ""
        return [f"no plan: {code}{record['message']}"]
    status = str(document.get("status"))
    lines = [_STATUS.get(status, status)]
    for finding in _document.mappings(document, "blocked"):
        lines += _entry("blocked", f"{finding.get('code')} {finding.get('message')}")
        lines += _entry("", f"-> {finding.get('remedy')}") if finding.get("remedy") else []
    if status != "change":
        there = _document.text(document, "from") or "none"
        return lines + _entry("driver", f"{there} ({document.get('reason')})") + _restart_lines(document)
    lines += _entry("driver", f"{_change(document)} ({document.get('reason')})")
    for part in (_source_lines, _repository_lines, _package_lines, _pin_lines, _file_lines, _guard_lines, _end_lines):
        lines += part(document)
    return lines


def _entry(label: str, text: str) -> list[str]:
    return _text.wrap(text, _INDENT, f"  {label:<12}")


def _change(document: Mapping[str, Any]) -> str:
    before, after = _document.text(document, "from"), _document.text(document, "expects") or _document.text(document, "to")
    action = _document.text(document, "action") or "change"
    old, new = _versions.parse(before), _versions.parse(after)
    if action == "upgrade" and old is not None and new is not None and new < old:
        action = "downgrade"
    if action == "remove":
        return f"remove {before or 'what is left of one'}"
    if action == "configure":
        return f"configure {after or before or 'nothing'}"
    return f"{action} {f'{before} -> ' if before and before != after else ''}{after}"


def _source_lines(document: Mapping[str, Any]) -> list[str]:
    target = _document.mapping(document, "target")
    source = _PHRASES.get(_document.text(target, "source") or "")
    if source is None or document.get("action") == "configure":
        return []
    built = {"prebuilt": "prebuilt", "dkms": "built on the host"}.get(_document.text(target, "kernel_modules") or "")
    kinds = [text for text in (_document.text(target, "flavour"), built) if text]
    return _entry(
        "from", f"{source}{f'; {chr(32).join(kinds[:1])} kernel modules' if kinds else ''}{f', {kinds[1]}' if len(kinds) > 1 else ''}"
    )


def _repository_lines(document: Mapping[str, Any]) -> list[str]:
    repository = _document.mapping(document, "repository")
    if repository.get("change") is not True:
        return []
    paths = [str(path) for path in _document.mapping(repository, "files")]
    key = _document.mapping(repository, "key")
    fingerprint = _document.text(key, "fingerprint")
    signed = f", with the key {fingerprint or 'of the file'} from {key.get('source')}" if key else ""
    return _entry("repository", f"{_some(paths)} is written{signed}")


def _package_lines(document: Mapping[str, Any]) -> list[str]:
    packages = _document.mapping(document, "packages")
    come, go = _document.mappings(packages, "install"), _document.mappings(packages, "remove")
    lines = _entry("repair", "packages that are half installed are finished first") if document.get("repair") is True else []
    first = _document.texts(packages, "first")
    lines += _entry("first", f"{_some(first)}, in a step of its own") if first else []
    if come:
        size = packages.get("download_mib")
        load = f"; {size} MiB to load" if isinstance(size, int) and size else ""
        lines += _entry("packages", f"{_count(come)} come or change{load}: {_some([_package(package) for package in _driver_first(come)])}")
    if go:
        lines += _entry("removed", f"{_count(go)}: {', '.join(str(package.get('name')) for package in go)}")
    stream = _document.mapping(packages, "stream")
    if stream:
        wanted = _document.text(stream, "stream")
        lines += _entry("stream", f"{stream.get('name')}:{wanted}" if wanted else f"{stream.get('name')} is reset")
    return lines


def _driver_first(packages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return packages with those that change first, then the driver's: what is worth reading of a long list."""

    def weight(package: Mapping[str, Any]) -> tuple[bool, bool, bool]:
        name = str(package.get("name"))
        return package.get("from") is None, not name.startswith(("nvidia-", "kmod-nvidia")), "nvidia" not in name

    return sorted(packages, key=weight)


def _package(package: Mapping[str, Any]) -> str:
    before, after = _document.text(package, "from"), _document.text(package, "to")
    return f"{package.get('name')} {f'{before} -> ' if before else ''}{after or ''}".rstrip()


def _count(packages: Sequence[object]) -> str:
    return "1 package" if len(packages) == 1 else f"{len(packages)} packages"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _pin_lines(document: Mapping[str, Any]) -> list[str]:
    pins = _document.mapping(document, "pins")
    files = _document.mapping(pins, "files")
    kept = [
        words for flag, words in (("holds", "every package is held"), ("versionlocks", "every package is locked")) if pins.get(flag) is True
    ]
    written = [str(path) for path, file in files.items() if file is not None]
    gone = [str(path) for path, file in files.items() if file is None]
    texts = [*kept, *([_some(written)] if written else []), *([f"{_some(gone)} goes"] if gone else [])]
    free = [*_document.texts(pins, "release", "holds"), *_document.texts(pins, "release", "versionlocks")]
    texts += [f"{_count(free)} released first"] if free and (document.get("action") == "remove" or not kept) else []
    return _entry("pins", "; ".join(texts)) if texts else []


def _file_lines(document: Mapping[str, Any]) -> list[str]:
    files = _document.mapping(document, "files")
    lines = []
    written = [str(path) for path, file in files.items() if file is not None]
    gone = [str(path) for path, file in files.items() if file is None]
    texts = [*([_some(written)] if written else []), *([f"{_some(gone)} goes" if len(gone) == 1 else f"{_some(gone)} go"] if gone else [])]
    texts += ["the initramfs is made anew"] if document.get("initramfs") is True else []
    lines += _entry("files", "; ".join(texts)) if texts else []
    services = [str(service.get("name")) for service in _document.mappings(document, "services")]
    return lines + (_entry("services", f"{_some(services)}, started at boot") if services else [])


def _guard_lines(document: Mapping[str, Any]) -> list[str]:
    guard = _document.mapping(document, "guard")
    users = [f"{user.get('kind')} {user.get('name')} ({user.get('what')})" for user in _document.mappings(guard, "users")]
    stops = [str(container.get("name")) for container in _document.mappings(guard, "stop")]
    lines = _entry("in use", f"by {_some(users)}") if users else []
    lines += _entry("stops", f"{_some(stops)}, started again afterwards") if stops else []
    if users and guard.get("policy") == "wait":
        lines += _entry("waits", "until the GPUs are free")
    return lines + _restart_lines(document)


def _restart_lines(document: Mapping[str, Any]) -> list[str]:
    again = [str(container.get("name")) for container in _document.mappings(document, "restart")]
    return _entry("starts", f"{_some(again)}, which an interrupted run stopped") if again else []


def _end_lines(document: Mapping[str, Any]) -> list[str]:
    how = _ACTIVATION.get(_document.text(document, "activation") or "")
    if how is None:
        return []
    if document.get("action") == "remove" and document.get("activation") == "reload":
        how = "the modules are unloaded, without a reboot"
    reasons = "; ".join(_document.texts(document, "reboot", "reasons"))
    fallback = "; where that fails, the host is REBOOTED" if document.get("fallback") == "reboot" else ""
    return _entry("then", f"{how}{fallback}{f': {reasons}' if reasons else ''}")


# -- what became of it -----------------------------------------------------------------------------------------------


def render_outcome(records: Sequence[Mapping[str, Any]], check: bool, paint: Paint) -> str:
    """Return the table of all hosts, and under it what to do where something is wrong."""
    head = ["HOST", "DRIVER BEFORE", "AFTER", "RESULT"]
    rows = [
        [str(record["host"]), str(record["before"] or "-"), str(record["after"] or "-"), _WORDS.get(record["result"], record["result"])]
        for record in records
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [f"DRIVERS of {_text.count_hosts(len(records))}: {_counts(records)}{f' ({_text.CHECKED})' if check else ''}", ""]
    lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(head, widths)), "WHY"]))
    for row, record in zip(rows, records):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        # Painted after it is filled up, since colours take no room on the terminal.
        painted = [*cells[:-1], paint(row[-1], str(record["result"])) + " " * (widths[-1] - len(row[-1]))]
        room = max(_text.WIDTH - sum(widths) - 2 * len(widths), 20)
        why = _why(record, room)
        lines.append("  ".join([*painted, why]).rstrip())
    return "\n".join([*lines, *_explanations(records)])


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
