# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds rpm packages and dnf repositories of them, by rpmbuild, rpmsign and createrepo_c (in the image of hosts that have rpm)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from simrepo._package import DETAIL, MARK, Package

# NVIDIA's packages have this epoch since they replaced others (its public spec files).
DRIVER_EPOCH = 3


# Below them everything is a package's own.
OWN_FOLDERS = ("/usr/src/", "/usr/lib/firmware/nvidia", "/usr/lib/modules/", "/etc/nvidia-container-toolkit")


class Stream(NamedTuple):
    """A stream of the module: its name and the packages it has, and the names of its default profile and of the one with fabric manager."""

    name: str
    packages: list[Package]
    default: list[str]
    fabric: list[str]


def split(package: Package) -> tuple[str, str, str]:
    """Epoch (0 for none), version and release of `3:580.95.05-1.el9`."""
    epoch, colon, rest = package.version.partition(":")
    version, _dash, release = (rest if colon else epoch).rpartition("-")
    return (epoch if colon else "0"), version, release


def nevra(package: Package) -> str:
    epoch, version, release = split(package)
    return f"{package.name}-{epoch}:{version}-{release}.x86_64"


def _section(package: Package, root: Path) -> tuple[str, str]:
    """The lines of a package in a spec (the preamble, then scripts and files), whose contents are put below the root."""
    epoch, version, release = split(package)
    lines = [
        f"%package -n {package.name}",
        f"Epoch: {epoch}",
        f"Version: {version}",
        f"Release: {release}",
        f"Summary: {MARK} {package.what}",
        "License: GPL-3.0-or-later",
        f"Vendor: {package.maker} (SIMULATED by tests/simhost)",
    ]
    relations = {"Requires": package.depends, "Recommends": package.recommends, "Provides": package.provides}
    relations.update({"Conflicts": package.conflicts, "Obsoletes": package.replaces})
    lines += [f"{key}: {name}" for key, names in relations.items() for name in names]
    lines += [f"%description -n {package.name}", DETAIL]
    # Folders of its own, which go with it.
    parents = {str(parent) for path in (*package.files, *package.links) for parent in Path(path).parents}
    files = [f"%dir {folder}" for folder in sorted(parents) if folder.startswith(OWN_FOLDERS)]
    for path, (content, mode) in package.files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        kept = "%config(noreplace) " if path in package.config else ""
        files.append(f"{kept}%attr({mode:04o}, root, root) {path}")
    for path, to in package.links.items():
        link = root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.symlink(to, link)
        files.append(path)
    body = []
    # A script that fails does not fail the transaction; the genuine ones end in `|| :` as well. $1 is 0 when the last version goes.
    for name, commands in (("post", package.configured), ("preun", package.removing), ("postun", package.removed)):
        if commands:
            body += [f"%{name} -n {package.name}", f"{{ {commands}\n}} || :"]
    return "\n".join(lines), "\n".join([*body, f"%files -n {package.name}", *files])


def _build(packages: list[Package], out: Path) -> None:
    """Packages with the same version, in one run of rpmbuild: they share paths of one driver, and nothing else can be shared."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        root = top / "root"
        root.mkdir()
        sections = [_section(package, root) for package in packages]
        lines = [
            "%global debug_package %{nil}",
            "%global __os_install_post %{nil}",
            "%global _build_id_links none",
            "%global source_date_epoch_from_changelog 0",
            "Name: simhost-source",
            "Version: 1",
            "Release: 1",
            "Summary: SIMULATED",
            "License: GPL-3.0-or-later",
            "AutoReqProv: no",
            "%description",
            DETAIL,
            *(preamble.replace("License:", "AutoReqProv: no\nLicense:", 1) for preamble, _body in sections),
            "%install",
            f"mkdir -p %{{buildroot}} && cp -a {root}/. %{{buildroot}}/",
            *(body for _preamble, body in sections),
        ]
        (top / "stubs.spec").write_text("\n".join(lines) + "\n", encoding="ascii")
        names = "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"
        options = [f"--define=_topdir {top}", f"--define=_rpmdir {out}", f"--define=_rpmfilename {names}"]
        command = ["rpmbuild", "-bb", "--quiet", "--nodeps", *options, str(top / "stubs.spec")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"rpmbuild ended with {done.returncode}: {done.stderr[-2000:]}")


def build(groups: Sequence[list[Package]], out: Path) -> None:
    """All packages; a group is built at once, and must not have one path twice with other content."""
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        list(pool.map(lambda group: _build(group, out), groups))


def sign(out: Path, home: Path, fingerprint: str) -> None:
    files = [str(file) for file in out.glob("*.rpm")]
    options = [f"--define=_gpg_path {home}", f"--define=_gpg_name {fingerprint}", "--define=__gpg /usr/bin/gpg"]
    extra = "--define=_gpg_sign_cmd_extra_args --batch --pinentry-mode loopback --passphrase ''"
    subprocess.run(["rpmsign", *options, extra, "--addsign", *files], check=True, capture_output=True)


def repository(out: Path, module: str, streams: list[Stream], default: str, key: list[str]) -> None:
    """The indexes of a folder of packages, with module streams where there are some, signed."""
    subprocess.run(["createrepo_c", "--quiet", "--no-database", str(out)], check=True)
    if streams:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "modules.yaml"
            file.write_text(modules(module, streams, default), encoding="ascii")
            subprocess.run(["modifyrepo_c", "--mdtype=modules", str(file), str(out / "repodata")], check=True, capture_output=True)
    index = out / "repodata/repomd.xml"
    subprocess.run([*key, "--armor", "--detach-sign", "--output", f"{index}.asc", str(index)], check=True, capture_output=True)


def modules(module: str, streams: list[Stream], default: str) -> str:
    """The modulemd documents: one per stream, and the defaults. A stream needs a default profile, or dnf does not install it by name."""
    documents = []
    for number, stream in enumerate(streams):
        data = {
            "name": module,
            "stream": stream.name,
            "version": 20260101000000 + number,
            "context": "simhost0",
            "arch": "x86_64",
            "summary": f"SIMULATED NVIDIA driver, stream {stream.name}",
            "description": DETAIL,
            "license": {"module": ["GPL-3.0-or-later"]},
            "profiles": {"default": {"rpms": stream.default}, "fm": {"rpms": stream.fabric}},
            "artifacts": {"rpms": sorted(nevra(package) for package in stream.packages)},
        }
        documents.append({"document": "modulemd", "version": 2, "data": data})
    profiles = {stream.name: ["default"] for stream in streams}
    documents.append({"document": "modulemd-defaults", "version": 1, "data": {"module": module, "stream": default, "profiles": profiles}})
    # JSON is YAML too.
    return "".join(f"---\n{json.dumps(document)}\n...\n" for document in documents)
