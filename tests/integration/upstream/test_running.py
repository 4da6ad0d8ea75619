# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One command, and Dify runs with embedding and reranking on the image service beside it; a second one changes nothing."""
from __future__ import annotations

import json

import pytest

from .lab import HOME, REGISTRY, App, Deployment

BUDGET = 6
VERSION = "1.17.1"
# What the release runs with the profiles of its own defaults, once it is up.
SERVICES = {
    "init_permissions", "db_postgres", "redis", "weaviate", "sandbox", "local_sandbox", "plugin_daemon", "agent_backend", "ssrf_proxy",
    "agent_ssrf_proxy", "api", "api_websocket", "worker", "worker_beat", "web", "nginx",
}


def test_check_mode_tells_all_and_touches_nothing(app: App) -> None:
    app.bare()
    before = app.state()
    run = app.deploy("--check", "--diff")
    assert run.run.rc == 0, run.output
    assert (run.plan["status"], run.plan["action"], run.plan["to"]) == ("change", "install", VERSION)
    assert {service["name"] for service in run.plan["services"]} == SERVICES
    assert app.state() == before


def test_one_command_and_everything_is_proven(deployed: Deployment) -> None:
    deployed.proven()
    links = [link["link"] for link in deployed.verdict["links"]]
    assert links == ["containers", "web", "api", "secrets", "setup", "provider", "embedding", "rerank"]
    assert deployed.plan["action"] == "install" and deployed.plan["from"] is None


def test_the_site_answers_from_outside(both: App, deployed: Deployment) -> None:
    status, page = both.get("/")
    assert status == 200 and VERSION in page
    status, text = both.get("/console/api/setup")
    assert status == 200 and json.loads(text)["step"] == "finished"


def test_what_runs_is_the_release_unmodified(both: App, deployed: Deployment) -> None:
    containers = both.containers()
    assert set(containers) == SERVICES
    assert containers["api"]["Config"]["Image"] == f"{REGISTRY}/langgenius/dify-api:{VERSION}"
    running = {service for service, one in containers.items() if one["State"]["Running"]}
    assert running == SERVICES - {"init_permissions"}
    assert containers["init_permissions"]["State"]["ExitCode"] == 0
    assert both.api_health()["version"] == VERSION
    assert both.sh(f"readlink -f {HOME}/current").strip() == f"{HOME}/releases/{VERSION}/docker"


def test_requests_arrive_at_the_image_service(both: App, deployed: Deployment) -> None:
    assert both.served("embeddings") >= 1 and both.served("rerank") >= 1


def test_the_debugging_port_is_not_published(both: App, deployed: Deployment) -> None:
    published = {port for one in both.containers().values() for port, hosts in (one["NetworkSettings"]["Ports"] or {}).items() if hosts}
    assert published == {"80/tcp"}


def test_origins_are_the_site(both: App, deployed: Deployment) -> None:
    environment = both.environments()["api"]
    for name in ("CONSOLE_CORS_ALLOW_ORIGINS", "WEB_API_CORS_ALLOW_ORIGINS"):
        assert environment[name] == f"http://127.0.0.1:{both.web_port}", environment[name]


def test_logs_are_limited(both: App, deployed: Deployment) -> None:
    for service, one in both.containers().items():
        limits = one["HostConfig"]["LogConfig"]["Config"]
        assert (limits.get("max-size"), limits.get("max-file")) == ("10m", "5"), service


def test_data_belongs_to_no_release(both: App, deployed: Deployment) -> None:
    release = f"{HOME}/releases/"
    for service, one in both.containers().items():
        inside = [mount["Source"] for mount in one["Mounts"] if mount["Source"].startswith(release) and "/volumes" in mount["Source"]]
        assert inside == [], service
    assert both.sh(f"ls {HOME}/volumes/db/data/pgdata/PG_VERSION").strip()
    database, files, vectors = both.worked()
    assert min(database, files, vectors) > 0


@pytest.fixture(scope="module")
def second(both: App, deployed: Deployment) -> Deployment:
    """Return a second run, right after the first."""
    return both.deploy("--diff")


def test_a_second_run_changes_nothing(second: Deployment) -> None:
    second.proven()
    assert second.changed == 0, second.output
    assert (second.plan["status"], second.plan["action"]) == ("ok", "none")


def test_a_second_run_is_cheap(second: Deployment) -> None:
    assert 0 < len(second.modules) <= BUDGET, second.modules


def test_a_service_that_somebody_stopped_comes_back(both: App, second: Deployment) -> None:
    both.sh("docker stop --time 1 dify-worker-1")
    run = both.deploy().proven()
    assert run.plan["action"] == "configure"
    assert both.containers()["worker"]["State"]["Running"]


def test_another_setting_makes_only_what_has_it_anew(both: App, second: Deployment) -> None:
    before = {service: one["Id"] for service, one in both.containers().items()}
    run = both.deploy(dify_env={"POSTGRES_SHARED_BUFFERS": "32MB", "POSTGRES_MAX_CONNECTIONS": "60", "LOG_LEVEL": "DEBUG"}).proven()
    after = {service: one["Id"] for service, one in both.containers().items()}
    assert both.environments()["api"]["LOG_LEVEL"] == "DEBUG"
    assert run.plan["action"] == "configure" and after["api"] != before["api"]
    # The proxy asks for the addresses of those behind it only when it starts, and Compose makes it anew with them.
    assert both.get("/console/api/setup")[0] == 200
    assert {"db_postgres", "redis", "web", "weaviate"} <= {service for service in after if after[service] == before[service]}
    both.deploy().proven()
