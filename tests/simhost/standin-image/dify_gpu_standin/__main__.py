# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves /health, /metrics, /v1/models, /v1/embeddings and /v1/rerank, as the real image does, without a model.

Environment: API_KEY, or API_KEY_FILE (a file that holds it); PORT; EXPECT_GPU (1: without a usable GPU /health is 503);
SIMULATED_ANSWERS (1: embeddings and ranks are made up from the words, so that what lies before the server can be tested).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

NO_MODEL = "simulated image: no model runs here. It stands in for a CUDA variant on a simulated GPU; only the cpu variant is real."
MIN_KEY_LENGTH = 16
MAX_BODY = 16 * 2**20
DIMENSIONS = 8
REQUESTS = "dify_gpu_requests_total"
# How often what was answered.
ANSWERED: dict[str, int] = {}
POSTS = ("/v1/embeddings", "/v1/rerank", "/rerank")


def gpu_problem() -> str | None:
    """Why the simulated GPU cannot be used; None when a small product on it came out right."""
    try:
        left = torch.arange(64, dtype=torch.float32, device="cuda:0").reshape(8, 8)
        right = torch.equal((left @ left).cpu(), left.cpu() @ left.cpu())
    except (RuntimeError, AssertionError) as error:
        return f"CUDA {torch.version.cuda} answered '{str(error).splitlines()[0].rstrip('.')}'"
    return None if right else "a matrix product on it does not agree with the CPU"


