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
    assert set(facts) == {"schema", "home", "release", "layout", "files", "secrets", "images", "containers", "error"}
    return facts, complaints


def test_nothing_asked_for():
    facts, complaints = gather(project="other")
    assert facts == {
        "schema": 1, "home": "/opt/dify-gpu", "release": None, "layout": None, "files": {}, "secrets": {}, "images": {},
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
    assert set(file) == {"exists", "sha256", "owner", "group", "mode", "size"}
    assert file["owner"]


@pytest.mark.parametrize("path", ["/nonexistent/file", "/etc/passwd/file"])
def test_a_file_that_is_not_there(path):
    facts, complaints = gather([path], {path: None})
    assert facts["files"][path] == {"exists": False, "sha256": None, "owner": None, "group": None, "mode": None, "size": None}
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
        }
    ]


def test_a_container_that_was_never_started():
    document = {"Name": "/x", "State": {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z"}}
    facts = _dify.container(document)
    assert (facts["state"], facts["health"], facts["started_at"], facts["labels"]) == ("created", None, None, {})


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
