# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action: options, defaults, where facts come from, and one sentence for each mistake."""

from __future__ import annotations

import base64
import dataclasses

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible_collections.difyops.gpu.plugins.action import gpu_plan
from ansible_collections.difyops.gpu.plugins.modules import gpu_plan as stub
from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_settings, _driver_work, _engine_settings, _toolkit_settings
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import A10, V100, applied, gpu, nvidia, without_gpu


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    return str(tmp_path)


def run(context, facts=None, **options):
    facts = {"nvidia": nvidia()} if facts is None else facts
    return gpu_plan.make_plan(gpu_plan.validated({"image_context": context, **options}), facts, "h1")


def test_facts_come_from_the_host_or_from_the_options(context):
    assert run(context)["image"]["variant"] == "cuda12.6"
    assert run(context, nvidia=without_gpu())["image"]["variant"] == "cpu"
    assert run(context, {})["blocked"][0]["code"] == "DG715"


def test_a_second_run_plans_nothing(context):
    made = run(context)
    assert made["status"] == "change"
    assert run(context, {"nvidia": nvidia(), "dify": applied(made)})["status"] == "ok"


def test_facts_of_an_earlier_run_do_not_count_where_an_empty_option_says_so(context):
    earlier = applied(run(context))
    earlier["error"] = "no answer"
    cached = {"nvidia": nvidia(), "dify": earlier}
    assert [block["code"] for block in run(context, cached)["blocked"]] == ["DG730"]
    first = run(context, cached, dify={})
    assert (first["status"], first["blocked"], first["parts"]["service"]["action"]) == ("change", [], "create")
    assert "DG761" not in [warning["code"] for warning in first["warnings"]]
    assert "DG761" in [warning["code"] for warning in run(context, {"nvidia": nvidia(), "dify": {}})["warnings"]]


def test_a_plan_voids_the_verdict_of_an_earlier_one(context, monkeypatch):
    action = gpu_plan.ActionModule.__new__(gpu_plan.ActionModule)
    monkeypatch.setattr(gpu_plan.ActionBase, "run", lambda *_args: {})
    monkeypatch.setattr(action, "_task", type("Task", (), {"args": {"image_context": context}}), raising=False)
    stale = {"nvidia": nvidia(), "gpu_verdict": {"overall": "proven"}}
    result = action.run(None, {"ansible_facts": stale, "inventory_hostname": "h1"})
    assert result["ansible_facts"] == {"gpu_plan": result["plan"], "gpu_verdict": {}} and result["changed"] is False


def test_options_reach_the_project(context):
    made = run(
        context,
        home="/srv/dify/",
        port="9000",
        bind_address="0.0.0.0",
        service_name="embedder",
        models_dir="/srv/models",
        embedding_model="/models/bge",
        rerank_model="/models/rerank",
        health_timeout="600",
        environment={"BATCH_SIZE": 8, "FLAG": True},
        image_repository="registry.example.org/ai/dify-gpu",
        image_version="1.2",
    )
    project = yaml.safe_load(made["render"]["files"]["/srv/dify/compose.yaml"]["content"])
    service = project["services"]["embedder"]
    assert service["image"] == "registry.example.org/ai/dify-gpu:web-server-cuda12.6-v1.2"
    assert service["ports"] == ["0.0.0.0:9000:8000"] and service["env_file"] == ["/srv/dify/secrets/api_key.env"]
    assert service["healthcheck"]["start_period"] == "600s"
    assert service["environment"] == {
        "BATCH_SIZE": "8",
        "EMBEDDING_MODEL": "/models/bge",
        "EXPECT_GPU": "1",
        "FLAG": "true",
        "HF_HUB_OFFLINE": "1",
        "RERANK_MODEL": "/models/rerank",
        "TRANSFORMERS_OFFLINE": "1",
    }


