# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives in upstream's shape, the registry of stand-ins, and what the stand-ins refuse; without Docker and without a database."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import io
import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import SIMHOST
from simhostlib import _common, _dify
from upstream_release import BROKEN, RELEASES, broken, image_names, make

sys.path.insert(0, str(SIMHOST / "dify-standin"))
from dify_standin import calls, common, services

SECRETS = {
    "DB_PASSWORD": "difyai123456", "REDIS_PASSWORD": "difyai123456", "CELERY_BROKER_URL": "redis://:difyai123456@redis:6379/1",
    "SANDBOX_API_KEY": "dify-sandbox", "CODE_EXECUTION_API_KEY": "dify-sandbox",
    "PLUGIN_DAEMON_KEY": "lYkiYYT6owG+71oLerGzA7GXCgOT++6ovaezWAjpCjf+Sjc3ZtU+qUEi",
    "PLUGIN_DIFY_INNER_API_KEY": "QaHbTe77CtuXmsfyhR7+vRjI/+XbV1AaFy691iy+kGDv2Jvy0/eAh8Y1",
    "WEAVIATE_API_KEY": "WVF5YThaHlkYwhGUSmCRgsX3tD5ngdN8pkih",
}
AGENT = {
    "DIFY_AGENT_SERVER_SECRET_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
    "DIFY_AGENT_API_TOKEN": "dify-agent-run-token-for-dev-only",
}


def entries(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read().decode() for member in tar if member.isfile()}


