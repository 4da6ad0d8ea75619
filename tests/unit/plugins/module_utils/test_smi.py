# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command, _observer, _smi
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Leftovers, Observation
from hypothesis import given
from hypothesis import strategies as st

RECORDED = json.loads((Path(__file__).parents[2] / "fixtures" / "observe" / "nvidia-smi.json").read_text())["answers"]
WRITTEN = json.loads((Path(__file__).parents[2] / "fixtures" / "observe" / "nvidia-smi-written.json").read_text())["hosts"]
BRANCHES = ["470", "535", "550"]
A10 = "0000:00:05.0"


def recorded(branch, case):
    return next(answer for answer in RECORDED if answer["branch"] == branch and answer["case"] == case)


def result(answer):
    return _command.Result(answer["rc"], answer["stdout"].encode(), answer["stderr"].encode())


class Replay:
    """A guard in whose place recorded answers come: those of a branch to unknown fields, then the one of the case."""

    def __init__(self, branch, case):
        self.branch, self.case, self.asked = branch, case, []

    def run(self, program, *arguments):
        self.asked.append(arguments)
        if arguments[0].startswith("--query-compute-apps="):
            return _command.Result(0, b"", b"")
        if arguments[0] == "--list-gpus":
            return _command.Result(0, b"GPU 0: NVIDIA A10 (UUID: GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002)\n", b"")
        if not arguments[0].startswith("--query-gpu="):
            return result(recorded(self.branch, "version"))
        answer = recorded(self.branch, self.case)
        if not answer["stdout"].startswith("0,"):
            return result(answer)
        # The recording asked for fewer fields, in another order. The binaries of 535 and 550 have the fabric's too.
        values = dict(zip(re.split("[=,]", answer["argv"][0])[1:], answer["stdout"].strip().split(", ")))
        if self.branch != "470":
            values.update({"fabric.state": "[N/A]", "fabric.status": "[N/A]"})
        asked_for = arguments[0].partition("=")[2].split(",")
        unknown = next((field for field in asked_for if field not in values), None)
        if unknown:
            refusal = recorded("470", "invalid_field")
            return _command.Result(refusal["rc"], refusal["stdout"].replace("compute_cap", unknown).encode(), b"")
        return _command.Result(answer["rc"], f"{', '.join(values[field] for field in asked_for)}\n".encode(), b"")


def observe(tmp_path, guard, addresses=(A10,), branch=0):
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    return _smi.observe(guard, addresses, branch, [str(tmp_path)])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_good_gpu(tmp_path, branch, known):
    guard = Replay(branch, "ok")
    observation = observe(tmp_path, guard, branch=int(branch) if known else 0)
    capability = None if branch == "470" else "8.6"
    assert (observation.ok, observation.error, observation.message) == (True, None, None)
    assert observation.driver_version == f"STUB.{branch}"
    assert observation.cuda_version == ("12.2" if branch == "550" else None)
    assert observation.gpus == {
        A10: {
            "index": 0,
            "name": "NVIDIA A10",
            "uuid": "GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002",
            "architecture": capability and "ampere",
            "compute_capability": capability,
            "memory_total_mib": 23028,
            "memory_used_mib": 1000 if branch == "470" else 500,
            "compute_mode": "default",
            "persistence_mode": True,
            "ecc": {"current": True, "pending": False},
            "mig": {"current": True, "pending": False, "devices": []},
            "fabric": None,
            "recovery_action": None,
            "processes": [],
            "health": "ok",
        }
    }
    queries = [arguments[0] for arguments in guard.asked if arguments[0].startswith("--query-gpu")]
    # The fields that this nvidia-smi does not know are found out one by one where nobody knows its branch.
    assert len(queries) == (1 if known else 5 if branch == "470" else 2)
    assert not any("cuda_version" in query for query in queries)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize(
    ("case", "mode"),
    [
        ("exclusive_thread", "exclusive_process"),
        ("exclusive_process", "exclusive_process"),
        ("prohibited", "prohibited"),
    ],
)
def test_compute_modes(tmp_path, branch, case, mode):
    assert observe(tmp_path, Replay(branch, case)).gpus[A10]["compute_mode"] == mode


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("no_driver", "NVML_ERROR_DRIVER_NOT_LOADED"),
        ("no_library", "NVML_ERROR_LIBRARY_NOT_FOUND"),
        ("no_devices", "NVML_ERROR_GPU_NOT_FOUND"),
        ("init_4", "NVML_ERROR_NO_PERMISSION"),
        ("init_9", "NVML_ERROR_DRIVER_NOT_LOADED"),
        ("init_12", "NVML_ERROR_LIBRARY_NOT_FOUND"),
        ("init_17", "NVML_ERROR_OPERATING_SYSTEM"),
        ("init_18", "NVML_ERROR_LIB_RM_VERSION_MISMATCH"),
        ("init_999", "NVML_ERROR_UNKNOWN"),
        ("handle_4", "NVML_ERROR_NO_PERMISSION"),
    ],
)
def test_no_answer(tmp_path, branch, case, name):
    observation = observe(tmp_path, Replay(branch, case))
    assert not observation.ok
    assert observation.error["name"] == name
    assert observation.error["code"] == {name: code for code, name in _observer.ERROR_NAMES.items()}[name.removeprefix("NVML_ERROR_")]
    assert observation.message == observation.error["message"] != ""


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize(
    ("case", "health"),
    [
        ("handle_15", "lost"),
        ("handle_16", "reset_required"),
        ("handle_999", "error"),
        ("value_15", "lost"),
        ("value_16", "reset_required"),
        ("value_999", "error"),
        ("value_4", "ok"),
        ("value_3", "ok"),
    ],
)
def test_an_ill_gpu_whatever_the_exit_status_is(tmp_path, branch, case, health):
    observation = observe(tmp_path, Replay(branch, case))
    assert observation.ok
    assert observation.gpus[A10]["health"] == health
    if case.startswith("value"):
        assert observation.gpus[A10]["memory_total_mib"] is None
        assert observation.gpus[A10]["ecc"] == {"current": None, "pending": None}


