# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change single values in a JSON text, and leave every other character of it as it is.

Strict like the engine that reads the file: what Go refuses (comments, NaN, a comma at the end) is refused here. No error quotes
the text, which may hold passwords.

This is private to difyops.gpu.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple

BOM = "\ufeff"
Path = tuple[str, ...]
# No configuration is nested that deep; the limit keeps Python's own recursion within its bounds.
DEPTH_LIMIT = 100
_SPACE = re.compile(r"[ \t\r\n]*")
# Unrolled, so that a string without an end costs linear time.
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z.+_-])")
_INTEGER = re.compile(r"-?[0-9]+\Z")
_WORD = re.compile(r"(?:true|false|null)(?![0-9A-Za-z_])")


class JsonError(ValueError):
    """The text is no JSON object that can be edited. Its text says where and why, as the end of a sentence without the full stop."""


class DuplicateKeyError(JsonError):
    """A key that is to be changed stands there more than once, so that nobody can tell which one counts."""


@dataclass(frozen=True)
class Node:
    """A value in the text, from ``start`` up to ``end`` (exclusive), both in characters. ``token``: of a scalar as it stands there."""

    start: int
    end: int
    token: str = ""
    members: list[Member] | None = None
    items: list[Node] = field(default_factory=list)


class Member(NamedTuple):
    """A key of an object, from ``start`` up to ``key_end`` (exclusive), and its value."""

    key: str
    start: int
    key_end: int
    value: Node

    @property
    def end(self) -> int:
        return self.value.end


class _Style(NamedTuple):
    """How a text is laid out: its line end, one step of its indentation, and whether it has more than one line."""

    newline: str
    unit: str
    lines: bool


def position(text: str, at: int) -> str:
    """Return where a character stands, as people count."""
    start = text.rfind("\n", 0, at) + 1
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - start + 1 - (start == 0 and text.startswith(BOM))}"


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text

    def document(self) -> Node:
        start = self._skip(len(BOM) if self._text.startswith(BOM) else 0)
        root = self._value(start, 1)
        end = self._skip(root.end)
        if end < len(self._text):
            raise self._error(end, "the end of the file")
        if root.members is None:
            raise JsonError(f"{position(self._text, start)}: it holds a value that is no JSON object; {{ was expected")
        return root

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _value(self, at: int, depth: int) -> Node:
        if depth > DEPTH_LIMIT:
            raise JsonError(f"{position(self._text, at)}: it is nested deeper than {DEPTH_LIMIT} levels")
        character = self._text[at : at + 1]
        if character == "{":
            return self._object(at, depth)
        if character == "[":
            return self._array(at, depth)
        if character == '"':
            return self._string(at)
        match = _NUMBER.match(self._text, at) or _WORD.match(self._text, at)
        if not match:
            raise self._error(at, "a value")
        return Node(at, match.end(), match[0])

    def _string(self, at: int) -> Node:
        match = _STRING.match(self._text, at)
        if not match:
            raise JsonError(
                f"{position(self._text, at)}: the string that starts here has no end, or has a line end, a control character or an "
                "escape in it that JSON does not know"
            )
        return Node(at, match.end(), match[0])

    def _object(self, at: int, depth: int) -> Node:
        members: list[Member] = []
        end = self._skip(at + 1)
        while self._more(end, "}", bool(members)):
            start = self._skip(end + 1) if members else end
            if self._text[start : start + 1] != '"':
                raise self._error(start, "a key in double quotes")
            key = self._string(start)
            colon = self._skip(key.end)
            if self._text[colon : colon + 1] != ":":
                raise self._error(colon, "a colon")
            value = self._value(self._skip(colon + 1), depth + 1)
            members.append(Member(json.loads(key.token), start, key.end, value))
            end = self._skip(value.end)
        return Node(at, end + 1, members=members)

    def _array(self, at: int, depth: int) -> Node:
        items: list[Node] = []
        end = self._skip(at + 1)
        while self._more(end, "]", bool(items)):
            items.append(self._value(self._skip(end + 1) if items else end, depth + 1))
            end = self._skip(items[-1].end)
        return Node(at, end + 1, items=items)

    def _more(self, at: int, closing: str, begun: bool) -> bool:
        """Return whether another entry follows; between entries has to be a comma, and after a comma an entry."""
        found = self._text[at : at + 1]
        if found == closing:
            return False
        if not begun:
            return True
        if found != ",":
            raise self._error(at, f"a comma or {closing}")
        after = self._skip(at + 1)
        if self._text[after : after + 1] == closing:
            raise JsonError(f"{position(self._text, at)}: there is a comma before {closing}, which JSON does not allow")
        return True

    def _error(self, at: int, expected: str) -> JsonError:
        found = self._text[at : at + 1]
        where = position(self._text, at)
        if found in ("/", "#"):
            return JsonError(f"{where}: there is a comment, which JSON does not allow")
        what = "the end of the file" if not found else found if found in "{}[]:,'" else "something else"
        return JsonError(f"{where}: {expected} was expected, {what} was found")


