# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three modules of Dify's console as programs, as a host runs them, against the stand-in over HTTP."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import sys

import pytest
from ansible_collections.difyops.gpu.tests.unit.plugins.module_utils import console_standin as standin

PACKAGE = "ansible_collections.difyops.gpu.plugins.modules"


class Host:
    """A folder with the files of secrets, and what the modules said so far."""

    def __init__(self, folder, dify, server):
        self.folder, self.dify, self.server, self.said = folder, dify, server, ""
        self.write("dify.env", f"INIT_PASSWORD={standin.GATE}\nADMIN_PASSWORD={standin.PASSWORD}\n")
        self.write("api_key.env", f"API_KEY={standin.KEY}\n")
        self.registration = folder / "api_key.sha256"

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def run(self, module, check=False, **options):
        internal = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_verbosity": 3}
        account = {"url": self.dify.url, "email": standin.EMAIL, "password_file": str(self.folder / "dify.env")}
        arguments = self.folder / "arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**account, **options, **internal}}))
        done = subprocess.run(
            [sys.executable, "-m", f"{PACKAGE}.{module}", str(arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        self.said += done.stdout + done.stderr
        return json.loads(done.stdout)

    def setup(self, **options):
        return self.run("dify_setup", **{"name": "admin", "init_password_file": str(self.folder / "dify.env"), **options})

    def _models(self):
        url = f"{self.server.url}/v1"
        models = [{"model": "e", "type": "text-embedding", "endpoint_url": url}, {"model": "r", "type": "rerank", "endpoint_url": url}]
        return {"models": models, "api_key_file": str(self.folder / "api_key.env"), "registration_file": str(self.registration)}

    def provide(self, **options):
        self.write("plugin.difypkg", "STAND-IN plugin")
        return self.run("dify_model_provider", **{"plugin_package": str(self.folder / "plugin.difypkg"), **self._models(), **options})

    def verify(self, **options):
        return self.run("dify_verify", **{"version": "1.17.1", **self._models(), **options})["ansible_facts"]["dify_verdict"]

    def links(self, **options):
        return {link["link"]: link["status"] for link in self.verify(**options)["links"]}


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path, standin.Dify(), standin.ModelServer())
    yield made
    for secret in standin.SECRETS:
        assert secret not in made.said
        assert base64.b64encode(secret.encode()).decode() not in made.said
        assert all(secret not in path.read_text() for path in [made.registration] if path.exists())


@pytest.fixture
def connected(host):
    host.setup()
    host.provide()
    return host


def test_the_first_account_is_made_once(host):
    assert host.setup(check=True)["changed"] is True
    assert ("POST", "/console/api/setup") not in host.dify.asked
    assert host.setup()["changed"] is True
    assert host.dify.documents.load("account") == {"email": standin.EMAIL, "password": standin.PASSWORD}
    second = host.setup()
    assert (second["changed"], second["step"]) == (False, "finished")


def test_a_wrong_gate_is_said(host):
    host.write("dify.env", f"INIT_PASSWORD=another\nADMIN_PASSWORD={standin.PASSWORD}\n")
    told = host.setup()
    assert told["failed"] and told["code"] == "DG920"
    assert "POST /console/api/init" in told["msg"]
    assert host.dify.documents.load("account") is None


def test_a_password_that_nobody_has_is_said(host):
    host.write("dify.env", "OTHER=1\n")
    told = host.setup(init_password=standin.GATE)
    assert told["failed"] and "ADMIN_PASSWORD" in told["msg"]


def test_models_are_registered_once_and_check_mode_tells_it(host):
    host.setup()
    foreseen = host.provide(check=True)
    assert host.dify.documents.load("plugins") is None
    first = host.provide()
    for told in (foreseen, first):
        assert (told["changed"], told["plugin"]) == (True, "installed")
        assert [one["action"] for one in told["models"]] == ["added", "added"]
        assert told["defaults"] == ["text-embedding", "rerank"]
    assert sorted(host.server.asked) == ["/v1/embeddings", "/v1/rerank"]
    assert host.registration.stat().st_mode & 0o777 == 0o600
    second = host.provide()
    assert (second["changed"], second["plugin"], second["defaults"]) == (False, "none", [])
    assert [one["action"] for one in second["models"]] == ["none", "none"]
    assert len(host.server.asked) == 2


def test_a_rotated_key_is_seen_by_the_verdict_and_registered(connected):
    assert connected.verify()["overall"] == "proven"
    connected.server.key = standin.NEW_KEY
    connected.write("api_key.env", f"API_KEY={standin.NEW_KEY}\n")
    verdict = connected.verify()
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG921")
    assert verdict["summary"].startswith("provider:")
    assert [one["action"] for one in connected.provide(check=True)["models"]] == ["updated", "updated"]
    assert set(connected.dify.kept.values()) == {standin.KEY}
    assert [one["action"] for one in connected.provide()["models"]] == ["updated", "updated"]
    assert set(connected.dify.kept.values()) == {standin.NEW_KEY}
    assert connected.verify()["overall"] == "proven"


def test_a_model_server_that_refuses_the_key_is_said(host):
    host.setup()
    host.server.key = "something else"
    told = host.provide()
    assert told["failed"] and told["code"] == "DG921"
    assert "401" in told["msg"] and host.server.url in told["msg"]
    assert not host.registration.exists()


def test_a_model_server_that_is_away_is_said(connected):
    connected.server.server.shutdown()
    connected.server.server.server_close()
    verdict = connected.verify()
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG921")
    assert verdict["summary"].startswith("embedding:")


def test_a_key_that_nobody_has_is_said(host):
    host.setup()
    (host.folder / "api_key.env").unlink()
    told = host.provide()
    assert told["failed"] and told["code"] == "DG925"


def test_the_marketplace_that_is_out_of_reach_names_the_way_out(host):
    host.setup()
    told = host.provide(plugin_package=None)
    assert told["failed"] and told["code"] == "DG921"
    assert "dify_plugin_package" in told["msg"]


def test_a_default_that_somebody_changed_comes_back(connected):
    kept = connected.dify.documents.load("defaults")
    connected.dify.documents.save("defaults", {"rerank": kept["rerank"]})
    told = connected.provide()
    assert (told["changed"], told["defaults"]) == (True, ["text-embedding"])
    assert connected.dify.documents.load("defaults") == kept


def test_the_verdict_tells_the_first_broken_link(host):
    assert host.links()["setup"] == "failed"
    host.setup()
    assert host.links() == {
        "containers": "skipped", "web": "ok", "api": "ok", "secrets": "skipped", "setup": "ok",
        "provider": "failed", "embedding": "skipped", "rerank": "skipped",
    }
    host.provide()
    verdict = host.verify()
    assert (verdict["overall"], verdict["code"]) == ("proven", None)
    order = ["containers", "web", "api", "secrets", "setup", "provider", "embedding", "rerank"]
    assert [link["link"] for link in verdict["links"]] == order
    assert host.links(version="1.16.1")["api"] == "failed"


def test_a_site_that_is_away_is_a_verdict(host):
    host.dify.server.shutdown()
    host.dify.server.server_close()
    verdict = host.verify()
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG923")
    assert verdict["summary"].startswith("web:")


def test_what_a_server_says_back_is_never_shown(host):
    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            said = self.server.says.get((self.command, self.path), {"message": f"what is {body}"})
            data = json.dumps(said).encode()
            self.send_response(200 if "message" not in said else 400)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET

        def log_message(self, *_arguments):
            pass

    server, host.dify.url = standin.serve(Echo)
    step, gate = ("GET", "/console/api/setup"), ("GET", "/console/api/init")
    server.says = {step: {"step": "not_started"}, gate: {"status": "not_started"}}
    assert "/console/api/init" in host.setup()["msg"]
    server.says[gate] = {"status": "finished"}
    assert "/console/api/setup" in host.setup()["msg"]
    server.says[step] = {"step": "finished"}
    assert host.provide()["code"] == "DG920"
    assert host.verify()["overall"] == "failed"
    assert host.said.count("***") >= 4
