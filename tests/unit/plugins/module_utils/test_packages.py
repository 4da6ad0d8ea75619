# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _packages
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from hypothesis import given
from hypothesis import strategies as st

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "observe" / "packages.json").read_text())["cases"]
# What the query of rpm puts before each line, so that one parser serves both.
LEAD = {"dpkg": "", "rpm": "installed\t"}


def answer(case):
    return "".join(f"{LEAD[case['manager']]}{line}\n" for line in case["answer"].splitlines())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_driver_and_toolkit_behind_an_answer(case):
    packages = _packages.parse(answer(case))
    driver = _packages.driver(packages)
    assert (driver and {key: driver[key] for key in ("version", "flavour", "origin")}) == case["driver"]
    if driver:
        assert driver["packages"] == sorted(driver["packages"], key=lambda package: package["name"])
        assert driver["packages"]
        assert {package["name"] for package in driver["packages"]} == {package.name for package in _packages.parts(packages)}
    toolkit = _packages.toolkit(packages, [])
    assert list(toolkit["packages"]) == list(_packages.TOOLKIT)
    assert (toolkit["version"], toolkit["lockstep"]) == ((case["toolkit"] or {}).get("version"), (case["toolkit"] or {}).get("lockstep"))
    assert [package.name for package in packages if package.broken] == case["broken"]


def test_every_kind_of_outcome_is_among_the_cases():
    outcomes = {(case["manager"], (case["driver"] or {}).get("flavour")) for case in CASES}
    assert outcomes == {(manager, flavour) for manager in LEAD for flavour in ("open", "proprietary", None)}


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("535.261.03-1~deb12u1", "535.261.03"),
        ("1:1.17.8-1", "1.17.8"),
        ("580.178.04-0ubuntu0.24.04.1", "580.178.04"),
        ("1.19.1-1", "1.19.1"),
        ("580-1", None),
        ("", None),
    ],
)
def test_upstream_part_of_a_version(version, upstream):
    assert _packages.upstream(version) == upstream


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-driver-pinning-580",
        "nvidia-driver-assistant",
        "nvidia-driver-libs",
        "nvidia-smi",
        "nvidia-settings",
        "libnvidia-ml1",
        "nvidia-kernel-support",
    ],
)
def test_what_is_no_driver(name):
    assert _packages.driver([Package(name, "580.105.08-1", "NVIDIA", broken=False)]) is None


# The Debian and Ubuntu packages of NVIDIA's repository have no branch in their names from 590 on.
@pytest.mark.parametrize(
    ("names", "flavour"),
    [
        (("nvidia-dkms-open", "libnvidia-compute", "nvidia-driver-open"), "open"),
        (("nvidia-dkms", "libnvidia-compute", "cuda-drivers"), "proprietary"),
    ],
)
def test_names_without_a_branch(names, flavour):
    packages = [Package(name, "595.91.07-1ubuntu1", "NVIDIA", broken=False) for name in names]
    driver = _packages.driver(packages)
    assert [package["name"] for package in driver["packages"]] == sorted(names)
    assert (driver["version"], driver["flavour"], driver["pinned"], driver["pins"]) == ("595.91.07", flavour, False, [])


@given(st.text())
def test_no_text_breaks_the_parsers(text):
    packages = _packages.parse(text)
    _packages.driver(packages)
    _packages.toolkit(packages, [])
    _packages.engine(packages, [])
    _packages.upstream(text)


words = st.from_regex(r"[a-z0-9][a-z0-9.+-]{0,15}", fullmatch=True)


@given(st.sets(st.tuples(words, words, words, st.booleans(), st.booleans(), words)))
def test_packages_come_back_as_they_were_written(rows):
    written = sorted(Package(*row, "unpacked" if row[3] else "installed") for row in rows)
    lines = (
        f"{'unpacked' if p.broken else 'installed'}\t{p.name}\t{p.version}\t{p.maker}\t{'hold' if p.held else 'install'}\t{p.source}\n"
        for p in written
    )
    assert _packages.parse("".join(lines)) == written


