# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which image variants run on a host, and which of them is chosen.

The rules, in this order (docs/compatibility.md explains them): the driver must carry the CUDA of the variant (in full, by minor-version
compatibility, or by forward compatibility where that is allowed), the image must have code for every GPU of the host, and what the
operator asked for (a range of CUDA, features) must be there.
Everything here is a pure function of its arguments, and never raises. Judgements are kept, since the hosts of a fleet are much alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.difyops.gpu.plugins.plugin_utils import _cuda, _features, _forward_compat, _plan_codes, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import option

FULL, MINOR, FORWARD, CPU, FORCED = "full", "minor", "forward", "cpu", "forced"
NEWEST, FULL_SUPPORT_FIRST = "newest", "full_support_first"
PREFERENCES = (NEWEST, FULL_SUPPORT_FIRST)


@dataclass(frozen=True)
class Gpu:
    """A GPU that is to be used. `compute_capability` is None where nothing could tell it."""

    name: str
    compute_capability: str | None
    data_center: bool = False


@dataclass(frozen=True)
class Driver:
    """The loaded driver: version, and what it itself says about its CUDA (used for branches newer than our table only)."""

    version: str
    reported_cuda: str | None = None

    @property
    def cuda(self) -> str | None:
        """CUDA version the driver supports, None when it is older than all tables."""
        return _cuda.driver_cuda(self.version, self.reported_cuda)


@dataclass(frozen=True)
class Preference:
    """What the operator asked for.

    `named` is the only variant that can be chosen then; the range of CUDA (`min_cuda` to `max_cuda`, both included) does not bind it,
    `features` do. `forward_compat` allows forward compatibility.
    """

    prefer: str = NEWEST
    forward_compat: bool = False
    named: str | None = None
    min_cuda: str | None = None
    max_cuda: str | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """How a variant does on a host: `support` is set and `code` None when it runs, the other way round when not."""

    variant: Variant
    support: str | None
    code: str | None
    reason: str


@dataclass(frozen=True)
class Selection:
    """The chosen variant (None when none fits) and every other one with why not."""

    chosen: Fit | None
    others: tuple[Fit, ...]


@functools.lru_cache(maxsize=16384)
def judge(variant: Variant, driver: Driver, gpus: tuple[Gpu, ...], forward_compat: bool) -> Fit:
    """Say whether a CUDA variant runs on this driver and all of these GPUs."""
    carried = _driver_fit(variant, driver, gpus, forward_compat)
    if carried.support is None:
        return carried
    # Forward compatibility brings the user-space driver of the variant's own CUDA, so its PTX compiler is as new as the code.
    jit_cuda = variant.cuda if carried.support == FORWARD else driver.cuda
    for gpu in gpus:
        if not _versions.is_dotted(gpu.compute_capability, "{1}"):
            return Fit(
                variant,
                None,
                _plan_codes.UNKNOWN_COMPUTE_CAPABILITY,
                f"the compute capability of {gpu.name} is not known, so nobody can say whether the image has code for it",
            )
        if not has_code(variant, gpu.compute_capability or "", jit_cuda):
            return Fit(variant, None, _plan_codes.NO_CODE_FOR_GPU, _no_code_reason(variant, gpu, jit_cuda))
    return carried


@functools.lru_cache(maxsize=16384)
def has_code(variant: Variant, compute_capability: str, jit_cuda: str | None) -> bool:
    """Whether the image has machine code for this GPU, or PTX that the driver (of CUDA `jit_cuda`) can compile for it."""
    if variant.cuda is None:
        return False
    if any(runs_code(target, compute_capability, variant.cuda) for target in variant.sm):
        return True
    return variant.ptx is not None and compiles_ptx(variant.ptx, compute_capability, variant.cuda, jit_cuda)


def runs_code(target: str, compute_capability: str, cuda: str) -> bool:
    """Whether machine code for `target` (``8.0``, ``9.0a``, ``10.0f``) made with this CUDA runs on a GPU."""
    base, have = _cuda.number(target.rstrip("af")), _cuda.number(compute_capability)
    if base == have:
        return True
    if target.endswith("a") or base[0] != have[0]:
        return False
    jetson = target.rstrip("af") in _cuda.JETSON or compute_capability in _cuda.JETSON
    if jetson and _cuda.number(cuda) < _cuda.number(_cuda.JETSON_SHARES_SINCE):
        return False
    return base[1] <= have[1]


