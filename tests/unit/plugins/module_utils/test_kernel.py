# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _host
from hypothesis import given
from hypothesis import strategies as st

# In the form of grub-mkconfig of Debian 12 and 13.
HEADER = """\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="%s"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
  fi
}
"""


def linux(title, identity, kernel, indent=""):
    return (
        f"{indent}menuentry '{title}' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-{identity}-UUID' {{\n"
        f"{indent}\tinsmod ext2\n{indent}\tif [ x$feature = xy ]; then\n{indent}\t  search --no-floppy\n{indent}\tfi\n"
        f"{indent}\tlinux\t/boot/vmlinuz-{kernel} root=UUID=1 ro quiet\n{indent}\tinitrd\t/boot/initrd.img-{kernel}\n{indent}}}\n"
    )


NEW, OLD = "6.1.0-18-amd64", "6.1.0-9-amd64"
MENU = (
    linux("Debian GNU/Linux", "simple", NEW)
    + "submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-UUID' {\n"
    + linux(f"Debian GNU/Linux, with Linux {NEW}", f"{NEW}-advanced", NEW, "\t")
    + linux(f"Debian GNU/Linux, with Linux {NEW} (recovery mode)", f"{NEW}-recovery", NEW, "\t")
    + linux(f"Debian GNU/Linux, with Linux {OLD}", f"{OLD}-advanced", OLD, "\t")
    + "}\nmenuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {\n\tfwsetup\n}\n"
)
OLD_ENTRY = f"gnulinux-advanced-UUID>gnulinux-{OLD}-advanced-UUID"


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def boot(root, *kernels):
    for kernel in kernels:
        write(root, f"boot/vmlinuz-{kernel}", "")


@pytest.mark.parametrize(
    ("default", "environment", "expected"),
    [
        ("0", "", NEW),
        ("1>2", "", OLD),
        ("1>0", "", NEW),
        (OLD_ENTRY, "", OLD),
        (f"Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux {OLD}", "", OLD),
        ("${saved_entry}", f"saved_entry={OLD_ENTRY}\n", OLD),
        ("${saved_entry}", "", NEW),
        ("0", f"next_entry={OLD_ENTRY}\n", OLD),
        ("0", f"saved_entry={OLD_ENTRY}\n", NEW),
        ("uefi-firmware", "", None),
        # GRUB starts the first entry when there is no such one; an entry of a submenu needs the submenu before it.
        ("an entry that was removed", "", NEW),
        (f"gnulinux-{OLD}-advanced-UUID", "", NEW),
    ],
)
def test_the_menu_of_grub(tmp_path, default, environment, expected):
    boot(tmp_path, NEW, OLD)
    write(tmp_path, "boot/grub/grub.cfg", HEADER.replace("%s", default) + MENU)
    write(tmp_path, "boot/grub/grubenv", f"# GRUB Environment Block\n{environment}{'#' * 900}")
    write(tmp_path, "etc/default/grub", "GRUB_DEFAULT=0\n")
    assert _host.next_kernel(str(tmp_path)) == expected


def test_one_time_entry_counts_only_where_the_menu_asks_for_it(tmp_path):
    write(tmp_path, "boot/grub/grub.cfg", 'set default="0"\n' + MENU)
    write(tmp_path, "boot/grub/grubenv", f"next_entry={OLD_ENTRY}\n")
    assert _host.next_kernel(str(tmp_path)) == NEW


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ("GRUB_DEFAULT=0\n", "", NEW),
        ("GRUB_TIMEOUT=5\n", "", NEW),
        (f'#GRUB_DEFAULT=0\nGRUB_DEFAULT="{OLD_ENTRY}"\n', "", OLD),
        (f"GRUB_DEFAULT='Advanced options>Debian GNU/Linux, with Linux {OLD}'\n", "", OLD),
        ("GRUB_DEFAULT=saved\n", f"saved_entry={OLD_ENTRY}\n", OLD),
        ("GRUB_DEFAULT=saved\n", "", None),
        ('GRUB_DEFAULT="1>2"\n', "", None),
        (None, "", None),
    ],
)
def test_the_settings_of_grub_where_its_menu_cannot_be_read(tmp_path, settings, environment, expected):
    boot(tmp_path, NEW, OLD, "6.1.0-19-amd64.dpkg-new", "6.1.0-20-amd64~", "6.1.0-18-amd64.old")
    if settings is not None:
        write(tmp_path, "etc/default/grub", settings)
    write(tmp_path, "boot/grub/grubenv", environment)
    assert _host.next_kernel(str(tmp_path)) == expected


def test_without_a_kernel_nobody_can_tell(tmp_path):
    assert _host.next_kernel(str(tmp_path)) is None
    write(tmp_path, "etc/default/grub", "GRUB_DEFAULT=0\n")
    (tmp_path / "boot").mkdir()
    assert _host.next_kernel(str(tmp_path)) is None


