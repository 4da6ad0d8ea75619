# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of this machine: the one that answers, or one that simhost starts itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from simhostlib._common import SimhostError, cache, ensure_tool, run, say

START_SECONDS = 60


def docker(*arguments: str, check: bool = True, text: str | None = None, timeout: float | None = None) -> str:
    return run(["docker", *arguments], check=check, text=text, timeout=timeout)


def answers() -> bool:
    return bool(docker("version", "--format", "{{.Server.Version}}", check=False, timeout=30).strip()) if shutil.which("docker") else False


def _pid_file() -> Path:
    return cache() / "dockerd.pid"


def ensure_engine() -> None:
    """Makes sure that a Docker engine answers, starting one when none does."""
    if answers():
        return
    if os.environ.get("DOCKER_HOST"):
        raise SimhostError(f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: start it, or unset DOCKER_HOST.")
    if os.geteuid():
        raise SimhostError("no Docker engine answers to this user, and only root can start one: start it, or run this as root.")
    ensure_tool("dockerd")
    ensure_tool("docker")  # a package of its own from Debian 13 on
    if answers():  # the package may have started it
        return
    _start()


def _start() -> None:
    say("starting dockerd (no engine answered)")
    log = cache() / "dockerd.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    _pid_file().write_text(f"{process.pid}\n", encoding="ascii")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers():
            return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    raise SimhostError(f"dockerd did not come up within {START_SECONDS} s; the end of {log}:\n{tail}")


def stop_own_engine() -> None:
    """Stops the dockerd that simhost started, and no other."""
    file = _pid_file()
    if not file.exists():
        return
    pid = int(file.read_text(encoding="ascii"))
    file.unlink()
    try:
        if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() != "dockerd":
            return
    except OSError:
        return
    say(f"stopping the dockerd that simhost started (process {pid})")
    os.kill(pid, signal.SIGTERM)
    for _attempt in range(60):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.5)
    raise SimhostError(f"dockerd (process {pid}) did not stop within 30 s; stop it by hand.")
