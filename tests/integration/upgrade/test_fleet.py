# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole fleet from 535 to 580 with the service up; and then there is nothing to do."""
from __future__ import annotations

import pytest

from .lab import HOSTS, OLD, Load, Site, Upgrade

RACKS = {host: {"rack": "a" if host < "g4" else "b"} for host in HOSTS}


@pytest.fixture(scope="module")
def upgraded(site: Site) -> tuple[Upgrade, Load]:
    """Upgrade all hosts, rack by rack. Returns also the requests that went through the balancer meanwhile."""
    with Load(site.port, threads=2) as load:
        wishes = {"upgrade_canary": 0, "upgrade_serial": 3, "upgrade_serial_by": "rack", "upgrade_max_unavailable": "50%"}
        run = site.upgrade(HOSTS, each=RACKS, **wishes)
    return run, load


def test_six_hosts_in_batches_under_load(site: Site, upgraded: tuple[Upgrade, Load]) -> None:
    run, load = upgraded
    assert load.problems == [] and load.answered > 500, (load.answered, load.problems[:10])
    for host in HOSTS:
        record = run.ends(host, "upgraded", code=None, in_service=True)
        assert record["from"] == OLD and record["to"].startswith("580.") and record["image_to"] != record["image_from"], record
        assert {"save", "out", "driver", "serve", "back"} <= set(record["phases"]) and record["seconds"] > 5, record["phases"]
        site.settled(host, "580")
    waves = {host: record["wave"] for host, record in run.records.items()}
    assert waves == {"g1": "1", "g2": "1", "g3": "1", "g4": "2", "g5": "2", "g6": "2"}, waves
    assert len({record["run"] for record in run.records.values()}) == 1


def test_a_second_run_has_nothing_to_do(site: Site, upgraded: tuple[Upgrade, Load]) -> None:
    run = site.upgrade(HOSTS)
    for host in HOSTS:
        run.ends(host, "unchanged", wave=None)
    # Seconds on a machine that has nothing else to do; here it is told by what the first run took.
    assert run.run.seconds < upgraded[0].run.seconds / 2, (run.run.seconds, upgraded[0].run.seconds)
    recap = run.output.partition("PLAY RECAP")[2]
    assert [line for line in recap.splitlines() if line.startswith("g") and "changed=0 " not in line] == [], recap
    site.old(*HOSTS)
