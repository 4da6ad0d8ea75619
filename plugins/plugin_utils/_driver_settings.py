# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants of drivers: the option ``driver`` of gpu_plan, checked, with one sentence for each mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.difyops.gpu.plugins.plugin_utils import _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError, option

AUTO, NEVER = "auto", "never"
PRESENT, ABSENT, UNMANAGED = "present", "absent", "unmanaged"
KEEP, INSTALL, UPGRADE = "keep", "install", "upgrade"
LONG_TERM, PRODUCTION = "long_term", "production"
OPEN, PROPRIETARY = "open", "proprietary"
DISTRIBUTION, NVIDIA = "distribution", "nvidia"
PREBUILT, DKMS = "prebuilt", "dkms"
VERSION, BRANCH, NONE = "version", "branch", "none"
REFUSE, REPLACE, WAIT, DRAIN = "refuse", "replace", "wait", "drain"
IF_POSSIBLE, IF_NEEDED = "if_possible", "if_needed"

# The choices of each sub-option that has some, the default first.
CHOICES: dict[str, tuple[str, ...]] = {
    "state": (PRESENT, ABSENT, UNMANAGED),
    "policy": (AUTO, KEEP, INSTALL, UPGRADE),
    "channel": (LONG_TERM, PRODUCTION),
    "flavour": (AUTO, OPEN, PROPRIETARY),
    "source": (AUTO, DISTRIBUTION, NVIDIA),
    "kernel_modules": (AUTO, PREBUILT, DKMS),
    "kernel_headers": (PRESENT, UNMANAGED),
    "pin": (VERSION, BRANCH, NONE),
    "foreign_pins": (REFUSE, REPLACE),
    "fabric_manager": (AUTO, UNMANAGED),
    "busy": (REFUSE, WAIT, DRAIN),
    "reload": (NEVER, IF_POSSIBLE),
    "reboot": (NEVER, IF_NEEDED),
}
_FLAGS = ("persistence",)
_LISTS = ("packages", "drain_containers")
_REPOSITORY = ("url", "suite", "components", "key", "fingerprint")
NAMES = (*CHOICES, "branch", "version", "repository", *_FLAGS, *_LISTS)

_URL = re.compile(r"(?:https?|file)://\S+")
_CREDENTIALS = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*@", re.IGNORECASE)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:~-]*")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Repository:
    """Where packages come from, in place of what the collection knows of the source: a mirror of it. Empty texts: as it is known.

    `key` is a URL, or a file on the controller. `fingerprint` has capital letters and no spaces.
    """

    url: str = ""
    suite: str = ""
    components: str = ""
    key: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class Settings:
    """What is wanted of drivers. `branch` is None for auto, `version` is None where none is named; all other texts are of CHOICES."""

    state: str = PRESENT
    policy: str = AUTO
    branch: int | None = None
    version: str | None = None
    channel: str = LONG_TERM
    flavour: str = AUTO
    source: str = AUTO
    repository: Repository = field(default_factory=Repository)
    packages: tuple[str, ...] = ()
    kernel_modules: str = AUTO
    kernel_headers: str = PRESENT
    pin: str = VERSION
    foreign_pins: str = REFUSE
    persistence: bool = True
    fabric_manager: str = AUTO
    busy: str = REFUSE
    drain_containers: tuple[str, ...] = ()
    reload: str = NEVER
    reboot: str = NEVER

    @property
    def named(self) -> bool:
        """Whether a version or a branch is asked for, so that the driver is what the operator named."""
        return self.version is not None or self.branch is not None

    @property
    def asked(self) -> int | None:
        """The branch that is asked for, by itself or by a version; None where it is to be chosen."""
        return int(self.version.partition(".")[0]) if self.version is not None else self.branch

    @property
    def way(self) -> str:
        """The policy that counts: KEEP, INSTALL or UPGRADE."""
        if self.state == UNMANAGED:
            return KEEP
        if self.policy == AUTO:
            return UPGRADE if self.named else INSTALL
        return self.policy


def option_of(name: str) -> str:
    """Return a sub-option as every sentence names it: with the variable by which the role's users know it."""
    return option(f"driver.{name}")


def parse(given: object) -> Settings:
    """Return the settings of the option ``driver``: a dictionary, or None for the defaults. Raises WishError with one sentence."""
    if given is None:
        return Settings()
    if not isinstance(given, Mapping):
        raise WishError(f"driver must be a dictionary of settings; found {given!r}.")
    unknown = sorted(_shown(name) for name in given if name not in NAMES)
    if unknown:
        raise WishError(f"driver has {', '.join(unknown)}, which is none of its settings: {', '.join(sorted(NAMES))}.")
    # None and an empty text are how a role variable says "as the collection has it".
    options = {str(name): value for name, value in given.items() if value is not None and value != ""}
    found: dict[str, Any] = {name: _choice(name, options[name]) for name in CHOICES if name in options}
    found.update({name: _flag(name, options[name]) for name in _FLAGS if name in options})
    found.update({name: _list(name, options[name]) for name in _LISTS if name in options})
    settings = Settings(
        branch=_branch(options.get("branch", AUTO)),
        version=_version(options.get("version")),
        repository=_repository(options.get("repository")),
        **found,
    )
    _check_together(settings)
    return settings


