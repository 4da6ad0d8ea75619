# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import socket
import socketserver
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command, _engine
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[2] / "fixtures" / "observe"


def recorded(name):
    return json.loads((FIXTURES / f"docker-info-{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "version", "cdi", "runtimes"),
    [
        ("20.10.24", "20.10.24", [], ["io.containerd.runc.v2", "io.containerd.runtime.v1.linux", "runc"]),
        ("26.1.5", "26.1.5", [], ["io.containerd.runc.v2", "runc"]),
        ("26.1.5-cdi", "26.1.5", ["/etc/cdi", "/var/run/cdi"], ["io.containerd.runc.v2", "runc"]),
    ],
)
def test_recorded_engines(name, version, cdi, runtimes):
    assert _engine.describe(recorded(name)) == {
        "name": "docker",
        "version": version,
        "running": True,
        "runtimes": runtimes,
        "default_runtime": "runc",
        "cdi_enabled": bool(cdi),
        "cdi_spec_dirs": cdi,
        "cgroup_driver": "cgroupfs",
        "cgroup_version": "1",
        "live_restore": False,
    }


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Answers as an engine does, on its socket below a root: ``documents`` by path, an exception to raise, or seconds to sleep."""

    daemon_threads = True

    def __init__(self, root, documents):
        self.documents, self.asked = documents, []
        place = root / "var/run/docker.sock"
        place.parent.mkdir(parents=True)
        super().__init__(str(place), Answer)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        method, path, _version = self.rfile.readline().decode().split()
        self.server.asked.append((method, path))
        document = self.server.documents.get(path, b'HTTP/1.0 404 Not Found\r\n\r\n{"message": "No such container"}')
        if isinstance(document, float):
            time.sleep(document)
            return
        raw = document if isinstance(document, bytes) else b"HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n" + json.dumps(document).encode()
        self.wfile.write(raw)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An engine that listens below tmp_path; call it with its documents."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    started = []

    def start(documents):
        started.append(Daemon(tmp_path, {"/containers/json": [], **documents}))
        return started[0]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An empty search path; the fixture puts programs into it."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    directory = tmp_path / "bin"
    directory.mkdir()
    find = _command.find
    monkeypatch.setattr(_command, "find", lambda name, search=(): find(name, [str(directory)]))

    def add(name, script):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return add


def gathered(root, timeout_s=5):
    facts, names = _engine.ask(str(root), timeout_s)()
    assert json.loads(json.dumps(facts)) == facts
    return facts, names


METADATA = """[ "$1" = docker-cli-plugin-metadata ] && printf '{"SchemaVersion": "0.1.0", "Vendor": "x", "Version": "%s"}' """


def test_docker_with_its_plugins(engine, programs, tmp_path):
    server = engine({"/info": recorded("26.1.5-cdi")})
    programs("docker-compose", METADATA + "2.26.1-4")
    programs("docker-buildx", METADATA + "v0.13.1+ds1")
    programs("podman", "echo podman version 5.4.2")
    facts, names = gathered(tmp_path)
    assert (facts["name"], facts["version"], facts["running"], facts["error"]) == ("docker", "26.1.5", True, None)
    assert (facts["compose_version"], facts["buildx_version"], facts["podman_version"]) == ("2.26.1", "0.13.1", "5.4.2")
    assert (facts["gpu_containers"], names) == ([], {})
    assert {method for method, _path in server.asked} == {"GET"}


def test_docker_without_plugins(engine, programs, tmp_path):
    engine({"/info": recorded("20.10.24")})
    programs("docker-compose", "echo not a plugin >&2; exit 1")
    facts, _names = gathered(tmp_path)
    assert (facts["compose_version"], facts["buildx_version"], facts["podman_version"]) == (None, None, None)


def test_plugins_without_an_engine(programs, tmp_path):
    programs("docker-compose", METADATA + "2.40.0")
    facts, _names = gathered(tmp_path)
    assert (facts["name"], facts["compose_version"], facts["buildx_version"]) == (None, "2.40.0", None)


def test_where_plugins_are(monkeypatch):
    asked = []
    monkeypatch.setattr(_command, "find", lambda name, search=(): asked.append((name, list(search))))
    _engine.ask("/nonexistent", 1)
    home = os.path.expanduser("~/.docker/cli-plugins")
    assert asked[0] == (
        "docker-compose",
        [home, *(f"/usr/{place}/docker/cli-plugins" for place in ("local/lib", "local/libexec", "lib", "libexec"))],
    )


def test_docker_that_was_stopped(programs, tmp_path):
    programs("dockerd", "true")
    facts, _names = gathered(tmp_path)
    assert (facts["name"], facts["running"], facts["version"], facts["cdi_enabled"]) == ("docker", False, None, None)
    assert facts["gpu_containers"] is facts["containers"] is facts["live_restore"] is None
    assert facts["error"] == f"The container engine does not answer: {tmp_path}/var/run/docker.sock: No such file or directory."


def test_a_socket_that_belongs_to_root(engine, tmp_path, monkeypatch):
    engine({"/info": recorded("26.1.5")})

    def deny(self, path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_engine.Client, "_over_socket", deny)
    assert gathered(tmp_path)[0]["error"] == "The container engine cannot be asked: permission to its socket is denied; become root."


def test_an_engine_that_hangs(engine, tmp_path):
    engine({"/info": 20.0})
    begin = time.monotonic()
    facts, _names = gathered(tmp_path, 0.3)
    assert time.monotonic() - begin < 15
    assert (facts["name"], facts["running"]) == ("docker", False)
    assert facts["error"] == "The container engine did not answer within 0.3 seconds."


def test_an_engine_that_hangs_later_tells_what_it_told(engine, tmp_path):
    engine({"/info": recorded("26.1.5"), "/containers/json": 20.0})
    facts, _names = gathered(tmp_path, 0.5)
    assert (facts["version"], facts["running"], facts["gpu_containers"]) == ("26.1.5", True, None)
    assert "did not answer within" in facts["error"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'HTTP/1.0 500 Internal Server Error\r\n\r\n{"message": "no room"}', "refused: {'message': 'no room'}"),
        (b"HTTP/1.0 200 OK\r\n\r\n{", "does not answer"),
        (b"", "speaks no HTTP"),
        (b"nonsense", "speaks no HTTP"),
        (b"HTTP/1.0 what\r\n\r\n", "does not answer"),
        ([], "in a form that is not known"),
        (7, "in a form that is not known"),
    ],
)
def test_an_answer_that_is_none(engine, tmp_path, answer, words):
    engine({"/info": answer})
    facts, _names = gathered(tmp_path)
    assert (facts["name"], facts["running"]) == ("docker", False)
    assert words in facts["error"]


def test_no_engine(programs, tmp_path):
    programs("docker", "echo 1.2.3")  # the command alone is a client
    facts, _names = gathered(tmp_path)
    assert (facts["name"], facts["running"], facts["error"]) == (None, False, None)


@pytest.mark.parametrize(
    ("hint", "name"), [(None, None), ("snap/docker", "docker"), ("etc/systemd/system/docker.service", "docker"), ("bin/dockerd", "docker")]
)
def test_a_socket_that_an_engine_left_behind(programs, tmp_path, hint, name):
    place = tmp_path / "var/run/docker.sock"
    place.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
    if hint:
        (tmp_path / hint).parent.mkdir(parents=True, exist_ok=True)
        programs("dockerd", "true") if hint == "bin/dockerd" else (tmp_path / hint).touch()
    facts, _names = gathered(tmp_path)
    assert (facts["name"], bool(facts["error"])) == (name, name is not None)


def test_podman(programs, tmp_path):
    programs("podman", "echo podman version 5.4.2")
    facts, _names = gathered(tmp_path)
    assert (facts["name"], facts["version"], facts["running"], facts["error"]) == ("podman", "5.4.2", True, None)
    assert (facts["podman_version"], facts["gpu_containers"]) == ("5.4.2", None)


def test_a_socket_named_by_the_environment(engine, programs, tmp_path, monkeypatch):
    engine({"/info": recorded("26.1.5")})
    elsewhere = tmp_path / "other.sock"
    (tmp_path / "var/run/docker.sock").rename(elsewhere)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{elsewhere}")
    assert gathered(tmp_path)[0]["version"] == "26.1.5"


def test_a_remote_engine_is_asked_by_the_command(programs, tmp_path, monkeypatch):
    container = {
        "Id": "a" * 64,
        "Name": "/far",
        "Config": {"Image": "x"},
        "HostConfig": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]},
    }
    programs(
        "docker",
        f"""case "$*" in
        "info --format {{{{json .}}}}") cat {FIXTURES}/docker-info-26.1.5.json;;
        "ps --no-trunc --format {{{{json .}}}}") echo '{json.dumps({"ID": "a" * 64})}';;
        "inspect {"a" * 64} --format {{{{json .}}}}") echo '{json.dumps(container)}';;
        *) exit 1;; esac""",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://far.example.org")
    facts, names = gathered(tmp_path)
    assert (facts["version"], facts["error"], names) == ("26.1.5", None, {"a" * 64: "far"})
    far = {"id": "a" * 64, "name": "far", "image": "x", "how": "cdi", "devices": ["nvidia.com/gpu=0"], "auto_remove": None}
    assert facts["gpu_containers"] == [far]


@pytest.mark.parametrize(
    "words", ["Error: No such object: {}", "error: no such object: {}", "Error response from daemon: No such container: {}"]
)
def test_a_container_that_ends_before_a_remote_engine_tells_of_it(programs, tmp_path, monkeypatch, words):
    ended = "a" * 64
    programs(
        "docker",
        f"""case "$1" in
        info) cat {FIXTURES}/docker-info-26.1.5.json;;
        ps) echo '{json.dumps({"ID": ended})}';;
        *) echo; echo "{words.format(ended)}" >&2; exit 1;; esac""",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://far.example.org")
    facts, names = gathered(tmp_path)
    assert (facts["error"], facts["gpu_containers"], names) == (None, [], {})


def test_a_remote_engine_that_fails_is_no_container_that_ended(programs, tmp_path, monkeypatch):
    programs("docker", "echo Cannot connect to the Docker daemon >&2; exit 1")
    (tmp_path / "var/run").mkdir(parents=True)
    (tmp_path / "var/run/docker.sock").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://far.example.org")
    assert "Cannot connect" in gathered(tmp_path)[0]["error"]


def test_a_remote_engine_that_does_not_answer_a_command_which_ends_well(programs, tmp_path, monkeypatch):
    programs("docker", f"cat {FIXTURES}/docker-info-26.1.5-stopped.json")
    (tmp_path / "var/run").mkdir(parents=True)
    (tmp_path / "var/run/docker.sock").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://far.example.org")
    facts, _names = gathered(tmp_path)
    assert (facts["name"], facts["running"], facts["version"]) == ("docker", False, None)
    assert facts["error"].startswith("The container engine does not answer: Cannot connect to the Docker daemon at")


def container(number, image="img", env=(), **host):
    return {"Id": f"{number:064x}", "Name": f"/c{number}", "Config": {"Image": image, "Env": list(env)}, "HostConfig": host}


CDI = {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"], "Capabilities": None}
WAYS = [
    (container(1, DeviceRequests=[CDI]), "cdi", ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
    (container(2, DeviceRequests=[{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}]), "request", ["all"]),
    (container(3, DeviceRequests=[{"Driver": "nvidia", "Count": 2, "Capabilities": [["compute", "gpu"]]}]), "request", ["count=2"]),
    (
        container(4, DeviceRequests=[{"Driver": "nvidia", "Count": 0, "DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]]}]),
        "request",
        ["GPU-1"],
    ),
    (container(5, env=["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=0,1"], Runtime="nvidia"), "runtime", ["0", "1"]),
    (container(6, env=["NVIDIA_VISIBLE_DEVICES=void"], Runtime="nvidia"), None, None),
    (container(7, env=["NVIDIA_VISIBLE_DEVICES=all"], Runtime="runc"), None, None),
    (container(8, Devices=[{"PathOnHost": "/dev/nvidia0"}, {"PathOnHost": "/dev/nvidiactl"}]), "device", ["/dev/nvidia0"]),
    (container(9, Privileged=True), "privileged", ["/dev/nvidia0", "/dev/nvidia1"]),
    (container(10, Devices=None, DeviceRequests=None, Runtime="runc"), None, None),
    (container(11, DeviceRequests=[{"Driver": "cdi", "DeviceIDs": ["example.com/net=0"]}]), None, None),
]


@pytest.mark.parametrize(("document", "how", "devices"), WAYS)
def test_how_a_container_got_its_gpu(document, how, devices):
    grant = _engine.granted(document, {"nvidia"}, ["/dev/nvidia0", "/dev/nvidia1"])
    assert (grant and grant["how"], grant and grant["devices"]) == (how, devices)


def test_a_privileged_container_where_there_is_no_gpu():
    assert _engine.granted(container(9, Privileged=True), {"nvidia"}, []) is None


def test_the_containers_of_an_engine(engine, tmp_path):
    documents = [document for document, _how, _devices in WAYS]
    info = {**recorded("26.1.5"), "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}}}
    listed = [{"Id": document["Id"]} for document in [*documents, container(12)]]  # the last one has ended since
    engine({"/info": info, "/containers/json": listed, **{f"/containers/{document['Id']}/json": document for document in documents}})
    facts, names = gathered(tmp_path)
    assert names == {document["Id"]: document["Name"][1:] for document in documents}
    assert [grant["name"] for grant in facts["gpu_containers"]] == ["c1", "c2", "c3", "c4", "c5", "c8"]
    assert facts["gpu_containers"][0] == {
        "id": f"{1:064x}",
        "name": "c1",
        "image": "img",
        "how": "cdi",
        "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"],
        "auto_remove": None,
    }
    assert [one["name"] for one in facts["containers"]] == [document["Name"][1:] for document in documents]
    assert facts["containers"][5] == {
        "id": f"{6:064x}",
        "name": "c6",
        "image": "img",
        "restart_policy": "no",
        "auto_remove": None,
        "project": None,
    }
    assert _engine.granted(container(9, Privileged=True, AutoRemove=True), set(), ["/dev/nvidia0"])["auto_remove"] is True


def test_what_becomes_of_a_container_when_the_engine_stops():
    document = container(1, RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3}, AutoRemove=False)
    document["Config"]["Labels"] = {"com.docker.compose.project": "dify-gpu", "x": "y"}
    told = _engine.container(document)
    assert (told["restart_policy"], told["auto_remove"], told["project"]) == ("on-failure", False, "dify-gpu")
    assert _engine.container(container(1, RestartPolicy={"Name": ""}))["restart_policy"] == "no"


@pytest.mark.parametrize("said", [True, False, None])
def test_live_restore(said):
    info = {**recorded("26.1.5"), "LiveRestoreEnabled": said}
    assert _engine.describe(info)["live_restore"] is said


OUTER, INNER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("cgroups", "expected"),
    [
        (f"12:devices:/docker/{OUTER}\n11:cpu:/docker/{OUTER}\n", {"id": OUTER, "name": "outer"}),
        (f"0::/system.slice/docker-{OUTER}.scope\n", {"id": OUTER, "name": "outer"}),
        (f"0::/docker/{OUTER}/docker/{INNER}\n", {"id": OUTER, "name": "outer"}),
        (f"0::/docker/{INNER}/docker/{OUTER}\n", {"id": OUTER, "name": "outer"}),
        (f"0::/machine.slice/libpod-{INNER}.scope/container\n", {"id": INNER, "name": None}),
        ("0::/user.slice/user-0.slice\n", None),
        ("", None),
    ],
)
def test_the_container_of_a_process(cgroups, expected):
    assert _engine.container_of(cgroups, {OUTER: "outer"}) == expected


def test_the_container_that_the_host_is_itself_is_none_of_its_containers():
    own = f"0::/docker/{INNER}/init.scope\n"
    assert _engine.container_of(f"0::/docker/{INNER}/system.slice/train.service\n", {}, own) is None
    assert _engine.container_of(f"0::/docker/{INNER}/docker/{OUTER}\n", {OUTER: "outer"}, own) == {"id": OUTER, "name": "outer"}


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_no_cgroup_breaks_the_reader(text, names):
    found = _engine.container_of(text, names)
    assert found is None or len(found["id"]) == 64


def config(root, content):
    file = root / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return _engine.daemon_config(str(root))


def test_no_configuration(tmp_path):
    assert _engine.daemon_config(str(tmp_path)) == {
        "path": "/etc/docker/daemon.json",
        "exists": False,
        "content": {},
        "sha256": None,
        "error": None,
    }


def test_configuration(tmp_path):
    content = b'{"features": {"cdi": true}, "log-opts": {"max-size": "10m"}}'
    facts = config(tmp_path, content)
    assert (facts["exists"], facts["error"], facts["content"]) == (True, None, json.loads(content))
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()


def test_an_empty_file_is_an_empty_configuration(tmp_path):
    assert config(tmp_path, b"\n")["error"] is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"{" * 100_000, b'{"password": hunter2}'])
def test_a_broken_configuration_is_a_fact(tmp_path, content):
    facts = config(tmp_path, content)
    assert (facts["exists"], facts["content"]) == (True, {})
    assert "/etc/docker/daemon.json is not valid" in facts["error"]
    assert "hunter2" not in facts["error"]


def test_an_unreadable_configuration_is_a_fact(tmp_path):
    (tmp_path / "etc/docker/daemon.json").mkdir(parents=True)
    assert "cannot be read: Is a directory" in _engine.daemon_config(str(tmp_path))["error"]


def test_secrets_are_masked():
    masked = _engine.mask(
        {
            "proxies": {"http-proxy": "http://user:hunter2@proxy:3128", "https-proxy": "http://hunter2@proxy", "no-proxy": "localhost"},
            "log-opts": {"splunk-token": "hunter2", "max-size": "10m", "env": "OS"},
            "registry-mirrors": ["https://user:hunter2@mirror.example.org/v2", "https://plain.example.org"],
            "unencoded": ["http://user:hunter2@hunter2@proxy:3128", "http://user:x/hunter2@proxy", "see http://a:hunter2@b or c@d"],
            "labels": ["api_key=hunter2", "site=rack-3"],
            "some-password": 12345678,
            "credentials": ["hunter2", {"value": "hunter2"}],
            "secret-in-use": True,
            "live-restore": True,
            "max-concurrent-downloads": 3,
            "tlskey": "/etc/docker/key.pem",
        }
    )
    text = json.dumps(masked)
    assert masked["proxies"] == {
        "http-proxy": "http://********@proxy:3128",
        "https-proxy": "http://********@proxy",
        "no-proxy": "localhost",
    }
    assert masked["log-opts"] == {"splunk-token": "********", "max-size": "10m", "env": "OS"}
    assert masked["registry-mirrors"] == ["https://********@mirror.example.org/v2", "https://plain.example.org"]
    assert masked["unencoded"] == ["http://********@proxy:3128", "http://********@proxy", "see http://********@b or c@d"]
    assert masked["labels"] == ["api_key=********", "site=rack-3"]
    assert (masked["live-restore"], masked["max-concurrent-downloads"], masked["tlskey"]) == (True, 3, "/etc/docker/key.pem")
    assert masked["secret-in-use"] is True
    assert "hunter2" not in text
    assert "12345678" not in text


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(documents)
def test_masking_keeps_the_shape_and_is_done_once(document):
    masked = _engine.mask(document)
    assert _engine.mask(masked) == masked
    assert isinstance(document, type(masked)) or masked == _engine.MASK


@given(st.text("hunter2@/:?#", min_size=1), st.sampled_from(["http://", "socks5://"]))
def test_no_password_of_a_proxy_gets_through(password, scheme):
    assert _engine.mask({"http-proxy": f"{scheme}user:{password}@proxy:3128"}) == {"http-proxy": f"{scheme}********@proxy:3128"}


@given(st.sampled_from(["password", "splunk-token", "client_secret", "API-KEY"]), st.text(min_size=1), st.booleans())
def test_no_value_of_a_secret_name_gets_through(name, value, deep):
    document = {name: {"x": [{"y": value}]} if deep else value}
    masked = _engine.mask(document)
    leaf = masked[name]["x"][0]["y"] if deep else masked[name]
    assert leaf == _engine.MASK


@given(st.text())
def test_no_version_text_breaks_the_reader(text):
    _engine.describe({"ServerVersion": text})
