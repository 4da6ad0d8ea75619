# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds and installs stub packages of a simulated NVIDIA driver: simgpu_stub.py VERSION [PREFIX [REVISION]].

The packages bear the names and versions of Debian's; their description says that they are simulated. Installing another
version changes the libraries at once and the loaded module at the next boot, as in life.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import simgpu_profile

BUILT = "/usr/lib/simgpu/out"
WORK = "/var/lib/simgpu/stubs"
LIBRARIES = {"ml1": "libnvidia-ml", "cuda1": "libcuda"}


def control(name: str, version: str, depends: list[str], what: str) -> str:
    lines = [
        f"Package: {name}",
        f"Version: {version}",
        "Architecture: amd64",
        "Maintainer: the difyops.gpu authors <nobody@localhost>",
        "Section: non-free/libs",
        "Priority: optional",
        *([f"Depends: {', '.join(depends)}"] if depends else []),
        f"Description: SIMULATED {what}",
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
        return simgpu_profile.stamped(source.read(), version)


def package(name: str, version: str, depends: list[str], what: str, files: dict[str, tuple[bytes, int]], links: dict[str, str]) -> str:
    """Builds one package and returns the path of its .deb."""
    root = os.path.join(WORK, name)
    shutil.rmtree(root, ignore_errors=True)
    put(root, "/DEBIAN/control", control(name, version, depends, what).encode())
    for path, (content, mode) in files.items():
        put(root, path, content, mode)
    for path, target in links.items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", root, root + ".deb"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return root + ".deb"


def main(version: str, prefix: str = "nvidia", revision: str = "1") -> None:
    full = f"{version}-{revision}"
    same = f"(= {full})"
    debs = []
    for suffix, stem in LIBRARIES.items():
        path = f"{simgpu_profile.LIBRARY_DIR}/{stem}.so"
        debs.append(
            package(
                f"lib{prefix}-{suffix}",
                full,
                [],
                f"NVIDIA library {stem}",
                {f"{path}.{version}": (built(f"{stem}.so.1", version), 0o644)},
                {f"{path}.1": f"{stem}.so.{version}"},
            )
        )
    smi = {"/usr/bin/nvidia-smi": (built("nvidia-smi", version), 0o755)}
    debs.append(package(f"{prefix}-smi", full, [f"lib{prefix}-ml1 {same}"], "NVIDIA System Management Interface", smi, {}))
    debs.append(package(f"{prefix}-kernel-dkms", full, [], "NVIDIA kernel module", {}, {}))
    needs = [f"{name} {same}" for name in (f"{prefix}-kernel-dkms", f"{prefix}-smi", f"lib{prefix}-cuda1")]
    debs.append(package(f"{prefix}-driver", full, needs, "NVIDIA driver", {}, {}))
    subprocess.run(["dpkg", "-i", *debs], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    for deb in debs:
        os.unlink(deb)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit("usage: simgpu_stub.py VERSION [PREFIX [REVISION]]")
    main(*sys.argv[1:])
