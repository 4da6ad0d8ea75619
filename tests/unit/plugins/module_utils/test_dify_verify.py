# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on a deployed Dify: what its containers, its site and its model server say."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _console_models, _dify_verify, _docker
from ansible_collections.difyops.gpu.plugins.module_utils._console import Answer, Console
from hypothesis import given, settings
from hypothesis import strategies as st

PUBLIC = "difyai123456"
DIGEST = hashlib.sha256(PUBLIC.encode()).hexdigest()
SERVICES = [{"name": "api", "image": "langgenius/dify-api:1.17.1"}, {"name": "init", "image": "busybox:1", "one_shot": True}]


class Site(Console):
    def __init__(self, document=None, status=200):
        super().__init__("http://127.0.0.1", tries=1)
        self.document, self.status = document if document is not None else {"step": "finished"}, status

    def ask(self, _method, _path, _body=None, data=None, content_type=""):
        return Answer(self.status, self.document, str(self.document), {"x-version": "1.17.1"})


def container(service, image, status="running", environment=(), **state):
    config = {"Image": image, "Env": list(environment), "Labels": {"com.docker.compose.service": service}}
    return {"Config": config, "State": {"Status": status, **state}}


def wanted(**more):
    given_ = {
        "project": "dify", "services": SERVICES, "version": "1.17.1", "forbidden": {"DB_PASSWORD": [DIGEST]}, "email": "",
        "password": str, "provider": "p", "models": [], "key": str,
    }
    return _dify_verify.Wanted(**{**given_, **more})


def good():
    return [container("api", SERVICES[0]["image"], Health={"Status": "healthy"}), container("init", "busybox:1", "exited", ExitCode=0)]


def prove(containers, **more):
    return _dify_verify.prove(wanted(**more), Site(), lambda _project: containers)


def test_what_runs_as_planned_is_proven():
    verdict = prove(good())
    assert (verdict["overall"], verdict["code"], verdict["schema"]) == ("proven", None, 1)


@pytest.mark.parametrize(
    ("containers", "words"),
    [
        (good()[1:], "api has no container"),
        ([container("api", "langgenius/dify-api:1.16.1"), good()[1]], "1.16.1 in place of"),
        ([container("api", SERVICES[0]["image"], "restarting"), good()[1]], "api is restarting"),
        ([container("api", SERVICES[0]["image"], Health={"Status": "unhealthy"}), good()[1]], "api is unhealthy"),
        ([good()[0], container("init", "busybox:1", "exited", ExitCode=3)], "init ended with 3"),
    ],
)
def test_a_service_that_differs_is_named(containers, words):
    verdict = prove(containers)
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG914")
    assert words in verdict["summary"]


def test_a_public_default_is_named_and_not_shown():
    verdict = prove([container("api", SERVICES[0]["image"], environment=[f"DB_PASSWORD={PUBLIC}"]), good()[1]])
    assert verdict["code"] == "DG913"
    assert "api has DB_PASSWORD" in verdict["summary"]
    assert PUBLIC not in str(verdict)
    other = container("api", SERVICES[0]["image"], environment=["DB_PASSWORD=other", "X=" + PUBLIC])
    assert prove([other, good()[1]])["overall"] == "proven"


def test_an_engine_that_does_not_answer_is_a_verdict():
    def away(_project):
        raise _docker.DockerUnavailable("the Docker engine cannot be asked")

    verdict = _dify_verify.prove(wanted(), Site(), away)
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG914")


FIELDS = ["Config", "State", "Env", "Labels", "Health", "data", "step"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=10,
)
CONTAINERS = st.lists(st.dictionaries(st.sampled_from(["Config", "State", "Id"]), JSON), max_size=3)


@settings(max_examples=150, deadline=None)
@given(CONTAINERS, JSON, st.sampled_from([200, 302, 400, 500]), JSON)
def test_no_answer_of_engine_or_site_raises(containers, document, status, digests):
    model = _console_models.Model("m", "text-embedding", "http://x/v1")
    asked = wanted(email="a@example.org", models=[model], forbidden={"A": digests})
    verdict = _dify_verify.prove(asked, Site(document, status), lambda _project: containers)
    assert verdict["overall"] in ("failed", "unproven", "proven")
    assert (verdict["overall"] == "proven") == (verdict["code"] is None)
