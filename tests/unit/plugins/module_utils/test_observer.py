# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command, _observer
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Guard, Leftovers, Observation
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def leftovers(tmp_path):
    (tmp_path / "run" / "user" / str(os.geteuid())).mkdir(parents=True)
    return Leftovers(str(tmp_path))


def test_guard_hands_through_answers(leftovers):
    guard = Guard("nvml", leftovers, 5)
    assert guard.call(lambda: {"a": 1}) == {"a": 1}
    assert guard.run("echo", "hello").out == "hello\n"


def test_guard_reports_a_crash(leftovers):
    observation = Guard("nvml", leftovers, 5).call(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    assert not observation.ok
    assert not observation.hung
    assert observation.error["name"] == "CRASHED"
    assert "signal 11" in observation.message


def test_guard_reports_what_cannot_be_started(leftovers):
    observation = Guard("nvidia-smi", leftovers, 5).run("/nonexistent")
    assert (observation.ok, observation.hung, observation.error) == (False, False, None)
    assert "/nonexistent cannot be started" in observation.message


def test_guard_reports_a_hang(leftovers):
    observation = Guard("nvml", leftovers, 0.2).call(lambda: time.sleep(60))
    assert observation.hung
    assert observation.error == {"code": None, "name": "TIMEOUT", "message": observation.message}
    assert leftovers.living("nvml") is None  # it could be killed, so it may be tried again


def test_a_query_that_stays_behind_is_not_started_again(leftovers, monkeypatch, tmp_path):
    monkeypatch.setattr(_command, "KILL_GRACE_S", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda pid, number: None)
        patch.setattr(os, "kill", lambda pid, number: None)
        first = Guard("nvml", leftovers, 0.2).call(lambda: time.sleep(60))
    assert "cannot be killed and was left behind" in first.message
    process = leftovers.living("nvml")
    started = tmp_path / "started"

    second = Guard("nvml", leftovers, 5).call(lambda: {"x": started.write_text("")})
    assert second.hung
    assert second.error["name"] == "TIMEOUT"
    assert str(process.pid) in second.message
    assert not started.exists()

    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    assert Guard("nvml", leftovers, 5).call(lambda: {"back": True}) == {"back": True}


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_note_that_cannot_be_kept_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(_command, "KILL_GRACE_S", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda pid, number: None)
        patch.setattr(os, "kill", lambda pid, number: None)
        observation = Guard("nvml", Leftovers(str(tmp_path / "absent")), 0.2).run(
            sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        )
    assert "no note of it could be kept" in observation.message
    pid = int(observation.message.partition("(process ")[2].partition(")")[0])
    subprocess.run(["kill", "-9", str(pid)], check=True)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:3b:00.0", "0000:3b:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("3b:00.0", "0000:3b:00.0"),
        ("0", None),
        ("", None),
        ("[N/A]", None),
        ("0000:3b:00.8", None),
    ],
)
def test_pci_addresses(text, address):
    assert _observer.pci_address(text) == address


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7))
def test_addresses_of_nvml_become_those_of_sysfs(domain, bus, device, function):
    assert _observer.pci_address(f"{domain:08X}:{bus:02X}:{device:02X}.{function}") == f"{domain:04x}:{bus:02x}:{device:02x}.{function}"


@given(st.text())
def test_no_text_breaks_the_small_parsers(text):
    assert _observer.pci_address(text) is None or ":" in text
    _observer.architecture_of(text)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("2.1", None),
        ("3.5", "kepler"),
        ("5.2", "maxwell"),
        ("6.1", "pascal"),
        ("7.0", "volta"),
        ("7.5", "turing"),
        ("8.0", "ampere"),
        ("8.6", "ampere"),
        ("8.9", "ada"),
        ("9.0", "hopper"),
        ("10.0", "blackwell"),
        ("10.3", "blackwell"),
        ("10.7", "rubin"),
        ("12.0", "blackwell"),
        ("12.1", "blackwell"),
        (None, None),
        ("8", None),
    ],
)
def test_architecture_by_compute_capability(capability, name):
    assert _observer.architecture_of(capability) == name


def test_errors_have_the_names_of_nvml():
    assert _observer.error(18, "x") == {"code": 18, "name": "NVML_ERROR_LIB_RM_VERSION_MISMATCH", "message": "x"}
    assert _observer.error(77, "x")["name"] == "NVML_ERROR_77"


def test_health_by_error():
    assert [_observer.health_of(code) for code in (None, 15, 16, 999)] == ["ok", "lost", "reset_required", "error"]


def test_an_observation_starts_empty():
    assert Observation("nvml", ok=True).gpus == {}
