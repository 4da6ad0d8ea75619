# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Docker's configuration file is to say for engine and toolkit, what of it differs, and how the engine gets to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _daemon_config
from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _engine_source, _plan_codes, _toolkit, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._engine_settings import REPLACE, TRUE, Settings, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

NOTHING, RELOAD, RESTART = "none", "reload", "restart"
RUNTIME_NAME = "nvidia"
RUNTIME_PROGRAM = "nvidia-container-runtime"
_RUNTIME: Mapping[str, Any] = {"path": RUNTIME_PROGRAM, "args": []}
# What changes nothing for containers that outlive a restart by live-restore, beside what a reload takes over: where their output goes and
# what Docker itself logs. Whatever is about networks, storage or folders may cut them off.
_HARMLESS = frozenset({"log-driver", "log-opts", "log-level"})


class Wanted(NamedTuple):
    """What the file is to say (empty: as it does), how the engine gets to know, why, and what is in the way."""

    settings: Mapping[str, Any]
    activation: str
    reasons: tuple[str, ...] = ()
    block: Block | None = None


def content(host: Host) -> Mapping[str, Any]:
    """Return what the file says, empty where it is not there or cannot be read."""
    return _document.mapping(host.facts, "engine", "daemon_config", "content")


def wanted(host: Host, settings: Settings, by_cdi: bool, new_engine: bool) -> Wanted:
    """Return what the file is to say for the engine.

    Args:
        host: what was observed.
        settings: what the operator wants.
        by_cdi: whether containers are to get GPUs by CDI.
        new_engine: whether a Docker of today comes, of which nothing is known but the file.
    """
    there = content(host)
    wishes: dict[str, Any] = dict(settings.daemon_config)
    reasons = [f"daemon.json lacks what {option_of('daemon_config')} says: {', '.join(_differing(wishes, there))}"]
    reasons = reasons if _differing(wishes, there) else []
    activation = RELOAD if reasons else NOTHING
    if not all(_daemon_config.reloads(path, {*there, *wishes}) for path in _paths(wishes, there)):
        activation = RESTART
    if settings.live_restore is not None:
        stands, known = there.get("live-restore", False), _document.flag(host.facts, "engine", "live_restore")
        word = "on" if settings.live_restore else "off"
        if stands is not settings.live_restore:
            wishes["live-restore"] = settings.live_restore
            reasons.append(f"live-restore is to be {word}")
            activation = _stronger(activation, RELOAD)
        elif known is not None and known is not settings.live_restore:
            reasons.append(f"daemon.json has live-restore {word}, and Docker does not know it yet")
            activation = _stronger(activation, RELOAD)
    if _is_replaced(host, settings) and RUNTIME_NAME in _document.texts(host.facts, "engine", "runtimes"):
        # Containers that were started with it would not start again.
        wishes["runtimes"] = {RUNTIME_NAME: dict(_RUNTIME), **_document.mapping(wishes, "runtimes")}
    if by_cdi:
        found = _cdi(host, settings, there, new_engine)
        if found.settings:
            wishes["features"] = {**_document.mapping(wishes, "features"), "cdi": True}
        reasons += found.reasons
        activation = _stronger(activation, found.activation)
        if found.block is not None:
            return Wanted({}, NOTHING, (), found.block)
    return Wanted(wishes if _differing(wishes, there) else {}, activation, tuple(reasons))


def _is_replaced(host: Host, settings: Settings) -> bool:
    """Return whether a file that cannot be read gives way to one that has what is set here and nothing else."""
    return settings.invalid_daemon_config == REPLACE and _document.text(host.facts, "engine", "daemon_config", "error") is not None


def _stronger(one: str, other: str) -> str:
    return max(one, other, key=(NOTHING, RELOAD, RESTART).index)


