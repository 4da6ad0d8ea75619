# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables against each other: a figure that is changed in one place only must not pass."""

from __future__ import annotations

import datetime
import os.path
import re

import pytest
import yaml
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _branches,
    _catalog,
    _cuda,
    _features,
    _forward_compat,
    _gpus,
    _plan_codes,
    _require_cuda,
    _selector,
    _toolkit,
    _versions,
    _wheels,
)
from packaging.version import Version

ROOT = os.path.dirname(_catalog.__file__).rsplit(os.sep, 2)[0]
DEFAULTS = _catalog.enabled(_catalog.load([], "difyops/dify-gpu", "0.1.0"))
CUDA_VARIANTS = [variant for variant in DEFAULTS if variant.cuda]


def test_newer_cuda_never_needs_an_older_driver():
    releases = sorted(_cuda.TOOLKIT_DRIVER, key=_cuda.number)
    drivers = [Version(_cuda.TOOLKIT_DRIVER[release]) for release in releases]
    # 11.5 was the exception in branch order only (495 before 510); versions always rise.
    assert drivers == sorted(drivers)
    branches = sorted(_cuda.BRANCH_CUDA)
    assert [_cuda.number(_cuda.BRANCH_CUDA[branch]) for branch in branches] == sorted(map(_cuda.number, _cuda.BRANCH_CUDA.values()))


@pytest.mark.parametrize("release", sorted(_cuda.TOOLKIT_DRIVER, key=_cuda.number))
def test_the_toolkits_own_driver_reports_its_cuda(release):
    assert _cuda.BRANCH_CUDA[_cuda.branch(_cuda.TOOLKIT_DRIVER[release])] == release


@pytest.mark.parametrize("major", sorted(_cuda.MINOR_FLOOR))
def test_the_floor_of_a_major_is_in_the_branch_of_its_first_release(major):
    assert _cuda.branch(_cuda.MINOR_FLOOR[major]) == _cuda.branch(_cuda.TOOLKIT_DRIVER[f"{major}.0"])


def test_a_floor_for_every_major_that_has_a_toolkit():
    assert {_cuda.number(release)[0] for release in _cuda.TOOLKIT_DRIVER} == set(_cuda.MINOR_FLOOR)


def test_no_compiler_list_for_a_cuda_without_a_driver():
    assert set(_cuda.COMPILES_FOR) <= set(_cuda.TOOLKIT_DRIVER)
    assert all(archs == tuple(sorted(archs, key=_cuda.number)) for archs in _cuda.COMPILES_FOR.values())


@pytest.mark.parametrize(
    "branch, cuda", [(470, "11.4"), (515, "11.7"), (520, "11.8"), (535, "12.2"), (565, "12.7"), (580, "13.0"), (615, "13.4")]
)
def test_what_a_branch_reports(branch, cuda):
    assert _cuda.driver_cuda(f"{branch}.10.01") == cuda


@pytest.mark.parametrize(
    "driver, reported, cuda",
    [
        ("535.10", "13.0", "12.2"),
        ("630.10", "13.6", "13.6"),
        ("630.10", None, "13.5"),
        ("630.10", "12.0", "13.5"),
        ("440.10", "10.2", None),
    ],
)
def test_the_table_decides_and_the_driver_itself_only_beyond_it(driver, reported, cuda):
    assert _cuda.driver_cuda(driver, reported) == cuda


@pytest.mark.parametrize("cuda", sorted(_forward_compat.SERVES, key=_cuda.number))
def test_forward_compatibility_only_goes_forward(cuda):
    assert cuda in _cuda.TOOLKIT_DRIVER
    for branch in _forward_compat.SERVES[cuda]:
        assert _cuda.number(_cuda.BRANCH_CUDA[branch]) < _cuda.number(cuda)


@pytest.mark.parametrize("torch", sorted(_wheels.RELEASES, key=Version))
def test_every_wheel_index_is_of_a_known_cuda_and_has_a_code_list(torch):
    for index in _wheels.RELEASES[torch].indexes:
        assert _wheels.cuda_of(index) in _cuda.TOOLKIT_DRIVER
        assert _wheels.code_of(torch, index) is not None or index in ("cu116", "cu117")


@pytest.mark.parametrize("code", _wheels.CODE, ids=lambda code: f"{code.wheels}-{code.first[1]}")
def test_no_wheel_has_code_that_its_cuda_cannot_make(code):
    possible = _cuda.COMPILES_FOR[_wheels.cuda_of(code.wheels)]
    assert set(code.sm) <= set(possible)
    assert code.ptx is None or code.ptx in possible


