# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is reported of a host, and how it reads."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _report, _report_text
from hypothesis import given
from hypothesis import strategies as st

NOW = "2026-11-22T11:27:00+00:00"
LINKS = ("pci", "bound", "driver", "nvml", "toolkit", "engine", "device", "cuda", "torch", "kernel", "speed")
REMEDY = "deploy a variant up to CUDA 11.8, the highest that driver 470.256.02 serves, or upgrade the driver"


def nvidia(name: str = "NVIDIA A10", count: int = 1, driver: str = "535.247.01", cuda: str = "12.2") -> dict[str, Any]:
    return {
        "gpus": [{"name": name, "device_id": "0x2236"}] * count,
        "driver": {"loaded": {"version": driver}, "cuda_version": cuda},
    }


def plan(status: str = "change", **changes: Any) -> dict[str, Any]:
    parts = {name: {"action": "none", "from": None, "to": None, "reason": ""} for name in ("driver", "engine", "toolkit")}
    parts["image"] = {"action": "build", "from": None, "to": "difyops/dify-gpu:web-server-cuda12.6-v0.1.0", "reason": "not on this host"}
    parts["dify"] = {"action": "update", "from": "cuda11.8", "to": "cuda12.6", "reason": "another image"}
    return {
        "schema": 1,
        "host": "x",
        "status": status,
        "mode": "gpu",
        "blocked": [],
        "parts": parts,
        "image": {
            "variant": "cuda12.6",
            "reference": "difyops/dify-gpu:web-server-cuda12.6-v0.1.0",
            "reason": "CUDA 12.6 on driver 535.247.01: minor-version compatibility (driver >= 525.60.13)",
            "expected": False,
        },
        "rejected": [{"variant": "cuda13.0", "code": "DG703", "reason": "CUDA 13.0 needs driver >= 580.65.06"}],
        "render": {"files": {"/opt/dify-gpu/compose.yaml": {"content": "services: {}\n", "sha256": "b" * 64, "mode": "0644"}}},
        "reboot": {"required": False, "reasons": []},
        "warnings": [{"code": "DG750", "message": "Driver branch 535 is past its end of life."}],
        **changes,
    }


def verdict(overall: str = "proven", code: str | None = None, failed: str | None = None) -> dict[str, Any]:
    links = []
    for name in LINKS:
        status = "skipped" if failed and LINKS.index(name) > LINKS.index(failed) else "ok"
        links.append({"link": name, "status": status, "expected": "", "seen": "", "code": None, "remedy": None})
        if name == failed:
            links[-1].update(status="failed" if overall == "failed" else "skipped", code=code, remedy=REMEDY)
    return {
        "schema": 1,
        "overall": overall,
        "summary": f"the summary of {overall}",
        "code": code,
        "remedy": REMEDY if code else None,
        "expected": {"variant": "cuda12.6"},
        "container": {"image": "difyops/dify-gpu:web-server-cuda12.6-v0.1.0"},
        "links": links,
        "duration_ms": 5,
    }


def facts(**documents: Any) -> dict[str, Any]:
    return {"nvidia": nvidia(), "gpu_plan": plan("ok"), **documents}


def record(
    host: str = "a10-535", check: bool = False, in_play: bool = True, outcome: Any = None, **documents: Any
) -> dict[str, Any]:
    return _report.build_record(host, facts(**documents), outcome, in_play, check, NOW)


def unreachable(host: str = "gone-1") -> dict[str, Any]:
    return _report.build_record(host, {}, None, False, False, NOW)


# -- records -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overall", ["proven", "cpu", "degraded", "unproven", "failed"])
def test_a_verdict_is_the_result(overall: str) -> None:
    made = record(gpu_verdict=verdict(overall))
    assert (made["result"], made["ok"]) == (overall, overall in ("proven", "cpu", "degraded"))


