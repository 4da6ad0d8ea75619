# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as containers: create, start, wait until they answer, load images, stop."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simhostlib import _assets, _dify, _images, _repository
from simhostlib._common import SimhostError, cache, digest, ensure_tool, locked, run, say
from simhostlib._engine import docker
from simhostlib._fleet import INNER_PORTS, Fleet, Host, refuse_packages

READY_SECONDS = 90
LABEL = "org.difyops.simhost"
PREPARED = "/var/lib/simhost-prepared"
# Where --privileged is refused (root without CAP_SYS_RESOURCE), this is what systemd and an engine inside need.
FLAGS = [
    "--restart=always",
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs=/run",
    "--tmpfs=/tmp",
]
# What `simhost reset` needs to give a host back the engine, or the lack of one, that it started with (simgpu_reset.py).
ENGINE_FOLDER = "/var/lib/simhost-engine"
ENGINE_CONFIG = "/etc/docker/daemon.json"
# The engine of the image goes, with what came for it. /var/lib/docker is a mount, which stays and is empty.
WITHOUT_ENGINE = [
    "export DEBIAN_FRONTEND=noninteractive",
    f"apt-get purge --yes -qq {_images.DOCKER_PACKAGES} > /dev/null",
    "apt-get autoremove --purge --yes -qq > /dev/null",
    "rm -rf /etc/docker /etc/containerd /var/lib/containerd /var/lib/docker/*",
    "systemctl daemon-reload",
    "systemctl reset-failed",
]
# Misc devices (major 10) that can be opened without side effects, best first. The default device list of Docker has
# none of them, so a container gets the simulated GPU's nodes only when it is given them.
BACKING_DEVICES = ("fuse", "autofs", "userfaultfd", "loop-control")
MISC_MAJOR = 10


def backing_device() -> str:
    """The number (major:minor) of the real device behind the simulated GPU's nodes."""
    if "fuse" not in _misc_devices():
        subprocess.run(["modprobe", "fuse"], capture_output=True, check=False)
    minors = _misc_devices()
    for name in BACKING_DEVICES:
        if name in minors:
            return f"{MISC_MAJOR}:{minors[name]}"
    raise SimhostError(f"the kernel has none of the devices {', '.join(BACKING_DEVICES)} (see /proc/misc); load the module fuse.")


def _misc_devices() -> dict[str, str]:
    """The minor numbers of the misc devices of this kernel, by name."""
    lines = Path("/proc/misc").read_text(encoding="ascii").splitlines()
    return {name: minor for minor, name in (line.split() for line in lines)}


def key_file() -> Path:
    """The private SSH key of all simulated hosts; made when missing."""
    key = cache() / "id_ed25519"
    # Hosts are started side by side, and the first two would both find it missing.
    with locked("key"):
        if not key.exists():
            ensure_tool("ssh-keygen")
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "difyops-simhost", "-f", str(key)])
        key.chmod(0o600)
    return key


def _inspect(container: str) -> dict[str, object] | None:
    found = json.loads(docker("container", "inspect", container, check=False) or "[]")
    return found[0] if found else None


def state(host: Host) -> str:
    found = _inspect(host.container)
    return str(found["State"]["Status"]) if found else "absent"  # type: ignore[index]


