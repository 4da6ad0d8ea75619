# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the tests of tests/integration/upgrade in less time: first the whole fleet, then faults on pairs of its hosts side by side.

    python tests/integration/upgrade/run.py [--junitxml=FILE] [-k EXPRESSION and other options of pytest]

What a process prints is shown when it ends. The fleet is made when it is not up, and what was made is taken away.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import side_by_side

SUITE = side_by_side.Suite(
    folders=(str(HERE),),
    fleet=os.environ.get("DIFYOPS_UPGRADE_FLEET") or str(side_by_side.REPO / "tests/simhost/fleets/upgrade.json"),
    phases=(("fleet",), ("killed", "proof", "refused"), ("runner",)),
    at_once=int(os.environ.get("DIFYOPS_AT_ONCE") or 3),
)

if __name__ == "__main__":
    sys.exit(side_by_side.main(SUITE, __doc__))
