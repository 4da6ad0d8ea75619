# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every request passes first: the API key, the size of its body, and the count of its answer."""

from __future__ import annotations

import hmac
import json
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ServiceError
from .metrics import Metrics

# Health checks and scrapers have no key, and learn nothing from these pages that needs one.
PUBLIC = ("/health", "/metrics")
ENDPOINTS = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/rerank": "rerank",
    "/v1/models": "models",
}


class Gate:
    """ASGI middleware. It stands before the parsing, so that a caller without the key costs nothing."""

    def __init__(self, app: ASGIApp, api_key: str, max_body_mib: int, metrics: Metrics) -> None:
        self._app = app
        self._key = api_key.encode()
        self._max_body = max_body_mib * 1024 * 1024
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        endpoint = ENDPOINTS.get(scope["path"], "other")
        began = time.monotonic()
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._checked(scope, receive, observed)
        finally:
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.monotonic() - began)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if not self._key_fits(headers.get(b"authorization", b"")):
            error = ServiceError(
                401,
                "A valid API key is needed: send it as 'Authorization: Bearer <key>'.",
                "invalid_api_key",
                {"WWW-Authenticate": "Bearer"},
            )
            await _answer(error, send)
            return
        declared = headers.get(b"content-length", b"0")
        body = None if declared.isdigit() and int(declared) > self._max_body else await self._body(receive)
        if body is None:
            await _answer(self._too_large(), send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replayed, send)

    async def _body(self, receive: Receive) -> bytes | None:
        """The complete body; None when it is above the limit, which a sender need not declare."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)

    def _key_fits(self, header: bytes) -> bool:
        scheme, _space, key = header.partition(b" ")
        # compare_digest takes as long for a key that is nearly right as for one that is all wrong.
        return hmac.compare_digest(key.strip(), self._key) and scheme.lower() == b"bearer"

    def _too_large(self) -> ServiceError:
        limit = self._max_body // 1024 // 1024
        return ServiceError(413, f"The request is larger than {limit} MiB (MAX_BODY_MIB): send fewer inputs.", "request_too_large")


async def _answer(error: ServiceError, send: Send) -> None:
    body = json.dumps(error.body()).encode()
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    start: dict[str, Any] = {"type": "http.response.start", "status": error.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
