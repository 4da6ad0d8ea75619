# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long 10,000 hosts take to plan on one core, and one decision for the whole fleet.

The facts are varied as those of a real fleet are: kinds and numbers of GPUs, drivers of eight branches, hosts without a GPU, without a
driver, with a stale CDI specification, with MIG devices, with another engine, with something deployed and without. They are made before the
clock starts. What the planner caches (judgements, rendered files) starts empty and is part of the time.

Run it from a copy of the repository at ansible_collections/difyops/gpu, with the folder above ansible_collections in PYTHONPATH:

    python tests/benchmark/plan.py [--hosts 10000] [--seed 1] [--profile]
"""

from __future__ import annotations

import argparse
import collections
import cProfile
import dataclasses
import datetime
import json
import pstats
import random
import sys
import time
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _advice,
    _catalog,
    _compose,
    _fleet,
    _plan_text,
    _planner,
    _selector,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils import plan_documents as documents

LIMIT_S = 10.0
TODAY = datetime.date(2026, 11, 22)
BOARDS = [
    (documents.A10, "NVIDIA A10"),
    (documents.A100, "NVIDIA A100-SXM4-40GB"),
    (documents.H100, "NVIDIA H100 80GB HBM3"),
    (documents.T4, "Tesla T4"),
    (documents.V100, "Tesla V100-SXM2-16GB"),
    (documents.P4, "Tesla P4"),
    (documents.B200, "NVIDIA B200"),
    (documents.RTX_3090, "NVIDIA GeForce RTX 3090"),
]
DRIVERS = ["470.256.02", "525.147.05", "535.247.01", "550.163.01", "570.211.01", "580.95.05", "580.178.04", "595.99.02"]


def host(dice: random.Random, number: int) -> dict[str, Any]:
    """Return the facts of a host; a few of a hundred are in trouble."""
    if dice.random() < 0.1:
        return documents.without_gpu()
    board, name = dice.choice(BOARDS)
    count = dice.choice([1, 1, 2, 4, 8])
    driver = None if dice.random() < 0.03 else dice.choice(DRIVERS)
    gpus = [
        documents.gpu(board, slot, index=slot - 1, name=name, uuid=f"GPU-{number:08x}-0000-4000-8000-{slot:012x}", bound_driver="nvidia")
        if driver
        else documents.gpu(board, slot, name=None, uuid=None, bound_driver=None, index=None)
        for slot in range(1, count + 1)
    ]
    facts = documents.nvidia(driver, gpus)
    facts["engine"]["version"] = dice.choice(["26.1.5", "27.5.1", "28.3.0", "29.1.2"])
    facts["toolkit"]["version"] = dice.choice(["1.17.8", "1.19.1", "1.20.1"])
    _break(dice, facts)
    return facts


def _break(dice: random.Random, facts: dict[str, Any]) -> None:
    """Give a host a trouble of its own, mostly none."""
    trouble = dice.random()
    if trouble < 0.02:
        facts["toolkit"]["cdi"]["specs"] = []
    elif trouble < 0.04:
        facts["engine"]["cdi_enabled"] = False
    elif trouble < 0.06:
        facts["gpus"][-1]["health"] = dice.choice(["lost", "reset_required"])
    elif trouble < 0.08:
        facts["toolkit"]["cdi"]["specs"][0].update(stale=True, reasons=["made for another driver"])
    elif trouble < 0.12 and facts["gpus"][0].get("index") is not None:
        devices = [
            {"index": part, "uuid": f"MIG-{part:08x}-0000-4000-8000-000000000000", "profile": "3g.20gb", "memory_total_mib": 20096}
            for part in (0, 1)
        ]
        for gpu in facts["gpus"]:
            gpu["mig"] = {"current": True, "pending": True, "devices": devices}
        facts["toolkit"]["cdi"]["specs"][0]["devices"] = ["0:0", "0:1", "all"]


def plan_all(
    facts: dict[str, dict[str, Any]], deployed: dict[str, Any], wishes: list[_planner.Wishes]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Plan every host with one of the wishes, and decide for all of them together."""
    catalog = _catalog.load([], "difyops/dify-gpu", "0.1.0")
    plans = []
    for number, (name, document) in enumerate(facts.items()):
        base = wishes[number % len(wishes)]
        plans.append(_planner.make_plan(document, deployed.get(name, {}), catalog, dataclasses.replace(base, host=name)))
    return plans, _fleet.decide(facts, catalog, wishes[0], _fleet.ALLOW)


def check(plans: list[dict[str, Any]], fleet: dict[str, Any], hosts: int) -> collections.Counter[str]:
    """Assert that the result is what it should be: plans of the form, of every status, and a decision over all hosts."""
    counts: collections.Counter[str] = collections.Counter(plan["status"] for plan in plans)
    assert len(plans) == hosts and set(counts) == {"ok", "change", "blocked"}, counts
    for plan in plans:
        actions = {part["action"] for part in plan["parts"].values()}
        assert (plan["status"] == "blocked") == bool(plan["blocked"])
        assert (plan["status"] == "ok") == (actions == {"none"}), plan["host"]
        assert plan["blocked"] or plan["image"]["variant"]
    variants = {plan["image"]["variant"] for plan in plans if plan["image"]}
    assert {"cpu", "cuda11.8", "cuda12.6", "cuda12.8", "cuda13.2"} <= variants, variants
    assert fleet["hosts"] + len(fleet["missing"]) == hosts and fleet["candidates"] and fleet["drift"]
    json.dumps([plans[0], fleet])
    return counts


def main() -> int:
    """Make the facts, plan, check, and print what it took."""
    parser = argparse.ArgumentParser(description="Plan many hosts on one core.")
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    dice = random.Random(options.seed)  # noqa: S311  facts for a benchmark, no secret
    facts = {f"gpu-{number:05}": host(dice, number) for number in range(options.hosts)}
    keep = documents.wishes(today=TODAY)
    newest = Settings(policy="upgrade", reboot="if_needed", busy="wait")
    upgrade = documents.wishes(today=TODAY, driver=newest, apply=frozenset(_planner.PARTS))
    deployed = {}
    for number, (name, document) in enumerate(facts.items()):
        if number % 2 == 0:
            made = documents.plan(document, {})
            deployed[name] = documents.applied(made) if not made["blocked"] else {}
    for cached in (_compose._text, _selector._select, _selector.judge, _advice._driver_advice):
        cached.cache_clear()
    profile = cProfile.Profile()
    if options.profile:
        profile.enable()
    started = time.process_time()
    plans, fleet = plan_all(facts, deployed, [keep, keep, upgrade, keep])
    took = time.process_time() - started
    profile.disable()
    counts = check(plans, fleet, options.hosts)
    text = _plan_text.render_plan([(plan["host"], plan) for plan in plans], check=True)
    print(f"{options.hosts} hosts planned and one decision for all of them in {took:.2f} s on one core: {options.hosts / took:.0f} plans/s")
    decision = fleet["variant"] or fleet["blocked"][0]["code"]
    print(f"{dict(sorted(counts.items()))}; fleet: {decision}; the printed plan has {len(text.splitlines())} lines")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    return 0 if took < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
