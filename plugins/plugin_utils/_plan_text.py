# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, and the decision for a fleet, as text for a terminal.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _plan_codes, _text

_PARTS = ("driver", "engine", "toolkit", "image", "service")
_STATUS_WORDS = {"change": "to change", "ok": "unchanged", "blocked": "BLOCKED"}
_STATUS = {"change": "change", "ok": "nothing to change", "blocked": "BLOCKED, nothing is touched"}
_MODE = {"cpu": "serves on the CPU", "degraded": "DEGRADED to the CPU by consent"}
_DRIFT_WORDS = {"driver": "drivers", "flavour": "kernel modules", "toolkit": "toolkits", "engine": "engines", "gpus": "GPUs"}


def render_plan(plans: Sequence[tuple[str, Mapping[str, Any] | None]], check: bool) -> str:
    """Return the plans of all hosts; hosts with the same plan share one block.

    Each of ``plans`` is a host and its record's plan, None for a host without one.
    """
    blocks: dict[tuple[str, ...], list[str]] = {}
    warnings: dict[str, list[str]] = {}
    for host, plan in plans:
        blocks.setdefault(tuple(_plan_lines(plan)), []).append(host)
        for warning in _warnings(plan or {}):
            warnings.setdefault(warning, []).append(host)
    counts = [str((plan or {}).get("status") or "without a plan") for _host, plan in plans]
    words = [f"{counts.count(word)} {_STATUS_WORDS.get(word, word)}" for word in dict.fromkeys(counts)]
    lines = [f"PLAN for {_text.count_hosts(len(plans))}: {', '.join(words)}{f' ({_text.CHECKED})' if check else ''}"]
    for (first, *rest), hosts in blocks.items():
        lines += ["", *_text.wrap(f"{_text.host_list(hosts)}: {first}", "    ", ""), *rest]
    # Not in the blocks: the same warning on many hosts, whatever is planned for them, is to be read once.
    lines += ["", "WARNINGS"] if warnings else []
    for warning, hosts in sorted(warnings.items()):
        lines += _text.wrap(f"{warning} [{'every host' if len(hosts) == len(plans) > 1 else _text.some_hosts(hosts)}]", "        ", "  ")
    return "\n".join(lines)


def _plan_lines(plan: Mapping[str, Any] | None) -> list[str]:
    """The block of one plan, its first line to follow the names of the hosts: what is in the way, what was chosen and why, what changes."""
    if not plan:
        return ["no plan, the result below says why"]
    status = str(plan.get("status"))
    # Where a driver is removed there may be no service at all.
    mode = _MODE.get(str(plan.get("mode"))) if plan.get("image") or status == "blocked" else None
    lines = [", ".join(filter(None, [_STATUS.get(status, status), mode]))]
    for finding in plan.get("blocked") or []:
        lines += _entry("blocked", f"{finding.get('code')} {finding.get('message')}")
        lines += _entry("", f"-> {finding.get('remedy')}") if finding.get("remedy") else []
    lines += _image_lines(plan.get("image"))
    lines += _gpu_lines(plan)
    if status != "ok":
        lines += _rejected_lines(plan.get("rejected") or [])
    parts = plan.get("parts") or {}
    for name in _PARTS:
        part = parts.get(name) or {}
        # Of a blocked part everything is said above.
        if part.get("action") not in (None, "none", "blocked"):
            lines += _entry(name, _part_text(part))
    lines += _cost_lines(plan)
    advice = (plan.get("advice") or {}).get("driver") or {}
    return lines + (_entry("advice", str(advice.get("message"))) if advice else [])


def _entry(label: str, text: str) -> list[str]:
    return _text.wrap(text, " " * 12, f"  {label:<10}")


def _part_text(part: Mapping[str, Any]) -> str:
    before, after = part.get("from"), part.get("to")
    change = f" {before} -> {after}" if before and after and before != after else f" {after or before or ''}".rstrip()
    reason = part.get("reason")
    return f"{_action(part)}{change}{f' ({reason})' if reason else ''}"


def _action(part: Mapping[str, Any]) -> str:
    """The action in words: a driver may be brought back to an older one, and whoever reads upgrade expects a newer."""
    ends = [str(part.get(end) or "") for end in ("to", "from")]
    if part["action"] != "upgrade" or not all(re.fullmatch(r"[0-9]+(\.[0-9]+)*", end, re.ASCII) for end in ends):
        return str(part["action"])
    after, before = ([int(number) for number in end.split(".")] for end in ends)
    # A branch is compared with a branch.
    return "downgrade" if after < before[: len(after)] else "upgrade"


def _image_lines(image: Mapping[str, Any] | None) -> list[str]:
    if not image:
        return []
    torch = f" with PyTorch {image['torch']}" if image.get("torch") else ""
    expected = ", expected once the planned driver is loaded" if image.get("expected") else ""
    return _entry("chosen", f"{image.get('variant')}{torch}{expected}: {image.get('reason') or image.get('support')}")


