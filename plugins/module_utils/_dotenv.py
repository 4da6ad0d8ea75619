# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of variables as Docker Compose reads them: parsed, and edited so that all other text stays. It is private to difyops.gpu.

The rules are those of compose's own parser: comments begin a line, or follow a value after a space; a value without quotes ends at
the line's end; within quotes it may go over several lines, and a backslash keeps a quote from closing it; only double quotes know
escapes such as ``\\n``; in single quotes nothing is replaced, elsewhere ``$X`` and ``${X:-d}`` are, and ``$$`` is a dollar sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_KEY = re.compile(r"(?:export[ \t\v\f\r\x85\xa0]+)?(?P<key>[A-Za-z0-9_.\-\[\]]+)[ \t\v\f\r\x85\xa0]*(?P<sign>[=:\n]|$)")
_BLANK = " \t\v\f\r\x85\xa0"
_ESCAPE = re.compile(r'\\(?:[abcfnrtv$"\\]|0[0-7]{3})')
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\", "$": "$$", "c": "\\c"}
# What every reader of such files takes for the value itself, without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@%+=*~?&-]*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


class DotenvError(ValueError):
    """A text that is no file of variables, or a value that cannot be in one; a sentence without any value."""


class Entry(NamedTuple):
    """One variable of a file.

    `text` is its value before variables in it are replaced, a dollar sign of single quotes doubled, so that the same is done
    with all; it is None where the line has a name alone, which passes a variable of the environment on. The value's own text
    with its quotes is between the positions `start` and `end` of the file.
    """

    key: str
    text: str | None
    start: int
    end: int
    line: int


def parse(text: str) -> list[Entry]:
    """Return the variables of a text in their order; of one that is there twice the last one counts. Raises DotenvError."""
    found: list[Entry] = []
    position = 0
    while True:
        position = _statement(text, position)
        if position >= len(text):
            return found
        line = text.count("\n", 0, position) + 1
        match = _KEY.match(text, position)
        if match is None:
            raise DotenvError(f"Line {line} is neither a comment nor a variable.")
        if match["sign"] in ("", "\n"):
            found.append(Entry(match["key"], None, match.end("key"), match.end("key"), line))
            position = match.end()
            continue
        start = match.end()
        while start < len(text) and text[start] in _BLANK:
            start += 1
        if text[start : start + 1] in ("'", '"'):
            value, end = _quoted(text, start, line)
        else:
            value, end = _unquoted(text, start)
        found.append(Entry(match["key"], value, start, end, line))
        position = end
        if text[start : start + 1] not in ("'", '"'):
            newline = text.find("\n", end)
            position = len(text) if newline < 0 else newline + 1


def _statement(text: str, position: int) -> int:
    """Return where the next variable begins."""
    while position < len(text):
        if text[position].isspace() or text[position] == "\ufeff":
            position += 1
        elif text[position] == "#":
            newline = text.find("\n", position)
            position = len(text) if newline < 0 else newline + 1
        else:
            break
    return position


def _unquoted(text: str, start: int) -> tuple[str, int]:
    newline = text.find("\n", start)
    line = text[start : len(text) if newline < 0 else newline]
    value = line.partition(" #")[0].rstrip()
    return value, start + len(value)


def _quoted(text: str, start: int, line: int) -> tuple[str, int]:
    kept: list[str] = []
    quote, escape = text[start], False
    for position in range(start + 1, len(text)):
        char = text[position]
        if char == quote and not escape:
            value = "".join(kept)
            return (_unescaped(value) if quote == '"' else value.replace("$", "$$")), position + 1
        if char == "\\" and not escape:
            escape = True
            continue
        if escape and char != quote:
            kept.append("\\")
        kept.append(char)
        escape = False
    raise DotenvError(f"The quote in line {line} is not closed.")


def _unescaped(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = match[0][1:]
        return chr(int(code, 8) & 0xFF) if code.startswith("0") else _ESCAPED[code]

    return _ESCAPE.sub(character, text)


def values(text: str) -> dict[str, str]:
    """Return the variables with a value, as `Entry.text` has it. Raises DotenvError."""
    return {entry.key: entry.text for entry in parse(text) if entry.text is not None}


def literal(value: str) -> str:
    """Return what `Entry.text` is for a value in which nothing is replaced."""
    return value.replace("$", "$$")


def plain(text: str) -> str | None:
    """Return the value of an `Entry.text` in which nothing is to be replaced; None where something is."""
    rest = text.replace("$$", "")
    return None if "$" in rest else text.replace("$$", "$")


def render(value: str) -> str:
    """Return a value as it is written behind the equals sign, so that it arrives to the letter. Raises DotenvError."""
    bad = _CONTROL.search(value)
    if bad:
        what = "a line break" if bad[0] in "\n\r\x85\u2028\u2029" else f"the character U+{ord(bad[0]):04X}"
        raise DotenvError(f"it has {what}, which no file of variables can hold")
    if _PLAIN.fullmatch(value):
        return value
    # A backslash at the end would keep the quote from closing it.
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    return f'"{_escaped(value)}"'


def _escaped(value: str) -> str:
    """Return the text for double quotes. Older versions of compose take a quote behind any backslash as escaped: there, it is octal."""
    text = re.sub(r'\\(?="|$)', "\0", value)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("\0", "\\0134")


def edit(text: str, changes: Mapping[str, str], title: str) -> str:
    """Return a text with variables set to values, all else as it is. Raises DotenvError.

    Args:
        text: the file.
        changes: values by name. Where a variable is there twice, each is set; those that are not there come at the end, sorted.
        title: comment before those at the end.
    """
    parts, position, there = [], 0, set()
    for entry in parse(text):
        there.add(entry.key)
        if entry.key not in changes or entry.text == literal(changes[entry.key]):
            continue
        parts += [text[position : entry.start], "=" if entry.text is None else "", rendered(entry.key, changes[entry.key])]
        position = entry.end
    parts.append(text[position:])
    more = sorted(set(changes) - there)
    if more:
        before = "".join(parts)
        parts += ["" if before.endswith("\n") or not before else "\n", f"\n# {title}\n"]
        parts += [f"{key}={rendered(key, changes[key])}\n" for key in more]
    return "".join(parts)


def rendered(key: str, value: str) -> str:
    """Return a value as it is written, with the variable's name in the error. Raises DotenvError."""
    try:
        return render(value)
    except DotenvError as error:
        raise DotenvError(f"{key} cannot be set: {error}.") from error


def names(keys: Iterable[str]) -> list[str]:
    """Return those of some names that can be variables' names in such a file."""
    return [key for key in keys if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key)]
