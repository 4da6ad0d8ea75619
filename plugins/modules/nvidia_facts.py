#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nvidia_facts
short_description: Observe the NVIDIA GPUs of a host and everything that containers need to use them
version_added: 0.1.0
description:
  - Tells which GPUs are on the PCI bus and who drives them, which driver is loaded and which is installed, what the driver
    says of each GPU, and how the container toolkit and the container engine are set up.
  - Works alike with no GPU, with no driver, with a broken one and with a good one. What cannot be known is null.
  - A driver that hangs does not hang the play. Whatever asks it runs in a child process with a time limit. A child that
    cannot even be killed is left behind, and no further one is started while it lives; a note of it is kept in
    C(/run/difyops-gpu).
  - The driver is asked through NVML where the host's Python can import C(pynvml) (package C(nvidia-ml-py)), else through
    C(nvidia-smi). Where neither answers, the facts come from the kernel alone.
  - Asking the driver may load its kernel module, as every use of the GPU does. It is not asked on hosts without an NVIDIA
    GPU and on those whose GPUs are all handed to virtual machines.
author:
  - difyops.gpu authors (@difyops)
options:
  timeout:
    description:
      - Seconds that each source gets to answer.
      - Without the persistence daemon the first question after a while wakes every GPU, which takes a few seconds each.
    type: int
    default: 30
extends_documentation_fragment:
  - difyops.gpu.attributes.observes
notes:
  - Takes no required option, so it can be added to normal fact gathering with
    C(ANSIBLE_FACTS_MODULES=smart,difyops.gpu.nvidia_facts).
  - When Ansible gathers facts with several modules at once, it ends each after the play's C(gather_timeout), 10 seconds by
    default. Set that higher than O(timeout), or a hanging driver fails the gathering instead of being a fact.
  - Without root it returns what an ordinary user may see, and says so in RV(ansible_facts.nvidia.warnings).
  - The format is described in the collection's C(docs/contracts.md), the codes of the warnings in C(docs/diagnosis.md).
seealso:
  - module: difyops.gpu.dify_facts
"""

EXAMPLES = r"""
- name: Observe the GPUs of the host
  difyops.gpu.nvidia_facts:

- name: Tell what is there
  ansible.builtin.debug:
    msg: "{{ ansible_facts['nvidia'].gpus | map(attribute='name') | list }}"

