# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dify_env as a program, as a host runs it, with the options that the plan makes of a release."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
import yaml
from ansible_collections.difyops.gpu.plugins.module_utils import _dotenv
from ansible_collections.difyops.gpu.plugins.plugin_utils import _release, _release_secrets
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.app_scenarios import archive_file

MODULE = "ansible_collections.difyops.gpu.plugins.modules.dify_env"
VERSIONS = ("1.14.2", "1.16.1", "1.17.1", "1.18.0")
CANARY = "canary-secret-that-nobody-may-see"
# Every public default of upstream that lets somebody in, as its files have them.
PUBLIC = (
    "difyai123456",
    "dify-sandbox",
    "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U",
    "lYkiYYT6owG+71oLerGzA7GXCgOT++6ovaezWAjpCjf+Sjc3ZtU+qUEi",
    "QaHbTe77CtuXmsfyhR7+vRjI/+XbV1AaFy691iy+kGDv2Jvy0/eAh8Y1",
    "WVF5YThaHlkYwhGUSmCRgsX3tD5ngdN8pkih",
    "dify-agent-run-token-for-dev-only",
    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
)


@pytest.fixture(params=VERSIONS)
def host(request, tmp_path):
    """Return a folder with an unpacked `.env.example` of a release, and the options of the plan."""
    release = _release.read(archive_file(request.param, tmp_path), request.param)
    secrets = _release_secrets.of(release)
    template = tmp_path / "docker/.env.example"
    template.parent.mkdir()
    template.write_text("".join(f"{name}={text}\n" for name, text in release.env_example.items()))
    options = {
        "path": str(tmp_path / "docker/.env"),
        "template": str(template),
        "settings": {"LOG_LEVEL": "DEBUG"},
        "secrets_file": str(tmp_path / "secrets/dify.env"),
        "secrets": [dict(item) for item in secrets.secrets],
        "derived": dict(secrets.derived),
        "forbidden": {name: list(digests) for name, digests in secrets.forbidden.items()},
    }

    def run(check=False, **more):
        arguments = tmp_path / "arguments.json"
        internal = {"_ansible_check_mode": check, "_ansible_diff": True}
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **more, **internal}}))
        done = subprocess.run(
            [sys.executable, "-m", MODULE, str(arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        run.said = done.stdout + done.stderr
        return json.loads(done.stdout)

    run.folder, run.options = tmp_path, options
    return run


def test_no_public_default_is_deployed_and_a_second_run_changes_nothing(host):
    before = host(check=True)
    assert before["changed"] and not os.path.exists(host.options["path"]) and not (host.folder / "secrets").exists()
    first = host()
    assert first["changed"] and first["generated"] == before["generated"] == sorted(item["name"] for item in host.options["secrets"])
    assert before["variables"] == first["variables"]
    with open(host.options["path"]) as file:
        text = file.read()
    assert not [value for value in PUBLIC if value in text]
    kept = (host.folder / "secrets/dify.env").read_text()
    values = [line.partition("=")[2] for line in kept.splitlines() if "=" in line]
    assert len(values) == len(first["generated"]) and not [value for value in values if value in json.dumps(first)]
    again = host()
    assert (again["changed"], again["generated"], again["variables"]) == (False, [], {"added": [], "changed": [], "removed": []})
    assert again["backup_file"] is None and again["diff"]["before"] == again["diff"]["after"] == ""
    assert _dotenv.values(text)["CELERY_BROKER_URL"] == f"redis://:{_dotenv.values(text)['REDIS_PASSWORD']}@redis:6379/1"


def test_a_given_secret_is_nowhere_but_in_the_files(host):
    result = host(given={"REDIS_PASSWORD": CANARY})
    assert result["changed"] and CANARY not in host.said
    (host.folder / "secrets/dify.env").chmod(0o644)
    result = host(given={"REDIS_PASSWORD": CANARY + "-2"})
    assert "REDIS_PASSWORD" in result["variables"]["changed"] and CANARY not in host.said
    assert "could be read by others" in json.dumps(result["warnings"])
    assert os.stat(host.folder / "secrets/dify.env").st_mode & 0o777 == os.stat(result["backup_file"]).st_mode & 0o777 == 0o600
    result = host(given={"REDIS_PASSWORD": "difyai123456"})
    assert result["failed"] and result["code"] == "DG913" and "difyai123456" not in host.said


def test_before_the_release_is_unpacked_check_mode_tells_and_a_run_fails(host):
    os.unlink(host.options["template"])
    assert host(check=True)["changed"]
    result = host()
    assert result["failed"] and result["code"] == "DG902" and "unpacked" in result["msg"]


def test_options_and_documentation_agree(monkeypatch):
    module = importlib.import_module(MODULE)
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    seen = {}

    class Stop(Exception):  # noqa: N818
        pass

    def stop(**arguments):
        seen.update(arguments)
        raise Stop

    monkeypatch.setattr(module, "AnsibleModule", stop)
    with pytest.raises(Stop):
        module.main()
    assert set(documented) == set(seen["argument_spec"])
    for name, spec in seen["argument_spec"].items():
        assert documented[name]["type"] == spec["type"] and documented[name].get("default") == spec.get("default")
    assert {name for name, spec in seen["argument_spec"].items() if spec.get("no_log")} == {"given"}
