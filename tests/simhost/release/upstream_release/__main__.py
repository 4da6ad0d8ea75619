# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m upstream_release FOLDER [VERSION ...]``: archives of these versions, or of all, and the broken ones."""

from __future__ import annotations

import sys
from pathlib import Path

from upstream_release import BROKEN, RELEASES, broken, make, name_of


def main() -> None:
    """Write the archives and print their paths."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for version in sys.argv[2:] or [*RELEASES, *BROKEN]:
        content = broken(version) if version in BROKEN else make(version)
        target = folder / name_of(version)
        target.write_bytes(content)
        print(target)


main()
