# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text for a terminal: lines of a bearable width, and many hosts named in few words.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 120
CHECKED = "checked, not applied"

# Characters that a list of hosts in a sentence may have, and how many hosts are named when it has more.
_LONG_LIST = 200
_NAMED = 12


def host_list(hosts: Sequence[str]) -> str:
    """Return names on one line; three or more in a numbered row become a range as in an inventory: gpu-[01:20]."""
    parts: list[str] = []
    row: list[str] = []
    for host in [*hosts, ""]:
        if row and _follows(row[-1], host):
            row.append(host)
            continue
        parts += row if len(row) < 3 else [_range(row[0], row[-1])]
        row = [host] if host else []
    return ", ".join(parts)


def _split(host: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)([0-9]*)", host, re.DOTALL)
    return (match.group(1), match.group(2)) if match else (host, "")


def _follows(before: str, host: str) -> bool:
    (stem, number), (next_stem, next_number) = _split(before), _split(host)
    if not number or not next_number or stem != next_stem:
        return False
    return str(int(number) + 1).zfill(len(number)) == next_number


def _range(first: str, last: str) -> str:
    return f"{_split(first)[0]}[{_split(first)[1]}:{_split(last)[1]}]"


def wrap(text: str, indent: str, first: str | None = None) -> list[str]:
    """Return text in lines of at most WIDTH; a word that is longer stays whole, since paths and images get copied."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def count_hosts(count: int) -> str:
    """Return a number of hosts in words."""
    return "1 host" if count == 1 else f"{count} hosts"


def some_hosts(hosts: Sequence[str]) -> str:
    """Return names on one line, of very many the first and how many more there are. For sentences; never where a host is looked for."""
    text = host_list(hosts)
    if len(text) <= _LONG_LIST or len(hosts) <= _NAMED:
        return text
    return f"{host_list(hosts[:_NAMED])} and {len(hosts) - _NAMED} more"


def summarize(records: Sequence[Mapping[str, Any]], results: Sequence[str]) -> dict[str, int]:
    """Return how many hosts came out as what, in the order of `results`, with ``hosts`` for all of them."""
    return {"hosts": len(records), **{result: sum(record["result"] == result for record in records) for result in results}}


def count_results(records: Sequence[Mapping[str, Any]], words: Mapping[str, str], results: Sequence[str]) -> str:
    """Return how many hosts came out as what; `words` has those results that are told in other words."""
    counts = summarize(records, results)
    return ", ".join(f"{counts[result]} {words.get(result, result)}" for result in results if counts[result]) or "none"


def title(of: str, records: Sequence[Mapping[str, Any]], told: str, check: bool) -> str:
    """Return the first line of a report; `told` says how its hosts came out."""
    return f"{of} {count_hosts(len(records))}: {told}{f' ({CHECKED})' if check else ''}"
