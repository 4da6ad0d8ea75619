# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import MappingProxyType

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _host
from hypothesis import given
from hypothesis import strategies as st

DRIVER = MappingProxyType({"version": "535.247.01"})
SAME = MappingProxyType({"running": "6.1.0-18-amd64", "next": "6.1.0-18-amd64"})
OTHER = {"running": "6.1.0-18-amd64", "next": "6.1.0-20-amd64"}
UNKNOWN = {"running": "6.1.0-18-amd64", "next": None}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path


def reboot(root, kernel=SAME, family="debian", loaded=DRIVER, installed=DRIVER, gpus=()):
    return _host.reboot(str(root), family, kernel, loaded, installed, gpus)


def flag(root, *packages):
    (root / "run/reboot-required").write_text("*** System restart required ***\n")
    if packages:
        (root / "run/reboot-required.pkgs").write_text("".join(f"{name}\n" for name in packages))


@pytest.mark.parametrize("kernel", [SAME, OTHER, UNKNOWN])
def test_nothing_asks_for_a_reboot(root, kernel):
    assert reboot(root, kernel) == (False, [])
    assert reboot(root, kernel, loaded=None, installed=None) == (False, [])


def test_the_flag_names_its_packages_at_most_five(root):
    flag(root)
    assert reboot(root) == (True, ["The package manager asks for a reboot (it names no package)."])
    flag(root, "libc6", "dbus", "libc6")
    assert reboot(root)[1] == ["The package manager asks for a reboot (dbus, libc6)."]
    flag(root, *(f"lib{number}" for number in range(7)))
    assert reboot(root)[1] == ["The package manager asks for a reboot (lib0, lib1, lib2, lib3, lib4 and 2 more)."]


def test_another_kernel_is_a_reason_where_the_flag_is_about_the_kernel(root):
    flag(root, "dbus")
    assert len(reboot(root, OTHER)[1]) == 1
    flag(root, "linux-image-6.1.0-20-amd64")
    assert reboot(root, OTHER)[1][1] == "Kernel 6.1.0-20-amd64 boots next; 6.1.0-18-amd64 is running."
    assert len(reboot(root, SAME)[1]) == 1


@pytest.mark.parametrize(("following", "due"), [("5.14.0-503.el9.x86_64", True), ("5.14.0-70.el9.x86_64", False), (None, None)])
def test_a_newer_kernel_is_a_reason_where_no_flag_exists(root, following, due):
    kernel = {"running": "5.14.0-427.el9.x86_64", "next": following}
    required, reasons = reboot(root, kernel, "rhel", None, None)
    assert required is due
    assert bool(reasons) is bool(due)


def test_a_driver_that_is_installed_and_not_loaded_yet(root):
    assert reboot(root, installed={"version": "580.178.04"}) == (
        True,
        ["Driver 580.178.04 is installed; 535.247.01 is loaded until the next boot."],
    )
    assert reboot(root, installed={"version": None}) == (False, [])


@pytest.mark.parametrize("driver", ["nouveau", "nova_core"])
def test_another_driver_holds_the_gpu(root, driver):
    gpus = [{"pci_address": "0000:00:05.0", "bound_driver": driver}, {"pci_address": "0000:00:06.0", "bound_driver": "vfio-pci"}]
    required, reasons = reboot(root, loaded=None, gpus=gpus)
    assert (required, len(reasons)) == (True, 1)
    assert reasons[0].startswith(f"{driver} holds the GPU at 0000:00:05.0;")
    assert reboot(root, loaded=None, installed=None, gpus=gpus) == (False, [])


@pytest.mark.parametrize("family", ["debian", "rhel", None])
def test_nothing_can_be_known(tmp_path, family):
    assert reboot(tmp_path, UNKNOWN, family, None, None) == (None, [])


versions = st.none() | st.fixed_dictionaries({"version": st.none() | st.text(max_size=5)})


@given(st.sampled_from(["debian", "rhel", None]), st.text(), st.none() | st.text(), versions, versions, st.none() | st.text(max_size=5))
def test_required_exactly_with_reasons(family, running, following, loaded, installed, driver):
    gpus = [{"pci_address": "0000:00:05.0", "bound_driver": driver}]
    required, reasons = _host.reboot("/nowhere", family, {"running": running, "next": following}, loaded, installed, gpus)
    assert bool(required) is bool(reasons)
