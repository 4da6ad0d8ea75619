# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Features that can be required of an image and its GPUs, and what each needs.

A feature needs tensor cores of a generation, a CUDA whose cuBLAS uses them, and a PyTorch that calls it; code for the GPU is another
question, which the selector asks first. Where a variant names a feature in its own `features`, the image is taken at its word and only
the GPU is looked at. A name that is not in this table can be required too: then the variant must name it.

Sources: Transformer Engine's hardware support matrix (bf16, fp8, fp4 by compute capability) and its checks (fp8 on Ada from CUDA 12.1 on,
CUDA 11.8 at all); pytorch/pytorch#104242 and #106844 (fp8, first in 2.1), #118881 (fp8 on Ada, February 2024, so first in 2.3), #148792
(fp4, first in 2.8, with CUDA 12.8), #96685 (int8, first in 2.1; works on 8.0 and newer, and #121277 on 7.5). From memory: PyTorch 1.7 for
tf32 and 1.10 for bf16; no variant is that old. 12.0 multiplies fp4 with restrictions, which Transformer Engine calls partial.

To update: add a feature, or a Need to one, with its source above, and the row to docs/compatibility.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _cuda, _versions
from ansible_collections.difyops.gpu.plugins.plugin_utils._catalog import Variant
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import option


class Need(NamedTuple):
    """What a feature needs on GPUs from this compute capability on: oldest CUDA and oldest PyTorch of the image."""

    capability: str
    cuda: str
    torch: str


class Feature(NamedTuple):
    """`needs` from the oldest GPUs to the newest. `declared`: it needs software that an image has only when its variant says so."""

    words: str
    needs: tuple[Need, ...]
    declared: bool = False


FEATURES: dict[str, Feature] = {
    "fp16": Feature("half precision on tensor cores", (Need("7.0", "11.0", "1.7"),)),
    "int8": Feature("int8 on tensor cores", (Need("7.5", "11.8", "2.1"),)),
    "tf32": Feature("TensorFloat-32", (Need("8.0", "11.0", "1.7"),)),
    "bf16": Feature("bfloat16 on tensor cores", (Need("8.0", "11.0", "1.10"),)),
    "fp8": Feature("8-bit floating point on tensor cores", (Need("8.9", "12.1", "2.3"), Need("9.0", "11.8", "2.1"))),
    "fp4": Feature("4-bit floating point on tensor cores", (Need("10.0", "12.8", "2.8"),)),
    "transformer_engine": Feature("NVIDIA's Transformer Engine with fp8", (Need("8.9", "12.1", "2.3"), Need("9.0", "11.8", "2.1")), True),
}


def missing(variant: Variant, gpus: Iterable[tuple[str, str | None]], features: Sequence[str]) -> str | None:
    """Return the first of these features that is not there, as part of a sentence; None when all are.

    `gpus` are pairs of a name for sentences and a compute capability, None for one that is not known.
    """
    cards = tuple(gpus)
    for name in features:
        reason = _missing(variant, cards, name)
        if reason is not None:
            return reason
    return None


def unknown(features: Iterable[str], variants: Iterable[Variant]) -> str | None:
    """Return one sentence about a feature that is neither in the table nor named by any of these variants; None when there is none."""
    named = {feature for variant in variants for feature in variant.features}
    for feature in features:
        if feature not in FEATURES and feature not in named:
            known = ", ".join(sorted({*FEATURES, *named}))
            return (
                f"{option('require_features')}: {feature!r} is no known feature, and no variant of the catalog names it; there are {known}."
            )
    return None


def _missing(variant: Variant, gpus: Sequence[tuple[str, str | None]], name: str) -> str | None:
    feature = FEATURES.get(name)
    declared = name in variant.features
    if feature is None:
        return None if declared else f"the image does not name the feature {name}"
    for label, capability in gpus:
        if capability is None:
            return f"nobody knows whether {label} has {name}, because its compute capability is not known"
        need = _need(feature, capability)
        if need is None:
            floor = feature.needs[0].capability
            return f"{label} has no {name}: that needs compute capability {floor} or newer, and it has {capability}"
        if declared:
            continue
        if feature.declared:
            return f"the image does not name the feature {name}"
        if _cuda.number(variant.cuda or "0.0") < _cuda.number(need.cuda):
            return f"{name} on {label} needs CUDA {need.cuda} or newer, and the image has {variant.cuda or 'none'}"
        if not _versions.at_least(variant.torch, need.torch):
            return f"{name} on {label} needs PyTorch {need.torch} or newer, and the image has {variant.torch}"
    return None


def _need(feature: Feature, capability: str) -> Need | None:
    have = _cuda.number(capability)
    fitting = [need for need in feature.needs if _cuda.number(need.capability) <= have]
    return fitting[-1] if fitting else None
