# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the real playbook against a fleet that is up and deployed: DIFYOPS_INVENTORY names its inventory sources, with commas between."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[3]
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Run:
    """What one ansible-playbook run left behind."""

    rc: int
    output: str
    log: str
    records: dict[str, dict[str, Any]]
    modules: list[dict[str, str]]

    def recap(self, host: str) -> dict[str, int]:
        """Return the counters of the recap line of *host*."""
        line = re.search(rf"^{re.escape(host)}\s+: (.*)$", self.output, re.MULTILINE)
        assert line, f"no recap line for {host}:\n{self.output}"
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line.group(1))}

    def module_executions(self, host: str) -> int:
        """Count how often a module was sent to *host*, as tests/tools/callback_plugins/module_counter.py wrote it down."""
        return sum(1 for execution in self.modules if execution["host"] == host)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a file, none when it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Site:
    """A fleet and the means to run Ansible on it."""

    def __init__(self, inventory: list[str], scratch: Path, bin_folder: Path | None = None) -> None:
        self.inventory = inventory
        self.scratch = scratch
        self.bin = bin_folder or Path(sys.executable).parent
        self.known: dict[str, dict[str, Any]] = {}

    def _environment(self, **extra: str) -> dict[str, str]:
        """Return the caller's environment without what a surrounding Ansible or molecule run put there."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
        return {**kept, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **extra}

    def _sources(self) -> list[str]:
        return [part for source in self.inventory for part in ("-i", source)]

    def _command(self, *args: str, **variables: Any) -> list[str]:
        playbook = str(REPO / "playbooks/deploy-dify.yml")
        return [str(self.bin / "ansible-playbook"), *self._sources(), playbook, "-e", json.dumps(variables), *args]

    def interrupted(self, task: str, *args: str, **variables: Any) -> None:
        """Run the deploy playbook and kill it, workers and all, as soon as it has begun *task*."""
        process = subprocess.Popen(
            self._command(*args, **variables), cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env=self._environment(PYTHONUNBUFFERED="1"),
        )
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("TASK [") and task in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        assert process.wait(60) == -signal.SIGKILL, "".join(seen)

    def play(self, *args: str, **variables: Any) -> Run:
        """Run the deploy playbook with extra *variables* and return what it left."""
        count = len(list(self.scratch.glob("*.log")))
        log, report, modules = (self.scratch / f"{count}.{kind}" for kind in ("log", "report.jsonl", "modules.jsonl"))
        done = subprocess.run(
            self._command(*args, dify_report_path=str(report), **variables),
            cwd=REPO, check=False, capture_output=True, text=True, timeout=1200,
            env=self._environment(
                ANSIBLE_LOG_PATH=str(log), ANSIBLE_LOG_VERBOSITY="5", ANSIBLE_CALLBACKS_ENABLED="module_counter",
                ANSIBLE_CALLBACK_PLUGINS=str(REPO / "tests/tools/callback_plugins"), MODULE_COUNTER_FILE=str(modules),
            ),
        )
        output = ANSI.sub("", done.stdout + done.stderr)
        return Run(done.returncode, output, log.read_text(), {record["host"]: record for record in lines(report)}, lines(modules))

    def command(self, host: str, *argv: str) -> str:
        """Run one command on *host* as root and return its standard output; a failing command fails the test."""
        variables = self.known.get(host) or self.known.setdefault(host, self._hostvars(host))
        done = subprocess.run(
            ["ssh", "-i", variables["ansible_ssh_private_key_file"], "-p", str(variables["ansible_port"]), "-o", "BatchMode=yes",
             "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
             f"{variables['ansible_user']}@{variables['ansible_host']}", " ".join(argv)],
            check=False, capture_output=True, text=True, timeout=300,
        )
        assert done.returncode == 0, f"{argv} on {host}: {done.stderr}"
        return done.stdout

    def _hostvars(self, host: str) -> dict[str, Any]:
        """Return the templated connection variables of *host*."""
        names = ("ansible_ssh_private_key_file", "ansible_port", "ansible_user", "ansible_host")
        done = subprocess.run(
            [self.bin / "ansible", *self._sources(), host, "-m", "ansible.builtin.debug", "-a",
             "msg={{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} }}"],
            cwd=REPO, check=True, capture_output=True, text=True, env=self._environment(ANSIBLE_CALLBACK_RESULT_FORMAT="json"),
        )
        variables = json.loads(done.stdout.split("=>", 1)[1])["msg"]
        return {**variables, "ansible_ssh_private_key_file": os.path.expanduser(variables["ansible_ssh_private_key_file"])}

    def secret_file(self, **variables: str) -> Path:
        """Return a file with variables, for -e @file: what stands on a command line is in every log."""
        path = self.scratch / "secret.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(variables))
        return path

    def inventory_with(self, hosts: dict[str, dict[str, Any]]) -> Path:
        """Return a second inventory source that adds variables to *hosts* (or adds the hosts)."""
        path = self.scratch / f"hosts-{len(list(self.scratch.glob('hosts-*')))}.json"
        path.write_text(json.dumps({"dify_gpu": {"hosts": hosts}}))
        return path


@pytest.fixture(scope="session")
def oldest(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return the same fleet, driven by the oldest ansible-core that meta/runtime.yml allows."""
    folder = tmp_path_factory.mktemp("oldest")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    subprocess.run([folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "ansible-core==2.16.*"], check=True)
    return Site(site.inventory, folder, folder / "venv/bin")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return the deployed fleet."""
    inventory = os.environ.get("DIFYOPS_INVENTORY")
    if not inventory:
        pytest.fail("DIFYOPS_INVENTORY must name the inventory of a fleet that is up (molecule/default does that)")
    return Site([str(Path(source).resolve()) for source in inventory.split(",")], tmp_path_factory.mktemp("runs"))