@pytest.mark.parametrize(
    ("documents", "outcome", "in_play", "check", "result"),
    [
        ({}, None, True, True, "checked"),
        ({}, None, True, False, "not_run"),
        ({"gpu_plan": plan("blocked")}, None, True, False, "blocked"),
        ({"gpu_plan": plan("blocked")}, None, True, True, "blocked"),
        ({"gpu_verdict": verdict()}, None, False, False, "failed"),
        ({"gpu_verdict": verdict()}, {"status": "failed", "message": "x"}, True, False, "failed"),
        ({"gpu_verdict": verdict("failed", "DG404", "torch")}, {"status": "restored"}, True, False, "failed"),
        ({"gpu_verdict": verdict()}, {"status": "unreachable"}, True, False, "unreachable"),
        ({"gpu_verdict": verdict()}, {"status": "stopped"}, True, False, "failed"),
        ({"gpu_verdict": verdict()}, {"status": "restore_failed"}, True, False, "failed"),
        ({"gpu_verdict": verdict()}, {"status": "restore_failed"}, False, False, "failed"),
        ({"gpu_plan": None}, None, False, False, "failed"),
        ({"gpu_verdict": verdict("nonsense")}, None, True, False, "unproven"),
    ],
)
def test_results(documents: Any, outcome: Any, in_play: bool, check: bool, result: str) -> None:
    made = record(outcome=outcome, in_play=in_play, check=check, **documents)
    assert made["result"] == result
    assert made["message"]


def test_a_host_without_any_record_is_unreachable() -> None:
    made = unreachable()
    assert (made["result"], made["ok"], made["message"]) == (
        "unreachable",
        False,
        "the host did not answer in this run",
    )
    assert made["gpus"] == [] and made["verdict"] is None and made["plan"] is None


def test_a_verdict_of_an_earlier_run_is_not_shown_for_a_host_that_is_gone() -> None:
    made = record(gpu_verdict=verdict(), outcome={"status": "unreachable", "message": "no route to host"})
    assert made["verdict"] is None
    assert made["message"] == "no route to host"


def test_a_record_has_every_key_always_and_no_file_contents() -> None:
    full = record(gpu_plan=plan(), gpu_verdict=verdict())
    assert set(full) == set(unreachable())
    assert "render" not in full["plan"]
    assert full["verdict"] == verdict()
    assert full["gpus"] == [{"name": "NVIDIA A10", "count": 1}]
    assert (full["driver"], full["cuda"], full["variant"]) == ("535.247.01", "12.2", "cuda12.6")


def test_a_failed_proof_explains_itself_better_than_the_task_that_failed() -> None:
    made = record(
        gpu_verdict=verdict("failed", "DG404", "torch"), outcome={"status": "restored", "message": "the task failed"}
    )
    assert (made["code"], made["message"], made["remedy"]) == ("DG404", "the summary of failed", REMEDY)


def test_a_failure_after_a_good_proof_is_told_in_its_own_words() -> None:
    made = record(gpu_verdict=verdict(), outcome={"status": "failed", "message": "No space left on /opt."})
    assert (made["code"], made["message"]) == (None, "No space left on /opt.")


def restore_failed(message: str = "Port 8200 is taken.") -> dict[str, str]:
    return {"status": "restore_failed", "message": message}


def test_a_failed_restore_is_told_beside_what_failed_before() -> None:
    made = record("a", gpu_verdict=verdict("failed", "DG404", "torch"), outcome=restore_failed())
    assert (made["result"], made["code"], made["remedy"]) == ("failed", "DG404", REMEDY)
    assert made["message"] == "the summary of failed. Going back failed: Port 8200 is taken."
    assert made["outcome"] == restore_failed()
    text = _report_text.render_verdict([made], check=False)
    assert f"""\
a: FAILED DG404: the summary of failed
    -> {REMEDY}
    -> going back failed: Port 8200 is taken.""" in text
    assert text.lower().count("going back failed") == 1


@pytest.mark.parametrize("documents", [{}, {"gpu_verdict": verdict()}], ids=["no verdict", "a good one"])
def test_a_failed_restore_without_a_failed_proof(documents: Any) -> None:
    made = record("a", outcome=restore_failed(), **documents)
    assert made["code"] is None
    assert made["message"] == "the error is in the output above. Going back failed: Port 8200 is taken."
    text = _report_text.render_verdict([made], check=False)
    assert "a: FAILED: the error is in the output above\n    -> going back failed: Port 8200 is taken." in text


def test_a_failed_restore_without_a_reason() -> None:
    made = record("a", gpu_verdict=verdict("failed", "DG404", "torch"), outcome={"status": "restore_failed"})
    assert made["message"] == "the summary of failed. Going back failed: the error is in the output above"


