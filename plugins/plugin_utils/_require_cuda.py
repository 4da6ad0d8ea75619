# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA_REQUIRE_CUDA: what an image asks of the driver, what the container toolkit would say to it, and whether anybody asks at all.

The text is alternatives, separated by spaces, of conditions that hold together, separated by commas: ``cuda>=12.4
brand=tesla,driver>=535,driver<536``. `cuda` is the CUDA version of the driver, not of the toolkit; `arch` is the compute capability.

Sources: libnvidia-container (src/cli/dsl.c, configure.c, driver.c) for the meaning; the Dockerfiles of the nvidia/cuda base images (August
2025) for BASE_IMAGES, and one 13.2.1 image for the shape of 13.2; nvidia-container-toolkit #1470 for what CDI does not do; answers of
nvidia-smi -q for the brands of products. There brands decide nothing between tesla and nvidia, or geforce and geforcertx: no list of
NVIDIA's has one without the other.

To update: add the newest base image's requirement to BASE_IMAGES (docker image inspect shows it in Env).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _toolkit, _versions

_OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
_NUMBERS = ("cuda", "driver", "arch")
_CONDITION = re.compile(r"([^<>=!]+)([<>=!]+)([^<>=!].*)")
_VERSION = re.compile(r"[0-9]{1,9}(?:\.+[0-9]{1,9})*\.*")

_FIRST_BRANDS = ("tesla", "unknown", "nvidia", "nvidiartx", "geforce", "geforcertx", "quadro", "quadrortx", "titan", "titanrtx")
# Since 12.5 without GeForce and TITAN.
_LATER_BRANDS = ("unknown", "grid", "tesla", "nvidia", "quadro", "quadrortx", "nvidiartx", "vapps", "vpc", "vcs", "vws", "cloudgaming")

# CUDA X.Y of the image (x86_64) -> driver branches that are accepted beside cuda>=X.Y, for the brands that go with that release.
BASE_IMAGES: dict[str, tuple[int, ...]] = {
    "11.4": (),
    "11.5": (470,),
    "11.6": (470,),
    "11.7": (470,),
    "11.8": (470,),
    "12.0": (470,),
    "12.1": (470, 525),
    "12.2": (470, 525),
    "12.3": (470, 525, 535),
    "12.4": (470, 525, 535),
    "12.5": (470, 535, 550),
    "12.6": (470, 535, 550),
    "12.8": (470, 535, 550, 560, 565),
    "12.9": (535, 550, 560, 565, 570),
    "13.0": (535, 550, 565, 570, 575),
    "13.2": (535, 570, 580, 590),
}

# What NVML calls the brand of a product, by its name. The first that matches counts.
_BRANDS: tuple[tuple[str, str], ...] = (
    (r"GRID\b", "grid"),
    (r"NVS\b", "nvs"),
    (r"GeForce\b", "geforce"),
    (r"TITAN\b", "titan"),
    (r"Quadro RTX\b", "quadrortx"),
    (r"Quadro\b", "quadro"),
    (r"(RTX (A[0-9]|PRO\b|[0-9]+ Ada|[0-9]{4}[A-Z]\b)|T[0-9]{3,4}\b)", "nvidiartx"),
    (r"(Tesla\b|[A-Z]{1,2}[0-9]{1,3}[A-Z]?\b)", "nvidia"),
)


class RequirementError(ValueError):
    """The text is no requirement; the message is one sentence."""


class Condition(NamedTuple):
    """One comparison, such as ``driver >= 535``."""

    name: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value}"


class Result(NamedTuple):
    """`satisfied` is None where it hangs on something unknown. `clause` is the alternative that decided, `reason` part of a sentence."""

    satisfied: bool | None
    clause: str
    reason: str


