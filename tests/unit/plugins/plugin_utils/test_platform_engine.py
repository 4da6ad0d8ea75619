# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of the container engine: where it comes from, what daemon.json is to say, and whom a restart would cut off."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _daemon_config
from ansible_collections.difyops.gpu.plugins.module_utils import _engine as _engine_facts
from ansible_collections.difyops.gpu.plugins.plugin_utils import (
    _engine,
    _engine_settings,
    _host,
    _planner,
    _platform_document,
    _toolkit_settings,
)
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError
from hypothesis import given
from hypothesis import strategies as st
from platform_scenarios import DIFY, ONCE, WEB, answer, bare, codes, engine, with_engine

# Whose Docker comes where there is none: system, its version, what is wished, the source, the first package, or the code.
SOURCES = [
    ("debian", "12", {}, "docker", "docker-ce"),
    ("debian", "13", {}, "distribution", "docker.io"),
    ("debian", "13", {"compose_min": "2.35.0"}, "docker", "docker-ce"),
    ("debian", "13", {"compose_min": "2.35.0", "source": "distribution"}, None, "DG802"),
    ("debian", "12", {"source": "distribution"}, None, "DG802"),
    ("ubuntu", "22.04", {}, "distribution", "docker.io"),
    ("ubuntu", "24.04", {"source": "docker"}, "docker", "docker-ce"),
    ("ubuntu", "26.04", {}, "distribution", "docker.io"),
    ("rocky", "9.5", {}, "docker", "docker-ce"),
    ("rocky", "10.0", {}, "docker", "docker-ce"),
    ("rocky", "9.5", {"source": "distribution"}, None, "DG801"),
    ("amzn", "2023", {}, None, "DG801"),
    ("amzn", "2023", {"source": "docker"}, None, "DG801"),
    ("sles", "15.6", {}, None, "DG801"),
]


@pytest.mark.parametrize("system, version, wished, source, what", SOURCES)
def test_where_the_first_docker_comes_from(system: str, version: str, wished: dict[str, Any], source: str | None, what: str) -> None:
    made = engine(bare(system, version), **wished)
    if source is None:
        assert (made["status"], codes(made), made["query"]) == ("blocked", [what], None)
        return
    assert (made["status"], made["action"], made["source"], made["activation"]) == ("change", "install", source, "start")
    assert made["query"]["alternatives"][0][0] == what and made["query"]["minimum"] == "25.0.0" and made["exact"] is False
    assert made["query"]["subject"] == "engine" and made["service"] == {"enabled": True, "running": True} and made["guard"] is None


def test_amazon_linux_takes_a_compose_plugin_that_is_there() -> None:
    facts = bare("amzn", "2023")
    facts["engine"]["compose_version"] = "2.40.0"
    assert engine(facts)["query"]["alternatives"] == [["docker"]]


def test_what_comes_is_known_in_steps() -> None:
    facts = bare("debian", "12")
    asked = engine(facts)
    assert asked["repository"] is None and "exact version after the package lists are read" in asked["expects"]
    nothing = answer(asked["query"], None)
    added = engine(facts, nothing)
    assert (added["exact"], added["repository"]["change"]) == (False, True)
    source = added["repository"]["files"]["/etc/apt/sources.list.d/difyops-docker.sources"]["content"]
    assert "URIs: https://download.docker.com/linux/debian/" in source and "Suites: bookworm" in source and "Components: stable" in source
    assert added["repository"]["key"]["fingerprint"] == "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
    sources = [{"file": "/etc/apt/sources.list.d/difyops-docker.sources", "uris": ["https://download.docker.com/linux/debian/"]}]
    sources[0].update(suites=["bookworm"], components=["stable"])
    settled = engine(facts, answer(asked["query"], "29.1.0", sources=sources))
    assert (settled["exact"], settled["to"], settled["blocked"]) == (True, "29.1.0", [])
    assert settled["packages"]["specs"][0] == "docker-ce=29.1.0-1" and len(settled["packages"]["specs"]) == 5
    old = engine(facts, answer(asked["query"], "24.0.7", sources=sources))
    assert codes(old) == ["DG802"] and old["packages"]["install"] == []


