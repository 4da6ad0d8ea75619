# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _package_query as query
from ansible_collections.difyops.gpu.plugins.module_utils import _package_source
from ansible_collections.difyops.gpu.plugins.module_utils._package_query import Change, Impossible, Query
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from hypothesis import given
from hypothesis import strategies as st

KEYS = {
    "manager", "lists_at", "locked_by", "broken", "sources", "available", "choice", "version", "install", "remove", "also",
    "download_mib", "needed_mib", "free_mib", "brought", "error",
}  # fmt: skip


ANSWERS = json.loads((Path(__file__).parents[2] / "fixtures/packages/answers.json").read_text())["answers"]


def package(name, version="580.95.05-1"):
    return Package(name, version, "NVIDIA", broken=False)


@pytest.mark.parametrize(
    "asked",
    [
        {"branch": "580"},
        {"version": "580.95.05"},
        {"branch": "580", "version": "580.95.05", "stream": "nvidia-driver:580-open"},
        {"state": "absent"},
        {"branch": "580", "alternatives": [["kernel-devel-5.14.0-503.el9_5.x86_64", "g++", "a=1:2~3"]], "also": {"x": ["p-{version}"]}},
    ],
)
def test_a_good_question(asked):
    assert query.problem(Query(**asked)) is None


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({}, "branch or version"),
        ({"branch": "58"}, "three digits"),
        ({"version": "580"}, "version has to be"),
        ({"version": "580.95.05-1"}, "version has to be"),
        ({"branch": "570", "version": "580.95.05"}, "not of branch 570"),
        ({"branch": "580", "stream": "580-open"}, "stream has to be"),
        ({"branch": "580", "alternatives": [["--force-yes"]]}, "no name of a package"),
        ({"branch": "580", "alternatives": [["nvidia-smi-"]]}, "no name of a package"),
        ({"branch": "580", "also": {"x": ["a b"]}}, "no name of a package"),
        ({"branch": "580", "alternatives": [[""]]}, "no name of a package"),
    ],
)
def test_a_bad_question(asked, word):
    assert word in query.problem(Query(**asked))


def test_every_key_is_always_there(tmp_path):
    told = query.answer(str(tmp_path), None, Query(also={"headers": ["x"]}))
    assert set(told) == KEYS
    assert told["also"] == {"headers": None}
    assert told["free_mib"] == {"/usr": None, "/boot": None, "/var": None}
    assert isinstance(query.answer("/", None, Query())["free_mib"]["/usr"], int)


VERSIONS = st.from_regex(r"[3-7][0-9]{2}(\.[0-9]{1,3}){1,2}", fullmatch=True)


@given(st.lists(VERSIONS, max_size=8))
def test_versions_by_branch(versions):
    found = query.by_branch(versions)
    assert sorted(version for group in found.values() for version in group) == sorted(set(versions))
    numbers = [int(number) for number in found]
    assert numbers == sorted(numbers, reverse=True)
    for number, group in found.items():
        assert all(version.startswith(f"{number}.") for version in group)
        assert group == query.newest_first(group)


def test_the_newest_by_number():
    assert query.newest_first(["580.95.05", "580.105.08", "580.9.1"]) == ["580.105.08", "580.95.05", "580.9.1"]


@pytest.mark.parametrize(
    ("name", "branch"),
    [
        ("libnvidia-compute-580-server", "580"),
        ("linux-modules-nvidia-580-server-open-6.8.0-50-generic", "580"),
        ("nvidia-tesla-535-driver", "535"),
        ("nvidia-driver", None),
        ("libcuda1", None),
        ("nvidia-driver-pinning-580.95.05", None),
    ],
)
def test_branch_in_a_name(name, branch):
    assert query.name_branch(name) == branch


def test_what_would_be_left_of_another_driver():
    installed = [
        package("libnvidia-compute-535", "535.288.01-1"),
        package("linux-modules-nvidia-535-generic", "6.8.0-50.51"),
        package("linux-modules-nvidia-580-generic", "6.8.0-50.51"),
        package("nvidia-modprobe", "550.1.2-1"),
        package("nvidia-container-toolkit", "535.1.1-1"),
        package("nvidia-kernel-common", "20240109+1"),
        package("nvidia-dkms-580", "580.95.05-1"),
        package("nvidia-smi", "550.163.01-1"),
    ]
    changes = [Change("nvidia-smi", "550.163.01-1", "580.95.05-1")]
    assert query.stale(installed, changes, "580.95.05") == {"libnvidia-compute-535", "linux-modules-nvidia-535-generic"}


