# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the container engine and the NVIDIA Container Toolkit of a host lack, so that a container can run and be given its GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _devices, _document, _plan_codes, _toolkit, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, Need
from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

ENGINE, TOOLKIT = "engine", "toolkit"
RUNTIME, NVIDIA_RUNTIME = "runtime", "nvidia"
INSTALL, UPGRADE, CONFIGURE = "install", "upgrade", "configure"

# First toolkit whose nvidia-ctk writes CDI specifications for any engine.
CTK_CDI_FLOOR = "1.13.0"

_DOCKER = f"Docker {_toolkit.CDI_FLOOR} or newer"
_TOOLKIT = f"{_toolkit.FIRST_SAFE} or newer"


def engine_needs(host: Host, compose_min: str = _toolkit.COMPOSE_FLOOR) -> list[Need]:
    """Return what is missing before any container can be run here, with a GPU or without."""
    engine = _document.mapping(host.facts, "engine")
    name, version = _document.text(engine, "name"), _document.text(engine, "version") or ""
    if name is None:
        return [_engine(INSTALL, _DOCKER, _plan_codes.NO_ENGINE, "no container engine was found on this host")]
    if name != "docker":
        # To put Docker beside another engine, or in its place, is nobody's decision but the operator's.
        return [_engine(None, "", _plan_codes.OTHER_ENGINE, f"the container engine is {name} {version}".rstrip())]
    if not _document.flag(engine, "running"):
        why = _document.text(engine, "error") or "the Docker daemon is not running"
        return [_engine(CONFIGURE, "running", _plan_codes.ENGINE_NOT_RUNNING, f"Docker does not answer: {why}")]
    compose = _document.text(engine, "compose_version")
    newer = f"Compose {compose_min} or newer"
    if compose is None:
        return [_engine(UPGRADE, newer, _plan_codes.NO_COMPOSE, "Docker has no compose plugin")]
    if not _versions.at_least(compose, compose_min):
        message = f"Docker Compose is {compose}; needed is {compose_min} or newer"
        return [_engine(UPGRADE, newer, _plan_codes.COMPOSE_TOO_OLD, message)]
    return []


def buildx_needs(host: Host) -> list[Need]:
    """Return what is missing to build an image here, on a host where containers can be run."""
    if _document.text(host.facts, ENGINE, "buildx_version") is not None:
        return []
    message = "Docker has no buildx plugin, and the image is to be built on this host"
    return [_engine(UPGRADE, "the buildx plugin", _plan_codes.NO_BUILDX, message)]


def gpu_needs(host: Host, choice: _devices.Choice, driver_changes: bool, injection: str) -> list[Need]:
    """Return what is missing to give these GPUs to a container by CDI or by NVIDIA's runtime."""
    if injection == RUNTIME and _document.flag(host.facts, ENGINE, "running"):
        return _runtime_needs(host)
    return [*_cdi_needs(host), *_device_needs(host, choice), *_toolkit_wants(host, driver_changes)]


def _runtime_needs(host: Host) -> list[Need]:
    """Return what is missing where Docker gives out GPUs by NVIDIA's runtime. It takes no specification."""
    version = _document.text(host.facts, TOOLKIT, "version")
    wants = [Need(TOOLKIT, UPGRADE, _TOOLKIT, unsafe(version))] if _toolkit.is_unsafe(version) else []
    if NVIDIA_RUNTIME in _document.texts(host.facts, ENGINE, "runtimes"):
        return wants
    block = next((need.block for need in _cdi_needs(host) if need.block is not None), None)
    if block is None:
        message = "Docker does not know NVIDIA's runtime, by which containers are to get their GPUs"
        remedy = "run: nvidia-ctk runtime configure --runtime=docker, and reload Docker"
        block = Block(TOOLKIT, _plan_codes.CDI_OFF, message, remedy)
    action = CONFIGURE if version is not None else INSTALL
    return [*wants, Need(TOOLKIT, action, "NVIDIA's runtime known to Docker", block.message, block)]


def _engine(action: str | None, to: str, code: str, message: str) -> Need:
    return Need(ENGINE, action, to, message, Block(ENGINE, code, message))


