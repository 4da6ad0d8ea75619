# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers as Ubuntu packages them, in its own archive and in NVIDIA's repository for Ubuntu.

Names and relations: packages.ubuntu.com (headless, compute, prebuilt modules), the documentation of NVIDIA's GPU operator (what
linux-modules-nvidia-* depends on), NVIDIA's installation guide (names without branch from 590 on). What conflicts with what is from memory.
"""

from __future__ import annotations

import simgpu_dkms

from simrepo import _contents
from simrepo._package import Package

UBUNTU, NVIDIA = "Ubuntu Core Developers", "NVIDIA Corporation"
INITRAMFS = "if command -v update-initramfs > /dev/null; then update-initramfs -u; fi"
LIBRARY_KIB = 180000
FIRMWARE_KIB = 70000
# Shared by all branches: only one of each can be installed.
ALONE = ("libnvidia-cfg1", "libnvidia-compute", "nvidia-utils", "nvidia-compute-utils", "nvidia-kernel-common", "nvidia-kernel-source")


class Branch:
    """The packages of one driver version under one label: `580-server`, `580`, or none from 590 on in NVIDIA's repository."""

    def __init__(self, label: str, version: str, full: str, maker: str, has_open: bool = True, firmware: bool = True) -> None:
        self.label, self.version, self.full, self.maker = label, version, full, maker
        self.flavours = ("proprietary", "open") if has_open else ("proprietary",)
        self.firmware = firmware

    def named(self, stem: str, flavour: str = "proprietary") -> str:
        parts = [stem, *([self.label] if self.label else []), *(["open"] if flavour == "open" else [])]
        return "-".join(parts)

    def same(self, stem: str, flavour: str = "proprietary") -> str:
        """A dependency on a package of the same version."""
        return f"{self.named(stem, flavour)} (= {self.full})"

    def package(self, stem: str, what: str, flavour: str = "proprietary", **fields: object) -> Package:
        name = self.named(stem, flavour)
        alone = [stem] if stem in ALONE and name != stem else []
        source = f"nvidia-graphics-drivers-{self.label}" if self.label else "nvidia-graphics-drivers"
        made = Package(name, self.full, f"{what}, NVIDIA driver {self.version}", self.maker, source=source)
        return made.but(provides=alone, conflicts=alone, replaces=alone).but(**fields)

    def packages(self) -> list[Package]:
        """All of them."""
        common = [f"{self.firmware_name} (= {self.full})"] if self.firmware else []
        alone = ["nvidia-kernel-common"] if self.label else []
        common_names = [*alone, f"{self.named('nvidia-kernel-common')}-{self.version}"]
        found = [
            self.package("libnvidia-cfg1", "configuration library"),
            *(self._tools() if self.label else self._tools_without_branch()),
            self.package("nvidia-kernel-common", "files shared by the kernel modules", depends=common, provides=common_names),
            *([self._firmware()] if self.firmware else []),
        ]
        for flavour in self.flavours:
            found += self._kernel(flavour)
        return found

    def _tools(self) -> list[Package]:
        """Libraries and programs, as in Ubuntu's archive."""
        files, links = _contents.libraries(self.version)
        compute = self.named("libnvidia-compute")
        needs = [f"{compute} (>= {self.version})", f"{self.named('nvidia-kernel-common')}-{self.version}"]
        return [
            self.package("libnvidia-compute", "compute libraries", files=files, links=links, installed_kib=LIBRARY_KIB),
            self.package("nvidia-utils", "nvidia-smi", files=_contents.smi(self.version), depends=needs),
            self._daemon("nvidia-compute-utils", False, depends=[compute]),
        ]

    def _tools_without_branch(self) -> list[Package]:
        """The same from 590 on in NVIDIA's repository. Its guide says that the library and the modules are enough for computing; which
        package has nvidia-smi then, nobody here has seen: here it is the library's."""
        files, links = _contents.libraries(self.version)
        former, daemon = ["nvidia-utils"], ["nvidia-compute-utils"]
        library = self.package("libnvidia-compute", "compute libraries, nvidia-smi", installed_kib=LIBRARY_KIB)
        library = library.but(files={**files, **_contents.smi(self.version)}, links=links)
        library = library.but(provides=former, conflicts=former, replaces=former)
        return [library, self._daemon("nvidia-persistenced", True, provides=daemon, conflicts=daemon, replaces=daemon)]

    def _daemon(self, name: str, installable: bool, **fields: object) -> Package:
        unit = _contents.PERSISTENCED_UNIT
        enable = f"\nsystemctl --quiet enable {unit}" if installable else ""
        stop = f"systemctl --quiet disable --now {unit}" if installable else f"systemctl --quiet stop {unit}"
        made = self.package(name, "persistence daemon", files=_contents.persistenced(self.version, installable))
        return made.but(configured=f"systemctl daemon-reload{enable}", removing=stop, removed="systemctl daemon-reload").but(**fields)

    @property
    def firmware_name(self) -> str:
        return f"{self.named('nvidia-firmware')}-{self.version}" if self.label else "nvidia-firmware"

    def _firmware(self) -> Package:
        content = {f"/usr/lib/firmware/nvidia/{self.version}/gsp_ga10x.bin": (b"SIMULATED by tests/simhost\n", 0o644)}
        made = self.package("nvidia-firmware", "firmware of the GPU system processor", files=content, installed_kib=FIRMWARE_KIB)
        return made.but(name=self.firmware_name)

    def _kernel(self, flavour: str) -> list[Package]:
        tools = ("nvidia-compute-utils",) if self.label else ("nvidia-persistenced",)
        user_space = [self.same(stem) for stem in ("libnvidia-cfg1", "libnvidia-compute", *tools)]
        source = self.package("nvidia-kernel-source", "source of the kernel modules", flavour)
        # The genuine package's script builds for the kernels whose headers are there and then makes the initramfs anew.
        dkms = self.package(
            "nvidia-dkms",
            f"kernel modules by DKMS ({flavour})",
            flavour,
            depends=["dkms", self.same("nvidia-kernel-source", flavour), self.named("nvidia-kernel-common")],
            provides=["nvidia-dkms-kernel"],
            conflicts=["nvidia-dkms-kernel"],
            files=_contents.dkms_source(self.version, flavour),
            configured=f"{simgpu_dkms.command('install', self.version)}\n{INITRAMFS}",
            removing=simgpu_dkms.command("remove", self.version),
        )
        bare = [*user_space, self.named("nvidia-kernel-common"), self.same("nvidia-kernel-source", flavour)]
        headless = self.package("nvidia-headless-no-dkms", f"headless, without kernel modules ({flavour})", flavour, depends=bare)
        whole = [self.same("nvidia-headless-no-dkms", flavour), self.same("nvidia-dkms", flavour)]
        with_dkms = self.package("nvidia-headless", f"headless ({flavour})", flavour, depends=whole)
        # Of the desktop's packages only this one is here, and without the graphics it depends on in life.
        desktop_needs = [*user_space, *([self.same("nvidia-utils")] if self.label else []), self.same("nvidia-dkms", flavour)]
        desktop = self.package("nvidia-driver", f"driver ({flavour})", flavour, depends=desktop_needs)
        return [source, dkms, headless, with_dkms, desktop]


