# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The links of PyTorch and of the computation, judged by what the probe reported: torch and kernel.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils._chain import (
    Case,
    Expected,
    Link,
    broken,
    dig,
    failed,
    items,
    mappings,
    number,
    ok,
    plural,
    skipped,
    unsaid,
    untested,
    version_tuple,
)
from ansible_collections.difyops.gpu.plugins.module_utils._links_container import outside

# First driver of each CUDA major version, and the last CUDA release of the majors that are complete. Within a major, every
# release runs on every driver from the first one on (minor-version compatibility).
# Source: NVIDIA, CUDA Toolkit release notes, tables 2 and 3 (CUDA 13.2 Update 2).
MAJOR_FLOORS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
LAST_RELEASES = {11: "11.8", 12: "12.9"}


def torch(case: Case) -> Link:
    expected = _torch_expected(case.expected)
    if (link := outside(case, "torch", expected)) is not None:
        return link
    found = _torch_import(case, expected)
    if found is not None:
        return found
    build, state = case.probe.stage("torch") or {}, case.probe.stage("torch_cuda")
    if case.expected.mode == "gpu" and not build.get("cuda"):
        maker = f"ROCm {build['hip']}" if build.get("hip") else "no CUDA"
        return failed("torch", expected, f"torch {build.get('version')}, built with {maker}", "DG403")
    if state is None:
        return unsaid(case, "torch", expected)
    if case.expected.mode != "gpu":
        return _torch_on_cpu(case, expected, build, state)
    if not state.get("available"):
        return _torch_unavailable(case, expected, build, state)
    return _torch_available(case, expected, build, state)


def _torch_expected(expected: Expected) -> str:
    build = f"torch {expected.torch}" if expected.torch else "torch"
    if expected.mode != "gpu":
        return f"{build} without CUDA"
    return f"{build} with CUDA {expected.cuda} finds the GPU" if expected.cuda else f"{build} finds the GPU"


def _torch_import(case: Case, expected: str) -> Link | None:
    build = case.probe.stage("torch")
    if build is None:
        return unsaid(case, "torch", expected)
    if not build.get("error"):
        return None
    if not case.probe.torch_found:
        return failed("torch", expected, "no package torch", "DG401")
    error = str(build["error"])
    if _LIBRARY_MISSING.search(error):
        return _mixed(case, "torch", expected, error, error)
    return failed("torch", expected, error, "DG402", error=error)


# How the loader names a CUDA library that is not there, is of another version or lacks a function.
_LIBRARY_MISSING = re.compile(
    r"lib(cudart|cublas|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|nvrtc|nvJitLink|nvToolsExt|nccl)\w*(-[0-9a-f]{8})?\.so[\w.]*: "
    r"|undefined symbol: _*(cu[A-Z]|cuda[A-Z]|cublas|cudnn|cufft|cusolver|cusparse|curand|nccl|nv[A-Z])"
)


def _mixed(case: Case, link: str, expected: str, seen: str, found: str) -> Link:
    return failed(link, expected, seen, "DG414", path=f"here: {case.environment('LD_LIBRARY_PATH')}", found=found)


def mixed_libraries(case: Case) -> str | None:
    """Return which CUDA libraries in PyTorch's process are not of its own CUDA; None when all are, or nobody looked."""
    build = case.probe.stage("torch") or {}
    major = version_tuple(build.get("cuda"))[:1]
    loaded = mappings((case.probe.stage("libraries") or build).get("libraries"))
    foreign = [str(library.get("path")) for library in loaded if isinstance(library.get("major"), int) and (library["major"],) != major]
    if not major or not foreign:
        return None
    return f"{', '.join(dict.fromkeys(foreign))} beside PyTorch for CUDA {build.get('cuda')}"


def _build_seen(build: Mapping[str, Any]) -> str:
    return f"torch {build.get('version')}, CUDA {build.get('cuda')}"


def _torch_on_cpu(case: Case, expected: str, build: Mapping[str, Any], state: Mapping[str, Any]) -> Link:
    if state.get("available"):
        return failed("torch", expected, f"{_build_seen(build)}, is_available() True", "DG408")
    if case.expected.torch and not same_release(build.get("version"), case.expected.torch):
        return failed(
            "torch", expected, f"torch {build.get('version')}", "DG407", planned=f"torch {case.expected.torch}"
        )
    if state.get("available") is not False:
        seen = state.get("error") or "the probe did not report whether CUDA is in use"
        return untested("torch", expected, str(seen), "DG510")
    return ok("torch", expected, f"torch {build.get('version')}, computes on the CPU")


