# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's genuine driver packages, really installed, on a host without a loaded driver: what they say, and what facts make of it.

What they said is kept as fixtures of the unit tests; each run compares it with what they say now. To record it again: DIFYOPS_RECORD=1.
"""
from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from diagnosis.lab import REPO, Host

RECORDS = REPO / "tests/unit/fixtures/observe"
RECORD = bool(os.environ.get("DIFYOPS_RECORD"))
RELEASES = {
    "550": "nvidia-driver-bin nvidia-smi libcuda1 nvidia-alternative nvidia-kernel-support",
    "535": (
        "nvidia-tesla-535-driver-bin nvidia-tesla-535-smi libnvidia-tesla-535-cuda1 nvidia-tesla-535-alternative "
        "nvidia-tesla-535-kernel-support"
    ),
}
COMMANDS = (
    "nvidia-smi",
    "nvidia-smi -L",
    "nvidia-smi --query-gpu=index,uuid,name --format=csv,noheader,nounits",
    "nvidia-smi --help-query-gpu",
    "nvidia-smi --version",
    "nvidia-smi -q -x",
)
QUERY = (
    r"dpkg-query --show '--showformat=${db:Status-Status}\t${Package}\t${Version}\t${Maintainer}\t${db:Status-Want}\t${source:Package}\n'"
    " '*nvidia*' libcuda1 'cuda-drivers*'"
)
NVML = """python3 -c '
import pynvml
try:
    pynvml.nvmlInit()
except pynvml.NVMLError as error:
    print(error.value, error)
'"""


def ask(host: Host, command: str) -> dict[str, Any]:
    """Run one command on the host and return what it answered."""
    argv = ["docker", "exec", "-i", host.container, "sh", "-c", f"LC_ALL=C.UTF-8 {command}"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    return {"command": command, "rc": done.returncode, "out": done.stdout, "err": done.stderr}


def facts_of(host: Host) -> dict[str, Any]:
    """Return the facts of the host, gathered by the real module."""
    run = host.fleet.play(host.name, {"difyops.gpu.nvidia_facts": {}})
    assert run.rc == 0, run.output
    facts: dict[str, Any] = run.of("difyops.gpu.nvidia_facts")["ansible_facts"]["nvidia"]
    return facts


@pytest.fixture(scope="module", params=list(RELEASES))
def installed(genuine: Host, request: pytest.FixtureRequest) -> Iterator[tuple[str, Host]]:
    """Return a branch, and the host with its genuine packages."""
    packages = RELEASES[request.param]
    genuine.sh(f"DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends {packages} > /dev/null")
    yield request.param, genuine
    genuine.sh("export DEBIAN_FRONTEND=noninteractive; apt-get -qq purge --yes '*nvidia*' libcuda1 > /dev/null; "
               "apt-get -qq autoremove --purge --yes > /dev/null")


def test_what_the_genuine_tools_say(installed: tuple[str, Host]) -> None:
    branch, host = installed
    answers = [ask(host, command) for command in (*COMMANDS, QUERY, NVML)]
    path = RECORDS / f"debian13-{branch}-not-loaded_recorded.json"
    if RECORD:
        what = (
            f"Recorded on Debian 13 with the genuine packages {RELEASES[branch]} (no --install-recommends) and nvidia-ml-py, on a machine "
            "without a GPU and without a loaded driver, by tests/integration/facts/test_genuine.py."
        )
        path.write_text(json.dumps({"what": what, "answers": answers}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    recorded = json.loads(path.read_text(encoding="utf-8"))["answers"]
    for now, then in zip(answers, recorded):
        if "dpkg-query" in now["command"]:
            # Point releases of Debian bring newer versions; the form stays.
            assert [line.count("\t") for line in now["out"].splitlines()] == [5] * len(now["out"].splitlines())
            assert now["rc"] == then["rc"]
        else:
            assert now == then
    assert answers[0]["rc"] == 9 and answers[-1]["out"].split()[0] == "9"


def test_facts_of_a_genuine_driver_that_is_not_loaded(installed: tuple[str, Host]) -> None:
    _branch, host = installed
    facts = facts_of(host)
    assert [(gpu["pci_address"], gpu["bound_driver"], gpu["name"]) for gpu in facts["gpus"]] == [("0000:3b:00.0", None, None)]
    assert facts["driver"]["loaded"] is None and facts["driver"]["cuda_version"] is None
    assert facts["nvml"]["source"] == "sysfs"
    assert facts["nvml"]["error"]["code"] == 9 and facts["nvml"]["error"]["name"] == "NVML_ERROR_DRIVER_NOT_LOADED"
    # The user space of a driver, and no package with its kernel modules: no driver is installed.
    assert facts["driver"]["installed"] is None
    assert "DG106" in {warning["code"] for warning in facts["warnings"]}


def test_held_and_pinned_packages(installed: tuple[str, Host]) -> None:
    branch, host = installed
    prefix = "nvidia" if branch == "550" else "nvidia-tesla-535"
    # The one package that makes it a driver: its modules are not built, since no kernel's headers are there.
    names = f"{prefix}-kernel-dkms"
    host.sh(
        f"cd /tmp; apt-get -qq download {names} dkms; dpkg --unpack --force-depends /tmp/{names}_*.deb > /dev/null; rm /tmp/*.deb\n"
        f"apt-mark hold {names} > /dev/null\n"
        f"printf 'Package: *nvidia* libcuda1\\nPin: version {branch}.*\\nPin-Priority: 1001\\n' > /etc/apt/preferences.d/nvidia"
    )
    try:
        facts = facts_of(host)
        pins = {(pin["kind"], pin["name"], pin["value"], pin["path"]) for pin in facts["driver"]["installed"]["pins"]}
        assert any(kind == "hold" and name == names for kind, name, _value, _path in pins), pins
        assert any(
            kind == "preference" and f"{branch}." in str(value) and "1001" in str(value) and path == "/etc/apt/preferences.d/nvidia"
            for kind, _name, value, path in pins
        ), pins
        assert facts["driver"]["installed"]["version"].startswith(f"{branch}.")
        assert facts["driver"]["installed"]["origin"] == "debian"
        assert "DG113" in {warning["code"] for warning in facts["warnings"]}, "unpacked and not configured"
    finally:
        host.sh(f"apt-mark unhold {names} > /dev/null; dpkg --purge --force-all {names} > /dev/null; rm /etc/apt/preferences.d/nvidia")
