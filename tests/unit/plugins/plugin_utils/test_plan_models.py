# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models that are read from the host: which folders are looked at, and what a broken one means."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose, _plan_codes
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import nvidia, plan

LOCAL = _compose.Service(models_dir="/srv/models", environment={"EMBEDDING_MODEL": "/models/bge-m3", "RERANK_MODEL": "/models/x/reranker/"})
EMPTY = {"files": {}, "secrets": {}, "images": {}, "containers": [], "error": None}
WHOLE = {"exists": True, "complete": True, "reason": None}


@pytest.mark.parametrize(
    ("service", "folders"),
    [
        (LOCAL, ["/srv/models/bge-m3", "/srv/models/x/reranker"]),
        (_compose.Service(models_dir="/srv/models", environment={"EMBEDDING_MODEL": "/models"}), ["/srv/models"]),
        (_compose.Service(models_dir="/", environment={"EMBEDDING_MODEL": "/models/m"}), ["/m"]),
        (_compose.Service(models_dir="/srv/models", environment={"EMBEDDING_MODEL": "BAAI/bge-m3"}), []),
        (_compose.Service(models_dir="/srv/models", environment={"EMBEDDING_MODEL": "/models/../etc"}), []),
        (_compose.Service(models_dir="/srv/models", environment={"EMBEDDING_MODEL": "/models-of-others/m"}), []),
        (_compose.Service(environment={"EMBEDDING_MODEL": "/models/m"}), []),
        (_compose.Service(models_dir="/srv/models"), []),
    ],
)
def test_the_folders_that_are_looked_at(service, folders):
    assert plan(nvidia(), {}, service=service)["models"] == folders


def test_nothing_is_looked_at_when_the_service_is_not_part_of_the_run():
    assert plan(nvidia(), {}, service=LOCAL, apply=frozenset({"image"}))["models"] == []


def test_a_model_that_is_not_whole_blocks_the_service():
    broken = {"exists": True, "complete": False, "reason": "has no config.json"}
    made = plan(nvidia(), {**EMPTY, "models": {"/srv/models/bge-m3": WHOLE, "/srv/models/x/reranker": broken}}, service=LOCAL)
    assert made["status"] == "blocked" and made["render"]["files"] == {}
    (block,) = made["blocked"]
    assert block["code"] == _plan_codes.APP_NO_MODELS == "DG911"
    assert block["message"] == "RERANK_MODEL names the folder /srv/models/x/reranker on the host, which has no config.json"
    assert "dify_gpu_models_dir" in block["remedy"]
    assert made["parts"]["service"]["action"] == "blocked"
    assert made["parts"]["image"]["action"] == "blocked", "nothing of a blocked host is touched"


@pytest.mark.parametrize(
    "models",
    [
        {"/srv/models/bge-m3": WHOLE, "/srv/models/x/reranker": WHOLE},
        {"/srv/models/bge-m3": {"exists": None, "complete": None, "reason": "cannot be examined: Permission denied"}},
        {},
        None,
        [],
        {"/srv/models/bge-m3": None},
        {"/srv/models/bge-m3": {"complete": "no"}},
    ],
)
def test_what_is_whole_or_unknown_blocks_nothing(models):
    assert plan(nvidia(), {**EMPTY, "models": models}, service=LOCAL)["status"] == "change"


def test_facts_of_an_older_run_block_nothing():
    assert plan(nvidia(), EMPTY, service=LOCAL)["status"] == "change"
