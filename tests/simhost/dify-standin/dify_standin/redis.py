# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of a Redis client as the stand-ins need: log in, set, get, delete."""
from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from dify_standin.common import fail


class RedisError(Exception):
    """What the server answered, or why it did not."""


class Redis:
    """One connection to a server."""

    def __init__(self, host: str, port: int, password: str, username: str = "") -> None:
        try:
            self._socket = socket.create_connection((host, port), timeout=5)
        except OSError as error:
            raise RedisError(f"{host}:{port}: {error}") from None
        self._file = self._socket.makefile("rb")
        if password:
            self.call("AUTH", *([username] if username else []), password)

    def call(self, *words: str) -> str | None:
        """Send one command and return the answer; None is Redis's nil."""
        parts = [word.encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        line = self._file.readline().rstrip(b"\r\n").decode()
        if line.startswith("-"):
            raise RedisError(line[1:])
        if line.startswith("$"):
            size = int(line[1:])
            return None if size < 0 else self._file.read(size + 2)[:-2].decode()
        return line[1:]


def by_url(url: str) -> Redis:
    """Return a connection for ``redis://[user]:password@host:port/number``."""
    parts = urlsplit(url)
    return Redis(parts.hostname or "redis", parts.port or 6379, unquote(parts.password or ""), unquote(parts.username or ""))


def when_up(url: str, seconds: float = 60) -> Redis:
    """Return a connection as soon as the server answers. A password that is refused ends the container at once."""
    deadline = time.monotonic() + seconds
    while True:
        redis, why = _attempt(url)
        if redis is not None:
            return redis
        if "WRONGPASS" in why or "AUTH" in why or time.monotonic() > deadline:
            fail(f"Redis refuses: {why}")
        time.sleep(0.3)


def _attempt(url: str) -> tuple[Redis | None, str]:
    """Return a connection, or None and why there is none."""
    try:
        redis = by_url(url)
        redis.call("PING")
    except RedisError as error:
        return None, str(error)
    return redis, ""


@contextlib.contextmanager
def lock(redis: Redis, name: str, seconds: int = 120) -> Iterator[bool]:
    """Hold a lock, or yield False where somebody else has it."""
    mine = uuid.uuid4().hex
    held = redis.call("SET", name, mine, "NX", "EX", str(seconds)) == "OK"
    try:
        yield held
    finally:
        if held and redis.call("GET", name) == mine:
            redis.call("DEL", name)
