# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The families of operating systems: what each has at first, where its toolkit comes from, and the commands that pins are tried with."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from thorough import ALL

# What the stub repositories have (tests/simhost/repository): unsafe, the last safe one that is not the newest, the newest.
UNSAFE, OLD, NEWEST = "1.17.8", "1.19.1", "1.20.1"
BETWEEN, UNSAFE_TOO = "1.18.2", "1.19.0"
DRIVER, NEWER_DRIVER = "580.95.05", "580.105.08"
FOUR = ("libnvidia-container-tools", "libnvidia-container1", "nvidia-container-toolkit", "nvidia-container-toolkit-base")
# Replaced by the fingerprint of the key that the stub repositories are signed with, which each machine makes for itself.
FINGERPRINT = "of the stub repositories"
WRONG_FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
SERVER = "http://localhost:8099"
NO_SUCH = "http://localhost:9/toolkit/"
APT_UPGRADE = "apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -q --yes full-upgrade"
# Without the pins the same upgrade would take a newer toolkit: else they hold nothing.
APT_WOULD = (
    "apt-get -qq update; apt-get -s --ignore-hold -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null full-upgrade"
    f" | grep -E '^Inst nvidia-container-toolkit .*{NEWEST}'"
)
APT_UNPIN = "rm -f /etc/apt/preferences.d/*difyops*; apt-mark showhold | xargs --no-run-if-empty apt-mark unhold"
DNF_UPGRADE = "dnf --assumeyes --refresh upgrade"
DNF_WOULD = f"dnf --assumeno --refresh --disableplugin=versionlock upgrade 2>&1 | grep -E 'nvidia-container-toolkit .*{NEWEST}'"
DNF_UNPIN = "dnf --quiet versionlock clear"


def repository(folder: str, **others: str) -> dict[str, str]:
    """Return the wish for one of the stub repositories."""
    return {"url": f"{SERVER}/{folder}/", "key": f"{SERVER}/key.asc", "fingerprint": FINGERPRINT, **others}


@dataclass(frozen=True)
class Family:
    """A family of operating systems.

    Attributes:
        name: of the tests.
        host: in the fleet file.
        toolkit: folder of the stub of NVIDIA's repository for the toolkit.
        incomplete: folder of one that lacks one of the four packages in its newest version.
        driver: variables of role nvidia_driver.
        engine: whether a Docker engine is there at first.
        would_upgrade: shell command that fails where no newer toolkit is to be had.
        upgrade: shell commands that upgrade everything.
        unpin: shell command that takes the pins away.
        transactions: shell command that prints a line for each transaction of the package manager that changed a toolkit package.
    """

    name: str
    host: str
    toolkit: str = "toolkit/deb"
    incomplete: str = "toolkit-incomplete/deb"
    driver: dict[str, Any] = field(default_factory=dict)
    engine: bool = True
    would_upgrade: str = APT_WOULD
    upgrade: str = APT_UPGRADE
    unpin: str = APT_UNPIN
    transactions: str = r"grep -E '^(Install|Upgrade|Downgrade|Remove|Purge): .*nvidia-container' /var/log/apt/history.log || true"

    def __str__(self) -> str:
        return self.name

    @property
    def repository(self) -> dict[str, str]:
        """The wish for the stub of NVIDIA's repository."""
        return repository(self.toolkit)


# Nothing is there at first: the driver comes from the stub of NVIDIA's repository, the engine is Debian's own.
BARE = Family(
    "debian13", "bare", engine=False,
    driver={"version": DRIVER, "source": "nvidia", "repository": repository("nvidia/debian13/x86_64")},
)
# An engine is there that rpm knows nothing of; the driver comes from the stub of NVIDIA's repository.
EL9 = Family(
    "el9", "el9", toolkit="toolkit/rpm/x86_64", incomplete="toolkit-incomplete/rpm/x86_64",
    driver={"version": DRIVER, "source": "nvidia", "repository": repository("nvidia/rhel9/x86_64")},
    would_upgrade=DNF_WOULD, upgrade=DNF_UPGRADE, unpin=DNF_UNPIN,
    transactions="dnf --quiet history list nvidia-container-toolkit | grep -E '^ *[0-9]+ ' || true",
)
# An engine is there; the driver comes from the stub of Ubuntu's archive.
WORK = Family("ubuntu", "work", driver={"version": DRIVER})
# What the scenario of Molecule provisions is the other one; with DIFYOPS_ALL both are looked at step by step (some four minutes more).
FAMILIES = (BARE, EL9) if ALL else (BARE,)
