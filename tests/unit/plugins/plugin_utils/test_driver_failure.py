# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of tasks that failed become one sentence.

Those of apt were recorded on a simulated Ubuntu host with real apt and shortened; those of dnf are made up.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.filter.driver_failure import FilterModule, driver_failure
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_failure import explain
from hypothesis import given
from hypothesis import strategies as st

APT, DNF, COMMAND, FAIL = "ansible.builtin.apt", "ansible.builtin.dnf", "ansible.builtin.command", "ansible.builtin.fail"
LINE = (
    '\'/usr/bin/apt-get -y -o "Dpkg::Options::=--force-confdef" -o "Dpkg::Options::=--force-confold" '
    "-o DPkg::Lock::Timeout=3       install 'nvidia-dkms-580-server=580.105.08-0ubuntu0.24.04.1' "
    "-o APT::Install-Recommends=no --allow-downgrades --allow-change-held-packages' failed: "
)
SUB = "E: Sub-process /usr/bin/dpkg returned an error code (1)\n"
LISTED = (
    "Reading package lists...\nThe following NEW packages will be installed:\n  dkms libgpg-error0 liblockfile1 nvidia-dkms-580-server\n"
    "Get:1 http://localhost:8099/ubuntu noble/restricted amd64 dkms amd64 1:3.2.2-1 [878 B]\n"
    "(Reading database ... \r(Reading database ... 5%\r(Reading database ... 9542 files and directories currently installed.)\r\n"
    "Setting up libgpg-error0 (1.49-2) ...\r\nSetting up nvidia-dkms-580-server (580.105.08-0ubuntu0.24.04.1) ...\r\n"
)
POOL = "http://localhost:8099/ubuntu/pool/noble"
NO_SPACE = (
    f"E: Failed to fetch {POOL}/nvidia-dkms-580-server_580.105.08-0ubuntu0.24.04.1_amd64.deb  "
    "Error writing to file - write (28: No space left on device) [IP: 127.0.0.1 8099]\n"
    "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?\n"
)
NO_MIRROR = (
    f"E: Failed to fetch {POOL}/dkms_1%253a3.2.2-1_amd64.deb  Unable to connect to localhost:8099:\n"
    "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?\n"
)
LOCKED = "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n"
WAITED = "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 673 (python3)...\n"
FOREIGN = (
    "Setting up foreign-thing (1) ...\r\ncannot do it\r\ndpkg: error processing package foreign-thing (--configure):\r\n"
    " installed foreign-thing package post-installation script subprocess returned error exit status 1\r\n"
    "Errors were encountered while processing:\r\n foreign-thing\r\n"
)
BUILD = (
    "Error! Bad return status for module build on kernel: 6.18.44 (x86_64)\r\n"
    "Consult /var/lib/dkms/nvidia/580.105.08/build/make.log for more information.\r\n"
    "dpkg: error processing package nvidia-dkms-580-server (--configure):\r\n"
    " installed nvidia-dkms-580-server package post-installation script subprocess returned error exit status 10\r\n"
    "Errors were encountered while processing:\r\n nvidia-dkms-580-server\r\n"
)


def apt(stderr: str, stdout: str = LISTED) -> dict[str, Any]:
    return {"failed": True, "rc": 100, "msg": LINE + stderr, "stdout": stdout, "stderr": stderr, "invocation": {}}


def dnf(msg: str, *failures: str) -> dict[str, Any]:
    return {"failed": True, "rc": 1, "msg": msg, "failures": list(failures), "results": [], "invocation": {}}


