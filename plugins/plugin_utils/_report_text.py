# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records as text for a terminal: the plan before, the table after.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.plugin_utils._report import RESULTS, restore_failure, summarize

WIDTH = 120
CHECKED = "checked, not applied"

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
_PARTS = ("driver", "engine", "toolkit", "image", "dify")


def plain(text: str, _result: str) -> str:
    """Paint nothing."""
    return text


# -- names of hosts --------------------------------------------------------------------------------------------------


def host_list(hosts: Sequence[str]) -> str:
    """Return names on one line; three or more in a numbered row become a range as in an inventory: gpu-[01:20]."""
    parts: list[str] = []
    row: list[str] = []
    for host in [*hosts, ""]:
        if row and _follows(row[-1], host):
            row.append(host)
            continue
        parts += row if len(row) < 3 else [_range(row[0], row[-1])]
        row = [host] if host else []
    return ", ".join(parts)


def _split(host: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)([0-9]*)", host, re.DOTALL)
    return (match.group(1), match.group(2)) if match else (host, "")


def _follows(before: str, host: str) -> bool:
    (stem, number), (next_stem, next_number) = _split(before), _split(host)
    if not number or not next_number or stem != next_stem:
        return False
    return str(int(number) + 1).zfill(len(number)) == next_number


def _range(first: str, last: str) -> str:
    return f"{_split(first)[0]}[{_split(first)[1]}:{_split(last)[1]}]"


def _wrap(text: str, indent: str, first: str | None = None) -> list[str]:
    """Return text in lines of at most WIDTH; a word that is longer stays whole, since paths and images get copied."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


# -- the plan --------------------------------------------------------------------------------------------------------


def render_plan(plans: Sequence[tuple[str, Mapping[str, Any] | None]], check: bool) -> str:
    """Return the plans of all hosts; hosts with the same plan share one block.

    Each of ``plans`` is a host and its record's plan, None for a host without one.
    """
    blocks: dict[tuple[str, ...], list[str]] = {}
    for host, plan in plans:
        blocks.setdefault(tuple(_plan_lines(plan)), []).append(host)
    counts = [str((plan or {}).get("status") or "without a plan") for _host, plan in plans]
    words = [f"{counts.count(word)} {_STATUS_WORDS.get(word, word)}" for word in dict.fromkeys(counts)]
    lines = [f"PLAN for {_hosts(len(plans))}: {', '.join(words)}{f' ({CHECKED})' if check else ''}"]
    for (first, *rest), hosts in blocks.items():
        lines += ["", *_wrap(f"{host_list(hosts)}: {first}", "    ", ""), *rest]
    return "\n".join(lines)


_STATUS_WORDS = {"change": "to change", "ok": "unchanged", "blocked": "BLOCKED"}


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def _plan_lines(plan: Mapping[str, Any] | None) -> list[str]:
    """The block of one plan, its first line to follow the names of the hosts."""
    if not plan:
        return ["no plan, the result below says why"]
    mode = {"cpu": "serves on the CPU", "degraded": "DEGRADED to the CPU by consent"}.get(str(plan.get("mode")))
    status = {"change": "change", "ok": "nothing to change", "blocked": "BLOCKED, nothing is touched"}
    lines = [", ".join(filter(None, [status.get(str(plan.get("status")), str(plan.get("status"))), mode]))]
    for finding in plan.get("blocked") or []:
        lines += _entry("blocked", f"{finding.get('code')} {finding.get('message')}")
        lines += _entry("", f"-> {finding.get('remedy')}") if finding.get("remedy") else []
    parts = plan.get("parts") or {}
    for name in _PARTS:
        part = parts.get(name) or {}
        if part.get("action") not in (None, "none"):
            lines += _entry(name, _part_text(part))
    lines += _image_lines(plan.get("image"))
    if plan.get("status") != "ok":
        lines += _rejected_lines(plan.get("rejected") or [])
    reboot = plan.get("reboot") or {}
    if reboot.get("required"):
        lines += _entry("reboot", "; ".join(map(str, reboot.get("reasons") or ["required"])))
    for warning in plan.get("warnings") or []:
        lines += _entry("warning", f"{warning.get('code')} {warning.get('message')}")
    return lines


def _entry(label: str, text: str) -> list[str]:
    return _wrap(text, " " * 12, f"  {label:<10}")


def _part_text(part: Mapping[str, Any]) -> str:
    before, after = part.get("from"), part.get("to")
    change = f" {before} -> {after}" if before and after and before != after else f" {after or before or ''}".rstrip()
    reason = part.get("reason")
    return f"{part['action']}{change}{f' ({reason})' if reason else ''}"


def _image_lines(image: Mapping[str, Any] | None) -> list[str]:
    if not image:
        return []
    expected = ", expected once the planned driver is loaded" if image.get("expected") else ""
    return _entry("variant", f"{image.get('variant')}{expected}: {image.get('reason') or image.get('support')}")


def _rejected_lines(rejected: Sequence[Mapping[str, Any]]) -> list[str]:
    """One entry for each reason, with the variants that it keeps out."""
    reasons: dict[str, list[str]] = {}
    for variant in rejected:
        reasons.setdefault(f"{variant.get('code')} {variant.get('reason')}", []).append(str(variant.get("variant")))
    return [line for reason, names in reasons.items() for line in _entry("rejected", f"{', '.join(names)}: {reason}")]


# -- the verdict -----------------------------------------------------------------------------------------------------


def render_verdict(records: Sequence[Mapping[str, Any]], check: bool, paint: Paint = plain) -> str:
    """Return the table of all hosts, and under it a few lines for each that needs an explanation."""
    counts = summarize(records)
    words = [f"{counts[result]} {_RESULT_WORDS.get(result, result)}" for result in RESULTS if counts[result]]
    title = f"RESULT for {_hosts(len(records))}: {', '.join(words) or 'none'}{f' ({CHECKED})' if check else ''}"
    legend = " ".join(f"{short}={name}" for short, name in _LINKS.items() if short != name)
    lines = [title, "", *_table(records, paint), "", *_wrap(legend, "")]
    lines += ["ok: good  FAIL: broken  ?: could not be tested  -: not needed, or not reached"]
    return "\n".join([*lines, *_explanations(records)])


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


def _table(records: Sequence[Mapping[str, Any]], paint: Paint) -> list[str]:
    head = ["HOST", "GPU", "DRIVER", "CUDA", "IMAGE", *_LINKS, "VERDICT"]
    rows = [head, *(_cells(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    # Two spaces between the columns of text, one between the links.
    gaps = [1 if 5 <= column < 4 + len(_LINKS) else 2 for column in range(len(head) - 1)]
    surplus = sum(widths) + sum(gaps) - WIDTH
    for column, least in _SHRINKABLE:
        cut = max(0, min(surplus, widths[column] - least))
        widths[column] -= cut
        surplus -= cut
    lines = []
    for number, row in enumerate(rows):
        cells = [_fit(cell, widths[column]) for column, cell in enumerate(row)]
        result = "" if number == 0 else str(records[number - 1]["result"])
        text = "".join(cell + " " * gap for cell, gap in zip(cells, gaps))
        lines.append(text + (paint(cells[-1].rstrip(), result) if result else cells[-1].rstrip()))
    return lines


def _fit(cell: str, width: int) -> str:
    """Return a cell in its column's width; what does not fit loses its middle, since names differ at their ends."""
    if len(cell) <= width:
        return cell.ljust(width)
    left = (width - 2) // 2
    return f"{cell[:left]}..{cell[len(cell) - (width - 2 - left) :]}"


