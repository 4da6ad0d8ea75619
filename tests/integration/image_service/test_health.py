# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /health says, above all when the server must not serve."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import EMBEDDER, MODEL_DIR, Server, running, sentence_of
from dify_gpu_server.embeddings import Embedder
from make_random_reranker import make_random_reranker
from safetensors.torch import load_file, save_file


def test_a_ready_server_names_what_it_serves_with(server: Server) -> None:
    answer = server.client.get("/health")
    assert answer.status_code == 200
    document = answer.json()
    assert document["status"] == "ok"
    assert document["error"] is None
    assert document["mode"] == "cpu"
    assert document["device"] == "CPU"
    assert document["variant"] == "cpu"
    assert document["torch"] == torch.__version__
    assert document["cuda"] == torch.version.cuda
    embedder, reranker = document["models"]
    assert embedder == {"name": EMBEDDER, "type": "embedding", "loaded": True, "dimensions": 384, "max_tokens": 256}
    assert reranker == {"name": "random-weights-test-reranker", "type": "rerank", "loaded": True, "dimensions": None, "max_tokens": 128}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU that PyTorch can use")
def test_an_expected_gpu_that_is_not_there_is_503_everywhere() -> None:
    with running(EXPECT_GPU="1") as started:
        document = started.wait()
        assert started.client.get("/health").status_code == 503
        assert document["status"] == "error"
        assert document["gpu_expected"] is True
        assert document["mode"] is None, "it must not say that it serves from the CPU"
        why = "built without CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda} answered"
        assert "EXPECT_GPU=1" in document["error"] and why in document["error"]
        assert not document["models"][0]["loaded"]
        assert "EXPECT_GPU=1" in sentence_of(started.embed("x"), 503, "unavailable")
        assert "dify_gpu_ready 0.0" in started.client.get("/metrics").text


def test_while_loading_everything_answers_503(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    load = Embedder.load.__func__

    def slow(cls: type[Embedder], *arguments: object) -> Embedder:
        assert go_on.wait(30)
        return load(cls, *arguments)

    monkeypatch.setattr(Embedder, "load", classmethod(slow))
    with running() as started:
        answer = started.client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "loading")
        refused = started.embed("x")
        sentence_of(refused, 503, "loading")
        assert refused.headers["retry-after"] == "5"
        go_on.set()
        assert started.wait()["status"] == "ok"
        assert started.embed("x").status_code == 200


def broken(tmp_path: Path, **environ: str) -> str:
    """Why a server with these settings is not healthy."""
    with running(**environ) as started:
        document = started.wait()
        assert started.client.get("/health").status_code == 503
    assert document["status"] == "error", document
    assert "Traceback" not in document["error"]
    error: str = document["error"]
    return error


def without_weights(destination: Path) -> Path:
    """A copy of the real model without its weights."""
    shutil.copytree(MODEL_DIR, destination, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    return destination


def test_a_model_with_pickled_weights_only_is_refused(tmp_path: Path) -> None:
    directory = without_weights(tmp_path / "pickled")
    torch.save(load_file(MODEL_DIR / "model.safetensors"), directory / "pytorch_model.bin")
    error = broken(tmp_path, EMBEDDING_MODEL=str(directory))
    assert "no safetensors weights" in error and "can run code" in error


def test_pickled_weights_of_one_module_are_refused_too(tmp_path: Path) -> None:
    directory = without_weights(tmp_path / "mixed")
    shutil.copy(MODEL_DIR / "model.safetensors", directory)
    (directory / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.eye(384)}, directory / "2_Dense/pytorch_model.bin")
    assert "in 2_Dense/" in broken(tmp_path, EMBEDDING_MODEL=str(directory))


def test_a_pickled_reranker_is_refused(tmp_path: Path, reranker_directory: Path) -> None:
    directory = tmp_path / "reranker"
    shutil.copytree(reranker_directory, directory, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(reranker_directory / "model.safetensors"), directory / "pytorch_model.bin")
    assert "no safetensors weights" in broken(tmp_path, RERANK_MODEL=str(directory))


def test_a_reranker_whose_scoring_layer_was_never_trained_is_refused(tmp_path: Path, reranker_directory: Path) -> None:
    directory = tmp_path / "headless"
    shutil.copytree(reranker_directory, directory)
    weights = load_file(directory / "model.safetensors")
    headless = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(headless, directory / "model.safetensors", {"format": "pt"})
    assert "would be random" in broken(tmp_path, RERANK_MODEL=str(directory))