STATUS = """\
Package: nvidia-kernel-dkms
Status: install ok installed
Architecture: amd64
Version: 535.261.03-1
Maintainer: Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>
Description: x

Package: nvidia-driver
Status: deinstall ok config-files
Architecture: amd64
Version: 525.147.05-1
Maintainer: Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>
Description: x

Package: libcuda1
Status: hold ok installed
Architecture: amd64
Source: nvidia-graphics-drivers (535.261.03-1)
Version: 535.261.03-1
Maintainer: Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>
Description: x

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1
Maintainer: Somebody <somebody@example.org>
Description: x
"""


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="needs dpkg-query")
def test_the_genuine_dpkg_query(tmp_path):
    (tmp_path / "var/lib/dpkg/info").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/updates").mkdir()
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    packages = _packages.ask(str(tmp_path), "debian")()
    assert [(package.name, package.version, package.broken, package.held, package.source) for package in packages] == [
        ("libcuda1", "535.261.03-1", False, True, "nvidia-graphics-drivers"),
        ("nvidia-kernel-dkms", "535.261.03-1", False, False, "nvidia-kernel-dkms"),
    ]
    assert _packages.driver(packages)["origin"] == "debian"


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg")
def test_a_genuine_hold(tmp_path):
    (tmp_path / "var/lib/dpkg/info").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/updates").mkdir()
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    # What apt-mark hold does.
    command = ["dpkg", f"--admindir={tmp_path}/var/lib/dpkg", "--set-selections"]
    if subprocess.run(command, input=b"nvidia-kernel-dkms hold\nlibcuda1 install\n", check=False, capture_output=True).returncode:
        pytest.skip("dpkg sets selections for root only")
    assert {package.name: package.held for package in _packages.ask(str(tmp_path), "debian")()} == {
        "libcuda1": False,
        "nvidia-kernel-dkms": True,
    }


