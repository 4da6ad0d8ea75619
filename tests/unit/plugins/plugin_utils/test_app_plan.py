# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of the upstream release: what is done, what is rendered, what is in the way."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_services, _plan_codes
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.app_scenarios import (
    applied,
    bare,
    changed,
    codes,
    override,
    plan,
    release,
    settings,
    wanted,
)
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

VERSIONS = ("1.14.2", "1.16.1", "1.17.1", "1.18.0")
LOCAL = {"local": True, "service_name": "dify-gpu", "project": "dify-gpu", "embedding_model": "BAAI/bge-small-en-v1.5"}


@functools.lru_cache(maxsize=8)
def _host(version="1.17.1"):
    return applied(plan(bare(), version=version))


def host(version="1.17.1"):
    return copy.deepcopy(_host(version))


def container(facts, service):
    return next(item for item in facts["containers"] if item["service"] == service)


# ---- what is done


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bare_host_is_installed_and_then_nothing_is_done(version):
    first = plan(bare(), version=version)
    assert (first["status"], first["action"], first["from"], first["to"]) == ("change", "install", None, version)
    assert first["release"]["unpack"] is True and first["backup"] is None and first["downtime"] is False
    assert first["containers"]["create"] == [service["name"] for service in first["services"]]
    second = plan(host(version), version=version)
    assert (second["status"], second["action"], second["blocked"]) == ("ok", "none", [])
    assert second["files"] == first["files"] and second["env"] == first["env"]
    assert second["containers"] == {"create": [], "recreate": [], "remove": []} and second["release"]["unpack"] is False


def test_the_same_settings_give_the_same_bytes():
    made = [wanted(env={"B": "2", "A": "1"})[1].override, wanted(env={"A": "1", "B": "2"})[1].override]
    assert made[0].content == made[1].content and made[0].labels == made[1].labels


def drifted(facts, what):
    directory = "/opt/dify/releases/1.17.1/docker"
    if what == "override":
        facts["files"][f"{directory}/docker-compose.override.yaml"]["sha256"] = "0" * 64
    elif what == "upstream's own file":
        facts["files"][f"{directory}/docker-compose.yaml"]["sha256"] = "0" * 64
    elif what == "mode of .env":
        facts["files"][f"{directory}/.env"]["mode"] = "0644"
    elif what == "no secrets":
        facts["files"]["/opt/dify/secrets/dify.env"]["exists"] = False
    elif what == "broken secrets":
        facts["env"]["error"] = "line 3 is no variable"
    elif what == "a public default":
        facts["env"]["defaults"] = ["DB_PASSWORD"]
    return facts


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("override", "override.yaml has another content"),
        ("upstream's own file", "docker-compose.yaml has another content"),
        ("mode of .env", "has mode 0644 instead of 0600"),
        ("no secrets", "dify.env is not there"),
        ("broken secrets", ".env cannot be compared (line 3 is no variable)"),
        ("a public default", "DB_PASSWORD has a public default"),
    ],
)
def test_drift_of_files_is_configured(what, says):
    made = plan(drifted(host(), what))
    assert (made["status"], made["action"]) == ("change", "configure")
    assert says in made["reason"] and made["downtime"] is False


@pytest.mark.parametrize(
    ("service", "values", "says"),
    [
        ("web", {"image": "langgenius/dify-web:1.16.0"}, "runs the image langgenius/dify-web:1.16.0"),
        ("web", {"image_id": "sha256:old"}, "runs an older image of langgenius/dify-web:1.17.1"),
        ("api", {"labels": {}}, "was made from another configuration"),
        ("redis", {"env_applied": False}, "has other variables than .env"),
        ("worker", {"state": "exited", "exit_code": 137}, "is exited"),
        ("db_postgres", {"health": "unhealthy"}, "is unhealthy"),
        ("init_permissions", {"exit_code": 1}, "ended with 1"),
    ],
)
def test_drift_of_a_container_recreates_it_alone(service, values, says):
    facts = host()
    container(facts, service).update(values)
    made = plan(facts)
    assert made["action"] == "configure" and made["downtime"] is True
    assert [item["service"] for item in made["containers"]["recreate"]] == [service]
    assert says in made["containers"]["recreate"][0]["reason"] and f"{service} {says}" in made["reason"]


