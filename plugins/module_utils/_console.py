# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dify's console API, as its own web pages use it: a login by cookies, and JSON.

It is internal to Dify and changes between releases. What is known of it was read in Dify 1.12 to 1.17; an answer of another shape ends in
one sentence that says what was asked, expected and seen. No sentence has anything in it that was sent.

This is private to difyops.gpu.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.error import HTTPError, URLError

from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.urls import Request

API_CHANGED, REFUSED, NO_SITE = "DG920", "DG921", "DG923"
TIMEOUT_S = 60
# Tries of a request that nobody answered, and seconds between them: a proxy that was started a moment ago.
TRIES, PAUSE_S = 5, 2.0
# Characters of an answer that a sentence quotes.
_QUOTED = 200
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

    @property
    def good(self) -> bool:
        """Whether the request was done."""
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """Dify's own words on what is wrong."""
        document = self.document if isinstance(self.document, dict) else {}
        told = document.get("message") or document.get("error") or document.get("code")
        return " ".join(str(told or self.text).split())[:_QUOTED]


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

    def ask(self, method: str, path: str, body: Any = None, data: bytes | None = None, content_type: str = "application/json") -> Answer:
        """Send one request and return the answer, whatever its status.

        Raises:
            ConsoleError: nobody answered.
        """
        content = json.dumps(body).encode("utf-8") if body is not None else data
        for attempt in range(1, self.tries + 1):
            try:
                return self._send(method, path, content, content_type)
            except (URLError, OSError, ValueError) as error:  # noqa: PERF203  what is tried again
                if attempt == self.tries:
                    reason = getattr(error, "reason", None) or error
                    raise ConsoleError(NO_SITE, f"{self.url} does not answer: {method} {path}: {to_text(reason)}.") from error
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
        return Answer(status, _parsed(text), text, {name.lower(): value for name, value in answer.headers.items()})

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
        seen = " ".join(answer.text.split())[:_QUOTED] or "nothing"
        return other_than(method, path, expected, f"{answer.status}: {seen}")

    # what the modules have in common

    def setup_step(self) -> str:
        """Return `finished` or `not_started`.

        Raises:
            ConsoleError: another answer.
        """
        path = "/console/api/setup"
        step = self.get(path, "the step of the setup").get("step")
        if step not in ("finished", "not_started"):
            raise other_than("GET", path, "step finished or not_started", repr(step)[:_QUOTED])
        return str(step)

    def login(self, email: str, password: str) -> None:
        """Log in. The password goes in base64, as the pages of Dify 1.12 and newer send it; older ones take it as it is.

        Raises:
            ConsoleError: refused, or another answer.
        """
        path = "/console/api/login"
        answer = self._log_in(path, email, base64.b64encode(password.encode("utf-8")).decode("ascii"))
        if answer.status in (400, 401) and "rate" not in answer.reason.lower():
            answer = self._log_in(path, email, password)
        if answer.status in (400, 401, 403):
            refused = f"Dify refuses the login of {email}: {answer.reason.rstrip('.')}."
            raise ConsoleError(API_CHANGED, f"{refused} Correct dify_admin, or the password in Dify.")
        self.done("POST", path, answer, "cookies of a login")
        if not self._cookie("access_token"):
            raise other_than("POST", path, "the cookie access_token", "none")

    def _log_in(self, path: str, email: str, password: str) -> Answer:
        return self.ask("POST", path, {"email": email, "password": password, "remember_me": True, "language": "en-US"})


def other_than(method: str, path: str, expected: str, seen: str) -> ConsoleError:
    """Return the error for an answer that nobody here knows."""
    asked = f"{method} {path.partition('?')[0]}"
    return ConsoleError(API_CHANGED, f"Dify answers otherwise than expected: {asked}: expected {expected}, seen {seen}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
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
