# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of a host: one interface, and two ways behind it, the Docker SDK and the docker command.

The SDK is used where this Python can import it and the engine listens on a local socket; else the command. Both give
the engine's own documents (the JSON of its API), so nobody else needs to know which one it was.

This is private to difyops.gpu.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Callable, Protocol, TypeVar, cast

from ansible_collections.difyops.gpu.plugins.module_utils import _command

PROJECT_LABEL = "com.docker.compose.project"
DEFAULT_SOCKET = "/var/run/docker.sock"
_NOT_FOUND = re.compile(r"no such (image|container|object)|(image|container) not known", re.IGNORECASE)

T = TypeVar("T")


class DockerUnavailable(Exception):  # noqa: N818
    """There is no engine, or it does not answer. Its text is a sentence for the operator."""


class DockerError(Exception):
    """The engine answered, and refused or failed. Its text is a sentence for the operator."""


class DockerTimeout(DockerError):  # noqa: N818
    """A command inside a container was not over in time."""


class Engine(Protocol):
    """What this collection asks an engine. Every method may raise DockerUnavailable and DockerError."""

    backend: str
    """sdk or cli"""

    def version(self) -> dict[str, Any]:
        """Return the server's version document (``Version``, ``ApiVersion``, ...)."""

    def images(self, refs: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        """Return the inspect document of each image by the reference asked for, None where it is not on this host."""

    def containers(self, project: str) -> list[dict[str, Any]]:
        """Return the inspect documents of a compose project's containers, stopped ones too, sorted by name."""

    def inspect_container(self, name: str) -> dict[str, Any] | None:
        """Return the inspect document of a container by name or id, None when there is none."""

    def exec(self, container: str, argv: Sequence[str], stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        """Run a command in a running container, feed it ``stdin``, and return (exit status, stdout, stderr).

        As ever with Docker, 126 and 127 mean that the program could not be started. Raises DockerTimeout when it is
        not over within ``timeout_s`` seconds (it may run on in the container), DockerError when the container does
        not run.
        """


def connect(timeout_s: float = 10.0) -> Engine:
    """Return an engine that has answered once. No single question to it takes longer than about ``timeout_s`` seconds.

    Raises DockerUnavailable.
    """
    problem = ""
    host = os.environ.get("DOCKER_HOST", "")
    if not host or host.startswith("unix://"):
        try:
            return _SdkEngine(host or f"unix://{DEFAULT_SOCKET}", timeout_s)
        except ImportError:
            pass
        except DockerUnavailable as error:
            # An SDK too old for the Python libraries beside it fails like an absent engine. The command knows better,
            # but it would wait for a silent engine a second time.
            problem = str(error)
            if "timed out" in problem.lower():
                raise
    program = _command.find("docker")
    if program is None:
        raise DockerUnavailable(problem or "Neither the docker command nor the Docker SDK for Python is on this host.")
    return _CliEngine(program, timeout_s)


def _by_name(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(documents, key=lambda document: str(document.get("Name", "")))


class _SdkEngine:
    backend = "sdk"

    def __init__(self, url: str, timeout_s: float) -> None:
        import docker  # ImportError tells connect() to use the command

        self._errors = docker.errors
        self._client = self._ask(lambda: docker.APIClient(base_url=url, version="auto", timeout=timeout_s))

    def _ask(self, question: Callable[[], T]) -> T:
        """Turn whatever the SDK and the HTTP library below it raise into the two exceptions of this module."""
        try:
            return question()
        except self._errors.APIError as error:
            raise DockerError(_sentence(str(error.explanation or error))) from error
        except (OSError, ValueError, self._errors.DockerException) as error:  # requests' exceptions are OSErrors
            raise DockerUnavailable(_no_answer(error)) from error

    def version(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self._ask(self._client.version))

    def _or_none(self, question: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        def ask() -> dict[str, Any] | None:
            try:
                return question()
            except self._errors.NotFound:
                return None

        return self._ask(ask)

    def images(self, refs: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        return {ref: self._or_none(lambda ref=ref: self._client.inspect_image(ref)) for ref in refs}  # type: ignore[misc]

    def containers(self, project: str) -> list[dict[str, Any]]:
        label = f"{PROJECT_LABEL}={project}"
        found = self._ask(lambda: self._client.containers(all=True, filters={"label": label}))
        # One may have gone since it was listed.
        documents = [self.inspect_container(entry["Id"]) for entry in found]
        return _by_name([document for document in documents if document is not None])

    def inspect_container(self, name: str) -> dict[str, Any] | None:
        return self._or_none(lambda: self._client.inspect_container(name))

    def exec(self, container: str, argv: Sequence[str], stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        deadline = time.monotonic() + timeout_s
        created = self._ask(lambda: self._client.exec_create(container, list(argv), stdin=True, stdout=True, stderr=True))
        stream = self._ask(lambda: self._client.exec_start(created["Id"], socket=True))
        with closing(stream):
            # Half-closing needs the socket itself, which the SDK wraps in a file.
            out, err = _talk(getattr(stream, "_sock", stream), stdin, deadline, container)
        while True:
            state = self._ask(lambda: self._client.exec_inspect(created["Id"]))
            if not state.get("Running"):
                return int(state.get("ExitCode") or 0), out, err
            if time.monotonic() >= deadline:
                raise DockerTimeout(_too_slow(container, timeout_s))
            time.sleep(0.02)


def _talk(connection: socket.socket, data: bytes, deadline: float, container: str) -> tuple[bytes, bytes]:
    """Feed ``data`` to a started exec and take apart the engine's frames: type, three zeros, length, then the bytes."""
    begin = time.monotonic()
    connection.setblocking(False)
    rest, received, closed = memoryview(data), bytearray(), False
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise DockerTimeout(_too_slow(container, deadline - begin))
        readable, writable, _none = select.select([connection], [] if closed else [connection], [], remaining)
        if writable:
            if rest:
                rest = rest[connection.send(rest[:65536]) :]
            if not rest:
                connection.shutdown(socket.SHUT_WR)
                closed = True
        if readable:
            chunk = connection.recv(65536)
            if not chunk:
                return split_frames(bytes(received))
            if len(received) < _command.OUTPUT_LIMIT:
                received.extend(chunk)


def split_frames(stream: bytes) -> tuple[bytes, bytes]:
    """Return stdout and stderr of an attached stream. A cut-off last frame counts as far as it goes."""
    parts = {1: bytearray(), 2: bytearray()}
    position = 0
    while position + 8 <= len(stream):
        kind, length = struct.unpack_from(">BxxxI", stream, position)
        position += 8
        parts[2 if kind == 2 else 1].extend(stream[position : position + length])
        position += length
    return bytes(parts[1]), bytes(parts[2])


class _CliEngine:
    backend = "cli"

    def __init__(self, program: str, timeout_s: float) -> None:
        self._program = program
        self._timeout_s = timeout_s
        self.version()

    def _run(self, *argv: str, stdin: bytes = b"", timeout_s: float | None = None) -> _command.Result:
        limit = self._timeout_s if timeout_s is None else timeout_s
        try:
            return _command.run([self._program, *argv], limit, stdin=stdin)
        except _command.CannotStart as error:
            raise DockerUnavailable(str(error)) from error

    def _json(self, *argv: str) -> Any:
        """Return the answer of a docker command, None when what it asks for does not exist."""
        result = self._run(*argv)
        if result.timed_out:
            raise DockerUnavailable(f"The container engine did not answer within {self._timeout_s:g} seconds.")
        if result.rc:
            if _NOT_FOUND.search(result.err) and "invalid reference" not in result.err:
                return None
            if "daemon" in result.err and ("connect" in result.err or "running" in result.err):
                raise DockerUnavailable(_no_answer(result.err))
            raise DockerError(_sentence(result.err))
        try:
            return json.loads(result.out)
        except ValueError as error:
            raise DockerError(f"The docker command answered something else than JSON to 'docker {argv[0]}'.") from error

    def version(self) -> dict[str, Any]:
        document = self._json("version", "--format", "{{json .}}")
        server = document.get("Server") if isinstance(document, dict) else None
        if not server:
            raise DockerUnavailable(_no_answer("the docker command is here, its daemon is not"))
        return cast("dict[str, Any]", server)

    def images(self, refs: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        return {ref: self._json("image", "inspect", "--format", "{{json .}}", "--", ref) for ref in refs}

    def containers(self, project: str) -> list[dict[str, Any]]:
        label = f"label={PROJECT_LABEL}={project}"
        result = self._run("container", "ls", "--all", "--quiet", "--no-trunc", "--filter", label)
        if result.rc != 0:
            raise DockerError(_sentence(result.err or "no answer in time"))
        documents = [self.inspect_container(name) for name in result.out.split()]
        return _by_name([document for document in documents if document is not None])

    def inspect_container(self, name: str) -> dict[str, Any] | None:
        return cast("dict[str, Any] | None", self._json("container", "inspect", "--format", "{{json .}}", "--", name))

    def exec(self, container: str, argv: Sequence[str], stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        # The command's own failures look like those of the program inside, so the container is looked at first.
        document = self.inspect_container(container)
        if document is None:
            raise DockerError(f"There is no container {container}.")
        state = document.get("State") or {}
        if not state.get("Running"):
            raise DockerError(f"Container {container} is not running (state: {state.get('Status', 'unknown')}).")
        result = self._run("exec", "--interactive", "--", container, *argv, stdin=stdin, timeout_s=timeout_s)
        if result.rc is None:
            raise DockerTimeout(_too_slow(container, timeout_s))
        # It may have ended in between, as a container does that is started again and again.
        if result.rc != 0 and result.err.startswith("Error response from daemon:"):
            raise DockerError(_sentence(result.err))
        return result.rc, result.stdout, result.stderr


def _sentence(text: str) -> str:
    """Return an engine's complaint on one line, without the prefix that every one of them has."""
    line = " ".join(text.split())
    line = re.sub(r"^(Error response from daemon: |Error: |error: |docker: )+", "", line)
    return f"The container engine refused: {line[:400].rstrip('.') or 'it did not say why'}."


def _no_answer(problem: object) -> str:
    line = " ".join(str(problem).split())
    if "ermission denied" in line:
        return "The container engine cannot be asked: permission to its socket is denied; become root."
    return f"The container engine does not answer: {line[:400].rstrip('.')}."


def _too_slow(container: str, timeout_s: float) -> str:
    return f"The command in container {container} was not over within {timeout_s:.0f} seconds."
