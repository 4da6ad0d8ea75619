# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setup, models and proof by Dify's console API, against the stand-in that enforces what Dify enforces, over HTTP."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _console, _console_models, _dify_verify, _tls
from hypothesis import given
from hypothesis import strategies as st

STANDIN = Path(__file__).parents[3] / "simhost/dify-standin/console.py"
EMAIL, PASSWORD, GATE, KEY = "admin@example.org", "Canary0Password0Canary", "Canary0Gate0Canary", "Canary0Key0Canary"
EMBEDDING = _console_models.Model("small", "text-embedding", "http://model:8000/v1")
RERANK = _console_models.Model("ranker", "rerank", "http://model:8000/v1")
MODULES = "ansible_collections.difyops.gpu.plugins.modules"
dify_setup, dify_model_provider, dify_verify = (f"{MODULES}.{name}" for name in ("dify_setup", "dify_model_provider", "dify_verify"))
AS_OPTIONS = [{"model": one.model, "type": one.type, "endpoint_url": one.endpoint_url} for one in (EMBEDDING, RERANK)]


def _load():
    spec = importlib.util.spec_from_file_location("console_standin", STANDIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


standin = _load()


class Server:
    """The stand-in on a port of its own, with a model server that knows one key."""

    def __init__(self):
        self.key, self.asked = KEY, []
        made = standin.handler(documents=standin.Memory(), call_model=self.call, version="1.17.1", init_password=GATE)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), made)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def call(self, url, headers, document):
        self.asked.append((url, document))
        if headers["Authorization"] != f"Bearer {self.key}":
            return 401, '{"error": {"message": "This API key is not known."}}'
        return 200, "{}"


@pytest.fixture
def run_module(tmp_path):
    """Run a module as a host does, as a program; all that it prints is looked through for secrets."""

    def run(module, options, fails=False, check=False):
        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": check, "_ansible_diff": True}}))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        command = [sys.executable, "-m", module, str(arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert "Canary0" not in done.stdout + done.stderr, done.stdout + done.stderr
        told = json.loads(done.stdout)
        assert bool(told.get("failed")) is fails, told
        told.pop("invocation", None)
        return told

    return run


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(standin, "INSTALL_S", 0.0)
    monkeypatch.setattr(_console_models, "_PAUSE_S", 0.01)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def host(server, tmp_path):
    """The options of all three modules."""
    secrets = tmp_path / "dify.env"
    secrets.write_text(f"ADMIN_PASSWORD={PASSWORD}\nINIT_PASSWORD={GATE}\n")
    (tmp_path / "api_key.env").write_text(f"API_KEY={KEY}\n")
    (tmp_path / "plugin.difypkg").write_bytes(b"STAND-IN plugin")
    return {"url": server.url, "email": EMAIL, "password_file": str(secrets)}


@pytest.fixture
def models(host, tmp_path):
    return {
        **host, "models": AS_OPTIONS, "api_key_file": str(tmp_path / "api_key.env"), "plugin_package": str(tmp_path / "plugin.difypkg"),
        "registration_file": str(tmp_path / "registered"),
    }


def gated(host):
    return {**host, "init_password_file": host["password_file"]}


@pytest.fixture
def ready(host, run_module):
    """A Dify with its first account."""
    assert run_module(dify_setup, gated(host))["changed"] is True


def quiet(result):
    """Nothing secret is in what a module tells."""
    assert "Canary0" not in json.dumps(result), result
    return result


def test_the_first_account_is_made_once(host, run_module, server):
    assert quiet(run_module(dify_setup, gated(host), check=True))["changed"] is True
    assert quiet(run_module(dify_setup, gated(host))) == {"changed": True, "step": "not_started"}
    assert quiet(run_module(dify_setup, gated(host))) == {"changed": False, "step": "finished"}
    visitor = _console.Console(server.url)
    visitor.login(EMAIL, PASSWORD)
    assert visitor.get(f"{_console_models.WORKSPACE}/plugin/list")["plugins"] == []


def test_the_gate_is_shut_with_another_password(host, run_module):
    told = quiet(run_module(dify_setup, {**host, "init_password": "something else"}, fails=True))
    assert told["code"] == "DG920" and "POST /console/api/init" in told["msg"] and "Init password validation failed" in told["msg"]