def test_the_outcome_holds_status_and_message_and_nothing_else() -> None:
    made = record(outcome={"status": "restored", "message": "x", "restored": True, "more": 1})
    assert made["outcome"] == {"status": "restored", "message": "x"}


def test_a_host_that_left_the_run_without_a_word_may_have_lost_its_connection() -> None:
    made = record(in_play=False)
    assert made["result"] == "failed"
    assert made["message"] == "left the run before it was proven (connection lost or a task failed); the output above says why"


def test_a_blocked_plan_explains_itself() -> None:
    made = record(gpu_plan=plan("blocked", blocked=[{"code": "DG702", "message": "does not fit", "remedy": "leave it out"}]))
    assert (made["code"], made["message"], made["remedy"]) == ("DG702", "does not fit", "leave it out")


def test_counts_and_the_hosts_to_look_after() -> None:
    records = [record("a", gpu_verdict=verdict()), record("b"), unreachable("c")]
    assert _report.summarize(records) == {
        "hosts": 3,
        **dict.fromkeys(_report.RESULTS, 0),
        "proven": 1,
        "not_run": 1,
        "unreachable": 1,
    }
    assert _report.failed_hosts(records) == ["b", "c"]


# A short alphabet: what splits lines, what JSON is made of, and letters; all of Unicode takes seconds to set up.
TEXT = "ab0 @{}[]\":,\\\n\r\x0b\x1c\x85\u2028é"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(TEXT, max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXT, max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(("nvidia", "gpu_plan", "gpu_verdict")), JSON),
    st.none() | st.dictionaries(st.sampled_from(("status", "message")), JSON | st.sampled_from(("failed", "restore_failed"))),
    st.booleans(),
)
def test_facts_of_any_form_make_a_record_that_is_not_good(documents: Any, outcome: Any, in_play: bool) -> None:
    made = _report.build_record("h", documents, outcome, in_play, False, NOW)
    assert made["ok"] is False
    assert json.loads(_report.json_lines([made])) == made
    assert "h" in _report_text.render_verdict([made], check=False)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_is_replaced_as_a_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.jsonl"
    path.write_text("old\n")
    records = [record(gpu_verdict=verdict()), unreachable()]
    _report.write_file(str(path), _report.json_lines(records))
    assert [json.loads(line) for line in path.read_text().splitlines()] == records
    assert os.listdir(tmp_path) == ["report.jsonl"]
    assert path.stat().st_mode & 0o077 == 0o044 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.jsonl"
    path.write_text("old\n")
    with pytest.raises(UnicodeEncodeError):
        _report.write_file(str(path), "\ud800")
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["report.jsonl"]


def test_a_directory_that_is_not_there_is_an_os_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        _report.write_file(str(tmp_path / "no" / "report.jsonl"), "x")


# -- names of hosts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ([], ""),
        (["a10-535", "a10-536"], "a10-535, a10-536"),
        (["gpu-01", "gpu-02", "gpu-03"], "gpu-[01:03]"),
        (["gpu-9", "gpu-10", "gpu-11", "web"], "gpu-[9:11], web"),
        (["gpu-098", "gpu-099", "gpu-100"], "gpu-[098:100]"),
        (["gpu-1", "gpu-3", "gpu-5"], "gpu-1, gpu-3, gpu-5"),
        (["a1", "b2", "c3"], "a1, b2, c3"),
        (["1", "2", "3"], "[1:3]"),
    ],
)
def test_rows_of_hosts_become_ranges(hosts: list[str], text: str) -> None:
    assert _report_text.host_list(hosts) == text


NAMES = st.tuples(st.sampled_from(("", "a", "gpu-", "a1-")), st.sampled_from(("{}", "{:02}", "{:03}", "x{}y")), st.integers(0, 12))


