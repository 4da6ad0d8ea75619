# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel of a host with an NVIDIA GPU would show, rendered from /etc/simgpu/profile.

Runs at boot, before the container engine and SSH; running it again is what unloading and loading the module is in life.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import stat
import struct
import subprocess

import simgpu_cdi
import simgpu_kernel
import simgpu_profile
import simgpu_stub

RUN = "/run/simgpu"
REAL = RUN + "/real"
SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
MOK_LIST = "MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
MODPROBE_D = "/etc/modprobe.d"
INITRAMFS_LOG = "/var/log/simgpu-initramfs.log"
# There where the (SIMULATED) container toolkit is installed.
TOOLKIT = "/usr/bin/nvidia-ctk"
NVSWITCH_CLASS = "0x068000"


def write(path: str, content: str | bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(content if isinstance(content, bytes) else content.encode())


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def mounted(path: str) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        return any(line.split()[4] == path for line in mounts)


def uncover(path: str) -> None:
    while mounted(path):
        # Lazily: a reader that hangs in a folder must not keep the host from becoming another one.
        subprocess.run(["umount", "--lazy", path], check=True)


def cover(path: str) -> str:
    """Puts a tmpfs over a folder of /proc or /sys and returns where the real content can still be reached."""
    uncover(path)  # of a former run
    # /sys as a whole, since its links are relative; of /proc only the folder, or processes would be seen twice.
    origin = "/sys" if path.startswith("/sys/") else path
    if not mounted(REAL + origin):
        os.makedirs(REAL + origin, exist_ok=True)
        mount("--bind", origin, REAL + origin)
    mount("-t", "tmpfs", "-o", "mode=755,size=4m", "simgpu", path)
    return REAL + path


def cover_links(path: str, skip: tuple[str, ...] = ()) -> None:
    """A tmpfs with links to all that the real folder has, so that only what is added differs."""
    real = cover(path)
    for name in os.listdir(real):
        if name not in skip:
            os.symlink(os.path.join(real, name), os.path.join(path, name))


# --- driver ------------------------------------------------------------------------------------------------------------


def provision(profile: dict[str, str]) -> None:
    """Installs the profile's packages, once for every profile: a driver that is removed later stays removed."""
    if os.path.exists(simgpu_profile.PROVISIONED):
        return
    # The kernels first, since the module's package builds for all of them.
    simgpu_kernel.render_boot(profile)
    simgpu_stub.provision(profile)
    version = profile.get("driver_version")
    if version:
        flavour = profile.get("driver_flavour", "proprietary")
        simgpu_kernel.install(version, flavour, simgpu_stub.module_file(profile.get("package_prefix", "nvidia"), flavour), profile)
    for unit, key in simgpu_stub.UNITS.items():
        if profile.get(key) == "stopped":
            subprocess.run(["systemctl", "--quiet", "disable", unit], check=True)
    for unit in simgpu_stub.units(profile):
        # It waits for this unit, so this unit must not wait for it.
        subprocess.run(["systemctl", "--no-block", "start", unit], check=True)
    write(simgpu_profile.PROVISIONED, f"{version}\n")


def what_loads(profile: dict[str, str]) -> tuple[str | None, str]:
    """Version and flavour that this boot loads: the module that lies on disk for this kernel, unless the profile says otherwise."""
    flavour = profile.get("driver_flavour", "proprietary")
    if profile.get("load", "yes") == "no":
        return None, flavour
    if profile.get("loaded_version"):
        return profile["loaded_version"], flavour
    module = simgpu_kernel.module_of(platform.release())
    if module:
        return (None if refusal(profile, module) else module.version), module.flavour
    # Packages of the profile always bring a module; a test may have taken it away.
    return (simgpu_profile.installed_version() if profile.get("driver_version") else None), flavour


def refusal(profile: dict[str, str], module: simgpu_kernel.Module) -> str | None:
    """Why the kernel would not take the module; None where it would, and on hosts whose driver is the profile's."""
    if profile.get("driver_version"):
        return None
    trusted = [simgpu_kernel.PREBUILT_SIGNER, *([simgpu_kernel.DKMS_SIGNER] if profile.get("mok") == "enrolled" else [])]
    if profile.get("secure_boot") == "1" and not any(module.signed_by(signer) for signer in trusted):
        return "Key was rejected by service"
    if not any(simgpu_profile.driver_of(gpu, profile, module.version) == "nvidia" for gpu in simgpu_profile.gpus(profile)):
        return "No such device"
    return None


def blacklisted(profile: dict[str, str]) -> bool:
    """Whether rivals of NVIDIA's driver stay out at this boot: by a file in /etc/modprobe.d, which must be in the initramfs too."""
    wanted = {value for key, value in profile.items() if key.endswith("bound_driver") and value in simgpu_profile.RIVALS}
    found, newest = set(), 0.0
    for path in glob.glob(f"{MODPROBE_D}/*.conf"):
        with open(path, encoding="utf-8") as file:
            names = {name.replace("-", "_") for name in re.findall(r"(?m)^\s*blacklist\s+(\S+)", file.read())}
        if names & wanted:
            found |= names
            newest = max(newest, os.path.getmtime(path))
    early = profile.get("nouveau_in_initramfs") == "yes"
    made = os.path.getmtime(INITRAMFS_LOG) if os.path.exists(INITRAMFS_LOG) else 0.0
    return bool(wanted) and wanted <= found and not (early and made < newest)


def proc_version(version: str, flavour: str) -> str:
    if flavour == "open":
        first = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (simgpu@simhost)"
    else:
        first = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Jan  1 00:00:00 UTC 2026"
    return f"{first}\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1) \n"


def gpu_information(gpu: dict[str, str]) -> str:
    pairs = [
        ("Model:", "\t\t", gpu["name"]),
        ("IRQ:   ", "\t\t", "0"),
        ("GPU UUID:", "\t", gpu["uuid"]),
        ("Video BIOS:", "\t", gpu.get("vbios", "??.??.??.??.??")),
        ("Bus Type:", "\t", "PCIe"),
        ("DMA Size:", "\t", "47 bits"),
        ("DMA Mask:", "\t", "0x7fffffffffff"),
        ("Bus Location:", "\t", gpu["pci"]),
        ("Device Minor:", "\t", gpu["minor"]),
        ("GPU Excluded:", "\t", "No"),
    ]
    return "".join(f"{key} {gap} {value}\n" for key, gap, value in pairs)


PARAMS = {
    "ModifyDeviceFiles": 1,
    "DeviceFileUID": 0,
    "DeviceFileGID": 0,
    "DeviceFileMode": 438,
    "EnableMSI": 1,
    "PreserveVideoMemoryAllocations": 0,
    "DynamicPowerManagement": 3,
    "EnableGpuFirmware": 18,
}


def access(number: int) -> str:
    return f"DeviceFileMinor: {number}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"


def render_proc(version: str | None, flavour: str, gpus: list[dict[str, str]]) -> None:
    cover_links("/proc/driver", skip=("nvidia",))
    if version is None:
        return
    base = "/proc/driver/nvidia"
    write(f"{base}/version", proc_version(version, flavour))
    write(f"{base}/params", "".join(f"{key}: {value}\n" for key, value in PARAMS.items()))
    write(f"{base}/registry", 'Binary: ""\n')
    for gpu in gpus:
        write(f"{base}/gpus/{gpu['pci']}/information", gpu_information(gpu))
        for mig in simgpu_profile.mig_devices(gpu):
            capabilities = f"{base}/capabilities/gpu{gpu['minor']}/mig/gi{mig.gpu_instance}"
            minor = int(gpu["minor"])
            write(f"{capabilities}/access", access(simgpu_profile.capability(minor, mig.gpu_instance)))
            guard = simgpu_profile.capability(minor, mig.gpu_instance, mig.compute_instance)
            write(f"{capabilities}/ci{mig.compute_instance}/access", access(guard))


def show_module(name: str, version: str, flavour: str) -> None:
    """One module of the driver as loaded."""
    base = f"/sys/module/{name}"
    write(f"{base}/version", f"{version}\n")
    write(f"{base}/initstate", "live\n")
    write(f"{base}/refcnt", "0\n" if name != "nvidia" else "2\n")
    write(f"{base}/taint", "OE\n" if flavour == "open" else "POE\n")
    os.makedirs(f"{base}/parameters", exist_ok=True)


def render_module(version: str | None, flavour: str, extra: list[str]) -> None:
    cover_links("/sys/module", skip=("nvidia", "nvidia_uvm", "nvidia_modeset"))
    for name in ("nvidia", "nvidia_uvm", "nvidia_modeset") if version else ():
        show_module(name, str(version), flavour)
    for name in extra:
        write(f"/sys/module/{name}/initstate", "live\n")
        write(f"/sys/module/{name}/refcnt", "0\n")


# --- PCI ---------------------------------------------------------------------------------------------------------------


def hexa(gpu: dict[str, str], key: str, default: str = "0x10de") -> int:
    return int(gpu.get(key, default), 16)


def pci_config(gpu: dict[str, str]) -> bytes:
    """The first 64 bytes of the configuration space, which is what lspci reads."""
    class_code = hexa(gpu, "class", "0x030200")
    head = struct.pack("<HHHHBBBB", 0x10DE, hexa(gpu, "device_id"), 0x0406, 0x0010, 0xA1, *class_code.to_bytes(3, "little"))
    subsystem = struct.pack("<HH", hexa(gpu, "subsystem_vendor"), hexa(gpu, "subsystem_device", "0"))
    return head.ljust(0x2C, b"\0") + subsystem + bytes(16)


def pci_uevent(gpu: dict[str, str], driver: str | None) -> str:
    sub_vendor, sub_device = hexa(gpu, "subsystem_vendor"), hexa(gpu, "subsystem_device", "0")
    lines = [
        *([f"DRIVER={driver}"] if driver else []),
        f"PCI_CLASS={hexa(gpu, 'class', '0x030200'):X}",
        f"PCI_ID=10DE:{hexa(gpu, 'device_id'):04X}",
        f"PCI_SUBSYS_ID={sub_vendor:04X}:{sub_device:04X}",
        f"PCI_SLOT_NAME={gpu['pci']}",
    ]
    return "\n".join(lines) + "\n"


def nvswitches(profile: dict[str, str]) -> list[dict[str, str]]:
    """The bridges between the GPUs of a board, as PCI devices; H100's unless the profile says otherwise."""
    device_id = profile.get("nvswitch_device_id", "0x22a3")
    count = int(profile.get("nvswitches", "0"))
    return [{"pci": f"0000:{0x07 + number:02x}:00.0", "device_id": device_id, "class": NVSWITCH_CLASS} for number in range(count)]


def render_pci(devices: list[tuple[dict[str, str], str | None]]) -> None:
    """PCI devices, each with the driver that is bound to it."""
    if os.path.isdir("/sys/bus/pci"):
        cover_links("/sys/bus/pci", skip=("devices", "drivers"))
        for name in ("devices", "drivers"):
            os.makedirs(f"/sys/bus/pci/{name}")
            for entry in os.listdir(f"{REAL}/sys/bus/pci/{name}"):
                os.symlink(f"{REAL}/sys/bus/pci/{name}/{entry}", f"/sys/bus/pci/{name}/{entry}")
    else:
        cover_links("/sys/bus")
    for gpu, driver in devices:
        base = f"/sys/bus/pci/devices/{gpu['pci']}"
        numbers = {
            "vendor": "0x10de",
            "device": f"0x{hexa(gpu, 'device_id'):04x}",
            "subsystem_vendor": f"0x{hexa(gpu, 'subsystem_vendor'):04x}",
            "subsystem_device": f"0x{hexa(gpu, 'subsystem_device', '0'):04x}",
            "class": f"0x{hexa(gpu, 'class', '0x030200'):06x}",
            "revision": "0xa1",
            "irq": "0",
            "enable": "1",
            "numa_node": "-1",
            "resource": "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        }
        for name, value in numbers.items():
            write(f"{base}/{name}", value + "\n")
        write(f"{base}/uevent", pci_uevent(gpu, driver))
        write(f"{base}/config", pci_config(gpu))
        if driver:
            os.makedirs(f"/sys/bus/pci/drivers/{driver}", exist_ok=True)
            os.symlink(f"../../drivers/{driver}", f"{base}/driver")
            os.symlink(f"../../devices/{gpu['pci']}", f"/sys/bus/pci/drivers/{driver}/{gpu['pci']}")


# --- firmware ----------------------------------------------------------------------------------------------------------


def render_firmware(profile: dict[str, str]) -> None:
    """UEFI's variable of Secure Boot, where the profile has one; else what the real machine has."""
    uncover("/sys/firmware")
    if "secure_boot" in profile:
        cover_links("/sys/firmware", skip=("efi",))
        # Four bytes of attributes, then the value.
        variables = "/sys/firmware/efi/efivars"
        write(f"{variables}/{SECURE_BOOT}", b"\x06\0\0\0" + bytes([int(profile["secure_boot"])]))
        if profile.get("mok") == "enrolled":
            simgpu_kernel.dkms_key()
            with open(simgpu_kernel.DKMS_CERTIFICATE, "rb") as certificate:
                # A signature list has a header before each certificate; who looks for the certificate in it finds it.
                write(f"{variables}/{MOK_LIST}", b"\x06\0\0\0" + bytes(44) + certificate.read())


# --- device nodes -------------------------------------------------------------------------------------------------------


def render_nodes(names: list[str]) -> None:
    """Nodes of a real device that the engine's default list does not allow (/etc/simgpu/device: major:minor)."""
    for old in os.listdir("/dev"):
        if old == "nvidia-caps":
            shutil.rmtree(f"/dev/{old}")
        elif old.startswith("nvidia"):
            os.unlink(f"/dev/{old}")
    with open("/etc/simgpu/device", encoding="ascii") as number:
        major, minor = number.read().strip().split(":")
    for name in names:
        os.makedirs(os.path.dirname(f"/dev/{name}"), exist_ok=True)
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(int(major), int(minor)))
        os.chmod(f"/dev/{name}", 0o666)  # noqa: S103  as the genuine driver makes them; mknod obeys the umask


def mig_nodes(gpu: dict[str, str]) -> list[str]:
    """The nodes that guard the MIG instances of a GPU."""
    minor = int(gpu["minor"])
    numbers = [
        number
        for mig in simgpu_profile.mig_devices(gpu)
        for number in (
            simgpu_profile.capability(minor, mig.gpu_instance),
            simgpu_profile.capability(minor, mig.gpu_instance, mig.compute_instance),
        )
    ]
    return [f"nvidia-caps/nvidia-cap{number}" for number in dict.fromkeys(numbers)]


def load(profile: dict[str, str], version: str | None, flavour: str) -> None:
    """Shows the module as loaded, or as not loaded, with all that it brings."""
    gpus = simgpu_profile.gpus(profile)
    drivers = {gpu["pci"]: simgpu_profile.driver_of(gpu, profile, version) for gpu in gpus}
    mine = [gpu for gpu in gpus if drivers[gpu["pci"]] == "nvidia"]
    switch_driver = "nvidia-nvswitch" if version else None
    shutil.rmtree(f"{RUN}/module", ignore_errors=True)
    os.makedirs(f"{RUN}/module")
    render_proc(version, flavour, mine)
    render_module(version, flavour, sorted({driver for driver in drivers.values() if driver and driver != "nvidia"}))
    render_pci([(gpu, drivers[gpu["pci"]]) for gpu in gpus] + [(switch, switch_driver) for switch in nvswitches(profile)])
    if not version:
        render_nodes([])
        return
    rivals = "rivals=gone\n" if os.path.exists(simgpu_profile.RIVALS_GONE) else ""
    write(f"{RUN}/module/loaded", f"driver_version={version}\ndriver_flavour={flavour}\nkernel={platform.release()}\n{rivals}")
    nodes = [node for gpu in mine for node in (f"nvidia{gpu['minor']}", *mig_nodes(gpu))]
    render_nodes(["nvidiactl", *simgpu_cdi.CUDA_DEVICES, *nodes])


def describe_devices(profile: dict[str, str], version: str | None) -> None:
    """Makes the CDI specification; `keep` leaves it as it was, for one that is out of date. Where the toolkit is, it is the toolkit's."""
    wanted = profile.get("cdi", "yes")
    if wanted == "keep" or os.path.exists(TOOLKIT):
        return
    if version and wanted == "yes":
        simgpu_cdi.generate(profile)
    elif os.path.exists(simgpu_cdi.PATH):
        os.unlink(simgpu_cdi.PATH)


def wake_persistenced() -> None:
    """What udev does on Ubuntu when the module comes: there the unit is static."""
    state = subprocess.run(["systemctl", "is-enabled", "nvidia-persistenced.service"], check=False, capture_output=True, text=True)
    if state.stdout.strip() == "static":
        subprocess.run(["systemctl", "--no-block", "start", "nvidia-persistenced.service"], check=False)


def main() -> None:
    os.makedirs(RUN, exist_ok=True)
    if os.path.exists(simgpu_profile.RIVALS_GONE):
        os.unlink(simgpu_profile.RIVALS_GONE)
    if blacklisted(simgpu_profile.read()):
        write(simgpu_profile.RIVALS_GONE, "")
    profile = simgpu_profile.now()
    provision(profile)
    version, flavour = what_loads(profile)
    render_firmware(profile)
    load(profile, version, flavour)
    describe_devices(profile, version)
    if version:
        wake_persistenced()


if __name__ == "__main__":
    main()
