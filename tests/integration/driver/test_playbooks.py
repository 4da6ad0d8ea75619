# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks around the role: many hosts at once, a host that is its own controller, and a Dify host whose driver has to be another."""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from thorough import thorough

from .conftest import lent
from .families import BAD, BY_NAME, OLDEST, WORK
from .lab import ANSI, CONSENT, REBOOTING, REPO, DriverFleet, DriverHost, same

# --- many hosts at once -----------------------------------------------------------------------------------------------


# Each with another generation of GPUs.
MEMBERS = {"ubuntu": "t4-470", "debian13-nvidia": "a100-mig-550", "el9": "b200x8-580"}
UPGRADE = REPO / "playbooks/upgrade_drivers.yml"


@pytest.fixture(scope="module")
def members(fleet: DriverFleet) -> Iterator[dict[str, DriverHost]]:
    """Return a bare host of each family with GPUs of its own."""
    found = {name: DriverHost(fleet, BY_NAME[name].host, **BY_NAME[name].wishes) for name in MEMBERS}
    for name, profile in MEMBERS.items():
        # Tests of each host have run before, and some leave a driver.
        found[name].bare()
        found[name].cards(profile=profile)
    yield found
    for host in found.values():
        host.bare()


def test_a_mixed_fleet_is_reported_and_one_host_does_not_stop_the_others(fleet: DriverFleet, members: dict[str, DriverHost]) -> None:
    """Run on hosts of three families that change, one that is blocked, one that nobody reaches, and one that is left alone."""
    third = DriverHost(fleet, "bad", **BAD.wishes)
    third.bare()
    port = fleet.raw["hosts"]["bad"]["publish"]["ssh"]
    hosts = {
        **{member.name: member.variables(version=BY_NAME[name].old) for name, member in members.items()},
        "asks-too-much": {"ansible_port": port, **third.variables(branch="581")},
        "switched-off": {"ansible_port": 9, "nvidia_driver_branch": "580"},
        "left-alone": {"ansible_port": port, "nvidia_driver_state": "unmanaged"},
    }
    runs = fleet.provision(hosts)
    output = runs["switched-off"].output
    for member in members.values():
        runs[member.name].ends("changed")
        assert member.loaded() == BY_NAME["ubuntu"].old
    runs["asks-too-much"].refuses("DG774", "581")
    runs["switched-off"].ends("unreachable")
    runs["left-alone"].ends("unchanged")
    assert runs["left-alone"].changed == 0
    assert runs["switched-off"].run.rc != 0, "a run with a host that is blocked or not reached ends red"
    # What an operator reads: every host in the report, with what became of it, and one line that sums it up.
    report = output[output.rindex(f" of {len(hosts)} hosts: "):]
    for name in hosts:
        assert name in report, report
    for words in (BY_NAME["ubuntu"].old, "DG774", "581"):
        assert words in report, report


def test_the_upgrade_of_a_mixed_fleet_is_planned_in_one_read(fleet: DriverFleet, members: dict[str, DriverHost]) -> None:
    """Read the plan for the hosts of the test before, with their drivers, and for a V100, which the new driver drops."""
    volta = DriverHost(fleet, "bad", **BAD.wishes)
    volta.bare()
    volta.cards(profile="v100-470")
    before = {member.name: member.snapshot(lists=True) for member in members.values()}
    hosts = {
        **{member.name: member.variables(branch="595", **CONSENT) for member in members.values()},
        volta.name: volta.variables(branch="595", **CONSENT),
        "switched-off": {"ansible_port": 9},
    }
    runs = fleet.provision(hosts, "--check", playbook=UPGRADE)
    for name, member in members.items():
        plan = runs[member.name].ends("checked").record["plan"]
        assert (plan["from"], plan["to"], plan["reboot"]) == (BY_NAME[name].old, BY_NAME[name].second, True), plan
        assert plan["action"] == "upgrade" and plan["rollback"]["possible"] is True and plan["wave"], plan
        same(before[member.name], member.snapshot(lists=True))
    runs[volta.name].ends("blocked", "V100")
    runs["switched-off"].ends("unreachable")
    assert runs[volta.name].record["wave"] is None
    volta.bare()


# --- a host that is its own controller --------------------------------------------------------------------------------

LIBRARIES = ("ansible", "jinja2", "markupsafe", "yaml", "packaging", "resolvelib")


def pack(root: Path, *names: str) -> bytes:
    """Return a tar of some folders."""
    argv = ["tar", "-C", str(root), "--exclude=__pycache__", "-c", *names]
    return subprocess.run(argv, check=True, capture_output=True).stdout


