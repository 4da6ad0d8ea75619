# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the collections of requirements.yml from the pinned `ansible` Python package.

The package carries them as Galaxy publishes them. So a machine that reaches a Python package index, and no Galaxy, can be set up,
from one pinned source; and only these collections are unpacked, not the hundred others of the package.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml


def unpack(wheel: Path, collections: list[str], destination: Path) -> list[str]:
    """Unpack *collections* and what they depend on from *wheel* below *destination*.

    Returns the names of all that were unpacked. Raises KeyError with the name of a collection that *wheel* lacks.
    """
    unpacked: list[str] = []
    wanted = list(collections)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        while wanted:
            collection = wanted.pop(0)
            if collection in unpacked:
                continue
            prefix = f"ansible_collections/{collection.replace('.', '/')}/"
            members = [name for name in names if name.startswith(prefix)]
            if not members:
                raise KeyError(collection)
            shutil.rmtree(destination / prefix, ignore_errors=True)
            archive.extractall(destination, members)
            unpacked.append(collection)
            wanted += json.loads(archive.read(prefix + "MANIFEST.json"))["collection_info"]["dependencies"]
    return unpacked


def main() -> int:
    """Fetch the wheel with pip, unpack what is required, and say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requirements", type=Path, default=Path("requirements.yml"))
    parser.add_argument("--package", required=True, help="for example ansible==12.3.0")
    parser.add_argument("--destination", type=Path, required=True)
    options = parser.parse_args()
    required = [entry["name"] for entry in yaml.safe_load(options.requirements.read_text(encoding="utf-8"))["collections"]]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        # The collections are wanted, not the package itself: its own demand on the version of Python does not matter.
        command += ["--only-binary", ":all:", "--ignore-requires-python", "--dest", folder, options.package]
        if subprocess.run(command, check=False).returncode:
            print(f"pip could not download {options.package}; does this machine reach a Python package index?", file=sys.stderr)
            return 1
        try:
            unpacked = unpack(next(Path(folder).glob("ansible-*.whl")), required, options.destination)
        except KeyError as error:
            print(f"{options.package} does not carry {error}; correct requirements.yml.", file=sys.stderr)
            return 1
    print(f"Installed {', '.join(unpacked)} from {options.package}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
