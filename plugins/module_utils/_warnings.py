# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is no broken link and should be known beside a verdict.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _diagnosis
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Case, items, mappings, number, version_tuple
from ansible_collections.difyops.gpu.plugins.module_utils._extras import Extra
from ansible_collections.difyops.gpu.plugins.module_utils._links_host import FOREIGN_OPEN_DRIVERS, illness, specs
from ansible_collections.difyops.gpu.plugins.module_utils._links_torch import mixed_libraries

# The first version of the container toolkit without a known container escape.
# Source: NVIDIA's security bulletins, see plugins/plugin_utils/_toolkit.py, with which a test compares it.
FIRST_SAFE_TOOLKIT = "1.19.1"
# The warnings of the facts that bear on a GPU service that is to go on working: those of the driver, of the toolkit and of
# CDI. A GPU left to a virtual machine, or facts gathered without root, do not.
_OF_THE_FACTS = frozenset(
    ("DG113", "DG115", "DG117", "DG118", "DG119", "DG120", "DG121", "DG122", "DG212", "DG214", "DG215", "DG216", "DG218")
)


class Warn(NamedTuple):
    """One warning."""

    code: str
    message: str


def collect(case: Case, extras: Sequence[Extra]) -> list[Warn]:
    """Return the warnings, each once, without those whose code a link has already; sorted by code."""
    if case.expected.mode != "gpu":
        return []
    links = {link.code for link in case.links.values() if link.link != "speed"}
    found = [
        *_facts(case), *_others(case), *_toolkit(case), *_refuted(case),
        *_speed(case), *_libraries(case), *_service(case), *_extras(extras),
    ]  # fmt: skip
    return sorted(warning for warning in dict.fromkeys(found) if warning.code not in links)


def _facts(case: Case) -> Iterable[Warn]:
    for warning in mappings(case.fact("warnings")):
        if warning.get("code") in _OF_THE_FACTS:
            yield Warn(str(warning["code"]), str(warning.get("message") or _diagnosis.DIAGNOSES[warning["code"]].title))


def _others(case: Case) -> Iterable[Warn]:
    """GPUs that are ill or that CUDA cannot have, and that the container does without."""
    for gpu in case.gpus:
        address, code = gpu.get("pci_address"), _trouble(case, gpu)
        is_given = any(gpu is given for given in case.given.gpus)
        if code is None or (is_given and (case.given.certain or not illness(gpu))):
            continue
        told = _told(case, code, address)
        yield Warn(code, told or f"{_diagnosis.DIAGNOSES[code].title}: {address}, which this container does without.")


def _trouble(case: Case, gpu: Mapping[str, Any]) -> str | None:
    """Return the code of what is wrong with a GPU. One that was handed to a virtual machine is where it should be."""
    if gpu.get("bound_driver") in FOREIGN_OPEN_DRIVERS:
        return "DG103"
    # Without a class it is not on the kernel's bus at all, as under WSL, and needs no module there.
    if not gpu.get("bound_driver") and gpu.get("class") and case.fact("driver", "loaded"):
        return "DG105"
    return illness(gpu)


def _told(case: Case, code: str, words: Any) -> str | None:
    """Return what the facts themselves say under a code with these words in it."""
    messages = [str(warning.get("message")) for warning in mappings(case.fact("warnings")) if warning.get("code") == code]
    return next((message for message in messages if words and str(words) in message), None)


def _refuted(case: Case) -> Iterable[Warn]:
    """What the computation has refuted; the facts say it better when they say it."""
    told = {warning.get("code") for warning in mappings(case.fact("warnings"))}
    for link in case.refuted:
        if link.code and not (link.code in told and link.code in _OF_THE_FACTS):
            yield Warn(link.code, f"{_diagnosis.DIAGNOSES[link.code].title}: {link.seen}.")


def _toolkit(case: Case) -> Iterable[Warn]:
    version = case.fact("toolkit", "version")
    if version_tuple(version) and version_tuple(version) < version_tuple(FIRST_SAFE_TOOLKIT):
        yield Warn("DG213", f"The container toolkit {version} has a known container escape; {FIRST_SAFE_TOOLKIT} is the first without one.")
    told = {str(warning.get("message")) for warning in mappings(case.fact("warnings")) if warning.get("code") == "DG214"}
    for spec in specs(case):
        if spec.get("stale") and not any(str(spec.get("path")) in message for message in told):
            why = "; ".join(map(str, items(spec.get("reasons")))) or "it was made for another driver or other devices"
            yield Warn("DG214", f"{spec.get('path')} is out of date: {why.rstrip('.')}.")


def _speed(case: Case) -> Iterable[Warn]:
    link = case.links["speed"]
    if link.code:
        yield Warn(link.code, f"{_diagnosis.DIAGNOSES[link.code].title}: {link.seen}.")


def _libraries(case: Case) -> Iterable[Warn]:
    """CUDA libraries of another major version, or another cuDNN, that have done no harm to the computation so far."""
    if mixed := mixed_libraries(case):
        yield Warn("DG414", f"CUDA libraries of another version are loaded: {mixed}.")
    error = (case.probe.stage("libraries") or {}).get("cudnn_error")
    if error:
        yield Warn("DG414", f"PyTorch refuses the cuDNN that it finds: {error}")


def _service(case: Case) -> Iterable[Warn]:
    """Only a service that was healthy when the probe looked has opened what it needs; a hidden process may be the one."""
    processes = case.probe.stage("processes") or {}
    idle = number(processes.get("seen")) > 0 and not processes.get("hidden") and processes.get("using") == 0
    if idle and case.evidence.settled and case.links["kernel"].status == "ok":
        yield Warn("DG512", "The GPU works in the container, and none of the container's own processes has it open.")


def _extras(extras: Sequence[Extra]) -> Iterable[Warn]:
    for extra in extras:
        if extra.code:
            yield Warn(extra.code, f"{_diagnosis.DIAGNOSES[extra.code].title}: {extra.seen}.")
