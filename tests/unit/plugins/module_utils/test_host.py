# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _host
from hypothesis import given
from hypothesis import strategies as st

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n'
ROCKY = 'NAME="Rocky Linux"\nVERSION_ID="9.5"\nID="rocky"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="Rocky Linux 9.5"\n'
ARCH = "ID=arch\nPRETTY_NAME='Arch Linux'\n# a comment=1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEBIAN, ("debian", "13", "debian", "Debian GNU/Linux 13 (trixie)")),
        (UBUNTU, ("ubuntu", "24.04", "debian", "Ubuntu 24.04.3 LTS")),
        (ROCKY, ("rocky", "9.5", "rhel", "Rocky Linux 9.5")),
        (ARCH, ("arch", None, None, "Arch Linux")),
        ("", (None, None, None, None)),
        ('ID="broken\nVERSION_ID=1\n', (None, "1", None, None)),
    ],
)
def test_distributions(text, expected):
    assert tuple(_host.distribution(text)[key] for key in ("id", "version", "family", "name")) == expected


@given(st.text())
def test_no_text_breaks_the_parser(text):
    assert set(_host.distribution(text)) == {"id", "version", "family", "name"}


def firmware(root, *names, value=None):
    for name in names:
        (root / "sys/firmware" / name).mkdir(parents=True)
    if value is not None:
        directory = root / "sys/firmware/efi/efivars"
        directory.mkdir(parents=True)
        (directory / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(value)


@pytest.mark.parametrize(("value", "on"), [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (b"\x06\0", None), (None, None)])
def test_secure_boot_by_the_firmware(tmp_path, value, on):
    firmware(tmp_path, "acpi", "efi", value=value)
    assert _host.secure_boot(str(tmp_path)) is on


def test_secure_boot_without_efi_and_without_a_view_of_the_firmware(tmp_path):
    assert _host.secure_boot(str(tmp_path)) is None
    firmware(tmp_path, "acpi")
    assert _host.secure_boot(str(tmp_path)) is False


def test_facts_of_a_host(tmp_path):
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text(UBUNTU)
    (tmp_path / "sys/module/nouveau").mkdir(parents=True)
    for address, vendor, kind in (("05:00.0", "0x10de", "0x068000"), ("06:00.0", "0x10de", "0x030200"), ("07:00.0", "0x1000", "0x068000")):
        device = tmp_path / "sys/bus/pci/devices" / f"0000:{address}"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    facts = _host.facts(str(tmp_path))
    assert facts["nvswitches"] == 1
    assert facts["os"]["id"] == "ubuntu"
    assert (facts["nouveau_loaded"], facts["nova_core_loaded"]) == (True, False)
    assert facts["kernel"]["running"]
    assert facts["kernel"]["next"] is None


def test_the_kernel_that_boots_next(tmp_path):
    for path in ("boot/vmlinuz-6.8.0-60-generic", "boot/vmlinuz-6.8.0-59-generic", "etc/default/grub"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert _host.facts(str(tmp_path))["kernel"]["next"] == "6.8.0-60-generic"
