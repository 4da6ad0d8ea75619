# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which queries of an earlier run still hang in the driver, so that no run adds another one.

A note per query: number and start time of the process that could not be killed. The notes lie in a directory below
/run, so a reboot clears them, and only their owner may write there.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat

from ansible_collections.difyops.gpu.plugins.module_utils import _command


class Leftovers:
    """The notes of this user. ``root`` is the root of the file system, ``/`` but in tests."""

    def __init__(self, root: str = "/") -> None:
        user = os.geteuid()
        run = os.path.join(root, "run") if user == 0 else os.path.join(root, "run", "user", str(user))
        self._directory = os.path.join(run, "difyops-gpu")

    def living(self, name: str) -> _command.Process | None:
        """Return the process that an earlier run left behind for this query, None when there is none or it has ended."""
        path = self._path(name)
        if not self._is_ours():
            return None
        try:
            with open(path, encoding="utf-8") as file:
                note = json.load(file)
            process = _command.Process(int(note["pid"]), int(note["start_time"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if _command.start_time(process.pid) == process.start_time:
            return process
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None

    def remember(self, name: str, process: _command.Process) -> bool:
        """Note a process that stays behind; return False where no note can be kept."""
        path = self._path(name)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory, 0o700)
            if not self._is_ours():
                return False
            with open(path + ".new", "w", encoding="utf-8") as file:
                json.dump({"pid": process.pid, "start_time": process.start_time}, file)
            os.replace(path + ".new", path)
        except OSError:
            return False
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, f"{name}.json")

    def _is_ours(self) -> bool:
        """Nobody else may steer which process this user takes for a hanging query."""
        try:
            status = os.lstat(self._directory)
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
