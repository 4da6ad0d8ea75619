# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of hosts of every family of operating systems: simhost makes it when it is not up, and takes away what it made."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from diagnosis import conftest as shared

from .families import Family
from .lab import REPO, DriverFleet, DriverHost
from .lifecycle import Life, begin, go_on

AnyHost = TypeVar("AnyHost", bound=DriverHost)
FLEET = REPO / "tests/simhost/fleets/drivers.json"
# The hosts of the fleet; fixtures and parameters of tests with these names say where a test runs.
HOSTS = ("u24", "work", "bad", "d13", "g12", "g13", "el9", "el10", "al2023")

pytest_runtest_makereport = shared.pytest_runtest_makereport


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverFleet]:
    """Return the fleet; one that was up already stays up."""
    lab = DriverFleet(Path(os.environ.get("DIFYOPS_DRIVERS_FLEET") or FLEET), tmp_path_factory.mktemp("lab"))
    # A host whose tests run in another process may be in the middle of something.
    mine = [name for name in HOSTS if name == os.environ.get("DIFYOPS_GROUP")]
    started = lab.simhost("up", *mine, timeout_s=1800)
    yield lab
    if "started" in started and not os.environ.get("DIFYOPS_KEEP_FLEET"):
        lab.simhost("down", *mine)


def group(item: pytest.Item) -> str:
    """Return the host that a test needs, or `rest` for one that needs several."""
    chosen = getattr(item, "callspec", None) and item.callspec.params.get("family")  # type: ignore[attr-defined]
    if chosen is not None:
        return str(chosen.host)
    names = set(getattr(item, "fixturenames", ())) & set(HOSTS)
    return names.pop() if len(names) == 1 else "rest"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run in groups, one for each host."""
    shared.keep_one_group(config, items, group)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that follow a life for each of its LIVES, one family after the other."""
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", metafunc.module.LIVES, ids=str, scope="module")


@pytest.fixture(scope="module")
def started(fleet: DriverFleet, family: Family) -> Iterator[Life]:
    """Return the life of a family's driver at its beginning."""
    yield from begin(fleet, family)


@pytest.fixture
def life(started: Life, request: pytest.FixtureRequest) -> Iterator[Life]:
    """Return the life of a family's driver, as far as the tests before have brought it."""
    yield from go_on(started, request)


def lent(host: AnyHost) -> Iterator[AnyHost]:
    """Lend a host to a test, and take back what the test changed, as far as it told."""
    yield host
    host.heal()
