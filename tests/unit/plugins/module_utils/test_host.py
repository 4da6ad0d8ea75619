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


def put(root, path, content=b""):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_headers_are_those_whose_build_tree_is_there(tmp_path):
    put(tmp_path, "usr/src/linux-headers-6.8.0-50-generic/Makefile")
    put(tmp_path, "lib/modules/6.8.0-50-generic/modules.dep")
    (tmp_path / "lib/modules/6.8.0-50-generic/build").symlink_to("/usr/src/linux-headers-6.8.0-50-generic")
    put(tmp_path, "usr/src/kernels/5.14/Makefile")
    put(tmp_path, "lib/modules/5.14/modules.dep")
    (tmp_path / "lib/modules/5.14/build").symlink_to("../../../usr/src/kernels/5.14")
    (tmp_path / "lib/modules/6.8.0-51-generic").mkdir()
    (tmp_path / "lib/modules/6.8.0-51-generic/build").symlink_to("/usr/src/linux-headers-6.8.0-51-generic")
    kernels = ("6.8.0-50-generic", "6.8.0-51-generic", None, "5.14", "5.14", "4.18")
    assert _host.headers(str(tmp_path), kernels) == ["6.8.0-50-generic", "5.14"]


CERTIFICATE = bytes(range(256)) * 3
VARIABLES = "sys/firmware/efi/efivars"
MOK = f"{VARIABLES}/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
DATABASE = f"{VARIABLES}/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"


@pytest.mark.parametrize(
    ("variables", "enrolled"),
    [
        ({MOK: b"\x06\0\0\0 header" + CERTIFICATE + b"end"}, True),
        ({MOK: b"\x06\0\0\0 header", MOK.replace("RT-", "RT1-"): CERTIFICATE}, True),
        ({MOK: CERTIFICATE[:-1]}, False),
        ({DATABASE: b"\x06\0\0\0" + CERTIFICATE}, True),
        ({DATABASE: b"\x06\0\0\0"}, False),
        ({MOK.replace("RT-", "RTX-"): CERTIFICATE}, None),
        ({}, None),
    ],
)
def test_whether_the_key_of_dkms_is_enrolled(tmp_path, variables, enrolled):
    assert _host.dkms_key(str(tmp_path), "debian") is None
    put(tmp_path, "var/lib/dkms/mok.pub", CERTIFICATE)
    for path, content in variables.items():
        put(tmp_path, path, content)
    assert _host.dkms_key(str(tmp_path), "debian") == {"path": "/var/lib/dkms/mok.pub", "enrolled": enrolled}


def test_a_list_of_keys_that_cannot_be_read(tmp_path):
    put(tmp_path, "var/lib/dkms/mok.pub", CERTIFICATE)
    (tmp_path / MOK).mkdir(parents=True)
    assert _host.dkms_key(str(tmp_path), None) == {"path": "/var/lib/dkms/mok.pub", "enrolled": None}


def test_which_key_dkms_signs_with(tmp_path):
    put(tmp_path, "var/lib/dkms/mok.pub", b"dkms")
    put(tmp_path, "var/lib/shim-signed/mok/MOK.der", b"shim")
    put(tmp_path, "srv/site.der", b"site")
    put(tmp_path, MOK, b"a shim b")
    assert _host.dkms_key(str(tmp_path), "debian") == {"path": "/var/lib/dkms/mok.pub", "enrolled": False}
    assert _host.dkms_key(str(tmp_path), "ubuntu") == {"path": "/var/lib/shim-signed/mok/MOK.der", "enrolled": True}
    put(tmp_path, "etc/dkms/framework.conf", b'# mok_certificate=/x\nmok_certificate="/srv/other.der"\n')
    put(tmp_path, "etc/dkms/framework.conf.d/site.conf", b"mok_certificate=/srv/site.der\n")
    assert _host.dkms_key(str(tmp_path), "ubuntu") == {"path": "/srv/site.der", "enrolled": False}
    (tmp_path / "srv/site.der").unlink()
    assert _host.dkms_key(str(tmp_path), "ubuntu") is None


def test_the_host_driver_of_virtual_gpus(tmp_path):
    assert _host.facts(str(tmp_path))["vgpu"] is False
    (tmp_path / "sys/module/nvidia_vgpu_vfio").mkdir(parents=True)
    assert _host.facts(str(tmp_path))["vgpu"] is True