SILENT: dict[str, Any] = {"running": False, "error": "timed out", "containers": None, "gpu_containers": None, "live_restore": None}
STOPPED: dict[str, Any] = {
    **SILENT,
    "version": None,
    "cdi_enabled": None,
    "service": {"enabled": True, "active": False},
}

# What becomes of a Docker that runs: what it is like, what is wished, action, activation, or the code that blocks.
RUNNING = [
    ({}, {}, "none", "none"),
    ({}, {"source": "distribution"}, "none", "none"),
    ({"version": "20.10.24", "cdi_enabled": False}, {}, "none", "none"),
    ({"version": "26.1.5", "cdi_enabled": False}, {}, "configure", "restart"),
    ({"version": "26.1.5", "cdi_enabled": False}, {"cdi": False}, "none", "none"),
    ({"version": "26.1.5", "cdi_enabled": False}, {"restart": "never"}, "DG806", None),
    ({"cdi_enabled": False, "daemon_config": {"content": {"features": {"cdi": False}}}}, {}, "DG818", None),
    ({"cdi_enabled": False, "daemon_config": {"content": {"features": {"cdi": False}}}}, {"cdi": True}, "configure", "restart"),
    ({"cdi_enabled": False, "daemon_config": {"content": {"features": {"cdi": True}}}}, {}, "configure", "restart"),
    ({}, {"live_restore": True}, "configure", "reload"),
    ({"live_restore": True, "daemon_config": {"content": {"live-restore": True}}}, {"live_restore": True}, "none", "none"),
    ({"live_restore": False, "daemon_config": {"content": {"live-restore": True}}}, {"live_restore": True}, "configure", "reload"),
    ({}, {"daemon_config": {"log-driver": "local"}}, "configure", "restart"),
    ({}, {"daemon_config": {"debug": True}}, "configure", "reload"),
    ({"daemon_config": {"content": {"debug": True, "x": 1}}}, {"daemon_config": {"debug": True}}, "none", "none"),
    # Of a secret that an operator has in the file nobody can tell more than that something else was asked for.
    (
        {"daemon_config": {"content": {"proxies": {"http-proxy": "http://********@p"}}}},
        {"daemon_config": {"proxies": {"http-proxy": "http://p"}}},
        "configure",
        "restart",
    ),
    ({}, {"daemon_config": {"features": {"buildkit": True}}}, "configure", "reload"),
    ({"daemon_config": {"content": {"log-opts": {"a": "1"}}}}, {"daemon_config": {"log-opts": {"a": "1"}}}, "none", "none"),
    ({"service": {"enabled": False, "active": True}}, {}, "configure", "none"),
    ({"running": False, "error": "no socket", "service": {"enabled": True, "active": False}}, {}, "configure", "start"),
    ({"running": False, "error": "timed out"}, {}, "DG721", None),
    ({"running": False, "error": "x", "daemon_config": {"error": "line 3"}}, {}, "DG807", None),
    (
        {"running": False, "error": "x", "daemon_config": {"error": "line 3"}, "service": {"enabled": True, "active": False}},
        {"invalid_daemon_config": "replace"},
        "configure",
        "start",
    ),
    # Nobody can tell which containers run under a Docker that does not answer, whatever is to change.
    ({**SILENT, "daemon_config": {"error": "line 3"}}, {"invalid_daemon_config": "replace"}, "DG721", None),
    (SILENT, {"daemon_config": {"log-driver": "local"}}, "DG721", None),
    ({**SILENT, "broken": [{"name": "docker-ce", "version": "1", "state": "half-configured"}]}, {}, "DG721", None),
    ({**SILENT, "version": None, "packages": [{"name": "docker-ce", "version": "5:27.0.1-1"}]}, {"version": "28"}, "DG721", None),
    ({**SILENT, "compose_version": None}, {"restart": "if_needed"}, "DG721", None),
    ({**SILENT, "journal": {"activation": "restart", "containers": [WEB]}}, {"restart": "if_needed"}, "DG721", None),
    ({**SILENT, "service": {"enabled": True, "active": None}}, {}, "DG721", None),
    # One that is stopped is as new as its package.
    ({**STOPPED, "packages": [{"name": "docker-ce", "version": "5:28.5.2-1~debian.13~trixie"}]}, {}, "configure", "start"),
    ({**STOPPED, "packages": [{"name": "docker.io", "version": "20.10.24+dfsg1-1"}]}, {"version": "20.10"}, "configure", "start"),
    # A snap, or what somebody put there by hand: docker.service and daemon.json are not its own.
    ({"version": "27.2.0", "cdi_enabled": False, "origin": None, "packages": [], "service": None}, {}, "DG801", None),
    ({"version": "27.2.0", "cdi_enabled": False, "service": None}, {}, "DG801", None),
    ({"origin": None, "packages": [], "service": None}, {}, "none", "none"),
    # What an interrupted run was about is done again.
    ({"journal": {"phase": "restart", "activation": "restart", "containers": []}}, {}, "configure", "restart"),
    ({"journal": {"phase": "restart", "activation": "reload", "containers": []}}, {}, "configure", "reload"),
    ({"journal": {"phase": "packages", "activation": "start", "containers": []}}, {}, "configure", "restart"),
    ({"journal": {"phase": "restart", "activation": "start", "containers": []}}, {}, "configure", "none"),
    ({"journal": {"phase": "restart", "activation": None, "containers": []}}, {}, "configure", "none"),
    ({"journal": {"phase": "restart", "activation": "odd", "containers": []}}, {}, "configure", "none"),
    ({"journal": {"activation": "restart", "containers": []}, "containers": [DIFY]}, {}, "DG806", None),
    ({"journal": {"activation": "restart", "containers": []}, "containers": [DIFY]}, {"restart": "if_needed"}, "configure", "restart"),
    ({"journal": {"activation": "restart", "containers": []}, "containers": None}, {"restart": "if_needed"}, "DG806", None),
    ({"compose_version": None}, {}, "upgrade", "none"),
    ({"compose_version": "2.20.3"}, {}, "upgrade", "none"),
    ({"compose_version": None, "origin": None}, {}, "DG801", None),
    ({"version": "27.0.1"}, {"version": "28"}, "upgrade", "restart"),
    ({"version": "28.0.1"}, {"version": "28"}, "none", "none"),
    ({"version": "28.0.1"}, {"version": "27"}, "DG812", None),
    ({"version": "27.0.1", "pins": [{"kind": "hold", "name": "docker-ce"}]}, {"version": "28"}, "DG777", None),
    ({"version": "27.0.1", "pins": [{"kind": "hold", "name": "docker-ce"}]}, {"version": "28", "hold": True}, "upgrade", "restart"),
    ({}, {"hold": True}, "configure", "none"),
    ({"broken": [{"name": "docker-compose-plugin", "version": "1", "state": "half-configured"}]}, {}, "configure", "none"),
    # What finishes Docker itself restarts it.
    ({"broken": [{"name": "docker-ce", "version": "1", "state": "half-configured"}]}, {}, "configure", "restart"),
    ({"broken": [{"name": "docker-ce", "version": "1", "state": "half-configured"}], "containers": [WEB]}, {}, "DG806", None),
    ({"name": "podman"}, {}, "DG726", None),
]


