# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs of the host a container was given, by its own configuration: the links are judged on these and on no others.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils._chain import (
    DRIVER,
    Evidence,
    Given,
    dig,
    is_number,
    items,
    mapping,
    mappings,
    number,
)

Gpu = Mapping[str, Any]

# nvidia.com/gpu=0, also with a word in front: runtime.nvidia.com/gpu, management.nvidia.com/gpu.
_CDI_DEVICE = re.compile(r"((?:[\w-]+\.)*nvidia\.com/gpu)=(.+)")
_NODE = re.compile(r"/dev/nvidia([0-9]{1,4})$")
# 0, and 0:1 for a MIG device; gpu0 and mig0:1 where the specification names its devices by type and number.
_NUMBER = re.compile(r"(?:gpu|mig)?([0-9]{1,4})(?::[0-9]+)*")
_UUID = re.compile(r"(?:MIG-)?(?:GPU|MIG)-[0-9a-f]+.*", re.IGNORECASE)
# More than any host has: a request for thousands is a mistake, and is not to cost memory.
_MOST = 256
_NOTHING = ("none", "void")


def cdi_devices(container: Any) -> list[str]:
    """Return the CDI devices that the engine was asked for, only NVIDIA's GPUs, as in nvidia.com/gpu=0."""
    requests = (request for request in _requests(container) if request.get("Driver") == "cdi")
    names = [str(name) for request in requests for name in items(request.get("DeviceIDs"))]
    return [name for name in names if _CDI_DEVICE.fullmatch(name)]


def runtime(container: Any) -> str | None:
    """Return the name of NVIDIA's runtime where the container has it, of whatever flavour (nvidia, nvidia-cdi, nvidia-legacy)."""
    name = str(dig(container, "HostConfig", "Runtime") or "")
    return name if name.startswith("nvidia") else None


def is_requested(container: Any) -> bool:
    """Whether the GPU was asked for with --gpus, which needs no runtime: the engine brings it by CDI or by NVIDIA's hook."""
    return any(map(_is_for_gpus, _requests(container)))


def visible(container: Any) -> str | None:
    """Return what NVIDIA_VISIBLE_DEVICES of the container says, None where it is not set. Only NVIDIA's runtime heeds it."""
    return _environment(container, "NVIDIA_VISIBLE_DEVICES")


def has_nodes(container: Any) -> bool:
    """Whether device files of NVIDIA were passed by hand."""
    devices = mappings(dig(container, "HostConfig", "Devices"))
    return any("/dev/nvidia" in str(device.get("PathOnHost")) for device in devices)


def given(evidence: Evidence) -> Given:
    """Return the GPUs that the container was given, and how many CUDA should see of them; at least one.

    A host's GPUs are those that NVIDIA's driver holds, or all where it holds none. Without a container, and where nothing in
    its configuration tells which GPUs it has, these are all of them and are not certain.
    """
    container, everything = evidence.container, mappings(dig(evidence.facts, "gpus"))
    gpus = [gpu for gpu in everything if gpu.get("bound_driver") == DRIVER] or everything
    if container is None:
        return Given(gpus, 1 if _divided(gpus) else max(len(gpus), 1), certain=False)
    named = list(_named(container))
    known, missing = _resolve(named, gpus)
    count = len(known) + missing
    if not known:
        return Given(_seen(evidence, gpus) or gpus, max(count, 1), certain=False)
    left = _cuda_visible(evidence, known)
    if left is not None:
        known, count = left, len(left)
    return Given(known, 1 if _divided(known) or not count else count, certain=True)


def by_uuid(gpus: Sequence[Gpu], uuid: Any) -> Gpu | None:
    """Return the GPU with this UUID, its own or that of one of its MIG devices; None where there is none."""
    wanted = _digits(uuid)
    for gpu in gpus:
        names = [gpu.get("uuid"), *(mig.get("uuid") for mig in mappings(dig(gpu, "mig", "devices")))]
        if wanted and wanted in map(_digits, names):
            return gpu
    return None


def _digits(uuid: Any) -> str:
    """Return a UUID without the GPU- or MIG- in front, which differ by who is asked."""
    return str(uuid or "").partition("-")[2].lower()


def _requests(container: Any) -> list[Mapping[str, Any]]:
    return mappings(dig(container, "HostConfig", "DeviceRequests"))


def _is_for_gpus(request: Mapping[str, Any]) -> bool:
    driver = request.get("Driver")
    return driver == "nvidia" or (driver in ("", None) and any("gpu" in items(one) for one in items(request.get("Capabilities"))))


def _environment(container: Any, name: str) -> str | None:
    """Return a variable of the container's configuration; the last one counts, as it does for a process."""
    pairs = (str(entry).partition("=") for entry in items(dig(container, "Config", "Env")))
    return {key: value for key, sign, value in pairs if sign}.get(name)


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _named(container: Any) -> Iterator[str]:
    """Return the devices by the names that the container has for them: ``all``, numbers, UUIDs, names of CDI.

    What was asked for by name goes before a variable, which most images set to ``all`` for whoever heeds it, and before the
    rights of a privileged container. So the number is never more than what the container has for certain.
    """
    explicit = [*map(_short, cdi_devices(container)), *_annotated(container), *_by_request(container), *_by_node(container)]
    if explicit:
        yield from explicit
        return
    asked = [_short(name) for name in _split(visible(container))] if runtime(container) else []
    if asked and asked[0] not in _NOTHING:
        yield from asked
    elif dig(container, "HostConfig", "Privileged") is True:
        yield "all"