def _cdi(host: Host, settings: Settings, there: Mapping[str, Any], new_engine: bool) -> Wanted:
    """Return what switches CDI on. What somebody switched off in the file stays off, unless the operator says otherwise."""
    engine = _document.mapping(host.facts, "engine")
    says = _document.flag(there, "features", "cdi")
    if says is False and settings.cdi != TRUE:
        message = "features.cdi is false in /etc/docker/daemon.json, so that Docker gives no GPU by CDI"
        return Wanted({}, NOTHING, (), Block("engine", _plan_codes.CDI_SWITCHED_OFF, message))
    knows = _document.flag(engine, "cdi_enabled") is True
    version = _engine_source.version(host)
    if knows and says is not False:
        lost = _is_replaced(host, settings) and (new_engine or not _versions.at_least(version, _toolkit.CDI_DEFAULT_SINCE))
        return Wanted({"features": {"cdi": True}}, RESTART, ("CDI is to stay on",)) if lost else Wanted({}, NOTHING)
    if says is True:
        if new_engine or _document.flag(engine, "running") is not True:
            return Wanted({}, NOTHING)
        return Wanted({}, RESTART, ("daemon.json has CDI on, and Docker does not know it yet",))
    # A newer Docker has it on by itself; of one that is to come nobody knows the version.
    default = not new_engine and _versions.at_least(version, _toolkit.CDI_DEFAULT_SINCE)
    if default and says is None and _document.flag(engine, "running") is not True:
        return Wanted({}, NOTHING)
    return Wanted({"features": {"cdi": True}}, RESTART, ("CDI is to be on",))


def runtime(host: Host) -> Wanted:
    """Return what makes NVIDIA's runtime known to Docker."""
    there = content(host)
    known = RUNTIME_NAME in _document.texts(host.facts, "engine", "runtimes")
    listed = _document.mapping(there, "runtimes", RUNTIME_NAME)
    if not listed and not known:
        settings = {"runtimes": {RUNTIME_NAME: dict(_RUNTIME)}}
        return Wanted(settings, RELOAD, ("Docker does not know NVIDIA's runtime",))
    if listed and not known:
        return Wanted({}, RELOAD, ("daemon.json has NVIDIA's runtime, and Docker does not know it yet",))
    return Wanted({}, NOTHING)


def without_runtime(host: Host) -> list[list[str]]:
    """Return the keys that name NVIDIA's runtime, which go with the toolkit."""
    there = content(host)
    found = [["runtimes", RUNTIME_NAME]] if RUNTIME_NAME in _document.mapping(there, "runtimes") else []
    # Docker does not start with a default runtime that it does not know.
    return [*found, *([["default-runtime"]] if there.get("default-runtime") == RUNTIME_NAME else [])]


def outlived(host: Host, options: Mapping[str, Any] | None, wishes: Mapping[str, Any] | None = None) -> bool:
    """Return whether containers outlive a restart of Docker by live-restore, as far as settings have to do with it.

    Args:
        host: what was observed.
        options: the options of docker_daemon_config, None where the file stays as it is.
        wishes: settings that may have been written since the engine was started; None where there are none.
    """
    there = content(host)
    coming = _document.mapping(options or {}, "settings")
    # Docker stops them itself when it starts with a file in which live-restore is not on (moby, daemon/daemon.go).
    after = coming.get("live-restore", there.get("live-restore"))
    paths = [*_paths(coming, there), *_paths(wishes or {}, {})]
    return _document.flag(host.facts, "engine", "live_restore") is True and after is True and all(_is_harmless(path) for path in paths)


def _is_harmless(path: tuple[str, ...]) -> bool:
    if path[0] == "features":
        return path[1:2] in (("cdi",), ("buildkit",))
    return path[0] in _HARMLESS or _daemon_config.reloads(path, path[:1])


def _paths(wishes: Mapping[str, Any], there: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the path to each value that, merged into what is there, would change it."""
    found: list[tuple[str, ...]] = []
    for key in _differing(wishes, there):
        value, old = wishes[key], there.get(key)
        inner = _paths(value, old if isinstance(old, Mapping) else {}) if isinstance(value, Mapping) else []
        found += [(key, *path) for path in inner] or [(key,)]
    return found


def _differing(wishes: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return the keys whose value, merged into what is there, would change it."""
    return [key for key, value in wishes.items() if key not in there or not _holds(there[key], value)]


def _holds(there: Any, value: Any) -> bool:
    if isinstance(value, Mapping):
        return isinstance(there, Mapping) and all(key in there and _holds(there[key], item) for key, item in value.items())
    if isinstance(value, bool) or isinstance(there, bool):
        return value is there
    return bool(there == value)
