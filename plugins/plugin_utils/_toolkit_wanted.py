# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NVIDIA Container Toolkit of a host: what becomes of it, and of the specification by which containers get their GPUs.

A version with a known container escape is never brought unless the operator says so, and one that is there does not stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _managed
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _daemon_settings,
    _devices,
    _document,
    _driver_source,
    _package_sources,
    _plan_codes,
    _platform,
    _platform_packages,
    _toolkit,
    _toolkit_cdi,
    _toolkit_source,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, TOOLKIT
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_cdi import Specification
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_settings import (
    ABSENT,
    REFUSE,
    REPLACE,
    RUNTIME,
    UNMANAGED,
    Settings,
    option_of,
)

NONE, INSTALL, UPGRADE, CONFIGURE, REMOVE = "none", "install", "upgrade", "configure", "remove"
NOTHING, RELOAD = "none", "reload"
# What the package manager itself keeps and can be told to forget. The others are in files that somebody wrote.
_REPLACEABLE = ("hold", "versionlock")
_DOCKER = "docker"
_OF_A_DRIVER = re.compile(r"version [0-9]{3,}")


@dataclass(frozen=True)
class Decision:
    """What becomes of the toolkit.

    `brings` tells that packages come, `version` which one (None: the newest); `keeps` that pins of the role are to be as they should be.
    `containers` are those that run with a GPU, with what they need after it.
    """

    action: str = NONE
    before: str | None = None
    to: str | None = None
    expects: str | None = None
    reason: str = ""
    brings: bool = False
    version: str | None = None
    keeps: bool = False
    repair: bool = False
    injection: str | None = None
    daemon_config: Mapping[str, Any] | None = None
    activation: str = NOTHING
    cdi: Specification | None = None
    containers: tuple[Mapping[str, str], ...] = ()
    blocks: tuple[Block, ...] = ()
    warnings: tuple[dict[str, str], ...] = ()
    reasons: tuple[str, ...] = ()


def decide(host: Host, choice: _devices.Choice | None, settings: Settings, injection: str | None, driver_changes: bool = False) -> Decision:
    """Return what becomes of the toolkit of a host.

    Args:
        host: what was observed.
        choice: the GPUs that containers are given, None where they are given none.
        settings: what the operator wants.
        injection: how containers get GPUs, None where they get none.
        driver_changes: whether another driver is loaded before.
    """
    before = _document.text(host.facts, "toolkit", "version")
    start = Decision(before=before, to=before, expects=before, injection=injection)
    if settings.state == ABSENT:
        return _absent(host, replace(start, injection=None))
    if choice is None:
        return replace(start, injection=None, reason="no GPU is given to containers here")
    found = _with_packages(host, settings, start)
    if not found.blocks:
        found = _with_pins(host, settings, found)
    if not found.blocks:
        found = _with_injection(host, choice, settings, found, driver_changes)
    found = _with_containers(host, settings, found)
    if found.action == NONE and not found.blocks:
        return replace(found, reason=_fine(injection))
    return found


def _fine(injection: str | None) -> str:
    way = "NVIDIA's runtime" if injection == RUNTIME else "CDI"
    return f"the engine can give the GPU to containers by {way}"


# -- packages --------------------------------------------------------------------------------------------------------


