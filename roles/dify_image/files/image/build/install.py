# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install PyTorch and the server's requirements into a virtual environment, during the build of the image.

Only exact versions are installed, and torch only as the build that the variant names (``+cpu``, ``+cu126``), so that
neither a newer one nor another CUDA can slip in; what was installed is checked at the end. All but torch and the CUDA
libraries that its wheel pins has to have one of the hashes that the recipe names, and torch too where the variant names them.

A wheelhouse that has everything is used alone, without asking an index. Addresses of indexes go to pip by its
environment, since they may hold credentials and a command line is seen by every user of the host.

Standard library only; run by the Python of the virtual environment.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

# Which sympy a torch needs, with the hash of its only wheel.
SYMPY = {
    "1.13.1": "db36cdc64bf61b9b24578b6f7bab1ecdd2452cf008f34faa33776680c26d66f8",
    "1.14.0": "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
}

# Wheels only: to build a source archive would fetch tools that no hash names. Dependencies are not followed, since the pins are complete.
HASHED = ("--require-hashes", "--no-deps", "--only-binary", ":all:")

PROBE = """
import json, torch
flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)() or ""
print(json.dumps([torch.__version__, torch.version.cuda, flags.split()]))
"""


class BuildError(Exception):
    """One sentence on why the image cannot be built."""


def torch_requirement(version: str, cuda: str) -> str:
    """The exact build of torch, with its local version.

    Args:
        version: ``2.14.1``, or with the local version already in it.
        cuda: ``12.6``; empty for the CPU build.

    Raises:
        BuildError: the version is not one, or its local part contradicts the CUDA version.
    """
    if not re.fullmatch(r"\d+(\.\d+)+(\+[a-z0-9]+)?", version):
        raise BuildError(f"TORCH_VERSION is '{version}': expected a version such as 2.14.1.")
    if cuda and not re.fullmatch(r"\d+\.\d+", cuda):
        raise BuildError(f"CUDA_VERSION is '{cuda}': expected a version such as 12.6, or nothing for the CPU build.")
    local = "cu" + cuda.replace(".", "") if cuda else "cpu"
    public, _plus, given = version.partition("+")
    if given and given != local:
        raise BuildError(f"TORCH_VERSION {version} and CUDA_VERSION '{cuda}' contradict each other: expected {public}+{local}.")
    return f"torch=={public}+{local}"


def sympy_requirement(torch: str) -> str:
    """torch up to 2.6 insists on one sympy, later ones need a newer one."""
    major, minor = re.findall(r"\d+", torch)[:2]
    return "sympy==1.13.1" if (int(major), int(minor)) < (2, 7) else "sympy==1.14.0"


def bare_pins(text: str) -> list[str]:
    """The ``name==version`` of each entry of a requirements file, without its hashes."""
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip() and not line.startswith("#")]
    return [line.split()[0] for line in lines]


def hashed(requirement: str, hashes: list[str]) -> str:
    """A requirement with the SHA-256 hashes of the files that may be taken for it, as a line of a requirements file.

    Raises:
        BuildError: one of them is no SHA-256 hash.
    """
    wrong = next((value for value in hashes if not re.fullmatch(r"[0-9a-f]{64}", value)), None)
    if wrong is not None:
        raise BuildError(f"The hash '{wrong}' of {requirement} is no SHA-256 hash: expected 64 hexadecimal digits.")
    return " ".join([requirement, *(f"--hash=sha256:{value}" for value in hashes)])


def pip(arguments: list[str], environment: dict[str, str]) -> int:
    """Run pip of this environment. A pip.conf of the base image counts: a site may have its mirrors there."""
    command = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off"]
    return subprocess.run(command + arguments, env={**os.environ, **environment}, check=False).returncode


def install(what: list[str], constraints: list[Path], wheelhouse: Path, index: str, ca_bundle: Path) -> None:
    """Install from the wheelhouse when it has everything, else from the index with the wheelhouse beside it.

    Args:
        what: requirements, as pip's arguments.
        constraints: files with exact versions, without hashes.
        wheelhouse: directory of wheels; may be empty.
        index: address of a package index; empty for pip's own default.
        ca_bundle: certificates to trust instead of pip's own, when the file is there.

    Raises:
        BuildError: pip failed; its own words are above in the log.
    """
    arguments = [part for path in constraints for part in ("--constraint", str(path))] + what
    wheels = any(wheelhouse.glob("*.whl"))
    found = ["--find-links", str(wheelhouse)] if wheels else []
    if wheels:
        print("Trying the wheelhouse alone.", flush=True)
        if pip([*found, "--no-index", *arguments], {}) == 0:
            return
        print("The wheelhouse does not have everything; asking the index too.", flush=True)
    environment = {"PIP_RETRIES": "2", "PIP_DEFAULT_TIMEOUT": "30"}
    if index:
        environment["PIP_INDEX_URL"] = index
    if ca_bundle.is_file():
        environment["PIP_CERT"] = str(ca_bundle)
    if pip([*found, *arguments], environment) != 0:
        beside = " and the wheelhouse" if wheels else ""
        raise BuildError(f"pip could not install {_named(what)} from {_site(index)}{beside}.")


