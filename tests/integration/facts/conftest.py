# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet of the diagnosis, and a host that is thrown away after NVIDIA's genuine packages were installed on it."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnosis import conftest as shared
from diagnosis.lab import Fleet, Host

# The same fleet, once for both folders.
fleet = shared.fleet
pytest_collection_modifyitems = shared.pytest_collection_modifyitems
GENUINE = Path(__file__).resolve().parent / "fleet.json"


@pytest.fixture
def diag(fleet: Fleet) -> Iterator[Host]:
    """Return the host with pynvml and the Docker SDK, and take back what the test changed."""
    yield from _lent(fleet, "diag")


@pytest.fixture
def cli(fleet: Fleet) -> Iterator[Host]:
    """Return the host with neither."""
    yield from _lent(fleet, "diag-cli")


@pytest.fixture(params=["diag", "diag-cli"])
def host(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Return each of the two in turn."""
    yield from _lent(fleet, request.param)


def _lent(fleet: Fleet, name: str) -> Iterator[Host]:
    host = Host(fleet, name)
    host.standin("cuda12.6")
    yield host
    host.heal()


@pytest.fixture(scope="session")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Return a host with a simulated GPU on PCI and no driver, on which Debian's own packages can be installed. It is thrown away."""
    lab = Fleet(GENUINE, tmp_path_factory.mktemp("genuine"))
    lab.simhost("down")
    lab.simhost("up")
    host = Host(lab, "genuine")
    lab.simhost("profile", "genuine", "a10-535", "driver_version=")
    host.sh("sed -i 's/ main$/ main contrib non-free non-free-firmware/' /etc/apt/sources.list; apt-get -qq update")
    yield host
    if not os.environ.get("DIFYOPS_KEEP_FLEET"):
        lab.simhost("down")
