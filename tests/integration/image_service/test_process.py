# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as the image starts it: a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from conftest import API_KEY, MODEL_DIR


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "HOME")}
    return {**kept, **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def health(port: int) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_it_does_not_start_without_a_key() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "dify_gpu_server"]
    done = subprocess.run(command, check=False, env=environment(EMBEDDING_MODEL=str(MODEL_DIR)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    (said,) = (line for line in done.stderr.splitlines() if not line.startswith("import time:"))
    assert said.startswith("dify-gpu: API_KEY is not set")
    assert imported and not imported & {"torch", "sentence_transformers"}, "a wrong setting must not wait for the model libraries"


def test_it_starts_serves_and_stops(tmp_path: Path) -> None:
    port = free_port()
    settings = {"API_KEY": API_KEY, "EMBEDDING_MODEL": str(MODEL_DIR), "HOST": "127.0.0.1", "PORT": str(port), "LOG_LEVEL": "debug"}
    check = [sys.executable, "-m", "dify_gpu_server.healthcheck"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "dify_gpu_server"], env=environment(**settings), stdout=log, stderr=log)
    try:
        down = subprocess.run(check, check=False, env=environment(PORT=str(port)), capture_output=True, text=True)
        assert down.returncode == 1 and "Traceback" not in down.stderr
        for _attempt in range(600):
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                if health(port)[0] == 200:
                    break
            except OSError:  # nobody listens yet, or the libraries are being loaded
                pass
            time.sleep(0.1)
        # A proxy in the environment must not stand between the health check and the server.
        proxied = environment(PORT=str(port), http_proxy="http://127.0.0.1:9")
        up = subprocess.run(check, check=False, env=proxied, capture_output=True, text=True)
        assert up.returncode == 0 and json.loads(up.stdout)["status"] == "ok"
        body = json.dumps({"model": MODEL_DIR.name, "input": "a"}).encode()
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/embeddings", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert len(json.load(answer)["data"][0]["embedding"]) == 384
            assert "server" not in {name.lower() for name in answer.headers}
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    text = (tmp_path / "log").read_text()
    assert status in (0, -signal.SIGTERM), text
    assert "Traceback" not in text
    assert API_KEY not in text
