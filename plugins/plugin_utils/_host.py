# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host as the planner sees it: the GPUs that may be used, and what stands in the way of using them."""

from __future__ import annotations

import datetime
import os.path
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _branches,
    _compose,
    _cuda,
    _document,
    _gpus,
    _plan_codes,
    _toolkit,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block, warning
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver, Gpu

_MISMATCH_ERROR = 18

# Values of the label org.difyops.mode that only a host with a GPU gives its container.
_MODES_WITH_GPU = {"gpu", "degraded"}


@dataclass(frozen=True)
class Host:
    """What ``ansible_facts['nvidia']`` says, read once.

    `present` are the GPUs that are ours (not passed through), `usable` those of them that can compute now.
    """

    facts: Mapping[str, Any]
    observed: bool
    present: tuple[Mapping[str, Any], ...]
    left_alone: tuple[Mapping[str, Any], ...]
    usable: tuple[Gpu, ...]
    driver: Driver | None


def read(facts: object) -> Host:
    """Return the host of a facts document; of None or an empty one, a host that was not observed."""
    gpus = _document.mappings(facts, "gpus")
    present = tuple(gpu for gpu in gpus if gpu.get("bound_driver") != "vfio-pci")
    version = _document.text(facts, "driver", "loaded", "version")
    return Host(
        facts=facts if isinstance(facts, Mapping) else {},
        observed=isinstance(_document.at(facts, "gpus"), (list, tuple)),
        present=present,
        left_alone=tuple(gpu for gpu in gpus if gpu.get("bound_driver") == "vfio-pci"),
        usable=tuple(_gpu(gpu) for gpu in present if _defect(gpu) is None),
        driver=Driver(version, _document.text(facts, "driver", "cuda_version")) if version and _versions.is_dotted(version) else None,
    )


def label(gpu: Mapping[str, Any]) -> str:
    """Return a GPU's name for sentences: product and PCI address."""
    product = _gpus.product(gpu.get("device_id"))
    name = _document.text(gpu, "name") or (product.name if product else "unknown NVIDIA GPU")
    return f"{name} at {_document.text(gpu, 'pci_address') or 'an unknown address'}"


def gpu_blocks(host: Host) -> list[Block]:
    """Return why the GPUs of this host cannot be used, whatever the image; empty when they all can.

    A container is given all GPUs, and the proof asks for all of them, so one that cannot compute is in the way of the others.
    """
    driver = _driver_block(host)
    if driver is not None:
        return [driver]
    defects = [(gpu, _defect(gpu)) for gpu in host.present]
    reasons = "; ".join(f"{label(gpu)} {defect}" for gpu, defect in defects if defect is not None)
    if not host.usable:
        return [Block("driver", _plan_codes.NO_USABLE_GPU, f"no GPU can be used: {reasons}")]
    return [Block("driver", _plan_codes.SICK_GPU, f"not every GPU can be used: {reasons}")] if reasons else []


def lost_gpu(host: Host, dify: object) -> str | None:
    """Return what tells that a host without a GPU of ours had one, or None when nothing does."""
    if host.present:
        return None
    version = _document.text(host.facts, "driver", "loaded", "version")
    if version is not None and not host.left_alone:
        # A passed-through GPU is reason enough for a loaded driver.
        return f"NVIDIA driver {version} is loaded"
    modes = [_document.text(container, "labels", _compose.MODE_LABEL) for container in _document.mappings(dify, "containers")]
    return "its container was deployed when there was one" if set(modes) & _MODES_WITH_GPU else None


