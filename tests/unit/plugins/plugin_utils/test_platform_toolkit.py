# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of the container toolkit: its version, its pins, NVIDIA's runtime and the CDI specification."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _daemon_config, _dnf
from ansible_collections.difyops.gpu.plugins.plugin_utils import _platform_document, _toolkit, _toolkit_settings, _toolkit_source
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError
from hypothesis import given
from hypothesis import strategies as st
from platform_scenarios import PACKAGES, answer, bare, codes, toolkit, with_engine, with_toolkit

PREF = "/etc/apt/preferences.d/difyops-nvidia-container-toolkit.pref"
MARK = "/var/lib/difyops/nvidia_container_toolkit/rules"
MARKED = {MARK: {"sha256": "x", "mode": "0644"}}
OLD_SPEC = {"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": ["0", "all"], "stale": True, "reasons": ["made for 535"]}


def host(version: str | None = "1.19.1", **changed: Any) -> dict[str, Any]:
    facts = with_engine(bare())
    return with_toolkit(facts, version, **changed) if version else facts


# What is there, what is wished, action, the version that is asked for and the floor; or the code that blocks.
VERSIONS = [
    (None, {}, "install", None, "1.19.1"),
    (None, {"version": "1.19.1"}, "install", "1.19.1", None),
    (None, {"version": "1.17.8"}, "DG811", None, None),
    (None, {"version": "1.17.8", "allow_unsafe": True}, "install", "1.17.8", None),
    ("1.17.8", {}, "upgrade", None, "1.19.1"),
    ("1.17.8", {"version": "1.17.8"}, "DG811", None, None),
    ("1.17.8", {"allow_unsafe": True}, "upgrade", None, "1.19.1"),
    ("1.19.1", {}, "none", None, None),
    ("1.19.1", {"version": "1.20.1"}, "upgrade", "1.20.1", None),
    ("1.20.1", {"version": "1.19.1"}, "DG812", None, None),
    ("1.20.1", {"version": "1.19.1", "allow_downgrade": True}, "upgrade", "1.19.1", None),
    ("1.20.1", {"version": "1.19.0", "allow_downgrade": True}, "DG811", None, None),
]


@pytest.mark.parametrize("there, wished, action, version, minimum", VERSIONS)
def test_which_version_comes(there: str | None, wished: dict[str, Any], action: str, version: str | None, minimum: str | None) -> None:
    made = toolkit(host(there), **wished)
    if action.startswith("DG"):
        assert (codes(made), made["query"]) == ([action], None)
        return
    assert (made["blocked"], made["action"]) == ([], action)
    if action != "none":
        query = made["query"]
        assert (query["version"], query["minimum"], query["lockstep"], query["alternatives"]) == (version, minimum, True, [list(PACKAGES)])
        assert made["cdi"]["how"] == ("generate" if version == "1.17.8" else "refresh")


@pytest.mark.parametrize(
    "like, reason", [({"lockstep": False}, "different versions"), ({"broken": [{"name": PACKAGES[3]}]}, "half installed")]
)
def test_packages_that_do_not_fit_together(like: dict[str, Any], reason: str) -> None:
    made = toolkit(host("1.19.1", **like))
    assert (
        reason in made["reason"]
        and made["action"] == ("upgrade" if "lockstep" in like else "configure")
        and made["repair"] is ("broken" in like)
    )


