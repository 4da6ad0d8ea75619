# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry with stand-ins for the images of an upstream release: one image is built, and has many names."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

from simhostlib import _images
from simhostlib._common import HERE, SimhostError, cache, digest, locked, say
from simhostlib._repository import forget_former

sys.path.insert(0, str(HERE / "release"))

from upstream_release import image_names

KIND = "dify"
SOURCE = HERE / "dify-standin"
ON_HOST = "/srv/dify-registry"
PORT, LOGIN_PORT = 5000, 5001
PREFIX = "mirror"
# For the registry that wants a login. The password is public on purpose, and its digest was made once.
LOGIN = ("difyops", "for-tests-only", "$2b$05$abcdefghijklmnopqrstuuZs.YZeLtYrzeLC44.kR5arqMlYS5RsS")
SAYS = "STAND-IN for tests: no part of Dify is in it"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
PROGRAM = ["python3", "-m", "dify_standin"]
# What is started, by the name of an image in upstream's words: what differs from the one image that is built.
KINDS: dict[str, dict[str, Any]] = {
    "langgenius/dify-api": {"Entrypoint": [*PROGRAM, "api"], "User": "1001:1001", "WorkingDir": "/app/api"},
    "langgenius/dify-web": {"Entrypoint": [*PROGRAM, "web"], "User": "1001:1001"},
    "langgenius/dify-plugin-daemon": {"Entrypoint": [*PROGRAM, "plugin_daemon"]},
    "langgenius/dify-sandbox": {"Entrypoint": [*PROGRAM, "sandbox"]},
    "langgenius/dify-agent-backend": {"Entrypoint": [*PROGRAM, "agent_backend"], "User": "1001:1001"},
    "langgenius/dify-agent-local-sandbox": {"Entrypoint": [*PROGRAM, "local_sandbox"], "User": "1001:1001"},
    "semitechnologies/weaviate": {"Entrypoint": [*PROGRAM, "weaviate"]},
    "ubuntu/squid": {"Entrypoint": ["squid"]},
    "postgres": {"Entrypoint": ["postgres-entrypoint"], "Cmd": ["postgres"], "StopSignal": "SIGINT"},
    "redis": {"Entrypoint": ["redis-entrypoint"], "Cmd": ["redis-server"], "WorkingDir": "/data"},
    "nginx": {"Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"},
    # Its programs come first, before Debian's own of the same names.
    "busybox": {"Cmd": ["sh"], "Path": "/usr/lib/busybox"},
}
REGISTRY = f"""\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {ON_HOST}}}
  maintenance: {{readonly: {{enabled: true}}}}
http: {{addr: "127.0.0.1:@PORT@"}}
"""
AUTH = "auth: {htpasswd: {realm: simhost, path: /etc/dify-registry/htpasswd}}\n"
UNIT = """\
[Unit]
Description=Registry of stand-ins for Dify's images (@NAME@)
After=network.target

[Service]
ExecStart=/usr/bin/docker-registry serve /etc/dify-registry/@NAME@.yml
Restart=on-failure
StandardOutput=null

[Install]
WantedBy=multi-user.target
"""


def base_image() -> str:
    """The one image that has all programs."""
    python = _images.python_image()
    name = f"{_images.REPOSITORY}/dify-standin:{digest([_images.RECIPE, python, _images.image_id(python) or '', SOURCE])}"
    if not _images.image_id(name):
        say(f"building {name} (PostgreSQL, Redis, nginx, and stand-ins for Dify's programs)")
        _images.docker_build(SOURCE, name, {"BASE": python})
        _images.forget_former("dify-standin", name)
    return name


