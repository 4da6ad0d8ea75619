# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of every simulated kind of host must be those that its profile describes, whichever source tells them."""
from __future__ import annotations

from typing import Any

import pytest
from diagnosis.lab import PROFILE, REPO, Host

PROFILES = sorted(path.stem for path in (REPO / "tests/simhost/profiles").glob("*.profile"))
ARCHITECTURES = {2: "kepler", 3: "maxwell", 4: "pascal", 5: "volta", 6: "turing", 7: "ampere", 8: "ada", 9: "hopper", 10: "blackwell"}
COMPUTE_MODES = {"0": "default", "2": "prohibited", "3": "exclusive_process"}
# The first branch whose (simulated) nvidia-smi has the field compute_cap.
SMI_KNOWS_CAPABILITY = 525
# What the driver of a branch says of itself. Source: NVIDIA's release notes of the CUDA toolkits.
CUDA = {"470": "11.4", "515": "11.7", "535": "12.2", "550": "12.4", "580": "13.0", "595": "13.2", "615": "13.4"}


def profile(name: str) -> dict[str, str]:
    """Return the keys of a profile."""
    lines = (REPO / f"tests/simhost/profiles/{name}.profile").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def cards(keys: dict[str, str]) -> list[dict[str, str]]:
    """Return the GPUs of a profile by their PCI address."""
    found: dict[str, dict[str, str]] = {}
    for key, value in keys.items():
        if key.startswith("gpu."):
            _gpu, index, name = key.split(".", 2)
            found.setdefault(index, {})[name] = value
    return sorted(found.values(), key=lambda card: card["pci"])


def flag(value: str | None) -> bool | None:
    return None if value in (None, "na") else value == "1"


def expected(card: dict[str, str]) -> dict[str, Any]:
    """Return what a GPU's facts have to be."""
    ecc = flag(card.get("ecc"))
    pending = flag(card.get("ecc_pending", card.get("ecc")))
    mig, mig_pending = flag(card.get("mig")), flag(card.get("mig_pending", card.get("mig")))
    return {
        "pci_address": card["pci"],
        "vendor_id": "0x10de",
        "device_id": card["device_id"],
        "subsystem_vendor_id": card["subsystem_vendor"],
        "subsystem_device_id": card["subsystem_device"],
        "class": card["class"],
        "bound_driver": "nvidia",
        "name": card["name"],
        "uuid": card["uuid"],
        "architecture": ARCHITECTURES[int(card["architecture"])],
        "compute_capability": card["compute_capability"],
        "memory_total_mib": int(card["memory_mib"]),
        "compute_mode": COMPUTE_MODES[card.get("compute_mode", "0")],
        "persistence_mode": flag(card.get("persistence")),
        "ecc": {"current": ecc, "pending": pending},
        "mig": (mig, mig_pending),
        "health": "ok",
    }


def said(gpu: dict[str, Any]) -> dict[str, Any]:
    """Return of a GPU's facts what a profile describes."""
    return {**{key: gpu[key] for key in EXPECTED_KEYS}, "mig": (gpu["mig"]["current"], gpu["mig"]["pending"])}


EXPECTED_KEYS = (
    "pci_address", "vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id", "class", "bound_driver", "name", "uuid",
    "architecture", "compute_capability", "memory_total_mib", "compute_mode", "persistence_mode", "ecc", "health",
)


def facts_of(host: Host) -> dict[str, Any]:
    run = host.fleet.play(host.name, {"difyops.gpu.nvidia_facts": {}})
    assert run.rc == 0, run.output
    facts: dict[str, Any] = run.of("difyops.gpu.nvidia_facts")["ansible_facts"]["nvidia"]
    return facts


@pytest.mark.parametrize("name", PROFILES)
def test_facts_are_those_of_the_profile(host: Host, name: str) -> None:
    keys = profile(name)
    if name != PROFILE:
        host.profile(profile=name)
    facts = facts_of(host)
    wanted = [expected(card) for card in cards(keys)]
    if host.name == "diag-cli" and int(keys["driver_version"].split(".")[0]) < SMI_KNOWS_CAPABILITY:
        wanted = [{**one, "architecture": None, "compute_capability": None} for one in wanted]
    assert [said(gpu) for gpu in facts["gpus"]] == wanted, host.name
    assert facts["driver"]["loaded"] == {"version": keys["driver_version"], "flavour": keys.get("driver_flavour", "proprietary")}
    assert facts["driver"]["installed"]["version"] == keys["driver_version"]
    assert facts["driver"]["branch"] == keys["driver_version"].split(".")[0]
    assert facts["driver"]["cuda_version"] == CUDA[facts["driver"]["branch"]]
    assert facts["driver"]["mismatch"] is False
    assert facts["host"]["nvswitches"] == int(keys.get("nvswitches", 0))
    assert facts["nvml"]["source"] == ("nvml" if host.name == "diag" else "nvidia-smi") and facts["nvml"]["error"] is None
    assert facts["toolkit"]["cdi"]["specs"][0]["stale"] is False


def test_mig_devices(host: Host) -> None:
    card = cards(profile("a100-mig-550"))[0]
    wanted = [card[key].split(",") for key in sorted(card) if key.startswith("mig_device.")]
    host.profile(profile="a100-mig-550")
    devices = facts_of(host)["gpus"][0]["mig"]["devices"]
    told = [(device["uuid"], device["profile"]) for device in devices]
    assert told == [(uuid, kind) for kind, _gi, _ci, uuid, _mib in wanted], host.name


def test_fabric_manager_and_persistenced(diag: Host) -> None:
    diag.profile(profile="h100x8-580")
    driver = facts_of(diag)["driver"]
    version = profile("h100x8-580")["driver_version"]
    started = {"installed": True, "running": True, "enabled": True}
    assert driver["fabric_manager"] == {**started, "version": version, "matches_driver": True, "needed": True}
    assert driver["persistenced"] == started


def test_processes_and_their_containers(host: Host) -> None:
    host.standin("cuda12.6")
    container = host.start("worker")
    host.sh("until docker exec worker true; do sleep 0.1; done")
    host.fault("gpu.0.process.0=dify_gpu_standin,1234,compute")
    facts = facts_of(host)
    (process,) = facts["gpus"][0]["processes"]
    assert (process["type"], process["memory_mib"]) == ("compute", 1234)
    assert process["container"]["name"] in ("worker", "dify")
    mine = next(entry for entry in facts["engine"]["gpu_containers"] if entry["name"] == "worker")
    assert (mine["id"], mine["how"], mine["devices"]) == (container, "cdi", ["nvidia.com/gpu=all"])
    assert facts["gpus"][0]["memory_used_mib"] >= 1234


def test_secure_boot_and_kernels(diag: Host) -> None:
    diag.profile("secure_boot=1", "kernels=6.99.1-difyops,running", "module_signer=The owner of this machine")
    facts = facts_of(diag)
    assert facts["host"]["secure_boot"] is True
    running, following = facts["host"]["kernel"]["running"], facts["host"]["kernel"]["next"]
    assert following == "6.99.1-difyops" and set(facts["driver"]["modules"]) == {running, following}
    assert facts["driver"]["next_kernel_has_module"] is True
    assert all(module["version"] == "535.274.02" for module in facts["driver"]["modules"].values())
    assert facts["driver"]["modules"][following]["signer"] == "The owner of this machine"