def parse(text: str) -> Node:
    """Return the object that a text holds. Raises JsonError."""
    return _Parser(text).document()


def is_empty(text: str) -> bool:
    """Return whether there is nothing but white space in a text."""
    return not text.lstrip(BOM).strip(" \t\r\n")


def skeleton(text: str) -> str:
    """Return the empty object for a text that is empty, with the byte order mark and the line end of that text."""
    return f"{BOM if text.startswith(BOM) else ''}{{}}{_newline(text)}"


def value(node: Node) -> Any:
    """Return a value as Python has it. Of keys that are there twice the last counts; numbers out of all bounds are text."""
    if node.members is not None:
        return {member.key: value(member.value) for member in node.members}
    if not node.token:
        return [value(item) for item in node.items]
    return json.loads(node.token, parse_int=lambda text: int(text) if len(text) < 100 else text, parse_float=_float)


def _float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def find(text: str, path: Path) -> Node | None:
    """Return the value at a path of keys, None when it is not there. Raises JsonError."""
    steps = list(_walk(parse(text), text, path))
    return steps[-1][1].value if len(steps) == len(path) else None


def _walk(root: Node, text: str, path: Path) -> Iterator[tuple[Node, Member]]:
    """Yield the objects along a path and the member of each that leads on, as far as the path is there."""
    node = root
    for depth, key in enumerate(path):
        found = [member for member in node.members or [] if member.key == key]
        if len(found) > 1:
            places = " and ".join(position(text, member.start) for member in found[:2])
            raise DuplicateKeyError(f"{'.'.join(path[: depth + 1])} is there more than once, at {places}")
        if not found:
            return
        yield node, found[0]
        node = found[0].value


def same(node: Node, wanted: Any) -> bool:
    """Return whether a value in the text is the wanted one; 1, 1.0 and true are three different ones, as for the engine."""
    if isinstance(wanted, dict):
        members = node.members
        if members is None or len(members) != len(wanted):
            return False
        return all(member.key in wanted and same(member.value, wanted[member.key]) for member in members)
    if node.members is not None:
        return False
    if isinstance(wanted, list):
        return not node.token and len(node.items) == len(wanted) and all(map(same, node.items, wanted))
    if isinstance(wanted, float):
        return bool(_NUMBER.match(node.token)) and not _INTEGER.match(node.token) and float(node.token) == wanted
    if isinstance(wanted, str):
        return node.token.startswith('"') and json.loads(node.token) == wanted
    return node.token == json.dumps(wanted)


def put(text: str, path: Path, wanted: Any) -> str:
    """Return the text with a value at a path of keys; objects on the way are made. An empty object asks only for some object.

    Raises JsonError.
    """
    root = parse(text)
    steps = list(_walk(root, text, path))
    rest = path[len(steps) :]
    style = _style(text, root)
    node = steps[-1][1].value if steps else root
    if not rest:
        kept = node.members is not None if wanted == {} else same(node, wanted)
        return text if kept else _replaced(text, steps[-1][1], wanted, style)
    if node.members is None:
        return _replaced(text, steps[-1][1], _nested(rest, wanted), style)
    return _inserted(text, node, rest[0], _nested(rest[1:], wanted), style)


