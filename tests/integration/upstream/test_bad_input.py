# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong is told in one sentence before anything is touched."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .lab import LOGIN_REGISTRY, App, Site, archive, sha256


@pytest.fixture(scope="module")
def untouched(app: App) -> App:
    """Return the host bare again: what is refused must leave it so."""
    app.bare()
    return app


def _refused(app: App, code: str, *words: str, **wishes: Any) -> None:
    before = app.state()
    app.deploy(**wishes).blocked(code, *words)
    assert app.state() == before


def test_a_version_that_does_not_exist(untouched: App, tmp_path: Path) -> None:
    missing = tmp_path / "dify-1.99.0.tar.gz"
    _refused(untouched, "DG901", "1.99.0", dify_version="1.99.0", dify_archive=str(missing))


def test_an_archive_that_is_cut_off(untouched: App, site: Site) -> None:
    _refused(untouched, "DG902", dify_version="1.17.1", dify_archive=str(archive(site.archives, "9.0.1-cut")))


def test_an_archive_without_a_compose_file(untouched: App, site: Site) -> None:
    _refused(untouched, "DG902", "docker-compose.yaml", dify_version="1.17.1", dify_archive=str(archive(site.archives, "9.0.0-no-compose")))


def test_an_archive_that_leads_out_of_its_folder(untouched: App, site: Site) -> None:
    _refused(untouched, "DG902", dify_version="1.17.1", dify_archive=str(archive(site.archives, "9.0.2-leads-out")))
    assert untouched.sh("test ! -e /leads-out && test ! -e /opt/leads-out && echo gone").strip() == "gone"


def test_a_wrong_checksum(untouched: App) -> None:
    _refused(untouched, "DG903", dify_archive_checksum="sha256:" + "0" * 64)


def test_the_right_checksum_is_taken(untouched: App, site: Site) -> None:
    run = untouched.deploy("--check", dify_archive_checksum=sha256(archive(site.archives, "1.17.1")))
    assert run.plan["status"] == "change", run.output


def test_a_port_in_use(untouched: App) -> None:
    untouched.sh("systemd-run --quiet --unit=squatter python3 -m http.server 80; until ss -ltn | grep -q ':80 '; do sleep 0.1; done")
    try:
        _refused(untouched, "DG905", "80", "python3")
    finally:
        untouched.sh("systemctl stop squatter")


def test_too_little_disk(untouched: App) -> None:
    untouched.sh("mkdir -p /opt/dify && mount -t tmpfs -o size=8m tmpfs /opt/dify")
    try:
        _refused(untouched, "DG906", "/opt/dify")
    finally:
        untouched.sh("umount /opt/dify && rmdir /opt/dify")


def test_a_registry_that_needs_a_login(untouched: App) -> None:
    run = untouched.deploy(dify_registry=LOGIN_REGISTRY)
    assert run.run.rc != 0 and "Traceback" not in run.output, run.output
    assert run.outcome["code"] == "DG908" and LOGIN_REGISTRY in run.outcome["message"], run.outcome
    assert untouched.containers() == {} and untouched.phase() == "pull"
    # With a registry that answers, the next run would go on.
    again = untouched.deploy("--check")
    assert (again.plan["status"], again.plan["action"]) == ("change", "finish"), again.plan
    untouched.bare()


def test_a_key_that_the_release_does_not_know_is_warned_about(untouched: App) -> None:
    run = untouched.deploy("--check", dify_version="1.17.2", dify_env={"DEBUG": "true", "LOG_LEVEL": "INFO"})
    run.warned("DG910", "DEBUG")
    assert "LOG_LEVEL" not in str([one for one in run.plan["warnings"] if one["code"] == "DG910"])


def test_unpinned_images_are_named(untouched: App) -> None:
    untouched.deploy("--check").warned("DG917", "nginx:latest", "busybox:latest", "ubuntu/squid:latest")


def test_a_public_default_cannot_be_given(untouched: App) -> None:
    _refused(untouched, "DG913", "DB_PASSWORD", dify_secrets={"DB_PASSWORD": "difyai123456"})


def test_no_site_url(untouched: App) -> None:
    _refused(untouched, "DG922", "dify_url", dify_url="")


def test_a_certificate_without_its_key(untouched: App, tmp_path: Path) -> None:
    certificate = tmp_path / "site.crt"
    certificate.write_text("not a certificate\n")
    _refused(untouched, "DG919", dify_tls_certificate=str(certificate), dify_tls_key=str(tmp_path / "missing.key"))


def test_too_little_memory(untouched: App) -> None:
    untouched.sh("sed -E 's/^(MemTotal|MemAvailable|MemFree): .*/\\1: 900000 kB/' /proc/meminfo > /run/meminfo")
    untouched.sh("mount --bind /run/meminfo /proc/meminfo")
    try:
        _refused(untouched, "DG907")
    finally:
        untouched.sh("umount /proc/meminfo")


def test_a_compose_that_is_too_old(untouched: App) -> None:
    """The hosts' own is 2.26; releases after 1.17 want a newer one."""
    version = untouched.sh("docker compose version --short").strip().partition("-")[0]
    _refused(untouched, "DG909", version, "2.35", dify_version="1.18.0")
