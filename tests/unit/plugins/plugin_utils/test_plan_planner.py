# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one host: the demo's hosts, every reason to block, drift of every kind, and properties over arbitrary facts."""

from __future__ import annotations

import copy
import datetime
import json

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _compose, _plan_codes, _plan_text, _planner, _recipe
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import CHOICES, Settings
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import (
    A10,
    A100,
    B200,
    CATALOG,
    H100,
    P4,
    T4,
    V100,
    applied,
    gpu,
    nvidia,
    plan,
    wishes,
    without_gpu,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version

PLAN_KEYS = ["schema", "host", "status", "mode", "gpus", "blocked", "parts", "image", "rejected", "models", "render", "reboot", "restart"]
PLAN_KEYS += ["advice", "warnings"]
IMAGE_KEYS = ["variant", "reference", "cuda", "torch", "sm", "source", "digest", "port", "health"]
IMAGE_KEYS += ["support", "reason", "expected", "devices", "injection", "gpu_count", "require_cuda", "build"]
COMPOSE = "/opt/dify-gpu/compose.yaml"
KEY = "/opt/dify-gpu/secrets/api_key.env"
SECRETS = "/opt/dify-gpu/secrets"
DIGEST = "sha256:" + "a" * 64
ENABLED = _catalog.enabled(CATALOG)


EVERYTHING = frozenset(_planner.PARTS)


def codes(entries):
    return [entry["code"] for entry in entries]


def without(facts, *path, value=None):
    """Return the facts with the value at a path replaced."""
    changed = copy.deepcopy(facts)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


# --- which image ---


@pytest.mark.parametrize(
    "facts, mode, variant, support",
    [
        (nvidia("535.247.01", [gpu(A10)]), "gpu", "cuda12.6", "minor"),
        (nvidia("470.256.02", [gpu(T4)]), "gpu", "cuda11.8", "minor"),
        (without_gpu(), "cpu", "cpu", "cpu"),
        (nvidia("515.105.01", [gpu(A100)]), "gpu", "cuda11.8", "minor"),
        (nvidia("535.54.03", [gpu(H100)]), "gpu", "cuda12.6", "minor"),
        (nvidia("450.80.02", [gpu(P4)]), "gpu", "cuda11.8", "minor"),
        (nvidia("570.124.06", [gpu(B200)]), "gpu", "cuda12.8", "full"),
        (nvidia("580.95.05", [gpu(V100), gpu(H100, 6)]), "gpu", "cuda12.6", "full"),
    ],
)
def test_what_a_fresh_host_gets(facts, mode, variant, support):
    made = plan(facts)
    assert (made["status"], made["mode"], made["blocked"]) == ("change", mode, [])
    assert (made["image"]["variant"], made["image"]["support"]) == (variant, support)
    assert made["image"]["reference"] == f"difyops/dify-gpu:web-server-{variant}-v0.1.0"
    assert made["parts"]["image"]["action"] == "build" and made["parts"]["service"]["action"] == "create"
    assert [entry["variant"] for entry in made["rejected"]] == [v.name for v in ENABLED if v.name not in (variant, "cpu")]


def test_the_plan_has_the_form_of_the_contract():
    made = plan(nvidia())
    assert list(made) == PLAN_KEYS and list(made["image"]) == IMAGE_KEYS
    assert (made["schema"], made["host"], made["reboot"]) == (1, "h1", {"required": False, "reasons": []})
    keys = ["action", "from", "to", "reason"]
    assert all(list(part) == keys + (["flavour"] if name == "driver" else []) for name, part in made["parts"].items())
    assert list(made["parts"]) == ["driver", "engine", "toolkit", "image", "service"]
    file = made["render"]["files"][COMPOSE]
    assert sorted(file) == ["content", "mode", "sha256"]
    assert json.loads(json.dumps(made)) == made


def test_the_compute_capability_comes_from_the_pci_id_when_the_driver_cannot_be_asked():
    made = plan(nvidia("470.256.02", [gpu(("0x1EB8", None))]))
    assert made["image"]["variant"] == "cuda11.8"


def test_a_gpu_that_nobody_knows():
    made = plan(nvidia("580.95.05", [gpu(("0xffff", None))]))
    assert codes(made["blocked"]) == [_plan_codes.NO_VARIANT_FITS]
    assert set(codes(made["rejected"])) == {_plan_codes.UNKNOWN_COMPUTE_CAPABILITY}


def test_the_build_of_the_image():
    build = plan(nvidia("580.95.05", [gpu(B200)]))["image"]["build"]
    assert build["args"] == {
        "BASE_IMAGE": "python:3.12-slim-bookworm",
        "CUDA_VERSION": "13.2",
        "IMAGE_VERSION": "0.1.0",
        "PTX": "",
        "SM_LIST": "7.5 8.0 8.6 9.0 10.0 12.0",
        "TORCH_SHA256": "",
        "TORCH_VERSION": "2.15.0",
        "VARIANT": "cuda13.2",
        "WHEEL_INDEX": "https://download.pytorch.org/whl/cu132",
    }
    assert build["recipe_digest"] == _recipe.digest("c0ffee", build["args"])


def test_a_pulled_image_reads_no_build_context():
    catalog = _catalog.load([{"name": "cuda12.6", "source": "pull", "digest": DIGEST}], "registry.example.org/dify-gpu", "0.1.0")

    def fail():
        raise AssertionError("the build context was read")

    made = plan(nvidia(), catalog=catalog, context_digest=fail)
    assert made["parts"]["image"]["action"] == "pull"
    assert (made["image"]["source"], made["image"]["digest"], made["image"]["build"]) == ("pull", DIGEST, None)
    assert made["image"]["reference"] in made["render"]["files"][COMPOSE]["content"]


# --- variants by name ---


def test_a_named_variant_that_does_not_fit_is_blocked_with_the_reason():
    made = plan(nvidia("470.256.02", [gpu(T4)]), variant="cuda12.6")
    assert made["status"] == "blocked" and made["image"] is None and made["render"]["files"] == {}
    assert codes(made["blocked"]) == [_plan_codes.NAMED_VARIANT_DOES_NOT_FIT]
    assert "CUDA 12.x needs driver >= 525.60.13; loaded is 470.256.02" in made["blocked"][0]["message"]
    assert {part["action"] for part in made["parts"].values()} == {"none", "blocked"}


def test_force():
    made = plan(nvidia("470.256.02", [gpu(T4)]), variant="cuda12.6", force=True)
    assert (made["status"], made["image"]["variant"], made["image"]["support"]) == ("change", "cuda12.6", "forced")
    assert _plan_codes.FORCED in codes(made["warnings"])
    assert plan(nvidia("470.256.02", [gpu(T4)]), variant="cuda11.8", force=True)["image"]["support"] == "minor"


def test_force_makes_no_gpu():
    assert codes(plan(without_gpu(), variant="cuda12.6", force=True)["blocked"]) == [_plan_codes.NEEDS_A_GPU]
    facts = nvidia(None, [gpu(bound_driver=None, index=None)])
    assert _plan_codes.DRIVER_NOT_LOADED in codes(plan(facts, variant="cuda12.6", force=True)["blocked"])


def test_a_named_variant_is_never_replaced_by_the_cpu():
    made = plan(nvidia("470.256.02", [gpu(T4)]), variant="cuda12.6", cpu_fallback="when_gpu_unusable")
    assert made["status"] == "blocked"


def test_the_cpu_by_name():
    made = plan(nvidia(), variant="cpu")
    assert (made["status"], made["mode"], made["image"]["variant"]) == ("change", "degraded", "cpu")
    assert codes(made["warnings"])[-2:] == [_plan_codes.DEGRADED, _plan_codes.DIFY_NOT_OBSERVED]
    assert plan(without_gpu(), variant="cpu", cpu_fallback="never")["mode"] == "cpu"


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"variant": "cuda99"}, "'cuda99' is not in the catalog; it has cpu, cuda11.8"),
        ({"force": True}, r"force \(dify_image_force\) needs variant"),
    ],
)
def test_wishes_that_no_host_could_have(changed, sentence):
    with pytest.raises(_planner.WishError, match=sentence):
        plan(nvidia(), **changed)


