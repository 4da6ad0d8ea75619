# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The links inside the container below PyTorch, judged by what the probe reported: device and cuda.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils._chain import (
    Case,
    Link,
    broken,
    dig,
    failed,
    mappings,
    number,
    ok,
    plural,
    skipped,
    unsaid,
    untested,
)
from ansible_collections.difyops.gpu.plugins.module_utils._probe import could_not_start

# A hang here is the GPU's or the driver's fault. A slow start of Python or a slow import only leaves things untested.
_GPU_STAGES = ("nodes", "libcuda", "cuinit", "devices", "torch_cuda")
_STAGE_LINKS = {
    "nodes": "device",
    "libcuda": "cuda",
    "cuinit": "cuda",
    "devices": "cuda",
    "torch": "torch",
    "torch_cuda": "torch",
    "cpu": "kernel",
}
_NO_DEVICE, _SYSTEM_NOT_READY = 100, 802
_CUINIT_CODES = {34: "DG316", _NO_DEVICE: "DG311", _SYSTEM_NOT_READY: "DG315", 803: "DG312", 804: "DG313", 999: "DG314"}


def outside(case: Case, link: str, expected: str) -> Link | None:
    """Return the link when the probe never got as far as it, for a reason that lies outside of the probe's stages."""
    if reason := broken(case, "engine"):
        return skipped(link, expected, reason)
    probe = case.probe
    if not probe.answered:
        if (link != "device" and case.expected.mode == "gpu") or link == "kernel":
            return skipped(link, expected, "not tested, because the probe did not run")
        if could_not_start(probe):
            return untested(link, expected, "no Python interpreter found", "DG208")
        if probe.timed_out:
            return untested(link, expected, "the probe did not begin in time", "DG506", hint=_TIMEOUT_HINTS["start"])
        seen = f"the probe ended with status {probe.rc}: {probe.last_words or 'no output'}"
        name = case.evidence.container_name
        return untested(link, expected, seen, "DG209", container=name, error=probe.last_words or "none")
    return _interrupted(case, link, expected)


_TIMEOUT_HINTS = {
    "start": "see whether the host is overloaded, and raise timeout_s",
    "torch": "importing PyTorch is slow here: raise timeout_s, or see whether disk or processor are overloaded",
    "gpu": "the driver hangs: read journalctl -k -g 'NVRM|Xid' on the host, stop what uses the GPU, and reboot if it stays",
}


def _interrupted(case: Case, link: str, expected: str) -> Link | None:
    """Return the link when the probe stopped in one of its stages."""
    probe = case.probe
    stage = probe.running
    if probe.done or stage is None:
        return None
    at_link = "kernel" if stage.startswith("kernel") else _STAGE_LINKS.get(stage, "device")
    if case.expected.mode != "gpu" and at_link in ("device", "cuda"):
        at_link = "torch"
    if at_link != link:
        return None
    on_gpu = stage in _GPU_STAGES or stage.startswith("kernel")
    if probe.timed_out:
        hint = _TIMEOUT_HINTS["gpu" if on_gpu else "torch" if stage == "torch" else "start"]
        make = failed if on_gpu else untested
        return make(link, expected, f"timed out in stage {stage}", "DG506", hint=hint)
    seen = f"the probe ended in stage {stage} with status {probe.rc}"
    return failed(link, expected, seen, "DG507", error=probe.last_words or "none")


def device(case: Case) -> Link:
    expected = "device files of the GPU can be opened"
    if (link := outside(case, "device", expected)) is not None:
        return link
    nodes = mappings(dig(case.probe.stage("nodes"), "nodes"))
    if not nodes:
        return unsaid(case, "device", expected)
    others = _nodes_of_others(case)
    closed = [node for node in nodes if node.get("present") and node.get("errno") and node.get("path") not in others]
    if closed and not _cuda_works(case):
        return _closed_node(expected, closed[0])
    missing = [str(node.get("path")) for node in nodes if not node.get("present")]
    gpus = [
        str(node.get("path"))
        for node in nodes
        if node.get("present") and re.search(r"nvidia\d+$", str(node.get("path")))
    ]
    if not gpus:
        missing.append("/dev/nvidia<number>")
    seen = f"{', '.join(gpus)}" if gpus else "no GPU device file"
    if missing and not _cuda_works(case):
        return failed("device", expected, f"missing: {', '.join(missing)}", "DG301")
    return ok("device", expected, seen)


def _nodes_of_others(case: Case) -> set[str]:
    """The device files of GPUs that the container was not given; a privileged one has them all the same."""
    if not case.given.certain:
        return set()
    others = [gpu for gpu in case.gpus if not any(gpu is given for given in case.given.gpus)]
    return {f"/dev/nvidia{gpu['index']}" for gpu in others if isinstance(gpu.get("index"), int)}


def _closed_node(expected: str, node: Mapping[str, Any]) -> Link:
    name, reason = str(node.get("path")), str(node.get("errno"))
    seen = f"{name}: {reason} ({node.get('error')})"
    if reason == "EPERM":
        return failed("device", expected, seen, "DG302")
    hints = {
        "EACCES": f"the container's user may not read and write {name}: correct the file's mode or the user's group",
        "ENXIO": "the device file has no driver behind it: load NVIDIA's driver on the host, then recreate the container",
        "ENODEV": "the device file has no driver behind it: load NVIDIA's driver on the host, then recreate the container",
        "EIO": "the driver has lost the GPU: read journalctl -k -g 'NVRM|Xid' on the host",
    }
    hint = hints.get(reason, f"see why {name} answers {reason} on the host as well")
    return failed("device", expected, seen, "DG303", hint=hint)


