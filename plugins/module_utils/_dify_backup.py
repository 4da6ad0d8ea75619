# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of Dify: both databases, its folders and volumes, its settings and secrets, in one folder with a manifest.

A folder without the manifest is no backup: it is written last, and the folder has another name until then. A restore makes
everything anew beside what is there, writes down that all is whole (restore.json), and only then exchanges one after the
other by rename. Killed before that, nothing has changed; killed after it, the next run goes on from the record.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _backup_files, _command, _docker
from ansible_collections.difyops.gpu.plugins.module_utils._backup_files import Problem
from ansible_collections.difyops.gpu.plugins.module_utils._backup_postgres import Server

SCHEMA = 1
PARTIAL = ".partial"
MANIFEST = "manifest.json"
_MAKER = "maker.json"
_RECORD = "restore.json"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9][A-Za-z0-9._+-]*")
_SERVICE = "com.docker.compose.service"
_ONE_OFF = "com.docker.compose.oneoff"
_DAY_S = 86400
_SPARE = 64 << 20
# Name in the backup, and whether a backup without it is whole.
_FILES = (("release/.env", True), ("release/docker-compose.override.yaml", False), ("secrets.env", False))

Document = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is backed up or restored, and where. ``databases``: each with name, service and user."""

    home: str
    project: str
    directory: str
    version: str
    databases: Sequence[Document]
    paths: Sequence[str]
    volumes: Sequence[str]
    stopped: Sequence[str]
    secrets_file: str
    journal: str
    keep: int
    timeout_s: float

    def place(self, name: str, version: str) -> str:
        """Return where a file of the backup belongs on this host."""
        if name == "secrets.env":
            return self.secrets_file
        return os.path.join(self.home, "releases", version, "docker", os.path.basename(name))

    def folder(self, path: str) -> str:
        """Return where a path of the backup is on this host, links followed. Raises Problem for one that leads out."""
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise Problem(f"{path!r} is no path below {self.home}.")
        return os.path.realpath(os.path.join(self.home, path))


class Backup:
    """One backup folder."""

    def __init__(self, job: Job, engine: _docker.Engine, docker: str) -> None:
        self._job, self._engine, self._docker = job, engine, docker
        self.warnings: list[str] = []
        self.after: Callable[[str], None] = lambda _step: None  # tests end the run here

    # What is there

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        os.makedirs(self._job.directory, mode=0o700, exist_ok=True)
        number = os.open(os.path.join(self._job.directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(f"Another run is at work in {self._job.directory}: wait for its end.") from None
        else:
            yield
        finally:
            os.close(number)

    def _containers(self) -> list[Document]:
        try:
            found = self._engine.containers(self._job.project)
        except (_docker.DockerError, _docker.DockerUnavailable) as error:
            raise Problem(str(error)) from error
        return [document for document in found if (document.get("State") or {}).get("Running")]

    def _guard(self, running: Sequence[Document], folders: Sequence[str], volumes: Sequence[str], restoring: bool) -> None:
        """Raise Problem where a container that runs could write meanwhile, or would keep what is exchanged."""
        bases = {str(database["service"]) for database in self._job.databases}
        busy = set()
        for document in running:
            service = _label(document, _SERVICE) or str(document.get("Name", "")).lstrip("/")
            held = any(_holds(mount, folders, volumes, restoring) for mount in document.get("Mounts") or [])
            if service in self._job.stopped or (held and service not in bases):
                busy.add(service)
        if busy:
            raise Problem(f"{', '.join(sorted(busy))} of project {self._job.project} still run and use what is at stake: stop them first.")

    def _server(self, running: Sequence[Document], database: Document) -> Server:
        for document in running:
            if _label(document, _SERVICE) == database["service"] and _label(document, _ONE_OFF) != "True":
                return Server(self._engine, self._docker, str(document["Id"]), str(database["user"]), self._job.timeout_s)
        raise Problem(
            f"Service {database['service']} of project {self._job.project} does not run, and has database {database['name']}: start it."
        )

    def _volume(self, name: str) -> str | None:
        """Return the folder of a named volume, None where there is no such volume."""
        result = self._ask("volume", "inspect", "--format", "{{json .}}", name)
        if result.rc:
            if "no such volume" in result.err.lower():
                return None
            raise Problem(f"Volume {name} cannot be examined: {_backup_files.one_line(result.err)}.")
        try:
            document = json.loads(result.out)
            plain = document["Driver"] == "local" and not document.get("Options")
            folder = str(document["Mountpoint"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Problem(f"Volume {name} cannot be examined: the docker command answered something else than expected.") from error
        if not plain:
            raise Problem(f"Volume {name} is none of Docker's own kind on this host's disk: it cannot be backed up from here.")
        return folder

    def _ask(self, *argv: str) -> _command.Result:
        try:
            result = _command.run([self._docker, *argv], 60.0)
        except _command.CannotStart as error:
            raise Problem(str(error)) from error
        if result.timed_out:
            raise Problem("The container engine did not answer within 60 seconds.")
        return result

    # Making one

    def make(self, check: bool) -> Document:
        """Make a backup and take away those beyond ``keep``. Raises Problem; then nothing of it stays."""
        job = self._job
        with _sentences(job.directory), self._alone():
            running = self._containers()
            folders = {path: job.folder(path) for path in job.paths}
            volumes = {name: self._volume(name) for name in job.volumes}
            self._guard(running, list(folders.values()), job.volumes, False)
            databases = [{**database, **self._server(running, database).describe(str(database["name"]))} for database in job.databases]
            parts = [_part("path", path, folder) for path, folder in folders.items()]
            parts += [_part("volume", name, folder) for name, folder in volumes.items()]
            if not os.path.isfile(job.place("release/.env", job.version)):
                raise Problem(f"{job.place('release/.env', job.version)} is not there: release {job.version} is not what runs here.")
            size = sum(int(part["size_bytes"]) for part in (*databases, *parts))
            dead = self._dead()
            if check:
                return {"changed": True, "name": self._free_name(), "estimated_mib": size >> 20, "removed": []}
            for path in dead:
                _backup_files.remove(path)
            _backup_files.need(job.directory, size + size // 20 + _SPARE, "A backup of Dify")
            name = self._free_name()
            partial = os.path.join(job.directory, name + PARTIAL)
            try:
                manifest = self._fill(partial, running, databases, parts)
                os.rename(partial, os.path.join(job.directory, name))
            except BaseException:
                with contextlib.suppress(OSError):
                    _backup_files.remove(partial)
                raise
            _backup_files.settle_folder(job.directory)
            # Until now it told the next run whose the folder is.
            _backup_files.remove(os.path.join(job.directory, name, _MAKER))
            self.after("made")
            return {"changed": True, "removed": self._rotate(name), **self._summary(name, manifest)}

    def _free_name(self) -> str:
        while True:
            name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{self._job.version}"
            path = os.path.join(self._job.directory, name)
            if not os.path.lexists(path) and not os.path.lexists(path + PARTIAL):
                if not _NAME.fullmatch(name):
                    raise Problem(f"{self._job.version!r} is no version.")
                return name
            time.sleep(0.2)

    def _maker(self) -> Document:
        return {"host": _machine(), "home": self._job.home}

    def _dead(self) -> list[str]:
        """Return the folders of killed runs: of this Dify, since no other run is at work here, and of anybody's after a day."""
        found = []
        with os.scandir(self._job.directory) as entries:
            for entry in entries:
                if entry.name.endswith(PARTIAL) and _NAME.fullmatch(entry.name[: -len(PARTIAL)]) and entry.is_dir(follow_symlinks=False):
                    ours = _load(os.path.join(entry.path, _MAKER)) == self._maker()
                    if ours or time.time() - entry.stat(follow_symlinks=False).st_mtime > _DAY_S:
                        found.append(entry.path)
        return found

    def _fill(self, partial: str, running: Sequence[Document], databases: Sequence[Document], parts: Sequence[Document]) -> Document:
        job = self._job
        os.mkdir(partial, 0o700)
        _store(os.path.join(partial, _MAKER), self._maker())
        self.after("begun")
        made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        listed: list[Document] = []
        for database in databases:
            file = f"{_plain(str(database['name']))}.dump"
            self._server(running, database).dump(str(database["name"]), os.path.join(partial, file))
            listed.append({**database, "file": file})
            self.after(f"dumped {database['name']}")
        for part in parts:
            if part["file"] is not None:
                _backup_files.pack(str(part["folder"]), os.path.join(partial, str(part["file"])), job.timeout_s)
                self.after(f"packed {part['name']}")
        os.mkdir(os.path.join(partial, "release"), 0o700)
        for name, needed in _FILES:
            source = job.place(name, job.version)
            if needed or os.path.isfile(source):
                _backup_files.copy(source, os.path.join(partial, name))
        manifest: Document = {"schema": SCHEMA, "version": job.version, "made_at": made_at, "project": job.project, "databases": listed}
        for kind in ("path", "volume"):
            manifest[f"{kind}s"] = [_without(part, "folder", "kind") for part in parts if part["kind"] == kind]
        manifest["files"] = {name: _described(os.path.join(partial, name)) for name in _names(partial) if name != _MAKER}
        _store(os.path.join(partial, MANIFEST), manifest)
        for folder in (os.path.join(partial, "release"), partial):
            _backup_files.settle_folder(folder)
        self.after("manifest")
        return manifest

    def _rotate(self, made: str) -> list[str]:
        """Take away the oldest whole backups of this project beyond ``keep``; never the one just made nor the journal's."""
        job = self._job
        journal = _load(job.journal) or {}
        spared = {made, os.path.basename(str(journal.get("backup") or ""))}
        record = _load(os.path.join(job.home, _RECORD)) or {}
        spared.add(str(record.get("backup") or ""))
        whole = [name for name in sorted(os.listdir(job.directory), reverse=True) if _NAME.fullmatch(name) and self._of_project(name)]
        removed = [name for name in whole[max(job.keep, 1) :] if name not in spared]
        for name in removed:
            path = os.path.join(job.directory, name)
            # One that is half gone must not look whole.
            os.rename(path, path + PARTIAL)
            _backup_files.remove(path + PARTIAL)
        return removed

    def _of_project(self, name: str) -> bool:
        return (_load(os.path.join(self._job.directory, name, MANIFEST)) or {}).get("project") == self._job.project

    def _summary(self, name: str, manifest: Document) -> Document:
        size = sum(int(file["size"]) for file in manifest["files"].values())
        return {
            "name": name,
            "path": os.path.join(self._job.directory, name),
            "version": manifest["version"],
            "made_at": manifest["made_at"],
            "size_mib": -(-size >> 20),
            "databases": [str(database["name"]) for database in manifest["databases"]],
            "paths": [str(part["name"]) for part in manifest["paths"]],
            "volumes": [str(part["name"]) for part in manifest["volumes"]],
        }

    # Verifying one

    def verify(self, name: str) -> Document:
        """Compare each file with its digest. Raises Problem where the backup is not whole."""
        with _sentences(self._job.directory):
            return {"changed": False, **self._summary(name, self._verified(name))}

    def _verified(self, name: str) -> Document:
        if not _NAME.fullmatch(name):
            raise Problem(f"{name!r} is no name of a backup; one looks like 20261123T010203Z-1.16.1.")
        folder = os.path.join(self._job.directory, name)
        if not os.path.isdir(folder):
            raise Problem(f"There is no backup {folder}.")
        manifest = _load(os.path.join(folder, MANIFEST))
        if manifest is None:
            raise Problem(f"{folder} is no whole backup: its {MANIFEST} is missing or broken. Choose another one.")
        _shape(manifest, folder)
        for file, known in manifest["files"].items():
            path = os.path.join(folder, file)
            if not os.path.isfile(path) or os.path.islink(path):
                raise Problem(f"{path} is missing: this backup is not whole. Choose another one.")
            if os.path.getsize(path) != known["size"] or _backup_files.digest(path) != known["sha256"]:
                raise Problem(f"{path} is not what was written (its SHA-256 differs): this backup is damaged. Choose another one.")
        return manifest

    # Restoring one

    def restore(self, name: str, check: bool) -> Document:
        """Restore a backup, after what an interrupted restore began was finished. Raises Problem."""
        job = self._job
        with _sentences(job.home), self._alone():
            record = self._record()
            if record is not None and not check:
                self._guard(self._containers(), [str(place) for place in record["places"]], (), True)
                self._finish(record)
                if record["backup"] == name:
                    return {"changed": True, "finished": True, **self._summary(name, self._verified(name))}
            manifest = self._verified(name)
            running = self._containers()
            places = self._places(manifest, name, create=not check)
            volumes = [self._own(str(part["name"]), manifest) for part in manifest["volumes"]]
            self._guard(running, list(places), volumes, True)
            databases = self._databases(manifest)
            servers = [self._server(running, database) for database in databases]
            self._check_room(manifest, places)
            result = {"changed": True, "finished": False, **self._summary(name, manifest)}
            if check:
                return result
            try:
                self._prepare(manifest, name, places, databases, servers)
            except BaseException:
                self._discard(places, databases, servers)
                raise
            os.makedirs(job.home, exist_ok=True)
            written = {"schema": SCHEMA, "backup": name, "places": list(places), "databases": databases, "phase": "exchange"}
            self._write_record(written)
            self.after("record")
            self._finish(written)
            return result

    def _record(self) -> Document | None:
        """Return the record of an interrupted restore, None where there is none. Raises Problem for one that cannot be read."""
        path = os.path.join(self._job.home, _RECORD)
        record = _load(path)
        if record is None and not os.path.lexists(path):
            return None
        wanted = {"backup": str, "places": list, "databases": list, "phase": str}
        if record is None or not all(isinstance(record.get(key), kind) for key, kind in wanted.items()):
            raise Problem(
                f"{path}, the record of an interrupted restore, cannot be read. What was there before is beside it (*.difyops-old)."
            )
        return record

    def _own(self, volume: str, manifest: Document) -> str:
        """Return a volume's name on this host, whose project may have another name."""
        prefix = f"{manifest['project']}_"
        return f"{self._job.project}_{volume[len(prefix) :]}" if volume.startswith(prefix) else volume

    def _places(self, manifest: Document, name: str, create: bool) -> dict[str, str]:
        """Return the file of the backup for each place that it is restored to. Raises Problem where one cannot be exchanged."""
        job, source = self._job, os.path.join(self._job.directory, name)
        release = os.path.dirname(job.place("release/.env", str(manifest["version"])))
        if not os.path.isdir(release):
            raise Problem(f"{release} is not there: unpack release {manifest['version']} before its backup is restored.")
        paths: dict[str | None, Any] = {job.folder(str(part["name"])): part["file"] for part in manifest["paths"]}
        volumes: dict[str | None, Any] = {
            self._volume_folder(str(part["name"]), manifest, create): part["file"] for part in manifest["volumes"] if part["file"]
        }
        found = {**paths, **volumes}
        places = {place: os.path.join(source, str(file)) for place, file in found.items() if place is not None and file is not None}
        for place in places:
            if os.path.ismount(place):
                raise Problem(f"{place} is a mount of its own, which cannot be exchanged at once: mount the folder above it instead.")
        for file in manifest["files"]:
            if file in dict(_FILES):
                places[job.place(file, str(manifest["version"]))] = os.path.join(source, file)
        return places

    def _volume_folder(self, volume: str, manifest: Document, create: bool) -> str | None:
        own = self._own(volume, manifest)
        folder = self._volume(own)
        return self._create_volume(own) if folder is None and create else folder

    def _create_volume(self, name: str) -> str:
        prefix = f"{self._job.project}_"
        labels = [f"com.docker.compose.project={self._job.project}", f"com.docker.compose.volume={name[len(prefix) :]}"]
        options = [option for label in labels for option in ("--label", label)] if name.startswith(prefix) else []
        result = self._ask("volume", "create", *options, name)
        folder = None if result.rc else self._volume(name)
        if folder is None:
            raise Problem(f"Volume {name} cannot be made: {_backup_files.one_line(result.err)}.")
        return folder

    def _databases(self, manifest: Document) -> list[Document]:
        """Return the backup's databases with service and user of this host, where they are known here."""
        here = {str(database["name"]): database for database in self._job.databases}
        return [{**database, **here.get(str(database["name"]), {})} for database in manifest["databases"]]

    def _check_room(self, manifest: Document, places: dict[str, str]) -> None:
        wanted: dict[int, tuple[str, int]] = {}
        sizes = {part["file"]: int(part["size_bytes"]) for part in (*manifest["paths"], *manifest["volumes"])}
        for place, file in places.items():
            above = _nearest(os.path.dirname(place))
            device = os.stat(above).st_dev
            wanted[device] = (above, wanted.get(device, (above, _SPARE))[1] + sizes.get(os.path.basename(file), 1 << 20))
        base = sum(int(database["size_bytes"]) for database in manifest["databases"])
        # The server's data are next to Dify's own as a rule; where they are not, the server itself says when its disk is full.
        above = _nearest(self._job.home)
        device = os.stat(above).st_dev
        wanted[device] = (above, wanted.get(device, (above, _SPARE))[1] + base)
        for path, size in wanted.values():
            _backup_files.need(path, size, "Restoring the backup")

    def _prepare(
        self, manifest: Document, name: str, places: dict[str, str], databases: Sequence[Document], servers: Sequence[Server]
    ) -> None:
        for place, file in places.items():
            _backup_files.discard(place)
            if file.endswith(".tar.gz"):
                _backup_files.unpack(file, place + _backup_files.NEW, self._job.timeout_s)
            else:
                os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
                _backup_files.copy(file, place + _backup_files.NEW)
                if file.endswith("override.yaml"):
                    os.chmod(place + _backup_files.NEW, 0o644)
            self.after(f"prepared {place}")
        for database, server in zip(databases, servers):
            server.prepare(str(database["name"]), os.path.join(self._job.directory, name, str(database["file"])), database)
            self.warnings += server.warnings
            self.after(f"prepared database {database['name']}")
        # What was unpacked has to be on the disk before what it replaces goes.
        os.sync()

    def _discard(self, places: dict[str, str], databases: Sequence[Document], servers: Sequence[Server]) -> None:
        for place in places:
            with contextlib.suppress(OSError):
                _backup_files.remove(place + _backup_files.NEW)
        for database, server in zip(databases, servers):
            with contextlib.suppress(Problem):
                server.discard(str(database["name"]))

    def _write_record(self, record: Document) -> None:
        path = os.path.join(self._job.home, _RECORD)
        _backup_files.remove(path + _backup_files.NEW)
        _store(path + _backup_files.NEW, record)
        os.rename(path + _backup_files.NEW, path)
        _backup_files.settle_folder(self._job.home)

    def _finish(self, record: Document) -> None:
        """Exchange what is prepared, then take away what was there before. Goes on wherever a killed run ended."""
        running = self._containers()
        databases = record["databases"]
        servers = [self._server(running, database) for database in databases]
        if record["phase"] == "exchange":
            for database, server in zip(databases, servers):
                server.exchange(str(database["name"]))
                self.after(f"exchanged database {database['name']}")
            for place in record["places"]:
                _backup_files.exchange(str(place))
                self.after(f"exchanged {place}")
            password = _password(self._job.secrets_file)
            for server in servers if password else ():
                server.set_password(password)
            record = {**record, "phase": "clean"}
            self._write_record(record)
            self.after("exchanged")
        for database, server in zip(databases, servers):
            server.drop_former(str(database["name"]))
            self.after(f"dropped {database['name']}")
        for place in record["places"]:
            _backup_files.remove(str(place) + _backup_files.OLD)
            self.after(f"removed {place}")
        os.unlink(os.path.join(self._job.home, _RECORD))


