#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_env
short_description: Make the file of variables of a Dify release, and its secrets
version_added: 0.1.0
description:
  - Makes C(.env) of a release from its C(.env.example). Comments and order stay, values are replaced, further variables come at the end.
  - Values are quoted by the rules of Docker Compose, so that each arrives to the letter.
  - Makes each secret once and keeps it in a file that only its owner can read. A secret that is there is never changed unless another
    one is given, or the one that is there is a public default of the release.
  - The secrets are written before C(.env) is, so that an interrupted run loses none.
author:
  - difyops.gpu authors (@difyops)
options:
  path:
    description: The file to make.
    type: path
    required: true
  template:
    description: The release's C(.env.example), on the host. In check mode it may be missing, since the release is not unpacked then.
    type: path
    required: true
  settings:
    description: Variables and their values, to the letter. None of them may be a secret.
    type: dict
    default: {}
  secrets_file:
    description: Where the secrets are kept, one C(NAME=value) in a line, without quotes. Its folder is made with mode 0700.
    type: path
    required: true
  secrets:
    description: The secrets that the release needs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the variable.
        type: str
        required: true
      kind:
        description: V(letters) are letters and digits, V(base64url32) is base64url of 32 bytes without padding.
        type: str
        choices: [letters, base64url32]
        default: letters
      length:
        description: How many characters a new one of kind V(letters) has.
        type: int
        default: 40
      also:
        description: Further variables that hold the same value.
        type: list
        elements: str
        default: []
      in_env:
        description: Whether it is a variable of O(path). One that is not is only kept in O(secrets_file).
        type: bool
        default: true
  derived:
    description: Variables that are made of others, whose names stand in braces. One that is given in O(given) is not derived.
    type: dict
    default: {}
  given:
    description:
      - Secrets from Ansible Vault, by name. One that differs from the one in O(secrets_file) replaces it; an empty one counts as not given.
      - Names that are not in O(secrets) are set too, for example the key of an object store.
    type: dict
    default: {}
  forbidden:
    description: Digests (SHA-256) of public defaults, by name. Such a value is refused where it is given, and replaced where it is found.
    type: dict
    default: {}
  backup:
    description: Whether the old O(path) is kept beside the new one, readable by its owner only.
    type: bool
    default: true
extends_documentation_fragment:
  - difyops.gpu.attributes.edits
notes:
  - What is returned and what C(--diff) shows has names only, and values of O(settings).
  - "Errors begin with a code: C(DG902) (the template is missing or cannot be read), C(DG906) (the disk is full), C(DG913) (a secret cannot
    be used, or the file of secrets cannot be read), C(DG922) (a setting cannot be used, or a file cannot be written)."
seealso:
  - module: difyops.gpu.dify_plan
  - module: difyops.gpu.dify_app_facts
"""

EXAMPLES = r"""
- name: Make the variables of the release as the plan has them
  difyops.gpu.dify_env: "{{ ansible_facts['dify_plan']['env'] | combine({'given': dify_secrets}) }}"
  no_log: true

- name: Make them by hand
  difyops.gpu.dify_env:
    path: /opt/dify/releases/1.17.1/docker/.env
    template: /opt/dify/releases/1.17.1/docker/.env.example
    settings:
      NGINX_HTTPS_ENABLED: "true"
    secrets_file: /opt/dify/secrets/dify.env
    secrets:
      - name: REDIS_PASSWORD
      - name: SANDBOX_API_KEY
        also: [CODE_EXECUTION_API_KEY]
    derived:
      CELERY_BROKER_URL: "redis://:{REDIS_PASSWORD}@redis:6379/1"
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
  sample: /opt/dify/releases/1.17.1/docker/.env
variables:
  description: Names of the variables that are C(added), C(changed) and C(removed).
  returned: success
  type: dict
  sample: {added: [SECRET_KEY], changed: [DB_PASSWORD], removed: []}
generated:
  description: Names of the secrets that were made.
  returned: success
  type: list
  elements: str
  sample: [DB_PASSWORD]
replaced_defaults:
  description: Names of the secrets that were found with a public default, which is replaced.
  returned: success
  type: list
  elements: str
  sample: []
backup_file:
  description: Where the old file is kept, null where there is no backup.
  returned: success
  type: str
  sample: /opt/dify/releases/1.17.1/docker/.env.4711.2026-11-22@14:05:00~
code:
  description: Code of the error.
  returned: failure, where it has one
  type: str
  sample: DG913
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _dify_env


def main() -> None:
    secret = {
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": ["letters", "base64url32"], "default": "letters"},
        "length": {"type": "int", "default": 40},
        "also": {"type": "list", "elements": "str", "default": []},
        "in_env": {"type": "bool", "default": True},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "template": {"type": "path", "required": True},
            "settings": {"type": "dict", "default": {}},
            "secrets_file": {"type": "path", "required": True, "no_log": False},
            "secrets": {"type": "list", "elements": "dict", "default": [], "options": secret, "no_log": False},
            "derived": {"type": "dict", "default": {}},
            "given": {"type": "dict", "default": {}, "no_log": True},
            "forbidden": {"type": "dict", "default": {}},
            "backup": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        wanted = _dify_env.wish(options)
        outcome = _dify_env.plan(wanted)
        for warning in outcome.warnings:
            module.warn(warning)
        opened = [path for path in (wanted.secrets_file, wanted.path) if _dify_env.open_to_others(path) is not None]
        for path in opened:
            module.warn(f"{path} could be read by others than its owner; it is closed to them. Secrets in it may be known.")
        changed = bool(opened) or outcome.text != outcome.before or outcome.secrets_text != outcome.secrets_before
        result = {
            "path": wanted.path,
            "variables": {"added": list(outcome.added), "changed": list(outcome.changed), "removed": list(outcome.removed)},
            "generated": list(outcome.secrets.generated),
            "replaced_defaults": list(outcome.secrets.defaults),
            "backup_file": None,
            "diff": _dify_env.difference(wanted, outcome),
        }
        if not module.check_mode:
            result["backup_file"] = _dify_env.write(wanted, outcome, options["backup"])
    except _dify_env.Problem as problem:
        module.fail_json(msg=str(problem), code=problem.code, path=options["path"])
    module.exit_json(changed=changed, **result)


if __name__ == "__main__":
    main()
