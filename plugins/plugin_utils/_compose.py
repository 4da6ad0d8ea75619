# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compose project of the image service: one pure function from settings to the text of compose.yaml.

The same input gives the same bytes, so that the text itself is the wanted state that is compared with the file on the host.
"""

from __future__ import annotations

import functools
import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

CONFIG_LABEL = "org.difyops.config"
MODE_LABEL = "org.difyops.mode"
RESTART_POLICY = "unless-stopped"
MODELS_MOUNT = "/models"
MODEL_VARIABLES = ("EMBEDDING_MODEL", "RERANK_MODEL")
# The image's user may write here only: downloaded models and compiled kernels. A named volume, so that they outlive the container.
DATA_MOUNT = "/data"
DATA_VOLUME = "data"
FILE_MODE = "0644"

_HEADER = "# Managed by difyops.gpu: changes made here are seen as drift and undone by the next run.\n"


class _Dumper(yaml.SafeDumper):
    """Quotes every text that could be read as a number: compose reads YAML 1.2, where 1e-5 and 0o17 are numbers and PyYAML sees texts."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if text[:1] in "0123456789+-." else None)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class Service:
    """What an operator decides about the service."""

    home: str = "/opt/dify-gpu"
    project: str = "dify-gpu"
    name: str = "dify-gpu"
    bind_address: str = "127.0.0.1"
    port: int = 8000
    models_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    # Seconds that the server may take to start.
    health_timeout: int = 300

    @property
    def model_folders(self) -> dict[str, str]:
        """Folders on the host from which models are read, each with the environment variable that names it in the container."""
        if self.models_dir is None:
            return {}
        found = {}
        for variable in MODEL_VARIABLES:
            path = posixpath.normpath(self.environment.get(variable) or ".")
            if path == MODELS_MOUNT or path.startswith(f"{MODELS_MOUNT}/"):
                found[posixpath.normpath(f"{self.models_dir}/{path[len(MODELS_MOUNT) :]}")] = variable
        return found

    @property
    def compose_file(self) -> str:
        """Path of the project file on the host."""
        return f"{self.home}/compose.yaml"

    @property
    def secrets_dir(self) -> str:
        """Path of the directory of the secrets on the host."""
        return f"{self.home}/secrets"

    @property
    def key_file(self) -> str:
        """Path of the file with the API key on the host. It is never rendered here."""
        return f"{self.secrets_dir}/api_key.env"


@dataclass(frozen=True)
class Image:
    """What the project needs to know about the image: its reference, where its server listens and answers for its health."""

    reference: str
    port: int = 8000
    health: str | None = "/health"


def render(service: Service, image: Image, labels: Mapping[str, str], devices: Sequence[str], by_runtime: bool = False) -> tuple[str, str]:
    """Return the text of compose.yaml and the value of its config label. `devices` are CDI devices, none on the CPU.

    With `by_runtime` the container gets them from NVIDIA's runtime, which takes the same names from an environment variable.

    The label is a digest of all the rest: a container that does not carry it was made from another text, even where the file on the host
    is right already (a run that was interrupted between writing the file and starting the service).
    """
    definition = _definition(service, image, dict(labels), devices)
    if devices:
        definition.update(_from_runtime(definition, devices) if by_runtime else _by_cdi(devices))
    document: dict[str, Any] = {"name": service.project, "services": {service.name: definition}, "volumes": {DATA_VOLUME: {}}}
    config = hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8")).hexdigest()
    definition["labels"][CONFIG_LABEL] = config
    return _text(json.dumps(document)), config


@functools.lru_cache(maxsize=256)
def _text(document: str) -> str:
    """Return the text of a project that is given as JSON. The projects of a fleet are few, and writing YAML is slow."""
    return _HEADER + _dump(_escape(json.loads(document)))


def _definition(service: Service, image: Image, labels: dict[str, str], devices: Sequence[str]) -> dict[str, Any]:
    address = f"[{service.bind_address}]" if ":" in service.bind_address else service.bind_address
    definition: dict[str, Any] = {
        "image": image.reference,
        # The image is brought by its own role before; a service that fetches another one on its own is not pinned.
        "pull_policy": "never",
        "restart": RESTART_POLICY,
        "env_file": [service.key_file],
        # The server refuses to call itself healthy when it was told that it has a GPU and finds none.
        "environment": dict(sorted({"EXPECT_GPU": "1" if devices else "0", **service.environment}.items())),
        "ports": [f"{address}:{service.port}:{image.port}"],
        "volumes": _volumes(service),
        **_healthcheck(image, service.health_timeout),
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
        "labels": dict(sorted(labels.items())),
    }
    return definition


def _by_cdi(devices: Sequence[str]) -> dict[str, Any]:
    request = {"driver": "cdi", "device_ids": list(devices), "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [request]}}}}


def _from_runtime(definition: Mapping[str, Any], devices: Sequence[str]) -> dict[str, Any]:
    own = {
        "NVIDIA_VISIBLE_DEVICES": ",".join(name.rpartition("=")[2] for name in devices),
        # What computing takes (cuInit, NVML); graphics and video would bring more of the host's libraries.
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }
    return {"environment": dict(sorted({**definition["environment"], **own}.items())), "runtime": "nvidia"}


def _healthcheck(image: Image, start_period_s: int) -> dict[str, Any]:
    if image.health is None:
        return {}
    # urllib would follow a proxy of the container's environment, even to itself.
    probe = (
        f"import urllib.request as r; r.build_opener(r.ProxyHandler({{}})).open('http://127.0.0.1:{image.port}{image.health}', timeout=4)"
    )
    check = {
        "test": ["CMD", "python3", "-c", probe],
        "interval": "10s",
        "timeout": "5s",
        "retries": 4,
        # Loading a model from a slow disk takes minutes; within this time a failed probe does not count.
        "start_period": f"{start_period_s}s",
    }
    return {"healthcheck": check}


def _dump(document: dict[str, Any]) -> str:
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1000, allow_unicode=True))


def _volumes(service: Service) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"type": "volume", "source": DATA_VOLUME, "target": DATA_MOUNT}]
    if service.models_dir:
        # A directory that is not there is a mistake to report, not one to make.
        bind = {"create_host_path": False}
        volumes.append({"type": "bind", "source": service.models_dir, "target": MODELS_MOUNT, "read_only": True, "bind": bind})
    return volumes


def _escape(value: Any) -> Any:
    """Double every dollar sign in texts, since compose would put a variable of its own environment in its place."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return value