@pytest.mark.parametrize("like, wished, action, activation", RUNNING)
def test_what_becomes_of_a_docker_that_is_there(like: dict[str, Any], wished: dict[str, Any], action: str, activation: str | None) -> None:
    made = engine(with_engine(bare(), **like), **wished)
    if activation is None:
        assert (made["status"], codes(made), made["activation"], made["daemon_config"]) == ("blocked", [action], "none", None)
    else:
        assert (made["blocked"], made["action"], made["activation"]) == ([], action, activation)


def test_a_file_that_is_replaced_keeps_what_containers_need_to_start_again() -> None:
    like = {"version": "26.1.5", "cdi_enabled": True, "runtimes": ["runc", "nvidia"], "daemon_config": {"error": "line 2"}}
    made = engine(with_engine(bare(), **like), daemon_config={"log-driver": "local"}, invalid_daemon_config="replace")
    assert made["daemon_config"]["settings"] == {
        "log-driver": "local", "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}, "features": {"cdi": True}
    }
    assert (made["activation"], "CDI is to stay on" in made["reason"]) == ("restart", True)
    # It stays as it is where nobody said that it may go; and a Docker that has CDI on by itself need not be told.
    assert engine(with_engine(bare(), **like))["daemon_config"] is None
    newer = {**like, "version": "28.5.2", "runtimes": ["runc"]}
    made = engine(with_engine(bare(), **newer), daemon_config={"log-driver": "local"}, invalid_daemon_config="replace")
    assert made["daemon_config"]["settings"] == {"log-driver": "local"}


