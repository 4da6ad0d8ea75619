# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task that failed said, as one sentence: with a code where it is one of ours, or where a package manager said it.

The words of apt, dpkg, DKMS, dnf and rpm are read line by line, and never the command line that modules put in front of them: it names
packages, and those would be taken for causes.

This is private to difyops.gpu.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _document, _plan_codes

# Actions whose message is a sentence of ours already.
_OURS = frozenset({"ansible.builtin.fail", "difyops.gpu.gpu_plan", "difyops.gpu.docker_daemon_config", "difyops.gpu.nvidia_driver_backup"})
_ARGUMENTS = "ansible.builtin.validate_argument_spec"
# Actions that are a package manager, and commands that are.
_MANAGERS = frozenset(
    {"ansible.builtin.apt", "ansible.builtin.dnf", "ansible.builtin.dpkg_selections", "community.general.dnf_versionlock"}
)
_COMMANDS = frozenset({"apt", "apt-get", "dnf", "dpkg"})
_CODE = re.compile(r"(DG\d{3}): ")
# What stands before the words of apt: how module apt quotes its command line, and what it says of lists; what core puts before any error.
_BEFORE = re.compile(
    r"\A'(?:/\S*/)?apt-get .*?' failed:\s*|\AFailed to update apt cache after \d+ retries:\s*(?=\S)|\ATask failed:\s*", re.DOTALL
)
_PREFIX = re.compile(r"\A(?:[EW]|Error|Warning): ?")
# What tells nothing: of a lock that was waited for and came, of what follows from the line before it, of no error at all.
_NOISE = re.compile(
    r"stable CLI interface|have been ignored, or old ones used|^Waiting for |^\(Reading database|^non-zero return code$"
    r"|^Failed to update apt cache after [0-9]+ retries:?$"
    r"|^Errors were encountered while processing|Sub-process \S*dpkg returned an error code"
)
_TELLING = re.compile(r"(?<![-\w])(?:error|fail(?:ed|ure)?)(?![-\w])|^E:", re.IGNORECASE)
_DPKG_FAILS = re.compile(r"^dpkg: error processing ")
_NAMED = 3
_LONGEST = 600


class _Cause(NamedTuple):
    code: str
    what: str
    remedy: str
    pattern: re.Pattern[str]


# In the order in which they are looked for: a full disk also keeps files from being fetched.
_CAUSES = (
    _Cause(
        _plan_codes.PACKAGES_LOCKED,
        "another process holds the lock of the package manager, and did not let go of it within {lock_timeout} s",
        "Let it end, and run the same playbook again; {role}_lock_timeout says how long to wait",
        re.compile(
            r"Failed to lock |Could not get lock|Unable to (?:acquire|lock) the |lockfile is held by|is locked by another|lock_timeout"
        ),
    ),
    _Cause(
        _plan_codes.NO_DISK_SPACE,
        "the disk is full",
        "Free space, and run the same playbook again",
        re.compile(r"No space left on device|enough free space|[0-9] ?[KMG]i?B (?:more )?(?:space )?(?:needed )?on the .*filesystem"),
    ),
    _Cause(
        _plan_codes.MODULE_NOT_BUILT,
        "the kernel module could not be built",
        "The file make.log that it names says why (most often the compiler or the headers do not fit the kernel). "
        "Then run the same playbook again",
        re.compile(
            r"^Error! |^Consult \S*make\.log|Bad return status for module build|/dkms exited with return code [1-9]"
            r"|^installed nvidia\S*-dkms\S* package post-installation script"
        ),
    ),
    _Cause(
        _plan_codes.REPOSITORY_UNREACHABLE,
        "a repository cannot be reached or read",
        "Mend the repository that is named (or set {role}_repository to a mirror that answers), and run the same playbook again",
        re.compile(
            r"Failed to (?:fetch|download|synchronize)|Could not (?:resolve|fetch updated apt files)|Cannot download|Unable to fetch"
            r"|Curl error|Cannot prepare internal mirrorlist|Errors during downloading|All mirrors were tried|404 +Not Found|NO_PUBKEY"
            r"|is not signed"
            r"|does not have a Release file|GPG check FAILED|[Pp]ublic key .*(?:not installed|not available)|keys .*not correct"
            r"|Failed to update apt cache"
        ),
    ),
)
_OTHER = _Cause(
    _plan_codes.PACKAGES_FAILED,
    "the package manager, or what it runs, ended with an error",
    "Do what these lines say, and run the same playbook again; it goes on from there",
    _TELLING,
)


