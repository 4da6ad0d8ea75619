# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet for diagnosis tests: simhost makes it when it is not up, and takes away what it made."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .lab import REPO, Fleet, Host

FLEET = REPO / "tests/simhost/fleets/diagnosis.json"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "produces(*codes): the DG codes that this test makes the modules say on a simulated host")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Return the fleet; one that was up already stays up."""
    lab = Fleet(Path(os.environ.get("DIFYOPS_DIAGNOSIS_FLEET") or FLEET), tmp_path_factory.mktemp("lab"))
    started = lab.simhost("up", *own_host())
    yield lab
    if "started" in started and not os.environ.get("DIFYOPS_KEEP_FLEET"):
        lab.simhost("down")


def own_host() -> list[str]:
    """Return the host of the group that is run, where that is one: on the other one a test of another process may be at work."""
    return [name for name in ("diag", "diag-cli") if name == os.environ.get("DIFYOPS_GROUP")]


def group(item: pytest.Item) -> str:
    """Return which of the hosts a test needs; `both` and tests without a host are `rest`. Groups of one host can run side by side."""
    names = set(getattr(item, "fixturenames", ()))
    chosen = getattr(item, "callspec", None) and item.callspec.params.get("host")  # type: ignore[attr-defined]
    if chosen:
        return str(chosen)
    if "genuine" in names:
        return "diag-cli"  # has a host of its own, and this group has the fewer tests
    if "deployed" in names or {"diag", "cli"} <= names:
        return "rest"
    return "diag" if "diag" in names else "diag-cli" if "cli" in names else "rest"


def keep_one_group(config: pytest.Config, items: list[pytest.Item], group_of: Callable[[pytest.Item], str]) -> None:
    """Keep the tests of one group only, where DIFYOPS_GROUP names it (see run.py)."""
    wanted = os.environ.get("DIFYOPS_GROUP")
    if wanted:
        others = [item for item in items if group_of(item) != wanted]
        items[:] = [item for item in items if group_of(item) == wanted]
        config.hook.pytest_deselected(items=others)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run in groups."""
    keep_one_group(config, items, group)


class Hosts(dict[str, Host]):
    """The hosts by name, each with a container that is proven; made ready when first asked for."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self._fleet = fleet

    def __missing__(self, name: str) -> Host:
        host = self[name] = Host(self._fleet, name)
        host.prepare()
        host.good()
        return host


@pytest.fixture(scope="session")
def hosts(fleet: Fleet) -> Hosts:
    """Return the hosts of the fleet."""
    return Hosts(fleet)


def _used(host: Host, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Lend a host that is good to a test, and prove afterwards that it is good again: so the test broke what it says, and only that."""
    host.seen.clear()
    yield host
    promised = {code for mark in request.node.iter_markers("produces") for code in mark.args}
    try:
        host.heal()
        host.good()
    except BaseException:
        host.renew()
        raise
    report = getattr(request.node, "report", None)
    if report is not None and report.passed:
        assert promised <= host.seen, f"marked as producing {sorted(promised - host.seen)}, and never asserted"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.report = report  # type: ignore[attr-defined]
    return report


@pytest.fixture
def diag(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Return the host with pynvml and the Docker SDK."""
    yield from _used(hosts["diag"], request)


@pytest.fixture
def cli(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Return the host with neither: nvidia-smi and the docker command are its sources."""
    yield from _used(hosts["diag-cli"], request)


@pytest.fixture(params=["diag", "diag-cli"])
def host(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Return each of the two in turn, for what is asked in another way on each."""
    yield from _used(hosts[request.param], request)