def test_a_distributions_docker_without_compose_names_the_other_source() -> None:
    facts = with_engine(bare("debian", "12"), version="20.10.24", compose_version=None, origin="distribution", cdi_enabled=False)
    refused = engine(facts)
    assert codes(refused) == ["DG802"] and "container_engine_source) to docker" in refused["blocked"][0]["remedy"]
    taken = engine(facts, source="docker")
    assert (taken["action"], taken["source"], taken["activation"], taken["query"]["minimum"]) == ("upgrade", "docker", "restart", "25.0.0")
    gone = [{"name": "docker.io", "from": "20.10.24"}, {"name": "runc", "from": "1.1"}]
    assert engine(facts, answer(taken["query"], "29.1.0", remove=gone), source="docker")["blocked"] == []
    others = engine(facts, answer(taken["query"], "29.1.0", remove=[*gone, {"name": "podman", "from": "4"}]), source="docker")
    assert codes(others) == ["DG803"] and "podman" in others["blocked"][0]["message"] and "runc" not in others["blocked"][0]["message"]


def test_who_is_cut_off_by_a_restart() -> None:
    like = {"version": "26.1.5", "cdi_enabled": False, "containers": [WEB, DIFY, ONCE], "gpu_containers": [{"id": "bb22"}]}
    for policy in ("never", "if_idle"):
        made = engine(with_engine(bare(), **like), restart=policy)
        assert codes(made) == ["DG806"] and "web, dify-gpu-dify-gpu-1, once" in made["blocked"][0]["message"]
        assert "once would not come back" in made["blocked"][0]["remedy"]
    made = engine(with_engine(bare(), **like), restart="if_needed")
    assert made["guard"]["again"] == [{"id": "aa11", "name": "web"}] and codes(made, "warnings") == ["DG806"]
    assert [(one["name"], one["gpu"], one["comes_back"]) for one in made["guard"]["containers"]] == [
        ("web", False, False),
        ("dify-gpu-dify-gpu-1", True, True),
        ("once", False, False),
    ]
    assert codes(engine(with_engine(bare(), **{**like, "containers": None}), restart="if_needed")) == ["DG806"]
    lasting = {**like, "live_restore": True, "daemon_config": {"content": {"live-restore": True}}}
    outlived = engine(with_engine(bare(), **lasting))
    assert (outlived["blocked"], outlived["guard"], outlived["activation"]) == ([], None, "restart")
    packages = engine(with_engine(bare(), **{**lasting, "cdi_enabled": True}), version="28")
    assert codes(packages) == ["DG806"]


def test_a_plugin_that_brings_another_docker_with_it_asks_for_consent() -> None:
    facts = with_engine(bare(), compose_version=None, containers=[WEB])
    asked = engine(facts)
    assert asked["query"]["alternatives"] == [["docker-compose-plugin"]] and asked["guard"] is None and asked["blocked"] == []
    alone = engine(facts, answer(asked["query"], "2.40.3"))
    assert (alone["blocked"], alone["activation"], alone["to"]) == ([], "none", "28.5.2")
    both = answer(asked["query"], "2.40.3")
    both["install"].append({"name": "docker-ce", "from": "5:28.5.2-1", "to": "5:29.1.0-1"})
    assert codes(engine(facts, both)) == ["DG806"] and engine(facts, both, restart="if_needed")["to"] == "29.1.0"
    own = [{"file": "/etc/apt/sources.list.d/docker.list", "uris": ["https://download.docker.com/linux/debian"], "suites": ["trixie"]}]
    old = engine(facts, answer(asked["query"], "2.20.0", sources=own))
    assert codes(old) == ["DG802"] and "container_engine_compose_min" in old["blocked"][0]["remedy"]
    assert asked["query"]["minimum"] == "2.24.0" and "to docker" not in old["blocked"][0]["remedy"]


