# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One variant for many hosts: what all can run, who is in the way, who is missing, and how a host follows the decision."""

from __future__ import annotations

import copy
import json
import random

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _fleet, _plan_codes, _planner
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import (
    A10,
    B200,
    CATALOG,
    H100,
    T4,
    V100,
    gpu,
    nvidia,
    plan,
    wishes,
    without_gpu,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEYS = ["schema", "status", "variant", "blocked", "hosts", "missing", "gpu_hosts", "held_back_by", "candidates", "drift"]


def decide(facts, missing="block", **changed):
    return _fleet.decide(facts, CATALOG, wishes(**changed), missing)


def test_the_decision_has_the_form_of_the_contract():
    made = decide({"a": nvidia("580.95.05"), "b": nvidia("535.247.01"), "c": without_gpu()})
    assert list(made) == KEYS and json.loads(json.dumps(made)) == made
    assert (made["schema"], made["status"], made["variant"], made["hosts"]) == (1, "ok", "cuda12.6", 3)
    assert made["gpu_hosts"] == ["a", "b"] and made["missing"] == []
    held = made["held_back_by"]
    assert [(entry["variant"], entry["hosts"]) for entry in held] == [("cuda13.2", ["b"]), ("cuda13.0", ["b"])]
    assert "loaded is 535.247.01" in held[0]["reason"]
    assert made["candidates"][0] == {"variant": "cuda13.2", "hosts": 1, "refused_by": 1}
    assert [entry["variant"] for entry in made["candidates"]][:3] == ["cuda13.2", "cuda13.0", "cuda12.6"]
    assert made["drift"] == [{"what": "driver", "values": {"535.247.01": ["b"], "580.95.05": ["a"]}}]


@pytest.mark.parametrize(
    "facts, variant",
    [
        ([nvidia("580.95.05", [gpu(A10)]), nvidia("580.95.05", [gpu(H100)])], "cuda13.2"),
        ([nvidia("580.95.05", [gpu(V100)]), nvidia("580.95.05", [gpu(H100)])], "cuda12.6"),
        ([nvidia("470.256.02", [gpu(T4)]), nvidia("580.95.05", [gpu(A10)])], "cuda11.8"),
        ([nvidia("580.95.05", [gpu(B200)]), nvidia("535.247.01", [gpu(A10)])], "cuda12.8"),
        ([nvidia("580.95.05")], "cuda13.2"),
        ([without_gpu(), without_gpu()], None),
    ],
)
def test_what_every_host_can_run(facts, variant):
    made = decide({f"h{number}": document for number, document in enumerate(facts)})
    assert (made["status"], made["variant"]) == ("ok", variant)


def test_no_variant_for_all():
    made = decide({"a": nvidia("580.95.05", [gpu(B200)]), "b": nvidia("470.256.02", [gpu(T4)])})
    assert (made["status"], made["variant"]) == ("blocked", None)
    assert [block["code"] for block in made["blocked"]] == [_plan_codes.FLEET_NO_VARIANT]
    assert "no variant runs on all 2 GPU hosts; the nearest" in made["blocked"][0]["message"]
    assert "dify_image_scope" in made["blocked"][0]["remedy"]


def test_hosts_of_which_nothing_is_known():
    broken = nvidia(None, [gpu(bound_driver=None, index=None)])
    facts = {"a": nvidia("580.95.05"), "gone": None, "odd": [], "broken": broken}
    made = decide(facts)
    assert made["missing"] == ["broken", "gone", "odd"] and (made["hosts"], made["status"]) == (1, "blocked")
    assert [block["code"] for block in made["blocked"]] == [_plan_codes.FLEET_MISSING]
    message = made["blocked"][0]["message"]
    assert "3 hosts of the fleet cannot be judged" in message and "gone, odd (no facts)" in message
    assert "no NVIDIA driver loaded" in message
    allowed = decide(facts, missing="allow")
    assert (allowed["status"], allowed["variant"], allowed["missing"]) == ("ok", "cuda13.2", ["broken", "gone", "odd"])


def test_a_driver_that_is_to_be_installed_is_known_enough():
    facts = {"a": nvidia("580.95.05"), "fresh": nvidia(None, [gpu(bound_driver=None, index=None)])}
    made = decide(facts, driver=Settings(policy="install", reboot="if_needed"), apply=frozenset(_planner.PARTS))
    assert made["gpu_hosts"] == ["a", "fresh"] and made["variant"] == "cuda13.2"


def test_the_preference_is_that_of_a_host():
    facts = {"a": nvidia("580.95.05"), "b": nvidia("570.124.06")}
    assert decide(facts)["variant"] == "cuda12.6"
    assert decide(facts, prefer="full_support_first")["variant"] == "cuda12.8"
    # 12.8 is fully supported on a alone; on b by minor-version compatibility, so 12.1 comes before it there.
    older = {"a": nvidia("570.124.06"), "b": nvidia("535.247.01")}
    assert decide(older, prefer="full_support_first")["variant"] == "cuda12.1"
    assert decide(facts, max_cuda="12.4")["variant"] == "cuda11.8"
    assert decide({"a": nvidia("580.95.05", [gpu(H100)])}, features=("fp8",))["variant"] == "cuda13.2"


def test_a_variant_by_name():
    facts = {"a": nvidia("580.95.05"), "b": nvidia("535.247.01")}
    assert decide(facts, variant="cuda12.4")["variant"] == "cuda12.4"
    made = decide(facts, variant="cuda13.0")
    assert "cuda13.0 was asked for by name and does not run on 1 host, on b" in made["blocked"][0]["message"]
    assert decide(facts, variant="cuda13.0", force=True)["variant"] == "cuda13.0"
    on_the_cpu = decide(facts, variant="cpu")
    assert (on_the_cpu["status"], on_the_cpu["variant"], on_the_cpu["gpu_hosts"]) == ("ok", None, [])
    with pytest.raises(_planner.WishError, match="not in the catalog"):
        decide(facts, variant="cuda99")


def test_a_catalog_without_cuda():
    catalog = [variant for variant in CATALOG if variant.cuda is None]
    made = _fleet.decide({"a": nvidia()}, catalog, wishes())
    assert made["blocked"][0]["message"] == "the catalog has no CUDA variant"


def test_drift_between_hosts():
    other = nvidia("580.95.05", [gpu(T4, name="Tesla T4"), gpu(T4, 6, name="Tesla T4")])
    other["driver"]["loaded"]["flavour"] = "open"
    other["toolkit"]["version"] = None
    other["engine"]["version"] = "28.3.0"
    made = decide({"a": nvidia("580.95.05", [gpu(A10, name="NVIDIA A10")]), "b": other, "c": without_gpu()})
    assert made["drift"] == [
        {"what": "flavour", "values": {"open": ["b"], "proprietary": ["a"]}},
        {"what": "toolkit", "values": {"1.19.1": ["a"], "unknown": ["b"]}},
        {"what": "engine", "values": {"docker 26.1.5": ["a"], "docker 28.3.0": ["b"]}},
        {"what": "gpus", "values": {"1 x NVIDIA A10": ["a"], "2 x Tesla T4": ["b"]}},
    ]


def test_names_are_sorted_as_people_do():
    facts = {f"gpu-{number}": nvidia("580.95.05") for number in (10, 9, 100, 1)}
    assert decide(facts)["gpu_hosts"] == ["gpu-1", "gpu-9", "gpu-10", "gpu-100"]


# --- a host follows the decision ---


def test_every_host_gets_the_variant_of_the_fleet():
    facts = {"a": nvidia("580.95.05"), "b": nvidia("535.247.01"), "c": without_gpu()}
    fleet = decide(facts)
    assert [plan(facts[name], {}, fleet=fleet)["image"]["variant"] for name in "abc"] == ["cuda12.6", "cuda12.6", "cpu"]
    told = plan(facts["a"], {}, fleet=fleet)
    assert told["image"]["reason"].endswith("; it is the variant of the fleet") and "by name" not in str(told["rejected"])
    # Consent to the CPU holds for a host that follows the fleet.
    broken = copy.deepcopy(facts["a"])
    broken["engine"]["cdi_enabled"] = False
    assert plan(broken, {}, fleet=fleet, cpu_fallback="when_gpu_unusable")["mode"] == "degraded"


def test_a_host_that_cannot_follow_is_blocked():
    fleet = decide({"a": nvidia("580.95.05")})
    made = plan(nvidia("535.247.01"), {}, fleet=fleet)
    assert [block["code"] for block in made["blocked"]] == [_plan_codes.NAMED_VARIANT_DOES_NOT_FIT]
    assert "cuda13.2 is the variant of the fleet (scope (dify_image_scope))" in made["blocked"][0]["message"]


def test_a_fleet_without_a_decision_blocks_every_host_with_a_gpu():
    fleet = decide({"a": nvidia("580.95.05"), "gone": None})
    made = plan(nvidia("580.95.05"), {}, fleet=fleet)
    assert (made["status"], made["blocked"]) == ("blocked", fleet["blocked"])
    assert plan(without_gpu(), {}, fleet=fleet)["status"] == "change"


def test_a_named_variant_wins_over_the_fleet():
    fleet = decide({"a": nvidia("580.95.05")})
    assert plan(nvidia("580.95.05"), {}, fleet=fleet, variant="cuda12.8")["image"]["variant"] == "cuda12.8"


def test_consent_to_the_cpu_is_none_to_a_fleet_without_a_decision():
    fleet = decide({"a": nvidia("580.95.05"), "gone": None})
    made = plan(nvidia("580.95.05"), {}, fleet=fleet, cpu_fallback="when_gpu_unusable")
    assert (made["status"], made["mode"], made["blocked"]) == ("blocked", "gpu", fleet["blocked"])
    broken = nvidia(None, [gpu(bound_driver=None, index=None)])
    assert plan(broken, {}, fleet=fleet, cpu_fallback="when_gpu_unusable")["status"] == "blocked"
    # Nor to a variant of the fleet that this host cannot run.
    other = plan(nvidia("535.247.01"), {}, fleet=decide({"a": nvidia("580.95.05")}), cpu_fallback="when_gpu_unusable")
    assert [block["code"] for block in other["blocked"]] == [_plan_codes.NAMED_VARIANT_DOES_NOT_FIT]


# --- which GPUs each host uses ---


def two():
    return nvidia("580.95.05", [gpu(A10, 5, index=0), gpu(V100, 6, index=1)])


def test_every_host_has_a_selection_of_its_own():
    facts = {"a": nvidia("580.95.05"), "b": two()}
    assert decide(facts)["variant"] == "cuda12.6"
    own = _fleet.decide(facts, CATALOG, wishes(), gpus_of={"b": ("0",)})
    assert (own["variant"], own["gpu_hosts"]) == ("cuda13.2", ["a", "b"])
    # What one host names is nothing to the other, which has no such GPU.
    other = _fleet.decide(facts, CATALOG, wishes(gpus=("1",)), gpus_of={"a": (), "b": ("1",)})
    assert (other["status"], other["variant"], other["missing"]) == ("ok", "cuda12.6", [])
    assert decide(facts, gpus=("1",))["missing"] == ["a"]


def test_a_selection_that_a_host_cannot_have_is_its_own_trouble():
    facts = {"a": nvidia("580.95.05"), "b": two()}
    made = _fleet.decide(facts, CATALOG, wishes(), "allow", {"b": ("7",)})
    assert (made["variant"], made["missing"]) == ("cuda13.2", ["b"])
    block = _fleet.decide(facts, CATALOG, wishes(), gpus_of={"b": ("7",)})["blocked"][0]
    assert "gpus (dify_image_gpus) names 7" in block["message"] and "gather" not in block["remedy"] and "repair" in block["remedy"]


def test_the_remedy_for_hosts_that_cannot_be_judged_is_about_their_reasons():
    broken = nvidia(None, [gpu(bound_driver=None, index=None)])
    remedy = {name: decide({name: facts})["blocked"][0]["remedy"] for name, facts in (("gone", None), ("broken", broken))}
    assert remedy["gone"].startswith("gather the facts") and "repair" not in remedy["gone"]
    assert remedy["broken"].startswith("repair what is named") and "gather" not in remedy["broken"]
    both = decide({"gone": None, "broken": broken})["blocked"][0]["remedy"]
    assert "gather the facts" in both and "repair" in both and both.endswith("missing (dify_image_missing): allow")


# --- properties ---

DRIVERS = st.sampled_from(["450.80.02", "470.256.02", "535.247.01", "570.124.06", "580.95.05", "595.45.04"])
BOARDS = st.sampled_from([A10, T4, V100, H100, B200])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)
HOST = st.builds(nvidia, DRIVERS, st.lists(st.builds(gpu, BOARDS, st.integers(1, 9)), min_size=1, max_size=2)) | st.just(without_gpu())
POLICY = st.fixed_dictionaries(
    {"prefer": st.sampled_from(["newest", "full_support_first"]), "variant": st.none() | st.sampled_from(["cuda12.6", "cpu"])}
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(["a", "gpu-2", "gpu-10", "z"]), HOST | JUNK), POLICY, st.sampled_from(["block", "allow"]))
def test_any_fleet_gives_a_decision_of_the_form(facts, policy, missing):
    made = decide(facts, missing, **policy)
    assert list(made) == KEYS and (made["status"] == "blocked") == bool(made["blocked"])
    assert made["hosts"] + len(made["missing"]) == len(facts)
    assert made["variant"] is None or not made["blocked"]
    json.dumps(made)
    if made["variant"] is None:
        return
    # Every host that is to run it can, by its own plan; and no variant that all can run is preferred to it.
    for name in made["gpu_hosts"]:
        assert plan(facts[name], {}, variant=made["variant"])["blocked"] == []
    order = [candidate["variant"] for candidate in made["candidates"]]
    better = made["candidates"][: order.index(made["variant"])]
    assert all(candidate["refused_by"] for candidate in better)
    for entry in made["held_back_by"]:
        for name in entry["hosts"]:
            assert plan(facts[name], {}, variant=entry["variant"])["status"] == "blocked"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=30)
@given(st.lists(HOST, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_the_hosts_does_not_matter(documents, chance):
    facts = {f"h{number}": document for number, document in enumerate(documents)}
    names = list(facts)
    chance.shuffle(names)
    assert json.dumps(decide({name: facts[name] for name in names})) == json.dumps(decide(facts))


def test_a_fleet_of_one_decides_as_its_host():
    dice = random.Random(7)  # noqa: S311  picks hosts, no secret
    for _round in range(60):
        board = dice.choice([A10, T4, V100, H100, B200])
        facts = nvidia(dice.choice(["470.256.02", "535.247.01", "570.124.06", "580.95.05"]), [gpu(board)])
        alone = plan(facts, {})
        fleet = decide({"a": facts})
        assert fleet["variant"] == (alone["image"] and alone["image"]["variant"])
    assert _catalog.enabled(CATALOG)