def prebuilt(label: str, version: str, flavour: str, kernel: str, revision: str) -> Package:
    """Modules built and signed by Canonical. The package's version is the kernel's."""
    opened = "-open" if flavour == "open" else ""
    common = f"nvidia-kernel-common-{label}"
    name = f"linux-modules-nvidia-{label}{opened}-{kernel}"
    depmod = _contents.tool("simgpu_kernel", "depmod", kernel)
    return Package(
        name,
        revision,
        f"prebuilt signed kernel modules ({flavour}), NVIDIA driver {version}",
        "Canonical Kernel Team (Ubuntu)",
        source="linux-restricted-modules",
        depends=[f"{common} (<= {version}-1)", f"{common} (>= {version})"],
        files=_contents.modules(kernel, version, flavour, f"kernel/nvidia-{label.replace('-server', 'srv')}{opened}"),
        configured=depmod,
        removed=depmod,
    )


def prebuilt_meta(label: str, flavour: str, kind: str, kernel: str, revision: str) -> Package:
    """Leads to the modules of the newest kernel of a kind (generic, aws ...)."""
    opened = "-open" if flavour == "open" else ""
    stem = f"linux-modules-nvidia-{label}{opened}"
    what = f"prebuilt kernel modules for {kind} kernels"
    return Package(f"{stem}-{kind}", revision, what, "Canonical Kernel Team (Ubuntu)", depends=[f"{stem}-{kernel} (= {revision})"])


