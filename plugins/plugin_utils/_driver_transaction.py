# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a host could get to what it is given: the packages with their versions, or why the driver that is wanted cannot come."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _document,
    _driver_module,
    _driver_names,
    _driver_query,
    _package_answer,
    _plan_codes,
    _versions,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_names import FABRIC_MANAGER, HEADERS, PINNING, Wanted
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import DISTRIBUTION, DKMS, NVIDIA, PREBUILT, PRESENT, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_source import UBUNTU
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_answer import Answer, few
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, DRIVER

if TYPE_CHECKING:
    from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
    from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

# The package dkms, not one of modules for it.
_DKMS_ITSELF = re.compile(r"(?<![\w-])dkms(?![\w-])")
# By NVIDIA's installation guide; the name of Oracle's package is from memory.
_EPEL = (
    "enable EPEL, which has dkms for Enterprise Linux: dnf install epel-release (Oracle Linux: oracle-epel-release-el9 or -el10; RHEL: the "
    "package of that name from the EPEL project), then run again"
)
Package = dict[str, Any]


@dataclass(frozen=True)
class Transaction:
    """What the package manager does. `pinned` tells that NVIDIA's own package pins the driver, `stream` the module stream (dnf)."""

    version: str | None = None
    install: tuple[Package, ...] = ()
    remove: tuple[Package, ...] = ()
    specs: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    stream: Mapping[str, Any] | None = None
    download: int | None = 0
    kernel_modules: str | None = None
    pinned: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the form that the plan has."""
        return {
            "install": [dict(package) for package in self.install],
            "remove": [dict(package) for package in self.remove],
            "specs": list(self.specs),
            "first": list(self.first),
            "stream": dict(self.stream) if self.stream is not None else None,
            "download_mib": self.download,
        }


@dataclass(frozen=True)
class Result:
    """A transaction; with `blocks` None, and what is in its way."""

    transaction: Transaction | None
    blocks: tuple[Block, ...] = ()


class _Asked(NamedTuple):
    wanted: Wanted
    version: str | None
    names: list[str]

    @property
    def driver(self) -> str:
        """The driver for sentences."""
        flavour = f" with the {self.wanted.flavour} kernel modules" if self.wanted.flavour else ""
        return f"driver {self.version}{flavour}" if self.version else f"driver of branch {self.wanted.branch}{flavour}"


def hindrances(answer: Answer, finishes: bool) -> list[Block]:
    """Return what keeps the package manager from working at all: its lock, and packages of others that are half installed."""
    return _package_answer.hindrances(DRIVER, "the driver", answer, finishes, _driver_names.is_driver)


def of(host: Host, settings: Settings, wanted: Wanted, query: Mapping[str, Any], answer: Answer) -> Result:
    """Return the transaction of an answer, or why the driver that is wanted cannot come."""
    sets: Sequence[Sequence[str]] = query["alternatives"]
    chosen = list(sets[answer.choice]) if answer.choice is not None and answer.choice < len(sets) else []
    asked = _Asked(wanted, query["version"], chosen)
    wrong = _not_to_be_had(settings, asked, sets, answer) or _another(settings, asked, answer)
    if wrong is not None:
        return Result(None, (wrong,))
    blocks = [
        *_of_others(asked, answer),
        *_fabric_manager(query, asked, answer),
        *_secure_boot(host, asked),
        *_headers(host, settings, asked, answer),
        *_package_answer.space(DRIVER, answer, initramfs=True),
    ]
    return Result(None if blocks else _transaction(host, wanted, query, asked, answer), tuple(blocks))


def not_removable(host: Host, answer: Answer) -> list[Block]:
    """Return why the driver cannot be removed; nothing where it can."""
    if host.installed is None or answer.remove:
        return []
    why = (answer.error or "the package manager names no package that would go").rstrip(".")
    message = f"driver {host.installed} cannot be removed: {why}"
    return [Block("driver", _plan_codes.PACKAGES_FAILED, message, "do what is named, then run again")]


def removal(answer: Answer, reset: bool) -> Transaction:
    """Return the transaction by which the driver goes, and with `reset` the choice of its module stream (dnf)."""
    stream = {"name": _driver_names.MODULE, "stream": None, "reset": True} if reset else None
    remove = tuple({"name": entry["name"], "from": entry["from"]} for entry in answer.remove)
    return Transaction(remove=remove, stream=stream)


def _transaction(host: Host, wanted: Wanted, query: Mapping[str, Any], asked: _Asked, answer: Answer) -> Transaction:
    apt = wanted.target.manager == APT
    pinning = answer.also(PINNING)
    besides = [name for name in (answer.also(purpose) for purpose in query["also"]) if name not in (None, pinning)]
    requested = {*asked.names, *besides}
    specs = [_spec(entry, apt) for entry in answer.install if _driver_names.is_driver(str(entry["name"])) or entry["name"] in requested]
    # dnf takes the version as part of a name: kernel-devel-5.14.0-1.el9.x86_64 brings kernel-devel.
    names = [str(entry["name"]) for entry in answer.install]
    specs += [str(name) for name in besides if name not in names and any(str(name).startswith(f"{other}-") for other in names)]
    install = tuple({"name": entry["name"], "from": entry["from"], "to": entry["to"]} for entry in answer.install)
    remove = tuple({"name": entry["name"], "from": entry["from"]} for entry in answer.remove)
    return Transaction(
        version=answer.version,
        install=install,
        remove=remove,
        specs=tuple(specs),
        first=(pinning,) if pinning else (),
        stream=_stream(host, wanted) if install else None,
        download=answer.mib("download_mib"),
        kernel_modules=_kernel_modules(asked.names),
        pinned=pinning is not None,
    )


def _kernel_modules(names: Sequence[str]) -> str | None:
    if _driver_names.builds(names):
        return DKMS
    return PREBUILT if any(_driver_names.is_prebuilt(name) for name in names) else None


def _spec(entry: Mapping[str, str | None], apt: bool) -> str:
    """Return what the package manager is given for a package: with its version for those of the driver, so that it takes no other."""
    name, version = str(entry["name"]), entry["to"]
    if version is None or not _driver_names.is_driver(name):
        return name
    return f"{name}={version}" if apt else f"{name}-{version}"


def _stream(host: Host, wanted: Wanted) -> dict[str, Any] | None:
    stream = _driver_names.stream(wanted)
    if stream is None:
        return None
    pins = _document.mappings(host.facts, "driver", "installed", "pins")
    others = [pin for pin in pins if pin.get("kind") == "module_stream" and _document.text(pin, "value") != stream]
    return {"name": _driver_names.MODULE, "stream": stream, "reset": bool(others)}


# -- what is in the way ----------------------------------------------------------------------------------------------


def _not_to_be_had(settings: Settings, asked: _Asked, sets: Sequence[Sequence[str]], answer: Answer) -> Block | None:
    """Return why no set of packages can be installed; None where one can."""
    if asked.names:
        return None
    if not sets:
        where = "NVIDIA's repository" if asked.wanted.source == NVIDIA else "the distribution"
        message = f"{option_of('kernel_modules')} is {PREBUILT}, and {where} has no prebuilt modules for this system"
        return Block("driver", _plan_codes.NO_SUCH_DRIVER, message, f"set {option_of('kernel_modules')} to auto or {DKMS}")
    unknown = _package_answer.no_lists(DRIVER, answer)
    if unknown is not None:
        return unknown
    leads = _versions.parse(answer.version)
    elsewhere = leads is not None and leads.major != asked.wanted.branch
    # Why each set of packages cannot be installed is worth reading only where the branch is there.
    why = f" ({answer.error.rstrip('.')})" if answer.error and (elsewhere or asked.wanted.branch in answer.available()) else ""
    return _no_such_driver(settings, asked, answer, f"{asked.driver} cannot be had from {_where(asked)}{why}", seen_through=elsewhere)


def _another(settings: Settings, asked: _Asked, answer: Answer) -> Block | None:
    """Return that the packages lead to another driver than their names say; None where they lead to the one that is wanted."""
    found = _versions.parse(answer.version)
    if found is None:
        message = f"{_first(asked)} can be installed, and nobody can tell which driver that would be"
        return _no_such_driver(settings, asked, answer, message, seen_through=False)
    right = found == _versions.parse(asked.version) if asked.version else found.major == asked.wanted.branch
    if right:
        return None
    message = f"{asked.driver} cannot be had from {_where(asked)}: {_first(asked)} leads to driver {answer.version}"
    return _no_such_driver(settings, asked, answer, message, seen_through=found.major != asked.wanted.branch)


def _first(asked: _Asked) -> str:
    named = [name for name in asked.names if str(asked.wanted.branch) in name.split("-") and not _driver_names.is_prebuilt(name)]
    return (named or asked.names)[0]


def _where(asked: _Asked) -> str:
    return "NVIDIA's repository" if asked.wanted.source == NVIDIA else "the distribution"


def _no_such_driver(settings: Settings, asked: _Asked, answer: Answer, message: str, seen_through: bool) -> Block:
    """Return the block with what can be had instead, newest first. A branch that is only a name for another is not offered."""
    available = answer.available()
    if seen_through:
        available.pop(asked.wanted.branch, None)
    if asked.wanted.source == DISTRIBUTION:
        real = {branch: versions for branch, versions in available.items() if branch in asked.wanted.target.branches}
        available = real or available
    same = available.pop(asked.wanted.branch, [])
    others = [versions[0] for versions in available.values()]
    told = [f"of branch {asked.wanted.branch} there are {few(same)}"] if same else []
    told += [f"of other branches {few(others)}"] if others else []
    have = f"; {'; '.join(told)}" if told else "; no driver at all can be had there"
    if _lacks_dkms(asked, answer):
        return Block("driver", _plan_codes.NO_SUCH_DRIVER, message + have, _EPEL)
    name = "version" if settings.version else "branch"
    remedy = f"set {option_of(name)} to one of these" if told else f"look at {option_of('repository')} and {option_of('source')}"
    if asked.wanted.source == DISTRIBUTION:
        remedy += f", or {option_of('source')} to {NVIDIA}"
    return Block("driver", _plan_codes.NO_SUCH_DRIVER, message + have, remedy)


def _lacks_dkms(asked: _Asked, answer: Answer) -> bool:
    """Whether dkms is what is missing, on a system where only another repository has it: Amazon Linux has it itself."""
    enterprise = asked.wanted.target.directory.startswith("rhel")
    return enterprise and _DKMS_ITSELF.search(answer.error or "") is not None


def _of_others(asked: _Asked, answer: Answer) -> list[Block]:
    """Return that the driver would push packages out that are somebody else's, with their configuration; nothing where it would not."""
    brought = _document.texts(answer.raw, "brought")
    gone = [str(entry["name"]) for entry in answer.remove]
    # NVIDIA's pinning package of another version goes with the driver that it pinned.
    ours = [name for name in gone if _driver_names.is_driver(name) or name.startswith("nvidia-driver-pinning-") or _is_among(name, brought)]
    others = [name for name in gone if name not in ours]
    if not others:
        return []
    message = f"for {asked.driver} packages of others would be removed, which do not go with it: {', '.join(others)}"
    remedy = "see what needs them: remove them yourself, make them fit the new driver, or ask for a driver that they go with"
    return [Block("driver", _plan_codes.HELD_BY_OTHERS, message, remedy)]


