# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of _dnf can be tested without dnf. The rest is tested with the genuine one in tests/integration/driver."""

from __future__ import annotations

import functools
import json
import os
import time
from types import SimpleNamespace

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _dnf, _package_query
from ansible_collections.difyops.gpu.plugins.module_utils._package_query import Change, Impossible, Query


def test_a_number_in_a_lock_file(tmp_path):
    assert _dnf.written_holder(str(tmp_path)) is None
    path = tmp_path / _dnf.NUMBERS[0][1:]
    path.parent.mkdir(parents=True)
    for content in ("", "word", "999999999", str(os.getpid())):
        path.write_text(content)
        assert _dnf.written_holder(str(tmp_path)) is None
    path.write_text(f"{os.getppid()}\n")
    assert _dnf.written_holder(str(tmp_path))["pid"] == os.getppid()


def repository(**fields):
    plain = {"id": "cuda", "repofile": "/etc/yum.repos.d/x.repo", "baseurl": (), "metalink": None, "mirrorlist": None, "gpgkey": ()}
    return SimpleNamespace(**{**plain, **fields})


def test_a_repository():
    assert _dnf.source(repository(baseurl=("https://user:secret@example.org/rhel9/x86_64",), gpgkey=("file:///etc/key",))) == {
        "file": "/etc/yum.repos.d/x.repo",
        "uris": ["https://***@example.org/rhel9/x86_64"],
        "suites": ["cuda"],
        "components": [],
        "signed_by": "file:///etc/key",
    }
    assert _dnf.source(repository(metalink="https://example.org/metalink", repofile=None))["uris"] == ["https://example.org/metalink"]


def told(monkeypatch, child, timeout_s=20.0):
    monkeypatch.setattr(_dnf, "_ask", child)
    return _dnf.ask(Query(branch="580"), "/nonexistent", timeout_s)


def test_an_answer_of_the_child(monkeypatch):
    assert told(monkeypatch, lambda query, told: {**told, "choice": 0})["choice"] == 0


def test_a_child_that_dies(monkeypatch):
    answer = told(monkeypatch, lambda query, told: os._exit(3))
    assert answer["error"] == "The child process that asked dnf ended without an answer."
    assert set(answer) == set(_package_query.answer("/", "dnf", Query()))


def test_a_child_that_hangs(monkeypatch):
    assert told(monkeypatch, lambda query, told: time.sleep(60), 0.3)["error"] == "dnf did not end within 0.3 seconds."


@functools.total_ordering
class Rpm:
    """A package of the fake below."""

    def __init__(self, name, version, epoch=3, requires=(), vendor="NVIDIA"):
        self.name, self.requires, self.vendor = name, list(requires), vendor
        self.evr = f"{epoch}:{version}-1.el9" if epoch else f"{version}-1.el9"
        self.downloadsize = self.installsize = 1_500_000

    def _key(self):
        return [int(part) for part in self.evr.replace(":", ".").partition("-")[0].split(".")]

    def __eq__(self, other):
        return (self.name, self.evr) == (other.name, other.evr)

    def __hash__(self):
        return hash((self.name, self.evr))

    def __lt__(self, other):
        return self._key() < other._key()


class Sack:
    """A SIMULATED sack: as much of one as the solver uses; nothing of dnf's resolving."""

    def __init__(self, installed, available):
        self._installed, self._available, self.hidden = installed, available, []

    def query(self, flags=None):
        return self

    def installed(self):
        return [*self._installed]

    def available(self):
        return [one for one in self._available if one not in self.hidden]

    def filterm(self, pkg):
        return pkg

    def add_excludes(self, query):
        self.hidden += query

    def remove_excludes(self, query):
        self.hidden = [one for one in self.hidden if one not in query]


class Base:
    """A SIMULATED dnf that does just what was marked."""

    def __init__(self, sack):
        self.sack = sack
        self.marked = []
        self.fails = None

    def reset(self, goal):
        self.marked = []

    def __getattr__(self, name):
        if not name.startswith("package_"):
            raise AttributeError(name)
        return lambda package: self.marked.append((name[8:], package))

    def resolve(self, allow_erasing):
        if self.fails:
            raise self.fails
        new = [one for verb, one in self.marked if verb != "remove"]
        gone = [one for verb, one in self.marked if verb == "remove"]
        replaced = [one.name for verb, one in self.marked if verb in ("upgrade", "downgrade")]
        old = [one for one in self.sack.installed() if one in gone or one.name in replaced]
        self.transaction = SimpleNamespace(install_set=new, remove_set=old)


class DnfError(Exception):
    pass


def solver(installed=(), available=(), **asked):
    base = Base(Sack(list(installed), list(available)))
    dnf = SimpleNamespace(exceptions=SimpleNamespace(Error=DnfError))
    made = _dnf.Solver(dnf, base, Query(**{"branch": "580", **asked}))
    made._find = lambda name, there: [one for one in (base.sack.installed() if there else base.sack.available()) if one.name == name]
    made.know(installed, [one for one in installed if sum(one.name == other.name for other in installed) > 1])
    return made, base


OLD, NEW = "580.82.07", "580.95.05"


def offers(*names):
    return [Rpm(name, version) for name in names for version in (OLD, NEW, "595.91.07")]


