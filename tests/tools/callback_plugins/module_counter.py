# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure how many modules a run executes on each host: one JSON line per execution in the file MODULE_COUNTER_FILE.

ansible-core says nothing from which this could be read: its log line "Using module file" names no host, a task's result does
not tell whether a module ran, and an action such as copy or template runs several. So the one method that sends modules is wrapped.
Task workers are forks of the process that loads this, hence the wrapper is in all of them.
"""

from __future__ import annotations

import functools
import json
import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: module_counter
type: aggregate
short_description: Count module executions per host
description:
  - Measuring tool of the project's tests; not part of the collection.
requirements:
  - E(MODULE_COUNTER_FILE) names the file to append to.
"""


def _record(path: str, action: ActionBase, module: str, host: str) -> None:
    line = json.dumps({"host": host, "module": module, "task": action._task.get_name()}) + "\n"
    # One write with O_APPEND: workers of several hosts append at the same time.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _counting(path: str, execute: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    @functools.wraps(execute)
    def wrapper(self: ActionBase, module_name: str | None = None, *args: t.Any, **kwargs: t.Any) -> t.Any:
        task_vars = kwargs.get("task_vars") or (args[2] if len(args) > 2 else None) or {}
        host = self._task.delegate_to or task_vars.get("inventory_hostname", "?")
        _record(path, self, module_name or self._task.action, host)
        return execute(self, module_name, *args, **kwargs)

    return wrapper


class CallbackModule(CallbackBase):
    """Wraps the execution of modules when it is loaded; listens to nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "module_counter"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        path = os.environ.get("MODULE_COUNTER_FILE")
        if not path:
            self._display.warning("module_counter: MODULE_COUNTER_FILE is not set, nothing is counted")
            self.disabled = True
            return
        ActionBase._execute_module = _counting(path, ActionBase._execute_module)
