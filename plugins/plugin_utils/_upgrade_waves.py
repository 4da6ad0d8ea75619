# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is upgraded when: the hosts that an interrupted run left, then a canary, then batches, never more at once than may be out of service.

Sizes are numbers or shares ("25%") as in Ansible's ``serial``: a share is rounded down, and is at least one host.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _findings

RESUME, CANARY, DEFAULT = "resume", "canary", "default"
_SHARE = re.compile(r"(\d{1,3}(?:\.\d+)?) ?%")


@dataclass(frozen=True)
class Size:
    """A number of hosts, or a share of them in percent."""

    number: int | None
    percent: float = 0.0

    def of(self, hosts: int) -> int:
        """Return how many of so many hosts these are; a share is at least one."""
        return self.number if self.number is not None else max(1, int(hosts * self.percent / 100))


@dataclass(frozen=True)
class Wishes:
    """How a run is cut into waves.

    `canary` is a size or names of hosts. `serial` has by label the sizes of its batches, the last of which repeats; DEFAULT for labels
    that are not named. `max_unavailable` counts over all hosts of the run.
    """

    canary: Size | tuple[str, ...]
    serial: Mapping[str, tuple[Size, ...]]
    max_unavailable: Size


class Wave(NamedTuple):
    """Hosts that are upgraded side by side. The label is None where hosts have none, or the wave is not of one label."""

    name: str
    label: str | None
    hosts: tuple[str, ...]


def wishes(canary: Any, serial: Any, max_unavailable: Any) -> Wishes:
    """Return what the operator's variables say. Raises WishError."""
    names = isinstance(canary, (list, tuple))
    return Wishes(
        tuple(str(name) for name in canary) if names else _size("canary", canary, lowest=0),
        _serial(serial),
        _size("max_unavailable", max_unavailable),
    )


def _serial(value: Any) -> Mapping[str, tuple[Size, ...]]:
    if isinstance(value, Mapping):
        if DEFAULT not in value:
            raise _findings.WishError("upgrade_serial by label needs a size for default, for hosts whose label is not named.")
        return {str(label): _sizes(sizes) for label, sizes in value.items()}
    return {DEFAULT: _sizes(value)}


def _sizes(value: Any) -> tuple[Size, ...]:
    sizes = value if isinstance(value, (list, tuple)) else [value]
    if not sizes:
        raise _findings.WishError("upgrade_serial is empty; it has to be a number of hosts, a share such as 25%, or a list of these.")
    return tuple(_size("serial", size) for size in sizes)


def _size(name: str, value: Any, lowest: int = 1) -> Size:
    """Return a size. Raises WishError."""
    text = str(value).strip()
    share = _SHARE.fullmatch(text)
    if share and 0 < float(share.group(1)) <= 100:
        return Size(None, float(share.group(1)))
    if not isinstance(value, bool) and re.fullmatch(r"\d{1,6}", text) and int(text) >= lowest:
        return Size(int(text))
    raise _findings.WishError(
        f"upgrade_{name} has to be a number of hosts from {lowest} on or a share of them such as 25%; found {text or 'nothing'}."
    )


def limit(wished: Wishes, hosts: int) -> int:
    """Return how many of the hosts of the run may be out of service at once: at least one."""
    return max(1, wished.max_unavailable.of(hosts))


def make(changing: Sequence[str], resumed: Sequence[str], labels: Mapping[str, str | None], wished: Wishes, room: int) -> list[Wave]:
    """Return the waves for the hosts that change, in their order.

    ``resumed`` are those of them that an interrupted run left: they come first. ``room`` is how many more hosts may be out of service at
    once, at least one. No batch has hosts of two labels; the canary may.
    """
    first = [host for host in changing if host in set(resumed)]
    rest = [host for host in changing if host not in set(resumed)]
    canary = _canary(rest, wished.canary)
    waves = [Wave(RESUME, None, part) for part in _cut(first, room)]
    waves += [Wave(CANARY, None, part) for part in _cut(canary, room)]
    rest = [host for host in rest if host not in set(canary)]
    number = 0
    for label in dict.fromkeys(labels.get(host) for host in rest):
        hosts = [host for host in rest if labels.get(host) == label]
        sizes = wished.serial.get(label or DEFAULT) or wished.serial[DEFAULT]
        for batch in _batches(hosts, sizes, room):
            number += 1
            waves.append(Wave(str(number), label, batch))
    return _distinct(waves)


def _canary(hosts: Sequence[str], wished: Size | tuple[str, ...]) -> list[str]:
    # Named ones that have nothing to do are no canaries.
    return list(hosts[: wished.of(len(hosts))]) if isinstance(wished, Size) else [host for host in hosts if host in wished]


def _batches(hosts: Sequence[str], sizes: Sequence[Size], room: int) -> list[tuple[str, ...]]:
    batches, begun, turn = [], 0, 0
    while begun < len(hosts):
        size = min(room, sizes[min(turn, len(sizes) - 1)].of(len(hosts)))
        batches.append(tuple(hosts[begun : begun + size]))
        begun, turn = begun + size, turn + 1
    return batches


def _cut(hosts: Sequence[str], room: int) -> list[tuple[str, ...]]:
    return [tuple(hosts[begun : begun + room]) for begun in range(0, len(hosts), room)]


def _distinct(waves: Sequence[Wave]) -> list[Wave]:
    """Return waves of which none has the name of another: a canary that is larger than the room is canary, canary-2 ..."""
    seen: dict[str, int] = {}
    found = []
    for wave in waves:
        seen[wave.name] = seen.get(wave.name, 0) + 1
        found.append(wave if seen[wave.name] == 1 else wave._replace(name=f"{wave.name}-{seen[wave.name]}"))
    return found
