# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command

# Seconds that no step of these tests takes on a busy machine, and far less than what must not be waited for.
LONG = 20


def python(text, timeout_s=10.0, **more):
    return _command.run([sys.executable, "-c", text], timeout_s, **more)


def fast_kill(monkeypatch):
    monkeypatch.setattr(_command, "KILL_GRACE_S", 0.2)


def unkillable(monkeypatch):
    """Stand for a process in uninterruptible sleep, which a signal does not end."""
    fast_kill(monkeypatch)
    monkeypatch.setattr(os, "killpg", lambda pid, number: None)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)


def end(process):
    """End a child that a test has left behind; subprocess.run is not affected by what a test has replaced."""
    subprocess.run(["kill", "-9", str(process.pid)], check=True)
    os.waitpid(process.pid, 0)


def test_output_and_exit_status():
    result = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.rc, result.out, result.err) == (3, "out\n", "err\n")
    assert not result.timed_out


def test_input_and_output_larger_than_a_pipe():
    data = b"x" * 1_000_000
    assert python("import sys; sys.stdout.write(sys.stdin.read())", stdin=data).stdout == data


def test_child_that_does_not_read_its_input():
    assert python("print(1)", stdin=b"x" * 1_000_000).out == "1\n"


def test_environment_is_the_c_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert python("import os; print(os.environ['LC_ALL'], os.environ['EXTRA'])", env={"EXTRA": "1"}).out == "C 1\n"


def test_a_program_that_never_stops_talking_is_ended(monkeypatch):
    monkeypatch.setattr(_command, "OUTPUT_LIMIT", 1000)
    begin = time.monotonic()
    result = python("while True: print('x' * 1000)")
    assert time.monotonic() - begin < LONG
    assert (result.rc, len(result.stdout), result.timed_out) == (-signal.SIGKILL, 1000, False)


def test_programs_run_side_by_side_and_are_read_later():
    begin = time.monotonic()
    running = [_command.start(["sleep", "2"], LONG) for _number in range(3)]
    assert [one.result().rc for one in running] == [0, 0, 0]
    assert time.monotonic() - begin < 3 * 2


def test_the_time_of_a_program_counts_from_its_start():
    running = _command.start(["sleep", "60"], 2)
    time.sleep(2)
    begin = time.monotonic()
    assert running.result().timed_out
    assert time.monotonic() - begin < 2


def test_bytes_that_are_no_text():
    assert python(r"import sys; sys.stdout.buffer.write(b'\xff')").out == "\ufffd"


def test_end_by_signal():
    assert python("import os; os.kill(os.getpid(), 9)").rc == -signal.SIGKILL


@pytest.mark.parametrize("argv", [["/nonexistent/program"], [""], ["/etc/passwd"], ["a\0b"]])
def test_what_cannot_be_started(argv):
    with pytest.raises(_command.CannotStart, match="cannot be started"):
        _command.run(argv, 1)


def test_child_that_ignores_polite_signals_is_killed_in_time():
    begin = time.monotonic()
    result = python(
        "import signal, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        "print('up', flush=True); time.sleep(60)",
        timeout_s=3,
    )
    assert time.monotonic() - begin < LONG
    assert (result.rc, result.timed_out, result.survivor) == (None, True, None)
    assert result.out == "up\n"


def test_what_the_child_has_started_is_killed_too():
    result = python(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); child.wait()",
        timeout_s=3,
    )
    deadline = time.monotonic() + LONG
    while _command.start_time(int(result.out)) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _command.start_time(int(result.out)) is None


def test_grandchild_that_keeps_the_output_open_does_not_delay_the_answer():
    begin = time.monotonic()
    result = python(
        "import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)",
        timeout_s=20,
    )
    os.kill(int(result.out), signal.SIGKILL)
    assert result.rc == 0
    assert time.monotonic() - begin < LONG


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_child_that_cannot_be_killed_is_abandoned(monkeypatch):
    unkillable(monkeypatch)
    before = set(os.listdir("/proc/self/fd"))
    begin = time.monotonic()
    result = python("import time; time.sleep(60)", timeout_s=0.3)
    assert time.monotonic() - begin < LONG
    assert result.timed_out
    assert result.survivor is not None
    try:
        assert _command.start_time(result.survivor.pid) == result.survivor.start_time
        assert set(os.listdir("/proc/self/fd")) == before
    finally:
        end(result.survivor)


def test_function_in_a_child():
    result = _command.call(lambda: {"answer": [1, None, "ü"]}, 5)
    assert result.rc == 0
    assert result.out == '{"answer": [1, null, "\\u00fc"]}'


def test_function_with_a_large_answer():
    assert len(_command.call(lambda: "x" * 1_000_000, 5).stdout) == 1_000_002


def test_function_that_raises_or_crashes():
    def fail():
        raise RuntimeError("no")

    assert _command.call(fail, 5) == _command.Result(1, b"", b"")
    assert _command.call(lambda: os.kill(os.getpid(), signal.SIGSEGV), 5).rc == -signal.SIGSEGV


def open_files():
    links = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listing itself had open
            links[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return links


def test_function_child_holds_no_file_of_ours():
    with open("/etc/passwd"):
        links = json.loads(_command.call(open_files, 5).stdout)
    assert {links.pop(number) for number in "012"} == {"/dev/null"}
    assert [os.path.dirname(link) for link in links.values()] == [tempfile.gettempdir()]


def test_function_that_hangs_is_killed():
    begin = time.monotonic()
    result = _command.call(lambda: time.sleep(60), 0.3)
    assert (result.timed_out, result.survivor) == (True, None)
    assert time.monotonic() - begin < LONG


def test_function_that_cannot_be_killed_is_abandoned(monkeypatch):
    unkillable(monkeypatch)
    result = _command.call(lambda: time.sleep(60), 0.3)
    assert result.survivor is not None
    end(result.survivor)


def test_no_room_for_another_process(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(_command.CannotStart, match="Resource temporarily unavailable"):
        _command.call(dict, 5)
    assert set(os.listdir("/proc/self/fd")) == before


def test_start_time_of_the_living_and_the_dead():
    assert _command.start_time(os.getpid()) > 0
    child = subprocess.Popen(["true"])
    deadline = time.monotonic() + LONG
    while _command.start_time(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _command.start_time(child.pid) is None  # a zombie hangs in no driver
    child.wait()
    assert _command.start_time(child.pid) is None


def test_programs_are_found_where_path_lacks_them(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _command.find("sh") in ("/bin/sh", "/usr/bin/sh")
    assert _command.find("sh", [str(tmp_path)]) is None
    assert _command.find("no-such-program") is None
