#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: dify_setup
short_description: Make the first account of a Dify
version_added: 0.1.0
description:
  - Passes the gate of C(INIT_PASSWORD) where there is one, and makes the first account, which is the owner of the workspace.
  - A Dify that is set up already is left as it is, whoever its owner is.
author:
  - difyops.gpu authors (@difyops)
options:
  email:
    required: true
  name:
    description: Name of the account.
    type: str
    default: admin
  init_password:
    description: Value of C(INIT_PASSWORD) in Dify's settings.
    type: str
  init_password_file:
    description: File on this host with a line C(NAME=value) that has it, where O(init_password) is not given.
    type: path
  init_password_name:
    description: The C(NAME) in O(init_password_file).
    type: str
    default: INIT_PASSWORD
extends_documentation_fragment:
  - difyops.gpu.console
attributes:
  check_mode:
    support: full
    description: Asks whether Dify is set up, and changes nothing.
  diff_mode:
    support: none
    description: There is nothing to compare.
  platform:
    platforms: posix
    support: full
    description: Runs on Linux.
seealso:
  - module: difyops.gpu.dify_model_provider
"""

EXAMPLES = r"""
- name: Make the first account
  difyops.gpu.dify_setup:
    url: http://127.0.0.1
    host_header: dify.example.org
    email: admin@example.org
    password_file: /opt/dify/secrets/dify.env
    init_password_file: /opt/dify/secrets/dify.env
"""

RETURN = r"""
step:
  description: V(finished) or V(not_started), before this module did anything.
  returned: success
  type: str
  sample: not_started
code:
  description: Diagnosis code of a failure.
  returned: failure
  type: str
  sample: DG920
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _console, _console_options


def _make(console: _console.Console, options: dict[str, object]) -> None:
    gate = console.get("/console/api/init", "the state of the gate").get("status")
    if gate == "not_started":
        given = _console_options.secret_of(options, "init_password", "INIT_PASSWORD of this Dify")
        console.hide(given)
        console.send("POST", "/console/api/init", {"password": given}, "that the gate is open")
    console.hide(_console_options.password_of(options))
    account = {"email": options["email"], "name": options["name"], "password": _console_options.password_of(options)}
    console.send("POST", "/console/api/setup", account, "that the account was made")


def main() -> None:
    spec = _console_options.console_spec()
    spec["email"]["required"] = True
    spec["name"] = {"type": "str", "default": "admin"}
    spec["init_password"] = {"type": "str", "no_log": True}
    spec["init_password_file"] = {"type": "path", "no_log": False}
    spec["init_password_name"] = {"type": "str", "default": "INIT_PASSWORD", "no_log": False}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    console = _console_options.console_of(module.params)
    try:
        step = console.setup_step()
        if step != "finished" and not module.check_mode:
            _make(console, module.params)
    except _console.ConsoleError as error:
        module.fail_json(msg=f"{error.code}: {error}", code=error.code)
    module.exit_json(changed=step != "finished", step=step)


if __name__ == "__main__":
    main()