# --- CPU by policy ---


def test_no_gpu_and_no_fallback():
    assert codes(plan(without_gpu(), cpu_fallback="never")["blocked"]) == [_plan_codes.NO_GPU]


def test_no_gpu_and_no_cpu_variant():
    catalog = [variant for variant in CATALOG if variant.cuda]
    assert codes(plan(without_gpu(), catalog=catalog)["blocked"]) == [_plan_codes.NO_CPU_VARIANT]
    made = plan(nvidia(None, [gpu(bound_driver=None, index=None)]), catalog=catalog, cpu_fallback="when_gpu_unusable")
    assert codes(made["blocked"]) == [_plan_codes.DRIVER_NOT_LOADED, _plan_codes.NO_CPU_VARIANT]


BROKEN = {
    _plan_codes.DRIVER_NOT_LOADED: nvidia(None, [gpu(bound_driver="nouveau", index=None)]),
    _plan_codes.DRIVER_MISMATCH: without(nvidia(), "driver", "mismatch", value=True),
    _plan_codes.DRIVER_SILENT: nvidia(
        nvml={"source": "sysfs", "error": {"code": None, "name": "TIMEOUT", "message": "no answer within 10 s"}}
    ),
    _plan_codes.NO_USABLE_GPU: nvidia(gpus=[gpu(health="lost"), gpu(T4, 6, bound_driver="nouveau", index=None)]),
    _plan_codes.NO_VARIANT_FITS: nvidia("440.100"),
    _plan_codes.CDI_OFF: without(nvidia(), "engine", "cdi_enabled", value=False),
    _plan_codes.NO_CDI_SPEC: without(nvidia(), "toolkit", "cdi", "specs", value=[]),
}


@pytest.mark.parametrize("code", sorted(BROKEN))
def test_a_broken_chain_is_loud_and_degrades_by_consent_only(code):
    made = plan(BROKEN[code])
    assert codes(made["blocked"]) == [code]
    assert made["blocked"][0]["remedy"] == _plan_codes.CODES[code].remedy
    consented = plan(BROKEN[code], cpu_fallback="when_gpu_unusable")
    assert (consented["status"], consented["mode"], consented["image"]["variant"]) == ("change", "degraded", "cpu")
    assert _plan_codes.DEGRADED in codes(consented["warnings"])
    assert made["blocked"][0]["message"] in consented["image"]["reason"]
    assert "nvidia.com/gpu" not in consented["render"]["files"][COMPOSE]["content"]