def _with_packages(host: Host, settings: Settings, found: Decision) -> Decision:
    reasons = _lacks(host, settings, found.before)
    broken = [_document.text(entry, "name") or "a package" for entry in _document.mappings(host.facts, "toolkit", "broken")]
    if broken:
        text = f"packages are half installed and are finished: {', '.join(broken)}"
        found = replace(found, repair=True, action=CONFIGURE, reasons=(text,), reason=text)
    refused = _refused(highest(host), settings)
    if refused is not None:
        return replace(found, blocks=(refused,))
    if not reasons:
        return found
    together = (*reasons, *found.reasons)
    version = settings.version
    found = replace(
        found,
        action=INSTALL if found.before is None else UPGRADE,
        to=version,
        expects=version or f"{floor(host, settings)} or newer",
        version=version,
        brings=True,
        reasons=together,
        reason="; ".join(together),
    )
    if _toolkit_source.target(host) is None:
        message = (
            f"{'; '.join(reasons)}, and no toolkit is brought to {_driver_source.system(host)}: that is done on {_driver_source.TARGETS}"
        )
        remedy = f"install the toolkit by other means and set {option_of('state')} to {UNMANAGED}, or move the host to one of these systems"
        return replace(found, blocks=(Block("toolkit", _plan_codes.NOT_A_TARGET, message, remedy),))
    held = _held(host, settings, found)
    return replace(found, blocks=(held,)) if held is not None else found


def _lacks(host: Host, settings: Settings, before: str | None) -> list[str]:
    """Return why packages have to come; empty where those that are there will do."""
    if before is None:
        return ["the NVIDIA Container Toolkit is not installed"]
    found = []
    if settings.version is not None and _versions.parse(before) != _versions.parse(settings.version):
        found.append(f"{option_of('version')} is {settings.version}")
    if _toolkit.is_unsafe(before) and settings.version is None:
        found.append(_platform.unsafe(before))
    if _document.flag(host.facts, "toolkit", "lockstep") is False:
        found.append(f"its packages have different versions ({', '.join(_versions_of(host))})")
    return found


def highest(host: Host) -> str | None:
    """Return the newest version that a package of the toolkit has; None where none is installed, or no version can be read."""
    known = (_versions.parse(version) for version in (_document.text(host.facts, "toolkit", "version"), *_versions_of(host)))
    found = [version for version in known if version is not None]
    return str(max(found)) if found else None


def floor(host: Host, settings: Settings) -> str:
    """Return the version below which nothing is taken where none is named: neither an unsafe one, nor an older one without consent."""
    there = highest(host)
    older = there is None or settings.allow_downgrade or _toolkit.is_unsafe(there) is not False
    return _toolkit.FIRST_SAFE if there is None or older else there


def _versions_of(host: Host) -> list[str]:
    """Return the versions of the packages, each once."""
    known = _document.mapping(host.facts, "toolkit", "packages")
    return sorted({str(version).partition("-")[0] for version in known.values() if version}) or ["unknown"]


def _refused(before: str | None, settings: Settings) -> Block | None:
    """Return why the version that is named is not brought; None where it may be, or none is named."""
    version = settings.version
    if version is None:
        return None
    if _toolkit.is_unsafe(version) and not settings.allow_unsafe:
        weaknesses = ", ".join(name for cve in _toolkit.cves(version) for name in cve.ids)
        message = f"{option_of('version')} is {version}, which is open to {weaknesses}"
        remedy = (
            f"name {_toolkit.FIRST_SAFE} or newer, or leave it empty; "
            f"who has to have it sets {option_of('allow_unsafe')} to true, and trusts every image"
        )
        return Block("toolkit", _plan_codes.UNSAFE_VERSION, message, remedy, by_wish=True)
    there, wanted = _versions.parse(before), _versions.parse(version)
    if there is not None and wanted is not None and wanted < there and not settings.allow_downgrade:
        message = f"{option_of('version')} is {version}, and {before} is installed, which is newer"
        remedy = f"name {before} or a newer one, leave it empty, or set {option_of('allow_downgrade')} to true"
        return Block("toolkit", _plan_codes.DOWNGRADE, message, remedy, by_wish=True)
    return None


def pins(host: Host) -> list[Mapping[str, Any]]:
    """Return the rules of the package manager that concern the toolkit.

    One that pins nvidia-* to a version of a driver (580.95.05) matches no toolkit, and apt passes it over.
    """
    found = _document.mappings(host.facts, "toolkit", "pins")
    return [pin for pin in found if pin.get("kind") != "preference" or not _OF_A_DRIVER.search(_document.text(pin, "value") or "")]


