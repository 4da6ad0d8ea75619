# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last link, speed: worth knowing, and never a reason to call a host anything else than proven.

The GPU is compared with the container's CPU, and with what a GPU of its class does in theory: two operations (multiply and
add) per float32 lane and clock, times the lanes of a multiprocessor, the multiprocessors and the clock. A large matrix
product reaches between a third and nine tenths of that on a sound GPU; below a tenth something holds it back.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils._chain import (
    Case,
    Link,
    broken,
    dig,
    failed,
    mappings,
    ok,
    skipped,
)
from ansible_collections.difyops.gpu.plugins.module_utils._links_given import by_uuid

# Float32 multiply-adds per clock and multiprocessor, by compute capability.
# Source: NVIDIA, CUDA C++ Programming Guide, arithmetic instructions, table of the throughput of native arithmetic
# instructions, row "32-bit floating-point add, multiply, multiply-add". A capability that is not here is not judged.
LANES = {
    **dict.fromkeys(("6.0", "7.0", "7.2", "7.5", "8.0"), 64),
    **dict.fromkeys(("5.0", "5.2", "5.3", "6.1", "6.2", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"), 128),
}
# The share of the theoretical rate below which an idle GPU is called slow.
LEAST_SHARE = 0.1


def speed(case: Case) -> Link:
    expected = f"faster than the container's CPU, at least {LEAST_SHARE:.0%} of the theoretical rate of this kind of GPU"
    if reason := broken(case, "engine", "kernel"):
        return skipped("speed", expected, reason)
    judged = [_speed_of(case, expected, result) for result in case.probe.kernels()]
    for rank in ("failed", "skipped"):
        for link in judged:
            if link.status == rank:
                return link
    return ok("speed", expected, "; ".join(link.seen for link in judged))


def _speed_of(case: Case, expected: str, result: Mapping[str, Any]) -> Link:
    gpu_ms, cpu_ms = _positive(result.get("gpu_ms")), _positive(result.get("cpu_ms"))
    if gpu_ms is None or cpu_ms is None:
        return skipped("speed", expected, "not timed")
    device = _device(case, result.get("index"))
    peak = peak_gflops(device)
    rate = _positive(dig(result, "rate", "gflops"))
    times = f"{_short(gpu_ms)} ms against {_short(cpu_ms)} ms on the CPU"
    seen = f"GPU {result.get('index')}: {times} ({_short(cpu_ms / gpu_ms)} times as fast)"
    if rate is not None:
        seen = f"{seen}, {_short(rate / 1000)} TFLOPS"
        seen = f"{seen}, {rate / peak:.0%} of the theoretical {_short(peak / 1000)}" if peak else seen
    slower = gpu_ms > cpu_ms
    if not slower and (rate is None or peak is None or rate >= LEAST_SHARE * peak):
        return ok("speed", expected, seen)
    if busy := _others_on(case, device, result.get("index")):
        return skipped("speed", expected, f"{seen}; not judged, because {busy}")
    return failed("speed", expected, seen, "DG601" if slower else "DG602")


def peak_gflops(device: Mapping[str, Any]) -> float | None:
    """Return the theoretical float32 rate of a device in units of 10^9 a second; None when it cannot be known."""
    lanes = LANES.get(str(device.get("compute_capability")))
    multiprocessors, clock_khz = _positive(device.get("multiprocessors")), _positive(device.get("clock_khz"))
    if lanes is None or multiprocessors is None or clock_khz is None:
        return None
    return 2 * lanes * multiprocessors * clock_khz / 1e6


def _positive(value: Any) -> float | None:
    """Return a number above zero, and None for everything else (infinities and numbers that are none too)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e300:
        return None
    return float(value)


def _short(value: float) -> str:
    """Return a number with three digits, or all of those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _device(case: Case, index: Any) -> Mapping[str, Any]:
    """What the driver API in the container says of a device."""
    devices = mappings(dig(case.probe.stage("devices"), "devices"))
    return next((device for device in devices if device.get("index") == index), {})


def _host_gpu(case: Case, device: Mapping[str, Any], index: Any) -> Mapping[str, Any] | None:
    """The host's GPU behind a device of the container: by its UUID, since a container's numbers are its own."""
    gpu = by_uuid(case.gpus, device.get("uuid"))
    if gpu is not None:
        return gpu
    if device.get("uuid") and any(one.get("uuid") for one in case.gpus):
        return None
    return case.of_container(index)


def _others_on(case: Case, device: Mapping[str, Any], index: Any) -> str | None:
    """Why a slow GPU may be slow for an honest reason: only an idle one can be judged, and the service itself may be at work."""
    gpu = _host_gpu(case, device, index)
    if gpu is None or not isinstance(gpu.get("processes"), list):
        return "the host does not say what else runs on it"
    count = len(gpu["processes"])
    return f"{count} process{'es' if count > 1 else ''} used the GPU" if count else None
