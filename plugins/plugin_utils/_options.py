# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the options of gpu_plan to what the planner takes: every check of what an operator can write, one sentence each."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _devices,
    _driver_settings,
    _engine_settings,
    _recipe,
    _selector,
    _toolkit_settings,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._compose import Service
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import option
from ansible_collections.difyops.gpu.plugins.plugin_utils._planner import WishError, Wishes

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SERVICE = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DAY_S = 24 * 60 * 60
# A user alone may be a token; of the schemes that are no web address only those with a password are refused (ssh://git@host).
_URL_CREDENTIALS = re.compile(r"(?:https?://|[a-z][a-z0-9+.-]*://[^/?#\s@]*:)[^/?#\s]*@", re.IGNORECASE)
# Variables that the plan, the image and the key file agree on, and how their effect is had instead.
_THE_PLANS = {
    "PORT": "the port on the host is {port}, that in an image of your own is the key port of its entry in {catalog}",
    "HOST": "the address on the host is {bind_address}",
    "EXPECT_GPU": "the plan sets it to 1 where the service is to have a GPU",
    "API_KEY": "it would be readable in compose.yaml, and is in a file of mode 0600 instead (dify_gpu_api_key)",
    "API_KEY_FILE": "the key reaches the container by the key file (dify_gpu_api_key)",
}
_SECRET = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)


def wishes(options: Mapping[str, Any], host: str, context: str, today: datetime.date) -> Wishes:
    """Return the operator's decisions. `context` is the build context used when the options name none. Raises WishError."""
    base = options["image_base"]
    if re.fullmatch(r"\S+", base) is None:
        raise WishError(f"{option('image_base')} must be an image reference such as python:3.12-slim-bookworm; found {base!r}.")
    bad_range = _selector.bad_range(options["min_cuda"] or None, options["max_cuda"] or None)
    if bad_range is not None:
        raise WishError(bad_range)
    engine, toolkit = _engine_settings.parse(options.get("engine")), _toolkit_settings.parse(options.get("toolkit"))
    if engine.cdi == _engine_settings.FALSE and toolkit.injection == _toolkit_settings.CDI:
        cdi, injection = _engine_settings.option_of("cdi"), _toolkit_settings.option_of("injection")
        raise WishError(f"{cdi} is false and {injection} is cdi, which exclude each other; leave one of them at auto.")
    return Wishes(
        host=host,
        variant=options["variant"] or None,
        force=options["force"],
        prefer=options["prefer"],
        cpu_fallback=options["cpu_fallback"],
        forward_compat=options["forward_compatibility"],
        min_cuda=options["min_cuda"] or None,
        max_cuda=options["max_cuda"] or None,
        features=tuple(dict.fromkeys(options["require_features"])),
        gpus=_gpus(options["gpus"]),
        driver=_driver_settings.parse(options["driver"]),
        engine=engine,
        toolkit=toolkit,
        apply=frozenset(options["apply"]),
        fleet=options["fleet"],
        image_base=base,
        image_version=options["image_version"],
        build_host=_build_host(options),
        push=options["image_push"],
        service=service(options),
        # A plan of a fleet asks for it once, not once for each host.
        context_digest=functools.lru_cache(maxsize=1)(lambda: _recipe.context_digest(options["image_context"] or context)),
        today=today,
    )


def _build_host(options: Mapping[str, Any]) -> str | None:
    host: str = options["image_build_host"].strip()
    if not options["image_push"]:
        return host or None
    if not host:
        raise WishError(f"{option('image_push')} needs {option('image_build_host')}, the host that builds and pushes for all.")
    registry, slash, _name = options["image_repository"].partition("/")
    if not slash or not (set(".:") & set(registry) or registry == "localhost"):
        raise WishError(
            f"{option('image_push')} needs a registry in front of {option('image_repository')}, such as registry.example.org/ai/dify-gpu; "
            f"found {options['image_repository']!r}."
        )
    return host


def _gpus(wanted: list[str]) -> tuple[str, ...]:
    for text in wanted:
        if not _devices.is_selector(text):
            raise WishError(
                f"{option('gpus')} must list UUIDs (GPU-... or MIG-...), indexes ('0'), PCI addresses (0000:00:05.0) "
                f"or a GPU's index and a MIG device's ('0:1'); found {text!r}."
            )
    return tuple(dict.fromkeys(wanted))


