# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a driver comes from: the operating systems that can be changed, and the repositories that have drivers for them.

Which branches a distribution has is an expectation only, read from its package lists on 2026-11-22; the repository has the last word.
NVIDIA's repositories and the names of their keys are those of the driver installation guide and of NVIDIA's own .repo files. Of the
fingerprints the one of 3BF863CC and that of D42D0685 were found in several independent places, that of 8793F200 in one; those of the other
keys are not known here, and are never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import AUTO, DISTRIBUTION, NVIDIA, option_of
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block
from ansible_collections.difyops.gpu.plugins.plugin_utils._package_sources import APT, DNF, Repository

if TYPE_CHECKING:
    from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
    from ansible_collections.difyops.gpu.plugins.plugin_utils._host import Host

DEBIAN, UBUNTU, RHEL = "debian", "ubuntu", "rhel"
TARGETS = "Debian 12 and 13, Ubuntu 22.04, 24.04 and 26.04, Enterprise Linux 9 and 10, and Amazon Linux 2023, on x86_64 and aarch64"

_BASE = "https://developer.download.nvidia.com/compute/cuda/repos"
# What NVIDIA calls the architectures; sbsa is that of Arm servers.
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "sbsa", "arm64": "sbsa"}


class Key(NamedTuple):
    """The key of a repository: the name of its file there, and its fingerprint, None where nobody here knows it."""

    file: str
    fingerprint: str | None


_DEB_KEY = Key("3bf863cc.pub", "EB693B3035CD5710E231E123A4B469963BF863CC")
# apt of Debian 13 refuses the older key, whose own signatures are of SHA-1.
_DEBIAN_13_KEY = Key("8793F200.pub", "02182E60104FCDC26EAE1B8597A5D4CB8793F200")
_RPM_KEY = Key("D42D0685.pub", "610C7B14E068A878070DA4E99CD0A493D42D0685")
_EL_10_KEY = Key("CDF6BA43.pub", None)


class Target(NamedTuple):
    """An operating system whose drivers can be changed.

    `family` is whose package names count; `codename` that of its suites (apt); `directory` that of NVIDIA's repository; `streams` whether
    that has module streams; `branches` those of the distribution's own drivers; `components` where they are; `keyring` what signs them.
    """

    family: str
    manager: str
    directory: str
    key: Key
    codename: str = ""
    streams: bool = False
    branches: frozenset[int] = frozenset()
    components: tuple[str, ...] = ()
    keyring: str = ""
    kernel: str = ""


_NON_FREE = ("contrib", "non-free", "non-free-firmware")
_DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_UBUNTU_KEYRING = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
_ENTERPRISE = ("rhel", "rocky", "almalinux", "centos", "ol")


def _debian(codename: str, directory: str, key: Key, branches: set[int]) -> Target:
    return Target(DEBIAN, APT, directory, key, codename, False, frozenset(branches), _NON_FREE, _DEBIAN_KEYRING)


def _ubuntu(codename: str, directory: str, kernel: str, branches: set[int]) -> Target:
    return Target(UBUNTU, APT, directory, _DEB_KEY, codename, False, frozenset(branches), ("restricted",), _UBUNTU_KEYRING, kernel)


# 525 is no branch of Debian 12 any more: its nvidia-tesla-* packages lead to 535. `kernel` of Ubuntu: the series the release began with.
_TARGETS: dict[tuple[str, str], Target] = {
    ("debian", "12"): _debian("bookworm", "debian12", _DEB_KEY, {470, 535}),
    ("debian", "13"): _debian("trixie", "debian13", _DEBIAN_13_KEY, {535, 550}),
    ("ubuntu", "22.04"): _ubuntu("jammy", "ubuntu2204", "5.15", {390, 418, 470, 545, 580, 595, 615}),
    ("ubuntu", "24.04"): _ubuntu("noble", "ubuntu2404", "6.8", {470, 580, 595, 615}),
    ("ubuntu", "26.04"): _ubuntu("resolute", "ubuntu2604", "7.0", {580, 595, 615})._replace(key=Key("3bf863cc.pub", None)),
    **{(name, "9"): Target(RHEL, DNF, "rhel9", _RPM_KEY, streams=True) for name in _ENTERPRISE},
    **{(name, "10"): Target(RHEL, DNF, "rhel10", _EL_10_KEY) for name in _ENTERPRISE},
    ("amzn", "2023"): Target(RHEL, DNF, "amzn2023", _RPM_KEY, streams=True),
}


