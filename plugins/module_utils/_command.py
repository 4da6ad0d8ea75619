# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run something that may hang, with a deadline that holds.

A process in uninterruptible sleep ignores even SIGKILL. Such a process is abandoned: its pipes are closed, nobody waits
for it, and the caller is told who it is, so that it is not started a second time.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Callable, Protocol, cast

# How long a killed process gets to disappear before it counts as stuck in the kernel.
KILL_GRACE_S = 1.0
# More than any answer this collection asks for; what comes after it is read and dropped.
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


class _Child(Protocol):
    pid: int

    def poll(self) -> int | None:
        """Return the exit status, None while the child runs."""


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
                if pid:
                    self._rc = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self._rc


def find(name: str, search: Sequence[str] = ()) -> str | None:
    """Return the path of a program. The system's directories count even where PATH (of sudo, say) lacks them."""
    if search:
        return shutil.which(name, path=os.pathsep.join(search))
    path = os.environ.get("PATH", "").split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(entry for entry in [*path, *_SYSTEM_PATH] if entry))


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it is gone or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # The name in parentheses may hold spaces and parentheses itself, so count from the last one.
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def run(argv: Sequence[str], timeout_s: float, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
    """Run a command and return what it said, at the latest ``timeout_s`` + KILL_GRACE_S seconds from now.

    Never through a shell, in the C locale. Raises CannotStart when it cannot be started.
    """
    try:
        # run_command() of AnsibleModule waits for ever for a child that cannot be killed.
        child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **(env or {})},
            start_new_session=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        raise CannotStart(f"{argv[0]} cannot be started: {error}.") from error
    outputs = {"stdout": cast("IO[bytes]", child.stdout), "stderr": cast("IO[bytes]", child.stderr)}
    return _converse(child, outputs, child.stdin, stdin, timeout_s)


def call(function: Callable[[], Any], timeout_s: float) -> Result:
    """Run a Python function in a child of its own; ``stdout`` of the result is what it returned, as JSON.

    For libraries that may hang or crash the process they are loaded into. The child has no open file of this process
    but its pipe, so one that stays behind holds nothing open, not even the SSH connection.
    Raises CannotStart.
    """
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        raise CannotStart(f"A child process cannot be started: {error}.") from error
    if pid == 0:
        _serve(function, writer)
    os.close(writer)
    return _converse(_Forked(pid), {"stdout": os.fdopen(reader, "rb", buffering=0)}, None, b"", timeout_s)


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
        answer = json.dumps(function()).encode()
        while answer:
            answer = answer[os.write(writer, answer) :]
        status = 0
    finally:
        os._exit(status)


def _converse(child: _Child, outputs: Mapping[str, IO[bytes]], stdin: IO[bytes] | None, data: bytes, timeout_s: float) -> Result:
    deadline = time.monotonic() + timeout_s
    collected = {name: bytearray() for name in ("stdout", "stderr")}
    with selectors.DefaultSelector() as selector:
        for name, stream in outputs.items():
            selector.register(stream, selectors.EVENT_READ, name)
        if stdin is not None:
            if data:
                os.set_blocking(stdin.fileno(), False)
                selector.register(stdin, selectors.EVENT_WRITE)
            else:
                stdin.close()
        over = _pump(child, selector, collected, memoryview(data), deadline)
    for stream in (*outputs.values(), *([stdin] if stdin else [])):
        stream.close()
    survivor = None if over else _kill(child)
    return Result(
        rc=child.poll() if over else None,
        stdout=bytes(collected["stdout"]),
        stderr=bytes(collected["stderr"]),
        timed_out=not over,
        survivor=survivor,
    )


def _pump(child: _Child, selector: selectors.BaseSelector, collected: Mapping[str, bytearray], data: memoryview, deadline: float) -> bool:
    """Move bytes until the child has ended; return False when it had not by the deadline."""
    while time.monotonic() < deadline:
        events = selector.select(0.05) if selector.get_map() else []
        for key, _mask in events:
            if key.data is None:
                data = _write(key.fileobj, data, selector)
            else:
                _read(key.fileobj, collected[key.data], selector)
        # Something the child has started may hold its pipes open for ever, so its end counts, not theirs.
        if not events:
            if child.poll() is not None:
                return True
            if not selector.get_map():
                time.sleep(0.005)
    return child.poll() is not None


def _write(stream: Any, data: memoryview, selector: selectors.BaseSelector) -> memoryview:
    try:
        data = data[os.write(stream.fileno(), data[:65536]) :]
    except BlockingIOError:
        return data
    except OSError:  # the child does not want to read on; what it says is still of interest
        data = data[:0]
    if not data:
        selector.unregister(stream)
        stream.close()
    return data


def _read(stream: Any, collected: bytearray, selector: selectors.BaseSelector) -> None:
    chunk = os.read(stream.fileno(), 65536)
    if not chunk:
        selector.unregister(stream)
    elif len(collected) < OUTPUT_LIMIT:
        collected.extend(chunk)


def _kill(child: _Child) -> Process | None:
    """Kill the child and all it has started; return it when it does not go away."""
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