@pytest.mark.parametrize(
    ("names", "gone"),
    [
        (["nvidia-dkms-580-open"], {"nvidia-dkms-580", "nvidia-kernel-source-580", "linux-modules-nvidia-580-open-generic"}),
        (["nvidia-dkms-580"], {"linux-modules-nvidia-580-open-generic"}),
        (["linux-modules-nvidia-580-open-generic"], {"nvidia-dkms-580", "nvidia-kernel-source-580"}),
        # The source is needed by drivers without DKMS too.
        (["linux-modules-nvidia-580-generic"], {"nvidia-dkms-580", "linux-modules-nvidia-580-open-generic"}),
        (["nvidia-utils-580"], set()),
    ],
)
def test_modules_of_another_kind(names, gone):
    there = ["nvidia-dkms-580", "nvidia-kernel-source-580", "linux-modules-nvidia-580-open-generic", "nvidia-utils-580"]
    assert query.rivals(map(package, there), names) == gone


def test_where_a_transaction_leads():
    there = [package("nvidia-dkms-580", "580.178.04-1"), package("libnvidia-compute-580", "580.178.04-1")]
    # A new name of an old branch brings nothing, since what it leads to is there.
    assert query.outcome(there, [Change("nvidia-driver-535", None, "535.309.01-1")]) == "580.178.04"
    # What stays of a newer driver does not tell.
    assert query.outcome(there, [Change("nvidia-dkms-570", None, "570.1.2-1")]) == "570.1.2"
    assert query.outcome(there, [Change(one.name, one.version, None) for one in there]) is None


NAMES = st.sampled_from("abcdefgh")
NEEDS = st.lists(st.tuples(NAMES, st.frozensets(NAMES, min_size=1, max_size=3)), max_size=12)


@given(st.sets(NAMES), NEEDS)
def test_nothing_goes_that_somebody_needs_and_nothing_stays_for_nobody(candidates, needs):
    going, kept = query.removable(candidates, needs)
    assert going | set(kept) == candidates
    assert not going & set(kept)
    for who, providers in needs:
        # Who stays keeps at least one of those who meet its need.
        assert who in going or not providers <= going
    for name, who in kept.items():
        assert who not in going
        assert any(name in providers for needer, providers in needs if needer == who)


class Fake:
    """A package manager whose packages have versions and needs, and that refuses what it is told to."""

    def __init__(self, versions, needs=None, refuses=()):
        self._versions = versions
        self._needs = needs or {}
        self._refuses = refuses
        self.asked = []

    def versions(self, name):
        return self._versions.get(name, [])

    def is_there(self, name):
        return False

    def missing(self, name):
        return f"{name} is missing."

    def simulate(self, names, gone, target):
        self.asked.append((tuple(names), tuple(gone), target))
        todo, done = list(names), {}
        while todo:
            name = todo.pop()
            if name in self._refuses or f"{name} {target}" in self._refuses:
                raise Impossible(f"{name} is refused.")
            fitting = [version for version in self._versions[name] if target and version.startswith(f"{target}-")]
            done[name] = Change(name, None, (fitting or self._versions[name])[0])
            todo += [need for need in self._needs.get(name, ()) if need not in done]
        return [*done.values(), *(Change(name, "1", None) for name in gone)]


def ask(fake, installed=(), **asked):
    told = query.answer("/", "apt", Query(**asked))
    try:
        return told, query.choose(Query(**asked), fake, list(installed), told)
    except Impossible as error:
        return {**told, "error": str(error)}, None


def test_an_older_version_is_taken_where_the_newest_cannot_be():
    fake = Fake({"nvidia-dkms-580": ["580.105.08-1", "580.95.05-1"]}, refuses=["nvidia-dkms-580 580.105.08"])
    told, changes = ask(fake, branch="580", alternatives=[["nvidia-dkms-580"]])
    assert (told["choice"], told["version"]) == (0, "580.95.05")
    assert changes == [Change("nvidia-dkms-580", None, "580.95.05-1")]


def test_a_stranger_among_the_packages_is_refused():
    fake = Fake({"nvidia-dkms-580": ["580.95.05-1"], "libnvidia-ml1": ["580.105.08-1"]}, {"nvidia-dkms-580": ["libnvidia-ml1"]})
    told, changes = ask(fake, branch="580", alternatives=[["nvidia-dkms-580"]])
    assert changes is None
    # The newest of all tells the version, and the packages named do not have it.
    assert "beside driver" in told["error"]


def test_packages_that_share_no_version():
    fake = Fake({"nvidia-dkms-580": ["580.95.05-1"], "libnvidia-ml1": ["580.105.08-1"]})
    told, _changes = ask(fake, branch="580", alternatives=[["nvidia-dkms-580", "libnvidia-ml1"]])
    assert told["error"] == "nvidia-dkms-580, libnvidia-ml1 are not there in one version of branch 580."


