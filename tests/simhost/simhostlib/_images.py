# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images without a registry: debootstrap, then Dockerfiles on top. Every tag is a digest of what went in."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from simhostlib import _assets
from simhostlib._common import HERE, SimhostError, cache, digest, ensure_tool, locked, run, say
from simhostlib._engine import docker

REPOSITORY = "difyops-simhost"
PYTHON_IMAGE = "difyops-demo/python:3.11-bookworm"
CUDA_IMAGE = "difyops-demo/simulated-cuda-base:1"
PYTHON_PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
CUDA_DOCKERFILE = f"""\
FROM {REPOSITORY}/python
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-numpy libopenblas0-pthread \\
 && apt-get clean && rm -rf /var/lib/apt/lists/*
LABEL org.difyops.simulated=true
"""
# Without an engine: Debian 12's cannot do CDI, and its hosts are for Debian's own NVIDIA packages.
BARE_PACKAGES = "systemd systemd-sysv dbus python3 python3-apt openssh-server ca-certificates curl iproute2 kmod pciutils procps"
DOCKER_PACKAGES = "docker.io docker-cli docker-compose docker-buildx containerd runc"
ENGINE_PACKAGES = "python3-docker docker.io docker-cli docker-compose docker-buildx docker-registry iptables"
# dnf for hosts that look like Enterprise Linux; the rest builds the stub repositories.
RPM_PACKAGES = "dnf python3-dnf dnf-plugins-core python3-systemd rpm createrepo-c gnupg"
# Changed by hand when the way of building changes and not only its inputs.
RECIPE = "2"


def image_id(name: str) -> str | None:
    """The id of a local image, None when there is none of that name."""
    return docker("image", "inspect", "--format", "{{.Id}}", name, check=False).strip() or None


@functools.lru_cache(maxsize=1)
def private_certificates() -> tuple[str, ...]:
    """Certificates of this machine's bundle that did not come with its distribution: a company's or a proxy's own."""
    if not BUNDLE.is_file():
        return ()
    public: set[str] = set()
    for file in Path("/usr/share/ca-certificates").rglob("*.crt"):
        public.update("".join(pem.split()) for pem in PEM.findall(file.read_text(errors="replace")))
    return tuple(pem for pem in PEM.findall(BUNDLE.read_text(errors="replace")) if "".join(pem.split()) not in public)


