# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /v1/rerank: the scores are those of the cross-encoder, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EMBEDDER, Server, sentence_of
from make_random_reranker import NAME
from transformers import AutoModelForSequenceClassification, AutoTokenizer

QUERY = "Where does the cat sit?"
DOCUMENTS = ["The cat sits on the mat.", "Rates rose by half a percent.", "", "A kitten rests on a rug."]
DOCUMENTS = [document for document in DOCUMENTS if document]


def plain_scores(directory: Path, query: str, documents: list[str]) -> np.ndarray:
    """Sigmoid of the logits, with nothing but transformers."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(directory, local_files_only=True, use_safetensors=True).eval()
    encoded = tokenizer([query] * len(documents), documents, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        return torch.sigmoid(model(**encoded).logits[:, 0]).numpy()


def rerank(server: Server, path: str = "/v1/rerank", **body: object):
    return server.post(path, {"model": NAME, "query": QUERY, "documents": DOCUMENTS, **body})


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_scores_are_those_of_plain_transformers(server: Server, reranker_directory: Path, path: str) -> None:
    answer = rerank(server, path).json()
    expected = plain_scores(reranker_directory, QUERY, DOCUMENTS)
    assert np.ptp(expected) > 0.01, "the test model does not tell the documents apart, so this test would say nothing"
    assert answer["model"] == NAME
    assert [result["index"] for result in answer["results"]] == list(np.argsort(-expected))
    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    np.testing.assert_allclose([scores[index] for index in range(len(DOCUMENTS))], expected, atol=1e-5)


def test_scores_are_not_the_similarity_of_embeddings(server: Server) -> None:
    vectors = np.array([item["embedding"] for item in server.embed([QUERY, *DOCUMENTS]).json()["data"]])
    similarity = vectors[1:] @ vectors[0]
    scores = {result["index"]: result["relevance_score"] for result in rerank(server).json()["results"]}
    assert not np.allclose([scores[index] for index in range(len(DOCUMENTS))], similarity, atol=0.01)


def test_documents_are_returned_with_their_scores(server: Server) -> None:
    for result in rerank(server).json()["results"]:
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
    assert all(set(result) == {"index", "relevance_score"} for result in rerank(server, return_documents=False).json()["results"])


def test_documents_may_be_objects(server: Server) -> None:
    objects = [{"text": text, "id": index} for index, text in enumerate(DOCUMENTS)]
    assert rerank(server, documents=objects).json() == rerank(server).json()


def test_top_n_cuts_the_list_from_below(server: Server) -> None:
    complete = rerank(server).json()["results"]
    assert rerank(server, top_n=2).json()["results"] == complete[:2]
    assert rerank(server, top_n=99).json()["results"] == complete


def test_usage_counts_query_and_document_together(server: Server, reranker_directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(reranker_directory, local_files_only=True)
    expected = sum(len(tokenizer(QUERY, document)["input_ids"]) for document in DOCUMENTS)
    assert rerank(server).json()["usage"]["total_tokens"] == expected


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_without_a_reranker_the_endpoint_says_so(embeddings_only: Server, path: str) -> None:
    message = sentence_of(rerank(embeddings_only, path), 404, "no_reranker")
    assert "No reranker is configured" in message and "RERANK_MODEL" in message


def test_the_embedding_model_does_not_rerank(server: Server, embeddings_only: Server) -> None:
    assert EMBEDDER in sentence_of(rerank(server, model=EMBEDDER), 404, "model_not_found")
    sentence_of(rerank(embeddings_only, model=EMBEDDER), 404, "no_reranker")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"documents": []}, "empty_input", "documents"),
        ({"documents": ["x", " "]}, "empty_input", "documents[1]"),
        ({"documents": ["x"] * 9}, "batch_too_large", "at most 8"),
        ({"documents": ["x" * 4001]}, "input_too_long", "at most 4000"),
        ({"documents": "x"}, "invalid_request", "list of texts"),
        ({"documents": [{"body": "x"}]}, "invalid_request", "list of texts"),
        ({"query": ""}, "empty_input", "query"),
        ({"query": ["x"]}, "invalid_request", "query"),
        ({"top_n": 0}, "invalid_request", "top_n"),
        ({"top_n": "two"}, "invalid_request", "top_n"),
    ],
)
def test_bad_requests_are_400(server: Server, body: dict, code: str, words: str) -> None:
    assert words in sentence_of(rerank(server, **body), 400, code)
