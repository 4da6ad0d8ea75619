#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Set keys in Docker's configuration file and leave all else in it as it is
version_added: 0.1.0
description:
  - Sets and removes keys in C(daemon.json). Every other character of the file stays, with its order, indentation and line ends.
  - Asks the engine whether it takes the new file before the old one is replaced, with the options of C(docker.service), so that an
    option that is given there too is found.
  - Replaces the file at once or not at all, with owner, mode, SELinux label and access list of the old one. A link is followed.
  - Does not restart or reload Docker; RV(restart) tells what the change needs.
author:
  - difyops.gpu authors (@difyops)
options:
  path:
    description: The file.
    type: path
    default: /etc/docker/daemon.json
  settings:
    description: Keys and their values. Objects are merged with those in the file, everything else is replaced, lists as a whole.
    type: dict
    default: {}
  absent:
    description: Keys to take away, each as the path to it. An object that gets empty by it goes too, unless O(settings) names it.
    type: list
    elements: list
    default: []
  invalid:
    description:
      - What to do with a file that is no JSON object, for example one with comments.
      - V(refuse) says where the error is. V(replace) writes a new file with O(settings) alone and keeps a backup in any case.
      - An empty file is valid and counts as an empty object. A file in which a key that is to be changed is there twice is always refused.
    type: str
    choices: [refuse, replace]
    default: refuse
  validate:
    description: Whether the engine is asked. Docker before 23.0 cannot tell.
    type: bool
    default: true
  backup:
    description: Whether the old file is kept beside the new one.
    type: bool
    default: true
extends_documentation_fragment:
  - difyops.gpu.attributes.edits
notes:
  - A new file gets mode 0644, and 0600 where it holds what looks like a secret.
  - Passwords in URLs and values of keys that look like secrets are masked in all that is returned.
  - "Errors begin with a code: C(DG807) (the file cannot be read), C(DG808) (the engine refuses the new one), C(DG820) (it cannot be
    written)."
seealso:
  - module: difyops.gpu.nvidia_facts
  - module: difyops.gpu.gpu_plan
"""

EXAMPLES = r"""
- name: Let Docker inject devices by CDI
  difyops.gpu.docker_daemon_config:
    settings:
      features:
        cdi: true
  register: __daemon_config

- name: Tell what it takes
  ansible.builtin.debug:
    msg: "Docker has to be brought to it by: {{ __daemon_config.restart }}"

- name: Take NVIDIA's runtime out again
  difyops.gpu.docker_daemon_config:
    absent:
      - [runtimes, nvidia]
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
  sample: /etc/docker/daemon.json
changes:
  description: The keys that were changed, each with C(key) (the path to it) and its value C(before) and C(after), null for none.
  returned: success
  type: list
  elements: dict
  sample: [{key: [features, cdi], before: null, after: true}]
restart:
  description: What brings the change to the engine, V(none), V(reload) or V(restart).
  returned: success
  type: str
  sample: restart
validated:
  description: Whether the engine said that it takes the file; null where nothing changed, so that it was not asked.
  returned: success
  type: bool
  sample: true
backup_file:
  description: Where the old file is kept, null where there is no backup.
  returned: success
  type: str
  sample: /etc/docker/daemon.json.4711.2026-11-22@14:05:00~
code:
  description: Code of the error.
  returned: failure, where it has one
  type: str
  sample: DG807
"""

import contextlib
import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _daemon_config


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            # The log of the host gets none of it; what is returned lacks only the secrets in it.
            "settings": {"type": "dict", "default": {}, "no_log": True},
            "absent": {"type": "list", "elements": "list", "default": []},
            "invalid": {"type": "str", "choices": ["refuse", "replace"], "default": "refuse"},
            "validate": {"type": "bool", "default": True},
            "backup": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    with contextlib.suppress(ValueError, RecursionError):
        secrets = _daemon_config.secrets(json.dumps(options["settings"]))
        module.no_log_values.clear()
        module.no_log_values.update(secrets)
    try:
        pairs, absent = _daemon_config.wishes(options["settings"], options["absent"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    try:
        file = _daemon_config.read(options["path"])
        edit = _daemon_config.edit(file, pairs, absent, options["invalid"] == "replace")
        result: dict[str, Any] = {"path": file.path, "changes": edit.changes, "restart": _daemon_config.needs(edit)}
        result.update(validated=None, backup_file=None)
        if edit.before == edit.after:
            module.exit_json(changed=False, **result)
        result["diff"] = _daemon_config.difference(file, edit)
        result["validated"], warning = (
            _daemon_config.validate(edit.after, file.path, module.tmpdir) if options["validate"] else (False, None)
        )
        if warning:
            module.warn(warning)
        if not module.check_mode:
            result["backup_file"] = _daemon_config.write(file, edit.after, options["backup"] or edit.before is None)
            if file.raw is None:
                module.set_default_selinux_context(file.target, False)
    except _daemon_config.Problem as problem:
        module.fail_json(msg=str(problem), code=problem.code, path=options["path"])
    module.exit_json(changed=True, **result)


if __name__ == "__main__":
    main()
