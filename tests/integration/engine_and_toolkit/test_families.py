# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a bare host to a container that sees its GPUs, and on: kept, drifted, upgraded in one transaction, removed.

The tests of a family follow each other: each begins where the one before has ended.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from driver.lab import same

from .families import FAMILIES, FOUR, NEWEST, OLD, UNSAFE, Family
from .lab import IDLE, PlatformFleet, PlatformHost

# How the runtime gives GPUs.
CONFIG = "/etc/nvidia-container-runtime/config.toml"


@dataclass
class Life:
    """One family's host, and how far it has come."""

    family: Family
    host: PlatformHost
    failed: list[str] = field(default_factory=list)
    # What the host was before the toolkit, and with everything else.
    without: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request: pytest.FixtureRequest) -> Family:
    """Return each family in turn."""
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="module")
def started(fleet: PlatformFleet, family: Family) -> Life:
    """Return the life of a family's host at its beginning."""
    host = PlatformHost(fleet, family)
    host.bare()
    return Life(family, host)


@pytest.fixture
def life(started: Life, request: pytest.FixtureRequest) -> Iterator[Life]:
    """Return the life as far as the tests before have brought it; where one of them failed, fail."""
    if started.failed:
        pytest.fail(f"{started.failed[0]} had failed before, and this test begins where it should have ended", pytrace=False)
    yield started
    report = getattr(request.node, "report", None)
    if report is None or not report.passed:
        started.failed.append(request.node.name)


def test_check_mode_on_a_bare_host_tells_what_would_come_and_changes_nothing(life: Life) -> None:
    before = life.host.whole()
    run = life.host.check(toolkit_version=OLD)
    assert run.run.rc == 0, run.output
    engine, toolkit = run.first("engine"), run.first("toolkit")
    assert (engine["status"], engine["action"]) == (("ok", "none") if life.family.engine else ("change", "install")), engine
    assert (toolkit["status"], toolkit["action"], toolkit["from"]) == ("change", "install", None), toolkit
    assert OLD in run.output, run.output
    same(before, life.host.whole())


def test_driver_and_engine_alone(life: Life) -> None:
    host = life.host
    run = host.provision(provision_parts=["driver", "engine"]).ends("changed")
    assert host.toolkit() == {} and run.outcome["toolkit"] is None, run.outcome
    engine = host.facts()["engine"]
    assert engine["version"] and engine["compose_version"], engine
    if not life.family.engine:
        assert (engine["origin"], engine["service"]) == ("distribution", {"enabled": True, "active": True}), engine
        assert run.outcome["engine"]["status"] == "changed" and run.outcome["engine"]["after"], run.outcome
    host.stubs_only()
    life.without = host.snapshot()


def test_a_container_sees_its_gpu(life: Life) -> None:
    host = life.host
    host.provision(toolkit_version=OLD).ends("changed")
    host.has_toolkit(OLD)
    host.described()
    host.standin_image()
    host.start("dify")
    host.proven()


def test_a_second_run_changes_nothing_and_costs_nothing(life: Life) -> None:
    before = life.host.state("dify")
    run = life.host.provision(toolkit_version=OLD).quiet()
    assert [run.first(part)["action"] for part in ("engine", "toolkit")] == ["none", "none"]
    assert life.host.state("dify") == before


def test_a_newer_version_that_nobody_asked_for_is_not_taken(life: Life) -> None:
    """The one that is there is safe."""
    life.host.provision().quiet()


def test_the_pin_holds_against_an_upgrade_of_everything(life: Life) -> None:
    life.host.sh(life.family.would_upgrade)
    life.host.sh(life.family.upgrade)
    life.host.has_toolkit(OLD)


def test_drift_from_the_pin_is_seen_and_mended(life: Life) -> None:
    life.host.sh(life.family.unpin)
    assert life.host.facts()["toolkit"]["pinned"] is False
    before = life.host.state("dify")
    run = life.host.provision(toolkit_version=OLD).ends("changed")
    assert run.first("toolkit")["action"] == "configure", run.first("toolkit")["reason"]
    life.host.has_toolkit(OLD)
    assert life.host.state("dify") == before


def test_removal_leaves_the_host_as_it_was_before(life: Life) -> None:
    host = life.host
    host.sh("docker rm --force dify")
    run = host.provision(toolkit_state="absent").ends("changed")
    assert run.last("toolkit")["action"] == "remove"
    assert host.toolkit() == {}
    # Written by the script of the package and none of its files: no package manager takes it away, as with the genuine packages.
    host.sh(f"rm {CONFIG} && rmdir {CONFIG.rpartition('/')[0]}")
    same(life.without, host.snapshot())
    host.provision(toolkit_state="absent").quiet()


def test_an_unsafe_version_that_was_asked_for_gives_the_gpu_too(life: Life) -> None:
    """It is older than the packaged refresh: its specification is made by hand."""
    host = life.host
    run = host.provision(toolkit_version=UNSAFE, toolkit_allow_unsafe=True).ends("changed")
    assert run.last("toolkit")["cdi"]["how"] == "generate", run.last("toolkit")["cdi"]
    host.has_toolkit(UNSAFE)
    host.start("dify")
    host.proven()


def test_it_is_upgraded_in_one_transaction_and_nobody_is_stopped(life: Life) -> None:
    host = life.host
    host.start("without", gpu=False, command=IDLE)
    before, told = {name: host.state(name) for name in ("dify", "without")}, host.transactions()
    run = host.provision().ends("changed")
    toolkit = run.first("toolkit")
    assert (toolkit["action"], toolkit["from"]) == ("upgrade", UNSAFE), toolkit
    assert {one["name"] for one in run.last("toolkit")["packages"]["install"]} == set(FOUR)
    host.has_toolkit(NEWEST)
    assert len(host.transactions()) == len(told) + 1, host.transactions()
    # Started by an unsafe version: it has to be started again, by whoever runs it. One without a GPU is no matter.
    needs = {one["name"]: (one["how"], one["needs"]) for one in toolkit["containers"]}
    assert needs == {"dify": ("cdi", "restart")}, toolkit["containers"]
    assert {name: host.state(name) for name in before} == before
    host.described()
    host.sh("docker restart --time 1 dify")
    host.proven()
    host.provision().quiet()
    host.heal()
