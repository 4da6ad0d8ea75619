# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA_REQUIRE_CUDA: what it means to libnvidia-container, what NVIDIA's images ask for, and where nobody asks."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _cuda, _gpus, _require_cuda, _selector
from hypothesis import given
from hypothesis import strategies as st


def says(requirement, cuda="12.2", driver="535.247.01", arch="8.6", brand="nvidia"):
    return _require_cuda.check(requirement, cuda, driver, arch, brand).satisfied


@pytest.mark.parametrize(
    "requirement, satisfied",
    [
        ("", True),
        ("cuda>=12.2", True),
        ("cuda>=12.4", False),
        ("cuda>12.2", False),
        ("cuda<=12.2", True),
        ("cuda=12.2", True),
        ("cuda!=12.2", False),
        ("cuda<13", True),
        # a comma is and, a space is or
        ("cuda>=12.4 driver>=535", True),
        ("cuda>=12.0,driver>=550", False),
        ("cuda>=12.4 driver>=535,driver<536", True),
        ("cuda>=12.4 brand=tesla,driver>=535,driver<536", False),
        ("cuda>=12.4 brand=NVIDIA,driver>=535,driver<536", True),
        ("  cuda>=12.2   ", True),
        (",", True),
        ("cuda>=12.0,,driver>=535", True),
        # numbers, not texts; missing places are zeros
        ("driver>=535.54.03", True),
        ("driver>=535.247.1", True),
        ("driver>=535.1000", False),
        ("cuda=12.2.0", True),
        ("cuda>12.2.0.0", False),
        ("CUDA>=12.2", True),
        ("arch>=8.0,arch<9", True),
        ("arch>=8.9", False),
        ("brand!=geforce", True),
        ("brand!nvidia", False),
    ],
)
def test_the_meaning(requirement, satisfied):
    assert says(requirement) is satisfied


@pytest.mark.parametrize(
    "requirement, sentence",
    [
        ("12.2", "needs conditions such as cuda>=12.4"),
        (">=12.2", "needs conditions such as cuda>=12.4"),
        ("cuda>=", "needs conditions such as cuda>=12.4"),
        ("cuda==12.2", "knows the comparisons"),
        ("cuda=>12.2", "knows the comparisons"),
        ("toolkit>=1", "knows cuda, driver, arch and brand; found 'toolkit'"),
        ("cuda>=twelve", "is compared with a version such as 12.4; found 'twelve'"),
        ("driver>=535-server", "is compared with a version"),
        ("brand>=tesla", "by = or != only"),
        ("cuda>=11.0 broken", "found 'broken'"),
    ],
)
def test_a_text_that_is_none(requirement, sentence):
    with pytest.raises(_require_cuda.RequirementError) as caught:
        says(requirement)
    assert sentence in str(caught.value) and str(caught.value).endswith(".")


def test_which_clause_decided():
    text = _require_cuda.base_image("12.4")
    by_cuda = _require_cuda.check(text, "12.4", "550.54.14", "8.6", "nvidia")
    assert (by_cuda.satisfied, by_cuda.clause) == (True, "cuda>=12.4")
    by_branch = _require_cuda.check(text, "12.2", "535.247.01", "8.6", "nvidia")
    assert (by_branch.satisfied, by_branch.clause) == (True, "brand=nvidia,driver>=535,driver<536")
    # The message of the tool names the first alternative only.
    refused = _require_cuda.check(text, "11.7", "515.105.01", "8.6", "nvidia")
    assert (refused.satisfied, refused.clause) == (False, "cuda>=12.4")
    assert (
        refused.reason
        == "cuda>=12.4 does not hold, nor does any of its 30 other alternatives (cuda 11.7, driver 515.105.01, arch 8.6, brand nvidia)"
    )


def test_what_is_not_known_stays_unknown():
    assert says("cuda>=12.4 brand=tesla", brand=None) is None
    assert says("cuda>=12.2 brand=tesla", brand=None) is True
    assert says("cuda>=12.4,brand=tesla", brand=None) is False
    assert "because brand is not known" in _require_cuda.check("brand=tesla", "12.2").reason
    assert says("driver>=535", driver="?") is None