def gpus_of(selections: Mapping[str, Any] | None) -> dict[str, tuple[str, ...]]:
    """Return which GPUs each host is to use. Raises WishError.

    A name that no GPU can have is the host's own trouble: it is told as one that is not there, and stops no other host.
    """
    found = {}
    for host, wanted in (selections or {}).items():
        if wanted is not None and not isinstance(wanted, (list, str, int)):
            raise WishError(f"gpus_of must have a list of GPUs for each host; found {wanted!r} for {host}.")
        names = wanted if isinstance(wanted, list) else str("" if wanted is None else wanted).split(",")
        found[host] = tuple(dict.fromkeys(str(name).strip() for name in names if str(name).strip()))
    return found


def service(options: Mapping[str, Any]) -> Service:
    """Return the checked settings of the service. Raises WishError."""
    if not 1 <= options["port"] <= 65535:
        raise WishError(f"{option('port')} must be between 1 and 65535; found {options['port']}.")
    if not 1 <= options["health_timeout"] <= _DAY_S:
        found = options["health_timeout"]
        raise WishError(f"{option('health_timeout')} must be a number of seconds between 1 and {_DAY_S}, a day; found {found}.")
    models_dir = options["models_dir"] or None
    return Service(
        home=_directory("home", options["home"]),
        project=_matching("project", options["project"], _PROJECT, "lower case letters, digits, dashes and underscores"),
        name=_matching(
            "service_name",
            options["service_name"],
            _SERVICE,
            "lower case letters, digits and dashes, beginning with a letter, since it is a host name",
        ),
        bind_address=_address(options["bind_address"]),
        port=options["port"],
        models_dir=_directory("models_dir", models_dir) if models_dir else None,
        environment=_environment(options, models_dir),
        health_timeout=options["health_timeout"],
    )


def _directory(name: str, path: str) -> str:
    normal = posixpath.normpath(path)
    if not re.fullmatch(r"/[^\x00-\x1f:]+", normal) or normal.startswith("//") or normal != (path.rstrip("/") or "/"):
        raise WishError(f"{option(name)} must be an absolute directory on the host, without '..' and without a colon; found {path!r}.")
    return normal


def _matching(name: str, value: str, pattern: re.Pattern[str], expected: str) -> str:
    if pattern.fullmatch(value) is None:
        raise WishError(f"{option(name)} must be of {expected}; found {value!r}.")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise WishError(f"{option('bind_address')} must be an IP address of the host, such as 127.0.0.1; found {value!r}.") from None


def _environment(options: Mapping[str, Any], models_dir: str | None) -> dict[str, str]:
    environment: dict[str, str] = {}
    if options["embedding_model"]:
        environment["EMBEDDING_MODEL"] = options["embedding_model"]
    if options["rerank_model"]:
        environment["RERANK_MODEL"] = options["rerank_model"]
    if models_dir:
        environment.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    for name, value in options["environment"].items():
        environment[_variable(name)] = _value(name, value)
    broken = next((name for name, value in environment.items() if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", value)), None)
    if broken:
        raise WishError(f"The environment variable {broken} holds a control character, which compose cannot carry.")
    telling = next((name for name, value in environment.items() if _URL_CREDENTIALS.search(value)), None)
    if telling:
        raise WishError(
            f"The environment variable {telling} holds a URL with credentials, which would be readable in compose.yaml; "
            "a proxy that wants them belongs into the engine's own proxy configuration."
        )
    return environment


def _variable(name: object) -> str:
    if not isinstance(name, str) or _VARIABLE.fullmatch(name) is None:
        expected = "letters, digits and underscores"
        raise WishError(f"{option('environment')} has {name!r}, which is no name of an environment variable ({expected}).")
    if name in _THE_PLANS:
        instead = _THE_PLANS[name].format(**{known: option(known) for known in ("port", "bind_address", "catalog")})
        raise WishError(f"{option('environment')} must not set {name}: {instead}.")
    if _SECRET.search(name):
        raise WishError(
            f"{option('environment')} has {name}, which looks like a secret: it would be readable in compose.yaml; "
            "secrets are for files of mode 0600."
        )
    return name


def _value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise WishError(f"{option('environment')}: the value of {name} must be text, a number or a boolean.")
