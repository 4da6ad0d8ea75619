# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`nvidia_facts` in each of the ways in which a playbook can gather them, and as each user."""
from __future__ import annotations

from typing import Any

import pytest
from diagnosis.lab import Host, Run

FACTS = "difyops.gpu.nvidia_facts"
SHOW = {"name": "Show", "ansible.builtin.debug": {"msg": "{{ ansible_facts }}"}}
# The parts of the document, which are always all there.
PARTS = {"schema", "host", "gpus", "driver", "nvml", "toolkit", "engine", "warnings"}
NAME = "NVIDIA A10 (simulated)"


def shown(run: Run) -> dict[str, Any]:
    """Return the facts that the play printed at its end."""
    assert run.rc == 0, run.output
    facts: dict[str, Any] = run.of("ansible.builtin.debug")["msg"]
    return facts


def test_as_a_task(host: Host) -> None:
    run = host.fleet.play(host.name, {FACTS: {}})
    result = run.of(FACTS)
    assert result["changed"] is False
    facts = result["ansible_facts"]["nvidia"]
    assert set(facts) == PARTS and facts["schema"] == 1
    assert facts["gpus"][0]["name"] == NAME and facts["driver"]["loaded"]["version"] == "535.274.02"
    assert facts["nvml"]["source"] == ("nvml" if host.name == "diag" else "nvidia-smi")


def test_both_sources_say_the_same(diag: Host, cli: Host) -> None:
    by_nvml, by_smi = (host.fleet.play(host.name, {FACTS: {}}).of(FACTS)["ansible_facts"]["nvidia"] for host in (diag, cli))
    for one, other in zip(by_nvml["gpus"], by_smi["gpus"]):
        # nvidia-smi says N/A both of a GPU that can be in no fabric and of one that was not asked.
        assert one.pop("fabric")["state"] == "not_supported" and other.pop("fabric") is None
        assert one == other
    assert by_nvml["driver"] == by_smi["driver"]


def test_in_check_mode(diag: Host) -> None:
    run = diag.fleet.play("diag", {FACTS: {}}, arguments=["--check", "--diff"])
    assert run.rc == 0, run.output
    assert run.of(FACTS)["ansible_facts"]["nvidia"]["gpus"][0]["name"] == NAME
    assert "skipped=0" in run.output


@pytest.mark.parametrize("modules", ["ansible.builtin.setup, difyops.gpu.nvidia_facts", "difyops.gpu.nvidia_facts"])
def test_when_facts_are_gathered(diag: Host, modules: str) -> None:
    # One after the other, as the module's notes advise: side by side, Ansible itself ends each of several after five seconds.
    one_by_one = {"ansible_facts_parallel": False}
    run = diag.fleet.play("diag", SHOW, gather_facts=True, vars=one_by_one, environ={"ANSIBLE_FACTS_MODULES": modules})
    facts = shown(run)
    assert facts["nvidia"]["gpus"][0]["name"] == NAME
    assert facts["nvidia"]["nvml"]["source"] == "nvml"
    # The other facts are there as ever when they were asked for, and only then.
    assert ("distribution" in facts) is ("setup" in modules)


def test_as_an_unprivileged_user(host: Host) -> None:
    host.sh("chmod 600 /etc/docker/daemon.json")
    host.undo("chmod 644 /etc/docker/daemon.json")
    run = host.fleet.play(host.name, {FACTS: {}}, vars={"ansible_user": host.user("watcher")})
    assert run.rc == 0, run.output
    facts = run.of(FACTS)["ansible_facts"]["nvidia"]
    assert facts["gpus"][0]["name"] == NAME, "a device file of the driver is everybody's"
    assert facts["driver"]["loaded"]["version"] == "535.274.02" and facts["driver"]["installed"]["version"] == "535.274.02"
    assert facts["engine"]["running"] is False and facts["engine"]["error"], "the engine talks to root only"
    assert facts["engine"]["daemon_config"]["content"] == {} and facts["engine"]["daemon_config"]["error"]
    assert "DG116" in {warning["code"] for warning in facts["warnings"]}


LIMIT = 6  # seconds


def hangs_once(run: Run, facts: dict[str, Any]) -> None:
    """Assert that the driver was waited for once, and not once for each source: no other is sent into it after the first."""
    assert run.results[0].seconds >= LIMIT, run.results[0]
    told = [attempt["message"] or "" for attempt in facts["nvml"]["attempts"] if attempt["source"] in ("nvml", "nvidia-smi")]
    hung = next(number for number, message in enumerate(told) if "no answer" in message.lower())
    assert all(message.startswith("Not asked") for message in told[hung + 1 :]), told


@pytest.mark.parametrize("where", ["nvml_init", "nvml_query"])
def test_a_hanging_driver_does_not_hang_the_play(host: Host, where: str) -> None:
    host.fault(f"hang={where}")
    run = host.fleet.play(host.name, {FACTS: {"timeout": LIMIT}}, {"name": "Go on", "ansible.builtin.debug": {"msg": "the play goes on"}})
    assert run.rc == 0 and "the play goes on" in run.output
    facts = run.of(FACTS)["ansible_facts"]["nvidia"]
    assert facts["nvml"]["error"]["name"] == "TIMEOUT" and facts["nvml"]["error"]["code"] is None
    assert facts["nvml"]["source"] == "sysfs"
    hangs_once(run, facts)
    assert facts["gpus"][0]["pci_address"] == "0000:3b:00.0" and facts["driver"]["loaded"]["version"] == "535.274.02"
    assert facts["engine"]["running"] is True, "what the driver has no part in is known"


def test_a_hanging_driver_while_facts_are_gathered(diag: Host) -> None:
    diag.fault("hang=nvml_init")
    run = diag.fleet.play(
        "diag", SHOW, gather_facts=True, environ={"ANSIBLE_FACTS_MODULES": FACTS},
        module_defaults={FACTS: {"timeout": LIMIT}},
    )
    facts = shown(run)
    assert facts["nvidia"]["nvml"]["error"]["name"] == "TIMEOUT"
    hangs_once(run, facts["nvidia"])


def test_a_host_without_any_of_it(genuine: Host) -> None:
    """Nothing but PCI: no driver, no packages, and the engine off."""
    genuine.sh("systemctl stop docker.service docker.socket")
    genuine.undo("systemctl start docker.socket docker.service")
    facts = genuine.fleet.play("genuine", {FACTS: {}}).of(FACTS)["ansible_facts"]["nvidia"]
    assert set(facts) == PARTS
    assert facts["gpus"][0]["device_id"] == "0x2236" and facts["gpus"][0]["bound_driver"] is None
    assert facts["driver"]["loaded"] is None and facts["driver"]["installed"] is None
    assert facts["engine"]["running"] is False
    genuine.heal()