@pytest.mark.parametrize(
    "changed, code",
    [
        ({"gpus": ("5",)}, _plan_codes.NO_SUCH_GPU),
        ({"driver": Settings(branch=440, reboot="if_needed"), "apply": frozenset(_planner.PARTS)}, _plan_codes.DRIVER_IMPOSSIBLE),
        ({"min_cuda": "13.0"}, _plan_codes.NO_VARIANT_FITS),
        ({"max_cuda": "11.7"}, _plan_codes.NO_VARIANT_FITS),
        ({"features": ("fp8",)}, _plan_codes.NO_VARIANT_FITS),
    ],
)
def test_a_mistake_in_the_options_makes_no_cpu_host_of_a_sound_gpu_host(changed, code):
    facts = nvidia("535.247.01", [gpu(B200)]) if "driver" in changed else nvidia("535.247.01")
    assert plan(facts, {}, cpu_fallback="when_gpu_unusable")["mode"] in ("gpu", "degraded")
    made = plan(facts, {}, cpu_fallback="when_gpu_unusable", **changed)
    assert (made["status"], made["mode"], codes(made["blocked"])) == ("blocked", "gpu", [code])


def test_a_policy_that_a_sound_host_cannot_follow_makes_no_cpu_host_of_it():
    k80 = nvidia("470.256.02", [gpu(("0x102d", "3.7"), name="Tesla K80")])
    made = plan(k80, {}, cpu_fallback="when_gpu_unusable", driver=Settings(policy="upgrade"), apply=EVERYTHING)
    assert (made["status"], made["mode"], codes(made["blocked"])) == ("blocked", "gpu", [_plan_codes.DRIVER_IMPOSSIBLE])
    # A driver that does not work and that nothing can take the place of is another matter.
    mixed = nvidia(None, [gpu(V100, 5, bound_driver=None, index=None), gpu(B200, 6, bound_driver=None, index=None)])
    made = plan(mixed, {}, cpu_fallback="when_gpu_unusable", driver=Settings(policy="install"), apply=EVERYTHING)
    assert (made["status"], made["mode"]) == ("change", "degraded")


@pytest.mark.parametrize(
    "changed, nearest",
    [({"min_cuda": "13.0"}, "cuda12.8"), ({"max_cuda": "11.7"}, "cuda11.8"), ({"features": ("fp8",), "max_cuda": "12.6"}, "cuda12.6")],
)
def test_the_nearest_is_the_one_beside_the_range(changed, nearest):
    block = plan(nvidia("535.247.01"), {}, **changed)["blocked"][0]
    assert f"the nearest is {nearest}: " in block["message"] and "upgrade" not in block["remedy"] and "dify_image_" in block["remedy"]


def test_error_18_is_a_mismatch():
    facts = nvidia(nvml={"source": "sysfs", "error": {"code": 18, "name": "NVML_ERROR_LIB_RM_VERSION_MISMATCH", "message": "..."}})
    assert codes(plan(without(facts, "driver", "mismatch"))["blocked"]) == [_plan_codes.DRIVER_MISMATCH]


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"health": "reset_required"}, "is reset required"),
        ({"health": "error"}, "reports an error"),
        ({"compute_mode": "prohibited"}, "compute mode prohibited"),
        ({"mig": {"current": True, "devices": []}}, "without a MIG device"),
        ({"mig": {"current": True, "devices": None}}, "could not be listed"),
        ({"bound_driver": None, "index": None}, "no kernel driver"),
    ],
)
def test_gpus_that_cannot_compute(changed, sentence):
    alone = plan(nvidia(gpus=[gpu(**changed)]))
    assert codes(alone["blocked"]) == [_plan_codes.NO_USABLE_GPU] and sentence in alone["blocked"][0]["message"]
    # The container is given all GPUs, and the proof asks for all.
    facts = nvidia(gpus=[gpu(**changed), gpu(T4, 6)])
    if "mig" in changed:
        # But for one in MIG mode, which is left out (test_plan_devices.py).
        return
    beside = plan(facts)
    assert codes(beside["blocked"]) == [_plan_codes.SICK_GPU] and sentence in beside["blocked"][0]["message"]
    assert "T4" not in beside["blocked"][0]["message"] and beside["parts"]["driver"]["action"] == "blocked"
    assert plan(facts, cpu_fallback="when_gpu_unusable")["mode"] == "degraded"
    assert plan(facts, variant="cpu")["status"] == "change"


def gone(driver="535.247.01", **changed):
    """Return the facts of a host that lost its only GPU from PCI."""
    return nvidia(driver, [], **changed)


def deployed(mode="gpu"):
    return {"containers": [{"name": "dify-gpu-dify-gpu-1", "service": "dify-gpu", "labels": {"org.difyops.mode": mode}}]}


