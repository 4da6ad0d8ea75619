# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _dify, _docker
from hypothesis import given
from hypothesis import strategies as st

SECRET = b"API_KEY=correct-horse-battery-staple\n"
DIGEST = hashlib.sha256(SECRET).hexdigest()
IMAGE = {
    "Id": "sha256:1",
    "Config": {"Labels": {"org.opencontainers.image.version": "0.1.0"}},
    "RepoDigests": ["r@sha256:2"],
    "Created": "2026-11-20T10:00:00Z",
    "Size": 1351 * 1024 * 1024,
}
CONTAINER = {
    "Id": "c1",
    "Name": "/dify-gpu-image-1",
    "Image": "sha256:1",
    "Config": {"Image": "a:1", "Labels": {"com.docker.compose.service": "image"}},
    "State": {"Status": "running", "Health": {"Status": "healthy"}, "StartedAt": "2026-11-20T10:05:00Z"},
    "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
}


class FakeEngine:
    def images(self, refs):
        return {ref: IMAGE if ref == "a:1" else None for ref in refs}

    def containers(self, project):
        return [CONTAINER] if project == "dify-gpu" else []


def refuse(timeout_s):
    raise _docker.DockerUnavailable("The container engine does not answer.")


def gather(files=(), secrets=None, images=(), project="dify-gpu", connect=lambda timeout_s: FakeEngine()):
    facts, complaints = _dify.gather("/opt/dify-gpu", files, secrets or {}, images, project, 5, connect)
    assert json.loads(json.dumps(facts)) == facts
    assert set(facts) == {"schema", "home", "release", "layout", "files", "secrets", "models", "images", "containers", "error"}
    return facts, complaints


def test_nothing_asked_for():
    facts, complaints = gather(project="other")
    assert facts == {
        "schema": 1, "home": "/opt/dify-gpu", "release": None, "layout": None, "files": {}, "secrets": {}, "models": {}, "images": {},
        "containers": [], "error": None,
    }  # fmt: skip
    assert complaints == []


def test_a_file(tmp_path):
    path = tmp_path / "compose.yaml"
    path.write_bytes(b"services: {}\n")
    path.chmod(0o640)
    facts, _complaints = gather([str(path)])
    file = facts["files"][str(path)]
    assert (file["exists"], file["mode"], file["size"]) == (True, "0640", 13)
    assert file["sha256"] == hashlib.sha256(b"services: {}\n").hexdigest()
    assert set(file) == {"exists", "directory", "sha256", "owner", "group", "mode", "size"}
    assert file["directory"] is False
    assert file["owner"]


def test_a_folder_of_a_model(tmp_path):
    facts, complaints = _dify.gather("/opt/dify-gpu", [], {}, [], "x", 5, lambda timeout_s: FakeEngine(), [str(tmp_path)])
    assert facts["models"] == {str(tmp_path): {"exists": True, "complete": False, "reason": "has no config.json"}}
    assert complaints == []


def test_a_directory(tmp_path):
    (tmp_path / "secrets").mkdir(mode=0o700)
    facts, complaints = gather([str(tmp_path / "secrets")])
    file = facts["files"][str(tmp_path / "secrets")]
    assert (file["exists"], file["directory"], file["mode"], file["sha256"], file["size"]) == (True, True, "0700", None, None)
    assert file["owner"] and file["group"]
    assert complaints == []


@pytest.mark.parametrize("path", ["/nonexistent/file", "/etc/passwd/file"])
def test_a_file_that_is_not_there(path):
    facts, complaints = gather([path], {path: None})
    nothing = dict.fromkeys(("directory", "sha256", "owner", "group", "mode", "size"))
    assert facts["files"][path] == {"exists": False, **nothing}
    assert facts["secrets"][path]["matches"] is None
    assert complaints == []


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    facts, complaints = gather([str(tmp_path), str(tmp_path / "pipe")])
    assert [file["sha256"] for file in facts["files"].values()] == [None, None]
    assert complaints == []


