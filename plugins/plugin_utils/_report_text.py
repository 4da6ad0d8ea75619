# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records as text for a terminal: the table after a run.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils._plan_text import render_fleet, render_plan
from ansible_collections.difyops.gpu.plugins.plugin_utils._report import RESULTS, restore_failure
from ansible_collections.difyops.gpu.plugins.plugin_utils._text import CHECKED, WIDTH, count_hosts, count_results, host_list, title, wrap

__all__ = ["host_list", "plain", "render_audit", "render_plan", "render_verdict"]

# Paints a text that stands for a result; the default leaves it as it is.
Paint = Callable[[str, str], str]

_LINKS = {
    "pci": "pci",
    "bnd": "bound",
    "drv": "driver",
    "nvm": "nvml",
    "tkt": "toolkit",
    "eng": "engine",
    "dev": "device",
    "cud": "cuda",
    "tor": "torch",
    "krn": "kernel",
    "spd": "speed",
}
_RESULT_WORDS = {"unproven": "UNPROVEN", "failed": "FAILED", "blocked": "BLOCKED", "degraded": "DEGRADED", "not_run": "not run"}
# The columns that may be cut when a line is too long, each with the least that must stay readable.
_SHRINKABLE = ((1, 12), (0, 16))


def plain(text: str, _result: str) -> str:
    """Paint nothing."""
    return text


# -- the verdict -----------------------------------------------------------------------------------------------------


def render_verdict(records: Sequence[Mapping[str, Any]], check: bool, paint: Paint = plain) -> str:
    """Return the table of all hosts, and under it a few lines for each that needs an explanation."""
    legend = " ".join(f"{short}={name}" for short, name in _LINKS.items() if short != name)
    head = ["HOST", "GPU", "DRIVER", "CUDA", "IMAGE", *_LINKS, "VERDICT"]
    first = title("RESULT for", records, _counts(records), check)
    lines = [first, "", *_table(head, [_cells(record) for record in records], records, paint), "", *wrap(legend, "")]
    lines += ["ok: good  FAIL: broken  ?: could not be tested  -: not needed, or not reached"]
    return "\n".join([*lines, *_grouped(records, lambda record: [*_explanation(record), *_verdict_warnings(record)])])


def _counts(records: Sequence[Mapping[str, Any]]) -> str:
    return count_results(records, _RESULT_WORDS, RESULTS)


def _cells(record: Mapping[str, Any]) -> list[str]:
    gpus = [_gpu_text(gpu) for gpu in record["gpus"]]
    links = {link.get("link"): link for link in (record["verdict"] or {}).get("links") or []}
    result = str(record["result"])
    return [
        str(record["host"]),
        ", ".join(gpus) or "-",
        str(record["driver"] or "-"),
        str(record["cuda"] or "-"),
        str(record["variant"] or "-"),
        *(_link_cell(links.get(name)) for name in _LINKS.values()),
        _RESULT_WORDS.get(result, result),
    ]


def _gpu_text(gpu: Mapping[str, Any]) -> str:
    name = re.sub(r"^NVIDIA ", "", str(gpu["name"]))
    return f"{gpu['count']} x {name}" if gpu["count"] > 1 else name


def _link_cell(link: Mapping[str, Any] | None) -> str:
    if link is None:
        return "-"
    return {"ok": "ok", "failed": "FAIL"}.get(str(link.get("status")), "?" if link.get("code") else "-")


def _table(head: Sequence[str], cells: Sequence[list[str]], records: Sequence[Mapping[str, Any]], paint: Paint) -> list[str]:
    """Return the lines of a table whose last column is the result."""
    rows = [list(head), *cells]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    # Two spaces between the columns of text, one between the links.
    gaps = [1 if this in _LINKS and following in _LINKS else 2 for this, following in zip(head, head[1:])]
    surplus = sum(widths) + sum(gaps) - WIDTH
    for column, least in _SHRINKABLE:
        cut = max(0, min(surplus, widths[column] - least))
        widths[column] -= cut
        surplus -= cut
    lines = []
    for number, row in enumerate(rows):
        fitted = [_fit(cell, widths[column]) for column, cell in enumerate(row)]
        result = "" if number == 0 else str(records[number - 1]["result"])
        text = "".join(cell + " " * gap for cell, gap in zip(fitted, gaps))
        lines.append(text + (paint(fitted[-1].rstrip(), result) if result else fitted[-1].rstrip()))
    return lines


def _fit(cell: str, width: int) -> str:
    """Return a cell in its column's width; what does not fit loses its middle, since names differ at their ends."""
    if len(cell) <= width:
        return cell.ljust(width)
    left = (width - 2) // 2
    return f"{cell[:left]}..{cell[len(cell) - (width - 2 - left) :]}"


