# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simhost tool and what the host renders, without Docker."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import struct
import subprocess
from pathlib import Path

import pytest
import simgpu_profile
import yaml
from conftest import PROFILES, SIMHOST, Machine
from simhostlib import _common, _fleet

REPOSITORY = SIMHOST.parent.parent
FLEETS = sorted((SIMHOST / "fleets").glob("*.json"))


def boot_module():
    path = str(SIMHOST / "host-image/files/usr/lib/simgpu/simgpu_boot.py")
    loader = importlib.machinery.SourceFileLoader("simgpu_boot", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("simgpu_boot", loader))
    loader.exec_module(module)
    return module


def write(path: Path, document: object) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_fleets_can_run_side_by_side() -> None:
    loaded = [_fleet.load(path) for path in FLEETS]
    ports = [port for fleet in loaded for host in fleet.hosts.values() for port in host.publish.values()]
    assert len(loaded) >= 2
    assert len(ports) == len(set(ports))
    assert len({fleet.prefix for fleet in loaded}) == len(loaded)


def test_the_demo_inventory_has_the_demo_fleet() -> None:
    inventory = yaml.safe_load((REPOSITORY / "inventories/demo/hosts.yml").read_text(encoding="utf-8"))
    fleet = _fleet.load(_fleet.DEFAULT_FLEET)
    assert {name: host["ansible_port"] for name, host in inventory["dify_gpu"]["hosts"].items()} == {
        name: host.publish["ssh"] for name, host in fleet.hosts.items()
    }
    assert set(inventory["simulated"]["hosts"]) == {name for name, host in fleet.hosts.items() if host.profile}


GOOD = {"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}}}}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "is not JSON"),
        ([], "needs `prefix`"),
        ({"prefix": "p"}, "needs `prefix`"),
        ({"prefix": "p", "hosts": {"h": {}}}, "must map ssh"),
        ({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, "colour": 1}}}, "unknown key 'colour'"),
        ({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, "profile": "b200"}}}, "wants the profile 'b200'"),
        ({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, "images": ["x"]}}}, "images of host h names 'x'"),
        ({"prefix": "p", "hosts": {"a": {"publish": {"ssh": 1}}, "b": {"publish": {"ssh": 1}}}}, "published by a and by b"),
    ],
)
def test_bad_fleet_files_get_one_sentence(tmp_path: Path, document: object, words: str) -> None:
    with pytest.raises(_common.SimhostError) as caught:
        _fleet.load(write(tmp_path / "fleet.json", document))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_host_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(_common.SimhostError, match="no host 'x' in this fleet"):
        _fleet.load(write(tmp_path / "fleet.json", GOOD)).select(["x"])
    done = subprocess.run(
        [str(SIMHOST / "simhost"), "status", "--fleet", str(tmp_path / "absent.json")], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("simhost: the fleet file")
    assert "Traceback" not in done.stderr


def test_digest_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1", encoding="ascii")
    first = _common.digest([tmp_path])
    (tmp_path / "a").write_text("2", encoding="ascii")
    second = _common.digest([tmp_path])
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, _common.digest([tmp_path])}) == 3


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_honest_and_whole(profile: str) -> None:
    pairs = simgpu_profile.read(str(SIMHOST / "profiles" / f"{profile}.profile"))
    found = simgpu_profile.gpus(pairs)
    assert found
    for gpu in found:
        assert gpu["name"].endswith(" (simulated)")
        assert {"pci", "device_id", "uuid", "compute_capability", "memory_mib", "architecture"} <= set(gpu)


@pytest.mark.parametrize("profile", PROFILES)
def test_what_the_boot_renders(profile: str) -> None:
    boot = boot_module()
    pairs = simgpu_profile.read(str(SIMHOST / "profiles" / f"{profile}.profile"))
    gpus, version = simgpu_profile.gpus(pairs), pairs["driver_version"]
    spec = yaml.safe_load(boot.cdi_spec(gpus, version))
    assert spec["kind"] == "nvidia.com/gpu"
    assert [device["name"] for device in spec["devices"]] == ["0", "all"]
    assert spec["devices"][1]["containerEdits"]["deviceNodes"] == [{"path": "/dev/nvidia0"}]
    targets = [mount["containerPath"] for mount in spec["containerEdits"]["mounts"]]
    assert "/usr/lib/x86_64-linux-gnu/libcuda.so.1" in targets
    assert f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}" in targets
    config = boot.pci_config(gpus[0])
    assert len(config) == 64
    assert struct.unpack_from("<HH", config) == (0x10DE, int(gpus[0]["device_id"], 16))
    assert int.from_bytes(config[9:12], "little") == int(gpus[0]["class"], 16)
    assert struct.unpack_from("<HH", config, 0x2C) == (int(gpus[0]["subsystem_vendor"], 16), int(gpus[0]["subsystem_device"], 16))


@pytest.mark.parametrize(
    ("flavour", "words"), [("open", "NVIDIA UNIX Open Kernel Module for x86_64"), ("proprietary", "NVIDIA UNIX x86_64 Kernel Module")]
)
def test_proc_version(flavour: str, words: str) -> None:
    lines = boot_module().proc_version("535.274.02", flavour).splitlines()
    assert lines[0].startswith(f"NVRM version: {words}  535.274.02  ")
    assert lines[1].startswith("GCC version:")


def test_a_stamped_library_has_its_own_version(machine: Machine) -> None:
    machine.set("a10-535")
    library = machine.libraries / "libcuda.so.1"
    plain = library.read_bytes()
    ask = "import ctypes as c; i = c.c_int(); l = c.CDLL('libcuda.so.1'); l.cuDriverGetVersion(c.byref(i)); print(i.value, l.cuInit(0))"
    assert machine.python(ask).stdout.split() == ["12020", "0"]
    try:
        library.write_bytes(simgpu_profile.stamped(plain, "580.95.05"))
        # Installed newer than loaded: it serves another CUDA, and the module does not fit.
        assert machine.python(ask).stdout.split() == ["13000", "803"]
    finally:
        library.write_bytes(plain)