def _named(what: list[str]) -> str:
    """What was to be installed, for a sentence: requirements, and files by their names."""
    return " ".join(Path(part).name if part.startswith("/") else part for part in what if not part.startswith("-") and part != ":all:")


def _site(index: str) -> str:
    """An index as it may be shown: its host, never the credentials in its address."""
    return urllib.parse.urlsplit(index).hostname or "the index"


def check(torch: str, cuda: str, sm: list[str]) -> None:
    """Compare the installed torch with what the variant promises.

    Raises:
        BuildError: it is another version, another CUDA, or lacks code for a promised compute capability.
    """
    import json

    answer = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildError(f"{torch} was installed but cannot be imported: {last}")
    version, built_for, flags = json.loads(answer.stdout.strip().splitlines()[-1])
    if version != torch.partition("==")[2] or (built_for or "") != cuda:
        raise BuildError(f"Expected {torch} for CUDA '{cuda}', found torch {version} for CUDA '{built_for or ''}'.")
    compiled = {re.sub(r"[af]$", "", flag.partition("_")[2]) for flag in flags if flag.startswith("sm_")}
    missing = [capability for capability in sm if capability.replace(".", "") not in compiled]
    if compiled and missing:
        raise BuildError(
            f"{torch} has no code for compute capability {', '.join(missing)} that the variant promises (has {' '.join(flags)})."
        )
    print(f"torch {version}, CUDA {built_for}, compiled for {' '.join(flags) or 'the CPU'}", flush=True)


def check_complete(requirements: Path) -> None:
    """Prove that the pins were all that the server and torch need.

    Raises:
        BuildError: a requirement is not there, or not in the version that is wanted.
    """
    if pip(["--no-index", "--requirement", str(requirements)], {}) != 0:
        raise BuildError("constraints.txt lacks something that requirements.txt needs: renew the pins as its head says.")
    answer = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        found = (answer.stdout.strip().splitlines() or ["no message"])[0]
        raise BuildError(f"What was installed does not fit together: {found}.")


def secret(path: Path) -> str:
    """The content of a build secret; empty when the build was started without it."""
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def main() -> int:
    """Install everything; 1 and a sentence on standard error when that fails."""
    parser = argparse.ArgumentParser(description="Install torch and the requirements of the server.")
    parser.add_argument("--torch", required=True)
    parser.add_argument("--torch-sha256", default="", help="hashes of torch's wheels, separated by blanks; empty: none is compared")
    parser.add_argument("--cuda", default="")
    parser.add_argument("--sm", default="")
    parser.add_argument("--wheel-index", default="")
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--wheelhouse", type=Path, required=True)
    parser.add_argument("--secrets", type=Path, default=Path("/run/secrets"))
    arguments = parser.parse_args()
    ca_bundle = arguments.secrets / "ca_bundle"
    index = secret(arguments.secrets / "pip_index_url")
    try:
        torch = torch_requirement(arguments.torch, arguments.cuda)
        sympy = sympy_requirement(torch)
        recipe, wheelhouse = arguments.recipe, arguments.wheelhouse
        pins = recipe / "constraints.txt"
        # Without hashes, for the one step that has to find what nobody has hashes of: pip would refuse all of it otherwise.
        constraints = recipe / "constraints-torch.txt"
        constraints.write_text("\n".join([*bare_pins(pins.read_text(encoding="utf-8")), sympy, torch]) + "\n", encoding="utf-8")
        sympy_pin = recipe / "sympy.txt"
        sympy_pin.write_text(hashed(sympy, [SYMPY[sympy.partition("==")[2]]]) + "\n", encoding="utf-8")
        install([*HASHED, "--requirement", str(pins), "--requirement", str(sympy_pin)], [], wheelhouse, index, ca_bundle)
        # The wheel index and nothing else: a plain index has another build of torch under the same version.
        torch_index = arguments.wheel_index or index
        if arguments.torch_sha256.split():
            torch_pin = recipe / "torch.txt"
            torch_pin.write_text(hashed(torch, arguments.torch_sha256.split()) + "\n", encoding="utf-8")
            install([*HASHED, "--requirement", str(torch_pin)], [], wheelhouse, torch_index, ca_bundle)
        install([torch], [constraints], wheelhouse, torch_index, ca_bundle)
        check_complete(recipe / "requirements.txt")
        check(torch, arguments.cuda, re.findall(r"\d+\.\d+", arguments.sm))
    except (BuildError, OSError) as error:
        print(f"dify-gpu build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
