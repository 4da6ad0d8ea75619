# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host: distribution, firmware, kernels and their NVIDIA modules, the driver's services, and whether a reboot is due."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package, upstream

_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# The owner's keys as shim hands them to the kernel (long lists in several variables), and the firmware's own.
_TRUSTED = re.compile("MokListRT[0-9]*-605dab50-e046-4300-abb6-3dd810dd8b23|db-d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_DKMS_KEY, _UBUNTU_KEY = "/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der"
_FAMILIES = {"debian": "debian", "ubuntu": "debian", "rhel": "rhel", "fedora": "rhel", "centos": "rhel"}
# Debian names the module after its package.
_MODULE = re.compile(r"nvidia(-current|-tesla(-\d+)?|-legacy-\d+xx)?(-open)?\.ko(\.(xz|zst|gz))?")
_PLACES = ("updates", "extra", "weak-updates", "kernel/nvidia*", "kernel/drivers/video")
_FLAVOURS = {"NVIDIA": "proprietary", "Dual MIT/GPL": "open"}
# On Ubuntu the persistence daemon comes with nvidia-smi.
_UNITS = {
    "nvidia-fabricmanager.service": r"nvidia-fabric-?manager(-\d+)?",
    "nvidia-persistenced.service": r"nvidia-persistenced|nvidia-compute-utils(-\d+(-server)?)?",
}
# Of the toolkit (since 1.18) and the engine.
_OTHERS = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service", "docker.service")
_REFRESH_SETTINGS = "etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"
# What needs no further systemctl enable: a static unit is started by something else, as Ubuntu's persistence daemon by udev.
_AT_BOOT = ("enabled", "static", "alias", "indirect", "generated")


def facts(root: str) -> Facts:
    """Return what does not change while the host runs."""
    system = os.uname()
    following = next_kernel(root)
    told = distribution(_sysfs.read(root, "etc/os-release") or _sysfs.read(root, "usr/lib/os-release") or "")
    return {
        "os": told,
        "architecture": system.machine,
        "kernel": {"running": system.release, "next": following, "headers": headers(root, (system.release, following))},
        "secure_boot": secure_boot(root),
        "dkms_key": dkms_key(root, told["id"]),
        "vgpu": _sysfs.module_loaded(root, "nvidia_vgpu_vfio"),
        "virtualization": _virtualization(),
        "nouveau_loaded": _sysfs.module_loaded(root, "nouveau"),
        "nova_core_loaded": _sysfs.module_loaded(root, "nova_core"),
        "nvswitches": len(_sysfs.devices(root, "0x0680")),
    }


def distribution(text: str) -> Facts:
    """Return what an os-release file says; None for what it does not."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if sign and not key.startswith("#"):
            try:
                values[key] = " ".join(shlex.split(value))
            except ValueError:  # an unpaired quote
                continue
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    return {
        "id": values.get("ID") or None,
        "version": values.get("VERSION_ID") or None,
        "family": next((_FAMILIES[name] for name in names if name in _FAMILIES), None),
        "name": values.get("PRETTY_NAME") or None,
    }


def secure_boot(root: str) -> bool | None:
    """Say whether Secure Boot is on; None when it cannot be known, as in a container."""
    if "efi" not in _sysfs.listing(root, "sys/firmware"):
        return False if _sysfs.listing(root, "sys/firmware") else None
    try:
        with open(os.path.join(root, "sys/firmware/efi/efivars", _SECURE_BOOT), "rb") as file:
            variable = file.read(5)
    except OSError:
        return None
    # Four bytes of attributes, then the value.
    return variable[4] == 1 if len(variable) == 5 else None


def headers(root: str, kernels: Iterable[str | None]) -> list[str]:
    """Return those of the kernels whose build tree is there, which is what a module is built with."""
    found = []
    for kernel in filter(None, dict.fromkeys(kernels)):
        tree = os.path.join(root, "lib/modules", kernel, "build")
        # An absolute link is meant from the root of that file system.
        with contextlib.suppress(OSError):
            tree = os.path.join(root, os.readlink(tree).lstrip("/")) if os.readlink(tree)[:1] == "/" else tree
        if os.path.exists(os.path.join(tree, "Makefile")):
            found.append(kernel)
    return found


def dkms_key(root: str, distribution_id: str | None) -> Facts | None:
    """Return path and state of the certificate that DKMS signs with; None where it has none."""
    settings = [os.path.join("etc/dkms/framework.conf.d", name) for name in _sysfs.listing(root, "etc/dkms/framework.conf.d")]
    text = "\n".join(_sysfs.read(root, name) or "" for name in ("etc/dkms/framework.conf", *settings))
    named = re.findall(r"""(?m)^[ \t]*mok_certificate=["']?(/[^"'\s$]+)""", text)[-1:]
    # Ubuntu's DKMS takes the key of shim's package.
    usual = (_UBUNTU_KEY, _DKMS_KEY) if distribution_id == "ubuntu" else (_DKMS_KEY, _UBUNTU_KEY)
    for path in named or usual:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            try:
                with open(os.path.join(root, path.lstrip("/")), "rb") as file:
                    certificate = file.read(65536)
            except PermissionError:
                certificate = b""
            return {"path": path, "enrolled": _trusted(root, certificate) if certificate else None}
    return None


def _trusted(root: str, certificate: bytes) -> bool | None:
    """Say whether the firmware trusts a certificate, in DER; None when its lists cannot be read."""
    place = os.path.join(root, "sys/firmware/efi/efivars")
    paths = [os.path.join(place, name) for name in _sysfs.listing(place) if _TRUSTED.fullmatch(name)]
    try:
        with contextlib.ExitStack() as files:
            lists = [files.enter_context(open(path, "rb")).read() for path in paths]
    except OSError:
        return None
    return any(certificate in content for content in lists) if lists else None


def _virtualization() -> str | None:
    program = _command.find("systemd-detect-virt")
    with contextlib.suppress(_command.CannotStart):
        # Ends with 1 on bare metal, where it says none.
        return _command.run([program], 5.0).out.strip() or None if program else None
    return None


class Entry(NamedTuple):
    """An entry of a boot menu: title and id, its kernel if it has one, its submenu."""

    names: list[str]
    kernels: list[str]
    entries: list[Any]


def next_kernel(root: str) -> str | None:
    """Return the kernel that boots next; None when nobody can tell."""
    homes = ["boot/grub", "boot/grub2", *glob.glob(os.path.join(root, "boot/efi/EFI/*"))]
    environment = dict(line for home in homes for line in re.findall(r"(?m)^(\w+)=(.+)", _sysfs.read(root, home, "grubenv") or ""))
    text = _sysfs.read(root, "boot/grub2/grub.cfg") or _sysfs.read(root, "boot/grub/grub.cfg")
    entries = menu(text or "")
    defaults = re.findall(r"""set default=["']?([^"'\n]*)""", text or "")
    if text is None or "blscfg" in text:
        places = (os.path.join(root, place, "loader") for place in ("boot", "efi", "boot/efi"))
        entries = next(filter(None, map(_loader, places)), []) + entries
    once = environment.get("next_entry") if text is None or "${next_entry}" in defaults else None
    default = next((value for value in reversed(defaults) if value != "${next_entry}"), "${saved_entry}")
    default = once or (environment.get("saved_entry", "") if default == "${saved_entry}" else default)
    return chosen(entries, default) if entries else _settled(root, environment)


def menu(text: str) -> list[Entry]:
    """Return the menu of a grub.cfg."""
    stack = [Entry([], [], [])]
    for line in text.splitlines():
        word = (line.split() or [""])[0]
        if word in ("menuentry", "submenu", "function"):
            entry = Entry([one or two for one, two in re.findall(r"'([^']*)'|\"([^\"]*)\"", line)], [], [])
            if word != "function":
                stack[-1].entries.append(entry)
            stack.append(entry)
        elif word == "}":
            stack = stack[:-1] or stack
        elif word.startswith("linux"):
            stack[-1].kernels.extend(re.findall(r"/vmlinu[xz]-(\S+)", line))
    return stack[0].entries


def chosen(entries: list[Entry], default: str) -> str | None:
    """Return the kernel of a number, title or id, "1>2" in a submenu; GRUB takes the first entry where there is none."""
    first, _sign, rest = default.partition(">")
    for number, entry in enumerate(entries):
        if first in (str(number), *entry.names):
            return chosen(entry.entries, rest) if rest else next(iter(entry.kernels), None)
    return next(iter(entries[0].kernels), None) if entries else None


def _loader(directory: str) -> list[Entry]:
    """Return the entries that lie in files of their own: the default of systemd-boot, then the newest first."""
    found = []
    for name in _sysfs.listing(directory, "entries"):
        fields = dict(re.findall(r"(?m)^(title|version)\s+(.*\S)", _sysfs.read(directory, "entries", name) or ""))
        if "version" in fields:
            found.append(Entry([name.rpartition(".")[0], fields.get("title", "")], [fields["version"]], []))
    found.sort(key=lambda entry: version_key(entry.names[0]), reverse=True)
    wanted = re.findall(r"(?m)^default\s+(\S+)", _sysfs.read(directory, "loader.conf") or "")
    return sorted(found, key=lambda entry: not any(fnmatch.fnmatchcase(f"{entry.names[0]}.conf", pattern) for pattern in wanted))


def _settled(root: str, environment: dict[str, str]) -> str | None:
    """Return what GRUB's settings say; its menu is for root alone to read."""
    names = "\n".join(_sysfs.listing(root, "boot"))
    kernels = sorted(re.findall(r"(?m)^vmlinu[xz]-(.+)(?<!~)(?<!\.old)(?<!\.dpkg-new)$", names), key=version_key, reverse=True)
    text = _sysfs.read(root, "etc/default/grub")
    if text is None:
        return None
    default = (re.findall(r"(?m)^GRUB_DEFAULT=[\"']?([^\"'\n]*)", text) or ["0"])[-1]
    default = environment.get("next_entry") or (environment.get("saved_entry", "?") if default == "saved" else default)
    return next((kernel for kernel in kernels if default == "0" or kernel in default), None)


def version_key(version: str) -> list[tuple[bool, int, str]]:
    """Return what versions of kernels sort by."""
    return [(bool(number), int(number or 0), word) for number, word in re.findall(r"([0-9]+)|([A-Za-z]+)", version)]


def ask_modules(root: str, kernels: Iterable[str | None], timeout: float) -> Callable[[], dict[str, Facts | None]]:
    """Start looking at modules; the function returned waits and tells that of each kernel, None for one without."""
    files = {kernel: _file(os.path.join(root, "lib/modules", kernel)) for kernel in kernels if kernel}
    program = _command.find("modinfo")
    running = None
    with contextlib.suppress(_command.CannotStart):
        running = _command.start([program, *filter(None, files.values())], timeout) if program and any(files.values()) else None

    def answer() -> dict[str, Facts | None]:
        told = parse_modinfo(running.result().out if running else "")
        facts: Facts = dict.fromkeys(("version", "flavour", "signer"))
        return {
            kernel: {**facts, **told.get(file, {}), "path": "/" + os.path.relpath(file, root)} if file else None
            for kernel, file in files.items()
        }

    return answer


def _file(directory: str) -> str | None:
    """Return the module's file: the one that modprobe takes, else any where such modules are put."""
    paths = (os.path.join(directory, name) for name in _names(directory) if _MODULE.fullmatch(os.path.basename(name)))
    return next(filter(os.path.isfile, paths), None)


def _names(directory: str) -> Iterator[str]:
    with contextlib.suppress(OSError), open(os.path.join(directory, "modules.dep"), encoding="utf-8", errors="replace") as file:
        yield from (line.partition(":")[0] for line in file if "nvidia" in line)
    for place in _PLACES:
        yield from glob.iglob(os.path.join(glob.escape(directory), place, "**", "nvidia*"), recursive=True)


def parse_modinfo(text: str) -> dict[str, Facts]:
    """Return what modinfo says, by file."""
    files: dict[str, Facts] = {}
    facts: Facts = {}
    for key, value in re.findall(r"(?m)^(filename|version|license|signer):[ \t]*(.*\S)", text):
        if key == "filename":
            facts = files.setdefault(value, {})
        elif key == "license":
            facts["flavour"] = _FLAVOURS.get(value)
        else:
            facts[key] = value
    return files


def ask_units(timeout: float) -> Callable[[], dict[str, Facts]]:
    """Start asking systemd; the function returned waits for the answer, which is empty where systemd does not run."""
    program = _command.find("systemctl")
    with contextlib.suppress(_command.CannotStart):
        if program:
            running = _command.start([program, "show", "--property=Id,LoadState,ActiveState,UnitFileState", *_UNITS, *_OTHERS], timeout)
            return lambda: parse_units(running.result().out)
    return dict


def parse_units(text: str) -> dict[str, Facts]:
    """Return the properties of each unit in an answer of systemctl show."""
    blocks = (dict(re.findall(r"(?m)^(\w+)=(.*)", block)) for block in text.split("\n\n"))
    return {block["Id"]: block for block in blocks if "Id" in block}


def services(packages: Sequence[Package], driver_version: str | None, nvswitches: int, units: dict[str, Facts]) -> tuple[Facts, Facts]:
    """Return the facts of fabric manager and persistence daemon; ``units`` are those that ask_units() tells in the end."""
    found = []
    for unit, pattern in _UNITS.items():
        version = next((package.version for package in packages if re.fullmatch(pattern, package.name)), None)
        state = units.get(unit, {})
        # A driver from NVIDIA's own installer has no package.
        installed = version is not None or state.get("LoadState") == "loaded"
        running = state.get("ActiveState") == "active" if units else None
        enabled = state.get("UnitFileState") in _AT_BOOT if units else None
        found.append((upstream(version or ""), {"installed": installed, "running": running, "enabled": enabled}))
    (version, manager), (_version, persistenced) = found
    same = version == driver_version if version and driver_version else None
    return {**manager, "version": version, "matches_driver": same, "needed": nvswitches > 0}, persistenced


def unit(root: str, units: dict[str, Facts], name: str) -> Facts | None:
    """Return whether a unit starts at boot and runs; None where there is none, or systemd cannot be asked."""
    state = units.get(name, {})
    if state.get("LoadState", "not-found") == "not-found":
        return None
    # systemd remembers this one until its next daemon-reload, and roles switch a unit on without any.
    late = state.get("UnitFileState") == "disabled" and glob.glob(os.path.join(glob.escape(root), "etc/systemd/system/*.wants", name))
    return {"enabled": state.get("UnitFileState") in _AT_BOOT or bool(late), "active": state.get("ActiveState") == "active"}


def refresh(root: str, units: dict[str, Facts]) -> Facts | None:
    """Return how the toolkit's units that keep CDI specifications up to date are set up; None where there are none."""
    path, service = (unit(root, units, name) for name in _OTHERS[:2])
    if not (path or service):
        return None
    flags = re.findall(r"(?m)^\s*NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=[\"']?([^\"'\n]*)", _sysfs.read(root, _REFRESH_SETTINGS) or "")
    return {
        "path_enabled": bool(path and path["enabled"]),
        "path_active": bool(path and path["active"]),
        "service_enabled": bool(service and service["enabled"]),
        "feature_flags": re.findall(r"[^\s,]+", flags[-1]) if flags else [],
    }


def reboot(
    root: str, family: str | None, kernel: Facts, loaded: Facts | None, installed: Facts | None, gpus: Iterable[Facts]
) -> tuple[bool | None, list[str]]:
    """Return whether a reboot is due (None when nothing can tell) and the reasons; from the facts of those names."""
    reasons = []
    names: list[str] = []
    if os.path.exists(os.path.join(root, "run/reboot-required")):
        names = sorted(set((_sysfs.read(root, "run/reboot-required.pkgs") or "").split()))
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        reasons.append(f"The package manager asks for a reboot ({shown or 'it names no package'}).")
    following, running = kernel["next"], kernel["running"]
    if following and following != running:
        newer = family == "rhel" and version_key(following) > version_key(running)
        if newer or any(re.match("linux-(image|base|generic)", name) for name in names):
            reasons.append(f"Kernel {following} boots next; {running} is running.")
    versions = [part["version"] for part in (installed, loaded) if part and part["version"]]
    if len(set(versions)) == 2:
        reasons.append(f"Driver {versions[0]} is installed; {versions[1]} is loaded until the next boot.")
    others = [gpu for gpu in gpus if installed and gpu["bound_driver"] in ("nouveau", "nova_core", "nova-core")]
    reasons += [f"{gpu['bound_driver']} holds the GPU at {gpu['pci_address']}; NVIDIA's driver gets it at the next boot." for gpu in others]
    # Debian's package manager leaves a flag; elsewhere its absence says nothing.
    known = reasons or following or len(versions) == 2 or (family == "debian" and os.path.isdir(os.path.join(root, "run")))
    return bool(reasons) if known else None, reasons