def _explanations(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A few lines for every host that is not simply proven; hosts with the same trouble share them."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        for explanation in _explanation(record):
            groups.setdefault(explanation, []).append(str(record["host"]))
    lines: list[str] = []
    for texts, hosts in groups.items():
        lines += ["", *_wrap(f"{host_list(hosts)}: {texts[0]}", "    ", "")]
        for text in texts[1:]:
            lines += _wrap(text, "       ", "    -> ")
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
    elif result != "proven":
        head = " ".join(filter(None, [_RESULT_WORDS.get(result, result), record["code"]]))
        after = _aftermath(record)
        # It is told on a line of its own, after what to do about the failure itself.
        message = message[: -len(f". {after}")] if after and message.endswith(f". G{after[1:]}") else message
        found.append((f"{head}: {message}", *filter(None, [record["remedy"], after])))
    if result == "proven":
        slow = [link for link in (record["verdict"] or {}).get("links") or [] if link.get("link") == "speed" and link.get("code")]
        found += [(f"proven, but {link['code']}: {link['seen']}", str(link["remedy"])) for link in slow]
    return found


def _aftermath(record: Mapping[str, Any]) -> str | None:
    """What became of the service after the failure."""
    outcome = record["outcome"] or {}
    if outcome.get("status") == "restored":
        return "the service that ran before is back"
    if outcome.get("status") == "stopped":
        return "the service was stopped, since nothing proven was there to go back to"
    return restore_failure(outcome)
