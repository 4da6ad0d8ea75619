# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed packages of the NVIDIA driver, its container toolkit and Docker, and what holds them."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, NamedTuple, Optional

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Facts

TOOLKIT = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
_TIMEOUT_S = 30.0
_DPKG = r"${db:Status-Status}\t${Package}\t${Version}\t${Maintainer}\t${db:Status-Want}\t${source:Package}\n"
_RPM = r"installed\t%{NAME}\t%{VERSION}-%{RELEASE}\t%{VENDOR}\n"
_PATTERNS = (
    *("*nvidia*", "libcuda1", "libcudadebugger1", "libnvcuvid1", "libnvoptix1", "libnvsdm*", "nvlsm", "nvlink5*", "cuda-drivers*"),
    *("docker*", "moby-*", "containerd*", "runc"),
)

# Which packages tell the driver's version; the surest first. Most metapackages of Ubuntu only lead to another branch.
_KERNEL = re.compile(
    r"^(nvidia-(\w+-)*kernel-(\w+-)*(dkms|source)|nvidia-dkms(-.+)?|dkms-nvidia(-.+)?|a?kmod-nvidia(-.+)?"
    r"|nvidia-kernel-source(-.+)?|linux-modules-nvidia-[0-9].+)$"
)
_LIBRARY = re.compile(
    r"^(libcuda1|libnvidia-compute(-.+)?|(lib)?nvidia-[\w-]*cuda1|nvidia-driver-cuda-libs|xorg-x11-drv-nvidia-cuda-libs)$"
)
_META = re.compile(
    r"^(nvidia-driver(-\d+)?(-server)?(-open)?|nvidia-tesla(-\d+)?-driver|nvidia-legacy-\d+xx-driver"
    r"|nvidia-open(-\d+)?|cuda-drivers(-\d+)?|nvidia-headless-.+|xorg-x11-drv-nvidia)$"
)
# All that comes with a driver and has to be of its version, or is used by nothing else. Not what uses a driver: the container
# toolkit, CUDA, settings, and the libraries for EGL that have versions of their own.
_PART = re.compile(
    r"^(?!.*-dev(-|$)|nvidia-driver-(assistant|pinning))"
    r"(lib(cuda1|cudadebugger1|nvcuvid1|nvoptix1|nvsdm(-.+)?)|libnvidia-(?!container|egl-(wayland|gbm|x)).+|lib(egl|gles|gl1|glx)-nvidia.+"
    r"|nvidia-(alternative|compute-utils|cuda-mps|driver|egl|fabric-?manager|firmware|headless|imex|kernel|kmod|legacy|libopencl1|libXNVCtrl|modprobe"
    r"|open|opencl-common|opencl-icd|persistenced|powerd|smi|suspend-common|tesla|utils|vdpau-driver|vulkan)(-.+)?"
    r"|(xserver-xorg-video|xorg-x11|xorg-x11-drv|linux-objects|linux-signatures)-nvidia(-.+)?|firmware-nvidia-(.+-)?gsp"
    r"|nvlsm|nvlink5(-.+)?|cuda-drivers(-.+)?)$"
)
# Docker with its plugins and what it runs containers with, from distributions, Docker and Microsoft.
_ENGINE = re.compile(
    r"^(docker(\.io|-(ce|cli|engine)(-.+)?|-(buildx|compose|model|scan|app)(-(plugin|v2))?)?|moby-(engine|cli|buildx|compose|containerd|runc)"
    r"|containerd(\.io)?|runc)$"
)
# What carries the engine, by who makes it.
_ENGINES = {"docker-ce": "docker", "docker.io": "distribution", "docker": "distribution"}
_PREBUILT = re.compile(r"linux-(modules|objects|signatures)-nvidia-")
# By the text of maintainer or vendor.
_ORIGINS = {"rpm fusion": "rpmfusion", "debian": "debian", "ubuntu": "ubuntu", "nvidia": "nvidia", "negativo17": "negativo17"}
# The value of a rule that keeps a version, not only a branch (580.*). From priority 1000 on apt even goes back to it.
_HOLDS = {"hold": "", "preference": r"version .*\d\\?\.\d.* priority \d", "versionlock": r"[^!<>]*\d\.\d", "exclude": "$"}
# Of a rule: kind, name, value; and in which file it stands.
Rule = tuple[str, str, Optional[str]]
Rules = list[tuple[str, str, Optional[str], Optional[str]]]


class Package(NamedTuple):
    """An installed package: ``broken`` when not fully, ``held`` when dpkg is to keep it; ``state`` in dpkg's words."""

    name: str
    version: str
    maker: str
    broken: bool
    held: bool = False
    source: str = ""
    state: str = ""


