#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_plan
short_description: Decide what a GPU host needs, and say why
version_added: 0.1.0
author:
  - difyops.gpu authors (@difyops)
description:
  - Compares what was observed on a host with what is wanted, and returns the plan that the roles of this collection follow.
  - Chooses the image variant that the loaded driver and every GPU of the host can run, by NVIDIA's compatibility rules, and says for
    every other variant why it was not chosen.
  - A host that cannot be served is reported as V(blocked) in the plan, with a code and a remedy. That is not a failure of this action;
    options that cannot be used are.
  - Runs on the controller and needs no connection.
notes:
  - Needs the Python library C(packaging) on the controller, which comes with ansible-core.
  - Run M(difyops.gpu.nvidia_facts) before. Run M(difyops.gpu.dify_facts) before as well to know what is deployed already; without it the
    plan takes the service for not there.
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
  nvidia:
    description:
      - Facts of M(difyops.gpu.nvidia_facts).
      - Taken from C(ansible_facts['nvidia']) when not given.
    type: dict
  dify:
    description:
      - Facts of M(difyops.gpu.dify_facts).
      - Taken from C(ansible_facts['dify']) when not given.
      - Give an empty dictionary for a first plan whose image and files M(difyops.gpu.dify_facts) is to look at. Facts of an earlier run,
        which a fact cache keeps, do not count then. What is to be created, updated or built is known in the second plan only.
    type: dict
  variant:
    description:
      - Name of the variant to use. It is used or the plan is blocked with the reason; the plan never takes another one instead.
      - When empty, the variant is chosen.
    type: str
    default: ""
  force:
    description:
      - Use O(variant) although the rules say that it cannot work.
      - Overrides the compatibility rules only; it does not help where the host has no GPU or no loaded driver.
    type: bool
    default: false
  prefer:
    description:
      - Which of the fitting variants is chosen.
      - V(newest) takes the newest PyTorch, then the newest CUDA, among all that NVIDIA supports on the driver (in full or by minor-version
        compatibility).
      - V(full_support_first) takes full support before minor-version compatibility, then the newest CUDA, then the newest PyTorch.
    type: str
    choices: [newest, full_support_first]
    default: newest
  cpu_fallback:
    description:
      - When the CPU variant may be used without being named in O(variant).
      - V(never) blocks every host without a usable GPU.
      - V(when_no_gpu) uses it on hosts that have no NVIDIA GPU. A host with a GPU that cannot be used is blocked, and so is one that shows
        that it had a GPU (its driver is loaded, or its container was deployed for the GPU) and has none on PCI.
      - V(when_gpu_unusable) uses it there as well, and marks the host as degraded everywhere.
    type: str
    choices: [never, when_no_gpu, when_gpu_unusable]
    default: when_no_gpu
  forward_compatibility:
    description:
      - Allow CUDA forward compatibility.
      - Only counts for data center GPUs, for driver branches that NVIDIA lists, and for variants whose image carries the cuda-compat
        package, which they say with the feature C(cuda_compat). No default variant does.
    type: bool
    default: false
  catalog:
    description:
      - Image variants beside the default ones.
      - An entry with the name of a default variant replaces single keys of it; another name adds a variant.
      - Every key and all defaults are described in docs/plan.md.
    type: list
    elements: dict
    default: []
  catalog_defaults:
    description:
      - Whether the default variants are part of the catalog. With V(false) only O(catalog) counts.
    type: bool
    default: true
  image_repository:
    description:
      - Repository of the images, with the registry if it is not Docker Hub. Entries with their own C(image) do not use it.
    type: str
    default: difyops/dify-gpu
  image_version:
    description:
      - Version in the tag of the images, as in C(web-server-cuda12.6-v0.1.0).
    type: str
    default: 0.1.0
  image_context:
    description:
      - Directory on the controller with the Dockerfile that images are built from.
      - When empty, the recipe of the role P(difyops.gpu.dify_image#role).
    type: path
    default: ""
  image_base:
    description:
      - Base image of the recipe. It needs Python 3.11 or 3.12.
    type: str
    default: python:3.12-slim-bookworm
  home:
    description:
      - Directory on the host for the compose project and the API key.
    type: str
    default: /opt/dify-gpu
  project:
    description:
      - Name of the compose project.
    type: str
    default: dify-gpu
  service_name:
    description:
      - Name of the service in the compose project, and its host name on the project's network.
    type: str
    default: dify-gpu
  bind_address:
    description:
      - IP address of the host on which the service is published.
    type: str
    default: 127.0.0.1
  port:
    description:
      - TCP port of the host on which the service is published.
    type: int
    default: 8000
  health_timeout:
    description:
      - Seconds that the server may take to start. Within this time (the C(start_period) of its health check) a failed health check does not
        make the container unhealthy.
    type: int
    default: 300
  models_dir:
    description:
      - Directory on the host with models, mounted read-only at C(/models). Nothing is downloaded then.
      - When empty, models are downloaded into the project's volume.
    type: str
    default: ""
  embedding_model:
    description:
      - Embedding model of the service, set as E(EMBEDDING_MODEL).
    type: str
    default: BAAI/bge-small-en-v1.5
  rerank_model:
    description:
      - Reranking model of the service, set as E(RERANK_MODEL) when not empty.
    type: str
    default: ""
  environment:
    description:
      - More environment variables of the service. Not for secrets, whose usual names (ending in KEY, TOKEN, SECRET, PASSWORD) are refused,
        as are URLs with credentials.
      - E(PORT), E(HOST), E(EXPECT_GPU), E(API_KEY) and E(API_KEY_FILE) are the plan's and are refused.
    type: dict
    default: {}
seealso:
  - module: difyops.gpu.nvidia_facts
  - module: difyops.gpu.dify_facts
  - module: difyops.gpu.gpu_report
"""

EXAMPLES = r"""
- name: Observe the GPUs, the driver, the toolkit and the engine
  difyops.gpu.nvidia_facts:

- name: Decide
  difyops.gpu.gpu_plan:

- name: Stop where the host cannot be served
  ansible.builtin.fail:
    msg: "{{ ansible_facts['gpu_plan']['blocked'] | map(attribute='message') | join('; ') }}"
  when: ansible_facts['gpu_plan']['status'] == 'blocked'

- name: Decide for a site with a registry of its own
  difyops.gpu.gpu_plan:
    prefer: full_support_first
    cpu_fallback: never
    image_repository: registry.example.org/ai/dify-gpu
    catalog:
      - name: cuda12.6
        source: pull
      - name: site-cuda12.2
        image: registry.example.org/ai/dify:web-server-cuda12.2-v3
        cuda: "12.2"
        torch: "2.3.1"
        sm: ["8.0", "8.6", "9.0"]
        port: 8080
        health: /healthz
"""

RETURN = r"""
plan:
  description:
    - The plan. Every key is always there; docs/contracts.md describes each.
    - Also set as C(ansible_facts['gpu_plan']). C(ansible_facts['gpu_verdict']) is set to an empty dictionary, since a verdict that is there
      proves an earlier plan.
  returned: success
  type: dict
  contains:
    schema:
      description: Version of the document's form.
      type: int
      returned: always
    host:
      description: Inventory name of the host.
      type: str
      returned: always
    status:
      description: Whether nothing is to be done (V(ok)), something is (V(change)), or nothing can be (V(blocked)).
      type: str
      returned: always
      sample: change
    mode:
      description: V(gpu), V(cpu), or V(degraded) for the CPU by consent on a host with a GPU.
      type: str
      returned: always
      sample: gpu
    blocked:
      description: Why nothing can be done, each with C(code), C(message) and C(remedy). Not empty exactly when the status is V(blocked).
      type: list
      elements: dict
      returned: always
    parts:
      description:
        - The parts C(driver), C(engine), C(toolkit), C(image) and C(dify), each with C(action), C(from), C(to) and C(reason).
        - The action is V(none), V(create), V(update), V(build), V(pull) or V(blocked).
      type: dict
      returned: always
    image:
      description: The chosen variant with its reference, level of support and reason; V(null) when none fits.
      type: dict
      returned: always
    rejected:
      description: Every variant that was not chosen, each with C(variant), C(code) and C(reason).
      type: list
      elements: dict
      returned: always
    render:
      description: Under C(files) every file that the role writes, with C(content), C(sha256) and C(mode), by path on the host.
      type: dict
      returned: always
    reboot:
      description: Whether the host is to be rebooted (C(required)) and why (C(reasons)).
      type: dict
      returned: always
    warnings:
      description: What stops nothing and is worth knowing, each with C(code) and C(message).
      type: list
      elements: dict
      returned: always
"""
