# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions for engine and toolkit. Where apt is there they go to the genuine one, with an index that is written here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _package_query, _packages, _subject_query
from ansible_collections.difyops.gpu.plugins.module_utils._package_query import Change, Impossible, Query
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from hypothesis import given
from hypothesis import strategies as st
from test_apt import Root, needs_apt, real_run, versions
from test_dnf import Rpm, solver
from test_package_query import KEYS

FOUR = list(_packages.TOOLKIT)
TOOLKIT = {"subject": "toolkit", "alternatives": [FOUR], "lockstep": True}
DISTRIBUTION = ["docker.io", "docker-cli", "docker-compose", "docker-buildx"]
DOCKER = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]
RECORDED = json.loads((Path(__file__).parents[2] / "fixtures/packages/engine.json").read_text())["answers"]


@pytest.mark.parametrize(
    "asked",
    [
        TOOLKIT,
        {**TOOLKIT, "version": "1.19.1", "minimum": "1.19"},
        {"subject": "toolkit", "state": "absent"},
        {"subject": "engine", "alternatives": [DOCKER], "version": "28"},
    ],
)
def test_a_good_question(asked):
    assert _package_query.problem(Query(**asked)) is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"subject": "podman"}, "subject has to be one of driver, engine, toolkit, not 'podman'."),
        ({**TOOLKIT, "version": "1.19.1-1"}, "version has to be numbers with dots"),
        ({**TOOLKIT, "version": ""}, "version has to be numbers with dots"),
        ({**TOOLKIT, "minimum": "new"}, "minimum has to be numbers with dots"),
        ({"subject": "engine", "state": "absent"}, "is not taken away by this collection"),
        ({"subject": "toolkit", "alternatives": [["nvidia-container-toolkit-"]]}, "no name of a package"),
    ],
)
def test_a_bad_question(asked, words):
    assert words in _package_query.problem(Query(**asked))


def toolkit_version(offer, version, without=(), revision="1", **fields):
    """Offer the toolkit as NVIDIA's repository does since 1.18: each package needs the next one in its own version."""
    full = f"{version}-{revision}"
    needs = dict(zip(FOUR, [f"nvidia-container-toolkit-base (= {full}), libnvidia-container-tools (= {full})", "", "", ""]))
    needs["libnvidia-container-tools"] = f"libnvidia-container1 (= {full})"
    for name in FOUR:
        if name not in without:
            offer(name, full, **({"Depends": needs[name]} if needs[name] else {}), **fields)


@pytest.fixture
def host(tmp_path):
    root = Root(tmp_path / "root")
    for version in ("1.17.8", "1.18.2", "1.19.1", "1.20.1"):
        toolkit_version(root.offer, version)
    return root


@needs_apt
def test_all_four_come_in_the_newest_version(host):
    told = host.ask(**TOOLKIT, minimum="1.19.1")
    assert set(told) == KEYS
    assert (told["choice"], told["version"], told["error"], told["remove"]) == (0, "1.20.1", None, [])
    assert versions(told) == dict.fromkeys(FOUR, (None, "1.20.1-1"))
    assert told["available"] == {name: ["1.20.1", "1.19.1", "1.18.2", "1.17.8"] for name in FOUR}
    assert (told["download_mib"], told["needed_mib"]) == (4, 8)
    assert real_run(host, told) == versions(told)


@needs_apt
@pytest.mark.parametrize(("there", "wanted"), [("1.17.8", "1.19.1"), ("1.20.1", "1.19.1")])
def test_one_transaction_brings_all_four_to_a_version_up_or_down_whatever_holds_them(host, there, wanted):
    toolkit_version(lambda name, version, **fields: host.install(name, version, state="hold ok installed", **fields), there)
    rule = f"Package: {' '.join(FOUR)}\nPin: version {there}-*\nPin-Priority: 1001\n"
    for name in ("difyops-nvidia-container-toolkit.pref", "foreign.pref"):
        (host.root / "etc/apt/preferences.d" / name).write_text(rule)
    told = host.ask(**TOOLKIT, version=wanted)
    assert versions(told) == dict.fromkeys(FOUR, (f"{there}-1", f"{wanted}-1"))
    assert told["version"] == wanted
    assert real_run(host, told) == versions(told)


