# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels of a simulated host, and NVIDIA's modules for them: real ELF files with a true .modinfo section and no code.

simgpu_kernel.py install VERSION FLAVOUR NAME    what DKMS does when the driver's package of a profile is configured
simgpu_kernel.py remove                          what it does when the package goes
simgpu_kernel.py depmod KERNEL                   what packages of prebuilt modules do
simgpu_kernel.py boot                            what packages of kernels do: the menu has the kernels that are in /boot
"""

from __future__ import annotations

import functools
import glob
import lzma
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import simgpu_profile

MODULES = "/lib/modules"
BOOT = "/boot"
GRUB_DEFAULTS = "/etc/default/grub"
RUNNING = "running"
LICENSES = {"proprietary": "NVIDIA", "open": "Dual MIT/GPL"}
PARTS = ("", "-modeset", "-uvm")
# 3D controllers, VGA controllers and NVSwitches, as the genuine module claims them.
ALIASES = [f"pci:v000010DEd*sv*sd*bc{base}sc{sub}i00*" for base, sub in (("03", "02"), ("03", "00"), ("06", "80"))]
# Signed by it are the modules of packages that stand for a distributor's; every firmware trusts it.
PREBUILT_SIGNER = "Canonical Ltd. Kernel Module Signing (SIMULATED)"
# Whom DKMS signs as, and where it keeps its key and certificate; it makes them when it needs them first.
DKMS_SIGNER = "DKMS module signing key (SIMULATED)"
DKMS_KEY, DKMS_CERTIFICATE = "/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"
# Where depmod looks, first the place that counts most; DKMS uses the first on Debian and Ubuntu, `extra` on Enterprise Linux.
PLACES = ("updates/dkms", "updates", "extra", "weak-updates", "kernel")
SIGNATURE_END = b"~Module signature appended~\n"
GRUB_ENVIRONMENT_SIZE = 1024


def kernels(profile: dict[str, str]) -> list[str]:
    """The kernels in /boot, the one that boots next first."""
    names = [name.strip() for name in profile.get("kernels", "").split(",") if name.strip()]
    return [platform.release() if name == RUNNING else name for name in names]


# --- modules -----------------------------------------------------------------------------------------------------------


def modinfo(name: str, kernel: str, version: str, flavour: str) -> bytes:
    """The .modinfo section of a module."""
    main = name == "nvidia"
    fields = [
        *(f"alias={alias}" for alias in (ALIASES if main else [])),
        f"version={version}",
        "supported=external",
        f"license={LICENSES[flavour]}",
        *([f"firmware=nvidia/{version}/gsp_ga10x.bin", f"firmware=nvidia/{version}/gsp_tu10x.bin"] if main else []),
        "description=SIMULATED by tests/simhost: it has no code",
        "srcversion=51A0000000000000000000A",
        f"depends={'' if main else 'nvidia'}",
        "retpoline=Y",
        f"name={name}",
        f"vermagic={kernel} SMP preempt mod_unload modversions ",
    ]
    return b"".join(field.encode() + b"\0" for field in fields)


def elf(sections: dict[str, bytes]) -> bytes:
    """A relocatable ELF file for x86-64 with these sections and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    header_size, entry_size = 64, 64
    body, places = b"", []
    for content in (*sections.values(), names):
        body += bytes(-len(body) % 16)
        places.append((header_size + len(body), len(content)))
        body += content
    body += bytes(-len(body) % 16)
    table = bytes(entry_size)
    for name, (offset, size) in zip((*sections, ".shstrtab"), places):
        kind = 3 if name == ".shstrtab" else 1
        flags = 2 if name == ".modinfo" else 0
        start = names.index(b"\0" + name.encode() + b"\0") + 1
        table += struct.pack("<IIQQQQIIQQ", start, kind, flags, 0, offset, size, 0, 0, 1, 0)
    count = len(places) + 1
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, header_size + len(body), 0, header_size, 0, 0, entry_size, count, count - 1)
    return identity + header + body + table


def openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


class Key(NamedTuple):
    """A private key and its certificate, both PEM."""

    private: bytes
    certificate: bytes


