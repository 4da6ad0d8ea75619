# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies of the requests, and the checks that need no model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from .errors import bad_request
from .settings import Settings


class TextDocument(BaseModel):
    """A document given as an object."""

    text: StrictStr


class EmbeddingsRequest(BaseModel):
    """Body of POST /v1/embeddings. Fields that the API has and this server does not use (user) are ignored."""

    model_config = ConfigDict(extra="ignore")

    model: StrictStr
    input: StrictStr | list[StrictStr]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: StrictInt | None = None

    def texts(self, settings: Settings) -> list[str]:
        """The inputs as a list.

        Raises:
            ServiceError: none, too many, or an input that cannot be embedded (400).
        """
        texts = [self.input] if isinstance(self.input, str) else self.input
        check_texts(texts, "input", settings)
        return texts


class RerankRequest(BaseModel):
    """Body of POST /v1/rerank."""

    model_config = ConfigDict(extra="ignore")

    model: StrictStr
    query: StrictStr
    documents: list[StrictStr | TextDocument]
    top_n: StrictInt | None = Field(default=None, ge=1)
    return_documents: bool = True

    def texts(self, settings: Settings) -> list[str]:
        """The documents' texts.

        Raises:
            ServiceError: none, too many, or a text that cannot be scored (400).
        """
        check_texts([self.query], "query", settings)
        texts = [document if isinstance(document, str) else document.text for document in self.documents]
        check_texts(texts, "documents", settings)
        return texts


def check_texts(texts: list[str], field: str, settings: Settings) -> None:
    """Refuse what no model should see.

    Raises:
        ServiceError: the first thing that is wrong (400).
    """
    if not texts:
        raise bad_request(f"'{field}' is empty: send at least one text.", "empty_input")
    if len(texts) > settings.max_batch:
        raise bad_request(
            f"'{field}' has {len(texts)} texts; at most {settings.max_batch} are allowed in one request (MAX_BATCH).", "batch_too_large"
        )
    for index, text in enumerate(texts):
        where = f"'{field}'" if len(texts) == 1 else f"'{field}[{index}]'"
        if not text.strip():
            raise bad_request(f"{where} is empty: send a text.", "empty_input")
        if len(text) > settings.max_input_chars:
            raise bad_request(
                f"{where} has {len(text)} characters; at most {settings.max_input_chars} are allowed (MAX_INPUT_CHARS).", "input_too_long"
            )
        if not _is_unicode(text):
            raise bad_request(f"{where} is not valid Unicode: it has half of a surrogate pair.", "invalid_unicode")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
