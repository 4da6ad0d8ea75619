# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run tests on a fleet of simulated hosts in less time: groups of tests that need different hosts, each group in a process of its own.

A conftest.py tells for every test the group that it belongs to, and keeps those of the group that DIFYOPS_GROUP names.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

REPO = Path(__file__).resolve().parents[2]
SIMHOST = str(REPO / "tests/simhost/simhost")
NO_TESTS = 5


@dataclass(frozen=True)
class Suite:
    """Tests of one fleet.

    Attributes:
        folders: where the tests are.
        fleet: the fleet file.
        phases: groups of tests; those of one phase may run at the same time, the phases run one after the other.
        at_once: how many groups run at the same time.
    """

    folders: Sequence[str]
    fleet: str
    phases: Sequence[Sequence[str]]
    at_once: int = 2


def _pytest(suite: Suite, group: str, folder: Path, options: list[str]) -> int:
    """Run the tests of one group and print what pytest printed when it has ended. Returns its exit status, 0 where there was no test."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={folder / group}.xml", *suite.folders, *options]
    environment = {**os.environ, "DIFYOPS_GROUP": group, "PYTHONDONTWRITEBYTECODE": "1"}
    log, started = folder / f"{group}.log", time.monotonic()
    with log.open("wb") as output:
        status = subprocess.run(command, cwd=REPO, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    print(f"--- {group} ({time.monotonic() - started:.0f} s)\n{log.read_text(errors='replace')}", flush=True)
    return 0 if status == NO_TESTS else status


def _merge(reports: list[Path], target: Path) -> None:
    """Write one report with the suites of all."""
    whole = ElementTree.Element("testsuites")
    for report in reports:
        if report.is_file():
            whole.extend(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314  written by our own pytest a moment ago
    ElementTree.ElementTree(whole).write(target, encoding="utf-8")


def run(suite: Suite, options: list[str], junitxml: Path | None) -> int:
    """Run all phases and return the exit status: that of the worst."""
    worst = 0
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(max_workers=suite.at_once) as pool:
        folder = Path(name)
        for phase in suite.phases:
            worst = max(worst, *pool.map(lambda group: _pytest(suite, group, folder, options), phase))
        if junitxml:
            _merge([folder / f"{group}.xml" for phase in suite.phases for group in phase], junitxml)
    return worst


def main(suite: Suite, description: str | None) -> int:
    """Bring the fleet up, run, and take away what was made."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--junitxml", type=Path)
    known, options = parser.parse_known_args()
    up = subprocess.run([SIMHOST, "up", "--fleet", suite.fleet], check=False, stdout=subprocess.PIPE, text=True)
    try:
        return up.returncode or run(suite, options, known.junitxml)
    finally:
        if "started" in up.stdout and not os.environ.get("DIFYOPS_KEEP_FLEET"):
            subprocess.run([SIMHOST, "down", "--fleet", suite.fleet], check=False)
