# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Required features: what the GPU, the CUDA and the PyTorch of an image must be, and how a sentence says what is missing."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _cuda, _features, _plan_codes, _selector, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver, Gpu, Preference

CATALOG = _catalog.load([], "difyops/dify-gpu", "0.1.0")
BY_NAME = {variant.name: variant for variant in CATALOG}


def site(**keys):
    entry = {"name": "site", "image": "site/x:1", "torch": "2.3.1", "cuda": "12.1", "sm": ["7.0", "7.5", "8.0", "8.6", "9.0"], **keys}
    return _catalog.load([entry], "difyops/dify-gpu", "0.1.0", with_defaults=False)[0]


def lacks(variant, capability, *names):
    return _features.missing(variant, [("a GPU", capability)], names)


@pytest.mark.parametrize(
    "variant, capability, feature, fits",
    [
        ("cuda11.8", "6.1", "fp16", False),
        ("cuda11.8", "7.0", "fp16", True),
        ("cuda11.8", "7.0", "int8", False),
        ("cuda11.8", "7.5", "int8", True),
        ("cuda12.6", "7.5", "bf16", False),
        ("cuda12.6", "8.0", "bf16", True),
        ("cuda12.6", "7.5", "tf32", False),
        ("cuda12.6", "8.6", "tf32", True),
        # An H100 has fp8 from CUDA 11.8 on, an L4 from 12.1 on, an A100 never.
        ("cuda11.8", "9.0", "fp8", True),
        ("cuda11.8", "8.9", "fp8", False),
        ("cuda12.1", "8.9", "fp8", True),
        ("cuda12.6", "8.0", "fp8", False),
        ("cuda12.8", "12.0", "fp8", True),
        ("cuda12.8", "10.0", "fp4", True),
        ("cuda12.8", "9.0", "fp4", False),
        # The library is in no default image.
        ("cuda12.6", "9.0", "transformer_engine", False),
    ],
)
def test_what_the_default_variants_have(variant, capability, feature, fits):
    assert (lacks(BY_NAME[variant], capability, feature) is None) is fits


def test_the_sentences():
    assert (
        lacks(BY_NAME["cuda12.6"], "8.0", "bf16", "fp8") == "a GPU has no fp8: that needs compute capability 8.9 or newer, and it has 8.0"
    )
    assert lacks(BY_NAME["cuda11.8"], "8.9", "fp8") == "fp8 on a GPU needs CUDA 12.1 or newer, and the image has 11.8"
    assert lacks(site(torch="2.2.2"), "8.9", "fp8") == "fp8 on a GPU needs PyTorch 2.3 or newer, and the image has 2.2.2"
    assert lacks(site(), "9.0", "flash") == "the image does not name the feature flash"
    assert "its compute capability is not known" in lacks(site(), None, "fp8")


def test_an_image_is_taken_at_its_word_and_a_gpu_is_not():
    assert lacks(site(features=["transformer_engine"]), "9.0", "transformer_engine") is None
    assert "compute capability 8.9" in lacks(site(features=["transformer_engine"]), "8.0", "transformer_engine")
    assert lacks(site(torch="2.2.2", features=["fp8"]), "8.9", "fp8") is None
    assert lacks(site(features=["flash"]), "7.0", "flash") is None


def test_every_gpu_must_have_it():
    cards = [("L4", "8.9"), ("A10", "8.6")]
    assert _features.missing(BY_NAME["cuda12.6"], cards[:1], ["fp8"]) is None
    assert "A10 has no fp8" in _features.missing(BY_NAME["cuda12.6"], cards, ["fp8"])


def test_a_name_that_nobody_knows():
    assert _features.unknown(["fp8", "flash"], [site(features=["flash"])]) is None
    sentence = _features.unknown(["fp9"], CATALOG)
    assert (
        sentence.startswith("require_features (dify_image_require_features): 'fp9' is no known feature")
        and "fp8" in sentence
        and sentence.endswith(".")
    )