@pytest.mark.parametrize("facts, dify", [(gone(), None), (gone(), {}), (gone(None), deployed()), (gone(None), deployed("degraded"))])
def test_a_host_that_lost_its_gpu_is_not_made_a_cpu_host_in_silence(facts, dify):
    for policy in ({}, {"cpu_fallback": "never"}, {"variant": "cuda12.6"}, {"variant": "cuda12.6", "cpu_fallback": "when_gpu_unusable"}):
        made = plan(facts, dify, **policy)
        assert codes(made["blocked"]) == [_plan_codes.GPU_GONE] and made["blocked"][0]["message"].startswith("this host had a GPU: ")
        assert "lspci" in made["blocked"][0]["remedy"] and "dify_image_cpu_fallback" in made["blocked"][0]["remedy"]
        assert made["parts"]["driver"]["action"] == "blocked"
    consented = plan(facts, dify, cpu_fallback="when_gpu_unusable")
    assert (consented["status"], consented["mode"]) == ("change", "degraded") and _plan_codes.DEGRADED in codes(consented["warnings"])
    named = plan(facts, dify, variant="cpu")
    assert (named["status"], named["mode"]) == ("change", "cpu")


def test_a_lost_gpu_that_only_the_second_look_tells_of():
    facts = gone(None)
    assert plan(facts, {})["mode"] == "cpu"
    made = plan(facts, applied(plan(nvidia())))
    assert codes(made["blocked"]) == [_plan_codes.GPU_GONE] and made["render"]["files"] == {}


def test_a_lost_gpu_stays_degraded_run_after_run():
    policy = {"cpu_fallback": "when_gpu_unusable"}
    degraded = plan(gone(None), deployed(), **policy)
    again = plan(gone(None), applied(degraded), **policy)
    assert (again["status"], again["mode"]) == ("ok", "degraded")
    # Named once, the host is a CPU host, and needs to be told no more.
    named = plan(gone(None), applied(degraded), variant="cpu")
    assert plan(gone(None), applied(named), variant="cpu")["status"] == "ok" == plan(gone(None), applied(named))["status"]


def test_driver_packages_without_a_gpu_are_a_warning():
    facts = without(gone(None), "driver", "installed", value={"version": "535.247.01"})
    made = plan(facts)
    assert (made["status"], made["mode"]) == ("change", "cpu") and _plan_codes.DRIVER_WITHOUT_GPU in codes(made["warnings"])
    assert _plan_codes.DRIVER_WITHOUT_GPU not in codes(plan(without_gpu())["warnings"] + plan(facts, variant="cpu")["warnings"])


def test_a_driver_for_passed_through_gpus_only_lost_nothing():
    passed = nvidia(gpus=[gpu(bound_driver="vfio-pci", index=None)])
    assert plan(passed)["mode"] == "cpu" and plan(passed)["blocked"] == []
    assert codes(plan(passed, deployed())["blocked"]) == [_plan_codes.GPU_GONE]


def test_gpus_passed_through_are_left_alone():
    passed = gpu(B200, 6, bound_driver="vfio-pci", index=None)
    made = plan(nvidia("535.247.01", [gpu(V100), passed]))
    assert made["image"]["variant"] == "cuda12.6" and _plan_codes.LEFT_ALONE in codes(made["warnings"])
    only = without(without_gpu(), "gpus", value=[passed])
    assert plan(only)["mode"] == "cpu" and _plan_codes.LEFT_ALONE in codes(plan(only)["warnings"])


# --- engine and toolkit ---


@pytest.mark.parametrize(
    "changed, code",
    [
        ({"name": None, "version": None, "running": None}, _plan_codes.NO_ENGINE),
        ({"name": "podman"}, _plan_codes.OTHER_ENGINE),
        ({"running": False, "error": "permission denied"}, _plan_codes.ENGINE_NOT_RUNNING),
        ({"compose_version": None}, _plan_codes.NO_COMPOSE),
        ({"compose_version": "1.29.2"}, _plan_codes.COMPOSE_TOO_OLD),
        ({"compose_version": "2.19.1"}, _plan_codes.COMPOSE_TOO_OLD),
    ],
)
def test_an_engine_that_cannot_be_used_blocks_every_mode(changed, code):
    for facts in (nvidia(), without_gpu()):
        facts["engine"].update(changed)
        made = plan(facts, cpu_fallback="when_gpu_unusable")
        assert codes(made["blocked"]) == [code] and made["parts"]["engine"]["action"] == "blocked"
        assert made["parts"]["image"]["action"] == "blocked" and made["render"]["files"] == {}


def test_an_image_is_not_built_without_buildx():
    facts = without(nvidia(), "engine", "buildx_version")
    made = plan(facts)
    assert codes(made["blocked"]) == [_plan_codes.NO_BUILDX] and "docker-buildx-plugin" in made["blocked"][0]["remedy"]
    assert made["parts"]["engine"]["action"] == "blocked" and made["render"]["files"] == {}
    assert codes(plan(facts, cpu_fallback="when_gpu_unusable")["blocked"]) == [_plan_codes.NO_BUILDX]
    # Before the look at the host nobody knows whether there is anything to build.
    assert plan(facts, {})["blocked"] == []
    assert plan(facts, applied(plan(nvidia())))["status"] == "ok"
    pulled = _catalog.load([{"name": "cuda12.6", "source": "pull"}], "registry.example.org/dify-gpu", "0.1.0")
    assert plan(facts, catalog=pulled)["status"] == "change"


