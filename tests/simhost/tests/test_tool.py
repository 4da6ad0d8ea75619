# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simhost tool and what the host renders, without Docker."""

from __future__ import annotations

import json
import lzma
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import simgpu_boot
import simgpu_cdi
import simgpu_kernel
import simgpu_profile
import simgpu_stub
import yaml
from conftest import PROFILES, SIMHOST, Machine
from simhostlib import _common, _fleet, _images, _systems

REPOSITORY = SIMHOST.parent.parent
FLEETS = sorted((SIMHOST / "fleets").glob("*.json"))


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
        ({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, "os": "beos"}}}, "has the os 'beos'; known are debian13"),
        ({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, "profile": "a10-535", "set": ["x"]}}}, "'x' is not of the form"),
        ({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, "profile": "a10-535", "os": "el9"}}}, "h has rpm"),
        ({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, "images": ["cuda"], "os": "debian12"}}}, "has no engine here"),
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
    pairs = simgpu_profile.read(str(SIMHOST / "profiles" / f"{profile}.profile"))
    gpus, version = simgpu_profile.gpus(pairs), pairs["driver_version"]
    spec = yaml.safe_load(simgpu_cdi.spec(gpus, version))
    assert spec["kind"] == "nvidia.com/gpu"
    nodes = {device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in spec["devices"]}
    assert list(nodes)[-1] == "all"
    for index, gpu in enumerate(gpus):
        assert (str(index) in nodes) == (gpu["uuid"] in nodes) == (gpu["mig"] != "1")
        assert f"/dev/nvidia{gpu['minor']}" in nodes["all"]
    targets = [mount["containerPath"] for mount in spec["containerEdits"]["mounts"]]
    assert "/usr/lib/x86_64-linux-gnu/libcuda.so.1" in targets
    assert f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}" in targets
    config = simgpu_boot.pci_config(gpus[0])
    assert len(config) == 64
    assert struct.unpack_from("<HH", config) == (0x10DE, int(gpus[0]["device_id"], 16))
    assert int.from_bytes(config[9:12], "little") == int(gpus[0]["class"], 16)
    assert struct.unpack_from("<HH", config, 0x2C) == (int(gpus[0]["subsystem_vendor"], 16), int(gpus[0]["subsystem_device"], 16))


@pytest.mark.parametrize(
    ("flavour", "words"), [("open", "NVIDIA UNIX Open Kernel Module for x86_64"), ("proprietary", "NVIDIA UNIX x86_64 Kernel Module")]
)
def test_proc_version(flavour: str, words: str) -> None:
    lines = simgpu_boot.proc_version("535.274.02", flavour).splitlines()
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


def test_cdi_devices_of_mig() -> None:
    pairs = simgpu_profile.read(str(SIMHOST / "profiles/a100-mig-550.profile"))
    nodes = simgpu_cdi.device_nodes(simgpu_profile.gpus(pairs))
    assert nodes["0:1"] == nodes["MIG-a1004000-0009-5550-8000-000000000002"]
    assert nodes["0:1"] == ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap84", "/dev/nvidia-caps/nvidia-cap85"]
    assert len(nodes["all"]) == 7
    del pairs["gpu.0.mig_device.0"], pairs["gpu.0.mig_device.1"], pairs["gpu.0.mig_device.2"]
    empty = yaml.safe_load(simgpu_cdi.spec(simgpu_profile.gpus(pairs), "550.163.01"))
    assert empty["devices"] == []


def test_capability_numbers() -> None:
    # As /proc/driver/nvidia-caps/mig-minors of a genuine driver counts: gpu0/gi0, gpu0/gi0/ci0, gpu0/gi1, gpu1/gi0.
    asked = [(0, 0, None), (0, 0, 0), (0, 1, None), (1, 0, None)]
    assert [simgpu_profile.capability(*one) for one in asked] == [3, 4, 12, 138]


def test_overrides_set_and_take_away() -> None:
    text = "# a comment\na=1\nb=2\ngpu.0.mig=0\n"
    assert _fleet.with_overrides(text, ["b=3", "a=", "c=x=y"]) == "# a comment\ngpu.0.mig=0\nb=3\nc=x=y\n"
    for wrong in ("gpu.0.mig", "=1"):
        with pytest.raises(_common.SimhostError, match="is not of the form key=value"):
            _fleet.with_overrides(text, [wrong])


def test_profile_of_an_unknown_name_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(_common.SimhostError, match="the profile 'b300', and"):
        _fleet.profile_file("b300", tmp_path)


def modinfo(path: Path) -> dict[str, str]:
    """The fields of the section, as binutils find it."""
    section = path.with_suffix(".section")
    subprocess.run(["objcopy", f"--dump-section=.modinfo={section}", str(path)], check=True, capture_output=True)
    return dict(field.decode().split("=", 1) for field in section.read_bytes().strip(b"\0").split(b"\0"))


@pytest.mark.skipif(not shutil.which("objcopy"), reason="binutils reads the module files")
@pytest.mark.parametrize(("flavour", "license_text"), [("open", "Dual MIT/GPL"), ("proprietary", "NVIDIA")])
def test_kernel_modules_are_true_elf_files(tmp_path: Path, flavour: str, license_text: str) -> None:
    module = simgpu_kernel.elf({".modinfo": simgpu_kernel.modinfo("nvidia", "6.12.9-amd64", "580.178.04", flavour)})
    path = tmp_path / "nvidia.ko"
    path.write_bytes(module)
    fields = modinfo(path)
    assert (fields["version"], fields["license"]) == ("580.178.04", license_text)
    assert fields["vermagic"].split()[0] == "6.12.9-amd64"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl signs the modules")