@functools.cache
def new_key(signer: str) -> Key:
    """A key and a certificate of that name, made once per process."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = (os.path.join(folder, name) for name in ("key.pem", "certificate.pem"))
        make = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "36500"]
        openssl(*make, "-subj", f"/CN={signer}", "-keyout", key, "-out", certificate)
        with open(key, "rb") as key_file, open(certificate, "rb") as certificate_file:
            return Key(key_file.read(), certificate_file.read())


def dkms_key() -> Key:
    """The key of DKMS on this host; the certificate on disk is DER."""
    if not os.path.exists(DKMS_KEY):
        made = new_key(DKMS_SIGNER)
        os.makedirs(os.path.dirname(DKMS_KEY), exist_ok=True)
        with open(os.open(DKMS_KEY, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as out:
            out.write(made.private)
        convert = ["openssl", "x509", "-outform", "DER"]
        with open(DKMS_CERTIFICATE, "wb") as out:
            out.write(subprocess.run(convert, check=True, input=made.certificate, capture_output=True).stdout)
    with open(DKMS_KEY, "rb") as key:
        return Key(key.read(), openssl("x509", "-inform", "DER", "-in", DKMS_CERTIFICATE))


def signed(module: bytes, signer: Key) -> bytes:
    """The module with a signature behind it, as the kernel's sign-file makes it."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate, content = (os.path.join(folder, name) for name in ("key.pem", "certificate.pem", "content"))
        for path, data in zip((key, certificate, content), (*signer, module)):
            with open(path, "wb") as out:
                out.write(data)
        sign = ["cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-outform", "DER"]
        signature = openssl(*sign, "-in", content, "-signer", certificate, "-inkey", key)
    pkcs7 = 2
    return module + signature + struct.pack(">BBBBBxxxI", 0, 0, pkcs7, 0, 0, len(signature)) + SIGNATURE_END


class Module(NamedTuple):
    """NVIDIA's main module as it lies on disk."""

    path: str
    version: str
    flavour: str
    content: bytes

    def signed_by(self, signer: str) -> bool:
        return self.content.endswith(SIGNATURE_END) and signer.encode() in self.content


def _read(path: str) -> Module:
    with open(path, "rb") as file:
        content = file.read()
    plain = lzma.decompress(content) if path.endswith(".xz") else content
    fields = dict(field.partition(b"=")[::2] for field in plain.split(b"\0") if b"=" in field)
    flavours = {license_text: flavour for flavour, license_text in LICENSES.items()}
    return Module(path, fields[b"version"].decode(), flavours[fields[b"license"].decode()], plain)


def _main_modules(kernel: str) -> Iterator[str]:
    """Files of the main module for a kernel, first the one that modprobe takes."""
    for place in PLACES:
        found = glob.glob(os.path.join(MODULES, kernel, place, "**", "nvidia*.ko*"), recursive=True)
        yield from sorted(file for file in found if not re.search(r"-(modeset|uvm|drm|peermem)\.ko", os.path.basename(file)))


def module_of(kernel: str) -> Module | None:
    """NVIDIA's module for a kernel; None when there is none."""
    file = next(_main_modules(kernel), None)
    return _read(file) if file else None


def dkms_folder() -> str:
    return "extra" if simgpu_profile.family() == "rhel" else "updates/dkms"


def module_files(kernel: str) -> list[str]:
    """What DKMS has put there."""
    return [file for place in ("updates/dkms", "extra") for file in glob.glob(os.path.join(MODULES, kernel, place, "nvidia*"))]


def depmod(kernel: str) -> None:
    """Makes the indexes of modules. A folder that has nothing but indexes goes: the kernel outside has brought none."""
    folder = os.path.join(MODULES, kernel)
    for path, _folders, _files in list(os.walk(folder, topdown=False)):
        if path != folder and not os.listdir(path):
            os.rmdir(path)
    left = [name for name in os.listdir(folder) if not name.startswith("modules.")] if os.path.isdir(folder) else []
    if not left and kernel not in kernels_in_boot():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        with open(os.path.join(folder, name), "ab"):
            pass
    subprocess.run(["depmod", kernel], check=True, capture_output=True)


def build(kernel: str, version: str, flavour: str, file_name: str, profile: dict[str, str], signer: Key | None = None) -> None:
    """Puts the modules of a driver where DKMS puts them."""
    if profile.get("module_signer"):
        signer = new_key(profile["module_signer"])
    folder = os.path.join(MODULES, kernel, dkms_folder())
    os.makedirs(folder, exist_ok=True)
    for part in PARTS:
        module = elf({".modinfo": modinfo(f"nvidia{part.replace('-', '_')}", kernel, version, flavour)})
        if signer:
            module = signed(module, signer)
        suffix = ""
        if profile.get("module_compression") == "xz":
            module, suffix = lzma.compress(module, check=lzma.CHECK_CRC32), ".xz"
        with open(os.path.join(folder, f"{file_name}{part}.ko{suffix}"), "wb") as out:
            out.write(module)
    depmod(kernel)


def remove() -> None:
    for kernel in os.listdir(MODULES) if os.path.isdir(MODULES) else []:
        files = module_files(kernel)
        for file in files:
            os.unlink(file)
        if files:
            depmod(kernel)


