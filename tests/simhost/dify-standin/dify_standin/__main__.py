# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m dify_standin PROGRAM``: what an image of the stand-ins starts."""
from __future__ import annotations

import signal
import sys


def main() -> None:
    """Start one of the programs. Modules are loaded late: most images need no database."""
    # The first process of a container ends by SIGTERM only if it says so.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    name, arguments = sys.argv[1], sys.argv[2:]
    if name == "api":
        from dify_standin import api

        api.start(arguments)
    elif name == "plugin_daemon":
        from dify_standin import plugin_daemon

        plugin_daemon.start(arguments)
    else:
        from dify_standin import services

        getattr(services, name)(arguments)


main()