def target(host: Host) -> Target | None:
    """Return the operating system of a host, None where its drivers are not changed."""
    name, version = (_document.text(host.facts, "host", "os", key) or "" for key in ("id", "version"))
    if architecture(host) is None:
        return None
    return _TARGETS.get((name, version)) or _TARGETS.get((name, version.partition(".")[0]))


def of_target(host: Host) -> Target:
    """Return the operating system of a host whose drivers can be changed. Raises LookupError where they cannot (see refusal)."""
    found = target(host)
    if found is None:
        raise LookupError("the drivers of this operating system are not changed")
    return found


def architecture(host: Host) -> str | None:
    """Return what NVIDIA's repositories call the architecture of a host, None where they have none for it."""
    return _ARCHITECTURES.get(_document.text(host.facts, "host", "architecture") or "")


def refusal(host: Host) -> Block | None:
    """Return why no driver is changed on this host, whatever is wished (DG773, DG785); None where one can be."""
    if _document.flag(host.facts, "host", "vgpu"):
        message = "the host driver of virtual GPUs (nvidia_vgpu_vfio) is loaded: it belongs to the hypervisor and is left alone"
        remedy = f"set {option_of('state')} to unmanaged; the driver of a hypervisor is changed with the hypervisor's own means"
        return Block("driver", _plan_codes.VGPU_HOST, message, remedy)
    if target(host) is not None:
        return None
    message = f"no driver is changed on {system(host)}: driver changes are for {TARGETS}"
    remedy = f"install the driver by other means and set {option_of('state')} to unmanaged, or move the host to one of these systems"
    return Block("driver", _plan_codes.NOT_A_TARGET, message, remedy)


def system(host: Host) -> str:
    """Return the operating system for sentences: its name, else id and version, and the architecture."""
    facts = _document.mapping(host.facts, "host", "os")
    known = [_document.text(facts, key) for key in ("id", "version")]
    name = _document.text(facts, "name") or " ".join(text for text in known if text) or "an unknown operating system"
    machine = _document.text(host.facts, "host", "architecture")
    return f"{name} on {machine}" if machine else name


def choose(host: Host, settings: Settings, branch: int, flavour: str | None) -> str:
    """Return the source of a driver: "distribution" or "nvidia".

    Without a wish it is that of the installed driver while it has the branch; else the distribution's own where it has drivers: Debian
    where the release has the branch, Ubuntu always, since its modules are signed.
    """
    if settings.source != AUTO:
        return settings.source
    here = target(host)
    if here is None or here.manager == DNF:
        return NVIDIA
    origin = _document.text(host.facts, "driver", "installed", "origin")
    if origin == "nvidia":
        return NVIDIA
    return DISTRIBUTION if here.family == UBUNTU or branch in here.branches else NVIDIA


def offered(host: Host, source: str) -> frozenset[int] | None:
    """Return the branches that a source has for this host by our tables, None where they do not tell."""
    here = target(host)
    return here.branches if here is not None and source == DISTRIBUTION else None


def unavailable(host: Host, source: str | None) -> Block | None:
    """Return that a source has no drivers for this operating system at all; None where it may have some."""
    here = target(host)
    if source != DISTRIBUTION or here is None or here.manager == APT:
        return None
    message = f"{option_of('source')} is {DISTRIBUTION}, and {system(host)} has no NVIDIA driver of its own"
    return Block("driver", _plan_codes.NOT_A_TARGET, message, f"set {option_of('source')} to {NVIDIA} or {AUTO}", by_wish=True)


def repository(host: Host, settings: Settings, source: str) -> Repository | None:
    """Return the repository that the host needs beside its own sources; None where there is none to name.

    That is NVIDIA's or a mirror of it; of the distribution only a mirror, whose packages are signed by the distribution's key unless
    another is named.
    """
    here, given = target(host), settings.repository
    if here is None or (source == DISTRIBUTION and not given.url):
        return None
    if source == DISTRIBUTION:
        return Repository(
            given.url, given.suite or here.codename, given.components or " ".join(here.components), given.key, given.fingerprint or None
        )
    url = given.url or f"{_BASE}/{here.directory}/{architecture(host)}/"
    url = url if url.endswith("/") else f"{url}/"
    flat = not given.suite or given.suite.endswith("/")
    # A file on the controller is trusted as it is: whoever runs the play put it there.
    known = None if given.key and "://" not in given.key else here.key.fingerprint
    return Repository(
        url,
        given.suite or "/",
        "" if flat else given.components or "main",
        given.key or f"{url}{here.key.file}",
        given.fingerprint or known,
    )
