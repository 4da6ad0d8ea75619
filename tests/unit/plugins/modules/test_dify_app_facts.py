# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module dify_app_facts as a program, as a host runs it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.difyops.gpu.tests.unit.plugins.modules.test_facts_modules import run


@pytest.mark.parametrize("check", [False, True])
def test_it_observes_in_any_mode_and_needs_no_engine(tmp_path, check):
    home = tmp_path / "dify"
    (home / "releases/1.17.1/docker").mkdir(parents=True)
    (home / "releases/1.17.1/docker/docker-compose.yaml").write_text("services: {}\n")
    (home / "releases/1.17.1/docker/.env.example").write_text("LOG_LEVEL=INFO\nDB_PASSWORD=public\n")
    (home / "current").symlink_to("releases/1.17.1/docker")
    folder = home / "releases/1.17.1/docker"
    env = {
        "path": str(folder / ".env"),
        "template": str(folder / ".env.example"),
        "settings": {"LOG_LEVEL": "DEBUG"},
        "secrets_file": str(home / "secrets/dify.env"),
        "secrets": [{"name": "DB_PASSWORD", "kind": "letters", "length": 40, "also": []}],
        "derived": {},
        "forbidden": {},
    }
    options = {"home": str(home), "backup_dir": str(tmp_path / "backups"), "images": ["a:1"], "ports": [1], "env": env}
    result = run("dify_app_facts", tmp_path, check, given={"OTHER": "canary"}, **options)
    facts = result["ansible_facts"]["dify_app"]
    assert result["changed"] is False and facts["current"] == "1.17.1" and facts["releases"] == ["1.17.1"]
    assert facts["error"] and facts["images"] == {"a:1": None} and facts["ports"] == []
    assert facts["env"]["generates"] == ["DB_PASSWORD"] and facts["env"]["error"] is None
    assert not (home / "secrets").exists() and not (folder / ".env").exists()
    invocation = {key: value for key, value in result.items() if key == "invocation"}
    assert "canary" not in json.dumps({**result, **invocation})


def test_a_timeout_that_is_none_fails_with_a_sentence(tmp_path):
    result = run("dify_app_facts", tmp_path, timeout=0)
    assert result["failed"] is True and "at least 1 second" in result["msg"]
