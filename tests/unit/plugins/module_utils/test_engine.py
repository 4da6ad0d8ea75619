# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command, _docker, _engine
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
    }


class FakeEngine:
    def __init__(self, info):
        self._info = info

    def info(self):
        return self._info


def refuse(timeout_s):
    raise _docker.DockerUnavailable("The container engine does not answer: it sleeps.")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An empty search path; the fixture puts programs into it."""
    directory = tmp_path / "bin"
    directory.mkdir()
    find = _command.find
    monkeypatch.setattr(_command, "find", lambda name: find(name, [str(directory)]))

    def add(name, script):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return add


def test_docker_with_its_plugins(programs, tmp_path):
    programs("docker", 'case "$1" in compose) echo 2.26.1-4;; buildx) echo github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3;; esac')
    facts = _engine.facts(str(tmp_path), 5, lambda timeout_s: FakeEngine(recorded("26.1.5-cdi")))
    assert (facts["name"], facts["running"], facts["error"]) == ("docker", True, None)
    assert (facts["compose_version"], facts["buildx_version"]) == ("2.26.1", "0.13.1")


def test_docker_without_plugins(programs, tmp_path):
    programs("docker", "echo \"docker: 'compose' is not a docker command.\" >&2; exit 1")
    facts = _engine.facts(str(tmp_path), 5, lambda timeout_s: FakeEngine(recorded("20.10.24")))
    assert (facts["compose_version"], facts["buildx_version"]) == (None, None)


def test_docker_that_does_not_answer(programs, tmp_path):
    programs("dockerd", "true")
    facts = _engine.facts(str(tmp_path), 5, refuse)
    assert (facts["name"], facts["running"], facts["version"], facts["cdi_enabled"]) == ("docker", False, None, None)
    assert facts["error"] == "The container engine does not answer: it sleeps."


@pytest.mark.usefixtures("programs")
def test_no_engine(tmp_path):
    facts = _engine.facts(str(tmp_path), 5, refuse)
    assert (facts["name"], facts["running"], facts["error"]) == (None, False, None)


def test_a_docker_command_alone_is_no_engine(programs, tmp_path):
    programs("docker", "echo 1.2.3")
    assert _engine.facts(str(tmp_path), 5, refuse)["name"] is None


def test_podman(programs, tmp_path):
    programs("podman", "echo podman version 5.4.2")
    facts = _engine.facts(str(tmp_path), 5, refuse)
    assert (facts["name"], facts["version"], facts["running"], facts["error"]) == ("podman", "5.4.2", True, None)


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


@given(st.sampled_from(["password", "splunk-token", "client_secret", "API-KEY"]), st.text(min_size=1), st.booleans())
def test_no_value_of_a_secret_name_gets_through(name, value, deep):
    document = {name: {"x": [{"y": value}]} if deep else value}
    masked = _engine.mask(document)
    leaf = masked[name]["x"][0]["y"] if deep else masked[name]
    assert leaf == _engine.MASK


@given(st.text())
def test_no_version_text_breaks_the_reader(text):
    _engine.describe({"ServerVersion": text})
