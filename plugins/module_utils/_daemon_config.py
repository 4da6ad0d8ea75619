# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's configuration file: what has to change in it, whether the engine takes that, and how it gets onto the disk.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _json_text
from ansible_collections.difyops.gpu.plugins.module_utils._engine import MASK, mask
from ansible_collections.difyops.gpu.plugins.module_utils._json_text import Path

_SYSTEMCTL_TIMEOUT_S = 15.0
_DOCKERD_TIMEOUT_S = 30.0
# A shorter value can be no secret, and taken out of a sentence it would make that unreadable.
_SHORTEST_SECRET = 3
# What Docker reads anew at a reload. From moby's daemon/reload.go and cmd/dockerd/daemon.go.
_RELOADED = {
    "allow-nondistributable-artifacts",
    "authorization-plugins",
    "debug",
    "default-runtime",
    "insecure-registries",
    "labels",
    "live-restore",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "network-diagnostic-port",
    "registry-mirrors",
    "runtimes",
    "shutdown-timeout",
}
# Of those the ones that a reload brings back to their defaults when they are no longer in the file; the others keep their value.
_RESET = {"authorization-plugins", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "network-diagnostic-port"}
_CANNOT_WRITE = {
    errno.ENOSPC: "there is no space left on its file system; free some",
    errno.EDQUOT: "the quota on its file system is used up; free some space",
    errno.EROFS: "its file system is read-only; mount it writable",
    errno.EACCES: "permission is denied; become root",
    errno.EPERM: "that is not permitted; become root, and see with lsattr whether it is made immutable",
    errno.EBUSY: "it is mounted by itself, so that nothing can take its place; unmount it, or change what is mounted there",
}


class Problem(Exception):  # noqa: N818
    """Why the file is not changed: a code, and a sentence for it."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"


@dataclass(frozen=True)
class File:
    """The file as it was found. ``target`` is where it lies, after all links; ``raw`` is None where there is none."""

    path: str
    target: str
    raw: bytes | None


@dataclass(frozen=True)
class Edit:
    """What comes of the wishes. ``before`` is None where what was there cannot be shown or kept."""

    before: str | None
    after: str
    changes: list[dict[str, Any]]


def wishes(settings: dict[str, Any], absent: Sequence[Sequence[Any]]) -> tuple[list[tuple[Path, Any]], list[Path]]:
    """Return the settings as pairs of a path and a value, and the paths that are to go. Raises ValueError with a sentence."""
    try:
        _json_text.parse(json.dumps(settings, allow_nan=False))
    except (ValueError, RecursionError):
        limit = _json_text.DEPTH_LIMIT
        raise ValueError(f"settings has to be what JSON can express, no infinite numbers, and at most {limit} levels deep.") from None
    pairs = list(_leaves(settings, ()))
    gone = [tuple(str(key) for key in path) for path in absent]
    if not all(gone):
        raise ValueError("absent has an empty path; each path needs at least one key, such as [runtimes, nvidia].")
    for path in gone:
        if any(wanted[: len(path)] == path for wanted, _value in pairs):
            raise ValueError(f"{'.'.join(path)} is in settings and in absent; it can be only in one of them.")
    return pairs, gone


def _leaves(settings: dict[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for key, wanted in settings.items():
        if isinstance(wanted, dict) and wanted:
            yield from _leaves(wanted, (*path, key))
        else:
            yield (*path, key), wanted


def read(path: str) -> File:
    """Return the file. Raises Problem."""
    target = os.path.realpath(path)
    try:
        if os.path.lexists(target) and not os.path.isfile(target):
            raise Problem("DG807", f"{path} cannot be read: a regular file was expected there, {_kind(target)} was found. Take it away.")
        with open(target, "rb") as file:
            return File(path, target, file.read())
    except FileNotFoundError:
        return File(path, target, None)
    except OSError as error:
        raise Problem("DG807", f"{path} cannot be read: {error.strerror}.") from error


def _kind(target: str) -> str:
    if os.path.isdir(target):
        return "a directory"
    return "a link that leads in a circle" if os.path.islink(target) else f"a device or pipe ({target})"


def edit(file: File, pairs: Sequence[tuple[Path, Any]], absent: Sequence[Path], replace_invalid: bool) -> Edit:
    """Return the file's text with the wishes in it. Raises Problem."""
    if file.raw is None:
        return _edited(file, "{}\n", "", pairs, absent)
    try:
        text = file.raw.decode("utf-8")
        if not _json_text.is_empty(text):
            _json_text.parse(text)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} is not UTF-8"
    except _json_text.JsonError as error:
        problem = str(error)
    else:
        empty = _json_text.is_empty(text)
        return _edited(file, _json_text.skeleton(text) if empty else text, text, pairs, absent)
    if not replace_invalid:
        raise Problem(
            "DG807",
            f"{file.path} cannot be read: {problem}. Docker does not start with it; correct it, or consent to its replacement "
            "(invalid: replace), which keeps a backup.",
        )
    replaced = _edited(file, "{}\n", "", pairs, absent)
    return Edit(None, replaced.after, replaced.changes)