@contextlib.contextmanager
def _sentences(path: str) -> Iterator[None]:
    """Turn what the system says into Problem."""
    try:
        yield
    except Problem as problem:
        if "No space left on device" not in str(problem):
            raise
        raise Problem(
            f"The disk is full ({path}, or where the database is): make room and run it again. Nothing of Dify was lost. {problem}"
        ) from problem
    except (OSError, subprocess.SubprocessError) as error:
        full = " The disk is full: make room and run it again. Nothing of Dify was lost." if getattr(error, "errno", None) == 28 else ""
        raise Problem(f"{error}.{full}") from error


def _label(document: Document, name: str) -> str:
    return str(((document.get("Config") or {}).get("Labels") or {}).get(name) or "")


def _holds(mount: Document, folders: Sequence[str], volumes: Sequence[str], restoring: bool) -> bool:
    """Return whether a container's mount has part of what is backed up, writable where only that matters."""
    if not restoring and mount.get("RW") is False:
        return False
    if mount.get("Name") in volumes:
        return True
    source = os.path.realpath(str(mount.get("Source") or "/nowhere"))
    return any(source == folder or source.startswith(f"{folder}/") or folder.startswith(f"{source}/") for folder in folders)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip(".") or "-"


def _part(kind: str, name: str, folder: str | None) -> Document:
    """Return what the manifest says of a path or volume; ``file`` is None where it is not there (yet)."""
    if folder is None or not os.path.lexists(folder):
        return {"kind": kind, "name": name, "folder": folder, "file": None, "size_bytes": 0}
    if not os.path.isdir(folder):
        raise Problem(f"{folder} is no folder.")
    file = f"{kind}-{_plain(name)}.tar.gz"
    return {"kind": kind, "name": name, "folder": folder, "file": file, "size_bytes": _backup_files.weight(folder)}


