# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a catalog: what an operator can write, and the sentence for each mistake."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "sha256:" + "a" * 64
SITE = {
    "name": "site",
    "image": "registry.example.org:5000/ai/dify:web-server-cuda12.2-v3",
    "cuda": "12.2",
    "torch": "2.3.1",
    "sm": ["8.0", "8.6"],
}


def load(*entries, **changed):
    options = {"repository": "difyops/dify-gpu", "version": "0.1.0", **changed}
    return {variant.name: variant for variant in _catalog.load(list(entries), **options)}


def test_the_default_catalog():
    on = ["cpu", "cuda11.8", "cuda12.1", "cuda12.4", "cuda12.6", "cuda12.8", "cuda13.0", "cuda13.2"]
    off = ["difyai-cuda11.8", "difyai-cuda12.1", "difyai-cuda12.2"]
    catalog = _catalog.load([], "difyops/dify-gpu", "0.1.0")
    assert [variant.name for variant in catalog] == on + off
    assert [variant.name for variant in _catalog.enabled(catalog)] == on


@pytest.mark.parametrize("cuda", ["11.8", "12.1", "12.2"])
def test_the_articles_family_is_there_and_off(cuda):
    variant = load()[f"difyai-cuda{cuda}"]
    assert (variant.enabled, variant.cuda, variant.source, variant.digest) == (False, cuda, "pull", None)
    assert variant.image == f"difyai/dify:web-server-cuda{cuda}"
    # The article's example; in wheels of that release there is code for these, and no PTX.
    assert (variant.torch, variant.wheel_index, variant.ptx) == ("2.3.0", None, None)
    assert variant.sm == ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")


def test_a_site_switches_a_disabled_entry_on_and_an_enabled_one_off():
    catalog = load({"name": "difyai-cuda12.1", "enabled": True, "digest": DIGEST}, {"name": "cuda12.4", "enabled": False})
    assert catalog["difyai-cuda12.1"].enabled and catalog["difyai-cuda12.1"].image == f"difyai/dify:web-server-cuda12.1@{DIGEST}"
    names = [variant.name for variant in _catalog.enabled(list(catalog.values()))]
    assert "difyai-cuda12.1" in names and "cuda12.4" not in names


def test_why_a_name_cannot_be_asked_for():
    catalog = list(load().values())
    assert _catalog.why_not(catalog, "cuda12.6") is None
    assert _catalog.why_not(catalog, "difyai-cuda12.1") == (
        "variant (dify_image_variant): 'difyai-cuda12.1' is in the catalog and not enabled; put {name: difyai-cuda12.1, "
        "enabled: true} into catalog (dify_image_catalog) when you have the image difyai/dify:web-server-cuda12.1."
    )
    unknown = _catalog.why_not(catalog, "cuda12.2")
    assert "'cuda12.2' is not in the catalog; it has cpu, cuda11.8," in unknown and "difyai" not in unknown


def test_what_an_image_asks_of_the_driver_is_kept():
    assert load({**SITE, "require_cuda": "cuda>=12.2 brand=tesla,driver>=470,driver<471"})["site"].require_cuda.startswith("cuda>=12.2")
    assert load(SITE)["site"].require_cuda is None


def test_an_entry_of_a_default_name_replaces_single_keys():
    pulled = load({"name": "cuda12.6", "source": "pull", "digest": DIGEST}, repository="registry.example.org/ai/dify-gpu")["cuda12.6"]
    assert pulled.torch == "2.14.1" and pulled.source == "pull" and pulled.digest == DIGEST
    assert pulled.image == f"registry.example.org/ai/dify-gpu:web-server-cuda12.6-v0.1.0@{DIGEST}"


def test_another_name_adds_a_variant_that_is_pulled():
    site = load(SITE)["site"]
    assert (site.source, site.image, site.digest, site.sm) == ("pull", SITE["image"], None, ("8.0", "8.6"))
    assert list(load(SITE, with_defaults=False)) == ["site"]