def is_ours(host: Host, pin: Mapping[str, Any]) -> bool:
    """Whether the role made a rule: it is in a file of the role, or goes with one that is there."""
    managed = _document.mapping(host.facts, "toolkit", "managed")
    path = _document.text(pin, "path")
    if path is not None and (path in managed or TOOLKIT.name in path):
        return True
    # A hold of the role goes with its preference, a lock of versions with the role's mark: rpm has no preferences.
    if pin.get("kind") == "hold":
        return TOOLKIT.preferences in managed
    return pin.get("kind") in _REPLACEABLE and _managed.RULES in managed


def _held(host: Host, settings: Settings, found: Decision) -> Block | None:
    rules = _platform_packages.in_the_way(pins(host), _toolkit_source.PACKAGES, found.version, lambda pin: is_ours(host, pin))
    if settings.foreign_pins == REPLACE:
        rules = [pin for pin in rules if pin.get("kind") not in _REPLACEABLE]
    if not rules:
        return None
    message = f"{found.reason}, and {', '.join(dict.fromkeys(_platform_packages.words(pin) for pin in rules))}"
    files = [_document.text(pin, "path") or "the package manager's settings" for pin in rules if pin.get("kind") not in _REPLACEABLE]
    steps = [f"change {', '.join(dict.fromkeys(files))}, which is not written by this collection"] if files else []
    if len(files) < len(rules):
        steps.append(f"take holds and locks away, or set {option_of('foreign_pins')} to {REPLACE}")
    return Block("toolkit", _plan_codes.HELD_BY_OTHERS, message, "; ".join(steps))


def _with_pins(host: Host, settings: Settings, found: Decision) -> Decision:
    """Add what of pins and repository differs, where the toolkit is ours: the operator named it, or a file of the role is there."""
    # A specification may also be made for a toolkit that somebody else brought.
    ours = set(_document.mapping(host.facts, "toolkit", "managed")) - {_managed.SPECIFICATION}
    keeps = found.brings or bool(ours) or settings.version is not None
    found = replace(found, keeps=keeps)
    here = _toolkit_source.target(host)
    if found.brings or not keeps or here is None or found.before is None:
        return found
    return _with_reasons(found, _differences(host, settings, here, found.before))


def _differences(host: Host, settings: Settings, here: _driver_source.Target, version: str) -> list[str]:
    managed = _document.mapping(host.facts, "toolkit", "managed")
    wanted = {TOOLKIT.preferences: _toolkit_source.preferences(version)} if settings.pin and here.manager == APT else {}
    named = _toolkit_source.repository(host, settings)
    if named is not None:
        path, content = _package_sources.of_repository(TOOLKIT, here.manager, named)
        wanted.update({path: content} if path in managed else {})
    found = []
    for path, file in wanted.items():
        if not _package_sources.is_there(managed, path, file):
            found.append(f"{path} differs" if path in managed else f"{path} is missing")
    if not settings.pin and (TOOLKIT.preferences in managed or _managed.RULES in managed):
        found.append(f"{option_of('pin')} is false, and the role's rules that keep the version are to go")
    if settings.pin:
        kind, word = ("hold", "held") if here.manager == APT else ("versionlock", "locked")
        names = _platform_packages.loose(pins(host), kind, installed(host), version)
        found += [f"not {word}: {', '.join(names)}"] if names else []
    return found


def installed(host: Host) -> list[str]:
    """Return those of the four packages that are on the host; all four where nobody told."""
    known = _document.mapping(host.facts, "toolkit", "packages")
    return [name for name in _toolkit_source.PACKAGES if not known or known.get(name)]


# -- how containers get GPUs -----------------------------------------------------------------------------------------


