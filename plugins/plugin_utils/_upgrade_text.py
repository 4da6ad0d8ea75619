# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of an upgrade of drivers as text, what became of it as a table, and the records of both.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes, _text, _upgrade

SCHEMA = 1
# What a host can come out as; the first four leave nothing to do.
RESULTS = (
    "upgraded", "unchanged", "checked", "planned", "not_run", "blocked", "rolled_back", "failed", "lost", "unreachable",
)  # fmt: skip
GOOD_RESULTS = frozenset(RESULTS[:4])
# These may keep others from being begun.
_BAD = ("rolled_back", "failed", "lost", "unreachable")
_WORDS = {
    "checked": "would change",
    "planned": "to change",
    "not_run": "not begun",
    "blocked": "BLOCKED",
    "rolled_back": "ROLLED BACK",
    "failed": "FAILED",
    "lost": "LOST",
}
_PHASES = ("look", "save", "out", "driver", "serve", "prove", "back", "rollback")
_DEFAULT_MESSAGES = {
    "unreachable": "the host did not answer in this run",
    "failed": "left the run before it was proven; the output above says why",
}
# Paints a text that stands for a result.
Paint = Callable[[str, str], str]


# -- records ---------------------------------------------------------------------------------------------------------


def build_records(
    plan: Mapping[str, Any],
    outcomes: Mapping[str, Mapping[str, Any]],
    in_play: Callable[[str], bool],
    ended: bool,
    check: bool,
    time: str,
    run: str,
) -> list[dict[str, Any]]:
    """Return the records of hosts.

    Args:
        plan: the document gpu_upgrade; empty where none was made.
        outcomes: by host, its variable upgrade_outcome; empty where it has none.
        in_play: whether a host is still in the play.
        ended: whether this is after the waves, and not the plan before them.
        check: whether nothing was to be changed.
        time: when this is, as ISO 8601.
        run: what the records of one run have in common.
    """
    entries = _document.mapping(plan, "hosts")
    found = [
        _record(host, _document.mapping(entries, host), told, in_play(host), ended and not check, check) for host, told in outcomes.items()
    ]
    stopped = [record["host"] for record in found if record["result"] in _BAD and record["wave"]]
    for record in found:
        if record["result"] == "not_run" and stopped:
            record["code"] = _plan_codes.NOT_BEGUN
            record["message"] = f"not begun, since {_text.some_hosts(stopped)} did not come out as wanted"
    return [{"schema": SCHEMA, "time": time, "run": run, **record} for record in found]


def _record(
    host: str, entry: Mapping[str, Any], told: Mapping[str, Any], in_play: bool, ended: bool, check: bool
) -> dict[str, Any]:
    begun = told if _document.mapping(told, "times") else {}
    result = _result(entry, told, begun, in_play, ended, check)
    code = _document.text(told, "code") or _document.text(entry, "code")
    reason = _document.text(entry, "reason") if result in ("unchanged", "blocked", "planned", "checked", "unreachable") else None
    return {
        "host": host,
        "check": check,
        "result": result,
        "ok": result in GOOD_RESULTS,
        "from": _document.text(begun, "from") or _document.text(entry, "from"),
        "to": _document.text(begun, "to") or _document.text(entry, "to"),
        "image_from": _document.text(begun, "image_from") or _document.text(entry, "image", "from"),
        "image_to": _document.text(begun, "image_to") or (None if ended else _document.text(entry, "image", "to")),
        "wave": _document.text(entry, "wave"),
        "phase": _document.text(begun, "phase") if result in _BAD else None,
        "in_service": _document.flag(begun, "in_service"),
        "code": None if result in GOOD_RESULTS else code,
        "message": _document.text(told, "message") or reason or _DEFAULT_MESSAGES.get(result) or _document.text(entry, "reason"),
        "remedy": _remedy(code, entry) if result not in GOOD_RESULTS else None,
        "seconds": _seconds(begun),
        "phases": _phases(begun),
        "plan": dict(entry) if entry else None,
    }


def _result(
    entry: Mapping[str, Any], told: Mapping[str, Any], begun: Mapping[str, Any], in_play: bool, ended: bool, check: bool
) -> str:
    status = _document.text(told, "status")
    if begun and status in RESULTS:
        return str(status) if in_play or status != "failed" else "failed"
    if status in ("unreachable", "blocked", "failed") and not entry.get("wave"):
        return str(status)
    if not in_play:
        return "unreachable" if ended else str(status or "failed")
    action = _document.text(entry, "action")
    if action == _upgrade.NONE:
        return "unchanged"
    if action in (_upgrade.BLOCKED, _upgrade.FAILED, _upgrade.UNREACHABLE):
        return str(action)
    return "not_run" if ended or not entry else "checked" if check else "planned"


