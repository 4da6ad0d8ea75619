# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other images: web, vector store, sandboxes, agent backend, proxy. Small, and strict about what they are given."""
from __future__ import annotations

import base64
import binascii
import hmac
import os
from pathlib import Path
from typing import Any

from dify_standin import redis
from dify_standin.common import VERSION, Handler, fail, faults, needed, serve

PAGE = """<!doctype html>
<html lang="en"><head><title>Dify (STAND-IN)</title></head>
<body><h1>STAND-IN {version}</h1><p>This page stands for Dify's in tests. No part of Dify is here.</p></body></html>
"""


def same(given: str | None, expected: str) -> bool:
    """Compare a secret that a request brings."""
    return hmac.compare_digest((given or "").encode(), expected.encode())


def web(_arguments: list[str]) -> None:
    """Serve a page on port 3000."""

    class Web(Handler):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            return (200, PAGE.format(version=VERSION)) if method == "GET" else (405, {"message": "only GET"})

    serve(3000, Web)


def weaviate(_arguments: list[str]) -> None:
    """Keep objects as files, for who has a key."""
    given = needed("PERSISTENCE_DATA_PATH", "AUTHENTICATION_APIKEY_ALLOWED_KEYS", "AUTHENTICATION_APIKEY_USERS")
    if os.environ.get("AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED", "false") == "true":
        fail("this stand-in is for sites where nobody is anonymous")
    keys = given["AUTHENTICATION_APIKEY_ALLOWED_KEYS"].split(",")
    data = Path(given["PERSISTENCE_DATA_PATH"]) / "standin"
    data.mkdir(parents=True, exist_ok=True)

    class Weaviate(Handler):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            if path.startswith("/v1/.well-known/"):
                return 200, {}
            bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if not any(same(bearer, key) for key in keys):
                return 401, {"error": [{"message": "anonymous access not enabled"}]}
            if (method, path) == ("POST", "/v1/objects"):
                name = Path(str(self.document(body).get("id", ""))).name
                (data / (name or "_")).write_bytes(body)
                return 200, {"id": name}
            return 200, {"objects": sorted(entry.name for entry in data.iterdir())}

    serve(8080, Weaviate)


def sandbox(_arguments: list[str]) -> None:
    """Refuse to run code without the key, and with it too: nothing is run here."""
    key = needed("API_KEY")["API_KEY"]
    if not Path("/conf/config.yaml").is_file():
        fail("failed to init config: /conf/config.yaml is not there")

    class Sandbox(Handler):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            if path == "/health":
                return 200, "ok"
            if not same(self.headers.get("X-Api-Key"), key):
                return 401, {"code": 401, "message": "Unauthorized"}
            return 200, {"code": 0, "message": "success", "data": {"stdout": "", "error": "STAND-IN: no code is run here"}}

    serve(int(os.environ.get("SANDBOX_PORT") or 8194), Sandbox)


def agent_backend(_arguments: list[str]) -> None:
    """Check what it is given as strictly as the genuine one: the key decodes to exactly 32 bytes."""
    given = needed(
        "DIFY_AGENT_SERVER_SECRET_KEY", "DIFY_AGENT_API_TOKEN", "DIFY_AGENT_REDIS_URL", "DIFY_AGENT_PLUGIN_DAEMON_API_KEY",
        "DIFY_AGENT_INNER_API_KEY",
    )
    text = given["DIFY_AGENT_SERVER_SECRET_KEY"]
    try:
        size = len(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        size = -1
    if size != 32 or text.endswith("="):
        fail("DIFY_AGENT_SERVER_SECRET_KEY must be unpadded base64url that decodes to exactly 32 bytes")
    redis.when_up(given["DIFY_AGENT_REDIS_URL"])

    class Agent(Handler):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            if path == "/health":
                return 200, {"status": "ok"}
            if not same((self.headers.get("Authorization") or "").removeprefix("Bearer "), given["DIFY_AGENT_API_TOKEN"]):
                return 401, {"detail": "unauthorized"}
            return 501, {"detail": "STAND-IN: no agent runs here"}

    serve(5050, Agent)


def local_sandbox(_arguments: list[str]) -> None:
    """Answer /healthz, and nothing without the token, which may be empty as upstream's is by default."""
    token = os.environ.get("SHELLCTL_AUTH_TOKEN", "")

    class Shell(Handler):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            if path == "/healthz":
                return 200, {"status": "ok"}
            if not same((self.headers.get("Authorization") or "").removeprefix("Bearer "), token) and token:
                return 401, {"error": "unauthorized"}
            return 501, {"error": "STAND-IN: no command is run here"}

    serve(5004, Shell)


def squid(_arguments: list[str]) -> None:
    """Stand for the proxy: private networks are refused, and no other can be reached from tests."""
    if "proxy_down" in faults():
        fail("does not start (a fault that a test set)")

    class Proxy(Handler):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            return 403, "STAND-IN: access denied"

        do_CONNECT = Handler.do_GET

    serve(int(os.environ.get("HTTP_PORT") or 3128), Proxy)