def test_what_is_not_known_or_still_starts_is_no_drift():
    facts = host()
    for item in facts["containers"]:
        item["env_applied"] = None
        item["health"] = "starting" if item["health"] else None
    assert plan(facts)["action"] == "none"


def test_a_missing_container_is_created_and_a_strange_one_goes():
    facts = host()
    facts["containers"] = [item for item in facts["containers"] if item["service"] != "web"]
    facts["containers"].append({"name": "dify-old-1", "service": "old", "labels": {}, "state": "running"})
    facts["containers"].append({"name": "dify-api-run-1", "service": "job", "labels": {"com.docker.compose.oneoff": "True"}})
    made = plan(facts)
    assert (made["containers"]["create"], made["containers"]["remove"]) == (["web"], ["dify-old-1"])


def test_a_changed_variable_recreates_who_takes_it():
    facts = host("1.14.2")
    facts["env"]["changes"]["changed"] = ["SANDBOX_GIN_MODE"]
    made = plan(facts, version="1.14.2")
    named = {item["service"] for item in made["containers"]["recreate"]}
    assert "sandbox" in named and "web" not in named and "SANDBOX_GIN_MODE" in made["reason"]


def test_a_changed_setting_is_seen_in_the_containers_that_have_it():
    made = plan(host(), resources={"web": {"memory": "1g"}})
    assert [item["service"] for item in made["containers"]["recreate"]] == ["web"]


def test_an_upgrade_stops_writers_first_and_backs_up():
    facts = changed(host("1.16.1"), volumes_mib=1200)
    made = plan(facts)
    assert (made["status"], made["action"], made["from"], made["to"]) == ("change", "upgrade", "1.16.1", "1.17.1")
    assert made["downtime"] is True and made["release"]["unpack"] is True
    kinds = {service["name"]: service["kind"] for service in made["services"]}
    assert [kinds[name] for name in made["order"]["stop"]] == [
        "api",
        "worker",
        "beat",
        "websocket",
        "agent",
        "plugin_daemon",
        "vector_store",
    ]
    assert made["backup"] == {
        "paths": ["volumes/app/storage", "volumes/plugin_daemon", "volumes/weaviate"],
        "volumes": ["dify_dify_local_sandbox_home"],
        "keep": 3,
    }
    assert made["databases"] == [{"name": name, "service": "db_postgres", "user": "postgres"} for name in ("dify", "dify_plugin")]
    assert made["needs"]["disk"]["/var/backups/dify"] == 1200


def test_an_older_release_needs_consent():
    assert codes(plan(host("1.18.0"))) == [_plan_codes.APP_DOWNGRADE]
    assert plan(host("1.18.0"), allow_downgrade=True)["status"] == "change"


@pytest.mark.parametrize("phase", ["pull", "stop", "backup", "migrate", "start", "prove"])
def test_an_interrupted_run_is_finished(phase):
    journal = {"action": "upgrade", "from": "1.16.1", "to": "1.17.1", "phase": phase, "backup": None}
    made = plan(changed(host("1.16.1"), journal=journal))
    assert (made["action"], made["status"], made["from"]) == ("finish", "change", "1.16.1")
    assert made["resume"] == {**journal, "go_back": False}
    assert [warning["code"] for warning in made["warnings"]].count("DG918") == 1


def test_little_room_does_not_keep_half_an_upgrade_from_its_end():
    journal = {"action": "upgrade", "from": "1.16.1", "to": "1.17.1", "phase": "migrate", "backup": "/var/backups/dify/x"}
    facts = changed(host("1.16.1"), journal=journal, memory={"total_mib": 10}, images={})
    facts["disk"]["/opt/dify"]["free_mib"] = 1
    assert (plan(facts)["status"], plan(changed(facts, journal=None))["status"]) == ("change", "blocked")


def test_what_an_interrupted_run_has_left_at_work_is_waited_for():
    journal = {"action": "upgrade", "from": "1.16.1", "to": "1.17.1", "phase": "migrate", "backup": None}
    made = plan(changed(host("1.16.1"), journal=journal, busy=True))
    assert codes(made) == [_plan_codes.APP_INTERRUPTED] and "(phase migrate)" in made["blocked"][0]["message"]


