# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How plans and the decision for a fleet read."""

from __future__ import annotations

from ansible_collections.difyops.gpu.plugins.plugin_utils import _fleet, _plan_text, _planner, _report
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import (
    A10,
    B200,
    CATALOG,
    T4,
    applied,
    gpu,
    nvidia,
    plan,
    wishes,
    without_gpu,
)

UPGRADE = {"driver": Settings(policy="upgrade", reboot="if_needed", busy="wait"), "apply": frozenset(_planner.PARTS)}


def text(*plans, check=False):
    return _plan_text.render_plan(plans, check)


def test_a_plan_reads_like_this():
    old = plan(nvidia("470.256.02", [gpu(T4, name="Tesla T4")]), {}, variant="cuda12.6")
    fresh = plan(nvidia("535.247.01", [gpu(A10, name="NVIDIA A10")]), {})
    assert text(("a10-535", fresh), ("t4-470", old), ("a10-536", {**fresh, "host": "y"}), ("gone-1", None), check=True) == """\
PLAN for 4 hosts: 2 to change, 1 BLOCKED, 1 without a plan (checked, not applied)

a10-535, a10-536: change
  chosen    cuda12.6 with PyTorch 2.14.1: CUDA 12.6 on driver 535.247.01: minor-version compatibility (driver >=
            525.60.13)
  rejected  cuda11.8, cuda12.1: DG708 fits too (full); cuda12.6 with torch 2.14.1 comes first by the preference newest
  rejected  cuda12.4, cuda12.8: DG708 fits too (minor); cuda12.6 with torch 2.14.1 comes first by the preference newest
  rejected  cuda13.0, cuda13.2: DG703 CUDA 13.x needs driver >= 580.65.06; loaded is 535.247.01
  image     build difyops/dify-gpu:web-server-cuda12.6-v0.1.0 (not on this host)
  service   create difyops/dify-gpu:web-server-cuda12.6-v0.1.0 (/opt/dify-gpu/compose.yaml is not there; there is no API
            key yet; its container is not there)
  advice    upgrade the driver to branch 580 (supported until 2028-06) and 2 more variants open up: cuda13.0, cuda13.2;
            cuda13.2 would be chosen

t4-470: BLOCKED, nothing is touched
  blocked   DG702 cuda12.6 was asked for by name and does not fit: CUDA 12.x needs driver >= 525.60.13; loaded is
            470.256.02
            -> leave variant (dify_image_variant) empty to let the plan choose, or upgrade the driver
  rejected  cuda11.8: DG708 fits too (minor), but cuda12.6 was asked for by name
  rejected  cuda12.1, cuda12.4, cuda12.6, cuda12.8: DG703 CUDA 12.x needs driver >= 525.60.13; loaded is 470.256.02
  rejected  cuda13.0, cuda13.2: DG703 CUDA 13.x needs driver >= 580.65.06; loaded is 470.256.02
  advice    upgrade the driver to branch 580 (supported until 2028-06) and one more variant opens up: cuda12.6

gone-1: no plan, the result below says why

WARNINGS
  DG750 driver branch 470 reached its end of life in 2024-07; plan an upgrade to a supported branch, 580 for the longest
        support [t4-470]
  DG750 driver branch 535 reached its end of life in 2026-06; plan an upgrade to a supported branch, 580 for the longest
        support [a10-535, a10-536]
  DG763 PyTorch 2.14.1 is the last one with wheels for cu126; 2.15.0 is out without them; it works and gets no fixes any
        more; a newer CUDA needs a newer driver or another GPU [a10-535, a10-536]"""


def test_what_it_costs_is_said():
    facts = nvidia("535.247.01", [gpu(name="NVIDIA A10")])
    facts["engine"]["gpu_containers"] = [{"id": "c0ffee", "name": "ollama"}]
    facts["driver"]["reboot_reasons"] = ["a new kernel is installed"]
    drain = Settings(policy="upgrade", reboot="if_needed", busy="drain", drain_containers=("olla*",))
    made = plan(facts, applied(plan(facts)), driver=drain, apply=frozenset(_planner.PARTS))
    lines = text(("a", made))
    assert "  driver    upgrade 535.247.01 -> 580 (the newest long-term support branch" in lines
    assert "the service restarts; the driver is changed, and containers are stopped and started again: ollama;" in lines
    assert "  reboot    driver 580 takes the place of the loaded 535.247.01; a new kernel is installed" in lines
    assert "cuda13.2 with PyTorch 2.15.0, expected once the planned driver is loaded: CUDA 13.2 on driver branch 580" in lines