@pytest.mark.parametrize(
    "specs",
    [
        [{"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/mig", "devices": ["all"]}],
        [{"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": ["0"]}],
        [{"path": "/opt/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": ["0", "all"]}],
        [{"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": [], "error": "line 3: not YAML"}],
    ],
)
def test_cdi_specifications_that_give_no_gpu(specs):
    made = plan(without(nvidia(), "toolkit", "cdi", "specs", value=specs))
    assert codes(made["blocked"]) == [_plan_codes.NO_CDI_SPEC] and made["parts"]["toolkit"]["action"] == "blocked"
    assert "nvidia-ctk cdi generate" in made["blocked"][0]["remedy"]


def test_everything_in_the_way_is_said_at_once():
    facts = nvidia(None, [gpu(bound_driver=None, index=None)], toolkit={"cdi": {"specs": []}})
    facts["engine"].update(cdi_enabled=False)
    assert codes(plan(facts)["blocked"]) == [_plan_codes.DRIVER_NOT_LOADED, _plan_codes.CDI_OFF, _plan_codes.NO_CDI_SPEC]


# --- warnings ---


@pytest.mark.parametrize(
    "facts, code",
    [
        (nvidia("535.247.01"), _plan_codes.BRANCH_ENDED),
        (without(nvidia(), "toolkit", "version", value="1.17.8"), _plan_codes.TOOLKIT_UNSAFE),
        (without(nvidia(), "toolkit", "lockstep", value=False), _plan_codes.TOOLKIT_MIXED),
        (without(nvidia(), "driver", "installed", value={"version": "580.95.05"}), _plan_codes.REBOOT_CHANGES_DRIVER),
        (without(nvidia(), "driver", "next_kernel_has_module", value=False), _plan_codes.NEXT_KERNEL_WITHOUT_MODULE),
    ],
)
def test_warnings_stop_nothing(facts, code):
    made = plan(facts)
    assert made["status"] == "change" and codes(made["warnings"]).count(code) == 1
    assert code not in codes(plan(nvidia("580.95.05"))["warnings"])


def test_a_stale_cdi_specification_is_a_warning():
    facts = nvidia()
    facts["toolkit"]["cdi"]["specs"][0].update(stale=True, reasons=["driver version differs"])
    assert _plan_codes.CDI_SPEC_STALE in codes(plan(facts)["warnings"])


def test_the_end_of_life_depends_on_the_day():
    assert _plan_codes.BRANCH_ENDED not in codes(plan(nvidia("535.247.01"), today=datetime.date(2026, 6, 30))["warnings"])


def test_a_reboot_is_passed_on():
    facts = nvidia()
    facts["driver"].update(reboot_required=True, reboot_reasons=["a new kernel"])
    assert plan(facts)["reboot"] == {"required": True, "reasons": ["a new kernel"]}


# --- what is there already ---


@pytest.mark.parametrize("facts", [nvidia(), without_gpu(), nvidia("470.256.02", [gpu(T4)])])
def test_a_plan_that_was_applied_plans_nothing(facts):
    again = plan(facts, applied(plan(facts)))
    assert again["status"] == "ok"
    assert {part["action"] for part in again["parts"].values()} == {"none"}


DRIFT = [
    (("files", COMPOSE, "sha256"), "0" * 64, "another content"),
    (("files", COMPOSE, "mode"), "0666", "has mode 0666"),
    (("files", COMPOSE, "owner"), "dify", "belongs to dify"),
    (("files", COMPOSE, "exists"), False, "is not there"),
    (("secrets", KEY, "exists"), False, "no API key yet"),
    (("secrets", KEY, "mode"), "0644", "has mode 0644"),
    (("secrets", KEY, "matches"), False, "API key is another one"),
    (("containers",), [], "its container is not there"),
    (("containers", 0, "image_id"), "sha256:2", "runs another image"),
    (("containers", 0, "labels"), {}, "made from another configuration"),
    (("containers", 0, "state"), "exited", "its container is exited"),
    (("containers", 0, "health"), "unhealthy", "its health is unhealthy"),
    (("containers", 0, "restart_policy"), "no", "restart policy is no"),
    (("containers", 0, "secrets_applied"), False, "its container has another API key than the file"),
    (("files", SECRETS, "mode"), "0755", "/opt/dify-gpu/secrets has mode 0755 instead of 0700"),
    (("files", SECRETS, "owner"), "dify", "/opt/dify-gpu/secrets belongs to dify instead of root"),
]


@pytest.mark.parametrize("path, value, sentence", DRIFT)
def test_drift_is_seen(path, value, sentence):
    made = plan(nvidia(), without(applied(plan(nvidia())), *path, value=value))
    assert made["status"] == "change" and made["parts"]["image"]["action"] == "none"
    assert made["parts"]["service"]["action"] == "update" and sentence in made["parts"]["service"]["reason"]


@pytest.mark.parametrize(
    "path, value", [(("files", SECRETS), None), (("files", SECRETS, "exists"), None), (("containers", 0, "secrets_applied"), None)]
)
def test_what_could_not_be_seen_is_no_drift(path, value):
    assert plan(nvidia(), without(applied(plan(nvidia())), *path, value=value))["status"] == "ok"


