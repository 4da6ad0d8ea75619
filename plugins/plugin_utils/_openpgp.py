# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of OpenPGP public keys (RFC 9580, and RFC 4880 before it), without a program: the controller need not have gpg.

It tells which key a file has, so that a repository's key can be compared with the one that was expected. Signatures are not checked:
that is the package manager's work, which is given this one key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
_PUBLIC_KEY = 6
# What an exported key is made of: keys, subkeys, names, signatures, and what may be passed over.
_OF_A_KEY = frozenset({2, 6, 10, 12, 13, 14, 17, 21})
_SECRET = frozenset({5, 7})
_MAX_BYTES = 1024 * 1024


class KeyFileError(ValueError):
    """What was handed in is no public key; the text is the rest of a sentence about it."""


class _Packet(NamedTuple):
    tag: int
    body: bytes
    whole: bytes


def fingerprints(data: bytes) -> list[str]:
    """Return the fingerprints of the primary keys of a key file, in capital letters: 40 digits of version 4, 64 of version 6.

    Raises KeyFileError.
    """
    return [_fingerprint(packet.body) for packet in _packets(_binary(data)) if packet.tag == _PUBLIC_KEY]


def armored(data: bytes) -> str:
    """Return the keys of a key file as text, the same for the same keys however the file has them. Raises KeyFileError."""
    binary = b"".join(packet.whole for packet in _packets(_binary(data)))
    lines = textwrap.wrap(base64.b64encode(binary).decode("ascii"), 64)
    check = base64.b64encode(_crc24(binary).to_bytes(3, "big")).decode("ascii")
    return "\n".join(["-----BEGIN PGP PUBLIC KEY BLOCK-----", "", *lines, f"={check}", "-----END PGP PUBLIC KEY BLOCK-----", ""])


def _binary(data: bytes) -> bytes:
    """Return the packets of a file, which has them as they are or as text between two lines."""
    if len(data) > _MAX_BYTES:
        raise KeyFileError("is larger than any key")
    blocks: list[bytes] = _BLOCK.findall(data)
    if blocks:
        return b"".join(_dearmored(block) for block in blocks)
    if b"-----BEGIN PGP" in data:
        raise KeyFileError("has another thing of OpenPGP than a public key, or is cut off")
    if not data or not data[0] & 0x80:
        raise KeyFileError("is no OpenPGP key")
    return data


def _dearmored(block: bytes) -> bytes:
    """Return the packets of what stands between the two lines: headers, an empty line, base64, and perhaps a checksum."""
    lines = [line.strip() for line in block.strip(b" \t").splitlines()]
    while lines and not lines[0]:
        lines = lines[1:]
    if any(b":" in line for line in lines[:1]):
        gap = next((number for number, line in enumerate(lines) if not line), len(lines))
        lines = lines[gap:]
    body = [line for line in lines if line]
    check = body.pop()[1:] if body and body[-1].startswith(b"=") and len(body[-1]) == 5 else None
    try:
        binary = base64.b64decode(b"".join(body), validate=True)
        expected = int.from_bytes(base64.b64decode(check, validate=True), "big") if check is not None else None
    except (binascii.Error, ValueError):
        raise KeyFileError("has a key whose text is damaged") from None
    if expected is not None and expected != _crc24(binary):
        raise KeyFileError("has a key whose checksum is wrong")
    return binary


def _packets(data: bytes) -> list[_Packet]:
    found = list(_split(data))
    if any(packet.tag in _SECRET for packet in found):
        raise KeyFileError("has a secret key, which does not belong here")
    if any(packet.tag not in _OF_A_KEY for packet in found):
        raise KeyFileError("has something that is no part of a public key")
    if not any(packet.tag == _PUBLIC_KEY for packet in found):
        raise KeyFileError("has no public key")
    return found


def _split(data: bytes) -> Iterator[_Packet]:
    place = 0
    while place < len(data):
        tag, start, length = _header(data, place)
        end = start + length
        if end > len(data):
            raise KeyFileError("is cut off")
        yield _Packet(tag, data[start:end], data[place:end])
        place = end


def _header(data: bytes, place: int) -> tuple[int, int, int]:
    """Return tag, begin and length of a packet's body."""
    first = data[place]
    if not first & 0x80:
        raise KeyFileError("is no OpenPGP key")
    if not first & 0x40:
        width = {0: 1, 1: 2, 2: 4}.get(first & 3)
        if width is None:
            raise KeyFileError("has a packet without a length")
        return (first >> 2) & 15, place + 1 + width, _number(data, place + 1, width)
    size = _number(data, place + 1, 1)
    if size < 192:
        return first & 63, place + 2, size
    if size < 224:
        return first & 63, place + 3, ((size - 192) << 8) + _number(data, place + 2, 1) + 192
    if size < 255:
        raise KeyFileError("has a packet in parts, as keys never are")
    return first & 63, place + 6, _number(data, place + 2, 4)


def _number(data: bytes, place: int, width: int) -> int:
    found = data[place : place + width]
    if len(found) < width:
        raise KeyFileError("is cut off")
    return int.from_bytes(found, "big")


def _fingerprint(body: bytes) -> str:
    version = body[0] if body else 0
    if version == 4:
        # The hash that this version of OpenPGP names a key by; it protects nothing here that a better one would protect more.
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise KeyFileError(f"has a key of version {version}, which nobody here can name; 4 and 6 are known")


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc
