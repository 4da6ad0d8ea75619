# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups with the real PostgreSQL and the real tar; the docker command is SIMULATED by one that runs programs here."""

from __future__ import annotations

import base64
import contextlib
import glob
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _backup_files, _backup_postgres, _dify_backup, _docker
from ansible_collections.difyops.gpu.plugins.module_utils._backup_files import Problem
from hypothesis import given
from hypothesis import strategies as st

PROGRAMS = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"))), "")
PASSWORD = "Secret0fTheDatabase"  # noqa: S105
DOCKER = """\
#!/bin/bash
printf '%s\\n' "$*" >> {root}/calls
case "$1 $2" in
  "version --format") echo '{{"Server": {{"Version": "26.1"}}}}' ;;
  "container ls") [ ! -e {root}/containers ] || ls {root}/containers ;;
  "container inspect") for last; do :; done; cat {root}/containers/$last ;;
  "volume inspect") for last; do :; done
    [ -d {root}/docker/$last ] || {{ echo "Error: No such volume: $last" >&2; exit 1; }}
    echo '{{"Driver": "local", "Options": null, "Mountpoint": "{root}/docker/'$last'/_data"}}' ;;
  "volume create") for last; do :; done; mkdir -p {root}/docker/$last/_data ;;
  "exec --interactive") shift 4; export PGHOST={socket} PATH={programs}:$PATH; exec "$@" ;;
  *) exit 99 ;;
esac
"""


@pytest.fixture(scope="module")
def server():
    """Run a PostgreSQL that listens on a socket only, as a user of its own where this is root."""
    assert PROGRAMS, "PostgreSQL's server is not installed (Debian: postgresql): these tests need the real one"
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres", "postgres")
    os.chmod(folder, 0o755)  # noqa: S103
    data = f"{folder}/data"
    control = [*user, f"{PROGRAMS}/pg_ctl", "--pgdata", data, "--wait", "--silent", "--log", f"{folder}/log"]
    subprocess.run(
        [*user, f"{PROGRAMS}/initdb", "--no-sync", "--username=postgres", "--auth=trust", data], check=True, stdout=subprocess.DEVNULL
    )
    subprocess.run(
        [*control, "--options", f"-c listen_addresses='' -c fsync=off -k {folder}", "start"], check=True, stdout=subprocess.DEVNULL
    )
    yield folder
    subprocess.run([*control, "--mode=immediate", "stop"], check=True)
    shutil.rmtree(folder)


