#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_packages_info
short_description: Tell which NVIDIA driver, container toolkit or Docker a host could get, and what that would change
version_added: 0.1.0
description:
  - Asks the package manager of the host, apt or dnf 4, what it would do to bring one driver, or to take it away, without doing it;
    with O(subject) the same of the container engine or of the container toolkit.
  - Of several sets of packages the first is chosen that can be installed with one version of the driver. What an installed
    driver has besides is brought to the same version, and what would be left of another driver is removed.
  - Reads the package lists as they are on the host and fetches nothing. Where a source was added, read its lists first.
  - With apt it simulates C(apt-get install --no-install-recommends), which needs no lock. Holds do not count, and no preferences
    for the driver's version but those of the question. With dnf it resolves in memory, without the plugin versionlock and
    without weak dependencies; excludes in its settings count.
  - With O(subject=engine) and O(subject=toolkit) every package of a set comes in the version that the first one is found in, where
    it has that, else in its newest. A version from before a release (such as C(1.20.0~rc.1)) is never taken. Where the set is Docker's
    own and what is installed is the distribution's, or the other way round, those packages are removed that would lie in the same place.
  - Is used by the roles nvidia_driver, container_engine and nvidia_container_toolkit, with questions that M(difyops.gpu.gpu_plan) has
    made.
author:
  - difyops.gpu authors (@difyops)
options:
  subject:
    description: What the question is about. With V(engine) and V(toolkit) O(branch), O(also), O(patterns) and O(stream) are not used.
    type: str
    choices: [driver, engine, toolkit]
    default: driver
  state:
    description:
      - Whether the driver or the toolkit is to be there, or is to go together with what it brought and nobody else needs.
      - V(absent) cannot be asked of the engine.
    type: str
    choices: [present, absent]
    default: present
  branch:
    description: Branch of the driver, three digits. Needed with O(subject=driver) and O(state=present) where O(version) is not given.
    type: str
  version:
    description:
      - Exact version of the driver, without the revision of a package.
      - Of engine and toolkit the version of the first package of a set, or what it begins with, such as V(28).
    type: str
  minimum:
    description: With O(subject=engine) and O(subject=toolkit) the version of the first package of a set below which nothing is taken.
    type: str
  lockstep:
    description: With O(subject=engine) and O(subject=toolkit) whether every package of a set has to be of the first one's version.
    type: bool
    default: false
  alternatives:
    description: Sets of packages that make the driver, the engine or the toolkit, the preferred one first.
    type: list
    elements: list
    default: []
  also:
    description:
      - Packages for other purposes, by purpose. Of each list the first that is to be had is taken, and a package that has the
        versions of drivers only in the version of the driver.
      - C({version}) and C({branch}) in a name stand for those of the driver that was found.
      - All join the transaction but V(pinning), which is installed before the driver, so that it is only looked for.
    type: dict
    default: {}
  patterns:
    description: Patterns of packages whose versions tell which drivers the sources have.
    type: list
    elements: str
    default: []
  stream:
    description: With dnf a module and its stream, enabled in memory only.
    type: str
  preferences:
    description:
      - With apt the text of a preferences file that counts in addition to those of the host. The file of the role nvidia_driver and,
        where O(also) has V(pinning), that of an installed pinning package of NVIDIA do not count. With another O(subject) the file of
        its own role does not count.
    type: str
  timeout:
    description: Seconds that each program of apt, or dnf as a whole, gets to answer.
    type: int
    default: 120
extends_documentation_fragment:
  - difyops.gpu.attributes.asks
notes:
  - Without root it answers as well, apart from RV(packages.locked_by), since the lock files of apt are closed to others, and
    RV(packages.brought).
  - Needs the Python API of dnf on hosts with dnf. Where the interpreter of Ansible does not have it, the module runs again with the
    system's.
  - The format is described in the collection's C(docs/contracts.md).
seealso:
  - module: difyops.gpu.nvidia_facts
  - module: difyops.gpu.gpu_plan
"""

EXAMPLES = r"""
- name: Ask which driver of branch 580 this host could get
  difyops.gpu.nvidia_packages_info:
    branch: "580"
    alternatives:
      - [nvidia-headless-no-dkms-580-server-open, nvidia-dkms-580-server-open, nvidia-utils-580-server]
    also:
      headers: [linux-headers-generic]
    patterns: [nvidia-headless-no-dkms-*]
  register: __could_get

- name: Tell what would be installed
  ansible.builtin.debug:
    msg: "{{ __could_get.packages.install }}"

- name: Ask what would go with the driver
  difyops.gpu.nvidia_packages_info:
    state: absent

- name: Ask for the container toolkit in one version
  difyops.gpu.nvidia_packages_info:
    subject: toolkit
    alternatives:
      - [nvidia-container-toolkit, nvidia-container-toolkit-base, libnvidia-container-tools, libnvidia-container1]
    minimum: 1.19.1
    lockstep: true

- name: Ask for a Docker of the distribution, else of Docker's repository
  difyops.gpu.nvidia_packages_info:
    subject: engine
    alternatives:
      - [docker.io, docker-cli, docker-compose, docker-buildx]
      - [docker-ce, docker-ce-cli, containerd.io, docker-buildx-plugin, docker-compose-plugin]
    minimum: "25.0"
