# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dify's console API, as its own web pages use it: a login by cookies, and JSON.

It is internal to Dify and changes between releases. What is known of it was read in Dify 1.12 to 1.17; an answer of another shape ends in
one sentence that says what was asked, expected and seen. Dify quotes in some of its own what it was sent (pydantic's `input_value`, a model
server's "wrong key: ..."), so what is secret is taken out of every answer before it is quoted, pieces of it too.

Read in upstream's api/controllers/console: setup (201; a plain password, a name of at most 30 characters) and auth/login (cookies).
Seen on a running 1.12.1: one cookie jar for init and setup, a password in base64, 401 "Invalid encrypted data" for a plain one.

This is private to difyops.gpu.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.error import HTTPError, URLError

from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.urls import Request

API_CHANGED, REFUSED, NO_SITE, UNKNOWN_KEY = "DG920", "DG921", "DG923", "DG925"
TIMEOUT_S = 60
# Tries of a request that nobody answered, and seconds between them: a proxy that was started a moment ago.
TRIES, PAUSE_S = 5, 2.0
# Characters of an answer that a sentence quotes, and that are looked through for secrets.
_QUOTED, _LOOKED_AT = 200, 8000
# A piece of a secret that is as long as that is taken out too: pydantic shows the beginning and the end of what it was given.
_PIECE = 6
# From this release on the password goes in base64 only, as far as is known. Those are not asked twice, since Dify counts refused logins.
_BASE64_SINCE = (1, 12)
# https puts this before the names of cookies.
_PREFIX = "__Host-"

Sender = Callable[..., Any]


class ConsoleError(Exception):
    """What went wrong, in one sentence; *code* is that of docs/diagnosis.md."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Answer:
    """What Dify answered: the status, the document (None where it is no JSON), the text and the headers in lower case."""

    status: int
    document: Any
    text: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the request was done."""
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """Dify's own words on what is wrong."""
        document = self.document if isinstance(self.document, dict) else {}
        told = document.get("message") or document.get("error") or document.get("code")
        return self.quoted(told or self.text)

    @property
    def seen(self) -> str:
        """The answer as a sentence quotes it."""
        return f"{self.status}: {self.quoted(self.text) or 'nothing'}"

    def quoted(self, told: object) -> str:
        """Return a part of an answer in one line, cut, and with nothing secret in it."""
        text = to_text(str(told)[:_LOOKED_AT], errors="replace")
        return " ".join(without(text, self.secrets).split())[:_QUOTED]


@dataclass
class Console:
    """One visitor of the console with its cookies.

    Args:
        url: address of Dify, such as http://127.0.0.1.
        host_header: name of the site where the address is another one.
        ca_path: file of the authorities to trust, beside https only.
    """

    url: str
    host_header: str | None = None
    ca_path: str | None = None
    validate_certs: bool = True
    timeout_s: float = TIMEOUT_S
    tries: int = TRIES
    pause_s: float = PAUSE_S
    cookies: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    def hide(self, *secrets: str) -> None:
        """Take these out of whatever is quoted from now on, in base64 too."""
        for secret in secrets:
            self.secrets |= {secret, _base64(secret)} - {""}

    def ask(self, method: str, path: str, body: Any = None, data: bytes | None = None, content_type: str = "application/json") -> Answer:
        """Send one request and return the answer, whatever its status.

        Raises:
            ConsoleError: nobody answered.
        """
        content = json.dumps(body).encode("utf-8") if body is not None else data
        for attempt in range(1, self.tries + 1):
            try:
                return self._send(method, path, content, content_type)
            except (URLError, OSError, ValueError, http.client.HTTPException) as error:  # noqa: PERF203  what is tried again
                if attempt == self.tries or not _again(method, error):
                    reason = to_text(getattr(error, "reason", None) or error or "nothing was said", errors="replace")
                    told = " ".join(without(reason[:_QUOTED], self.secrets).split()).rstrip(".")
                    raise ConsoleError(NO_SITE, f"{self.url} does not answer: {method} {path.partition('?')[0]}: {told}.") from error
                time.sleep(self.pause_s)
        raise AssertionError("unreachable")  # pragma: no cover

    def _send(self, method: str, path: str, content: bytes | None, content_type: str) -> Answer:
        headers = {"Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = content_type
        if self.host_header:
            headers["Host"] = self.host_header
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in sorted(self.cookies.items()))
        token = self._cookie("csrf_token")
        if token:
            headers["X-CSRF-Token"] = token
        # The address is a server's own or the operator's site: a proxy of the environment has no part in it.
        request = Request(
            headers=headers, use_proxy=False, timeout=self.timeout_s, validate_certs=self.validate_certs, ca_path=self.ca_path,
            follow_redirects="none",
        )
        try:
            answer = request.open(method, self.url.rstrip("/") + path, data=content)
        except HTTPError as error:
            answer = error
        with answer:
            text = to_text(answer.read() or b"", errors="replace")
            self._keep(answer.headers)
            status = int(answer.code if answer.code is not None else 0)
        shown = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(status, _parsed(text), text, shown, (*self.secrets, *self.cookies.values()))

    def _keep(self, headers: Any) -> None:
        """Keep the cookies of an answer: by hand, since a jar keeps none that are meant for https where the proxy before Dify has it."""
        for line in headers.get_all("Set-Cookie") or []:
            name, equals, rest = line.partition("=")
            if equals:
                self.cookies[name.strip()] = rest.partition(";")[0].strip().strip('"')

    def _cookie(self, name: str) -> str | None:
        return self.cookies.get(_PREFIX + name) or self.cookies.get(name)

    def get(self, path: str, expected: str = "an object") -> dict[str, Any]:
        """Return the object that a path answers with.

        Raises:
            ConsoleError: another answer.
        """
        return self.done("GET", path, self.ask("GET", path), expected)

    def send(self, method: str, path: str, body: Any, expected: str = "an object") -> dict[str, Any]:
        """Send a document and return the object that comes back.

        Raises:
            ConsoleError: another answer.
        """
        return self.done(method, path, self.ask(method, path, body), expected)

    def done(self, method: str, path: str, answer: Answer, expected: str) -> dict[str, Any]:
        """Return the object of an answer.

        Raises:
            ConsoleError: the answer is none, or says that something is wrong.
        """
        if answer.good and isinstance(answer.document, dict):
            return answer.document
        raise self.other(method, path, answer, expected)

    def other(self, method: str, path: str, answer: Answer, expected: str) -> ConsoleError:
        """Return the error for an answer of another kind than expected."""
        return other_than(method, path, expected, answer.seen)

    # what the modules have in common

    def setup_step(self) -> str:
        """Return `finished` or `not_started`.

        Raises:
            ConsoleError: another answer.
        """
        path, expected = "/console/api/setup", "step finished or not_started"
        answer = self.ask("GET", path)
        step = self.done("GET", path, answer, expected).get("step")
        if step not in ("finished", "not_started"):
            raise self.other("GET", path, answer, expected)
        return str(step)

    def login(self, email: str, password: str) -> None:
        """Log in. The password goes in base64, as the pages of Dify 1.12 and newer send it; older ones take it as it is.

        Raises:
            ConsoleError: refused, or another answer.
        """
        path = "/console/api/login"
        self.hide(password)
        answer = self._log_in(path, email, _base64(password))
        if answer.status in (400, 401) and _takes_plain(answer):
            plain = self._log_in(path, email, password)
            # "Invalid encrypted data" is an answer to the way it was sent; what was wrong is in the first one.
            answer = answer if "encrypted" in plain.reason else plain
        if answer.status in (400, 401, 403):
            refused = f"Dify refuses the login of {email}: {answer.reason.rstrip('.')}."
            raise ConsoleError(API_CHANGED, f"{refused} Correct dify_admin, or the password in Dify.")
        self.done("POST", path, answer, "cookies of a login")
        if not self._cookie("access_token"):
            raise other_than("POST", path, "the cookie access_token", "none")

    def _log_in(self, path: str, email: str, password: str) -> Answer:
        return self.ask("POST", path, {"email": email, "password": password, "remember_me": True, "language": "en-US"})


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets, and without pieces of them."""
    hidden = bytearray(len(text))
    for secret in secrets:
        size = min(_PIECE, len(secret))
        pieces = {secret[start : start + size] for start in range(len(secret) - size + 1)} - {""}
        for start in range(len(text) - size + 1) if pieces else ():
            if text[start : start + size] in pieces:
                hidden[start : start + size] = b"\x01" * size
    if not any(hidden):
        return text
    kept = ("\0" if hide else char for char, hide in zip(text, hidden))
    return re.sub("\0+", "***", "".join(kept))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def _again(method: str, error: Exception) -> bool:
    """Return whether a request may be sent again: nobody was there, or it changes nothing and the line broke."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, ConnectionRefusedError):
        return True
    return method == "GET" and isinstance(reason, ConnectionError)


def _takes_plain(answer: Answer) -> bool:
    """Return whether the release that answers may take a password as it is: an older one, or one that does not tell."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", answer.headers.get("x-version", ""))
    return found is None or (int(found[1]), int(found[2])) < _BASE64_SINCE


def other_than(method: str, path: str, expected: str, seen: str) -> ConsoleError:
    """Return the error for an answer that nobody here knows."""
    asked = f"{method} {path.partition('?')[0]}"
    return ConsoleError(API_CHANGED, f"Dify answers otherwise than expected: {asked}: expected {expected}, seen {seen}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def multipart(name: str, filename: str, content: bytes) -> tuple[bytes, str]:
    """Return one file as a form, and its content type."""
    boundary = uuid.uuid4().hex
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return head.encode("utf-8") + content + f"\r\n--{boundary}--\r\n".encode("ascii"), f"multipart/form-data; boundary={boundary}"


def value_in(path: str, name: str) -> str | None:
    """Return the value of a line `NAME=value` in a file of secrets, None where there is no such line. Raises OSError."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            key, equals, value = line.rstrip("\n").partition("=")
            if equals and key.strip() == name:
                return value
    return None
