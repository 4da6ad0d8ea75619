# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet with a balancer: simhost makes it when it is not up, and takes away what it made."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnosis import conftest as shared

from .lab import REPO, Site

FLEET = REPO / "tests/simhost/fleets/upgrade.json"

pytest_runtest_makereport = shared.pytest_runtest_makereport


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the fleet with its service and its balancer; one that was up already stays up."""
    made = Site(Path(os.environ.get("DIFYOPS_UPGRADE_FLEET") or FLEET), tmp_path_factory.mktemp("lab"))
    started = made.simhost("up", timeout_s=1800)
    # Groups after the first find it begun.
    if os.environ.get("DIFYOPS_GROUP") in (None, "fleet"):
        made.begin()
    yield made
    if "started" in started and not os.environ.get("DIFYOPS_KEEP_FLEET"):
        made.simhost("down")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run in groups, one for each module: test_fleet.py is the group `fleet`."""
    shared.keep_one_group(config, items, lambda item: item.path.stem.removeprefix("test_"))
