# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key, the size of requests, and what the server says to what it does not know."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from conftest import API_KEY, EMBEDDER, Server, sentence_of

PATHS = [("POST", "/v1/embeddings"), ("POST", "/v1/rerank"), ("POST", "/rerank"), ("GET", "/v1/models"), ("GET", "/nothing")]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", f"Bearer {API_KEY}x", f"Bearer {API_KEY[:-1]}", API_KEY, f"Basic {API_KEY}", "Bearer \u00e9"],
)
def test_without_the_key_nothing_is_served(server: Server, method: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = server.client.request(method, path, headers=headers, json={"model": EMBEDDER, "input": "x"})
    message = sentence_of(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert API_KEY[:-1] not in message


def test_a_body_is_not_even_read_without_the_key(server: Server) -> None:
    sentence_of(server.client.post("/v1/embeddings", content=b"{not json"), 401, "invalid_api_key")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_key_models_are_listed(server: Server, scheme: str) -> None:
    answer = server.client.get("/v1/models", headers={"Authorization": f"{scheme} {API_KEY}"}).json()
    assert answer["object"] == "list"
    assert [(model["id"], model["type"], model["object"]) for model in answer["data"]] == [
        (EMBEDDER, "embedding", "model"),
        ("random-weights-test-reranker", "rerank", "model"),
    ]


def test_the_key_is_never_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        server.embed("x")
        server.post("/v1/embeddings", {"model": "other"})
        server.client.get("/v1/models", headers={"Authorization": "Bearer wrong-key-0123456789"})
    assert API_KEY not in caplog.text
    assert "wrong-key" not in caplog.text


def chunks(total: int) -> Iterator[bytes]:
    """A body without a declared length."""
    while total > 0:
        yield b" " * min(total, 65536)
        total -= 65536


def test_a_body_above_the_limit_is_413_declared_or_not(server: Server) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    for content in (b" " * (1024 * 1024 + 1), chunks(3 * 1024 * 1024)):
        assert "1 MiB" in sentence_of(server.client.post("/v1/embeddings", content=content, headers=headers), 413, "request_too_large")


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"{not json", "application/json", "not valid JSON"),
        (b"", "application/json", "JSON object"),
        (b"[]", "application/json", "JSON object"),
        (b"null", "application/json", "JSON object"),
        (b'"text"', "application/json", "JSON object"),
        (b'{"model": "x", "input": "y"}', "text/plain", "Content-Type"),
        (b"\xff\xfe", "application/json", "not valid JSON"),
        (b'{"model": "\xff"}', "application/json", "cannot be read"),
        (b"[" * 100_000, "application/json", "."),
    ],
)
def test_a_body_that_is_no_request_is_400(server: Server, content: bytes, kind: str, words: str) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": kind}
    answer = server.client.post("/v1/embeddings", content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": "x"}, "'model' is missing"),
        ({"model": EMBEDDER}, "'input' is missing"),
        ({"model": 5, "input": "x"}, "'model' is not valid"),
        ({"model": EMBEDDER, "input": "x", "encoding_format": "hex"}, "'encoding_format' is not valid"),
        ({"model": EMBEDDER, "input": "x", "dimensions": "many"}, "'dimensions' is not valid"),
    ],
)
def test_a_wrong_field_is_named(server: Server, body: dict, words: str) -> None:
    assert words in sentence_of(server.post("/v1/embeddings", body), 400, "invalid_request")


def test_unknown_fields_of_the_api_are_ignored(server: Server) -> None:
    assert server.embed("x", user="somebody").status_code == 200


def test_other_paths_and_methods_answer_in_the_same_shape(server: Server) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    assert "/v1/chat/completions" in sentence_of(server.post("/v1/chat/completions", {}), 404, "not_found")
    assert "GET" in sentence_of(server.client.get("/v1/embeddings", headers=headers), 405, "method_not_allowed")


def test_no_pages_about_the_api_are_served(server: Server) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    assert {server.client.get(path, headers=headers).status_code for path in ("/docs", "/redoc", "/openapi.json")} == {404}


def test_metrics_count_what_was_asked(server: Server) -> None:
    before = metrics(server)
    server.embed(["one", "two", "three"])
    server.client.get("/v1/models")
    after = metrics(server)

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown('dify_gpu_requests_total{endpoint="embeddings",status="200"}') == 1
    assert grown('dify_gpu_requests_total{endpoint="models",status="401"}') == 1
    assert grown('dify_gpu_batch_size_sum{endpoint="embeddings"}') == 3
    assert grown('dify_gpu_inference_seconds_count{endpoint="embeddings"}') == 1
    assert grown('dify_gpu_tokens_total{endpoint="embeddings"}') == 9
    assert after["dify_gpu_ready"] == 1
    assert after["dify_gpu_queue_length"] == 0
    assert [name for name in after if name.startswith("dify_gpu_info{") and 'mode="cpu"' in name and 'variant="cpu"' in name]


def metrics(server: Server) -> dict[str, float]:
    """Sample name with labels -> value."""
    lines = server.client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}
