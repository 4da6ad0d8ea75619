# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe found of the other GPU runtimes in the image, judged: ONNX Runtime and TensorRT.

They never decide whether a host is proven: an image may well bring a runtime that its service does not use on the GPU.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.module_utils import _diagnosis
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Case, items
from ansible_collections.difyops.gpu.plugins.module_utils._probe_extras import CUDA_PROVIDER


class Extra(NamedTuple):
    """One other runtime, judged."""

    name: str
    version: str | None
    status: str
    expected: str
    seen: str
    code: str | None
    remedy: str | None


def judge_extras(case: Case) -> list[Extra]:
    """Return the runtimes that the image has. None without a GPU, since then none was probed."""
    if case.expected.mode != "gpu":
        return []
    judges = {"onnxruntime": _onnxruntime, "tensorrt": _tensorrt}
    return [judges[name](data) for name, data in case.probe.extras().items() if name in judges]


def _version(data: Mapping[str, Any]) -> str | None:
    return str(data["version"]) if data.get("version") else None


def _not_tested(name: str, data: Mapping[str, Any], expected: str) -> Extra | None:
    """Return what was not tested for an honest reason: no time, no memory left, or a GPU that admits one process."""
    if data.get("skipped"):
        return Extra(name, _version(data), "skipped", expected, f"not tested: {data['skipped']}", None, None)
    said = f"{data.get('error') or ''} {data.get('refused') or ''} {data.get('words') or ''}".lower()
    if any(words in said for words in ("out of memory", "cuda failure 2:", "busy or unavailable")):
        return Extra(name, _version(data), "skipped", expected, f"not tested: {data.get('error') or data.get('words')}", None, None)
    return None


def _failed(name: str, data: Mapping[str, Any], expected: str, seen: str, code: str) -> Extra:
    said = data.get("error") or data.get("words") or "nothing"
    return Extra(name, _version(data), "failed", expected, seen, code, _diagnosis.remedy(code, error=said))


def _after_torch(data: Mapping[str, Any]) -> str:
    return ", but only after PyTorch was imported (the CUDA libraries are found through it)" if data.get("with_torch") else ""


def _onnxruntime(data: Mapping[str, Any]) -> Extra:
    name, expected = "onnxruntime", f"a model runs on {CUDA_PROVIDER}"
    providers, used = [str(entry) for entry in items(data.get("providers"))], [str(entry) for entry in items(data.get("used"))]
    if data.get("right") is not True and (extra := _not_tested(name, data, expected)) is not None:
        return extra
    if data.get("error"):
        return _failed(name, data, expected, str(data["error"]), "DG413")
    if CUDA_PROVIDER not in providers:
        return _failed(name, data, expected, f"providers: {', '.join(providers) or 'none'}", "DG410")
    if CUDA_PROVIDER not in used:
        why = f" ({data['words']})" if data.get("words") else ""
        return _failed(name, data, expected, f"the session uses {', '.join(used) or 'no provider'}{why}", "DG411")
    if data.get("refused"):
        return _failed(name, {**data, "error": data["refused"]}, expected, "the model's nodes were placed on the CPU", "DG411")
    if data.get("right") is not True:
        return _failed(name, data, expected, "the product on the GPU is wrong", "DG413")
    return Extra(name, _version(data), "ok", expected, f"the product on {CUDA_PROVIDER} is right{_after_torch(data)}", None, None)


def _tensorrt(data: Mapping[str, Any]) -> Extra:
    name, expected = "tensorrt", "builder and runtime can be made"
    if data.get("runtime") is True and data.get("builder") is True:
        return Extra(name, _version(data), "ok", expected, f"both were made{_after_torch(data)}", None, None)
    if (extra := _not_tested(name, data, expected)) is not None:
        return extra
    lacking = " and ".join(part for part in ("runtime", "builder") if data.get(part) is not True)
    return _failed(name, data, expected, str(data.get("error") or f"no {lacking}"), "DG412")
