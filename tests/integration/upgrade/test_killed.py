# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller dies in each phase, one after the other on the same host: the next run goes on, and nothing is lost on the way."""
from __future__ import annotations

import json

import pytest
from thorough import ALL, thorough

from .lab import BREAKS_WITH_580, JOURNAL, OLD, OLD_VARIANT, Load, Site, phase

ONE, OTHER = "g5", "g6"
ROLE_JOURNAL = "/var/lib/difyops/nvidia_driver/journal.json"
# What holds on the host when the controller is killed; in phase `driver` the role has phases of its own. All but the one
# in which most is half done only with DIFYOPS_ALL (four minutes more).
MOMENTS = {
    "save": phase("save"),
    "out": phase("out"),
    "packages": f"""grep -q '"phase": *"packages"' {ROLE_JOURNAL}""",
    "activate": f"""grep -q '"phase": *"activate"' {ROLE_JOURNAL}""",
    "serve": phase("serve"),
    "prove": phase("prove"),
    "back": phase("back"),
}
if not ALL:
    MOMENTS = {"packages": MOMENTS["packages"]}


@pytest.mark.parametrize("moment", MOMENTS)
def test_it_is_killed(site: Site, moment: str) -> None:
    with Load(site.port) as load:
        site.kill(ONE, MOMENTS[moment])
    assert load.problems == [], load.problems[:10]
    journal = json.loads(site.sh(ONE, f"cat {JOURNAL}"))
    # What only memory knew: it is that of the first run, whichever run has written it.
    assert journal["former"]["version"] == OLD and journal["variant"] == OLD_VARIANT, journal
    assert journal["in_service"] is (moment == "save"), journal


def test_the_last_run_finishes_it(site: Site) -> None:
    run = site.upgrade([ONE])
    record = run.ends(ONE, "upgraded", wave="resume", in_service=True)
    assert record["from"] == OLD, record
    site.settled(ONE, "580")


@thorough
def test_a_way_back_that_was_killed_is_finished_first(site: Site) -> None:
    site.sh(OTHER, f"cat > /etc/systemd/system/breaks.service <<'END'\n{BREAKS_WITH_580}END\nsystemctl enable --quiet breaks.service")
    site.kill(OTHER, phase("rollback"))
    run = site.upgrade([OTHER])
    run.ends(OTHER, "rolled_back", wave="resume", code="DG314", in_service=True)
    site.settled(OTHER, "535")
