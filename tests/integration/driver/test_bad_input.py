# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be, and what goes wrong: one sentence says it and what to do, nothing is done by half, and the next run finishes it."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from thorough import thorough

from .conftest import lent
from .families import BAD, ENDED, NO_SUCH, WRONG_FINGERPRINT, nvidia
from .lab import CONSENT, DriverFleet, DriverHost, Provision, same


@pytest.fixture(scope="module")
def prepared(fleet: DriverFleet) -> DriverHost:
    """Return the host without a driver."""
    host = DriverHost(fleet, "bad", **BAD.wishes)
    host.bare()
    return host


@pytest.fixture
def bad(prepared: DriverHost) -> Iterator[DriverHost]:
    """Return the host without a driver."""
    yield from lent(prepared)
    if prepared.packages():
        prepared.bare()


REPOSITORY = nvidia("ubuntu2204")["repository"]

# --- what is refused before anything is begun -------------------------------------------------------------------------

# By name: wishes, code, words of the sentence or its remedy.
REFUSED: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "a branch that nobody has": ({"branch": "581"}, "DG774", ("581", BAD.branch, BAD.second_branch)),
    "a version that the repository lacks": ({"version": f"{BAD.branch}.1.01"}, "DG774", (f"{BAD.branch}.1.01", BAD.old, BAD.second)),
    "a name that leads to another branch": ({"branch": "535"}, "DG774", ("535", BAD.branch)),
    "another flavour than the GPU takes": ({"branch": BAD.branch, "flavour": "openly"}, "", ("openly", "nvidia_driver_flavour")),
    "a key that is another": (
        {"source": "nvidia", "branch": BAD.branch, "repository": {**REPOSITORY, "fingerprint": WRONG_FINGERPRINT}},
        "DG784", (WRONG_FINGERPRINT, "nvidia_driver_repository"),
    ),
    "a mirror that nobody reaches": (
        {"source": "nvidia", "branch": BAD.branch, "repository": {**REPOSITORY, "url": NO_SUCH}}, "DG783", (NO_SUCH,),
    ),
}


@pytest.fixture(scope="module")
def refused(prepared: DriverHost) -> tuple[dict[str, Provision], dict[str, list[str]], dict[str, list[str]]]:
    """Run the playbook once, with the host under many names, each with a mistake of its own. Returns also the host before and after."""
    port = prepared.fleet.raw["hosts"]["bad"]["publish"]["ssh"]
    hosts = {
        f"bad-{number}": {"ansible_port": port, **prepared.variables(**wishes)}
        for number, (wishes, _code, _words) in enumerate(REFUSED.values())
    }
    before = prepared.snapshot()
    runs = prepared.fleet.provision(hosts)
    return {case: runs[f"bad-{number}"] for number, case in enumerate(REFUSED)}, before, prepared.snapshot()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(
    refused: tuple[dict[str, Provision], dict[str, list[str]], dict[str, list[str]]], bad: DriverHost, case: str
) -> None:
    runs, before, after = refused
    _wishes, code, words = REFUSED[case]
    if code in ("DG783", "DG784"):
        # Seen on the way, after the plan: what had been added is taken away again.
        runs[case].ends("blocked", *words, code=code)
    elif not code:
        runs[case].ends("failed", *words)
    else:
        runs[case].refuses(code, *words)
    same(before, after)