@pytest.mark.parametrize("health, status", [("/healthz", "change"), (None, "ok")])
def test_the_health_of_an_image_without_a_health_check_is_not_compared(health, status):
    site = {"name": "site", "image": "registry.example.org/x:1", "cuda": "12.2", "torch": "2.3.1", "sm": ["8.6"], "port": 8080}
    catalog = _catalog.load([{**site, "health": health}], "difyops/dify-gpu", "0.1.0")
    first = plan(nvidia(), catalog=catalog, variant="site")
    assert (first["image"]["port"], first["image"]["health"]) == (8080, health)
    unhealthy = without(applied(first), "containers", 0, "health", value="starting")
    assert plan(nvidia(), unhealthy, catalog=catalog, variant="site")["status"] == status
    stopped = without(unhealthy, "containers", 0, "state", value="exited")
    assert "is exited" in plan(nvidia(), stopped, catalog=catalog, variant="site")["parts"]["service"]["reason"]


def test_a_leftover_service_of_the_project_is_seen():
    dify = applied(plan(nvidia()))
    dify["containers"].append({"service": "old", "state": "running"})
    assert "still runs old" in plan(nvidia(), dify)["parts"]["service"]["reason"]


@pytest.mark.parametrize(
    "image, action, reason",
    [
        (None, "build", "not on this host"),
        ({"id": "sha256:1", "labels": {_recipe.LABEL: "older"}}, "build", "the recipe has changed"),
        ({"id": "sha256:1", "labels": {}}, "build", "was not built from a recipe"),
    ],
)
def test_an_image_that_is_not_the_one(image, action, reason):
    first = plan(nvidia())
    dify = without(applied(first), "images", first["image"]["reference"], value=image)
    made = plan(nvidia(), dify)
    assert made["parts"]["image"]["action"] == action and reason in made["parts"]["image"]["reason"]
    # The container is made anew with the image, in the same run.
    assert made["parts"]["service"]["action"] == "update" and "another image" in made["parts"]["service"]["reason"]


def test_a_container_whose_image_nobody_knows_runs_another_image():
    first = plan(nvidia())
    dify = without(applied(first), "images", value={})
    dify["containers"][0]["image_id"] = None
    assert "another image" in plan(nvidia(), dify)["parts"]["service"]["reason"]


def test_a_pulled_image_of_another_digest():
    catalog = _catalog.load([{"name": "cuda12.6", "source": "pull", "digest": DIGEST}], "registry.example.org/dify-gpu", "0.1.0")
    first = plan(nvidia(), catalog=catalog)
    dify = applied(first)
    assert plan(nvidia(), dify, catalog=catalog)["status"] == "ok"
    dify["images"][first["image"]["reference"]]["repo_digests"] = ["x@sha256:" + "b" * 64]
    assert plan(nvidia(), dify, catalog=catalog)["parts"]["image"]["action"] == "pull"


def test_an_engine_that_does_not_tell_what_is_deployed_blocks():
    made = plan(nvidia(), without(applied(plan(nvidia())), "error", value="permission denied"))
    assert codes(made["blocked"]) == [_plan_codes.DIFY_NOT_READABLE] and made["parts"]["service"]["action"] == "blocked"
    assert made["parts"]["service"]["reason"] == "what is deployed could not be read: permission denied"


@pytest.mark.parametrize(
    "changed", [{"port": 9000}, {"models_dir": "/srv/models"}, {"environment": {"BATCH_SIZE": "8"}}, {"bind_address": "::1"}]
)
def test_a_changed_wish_updates_the_service_and_not_the_image(changed):
    made = plan(nvidia(), applied(plan(nvidia())), service=_compose.Service(**changed))
    assert (made["parts"]["image"]["action"], made["parts"]["service"]["action"]) == ("none", "update")


@pytest.mark.parametrize("facts", [None, {}, [], "x", {"gpus": None}])
def test_a_host_that_was_not_observed(facts):
    made = plan(facts)
    assert codes(made["blocked"]) == [_plan_codes.NOT_OBSERVED] and list(made) == PLAN_KEYS


def test_what_is_deployed_was_not_observed():
    made = plan(nvidia())
    assert made["status"] == "change" and _plan_codes.DIFY_NOT_OBSERVED in codes(made["warnings"])
    # An empty document: the look comes after this plan.
    first = plan(nvidia(), {})
    assert first["status"] == "change" and _plan_codes.DIFY_NOT_OBSERVED not in codes(first["warnings"])
    assert first["render"] == made["render"]


# --- properties ---

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)


def maybe(strategy):
    return st.one_of(strategy, st.none(), JUNK)


