# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose GPU is in use, by a container and by a process of none: nobody's work is ended without consent, and it comes back.

Each test finds one version of the driver loaded, and wishes for the other.
"""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from thorough import thorough

from .conftest import lent
from .families import WORK
from .lab import CONSENT, DriverFleet, DriverHost, Provision

DRAIN = {"busy": "drain", "drain_containers": ["dify*"], **CONSENT}
JOB = "night-job"


class Busy(DriverHost):
    """A host with a driver of ours, and a container that uses its GPU."""

    def prepare(self) -> None:
        self.bare()
        self.provision(version=WORK.old, **CONSENT).ends("changed")
        super().prepare()

    def other(self) -> str:
        """Return the version that is not loaded."""
        return WORK.newer if self.loaded() == WORK.old else WORK.old

    def service(self) -> str:
        """Return id and start time of the container, which must run."""
        return self._sh("docker inspect --format '{{.Id}} {{.State.Running}} {{.State.StartedAt}}' dify").strip()

    def proven(self) -> None:
        """Assert that a matrix product is computed in the container on the simulated GPU."""
        play = self.fleet.play(self.name, {"difyops.gpu.gpu_verify": {"health": False, "container": "dify", "mode": "gpu"}})
        verdict = play.of("difyops.gpu.gpu_verify")["ansible_facts"]["gpu_verdict"]
        assert verdict["overall"] == "proven", [link for link in verdict["links"] if link["code"]]

    def occupied(self, seconds: int) -> None:
        """Have a process of no container use the GPU for some time."""
        self.background("occupant", f"cp /usr/bin/sleep /var/tmp/{JOB}; exec /var/tmp/{JOB} {seconds}")
        self.fault(f"gpu.0.process.0={JOB},512,compute")


@pytest.fixture(scope="module")
def prepared(fleet: DriverFleet) -> Busy:
    """Return the host with a driver and a container that is proven."""
    host = Busy(fleet, "work", **WORK.wishes)
    host.prepare()
    host.proven()
    return host


@pytest.fixture
def work(prepared: Busy) -> Iterator[Busy]:
    """Return the host that is at work."""
    yield from lent(prepared)


def untouched(host: Busy, run: Provision, before: tuple[str, str | None, dict[str, list[str]]]) -> None:
    """Assert that a run that was refused has left all as it was: container, driver, packages, files."""
    assert (host.service(), host.loaded(), host.snapshot()) == before, run.output


def state(host: Busy) -> tuple[str, str | None, dict[str, list[str]]]:
    return host.service(), host.loaded(), host.snapshot()


REFUSING = {"refuse": {}, "drain nothing": {"busy": "drain"}, "drain another": {"busy": "drain", "drain_containers": ["another"]}}


@pytest.mark.parametrize("wishes", REFUSING.values(), ids=list(REFUSING))
def test_a_container_at_work_is_named_and_left_alone(work: Busy, wishes: dict[str, object]) -> None:
    before = state(work)
    run = work.provision(version=work.other(), **CONSENT, **wishes)
    run.refuses("DG776", "dify")
    users = run.plan["guard"]["users"] if run.plan["guard"] else []
    assert not users or [user["name"] for user in users if user["kind"] == "container"] == ["dify"]
    untouched(work, run, before)


def test_a_process_of_no_container_is_never_drained(work: Busy) -> None:
    work.occupied(600)
    before = state(work)
    run = work.provision(version=work.other(), **DRAIN)
    run.refuses("DG776", JOB)
    untouched(work, run, before)


def test_waiting_ends_with_the_list(work: Busy) -> None:
    work.occupied(600)
    before = state(work)
    run = work.provision(version=work.other(), busy="wait", wait_timeout=3, **CONSENT)
    run.ends("blocked", JOB, "dify", code="DG776")
    untouched(work, run, before)


@thorough
def test_waiting_goes_on_when_the_last_job_has_ended(work: Busy) -> None:
    work.sh("docker stop --time 1 dify")
    work.undo("docker start dify")
    work.occupied(15)
    wanted = work.other()
    run = work.provision(version=wanted, busy="wait", wait_timeout=120, **CONSENT).ends("changed")
    assert work.loaded() == wanted, run.output


def test_with_consent_the_container_is_stopped_and_comes_back(work: Busy) -> None:
    before, boot, wanted = work.service(), work.boot(), work.other()
    run = work.provision(version=wanted, **DRAIN).ends("changed")
    assert [one["name"] for one in run.plans[0]["guard"]["stop"]] == ["dify"]
    after = work.service()
    assert after.split()[:2] == before.split()[:2], "the same container runs"
    assert after != before, "it was started again"
    assert work.loaded() == wanted and work.boot() != boot
    work.settled(wanted)
    work.proven()


def test_a_reload_where_that_is_consented_to(work: Busy) -> None:
    boot, wanted = work.boot(), work.other()
    run = work.provision(version=wanted, busy="drain", drain_containers=["dify"], reload="if_possible").ends("changed")
    assert run.plans[0]["activation"] == "reload"
    assert work.loaded() == wanted and work.boot() == boot, "the module was loaded anew, and nothing was rebooted"
    work.proven()


# Waits until a port is free, and keeps it.
SQUATTER = """python3 -c '
import socket, time
while True:
    taken = socket.socket()
    try:
        taken.bind(("", 9999)); taken.listen()
        time.sleep(3600)
    except OSError:
        time.sleep(0.02)
