# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases: a connection when they are up, and what each release changes in their tables."""
from __future__ import annotations

import time
from typing import Any, NamedTuple

import psycopg2

from dify_standin.common import fail, needed, say


class Step(NamedTuple):
    """What one release changes: the number under which the tables are known afterwards, and the statements."""

    release: str
    revision: str
    statements: tuple[str, ...]


# Each is committed statement by statement, so that one that fails half-way leaves tables that no release knows.
STEPS = (
    Step("1.14.2", "a1142", (
        "CREATE TABLE standin_messages (id bigserial PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now(), text text NOT NULL)",
        "CREATE TABLE standin_work (number bigint PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now(), finished boolean NOT NULL)",
    )),
    Step("1.16.1", "b1161", (
        "ALTER TABLE standin_messages ADD COLUMN agent text",
        "UPDATE standin_messages SET agent = 'before 1.16'",
    )),
    Step("1.17.1", "c1171", (
        # Releases before this one cannot work with what it leaves.
        "ALTER TABLE standin_messages RENAME COLUMN text TO body",
        "CREATE TABLE standin_topics (id bigserial PRIMARY KEY, name text NOT NULL)",
        "INSERT INTO standin_topics (name) SELECT DISTINCT left(body, 20) FROM standin_messages",
    )),
    Step("1.17.2", "d1172", (
        "ALTER TABLE standin_topics ADD COLUMN closed boolean NOT NULL DEFAULT false",
        "ALTER TABLE standin_messages RENAME COLUMN agent TO author",
    )),
    Step("1.18.0", "e1180", (
        "CREATE INDEX ON standin_topics (name)",
        "ALTER TABLE standin_topics ADD COLUMN opened_at timestamptz",
    )),
)


def number(version: str) -> tuple[int, ...]:
    """Return a version for comparing."""
    return tuple(int(part) for part in version.split("."))


def steps_of(version: str) -> list[Step]:
    """Return what a release knows, oldest first."""
    return [step for step in STEPS if number(step.release) <= number(version)]


def connect(database: str | None = None, seconds: float = 60) -> Any:
    """Return a connection that commits each statement; a password that is refused ends the container at once."""
    given = needed("DB_HOST", "DB_PORT", "DB_USERNAME", "DB_PASSWORD", "DB_DATABASE")
    deadline = time.monotonic() + seconds
    while True:
        made, why = _attempt(given, database or given["DB_DATABASE"])
        if made is not None:
            made.autocommit = True
            return made
        if "authentication failed" in why or "does not exist" in why or time.monotonic() > deadline:
            fail(f"the database refuses: {why}")
        time.sleep(0.3)


def _attempt(given: dict[str, str], database: str) -> tuple[Any, str]:
    """Return a connection, or None and why there is none."""
    try:
        made = psycopg2.connect(
            host=given["DB_HOST"], port=given["DB_PORT"], user=given["DB_USERNAME"], password=given["DB_PASSWORD"], dbname=database,
            connect_timeout=5,
        )
    except psycopg2.OperationalError as error:
        return None, str(error).strip()
    return made, ""


def rows(connection: Any, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows, none where it has none."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []


def revision(connection: Any) -> str | None:
    """Return under which number the tables are known, None where there are none."""
    if rows(connection, "SELECT to_regclass('alembic_version')") == [(None,)]:
        return None
    found = rows(connection, "SELECT version_num FROM alembic_version")
    return str(found[0][0]) if found else None


def migrate(connection: Any, version: str, *, break_off: bool = False) -> None:
    """Bring the tables to what a release knows. Tables of a newer release, or half-changed ones, end the container."""
    known = steps_of(version)
    numbers = [step.revision for step in known]
    now = revision(connection)
    if now is not None and now not in numbers:
        fail(f"cannot find the revision '{now}' of the tables: they belong to a newer release")
    rows(connection, "CREATE TABLE IF NOT EXISTS alembic_version (version_num varchar(32) PRIMARY KEY)")
    for step in known[numbers.index(now) + 1 if now else 0:]:
        say(f"changing tables to {step.revision} ({step.release})")
        for position, statement in enumerate(step.statements):
            if break_off and step is known[-1] and position:
                fail(f"database migration failed: statement {position + 1} of {step.revision} (a fault that a test set)")
            try:
                rows(connection, statement)
            except psycopg2.Error as error:
                fail(f"database migration failed: {str(error).strip()}")
        rows(connection, "DELETE FROM alembic_version")
        rows(connection, "INSERT INTO alembic_version VALUES (%s)", step.revision)
    say(f"tables are at {numbers[-1]}")


def insert_message(version: str) -> str:
    """Return the statement that keeps a text, with the column's name as a release knows it."""
    if number(version) >= number("1.17.1"):
        return "INSERT INTO standin_messages (body) VALUES (%s)"
    return "INSERT INTO standin_messages (text) VALUES (%s)"
