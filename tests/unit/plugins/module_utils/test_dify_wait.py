# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.server
import os
import threading

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _dify_wait
from ansible_collections.difyops.gpu.plugins.module_utils._dify_wait import NotReady, Service
from hypothesis import given
from hypothesis import strategies as st


def container(service, status="running", **state):
    labels = {"com.docker.compose.service": service}
    restarts, policy = state.pop("restarts", 0), state.pop("policy", "always")
    config = {"Id": service, "Config": {"Labels": labels}, "RestartCount": restarts, "HostConfig": {"RestartPolicy": {"Name": policy}}}
    return {**config, "State": {"Status": status, "StartedAt": "2026-11-23T01:00:00Z", "Pid": 1, **state}}


class Engine:
    """SIMULATED: gives one list of containers after the other, then the last one for ever."""

    def __init__(self, *rounds):
        self.rounds = list(rounds)

    def containers(self, _project):
        return self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]


def waiter(*rounds, timeout=0.3):
    made = _dify_wait.Waiter(Engine(*rounds), "dify", timeout, settle_s=0.1)
    made.logs = lambda _name, lines: [f"line {number} password=hunter22 known5ecret" for number in range(40)][-lines:]
    made.ask = lambda _pid, _url: None
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_dify_wait, "_INTERVAL_S", 0.02)


def test_services_settle_side_by_side():
    """Each has to stay up for a while, and Dify is away meanwhile: not one while after the other."""
    names = [f"service{number}" for number in range(20)]
    found = waiter([container(name) for name in names], timeout=5).wait([Service(name) for name in names], 20, [])
    assert [one["name"] for one in found] == names
    assert 0.1 <= found[0]["after_s"] <= found[-1]["after_s"] < 20 * 0.1 / 2


def test_each_kind_of_service_gets_ready_in_its_order():
    documents = [
        container("init", "exited", ExitCode=0, policy="no"),
        container("db", Health={"Status": "healthy"}),
        container("api"),
        container("worker"),
    ]
    services = [
        Service("init", one_shot=True),
        Service("db", healthcheck=True),
        Service("api", health="http://127.0.0.1/x"),
        Service("worker"),
    ]
    found = waiter([], documents, timeout=5).wait(services, 20, [])
    assert [(one["name"], one["state"], one["health"]) for one in found] == [
        ("init", "exited", None),
        ("db", "running", "healthy"),
        ("api", "running", "answers"),
        ("worker", "running", None),
    ]
    assert found[-1]["after_s"] >= 0.1


@pytest.mark.parametrize(
    ("service", "rounds", "words"),
    [
        (Service("api"), [[]], "has no container"),
        (Service("api"), [[container("api", "exited", ExitCode=3, policy="no")]], "exit status 3"),
        (Service("api", one_shot=True), [[container("api", "exited", ExitCode=1, policy="no")]], "ended with 1"),
        (Service("api", one_shot=True), [[container("api")]], "its state is running"),
        (Service("api", healthcheck=True), [[container("api", Health={"Status": "unhealthy", "Log": [{"Output": "no way"}]})]], "no way"),
        (
            Service("api"),
            [[container("api", restarts=2)], [container("api", "restarting", ExitCode=1, restarts=8)]],
            "again and again .6 times",
        ),
        (Service("api"), [[container("api", StartedAt=str(number))] for number in range(900)], "stay up"),
        (Service("api"), [[container("api", "exited", ExitCode=137, OOMKilled=True)]], "killed for memory"),
    ],
)
def test_what_is_wrong_is_said_with_masked_log_lines(service, rounds, words):
    with pytest.raises(NotReady, match=words) as caught:
        waiter(*rounds).wait([service], 5, ["known5ecret"])
    assert caught.value.service == "api"
    if rounds[-1]:
        assert len(caught.value.log) == 5 and "line 39" in caught.value.log[-1]
    assert "hunter22" not in str(caught.value.log) and "known5ecret" not in str(caught.value.log)


def test_a_dead_one_shot_is_not_waited_for():
    found = waiter([container("init", "exited", ExitCode=2, policy="no")], timeout=600)
    with pytest.raises(NotReady):
        found.wait([Service("init", one_shot=True)], 0, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root enters a network namespace")
def test_a_url_is_asked_in_the_namespace_of_a_process():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert _dify_wait.ask(os.getpid(), f"{url}/health") is None
        assert _dify_wait.ask(os.getpid(), f"{url}/other") == "it answered 503"
        server.shutdown()
    assert "no answer" in _dify_wait.ask(os.getpid(), url)
    assert _dify_wait.ask(0, url) == "it has no process"


def test_secrets_of_the_file_are_known_in_each_form(tmp_path):
    (tmp_path / "env").write_text("# note\nA='p/w d1'\nB=abc\nC=plain-one\n")
    known = _dify_wait.secret_values(str(tmp_path / "env"))
    assert {"p/w d1", "p%2Fw%20d1", "p%2Fw+d1", "plain-one"} <= set(known) and "abc" not in known
    assert _dify_wait.secret_values(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "line",
    [
        "REDIS_PASSWORD=hunter22",
        'cannot parse {"api_key": "hunter22"}',
        "postgresql://postgres:hunter22@db/dify refused",
        "Authorization: Bearer hunter22hunter22",
        "SECRET_KEY: hunter22",
        "redis://:hunter22@redis:6379/1",
        "\x1b[31mToken=hunter22\x1b[0m",
    ],
)
def test_what_looks_like_a_secret_is_masked(line):
    assert "hunter22" not in _dify_wait.masked(line, []) and "****" in _dify_wait.masked(line, [])


def test_plain_lines_stay():
    assert _dify_wait.masked("could not connect to server: Connection refused", []) == "could not connect to server: Connection refused"


@given(st.text(max_size=400), st.lists(st.text(min_size=4, max_size=9), max_size=2))
def test_masking_never_raises(line, secrets):
    assert len(_dify_wait.masked(line, secrets)) <= 304