DRIVER = st.builds(lambda branch, rest: f"{branch}.{rest:02d}.01", st.integers(430, 640), st.integers(0, 250))
BOARDS = st.sampled_from([A10, T4, P4, V100, H100, B200, ("0xffff", None), ("0x1021", None)])
GPU = st.builds(
    lambda board, slot, changed: gpu(board, slot, **changed),
    BOARDS,
    st.integers(1, 9),
    st.fixed_dictionaries(
        {},
        optional={
            "bound_driver": maybe(st.sampled_from(["nvidia", "nouveau", "vfio-pci"])),
            "health": maybe(st.sampled_from(["ok", "lost", "reset_required", "error"])),
            "index": maybe(st.integers(0, 3)),
            "compute_mode": maybe(st.sampled_from(["default", "prohibited"])),
            "compute_capability": maybe(st.sampled_from(["7.5", "9.0", "10.3", "8"])),
            "mig": JUNK,
        },
    ),
)
NVIDIA = st.fixed_dictionaries(
    {"gpus": maybe(st.lists(GPU, max_size=3))},
    optional={
        "driver": maybe(
            st.fixed_dictionaries(
                {"loaded": maybe(st.fixed_dictionaries({"version": maybe(DRIVER)}))},
                optional={
                    "installed": maybe(st.fixed_dictionaries({"version": maybe(DRIVER)})),
                    "cuda_version": maybe(st.sampled_from(["11.4", "12.2", "14.0"])),
                    "mismatch": maybe(st.booleans()),
                    "next_kernel_has_module": maybe(st.booleans()),
                    "reboot_required": maybe(st.booleans()),
                    "reboot_reasons": JUNK,
                },
            )
        ),
        "nvml": maybe(
            st.fixed_dictionaries({"source": st.sampled_from(["nvml", "sysfs"]), "error": maybe(st.just({"code": 18, "message": "m"}))})
        ),
        "toolkit": maybe(st.sampled_from([nvidia()["toolkit"], {"version": "1.17.8", "lockstep": False, "cdi": None}])),
        "engine": maybe(st.sampled_from([nvidia()["engine"], {"name": "podman"}, {"name": "docker", "running": True}])),
        "host": JUNK,
    },
)
WORKING = st.builds(nvidia, DRIVER, st.lists(st.builds(gpu, BOARDS, st.integers(1, 9)), min_size=1, max_size=3)) | st.builds(
    lambda driver, version: {**without_gpu(), "driver": {**nvidia(version)["driver"], "loaded": driver and {"version": version}}},
    st.booleans(),
    DRIVER,
)
MODE = st.sampled_from(["gpu", "cpu", "degraded", None, 3])
CONTAINER = st.fixed_dictionaries(
    {"service": st.just("dify-gpu"), "labels": JUNK | st.builds(lambda mode: {"org.difyops.mode": mode}, MODE)},
    optional={"secrets_applied": maybe(st.booleans())},
)
DIFY = maybe(
    st.fixed_dictionaries(
        {},
        optional={
            "files": maybe(st.just({COMPOSE: {"exists": True}, SECRETS: {"exists": True, "mode": 7}})),
            "secrets": maybe(st.just({KEY: {"exists": True, "mode": "x"}})),
            "images": maybe(st.dictionaries(st.sampled_from([v.image for v in CATALOG]), maybe(st.just({"id": "sha256:1"})), max_size=2)),
            "containers": maybe(st.lists(CONTAINER, max_size=2)),
            "error": maybe(st.just("no answer")),
        },
    )
)
PARTS = st.sampled_from([frozenset(_planner.PARTS), frozenset({"image", "service"}), frozenset({"driver"}), frozenset()])
POLICY = st.fixed_dictionaries(
    {
        "prefer": st.sampled_from(["newest", "full_support_first"]),
        "cpu_fallback": st.sampled_from(_planner.CPU_FALLBACKS),
        "forward_compat": st.booleans(),
        "variant": st.none() | st.sampled_from([variant.name for variant in ENABLED]),
    }
)


def rule_holds(driver, cuda, sm, ptx, capability):
    """The rule of docs/compatibility.md, written down a second time and as briefly as possible."""
    floors = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
    if Version(driver) < Version(floors[int(cuda.split(".")[0])]):
        return False
    major, minor = map(int, capability.split("."))
    return any(int(target.split(".")[0]) == major and int(target.split(".")[1]) <= minor for target in sm) or (
        ptx is not None and Version(ptx) <= Version(capability)
    )


WANTS = st.fixed_dictionaries(
    {},
    optional={
        "apply": PARTS,
        "driver": st.builds(
            Settings,
            state=st.sampled_from(CHOICES["state"]),
            policy=st.sampled_from(CHOICES["policy"]),
            branch=st.none() | st.sampled_from([470, 580, 595, 999]),
            version=st.none() | st.sampled_from(["535.247.01", "580.95.05"]),
            flavour=st.sampled_from(CHOICES["flavour"]),
            reboot=st.sampled_from(CHOICES["reboot"]),
            reload=st.sampled_from(CHOICES["reload"]),
        ),
        "gpus": st.lists(st.sampled_from(["0", "1", "0:1", "0000:00:05.0", "GPU-aaaaaaaa"]), max_size=2).map(tuple),
        "min_cuda": st.sampled_from([None, "12.1"]),
        "max_cuda": st.sampled_from([None, "12.8"]),
        "features": st.sampled_from([(), ("fp8",), ("bf16", "fp16")]),
        "fleet": st.none()
        | JUNK
        | st.sampled_from([{"variant": "cuda12.6", "blocked": []}, {"blocked": [{"code": "DG731", "message": "m"}]}]),
    },
)
ACTIONS = {"none", "remove", "install", "upgrade", "configure", "create", "update", "build", "pull"}