def cdi_blocks(host: Host) -> list[Block]:
    """Return why the engine could not give a GPU to a container."""
    blocks: list[Block] = []
    directories = _document.texts(host.facts, "engine", "cdi_spec_dirs")
    if _document.flag(host.facts, "engine", "running") and not _document.flag(host.facts, "engine", "cdi_enabled"):
        version = _document.text(host.facts, "engine", "version") or "of unknown version"
        blocks.append(Block("engine", _plan_codes.CDI_OFF, f"Docker {version} does not use CDI, so it cannot give a GPU to a container"))
    specs = [spec for spec in _cdi_specs(host) if not directories or os.path.dirname(_document.text(spec, "path") or "") in directories]
    if not any("all" in _document.texts(spec, "devices") for spec in specs):
        message = (
            f"no CDI specification of kind {_toolkit.CDI_KIND} with the device 'all' in {' or '.join(directories) or 'the CDI directories'}"
        )
        errors = [f"{spec.get('path')}: {spec.get('error')}" for spec in _cdi_specs(host) if _document.text(spec, "error")]
        blocks.append(Block("toolkit", _plan_codes.NO_CDI_SPEC, "; ".join([message, *errors])))
    return blocks


def engine_blocks(host: Host) -> list[Block]:
    """Return why no container can be run here, GPU or not."""
    engine = _document.mapping(host.facts, "engine")
    name, version = _document.text(engine, "name"), _document.text(engine, "version") or ""
    if name is None:
        return [Block("engine", _plan_codes.NO_ENGINE, "no container engine was found on this host")]
    if name != "docker":
        return [Block("engine", _plan_codes.OTHER_ENGINE, f"the container engine is {name} {version}".rstrip())]
    if not _document.flag(engine, "running"):
        why = _document.text(engine, "error") or "the Docker daemon is not running"
        return [Block("engine", _plan_codes.ENGINE_NOT_RUNNING, f"Docker does not answer: {why}")]
    compose = _document.text(engine, "compose_version")
    if compose is None:
        return [Block("engine", _plan_codes.NO_COMPOSE, "Docker has no compose plugin")]
    if not _versions.at_least(compose, _toolkit.COMPOSE_FLOOR):
        return [Block("engine", _plan_codes.COMPOSE_TOO_OLD, f"Docker Compose is {compose}; needed is {_toolkit.COMPOSE_FLOOR} or newer")]
    return []


def buildx_blocks(host: Host) -> list[Block]:
    """Return why no image can be built here, on a host where containers can be run."""
    if _document.text(host.facts, "engine", "buildx_version") is not None:
        return []
    return [Block("engine", _plan_codes.NO_BUILDX, "Docker has no buildx plugin, and the image is to be built on this host")]


def driver_without_gpu(host: Host) -> list[dict[str, str]]:
    """Return the warning about driver packages on a host that has no GPU and shows no sign that it had one."""
    installed = _document.text(host.facts, "driver", "installed", "version")
    if installed is None or host.present or host.left_alone:
        return []
    return [warning(_plan_codes.DRIVER_WITHOUT_GPU, f"NVIDIA driver {installed} is installed and there is no NVIDIA GPU")]


def warnings(host: Host, today: datetime.date) -> list[dict[str, str]]:
    """Return what is worth knowing about the host's GPU stack and stops nothing."""
    found = [warning(_plan_codes.LEFT_ALONE, f"{label(gpu)} is bound to vfio-pci and left alone") for gpu in host.left_alone]
    if not host.present:
        return found
    return found + _driver_warnings(host, today) + _toolkit_warnings(host)


def _gpu(gpu: Mapping[str, Any]) -> Gpu:
    product = _gpus.product(gpu.get("device_id"))
    capability = _document.text(gpu, "compute_capability")
    if not _versions.is_dotted(capability, "{1}"):
        capability = product.compute_capability if product else None
    names = [_document.text(gpu, "name"), product.name if product else None]
    return Gpu(label(gpu), capability, any(_gpus.is_data_center(name) for name in names))