def _with_injection(host: Host, choice: _devices.Choice, settings: Settings, found: Decision, driver_changes: bool) -> Decision:
    if found.injection == RUNTIME:
        wanted = _daemon_settings.runtime(host)
        options = {"settings": dict(wanted.settings), "absent": [], "invalid": "refuse"} if wanted.settings else None
        note = warning(_plan_codes.LEGACY_INJECTION, legacy(host))
        error = _document.text(host.facts, "engine", "daemon_config", "error")
        if error is not None and options is not None:
            message = f"Docker's configuration file cannot be used: {error.rstrip('.')}"
            return replace(found, blocks=(Block("toolkit", _plan_codes.DAEMON_CONFIG_UNREADABLE, message),))
        found = replace(found, daemon_config=options, activation=wanted.activation, warnings=(*found.warnings, note))
        return _with_reasons(found, wanted.reasons)
    made, notes = _toolkit_cdi.of(host, choice, settings, found.before, found.version, found.brings, driver_changes)
    found = replace(found, cdi=made, warnings=(*found.warnings, *notes))
    return _with_reasons(found, made.reasons) if made is not None else found


def legacy(host: Host) -> str:
    """Return the sentence about containers that get their GPUs from NVIDIA's runtime."""
    version = _document.text(host.facts, "engine", "version")
    why = f"Docker {version} has no CDI" if version and not _versions.at_least(version, _toolkit.CDI_FLOOR) else "CDI is not used"
    return f"{why}, so containers get their GPUs from NVIDIA's runtime, and lose them when systemd reads its units anew (daemon-reload)"


def _with_reasons(found: Decision, reasons: Sequence[str]) -> Decision:
    if not reasons:
        return found
    together = (*found.reasons, *reasons)
    return replace(found, action=CONFIGURE if found.action == NONE else found.action, reasons=together, reason="; ".join(together))


def _with_containers(host: Host, settings: Settings, found: Decision) -> Decision:
    """Add the running containers that have a GPU, with what each needs after a change of packages."""
    listed = []
    for entry in _document.mappings(host.facts, "engine", "gpu_containers"):
        how = _document.text(entry, "how") or ""
        needs, reason = _needs(host, how, found)
        name = _document.text(entry, "name") or _document.text(entry, "id") or "unknown"
        listed.append(
            {
                "id": _document.text(entry, "id") or name,
                "name": name,
                "image": _document.text(entry, "image") or "",
                "how": how,
                "needs": needs,
                "reason": reason,
            }
        )
    lose = [entry["name"] for entry in listed if entry["needs"] == "recreate"]
    found = replace(found, containers=tuple(listed))
    if not lose or found.blocks:
        return found
    cause = "packages that change make" if found.brings or found.repair else "switching on units makes"
    message = f"{', '.join(lose)} got a GPU the legacy way, and {cause} systemd read its units anew, at which it is lost"
    if settings.legacy_containers == REFUSE:
        remedy = f"recreate them afterwards, and set {option_of('legacy_containers')} to warn to consent; or stop them first"
        return replace(found, blocks=(Block("toolkit", _plan_codes.CONTAINERS_LOSE_GPU, message, remedy, by_wish=True),))
    return replace(found, warnings=(*found.warnings, warning(_plan_codes.CONTAINERS_LOSE_GPU, message)))


def _needs(host: Host, how: str, found: Decision) -> tuple[str, str]:
    # systemctl enable reads all units anew, as the scripts of packages do. To start a unit again does not.
    reads_units = found.brings or found.repair or (found.cdi is not None and found.cdi.enable)
    if not reads_units or found.blocks:
        return "nothing", "nothing changes for it"
    by_cdi = how == "cdi" or (how == "request" and _gives_by_cdi(host))
    if how in ("runtime", "request") and not by_cdi:
        return "recreate", "it loses its GPU at the next daemon-reload, and a new container does not"
    if found.brings and _toolkit.is_unsafe(found.before) and by_cdi:
        return "restart", f"it was started with toolkit {found.before}, which has a known container escape"
    return "nothing", "its devices are its own"