def test_all_gpus_of_a_container_must_be_accepted():
    text = _require_cuda.base_image("12.6")
    mixed = [("8.6", "nvidia"), ("8.6", "geforce")]
    assert _require_cuda.check_host(text, "12.2", "535.247.01", mixed[:1]).satisfied is True
    assert _require_cuda.check_host(text, "12.2", "535.247.01", mixed).satisfied is False
    assert _require_cuda.check_host(text, "12.2", "535.247.01", [("8.6", None)]).satisfied is None
    assert _require_cuda.check_host("cuda>=12.0", "12.2", "535.247.01", []).satisfied is True


def test_the_base_images():
    assert _require_cuda.base_image("11.4") == "cuda>=11.4"
    assert _require_cuda.base_image("11.8").split(" ")[:2] == ["cuda>=11.8", "brand=tesla,driver>=470,driver<471"]
    assert len(_require_cuda.base_image("12.2").split(" ")) == 1 + 2 * 10
    assert len(_require_cuda.base_image("13.0").split(" ")) == 1 + 5 * 12
    assert "geforce" in _require_cuda.brands_of("12.4") and "geforce" not in _require_cuda.brands_of("12.5")
    assert _require_cuda.base_image("12.7") is None


@pytest.mark.parametrize("cuda", sorted(_require_cuda.BASE_IMAGES, key=_cuda.number))
def test_base_images_are_of_known_releases_and_name_older_branches(cuda):
    assert cuda in _cuda.TOOLKIT_DRIVER
    assert _require_cuda.parse(_require_cuda.base_image(cuda))
    for branch in _require_cuda.BASE_IMAGES[cuda]:
        assert _cuda.number(_cuda.BRANCH_CUDA[branch]) < _cuda.number(cuda)
    assert list(_require_cuda.BASE_IMAGES[cuda]) == sorted(_require_cuda.BASE_IMAGES[cuda])


# Where the requirement and the truth part. (CUDA of the image, driver, GPU, compute capability, data center) -> what it says, what is true.
DISAGREE = [
    # Refused although it works: minor-version compatibility of a branch that the image does not name.
    ("12.6", "525.147.05", "NVIDIA A10", "8.6", False, "minor"),
    ("12.6", "545.29.06", "NVIDIA A100-SXM4-80GB", "8.0", False, "minor"),
    ("12.8", "555.58.02", "NVIDIA H100 PCIe", "9.0", False, "minor"),
    # Refused although it works: GeForce is not among the brands since 12.5.
    ("12.6", "535.247.01", "NVIDIA GeForce RTX 3090", "8.6", False, "minor"),
    ("12.8", "550.163.01", "NVIDIA GeForce RTX 4090", "8.9", False, "minor"),
    ("11.8", "460.106.00", "Tesla T4", "7.5", False, "minor"),
    # Passed although it is broken: 470 is below the floor of every CUDA 12, and no cuda-compat package serves it any more.
    ("12.1", "470.256.02", "Tesla T4", "7.5", True, None),
    ("12.8", "470.256.02", "NVIDIA A100-SXM4-80GB", "8.0", True, None),
    ("12.2", "470.182.03", "NVIDIA GeForce RTX 3090", "8.6", True, None),
    # Passed although it is broken: 535, 550 and 570 run CUDA 13 by forward compatibility at most, and 550 not even so.
    ("13.0", "550.163.01", "NVIDIA A10", "8.6", True, None),
    ("13.0", "570.211.01", "NVIDIA RTX A6000", "8.6", True, None),
    # Passed although it is broken: the version is right, and there is no code for the GPU.
    ("12.6", "570.211.01", "NVIDIA B200", "10.0", True, None),
    ("13.0", "580.178.04", "Tesla V100-SXM2-16GB", "7.0", True, None),
]


@pytest.mark.parametrize("cuda, driver, product, capability, says_yes, support", DISAGREE)
def test_it_refuses_what_works_and_passes_what_does_not(cuda, driver, product, capability, says_yes, support):
    brand = _require_cuda.brand(product)
    said = _require_cuda.check(_require_cuda.base_image(cuda), _cuda.driver_cuda(driver), driver, capability, brand)
    image = {"name": "x", "image": "site/x:1", "torch": "2.14.1", "cuda": cuda, "sm": ["7.5", "8.0", "8.6", "9.0"]}
    variant = _catalog.load([image], "difyops/dify-gpu", "0.1.0", with_defaults=False)[0]
    gpu = _selector.Gpu(product, capability, _gpus.is_data_center(product))
    true = _selector.judge(variant, _selector.Driver(driver), (gpu,), False).support
    assert (said.satisfied, true) == (says_yes, support)


