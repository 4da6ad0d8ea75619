# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of an upgrade of drivers over the hosts of one run: what becomes of each, who is left alone and why, and who goes when.

Its input is what was found and decided for each host before; it decides nothing about drivers and images itself.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes, _text, _upgrade_waves, _versions

SCHEMA = 1
NONE, UPGRADE, DOWNGRADE, INSTALL, RESUME = "none", "upgrade", "downgrade", "install", "resume"
BLOCKED, UNREACHABLE, FAILED = "blocked", "unreachable", "failed"
LEFT_ALONE = (NONE, BLOCKED, UNREACHABLE, FAILED)


class Known(NamedTuple):
    """What is known of a host; each may be empty.

    `facts` are its ansible_facts. `outcome` says why nothing could be decided. `saving` is what nvidia_driver_backup answered in check
    mode. `served` tells whether the image service is deployed, `variant` which one runs.
    """

    facts: Mapping[str, Any]
    outcome: Mapping[str, Any]
    saving: Mapping[str, Any]
    served: bool
    variant: str | None


class Policy(NamedTuple):
    """What the operator wants of the whole run; `host_minutes` is what one host takes, as far as anybody knows."""

    waves: _upgrade_waves.Wishes
    host_minutes: int
    rollback: bool
    without_rollback: bool


def make(known: Mapping[str, Known], labels: Mapping[str, str | None], policy: Policy) -> dict[str, Any]:
    """Return the document ``gpu_upgrade`` for the hosts of a run, in their order."""
    hosts = {host: _host(one, policy) for host, one in known.items()}
    changing = [host for host, entry in hosts.items() if entry["action"] not in LEFT_ALONE]
    resumed = [host for host in changing if hosts[host]["action"] == RESUME]
    away = [host for host, entry in hosts.items() if entry["action"] == UNREACHABLE]
    most = _upgrade_waves.limit(policy.waves, len(hosts))
    # A host that an interrupted run left may be out of service already: finishing it takes nobody more away.
    room = most - len(away)
    blocked = [_too_many(away, most)] if room < 1 and changing else []
    for host in changing if blocked else []:
        hosts[host].update(action=BLOCKED, reason=blocked[0]["message"], code=blocked[0]["code"], remedy=blocked[0]["remedy"])
    waves = [] if blocked or not changing else _upgrade_waves.make(changing, resumed, labels, policy.waves, room)
    for wave in waves:
        for host in wave.hosts:
            hosts[host]["wave"] = wave.name
    return {
        "schema": SCHEMA,
        "status": "blocked" if blocked else "change" if waves else "ok",
        "blocked": blocked,
        "hosts": hosts,
        "waves": [{"name": wave.name, "label": wave.label, "hosts": list(wave.hosts)} for wave in waves],
        "order": [host for wave in waves for host in wave.hosts],
        "sizes": [len(wave.hosts) for wave in waves],
        "unavailable": away,
        "limit": most,
        "minutes": len(waves) * policy.host_minutes,
    }


def _too_many(away: Sequence[str], most: int) -> dict[str, str]:
    code = _plan_codes.TOO_MANY_AWAY
    who = f"{_text.count_hosts(len(away))} of this run {'does' if len(away) == 1 else 'do'} not answer ({_text.some_hosts(away)})"
    return _finding(code, f"{who}, and no more than {most} may be out of service at once (upgrade_max_unavailable).")


def _finding(code: str, message: str, remedy: str | None = None) -> dict[str, str]:
    return {"code": code, "message": message, "remedy": remedy or _plan_codes.CODES[code].remedy}


# -- one host --------------------------------------------------------------------------------------------------------


def _host(known: Known, policy: Policy) -> dict[str, Any]:
    driver, nvidia = _document.mapping(known.facts, "gpu_driver"), _document.mapping(known.facts, "nvidia")
    action, reason, code, remedy = _action(known, driver, nvidia)
    rollback = _rollback(known, nvidia)
    if action == UPGRADE and not rollback["possible"] and not policy.without_rollback:
        found = _finding(_plan_codes.NOT_SAVED, f"the present driver cannot be saved: {rollback['reason']}")
        action, reason, code, remedy = BLOCKED, found["message"], found["code"], found["remedy"]
    image, misfit = _image(known)
    if action == UPGRADE and misfit and known.variant:
        action, reason, code, remedy = BLOCKED, misfit["message"], misfit["code"], misfit["remedy"]
    changes = action not in LEFT_ALONE
    activation = _document.text(driver, "activation") if changes else None
    return {
        "action": _direction(driver) if action == UPGRADE else action,
        "from": _document.text(driver, "from") or _document.text(nvidia, "driver", "loaded", "version"),
        "to": (_document.text(driver, "expects") or _document.text(driver, "to")) if changes else None,
        "activation": activation,
        "reboot": activation == "reboot" if changes else False,
        "image": image if changes else None,
        "rollback": rollback if changes else None,
        "stops": [str(one.get("name")) for one in _document.mappings(driver, "guard", "stop")] if changes else [],
        "reason": reason,
        "code": code,
        "remedy": remedy,
        "warnings": _warnings(driver, nvidia, misfit) if action != UNREACHABLE else [],
        "wave": None,
    }


