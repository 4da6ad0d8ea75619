# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every stand-in uses: settings that have to be there, log lines, faults that a test sets, an HTTP server."""
from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = os.environ.get("STANDIN_VERSION", "0")
STORAGE = Path(os.environ.get("STANDIN_STORAGE", "/app/api/storage"))
FAULTS = "standin-faults"


def say(text: str) -> None:
    """Write one line of the container's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} STAND-IN {VERSION}: {text}", flush=True)


def fail(text: str) -> None:
    """End the container with a sentence."""
    say(f"ERROR {text}")
    sys.exit(1)


def needed(*names: str) -> dict[str, str]:
    """Return settings of the environment; the container ends where one is missing or empty."""
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        fail(f"cannot start without {', '.join(missing)}")
    return {name: os.environ[name] for name in names}


def parse_faults(text: str, version: str) -> set[str]:
    """Return the faults of a version; a line, or what is between commas, is ``<version or *>:<fault>``."""
    words = [word.strip().partition(":")[::2] for word in text.replace("\n", ",").split(",")]
    return {fault for of, fault in words if fault and of in (version, "*")}


def faults() -> set[str]:
    """Return the faults that a test set for this version, in STANDIN_FAULTS or in a file of the storage."""
    text = os.environ.get("STANDIN_FAULTS", "")
    for file in (STORAGE / FAULTS, Path("/app/storage") / FAULTS):
        if file.is_file():
            text += "\n" + file.read_text(encoding="utf-8")
    return parse_faults(text, VERSION)


def until_stopped() -> Callable[[], bool]:
    """Return a function that says whether SIGTERM has come: what is under way is finished first."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    return lambda: bool(stopped)


class Handler(BaseHTTPRequestHandler):
    """Answers in JSON. A subclass has ``answer``, which returns a status and a document (or text)."""

    protocol_version = "HTTP/1.1"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        raise NotImplementedError

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, document = self.answer(self.command, self.path.partition("?")[0], body)
        text = document if isinstance(document, str) else json.dumps(document)
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if isinstance(document, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def log_message(self, *_args: Any) -> None:
        """Keep the log for what happens once."""

    def document(self, body: bytes) -> dict[str, Any]:
        """Return the body as a JSON object, an empty one where it is none."""
        try:
            found = json.loads(body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def serve(port: int, handler: type[BaseHTTPRequestHandler]) -> None:
    """Answer on all addresses until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = ThreadingHTTPServer(("0.0.0.0", port), handler)
    server.daemon_threads = True
    say(f"answers on port {port}")
    server.serve_forever()
