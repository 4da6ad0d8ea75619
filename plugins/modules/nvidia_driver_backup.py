#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_backup
short_description: Put the packages of the installed NVIDIA driver aside on the host
version_added: 0.1.0
description:
  - Saves the very versions that are installed, so that a driver can come back without any package source when the one after it will not do.
  - A package is taken from the cache of the package manager, else from a source that still has that version, else, with dpkg, it is made
    anew from the files on the host by C(dpkg-repack). Configuration files are then packed as they are.
  - Every file is read back. One that is not of the name, version and architecture that are installed does not count.
  - What was saved before stays as it is while its digest is right. Nothing is installed, and no package list is read anew.
author:
  - difyops.gpu authors (@difyops)
options:
  state:
    description: Whether the packages are to be there. V(absent) takes the folder away.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: Folder that they are kept in, for root alone. It is made where it is not there.
    type: path
    default: /var/lib/difyops/upgrade/packages
  packages:
    description:
      - The packages, with C(name) and C(version) each, as RV(difyops.gpu.nvidia_facts#module:ansible_facts.nvidia.driver) has them.
      - Those that are not installed in that version, and were not saved before, are missing.
    type: list
    elements: dict
    default: []
  repack:
    description: Whether C(dpkg-repack) may make packages anew that no source has any more.
    type: bool
    default: true
  timeout:
    description: Seconds that each program gets.
    type: int
    default: 600
extends_documentation_fragment:
  - difyops.gpu.attributes.edits
seealso:
  - module: difyops.gpu.nvidia_facts
"""

EXAMPLES = r"""
- name: See whether the present driver could be saved
  difyops.gpu.nvidia_driver_backup:
    packages: "{{ ansible_facts['nvidia']['driver']['installed']['packages'] }}"
  check_mode: true
  register: __saving

- name: Take what was saved away
  difyops.gpu.nvidia_driver_backup:
    state: absent
"""

RETURN = r"""
complete:
  description: Whether every package is saved or, in check mode, could be.
  returned: with O(state=present)
  type: bool
  sample: true
packages:
  description:
    - Every package that was asked for, with C(name), C(version), C(how), C(file) and C(size) in bytes.
    - C(how) is V(saved) (before), V(cache), V(download), V(repack), or null for one that cannot be had.
  returned: with O(state=present)
  type: list
  elements: dict
  sample: [{name: libcuda1, version: 535.261.03-1, how: download, file: libcuda1_535.261.03-1_amd64.deb, size: 2048000}]
missing:
  description: Names of packages that cannot be had.
  returned: with O(state=present)
  type: list
  elements: str
  sample: []
bytes:
  description: What the packages take; in check mode at most.
  returned: with O(state=present)
  type: int
  sample: 312000000
bring:
  description: Packages that have to be installed for it before, such as V(dpkg-repack).
  returned: with O(state=present)
  type: list
  elements: str
  sample: []
msg:
  description: Why it is not complete, in one sentence; empty where it is.
  returned: with O(state=present)
  type: str
  sample: "nvidia-driver-535: neither a cache nor a package source has the installed version."
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _driver_backup, _package_source


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "path", "default": _driver_backup.PATH},
            "packages": {"type": "list", "elements": "dict", "default": []},
            "repack": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    options = module.params
    last: list[str] = []
    try:
        if options["state"] == "absent":
            module.exit_json(changed=_driver_backup.remove(options["path"], module.check_mode))
        run = _driver_backup.runner(options["timeout"], last)
        manager = _driver_backup.manager_of(_package_source.manager("/"), run)
        module.exit_json(**_driver_backup.save(manager, options["packages"], options["path"], options["repack"], module.check_mode, last))
    except _driver_backup.Problem as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
