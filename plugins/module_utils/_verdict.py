# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the GPU chain of one host: facts, container and probe in, verdict out. Pure: asks nobody, changes nothing.

The verdict is the document described in docs/contracts.md. A link is ``ok``, ``failed`` or ``skipped``; one that is
skipped with a code could not be tested (which makes the host ``unproven``), one without a code did not need to be, or
hangs on an earlier link that failed.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import (
    _diagnosis,
    _extras,
    _links_container,
    _links_given,
    _links_host,
    _links_speed,
    _links_torch,
    _warnings,
)
from ansible_collections.difyops.gpu.plugins.module_utils._chain import (
    LINKS,
    Case,
    Evidence,
    Expected,
    Link,
    counted,
    dig,
    mappings,
)

# The overall verdict on a good chain, by what was planned.
GOOD = {"gpu": "proven", "cpu": "cpu", "degraded": "degraded"}
_GPU_JUDGES: dict[str, Callable[[Case], Link]] = {
    "pci": _links_host.pci,
    "bound": _links_host.bound,
    "driver": _links_host.driver,
    "nvml": _links_host.nvml,
    "toolkit": _links_host.toolkit,
    "engine": _links_host.engine,
    "device": _links_container.device,
    "cuda": _links_container.cuda,
    "torch": _links_torch.torch,
    "kernel": _links_torch.kernel,
    "speed": _links_speed.speed,
}
_CPU_JUDGES: dict[str, Callable[[Case], Link]] = {
    **{name: _links_host.unneeded(name) for name in ("bound", "driver", "nvml", "toolkit", "device", "cuda", "speed")},
    "pci": _links_host.pci_cpu,
    "engine": _links_host.engine,
    "torch": _links_torch.torch,
    "kernel": _links_torch.kernel_cpu,
}


def judge(expected: Expected, evidence: Evidence, duration_ms: int = 0, checked_at: str | None = None) -> dict[str, Any]:
    """Return the verdict. ``checked_at`` is when the evidence was gathered, as ISO 8601."""
    case = Case(expected, evidence, gpus=mappings(dig(evidence.facts, "gpus")), given=_links_given.given(evidence))
    judges = _GPU_JUDGES if expected.mode == "gpu" else _CPU_JUDGES
    for name in LINKS:
        case.links[name] = judges[name](case)
    if case.links["toolkit"].status == "failed" and case.links["kernel"].status == "ok":
        # What computes was given its GPU, by whatever way: then the way is worth a warning, and the next container may lack it.
        case.refuted.append(case.links["toolkit"])
        case.links["toolkit"] = _links_host.works_all_the_same(case.links["toolkit"])
        # What was passed over for its sake has no excuse any more.
        for name in [name for name in LINKS if case.links[name].status == "skipped" and not case.links[name].code]:
            case.links[name] = judges[name](case)
    # An unhealthy service is most often the symptom of a broken link further down, so that link has the first word.
    inside = [case.links[name] for name in ("device", "cuda", "torch", "kernel")]
    if case.links["engine"].status == "ok" and not any(link.code for link in inside):
        case.links["engine"] = _links_host.health(case, case.links["engine"])
    return _document(case, duration_ms, checked_at)


def needs_health(verdict: Mapping[str, Any]) -> bool:
    """The chain is good as far as it was tested, and only the container's own health check has not spoken yet."""
    return bool(verdict["code"] == "DG207")


def _document(case: Case, duration_ms: int, checked_at: str | None) -> dict[str, Any]:
    extras = _extras.judge_extras(case)
    links = list(case.links.values())
    proof = [link for link in links if link.link != "speed"]
    failed = [link for link in proof if link.status == "failed"]
    untested = [link for link in proof if link.status == "skipped" and link.code]
    decisive = next(iter(failed or untested), None)
    overall = "failed" if failed else "unproven" if untested else GOOD[case.expected.mode]
    container = case.evidence.container or {}
    return {
        "schema": 1,
        "overall": overall,
        "summary": _summary(case, overall, decisive),
        "code": decisive.code if decisive else None,
        "remedy": decisive.remedy if decisive else None,
        "expected": {**vars(case.expected), "gpu_count": case.wanted if case.expected.mode == "gpu" else 0},
        "container": {
            "name": str(container.get("Name") or case.evidence.container_name).lstrip("/"),
            "id": container.get("Id"),
            "image": dig(container, "Config", "Image"),
            "image_id": container.get("Image"),
        },
        "links": [link.as_dict() for link in links],
        "extras": [extra._asdict() for extra in extras],
        "warnings": [warning._asdict() for warning in _warnings.collect(case, extras)],
        "checked_at": checked_at,
        "duration_ms": duration_ms,
    }


def _summary(case: Case, overall: str, decisive: Link | None) -> str:
    if decisive is not None:
        title = _diagnosis.DIAGNOSES[decisive.code].title if decisive.code else "link failed"
        return f"{title}: {decisive.seen}"
    if overall == "cpu":
        return "serves without a GPU, as planned; the matrix product on the CPU is right"
    if overall == "degraded":
        return "DEGRADED: has a GPU and serves on the CPU, by consent; the matrix product on the CPU is right"
    devices = mappings(dig(case.probe.stage("torch_cuda"), "devices"))
    names = counted([str(device.get("name") or "GPU") for device in devices])
    return f"matrix product on {names} agrees with the CPU"