def test_an_interrupted_run_is_finished() -> None:
    facts = with_engine(bare(), containers=[DIFY], journal={"schema": 1, "containers": [WEB, DIFY]})
    made = engine(facts)
    assert (made["action"], made["restart"], codes(made, "warnings")) == ("configure", [{"id": "aa11", "name": "web"}], ["DG787"])
    left = engine(facts, state="unmanaged")
    assert (left["status"], left["action"]) == ("ok", "none")


def test_an_engine_left_alone_blocks_nothing() -> None:
    made = engine(with_engine(bare(), compose_version=None, origin=None), state="unmanaged")
    assert (made["status"], made["blocked"], codes(made, "warnings")) == ("ok", [], ["DG801"])


@pytest.mark.parametrize(
    "given_settings, said",
    [
        ({"source": "snap"}, "engine.source (container_engine_source) must be one of auto, distribution, docker; found 'snap'"),
        ({"version": 28.5}, "must be quoted in YAML"),
        ({"daemon_config": {"live-restore": True}}, "which is engine.live_restore (container_engine_live_restore)"),
        ({"daemon_config": {"features": {"cdi": False}}}, "which is engine.cdi (container_engine_cdi)"),
        ({"daemon_config": []}, "must be a dictionary of keys"),
        ({"cdi": "perhaps"}, "must be one of auto, true, false"),
        ({"repository": {"url": "https://u:p@x/"}}, "has credentials"),
        ({"nonsense": 1}, "which is none of its settings"),
        ("text", "engine must be a dictionary of settings"),
    ],
)
def test_one_sentence_for_each_mistake(given_settings: Any, said: str) -> None:
    with pytest.raises(WishError) as caught:
        _engine_settings.parse(given_settings)
    assert said in str(caught.value) and str(caught.value).count("\n") == 0


LIVE: dict[str, Any] = {"live_restore": True, "containers": [WEB], "daemon_config": {"content": {"live-restore": True}}}

# Where live-restore is on: what is there, what is wished, and whether containers outlive the restart.
OUTLIVING = [
    ({**LIVE, "version": "26.1.5", "cdi_enabled": False}, {}, True),
    (LIVE, {"daemon_config": {"log-driver": "journald", "log-opts": {"tag": "x"}}}, True),
    (LIVE, {"daemon_config": {"log-driver": "journald"}, "live_restore": False}, False),
    ({**LIVE, "daemon_config": {"content": {"live-restore": False}}}, {"daemon_config": {"log-driver": "journald"}}, False),
    ({**LIVE, "daemon_config": {"content": {}}}, {"daemon_config": {"log-driver": "journald"}}, False),
    ({**LIVE, "live_restore": False}, {"daemon_config": {"log-driver": "journald"}}, False),
    (LIVE, {"daemon_config": {"bip": "10.9.0.1/24"}}, False),
    (LIVE, {"daemon_config": {"data-root": "/srv/docker"}}, False),
    (LIVE, {"daemon_config": {"features": {"containerd-snapshotter": True}}}, False),
    ({**LIVE, "journal": {"phase": "restart", "activation": "restart", "containers": []}}, {}, True),
    ({**LIVE, "journal": {"phase": "packages", "activation": "restart", "containers": []}}, {}, False),
    (
        {**LIVE, "journal": {"activation": "restart"}, "daemon_config": {"content": {"live-restore": True, "bip": "10.9.0.1/24"}}},
        {"daemon_config": {"bip": "10.9.0.1/24"}},
        False,
    ),
]


@pytest.mark.parametrize("like, wished, outlive", OUTLIVING)
def test_live_restore_is_trusted_where_it_holds_only(like: dict[str, Any], wished: dict[str, Any], outlive: bool) -> None:
    made = engine(with_engine(bare(), **like), **wished)
    assert (made["activation"], codes(made)) == (("restart", []) if outlive else ("none", ["DG806"]))
    if not outlive:
        assert "web" in made["blocked"][0]["message"]


