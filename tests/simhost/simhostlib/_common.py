# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every part of simhost uses: the error, running a program, the cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TOOL_PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker-cli",
    "debootstrap": "debootstrap",
    "ssh-keygen": "openssh-client",
    "ssh": "openssh-client",
}


class SimhostError(Exception):
    """One sentence for the person who called: what was expected, what was found, what to do."""


def say(text: str) -> None:
    print(f"simhost: {text}", file=sys.stderr, flush=True)


def run(command: list[str], *, check: bool = True, text: str | None = None, timeout: float | None = None) -> str:
    """Runs a program and returns what it printed; a failure becomes a SimhostError with its last lines."""
    try:
        done = subprocess.run(
            command,
            check=False,
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except FileNotFoundError:
        raise SimhostError(f"the program {command[0]} is not installed.") from None
    except subprocess.TimeoutExpired:
        raise SimhostError(f"`{' '.join(command[:6])}` did not end within {timeout:.0f} s.") from None
    if check and done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SimhostError(f"`{' '.join(command[:8])}` ended with {done.returncode}:\n{tail}")
    return done.stdout


def cache() -> Path:
    """The folder with keys, downloads and what else the tool keeps between runs."""
    base = os.environ.get("SIMHOST_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(base).expanduser() / "difyops-simhost"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one simhost at a time does what `name` stands for; the lock goes with the process."""
    with open(cache() / f"{name}.lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for what is under way already ({name})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(parts: Iterable[bytes | str | Path]) -> str:
    """A short digest of texts, files and folders (names and contents)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file() and "__pycache__" not in p.parts) if part.is_dir() else [part]
            for file in files:
                total.update(str(file.relative_to(part)).encode() + b"\0" + file.read_bytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\1")
    return total.hexdigest()[:16]


def ensure_tool(program: str) -> None:
    """Installs the Debian package of a program that is missing."""
    if shutil.which(program):
        return
    package = TOOL_PACKAGES[program]
    if os.geteuid() or not shutil.which("apt-get"):
        raise SimhostError(f"{program} is needed; it can be installed only by root on Debian or Ubuntu: install {package} yourself.")
    say(f"installing {package} for {program}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, stdout=subprocess.DEVNULL, check=False)
    done = subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise SimhostError(f"apt-get could not install {package}:\n{tail}")