def _edited(file: File, text: str, before: str, pairs: Sequence[tuple[Path, Any]], absent: Sequence[Path]) -> Edit:
    # Objects that the settings name stay, even where they get empty: the next run would bring them back.
    keep = {path[:depth] for path, _wanted in pairs for depth in range(1, len(path) + 1)}
    start, changes = text, []
    try:
        for path, wanted in pairs:
            old, text = text, _json_text.put(text, path, wanted)
            changes += _change(old, text, path)
        for path in absent:
            old, text = text, _json_text.take(text, path, keep)
            changes += _change(old, text, path)
        _json_text.parse(text)
    except _json_text.DuplicateKeyError as error:
        raise Problem("DG807", f"{file.path} cannot be changed: {error}. Which one counts is not certain; keep one of them.") from error
    except _json_text.JsonError as error:
        raise Problem("DG807", f"{file.path} cannot be changed as settings says: {error}.") from error
    return Edit(before, before if text == start else text, changes)


def _change(before: str, after: str, path: Path) -> list[dict[str, Any]]:
    if before == after:
        return []
    return [{"key": list(path), "before": _shown(before, path), "after": _shown(after, path)}]


def _shown(text: str, path: Path) -> Any:
    node = _json_text.find(text, path)
    return mask(_json_text.value(node), _is_secret(path)) if node else None


def _is_secret(path: Path) -> bool:
    return any(mask({key: "x"})[key] == MASK for key in path)


def secrets(text: str) -> set[str]:
    """Return what in a JSON object must not be shown: values of keys that look like secrets, and URLs with a password."""
    found = ((_json_text.value(node), _is_secret(path)) for path, node in _json_text.scalars(_json_text.parse(text)))
    hidden = {str(scalar) for scalar, secret in found if mask(scalar, secret) != scalar}
    return {scalar for scalar in hidden if len(scalar) >= _SHORTEST_SECRET}


def masked(text: str) -> str:
    """Return a text that can be shown: what looks like a secret is made unreadable, all else is to the letter."""
    if _json_text.is_empty(text):
        return text
    return _json_text.rewritten(text, lambda path, scalar: mask(scalar, _is_secret(path)))


def difference(file: File, done: Edit) -> dict[str, str]:
    """Return what Ansible shows with --diff, without secrets."""
    before = done.before
    if before is None:
        # It is no JSON, so nobody can tell what in it is a secret.
        before = f"(a file of {len(file.raw or b'')} bytes that is not valid, not shown since it may hold secrets)\n"
    else:
        before = masked(before)
    return {"before_header": file.path, "before": before, "after_header": file.path, "after": masked(done.after)}


def needs(done: Edit) -> str:
    """Return what brings the change to the engine: none, reload or restart."""
    if done.before is None:
        return "restart"
    if done.before == done.after:
        return "none"
    there = {member.key for member in _json_text.parse(done.after).members or []}
    return "reload" if all(reloads(change["key"], there) for change in done.changes) else "restart"


def reloads(key: Sequence[str], there: Iterable[str]) -> bool:
    """Return whether a reload is enough for a changed key, given as the path to it. `there` are the keys of the file after the change."""
    if key[0] == "features":
        # The classic builder or BuildKit is chosen for each build; the other features are looked at when the engine starts.
        return tuple(key[1:2]) == ("buildkit",)
    return key[0] in _RELOADED and (key[0] in there or key[0] in _RESET)


def validate(text: str, path: str, folder: str) -> tuple[bool, str | None]:
    """Ask the engine whether it takes a configuration. ``folder`` is where a file for that may lie.

    Returns whether it said yes, and else why it could not be asked: None for an engine before 23.0, and where there is none.
    Raises Problem with what the engine says against it.
    """
    command = _service_command()
    if not command:
        return False, None
    others = _config_file(command[1:])
    elsewhere = others and os.path.realpath(others) != os.path.realpath(path)
    try:
        with tempfile.NamedTemporaryFile("wb", dir=folder, suffix=".json") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            # Of an option that is given twice the last one counts.
            result = _command.run([*command, f"--config-file={file.name}", "--validate"], _DOCKERD_TIMEOUT_S)
    except (OSError, _command.CannotStart) as error:
        return False, f"Docker could not be asked whether it takes the new {path}: {error}"
    if "unknown flag: --validate" in result.err:
        return False, None
    if result.rc is None or result.rc < 0:
        return False, f"Docker could not be asked whether it takes the new {path}: {command[0]} --validate gave no answer."
    if result.rc:
        raise Problem("DG808", f"Docker refuses the new {path}, which is not written: {_words(result.err or result.out, text, command)}.")
    return True, f"docker.service reads {others}, not {path}: the change of {path} has no effect." if elsewhere else None


