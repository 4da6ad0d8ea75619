# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _observer, _sysfs
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Guard, Leftovers
from hypothesis import given
from hypothesis import strategies as st

PROPRIETARY = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.247.01  Tue Apr  1 10:05:48 UTC 2025
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1)
"""
OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build  (dvs-builder@U22-I3-AM02-24-3)  Wed Oct 29
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""


def device(root, address, driver=None, **attributes):
    directory = root / "sys/bus/pci/devices" / address
    directory.mkdir(parents=True)
    values = {
        "vendor": "0x10de",
        "device": "0x2236",
        "subsystem_vendor": "0x10de",
        "subsystem_device": "0x1482",
        "class": "0x030200",
        **attributes,
    }
    for name, value in values.items():
        (directory / name).write_text(value + "\n")
    if driver:
        target = root / "sys/bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (directory / "driver").symlink_to(target)


@pytest.mark.parametrize("driver", [None, "nvidia", "nouveau", "nova_core", "vfio-pci", "some_driver"])
def test_a_gpu_and_who_drives_it(tmp_path, driver):
    device(tmp_path, "0000:00:05.0", driver)
    assert _sysfs.gpus(str(tmp_path)) == [
        {
            "pci_address": "0000:00:05.0",
            "vendor_id": "0x10de",
            "device_id": "0x2236",
            "subsystem_vendor_id": "0x10de",
            "subsystem_device_id": "0x1482",
            "class": "0x030200",
            "bound_driver": driver,
        }
    ]


def test_only_gpus_of_nvidia_count_in_order(tmp_path):
    device(tmp_path, "0000:af:00.0", **{"class": "0x030000"})
    device(tmp_path, "0000:3b:00.0")
    device(tmp_path, "0000:3b:00.1", **{"class": "0x040300"})  # the sound of the same card
    device(tmp_path, "0000:00:02.0", vendor="0x8086", **{"class": "0x030000"})
    device(tmp_path, "0000:04:00.0", **{"class": "0x068000"})  # an NVSwitch
    assert [gpu["pci_address"] for gpu in _sysfs.gpus(str(tmp_path))] == ["0000:3b:00.0", "0000:af:00.0"]


def test_a_host_without_pci(tmp_path):
    assert _sysfs.gpus(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROPRIETARY, ("535.247.01", "proprietary")),
        (OPEN, ("580.105.08", "open")),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.78  Sun\n", ("550.78", "proprietary")),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  470.256.02  Thu\n", ("470.256.02", "proprietary")),
        ("GCC version: 12.2.0\n", (None, None)),
        ("", (None, None)),
    ],
)
def test_version_file(text, expected):
    assert _sysfs.parse_version(text) == expected


@given(st.integers(100, 999), st.integers(0, 999), st.none() | st.integers(0, 99), st.booleans())
def test_versions_come_back_as_they_were_written(branch, minor, patch, is_open):
    version = f"{branch}.{minor}" + ("" if patch is None else f".{patch:02d}")
    kind = "Open Kernel Module for x86_64" if is_open else "x86_64 Kernel Module"
    assert _sysfs.parse_version(f"NVRM version: NVIDIA UNIX {kind}  {version}  Tue Apr  1\n") == (
        version,
        "open" if is_open else "proprietary",
    )


@given(st.text())
def test_no_text_breaks_the_parsers(text):
    _sysfs.parse_version(text)
    _sysfs.parse_version("NVRM version:" + text)
    assert set(_sysfs.parse_information(text)) == {"name", "uuid"}


def load(root, version=None, text=None):
    (root / "sys/module/nvidia").mkdir(parents=True)
    if version:
        (root / "sys/module/nvidia/version").write_text(version + "\n")
    if text:
        (root / "proc/driver/nvidia").mkdir(parents=True)
        (root / "proc/driver/nvidia/version").write_text(text)


def test_no_driver_loaded(tmp_path):
    assert _sysfs.loaded_driver(str(tmp_path)) is None


def test_a_loaded_driver(tmp_path):
    load(tmp_path, "580.105.08", OPEN)
    assert _sysfs.loaded_driver(str(tmp_path)) == {"version": "580.105.08", "flavour": "open"}


def test_a_loaded_driver_without_its_text(tmp_path):
    load(tmp_path, "580.105.08")
    assert _sysfs.loaded_driver(str(tmp_path)) == {"version": "580.105.08", "flavour": None}


def test_a_driver_that_tells_no_version_of_its_module(tmp_path):
    load(tmp_path, None, PROPRIETARY)
    assert _sysfs.loaded_driver(str(tmp_path)) == {"version": "535.247.01", "flavour": "proprietary"}


def observe(root, timeout_s=5):
    return _observer.kernel(Guard("sysfs", Leftovers("/nonexistent"), timeout_s), str(root))


def test_names_from_proc(tmp_path):
    for address, uuid in (("0000:3b:00.0", "GPU-0bc41c22"), ("0000:af:00.0", "GPU-????????-????")):
        directory = tmp_path / "proc/driver/nvidia/gpus" / address
        directory.mkdir(parents=True)
        (directory / "information").write_text(f"Model: \t\t NVIDIA A10\nIRQ:   \t\t 11\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n")
    observation = observe(tmp_path)
    assert observation.ok
    assert observation.gpus == {
        "0000:3b:00.0": {"name": "NVIDIA A10", "uuid": "GPU-0bc41c22"},
        "0000:af:00.0": {"name": "NVIDIA A10", "uuid": None},
    }


def test_the_kernel_always_answers(tmp_path):
    observation = observe(tmp_path)
    assert (observation.ok, observation.gpus) == (True, {})


def test_a_file_of_a_hanging_driver_does_not_hang_us(tmp_path):
    directory = tmp_path / "proc/driver/nvidia/gpus/0000:3b:00.0"
    directory.mkdir(parents=True)
    os.mkfifo(directory / "information")  # opening it waits for a writer, as reading /proc waits for the driver
    observation = observe(tmp_path, 0.3)
    assert (observation.ok, observation.hung) == (False, True)