def _mirror() -> str | None:
    """The Debian mirror that this machine uses itself; None leaves it to debootstrap's default."""
    if os.environ.get("SIMHOST_MIRROR"):
        return os.environ["SIMHOST_MIRROR"]
    if "\nID=debian\n" not in "\n" + Path("/etc/os-release").read_text(encoding="utf-8"):
        return None
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("debian*")]
    for file in files:
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                found = re.match(r"(?:deb (?:\[[^]]*\] )?|URIs:\s*)(\w+://\S+)", line)
                if found and found[1].rstrip("/").endswith("/debian"):
                    return found[1]
    return None


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder for one build. What an interrupted build left is cleared first (the caller holds the build lock)."""
    base = cache() / "work"
    _clear(base)
    base.mkdir()
    try:
        yield Path(tempfile.mkdtemp(dir=base))
    finally:
        _clear(base)


def _clear(folder: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for mount in reversed([m for m in mounts if m.startswith(f"{folder}/")]):
        run(["umount", "--lazy", mount])
    shutil.rmtree(folder, ignore_errors=True)


def _debootstrap(suite: str, packages: str, certificates: tuple[str, ...], name: str) -> None:
    if os.geteuid():
        raise SimhostError("debootstrap needs root: run this as root.")
    ensure_tool("debootstrap")
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").is_file():
        raise SimhostError("debootstrap needs Debian's keys in /usr/share/keyrings: install debian-archive-keyring.")
    say(f"building {name}: debootstrap {suite} (about a minute)")
    with _work_folder() as work:
        root = work / "root"
        mirror = _mirror()
        # In a mount namespace of its own, so that an interrupted run leaves no /proc mounted in the folder.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root)]
        run(command + ([mirror] if mirror else []))
        for number, certificate in enumerate(certificates):
            target = root / f"usr/local/share/ca-certificates/simhost-{number}.crt"
            target.write_text(certificate + "\n", encoding="ascii")
        if certificates:
            run(["chroot", str(root), "update-ca-certificates"])
        settings = _assets.pip_settings()
        if settings:
            (root / "etc/pip.conf").write_text(settings, encoding="utf-8")
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        for deb in (root / "var/cache/apt/archives").glob("*.deb"):
            deb.unlink()
        _import(root, name)


def _import(root: Path, name: str) -> None:
    tar = subprocess.Popen(["tar", "-C", str(root), "--numeric-owner", "-c", "."], stdout=subprocess.PIPE)
    done = subprocess.run(["docker", "import", "-", name], check=False, stdin=tar.stdout, capture_output=True, text=True)
    if tar.wait() or done.returncode:
        raise SimhostError(f"the image {name} could not be imported: {done.stderr.strip()}")


def _base(kind: str, suite: str, packages: str) -> str:
    """The debootstrapped image of a suite; built when its inputs changed."""
    certificates = private_certificates()
    tag = digest([RECIPE, suite, packages, *certificates, _assets.pip_settings()])
    name = f"{REPOSITORY}/{kind}:{tag}"
    if not image_id(name):
        _debootstrap(suite, packages, certificates, name)
    return name


def docker_build(context: Path, name: str, arguments: dict[str, str]) -> None:
    command = ["build", "--network", "host", "--tag", name]
    for key in ("http_proxy", "https_proxy", "no_proxy"):
        if os.environ.get(key):
            command += ["--build-arg", key]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    # The classic builder: Debian 12 has no buildx, and nothing here needs it.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *command, str(context)], check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SimhostError(f"the image {name} could not be built:\n{tail}")


class Kind(NamedTuple):
    """An image of hosts: the suite it is made of, its packages, and what it has beyond those."""

    suite: str
    packages: str
    extra: str = ""


HOST_KINDS = {
    "host": Kind("trixie", f"{BARE_PACKAGES} {ENGINE_PACKAGES}"),
    "host-rpm": Kind("trixie", f"{BARE_PACKAGES} {ENGINE_PACKAGES}", RPM_PACKAGES),
    "host-bookworm": Kind("bookworm", BARE_PACKAGES),
}


def host_image(kind_name: str = "host") -> str:
    """An image of hosts, by its kind."""
    kind = HOST_KINDS[kind_name]
    python = _base("python", "bookworm", PYTHON_PACKAGES)
    base = python if kind.suite == "bookworm" else _base("debian13", kind.suite, "ca-certificates")
    wheel = _assets.pynvml_wheel()
    inputs = [RECIPE, base, python, *kind, HERE / "host-image", HERE / "simgpu", wheel.name]
    name = f"{REPOSITORY}/{kind_name}:{digest(inputs)}"
    if image_id(name):
        return name
    say(f"building {name} (systemd on {kind.suite}{', a Docker engine' if ENGINE_PACKAGES in kind.packages else ''})")
    with _work_folder() as context:
        shutil.copytree(HERE / "host-image", context, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(HERE / "simgpu", context / "simgpu")
        shutil.unpack_archive(str(wheel), context / "pynvml", "zip")
        docker_build(context, name, {"BASE": base, "BUILD": python, "PACKAGES": kind.packages, "EXTRA": kind.extra})
    forget_former(kind_name, name)
    return name


def python_image() -> str:
    """Debian 12 with Python 3.11: what the cpu image is built on."""
    source = _base("python", "bookworm", PYTHON_PACKAGES)
    if image_id(PYTHON_IMAGE) != image_id(source):
        docker("tag", source, PYTHON_IMAGE)
    return PYTHON_IMAGE


def cuda_image() -> str:
    """The base of the stand-in images: Python and numpy; the GPU part comes from the host by CDI."""
    python = _base("python", "bookworm", PYTHON_PACKAGES)
    dockerfile = CUDA_DOCKERFILE.replace(f"{REPOSITORY}/python", python)
    name = f"{REPOSITORY}/cuda-base:{digest([RECIPE, dockerfile])}"
    if not image_id(name):
        say(f"building {name}")
        with _work_folder() as context:
            (context / "Dockerfile").write_text(dockerfile, encoding="ascii")
            docker_build(context, name, {})
    if image_id(CUDA_IMAGE) != image_id(name):
        docker("tag", name, CUDA_IMAGE)
    return CUDA_IMAGE


BUILDERS = {"python": python_image, "cuda": cuda_image}


def build(host_kinds: list[str], kinds: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Builds what is missing: images of hosts, and those of `kinds`. Returns their names by kind."""
    with locked("build"):
        return {kind: host_image(kind) for kind in host_kinds}, {kind: BUILDERS[kind]() for kind in kinds}


def forget_former(kind: str, current: str) -> None:
    """Removes images that an edit has replaced; those that a container still uses stay."""
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{REPOSITORY}/{kind}").split()
    for name in names:
        if name != current:
            docker("image", "rm", name, check=False)


def saved(name: str) -> Path:
    """The image as a tar in the cache, for loading into the engines of hosts; tars of former images are removed."""
    identity = (image_id(name) or "").partition(":")[2][:16]
    folder = cache() / "images"
    folder.mkdir(exist_ok=True)
    stem = re.sub(r"[^a-z0-9.]+", "-", name)
    target = folder / f"{stem}-{identity}.tar"
    if not target.exists():
        with locked("save"):
            if not target.exists():
                for old in folder.glob(f"{stem}-*"):
                    old.unlink()
                docker("save", "--output", f"{target}.part", name)
                os.replace(f"{target}.part", target)
    return target