def test_a_classifier_with_several_labels_is_no_reranker(tmp_path: Path) -> None:
    directory = make_random_reranker(MODEL_DIR, tmp_path, labels=3)
    assert "3 values per pair" in broken(tmp_path, RERANK_MODEL=str(directory))


def test_models_in_the_wrong_place_are_refused(tmp_path: Path, reranker_directory: Path) -> None:
    assert "not a cross-encoder" in broken(tmp_path, RERANK_MODEL=str(MODEL_DIR))
    assert "name an embedding model" in broken(tmp_path, EMBEDDING_MODEL=str(reranker_directory))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (None, None, "is not a directory"),
        ("config.json", None, "no readable config.json"),
        ("config.json", "{", "not JSON"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", "{}", "cannot be loaded"),
        ("model.safetensors", "", "cannot be loaded"),
        ("model.safetensors", "garbage garbage", "cannot be loaded"),
        ("modules.json", "[{]", "cannot be loaded"),
    ],
)
def test_a_damaged_model_is_one_sentence(tmp_path: Path, name: str | None, content: str | None, words: str) -> None:
    directory = tmp_path / "model"
    if name is not None:
        shutil.copytree(MODEL_DIR, directory)
        (directory / name).unlink()
        if content is not None:
            (directory / name).write_text(content)
    error = broken(tmp_path, EMBEDDING_MODEL=str(directory))
    assert words in error and str(directory) in error


def test_a_hub_name_that_is_not_in_the_cache_is_one_sentence_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    error = broken(tmp_path, EMBEDDING_MODEL="nobody/no-such-model")
    assert "nobody/no-such-model" in error and "HF_HUB_OFFLINE=1" in error


def test_a_models_own_code_is_never_run(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(MODEL_DIR, directory)
    marker = tmp_path / "ran"
    (directory / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n")
    modules = (directory / "modules.json").read_text()
    (directory / "modules.json").write_text(modules.replace("sentence_transformers.models.Normalize", "evil.Evil"))
    assert "evil" in (directory / "modules.json").read_text()
    assert "cannot be loaded" in broken(tmp_path, EMBEDDING_MODEL=str(directory))
    assert not marker.exists()


def test_health_answers_while_the_model_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop stays free: a quick question is answered before the slow one that came first."""
    works, go_on = threading.Event(), threading.Event()
    with running() as started:
        assert started.wait()["status"] == "ok"
        embed = Embedder.embed

        def slow(self: Embedder, *arguments: object) -> object:
            works.set()
            assert go_on.wait(30), "nobody was served until this was over"
            return embed(self, *arguments)

        monkeypatch.setattr(Embedder, "embed", slow)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(started.embed, "x")
            assert works.wait(30)
            assert started.client.get("/health").status_code == 200
            assert not waiting.done()
            go_on.set()
            assert waiting.result().status_code == 200


def test_a_full_queue_is_429(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    with running(MAX_QUEUE="2") as started:
        assert started.wait()["status"] == "ok"
        embed = Embedder.embed

        def slow(self: Embedder, *arguments: object) -> object:
            assert go_on.wait(30)
            return embed(self, *arguments)

        monkeypatch.setattr(Embedder, "embed", slow)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(started.embed, "x") for _number in range(2)]
            while "dify_gpu_queue_length 2.0" not in started.client.get("/metrics").text:
                time.sleep(0.005)
            refused = started.embed("x")
            assert "MAX_QUEUE" in sentence_of(refused, 429, "queue_full")
            go_on.set()
            assert [answer.result().status_code for answer in waiting] == [200, 200]
        assert started.embed("x").status_code == 200


def test_numbers_that_are_not_finite_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as started:
        assert started.wait()["status"] == "ok"
        monkeypatch.setattr(Embedder, "_encode", lambda self, texts: torch.full((len(texts), 384), float("nan")).numpy())
        sentence_of(started.embed("x"), 500, "not_finite")


def test_an_unexpected_error_is_500_without_details(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as started:
        assert started.wait()["status"] == "ok"

        def fail(self: Embedder, texts: list[str]) -> None:
            raise ValueError("secret detail")

        monkeypatch.setattr(Embedder, "_encode", fail)
        assert "secret detail" not in sentence_of(started.embed("x"), 500, "internal_error")
