# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading documents whose every key may be null, missing or, from an older collection on a host, of another type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_EMPTY: Mapping[str, Any] = {}
# Documents are dictionaries nearly always, and to ask an abstract class takes ten times as long.
_MAPPINGS = (dict, Mapping)


def at(document: object, *path: str) -> Any:
    """Return the value at a path of keys, or None where there is none."""
    for key in path:
        if not isinstance(document, _MAPPINGS):
            return None
        document = document.get(key)
    return document


def text(document: object, *path: str) -> str | None:
    """Return the text at a path, or None where there is none."""
    value = at(document, *path)
    return value if isinstance(value, str) and value else None


def flag(document: object, *path: str) -> bool | None:
    """Return the boolean at a path, or None where there is none."""
    value = at(document, *path)
    return value if isinstance(value, bool) else None


def mapping(document: object, *path: str) -> Mapping[str, Any]:
    """Return the dictionary at a path, or an empty one."""
    value = at(document, *path)
    return value if isinstance(value, _MAPPINGS) else _EMPTY


def mappings(document: object, *path: str) -> list[Mapping[str, Any]]:
    """Return the dictionaries in the list at a path."""
    value = at(document, *path)
    return [item for item in value if isinstance(item, _MAPPINGS)] if isinstance(value, (list, tuple)) else []


def texts(document: object, *path: str) -> list[str]:
    """Return the texts in the list at a path."""
    value = at(document, *path)
    return [item for item in value if isinstance(item, str)] if isinstance(value, (list, tuple)) else []
