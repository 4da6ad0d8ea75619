# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print how many modules a run executed on each host, from the file that the callback module_counter wrote."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path


def count(path: Path) -> dict[str, Counter[str]]:
    """Executions by host and module. *path* holds one JSON object per line; OSError when it cannot be read."""
    hosts: dict[str, Counter[str]] = defaultdict(Counter)
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        hosts[record["host"]][record["module"].removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")] += 1
    return dict(hosts)


def main() -> int:
    """Print one line per host; fail when a host is above --max."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--max", type=int, help="fail when a host needed more executions than this")
    options = parser.parse_args()
    if not options.file.exists():
        print("Module executions: none, no host was reached.")
        return 0 if options.max is None else 1
    hosts = count(options.file)
    width = max(map(len, hosts))
    print("Module executions per host:")
    over = []
    for host in sorted(hosts):
        total = sum(hosts[host].values())
        names = ", ".join(name if number == 1 else f"{name} x{number}" for name, number in hosts[host].items())
        print(f"  {host:{width}}  {total:3}  {names}")
        if options.max is not None and total > options.max:
            over.append(f"{host} ({total})")
    if over:
        print(f"More than {options.max} module executions on {', '.join(over)}.", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