@st.composite
def mutated(draw, document):
    """Return a realistic document in which some values are replaced, taken away or doubled: what a host of another version may send."""
    changed = copy.deepcopy(document)
    for _time in range(draw(st.integers(0, 4))):
        inner = changed
        while isinstance(inner, (dict, list)) and inner:
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))))
            deeper = inner[key]
            if isinstance(deeper, (dict, list)) and deeper and draw(st.booleans()):
                inner = deeper
                continue
            inner[key] = draw(JUNK | st.sampled_from([deeper, [deeper], str(deeper), "", -1, 10**30, "580.95.05", "nvidia", "\u0663"]))
            break
    return changed


REALISTIC = st.sampled_from([nvidia(), nvidia("580.95.05", [gpu(A10), gpu(T4, 6)]), nvidia(None, [gpu(bound_driver=None)]), without_gpu()])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=250)
@given(NVIDIA | WORKING | JUNK | REALISTIC.flatmap(mutated), DIFY, POLICY, WANTS, st.booleans())
def test_any_facts_give_a_plan_of_the_form(facts, dify, policy, wants, force):
    wanted = {**policy, **wants, "force": force and policy["variant"] is not None}
    made = plan(facts, dify, **wanted)
    assert plan(copy.deepcopy(facts), copy.deepcopy(dify), **wanted) == made
    assert list(made) == PLAN_KEYS and list(made["parts"]) == list(_planner.PARTS)
    assert (made["status"] == "blocked") == bool(made["blocked"])
    actions = {part["action"] for part in made["parts"].values()}
    assert actions <= ({"none", "blocked"} if made["blocked"] else ACTIONS)
    assert (made["status"] == "ok") == (actions == {"none"})
    apply = wants.get("apply", {"image", "service"})
    assert all(part["action"] in ("none", "blocked") or name in apply for name, part in made["parts"].items())
    assert set(made["render"]["files"]) == ({COMPOSE} if "service" in apply and not made["blocked"] else set())
    assert all(entry["code"] in _plan_codes.CODES for entry in [*made["blocked"], *made["warnings"], *made["rejected"]])
    assert all(isinstance(part["reason"], str) and part["reason"] for part in made["parts"].values())
    assert made["blocked"] or made["mode"] != "gpu" or made["image"]["devices"] or "service" not in apply
    assert all((entry["device"] is not None) == entry["used"] and (entry["used"] or entry["reason"]) for entry in made["gpus"])
    assert isinstance(_plan_text.render_plan([("h1", made)], True), str)
    json.dumps(made)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
@given(NVIDIA | WORKING, POLICY)
def test_a_chosen_variant_satisfies_the_rule_on_every_gpu_it_is_to_use(facts, policy):
    made = plan(facts, **policy)
    if made["blocked"] or made["mode"] != "gpu":
        assert made["blocked"] or made["image"]["cuda"] is None
        return
    variant = next(v for v in CATALOG if v.name == made["image"]["variant"])
    assert policy["variant"] in (None, variant.name)
    assert made["image"]["support"] in ("full", "minor")
    # All GPUs that are ours get into the container, so every one of them must be able to compute.
    ours = [g for g in facts["gpus"] if isinstance(g, dict) and g.get("bound_driver") != "vfio-pci"]
    assert ours and not any(g.get("health") in ("lost", "reset_required", "error") or g.get("compute_mode") == "prohibited" for g in ours)
    used = [g for g in facts["gpus"] if isinstance(g.get("compute_capability"), str) and g.get("bound_driver") == "nvidia"]
    for card in used:
        if card.get("health") in (None, "ok") and card["compute_capability"].count(".") == 1 and card.get("compute_mode") == "default":
            mig = card.get("mig")
            if not (isinstance(mig, dict) and mig.get("current") is True):
                assert rule_holds(facts["driver"]["loaded"]["version"], variant.cuda, variant.sm, variant.ptx, card["compute_capability"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=100)
@given(WORKING, DIFY, POLICY)
def test_what_was_applied_plans_to_ok(facts, dify, policy):
    made = plan(facts, dify, **policy)
    if made["blocked"]:
        # Only facts about the GPU or an engine that does not answer can block here, and no change is planned then.
        assert made["render"]["files"] == {}
        return
    again = plan(facts, applied(made), **policy)
    assert again["status"] == "ok"
    assert (again["image"], again["render"], again["mode"]) == (made["image"], made["render"], made["mode"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=100)
@given(NVIDIA | WORKING, DIFY, POLICY)
def test_a_host_that_had_a_gpu_becomes_a_cpu_host_by_name_only(facts, dify, policy):
    made = plan(facts, dify, **policy)
    containers = dify.get("containers") if isinstance(dify, dict) else None
    labels = [c.get("labels") for c in containers if isinstance(c, dict)] if isinstance(containers, list) else []
    had = any(isinstance(label, dict) and label.get("org.difyops.mode") in ("gpu", "degraded") for label in labels)
    if had and not made["blocked"] and policy["variant"] != "cpu":
        assert made["mode"] in ("gpu", "degraded")


def test_the_same_input_gives_the_same_plan():
    assert plan(nvidia()) == plan(copy.deepcopy(nvidia())) and wishes().host == "h1"
