# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of packages, as tables: what makes a driver on each system, and which packages are a driver's."""

from __future__ import annotations

import fnmatch
import re

import driver_scenarios as scenarios
import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_names, _driver_source, _host
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_names import Wanted


def wanted(
    system: str, version: str, source: str, branch: int, flavour: str | None, modules: str = "auto", kernels: tuple[str, ...] | None = None
) -> Wanted:
    here = _driver_source.target(_host.read(scenarios.facts(system, version)))
    assert here is not None
    return Wanted(here, source, branch, flavour, modules, kernels if kernels is not None else (scenarios.KERNELS[system],))


K = scenarios.KERNELS["ubuntu"]


@pytest.mark.parametrize(
    ("asked", "first", "others"),
    [
        (
            ("debian", "12", "distribution", 535, "proprietary"),
            ["nvidia-kernel-dkms", "nvidia-smi", "libcuda1", "libnvidia-ml1", "libnvidia-cfg1"],
            [
                [
                    "nvidia-tesla-535-kernel-dkms",
                    "nvidia-tesla-535-smi",
                    "libnvidia-tesla-535-cuda1",
                    "libnvidia-tesla-535-ml1",
                    "libnvidia-tesla-535-cfg1",
                ]
            ],
        ),
        (
            ("debian", "13", "distribution", 550, "open"),
            ["nvidia-open-kernel-dkms", "nvidia-smi", "libcuda1", "libnvidia-ml1", "libnvidia-cfg1"],
            [],
        ),
        (
            ("debian", "13", "nvidia", 580, "open"),
            ["nvidia-driver-cuda", "nvidia-kernel-open-dkms"],
            [["nvidia-kernel-open-dkms", "nvidia-smi", "libcuda1", "libnvidia-ml1"]],
        ),
        (
            ("ubuntu", "24.04", "nvidia", 580, "proprietary"),
            ["libnvidia-compute-580", "nvidia-dkms-580", "nvidia-utils-580", "nvidia-compute-utils-580"],
            [["libnvidia-compute-580", "nvidia-dkms-580"]],
        ),
        (("ubuntu", "24.04", "nvidia", 595, "open"), ["libnvidia-compute", "nvidia-dkms-open"], []),
        (("ubuntu", "24.04", "nvidia", 590, "proprietary"), ["libnvidia-compute", "nvidia-dkms"], []),
        (("rocky", "9.5", "nvidia", 580, "open"), ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"], []),
        (("rocky", "10.0", "nvidia", 580, "proprietary"), ["nvidia-driver-cuda", "kmod-nvidia-latest-dkms"], []),
        (("amzn", "2023", "nvidia", 595, "open"), ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"], []),
        (
            ("ubuntu", "24.04", "distribution", 580, "proprietary", "dkms"),
            ["nvidia-headless-no-dkms-580-server", "nvidia-dkms-580-server", "nvidia-utils-580-server", "nvidia-compute-utils-580-server"],
            [["nvidia-headless-no-dkms-580", "nvidia-dkms-580", "nvidia-utils-580", "nvidia-compute-utils-580"]],
        ),
    ],
)
def test_sets_of_packages(asked: tuple[str, str, str, int, str], first: list[str], others: list[list[str]]) -> None:
    assert _driver_names.alternatives(wanted(*asked)) == [first, *others]


def test_ubuntu_prefers_what_it_signs_and_the_server_variant() -> None:
    sets = _driver_names.alternatives(wanted("ubuntu", "24.04", "distribution", 580, "open"))
    tools = ["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server", "nvidia-compute-utils-580-server"]
    stem = "linux-modules-nvidia-580-server-open"
    assert sets[:2] == [[f"{stem}-{K}", f"{stem}-generic", *tools], [f"{stem}-{K}", *tools]]
    built = [_driver_names.builds(names) for names in sets]
    assert built == [False] * 4 + [True] * 2
    server = ["-server" in names[-1] for names in sets]
    assert server == [True, True, False, False, True, False]


@pytest.mark.parametrize(
    ("version", "kernel", "later"),
    [
        ("24.04", "6.8.0-50-generic", "generic"),
        ("24.04", "6.14.0-37-generic", "generic-hwe-24.04"),
        ("22.04", "5.15.0-130-generic", "generic"),
        ("22.04", "6.8.0-50-generic", "generic-hwe-22.04"),
        ("24.04", "6.14.0-1015-aws", "aws"),
        ("24.04", "6.8.0-1011-nvidia-64k", "nvidia-64k"),
    ],
)
def test_the_metapackage_that_brings_modules_for_later_kernels(version: str, kernel: str, later: str) -> None:
    sets = _driver_names.alternatives(wanted("ubuntu", version, "distribution", 580, "open", kernels=(kernel,)))
    assert sets[0][:2] == [f"linux-modules-nvidia-580-server-open-{kernel}", f"linux-modules-nvidia-580-server-open-{later}"]


def test_a_kernel_of_nobody_has_no_metapackage() -> None:
    sets = _driver_names.alternatives(wanted("ubuntu", "24.04", "distribution", 580, "open", kernels=("7.1.0",)))
    assert sets[0][:2] == ["linux-modules-nvidia-580-server-open-7.1.0", "nvidia-headless-no-dkms-580-server-open"]


def test_running_and_next_kernel_get_modules() -> None:
    kernels = ("6.8.0-50-generic", "6.8.0-51-generic")
    first = _driver_names.alternatives(wanted("ubuntu", "24.04", "distribution", 580, "open", kernels=kernels))[0]
    assert first[:2] == [f"linux-modules-nvidia-580-server-open-{kernel}" for kernel in kernels]


def test_where_the_flavour_is_not_known_nvidias_own_is_tried_first() -> None:
    assert _driver_names.alternatives(wanted("rocky", "9.5", "nvidia", 580, None))[0][1] == "kmod-nvidia-open-dkms"
    assert _driver_names.alternatives(wanted("rocky", "9.5", "nvidia", 550, None))[0][1] == "kmod-nvidia-latest-dkms"


@pytest.mark.parametrize(
    ("system", "version", "source"), [("debian", "13", "distribution"), ("ubuntu", "24.04", "nvidia"), ("rocky", "9.5", "nvidia")]
)
def test_only_ubuntu_has_prebuilt_modules(system: str, version: str, source: str) -> None:
    assert _driver_names.alternatives(wanted(system, version, source, 580, "open", "prebuilt")) == []


@pytest.mark.parametrize(
    ("system", "version", "flavour", "stream"),
    [
        ("rocky", "9.5", "open", "580-open"),
        ("rocky", "9.5", "proprietary", "580-dkms"),
        ("amzn", "2023", None, "580-open"),
        ("rocky", "10.0", "open", None),
        ("debian", "13", "open", None),
    ],
)
def test_module_streams(system: str, version: str, flavour: str | None, stream: str | None) -> None:
    assert _driver_names.stream(wanted(system, version, "nvidia", 580, flavour)) == stream


def test_headers() -> None:
    targets = {
        name: wanted(name, version, "nvidia", 580, "open").target
        for name, version in (("ubuntu", "24.04"), ("rocky", "9.5"), ("amzn", "2023"))
    }
    assert _driver_names.headers(targets["ubuntu"], K) == [f"linux-headers-{K}"]
    assert _driver_names.headers(targets["rocky"], "5.14.0-1.el9") == ["kernel-devel-5.14.0-1.el9"]
    assert _driver_names.headers(targets["rocky"], "5.15.0-3.el9uek.x86_64") == ["kernel-uek-devel-5.15.0-3.el9uek.x86_64"]
    newer = "6.12.74-98.124.amzn2023.x86_64"
    assert _driver_names.headers(targets["amzn"], newer) == [f"kernel-devel-{newer}", f"kernel6.12-devel-{newer}"]


def test_names_beside_the_driver() -> None:
    assert _driver_names.fabric_manager(wanted("ubuntu", "24.04", "distribution", 595, "open")) == ["nvidia-fabricmanager-595"]
    assert _driver_names.fabric_manager(wanted("ubuntu", "24.04", "nvidia", 580, "open")) == ["nvidia-fabricmanager-580"]
    assert _driver_names.fabric_manager(wanted("ubuntu", "24.04", "nvidia", 595, "open")) == ["nvidia-fabricmanager"]
    assert _driver_names.fabric_manager(wanted("rocky", "9.5", "nvidia", 580, "open"))[0] == "nvidia-fabricmanager"
    assert _driver_names.persistence(wanted("ubuntu", "24.04", "distribution", 580, "open")) == []
    assert _driver_names.persistence(wanted("debian", "13", "distribution", 550, "open")) == ["nvidia-persistenced"]
    assert _driver_names.pinning("580.95.05", 580) == ["nvidia-driver-pinning-580.95.05"]
    assert _driver_names.pinning(None, 580) == ["nvidia-driver-pinning-580"]


# Of Debian 12 and 13, Ubuntu, and NVIDIA's repositories.
OF_A_DRIVER = [
    "cuda-drivers",
    "cuda-drivers-580",
    "firmware-nvidia-gsp",
    "firmware-nvidia-tesla-535-gsp",
    "libcuda1",
    "libcudadebugger1",
    "libegl-nvidia0",
    "libgl1-nvidia-glvnd-glx",
    "libgles-nvidia2",
    "libglx-nvidia0",
    "libnvcuvid1",
    "libnvidia-allocator1",
    "libnvidia-api1",
    "libnvidia-cfg1",
    "libnvidia-cfg1-580-server",
    "libnvidia-common-580-server",
    "libnvidia-compute",
    "libnvidia-compute-580",
    "libnvidia-decode-580",
    "libnvidia-eglcore",
    "libnvidia-encode1",
    "libnvidia-extra-580-server",
    "libnvidia-fbc1",
    "libnvidia-gl-580",
    "libnvidia-gpucomp",
    "libnvidia-ml1",
    "libnvidia-nscq",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-ptxjitcompiler1",
    "libnvidia-tesla-535-cuda1",
    "libnvidia-tesla-535-ml1",
    "libnvsdm",
    "nvidia-alternative",
    "nvidia-compute-utils-580-server",
    "nvidia-cuda-mps",
    "nvidia-dkms-580-server-open",
    "nvidia-dkms-open",
    "nvidia-driver",
    "nvidia-driver-580-server",
    "nvidia-driver-cuda",
    "nvidia-fabricmanager",
    "nvidia-fabricmanager-580",
    "nvidia-firmware-580-server-580.95.05",
    "nvidia-headless-no-dkms-580-server-open",
    "nvidia-imex",
    "nvidia-kernel-common",
    "nvidia-kernel-common-580-server",
    "nvidia-kernel-dkms",
    "nvidia-kernel-open-dkms",
    "nvidia-kernel-source-580-server",
    "nvidia-kernel-support",
    "nvidia-legacy-check",
    "nvidia-modprobe",
    "nvidia-open",
    "nvidia-open-580",
    "nvidia-open-kernel-dkms",
    "nvidia-opencl-icd",
    "nvidia-persistenced",
    "nvidia-smi",
    "nvidia-tesla-535-kernel-dkms",
    "nvidia-utils-580-server",
    "nvidia-vulkan-icd",
    "xserver-xorg-video-nvidia-580",
]
NOT_OF_A_DRIVER = [
    "libnvidia-container1",
    "libnvidia-container-tools",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "nvidia-container-runtime",
    "nvidia-docker2",
    "nvidia-cuda-toolkit",
    "nvidia-cuda-dev",
    "nvidia-cudnn",
    "nvidia-fs-dkms",
    "nvidia-gds",
    "libnvidia-egl-wayland1",
    "libnvidia-egl-gbm1",
    "libnvidia-ml-dev",
    "nvidia-detect",
    "nvidia-settings",
    "nvidia-vaapi-driver",
    "nvidia-openjdk-8-jre",
    "nvidia-opencl-dev",
    "nvidia-prime",
    "libcudart12",
    "linux-image-generic",
    "bumblebee-nvidia",
]


def test_the_patterns_take_a_driver_and_nothing_else() -> None:
    def taken(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, glob) for glob in _driver_names.globs())

    assert [name for name in OF_A_DRIVER if not taken(name)] == []
    assert [name for name in NOT_OF_A_DRIVER if taken(name)] == []


def test_the_patterns_agree_with_the_facts_and_with_their_regular_expressions() -> None:
    for name in (*OF_A_DRIVER, *NOT_OF_A_DRIVER):
        by_expression = any(re.match(_driver_names.regular_expression(glob), name) for glob in _driver_names.globs())
        assert by_expression == any(fnmatch.fnmatchcase(name, glob) for glob in _driver_names.globs()) == _driver_names.is_driver(name), (
            name
        )


def test_prebuilt_modules_are_of_the_driver_and_not_pinned_by_version() -> None:
    name = "linux-modules-nvidia-580-server-open-6.8.0-50-generic"
    assert _driver_names.is_driver(name)
    assert _driver_names.is_prebuilt(name)
    assert not any(fnmatch.fnmatchcase(name, glob) for glob in _driver_names.globs())
    assert not _driver_names.is_driver("nvidia-driver-pinning-580.95.05")
