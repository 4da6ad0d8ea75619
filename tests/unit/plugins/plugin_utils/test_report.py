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
from ansible_collections.difyops.gpu.plugins.plugin_utils import _plan_text, _report, _report_text, _text
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
    parts["service"] = {"action": "update", "from": "cuda11.8", "to": "cuda12.6", "reason": "another image"}
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
    assert _text.summarize(records, _report.RESULTS) == {
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


def test_warnings_of_a_verdict_are_told_and_hosts_share_them() -> None:
    warned = {**verdict(), "warnings": [{"code": "DG213", "message": "The toolkit 1.17.4 is unsafe."}]}
    records = [record("a", gpu_verdict=warned), record("b", gpu_verdict=warned), record("c", gpu_verdict=verdict())]
    text = _report_text.render_verdict(records, check=False)
    assert text.endswith("\n\na, b: warning DG213: The toolkit 1.17.4 is unsafe.")


def test_a_slow_gpu_is_told_once() -> None:
    slow = {**verdict(), "warnings": [{"code": "DG601", "message": "The GPU is slower than the CPU: 40 ms."}]}
    slow["links"][-1].update(status="failed", code="DG601", seen="40 ms", remedy="look at the clocks")
    text = _report_text.render_verdict([record("a", gpu_verdict=slow)], check=False)
    assert text.count("DG601") == 1
    assert "a: proven, but DG601: 40 ms\n    -> look at the clocks" in text


# -- the audit ---------------------------------------------------------------------------------------------------------


def audited(
    host: str = "a10-535", others: Any = (), in_play: bool = True, outcome: Any = None, **documents: Any
) -> dict[str, Any]:
    return _report.build_record(host, facts(**documents), outcome, in_play, False, NOW, list(others))


def other(overall: str = "proven", code: str | None = None, name: str = "model-server") -> dict[str, Any]:
    return {**verdict(overall, code, "torch" if code else None), "container": {"name": name}}


@pytest.mark.parametrize(
    ("documents", "others", "result"),
    [
        ({"gpu_verdict": verdict()}, [], "proven"),
        ({"gpu_verdict": verdict("cpu")}, [], "cpu"),
        ({"gpu_verdict": verdict()}, [other("failed", "DG404")], "failed"),
        ({"gpu_verdict": verdict("unproven", "DG503", "kernel")}, [other()], "unproven"),
        ({"gpu_verdict": verdict("degraded")}, [other()], "degraded"),
        ({"gpu_verdict": {}}, [other()], "proven"),
        ({"gpu_verdict": verdict("nonsense")}, [], "unproven"),
        ({"gpu_verdict": {}}, [], "observed"),
        ({"gpu_verdict": {}, "gpu_plan": plan()}, [], "observed"),
        ({"gpu_verdict": {}, "gpu_plan": plan("blocked")}, [], "blocked"),
        ({"gpu_verdict": verdict(), "gpu_plan": plan("blocked")}, [], "proven"),
        ({"nvidia": None, "gpu_plan": None}, [], "unreachable"),
    ],
)
def test_an_audited_host_comes_out_as_the_worst_of_its_verdicts(documents: Any, others: Any, result: str) -> None:
    made = audited(others=others, **documents)
    assert (made["result"], made["ok"]) == (result, result in ("proven", "cpu", "degraded", "observed"))
    assert made["message"]
    assert set(made) == set(unreachable())


@pytest.mark.parametrize(
    ("in_play", "outcome", "result"),
    [
        (False, None, "failed"),
        (True, {"status": "unreachable", "message": "no route"}, "unreachable"),
        (True, {"status": "failed", "message": "the key is bad"}, "failed"),
    ],
)
def test_an_audited_host_that_could_not_be_seen_is_no_good_one(in_play: bool, outcome: Any, result: str) -> None:
    made = audited(in_play=in_play, outcome=outcome, others=[other()], gpu_verdict=verdict())
    assert (made["result"], made["ok"]) == (result, False)
    if result == "unreachable":
        assert (made["verdict"], made["containers"], made["warnings"]) == (None, [], [])


def test_warnings_of_all_documents_are_in_the_record_once() -> None:
    same = {"code": "DG214", "message": "out of date"}
    made = audited(
        nvidia={**nvidia(), "warnings": [same, {"code": "DG119", "message": "a reboot"}]},
        gpu_verdict={**verdict(), "warnings": [same]},
        others=[{**other(), "warnings": [same]}],
    )
    assert made["warnings"] == [
        {"code": "DG119", "message": "a reboot"},
        same,
        {"code": "DG750", "message": "Driver branch 535 is past its end of life."},
    ]


@pytest.mark.parametrize(
    ("code", "message", "twin", "said"),
    [
        ("DG104", "The GPU at 0000:65:00.0 is handed to vfio-pci.", "DG753", "NVIDIA A10 at 0000:65:00.0 is bound to vfio-pci"),
        ("DG115", "The packages of the container toolkit are of different versions: a 1.19.1-1, b 1.17.8-1.", "DG752", "different"),
        ("DG117", "This host has NVSwitches, and their fabric manager does not run.", "DG767", "its fabric manager does not run"),
        ("DG118", "Kernel 6.12.12-amd64 boots next, and no NVIDIA module is there for it.", "DG757", "kernel 6.12.12-amd64 has none"),
        ("DG119", "A reboot is pending: Driver 580.95.05 is installed.", "DG758", "580.95.05 is installed; reboot"),
        ("DG119", "A reboot is pending: Kernel 6.12.12-amd64 boots next.", "DG769", "pending (Kernel 6.12.12-amd64 boots next.)"),
        ("DG119", "A reboot is pending: Kernel 6.12.12-amd64 boots next.", "DG757", "kernel 6.12.12-amd64 has no NVIDIA module"),
        ("DG121", "MIG mode of the GPU at 0000:65:00.0 will be on.", "DG768", "MIG mode of NVIDIA A100 at 0000:65:00.0 is off"),
        ("DG122", "Driver 580.95.05 is installed, 550.54.15 is loaded.", "DG758", "driver 550.54.15 is loaded"),
        ("DG213", "The container toolkit 1.17.4 has a known container escape.", "DG751", "1.17.4 is unsafe; upgrade"),
        ("DG214", "/etc/cdi/nvidia.yaml is out of date: x.", "DG759", "/etc/cdi/nvidia.yaml is out of date (x); run"),
    ],
)
def test_what_the_plan_says_with_its_remedy_is_not_said_twice(code: str, message: str, twin: str, said: str) -> None:
    first, second = {"code": code, "message": message}, {"code": twin, "message": said}
    seen, proven = {**nvidia(), "warnings": [first]}, {**verdict(), "warnings": [first]}
    assert audited(nvidia=seen, gpu_plan=plan(warnings=[second]), gpu_verdict=proven)["warnings"] == [second]
    alone = audited(nvidia=seen, gpu_plan=plan(warnings=[]), gpu_verdict=verdict())
    assert alone["warnings"] == [first]


@pytest.mark.parametrize(
    ("code", "message", "twin", "said"),
    [
        ("DG104", "The GPU at 0000:66:00.0 is handed to vfio-pci.", "DG753", "NVIDIA A10 at 0000:65:00.0 is bound to vfio-pci"),
        ("DG119", "A reboot is pending: Kernel 6.12.12-amd64 boots next.", "DG758", "driver 580.95.05 is installed"),
        ("DG214", "/etc/cdi/old.yaml is out of date: x.", "DG759", "/etc/cdi/nvidia.yaml is out of date (x); run"),
    ],
)
def test_what_the_plan_says_of_another_is_no_reason_to_be_silent(code: str, message: str, twin: str, said: str) -> None:
    first, second = {"code": code, "message": message}, {"code": twin, "message": said}
    made = audited(nvidia={**nvidia(), "warnings": [first]}, gpu_plan=plan(warnings=[second]), gpu_verdict=verdict())
    assert made["warnings"] == [first, second]


FLEET = {
    "schema": 1,
    "status": "ok",
    "variant": "cuda11.8",
    "blocked": [],
    "hosts": 4,
    "missing": ["gone-1"],
    "gpu_hosts": ["a10-535", "t4-470"],
    "held_back_by": [{"hosts": ["t4-470"], "variant": "cuda12.6", "reason": "CUDA 12.x needs driver >= 525.60.13; loaded is 470.256.02"}],
    "candidates": [{"variant": "cuda11.8", "hosts": 2, "refused_by": 0}],
    "drift": [{"what": "driver", "values": {"535.247.01": ["a10-535"], "470.256.02": ["t4-470"]}}],
}


def test_the_audit_reads_like_this() -> None:
    seen = {**nvidia(), "toolkit": {"version": "1.17.4"}, "engine": {"name": "docker", "version": "26.1.5"}}
    old = {**nvidia("Tesla T4", driver="470.256.02", cuda="11.4"), "engine": {"name": "docker", "version": "26.1.5"}}
    warned = {**verdict(), "warnings": [{"code": "DG213", "message": "The container toolkit 1.17.4 has a known container escape."}]}
    quiet = plan("ok", warnings=[], parts={})
    blocked = [{"code": "DG724", "message": "The engine does not use CDI.", "remedy": "switch CDI on"}]
    records = [
        audited("a10-535", nvidia=seen, gpu_plan=quiet, gpu_verdict=warned),
        audited("a10-536", nvidia=seen, gpu_plan=plan(warnings=[], reboot={"required": True, "reasons": []}), gpu_verdict={}),
        audited("t4-470", nvidia=old, gpu_plan=quiet, gpu_verdict=verdict(), others=[other("failed", "DG404")]),
        audited("t4-471", nvidia=old, gpu_plan=plan("blocked", blocked=blocked, warnings=[], parts={}), gpu_verdict=verdict()),
        unreachable(),
    ]
    assert _report_text.render_audit(records, None) == """\
AUDIT of 5 hosts: 2 proven, 1 observed, 1 FAILED, 1 unreachable (nothing was changed)

HOST     GPU       DRIVER      CUDA  TOOLKIT  ENGINE         IMAGE     PLAN        RESULT
a10-535  A10       535.247.01  12.2  1.17.4   docker 26.1.5  cuda12.6  as planned  proven
a10-536  A10       535.247.01  12.2  1.17.4   docker 26.1.5  cuda12.6  differs     observed
t4-470   Tesla T4  470.256.02  11.4  -        docker 26.1.5  cuda12.6  as planned  FAILED
t4-471   Tesla T4  470.256.02  11.4  -        docker 26.1.5  cuda12.6  BLOCKED     proven
gone-1   -         -           -     -        -              -         -           unreachable

t4-470: container model-server: FAILED DG404: the summary of failed
    -> deploy a variant up to CUDA 11.8, the highest that driver 470.256.02 serves, or upgrade the driver

t4-471: the plan is BLOCKED, DG724: The engine does not use CDI.
    -> switch CDI on

gone-1: unreachable: the host did not answer in this run

a10-536: would change: image: build (not on this host); service: update cuda11.8 -> cuda12.6 (another image); reboot

a10-535: warning DG213: The container toolkit 1.17.4 has a known container escape."""
    assert _report_text.render_audit(records, FLEET) == f"{_report_text.render_audit(records, None)}\n\n{_plan_text.render_fleet(FLEET)}"
    # One host is no fleet.
    assert _report_text.render_audit(records[:1], FLEET) == _report_text.render_audit(records[:1], None)


def test_no_line_of_an_audit_is_wider_than_a_terminal() -> None:
    long = {**plan(), "warnings": [{"code": "DG750", "message": "word " * 60}]}
    records = [audited(f"a-host-with-a-rather-long-name-{number}", gpu_plan=long, gpu_verdict=verdict()) for number in (1, 5, 9)]
    assert all(len(line) <= _text.WIDTH for line in _report_text.render_audit(records, FLEET).splitlines())


@given(
    st.dictionaries(st.sampled_from(("nvidia", "gpu_plan", "gpu_verdict")), JSON),
    st.lists(JSON | st.dictionaries(st.sampled_from(("overall", "container", "warnings", "code", "links")), JSON), max_size=3),
    st.none() | st.dictionaries(st.sampled_from(("held_back_by", "drift", "variant")), JSON),
    st.booleans(),
)
def test_an_audit_of_anything_is_no_traceback(documents: Any, others: Any, fleet: Any, in_play: bool) -> None:
    made = _report.build_record("h", documents, None, in_play, False, NOW, others)
    assert made["ok"] is False or made["result"] == "observed"
    assert json.loads(_report.json_lines([made])) == made
    assert "h" in _report_text.render_audit([made], fleet)
