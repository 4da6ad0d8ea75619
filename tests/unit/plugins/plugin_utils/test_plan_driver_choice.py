# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver drives which GPUs together: kernel-module flavours, last branches, and the branch to install."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _branches, _driver_choice, _gpus
from hypothesis import given
from hypothesis import strategies as st

TODAY = datetime.date(2026, 11, 22)
CARDS = {
    "K80": "0x102d",
    "P4": "0x1bb3",
    "V100": "0x1db4",
    "T4": "0x1eb8",
    "A10": "0x2236",
    "A100": "0x20b2",
    "L4": "0x27b8",
    "H100": "0x2330",
    "GH200": "0x2342",
    "B200": "0x2901",
    "RTX 5090": "0x2b85",
    "GB10": "0x2e12",
}


def cards(*names):
    return [_gpus.product(CARDS[name]) for name in names]


@pytest.mark.parametrize(
    "card, flavour, last",
    [
        ("K80", "proprietary", 470),
        ("P4", "proprietary", 580),
        ("V100", "proprietary", 580),
        ("T4", "either", None),
        ("A10", "either", None),
        ("A100", "either", None),
        ("L4", "either", None),
        ("H100", "either", None),
        ("GH200", "open", None),
        ("B200", "open", None),
        ("RTX 5090", "open", None),
        ("GB10", "open", None),
    ],
)
def test_flavour_and_last_branch(card, flavour, last):
    (product,) = cards(card)
    assert (product.flavour, product.last_branch) == (flavour, last)


def test_every_row_follows_the_rule_of_its_architecture():
    for device_id, product in _gpus.table().items():
        rule = _gpus.ARCHITECTURES[product.architecture]
        assert product.flavour == (_gpus.OPEN if "GH200" in product.name else rule.flavour), device_id
        # Three boards of the first Kepler line ended with branch 367.
        assert product.last_branch == (367 if product.name in ("GRID K340", "GRID K1", "GRID K2") else rule.last_branch), device_id
        assert product.first_branch is None or product.first_branch in _gpus.SAMPLED[1:]
        assert product.first_branch is None or product.last_branch is None or product.first_branch <= product.last_branch
        if product.compute_capability is not None:
            assert any(product.compute_capability.startswith(prefix) for prefix in rule.capability_major), device_id


def test_blackwell_and_grace_are_listed_since_open_modules_drive_them():
    for product in _gpus.table().values():
        assert product.flavour != _gpus.OPEN or (product.first_branch or 0) >= _gpus.OPEN_SINCE


@pytest.mark.parametrize(
    "names, branch, flavours",
    [
        # one GPU
        (["V100"], 580, ("proprietary",)),
        (["V100"], 590, ()),
        (["V100"], 470, ("proprietary",)),
        (["K80"], 470, ("proprietary",)),
        (["K80"], 525, ()),
        (["T4"], 470, ("proprietary",)),
        (["T4"], 535, ("proprietary", "open")),
        (["T4"], 580, ("open", "proprietary")),
        (["A10"], 615, ("open", "proprietary")),
        (["A10"], 620, ("open",)),
        (["L4"], 470, ()),
        (["B200"], 580, ("open",)),
        (["B200"], 550, ()),
        # The lists of 570 were not read, so nobody says that it does not drive a B200.
        (["B200"], 570, ("open",)),
        (["GH200"], 535, ("open",)),
        (["H100"], 580, ("open", "proprietary")),
        # one host with several
        (["V100", "A100"], 580, ("proprietary",)),
        (["P4", "T4", "H100"], 580, ("proprietary",)),
        (["V100", "A100"], 595, ()),
        (["V100", "B200"], 580, ()),
        (["P4", "GH200"], 580, ()),
        (["A100", "B200"], 580, ("open",)),
        (["H100", "GH200"], 595, ("open",)),
        (["K80", "V100"], 470, ("proprietary",)),
        (["K80", "L4"], 470, ()),
    ],
)
def test_what_drives_them_together(names, branch, flavours):
    products = cards(*names)
    assert _driver_choice.flavours(products, branch) == flavours
    assert (_driver_choice.why_not(products, branch) is None) is bool(flavours)


@pytest.mark.parametrize(
    "names, branch, reason",
    [
        (["V100"], 595, "is driven by branches up to 580 only"),
        (["L4"], 470, "NVIDIA L4 is newer than branch 470: NVIDIA's lists name it from 525 on"),
        (["V100", "B200"], 580, "needs the proprietary kernel modules and NVIDIA B200 the open ones, and a host has one driver"),
        (["V100", "A100"], 620, "is driven by branches up to 580 only"),
    ],
)
def test_why_a_branch_does_not_drive_them(names, branch, reason):
    assert reason in _driver_choice.why_not(cards(*names), branch)


