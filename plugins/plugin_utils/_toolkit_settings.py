# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants of the NVIDIA Container Toolkit: the option ``toolkit`` of gpu_plan, checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import option
from ansible_collections.difyops.gpu.plugins.plugin_utils._sub_options import Given, Repository

AUTO = "auto"
PRESENT, ABSENT, UNMANAGED = "present", "absent", "unmanaged"
REFUSE, REPLACE = "refuse", "replace"
CDI, RUNTIME = "cdi", "runtime"
KEEP, REMOVE = "keep", "remove"
WARN = "warn"

# The choices of each setting that has some.
CHOICES: dict[str, tuple[str, ...]] = {
    "state": (PRESENT, ABSENT, UNMANAGED),
    "foreign_pins": (REFUSE, REPLACE),
    "injection": (AUTO, CDI, RUNTIME),
    "stale_specs": (KEEP, REMOVE),
    "legacy_containers": (REFUSE, WARN),
}
_FLAGS = ("allow_unsafe", "allow_downgrade", "pin", "cdi_refresh")
NAMES = (*CHOICES, *_FLAGS, "version", "repository")


@dataclass(frozen=True)
class Settings:
    """What is wanted of the toolkit. `version` is None where none is named; all other texts are of CHOICES."""

    state: str = PRESENT
    version: str | None = None
    allow_unsafe: bool = False
    allow_downgrade: bool = False
    repository: Repository = field(default_factory=Repository)
    pin: bool = True
    foreign_pins: str = REFUSE
    injection: str = AUTO
    cdi_refresh: bool = True
    stale_specs: str = KEEP
    legacy_containers: str = REFUSE


def option_of(name: str) -> str:
    """Return a setting as every sentence names it: with the variable by which the role's users know it."""
    return option(f"toolkit.{name}")


def parse(given: object) -> Settings:
    """Return the settings of the option ``toolkit``: a dictionary, or None for the defaults. Raises WishError with one sentence."""
    options = Given("toolkit", given, NAMES)
    return Settings(
        version=options.version("version", r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", "a complete version of the toolkit such as '1.19.1'"),
        repository=options.repository(),
        **options.choices(CHOICES),
        **options.flags(_FLAGS),
    )
