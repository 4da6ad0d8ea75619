# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways of running Dify beside the plain one: another key, a certificate of the site, a Dify that is there already, and its removal."""
from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from thorough import thorough

from .lab import ADMIN, BACKUPS, HOME, App, Deployment

REGISTRATION = f"{HOME}/model_server/api_key.sha256"


@thorough
def test_another_key_of_the_image_service_comes_to_dify(both: App, deployed: Deployment) -> None:
    deployed.ok()
    key = "Rotated1key2of3the4server"
    before, registered = both.containers(), both.sh(f"cat {REGISTRATION}")
    run = both.deploy(dify_gpu_api_key=key).proven()
    assert key not in run.shown
    assert both.sh(f"cat {REGISTRATION}") != registered
    assert {name: one["Id"] for name, one in both.containers().items()} == {name: one["Id"] for name, one in before.items()}
    assert both.deploy(dify_gpu_api_key=key).proven().changed == 0


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for the site's address that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the site of a test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=90))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    crt, private = folder / "site.crt", folder / "site.key"
    crt.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    pem = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return crt, private


def _served(host: App, authority: Path) -> bytes:
    """Return the certificate that the site shows to a browser that believes this authority only."""
    context = ssl.create_default_context(cafile=str(authority))
    address = ("127.0.0.1", host.https_port)
    with socket.create_connection(address, timeout=20) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
        secured.sendall(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        assert secured.recv(12) == b"HTTP/1.1 200"
        return secured.getpeercert(binary_form=True) or b""


def _pem(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_a_certificate_of_the_site_and_the_one_that_follows_it(both: App, deployed: Deployment, tmp_path: Path) -> None:
    deployed.ok()
    crt, key = _certificate(tmp_path)
    wishes: dict[str, Any] = {
        "dify_url": f"https://127.0.0.1:{both.https_port}", "dify_tls_certificate": str(crt), "dify_tls_key": str(key),
    }
    run = both.deploy(**wishes).proven()
    assert "tls" in [link["link"] for link in run.verdict["links"]]
    assert _served(both, crt) == _pem(crt)
    place = f"{HOME}/current/nginx/ssl"
    assert both.sh(f"stat -c %a:%U {place}/dify.key").strip() == "600:root"
    assert key.read_text() not in run.shown
    assert both.deploy(**wishes).proven().changed == 0
    before = {name: one["Id"] for name, one in both.containers().items()}
    _certificate(tmp_path)
    run = both.deploy(**wishes).proven()
    assert run.plan["action"] == "none" and "certificate" in run.outcome["message"], run.outcome
    assert _served(both, crt) == _pem(crt)
    assert {name: one["Id"] for name, one in both.containers().items()} == before


@pytest.fixture(scope="module")
def kept(both: App, deployed: Deployment) -> App:
    """Return the host with something in its database."""
    deployed.ok()
    both.deploy().proven()
    both.say("to be kept")
    return both


def test_a_dify_that_is_there_already_gets_the_models(kept: App) -> None:
    """Its containers are nobody's business; what is registered is tried by Dify itself."""
    wishes = {
        "dify_app_state": "external", "dify_url": "http://127.0.0.1", "dify_model_endpoint_url": "http://dify-gpu:8000/v1",
        "dify_admin": {**ADMIN, "password": kept.secrets()["ADMIN_PASSWORD"]},
        "dify_gpu_api_key": kept.sh("sed -n s/^API_KEY=//p /opt/dify-gpu/secrets/api_key.env").strip(),
    }
    before, key = kept.state(), wishes["dify_gpu_api_key"]
    assert isinstance(key, str) and len(key) >= 16
    kept.sh(f"rm {REGISTRATION}")
    run = kept.deploy(**wishes).ok()
    links = {link["link"]: link["status"] for link in run.verdict["links"]}
    assert run.verdict["overall"] == "proven", links
    assert (links["containers"], links["embedding"], links["rerank"]) == ("skipped", "ok", "ok"), links
    kept.sh(f"test -s {REGISTRATION}")
    assert key not in run.shown
    containers = before.partition("== images")[0]
    assert kept.state().partition("== images")[0] == containers
    wrong = kept.deploy(**{**wishes, "dify_admin": {**ADMIN, "password": "Wrong1password2"}})
    wrong.fails("DG920", "refuses the login")
    assert "Wrong1password2" not in wrong.shown


@thorough
def test_taking_it_away_keeps_the_data_for_the_next_time(kept: App) -> None:
    secrets = kept.secrets()
    plan = kept.deploy("--check", dify_app_state="absent").ok().plan
    assert plan["action"] == "remove" and kept.containers()
    kept.deploy(dify_app_state="absent").ok()
    assert kept.containers() == {}
    assert kept.sh(f"ls {HOME}/releases {HOME}/current 2> /dev/null || true").strip() == ""
    assert kept.deploy(dify_app_state="absent").ok().changed == 0
    kept.deploy().proven()
    assert kept.said("to be kept") and kept.secrets() == secrets


def test_taking_it_away_with_its_data(kept: App) -> None:
    kept.sh(f"mkdir -p {BACKUPS}; touch {BACKUPS}/kept")
    kept.deploy(dify_app_state="absent", dify_remove_data=True).ok()
    assert kept.containers() == {}
    assert kept.sh(f"ls -d {HOME} 2> /dev/null || true").strip() == ""
    assert kept.sh("docker volume ls --quiet --filter label=com.docker.compose.project=dify").strip() == ""
    assert kept.sh(f"ls {BACKUPS}").strip() == "kept"