def _short(name: str) -> str:
    """Return the name of a CDI device without its kind."""
    match = _CDI_DEVICE.fullmatch(name)
    return match.group(2) if match else name


def _annotated(container: Any) -> Iterator[str]:
    """The CDI devices that an annotation asks NVIDIA's runtime (or another engine) for."""
    annotations = mapping(dig(container, "HostConfig", "Annotations"))
    names = [name for key, value in annotations.items() if str(key).startswith("cdi.k8s.io/") for name in _split(str(value))]
    yield from (_short(name) for name in names if _CDI_DEVICE.fullmatch(name))


def _by_request(container: Any) -> Iterator[str]:
    """What was asked for with --gpus; a number of GPUs means the first ones."""
    for request in filter(_is_for_gpus, _requests(container)):
        ids, count = items(request.get("DeviceIDs")), number(request.get("Count"))
        if ids:
            yield from (_short(str(name)) for name in ids)
        elif count < 0:
            yield "all"
        else:
            yield from map(str, range(min(count, _MOST)))


def _by_node(container: Any) -> Iterator[str]:
    for device in mappings(dig(container, "HostConfig", "Devices")):
        if _NODE.match(str(device.get("PathOnHost"))):
            yield str(device["PathOnHost"])


def _resolve(names: Sequence[str], gpus: Sequence[Gpu]) -> tuple[list[Gpu], int]:
    """Return the GPUs with these names, each once and in the host's order, and how many numbered ones are not there."""
    numbers = _numbered(gpus)
    found: set[int] = set()
    missing: set[str] = set()
    for name in names:
        if name == "all":
            return list(gpus), 0
        match = _NUMBER.fullmatch(name) or _NODE.match(name)
        place = numbers.get(int(match.group(1))) if match else _place(name, gpus, found)
        if place is not None:
            found.add(place)
        elif match and not name.startswith("/"):
            missing.add(match.group(1))  # a node's number need not be the GPU's
    return [gpu for position, gpu in enumerate(gpus) if position in found], len(missing)


def _numbered(gpus: Sequence[Gpu]) -> dict[int, int]:
    """Return the places of GPUs by the driver's numbers. One too ill to tell its number is counted in the order of addresses."""
    told = {gpu["index"]: place for place, gpu in enumerate(gpus) if is_number(gpu.get("index"))}
    for place, gpu in enumerate(gpus):
        if not is_number(gpu.get("index")):
            told.setdefault(place, place)
    return told


def _place(name: str, gpus: Sequence[Gpu], taken: set[int]) -> int | None:
    """Return the place of the GPU with a UUID, which may be shortened. One that nobody has is that of a GPU too ill to tell its own."""
    if not _UUID.fullmatch(name):
        return None
    wanted = name.lower()
    names = [[gpu.get("uuid"), *(mig.get("uuid") for mig in mappings(dig(gpu, "mig", "devices")))] for gpu in gpus]
    # MIG devices of drivers before 470: MIG-GPU-<the GPU's UUID>/<instance>/<instance>.
    parent = wanted[4:].partition("/")[0] if wanted.startswith("mig-gpu-") else wanted
    for sought in (wanted, parent):
        for place, uuids in enumerate(names):
            if any(str(uuid or "").lower().startswith(sought) for uuid in uuids):
                return place
    is_mig = wanted.startswith("mig-")
    silent = (place for place, gpu in enumerate(gpus) if (_hides_mig(gpu) if is_mig else not gpu.get("uuid")))
    return next((place for place in silent if place not in taken), None)


def _hides_mig(gpu: Gpu) -> bool:
    """Whether MIG devices may be there that the facts do not have, as an ordinary user sees none."""
    return dig(gpu, "mig", "current") is True and not items(dig(gpu, "mig", "devices"))


def _divided(gpus: Sequence[Gpu]) -> bool:
    """Whether there is a GPU in MIG mode among them: then CUDA uses one MIG device of all, whatever it was given."""
    return any(dig(gpu, "mig", "current") for gpu in gpus)


def _seen(evidence: Evidence, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs that the driver API in the container has told by UUID, in the host's order."""
    devices = mappings(dig(evidence.probe.stage("devices"), "devices")) if evidence.probe else []
    found = [by_uuid(gpus, device.get("uuid")) for device in devices]
    return [gpu for gpu in gpus if any(gpu is one for one in found)]


def _cuda_visible(evidence: Evidence, gpus: Sequence[Gpu]) -> list[Gpu] | None:
    """Return what CUDA_VISIBLE_DEVICES of the container leaves of its GPUs; None where it is not set, or leaves nothing.

    CUDA reads the list up to the first entry that it does not know. Its numbers count the container's GPUs, the fastest first,
    so where kinds are mixed only the driver API itself tells which one is number 0.
    """
    text = _environment(evidence.container, "CUDA_VISIBLE_DEVICES")
    places: dict[int, None] = {}
    for entry in _split(text):
        ordinal = int(entry) if re.fullmatch("[0-9]{1,4}", entry) else None
        place = (ordinal if ordinal < len(gpus) else None) if ordinal is not None else _place(entry, gpus, set(places))
        if place is None:
            break
        places[place] = None
    if not places:
        return None
    seen = _seen(evidence, gpus)
    if len(seen) == len(places):
        return seen
    return [gpu for place, gpu in enumerate(gpus) if place in places]