@given(st.lists(NAMES.map(lambda name: name[0] + name[1].format(name[2])), unique=True, max_size=12))
def test_no_host_is_lost_in_a_range(hosts: list[str]) -> None:
    expanded: list[str] = []
    for part in filter(None, _report_text.host_list(hosts).split(", ")):
        stem, bracket, numbers = part.partition("[")
        if not bracket:
            expanded.append(part)
            continue
        first, _colon, last = numbers.rstrip("]").partition(":")
        expanded += [f"{stem}{str(number).zfill(len(first))}" for number in range(int(first), int(last) + 1)]
    assert expanded == hosts


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_the_plan_reads_like_this() -> None:
    blocked = plan(
        "blocked",
        blocked=[{"code": "DG702", "message": "cuda12.6 does not fit this host", "remedy": "leave dify_image_variant out"}],
        parts={},
        image=None,
        warnings=[],
        rejected=[],
    )
    plans = [("a10-535", plan()), ("t4-470", blocked), ("a10-536", plan(host="y")), ("gone-1", None)]
    assert _report_text.render_plan(plans, check=True) == """\
PLAN for 4 hosts: 2 to change, 1 BLOCKED, 1 without a plan (checked, not applied)

a10-535, a10-536: change
  image     build difyops/dify-gpu:web-server-cuda12.6-v0.1.0 (not on this host)
  dify      update cuda11.8 -> cuda12.6 (another image)
  variant   cuda12.6: CUDA 12.6 on driver 535.247.01: minor-version compatibility (driver >= 525.60.13)
  rejected  cuda13.0: DG703 CUDA 13.0 needs driver >= 580.65.06
  warning   DG750 Driver branch 535 is past its end of life.

t4-470: BLOCKED, nothing is touched
  blocked   DG702 cuda12.6 does not fit this host
            -> leave dify_image_variant out

gone-1: no plan, the result below says why"""


def test_a_plan_for_the_cpu_says_so() -> None:
    text = _report_text.render_plan([("a", plan("ok", mode="cpu")), ("b", plan("ok", mode="degraded"))], check=False)
    assert "a: nothing to change, serves on the CPU" in text
    assert "b: nothing to change, DEGRADED to the CPU by consent" in text
    assert "not applied" not in text


def test_variants_rejected_for_the_same_reason_share_a_line() -> None:
    rejected = [{"variant": name, "code": "DG709", "reason": "no GPU"} for name in ("cuda11.8", "cuda12.6")]
    rejected.insert(1, {"variant": "cuda12.1", "code": "DG703", "reason": "too new"})
    text = _report_text.render_plan([("a", plan(rejected=rejected))], check=False)
    assert "  rejected  cuda11.8, cuda12.6: DG709 no GPU\n  rejected  cuda12.1: DG703 too new\n" in text


def test_nothing_is_rejected_at_length_where_nothing_is_decided() -> None:
    assert "rejected" not in _report_text.render_plan([("a", plan("ok"))], check=False)


def test_a_reboot_and_an_image_for_a_driver_to_come_are_said() -> None:
    change = plan(reboot={"required": True, "reasons": ["new driver", "new kernel"]})
    change["image"]["expected"] = True
    text = _report_text.render_plan([("a", change)], check=False)
    assert "reboot    new driver; new kernel" in text
    assert "cuda12.6, expected once the planned driver is loaded" in text


def test_the_table_reads_like_this() -> None:
    records = [
        record("a10-535", nvidia=nvidia(count=2), gpu_verdict=verdict()),
        record("cpu-1", nvidia={"gpus": [], "driver": {"loaded": None, "cuda_version": None}}, gpu_verdict=verdict("cpu")),
        record(
            "t4-470",
            nvidia=nvidia("Tesla T4", driver="470.256.02", cuda="11.4"),
            gpu_verdict=verdict("failed", "DG404", "torch"),
            outcome={"status": "restored", "message": "the proof failed"},
        ),
        unreachable("gone-1"),
    ]
    assert _report_text.render_verdict(records, check=False) == f"""\
RESULT for 4 hosts: 1 proven, 1 cpu, 1 FAILED, 1 unreachable

HOST     GPU       DRIVER      CUDA  IMAGE     pci bnd drv nvm tkt eng dev cud tor  krn spd  VERDICT
a10-535  2 x A10   535.247.01  12.2  cuda12.6  ok  ok  ok  ok  ok  ok  ok  ok  ok   ok  ok   proven
cpu-1    -         -           -     cuda12.6  ok  ok  ok  ok  ok  ok  ok  ok  ok   ok  ok   cpu
t4-470   Tesla T4  470.256.02  11.4  cuda12.6  ok  ok  ok  ok  ok  ok  ok  ok  FAIL -   -    FAILED
gone-1   -         -           -     -         -   -   -   -   -   -   -   -   -    -   -    unreachable

bnd=bound drv=driver nvm=nvml tkt=toolkit eng=engine dev=device cud=cuda tor=torch krn=kernel spd=speed
ok: good  FAIL: broken  ?: could not be tested  -: not needed, or not reached

cpu-1: cpu: serves without a GPU, as planned

t4-470: FAILED DG404: the summary of failed
    -> {REMEDY}
    -> the service that ran before is back

gone-1: unreachable: the host did not answer in this run"""