def describe() -> dict[str, Any]:
    """The health document."""
    problem = gpu_problem()
    expected = os.environ.get("EXPECT_GPU", "").lower() in ("1", "true", "yes", "on")
    gpu = None
    if problem is None:
        free, total = torch.cuda.mem_get_info(0)
        major, minor = torch.cuda.get_device_capability(0)
        gpu = {"name": torch.cuda.get_device_name(0), "compute_capability": f"{major}.{minor}"}
        gpu.update(memory_free_mib=free // 2**20, memory_total_mib=total // 2**20)
    failed = problem is not None and expected
    return {
        "status": "error" if failed else "ok",
        "simulated": True,
        "error": f"A GPU is expected (EXPECT_GPU=1) and cannot be used: {problem}." if failed else None,
        "mode": None if failed else "cpu" if problem else "gpu",
        "device": None if failed else gpu["name"] if gpu else "CPU",
        "note": None if failed else problem,
        "gpu_expected": expected,
        "gpu": gpu,
        "variant": os.environ.get("DIFYOPS_VARIANT", "unknown"),
        "version": os.environ.get("DIFYOPS_IMAGE_VERSION", "unknown"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "models": [],
    }


def metrics(document: dict[str, Any]) -> str:
    """The two metrics that a monitor needs to see what serves."""
    labels = {name: document[name] or "" for name in ("mode", "device", "variant", "torch", "cuda", "version")}
    pairs = ",".join(f'{name}="{value}"' for name, value in {**labels, "simulated": "true"}.items())
    return (
        "# TYPE dify_gpu_ready gauge\n"
        f"dify_gpu_ready {int(document['status'] == 'ok')}\n"
        "# TYPE dify_gpu_info gauge\n"
        f"dify_gpu_info{{{pairs}}} 1\n"
        + "".join(f'{REQUESTS}{{endpoint="{name}",status="200"}} {count}\n' for name, count in sorted(ANSWERED.items()))
    )


def made_up_vector(text: str) -> list[float]:
    """Numbers of length one that depend on nothing but the text."""
    numbers = [byte / 255 - 0.5 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def made_up_answer(path: str, wish: dict[str, Any]) -> dict[str, Any] | None:
    """The answer in the shape of the real one; None where the request has not what it needs."""
    if path == "/v1/embeddings":
        texts = [wish.get("input")] if isinstance(wish.get("input"), str) else wish.get("input")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            return None
        data = [{"object": "embedding", "index": index, "embedding": made_up_vector(text)} for index, text in enumerate(texts)]
        words = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": words, "total_tokens": words}
        return {"object": "list", "model": wish.get("model"), "data": data, "usage": usage, "simulated": True}
    query, documents = wish.get("query"), wish.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list) or not all(isinstance(text, str) for text in documents):
        return None
    asked = set(query.lower().split())
    scores = [len(asked & set(text.lower().split())) / (len(asked) or 1) for text in documents]
    order = sorted(range(len(documents)), key=lambda index: -scores[index])
    results = [{"index": index, "relevance_score": scores[index], "document": {"text": documents[index]}} for index in order]
    return {"model": wish.get("model"), "results": results, "simulated": True}


class Handler(BaseHTTPRequestHandler):
    """One request. The server's `key` is the API key."""

    server_version = "dify-gpu-simulated"
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if self.path == "/health":
            document = describe()
            self._json(200 if document["status"] == "ok" else 503, document)
        elif self.path == "/metrics":
            self._send(200, "text/plain; version=0.0.4", metrics(describe()).encode())
        elif self._allowed():
            if self.path == "/v1/models":
                self._json(200, {"object": "list", "data": [], "simulated": True})
            else:
                self._error(404, f"There is nothing at {self.path[:200]}.", "not_found")

    def do_POST(self) -> None:
        if not self._read_body() or not self._allowed():
            return
        if self.path in POSTS and os.environ.get("SIMULATED_ANSWERS") == "1":
            self._make_up()
        elif self.path in POSTS:
            self._error(501, NO_MODEL, "simulated")
        else:
            self._error(404, f"There is nothing at {self.path[:200]}.", "not_found")

    def _read_body(self) -> bool:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            self._error(413, f"The request needs a Content-Length of at most {MAX_BODY // 2**20} MiB.", "request_too_large")
            return False
        self._body = self.rfile.read(int(length))
        return True

    def _make_up(self) -> None:
        try:
            wish = json.loads(self._body)
        except ValueError:
            wish = None
        answer = made_up_answer(self.path, wish) if isinstance(wish, dict) else None
        if answer is None:
            self._error(400, "The request has not the texts that this address needs.", "invalid_request")
            return
        name = "embeddings" if "embeddings" in self.path else "rerank"
        ANSWERED[name] = ANSWERED.get(name, 0) + 1
        self._json(200, answer)

    def _allowed(self) -> bool:
        scheme, _space, key = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self.server.key):  # type: ignore[attr-defined]
            return True
        self._error(401, "A valid API key is needed: send it as 'Authorization: Bearer <key>'.", "invalid_api_key")
        return False

    def _error(self, status: int, message: str, code: str) -> None:
        kind = "authentication_error" if status == 401 else "invalid_request_error" if status < 500 else "server_error"
        self._json(status, {"error": {"message": message, "type": kind, "code": code}})

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text: str, *values: object) -> None:
        print(f"dify-gpu-simulated: {text % values}", file=sys.stderr)


def api_key() -> bytes:
    """The key of API_KEY, or of the file that API_KEY_FILE names. Ends the process when there is none."""
    key = os.environ.get("API_KEY", "").strip()
    path = os.environ.get("API_KEY_FILE", "").strip()
    if not key and path:
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"dify-gpu-simulated: API_KEY_FILE {path} cannot be read ({error}).")
    if len(key) < MIN_KEY_LENGTH:
        sys.exit(
            f"dify-gpu-simulated: API_KEY needs at least {MIN_KEY_LENGTH} characters: set it, or API_KEY_FILE to a file that holds it."
        )
    return key.encode()


def main() -> None:
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT") or "8000")), Handler)
    server.key = api_key()  # type: ignore[attr-defined]
    # As process 1 of a container the server gets no default handlers.
    signal.signal(signal.SIGTERM, lambda *_arguments: sys.exit(0))
    print(f"dify-gpu-simulated: serving; {NO_MODEL}", file=sys.stderr)
    server.serve_forever()


if __name__ == "__main__":
    main()
