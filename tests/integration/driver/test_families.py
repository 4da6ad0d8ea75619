# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a driver on each family of operating systems: bare, installed, kept, upgraded, brought back, removed; bare again.

The tests of a family follow each other: each begins where the one before has ended.
"""
from __future__ import annotations

from .families import FAMILIES
from .lab import CONSENT
from .lifecycle import Life

# What conftest.py gives the lives of, one after the other.
LIVES = FAMILIES


def test_check_mode_tells_what_would_come_and_changes_nothing(life: Life) -> None:
    life.shows_before_it_does()


def test_it_is_installed(life: Life) -> None:
    life.is_installed()


def test_a_second_run_changes_nothing_and_costs_nothing(life: Life) -> None:
    life.is_left_alone()


def test_the_pin_holds(life: Life) -> None:
    life.stays()
    life.has(life.family.old)


def test_drift_from_the_pin_is_seen_and_mended(life: Life) -> None:
    life.host.sh(life.family.unpin)
    assert life.host.facts()["driver"]["installed"]["pinned"] is False
    run = life.host.provision(**life.wishes).ends("changed")
    assert run.plans[0]["action"] == "configure", run.plans[0]["reason"]
    life.has(life.family.old)
    life.host.settled(life.family.old)


def test_another_branch_comes_with_a_reboot(life: Life) -> None:
    boot = life.host.boot()
    run = life.provision(branch=life.family.second_branch, **CONSENT).ends("changed")
    assert run.record["before"] == life.family.old and run.record["after"] == life.family.second, run.record
    assert life.host.boot() != boot, "the host was not rebooted"
    life.has(life.family.second)


def test_an_exact_older_version_is_gone_back_to(life: Life) -> None:
    life.is_saved()
    run = life.provision(version=life.family.old, **CONSENT).ends("changed")
    assert run.plans[0]["action"] == "upgrade" and run.plans[0]["to"] == life.family.old
    life.has(life.family.old)
    life.host.settled(life.family.old)


def test_what_was_saved_comes_back(life: Life) -> None:
    life.comes_back()


def test_removal_leaves_the_host_as_it_was(life: Life) -> None:
    life.is_removed()
