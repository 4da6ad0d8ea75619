# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until the services of a compose project are ready, one after the other, and say why one is not.

This is private to difyops.gpu.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.parse import quote, quote_plus, urlsplit

from ansible_collections.difyops.gpu.plugins.module_utils import _command, _docker

CODE = "DG914"
SETTLE_S = 3.0
_INTERVAL_S = 1.0
_ASK_S = 10.0
# Compose's "restart: always" starts a service again while what it needs is not there yet; so often it is for itself.
_LOOP = 5
_CLONE_NEWNET = 0x40000000
_SHORTEST_SECRET = 4
_LONGEST_LINE = 300
_TELLING = r"[A-Za-z0-9_.-]*(?:pass|pwd|secret|token|api-?key|[_-]key|credential|authorization)[A-Za-z0-9_.-]*"
_ASSIGNED = re.compile(rf"""(["']?\b{_TELLING}["']?\s*[=:]\s*)("[^"]*"|'[^']*'|(?:Bearer |Basic )?[^\s,;}}&]+)""", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer|Basic) +[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:]*:)[^\s/@]+@", re.IGNORECASE)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\S+ ?")
_MASK = "********"

Document = dict[str, Any]
Ask = Callable[[int, str], "str | None"]


class NotReady(Exception):  # noqa: N818
    """A service is not ready. Its text is a sentence for the operator; ``log`` has the service's last lines, masked."""

    def __init__(self, message: str, service: str, log: Sequence[str]) -> None:
        super().__init__(message)
        self.service, self.log = service, list(log)


@dataclass(frozen=True)
class Service:
    """What is waited for: the end with 0, the healthcheck, an answer to ``health``, or just to run."""

    name: str
    healthcheck: bool = False
    health: str = ""
    one_shot: bool = False


@dataclass
class _Seen:
    """What was seen of all containers so far, by their id: while one service is waited for, the others get old enough to count."""

    restarts: dict[str, int] = field(default_factory=dict)
    # When it was started, when that was seen first, and whether it had been started before.
    started: dict[str, tuple[str, float, bool]] = field(default_factory=dict)

    def note(self, documents: Sequence[Document]) -> None:
        """Keep which containers run, and since when as far as was seen."""
        for document in documents:
            name, state = str(document.get("Id")), document.get("State") or {}
            started = str(state.get("StartedAt"))
            if state.get("Status") == "running" and self.started.get(name, ("", 0.0, False))[0] != started:
                self.started[name] = (started, time.monotonic(), name in self.started)


@dataclass(frozen=True)
class _State:
    ready: bool
    text: str
    hopeless: bool = False
    health: str | None = None


class Waiter:
    """Waits for services of a project. ``ask`` and ``sleep`` are replaced in tests."""

    def __init__(self, engine: _docker.Engine, project: str, timeout_s: float, settle_s: float = SETTLE_S) -> None:
        self._engine, self._project, self._settle_s = engine, project, settle_s
        self._begin = time.monotonic()
        self._deadline, self._timeout_s = self._begin + timeout_s, timeout_s
        self.ask: Ask = ask
        self.logs: Callable[[str, int], list[str]] = logs
        self._seen = _Seen()

    def wait(self, services: Sequence[Service], log_lines: int, secrets: Sequence[str]) -> list[Document]:
        """Return when each service was ready, in seconds since the start. Raises NotReady for the first one that is not."""
        found = []
        for service in services:
            state, ids = self._one(service)
            after = round(time.monotonic() - self._begin, 1)
            if not state.ready:
                log = [masked(line, secrets) for name in ids for line in self.logs(name, log_lines)][-log_lines:] if log_lines else []
                message = masked(f"Service {service.name} of project {self._project} {state.text} (after {after:g} s).", secrets)
                raise NotReady(message, service.name, log)
            found.append(
                {"name": service.name, "state": "exited" if service.one_shot else "running", "health": state.health, "after_s": after}
            )
        return found

    def _one(self, service: Service) -> tuple[_State, list[str]]:
        """Wait for one service; return what it came to, and the ids of its containers."""
        ids: list[str] = []
        while True:
            try:
                everything = self._engine.containers(self._project)
                self._seen.note(everything)
                documents = _of_service(everything, service.name)
                ids = [str(document.get("Id")) for document in documents]
                state = self._judge(service, documents)
            except (_docker.DockerError, _docker.DockerUnavailable) as error:
                state = _State(False, f"cannot be looked at: {error}")
            late = time.monotonic() >= self._deadline
            if state.ready or state.hopeless:
                return state, ids
            if late:
                return _State(False, f"{state.text}, and the {self._timeout_s:g} seconds for all services are over"), ids
            time.sleep(max(0.0, min(_INTERVAL_S, self._deadline - time.monotonic())))

    def _judge(self, service: Service, documents: Sequence[Document]) -> _State:
        if not documents:
            return _State(False, "has no container")
        states = [self._container(service, document) for document in documents]
        return next((state for state in states if state.hopeless), None) or next((state for state in states if not state.ready), states[0])

    def _container(self, service: Service, document: Document) -> _State:
        state = document.get("State") or {}
        name, status = str(document.get("Id")), str(state.get("Status") or "unknown")
        restarts = int(document.get("RestartCount") or 0)
        again = restarts - self._seen.restarts.setdefault(name, restarts)
        if again >= _LOOP:
            return _State(False, f"starts and ends again and again ({again} times, last with exit status {state.get('ExitCode')})", True)
        if service.one_shot:
            return _one_shot(document, state, status)
        if status != "running":
            return _State(False, _stopped(status, state), status in ("exited", "dead") and not _comes_back(document))
        return self._running(service, document, state)

    def _running(self, service: Service, document: Document, state: Document) -> _State:
        health = (state.get("Health") or {}).get("Status")
        if service.healthcheck and health:
            if health == "healthy":
                return _State(True, "", health=health)
            return _State(False, f"runs and should get healthy, and its healthcheck says {health}{_last_check(state)}")
        if service.health:
            problem = self.ask(int(state.get("Pid") or 0), service.health)
            if problem is None:
                return _State(True, "", health="answers")
            return _State(False, f"runs and should answer {service.health} in its own network, and {problem}")
        _started, since, again = self._seen.started[str(document.get("Id"))]
        if time.monotonic() - since < self._settle_s:
            return _State(False, f"{'does not stay' if again else 'has not been'} up for {self._settle_s:g} seconds")
        return _State(True, "", health=health)


