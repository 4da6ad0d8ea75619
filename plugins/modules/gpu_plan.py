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
  scope:
    description:
      - With V(host), plan the host that the task runs for.
      - With V(driver), plan the driver of that host alone and in full, as the role C(nvidia_driver) brings it, with packages, repositories,
        pins, files, services, who uses the GPUs, and how the driver gets into the kernel. C(driver) counts as applied then.
      - With V(engine), plan the container engine of that host alone and in full, as the role C(container_engine) brings it, with packages,
        repository, C(daemon.json), and who is cut off when Docker is restarted.
      - With V(toolkit), plan the NVIDIA Container Toolkit of that host alone and in full, as the role C(nvidia_container_toolkit) brings
        it, with packages, repository, pins, NVIDIA's runtime and the CDI specification. It decides for the engine that runs now.
      - With V(fleet), decide which one variant all GPU hosts among O(hosts) can run, and who holds the fleet back from a better one. Run
        it once (C(run_once)), after the hosts were observed or with cached facts; the result is RV(fleet). The other options are taken
        from the host that the task runs for, and O(gpus_of) tells what the hosts have of their own.
      - With V(upgrade), decide in which waves the drivers of the hosts among O(hosts) are upgraded, and who is left alone and why, from
        what was found and decided for each host before. Run it once (C(run_once)); only O(hosts), O(upgrade) and O(labels) count.
    type: str
    choices: [host, driver, engine, toolkit, fleet, upgrade]
    default: host
  hosts:
    description:
      - The hosts that O(scope=fleet) and O(scope=upgrade) decide for.
      - All hosts of the play when not given.
    type: list
    elements: str
  missing:
    description:
      - What O(scope=fleet) does about hosts of which nothing is known, since they have no facts or no driver that works.
      - V(block) names them and decides nothing. V(allow) names them and decides without them.
    type: str
    choices: [block, allow]
    default: block
  gpus_of:
    description:
      - For O(scope=fleet), what O(gpus) is on each host, by its name. A host that is not in it has O(gpus) of this task.
      - A selection that a host cannot have makes it one that cannot be judged (O(missing)).
    type: dict
  fleet:
    description:
      - The decision of a task with O(scope=fleet) that this host follows. A host with a GPU gets its variant or is blocked; where there
        is no decision, every host with a GPU is blocked for the same reason. A host without a GPU is planned as ever.
      - O(variant) wins over it.
    type: dict
  upgrade:
    description:
      - For O(scope=upgrade), how the run is cut into waves. C(canary) is a number of hosts, a share of them (V(10%)) or a list of names.
        C(serial) is the size of a batch, a list of sizes of which the last repeats, or these by label, with V(default).
      - C(max_unavailable) says how many hosts of the run may be out of service at once, C(host_minutes) what one host takes (an
        estimate), C(on_failure) and C(without_rollback) what becomes of a host that fails. docs/upgrades.md has all of it.
    type: dict
    default: {}
  labels:
    description: For O(scope=upgrade), the label of each host, by its name. No batch has hosts of two labels.
    type: dict
    default: {}
  apply:
    description:
      - The parts that the caller brings to their plan.
      - Where one of the parts C(driver), C(engine) and C(toolkit) is not among them and is not as it must be, the plan is blocked, with
        what the operator has to do. Among them, it gets an action instead.
      - C(image) and C(dify) are left as they are when they are not among them.
    type: list
    elements: str
    choices: [driver, engine, toolkit, image, service]
    default: [driver, engine, toolkit, image, service]
  driver:
    description:
      - What is wanted of drivers. The variable of the role C(nvidia_driver) is C(nvidia_driver_) and the name of the setting.
      - Only counts where C(driver) is in O(apply). Where it is not, a driver that should be another is a warning.
    type: dict
    default: {}
    suboptions:
      state:
        description:
          - V(present) brings a driver. V(absent) takes it away with all that came with it; no service on the GPU can be brought then.
            V(unmanaged) leaves everything as it is, and with O(scope=driver) blocks nothing.
        type: str
        choices: [present, absent, unmanaged]
        default: present
      policy:
        description:
          - V(keep) touches no driver. V(install) leaves a driver that is there and installs one where there is none. V(upgrade) brings the
            driver to what O(driver.version) or O(driver.branch) says.
          - V(auto) is V(upgrade) where a version or a branch is named, else V(install).
        type: str
        choices: [auto, keep, install, upgrade]
        default: auto
      branch:
        description:
          - Driver branch such as V(580), of which any version will do.
          - V(auto) is the newest branch of O(driver.channel) that drives every GPU of the host. It is never a new-feature branch, and
            nothing goes back to an older branch by it.
        type: str
        default: auto
      version:
        description:
          - Exact driver version such as V(580.95.05), quoted.
          - When empty, O(driver.branch) counts.
        type: str
        default: ""
      channel:
        description:
          - Which branches V(auto) chooses from. V(long_term) is the newest one with long-term support, else the newest production branch.
            V(production) is the newest of both.
        type: str
        choices: [long_term, production]
        default: long_term
      flavour:
        description:
          - Kernel modules, V(open) or V(proprietary). V(auto) keeps those that are there where they drive the GPUs, else takes those that
            NVIDIA prefers.
        type: str
        choices: [auto, open, proprietary]
        default: auto
      source:
        description:
          - Where packages come from. V(distribution) is the operating system's own repository, V(nvidia) is that of NVIDIA.
          - V(auto) stays with the source of the installed driver while that has the branch; else the distribution, where it has it.
        type: str
        choices: [auto, distribution, nvidia]
        default: auto
      repository:
        description:
          - A mirror of the source's repository. What is empty is as the collection knows it.
        type: dict
        default: {}
        suboptions:
          url:
            description:
              - Address of the repository, without credentials.
            type: str
            default: ""
          suite:
            description:
              - Suite of an apt repository.
            type: str
            default: ""
          components:
            description:
              - Components of an apt repository, with spaces in between.
            type: str
            default: ""
          key:
            description:
              - URL of the key that signs it, or a file on the controller.
            type: str
            default: ""
          fingerprint:
            description:
              - Fingerprint of that key. Another key is refused.
            type: str
            default: ""
      packages:
        description:
          - Names of packages that are installed in place of those that the collection chooses.
        type: list
        elements: str
        default: []
      kernel_modules:
        description:
          - V(prebuilt) takes modules that were built for the kernel by the repository, V(dkms) builds them on the host. V(auto) prefers
            those that are built and signed.
        type: str
        choices: [auto, prebuilt, dkms]
        default: auto
      kernel_headers:
        description:
          - Whether the headers that DKMS needs come with the driver (V(present)) or are somebody else's business (V(unmanaged)).
        type: str
        choices: [present, unmanaged]
        default: present
      pin:
        description:
          - How the driver is kept through upgrades of packages, at its V(version), in its V(branch), or not at all.
        type: str
        choices: [version, branch, none]
        default: version
      foreign_pins:
        description:
          - What becomes of rules of somebody else that keep the driver away. V(refuse) blocks and names them. V(replace) takes holds,
            version locks and module streams away; files of others are never changed.
        type: str
        choices: [refuse, replace]
        default: refuse
      persistence:
        description:
          - Whether the persistence daemon is to run.
        type: bool
        default: true
      fabric_manager:
        description:
          - With V(auto), hosts with NVSwitches get the fabric manager of exactly the driver's version. With V(unmanaged) it is somebody
            else's business.
        type: str
        choices: [auto, unmanaged]
        default: auto
      busy:
        description:
          - What becomes of a change while a process or a container uses a GPU. V(refuse) blocks and lists them. V(wait) waits until they
            end. V(drain) stops the containers of O(driver.drain_containers) and starts them again afterwards. Nothing is ever killed.
        type: str
        choices: [refuse, wait, drain]
        default: refuse
      drain_containers:
        description:
          - Names of containers that may be stopped, also with C(*) and C(?).
        type: list
        elements: str
        default: []
      reload:
        description:
          - Whether the kernel modules may be reloaded, V(if_possible), to exchange the driver without a reboot.
        type: str
        choices: [never, if_possible]
        default: never
      reboot:
        description:
          - Whether the host may be rebooted, V(if_needed), to exchange the driver.
        type: str
        choices: [never, if_needed]
        default: never
  engine:
    description:
      - What is wanted of the container engine. The variable of the role C(container_engine) is C(container_engine_) and the name of the
        setting.
      - Only counts where C(engine) is in O(apply), but for O(engine.compose_min) and O(engine.cdi).
    type: dict
    default: {}
    suboptions:
      state:
        description:
          - V(present) brings a Docker that will do, and never replaces one that does. V(unmanaged) leaves everything as it is, and with
            O(scope=engine) blocks nothing.
        type: str
        choices: [present, unmanaged]
        default: present
      source:
        description:
          - Where Docker comes from, V(distribution) or V(docker), its own repository.
          - V(auto) is where the Docker that is there came from; where there is none, the distribution if it has Docker 25 and a compose
            plugin of O(engine.compose_min), else Docker's repository.
          - An engine that will do stays whatever its source. One that does not is taken from another source only where that is named here.
        type: str
        choices: [auto, distribution, docker]
        default: auto
      version:
        description: Version of Docker such as V(28.5.2), or what it begins with, such as V(28), quoted. Empty for whatever will do.
        type: str
        default: ""
      repository:
        description:
          - A mirror of the repository that Docker comes from.
          - C(url), C(suite), C(components), C(key) (a URL, or a file on the controller) and C(fingerprint). Each that is left out is as
            the collection knows it.
        type: dict
      packages:
        description: Packages in place of those that the collection would take.
        type: list
        elements: str
        default: []
      compose_min:
        description: Oldest version of the compose plugin that will do, quoted. When empty, V(2.24.0).
        type: str
        default: ""
      hold:
        description: Whether the packages are held (apt) or locked (dnf).
        type: bool
        default: false
      cdi:
        description:
          - V(auto) sets C(features.cdi) in C(daemon.json) where a GPU is wanted and Docker does not use CDI. It blocks where somebody
            switched it off there. V(true) sets it in any case, V(false) never.
        type: str
        choices: [auto, "true", "false"]
        default: auto
      live_restore:
        description: Whether containers outlive the daemon (C(live-restore)). When empty, it stays as it is.
        type: str
        choices: ["", "true", "false"]
        default: ""
      daemon_config:
        description:
          - Keys that are merged into C(daemon.json). All that is there besides stays to the letter.
          - Values that look like secrets are refused.
        type: dict
        default: {}
      invalid_daemon_config:
        description: What becomes of a C(daemon.json) that cannot be read. V(replace) keeps a copy of it.
        type: str
        choices: [refuse, replace]
        default: refuse
      restart:
        description:
          - Whether Docker may be restarted. V(if_idle), where no container would stop for it; V(if_needed), also where containers stop
            for a moment, which are started again; V(never), not at all where it runs.
          - A first start, and a reload, need no consent.
        type: str
        choices: [never, if_idle, if_needed]
        default: if_idle
  toolkit:
    description:
      - What is wanted of the NVIDIA Container Toolkit. The variable of the role C(nvidia_container_toolkit) is
        C(nvidia_container_toolkit_) and the name of the setting.
      - Only counts where C(toolkit) is in O(apply), but for O(toolkit.injection).
    type: dict
    default: {}
    suboptions:
      state:
        description:
          - V(present) brings the toolkit where there is a GPU. V(absent) takes it away with all that came with it; no service on the GPU
            can be brought then. V(unmanaged) leaves everything as it is, and with O(scope=toolkit) blocks nothing.
        type: str
        choices: [present, absent, unmanaged]
        default: present
      version:
        description:
          - Exact version of the four packages such as V(1.19.1), quoted.
          - When empty, one that is there and has no known container escape stays, and else the newest comes.
        type: str
        default: ""
      allow_unsafe:
        description: Whether O(toolkit.version) may be one with a known container escape, which is every one below 1.19.1.
        type: bool
        default: false
      allow_downgrade:
        description: Whether O(toolkit.version) may be older than what is installed.
        type: bool
        default: false
      repository:
        description:
          - A mirror of NVIDIA's repository.
          - C(url), C(suite), C(components), C(key) (a URL, or a file on the controller) and C(fingerprint). Each that is left out is as
            the collection knows it.
        type: dict
      pin:
        description: Whether the four packages are kept at their version, by preferences and holds (apt) or by locks (dnf).
        type: bool
        default: true
      foreign_pins:
        description: What becomes of holds and locks of others on these packages.
        type: str
        choices: [refuse, replace]
        default: refuse
      injection:
        description:
          - How containers get their GPUs. V(auto) is V(cdi) where Docker has it or can have it (25 or newer), else V(runtime), NVIDIA's
            runtime for Docker.
        type: str
        choices: [auto, cdi, runtime]
        default: auto
      cdi_refresh:
        description: Whether the units are switched on by which the toolkit keeps the CDI specification up to date (since 1.18).
        type: bool
        default: true
      stale_specs:
        description: What becomes of a CDI specification beside the one that counts. V(remove) keeps a copy of it.
        type: str
        choices: [keep, remove]
        default: keep
      legacy_containers:
        description:
          - Whether packages and units may change while containers run that got their GPU from NVIDIA's runtime, and lose it
            when systemd reads its units anew. V(refuse) blocks (DG817), V(warn) is the consent.
        type: str
        choices: [refuse, warn]
        default: refuse
  packages:
    description:
      - For O(scope=driver), O(scope=engine) and O(scope=toolkit), the answer of
        M(difyops.gpu.nvidia_packages_info). Before it was asked, the document says what to ask
        (C(query)) and is not exact.
    type: dict
  repository_key:
    description:
      - For O(scope=driver), O(scope=engine) and O(scope=toolkit), the content of the repository's key file in base64, once the role has
        fetched it. It is refused where its fingerprint is not the one that is expected.
    type: str
    default: ""
  gpus:
    description:
      - The GPUs that are used, each by its UUID, its index, its PCI address, or a MIG device by its UUID or as C(index:mig index). The
        others are left alone, be they broken or not.
      - When empty, all GPUs that are not passed through to virtual machines and not in MIG mode; on a host that has only GPUs in MIG mode
        the largest MIG device, since CUDA uses one per process.
    type: list
    elements: str
    default: []
  variant:
    description:
      - Name of the variant to use. It is used or the plan is blocked with the reason; the plan never takes another one instead.
      - When empty, the variant is chosen.
    type: str
    default: ""
  force:
    description:
      - Use O(variant) although the rules say that it cannot work.
      - Overrides the compatibility rules only; it does not help where the host has no GPU or no driver that works.
    type: bool
    default: false
  prefer:
    description:
      - Which of the fitting variants is chosen.
      - V(newest) takes the newest PyTorch, then the newest CUDA, among all that NVIDIA supports on the driver (in full or by
        minor-version compatibility).
      - V(full_support_first) takes full support before minor-version compatibility, then the newest CUDA, then the newest PyTorch.
    type: str
    choices: [newest, full_support_first]
    default: newest
  cpu_fallback:
    description:
      - When the CPU variant may be used without being named in O(variant).
      - V(never) blocks every host without a usable GPU.
      - V(when_no_gpu) uses it on hosts that have no NVIDIA GPU. A host with a GPU that cannot be used is blocked, and so is one that
        shows that it had a GPU (its driver is loaded, or its container was deployed for the GPU) and has none on PCI.
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
  min_cuda:
    description:
      - Oldest CUDA of the variants to choose from, such as V(12.1). A variant that is named in O(variant) is exempt.
    type: str
    default: ""
  max_cuda:
    description:
      - Newest CUDA of the variants to choose from, such as V(12.8). A variant that is named in O(variant) is exempt.
    type: str
    default: ""
  require_features:
    description:
      - Features that image and GPUs must have, such as V(fp8). docs/compatibility.md lists them; a feature that a catalog entry names
        itself can be required too.
    type: list
    elements: str
    default: []
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
  image_build_host:
    description:
      - Host that builds the images of all, by its name in the inventory, or V(localhost). The others get them from there.
      - When empty, each host builds its own.
    type: str
    default: ""
  image_push:
    description:
      - Whether the others get the image of O(image_build_host) by the registry in front of O(image_repository). Else it is copied.
    type: bool
    default: false
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
      - Seconds that the server may take to start. Within this time (the C(start_period) of its health check) a failed health check does
        not make the container unhealthy.
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
      - More environment variables of the service. Not for secrets, whose usual names (ending in KEY, TOKEN, SECRET, PASSWORD) are
        refused, as are URLs with credentials.
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

