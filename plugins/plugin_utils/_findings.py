# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the decide phase finds on a host: blocks and warnings, in the form of the plan."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.difyops.gpu.plugins.plugin_utils import _plan_codes


class WishError(ValueError):
    """What was asked for cannot be planned for any host; the text is one sentence for the operator."""


@dataclass(frozen=True)
class Block:
    """Why nothing is done on a host, and which part of the plan it belongs to.

    `by_wish` tells that the operator's own options are in the way, on a host that could be served without them.
    """

    part: str
    code: str
    message: str
    remedy: str | None = None
    by_wish: bool = False

    def as_dict(self) -> dict[str, str]:
        """Return the form that the plan has."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy or _plan_codes.CODES[self.code].remedy}


@dataclass(frozen=True)
class Need:
    """What a part of the host lacks.

    Where the caller brings the part to its plan (option apply) and `action` is not None, `action`, `to` and `reason` are what is to be
    done. Else `block` is why nothing is done on the host, and where that is None too the host serves without.
    """

    part: str
    action: str | None
    to: str
    reason: str
    block: Block | None = None


_OF_THE_IMAGE = (
    "variant",
    "force",
    "prefer",
    "cpu_fallback",
    "forward_compatibility",
    "catalog",
    "catalog_defaults",
    "min_cuda",
    "max_cuda",
    "require_features",
    "gpus",
    "scope",
    "missing",
)


# The roles whose variables are the settings in dictionaries.
_PREFIXES = {"driver": "nvidia_driver", "engine": "container_engine", "toolkit": "nvidia_container_toolkit"}


def option(name: str) -> str:
    """Return an option of gpu_plan as every sentence names it: with the variable by which the playbook's users know it."""
    part, _dot, setting = name.partition(".")
    if setting:
        return f"{name} ({_PREFIXES[part]}_{setting})"
    if name.startswith("image_"):
        return f"{name} (dify_{name})"
    return f"{name} (dify_{'image' if name in _OF_THE_IMAGE else 'gpu'}_{name})"


def warning(code: str, message: str, remedy: str | None = None) -> dict[str, str]:
    """Return a warning in the form that the plan has, with the remedy of its code where no better one is known."""
    return {"code": code, "message": f"{message}; {remedy or _plan_codes.CODES[code].remedy}"}