def _of_service(documents: Sequence[Document], service: str) -> list[Document]:
    """Return a service's own containers, without those of 'docker compose run'."""
    found = []
    for document in documents:
        labels = (document.get("Config") or {}).get("Labels") or {}
        if labels.get("com.docker.compose.service") == service and labels.get("com.docker.compose.oneoff") != "True":
            found.append(document)
    return found


def _comes_back(document: Document) -> bool:
    policy = ((document.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name")
    return policy in ("always", "unless-stopped", "on-failure")


def _one_shot(document: Document, state: Document, status: str) -> _State:
    if status not in ("exited", "dead"):
        return _State(False, f"should end with exit status 0, and its state is {status}")
    code = state.get("ExitCode")
    if code == 0:
        return _State(True, "")
    return _State(False, f"should end with exit status 0, and ended with {code}", not _comes_back(document))


def _stopped(status: str, state: Document) -> str:
    text = f"should run, and its state is {status}"
    if status in ("exited", "dead", "restarting"):
        text += f" (exit status {state.get('ExitCode')}{', killed for memory' if state.get('OOMKilled') else ''})"
    error = " ".join(str(state.get("Error") or "").split())
    return f"{text}: {error[:200]}" if error else text


def _last_check(state: Document) -> str:
    entries = (state.get("Health") or {}).get("Log") or []
    said = " ".join(str((entries[-1] or {}).get("Output") or "").split()) if entries and isinstance(entries[-1], dict) else ""
    return f" ({said[:200]})" if said else ""


def ask(pid: int, url: str) -> str | None:
    """Ask a URL in the network namespace of a process; return None for 2xx, else what was seen instead.

    The namespace is entered from the host, since an image need not have a client, a service may listen on 127.0.0.1
    only, and the host may have no way into an internal network.
    """
    if pid <= 0:
        return "it has no process"
    try:
        result = _command.call(lambda: _visit(pid, url), _ASK_S)
    except _command.CannotStart as error:
        return str(error).rstrip(".")
    if result.timed_out:
        return f"there was no answer within {_ASK_S:g} seconds"
    said = result.out.strip()
    if result.rc or not said:
        return "asking it failed"
    return None if said == "null" else str(json.loads(said))


def _visit(pid: int, url: str) -> str | None:
    """Enter the namespace and ask. Runs in a child of its own, which stays there."""
    try:
        number = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except OSError as error:
        return f"its network cannot be entered ({error.strerror})"
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(number, _CLONE_NEWNET):
        return f"its network cannot be entered ({os.strerror(ctypes.get_errno())}); become root"
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            # Its certificate has the site's name, not the address that it is asked by; nothing secret is sent.
            context = ssl._create_unverified_context()  # noqa: S323
            connection = http.client.HTTPSConnection(parts.hostname or "127.0.0.1", parts.port, timeout=_ASK_S, context=context)
        else:
            connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=_ASK_S)
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"there was no answer ({' '.join(str(error).split())[:150] or error.__class__.__name__})"
    return None if 200 <= status < 300 else f"it answered {status}"


def logs(container: str, lines: int) -> list[str]:
    """Return a container's last lines of both outputs in the order of their time; none where they cannot be had."""
    program = _command.find("docker")
    if program is None:
        return ["(the docker command is not on this host, so that the log cannot be shown)"]
    try:
        result = _command.run([program, "logs", "--timestamps", "--tail", str(lines), container], 20.0)
    except _command.CannotStart as error:
        return [f"(the log cannot be read: {error})"]
    both = sorted(result.out.splitlines() + result.err.splitlines(), key=lambda line: line.partition(" ")[0])
    return [_STAMP.sub("", line, count=1) for line in both[-lines:]]


def secret_values(path: str) -> list[str]:
    """Return the values in a file of NAME=value lines, longest first; none where there is no such file. Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    values: set[str] = set()
    for line in lines:
        name, _equals, value = line.strip().partition("=")
        if name.startswith("#") or len(value) < _SHORTEST_SECRET:
            continue
        plain = value[1:-1] if value[0] == value[-1] and value[0] in "'\"" else value
        values |= {text for text in (value, plain, quote(plain, safe=""), quote_plus(plain)) if len(text) >= _SHORTEST_SECRET}
    return sorted(values, key=len, reverse=True)


def masked(line: str, secrets: Sequence[str]) -> str:
    """Return a line of a log without secrets: known values, values of keys that look like one, passwords in URLs."""
    line = _CONTROL.sub("", line)
    for secret in secrets:
        line = line.replace(secret, _MASK)
    # More than is shown, and little enough for expressions that look back.
    line = line[: 4 * _LONGEST_LINE]
    line = _IN_URL.sub(rf"\g<1>{_MASK}@", line)
    line = _BEARER.sub(rf"\g<1> {_MASK}", line)
    line = _ASSIGNED.sub(rf"\g<1>{_MASK}", line)
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + " ..."
