# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup is worth what another host makes of it."""
from __future__ import annotations

import subprocess

import pytest

from .lab import BACKUPS, ROLLBACK, App, Site, archive

VERSION, NEXT = "1.17.1", "1.17.2"


@pytest.fixture(scope="module")
def backup(site: Site) -> tuple[App, str]:
    """Return a host and the name of a backup that an upgrade left there; the tests of upgrades leave such a one."""
    host = App(site, "app")
    newest = f"ls -d {BACKUPS}/*-{VERSION} 2> /dev/null | sort | tail -1 | xargs --no-run-if-empty basename"
    name = host.sh(newest).strip()
    if not name:
        host.bare()
        host.deploy(dify_version=VERSION).ok()
        host.say("from before")
        host.deploy(dify_version=NEXT).ok()
        name = host.sh(newest).strip()
    return host, name


def test_a_backup_is_brought_to_another_host(site: Site, backup: tuple[App, str]) -> None:
    """With one command: release, data and secrets are those of the backup, the site's address is that of the new host."""
    source, name = backup
    archive(site.archives, VERSION)
    other = App(site, "both")
    other.bare()
    other.sh(f"install -d -m 0700 {BACKUPS}")
    packed = subprocess.run(["docker", "exec", source.container, "tar", "-C", BACKUPS, "-c", name], check=True, capture_output=True).stdout
    subprocess.run(["docker", "exec", "-i", other.container, "tar", "-C", BACKUPS, "-x"], check=True, input=packed)
    before = other.state()
    asked = other.deploy(playbook=ROLLBACK, dify_version=NEXT)
    assert asked.run.rc != 0 and "No Dify runs on this host" in asked.outcome["message"], asked.output
    assert other.state() == before
    run = other.deploy(playbook=ROLLBACK, dify_version=NEXT, dify_rollback_confirm=True).ok()
    # Somebody can log in with the account of then: the proof did.
    assert {link["link"]: link["status"] for link in run.verdict["links"]}["setup"] == "ok"
    assert other.version() == VERSION and other.said("from before")
    assert other.secrets() == dict(
        line.partition("=")[::2] for line in source.sh(f"grep = {BACKUPS}/{name}/secrets.env").splitlines() if not line.startswith("#")
    )
    assert other.environments()["api"]["CONSOLE_CORS_ALLOW_ORIGINS"] == f"http://127.0.0.1:{other.web_port}"
    assert other.worked()[0] > 0
    assert other.deploy(dify_version=VERSION).ok().changed == 0