def install(version: str, flavour: str, file_name: str, profile: dict[str, str]) -> None:
    """The modules for the running kernel and those in /boot, in place of what was there."""
    remove()
    wanted = [platform.release()]
    if profile.get("next_kernel_module") != "no":
        wanted += kernels(profile)
    for kernel in dict.fromkeys(wanted):
        build(kernel, version, flavour, file_name, profile)


# --- boot loader -------------------------------------------------------------------------------------------------------


def grub_menu(names: list[str]) -> str:
    """A grub.cfg as update-grub writes it, in part: the first kernel on top, all of them in a submenu."""
    os_name = "Debian GNU/Linux"

    def entry(title: str, ident: str, kernel: str, indent: str) -> list[str]:
        return [
            f"{indent}menuentry '{title}' --class debian --class gnu-linux --class os $menuentry_id_option '{ident}' {{",
            f"{indent}\tlinux\t/boot/vmlinuz-{kernel} root=/dev/vda1 ro quiet",
            f"{indent}\tinitrd\t/boot/initrd.img-{kernel}",
            f"{indent}}}",
        ]

    lines = [
        "# SIMULATED by tests/simhost",
        "if [ -s $prefix/grubenv ]; then",
        "  load_env",
        "fi",
        'if [ "${next_entry}" ] ; then',
        '   set default="${next_entry}"',
        "   set next_entry=",
        "   save_env next_entry",
        "   set boot_once=true",
        "else",
        '   set default="0"',
        "fi",
        *entry(os_name, "gnulinux-simple-simhost", names[0], ""),
        f"submenu 'Advanced options for {os_name}' $menuentry_id_option 'gnulinux-advanced-simhost' {{",
    ]
    for name in names:
        lines += entry(f"{os_name}, with Linux {name}", f"gnulinux-{name}-advanced-simhost", name, "\t")
    return "\n".join([*lines, "}"]) + "\n"


def render_boot(profile: dict[str, str]) -> None:
    """Writes /boot as the profile has it; without `kernels` it is empty, as in any container."""
    for path in (*glob.glob(f"{BOOT}/vmlinuz-*"), *glob.glob(f"{BOOT}/initrd.img-*"), GRUB_DEFAULTS):
        if os.path.exists(path):
            os.unlink(path)
    shutil.rmtree(f"{BOOT}/grub", ignore_errors=True)
    names = kernels(profile)
    for former in os.listdir(MODULES) if os.path.isdir(MODULES) else []:
        if former not in (platform.release(), *names):
            shutil.rmtree(os.path.join(MODULES, former))
    if names:
        write_boot(names)


def kernels_in_boot() -> set[str]:
    return {os.path.basename(path).partition("-")[2] for path in glob.glob(f"{BOOT}/vmlinuz-*")}


def installed_kernels() -> list[str]:
    """The kernels in /boot, the newest first; the running one is among them, since it was booted."""
    names = kernels_in_boot() | {platform.release()}
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], reverse=True)


def write_boot(names: list[str]) -> None:
    """Puts these kernels into /boot, with a menu that starts the first."""
    os.makedirs(f"{BOOT}/grub", exist_ok=True)
    files = {f"{BOOT}/grub/grub.cfg": grub_menu(names), GRUB_DEFAULTS: "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\n"}
    files.update({f"{BOOT}/{stem}-{name}": "SIMULATED by tests/simhost\n" for name in names for stem in ("vmlinuz", "initrd.img")})
    files[f"{BOOT}/grub/grubenv"] = "# GRUB Environment Block\n".ljust(GRUB_ENVIRONMENT_SIZE, "#")
    for gone in set(glob.glob(f"{BOOT}/initrd.img-*")) - set(files):
        os.unlink(gone)
    for path, content in files.items():
        with open(path, "w", encoding="ascii") as out:
            out.write(content)
    for name in names:
        os.makedirs(os.path.join(MODULES, name), exist_ok=True)
        depmod(name)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["install"] and len(arguments) == 4 and arguments[2] in LICENSES:
        install(arguments[1], arguments[2], arguments[3], simgpu_profile.read())
    elif arguments == ["remove"]:
        remove()
    elif arguments[:1] == ["depmod"] and len(arguments) == 2:
        depmod(arguments[1])
    elif arguments == ["boot"]:
        write_boot(installed_kernels())
    else:
        sys.exit("usage: simgpu_kernel.py install VERSION proprietary|open NAME | remove | depmod KERNEL | boot")


if __name__ == "__main__":
    main(sys.argv[1:])
