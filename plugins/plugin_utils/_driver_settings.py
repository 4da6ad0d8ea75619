# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants of drivers: the option ``driver`` of gpu_plan, checked, with one sentence for each mistake."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ansible_collections.difyops.gpu.plugins.plugin_utils import _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._sub_options import Given, Repository

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
NAMES = (*CHOICES, "branch", "version", "repository", *_FLAGS, *_LISTS)


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
    options = Given("driver", given, NAMES)
    settings = Settings(
        branch=_branch(AUTO if options.get("branch") is None else options.get("branch")),
        version=_version(options.get("version")),
        repository=options.repository(),
        **options.choices(CHOICES),
        **options.flags(_FLAGS),
        **options.lists(_LISTS),
    )
    options.packages(settings.packages)
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    if settings.version is not None and settings.branch not in (None, settings.asked):
        message = f"{option_of('version')} {settings.version} is not of {option_of('branch')} {settings.branch}; give one of them."
        raise WishError(message)
    if settings.busy != DRAIN and settings.drain_containers:
        message = f"{option_of('drain_containers')} names containers that may be stopped, and {option_of('busy')} is {settings.busy}"
        raise WishError(f"{message}; set it to {DRAIN}, or take the names away.")


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
