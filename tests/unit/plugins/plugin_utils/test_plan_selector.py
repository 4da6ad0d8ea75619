# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which variant runs where: the article's table and examples with their correct outcome, the rules one by one, and properties."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _cuda, _plan_codes, _selector
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver, Gpu, Preference

CATALOG = _catalog.enabled(_catalog.load([], "difyops/dify-gpu", "0.1.0"))
BY_NAME = {variant.name: variant for variant in CATALOG}
CARDS = {
    "P4": Gpu("Tesla P4", "6.1", True),
    "T4": Gpu("Tesla T4", "7.5", True),
    "V100": Gpu("Tesla V100", "7.0", True),
    "A30": Gpu("NVIDIA A30", "8.0", True),
    "A100": Gpu("NVIDIA A100", "8.0", True),
    "A10": Gpu("NVIDIA A10", "8.6", True),
    "RTX 3090": Gpu("NVIDIA GeForce RTX 3090", "8.6"),
    "L4": Gpu("NVIDIA L4", "8.9", True),
    "H100": Gpu("NVIDIA H100", "9.0", True),
    "B200": Gpu("NVIDIA B200", "10.0", True),
    "RTX 5090": Gpu("NVIDIA GeForce RTX 5090", "12.0"),
}


def image(**keys):
    entry = {"name": "x", "image": "site/x:1", "torch": "2.3.1", "sm": ["5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0"], **keys}
    return _catalog.load([entry], "difyops/dify-gpu", "0.1.0", with_defaults=False)[0]


def judge(variant, driver, *cards, forward=False):
    return _selector.judge(variant, Driver(driver), tuple(CARDS[card] for card in cards), forward)


def chosen(driver, *cards, prefer="newest", forward=False, named=None):
    preference = Preference(prefer, forward, named)
    fit = _selector.select(CATALOG, Driver(driver), [CARDS[card] for card in cards], preference).chosen
    return (fit.variant.name, fit.support) if fit else None


# The article's table row by row: what it recommends, on drivers that it names or that are common for the card.
@pytest.mark.parametrize(
    "card, driver, cuda, support",
    [
        # P4 / T4: "11.8, driver >= 450.80.02": right, by minor-version compatibility until 520.61.05.
        ("P4", "450.80.02", "11.8", "minor"),
        ("T4", "450.80.02", "11.8", "minor"),
        ("T4", "450.51.06", "11.8", None),
        ("P4", "520.61.05", "11.8", "full"),
        # A10 / A30: "11.8 or 12.1, update the driver to 525": 12.x needs 525.60.13, and that is enough for 12.2 too.
        ("A10", "525.60.13", "12.1", "minor"),
        ("A30", "525.60.13", "12.2", "minor"),
        ("A10", "525.53.00", "12.1", None),
        ("A30", "470.182.03", "11.8", "minor"),
        # A100: "11.8 to 12.3"
        ("A100", "450.80.02", "11.8", "minor"),
        ("A100", "525.85.12", "12.3", "minor"),
        ("A100", "545.23.08", "12.3", "full"),
        # H100: "12.2 and driver >= 535": neither is needed.
        ("H100", "520.61.05", "11.8", "full"),
        ("H100", "525.60.13", "12.2", "minor"),
        ("H100", "535.54.03", "12.2", "full"),
        # Its worked examples. Driver 470.182.03 cannot load a 12.2 image: right. It is CUDA 11.4 and runs 11.8 all the same.
        ("RTX 3090", "470.182.03", "12.2", None),
        ("RTX 3090", "470.182.03", "11.8", "minor"),
        # CentOS 7 with driver 515: it recommends 12.1, which cannot run.
        ("T4", "515.105.01", "12.2", None),
        ("T4", "515.105.01", "12.1", None),
        ("T4", "515.105.01", "11.8", "minor"),
    ],
)
def test_the_articles_table(card, driver, cuda, support):
    fit = judge(image(cuda=cuda), driver, card)
    assert fit.support == support
    assert fit.code == (None if support else _plan_codes.DRIVER_TOO_OLD)


@pytest.mark.parametrize("card", ["T4", "A100"])
def test_forward_compatibility_does_not_help_driver_515(card):
    for cuda in ("12.1", "12.2", "12.4", "13.0"):
        assert judge(image(cuda=cuda, features=["cuda_compat"], sm=["7.5", "8.0"]), "515.105.01", card, forward=True).support is None


