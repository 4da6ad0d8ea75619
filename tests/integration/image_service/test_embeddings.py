# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /v1/embeddings against the real model."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from conftest import EMBEDDER, MODEL_DIR, Server, running, sentence_of
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

TEXTS = ["A cat sits on the mat.", "A kitten is resting on a rug.", "Interest rates rose by half a percent."]


def plain_vectors(texts: list[str]) -> np.ndarray:
    """Mean pooling and normalization with nothing but transformers."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)
    model = AutoModel.from_pretrained(MODEL_DIR, local_files_only=True, use_safetensors=True).eval()
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**encoded).last_hidden_state
    mask = encoded["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean).numpy()


def vectors_of(answer: dict) -> np.ndarray:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)


def test_vectors_are_those_of_plain_transformers(server: Server) -> None:
    answer = server.embed(TEXTS).json()
    assert answer["object"] == "list"
    assert answer["model"] == EMBEDDER
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    np.testing.assert_allclose(vectors_of(answer), plain_vectors(TEXTS), atol=1e-5)


@pytest.mark.parametrize("batch_size", ["1", "32"])
def test_vectors_are_those_of_plain_sentence_transformers(batch_size: str) -> None:
    """Of texts shorter and longer than the model's window, in one request that is more than one batch."""
    texts = [*TEXTS, *(f"{TEXTS[number % 3]} " * (1 + 3 * number) for number in range(33))]
    plain = SentenceTransformer(str(MODEL_DIR), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True})
    with running(BATCH_SIZE=batch_size) as other:
        assert other.wait()["status"] == "ok"
        found = vectors_of(other.embed(texts).json())
    np.testing.assert_allclose(found, plain.encode(texts, batch_size=32, show_progress_bar=False), rtol=0, atol=1e-4)


def test_related_sentences_are_nearer_than_unrelated_ones(server: Server) -> None:
    cat, kitten, rates = vectors_of(server.embed(TEXTS).json())
    assert cat @ kitten > 0.4
    assert cat @ kitten > 3 * abs(cat @ rates)
    assert cat @ kitten > 3 * abs(kitten @ rates)


def test_one_text_or_a_list_of_one_give_the_same(server: Server) -> None:
    one, listed = server.embed(TEXTS[0]).json(), server.embed([TEXTS[0]]).json()
    assert one == listed
    assert len(one["data"]) == 1


def test_order_and_batching_do_not_change_vectors(server: Server) -> None:
    texts = [TEXTS[0], "short", TEXTS[2] * 5, TEXTS[1]]
    together = vectors_of(server.embed(texts).json())
    alone = np.concatenate([vectors_of(server.embed(text).json()) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_base64_holds_the_same_floats(server: Server) -> None:
    as_text = server.embed(TEXTS, encoding_format="base64").json()["data"]
    decoded = np.array([np.frombuffer(base64.b64decode(item["embedding"], validate=True), dtype="<f4") for item in as_text])
    assert decoded.shape == (3, 384)
    np.testing.assert_array_equal(decoded, vectors_of(server.embed(TEXTS).json()))


def test_usage_counts_the_models_own_tokens(server: Server) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)
    expected = sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert server.embed(TEXTS).json()["usage"] == {"prompt_tokens": expected, "total_tokens": expected}


def test_an_input_above_the_window_is_cut_counted_and_reported(server: Server) -> None:
    before = cut_inputs(server)
    answer = server.embed("word " * 500)
    assert answer.json()["usage"]["prompt_tokens"] == 256
    assert cut_inputs(server) == before + 1


def cut_inputs(server: Server) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('dify_gpu_cut_inputs_total{endpoint="embeddings"}'))


def test_dimensions_are_refused_unless_they_are_the_models(server: Server) -> None:
    message = sentence_of(server.embed("x", dimensions=256), 400, "unsupported_dimensions")
    assert "256" in message and "384" in message
    assert server.embed("x", dimensions=384).status_code == 200


def test_another_model_name_is_404(server: Server) -> None:
    answer = server.post("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"})
    message = sentence_of(answer, 404, "model_not_found")
    assert "text-embedding-3-small" in message and EMBEDDER in message


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("", "empty_input", "empty"),
        ("  \n", "empty_input", "empty"),
        ([], "empty_input", "at least one"),
        (["fine", ""], "empty_input", "input[1]"),
        (["x"] * 9, "batch_too_large", "9 texts; at most 8"),
        ("x" * 4001, "input_too_long", "4001 characters; at most 4000"),
        ([1, 2, 3], "invalid_request", "list of texts"),
        ([["x"]], "invalid_request", "list of texts"),
        (7, "invalid_request", "list of texts"),
        (None, "invalid_request", "list of texts"),
        ({"text": "x"}, "invalid_request", "list of texts"),
    ],
)
def test_an_input_that_cannot_be_embedded_is_400(server: Server, value: object, code: str, words: str) -> None:
    assert words in sentence_of(server.post("/v1/embeddings", {"model": EMBEDDER, "input": value}), 400, code)


def test_half_a_surrogate_pair_is_400(server: Server) -> None:
    body = b'{"model": "%s", "input": "a \\ud83d b"}' % EMBEDDER.encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer test-key-0123456789abcdef"}
    assert "Unicode" in sentence_of(server.client.post("/v1/embeddings", content=body, headers=headers), 400, "invalid_unicode")


def test_unusual_but_valid_text_is_embedded(server: Server) -> None:
    vectors = vectors_of(server.embed(["\x00 nul", "Grüße 你好 🙂", "\u202eright to left", "a" * 4000]).json())
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_token_limit_of_the_operator_is_kept() -> None:
    with running(MAX_INPUT_TOKENS="16") as limited:
        assert limited.wait()["status"] == "ok"
        assert limited.embed("a few words").status_code == 200
        message = sentence_of(limited.embed(["a few words", "word " * 20]), 400, "input_too_long")
        assert "input 1 has 22 tokens; at most 16" in message
