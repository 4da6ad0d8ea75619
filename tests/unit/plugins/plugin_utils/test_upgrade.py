# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is upgraded when and who is left alone, on SIMULATED fleets; and what an operator reads of it."""

from __future__ import annotations

import json
import time

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.difyops.gpu.plugins.action import gpu_plan
from ansible_collections.difyops.gpu.plugins.plugin_utils import _findings, _upgrade, _upgrade_text, _upgrade_waves
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.driver_scenarios import facts, plan, settings, with_driver
from hypothesis import given
from hypothesis import strategies as st

T4, A100, V100, B200 = "0x1eb8", "0x20b0", "0x1db4", "0x2901"
SAVED = {"complete": True, "packages": [{"name": "a", "version": "1", "how": "download"}], "msg": ""}
UNSAVED = {"complete": False, "packages": [], "msg": "libcuda1: neither a cache nor a package source has the installed version."}


def known(document, wanted, saving=None, served=True, variant="cuda12.6", image=None, outcome=None):
    driver = plan(document, wanted) if document else {}
    found = {"nvidia": document, "gpu_driver": driver}
    if image:
        found["gpu_plan"] = image
    if outcome is None and driver.get("status") == "blocked":
        outcome = {"status": "blocked", "code": driver["blocked"][0]["code"], "message": driver["blocked"][0]["message"]}
    return _upgrade.Known(found, outcome or {}, SAVED if saving is None else saving, served, variant)


def policy(canary=1, serial="25%", most="50%", without=False):
    return _upgrade.Policy(_upgrade_waves.wishes(canary, serial, most), 10, True, without)


def host(system="ubuntu", version="24.04", device=None, driver="535.288.01", **changed):
    document = facts(system, version, **({"device": device} if device else {}))
    names = {"ubuntu": ["nvidia-driver-535-server"], "debian": ["nvidia-driver"], "rocky": ["nvidia-driver-cuda"]}[system]
    return with_driver(document, driver, names, flavour="proprietary", **changed) if driver else document


def image(variant, **changed):
    return {"status": "change", "image": {"variant": variant, "expected": True}, "blocked": [], **changed}


def made(fleet, labels=None, **wanted):
    return _upgrade.make(fleet, labels or {}, policy(**wanted))


def _plain(text, _result):
    return text


def read(document, ended=False, outcomes=None, in_play=lambda host: True):
    outcomes = {name: (outcomes or {}).get(name, {}) for name in document["hosts"]}
    records = _upgrade_text.build_records(document, outcomes, in_play, ended, False, "2026-11-23T10:00:00+00:00", "7")
    text = _upgrade_text.render_outcome(records, _plain) if ended else _upgrade_text.render_plan(document, records, False)
    return {record["host"]: record for record in records}, text


# -- waves -----------------------------------------------------------------------------------------------------------

HOSTS = st.lists(st.sampled_from([f"gpu-{number:02d}" for number in range(40)]), unique=True, max_size=30)
SIZE = st.one_of(st.integers(1, 12), st.integers(1, 100).map(lambda share: f"{share}%"))


@given(HOSTS, st.data(), SIZE, st.lists(SIZE, min_size=1, max_size=4), st.integers(1, 10))
def test_every_host_is_in_one_wave_and_no_wave_is_too_large(hosts, data, canary, serial, room):
    labels = {name: data.draw(st.sampled_from(["a", "b", None])) for name in hosts}
    resumed = data.draw(st.lists(st.sampled_from(hosts), unique=True)) if hosts else []
    waves = _upgrade_waves.make(hosts, resumed, labels, _upgrade_waves.wishes(canary, serial, "50%"), room)
    assert sorted(name for wave in waves for name in wave.hosts) == sorted(hosts)
    assert all(0 < len(wave.hosts) <= room for wave in waves)
    assert len({wave.name for wave in waves}) == len(waves)
    for wave in waves:
        assert wave.name.startswith(("resume", "canary")) or {labels[name] for name in wave.hosts} == {wave.label}
    order = [wave.name.partition("-")[0] for wave in waves]
    assert order == sorted(order, key=lambda name: {"resume": 0, "canary": 1}.get(name, 2))
    assert {name for wave in waves for name in wave.hosts if wave.name.startswith("resume")} == set(resumed)