- name: Refuse to go on while the driver hangs
  ansible.builtin.assert:
    that: (ansible_facts['nvidia'].nvml.error or {}).name | default('') != 'TIMEOUT'
    fail_msg: "{{ ansible_facts['nvidia'].nvml.error.message }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  returned: always
  type: dict
  contains:
    nvidia:
      description: The GPUs of the host and their software. Every key is always there; what is not known is null.
      returned: always
      type: dict
      contains:
        schema:
          description: Version of this document's format.
          returned: always
          type: int
          sample: 1
        host:
          description: The host itself.
          returned: always
          type: dict
          contains:
            os:
              description: C(id), C(version), C(family) (V(debian), V(rhel) or null) and C(name), from C(/etc/os-release).
              returned: always
              type: dict
              sample: {id: debian, version: "13", family: debian, name: Debian GNU/Linux 13 (trixie)}
            architecture:
              description: Architecture of the processor.
              returned: always
              type: str
              sample: x86_64
            kernel:
              description: Release of the C(running) kernel; that of the C(next) one is not gathered yet.
              returned: always
              type: dict
              sample: {running: 6.12.9-amd64, next: null}
            secure_boot:
              description: Whether Secure Boot is on, null when the firmware cannot be asked.
              returned: always
              type: bool
            virtualization:
              description: What C(systemd-detect-virt) says, V(none) on bare metal.
              returned: always
              type: str
              sample: kvm
            nouveau_loaded:
              description: Whether the kernel module nouveau is loaded.
              returned: always
              type: bool
            nova_core_loaded:
              description: Whether the kernel module nova_core is loaded.
              returned: always
              type: bool
        gpus:
          description:
            - Every NVIDIA display or 3D controller on PCI, also without a driver, sorted by address.
            - Everything from C(index) on is null when no driver answered for it.
          returned: always
          type: list
          elements: dict
          contains:
            pci_address:
              description: Address on the PCI bus.
              returned: always
              type: str
              sample: "0000:00:05.0"
            vendor_id:
              description: PCI vendor.
              returned: always
              type: str
              sample: "0x10de"
            device_id:
              description: PCI device.
              returned: always
              type: str
              sample: "0x2236"
            subsystem_vendor_id:
              description: PCI vendor of the card.
              returned: always
              type: str
              sample: "0x10de"
            subsystem_device_id:
              description: PCI device of the card.
              returned: always
              type: str
              sample: "0x1482"
            class:
              description: PCI class, null for a GPU that only the driver knows, as in WSL.
              returned: always
              type: str
              sample: "0x030200"
            bound_driver:
              description: Kernel driver that has the device, such as V(nvidia), V(nouveau) or V(vfio-pci); null for none.
              returned: always
              type: str
              sample: nvidia
            index:
              description: Number of the GPU in the driver.
              returned: always
              type: int
              sample: 0
            name:
              description: Product name.
              returned: always
              type: str
              sample: NVIDIA A10
            uuid:
              description: Identity of the GPU.
              returned: always
              type: str
              sample: GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002
            architecture:
              description: Architecture, from V(kepler) to V(rubin).
              returned: always
              type: str
              sample: ampere
            compute_capability:
              description: Compute capability. The C(nvidia-smi) of branches before 510 does not tell it.
              returned: always
              type: str
              sample: "8.6"
            memory_total_mib:
              description: Memory in MiB.
              returned: always
              type: int
              sample: 23028
            memory_used_mib:
              description: Memory in use, in MiB.
              returned: always
              type: int
              sample: 0
            compute_mode:
              description: V(default), V(exclusive_process) or V(prohibited).
              returned: always
              type: str
              sample: default
            persistence_mode:
              description: Whether the driver keeps the GPU awake.
              returned: always
              type: bool
            ecc:
              description: Whether memory errors are corrected, C(current) and C(pending) after a reboot.
              returned: always
              type: dict
              sample: {current: true, pending: true}
            mig:
              description:
                - Whether the GPU is divided (MIG), C(current) and C(pending); null when it cannot be.
                - C(devices) are the parts, with C(index), C(name), C(uuid) and C(memory_total_mib); through NVML only.
              returned: always
              type: dict
              sample: {current: false, pending: false, devices: []}
            health:
              description: V(ok), V(lost), V(reset_required) or V(error).
              returned: always
              type: str
              sample: ok
            processes:
              description: What uses the GPU. Not gathered yet, so null.
              returned: always
              type: list
              elements: dict
        driver:
          description: NVIDIA's driver.
          returned: always
          type: dict
          contains:
            loaded:
              description: C(version) and C(flavour) (V(open) or V(proprietary)) of the loaded module, null when none is.
              returned: always
              type: dict
              sample: {version: 535.247.01, flavour: proprietary}
            installed:
              description:
                - C(version), C(flavour), C(origin), C(packages) and C(pinned) of the installed packages, null when no package
                  carries a driver.
                - C(pinned) is not gathered yet.
              returned: always
              type: dict
              sample:
                version: 535.247.01
                flavour: proprietary
                origin: debian
                packages: [{name: nvidia-kernel-dkms, version: 535.247.01-1}]
                pinned:
            cuda_version:
              description: CUDA version that the loaded driver supports, as the driver says.
              returned: always
              type: str
              sample: "12.2"
            branch:
              description: Branch of the loaded driver.
              returned: always
              type: str
              sample: "535"
            mismatch:
              description: Whether loaded module and installed library differ, so that nothing works until a reboot.
              returned: always
              type: bool
            next_kernel_has_module:
              description: Not gathered yet, so null.
              returned: always
              type: bool
            reboot_required:
              description: Not gathered yet, so null.
              returned: always
              type: bool
            reboot_reasons:
              description: Not gathered yet, so empty.
              returned: always
              type: list
              elements: str
            fabric_manager:
              description: Not gathered yet, so null.
              returned: always
              type: dict
            persistenced:
              description: Not gathered yet, so null.
              returned: always
              type: dict
        nvml:
          description: How the driver was asked.
          returned: always
          type: dict
          contains:
            source:
              description: Best source that answered, V(nvml), V(nvidia-smi) or V(sysfs) (the kernel alone).
              returned: always
              type: str
              sample: nvml
            error:
              description:
                - C(code), C(name) and C(message) of NVML's error when the driver could not be asked.
                - C(name) is V(TIMEOUT) and C(code) null when it hangs; V(CRASHED) when the library took its process down.
              returned: always
              type: dict
              sample: {code: 9, name: NVML_ERROR_DRIVER_NOT_LOADED, message: Driver Not Loaded}
            attempts:
              description: Sources that were tried, best first, each with C(source), C(ok) and C(message).
              returned: always
              type: list
              elements: dict
              sample: [{source: nvml, ok: true, message: null}]
        toolkit:
          description: NVIDIA's container toolkit.
          returned: always
          type: dict
          contains:
            packages:
              description: Version of each of its four packages, null for one that is not installed.
              returned: always
              type: dict
              sample:
                nvidia-container-toolkit: 1.19.1-1
                nvidia-container-toolkit-base: 1.19.1-1
                libnvidia-container-tools: 1.19.1-1
                libnvidia-container1: 1.19.1-1
            version:
              description: Version without the packaging's revision.
              returned: always
              type: str
              sample: 1.19.1
            lockstep:
              description: Whether all that are installed are of one version, null when none is.
              returned: always
              type: bool
            mode:
              description: Mode that the configuration of NVIDIA's runtime sets, null when it sets none.
              returned: always
              type: str
              sample: auto
            cdi:
              description:
                - C(directories) that were searched, and C(specs) found there.
                - Each has C(path), C(kind), C(devices) (names), C(driver_version) of the libraries that it names, C(stale) with
                  C(reasons), and C(error).
              returned: always
              type: dict
              sample:
                directories: [/etc/cdi, /var/run/cdi]
                specs:
                  - path: /etc/cdi/nvidia.yaml
                    kind: nvidia.com/gpu
                    devices: ["0", all]
                    driver_version: 535.247.01
                    stale: false
                    reasons: []
                    error:
        engine:
          description: The container engine.
          returned: always
          type: dict
          contains:
            name:
              description: V(docker), V(podman), or null for none.
              returned: always
              type: str
              sample: docker
            version:
              description: Version of the engine, null when it does not answer.
              returned: always
              type: str
              sample: 26.1.5
            running:
              description: Whether it answered.
              returned: always
              type: bool
            error:
              description: Why it does not answer.
              returned: always
              type: str
            compose_version:
              description: Version of the compose plugin of the docker command.
              returned: always
              type: str
              sample: 2.26.1
            buildx_version:
              description: Version of the buildx plugin of the docker command.
              returned: always
              type: str
              sample: 0.13.1
            runtimes:
              description: Names of the OCI runtimes.
              returned: always
              type: list
              elements: str
              sample: [io.containerd.runc.v2, runc]
            default_runtime:
              description: Runtime of containers that name none.
              returned: always
              type: str
              sample: runc
            cdi_enabled:
              description: Whether the engine gives out devices by CDI, null when it does not answer.
              returned: always
              type: bool
            cdi_spec_dirs:
              description: Directories in which the engine looks for CDI specifications.
              returned: always
              type: list
              elements: str
              sample: [/etc/cdi, /var/run/cdi]
            cgroup_driver:
              description: Who manages the control groups of containers.
              returned: always
              type: str
              sample: systemd
            cgroup_version:
              description: Version of the kernel's control groups.
              returned: always
              type: str
              sample: "2"
            gpu_containers:
              description: Containers that use GPUs. Not gathered yet, so null.
              returned: always
              type: list
              elements: dict
            daemon_config:
              description:
                - Docker's configuration file, with C(path), C(exists), C(content), C(sha256) and C(error).
                - Values of secret-looking keys, and users and passwords in URLs, are replaced by asterisks.
              returned: always
              type: dict
              sample:
                path: /etc/docker/daemon.json
                exists: true
                content: {features: {cdi: true}}
                sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
                error:
        warnings:
          description: What is wrong or worth knowing, each with C(code) and C(message).
          returned: always
          type: list
          elements: dict
          sample: [{code: DG106, message: "No driver is loaded for the GPU at 0000:00:05.0."}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _nvidia


def main() -> None:
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 30}}, supports_check_mode=True)
    if module.params["timeout"] < 1:
        module.fail_json(msg=f"timeout has to be at least 1 second, not {module.params['timeout']}.")
    facts = _nvidia.gather(root="/", timeout_s=module.params["timeout"])
    module.exit_json(changed=False, ansible_facts={"nvidia": facts})


if __name__ == "__main__":
    main()