def test_a_service_that_was_stopped_is_said() -> None:
    outcome = {"status": "stopped", "message": "the proof failed"}
    text = _report_text.render_verdict([record("a", gpu_verdict=verdict("failed", "DG404", "torch"), outcome=outcome)], check=False)
    assert "FAILED DG404" in text
    assert "    -> the service was stopped, since nothing proven was there to go back to" in text


def test_a_table_of_ordinary_names_fits_120_columns() -> None:
    records = [
        record(
            "gpu-node-01.example",
            nvidia=nvidia("NVIDIA H100 80GB HBM3", count=8, driver="535.247.01"),
            gpu_verdict=verdict("failed", "DG404", "torch"),
        ),
        record("gpu-node-02.example", gpu_verdict=verdict()),
        unreachable("gone-1"),
    ]
    text = _report_text.render_verdict(records, check=False)
    assert max(map(len, text.splitlines())) <= 120
    assert "535.247.01" in text and "cuda12.6" in text
    assert "gpu-node-01.example" in text.split("bnd=", maxsplit=1)[0], "GPU names are cut before host names"


def test_two_hundred_hosts_with_the_same_trouble_share_its_explanation() -> None:
    records = [record(f"gpu-{n:03}", gpu_verdict=verdict("failed", "DG404", "torch")) for n in range(200)]
    text = _report_text.render_verdict(records, check=False)
    assert text.count("the summary of failed") == 1
    assert "gpu-[000:199]: FAILED DG404" in text
    assert sum("535.247.01" in line for line in text.splitlines()) == 200


def test_two_hundred_identical_plans_share_one_block() -> None:
    text = _report_text.render_plan([(f"gpu-{n:03}", plan(host=f"gpu-{n:03}")) for n in range(200)], check=False)
    assert text.count("cuda12.6: CUDA 12.6") == 1
    assert "gpu-[000:199]: change" in text


def test_check_mode_is_said() -> None:
    text = _report_text.render_verdict([record(check=True)], check=True)
    assert text.splitlines()[0] == "RESULT for 1 host: 1 checked (checked, not applied)"
    assert "a10-535: checked, not applied" in text


def test_degraded_and_unproven_stand_out() -> None:
    unproven = verdict("unproven", "DG503", "kernel")
    text = _report_text.render_verdict([record("a", gpu_verdict=verdict("degraded")), record("b", gpu_verdict=unproven)], check=False)
    assert "a: DEGRADED: the summary of degraded" in text
    assert "b: UNPROVEN DG503: the summary of unproven" in text
    assert " ?   -" in text


def test_a_slow_gpu_is_mentioned_though_it_is_proven() -> None:
    slow = verdict()
    slow["links"][-1].update(status="failed", code="DG601", seen="40 ms against 20 ms", remedy="check clocks")
    text = _report_text.render_verdict([record(gpu_verdict=slow)], check=False)
    assert "a10-535: proven, but DG601: 40 ms against 20 ms\n    -> check clocks" in text


def test_colours_do_not_move_the_columns() -> None:
    records = [record("a", gpu_verdict=verdict()), unreachable("b")]
    painted = _report_text.render_verdict(records, False, lambda text, result: f"<{result}>{text}<>")
    bare = painted.replace("<proven>", "").replace("<unreachable>", "").replace("<>", "")
    assert bare == _report_text.render_verdict(records, False)
    assert "<proven>proven<>" in painted


def test_no_hosts_at_all() -> None:
    assert "0 hosts: none" in _report_text.render_verdict([], check=False)
    assert _report_text.render_plan([], check=False).startswith("PLAN for 0 hosts")
