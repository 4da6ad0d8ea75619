#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: dify_plan
short_description: Decide what the upstream Dify of a host needs, and say why
version_added: 0.1.0
author:
  - difyops.gpu authors (@difyops)
description:
  - Compares what was observed of Dify on a host with what a release and the site's settings make of it, and returns the plan that
    the role P(difyops.gpu.dify#role) follows.
  - Reads services, images, ports and variables from the release's archive on the controller, so that it knows no release by heart.
  - Whatever is in the way is named in the plan, with codes and remedies, and is no failure of this action; options that cannot be
    used are.
  - Runs on the controller and needs no connection.
notes:
  - Needs the Python library C(packaging) on the controller, which comes with ansible-core.
  - Run it with O(scope=release) first, then M(difyops.gpu.dify_app_facts) with what it returned, then this again.
attributes:
  action:
    description: Indicates that the corresponding action plugin does all the work, on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
    details:
      - The action changes nothing, and returns the same in both modes.
  diff_mode:
    description: Returns details on what has changed, or possibly needs changing, in C(diff_mode).
    support: none
    details:
      - The action changes nothing. The whole text of every file that would be written is in the plan.
  idempotent:
    description: Running it again in the same situation does not change anything.
    support: full
options:
  scope:
    description:
      - With V(release), tell what M(difyops.gpu.dify_app_facts) is to look at, RV(look). Nothing has to be observed before.
      - With V(host), make the plan.
    type: str
    choices: [host, release]
    default: host
  dify_app:
    description:
      - Facts of M(difyops.gpu.dify_app_facts).
      - Taken from C(ansible_facts['dify_app']) when not given.
    type: dict
  nvidia:
    description:
      - Facts of M(difyops.gpu.nvidia_facts), for the version of Docker Compose.
      - Taken from C(ansible_facts['nvidia']) when not given.
    type: dict
  state:
    description:
      - V(deployed) brings the release. V(external) leaves a Dify alone that is there already and only registers models.
        V(absent) takes it away and keeps its data, unless O(remove_data).
    type: str
    choices: [deployed, external, absent]
    default: deployed
  version:
    description:
      - The release, quoted, such as V(1.17.1).
    type: str
    default: 1.17.1
  archive_file:
    description:
      - The release's archive, a file on the controller.
    type: str
    default: ""
  archive_checksum:
    description:
      - C(sha256:) and the digest that the archive must have. When empty, any will do.
    type: str
    default: ""
  home:
    description:
      - Directory of the deployment on the host.
    type: str
    default: /opt/dify
  project:
    description:
      - Name of the compose project.
    type: str
    default: dify
  url:
    description:
      - Address at which people open Dify, with scheme and without a path.
    type: str
    default: ""
  bind_address:
    description:
      - IP address of the host on which the site is published.
    type: str
    default: 0.0.0.0
  http_port:
    description:
      - Port of the site.
    type: int
    default: 80
  https_port:
    description:
      - Port of the site with TLS. Published only where O(tls_certificate) is set.
    type: int
    default: 443
  public_secrets:
    description:
      - Names of secrets that are given with a value that everybody knows, which blocks the plan. The secrets themselves are no option.
    type: list
    elements: str
    default: []
  tls_certificate:
    description:
      - File on the controller. The plan only needs to know that there is one.
    type: str
    default: ""
  tls_key:
    description:
      - File on the controller. The plan only needs to know that there is one.
    type: str
    default: ""
  behind_proxy:
    description:
      - Whether the operator's own proxy is before the site and does its TLS.
    type: bool
    default: false
  env:
    description:
      - Further variables for C(.env). Secrets do not belong here.
    type: dict
    default: {}
  registry:
    description:
      - Prefix for every image, for a site's own registry.
    type: str
    default: ""
  image_pins:
    description:
      - By reference of the release, a digest or another reference.
    type: dict
    default: {}
  resources:
    description:
      - By service, a dictionary with C(cpus), C(memory) or both.
    type: dict
    default: {}
  log_max_size:
    description:
      - Size at which a container's log is rotated.
    type: str
    default: 10m
  log_max_file:
    description:
      - How many logs of a container are kept.
    type: int
    default: 5
  backup_dir:
    description:
      - Directory of the backups on the host.
    type: str
    default: /var/backups/dify
  backup_keep:
    description:
      - How many backups are kept.
    type: int
    default: 3
  allow_downgrade:
    description:
      - Whether an older release than the one that runs may be brought. Its databases may not fit.
    type: bool
    default: false
  remove_data:
    description:
      - Whether O(state=absent) takes the data away too.
    type: bool
    default: false
  rollback:
    description:
      - Name of the backup with which O(version) comes back. When empty, nothing is rolled back.
    type: str
    default: ""
  model_endpoint_url:
    description:
      - Address of the model server as the plugin daemon reaches it. When empty, that of the server on the same host.
    type: str
    default: ""
  model_register:
    description:
      - Whether the model server's models are registered in Dify.
    type: bool
    default: true
  model_server:
    description:
      - What is known of the model server, with C(local), whether it is on this host; C(project) and C(service_name) of its
        compose project; C(embedding_model); C(rerank_model); C(key_known), whether its API key is known.
    type: dict
    default: {}
seealso:
  - module: difyops.gpu.dify_app_facts
  - module: difyops.gpu.gpu_plan
"""

EXAMPLES = r"""
- name: Decide what Dify needs
  difyops.gpu.dify_plan:
    version: 1.17.1
    archive_file: /srv/releases/dify-1.17.1.tar.gz
    url: https://dify.example.org
    behind_proxy: true

- name: Say what would be done
  ansible.builtin.debug:
    msg: "{{ ansible_facts['dify_plan'].action }}: {{ ansible_facts['dify_plan'].reason }}"
"""

RETURN = r"""
plan:
  description: The plan, as described in the collection's C(docs/contracts.md).
  returned: with O(scope=host)
  type: dict
  sample:
    schema: 1
    status: change
    action: upgrade
    from: 1.16.1
    to: 1.17.1
look:
  description: Options of M(difyops.gpu.dify_app_facts).
  returned: with O(scope=release)
  type: dict
blocked:
  description: What is wrong with the release, with C(code), C(message) and C(remedy).
  returned: with O(scope=release)
  type: list
  elements: dict
ansible_facts:
  description: Facts to add to C(ansible_facts).
  returned: with O(scope=host)
  type: dict
  contains:
    dify_plan:
      description: The same as RV(plan).
      returned: with O(scope=host)
      type: dict
    dify_verdict:
      description: Empty, since a verdict proves an earlier plan.
      returned: with O(scope=host)
      type: dict
"""
