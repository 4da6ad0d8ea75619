# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The families of operating systems, and what a driver is on each: sources, versions, and the commands that pins are tried with."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from thorough import ALL

# What the stub repositories have (tests/simhost/repository).
OLD, NEWER, SECOND = "580.95.05", "580.105.08", "595.91.07"
# A real, whole upgrade; and unattended-upgrades, allowed to take everything from everywhere.
APT_UPGRADE = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -q --yes full-upgrade
printf '%s\n' 'Unattended-Upgrade::Origins-Pattern { "origin=*"; };' > /etc/apt/apt.conf.d/99simhost-all-origins
unattended-upgrade --verbose || { rm /etc/apt/apt.conf.d/99simhost-all-origins; exit 1; }
rm /etc/apt/apt.conf.d/99simhost-all-origins
"""
# Debian's own sources, put aside on hosts with stub repositories, so that apt does not look through all of Debian again and again.
SOURCES, ASIDE = "/etc/apt/sources.list", "/var/cache/debian.list"
STUBS_ONLY = f"""
if [ -e /srv/simrepo ] && [ -s {SOURCES} ]; then mv {SOURCES} {ASIDE}; : > {SOURCES}; fi
if [ -e /srv/simrepo ] && [ ! -e /etc/redhat-release ] && [ ! -e /etc/system-release ]; then apt-get -qq update; fi
"""
UPGRADER = f"""
if ! command -v unattended-upgrade > /dev/null; then
    if [ -e {ASIDE} ]; then cp {ASIDE} {SOURCES}; fi
    apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install unattended-upgrades > /dev/null
    if [ -e {ASIDE} ]; then : > {SOURCES}; apt-get -qq update; fi
fi
"""
WITHOUT_LISTS = "rm -rf /var/lib/apt/lists/*\n"
SECTIONS = "sed -i 's/ main$/ main contrib non-free non-free-firmware/' /etc/apt/sources.list\n"
# Without the pins the same upgrade would take a newer driver: else it holds nothing.
APT_WOULD = (
    "apt-get -s --ignore-hold -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null full-upgrade"
    " | grep -E '^Inst (nvidia|libnvidia|libcuda)'"
)
APT_UNPIN = "rm -f /etc/apt/preferences.d/*nvidia*; apt-mark showhold | xargs --no-run-if-empty apt-mark unhold"
DNF_UPGRADE = "dnf --assumeyes --refresh upgrade"
DNF_WOULD = "dnf --assumeno --disableplugin=versionlock upgrade 2>&1 | grep -E 'nvidia'"
DNF_UNPIN = "dnf --quiet versionlock clear"


@dataclass(frozen=True)
class Family:
    """A family of operating systems with one source of drivers.

    Attributes:
        name: of the tests.
        host: in the fleet file.
        wishes: the role's variables that choose the source.
        old: a version of `branch` that is not its newest.
        newer: the newest version of `branch`.
        second: the newest version of `second_branch`.
        watch: regular expression for the names of packages that have the driver's own version.
        first: what is wished for in check mode, on the bare host.
        foretold: words that check mode says of a bare host.
        loads: whether a driver is loaded here; no genuine module can be.
        brings: names of packages that come.
        prepare: shell commands before all.
        would_upgrade: shell command that fails where nothing newer is to be had.
        upgrade: shell commands that upgrade everything.
        unpin: shell command that takes the pins away.
    """

    name: str
    host: str
    wishes: dict[str, Any] = field(default_factory=dict)
    old: str = OLD
    newer: str = NEWER
    second: str = SECOND
    watch: str = r"^(lib)?nvidia-(?!driver-pinning|container|modprobe|settings)|^libcuda"
    first: dict[str, str] = field(default_factory=lambda: {"branch": "580"})
    foretold: tuple[str, ...] = (NEWER,)
    loads: bool = True
    brings: tuple[str, ...] = ()
    prepare: str = UPGRADER
    would_upgrade: str = APT_WOULD
    upgrade: str = APT_UPGRADE
    unpin: str = APT_UNPIN

    def __str__(self) -> str:
        return self.name

    @property
    def settled(self) -> str:
        """How the first installation ends."""
        return "changed" if self.loads else "reboot_required"

    @property
    def branch(self) -> str:
        """The branch of `old` and `newer`."""
        return self.old.partition(".")[0]

    @property
    def second_branch(self) -> str:
        """The branch that is upgraded to."""
        return self.second.partition(".")[0]


# Replaced by the fingerprint of the key that the stub repositories are signed with, which each machine makes for itself.
FINGERPRINT = "of the stub repositories"
SERVER = "http://localhost:8099"


def nvidia(system: str) -> dict[str, Any]:
    """Return wishes for the stub of NVIDIA's repository for a system."""
    repository = {"url": f"{SERVER}/nvidia/{system}/x86_64/", "key": f"{SERVER}/key.asc", "fingerprint": FINGERPRINT}
    return {"source": "nvidia", "repository": repository}


DNF: dict[str, Any] = {"would_upgrade": DNF_WOULD, "upgrade": DNF_UPGRADE, "unpin": DNF_UNPIN, "foretold": ("580.*",), "prepare": "true"}
EVERY = (
    Family("ubuntu", "u24"),
    Family("debian13-nvidia", "d13", nvidia("debian13"), foretold=("580.*",), prepare=UPGRADER + WITHOUT_LISTS),
    Family("el9", "el9", nvidia("rhel9"), **DNF),
    Family("ubuntu-nvidia", "u24", nvidia("ubuntu2404"), unpin=f"dpkg --purge nvidia-driver-pinning-{OLD}", foretold=("580.*",)),
    Family("el10", "el10", nvidia("rhel10"), **DNF),
    Family("al2023", "al2023", nvidia("amzn2023"), **DNF),
)
BY_NAME = {family.name: family for family in EVERY}
# Each package manager once; with DIFYOPS_ALL those that differ in names and rules only, too (some ten minutes more). One of these is what
# the scenario of Molecule provisions.
FAMILIES = EVERY if ALL else (BY_NAME["ubuntu"], BY_NAME["el9"])


def genuine(name: str, host: str, version: str, *brings: str) -> Family:
    """Return a family of Debian's own packages. No module of theirs is built or loaded: Debian has no headers of this kernel."""
    return Family(
        name, host, {"kernel_headers": "unmanaged"}, old=version, newer=version, second=version, foretold=(version,), loads=False,
        watch=r"^(lib)?nvidia-(.*-)?(kernel-dkms|kernel-support|driver-bin|alternative|smi|cfg1|ml1|cuda1)$|^libcuda1$",
        first={"version": version}, brings=brings, prepare=SECTIONS + UPGRADER,
    )


# One of Debian's series of packages; with DIFYOPS_ALL both, on both releases (some fifteen minutes more).
GENUINE = (genuine("debian12-535", "g12", "535.261.03", "nvidia-kernel-dkms", "libcuda1"),)
if ALL:
    GENUINE += (
        genuine("debian13-tesla", "g13", "535.274.02", "nvidia-tesla-535-kernel-dkms", "libnvidia-tesla-535-cuda1"),
        genuine("debian12-tesla", "g12", "535.216.03", "nvidia-tesla-535-kernel-dkms", "libnvidia-tesla-535-cuda1"),
        genuine("debian13-550", "g13", "550.163.01", "nvidia-kernel-dkms", "libcuda1"),
    )
# Hosts of other tests.
WORK = Family("work", "work")
BAD = Family("bad", "bad")
OLDEST = "470.256.02"
ENDED = "470"
WRONG_FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
NO_SUCH = "http://localhost:9/nvidia/"