def test_a_user_without_a_name(tmp_path, monkeypatch):
    (tmp_path / "x").touch()

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(_dify.pwd, "getpwuid", unknown)
    assert gather([str(tmp_path / "x")])[0]["files"][str(tmp_path / "x")]["owner"] == str(os.geteuid())


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = str(tmp_path / "x")
    (tmp_path / "x").touch()
    real = open

    def deny(name, *arguments, **more):
        if name == path:
            raise PermissionError(13, "Permission denied")
        return real(name, *arguments, **more)

    monkeypatch.setattr("builtins.open", deny)
    facts, complaints = gather([path], {path: "0" * 64})
    assert (facts["files"][path]["exists"], facts["files"][path]["sha256"]) == (True, None)
    assert facts["secrets"][path]["matches"] is None
    assert complaints == [f"{path} cannot be read: Permission denied."] * 2


def test_a_path_that_cannot_be_examined():
    facts, complaints = gather(["/etc/" + "x" * 300, "/a\0b"])
    assert [file["exists"] for file in facts["files"].values()] == [None, None]
    assert len(complaints) == 2


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [(None, None), (DIGEST, True), (DIGEST.upper(), True), ("0" * 64, False)],
)
def test_a_secret_is_compared_and_never_told(tmp_path, wanted, matches):
    path = tmp_path / "api_key.env"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    facts, _complaints = gather(secrets={str(path): wanted})
    secret = facts["secrets"][str(path)]
    assert set(secret) == {"exists", "owner", "group", "mode", "size", "matches"}
    assert (secret["matches"], secret["mode"], secret["size"]) == (matches, "0600", len(SECRET))
    assert "correct-horse" not in json.dumps(facts)
    assert DIGEST not in json.dumps(facts).lower()


def test_a_missing_secret_does_not_match():
    assert gather(secrets={"/nonexistent": "0" * 64})[0]["secrets"]["/nonexistent"]["matches"] is False


def test_images_and_containers():
    facts, _complaints = gather(images=["a:1", "b:1"])
    assert facts["images"] == {
        "a:1": {
            "id": "sha256:1",
            "labels": {"org.opencontainers.image.version": "0.1.0"},
            "repo_digests": ["r@sha256:2"],
            "created": "2026-11-20T10:00:00Z",
            "size_mib": 1351,
        },
        "b:1": None,
    }
    assert facts["containers"] == [
        {
            "name": "dify-gpu-image-1",
            "service": "image",
            "id": "c1",
            "image": "a:1",
            "image_id": "sha256:1",
            "state": "running",
            "health": "healthy",
            "restart_policy": "unless-stopped",
            "started_at": "2026-11-20T10:05:00Z",
            "labels": {"com.docker.compose.service": "image"},
            "secrets_applied": None,
        }
    ]