@pytest.mark.parametrize(
    "driver, cards, expected",
    [
        # the demo's hosts
        ("535.247.01", ["A10"], ("cuda12.6", "minor")),
        ("470.256.02", ["T4"], ("cuda11.8", "minor")),
        # the article's cards with the default catalog
        ("450.80.02", ["P4"], ("cuda11.8", "minor")),
        ("580.95.05", ["P4"], ("cuda12.6", "full")),
        ("515.105.01", ["T4"], ("cuda11.8", "minor")),
        ("525.60.13", ["A30"], ("cuda12.6", "minor")),
        ("535.54.03", ["H100"], ("cuda12.6", "minor")),
        ("560.28.03", ["H100"], ("cuda12.6", "full")),
        ("580.65.06", ["A100"], ("cuda13.2", "minor")),
        ("595.45.04", ["A100"], ("cuda13.2", "full")),
        # Blackwell has no code before CUDA 12.8, Volta none in the wheels of CUDA 13
        ("570.124.06", ["B200"], ("cuda12.8", "full")),
        ("570.124.06", ["RTX 5090"], ("cuda12.8", "full")),
        ("535.247.01", ["B200"], ("cuda12.8", "minor")),
        ("580.95.05", ["V100"], ("cuda12.6", "full")),
        # one image for all GPUs of a host
        ("580.95.05", ["V100", "H100"], ("cuda12.6", "full")),
        ("580.95.05", ["V100", "B200"], None),
        ("470.256.02", ["B200"], None),
        ("440.100", ["T4"], None),
        ("630.10.01", ["H100"], ("cuda13.2", "full")),
    ],
)
def test_choice_newest(driver, cards, expected):
    assert chosen(driver, *cards) == expected


@pytest.mark.parametrize(
    "driver, cards, expected",
    [
        ("535.247.01", ["A10"], ("cuda12.1", "full")),
        ("550.54.15", ["A10"], ("cuda12.4", "full")),
        ("525.60.13", ["A10"], ("cuda11.8", "full")),
        ("515.105.01", ["A10"], ("cuda11.8", "minor")),
        ("570.124.06", ["A10"], ("cuda12.8", "full")),
        ("580.95.05", ["A10"], ("cuda13.0", "full")),
        ("580.95.05", ["V100"], ("cuda12.6", "full")),
    ],
)
def test_choice_full_support_first(driver, cards, expected):
    assert chosen(driver, *cards, prefer="full_support_first") == expected


@pytest.mark.parametrize("branch", sorted(_cuda.BRANCH_CUDA))
@pytest.mark.parametrize("card", sorted(CARDS))
def test_12_1_and_12_4_are_never_the_newest(branch, card):
    assert (chosen(f"{branch}.999", card) or ("none",))[0] not in ("cuda12.1", "cuda12.4")


def test_a_variant_by_name():
    assert chosen("535.247.01", "A10", named="cuda12.1") == ("cuda12.1", "full")
    assert chosen("470.256.02", "T4", named="cuda12.6") is None
    refused = judge(BY_NAME["cuda12.6"], "470.256.02", "T4")
    assert _selector.force(refused).support == "forced" and "needs driver >= 525.60.13" in _selector.force(refused).reason
    fits = judge(BY_NAME["cuda11.8"], "470.256.02", "T4")
    assert _selector.force(fits) is fits


def test_reasons_are_those_of_the_contract():
    assert judge(BY_NAME["cuda12.6"], "535.247.01", "A10").reason == (
        "CUDA 12.6 on driver 535.247.01: minor-version compatibility (driver >= 525.60.13)"
    )
    assert judge(BY_NAME["cuda13.0"], "535.247.01", "A10").reason == "CUDA 13.x needs driver >= 580.65.06; loaded is 535.247.01"


