# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What modules of the same kind say of themselves."""

    # Modules that look at a host and change nothing on it.
    OBSERVES = r"""
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: N/A
    description: Changes nothing, so there is no difference to show.
  facts:
    support: full
    description: Returns facts.
  platform:
    platforms: posix
    support: full
    description: Runs on Linux.
"""

    # Modules that look something up on a host, change nothing, and return no facts.
    ASKS = r"""
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: N/A
    description: Changes nothing, so there is no difference to show.
  platform:
    platforms: posix
    support: full
    description: Runs on Linux.
"""

    # Modules that change a file.
    EDITS = r"""
attributes:
  check_mode:
    support: full
    description: Tells what would be changed, and changes nothing.
  diff_mode:
    support: full
    description: Shows the file before and after, without secrets.
  platform:
    platforms: posix
    support: full
    description: Runs on Linux.
"""
