# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the bill of materials of the image, as CycloneDX 1.6: what Python and the distribution have installed, no more and no less.

It has no time and no random number, so that the same content gives the same file. Standard library only; run by the Python of the
virtual environment, which is the one that is described.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import urllib.parse
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

DPKG_FORMAT = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"


def python_components() -> list[dict[str, Any]]:
    """Every Python distribution of this environment, by name."""
    found: dict[str, dict[str, Any]] = {}
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if not name:
            continue
        purl = f"pkg:pypi/{name}@{urllib.parse.quote(distribution.version, safe='')}"
        component = {"type": "library", "bom-ref": purl, "name": name, "version": distribution.version, "purl": purl}
        licence = licence_of(distribution.metadata)
        found.setdefault(name, {**component, "licenses": [licence]} if licence else component)
    return [found[name] for name in sorted(found)]


def licence_of(content: metadata.PackageMetadata) -> dict[str, Any] | None:
    """What a distribution says of its licence: an SPDX expression, else a name; None where it says nothing short."""
    expressions = content.get_all("License-Expression")
    if expressions:
        return {"expression": expressions[0]}
    classifiers = [text.rpartition(" :: ")[2] for text in content.get_all("Classifier") or [] if text.startswith("License :: ")]
    named = [*classifiers, *(content.get_all("License") or []), ""][0].strip()
    # Some put the whole licence where its name belongs.
    return {"license": {"name": named}} if named and "\n" not in named and len(named) <= 100 else None


def system_components(listing: str, distribution: str) -> list[dict[str, Any]]:
    """The distribution's packages.

    Args:
        listing: what dpkg-query answers to DPKG_FORMAT.
        distribution: ``debian`` or ``ubuntu``.
    """
    components = []
    for line in listing.splitlines():
        state, name, version, architecture = [*line.split("\t"), "", "", "", ""][:4]
        if state.startswith("ii") and name and version:
            purl = f"pkg:deb/{distribution}/{name}@{urllib.parse.quote(version, safe='')}?arch={architecture}"
            components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return sorted(components, key=lambda component: str(component["bom-ref"]))


def document(name: str, version: str, variant: str, components: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole bill. Its serial number follows from its content."""
    subject = {
        "type": "container",
        "bom-ref": f"{name}:{version}-{variant}",
        "name": name,
        "version": version,
        "properties": [{"name": "org.difyops.variant", "value": variant}],
    }
    content = {"metadata": {"component": subject}, "components": components}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **content}


def _of_the_system() -> list[dict[str, Any]]:
    try:
        answer = subprocess.run(["dpkg-query", "--show", "--showformat", DPKG_FORMAT], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"dify-gpu build: the packages of the base image are not in the bill of materials ({error}).", file=sys.stderr)
        return []
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    found = re.search(r"^ID=\"?([a-z0-9._-]+)", release, re.MULTILINE)
    return system_components(answer.stdout, found[1] if found else "debian")


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write the bill of materials of the image.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    bill = document(arguments.name, arguments.version, arguments.variant, python_components() + _of_the_system())
    arguments.output.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(bill['components'])} components in {arguments.output}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