def test_loading_does_not_change_the_defaults():
    before = repr(_catalog.DEFAULT_CATALOG)
    load({"name": "cuda12.6", "sm": ["8.0"]})
    assert repr(_catalog.DEFAULT_CATALOG) == before


@pytest.mark.parametrize(
    "entry, sentence",
    [
        ({**SITE, "image": "difyops/x:latest"}, "uses the tag latest"),
        ({**SITE, "image": f"difyops/x:latest@{DIGEST}"}, "uses the tag latest"),
        ({**SITE, "image": "localhost:5000/difyops/x"}, "has no tag"),
        ({**SITE, "image": "Difyops/X:1"}, "is no image reference"),
        ({**SITE, "image": "difyops/x:1 --privileged"}, "is no image reference"),
        ({**SITE, "image": f"difyops/x:1@{DIGEST}", "digest": "sha256:" + "b" * 64}, "differ"),
        ({**SITE, "digest": "sha256:12"}, "64 hexadecimal digits"),
        ({**SITE, "cuda": 12.6}, "quoted as '12.6'"),
        ({**SITE, "cuda": "12"}, "one dot"),
        ({**SITE, "cuda": "12.6.3"}, "one dot"),
        ({**SITE, "cuda": "10.2"}, "CUDA 10.2 is not known here"),
        ({**SITE, "cuda": ["12.6"]}, "must be text; found a list"),
        ({**SITE, "torch": "2.x"}, "needs torch"),
        ({**SITE, "torch": None}, "needs torch"),
        ({**SITE, "sm": "8.0"}, "must be a list of quoted texts"),
        ({**SITE, "sm": [8.0]}, "must be a list of quoted texts"),
        ({**SITE, "sm": ["sm_80"]}, "no compute capability"),
        ({**SITE, "sm": []}, "needs sm"),
        ({**SITE, "cuda": "11.8", "sm": ["12.0"]}, "cannot compile for compute capability 12.0"),
        ({**SITE, "min_driver": "new"}, "min_driver must be a driver version"),
        ({**SITE, "source": "copy"}, "source must be build or pull"),
        ({**SITE, "tag": "1"}, "unknown key 'tag'"),
        ({**SITE, "enabled": "yes"}, "enabled must be true or false; found 'yes'"),
        ({**SITE, "enabled": 1}, "enabled must be true or false; found 1"),
        ({**SITE, "require_cuda": 12.2}, "require_cuda must be text, quoted as '12.2'"),
        ({**SITE, "require_cuda": "12.2"}, "require_cuda cannot be read: NVIDIA_REQUIRE_CUDA needs conditions such as cuda>=12.4"),
        ({**SITE, "require_cuda": "gpu>=2"}, "knows cuda, driver, arch and brand; found 'gpu'"),
        ({"name": "cpu", "require_cuda": "cuda>=12.2"}, "is a CPU image (cuda is null): it cannot have require_cuda"),
        ({"name": "cpu", "sm": ["8.0"]}, "is a CPU image"),
        ({"name": "cuda12.6", "digest": DIGEST}, "cannot be known before"),
        ({"name": "cuda12.6", "wheel_index": "ftp://x"}, "needs wheel_index"),
        ({"name": "cuda12.6", "wheel_index": "https://download.pytorch.org/whl/cu118"}, "must name the same CUDA"),
        ({"name": "cuda11.8", "torch": "1.13.1"}, "PyTorch 1.13.1 was never built for cu118; its CUDA builds are cu116, cu117"),
        ({"name": "cuda12.1", "torch": "2.14.1"}, "never built for cu121"),
        ({"name": "cuda12.8", "sm": ["7.0", "7.5"]}, "sm lists 7.0, which PyTorch 2.11.0 from cu128 has no code for"),
        ({"name": "cuda12.6", "ptx": "9.0"}, "carries no PTX for 9.0"),
        ({"name": "new", "torch": "2.3.1"}, "needs cuda"),
        ({"name": "UPPER"}, "needs a name"),
        ({"cuda": "12.6"}, "needs a name"),
        ("cuda12.6", "Entry number 1 of catalog (dify_image_catalog) must be a dictionary with a name; found text"),
        ({**SITE, "port": "http"}, "port must be the number of a port"),
        ({**SITE, "port": 0}, "port must be the number of a port"),
        ({**SITE, "port": True}, "port must be the number of a port"),
        ({**SITE, "health": "healthz"}, "health must be the path"),
        ({**SITE, "health": "/'+x+'"}, "health must be the path"),
        ({**SITE, "health": ""}, "health must be the path"),
        ({**SITE, "health": False}, "health must be text"),
        ({"name": "cuda12.6", "wheel_index": "https://bob:hunter2@wheels.example.org/simple"}, "dify_image_pip_index_url"),
        ({"name": "cuda12.6", "wheel_index": "https://hunter2@wheels.example.org/simple"}, "wheel_index holds credentials"),
        ({"name": "cuda12.6", "wheel_index": "ftp://bob:hunter2@wheels.example.org"}, "wheel_index holds credentials"),
        ({**SITE, "wheel_index": "https://bob:hunter2@wheels.example.org"}, "wheel_index holds credentials"),
    ],
)
def test_one_sentence_for_each_mistake(entry, sentence):
    with pytest.raises(_catalog.CatalogError) as caught:
        load(entry)
    message = str(caught.value)
    assert sentence in message
    assert message.endswith(".") and "\n" not in message and "hunter2" not in message