def _files(host: Host) -> bytes:
    """What a new container gets before its first start: the key, the profile, the device's number."""
    files = {"root/.ssh/authorized_keys": (key_file().with_suffix(".pub").read_bytes(), 0o600)}
    profile = host.profile_text()
    if profile is not None:
        files["etc/simgpu/profile"] = (profile.encode(), 0o644)
        files["etc/simgpu/device"] = (backing_device().encode() + b"\n", 0o644)
    files.update({path: (text.encode(), 0o644) for path, text in host.system.files.items()})
    if host.repositories:
        files.update(_repository.host_files(host.system))
    if host.dify:
        files.update(_dify.host_files())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        # The copy changes mode and owner of folders that are there already to these.
        for name, mode in (("root/.ssh", 0o700), ("etc/simgpu", 0o755)):
            if any(path.startswith(name) for path in files):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, mode
                tar.addfile(folder)
        for name, (content, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _create(fleet: Fleet, host: Host, image: str, mark: str, folders: dict[str, Path]) -> None:
    """A new container, not started."""
    arguments = [f"--name={host.container}", f"--hostname={host.name}", f"--network={fleet.prefix}", *FLAGS]
    arguments += [f"--volume={host.volume}:/var/lib/docker", f"--label={LABEL}={fleet.prefix}", f"--label={LABEL}.digest={mark}"]
    arguments += [f"--publish=127.0.0.1:{port}:{INNER_PORTS[name]}" for name, port in host.publish.items()]
    arguments += [f"--volume={folders[kind]}:{target}:ro" for kind, target in host.mounts.items()]
    if host.repositories:
        arguments.append(f"--volume={folders[_repository.KIND]}:{_repository.ON_HOST}:ro")
    if host.dify:
        arguments.append(f"--volume={folders[_dify.KIND]}:{_dify.ON_HOST}:ro")
    if host.profile:
        arguments.append(f"--device-cgroup-rule=c {backing_device()} rwm")
    docker("create", *arguments, image)
    put = subprocess.run(["docker", "cp", "-", f"{host.container}:/"], check=False, input=_files(host), capture_output=True)
    if put.returncode:
        raise SimhostError(f"files could not be copied into {host.container}: {put.stderr.decode(errors='replace').strip()}")


def _ensure_container(fleet: Fleet, host: Host, image: str, folders: dict[str, Path]) -> None:
    """Creates or starts the container; one that was made from other inputs is replaced by a fresh host."""
    mounted = [folders[kind].name for kind, wanted in ((_repository.KIND, host.repositories), (_dify.KIND, host.dify)) if wanted]
    mark = digest([image, repr(host), _files(host), *mounted])
    found = _inspect(host.container)
    if found and found["Config"]["Labels"].get(f"{LABEL}.digest") != mark:  # type: ignore[index]
        say(f"{host.name}: its inputs changed, so it is made anew, with nothing of the former one")
        _remove(host)
        found = None
    if not found:
        say(f"{host.name}: starting ({'profile ' + host.profile.stem if host.profile else 'nothing simulated'})")
        _create(fleet, host, image, mark, folders)
        try:
            docker("start", host.container)
        except BaseException:
            _remove(host)
            raise
        print(f"{host.name}: started", flush=True)
    elif found["State"]["Status"] != "running":  # type: ignore[index]
        docker("start", host.container)
        print(f"{host.name}: started", flush=True)


def _prepare(host: Host) -> None:
    """What differs between hosts of the same image; once, after the first boot (which installs packages too)."""
    steps = ["set -e", f"test ! -e {PREPARED} || exit 0", *host.system.prepare]
    if host.engine:
        steps += [f"mkdir -p {ENGINE_FOLDER}", f"cp -a {ENGINE_CONFIG} {ENGINE_FOLDER}/"]
        steps.append(f"echo {_images.DOCKER_PACKAGES} > {ENGINE_FOLDER}/packages")
    elif host.system.engine:
        steps += WITHOUT_ENGINE
    if host.repositories:
        steps += _repository.prepare(host.system)
    if host.dify:
        steps += _dify.prepare()
    if host.without:
        steps.append(f"dpkg --remove {shlex.join(host.without)}")
    if host.pynvml:
        steps.append("cp -r /usr/lib/simgpu/pynvml/. /usr/lib/python3/dist-packages/")
    if host.profile:
        stand_in = {"deb": "update-initramfs", "rpm": "dracut"}[host.system.manager]
        steps += ["rm -rf /usr/lib/simgpu/pynvml", f"ln -sf /usr/lib/simgpu/bin/initramfs /usr/sbin/{stand_in}"]
    else:
        # Nothing that simulates stays on a host that is real.
        diversion = "dpkg-divert --quiet --local --rename --divert /usr/sbin/$program.kmod --remove /usr/sbin/$program"
        steps += [
            f"for program in modprobe rmmod; do rm /usr/sbin/$program; {diversion}; done",
            "systemctl disable simgpu.service",
            "rm -rf /usr/lib/simgpu /etc/systemd/system/simgpu.service",
            "systemctl daemon-reload",
        ]
    docker("exec", host.container, "sh", "-c", "\n".join([*steps, f"touch {PREPARED}"]))


def ssh_command(host: Host) -> list[str]:
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5"]
    options = [word for option in options for word in ("-o", option)]
    return ["ssh", *options, "-i", str(key_file()), "-p", str(host.publish["ssh"]), "root@127.0.0.1"]


def wait_ready(host: Host) -> None:
    """Waits until systemd is up, SSH lets in and the engine inside answers, where there is one."""
    check = "systemctl is-system-running --wait"
    if host.engine:
        check += "; docker version --format '{{.Server.Version}}'"
    deadline = time.monotonic() + READY_SECONDS
    seen = "nothing answered on the SSH port"
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [*ssh_command(host), check], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30
            )
            lines = done.stdout.split()
            if done.returncode == 0 and lines[:1] == ["running"]:
                return
            seen = " / ".join((done.stdout + done.stderr).split("\n")).strip(" /") or seen
            if lines[:1] == ["degraded"]:
                break
        time.sleep(0.3)
    failed = docker("exec", host.container, "systemctl", "--failed", "--plain", "--no-legend", check=False, timeout=20)
    command = ("journalctl", "--no-pager", "--quiet", "--priority=warning", "--lines=15")
    journal = docker("exec", host.container, *command, check=False, timeout=20)
    raise SimhostError(f"{host.name} did not get ready within {READY_SECONDS} s (last answer: {seen}).\n{failed}{journal}")


