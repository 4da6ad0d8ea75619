# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an archive on the controller to the release that the planner takes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Sequence

from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_release, _compose_text, _plan_codes, _release, _release_secrets
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_options import Settings, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block


def load(settings: Settings) -> tuple[_app_release.Wanted | None, list[Block]]:
    """Return the release with the site's settings, None where it cannot be read, and what is in the way."""
    path = settings.archive
    if not path:
        return None, [_block(_plan_codes.APP_NO_ARCHIVE, f"The archive of release {settings.version} is not on the controller.")]
    try:
        # Before anything of it is believed.
        _check(path, settings.archive_sha256)
        return read(path, settings), []
    except _release.ReleaseError as error:
        return None, [_block(error.code, str(error))]
    except _compose_text.InterpolationError as error:
        told = f"The compose project of release {settings.version} cannot be read with these settings: {str(error).rstrip('.')}."
        return None, [_block(_plan_codes.APP_UNKNOWN, told)]


def read(path: str, settings: Settings) -> _app_release.Wanted:
    """Return the release in an archive, with the site's settings. Raises ReleaseError and InterpolationError."""
    found = _release.read(path, settings.version)
    wanted = _app_release.combine(_converted(found, None), settings)
    # What looks like a secret counts for the services that run with the site's settings.
    return dataclasses.replace(wanted, release=_converted(found, wanted.profiles))


def _converted(found: _release.Release, profiles: Sequence[str] | None) -> _app_release.Release:
    secrets = _release_secrets.of(found, profiles)
    return _app_release.Release(
        version=found.version,
        layout=found.layout,
        sha256=found.sha256,
        compose_sha256=found.compose_sha256,
        compose_min=found.compose_min,
        raw=found.compose,
        env_example=found.env_example,
        known=found.known,
        interpolate=_compose_text.interpolate,
        secrets=secrets.secrets,
        derived=secrets.derived,
        forbidden=secrets.forbidden,
        unknown_secrets=secrets.unknown,
    )


def _block(code: str, message: str) -> Block:
    return Block(_app_release.PART, code, message)


def _check(path: str, wanted: str | None) -> None:
    """Raise ReleaseError where the archive has another digest than the wanted one. One that cannot be opened is told by its reader."""
    try:
        status = os.stat(path)
        found = _digest(path, status.st_mtime_ns, status.st_size) if wanted and stat.S_ISREG(status.st_mode) else wanted
    except (OSError, ValueError):
        return
    if found != wanted:
        told = f"The archive {path} has the SHA-256 {found}, and {option('archive_checksum')} says {wanted}."
        raise _release.ReleaseError(_plan_codes.APP_CHECKSUM, told)


@functools.lru_cache(maxsize=16)
def _digest(path: str, _changed_ns: int, _size: int) -> str:
    """Return the SHA-256 of a file; a fleet has one archive for all of its hosts. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()