def test_a_stopped_docker_that_has_cdi_on_by_itself_need_not_be_told() -> None:
    new = engine(with_engine(bare(), **STOPPED, packages=[{"name": "docker-ce", "version": "5:28.5.2-1~debian.13~trixie"}]))
    assert (new["daemon_config"], new["from"]) == (None, "28.5.2")
    old = engine(with_engine(bare(), **STOPPED, packages=[{"name": "docker.io", "version": "26.1.5+dfsg1-9+b9"}]))
    assert old["daemon_config"]["settings"] == {"features": {"cdi": True}}
    older = engine(with_engine(bare(), **STOPPED, packages=[{"name": "docker.io", "version": "20.10.24+dfsg1-1"}]))
    assert older["daemon_config"] is None


@pytest.mark.parametrize("whole", [True, False])
def test_no_source_brings_an_older_docker(whole: bool) -> None:
    facts = with_engine(bare(), version="29.1.0", compose_version=None)
    wished = {"source": "distribution"} if whole else {}
    asked = engine(facts, **wished)
    said = answer(asked["query"], "26.1.5" if whole else "2.40.3")
    if not whole:
        said["install"].append({"name": "docker-ce", "from": "5:29.1.0-1", "to": "5:26.1.5-1"})
    made = engine(facts, said, **wished)
    assert (codes(made), made["packages"]["specs"]) == (["DG812"], []) and "26.1.5" in made["blocked"][0]["message"]
    said = answer(asked["query"], "29.1.0" if whole else "2.40.3")
    assert engine(facts, said, **wished)["blocked"] == []


def test_somebody_elses_containerd_stays() -> None:
    def removing(facts: dict[str, Any]) -> dict[str, Any]:
        asked = engine(facts, source="docker")
        sources = [{"file": "/etc/apt/sources.list.d/docker.list", "uris": ["https://download.docker.com/linux/debian/"]}]
        sources[0].update(suites=["trixie"], components=["stable"])
        gone = [{"name": name, "from": "1.7.24~ds1-6"} for name in ("containerd", "runc")]
        return engine(facts, answer(asked["query"], "29.1.0", sources=sources, remove=gone), source="docker")

    node = bare()
    node["engine"]["packages"] = [{"name": name, "version": "1.7.24~ds1-6"} for name in ("containerd", "runc")]
    made = removing(node)
    assert codes(made) == ["DG803"] and "containerd, runc" in made["blocked"][0]["message"]
    # An interrupted run took the former Docker away, and with a Docker there they are its own.
    node["engine"]["journal"] = {"phase": "packages", "activation": "restart", "containers": []}
    assert removing(node)["blocked"] == []
    former = with_engine(bare(), version="26.1.5", compose_version=None, origin="distribution")
    assert removing(former)["blocked"] == [] and len(removing(former)["packages"]["remove"]) == 2


@pytest.mark.parametrize("system, kind", [(("debian", "13"), "hold"), (("rocky", "9.5"), "versionlock")])
def test_rules_of_an_operator_stay_as_they_are(system: tuple[str, str], kind: str) -> None:
    names = ("docker-ce", "docker-ce-cli", "containerd.io")
    pins = [{"kind": kind, "name": "docker-ce", "value": "3:28.5.2-1.el9.*" if kind == "versionlock" else None, "path": None}]
    facts = with_engine(bare(*system), compose_version=None, packages=[{"name": name, "version": "1"} for name in names], pins=pins)
    own = [{"file": "/x", "uris": ["https://download.docker.com/linux/debian/"], "suites": ["trixie"], "components": ["stable"]}]
    said = answer(engine(facts)["query"], "2.40.3", sources=own)
    nothing = {"release": {"holds": [], "versionlocks": []}, "files": {}, "holds": [], "versionlocks": []}
    alone = engine(facts, said)
    assert (alone["blocked"], alone["pins"]) == ([], nothing)
    # With hold they are the role's own, and all of Docker's packages are held.
    every = engine(facts, said, hold=True)["pins"]
    assert every["release"] == {"holds": [], "versionlocks": []}
    assert every[f"{kind}s"] == ["docker-ce-cli", "containerd.io", "docker-compose-plugin"]
    said["install"].append({"name": "docker-ce", "from": "5:28.5.2-1", "to": "5:28.5.3-1"})
    assert codes(engine(facts, said)) == ["DG777"]
    released = engine(facts, said, hold=True)["pins"]["release"][f"{kind}s"]
    assert released == (["docker-ce"] if kind == "hold" else ["docker-ce-3:28.5.2-1.el9.*"])


