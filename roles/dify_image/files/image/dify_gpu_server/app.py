# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from .embeddings import to_base64
from .errors import ServiceError, error_body
from .gate import Gate
from .metrics import Metrics
from .schemas import EmbeddingsRequest, RerankRequest
from .service import Service
from .settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application; the models load once it is started."""
    metrics = Metrics()
    service = Service(settings, metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(title="Dify GPU image service", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    app.add_middleware(Gate, api_key=settings.api_key, max_body_mib=settings.max_body_mib, metrics=metrics)
    _add_error_handlers(app)
    _add_pages(app, service)
    _add_api(app, service)
    return app


def _add_pages(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        document = service.describe()
        return JSONResponse(document, status_code=200 if document["status"] == "ok" else 503)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.render(service.device), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        data = [{"id": model["name"], "object": "model", "created": 0, "owned_by": "local", **model} for model in service.models()]
        return {"object": "list", "data": data}


def _add_api(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsRequest) -> JSONResponse:
        service.check_ready()
        embedder = service.embedder
        assert embedder is not None
        _check_name(body.model, embedder.name, "embedding")
        if body.dimensions not in (None, embedder.dimensions):
            raise ServiceError(
                400,
                f"'dimensions' is {body.dimensions}; the vectors of '{embedder.name}' "
                f"have {embedder.dimensions} and are not shortened: leave it out.",
                "unsupported_dimensions",
            )
        texts = body.texts(settings)
        service.metrics.batch.labels("embeddings").observe(len(texts))
        result = await service.run("embeddings", embedder.embed, texts, settings.max_input_tokens)
        _check_finite(result.vectors)
        as_text = body.encoding_format == "base64"
        return JSONResponse(
            {
                "object": "list",
                "model": embedder.name,
                "data": [
                    {"object": "embedding", "index": index, "embedding": to_base64(vector) if as_text else vector.tolist()}
                    for index, vector in enumerate(result.vectors)
                ],
                "usage": {"prompt_tokens": result.tokens.used, "total_tokens": result.tokens.used},
            }
        )

    @app.post("/v1/rerank")
    @app.post("/rerank")
    async def rerank(body: RerankRequest) -> JSONResponse:
        service.check_ready()
        reranker = service.reranker
        if reranker is None:
            raise ServiceError(
                404,
                "No reranker is configured on this server: set RERANK_MODEL to a cross-encoder. "
                "The embedding model is not used in its place, since its similarity is not a rerank score.",
                "no_reranker",
            )
        _check_name(body.model, reranker.name, "rerank")
        texts = body.texts(settings)
        service.metrics.batch.labels("rerank").observe(len(texts))
        result = await service.run("rerank", reranker.rank, body.query, texts, settings.max_input_tokens)
        _check_finite([score for _index, score in result.scores])
        results: list[dict[str, Any]] = [{"index": index, "relevance_score": score} for index, score in result.scores[: body.top_n]]
        if body.return_documents:
            results = [{**entry, "document": {"text": texts[entry["index"]]}} for entry in results]
        return JSONResponse(
            {
                "model": reranker.name,
                "results": results,
                "usage": {"prompt_tokens": result.tokens.used, "total_tokens": result.tokens.used},
            }
        )


def _check_name(asked: str, served: str, kind: str) -> None:
    if asked != served:
        raise ServiceError(404, f"There is no {kind} model '{asked[:200]}' here; this server has '{served}'.", "model_not_found")


def _check_finite(values: Any) -> None:
    if not np.isfinite(values).all():
        raise ServiceError(500, "The model gave numbers that are not finite: its weights or the device are faulty.", "not_finite")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    async def service_error(_request: Request, error: ServiceError) -> JSONResponse:
        return JSONResponse(error.body(), status_code=error.status, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(error_body(400, validation_sentence(error.errors()), "invalid_request"), status_code=400)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        sentences = {
            404: ("There is nothing at {path}; see /v1/embeddings, /v1/rerank, /v1/models, /health and /metrics.", "not_found"),
            405: ("{path} does not take {method} requests.", "method_not_allowed"),
        }
        sentence, code = sentences.get(error.status_code, ("The request cannot be read: {detail}.", "invalid_request"))
        message = sentence.format(path=request.url.path[:200], method=request.method, detail=str(error.detail).rstrip("."))
        return JSONResponse(error_body(error.status_code, message, code), status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        log.error("request failed", exc_info=error)
        body = error_body(500, "The server failed on this request; its log has the details.", "internal_error")
        return JSONResponse(body, status_code=500)


def validation_sentence(problems: Sequence[Any]) -> str:
    """One sentence from pydantic's list; never the input itself, which may be long or private."""
    first = problems[0]
    # The last parts of a location name the members of a union that were tried, which says nothing to a caller.
    location = [str(part) for part in first["loc"][1:] if not str(part).startswith(("constrained-", "list[", "str", "TextDocument"))]
    field = ".".join(location)
    if first["type"] == "json_invalid":
        return "The request body is not valid JSON."
    if not field or first["type"] == "model_attributes_type":
        return "The request body must be a JSON object, sent with 'Content-Type: application/json'."
    if first["type"] == "missing":
        return f"'{field}' is missing."
    if field.split(".", maxsplit=1)[0] == "input":
        return "'input' must be a text or a list of texts; lists of token numbers are not supported."
    if field.split(".", maxsplit=1)[0] == "documents":
        return "'documents' must be a list of texts, or of objects with a 'text'."
    return f"'{field}' is not valid: {first['msg'][0].lower()}{first['msg'][1:]}."
