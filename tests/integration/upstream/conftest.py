# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet with app hosts: simhost makes it when it is not up, and takes away what it made."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnosis import conftest as shared
from diagnosis.lab import REPO

from .lab import App, Deployment, Site

FLEET = REPO / "tests/simhost/fleets/upstream.json"

pytest_runtest_makereport = shared.pytest_runtest_makereport


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the fleet; one that was up already stays up."""
    made = Site(Path(os.environ.get("DIFYOPS_UPSTREAM_FLEET") or FLEET), tmp_path_factory.mktemp("lab"))
    # Those that need both hosts run in a group of their own.
    mine = [name for name in ("both", "app") if name == os.environ.get("DIFYOPS_GROUP")]
    started = made.simhost("up", *mine, timeout_s=1800)
    yield made
    if "started" in started and not os.environ.get("DIFYOPS_KEEP_FLEET"):
        made.simhost("down", *mine)


@pytest.fixture(scope="session")
def both(site: Site) -> App:
    """Return the host that has Dify and the image service, bare at first."""
    host = App(site, "both", gpu=True)
    host.bare()
    return host


@pytest.fixture(scope="session")
def deployed(both: App) -> Deployment:
    """Return the run that deployed everything on a bare host."""
    return both.deploy()


@pytest.fixture(scope="session")
def app(site: Site) -> App:
    """Return the host that has Dify only, bare at first."""
    host = App(site, "app")
    host.bare()
    return host


def group(item: pytest.Item) -> str:
    """Return the host that a test needs; its fixtures say it."""
    names = getattr(item, "fixturenames", ())
    if "backup" in names:
        return "rest"
    return "both" if {"both", "deployed"} & set(names) else "app"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of one host only, where DIFYOPS_GROUP names it (see run.py)."""
    wanted = os.environ.get("DIFYOPS_GROUP")
    if wanted:
        others = [item for item in items if group(item) != wanted]
        items[:] = [item for item in items if group(item) == wanted]
        config.hook.pytest_deselected(items=others)
