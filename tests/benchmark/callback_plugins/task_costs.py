# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure each task of a run: how long it took, and how many bytes were sent to the host for it. JSON lines in the file TASK_COSTS_FILE.

A task's result does not tell its size, so the one method by which actions send something to a host is wrapped. Task workers are forks of
the process that loads this, hence the wrapper is in all of them.
"""

from __future__ import annotations

import functools
import json
import os
import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_costs
type: aggregate
short_description: Measure time and payload of tasks
description:
  - Measuring tool of the project's benchmarks; not part of the collection.
requirements:
  - E(TASK_COSTS_FILE) names the file to append to.
"""


def _append(**line: t.Any) -> None:
    descriptor = os.open(os.environ["TASK_COSTS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def _measuring(send: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    @functools.wraps(send)
    def wrapper(self: ActionBase, cmd: str, sudoable: bool = True, in_data: t.Any = None, *args: t.Any, **kwargs: t.Any) -> t.Any:
        size = len(cmd.encode()) + len(in_data.encode() if isinstance(in_data, str) else in_data or b"")
        _append(task=self._task.get_name(), action=self._task.action, bytes=size)
        return send(self, cmd, sudoable, in_data, *args, **kwargs)

    return wrapper


class CallbackModule(CallbackBase):
    """Writes {task, action, bytes} for every message to a host, and {task, action, seconds} for every task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_costs"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._started = 0.0
        ActionBase._low_level_execute_command = _measuring(ActionBase._low_level_execute_command)

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        self._started = time.monotonic()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        task = getattr(result, "task", None) or result._task
        _append(task=task.get_name(), action=task.action, seconds=time.monotonic() - self._started)