@needs_apt
def test_packages_of_several_versions_are_brought_together(host):
    for name, version in zip(FOUR, ("1.17.8", "1.17.8", "1.19.1", "1.19.1")):
        host.install(name, f"{version}-1")
    assert versions(host.ask(**TOOLKIT, version="1.19.1")) == dict.fromkeys(FOUR[:2], ("1.17.8-1", "1.19.1-1"))


@needs_apt
def test_what_is_there_in_the_version_needs_no_source(tmp_path):
    root = Root(tmp_path / "root")
    toolkit_version(root.install, "1.19.1")
    told = root.ask(**TOOLKIT, minimum="1.19.1")
    assert (told["choice"], told["version"], told["install"], told["remove"]) == (0, "1.19.1", [], [])
    assert told["available"] == {name: [] for name in FOUR}


@needs_apt
def test_a_mirror_that_lacks_one_of_the_four(tmp_path):
    root = Root(tmp_path / "root")
    toolkit_version(root.offer, "1.19.1")
    toolkit_version(root.offer, "1.20.1", without=["libnvidia-container-tools"])
    told = root.ask(**TOOLKIT, version="1.20.1")
    assert (told["choice"], told["install"]) == (None, [])
    assert told["error"] == "libnvidia-container-tools is not to be had in version 1.20.1, only as 1.19.1."
    # Without a wish the newest that is whole is taken.
    assert root.ask(**TOOLKIT)["version"] == "1.19.1"
    assert root.ask(**TOOLKIT, minimum="1.20")["error"] == told["error"]


@needs_apt
def test_a_source_that_has_nothing_of_one_package(tmp_path):
    root = Root(tmp_path / "root")
    toolkit_version(root.offer, "1.19.1", without=["libnvidia-container1"])
    assert root.ask(**TOOLKIT)["error"] == "libnvidia-container1 is in no package source of this host."


@needs_apt
def test_the_same_library_from_the_distribution_is_not_mixed_in(host):
    # Ubuntu 26.04 has two of the four, in another revision; the others need NVIDIA's.
    host.offer("libnvidia-container1", "1.19.1-2ubuntu1~26.04.1")
    host.offer("libnvidia-container-tools", "1.19.1-2ubuntu1~26.04.1", Depends="libnvidia-container1 (= 1.19.1-2ubuntu1~26.04.1)")
    told = host.ask(**TOOLKIT, version="1.19.1")
    assert versions(told) == dict.fromkeys(FOUR, (None, "1.19.1-1"))


@needs_apt
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"version": "1.19.0"}, "nvidia-container-toolkit is there as 1.20.1, 1.19.1, 1.18.2, 1.17.8 only, not as 1.19.0."),
        ({"minimum": "2.0"}, "nvidia-container-toolkit is there as 1.20.1, 1.19.1, 1.18.2, 1.17.8 only, and at least 2.0 is needed."),
        ({"version": "1.1"}, "nvidia-container-toolkit is there as 1.20.1, 1.19.1, 1.18.2, 1.17.8 only, not as 1.1."),
        ({"alternatives": []}, "No packages were named."),
        ({"alternatives": [[]]}, "A set of packages has no name in it."),
    ],
)
def test_what_is_not_to_be_had(host, query, error):
    told = host.ask(**{**TOOLKIT, **query})
    assert (told["choice"], told["version"], told["error"]) == (None, None, error)


@needs_apt
def test_versions_from_before_a_release_are_not_taken(host):
    toolkit_version(host.offer, "1.21.0~rc.1")
    told = host.ask(**TOOLKIT)
    assert told["version"] == "1.20.1"
    assert told["available"]["nvidia-container-toolkit"][0] == "1.20.1"


@needs_apt
def test_removal_takes_the_four_and_what_they_brought(host):
    toolkit_version(host.install, "1.19.1")
    host.install("libseccomp2", "2.6")
    host.install("docker-ce", "5:28.5.2-1")
    state = host.root / "var/lib/difyops/nvidia_container_toolkit"
    state.mkdir(parents=True)
    (state / "brought.json").write_text('{"schema": 1, "packages": ["libseccomp2", "never-there"]}')
    told = host.ask(subject="toolkit", state="absent")
    assert told["error"] is None
    assert {entry["name"] for entry in told["remove"]} == {*FOUR, "libseccomp2"}
    assert told["brought"] == ["libseccomp2", "never-there"]


