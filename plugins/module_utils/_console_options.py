# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the modules of the console API have in common, and what is made of them.

This is private to difyops.gpu.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.difyops.gpu.plugins.module_utils._console import API_CHANGED, UNKNOWN_KEY, Console, ConsoleError, value_in
from ansible_collections.difyops.gpu.plugins.module_utils._console_models import PROVIDER, Model


def console_spec() -> dict[str, Any]:
    """Return the options that say where Dify is and who asks."""
    return {
        "url": {"type": "str", "required": True},
        "host_header": {"type": "str"},
        "ca_path": {"type": "path"},
        "validate_certs": {"type": "bool", "default": True},
        "email": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "password_file": {"type": "path", "no_log": False},
        "password_name": {"type": "str", "default": "ADMIN_PASSWORD", "no_log": False},
    }


def models_spec() -> dict[str, Any]:
    """Return the options that say which models there are, and with which key their server is asked."""
    return {
        "provider": {"type": "str", "default": PROVIDER},
        "models": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "model": {"type": "str", "required": True},
                "type": {"type": "str", "required": True, "choices": ["text-embedding", "rerank"]},
                "endpoint_url": {"type": "str", "required": True},
                "credentials": {"type": "dict", "default": {}},
            },
        },
        "api_key": {"type": "str", "no_log": True},
        "api_key_file": {"type": "path", "no_log": False},
        "api_key_name": {"type": "str", "default": "API_KEY", "no_log": False},
    }


def console_of(options: Mapping[str, Any]) -> Console:
    """Return a visitor who has not logged in."""
    return Console(
        url=options["url"], host_header=options["host_header"], ca_path=options["ca_path"], validate_certs=options["validate_certs"]
    )


def password_of(options: Mapping[str, Any]) -> str:
    """Return the password of the account. Raises ConsoleError where there is none."""
    return secret_of(options, "password", "the password of the account")


def key_of(options: Mapping[str, Any]) -> str:
    """Return the key of the model server. Raises ConsoleError where there is none."""
    return secret_of(options, "api_key", "the API key of the model server", UNKNOWN_KEY)


def secret_of(options: Mapping[str, Any], name: str, what: str, code: str = API_CHANGED) -> str:
    """Return a secret that is given, or that a file on this host has. Raises ConsoleError with *code* where there is none."""
    if options[name]:
        return str(options[name])
    path, key = options[f"{name}_file"], options[f"{name}_name"]
    if not path:
        raise ConsoleError(code, f"{what} is not known: set {name} or {name}_file.")
    try:
        found = value_in(path, key)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConsoleError(code, f"{what} cannot be read from {path}: {why}.") from error
    if not found:
        raise ConsoleError(code, f"{what} is not known: {path} has no {key}.")
    return found


def registered(path: str | None) -> str | None:
    """Return the digest of what was registered last, None where nothing tells it."""
    try:
        with open(path or "", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeError):
        return None


def models_of(options: Mapping[str, Any]) -> list[Model]:
    """Return the models."""
    return [Model(one["model"], one["type"], one["endpoint_url"], one["credentials"]) for one in options["models"]]
