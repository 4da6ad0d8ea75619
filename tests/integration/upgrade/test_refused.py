# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused in the plan, what fails before a driver is touched, and a host that never comes back."""
from __future__ import annotations

import subprocess

from thorough import thorough

from .lab import OLD, SERVER, Load, Site

ONE, OTHER = PAIR = ("g3", "g4")
IMAGE = "difyops-demo/simulated-cuda-base:1"


def test_a_driver_that_drops_the_gpu_is_refused_in_the_plan(site: Site) -> None:
    site.simhost("profile", ONE, "v100-470", "package_prefix=nvidia")
    try:
        run = site.upgrade([ONE], "--check", branch="595")
        run.ends(ONE, "blocked", "595", "V100")
    finally:
        site.simhost("profile", ONE, "a10-535", "package_prefix=nvidia")


def test_without_a_way_back_there_is_no_upgrade_but_by_consent(site: Site) -> None:
    # Without package lists nobody knows of a dpkg-repack.
    site.sh(ONE, "dpkg --purge dpkg-repack > /dev/null; mv /var/lib/apt/lists /var/lib/lists.away; mkdir /var/lib/apt/lists")
    try:
        run = site.upgrade([ONE], "--check")
        run.ends(ONE, "blocked", "upgrade_without_rollback", code="DG850")
        consented = site.upgrade([ONE], "--check", upgrade_without_rollback=True)
        consented.ends(ONE, "checked")
        assert "NO WAY BACK" in consented.output
    finally:
        site.sh(ONE, "rm -r /var/lib/apt/lists; mv /var/lib/lists.away /var/lib/apt/lists")


def test_no_more_than_allowed_are_out_of_service(site: Site) -> None:
    gone = {OTHER: {"ansible_port": 9}}
    run = site.upgrade(PAIR, "--check", each=gone, upgrade_max_unavailable=1)
    run.ends(OTHER, "unreachable")
    run.ends(ONE, "blocked", code="DG851")
    assert "WAVES" not in run.output


def test_options_that_are_none_are_one_sentence(site: Site) -> None:
    for variables, words in (
        ({"upgrade_serial": "many"}, "upgrade_serial has to be a number of hosts"),
        ({"upgrade_canary": ["g9"]}, "upgrade_canary names g9, which is no host of this run"),
        ({"upgrade_on_failure": "pray"}, "upgrade_on_failure has to be rollback or leave; found pray"),
        ({"upgrade_back_tasks": ""}, "upgrade_out_tasks and upgrade_back_tasks belong together"),
    ):
        run = site.upgrade([ONE], "--check", **variables)
        assert run.rc != 0 and words in site.text(run.output), run.output
        assert "Traceback" not in run.output


def test_a_full_disk_is_said_before_anything_is_changed(site: Site) -> None:
    site.sh(OTHER, "mkdir -p /var/lib/difyops/upgrade; mount -t tmpfs -o size=1m tmpfs /var/lib/difyops/upgrade")
    run = site.upgrade([OTHER])
    run.ends(OTHER, "failed", "room", code="DG782", phase="save")
    assert site.loaded(OTHER) == OLD
    site.serves(OTHER)
    site.sh(OTHER, "umount /var/lib/difyops/upgrade")


@thorough
def test_a_container_that_does_not_end_keeps_its_gpu(site: Site) -> None:
    endless = "sh -c 'trap : TERM; while :; do sleep 1; done'"
    site.sh(OTHER, f"docker run --detach --name test-stubborn --device nvidia.com/gpu=all {IMAGE} {endless} > /dev/null")
    run = site.upgrade([OTHER], nvidia_driver_drain_containers=["*"], nvidia_driver_drain_timeout=6)
    run.ends(OTHER, "failed", "test-stubborn", code="DG776", phase="driver", in_service=True)
    assert site.loaded(OTHER) == OLD
    site.serves(OTHER)
    assert site.sh(OTHER, "docker inspect -f '{{.State.Running}}' test-stubborn") == "true"
    site.sh(OTHER, "docker rm --force test-stubborn > /dev/null")


def test_a_mirror_that_lacks_the_driver_stops_the_run_with_that_host(site: Site) -> None:
    bad = {"url": f"{SERVER}/nvidia/none/", "suite": "./", "key": f"{SERVER}/key.asc", "fingerprint": site.fingerprint}
    run = site.upgrade(PAIR, each={ONE: {"nvidia_driver_repository": bad}})
    run.ends(ONE, "failed", phase="driver", in_service=True)
    run.ends(OTHER, "not_run", ONE, code="DG856")
    for host in PAIR:
        site.settled(host, "535")


def test_a_host_that_never_comes_back_is_lost_and_the_others_of_its_wave_finish(site: Site) -> None:
    subprocess.run(["docker", "update", "--restart", "no", site.container(ONE)], check=True, capture_output=True)
    with Load(site.port) as load:
        run = site.upgrade(PAIR, upgrade_canary=0, upgrade_serial=2, each={ONE: {"nvidia_driver_reboot_timeout": 8}})
    assert load.problems == [], load.problems[:10]
    run.ends(ONE, "lost", code="DG852", phase="driver", in_service=False)
    run.ends(OTHER, "upgraded")
    site.settled(OTHER, "580")


def test_the_next_run_finishes_the_host_that_was_lost(site: Site) -> None:
    subprocess.run(["docker", "update", "--restart", "always", site.container(ONE)], check=True, capture_output=True)
    subprocess.run(["docker", "start", site.container(ONE)], check=True, capture_output=True)
    site.until(lambda: site.sh(ONE, "systemctl is-system-running --wait 2> /dev/null || true") in ("running", "degraded"), "it is up")
    run = site.upgrade(PAIR)
    run.ends(ONE, "upgraded", wave="resume")
    run.ends(OTHER, "unchanged")
    site.settled(ONE, "580")
