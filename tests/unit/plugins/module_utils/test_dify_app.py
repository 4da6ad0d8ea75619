# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is observed of an upstream Dify, on real folders, real sockets and a made-up engine."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _dify_app, _docker
from hypothesis import given
from hypothesis import strategies as st

CONTAINER = {
    "Id": "c1",
    "Name": "/dify-api-1",
    "Image": "sha256:1",
    "LogPath": "/srv/docker/containers/c1/c1-json.log",
    "Config": {
        "Image": "a:1",
        "Labels": {"com.docker.compose.service": "api", "com.docker.compose.config-hash": "abc"},
        "Env": ["PATH=/bin", "MODE=api", "DB_PASSWORD=canary$1"],
    },
    "State": {"Status": "running", "Running": True, "ExitCode": 0, "StartedAt": "2026-11-20T10:05:00Z"},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "53/udp": [{"HostPort": "53"}], "81/tcp": None}},
}
CONFIG = {"services": {"api": {"environment": {"MODE": "api", "DB_PASSWORD": "canary$$1", "UNSET": None}}}}
JUNK = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)


class Engine:
    def __init__(self, *documents):
        self.documents = list(documents)
        self.asked = []

    def images(self, refs):
        return {ref: {"Id": "sha256:1"} if ref == "a:1" else None for ref in refs}

    def containers(self, project):
        return self.documents if project == "dify" else []

    def exec(self, container, argv, stdin, timeout_s):
        self.asked.append((container, argv))
        return 0, b"7b45942e39bb\n", b""


def install(home, version="1.17.1"):
    folder = home / f"releases/{version}/docker"
    folder.mkdir(parents=True)
    (folder / "docker-compose.yaml").write_text("services: {}\n")
    return folder


def gather(home, engine=None, compose=None, preview=None, **wanted):
    asked = _dify_app.Wanted(home=str(home), project="dify", backup_dir=str(home / "backups"), **wanted)
    host = _dify_app.Host(compose=lambda folder, timeout_s: compose)
    facts, complaints = _dify_app.gather(asked, preview, host, lambda timeout_s: engine or Engine())
    assert json.loads(json.dumps(facts)) == facts
    assert "canary" not in json.dumps([facts, complaints])
    return facts


def test_a_bare_host(tmp_path):
    facts = gather(tmp_path / "none", images=["a:1", "b:1"], files=["/nonexistent"])
    assert (facts["current"], facts["releases"], facts["backups"], facts["journal"], facts["registration"]) == (None, [], [], None, None)
    assert facts["images"]["a:1"]["id"] == "sha256:1" and facts["images"]["b:1"] is None
    assert facts["files"]["/nonexistent"]["exists"] is False and facts["secrets"]["exists"] is False and facts["env"] is None
    assert facts["disk"][str(tmp_path / "none")]["free_mib"] > 0 and facts["memory"]["total_mib"] > 0 and facts["error"] is None


def test_releases_are_whole_and_in_their_order(tmp_path):
    for version in ("1.10.0", "1.9.2", "1.17.1"):
        install(tmp_path, version)
    install(tmp_path, "1.18.0.partial")
    (tmp_path / "releases/2.0.0/docker").mkdir(parents=True)
    (tmp_path / "releases/.unpacking").mkdir()
    assert gather(tmp_path)["releases"] == ["1.9.2", "1.10.0", "1.17.1"]


@pytest.mark.parametrize("relative", [False, True])
def test_the_release_that_runs(tmp_path, relative):
    folder = install(tmp_path)
    (tmp_path / "current").symlink_to("releases/1.17.1/docker" if relative else folder)
    facts = gather(tmp_path)
    assert (facts["current"], facts["current_error"]) == ("1.17.1", None)


def test_a_current_that_is_not_ours_is_told(tmp_path):
    (tmp_path / "current").symlink_to("/srv/dify/docker")
    assert "/srv/dify/docker" in gather(tmp_path)["current_error"]
    (tmp_path / "current").unlink()
    (tmp_path / "current").mkdir()
    assert "is no link" in gather(tmp_path)["current_error"]


