# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bound on the GPU's memory. There is no GPU here: what PyTorch would be told is recorded, and its error is SIMULATED."""

from __future__ import annotations

import pytest
import torch
from conftest import running, sentence_of
from dify_gpu_server.device import Device, bound_memory


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What PyTorch is told about memory."""
    calls: list[tuple[float, str]] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: calls.append((share, device)))
    return calls


def test_pytorch_is_told_the_share_of_a_gpu(told: list[tuple[float, str]]) -> None:
    bound_memory(Device("gpu", "cuda:0", "SIMULATED GPU"), 0.5)
    assert told == [(0.5, "cuda:0")]


def test_nothing_is_bound_on_the_cpu_or_without_a_share(told: list[tuple[float, str]]) -> None:
    bound_memory(Device("cpu", "cpu", "CPU"), 0.5)
    bound_memory(Device("gpu", "cuda:0", "SIMULATED GPU"), 1.0)
    assert told == []


@pytest.mark.parametrize(("share", "named"), [("0.5", True), ("1", False)])
def test_full_memory_is_a_sentence_that_names_the_bound(monkeypatch: pytest.MonkeyPatch, share: str, named: bool) -> None:
    def full(_texts: list[str], _limit: int) -> None:
        raise torch.OutOfMemoryError("SIMULATED")

    with running(GPU_MEMORY_FRACTION=share) as server:
        assert server.wait()["status"] == "ok"
        service = server.client.app.state.service
        monkeypatch.setattr(service.embedder, "embed", full)
        message = sentence_of(server.embed("x"), 503, "out_of_memory")
        assert ("GPU_MEMORY_FRACTION" in message) is named
        monkeypatch.undo()
        assert server.embed("x").status_code == 200, "full memory must not end the service"