def test_the_table_is_in_order():
    for name, feature in _features.FEATURES.items():
        floors = [_cuda.number(need.capability) for need in feature.needs]
        assert floors == sorted(floors) and name == name.lower() and feature.words
        for need in feature.needs:
            # A CUDA that can make code for GPUs of that generation at all: code for the major is enough.
            archs = _cuda.COMPILES_FOR.get(need.cuda)
            if archs is not None:
                assert any(_cuda.number(arch)[0] == _cuda.number(need.capability)[0] for arch in archs)
            assert need.cuda in _cuda.TOOLKIT_DRIVER and _versions.is_dotted(need.torch, "{1}")


def pick(driver, capability, **wishes):
    selection = _selector.select(CATALOG, Driver(driver), [Gpu("a GPU", capability, True)], Preference(**wishes))
    chosen = selection.chosen.variant.name if selection.chosen else None
    return chosen, {fit.variant.name: fit.code for fit in selection.others}


def test_features_in_a_choice():
    assert pick("580.95.05", "8.9", features=("fp8",))[0] == "cuda13.2"
    chosen, others = pick("470.256.02", "8.9", features=("fp8",))
    assert chosen is None and others["cuda11.8"] == _plan_codes.FEATURE_MISSING and others["cuda12.6"] == _plan_codes.DRIVER_TOO_OLD
    chosen, others = pick("580.95.05", "8.0", features=("fp8",))
    assert chosen is None and set(others.values()) == {_plan_codes.FEATURE_MISSING}
    # Naming a variant does not give its GPU what it has not.
    chosen, others = pick("580.95.05", "8.0", features=("fp8",), named="cuda12.6")
    assert chosen is None and others["cuda12.6"] == _plan_codes.FEATURE_MISSING


@pytest.mark.parametrize(
    "min_cuda, max_cuda, chosen",
    [
        (None, None, "cuda13.2"),
        (None, "13.1", "cuda13.0"),
        (None, "12.9", "cuda12.6"),
        ("12.7", "12.9", "cuda12.8"),
        ("12.8", "12.8", "cuda12.8"),
        ("13.3", None, None),
        # torch 2.7.1 of cuda11.8 is newer than 2.6.0 of cuda12.4
        (None, "12.4", "cuda11.8"),
        (None, "12.3", "cuda11.8"),
        ("12.0", "12.3", "cuda12.1"),
    ],
)
def test_a_range_of_cuda(min_cuda, max_cuda, chosen):
    name, others = pick("580.95.05", "8.0", min_cuda=min_cuda, max_cuda=max_cuda)
    assert name == chosen
    for variant in CATALOG:
        if variant.cuda and variant.enabled and variant.name != name:
            below = min_cuda is not None and _cuda.number(variant.cuda) < _cuda.number(min_cuda)
            above = max_cuda is not None and _cuda.number(variant.cuda) > _cuda.number(max_cuda)
            assert (others[variant.name] == _plan_codes.OUTSIDE_CUDA_RANGE) is (below or above)


def test_a_variant_by_name_is_not_bound_by_the_range():
    assert pick("580.95.05", "8.0", max_cuda="12.1", named="cuda12.6")[0] == "cuda12.6"


@pytest.mark.parametrize(
    "min_cuda, max_cuda, sentence",
    [
        ("12", None, "min_cuda (dify_image_min_cuda) must be a CUDA version with one dot such as '12.6', in quotes; found '12'."),
        (None, "new", "max_cuda (dify_image_max_cuda) must be a CUDA version with one dot such as '12.6', in quotes; found 'new'."),
        ("13.0", "12.6", "min_cuda (dify_image_min_cuda) is 13.0 and max_cuda (dify_image_max_cuda) is 12.6; no CUDA is in between."),
        ("12.6", "12.6", None),
        (None, None, None),
    ],
)
def test_a_range_that_nobody_can_mean(min_cuda, max_cuda, sentence):
    assert _selector.bad_range(min_cuda, max_cuda) == sentence
    chosen, others = pick("580.95.05", "8.0", min_cuda=min_cuda, max_cuda=max_cuda)
    assert sentence is None or (chosen is None and set(others.values()) == {_plan_codes.OUTSIDE_CUDA_RANGE})
