# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CDI specification of a simulated host, as `nvidia-ctk cdi generate` writes it for GPUs and MIG devices.

Run as the program `simgpu-cdi` it makes the specification anew: simgpu-cdi [PATH]
"""

from __future__ import annotations

import os
import sys

import simgpu_profile

PATH = "/var/run/cdi/nvidia.yaml"
CUDA_DEVICES = ["nvidia-uvm", "nvidia-uvm-tools"]


def device_nodes(gpus: list[dict[str, str]]) -> dict[str, list[str]]:
    """The nodes of every CDI device, by its name: index and UUID of GPUs, of MIG devices instead where MIG is on, and all."""
    nodes: dict[str, list[str]] = {}
    for index, gpu in enumerate(gpus):
        own = [f"/dev/nvidia{gpu['minor']}"]
        if gpu.get("mig") != "1":
            nodes[str(index)] = own
            nodes[gpu["uuid"]] = own
        for mig in simgpu_profile.mig_devices(gpu):
            guards = [
                simgpu_profile.capability(int(gpu["minor"]), mig.gpu_instance),
                simgpu_profile.capability(int(gpu["minor"]), mig.gpu_instance, mig.compute_instance),
            ]
            # By its slot, as NVML counts: it stays what it was where one before it goes.
            nodes[f"{index}:{mig.slot}"] = own + [f"/dev/nvidia-caps/nvidia-cap{guard}" for guard in guards]
            nodes[mig.uuid] = nodes[f"{index}:{mig.slot}"]
    if nodes:
        nodes["all"] = list(dict.fromkeys(node for one in nodes.values() for node in one))
    return nodes


def cdi_mount(path: str, target: str | None = None) -> list[str]:
    return [
        f"  - hostPath: {path}",
        f"    containerPath: {target or path}",
        "    options: [ro, nosuid, nodev, bind]",
    ]


def spec(gpus: list[dict[str, str]], version: str) -> str:
    """The specification, without hooks: the libraries are mounted at their sonames too."""
    nodes = device_nodes(gpus)
    lines = ["# SIMULATED GPU of tests/simhost", 'cdiVersion: "0.5.0"', "kind: nvidia.com/gpu", f"devices:{'' if nodes else ' []'}"]
    for name, paths in nodes.items():
        lines += [f'- name: "{name}"', "  containerEdits:", "    deviceNodes:", *(f"    - path: {path}" for path in paths)]
    lines += ["containerEdits:", "  env:", "  - NVIDIA_VISIBLE_DEVICES=void", "  deviceNodes:"]
    lines += [f"  - path: /dev/{name}" for name in ("nvidiactl", *CUDA_DEVICES)]
    lines += ["  mounts:"]
    for stem in ("libcuda", "libnvidia-ml"):
        path = f"{simgpu_profile.LIBRARY_DIR}/{stem}.so"
        lines += cdi_mount(f"{path}.{version}") + cdi_mount(f"{path}.{version}", f"{path}.1")
    for path in ("/usr/bin/nvidia-smi", "/etc/simgpu", "/run/simgpu/module"):
        lines += cdi_mount(path)
    return "\n".join(lines) + "\n"


def generate(profile: dict[str, str], path: str = PATH) -> None:
    """Writes the specification for what is installed now; without a driver there is none."""
    version = simgpu_profile.installed_version()
    if version is None:
        if os.path.exists(path):
            os.unlink(path)
        return
    mine = [gpu for gpu in simgpu_profile.gpus(profile) if simgpu_profile.driver_of(gpu, profile, version) == "nvidia"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # The engine watches the folder, so that it must never see half a file.
    with open(path + ".part", "w", encoding="ascii") as out:
        out.write(spec(mine, version))
    os.replace(path + ".part", path)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: simgpu-cdi [PATH]")
    generate(simgpu_profile.now(), *sys.argv[1:])
