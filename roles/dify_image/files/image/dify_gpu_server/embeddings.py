# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentence embeddings."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from .checkpoints import ModelError, is_classifier, model_directory
from .device import Device, first_line
from .tokens import TokenCount, count_tokens

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Embedded:
    """Vectors (one row per text) with the tokens that they took."""

    vectors: Vectors
    tokens: TokenCount


class Embedder:
    """A loaded embedding model. Not safe for use by several threads at once."""

    def __init__(self, model: SentenceTransformer, name: str, batch_size: int) -> None:
        self.name = name
        self._model = model
        self._batch_size = batch_size
        self.window = int(model.get_max_seq_length() or model.tokenizer.model_max_length)
        # Asked of the model rather than of its configuration, which may not know; also the first, slow run.
        self.dimensions = int(self._encode(["warm up"]).shape[1])

    @classmethod
    def load(cls, model: str, name: str, device: Device, batch_size: int) -> Embedder:
        """Load a model from safetensors.

        Raises:
            ModelError: it cannot be loaded.
        """
        directory = model_directory(model)
        if is_classifier(directory) and not (directory / "modules.json").is_file():
            raise ModelError(
                f"EMBEDDING_MODEL '{model}' is a classifier or cross-encoder: name an embedding model, and a cross-encoder in RERANK_MODEL."
            )
        try:
            loaded = SentenceTransformer(
                str(directory),
                device=device.torch_name,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
            return cls(loaded, name, batch_size)
        except Exception as error:  # whatever a broken directory provokes in the model libraries
            raise ModelError(f"Embedding model '{model}' cannot be loaded ({type(error).__name__}: {first_line(error)}).") from error

    def embed(self, texts: list[str], token_limit: int) -> Embedded:
        """Embed texts.

        Args:
            texts: at least one text.
            token_limit: the most tokens allowed in one text; 0 for no limit.

        Raises:
            ServiceError: a text is too long (400).
        """
        tokens = count_tokens(self._model.tokenizer, texts, self.window, token_limit, "input")
        return Embedded(self._encode(texts), tokens)

    def _encode(self, texts: list[str]) -> Vectors:
        vectors = self._model.encode(texts, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)


def to_base64(vector: Vectors) -> str:
    """A vector as the OpenAI API encodes it: little-endian 32-bit floats in base64."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
