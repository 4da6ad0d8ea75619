# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose containers work on its GPU.

The operator's configuration stays to the letter, nobody is cut off without consent, and whoever was cut off comes back.
"""
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from driver.conftest import lent
from driver.lab import same
from thorough import thorough

from .families import BETWEEN, DRIVER, FOUR, NEWER_DRIVER, NEWEST, OLD, UNSAFE, WORK
from .lab import CGROUP_1, DAEMON_JSON, IDLE, LEGACY, OLD_SPEC, RESTART, SPEC, PlatformFleet, PlatformHost

JOURNAL = "/var/lib/difyops/container_engine/journal.json"
# Docker's configuration as the tests find it.
GOOD = "/var/cache/daemon.good"
# What needs a restart of the engine, and harms nobody.
OTHER_LOG = {"log-driver": "local"}
# What the engine takes when it is asked, and cannot start with.
NO_SUCH_STORAGE = {"storage-driver": "no-such-storage"}


class Work(PlatformHost):
    """A host with engine and toolkit, and a container that uses its GPU."""

    def prepare(self) -> None:
        self.bare()
        self.standin_image()
        self.provision(toolkit_version=OLD).ends("changed")
        self.start("dify")
        self.sh(f"cp -p {DAEMON_JSON} {GOOD}")

    def heal(self) -> None:
        """Undo what a test did, whatever came of it: the configuration, the engine, the toolkit, the container."""
        super().heal()
        self.sh(f"""
            while mountpoint -q /etc/docker; do umount /etc/docker; done
            rm -f {DAEMON_JSON}.* {OLD_SPEC}* {JOURNAL}
            if ! cmp -s {GOOD} {DAEMON_JSON}; then cp -p {GOOD} {DAEMON_JSON}; {RESTART}; fi
            systemctl start docker.service
        """)
        if set(self.toolkit().values()) != {OLD}:
            self.prepare()
        if self.sh("docker start dify > /dev/null 2>&1 && echo yes || true").strip() != "yes":
            self.start("dify")

    def restarted(self, before: dict[str, tuple[str, bool, str]]) -> None:
        """Assert that the same containers run again."""
        after = {name: self.state(name) for name in before}
        for name, (identity, _running, started) in before.items():
            assert after[name][:2] == (identity, True), (name, before, after)
            assert after[name][2] != started, f"{name} was not stopped"


@pytest.fixture(scope="module")
def prepared(fleet: PlatformFleet) -> Work:
    """Return the host with a toolkit and a container that is proven."""
    host = Work(fleet, WORK)
    host.prepare()
    host.proven()
    return host


@pytest.fixture
def work(prepared: Work) -> Iterator[Work]:
    """Return the host at work."""
    yield from lent(prepared)


def states(host: Work, *names: str) -> dict[str, tuple[str, bool, str]]:
    return {name: host.state(name) for name in names}


# --- the operator's own configuration ---------------------------------------------------------------------------------

# Not as a program would write it: tabs, an order of its own, objects in one line, no newline at the end.
OPERATORS = """{
\t"log-driver": "json-file",
\t"log-opts":   {"max-size": "10m", "max-file": "3"},
\t"registry-mirrors": [ "https://mirror.example.org" ],
\t"features": { "buildkit": true },
\t"runtimes": {
\t\t"crun": {"path": "/usr/local/bin/crun", "runtimeArgs": ["--debug",  "--log=/var/log/crun.log"]}
\t},

\t"max-concurrent-downloads": 7
}"""


def test_the_operators_configuration_is_kept_to_the_letter(work: Work) -> None:
    work.sh("docker rm --force dify")
    work.configured(OPERATORS)
    before = work.whole()
    told = work.check(toolkit_version=OLD)
    same(before, work.whole())
    assert told.first("engine")["daemon_config"]["settings"] == {"features": {"cdi": True}}, told.first("engine")["daemon_config"]
    diff = [line for line in told.output.splitlines() if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))]
    assert any('"cdi"' in line for line in diff), told.output
    assert not [line for line in diff if "log-driver" in line or "registry-mirrors" in line or "crun" in line], diff
    work.provision(toolkit_version=OLD).ends("changed")
    after = work.daemon_json()
    # One piece of text more, in one place, and it is ours.
    start = next(at for at in range(len(OPERATORS)) if OPERATORS[at] != after[at])
    added = after[start:start + len(after) - len(OPERATORS)]
    assert after == OPERATORS[:start] + added + OPERATORS[start:], after
    assert "".join(added.split()).strip(",") == '"cdi":true', added
    backups = work.sh(f"ls {DAEMON_JSON}.*").split()
    assert OPERATORS in [work.sh(f"cat {backup}") for backup in backups], backups
    work.start("dify")
    work.proven()
    work.provision(toolkit_version=OLD).quiet()


@thorough
def test_a_file_with_comments_is_refused_and_replaced_only_by_consent(work: Work) -> None:
    text = '{\n  // ours\n  "log-driver": "json-file"\n}\n'
    work.wrote(text)
    before = work.whole()
    wishes = {"toolkit_version": OLD, "engine_daemon_config": OTHER_LOG, "engine_restart": "if_needed"}
    work.provision(**wishes).ends("blocked", DAEMON_JSON, "line 2", "container_engine_invalid_daemon_config", code="DG807")
    same(before, work.whole())
    engine = work.state("dify")
    run = work.provision(**wishes, engine_invalid_daemon_config="replace").ends("changed")
    assert json.loads(work.daemon_json())["features"]["cdi"] is True, run.output
    assert text in [work.sh(f"cat {backup}") for backup in work.sh(f"ls {DAEMON_JSON}.*").split()]
    assert work.state("dify")[:2] == engine[:2]
    work.proven()


# --- restarting the engine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["if_idle", "never"])
def test_without_consent_nobody_is_cut_off(work: Work, policy: str) -> None:
    work.start("without", gpu=False, command=IDLE)
    before = work.whole()
    run = work.provision(toolkit_version=OLD, engine_daemon_config=OTHER_LOG, engine_restart=policy)
    run.blocked("engine", "DG806", "dify", "without", "container_engine_restart")
    same(before, work.whole())


def test_with_consent_all_come_back(work: Work) -> None:
    work.start("without", gpu=False, command=IDLE)
    work.start("always", "--restart always", gpu=False, command=IDLE)
    # Stopped by its operator: it stays so.
    work.start("stopped", gpu=False, command=IDLE)
    work.sh("docker stop --time 0 stopped")
    before = states(work, "dify", "without", "always")
    run = work.provision(toolkit_version=OLD, engine_daemon_config=OTHER_LOG, engine_restart="if_needed").ends("changed")
    guard = run.first("engine")["guard"]
    assert sorted((one["name"], one["gpu"], one["comes_back"]) for one in guard["containers"]) == [
        ("always", False, True), ("dify", True, False), ("without", False, False),
    ], guard
    assert sorted(one["name"] for one in guard["again"]) == ["dify", "without"], guard
    work.restarted(before)
    assert work.state("stopped")[1] is False
    assert work.sh("docker info --format '{{.LoggingDriver}}'").strip() == "local"
    work.proven()
    assert work.facts()["engine"]["journal"] is None
    work.provision(toolkit_version=OLD, engine_daemon_config=OTHER_LOG).quiet()


@thorough
def test_with_live_restore_a_restart_cuts_nobody_off(work: Work) -> None:
    before = work.state("dify")
    # It is switched on by a reload, which stops nobody either.
    run = work.provision(toolkit_version=OLD, engine_live_restore=True).ends("changed")
    assert (run.first("engine")["activation"], run.first("engine")["guard"]) == ("reload", None), run.first("engine")
    wishes = {"engine_live_restore": True, "engine_daemon_config": OTHER_LOG}
    run = work.provision(toolkit_version=OLD, **wishes).ends("changed")
    assert (run.first("engine")["activation"], run.first("engine")["guard"]) == ("restart", None), run.first("engine")
    assert work.sh("docker info --format '{{.LoggingDriver}} {{.LiveRestoreEnabled}}'").split() == ["local", "true"]
    assert work.state("dify") == before
    work.proven()


def test_the_runtime_of_before_cdi_is_known_when_the_run_is_over(work: Work) -> None:
    before = work.state("dify")
    run = work.provision(toolkit_version=OLD, toolkit_injection="runtime").ends("changed")
    assert run.first("toolkit")["activation"] == "reload", run.first("toolkit")
    work.start("legacy", *LEGACY, gpu=False)
    work.proven("legacy")
    assert work.state("dify") == before, "a reload stops nobody"
    work.provision(toolkit_version=OLD, toolkit_injection="runtime").quiet()


def test_a_run_that_is_killed_while_the_engine_restarts_is_finished_by_the_next(work: Work) -> None:
    before = states(work, "dify")
    wishes = {"toolkit_version": OLD, "engine_daemon_config": OTHER_LOG, "engine_restart": "if_needed"}
    # It is at work as long as docker does not answer, and docker is kept from it until the controller is dead.
    hold = "/etc/systemd/system/docker.service.d/slow.conf"
    work.sh(f"mkdir -p {hold.rpartition('/')[0]}; printf '[Service]\\nExecStartPre=/bin/sleep 15\\n' > {hold}; systemctl daemon-reload")
    work.undo(f"rm -f {hold}; systemctl daemon-reload")
    work.interrupted(f"[ -s {JOURNAL} ] && systemctl is-active docker.service | grep -qx activating", **wishes)
    work.waits_for("systemctl is-active --quiet docker.service", 60)
    assert work.state("dify")[1] is False, "it was killed too late"
    assert [one["name"] for one in work.facts()["engine"]["journal"]["containers"]] == ["dify"]
    run = work.provision(**wishes).ends("changed")
    assert [one["name"] for one in run.first("engine")["restart"]] == ["dify"], run.first("engine")
    work.restarted(before)
    work.proven()
    work.provision(**wishes).quiet()


@thorough
def test_a_container_that_does_not_start_again_is_named(work: Work) -> None:
    # It starts once, and never again.
    once = "sh -c 'test -e /tmp/once && exit 7; touch /tmp/once; exec sleep infinity'"
    work.start("once", gpu=False, command=once)
    before = states(work, "dify")
    wishes = {"toolkit_version": OLD, "engine_daemon_config": OTHER_LOG, "engine_restart": "if_needed"}
    run = work.provision(**wishes).ends("failed", "once", "docker logs", code="DG810")
    assert run.run.rc != 0 and "dify" not in run.record["message"], run.record
    work.restarted(before)
    journal = work.facts()["engine"]["journal"]
    assert sorted(one["name"] for one in journal["containers"]) == ["dify", "once"], journal
    # It is not forgotten, and nobody else is cut off for it.
    before = states(work, "dify")
    work.provision(**wishes).ends("failed", "once", code="DG810")
    assert states(work, "dify") == before
    # Its operator does as it is told.
    work.sh("docker rm --force once")
    work.provision(**wishes).ends("changed")
    assert work.facts()["engine"]["journal"] is None and states(work, "dify") == before
    work.provision(**wishes).quiet()


def test_an_engine_that_was_stopped_is_started(work: Work) -> None:
    work.sh("systemctl stop docker.socket docker.service")
    told = work.check(toolkit_version=OLD)
    assert told.run.rc == 0 and told.first("engine")["activation"] == "start", told.output
    run = work.provision(toolkit_version=OLD).ends("changed")
    assert run.first("engine")["service"]["running"] is True, run.first("engine")
    assert work.facts()["engine"]["service"] == {"enabled": True, "active": True}


# --- what the engine says no to -----------------------------------------------------------------------------------------


def test_a_configuration_that_the_engine_refuses_is_not_written(work: Work) -> None:
    before = work.whole()
    run = work.provision(toolkit_version=OLD, engine_daemon_config={"no-such-setting": True}, engine_restart="if_needed")
    run.ends("failed" if run.record["result"] == "failed" else "blocked", "no-such-setting", code="DG808")
    assert run.run.rc != 0
    same(before, work.whole())


def test_where_the_engine_does_not_come_back_the_old_configuration_does(work: Work) -> None:
    before, text = states(work, "dify"), work.daemon_json()
    run = work.provision(toolkit_version=OLD, engine_daemon_config=NO_SUCH_STORAGE, engine_restart="if_needed")
    run.ends("failed", "no-such-storage", code="DG809")
    assert run.run.rc != 0 and work.daemon_json() == text
    work.restarted(before)
    work.proven()
    assert work.facts()["engine"]["journal"] is None
    work.provision(toolkit_version=OLD).quiet()


def test_a_full_disk_leaves_the_configuration_as_it_was(work: Work) -> None:
    work.sh(f"""
        text=$(cat {DAEMON_JSON}; echo .)
        mount -t tmpfs -o size=16k tmpfs /etc/docker
        printf %s "${{text%.}}" > {DAEMON_JSON}
        dd if=/dev/zero of=/etc/docker/filler bs=4096 2> /dev/null || true
    """)
    before = work.whole()
    run = work.provision(toolkit_version=OLD, engine_daemon_config=OTHER_LOG, engine_restart="if_needed")
    run.ends("blocked", DAEMON_JSON, code="DG820")
    assert run.run.rc != 0
    same(before, work.whole())


# --- what a container loses, and what it keeps --------------------------------------------------------------------------


# As on most hosts with systemd: it is systemd that keeps the rules about devices. It sets them again when it starts a unit after a reload.
SYSTEMD = {"exec-opts": ["native.cgroupdriver=systemd"], "default-cgroupns-mode": "private"}
RUNTIME = {"features": {"cdi": True}, "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}, **SYSTEMD}
RELOAD = "systemctl daemon-reload; systemctl restart simrepo.service; sleep 0.5"
MODE = "sed -i 's/^mode = .*/mode = \"{mode}\"/' /etc/nvidia-container-runtime/config.toml"


@pytest.mark.skipif(not CGROUP_1, reason="the device rules of cgroup 2 are a program that nobody but its owner can change")
def test_a_gpu_that_was_given_the_legacy_way_is_lost_at_a_daemon_reload_and_by_cdi_it_is_kept(work: Work) -> None:
    work.sh(MODE.format(mode="legacy"))
    work.undo(MODE.format(mode="auto"))
    work.configured(json.dumps(RUNTIME))
    work.start("dify")
    work.start("legacy", *LEGACY, gpu=False)
    work.proven("legacy")
    work.sh(RELOAD)
    lost = work.verdict("legacy")
    assert (lost["overall"], lost["code"]) == ("failed", "DG302"), json.dumps(lost, indent=1)
    assert "recreate the container" in lost["remedy"], lost["remedy"]
    # Not only said: the kernel refuses it.
    refused = work.sh("docker exec legacy sh -c 'exec 3< /dev/nvidia0' 2>&1 || true")
    assert "not permitted" in refused, refused
    work.proven("dify")
    run = work.check(toolkit_version=NEWEST)
    run.blocked("toolkit", "DG817", "legacy")
    run = work.check(toolkit_version=NEWEST, toolkit_legacy_containers="warn")
    needs = {one["name"]: (one["how"], one["needs"]) for one in run.first("toolkit")["containers"]}
    assert needs == {"dify": ("cdi", "nothing"), "legacy": ("runtime", "recreate")}, run.first("toolkit")["containers"]
    run.warned("toolkit", "DG817", "legacy")
    # Made anew with CDI, it keeps its GPU.
    work.start("legacy")
    work.sh(RELOAD)
    work.proven("legacy")


# --- specifications -------------------------------------------------------------------------------------------------------


def test_a_specification_of_another_driver_is_made_anew(work: Work) -> None:
    """As after a driver that somebody loaded without telling."""
    work.sh("docker rm --force dify")
    work.sh(f"sed -i 's/{DRIVER}/{NEWER_DRIVER}/g' {SPEC}")
    specs = work.facts()["toolkit"]["cdi"]["specs"]
    assert [spec["stale"] for spec in specs] == [True] and specs[0]["driver_version"] == NEWER_DRIVER, specs
    run = work.provision(toolkit_version=OLD).ends("changed")
    reasons = " ".join(run.first("toolkit")["cdi"]["reasons"])
    assert DRIVER in reasons and NEWER_DRIVER in reasons, run.first("toolkit")["cdi"]
    assert work.described()["driver_version"] == DRIVER
    work.start("dify")
    work.proven()


@thorough
def test_a_specification_of_other_mig_devices_is_made_anew(work: Work) -> None:
    """The packaged unit does not see when the GPU is split otherwise."""
    work.sh("docker rm --force dify")
    work.profile(profile="a100-mig-550")
    work.provision(toolkit_version=OLD)
    before = work.described()["devices"]
    device = next(line for line in work.sh("cat /etc/simgpu/profile").splitlines() if line.startswith("gpu.0.mig_device."))
    work.sh(f"sed -i '/^{device.partition('=')[0]}=/d' /etc/simgpu/profile")
    assert [spec["stale"] for spec in work.facts()["toolkit"]["cdi"]["specs"]] == [True]
    work.provision(toolkit_version=OLD).ends("changed")
    after = work.described()["devices"]
    assert set(after) < set(before), (before, after)
    work.provision(toolkit_version=OLD).quiet()


def test_a_second_specification_is_a_warning_and_goes_by_consent(work: Work) -> None:
    work.sh(f"mkdir -p /etc/cdi; sed 's/{DRIVER}/{NEWER_DRIVER}/' {SPEC} > {OLD_SPEC}")
    text = work.sh(f"cat {OLD_SPEC}")
    before = work.whole()
    run = work.provision(toolkit_version=OLD)
    run.warned("toolkit", "DG816", OLD_SPEC, "nvidia_container_toolkit_stale_specs")
    same(before, work.whole())
    work.provision(toolkit_version=OLD, toolkit_stale_specs="remove").ends("changed")
    assert work.sh(f"cat {OLD_SPEC}.before-difyops") == text
    work.described()
    work.proven()


def test_where_no_specification_can_be_made_it_is_said_why(work: Work) -> None:
    work.sh("rm -r /var/run/cdi; touch /var/run/cdi")
    work.undo("rm -rf /var/run/cdi; systemctl reset-failed nvidia-cdi-refresh.service; systemctl restart nvidia-cdi-refresh.service")
    before = work.state("dify")
    run = work.provision(toolkit_version=OLD).ends("failed", SPEC, "there is none", "nvidia-ctk", code="DG814")
    # In the words of nvidia-ctk, not of systemd.
    assert run.run.rc != 0 and "exited" not in run.record["message"] and "said nothing" not in run.record["message"], run.record
    assert work.state("dify") == before
    work.sh("rm /var/run/cdi")
    work.provision(toolkit_version=OLD).ends("changed")
    work.described()
    work.start("dify")
    work.proven()


# --- the four packages ------------------------------------------------------------------------------------------------------


def test_packages_of_two_versions_are_brought_together(work: Work) -> None:
    """Before 1.18 the packages let that happen."""
    work.sh(f"""
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --allow-downgrades --allow-change-held-packages \\
            -o Dir::Etc::PreferencesParts=/dev/null install \\
            nvidia-container-toolkit={UNSAFE}-1 nvidia-container-toolkit-base={UNSAFE}-1 \\
            libnvidia-container-tools={BETWEEN}-1 libnvidia-container1={BETWEEN}-1 > /dev/null
    """)
    facts = work.facts()["toolkit"]
    assert facts["lockstep"] is False and set(work.toolkit().values()) == {UNSAFE, BETWEEN}, facts
    before = work.state("dify")
    run = work.provision(toolkit_version=OLD).ends("changed")
    assert run.last("toolkit")["action"] == "upgrade" and BETWEEN in run.first("toolkit")["reason"], run.first("toolkit")
    work.has_toolkit(OLD)
    assert work.state("dify") == before


@thorough
def test_a_hold_of_somebody_else_is_named_and_replaced_where_that_is_wished(work: Work) -> None:
    # Without the mark of ours, a hold is of somebody else.
    unhold = f"apt-mark unhold {' '.join(FOUR)} > /dev/null"
    work.sh(f"rm /etc/apt/preferences.d/difyops-nvidia-container-toolkit.pref; {unhold}; apt-mark hold libnvidia-container1")
    before = work.whole()
    work.provision(toolkit_version=NEWEST).blocked(
        "toolkit", "DG777", "libnvidia-container1", "nvidia_container_toolkit_foreign_pins"
    )
    same(before, work.whole())
    work.provision(toolkit_version=NEWEST, toolkit_foreign_pins="replace").ends("changed")
    work.has_toolkit(NEWEST)
    # This is what a downgrade needs, too.
    work.provision(toolkit_version=OLD).blocked("toolkit", "DG812", OLD, NEWEST, "nvidia_container_toolkit_allow_downgrade")
    work.provision(toolkit_version=OLD, toolkit_allow_downgrade=True).ends("changed")
    work.has_toolkit(OLD)
    assert set(work.toolkit()) == set(FOUR)


# --- last: it needs another driver, and the host is made anew afterwards -----------------------------------------------------


@thorough
def test_where_the_packaged_refresh_skips_itself_there_is_a_specification_all_the_same(work: Work) -> None:
    """Debian's own packages give the module a name that the refresh does not look for."""
    work.undo_with(work.prepare)
    work.sh("docker rm --force dify")
    # This takes the toolkit away, too.
    work.fleet.simhost("profile", work.name, "a10-535", "cdi=no")
    work.sh(f"rm -f {SPEC}")
    wishes = {"driver_state": "unmanaged", "toolkit_version": OLD}
    work.provision(**wishes).ends("changed")
    # The packaged refresh is there, and still makes none.
    work.sh(f"systemctl restart nvidia-cdi-refresh.service; [ ! -e {SPEC} ]")
    assert work.described()["path"] == OLD_SPEC
    work.start("dify")
    work.proven()
    work.provision(**wishes).quiet()
