# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator decides about the upstream release: the options of dify_plan, checked, one sentence for each mistake."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.parse import urlsplit

from ansible_collections.difyops.gpu.plugins.plugin_utils import _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError

DEPLOYED, EXTERNAL, ABSENT = "deployed", "external", "absent"
STATES = (DEPLOYED, EXTERNAL, ABSENT)
RESTORE, KEEP = "restore", "keep"

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REGISTRY = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SIZE = re.compile(r"([0-9]+)\s*([bkmgBKMG]?)(?:i?[bB])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_UNITS_KIB = {"k": 1.0, "m": 1024.0, "g": 1024.0 * 1024.0}


@dataclass(frozen=True)
class Resources:
    """Limits of one service: how many CPUs, how much memory as compose writes it. None: no limit."""

    cpus: str | None = None
    memory: str | None = None

    @property
    def memory_mib(self) -> int:
        """The limit in MiB, 0 where there is none."""
        return _mib(self.memory) or 0 if self.memory else 0


@dataclass(frozen=True)
class Server:
    """The model server that Dify is to use. `network` is that of its compose project, where that is on this host."""

    endpoint_url: str
    network: str | None
    embedding_model: str | None
    rerank_model: str | None
    register: bool = True
    key_known: bool = True


@dataclass(frozen=True)
class Settings:
    """The checked options. `url_trouble` is a sentence where the site's URL cannot be used, which blocks the plan and fails no task."""

    state: str = DEPLOYED
    version: str = ""
    archive: str = ""
    archive_sha256: str | None = None
    home: str = "/opt/dify"
    project: str = "dify"
    url: str = ""
    url_trouble: str | None = None
    bind_address: str = "0.0.0.0"  # noqa: S104  a site is there to be visited
    http_port: int = 80
    https_port: int = 443
    tls: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    registry: str = ""
    pins: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Resources] = field(default_factory=dict)
    log_max_size: str = "10m"
    log_max_file: int = 5
    backup_dir: str = "/var/backups/dify"
    backup_keep: int = 3
    allow_downgrade: bool = False
    remove_data: bool = False
    rollback: str = ""
    server: Server | None = None

    @property
    def directory(self) -> str:
        """Folder of the release on the host, in which compose works."""
        return f"{self.home}/releases/{self.version}/docker"

    @property
    def override(self) -> str:
        """Path of the override file on the host."""
        return f"{self.directory}/docker-compose.override.yaml"

    @property
    def env_file(self) -> str:
        """Path of the file of variables on the host."""
        return f"{self.directory}/.env"


def option(name: str) -> str:
    """Return an option of dify_plan as every sentence names it: by the variable of the role."""
    return f"{name} (dify_{name})"


def settings(options: Mapping[str, Any]) -> Settings:
    """Return the operator's decisions. Raises WishError with one sentence when an option cannot be used."""
    state = options["state"]
    version = options["version"]
    if state == DEPLOYED and not _versions.is_dotted(version, "{1,3}"):
        raise WishError(f"{option('version')} must be a release of Dify such as 1.17.1, quoted in YAML; found {version!r}.")
    tls = bool(options["tls_certificate"] or options["tls_key"])
    if tls and not (options["tls_certificate"] and options["tls_key"]):
        raise WishError(f"{option('tls_certificate')} and {option('tls_key')} belong together; one of them is empty.")
    if tls and options["behind_proxy"]:
        raise WishError(f"{option('behind_proxy')} is true, so TLS is the proxy's own; leave {option('tls_certificate')} empty.")
    url, trouble = _url(options["url"], tls, options["behind_proxy"])
    http_port, https_port = _port("http_port", options["http_port"]), _port("https_port", options["https_port"])
    if tls and http_port == https_port:
        raise WishError(f"{option('http_port')} and {option('https_port')} are both {http_port}; they have to differ.")
    return Settings(
        state=state,
        version=version,
        archive=options["archive_file"],
        archive_sha256=_sha256(options["archive_checksum"]),
        home=_directory("home", options["home"]),
        project=_matching("project", options["project"], _PROJECT, "of lower case letters, digits, dashes and underscores"),
        url=url,
        url_trouble=trouble if state == DEPLOYED else None,
        bind_address=_address(options["bind_address"]),
        http_port=http_port,
        https_port=https_port,
        tls=tls,
        env=_env(options["env"]),
        registry=_registry(options["registry"]),
        pins=_pins(options["image_pins"]),
        resources=_resources(options["resources"]),
        log_max_size=_size("log_max_size", options["log_max_size"]),
        log_max_file=_number("log_max_file", options["log_max_file"]),
        backup_dir=_directory("backup_dir", options["backup_dir"]),
        backup_keep=_number("backup_keep", options["backup_keep"]),
        allow_downgrade=options["allow_downgrade"],
        remove_data=options["remove_data"],
        rollback=_rollback(options["rollback"]),
        server=_server(options),
    )


def _url(value: str, tls: bool, behind_proxy: bool) -> tuple[str, str | None]:
    text = value.strip().rstrip("/")
    name = option("url")
    if not text:
        return "", f"{name} is empty; it has to be the address at which people open Dify, such as https://dify.example.org."
    try:
        parts = urlsplit(text)
        host, _port_number = parts.hostname, parts.port
    except ValueError:
        return "", f"{name} is no address; found {value!r}."
    if parts.scheme not in ("http", "https") or not host or _CONTROL.search(text) or re.search(r"\s|\$|'|\"|\\", text):
        return "", f"{name} must begin with http:// or https:// and name a host; found {value!r}."
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        # What is there is not shown, since it may have a password.
        return "", f"{name} must be a scheme and a host, without user, path, question mark and hash."
    if parts.scheme == "https" and not tls and not behind_proxy:
        certificate, proxy = option("tls_certificate"), option("behind_proxy")
        told = f"{name} begins with https://, and nothing here has a certificate"
        return "", f"{told}; set {certificate} and {option('tls_key')}, or {proxy}."
    return text, None


