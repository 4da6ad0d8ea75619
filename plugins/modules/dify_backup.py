#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_backup
short_description: Back up Dify's databases, folders and settings, and restore them
version_added: 0.1.0
description:
  - Makes, verifies and restores backups of an upstream Dify release that runs as a compose project on this host.
  - A backup is a folder C(<UTC time>-<version>) with mode 0700. Its C(manifest.json) with the size and SHA-256 of each file is written
    last; until then the folder ends in C(.partial). Nothing in it names a place of this host, so that it can be restored on another one.
  - A restore makes everything anew beside what is there, and exchanges it by rename when all of it is whole. What was there before is
    kept until then. One that was interrupted, at any point, is finished by the same call.
  - PostgreSQL's programs run in the database's container over its local socket, so that no password is on a command line.
author:
  - difyops.gpu authors (@difyops)
options:
  state:
    description:
      - V(present) makes a backup and takes away the oldest ones beyond O(keep).
      - V(verified) compares every file of O(name) with the manifest.
      - V(restored) verifies O(name) and restores it.
    type: str
    choices: [present, verified, restored]
    default: present
  name:
    description: The backup to verify or restore. Needed for these, not used with V(present).
    type: str
    default: ""
  dir:
    description: Folder of the backups.
    type: path
    default: /var/backups/dify
  home:
    description: Folder of the deployment.
    type: path
    default: /opt/dify
  project:
    description: Compose project.
    type: str
    default: dify
  version:
    description: Version of the release that is backed up. Needed with V(present).
    type: str
    default: ""
  databases:
    description: PostgreSQL databases. When a backup is restored, service and user of those named here are used instead of the backup's own.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      service:
        description: Compose service whose container has the server.
        type: str
        required: true
      user:
        description: Role that owns it, a superuser.
        type: str
        default: postgres
  paths:
    description: Folders to back up, relative to O(home). One that is not there is noted, and left alone by a restore.
    type: list
    elements: str
    default: []
  volumes:
    description: Named volumes to back up, by their full name.
    type: list
    elements: str
    default: []
  stopped:
    description:
      - Services that must not run. Whatever else has one of the folders or volumes mounted must not run either, except the database.
    type: list
    elements: str
    default: []
  secrets_file:
    description: File of the secrets; C(secrets/dify.env) below O(home) where it is not given.
    type: path
  journal:
    description: Journal of a deployment, whose C(backup) is never taken away; C(journal.json) below O(home) where it is not given.
    type: path
  keep:
    description: How many whole backups of this project are kept.
    type: int
    default: 3
  timeout:
    description: Seconds for each dump, archive and restore of one database or folder.
    type: int
    default: 7200
attributes:
  check_mode:
    support: full
    description: Tells what would be made or restored, and changes nothing.
  diff_mode:
    support: N/A
    description: There is no text to compare.
  platform:
    platforms: posix
    support: full
    description: Runs on Linux.
notes:
  - Needs the docker command and GNU tar on the host.
  - "Errors begin with C(DG916). Nothing of Dify is lost then: either nothing was changed, or the former state is still kept."
seealso:
  - module: difyops.gpu.dify_wait
"""

EXAMPLES = r"""
- name: Back up before an upgrade
  difyops.gpu.dify_backup:
    version: 1.16.1
    databases:
      - {name: dify, service: db_postgres}
      - {name: dify_plugin, service: db_postgres}
    paths: [volumes/app/storage, volumes/plugin_daemon, volumes/weaviate]
    stopped: [api, worker, worker_beat, plugin_daemon, weaviate]
  register: __backup

- name: Go back to it
  difyops.gpu.dify_backup:
    state: restored
    name: "{{ __backup.name }}"
"""

RETURN = r"""
name:
  description: Name of the backup; with check mode the name that one made now would have.
  returned: success
  type: str
  sample: 20261123T010203Z-1.16.1
path:
  description: Its folder.
  returned: success, not in check mode with O(state=present)
  type: str
version:
  description: Version of the release in it.
  returned: success, not in check mode with O(state=present)
  type: str
made_at:
  description: When it was made, in UTC.
  returned: success, not in check mode with O(state=present)
  type: str
size_mib:
  description: Size of its files in MiB.
  returned: success, not in check mode with O(state=present)
  type: int
databases:
  description: The databases in it.
  returned: success, not in check mode with O(state=present)
  type: list
  elements: str
paths:
  description: The folders in it.
  returned: success, not in check mode with O(state=present)
  type: list
  elements: str
volumes:
  description: The volumes in it.
  returned: success, not in check mode with O(state=present)
  type: list
  elements: str
removed:
  description: Backups that were taken away since there are newer ones.
  returned: with O(state=present)
  type: list
  elements: str
estimated_mib:
  description: How much would be backed up, before it is compressed.
  returned: in check mode with O(state=present)
  type: int
finished:
  description: Whether this run finished a restore that another one began.
  returned: with O(state=restored)
  type: bool
code:
  description: Code of the error.
  returned: failure
  type: str
  sample: DG916
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _backup_files, _command, _dify_backup, _docker

DATABASE = {
    "name": {"type": "str", "required": True},
    "service": {"type": "str", "required": True},
    "user": {"type": "str", "default": "postgres"},
}


def job(options: dict[str, Any]) -> _dify_backup.Job:
    """Return the options as the code behind this module takes them."""
    home = options["home"]
    return _dify_backup.Job(
        home=home,
        directory=options["dir"],
        secrets_file=options["secrets_file"] or f"{home}/secrets/dify.env",
        journal=options["journal"] or f"{home}/journal.json",
        timeout_s=float(options["timeout"]),
        **{key: options[key] for key in ("project", "version", "databases", "paths", "volumes", "stopped", "keep")},
    )


def run(options: dict[str, Any], check: bool) -> tuple[dict[str, Any], list[str]]:
    """Do what is asked; return the result and warnings. Raises Problem."""
    docker = _command.find("docker")
    if docker is None:
        raise _backup_files.Problem("The docker command is not on this host.")
    try:
        backup = _dify_backup.Backup(job(options), _docker.connect(30.0), docker)
    except _docker.DockerUnavailable as error:
        raise _backup_files.Problem(str(error)) from error
    if options["state"] == "present":
        return backup.make(check), backup.warnings
    if options["state"] == "verified":
        return backup.verify(options["name"]), backup.warnings
    return backup.restore(options["name"], check), backup.warnings


def main() -> None:
    strings = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "verified", "restored"], "default": "present"},
            "name": {"type": "str", "default": ""},
            "dir": {"type": "path", "default": "/var/backups/dify"},
            "home": {"type": "path", "default": "/opt/dify"},
            "project": {"type": "str", "default": "dify"},
            "version": {"type": "str", "default": ""},
            "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
            "paths": strings,
            "volumes": strings,
            "stopped": strings,
            # The path is no secret, what it leads to is.
            "secrets_file": {"type": "path", "no_log": False},
            "journal": {"type": "path"},
            "keep": {"type": "int", "default": 3},
            "timeout": {"type": "int", "default": 7200},
        },
        required_if=[("state", "present", ["version"]), ("state", "verified", ["name"]), ("state", "restored", ["name"])],
        supports_check_mode=True,
    )
    try:
        result, warnings = run(module.params, module.check_mode)
    except _backup_files.Problem as problem:
        module.fail_json(msg=f"{_backup_files.CODE}: {problem}", code=_backup_files.CODE)
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
