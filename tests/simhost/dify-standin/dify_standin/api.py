# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image dify-api: api, websocket, worker, beat and migration, by MODE."""
from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from dify_standin import console_bridge, database, redis
from dify_standin.common import STORAGE, VERSION, fail, faults, needed, say, until_stopped

MODES = ("api", "worker", "beat", "migration", "job")
SETTINGS = ("DB_PASSWORD", "REDIS_PASSWORD", "CELERY_BROKER_URL", "CODE_EXECUTION_API_KEY", "PLUGIN_DAEMON_KEY", "INNER_API_KEY_FOR_PLUGIN")
PAUSE_S = 0.5


def start(arguments: list[str]) -> None:
    """Run what MODE says."""
    mode = os.environ.get("MODE", "api")
    if mode not in MODES:
        fail(f"MODE is {mode!r}, and is one of {', '.join(MODES)}")
    needed(*SETTINGS)
    if database.number(VERSION) >= database.number("1.16.0"):
        needed("AGENT_BACKEND_API_TOKEN")
    secret_key()
    if mode == "migration" or os.environ.get("MIGRATION_ENABLED", "true") == "true":
        _migrate(patient=mode == "migration")
    if mode == "job":
        sys.exit(subprocess.run(arguments, check=False).returncode)
    if mode != "migration":
        {"api": _api, "worker": _worker, "beat": _beat}[mode]()


def secret_key() -> str:
    """Return SECRET_KEY. Where it is empty, releases since 1.15 keep one of their own in the storage, older ones do not start."""
    given = os.environ.get("SECRET_KEY", "")
    if given:
        return given
    if database.number(VERSION) < database.number("1.15.0"):
        fail("cannot start without SECRET_KEY")
    path = STORAGE / ".dify_secret_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(42), encoding="ascii")
    return path.read_text(encoding="ascii")


def cache_url() -> str:
    """Return the address of Redis as the settings have it."""
    name, password = os.environ.get("REDIS_USERNAME", ""), os.environ["REDIS_PASSWORD"]
    return f"redis://{name}:{password}@{os.environ.get('REDIS_HOST', 'redis')}:{os.environ.get('REDIS_PORT', '6379')}/0"


def _migrate(*, patient: bool) -> None:
    """Change tables under a lock: one container does it, the others wait until they are as this release knows them."""
    connection = database.connect()
    deadline = time.monotonic() + 120
    while True:
        with redis.lock(redis.when_up(cache_url()), "db_upgrade_lock") as held:
            if held:
                found = faults()
                if "migration_hangs" in found and patient:
                    say("changing tables takes very long (a fault that a test set)")
                    time.sleep(3600)
                database.migrate(connection, VERSION, break_off="migration_fails" in found)
                break
        if database.revision(connection) == database.steps_of(VERSION)[-1].revision:
            break
        if time.monotonic() > deadline:
            fail("another container held the lock of the migration for two minutes")
        time.sleep(0.3)
    connection.close()


def _api() -> None:
    if "never_healthy" in faults():
        say("does not answer (a fault that a test set)")
        time.sleep(3600)
    _storage_is_ours()
    console_bridge.serve(VERSION, health=_health)


def _health() -> tuple[int, dict[str, Any]]:
    """Return what /health says. As upstream, it does not look at the database."""
    return 200, {"pid": os.getpid(), "status": "ok", "version": VERSION}


def _storage_is_ours() -> None:
    try:
        (STORAGE / ".standin-write").write_text("", encoding="ascii")
    except OSError as error:
        fail(f"cannot write to the storage: {error}")


def _worker() -> None:
    """Write the same number into the database, the storage and the vector store, again and again.

    So a backup that was not made at one point of time shows: the three differ.
    """
    redis.when_up(os.environ["CELERY_BROKER_URL"]).call("SET", "standin:worker", VERSION)
    stopped = until_stopped()
    connection = database.connect()
    folder = STORAGE / "standin_work"
    folder.mkdir(exist_ok=True)
    insert = database.insert_message(VERSION)
    say("ready.")
    while not stopped():
        last = database.rows(connection, "SELECT coalesce(max(number), 0) FROM standin_work")[0][0]
        database.rows(connection, "INSERT INTO standin_work (number, finished) VALUES (%s, false)", last + 1)
        (folder / str(last + 1)).write_text(VERSION, encoding="ascii")
        _remember(last + 1)
        database.rows(connection, insert, f"work {last + 1} of {VERSION}")
        database.rows(connection, "UPDATE standin_work SET finished = true WHERE number = %s", last + 1)
        time.sleep(PAUSE_S)
    say("stopped after what was under way")


def _remember(number: int) -> None:
    """Have the vector store keep a number."""
    if os.environ.get("VECTOR_STORE", "weaviate") != "weaviate":
        return
    request = urllib.request.Request(
        os.environ.get("WEAVIATE_ENDPOINT", "http://weaviate:8080") + "/v1/objects", method="POST",
        data=json.dumps({"class": "StandIn", "id": str(number)}).encode(),
        headers={"Authorization": f"Bearer {os.environ.get('WEAVIATE_API_KEY', '')}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10):
            return
    except urllib.error.HTTPError as error:
        fail(f"the vector store answers {error.code}: is WEAVIATE_API_KEY among its keys?")
    except OSError as error:
        say(f"the vector store does not answer yet: {error}")


def _beat() -> None:
    broker = redis.when_up(os.environ["CELERY_BROKER_URL"])
    stopped = until_stopped()
    say("beat: starting")
    while not stopped():
        broker.call("SET", "standin:beat", str(int(time.time())))
        time.sleep(PAUSE_S)