@needs_apt
def test_a_toolkit_that_something_else_needs_stays(host):
    toolkit_version(host.install, "1.19.1")
    host.install("nvidia-docker2", "2.13.0-1", Depends="nvidia-container-toolkit (>= 1.13.0-1)")
    told = host.ask(subject="toolkit", state="absent")
    assert told["remove"] == []
    assert told["error"] == (
        "nvidia-container-toolkit is needed by nvidia-docker2, which the container toolkit did not bring. Remove nvidia-docker2 first."
    )


@pytest.fixture
def debian13(tmp_path):
    """Docker as Debian 13 has it and Docker's repository beside it; the relations between packages are those of the genuine ones."""
    root = Root(tmp_path / "root")
    root.offer("containerd", "1.7.24~ds1-6+deb13u1", Depends="runc (>= 0.1.0~)")
    root.offer("runc", "1.1.15+ds1-2+b4")
    root.offer(
        "docker.io", "26.1.5+dfsg1-9+deb13u1", Depends="containerd (>= 1.4~), runc", Conflicts="docker-ce, docker-ce-rootless-extras"
    )
    root.offer("docker-cli", "26.1.5+dfsg1-9+deb13u1", Conflicts="docker-ce-cli, podman-docker")
    root.offer("docker-compose", "2.26.1-4")
    root.offer("docker-buildx", "0.13.1+ds1-3")
    for version, containerd in (("28.5.2", "1.7.29"), ("29.1.0", "2.1.5")):
        tail = "-1~debian.13~trixie"
        root.offer(
            "docker-ce", f"5:{version}{tail}", Depends="containerd.io (>= 1.7.27), docker-ce-cli", Conflicts="docker-engine, docker.io"
        )
        root.offer("docker-ce-cli", f"5:{version}{tail}", Conflicts="docker-engine, docker.io")
        root.offer(
            "containerd.io", f"{containerd}{tail}", Conflicts="containerd, runc", Replaces="containerd, runc", Provides="containerd, runc"
        )
    root.offer("docker-buildx-plugin", "0.29.1-1~debian.13~trixie", Replaces="docker-ce-cli")
    root.offer("docker-compose-plugin", "2.40.3-1~debian.13~trixie", Conflicts="docker-compose", Replaces="docker-compose")
    return root


def engine(root, **query):
    return root.ask(subject="engine", **query)


@needs_apt
def test_the_engine_of_the_distribution(debian13):
    told = engine(debian13, alternatives=[DISTRIBUTION, DOCKER], minimum="25")
    assert (told["choice"], told["version"], told["error"]) == (0, "26.1.5", None)
    assert set(versions(told)) == {*DISTRIBUTION, "containerd", "runc"}
    assert told["available"]["docker-ce"] == ["29.1.0", "28.5.2"]
    assert engine(debian13, alternatives=[DISTRIBUTION, DOCKER], minimum="27")["choice"] == 1


@needs_apt
@pytest.mark.parametrize(("version", "full"), [("28", "5:28.5.2"), ("28.5.2", "5:28.5.2"), (None, "5:29.1.0"), ("29.1", "5:29.1.0")])
def test_the_newest_of_dockers_own_that_begins_with_a_version(debian13, version, full):
    told = engine(debian13, alternatives=[DOCKER], version=version)
    assert told["version"] == full[2:]
    found = versions(told)
    assert found["docker-ce"] == found["docker-ce-cli"] == (None, f"{full}-1~debian.13~trixie")
    # What has versions of its own comes in its newest.
    assert found["containerd.io"] == (None, "2.1.5-1~debian.13~trixie")
    assert set(found) == set(DOCKER)