def _cuda_works(case: Case) -> bool:
    """CUDA reached as many GPUs as wanted, so whatever file is missing or closed is not needed."""
    devices = case.probe.stage("devices") or {}
    return number(devices.get("count")) >= max(case.wanted, 1)


def cuda(case: Case) -> Link:
    expected = f"cuInit works, {plural(case.wanted, 'GPU')}"
    if (link := outside(case, "cuda", expected)) is not None:
        return link
    library, init, devices = (case.probe.stage(stage) for stage in ("libcuda", "cuinit", "devices"))
    if library is None:
        return unsaid(case, "cuda", expected)
    if library.get("error"):
        code = "DG304" if library.get("missing") else "DG305"
        return failed("cuda", expected, str(library["error"]), code, error=library["error"])
    if init is None:
        return unsaid(case, "cuda", expected)
    if init.get("code") != 0:
        return _cuinit(case, expected, init, library.get("path"))
    if devices is None:
        return unsaid(case, "cuda", expected)
    count = number(devices.get("count"))
    seen = f"cuInit 0, CUDA {devices.get('cuda_version')}, {plural(count, 'GPU')}"
    if count == 0 and _mig_on(case):
        return _without_mig_device(case, expected, seen)
    if count < max(case.wanted, 1):
        visible = case.environment("CUDA_VISIBLE_DEVICES")
        return failed("cuda", expected, seen, "DG320", visible=visible)
    return ok("cuda", expected, seen)


def _cuinit(case: Case, expected: str, init: Mapping[str, Any], library: Any) -> Link:
    status = init.get("code")
    name = str(init.get("name") or init.get("error") or f"code {status}")
    seen = f"cuInit {status} ({name})" if status is not None else f"cuInit: {name}"
    visible = case.environment("CUDA_VISIBLE_DEVICES")
    if status == _NO_DEVICE and visible == "not set" and _mig_on(case):
        return _without_mig_device(case, expected, seen)
    if status == _NO_DEVICE and visible != "not set":
        seen = f"{seen}, CUDA_VISIBLE_DEVICES is {visible}"
    code = _CUINIT_CODES.get(number(status), "DG310")
    if code in ("DG312", "DG313") and library:
        seen = f"{seen}, library {library}"
    if status == _SYSTEM_NOT_READY:
        state, action = _fabric(case)
        return failed("cuda", expected, f"{seen}, {state}", code, action=action)
    return failed("cuda", expected, seen, code, name=name, visible=visible)


def _mig_on(case: Case) -> list[Mapping[str, Any]]:
    """The GPUs in MIG mode, which CUDA reaches through their MIG devices only."""
    return [gpu for gpu in case.bound if dig(gpu, "mig", "current") is True]


def _without_mig_device(case: Case, expected: str, seen: str) -> Link:
    gpus = _mig_on(case)
    # Null means that they could not be listed.
    bare = next((gpu for gpu in gpus if dig(gpu, "mig", "devices") == []), None)
    if bare is not None:
        seen = f"{seen}, MIG mode is on and {bare.get('pci_address')} has no MIG device"
        action = f"make MIG devices on {bare.get('pci_address')} (nvidia-smi mig -lgip lists the profiles), or switch MIG off"
    else:
        seen = f"{seen}, MIG mode is on"
        action = "give the container a MIG device (nvidia-ctk cdi list names them, such as nvidia.com/gpu=0:0)"
    return failed("cuda", expected, seen, "DG317", action=f"{action}; then generate the CDI specification again and recreate the container")


def _fabric(case: Case) -> tuple[str, str]:
    """What is wrong with the fabric manager of this host, and what to do about it."""
    manager = case.fact("driver", "fabric_manager")
    version = case.fact("driver", "loaded", "version") or "of the loaded driver"
    if dig(manager, "installed") is False:
        return "the fabric manager is not installed", f"install nvidia-fabricmanager in version {version} and start it"
    if dig(manager, "installed") and dig(manager, "matches_driver") is False:
        seen = f"fabric manager {dig(manager, 'version')} beside driver {version}"
        return seen, f"bring nvidia-fabricmanager to version {version}, exactly the driver's, and restart it"
    if dig(manager, "installed") and dig(manager, "running") is False:
        why = "read journalctl -u nvidia-fabricmanager if it ends again"
        return "the fabric manager is not running", f"run systemctl enable --now nvidia-fabricmanager; {why}"
    states = [str(state) for gpu in case.bound if (state := dig(gpu, "fabric", "state"))]
    if "in_progress" in states or "not_started" in states:
        return "the NVLink fabric is still being set up", "wait a minute and verify again; if it stays, restart nvidia-fabricmanager"
    action = f"see that nvidia-fabricmanager {version} is installed and running, and read the part Fabric of nvidia-smi -q"
    return "the facts do not say why", action
