# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a folder has a whole model, as far as its files tell without being loaded.

This is private to difyops.gpu.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from typing import Any

# Bytes. Headers and indexes of the largest models have a few million.
_MOST = 64 * 1024 * 1024
# As deep as a model's own folders go (sentence-transformers: 2_Dense/model.safetensors), so that a wrong path is not searched for ever.
_DEPTH = 2

Facts = dict[str, Any]


def look(path: str) -> Facts:
    """Return ``exists``, ``complete`` and ``reason`` of a model's folder; null is unknown. It never raises.

    ``reason`` is what a sentence says after the folder's name; null for a complete one.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return {"exists": False, "complete": False, "reason": "is not there"}
    except (OSError, ValueError) as error:
        return _unknown(None, error)
    try:
        reason = _trouble(path) if stat.S_ISDIR(mode) else "is not a directory"
    except OSError as error:
        return _unknown(True, error)
    return {"exists": True, "complete": reason is None, "reason": reason}


def _unknown(exists: bool | None, error: Exception) -> Facts:
    return {"exists": exists, "complete": None, "reason": f"cannot be examined: {getattr(error, 'strerror', None) or error}"}


def _trouble(path: str) -> str | None:
    if not os.path.isfile(os.path.join(path, "config.json")):
        return "has no config.json"
    if _object(os.path.join(path, "config.json")) is None:
        return "has a config.json that is not a JSON object"
    weights = _weights(path)
    if not weights:
        return "has no safetensors weights"
    for index in _indexes(path):
        lost = _lost(os.path.join(path, index))
        if lost is not None:
            return lost
    cut = next((name for name in weights if not _whole(os.path.join(path, name))), None)
    return None if cut is None else f"has {cut}, which is not a whole safetensors file"


def _weights(path: str) -> list[str]:
    """Return the model's safetensors files, relative to its folder."""
    found = []
    for folder, folders, files in os.walk(path):
        below = os.path.relpath(folder, path)
        if below != "." and below.count(os.sep) + 1 >= _DEPTH:
            folders[:] = []
        found += [os.path.normpath(os.path.join(below, name)) for name in files if name.endswith(".safetensors")]
    return sorted(found)


def _indexes(path: str) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.endswith(".safetensors.index.json"))


def _lost(index: str) -> str | None:
    """Return which file of a model in parts is not there."""
    content = _object(index)
    parts = content.get("weight_map") if content is not None else None
    name = os.path.basename(index)
    if not isinstance(parts, dict):
        return f"has a {name} that does not say which parts there are"
    wanted = sorted({part for part in parts.values() if isinstance(part, str)})
    lost = [part for part in wanted if not os.path.isfile(os.path.join(os.path.dirname(index), part))]
    return f"lacks {lost[0]} and {len(lost) - 1} more of {len(wanted)} parts" if len(lost) > 1 else f"lacks {lost[0]}" if lost else None


def _whole(path: str) -> bool:
    """Return whether a file is as long as its own header says: an interrupted copy is not."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_MOST, size - 8):
            return False
        header = _parsed(file.read(length))
    if header is None:
        return False
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    ends = [entry["data_offsets"][-1:] for entry in tensors if isinstance(entry, dict) and isinstance(entry.get("data_offsets"), list)]
    known = [end[0] for end in ends if end and isinstance(end[0], int)]
    return len(known) == len(tensors) and size == 8 + length + max(known, default=0)


def _object(path: str) -> Facts | None:
    with open(path, "rb") as file:
        return _parsed(file.read(_MOST))


def _parsed(content: bytes) -> Facts | None:
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
