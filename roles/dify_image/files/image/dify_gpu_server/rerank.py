# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reranking with a cross-encoder: query and document are read together, which no similarity of embeddings replaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sentence_transformers import CrossEncoder

from .checkpoints import ModelError, is_classifier, model_directory, weight_names
from .device import Device, first_line
from .tokens import TokenCount, count_tokens


@dataclass(frozen=True)
class Ranked:
    """(index, relevance score) of each document, best first, with the tokens that they took."""

    scores: list[tuple[int, float]]
    tokens: TokenCount


class Reranker:
    """A loaded cross-encoder. Not safe for use by several threads at once."""

    def __init__(self, model: CrossEncoder, name: str, batch_size: int) -> None:
        self.name = name
        self._model = model
        self._batch_size = batch_size
        self.window = int(model.max_seq_length or model.tokenizer.model_max_length)
        model.predict([("warm up", "warm up")], show_progress_bar=False)

    @classmethod
    def load(cls, model: str, name: str, device: Device, batch_size: int) -> Reranker:
        """Load a cross-encoder from safetensors.

        Raises:
            ModelError: it cannot be loaded, or does not give one score per pair.
        """
        directory = model_directory(model)
        if not is_classifier(directory):
            raise ModelError(
                f"RERANK_MODEL '{model}' is not a cross-encoder (its config.json names no ...ForSequenceClassification): "
                "name a cross-encoder, or leave RERANK_MODEL empty."
            )
        try:
            loaded = CrossEncoder(
                str(directory),
                device=device.torch_name,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
        except Exception as error:  # whatever a broken directory provokes in the model libraries
            raise ModelError(f"Reranker '{model}' cannot be loaded ({type(error).__name__}: {first_line(error)}).") from error
        if loaded.num_labels != 1:
            raise ModelError(f"Reranker '{model}' gives {loaded.num_labels} values per pair; a cross-encoder with one score is needed.")
        missing = sorted(_head_parameters(loaded) - weight_names(directory))
        if missing:
            raise ModelError(
                f"Reranker '{model}' has no weights for its scoring layer ({missing[0]}): "
                "its scores would be random. Use a trained cross-encoder."
            )
        return cls(loaded, name, batch_size)

    def rank(self, query: str, documents: list[str], token_limit: int) -> Ranked:
        """Score every document against the query.

        Args:
            query: the question.
            documents: at least one text.
            token_limit: the most tokens allowed in one query with its document; 0 for no limit.

        Raises:
            ServiceError: a document is too long (400).
        """
        pairs = [(query, document) for document in documents]
        tokens = count_tokens(self._model.tokenizer, pairs, self.window, token_limit, "query with document")
        scores = np.asarray(
            self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True), dtype=np.float64
        )
        order = np.argsort(-scores, kind="stable")
        return Ranked([(int(index), float(scores[index])) for index in order], tokens)


def _head_parameters(model: CrossEncoder) -> set[str]:
    """The parameters that turn a reading of the pair into a score; transformers makes up random ones when a file lacks them."""
    loaded = model.model
    if loaded is None:
        return set()
    heads = ("classifier", "classification_head", "score")
    return {name for name, _parameter in loaded.named_parameters() if name.split(".")[0] in heads}
