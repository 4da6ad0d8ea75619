# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command, _diagnosis, _engine, _host, _nvidia, _nvml, _packages
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Observation
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

A10 = "0000:3b:00.0"
KERNEL_KNOWS = {
    "pci_address": A10,
    "vendor_id": "0x10de",
    "device_id": "0x2236",
    "subsystem_vendor_id": "0x10de",
    "subsystem_device_id": "0x1482",
    "class": "0x030200",
}
GPU = {
    "index": 0,
    "name": "NVIDIA A10",
    "uuid": "GPU-1",
    "architecture": "ampere",
    "compute_capability": "8.6",
    "memory_total_mib": 23028,
    "memory_used_mib": 0,
    "compute_mode": "default",
    "persistence_mode": True,
    "ecc": {"current": True, "pending": True},
    "mig": {"current": None, "pending": None, "devices": []},
    "fabric": None,
    "recovery_action": None,
    "health": "ok",
}
GOOD = Observation("nvml", ok=True, driver_version="535.247.01", cuda_version="12.2", gpus={A10: GPU})
DRIVER_TEXT = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.247.01  Tue Apr  1 10:05:48 UTC 2025\n"
CONTRACT = {
    "": {"schema", "host", "gpus", "driver", "nvml", "toolkit", "engine", "warnings"},
    "host": {
        "os", "architecture", "kernel", "secure_boot", "dkms_key", "vgpu", "virtualization", "nouveau_loaded",
        "nova_core_loaded", "nvswitches",
    },
    "driver": {
        "loaded", "installed", "cuda_version", "branch", "mismatch", "modules", "next_kernel_has_module", "reboot_required",
        "reboot_reasons", "fabric_manager", "persistenced", "users", "broken", "managed", "journal", "upgrade",
    },
    "nvml": {"source", "error", "attempts"},
    "toolkit": {"packages", "version", "lockstep", "pinned", "pins", "broken", "managed", "refresh", "mode", "cdi"},
    "engine": {
        "name", "version", "running", "error", "compose_version", "buildx_version", "runtimes", "default_runtime",
        "cdi_enabled", "cdi_spec_dirs", "cgroup_driver", "cgroup_version", "podman_version", "gpu_containers", "daemon_config",
        "live_restore", "containers", "packages", "origin", "pins", "broken", "service", "managed", "journal",
    },
}  # fmt: skip


TOOLKIT = [Package(name, "1.19.1-1", "NVIDIA", broken=False) for name in _packages.TOOLKIT]


class Fixed:
    """A source that says what it was told to."""

    def __init__(self, observation):
        self._observation = observation
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return self._observation


def sources(*observations):
    return [(observation.source, Fixed(observation)) for observation in observations]


def failing(source, code=None, hung=False, name="TIMEOUT"):
    error = {"code": code, "name": name, "message": "x"} if code or hung else None
    return Observation(source, ok=False, message="x", error=error, hung=hung)


