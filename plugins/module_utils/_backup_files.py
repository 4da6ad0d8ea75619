# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What making and restoring a backup of Dify have in common: its error, programs that stream, exchange by rename, archives.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from typing import IO

from ansible_collections.difyops.gpu.plugins.module_utils import _command

CODE = "DG916"
NEW, OLD = ".difyops-new", ".difyops-old"
_BLOCK = 1024 * 1024
_PR_SET_PDEATHSIG = 1


class Problem(Exception):  # noqa: N818
    """A backup or a restore cannot go on. Its text is a sentence for the operator."""


def _die_with_parent() -> None:
    # What a killed run has started would go on writing into what the next run makes.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def stream(argv: Sequence[str], what: str, timeout_s: float, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> None:
    """Run a program between two open files, of any size. ``what`` names it in the error.

    Raises Problem where it cannot be started, is not over within ``timeout_s`` seconds, or does not end with 0.
    """
    with contextlib.ExitStack() as files:
        try:
            said = files.enter_context(tempfile.TemporaryFile())
            # run_command() of AnsibleModule keeps all that a program says in memory.
            child = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                list(argv),
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except (OSError, ValueError) as error:
            raise Problem(f"{what} cannot be started: {error}.") from error
        files.pop_all()
    result = _command.Running(child, [said], timeout_s).result()
    if result.timed_out:
        raise Problem(f"{what} was not over within {timeout_s:g} seconds.")
    if result.rc:
        raise Problem(f"{what} failed (exit status {result.rc}): {one_line(result.out)}.")


def one_line(text: str) -> str:
    """Return the end of what a program said, on one line."""
    return " ".join(text.split())[-400:].rstrip(".") or "it did not say why"


def private(path: str) -> IO[bytes]:
    """Make a file that only its owner can read, before its first byte. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")


def settle(file: IO[bytes]) -> None:
    """Have all of a file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def settle_folder(path: str) -> None:
    """Have the names in a folder on the disk."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def digest(path: str) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_BLOCK):
            found.update(chunk)
    return found.hexdigest()


def copy(source: str, target: str) -> None:
    """Copy a file into a new one that only its owner can read. Raises OSError."""
    with open(source, "rb") as reader, private(target) as writer:
        shutil.copyfileobj(reader, writer)
        settle(writer)


def weight(folder: str) -> int:
    """Return about how many bytes a folder takes, with a block for each name in it."""
    total = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(place, name))
                total += 4096 + status.st_blocks * 512
    return total


def room(path: str) -> int:
    """Return the free bytes where ``path`` is, or will be."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def need(path: str, size: int, what: str) -> None:
    """Raise Problem where fewer than ``size`` bytes are free at ``path``."""
    free = room(path)
    if free < size:
        raise Problem(
            f"{what} needs {size >> 20} MiB at {path}, and {free >> 20} MiB are free there: make room first. Nothing was changed."
        )


def remove(path: str) -> None:
    """Take away a file or a folder, if there is one. Raises OSError."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def discard(path: str) -> None:
    """Take away what a killed restore left beside ``path``, before a new one is prepared there."""
    if os.path.lexists(path + OLD) and not os.path.lexists(path):
        os.rename(path + OLD, path)
    remove(path + NEW)
    remove(path + OLD)


def exchange(path: str) -> None:
    """Put the prepared ``path``.difyops-new in its place, the former one beside it. Once it was begun it can be repeated."""
    if not os.path.lexists(path + NEW):
        return
    if os.path.lexists(path):
        os.rename(path, path + OLD)
    os.rename(path + NEW, path)
    settle_folder(os.path.dirname(path))


def pack(folder: str, archive: str, timeout_s: float) -> None:
    """Make a .tar.gz of what is in a folder, by names that are relative to it. Raises Problem and OSError."""
    with private(archive) as file:
        argv = ["tar", "--create", "--gzip", "--numeric-owner", "--xattrs", "--acls", "--directory", folder, "--file=-", "--", "."]
        stream(argv, f"tar of {folder}", timeout_s, stdout=file)
        settle(file)


def unpack(archive: str, folder: str, timeout_s: float) -> None:
    """Unpack a .tar.gz into a new folder, after a look at each name in it. Raises Problem and OSError."""
    inspect(archive)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    os.mkdir(folder, 0o700)
    argv = ["tar", "--extract", "--gzip", "--numeric-owner", "--same-owner", "--preserve-permissions", "--acls", "--xattrs"]
    # Labels of the host that made it mean nothing here; capabilities and the user's own attributes do.
    argv += ["--xattrs-include=user.*", "--xattrs-include=security.capability", "--directory", folder, "--file=-"]
    with open(archive, "rb") as file:
        stream(argv, f"tar into {folder}", timeout_s, stdin=file)


def inspect(archive: str) -> None:
    """Raise Problem where a .tar.gz is not whole, or has a name that leads out of the folder it is unpacked into."""
    links: set[str] = set()
    try:
        with tarfile.open(archive, "r|gz") as content:
            for member in content:
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                target = member.linkname if member.islnk() else ""
                outside = member.name.startswith("/") or ".." in parts or target.startswith("/") or ".." in target.split("/")
                above = {"/".join(parts[:count]) for count in range(1, len(parts))}
                if outside or above & links or member.ischr() or member.isblk():
                    raise Problem(f"{archive} has the member {member.name!r}, which a backup of Dify never has: it is not unpacked.")
                if member.issym():
                    links.add("/".join(parts))
                else:
                    links.discard("/".join(parts))
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise Problem(f"{archive} cannot be read: {error}.") from error