class PackagesUnknown(Exception):  # noqa: N818
    """The package manager could not be asked. Its text is a sentence."""


def ask(root: str, family: str | None, search: Sequence[str] = ()) -> Callable[[], list[Package]]:
    """Start asking for packages and return the function that waits for them. Both raise PackagesUnknown."""
    database = os.path.join(root, "var/lib/dpkg")
    managers = {
        "dpkg-query": [f"--admindir={database}", "--show", f"--showformat={_DPKG}"],
        "rpm": ["--root", os.path.abspath(root), "--query", "--all", f"--queryformat={_RPM}"],
    }
    for name in sorted(managers, reverse=family == "rhel"):
        program = _command.find(name, search)
        if program and (name == "rpm" or os.path.exists(os.path.join(database, "status"))):
            try:
                running = _command.start([program, *managers[name], *_PATTERNS], _TIMEOUT_S)
            except _command.CannotStart as error:
                raise PackagesUnknown(str(error)) from error
            # 1 of dpkg-query says that a pattern matched nothing.
            return lambda: _answer(name, running.result(), (0,) if name == "rpm" else (0, 1))
    raise PackagesUnknown("Neither dpkg-query nor rpm is on this host, so nobody knows what is installed.")


def _answer(name: str, result: _command.Result, well: Sequence[int]) -> list[Package]:
    if result.timed_out:
        raise PackagesUnknown(f"{name} did not answer within {_TIMEOUT_S:g} seconds.")
    if result.rc not in well:
        raise PackagesUnknown(f"{name} failed: {' '.join(result.err.split())[:200]}")
    return parse(result.out)


def parse(text: str) -> list[Package]:
    """Return the packages of an answer, without those of which only configuration is left."""
    packages = set()
    for line in text.splitlines():
        state, name, version, maker, want, source = [*line.split("\t"), "", "", "", "", ""][:6]
        if name and version and state not in ("not-installed", "config-files"):
            packages.add(Package(name, version, maker, state not in ("installed", "triggers-pending"), want == "hold", source, state))
    return sorted(packages)


def upstream(version: str) -> str | None:
    """Return the upstream part of a version: 1.17.8 of 1:1.17.8-1."""
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)+)", version)
    return match[1] if match else None


def driver_packages(packages: Iterable[Package]) -> list[Package]:
    """Return the packages that make the driver, in the order above."""
    known = list(packages)
    return [package for pattern in (_KERNEL, _LIBRARY, _META) for package in known if pattern.match(package.name)]


def is_kernel(name: str) -> bool:
    """Say whether a package has kernel modules, or builds them."""
    return _KERNEL.match(name) is not None


def is_prebuilt(name: str) -> bool:
    """Say whether a package has kernel modules that the distribution built, or leads to them: its version is that of a kernel."""
    return _PREBUILT.match(name) is not None


def is_part(name: str) -> bool:
    """Say whether a package belongs to a driver, so that it is pinned, replaced and removed with it."""
    return any(pattern.match(name) for pattern in (_KERNEL, _LIBRARY, _META, _PART))


def is_engine(package: Package) -> bool:
    """Say whether a package belongs to Docker; the one that Debian and Ubuntu had under that bare name is another program."""
    return _ENGINE.match(package.name) is not None and not (package.name == "docker" and package.source)


def parts(packages: Iterable[Package]) -> list[Package]:
    """Return all packages of the driver, sorted: those that tell its version and those that only come with it."""
    return sorted(package for package in packages if is_part(package.name))


def driver_version(version: str | None) -> str | None:
    """Return the upstream part of a version that has the form of a driver's; that of prebuilt modules is their kernel's."""
    found = upstream(version or "") or ""
    return found if re.fullmatch(r"[0-9]{3}(\.[0-9]{1,3}){1,2}", found) else None


def told_version(packages: Iterable[Package], surely: bool = False) -> str | None:
    """Return the driver's version that packages tell, those that may only lead to another branch not where ``surely``.

    One that is only there to bring a newer branch bears its own, older version.
    """
    known = list(packages)
    for kind in (_KERNEL, _LIBRARY) if surely else (_KERNEL, _LIBRARY, _META):
        versions = filter(None, (driver_version(package.version) for package in known if kind.match(package.name)))
        newest = max(versions, key=lambda version: [int(number) for number in version.split(".")], default=None)
        if newest:
            return newest
    return None