- name: Decide once which variant all GPU hosts can run
  difyops.gpu.gpu_plan:
    scope: fleet
    missing: allow
    gpus_of:
      gpu-07: ["0"]
  run_once: true

- name: Plan each host with that variant
  difyops.gpu.gpu_plan:
    fleet: "{{ ansible_facts['gpu_fleet'] }}"

- name: See what an upgrade of the driver would change
  difyops.gpu.gpu_plan:
    driver:
      branch: "580"
      reboot: if_needed
      busy: drain
      drain_containers: [dify-gpu-*]
    apply: [driver, toolkit]

- name: Plan the driver alone, in full
  difyops.gpu.gpu_plan:
    scope: driver
    driver:
      version: "580.95.05"

- name: Plan the engine alone, in full
  difyops.gpu.gpu_plan:
    scope: engine
    engine:
      source: docker
      restart: if_needed

- name: Plan the container toolkit alone, in full
  difyops.gpu.gpu_plan:
    scope: toolkit
    toolkit:
      version: "1.19.1"

- name: Use two of the GPUs, and leave the others to somebody else
  difyops.gpu.gpu_plan:
    gpus: ["0", "0000:41:00.0"]

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
    - Also set as C(ansible_facts['gpu_plan']). C(ansible_facts['gpu_verdict']) is set to an empty dictionary, since a verdict that is
      there proves an earlier plan.
  returned: when O(scope=host)
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
    gpus:
      description:
        - Every GPU with C(pci_address), C(name), whether it is C(usable) and C(used), the C(reason) when it is not, and the CDI C(device)
          by which the container gets it.
      type: list
      elements: dict
      returned: always
    blocked:
      description: Why nothing can be done, each with C(code), C(message) and C(remedy). Not empty exactly when the status is V(blocked).
      type: list
      elements: dict
      returned: always
    parts:
      description:
        - The parts C(driver), C(engine), C(toolkit), C(image) and C(dify), each with C(action), C(from), C(to) and C(reason).
        - The action is V(none), V(install), V(upgrade), V(remove), V(configure), V(create), V(update), V(build), V(pull) or V(blocked).
        - C(driver) has also C(flavour), that of the kernel modules (V(open) or V(proprietary)).
      type: dict
      returned: always
    image:
      description:
        - The chosen variant with its reference, level of support and reason, the CDI C(devices) that its container is given and how many
          GPUs CUDA sees with them (C(gpu_count)); V(null) when none fits.
        - C(expected) is true where it is chosen for a driver that is planned and not loaded yet.
      type: dict
      returned: always
    rejected:
      description: Every variant that was not chosen, each with C(variant), C(code) and C(reason).
      type: list
      elements: dict
      returned: always
    models:
      description: Folders on the host from which the service reads models, for the option O(difyops.gpu.dify_facts#module:models).
      type: list
      elements: str
      returned: always
    render:
      description: Under C(files) every file that the role writes, with C(content), C(sha256) and C(mode), by path on the host.
      type: dict
      returned: always
    reboot:
      description: Whether the host is to be rebooted (C(required)) and why (C(reasons)).
      type: dict
      returned: always
    restart:
      description: Whether the C(engine) and the running C(service) stop for a moment when the plan is carried out, and why (C(reasons)).
      type: dict
      returned: always
    advice:
      description: Under C(driver) the branch that would open a better variant, with all that it opens; V(null) when there is none.
      type: dict
      returned: always
    warnings:
      description: What stops nothing and is worth knowing, each with C(code) and C(message).
      type: list
      elements: dict
      returned: always
driver:
  description:
    - The driver's part of a host's plan in full. Every key is always there; docs/contracts.md describes each.
    - Also set as C(ansible_facts['gpu_driver']).
  returned: when O(scope=driver)
  type: dict
engine:
  description:
    - The engine's part of a host's plan in full. Every key is always there; docs/contracts.md describes each.
    - Also set as C(ansible_facts['gpu_engine']).
  returned: when O(scope=engine)
  type: dict
toolkit:
  description:
    - The toolkit's part of a host's plan in full. Every key is always there; docs/contracts.md describes each.
    - Also set as C(ansible_facts['gpu_toolkit']).
  returned: when O(scope=toolkit)
  type: dict
upgrade:
  description:
    - The waves of an upgrade, and what becomes of each host. Every key is always there; docs/contracts.md describes each.
    - Also set as C(ansible_facts['gpu_upgrade']).
  returned: when O(scope=upgrade)
  type: dict
fleet:
  description:
    - The decision for many hosts. Every key is always there; docs/contracts.md describes each.
    - Also set as C(ansible_facts['gpu_fleet']).
  returned: when O(scope=fleet)
  type: dict
  contains:
    schema:
      description: Version of the document's form.
      type: int
      returned: always
    status:
      description: V(ok) or V(blocked).
      type: str
      returned: always
    variant:
      description: The variant that every GPU host can run; V(null) when there is none, or no GPU host.
      type: str
      returned: always
    blocked:
      description: Why there is no decision, each with C(code), C(message) and C(remedy).
      type: list
      elements: dict
      returned: always
    hosts:
      description: How many hosts were judged.
      type: int
      returned: always
    missing:
      description: Hosts of which nothing is known.
      type: list
      elements: str
      returned: always
    gpu_hosts:
      description: Hosts that are to run the variant.
      type: list
      elements: str
      returned: always
    held_back_by:
      description: C(hosts) that cannot run a preferred C(variant), and the C(reason), the most preferred variant first.
      type: list
      elements: dict
      returned: always
    candidates:
      description: Every C(variant) in the order of preference, on how many C(hosts) it runs and how many it is C(refused_by).
      type: list
      elements: dict
      returned: always
    drift:
      description: C(what) is not the same on all GPU hosts, with the hosts of each of its C(values).
      type: list
      elements: dict
      returned: always
"""
