# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of a host: what becomes of it, how it gets what is changed, and who is in the way of that.

An engine that will do is never replaced, and nobody's container is stopped without consent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _daemon_settings,
    _document,
    _driver_source,
    _engine_guard,
    _engine_source,
    _package_sources,
    _plan_codes,
    _platform_packages,
    _toolkit,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._engine_guard import Container, Guard
from ansible_collections.difyops.gpu.plugins.plugin_utils._engine_settings import (
    AUTO,
    DISTRIBUTION,
    DOCKER,
    FALSE,
    REPLACE,
    TRUE,
    Settings,
    option_of,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_settings import CDI, RUNTIME
from ansible_collections.difyops.gpu.plugins.plugin_utils._toolkit_settings import Settings as ToolkitSettings

NONE, INSTALL, UPGRADE, CONFIGURE = "none", "install", "upgrade", "configure"
NOTHING, START, RELOAD, RESTART = "none", "start", "reload", "restart"
# The stronger one is done where several are asked for.
_ACTIVATIONS = (NOTHING, START, RELOAD, RESTART)
_NOT_BACK = "what a newer Docker has stored need not suit an older one"
# What a journal says of a run that changed packages.
_PACKAGES = "packages"
_PREFIX_OF_ALL = re.compile(r"[0-9]+(?:\.[0-9]+){2}")


@dataclass(frozen=True)
class Decision:
    """What becomes of Docker on a host.

    `names` are the packages that are to come, `whole` whether they are Docker itself and not only a plugin. `injection` is how containers
    get GPUs when it is done. `restart` are containers that an interrupted run stopped; `finishes` that there was such a run; `repair`
    that packages are half installed.
    """

    action: str = NONE
    before: str | None = None
    to: str | None = None
    expects: str | None = None
    reason: str = ""
    source: str | None = None
    names: tuple[str, ...] = ()
    whole: bool = False
    injection: str | None = None
    daemon_config: Mapping[str, Any] | None = None
    service: Mapping[str, bool] | None = None
    activation: str = NOTHING
    guard: Guard | None = None
    restart: tuple[Container, ...] = ()
    finishes: bool = False
    repair: bool = False
    holds: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    warnings: tuple[dict[str, str], ...] = ()
    reasons: tuple[str, ...] = field(default=())

    @property
    def cuts_off(self) -> bool:
        """Whether running containers stop for it."""
        return self.guard is not None and bool(self.guard.containers)


def decide(host: Host, settings: Settings, toolkit: ToolkitSettings, gpu: bool, buildx: bool = False) -> Decision:
    """Return what becomes of the engine of a host.

    Args:
        host: what was observed.
        settings: what the operator wants of the engine.
        toolkit: what the operator wants of the toolkit, which says how containers get their GPUs.
        gpu: whether containers are to be given a GPU.
        buildx: whether an image is to be built here.
    """
    facts = _document.mapping(host.facts, "engine")
    before = _engine_source.version(host)
    start = Decision(before=before, to=before, expects=before, restart=_engine_guard.restarts(host), finishes=bool(facts.get("journal")))
    name = _document.text(facts, "name")
    if name not in (None, "docker"):
        # To put Docker beside another engine, or in its place, is nobody's decision but the operator's.
        message = f"the container engine is {name} {before or ''}".rstrip()
        return replace(start, blocks=(Block("engine", _plan_codes.OTHER_ENGINE, message),), restart=(), finishes=False)
    found = _with_packages(host, settings, toolkit, gpu, buildx, start)
    found = replace(found, injection=_injection(host, settings, toolkit, gpu, found.whole))
    found = _with_settings(host, settings, gpu, found)
    found = _with_service(host, found)
    found = _with_unit(host, _finished(host, settings, found))
    return _guarded(host, settings, found)


def will_be(host: Host, settings: Settings, toolkit: ToolkitSettings, changed: bool) -> str:
    """Return how containers get GPUs on the engine that is there; `changed` where another is to come."""
    return _injection(host, settings, toolkit, True, changed) or CDI


# -- packages --------------------------------------------------------------------------------------------------------


def _with_packages(host: Host, settings: Settings, toolkit: ToolkitSettings, gpu: bool, buildx: bool, found: Decision) -> Decision:
    """Add which packages are to come, and why; or why they cannot."""
    facts = _document.mapping(host.facts, "engine")
    there = _document.text(facts, "name") is not None
    lacks = [] if not there else _lacks_whole(host, settings, toolkit, gpu)
    plugins = _lacks_plugins(host, settings, buildx) if there else {}
    if not there:
        lacks = ["there is no container engine on this host"]
    if not lacks and not plugins:
        return found
    here = _engine_source.target(host)
    reasons = [*lacks, *plugins.values()]
    action = UPGRADE if there else INSTALL
    found = replace(found, action=action, reasons=tuple(reasons), reason="; ".join(reasons))
    if here is None:
        return _blocked(found, _no_target(host, reasons))
    source = _source(host, here, settings, there)
    if source is None:
        return _blocked(found, _not_from_packages(found.before, reasons))
    origin = _engine_source.installed_from(host)
    offer = _engine_source.names(here, source)
    refused = _refused(host, here, settings, source, offer, found, bool(lacks), plugins)
    if refused is not None or offer is None:
        return _blocked(replace(found, source=source), refused or _nothing_there(host, source))
    # Another source brings all of it, since the two exclude each other.
    whole = bool(lacks) or (there and origin != source)
    few = tuple(name for key, name in (("compose", offer.compose), ("buildx", offer.buildx)) if key in plugins and name)
    names = settings.packages or (offer.all if whole else few)
    to, expects = _expected(settings, found.before, whole)
    if not whole:
        expects = f"{found.before or 'Docker'} with {' and '.join(_plugin_words(plugins, settings))}"
    backwards = _backwards(found.before, settings) if whole else None
    found = replace(found, source=source, names=tuple(names), whole=whole, to=to, expects=expects)
    if backwards is not None:
        return _blocked(found, backwards)
    block = held(host, settings, found)
    return _blocked(found, block) if block is not None else found


def _lacks_whole(host: Host, settings: Settings, toolkit: ToolkitSettings, gpu: bool) -> list[str]:
    """Return why another Docker has to come in place of the one that is there."""
    version = _engine_source.version(host)
    found = []
    if version is not None and not _platform_packages.begins(_engine_source.upstream(version), settings.version):
        found.append(f"Docker is {version}, and {option_of('version')} is {settings.version}")
    by_cdi = (gpu and toolkit.injection == CDI) or settings.cdi == TRUE
    old = version is not None and _versions.parse(version) is not None and not _versions.at_least(version, _toolkit.CDI_FLOOR)
    if by_cdi and old and _document.flag(host.facts, "engine", "cdi_enabled") is not True:
        found.append(f"Docker {version} has no CDI, which {_toolkit.CDI_FLOOR} and newer have")
    return found


def _lacks_plugins(host: Host, settings: Settings, buildx: bool) -> dict[str, str]:
    """Return which plugins are to come, each with the reason."""
    facts = _document.mapping(host.facts, "engine")
    compose = _document.text(facts, "compose_version")
    found = {}
    if compose is None:
        found["compose"] = "Docker has no compose plugin"
    elif not _versions.at_least(compose, settings.compose_min):
        found["compose"] = f"Docker Compose is {compose}; needed is {settings.compose_min} or newer"
    if buildx and _document.text(facts, "buildx_version") is None:
        found["buildx"] = "Docker has no buildx plugin, and the image is to be built on this host"
    return found


def _plugin_words(plugins: Mapping[str, str], settings: Settings) -> list[str]:
    texts = {"compose": f"Compose {settings.compose_min} or newer", "buildx": "the buildx plugin"}
    return [texts[name] for name in plugins]


def _source(host: Host, here: _driver_source.Target, settings: Settings, there: bool) -> str | None:
    """Return the source of the packages; None where Docker is there and came from no source."""
    if not there:
        return _engine_source.choose(here, settings)
    origin = _engine_source.installed_from(host)
    # One that came without packages has files that those of a package would mix with.
    return None if origin is None else settings.source if settings.source != AUTO else origin


def _expected(settings: Settings, before: str | None, whole: bool) -> tuple[str | None, str | None]:
    """Return the version that Docker will have, None where only the repository can tell, and how sentences call it."""
    if not whole:
        return before, before
    wanted = settings.version
    if wanted is None:
        return None, f"{_toolkit.CDI_FLOOR} or newer"
    if _PREFIX_OF_ALL.fullmatch(wanted):
        return wanted, wanted
    return None, f"{wanted}.*"


def _backwards(before: str | None, settings: Settings) -> Block | None:
    there, wanted = _versions.parse(before), settings.version
    if there is None or wanted is None or there.release[: wanted.count(".") + 1] <= tuple(int(part) for part in wanted.split(".")):
        return None
    message = f"Docker is {before}, and {option_of('version')} names {wanted}: {_NOT_BACK}"
    remedy = f"name {before} or a newer one in {option_of('version')}; to go back, do it by hand with a copy of /var/lib/docker"
    return Block("engine", _plan_codes.DOWNGRADE, message, remedy, by_wish=True)


def backwards(found: Decision, coming: str | None) -> Block | None:
    """Return why the Docker that comes by the packages is not brought: it is older than the one that is there. None where it is not."""
    there, new = _versions.parse(found.before), _versions.parse(coming)
    if there is None or new is None or new >= there:
        return None
    message = f"Docker is {found.before}, and {_engine_source.phrase(found.source)} has {coming}: {_NOT_BACK}"
    remedy = f"set {option_of('source')} or {option_of('repository')} to one that has {found.before} or newer; to go back, do it by hand"
    return Block("engine", _plan_codes.DOWNGRADE, message, f"{remedy} with a copy of /var/lib/docker", by_wish=True)


def _refused(
    host: Host,
    here: _driver_source.Target,
    settings: Settings,
    source: str,
    offer: _engine_source.Names | None,
    found: Decision,
    whole: bool,
    plugins: Mapping[str, str],
) -> Block | None:
    """Return why a source cannot have what is lacking, by our tables; None where it may."""
    if offer is None:
        return _nothing_there(host, source)
    if settings.packages:
        return None
    why, system = "; ".join(found.reasons), _driver_source.system(host)
    there = found.before is not None
    other = f"set {option_of('source')} to {DOCKER}, whose packages take the place of the distribution's; what is in /var/lib/docker stays"
    can_change = _engine_source.docker(here) is not None
    exchanged = there and _engine_source.installed_from(host) != source
    by_hand = "put a compose plugin into /usr/local/lib/docker/cli-plugins by hand, then run again"
    if offer.too_old is not None and (whole or exchanged or not there):
        message = f"{why}, and {system} itself has Docker {offer.too_old} only; needed is {_toolkit.CDI_FLOOR} or newer"
        return Block("engine", _plan_codes.SOURCE_TOO_OLD, message, other)
    compose = _document.text(host.facts, "engine", "compose_version")
    needs_compose = "compose" in plugins or (not there and not _versions.at_least(compose, settings.compose_min))
    if needs_compose and offer.compose is None and compose is None:
        message = f"{why}, and {system} itself has no compose plugin for Docker"
        code = _plan_codes.SOURCE_TOO_OLD if can_change else _plan_codes.NO_DOCKER_HERE
        return Block("engine", code, message, other if can_change else by_hand)
    small = offer.compose_version is not None and not _versions.at_least(offer.compose_version, settings.compose_min)
    if needs_compose and (small or offer.compose is None):
        has = offer.compose_version or "none"
        message = f"{why}, and {system} itself has Compose {has}"
        code = _plan_codes.SOURCE_TOO_OLD if can_change else _plan_codes.NO_DOCKER_HERE
        return Block("engine", code, message, other if can_change else by_hand)
    if "buildx" in plugins and offer.buildx is None:
        message = f"{why}, and {system} itself has none"
        use_other = f"{other}; or use an image that is pulled"
        return Block("engine", _plan_codes.NO_BUILDX, message, use_other if can_change else None)
    return None


def _nothing_there(host: Host, source: str) -> Block:
    if source == DOCKER:
        message = f"Docker's repository has nothing for {_driver_source.system(host)}"
        remedy = f"set {option_of('source')} to {DISTRIBUTION}"
    else:
        message = f"{_driver_source.system(host)} has no Docker of its own"
        remedy = f"set {option_of('source')} to {DOCKER} or {AUTO}"
    return Block("engine", _plan_codes.NO_DOCKER_HERE, message, remedy, by_wish=True)


def _no_target(host: Host, reasons: Sequence[str]) -> Block:
    message = f"{'; '.join(reasons)}, and no Docker is brought to {_driver_source.system(host)}: that is done on {_driver_source.TARGETS}"
    return Block("engine", _plan_codes.NO_DOCKER_HERE, message)


def _not_from_packages(before: str | None, reasons: Sequence[str]) -> Block:
    which = f"Docker {before}" if before else "Docker"
    message = f"{'; '.join(reasons)}, and {which} was not installed from packages, so that none can replace it"
    remedy = f"bring what is missing the way Docker came, and set {option_of('state')} to unmanaged; or take that Docker away first"
    return Block("engine", _plan_codes.NO_DOCKER_HERE, message, remedy)


def held(host: Host, settings: Settings, found: Decision) -> Block | None:
    """Return which rules keep the packages as they are. With `hold` those of the package manager are the role's own."""
    pins = _document.mappings(host.facts, "engine", "pins")
    installed = [_document.text(package, "name") or "" for package in _document.mappings(host.facts, "engine", "packages")]
    names = [*found.names, *(installed if found.whole else [])]

    def ours(pin: Mapping[str, Any]) -> bool:
        return settings.hold and pin.get("kind") in ("hold", "versionlock")

    rules = _platform_packages.in_the_way(pins, names, found.to if found.whole else None, ours)
    if not rules:
        return None
    message = f"{found.reason}, and {', '.join(dict.fromkeys(_platform_packages.words(pin) for pin in rules))}"
    remedy = f"take the rules away, or set {option_of('hold')} to true, by which holds and locks are the role's own"
    return Block("engine", _plan_codes.HELD_BY_OTHERS, message, remedy)


# -- daemon.json -----------------------------------------------------------------------------------------------------


def _injection(host: Host, settings: Settings, toolkit: ToolkitSettings, gpu: bool, new_engine: bool) -> str | None:
    """Return how containers get GPUs when the plan is done, None where they get none."""
    if not gpu:
        return None
    if toolkit.injection != AUTO:
        return toolkit.injection
    if settings.cdi == FALSE:
        return RUNTIME
    if new_engine or _document.flag(host.facts, "engine", "cdi_enabled") is True:
        return CDI
    version = _engine_source.version(host)
    old = _versions.parse(version) is not None and not _versions.at_least(version, _toolkit.CDI_FLOOR)
    return RUNTIME if old else CDI


def _with_settings(host: Host, settings: Settings, gpu: bool, found: Decision) -> Decision:
    """Add what daemon.json is to say, and how the engine gets to know."""
    if found.blocks:
        return found
    by_cdi = (gpu and found.injection == CDI and settings.cdi != FALSE) or settings.cdi == TRUE
    wanted = _daemon_settings.wanted(host, settings, by_cdi, new_engine=found.whole)
    running = _document.flag(host.facts, "engine", "running") is True
    error = _document.text(host.facts, "engine", "daemon_config", "error")
    if error is not None and settings.invalid_daemon_config != REPLACE and (wanted.settings or not running):
        message = f"Docker's configuration file cannot be used: {error.rstrip('.')}"
        return _blocked(found, Block("engine", _plan_codes.DAEMON_CONFIG_UNREADABLE, message))
    notes: tuple[dict[str, str], ...] = ()
    if error is not None and not wanted.settings and settings.invalid_daemon_config != REPLACE:
        message = f"Docker runs, and would not start again: {error.rstrip('.')}"
        notes = (warning(_plan_codes.DAEMON_CONFIG_UNREADABLE, message),)
    if wanted.block is not None:
        return _blocked(found, wanted.block)
    options = None
    if wanted.settings or (error is not None and settings.invalid_daemon_config == REPLACE):
        options = {"settings": dict(wanted.settings), "absent": [], "invalid": settings.invalid_daemon_config}
    reasons = [*wanted.reasons, *([f"{error.rstrip('.')}, and it is replaced"] if error is not None and options is not None else [])]
    activation = wanted.activation if running else NOTHING
    if error is not None and options is not None and running:
        activation = RESTART
    found = replace(found, daemon_config=options, activation=activation, warnings=(*found.warnings, *notes))
    return _with_reasons(found, reasons)


def _with_reasons(found: Decision, reasons: Sequence[str]) -> Decision:
    if not reasons:
        return found
    action = found.action if found.action != NONE else CONFIGURE
    together = (*found.reasons, *reasons)
    return replace(found, action=action, reasons=together, reason="; ".join(together))


# -- service, and what is beside ---------------------------------------------------------------------------------------


def _with_service(host: Host, found: Decision) -> Decision:
    """Add that Docker is to run, and to start at boot."""
    if found.blocks:
        return found
    facts = _document.mapping(host.facts, "engine")
    wanted = {"enabled": True, "running": True}
    if found.action == INSTALL:
        return replace(found, service=wanted, activation=START)
    if found.whole:
        found = replace(found, activation=RESTART if _document.flag(facts, "running") else START)
    if _document.flag(facts, "running") is not True:
        why = (_document.text(facts, "error") or "the Docker daemon is not running").rstrip(".")
        # Whatever changes: nobody can tell which containers run, and packages, a restart or a failed reload would stop them.
        if isinstance(facts.get("service"), Mapping) and _document.flag(facts, "service", "active") is not False:
            message = f"docker.service runs, and Docker does not answer: {why}"
            remedy = "look at journalctl -u docker on the host; it is not restarted for you, since nobody can tell which containers run"
            return _blocked(found, Block("engine", _plan_codes.ENGINE_NOT_RUNNING, message, remedy))
        found = _with_reasons(found, [f"Docker does not answer: {why}"])
        return replace(found, service=wanted, activation=START)
    if _document.flag(facts, "service", "enabled") is False:
        return replace(_with_reasons(found, ["docker.service does not start at boot"]), service=wanted)
    return found


def _finished(host: Host, settings: Settings, found: Decision) -> Decision:
    """Add what is to be done beside: half installed packages, holds, what an interrupted run left."""
    if found.blocks:
        return found
    facts = _document.mapping(host.facts, "engine")
    broken = [_document.text(entry, "name") or "a package" for entry in _document.mappings(facts, "broken")]
    reasons = [f"packages are half installed and are finished: {', '.join(broken)}"] if broken else []
    holds = _not_held(host, settings, found)
    if holds and not found.names:
        reasons.append(f"not held: {', '.join(holds)}")
    if found.finishes:
        names = ", ".join(container.name for container in found.restart)
        reasons.append(f"a run that was interrupted is finished{f', and {names} started again' if names else ''}")
        found = replace(found, activation=max(found.activation, _left_over(host), key=_ACTIVATIONS.index))
    if _repairs_engine(host) and _document.flag(facts, "running") is True:
        found = replace(found, activation=RESTART)
    return _with_reasons(replace(found, repair=bool(broken), holds=tuple(holds)), reasons)


def _repairs_engine(host: Host) -> bool:
    """Return whether packages are half installed whose scripts restart Docker, or what its containers hang on, when they are finished."""
    broken = _document.mappings(host.facts, "engine", "broken")
    return any(_engine_source.restarts(_document.text(entry, "name") or "") for entry in broken)


def _left_over(host: Host) -> str:
    """Return how the engine, which runs, gets what an interrupted run changed."""
    facts = _document.mapping(host.facts, "engine")
    left = _document.text(facts, "journal", "activation")
    if _document.flag(facts, "running") is not True:
        return NOTHING
    if left == START:
        # Packages start Docker themselves, which may have been before its file was written; else it was started after that.
        return RESTART if _document.text(facts, "journal", "phase") == _PACKAGES else NOTHING
    return left if left in (RELOAD, RESTART) else NOTHING


def _with_unit(host: Host, found: Decision) -> Decision:
    """Block what would have to be done to a Docker that docker.service does not run."""
    there = isinstance(_document.mapping(host.facts, "engine").get("service"), Mapping)
    if found.blocks or found.action == INSTALL or found.activation == NOTHING or there:
        return found
    if _engine_source.installed_from(host) is None:
        message = f"{found.reason}, and docker.service does not run this Docker, which was not installed from packages"
        own = "change it the way it came (a snap has a configuration of its own)"
        remedy = f"{own}, and set {option_of('state')} to unmanaged; or take it away first"
    else:
        message = f"{found.reason}, and systemd could not be asked about docker.service"
        remedy = "see what systemctl status docker.service says on the host, then run again"
    return _blocked(found, Block("engine", _plan_codes.NO_DOCKER_HERE, message, remedy))


def _not_held(host: Host, settings: Settings, found: Decision) -> list[str]:
    here = _engine_source.target(host)
    if not settings.hold or here is None:
        return []
    pins = _document.mappings(host.facts, "engine", "pins")
    installed = [_document.text(package, "name") or "" for package in _document.mappings(host.facts, "engine", "packages")]
    names = list(dict.fromkeys(name for name in (*installed, *found.names) if _engine_source.is_own(name)))
    kind = "hold" if here.manager == _package_sources.APT else "versionlock"
    return _platform_packages.loose(pins, kind, names, None)


def _guarded(host: Host, settings: Settings, found: Decision) -> Decision:
    """Add who would be cut off by a restart, and whether that may be."""
    if found.blocks or found.activation != RESTART:
        return found
    guard = _engine_guard.of(host, settings, outlived=_is_outlived(host, settings, found))
    block = guard.block(found.reason)
    shown = replace(found, guard=guard if guard.containers or guard.silent else None)
    if block is not None:
        return _blocked(shown, block)
    lost = [container.name for container in guard.containers if container.auto_remove]
    if not lost:
        return shown
    message = f"{', '.join(lost)}: removed when it stops (docker run --rm), and so gone after the restart of Docker"
    note = warning(_plan_codes.ENGINE_RESTART, message, "let it end first where its work counts")
    return replace(shown, warnings=(*shown.warnings, note))


def _is_outlived(host: Host, settings: Settings, found: Decision) -> bool:
    """Return whether containers outlive the restart by live-restore: from one patch release to the next only, and not every setting."""
    left = _document.text(host.facts, "engine", "journal", "activation") if found.finishes else None
    if found.whole or _repairs_engine(host) or (left and _document.text(host.facts, "engine", "journal", "phase") == _PACKAGES):
        return False
    # The run that was interrupted has written no more than what is set now.
    return _daemon_settings.outlived(host, found.daemon_config, settings.daemon_config if left else None)


def reguarded(host: Host, settings: Settings, found: Decision, reason: str) -> Decision:
    """Return the decision about a plugin whose packages, as it turned out, change Docker itself as well."""
    running = _document.flag(host.facts, "engine", "running") is True
    return _guarded(host, settings, replace(found, whole=True, activation=RESTART, reason=reason)) if running else found


def _blocked(found: Decision, block: Block) -> Decision:
    """Return a decision with what is in its way. Nothing is begun then."""
    return replace(found, blocks=(*found.blocks, block), activation=NOTHING)
