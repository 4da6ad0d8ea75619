# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `nvidia_facts` costs on a host with eight (simulated) GPUs, compared with a ping: wall time of the task, and bytes that are sent.

Both run with the ansible.cfg of this repository (pipelining, one connection for all), in turn in the same play. The goals: a median of at
most twice the ping's, and at most 40 KB above the ping's payload. The host `diag` of the diagnosis fleet must be up, or is started:

    python tests/benchmark/facts.py [--rounds 15] [--profile h100x8-580] [--check]

--check ends with status 1 when a goal is missed. Times depend on the machine and on what else it does; the ratio does much less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from diagnosis.lab import PROFILE, REPO, Fleet

PING, FACTS = "ansible.builtin.ping", "difyops.gpu.nvidia_facts"
MOST_RATIO = 2.0
MOST_BYTES = 40_000
# The first rounds open the connection and fill the caches of controller and host.
WARM_UP = 2


def measure(fleet: Fleet, host: str, rounds: int, profile: str) -> list[dict[str, Any]]:
    """Return the lines of the callback for so many rounds of both tasks on one host."""
    costs = fleet.scratch / "costs.jsonl"
    tasks = [{"name": f"{action} {number}", action: {}} for number in range(rounds + WARM_UP) for action in (PING, FACTS)]
    fleet.simhost("profile", host, profile)
    try:
        run = fleet.play(
            host, *tasks,
            environ={
                "ANSIBLE_CALLBACKS_ENABLED": "task_costs",
                "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
                "TASK_COSTS_FILE": str(costs),
            },
        )
    finally:
        fleet.simhost("profile", host, PROFILE)
    if run.rc:
        sys.exit(run.output)
    return [json.loads(line) for line in costs.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Measure, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", default="h100x8-580")
    parser.add_argument("--fleet", type=Path, default=REPO / "tests/simhost/fleets/diagnosis.json")
    parser.add_argument("--host", default="diag")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a goal is missed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fleet = Fleet(options.fleet, Path(scratch))
        fleet.simhost("up", options.host)
        lines = measure(fleet, options.host, options.rounds, options.profile)
    median, size = {}, {}
    for action in (PING, FACTS):
        seconds = [line["seconds"] for line in lines if line["action"] == action and "seconds" in line][WARM_UP:]
        median[action] = statistics.median(seconds)
        size[action] = max(line["bytes"] for line in lines if line["action"] == action and "bytes" in line)
        print(
            f"{action:26} median {median[action] * 1000:6.1f} ms   fastest {min(seconds) * 1000:6.1f} ms   "
            f"slowest {max(seconds) * 1000:6.1f} ms   {size[action]:7} bytes"
        )
    ratio, above = median[FACTS] / median[PING], size[FACTS] - size[PING]
    goals = {
        f"time: {ratio:.2f} times a ping, the goal is at most {MOST_RATIO}": ratio <= MOST_RATIO,
        f"payload: {above} bytes above a ping, the goal is at most {MOST_BYTES}": above <= MOST_BYTES,
    }
    for text, reached in goals.items():
        print(f"{text}: {'reached' if reached else 'MISSED'}")
    return 1 if options.check and not all(goals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