def test_of_what_else_was_asked_for_all_that_fits_joins():
    versions = {
        "nvidia-dkms-580": ["580.95.05-1"],
        "headers": ["6.8-1"],
        "bad": ["1"],
        "nvidia-fabricmanager": ["580.105.08-1"],
        "pin": ["580-1"],
    }
    fake = Fake(versions, refuses=["bad"])
    also = {"headers": ["none", "headers"], "bad": ["bad"], "fabric manager": ["nvidia-fabricmanager"], "pinning": ["pin"]}
    told, changes = ask(fake, branch="580", alternatives=[["nvidia-dkms-580"]], also=also)
    assert told["also"] == {"headers": "headers", "bad": None, "fabric manager": None, "pinning": "pin"}
    assert {change.name for change in changes} == {"nvidia-dkms-580", "headers"}


def test_a_removal_that_would_reach_further():
    assert query.only([Change("a", "1", None)], ["a"]) == [Change("a", "1", None)]
    with pytest.raises(Impossible, match="Without the driver b would change as well"):
        query.only([Change("a", "1", None), Change("b", "1", None)], ["a"])


def test_passwords_are_masked():
    assert query.masked("https://user:secret@example.org/x") == "https://***@example.org/x"
    assert query.masked("https://example.org/a@b") == "https://example.org/a@b"


@given(st.text())
def test_a_reason_is_one_bounded_sentence(text):
    told = query.sentence(text)
    assert told.endswith(".")
    assert len(told) <= 403
    assert "\n" not in told


def test_who_has_a_lock(tmp_path):
    path = tmp_path / "var/lib/dpkg/lock-frontend"
    path.parent.mkdir(parents=True)
    path.touch()
    places = ["/var/lib/dpkg/nothing", "/var/lib/dpkg/lock-frontend"]
    assert query.lock_holder(str(tmp_path), places) is None
    script = tmp_path / "unattended-upgrade"
    lines = (f"file = open({str(path)!r}, 'r+')", "fcntl.lockf(file, fcntl.LOCK_EX)", "print('has it', flush=True)", "time.sleep(60)")
    script.write_text("\n".join(("import fcntl, time", *lines)))
    holder = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline()
        assert query.lock_holder(str(tmp_path), places) == {"pid": holder.pid, "name": "unattended-upgrade"}
        # It was only looked at.
        with path.open("r+") as file, pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        holder.kill()
        holder.communicate()
    assert query.lock_holder(str(tmp_path), places) is None


def test_the_name_of_a_process():
    assert query.process(os.getpid())["pid"] == os.getpid()
    sleeping = subprocess.Popen(["sleep", "60"])
    try:
        deadline = time.monotonic() + 10
        while query.process(sleeping.pid)["name"] != "sleep" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert query.process(sleeping.pid) == {"pid": sleeping.pid, "name": "sleep"}
    finally:
        sleeping.kill()
        sleeping.wait()


@pytest.mark.parametrize(
    ("identity", "programs", "manager"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", {"apt-get", "dpkg-query", "dnf", "rpm"}, "apt"),
        ('ID=rocky\nID_LIKE="rhel fedora"\n', {"apt-get", "dpkg-query", "dnf", "rpm"}, "dnf"),
        ("ID=amzn\nID_LIKE=fedora\n", {"dnf", "rpm"}, "dnf"),
        ("ID=debian\n", {"dpkg-query"}, None),
        ("ID=opensuse\n", {"rpm"}, None),
    ],
)
def test_which_package_manager(tmp_path, monkeypatch, identity, programs, manager):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(identity)
    monkeypatch.setattr(_package_source._command, "find", lambda name: name if name in programs else None)
    assert _package_source.manager(str(tmp_path)) == manager


def test_nobody_to_ask(monkeypatch):
    monkeypatch.setattr(_package_source, "has_dnf", lambda: False)
    none, dnf = (_package_source.ask(Query(branch="580"), name, "/", 5.0) for name in (None, "dnf"))
    assert set(none) == set(dnf) == KEYS
    assert none["error"] == "Neither apt nor dnf is on this host, so nobody can say which packages could be installed."
    assert "python3-dnf" in dnf["error"]
    json.dumps([none, dnf])


@pytest.mark.parametrize("name", ANSWERS)
def test_recorded_answers_have_the_form_of_answers(name):
    told = ANSWERS[name]
    assert set(told) == KEYS
    assert (told["choice"] is None) is (told["version"] is None)
    assert bool(told["error"]) is not bool(told["install"] or told["remove"])
    changes = [Change(entry["name"], entry["from"], entry["to"]) for entry in told["install"]]
    if told["choice"] is not None:
        assert query.outcome([], changes) == told["version"]
        assert query.strangers(changes, told["version"]) == []
        assert told["version"] in told["available"][query.branch_of(told["version"])]
    # Versions are above zero where something comes, and nothing comes where something only goes.
    assert told["needed_mib"] is None or (told["needed_mib"] > 0) is bool(told["install"])
