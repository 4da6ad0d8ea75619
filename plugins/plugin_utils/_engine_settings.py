# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants of the container engine: the option ``engine`` of gpu_plan, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _engine
from ansible_collections.difyops.gpu.plugins.plugin_utils import _toolkit
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._sub_options import Given, Repository

AUTO, TRUE, FALSE = "auto", "true", "false"
PRESENT, UNMANAGED = "present", "unmanaged"
DISTRIBUTION, DOCKER = "distribution", "docker"
REFUSE, REPLACE = "refuse", "replace"
NEVER, IF_IDLE, IF_NEEDED = "never", "if_idle", "if_needed"

# The choices of each setting that has some.
CHOICES: dict[str, tuple[str, ...]] = {
    "state": (PRESENT, UNMANAGED),
    "source": (AUTO, DISTRIBUTION, DOCKER),
    "cdi": (AUTO, TRUE, FALSE),
    "live_restore": (TRUE, FALSE),
    "invalid_daemon_config": (REFUSE, REPLACE),
    "restart": (NEVER, IF_IDLE, IF_NEEDED),
}
_FLAGS = ("hold",)
_LISTS = ("packages",)
NAMES = (*CHOICES, *_FLAGS, *_LISTS, "version", "compose_min", "repository", "daemon_config")


@dataclass(frozen=True)
class Settings:
    """What is wanted of the engine.

    `version` is a version or what it begins with, None where none is named. `live_restore` is None where the engine's own setting stays.
    `daemon_config` is merged into the engine's configuration file. All other texts are of CHOICES.
    """

    state: str = PRESENT
    source: str = AUTO
    version: str | None = None
    repository: Repository = field(default_factory=Repository)
    packages: tuple[str, ...] = ()
    compose_min: str = _toolkit.COMPOSE_FLOOR
    hold: bool = False
    cdi: str = AUTO
    live_restore: bool | None = None
    daemon_config: Mapping[str, Any] = field(default_factory=dict)
    invalid_daemon_config: str = REFUSE
    restart: str = IF_IDLE


def option_of(name: str) -> str:
    """Return a setting as every sentence names it: with the variable by which the role's users know it."""
    return option(f"engine.{name}")


def parse(given: object) -> Settings:
    """Return the settings of the option ``engine``: a dictionary, or None for the defaults. Raises WishError with one sentence."""
    options = Given("engine", given, NAMES)
    found = {**options.choices(CHOICES), **options.flags(_FLAGS), **options.lists(_LISTS)}
    options.packages(found.get("packages", ()))
    live_restore = found.pop("live_restore", None)
    return Settings(
        version=options.version("version", r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", "a version of Docker such as '28.5.2', or its beginning"),
        repository=options.repository(),
        compose_min=options.version("compose_min", r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}", "a version of Docker Compose such as '2.35.0'")
        or _toolkit.COMPOSE_FLOOR,
        live_restore=None if live_restore is None else live_restore == TRUE,
        daemon_config=_daemon_config(options.get("daemon_config")),
        **found,
    )


def _daemon_config(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    name = option_of("daemon_config")
    if not isinstance(value, Mapping):
        # What is there is not shown, since it may have a secret.
        raise WishError(f"{name} must be a dictionary of keys of Docker's daemon.json.")
    for key, instead in (("live-restore", "live_restore"), ("features", "cdi")):
        inner = value.get(key)
        if key == "live-restore" and key in value:
            raise WishError(f"{name} must not set {key}, which is {option_of(instead)}.")
        if key == "features" and isinstance(inner, Mapping) and "cdi" in inner:
            raise WishError(f"{name} must not set features.cdi, which is {option_of(instead)}.")
    if not all(isinstance(key, str) and key for key in value):
        raise WishError(f"{name} must have texts as keys, as daemon.json has.")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise WishError(f"{name} has something that no JSON file can have.") from None
    secret = _secret(plain)
    if secret is not None:
        # It would stand in the plan, and of what facts mask nobody can tell whether it is the same.
        raise WishError(
            f"{name} must hold no secrets, and {'.'.join(secret)} looks like one: set a proxy with a password in a drop-in of "
            "docker.service that only root reads, and credentials of registries by docker login."
        )
    return plain


def _secret(value: Any, path: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """Return the path to the first value that facts would mask, None where there is none."""
    if isinstance(value, Mapping):
        found = (_secret(item, (*path, key)) for key, item in value.items())
        return next((one for one in found if one is not None), None)
    if isinstance(value, list):
        return next((path for item in value if _secret(item, path) is not None), None)
    hidden: Any = value
    for key in reversed(path):
        hidden = {key: hidden}
    hidden = _engine.mask(hidden)
    for key in path:
        hidden = hidden[key]
    # What has the mask in it was copied out of facts.
    return path if hidden != value or (isinstance(value, str) and _engine.MASK in value) else None