def _remedy(code: str | None, entry: Mapping[str, Any]) -> str | None:
    if code is not None and _document.text(entry, "code") == code:
        return _document.text(entry, "remedy")
    # What a role or the proof says has its remedy in the sentence.
    return _plan_codes.CODES[code].remedy if code in _OWN else None


_OWN = (_plan_codes.LOST, _plan_codes.ROLLBACK_FAILED, _plan_codes.BALANCER, _plan_codes.TOO_MANY_AWAY)


def _phases(told: Mapping[str, Any]) -> dict[str, float]:
    times = _document.mapping(told, "times")
    return {phase: span for phase in _PHASES if (span := _span(times.get(phase))) is not None}


def _span(times: object) -> float | None:
    if not isinstance(times, (list, tuple)) or len(times) != 2:
        return None
    begun, ended = (_number(value) for value in times)
    return round(ended - begun, 1) if begun is not None and ended is not None and ended >= begun else None


def _number(value: object) -> float | None:
    """Return a number; before ansible-core 2.19 what a template made of one may be a text."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except ValueError:
        return None
    return found if found is not None and 0 <= found < 1e12 else None


def _seconds(told: Mapping[str, Any]) -> float | None:
    spans = _phases(told).values()
    return round(sum(spans), 1) if spans else None


def _title(records: Sequence[Mapping[str, Any]], check: bool) -> str:
    return _text.title("DRIVER UPGRADE of", records, _text.count_results(records, _WORDS, RESULTS), check)


# -- the plan --------------------------------------------------------------------------------------------------------


_SECTIONS = (("CHANGE", ("planned", "checked")), ("IN THE WAY", ("blocked", "failed", "unreachable")), ("LEFT ALONE", ("unchanged",)))


def render_plan(plan: Mapping[str, Any], records: Sequence[Mapping[str, Any]], check: bool) -> str:
    """Return the plan of a whole run: who changes and how, who is left alone and why, who goes when, and how long it takes."""
    lines = [_title(records, check)]
    for head, wanted in _SECTIONS:
        lines += _section(head, [record for record in records if record["result"] in wanted])
    lines += _waves(plan)
    lines += _warnings(records)
    return "\n".join(lines)


def _section(head: str, records: Sequence[Mapping[str, Any]]) -> list[str]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        groups.setdefault(tuple(_lines(record)), []).append(str(record["host"]))
    lines = ["", head] if groups else []
    for (first, *rest), hosts in groups.items():
        lines += _text.wrap(f"{_text.host_list(hosts)}: {first}", "      ", "  ")
        for text in rest:
            lines += _text.wrap(text, "        ", "      ")
    return lines


def _lines(record: Mapping[str, Any]) -> list[str]:
    entry = record["plan"] or {}
    if record["result"] not in ("planned", "checked"):
        code = f"{record['code']}: " if record["code"] else ""
        told = f"{record['result']}, " if record["result"] != "unchanged" else ""
        driver = f"driver {entry['from']}, " if entry.get("from") else ""
        return [f"{told}{driver}{code}{record['message']}", *([f"-> {record['remedy']}"] if record["remedy"] else [])]
    change = f"{record['from'] or 'no driver'} -> {record['to'] or '?'}"
    lines = [f"{entry.get('action')} {change} ({_activation(entry)}): {entry.get('reason')}"]
    image = entry.get("image")
    if image:
        same = image.get("from") == image.get("to")
        lines.append(f"image {image.get('from') or 'none'}{', stays' if same else ' -> ' + str(image.get('to') or 'none that fits')}")
    if entry.get("stops"):
        lines.append(f"stops and starts again: {', '.join(entry['stops'])}")
    return [*lines, _way_back(entry.get("rollback") or {})]


def _activation(entry: Mapping[str, Any]) -> str:
    return {"reboot": "reboot", "reload": "modules are exchanged", "load": "is loaded", "later": "REBOOT BY HAND"}.get(
        str(entry.get("activation")), "no reboot"
    )


def _way_back(rollback: Mapping[str, Any]) -> str:
    if not rollback.get("possible"):
        return f"NO WAY BACK: {rollback.get('reason') or 'the present driver cannot be saved'}"
    how = [(count, _WAYS[way]) for way, count in _document.mapping(rollback, "how").items() if count and way in _WAYS]
    if not how:
        return f"way back: {rollback.get('reason') or 'saved by the interrupted run'}"
    packages = "package" if sum(count for count, _way in how) == 1 else "packages"
    (first, way), *others = how
    return f"way back: {', '.join([f'{first} {packages} {way}', *(f'{count} {way}' for count, way in others)])}"


_WAYS = {"saved": "saved already", "cache": "from the cache", "download": "to download", "repack": "by dpkg-repack"}


def _waves(plan: Mapping[str, Any]) -> list[str]:
    waves = _document.mappings(plan, "waves")
    if not waves:
        return []
    minutes = plan.get("minutes")
    most = f"no more than {plan.get('limit')} out of service at once"
    lines = ["", f"WAVES: {len(waves)}, {most}, about {minutes} minutes (an estimate: upgrade_host_minutes for each wave)"]
    for wave in waves:
        label = f" ({wave['label']})" if wave.get("label") else ""
        lines += _text.wrap(f"{wave.get('name')}{label}: {_text.host_list(_document.texts(wave, 'hosts'))}", "      ", "  ")
    return lines


def _warnings(records: Sequence[Mapping[str, Any]]) -> list[str]:
    warnings: dict[str, list[str]] = {}
    for record in records:
        for note in _document.mappings(record["plan"], "warnings"):
            warnings.setdefault(f"{note.get('code')} {note.get('message')}", []).append(str(record["host"]))
    lines = ["", "WARNINGS"] if warnings else []
    for warning, hosts in sorted(warnings.items()):
        who = "every host" if len(hosts) == len(records) > 1 else _text.some_hosts(list(dict.fromkeys(hosts)))
        lines += _text.wrap(f"{warning} [{who}]", "        ", "  ")
    return lines


# -- what became of it -----------------------------------------------------------------------------------------------


def render_outcome(records: Sequence[Mapping[str, Any]], paint: Paint) -> str:
    """Return the table of all hosts, and under it what went wrong, where, and how to go on."""
    head = ["HOST", "WAVE", "DRIVER", "IMAGE", "TIME", "RESULT"]
    rows = [
        [
            str(record["host"]),
            record["wave"] or "-",
            _change(record["from"], record["to"] if record["result"] == "upgraded" else None),
            _change(record["image_from"], record["image_to"] if record["result"] == "upgraded" else None),
            _minutes(record["seconds"]),
            _WORDS.get(record["result"], record["result"]),
        ]
        for record in records
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [_title(records, False), "", "  ".join(cell.ljust(width) for cell, width in zip(head, widths)).rstrip()]
    for row, record in zip(rows, records):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join([*cells[:-1], paint(row[-1], str(record["result"]))]))
    return "\n".join([*lines, *_troubles(records), *_slowest(records)])


def _change(before: str | None, after: str | None) -> str:
    return f"{before or 'none'} -> {after}" if after and after != before else before or after or "-"


def _minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _troubles(records: Sequence[Mapping[str, Any]]) -> list[str]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if record["ok"]:
            continue
        head = " ".join(str(part) for part in (_WORDS.get(record["result"], record["result"]), record["code"]) if part)
        phase = f" in phase {record['phase']}" if record["phase"] else ""
        service = {True: " It is in service.", False: " It is OUT OF SERVICE."}.get(record["in_service"], "")
        texts = [f"{head}{phase}: {str(record['message']).rstrip('.')}.{service}", *([str(record["remedy"])] if record["remedy"] else [])]
        groups.setdefault(tuple(texts), []).append(str(record["host"]))
    lines: list[str] = []
    for (first, *rest), hosts in groups.items():
        lines += ["", *_text.wrap(f"{_text.host_list(hosts)}: {first}", "    ", "")]
        for text in rest:
            lines += _text.wrap(text, "       ", "    -> ")
    return lines + _to_go_on([str(record["host"]) for record in records if record["result"] in (*_BAD, "not_run")])


# More names than these are no help on a command line.
_MANY = 12


def _to_go_on(hosts: Sequence[str]) -> list[str]:
    """Return how the run is continued. The command itself may have secrets in it, and is not repeated."""
    if not hosts:
        return []
    told = "To go on: mend what is named, and run the same command again. Hosts that are done are recognised and left alone"
    alone = f"; for the others alone add --limit {','.join(hosts)}" if len(hosts) <= _MANY else ""
    return ["", *_text.wrap(f"{told}{alone}.", "    ", "")]


def _slowest(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where the time went, of the host that took longest."""
    timed = [record for record in records if record["result"] == "upgraded" and record["seconds"]]
    if not timed:
        return []
    slowest = max(timed, key=lambda record: float(record["seconds"]))
    spans = ", ".join(f"{phase} {_minutes(span)}" for phase, span in slowest["phases"].items() if span >= 1)
    return ["", f"Longest: {slowest['host']} ({spans})."]
