# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The selector against the table that was worked out by hand (compatibility_triples.py)."""

from __future__ import annotations

import os.path
import runpy

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _plan_codes, _selector
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver, Gpu

BY_HAND = runpy.run_path(os.path.join(os.path.dirname(__file__), "compatibility_triples.py"))
ROWS = [
    tuple(cell.strip() for cell in line.split("|")) for line in BY_HAND["TABLE"].splitlines() if line.strip() and not line.startswith("#")
]
CODES = {
    "old": _plan_codes.DRIVER_TOO_OLD,
    "no-code": _plan_codes.NO_CODE_FOR_GPU,
    "forward-only": _plan_codes.FORWARD_COMPAT_ONLY,
    "min": _plan_codes.BELOW_MIN_DRIVER,
    "unknown": _plan_codes.UNKNOWN_COMPUTE_CAPABILITY,
}
SITE = [{"name": name, "image": f"site/{name.replace('+', '-')}:1", "torch": "2.9.1", **keys} for name, keys in BY_HAND["IMAGES"].items()]
# A plus is fine in our table and not in a catalog's name.
LOADED = _catalog.load(
    [{**entry, "name": entry["name"].replace("+", "-")} for entry in SITE], "difyops/dify-gpu", "0.1.0", with_defaults=False
)
DEFAULTS = _catalog.load([], "difyops/dify-gpu", "0.1.0")
VARIANTS = {**dict(zip(BY_HAND["IMAGES"], LOADED)), **{variant.name: variant for variant in DEFAULTS}}


@pytest.mark.parametrize("driver, names, variant, outcome, why", ROWS, ids=lambda value: value.replace(" ", "_")[:30])
def test_a_row(driver, names, variant, outcome, why):
    gpus = tuple(Gpu(name, *BY_HAND["GPUS"][name]) for name in names.split("+"))
    name, _space, allowed = variant.partition(" ")
    fit = _selector.judge(VARIANTS[name], Driver(driver), gpus, allowed == "allowed")
    assert (fit.support or fit.code) == CODES.get(outcome, outcome), f"{why}; the selector says: {fit.reason}"
    assert fit.reason and (fit.support is None) is (outcome in CODES)


def test_the_table_is_whole():
    triples = {(driver, names, variant) for driver, names, variant, _outcome, _why in ROWS}
    assert len(ROWS) == len(triples) >= 150
    assert all(len(row) == 5 and row[4] for row in ROWS)
    assert {row[3] for row in ROWS} == {"full", "minor", "forward", *CODES}
    # Every GPU, every image and every enabled variant is in some row.
    assert {name for row in ROWS for name in row[1].split("+")} == set(BY_HAND["GPUS"])
    used = {row[2].partition(" ")[0] for row in ROWS}
    assert used == {*BY_HAND["IMAGES"], *(name for name, variant in VARIANTS.items() if variant.cuda and name.startswith("cuda"))}