def _is_among(name: str, names: Sequence[str]) -> bool:
    """Whether a package is among others, by its name without the architecture."""
    return name.partition(":")[0] in {other.partition(":")[0] for other in names}


def _fabric_manager(query: Mapping[str, Any], asked: _Asked, answer: Answer) -> list[Block]:
    """Return that the fabric manager cannot be had in the driver's version; nothing where it can, or is not asked for."""
    names = query["also"].get(FABRIC_MANAGER)
    if names is None:
        return []
    found = answer.also(FABRIC_MANAGER)
    entry = next((entry for entry in answer.install if entry["name"] == found), None)
    version = _versions.parse((entry["to"] or "").rpartition(":")[2]) if entry is not None else None
    if found is not None and (version is None or version == _versions.parse(answer.version)):
        return []
    what = f"{found} is of version {entry['to']}" if found is not None and entry is not None else f"{names[0]} cannot be had"
    message = f"this host has NVSwitches, which need the fabric manager of exactly driver {answer.version}, and {what}"
    remedy = f"choose another version or set {option_of('source')} to {NVIDIA}; or set {option_of('fabric_manager')} to unmanaged"
    return [Block("driver", _plan_codes.NO_FABRIC_MANAGER, message, remedy)]


def _secure_boot(host: Host, asked: _Asked) -> list[Block]:
    """Return that the firmware would refuse modules that are built on the host; nothing where it would not, or nobody can tell."""
    if _document.flag(host.facts, "host", "secure_boot") is not True or not _driver_names.builds(asked.names):
        return []
    if _driver_module.dkms_is_trusted(host):
        return []
    path = _document.text(host.facts, "host", "dkms_key", "path")
    message = "Secure Boot is on, and the kernel modules would be built on the host and signed with a key that the firmware does not know"
    enrol = f"enrol the key with mokutil --import {path or '/var/lib/dkms/mok.pub'}, reboot and confirm it at the console, then run again"
    ubuntu = f", or use modules that Ubuntu signs ({option_of('source')} {DISTRIBUTION})" if asked.wanted.target.family == UBUNTU else ""
    return [Block("driver", _plan_codes.SECURE_BOOT_REFUSES, message, f"{enrol}{ubuntu}; or turn Secure Boot off")]


def _headers(host: Host, settings: Settings, asked: _Asked, answer: Answer) -> list[Block]:
    """Return that a kernel has no headers to build modules with, and cannot get them."""
    # Who looks after the headers himself was warned already.
    if not _driver_names.builds(asked.names) or settings.kernel_headers != PRESENT:
        return []
    kernels = [kernel for kernel in _driver_query.without_headers(host) if answer.also(f"{HEADERS} {kernel}") is None]
    if not kernels:
        return []
    package = _driver_names.headers(asked.wanted.target, kernels[0])[0]
    message = f"the kernel modules are built on the host, and there are no headers for kernel {' and '.join(kernels)}"
    remedy = f"make {package} available, or boot a kernel whose headers can be had, then run again"
    return [Block("driver", _plan_codes.NO_HEADERS, f"{message}: {package} cannot be had", remedy)]
