# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes torch/version.py of the stand-in from the build arguments."""

from __future__ import annotations

import argparse
import re
import sys

DOTTED = re.compile(r"\d+\.\d+[af]?")


def targets(text: str, prefix: str) -> list[str]:
    """`7.5 8.6` as `sm_75`, `sm_86`."""
    for word in text.split():
        if not DOTTED.fullmatch(word):
            sys.exit(f"stand-in build: {word!r} is not a compute capability like 8.6.")
    return [prefix + word.replace(".", "") for word in text.split()]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("torch", "cuda", "sm", "ptx"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    if not re.fullmatch(r"\d+(\.\d+)+", options.torch):
        sys.exit(f"stand-in build: TORCH_VERSION is {options.torch!r}; expected a release like 2.14.1.")
    if options.cuda and not re.fullmatch(r"\d+\.\d+", options.cuda):
        sys.exit(f"stand-in build: CUDA_VERSION is {options.cuda!r}; expected a release like 12.6, or nothing for the CPU.")
    architectures = targets(options.sm, "sm_") + targets(options.ptx, "compute_") if options.cuda else []
    local = "cu" + options.cuda.replace(".", "") if options.cuda else "cpu"
    print('"""What this stand-in claims to be: written by the build of the simulated image."""')
    print(f"__version__ = {options.torch + '+' + local!r}")
    print(f"cuda = {options.cuda or None!r}")
    print("hip = None")
    print(f"architectures = {architectures!r}")


main()