class Host:
    """One host: a server, a docker command, and a Dify with two databases, two folders and a volume."""

    def __init__(self, root: Path, socket: str):
        self.root, self.socket, self.home = root, socket, root / "dify"
        (root / "containers").mkdir(parents=True)
        self.program = root / "docker-command"
        self.program.write_text(DOCKER.format(root=root, socket=socket, programs=PROGRAMS))
        self.program.chmod(0o755)
        self.container("db", "db_postgres")
        release = self.home / "releases/1.16.1/docker"
        release.mkdir(parents=True)
        (release / ".env").write_text("A=1\n")
        (release / "docker-compose.override.yaml").write_text("services: {}\n")
        (self.home / "secrets").mkdir(mode=0o700)
        (self.home / "secrets/dify.env").write_text(f"DB_PASSWORD={PASSWORD}\n")

    def container(self, ident, service, mounts=(), running=True):
        labels = {"com.docker.compose.service": service, "com.docker.compose.project": "dify"}
        state = {"Running": running, "Status": "running" if running else "exited"}
        document = {"Id": ident, "Name": f"/{ident}", "State": state, "Config": {"Labels": labels}, "Mounts": list(mounts)}
        (self.root / "containers" / ident).write_text(json.dumps(document))

    def psql(self, text, database="template1"):
        argv = [f"{PROGRAMS}/psql", "-XqAt", "-h", self.socket, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-d", database]
        return subprocess.run(argv, input=text, text=True, check=True, capture_output=True).stdout.strip()

    def fill(self, mark):
        for name in ("dify", "dify_plugin"):
            for leftover in (name, f"{name}_difyops_new", f"{name}_difyops_old"):
                self.psql(f'DROP DATABASE IF EXISTS "{leftover}" WITH (FORCE);')
            self.psql(f"CREATE DATABASE {name};")
            self.psql(f"CREATE TABLE said (word text); INSERT INTO said VALUES ('{name} {mark}');", name)  # noqa: S608
        for place in (self.home / "volumes/app/storage", self.home / "volumes/weaviate", self.root / "docker/dify_box/_data"):
            shutil.rmtree(place, ignore_errors=True)
            (place / "deep").mkdir(parents=True)
            (place / "deep/file").write_text(mark)
            (place / "link").symlink_to("deep/file")
        (self.home / "releases/1.16.1/docker/.env").write_text(f"A={mark}\n")

    def state(self):
        words = [self.psql("SELECT word FROM said;", name) for name in ("dify", "dify_plugin")]
        places = (self.home / "volumes/app/storage", self.home / "volumes/weaviate", self.root / "docker/dify_box/_data")
        return [*words, *[(place / "deep/file").read_text() for place in places], (self.home / "releases/1.16.1/docker/.env").read_text()]

    def backup(self, **changed):
        bases = [{"name": name, "service": "db_postgres", "user": "postgres"} for name in ("dify", "dify_plugin")]
        options = {
            "home": str(self.home),
            "project": "dify",
            "directory": str(self.root / "backups"),
            "version": "1.16.1",
            "databases": bases,
            "paths": ["volumes/app/storage", "volumes/weaviate", "volumes/not_there"],
            "volumes": ["dify_box", "dify_never"],
            "stopped": ["api"],
            "secrets_file": str(self.home / "secrets/dify.env"),
            "journal": str(self.home / "journal.json"),
            "keep": 3,
            "timeout_s": 60.0,
        }
        engine = _docker._CliEngine(str(self.program), 10.0)
        return _dify_backup.Backup(_dify_backup.Job(**{**options, **changed}), engine, str(self.program))

    def leftovers(self):
        names = self.psql("SELECT datname FROM pg_database;").split()
        return [name for name in names if "difyops" in name] + [str(path) for path in self.root.rglob("*.difyops-*")]


def expected(mark):
    return [f"dify {mark}", f"dify_plugin {mark}", mark, mark, mark, f"A={mark}\n"]


@pytest.fixture
def host(server, tmp_path):
    host = Host(tmp_path / "host", server)
    host.fill("before")
    return host


def killed(host, step, action):
    """Do something in a process that is killed (SIGKILL) right after a step; return whether it came there."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            backup = host.backup()
            backup.after = lambda now: os.kill(os.getpid(), signal.SIGKILL) if now == step else None
            action(backup)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def steps(host, action):
    found = []
    backup = host.backup()
    backup.after = found.append
    action(backup)
    return found


def test_a_backup_is_whole_private_and_restores(host):
    made = host.backup().make(False)
    folder = Path(made["path"])
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.name for path in files} >= {"dify.dump", "dify_plugin.dump", ".env", "secrets.env", "manifest.json"}
    assert str(host.root) not in (folder / "manifest.json").read_text()
    assert PASSWORD not in json.dumps(made) + (folder / "manifest.json").read_text() + (host.root / "calls").read_text()
    assert host.backup().verify(made["name"])["changed"] is False
    host.fill("after")
    result = host.backup().restore(made["name"], False)
    assert (result["changed"], result["finished"]) == (True, False)
    assert host.state() == expected("before")
    assert (host.home / "volumes/weaviate/link").readlink() == Path("deep/file")
    assert host.leftovers() == [] and not (host.home / "restore.json").exists()
    assert PASSWORD not in (host.root / "calls").read_text()


def test_check_mode_tells_and_changes_nothing(host):
    told = host.backup().make(True)
    assert told["changed"] and not list((host.root / "backups").glob("2*"))
    made = host.backup().make(False)
    host.fill("after")
    assert host.backup().restore(made["name"], True)["name"] == made["name"]
    assert host.state() == expected("after") and host.leftovers() == []


def test_a_restore_that_is_killed_at_any_point_is_finished_by_the_next(host):
    name = host.backup().make(False)["name"]
    points = steps(host, lambda backup: backup.restore(name, False))
    assert len(points) > 15
    for point in dict.fromkeys(points):
        host.fill("after")
        assert killed(host, point, lambda backup: backup.restore(name, False)), point
        if not (host.home / "restore.json").exists() and not point.startswith("removed"):
            assert host.state() == expected("after"), point
        host.backup().restore(name, False)
        assert host.state() == expected("before"), point
        assert host.leftovers() == [], point


def test_another_backup_is_restored_after_the_interrupted_one_is_finished(host):
    first = host.backup().make(False)["name"]
    host.fill("second")
    second = host.backup().make(False)["name"]
    assert killed(host, "exchanged database dify", lambda backup: backup.restore(first, False))
    host.backup().restore(second, False)
    assert host.state() == expected("second") and host.leftovers() == []


def test_a_backup_that_is_killed_leaves_nothing_that_counts(host):
    for point in dict.fromkeys(steps(host, lambda backup: backup.make(False))):
        for old in (host.root / "backups").glob("2*"):
            shutil.rmtree(old)
        assert killed(host, point, lambda backup: backup.make(False)), point
        whole = [path for path in (host.root / "backups").glob("2*") if not path.name.endswith(".partial")]
        assert len(whole) == (point == "made"), point
        made = host.backup().make(False)
        assert host.backup().verify(made["name"])
        assert not list((host.root / "backups").glob("*.partial")), point


def test_it_restores_on_another_host_with_other_names(host, server, tmp_path):
    made = host.backup().make(False)
    other = Host(tmp_path / "other", server)
    shutil.copytree(made["path"], other.root / "backups" / made["name"])
    for name in ("dify", "dify_plugin"):
        host.psql(f"DROP DATABASE {name};")
    shutil.rmtree(other.home / "secrets")
    other.backup(project="two", databases=[]).verify(made["name"])
    for path in (other.root / "containers").iterdir():
        path.write_text(path.read_text().replace('"dify"', '"two"'))
    other.backup(project="two", databases=[]).restore(made["name"], False)
    assert other.psql("SELECT word FROM said;", "dify") == "dify before"
    assert (other.home / "volumes/app/storage/deep/file").read_text() == "before"
    assert (other.root / "docker/two_box/_data/deep/file").read_text() == "before"
    assert (other.home / "secrets/dify.env").stat().st_mode & 0o777 == 0o600
    assert host.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres';").startswith("SCRAM-SHA-256$4096:")


def test_open_connections_and_missing_roles_do_not_stop_a_restore(host):
    host.psql("CREATE ROLE reader; ")
    host.psql("GRANT SELECT ON said TO reader;", "dify")
    name = host.backup().make(False)["name"]
    host.psql("DROP OWNED BY reader;", "dify")
    host.psql("DROP ROLE reader;")
    argv = [f"{PROGRAMS}/psql", "-XqAt", "-h", host.socket, "-U", "postgres", "-d", "dify"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as busy:
        busy.stdin.write(b"SELECT pg_sleep(60);\n")
        busy.stdin.flush()
        backup = host.backup()
        backup.restore(name, False)
    assert "grants" in " ".join(backup.warnings)
    assert host.state() == expected("before")


def test_rotation_spares_the_new_one_and_the_journals(host):
    made = [host.backup().make(False)["name"] for _count in range(2)]
    (host.home / "journal.json").write_text(json.dumps({"backup": str(host.root / "backups" / made[0])}))
    foreign = host.root / "backups/20200101T000000Z-1.0.0"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"project": "other"}')
    last = host.backup(keep=1).make(False)
    assert last["removed"] == [made[1]]
    assert {path.name for path in (host.root / "backups").glob("2*")} == {made[0], last["name"], foreign.name}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "dify.dump").write_bytes(b"x"), "damaged"),
        (lambda folder: (folder / "dify.dump").unlink(), "missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "no whole backup"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema": 2}'), "another kind"),
    ],
)
def test_a_damaged_backup_is_not_restored(host, damage, words):
    made = host.backup().make(False)
    damage(Path(made["path"]))
    host.fill("after")
    with pytest.raises(Problem, match=words):
        host.backup().restore(made["name"], False)
    assert host.state() == expected("after") and host.leftovers() == []


def test_writers_must_be_stopped(host):
    host.container("a1", "api")
    assert _backup_files.CODE == "DG916"
    with pytest.raises(Problem, match="api of project dify still run"):
        host.backup().make(False)
    mount = {"Type": "bind", "Source": str(host.home / "volumes/weaviate"), "RW": True}
    host.container("a1", "weaviate", [mount])
    with pytest.raises(Problem, match="weaviate"):
        host.backup().make(False)
    host.container("a1", "weaviate", [{**mount, "RW": False}])
    name = host.backup().make(False)["name"]
    with pytest.raises(Problem, match="weaviate"):
        host.backup().restore(name, False)


def test_a_full_disk_loses_nothing(host, monkeypatch):
    name = host.backup().make(False)["name"]
    host.fill("after")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_backup_files, "pack", full)
    with pytest.raises(Problem, match="disk is full"):
        host.backup().make(False)
    assert [path.name for path in (host.root / "backups").glob("2*")] == [name]
    monkeypatch.setattr(_backup_files, "unpack", full)
    with pytest.raises(Problem, match="disk is full"):
        host.backup().restore(name, False)
    monkeypatch.setattr(_backup_files, "room", lambda _path: 1)
    with pytest.raises(Problem, match="make room first"):
        host.backup().make(False)
    assert host.state() == expected("after") and host.leftovers() == []


def archive(path, *members):
    with tarfile.open(path, "w:gz") as content:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            content.addfile(member, io.BytesIO(b""))


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, "")],
        [("/etc/out", tarfile.REGTYPE, "")],
        [("./a", tarfile.SYMTYPE, "/etc"), ("./a/out", tarfile.REGTYPE, "")],
        [("./a", tarfile.LNKTYPE, "../../etc/shadow")],
        [("./sda", tarfile.BLKTYPE, "")],
    ],
)
def test_no_archive_leads_out(tmp_path, members):
    archive(tmp_path / "bad.tar.gz", *members)
    with pytest.raises(Problem, match="never has"):
        _backup_files.unpack(str(tmp_path / "bad.tar.gz"), str(tmp_path / "to/here"), 10.0)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("path", ["", "/etc", "../x", "volumes/../../x"])
def test_paths_stay_below_home(host, path):
    with pytest.raises(Problem, match="no path below"):
        host.backup(paths=[path]).make(False)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["schema", "version", "files", "paths", "volumes", "databases", "made_at", "project", "name", "file"]),
                inner,
            )
        ),
    )
)
def test_no_manifest_raises_anything_but_a_problem(document):
    if isinstance(document, dict):
        with contextlib.suppress(Problem):
            _dify_backup._shape(document, "/backup")


def test_a_password_becomes_what_postgresql_makes_of_it(host):
    host.psql("DROP ROLE IF EXISTS pencil; CREATE ROLE pencil PASSWORD 'p3nc\u00edl';")
    kept = host.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'pencil';")
    salt = base64.b64decode(kept.partition(":")[2].partition("$")[0])
    assert _backup_postgres.verifier("p3nc\u00edl", salt) == kept
