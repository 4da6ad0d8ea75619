# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIMULATED hosts for the tests of the driver's work: facts of each system, and answers of a package manager."""

from __future__ import annotations

import base64
import datetime
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_settings, _driver_work, _host, _planner
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver import Decision
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings

TODAY = datetime.date(2026, 11, 22)
KERNELS = {
    "debian": "6.1.0-40-amd64",
    "ubuntu": "6.8.0-50-generic",
    "rocky": "5.14.0-503.14.1.el9_5.x86_64",
    "amzn": "6.1.164-196.303.amzn2023.x86_64",
}
NAMES = {"debian": "Debian GNU/Linux", "ubuntu": "Ubuntu", "rocky": "Rocky Linux", "amzn": "Amazon Linux", "sles": "SLES"}
A10 = "0x2236"
V100 = "0x1db4"


def facts(system: str = "ubuntu", version: str = "24.04", device: str = A10, **driver: Any) -> dict[str, Any]:
    """Return the facts of a host without a driver; `driver` changes that part of them."""
    kernel = KERNELS.get(system, "6.4.0-default")
    return {
        "schema": 1,
        "host": {
            "os": {
                "id": system,
                "version": version,
                "family": "debian" if system in ("debian", "ubuntu") else "rhel",
                "name": f"{NAMES[system]} {version}",
            },
            "architecture": "x86_64",
            "kernel": {"running": kernel, "next": kernel, "headers": []},
            "secure_boot": False,
            "dkms_key": None,
            "vgpu": False,
            "nouveau_loaded": False,
            "nova_core_loaded": False,
            "nvswitches": 0,
        },
        "gpus": [
            {
                "pci_address": "0000:00:05.0",
                "device_id": device,
                "bound_driver": "nvidia" if driver.get("loaded") else None,
                "index": 0 if driver.get("loaded") else None,
                "compute_capability": "8.6" if device == A10 else "7.0",
                "health": "ok",
                "processes": [],
            }
        ],
        "driver": {
            "loaded": None,
            "installed": None,
            "mismatch": False,
            "modules": {kernel: None},
            "next_kernel_has_module": None,
            "fabric_manager": {"installed": False, "version": None, "running": None, "enabled": None, "needed": False},
            "persistenced": {"installed": False, "running": None, "enabled": None},
            "broken": [],
            "managed": {},
            "journal": None,
            **driver,
        },
        "nvml": {"source": "nvml" if driver.get("loaded") else "sysfs", "error": None},
        "engine": {"name": "docker", "running": True, "gpu_containers": []},
    }


def with_driver(document: dict[str, Any], version: str, names: list[str], revision: str = "-1", **changed: Any) -> dict[str, Any]:
    """Return facts in which a driver of these packages is installed and loaded."""
    packages = [{"name": name, "version": f"{version}{revision}"} for name in names]
    kernel = document["host"]["kernel"]["running"]
    installed = {"version": version, "flavour": "open", "origin": "ubuntu", "packages": packages, "pinned": False, "pins": [], **changed}
    loaded = {"version": version, "flavour": installed["flavour"]}
    module = {**loaded, "signer": None, "path": f"/lib/modules/{kernel}/updates/dkms/nvidia.ko"}
    document["driver"].update(installed=installed, loaded=loaded, modules={kernel: module}, next_kernel_has_module=True)
    document["nvml"]["source"] = "nvml"
    document["gpus"][0].update(bound_driver="nvidia", index=0)
    return document


def settings(**given: Any) -> Settings:
    """Return the settings of the option ``driver``, with every consent unless another is given."""
    return _driver_settings.parse({"reboot": "if_needed", **given})


def decide(document: dict[str, Any], wanted: Settings) -> tuple[_host.Host, Decision]:
    """Return a host and what the planner decides for it."""
    host = _host.read(document)
    return host, _planner.driver_of(host, _planner.Wishes("host", driver=wanted, today=TODAY))


def plan(document: dict[str, Any], wanted: Settings, packages: dict[str, Any] | None = None, key: bytes | None = None) -> dict[str, Any]:
    """Return the document gpu_driver for facts and settings."""
    host, decision = decide(document, wanted)
    return _driver_work.make(host, decision, wanted, packages, TODAY, key)


def answer(query: dict[str, Any] | None = None, version: str | None = None, revision: str = "-1", **changed: Any) -> dict[str, Any]:
    """Return what a package manager would answer to a query if it had the first alternative in this version."""
    found: dict[str, Any] = {
        "manager": "apt",
        "lists_at": "2026-11-22T14:05:00Z",
        "locked_by": None,
        "broken": [],
        "sources": [],
        "available": {},
        "choice": None,
        "version": None,
        "install": [],
        "remove": [],
        "also": {},
        "download_mib": None,
        "needed_mib": None,
        "free_mib": {"/usr": 20000, "/boot": 500, "/var": 20000},
        "brought": [],
        "error": None,
    }
    if query is not None and version is not None:
        also = {purpose: names[0].replace("{version}", version) for purpose, names in query["also"].items()}
        joining = [name for purpose, name in also.items() if purpose != "pinning"]
        names = [*query["alternatives"][0], *joining]
        own = {name: f"{version}{revision}" for name in names if "nvidia" in name or name == "libcuda1"}
        found.update(
            available={version.partition(".")[0]: [version]},
            choice=0,
            version=version,
            install=[{"name": name, "from": None, "to": own.get(name, "6.1.0-1")} for name in names],
            also=also,
            download_mib=300,
            needed_mib=900,
        )
    return {**found, **changed}


def settled(document: dict[str, Any], wanted: Settings, version: str, **changed: Any) -> dict[str, Any]:
    """Return the document after the host was asked, and where that took one, after its repository was added."""
    first = plan(document, wanted)
    assert first["query"] is not None, first
    second = plan(document, wanted, answer(first["query"], version, **changed))
    if second["exact"] or second["blocked"]:
        return second
    return plan(document, wanted, answer(second["query"], version, **{"sources": sources_of(second), **changed}))


def sources_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the package manager reads once the files of a document's repository are there."""
    found = []
    for path, file in document["repository"]["files"].items():
        lines = file["content"].replace("baseurl=", "URIs: ").splitlines()
        fields = [dict(line.split(": ", 1) for line in lines if line.startswith(name)) for name in ("URIs", "Suites", "Components")]
        uris, suites, parts = (next(iter(field.values())).split() if field else [] for field in fields)
        if uris:
            found.append({"file": path, "uris": uris, "suites": suites, "components": parts, "signed_by": None})
    return found


# A key made for these tests with gpg: ed25519, of nobody, and its fingerprint.
KEY_FINGERPRINT = "ED10E29B6342524D17655019BBBD9417A9A3E921"
KEY = base64.b64decode(
    "mDMEawM0mBYJKwYBBAHaRw8BAQdATVkEWfnHNH1ksuxqmYUaI7srJpq3CLymdf3bp4eRW/20IVNJTVVMQVRFRCByZXBvc2l0b3J5IG9mIHRoZS"
    "B0ZXN0c4iQBBMWCAA4FiEE7RDim2NCUk0XZVAZu72UF6mj6SEFAmsDNJgCGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQu72UF6mj6SEE"
    "aQEAvsc2IiHuVMqTLN99kclyllJbSQ7lEoR7KWDtJKy1PKoA/1uWjmv0/7a0hi1aMMLTg+LPVU+ivXSlOGbjiIjTVEIP"
)