def test_what_stops_is_said_where_no_container_is_known():
    made = plan(nvidia("535.247.01"), {}, **UPGRADE)
    assert "  cost      the driver is changed, and nothing uses a GPU now\n" in text(("a", made))


def test_going_back_is_called_so():
    def told(before, **wish):
        made = plan(nvidia(before), {}, driver=Settings(**wish, reboot="if_needed"), apply=frozenset(_planner.PARTS))
        assert made["parts"]["driver"]["action"] == "upgrade"
        return text(("a", made))

    assert "  driver    downgrade 580.95.05 -> 570 (" in told("580.95.05", branch=570)
    assert "  driver    downgrade 580.95.05 -> 580.65.06 (" in told("580.95.05", version="580.65.06")
    assert "  driver    upgrade 580.65.06 -> 580.95.05 (" in told("580.65.06", version="580.95.05")
    assert "  driver    upgrade 570.124.06 -> 580 (" in told("570.124.06", branch=580)
    old = nvidia("580.95.05")
    old["engine"]["compose_version"] = "2.23.1"
    upgraded = text(("a", plan(old, {}, apply=frozenset(_planner.PARTS))))
    assert "  engine    upgrade 26.1.5 -> 26.1.5 with Compose 2.24.0 or newer" in upgraded


def test_a_gpu_that_is_left_alone_asks_for_nothing():
    facts = nvidia("580.95.05", [gpu(A10, 5), gpu(T4, 6, bound_driver="vfio-pci", index=None, name="Tesla T4")])
    assert "left alone; such GPUs are never touched, and nothing is to be done" in " ".join(text(("a", plan(facts, {}))).split())


def test_an_unchanged_host_is_told_in_few_lines():
    facts = nvidia("580.95.05", [gpu(name="NVIDIA A10")])
    made = plan(facts, applied(plan(facts)))
    assert text(("a", made)).splitlines()[2:] == [
        "a: nothing to change",
        "  chosen    cuda13.2 with PyTorch 2.15.0: CUDA 13.2 on driver 580.95.05: minor-version compatibility (driver >=",
        "            580.65.06)",
    ]


def test_a_plan_for_the_cpu_says_so():
    broken = nvidia(None, [gpu(bound_driver=None, index=None)])
    both = text(("a", plan(without_gpu(), {})), ("b", plan(broken, {}, cpu_fallback="when_gpu_unusable")))
    assert "a: change, serves on the CPU" in both
    assert "b: change, DEGRADED to the CPU by consent" in both and "not applied" not in both
    assert "rejected  cuda11.8, cuda12.1, cuda12.4, cuda12.6, cuda12.8, cuda13.0, cuda13.2: DG709 this host has no NVIDIA GPU" in both


def test_gpus_that_are_not_used_are_named():
    facts = nvidia("580.95.05", [gpu(A10, 5, name="NVIDIA A10", index=0), gpu(T4, 6, name="Tesla T4", index=1)])
    facts["toolkit"]["cdi"]["specs"][0]["devices"] = ["0", "1", "all"]
    assert "  gpus      1 of 2 used; Tesla T4 at 0000:00:06.0 is not among the GPUs to use\n" in text(("a", plan(facts, {}, gpus=("0",))))
    facts = nvidia("580.95.05", [gpu(A10, slot, name="NVIDIA A10", index=slot) for slot in range(4)])
    facts["toolkit"]["cdi"]["specs"][0]["devices"] = ["0", "1", "2", "3", "all"]
    told = "1 of 4 used; NVIDIA A10 at 0000:00:00.0, 0000:00:01.0, 0000:00:03.0 are not among the GPUs to use"
    assert told in " ".join(text(("a", plan(facts, {}, gpus=("2",)))).split())


def test_a_pending_reboot_is_said_once():
    facts = nvidia("580.95.05")
    facts["driver"].update(reboot_required=True, reboot_reasons=["a new kernel is installed"])
    assert text(("a", plan(facts, {}))).count("a new kernel is installed") == 1


