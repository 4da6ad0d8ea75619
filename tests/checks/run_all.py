# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the checks of the project, cheapest first, and end with one summary line.

A stage is a list of steps, a step is one program. All steps of a stage run; after a stage with a failure no other stage starts,
unless --keep-going is given. What a step prints is shown when it fails, or at once for the steps that take minutes. The last lines
name what failed, so that they are enough where nothing else was kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import tree

PYTHON = sys.executable
LOGS = tree.CACHE / "logs"
REASON = 600  # characters of it in the last lines; all of it stands above them


@dataclasses.dataclass
class Count:
    """How many tests passed, failed and were skipped, and of those that failed, one line each: its name and the reason."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    def __add__(self, other: Count) -> Count:
        numbers = (self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)
        return Count(*numbers, self.failures + other.failures)

    def __str__(self) -> str:
        parts = [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.passed} passed"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Step:
    """One program: *report* is a file in which it leaves its count; without one it counts as a single test."""

    name: str
    command: list[str]
    cwd: Path = tree.REPOSITORY
    report: Path | None = None
    live: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def _count(step: Step, status: int) -> Count:
    count = Count(1)
    if step.report and step.report.is_file():
        count = _junit(step.report) if step.report.suffix == ".xml" else Count(**json.loads(step.report.read_text()))
    elif status:
        count = Count()
    if status and not count.failed:  # also where its tests passed: the program around them did not
        count += Count(failed=1, failures=[f"{step.name}: ended with {status}"])
    return count


def _junit(path: Path) -> Count:
    total = Count()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):  # noqa: S314  written by our own pytest a moment ago
        tests, failed, skipped = (int(suite.get(key, "0")) for key in ("tests", "failures", "skipped"))
        failed += int(suite.get("errors", "0"))
        total += Count(tests - failed - skipped, failed, skipped, [line for case in suite.iter("testcase") for line in _failures(case)])
    return total


def _failures(case: ElementTree.Element) -> list[str]:
    reasons = [" ".join(bad.get("message", "").split()) for bad in case if bad.tag in ("failure", "error")]
    return [f"{case.get('classname')}::{case.get('name')}: {textwrap.shorten(reason, REASON)}" for reason in reasons]


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_", "MAKE"))}
    return {
        **kept,
        "PATH": f"{tree.VENV_BIN}{os.pathsep}{kept.get('PATH', '')}",
        # The copy of the working tree first; the installed archive has the same content, beside what it depends on.
        "ANSIBLE_COLLECTIONS_PATH": f"{tree.COLLECTIONS}{os.pathsep}{tree.INSTALLED}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }


def run_step(stage: str, step: Step) -> Count:
    """Run one step, print its line, and return its count. A program that cannot be started is a failed test."""
    if step.report:
        step.report.unlink(missing_ok=True)
    log = LOGS / f"{stage}-{step.name.replace(' ', '-')}.log"
    if step.live:
        print(f"  {step.name} ...", flush=True)
    started = time.monotonic()
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                step.command, cwd=step.cwd, env=_environment() | step.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            reason = f"{step.name}: {error.strerror}: {step.command[0]}"
            print(f"  FAILED: {reason}", flush=True)
            return Count(failed=1, failures=[reason])
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                output.write(line)
                if step.live:
                    sys.stdout.buffer.write(b"    " + line)
                    sys.stdout.buffer.flush()
    count = _count(step, process.returncode)
    if count.failed and not step.live:
        print(log.read_text(errors="replace"), flush=True)
    verdict = "FAILED" if count.failed else "ok"
    print(f"  {step.name}: {verdict} ({count}, {time.monotonic() - started:.1f}s)", flush=True)
    return count


def _consistency(*checks: str) -> list[Step]:
    return [Step(check, [PYTHON, "tests/checks/consistency.py", check]) for check in checks]


def _pytest(name: str, cwd: Path, folder: str) -> Step:
    report = LOGS / f"{name.replace(' ', '-')}.xml"
    # A process for each processor, and each file in one of them: its fixtures may be servers.
    share = ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]
    # The same examples each time: what passed once passes again. `make explore` looks for new ones.
    command = [PYTHON, "-m", "pytest", *share, "--hypothesis-profile=ci", f"--junitxml={report}", folder]
    # The copy first; beside it is what it depends on, for tests that run a playbook.
    return Step(name, command, cwd, report, environment={"PYTHONPATH": f"{tree.COLLECTIONS}{os.pathsep}{tree.INSTALLED}"})


def unit() -> list[Step]:
    """The tests that need nothing but Python, and what reads Python."""
    copy = tree.mirror()
    mypy = ["mypy", "--config-file", str(copy / "pyproject.toml")]
    mypy_path = {"MYPYPATH": str(tree.COLLECTIONS)}
    return [
        _pytest("pytest", copy, "tests/unit"),
        _pytest("pytest simhost", copy, "tests/simhost/tests"),
        Step("ruff", ["ruff", "check", "--no-cache", "."]),
        Step("mypy plugins", [*mypy, "ansible_collections/difyops/gpu/plugins"], tree.COLLECTIONS, environment=mypy_path),
        Step("mypy checks", [*mypy, "."], tree.REPOSITORY / "tests/checks"),
    ]


def lint() -> list[Step]:
    """The form of YAML, roles and playbooks, and what must agree with each other."""
    copy = tree.mirror()
    return [
        Step("yamllint", ["yamllint", "--strict", "."]),
        *_consistency("roles", "metadata", "names"),
        Step("changelog", ["antsibull-changelog", "lint"], copy),
        Step("ansible-lint", ["ansible-lint", "--offline", "--strict", "-q"], copy),
    ]


def docs() -> list[Step]:
    """The documentation of plugins and roles with every reference in it, and the guides."""
    references = ["--validate-collection-refs", "all", "--disallow-unknown-collection-refs"]
    command = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", *references, "."]
    return [*_consistency("links", "codes"), Step("antsibull-docs", command, tree.mirror())]


# Those between have no rules of their own; with DIFYOPS_ALL=1 (make test-all) they are asked, too (some six minutes more).
SANITY_CORES = ("2.16", "2.22")


def sanity() -> list[Step]:
    """ansible-test sanity of the oldest supported ansible-core and the newest, with empty ignore files."""
    report = LOGS / "sanity.json"
    some = [] if os.environ.get("DIFYOPS_ALL") else [word for core in SANITY_CORES for word in ("--core", core)]
    return [Step("ansible-test", [PYTHON, "tests/checks/sanity.py", "--count-file", str(report), *some], report=report, live=True)]


def service() -> list[Step]:
    """The server of the Dify CUDA image, with real PyTorch on the CPU."""
    report = LOGS / "service.xml"
    command = [str(tree.REPOSITORY / "tests/integration/image_service/run"), f"--junitxml={report}"]
    return [Step("image service", command, report=report, live=True, environment={"DIFYOPS_CACHE": str(tree.CACHE / "service")})]


def diagnosis() -> list[Step]:
    """Every diagnosis code, the facts and the audit, on simulated hosts that are broken one link at a time."""
    report = LOGS / "diagnosis.xml"
    command = [PYTHON, "tests/integration/diagnosis/run.py", f"--junitxml={report}"]
    return [Step("simulated hosts", command, tree.mirror(), report, live=True, environment={"PYTHONPATH": str(tree.COLLECTIONS)})]


def _scenario(name: str, report: Path) -> list[Step]:
    """A scenario of Molecule: it makes the fleet and provisions hosts; its verifier runs tests, and leaves their count in *report*."""
    tree.mirror()
    command = ["molecule", "test", "-s", name]
    return [Step(f"molecule {name}", command, report=report, live=True, environment={"DIFYOPS_JUNITXML": str(report)})]


def drivers() -> list[Step]:
    """Drivers on simulated hosts of every family of operating systems, and the genuine packages of Debian."""
    return _scenario("nvidia_driver", LOGS / "drivers.xml")


def platform() -> list[Step]:
    """Docker and the container toolkit on simulated hosts, from a bare one to containers that keep their GPUs."""
    return _scenario("container_platform", LOGS / "platform.xml")


def upstream() -> list[Step]:
    """An upstream release on simulated hosts: deployed, connected to the image service, and refused where the input is bad."""
    report = LOGS / "upstream.xml"
    command = [PYTHON, "tests/integration/upstream/run.py", f"--junitxml={report}"]
    return [Step("upstream release", command, tree.mirror(), report, live=True, environment={"PYTHONPATH": str(tree.COLLECTIONS)})]


def upgrade() -> list[Step]:
    """A fleet behind a load balancer, from one driver to the next with the service up; and everything that can go wrong on the way."""
    report = LOGS / "upgrade.xml"
    command = [PYTHON, "tests/integration/upgrade/run.py", f"--junitxml={report}"]
    return [Step("driver upgrade", command, tree.mirror(), report, live=True, environment={"PYTHONPATH": str(tree.COLLECTIONS)})]


def molecule() -> list[Step]:
    """The whole job on simulated hosts."""
    report = LOGS / "molecule.xml"
    # The verifier runs pytest inside a play; this is how its count comes out.
    environment = {"PYTEST_ADDOPTS": f"--junitxml={report}"}
    return [Step("molecule", ["molecule", "test", "-s", "default"], report=report, live=True, environment=environment)]


STAGES: dict[str, Callable[[], list[Step]]] = {
    stage.__name__: stage for stage in (unit, lint, docs, sanity, service, diagnosis, drivers, platform, upstream, upgrade, molecule)
}


def main() -> int:
    """Run the stages, print what each took, and the summary line last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stages", nargs="*", help=f"which of {', '.join(STAGES)}; all when none is named")
    parser.add_argument("--keep-going", action="store_true", help="start the next stage also after a failure")
    options = parser.parse_args()
    unknown = [name for name in options.stages if name not in STAGES]
    if unknown:
        parser.error(f"unknown stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in STAGES if name in options.stages] or list(STAGES)
    started, total, lines = time.monotonic(), Count(), []
    for name in wanted:
        if total.failed and not options.keep_going:
            lines.append(f"{name:10} not run")
            continue
        print(f"[{name}] {STAGES[name].__doc__}", flush=True)
        begun, count = time.monotonic(), Count()
        for step in STAGES[name]():
            count += run_step(name, step)
        lines.append(f"{name:10} {'FAILED' if count.failed else 'passed'}  {count} in {time.monotonic() - begun:.1f}s")
        total += count
    not_run = sum(line.endswith("not run") for line in lines)
    stages = f"{len(lines) - not_run} stages" + (f", {not_run} not run" if not_run else "")
    print("\n" + "\n".join([*lines, *(f"failed: {failure}" for failure in total.failures)]))
    print(f"===== {total} in {time.monotonic() - started:.2f}s ({stages}) =====")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
