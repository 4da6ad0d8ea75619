#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_verify
short_description: Prove that a container computes on the GPU
version_added: 0.1.0
author:
  - difyops.gpu authors (@difyops)
description:
  - Works through the chain from the PCI device to a matrix product computed on the GPU, link by link, and says for each
    link whether it is good, what was expected and what was seen.
  - The host's links are judged from the facts of M(difyops.gpu.nvidia_facts); the links inside the container by a probe
    that is fed to the container's own Python on standard input. The probe writes nothing and needs no root.
  - A link that is broken has a code such as V(DG404) and a remedy of one line; C(docs/diagnosis.md) explains each code.
  - The last link, C(speed), compares the GPU with the container's CPU and with the theoretical rate of its kind. It is judged
    where no process used the GPU when the facts were gathered, not even the service's own, and never decides the verdict.
  - The links are judged on the GPUs that the container was given. Another GPU of the host that is ill is a warning.
  - Where the image has ONNX Runtime or TensorRT, they are checked too, each in a process of its own after the proof.
  - Only a container in which a matrix product on every GPU agreed with the CPU is called V(proven).
extends_documentation_fragment:
  - difyops.gpu.attributes.observes
options:
  container:
    description: Name or id of the container to verify.
    type: str
    required: true
  mode:
    description:
      - What the plan promised for this host.
      - With V(cpu) and V(degraded) the probe proves that the service computes on the CPU, and that no CUDA is in use.
        V(degraded) is for a host that has a GPU and serves on the CPU by consent.
    type: str
    choices: [gpu, cpu, degraded]
    default: gpu
  variant:
    description: Name of the planned image variant, such as V(cuda12.6). Only repeated in the verdict.
    type: str
  cuda:
    description: CUDA version that PyTorch in the image must be built for, such as V("12.6"). Not compared when left out.
    type: str
  torch:
    description: PyTorch release that the image must have, such as V("2.14.1"). Not compared when left out.
    type: str
  gpu_count:
    description:
      - How many GPUs the container must see.
      - When left out, as many as the container was given by its own configuration, which C(CUDA_VISIBLE_DEVICES) may cut; with
        MIG, one.
    type: int
  facts:
    description:
      - The host's facts, as in C(ansible_facts['nvidia']).
      - When left out, the module observes the host itself, as M(difyops.gpu.nvidia_facts) does.
    type: dict
  python:
    description:
      - Interpreters to try inside the container, in this order. The first that has PyTorch is used, or else the first that
        works.
    type: list
    elements: str
    default: [python3, python, /opt/venv/bin/python]
  timeout_s:
    description: Seconds that the probe may take. One that hangs is ended, and the verdict says in which stage it hung.
    type: int
    default: 120
  health:
    description: Whether the container's health check, if it has one, must say that it is healthy.
    type: bool
    default: true
  health_timeout_s:
    description:
      - Seconds to wait for a health check that is still starting.
      - Only a chain that is good otherwise is waited for.
    type: int
    default: 120
  fail:
    description:
      - Whether the task fails when the verdict is not what O(mode) promises, that is V(proven), V(cpu) or V(degraded).
      - The verdict is returned in either case.
    type: bool
    default: false
seealso:
  - module: difyops.gpu.nvidia_facts
  - module: difyops.gpu.gpu_report
"""

EXAMPLES = r"""
- name: Prove that the service computes on the GPU
  difyops.gpu.gpu_verify:
    container: dify-gpu-dify-gpu-1
    facts: "{{ ansible_facts['nvidia'] }}"
    mode: "{{ ansible_facts['gpu_plan']['mode'] }}"
    variant: "{{ ansible_facts['gpu_plan']['image']['variant'] }}"
    cuda: "{{ ansible_facts['gpu_plan']['image']['cuda'] }}"
    torch: "{{ ansible_facts['gpu_plan']['image']['torch'] }}"

- name: Fail unless any container with PyTorch really uses both GPUs
  difyops.gpu.gpu_verify:
    container: my-model-server
    gpu_count: 2
    fail: true
"""

RETURN = r"""
verdict:
  description:
    - How V(proven), V(cpu), V(degraded), V(unproven) or V(failed) the host is. The same as RV(ansible_facts.gpu_verdict.overall).
  returned: always
  type: str
  sample: proven