def test_a_thousand_hosts_with_few_kinds_of_plans_are_a_page():
    kinds = [plan(nvidia("580.95.05"), {}), plan(nvidia("470.256.02", [gpu(T4)]), {}), plan(without_gpu(), {})]
    plans = [(f"gpu-{number:04}", {**kinds[number // 400], "host": f"gpu-{number:04}"}) for number in range(1000)]
    lines = text(*plans).splitlines()
    assert lines[0] == "PLAN for 1000 hosts: 1000 to change" and len(lines) < 60
    assert {"gpu-[0000:0399]: change", "gpu-[0400:0799]: change", "gpu-[0800:0999]: change, serves on the CPU"} <= set(lines)


def test_a_warning_of_very_many_hosts_names_some_and_every_host_is_in_its_block():
    made = plan(nvidia("535.247.01", [gpu(A10)]), {})
    names = [f"gpu-{number:04}" for number in range(0, 1000, 2)]
    told = text(*[(name, made) for name in [*names, "other-a", "other-b"]], ("quiet", plan(without_gpu(), {})))
    blocks, warnings = told.split("WARNINGS")
    assert all(name in blocks for name in names) and "gpu-0022 and 490 more]" in " ".join(warnings.split())


def test_no_hosts_and_plans_of_older_collections():
    assert text().startswith("PLAN for 0 hosts")
    assert text(("a", {"status": "ok"})).endswith("a: nothing to change")


def test_the_report_hands_on_what_is_printed():
    made = plan(nvidia(), {}, gpus=())
    record = _report.build_record("h1", {"nvidia": nvidia(), "gpu_plan": made}, None, True, True, "now")
    assert text(("h1", record["plan"])) == text(("h1", made))


# --- the fleet ---


def fleet(facts, missing="block", **changed):
    return _plan_text.render_fleet(_fleet.decide(facts, CATALOG, wishes(**changed), missing))


def test_a_fleet_reads_like_this():
    facts = {f"gpu-{number:02}": nvidia("535.247.01", [gpu(A10, name="NVIDIA A10")]) for number in range(1, 12)}
    facts["gpu-12"] = nvidia("470.256.02", [gpu(T4, name="Tesla T4")])
    facts["web-1"] = without_gpu()
    facts["gone-1"] = None
    assert fleet(facts, missing="allow") == """\
FLEET of 14 hosts: cuda11.8 for 12 hosts; 1 host without a GPU
  missing   gone-1: decided without
  held back from cuda12.6, cuda12.8 by gpu-12: CUDA 12.x needs driver >= 525.60.13; loaded is 470.256.02
  runs      cuda12.6 on 11, cuda12.8 on 11, cuda11.8 on 12, cuda12.4 on 11, cuda12.1 on 11 of 12 hosts
  differ    drivers: 470.256.02 on gpu-12; 535.247.01 on gpu-[01:11]
  differ    GPUs: 1 x NVIDIA A10 on gpu-[01:11]; 1 x Tesla T4 on gpu-12"""


def test_a_blocked_fleet_says_why():
    told = fleet({"gpu-1": nvidia(), "gone-1": None, "gone-2": None, "gone-3": None})
    assert told.startswith("FLEET of 4 hosts: BLOCKED, 3 hosts cannot be judged\n")
    assert "blocked   DG731 3 hosts of the fleet cannot be judged: gone-[1:3] (no facts)" in told
    assert "-> gather the facts of the hosts without them, or take" in told and "no variant for all" not in told


def test_a_fleet_that_has_nothing_in_common_says_so():
    told = fleet({"b200": nvidia("580.95.05", [gpu(B200)]), "t4": nvidia("470.256.02", [gpu(T4)]), "gone": None})
    assert told.startswith("FLEET of 3 hosts: BLOCKED, no variant for all\n")


def test_nobody_knows_what_a_fleet_without_facts_runs():
    told = fleet({"gone-1": None, "gone-2": None}, missing="allow")
    assert told.startswith("FLEET of 2 hosts: no variant to agree on: nothing is known about any host\n")
    told = fleet({"gone-1": None, "web-1": without_gpu()}, missing="allow")
    assert told.startswith("FLEET of 2 hosts: no variant to agree on: none of the others runs one on a GPU\n")


def test_a_fleet_without_gpus():
    assert fleet({"web-1": without_gpu()}) == "FLEET of 1 host: no variant to agree on, since no host runs one on a GPU"
