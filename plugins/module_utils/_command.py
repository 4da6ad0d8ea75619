# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run something that may hang, with a deadline that holds.

A process in uninterruptible sleep ignores even SIGKILL. It is abandoned, and the caller is told who it is. What a process
says goes to a file without a name: it waits for no reader, and nobody waits for others that hold its output open.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Callable, Union

# How long a killed process gets to disappear before it counts as stuck in the kernel.
KILL_GRACE_S = 1.0
# More than any answer this collection asks for; a process that says more is ended.
OUTPUT_LIMIT = 8 * 1024 * 1024
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one with the same number by its start time (clock ticks since boot)."""

    pid: int
    start_time: int


@dataclass(frozen=True)
class Result:
    """What came of a command. ``rc`` is None when it was not over in time; negative when a signal ended it."""

    rc: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    survivor: Process | None = None

    @property
    def out(self) -> str:
        return self.stdout.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        return self.stderr.decode("utf-8", "replace")


class CannotStart(Exception):  # noqa: N818
    """The program is not on this host, or the host has no room for another process. Its text is a sentence."""


class _Forked:
    """A forked child with the two members of Popen that are needed here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._rc: int | None = None

    def poll(self) -> int | None:
        if self._rc is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._rc = -1
            else:
                self._rc = os.waitstatus_to_exitcode(status) if pid else None
        return self._rc


_Child = Union["subprocess.Popen[bytes]", _Forked]


class Running:
    """A command that was started. Ask for its result once."""

    def __init__(self, child: _Child, outputs: Sequence[IO[bytes]], timeout_s: float) -> None:
        self._child, self._outputs = child, outputs
        self._deadline = time.monotonic() + timeout_s

    def result(self) -> Result:
        """Wait for the end, at the latest ``timeout_s`` + KILL_GRACE_S seconds after the start, and return what was said."""
        late = False
        while self._child.poll() is None and not late and all(os.fstat(file.fileno()).st_size <= OUTPUT_LIMIT for file in self._outputs):
            late = time.monotonic() >= self._deadline
            time.sleep(0.002)
        late = late and self._child.poll() is None
        survivor = _kill(self._child)
        said = []
        for file in self._outputs:
            with file:
                said.append(os.pread(file.fileno(), OUTPUT_LIMIT, 0))
        return Result(None if late else self._child.poll(), said[0], b"".join(said[1:]), late, survivor)


def find(name: str, search: Sequence[str] = ()) -> str | None:
    """Return the path of a program. The system's directories count even where PATH (of sudo, say) lacks them."""
    places = search or [*os.environ.get("PATH", "").split(os.pathsep), *_SYSTEM_PATH]
    return shutil.which(name, path=os.pathsep.join(filter(None, places)))


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it is gone or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # The name in parentheses may hold spaces and parentheses itself, so count from the last one.
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def start(argv: Sequence[str], timeout_s: float, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Running:
    """Start a command, never through a shell, in the C locale. Raises CannotStart."""
    with contextlib.ExitStack() as files:
        try:
            data, *outputs = (files.enter_context(tempfile.TemporaryFile()) for _file in range(3))
            data.write(stdin)
            data.seek(0)
            # run_command() of AnsibleModule waits for ever for a child that cannot be killed.
            child = subprocess.Popen(  # pylint: disable=ansible-bad-function
                list(argv),
                stdin=data,
                stdout=outputs[0],
                stderr=outputs[1],
                env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **(env or {})},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CannotStart(f"{argv[0]} cannot be started: {error}.") from error
        files.pop_all()
    data.close()
    return Running(child, outputs, timeout_s)


def run(argv: Sequence[str], timeout_s: float, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
    """Start a command and wait for its result. Raises CannotStart."""
    return start(argv, timeout_s, stdin, env).result()


def call(function: Callable[[], Any], timeout_s: float) -> Result:
    """Run a Python function in a child of its own; ``stdout`` of the result is what it returned, as JSON.

    For libraries that may hang or crash their process. The child has no open file of this process but the one for its
    answer, so one that stays behind holds nothing open, not even the SSH connection. Raises CannotStart.
    """
    with contextlib.ExitStack() as files:
        try:
            answer = files.enter_context(tempfile.TemporaryFile())
            pid = os.fork()
        except OSError as error:
            raise CannotStart(f"A child process cannot be started: {error}.") from error
        if pid == 0:
            _serve(function, answer.fileno())
        files.pop_all()
    return Running(_Forked(pid), [answer], timeout_s).result()


def _serve(function: Callable[[], Any], writer: int) -> None:
    """The child's whole life: leave the session, let go of every inherited file, answer, end without clean-up."""
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.closerange(3, writer)
        os.closerange(writer + 1, min(os.sysconf("SC_OPEN_MAX"), 65536))
        with open(writer, "w", encoding="ascii") as file:
            json.dump(function(), file)
        status = 0
    finally:
        os._exit(status)


def _kill(child: _Child) -> Process | None:
    """Kill the child, if it still runs, and all it has started; return it when it does not go away."""
    if child.poll() is not None:
        return None
    born = start_time(child.pid)
    # The group does not exist yet when the child had no time to make it, so the child is named as well.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_GRACE_S
    while child.poll() is None:
        if time.monotonic() >= deadline:
            return Process(child.pid, born or 0)
        time.sleep(0.01)
    return None
