# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = "ansible_collections.difyops.gpu.plugins.modules"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def run(name, tmp_path, check=False, **options):
    """Run a module as a program, as a host does, and return what it prints."""
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": check, **options}}))
    done = subprocess.run(
        [sys.executable, "-m", f"{MODULES}.{name}", str(arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "DOCKER_HOST": f"unix://{tmp_path}/no.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("check", [False, True])
def test_nvidia_facts_needs_no_option(tmp_path, check):
    result = run("nvidia_facts", tmp_path, check)
    facts = result["ansible_facts"]["nvidia"]
    assert result["changed"] is False
    assert facts["schema"] == 1
    assert facts["host"]["kernel"]["running"] == os.uname().release


def test_nvidia_facts_refuses_no_time(tmp_path):
    result = run("nvidia_facts", tmp_path, timeout=0)
    assert result["failed"]
    assert result["msg"] == "timeout has to be at least 1 second, not 0."


@pytest.mark.parametrize("check", [False, True])
def test_dify_facts(tmp_path, check):
    secret = tmp_path / "api_key.env"
    secret.write_text("API_KEY=correct-horse-battery-staple\n")
    result = run("dify_facts", tmp_path, check, files=[str(tmp_path / "absent")], secrets={str(secret): DIGEST}, images=["a:1"])
    facts = result["ansible_facts"]["dify"]
    assert result["changed"] is False
    assert facts["files"][str(tmp_path / "absent")]["exists"] is False
    assert facts["secrets"][str(secret)]["matches"] is False
    assert facts["images"] == {"a:1": None}
    assert facts["error"]
    assert DIGEST not in json.dumps(result)
    assert "correct-horse" not in json.dumps(result)


def test_dify_facts_refuses_what_is_no_digest_without_telling_it(tmp_path):
    result = run("dify_facts", tmp_path, secrets={"/a": "hunter2"})
    assert result["failed"]
    assert "secrets: the value of /a has to be a SHA-256" in result["msg"]
    assert "hunter2" not in json.dumps(result)


def test_dify_facts_refuses_no_time(tmp_path):
    assert run("dify_facts", tmp_path, timeout=-1)["msg"] == "timeout has to be at least 1 second, not -1."


def documented(contains, facts, path=""):
    """Assert that RETURN names just the keys that the facts have, as deep as it describes them."""
    assert set(contains) == set(facts), path
    for key, entry in contains.items():
        if "contains" in entry and isinstance(facts[key], dict):
            documented(entry["contains"], facts[key], f"{path}.{key}")


@pytest.mark.parametrize("name", ["nvidia_facts", "dify_facts"])
def test_the_documentation_names_what_is_returned(tmp_path, name):
    yaml = pytest.importorskip("yaml")
    module = importlib.import_module(f"{MODULES}.{name}")
    beside = Path(module.__file__).with_suffix(".yml")
    returned = yaml.safe_load(beside.read_text())["RETURN"] if beside.exists() else yaml.safe_load(module.RETURN)
    documented(returned["ansible_facts"]["contains"], run(name, tmp_path)["ansible_facts"])


@pytest.mark.parametrize("check", [False, True])
def test_nvidia_packages_info_changes_nothing(tmp_path, check):
    yaml = pytest.importorskip("yaml")
    result = run("nvidia_packages_info", tmp_path, check, branch="580", alternatives=[["nvidia-never-heard-of"]], also={"x": ["y"]})
    assert result["changed"] is False
    assert (result["packages"]["choice"], result["packages"]["also"]) == (None, {"x": None})
    assert result["packages"]["error"]
    module = importlib.import_module(f"{MODULES}.nvidia_packages_info")
    documented(yaml.safe_load(module.RETURN)["packages"]["contains"], result["packages"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branch": "580", "timeout": 0}, "timeout has to be at least 1 second, not 0."),
        ({"branch": "new"}, "branch has to be three digits, such as '580', not 'new'."),
        ({"branch": "580", "alternatives": [["-oDebug=1"]]}, "'-oDebug=1' is no name of a package."),
        ({}, "branch or version is needed to look for a driver."),
    ],
)
def test_nvidia_packages_info_refuses(tmp_path, options, message):
    result = run("nvidia_packages_info", tmp_path, **options)
    assert result["failed"]
    assert result["msg"] == message