# By name: result, action, code, what the sentence has, what it has not.
KNOWN: dict[str, tuple[dict[str, Any], str, str, tuple[str, ...], tuple[str, ...]]] = {
    "full disk": (apt(NO_SPACE), APT, "DG782", ("the disk is full", "No space left on device"), ("maybe run",)),
    "mirror down": (apt(NO_MIRROR), APT, "DG783", ("Unable to connect to localhost:8099", "nvidia_driver_repository"), ("No space",)),
    "lock": (apt(LOCKED, WAITED), APT, "DG780", ("within 3 s", "is another process using it"), ("673",)),
    "a lock that came, and then a package of others": (
        apt(SUB, WAITED + LISTED + FOREIGN),
        APT,
        "DG793",
        ("cannot do it / dpkg: error processing package foreign-thing",),
        ("Sub-process", "lock", "libgpg"),
    ),
    "DKMS": (apt(SUB, LISTED + BUILD), APT, "DG789", ("Bad return status", "build/make.log", "6.18.44"), ("libgpg",)),
    "DKMS, by the package alone": (
        apt(SUB, LISTED + " installed nvidia-kernel-open-dkms package post-installation script subprocess returned error exit status 10\n"),
        APT,
        "DG789",
        ("nvidia-kernel-open-dkms",),
        (),
    ),
    "lists": (
        {
            "msg": "Failed to update apt cache after 2 retries: E:The repository 'http://x ./ Release' does not have a Release file.",
            "invocation": {},
        },
        APT,
        "DG783",
        ("The repository 'http://x ./ Release'",),
        ("retries",),
    ),
    "lists, no reason": (
        {"msg": "Failed to update apt cache after 2 retries: ", "invocation": {}},
        APT,
        "DG783",
        ("Failed to update apt cache",),
        (),
    ),
    "lock of lists": (
        {"msg": "Failed to lock apt for exclusive operation: Failed to lock directory /var/lib/apt/lists/", "invocation": {}},
        APT,
        "DG780",
        (),
        (),
    ),
    "fetching by the program": (
        {
            "cmd": ["apt", "--download-only", "install", "nvidia-dkms-580"],
            "rc": 100,
            "msg": "non-zero return code",
            "stdout": LISTED,
            "stderr": NO_MIRROR,
        },
        COMMAND,
        "DG783",
        ("Unable to connect",),
        ("non-zero",),
    ),
    "dnf, repository": (
        dnf("Failed to download metadata for repo 'cuda': Cannot download repomd.xml: Curl error (7): Couldn't connect"),
        DNF,
        "DG783",
        ("'cuda'",),
        (),
    ),
    "dnf, disk": (
        dnf("Error running transaction test", "installing package kmod-nvidia needs 100MB more space on the / filesystem"),
        DNF,
        "DG782",
        ("100MB",),
        (),
    ),
    "dnf, disk by the summary": (
        {
            "cmd": ["dnf", "install"],
            "rc": 1,
            "stdout": "",
            "stderr": "Error: Disk Requirements:\n  At least 10MB more space needed on the /usr filesystem.",
        },
        COMMAND,
        "DG782",
        ("10MB",),
        (),
    ),
    "dnf, lock": (dnf("dnf lockfile is held by another process"), DNF, "DG780", (), ()),
    "dnf, key": (dnf("Failed to validate GPG signature: Public key for x.rpm is not installed"), DNF, "DG783", ("x.rpm",), ()),
    "dnf, scriptlet": (dnf("Unknown Error occurred: Error in PREIN scriptlet in rpm package x"), DNF, "DG793", ("PREIN",), ()),
    "a loop": (
        {
            "msg": "One or more items failed",
            "results": [{"failed": False, "rc": 0}, {"failed": True, "rc": 1, "stderr": "dpkg: error: no such"}],
            "rc": 1,
        },
        "ansible.builtin.dpkg_selections",
        "DG793",
        ("no such",),
        ("One or more",),
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_the_cause_is_found_in_what_the_package_manager_says(case: str) -> None:
    result, action, code, words, others = KNOWN[case]
    told = explain(result, "Install the driver", action, 3)
    assert told["code"] == code, told
    assert all(word in told["message"] for word in words), told
    assert not any(word in told["message"] for word in (*others, "apt-get -y", "\n", "..")), told


@pytest.mark.parametrize(
    "action, result, expected",
    [
        (FAIL, {"msg": "DG776: the GPU is in use.\nEnd it. "}, ("DG776", "the GPU is in use. End it.")),
        ("difyops.gpu.gpu_plan", {"msg": "gpu_plan: driver.flavour is openly"}, (None, "gpu_plan: driver.flavour is openly.")),
        ("ansible.builtin.validate_argument_spec", {"msg": "no", "argument_errors": ["a is no int"]}, (None, "a is no int.")),
        (COMMAND, {"cmd": ["docker", "ps"], "rc": 1, "stderr": "no engine\n", "msg": "non-zero return code"}, (None, "Task: no engine.")),
        (
            COMMAND,
            {"msg": "MODULE FAILURE", "module_stderr": "sudo: a password is required\n"},
            (None, "Task: sudo: a password is required / MODULE FAILURE."),
        ),
        # An error of ours that names apt or a repository is no word of apt's.
        (
            APT,
            {"msg": "Task failed: Conditional result (True) was derived from value of type 'str' at 'x.yml': Failed to fetch\nOrigin: x"},
            (None, "Task: Conditional result (True) was derived from value of type 'str' at 'x.yml': Failed to fetch / Origin: x."),
        ),
        (COMMAND, None, (None, "Task: no message.")),
    ],
)
def test_what_others_say_stays(action: str, result: Any, expected: tuple[str | None, str]) -> None:
    assert tuple(explain(result, "Task", action, 0).values()) == expected


def test_the_filter_gives_the_same() -> None:
    assert FilterModule().filters() == {"driver_failure": driver_failure}
    assert driver_failure(apt(LOCKED), "Install", APT, 7) == explain(apt(LOCKED), "Install", APT, 7)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def test_the_remedy_names_the_variables_of_the_role_that_ran() -> None:
    for role in ("nvidia_driver", "container_engine", "nvidia_container_toolkit"):
        locked = driver_failure(apt(LOCKED), "Install", APT, 7, role)["message"]
        unreachable = driver_failure(apt(NO_MIRROR), "Install", APT, 7, role)["message"]
        assert f"{role}_lock_timeout" in locked and f"{role}_repository" in unreachable
        assert "{" not in locked + unreachable


def test_what_the_module_for_daemon_json_says_is_a_sentence_already() -> None:
    result = {"failed": True, "msg": "DG808: Docker refuses it: unknown key. Correct it", "invocation": {}}
    told = explain(result, "Set daemon.json", "difyops.gpu.docker_daemon_config", 0)
    assert told == {"code": "DG808", "message": "Docker refuses it: unknown key. Correct it."}


KEYS = ["msg", "stdout", "stderr", "module_stderr", "rc", "cmd", "results", "failures", "invocation", "failed"]


@given(
    VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES | st.sampled_from([NO_SPACE, BUILD, LINE, LOCKED])),
    st.sampled_from([APT, FAIL, COMMAND, "x"]),
)
def test_whatever_a_task_returns_becomes_one_line(result: Any, action: str) -> None:
    told = explain(result, "Task", action, 0)
    assert set(told) == {"code", "message"} and len(told["message"].splitlines()) == 1 and told["message"].endswith(".")