def test_empty_texts_and_nulls_mean_the_default(context):
    defaults = run(context)
    assert run(context, variant="", image_version="", image_base="", models_dir="", catalog=None, environment=None) == defaults
    assert defaults["image"]["build"]["args"]["BASE_IMAGE"] == "python:3.12-slim-bookworm"


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"varient": "cpu"}, "unknown option varient; the options are nvidia, dify, scope, hosts"),
        ({"prefer": "oldest"}, "prefer"),
        ({"cpu_fallback": "always"}, "cpu_fallback"),
        ({"force": "perhaps"}, "force"),
        ({"force": True}, "force (dify_image_force) needs variant (dify_image_variant)"),
        ({"variant": "cuda99"}, "'cuda99' is not in the catalog"),
        ({"catalog": [{"name": "x", "image": "difyops/x:latest", "cuda": None, "torch": "2.13.0"}]}, "uses the tag latest"),
        ({"catalog": "cuda12.6"}, "catalog (dify_image_catalog) must be a list of dictionaries, one for each variant; found text"),
        ({"catalog": ["cuda12.6"]}, "Entry number 1 of catalog (dify_image_catalog) must be a dictionary with a name; found text"),
        ({"catalog": {"name": "x"}}, "found a dictionary"),
        ({"dify": "x"}, "dify must be a dictionary; found text"),
        ({"fleet": "x"}, "fleet must be a dictionary; found text"),
        ({"hosts": ["h1"]}, "hosts is for scope fleet only"),
        ({"gpus_of": {"h1": ["0"]}}, "gpus_of is for scope fleet only"),
        ({"gpus_of": ["0"]}, "gpus_of must be a dictionary; found a list"),
        ({"apply": ["drivers"]}, "apply"),
        ({"driver_policy": "upgrade"}, "unknown option driver_policy; the options are "),
        ({"driver": "upgrade"}, "driver must be a dictionary; found text"),
        ({"driver": {"policy": "latest"}}, "driver.policy (nvidia_driver_policy) must be one of auto, keep, install"),
        ({"driver": {"brnch": 580}}, "driver has brnch, which is none of its settings: branch, busy"),
        ({"packages": {"manager": "apt"}}, "packages is for scopes driver, engine and toolkit only"),
        ({"repository_key": "a2V5"}, "repository_key is for scopes driver, engine and toolkit only"),
        ({"min_cuda": 12.1}, "min_cuda (dify_image_min_cuda) must be quoted in YAML"),
        ({"min_cuda": "12"}, "min_cuda (dify_image_min_cuda) must be a CUDA version with one dot"),
        ({"min_cuda": "12.8", "max_cuda": "12.4"}, "no CUDA is in between"),
        ({"require_features": ["fp5"]}, "require_features (dify_image_require_features): 'fp5'"),
        ({"gpus": ["NVIDIA A10"]}, "gpus (dify_image_gpus) must list UUIDs"),
        ({"gpus": [""]}, "gpus (dify_image_gpus) must list UUIDs"),
        ({"environment": ["A=1"]}, "environment (dify_gpu_environment) must be a dictionary; found a list"),
        ({"health_timeout": 0}, "health_timeout (dify_gpu_health_timeout) must be a number of seconds between 1 and 86400, a day; found 0"),
        ({"health_timeout": "5m"}, "health_timeout"),
        ({"environment": {"PORT": 1}}, "environment (dify_gpu_environment) must not set PORT: the port on the host is port (dify_gpu_"),
        ({"environment": {"HOST": "::"}}, "must not set HOST: the address on the host is bind_address (dify_gpu_bind_address)"),
        ({"environment": {"EXPECT_GPU": 0}}, "must not set EXPECT_GPU"),
        ({"environment": {"API_KEY": "hunter2"}}, "must not set API_KEY: "),
        ({"environment": {"API_KEY_FILE": "/x"}}, "must not set API_KEY_FILE"),
        ({"environment": {"HTTPS_PROXY": "http://bob:hunter2@proxy.example.org:3128"}}, "HTTPS_PROXY holds a URL with credentials"),
        ({"environment": {"A": "see HTTPS://hunter2@example.org/x"}}, "A holds a URL with credentials"),
        ({"environment": {"A": "postgres://bob:hunter2@db/x"}}, "the engine's own proxy configuration"),
        ({"embedding_model": "https://bob:hunter2@example.org/m"}, "EMBEDDING_MODEL holds a URL with credentials"),
        ({"image_context": "/nonexistent"}, "The image context /nonexistent is not a directory"),
        ({"image_base": "a b"}, "image_base (dify_image_base) must be an image reference"),
        ({"image_repository": "UPPER"}, "image_repository (dify_image_repository) must be"),
        ({"port": 0}, "port (dify_gpu_port) must be between 1 and 65535"),
        ({"port": "http"}, "port"),
        ({"bind_address": "localhost"}, "bind_address (dify_gpu_bind_address) must be an IP address"),
        ({"home": "opt/x"}, "home (dify_gpu_home) must be an absolute directory"),
        ({"home": "/"}, "home (dify_gpu_home) must be an absolute directory"),
        ({"home": "/opt/../etc"}, "home (dify_gpu_home) must be an absolute directory"),
        ({"models_dir": "/srv:/etc"}, "models_dir (dify_gpu_models_dir) must be an absolute directory"),
        ({"project": "Dify GPU"}, "project (dify_gpu_project) must be of lower case"),
        ({"service_name": "dify_gpu"}, "service_name (dify_gpu_service_name) must be of lower case"),
        ({"environment": {"HF_TOKEN": "hunter2"}}, "environment (dify_gpu_environment) has HF_TOKEN, which looks like a secret"),
        ({"environment": {"api_key": "hunter2"}}, "environment (dify_gpu_environment) has api_key, which looks like a secret"),
        ({"engine": {"cdi": False}, "toolkit": {"injection": "cdi"}}, "engine.cdi (container_engine_cdi) is false and toolkit.injection"),
        ({"engine": {"daemon_config": {"labels": ["api_key=hunter2"]}}}, "must hold no secrets, and labels looks like one"),
        ({"environment": {"A B": "1"}}, "no name of an environment variable"),
        ({"environment": {"A": ["1"]}}, "the value of A must be text"),
        ({"environment": {"A": "a\x00b"}}, "A holds a control character"),
    ],
)
def test_one_sentence_for_each_mistake(context, options, sentence):
    with pytest.raises(AnsibleActionFail) as caught:
        run(context, **options)
    message = str(caught.value)
    assert message.startswith("gpu_plan: ") and sentence in message
    assert "\n" not in message and "hunter2" not in message


