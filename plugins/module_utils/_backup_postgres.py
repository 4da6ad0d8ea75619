# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases of Dify in their container: dumped, made anew beside the present one, and exchanged in one transaction.

All programs run in the database's container, by its own user over its local socket. Where the server wants a password
even there, it is the one in the container's own environment: none is on a command line or in an environment of the host.

This is private to difyops.gpu.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import time
import unicodedata
from collections.abc import Sequence
from typing import IO, Any

from ansible_collections.difyops.gpu.plugins.module_utils import _backup_files, _docker
from ansible_collections.difyops.gpu.plugins.module_utils._backup_files import Problem

NEW, OLD = "_difyops_new", "_difyops_old"
# PostgreSQL cuts names after 63 bytes, without an error.
_LONGEST = 63 - len(NEW)
_BUSY = "being accessed by other users"
_ROLE_MISSING = re.compile(r'role "[^"]*" does not exist')
_LOCALE_MISSING = re.compile(r"invalid (LC_COLLATE |LC_CTYPE )?locale name|encoding .* does not match locale")
_WITH_PASSWORD = ("sh", "-c", 'PGPASSWORD="${POSTGRES_PASSWORD:-}" PGCLIENTENCODING=UTF8 exec "$@"', "sh")
_SQL_TIMEOUT_S = 120.0
_ITERATIONS = 4096


