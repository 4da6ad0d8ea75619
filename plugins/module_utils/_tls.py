# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificate a port serves, compared with the one in a file: a proxy goes on with the old one until it is told to read it again.

This is private to difyops.gpu.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Endpoint:
    """Where TLS is spoken: `name` is asked for (SNI), `certificate_file` has the certificate that is to come, PEM, with its chain."""

    address: str
    port: int
    name: str
    certificate_file: str


def compare(endpoint: Endpoint, timeout_s: float = 10.0) -> str | None:
    """Return what is wrong with what the port serves, as a clause; None where it is the certificate of the file."""
    try:
        wanted = _first(endpoint.certificate_file)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or "it is no PEM file"
        return f"{endpoint.certificate_file} has no certificate to compare with ({told})"
    try:
        served = _served(endpoint, timeout_s)
    except (OSError, ValueError) as error:
        return f"no TLS there ({getattr(error, 'reason', None) or getattr(error, 'strerror', None) or error})"
    return None if served == wanted else f"the certificate with SHA-256 {hashlib.sha256(served).hexdigest()[:16]}"


def _first(path: str) -> bytes:
    """Return the first certificate of a PEM file: those after it are its chain. Raises OSError and ValueError."""
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    found = ssl.PEM_cert_to_DER_cert(text[text.index(_BEGIN) : text.index(_END) + len(_END)])
    if not found:
        raise ValueError("nothing between its lines")
    return found


def _served(endpoint: Endpoint, timeout_s: float) -> bytes:
    # Nobody is trusted here: the certificate is compared, not believed.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = (endpoint.address, endpoint.port)
    with socket.create_connection(address, timeout_s) as plain, context.wrap_socket(plain, server_hostname=endpoint.name) as secured:
        return secured.getpeercert(binary_form=True) or b""