def _action(known: Known, driver: Mapping[str, Any], nvidia: Mapping[str, Any]) -> tuple[str, str, str | None, str | None]:
    """Return what becomes of a host, why, and code and remedy where it is blocked."""
    told = _document.text(known.outcome, "status")
    message = _document.text(known.outcome, "message") or "nothing was decided about this host"
    if told == UNREACHABLE or not nvidia:
        return UNREACHABLE, message, None, None
    journal = _document.mapping(nvidia, "driver", "upgrade", "journal")
    if journal:
        phase = _document.text(journal, "phase") or "an unknown phase"
        return RESUME, f"an interrupted run left it in phase {phase}", None, None
    if told in (BLOCKED, FAILED):
        block: Mapping[str, Any] = next(iter(_document.mappings(driver, "blocked")), {})
        code = _document.text(known.outcome, "code")
        return str(told), message, code, _document.text(block, "remedy") if block.get("code") == code else None
    if _document.text(driver, "status") == "change":
        return UPGRADE, _document.text(driver, "reason") or "", None, None
    if _document.mappings(driver, "restart"):
        return RESUME, "an interrupted run has stopped containers here", None, None
    return NONE, _document.text(driver, "reason") or "nothing is to be changed", None, None


def _direction(driver: Mapping[str, Any]) -> str:
    """Return what the change is called: of a driver that is there, up or down."""
    action = _document.text(driver, "action") or UPGRADE
    before, after = _document.text(driver, "from"), _document.text(driver, "expects") or _document.text(driver, "to")
    if action != UPGRADE or not before or not after:
        return action
    version, former = _versions.parse(after.rstrip(".*")), _versions.parse(before)
    within = before.startswith(f"{after}.")
    return DOWNGRADE if version is not None and former is not None and version < former and not within else UPGRADE


def _rollback(known: Known, nvidia: Mapping[str, Any]) -> dict[str, Any]:
    how = dict.fromkeys(("saved", "cache", "download", "repack"), 0)
    if not _document.mappings(nvidia, "driver", "installed", "packages"):
        return {"possible": True, "reason": "there is no driver to go back to", "how": how}
    if _document.flag(nvidia, "driver", "upgrade", "journal", "saved"):
        return {"possible": True, "reason": None, "how": how}
    complete = _document.flag(known.saving, "complete")
    for package in _document.mappings(known.saving, "packages"):
        if package.get("how") in how:
            how[str(package["how"])] += 1
    reason = None if complete else _document.text(known.saving, "msg") or "nobody has looked whether it can"
    return {"possible": bool(complete), "reason": reason, "how": how}


def _image(known: Known) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
    """Return the image before and after, and why none would fit the new driver."""
    plan = _document.mapping(known.facts, "gpu_plan")
    if not known.served or not plan:
        return None, None
    image = {
        "from": known.variant or None,
        "to": _document.text(plan, "image", "variant"),
        "expected": bool(_document.flag(plan, "image", "expected")),
    }
    block: Mapping[str, Any] = next(iter(_document.mappings(plan, "blocked")), {})
    # Where the driver itself is refused, nothing else is worth saying.
    if _document.text(plan, "status") != "blocked" or not block or _document.text(known.facts, "gpu_driver", "status") == "blocked":
        return image, None
    code, message = _plan_codes.SERVICE_WOULD_NOT_FIT, f"{block.get('code')}: {block.get('message')}"
    return image, _finding(code, f"the image service would not come back: {message}", _document.text(block, "remedy"))


def _warnings(driver: Mapping[str, Any], nvidia: Mapping[str, Any], misfit: Mapping[str, str] | None) -> list[dict[str, str]]:
    found = [{"code": str(note.get("code")), "message": str(note.get("message"))} for note in _document.mappings(driver, "warnings")]
    failed = _document.mapping(nvidia, "driver", "upgrade", "failed")
    if failed and not failed.get("error"):
        code = f"{failed['code']}: " if _document.text(failed, "code") else ""
        when = f"the upgrade to {failed.get('to')} of {failed.get('at')} failed here in phase {failed.get('phase')}"
        found.append({"code": _plan_codes.FAILED_BEFORE, "message": f"{when}: {code}{failed.get('message')}"})
    if misfit:
        found.append({"code": misfit["code"], "message": misfit["message"]})
    return found