def explain(result: object, task: str, action: str, lock_timeout: int, role: str = "nvidia_driver") -> dict[str, Any]:
    """Return ``{code, message}`` for the result of a task that failed; code is None for what nobody expected to fail.

    ``task`` and ``action`` are the task's name and its module, ``lock_timeout`` is how many seconds it waited for a lock, ``role`` is whose
    variables the remedy names. The message is one line and ends with a full stop.
    """
    failed = _failed(result)
    if action in _OURS:
        return _sentence(_without_command(_document.text(failed, "msg") or "no message"))
    if action == _ARGUMENTS:
        return _sentence("; ".join(_document.texts(failed, "argument_errors")) or _document.text(failed, "msg") or "no message")
    if _is_manager(failed, action):
        cause, lines = _cause(_lines(failed))
        what, remedy = cause.what.format(lock_timeout=lock_timeout), cause.remedy.format(role=role)
        return {"code": cause.code, "message": f"{what}: {_shown(lines)}. {remedy}."}
    return {"code": None, "message": f"{task}: {_shown(_lines(failed))}."}


def _failed(result: object) -> Mapping[str, Any]:
    """Return the result, of a loop that of the item that failed."""
    items = [item for item in _document.mappings(result, "results") if item.get("failed")]
    return items[0] if items else _document.mapping(result)


def _sentence(said: str) -> dict[str, Any]:
    told = " ".join(said.split())
    code = _CODE.match(told)
    return {"code": code.group(1) if code else None, "message": f"{(told[code.end() :] if code else told).rstrip('. ')}."}


def _is_manager(result: Mapping[str, Any], action: str) -> bool:
    """Whether the package manager has run: an error before that, such as one in a variable, has none of its words."""
    command = result.get("cmd")
    program = str(command[0]) if isinstance(command, (list, tuple)) and command else None
    return program in _COMMANDS or (action in _MANAGERS and ("invocation" in result or "rc" in result))


def _without_command(said: str) -> str:
    return _BEFORE.sub("", said, count=1)


def _lines(result: Mapping[str, Any]) -> list[str]:
    """Return the lines that say something, each once."""
    own = _without_command(_document.text(result, "msg") or "")
    output = [_document.text(result, key) or "" for key in ("stdout", "stderr", "module_stderr")]
    texts = [*output, *([] if own.strip() in output[1] else [own]), *_document.texts(result, "failures")]
    lines = dict.fromkeys(line.strip() for text in texts for line in text.splitlines() if line.strip())
    return [line for line in lines if not _NOISE.search(line)] or list(lines) or ["no message"]


def _cause(lines: list[str]) -> tuple[_Cause, list[str]]:
    """Return the cause, and the lines that tell of it."""
    for cause in (*_CAUSES, _OTHER):
        found = [number for number, line in enumerate(lines) if cause.pattern.search(line)]
        if found:
            # What a package's script said stands before dpkg tells that it failed.
            script = [found[0] - 1] if cause is _OTHER and found[0] and _DPKG_FAILS.match(lines[found[0]]) else []
            return cause, [lines[number] for number in [*script, *found[:_NAMED]]]
    return _OTHER, lines[-_NAMED:]


def _shown(lines: list[str]) -> str:
    # The last ones where no cause is known: what comes before is what was done well.
    text = " / ".join(_PREFIX.sub("", line) for line in lines[-_NAMED - 1 :])
    text = " ".join(text.split())
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST].rpartition(' ')[0]} ...").rstrip(".: ")