def test_names_that_only_sound_like_secrets_are_fine(context):
    environment = {
        "MAX_INPUT_TOKENS": 512,
        "TOKENIZERS_PARALLELISM": "false",
        "KEYBOARD": "de",
        "EXPORT": "1",
        "REPO": "ssh://git@example.org/x",
    }
    environment["HTTPS_PROXY"] = "http://proxy.example.org:3128/@x"
    assert "MAX_INPUT_TOKENS: '512'" in run(context, environment=environment)["render"]["files"]["/opt/dify-gpu/compose.yaml"]["content"]


def test_the_collections_own_recipe_is_the_default():
    assert gpu_plan.DEFAULT_CONTEXT.endswith("/roles/dify_image/files/image")
    assert run("")["image"]["build"]["recipe_digest"]


def test_the_documentation_has_the_options_of_the_action():
    documented = yaml.safe_load(stub.DOCUMENTATION)["options"]
    keys = ("type", "elements", "choices", "default")
    told = {name: {key: option[key] for key in keys if key in option} for name, option in documented.items()}
    assert told == gpu_plan.ARGUMENT_SPEC


def test_the_documentation_has_the_settings_of_a_driver():
    documented = yaml.safe_load(stub.DOCUMENTATION)["options"]["driver"]["suboptions"]
    assert set(documented) == set(_driver_settings.NAMES)
    told = {name: (option["choices"], option["default"]) for name, option in documented.items() if "choices" in option}
    assert told == {name: (list(choices), choices[0]) for name, choices in _driver_settings.CHOICES.items()}
    defaults = {name: option["default"] for name, option in documented.items()}
    assert _driver_settings.parse(defaults) == _driver_settings.Settings()
    repository = documented["repository"]["suboptions"]
    assert set(repository) == {field.name for field in dataclasses.fields(_driver_settings.Repository)}


@pytest.mark.parametrize("name, settings", [("engine", _engine_settings), ("toolkit", _toolkit_settings)])
def test_the_documentation_has_the_settings_of_engine_and_toolkit(name, settings):
    documented = yaml.safe_load(stub.DOCUMENTATION)["options"][name]["suboptions"]
    assert set(documented) == set(settings.NAMES)
    told = {key: [choice for choice in option["choices"] if choice] for key, option in documented.items() if "choices" in option}
    assert told == {key: list(choices) for key, choices in settings.CHOICES.items()}
    assert settings.parse({key: option["default"] for key, option in documented.items() if "default" in option}) == settings.Settings()