def test_a_lost_gpu_is_found_by_its_number_or_address():
    text = (
        "Unable to determine the device handle for GPU1: GPU is lost.  Reboot the system to recover this GPU\n"
        "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error\n"
    )
    assert _smi.parse_refusals(text) == [("1", 15), ("0000:3B:00.0", 999)]


@pytest.mark.parametrize(("words", "health"), [("GPU is lost", "lost"), ("GPU requires reset", "reset_required")])
def test_a_gpu_too_ill_to_tell_its_address(tmp_path, words, health):
    class Ill:
        def run(self, program, query, *form):
            fields = query.partition("=")[2].split(",")
            values = {"index": "1", "driver_version": "470.256.02"}
            good = {"index": "0", "driver_version": "470.256.02", "pci.bus_id": f"0000{A10}"}
            lines = [", ".join(row.get(field, stand_in) for field in fields) for row, stand_in in ((good, "[N/A]"), (values, f"[{words}]"))]
            return _command.Result(0, "\n".join(lines).encode(), b"")

    gpus = observe(tmp_path, Ill(), [A10, "0000:00:06.0"]).gpus
    assert [gpu["health"] for gpu in gpus.values()] == ["ok", health]
    assert list(gpus) == [A10, "0000:00:06.0"]


def test_a_gpu_that_is_not_listed_is_ill(tmp_path):
    gpus = observe(tmp_path, Replay("535", "ok"), [A10, "0000:00:06.0"]).gpus
    assert gpus["0000:00:06.0"] == {"health": "error"}


def test_the_successor_of_a_field_is_asked_for_in_its_place():
    assert _smi.without(["index", "driver_version", "name"], "driver_version") == ["index", "kmd_version", "name"]
    assert _smi.without(["index", "kmd_version", "name"], "kmd_version") == ["index", "name"]
    assert _smi.without(["index", "name"], "other") == ["index", "name"]


def test_a_driver_that_refuses_every_field_ends_the_talk(tmp_path):
    class Refusing:
        def run(self, program, query, form):
            field = query.partition("=")[2].split(",")[0]
            return _command.Result(2, f'Field "{field}" is not a valid field to query.\n'.encode(), b"")

    observation = observe(tmp_path, Refusing())
    assert not observation.ok
    assert "none of the fields" in observation.message


