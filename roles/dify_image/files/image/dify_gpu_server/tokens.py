# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Token counts of inputs, the same that the model will see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import bad_request


@dataclass(frozen=True)
class TokenCount:
    """Tokens of a request.

    Attributes:
        used: tokens that the model processes, special tokens included.
        cut: how many inputs are longer than the model's window and are cut to it.
    """

    used: int
    cut: int


def count_tokens(tokenizer: Any, inputs: list[Any], window: int, limit: int, what: str) -> TokenCount:
    """Count tokens and refuse inputs above the operator's limit.

    Args:
        tokenizer: the model's own tokenizer.
        inputs: texts, or (query, document) pairs.
        window: the most tokens that the model reads of one input.
        limit: the most tokens allowed in one input; 0 for no limit of its own.
        what: how an input is called in messages.

    Raises:
        ServiceError: an input has more tokens than the limit (400).
    """
    if inputs and isinstance(inputs[0], tuple):
        queries, documents = zip(*inputs, strict=True)
        encoded = tokenizer(list(queries), list(documents), truncation=False, verbose=False)
    else:
        encoded = tokenizer(inputs, truncation=False, verbose=False)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    for index, length in enumerate(lengths):
        if 0 < limit < length:
            raise bad_request(
                f"{what} {index} has {length} tokens; at most {limit} are allowed (MAX_INPUT_TOKENS). Send shorter texts.",
                "input_too_long",
            )
    return TokenCount(sum(min(length, window) for length in lengths), sum(length > window for length in lengths))
