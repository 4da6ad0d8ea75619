# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/audit.yml on good hosts, broken ones and one that is not there: it reports each of them, and changes nothing on any."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .lab import REPO, Fleet, Host, Run

AUDIT = REPO / "playbooks/audit.yml"
DEPLOY = REPO / "playbooks/deploy_dify.yml"
STANDIN = {
    "dify_image_context": str(REPO / "tests/simhost/standin-image"),
    "dify_image_base": "difyops-demo/simulated-cuda-base:1",
    # These hosts have a CDI specification and no toolkit, and there is none for them to be had.
    "nvidia_container_toolkit_state": "unmanaged",
}
# Nobody listens there.
GONE = {"ansible_port": 22199}
# Everything that an operator would call the host's: Ansible's own folder of temporary files is not.
FILES = (
    "find /boot /etc /home /opt /root /srv /usr /var/lib /var/spool -xdev "
    "\\( -path ~root/.ansible -o -path /var/lib/docker -o -path /var/lib/containerd \\) "
    "-prune -o -printf '%p %y %m %U %s %T@\\n' | sort"
)
ENGINE = (
    "docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.Image}}' | sort; "
    "docker inspect --format '{{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}' $(docker ps --all --quiet) | sort; "
    "docker image ls --all --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' | sort; docker volume ls --quiet; "
    "docker network ls --quiet --no-trunc"
)
UNITS = "systemctl list-units --all --plain --no-legend --type=service,socket docker.service docker.socket containerd.service ssh.service"


class Audit(NamedTuple):
    """One run of the playbook, and its records by host."""

    run: Run
    records: dict[str, dict[str, Any]]


def audit(fleet: Fleet, tmp_path: Path, **variables: Any) -> Audit:
    """Run the playbook on the fleet and on a host that is not there."""
    report = tmp_path / f"report-{len(list(tmp_path.iterdir()))}.jsonl"
    options = json.dumps({**STANDIN, "dify_report_path": str(report), **variables})
    run = fleet.ansible(AUDIT, "-e", options, inventory=fleet.inventory(gone=GONE))
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    return Audit(run, {record["host"]: record for record in map(json.loads, lines)})


def state(host: Host, *parts: str) -> str:
    """Return all that an audit must leave as it is."""
    return host._sh("\n".join(parts))


@pytest.fixture(scope="module")
def deployed(hosts: dict[str, Host]) -> Iterator[Host]:
    """Return the host on which the service was deployed as a user does it."""
    host = hosts["diag"]
    run = host.fleet.ansible(DEPLOY, "-e", json.dumps(STANDIN), "--limit", "diag")
    assert run.rc == 0, run.output
    yield host
    host._sh(
        "docker compose --file /opt/dify-gpu/compose.yaml down --volumes 2> /dev/null; rm -rf /opt/dify-gpu; "
        "docker image rm $(docker image ls --format '{{.Repository}}:{{.Tag}}' '*dify-gpu') > /dev/null"
    )


def test_good_hosts_and_one_that_is_gone(deployed: Host, hosts: dict[str, Host], tmp_path: Path) -> None:
    cli = hosts["diag-cli"]
    before = [state(host, FILES, ENGINE, UNITS) for host in (deployed, cli)]
    done = audit(deployed.fleet, tmp_path)
    assert done.run.rc == 0, done.run.output
    assert [state(host, FILES, ENGINE, UNITS) for host in (deployed, cli)] == before
    assert set(done.records) == {"diag", "diag-cli", "gone"}
    assert done.records["diag"]["verdict"]["overall"] == "proven"
    assert not done.records["diag-cli"]["verdict"], "nothing is deployed there, so nothing was proven"
    assert done.records["gone"]["result"] == "unreachable"
    for host in ("diag", "diag-cli", "gone"):
        assert host in done.run.output.rpartition("TASK")[2] or host in done.run.output


def test_all_containers_with_a_gpu_are_proven(deployed: Host, hosts: dict[str, Host], tmp_path: Path) -> None:
    before = state(deployed, FILES, ENGINE, UNITS)
    done = audit(deployed.fleet, tmp_path, audit_containers="all")
    assert done.run.rc == 0, done.run.output
    assert state(deployed, FILES, ENGINE, UNITS) == before
    for name in ("diag", "diag-cli"):
        proofs = json.dumps(done.records[name])
        assert '"name": "dify"' in proofs and '"overall": "proven"' in proofs, name


@pytest.mark.parametrize(("fail", "status"), [("never", 0), ("failed", 2)])
def test_broken_hosts(diag: Host, cli: Host, deployed: Host, tmp_path: Path, fail: str, status: int) -> None:
    diag.fault("nvml_init_error=999")
    cli.undo_container()
    cli.undo("systemctl start docker.socket docker.service")
    cli.sh("systemctl stop docker.service docker.socket")
    before = state(diag, FILES, ENGINE, UNITS), state(cli, FILES, UNITS)
    done = audit(diag.fleet, tmp_path, audit_fail=fail)
    assert (state(diag, FILES, ENGINE, UNITS), state(cli, FILES, UNITS)) == before
    assert done.run.rc == status, done.run.output
    assert set(done.records) == {"diag", "diag-cli", "gone"}
    assert done.records["diag"]["verdict"]["code"] == "DG108"
    # An audit plans every part of a host: the engine is to be brought back.
    assert done.records["diag-cli"]["plan"]["parts"]["engine"]["action"] not in ("none", "blocked"), done.records["diag-cli"]
    assert "DG108" in done.run.output


@pytest.mark.parametrize("options", [{"audit_containers": "some"}, {"audit_fail": "always"}, {"audit_hosts": "nobody"}])
def test_bad_options_end_in_one_sentence(fleet: Fleet, tmp_path: Path, options: dict[str, str]) -> None:
    done = audit(fleet, tmp_path, **options)
    assert done.run.rc != 0
    assert "Traceback" not in done.run.output
    assert next(iter(options.values())) in done.run.output