def test_the_version_from_xml_where_there_is_no_version_option(tmp_path):
    class Old(Replay):
        def run(self, program, *arguments):
            if arguments == ("-q", "-x"):
                return _command.Result(0, b"<log>\n\t<driver_version>470.256.02</driver_version>\n\t<cuda_version>11.4</cuda_version>", b"")
            return super().run(program, *arguments)

    assert observe(tmp_path, Old("470", "ok")).cuda_version == "11.4"


def test_no_device_is_no_error_where_the_driver_has_none(tmp_path):
    for branch in BRANCHES:
        observation = observe(tmp_path, Replay(branch, "no_devices"), addresses=())
        assert (observation.ok, observation.error, observation.gpus) == (True, None, {})
        assert observation.cuda_version == ("12.2" if branch == "550" else None)
    assert not observe(tmp_path, Replay("550", "no_driver"), addresses=()).ok


@pytest.mark.parametrize("answer", [_command.Result(255, b"", b"Unknown Error"), Observation("nvidia-smi", ok=False, hung=True)])
def test_a_list_of_mig_devices_that_cannot_be_read(tmp_path, answer):
    class Refusing(Written):
        def run(self, program, *arguments):
            return answer if arguments[0] == "--list-gpus" else super().run(program, *arguments)

    host = written("a100-mig-535")
    observation = observe(tmp_path, Refusing(host), list(host["expected"]), branch=535)
    assert observation.ok
    assert observation.gpus["0000:3b:00.0"]["mig"] == {"current": True, "pending": True, "devices": None}


def test_a_gpu_in_mig_mode_that_is_listed_without_parts_has_none(tmp_path):
    host = written("a100-mig-535")
    assert observe(tmp_path, Written(host), list(host["expected"]), branch=535).gpus["0000:4b:00.0"]["mig"]["devices"] == []


def test_memory_of_mig_devices():
    part = (
        "<mig_device><index>{}</index><gpu_instance_id>1</gpu_instance_id><fb_memory_usage><total>{}</total></fb_memory_usage></mig_device>"
    )
    first = '<gpu id="00000000:3B:00.0"><mig_devices>' + part.format(0, "20096 MiB") + part.format(1, "N/A") + "</mig_devices>"
    nothing = "<mig_device><index>2</index></mig_device>"
    second = (
        f'<fb_memory_usage><total>40960 MiB</total></fb_memory_usage></gpu><gpu id="00000000:4B:00.0">{nothing}{part.format(5, "9984 MiB")}'
    )
    assert _smi.parse_mig_memory(first + second) == {("0000:3b:00.0", 0): 20096, ("0000:4b:00.0", 5): 9984}


def test_no_program(tmp_path):
    observation = _smi.observe(Replay("535", "ok"), [], 0, [str(tmp_path)])
    assert (observation.ok, observation.error) == (False, None)
    assert "not on this host" in observation.message