@pytest.mark.parametrize(
    "target, capability, cuda, runs",
    [
        ("8.0", "8.6", "11.8", True),
        ("8.6", "8.9", "12.6", True),
        ("8.6", "8.0", "12.6", False),
        ("7.0", "7.5", "12.6", True),
        ("8.0", "9.0", "12.6", False),
        ("10.0", "10.3", "13.0", True),
        ("12.0", "12.1", "13.0", True),
        ("10.0", "12.0", "13.0", False),
        # for one GPU only, and for one family
        ("9.0a", "9.0", "12.6", True),
        ("10.0a", "10.3", "13.0", False),
        ("10.0f", "10.3", "13.0", True),
        ("10.3f", "10.0", "13.0", False),
        # Jetson parts stand apart before CUDA 13.2
        ("8.6", "8.7", "13.0", False),
        ("8.7", "8.9", "13.0", False),
        ("8.6", "8.7", "13.2", True),
        ("8.7", "8.7", "12.6", True),
    ],
)
def test_machine_code(target, capability, cuda, runs):
    assert _selector.runs_code(target, capability, cuda) is runs


@pytest.mark.parametrize(
    "target, capability, cuda, driver_cuda, compiles",
    [
        ("8.0", "9.0", "12.4", "12.4", True),
        ("8.0", "9.0", "12.4", "12.2", False),
        ("9.0", "8.0", "12.4", "13.0", False),
        ("12.0", "7.0", "13.0", "13.0", False),
        ("9.0a", "10.0", "12.8", "13.0", False),
        ("10.0f", "10.3", "12.9", "13.0", True),
        ("10.0f", "12.0", "12.9", "13.0", False),
        ("8.0", "9.0", "12.4", None, False),
    ],
)
def test_ptx(target, capability, cuda, driver_cuda, compiles):
    assert _selector.compiles_ptx(target, capability, cuda, driver_cuda) is compiles


def test_ptx_of_a_newer_toolkit_is_no_way_out_under_minor_compatibility():
    only_ptx = image(cuda="12.4", sm=[], ptx="8.0")
    assert judge(only_ptx, "550.54.14", "H100").support == "full"
    refused = judge(only_ptx, "535.247.01", "H100")
    assert refused.code == _plan_codes.NO_CODE_FOR_GPU and "too new for a driver of CUDA 12.2" in refused.reason
    assert "is not for this GPU" in judge(image(cuda="12.4", sm=["8.0"], ptx="9.0"), "550.54.14", "V100").reason


def test_no_kernels_for_volta_in_cu130():
    refused = judge(BY_NAME["cuda13.0"], "580.95.05", "V100")
    assert refused.code == _plan_codes.NO_CODE_FOR_GPU and "is not for this GPU" in refused.reason


def test_forward_compatibility():
    with_package = image(cuda="13.0", sm=["8.0", "8.6"], features=["cuda_compat"])
    assert judge(with_package, "535.247.01", "A10", forward=True).support == "forward"
    for fit in (
        judge(with_package, "535.247.01", "A10"),
        judge(with_package, "535.247.01", "RTX 3090", forward=True),
    ):
        assert fit.code == _plan_codes.FORWARD_COMPAT_ONLY
    without_package = judge(image(cuda="13.0", sm=["8.6"]), "535.247.01", "A10", forward=True)
    assert without_package.code == _plan_codes.DRIVER_TOO_OLD
    assert judge(with_package, "550.54.15", "A10", forward=True).code == _plan_codes.DRIVER_TOO_OLD


def test_forward_compatibility_comes_last():
    catalog = [*CATALOG, image(cuda="13.0", torch="3.0.0", sm=["8.6"], features=["cuda_compat"])]
    for prefer in _selector.PREFERENCES:
        picked = _selector.select(catalog, Driver("535.247.01"), [CARDS["A10"]], Preference(prefer, forward_compat=True)).chosen
        assert picked.support in ("full", "minor")


def test_a_stricter_minimum_of_the_catalog():
    strict = image(cuda="12.2", min_driver="535.104.05")
    assert judge(strict, "535.86.09", "A10").code == _plan_codes.BELOW_MIN_DRIVER
    assert judge(strict, "535.104.05", "A10").support == "full"


def test_an_unknown_compute_capability():
    fit = _selector.judge(BY_NAME["cuda12.6"], Driver("580.95.05"), (Gpu("new card", None),), False)
    assert fit.code == _plan_codes.UNKNOWN_COMPUTE_CAPABILITY


def test_a_cuda_release_newer_than_the_tables():
    later = image(cuda="13.9", sm=["8.0"])
    assert judge(later, "620.10.01", "A100").support == "minor"
    assert _selector.judge(later, Driver("640.10.01", "13.9"), (CARDS["A100"],), False).support == "full"