MACHINE = "0f2b9f0a4dbe4d8e8c0a9d2d4b1c7f11"
EL9 = (f"0-rescue-{MACHINE}", "5.14.0-427.13.1.el9_4.x86_64", "5.14.0-503.11.1.el9_5.x86_64")


def specification(root, place="boot/loader", versions=EL9):
    for version in versions:
        text = f"title Rocky Linux ({version}) 9.5 (Blue Onyx)\nversion {version}\nlinux /vmlinuz-{version}\ngrub_users $grub_users\n"
        write(root, f"{place}/entries/{MACHINE}-{version}.conf", text)


EL_MENU = HEADER.replace("%s", "${saved_entry}") + "insmod blscfg\nblscfg\nmenuentry 'UEFI Firmware Settings' {\n  fwsetup\n}\n"


@pytest.mark.parametrize("menu", [EL_MENU, None])
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (f"saved_entry={MACHINE}-{EL9[1]}\n", EL9[1]),
        (f"saved_entry={MACHINE}-{EL9[2]}\n", EL9[2]),
        (f"saved_entry={MACHINE}-{EL9[2]}\nnext_entry={MACHINE}-{EL9[1]}\n", EL9[1]),
        ("saved_entry=1\n", EL9[1]),
        (f"saved_entry=Rocky Linux ({EL9[1]}) 9.5 (Blue Onyx)\n", EL9[1]),
        ("", EL9[2]),
    ],
)
@pytest.mark.parametrize("home", ["boot/grub2", "boot/efi/EFI/rocky"])
def test_boot_loader_specification(tmp_path, menu, environment, expected, home):
    specification(tmp_path)
    boot(tmp_path, *EL9)
    if menu:
        write(tmp_path, "boot/grub2/grub.cfg", menu)
    write(tmp_path, f"{home}/grubenv", f"# GRUB Environment Block\n{environment}boot_success=0\n{'#' * 900}")
    assert _host.next_kernel(str(tmp_path)) == expected


@pytest.mark.parametrize("place", ["boot/loader", "efi/loader", "boot/efi/loader"])
@pytest.mark.parametrize(
    ("settings", "expected"), [("timeout 3\n", EL9[2]), (f"default {MACHINE}-5.14.0-427*\n", EL9[1]), ("default nothing*\n", EL9[2])]
)
def test_systemd_boot(tmp_path, place, settings, expected):
    specification(tmp_path, place)
    write(tmp_path, f"{place}/loader.conf", settings)
    assert _host.next_kernel(str(tmp_path)) == expected


FLAVOURS = r"(-(cloud-amd64|generic|aws|rt-amd64))?"
KERNELS = st.from_regex(rf"[2-9]\.[0-9]{{1,2}}\.[0-9]{{1,3}}-[0-9]{{1,3}}(\.[0-9]{{1,3}}\.el[0-9])?{FLAVOURS}", fullmatch=True)


@pytest.mark.skipif(shutil.which("sort") is None, reason="needs sort")
@given(st.lists(KERNELS, min_size=2, max_size=8, unique=True))
def test_kernels_sort_as_grub_mkconfig_sorts_them(kernels):
    theirs = subprocess.run(["sort", "-V"], input="\n".join(kernels), capture_output=True, text=True, check=True, env={"LC_ALL": "C"})
    ours = sorted(kernels, key=_host.version_key)
    assert [_host.version_key(kernel) for kernel in theirs.stdout.split()] == [_host.version_key(kernel) for kernel in ours]


@given(st.text(alphabet=st.sampled_from("menuentry submenu'\"{}\n\t >linux /vmlinuz-6.1$set default=")), st.text())
def test_no_text_breaks_the_menu(text, default):
    entries = _host.menu(text)
    assert _host.chosen(entries, default) is None or entries
    assert _host.menu(MENU + text)[:2] == _host.menu(MENU)[:2]


@given(st.lists(KERNELS, min_size=1, max_size=6, unique=True), st.data())
def test_every_entry_can_be_chosen_by_number_title_and_id(kernels, data):
    text = linux("Top", "simple", kernels[0]) + "submenu 'More' $menuentry_id_option 'more' {\n"
    entries = _host.menu(text + "".join(linux(f"with {kernel}", kernel, kernel, "\t") for kernel in kernels) + "}\n")
    number = data.draw(st.integers(0, len(kernels) - 1))
    for name in (str(number), f"with {kernels[number]}", f"gnulinux-{kernels[number]}-UUID"):
        assert _host.chosen(entries, f"1>{name}") == _host.chosen(entries, f"more>{name}") == kernels[number]


