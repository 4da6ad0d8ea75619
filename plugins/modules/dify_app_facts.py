#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: dify_app_facts
short_description: Observe an upstream Dify on a host
version_added: 0.1.0
description:
  - Tells which releases of Dify are unpacked and which one runs, how its files, images and containers are, which backups
    there are, whether a run was interrupted, and what the host has room for.
  - Its options are what M(difyops.gpu.dify_plan) with scope V(release) returns as C(look).
  - Of secrets no more than the names leaves the host.
  - A container engine that is missing or does not answer is a fact with a sentence in RV(ansible_facts.dify_app.error), not a
    failure.
author:
  - difyops.gpu authors (@difyops)
options:
  home:
    description: Directory of the deployment.
    type: path
    default: /opt/dify
  project:
    description: Name of the compose project whose containers are listed.
    type: str
    default: dify
  backup_dir:
    description: Directory of the backups.
    type: path
    default: /var/backups/dify
  version:
    description:
      - The release that is wanted. Where another one runs, the size of the data is measured, since a backup will be made.
      - When empty, nothing is measured.
    type: str
    default: ""
  files:
    description: Files and directories to look at.
    type: list
    elements: path
    default: []
  images:
    description: References of the images to look for on the host. Nothing is pulled.
    type: list
    elements: str
    default: []
  ports:
    description: TCP ports of which it is told who listens on them.
    type: list
    elements: int
    default: []
  env:
    description:
      - Options of M(difyops.gpu.dify_env), to tell what it would change, by name.
      - Secrets that are given do not belong here but in O(given).
    type: dict
  given:
    description: Secrets from Ansible Vault by name, as M(difyops.gpu.dify_env) takes them.
    type: dict
    default: {}
  databases:
    description:
      - Databases whose schema revision is read in their container, each with C(name), C(service) and C(user).
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds that the container engine and Docker Compose each get to answer a question.
    type: int
    default: 15
extends_documentation_fragment:
  - difyops.gpu.attributes.observes
notes:
  - Uses the Docker SDK for Python where the host's Python can import it, else the C(docker) command. Neither is required.
  - Listening sockets of others are told with their process only where this runs as root.
  - The format is described in the collection's C(docs/contracts.md).
seealso:
  - module: difyops.gpu.dify_plan
  - module: difyops.gpu.dify_facts
"""

EXAMPLES = r"""
- name: Ask what is to be looked at
  difyops.gpu.dify_plan:
    scope: release
    version: 1.17.1
    archive_file: /srv/releases/dify-1.17.1.tar.gz
    url: https://dify.example.org
    behind_proxy: true
  register: release

- name: Observe the deployment
  difyops.gpu.dify_app_facts:
    files: "{{ release.look.files }}"
    images: "{{ release.look.images }}"
    ports: "{{ release.look.ports }}"
    env: "{{ release.look.env }}"
    version: "{{ release.look.version }}"

- name: Say which release runs
  ansible.builtin.debug:
    msg: "{{ ansible_facts['dify_app'].current }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  returned: always
  type: dict
  contains:
    dify_app:
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
          sample: /opt/dify
        project:
          description: The project that was handed in.
          returned: always
          type: str
          sample: dify
        current:
          description: Version of the release that C(current) leads to. Null where it leads to none.
          returned: always
          type: str
          sample: 1.17.1
        current_error:
          description: Sentence, where C(current) is there and leads to no release of this deployment.
          returned: always
          type: str
        releases:
          description: Versions that are unpacked and whole, oldest first.
          returned: always
          type: list
          elements: str
          sample: [1.16.1, 1.17.1]
        files:
          description: One entry per path of O(files), as with M(difyops.gpu.dify_facts).
          returned: always
          type: dict
        env:
          description:
            - What M(difyops.gpu.dify_env) would do, with C(changes), C(generates), C(replaces), C(defaults) and C(error). Names only.
            - C(replaces) has the secrets that are given with another value than the file of the secrets has.
            - Null without O(env).
          returned: always
          type: dict
        secrets:
          description: The file of the secrets, with C(path), C(exists), C(mode), C(owner) and C(keys), names only.
          returned: always
          type: dict
        images:
          description: One entry per reference of O(images), as with M(difyops.gpu.dify_facts). Null for one that is not there.
          returned: always
          type: dict
        containers:
          description:
            - The containers of the project, those that do not run too, as with M(difyops.gpu.dify_facts); besides C(exit_code), null
              while one runs, and C(config_hash), Docker Compose's own label.
            - C(env_applied) tells whether a container has the variables that Docker Compose would give it now, null where that could
              not be asked.
          returned: always
          type: list
          elements: dict
        backups:
          description: The backups, newest first, with C(name), C(version), C(made_at), C(size_mib) and C(complete).
          returned: always
          type: list
          elements: dict
        journal:
          description: Of a run that was interrupted. Null where there is none; with C(error) where it cannot be read.
          returned: always
          type: dict
        disk:
          description: Free space by path, of the nearest folder that exists, with C(free_mib) and C(file_system), a number.
          returned: always
          type: dict
        docker_root:
          description: Docker's data folder as its containers tell it. Null where there is none to tell.
          returned: always
          type: str
          sample: /var/lib/docker
        memory:
          description: C(total_mib) and C(available_mib).
          returned: always
          type: dict
          sample: {total_mib: 15990, available_mib: 9120}
        ports:
          description: Who listens on O(ports), with C(address), C(port), C(pid), C(name) and C(container), the project's own.
          returned: always
          type: list
          elements: dict
        busy:
          description:
            - Whether a command of an interrupted run is still at work after two minutes. Looked for only where there is a journal.
          returned: always
          type: bool
        volumes_mib:
          description: Size of the data in MiB. Null where it was not measured.
          returned: always
          type: int
        database:
          description: Schema revision by database of O(databases). Null where it could not be asked.
          returned: always
          type: dict
        registration:
          description: Digest of what is registered of the model server, C(sha256). Null where nothing is.
          returned: always
          type: dict
        error:
          description: Why the container engine could not be asked, null when it could.
          returned: always
          type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _dify_app, _dify_env


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "backup_dir": {"type": "path", "default": "/var/backups/dify"},
            "version": {"type": "str", "default": ""},
            "files": {"type": "list", "elements": "path", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "env": {"type": "dict"},
            "given": {"type": "dict", "default": {}, "no_log": True},
            "databases": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["timeout"] < 1:
        module.fail_json(msg=f"timeout has to be at least 1 second, not {options['timeout']}.")
    env = options["env"]
    wanted = _dify_app.Wanted(
        home=options["home"],
        project=options["project"],
        backup_dir=options["backup_dir"],
        version=options["version"],
        files=options["files"],
        images=options["images"],
        ports=options["ports"],
        env=None if env is None else {**env, "given": options["given"]},
        databases=options["databases"],
        timeout_s=options["timeout"],
    )
    facts, complaints = _dify_app.gather(wanted, _dify_env.preview)
    for complaint in complaints:
        module.warn(complaint)
    module.exit_json(changed=False, ansible_facts={"dify_app": facts})


if __name__ == "__main__":
    main()