def _gives_by_cdi(host: Host) -> bool:
    """Whether the engine takes --gpus as a wish for CDI devices."""
    version = _document.text(host.facts, "engine", "version")
    return _document.flag(host.facts, "engine", "cdi_enabled") is True and _versions.at_least(version, _toolkit.GPUS_BY_CDI_SINCE)


# -- removal ---------------------------------------------------------------------------------------------------------


def _absent(host: Host, found: Decision) -> Decision:
    managed = _document.mapping(host.facts, "toolkit", "managed")
    broken = _document.mappings(host.facts, "toolkit", "broken")
    keys = _daemon_settings.without_runtime(host)
    runtime = _platform.program(_daemon_settings.content(host)) if keys else None
    # A runtime of that name that runs something else is somebody's own.
    keys = keys if runtime is None or _daemon_settings.RUNTIME_PROGRAM in runtime else []
    if found.before is None and not managed and not broken and not keys:
        return replace(found, reason="the toolkit is not there, as is wanted")
    what = f"NVIDIA Container Toolkit {found.before}" if found.before else "what is left of the NVIDIA Container Toolkit"
    reason = f"{option_of('state')} is {ABSENT}, and {what} is there"
    options = _forgets_runtime(keys) if keys else None
    running = _document.flag(host.facts, "engine", "running") is True
    found = replace(
        found,
        action=REMOVE,
        to=None,
        expects=None,
        brings=True,
        repair=bool(broken),
        reason=reason,
        reasons=(reason,),
        daemon_config=options,
        activation=RELOAD if options and running else NOTHING,
        cdi=_toolkit_cdi.gone(host),
    )
    if _toolkit_source.target(host) is None:
        message = f"{reason}, and no toolkit is taken from {_driver_source.system(host)}"
        return replace(found, blocks=(Block("toolkit", _plan_codes.NOT_A_TARGET, message, "remove it by other means"),))
    users = [
        entry for entry in _document.mappings(host.facts, "engine", "gpu_containers") if entry.get("how") in ("cdi", "runtime", "request")
    ]
    engine = _document.mapping(host.facts, "engine")
    unknown = not isinstance(engine.get("gpu_containers"), list) and _document.text(engine, "name") == _DOCKER
    if unknown and _document.flag(engine, "service", "active") is not False:
        why = (_document.text(engine, "error") or "Docker told nothing of them").rstrip(".")
        message = f"{reason}, and which running containers got their GPUs by it could not be asked: {why}"
        remedy = "run with root, or bring Docker to answer, then run again"
        return replace(found, blocks=(Block("toolkit", _plan_codes.GPU_IN_USE, message, remedy),))
    if users:
        names = ", ".join(_document.text(entry, "name") or _document.text(entry, "id") or "a container" for entry in users)
        message = f"{reason}, and running containers got their GPUs by it: {names}"
        return replace(found, blocks=(Block("toolkit", _plan_codes.GPU_IN_USE, message, "stop and remove them first, then run again"),))
    rules = [pin for pin in pins(host) if pin.get("kind") == "hold" and not is_ours(host, pin)]
    if rules:
        message = f"{reason}, and {', '.join(_platform_packages.words(pin) for pin in rules)}"
        return replace(found, blocks=(Block("toolkit", _plan_codes.HELD_BY_OTHERS, message, "take the holds away, then run again"),))
    return found


def _forgets_runtime(keys: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return the options by which Docker forgets NVIDIA's runtime at a reload: it keeps its value for a key that is not there any more."""
    default, runtimes = ["default-runtime"], [list(key) for key in keys if key[0] == "runtimes"]
    settings: dict[str, Any] = {"runtimes": {}} if runtimes else {}
    if default in [list(key) for key in keys]:
        settings["default-runtime"] = "runc"
    return {"settings": settings, "absent": runtimes, "invalid": "refuse"}
