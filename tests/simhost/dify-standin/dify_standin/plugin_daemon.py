# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image dify-plugin-daemon: keeps plugins, and calls model servers, so it has to reach them over the network."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dify_standin import database
from dify_standin.calls import call
from dify_standin.common import Handler, needed, serve
from dify_standin.services import same


def start(_arguments: list[str]) -> None:
    """Make the own database where there is none, and answer who has the key."""
    given = needed("SERVER_KEY", "DIFY_INNER_API_KEY", "DIFY_INNER_API_URL", "DB_DATABASE", "DB_PASSWORD", "REDIS_PASSWORD")
    connection = database.connect("postgres")
    name = given["DB_DATABASE"]
    if not database.rows(connection, "SELECT 1 FROM pg_database WHERE datname = %s", name):
        database.rows(connection, f'CREATE DATABASE "{name}"')
    own = database.connect(name)
    database.rows(own, "CREATE TABLE IF NOT EXISTS standin_plugins (identifier text PRIMARY KEY, made_at timestamptz DEFAULT now())")
    storage = Path(os.environ.get("PLUGIN_STORAGE_LOCAL_ROOT") or "/app/storage")
    (storage / "plugin").mkdir(parents=True, exist_ok=True)

    class Daemon(Handler):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            if path == "/health/check":
                return 200, {"status": "ok", "pool_status": {}}
            if not same(self.headers.get("X-Api-Key"), given["SERVER_KEY"]):
                return 401, {"code": -401, "message": "unauthorized"}
            if (method, path) == ("POST", "/standin/call"):
                return 200, call(self.document(body))
            if path == "/standin/plugins" and method == "POST":
                identifier = str(self.document(body).get("identifier", ""))
                database.rows(own, "INSERT INTO standin_plugins (identifier) VALUES (%s) ON CONFLICT DO NOTHING", identifier)
                (storage / "plugin" / identifier.replace("/", "_")).write_text(identifier, encoding="utf-8")
                return 200, {"code": 0}
            if path == "/standin/plugins":
                return 200, {"plugins": [found[0] for found in database.rows(own, "SELECT identifier FROM standin_plugins ORDER BY 1")]}
            return 404, {"code": -404, "message": "STAND-IN: not here"}

    serve(int(os.environ.get("SERVER_PORT") or 5002), Daemon)