def _grouped(
    records: Sequence[Mapping[str, Any]], explain: Callable[[Mapping[str, Any]], Sequence[tuple[str, ...]]]
) -> list[str]:
    """A few lines for every host that needs an explanation; hosts with the same trouble share them."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        for explanation in explain(record):
            groups.setdefault(explanation, []).append(str(record["host"]))
    lines: list[str] = []
    for texts, hosts in groups.items():
        lines += ["", *wrap(f"{host_list(hosts)}: {texts[0]}", "    ", "")]
        for text in texts[1:]:
            lines += wrap(text, "       ", "    -> ")
    return lines


def _explanation(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The explanations of one host, each its sentence and then what to do."""
    result, message = str(record["result"]), str(record["message"] or "")
    found: list[tuple[str, ...]] = []
    if result == "cpu":
        found.append(("cpu: serves without a GPU, as planned",))
    elif result == "degraded":
        found.append((message if message.startswith("DEGRADED") else f"DEGRADED: {message}",))
    elif result == "checked":
        found.append((CHECKED,))
    elif result == "observed":
        found.append((message,))
    elif result != "proven":
        head = " ".join(_texts(_RESULT_WORDS.get(result, result), record["code"]))
        after = _aftermath(record)
        # It is told on a line of its own, after what to do about the failure itself.
        message = message[: -len(f". {after}")] if after and message.endswith(f". G{after[1:]}") else message
        found.append((f"{head}: {message}", *_texts(record["remedy"], after)))
    if result == "proven":
        slow = [link for link in (record["verdict"] or {}).get("links") or [] if link.get("link") == "speed" and link.get("code")]
        found += [(f"proven, but {link['code']}: {link['seen']}", str(link["remedy"])) for link in slow]
    return found


def _texts(*values: Any) -> list[str]:
    """Return the values that say something, as text."""
    return [str(value) for value in values if value]


def _aftermath(record: Mapping[str, Any]) -> str | None:
    """What became of the service after the failure."""
    outcome = record["outcome"] or {}
    if outcome.get("status") == "restored":
        return "the service that ran before is back"
    if outcome.get("status") == "stopped":
        return "the service was stopped, since nothing proven was there to go back to"
    return restore_failure(outcome)


def _verdict_warnings(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What the verdict warns of, without the speed, which has an explanation of its own."""
    verdict = record["verdict"] or {}
    speed = [link.get("code") for link in _entries(verdict.get("links")) if link.get("link") == "speed"]
    return [
        (f"warning {warning.get('code')}: {warning.get('message')}",)
        for warning in _entries(verdict.get("warnings"))
        if warning.get("code") not in speed
    ]


def _entries(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of a list, and none of anything else."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# -- the audit -------------------------------------------------------------------------------------------------------

_PLAN_WORDS = {"ok": "as planned", "change": "differs", "blocked": "BLOCKED"}


def render_decision(fleet: Mapping[str, Any] | None) -> str:
    """Return what was decided over all hosts, or that nothing was."""
    return render_fleet(fleet) if fleet and fleet.get("schema") == 1 else "FLEET: nothing was decided over its hosts"


def render_audit(records: Sequence[Mapping[str, Any]], fleet: Mapping[str, Any] | None, paint: Paint = plain) -> str:
    """Return what an audit found: the table, what is wrong, what a run would change, what is worth knowing, and drift.

    ``fleet`` is the decision over all hosts, None when there is none.
    """
    head = ["HOST", "GPU", "DRIVER", "CUDA", "TOOLKIT", "ENGINE", "IMAGE", "PLAN", "RESULT"]
    first = f"AUDIT of {count_hosts(len(records))}: {_counts(records)} (nothing was changed)"
    lines = [first, "", *_table(head, [_audit_cells(record) for record in records], records, paint)]
    for explain in (_audit_explanation, _would_change, _all_warnings):
        lines += _grouped(records, explain)
    if fleet and fleet.get("schema") == 1 and len(records) > 1:
        lines += ["", render_fleet(fleet)]
    return "\n".join(lines)


def _audit_cells(record: Mapping[str, Any]) -> list[str]:
    cells = _cells(record)
    status = str((record["plan"] or {}).get("status"))
    return [
        *cells[:4],
        str(record["toolkit"] or "-"),
        str(record["engine"] or "-"),
        cells[4],
        _PLAN_WORDS.get(status, "-"),
        cells[-1],
    ]


def _audit_explanation(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What was found on a host; where more than the service was proven, one line for each other container."""
    found = _explanation(record) if record["result"] not in ("proven", "observed") else []
    for verdict in record["containers"]:
        name, overall = _mapping(verdict.get("container")).get("name"), str(verdict.get("overall"))
        if verdict.get("code") and verdict.get("code") == record["code"] and verdict.get("summary") == record["message"]:
            found = [(f"container {name}: {found[0][0]}", *found[0][1:]), *found[1:]] if found else found
            continue
        head = " ".join(_texts(_RESULT_WORDS.get(overall, overall), verdict.get("code")))
        found.append((f"container {name}: {head}: {verdict.get('summary')}", *_texts(verdict.get("remedy"))))
    for blocked in _entries((record["plan"] or {}).get("blocked")):
        if record["result"] != "blocked":
            found.append((f"the plan is BLOCKED, {blocked.get('code')}: {blocked.get('message')}", *_texts(blocked.get("remedy"))))
    return found


def _would_change(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What a run that applies the plan would do, in one line."""
    plan = record["plan"] or {}
    changes = []
    for name, part in _mapping(plan.get("parts")).items():
        action = _mapping(part).get("action")
        if action in (None, "none", "blocked"):
            continue
        before, after = part.get("from"), part.get("to")
        change = f" {before} -> {after}" if before and after and before != after else ""
        reason = f" ({part['reason']})" if part.get("reason") else ""
        changes.append(f"{name}: {action}{change}{reason}")
    if _mapping(plan.get("reboot")).get("required"):
        changes.append("reboot")
    return [(f"would change: {'; '.join(changes)}",)] if changes else []


def _all_warnings(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [(f"warning {warning['code']}: {warning['message']}",) for warning in record["warnings"]]