@pytest.mark.parametrize(
    "daemon_config, key",
    [
        ({"proxies": {"http-proxy": "http://u:hunter2@p:3128"}}, "proxies.http-proxy"),
        ({"log-opts": {"tag": "x", "splunk-token": "hunter2"}}, "log-opts.splunk-token"),
        ({"log-opts": {"splunk-token": 7}}, "log-opts.splunk-token"),
        ({"labels": ["a=b", "api_key=hunter2"]}, "labels"),
        ({"registry-mirrors": ["https://********@m"]}, "registry-mirrors"),
        ({"secrets": {"a": ["hunter2"]}}, "secrets.a"),
    ],
)
def test_a_secret_is_refused_and_not_told(daemon_config: dict[str, Any], key: str) -> None:
    with pytest.raises(WishError) as caught:
        _engine_settings.parse({"daemon_config": daemon_config})
    said = str(caught.value)
    assert f"and {key} looks like one" in said and "docker login" in said and "hunter2" not in said and "\n" not in said


SCALARS = st.none() | st.booleans() | st.integers() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(JSON)
def test_what_is_taken_over_has_nothing_that_facts_would_mask(value: Any) -> None:
    wished = {"a": value} if not isinstance(value, dict) else value
    try:
        taken = _engine_settings.parse({"daemon_config": wished}).daemon_config
    except WishError:
        return
    assert _engine_facts.mask(taken) == taken


@pytest.mark.parametrize("version, knows", [("28.5.2", True), ("27.0.0", False)])
def test_without_cdi_gpus_are_given_by_the_runtime(version: str, knows: bool) -> None:
    host = _host.read(with_engine(bare(), version=version, cdi_enabled=knows))
    wished, toolkit = _engine_settings.parse({"cdi": False}), _toolkit_settings.parse({})
    found = _engine.decide(host, wished, toolkit, gpu=True)
    assert (found.injection, found.action, found.blocks) == ("runtime", "none", ())
    assert _engine.will_be(host, wished, toolkit, changed=True) == "runtime"


def test_what_a_reload_takes_over_is_what_the_module_says() -> None:
    for key in (*_daemon_config._RELOADED, "bip", "features", "unknown"):
        value: Any = {"x": True} if key == "features" else "x"
        if key == "live-restore":
            continue
        made = engine(with_engine(bare()), daemon_config={key: value})
        file = _daemon_config.File("/x", "/x", b"{}")
        pairs, gone = _daemon_config.wishes(made["daemon_config"]["settings"], [])
        assert made["activation"] == _daemon_config.needs(_daemon_config.edit(file, pairs, gone, False)), key


# --- whatever the facts are ---

