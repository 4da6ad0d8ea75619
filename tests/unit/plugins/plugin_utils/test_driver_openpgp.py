# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of keys: known ones, however a file has them, and what is no key."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import driver_scenarios as scenarios
import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _openpgp
from hypothesis import given
from hypothesis import strategies as st


def test_a_key_as_it_is_and_as_text() -> None:
    text = _openpgp.armored(scenarios.KEY)
    assert _openpgp.fingerprints(scenarios.KEY) == [scenarios.KEY_FINGERPRINT]
    assert _openpgp.fingerprints(text.encode()) == [scenarios.KEY_FINGERPRINT]
    assert text.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
    assert text.endswith("-----END PGP PUBLIC KEY BLOCK-----\n")


def test_the_same_key_has_the_same_text_however_it_came() -> None:
    text = _openpgp.armored(scenarios.KEY)
    spoken = text.replace("BLOCK-----\n\n", "BLOCK-----\nVersion: GnuPG v2\nComment: of a repository\n\n", 1)
    for data in (spoken, text.replace("\n", "\r\n"), f"A key of somebody\n{text}and more words\n", text.replace("=", "\n=", 1)):
        assert _openpgp.armored(data.encode()) == text


def test_a_text_without_a_checksum() -> None:
    lines = [line for line in _openpgp.armored(scenarios.KEY).splitlines() if not (line.startswith("=") and len(line) == 5)]
    assert _openpgp.fingerprints("\n".join(lines).encode()) == [scenarios.KEY_FINGERPRINT]


def test_several_keys() -> None:
    other = b"\x98\x06\x04\x00\x00\x00\x00\x01"
    assert _openpgp.fingerprints(scenarios.KEY + other) == [
        scenarios.KEY_FINGERPRINT,
        hashlib.sha1(b"\x99\x00\x06\x04\x00\x00\x00\x00\x01", usedforsecurity=False).hexdigest().upper(),
    ]


def test_version_6() -> None:
    body = b"\x06" + bytes(range(40))
    expected = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    assert _openpgp.fingerprints(bytes([0xC6, len(body)]) + body) == [expected]
    assert _openpgp.fingerprints(b"\xc6\xff" + len(body).to_bytes(4, "big") + body) == [expected]


def test_a_long_key_in_the_new_format() -> None:
    body = b"\x04" + bytes(999)
    length = len(body) - 192
    assert len(_openpgp.fingerprints(bytes([0xC6, (length >> 8) + 192, length & 255]) + body)) == 1


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is no OpenPGP key"),
        (b"<html>404 Not Found</html>", "is no OpenPGP key"),
        (scenarios.KEY[:-9], "is cut off"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc", "is cut off"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nabc\n-----END PGP PRIVATE KEY BLOCK-----", "another thing of OpenPGP"),
        (b"\x94\x01\x04", "a secret key"),
        (b"\x98\x01\x03", "version 3"),
        (b"\xc2\x01\x04", "no public key"),
        (b"\xcb\x01\x04", "no part of a public key"),
        (b"\x9b\x01\x04", "without a length"),
        (b"\xc6\xe1\x04", "in parts"),
        (b"\x98" * (1024 * 1024 + 1), "larger than any key"),
        (_openpgp.armored(scenarios.KEY).replace("mDME", "mDMF").encode(), "checksum is wrong"),
        (_openpgp.armored(scenarios.KEY).replace("mDME", "m!ME").encode(), "text is damaged"),
    ],
)
def test_what_is_no_key(data: bytes, found: str) -> None:
    for read in (_openpgp.fingerprints, _openpgp.armored):
        if found == "version 3" and read is _openpgp.armored:
            continue
        with pytest.raises(_openpgp.KeyFileError, match=found):
            read(data)


@given(st.binary(max_size=200))
def test_bytes_never_raise_anything_else(data: bytes) -> None:
    armor = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n%s\n-----END PGP PUBLIC KEY BLOCK-----\n"
    for text in (data, b"\x98" + data, b"\xc6" + data, armor % data, armor % base64.b64encode(b"\x98" + data)):
        for read in (_openpgp.fingerprints, _openpgp.armored):
            with contextlib.suppress(_openpgp.KeyFileError):
                assert read(text)


@given(st.integers(0, len(scenarios.KEY) * 8 - 1))
def test_one_bit_more_or_less_is_never_the_same_key_file(bit: int) -> None:
    changed = bytearray(scenarios.KEY)
    changed[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(_openpgp.KeyFileError):
        assert _openpgp.armored(bytes(changed)) != _openpgp.armored(scenarios.KEY)
