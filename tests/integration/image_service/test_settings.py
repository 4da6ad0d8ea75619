# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from dify_gpu_server.settings import Settings, SettingsError, offline_environment, served_name

GOOD = {"API_KEY": "0123456789abcdef", "EMBEDDING_MODEL": "/models/m"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"API_KEY": ""}, "API_KEY is not set"),
        ({"API_KEY": "   "}, "API_KEY is not set"),
        ({"API_KEY": "short"}, "at least 16"),
        ({"API_KEY": "0123456789 abcdef"}, "letters and digits"),
        ({"API_KEY": "0123456789abcdéf"}, "letters and digits"),
        ({"API_KEY": "", "API_KEY_FILE": "/nonexistent"}, "/nonexistent cannot be read"),
        ({"EMBEDDING_MODEL": ""}, "EMBEDDING_MODEL is not set"),
        ({"PORT": "http"}, "PORT is 'http'"),
        ({"PORT": "70000"}, "1 to 65535"),
        ({"MAX_BATCH": "0"}, "MAX_BATCH is '0'"),
        ({"MAX_INPUT_CHARS": "1.5"}, "MAX_INPUT_CHARS is '1.5'"),
        ({"EXPECT_GPU": "maybe"}, "EXPECT_GPU is 'maybe'"),
        ({"GPU_MEMORY_FRACTION": "0"}, "GPU_MEMORY_FRACTION is '0'"),
        ({"GPU_MEMORY_FRACTION": "1.1"}, "above 0 and up to 1"),
        ({"GPU_MEMORY_FRACTION": "nan"}, "GPU_MEMORY_FRACTION is 'nan'"),
        ({"GPU_MEMORY_FRACTION": "half"}, "GPU_MEMORY_FRACTION is 'half'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL is 'loud'"),
        ({"RERANK_MODEL": "/other/m"}, "Both models would be served as 'm'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(change: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({**GOOD, **change})
    message = str(caught.value)
    assert words in message and message.endswith(".")
    assert change.get("API_KEY", "").strip() == "" or change["API_KEY"] not in message


def test_the_key_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("fedcba9876543210\n")
    environ = {"EMBEDDING_MODEL": "/models/m", "API_KEY_FILE": str(tmp_path / "key")}
    assert Settings.from_environ(environ).api_key == "fedcba9876543210"


def test_the_key_is_not_in_the_text_of_settings() -> None:
    assert GOOD["API_KEY"] not in repr(Settings.from_environ(GOOD))


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off", " 0 "])
def test_no_gpu_is_expected(value: str) -> None:
    assert Settings.from_environ({**GOOD, "EXPECT_GPU": value}).expect_gpu is False


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_a_gpu_is_expected(value: str) -> None:
    assert Settings.from_environ({**GOOD, "EXPECT_GPU": value}).expect_gpu is True


@pytest.mark.parametrize(("value", "share"), [("", 1.0), ("1", 1.0), ("0.5", 0.5), (" 0.25 ", 0.25)])
def test_a_share_of_the_gpus_memory(value: str, share: float) -> None:
    assert Settings.from_environ({**GOOD, "GPU_MEMORY_FRACTION": value}).gpu_memory_fraction == share


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("/models/bge-m3", "bge-m3"),
        ("/models/bge-m3/", "bge-m3"),
        ("BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("BAAI/bge-small-en-v1.5@5c38ec7", "BAAI/bge-small-en-v1.5"),
    ],
)
def test_names_that_clients_use(model: str, name: str) -> None:
    assert served_name(model) == name


def test_the_hub_is_shut_out_exactly_when_all_models_are_local() -> None:
    local = Settings.from_environ(GOOD)
    assert offline_environment(local)["HF_HUB_OFFLINE"] == "1"
    for change in ({"EMBEDDING_MODEL": "BAAI/bge-m3"}, {"RERANK_MODEL": "BAAI/bge-reranker-base"}):
        assert "HF_HUB_OFFLINE" not in offline_environment(Settings.from_environ({**GOOD, **change}))
