# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bill of materials that the build writes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[3] / "roles/dify_image/files/image"
SPEC = importlib.util.spec_from_file_location("sbom", RECIPE / "build/sbom.py")
assert SPEC and SPEC.loader
sbom = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sbom)


def test_it_lists_what_pip_lists(tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = [sys.executable, str(RECIPE / "build/sbom.py"), "--name", "dify-gpu", "--version", "1.2.3", "--variant", "cpu"]
        subprocess.run([*command, "--output", str(tmp_path / name)], check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes(), "the same content has to give the same file"
    bill = json.loads((tmp_path / "one").read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["metadata"]["component"]["version"] == "1.2.3"
    report = subprocess.run([sys.executable, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True).stdout
    installed = {(entry["name"].lower().replace("_", "-").replace(".", "-"), entry["version"]) for entry in json.loads(report)}
    python = [component for component in bill["components"] if component["purl"].startswith("pkg:pypi/")]
    assert {(component["name"], component["version"]) for component in python} == installed
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(references) == len(set(references)), "CycloneDX wants every bom-ref once"


def test_packages_of_the_distribution_are_listed_when_they_are_installed() -> None:
    listing = "ii \tlibc6\t2.36-9+deb12u13\tamd64\nrc \tgone\t1.0\tall\nii \tbase-files\t12.4+deb12u12\tamd64\nnonsense\n"
    assert [component["purl"] for component in sbom.system_components(listing, "debian")] == [
        "pkg:deb/debian/base-files@12.4%2Bdeb12u12?arch=amd64",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64",
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"License-Expression": "MIT"}, {"expression": "MIT"}),
        ({"License": "BSD-3-Clause"}, {"license": {"name": "BSD-3-Clause"}}),
        ({"License": "x", "Classifier": "License :: OSI Approved :: MIT License"}, {"license": {"name": "MIT License"}}),
        ({"License": "The whole text\nof a licence"}, None),
        ({}, None),
    ],
)
def test_the_licence_is_what_the_package_says(fields: dict[str, str], expected: object) -> None:
    content = Message()
    for name, value in fields.items():
        content[name] = value
    assert sbom.licence_of(content) == expected