def test_what_was_cut_off_before_anything_was_stopped_needs_room_like_any_other():
    journal = {"action": "install", "from": None, "to": "1.17.1", "phase": "pull", "backup": None}
    facts = changed(bare(), journal=journal, memory={"total_mib": 10})
    made = plan(facts)
    assert (made["action"], codes(made)) == ("finish", ["DG907"])


@pytest.mark.parametrize("name", ["DB_PASSWORD", "SECRET_KEY"])
def test_another_secret_than_that_of_the_data(name):
    facts = host()
    facts["env"] = {**facts["env"], "replaces": [name, "SANDBOX_API_KEY"]}
    made = plan(facts)
    assert codes(made) == [_plan_codes.APP_NOT_OF_THE_DATA]
    assert name in made["blocked"][0]["message"] and "SANDBOX_API_KEY" not in made["blocked"][0]["message"]
    # Containers of a run that was cut off have written already; on a bare host there is no data.
    assert _plan_codes.APP_NOT_OF_THE_DATA in codes(plan(changed(facts, current=None)))
    assert codes(plan(changed(bare(), env=facts["env"]))) == []
    assert codes(plan(changed(facts, env={**facts["env"], "replaces": ["SANDBOX_API_KEY"]}))) == []


def test_a_backup_of_another_host_comes_to_a_bare_one():
    backup = {"name": "20261123T010203Z-1.17.1", "version": "1.17.1", "complete": True}
    made = plan(changed(bare(), backups=[backup]), rollback=backup["name"])
    assert (made["action"], made["status"], made["from"], made["to"]) == ("rollback", "change", None, "1.17.1")


def test_an_interrupted_run_to_another_release_goes_back_first():
    journal = {"action": "upgrade", "from": "1.16.1", "to": "1.18.0", "phase": "migrate", "backup": "/var/backups/dify/x"}
    made = plan(changed(host("1.16.1"), journal=journal))
    assert made["resume"]["go_back"] is True and "undone first" in made["reason"]


@pytest.mark.parametrize("journal", [{"error": "no JSON"}, {"phase": 3}, ["x"], "x"])
def test_a_journal_that_tells_nothing_blocks(journal):
    assert codes(plan(changed(host(), journal=journal))) == [_plan_codes.APP_INTERRUPTED]


def test_a_rollback_needs_a_whole_backup_of_that_release():
    backup = {"name": "20261123T010203Z-1.16.1", "version": "1.16.1", "complete": True}
    facts = changed(host(), backups=[backup], volumes_mib=10)
    ask = {"version": "1.16.1", "rollback": backup["name"]}
    made = plan(facts, **ask)
    assert (made["action"], made["status"], made["from"], made["to"]) == ("rollback", "change", "1.17.1", "1.16.1")
    assert made["backup"] is not None and made["order"]["stop"]
    for wrong in ([], [{**backup, "complete": False}], [{**backup, "version": "1.14.2"}]):
        assert codes(plan(changed(facts, backups=wrong), **ask)) == ["DG916"]


def test_a_dify_elsewhere_gets_models_and_nothing_else():
    made = plan(bare(), state="external", model_server={**LOCAL})
    assert (made["status"], made["action"], made["release"], made["files"], made["services"]) == ("ok", "none", None, {}, [])
    assert made["model_server"]["register"] is True and made["model_server"]["endpoint_url"] == "http://dify-gpu:8000/v1"
    assert codes(plan(bare(), state="external", url="", model_server={**LOCAL})) == ["DG922"]


def test_absent_takes_services_and_keeps_data():
    made = plan(host(), state="absent")
    assert (made["action"], made["status"], made["remove_data"]) == ("remove", "change", False)
    assert len(made["containers"]["remove"]) == len(host()["containers"]) and made["model_server"] is None
    assert plan(host(), state="absent", remove_data=True)["remove_data"] is True
    assert plan(bare(), state="absent")["action"] == "none"


# ---- what is rendered