def test_of_secrets_only_names(tmp_path):
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "secrets/dify.env"
    path.write_text("# made once\nREDIS_PASSWORD=canary\nDB_PASSWORD=canary\nbroken line canary=1\n")
    path.chmod(0o600)
    secrets = gather(tmp_path)["secrets"]
    assert secrets["keys"] == ["DB_PASSWORD", "REDIS_PASSWORD"] and secrets["mode"] == "0600" and secrets["exists"] is True


def test_backups_newest_first_with_what_was_cut_off(tmp_path):
    for name, when in (("20261101T000000Z-1.16.1", "2026-11-01T00:00:00Z"), ("20261103T000000Z-1.17.1", "2026-11-03T00:00:00Z")):
        folder = tmp_path / "backups" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"schema": 1, "version": name.partition("-")[2], "made_at": when}))
        (folder / "dify.dump").write_bytes(os.urandom(3 * 1024 * 1024))
    (tmp_path / "backups/20261104T000000Z-1.17.1.partial").mkdir()
    (tmp_path / "backups/lost+found").mkdir()
    found = gather(tmp_path)["backups"]
    assert [(item["version"], item["complete"]) for item in found] == [("1.17.1", True), ("1.16.1", True), (None, False)]
    assert found[0]["size_mib"] in (3, 4)


@pytest.mark.parametrize(
    ("content", "told"), [('{"phase": "stop"}', {"phase": "stop"}), ("{", None), ("[]", None), ("null", None), ("", None)]
)
def test_a_journal_and_one_that_cannot_be_read(tmp_path, content, told):
    (tmp_path / "journal.json").write_text(content)
    found = gather(tmp_path)["journal"]
    assert found == told if told else str(tmp_path / "journal.json") in found["error"]


