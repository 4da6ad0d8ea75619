# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of hosts for engine and toolkit: simhost makes it when it is not up, and takes away what it made."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnosis import conftest as shared
from diagnosis.lab import REPO

from .lab import PlatformFleet

FLEET = REPO / "tests/simhost/fleets/platform.json"
# The hosts of the fleet; fixtures and parameters of tests with these names say where a test runs.
HOSTS = ("bare", "el9", "work")

pytest_runtest_makereport = shared.pytest_runtest_makereport


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformFleet]:
    """Return the fleet; one that was up already stays up."""
    lab = PlatformFleet(Path(os.environ.get("DIFYOPS_PLATFORM_FLEET") or FLEET), tmp_path_factory.mktemp("lab"))
    # A host whose tests run in another process may be in the middle of something.
    mine = [name for name in HOSTS if name == os.environ.get("DIFYOPS_GROUP")]
    started = lab.simhost("up", *mine, timeout_s=1800)
    yield lab
    if "started" in started and not os.environ.get("DIFYOPS_KEEP_FLEET"):
        lab.simhost("down", *mine)


def group(item: pytest.Item) -> str:
    """Return the host that a test needs."""
    chosen = getattr(item, "callspec", None) and item.callspec.params.get("family")  # type: ignore[attr-defined]
    if chosen is not None:
        return str(chosen.host)
    return str(next(name for name in HOSTS if name in getattr(item, "fixturenames", ())))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of one group only, where DIFYOPS_GROUP names it (see run.py)."""
    wanted = os.environ.get("DIFYOPS_GROUP")
    if wanted:
        others = [item for item in items if group(item) != wanted]
        items[:] = [item for item in items if group(item) == wanted]
        config.hook.pytest_deselected(items=others)
