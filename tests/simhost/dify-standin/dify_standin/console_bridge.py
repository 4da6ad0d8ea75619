# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the console's stand-in stands on here: documents in PostgreSQL, and calls of model servers by the plugin daemon."""
from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from dify_standin import common, database

TIMEOUT_S = 30


class Documents:
    """JSON documents by name, in the database `dify`, so that they are in its dumps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = database.connect()
        database.rows(self._connection, "CREATE TABLE IF NOT EXISTS standin_documents (name text PRIMARY KEY, document jsonb NOT NULL)")

    def load(self, name: str) -> Any:
        """Return a document, None where there is none."""
        with self._lock:
            found = database.rows(self._connection, "SELECT document FROM standin_documents WHERE name = %s", name)
        return found[0][0] if found else None

    def save(self, name: str, document: Any) -> None:
        """Keep a document in place of the former one."""
        text = json.dumps(document)
        statement = "INSERT INTO standin_documents VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET document = excluded.document"
        with self._lock:
            database.rows(self._connection, statement, name, text)


def ask_daemon(path: str, document: dict[str, Any]) -> dict[str, Any]:
    """Have the plugin daemon do something. Raises OSError where it does not answer, or refuses the key."""
    request = urllib.request.Request(
        os.environ.get("PLUGIN_DAEMON_URL", "http://plugin_daemon:5002").rstrip("/") + path, method="POST",
        data=json.dumps(document).encode(), headers={"X-Api-Key": os.environ["PLUGIN_DAEMON_KEY"], "Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
        return dict(json.loads(answer.read()))


def call_model(url: str, headers: dict[str, str], document: dict[str, Any]) -> tuple[int | None, str]:
    """Have the plugin daemon call a model server. Returns its status and text; None and why where nothing answered."""
    try:
        told = ask_daemon("/standin/call", {"url": url, "headers": headers, "json": document})
    except urllib.error.HTTPError as error:
        return None, f"the plugin daemon answers {error.code}"
    except OSError as error:
        return None, f"Failed to request plugin daemon: {error}"
    return told.get("status"), str(told.get("body", told.get("error", "")))


def serve(version: str, health: Callable[[], tuple[int, dict[str, Any]]]) -> None:
    """Answer as the api does: /health here, all else by ``console.py``, whose ``handler`` makes the class that answers."""
    import console

    answering = console.handler(
        documents=Documents(), call_model=call_model, version=version, init_password=os.environ.get("INIT_PASSWORD", ""),
    )

    class Api(answering):  # type: ignore[misc, valid-type]
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/health":
                super().do_GET()
                return
            status, document = health()
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    common.serve(5001, Api)