def _nested(path: Path, wanted: Any) -> Any:
    for key in reversed(path):
        wanted = {key: wanted}
    return wanted


def take(text: str, path: Path, keep: Collection[Path] = ()) -> str:
    """Return the text without a key, and without the objects that get empty by it, but for those in ``keep``. Raises JsonError."""
    steps = list(_walk(parse(text), text, path))
    if len(steps) < len(path):
        return text
    depth = len(steps) - 1
    while depth and len(steps[depth][0].members or []) == 1 and path[:depth] not in keep:
        depth -= 1
    node, gone = steps[depth]
    members = node.members or []
    index = members.index(gone)
    if len(members) == 1:
        return text[: node.start + 1] + text[node.end - 1 :]
    if index:
        return text[: members[index - 1].end] + text[gone.end :]
    return text[: gone.start] + text[members[1].start :]


def rewritten(text: str, other: Callable[[Path, Any], Any]) -> str:
    """Return the text with other scalars: ``other`` is given the keys above each and its value. Raises JsonError."""
    parts, at = [], 0
    for path, node in scalars(parse(text)):
        before = value(node)
        after = other(path, before)
        if after != before:
            parts += [text[at : node.start], json.dumps(after)]
            at = node.end
    return "".join([*parts, text[at:]])


def scalars(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield every scalar with the keys above it, in the order of the text."""
    for member in node.members or []:
        yield from scalars(member.value, (*path, member.key))
    for item in node.items:
        yield from scalars(item, path)
    if node.token:
        yield path, node


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _style(text: str, root: Node) -> _Style:
    lead = text[root.start + 1 : root.members[0].start] if root.members else ""
    unit = lead.rpartition("\n")[2] if "\n" in lead else ""
    return _Style(_newline(text), unit or "  ", not root.members or "\n" in text[root.start : root.end])


def _indentation(text: str, at: int) -> str:
    """Return the white space at the start of the line that a character is in."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _lines(wanted: Any, indentation: str, style: _Style) -> str:
    return json.dumps(wanted, indent=style.unit).replace("\n", style.newline + indentation)


def _in_line(wanted: Any, colon: str) -> str:
    return json.dumps(wanted, separators=("," if colon == ":" else ", ", colon))


def _colon(text: str, member: Member) -> str:
    """Return what stands between a key and its value, such as a colon and a space."""
    between = text[member.key_end : member.value.start]
    return ": " if "\n" in between else between


def _replaced(text: str, member: Member, wanted: Any, style: _Style) -> str:
    indentation = _indentation(text, member.start)
    on_its_own = style.lines and text[: member.start].endswith(f"\n{indentation}")
    rendered = _lines(wanted, indentation, style) if on_its_own else _in_line(wanted, _colon(text, member))
    return text[: member.value.start] + rendered + text[member.value.end :]


def _inserted(text: str, node: Node, key: str, wanted: Any, style: _Style) -> str:
    name = json.dumps(key)
    if not node.members:
        return text[: node.start + 1] + _only_member(text, node, name, wanted, style) + text[node.end - 1 :]
    last, colon = node.members[-1], _colon(text, node.members[0])
    if len(node.members) > 1:
        lead = text[node.members[-2].end : last.start].partition(",")[2]
    else:
        lead = text[node.start + 1 : last.start]
        if "\n" not in lead:
            lead = "" if colon == ":" else " "
    if "\n" not in lead:
        return f"{text[: last.end]},{lead}{name}{colon}{_in_line(wanted, colon)}{text[last.end :]}"
    indentation = lead.rpartition("\n")[2]
    return f"{text[: last.end]},{style.newline}{indentation}{name}{colon}{_lines(wanted, indentation, style)}{text[last.end :]}"


def _only_member(text: str, node: Node, name: str, wanted: Any, style: _Style) -> str:
    if not style.lines:
        return f"{name}: {_in_line(wanted, ': ')}"
    outer = _indentation(text, node.start)
    inner = outer + style.unit
    return f"{style.newline}{inner}{name}: {_lines(wanted, inner, style)}{style.newline}{outer}"