def _gpu_lines(plan: Mapping[str, Any]) -> list[str]:
    """Which GPUs are used, where some are not and the reason is not told otherwise."""
    gpus = plan.get("gpus") or []
    idle = [gpu for gpu in gpus if not gpu.get("used")]
    if plan.get("mode") != "gpu" or plan.get("status") == "blocked" or not idle:
        return []
    alike: dict[tuple[str, str], list[str]] = {}
    for gpu in idle:
        alike.setdefault((str(gpu.get("name")), str(gpu.get("reason"))), []).append(str(gpu.get("pci_address")))
    texts = [
        f"{name} at {', '.join(places)} {re.sub('^is ', 'are ', reason) if len(places) > 1 else reason}"
        for (name, reason), places in alike.items()
    ]
    return _entry("gpus", f"{len(gpus) - len(idle)} of {len(gpus)} used; {'; '.join(texts)}")


def _rejected_lines(rejected: Sequence[Mapping[str, Any]]) -> list[str]:
    """One entry for each reason, with the variants that it keeps out."""
    reasons: dict[str, list[str]] = {}
    for variant in rejected:
        reasons.setdefault(f"{variant.get('code')} {variant.get('reason')}", []).append(str(variant.get("variant")))
    return [line for reason, names in reasons.items() for line in _entry("rejected", f"{', '.join(names)}: {reason}")]


def _cost_lines(plan: Mapping[str, Any]) -> list[str]:
    """What stops for a moment, and whether the host has to be rebooted."""
    restart, reboot = plan.get("restart") or {}, plan.get("reboot") or {}
    lines = []
    stops = [f"the {name} restarts" for name in ("engine", "service") if restart.get(name)]
    if plan.get("status") == "change" and (stops or restart.get("reasons")):
        lines += _entry("cost", "; ".join([*stops, *map(str, restart.get("reasons") or [])]))
    if reboot.get("required"):
        lines += _entry("reboot", "; ".join(map(str, reboot.get("reasons") or ["required"])))
    return lines


def _warnings(plan: Mapping[str, Any]) -> list[str]:
    """The warnings of one plan, without what its block says already."""
    told = {_plan_codes.REBOOT_PENDING} if (plan.get("reboot") or {}).get("required") else set()
    if plan.get("mode") == "degraded":
        told.add(_plan_codes.DEGRADED)
    shown = [warning for warning in plan.get("warnings") or [] if warning.get("code") not in told]
    return list(dict.fromkeys(f"{warning.get('code')} {warning.get('message')}" for warning in shown))


# -- the fleet -------------------------------------------------------------------------------------------------------


def render_fleet(fleet: Mapping[str, Any]) -> str:
    """Return the decision for a fleet: the variant, who is in the way of a better one, and what is not the same on all hosts."""
    lines = [f"FLEET of {_text.count_hosts(fleet['hosts'] + len(fleet['missing']))}: {_fleet_result(fleet)}"]
    for finding in fleet["blocked"]:
        lines += _entry("blocked", f"{finding['code']} {finding['message']}") + _entry("", f"-> {finding['remedy']}")
    if fleet["missing"] and not fleet["blocked"]:
        lines += _entry("missing", f"{_text.some_hosts(fleet['missing'])}: decided without")
    held: dict[tuple[str, str], list[str]] = {}
    for entry in fleet["held_back_by"]:
        held.setdefault((_text.some_hosts(entry["hosts"]), entry["reason"]), []).append(entry["variant"])
    for (hosts, reason), variants in held.items():
        lines += _entry("held back", f"from {', '.join(variants)} by {hosts}: {reason}")
    lines += _candidate_lines(fleet)
    for drift in fleet["drift"]:
        values = "; ".join(f"{value} on {_text.some_hosts(hosts)}" for value, hosts in drift["values"].items())
        lines += _entry("differ", f"{_DRIFT_WORDS.get(drift['what'], drift['what'])}: {values}")
    return "\n".join(lines)


def _fleet_result(fleet: Mapping[str, Any]) -> str:
    if fleet["status"] == "blocked":
        codes = [finding["code"] for finding in fleet["blocked"]]
        unknown = f"{_text.count_hosts(len(fleet['missing']))} cannot be judged"
        return f"BLOCKED, {unknown if _plan_codes.FLEET_NO_VARIANT not in codes else 'no variant for all'}"
    if fleet["variant"] is None:
        if not fleet["missing"]:
            return "no variant to agree on, since no host runs one on a GPU"
        return f"no variant to agree on: {'none of the others runs one on a GPU' if fleet['hosts'] else 'nothing is known about any host'}"
    rest = fleet["hosts"] - len(fleet["gpu_hosts"])
    others = f"; {_text.count_hosts(rest)} without a GPU" if rest else ""
    return f"{fleet['variant']} for {_text.count_hosts(len(fleet['gpu_hosts']))}{others}"


def _candidate_lines(fleet: Mapping[str, Any]) -> list[str]:
    """How many hosts can run each variant, the preferred first; nothing where there is nothing to compare."""
    candidates: Iterable[Mapping[str, Any]] = fleet["candidates"]
    words = [f"{candidate['variant']} on {candidate['hosts']}" for candidate in candidates if candidate["hosts"]]
    if not fleet["gpu_hosts"] or not words:
        return []
    return _entry("runs", f"{', '.join(words)} of {_text.count_hosts(len(fleet['gpu_hosts']))}")