def shown(hosts, labels=None, canary=1, serial="25%", room=99, resumed=()):
    waves = _upgrade_waves.make(hosts, resumed, labels or {}, _upgrade_waves.wishes(canary, serial, "100%"), room)
    return [(wave.name, "".join(wave.hosts)) for wave in waves]


def test_sizes_are_those_of_serial():
    assert shown("abcdefgh", canary=0, serial=3) == [("1", "abc"), ("2", "def"), ("3", "gh")]
    assert shown("abcdefghi", serial=[1, "50%"]) == [("canary", "a"), ("1", "b"), ("2", "cdef"), ("3", "ghi")]
    assert shown("abcdef", canary=["e", "b", "z"], serial="100%") == [("canary", "be"), ("1", "acdf")]
    assert shown("abcdef", canary="50%", serial=9, room=2) == [("canary", "ab"), ("canary-2", "c"), ("1", "de"), ("2", "f")]
    assert shown("abcd", labels={"a": "x", "c": "x", "b": "y", "d": "y"}, canary=0, serial=2) == [("1", "ac"), ("2", "bd")]
    labels = {"a": "x", "b": "x", "c": "y", "d": "y"}
    assert shown("abcd", labels=labels, canary=0, serial={"x": 1, "default": 2}) == [("1", "a"), ("2", "b"), ("3", "cd")]
    assert shown("abc", canary=1, serial=1, resumed="c") == [("resume", "c"), ("canary", "a"), ("1", "b")]


@pytest.mark.parametrize("canary", [-1, "x", "0%", "101%", True, 1.5, None])
def test_a_canary_that_is_none_is_refused(canary):
    with pytest.raises(_findings.WishError, match="upgrade_canary has to be a number"):
        _upgrade_waves.wishes(canary, 1, 1)


@pytest.mark.parametrize(
    ("serial", "words"), [(0, "found 0"), ([], "is empty"), ({"a": 1}, "needs a size for default"), ([1, "y"], "found y")]
)
def test_a_batch_that_is_none_is_refused(serial, words):
    with pytest.raises(_findings.WishError, match=words):
        _upgrade_waves.wishes(1, serial, 1)


# -- what becomes of each host ---------------------------------------------------------------------------------------


def test_a_mixed_fleet_is_read_in_one():
    wanted = settings(branch="580", source="nvidia")
    fleet = {
        "ubuntu-t4": known(host("ubuntu", device=T4), wanted, image=image("cuda13.0")),
        "debian-a100": known(host("debian", "13", A100), wanted, image=image("cuda13.0")),
        "el-b200": known(host("rocky", "9.5", B200, driver="570.86.15"), wanted, served=False),
        "el-v100": known(host("rocky", "9.5", V100), wanted, image=image("cuda12.6")),
        "there-already": known(host("ubuntu", driver="580.95.05"), settings()),
        "gone": _upgrade.Known({}, {"status": "unreachable", "message": "Connection timed out"}, {}, False, None),
    }
    document = made(fleet, most="100%")
    records, text = read(document)
    assert [records[name]["result"] for name in fleet] == ["planned"] * 4 + ["unchanged", "unreachable"], text
    assert document["hosts"]["el-v100"]["image"] == {"from": "cuda12.6", "to": "cuda12.6", "expected": True}
    for words in (
        *("535.288.01 -> 580", "(reboot)", "image cuda12.6 -> cuda13.0", "image cuda12.6, stays", "way back: 1 package to download"),
        *("IN THE WAY", "LEFT ALONE", "Connection timed out", "WAVES: ", "about ", "(an estimate"),
    ):
        assert words in text, text
    assert all(len(line) <= 130 for line in text.splitlines())


def test_a_driver_that_drops_the_gpu_is_blocked_and_in_no_wave():
    document = made({"v100": known(host(device=V100), settings(branch="595")), "a10": known(host(), settings(branch="580"))}, most="100%")
    entry = document["hosts"]["v100"]
    assert entry["action"] == "blocked" and entry["code"].startswith("DG7") and entry["wave"] is None and entry["remedy"], entry
    assert document["order"] == ["a10"]


