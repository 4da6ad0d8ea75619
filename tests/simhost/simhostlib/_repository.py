# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stub repositories: built once in a container, mounted into hosts, served by each host to itself."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from simhostlib import _images
from simhostlib._common import HERE, cache, digest, locked, say
from simhostlib._engine import docker
from simhostlib._systems import System

KIND = "repositories"
ON_HOST = "/srv/simrepo"
PORT = 8099
URL = f"http://localhost:{PORT}"
SOURCE = HERE / "repository"
# It has rpmbuild, createrepo_c and gpg.
BUILDER = "host-rpm"
SIMULATION = HERE / "host-image/files/usr/lib/simgpu"
UNIT = f"""\
[Unit]
Description=Stub repositories (SIMULATED by tests/simhost); stopped, it is a mirror that cannot be reached
After=network.target

[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory {ON_HOST} {PORT}
Restart=on-failure
StandardOutput=null
StandardError=null

[Install]
WantedBy=multi-user.target
"""


def ensure() -> Path:
    """The folder of the repositories, built when their inputs or the kernel of this machine changed."""
    kernel = platform.release()
    with locked("repository"):
        base = cache() / "repositories"
        target = base / digest([SOURCE, SIMULATION, HERE / "simgpu", kernel])
        if target.is_dir():
            return target
        images, _inner = _images.build([BUILDER], [])
        say("building the stub repositories")
        part = base / "part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        key = cache() / "repository-key"
        key.mkdir(mode=0o700, exist_ok=True)
        volumes = [f"--volume={part}:/out", f"--volume={key}:/key", f"--volume={SOURCE}:/source:ro"]
        command = ["python3", "-m", "simrepo", "/out", "/key", kernel]
        path = "PYTHONPATH=/source:/usr/lib/simgpu"
        docker("run", "--rm", "--network=none", "--env", path, "--env=PYTHONDONTWRITEBYTECODE=1", *volumes, images[BUILDER], *command)
        # Hosts have the former one mounted; it goes when no host can any more.
        os.replace(part, target)
        forget_former(base, target)
        return target


def forget_former(base: Path, current: Path) -> None:
    """Removes folders beside the current one that no container has mounted."""
    containers = docker("ps", "--all", "--quiet").split()
    # Not checked: a container may go in the meantime.
    command = ("inspect", "--format", "{{range .Mounts}}{{.Source}}\n{{end}}", *containers)
    mounted = docker(*command, check=False).split() if containers else []
    for folder in base.iterdir():
        if folder != current and str(folder) not in mounted:
            shutil.rmtree(folder)


def host_files(system: System) -> dict[str, tuple[bytes, int]]:
    """What a host gets: the unit that serves, and its distribution's own repository as its package manager knows it."""
    if system.manager == "deb":
        folder, suite, component = system.repository
        text = f"Types: deb\nURIs: {URL}/{folder}/\nSuites: {suite}\nComponents: {component}\nSigned-By: {ON_HOST}/key.gpg\n"
        path = "etc/apt/sources.list.d/simhost.sources"
    else:
        (folder,) = system.repository
        text = (
            f"[simhost-base]\nname=SIMULATED base repository\nbaseurl={URL}/enterprise/{folder}/\n"
            f"enabled=1\ngpgcheck=1\ngpgkey=file://{ON_HOST}/key.asc\n"
        )
        path = "etc/yum.repos.d/simhost-base.repo"
    return {"etc/systemd/system/simrepo.service": (UNIT.encode(), 0o644), path: (text.encode(), 0o644)}


def prepare(system: System) -> list[str]:
    """Commands for a new host."""
    steps = ["systemctl daemon-reload", "systemctl --quiet enable --now simrepo.service"]
    if system.manager == "rpm":
        # Stands for the base system, which is Debian's and unknown to rpm.
        steps += [f"rpm --import {ON_HOST}/key.asc", f"rpm --install {ON_HOST}/enterprise/{system.repository[0]}/simhost-base-system-*.rpm"]
    return steps