@pytest.mark.parametrize(
    "toolkit, mode, engine, how, expected",
    [
        ("1.19.1", None, "26.1.5", "cdi", False),
        ("1.17.8", "legacy", "26.1.5", "cdi", False),
        ("1.19.1", None, "26.1.5", "request", True),
        ("1.19.1", None, "29.1.0", "request", True),
        ("1.19.1", None, "29.2.0", "request", False),
        ("1.19.1", None, None, "request", None),
        ("1.17.8", None, "26.1.5", "runtime", True),
        ("1.17.8", "auto", "26.1.5", "runtime", True),
        ("1.18.0", "auto", "26.1.5", "runtime", False),
        ("1.19.1", "legacy", "26.1.5", "runtime", True),
        ("1.19.1", "csv", "26.1.5", "runtime", True),
        ("1.19.1", "jit-cdi", "26.1.5", "runtime", False),
        ("1.17.8", "cdi", "26.1.5", "runtime", False),
        (None, None, "26.1.5", "runtime", None),
        ("1.17.8", "legacy", "26.1.5", "device", False),
        ("1.17.8", "legacy", "26.1.5", "privileged", False),
        ("1.17.8", "legacy", "26.1.5", "magic", None),
    ],
)
def test_who_asks_at_all(toolkit, mode, engine, how, expected):
    outcome, reason = _require_cuda.enforced(toolkit, mode, engine, how)
    assert outcome is expected and reason


@pytest.mark.parametrize(
    "product, brand",
    [
        ("Tesla T4", "nvidia"),
        ("NVIDIA A10", "nvidia"),
        ("NVIDIA A100-SXM4-80GB", "nvidia"),
        ("NVIDIA H100 80GB HBM3", "nvidia"),
        ("NVIDIA GH200 480GB", "nvidia"),
        ("NVIDIA L40S", "nvidia"),
        ("NVIDIA GeForce RTX 3090", "geforce"),
        ("GeForce GTX 1080", "geforce"),
        ("NVIDIA TITAN RTX", "titan"),
        ("Quadro RTX 6000", "quadrortx"),
        ("Quadro P4000", "quadro"),
        ("NVIDIA RTX A6000", "nvidiartx"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "nvidiartx"),
        ("NVIDIA RTX 6000 Ada Generation", "nvidiartx"),
        ("NVIDIA T1000", "nvidiartx"),
        ("GRID K1", "grid"),
        ("something new", None),
        (None, None),
    ],
)
def test_brands(product, brand):
    assert _require_cuda.brand(product) == brand


def test_most_products_of_the_table_have_a_brand():
    without = sorted({product.name for product in _gpus.table().values() if _require_cuda.brand(product.name) is None})
    assert len(without) < 30, without


VERSIONS = st.lists(st.integers(0, 700), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
CONDITIONS = st.builds(
    lambda name, operator, value: f"{name}{operator}{value}",
    st.sampled_from(["cuda", "driver", "arch"]),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    VERSIONS,
) | st.sampled_from(["brand=tesla", "brand!=geforce"])


@given(st.text(max_size=60) | st.lists(CONDITIONS, max_size=4).map(" ".join), VERSIONS | st.none() | st.text(max_size=6), VERSIONS)
def test_any_text_is_answered_or_refused_in_one_sentence(requirement, cuda, driver):
    try:
        result = _require_cuda.check(requirement, cuda, driver, "8.6", "tesla")
    except _require_cuda.RequirementError as exc:
        assert str(exc).endswith(".") and "\n" not in str(exc)
    else:
        assert result.satisfied in (True, False, None) and result.reason


@given(CONDITIONS, CONDITIONS, VERSIONS, VERSIONS)
def test_space_is_or_and_comma_is_and(one, other, cuda, driver):
    both = [says(condition, cuda, driver) for condition in (one, other)]
    assert says(f"{one} {other}", cuda, driver) is any(both)
    assert says(f"{one},{other}", cuda, driver) is all(both)