def _torch_unavailable(case: Case, expected: str, build: Mapping[str, Any], state: Mapping[str, Any]) -> Link:
    served = (case.probe.stage("devices") or {}).get("cuda_version") or case.fact("driver", "cuda_version")
    seen = f"{_build_seen(build)}, is_available() False, driver serves CUDA {served}"
    words = [str(word) for word in [state.get("reason"), *items(state.get("warnings")), state.get("error")] if word]
    too_old = any("driver on your system is too old" in word for word in words)
    if version_tuple(build.get("cuda"))[:1] > (version_tuple(served)[:1] or (10**6,)) or too_old:
        return _driver_too_old(case, expected, seen, str(build.get("cuda")), served)
    if reason := broken(case, "cuda"):
        return skipped("torch", expected, f"{_build_seen(build)}; {reason}")
    if mixed := mixed_libraries(case):
        return _mixed(case, "torch", expected, f"{seen}; {mixed}", mixed)
    visible = case.environment("CUDA_VISIBLE_DEVICES")
    return failed("torch", expected, seen, "DG405", error=words[0] if words else "nothing", visible=visible)


def highest_cuda(served: Any) -> str:
    """Return the newest CUDA release that a driver serves which says ``served``, minor-version compatibility included."""
    numbers = version_tuple(served)
    if not numbers:
        return "unknown"
    if numbers[0] < min(MAJOR_FLOORS):
        return str(served)  # before CUDA 11 each release needed its own driver
    return LAST_RELEASES.get(numbers[0], f"{numbers[0]}.x")


def _driver_too_old(case: Case, expected: str, seen: str, cuda: str, served: Any) -> Link:
    major = (version_tuple(cuda) or (0,))[0]
    return failed(
        "torch",
        expected,
        seen,
        "DG404",
        highest=highest_cuda(served),
        driver=case.fact("driver", "loaded", "version") or "of this host",
        floor=MAJOR_FLOORS.get(major, f"the one of CUDA {cuda}"),
        cuda=cuda,
    )


def _torch_available(case: Case, expected: str, build: Mapping[str, Any], state: Mapping[str, Any]) -> Link:
    seen = f"{_build_seen(build)}, {plural(number(state.get('count')), 'GPU')}"
    if state.get("error"):
        visible = case.environment("CUDA_VISIBLE_DEVICES")
        return failed("torch", expected, f"{seen}: {state['error']}", "DG405", error=state["error"], visible=visible)
    archs = [str(arch) for arch in items(state.get("archs"))]
    served = (case.probe.stage("devices") or {}).get("cuda_version")
    for device in mappings(state.get("devices")):
        capability = str(dig(device, "compute_capability"))
        if not runs_on(archs, capability, build.get("cuda"), served):
            seen = f"{_build_seen(build)}, compiled for {' '.join(archs) or 'nothing'}; the GPU is {capability}"
            return failed("torch", expected, seen, "DG406", capability=capability, archs=" ".join(archs) or "none")
    if number(state.get("count")) < max(case.wanted, 1):
        return failed("torch", expected, seen, "DG409", visible=case.environment("CUDA_VISIBLE_DEVICES"))
    planned = case.expected
    if planned.cuda and version_tuple(build.get("cuda"))[:2] != version_tuple(planned.cuda)[:2]:
        return failed("torch", expected, seen, "DG407", planned=f"variant {planned.variant} with CUDA {planned.cuda}")
    if planned.torch and not same_release(build.get("version"), planned.torch):
        return failed("torch", expected, seen, "DG407", planned=f"torch {planned.torch}")
    return ok("torch", expected, seen)


def same_release(seen: Any, planned: Any) -> bool:
    """Whether a PyTorch is the planned one; a local part as in 2.14.1+cu126 does not count."""
    return str(seen).partition("+")[0] == str(planned).partition("+")[0]


def runs_on(archs: Sequence[str], capability: str, torch_cuda: Any, driver_cuda: Any) -> bool:
    """Whether code compiled for ``archs`` (PyTorch's arch list) runs on a GPU of this compute capability.

    Machine code (sm_) runs within its major version on the same or a higher minor; PTX (compute_) on the same or a
    higher capability, when the driver is not older than the toolkit that made it. With suffix a: that very capability
    only; with suffix f: its family, which is the major version.
    """
    gpu = version_tuple(capability)
    if len(gpu) < 2:
        return True  # nothing to compare with: the computation itself will tell
    jit = not version_tuple(driver_cuda) or version_tuple(driver_cuda)[:2] >= version_tuple(torch_cuda)[:2]
    return any(_arch_runs(arch, gpu[:2], jit) for arch in archs)