def test_without_a_way_back_consent_is_needed():
    wanted = settings(branch="580")
    document = made({"h": known(host(), wanted, saving=UNSAVED)})
    assert document["hosts"]["h"]["code"] == "DG850" and document["waves"] == [] and document["status"] == "ok"
    assert "libcuda1" in document["hosts"]["h"]["reason"]
    consented = made({"h": known(host(), wanted, saving=UNSAVED)}, without=True)
    assert consented["order"] == ["h"] and "NO WAY BACK" in read(consented)[1]


def test_a_host_without_a_driver_needs_no_way_back():
    document = made({"h": known(host(driver=None), settings(branch="580"), saving={"skipped": True}, served=False)})
    assert document["hosts"]["h"]["action"] == "install" and document["hosts"]["h"]["rollback"]["possible"]


def test_an_older_driver_is_called_a_downgrade():
    document = made({"h": known(host(driver="580.95.05"), settings(version="535.288.01"))})
    assert document["hosts"]["h"]["action"] == "downgrade"


def test_a_service_that_would_not_come_back_blocks_its_host():
    block = {"code": "DG722", "message": "there is no compose plugin", "remedy": "install it"}
    wanted = settings(branch="580")
    broken = image(None, status="blocked", blocked=[block])
    document = made({"served": known(host(), wanted, image=broken), "bare": known(host(), wanted, image=broken, served=False)}, most="100%")
    assert document["hosts"]["served"]["code"] == "DG857" and "DG722" in document["hosts"]["served"]["reason"]
    assert document["order"] == ["bare"]


def test_what_an_interrupted_run_left_comes_first_whatever_is_in_the_way():
    left = host()
    left["driver"]["upgrade"] = {"journal": {"schema": 1, "phase": "driver", "saved": True}, "failed": None}
    wanted = settings(branch="580")
    entry = known(left, wanted, saving={}, outcome={"status": "blocked", "code": "DG776", "message": "the GPU is in use"})
    document = made({"a": known(host(), wanted), "b": entry}, most="100%")
    assert [wave["name"] for wave in document["waves"]] == ["resume", "canary"] and document["order"] == ["b", "a"]
    assert document["hosts"]["b"]["action"] == "resume" and "phase driver" in document["hosts"]["b"]["reason"]


def test_an_upgrade_that_failed_before_is_told():
    failed = host()
    told = {"at": "2026-11-23T10:20:00Z", "to": "580.95.05", "phase": "serve", "code": "DG404", "message": "no kernels"}
    failed["driver"]["upgrade"] = {"journal": None, "failed": told}
    document = made({"h": known(failed, settings(branch="580"))})
    assert "DG855" in [note["code"] for note in document["hosts"]["h"]["warnings"]]
    assert "DG404: no kernels" in " ".join(read(document)[1].split())


def test_no_more_than_allowed_are_out_of_service():
    gone = _upgrade.Known({}, {"status": "unreachable", "message": "no route"}, {}, False, None)
    wanted = settings(branch="580")
    fleet = {"a": known(host(), wanted), "b": gone, "c": known(host(), wanted), "d": known(host(), wanted)}
    document = made(fleet, most=2, serial="100%")
    assert document["limit"] == 2 and document["sizes"] == [1, 1, 1]
    blocked = made(fleet, most=1)
    assert blocked["status"] == "blocked" and blocked["blocked"][0]["code"] == "DG851" and blocked["waves"] == []
    assert "DG851" in read(blocked)[1]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
PARTS = st.sampled_from(["status", "driver", "action", "from", "to", "image", "blocked", "guard"])
KEYS = st.sampled_from(["nvidia", "gpu_driver", "gpu_plan"])


@given(st.dictionaries(KEYS, st.dictionaries(PARTS, ODD)), ODD, ODD)
def test_odd_facts_never_raise(odd, outcome, saving):
    entry = _upgrade.Known(odd, outcome if isinstance(outcome, dict) else {}, saving if isinstance(saving, dict) else {}, True, "x")
    document = made({"h": entry})
    json.dumps(document)
    for ended in (False, True):
        read(document, ended, {"h": entry.outcome})


# -- what became of it -----------------------------------------------------------------------------------------------


