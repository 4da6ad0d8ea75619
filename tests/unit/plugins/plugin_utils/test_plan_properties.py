# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of the selector, against the rule written a second time, from the raw tables and by other means.

The second rule knows no function of the selector: versions are compared as padded tuples, code by sets of targets, and every reason of a
rejection is checked for the claim that its code makes.
"""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _catalog,
    _cuda,
    _features,
    _forward_compat,
    _gpus,
    _plan_codes,
    _planner,
    _selector,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import CHOICES, Settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._selector import Driver, Gpu, Preference
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils import plan_documents as documents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Besides the default variants (enabled or not), images that show the rules which those do not.
SITE = [
    {"name": "ptx", "image": "s/x:1", "torch": "2.6.0", "cuda": "12.4", "ptx": "8.0"},
    {"name": "fat", "image": "s/x:2", "torch": "2.8.0", "cuda": "12.9", "sm": ["7.0", "9.0a", "10.0f", "12.0"], "ptx": "12.0"},
    {"name": "compat", "image": "s/x:3", "torch": "2.9.1", "cuda": "13.0", "sm": ["8.0", "9.0"], "features": ["cuda_compat", "flash"]},
    {"name": "compat134", "image": "s/x:4", "torch": "2.9.0", "cuda": "13.4", "sm": ["7.5"], "ptx": "9.0f", "features": ["cuda_compat"]},
    {"name": "strict", "image": "s/x:5", "torch": "2.3.1", "cuda": "12.2", "sm": ["8.6"], "min_driver": "550.54.14"},
    {"name": "jetson", "image": "s/x:6", "torch": "2.3.1", "cuda": "12.2", "sm": ["8.7"]},
    {"name": "jetson132", "image": "s/x:7", "torch": "2.15.0", "cuda": "13.2", "sm": ["8.7", "7.5"]},
    {"name": "future", "image": "s/x:8", "torch": "9.0.0", "cuda": "13.9", "sm": ["8.0"]},
    {"name": "difyai-cuda12.2", "enabled": True},
]
CATALOG = _catalog.load(SITE, "difyops/dify-gpu", "0.1.0")
USABLE = [variant for variant in CATALOG if variant.cuda and variant.enabled]


def places(version):
    """Return a version as numbers that compare, padded with zeros."""
    numbers = [int(part) for part in version.split(".")]
    return tuple(numbers + [0] * (6 - len(numbers)))


def cuda_of(driver):
    listed = [(branch, cuda) for branch, cuda in _cuda.BRANCH_CUDA.items() if branch <= int(driver.version.split(".")[0])]
    if not listed:
        return None
    cuda = max(listed)[1]
    beyond = int(driver.version.split(".")[0]) > max(_cuda.BRANCH_CUDA)
    if beyond and driver.reported_cuda and places(driver.reported_cuda) > places(cuda):
        return driver.reported_cuda
    return cuda


def support(variant, driver, gpus, forward):
    """How the driver carries the CUDA of a variant: full, minor, forward or None."""
    major = int(variant.cuda.split(".")[0])
    own = cuda_of(driver)
    own_driver = _cuda.TOOLKIT_DRIVER.get(variant.cuda)
    if own_driver is not None and places(driver.version) >= places(own_driver):
        return "full"
    if own is not None and int(own.split(".")[0]) > major:
        return "full"
    if own_driver is None and own is not None and places(own) >= places(variant.cuda):
        return "full"
    if places(driver.version) >= places(_cuda.MINOR_FLOOR[major]):
        return "minor"
    served = int(driver.version.split(".")[0]) in _forward_compat.SERVES.get(variant.cuda, ())
    if served and forward and "cuda_compat" in variant.features and all(gpu.data_center for gpu in gpus):
        return "forward"
    return None


ALL_CAPABILITIES = sorted({arch for archs in _cuda.COMPILES_FOR.values() for arch in archs} | {"3.0"}, key=places)


def gpus_of_code(target, cuda):
    """Return the set of compute capabilities that machine code for a target runs on."""
    base = target.rstrip("af")
    major = base.split(".")[0]
    same = {capability for capability in ALL_CAPABILITIES if capability.split(".")[0] == major and places(capability) >= places(base)}
    if target.endswith("a"):
        return {base}
    if places(cuda) < places("13.2"):
        jetson = {"5.3", "6.2", "7.2", "8.7"}
        same = {base} if base in jetson else same - jetson
    return same


def gpus_of_ptx(target):
    """Return the set of compute capabilities that PTX for a target can be compiled for."""
    base = target.rstrip("af")
    if target.endswith("a"):
        return {base}
    later = {capability for capability in ALL_CAPABILITIES if places(capability) >= places(base)}
    return {capability for capability in later if capability.split(".")[0] == base.split(".")[0]} if target.endswith("f") else later


def code_for(variant, driver, way):
    """Return the set of compute capabilities that the image serves when the driver carries it in this way."""
    served = set().union(*(gpus_of_code(target, variant.cuda) for target in variant.sm)) if variant.sm else set()
    compiler = variant.cuda if way == "forward" else cuda_of(driver)
    if variant.ptx and compiler and places(variant.cuda) <= places(compiler):
        served |= gpus_of_ptx(variant.ptx)
    return served


def fits(variant, driver, gpus, forward):
    """The whole rule: the way in which a variant runs, or None."""
    if variant.min_driver and places(driver.version) < places(variant.min_driver):
        return None
    way = support(variant, driver, gpus, forward)
    if way is None:
        return None
    return way if all(gpu.compute_capability in code_for(variant, driver, way) for gpu in gpus) else None


def has_features(variant, gpus, features):
    """Whether every GPU and the image have all features, from the raw table."""
    for name in features:
        row = _features.FEATURES.get(name)
        if (row is None or row.declared) and name not in variant.features:
            return False
        for gpu in gpus if row else ():
            for need in reversed(row.needs):
                if places(gpu.compute_capability) >= places(need.capability):
                    break
            else:
                return False
            old = places(variant.cuda) < places(need.cuda) or places(variant.torch) < places(need.torch)
            if old and name not in variant.features:
                return False
    return True


def in_range(variant, wishes):
    low, high = wishes.min_cuda or "0.0", wishes.max_cuda or "99.0"
    return variant.name == wishes.named or places(low) <= places(variant.cuda) <= places(high)


EDGES = sorted({*_cuda.TOOLKIT_DRIVER.values(), *_cuda.MINOR_FLOOR.values(), "535.247.01", "550.163.01", "570.211.01"} - {"615", "620"})
BELOW = [f"{head}.{int(tail) - 1:0{len(tail)}d}" for head, _dot, tail in (edge.rpartition(".") for edge in EDGES) if int(tail) > 0]
VERSIONS = st.sampled_from(EDGES + BELOW) | st.builds(
    lambda branch, rest: f"{branch}.{rest:02d}.01", st.integers(430, 640), st.integers(0, 250)
)
DRIVERS = st.builds(Driver, VERSIONS, st.none() | st.sampled_from(["11.4", "12.2", "13.0", "13.6", "14.0"]))
CARDS = st.builds(Gpu, st.sampled_from(["one", "two"]), st.sampled_from(ALL_CAPABILITIES), st.booleans())
HOSTS = st.lists(CARDS, min_size=1, max_size=4)
RANGES = st.sampled_from([(None, None), ("12.0", None), (None, "12.9"), ("12.4", "13.0"), ("13.0", None), ("12.1", "12.2")])
WISHES = st.builds(
    lambda prefer, forward, named, span, features: Preference(prefer, forward, named, *span, features=tuple(features)),
    st.sampled_from(_selector.PREFERENCES),
    st.booleans(),
    st.none() | st.sampled_from([variant.name for variant in CATALOG]),
    RANGES,
    st.lists(st.sampled_from([*_features.FEATURES, "flash", "nothing"]), max_size=2, unique=True),
)


@settings(max_examples=300)
@given(DRIVERS, HOSTS, WISHES)
def test_the_choice_satisfies_the_rule_and_every_rejection_is_true(driver, gpus, wishes):
    selection = _selector.select(CATALOG, driver, gpus, wishes)
    chosen = selection.chosen
    judged = [*selection.others, *([chosen] if chosen else [])]
    assert sorted(fit.variant.name for fit in judged) == sorted(variant.name for variant in USABLE)
    if chosen is not None:
        assert chosen.support == fits(chosen.variant, driver, gpus, wishes.forward_compat) and chosen.code is None
        assert wishes.named in (None, chosen.variant.name)
        assert in_range(chosen.variant, wishes) and has_features(chosen.variant, gpus, wishes.features)
    possible = [
        v for v in USABLE if fits(v, driver, gpus, wishes.forward_compat) and in_range(v, wishes) and has_features(v, gpus, wishes.features)
    ]
    nameable = [variant for variant in possible if wishes.named in (None, variant.name)]
    assert (chosen is None) is (not nameable)
    for fit in selection.others:
        assert fit.support is None and fit.reason and "\n" not in fit.reason
        assert CLAIMS[fit.code](fit.variant, driver, gpus, wishes, chosen), (fit.code, fit.reason)


def _too_old(variant, driver, gpus, wishes, chosen):
    floor = _cuda.MINOR_FLOOR[int(variant.cuda.split(".")[0])]
    return support(variant, driver, gpus, wishes.forward_compat) is None and places(driver.version) < places(floor)


def _forward_only(variant, driver, gpus, wishes, chosen):
    someone_else = [Gpu("dc", gpu.compute_capability, True) for gpu in gpus]
    return support(variant, driver, gpus, wishes.forward_compat) is None and support(variant, driver, someone_else, True) == "forward"


def _no_code(variant, driver, gpus, wishes, chosen):
    way = support(variant, driver, gpus, wishes.forward_compat)
    return way is not None and not all(gpu.compute_capability in code_for(variant, driver, way) for gpu in gpus)


def _below_minimum(variant, driver, gpus, wishes, chosen):
    return variant.min_driver is not None and places(driver.version) < places(variant.min_driver)


def _fits_but_another(variant, driver, gpus, wishes, chosen):
    if fits(variant, driver, gpus, wishes.forward_compat) is None:
        return False
    if wishes.named is not None:
        return wishes.named != variant.name
    return chosen is not None and preferred(chosen, driver, gpus, wishes) >= preferred(
        _selector.Fit(variant, fits(variant, driver, gpus, wishes.forward_compat), None, ""), driver, gpus, wishes
    )


def preferred(fit, driver, gpus, wishes):
    """The order of DESIGN: officially supported ones first; then newest torch and CUDA, or the better support and then the newest CUDA."""
    torch, cuda = places(fit.variant.torch), places(fit.variant.cuda)
    if wishes.prefer == "newest":
        return (fit.support in ("full", "minor"), torch, cuda)
    return (["forward", "minor", "full"].index(fit.support), cuda, torch)


CLAIMS = {
    _plan_codes.DRIVER_TOO_OLD: _too_old,
    _plan_codes.FORWARD_COMPAT_ONLY: _forward_only,
    _plan_codes.NO_CODE_FOR_GPU: _no_code,
    _plan_codes.BELOW_MIN_DRIVER: _below_minimum,
    _plan_codes.NOT_PREFERRED: _fits_but_another,
    _plan_codes.OUTSIDE_CUDA_RANGE: lambda variant, driver, gpus, wishes, chosen: not in_range(variant, wishes),
    _plan_codes.FEATURE_MISSING: lambda variant, driver, gpus, wishes, chosen: not has_features(variant, gpus, wishes.features),
}


# --- a driver that is planned for drives the GPUs ---

# Rows of every kind: each combination of flavour, first and last branch, and the boards of data centers.
_ROWS = {(row.flavour, row.first_branch, row.last_branch): device for device, row in _gpus.table().items()}
_NAMED = ["0x2236", "0x20b0", "0x2330", "0x1bb3", "0x1eb8", "0x1db4", "0x2901", "0x102d"]
DEVICES = st.sampled_from(_NAMED) | st.sampled_from(sorted(_ROWS.values()))
FLAVOURS = st.sampled_from(["open", "proprietary"])


def drives(device, version, flavour):
    """Whether a driver with modules of this flavour (None: not known) drives a GPU, from the rows themselves."""
    row, branch = _gpus.table()[device], int(version.split(".")[0])
    if row.last_branch is not None and branch > row.last_branch:
        return False
    if row.first_branch is not None and branch <= max((sampled for sampled in _gpus.SAMPLED if sampled < row.first_branch), default=0):
        return False
    if flavour is None:
        kinds = {"open"} if branch >= 620 else {"proprietary"} if branch < 515 else {"open", "proprietary"}
        return row.flavour == "either" or row.flavour in kinds
    return row.flavour in ("either", flavour)


@st.composite
def drivers_that_can_be(draw):
    version = draw(st.sampled_from(["470.256.02", "535.247.01", "550.163.01", "580.95.05", "595.45.04", "615.71.09", "620.10.01"]))
    branch = int(version.split(".")[0])
    return {"version": version, "flavour": "open" if branch >= 620 else "proprietary" if branch < 515 else draw(FLAVOURS)}


@st.composite
def hosts_as_they_can_be(draw):
    """A host with GPUs of which the loaded driver has those that it can drive; another driver may be installed, with or without modules."""
    loaded = draw(st.none() | drivers_that_can_be())
    installed = draw(st.none() | drivers_that_can_be() | st.just(loaded))
    boards = draw(st.lists(DEVICES, min_size=1, max_size=3))
    cards = []
    for number, device in enumerate(boards):
        has = loaded is not None and drives(device, loaded["version"], loaded["flavour"])
        state = {"bound_driver": "nvidia", "index": number, "uuid": f"GPU-{number:08d}"} if has else {"bound_driver": None, "index": None}
        cards.append(documents.gpu((device, _gpus.table()[device].compute_capability), number + 1, **state))
    facts = documents.nvidia(loaded and loaded["version"], cards)
    known = draw(st.booleans())
    module = {**installed, "signer": None} if installed else None
    kernels = {"running": "6.1", "next": draw(st.none() | st.sampled_from(["6.1", "6.2"]))}
    modules = draw(st.sampled_from([{}, {"6.1": module}, {"6.1": None}, {"6.1": module, "6.2": None}, {"6.1": None, "6.2": module}]))
    facts["host"]["kernel"] = kernels
    facts["driver"].update(
        loaded=loaded,
        installed=installed and {**installed, "flavour": installed["flavour"] if known else None},
        mismatch=draw(st.booleans()) if loaded else None,
        modules=modules,
        next_kernel_has_module=modules.get(kernels["next"]) is not None if kernels["next"] else None,
    )
    return facts


WANTED_DRIVERS = st.builds(
    Settings,
    policy=st.sampled_from(CHOICES["policy"]),
    branch=st.none() | st.sampled_from([470, 535, 580, 595, 620]),
    reboot=st.just("if_needed"),
    busy=st.just("wait"),
) | st.builds(
    Settings,
    policy=st.sampled_from(CHOICES["policy"]),
    version=st.sampled_from(["535.247.01", "580.95.05", "620.10.01"]),
    reboot=st.just("if_needed"),
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hosts_as_they_can_be(),
    WANTED_DRIVERS,
    st.sampled_from([frozenset(_planner.PARTS), frozenset({"driver", "toolkit"}), frozenset({"image", "service"})]),
    st.sampled_from(_planner.CPU_FALLBACKS),
)
def test_the_driver_of_a_plan_drives_every_gpu_that_is_used(facts, wish, apply, fallback):
    made = documents.plan(facts, {}, driver=wish, apply=apply, cpu_fallback=fallback)
    part, driver = made["parts"]["driver"], facts["driver"]
    if made["blocked"] or made["mode"] != "gpu":
        return
    assert made["image"] is not None and part["action"] in ("none", "configure", "install", "upgrade")
    version, flavour = part["to"], part["flavour"]
    if part["action"] == "none":
        assert driver["loaded"] is not None and version == driver["loaded"]["version"] and flavour == driver["loaded"]["flavour"]
    for card, entry in zip(facts["gpus"], made["gpus"]):
        assert entry["used"] is False or drives(card["device_id"], version, flavour), (card["device_id"], part)
    for card in facts["gpus"]:
        # Nothing was left out by anybody, so all have to be driven, also those whose name nobody knows yet.
        assert drives(card["device_id"], version, flavour), (card["device_id"], part)
    if part["action"] == "configure" and made["image"]["expected"]:
        # It can be loaded: it is installed, of the modules that are there, and not kept out by a kernel without them.
        kernel = facts["host"]["kernel"]["next"] or facts["host"]["kernel"]["running"]
        assert version == driver["installed"]["version"] and driver["modules"].get(kernel, "not told") is not None
        loadable = driver["modules"].get(facts["host"]["kernel"]["running"], "not told") is not None
        assert driver["next_kernel_has_module"] is not False
        assert made["reboot"]["required"] is (driver["loaded"] is not None or not loadable)
    if part["action"] in ("configure", "install") and driver["installed"] and version == driver["installed"]["version"]:
        real, now = driver["installed"]["flavour"], driver["loaded"] and driver["loaded"]["flavour"]
        # Where only files and pins are kept up, what is loaded stays; a reboot loads the other kernel modules of the same version.
        kept_up = part["action"] == "configure" and not made["image"]["expected"]
        assert real in (None, flavour) or (kept_up and flavour == now)
    assert part["action"] != "upgrade" or wish.way == "upgrade"
    assert part["action"] == "none" or wish.way != "keep"
    assert part["action"] == "none" or "driver" in apply


@settings(max_examples=200)
@given(
    st.builds(Driver, st.text(max_size=12) | VERSIONS, st.none() | st.text(max_size=6)),
    st.lists(
        st.builds(Gpu, st.text(max_size=8), st.none() | st.text(max_size=6) | st.sampled_from(ALL_CAPABILITIES), st.booleans()), max_size=3
    ),
    st.builds(
        Preference,
        st.text(max_size=8),
        st.booleans(),
        st.none() | st.text(max_size=8),
        st.none() | st.text(max_size=5),
        st.none() | st.text(max_size=5),
        st.lists(st.text(max_size=5) | st.sampled_from([*_features.FEATURES]), max_size=2).map(tuple),
    ),
)
def test_nothing_makes_the_selector_raise(driver, gpus, wishes):
    selection = _selector.select(CATALOG, driver, gpus, wishes)
    assert all(fit.code in _plan_codes.CODES and fit.reason for fit in selection.others)


@given(VERSIONS, VERSIONS, CARDS, st.sampled_from(USABLE))
def test_more_driver_never_makes_support_worse(one, other, gpu, variant):
    older, newer = sorted((one, other), key=places)
    levels = {None: 0, "minor": 1, "full": 2}
    before, after = (_selector.judge(variant, Driver(version), (gpu,), False).support for version in (older, newer))
    assert levels[after] >= levels[before]


@given(DRIVERS, HOSTS, WISHES, st.permutations(CATALOG), st.randoms(use_true_random=False))
def test_the_order_of_catalog_and_gpus_changes_nothing(driver, gpus, wishes, catalog, random):
    shuffled = list(gpus)
    random.shuffle(shuffled)
    one, other = _selector.select(CATALOG, driver, gpus, wishes), _selector.select(catalog, driver, shuffled, wishes)
    assert (one.chosen is None) is (other.chosen is None)
    if one.chosen and other.chosen:
        assert preferred(one.chosen, driver, gpus, wishes) == preferred(other.chosen, driver, gpus, wishes)
    else:
        assert {(fit.variant.name, fit.code) for fit in one.others} == {(fit.variant.name, fit.code) for fit in other.others}


@given(DRIVERS, HOSTS, WISHES)
def test_a_disabled_variant_is_never_spoken_of(driver, gpus, wishes):
    selection = _selector.select(CATALOG, driver, gpus, wishes)
    names = {fit.variant.name for fit in (*selection.others, *([selection.chosen] if selection.chosen else []))}
    assert not names & {"difyai-cuda11.8", "difyai-cuda12.1"}


DEFAULTS = _catalog.load([], "difyops/dify-gpu", "0.1.0")


@pytest.mark.parametrize("driver", sorted({*EDGES, *BELOW, *(f"{branch}.999" for branch in _cuda.BRANCH_CUDA)}, key=places))
def test_12_1_and_12_4_come_by_name_or_by_full_support_only(driver):
    kinds = sorted({product.compute_capability for product in _gpus.table().values() if product.compute_capability}, key=places)
    for one, other in itertools.combinations_with_replacement(kinds, 2):
        gpus = [Gpu("one", one, True), Gpu("other", other, True)]
        for forward in (False, True):
            chosen = _selector.select(DEFAULTS, Driver(driver), gpus, Preference(forward_compat=forward)).chosen
            assert chosen is None or chosen.variant.name not in ("cuda12.1", "cuda12.4")


def test_what_is_judged_once_is_not_judged_again():
    """A fleet of ten thousand hosts of a few kinds costs a few judgements for each kind."""
    _selector.judge.cache_clear()
    for number in range(10_000):
        card = ("8.6", "7.5", "9.0", "8.0")[number % 4]
        driver = ("535.247.01", "580.95.05", "470.256.02")[number % 3]
        _selector.select(DEFAULTS, Driver(driver), [Gpu(f"GPU {card}", card, True)] * 8)
    assert _selector.judge.cache_info().misses <= 12 * len(DEFAULTS)