@needs_apt
def test_dockers_own_takes_the_place_of_the_distributions(debian13):
    for name, version in (
        ("docker.io", "26.1.5+dfsg1-9+deb13u1"),
        ("docker-cli", "26.1.5+dfsg1-9+deb13u1"),
        ("docker-compose", "2.26.1-4"),
    ):
        debian13.install(name, version, **({"Depends": "containerd (>= 1.4~)"} if name == "docker.io" else {}))
    debian13.install("docker-buildx", "0.13.1+ds1-3")
    debian13.install("containerd", "1.7.24~ds1-6+deb13u1", Depends="runc (>= 0.1.0~)")
    debian13.install("runc", "1.1.15+ds1-2+b4")
    debian13.install("bash", "5.2")
    told = engine(debian13, alternatives=[DOCKER], version="28")
    assert told["error"] is None
    assert set(versions(told)) == set(DOCKER)
    # Nothing tells apt that docker-buildx and docker-buildx-plugin have the same file.
    assert {entry["name"] for entry in told["remove"]} == {*DISTRIBUTION, "containerd", "runc"}


@needs_apt
def test_only_a_plugin(debian13):
    debian13.install("docker.io", "26.1.5+dfsg1-9+deb13u1")
    debian13.install("docker-buildx", "0.13.1+ds1-3")
    told = engine(debian13, alternatives=[["docker-compose"]], minimum="2.24.0")
    assert (told["version"], versions(told), told["remove"]) == ("2.26.1", {"docker-compose": (None, "2.26.1-4")}, [])


@needs_apt
def test_own_preferences_of_the_engine_do_not_count_and_those_of_the_question_do(debian13):
    (debian13.root / "etc/apt/preferences.d/difyops-docker.pref").write_text("Package: *\nPin: release *\nPin-Priority: -1\n")
    assert engine(debian13, alternatives=[DISTRIBUTION])["choice"] == 0
    told = engine(debian13, alternatives=[DISTRIBUTION], preferences="Package: runc\nPin: release *\nPin-Priority: -1\n")
    assert told["choice"] is None
    assert "runc" in told["error"]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers_have_the_form_of_answers(name):
    told = RECORDED[name]
    assert set(told) == KEYS
    assert bool(told["error"]) is not bool(told["install"] or told["remove"])
    assert (told["choice"] is None) is (told["version"] is None)
    for known in told["available"].values():
        assert known == sorted(known, key=_subject_query._key, reverse=True)
    if told["version"] and told["install"]:
        assert any(_packages.upstream(entry["to"]) == told["version"] for entry in told["install"])


RIVALS = [
    (["docker.io 26.1.5", "docker-cli 26.1.5", "docker-compose 2.26.1", "runc 1.1", "containerd 1.7"], DOCKER, {*DISTRIBUTION[:3]}),
    (["docker.io 20.10", "docker-compose 1.29.2-3"], DOCKER, {"docker.io"}),
    (["docker-ce 5:28", "containerd.io 1.7", "docker-ce-rootless-extras 5:28"], DISTRIBUTION, {"docker-ce", "docker-ce-rootless-extras"}),
    (["docker.io 26.1.5", "docker-compose 2.26.1"], ["docker-compose-plugin"], {"docker-compose"}),
    (["docker.io 26.1.5", "docker-buildx 0.13"], ["docker-compose"], set()),
    (["podman-docker 5.4", "podman 5.4"], DOCKER, {"podman-docker"}),
    (["docker-ce 5:28", "docker-compose-plugin 2.40"], DOCKER, set()),
]


@pytest.mark.parametrize(("there", "names", "expected"), RIVALS)
def test_whose_files_would_be_overwritten(there, names, expected):
    packages = [Package(*text.split(), "", broken=False, source="x") for text in there]
    assert _subject_query.rivals(packages, names) == expected


NUMBERS = st.from_regex(r"[1-3]\.[0-9]{1,2}\.[0-9]", fullmatch=True)


class Fake:
    """Sources that have versions of packages and refuse no transaction but those with a package named."""

    def __init__(self, known, refused=None):
        self._known, self._refused, self.asked = known, refused, []

    def versions(self, name):
        return self._known.get(name, [])

    def missing(self, name):
        return f"{name} is missing."

    def exact(self, wanted, gone):
        self.asked.append(dict(wanted))
        if self._refused in wanted.values():
            raise Impossible(f"{self._refused} is refused.")
        return [*(Change(name, None, version) for name, version in wanted.items()), *(Change(name, "1", None) for name in gone)]


