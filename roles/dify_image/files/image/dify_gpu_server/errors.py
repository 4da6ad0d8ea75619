# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that a caller sees, in the shape of the OpenAI API."""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """One sentence for the caller, with the HTTP status that goes with it.

    Args:
        status: HTTP status code.
        message: what was expected, what was found, and what to do.
        code: short stable name for programs.
        headers: further HTTP headers of the answer.
    """

    def __init__(self, status: int, message: str, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The answer's JSON document."""
        return error_body(self.status, self.message, self.code)


def error_body(status: int, message: str, code: str) -> dict[str, Any]:
    """The OpenAI error document; its type follows from the status."""
    if status in (401, 403):
        kind = "authentication_error"
    elif status < 500:
        kind = "invalid_request_error"
    else:
        kind = "server_error"
    return {"error": {"message": message, "type": kind, "code": code}}


def bad_request(message: str, code: str = "invalid_value") -> ServiceError:
    """The caller's input cannot be served (400)."""
    return ServiceError(400, message, code)
