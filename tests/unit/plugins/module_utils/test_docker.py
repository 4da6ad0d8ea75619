# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command, _dify, _docker
from hypothesis import given
from hypothesis import strategies as st

# A docker command that answers from files: the name of a file is the first words of the call.
COMMAND = """\
#!/bin/sh
cd "$(dirname "$0")/answers" || exit 99
printf '%s\\n' "$*" >> ../calls
case "$1 $2" in
  "container inspect"|"image inspect") for last; do :; done; name="$1-$2-$last" ;;
  "container ls") name=container-ls ;;
  exec*) shift 4; exec "$@" ;;
  *) name="$1" ;;
esac
if [ -e "$name.err" ]; then cat "$name.err" >&2; fi
if [ -e "$name" ]; then cat "$name"; else exit 1; fi
"""


class Host:
    """A directory with a docker command and its answers."""

    def __init__(self, path):
        self.path = path
        (path / "answers").mkdir()
        program = path / "docker"
        program.write_text(COMMAND)
        program.chmod(0o755)
        self.answer("version", {"Client": {"Version": "26.1.5"}, "Server": {"Version": "26.1.5", "ApiVersion": "1.45"}})

    def answer(self, name, document=None, err=None):
        file = self.path / "answers" / name
        if document is not None:
            file.write_text(document if isinstance(document, str) else json.dumps(document))
        elif file.exists():
            file.unlink()
        if err is not None:
            file.with_name(name + ".err").write_text(err + "\n")

    def connect(self, timeout_s=10.0):
        return _docker._CliEngine(str(self.path / "docker"), timeout_s)

    def calls(self):
        return (self.path / "calls").read_text().splitlines()


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_version(host):
    engine = host.connect()
    assert engine.backend == "cli"
    assert engine.version() == {"Version": "26.1.5", "ApiVersion": "1.45"}


def test_no_daemon(host):
    host.answer("version", {"Client": {"Version": "26.1.5"}, "Server": None})
    with pytest.raises(_docker.DockerUnavailable, match="its daemon is not"):
        host.connect()