@pytest.mark.parametrize("version", VERSIONS)
def test_what_every_service_of_the_override_has(version):
    made = plan(bare(), version=version, log_max_size="20m", log_max_file=2)
    services = override(made)["services"]
    assert set(services) == {service["name"] for service in made["services"]}
    for definition in services.values():
        assert definition["labels"]["org.difyops.config"] and definition["pull_policy"] == "never"
        assert definition["logging"] == {"driver": "json-file", "options": {"max-size": "20m", "max-file": "2"}}
        for mount in definition.get("volumes", []):
            assert mount["source"].startswith("/opt/dify/volumes/") and mount["bind"] == {"create_host_path": True}


def test_nothing_is_published_but_the_site():
    made = plan(bare(), bind_address="10.0.0.5", http_port=8080)
    services = override(made)["services"]
    assert services["nginx"]["ports"] == [{"target": 80, "published": "8080", "host_ip": "10.0.0.5", "protocol": "tcp"}]
    assert services["plugin_daemon"]["ports"] == [] and "ports: !override []" in next(iter(made["files"].values()))["content"]
    assert made["env"]["settings"]["EXPOSE_NGINX_PORT"] == "8080" and made["tls"] is None


def test_tls_by_the_releases_own_variables():
    made = plan(bare(), url="https://dify.example.org", tls_certificate="/c.pem", tls_key="/k.pem", https_port=8443)
    ports = override(made)["services"]["nginx"]["ports"]
    assert [(port["target"], port["published"]) for port in ports] == [(80, "80"), (443, "8443")]
    env = made["env"]["settings"]
    assert env["NGINX_HTTPS_ENABLED"] == "true" and env["NGINX_SSL_CERT_FILENAME"] == "dify.crt"
    assert made["tls"] == {"certificate": "nginx/ssl/dify.crt", "key": "nginx/ssl/dify.key"}
    assert env["NEXT_PUBLIC_SOCKET_URL"] == "wss://dify.example.org"


def test_the_sites_url_is_everywhere_and_the_operators_own_counts():
    env = plan(bare(), env={"FILES_URL": "http://files.example.org", "LOG_LEVEL": "DEBUG"})["env"]["settings"]
    for key in ("CONSOLE_API_URL", "APP_WEB_URL", "TRIGGER_URL", "WEB_API_CORS_ALLOW_ORIGINS", "CONSOLE_CORS_ALLOW_ORIGINS"):
        assert env[key] == "http://dify.example.org"
    assert env["FILES_URL"] == "http://files.example.org" and env["LOG_LEVEL"] == "DEBUG"


def test_the_plugin_daemon_joins_the_model_servers_network_and_keeps_its_own():
    made = plan(bare(), model_server=LOCAL)
    document = override(made)
    assert document["networks"] == {"model_server": {"external": True, "name": "dify-gpu_default"}}
    assert document["services"]["plugin_daemon"]["networks"] == {"default": {}, "model_server": {}}
    assert [name for name, item in document["services"].items() if "networks" in item] == ["plugin_daemon"]
    raw = copy.deepcopy(release().raw)
    raw["services"]["plugin_daemon"]["networks"] = ["ssrf_proxy_network", "default"]
    other = override(plan(bare(), dataclasses.replace(release(), raw=raw), model_server=LOCAL))
    assert list(other["services"]["plugin_daemon"]["networks"]) == ["ssrf_proxy_network", "default", "model_server"]
    assert "networks" not in override(plan(bare(), model_endpoint_url="https://models.example.org/v1", model_server={"key_known": True}))


def test_images_come_pinned_and_from_the_sites_registry():
    digest = "sha256:" + "c" * 64
    pins = {"nginx:latest": digest, "busybox:latest": "busybox:1.36"}
    made = plan(bare(), registry="registry.example.org/mirror", image_pins=pins)
    images = {service["name"]: service["image"] for service in made["services"]}
    assert images["api"] == "registry.example.org/mirror/langgenius/dify-api:1.17.1"
    assert images["nginx"] == f"registry.example.org/mirror/nginx:latest@{digest}" and images["init_permissions"] == "busybox:1.36"
    assert {"DG917"} == {warning["code"] for warning in made["warnings"]}
    assert "squid" in made["warnings"][0]["message"] and "nginx" not in made["warnings"][0]["message"]