def test_the_documented_examples_are_accepted(context):
    fleet = decide(context, {"h1": nvidia()})
    for task in yaml.safe_load(stub.EXAMPLES):
        if "difyops.gpu.gpu_plan" not in task:
            continue
        options = task["difyops.gpu.gpu_plan"] or {}
        if options.get("scope") == "driver":
            assert plan_driver(nvidia(), **options)["status"] in ("change", "blocked")
        elif options.get("scope") in ("engine", "toolkit"):
            made = {"engine": gpu_plan.plan_engine, "toolkit": gpu_plan.plan_toolkit}[options["scope"]]
            assert made(gpu_plan.validated(options), {"nvidia": nvidia()}, "h1")["status"] in ("ok", "change")
        elif options.get("scope") == "fleet":
            assert decide(context, {"h1": nvidia()}, **options)["status"] == "ok"
        else:
            assert run(context, **{**options, **({"fleet": fleet} if "fleet" in options else {})})["status"] in ("change", "blocked")


def test_the_documented_result_has_the_keys_of_a_plan(context):
    documented = yaml.safe_load(stub.RETURN)
    assert list(documented["plan"]["contains"]) == list(run(context))
    assert list(documented["fleet"]["contains"]) == list(decide(context, {"h1": nvidia()}))


# --- many hosts ---


def decide(context, facts, play=None, **options):
    variables = {
        "hostvars": {host: {"ansible_facts": {"nvidia": document} if document else {}} for host, document in facts.items()},
        "ansible_play_hosts_all": list(facts) if play is None else play,
    }
    return gpu_plan.decide_fleet(gpu_plan.validated({"image_context": context, "scope": "fleet", **options}), variables)


def test_a_fleet_is_the_hosts_of_the_play_or_those_that_are_named(context):
    facts = {"a": nvidia("580.95.05"), "b": nvidia("535.247.01"), "gone": None}
    assert (decide(context, facts)["status"], decide(context, facts)["missing"]) == ("blocked", ["gone"])
    assert decide(context, facts, missing="allow")["variant"] == "cuda12.6"
    assert decide(context, facts, play=["a"])["variant"] == "cuda13.2"
    assert decide(context, facts, hosts=["a", "b"])["variant"] == "cuda12.6"


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"hosts": ["nobody"]}, "option hosts names nobody, which the inventory does not have"),
        ({"nvidia": {}}, "nvidia is for scope host only"),
        ({"dify": {}}, "dify is for scope host only"),
        ({"fleet": {}}, "fleet is for scope host only"),
        ({"missing": "ignore"}, "missing"),
        ({"gpus_of": {"a": {"0": 1}}}, "gpus_of must have a list of GPUs for each host; found {"),
        ({"variant": "cuda99"}, "'cuda99' is not in the catalog"),
    ],
)
def test_one_sentence_for_each_mistake_about_a_fleet(context, options, sentence):
    with pytest.raises(AnsibleActionFail) as caught:
        decide(context, {"a": nvidia()}, **options)
    assert str(caught.value).startswith("gpu_plan: ") and sentence in str(caught.value)


def test_each_host_of_a_fleet_has_its_own_gpus(context):
    facts = {"a": nvidia("580.95.05"), "b": nvidia("580.95.05", [gpu(A10, 5, index=0), gpu(V100, 6, index=1)])}
    assert decide(context, facts)["variant"] == "cuda12.6"
    for own in (["0"], [0], "0", 0, ["0", "0000:00:05.0"]):
        assert decide(context, facts, gpus_of={"a": [], "b": own, "elsewhere": None})["variant"] == "cuda13.2"
    assert decide(context, facts, gpus_of={"b": ["nonsense"]}, missing="allow")["missing"] == ["b"]
    assert decide(context, facts, gpus=["1"], gpus_of={"a": [], "b": ["1"]})["gpu_hosts"] == ["a", "b"]


def test_a_decision_is_kept_as_a_fact(context, monkeypatch):
    action = gpu_plan.ActionModule.__new__(gpu_plan.ActionModule)
    monkeypatch.setattr(gpu_plan.ActionBase, "run", lambda *_args: {})
    monkeypatch.setattr(action, "_task", type("Task", (), {"args": {"scope": "fleet"}}), raising=False)
    variables = {"hostvars": {"a": {"ansible_facts": {"nvidia": nvidia("580.95.05")}}}, "ansible_play_hosts_all": ["a"]}
    result = action.run(None, variables)
    assert result["ansible_facts"] == {"gpu_fleet": result["fleet"]} and result["changed"] is False
    assert (result["fleet"]["variant"], result["fleet"]["gpu_hosts"]) == ("cuda13.2", ["a"])


