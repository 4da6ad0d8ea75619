# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables in the texts of a compose project, by the rules of the compose specification: ``$X``, ``${X}``, ``${X:-d}`` and ``$$``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-+?]")
# Defaults within defaults; far more than anybody writes, and few enough for Python's stack.
_DEPTH = 40


class InterpolationError(ValueError):
    """A text whose variables cannot be replaced, in one sentence without the values of variables."""


@dataclass(frozen=True)
class Reference:
    """One variable in a text.

    Attributes:
        name: of the variable.
        operator: what stands behind it in braces (``:-``, ``-``, ``:+``, ``+``, ``:?``, ``?``), empty where nothing does.
        word: what stands behind the operator, as it is written.
        start: position of its dollar sign.
        end: position behind it.
    """

    name: str
    operator: str
    word: str
    start: int
    end: int


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with its variables replaced; one that is not set counts as empty. Raises InterpolationError."""
    return _interpolated(text, variables, 0)


def _interpolated(text: str, variables: Mapping[str, str], depth: int) -> str:
    if depth > _DEPTH:
        raise InterpolationError(f"Variables are nested more than {_DEPTH} deep.")
    parts, position = [], 0
    for found in _scan(text):
        parts.append(text[position : found.start])
        position = found.end
        # A doubled dollar sign is a reference without a name.
        parts.append("$" if not found.name else _value(found, variables, depth))
    parts.append(text[position:])
    return "".join(parts)


def _value(found: Reference, variables: Mapping[str, str], depth: int) -> str:
    value = variables.get(found.name)
    there = bool(value) if found.operator.startswith(":") else value is not None
    how = found.operator[-1:]
    if how == "+":
        return _interpolated(found.word, variables, depth + 1) if there else ""
    if there or not how:
        return value or ""
    if how == "-":
        return _interpolated(found.word, variables, depth + 1)
    told = _interpolated(found.word, variables, depth + 1).strip()
    raise InterpolationError(f"The variable {found.name} is required{f': {told}' if told else ''}.")


def references(text: str) -> list[Reference]:
    """Return the variables in a text, those within defaults too. What cannot be read as one is left out."""
    found: list[Reference] = []
    left = [(text, 0)]
    while left:
        piece, depth = left.pop()
        try:
            names = [item for item in _scan(piece) if item.name]
        except InterpolationError:
            continue
        found += names
        if depth < _DEPTH:
            left += [(item.word, depth + 1) for item in names if "$" in item.word]
    return found


def _scan(text: str) -> Iterator[Reference]:
    """Return variables and doubled dollar signs from left to right, those within defaults not. Raises InterpolationError."""
    position = text.find("$")
    while position >= 0:
        following = text[position + 1 : position + 2]
        if following == "$":
            yield Reference("", "", "", position, position + 2)
            end = position + 2
        elif following == "{":
            item = _braced(text, position)
            yield item
            end = item.end
        else:
            name = _NAME.match(text, position + 1)
            # A dollar sign with no name behind it stands for itself.
            end = name.end() if name else position + 1
            if name:
                yield Reference(name[0], "", "", position, end)
        position = text.find("$", end)


def _braced(text: str, start: int) -> Reference:
    name = _NAME.match(text, start + 2)
    if name is None:
        raise InterpolationError(f"No name of a variable follows {_shown(text, start)}.")
    if text.startswith("}", name.end()):
        return Reference(name[0], "", "", start, name.end() + 1)
    operator = _OPERATOR.match(text, name.end())
    if operator is None:
        raise InterpolationError(f"What follows the name in {_shown(text, start)} is nothing that compose knows.")
    end = _closing(text, operator.end())
    if end is None:
        raise InterpolationError(f"The brace of {_shown(text, start)} is not closed.")
    return Reference(name[0], operator[0], text[operator.end() : end], start, end + 1)


def _closing(text: str, position: int) -> int | None:
    """Return where the brace closes: braces of variables in between are skipped, other ones are text."""
    depth = 0
    while position < len(text):
        if text.startswith("$$", position):
            position += 2
        elif text.startswith("${", position):
            depth += 1
            position += 2
        elif text[position] == "}":
            if not depth:
                return position
            depth -= 1
            position += 1
        else:
            position += 1
    return None


def _shown(text: str, start: int) -> str:
    """Return the name of a variable as it is written, without the default behind it, which may be a secret."""
    return (re.match(r"\$\{[A-Za-z0-9_]*", text[start:]) or [text[start : start + 2]])[0]
