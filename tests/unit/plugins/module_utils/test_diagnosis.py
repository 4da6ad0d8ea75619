# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of codes, its page, and the plan's codes beside it."""

from __future__ import annotations

import pathlib
import re

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _diagnosis, _links_torch, _warnings
from ansible_collections.difyops.gpu.plugins.plugin_utils import _cuda, _plan_codes, _toolkit

PAGE = pathlib.Path(__file__).parents[4] / "docs" / "diagnosis.md"


def entries() -> dict[str, tuple[str, str]]:
    """Title and text of every entry of the page, by code."""
    parts = re.split(r"^### (DG\d{3}) (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, tuple[str, str]] = {}
    for code, title, text in zip(parts[1::3], parts[2::3], parts[3::3]):
        assert code not in found, f"{code} has two entries"
        found[code] = (title, text)
    return found


def titles() -> dict[str, str]:
    verdict = {code: diagnosis.title for code, diagnosis in _diagnosis.DIAGNOSES.items()}
    plan = {code: entry.title for code, entry in _plan_codes.CODES.items()}
    assert not verdict.keys() & plan.keys()
    return {**verdict, **plan}


def test_every_code_has_an_entry_with_its_title_and_no_entry_lacks_a_code() -> None:
    assert {code: title for code, (title, _text) in entries().items()} == titles()


def test_every_entry_says_how_it_shows_and_what_to_do() -> None:
    for code, (_title, text) in entries().items():
        verdict = () if code.startswith("DG7") else ("Confirm by hand",)
        for label in ("How it shows", *verdict, "What to do"):
            assert re.search(rf"^\*\*{label}:\*\* \S+", text, flags=re.MULTILINE), (code, label)


def test_entries_name_only_codes_that_exist() -> None:
    for code, (_title, text) in entries().items():
        assert set(re.findall(r"DG\d{3}", text)) <= titles().keys(), code


@pytest.mark.parametrize("code", sorted(_diagnosis.DIAGNOSES))
def test_a_diagnosis_is_whole(code: str) -> None:
    diagnosis = _diagnosis.DIAGNOSES[code]
    assert diagnosis.code == code
    assert re.fullmatch(r"DG[1-6]\d{2}", code)
    assert diagnosis.meaning.endswith(".")
    for text in (diagnosis.title, diagnosis.remedy):
        assert text and "\n" not in text and not text.endswith(".")


def test_a_value_that_nobody_knows_reads_as_such() -> None:
    assert _diagnosis.remedy("DG320") == "check which devices the container was given, and CUDA_VISIBLE_DEVICES (here: <visible>)"
    assert "docker logs dify-1" in _diagnosis.remedy("DG205", container="dify-1")


def test_braces_of_the_configuration_survive() -> None:
    assert '{"features": {"cdi": true}}' in _diagnosis.remedy("DG202")


def test_the_few_figures_that_travel_to_the_host_are_those_of_the_planner() -> None:
    assert _links_torch.MAJOR_FLOORS == _cuda.MINOR_FLOOR
    assert _warnings.FIRST_SAFE_TOOLKIT == _toolkit.FIRST_SAFE
    releases = [tuple(map(int, release.split("."))) for release in _cuda.TOOLKIT_DRIVER]
    newest = max(major for major, _minor in releases)
    last = {major: max(minor for m, minor in releases if m == major) for major, _minor in releases}
    complete = {major: f"{major}.{minor}" for major, minor in last.items() if major in _cuda.MINOR_FLOOR and major < newest}
    assert complete == _links_torch.LAST_RELEASES