def test_the_wishes_reach_the_plan(context):
    made = run(context, gpus=[0], apply=["driver", "image", "service"], driver={"branch": 580, "reboot": "if_needed"}, max_cuda="13.0")
    assert (made["parts"]["driver"]["action"], made["parts"]["driver"]["to"]) == ("upgrade", "580")
    assert (made["image"]["variant"], made["image"]["devices"]) == ("cuda13.0", ["nvidia.com/gpu=all"])
    fleet = decide(context, {"a": nvidia("580.95.05")})
    assert run(context, {"nvidia": nvidia("580.95.05")}, fleet=fleet, apply=["image", "service"])["image"]["variant"] == fleet["variant"]


# --- the driver alone ---


def plan_driver(facts, **options):
    return gpu_plan.plan_driver(gpu_plan.validated({"scope": "driver", **options}), {"nvidia": facts} if facts else {}, "h1")


def test_the_drivers_part_agrees_with_the_plan(context):
    exact, consent = {"version": "580.95.05"}, {"reboot": "if_needed"}
    for wanted in ({}, exact, {**exact, **consent}, {"state": "absent", **consent}):
        for facts in (nvidia(), nvidia("580.95.05"), without_gpu(), nvidia(None, [gpu(A10, bound_driver=None, index=None)])):
            part = run(context, {"nvidia": facts}, driver=wanted, apply=["driver"])
            driver = plan_driver(facts, driver=wanted)
            assert driver["host"] == "h1" and driver["schema"] == 1
            if part["status"] == "blocked":
                assert driver["status"] == "blocked" and part["blocked"] == driver["blocked"]
                continue
            assert (driver["status"] == "ok") is (driver["action"] == "none")
            assert (driver["action"], driver["to"]) == (part["parts"]["driver"]["action"], part["parts"]["driver"]["to"])
            assert driver["reboot"]["required"] is part["reboot"]["required"]


def test_a_drivers_part_has_the_warnings_of_the_plan():
    found = plan_driver(nvidia("470.256.02"), driver={})
    assert "DG750" in [note["code"] for note in found["warnings"]]
    assert len({note["code"] for note in found["warnings"]}) == len(found["warnings"])


def test_what_the_role_has_fetched_reaches_the_work(monkeypatch):
    seen = {}

    def make(_host, decision, settings, packages, _today, key=None):
        seen.update(action=decision.action, version=settings.version, packages=packages, key=key)
        return {"status": "change", "warnings": []}

    monkeypatch.setattr(_driver_work, "make", make)
    key = base64.b64encode(b"-----BEGIN").decode()
    bare = nvidia(None, [gpu(A10, bound_driver=None, index=None)])
    plan_driver(bare, driver={"version": "580.95.05"}, packages={"manager": "apt"}, repository_key=key)
    assert seen == {"action": "install", "version": "580.95.05", "packages": {"manager": "apt"}, "key": b"-----BEGIN"}
    plan_driver(bare, packages={})
    assert (seen["packages"], seen["key"]) == (None, None)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"hosts": ["h1"]}, "hosts is for scope fleet only"),
        ({"repository_key": "no base64!"}, "repository_key must be the content of a key file in base64"),
        ({"driver": {"version": 580.1}}, "driver.version (nvidia_driver_version) must be quoted in YAML"),
    ],
)
def test_one_sentence_for_each_mistake_about_a_driver(options, sentence):
    with pytest.raises(AnsibleActionFail) as caught:
        plan_driver(nvidia(), **options)
    assert str(caught.value).startswith("gpu_plan: ") and sentence in str(caught.value)


def test_a_drivers_part_is_kept_as_a_fact(monkeypatch):
    action = gpu_plan.ActionModule.__new__(gpu_plan.ActionModule)
    monkeypatch.setattr(gpu_plan.ActionBase, "run", lambda *_args: {})
    monkeypatch.setattr(action, "_task", type("Task", (), {"args": {"scope": "driver"}}), raising=False)
    result = action.run(None, {"ansible_facts": {"nvidia": nvidia()}, "inventory_hostname": "h1"})
    assert result["ansible_facts"] == {"gpu_driver": result["driver"]} and result["changed"] is False