def _directory(name: str, path: str) -> str:
    normal = posixpath.normpath(path) if path else ""
    if not re.fullmatch(r"/[^\x00-\x1f:$]+", normal) or normal.startswith("//") or normal != (path.rstrip("/") or "/"):
        raise WishError(f"{option(name)} must be an absolute directory on the host, without '..', colon and dollar sign; found {path!r}.")
    return normal


def _matching(name: str, value: str, pattern: re.Pattern[str], expected: str) -> str:
    if pattern.fullmatch(value) is None:
        raise WishError(f"{option(name)} must be {expected}; found {value!r}.")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise WishError(f"{option('bind_address')} must be an IP address of the host, such as 0.0.0.0; found {value!r}.") from None


def _port(name: str, value: int) -> int:
    if not 1 <= value <= 65535:
        raise WishError(f"{option(name)} must be between 1 and 65535; found {value}.")
    return value


def _number(name: str, value: int) -> int:
    if not 1 <= value <= 1000:
        raise WishError(f"{option(name)} must be between 1 and 1000; found {value}.")
    return value


def _sha256(value: str) -> str | None:
    if not value:
        return None
    match = _SHA256.fullmatch(value.strip())
    if match is None:
        raise WishError(f"{option('archive_checksum')} must be sha256: and 64 hexadecimal digits; found {value!r}.")
    return match.group(1).lower()


def _env(value: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key, item in value.items():
        if not isinstance(key, str) or _KEY.fullmatch(key) is None:
            raise WishError(f"{option('env')} has {key!r}, which is no name of a variable (letters, digits and underscores).")
        if isinstance(item, bool):
            found[key] = "true" if item else "false"
        elif isinstance(item, (str, int, float)) and not _CONTROL.search(str(item)):
            found[key] = str(item)
        else:
            raise WishError(f"{option('env')}: the value of {key} must be one line of text, a number or a boolean.")
    return found


def _registry(value: str) -> str:
    text = value.strip().rstrip("/")
    if text and _REGISTRY.fullmatch(text) is None:
        raise WishError(f"{option('registry')} must be a registry without a scheme, such as registry.example.org/mirror; found {value!r}.")
    return text


def _pins(value: Mapping[str, Any]) -> dict[str, str]:
    for reference, pin in value.items():
        if not isinstance(pin, str) or not (_DIGEST.fullmatch(pin) or _REFERENCE.fullmatch(pin)):
            expected = "a digest (sha256: and 64 hexadecimal digits) or another reference"
            raise WishError(f"{option('image_pins')}: {reference} must have {expected}; found {pin!r}.")
    return {str(reference): str(pin) for reference, pin in value.items()}


def _resources(value: Mapping[str, Any]) -> dict[str, Resources]:
    found = {}
    for service, limits in value.items():
        if not isinstance(limits, Mapping) or set(limits) - {"cpus", "memory"}:
            raise WishError(f"{option('resources')}: {service} must be a dictionary with cpus, memory or both; found {limits!r}.")
        cpus, memory = limits.get("cpus"), limits.get("memory")
        if cpus is not None and not (re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", str(cpus)) and float(str(cpus)) > 0):
            raise WishError(f"{option('resources')}: cpus of {service} must be a number above 0; found {cpus!r}.")
        text = None if memory is None else str(memory)
        if text is not None and not _mib(text):
            raise WishError(f"{option('resources')}: memory of {service} must be a size of 1 MiB or more such as 2g; found {memory!r}.")
        found[str(service)] = Resources(None if cpus is None else str(cpus), text)
    return found


def _size(name: str, value: str) -> str:
    if _SIZE.fullmatch(value) is None:
        raise WishError(f"{option(name)} must be a size such as 10m; found {value!r}.")
    return value


def _mib(text: str) -> int | None:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    return int(int(match.group(1)) * _UNITS_KIB.get(match.group(2).lower(), 1 / 1024) / 1024)


def _rollback(value: str) -> str:
    if value and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) is None:
        raise WishError(f"rollback must be the name of a backup, such as 20261123T010203Z-1.16.1; found {value!r}.")
    return value


def _server(options: Mapping[str, Any]) -> Server | None:
    given: Mapping[str, Any] = options["model_server"]
    text: Callable[[str], str] = lambda name: str(given.get(name) or "")  # noqa: E731
    local = bool(given.get("local"))
    url = str(options["model_endpoint_url"]).rstrip("/")
    if not url and not local:
        return None
    if url and re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", url) is None:
        raise WishError(f"{option('model_endpoint_url')} must begin with http:// or https:// and name a host, without user; found {url!r}.")
    return Server(
        endpoint_url=url or f"http://{text('service_name') or 'dify-gpu'}:8000/v1",
        network=f"{text('project') or 'dify-gpu'}_default" if local else None,
        embedding_model=text("embedding_model") or None,
        rerank_model=text("rerank_model") or None,
        register=bool(options["model_register"]),
        key_known=local or bool(given.get("key_known")),
    )
