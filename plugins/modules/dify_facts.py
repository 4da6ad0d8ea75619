#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: dify_facts
short_description: Observe a Dify deployment on a host
version_added: 0.1.0
description:
  - Tells which files of a deployment are there, with digest, owner and mode; which of its images the host has; and how its
    containers are.
  - What is in a secret never leaves the host, and neither does its digest. Hand in the digest that it should have, and the
    module tells whether it matches.
  - A container engine that is missing or does not answer is a fact with a sentence in RV(ansible_facts.dify.error), not a
    failure.
author:
  - difyops.gpu authors (@difyops)
options:
  home:
    description: Directory of the deployment.
    type: path
    default: /opt/dify-gpu
  files:
    description: Files and directories to look at.
    type: list
    elements: path
    default: []
  secrets:
    description:
      - Secret files to look at. Each key is a path, each value the SHA-256 (64 hexadecimal digits) that the content should
        have, or null to leave it at that.
    type: dict
    default: {}
  models:
    description: Folders of models to look at. Nothing of them is loaded.
    type: list
    elements: path
    default: []
  images:
    description: References of the images to look for on the host. Nothing is pulled.
    type: list
    elements: str
    default: []
  project:
    description: Name of the compose project whose containers are listed.
    type: str
    default: dify-gpu
  timeout:
    description: Seconds that the container engine gets to answer a question.
    type: int
    default: 15
extends_documentation_fragment:
  - difyops.gpu.attributes.observes
notes:
  - Uses the Docker SDK for Python where the host's Python can import it, else the C(docker) command. Neither is required.
  - The format is described in the collection's C(docs/contracts.md).
seealso:
  - module: difyops.gpu.nvidia_facts
"""

EXAMPLES = r"""
- name: Observe the deployment
  difyops.gpu.dify_facts:
    files:
      - /opt/dify-gpu/compose.yaml
    secrets:
      /opt/dify-gpu/secrets/api_key.env: null
    images:
      - difyops/dify-gpu:web-server-cuda12.6-v0.1.0

- name: Say which containers are not healthy
  ansible.builtin.debug:
    msg: "{{ ansible_facts['dify'].containers | rejectattr('health', 'equalto', 'healthy') | map(attribute='name') }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  returned: always
  type: dict
  contains:
    dify:
      description: The deployment. Every key is always there.
      returned: always
      type: dict
      contains:
        schema:
          description: Version of this document's format.
          returned: always
          type: int
          sample: 1
        home:
          description: The directory that was handed in.
          returned: always
          type: str
          sample: /opt/dify-gpu
        release:
          description: Release of the upstream Dify stack. Not gathered yet, so null.
          returned: always
          type: str
        layout:
          description: Layout of the upstream Dify stack. Not gathered yet, so null.
          returned: always
          type: dict
        files:
          description:
            - One entry per path of O(files), with C(exists), C(directory), C(sha256), C(owner), C(group), C(mode) and C(size) in
              bytes.
            - C(exists) is null for a path that could not be examined; the others are null for what is not there.
            - C(directory) is true for a directory, whose C(sha256) and C(size) are null.
          returned: always
          type: dict
          sample:
            /opt/dify-gpu/compose.yaml:
              exists: true
              directory: false
              sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
              owner: root
              group: root
              mode: "0644"
              size: 812
        secrets:
          description:
            - One entry per path of O(secrets), with C(exists), C(owner), C(group), C(mode), C(size) in bytes and C(matches).
            - C(matches) tells whether the content has the digest that was handed in; null when none was.
          returned: always
          type: dict
          sample:
            /opt/dify-gpu/secrets/api_key.env:
              exists: true
              owner: root
              group: root
              mode: "0600"
              size: 75
              matches:
        models:
          description:
            - One entry per folder of O(models), with C(exists), C(complete) and C(reason), which says what is missing.
            - A model is complete when it has a C(config.json) and safetensors weights, every part that its index names, and each
              as long as its own header says. Null is unknown.
          returned: always
          type: dict
          sample:
            /srv/models/bge-m3:
              exists: true
              complete: false
              reason: has no safetensors weights
        images:
          description:
            - One entry per reference of O(images), with C(id), C(labels), C(repo_digests), C(created) and C(size_mib).
            - Null for a reference that is not on the host, and for each when RV(ansible_facts.dify.error) is set.
          returned: always
          type: dict
          sample:
            difyops/dify-gpu:web-server-cuda12.6-v0.1.0:
              id: sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
              labels: {}
              repo_digests: []
              created: "2026-11-20T10:00:00Z"
              size_mib: 1351
        containers:
          description:
            - The containers of the compose project, those that do not run too, sorted by name.
            - C(health) is null for a container without a health check, C(started_at) for one that was never started.
            - C(secrets_applied) tells whether the environment of a running container has every NAME=VALUE line of the files of
              O(secrets) as they are now; also false for a container that takes none of them. Null for one that does not run, and
              where no file can be read and compared. A file is compared when it has only comments and lines of plain ASCII without
              quotes, dollar signs, backslashes and hashes in their values, since Compose changes others.
          returned: always
          type: list
          elements: dict
          sample:
            - name: dify-gpu-dify-gpu-1
              service: dify-gpu
              id: 1f3870be274f6c49b3e31a0c6728957f6c49b3e31a0c6728957f1f3870be274f
              image: difyops/dify-gpu:web-server-cuda12.6-v0.1.0
              image_id: sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
              state: running
              health: healthy
              restart_policy: unless-stopped
              started_at: "2026-11-20T10:05:00.123456789Z"
              labels: {}
              secrets_applied: true
        error:
          description: Why the container engine could not be asked, null when it could.
          returned: always
          type: str
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _dify

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify-gpu"},
            "files": {"type": "list", "elements": "path", "default": []},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "models": {"type": "list", "elements": "path", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
            "project": {"type": "str", "default": "dify-gpu"},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    options = module.params
    for path, wanted in options["secrets"].items():
        if wanted is not None and not (isinstance(wanted, str) and _SHA256.fullmatch(wanted)):
            module.fail_json(msg=f"secrets: the value of {path} has to be a SHA-256 in 64 hexadecimal digits, or null.")
    if options["timeout"] < 1:
        module.fail_json(msg=f"timeout has to be at least 1 second, not {options['timeout']}.")
    facts, complaints = _dify.gather(
        home=options["home"],
        files=options["files"],
        secrets=options["secrets"],
        images=options["images"],
        project=options["project"],
        timeout_s=options["timeout"],
        models=options["models"],
    )
    for complaint in complaints:
        module.warn(complaint)
    module.exit_json(changed=False, ansible_facts={"dify": facts})


if __name__ == "__main__":
    main()