def broken(packages: Iterable[Package]) -> list[Facts]:
    """Return the packages that are not fully installed; rpm leaves a second version of one whose upgrade was cut off."""
    known = sorted(packages)
    versions: dict[str, set[str]] = {}
    for package in known:
        versions.setdefault(package.name, set()).add(package.version)
    states = [(package, package.state if package.broken else "duplicate" if len(versions[package.name]) > 1 else "") for package in known]
    return [{"name": package.name, "version": package.version, "state": state} for package, state in states if state or package.broken]


def driver(packages: Iterable[Package], pins: Sequence[Facts] = ()) -> Facts | None:
    """Return the installed driver; None when no package carries one. A library alone is no driver."""
    every = list(packages)
    known = driver_packages(every)
    carriers = next(filter(None, ([package for package in known if kind.match(package.name)] for kind in (_KERNEL, _META))), None)
    if not carriers:
        return None
    return {
        "version": told_version(known),
        "flavour": "open" if any("open" in package.name.split("-") for package in carriers) else "proprietary",
        "origin": next((origin for package in known for key, origin in _ORIGINS.items() if key in package.maker.lower()), None),
        "packages": [{"name": package.name, "version": package.version} for package in parts(every)],
        "pinned": pinned(every, pins),
        "pins": list(pins),
    }


def pinned(packages: Iterable[Package], pins: Sequence[Facts]) -> bool:
    """Say whether a rule holds each package of the driver at its version; prebuilt modules need the driver's version by themselves."""
    return kept([package for package in parts(packages) if not is_prebuilt(package.name)], pins)


def kept(known: Sequence[Package], pins: Sequence[Facts]) -> bool:
    """Say whether a rule holds each of some packages at its version; no packages are not held."""
    holding = [pin["name"] for pin in pins if re.match(_HOLDS.get(pin["kind"], "$."), pin["value"] or "")]
    return bool(known) and all(any(matches(name, package) for name in holding) for package in known)


def matches(pattern: str, package: Package) -> bool:
    """Say whether a rule's name, glob or /regular expression/ means a package."""
    pattern, name = re.sub(r"(?<=.):\w+$", "", pattern), package.name
    if pattern.startswith("src:"):
        pattern, name = pattern[4:], package.source
    if pattern[:1] != "/":
        return fnmatch.fnmatchcase(name, pattern.lower())
    try:
        return re.search(pattern[1:].rstrip("/"), name, re.IGNORECASE) is not None
    except re.error:
        return False


def toolkit(packages: Iterable[Package], found: Rules) -> Facts:
    """Return the toolkit's packages: versions, the upstream one, whether they are alike, and what holds them."""
    known = [package for package in packages if package.name in TOOLKIT]
    # NVIDIA's pinning package for the driver means every name with nvidia in it, and by its versions the driver alone.
    found = [rule for rule in found if not (rule[0] == "preference" and re.match(r"version [^0-9]*[0-9]{3}\b", rule[2] or ""))]
    versions = {package.name: package.version for package in known}
    present = list(map(upstream, filter(None, map(versions.get, TOOLKIT))))
    holding = pins(found, known)
    return {
        "packages": {name: versions.get(name) for name in TOOLKIT},
        "version": present[0] if present else None,
        "lockstep": len(set(present)) == 1 if present else None,
        "pinned": kept(known, holding) if known else None,
        "pins": holding,
        "broken": broken(known),
    }


def engine(packages: Iterable[Package], found: Rules) -> Facts:
    """Return Docker's packages, where the one with the engine comes from, and what holds them."""
    known = [package for package in packages if is_engine(package)]
    return {
        "packages": [{"name": package.name, "version": package.version} for package in known],
        "origin": next((_ENGINES[package.name] for package in known if package.name in _ENGINES), None),
        "pins": pins(found, known),
        "broken": broken(known),
    }


def rules(root: str, family: str | None) -> Rules:
    """Return all rules of the package manager that stand in files; a file that cannot be read has none."""
    return [
        (*rule, f"/{directory}/{file}")
        for directory, pattern, told in (_DNF if family == "rhel" else _APT)
        for file in _sysfs.listing(root, directory)
        if re.fullmatch(pattern, file)
        for rule in told(_sysfs.read(root, directory, file) or "")
    ]


def pins(found: Rules, known: Sequence[Package]) -> list[Facts]:
    """Return the rules that concern one of some packages, the holds of the package manager first."""
    every: Rules = [("hold", package.name, None, None) for package in known if package.held]
    mine = dict.fromkeys(rule for rule in [*every, *found] if any(_concerns(rule[0], rule[1], package) for package in known))
    return [dict(zip(("kind", "name", "value", "path"), rule)) for rule in mine]


