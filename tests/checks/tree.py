# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository, and the copy of it at ansible_collections/difyops/gpu that Ansible's tools insist on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"
COLLECTIONS = CACHE / "tree"
COLLECTION = COLLECTIONS / "ansible_collections" / "difyops" / "gpu"
VENV_BIN = REPOSITORY / ".venv" / "bin"
INSTALLED = REPOSITORY / ".build" / "collections"

# Without git (an unpacked archive of the repository) everything counts except what the Makefile and the tools make themselves.
_MADE_HERE = {".git", ".venv", ".cache", ".ansible", ".build", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__"}


def repository_files() -> list[str]:
    """Paths of the project's own files in the repository, sorted: tracked ones and new ones that git does not ignore."""
    root = REPOSITORY
    if (root / ".git").exists():
        # Root in a CI machine often works on a clone that belongs to someone else; listing files is harmless.
        command = ["git", "-c", "safe.directory=*", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        names = {name for name in listing.split("\0") if name}
    else:
        names = set()
        for directory, subdirectories, files in os.walk(root):
            subdirectories[:] = [name for name in subdirectories if name not in _MADE_HERE]
            names.update(str((Path(directory) / name).relative_to(root)) for name in files)
    return sorted(name for name in names if os.path.lexists(root / name))


def mirror(destination: Path = COLLECTION) -> Path:
    """Make *destination* hold exactly the project's own files; only what differs is copied. Returns *destination*.

    The copy is a git repository of its own: ansible-test and ansible-lint ask git for the files, and the repository around
    the copy would answer that all of them are ignored.
    """
    names = repository_files()
    _remove_others(destination, set(names))
    for name in names:
        source, target = REPOSITORY / name, destination / name
        if os.path.lexists(target) and _same(source, target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    if not (destination / ".git").exists():
        subprocess.run(["git", "init", "--quiet", str(destination)], check=True)
    return destination


def _remove_others(destination: Path, wanted: set[str]) -> None:
    folders = []
    for directory, subdirectories, files in os.walk(destination):
        here = Path(directory)
        subdirectories[:] = [name for name in subdirectories if name != ".git"]
        links = [name for name in subdirectories if (here / name).is_symlink()]
        for name in files + links:
            if str((here / name).relative_to(destination)) not in wanted:
                (here / name).unlink()
        folders += [here / name for name in subdirectories if name not in links]
    for folder in reversed(folders):
        if not any(folder.iterdir()):
            folder.rmdir()


def _same(source: Path, target: Path) -> bool:
    one, two = source.lstat(), target.lstat()
    return (one.st_size, one.st_mtime_ns, one.st_mode) == (two.st_size, two.st_mtime_ns, two.st_mode)


if __name__ == "__main__":
    print(mirror())
