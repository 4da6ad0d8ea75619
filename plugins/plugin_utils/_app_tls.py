# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the site's certificate and key, two files on the controller, can be used together.

This is private to difyops.gpu.
"""

from __future__ import annotations

import os
import ssl


class _PassphraseError(Exception):
    """The key is encrypted, and nobody could type its passphrase when the proxy starts."""


def _refuse() -> str:
    raise _PassphraseError


def _unreadable(path: str) -> str | None:
    try:
        with open(os.path.expanduser(path), "rb"):
            return None
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)


def trouble(certificate: str, key: str) -> str | None:
    """Return in one sentence why certificate and key cannot be used, None where they can."""
    for name, path in (("certificate", certificate), ("key", key)):
        why = _unreadable(path)
        if why is not None:
            return f"The TLS {name} {path} cannot be read: {why}."
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(os.path.expanduser(certificate), os.path.expanduser(key), password=_refuse)
    except _PassphraseError:
        return f"The TLS key {key} has a passphrase, which nobody could type when the proxy starts."
    except ssl.SSLError as error:
        if "MISMATCH" in str(error.reason):
            return f"The TLS key {key} does not belong to the certificate {certificate}."
        return f"The TLS certificate {certificate} and key {key} cannot be read as PEM files ({error.reason or error})."
    return None