def compiles_ptx(target: str, compute_capability: str, cuda: str, jit_cuda: str | None) -> bool:
    """Whether a driver of CUDA `jit_cuda` makes code for this GPU from PTX for `target` that CUDA `cuda` wrote."""
    if jit_cuda is None or _cuda.number(cuda) > _cuda.number(jit_cuda):
        return False
    base, have = _cuda.number(target.rstrip("af")), _cuda.number(compute_capability)
    if target.endswith("a"):
        return base == have
    if target.endswith("f"):
        return base[0] == have[0] and base[1] <= have[1]
    return base <= have


def select(variants: Sequence[Variant], driver: Driver, gpus: Sequence[Gpu], preference: Preference | None = None) -> Selection:
    """Choose among the enabled CUDA variants. Where one is named, only that one can be chosen; the others are judged all the same."""
    return _select(tuple(variants), driver, tuple(gpus), preference or Preference())


@functools.lru_cache(maxsize=4096)
def _select(variants: tuple[Variant, ...], driver: Driver, gpus: tuple[Gpu, ...], preference: Preference) -> Selection:
    fits = [
        _as_wished(judge(variant, driver, gpus, preference.forward_compat), gpus, preference)
        for variant in variants
        if variant.cuda is not None and variant.enabled
    ]
    candidates = [fit for fit in fits if fit.support is not None and preference.named in (None, fit.variant.name)]
    chosen = max(candidates, key=lambda fit: rank(fit, preference.prefer), default=None)
    others = tuple(_passed_over(fit, chosen, preference) for fit in fits if fit is not chosen)
    return Selection(chosen, others)


def bad_range(min_cuda: str | None, max_cuda: str | None) -> str | None:
    """Return one sentence about a range of CUDA that nobody can mean; None when it is all right."""
    for name, value in (("min_cuda", min_cuda), ("max_cuda", max_cuda)):
        if value is not None and not _versions.is_dotted(value, "{1}"):
            return f"{option(name)} must be a CUDA version with one dot such as '12.6', in quotes; found {value!r}."
    if min_cuda is not None and max_cuda is not None and _cuda.number(min_cuda) > _cuda.number(max_cuda):
        return f"{option('min_cuda')} is {min_cuda} and {option('max_cuda')} is {max_cuda}; no CUDA is in between."
    return None


def force(fit: Fit) -> Fit:
    """Return the fit of a variant that does not fit and is wanted all the same."""
    return fit if fit.support is not None else Fit(fit.variant, FORCED, None, f"forced although {fit.reason}")


def rank(fit: Fit, prefer: str) -> tuple[object, ...]:
    """Return by what a variant that fits is preferred: the bigger, the better."""
    torch, cuda = _versions.parse(fit.variant.torch), _cuda.number(fit.variant.cuda or "0.0")
    if prefer == FULL_SUPPORT_FIRST:
        return ({FULL: 2, MINOR: 1}.get(fit.support or "", 0), cuda, torch)
    return (fit.support != FORWARD, torch, cuda)


def _as_wished(fit: Fit, gpus: Sequence[Gpu], preference: Preference) -> Fit:
    """Return the fit, or why a variant that fits is not what was asked for."""
    if fit.support is None:
        return fit
    if fit.variant.name != preference.named:
        outside = _outside(fit.variant.cuda or "0.0", preference)
        if outside is not None:
            return Fit(fit.variant, None, _plan_codes.OUTSIDE_CUDA_RANGE, outside)
    if preference.features:
        lacking = _features.missing(fit.variant, ((gpu.name, gpu.compute_capability) for gpu in gpus), preference.features)
        if lacking is not None:
            return Fit(fit.variant, None, _plan_codes.FEATURE_MISSING, lacking)
    return fit


def _outside(cuda: str, preference: Preference) -> str | None:
    broken = bad_range(preference.min_cuda, preference.max_cuda)
    if broken is not None:
        return broken.rstrip(".")
    if preference.min_cuda is not None and _cuda.number(cuda) < _cuda.number(preference.min_cuda):
        return f"CUDA {cuda} is older than {preference.min_cuda}, which {option('min_cuda')} asks for"
    if preference.max_cuda is not None and _cuda.number(cuda) > _cuda.number(preference.max_cuda):
        return f"CUDA {cuda} is newer than {preference.max_cuda}, which {option('max_cuda')} allows"
    return None