def transitional(label: str, to: str, full: str, has_open: bool = True) -> list[Package]:
    """A branch of which only the names are left: they lead to another."""
    stems = ("libnvidia-cfg1", "libnvidia-compute", "nvidia-utils", "nvidia-compute-utils", "nvidia-kernel-common")
    kernel_stems = ("nvidia-kernel-source", "nvidia-dkms", "nvidia-headless-no-dkms", "nvidia-headless", "nvidia-driver")
    names = [(f"{stem}-{label}", f"{stem}-{to}") for stem in (*stems, *kernel_stems)]
    if has_open:
        names += [(f"{stem}-{label}-open", f"{stem}-{to}-open") for stem in kernel_stems]
    return [Package(old, full, f"transitional package for {new}", UBUNTU, depends=[new]) for old, new in names]


def fabric_manager(version: str, full: str, maker: str, suffix: str) -> Package:
    """Of one driver version; it serves no other."""
    return Package(
        f"nvidia-fabricmanager{suffix}",
        full,
        f"Fabric Manager {version}",
        maker,
        files=_contents.fabric_manager(version),
        configured="systemctl daemon-reload",
        removing=f"systemctl --quiet disable --now {_contents.FABRIC_UNIT}",
        removed="systemctl daemon-reload",
    )


def archive(suite: str, release: str, running: str) -> list[Package]:
    """What Ubuntu's archive has for a release, in part."""
    following = next_kernel(suite)
    packages: list[Package] = []
    # Kernel packages have one version per build against a driver.
    built = 50
    drivers = [("580-server", "580.95.05", True), ("580-server", "580.105.08", True), ("595-server", "595.91.07", True)]
    if suite != "resolute":
        drivers.insert(0, ("470-server", "470.256.02", False))
    for label, version, has_open in drivers:
        full = f"{version}-0ubuntu0.{release}.1"
        branch = Branch(label, version, full, UBUNTU, has_open, firmware=has_open)
        packages += branch.packages()
        built += 1
        for flavour in branch.flavours:
            for kernel in dict.fromkeys((running, following)):
                revision = f"6.99.1-7.7+{built}"
                packages.append(prebuilt(label, version, flavour, kernel, revision))
                packages += [prebuilt_meta(label, flavour, kind, kernel, revision) for kind in kinds(kernel, release)]
        if int(version.partition(".")[0]) >= 580:
            packages.append(fabric_manager(version, full, UBUNTU, f"-{version.partition('.')[0]}"))
    if suite == "resolute":
        packages += transitional("535-server", "580-server", f"580.105.08-0ubuntu0.{release}.1")
    else:
        packages += transitional("535-server", "580-server", f"535.309.01-0ubuntu0.{release}.2")
    return packages + kernels([running, following], following, "generic", UBUNTU) + [simulated_dkms(UBUNTU)]


def kinds(kernel: str, release: str) -> list[str]:
    """What Ubuntu calls kernels of this kind: by the end of their names; newer series of a release are its HWE kernels."""
    kind = kernel.rpartition("-")[2]
    return [kind, f"generic-hwe-{release}"] if kind == "generic" else [kind]


