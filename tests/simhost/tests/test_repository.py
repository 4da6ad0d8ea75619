# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stub repositories and what their packages do on a host, without Docker, dnf and root."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import simgpu_boot
import simgpu_dkms
import simgpu_kernel
import simgpu_modprobe
import simgpu_profile
import simgpu_stub
from conftest import Machine
from simrepo import _apt_packages, _contents, _deb, _package, _rpm, _rpm_packages

KERNEL = platform.release()
UBUNTU = {"jammy": "22.04", "noble": "24.04", "resolute": "26.04"}


@pytest.fixture(autouse=True)
def contents(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries of this run in the packages, and no time spent on signatures."""
    _contents.built.cache_clear()
    _contents._module.cache_clear()
    monkeypatch.setattr(simgpu_stub, "BUILT", str(machine.root / "built"))
    monkeypatch.setattr(simgpu_kernel, "signed", lambda module, signer: module)


def apt_repositories() -> dict[str, list[_package.Package]]:
    found = {suite: _apt_packages.archive(suite, release, KERNEL) for suite, release in UBUNTU.items()}
    found.update({suite: _apt_packages.debian_archive(suite, KERNEL) for suite in ("bookworm", "trixie")})
    # NVIDIA's repositories lean on the distribution's.
    found["nvidia-ubuntu"] = [*_apt_packages.nvidia_repository(), _apt_packages.simulated_dkms("Ubuntu")]
    found["nvidia-debian"] = [*_apt_packages.debian_repository(), _apt_packages.simulated_dkms("Debian")]
    return found


def satisfied(relation: str, packages: list[_package.Package]) -> bool:
    """Whether one of the alternatives of a dependency is there: by name and exact version, or by name or provision."""
    for alternative in relation.split(" | "):
        name, _space, condition = alternative.partition(" ")
        exact = re.fullmatch(r"\(= (.+)\)", condition)
        if any(package.name == name and (not exact or package.version == exact[1]) for package in packages):
            return True
        if not condition and any(name in package.provides for package in packages):
            return True
    return False


def test_every_dependency_can_be_had() -> None:
    for repository, packages in apt_repositories().items():
        missing = [f"{package.name}: {need}" for package in packages for need in package.depends if not satisfied(need, packages)]
        assert missing == [], repository
        keys = [(package.name, package.version) for package in packages]
        assert len(keys) == len(set(keys)), repository


@pytest.mark.parametrize(
    ("repository", "names"),
    [
        ("noble", ["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server", f"linux-modules-nvidia-595-server-open-{KERNEL}"]),
        ("noble", ["linux-modules-nvidia-580-server-generic-hwe-24.04", f"linux-headers-{KERNEL}", "nvidia-headless-535-server"]),
        ("jammy", ["nvidia-headless-no-dkms-470-server", "nvidia-dkms-470-server", "nvidia-fabricmanager-580"]),
        ("resolute", ["nvidia-dkms-580-server", "nvidia-dkms-535-server-open"]),
        ("trixie", [f"linux-headers-{KERNEL}", "dkms"]),
        (
            "nvidia-ubuntu",
            ["libnvidia-compute-580", "nvidia-dkms-580-open", "libnvidia-compute", "nvidia-dkms-open", "nvidia-persistenced"],
        ),
        ("nvidia-ubuntu", ["nvidia-driver-pinning-580", "nvidia-driver-pinning-595.91.07", "nvidia-fabricmanager"]),
        ("nvidia-debian", ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-kernel-dkms", "nvidia-driver-pinning-580.95.05"]),
    ],
)
def test_names_that_drivers_have(repository: str, names: list[str]) -> None:
    assert set(names) <= {package.name for package in apt_repositories()[repository]}


def test_transitional_names_lead_to_another_branch() -> None:
    packages = {package.name: package for package in _apt_packages.archive("noble", "24.04", KERNEL)}
    old = packages["nvidia-headless-535-server-open"]
    assert old.depends == ["nvidia-headless-580-server-open"]
    assert old.version.startswith("535.")


def test_branches_keep_each_other_out() -> None:
    packages = [package for package in _apt_packages.archive("noble", "24.04", KERNEL) if package.name.startswith("libnvidia-compute-5")]
    drivers = [package for package in packages if package.files]
    assert {package.name for package in drivers} == {"libnvidia-compute-580-server", "libnvidia-compute-595-server"}
    assert all("libnvidia-compute" in package.provides and "libnvidia-compute" in package.conflicts for package in drivers)


def test_a_deb_is_one(tmp_path: Path) -> None:
    package = _package.Package(
        "a", "1:2-3", "thing", "Ubuntu", depends=["b"], files={"/usr/bin/a": (b"#!/bin/sh\n", 0o755)}, links={"/usr/bin/c": "a"}
    ).but(configured="echo here")
    content = _deb.deb(package)
    assert content.startswith(b"!<arch>\ndebian-binary   ")
    path = tmp_path / "a.deb"
    path.write_bytes(content)
    if shutil.which("dpkg-deb"):
        fields = subprocess.run(["dpkg-deb", "--field", str(path)], check=True, capture_output=True, text=True).stdout
        assert "Depends: b" in fields
        assert "Description: SIMULATED" in fields
        listing = subprocess.run(["dpkg-deb", "--contents", str(path)], check=True, capture_output=True, text=True).stdout
        assert "-rwxr-xr-x root/root" in listing.replace("0/0", "root/root")
        assert "./usr/bin/c -> a" in listing
    start = content.index(b"control.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content[start + 60 : content.index(b"data.tar.gz")]))) as tar:
        script = tar.extractfile("./postinst").read().decode()  # type: ignore[union-attr]
    assert "echo here" in script


@pytest.mark.skipif(not shutil.which("gpg"), reason="gpg signs the repositories")
def test_indexes_tell_the_truth_and_are_signed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    key = ["gpg", "--homedir", str(home), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*key, "--quick-gen-key", "t <t@localhost>", "ed25519", "sign", "never"], check=True, capture_output=True)
    packages = [_package.Package("a", "1", "thing", "Ubuntu")]
    _deb.suites(tmp_path / "out", "Ubuntu", "restricted", {"noble": packages}, key)
    _deb.flat(tmp_path / "flat", "NVIDIA", packages, key)
    for root, folder in ((tmp_path / "out", "dists/noble/restricted/binary-amd64"), (tmp_path / "flat", ".")):
        index = (root / folder / "Packages").read_text(encoding="ascii")
        fields = dict(re.findall(r"(?m)^(\w+): (.+)$", index))
        deb = (root / fields["Filename"]).read_bytes()
        assert int(fields["Size"]) == len(deb)
        assert fields["SHA256"] == hashlib.sha256(deb).hexdigest()
        release = next(root.rglob("InRelease"))
        assert hashlib.sha256(index.encode()).hexdigest() in release.read_text(encoding="ascii")
        assert subprocess.run([*key, "--verify", str(release)], check=False, capture_output=True).returncode == 0
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)


def test_every_stub_says_what_it_is() -> None:
    everything = [package for packages in apt_repositories().values() for package in packages]
    assert all("\nDescription: SIMULATED " in _deb.control(package) for package in everything)
    assert all(_deb.control(package).count("SIMULATED") >= 2 for package in everything)
    assert _package.MARK in simgpu_stub.MARKS


# --- rpm ---------------------------------------------------------------------------------------------------------------


def test_rpm_requirements_can_be_had() -> None:
    for version in _rpm_packages.VERSIONS:
        drivers = _rpm_packages.driver(version, "el9")
        names = {package.name for package in drivers} | {"dkms"}
        provided = {name.partition(" ")[0] for package in drivers for name in package.provides}
        for package in drivers:
            assert {need.partition(" ")[0] for need in package.depends} <= names | provided
            assert _rpm.split(package) == ("3", version, "1.el9")


def test_streams_have_what_their_names_say() -> None:
    drivers = {version: _rpm_packages.driver(version, "el9") for version in _rpm_packages.VERSIONS}
    streams = {stream.name: stream for stream in _rpm_packages.streams(drivers)}
    assert {"550-dkms", "580-open", "580-dkms", "595-open", "latest-dkms", "open-dkms"} <= set(streams)
    names = {package.name for package in streams["580-open"].packages}
    assert "kmod-nvidia-open-dkms" in names
    assert "kmod-nvidia-latest-dkms" not in names
    assert {_rpm.split(package)[1] for package in streams["580-open"].packages} == {"580.95.05", "580.105.08"}
    assert {_rpm.split(package)[1] for package in streams["latest-dkms"].packages} == set(_rpm_packages.VERSIONS)
    texts = _rpm.modules("nvidia-driver", list(streams.values()), "latest-dkms").split("---\n")[1:]
    documents = [json.loads(text.removesuffix("...\n")) for text in texts]
    defaults = documents[-1]["data"]
    assert set(defaults["profiles"]) == set(streams)
    one = next(document["data"] for document in documents if document["data"].get("stream") == "580-open")
    assert "nvidia-driver-cuda-3:580.95.05-1.el9.x86_64" in one["artifacts"]["rpms"]
    assert set(one["profiles"]["default"]["rpms"]) <= names


# --- on the host -------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a host of one's own: kernels, DKMS, sources, profile."""
    for module, name, place in (
        (simgpu_kernel, "MODULES", "modules"),
        (simgpu_kernel, "BOOT", "boot"),
        (simgpu_kernel, "DKMS_KEY", "dkms/mok.key"),
        (simgpu_kernel, "DKMS_CERTIFICATE", "dkms/mok.pub"),
        (simgpu_dkms, "TREE", "dkms"),
        (simgpu_dkms, "SOURCES", "src"),
        (simgpu_profile, "PROFILE", "profile"),
        (simgpu_profile, "OS_RELEASE", "os-release"),
        (simgpu_profile, "RIVALS_GONE", "rivals-gone"),
        (simgpu_boot, "MODPROBE_D", "modprobe.d"),
        (simgpu_boot, "INITRAMFS_LOG", "initramfs.log"),
    ):
        monkeypatch.setattr(module, name, str(tmp_path / place))
    monkeypatch.setattr(simgpu_kernel, "depmod", lambda kernel: None)
    (tmp_path / "profile").write_text("", encoding="ascii")
    (tmp_path / "os-release").write_text('ID="ubuntu"\nID_LIKE="debian"\n', encoding="ascii")
    (tmp_path / "modprobe.d").mkdir()
    return tmp_path


def add_source(host: Path, version: str, flavour: str = "open", name: str = "nvidia") -> None:
    for path, (content, _mode) in _contents.dkms_source(version, flavour, name).items():
        target = host / path.replace("/usr/src", "src", 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def add_headers(host: Path, kernel: str) -> None:
    (host / "modules" / kernel / "build").mkdir(parents=True)


def dkms(*words: str) -> int:
    return simgpu_dkms.main(list(words))


def test_dkms_skips_a_kernel_without_headers_and_builds_when_they_come(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_source(host, "580.95.05")
    assert dkms("install", "-m", "nvidia", "-v", "580.95.05", "--package") == 0
    assert "was skipped" in capsys.readouterr().out
    assert simgpu_kernel.module_of(KERNEL) is None
    add_headers(host, KERNEL)
    assert dkms("autoinstall", "-k", KERNEL) == 0
    module = simgpu_kernel.module_of(KERNEL)
    assert module is not None
    assert (module.version, module.flavour) == ("580.95.05", "open")
    assert dkms("status") == 0
    assert f"nvidia/580.95.05, {KERNEL}, x86_64: installed" in capsys.readouterr().out


def test_dkms_fails_as_the_profile_says(host: Path) -> None:
    add_source(host, "580.95.05")
    add_headers(host, KERNEL)
    (host / "profile").write_text("dkms_fails=595,580.95.05\n", encoding="ascii")
    assert dkms("install", "-m", "nvidia", "-v", "580.95.05", "--package") == simgpu_dkms.BUILD_FAILED
    assert "error:" in (host / "dkms/nvidia/580.95.05/build/make.log").read_text(encoding="ascii")
    assert dkms("autoinstall", "-k", KERNEL) == simgpu_dkms.AUTOINSTALL_FAILED
    assert simgpu_kernel.module_of(KERNEL) is None


def test_removing_the_former_version_leaves_the_new_one(host: Path) -> None:
    add_headers(host, KERNEL)
    for version in ("580.95.05", "580.105.08"):
        add_source(host, version)
        assert dkms("install", "-m", "nvidia", "-v", version, "--package") == 0
    # rpm takes the former package away after the new one has come.
    assert dkms("remove", "-m", "nvidia", "-v", "580.95.05", "--all") == 0
    module = simgpu_kernel.module_of(KERNEL)
    assert module is not None
    assert module.version == "580.105.08"
    assert dkms("remove", "nvidia/580.105.08", "--all") == 0
    assert simgpu_kernel.module_of(KERNEL) is None
    assert not (host / "dkms/nvidia").exists()


def test_modules_are_where_the_family_has_them(host: Path) -> None:
    add_source(host, "580.95.05", name="nvidia-open")
    add_headers(host, KERNEL)
    (host / "os-release").write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n', encoding="ascii")
    assert dkms("install", "-m", "nvidia-open", "-v", "580.95.05", "--package") == 0
    assert (host / "modules" / KERNEL / "extra/nvidia.ko").is_file()


def test_modules_of_dkms_count_more_than_prebuilt_ones(host: Path) -> None:
    for path, (content, _mode) in _contents.modules(KERNEL, "580.95.05", "proprietary", "kernel/nvidia-580srv").items():
        target = host / path.replace("/usr/lib/modules", "modules", 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    prebuilt = simgpu_kernel.module_of(KERNEL)
    assert prebuilt is not None
    assert prebuilt.version == "580.95.05"
    simgpu_kernel.build(KERNEL, "580.105.08", "open", "nvidia", {})
    found = simgpu_kernel.module_of(KERNEL)
    assert found is not None
    assert (found.version, found.flavour) == ("580.105.08", "open")


BARE = {"gpu.0.pci": "0000:3b:00.0", "gpu.0.device_id": "0x2236"}


def module(version: str = "580.95.05", flavour: str = "open", signer: str = "") -> simgpu_kernel.Module:
    ending = signer.encode() + simgpu_kernel.SIGNATURE_END if signer else b""
    return simgpu_kernel.Module("/x", version, flavour, b"module" + ending)


@pytest.mark.parametrize(
    ("profile", "signer", "words"),
    [
        ({}, "", None),
        ({"secure_boot": "1"}, "", "Key was rejected"),
        ({"secure_boot": "1"}, simgpu_kernel.PREBUILT_SIGNER, None),
        ({"secure_boot": "1"}, simgpu_kernel.DKMS_SIGNER, "Key was rejected"),
        ({"secure_boot": "1", "mok": "enrolled"}, simgpu_kernel.DKMS_SIGNER, None),
        ({"secure_boot": "0"}, "", None),
        ({"bound_driver": "nouveau"}, "", "No such device"),
        ({"gpu.0.bound_driver": "vfio-pci"}, "", "No such device"),
    ],
)
def test_what_the_kernel_refuses(profile: dict[str, str], signer: str, words: str | None) -> None:
    reason = simgpu_boot.refusal({**BARE, **profile}, module(signer=signer))
    assert (reason is None) if words is None else (words in str(reason))


def test_no_gpu_no_module() -> None:
    assert simgpu_boot.refusal({}, module()) == "No such device"


def test_what_a_boot_loads(host: Path) -> None:
    assert simgpu_boot.what_loads(BARE)[0] is None
    simgpu_kernel.build(KERNEL, "580.95.05", "open", "nvidia", {})
    assert simgpu_boot.what_loads(BARE) == ("580.95.05", "open")
    assert simgpu_boot.what_loads({**BARE, "load": "no"})[0] is None
    assert simgpu_boot.what_loads({**BARE, "loaded_version": "535.274.02"})[0] == "535.274.02"
    assert simgpu_boot.what_loads({**BARE, "bound_driver": "nouveau"})[0] is None


def test_a_blacklist_keeps_nouveau_out(host: Path) -> None:
    profile = {**BARE, "bound_driver": "nouveau"}
    assert not simgpu_boot.blacklisted(profile)
    file = host / "modprobe.d/any.conf"
    file.write_text("# blacklist nouveau\n", encoding="ascii")
    assert not simgpu_boot.blacklisted(profile)
    file.write_text("blacklist nouveau\nblacklist nova-core\n", encoding="ascii")
    assert simgpu_boot.blacklisted(profile)
    assert simgpu_boot.blacklisted({**BARE, "gpu.0.bound_driver": "nova_core"})
    assert not simgpu_boot.blacklisted(BARE)
    early = {**profile, "nouveau_in_initramfs": "yes"}
    assert not simgpu_boot.blacklisted(early)
    (host / "initramfs.log").write_text("made\n", encoding="ascii")
    assert simgpu_boot.blacklisted(early)


def test_rivals_that_were_kept_out_hold_no_gpu(host: Path) -> None:
    (host / "profile").write_text("bound_driver=nouveau\ngpu.1.bound_driver=vfio-pci\ngpu.0.pci=x\n", encoding="ascii")
    assert simgpu_profile.now()["bound_driver"] == "nouveau"
    (host / "rivals-gone").touch()
    assert simgpu_profile.now() == {"gpu.1.bound_driver": "vfio-pci", "gpu.0.pci": "x"}


@pytest.fixture
def kernel(host: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A pretended kernel: which modules are loaded, and who uses them."""
    state: dict[str, object] = {"loaded": set(), "users": []}
    loaded: set[str] = state["loaded"]  # type: ignore[assignment]
    whole = {"nvidia", "nvidia_uvm", "nvidia_modeset"}

    def load(profile: dict[str, str], version: str | None, flavour: str) -> None:
        loaded.clear()
        loaded.update(whole if version else ())

    monkeypatch.setattr(simgpu_modprobe, "is_loaded", lambda name: name in loaded)
    monkeypatch.setattr(simgpu_modprobe, "users", lambda profile: state["users"])
    monkeypatch.setattr(simgpu_modprobe.shutil, "rmtree", lambda path: loaded.discard(Path(path).name))
    monkeypatch.setattr(simgpu_boot, "load", load)
    monkeypatch.setattr(simgpu_boot, "show_module", lambda name, version, flavour: loaded.add(name))
    monkeypatch.setattr(simgpu_boot, "describe_devices", lambda profile, version: None)
    monkeypatch.setattr(simgpu_boot, "wake_persistenced", lambda: None)
    (host / "profile").write_text("".join(f"{key}={value}\n" for key, value in BARE.items()), encoding="ascii")
    return state


def modprobe(*words: str) -> int:
    return simgpu_modprobe.main("modprobe", list(words))


def test_modprobe_needs_a_module_on_disk(kernel: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert modprobe("nvidia") == 1
    assert f"Module nvidia not found in directory /lib/modules/{KERNEL}" in capsys.readouterr().err
    assert modprobe("-q", "nvidia") == 1
    assert capsys.readouterr().err == ""


def test_modprobe_loads_and_unloads_in_order(kernel: dict[str, object]) -> None:
    simgpu_kernel.build(KERNEL, "580.95.05", "open", "nvidia", {})
    assert modprobe("--dry-run", "nvidia") == 0
    assert kernel["loaded"] == set()
    assert modprobe("--all", "nvidia", "nvidia_uvm") == 0
    assert kernel["loaded"] == {"nvidia", "nvidia_uvm", "nvidia_modeset"}
    # Its helpers hold it.
    assert modprobe("-r", "nvidia") == 1
    kernel["users"] = ["process 1"]
    assert modprobe("-r", "nvidia-uvm", "nvidia_modeset", "nvidia") == 1
    kernel["users"] = []
    assert modprobe("-r", "nvidia-uvm", "nvidia_modeset", "nvidia") == 0
    assert kernel["loaded"] == set()


def test_rmmod_wants_a_loaded_module(kernel: dict[str, object]) -> None:
    assert simgpu_modprobe.main("rmmod", ["nvidia"]) == 1
    assert modprobe("-r", "nvidia") == 0