@pytest.mark.parametrize(
    "names, branch, flavour",
    [
        # 580 is the newest long-term branch, and still drives everything since Maxwell
        (["P4"], 580, "proprietary"),
        (["V100", "A100"], 580, "proprietary"),
        (["T4"], 580, "open"),
        (["A10", "H100"], 580, "open"),
        (["B200"], 580, "open"),
        (["RTX 5090", "A10"], 580, "open"),
        (["V100", "B200"], None, None),
        (["K80"], None, None),
        ([], None, None),
    ],
)
def test_the_driver_to_install(names, branch, flavour):
    choice = _driver_choice.choose(cards(*names), TODAY)
    assert (choice.branch, choice.flavour) == (branch, flavour) and choice.reason


def test_the_reasons_of_a_choice():
    assert (
        _driver_choice.choose(cards("T4"), TODAY).reason
        == "the newest long-term support branch that drives Tesla T4, supported until 2028-06"
    )
    together = _driver_choice.choose(cards("V100", "B200"), TODAY).reason
    assert together.startswith("no supported branch drives Tesla V100") and "580: " in together and "595: " in together


def test_a_card_that_the_long_term_branch_does_not_know_gets_the_production_branch():
    newer = [product for product in _gpus.table().values() if product.first_branch == 595]
    assert newer and _driver_choice.choose(newer[:1], TODAY)[:2] == (595, "open")
    # 615 is of unknown type: nobody says that it is for production.
    newest = [product for product in _gpus.table().values() if product.first_branch == 615]
    assert newest and _driver_choice.choose(newest[:1], TODAY).branch is None


def test_what_a_host_cannot_get_is_not_chosen():
    assert _driver_choice.choose(cards("A10"), TODAY, {595, 610})[:2] == (595, "open")
    assert _driver_choice.choose(cards("A10"), TODAY, {610, 615}).branch is None
    assert _driver_choice.choose(cards("V100"), TODAY, {595}).branch is None
    # 535 ended in June 2026
    assert _driver_choice.choose(cards("A10"), TODAY, {535}).branch is None
    assert _driver_choice.choose(cards("A10"), datetime.date(2026, 6, 30), {535})[:2] == (535, "proprietary")


def test_a_gpu_that_the_table_does_not_know():
    assert _gpus.describe("0xffff") is None
    assert _gpus.describe("0xffff", name="?", compute_capability="junk") is None
    assert _gpus.describe("0x1eb8", architecture="Blackwell").name == "Tesla T4"
    by_name = _gpus.describe("0xffff", name="NVIDIA L5", architecture="Ada Lovelace", compute_capability="8.9")
    assert (by_name.architecture, by_name.flavour, by_name.last_branch) == ("ada", "either", None)
    assert _gpus.describe("0xffff", compute_capability="7.0").last_branch == 580
    assert _gpus.describe("0xffff", compute_capability="10.7").architecture == "rubin"
    grace = _gpus.describe("0xffff", name="NVIDIA GH300", architecture="hopper")
    assert grace.flavour == "open"
    # What comes after Blackwell has open modules only.
    assert _gpus.describe("0xffff", name="new", architecture="Feynman", compute_capability="14.0").flavour == "open"


def test_supported_branches():
    assert _branches.supported(TODAY) == [580, 595]
    assert _branches.newest("LTS", TODAY) == 580 and _branches.newest("PB", TODAY) == 595 and _branches.newest("NFB", TODAY) is None
    assert _branches.newest("LTS", datetime.date(2030, 1, 1)) is None


PRODUCTS = st.lists(st.sampled_from(sorted(_gpus.table())).map(_gpus.product), max_size=5)


@given(PRODUCTS, st.dates(datetime.date(2022, 1, 1), datetime.date(2032, 1, 1)), st.none() | st.sets(st.integers(440, 640)))
def test_a_choice_drives_every_gpu_and_is_supported(products, today, offered):
    branch, flavour, reason = _driver_choice.choose(products, today, offered)
    assert reason
    if branch is None:
        assert flavour is None
        return
    assert _branches.BRANCHES[branch].kind in ("LTS", "PB") and _branches.ended(branch, today) is None
    assert offered is None or branch in offered
    for product in products:
        # The rule a second time, from the raw rows.
        assert product.flavour in ("either", flavour)
        assert product.last_branch is None or branch <= product.last_branch
        assert product.first_branch is None or branch not in _gpus.SAMPLED or branch >= product.first_branch


@given(PRODUCTS, st.integers(430, 640))
def test_more_gpus_never_have_more_drivers(products, branch):
    together = set(_driver_choice.flavours(products, branch))
    for product in products:
        assert together <= set(_driver_choice.flavours([product], branch))