def test_resources_of_a_service():
    worker = override(plan(bare(), resources={"worker": {"cpus": 2, "memory": "3g"}}))["services"]["worker"]
    assert worker["deploy"]["resources"]["limits"] == {"cpus": "2", "memory": "3g"}


def test_no_secret_and_no_default_of_one_is_rendered():
    for version in VERSIONS:
        # The public default of one is also the name of its image.
        text = json.dumps(plan(bare(), version=version)).replace("langgenius/dify-sandbox", "")
        defaults = {release(version).env_example.get(secret["name"]) for secret in release(version).secrets} - {None, ""}
        assert len(defaults) >= 5 and not [default for default in defaults if default in text]


@pytest.mark.parametrize("version", VERSIONS)
def test_kinds_and_order_of_services(version):
    services = plan(bare(), version=version)["services"]
    kinds = {service["name"]: service["kind"] for service in services}
    expected = {"api": "api", "worker": "worker", "worker_beat": "beat", "web": "web", "nginx": "proxy", "db_postgres": "database"}
    expected.update(redis="cache", weaviate="vector_store", plugin_daemon="plugin_daemon", sandbox="sandbox", init_permissions="init")
    assert expected.items() <= kinds.items() and "db_mysql" not in kinds and "certbot" not in kinds
    if version != "1.14.2":
        assert kinds["api_websocket"] == "websocket" and kinds["agent_backend"] == "agent"
    seen: set[str] = set()
    for service in services:
        assert {name for name in service["depends_on"] if name in kinds} <= seen
        seen.add(service["name"])
    health = {service["name"]: (service["healthcheck"], service["health"], service["one_shot"]) for service in services}
    assert health["init_permissions"] == (False, None, True) and health["worker"] == (False, None, False)
    assert health["db_postgres"] == (True, None, False)
    assert health["plugin_daemon"] == (False, "http://127.0.0.1:5002/health/check", False)


def test_another_vector_store_by_its_profile():
    made = plan(bare(), env={"VECTOR_STORE": "qdrant"})
    assert [service["name"] for service in made["services"] if service["kind"] == "vector_store"] == ["qdrant"]


def test_a_circle_of_services_ends():
    services = [
        _app_services.Service(name, "x", "other", False, False, None, (other,), (), (), (), False, frozenset(), {})
        for name, other in ("ab", "ba")
    ]
    assert [item.name for item in _app_services._ordered(services)] == ["a", "b"]


# ---- what is in the way


def test_ports_of_others_block_and_our_own_do_not():
    listener = {"address": "0.0.0.0", "port": 80, "pid": 12, "name": "apache2", "container": None}
    made = plan(changed(bare(), ports=[listener]))
    assert codes(made) == [_plan_codes.APP_PORT] and "apache2 (process 12)" in made["blocked"][0]["message"]
    assert codes(plan(changed(bare(), ports=[{**listener, "container": "dify-nginx-1"}]))) == []
    assert codes(plan(changed(bare(), ports=[{**listener, "address": "10.0.0.9"}]), bind_address="10.0.0.5")) == []
    assert codes(plan(changed(bare(), ports=[{**listener, "address": "::"}]), bind_address="10.0.0.5")) == ["DG905"]
    assert codes(plan(changed(bare(), ports=[listener]), http_port=8080)) == []


def test_disk_is_added_up_for_each_file_system():
    facts = bare()
    need = plan(facts)["needs"]["disk"]
    total = need["/opt/dify"] + need["/var/lib/docker"]
    for free, blocked in ((total, []), (total - 1, [_plan_codes.APP_DISK])):
        facts["disk"]["/opt/dify"]["free_mib"] = facts["disk"]["/var/lib/docker"]["free_mib"] = free
        assert codes(plan(facts)) == blocked
    images = {item["reference"]: {"id": "x"} for item in plan(facts)["images"]}
    there = plan(changed(facts, images=images))
    assert codes(there) == [] and there["needs"]["download_images"] == 0


def test_room_for_the_backup_is_asked_for():
    facts = changed(host("1.16.1"), volumes_mib=60000)
    made = plan(facts)
    assert codes(made) == ["DG906"] and "/var/backups/dify 60000 MiB" in made["blocked"][0]["message"]


