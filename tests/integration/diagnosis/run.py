# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the tests of tests/integration/diagnosis and tests/integration/facts in less time: the two hosts of their fleet side by side.

    python tests/integration/diagnosis/run.py [--junitxml=FILE] [-k EXPRESSION and other options of pytest]

The tests of each host run in a process of their own, then those that need both. What a process prints is shown when it ends. The fleet is
made when it is not up, and what was made is taken away.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[2]
FOLDERS = [str(HERE), str(HERE.parent / "facts")]
FLEET = os.environ.get("DIFYOPS_DIAGNOSIS_FLEET") or str(REPO / "tests/simhost/fleets/diagnosis.json")
SIMHOST = str(REPO / "tests/simhost/simhost")
# What may run at the same time, one after the other.
PHASES = (("diag", "diag-cli"), ("rest",))
NO_TESTS = 5


def start(group: str, folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start pytest for the tests of one group; its report and its output lie in *folder*."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={folder / group}.xml", *FOLDERS, *options]
    with (folder / f"{group}.log").open("wb") as log:
        environment = {**os.environ, "DIFYOPS_GROUP": group, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(command, cwd=REPO, env=environment, stdout=log, stderr=subprocess.STDOUT)


def merge(reports: list[Path], target: Path) -> None:
    """Write one report with the suites of all."""
    whole = ElementTree.Element("testsuites")
    for report in reports:
        if report.is_file():
            whole.extend(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314  written by our own pytest a moment ago
    ElementTree.ElementTree(whole).write(target, encoding="utf-8")


def run(options: list[str], junitxml: Path | None) -> int:
    """Run all phases and return the exit status: that of the worst."""
    worst = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for phase in PHASES:
            started = {group: start(group, folder, options) for group in phase}
            for group, process in started.items():
                status = process.wait()
                print(f"--- {group}", (folder / f"{group}.log").read_text(errors="replace"), sep="\n", flush=True)
                worst = max(worst, 0 if status == NO_TESTS else status)
        if junitxml:
            merge([folder / f"{group}.xml" for phase in PHASES for group in phase], junitxml)
    return worst


def main() -> int:
    """Bring the fleet up, run, and take away what was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--junitxml", type=Path)
    known, options = parser.parse_known_args()
    up = subprocess.run([SIMHOST, "up", "--fleet", FLEET], check=False, stdout=subprocess.PIPE, text=True)
    if up.returncode:
        return up.returncode
    try:
        return run(options, known.junitxml)
    finally:
        if "started" in up.stdout and not os.environ.get("DIFYOPS_KEEP_FLEET"):
            subprocess.run([SIMHOST, "down", "--fleet", FLEET], check=False)


if __name__ == "__main__":
    sys.exit(main())