def test_a_container_that_was_never_started():
    document = {"Name": "/x", "State": {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z"}}
    facts = _dify.container(document)
    assert (facts["state"], facts["health"], facts["started_at"], facts["labels"]) == ("created", None, None, {})


def applied(secrets, env, status="running"):
    """What is said of a container with this environment, where these secret files are on the host."""
    document = {**CONTAINER, "Config": {"Env": env}, "State": {"Status": status}}

    class Engine(FakeEngine):
        def containers(self, project):
            return [document]

    facts, _complaints = gather(secrets=dict.fromkeys(secrets), connect=lambda timeout_s: Engine())
    text = json.dumps(facts)
    assert "battery-staple" not in text and "another-key" not in text
    return facts["containers"][0]["secrets_applied"]


@pytest.mark.parametrize(
    ("content", "env", "expected"),
    [
        (SECRET, ["PATH=/bin", "API_KEY=correct-horse-battery-staple"], True),
        (SECRET, ["API_KEY=another-key"], False),
        (SECRET, ["API_KEY=correct-horse-battery-staple-2"], False),
        (SECRET, ["XAPI_KEY=correct-horse-battery-staple"], False),
        (SECRET, [], False),
        (SECRET, None, False),
        (SECRET + b"\n# a comment\nOTHER=b c\nEMPTY=\n", ["EMPTY=", "OTHER=b c", SECRET.decode().strip()], True),
        (SECRET + b"OTHER=b\n", [SECRET.decode().strip()], False),
        (b"API_KEY=another-key\n" + SECRET, [SECRET.decode().strip()], True),
        (SECRET.strip(), [SECRET.decode().strip()], True),
        (b"", ["A=1"], None),
        (b"# nothing\n", ["A=1"], None),
        (b"\x7fELF\x00", ["A=1"], None),
        (b"A=1\nA NOTE\n", ["A=1"], None),
        (b"A='1'\n", ["A=1"], None),
        (b'A="1"\n', ["A=1"], None),
        (b"A=$B\n", ["A=$B"], None),
        (b"A=1 # one\n", ["A=1"], None),
        (b"A=1 \n", ["A=1"], None),
        (b"A= 1\n", ["A=1"], None),
        (b"A=1\r\n", ["A=1"], None),
        (b"A=b\\n\n", ["A=b\\n"], None),
        (b"export A=1\n", ["A=1"], None),
        (b"A=a`b]^_{|}~[!%&(\n", ["A=a`b]^_{|}~[!%&("], True),
        (b"A\n", ["A=1"], None),
        ("A=é\n".encode(), ["A=é"], None),
    ],
)
def test_whether_a_container_has_the_secrets_of_now(tmp_path, content, env, expected):
    (tmp_path / "api_key.env").write_bytes(content)
    assert applied([str(tmp_path / "api_key.env")], env) is expected


@pytest.mark.parametrize("status", ["created", "exited", "restarting", "dead"])
def test_only_a_running_container_has_secrets(tmp_path, status):
    (tmp_path / "api_key.env").write_bytes(SECRET)
    assert applied([str(tmp_path / "api_key.env")], [SECRET.decode().strip()], status) is None


def test_secrets_in_several_files(tmp_path):
    first, second, absent = (str(tmp_path / name) for name in ("a.env", "b.env", "absent"))
    (tmp_path / "a.env").write_bytes(SECRET)
    (tmp_path / "b.env").write_bytes(b"B=2\n")
    env = ["B=2", SECRET.decode().strip()]
    assert applied([first, second, absent], env) is True
    assert applied([first, second], env[:1]) is False
    (tmp_path / "b.env").write_bytes(b"API_KEY=another-key\n")
    assert applied([first, second], ["API_KEY=another-key"]) is True, "the later file has the last word, as with Compose"
    assert applied([absent], env) is None
    assert applied([], env) is None


def test_a_secret_that_cannot_be_read_leaves_it_open(tmp_path, monkeypatch):
    first, second = str(tmp_path / "a.env"), str(tmp_path / "b.env")
    (tmp_path / "a.env").write_bytes(SECRET)
    (tmp_path / "b.env").write_bytes(b"B=2\n")
    real = open

    def deny(name, *arguments, **more):
        if name == second:
            raise PermissionError(13, "Permission denied")
        return real(name, *arguments, **more)

    monkeypatch.setattr("builtins.open", deny)
    assert applied([first, second], [SECRET.decode().strip()]) is None
    assert applied([first, second], ["API_KEY=another-key"]) is False
    assert applied([second], ["B=2"]) is None


def test_a_secret_file_too_large_for_variables_is_still_compared_by_digest(tmp_path):
    content = b"A=1\n" * 300_000
    (tmp_path / "big").write_bytes(content)
    facts, _complaints = gather(secrets={str(tmp_path / "big"): hashlib.sha256(content).hexdigest()})
    assert facts["secrets"][str(tmp_path / "big")]["matches"] is True
    assert applied([str(tmp_path / "big")], ["A=1"]) is None


NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True)
VALUES = st.from_regex(r"[A-Za-z0-9+/=.:-]{0,12}", fullmatch=True)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_plain_variables_are_read_as_they_are_written(pairs):
    lines = {name: f"{name}={value}" for name, value in pairs.items()}
    assert _dify.variables("".join(f"{line}\n" for line in lines.values()).encode()) == lines


@given(st.binary(max_size=60))
def test_no_content_breaks_the_reading_of_variables(content):
    for name, line in _dify.variables(content).items():
        assert line.startswith(f"{name}=")
        assert line.encode() in content


def test_no_engine_is_a_fact():
    facts, _complaints = gather(images=["a:1"], connect=refuse)
    assert facts["error"] == "The container engine does not answer."
    assert (facts["images"], facts["containers"]) == ({"a:1": None}, [])


def test_an_engine_that_refuses_is_a_fact():
    class Refusing(FakeEngine):
        def containers(self, project):
            raise _docker.DockerError("The container engine refused: boom.")

    facts, _complaints = gather(images=["a:1"], connect=lambda timeout_s: Refusing())
    assert facts["error"] == "The container engine refused: boom."
    assert facts["images"] == {"a:1": None}


@given(st.dictionaries(st.sampled_from(["Id", "Name", "Config", "State", "HostConfig", "Size", "Image"]), st.none()))
def test_documents_may_lack_anything(document):
    _dify.container(document)
    _dify.image(document)