def _without(document: Document, *keys: str) -> Document:
    return {key: value for key, value in document.items() if key not in keys}


def _names(folder: str) -> list[str]:
    found = []
    for place, _folders, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(place, name), folder) for name in files]
    return sorted(found)


def _described(path: str) -> Document:
    return {"sha256": _backup_files.digest(path), "size": os.path.getsize(path)}


def _store(path: str, document: Document) -> None:
    with _backup_files.private(path) as file:
        file.write(json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")
        _backup_files.settle(file)


def _load(path: str) -> Document | None:
    """Return a JSON object of a file; None where there is none to be read."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _shape(manifest: Document, folder: str) -> None:
    """Raise Problem where a manifest is not of the shape that ``make`` writes."""
    try:
        known = {str(name) for name in manifest["files"]}
        inside = all(not name.startswith("/") and ".." not in name.split("/") for name in known)
        files = [entry["file"] for key in ("databases", "paths", "volumes") for entry in manifest[key]]
        sizes = [int(entry["size_bytes"]) for key in ("databases", "paths", "volumes") for entry in manifest[key]]
        names = [entry["name"] for key in ("databases", "paths", "volumes") for entry in manifest[key]]
        hosts = [(entry["service"], entry["user"]) for entry in manifest["databases"]]
        described = all(isinstance(file["size"], int) and isinstance(file["sha256"], str) for file in manifest["files"].values())
        texts = all(
            isinstance(text, str) for text in [*names, *sum(hosts, ()), manifest["version"], manifest["made_at"], manifest["project"]]
        )
        whole = {name for name in files if name is not None} | {name for name, needed in _FILES if needed} <= known
        fits = manifest["schema"] == SCHEMA and inside and described and texts and whole and min(sizes, default=0) >= 0
        fits = fits and _NAME.fullmatch(f"20260101T000000Z-{manifest['version']}") is not None
    except (KeyError, TypeError, AttributeError, ValueError):
        fits = False
    if not fits:
        raise Problem(f"{folder}/{MANIFEST} is of another kind than this collection writes. Choose another backup.")


def _nearest(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _machine() -> str:
    with contextlib.suppress(OSError), open("/etc/machine-id", encoding="ascii", errors="replace") as file:
        return file.read().strip()
    return os.uname().nodename


def _password(path: str) -> str:
    """Return DB_PASSWORD of the restored secrets, empty where there is none."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _equals, value = line.strip().partition("=")
            if name == "DB_PASSWORD":
                quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
                return value[1:-1] if quoted else value
    return ""