def test_code_lists_of_one_index_do_not_overlap():
    for code in _wheels.CODE:
        for other in _wheels.CODE:
            assert other is code or other.wheels != code.wheels or other.last < code.first or other.first > code.last


@pytest.mark.parametrize("index", ["cu122", "cu123", "cu125", "cu127", "cu131"])
def test_wheel_indexes_that_never_were(index):
    assert all(index not in release.indexes for release in _wheels.RELEASES.values())


@pytest.mark.parametrize("variant", CUDA_VARIANTS, ids=lambda variant: variant.name)
def test_default_variants_are_what_pytorch_built(variant):
    index = _wheels.index_of(variant.wheel_index)
    release = _wheels.RELEASES[variant.torch]
    code = _wheels.code_of(variant.torch, index)
    assert variant.name == f"cuda{variant.cuda}" and _wheels.cuda_of(index) == variant.cuda
    assert index in release.indexes
    assert (variant.sm, variant.ptx) == (code.sm, code.ptx)
    assert set(_catalog.RECIPE_PYTHONS) <= set(release.pythons)
    assert variant.source == "build" and variant.image == f"difyops/dify-gpu:web-server-{variant.name}-v0.1.0"


def documented_rows(heading):
    """Return the cells of the table below a heading of docs/compatibility.md, without backticks."""
    with open(os.path.join(ROOT, "docs", "compatibility.md"), encoding="utf-8") as handle:
        section = handle.read().split(heading, 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group(0).splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def test_the_documented_variants_are_those_of_the_catalog():
    floors = {None: "-", **{str(major): floor for major, floor in _cuda.MINOR_FLOOR.items()}}
    wanted = [[v.name, v.torch, " ".join(v.sm) or "-", v.ptx or "-", floors[v.cuda.split(".")[0] if v.cuda else None]] for v in DEFAULTS]
    assert documented_rows("## The default variants") == wanted


def test_the_documented_examples_are_true():
    rows = documented_rows("Examples with the default catalog")
    capabilities = {"T4": "7.5", "A10": "8.6", "H100": "9.0", "B200": "10.0", "A100": "8.0", "V100": "7.0"}
    for cards, driver, variant, support in rows[:-1]:
        gpus = [_selector.Gpu(card, capabilities[card]) for card in cards.split(" and ")]
        chosen = _selector.select(DEFAULTS, _selector.Driver(driver), gpus).chosen
        assert (chosen.variant.name, chosen.support) == (variant, support)
    assert len(rows) == 8


def test_the_documented_floors_are_those_of_the_table():
    assert documented_rows("The driver carries it, in this order") == [
        [str(major), floor, _cuda.driver_cuda(floor)] for major, floor in _cuda.MINOR_FLOOR.items()
    ]


def test_the_cpu_variant_is_the_one_the_tests_run():
    cpu = DEFAULTS[0]
    assert (cpu.name, cpu.cuda, cpu.torch, cpu.sm, cpu.ptx) == ("cpu", None, "2.13.0", (), None)
    assert cpu.wheel_index.endswith("/whl/cpu") and set(_catalog.RECIPE_PYTHONS) <= set(_wheels.RELEASES[cpu.torch].pythons)


def test_no_default_variant_uses_an_older_torch_than_its_index_offers():
    planned_only = {("2.15.0", "cu130")}
    for variant in CUDA_VARIANTS:
        index = _wheels.index_of(variant.wheel_index)
        offered = [torch for torch, release in _wheels.RELEASES.items() if index in release.indexes and (torch, index) not in planned_only]
        assert variant.torch == max(offered, key=Version)


def test_every_gpu_of_the_table_is_of_a_known_architecture():
    capabilities = {"kepler": {None}, "maxwell": {"5.0", "5.2"}, "pascal": {"6.0", "6.1"}, "volta": {"7.0"}, "turing": {"7.5"}}
    capabilities |= {"ampere": {"8.0", "8.6"}, "ada": {"8.9"}, "hopper": {"9.0"}, "blackwell": {"10.0", "10.3", "12.0", "12.1"}}
    products = _gpus.table()
    assert len(products) == 585
    for device_id, product in products.items():
        assert re.fullmatch(r"0x[0-9a-f]{4}", device_id) and product.name
        assert product.compute_capability in capabilities[product.architecture]


@pytest.mark.parametrize(
    "product", sorted({(p.compute_capability or "", p.architecture) for p in _gpus.table().values()} - {("", "kepler")})
)
def test_every_gpu_since_maxwell_has_a_variant_on_the_newest_driver_that_it_can_have(product):
    capability, architecture = product
    driver = "580.95.05" if architecture in ("maxwell", "pascal", "volta") else "615.71.09"
    selection = _selector.select(DEFAULTS, _selector.Driver(driver), [_selector.Gpu("GPU", capability)])
    assert selection.chosen is not None


@pytest.mark.parametrize(
    "device_id, name, capability, data_center",
    [
        ("0x1EB8", "Tesla T4", "7.5", True),
        ("0x1BB3", "Tesla P4", "6.1", True),
        ("0x2236", "NVIDIA A10", "8.6", True),
        ("0x20b7", "NVIDIA A30", "8.0", True),
        ("0x2330", "NVIDIA H100 80GB HBM3", "9.0", True),
        ("0x26b9", "NVIDIA L40S", "8.9", True),
        ("0x2941", "NVIDIA GB200", "10.0", True),
        ("0x2342", "NVIDIA GH200 120GB or NVIDIA GH200 480GB", "9.0", True),
        ("0x2e12", "NVIDIA GB10", "12.1", False),
        ("0x20f6", "NVIDIA A800 40GB Active", "8.0", False),
        ("0x2204", "NVIDIA GeForce RTX 3090", "8.6", False),
        ("0x2230", "NVIDIA RTX A6000", "8.6", False),
        ("0x1021", "Tesla K20Xm", None, True),
    ],
)
def test_known_gpus(device_id, name, capability, data_center):
    product = _gpus.product(device_id)
    assert (product.name, product.compute_capability) == (name, capability)
    assert _gpus.is_data_center(product.name) is data_center


@pytest.mark.parametrize("device_id", ["0xffff", "", None, 7])
def test_unknown_gpus(device_id):
    assert _gpus.product(device_id) is None


@pytest.mark.parametrize(
    "branch, day, ended",
    [
        (535, "2026-06-30", None),
        (535, "2026-07-01", "2026-06"),
        (580, "2026-11-22", None),
        (590, "2030-01-01", None),
        (123, "2030-01-01", None),
    ],
)
def test_end_of_life(branch, day, ended):
    assert _branches.ended(branch, datetime.date.fromisoformat(day)) == ended


def test_every_listed_branch_with_an_end_reports_a_cuda():
    assert set(_branches.BRANCHES) <= set(_cuda.BRANCH_CUDA)
    assert all(re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", known.end_of_life) for known in _branches.BRANCHES.values() if known.end_of_life)


@pytest.mark.parametrize(
    "version, unsafe", [("1.17.8", True), ("1.19.0", True), ("1.19.1", False), ("1.20.1-1", False), (None, None), ("?", None)]
)
def test_unsafe_toolkits(version, unsafe):
    assert _toolkit.is_unsafe(version) is unsafe


def test_codes_are_complete():
    names = {value for name, value in vars(_plan_codes).items() if name.isupper() and isinstance(value, str)}
    assert names == set(_plan_codes.CODES)
    assert all(re.fullmatch(r"DG(7[0-9]{2}|8[0-2][0-9]|85[0-9]|9[0-2][0-9])", code) for code in names)


def test_the_collections_version_is_the_default_image_version():
    from ansible_collections.difyops.gpu.plugins.action import gpu_plan

    with open(os.path.join(ROOT, "galaxy.yml"), encoding="utf-8") as handle:
        assert gpu_plan.ARGUMENT_SPEC["image_version"]["default"] == yaml.safe_load(handle)["version"]


@pytest.mark.parametrize(
    "text, expected",
    [("2.26.1-4", "2.26.1"), ("v2.40.3-desktop", "2.40.3"), ("535.247.01", "535.247.1"), ("x", None), (3, None), ("", None)],
)
def test_leading_versions(text, expected):
    assert _versions.parse(text) == (Version(expected) if expected else None)


@pytest.mark.parametrize(
    "index, last",
    [
        ("cu116", "1.13.1"),
        ("cu118", "2.7.1"),
        ("cu121", "2.5.1"),
        ("cu124", "2.6.0"),
        ("cu126", "2.14.1"),
        ("cu128", "2.11.0"),
        ("cu129", "2.8.0"),
        ("cu130", None),
        ("cu132", None),
        ("cu122", None),
        ("cpu", None),
    ],
)
def test_retired_indexes(index, last):
    assert _wheels.last_torch(index) == last
    sentence = _wheels.retired(f"https://download.pytorch.org/whl/{index}")
    assert sentence == _wheels.retired(index)
    assert (sentence is None) is (last is None) and (last is None or f"PyTorch {last} is the last one with wheels for {index}" in sentence)
    assert _wheels.retired("https://wheels.example.org/simple") is None and _wheels.retired(None) is None


def test_retired_indexes_agree_with_the_code_lists():
    # A code list that goes up to the newest release belongs to an index that is still served.
    newest = _cuda.number(_wheels.newest_torch())
    for code in _wheels.CODE:
        last = _wheels.last_torch(code.wheels)
        assert code.last <= (_cuda.number(last) if last else newest)
    for index in {code.wheels for code in _wheels.CODE}:
        last = _wheels.last_torch(index)
        assert max(code.last for code in _wheels.CODE if code.wheels == index) == (_cuda.number(last) if last else newest)


def test_a_wheel_whose_cuda_the_newest_driver_of_a_gpu_carries_exists_for_every_supported_gpu():
    # 580 is CUDA 13.0 and drives Maxwell to Blackwell: cu126 for the old ones, whose compiler still knows them, cu130 for the others.
    assert set(_cuda.COMPILES_FOR["12.6"]) >= {"5.0", "5.2", "6.0", "6.1", "7.0"}
    assert not set(_cuda.COMPILES_FOR["13.0"]) & {"5.0", "5.2", "6.0", "6.1", "7.0"}


def test_compilers_only_lose_architectures_at_a_new_major():
    releases = sorted(_cuda.COMPILES_FOR, key=_cuda.number)
    for before, after in zip(releases, releases[1:]):
        if _cuda.number(before)[0] == _cuda.number(after)[0]:
            assert set(_cuda.COMPILES_FOR[before]) <= set(_cuda.COMPILES_FOR[after])


def test_every_gpu_has_a_compiler_while_a_branch_drives_it():
    for device_id, product in _gpus.table().items():
        if product.compute_capability is None:
            continue
        made = [release for release, archs in _cuda.COMPILES_FOR.items() if _covers(archs, product.compute_capability)]
        assert made, device_id
        if product.last_branch is None:
            # It is still driven, so the newest toolkit still compiles for it.
            assert max(_cuda.COMPILES_FOR, key=_cuda.number) in made
        else:
            # The last branch that drives it carries a toolkit that compiles for it.
            assert any(_cuda.number(release)[0] <= _cuda.number(_cuda.BRANCH_CUDA[product.last_branch])[0] for release in made)


def _covers(archs, capability):
    return any(_cuda.number(arch)[0] == _cuda.number(capability)[0] and _cuda.number(arch) <= _cuda.number(capability) for arch in archs)


def test_forward_compatibility_starts_from_listed_branches_and_skips_new_feature_branches_that_are_over():
    for cuda, branches in _forward_compat.SERVES.items():
        assert set(branches) <= set(_branches.BRANCHES)
        assert list(branches) == sorted(branches)
        # 550 to 575 and 525 are past their end and not listed, although notes inside the libraries name some of them.
        assert not set(branches) & {525, 550, 560, 565, 575}, cuda


def test_branches_that_are_supported_drive_a_cuda_major_with_a_floor():
    for branch in _branches.supported(datetime.date(2026, 11, 22)):
        assert _cuda.number(_cuda.BRANCH_CUDA[branch])[0] in _cuda.MINOR_FLOOR


def test_every_sampled_branch_is_in_the_table_of_branches_and_cuda():
    assert set(_gpus.SAMPLED) <= set(_cuda.BRANCH_CUDA)
    assert list(_gpus.SAMPLED) == sorted(_gpus.SAMPLED)


@pytest.mark.parametrize(
    "version, ids",
    [
        ("1.16.1", 8),
        ("1.16.2", 6),
        ("1.17.0", 5),
        ("1.17.3", 4),
        ("1.17.4", 3),
        ("1.17.7-1", 3),
        ("1.17.8", 1),
        ("1.19.0", 1),
        ("1.19.1", 0),
        ("1.20.1-1", 0),
        (None, 0),
        ("?", 0),
    ],
)
def test_published_weaknesses(version, ids):
    found = _toolkit.cves(version)
    assert len(found) == ids and bool(found) is bool(_toolkit.is_unsafe(version))
    assert list(found) == sorted(found, key=lambda cve: Version(cve.fixed), reverse=True)


def test_weaknesses_are_in_order_and_the_last_one_sets_the_first_safe_version():
    fixed = [Version(cve.fixed) for cve in _toolkit.CVES]
    assert fixed == sorted(fixed) and _toolkit.FIRST_SAFE == "1.19.1" and _toolkit.FIRST_SAFE_CVE == "CVE-2026-24260"
    assert all(re.fullmatch(r"CVE-20[0-9]{2}-[0-9]{4,}", name) for cve in _toolkit.CVES for name in cve.ids)
    assert _toolkit.FIRST_SAFE in _toolkit.VERSIONS
    assert list(_toolkit.VERSIONS) == sorted(_toolkit.VERSIONS, key=Version)
    # The one escape that CDI mode had too, and for a while alone.
    assert [cve.ids for cve in _toolkit.CVES if cve.cdi] == [("CVE-2025-23266",)]


@pytest.mark.parametrize(
    "docker, part",
    [
        ("20.10.24", "has no CDI; Docker 25.0.0 is the first"),
        ("24.0.9", "has no CDI"),
        ("25.0.3", "reads no specification of schema 0.7.0"),
        ("26.0.2", "Docker 26.1.0 is the first that does"),
        ("26.1.5+dfsg1", "once features.cdi is set; from 28.2.0 on"),
        ("28.1.1", "once features.cdi is set"),
        ("28.2.0", None),
        ("29.2.0", None),
        (None, None),
    ],
)
def test_what_docker_needs_for_cdi(docker, part):
    found = _toolkit.cdi_floor(docker)
    assert (found is None) if part is None else (part in found)


def test_the_documented_retired_indexes_are_those_of_the_table():
    of_index = {_wheels.index_of(variant.wheel_index): variant.name for variant in CUDA_VARIANTS}
    indexes = sorted({index for release in _wheels.RELEASES.values() for index in release.indexes} - {"cu116", "cu117"})
    retired = [[index, _wheels.last_torch(index), of_index.get(index, "-")] for index in indexes if _wheels.last_torch(index)]
    assert documented_rows("Images that get no newer PyTorch") == retired


def test_the_documented_features_are_those_of_the_table():
    assert documented_rows("## Features") == [[name, *need] for name, feature in _features.FEATURES.items() for need in feature.needs]


def test_the_documented_kernel_modules_are_those_of_the_table():
    rows = documented_rows("## Drivers and GPUs")
    listed = {architecture.lower(): (flavour, last) for architecture, _capability, flavour, last in rows}
    known = {product.architecture for product in _gpus.table().values()}
    assert listed == {name: (rule.flavour, str(rule.last_branch or "-")) for name, rule in _gpus.ARCHITECTURES.items() if name in known}


def test_the_documented_branches_are_those_of_the_table():
    for branch, kind, end in documented_rows("A driver that is there stays, unless a branch or"):
        assert _branches.BRANCHES[int(branch)] == (kind, None if end == "-" else end)


def test_the_documented_forward_compatibility_is_that_of_the_table():
    documented = {}
    for releases, branches in documented_rows("## Forward compatibility"):
        served = tuple(int(branch) for branch in branches.split() if branch != "-")
        for part in releases.split(", "):
            first, _to, last = part.partition(" to ")
            numbers = [_cuda.number(release) for release in (first, last or first)]
            documented |= {cuda: served for cuda in _forward_compat.SERVES if numbers[0] <= _cuda.number(cuda) <= numbers[1]}
    assert documented == _forward_compat.SERVES


def test_the_documented_requirements_are_judged_as_documented():
    rows = documented_rows("With the texts of NVIDIA's own base images")
    cards = {"A10": "NVIDIA A10", "A100": "NVIDIA A100", "T4": "Tesla T4", "B200": "NVIDIA B200", "V100": "Tesla V100"}
    for image, driver, card, says, _fact in rows:
        brand = _require_cuda.brand(cards.get(card, card))
        result = _require_cuda.check(_require_cuda.base_image(image), _cuda.driver_cuda(driver), driver, None, brand)
        assert result.satisfied is (says == "passed"), (image, driver, card)
    assert {row[3] for row in rows} == {"refused", "passed"} and len(rows) == 9


def test_the_documented_weaknesses_are_those_of_the_table():
    documented = [
        [fixed, re.findall(r"CVE-[0-9-]+[0-9]", names)] for fixed, names, _cdi in documented_rows("The container toolkit and the engine")
    ]
    wanted = {}
    for cve in _toolkit.CVES:
        wanted.setdefault(cve.fixed, []).extend(cve.ids)
    assert documented == [[fixed, ids] for fixed, ids in wanted.items()]


def test_every_table_is_documented_with_its_module():
    modules = [row[1] for row in documented_rows("## The tables, and how to update them")]
    folder = os.path.dirname(_catalog.__file__)
    assert all(os.path.exists(os.path.join(folder, name)) for name in modules) and len(modules) == len(set(modules)) == 10
    for name in modules:
        with open(os.path.join(folder, name), encoding="utf-8") as handle:
            assert name == "_driver_choice.py" or "To update" in handle.read()