def _words(said: str, text: str, command: Sequence[str]) -> str:
    """Return what dockerd said, on one line and without secrets. It quotes values of the file and of its options."""
    words = re.sub(r"^.*?with file [^ :]+: ", "", " ".join(said.split()))
    given = {value for option in command for name, sign, value in [option.rpartition("=")] if sign and _is_secret((name,))}
    for secret in sorted(secrets(text) | given, key=len, reverse=True):
        words = words.replace(secret, MASK)
    return str(mask(words[:600])).rstrip(". ")


def _config_file(options: Sequence[str]) -> str | None:
    for index, option in enumerate(options):
        name, sign, given = option.partition("=")
        if name == "--config-file":
            return given if sign else "".join(options[index + 1 : index + 2])
    return None


def _service_command() -> list[str]:
    """Return dockerd with the options of docker.service, without them where there is no such unit; empty where there is no dockerd."""
    told: dict[str, list[str]] = {"ExecStart": [], "Environment": [], "EnvironmentFiles": []}
    systemctl = _command.find("systemctl")
    with contextlib.suppress(_command.CannotStart):
        options = [word for name in told for word in ("-p", name)]
        shown = _command.run([systemctl, "show", "docker.service", *options], _SYSTEMCTL_TIMEOUT_S).out if systemctl else ""
        for line in shown.splitlines():
            name, _sign, given = line.partition("=")
            told.get(name, []).append(given)
    argv = re.search(r"argv\[\]=(.*?) ; ignore_errors=", " ".join(told["ExecStart"]))
    words = _split(argv[1]) if argv else []
    if not words or not os.path.basename(words[0]).startswith("dockerd"):
        dockerd = _command.find("dockerd")
        return [dockerd] if dockerd else []
    return [words[0], *_expanded(words[1:], _environment(told["Environment"], told["EnvironmentFiles"]))]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _environment(assigned: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    lines = [word for line in assigned for word in _split(line)]
    for entry in files:
        with contextlib.suppress(OSError), open(entry.rpartition(" (")[0], encoding="utf-8", errors="replace") as file:
            lines += [line.strip() for line in file if not line.lstrip().startswith(("#", ";"))]
    found = {}
    for line in lines:
        name, sign, given = line.partition("=")
        if sign:
            found[name.strip()] = " ".join(_split(given)) if given[:1] in ("'", '"') else given.strip()
    return found


def _expanded(words: Sequence[str], environment: dict[str, str]) -> list[str]:
    """Return the words as systemd hands them over: a word $NAME becomes several, ${NAME} is replaced within its word."""
    result: list[str] = []
    for word in words:
        whole = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", word)
        if whole:
            result += _split(environment.get(whole[1], ""))
        else:
            filled = re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda name: environment.get(name[1], ""), word)
            result.append(filled.replace("$$", "$"))
    return result


def write(file: File, text: str, backup: bool) -> str | None:
    """Put a new text in the place of the file, all or nothing, and return the name of the backup. Raises Problem."""
    folder, name = os.path.split(file.target)
    kept = f"{file.target}.{os.getpid()}.{time.strftime('%Y-%m-%d@%H:%M:%S~')}" if backup and file.raw is not None else None
    made: list[str] = []
    try:
        os.makedirs(folder, exist_ok=True)
        new = _laid_down(file, text.encode("utf-8"), folder, name, made, 0o600 if secrets(text) else 0o644)
        old = _laid_down(file, file.raw or b"", folder, name, made, 0o600) if kept else None
        if read(file.path) != file:
            raise Problem("DG820", f"{file.path} is not written: somebody else changed it in the meantime. Run it again.")
        if old and kept:
            os.rename(old, kept)
            made.append(kept)
        os.rename(new, file.target)
        made.clear()
        _sync(folder)
    except OSError as error:
        reason = _CANNOT_WRITE.get(error.errno or 0, error.strerror)
        raise Problem("DG820", f"{file.path} cannot be written: {reason}. It is as it was.") from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                os.unlink(path)
    return kept


def _laid_down(file: File, content: bytes, folder: str, name: str, made: list[str], mode: int) -> str:
    """Write a new file beside the old one, with owner, mode, label and access list of that one; ``mode`` is for where there is none."""
    descriptor, path = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    made.append(path)
    with open(descriptor, "wb") as new:
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
    if file.raw is None:
        os.chmod(path, mode)
        return path
    status = os.stat(file.target)
    os.chown(path, status.st_uid, status.st_gid)
    # Mode and extended attributes; the latter hold SELinux's label and the access list.
    shutil.copystat(file.target, path)
    os.utime(path)
    return path


def _sync(folder: str) -> None:
    """Bring the renaming to the disk; a file system that cannot do that is none of ours to judge."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