def test_no_daemon_said_with_an_exit_status(host):
    host.answer("version", err="Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
    with pytest.raises(_docker.DockerUnavailable, match=r"does not answer: Cannot connect to the Docker daemon .*\.$"):
        host.connect()


def test_permission_denied(host):
    host.answer("version", err="permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock")
    with pytest.raises(_docker.DockerUnavailable, match="become root"):
        host.connect()


@pytest.mark.parametrize("text", ["", "not json", "[]", "null"])
def test_an_answer_that_is_no_document(host, text):
    engine = host.connect()
    host.answer("version", text)
    with pytest.raises((_docker.DockerError, _docker.DockerUnavailable)):
        engine.version()


def test_images_that_are_there_and_not(host):
    host.answer("image-inspect-a:1", {"Id": "sha256:1"})
    host.answer("image-inspect-b:1", err="Error response from daemon: No such image: b:1")
    assert host.connect().images(["a:1", "b:1"]) == {"a:1": {"Id": "sha256:1"}, "b:1": None}


def test_a_reference_that_is_none(host):
    host.answer("image-inspect-A", err="Error response from daemon: no such image: A: invalid reference format: must be lowercase")
    with pytest.raises(_docker.DockerError, match=r"^The container engine refused: no such image: A: invalid reference format"):
        host.connect().images(["A"])


def test_a_reference_that_looks_like_an_option(host):
    host.answer("image-inspect---help", err="No such image: --help")
    host.connect().images(["--help"])
    assert host.calls()[-1] == "image inspect --format {{json .}} -- --help"


def test_containers_of_a_project(host):
    host.answer("container-ls", "1\n2\n3\n")
    host.answer("container-inspect-1", {"Name": "/b"})
    host.answer("container-inspect-2", {"Name": "/a"})
    host.answer("container-inspect-3", err="Error: No such container: 3")
    assert host.connect().containers("dify-gpu") == [{"Name": "/a"}, {"Name": "/b"}]
    assert "label=com.docker.compose.project=dify-gpu" in host.calls()[1]


def test_containers_when_the_engine_fails(host):
    engine = host.connect()
    host.answer("container-ls", err="Error response from daemon: boom")
    with pytest.raises(_docker.DockerError, match=r"refused: boom\.$"):
        engine.containers("x")


def test_exec(host):
    host.answer("container-inspect-c", {"State": {"Running": True}})
    assert host.connect().exec("c", ["sh", "-c", "cat; echo e >&2; exit 3"], b"in", 5) == (3, b"in", b"e\n")


def test_exec_that_takes_too_long(host):
    host.answer("container-inspect-c", {"State": {"Running": True}})
    with pytest.raises(_docker.DockerTimeout, match="not over within 1 seconds"):
        host.connect().exec("c", ["sleep", "60"], b"", 1)


def test_exec_without_a_running_container(host):
    host.answer("container-inspect-c", {"State": {"Running": False, "Status": "exited"}})
    host.answer("container-inspect-d", err="Error: No such container: d")
    with pytest.raises(_docker.DockerError, match="c is not running"):
        host.connect().exec("c", ["true"], b"", 5)
    with pytest.raises(_docker.DockerError, match="There is no container d"):
        host.connect().exec("d", ["true"], b"", 5)


def test_exec_in_a_container_that_ends_in_between(host):
    host.answer("container-inspect-c", {"State": {"Running": True}})
    program = ["sh", "-c", "echo 'Error response from daemon: Container c is restarting, wait until the container is running' >&2; exit 1"]
    with pytest.raises(_docker.DockerError, match=r"refused: Container c is restarting, wait until the container is running\.$"):
        host.connect().exec("c", program, b"", 5)


def test_a_command_that_hangs(host):
    (host.path / "docker").write_text("#!/bin/sh\nsleep 60\n")
    with pytest.raises(_docker.DockerUnavailable, match=r"did not answer within 0\.3 seconds"):
        host.connect(0.3)


def test_neither_sdk_nor_command(monkeypatch):
    monkeypatch.setattr(_command, "find", lambda name: None)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(_docker.DockerUnavailable, match="Neither the docker command nor the Docker SDK"):
        _docker.connect(1)


def test_the_command_where_the_sdk_cannot_be_used(host, monkeypatch, tmp_path):
    monkeypatch.setattr(_command, "find", lambda name: str(host.path / name))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    assert _docker.connect(2).backend == "cli"


class Daemon(threading.Thread):
    """As much of an engine's API on a socket as the SDK needs here. ``routes``: status and document by path."""

    def __init__(self, path, routes, silent=False):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.routes = {"/version": (200, {"Version": "26.1.5", "ApiVersion": "1.45"}), **routes}
        self.silent = silent
        self.start()

    def run(self):
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(BrokenPipeError), connection, connection.makefile("rb") as file:
            while True:
                words = file.readline().split()
                if not words:
                    return
                headers = {}
                for line in iter(file.readline, b"\r\n"):
                    key, _sign, value = line.decode().partition(":")
                    headers[key.lower()] = value.strip()
                file.read(int(headers.get("content-length", 0)))
                if self.silent:
                    time.sleep(30)
                path = words[1].decode().partition("?")[0]
                path = path[len("/v1.45") :] if path.startswith("/v1.45") else path
                status, answer = self.routes.get(path, (404, {"message": f"No such image: {path}"}))
                if callable(answer):
                    connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                    answer(connection, file)
                    return
                body = json.dumps(answer).encode()
                head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    pytest.importorskip("docker")
    monkeypatch.setattr(_command, "find", lambda name: None)
    daemons = []

    def start(routes=None, **more):
        path = str(tmp_path / "docker.sock")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        daemons.append(Daemon(path, routes or {}, **more))

    yield start
    for each in daemons:
        # Closed alone, it goes on accepting for whoever gets its number next.
        each.listener.shutdown(socket.SHUT_RDWR)
        each.listener.close()


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_sdk_version_and_images(daemon):
    daemon({"/images/a:1/json": (200, {"Id": "sha256:1"})})
    engine = _docker.connect(5)
    assert engine.backend == "sdk"
    assert engine.version()["Version"] == "26.1.5"
    assert engine.images(["a:1", "b:1"]) == {"a:1": {"Id": "sha256:1"}, "b:1": None}


LINE_ON_DISK = "API_KEY=correct-horse-battery-staple"


@pytest.mark.parametrize("backend", ["cli", "sdk"])
@pytest.mark.parametrize(("line", "applied"), [(LINE_ON_DISK, True), ("API_KEY=another-key", False)])
def test_secrets_of_a_container_by_command_and_by_sdk(host, daemon, tmp_path, backend, line, applied):
    document = {"Name": "/dify-gpu-image-1", "State": {"Status": "running"}, "Config": {"Env": ["PATH=/bin", line]}}
    secret = tmp_path / "api_key.env"
    secret.write_text(f"{LINE_ON_DISK}\n")
    if backend == "cli":
        host.answer("container-ls", "1\n")
        host.answer("container-inspect-1", document)
        connect = host.connect
    else:
        daemon({"/containers/json": (200, [{"Id": "1"}]), "/containers/1/json": (200, document)})
        connect = _docker.connect
    assert connect(5).backend == backend
    facts, complaints = _dify.gather(str(tmp_path), [str(tmp_path)], {str(secret): None}, [], "dify-gpu", 5, connect)
    assert (facts["error"], complaints) == (None, [])
    assert facts["containers"][0]["secrets_applied"] is applied
    assert facts["files"][str(tmp_path)]["directory"] is True
    assert "battery-staple" not in json.dumps(facts) and "another-key" not in json.dumps(facts)


def test_sdk_containers(daemon):
    daemon(
        {
            "/containers/json": (200, [{"Id": "1"}, {"Id": "2"}, {"Id": "3"}]),
            "/containers/1/json": (200, {"Name": "/b"}),
            "/containers/2/json": (200, {"Name": "/a"}),
        }
    )
    engine = _docker.connect(5)
    assert engine.containers("dify-gpu") == [{"Name": "/a"}, {"Name": "/b"}]
    assert engine.inspect_container("nope") is None


def frame(kind, data):
    return struct.pack(">BxxxI", kind, len(data)) + data


def exec_routes(talk, rc=0):
    return {
        "/containers/c/exec": (201, {"Id": "e"}),
        "/exec/e/start": (101, talk),
        "/exec/e/json": (200, {"Running": False, "ExitCode": rc}),
    }


def test_sdk_exec(daemon):
    def talk(connection, file):
        data = file.read()  # until the other side closes its half
        connection.sendall(frame(1, data[:3]) + frame(2, b"err") + frame(1, data[3:]))

    daemon(exec_routes(talk, rc=7))
    data = b"x" * 300_000
    assert _docker.connect(5).exec("c", ["cat"], data, 10) == (7, data, b"err")


def test_sdk_exec_that_takes_too_long(daemon):
    daemon(exec_routes(lambda connection, file: time.sleep(30)))
    begin = time.monotonic()
    with pytest.raises(_docker.DockerTimeout, match="container c was not over within 1 seconds"):
        _docker.connect(5).exec("c", ["sleep"], b"", 1)
    assert time.monotonic() - begin < 20


def test_sdk_exec_in_a_container_that_does_not_run(daemon):
    daemon({"/containers/c/exec": (409, {"message": "container c is not running"})})
    with pytest.raises(_docker.DockerError, match=r"refused: container c is not running\.$"):
        _docker.connect(5).exec("c", ["true"], b"", 5)


def test_sdk_with_a_silent_engine(daemon):
    daemon(silent=True)
    begin = time.monotonic()
    with pytest.raises(_docker.DockerUnavailable, match="does not answer"):
        _docker.connect(1)
    assert time.monotonic() - begin < 20


def test_sdk_with_an_engine_that_fails(daemon):
    daemon({"/images/a:1/json": (500, {"message": "boom"})})
    with pytest.raises(_docker.DockerError, match="boom"):
        _docker.connect(5).images(["a:1"])


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))))
def test_frames_come_apart_as_they_were_put_together(parts):
    stream = b"".join(frame(kind, data) for kind, data in parts)
    expected = tuple(b"".join(data for kind, data in parts if kind == wanted) for wanted in (1, 2))
    assert _docker.split_frames(stream) == expected


@given(st.binary())
def test_no_bytes_break_the_frames(stream):
    out, err = _docker.split_frames(stream)
    assert len(out) + len(err) <= len(stream)