'"""


@thorough
def test_a_container_that_does_not_start_again_is_named_and_the_next_run_starts_it(work: Busy) -> None:
    work.start("dify-lost", "--publish 9999:9999")
    work.background("squatter", SQUATTER)
    wishes = {"version": work.other(), "busy": "drain", "drain_containers": ["dify*"], "reload": "if_possible"}
    run = work.provision(**wishes).ends("failed", "dify-lost", code="DG792")
    assert run.run.rc != 0 and work.loaded() == wishes["version"]
    work.proven()
    assert "dify-lost" in [one["name"] for one in work.facts()["driver"]["journal"]["containers"]]
    work.sh("systemctl stop squatter")
    work.provision(**wishes).ends("changed")
    work.settled(str(wishes["version"]))
    assert work.sh("docker inspect --format '{{.State.Running}}' dify-lost").strip() == "true"


# --- loaded and installed are not the same ---------------------------------------------------------------------------


@pytest.fixture
def apart(work: Busy) -> Busy:
    """Return the host after somebody has upgraded the packages by hand: the library is of another version than the loaded module."""
    work.undo_container()
    work.sh("docker rm --force dify")
    work.upgraded_by_hand(str(work.loaded()), work.other())
    return work


@thorough
def test_a_mismatch_is_seen_explained_and_healed_by_the_run_that_may_reboot(apart: Busy) -> None:
    loaded, installed = apart.loaded(), apart.other()
    facts = apart.facts()
    assert facts["driver"]["mismatch"] is True and facts["driver"]["reboot_required"] is True
    wishes = {"version": installed}
    refused = apart.provision(**wishes)
    refused.refuses("DG775", str(loaded), installed, "nvidia_driver_reboot")
    assert apart.loaded() == loaded
    told = apart.check(**wishes, **CONSENT)
    assert told.run.rc == 0 and str(loaded) in told.output and installed in told.output
    assert apart.loaded() == loaded
    apart.provision(**wishes, **CONSENT).ends("changed")
    apart.settled(installed)


def test_a_process_keeps_the_device_open_while_the_library_cannot_tell_who(apart: Busy) -> None:
    apart.background("holder", f"cp /usr/bin/sleep /var/tmp/{JOB}; exec 9< /dev/nvidia0; exec /var/tmp/{JOB} 600")
    installed = apart.other()
    refused = apart.provision(version=installed, **CONSENT)
    refused.refuses("DG776", JOB)
    apart.sh("systemctl stop holder")
    apart.provision(version=installed, **CONSENT).ends("changed")
    apart.settled(installed)


def test_without_consent_nothing_is_begun(work: Busy) -> None:
    work.undo_container()
    work.sh("docker rm --force dify")
    before = work.snapshot(lists=False), work.loaded()
    run = work.provision(version=work.other())
    run.refuses("DG775", "nvidia_driver_reboot")
    assert (work.snapshot(lists=False), work.loaded()) == before
