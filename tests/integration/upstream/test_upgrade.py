# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades keep the data, failed ones bring everything back, and whatever is interrupted is finished by the next run."""
from __future__ import annotations

import json

import pytest
from thorough import thorough

from .lab import BACKUPS, HOME, ROLLBACK, App

# The first is of the layout that upstream had before 1.15.
OLD, NEW, NEWEST = "1.14.2", "1.17.1", "1.17.2"
REVISIONS = {OLD: "a1142", NEW: "c1171", NEWEST: "d1172"}
# Where an upgrade is killed, and killed again when the next run goes on with it, before it is taken back. The last phase, the proof, is
# that of the run that comes to its end.
KILLED = (("migrate", "start"), ("pull",), ("stop", "backup"))


@pytest.fixture(scope="module")
def old(app: App) -> App:
    """Return the host with the older release and something in its database."""
    app.bare()
    app.deploy(dify_version=OLD).ok()
    app.say("from before")
    return app


def whole(app: App, version: str) -> None:
    """Assert that a release runs on tables of its own, with its data, and nothing is left of any run."""
    assert app.version() == version
    assert app.sql("SELECT version_num FROM alembic_version") == [REVISIONS[version]]
    assert app.said("from before")
    assert app.phase() is None
    assert app.containers()["api"]["State"]["Running"] and app.containers()["worker"]["State"]["Running"]
    status, page = app.get("/")
    assert status == 200 and version in page


def test_an_upgrade_that_fails_half_way_brings_everything_back(old: App) -> None:
    old.fault(f"{NEW}:migration_fails")
    secrets = old.secrets()
    run = old.deploy(dify_version=NEW).fails("DG915")
    assert run.outcome["status"] == "rolled_back", run.outcome
    old.fault()
    whole(old, OLD)
    # The newer release has some that the former one does not know; none of those that are in use is another one.
    assert secrets.items() <= old.secrets().items()


@thorough
def test_a_release_that_never_gets_healthy_brings_the_former_one_back(old: App) -> None:
    old.fault(f"{NEW}:never_healthy")
    run = old.deploy(dify_version=NEW, dify_start_timeout=25).fails("DG914", "api")
    assert run.outcome["status"] == "rolled_back", run.outcome
    old.fault()
    whole(old, OLD)


def test_check_mode_says_what_an_upgrade_would_do(old: App) -> None:
    before = old.state()
    run = old.deploy("--check", "--diff", dify_version=NEW)
    assert run.run.rc == 0 and (run.plan["action"], run.plan["from"], run.plan["to"]) == ("upgrade", OLD, NEW)
    stop = run.plan["order"]["stop"]
    assert {"api", "worker", "worker_beat", "api_websocket", "agent_backend", "plugin_daemon", "weaviate"} <= set(stop)
    assert stop.index("weaviate") > max(stop.index(writer) for writer in ("api", "worker", "plugin_daemon"))
    assert run.plan["downtime"] is True and old.state() == before


@thorough
@pytest.mark.parametrize("phases", KILLED, ids="-".join)
def test_an_upgrade_that_was_killed_is_taken_back(old: App, phases: tuple[str, ...]) -> None:
    """Killed at the beginning of a phase; the next run, for the former release, ends with that one whole."""
    for phase in phases:
        old.site.kill_at(old, phase, {"dify_version": NEW})
    old.deploy(dify_version=OLD).ok()
    whole(old, OLD)


def test_an_upgrade_that_was_killed_goes_on(old: App) -> None:
    old.site.kill_at(old, "prove", {"dify_version": NEW})
    run = old.deploy(dify_version=NEW).ok()
    assert run.plan["action"] == "finish", run.plan
    whole(old, NEW)


def test_the_backup_is_of_one_point_of_time(old: App) -> None:
    """The manifest is whole, and in the dump no number of the worker is missing in the files."""
    newest = old.sh(f"ls -d {BACKUPS}/*-{OLD} | sort | tail -1").strip()
    manifest = json.loads(old.sh(f"cat {newest}/manifest.json"))
    assert manifest["version"] == OLD
    for name, told in manifest["files"].items():
        assert old.sh(f"sha256sum {newest}/{name}").split()[0] == told["sha256"].removeprefix("sha256:"), name
    assert old.sh(f"stat -c %a {newest}").strip() == "700"


def test_a_newer_release_keeps_the_data_and_reports_the_downtime(old: App) -> None:
    old.say("from between")
    run = old.deploy(dify_version=NEWEST).ok()
    whole(old, NEWEST)
    assert old.said("from between")
    assert run.outcome["before"] != run.outcome["after"] and 0 < run.outcome["downtime_s"] < 300, run.outcome
    assert run.outcome["backup"], run.outcome
    database, files, vectors = old.worked()
    assert max(database, files, vectors) - min(database, files, vectors) <= 1
    assert old.deploy(dify_version=NEWEST).ok().changed == 0


def test_the_way_back_by_accident_is_refused(old: App) -> None:
    before = old.state()
    old.deploy(dify_version=NEW).blocked("DG912", NEWEST, NEW)
    assert old.state() == before


def test_the_former_release_is_kept(old: App) -> None:
    assert {OLD, NEW, NEWEST} <= set(old.sh(f"ls {HOME}/releases").split())


def test_the_way_back_says_what_would_be_lost_and_asks(old: App) -> None:
    before = old.state()
    run = old.deploy(playbook=ROLLBACK, dify_version=NEWEST)
    assert run.run.rc != 0 and run.outcome["status"] == "blocked", run.output
    for words in (NEW, "is lost with it", "dify_rollback_confirm=true"):
        assert words in run.outcome["message"], run.outcome
    assert old.state() == before


def test_the_way_back_brings_the_data_of_then_and_keeps_that_of_now(old: App) -> None:
    old.say("from the end")
    run = old.deploy(playbook=ROLLBACK, dify_version=NEWEST, dify_rollback_confirm=True).ok()
    whole(old, NEW)
    assert old.said("from between") and not old.said("from the end")
    assert old.sh(f"ls {run.outcome['backup']}/manifest.json") and run.outcome["backup"].endswith(f"-{NEWEST}"), run.outcome
    assert old.deploy(dify_version=NEW).ok().changed == 0