@pytest.mark.parametrize(
    ("there", "target", "verb", "to"),
    [
        (None, NEW, "install", NEW),
        (OLD, NEW, "upgrade", NEW),
        (NEW, OLD, "downgrade", OLD),
        ("595.91.07", NEW, "downgrade", NEW),
        (None, None, "install", NEW),
    ],
)
def test_the_wanted_version_is_marked(there, target, verb, to):
    made, base = solver([Rpm("nvidia-driver-cuda", there)] if there else [], offers("nvidia-driver-cuda", "nvidia-modprobe"))
    changes = made.simulate(["nvidia-driver-cuda", "nvidia-modprobe"], [], target)
    assert [(done, one.evr) for done, one in base.marked] == [(verb, f"3:{to}-1.el9"), ("install", f"3:{to}-1.el9")]
    assert changes[0] == Change("nvidia-driver-cuda", f"3:{there}-1.el9" if there else None, f"3:{to}-1.el9")
    assert base.sack.hidden == []


def test_what_has_versions_of_its_own_need_not_be_there_in_the_drivers():
    made, base = solver((), [*offers("nvidia-driver-cuda"), Rpm("nvidia-persistenced", "550.1.2")])
    made.simulate(["nvidia-driver-cuda", "nvidia-persistenced"], [], NEW)
    assert [one.evr for _verb, one in base.marked] == [f"3:{NEW}-1.el9", "3:550.1.2-1.el9"]


def test_what_is_there_in_the_version_is_left_alone():
    made, _base = solver([Rpm("nvidia-driver-cuda", NEW), Rpm("gone", "1.1", 0)], offers("nvidia-driver-cuda"))
    assert made.simulate(["nvidia-driver-cuda"], ["gone"], NEW) == [Change("gone", "1.1-1.el9", None)]
    assert made.sizes([Change("gone", "1.1-1.el9", None)]) == {"download_mib": 0, "needed_mib": -1}
    assert made.sizes([]) == {"download_mib": 0, "needed_mib": 0}


def cut_off(target):
    """A host on which an upgrade, or a downgrade, was cut off in one of two packages."""
    names = ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"]
    there = [Rpm(names[0], OLD), Rpm(names[0], NEW), Rpm(names[1], OLD), Rpm("bash", "5.1", 0), Rpm("bash", "5.2", 0)]
    made, _base = solver(there, offers(*names), version=target)
    assert {entry["name"] for entry in made.duplicates()} == {"nvidia-driver-cuda", "bash"}
    assert [entry["version"] for entry in made.duplicates()] == ["5.1-1.el9", "5.2-1.el9", f"3:{OLD}-1.el9", f"3:{NEW}-1.el9"]
    asked = Query(version=target, alternatives=[names])
    changes = _package_query.choose(asked, made, made.installed, _package_query.answer("/", "dnf", asked))
    return {change.name: (change.before, change.after) for change in changes}


def test_of_what_is_there_twice_a_repair_leaves_the_newest():
    # The repair itself brings one of the two to the new version.
    assert cut_off(NEW) == {"kmod-nvidia-open-dkms": (f"3:{OLD}-1.el9", f"3:{NEW}-1.el9")}


def test_what_a_repair_leaves_in_another_version_is_brought_back_and_not_removed():
    assert cut_off(OLD) == {"nvidia-driver-cuda": (f"3:{NEW}-1.el9", f"3:{OLD}-1.el9")}


def test_headers_beside_those_that_are_there_are_not_new():
    made, _base = solver([Rpm("kernel-devel", "5.14.0", 0)], [Rpm("kernel-devel", "5.14.1", 0), *offers("nvidia-driver-cuda")])
    changes = made.simulate(["kernel-devel", "nvidia-driver-cuda"], [], NEW)
    assert [change.before for change in changes] == ["5.14.0-1.el9", None]


def test_what_is_there_twice_goes_as_a_whole():
    made, _base = solver([Rpm("nvidia-driver-cuda", OLD), Rpm("nvidia-driver-cuda", NEW)], offers("libnvidia-ml"))
    assert Change("nvidia-driver-cuda", f"3:{NEW}-1.el9", None) in made.simulate(["libnvidia-ml"], ["nvidia-driver-cuda"], NEW)


def test_a_reason_of_dnf_is_a_sentence_and_nothing_stays_hidden():
    made, base = solver((), offers("nvidia-driver-cuda"))
    base.fails = DnfError("\n Problem: package a requires b,\n  but none of the providers can be installed")
    with pytest.raises(Impossible, match=r"^Problem: package a requires b, but none of the providers can be installed\.$"):
        made.simulate(["nvidia-driver-cuda"], [], NEW)
    assert base.sack.hidden == []


def test_the_child_tells_what_can_be_sent():
    made, _base = solver([Rpm("nvidia-driver-cuda", OLD)], offers("nvidia-driver-cuda", "kmod-nvidia-open-dkms"))
    answer = _package_query.answer("/", "dnf", Query(branch="580"))
    asked = Query(branch="580", alternatives=[["nvidia-driver-cuda", "kmod-nvidia-open-dkms"]])
    changes = _package_query.choose(asked, made, made.installed, answer)
    assert (answer["choice"], answer["version"]) == (0, NEW)
    json.dumps([answer, _package_query.changed(changes), made.sizes(changes)])