ansible_facts:
  description: The verdict, as a fact.
  returned: always
  type: dict
  contains:
    gpu_verdict:
      description: The verdict.
      returned: always
      type: dict
      contains:
        schema:
          description: Version of this document's form.
          returned: always
          type: int
          sample: 1
        overall:
          description:
            - V(proven) when every link from C(pci) through C(kernel) is good.
            - V(cpu) and V(degraded) when the service computes on the CPU, as planned or by consent.
            - V(unproven) when nothing is known to be broken and a link could not be tested.
            - V(failed) when a link is broken.
          returned: always
          type: str
          sample: failed
        summary:
          description: The verdict in one sentence.
          returned: always
          type: str
          sample: "The driver is too old for the image's CUDA: torch 2.14.1+cu126, CUDA 12.6, is_available() False, driver serves CUDA 11.4"
        code:
          description: Code of the first link that is broken, or that could not be tested. Null when there is none.
          returned: always
          type: str
          sample: DG404
        remedy:
          description: What to do about it, in one line. Null when there is nothing to do.
          returned: always
          type: str
          sample: deploy a variant up to CUDA 11.8, the highest that driver 470.256.02 serves, or upgrade the driver
        expected:
          description: What was promised, with C(mode), C(variant), C(cuda), C(torch) and C(gpu_count).
          returned: always
          type: dict
          sample: {mode: gpu, variant: cuda12.6, cuda: "12.6", torch: "2.14.1", gpu_count: 1}
        container:
          description: The container, with C(name), C(id), C(image) and C(image_id), which are null when there is none.
          returned: always
          type: dict
          sample: {name: dify-gpu-dify-gpu-1, id: c0ffee, image: "difyops/dify-gpu:web-server-cuda12.6-v0.1.0", image_id: "sha256:beef"}
        links:
          description:
            - The eleven links of the chain, always all of them and in this order, C(pci), C(bound), C(driver), C(nvml),
              C(toolkit), C(engine), C(device), C(cuda), C(torch), C(kernel) and C(speed).
          returned: always
          type: list
          elements: dict
          contains:
            link:
              description: Name of the link.
              returned: always
              type: str
              sample: torch
            status:
              description: How the link is, V(ok), V(failed) or V(skipped).
              returned: always
              type: str
              sample: failed
            expected:
              description: What a good link would be.
              returned: always
              type: str
              sample: torch 2.14.1 with CUDA 12.6 finds the GPU
            seen:
              description: What was found, or why the link was skipped.
              returned: always
              type: str
              sample: torch 2.14.1+cu126, CUDA 12.6, is_available() False, driver serves CUDA 11.4
            code:
              description: Code of what is wrong, null when nothing is.
              returned: always
              type: str
              sample: DG404
            remedy:
              description: What to do about it, null when there is nothing to do.
              returned: always
              type: str
              sample: deploy a variant up to CUDA 11.8, the highest that driver 470.256.02 serves, or upgrade the driver
        extras:
          description:
            - Other GPU runtimes that were found in the image, C(onnxruntime) and C(tensorrt). They never decide the verdict.
            - Empty without a GPU, and when the image has none of them.
          returned: always
          type: list
          elements: dict
          contains:
            name:
              description: Name of the runtime.
              returned: always
              type: str
              sample: onnxruntime
            version:
              description: Its version, null when it could not be told.
              returned: always
              type: str
              sample: 1.31.1
            status:
              description: How it is, V(ok), V(failed) or V(skipped).
              returned: always
              type: str
              sample: failed
            expected:
              description: What a good one would do.
              returned: always
              type: str
              sample: a model runs on CUDAExecutionProvider
            seen:
              description: What was found, or why it was skipped.
              returned: always
              type: str
              sample: "the session uses CPUExecutionProvider (libcublasLt.so.13: cannot open shared object file)"
            code:
              description: Code of what is wrong, null when nothing is.
              returned: always
              type: str
              sample: DG411
            remedy:
              description: What to do about it, null when there is nothing to do.
              returned: always
              type: str
              sample: bring the CUDA and cuDNN libraries that this release needs into the image
        warnings:
          description:
            - What is no broken link and should be known, each with C(code) and C(message), such as an unsafe toolkit, a slow
              GPU, or a runtime that fell back to the CPU. Empty without a GPU.
          returned: always
          type: list
          elements: dict
          sample: [{code: DG213, message: The container toolkit 1.17.4 has a known container escape.}]
        checked_at:
          description: When the verification began, in UTC.
          returned: always
          type: str
          sample: "2026-11-22T14:05:00Z"
        duration_ms:
          description: How long the verification took, in milliseconds.
          returned: always
          type: int
          sample: 2140
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _nvidia, _probe, _verify
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Expected

ARGUMENT_SPEC = {
    "container": {"type": "str", "required": True},
    "mode": {"type": "str", "choices": ["gpu", "cpu", "degraded"], "default": "gpu"},
    "variant": {"type": "str"},
    "cuda": {"type": "str"},
    "torch": {"type": "str"},
    "gpu_count": {"type": "int"},
    "facts": {"type": "dict"},
    "python": {"type": "list", "elements": "str", "default": list(_probe.DEFAULT_PYTHONS)},
    "timeout_s": {"type": "int", "default": 120},
    "health": {"type": "bool", "default": True},
    "health_timeout_s": {"type": "int", "default": 120},
    "fail": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    if (problem := _verify.complaint(params)) is not None:
        module.fail_json(msg=problem)
    facts = params["facts"]
    if facts is None:
        facts = _nvidia.gather(root="/", timeout_s=_verify.OBSERVE_TIMEOUT_S)
    expected = Expected(**{name: params[name] or None for name in ("variant", "cuda", "torch", "gpu_count")}, mode=params["mode"])
    request = _verify.Request(
        container=params["container"],
        expected=expected,
        pythons=params["python"],
        timeout_s=params["timeout_s"],
        health=params["health"],
        health_timeout_s=params["health_timeout_s"],
    )
    verdict = _verify.verify(request, facts)
    result = {"changed": False, "verdict": verdict["overall"], "ansible_facts": {"gpu_verdict": verdict}}
    if params["fail"] and not _verify.is_as_expected(verdict):
        module.fail_json(msg=_verify.sentence(verdict), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
