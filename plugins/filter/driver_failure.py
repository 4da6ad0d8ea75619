# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: driver_failure
short_description: Say in one sentence why a task of a role that changes packages failed
version_added: 0.1.0
author:
  - difyops.gpu authors (@difyops)
description:
  - For C(rescue) of the roles P(difyops.gpu.nvidia_driver#role), P(difyops.gpu.container_engine#role) and
    P(difyops.gpu.nvidia_container_toolkit#role), and of the playbooks around them.
  - Finds in the output of apt, dpkg, DKMS, dnf and rpm what the cause is, and names the lines that tell of it. Command lines are left out.
  - A sentence of this collection, with or without a code, stays as it is.
positional: task, action, lock_timeout, role
options:
  _input:
    description: What the task returned, C(ansible_failed_result) in C(rescue).
    type: dict
    required: true
  task:
    description: Name of the task, C(ansible_failed_task.name) in C(rescue).
    type: str
    required: true
  action:
    description: Full name of its module, C(ansible_failed_task.action) in C(rescue).
    type: str
    required: true
  lock_timeout:
    description: How many seconds it waited for the lock of the package manager.
    type: int
    default: 0
  role:
    description: The role whose variables the remedy names.
    type: str
    default: nvidia_driver
"""

EXAMPLES = r"""
- name: Keep what went wrong
  ansible.builtin.set_fact:
    failure: "{{ ansible_failed_result | difyops.gpu.driver_failure(ansible_failed_task.name, ansible_failed_task.action) }}"
"""

RETURN = r"""
_value:
  description: The sentence, and the code of this collection for it.
  type: dict
  contains:
    code:
      description: The code; null for what nobody expected to fail.
      type: str
    message:
      description: The sentence, on one line.
      type: str
  sample: {code: DG782, message: "the disk is full: ... No space left on device. Free space, and run the same playbook again."}
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_failure


def driver_failure(result: object, task: str, action: str, lock_timeout: int = 0, role: str = "nvidia_driver") -> dict[str, Any]:
    """Return code and message for the result of a task that failed."""
    return _driver_failure.explain(result, str(task), str(action), int(lock_timeout), str(role))


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"driver_failure": driver_failure}
