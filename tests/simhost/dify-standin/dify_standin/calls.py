# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of a model server, as a plugin makes them."""
from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_S = 20


def call(wish: dict[str, Any]) -> dict[str, Any]:
    """Call a model server as a plugin does. Returns ``{status, body}``, or ``{status: null, error}`` where nothing answered."""
    headers = {"Content-Type": "application/json", **{str(name): str(value) for name, value in (wish.get("headers") or {}).items()}}
    data = json.dumps(wish["json"]).encode() if "json" in wish else None
    try:
        # No proxy: what goes through squid cannot reach a neighbour.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(str(wish.get("url", "")), data=data, headers=headers)
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return {"status": answer.status, "body": answer.read().decode(errors="replace")}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode(errors="replace")}
    except (OSError, ValueError) as error:
        return {"status": None, "error": str(error)}