def next_kernel(suite: str) -> str:
    """A kernel that no machine runs, for upgrades."""
    return {"jammy": "6.99.1-22-generic", "noble": "6.99.1-24-generic", "resolute": "6.99.1-26-generic"}[suite]


def kernels(names: list[str], newest: str, kind: str, maker: str) -> list[Package]:
    """Headers of these kernels, an image of the newest (in a container no kernel is installed), and what leads to it."""
    packages = []
    for name in dict.fromkeys(names):
        files, links = _contents.headers(name)
        autoinstall = simgpu_dkms.command("autoinstall", name)
        what = f"headers of kernel {name}"
        depmod = _contents.tool("simgpu_kernel", "depmod", name)
        made = Package(f"linux-headers-{name}", "6.99.1-7.7", what, maker, files=files, links=links)
        packages.append(made.but(configured=autoinstall, removed=depmod))
    image = {f"/boot/vmlinuz-{newest}": (b"SIMULATED by tests/simhost\n", 0o644)}
    boot = _contents.tool("simgpu_kernel", "boot")
    # When the image is configured, DKMS builds for it, if its headers are there by then.
    configured = f"{boot}\n{simgpu_dkms.command('autoinstall', newest)}"
    made = Package(f"linux-image-{newest}", "6.99.1-7.7", f"kernel {newest}", maker, files=image)
    packages.append(made.but(configured=configured, removed=boot))
    what = f"newest {kind} kernel"
    stems = ("linux-headers", "linux-image")
    return packages + [Package(f"{stem}-{kind}", "6.99.1.7.7", what, maker, depends=[f"{stem}-{newest}"]) for stem in stems]


def simulated_dkms(maker: str) -> Package:
    """In place of the real one, which brings compilers; the epoch keeps Debian's out."""
    script = b'#!/bin/sh\n# SIMULATED by tests/simhost.\nexec python3 /usr/lib/simgpu/simgpu_dkms.py "$@"\n'
    return Package("dkms", "1:3.2.2-1", "DKMS that builds SIMULATED modules", maker, files={"/usr/sbin/dkms": (script, 0o755)})


# --- NVIDIA's repository for Ubuntu ---------------------------------------------------------------------------------------------


def nvidia_repository() -> list[Package]:
    """Names with the branch until 580, without from 590 on."""
    packages: list[Package] = []
    for version in ("570.211.01", "580.95.05", "580.105.08", "595.91.07"):
        number = version.partition(".")[0]
        suffixed = int(number) <= 580
        label, suffix = (number, f"-{number}") if suffixed else ("", "")
        full = f"{version}-0ubuntu1"
        branch = Branch(label, version, full, NVIDIA)
        packages += branch.packages()
        packages.append(fabric_manager(version, full, NVIDIA, suffix))
        for meta, flavour in (("cuda-drivers", "proprietary"), ("nvidia-open", "open")):
            needs = [branch.same("nvidia-driver", flavour)]
            if suffixed:
                packages.append(Package(f"{meta}{suffix}", full, f"driver {number}", NVIDIA, depends=needs))
                needs = [f"{meta}{suffix} (= {full})"]
            # Without a branch it leads to the driver of its own version, so that the newest is installed.
            packages.append(Package(meta, full, "newest driver", NVIDIA, depends=needs))
        packages += pinning(version)
    return once(packages)


def once(packages: list[Package]) -> list[Package]:
    """Without those that were made twice: the pinning package of a branch comes with each of its versions."""
    return list({(package.name, package.version): package for package in packages}.values())


def pinning(version: str) -> list[Package]:
    """Packages that bring a preferences file. Nobody here has seen NVIDIA's: names are from its guide, the content is ours."""
    number = version.partition(".")[0]
    found = []
    for what, pattern in ((number, f"{number}.*"), (version, f"{version}-*")):
        stanzas = "# SIMULATED by tests/simhost\nPackage: *nvidia* cuda-drivers* libcuda1 libxnvctrl*\n"
        text = f"{stanzas}Pin: version {pattern}\nPin-Priority: 1001\n"
        found.append(
            Package(
                f"nvidia-driver-pinning-{what}",
                f"{version}-1" if what == version else f"{number}-1",
                f"keeps the driver at {what}",
                NVIDIA,
                provides=["nvidia-driver-pinning"],
                conflicts=["nvidia-driver-pinning"],
                files={f"/etc/apt/preferences.d/nvidia-driver-pinning-{what}.pref": (text.encode(), 0o644)},
            )
        )
    return found


