# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be: one sentence says it and what to do, and nothing is changed."""
from __future__ import annotations

from typing import Any

import pytest
from driver.lab import same

from .families import EL9, NEWEST, NO_SUCH, OLD, UNSAFE_TOO, WRONG_FINGERPRINT, repository
from .lab import PlatformFleet, PlatformHost, Provision

# By name: wishes, part, code (none: a wish that is no wish), words of the sentence or its remedy.
REFUSED: dict[str, tuple[dict[str, Any], str, str | None, tuple[str, ...]]] = {
    "an unsafe version": ({"toolkit_version": UNSAFE_TOO}, "toolkit", "DG811", (UNSAFE_TOO, "nvidia_container_toolkit_allow_unsafe")),
    "a word that is no injection": ({"toolkit_injection": "both"}, "toolkit", None, ("both", "nvidia_container_toolkit_injection")),
    "a word that is no source": ({"engine_source": "snap"}, "engine", None, ("snap", "container_engine_source")),
    # The engine of this host is not from rpm packages, so that none can replace it.
    "a compose plugin that this engine has not": ({"engine_compose_min": "99.0"}, "engine", "DG801", ("99.0", "container_engine_state")),
    "a key that is another": (
        {"toolkit_repository": repository(EL9.toolkit, fingerprint=WRONG_FINGERPRINT)},
        "toolkit", "DG784", (WRONG_FINGERPRINT, "nvidia_container_toolkit_repository"),
    ),
    "a mirror that nobody reaches": ({"toolkit_repository": {**repository(EL9.toolkit), "url": NO_SUCH}}, "toolkit", "DG783", (NO_SUCH,)),
}
# Seen on the way, after the plan: what had been added is taken away again.
LATE = ("DG783", "DG784")


@pytest.fixture(scope="module")
def el9(fleet: PlatformFleet) -> PlatformHost:
    """Return the host with a driver and an engine, and no toolkit."""
    host = PlatformHost(fleet, EL9)
    host.bare()
    host.provision(provision_parts=["driver", "engine"]).ends("changed")
    return host


@pytest.fixture(scope="module")
def refused(el9: PlatformHost) -> tuple[dict[str, Provision], dict[str, list[str]], dict[str, list[str]]]:
    """Run the playbook once, with the host under many names, each with a mistake of its own. Returns also the host before and after."""
    port = el9.fleet.raw["hosts"][el9.name]["publish"]["ssh"]
    hosts = {
        f"bad-{number}": {"ansible_port": port, **el9.variables(**wishes)}
        for number, (wishes, _part, _code, _words) in enumerate(REFUSED.values())
    }
    before = el9.whole()
    runs = el9.fleet.provision(hosts)
    return {case: runs[f"bad-{number}"] for number, case in enumerate(REFUSED)}, before, el9.whole()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(
    refused: tuple[dict[str, Provision], dict[str, list[str]], dict[str, list[str]]], case: str
) -> None:
    runs, before, after = refused
    _wishes, part, code, words = REFUSED[case]
    if code is None:
        runs[case].ends("failed", *words)
    elif code in LATE:
        runs[case].ends("blocked", *words, code=code)
    else:
        runs[case].blocked(part, code, *words)
    same(before, after)


def test_a_mirror_that_lacks_one_of_the_four_is_said_with_its_name(el9: PlatformHost) -> None:
    before = el9.snapshot()
    run = el9.provision(toolkit_version=NEWEST, toolkit_repository=repository(EL9.incomplete))
    run.ends("blocked", "libnvidia-container1", NEWEST, code="DG813")
    assert run.run.rc != 0 and el9.toolkit() == {}
    same(before, el9.snapshot())


def test_a_version_that_nobody_has_is_said_with_those_that_are_there(el9: PlatformHost) -> None:
    run = el9.provision(toolkit_version="1.99.0")
    run.ends("blocked", "1.99.0", OLD, NEWEST)
    assert run.run.rc != 0 and el9.toolkit() == {}
