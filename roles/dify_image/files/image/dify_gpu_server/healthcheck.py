# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's health check: exit status 0 when the server says that it can serve."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Ask /health; what it says goes to standard output, where the engine keeps it."""
    url = f"http://127.0.0.1:{os.environ.get('PORT') or '8000'}/health"
    # A proxy of the environment is for the hub, not for this.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=4) as answer:
            print(answer.read(4096).decode("utf-8", "replace"))
            return 0
    except urllib.error.HTTPError as error:
        print(error.read(4096).decode("utf-8", "replace"))
    except OSError as error:
        print(f"no answer from {url}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