def test_signed_modules_end_as_the_kernel_wants() -> None:
    module = simgpu_kernel.signed(b"module", simgpu_kernel.new_key("A signer"))
    assert module.startswith(b"module")
    assert module.endswith(simgpu_kernel.SIGNATURE_END)
    head = module[: -len(simgpu_kernel.SIGNATURE_END)]
    assert struct.unpack(">I", head[-4:])[0] == len(head) - 12 - len(b"module")
    assert b"A signer" in module


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """simgpu_kernel on folders of its own, without depmod."""
    monkeypatch.setattr(simgpu_kernel, "MODULES", str(tmp_path / "modules"))
    monkeypatch.setattr(simgpu_kernel, "BOOT", str(tmp_path / "boot"))
    monkeypatch.setattr(simgpu_kernel, "GRUB_DEFAULTS", str(tmp_path / "grub"))
    monkeypatch.setattr(simgpu_kernel, "depmod", lambda kernel: None)
    (tmp_path / "boot").mkdir()
    return tmp_path


@pytest.mark.parametrize(("next_module", "there"), [("yes", True), ("no", False)])
def test_kernels_of_a_host(kernels: Path, next_module: str, there: bool) -> None:
    profile = {"kernels": "6.99.1-amd64, running", "next_kernel_module": next_module, "module_compression": "xz"}
    simgpu_kernel.render_boot(profile)
    simgpu_kernel.install("580.178.04", "open", "nvidia-current-open", profile)
    assert sorted(path.name for path in (kernels / "boot").glob("vmlinuz-*")) == sorted(
        [f"vmlinuz-{platform.release()}", "vmlinuz-6.99.1-amd64"]
    )
    menu = (kernels / "boot/grub/grub.cfg").read_text(encoding="ascii")
    assert menu.index("vmlinuz-6.99.1-amd64") < menu.index(f"vmlinuz-{platform.release()}")
    assert len((kernels / "boot/grub/grubenv").read_bytes()) == 1024
    module = "updates/dkms/nvidia-current-open.ko.xz"
    assert lzma.decompress((kernels / "modules" / platform.release() / module).read_bytes()).startswith(b"\x7fELF")
    assert (kernels / "modules/6.99.1-amd64" / module).exists() is there
    simgpu_kernel.render_boot({})
    assert [path.name for path in (kernels / "modules").iterdir()] == [platform.release()]
    assert list((kernels / "boot").iterdir()) == []


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        ("t4-470", ["libnvidia-tesla-470-ml1", "libnvidia-tesla-470-cuda1", "nvidia-tesla-470-smi", "nvidia-tesla-470-kernel-dkms"]),
        ("v100-580", ["libnvidia-ml1", "libcuda1", "nvidia-smi", "nvidia-kernel-dkms"]),
        ("h100x8-580", ["libnvidia-ml1", "libcuda1", "nvidia-smi", "nvidia-open-kernel-dkms"]),
    ],
)
def test_packages_of_a_profile(machine: Machine, monkeypatch: pytest.MonkeyPatch, profile: str, names: list[str]) -> None:
    monkeypatch.setattr(simgpu_stub, "BUILT", str(machine.root / "built"))
    pairs = simgpu_profile.read(str(SIMHOST / "profiles" / f"{profile}.profile"))
    found = [package.name for package in simgpu_stub.wanted(pairs)]
    assert found[:4] == names
    assert ("nvidia-fabricmanager-580" in found) is (profile == "h100x8-580")
    assert simgpu_stub.wanted({}) == []


def test_a_fabric_manager_of_another_version(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simgpu_stub, "BUILT", str(machine.root / "built"))
    pairs = simgpu_profile.read(str(SIMHOST / "profiles/h100x8-550.profile"))
    versions = {package.name: package.version for package in simgpu_stub.wanted({**pairs, "fabric_manager": "550.90.07"})}
    assert versions["nvidia-fabricmanager-550"] == "550.90.07-2"
    assert versions["nvidia-driver"] == "550.163.01-2"
    assert simgpu_stub.units({**pairs, "fabric_manager": "stopped"}) == ["nvidia-persistenced.service"]


def test_nvswitches() -> None:
    switches = simgpu_boot.nvswitches({"nvswitches": "4"})
    assert [switch["pci"] for switch in switches] == [f"0000:{bus}:00.0" for bus in ("07", "08", "09", "0a")]
    assert simgpu_boot.pci_config(switches[0])[9:12] == bytes([0x00, 0x80, 0x06])
    assert simgpu_boot.nvswitches({}) == []


def test_a_bare_host_of_every_system(tmp_path: Path) -> None:
    hosts = {
        f"h{number}": {"os": name, "profile": "a10-535", "set": ["driver_version=", "mok=enrolled"], "publish": {"ssh": number}}
        for number, name in enumerate(_systems.SYSTEMS)
    }
    for host in _fleet.load(write(tmp_path / "fleet.json", {"prefix": "p", "hosts": hosts})).hosts.values():
        text = host.profile_text() or ""
        assert "driver_version" not in text
        assert text.endswith("mok=enrolled\n")
        assert host.system.image in _images.HOST_KINDS
        assert ("usr/lib/os-release" in host.system.files) == (not host.system.name.startswith("debian"))