@pytest.mark.usefixtures("ready")
def test_another_password_is_refused(server):
    with pytest.raises(_console.ConsoleError, match=r"refuses the login of admin@example\.org") as caught:
        _console.Console(server.url).login(EMAIL, "Wrong0Password")
    assert caught.value.code == "DG920"


def test_nobody_answers():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(_console.ConsoleError, match="does not answer") as caught:
        _console.Console(url, tries=1).setup_step()
    assert caught.value.code == "DG923"


@pytest.mark.usefixtures("ready")
def test_models_are_registered_once(models, run_module, server):
    foretold = quiet(run_module(dify_model_provider, models, check=True))
    assert server.asked == []
    made = quiet(run_module(dify_model_provider, models))
    assert made == foretold == {
        "changed": True, "plugin": "installed", "defaults": ["text-embedding", "rerank"],
        "models": [
            {"model": "small", "type": "text-embedding", "action": "added"},
            {"model": "ranker", "type": "rerank", "action": "added"},
        ],
    }
    assert [url.rpartition("/v1")[2] for url, _document in server.asked] == ["/embeddings", "/rerank"]
    again = quiet(run_module(dify_model_provider, models))
    assert again["changed"] is False and {one["action"] for one in again["models"]} == {"none"} and len(server.asked) == 2


@pytest.mark.usefixtures("ready")
def test_another_key_is_registered(models, run_module, server, tmp_path):
    run_module(dify_model_provider, models)
    server.key = "Canary0Other0Canary"
    (tmp_path / "api_key.env").write_text("API_KEY=Canary0Other0Canary\n")
    told = quiet(run_module(dify_model_provider, models))
    assert [one["action"] for one in told["models"]] == ["updated", "updated"] and told["plugin"] == "none"
    assert quiet(run_module(dify_model_provider, models))["changed"] is False
    assert (tmp_path / "registered").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("ready")
def test_a_model_server_that_refuses_is_named_in_its_own_words(models, run_module, server):
    server.key = "another"
    told = quiet(run_module(dify_model_provider, models, fails=True))
    assert told["code"] == "DG921" and "This API key is not known" in told["msg"] and "http://model:8000/v1" in told["msg"]


@pytest.mark.usefixtures("ready")
def test_without_a_marketplace_the_package_is_asked_for(models, run_module):
    told = quiet(run_module(dify_model_provider, {**models, "plugin_package": None}, fails=True))
    assert told["code"] == "DG921" and "dify_plugin_package" in told["msg"]


def container(service, image="langgenius/dify-api:1.17.1", status="running", env=(), code=0, health=None):
    state = {"Status": status, "ExitCode": code, **({"Health": {"Status": health}} if health else {})}
    return {"Config": {"Image": image, "Env": list(env), "Labels": {"com.docker.compose.service": service}}, "State": state}


SERVICES = [{"name": "api", "image": "langgenius/dify-api:1.17.1"}, {"name": "init", "image": "busybox", "one_shot": True}]
GOOD = [container("api"), container("init", "busybox", "exited")]


def proof(server, containers, models=(EMBEDDING, RERANK), email=EMAIL, forbidden=None, version="1.17.1", tls=None):
    wanted = _dify_verify.Wanted(
        "dify", SERVICES, version, forbidden or {"DB_PASSWORD": [hashlib.sha256(b"difyai123456").hexdigest()]}, email, lambda: PASSWORD,
        _console_models.PROVIDER, models, lambda: KEY, tls=tls,
    )
    return quiet(_dify_verify.prove(wanted, _console.Console(server.url, tries=1), lambda _project: list(containers)))


def links(verdict):
    return {link["link"]: (link["status"], link["code"]) for link in verdict["links"]}


@pytest.mark.usefixtures("ready")
def test_a_certificate_that_is_not_served_fails_the_proof(server, monkeypatch):
    site = _tls.Endpoint("127.0.0.1", 443, "dify.example.org", "/opt/dify/current/nginx/ssl/dify.crt")
    monkeypatch.setattr(_tls, "compare", lambda _endpoint: "the certificate with SHA-256 0123456789abcdef")
    verdict = proof(server, GOOD, tls=site)
    assert list(links(verdict))[:4] == ["containers", "web", "tls", "api"]
    told = next(link for link in verdict["links"] if link["link"] == "tls")
    assert (told["status"], told["code"]) == ("failed", "DG919") and "restart it" in told["remedy"]
    assert told["seen"] == "the certificate with SHA-256 0123456789abcdef"
    monkeypatch.setattr(_tls, "compare", lambda _endpoint: None)
    assert links(proof(server, GOOD, tls=site))["tls"] == ("ok", None)
    assert "tls" not in links(proof(server, GOOD))