def _cdi_needs(host: Host) -> list[Need]:
    if not _document.flag(host.facts, ENGINE, "running") or _document.flag(host.facts, ENGINE, "cdi_enabled"):
        return []
    version = _document.text(host.facts, ENGINE, "version")
    message = f"Docker {version or 'of unknown version'} does not use CDI, so it cannot give a GPU to a container"
    if version is not None and not _versions.at_least(version, _toolkit.CDI_FLOOR):
        reason = f"{message}; {_toolkit.cdi_floor(version)}"
        # To switch on what this version does not have would keep it from starting at all.
        remedy = f"upgrade Docker to {_toolkit.CDI_FLOOR} or newer first; then {_plan_codes.CODES[_plan_codes.CDI_OFF].remedy}"
        return [Need(ENGINE, UPGRADE, f"{_DOCKER}, CDI on", reason, Block(ENGINE, _plan_codes.CDI_OFF, reason, remedy))]
    return [_engine(CONFIGURE, "CDI on", _plan_codes.CDI_OFF, message)]


def _device_needs(host: Host, choice: _devices.Choice) -> list[Need]:
    message = lacking(host, choice)
    if message is None:
        return []
    code = _plan_codes.NO_CDI_SPEC if choice.everything or not _devices.offered(host.facts) else _plan_codes.NO_CDI_DEVICE
    return [_specification(host, message, Block(TOOLKIT, code, message))]


def lacking(host: Host, choice: _devices.Choice) -> str | None:
    """Return which device no CDI specification has, as a sentence; None where every one that is used is there."""
    names = _devices.offered(host.facts)
    without = [use for use in choice.uses if not set(_devices.candidates(choice, use)) & set(names)]
    if not without:
        return None
    if choice.everything or not names:
        return _no_specification(host, choice)
    # The names of another strategy would only make the sentence longer.
    wanted = "; ".join(f"{' or '.join(_devices.candidates(choice, use)[:2]) or 'none'} for {use.label}" for use in without)
    return f"the CDI specification has no device {wanted}; it has {', '.join(names)}"


def _no_specification(host: Host, choice: _devices.Choice) -> str:
    device = " with the device 'all'" if choice.everything else ""
    where = " or ".join(_devices.directories_of(host.facts)) or "the CDI directories"
    errors = [f"{spec.get('path')}: {spec.get('error')}" for spec in _devices.specs_of(host.facts) if _document.text(spec, "error")]
    return "; ".join([f"no CDI specification of kind {_toolkit.CDI_KIND}{device} in {where}", *errors])


def _specification(host: Host, reason: str, block: Block | None = None) -> Need:
    version = _document.text(host.facts, TOOLKIT, "version")
    if version is None:
        return Need(TOOLKIT, INSTALL, _TOOLKIT, reason, block)
    if not _versions.at_least(version, CTK_CDI_FLOOR):
        return Need(TOOLKIT, UPGRADE, _TOOLKIT, f"{reason}; its nvidia-ctk writes none before {CTK_CDI_FLOOR}", block)
    return Need(TOOLKIT, CONFIGURE, "a CDI specification made anew", reason, block)


def _toolkit_wants(host: Host, driver_changes: bool) -> list[Need]:
    """Return what should be better about a toolkit that is there, and stops nothing where it is not the caller's to change."""
    version = _document.text(host.facts, TOOLKIT, "version")
    wants = []
    if _toolkit.is_unsafe(version):
        wants.append(Need(TOOLKIT, UPGRADE, _TOOLKIT, unsafe(version)))
    if _document.flag(host.facts, TOOLKIT, "lockstep") is False:
        wants.append(Need(TOOLKIT, UPGRADE, _TOOLKIT, "its packages have different versions"))
    wants += [_specification(host, text) for text in stale(host)]
    if driver_changes:
        wants.append(_specification(host, "a CDI specification names the files of the driver it was made for"))
    return wants


def unsafe(version: str | None) -> str:
    """Return the sentence about a toolkit with a known container escape."""
    names = ", ".join(name for cve in _toolkit.cves(version) for name in cve.ids)
    return f"NVIDIA Container Toolkit {version} is open to {names}"


def stale(host: Host) -> list[str]:
    """Return a sentence for every CDI specification that is out of date."""
    return stale_sentences([spec for spec in _devices.specs_of(host.facts) if _document.flag(spec, "stale")])


def stale_sentences(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each of these specifications, which are out of date."""
    reasons = [", ".join(_document.texts(spec, "reasons")) or "no reason given" for spec in specs]
    return [f"{spec.get('path')} is out of date ({reason})" for spec, reason in zip(specs, reasons)]


def program(content: Mapping[str, Any]) -> str | None:
    """Return what the runtime named nvidia of Docker's configuration file runs, None where it does not say."""
    return _document.text(content, "runtimes", NVIDIA_RUNTIME, "path")