"""

RETURN = r"""
packages:
  description: The answer. Every key is always there; what is not known is null or empty.
  returned: always
  type: dict
  contains:
    manager:
      description: V(apt), V(dnf), or null where neither is there.
      returned: always
      type: str
      sample: apt
    lists_at:
      description: When package lists were last read on the host, null where there are none.
      returned: always
      type: str
      sample: "2026-11-22T14:05:00Z"
    locked_by:
      description: The process that has the lock of the package manager, with C(pid) and C(name) (null where it is outside this container).
      returned: always
      type: dict
      sample: {pid: 4711, name: unattended-upgrade}
    broken:
      description:
        - Packages that are not fully installed, of any kind, with C(name), C(version) and C(state) in dpkg's words; V(duplicate) with rpm.
        - An entry C(dpkg) with the state V(interrupted) says that dpkg was killed in its work and has to tidy up.
      returned: always
      type: list
      elements: dict
      sample: [{name: nvidia-dkms-580, version: 580.95.05-0ubuntu1, state: half-configured}]
    sources:
      description:
        - The package sources that are enabled, with C(file), C(uris), C(suites), C(components) and C(signed_by); passwords masked.
        - With dnf C(suites) has the name of the repository.
      returned: always
      type: list
      elements: dict
      sample:
        - file: /etc/apt/sources.list.d/debian.sources
          uris: ["http://deb.example.org/debian"]
          suites: [bookworm]
          components: [main, non-free]
          signed_by: /usr/share/keyrings/debian-archive-keyring.gpg
    available:
      description:
        - Versions of drivers that the sources have, by branch, the newest first; not of packages that only lead to another branch.
        - Of engine and toolkit the versions of each package that was named, without epoch and revision, the newest first.
      returned: always
      type: dict
      sample: {"580": [580.105.08, 580.95.05]}
    choice:
      description: Index of the set in O(alternatives) that was chosen, null where none can be installed.
      returned: always
      type: int
      sample: 0
    version:
      description:
        - Version of the driver that the transaction leads to, whatever its packages are called; of engine and toolkit that of the first
          package of the set that was chosen.
        - Where nothing was chosen, that of the first set that leads to another branch than was asked for, else null.
      returned: always
      type: str
      sample: 580.105.08
    install:
      description: What the transaction installs or changes, dependencies too, with C(name), C(from) (null for a new package) and C(to).
      returned: always
      type: list
      elements: dict
      sample: [{name: nvidia-utils-580-server, from: null, to: 580.105.08-0ubuntu1}]
    remove:
      description: What the transaction removes, with C(name) and C(from).
      returned: always
      type: list
      elements: dict
      sample: [{name: nvidia-utils-535-server, from: 535.288.01-0ubuntu1}]
    also:
      description: The package that was taken for each purpose, null where none is to be had.
      returned: always
      type: dict
      sample: {headers: linux-headers-generic}
    download_mib:
      description: Size of the packages to be installed, null without a transaction.
      returned: always
      type: int
      sample: 312
    needed_mib:
      description: By how much the file system of C(/usr) fills up, below zero where it gets emptier; null without a transaction.
      returned: always
      type: int
      sample: 900
    free_mib:
      description: What is free for root on the file systems of C(/usr), C(/boot) and C(/var).
      returned: always
      type: dict
      sample: {/usr: 12000, /boot: 300, /var: 12000}
    brought:
      description: Packages that the role nvidia_driver, or that of the subject, noted as those it brought.
      returned: always
      type: list
      elements: str
      sample: [nvidia-utils-580-server]
    error:
      description: Why there is no transaction, null where there is one.
      returned: always
      type: str
      sample: nvidia-dkms-590 is in no package source of this host.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common import respawn
from ansible_collections.difyops.gpu.plugins.module_utils import _package_query, _package_source


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "subject": {"type": "str", "choices": ["driver", "engine", "toolkit"], "default": "driver"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "branch": {"type": "str"},
            "version": {"type": "str"},
            "minimum": {"type": "str"},
            "lockstep": {"type": "bool", "default": False},
            "alternatives": {"type": "list", "elements": "list", "default": []},
            "also": {"type": "dict", "default": {}},
            "patterns": {"type": "list", "elements": "str", "default": []},
            "stream": {"type": "str"},
            "preferences": {"type": "str"},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    timeout_s = options.pop("timeout")
    if timeout_s < 1:
        module.fail_json(msg=f"timeout has to be at least 1 second, not {timeout_s}.")
    query = _package_query.Query(**options)
    problem = _package_query.problem(query)
    if problem:
        module.fail_json(msg=problem)
    manager = _package_source.manager("/")
    if manager == "dnf" and not _package_source.has_dnf() and not respawn.has_respawned():
        interpreter = respawn.probe_interpreters_for_module(_package_source.INTERPRETERS, "dnf")
        if interpreter:
            respawn.respawn_module(interpreter)
    module.exit_json(changed=False, packages=_package_source.ask(query, manager, "/", timeout_s))


if __name__ == "__main__":
    main()
