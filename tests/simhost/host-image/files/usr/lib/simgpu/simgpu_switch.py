# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes this host one with another profile, which comes on stdin; what `simhost profile` runs on the host.

The driver packages become those of the profile, and the simulated module is unloaded and loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys

import simgpu_profile
import simgpu_stub

PART = simgpu_profile.PROFILE + ".part"


def switch(text: str) -> None:
    """Puts the profile in place and everything in line with it."""
    with open(PART, "w", encoding="utf-8") as out:
        out.write(text)
    profile = simgpu_profile.read(PART)
    os.replace(PART, simgpu_profile.PROFILE)
    # Without this mark the unit brings the packages in line with the profile, as at the first boot of the host.
    if os.path.exists(simgpu_profile.PROVISIONED):
        os.unlink(simgpu_profile.PROVISIONED)
    if subprocess.run(["systemctl", "restart", "simgpu.service"], check=False).returncode:
        journal = ["journalctl", "--unit=simgpu.service", "--lines=12", "--no-pager", "--output=cat"]
        sys.exit(subprocess.run(journal, check=False, capture_output=True, text=True).stdout)
    for unit in simgpu_stub.UNITS:
        # Not checked: a manager of another version than the driver's is meant to fail, and most hosts have none.
        actions = ["restart"] if unit in simgpu_stub.units(profile) else ["stop", "reset-failed"]
        for action in actions:
            subprocess.run(["systemctl", action, unit], check=False, capture_output=True)


if __name__ == "__main__":
    switch(sys.stdin.read())