def test_all_four_come_in_one_version_and_stay() -> None:
    facts = host("1.17.8")
    query = toolkit(facts)["query"]
    sources = [{"file": "/etc/apt/sources.list.d/x.list", "uris": ["https://nvidia.github.io/libnvidia-container/stable/deb/amd64/"]}]
    made = toolkit(facts, answer(query, "1.20.1", sources=sources))
    assert (made["exact"], made["to"], made["repository"]) == (True, "1.20.1", None)
    assert made["packages"]["specs"] == [f"{name}=1.20.1-1" for name in PACKAGES]
    assert made["pins"]["holds"] == list(PACKAGES) and list(made["pins"]["files"]) == [PREF, MARK]
    assert "Pin: version 1.20.1-*" in made["pins"]["files"][PREF]["content"]
    missing = toolkit(
        facts,
        answer(
            query, None, sources=sources, available={name: ["1.20.1"] for name in PACKAGES[:3]}, error="libnvidia-container1 is missing"
        ),
    )
    assert codes(missing) == ["DG813"] and "libnvidia-container1 is missing" in missing["blocked"][0]["message"]
    old = toolkit(facts, answer(query, None, sources=sources, available={PACKAGES[0]: ["1.17.8"]}, error=None))
    assert codes(old) == ["DG802"] and "there are 1.17.8" in old["blocked"][0]["message"]
    sneaked = toolkit(facts, answer(query, "1.18.2", sources=sources))
    assert codes(sneaked) == ["DG802"] and sneaked["packages"]["install"] == []


def test_the_repository_is_added_with_its_key() -> None:
    facts = host(None)
    made = toolkit(facts, answer(toolkit(facts)["query"], None))
    files = made["repository"]["files"]
    assert "https://nvidia.github.io/libnvidia-container/stable/deb/amd64/" in next(iter(files.values()))["content"]
    assert made["repository"]["key"]["fingerprint"] == "C95B321B61E88C1809C4F759DDCAE044F796ECB0" and made["exact"] is False
    rocky = with_engine(bare("rocky", "9.5"))
    made = toolkit(rocky, answer(toolkit(rocky)["query"], None))
    assert "/etc/yum.repos.d/difyops-nvidia-container-toolkit.repo" in made["repository"]["files"]


def test_a_mirror_that_nobody_reaches_is_called_that() -> None:
    facts = with_engine(bare("rocky", "9.5"))
    mirror = {"url": "http://mirror.example/toolkit/", "key": "http://mirror.example/key.asc"}
    file = "/etc/yum.repos.d/difyops-nvidia-container-toolkit.repo"
    read = [{"file": file, "uris": ["http://mirror.example/toolkit/"], "suites": ["difyops"], "components": []}]
    error = "No package nvidia-container-toolkit. The lists of difyops were not read on this host yet."
    silent = answer(toolkit(facts, repository=mirror)["query"], None, sources=read, error=error)
    made = toolkit(facts, silent, repository=mirror)
    assert codes(made) == ["DG783"] and "http://mirror.example/toolkit/" in made["blocked"][0]["message"]
    with open(inspect.getfile(_dnf), encoding="utf-8") as module:
        assert "were not read on this host" in module.read()


def test_rules_of_others_stay_unless_they_may_go() -> None:
    hold = {"kind": "hold", "name": PACKAGES[0], "value": None, "path": None}
    assert codes(toolkit(host("1.17.8", pins=[hold]))) == ["DG777"]
    assert toolkit(host("1.17.8", pins=[hold]), foreign_pins="replace")["blocked"] == []
    assert toolkit(host("1.17.8", pins=[hold], managed={PREF: {"sha256": "x", "mode": "0644"}}))["blocked"] == []
    # The role's repository alone says nothing of a hold: its own goes with a preference. A lock of versions has nothing else.
    source = {"/etc/apt/sources.list.d/difyops-nvidia-container-toolkit.sources": {"sha256": "x", "mode": "0644"}}
    assert codes(toolkit(host("1.17.8", pins=[hold], managed=source))) == ["DG777"]
    lock = {**hold, "kind": "versionlock"}
    repo = {"/etc/yum.repos.d/difyops-nvidia-container-toolkit.repo": {"sha256": "x", "mode": "0644"}}
    assert codes(toolkit(host("1.17.8", pins=[lock], managed=repo))) == ["DG777"]
    assert toolkit(host("1.17.8", pins=[lock], managed=MARKED))["blocked"] == []
    assert codes(toolkit(host("1.17.8", pins=[lock], managed={"/etc/cdi/nvidia.yaml": {"sha256": "x", "mode": "0644"}}))) == ["DG777"]
    driver = {"kind": "preference", "name": "*nvidia*", "value": "version 580.95.05-* priority 1000", "path": "/etc/apt/preferences.d/nv"}
    assert toolkit(host("1.17.8", pins=[driver]), version="1.20.1")["blocked"] == []
    away = {"kind": "preference", "name": "*nvidia-container*", "value": "version * priority -1", "path": "/etc/apt/preferences.d/no"}
    assert "change /etc/apt/preferences.d/no" in toolkit(host("1.17.8", pins=[away]), foreign_pins="replace")["blocked"][0]["remedy"]