CONTAINER = st.fixed_dictionaries(
    {"id": st.text("abcdef0123456789", min_size=4, max_size=8), "name": st.sampled_from(["a", "b"]), "auto_remove": st.booleans()},
    optional={"restart_policy": st.sampled_from(["no", "always", "on-failure", "unless-stopped", None, 3])},
)
ENGINES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["docker", None, "podman", 7]),
        "version": st.sampled_from(["20.10.24", "25.0.1", "26.1.5", "28.5.2", None, "odd", 3]),
        "running": st.sampled_from([True, False, None]),
        "compose_version": st.sampled_from([None, "2.20.0", "2.26.1", "2.40.0", []]),
        "cdi_enabled": st.sampled_from([True, False, None]),
        "live_restore": st.sampled_from([True, False, None]),
        "origin": st.sampled_from(["docker", "distribution", None]),
        "containers": st.none() | st.lists(CONTAINER, max_size=3),
        "gpu_containers": st.none() | st.lists(CONTAINER, max_size=2),
        "service": st.sampled_from([None, {"enabled": False, "active": True}, {"enabled": True, "active": False}, "x"]),
        "broken": st.sampled_from([[], [{"name": "docker-ce"}], [1]]),
        "pins": st.sampled_from([[], [{"kind": "hold", "name": "docker-ce"}], [{"kind": None}], None]),
        "journal": st.sampled_from(
            [None, {"containers": [WEB]}, {"error": "x"}, [], {"phase": "packages", "activation": "restart"}, {"activation": 3}]
        ),
        "daemon_config": st.sampled_from(
            [None, {}, {"content": {"features": {"cdi": False}}}, {"content": {"features": 3}}, {"error": "line 1"}]
        ),
    },
)
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["present", "unmanaged"]),
        "source": st.sampled_from(["auto", "docker", "distribution"]),
        "version": st.sampled_from(["", "28", "27.1.0"]),
        "cdi": st.sampled_from(["auto", True, False]),
        "live_restore": st.sampled_from(["", True, False]),
        "restart": st.sampled_from(["never", "if_idle", "if_needed"]),
        "hold": st.booleans(),
        "invalid_daemon_config": st.sampled_from(["refuse", "replace"]),
        "daemon_config": st.sampled_from([{}, {"debug": True}, {"log-driver": "local"}]),
    },
)
SYSTEMS = st.sampled_from([("debian", "12"), ("debian", "13"), ("ubuntu", "24.04"), ("rocky", "9.5"), ("amzn", "2023"), ("sles", "15.6")])


@given(SYSTEMS, ENGINES, WISHES, st.booleans())
def test_whatever_the_facts_are(system: tuple[str, str], like: dict[str, Any], wished: dict[str, Any], answered: bool) -> None:
    facts = with_engine(bare(*system), **like)
    made = engine(facts, **wished)
    if answered and made["query"] is not None:
        made = engine(facts, answer(made["query"], "28.5.2"), **wished)
    assert set(made) == set(_platform_document.engine())
    if made["status"] != "change":
        nothing = _platform_document.no_work()
        assert {key: made[key] for key in nothing} == nothing and made["service"] is None
        assert (made["status"] == "blocked") is bool(made["blocked"])
    if wished.get("state") == "unmanaged":
        assert made["status"] == "ok" and made["action"] == "none"
    running = like.get("running", True) is True and like.get("name", "docker") == "docker"
    if made["activation"] == "restart":
        # Nobody is stopped without consent, and nobody is stopped of whom nothing is known.
        live = like.get("live_restore") is True and made["to"] == made["from"]
        policy = wished.get("restart", "if_idle")
        assert running and policy != "never"
        assert live or (isinstance(like.get("containers", []), list) and (policy == "if_needed" or not like.get("containers")))
        gone = {one["id"] for one in like.get("containers") or [] if one["auto_remove"]}
        kept = {one["id"] for one in like.get("containers") or [] if not one["auto_remove"]}
        assert not {one["id"] for one in (made["guard"] or {"again": []})["again"]} & (gone - kept)


@given(SYSTEMS, ENGINES, WISHES)
def test_the_part_of_the_plan_agrees_with_the_document(system: tuple[str, str], like: dict[str, Any], wished: dict[str, Any]) -> None:
    facts = with_engine(bare(*system), **like)
    made = engine(facts, **wished)
    wishes = _planner.Wishes("host", engine=_engine_settings.parse(wished), apply=frozenset({"engine"}), context_digest=lambda: "x")
    from plan_documents import CATALOG

    plan = _planner.make_plan(facts, {}, CATALOG, wishes)
    if made["status"] == "change" and not plan["blocked"]:
        assert plan["parts"]["engine"]["action"] == made["action"] and plan["restart"]["engine"] is (made["activation"] == "restart")
    if made["status"] == "blocked":
        assert set(codes(made)) <= set(codes(plan))
    assert _host.read(facts).present