def _passed_over(fit: Fit, chosen: Fit | None, preference: Preference) -> Fit:
    if fit.support is None:
        return fit
    if preference.named is not None:
        reason = f"fits too ({fit.support}), but {preference.named} was asked for by name"
    else:
        over = chosen.variant if chosen else fit.variant
        reason = f"fits too ({fit.support}); {over.name} with torch {over.torch} comes first by the preference {preference.prefer}"
    return Fit(fit.variant, None, _plan_codes.NOT_PREFERRED, reason)


def _driver_fit(variant: Variant, driver: Driver, gpus: Sequence[Gpu], forward_compat: bool) -> Fit:
    cuda = variant.cuda or ""
    floor = _cuda.MINOR_FLOOR.get(_cuda.number(cuda)[0])
    if not _versions.is_dotted(driver.version):
        reason = f"CUDA {_cuda.number(cuda)[0]}.x needs driver >= {floor}; what is loaded calls itself {driver.version!r}"
        return Fit(variant, None, _plan_codes.DRIVER_TOO_OLD, reason)
    if variant.min_driver is not None and not _versions.at_least(driver.version, variant.min_driver):
        reason = f"the catalog asks for driver >= {variant.min_driver}; loaded is {driver.version}"
        return Fit(variant, None, _plan_codes.BELOW_MIN_DRIVER, reason)
    if _cuda.is_full(cuda, driver.version, driver.cuda):
        return Fit(variant, FULL, None, f"CUDA {cuda} on driver {driver.version}: full support (the driver's CUDA is {driver.cuda})")
    if _cuda.is_minor(cuda, driver.version):
        return Fit(variant, MINOR, None, f"CUDA {cuda} on driver {driver.version}: minor-version compatibility (driver >= {floor})")
    # The floor is that of the major version, so all its variants share one reason, and one line of the printed plan.
    too_old = f"CUDA {_cuda.number(cuda)[0]}.x needs driver >= {floor}; loaded is {driver.version}"
    return _forward_fit(variant, driver, gpus, forward_compat, too_old)


def _forward_fit(variant: Variant, driver: Driver, gpus: Sequence[Gpu], allowed: bool, too_old: str) -> Fit:
    cuda = variant.cuda or ""
    if not _forward_compat.serves(cuda, _cuda.branch(driver.version)):
        return Fit(variant, None, _plan_codes.DRIVER_TOO_OLD, too_old)
    hindrances = _forward_hindrances(variant, gpus, allowed)
    if hindrances:
        # Where the image carries the package the operator is one decision away; else the driver is simply too old.
        code = _plan_codes.FORWARD_COMPAT_ONLY if _forward_compat.FEATURE in variant.features else _plan_codes.DRIVER_TOO_OLD
        reason = too_old if code == _plan_codes.DRIVER_TOO_OLD else f"{too_old}; forward compatibility could carry it, but {hindrances[0]}"
        return Fit(variant, None, code, reason)
    return Fit(
        variant, FORWARD, None, f"CUDA {cuda} on driver {driver.version}: forward compatibility by the cuda-compat package in the image"
    )


def _forward_hindrances(variant: Variant, gpus: Sequence[Gpu], allowed: bool) -> list[str]:
    hindrances: list[str] = []
    if _forward_compat.FEATURE not in variant.features:
        hindrances.append("the image does not carry the cuda-compat package")
    if not allowed:
        hindrances.append(f"{option('forward_compatibility')} does not allow it")
    hindrances += [f"{gpu.name} is no data center GPU" for gpu in gpus if not gpu.data_center]
    return hindrances


def _no_code_reason(variant: Variant, gpu: Gpu, jit_cuda: str | None) -> str:
    text = f"no code for {gpu.name} (compute capability {gpu.compute_capability}); the image has {' '.join(variant.sm) or 'none'}"
    if variant.ptx is None:
        return text
    if compiles_ptx(variant.ptx, gpu.compute_capability or "0.0", variant.cuda or "0.0", "999.0"):
        return f"{text}, and its PTX of CUDA {variant.cuda} is too new for a driver of CUDA {jit_cuda}"
    return f"{text}, and its PTX for {variant.ptx} is not for this GPU"