def test_pins_are_kept_up_where_the_toolkit_is_ours() -> None:
    assert toolkit(host())["status"] == "ok"
    sha = _toolkit_source.preferences("1.19.1")["sha256"]
    holds = [{"kind": "hold", "name": name, "value": None, "path": None} for name in PACKAGES]
    kept = host(managed={PREF: {"sha256": sha, "mode": "0644"}}, pins=holds)
    assert toolkit(kept)["status"] == "ok"
    loose = toolkit(host(managed={PREF: {"sha256": sha, "mode": "0644"}}, pins=holds[1:]))
    assert (loose["action"], loose["pins"]["holds"]) == ("configure", [PACKAGES[0]])
    freed = toolkit(kept, pin=False)
    assert freed["pins"]["files"] == {PREF: None} and freed["pins"]["release"]["holds"] == list(PACKAGES) and freed["pins"]["holds"] == []


# How the GPUs get into containers: what the engine is like, what is wished, the way, and what Docker needs for it.
WAYS = [
    ({}, {}, "cdi", None, "none"),
    ({"version": "26.1.5", "cdi_enabled": False}, {}, "cdi", None, "none"),
    ({"version": "20.10.24", "cdi_enabled": False}, {}, "runtime", ["runtimes"], "reload"),
    ({"version": "20.10.24", "cdi_enabled": False, "runtimes": ["nvidia"]}, {}, "runtime", None, "none"),
    (
        {"version": "24.0.7", "cdi_enabled": None, "daemon_config": {"content": {"runtimes": {"nvidia": {"path": "x"}}}}},
        {},
        "runtime",
        None,
        "reload",
    ),
    ({}, {"injection": "runtime"}, "runtime", ["runtimes"], "reload"),
]


@pytest.mark.parametrize("like, wished, way, keys, activation", WAYS)
def test_how_containers_get_their_gpus(
    like: dict[str, Any], wished: dict[str, Any], way: str, keys: list[str] | None, activation: str
) -> None:
    facts = with_toolkit(with_engine(bare(), **like))
    made = toolkit(facts, **wished)
    config = made["daemon_config"]
    assert (made["injection"], sorted(config["settings"]) if config else None, made["activation"]) == (way, keys, activation)
    assert (made["cdi"] is None or way == "cdi") and ("DG815" in codes(made, "warnings")) is (way == "runtime")


def test_the_specification_is_made_where_it_has_to_be() -> None:
    assert toolkit(host())["cdi"] is None
    none = toolkit(host(cdi={"directories": [], "specs": []}))["cdi"]
    assert (none["how"], none["output"], none["enable"]) == ("refresh", "/var/run/cdi/nvidia.yaml", False)
    by_hand = toolkit(host(cdi={"directories": [], "specs": []}, refresh=None))["cdi"]
    assert (by_hand["how"], by_hand["output"]) == ("generate", "/etc/cdi/nvidia.yaml")
    stale = toolkit(host(cdi={"specs": [{**OLD_SPEC, "path": "/var/run/cdi/nvidia.yaml"}]}))["cdi"]
    assert stale["reasons"] == ["/var/run/cdi/nvidia.yaml is out of date (made for 535)"]
    off = {"path_enabled": False, "path_active": False, "service_enabled": False, "feature_flags": []}
    assert toolkit(host(refresh=off))["cdi"]["enable"] is True
    assert toolkit(host(refresh=off), cdi_refresh=False)["cdi"] is None