def test_a_program_that_hangs_and_ignores_signals(tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 1; done\n")
    program.chmod(0o755)
    begin = time.monotonic()
    guard = _observer.Guard("nvidia-smi", Leftovers(str(tmp_path)), 0.5)
    observation = _smi.observe(guard, [], 0, [str(tmp_path)])
    assert time.monotonic() - begin < 15
    assert observation.hung
    assert observation.error["name"] == "TIMEOUT"


values = st.text(st.characters(blacklist_characters='",\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029', blacklist_categories=["Cs", "Cc"])).map(
    lambda text: text.strip().lstrip("[")
)


@given(name=values.filter(bool), index=st.integers(0, 15), total=st.integers(0, 10**6), driver=values.filter(bool))
def test_a_row_comes_back_as_it_was_written(name, index, total, driver):
    row = {"pci.bus_id": "00000000:3B:00.0", "index": index, "name": name, "memory.total": total, "driver_version": driver}
    gpus, version = _smi.parse_rows(", ".join(map(str, row.values())), list(row))
    gpu = gpus["0000:3b:00.0"]
    assert (gpu["index"], gpu["memory_total_mib"]) == (index, total)
    assert gpu["name"] == (None if name == "N/A" else name)
    assert version == (None if driver == "N/A" else driver)


@given(st.text(), st.lists(st.sampled_from(_smi.FIELDS), unique=True))
def test_no_text_breaks_the_parsers(text, fields):
    _smi.parse_rows(text, fields)
    _smi.parse_refusals(text)
    _smi.parse_mig_memory(text)
    _smi.parse_mig_memory(f'<gpu id="{text}"><mig_device><index>1</index>{text}<fb_memory_usage><total>1 MiB')
    assert _smi.parse_failure(_command.Result(0, text.encode("utf-8", "replace"), b""))["code"] in _observer.ERROR_NAMES


@given(st.lists(st.sampled_from(["[N/A]", "[GPU is lost]", "x,", '"', "0", "00000000:3B:00.0", ", ", "\n"])).map("".join))
def test_no_mixture_breaks_the_parsers(text):
    for gpu in _smi.parse_rows(text, _smi.FIELDS)[0].values():
        assert gpu["health"] in ("ok", "lost", "reset_required", "error")


def written(case):
    return next(answer for answer in WRITTEN if answer["case"] == case)


class Written:
    """A guard in whose place the written answers of one host come."""

    def __init__(self, host):
        self.host, self.asked = host, []

    def run(self, program, *arguments):
        self.asked.append(arguments)
        if not arguments[0].startswith("--query-gpu="):
            key = {"--query-compute-apps": "processes", "--list-gpus": "list", "--version": "version", "-q": "xml"}[
                arguments[0].partition("=")[0]
            ]
            answer = self.host[key]
            return _command.Result(answer["rc"], answer["stdout"].encode(), b"")
        fields = arguments[0].partition("=")[2].split(",")
        rows = [", ".join(gpu[field] for field in fields) for gpu in self.host["gpus"]]
        return _command.Result(0, "".join(f"{row}\n" for row in rows).encode(), b"")


@pytest.mark.parametrize("case", [host["case"] for host in WRITTEN])
def test_every_generation_and_family(tmp_path, case):
    host = written(case)
    guard = Written(host)
    addresses = [_observer.pci_address(gpu["pci.bus_id"]) for gpu in host["gpus"]]
    observation = observe(tmp_path, guard, addresses, branch=int(host["branch"]))
    assert (observation.ok, observation.driver_version, observation.cuda_version) == (True, host["driver"], host["cuda"])
    assert len([arguments for arguments in guard.asked if arguments[0].startswith("--query-gpu=")]) == 1
    assert sorted(observation.gpus) == sorted(addresses)
    for address, expected in host["expected"].items():
        assert {key: observation.gpus[address][key] for key in expected} == expected
    assert {gpu["health"] for gpu in observation.gpus.values()} == {"ok"}


def test_a_process_list_that_is_refused_is_not_known(tmp_path):
    class Refusing(Replay):
        def run(self, program, *arguments):
            if arguments[0].startswith("--query-compute-apps="):
                return _command.Result(2, b"Invalid combination of input arguments.\n", b"")
            return super().run(program, *arguments)

    assert observe(tmp_path, Refusing("535", "ok")).gpus[A10]["processes"] is None


@pytest.mark.parametrize(
    ("text", "action"), [("None", "none"), ("Reset", "gpu_reset"), ("Reboot", "node_reboot"), ("Drain P2P", "drain_p2p"), ("[N/A]", None)]
)
def test_recovery_actions_have_the_names_of_nvml(text, action):
    gpus, _version = _smi.parse_rows(f"00000000:00:05.0, {text}", ["pci.bus_id", "gpu_recovery_action"])
    assert gpus[A10]["recovery_action"] == action


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**6), st.sampled_from("ab"))))
def test_processes_come_back_as_they_were_written(rows):
    found = _smi.parse_processes("".join(f"GPU-{uuid}, {pid}, {memory}\n" for pid, memory, uuid in rows))
    assert sum(map(len, found.values())) == len(rows)
    for pid, memory, uuid in rows:
        assert {"pid": pid, "type": "compute", "memory_mib": memory} in found[f"GPU-{uuid}"]


@given(st.text())
def test_no_text_breaks_the_lists(text):
    for parse in (_smi.parse_processes, _smi.parse_mig_devices):
        for entries in (parse(text), parse(f"GPU 0: x (UUID: GPU-1)\n  MIG {text}"), parse(f"GPU-1, {text}, [N/A]")):
            assert all(isinstance(entry, dict) for listed in entries.values() for entry in listed)


def test_recordings_are_of_three_branches():
    assert {answer["branch"] for answer in RECORDED} == set(BRANCHES)
    assert os.path.basename(recorded("470", "ok")["argv"][0]).startswith("--query-gpu=")