SYSTEMS = {
    "el8": 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.10"\nPRETTY_NAME="Rocky Linux 8.10"\n',
    "centos7": 'NAME="CentOS Linux"\nID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\nPRETTY_NAME="CentOS Linux 7"\n',
    "sles": 'NAME="SLES"\nID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"\nPRETTY_NAME="SUSE Linux Enterprise Server 15 SP6"\n',
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems_that_are_no_target(bad: DriverHost, system: str) -> None:
    bad.sh(f"cp /usr/lib/os-release /var/cache/os-release; cat > /usr/lib/os-release <<'END'\n{SYSTEMS[system]}END")
    bad.undo("mv /var/cache/os-release /usr/lib/os-release")
    name = SYSTEMS[system].split('PRETTY_NAME="')[1].split('"')[0]
    bad.provision(branch=BAD.branch).refuses("DG773", name)


CARDS = {
    "V100 with 595": ("v100-580", (), {"branch": "595"}, "DG719", ("595", "V100")),
    "V100 and B200": (
        "b200x8-580",
        ("fabric_manager=", "persistenced=", "gpu.0.device_id=0x1db1", "gpu.0.name=Tesla V100-SXM2-16GB (simulated)"),
        {"branch": "580"}, "DG719", ("V100", "B200"),
    ),
    "open modules for a V100": ("v100-580", (), {"branch": "580", "flavour": "open"}, "DG719", ("open", "V100")),
}


@pytest.mark.parametrize("case", CARDS)
def test_cards_that_no_such_driver_drives(bad: DriverHost, case: str) -> None:
    profile, overrides, wishes, code, words = CARDS[case]
    bad.cards(*overrides, profile=profile)
    bad.provision(**wishes).refuses(code, *words)


def test_a_host_driver_of_virtual_gpus_is_left_alone(bad: DriverHost) -> None:
    bad.sh("mkdir -p /sys/module/nvidia_vgpu_vfio")
    bad.undo("rmdir /sys/module/nvidia_vgpu_vfio")
    bad.provision(branch=BAD.branch, **CONSENT).refuses("DG785")


def test_gpus_that_a_guest_has_are_left_alone(bad: DriverHost) -> None:
    bad.cards("bound_driver=vfio-pci")
    run = bad.provision(branch=BAD.branch, **CONSENT)
    assert run.changed == 0 and bad.packages() == {}, run.output


def test_a_branch_past_its_end_of_life_is_a_warning(bad: DriverHost) -> None:
    run = bad.check(branch=ENDED)
    run.warns("DG750", ENDED)


# --- what stands in the way on the host -------------------------------------------------------------------------------

LOCK = "import fcntl, time; lock = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); time.sleep({seconds})"


LOCKER = "other-installer"


def locked(host: DriverHost, seconds: int) -> None:
    """Have another program hold dpkg's lock for some time."""
    host.background("locker", f'cp /usr/bin/python3 /var/tmp/{LOCKER}; exec /var/tmp/{LOCKER} -c "{LOCK.format(seconds=seconds)}"')
    host.waits_for("! apt-get -o DPkg::Lock::Timeout=0 --yes install > /dev/null 2>&1")


def test_a_lock_that_stays_is_waited_for_and_its_holder_named(bad: DriverHost) -> None:
    locked(bad, 600)
    run = bad.provision(version=BAD.old, lock_timeout=3).ends("blocked", LOCKER, code="DG780")
    assert run.run.rc != 0 and bad.packages() == {}


@thorough
def test_a_lock_that_goes_in_time_is_no_matter(bad: DriverHost) -> None:
    locked(bad, 12)
    bad.provision(version=BAD.old, lock_timeout=120).ends("changed")
    assert bad.loaded() == BAD.old


@thorough
def test_a_full_disk_is_said_before_or_ends_with_nothing_half_done(bad: DriverHost) -> None:
    bad.sh("mkdir -p /var/cache/apt/archives; mount -t tmpfs -o size=16k tmpfs /var/cache/apt/archives")
    bad.undo("umount /var/cache/apt/archives 2> /dev/null || true")
    bad.provision(version=BAD.old).ends("failed", "/var/cache/apt/archives", code="DG782")
    assert bad.packages() == {} and bad.sh("dpkg --audit") == ""
    bad.sh("umount /var/cache/apt/archives")
    bad.provision(version=BAD.old).ends("changed")


def test_a_foreign_package_that_is_half_installed_is_explained(bad: DriverHost) -> None:
    bad.half_installed("a-package-of-others")
    run = bad.provision(version=BAD.old)
    run.refuses("DG781", "a-package-of-others")
    assert bad.packages() == {}


@thorough
def test_packages_of_the_driver_that_are_half_installed_are_finished(bad: DriverHost) -> None:
    bad.provision(version=BAD.old).ends("changed")
    name = next(name for name in bad.packages() if "utils" in name)
    bad.sh(f"sed -i '/^Package: {name}$/,/^$/s/^Status: .*/Status: hold ok unpacked/' /var/lib/dpkg/status")
    broken = bad.facts()["driver"]["broken"]
    assert [(one["name"], one["state"]) for one in broken] == [(name, "unpacked")] and BAD.old in broken[0]["version"]
    run = bad.provision(version=BAD.old).ends("changed")
    assert run.plans[0]["repair"] is True
    assert bad.sh("dpkg --audit") == ""
    bad.settled(BAD.old)


@thorough
def test_a_hold_of_somebody_else_is_named_and_replaced_where_that_is_wished(bad: DriverHost) -> None:
    bad.provision(version=BAD.old, pin="none").ends("changed")
    bad.sh("rm -f /etc/apt/apt.conf.d/52difyops-nvidia-driver")
    name = next(name for name in bad.packages() if "utils" in name)
    bad.sh(f"apt-mark hold {name}")
    run = bad.provision(version=BAD.newer, **CONSENT).refuses("DG777", name, "nvidia_driver_foreign_pins")
    assert bad.loaded() == BAD.old, run.output
    bad.provision(version=BAD.newer, foreign_pins="replace", **CONSENT).ends("changed")
    bad.settled(BAD.newer)


# --- the kernel's side ------------------------------------------------------------------------------------------------


def test_secure_boot_and_modules_that_nobody_signed(bad: DriverHost) -> None:
    bad.cards("secure_boot=1")
    run = bad.provision(version=BAD.old, kernel_modules="dkms")
    run.refuses("DG778", "mokutil")
    assert bad.packages() == {}


def test_secure_boot_and_modules_that_the_distribution_signed(bad: DriverHost) -> None:
    bad.cards("secure_boot=1")
    run = bad.provision(branch=BAD.branch).ends("changed")
    assert run.plans[1]["target"]["kernel_modules"] == "prebuilt" and bad.loaded() == BAD.newer


def test_headers_that_nobody_has(bad: DriverHost) -> None:
    bad.without(f"linux-headers-{bad.sh('uname -r').strip()}")
    run = bad.provision(version=BAD.old, kernel_modules="dkms")
    run.refuses("DG779", bad.sh("uname -r").strip())
    assert bad.packages() == {}


@thorough
def test_a_module_that_is_not_built_is_said_and_the_next_run_builds_it(bad: DriverHost) -> None:
    bad.cards(f"dkms_fails={BAD.old}")
    run = bad.provision(version=BAD.old, kernel_modules="dkms").ends("failed", bad.sh("uname -r").strip(), code="DG789")
    assert run.run.rc != 0 and bad.loaded() is None
    bad.heal()
    bad.provision(version=BAD.old, kernel_modules="dkms").ends("changed")
    assert bad.loaded() == BAD.old


@thorough
def test_another_driver_in_the_kernel_than_was_installed_is_said(bad: DriverHost) -> None:
    bad.provision(version=BAD.old).ends("changed")
    # As where an older module lies in the initramfs: that is what the next boot loads.
    bad.sh(f"echo loaded_version={BAD.old} >> /etc/simgpu/profile")
    bad.provision(version=BAD.newer, **CONSENT).ends("failed", BAD.old, BAD.newer, code="DG790")
    bad.sh("sed -i /^loaded_version=/d /etc/simgpu/profile")
    bad.provision(version=BAD.newer, **CONSENT).ends("changed")
    assert bad.loaded() == BAD.newer


def test_a_rival_driver_gives_way_at_a_reboot(bad: DriverHost) -> None:
    bad.cards("bound_driver=nouveau")
    run = bad.provision(version=BAD.old).ends("reboot_required", "nouveau", code="DG791")
    assert run.run.rc == 0 and bad.loaded() is None
    assert "nouveau" in bad.sh("cat /etc/modprobe.d/difyops-nvidia-driver.conf")
    bad.reboot()
    assert bad.loaded() == BAD.old
    assert bad.provision(version=BAD.old).ends("unchanged").changed == 0


def test_nvswitches_and_no_fabric_manager_of_that_version(bad: DriverHost) -> None:
    bad.cards("fabric_manager=", "persistenced=", profile="h100x8-580")
    bad.without("nvidia-fabricmanager-580")
    bad.provision(version=BAD.old).refuses("DG786", BAD.old)
    assert bad.packages() == {}


@thorough
def test_nvswitches_and_the_fabric_manager_of_that_version(bad: DriverHost) -> None:
    bad.cards("fabric_manager=", "persistenced=", profile="h100x8-580")
    bad.provision(version=BAD.old).ends("changed")
    manager = bad.settled(BAD.old)["fabric_manager"]
    assert (manager["version"], manager["running"], manager["enabled"]) == (BAD.old, True, True), manager
    assert bad.provision(version=BAD.old).ends("unchanged").changed == 0


# --- a run that is cut short ------------------------------------------------------------------------------------------

# dpkg tells what it does to a program; this one stops it as soon as the first package of the driver is unpacked, and the rest is not.
STOPPER = """#!/bin/sh
while read -r line; do
    case "$line" in
    "processing: configure: "*nvidia*) pkill -STOP -x dpkg; touch /run/stopped; exec sleep 600 ;;
    esac
done
"""


def test_killed_between_unpack_and_configure(bad: DriverHost) -> None:
    bad.sh(f"cat > /usr/local/bin/stopper <<'END'\n{STOPPER}END\nchmod 755 /usr/local/bin/stopper")
    bad.sh("echo status-logger=/usr/local/bin/stopper > /etc/dpkg/dpkg.cfg.d/stopper; rm -f /run/stopped")
    clean = "rm -f /etc/dpkg/dpkg.cfg.d/stopper /usr/local/bin/stopper /run/stopped"
    bad.undo(clean)
    died = "pkill -KILL -x apt-get || true; pkill -KILL -x dpkg || true; sleep 0.5"
    bad.interrupted("[ -e /run/stopped ]", f"{clean}; {died}", version=BAD.old)
    facts = bad.facts()
    assert facts["driver"]["broken"], "dpkg was killed too late"
    assert facts["driver"]["journal"]["phase"] == "packages" and facts["driver"]["journal"]["to"] == BAD.old
    run = bad.provision(version=BAD.old).ends("changed")
    run.warns("DG787")
    assert run.plans[0]["repair"] is True
    assert bad.sh("dpkg --audit") == ""
    bad.settled(BAD.old)
    assert bad.provision(version=BAD.old).ends("unchanged").changed == 0


@thorough
def test_killed_before_the_reboot(bad: DriverHost) -> None:
    bad.provision(version=BAD.old).ends("changed")
    bad.interrupted(f"grep -q '\"activate\"' {JOURNAL}", version=BAD.newer, **CONSENT)
    bad.waits_for("systemctl is-system-running --wait > /dev/null; true", 60)
    run = bad.provision(version=BAD.newer, **CONSENT)
    assert run.record["result"] in ("changed", "unchanged"), run.output
    bad.settled(BAD.newer)


JOURNAL = "/var/lib/difyops/nvidia_driver/journal.json"