@pytest.mark.parametrize("docker, flags", [("25.0.3", ["x", "no-additional-gids-for-device-nodes"]), ("26.1.0", None)])
def test_an_old_engine_gets_a_specification_that_it_can_read(docker: str, flags: list[str] | None) -> None:
    refresh = {"path_enabled": True, "service_enabled": True, "feature_flags": ["x"]}
    made = toolkit(with_toolkit(with_engine(bare(), version=docker), refresh=refresh))
    assert (made["cdi"]["feature_flags"] if made["cdi"] else None) == flags


def test_a_second_specification_goes_by_consent_only() -> None:
    both = host()
    both["toolkit"]["cdi"]["specs"].append(OLD_SPEC)
    left = toolkit(both)
    assert (left["status"], codes(left, "warnings")) == ("ok", ["DG816"])
    made = toolkit(both, stale_specs="remove")
    assert made["cdi"]["remove"] == ["/etc/cdi/nvidia.yaml"] and codes(made, "warnings") == []


def test_one_that_the_role_made_goes_by_itself() -> None:
    both = host(managed={"/etc/cdi/nvidia.yaml": {"sha256": "x", "mode": "0644"}})
    both["toolkit"]["cdi"]["specs"].append(OLD_SPEC)
    made = toolkit(both)
    assert made["cdi"]["remove"] == ["/etc/cdi/nvidia.yaml"] and codes(made, "warnings") == []
    assert set(toolkit(both, state="absent")["cdi"]["remove"]) == {"/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml"}


def test_without_a_driver_the_packages_come_and_no_specification() -> None:
    facts = host(None)
    facts["driver"]["loaded"] = None
    made = toolkit(facts)
    assert (made["action"], made["cdi"], made["blocked"], codes(made, "warnings")) == ("install", None, [], ["DG814"])


def test_running_containers_are_told_what_they_need() -> None:
    ways = ("cdi", "runtime", "request", "privileged")
    users = [{"id": f"id{how}", "name": how, "image": "x", "how": how} for how in ways]
    facts = with_toolkit(with_engine(bare(), gpu_containers=users), "1.17.8")
    made = toolkit(facts, legacy_containers="warn")
    assert [container["needs"] for container in made["containers"]] == ["restart", "recreate", "recreate", "nothing"]
    assert [note for note in made["warnings"] if note["code"] == "DG817" and "runtime, request" in note["message"]]
    refused = toolkit(facts)
    assert codes(refused) == ["DG817"] and "nvidia_container_toolkit_legacy_containers" in refused["blocked"][0]["remedy"]
    assert "DG817" not in codes(refused, "warnings") and {container["needs"] for container in refused["containers"]} == {"nothing"}
    safe = toolkit(with_toolkit(with_engine(bare(), gpu_containers=users)))
    assert {container["needs"] for container in safe["containers"]} == {"nothing"}


OFF = {"path_enabled": False, "service_enabled": False, "feature_flags": []}


