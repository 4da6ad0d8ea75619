# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of driver, engine and toolkit together, and what became of them, as an operator reads them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _provision_text
from hypothesis import given
from hypothesis import strategies as st
from platform_scenarios import DIFY, WEB, answer, bare, engine, toolkit, with_engine, with_toolkit


def record(facts: dict[str, Any], outcomes: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    return _provision_text.build_record("a", facts, outcomes, **{"in_play": True, "check": False, "time": "now", **changed})


def told(status: str, before: str | None = None, after: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"status": status, "before": before, "after": after, "message": f"it is {status}", "code": code}


def test_a_plan_of_engine_and_toolkit() -> None:
    running = [WEB, DIFY]
    facts = with_toolkit(with_engine(bare(), version="26.1.5", cdi_enabled=False, containers=running), "1.17.8")
    own = {"daemon_config": {"log-opts": {"tag": "hunter2"}}, "restart": "if_needed"}
    query = toolkit(facts)["query"]
    made = record({"gpu_engine": engine(facts, **own), "gpu_toolkit": toolkit(facts, answer(query, "1.20.1"))})
    text = _provision_text.render_plan([made], False)
    assert text.startswith("PROVISIONING of 1 host: 1 to change") and "\na: change\n" in text
    flat = " ".join(text.split())
    for said in (
        "engine configure 26.1.5",
        "log-opts.tag, features.cdi are set",
        "stops web, dify-gpu-dify-gpu-1, for a moment; started again by the role: web",
        "then Docker is RESTARTED",
        "toolkit upgrade 1.17.8 -> 1.20.1",
        "from NVIDIA's repository",
        "packages 4 packages come or change; 60 MiB to load",
        "CDI /var/run/cdi/nvidia.yaml is made anew by the packaged service; the packaged units are enabled",
    ):
        assert said in flat, f"{said}: {text}"
    assert "hunter2" not in str(made) and "hunter2" not in text and "content" not in str(made["plan"]["toolkit"]["pins"]["files"])
    assert [line for line in text.splitlines() if len(line) > 120] == []


# Outcomes of driver, engine, toolkit; what the host came out as, and the code.
WORST = [
    ((told("unchanged"), told("unchanged"), told("unchanged")), "unchanged", None),
    ((told("unchanged"), told("changed"), told("unchanged")), "changed", None),
    ((told("reboot_required", code="DG791"), told("changed"), told("changed")), "reboot_required", "DG791"),
    ((told("changed"), told("failed", code="DG809"), None), "failed", "DG809"),
    ((told("unchanged"), told("blocked", code="DG806"), None), "blocked", "DG806"),
    ((told("unreachable"), None, None), "unreachable", None),
]


@pytest.mark.parametrize("outcomes, result, code", WORST)
def test_the_worst_part_is_what_a_host_came_out_as(outcomes: tuple[Any, ...], result: str, code: str | None) -> None:
    later = {"gpu_toolkit": toolkit(with_engine(bare()))}
    made = record(later if outcomes[2] is None else {}, dict(zip(_provision_text.PARTS, outcomes)))
    assert (made["result"], made["code"], made["ok"]) == (result, code, result in _provision_text.GOOD_RESULTS)
    assert [None if part is None else part["status"] for part in made["parts"].values()] == [
        None if outcome is None else outcome["status"] for outcome in outcomes
    ]


def test_the_table_has_a_column_for_each_part() -> None:
    made = record({}, {"driver": told("unchanged", "580.95.05", "580.95.05"), "engine": told("changed", None, "29.1.0"), "toolkit": None})
    head = _provision_text.render_outcome([made], False, lambda text, _result: text).splitlines()[2:4]
    assert head[0].split() == ["HOST", "DRIVER", "ENGINE", "RESULT", "WHY"]
    assert head[1].startswith("a     580.95.05  none -> 29.1.0  changed")
    assert (made["before"], made["after"]) == ("580.95.05", "580.95.05")


def test_a_host_of_which_nothing_is_known() -> None:
    assert record({})["result"] == "not_run" and record({}, in_play=False)["result"] == "unreachable"
    assert record({"gpu_driver": {"status": "ok"}}, in_play=False)["result"] == "failed"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["status", "blocked", "code", "driver", "pins", "files", "cdi"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(anything, anything, anything, st.booleans(), st.booleans())
def test_nothing_that_a_host_has_breaks_the_report(one: Any, other: Any, outcomes: Any, in_play: bool, check: bool) -> None:
    made = record({"gpu_engine": one, "gpu_toolkit": other, "gpu_driver": one}, outcomes, in_play=in_play, check=check)
    assert made["result"] in _provision_text.RESULTS
    _provision_text.render_plan([made], check)
    _provision_text.render_outcome([made], check, lambda text, _result: text)
