#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_wait
short_description: Wait until the services of a compose project are ready
version_added: 0.1.0
description:
  - Waits for services one after the other, and says of the first one that is not ready what was waited for, what was seen, and what it
    wrote last.
  - A URL is asked in the network namespace of the container, entered from the host, since an image need not have a client for it.
  - A service that ends again and again is not waited for until the end.
author:
  - difyops.gpu authors (@difyops)
options:
  project:
    description: Compose project.
    type: str
    default: dify
  services:
    description: Services in the order in which they are waited for.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      healthcheck:
        description: Whether it has a healthcheck of compose and has to be healthy.
        type: bool
        default: false
      health:
        description: URL that has to answer 2xx inside its container's network, where there is no healthcheck.
        type: str
      one_shot:
        description: Whether it has to end, with 0.
        type: bool
        default: false
  timeout:
    description: Seconds for all services together.
    type: int
    default: 600
  log_lines:
    description: How many of its last log lines are shown of a service that does not get ready.
    type: int
    default: 20
  secrets_file:
    description: File of C(NAME=value) lines whose values are masked in log lines.
    type: path
attributes:
  check_mode:
    support: full
    description: Waits for nothing, since nothing was started; returns an empty list.
  diff_mode:
    support: N/A
    description: Changes nothing, so there is no difference to show.
  platform:
    platforms: posix
    support: full
    description: Runs on Linux.
notes:
  - "Errors begin with C(DG914)."
seealso:
  - module: difyops.gpu.dify_backup
"""

EXAMPLES = r"""
- name: Wait for Dify
  difyops.gpu.dify_wait:
    services:
      - {name: init_permissions, one_shot: true}
      - {name: db_postgres, healthcheck: true}
      - {name: api, health: "http://127.0.0.1:5001/health"}
      - {name: worker}
    secrets_file: /opt/dify/secrets/dify.env
"""

RETURN = r"""
services:
  description: Each service that got ready, with C(name), C(state), C(health) (null where there is none) and C(after_s) (seconds).
  returned: success
  type: list
  elements: dict
  sample: [{name: api, state: running, health: answers, after_s: 12.3}]
service:
  description: The service that does not get ready.
  returned: failure
  type: str
log:
  description: Its last log lines, without secrets.
  returned: failure
  type: list
  elements: str
code:
  description: Code of the error.
  returned: failure
  type: str
  sample: DG914
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _dify_wait, _docker

SERVICE = {
    "name": {"type": "str", "required": True},
    "healthcheck": {"type": "bool", "default": False},
    "health": {"type": "str"},
    "one_shot": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "default": "dify"},
            "services": {"type": "list", "elements": "dict", "required": True, "options": SERVICE},
            "timeout": {"type": "int", "default": 600},
            "log_lines": {"type": "int", "default": 20},
            # The path is no secret, what it leads to is.
            "secrets_file": {"type": "path", "no_log": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    if module.check_mode:
        module.exit_json(changed=False, services=[])
    services = [_dify_wait.Service(one["name"], one["healthcheck"], one["health"] or "", one["one_shot"]) for one in options["services"]]
    log: list[str] = []
    service = sentence = ""
    try:
        secrets = _dify_wait.secret_values(options["secrets_file"]) if options["secrets_file"] else []
        waiter = _dify_wait.Waiter(_docker.connect(30.0), options["project"], float(options["timeout"]))
        module.exit_json(changed=False, services=waiter.wait(services, options["log_lines"], secrets))
    except _dify_wait.NotReady as problem:
        sentence, log, service = str(problem), problem.log, problem.service
    except (_docker.DockerUnavailable, OSError) as error:
        sentence = str(error)
    if log:
        sentence += " Its last log lines: " + " | ".join(log)
    module.fail_json(msg=f"{_dify_wait.CODE}: {sentence}", code=_dify_wait.CODE, service=service, log=log)


if __name__ == "__main__":
    main()
