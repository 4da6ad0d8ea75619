# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the name of a model to a directory that is safe to load.

Weights are read from safetensors only: PyTorch's pickle files can run code when they are loaded (CVE-2025-32434), and
so can a model's own Python files, which are never executed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from .settings import hub_is_offline, is_local

# A hub snapshot brings weights, tokenizer and configuration, but neither pickles nor code nor other runtimes' copies.
HUB_PATTERNS = ("*.json", "*.txt", "*.safetensors", "*.model")
HUB_IGNORED = ("onnx/*", "openvino/*")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class ModelError(Exception):
    """A model cannot be loaded; the text is one sentence for the operator."""


def configuration(directory: Path) -> dict[str, Any]:
    """The model's config.json; only for a directory that `model_directory` has checked."""
    content: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return content


def is_classifier(directory: Path) -> bool:
    """Whether the model's configuration names a sequence classifier, the kind that a cross-encoder is."""
    names = configuration(directory).get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def weight_names(directory: Path) -> set[str]:
    """Names of the tensors in the model's own safetensors files, read from their headers."""
    names: set[str] = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            names.update(weights.keys())
    return names


def model_directory(model: str) -> Path:
    """Find the files of a model, downloading them from the hub when that is allowed.

    Args:
        model: a path, or a hub name with an optional revision (``name@revision``).

    Raises:
        ModelError: it is not there, cannot be fetched, or has no safetensors weights.
    """
    directory = Path(model).expanduser() if is_local(model) else _snapshot(model)
    _check(directory, model)
    return directory


def _snapshot(model: str) -> Path:
    from huggingface_hub import snapshot_download

    name, _at, revision = model.partition("@")
    offline = hub_is_offline()
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(HUB_PATTERNS),
                ignore_patterns=list(HUB_IGNORED),
                local_files_only=offline,
            )
        )
    except Exception as error:  # the hub client raises errors of half a dozen libraries
        if offline:
            raise ModelError(
                f"Model '{model}' is not in the local cache and the hub may not be asked (HF_HUB_OFFLINE=1): "
                "mount a directory with the model and name its path."
            ) from error
        raise ModelError(
            f"Model '{model}' cannot be fetched from the Hugging Face hub ({type(error).__name__}): "
            "check the name and the network, or mount a directory with the model and name its path."
        ) from error


def _check(directory: Path, model: str) -> None:
    if not directory.is_dir():
        raise ModelError(f"Model '{model}' is not a directory in the container: mount it there, or correct the path.")
    _check_configuration(directory / "config.json", model)
    pickled_only = sorted(path.parent.relative_to(directory) for path in _pickles(directory) if not any(path.parent.glob("*.safetensors")))
    if pickled_only or not any(directory.rglob("*.safetensors")):
        where = f" in {pickled_only[0]}/" if pickled_only and str(pickled_only[0]) != "." else ""
        raise ModelError(
            f"Model '{model}' has no safetensors weights{where}: pickled weights (.bin, .pt) can run code when they are loaded "
            "and are refused. Convert the model to safetensors, or use a revision that has them."
        )


def _check_configuration(path: Path, model: str) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"Model '{model}' has no readable config.json ({error.strerror}): it is not a model directory.") from None
    except ValueError:
        raise ModelError(f"Model '{model}' has a config.json that is not JSON: copy the model again.") from None
    if not isinstance(content, dict):
        raise ModelError(f"Model '{model}' has a config.json that is not a JSON object: copy the model again.")


def _pickles(directory: Path) -> list[Path]:
    """Pickled weights that a loader might pick up; other runtimes' folders are not read by it."""
    found = [path for pattern in PICKLES for path in directory.rglob(pattern)]
    return [path for path in found if not {"onnx", "openvino"} & set(path.relative_to(directory).parts[:-1])]
