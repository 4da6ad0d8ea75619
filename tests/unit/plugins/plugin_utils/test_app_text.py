# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is reported of the upstream release, and what is refused as its certificate."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_text, _app_tls, _text
from hypothesis import given
from hypothesis import strategies as st

NOW = "2026-11-23T01:02:03+00:00"
PLAN: dict[str, Any] = {
    "schema": 1,
    "status": "change",
    "action": "upgrade",
    "from": "1.16.1",
    "to": "1.17.1",
    "reason": "Release 1.16.1 runs, and 1.17.1 is wanted.",
    "blocked": [],
    "warnings": [{"code": "DG917", "message": "nginx:latest may be another image tomorrow"}],
    "images": [
        {"reference": "langgenius/dify-api:1.17.1", "present": False, "services": ["api"]},
        {"reference": "postgres:15-alpine", "present": True, "services": ["db_postgres"]},
    ],
    "files": {"/opt/dify/x.yaml": {"content": "a long text", "sha256": "0" * 64, "mode": "0644"}},
    "env": {"settings": {"LOG_LEVEL": "INFO"}},
    "containers": {
        "create": [],
        "recreate": [{"service": "api", "reason": "runs the image langgenius/dify-api:1.16.1"}],
        "remove": ["dify-old-1"],
    },
    "databases": [{"name": "dify", "service": "db_postgres", "user": "postgres"}],
    "backup": {"paths": ["volumes/app/storage"], "volumes": ["dify_home"], "keep": 3},
    "model_server": {"endpoint_url": "http://dify-gpu:8000/v1", "embedding_model": "m", "rerank_model": None, "register": True},
    "downtime": True,
}


def record(plan: Any = None, outcome: Any = None, verdict: Any = None, *, in_play: bool = True, check: bool = False) -> dict[str, Any]:
    """Return the record of one host."""
    facts = {"dify_plan": PLAN if plan is None else plan, "dify_verdict": verdict or {}}
    return _app_text.build_record("dify-1", facts, outcome, in_play, check, NOW)


def test_the_plan_says_what_is_pulled_made_anew_and_backed_up() -> None:
    text = _app_text.render_plan([record()], check=False)
    assert "upgrade 1.16.1 -> 1.17.1" in text
    assert "pull 1: langgenius/dify-api:1.17.1" in text and "postgres:15-alpine" not in text
    assert "api: runs the image langgenius/dify-api:1.16.1" in text
    assert "dify-old-1" in text and "volumes/app/storage, dify_home; 3 are kept" in text
    assert "Dify does not answer for a time" in text and "DG917" in text
    assert all(len(line) <= _text.WIDTH for line in text.splitlines())


def test_a_blocked_plan_names_every_reason_with_its_remedy() -> None:
    blocks = [
        {"code": "DG905", "message": "Port 80 is held.", "remedy": "Stop it."},
        {"code": "DG906", "message": "No room.", "remedy": "Make room."},
    ]
    blocked = record({**PLAN, "status": "blocked", "blocked": blocks})
    text = _app_text.render_plan([blocked], check=False)
    assert all(word in text for word in ("DG905 Port 80 is held.", "-> Stop it.", "DG906 No room.", "-> Make room."))
    assert "pull" not in text
    assert (blocked["result"], blocked["code"], blocked["remedy"], blocked["ok"]) == ("blocked", "DG905", "Stop it.", False)


def test_an_upgrade_that_was_rolled_back_is_red_and_says_why_and_how_long() -> None:
    outcome = {
        "status": "rolled_back", "before": "1.16.1", "after": "1.16.1", "message": "the migration ended with 1. Release 1.16.1 runs again",
        "code": "DG915", "backup": "/var/backups/dify/20261123T010203Z-1.16.1", "downtime_s": 75,
    }
    found = record(outcome=outcome)
    assert found["result"] == "rolled_back" and not found["ok"]
    text = _app_text.render_outcome([found], False, lambda word, _result: word)
    assert "ROLLED BACK" in text and "1 min 15 s" in text and "DG915" in text and outcome["backup"] in text


@pytest.mark.parametrize(
    ("outcome", "overall", "in_play", "check", "result"),
    [
        ({"status": "changed"}, "proven", True, False, "proven"),
        ({"status": "unchanged"}, "failed", True, False, "failed"),
        ({"status": "unchanged"}, "unproven", True, False, "unproven"),
        ({"status": "changed"}, None, True, False, "changed"),
        ({"status": "unchanged"}, None, True, True, "checked"),
        ({"status": "restore_failed"}, "proven", True, False, "failed"),
        ({"status": "unreachable"}, "proven", True, False, "unreachable"),
        (None, None, False, False, "failed"),
    ],
)
def test_what_a_host_comes_out_as(outcome: Any, overall: Any, in_play: bool, check: bool, result: str) -> None:
    found = record(outcome=outcome, verdict={"overall": overall, "summary": "told"} if overall else {}, in_play=in_play, check=check)
    assert found["result"] == result
    assert found["ok"] is (result in ("proven", "changed", "unchanged", "checked", "planned"))


def test_a_record_has_no_content_of_files_and_no_variables() -> None:
    assert "a long text" not in str(record()) and "LOG_LEVEL" not in str(record())


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_JSON = st.recursive(_LEAVES, lambda more: st.lists(more) | st.dictionaries(st.text(max_size=8), more))
_PLANS = st.dictionaries(st.sampled_from([*PLAN]), _JSON)


@given(plan=_PLANS, outcome=_JSON, verdict=_JSON)
def test_nothing_that_a_fact_can_be_raises(plan: Any, outcome: Any, verdict: Any) -> None:
    found = _app_text.build_record("h", {"dify_plan": plan, "dify_verdict": verdict}, outcome, True, False, NOW)
    assert found["result"] in _app_text.RESULTS
    assert _app_text.render_plan([found], False) and _app_text.render_outcome([found], False, lambda word, _result: word)


def _pair(folder: Path, name: str, *more: str) -> tuple[str, str]:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", f"/CN={name}", "-days", "2"]
    argv += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*argv, *(more or ("-nodes",))], check=True, capture_output=True)
    return str(certificate), str(key)


def test_certificate_and_key_have_to_belong_together(tmp_path: Path) -> None:
    assert shutil.which("openssl"), "openssl is needed to make certificates"
    (one, one_key), (_two, two_key) = _pair(tmp_path, "one"), _pair(tmp_path, "two")
    assert _app_tls.trouble(one, one_key) is None
    assert "does not belong" in str(_app_tls.trouble(one, two_key))
    assert "cannot be read as PEM" in str(_app_tls.trouble(__file__, one_key))
    assert "No such file" in str(_app_tls.trouble(one, str(tmp_path / "missing")))
    three, three_key = _pair(tmp_path, "three", "-passout", "pass:four-letters")
    assert "passphrase" in str(_app_tls.trouble(three, three_key))
