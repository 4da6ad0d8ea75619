# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe digest: what changes it, and what does not."""

from __future__ import annotations

import os

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _catalog, _recipe

CATALOG = _catalog.load([], "difyops/dify-gpu", "0.1.0")


@pytest.fixture
def context(tmp_path):
    (tmp_path / "server").mkdir()
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    (tmp_path / "server" / "app.py").write_text("pass\n")
    return tmp_path


def test_the_same_tree_somewhere_else_has_the_same_digest(context, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "server").mkdir()
    (other / "server" / "app.py").write_text("pass\n")
    (other / "Dockerfile").write_text("FROM x\n")
    os.utime(other / "Dockerfile", (0, 0))
    assert _recipe.context_digest(str(context)) == _recipe.context_digest(str(other)) == _recipe.context_digest(f"{other}/")


def test_what_python_leaves_behind_does_not_count(context):
    before = _recipe.context_digest(str(context))
    (context / "server" / "__pycache__").mkdir()
    (context / "server" / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"x")
    (context / "server" / "old.pyc").write_bytes(b"x")
    assert _recipe.context_digest(str(context)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "server" / "app.py").write_text("pass \n"),
        lambda root: (root / "server" / "app.py").rename(root / "server" / "main.py"),
        lambda root: (root / "server" / "app.py").chmod(0o755),
        lambda root: (root / "new").write_text(""),
        lambda root: (root / "link").symlink_to("server"),
        lambda root: (root / "link").symlink_to("nowhere"),
    ],
)
def test_every_change_of_the_tree_counts(context, change):
    before = _recipe.context_digest(str(context))
    change(context)
    assert _recipe.context_digest(str(context)) != before


def test_where_one_file_ends_counts(tmp_path):
    for name, first, second in (("a", "1", "23"), ("b", "12", "3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(first)
        (tmp_path / name / "x").write_text(second)
    assert _recipe.context_digest(str(tmp_path / "a")) != _recipe.context_digest(str(tmp_path / "b"))


def test_every_build_argument_counts():
    args = _recipe.build_args(CATALOG[1], "python:3.12", "0.1.0")
    digests = {_recipe.digest("c", args), _recipe.digest("d", args)}
    digests |= {_recipe.digest("c", {**args, name: value + "x"}) for name, value in args.items()}
    assert len(digests) == 2 + len(args)
    assert _recipe.digest("c", dict(reversed(args.items()))) in digests


def test_the_cpu_variant_has_empty_cuda_arguments():
    args = _recipe.build_args(CATALOG[0], "python:3.12", "0.1.0")
    assert (args["CUDA_VERSION"], args["SM_LIST"], args["PTX"], args["VARIANT"]) == ("", "", "", "cpu")


def test_a_context_that_is_none(tmp_path, context):
    with pytest.raises(_recipe.RecipeError, match="not a directory"):
        _recipe.context_digest(str(tmp_path / "nowhere"))
    (context / "Dockerfile").unlink()
    with pytest.raises(_recipe.RecipeError, match="has no Dockerfile"):
        _recipe.context_digest(str(context))
    os.mkfifo(context / "Dockerfile")
    with pytest.raises(_recipe.RecipeError, match="neither a file nor a link"):
        _recipe.context_digest(str(context))