@pytest.mark.parametrize(
    "like, wished, blocked",
    [
        ({"refresh": OFF}, {}, True),
        ({"broken": [{"name": PACKAGES[0]}]}, {}, True),
        ({}, {"version": "1.20.1"}, True),
        # A file is no unit, and to start a service again reads no unit anew.
        ({"managed": {PREF: {"sha256": "x", "mode": "0644"}}}, {}, False),
        ({"cdi": {"directories": [], "specs": []}}, {}, False),
    ],
)
@pytest.mark.parametrize("how, docker, legacy", [("runtime", "29.2.0", True), ("request", "29.1.5", True), ("request", "29.2.0", False)])
def test_whatever_has_units_read_anew_takes_consent(
    like: dict[str, Any], wished: dict[str, Any], blocked: bool, how: str, docker: str, legacy: bool
) -> None:
    facts = with_toolkit(with_engine(bare(), version=docker, gpu_containers=[{"id": "1", "name": "web", "how": how}]), **like)
    made = toolkit(facts, **wished)
    assert (made["status"], codes(made)) == (("blocked", ["DG817"]) if blocked and legacy else ("change", []))
    consented = toolkit(facts, legacy_containers="warn", **wished)
    assert consented["status"] == "change" and ("DG817" in codes(consented, "warnings")) is (blocked and legacy)
    assert consented["containers"][0]["needs"] == ("recreate" if blocked and legacy else "nothing")


def test_what_is_lost_is_not_made_good_by_an_older_version() -> None:
    apart = host("1.20.1", lockstep=False)
    apart["toolkit"]["packages"][PACKAGES[3]] = "1.19.1-1"
    query = toolkit(apart)["query"]
    assert query["minimum"] == "1.20.1" and toolkit(apart)["expects"].startswith("1.20.1 or newer")
    sources = [{"file": "/etc/apt/sources.list.d/x.list", "uris": ["https://nvidia.github.io/libnvidia-container/stable/deb/amd64/"]}]
    made = toolkit(apart, answer(query, "1.19.1", sources=sources))
    assert codes(made) == ["DG802"] and "nvidia_container_toolkit_allow_downgrade" in made["blocked"][0]["remedy"]
    assert made["pins"]["files"] == {} and made["packages"]["install"] == []
    assert toolkit(apart, allow_downgrade=True)["query"]["minimum"] == "1.19.1"
    # The other way round, too: the newest of the packages counts.
    apart = host("1.19.1", lockstep=False)
    apart["toolkit"]["packages"][PACKAGES[3]] = "1.20.1-1"
    assert toolkit(apart)["query"]["minimum"] == "1.20.1" and codes(toolkit(apart, version="1.19.1")) == ["DG812"]


def test_an_interrupted_run_gets_its_pins_by_the_next() -> None:
    assert toolkit(host())["status"] == "ok"
    debian = toolkit(host(managed=MARKED))
    assert debian["action"] == "configure" and debian["pins"]["holds"] == list(PACKAGES) and set(debian["pins"]["files"]) == {PREF, MARK}
    rocky = with_toolkit(with_engine(bare("rocky", "9.5")), managed=MARKED)
    locked = toolkit(rocky)
    assert locked["action"] == "configure" and locked["pins"]["versionlocks"] == list(PACKAGES)
    # What the role makes of a GPU says nothing of who brought the packages.
    assert toolkit(host(managed={"/etc/cdi/nvidia.yaml": {"sha256": "x", "mode": "0644"}}))["status"] == "ok"


def test_locks_of_the_role_go_with_the_wish_for_them() -> None:
    locks = [{"kind": "versionlock", "name": name, "value": "1.19.1-1.*", "path": None} for name in PACKAGES]
    rocky = with_toolkit(with_engine(bare("rocky", "9.5")), managed=MARKED, pins=locks)
    assert toolkit(rocky)["status"] == "ok"
    made = toolkit(rocky, pin=False)
    assert made["pins"]["files"] == {MARK: None} and made["pins"]["versionlocks"] == []
    assert len(made["pins"]["release"]["versionlocks"]) == 4
    theirs = with_toolkit(with_engine(bare("rocky", "9.5")), pins=locks)
    assert toolkit(theirs, pin=False)["status"] == "ok"