def debian_repository() -> list[Package]:
    """NVIDIA's repository for Debian: one name for all branches. Relations from memory."""
    packages: list[Package] = []
    for version in ("570.211.01", "580.95.05", "580.105.08", "595.91.07"):
        packages += _debian(version)
        packages += pinning(version)
    return once(packages)


def _debian(version: str) -> list[Package]:
    full, number = f"{version}-1", version.partition(".")[0]

    def package(name: str, what: str, *depends: str, **fields: object) -> Package:
        needs = [need if " " in need else f"{need} (= {full})" for need in depends]
        made = Package(name, full, f"{what}, NVIDIA driver {version}", NVIDIA, source="nvidia-graphics-drivers", depends=needs)
        return made.but(**fields)

    cuda, cuda_links = _contents.library("libcuda", version)
    nvml, nvml_links = _contents.library("libnvidia-ml", version)
    kernel = f"nvidia-kernel-dkms (= {full}) | nvidia-kernel-open-dkms (= {full})"
    found = [
        package("libcuda1", "CUDA driver library", files=cuda, links=cuda_links, installed_kib=LIBRARY_KIB),
        package("libnvidia-ml1", "management library", files=nvml, links=nvml_links),
        package("firmware-nvidia-gsp", "firmware of the GPU system processor", installed_kib=FIRMWARE_KIB),
        package("nvidia-kernel-support", "files shared by the kernel modules", "firmware-nvidia-gsp"),
        package("nvidia-modprobe", "loads the modules for users"),
        package(
            "nvidia-persistenced",
            "persistence daemon",
            "libnvidia-ml1",
            files=_contents.persistenced(version),
            configured=f"systemctl daemon-reload\nsystemctl --quiet enable {_contents.PERSISTENCED_UNIT}",
            removing=f"systemctl --quiet disable --now {_contents.PERSISTENCED_UNIT}",
            removed="systemctl daemon-reload",
        ),
        package(
            "nvidia-driver-cuda",
            "compute part of the driver",
            *("libcuda1", "libnvidia-ml1", "nvidia-persistenced", "nvidia-modprobe", kernel),
            files=_contents.smi(version),
        ),
        package("nvidia-driver", "driver", "nvidia-driver-cuda", kernel),
        fabric_manager(version, full, NVIDIA, f"-{number}" if int(number) <= 580 else ""),
    ]
    for flavour, name, other in (
        ("proprietary", "nvidia-kernel-dkms", "nvidia-kernel-open-dkms"),
        ("open", "nvidia-kernel-open-dkms", "nvidia-kernel-dkms"),
    ):
        found.append(
            package(
                name,
                f"kernel modules by DKMS ({flavour})",
                *("dkms (>= 0)", "nvidia-kernel-support"),
                conflicts=[other],
                files=_contents.dkms_source(version, flavour),
                configured=simgpu_dkms.command("install", version),
                removing=simgpu_dkms.command("remove", version),
            )
        )
        meta = "nvidia-open" if flavour == "open" else "cuda-drivers"
        found += [
            package(meta, "newest driver", "nvidia-driver", name),
            package(f"{meta}-{number}", f"driver {number}", "nvidia-driver", name),
        ]
    return found


def debian_archive(suite: str, running: str) -> list[Package]:
    """What Debian's archive has in life for its own kernels, for the one that runs here; its NVIDIA packages are genuine elsewhere."""
    following = {"bookworm": "6.99.12-amd64", "trixie": "6.99.13-amd64"}[suite]
    return [*kernels([running, following], following, "amd64", "Debian"), simulated_dkms("Debian")]
