# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing the versions of drivers, toolkits, engines and PyTorch."""

from __future__ import annotations

import functools
import re

# ansible-core brings packaging; guarded because a plugin must be importable (for its documentation) without it.
PACKAGING_ERROR: str | None = None
try:
    from packaging.version import Version
except ImportError as exc:
    PACKAGING_ERROR = str(exc)

_DOTTED = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9})+)")


def parse(text: object) -> Version | None:
    """Return the leading dotted number of a version text, or None where there is none.

    What follows the number is packaging detail of a distribution (``2.26.1-4``, ``1.19.0-0ubuntu1``) and does not count.
    """
    return _parse(text) if isinstance(text, str) else None


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Version | None:
    # A fleet has few different versions, and each is asked for many times.
    match = _DOTTED.match(text)
    return Version(match.group(1)) if match else None


def at_least(text: object, floor: str) -> bool:
    """Whether version `text` is known and not below `floor`. `floor` comes from our own tables and may be one number (``615``)."""
    version = parse(text)
    return version is not None and version >= _floor(floor)


def is_dotted(text: object, parts: str = "{1,3}") -> bool:
    """Whether `text` is nothing but numbers and dots, with a number of dots that the regular expression counter `parts` allows."""
    return isinstance(text, str) and re.fullmatch(rf"[0-9]{{1,9}}(\.[0-9]{{1,9}}){parts}", text) is not None


@functools.lru_cache(maxsize=256)
def _floor(text: str) -> Version:
    return Version(text)