def outcome(status, **changed):
    times = {"look": [100.0, 101.0], "driver": [101.0, 131.5], "serve": ["131.5", "140.0"]}
    told = {"status": status, "phase": "serve", "code": None, "message": "m", "from": "535.288.01", "to": "580.95.05"}
    images = {"image_from": "cuda12.6", "image_to": "cuda13.0"}
    return {**told, **images, "in_service": True, "wave": "canary", "started_at": "x", "times": times, **changed}


def test_a_stopped_run_says_who_why_and_how_to_go_on():
    wanted = settings(branch="580")
    document = made({name: known(host(), wanted) for name in ("a", "b", "c")}, most="100%", serial=1)
    told = {"a": outcome("rolled_back", code="DG404", message="no kernels for this GPU")}
    records, text = read(document, True, told)
    assert records["a"]["phase"] == "serve" and records["a"]["seconds"] == 40.0 and records["a"]["phases"]["driver"] == 30.5
    assert [records[name]["code"] for name in "bc"] == ["DG856", "DG856"] and records["b"]["result"] == "not_run"
    rolled_back = "ROLLED BACK DG404 in phase serve: no kernels for this GPU. It is in service."
    for words in (rolled_back, "not begun", "run the same command again", "add --limit a,b,c."):
        assert words in " ".join(text.split()), text


@pytest.mark.parametrize(("code", "status"), [("DG852", "lost"), ("DG853", "failed"), ("DG854", "failed")])
def test_what_keeps_a_host_out_has_its_remedy(code, status):
    document = made({"a": known(host(), settings(branch="580"))})
    records, text = read(document, True, {"a": outcome(status, code=code, in_service=False)})
    assert records["a"]["code"] == code and records["a"]["remedy"] and not records["a"]["ok"]
    assert "OUT OF SERVICE" in text


def test_records_of_two_slices_are_joined_by_cat():
    document = made({"a": known(host(), settings(branch="580"))})
    records, text = read(document, True, {"a": outcome("upgraded")})
    assert json.loads(json.dumps(records["a"]))["run"] == "7" and records["a"]["ok"]
    assert "535.288.01 -> 580.95.05" in text and "cuda12.6 -> cuda13.0" in text and "0:40" in text


def test_a_host_that_left_the_play_is_unreachable():
    document = made({"a": known(host(), settings(branch="580"))})
    assert read(document, True, in_play=lambda _host: False)[0]["a"]["result"] == "unreachable"


# -- the action ------------------------------------------------------------------------------------------------------


def decide(hosts, **upgrade):
    options = gpu_plan.validated({"scope": "upgrade", "hosts": list(hosts), "upgrade": upgrade})
    return gpu_plan.decide_upgrade(options, {"hostvars": hosts})


def test_it_reads_what_was_found_for_each_host():
    document = host()
    decided = {"nvidia": document, "gpu_driver": plan(document, settings(branch="580"))}
    variables = {"ansible_facts": decided, "upgrade_saving": SAVED, "upgrade_served": False}
    assert decide({"h": variables}, canary=1)["order"] == ["h"]
    assert decide({"h": {"upgrade_saving": {"skipped": True}}})["hosts"]["h"]["action"] == "unreachable"


@pytest.mark.parametrize(
    ("upgrade", "words"),
    [
        ({"canary": ["x"]}, "upgrade_canary names x"),
        ({"batch": 1}, "upgrade has batch"),
        ({"host_minutes": "soon"}, "upgrade_host_minutes"),
    ],
)
def test_one_sentence_for_each_mistake(upgrade, words):
    with pytest.raises(AnsibleActionFail, match=words):
        decide({"h": {}}, **upgrade)


def test_a_thousand_hosts_take_seconds():
    document = host()
    decided = {"nvidia": document, "gpu_driver": plan(document, settings(branch="580"))}
    variables = {"ansible_facts": decided, "upgrade_saving": SAVED, "upgrade_served": True}
    started = time.process_time()
    made_of_many = decide({f"gpu-{number:04d}": variables for number in range(1000)}, serial="10%", max_unavailable="10%")
    _records, text = read(made_of_many)
    assert time.process_time() - started < 5 and len(made_of_many["order"]) == 1000
    assert "gpu-[0000:0999]" in text and len(text.splitlines()) < 60, text
