# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds and installs stub packages of a simulated NVIDIA driver: simgpu_stub.py VERSION [PREFIX [REVISION [FLAVOUR]]].

The packages bear the names and versions of Debian's; their description says that they are simulated. Installing another
version changes the libraries and the modules on disk at once and the loaded module at the next boot, as in life.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import simgpu_profile

BUILT = "/usr/lib/simgpu/out"
WORK = "/var/lib/simgpu/stubs"
# The description of every stub that comes with a profile begins so, and of no other package.
MARK = "SIMULATED NVIDIA"
# And that of every stub, those of the repositories included (repository/simrepo/_package.py).
MARKS = (MARK, "SIMULATED repository package:")
# Units of daemons, and the profile's key for each.
UNITS = {"nvidia-fabricmanager.service": "fabric_manager", "nvidia-persistenced.service": "persistenced"}
DAEMON = """\
#!/bin/sh
# A SIMULATED {name} of tests/simhost.
case "$1" in
--version|-v) echo "{title} version is : {version} (SIMULATED)"; exit 0 ;;
esac
{check}systemd-notify --ready
while :; do sleep 3600 & wait $!; done
"""
# What the genuine one does too: it serves only the driver of its own version.
FABRIC_CHECK = """\
loaded=$(cat /sys/module/nvidia/version) || {{ echo "no NVIDIA driver is loaded" >&2; exit 1; }}
if [ "$loaded" != "{version}" ]; then
    echo "fabric manager version {version} does not match the loaded driver's, $loaded (SIMULATED)" >&2
    exit 1
fi
echo "fabric_manager={version}" > /run/simgpu/module/fabric
trap 'rm -f /run/simgpu/module/fabric; exit 0' TERM
"""
UNIT = """\
[Unit]
Description={title} (SIMULATED)
After=simgpu.service
PartOf=simgpu.service
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
ExecStart={program}

[Install]
WantedBy=multi-user.target
"""


class Package(NamedTuple):
    """A package to build. Contents by path: bytes and mode; links by path; maintainer scripts by name."""

    name: str
    version: str
    what: str
    depends: list[str]
    files: dict[str, tuple[bytes, int]]
    links: dict[str, str]
    scripts: dict[str, str]


def control(package: Package) -> str:
    lines = [
        f"Package: {package.name}",
        f"Version: {package.version}",
        "Architecture: amd64",
        "Maintainer: the difyops.gpu authors <nobody@localhost>",
        "Section: non-free/libs",
        "Priority: optional",
        *([f"Depends: {', '.join(package.depends)}"] if package.depends else []),
        f"Description: {MARK} {package.what}",
        " A stub of tests/simhost with the name and version of the real package. It drives no hardware.",
        "",
    ]
    return "\n".join(lines)


def put(root: str, path: str, content: bytes, mode: int = 0o644) -> None:
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as out:
        out.write(content)
    os.chmod(target, mode)


def built(name: str, version: str) -> bytes:
    with open(os.path.join(BUILT, name), "rb") as source:
        return simgpu_profile.without_newer(simgpu_profile.stamped(source.read(), version), version)


def build(package: Package) -> str:
    """Builds a package and returns the path of its .deb."""
    root = os.path.join(WORK, package.name)
    shutil.rmtree(root, ignore_errors=True)
    put(root, "/DEBIAN/control", control(package).encode())
    for name, script in package.scripts.items():
        put(root, f"/DEBIAN/{name}", f"#!/bin/sh\nset -e\n{script}\n".encode(), 0o755)
    for path, (content, mode) in package.files.items():
        put(root, path, content, mode)
    for path, target in package.links.items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", root, root + ".deb"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return root + ".deb"


def library(prefix: str, name: str, stem: str, version: str, full: str) -> Package:
    """A library of the driver. Debian's own packages have no `nvidia` in the name of the CUDA driver."""
    path = f"{simgpu_profile.LIBRARY_DIR}/{stem}.so"
    package_name = f"lib{prefix}-{name}" if prefix != "nvidia" or name != "cuda1" else "libcuda1"
    files = {f"{path}.{version}": (built(f"{stem}.so.1", version), 0o644)}
    return Package(package_name, full, f"library {stem}", [], files, {f"{path}.1": f"{stem}.so.{version}"}, {})


def module_file(prefix: str, flavour: str) -> str:
    """How Debian names the file of the module, without the ending: nvidia-current, nvidia-tesla-470."""
    return ("nvidia-current" if prefix == "nvidia" else prefix) + ("-open" if flavour == "open" else "")


def kernel_module(prefix: str, version: str, full: str, flavour: str) -> Package:
    """The kernel module's package, which builds modules when it is configured, as DKMS does."""
    opened = "open-" if flavour == "open" else ""
    module = module_file(prefix, flavour)
    tool = "/usr/lib/simgpu/simgpu_kernel.py"
    scripts = {
        "postinst": f"if [ -e {tool} ]; then python3 {tool} install {version} {flavour} {module}; fi",
        "prerm": f"if [ -e {tool} ]; then python3 {tool} remove; fi",
    }
    return Package(f"{prefix}-{opened}kernel-dkms", full, f"kernel module ({flavour})", [], {}, {}, scripts)


