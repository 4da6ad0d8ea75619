# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host that builds for all: what the plan of each says, and hashes of torch in the catalog."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _options, _recipe
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import applied, nvidia, plan

EMPTY = {"files": {}, "secrets": {}, "images": {}, "containers": [], "error": None}


@pytest.mark.parametrize(
    ("build_host", "push", "action", "words"),
    [
        (None, False, "build", "not on this host"),
        ("h1", False, "build", "not on this host"),
        ("h1", True, "build", "not on this host"),
        ("builder", False, "copy", "not on this host; built once on builder and copied from there"),
        ("builder", True, "pull", "not on this host; built once on builder and pulled from the registry"),
        ("localhost", False, "copy", "not on this host; built once on localhost and copied from there"),
    ],
)
def test_how_the_image_comes(build_host, push, action, words):
    made = plan(nvidia(), EMPTY, build_host=build_host, push=push)
    assert (made["parts"]["image"]["action"], made["parts"]["image"]["reason"]) == (action, words)
    assert (made["image"]["source"], made["image"]["build"]["host"], made["image"]["build"]["bring"]) == ("build", build_host, action)


@pytest.mark.parametrize("push", [False, True])
def test_an_image_of_the_build_host_is_as_good_as_an_own_one(push):
    made = plan(nvidia(), EMPTY, build_host="builder", push=push)
    assert plan(nvidia(), applied(made), build_host="builder", push=push)["status"] == "ok"
    assert plan(nvidia(), applied(made))["parts"]["image"]["action"] == "none", "where it was built is no part of the recipe"
    other = plan(nvidia(), applied(made), build_host="builder", push=push, context_digest=lambda: "another")["parts"]["image"]
    assert other["action"] == ("pull" if push else "copy") and other["reason"].startswith("the recipe has changed; built once on builder")


def test_an_image_that_is_pulled_anyway_has_no_build_host():
    entry = {"name": "own", "cuda": None, "torch": "2.13.0", "source": "pull", "image": "registry.example.org/x:1"}
    made = plan(nvidia(), EMPTY, catalog=_catalog.load([entry], "a/b", "1", with_defaults=False), build_host="builder", variant="own")
    assert made["image"]["build"] is None
    assert made["parts"]["image"]["reason"] == "not on this host"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_build_host": "", "image_push": False}, None),
        ({"image_build_host": " builder ", "image_push": False}, "builder"),
        ({"image_build_host": "builder", "image_push": True, "image_repository": "registry.example.org/ai/dify-gpu"}, "builder"),
        ({"image_build_host": "builder", "image_push": True, "image_repository": "localhost/dify-gpu"}, "builder"),
        ({"image_build_host": "builder", "image_push": True, "image_repository": "registry:5000/dify-gpu"}, "builder"),
    ],
)
def test_the_build_host_of_the_options(options, expected):
    assert _options._build_host(options) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"image_build_host": "", "image_push": True, "image_repository": "registry.example.org/x"},
            "dify_image_push.* needs .*dify_image_build_host",
        ),
        ({"image_build_host": "b", "image_push": True, "image_repository": "difyops/dify-gpu"}, "needs a registry in front"),
        ({"image_build_host": "b", "image_push": True, "image_repository": "dify-gpu"}, "needs a registry in front"),
    ],
)
def test_a_push_to_nowhere_is_refused(options, words):
    with pytest.raises(WishError, match=words):
        _options._build_host(options)


def test_hashes_of_torch_are_part_of_the_recipe():
    hashes = ["a" * 64, "b" * 64]
    (plain,) = [variant for variant in _catalog.load([], "a/b", "1") if variant.name == "cpu"]
    (hashed,) = [variant for variant in _catalog.load([{"name": "cpu", "torch_sha256": hashes}], "a/b", "1") if variant.name == "cpu"]
    assert _recipe.build_args(plain, "x", "1")["TORCH_SHA256"] == ""
    assert _recipe.build_args(hashed, "x", "1")["TORCH_SHA256"] == " ".join(hashes)


@pytest.mark.parametrize("hashes", [["A" * 64], ["a" * 63], ["sha256:" + "a" * 64], "a" * 64, [1]])
def test_hashes_that_are_none_are_refused(hashes):
    with pytest.raises(_catalog.CatalogError, match="torch_sha256 must"):
        _catalog.load([{"name": "cpu", "torch_sha256": hashes}], "a/b", "1")
