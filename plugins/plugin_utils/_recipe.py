# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digest of an image recipe: it changes when, and only when, the image that would be built changes.

It covers the build context (paths, executable bits, contents) and the build arguments. Where packages are fetched from (a mirror) and
secrets of the build are not part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import option

LABEL = "org.difyops.recipe"


class RecipeError(ValueError):
    """The build context cannot be read; the text is one sentence for the operator."""


def build_args(variant: Variant, base: str, version: str) -> dict[str, str]:
    """Return the build arguments of a variant that decide what is in the image."""
    return {
        "BASE_IMAGE": base,
        "CUDA_VERSION": variant.cuda or "",
        "IMAGE_VERSION": version,
        "PTX": variant.ptx or "",
        "SM_LIST": " ".join(variant.sm),
        "TORCH_SHA256": " ".join(variant.torch_sha256),
        "TORCH_VERSION": variant.torch,
        "VARIANT": variant.name,
        "WHEEL_INDEX": variant.wheel_index or "",
    }


def digest(context: str, args: Mapping[str, str]) -> str:
    """Return the recipe digest (hexadecimal SHA-256) of a context's digest and the build arguments."""
    return hashlib.sha256(json.dumps([context, sorted(args.items())]).encode("utf-8")).hexdigest()


def context_digest(directory: str) -> str:
    """Return the digest (hexadecimal SHA-256) of a directory on the controller. Raises RecipeError."""
    total = hashlib.sha256()
    try:
        for relative, path in _entries(directory):
            total.update(json.dumps([relative, *_describe(path)]).encode("utf-8"))
    except OSError as exc:
        raise RecipeError(f"The image context {directory} cannot be read: {exc.strerror or exc} ({exc.filename}).") from exc
    return total.hexdigest()


def _entries(directory: str) -> list[tuple[str, str]]:
    if not os.path.isdir(directory):
        raise RecipeError(
            f"The image context {directory} is not a directory on the controller; "
            f"set {option('image_context')} to the one with the Dockerfile."
        )
    found: list[tuple[str, str]] = []
    for folder, folders, files in os.walk(directory, onerror=_raise):
        # What Python leaves beside sources is no part of the recipe and differs from machine to machine.
        folders[:] = [name for name in folders if name != "__pycache__"]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in files + links:
            path = os.path.join(folder, name)
            if not name.endswith(".pyc"):
                found.append((os.path.relpath(path, directory).replace(os.sep, "/"), path))
    if "Dockerfile" not in [relative for relative, _path in found]:
        raise RecipeError(f"The image context {directory} has no Dockerfile; set {option('image_context')} to the directory that has it.")
    return sorted(found)


def _describe(path: str) -> list[str]:
    if os.path.islink(path):
        return ["link", os.readlink(path)]
    if not os.path.isfile(path):
        raise RecipeError(f"{path} in the image context is neither a file nor a link; take it out.")
    with open(path, "rb") as handle:
        content = hashlib.sha256(handle.read()).hexdigest()
    return ["executable" if os.access(path, os.X_OK) else "file", content]


def _raise(error: OSError) -> None:
    raise error