def _arch_runs(arch: str, gpu: tuple[int, ...], jit: bool) -> bool:
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    if match is None:
        return False
    target = (int(match.group(2)), int(match.group(3)))
    if match.group(4) == "a":
        fits = gpu == target
    elif match.group(1) == "sm" or match.group(4) == "f":
        fits = gpu[0] == target[0] and gpu >= target
    else:
        fits = gpu >= target
    return fits and (match.group(1) == "sm" or jit)


def kernel(case: Case) -> Link:
    expected = "matrix product agrees with the CPU"
    if (link := outside(case, "kernel", expected)) is not None:
        return link
    results = case.probe.kernels()
    if not results:
        return unsaid(case, "kernel", expected)
    links = [_kernel_of(case, expected, result) for result in results]
    for rank in ("failed", "skipped"):
        for link in links:
            if link.status == rank:
                return link
    if gap := _kernel_gap(case, results):
        return untested("kernel", expected, gap, "DG510")
    return ok("kernel", expected, "; ".join(link.seen for link in links))


def _kernel_gap(case: Case, results: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what is missing in results that are good as far as they go: one GPU proves nothing of another."""
    visible = number(dig(case.probe.stage("torch_cuda"), "count"))
    needed = max(case.wanted, visible, 1)
    indexes = (result.get("index") for result in results)
    computed = {index for index in indexes if isinstance(index, int) and 0 <= index < needed}
    if len(computed) < needed:
        return f"the probe reported a product on {len(computed)} of {plural(needed, 'GPU')}"
    return _cut_off(case)


def _cut_off(case: Case) -> str | None:
    return None if case.probe.done else f"the probe ended before its end, with status {case.probe.rc}"


def _kernel_of(case: Case, expected: str, result: Mapping[str, Any]) -> Link:
    index = result.get("index")
    if result.get("error"):
        return _kernel_error(case, expected, result)
    place = result.get("device")
    if place is not None and not str(place).startswith("cuda"):
        return failed("kernel", expected, f"GPU {index}: the product was computed on {place}", "DG511")
    seen = f"GPU {index}: relative error {_scientific(result.get('relative_error'))}"
    if result.get("right") is not True:
        return failed("kernel", expected, f"{seen}, allowed {_scientific(result.get('tolerance'))}", "DG502")
    return ok("kernel", expected, seen)


def _scientific(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, (int, float)) else str(value)


def _kernel_error(case: Case, expected: str, result: Mapping[str, Any]) -> Link:
    index, error, kind = result.get("index"), str(result["error"]), result.get("kind")
    seen = f"GPU {index}: {error}"
    device = _device_by_index(case, index)
    mode, capability = device.get("compute_mode"), device.get("compute_capability")
    if kind == "memory":
        free = result.get("memory_free_mib")
        return untested("kernel", expected, seen if free is None else f"{seen} ({free} MiB free)", "DG503")
    if mode == "prohibited":
        return failed("kernel", expected, seen, "DG505", index=index)
    if kind == "busy" and mode == "exclusive_process":
        return untested("kernel", expected, seen, "DG504")
    if kind == "no_code":
        archs = " ".join(map(str, items(dig(case.probe.stage("torch_cuda"), "archs"))))
        return failed("kernel", expected, seen, "DG406", capability=capability, archs=archs)
    if kind == "ptx":
        return failed("kernel", expected, seen, "DG509", capability=capability)
    if mixed := mixed_libraries(case):
        return _mixed(case, "kernel", expected, f"{seen}; {mixed}", mixed)
    return failed("kernel", expected, seen, "DG501", error=error)


def _device_by_index(case: Case, index: Any) -> Mapping[str, Any]:
    """What the driver API, or else the host, says about a GPU of the container."""
    for device in mappings(dig(case.probe.stage("devices"), "devices")):
        if device.get("index") == index and device.get("compute_mode"):
            return device
    return case.of_container(index) or {}


def kernel_cpu(case: Case) -> Link:
    expected = "matrix product on the CPU is right"
    if (link := outside(case, "kernel", expected)) is not None:
        return link
    result = case.probe.stage("cpu")
    if result is None:
        return unsaid(case, "kernel", expected)
    if result.get("error"):
        return failed("kernel", expected, str(result["error"]), "DG508", error=result["error"])
    seen = f"relative error {_scientific(result.get('relative_error'))} on {result.get('device') or 'the CPU'}"
    if result.get("right") is not True:
        return failed("kernel", expected, seen, "DG508", error=seen)
    if gap := _cut_off(case):
        return untested("kernel", expected, gap, "DG510")
    return ok("kernel", expected, seen)
