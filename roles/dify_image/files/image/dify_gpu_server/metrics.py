# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics of one server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from .device import Device

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one application; a registry of its own lets several live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "dify_gpu_requests", "Requests by endpoint and HTTP status.", ["endpoint", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "dify_gpu_request_seconds", "Time to answer, waiting included.", ["endpoint"], buckets=SECONDS, registry=self.registry
        )
        self.inference_seconds = Histogram(
            "dify_gpu_inference_seconds", "Time on the device.", ["endpoint"], buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram("dify_gpu_batch_size", "Inputs per request.", ["endpoint"], buckets=SIZES, registry=self.registry)
        self.tokens = Counter("dify_gpu_tokens", "Tokens processed.", ["endpoint"], registry=self.registry)
        self.cut = Counter("dify_gpu_cut_inputs", "Inputs longer than the model's window, cut to it.", ["endpoint"], registry=self.registry)
        self.waiting = Gauge("dify_gpu_queue_length", "Requests waiting for the device or on it.", registry=self.registry)
        self.ready = Gauge("dify_gpu_ready", "1 when the models are loaded and usable.", registry=self.registry)
        self.memory = Gauge("dify_gpu_memory_bytes", "Memory of the GPU in use.", ["kind"], registry=self.registry)
        self.info = Gauge(
            "dify_gpu_info", "What serves, always 1.", ["mode", "device", "variant", "torch", "cuda", "version"], registry=self.registry
        )

    def describe(self, device: Device, variant: str, torch: str, cuda: str | None, version: str) -> None:
        """Say once what serves."""
        self.info.labels(device.mode, device.name, variant, torch, cuda or "", version).set(1)

    def render(self, device: Device | None) -> bytes:
        """The exposition text, with the GPU's memory as it is now."""
        memory = device.memory() if device is not None else None
        if memory is not None:
            free, total = memory
            self.memory.labels("used").set(total - free)
            self.memory.labels("total").set(total)
        return generate_latest(self.registry)
