# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the server: ``python -m dify_gpu_server``."""

from __future__ import annotations

import os
import sys

from .settings import Settings, SettingsError, configure_logging, offline_environment


def main() -> int:
    """Check the settings, then serve until told to stop. Returns the exit status."""
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        print(f"dify-gpu: {error}", file=sys.stderr)
        return 2
    configure_logging(settings)
    os.environ.update(offline_environment(settings))

    # The model libraries read the environment when they are imported, so they come after it is complete.
    import uvicorn

    from .app import create_app

    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        server_header=False,
        timeout_graceful_shutdown=20,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