# Debian's names are those of its packages' dkms.conf: nvidia-current, -current-open, -tesla-470, -tesla-535.
@pytest.mark.parametrize(
    "path",
    [
        "updates/dkms/nvidia-current.ko.xz",
        "updates/dkms/nvidia-current-open.ko",
        "updates/dkms/nvidia-tesla-535.ko.xz",
        "updates/dkms/nvidia-tesla-470.ko",
        "updates/dkms/nvidia-legacy-390xx.ko",
        "updates/dkms/nvidia.ko.zst",
        "kernel/nvidia-535srv/nvidia.ko",
        "extra/nvidia.ko.xz",
        "extra/drivers/video/nvidia/nvidia.ko",
        "weak-updates/nvidia/nvidia.ko.gz",
        "kernel/drivers/video/nvidia.ko",
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_where_the_module_lies(tmp_path, monkeypatch, path, listed):
    monkeypatch.setattr(_host._command, "find", lambda name: None)
    home = "lib/modules/6.1.0-18-amd64"
    folder, name = path.rsplit("/", 1)
    stem, ending = name.split(".", 1)
    others = [f"{folder}/{stem}-{part}.{ending}" for part in ("drm", "modeset", "uvm", "peermem")]
    others += ["kernel/drivers/video/fbdev/nvidia/nvidiafb.ko", "kernel/drivers/platform/x86/nvidia-wmi-ec-backlight.ko"]
    for other in (*others, path):
        write(tmp_path, f"{home}/{other}", "")
    write(tmp_path, f"{home}/kernel/nvidia-580/bits/nvidia.ko.sig", "")
    needed = "".join(f"{other}: {path}\n" for other in others)
    write(tmp_path, f"{home}/modules.dep", f"kernel/fs/ext4/ext4.ko:\n{needed}{path}:\n" if listed else "kernel/fs/ext4/ext4.ko:\n")
    found = _host.ask_modules(str(tmp_path), ["6.1.0-18-amd64", "6.1.0-19-amd64", None], 5.0)()
    assert found == {
        "6.1.0-18-amd64": {"version": None, "flavour": None, "signer": None, "path": f"/{home}/{path}"},
        "6.1.0-19-amd64": None,
    }


def test_a_module_that_was_removed_behind_the_back_of_depmod(tmp_path):
    write(tmp_path, "lib/modules/6.1/modules.dep", "updates/dkms/nvidia.ko:\n")
    assert _host.ask_modules(str(tmp_path), ["6.1"], 5.0)() == {"6.1": None}


MODINFO = """\
filename:       /lib/modules/6.8.0-60-generic/kernel/nvidia-580srv-open/nvidia.ko
alias:          char-major-195-*
version:        580.178.04
supported:      external
license:        Dual MIT/GPL
firmware:       nvidia/580.178.04/gsp_tu10x.bin
srcversion:     DB5EB1C8E8A2D3A5C2C4E1A
depends:
name:           nvidia
vermagic:       6.8.0-60-generic SMP preempt mod_unload modversions
sig_id:         PKCS#7
signer:         Canonical Ltd. Kernel Module Signing
sig_key:        88:F7:52:E5
signature:      4A:0B:
\t\t11:2C
parm:           NvSwitchRegDwords:NvSwitch regkey (charp)
filename:       /lib/modules/6.8.0-59-generic/updates/dkms/nvidia.ko.zst
version:        535.247.01
license:        NVIDIA
"""


def test_modinfo_of_two_kernels_in_one_answer():
    told = _host.parse_modinfo(MODINFO)
    assert list(told.values()) == [
        {"version": "580.178.04", "flavour": "open", "signer": "Canonical Ltd. Kernel Module Signing"},
        {"version": "535.247.01", "flavour": "proprietary"},
    ]


def test_one_modinfo_for_all_kernels(tmp_path, monkeypatch):
    for kernel in ("6.1", "6.2"):
        write(tmp_path, f"lib/modules/{kernel}/modules.dep", "updates/dkms/nvidia.ko:\n")
        write(tmp_path, f"lib/modules/{kernel}/updates/dkms/nvidia.ko", "")
    write(
        tmp_path,
        "bin/modinfo",
        '#!/bin/sh\necho run >> "$(dirname "$0")/log"\nfor file; do printf "filename:       %s\\nversion:        1.2.3\\n" "$file"; done\n',
    )
    (tmp_path / "bin/modinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    found = _host.ask_modules(str(tmp_path), ["6.1", "6.2"], 5.0)()
    assert [facts["version"] for facts in found.values()] == ["1.2.3", "1.2.3"]
    assert (tmp_path / "bin/log").read_text() == "run\n"


@given(st.text())
def test_no_answer_breaks_modinfo(text):
    _host.parse_modinfo(text)
    assert _host.parse_modinfo(MODINFO + "\n" + "".join(f"\t{line}\n" for line in text.splitlines())) == _host.parse_modinfo(MODINFO)


@given(names=st.lists(st.binary(max_size=60)))
def test_no_dependency_list_breaks_the_search(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("root")
    (root / "lib/modules/6.1").mkdir(parents=True)
    (root / "lib/modules/6.1/modules.dep").write_bytes(b"\n".join(b"nvidia" + name for name in names))
    assert _host.ask_modules(str(root), ["6.1"], 5.0)() == {"6.1": None}