def env(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("version", RELEASES)
def test_an_archive_is_the_same_each_time_and_one_folder(version: str) -> None:
    assert make(version) == make(version)
    assert {name.partition("/")[0] for name in entries(make(version))} == {f"dify-{version}"}


@pytest.mark.parametrize("version", RELEASES)
def test_the_secrets_and_their_public_defaults_are_upstreams(version: str) -> None:
    files = entries(make(version))
    given = env(files[f"dify-{version}/docker/.env.example"])
    new = RELEASES[version].envs
    assert {name: given[name] for name in SECRETS} == SECRETS
    assert given["SECRET_KEY"] == ("" if new else "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U")
    assert {name: given.get(name) for name in AGENT} == (AGENT if new else dict.fromkeys(AGENT))
    assert given["INIT_PASSWORD"] == "" and given["EXPOSE_PLUGIN_DEBUGGING_PORT"] == "5003"


@pytest.mark.parametrize("version", RELEASES)
def test_the_compose_file_has_the_layout_of_its_time(version: str) -> None:
    document = yaml.safe_load(entries(make(version))[f"dify-{version}/docker/docker-compose.yaml"])
    new = RELEASES[version].envs
    assert ("x-shared-env" in document) is not new
    api = document["services"]["api"]
    assert (api.get("env_file") or [{}])[-1].get("path") == ("./.env" if new else None)
    assert ("DB_PASSWORD" in api["environment"]) is not new
    assert {"agent_backend", "local_sandbox", "agent_ssrf_proxy", "api_websocket"} <= set(document["services"]) or not new
    wanted = {"weaviate", "postgresql", "collaboration"}
    running = [one for one in document["services"].values() if not one.get("profiles") or wanted & set(one["profiles"])]
    assert {one["image"] for one in running} == set(image_names((version,)))


@pytest.mark.parametrize("version", RELEASES)
def test_every_mounted_file_of_the_release_is_in_its_archive(version: str) -> None:
    files = entries(make(version))
    services_of = yaml.safe_load(files[f"dify-{version}/docker/docker-compose.yaml"])["services"]
    mounts = {str(mount).partition(":")[0] for one in services_of.values() for mount in one.get("volumes", ())}
    for mount in mounts:
        if mount.startswith("./") and not mount.startswith("./volumes/"):
            path = f"dify-{version}/docker/{mount[2:]}"
            assert any(name == path or name.startswith(f"{path}/") for name in files), mount


def test_broken_archives_are_broken_in_their_own_way() -> None:
    missing, cut, outside = BROKEN
    assert not any(name.endswith("docker-compose.yaml") for name in entries(broken(missing)))
    with pytest.raises((EOFError, gzip.BadGzipFile, tarfile.ReadError)):
        entries(broken(cut))
    assert any(".." in name for name in entries(broken(outside)))


def _saved(path: Path) -> bytes:
    """What `docker save` writes of a small image; returns its only layer."""
    layer = b"a layer"
    config = {
        "config": {"Env": ["PATH=/usr/bin", "PYTHONPATH=/x"], "Labels": {"org.difyops.simulated": "true"}}, "os": "linux",
        "container_config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}, "history": [],
    }
    with tarfile.open(path, "w") as tar:
        for name, data in (("c.json", json.dumps(config).encode()), ("l/layer.tar", layer),
                           ("manifest.json", json.dumps([{"Config": "c.json", "Layers": ["l/layer.tar"]}]).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return layer


def test_the_registrys_folder_is_what_a_push_would_have_left(tmp_path: Path) -> None:
    layer = _saved(tmp_path / "saved.tar")
    _dify.fill(tmp_path / "root", tmp_path / "saved.tar", ["langgenius/dify-api:1.17.1", "busybox:latest"])
    base = tmp_path / "root/docker/registry/v2"

    def blob(digest: str) -> bytes:
        short = digest.partition(":")[2]
        data = (base / "blobs/sha256" / short[:2] / short / "data").read_bytes()
        assert hashlib.sha256(data).hexdigest() == short
        return data

    for repository, tag, version, entrypoint in (
        ("langgenius/dify-api", "1.17.1", "1.17.1", ["python3", "-m", "dify_standin", "api"]), ("busybox", "latest", "latest", None),
    ):
        folder = base / "repositories/mirror" / repository
        manifest = json.loads(blob((folder / "_manifests/tags" / tag / "current/link").read_text()))
        config = json.loads(blob(manifest["config"]["digest"]))
        assert gzip.decompress(blob(manifest["layers"][0]["digest"])) == layer
        for part in (manifest["config"], *manifest["layers"]):
            assert (folder / "_layers/sha256" / part["digest"].partition(":")[2] / "link").is_file()
        assert config["config"]["Entrypoint"] == entrypoint and f"STANDIN_VERSION={version}" in config["config"]["Env"]
        assert "STAND-IN" in config["config"]["Labels"]["org.opencontainers.image.title"] and "container_config" not in config
    assert "PATH=/usr/lib/busybox:/usr/bin" in config["config"]["Env"] and "PYTHONPATH=/x" in config["config"]["Env"]


def test_every_image_of_every_release_has_a_stand_in() -> None:
    base = {"config": {"Env": []}}
    for name in image_names():
        _dify.config_of(base, *name.split(":"))
    with pytest.raises(_common.SimhostError, match="langgenius/new"):
        _dify.config_of(base, "langgenius/new", "1")


def test_faults_are_of_their_version() -> None:
    text = "1.17.1:migration_fails, *:proxy_down\n1.16.1:never_healthy\n# nothing"
    assert common.parse_faults(text, "1.17.1") == {"migration_fails", "proxy_down"}
    assert common.parse_faults("", "1.17.1") == set()


def test_nothing_starts_with_a_setting_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {services.weaviate: "AUTHENTICATION_APIKEY_ALLOWED_KEYS", services.sandbox: "API_KEY"}
    for start, missing in wanted.items():
        monkeypatch.delenv(missing, raising=False)
        with pytest.raises(SystemExit):
            start([])
        assert missing in capsys.readouterr().out


PADDED, TOO_SHORT = base64.urlsafe_b64encode(bytes(32)).decode(), base64.urlsafe_b64encode(bytes(31)).decode().rstrip("=")


@pytest.mark.parametrize("key", ["short", PADDED, TOO_SHORT, "not base64!"])
def test_the_agents_key_is_32_bytes_without_padding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str) -> None:
    for name in ("API_TOKEN", "REDIS_URL", "PLUGIN_DAEMON_API_KEY", "INNER_API_KEY"):
        monkeypatch.setenv(f"DIFY_AGENT_{name}", "x")
    monkeypatch.setenv("DIFY_AGENT_SERVER_SECRET_KEY", key)
    with pytest.raises(SystemExit):
        services.agent_backend([])
    assert "exactly 32 bytes" in capsys.readouterr().out


@pytest.fixture
def model_server() -> Iterator[str]:
    """A server that wants a key, as the image service does."""

    class Model(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200 if self.headers.get("Authorization") == "Bearer right" else 401)
            self.end_headers()
            self.wfile.write(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_daemon_calls_the_model_server_and_tells_what_it_said(model_server: str) -> None:
    wish = {"url": f"{model_server}/v1/embeddings", "json": {"input": "x"}}
    assert calls.call({**wish, "headers": {"Authorization": "Bearer right"}}) == {"status": 200, "body": '{"input": "x"}'}
    assert calls.call(wish)["status"] == 401
    assert calls.call({"url": "http://127.0.0.1:9/", "json": {}})["status"] is None
    assert calls.call({"url": "nonsense"})["status"] is None


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The server of the GPU stand-in, which imports a PyTorch of its own."""
    monkeypatch.syspath_prepend(str(SIMHOST / "standin-image"))
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    return importlib.import_module("dify_gpu_standin.__main__")


def test_made_up_answers_have_the_real_shape_and_say_what_they_are(made_up: ModuleType) -> None:
    answer = made_up.made_up_answer("/v1/embeddings", {"model": "m", "input": ["one", "two", "one"]})
    vectors = [item["embedding"] for item in answer["data"]]
    assert answer["simulated"] is True and vectors[0] == vectors[2] != vectors[1]
    assert all(abs(sum(number * number for number in vector) - 1) < 1e-9 for vector in vectors)
    ranked = made_up.made_up_answer("/v1/rerank", {"model": "m", "query": "red cat", "documents": ["blue dog", "a red cat", "red"]})
    assert [result["index"] for result in ranked["results"]] == [1, 2, 0] and ranked["simulated"] is True
    assert made_up.made_up_answer("/v1/embeddings", {"input": [1]}) is None and made_up.made_up_answer("/v1/rerank", {"query": "x"}) is None