def engine_answers(host: Host) -> bool:
    """Whether the engine inside can be asked."""
    # By a shell: where there is no such program, the engine outside says so on standard output.
    command = ("exec", host.container, "sh", "-c", "docker version --format '{{.Server.Version}}' 2> /dev/null")
    return bool(docker(*command, check=False, timeout=30).strip())


def load_image(host: Host, name: str) -> None:
    """Loads an image into the host's engine, unless it is there with the same id."""
    wanted = _images.image_id(name)
    inside = docker("exec", host.container, "docker", "image", "inspect", "--format", "{{.Id}}", name, check=False).strip()
    if inside == wanted:
        return
    say(f"{host.name}: loading {name}")
    with open(_images.saved(name), "rb") as tar:
        done = subprocess.run(
            ["docker", "exec", "-i", host.container, "docker", "load", "--quiet"], check=False, stdin=tar, capture_output=True, text=True
        )
    if done.returncode:
        raise SimhostError(f"{host.name}: the image {name} could not be loaded: {done.stderr.strip()}")


def up(fleet: Fleet, names: list[str]) -> None:
    """Starts hosts; returns when all are ready."""
    hosts = fleet.select(names)
    ensure_tool("ssh")
    kinds = {host.system.image for host in hosts}
    images, inner = _images.build(sorted(kinds), sorted({kind for host in hosts for kind in host.images}))
    folders = _assets.ensure(sorted({kind for host in hosts for kind in host.mounts}))
    if any(host.repositories for host in hosts):
        folders[_repository.KIND] = _repository.ensure()
    if any(host.dify for host in hosts):
        folders[_dify.KIND] = _dify.ensure()
    if not docker("network", "ls", "--quiet", "--filter", f"name=^{fleet.prefix}$").strip():
        docker("network", "create", "--label", f"{LABEL}={fleet.prefix}", fleet.prefix)

    def start(host: Host) -> None:
        _ensure_container(fleet, host, images[host.system.image], folders)
        wait_ready(host)
        _prepare(host)
        # A host that starts without an engine gets its images by the next `up` after somebody brought one.
        if host.engine or engine_answers(host):
            for kind in host.images:
                load_image(host, inner[kind])

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        errors = [error for error in pool.map(lambda host: _attempt(start, host), hosts) if error]
    if errors:
        raise SimhostError("\n".join(errors))


def _attempt(action, host: Host) -> str | None:  # type: ignore[no-untyped-def]
    """So that one host's failure does not hide the others'."""
    try:
        action(host)
    except SimhostError as error:
        return str(error)
    return None


def _remove(host: Host) -> None:
    """Takes away a host with all its data: the files and the engine's volume belong together."""
    docker("rm", "--force", "--volumes", host.container, check=False)
    docker("volume", "rm", "--force", host.volume, check=False)


def down(fleet: Fleet, names: list[str]) -> None:
    """Removes hosts, and the network with the last one."""
    for host in fleet.select(names):
        if state(host) != "absent":
            _remove(host)
            print(f"{host.name}: removed", flush=True)
    if not docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={fleet.prefix}").strip():
        docker("network", "rm", fleet.prefix, check=False)


def reboot(host: Host) -> None:
    """Reboots a host from inside and waits until it is back."""
    if state(host) != "running":
        raise SimhostError(f"{host.name} is not running: start it with `simhost up`.")
    started = docker("container", "inspect", "--format", "{{.State.StartedAt}}", host.container)
    docker("exec", host.container, "systemctl", "reboot", check=False)
    deadline = time.monotonic() + READY_SECONDS
    while docker("container", "inspect", "--format", "{{.State.StartedAt}}", host.container) == started:
        if time.monotonic() > deadline:
            raise SimhostError(f"{host.name} did not go down for its reboot within {READY_SECONDS} s.")
        time.sleep(0.2)
    wait_ready(host)


def switch(host: Host, profile: str) -> None:
    """Gives a running host another profile: its driver packages, its module, its GPUs. Nothing else of it changes."""
    _on_host(host, "simgpu_switch.py", profile)


def reset(host: Host) -> None:
    """Makes a host bare again: no driver packages, nothing of the product, the profile of the fleet file."""
    _on_host(host, "simgpu_reset.py", host.profile_text() or "")


def _on_host(host: Host, program: str, profile: str) -> None:
    """Runs a program of the host on a profile."""
    if not host.profile:
        raise SimhostError(f"{host.name} has no profile in its fleet file, so nothing on it simulates.")
    if state(host) != "running":
        raise SimhostError(f"{host.name} is not running: start it with `simhost up`.")
    refuse_packages(host, profile)
    docker("exec", "--interactive", host.container, "python3", f"/usr/lib/simgpu/{program}", text=profile, timeout=READY_SECONDS)