def ensure() -> Path:
    """The folder of the registry, filled when its inputs changed."""
    with locked("build"):
        base = base_image()
    with locked("dify-registry"):
        folder = cache() / "dify-registry"
        names = image_names()
        target = folder / digest([base, _images.image_id(base) or "", json.dumps(KINDS), *names, Path(__file__)])
        if not target.is_dir():
            say("filling the registry of stand-ins")
            part = folder / "part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            saved = part / "saved.tar"
            _images.docker("save", "--output", str(saved), base)
            fill(part, saved, names)
            saved.unlink()
            os.replace(part, target)
            forget_former(folder, target)
        return target


def _blob(root: Path, data: bytes) -> dict[str, Any]:
    """Puts a blob where the registry looks for it. Returns size and digest."""
    name = hashlib.sha256(data).hexdigest()
    file = root / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return {"size": len(data), "digest": f"sha256:{name}"}


def _link(folder: Path, what: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link").write_text(what, encoding="ascii")


def config_of(base: dict[str, Any], repository: str, tag: str) -> dict[str, Any]:
    """The configuration of one image: the base's, with what its name stands for."""
    if repository not in KINDS:
        raise SimhostError(f"no stand-in is known for the image {repository}; add one to simhostlib/_dify.py.")
    found = copy.deepcopy(base)
    kind = dict(KINDS[repository])
    first = kind.pop("Path", "")
    environment = [f"PATH={first}:{entry[5:]}" if first and entry.startswith("PATH=") else entry for entry in found["config"]["Env"]]
    version = tag.partition("-")[0]
    labels = {**(found["config"].get("Labels") or {}), "org.opencontainers.image.title": f"STAND-IN for {repository}:{tag}"}
    labels |= {"org.opencontainers.image.description": SAYS, "org.difyops.simulated": "true", "org.opencontainers.image.version": version}
    found["config"] |= {"Entrypoint": None, "Cmd": None, **kind, "Env": [*environment, f"STANDIN_VERSION={version}"], "Labels": labels}
    found.pop("container_config", None)
    found.pop("container", None)
    return found


def fill(root: Path, saved: Path, names: list[str]) -> None:
    """Writes what `docker push` of all the names would have left in a registry's folder."""
    with tarfile.open(saved) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            if file is None:
                raise SimhostError(f"{saved} has no file {name}: is this what `docker save` writes?")
            return file.read()

        (manifest,) = json.loads(read("manifest.json"))
        base = json.loads(read(manifest["Config"]))
        layers = [{"mediaType": LAYER, **_blob(root, gzip.compress(read(layer), 1, mtime=0))} for layer in manifest["Layers"]]
    for name in names:
        repository, _colon, tag = name.partition(":")
        config = {"mediaType": CONFIG, **_blob(root, json.dumps(config_of(base, repository, tag)).encode())}
        text = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()
        made = _blob(root, text)["digest"]
        folder = root / "docker/registry/v2/repositories" / PREFIX / repository
        for part in (config, *layers):
            _link(folder / "_layers/sha256" / part["digest"].partition(":")[2], part["digest"])
        short = made.partition(":")[2]
        for place in (f"revisions/sha256/{short}", f"tags/{tag}/current", f"tags/{tag}/index/sha256/{short}"):
            _link(folder / "_manifests" / place, made)


def host_files() -> dict[str, tuple[bytes, int]]:
    """What a host gets: two registries of the same images, one of which wants a login."""
    user, _password, encrypted = LOGIN
    found = {"etc/dify-registry/htpasswd": (f"{user}:{encrypted}\n".encode(), 0o644)}
    for name, port, more in (("open", PORT, ""), ("login", LOGIN_PORT, AUTH)):
        found[f"etc/dify-registry/{name}.yml"] = ((REGISTRY.replace("@PORT@", str(port)) + more).encode(), 0o644)
        found[f"etc/systemd/system/dify-registry-{name}.service"] = (UNIT.replace("@NAME@", name).encode(), 0o644)
    return found


def prepare() -> list[str]:
    """Commands for a new host."""
    return ["systemctl daemon-reload", "systemctl --quiet enable --now dify-registry-open.service dify-registry-login.service"]