def _concerns(kind: str, name: str, package: Package) -> bool:
    if kind == "blocklist":
        with contextlib.suppress(re.error):
            return re.match(name, package.name) is not None
        return False
    if kind == "module_stream":
        return is_part(package.name)
    whole = package._replace(name=f"{package.name}-{package.version}")
    return any(matches(name, form) for form in (package, whole))


def preferences(text: str) -> Iterator[Rule]:
    """Give the rules of apt preferences that want one version above all, or forbid any."""
    for stanza in re.split(r"\n[ \t]*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = {key.lower(): value for key, value in re.findall(r"(?m)^([\w-]+)[ \t]*:[ \t]*(.*(?:\n[ \t].*)*)", stanza)}
        pin = " ".join(fields.get("pin", "").split())
        number = re.match(r"[+-]?[0-9]{1,5}", fields.get("pin-priority", ""))
        priority = int(number[0]) if number else 0
        version = pin.startswith("version ")
        for name in fields.get("package", "").split():
            # A version of every package there is means nothing to apt.
            if ((pin and priority < 0) or (version and priority >= 990)) and not (version and name == "*"):
                yield "preference", name, f"{pin}, priority {priority}"


def blocklist(text: str) -> Iterator[Rule]:
    """Give what unattended-upgrades leaves alone, as regular expressions."""
    text = re.sub(r"(?m)^\s*(//|#).*", "", text)
    for entries in re.findall(r'(?i)\bPackage-Blacklist\s*(?:::)?\s*("[^"]*"|\{[^}]*)', text):
        yield from (("blocklist", name, None) for name in re.findall(r'"([^"\n]+)"', entries))


def versionlock(text: str) -> Iterator[Rule]:
    """Give the locks of dnf 4; those with an exclamation mark are versions to avoid."""
    for avoid, pattern in re.findall(r"(?m)^\s*(!?)([^#!\s]+)", text):
        name, version = _split(pattern)
        yield "versionlock", name, f"!{version or '*'}" if avoid else version


def versionlock5(text: str) -> Iterator[Rule]:
    """Give the locks of dnf 5, whose conditions must all be true."""
    for block in text.split("[[packages]]")[1:]:
        fields = re.findall(r"""(?m)^\s*(name|comparator|value)\s*=\s*["']([^"'\n]*)""", block)
        signs, values = ([value for key, value in fields if key == wanted] for wanted in ("comparator", "value"))
        value = " and ".join(value if sign == "=" else f"{sign} {value}" for sign, value in zip(signs, values))
        yield from (("versionlock", name, value) for key, name in fields if key == "name")


def excludes(text: str) -> Iterator[Rule]:
    """Give what dnf leaves out: everywhere, or (then there is a value) of one repository or certain versions."""
    for section, fields in _sections(text):
        for pattern in re.findall(r"[^\s,]+", f"{fields.get('exclude', '')},{fields.get('excludepkgs', '')}"):
            name, version = _split(pattern)
            yield "exclude", name, version if section == "main" else section


def streams(text: str) -> Iterator[Rule]:
    """Give the stream of a dnf module that is enabled, or that the module is disabled."""
    for name, fields in _sections(text):
        if fields.get("state") in ("enabled", "disabled"):
            yield "module_stream", name, fields.get("stream") if fields["state"] == "enabled" else "disabled"


def _split(pattern: str) -> tuple[str, str | None]:
    """Return name and version of a pattern; a number without a dot or star belongs to the name."""
    match = re.fullmatch(r"(.+?)-((?:[0-9]+:)?[0-9]+[.*].*)", pattern)
    return (match[1], match[2]) if match else (pattern, None)


def _sections(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for section, body in re.findall(r"(?m)^\[(.+)\](.*(?:\n(?!\[).*)*)", text):
        yield section, dict(re.findall(r"(?m)^(\w+)[ \t]*=[ \t]*(.*(?:\n[ \t].*)*)", body))


# apt passes over names with other endings or characters.
_APT = (
    ("etc/apt", "preferences", preferences),
    ("etc/apt/preferences.d", r"[\w:-]+|[\w:-][\w:.-]*\.pref", preferences),
    ("etc/apt/apt.conf.d", r"[\w:-]+|[\w:-][\w:.-]*\.conf", blocklist),
)
_DNF = (
    ("etc/dnf/plugins", r"versionlock\.list", versionlock),
    ("etc/dnf", r"versionlock\.toml", versionlock5),
    ("etc/dnf", r"dnf\.conf", excludes),
    ("etc/yum.repos.d", r".+\.repo", excludes),
    ("etc/dnf/modules.d", r".*nvidia.*\.module", streams),
)
