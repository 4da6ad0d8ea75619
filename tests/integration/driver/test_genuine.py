# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's genuine packages, as Debian has them: installed, kept and removed. They are not loaded: there is no GPU, and no module is built.

The tests of a family follow each other: each begins where the one before has ended.
"""
from __future__ import annotations

from thorough import thorough

from .families import GENUINE
from .lifecycle import Life

# What conftest.py gives the lives of, one after the other.
LIVES = GENUINE


def test_check_mode_tells_what_would_come_and_changes_nothing(life: Life) -> None:
    life.shows_before_it_does()


def test_it_is_installed(life: Life) -> None:
    life.is_installed()
    names = {name for name, version in life.host.packages(life.family.watch).items() if version.startswith(life.family.old)}
    assert set(life.family.brings) <= names, names


def test_a_second_run_changes_nothing_and_costs_nothing(life: Life) -> None:
    life.is_left_alone()


def test_the_pin_holds_against_a_newer_version(life: Life) -> None:
    """Debian has one version of each; a newer one is offered by packages with nothing in them."""
    names = [name for name, version in life.host.packages(life.family.watch).items() if version.startswith(life.family.old)]
    life.host.publish(f"{life.family.branch}.999.99-1", *names)
    life.host.sh("apt-get -qq update")
    life.stays()


@thorough
def test_removal_leaves_the_host_as_it_was(life: Life) -> None:
    life.host.heal()
    life.is_removed()