def test_what_is_made_without_the_units_outlives_a_reboot() -> None:
    stale = {**OLD_SPEC, "path": "/var/run/cdi/nvidia.yaml"}
    made = toolkit(host(cdi={"specs": [stale]}, refresh=OFF), cdi_refresh=False)["cdi"]
    assert (made["how"], made["output"], made["remove"], made["enable"]) == ("generate", "/etc/cdi/nvidia.yaml", [stale["path"]], False)
    by_others = toolkit(host(cdi={"specs": [stale]}), cdi_refresh=False)["cdi"]
    assert (by_others["how"], by_others["output"], by_others["remove"]) == ("refresh", stale["path"], [])


@pytest.mark.parametrize("active, blocked", [(True, ["DG776"]), (None, ["DG776"]), (False, [])])
def test_no_removal_while_nobody_can_tell_who_uses_it(active: bool | None, blocked: list[str]) -> None:
    silent = {"running": False, "error": "permission denied", "gpu_containers": None, "service": {"enabled": True, "active": active}}
    made = toolkit(with_toolkit(with_engine(bare(), **silent)), state="absent")
    assert codes(made) == blocked
    assert toolkit(with_toolkit(bare()), state="absent")["action"] == "remove"


@pytest.mark.parametrize("others", [{}, {"kata": {"path": "kata"}}])
def test_docker_forgets_the_runtime_by_a_reload(others: dict[str, Any]) -> None:
    content = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}, **others}, "default-runtime": "nvidia", "debug": True}
    facts = host()
    facts["engine"]["daemon_config"]["content"] = content
    made = toolkit(facts, state="absent")
    file = _daemon_config.File("x", "x", json.dumps(content).encode())
    done = _daemon_config.edit(file, *_daemon_config.wishes(made["daemon_config"]["settings"], made["daemon_config"]["absent"]), False)
    assert json.loads(done.after) == {"runtimes": others, "default-runtime": "runc", "debug": True}
    # The whole of it is taken over by what the role does.
    assert (made["activation"], _daemon_config.needs(done)) == ("reload", "reload")
    facts["engine"]["daemon_config"]["content"] = json.loads(done.after)
    assert toolkit(facts, state="absent")["daemon_config"] is None


def test_removal() -> None:
    facts = host(managed={PREF: {"sha256": "x", "mode": "0644"}}, pins=[{"kind": "hold", "name": name} for name in PACKAGES])
    facts["engine"]["daemon_config"]["content"] = {
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},
        "default-runtime": "nvidia",
    }
    made = toolkit(facts, state="absent")
    assert (made["action"], made["query"]["state"], made["exact"], made["to"]) == ("remove", "absent", False, None)
    gone = [{"name": name, "from": "1.19.1-1"} for name in PACKAGES]
    settled = toolkit(facts, answer(made["query"], None, remove=gone), state="absent")
    assert settled["packages"]["remove"] == gone and settled["pins"]["release"]["holds"] == list(PACKAGES)
    assert settled["pins"]["files"] == {PREF: None} and settled["cdi"]["remove"] == ["/var/run/cdi/nvidia.yaml"]
    assert settled["daemon_config"]["absent"] == [["runtimes", "nvidia"]]
    assert settled["daemon_config"]["settings"] == {"runtimes": {}, "default-runtime": "runc"}
    facts["engine"]["gpu_containers"] = [{"id": "1", "name": "ollama", "how": "cdi"}]
    assert codes(toolkit(facts, state="absent")) == ["DG776"]
    assert toolkit(bare(), state="absent")["status"] == "ok"


def test_a_host_without_a_gpu_needs_none() -> None:
    facts = host(None)
    facts["gpus"] = []
    assert (toolkit(facts)["status"], toolkit(facts)["injection"]) == ("ok", None)


def test_one_sentence_for_each_mistake() -> None:
    for wrong, said in (
        ({"version": "1.19"}, "complete version of the toolkit"),
        ({"injection": "csi"}, "auto, cdi, runtime"),
        ({"pin": "perhaps"}, "true or false"),
    ):
        with pytest.raises(WishError) as caught:
            _toolkit_settings.parse(wrong)
        assert said in str(caught.value) and "nvidia_container_toolkit_" in str(caught.value)