def test_where_the_server_of_an_image_listens():
    assert {(variant.port, variant.health) for variant in load(SITE).values()} == {(8000, "/health")}
    own = load({**SITE, "port": 8080, "health": "/healthz"})["site"]
    assert (own.port, own.health) == (8080, "/healthz")
    without = load({**SITE, "port": None, "health": None})["site"]
    assert (without.port, without.health) == (8000, None)


def test_an_at_sign_in_the_path_of_an_index_is_no_credential():
    assert load({"name": "cuda12.6", "wheel_index": "https://wheels.example.org/@team/simple"})["cuda12.6"].wheel_index.endswith("simple")


@pytest.mark.parametrize("entries, found", [("cuda12.6", "text"), ({"name": "x"}, "a dictionary"), (3, "a number"), (True, "a boolean")])
def test_a_catalog_that_is_no_list(entries, found):
    with pytest.raises(_catalog.CatalogError) as caught:
        _catalog.load(entries, "difyops/dify-gpu", "0.1.0")
    assert str(caught.value) == f"catalog (dify_image_catalog) must be a list of dictionaries, one for each variant; found {found}."


def test_a_name_twice():
    with pytest.raises(_catalog.CatalogError, match="two entries named 'site'"):
        load(SITE, SITE)


def test_an_empty_catalog():
    with pytest.raises(_catalog.CatalogError, match="is empty"):
        load(with_defaults=False)


@pytest.mark.parametrize(
    "changed", [{"repository": "difyops/x:1"}, {"repository": "Difyops"}, {"repository": ""}, {"version": "0 1"}, {"version": ""}]
)
def test_a_wrong_repository_or_version(changed):
    with pytest.raises(_catalog.CatalogError, match=r"image_(repository|version)"):
        load(**changed)


def test_a_sites_own_index_is_taken_at_its_word():
    own = load({"name": "cuda12.8", "wheel_index": "https://wheels.example.org/simple", "sm": ["7.0", "7.5"]})["cuda12.8"]
    assert own.sm == ("7.0", "7.5")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
VALUES = JUNK | st.sampled_from(
    ["12.6", "13.0", "2.14.1", "a:1", "x:latest", DIGEST, "build", "pull", ["8.0"], "https://w.example.org/cu126", "cuda>=12.2"]
)


@given(JUNK | st.lists(st.dictionaries(st.sampled_from([*_catalog._KEYS, "other"]), VALUES, max_size=8), max_size=3))
def test_whatever_is_written_is_read_or_refused_in_one_line(entries):
    try:
        variants = _catalog.load(entries, "difyops/dify-gpu", "0.1.0")
    except _catalog.CatalogError as exc:
        assert str(exc).endswith(".")
    else:
        assert all(":latest" not in variant.image and (":" in variant.image) for variant in variants)
