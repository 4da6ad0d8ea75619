# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia_packages_info is asked and answers, and which repository a host needs beside the sources that it answers to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _document,
    _driver_files,
    _driver_names,
    _driver_source,
    _package_sources,
    _plan_codes,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_names import Wanted
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import DISTRIBUTION, NONE, NVIDIA, PRESENT, VERSION, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_answer import Answer
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, DNF, DRIVER, Needed, Repository

if TYPE_CHECKING:
    from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
    from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_target import Target
    from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

# Counts more than the role's own file of an earlier driver, which is still there while the transaction is tried.
_TRIAL_PRIORITY = _driver_files.PRIORITY + 1


# -- what is asked ---------------------------------------------------------------------------------------------------


def wanted(host: Host, settings: Settings, target: Target) -> Wanted:
    """Return for which driver names are looked for. The host is one whose driver can be changed."""
    here = _driver_source.of_target(host)
    source = target.source or (NVIDIA if here.manager == DNF else DISTRIBUTION)
    return Wanted(here, source, target.branch, target.flavour, settings.kernel_modules, kernels(host))


def kernels(host: Host) -> tuple[str, ...]:
    """Return the running kernel and the one that boots next, as far as they are known."""
    known = (_document.text(host.facts, "host", "kernel", key) for key in ("running", "next"))
    return tuple(dict.fromkeys(name for name in known if name))


def without_headers(host: Host) -> list[str]:
    """Return the kernels whose headers are not on the host."""
    there = _document.texts(host.facts, "host", "kernel", "headers")
    return [kernel for kernel in kernels(host) if kernel not in there]


def present(host: Host, settings: Settings, driver: Wanted, version: str | None) -> dict[str, Any]:
    """Return the question about a driver that is to be there; `version` None for the newest of its branch."""
    apt = driver.target.manager == APT
    sets = [list(settings.packages)] if settings.packages else _driver_names.alternatives(driver)
    stream = _driver_names.stream(driver)
    pin = _driver_files.Pin(version or str(driver.branch), version is not None)
    return {
        "state": "present",
        "branch": str(driver.branch),
        "version": version,
        "alternatives": sets,
        "also": _also(host, settings, driver, version, sets),
        "patterns": _driver_names.patterns(driver.target),
        "stream": f"{_driver_names.MODULE}:{stream}" if stream else None,
        "preferences": _driver_files.preferences(pin, _TRIAL_PRIORITY)["content"] if apt else None,
    }


def _also(host: Host, settings: Settings, driver: Wanted, version: str | None, sets: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if settings.kernel_headers == PRESENT and any(_driver_names.builds(names) for names in sets):
        for kernel in without_headers(host):
            found[f"{_driver_names.HEADERS} {kernel}"] = _driver_names.headers(driver.target, kernel)
        later = _driver_names.later_headers(driver.target, driver.kernels)
        found.update({_driver_names.LATER_HEADERS: later} if later else {})
    if settings.persistence and not settings.packages and _driver_names.persistence(driver):
        found[_driver_names.PERSISTENCE] = _driver_names.persistence(driver)
    if _driver_files.needs_fabric_manager(host, settings):
        found[_driver_names.FABRIC_MANAGER] = _driver_names.fabric_manager(driver)
    if driver.target.manager == APT and driver.source == NVIDIA and settings.pin != NONE:
        exact = version or "{version}"
        found[_driver_names.PINNING] = _driver_names.pinning(exact if settings.pin == VERSION else None, driver.branch)
    return found


def absent(here: _driver_source.Target) -> dict[str, Any]:
    """Return the question about a driver that is to go."""
    return {
        "state": "absent",
        "branch": None,
        "version": None,
        "alternatives": [],
        "also": {},
        "patterns": _driver_names.patterns(here),
        "stream": None,
        "preferences": None,
    }


# -- rules that are there --------------------------------------------------------------------------------------------


def rules(host: Host, kind: str) -> list[str]:
    """Return the names that the rules of one kind have, each once."""
    pins = _document.mappings(host.facts, "driver", "installed", "pins")
    names = [_document.text(pin, "name") for pin in pins if pin.get("kind") == kind]
    return list(dict.fromkeys(name for name in names if name))


def locks(host: Host) -> list[str]:
    """Return dnf's locks on the driver as they are written, without those that only name versions to avoid."""
    found = []
    for pin in _document.mappings(host.facts, "driver", "installed", "pins"):
        name, value = _document.text(pin, "name"), _document.text(pin, "value")
        if pin.get("kind") == "versionlock" and name and not (value or "").startswith("!"):
            found.append(f"{name}-{value}" if value else name)
    return list(dict.fromkeys(found))


# -- the repository --------------------------------------------------------------------------------------------------


def repository(host: Host, settings: Settings, source: str, answer: Answer | None, key: bytes | None) -> Needed | None:
    """Return the repository that the host needs for a source of packages, None where its own sources will do or before they are known."""
    here = _driver_source.target(host)
    if answer is None or here is None:
        return None
    named = _driver_source.repository(host, settings, source)
    if named is None:
        added = _driver_files.components_added(here, answer.sources) if here.manager == APT and source == DISTRIBUTION else None
        if added is None:
            return None
        if _driver_files.EMBEDDED in added["content"]:
            return Needed({}, None, True, _embedded(here))
        return _package_sources.as_needed(DRIVER, _driver_files.managed(host), answer.sources, {_driver_files.APT_SOURCES: added})
    file = _driver_files.APT_SOURCES if here.manager == APT else _driver_files.YUM_REPO
    if not settings.repository.url and file not in _driver_files.managed(host):
        # dnf has one source only, so whatever has the driver will do.
        enough = here.manager == DNF and answer.choice is not None and not _package_sources.has_ours(DRIVER, answer.sources)
        if enough or _package_sources.has_own(DRIVER, answer.sources, named.url):
            return None
    return _package_sources.needed(_wanted(host, here, named), answer.sources, key)


def by_options(host: Host, settings: Settings, source: str, key: bytes | None) -> Needed | None:
    """Return the repository whose file of the role is another than the options tell, None where it is not there or as it should be.

    That takes no answer: the file is the role's already, so the host needs it, and what it should be hangs on the options alone.
    """
    here, named = _driver_source.target(host), _driver_source.repository(host, settings, source)
    if here is None or named is None:
        return None
    path, content = _driver_files.of_repository(here, named)
    if path not in _driver_files.managed(host) or _driver_files.is_there(host, path, content):
        return None
    return _package_sources.needed(_wanted(host, here, named), [], key)


def _wanted(host: Host, here: _driver_source.Target, named: Repository) -> _package_sources.Wanted:
    return _package_sources.Wanted(DRIVER, here.manager, named, _driver_files.managed(host), here.keyring)


def _embedded(here: _driver_source.Target) -> Block:
    """Return that a source with its key in itself cannot be added to: a second file for its repository would have to have the same key."""
    parts = ", ".join(here.components)
    message = f"the host's own package sources lack {parts}, and have their key inside, so nothing can be added to them"
    remedy = f"add {parts} to the sources of {here.codename} in /etc/apt, or name a mirror in {option_of('repository')}"
    return Block("driver", _plan_codes.NO_SUCH_DRIVER, message, remedy)


def stale_repository(host: Host, needed: Mapping[str, Any] | None, source: str | None, settled: bool) -> dict[str, None]:
    """Return the repository's files of an earlier driver that are to go: only where it is known that the host needs none of ours."""
    if not settled or needed is not None or source is None:
        return {}
    return {path: None for path in _driver_files.OF_REPOSITORY if path in _driver_files.managed(host)}