@pytest.fixture
def bad(fleet: DriverFleet) -> Iterator[DriverHost]:
    """Return a host with ansible-core and this collection on it."""
    host = DriverHost(fleet, "bad", **BAD.wishes)
    host.bare()
    [site, *_others] = [Path(entry) for entry in sys.path if (Path(entry) / "ansible/__init__.py").is_file()]
    for target, content in (
        # With what pip knows of them, which they ask for.
        ("/opt/controller/lib", pack(site, *LIBRARIES, *(entry.name for entry in site.glob("*.dist-info")))),
        ("/opt/controller/collections/ansible_collections/difyops/gpu", pack(REPO, "galaxy.yml", "meta", "plugins", "roles", "playbooks")),
    ):
        host.sh(f"mkdir -p {target}")
        subprocess.run(["docker", "exec", "-i", host.container, "tar", "-C", target, "-x"], check=True, input=content)
    host.undo("rm -rf /opt/controller ~/.ansible")
    yield from lent(host)


def run_there(host: DriverHost, *arguments: str, **wishes: object) -> tuple[int, str]:
    """Run the playbook on the host itself, over a local connection, and return its exit status and what it printed."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    variables = {**REBOOTING, **host.fleet.always, **host.variables(**wishes), **local}
    inventory = json.dumps({"dify_gpu": {"hosts": {host.name: variables}}})
    host.sh(f"cat > /opt/controller/hosts.json <<'END'\n{inventory}\nEND")
    script = (
        "cd /opt/controller; export ANSIBLE_COLLECTIONS_PATH=/opt/controller/collections PYTHONPATH=/opt/controller/lib LC_ALL=C.UTF-8; "
        f"python3 -m ansible playbook -i hosts.json {' '.join(arguments)} difyops.gpu.provision_hosts"
    )
    done = subprocess.run(["docker", "exec", host.container, "sh", "-c", script], check=False, capture_output=True, text=True, timeout=300)
    return done.returncode, ANSI.sub("", done.stdout + done.stderr)


@thorough
def test_a_host_that_is_its_own_controller_is_not_rebooted_under_itself(bad: DriverHost) -> None:
    status, output = run_there(bad, version=BAD.old)
    assert status == 0 and bad.loaded() == BAD.old, output
    boot = bad.boot()
    status, output = run_there(bad, version=BAD.newer, **CONSENT)
    assert bad.boot() == boot and bad.loaded() == BAD.old, output
    assert "systemctl reboot" in output and "run the same playbook again" in output, output
    bad.reboot()
    status, output = run_there(bad, version=BAD.newer, **CONSENT)
    assert status == 0 and bad.loaded() == BAD.newer, output
    assert bad.facts()["driver"]["journal"] is None


# --- a Dify host whose driver has to be another -----------------------------------------------------------------------

DEPLOY = REPO / "playbooks/deploy_dify.yml"
SIMULATED_IMAGES = {
    # The simulated host describes its GPUs by itself.
    "nvidia_container_toolkit_state": "unmanaged",
    "dify_image_context": str(REPO / "tests/simhost/standin-image"),
    "dify_image_base": "difyops-demo/simulated-cuda-base:1",
    "dify_gpu_bind_address": "0.0.0.0",
}


@pytest.fixture
def work(fleet: DriverFleet) -> Iterator[DriverHost]:
    """Return a host with an engine, no container, and a driver that is older than what is wanted."""
    host = DriverHost(fleet, "work", **WORK.wishes)
    host.sh("docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes")
    host.bare()
    host.provision(version=OLDEST).ends("changed")
    yield from lent(host)


def test_a_deployment_brings_the_driver_and_then_the_image_for_the_one_that_is_loaded(work: DriverHost) -> None:
    wishes = {**SIMULATED_IMAGES, **work.variables(branch="580", **CONSENT)}
    run = work.fleet.provision({"work": wishes}, playbook=DEPLOY)["work"]
    assert run.run.rc == 0, run.output
    assert work.loaded() == WORK.newer
    assert run.record["plan"]["image"]["variant"].startswith("cuda13"), run.record["plan"]["image"]
    assert run.record["plan"]["image"]["expected"] is False
    assert run.record["verdict"]["overall"] == "proven", run.output
    again = work.fleet.provision({"work": wishes}, playbook=DEPLOY)["work"]
    assert (again.changed, again.run.rc) == (0, 0), again.output
