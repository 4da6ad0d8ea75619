# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a port serves is compared with a certificate: a real handshake on the loopback."""
from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _tls
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dify.example.org")])
    began = datetime.datetime(2026, 1, 1)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(began).not_valid_after(began + datetime.timedelta(days=9999))
    crt, private = folder / f"{name}.crt", folder / f"{name}.key"
    crt.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    none = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
    return crt, private


@pytest.fixture(name="site")
def served(tmp_path):
    """Serve a certificate; return the port, the certificate's file, and what names were asked for."""
    crt, key = certificate(tmp_path, "site")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            while True:
                try:
                    connection, _address = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], crt, asked
        listener.shutdown(socket.SHUT_RDWR)


def at(port: int, file: Path, name: str = "dify.example.org") -> _tls.Endpoint:
    return _tls.Endpoint("127.0.0.1", port, name, str(file))


def test_the_certificate_of_the_file_is_served(site):
    port, crt, asked = site
    assert _tls.compare(at(port, crt)) is None and asked == ["dify.example.org"]


def test_the_chain_after_it_does_not_matter(site, tmp_path):
    port, crt, _asked = site
    chain = tmp_path / "chain.crt"
    chain.write_bytes(crt.read_bytes() + certificate(tmp_path, "authority")[0].read_bytes())
    assert _tls.compare(at(port, chain)) is None


def test_a_renewed_certificate_that_nobody_has_read_yet(site, tmp_path):
    told = _tls.compare(at(site[0], certificate(tmp_path, "renewed")[0]))
    assert told is not None and told.startswith("the certificate with SHA-256 ")


def test_an_address_is_no_name_and_works(site):
    assert _tls.compare(at(site[0], site[1], "127.0.0.1")) is None


def test_a_port_without_tls_and_a_port_without_anybody(site):
    def answer(listener):
        with listener.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=answer, args=(plain,), daemon=True).start()
        told = _tls.compare(at(plain.getsockname()[1], site[1]))
        assert told is not None and told.startswith("no TLS there ("), told
        number = plain.getsockname()[1]
    assert _tls.compare(at(number, site[1])) == "no TLS there (Connection refused)"


@pytest.mark.parametrize("text", [None, "", "no PEM file\n", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n"])
def test_a_file_that_has_no_certificate(site, tmp_path, text):
    file = tmp_path / "other.crt"
    if text is not None:
        file.write_text(text)
    told = _tls.compare(at(site[0], file))
    assert told is not None and str(file) in told
