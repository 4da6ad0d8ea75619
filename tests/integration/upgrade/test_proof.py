# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A canary that fails: it goes back, nobody else is touched, and the next run finishes the job."""
from __future__ import annotations

import json
from pathlib import Path

from thorough import thorough

from .lab import BREAKS_WITH_580, FAILED, HOOKS, JOURNAL, OLD, Load, Site

CANARY, OTHER = PAIR = ("g1", "g2")
NGINX = "/etc/nginx/conf.d/dify.conf"


@thorough
def test_hooks_that_fail_leave_the_host_as_it_was(site: Site) -> None:
    run = site.upgrade([CANARY], each={CANARY: {"upgrade_haproxy_backend": "nobody"}})
    run.ends(CANARY, "failed", "nobody", code="DG854")
    assert site.loaded(CANARY) == OLD
    site.serves(CANARY)


def test_a_canary_that_fails_its_proof_is_rolled_back(site: Site) -> None:
    site.sh(CANARY, f"cat > /etc/systemd/system/breaks.service <<'END'\n{BREAKS_WITH_580}END\nsystemctl enable --quiet breaks.service")
    with Load(site.port) as load:
        run = site.upgrade(PAIR)
    assert load.problems == [], load.problems[:10]
    record = run.ends(CANARY, "rolled_back", phase="serve", code="DG314", in_service=True)
    assert record["phases"]["rollback"] > 5, record["phases"]
    run.ends(OTHER, "not_run", CANARY, code="DG856")
    for host in PAIR:
        site.settled(host, "535")
    assert json.loads(site.sh(CANARY, f"cat {FAILED}"))["code"] == record["code"]


@thorough
def test_a_canary_that_is_left_as_it_is_stays_out_until_the_next_run(site: Site) -> None:
    # Though its failure is tolerated, there is no room for the other one.
    run = site.upgrade(PAIR, upgrade_on_failure="leave", upgrade_tolerated_failures=1, upgrade_max_unavailable=1)
    run.ends(CANARY, "failed", code="DG314", phase="serve", in_service=False)
    run.ends(OTHER, "not_run", CANARY, code="DG856")
    assert "no more than 1 may be at once" in site.text(run.output)
    assert site.loaded(CANARY).startswith("580.") and site.states()[CANARY] != "UP", site.states()
    site.settled(OTHER, "535")
    # The next run may choose otherwise.
    run = site.upgrade([CANARY])
    run.ends(CANARY, "rolled_back", wave="resume", code="DG314", in_service=True)
    site.settled(CANARY, "535")


@thorough
def test_a_way_back_that_fails_leaves_its_host_out_and_is_tolerated_where_that_is_said(site: Site) -> None:
    """What was saved is gone when it is needed; and after a canary there is a pause, even after one that failed."""
    gone = f"cat >> /etc/systemd/system/breaks.service.d/gone.conf <<'END'\n[Service]\nExecStart=rm -r {Path(JOURNAL).parent}/packages\nEND"
    site.sh(CANARY, f"mkdir /etc/systemd/system/breaks.service.d\n{gone}")
    run = site.upgrade(PAIR, upgrade_canary=1, upgrade_canary_pause=2, upgrade_tolerated_failures=1)
    run.ends(CANARY, "failed", "then, on the way back", "upgrade_on_failure: leave", code="DG853", phase="rollback", in_service=False)
    assert "DG855" in run.output, "nothing was said of the upgrade that failed before"
    assert site.states()[CANARY] != "UP", site.states()
    assert "Pausing for 2 seconds" in run.output
    run.ends(OTHER, "upgraded", wave="1")
    site.settled(OTHER, "580")


@thorough
def test_the_next_run_finishes_the_job_when_the_cause_is_gone(site: Site) -> None:
    site.sh(CANARY, "systemctl disable --quiet breaks.service; rm -r /etc/systemd/system/breaks.service*")
    site.sh(CANARY, "sed -i /^cu_init_error/d /etc/simgpu/profile")
    run = site.upgrade(PAIR, upgrade_on_failure="leave")
    run.ends(CANARY, "upgraded", wave="resume", in_service=True)
    run.ends(OTHER, "unchanged")
    assert "DG855" in run.output, "nothing was said of the upgrade that failed before"
    for host in PAIR:
        site.settled(host, "580")
    assert site.sh(CANARY, "ls /var/lib/difyops/upgrade") == ""


def test_nginx_is_told_as_well(site: Site) -> None:
    """The hooks alone, without a driver: a line of the upstream is marked, twice without harm, and the mark goes again."""
    upstream = "upstream dify {\n    server 10.0.0.1:8000 max_fails=1;\n    server 10.0.0.2:8000;\n}\n"
    site.sh("lb", "rm -f /etc/nginx/sites-enabled/default; systemctl start nginx")
    site.sh("lb", f"cat > {NGINX} <<'END'\n{upstream}END")
    names = {"host": "lb", "file": NGINX, "server": "10.0.0.1:8000", "drain": 1}
    variables = {f"upgrade_nginx_{name}": value for name, value in names.items()}
    include = {"include_tasks": {"file": str(HOOKS / "nginx_out.yml")}}
    run = site.play(CANARY, include, include, vars=variables)
    assert run.rc == 0, run.output
    assert "server 10.0.0.1:8000 max_fails=1 down;" in site.sh("lb", f"cat {NGINX}")
    run = site.play(CANARY, *[{"include_tasks": {"file": str(HOOKS / "nginx_back.yml")}}] * 2, vars=variables)
    assert run.rc == 0, run.output
    assert site.sh("lb", f"cat {NGINX}") == upstream.strip()
    run = site.play(CANARY, include, vars={**variables, "upgrade_nginx_check": ["false"]})
    assert run.rc != 0 and "nginx does not take its configuration" in site.text(run.output), run.output
    assert site.sh("lb", f"cat {NGINX}") == upstream.strip(), "the line was not put back"
    # One server's name begins another's.
    run = site.play(CANARY, include, vars={**variables, "upgrade_nginx_server": "10.0.0.2:800"})
    assert run.rc != 0 and "has no line `server 10.0.0.2:800`" in site.text(run.output), run.output
    site.sh("lb", "systemctl stop nginx")