def identifier(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it, whatever the server's settings."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def verifier(password: str, salt: bytes | None = None) -> str:
    """Return what PostgreSQL keeps of a password (SCRAM-SHA-256), so that the password itself is in none of its logs."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", unicodedata.normalize("NFKC", password).encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    one, two, three = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{one}${two}:{three}"


class Server:
    """The database server in one container. Every method may raise Problem."""

    def __init__(self, engine: _docker.Engine, docker: str, container: str, user: str, timeout_s: float) -> None:
        self._engine, self._docker, self._container = engine, docker, container
        self._user, self._timeout_s = user, timeout_s
        self.warnings: list[str] = []

    def _argv(self, program: str, *argv: str) -> list[str]:
        return [*_WITH_PASSWORD, program, "--no-password", f"--username={self._user}", *argv]

    def sql(self, text: str) -> list[list[str]]:
        """Run statements in the maintenance database and return the rows."""
        argv = self._argv("psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--dbname=template1")
        try:
            rc, out, err = self._engine.exec(self._container, argv, text.encode(), _SQL_TIMEOUT_S)
        except (_docker.DockerError, _docker.DockerUnavailable) as error:
            raise Problem(f"The database server cannot be asked: {error}") from error
        if rc:
            raise Problem(
                f"The database server in container {self._container} refused: {_backup_files.one_line(err.decode(errors='replace'))}."
            )
        return [line.split("|") for line in out.decode(errors="replace").splitlines() if line]

    def names(self) -> set[str]:
        """Return the databases of the server."""
        return {row[0] for row in self.sql("SELECT datname FROM pg_database;")}

    def describe(self, name: str) -> dict[str, Any]:
        """Return what a database of the same kind is made by, and its size in bytes."""
        columns = "pg_encoding_to_char(encoding), datcollate, datctype, pg_database_size(oid), current_setting('server_version')"
        rows = self.sql(f"SELECT {columns} FROM pg_database WHERE datname = {literal(name)};")  # noqa: S608
        if not rows:
            raise Problem(
                f"Database {name} is not there. The server in container {self._container} has: {', '.join(sorted(self.names()))}."
            )
        encoding, collate, ctype, size, version = rows[0]
        return {"encoding": encoding, "collate": collate, "ctype": ctype, "size_bytes": int(size), "server_version": version}

    def _stream(self, argv: Sequence[str], what: str, stdin: IO[bytes] | None, stdout: IO[bytes] | None = None) -> None:
        _backup_files.stream([self._docker, "exec", "--interactive", "--", self._container, *argv], what, self._timeout_s, stdin, stdout)

    def dump(self, name: str, path: str) -> None:
        """Write a database into a new file of pg_dump's custom format, and have pg_restore read it again."""
        with _backup_files.private(path) as file:
            argv = self._argv("pg_dump", "--format=custom", f"--dbname=dbname={_connection(name)}")
            self._stream(argv, f"pg_dump of database {name}", None, file)
            _backup_files.settle(file)
        self.check(path)

    def check(self, path: str) -> None:
        """Have pg_restore read the list of what is in a dump."""
        with open(path, "rb") as file:
            self._stream(["pg_restore", "--list"], f"Reading {os.path.basename(path)} again with pg_restore", file)

    def prepare(self, name: str, path: str, like: dict[str, Any]) -> None:
        """Make the database ``<name>_difyops_new`` from a dump."""
        self.discard(name)
        try:
            self._create(name, like)
            self._fill(name, path)
        except Problem as problem:
            if not _ROLE_MISSING.search(str(problem)):
                raise
            self._drop(name + NEW)
            self._create(name, like)
            self._fill(name, path, "--no-owner", "--no-privileges")
            self.warnings.append(f"Database {name} was restored without its owners and grants, since a role of its is not on this server.")

    def _create(self, name: str, like: dict[str, Any]) -> None:
        text = f"CREATE DATABASE {identifier(name + NEW)} TEMPLATE template0"
        options = "".join(f" {key} {literal(str(like[field]))}" for key, field in _OPTIONS if like.get(field))
        try:
            self.sql(f"{text}{options};")
        except Problem as problem:
            if not _LOCALE_MISSING.search(str(problem)):
                raise
            self.sql(f"{text};")
            self.warnings.append(f"Database {name} has the locale of this server, since it does not know the one that it was made with.")

    def _fill(self, name: str, path: str, *options: str) -> None:
        argv = self._argv("pg_restore", "--exit-on-error", *options, f"--dbname=dbname={_connection(name + NEW)}")
        with open(path, "rb") as file:
            self._stream(argv, f"pg_restore of database {name}", file)

    def discard(self, name: str) -> None:
        """Take away what a killed restore left of a database, before a new one is prepared."""
        if len(name.encode()) > _LONGEST:
            raise Problem(f"The name of database {name} is longer than {_LONGEST} bytes, so that no second one can stand beside it.")
        names = self.names()
        if name not in names and name + OLD in names:
            self._end(name + OLD)
            self.sql(f"ALTER DATABASE {identifier(name + OLD)} RENAME TO {identifier(name)};")
            names.discard(name + OLD)
        for leftover in names & {name + NEW, name + OLD}:
            self._drop(leftover)

    def exchange(self, name: str) -> None:
        """Put the prepared database in the place of the present one, which stays beside it. Once it was begun it can be repeated."""
        for attempt in range(5):
            names = self.names()
            if name + NEW not in names:
                return
            self._end(name, name + NEW)
            first = f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(name + OLD)};" if name in names else ""
            try:
                self.sql(f"BEGIN; {first} ALTER DATABASE {identifier(name + NEW)} RENAME TO {identifier(name)}; COMMIT;")
            except Problem as problem:
                if _BUSY not in str(problem) or attempt == 4:
                    raise
                time.sleep(0.5)

    def drop_former(self, name: str) -> None:
        """Drop the database that was there before, where the new one is in its place."""
        names = self.names()
        if name in names and name + OLD in names:
            self._drop(name + OLD)

    def set_password(self, password: str) -> None:
        """Give the role the password that the restored settings have."""
        self.sql(f"ALTER ROLE {identifier(self._user)} PASSWORD {literal(verifier(password))};")

    def _end(self, *names: str) -> None:
        wanted = ", ".join(literal(name) for name in names)
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({wanted}) AND pid <> pg_backend_pid();")  # noqa: S608

    def _drop(self, name: str) -> None:
        for attempt in range(5):
            self._end(name)
            try:
                self.sql(f"DROP DATABASE IF EXISTS {identifier(name)};")
            except Problem as problem:
                if _BUSY not in str(problem) or attempt == 4:
                    raise
                time.sleep(0.5)
            else:
                return


_OPTIONS = (("ENCODING", "encoding"), ("LC_COLLATE", "collate"), ("LC_CTYPE", "ctype"))


def _connection(name: str) -> str:
    """Return a database's name for a connection string, which would read a bare one with = in it as more options."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