def _shown(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() else repr(name)


def _check_together(settings: Settings) -> None:
    if settings.version is not None and settings.branch not in (None, settings.asked):
        message = f"{option_of('version')} {settings.version} is not of {option_of('branch')} {settings.branch}; give one of them."
        raise WishError(message)
    wrong = next((name for name in settings.packages if _PACKAGE.fullmatch(name) is None), None)
    if wrong is not None:
        raise WishError(f"{option_of('packages')} must list names of packages, without versions; found {wrong!r}.")
    if settings.busy != DRAIN and settings.drain_containers:
        message = f"{option_of('drain_containers')} names containers that may be stopped, and {option_of('busy')} is {settings.busy}"
        raise WishError(f"{message}; set it to {DRAIN}, or take the names away.")


def _choice(name: str, value: object) -> str:
    if value not in CHOICES[name] or not isinstance(value, str):
        raise WishError(f"{option_of(name)} must be one of {', '.join(CHOICES[name])}; found {value!r}.")
    return value


def _flag(name: str, value: object) -> bool:
    try:
        return bool(boolean(value))
    except TypeError:
        raise WishError(f"{option_of(name)} must be true or false; found {value!r}.") from None


def _list(name: str, value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise WishError(f"{option_of(name)} must be a list of names; found {value!r}.")
    for item in items:
        if not isinstance(item, str) or not item.strip() or _CONTROL.search(item):
            raise WishError(f"{option_of(name)} must be a list of names; found {item!r} in it.")
    return tuple(dict.fromkeys(item.strip() for item in items))


def _branch(value: object) -> int | None:
    if value == AUTO:
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or re.fullmatch(r"[0-9]{3,4}", text) is None:
        raise WishError(f"{option_of('branch')} must be a driver branch such as '580', or auto; found {value!r}.")
    return int(text)


def _version(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, float):
        # 580.10 is 580.1 by now, and nobody can tell.
        raise WishError(f"{option_of('version')} must be quoted in YAML, since it is no number; found {value}.")
    if not isinstance(value, str) or not _versions.is_dotted(value, "{1,2}"):
        raise WishError(f"{option_of('version')} must be a complete driver version such as '580.95.05'; found {value!r}.")
    return value


def _repository(value: object) -> Repository:
    if value is None:
        return Repository()
    if not isinstance(value, Mapping):
        # What is there is not shown, since it may have a secret.
        raise WishError(f"{option_of('repository')} must be a dictionary with {', '.join(_REPOSITORY)}.")
    unknown = sorted(_shown(name) for name in value if name not in _REPOSITORY)
    if unknown:
        raise WishError(f"{option_of('repository')} has {', '.join(unknown)}, which is none of its keys: {', '.join(_REPOSITORY)}.")
    texts = {str(name): _repository_text(str(name), text) for name, text in value.items() if text is not None}
    repository = Repository(**texts)
    _check_addresses(repository)
    return repository


def _repository_text(name: str, value: object) -> str:
    if not isinstance(value, str) or _CONTROL.search(value):
        raise WishError(f"{option_of('repository')}: {name} must be one line of text; found {value!r}.")
    text = value.strip()
    if name == "fingerprint":
        text = re.sub(r"[\s:]", "", text).upper()
        if text and _FINGERPRINT.fullmatch(text) is None:
            raise WishError(f"{option_of('repository')}: fingerprint must be the 40 hexadecimal digits of an OpenPGP key; found {value!r}.")
    return text


def _check_addresses(repository: Repository) -> None:
    name = option_of("repository")
    for key, text in (("url", repository.url), ("key", repository.key)):
        if _CREDENTIALS.match(text):
            # Not shown, since it has a secret.
            where = "credentials for a repository belong into a file of mode 0600 on the host, such as one in /etc/apt/auth.conf.d"
            raise WishError(f"{name}: {key} has credentials, which would be readable to everybody on the host; {where}.")
    if repository.url and _URL.fullmatch(repository.url) is None:
        raise WishError(f"{name}: url must begin with https://, http:// or file://; found {repository.url!r}.")
    if " " in repository.suite:
        raise WishError(f"{name}: suite must be one word, such as noble or ./; found {repository.suite!r}.")