def _defect(gpu: Mapping[str, Any]) -> str | None:
    """Return why this GPU cannot compute, or None. An index means that the driver itself listed the GPU."""
    bound, health = _document.text(gpu, "bound_driver"), _document.text(gpu, "health")
    if bound != "nvidia" and gpu.get("index") is None:
        return f"is bound to {bound or 'no kernel driver'} instead of nvidia"
    if health not in (None, "ok"):
        return f"is {health.replace('_', ' ')}" if health != "error" else "reports an error"
    if gpu.get("compute_mode") == "prohibited":
        return "is in compute mode prohibited"
    if _document.flag(gpu, "mig", "current") and not _document.at(gpu, "mig", "devices"):
        return "is in MIG mode without a MIG device"
    return None


def _driver_block(host: Host) -> Block | None:
    facts = host.facts
    error = _document.mapping(facts, "nvml", "error")
    what = _document.text(error, "message") or _document.text(error, "name")
    if _document.text(facts, "driver", "loaded", "version") is None:
        bound = sorted({str(gpu.get("bound_driver")) for gpu in host.present if gpu.get("bound_driver")})
        holder = f"; {', '.join(bound)} holds the device" if bound else ""
        return Block("driver", _plan_codes.DRIVER_NOT_LOADED, f"{label(host.present[0])} has no NVIDIA driver loaded{holder}")
    if host.driver is None:
        version = _document.text(facts, "driver", "loaded", "version")
        return Block("driver", _plan_codes.DRIVER_SILENT, f"the loaded driver calls itself {version!r}, which is no driver version")
    if _document.flag(facts, "driver", "mismatch") or error.get("code") == _MISMATCH_ERROR:
        return Block("driver", _plan_codes.DRIVER_MISMATCH, f"driver {host.driver.version} is loaded, its library is of another version")
    if _document.text(facts, "nvml", "source") == "sysfs" and error:
        return Block(
            "driver", _plan_codes.DRIVER_SILENT, f"driver {host.driver.version} is loaded and does not answer: {what or 'unknown error'}"
        )
    return None


def _driver_warnings(host: Host, today: datetime.date) -> list[dict[str, str]]:
    found = []
    installed = _document.text(host.facts, "driver", "installed", "version")
    if host.driver is not None:
        branch = _cuda.branch(host.driver.version)
        ended = _branches.ended(branch, today)
        if ended is not None:
            found.append(warning(_plan_codes.BRANCH_ENDED, f"driver branch {branch} reached its end of life in {ended}"))
        if _versions.is_dotted(installed) and _versions.parse(installed) != _versions.parse(host.driver.version):
            message = f"driver {host.driver.version} is loaded and {installed} is installed"
            found.append(warning(_plan_codes.REBOOT_CHANGES_DRIVER, message))
    if _document.flag(host.facts, "driver", "next_kernel_has_module") is False:
        kernel = _document.text(host.facts, "host", "kernel", "next") or "that boots next"
        found.append(warning(_plan_codes.NEXT_KERNEL_WITHOUT_MODULE, f"kernel {kernel} has no NVIDIA module"))
    return found


def _toolkit_warnings(host: Host) -> list[dict[str, str]]:
    found = []
    version = _document.text(host.facts, "toolkit", "version")
    if _toolkit.is_unsafe(version):
        found.append(warning(_plan_codes.TOOLKIT_UNSAFE, f"NVIDIA Container Toolkit {version} is open to {_toolkit.FIRST_SAFE_CVE}"))
    if _document.flag(host.facts, "toolkit", "lockstep") is False:
        found.append(warning(_plan_codes.TOOLKIT_MIXED, "the packages of the NVIDIA Container Toolkit have different versions"))
    for spec in _cdi_specs(host):
        if _document.flag(spec, "stale"):
            reasons = ", ".join(_document.texts(spec, "reasons")) or "no reason given"
            found.append(warning(_plan_codes.CDI_SPEC_STALE, f"{spec.get('path')} is out of date ({reasons})"))
    return found


def _cdi_specs(host: Host) -> list[Mapping[str, Any]]:
    return [spec for spec in _document.mappings(host.facts, "toolkit", "cdi", "specs") if spec.get("kind") == _toolkit.CDI_KIND]