# --- whatever the facts are ---

SPEC = st.sampled_from(
    [OLD_SPEC, {**OLD_SPEC, "stale": False}, {**OLD_SPEC, "path": "/var/run/cdi/nvidia.yaml"}, {"kind": "nvidia.com/gpu"}, 3]
)
TOOLKITS = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([None, "1.13.5", "1.17.8", "1.19.1", "1.20.1", "odd", 4]),
        "lockstep": st.sampled_from([True, False, None]),
        "pins": st.sampled_from(
            [[], [{"kind": "hold", "name": PACKAGES[1]}], [{"kind": "versionlock", "name": PACKAGES[0], "value": "1.19.1-1"}], None]
        ),
        "managed": st.sampled_from([{}, {PREF: {"sha256": "x"}}, MARKED, None]),
        "broken": st.sampled_from([[], [{"name": PACKAGES[0]}], None]),
        "refresh": st.sampled_from([None, {"path_enabled": False}, {"path_enabled": True, "service_enabled": True}, 3]),
        "packages": st.sampled_from([{}, dict.fromkeys(PACKAGES, "1.19.1-1"), None]),
        "cdi": st.none() | st.fixed_dictionaries({"specs": st.lists(SPEC, max_size=3)}),
    },
)
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["present", "absent", "unmanaged"]),
        "version": st.sampled_from(["", "1.17.8", "1.19.1", "1.20.1"]),
        "allow_unsafe": st.booleans(),
        "allow_downgrade": st.booleans(),
        "pin": st.booleans(),
        "foreign_pins": st.sampled_from(["refuse", "replace"]),
        "injection": st.sampled_from(["auto", "cdi", "runtime"]),
        "cdi_refresh": st.booleans(),
        "stale_specs": st.sampled_from(["keep", "remove"]),
        "legacy_containers": st.sampled_from(["refuse", "warn"]),
    },
)


@given(
    st.sampled_from([("debian", "12"), ("ubuntu", "26.04"), ("rocky", "10.0"), ("sles", "15.6")]),
    TOOLKITS,
    WISHES,
    st.sampled_from([None, "1.17.8", "1.18.2", "1.19.1", "1.20.1"]),
)
def test_whatever_the_facts_are(system: tuple[str, str], like: dict[str, Any], wished: dict[str, Any], offered: str | None) -> None:
    facts = with_toolkit(with_engine(bare(*system)), **like) if like else with_engine(bare(*system))
    made = toolkit(facts, **wished)
    if made["query"] is not None:
        remove = [{"name": name, "from": "1"} for name in PACKAGES] if made["action"] == "remove" else []
        made = toolkit(facts, answer(made["query"], offered, remove=remove), **wished)
    assert set(made) == set(_platform_document.toolkit())
    if made["status"] != "change":
        nothing = _platform_document.no_work()
        assert {key: made[key] for key in nothing} == nothing and made["cdi"] is None
        assert (made["status"] == "blocked") is bool(made["blocked"])
    # Never a version with a known container escape, unless it was asked for with open eyes.
    for package in made["packages"]["install"]:
        if _toolkit.is_unsafe(package["to"]):
            assert wished.get("allow_unsafe") and wished.get("version") and str(package["to"]).startswith(wished["version"])
    # All of the four, or none of them.
    assert len([package for package in made["packages"]["install"] if package["name"] in PACKAGES]) in (0, 4)
    if wished.get("stale_specs") != "remove" and made["action"] != "remove":
        # The units' own, out of date, would count more than a new one.
        gone = set((made["cdi"] or {"remove": []})["remove"])
        assert gone <= ({"/var/run/cdi/nvidia.yaml"} if made["cdi"] and made["cdi"]["how"] == "generate" else set())
