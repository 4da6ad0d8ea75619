# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

MODULE = "ansible_collections.difyops.gpu.plugins.modules.docker_daemon_config"
CDI = {"features": {"cdi": True}}
SECRET = "hunter2-and-more"  # noqa: S105  what has to be seen nowhere


@pytest.fixture
def run(tmp_path):
    """Run the module as a program, as a host does, with a daemon.json of its own. The engine of this machine is not asked."""
    path = tmp_path / "docker" / "daemon.json"
    path.parent.mkdir()

    def runs(content=None, **options):
        if content is not None:
            path.write_text(content)
        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"path": str(path), "validate": False, **options}}))
        done = subprocess.run(
            [sys.executable, "-m", MODULE, str(arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    runs.path = path
    return runs


def test_it_sets_keeps_a_backup_and_has_nothing_to_do_again(run):
    result = run('{"debug": true}\n', settings=CDI, absent=[["debug"]])
    assert (result["changed"], result["restart"], result["validated"]) == (True, "restart", False)
    assert run.path.read_text() == '{"features": {"cdi": true}}\n'
    with open(result["backup_file"]) as backup:
        assert backup.read() == '{"debug": true}\n'
    assert result["diff"]["before"] == '{"debug": true}\n' and result["diff"]["after"] == run.path.read_text()
    before = run.path.stat()
    again = run(settings=CDI, absent=[["debug"]])
    assert {key: again[key] for key in ("changed", "changes", "restart", "validated", "backup_file")} == {
        "changed": False,
        "changes": [],
        "restart": "none",
        "validated": None,
        "backup_file": None,
    }
    assert run.path.stat().st_ino == before.st_ino and len(os.listdir(run.path.parent)) == 2


def test_check_mode_tells_the_same_and_writes_nothing(run):
    told = run("{}\n", settings=CDI, _ansible_check_mode=True)
    assert (run.path.read_text(), os.listdir(run.path.parent)) == ("{}\n", ["daemon.json"])
    done = run(settings=CDI)
    assert told["backup_file"] is None and done["backup_file"]
    assert all(told[key] == done[key] for key in ("changed", "changes", "diff", "restart"))


def test_check_mode_makes_no_folder(run, tmp_path):
    told = run(settings=CDI, path=str(tmp_path / "never" / "daemon.json"), _ansible_check_mode=True)
    assert told["changed"] and not (tmp_path / "never").exists()


def test_without_a_backup(run):
    assert run("{}", settings=CDI, backup=False)["backup_file"] is None
    assert os.listdir(run.path.parent) == ["daemon.json"]


def test_a_broken_file_is_refused_in_one_sentence_or_replaced_with_a_backup(run):
    broken = f'{{\n  # {SECRET}\n  "debug": true\n}}\n'
    result = run(broken, settings=CDI)
    assert result["failed"] and result["code"] == "DG807"
    assert result["msg"].startswith(f"DG807: {run.path} cannot be read: line 2, column 3: there is a comment")
    result = run(settings=CDI, invalid="replace", backup=False)
    assert json.loads(run.path.read_text()) == CDI
    with open(result["backup_file"]) as backup:
        assert backup.read() == broken
    assert SECRET not in json.dumps(result)


def test_secrets_are_returned_nowhere(run):
    settings = {"log-opts": {"splunk-token": SECRET, "tag": "plain"}, "proxies": {"http-proxy": f"http://me:{SECRET}@proxy:1"}}
    result = run("{}", settings=settings, _ansible_diff=True)
    assert SECRET not in json.dumps(result)
    assert json.loads(run.path.read_text()) == settings
    assert '"tag": "plain"' in result["diff"]["after"]
    assert result["invocation"]["module_args"]["settings"]["log-opts"]["tag"] == "plain"
    assert SECRET not in json.dumps(run("{", settings=settings))
    assert SECRET not in json.dumps(run(settings=settings, absent=[["log-opts"]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": {"a": 1}, "absent": [["a"]]}, "a is in settings and in absent; it can be only in one of them."),
        ({"absent": [[]]}, "absent has an empty path; each path needs at least one key, such as [runtimes, nvidia]."),
        ({"settings": {"a": float("nan")}}, "settings has to be what JSON can express, no infinite numbers, and at most 100 levels deep."),
    ],
)
def test_wishes_that_cannot_be_are_refused(run, options, words):
    result = run("{}", **options)
    assert result["failed"]
    assert result["msg"] == words
    assert run.path.read_text() == "{}"


def test_the_documentation_names_what_is_returned(run):
    yaml = pytest.importorskip("yaml")
    documented = yaml.safe_load(importlib.import_module(MODULE).RETURN)
    done, failed = run("{}", settings=CDI), run("{", settings=CDI)
    # What Ansible adds by itself to a result with a path, and to every result.
    own = {"uid", "gid", "owner", "group", "mode", "state", "size", "invocation", "changed", "diff", "failed", "msg"}
    assert set(documented) == (set(done) | set(failed)) - own