@pytest.mark.usefixtures("ready")
def test_everything_is_proven(models, run_module, server):
    run_module(dify_model_provider, models)
    before = len(server.asked)
    verdict = proof(server, GOOD)
    assert verdict["overall"] == "failed" and links(verdict)["web"] == ("failed", "DG923")  # the stand-in has no page
    assert {name: told for name, told in links(verdict).items() if name != "web"} == dict.fromkeys(
        ("containers", "api", "secrets", "setup", "provider", "embedding", "rerank"), ("ok", None)
    )
    assert len(server.asked) == before + 2


@pytest.mark.parametrize(
    "containers, link, code, words",
    [
        ([], "containers", "DG914", "api has no container"),
        ([container("api", "langgenius/dify-api:1.16.1"), GOOD[1]], "containers", "DG914", "has the image langgenius/dify-api:1.16.1"),
        ([container("api", status="restarting"), GOOD[1]], "containers", "DG914", "api is restarting"),
        ([container("api", health="unhealthy"), GOOD[1]], "containers", "DG914", "api is unhealthy"),
        ([GOOD[0], container("init", "busybox", "exited", code=3)], "containers", "DG914", "init ended with 3"),
        ([container("api", env=["DB_PASSWORD=difyai123456"]), GOOD[1]], "secrets", "DG913", "api has DB_PASSWORD"),
    ],
)
def test_what_is_wrong_with_containers_is_named(server, containers, link, code, words):
    verdict = proof(server, containers, models=(), email="")
    found = next(one for one in verdict["links"] if one["link"] == link)
    assert (found["status"], found["code"]) == ("failed", code) and words in found["seen"] and found["remedy"]
    assert "difyai123456" not in json.dumps(verdict)


@pytest.mark.usefixtures("ready")
def test_a_model_that_is_not_registered_is_named(server):
    verdict = proof(server, GOOD)
    assert links(verdict)["provider"] == ("failed", "DG921") and links(verdict)["embedding"] == ("skipped", None)


def test_a_dify_without_an_account_is_named(server):
    assert links(proof(server, GOOD))["setup"] == ("failed", "DG920")


def test_another_release_is_named(server):
    assert links(proof(server, GOOD, version="1.18.0"))["api"] == ("failed", "DG914")


def test_a_verdict_is_no_failure(run_module):
    told = run_module(dify_verify, {"url": "http://127.0.0.1:9"})
    verdict = told["ansible_facts"]["dify_verdict"]
    assert (told["changed"], verdict["overall"], verdict["code"]) == (False, "failed", "DG923")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["data", "plugins", "task", "status", "step", "versions", "model", "model_type", "provider", "result", "task_id"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)


class Anything(_console.Console):
    """A Dify of another time."""

    def __init__(self, answers):
        super().__init__("http://127.0.0.1:9", tries=1)
        self.answers = answers

    def ask(self, method, path, body=None, data=None, content_type=""):
        status, document = self.answers.pop(0) if self.answers else (200, {})
        return _console.Answer(status, document, json.dumps(document), {})


ANSWERS = st.lists(st.tuples(st.sampled_from([200, 201, 302, 400, 401, 404, 500]), JSON), max_size=6)


@given(ANSWERS)
def test_no_answer_is_a_traceback(answers):
    """Whatever Dify answers, it ends in a sentence."""
    acts = (
        lambda one: one.setup_step(),
        lambda one: one.login(EMAIL, PASSWORD),
        lambda one: _console_models.of_provider(one, _console_models.PROVIDER),
        lambda one: _console_models.installed(one, "langgenius/openai_api_compatible"),
        lambda one: _console_models.install(one, "langgenius/openai_api_compatible", None, deadline_s=0),
        lambda one: _console_models.save(one, _console_models.PROVIDER, EMBEDDING, KEY, True),
        lambda one: _console_models.validate(one, _console_models.PROVIDER, EMBEDDING, KEY),
        lambda one: _console_models.default_of(one, "rerank"),
    )
    for act in acts:
        try:
            act(Anything(list(answers)))
        except _console.ConsoleError as error:  # noqa: PERF203  each act by itself
            assert error.code in ("DG920", "DG921") and KEY not in str(error) and PASSWORD not in str(error)