def test_memory():
    assert codes(plan(changed(bare(), memory={"total_mib": 2000}))) == [_plan_codes.APP_MEMORY]
    assert codes(plan(changed(bare(), memory={"total_mib": 3900}))) == []
    assert codes(plan(changed(bare(), memory={"total_mib": None}))) == []
    assert codes(plan(bare(), resources={"api": {"memory": "12g"}, "worker": {"memory": "12g"}})) == ["DG907"]


def test_compose():
    for version, blocked in (("2.24.3", [_plan_codes.APP_COMPOSE]), ("2.24.4", []), ("v2.40.1", []), (None, []), ("?", [])):
        assert codes(plan(bare(), nvidia={"engine": {"compose_version": version}})) == blocked
    newer = dataclasses.replace(release(), compose_min="2.35.0")
    assert codes(plan(bare(), newer, {"engine": {"compose_version": "2.26.1"}})) == ["DG909"]
    assert plan(bare(), newer)["release"]["compose_min"] == "2.35.0" and plan(bare())["release"]["compose_min"] == "2.24.4"


@pytest.mark.parametrize("url", ["", "dify.example.org", "ftp://x", "http://u:p@x", "http://x/path", "http://x y", "http://[", "https://x"])
def test_a_url_that_cannot_be_used(url):
    made = plan(bare(), url=url)
    assert codes(made) == [_plan_codes.APP_OPTION] and "dify_url" in made["blocked"][0]["message"]
    assert "u:p" not in json.dumps(made)


def test_another_compose_project_in_the_place():
    facts = host()
    for item in facts["containers"]:
        item["labels"]["com.docker.compose.project.working_dir"] = "/srv/dify/docker"
    made = plan(facts)
    assert _plan_codes.APP_FOREIGN in codes(made) and "/srv/dify/docker" in made["blocked"][0]["message"]
    assert codes(plan(facts, state="absent")) == ["DG924"]
    assert "DG924" in codes(plan(changed(bare(), current_error="/opt/dify/current leads to /x.")))


def test_a_key_that_nobody_knows():
    ask = {"model_endpoint_url": "https://models.example.org/v1"}
    assert codes(plan(bare(), **ask)) == [_plan_codes.APP_NO_KEY]
    assert codes(plan(bare(), **ask, model_register=False)) == codes(plan(bare(), **ask, model_server={"key_known": True})) == []


def test_settings_that_do_not_go_with_the_release():
    assert codes(plan(bare(), resources={"nobody": {"cpus": 1}})) == ["DG922"]
    assert codes(plan(bare(), env={"EXPOSE_NGINX_PORT": "81"})) == ["DG922"]
    assert codes(plan(bare(), env={"COMPOSE_FILE": "x.yaml", "COMPOSE_PROJECT_NAME": "x"})) == ["DG922", "DG922"]
    secret = plan(bare(), env={"DB_PASSWORD": "canary"})
    assert codes(secret) == [_plan_codes.APP_DEFAULT_KEPT] and "canary" not in json.dumps(secret)
    unknown = plan(bare(), env={"DROPPED_BY_UPSTREAM": "1"})
    assert unknown["status"] == "change" and unknown["warnings"][0]["code"] == _plan_codes.APP_UNKNOWN_KEY
    loose = plan(bare(), dataclasses.replace(release(), unknown_secrets=["NEW_TOKEN"]))
    assert "NEW_TOKEN" in next(warning["message"] for warning in loose["warnings"] if warning["code"] == "DG913")


def test_what_of_a_release_is_not_known():
    assert codes(plan(bare(), env={"DB_TYPE": "mysql"})) == [_plan_codes.APP_UNKNOWN]
    assert codes(plan(bare(), env={"COMPOSE_PROFILES": "weaviate", "DB_HOST": "db.example.org"})) == ["DG904"]
    assert codes(plan(bare(), env={"VECTOR_STORE": "couchbase"})) == ["DG904"]
    assert codes(plan(bare(), dataclasses.replace(release(), raw={"services": {}}))) == ["DG904"] * 3


