# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renew the hashes of the image's pins: those of every file that the package index has of each pinned version.

The versions stay as they are in the file; change them there first. Everything is kept that is a comment at the head of the file. `uv` asks
the index that pip is set to, and is installed into an environment of its own, which goes away again.

    python tests/tools/pin_hashes.py [--check] [FILE]

--check changes nothing and ends with 1 where a pin has no hash; it asks no index.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PINS = Path(__file__).resolve().parents[2] / "roles/dify_image/files/image/constraints.txt"
UV = "uv==0.13.9"
# The oldest Python that the recipe allows; files for every newer one and for every platform are listed, too.
PYTHON = "3.11"


def entries(text: str) -> dict[str, list[str]]:
    """Return the hashes of each `name==version` of a requirements file."""
    joined = re.sub(r"\\\n", " ", text)
    lines = [line.split() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return {parts[0]: [part for part in parts[1:] if part.startswith("--hash=sha256:")] for parts in lines}


def head(text: str) -> str:
    """Return the comments and empty lines at the beginning of the file."""
    lines = text.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return "".join(lines[:first])


def with_hashes(pins: list[str]) -> str:
    """Return the pins with the hashes that the index has. Raises CalledProcessError where it has no such version."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "venv", with_pip=True)
        programs = home / "venv/bin"
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV], check=True)
        (home / "pins.in").write_text("\n".join(pins) + "\n", encoding="utf-8")
        quiet = ["--quiet", "--no-header", "--no-annotate", "--no-cache"]
        options = ["--generate-hashes", "--no-deps", "--universal", "--python-version", PYTHON]
        command = [programs / "uv", "pip", "compile", *quiet, *options, "--output-file", home / "pins.txt", home / "pins.in"]
        subprocess.run(command, check=True)
        return (home / "pins.txt").read_text(encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Renew the hashes of the image's pins.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("file", nargs="?", type=Path, default=PINS)
    arguments = parser.parse_args()
    before = arguments.file.read_text(encoding="utf-8")
    pins = entries(before)
    if arguments.check:
        bare = [pin for pin, hashes in pins.items() if not hashes]
        if bare:
            print(f"{arguments.file} has no hash for {', '.join(bare)}: run {Path(__file__).name}.", file=sys.stderr)
        return 1 if bare else 0
    after = with_hashes(list(pins))
    if sorted(entries(after)) != sorted(pins):
        print(f"The index gave other versions than {arguments.file} names; it was left as it is.", file=sys.stderr)
        return 1
    arguments.file.write_text(head(before) + after, encoding="utf-8")
    print(f"{len(pins)} pins, {sum(map(len, entries(after).values()))} hashes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
