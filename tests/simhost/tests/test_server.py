# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in server: honest about being simulated, closed without the API key."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SIMHOST, Machine
from test_standin import describe, python_path

IMAGE = SIMHOST / "standin-image"
KEY = "0123456789abcdef0123456789abcdef"


def start(machine: Machine, root: Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    shutil.copytree(IMAGE, root, dirs_exist_ok=True)
    (root / "torch/version.py").write_text(describe("2.14.1", "12.6", "8.6", "").stdout, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "LD_LIBRARY_PATH": str(machine.libraries),
        "PYTHONPATH": python_path(str(root)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dify_gpu_standin"], env={**os.environ, **own, **environment}, stderr=subprocess.PIPE, text=True
    )
    return process, f"http://127.0.0.1:{port}"


def request(url: str, key: str | None = None, data: bytes | None = None) -> tuple[int, str]:
    asked = urllib.request.Request(url, data=data, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def server(machine: Machine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    machine.set("a10-535", loaded=getattr(request, "param", ""))
    process, url = start(machine, tmp_path, API_KEY=KEY, EXPECT_GPU="1")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0:
                break
        time.sleep(0.05)
    yield url
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_health(server: str) -> None:
    status, body = request(f"{server}/health")
    document = json.loads(body)
    assert (status, document["status"], document["simulated"], document["mode"]) == (200, "ok", True, "gpu")
    assert (document["torch"], document["cuda"]) == ("2.14.1+cu126", "12.6")
    assert document["gpu"]["name"] == "NVIDIA A10 (simulated)"
    assert 'simulated="true"' in request(f"{server}/metrics")[1]


@pytest.mark.parametrize("server", [None], indirect=True)
def test_health_without_the_expected_gpu(server: str) -> None:
    status, body = request(f"{server}/health")
    document = json.loads(body)
    assert (status, document["status"], document["mode"]) == (503, "error", None)
    assert "No CUDA GPUs are available" in document["error"]


def test_key(server: str) -> None:
    for path in ("/v1/embeddings", "/v1/rerank", "/rerank"):
        assert request(server + path, None, b"{}")[0] == 401
        assert request(server + path, "wrong-key-of-some-length", b"{}")[0] == 401
        status, body = request(server + path, KEY, b"{}")
        assert status == 501
        assert "simulated" in json.loads(body)["error"]["message"]
    assert request(f"{server}/v1/models")[0] == 401
    assert request(f"{server}/v1/models", KEY)[0] == 200
    assert request(f"{server}/nothing", KEY)[0] == 404


def test_key_from_a_file_or_none(machine: Machine, tmp_path: Path) -> None:
    machine.set("a10-535")
    missing, _url = start(machine, tmp_path / "image", API_KEY="", API_KEY_FILE=str(tmp_path / "absent"))
    assert "cannot be read" in missing.communicate(timeout=20)[1]
    short, _url = start(machine, tmp_path / "image", API_KEY="short")
    words = short.communicate(timeout=20)[1]
    assert short.returncode == 1
    assert "API_KEY needs at least" in words
    assert "Traceback" not in words