@functools.lru_cache(maxsize=256)
def parse(requirement: str) -> tuple[tuple[Condition, ...], ...]:
    """Return the alternatives of a requirement. Raises RequirementError.

    libnvidia-container notices a broken condition only when it gets to it; here a broken text is refused as a whole.
    """
    return tuple(tuple(_condition(part, requirement) for part in clause.split(",") if part) for clause in requirement.split())


def check(
    requirement: str, cuda: str | None = None, driver: str | None = None, arch: str | None = None, brand: str | None = None
) -> Result:
    """Return what libnvidia-container says to a requirement on one GPU.

    Args:
        requirement: the value of the environment variable; an empty one asks for nothing.
        cuda: CUDA version of the loaded driver.
        driver: its version.
        arch: compute capability of the GPU.
        brand: what `brand` returns for the GPU's name.

    None stands for not known here; the tool itself always knows them, so the outcome is then unknown where it depends on them.

    Raises:
        RequirementError: the text cannot be read.
    """
    alternatives = parse(requirement)
    numbers = {"cuda": cuda, "driver": driver, "arch": arch}
    readable = {name: value if value is not None and _VERSION.fullmatch(value) else None for name, value in numbers.items()}
    values = {**readable, "brand": brand}
    if not alternatives:
        return Result(True, "", "the image asks for nothing")
    outcomes = [(clause, _all(clause, values)) for clause in alternatives]
    for clause, outcome in outcomes:
        if outcome is True:
            text = _text(clause)
            return Result(True, text, f"{text} holds")
    for clause, outcome in outcomes:
        if outcome is None:
            missing = next(condition.name for condition in clause if values[condition.name] is None)
            return Result(None, _text(clause), f"{_text(clause)} cannot be judged, because {missing} is not known")
    # The tool itself names the first alternative only, so whoever looks for its message finds this one.
    first = _text(alternatives[0])
    found = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    more = f", nor does any of its {len(alternatives) - 1} other alternatives" if len(alternatives) > 1 else ""
    return Result(False, first, f"{first} does not hold{more} ({found})")


def check_host(requirement: str, cuda: str | None, driver: str | None, gpus: Sequence[tuple[str | None, str | None]]) -> Result:
    """Return what it says to a container that is given all of these GPUs, each as (compute capability, brand): all must be accepted."""
    results = [check(requirement, cuda, driver, arch, brand_) for arch, brand_ in gpus] or [check(requirement, cuda, driver)]
    for wanted in (False, None):
        for result in results:
            if result.satisfied is wanted:
                return result
    return results[0]


def enforced(toolkit: object, mode: object, engine: object, how: str) -> tuple[bool | None, str]:
    """Return whether anybody evaluates the requirement when a container starts, and why; None when that cannot be told.

    Args:
        toolkit: version of the NVIDIA Container Toolkit.
        mode: mode of its runtime: auto, legacy, csv, cdi, jit-cdi; None when it is not configured, which is auto.
        engine: version of Docker.
        how: how the container gets its GPUs: cdi, runtime, request (``--gpus``), device or privileged.
    """
    if how == "cdi":
        return False, "CDI gives out the devices, and CDI does not evaluate it"
    if how in ("device", "privileged"):
        return False, "the container gets the device nodes without the container toolkit"
    if how == "request":
        if _versions.parse(engine) is None:
            return None, "it depends on the version of Docker, which is not known"
        if _versions.at_least(engine, _toolkit.GPUS_BY_CDI_SINCE):
            return False, f"Docker {engine} gives out --gpus by CDI, which does not evaluate it"
        return True, f"Docker {engine} gives out --gpus through the toolkit's hook, which evaluates it"
    if how == "runtime":
        return _enforced_by_runtime(toolkit, mode)
    return None, f"nothing is known about containers that get their GPUs by {how}"


def brand(product: str | None) -> str | None:
    """Return the brand that NVML gives a product of this name, in lower case; None when it cannot be told."""
    if product is None:
        return None
    name = re.sub(r"^NVIDIA ", "", product)
    return next((known for pattern, known in _BRANDS if re.match(pattern, name)), None)


