# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a small cross-encoder with fixed random weights: it ranks nothing sensibly, and always the same.

No trained reranker is to be had without the model hub; this one is enough to check that the server gives the scores that the
model gives. Its name says what it is.

    python make_random_reranker.py DIRECTORY-WITH-A-BERT-TOKENIZER DESTINATION
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

NAME = "random-weights-test-reranker"


def make_random_reranker(tokenizer_directory: Path, destination: Path, labels: int = 1) -> Path:
    """Make the model below *destination* and return its directory; *labels* other than 1 make one that cannot rerank."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory, local_files_only=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=labels,
        # Wide enough that scores of different documents differ clearly.
        initializer_range=0.5,
    )
    torch.manual_seed(20261122)
    model = BertForSequenceClassification(config).eval()
    directory = destination / NAME
    model.save_pretrained(directory)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(directory)
    return directory


if __name__ == "__main__":
    print(make_random_reranker(Path(sys.argv[1]), Path(sys.argv[2])))
