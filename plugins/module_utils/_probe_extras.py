# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe runs in a child process for each other GPU runtime of the image: ONNX Runtime and TensorRT.

The source of this file is fed to the container's Python on standard input, as that of the probe itself is: the standard
library only, Python 3.8 and newer, no file written. It is a process of its own, since a native library that crashes or
hangs must not hurt the proof, and since PyTorch in the same process would bring CUDA libraries that the service may lack.

This is private to difyops.gpu.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
from typing import Any, Callable

MARKER = "@@dg-extra@@ "
TEXT_LIMIT = 600
CUDA_PROVIDER = "CUDAExecutionProvider"
# Rows of the model's square matrices. Their elements are small whole numbers, so that the product is exact in any precision.
SIZE = 64


def field(number: int, value: int | bytes | str) -> bytes:
    """Return one field in the wire format of protocol buffers: an integer, or bytes with their length before them."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """Return a number of at least 0 in groups of seven bits, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def onnx_model() -> bytes:
    """Return an ONNX model that multiplies its input, a square matrix, with itself.

    Made by hand from the numbers of onnx.proto, since the package onnx is rarely in an image that serves models.
    """
    dimension = field(1, field(1, SIZE))
    matrix = field(1, field(1, 1) + field(2, dimension + dimension))  # tensor type: float32 (1), shape
    node = field(1, "x") + field(1, "x") + field(2, "y") + field(4, "MatMul")
    graph = field(1, node) + field(2, "probe") + field(11, field(1, "x") + field(2, matrix)) + field(12, field(1, "y") + field(2, matrix))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))  # IR version 8, operator set 13


def onnxruntime(with_torch: bool, provider: str = CUDA_PROVIDER) -> dict[str, Any]:
    """Whether ONNX Runtime has the provider, and computes with it and not silently on the CPU."""
    if with_torch:
        importlib.import_module("torch")  # brings the CUDA libraries of its wheels into the process
    runtime = importlib.import_module("onnxruntime")
    data: dict[str, Any] = {"version": str(runtime.__version__), "providers": [str(name) for name in runtime.get_available_providers()]}
    if provider not in data["providers"]:
        return data
    numpy = importlib.import_module("numpy")
    plain = runtime.SessionOptions()
    plain.log_severity_level = 3
    session = runtime.InferenceSession(onnx_model(), plain, providers=[provider])
    data["used"] = [str(name) for name in session.get_providers()]
    if provider not in data["used"]:
        return data
    # A session that lists the provider may still have placed its nodes on the CPU; this one is refused then.
    strict = runtime.SessionOptions()
    strict.log_severity_level = 3
    if provider != "CPUExecutionProvider":
        strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = runtime.InferenceSession(onnx_model(), strict, providers=[provider])
    except Exception as error:
        data["refused"] = describe(error)
        return data
    matrix = (numpy.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 5).astype(numpy.float32)
    product = session.run(None, {"x": matrix})[0]
    data["right"] = bool((product == matrix @ matrix).all())
    return data


def tensorrt(with_torch: bool) -> dict[str, Any]:
    """Whether TensorRT can make its builder and its runtime, which is where it meets driver and GPU."""
    if with_torch:
        importlib.import_module("torch")
    library = importlib.import_module("tensorrt")
    logger = library.Logger(library.Logger.ERROR)
    return {
        "version": str(library.__version__),
        "runtime": library.Runtime(logger) is not None,
        "builder": library.Builder(logger) is not None,
    }


def describe(error: BaseException) -> str:
    """Return an exception as one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:TEXT_LIMIT]


CHECKS: dict[str, Callable[[bool], dict[str, Any]]] = {"onnxruntime": onnxruntime, "tensorrt": tensorrt}


def write(data: dict[str, Any]) -> None:
    """Write the one line of the answer at once and unbuffered; a line break first, since a library may have left half a line."""
    line = f"\n{MARKER}{json.dumps(data)}\n".encode()
    while line:
        line = line[os.write(1, line) :]


def main(config: str) -> int:
    """Check one runtime; ``config`` is a JSON object with name, with_torch and limit_s."""
    settings = json.loads(config)
    # Nobody outside may be able to end this process when the probe itself is ended.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(settings["limit_s"]) + 2)
    try:
        data = CHECKS[settings["name"]](bool(settings["with_torch"]))
    except Exception as error:
        data = {"error": describe(error)}
    write(data)
    return 0
