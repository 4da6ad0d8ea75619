# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a fleet takes beside one of its hosts: H hosts in batches of B ought to take little more than ceil(H/B) times one host.

    python tests/benchmark/upgrade.py [--check] [--hosts 4] [--batch 2]

Simulated hosts of tests/simhost/fleets/upgrade.json, which it makes where they are not up. With --check it fails above the promised factor.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests/integration"))

from upgrade.conftest import FLEET
from upgrade.lab import FULL, HOSTS, Site

# What docs/upgrades.md promises.
FACTOR = 1.3
# Hosts that are alike.
ALIKE = tuple(host for host in HOSTS if host not in FULL)


def seconds(site: Site, hosts: tuple[str, ...], batch: int) -> float:
    """Return how long the upgrade of these hosts takes, from the command to its end."""
    started = time.monotonic()
    run = site.upgrade(hosts, upgrade_canary=0, upgrade_serial=batch)
    for host in hosts:
        run.ends(host, "upgraded")
    return time.monotonic() - started


def main() -> int:
    """Measure one host and a fleet, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="fail above the promised factor")
    parser.add_argument("--hosts", type=int, default=4, choices=range(2, len(ALIKE) + 1))
    parser.add_argument("--batch", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    hosts = ALIKE[: options.hosts]
    with tempfile.TemporaryDirectory() as folder:
        site = Site(FLEET, Path(folder))
        started = site.simhost("up", timeout_s=1800)
        try:
            site.begin()
            # The first run on a host also builds the image for the new driver: both are measured with it there.
            seconds(site, hosts, options.batch)
            site.old(*hosts)
            one = seconds(site, hosts[:1], 1)
            site.old(*hosts[:1])
            fleet = seconds(site, hosts, options.batch)
        finally:
            if "started" in started:
                site.simhost("down")
            else:
                site.old(*hosts)
    batches = math.ceil(options.hosts / options.batch)
    factor = fleet / (batches * one)
    told = f"{options.hosts} hosts in batches of {options.batch} {fleet:.0f} s"
    print(f"one host {one:.0f} s; {told}: {factor:.2f} times {batches} x one host")
    return 1 if options.check and factor > FACTOR else 0


if __name__ == "__main__":
    sys.exit(main())
