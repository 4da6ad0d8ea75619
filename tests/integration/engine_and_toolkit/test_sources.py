# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another source for the engine: the distribution's gives way to Docker's own packages by name only, and what ran runs again."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from driver.conftest import lent
from driver.lab import same

from .families import BARE, repository
from .lab import IDLE, PlatformFleet, PlatformHost

FROM_DOCKER: dict[str, Any] = {"provision_parts": ["engine"], "engine_source": "docker", "engine_repository": repository("docker/debian")}


@pytest.fixture(scope="module")
def prepared(fleet: PlatformFleet) -> PlatformHost:
    """Return the host with Debian's own engine and a container."""
    host = PlatformHost(fleet, BARE)
    host.provision(provision_parts=["engine"])
    host.stubs_only()
    host.standin_image()
    host.sh("docker rm --force --volumes dify other || true")
    host._sh(f"docker run --detach --name other standin:cuda12.6 {IDLE}")
    return host


@pytest.fixture
def bare(prepared: PlatformHost) -> Iterator[PlatformHost]:
    """Return the host with Debian's own engine and a container."""
    yield from lent(prepared)


def test_an_engine_that_will_do_stays_whatever_the_source(bare: PlatformHost) -> None:
    bare.provision(**FROM_DOCKER).quiet()


def test_an_engine_that_will_not_do_is_not_replaced_unless_the_source_is_named(bare: PlatformHost) -> None:
    before = bare.whole()
    run = bare.provision(provision_parts=["engine"], engine_compose_min="99.0")
    run.ends("blocked", "99.0", "container_engine_source", code="DG802")
    same(before, bare.whole())


def test_replacing_it_needs_consent_where_a_container_runs(bare: PlatformHost) -> None:
    bare.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq --yes remove docker-compose > /dev/null")
    assert bare.facts()["engine"]["compose_version"] is None
    before = bare.whole()
    bare.provision(**FROM_DOCKER).blocked("engine", "DG806", "other", "container_engine_restart")
    same(before, bare.whole())


def test_with_consent_it_is_replaced_and_the_container_runs_again(bare: PlatformHost) -> None:
    before = bare.state("other")
    run = bare.provision(**FROM_DOCKER, engine_restart="if_needed").ends("changed")
    gone = {one["name"] for one in run.last("engine")["packages"]["remove"]}
    assert "docker.io" in gone, run.last("engine")["packages"]
    engine = bare.facts()["engine"]
    assert (engine["origin"], engine["journal"], engine["service"]) == ("docker", None, {"enabled": True, "active": True}), engine
    assert bare.state("other")[:2] == (before[0], True)
    bare.provision(**FROM_DOCKER).quiet()
