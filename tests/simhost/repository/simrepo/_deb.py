# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes .deb files and apt repositories of them, without tools but gpg: some hundred packages in about a second."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

from simrepo._package import DETAIL, MARK, Package

# Files of a reproducible repository have one time.
EPOCH = 1767225600
RELEASE_DATE = "Thu, 01 Jan 2026 00:00:00 UTC"


def control(package: Package) -> str:
    """The control file."""
    relations = {
        "Depends": package.depends,
        "Recommends": package.recommends,
        "Provides": package.provides,
        "Conflicts": package.conflicts,
        "Replaces": package.replaces,
    }
    lines = [
        f"Package: {package.name}",
        *([f"Source: {package.source}"] if package.source else []),
        f"Version: {package.version}",
        "Architecture: amd64",
        f"Maintainer: {package.maker} (SIMULATED by tests/simhost) <nobody@localhost>",
        f"Installed-Size: {package.installed_kib}",
        "Section: restricted/libs",
        "Priority: optional",
        *(f"{key}: {', '.join(names)}" for key, names in relations.items() if names),
        f"Description: {MARK} {package.what}",
        f" {DETAIL}",
    ]
    return "\n".join(lines) + "\n"


def _scripts(package: Package) -> dict[str, str]:
    """The maintainer scripts. What stands for building and loading does not run where nothing is simulated."""
    whole = {
        "postinst": ("configure", package.configured),
        "prerm": ("remove|upgrade", package.removing),
        "postrm": ("remove", package.removed),
    }
    return {
        name: f'#!/bin/sh\nset -e\ncase "$1" in\n{when})\n{commands}\n;;\nesac\n' for name, (when, commands) in whole.items() if commands
    }


def _tar(files: dict[str, tuple[bytes, int]], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders = {str(parent) for path in (*files, *links) for parent in Path(path.lstrip("/")).parents}
        for folder in sorted(folders - {"."}):
            info = tarfile.TarInfo(f"./{folder}/")
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            tar.addfile(info)
        for path, (content, mode) in sorted(files.items()):
            info = tarfile.TarInfo(f"./{path.lstrip('/')}")
            info.size, info.mode, info.mtime = len(content), mode, EPOCH
            tar.addfile(info, io.BytesIO(content))
        for path, target in sorted(links.items()):
            info = tarfile.TarInfo(f"./{path.lstrip('/')}")
            info.type, info.linkname, info.mode, info.mtime = tarfile.SYMTYPE, target, 0o777, EPOCH
            tar.addfile(info)
    return gzip.compress(buffer.getvalue(), compresslevel=1, mtime=0)


def deb(package: Package) -> bytes:
    """The whole .deb: an ar archive of the format's version, the control files and the contents."""
    scripts = {name: (text.encode(), 0o755) for name, text in _scripts(package).items()}
    lines = "".join(f"{path}\n" for path in package.config)
    conffiles = {"conffiles": (lines.encode(), 0o644)} if lines else {}
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({"control": (control(package).encode(), 0o644), **scripts, **conffiles}, {}),
        "data.tar.gz": _tar(package.files, package.links),
    }
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
    return out


def _stanza(package: Package, path: str, content: bytes) -> str:
    head, _newline, description = control(package).partition("Description:")
    sums = f"Filename: {path}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    return f"{head}{sums}Description:{description}"


def _index(root: Path, packages: list[Package], pool: str, prefix: str) -> bytes:
    """Writes the packages below the pool and returns the text of their Packages file; `prefix` is what file names begin with."""
    stanzas = []
    (root / pool).mkdir(parents=True, exist_ok=True)
    for package in packages:
        file = f"{package.name}_{package.version.replace(':', '%3a')}_amd64.deb"
        content = deb(package)
        (root / pool / file).write_bytes(content)
        stanzas.append(_stanza(package, f"{prefix}{file}", content))
    return "\n".join(stanzas).encode()


def _release(folder: Path, fields: dict[str, str], key: list[str]) -> None:
    """Writes Release over all indexes of the folder, and signs it in both ways."""
    lines = [f"{name}: {value}" for name, value in fields.items()] + [f"Date: {RELEASE_DATE}", "SHA256:"]
    for file in sorted(folder.rglob("Packages*")):
        content = file.read_bytes()
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content):>10} {file.relative_to(folder)}")
    release = folder / "Release"
    release.write_text("\n".join(lines) + "\n", encoding="ascii")
    for options, name in ((["--clearsign"], "InRelease"), (["--armor", "--detach-sign"], "Release.gpg")):
        subprocess.run([*key, *options, "--output", str(folder / name), str(release)], check=True, capture_output=True)


def _write_index(folder: Path, text: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Packages").write_bytes(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text, mtime=0))


def suites(root: Path, origin: str, component: str, packages: dict[str, list[Package]], key: list[str]) -> None:
    """A repository with suites, each with one component."""
    for suite, found in packages.items():
        pool = f"pool/{suite}"
        text = _index(root, found, pool, f"{pool}/")
        folder = root / "dists" / suite
        _write_index(folder / component / "binary-amd64", text)
        fields = {"Origin": origin, "Label": origin, "Suite": suite, "Codename": suite, "Architectures": "amd64", "Components": component}
        _release(folder, {**fields, "Description": "SIMULATED by tests/simhost"}, key)


def flat(root: Path, origin: str, packages: list[Package], key: list[str], label: str = "NVIDIA CUDA") -> None:
    """A flat repository, as NVIDIA's are: its source line ends in `/`."""
    text = _index(root, packages, ".", "./")
    _write_index(root, text)
    _release(root, {"Origin": origin, "Label": label, "Architecture": "x86_64", "Description": "SIMULATED by tests/simhost"}, key)