def test_all_that_is_in_the_way_is_told():
    facts = changed(bare(), memory={"total_mib": 100}, ports=[{"address": "0.0.0.0", "port": 80, "name": "x", "container": None}])
    facts["disk"]["/opt/dify"]["free_mib"] = 1
    made = plan(facts, nvidia={"engine": {"compose_version": "2.0.0"}}, url="", model_endpoint_url="http://m/v1")
    assert set(codes(made)) == {"DG905", "DG906", "DG907", "DG909", "DG922", "DG925"} and made["status"] == "blocked"
    assert all(block["remedy"] and block["message"] for block in made["blocked"])


def test_an_engine_that_does_not_answer():
    assert codes(plan(changed(bare(), error="no answer"))) == [_plan_codes.DIFY_NOT_READABLE]


# ---- what an operator can write


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"version": "latest"}, "version (dify_version)"),
        ({"home": "opt"}, "home (dify_home)"),
        ({"home": "/opt/$x"}, "home (dify_home)"),
        ({"project": "Dify"}, "project (dify_project)"),
        ({"bind_address": "eth0"}, "bind_address (dify_bind_address)"),
        ({"http_port": 0}, "http_port (dify_http_port)"),
        ({"tls_certificate": "/c"}, "belong together"),
        ({"tls_certificate": "/c", "tls_key": "/k", "behind_proxy": True}, "the proxy's own"),
        ({"tls_certificate": "/c", "tls_key": "/k", "https_port": 80}, "have to differ"),
        ({"archive_checksum": "md5:1"}, "archive_checksum (dify_archive_checksum)"),
        ({"env": {"A B": "1"}}, "env (dify_env)"),
        ({"env": {"A": ["x"]}}, "env (dify_env)"),
        ({"env": {"A": "x\ny"}}, "env (dify_env)"),
        ({"registry": "https://r"}, "registry (dify_registry)"),
        ({"image_pins": {"nginx:latest": "sha256:1 2"}}, "image_pins (dify_image_pins)"),
        ({"resources": {"api": {"cpu": 1}}}, "resources (dify_resources)"),
        ({"resources": {"api": {"cpus": 0}}}, "resources (dify_resources)"),
        ({"resources": {"api": {"memory": "lots"}}}, "resources (dify_resources)"),
        ({"log_max_size": "big"}, "log_max_size (dify_log_max_size)"),
        ({"log_max_file": 0}, "log_max_file (dify_log_max_file)"),
        ({"backup_keep": 0}, "backup_keep (dify_backup_keep)"),
        ({"rollback": "../x"}, "name of a backup"),
        ({"model_endpoint_url": "http://u:secret@x"}, "model_endpoint_url (dify_model_endpoint_url)"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_sentence(options, says):
    with pytest.raises(WishError) as caught:
        settings(**options)
    assert says in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")


# ---- properties

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted(bare())
# A whole plan for each example takes its time on a machine that is at work.
SLOW = hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=6), st.booleans())
def test_no_facts_break_the_plan(values, over):
    facts = {**host(), **values} if over else values
    made = plan(facts, model_server=LOCAL)
    assert made["status"] in ("ok", "change", "blocked") and (made["status"] == "blocked") == bool(made["blocked"])
    json.dumps(made)


@SLOW
@given(ANYTHING)
def test_no_document_at_all_breaks_the_plan(facts):
    assert plan(facts)["action"] in ("install", "upgrade", "configure", "finish", "none")


@SLOW
@given(ANYTHING, ANYTHING)
def test_no_container_breaks_the_plan(first, second):
    facts = host()
    for item in facts["containers"]:
        item["labels"], item["exit_code"] = first, second
    assert plan(changed(facts, containers=[*facts["containers"], first, second]))["status"] in ("change", "blocked")


@SLOW
@given(st.dictionaries(st.sampled_from(["services", "volumes", "networks"]), ANYTHING, max_size=3))
def test_no_release_breaks_the_plan(raw):
    assert plan(bare(), dataclasses.replace(release(), raw=raw))["status"] == "blocked"


@SLOW
@given(ANYTHING)
def test_no_definition_of_a_service_breaks_the_plan(definition):
    raw = copy.deepcopy(release().raw)
    raw["services"]["api"] = definition
    raw["services"]["web"] = {"image": "x", **dict.fromkeys(("volumes", "ports", "networks", "depends_on", "healthcheck"), definition)}
    assert plan(bare(), dataclasses.replace(release(), raw=raw))["status"] in ("change", "blocked")
