# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write every result of a run to the file TASK_RESULTS_FILE, one JSON line each: whole, which no other callback of ansible-core does."""

from __future__ import annotations

import json
import os
import time
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_results
type: aggregate
short_description: Keep the results of a run
description:
  - Tool of the project's tests; not part of the collection.
requirements:
  - E(TASK_RESULTS_FILE) names the file to append to.
"""


class CallbackModule(CallbackBase):
    """Appends {host, task, action, status, seconds, result} as each task ends."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_results"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:
        self._started = time.monotonic()

    def _keep(self, result: t.Any, status: str) -> None:
        # ansible-core 2.19 gave the parts of a result public names; the older ones are gone from 2.23 on.
        host, task, data = (getattr(result, name, None) or getattr(result, f"_{name}") for name in ("host", "task", "result"))
        seconds = round(time.monotonic() - self._started, 3)
        line = {"host": host.get_name(), "task": task.get_name(), "action": task.action, "status": status}
        line |= {"seconds": seconds, "result": data}
        with open(os.environ["TASK_RESULTS_FILE"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._keep(result, "ok")

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._keep(result, "failed")

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._keep(result, "unreachable")

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self._keep(result, "skipped")