@given(st.dictionaries(st.sampled_from(FOUR), st.lists(NUMBERS, max_size=4)), st.none() | NUMBERS, st.none() | NUMBERS, st.booleans())
def test_what_is_chosen_is_of_one_version_that_was_asked_for(sources, version, minimum, early):
    known = {name: [f"{one}{'~rc.1' * early}-1" for one in versions] for name, versions in sources.items()}
    query = Query(**TOOLKIT, version=version, minimum=minimum)
    told = _package_query.answer("/", "apt", query)
    fake = Fake(known)
    try:
        changes = _subject_query.choose(query, fake, [], told)
    except Impossible as error:
        assert str(error).endswith(".")
        assert (told["choice"], told["version"]) == (None, None)
        assert fake.asked == []
        return
    assert not early
    assert {change.after for change in changes} == {f"{told['version']}-1"}
    assert all(told["version"] in told["available"][name] for name in FOUR)
    assert version in (None, told["version"])
    assert minimum is None or _subject_query._key(told["version"]) >= _subject_query._key(minimum)


def test_an_older_version_is_taken_where_the_newest_cannot_be():
    fake = Fake({name: ["1.20.1-1", "1.19.1-1"] for name in FOUR}, refused="1.20.1-1")
    told = _package_query.answer("/", "apt", Query(**TOOLKIT))
    assert {change.after for change in _subject_query.choose(Query(**TOOLKIT), fake, [], told)} == {"1.19.1-1"}
    with pytest.raises(Impossible, match=r"^1\.20\.1-1 is refused\.$"):
        _subject_query.choose(Query(**TOOLKIT, version="1.20.1"), fake, [], told)


def test_a_transaction_that_would_do_something_else_is_refused():
    with pytest.raises(Impossible, match=r"^a would go in place of 1-1\.$"):
        _subject_query._checked([Change("a", "1-1", None), Change("b", None, "2")], {"a": "1-1"})


def test_dnf_is_asked_for_each_package_in_its_version():
    offered = [Rpm(name, version, 0) for name in FOUR for version in ("1.19.1", "1.20.1", "1.18.2")]
    made, base = solver([Rpm(FOUR[0], "1.17.8", 0), Rpm(FOUR[1], "1.20.1", 0), Rpm(FOUR[2], "1.19.1", 0)], offered, **TOOLKIT)
    told = _package_query.answer("/", "dnf", Query(**TOOLKIT))
    changes = _subject_query.choose(Query(**TOOLKIT, version="1.19.1"), made, made.installed, told)
    assert [verb for verb, _package in base.marked] == ["upgrade", "downgrade", "install"]
    assert {change.name: (change.before, change.after) for change in changes} == {
        FOUR[0]: ("1.17.8-1.el9", "1.19.1-1.el9"),
        FOUR[1]: ("1.20.1-1.el9", "1.19.1-1.el9"),
        FOUR[3]: (None, "1.19.1-1.el9"),
    }
    assert told["available"][FOUR[0]] == ["1.20.1", "1.19.1", "1.18.2"]


def test_dnf_removes_what_stands_in_the_way_and_knows_a_removal_by_subject():
    made, _base = solver([Rpm("podman-docker", "5.4.0", 0), *(Rpm(name, "1.19.1", 0) for name in FOUR)], [Rpm("docker-ce", "28.5.2")])
    changes = made.exact({"docker-ce": "3:28.5.2-1.el9"}, ["podman-docker"])
    assert changes == [Change("docker-ce", None, "3:28.5.2-1.el9"), Change("podman-docker", "5.4.0-1.el9", None)]
    assert _package_query.without(made.names(), ["podman-docker"], [], "toolkit") == sorted([*FOUR, "podman-docker"])


def test_of_what_rpm_has_twice_the_newest_is_left_by_a_repair():
    there = [Rpm(FOUR[0], "1.17.8", 0), Rpm(FOUR[0], "1.19.1", 0), *(Rpm(name, "1.17.8", 0) for name in FOUR[1:])]
    made, _base = solver(there, [Rpm(name, version, 0) for name in FOUR for version in ("1.17.8", "1.19.1")], **TOOLKIT)
    for version, names in (("1.19.1", FOUR[1:]), ("1.17.8", FOUR[:1])):
        told = _package_query.answer("/", "dnf", Query(**TOOLKIT))
        changes = _subject_query.choose(Query(**TOOLKIT, version=version), made, made.installed, told)
        assert {change.name: change.after for change in changes} == dict.fromkeys(names, f"{version}-1.el9")