def driver(version: str, prefix: str, revision: str, flavour: str) -> list[Package]:
    """The packages of a driver, in the order of their dependencies."""
    full = f"{version}-{revision}"
    libraries = [library(prefix, "ml1", "libnvidia-ml", version, full), library(prefix, "cuda1", "libcuda", version, full)]
    smi_file = {"/usr/bin/nvidia-smi": (built("nvidia-smi", version), 0o755)}
    smi = Package(f"{prefix}-smi", full, "System Management Interface", [f"{libraries[0].name} (= {full})"], smi_file, {}, {})
    kernel = kernel_module(prefix, version, full, flavour)
    needs = [f"{package.name} (= {full})" for package in (kernel, smi, libraries[1])]
    return [*libraries, smi, kernel, Package(f"{prefix}-driver", full, "driver", needs, {}, {}, {})]


def daemon(name: str, program: str, title: str, unit: str, version: str, full: str, check: str = "") -> Package:
    """A package with one program that runs, and its unit."""
    script = DAEMON.format(name=name, title=title, version=version, check=check.format(version=version))
    files = {
        program: (script.encode(), 0o755),
        f"/usr/lib/systemd/system/{unit}": (UNIT.format(title=title, program=program).encode(), 0o644),
    }
    scripts = {
        "postinst": f"systemctl daemon-reload\nsystemctl --quiet enable {unit}",
        "prerm": f"systemctl --quiet disable --now {unit}",
        "postrm": "systemctl daemon-reload",
    }
    return Package(name, full, title, [], files, {}, scripts)


def fabric_manager(version: str, revision: str) -> Package:
    name = f"nvidia-fabricmanager-{version.partition('.')[0]}"
    unit = "nvidia-fabricmanager.service"
    return daemon(name, "/usr/bin/nv-fabricmanager", "Fabric Manager", unit, version, f"{version}-{revision}", FABRIC_CHECK)


def persistenced(version: str, revision: str) -> Package:
    unit = "nvidia-persistenced.service"
    return daemon("nvidia-persistenced", "/usr/bin/nvidia-persistenced", "persistenced", unit, version, f"{version}-{revision}")


def install(packages: list[Package]) -> None:
    debs = [build(package) for package in packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["dpkg", "--install", *debs], check=True, stdout=subprocess.DEVNULL, env=environment)
    for deb in debs:
        os.unlink(deb)


def installed(marks: tuple[str, ...] = (MARK,)) -> dict[str, str]:
    """The stubs that are installed, with a description that begins so: versions by name."""
    query = ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${db:Status-Status}\t${binary:Summary}\n"]
    lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [line.split("\t") for line in lines]
    return {name: version for name, version, status, summary in rows if summary.startswith(marks) and status != "not-installed"}


def purge(names: list[str]) -> None:
    """Takes packages away, whatever needs them and whatever state they are in."""
    if not names:
        return
    command = ["dpkg", "--purge", "--force-depends", "--force-remove-reinstreq"]
    subprocess.run([*command, *names], check=True, stdout=subprocess.DEVNULL)


def wanted(profile: dict[str, str]) -> list[Package]:
    """The packages that a host with this profile has."""
    version = profile.get("driver_version")
    if not version:
        return []
    revision = profile.get("package_revision", "1")
    packages = driver(version, profile.get("package_prefix", "nvidia"), revision, profile.get("driver_flavour", "proprietary"))
    manager = profile.get("fabric_manager", "no")
    if manager != "no":
        packages.append(fabric_manager(version if manager in ("yes", "stopped") else manager, revision))
    if profile.get("persistenced", "no") != "no":
        packages.append(persistenced(version, revision))
    return packages


def units(profile: dict[str, str]) -> list[str]:
    """The daemons that run on a host with this profile."""
    return [unit for unit, key in UNITS.items() if profile.get("driver_version") and profile.get(key, "no") not in ("no", "stopped")]


def whole(packages: list[Package]) -> bool:
    """Whether exactly these packages are installed with all their files."""
    if installed() != {package.name: package.version for package in packages}:
        return False
    return all(os.path.lexists(path) for package in packages for path in (*package.files, *package.links))


def provision(profile: dict[str, str]) -> None:
    """Brings the stub packages in line with a profile."""
    packages = wanted(profile)
    # Packages of the repositories go when the profile has a driver of its own, and are none of its business otherwise.
    if packages:
        purge([name for name in installed(MARKS[1:]) if "nvidia" in name or name.startswith(("libcuda", "cuda-drivers"))])
    if whole(packages):
        return
    names = [package.name for package in packages]
    purge([name for name in installed() if name not in names])
    if packages:
        install(packages)


def main(version: str, prefix: str = "nvidia", revision: str = "1", flavour: str = "proprietary") -> None:
    install(driver(version, prefix, revision, flavour))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 5:
        sys.exit("usage: simgpu_stub.py VERSION [PREFIX [REVISION [FLAVOUR]]]")
    main(*sys.argv[1:])
