# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send the probe program into a container and read what it reports.

This is private to difyops.gpu.
"""

from __future__ import annotations

import inspect
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.difyops.gpu.plugins.module_utils import _probe_extras, _probe_program
from ansible_collections.difyops.gpu.plugins.module_utils._docker import DockerTimeout

# Where images keep the interpreter that has PyTorch: on the path, or in a virtual environment of its own.
DEFAULT_PYTHONS = ("python3", "python", "/opt/venv/bin/python")

# The probe ends itself when its time is over; whoever waits for it allows this much more for it to start and to end.
ENGINE_GRACE_S = 10

# What an engine's exec ends with when the program cannot be started in the container: not executable, not found.
_RC_NOT_STARTED = (126, 127)

_LAST_WORDS = 400


class Engine(Protocol):
    """What is needed of a container engine."""

    def exec(self, container: str, argv: Sequence[str], stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        """Run a program in a container and return (exit status, stdout, stderr)."""


@dataclass
class ProbeReport:
    """What a probe said. ``stages`` holds the finished ones, in order, each with its data."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: str | None = None  # the stage that began and never ended
    timed_out: bool = False
    done: bool = False
    rc: int | None = None
    last_words: str = ""

    @property
    def answered(self) -> bool:
        """A Python started and spoke."""
        return bool(self.stages) or self.running is not None

    @property
    def torch_found(self) -> bool:
        return self.stages.get("python", {}).get("torch_found") is True

    def stage(self, name: str) -> dict[str, Any] | None:
        """Return the data of a finished stage, None when it was not reached or not finished."""
        return self.stages.get(name)

    def kernels(self) -> list[dict[str, Any]]:
        """Return the results of the computations on the GPUs, by index."""
        return [data for name, data in self.stages.items() if name.startswith("kernel ")]

    def extras(self) -> dict[str, dict[str, Any]]:
        """Return what was said of the other GPU runtimes of the image, by name; None of those that were cut off."""
        return {name.partition(" ")[2]: data for name, data in self.stages.items() if name.startswith("extra ")}


def program(gpu: bool, timeout_s: float, require_torch: bool) -> bytes:
    """Return the source of the probe, ending in the call that starts it."""
    config = json.dumps({"gpu": gpu, "timeout_s": timeout_s, "require_torch": require_torch})
    extras = inspect.getsource(_probe_extras) if gpu else ""
    return f"{inspect.getsource(_probe_program)}\n\nsys.exit(main({config!r}, {extras!r}))\n".encode()


def parse(stdout: bytes) -> ProbeReport:
    """Read the probe's lines out of whatever else was printed; a line that is damaged or cut off is passed over."""
    report = ProbeReport()
    for line in stdout.decode("utf-8", "replace").splitlines():
        _before, marker, text = line.partition(_probe_program.MARKER)
        if marker:
            _read_line(report, text)
    return report


def _read_line(report: ProbeReport, text: str) -> None:
    try:
        record, _end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(record, dict) or not isinstance(record.get("stage"), str):
        return
    stage, event, data = record["stage"], record.get("event"), record.get("data")
    if event == "begin":
        report.running = stage
    elif event == "timeout":
        report.running, report.timed_out = stage, True
    elif event == "end" and isinstance(data, dict):
        report.running = None
        if stage == "done":
            report.done = True
        else:
            report.stages[stage] = data


def run(engine: Engine, container: str, pythons: Sequence[str], gpu: bool, timeout_s: float) -> ProbeReport:
    """Run the probe with the first interpreter that has PyTorch, or else with the first that works at all.

    Errors of the engine itself (the container is gone, the engine does not answer) are the caller's to handle.
    """
    without_torch: str | None = None
    report = ProbeReport()
    for python in pythons:
        report = _run_once(engine, container, python, gpu, timeout_s, require_torch=True)
        if report.answered and report.rc != _probe_program.RC_NO_TORCH:
            return report
        if report.answered and without_torch is None:
            without_torch = python
    if without_torch is not None:
        return _run_once(engine, container, without_torch, gpu, timeout_s, require_torch=False)
    return report


def _run_once(
    engine: Engine, container: str, python: str, gpu: bool, timeout_s: float, require_torch: bool
) -> ProbeReport:
    source = program(gpu, timeout_s, require_torch)
    # -B: importing PyTorch must not write byte code into the container.
    argv, limit = [python, "-B", "-"], timeout_s + ENGINE_GRACE_S
    rc: int | None
    try:
        rc, stdout, stderr = engine.exec(container, argv, source, limit)
    except DockerTimeout as error:
        # The probe could not even end itself, as a process stuck in the kernel cannot; what it said until then counts.
        rc, stdout, stderr = None, getattr(error, "stdout", b""), getattr(error, "stderr", b"")
    report = parse(stdout)
    report.rc = rc
    report.timed_out = report.timed_out or rc in (None, -signal.SIGALRM, 128 + signal.SIGALRM)
    report.last_words = last_words(stderr if stderr.strip() or report.answered else stdout)
    return report


def could_not_start(report: ProbeReport) -> bool:
    """The engine did its part, and the interpreter is not in the image.

    The engine ends with the same codes where it failed at something else, and says what.
    """
    words = report.last_words.lower()
    missing = not words or "not found" in words or "no such file" in words
    return not report.answered and report.rc in _RC_NOT_STARTED and missing


def last_words(output: bytes) -> str:
    """Return the end of what a program printed as one line: the last lines of a traceback say the most."""
    text = " ".join(output.decode("utf-8", "replace").split())
    return text if len(text) <= _LAST_WORDS else "..." + text[-_LAST_WORDS:]