class Host:
    """A file system with as much of a host as the observers look at."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.monkeypatch = monkeypatch
        (root / "etc").mkdir()
        (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
        self.packages([])
        self.engine({})

    def gpu(self, driver=None):
        directory = self.root / "sys/bus/pci/devices" / A10
        directory.mkdir(parents=True)
        for name, value in (
            ("vendor", "0x10de"),
            ("device", "0x2236"),
            ("subsystem_vendor", "0x10de"),
            ("subsystem_device", "0x1482"),
            ("class", "0x030200"),
        ):
            (directory / name).write_text(value + "\n")
        if driver:
            (directory / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")

    def load(self):
        (self.root / "sys/module/nvidia").mkdir(parents=True)
        (self.root / "sys/module/nvidia/version").write_text("535.247.01\n")
        (self.root / "proc/driver/nvidia").mkdir(parents=True)
        (self.root / "proc/driver/nvidia/version").write_text(DRIVER_TEXT)

    def packages(self, packages):
        def told():
            if isinstance(packages, Exception):
                raise packages
            return packages if any(package.name in _packages.TOOLKIT for package in packages) else [*packages, *TOOLKIT]

        self.monkeypatch.setattr(_packages, "ask", lambda root, family: told)

    def engine(self, changes, names=None):
        absent = _engine.daemon_config(str(self.root))
        facts = {
            **dict.fromkeys(CONTRACT["engine"]),
            "running": False,
            "runtimes": [],
            "cdi_spec_dirs": [],
            "daemon_config": absent,
            **changes,
        }
        self.monkeypatch.setattr(_engine, "ask", lambda root, timeout_s: lambda: (facts, names or {}))

    def answers(self, *observations):
        self.monkeypatch.setattr(_nvidia, "_sources", lambda root, pci, loaded, timeout_s: sources(*observations))

    def gather(self):
        facts = _nvidia.gather(str(self.root), 5)
        assert json.loads(json.dumps(facts)) == facts
        for part, keys in CONTRACT.items():
            assert set(facts[part] if part else facts) == keys
        return facts

    def codes(self):
        return [warning["code"] for warning in self.gather()["warnings"]]


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Host(tmp_path, monkeypatch)


def test_a_host_without_a_gpu_is_not_asked_for_one(host):
    facts = host.gather()
    assert facts["gpus"] == []
    assert facts["nvml"] == {"source": "sysfs", "error": None, "attempts": [{"source": "sysfs", "ok": True, "message": None}]}
    assert facts["driver"]["loaded"] is facts["driver"]["installed"] is facts["driver"]["mismatch"] is None
    assert facts["warnings"] == []


def test_a_good_host(host):
    host.gpu("nvidia")
    host.load()
    host.answers(GOOD)
    host.packages([Package("nvidia-kernel-dkms", "535.247.01-1", "Debian NVIDIA Maintainers", broken=False)])
    facts = host.gather()
    assert facts["gpus"] == [{**KERNEL_KNOWS, "bound_driver": "nvidia", **GPU, "processes": None}]
    assert facts["driver"]["loaded"] == {"version": "535.247.01", "flavour": "proprietary"}
    assert facts["driver"]["installed"] == {
        "version": "535.247.01",
        "flavour": "proprietary",
        "origin": "debian",
        "packages": [{"name": "nvidia-kernel-dkms", "version": "535.247.01-1"}],
        "pinned": False,
        "pins": [],
    }
    assert (facts["driver"]["branch"], facts["driver"]["cuda_version"], facts["driver"]["mismatch"]) == ("535", "12.2", False)
    assert facts["nvml"] == {"source": "nvml", "error": None, "attempts": [{"source": "nvml", "ok": True, "message": None}]}
    assert facts["warnings"] == []


def test_a_gpu_without_a_driver_has_all_its_keys(host):
    host.gpu()
    host.answers(failing("nvml", 9, name="NVML_ERROR_DRIVER_NOT_LOADED"), failing("nvidia-smi"), Observation("sysfs", ok=True))
    facts = host.gather()
    assert facts["gpus"] == [{**KERNEL_KNOWS, "bound_driver": None, **dict.fromkeys([*GPU, "processes"])}]
    assert facts["nvml"]["source"] == "sysfs"
    assert facts["nvml"]["error"]["code"] == 9
    assert [warning["code"] for warning in facts["warnings"]] == ["DG106"]


@pytest.mark.parametrize(
    ("driver", "loaded", "codes"),
    [
        ("nouveau", False, ["DG103"]),
        ("nova_core", False, ["DG103"]),
        ("vfio-pci", False, ["DG104"]),
        (None, False, ["DG106"]),
        (None, True, ["DG105"]),
        ("nvidia", True, []),
    ],
)
def test_who_holds_the_gpu(host, driver, loaded, codes):
    host.gpu(driver)
    if loaded:
        host.load()
    host.answers(Observation("nvml", ok=True) if loaded else Observation("sysfs", ok=True))
    assert host.codes() == codes


def test_gpus_of_virtual_machines_are_left_alone(host):
    host.gpu("vfio-pci")
    host.monkeypatch.setattr(_nvml, "observe", lambda *arguments: pytest.fail("NVML was asked"))
    assert host.gather()["nvml"]["source"] == "sysfs"


@pytest.mark.parametrize(("health", "code"), [("lost", "DG111"), ("reset_required", "DG112"), ("error", "DG108")])
def test_an_ill_gpu(host, health, code):
    host.gpu("nvidia")
    host.load()
    host.answers(Observation("nvml", ok=True, gpus={A10: {"health": health}}))
    assert host.gather()["gpus"][0]["health"] == health
    assert host.codes() == [code]


def test_versions_that_differ(host):
    host.gpu("nvidia")
    host.load()
    host.answers(
        failing("nvml", 18, name="X"),
        failing("nvidia-smi", 18, name="X"),
        Observation("sysfs", ok=True, gpus={A10: {"name": "NVIDIA A10", "uuid": None}}),
    )
    host.packages([Package("nvidia-kernel-dkms", "550.163.01-2", "Debian", broken=False)])
    facts = host.gather()
    assert facts["driver"]["mismatch"] is True
    assert facts["gpus"][0]["name"] == "NVIDIA A10"
    assert facts["warnings"] == [
        {"code": "DG107", "message": "The loaded driver (535.247.01) and the driver's library differ (550.163.01 is installed)."},
        {
            "code": "DG119",
            "message": "A reboot is pending: Driver 550.163.01 is installed; 535.247.01 is loaded until the next boot.",
        },
    ]


def test_a_hanging_driver_is_asked_once(host):
    host.gpu("nvidia")
    host.load()
    host.answers(failing("nvml", hung=True), GOOD, Observation("sysfs", ok=True))
    facts = host.gather()
    assert (facts["nvml"]["source"], facts["nvml"]["error"]["name"]) == ("sysfs", "TIMEOUT")
    assert [attempt["ok"] for attempt in facts["nvml"]["attempts"]] == [False, False, False]
    assert host.codes() == ["DG109"]


def test_after_a_hang_no_other_source_is_sent_into_the_driver():
    asked = sources(failing("nvml", hung=True), Observation("nvidia-smi", ok=True), Observation("sysfs", ok=True))
    observations = _nvidia.observe(asked)
    assert [source.asked for _name, source in asked] == [1, 0, 0]
    assert [observation.source for observation in observations] == ["nvml", "nvidia-smi", "sysfs"]
    assert observations[2].message == "Not asked, since nvml did not come back."


def test_the_first_source_that_answers_is_enough():
    asked = sources(failing("nvml"), Observation("nvidia-smi", ok=True), Observation("sysfs", ok=True))
    assert [observation.source for observation in _nvidia.observe(asked)] == ["nvml", "nvidia-smi"]


def test_nobody_to_ask_a_loaded_driver(host):
    host.gpu("nvidia")
    host.load()
    host.answers(failing("nvml"), failing("nvidia-smi"), Observation("sysfs", ok=True))
    assert host.codes() == ["DG110"]


def test_a_gpu_that_only_the_driver_knows(host):
    (host.root / "dev").mkdir()
    (host.root / "dev/dxg").touch()
    ids = {"vendor_id": "0x10de", "device_id": "0x2236", "subsystem_vendor_id": "0x10de", "subsystem_device_id": "0x1482"}
    host.answers(Observation("nvml", ok=True, gpus={A10: {**GPU, "pci": ids}}))
    assert host.gather()["gpus"] == [{**KERNEL_KNOWS, "class": None, "bound_driver": None, **GPU, "processes": None}]
    assert host.codes() == []


def test_packages_that_nobody_knows_or_that_are_broken(host):
    host.packages(_packages.PackagesUnknown("rpm failed: no database"))
    assert host.gather()["warnings"] == [{"code": "DG114", "message": "rpm failed: no database"}]
    host.packages([Package("nvidia-dkms-580", "580.178.04-0ubuntu1", "Ubuntu", broken=True)])
    [warning] = host.gather()["warnings"]
    assert warning["code"] == "DG113"
    assert warning["message"] == "The installation of nvidia-dkms-580 was not finished; run dpkg --configure -a and read why."
    host.packages([Package("nvidia-open", f"{version}-1.el9", "NVIDIA", broken=False) for version in ("580.95.05", "580.105.08")])
    facts = host.gather()
    assert facts["warnings"][0]["message"].endswith("was not finished; run dnf remove --duplicates and read why.")
    assert facts["driver"]["broken"] == [
        {"name": "nvidia-open", "version": f"{version}-1.el9", "state": "duplicate"} for version in ("580.105.08", "580.95.05")
    ]


def test_who_has_a_gpu_open(host, monkeypatch):
    monkeypatch.setattr(_nvidia.os, "geteuid", lambda: 0)
    host.gpu("nvidia")
    host.load()
    opened = (("python3", "nvidia0"), ("nvidia-persiste", "nvidia0"), ("sh", "null"), ("train", "nvidia-uvm"))
    for pid, (name, node) in enumerate(opened, 41):
        (host.root / f"proc/{pid}/fd").mkdir(parents=True)
        (host.root / f"proc/{pid}/comm").write_text(f"{name}\n")
        (host.root / f"proc/{pid}/fd/3").symlink_to(f"/dev/{node}")
    expected = [{"pid": 41, "name": "python3", "container": None}, {"pid": 44, "name": "train", "container": None}]
    host.answers(Observation("nvml", ok=True, gpus={A10: {**GPU, "processes": []}}))
    assert host.gather()["driver"]["users"] == expected, "the driver tells nothing of who only has a device open"
    host.answers(failing("nvml", 18), Observation("sysfs", ok=True))
    assert host.gather()["driver"]["users"] == expected
    monkeypatch.setattr(_nvidia.os, "geteuid", lambda: 1000)
    assert host.gather()["driver"]["users"] is None, "an ordinary user sees his own processes only"


def test_what_an_interrupted_run_left(host):
    state = host.root / "var/lib/difyops/nvidia_driver"
    state.mkdir(parents=True)
    (state / "journal.json").write_text('{"schema": 1, "phase": "packages"}')
    (host.root / "etc/modprobe.d").mkdir()
    (host.root / "etc/modprobe.d/difyops-nvidia-driver.conf").write_text("")
    state = "half-configured"
    host.packages([Package("nvidia-dkms-580", "580.178.04-0ubuntu1", "Ubuntu", broken=True, state=state), *TOOLKIT])
    driver = host.gather()["driver"]
    assert driver["journal"] == {"schema": 1, "phase": "packages"}
    assert driver["broken"] == [{"name": "nvidia-dkms-580", "version": "580.178.04-0ubuntu1", "state": "half-configured"}]
    assert list(driver["managed"]) == ["/etc/modprobe.d/difyops-nvidia-driver.conf"]


def test_what_roles_have_done_to_engine_and_toolkit(host):
    hold = [package._replace(held=True) for package in TOOLKIT[:3]]
    docker = Package("docker.io", "26.1.5+dfsg1-9", "Debian Go", broken=True, held=True, source="docker.io", state="unpacked")
    host.packages([*hold, TOOLKIT[3], docker])
    for path, text in {
        "etc/apt/preferences.d/difyops-nvidia-container-toolkit.pref": (
            f"Package: {' '.join(_packages.TOOLKIT)}\nPin: version 1.19.1-*\nPin-Priority: 1001\n"
        ),
        "etc/apt/sources.list.d/difyops-docker.sources": "",
        "var/lib/difyops/container_engine/journal.json": '{"schema": 1, "phase": "restart"}',
    }.items():
        (host.root / path).parent.mkdir(parents=True, exist_ok=True)
        (host.root / path).write_text(text)
    host.monkeypatch.setattr(_host, "ask_units", lambda timeout: lambda: UNITS)
    facts = host.gather()
    toolkit, engine = facts["toolkit"], facts["engine"]
    assert (toolkit["pinned"], toolkit["broken"], toolkit["version"]) == (True, [], "1.19.1")
    assert {pin["kind"] for pin in toolkit["pins"]} == {"hold", "preference"}
    assert list(toolkit["managed"]) == ["/etc/apt/preferences.d/difyops-nvidia-container-toolkit.pref"]
    assert toolkit["refresh"] == {"path_enabled": True, "path_active": True, "service_enabled": False, "feature_flags": []}
    assert (engine["packages"], engine["origin"]) == ([{"name": "docker.io", "version": "26.1.5+dfsg1-9"}], "distribution")
    assert engine["broken"] == [{"name": "docker.io", "version": "26.1.5+dfsg1-9", "state": "unpacked"}]
    assert engine["pins"] == [{"kind": "hold", "name": "docker.io", "value": None, "path": None}]
    assert engine["service"] == {"enabled": True, "active": False}
    assert list(engine["managed"]) == ["/etc/apt/sources.list.d/difyops-docker.sources"]
    assert engine["journal"] == {"schema": 1, "phase": "restart"}
    assert (facts["driver"]["managed"], facts["driver"]["journal"]) == ({}, None)
    assert "docker.io" in next(warning["message"] for warning in facts["warnings"] if warning["code"] == "DG113")


UNITS = {
    "nvidia-cdi-refresh.path": {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"},
    "nvidia-cdi-refresh.service": {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"},
    "docker.service": {"LoadState": "loaded", "ActiveState": "failed", "UnitFileState": "enabled"},
}


def test_an_engine_that_does_not_answer_and_a_broken_configuration(host):
    (host.root / "etc/docker").mkdir()
    (host.root / "etc/docker/daemon.json").write_text("{")
    host.engine({"name": "docker", "error": "The container engine does not answer."})
    assert host.codes() == ["DG201", "DG216"]


def test_a_configuration_that_only_root_may_read_is_not_broken(host, monkeypatch):
    unread = {"exists": True, "content": {}, "sha256": None, "error": "It cannot be read: Permission denied."}
    facts = host.gather()
    facts["engine"]["daemon_config"] = unread
    assert "DG216" in [warning["code"] for warning in _nvidia.complaints(facts)]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [warning["code"] for warning in _nvidia.complaints(facts)] == ["DG116"]
    facts["engine"]["daemon_config"] = {**unread, "sha256": "0" * 64}
    assert [warning["code"] for warning in _nvidia.complaints(facts)] == ["DG216", "DG116"]


def test_toolkit_and_specifications(host):
    directory = host.root / "etc/cdi"
    directory.mkdir()
    (directory / "nvidia.yaml").write_text(
        "kind: nvidia.com/gpu\ndevices:\n- name: all\ncontainerEdits:\n  mounts:\n  - hostPath: /usr/lib/libcuda.so.470.256.02\n"
    )
    (directory / "broken.json").write_text("{")
    (host.root / "etc/nvidia-container-runtime").mkdir()
    (host.root / "etc/nvidia-container-runtime/config.toml").write_text('[nvidia-container-runtime]\nmode = "auto"\n')
    host.load()
    host.answers(GOOD)
    names = ("nvidia-container-toolkit", "nvidia-container-toolkit-base")
    host.packages([Package(name, version, "NVIDIA", broken=False) for name, version in zip(names, ("1.17.8-1", "1.19.1-1"))])
    toolkit = host.gather()["toolkit"]
    assert (toolkit["version"], toolkit["lockstep"], toolkit["mode"]) == ("1.17.8", False, "auto")
    assert toolkit["packages"] == {
        names[0]: "1.17.8-1",
        names[1]: "1.19.1-1",
        "libnvidia-container-tools": None,
        "libnvidia-container1": None,
    }
    assert toolkit["cdi"]["directories"] == ["/etc/cdi", "/var/run/cdi"]
    assert [spec["stale"] for spec in toolkit["cdi"]["specs"]] == [None, True]
    assert sorted(host.codes()) == ["DG115", "DG214", "DG215"]


def test_the_engine_says_where_specifications_are(host):
    (host.root / "srv/cdi").mkdir(parents=True)
    (host.root / "srv/cdi/a.yaml").write_text("kind: nvidia.com/gpu\n")
    host.engine({"name": "docker", "running": True, "cdi_enabled": True, "cdi_spec_dirs": ["/srv/cdi"]})
    cdi = host.gather()["toolkit"]["cdi"]
    assert cdi["directories"] == ["/srv/cdi"]
    assert [spec["path"] for spec in cdi["specs"]] == ["/srv/cdi/a.yaml"]


@pytest.fixture
def good(host):
    """The facts of a host on which everything is well, and which deploys to Docker."""
    host.gpu("nvidia")
    host.load()
    host.answers(GOOD)
    host.packages([Package("nvidia-kernel-dkms", "535.247.01-1", "Debian NVIDIA Maintainers", broken=False)])
    host.engine({"name": "docker", "running": True, "cdi_enabled": True})
    facts = host.gather()
    assert facts["warnings"] == []
    return change(facts, "driver.reboot_reasons", ["A new kernel waits."])


def put(facts, way, value):
    """Return a copy of facts with the value at the end of a way changed."""
    copy = json.loads(json.dumps(facts))
    place = copy
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = value
    return copy


def change(facts, path, value):
    """Return a copy of facts with one value changed; a number in the path is the position in a list."""
    return put(facts, [int(step) if step.isdecimal() else step for step in path.split(".")], value)


MANAGER = {"installed": True, "version": "535.247.01", "running": True, "matches_driver": True, "needed": True}
SPEC = {
    "path": "/etc/cdi/a.yaml",
    "kind": "nvidia.com/gpu",
    "devices": ["0", "all"],
    "driver_version": None,
    "stale": False,
    "reasons": [],
    "shadowed": [],
    "error": None,
}
WARNINGS = [
    ("driver.fabric_manager", MANAGER, None, None),
    (
        "driver.fabric_manager",
        {**MANAGER, "installed": False, "version": None, "running": False},
        "DG117",
        "fabric manager is not installed",
    ),
    ("driver.fabric_manager", {**MANAGER, "running": False}, "DG117", "does not run"),
    (
        "driver.fabric_manager",
        {**MANAGER, "version": "535.1", "matches_driver": False},
        "DG117",
        "of version 535.1, the loaded driver of 535.247.01",
    ),
    ("driver.fabric_manager", {**MANAGER, "installed": False, "needed": False}, None, None),
    ("driver.next_kernel_has_module", False, "DG118", "no NVIDIA module"),
    ("driver.next_kernel_has_module", None, None, None),
    ("driver.reboot_required", True, "DG119", "A reboot is pending"),
    ("driver.installed.version", "550.163.01", "DG122", "Driver 550.163.01 is installed, 535.247.01 is loaded"),
    ("driver.installed.version", None, None, None),
    ("gpus.0.mig", {"current": True, "pending": True, "devices": []}, "DG120", "has no MIG device"),
    ("gpus.0.mig", {"current": True, "pending": True, "devices": [{}]}, None, None),
    ("gpus.0.mig", {"current": True, "pending": False, "devices": [{}]}, "DG121", "will be off after its next reset"),
    ("gpus.0.mig", {"current": False, "pending": True, "devices": []}, "DG121", "will be on after its next reset"),
    ("gpus.0.mig", None, None, None),
    ("toolkit.packages", dict.fromkeys(_packages.TOOLKIT), "DG212", "not installed"),
    ("gpus.0.mig", {"current": True, "pending": True, "devices": None}, None, None),
    ("engine.cdi_enabled", False, None, None),  # the toolkit is installed, and with it the hook for --gpus
    ("engine.daemon_config.error", "It is broken.", "DG216", "It is broken."),
    ("engine.error", "It sleeps.", "DG201", "It sleeps."),
    ("toolkit.cdi.specs", [SPEC], None, None),
    ("toolkit.cdi.specs", [{**SPEC, "stale": True, "reasons": ["a", "b"]}], "DG214", "/etc/cdi/a.yaml is out of date: a; b."),
    ("toolkit.cdi.specs", [{**SPEC, "kind": None, "error": "It is torn."}], "DG215", "It is torn."),
    ("toolkit.cdi.specs", [{**SPEC, "shadowed": ["0", "all"]}], "DG218", "/etc/cdi/a.yaml is not used for 0, all"),
]


@pytest.mark.parametrize(("path", "value", "code", "words"), WARNINGS)
def test_one_thing_that_is_wrong_is_one_warning(good, path, value, code, words):
    found = _nvidia.complaints(change(good, path, value))
    assert [warning["code"] for warning in found] == ([code] if code else [])
    assert all(words in warning["message"] and warning["message"].endswith(".") for warning in found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("engine.runtimes", ["nvidia", "runc"]),
        ("toolkit.cdi.specs", [SPEC]),
        ("warnings", [{"code": "DG114", "message": "nobody knows the packages"}]),
        ("gpus", []),
        ("gpus.0.bound_driver", "vfio-pci"),
    ],
)
def test_a_toolkit_that_is_not_missed(good, path, value):
    without = change(good, "toolkit.packages", dict.fromkeys(_packages.TOOLKIT))
    assert "DG212" not in [warning["code"] for warning in _nvidia.complaints(change(without, path, value))]


NO_CDI = [("engine.cdi_enabled", False), ("toolkit.packages", dict.fromkeys(_packages.TOOLKIT)), ("toolkit.cdi.specs", [SPEC])]


@pytest.mark.parametrize(
    ("path", "value", "codes"),
    [
        ("engine.runtimes", ["runc"], ["DG217"]),
        ("toolkit.packages", {**dict.fromkeys(_packages.TOOLKIT), "nvidia-container-toolkit-base": "1.19.1-1"}, ["DG217"]),
        ("toolkit.packages", {**dict.fromkeys(_packages.TOOLKIT), "nvidia-container-toolkit": "1.19.1-1"}, []),
        ("engine.runtimes", ["nvidia-cdi", "runc"], []),
        ("engine.cdi_enabled", True, []),
        ("engine.running", False, []),
        ("engine.name", "podman", []),
        ("gpus", [], []),
    ],
)
def test_an_engine_that_cannot_give_a_gpu(good, path, value, codes):
    for way, given_value in [*NO_CDI, (path, value)]:
        good = change(good, way, given_value)
    found = _nvidia.complaints(good)
    assert [warning["code"] for warning in found] == codes
    assert all("neither by CDI nor by the nvidia runtime" in warning["message"] for warning in found)


def test_the_hook_of_a_toolkit_that_is_no_package(good, monkeypatch):
    for way, given_value in NO_CDI:
        good = change(good, way, given_value)
    monkeypatch.setattr(_command, "find", lambda name: "/opt/bin/x" if name == "nvidia-container-runtime-hook" else None)
    assert _nvidia.complaints(good) == []
    assert _nvidia.complaints(change(good, "toolkit.cdi.specs", [])) == []


def test_a_loaded_driver_whose_gpus_all_belong_to_virtual_machines(host, monkeypatch):
    host.gpu("vfio-pci")
    host.load()
    program = host.root / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "CUDA Version : 12.2" || echo "No devices were found"; exit 6\n')
    program.chmod(0o755)
    monkeypatch.setattr(_nvml, "observe", lambda guard, addresses: failing("nvml"))
    monkeypatch.setattr(_command, "find", lambda name, search=(): str(program) if name == "nvidia-smi" else None)
    facts = host.gather()
    assert (facts["nvml"]["source"], facts["nvml"]["error"], facts["driver"]["cuda_version"]) == ("nvidia-smi", None, "12.2")
    assert [warning["code"] for warning in facts["warnings"]] == ["DG104"]


def places(document, way=()):
    """Return the way to every value of a document."""
    inner = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [way, *(place for key, value in inner for place in places(value, (*way, key)))]


def rich(facts):
    """Return facts in which every part of the contract has content, so that every part can be mutated."""
    sick = {"code": 18, "name": "NVML_ERROR_LIB_RM_VERSION_MISMATCH", "message": "x"}
    part = {"index": 0, "name": "MIG 1g.5gb", "uuid": "MIG-a", "profile": "1g.5gb", "memory_total_mib": None}
    changes = [
        ("gpus", [*facts["gpus"], *facts["gpus"]]),
        ("gpus.1.mig", {"current": True, "pending": False, "devices": [part]}),
        ("nvml.error", sick),
        ("driver.fabric_manager", {**MANAGER, "matches_driver": False}),
        ("driver.next_kernel_has_module", False),
        ("driver.reboot_required", True),
        ("toolkit.cdi.specs", [{**SPEC, "stale": True, "reasons": ["a"], "shadowed": ["0"], "error": "torn."}]),
        ("toolkit.lockstep", False),
        ("engine.error", "It sleeps."),
        ("engine.runtimes", ["runc"]),
        ("warnings", [{"code": "DG114", "message": "x"}]),
    ]
    for path, value in changes:
        facts = change(facts, path, value)
    return facts


VALUES = (
    st.none() | st.booleans() | st.integers(-1, 1000) | st.text(max_size=3)
    | st.sampled_from(["lost", "nvidia", "docker", "TIMEOUT", [], {}])
    | st.lists(st.none() | st.text(max_size=3) | st.lists(st.none(), max_size=1), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.none() | st.text(max_size=3), max_size=2)
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), root=st.booleans())
def test_no_facts_break_the_complaints(good, data, root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 0 if root else 1000)
        facts = rich(good)
        for _change in range(data.draw(st.integers(0, 4))):
            facts = put(facts, data.draw(st.sampled_from(places(facts)[1:])), data.draw(VALUES))
        found = _nvidia.complaints(facts)
    assert all(set(warning) == {"code", "message"} for warning in found)
    assert all(warning["code"] in _diagnosis.DIAGNOSES and warning["message"] for warning in found)
    assert all(isinstance(warning["message"], str) for warning in found)


def test_every_value_of_the_facts_may_be_null(good):
    facts = rich(good)
    codes = {warning["code"] for warning in _nvidia.complaints(facts)}
    assert {"DG107", "DG117", "DG118", "DG119", "DG121", "DG115", "DG201", "DG214", "DG215", "DG218"} <= codes
    for way in places(facts)[1:]:
        _nvidia.complaints(put(facts, way, None))


def test_no_driver_to_miss_a_module_of(good):
    facts = change(change(good, "driver.installed", None), "driver.loaded", None)
    assert "DG118" not in [warning["code"] for warning in _nvidia.complaints(change(facts, "driver.next_kernel_has_module", False))]


def test_processes_have_names_and_containers(host):
    host.gpu("nvidia")
    host.load()
    process = {"pid": 4242, "type": "compute", "memory_mib": 300}
    host.answers(Observation("nvml", ok=True, gpus={A10: {**GPU, "processes": [process, {**process, "pid": 1}]}}))
    host.engine({"name": "docker", "running": True, "cdi_enabled": True}, {"c" * 64: "rag-1"})
    place = host.root / "proc/4242"
    place.mkdir(parents=True)
    (place / "comm").write_text("python3\n")
    (place / "cgroup").write_text(f"0::/system.slice/docker-{'c' * 64}.scope\n")
    assert host.gather()["gpus"][0]["processes"] == [
        {**process, "name": "python3", "container": {"id": "c" * 64, "name": "rag-1"}},
        {**process, "pid": 1, "name": None, "container": None},
    ]


def test_the_kernel_that_boots_next(host):
    host.monkeypatch.setattr(_host, "next_kernel", lambda root: "7.0.0-next")
    facts = host.gather()
    assert facts["host"]["kernel"]["next"] == "7.0.0-next"
    assert facts["driver"]["modules"] == {os.uname().release: None, "7.0.0-next": None}
    assert facts["driver"]["next_kernel_has_module"] is False
    assert "DG118" not in host.codes()


def test_packages_that_cannot_even_be_asked_for(host):
    def ask(root, family):
        raise _packages.PackagesUnknown("No room for another process.")

    host.monkeypatch.setattr(_packages, "ask", ask)
    assert host.gather()["warnings"] == [{"code": "DG114", "message": "No room for another process."}]


def test_without_root(host):
    host.monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = "The container engine cannot be asked: permission to its socket is denied; become root."
    host.engine({"name": "docker", "error": error})
    assert host.codes() == ["DG116"]  # one warning, which tells why
    host.engine({"name": "docker", "error": "It sleeps."})
    assert host.codes() == ["DG201", "DG116"]


def test_the_contract_of_the_documents_is_the_one_tested_here():
    text = (Path(__file__).parents[4] / "docs" / "contracts.md").read_text()
    section = text.partition("## `ansible_facts['nvidia']`")[2].partition("\n## ")[0]
    for keys in CONTRACT.values():
        assert all(f"{key}:" in section for key in keys)