def test_the_last_command_of_an_interrupted_run_is_waited_for(tmp_path):
    """A real process holds the lock, as the commands of the role do."""
    lock = tmp_path / ".lock"
    assert _dify_app.under_way(str(lock), 0.0) is False
    holder = subprocess.Popen(["flock", str(lock), "sh", "-c", "echo held; sleep 1.2"], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert gather(tmp_path)["busy"] is False  # without a journal nothing was interrupted
        (tmp_path / "journal.json").write_text('{"phase": "start"}')
        assert _dify_app.under_way(str(lock), 0.1) is True
        assert gather(tmp_path)["busy"] is False
        assert holder.wait(5) == 0


def test_registration(tmp_path):
    (tmp_path / "model_server").mkdir()
    (tmp_path / "model_server/api_key.sha256").write_text("a" * 64 + "\n")
    assert gather(tmp_path)["registration"] == {"sha256": "a" * 64}
    (tmp_path / "model_server/api_key.sha256").write_text("canary")
    assert gather(tmp_path)["registration"] is None


def test_volumes_are_measured_only_where_another_release_is_wanted(tmp_path):
    (tmp_path / "current").symlink_to(install(tmp_path, "1.16.1"))
    (tmp_path / "volumes/app/storage").mkdir(parents=True)
    (tmp_path / "volumes/app/storage/x").write_bytes(os.urandom(2 * 1024 * 1024))
    assert gather(tmp_path, version="1.16.1")["volumes_mib"] is None and gather(tmp_path)["volumes_mib"] is None
    assert gather(tmp_path, version="1.17.1")["volumes_mib"] in (2, 3)


def test_a_container_and_its_variables(tmp_path):
    (tmp_path / "current").symlink_to(install(tmp_path))
    item = gather(tmp_path, Engine(CONTAINER), CONFIG)["containers"][0]
    assert (item["service"], item["image"], item["config_hash"], item["exit_code"], item["env_applied"]) == (
        "api",
        "a:1",
        "abc",
        None,
        True,
    )
    other = copy.deepcopy(CONFIG)
    other["services"]["api"]["environment"] = {"DB_PASSWORD": "canary2"}
    assert gather(tmp_path, Engine(CONTAINER), other)["containers"][0]["env_applied"] is False
    assert gather(tmp_path, Engine(CONTAINER), None)["containers"][0]["env_applied"] is None
    ended = {**CONTAINER, "State": {"Status": "exited", "ExitCode": 3}}
    facts = gather(tmp_path, Engine(ended), CONFIG)
    assert facts["containers"][0]["exit_code"] == 3 and facts["docker_root"] == "/srv/docker" and "/srv/docker" in facts["disk"]


def test_compose_is_not_asked_without_a_release(tmp_path):
    assert gather(tmp_path, Engine(CONTAINER), CONFIG)["containers"][0]["env_applied"] is None


@pytest.mark.parametrize("answer", ['{"services": {"api": {}}}', "no json", "[]", None])
def test_what_compose_answers(tmp_path, monkeypatch, answer):
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    # It answers only where nothing of the caller's environment counts more than .env.
    program.write_text(
        '#!/bin/sh\n[ -z "$DB_PASSWORD" ] || exit 9\n[ "$4" = config ] || exit 8\n' + (f"echo '{answer}'\n" if answer else "exit 1\n")
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DB_PASSWORD", "of the caller")
    monkeypatch.setattr(_dify_app._command, "find", lambda name: str(program) if name == "docker" else "/usr/bin/env")
    assert _dify_app.compose_config(str(tmp_path), 5) == ({"services": {"api": {}}} if answer and answer.startswith("{") else None)
    assert _dify_app.compose_config(str(tmp_path / "nowhere"), 5) is None


def test_who_listens_on_a_real_socket(tmp_path):
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", 0))
        four.listen()
        ports = [four.getsockname()[1]]
        if socket.has_ipv6:
            six.bind(("::1", 0))
            six.listen()
            ports.append(six.getsockname()[1])
        found = gather(tmp_path, ports=ports)["ports"]
    assert {(item["address"], item["port"], item["pid"], item["container"]) for item in found} == {
        (address, port, os.getpid(), None) for address, port in zip(("127.0.0.1", "::1"), ports)
    }
    assert all(item["name"] for item in found)
    assert gather(tmp_path, ports=ports)["ports"] == []


def test_ports_of_the_projects_own_containers():
    assert _dify_app.published([CONTAINER]) == {8080: "dify-api-1"}


def test_the_schema_of_a_database(tmp_path):
    database = copy.deepcopy(CONTAINER)
    database["Config"]["Labels"]["com.docker.compose.service"] = "db_postgres"
    engine = Engine(database)
    asked = [{"name": "dify", "service": "db_postgres", "user": "postgres"}, {"name": "other", "service": "nowhere", "user": "x"}]
    assert gather(tmp_path, engine, databases=asked)["database"] == {"dify": "7b45942e39bb", "other": None}
    assert len(engine.asked) == 1 and "canary" not in str(engine.asked)


def test_what_dify_env_would_do_is_asked_of_it(tmp_path):
    seen = []

    def preview(options):
        seen.append(options)
        return {"changes": {"added": ["A"], "changed": [], "removed": []}, "generates": [], "replaces": [], "defaults": [], "error": None}

    assert gather(tmp_path, preview=preview, env={"path": "/x"})["env"]["changes"]["added"] == ["A"] and seen == [{"path": "/x"}]


def test_an_engine_that_does_not_answer_is_a_fact(tmp_path):
    def refuse(timeout_s):
        raise _docker.DockerUnavailable("The container engine does not answer.")

    asked = _dify_app.Wanted(home=str(tmp_path), project="dify", backup_dir=str(tmp_path), images=["a:1"])
    facts, _complaints = _dify_app.gather(asked, None, None, refuse)
    assert facts["error"] == "The container engine does not answer." and facts["images"] == {"a:1": None}


@given(st.dictionaries(st.sampled_from(sorted(CONTAINER)), st.none(), max_size=4), st.dictionaries(st.just("services"), JUNK))
def test_no_container_and_no_project_breaks_it(values, config):
    _dify_app.container({**CONTAINER, **values}, config)
    _dify_app.published([{**CONTAINER, **values}])


@given(st.text(alphabet="0123456789ABCDEFabcdef: \n", max_size=200))
def test_no_table_of_sockets_breaks_it(text):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net").mkdir()
        (Path(folder) / "net/tcp").write_text("header\n" + text)
        assert isinstance(_dify_app.listeners([80], folder, {}), list)
