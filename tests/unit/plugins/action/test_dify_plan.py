# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action dify_plan: options, defaults, where facts come from, what is to be looked at first, and one sentence for each mistake."""

from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible_collections.difyops.gpu.plugins.action import dify_plan
from ansible_collections.difyops.gpu.plugins.modules import dify_app_facts, gpu_plan
from ansible_collections.difyops.gpu.plugins.modules import dify_plan as stub
from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_load, _compose_text
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.app_scenarios import URL, applied, archive_file, bare, codes


@pytest.fixture
def options(tmp_path):
    def make(**given):
        version = given.get("version", "1.17.1")
        return dify_plan.validated({"url": URL, "archive_file": archive_file(version, tmp_path), **given})

    return make


def test_from_the_archive_to_an_unchanged_host(options):
    first = dify_plan.make_plan(options(), {"dify_app": bare()}, "h1")
    assert (first["host"], first["action"], first["blocked"]) == ("h1", "install", [])
    assert len(first["release"]["sha256"]) == 64 and first["release"]["archive"].endswith("dify-1.17.1.tar.gz")
    second = dify_plan.make_plan(options(), {"dify_app": applied(first)}, "h1")
    assert (second["status"], second["action"]) == ("ok", "none")


def test_facts_of_the_options_win(options):
    facts = {"dify_app": bare(), "nvidia": {"engine": {"compose_version": "2.0.0"}}}
    assert codes(dify_plan.make_plan(options(), facts, "h1")) == ["DG909"]
    assert codes(dify_plan.make_plan(options(nvidia={}), facts, "h1")) == []
    assert dify_plan.make_plan(options(dify_app={"current": "1.16.1"}), facts, "h1")["action"] == "upgrade"


def test_what_is_to_be_looked_at_are_options_of_the_facts_module(options):
    look, blocked = dify_plan.make_look(options(http_port=8080))
    known = yaml.safe_load(dify_app_facts.DOCUMENTATION)["options"]
    assert blocked == [] and set(look) <= set(known)
    assert look["ports"] == [8080] and "langgenius/dify-api:1.17.1" in look["images"]
    assert "/opt/dify/releases/1.17.1/docker/.env" in look["files"] and "given" not in look["env"]
    assert dify_plan.make_look(options(state="absent"))[0]["files"] == []


def test_the_action_tells_its_scope(options, monkeypatch):
    action = dify_plan.ActionModule.__new__(dify_plan.ActionModule)
    monkeypatch.setattr(dify_plan.ActionBase, "run", lambda *_args: {})
    for scope in ("release", "host"):
        given = {key: value for key, value in options(scope=scope).items() if value is not None}
        monkeypatch.setattr(action, "_task", type("Task", (), {"args": given}), raising=False)
        facts = {"dify_app": bare(), "dify_verdict": {"overall": "proven"}}
        result = action.run(None, {"ansible_facts": facts, "inventory_hostname": "h1"})
        assert result["changed"] is False and ("look" in result) == (scope == "release")
    assert result["ansible_facts"] == {"dify_plan": result["plan"], "dify_verdict": {}}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"archive_file": "/nonexistent/dify.tar.gz"}, "DG901"),
        ({"archive_file": ""}, "DG901"),
        ({"version": "9.0.0-no-compose"}, "DG902"),
        ({"version": "9.0.1-cut"}, "DG902"),
        ({"version": "9.0.2-leads-out"}, "DG902"),
        ({"archive_checksum": "sha256:" + "0" * 64}, "DG903"),
    ],
)
def test_an_archive_that_cannot_be_used_blocks(given, code, tmp_path):
    made_of = given.get("version", "1.17.1")
    file = given.get("archive_file", None)
    given = {"url": URL, "archive_file": archive_file(made_of, tmp_path) if file is None else file, **given, "version": "1.17.1"}
    made = dify_plan.make_plan(dify_plan.validated(given), {"dify_app": bare()}, "h1")
    assert codes(made) == [code] and made["status"] == "blocked" and made["release"] is None
    assert made["blocked"][0]["remedy"] and dify_plan.make_look(dify_plan.validated(given))[1][0]["code"] == code


def test_a_project_that_asks_for_a_variable_blocks(options, monkeypatch):
    def read(path, settings):
        raise _compose_text.InterpolationError("X is not set")

    monkeypatch.setattr(_app_load, "read", read)
    made = dify_plan.make_plan(options(), {"dify_app": bare()}, "h1")
    assert codes(made) == ["DG904"] and "X is not set." in made["blocked"][0]["message"]


def test_secrets_of_a_store_that_is_chosen_are_looked_for(options):
    made = [dify_plan.make_plan(options(env={"VECTOR_STORE": name}), {"dify_app": bare()}, "h1") for name in ("weaviate", "qdrant")]
    assert all(plan["status"] == "change" for plan in made)
    assert {"ADMIN_PASSWORD", "QDRANT_API_KEY"} <= {item["name"] for item in made[1]["env"]["secrets"]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nonsense": 1}, "unknown option nonsense"),
        ({"version": 1.1}, "must be quoted"),
        ({"env": "A=b"}, "env (dify_env) must be a dictionary"),
        ({"state": "gone"}, "state"),
        ({"http_port": "x"}, "http_port"),
        ({"project": "Di fy"}, "project (dify_project)"),
    ],
)
def test_an_option_that_cannot_be_used_fails_with_one_sentence(given, says):
    with pytest.raises(AnsibleActionFail) as caught:
        dify_plan.make_plan(dify_plan.validated({"url": URL, **given}), {}, "h1")
    assert says in str(caught.value) and str(caught.value).startswith("dify_plan: ") and "\n" not in str(caught.value)


def test_the_stub_documents_what_the_action_takes():
    documented = yaml.safe_load(stub.DOCUMENTATION)["options"]
    assert set(documented) == set(dify_plan.ARGUMENT_SPEC)
    for name, spec in dify_plan.ARGUMENT_SPEC.items():
        for key in ("type", "default", "choices"):
            assert documented[name].get(key) == spec.get(key), (name, key)
    assert yaml.safe_load(stub.RETURN).keys() >= {"plan", "look", "ansible_facts"}
    assert set(yaml.safe_load(stub.DOCUMENTATION)["attributes"]) == set(yaml.safe_load(gpu_plan.DOCUMENTATION)["attributes"])


def test_a_given_secret_that_everybody_knows_blocks(options):
    made = dify_plan.make_plan(options(public_secrets=["REDIS_PASSWORD", "DB_PASSWORD"]), {"dify_app": bare()}, "h1")
    assert codes(made) == ["DG913"] and "DB_PASSWORD, REDIS_PASSWORD" in made["blocked"][0]["message"]