def base_image(cuda: str) -> str | None:
    """Return the requirement of NVIDIA's own base image of CUDA X.Y (x86_64), or None where the table does not know it."""
    branches = BASE_IMAGES.get(cuda)
    if branches is None:
        return None
    brands = brands_of(cuda)
    return " ".join([f"cuda>={cuda}", *(f"brand={name},driver>={branch},driver<{branch + 1}" for branch in branches for name in brands)])


def brands_of(cuda: str) -> tuple[str, ...]:
    """Return the brands that go with the driver branches of a base image."""
    major, minor = cuda.split(".")
    return _LATER_BRANDS if (int(major), int(minor)) >= (12, 5) else _FIRST_BRANDS


def _enforced_by_runtime(toolkit: object, mode: object) -> tuple[bool | None, str]:
    if mode in ("legacy", "csv"):
        return True, f"the nvidia runtime is in mode {mode}, which evaluates it"
    if mode in ("cdi", "jit-cdi"):
        return False, f"the nvidia runtime is in mode {mode}, which does not evaluate it"
    if _versions.parse(toolkit) is None:
        return None, "it depends on the version of the container toolkit, which is not known"
    if _versions.at_least(toolkit, _toolkit.JIT_CDI_SINCE):
        return False, f"the nvidia runtime of toolkit {toolkit} uses jit-cdi, which does not evaluate it"
    return True, f"the nvidia runtime of toolkit {toolkit} works in legacy mode, which evaluates it"


def _condition(text: str, requirement: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise RequirementError(
            f"NVIDIA_REQUIRE_CUDA needs conditions such as cuda>=12.4 or brand=tesla; found {text!r} in {_shortened(requirement)!r}."
        )
    name, operator, value = match.group(1).lower(), match.group(2), match.group(3)
    if operator == "!":
        # Read so by libnvidia-container, which compares as many characters as were written.
        operator = "!="
    if operator not in _OPERATORS:
        raise RequirementError(f"NVIDIA_REQUIRE_CUDA knows the comparisons {' '.join(_OPERATORS)}; found {operator!r} in {text!r}.")
    if name not in (*_NUMBERS, "brand"):
        raise RequirementError(f"NVIDIA_REQUIRE_CUDA knows cuda, driver, arch and brand; found {match.group(1)!r} in {text!r}.")
    if name in _NUMBERS and _VERSION.fullmatch(value) is None:
        raise RequirementError(f"NVIDIA_REQUIRE_CUDA: {name} is compared with a version such as 12.4; found {value!r} in {text!r}.")
    if name == "brand" and operator not in ("=", "!="):
        raise RequirementError(f"NVIDIA_REQUIRE_CUDA: brand is compared by = or != only; found {text!r}.")
    return Condition(name, operator, value)


def _all(clause: Sequence[Condition], values: Mapping[str, str | None]) -> bool | None:
    outcomes = [_holds(condition, values[condition.name]) for condition in clause]
    if False in outcomes:
        return False
    return None if None in outcomes else True


def _holds(condition: Condition, have: str | None) -> bool | None:
    if have is None:
        return None
    if condition.name == "brand":
        return (have.lower() == condition.value.lower()) is (condition.operator == "=")
    ours, theirs = _padded(have), _padded(condition.value)
    outcomes = {
        "=": ours == theirs,
        "!=": ours != theirs,
        "<": ours < theirs,
        "<=": ours <= theirs,
        ">": ours > theirs,
        ">=": ours >= theirs,
    }
    return outcomes[condition.operator]


def _padded(version: str) -> tuple[int, ...]:
    """Return a version without zeros at its end, so that 12 and 12.0 are the same."""
    numbers = [int(part) for part in version.split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _text(clause: Sequence[Condition]) -> str:
    return ",".join(str(condition) for condition in clause)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
