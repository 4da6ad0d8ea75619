# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The models, the device and the queue in front of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from .checkpoints import ModelError
from .device import Device, DeviceError, bound_memory, find_device, first_line
from .embeddings import Embedded, Embedder
from .errors import ServiceError
from .metrics import Metrics
from .rerank import Ranked, Reranker
from .settings import Settings

log = logging.getLogger(__name__)
Result = TypeVar("Result", Embedded, Ranked)


class Service:
    """Loads the models and runs requests on them, one at a time, in one thread, so that the event loop stays free.

    Attributes:
        status: ``loading``, ``ok`` or ``error``.
        error: one sentence when the status is ``error``.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.status = "loading"
        self.error: str | None = None
        self.device: Device | None = None
        self.embedder: Embedder | None = None
        self.reranker: Reranker | None = None
        self._waiting = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    def start(self) -> None:
        """Begin to load; the health page tells how far it is."""
        self._thread.submit(self._load)

    def stop(self) -> None:
        """Let the request on the device end, and drop those that wait."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _load(self) -> None:
        began = time.monotonic()
        try:
            self._load_models()
        except (DeviceError, ModelError) as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("loading failed")
            self._fail(f"Loading failed unexpectedly ({type(error).__name__}: {first_line(error)}); the log has the details.")
        else:
            self.status = "ok"
            self.metrics.ready.set(1)
            log.info("ready after %.1f s, mode %s", time.monotonic() - began, self.device.mode if self.device else None)

    def _load_models(self) -> None:
        settings = self.settings
        self.device = find_device(settings.expect_gpu)
        # Before the first model: what is loaded counts, too.
        bound_memory(self.device, settings.gpu_memory_fraction)
        self.metrics.describe(self.device, settings.variant, torch.__version__, torch.version.cuda, settings.version)
        self.embedder = Embedder.load(settings.embedding_model, settings.embedding_name, self.device, settings.batch_size)
        if settings.rerank_model is not None and settings.rerank_name is not None:
            self.reranker = Reranker.load(settings.rerank_model, settings.rerank_name, self.device, settings.batch_size)

    def _fail(self, sentence: str) -> None:
        log.error("%s", sentence)
        self.error = sentence
        self.status = "error"
        self.metrics.ready.set(0)

    def check_ready(self) -> None:
        """Raise the 503 that fits while requests cannot be served."""
        if self.status == "loading":
            raise ServiceError(503, "The models are still loading; try again in a few seconds.", "loading", {"Retry-After": "5"})
        if self.status == "error":
            raise ServiceError(503, self.error or "The service cannot serve.", "unavailable")

    async def run(self, endpoint: str, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run work in the inference thread, when the queue has room for it.

        Args:
            endpoint: label of the metrics.
            work: what to call with the arguments.

        Raises:
            ServiceError: not ready, queue full, or the device failed.
        """
        self.check_ready()
        if self._waiting >= self.settings.max_queue:
            raise ServiceError(
                429, f"{self._waiting} requests are waiting already (MAX_QUEUE); try again later.", "queue_full", {"Retry-After": "1"}
            )
        self._waiting += 1
        self.metrics.waiting.set(self._waiting)
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, endpoint, work, *arguments)
        finally:
            self._waiting -= 1
            self.metrics.waiting.set(self._waiting)
        self.metrics.tokens.labels(endpoint).inc(result.tokens.used)
        self.metrics.cut.labels(endpoint).inc(result.tokens.cut)
        return result

    def _timed(self, endpoint: str, work: Callable[..., Result], *arguments: Any) -> Result:
        with self.metrics.inference_seconds.labels(endpoint).time():
            try:
                return work(*arguments)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                bound = self.settings.gpu_memory_fraction
                allowed = f" within the share of {bound:g} that is allowed (GPU_MEMORY_FRACTION)" if bound < 1 else ""
                raise ServiceError(
                    503,
                    f"The GPU has not enough free memory{allowed} for this request: send fewer or shorter inputs, or lower BATCH_SIZE.",
                    "out_of_memory",
                ) from error
            except RuntimeError as error:
                if self.device is not None and self.device.mode == "gpu" and "CUDA" in str(error):
                    # After such an error every later call of this process fails too; only a new process can use the GPU again.
                    self._fail(
                        f"The GPU stopped working ({first_line(error)}): restart the container, and check the GPU if it happens again."
                    )
                    self.check_ready()
                raise

    def describe(self) -> dict[str, Any]:
        """The health document."""
        return {
            "status": self.status,
            "error": self.error,
            "mode": self.device.mode if self.device else None,
            "device": self.device.name if self.device else None,
            "note": self.device.note if self.device else None,
            "gpu_expected": self.settings.expect_gpu,
            "variant": self.settings.variant,
            "version": self.settings.version,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "models": self.models(),
        }

    def models(self) -> list[dict[str, Any]]:
        """Every configured model, loaded or not."""
        settings = self.settings
        models: list[dict[str, Any]] = [
            {
                "name": settings.embedding_name,
                "type": "embedding",
                "loaded": self.embedder is not None,
                "dimensions": self.embedder.dimensions if self.embedder else None,
                "max_tokens": self.embedder.window if self.embedder else None,
            }
        ]
        if settings.rerank_name is not None:
            models.append(
                {
                    "name": settings.rerank_name,
                    "type": "rerank",
                    "loaded": self.reranker is not None,
                    "dimensions": None,
                    "max_tokens": self.reranker.window if self.reranker else None,
                }
            )
        return models