def program(directory, name, script):
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_rpm_comes_first_on_its_distributions(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").touch()
    program(tmp_path, "rpm", r"printf 'installed\tnvidia-open\t580.105.08-1.el9\tNVIDIA\n'")
    program(tmp_path, "dpkg-query", r"printf 'installed\tnvidia-driver\t535.1.2-1\tDebian\n'")
    search = [str(tmp_path)]
    assert _packages.ask(str(tmp_path), "rhel", search)()[0].name == "nvidia-open"
    assert _packages.ask(str(tmp_path), "debian", search)()[0].name == "nvidia-driver"
    assert _packages.ask(str(tmp_path), None, search)()[0].name == "nvidia-driver"


@pytest.mark.parametrize(
    ("script", "sentence"), [("echo no database >&2; exit 2", "rpm failed: no database"), ("sleep 60", "did not answer")]
)
def test_a_package_manager_that_fails(tmp_path, monkeypatch, script, sentence):
    monkeypatch.setattr(_packages, "_TIMEOUT_S", 0.5)
    program(tmp_path, "rpm", script)
    with pytest.raises(_packages.PackagesUnknown, match=sentence):
        _packages.ask(str(tmp_path), "rhel", [str(tmp_path), "/bin", "/usr/bin"])()


def test_no_package_manager(tmp_path):
    with pytest.raises(_packages.PackagesUnknown, match="Neither dpkg-query nor rpm"):
        _packages.ask(str(tmp_path), "debian", [str(tmp_path)])()


# By whom they are published; what a pin has to hold beside the packages that tell the version.
PARTS = {
    "debian": "firmware-nvidia-gsp firmware-nvidia-tesla-535-gsp libcuda1 libcudadebugger1 libegl-nvidia-tesla-470-0 libegl-nvidia0 "
    "libgl1-nvidia-glvnd-glx libgles-nvidia1 libglx-nvidia0 libnvcuvid1 libnvidia-allocator1 libnvidia-cfg1 libnvidia-eglcore "
    "libnvidia-encode1 libnvidia-ml1 libnvidia-nvvm4 libnvidia-pkcs11-openssl3 libnvidia-ptxjitcompiler1 libnvidia-tesla-535-cuda1 "
    "libnvoptix1 nvidia-alternative nvidia-driver nvidia-driver-bin nvidia-driver-libs nvidia-egl-icd nvidia-kernel-common "
    "nvidia-kernel-dkms nvidia-kernel-support nvidia-legacy-check nvidia-modprobe nvidia-open-kernel-dkms nvidia-opencl-icd "
    "nvidia-persistenced nvidia-smi nvidia-suspend-common nvidia-tesla-535-driver nvidia-tesla-535-kernel-dkms nvidia-tesla-535-smi "
    "nvidia-vdpau-driver nvidia-vulkan-common xserver-xorg-video-nvidia xserver-xorg-video-nvidia-tesla-535",
    "ubuntu": "libnvidia-cfg1-580-server libnvidia-common-580-server libnvidia-compute-580-server libnvidia-decode-580 "
    "libnvidia-encode-580 libnvidia-extra-580 libnvidia-fbc1-580 libnvidia-gl-580 linux-modules-nvidia-580-server-open-6.8.0-50-generic "
    "linux-modules-nvidia-580-server-open-generic linux-objects-nvidia-580-6.8.0-50-generic linux-signatures-nvidia-6.8.0-50-generic "
    "nvidia-compute-utils-580-server nvidia-dkms-580-server-open nvidia-driver-580-server-open nvidia-firmware-580-server-580.95.05 "
    "nvidia-headless-580-server-open nvidia-headless-no-dkms-580-server-open nvidia-kernel-common-580-server "
    "nvidia-kernel-source-580-server-open nvidia-utils-580-server xserver-xorg-video-nvidia-580 nvidia-fabricmanager-580",
    "nvidia deb": "cuda-drivers cuda-drivers-580 cuda-drivers-fabricmanager-580 libnvidia-compute libnvidia-gpucomp libnvidia-nscq "
    "libnvsdm nvidia-dkms-open nvidia-driver-open nvidia-fabricmanager nvidia-firmware nvidia-imex nvidia-kernel-source-open "
    "nvidia-open nvidia-open-580 nvlink5 nvlink5-580 nvlsm",
    "nvidia rpm": "kmod-nvidia-latest-dkms kmod-nvidia-open-dkms libnvidia-cfg libnvidia-fbc libnvidia-gpucomp libnvidia-ml nvidia-driver "
    "nvidia-driver-cuda nvidia-driver-cuda-libs nvidia-driver-libs nvidia-driver-NVML nvidia-driver-devel nvidia-fabric-manager "
    "nvidia-kmod-common nvidia-libXNVCtrl nvidia-modprobe nvidia-open nvidia-persistenced xorg-x11-nvidia nvidia-imex",
}
NO_PARTS = (
    "libnvidia-container1 libnvidia-container-tools nvidia-container-toolkit nvidia-container-toolkit-base nvidia-container-runtime "
    "nvidia-docker2 nvidia-settings nvidia-xconfig nvidia-prime nvidia-detect nvidia-support nvidia-installer-cleanup "
    "nvidia-cuda-toolkit nvidia-cuda-dev nvidia-cudnn nvidia-profiler nvidia-opencl-dev nvidia-openjdk-8-jre libnvidia-ml-dev "
    "libnvidia-egl-wayland1 libnvidia-egl-gbm1 libnvidia-egl-xcb1 firmware-nvidia-graphics nvidia-gpu-firmware glx-alternative-nvidia "
    "nvidia-driver-assistant nvidia-driver-pinning-580 nvidia-driver-pinning-580.95.05 linux-modules-nvidia-fs-6.8.0-50-generic "
    "nvidia-fs-dkms nvidia-gds nvidia-vaapi-driver boinc-client-nvidia-cuda primus-nvidia libcudart11.0 cuda-toolkit-12-6 cuda-compat-12-6 "
    "nvidia-fabricmanager-dev-580 dnf-plugin-nvidia bash"
)


@pytest.mark.parametrize("maker", PARTS)
def test_what_belongs_to_a_driver(maker):
    assert [name for name in PARTS[maker].split() if not _packages.is_part(name)] == []


def test_what_does_not_belong_to_a_driver():
    assert [name for name in NO_PARTS.split() if _packages.is_part(name)] == []


def test_the_fabric_manager_is_a_part_and_tells_no_version():
    driver = _packages.driver([Package(name, version, "NVIDIA", broken=False) for name, version in FABRIC])
    assert driver["version"] == "580.95.05"
    assert [package["name"] for package in driver["packages"]] == ["nvidia-dkms-open", "nvidia-fabricmanager"]
    assert _packages.driver([Package(*FABRIC[0], "NVIDIA", broken=False)]) is None


FABRIC = [("nvidia-fabricmanager", "580.105.08-1"), ("nvidia-dkms-open", "580.95.05-1"), ("nvidia-settings", "595.1.2-1")]


@pytest.mark.parametrize(
    ("version", "driver"),
    [("580.95.05-1.el9", "580.95.05"), ("3:580.95.05-1.el9", "580.95.05"), ("6.8.0-60.63+1", None), ("20220217+3", None), (None, None)],
)
def test_versions_of_drivers(version, driver):
    assert _packages.driver_version(version) == driver


@given(st.lists(st.tuples(words, words, st.booleans()), max_size=6))
def test_broken_packages_are_those_that_say_so_and_those_that_are_there_twice(rows):
    packages = [Package(name, version, "", broken, state="unpacked" * broken) for name, version, broken in set(rows)]
    told = _packages.broken(packages)
    assert {package.name for package in packages if package.broken} <= {entry["name"] for entry in told}
    for entry in told:
        versions = {package.version for package in packages if package.name == entry["name"]}
        assert (entry["state"] == "unpacked") or (entry["state"] == "duplicate" and len(versions) > 1)


ENGINES = {
    "docker.io docker-cli docker-compose docker-buildx containerd runc": "distribution",
    "docker.io docker-compose-v2 docker-buildx containerd runc": "distribution",
    "docker-ce docker-ce-cli containerd.io docker-buildx-plugin docker-compose-plugin docker-ce-rootless-extras": "docker",
    "docker-ce docker-model-plugin docker-scan-plugin": "docker",
    "moby-engine moby-cli moby-containerd moby-runc moby-compose": None,
    "containerd runc": None,
    "": None,
}
NO_ENGINES = "docker-doc docker-registry docker2aci python3-docker podman-docker docker-clean containernetworking-plugins runcitor"


@pytest.mark.parametrize(("names", "origin"), ENGINES.items())
def test_packages_of_the_engine(names, origin):
    packages = [Package(name, "1.2-1", "", broken=False, source=name) for name in (*names.split(), *NO_ENGINES.split())]
    told = _packages.engine(packages, [])
    assert told == {
        "packages": [{"name": name, "version": "1.2-1"} for name in names.split()],
        "origin": origin,
        "pins": [],
        "broken": [],
    }


def test_what_is_called_docker():
    # On Amazon Linux the engine; on Debian and Ubuntu a program for window managers was, and rpm's answer names no source.
    assert _packages.engine([Package("docker", "25.0.8-1.amzn2023.0.5", "Amazon Linux", broken=False)], [])["origin"] == "distribution"
    assert _packages.engine([Package("docker", "1.5-2", "Debian", broken=False, source="wmdocker")], [])["packages"] == []


@pytest.mark.parametrize(("value", "counts"), [("version 580.95.05-*, priority 1001", False), ("version 1.19.1-*, priority 1001", True)])
def test_a_preference_for_versions_of_the_driver_does_not_keep_the_toolkit(value, counts):
    """NVIDIA's pinning package says it of every package with nvidia in its name."""
    packages = [Package(name, "1.19.1-1", "", broken=False) for name in _packages.TOOLKIT]
    rules = [("preference", pattern, value, "/etc/apt/preferences.d/nvidia") for pattern in ("*nvidia*", "libnvidia-container*")]
    found = _packages.toolkit(packages, rules)
    assert (found["pinned"], bool(found["pins"])) == (counts, counts)


@given(st.lists(st.tuples(st.sampled_from([*_packages.TOOLKIT, "docker-ce", "runc", "bash"]), words, st.booleans(), st.booleans())))
def test_no_packages_break_engine_and_toolkit(rows):
    packages = [Package(name, version, "", broken, held, state="unpacked" * broken) for name, version, broken, held in rows]
    toolkit, engine = _packages.toolkit(packages, []), _packages.engine(packages, [])
    assert (toolkit["pinned"] is None) is not any(package.name in _packages.TOOLKIT for package in packages)
    assert {entry["name"] for entry in engine["broken"]} <= {entry["name"] for entry in engine["packages"]}
    assert {pin["name"] for pin in engine["pins"]} == {p.name for p in packages if p.held and p.name in ("docker-ce", "runc")}
