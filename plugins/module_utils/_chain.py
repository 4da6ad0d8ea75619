# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of links and what every judge of a link needs: the evidence, the link, and small tools.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _diagnosis
from ansible_collections.difyops.gpu.plugins.module_utils._probe import ProbeReport

LINKS = ("pci", "bound", "driver", "nvml", "toolkit", "engine", "device", "cuda", "torch", "kernel", "speed")
# The kernel module by which CUDA reaches a GPU.
DRIVER = "nvidia"


@dataclass(frozen=True)
class Expected:
    """What the plan promised. ``gpu_count`` None: as many as the container was given."""

    mode: str = "gpu"
    variant: str | None = None
    cuda: str | None = None
    torch: str | None = None
    gpu_count: int | None = None


@dataclass(frozen=True)
class Evidence:
    """All that is known when the chain is judged."""

    facts: Mapping[str, Any]
    container_name: str
    container: Mapping[str, Any] | None = None  # the engine's inspect document
    engine_error: str | None = None  # sentence, when the engine could not be asked
    exec_error: str | None = None  # sentence, when the engine would not start the probe
    probe: ProbeReport | None = None  # None when there was no container to run it in
    settled: bool = False  # the service was up and healthy when the probe looked at its processes
    health_wanted: bool = True
    health_waited_s: float = 0.0


@dataclass(frozen=True)
class Given:
    """The GPUs of the host that a container was given. ``certain`` False: its configuration does not tell which."""

    gpus: Sequence[Mapping[str, Any]] = ()
    count: int = 1
    certain: bool = False


@dataclass
class Link:
    """One link of the chain."""

    link: str
    status: str
    expected: str
    seen: str
    code: str | None = None
    remedy: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Case:
    """The evidence with what several links need of it."""

    expected: Expected
    evidence: Evidence
    gpus: Sequence[Mapping[str, Any]] = ()
    given: Given = Given()
    links: dict[str, Link] = field(default_factory=dict)
    # Links that were not as they should be and that the computation has refuted: warnings.
    refuted: list[Link] = field(default_factory=list)

    @property
    def wanted(self) -> int:
        """How many GPUs CUDA in the container should see."""
        return self.given.count if self.expected.gpu_count is None else self.expected.gpu_count

    @property
    def probe(self) -> ProbeReport:
        return self.evidence.probe or ProbeReport()

    @property
    def bound(self) -> list[Mapping[str, Any]]:
        """The GPUs that NVIDIA's driver holds."""
        return [gpu for gpu in self.gpus if gpu.get("bound_driver") == DRIVER]

    def of_container(self, index: Any) -> Mapping[str, Any] | None:
        """The GPU that has this number in the container, as far as its configuration tells; None where there is none."""
        known = is_number(index) and 0 <= index < len(self.given.gpus)
        return self.given.gpus[index] if known else None

    def fact(self, *path: str) -> Any:
        return dig(self.evidence.facts, *path)

    def environment(self, name: str) -> str:
        """Return a variable of the container as words; an empty one is told apart, since it hides every GPU."""
        value = dig(self.probe.stage("python"), "environment", name)
        return "not set" if value is None else str(value) or "empty"


def dig(document: Any, *path: str) -> Any:
    """Return what is at a path of nested mappings, None where anything on the way is missing."""
    for key in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as an empty one."""
    return value if isinstance(value, list) else []


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of a list."""
    return [entry for entry in items(value) if isinstance(entry, Mapping)]


def is_number(value: Any) -> bool:
    """Whether a value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> int:
    """Return an integer as it is, and anything else as 0."""
    return value if isinstance(value, int) else 0


def version_tuple(text: Any) -> tuple[int, ...]:
    """Return the numbers of a dotted version; an empty tuple for what is none."""
    match = re.match(r"\d+(\.\d+)*", str(text or ""))
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def counted(names: Sequence[str]) -> str:
    """Return ["A", "A", "B"] as "2 x A, B"."""
    kinds = list(dict.fromkeys(names))
    return ", ".join(f"{names.count(kind)} x {kind}" if names.count(kind) > 1 else kind for kind in kinds)


def plural(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def ok(link: str, expected: str, seen: str) -> Link:
    return Link(link, "ok", expected, seen)


def failed(link: str, expected: str, seen: str, code: str, **values: Any) -> Link:
    return Link(link, "failed", expected, seen, code, _diagnosis.remedy(code, **values))


def untested(link: str, expected: str, seen: str, code: str, **values: Any) -> Link:
    return Link(link, "skipped", expected, seen, code, _diagnosis.remedy(code, **values))


def skipped(link: str, expected: str, why: str) -> Link:
    return Link(link, "skipped", expected, why)


def broken(case: Case, *names: str) -> str | None:
    """Return why a link cannot be judged: the name of an earlier one that is not ok."""
    for name in names:
        if case.links[name].status != "ok":
            return f"not tested, because {name} is not ok"
    return None


def unsaid(case: Case, link: str, expected: str) -> Link:
    """Return the link of a stage that the probe did not report: for a reason already found, or its report is cut."""
    for name in LINKS[: LINKS.index(link)]:
        if case.links[name].code:
            return skipped(link, expected, f"not tested, because {name} is not ok")
    return untested(link, expected, "the probe did not report this", "DG510")
