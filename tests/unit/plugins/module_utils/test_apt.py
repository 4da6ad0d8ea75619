# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _apt, _package_query, _packages
from ansible_collections.difyops.gpu.plugins.module_utils._package_query import Change, Query
from hypothesis import given
from hypothesis import strategies as st

RECORDED = {
    (version, answer["name"]): answer
    for version, answers in json.loads((Path(__file__).parents[2] / "fixtures/packages/apt.json").read_text())["apt"].items()
    for answer in answers
}
NEW, OLD = "535.309.01-0+deb12u1", "535.261.03-1"


def changes(version, name):
    return {change.name: (change.before, change.after) for change in _apt.parse_changes(RECORDED[version, name]["out"])}


def test_recorded_transactions():
    assert changes("2.6.1", "nothing to do") == {}
    downgrade = changes("2.6.1", "downgrade")
    assert downgrade["nvidia-smi"] == downgrade["libcuda1"] == (NEW, OLD)
    # Not named, and of no use with the older version of the others.
    assert downgrade["libnvcuvid1"] == (NEW, None)
    assert len(downgrade) == 12
    assert changes("2.6.1", "removal") == {"nvidia-kernel-dkms": (NEW, None), "nvidia-smi": (NEW, None)}
    assert changes("2.6.1", "purge") == {"nvidia-kernel-dkms": (NEW, None)}
    assert changes("2.6.1", "upgrade with new packages")["libnvidia-encode1"] == (None, NEW)
    for name in ("install", "install of solver 3"):
        assert changes("3.0.3", name)["libnvidia-ml1"] == (None, "550.163.01-2")


@pytest.mark.parametrize(
    ("version", "name", "parts"),
    [
        ("2.6.1", "no such package", ["Unable to locate package nvidia-nosuch."]),
        ("2.6.1", "no such version", ["Version '580.95.05-1' for 'nvidia-smi' was not found."]),
        ("2.6.1", "unmet dependencies", ["nvidia-kernel-dkms : Depends: firmware-nvidia-gsp (= 535.261.03) or"]),
        ("3.0.3", "conflict", ["Reached two conflicting decisions", "nvidia-kernel-dkms:amd64=550.163.01-2 is selected"]),
        ("3.0.3", "conflict of solver 3", ["Reached two conflicting decisions", "nvidia-kernel-dkms:amd64=550.163.01-2 is selected"]),
    ],
)
def test_recorded_reasons(version, name, parts):
    answer = RECORDED[version, name]
    assert answer["rc"] == 100
    told = _apt.reason(answer["out"], answer["err"])
    assert all(part in told for part in parts), told
    assert told.endswith(".")
    assert "\n" not in told


def test_recorded_records():
    records = _apt.parse_records(RECORDED["2.6.1", "show"]["out"])
    assert {(one.name, one.version) for one in records} >= {("nvidia-smi", NEW), ("nvidia-smi", OLD)}
    smi = next(one for one in records if one.version == NEW and one.name == "nvidia-smi")
    assert (smi.download, smi.size_kib) == (390600, 881)
    assert ["libnvidia-ml1"] in _apt.groups(smi.needs)
    assert _apt.available(records, ["nvidia-smi", "bash", "nvidia-persistenced"]) == {"535.309.01", "535.261.03", "535.171.04"}


def test_recorded_packages():
    installed = {one.package.name: one for one in _apt.parse_installed(RECORDED["2.6.1", "dpkg-query"]["out"])}
    assert installed["nvidia-smi"].package.version == NEW
    assert installed["nvidia-smi"].size_kib == 881
    needs = dict(_apt.needs(installed.values()))
    assert needs["nvidia-smi"]
    assert "nvidia-driver" not in installed


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("Inst libc6 [2.36-9] (2.36-10 Debian:12.1/stable [amd64])", Change("libc6", "2.36-9", "2.36-10")),
        ("Inst libc6:i386 (2.36-10 Debian:12.1/stable [i386]) []", Change("libc6", None, "2.36-10")),
        ("Inst a [1] (2 r [amd64]) [b:amd64 ]", Change("a", "1", "2")),
        ("Remv nvidia-smi [535.309.01-0+deb12u1]", Change("nvidia-smi", NEW, None)),
        ("Remv nvidia-smi [535.309.01-0+deb12u1] [nvidia-driver:amd64 ]", Change("nvidia-smi", NEW, None)),
        ("Purg nvidia-smi [1]", Change("nvidia-smi", "1", None)),
        ("Conf nvidia-smi (1 Debian [amd64])", None),
        ("  Inst nvidia-smi (1)", None),
    ],
)
def test_lines_of_a_simulation(line, change):
    assert _apt.parse_changes(f"Reading package lists...\n{line}\n") == ([change] if change else [])


@given(st.text(alphabet=st.sampled_from("InstRemvPug []():-=|,.\n\tabcEDepends<>&#0179~+/\"'"), max_size=300) | st.text(max_size=200))
def test_no_text_breaks_a_parser(text):
    for change in _apt.parse_changes(text):
        assert change.name
        assert change.before or change.after
    for one in _apt.parse_installed(text):
        assert one.package.name
        _apt.needs([one])
    _apt.available(_apt.parse_records(text), ["a"])
    assert _apt.reason(text, text).strip()
    for source in (*_apt.parse_list(text), *_apt.parse_deb822(text)):
        assert set(source) == {"uris", "suites", "components", "signed_by"}
    assert all(all(group) for group in _apt.groups(text))


NAMES = st.from_regex(r"[a-z][a-z0-9.+-]{0,10}", fullmatch=True)
VERSIONS = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~]{0,8}(-[0-9]{1,2})?", fullmatch=True)


@given(st.dictionaries(NAMES, st.tuples(VERSIONS | st.none(), VERSIONS | st.none()).filter(any), max_size=6))
def test_a_simulation_comes_back_as_it_was_written(transaction):
    lines = []
    for name, (before, after) in transaction.items():
        old = f" [{before}]" if before else ""
        lines.append(f"Inst {name}{old} ({after} Debian:12.1/stable [amd64])" if after else f"Remv {name}{old}")
    assert _apt.parse_changes("\n".join(lines)) == sorted(Change(name, *versions) for name, versions in transaction.items())


ONE_LINE = """\
# deb http://old.example.org/debian bookworm main
deb http://deb.example.org/debian bookworm main non-free # comment
deb-src http://deb.example.org/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://user:secret@example.org/cuda/repos/ubuntu2404/x86_64/ /
deb cdrom:[Debian] bookworm
"""
DEB822 = """\
# a comment
Types: deb deb-src
URIs: https://example.org/debian
 https://user:secret@mirror.example.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/x.gpg

Types: deb
URIs: https://example.org/off
Suites: x
Enabled: no

Types: deb-src
URIs: https://example.org/source
Suites: x

Types: deb
URIs: https://example.org/flat
Suites: ./
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQ
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_sources(tmp_path):
    folder = tmp_path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text(ONE_LINE)
    (folder / "difyops-nvidia-driver.sources").write_text(DEB822)
    (folder / "other.list.save").write_text(ONE_LINE)
    found = _apt.sources(str(tmp_path))
    assert "secret" not in json.dumps(found)
    listed = [source for source in found if source["file"] == "/etc/apt/sources.list"]
    assert listed[:2] == [
        {
            "file": "/etc/apt/sources.list",
            "uris": ["http://deb.example.org/debian"],
            "suites": ["bookworm"],
            "components": ["main", "non-free"],
            "signed_by": None,
        },
        {
            "file": "/etc/apt/sources.list",
            "uris": ["https://***@example.org/cuda/repos/ubuntu2404/x86_64/"],
            "suites": ["/"],
            "components": [],
            "signed_by": "/usr/share/keyrings/x.gpg",
        },
    ]
    rest = [source for source in found if source["file"] != "/etc/apt/sources.list"]
    assert [(source["suites"], source["signed_by"]) for source in rest] == [
        (["trixie", "trixie-updates"], "/usr/share/keyrings/x.gpg"),
        (["./"], "embedded key"),
    ]
    assert rest[0]["uris"] == ["https://example.org/debian", "https://***@mirror.example.org/debian"]


def test_when_lists_were_read(tmp_path):
    assert _apt.lists_at(str(tmp_path)) is None
    (tmp_path / "var/lib/apt/lists/partial").mkdir(parents=True)
    assert _apt.lists_at(str(tmp_path)) is None
    (tmp_path / "var/lib/apt/lists/deb.example.org_dists_x_main_binary-amd64_Packages.lz4").touch()
    assert _apt.lists_at(str(tmp_path)).endswith("Z")


def test_dpkg_that_was_killed(tmp_path):
    updates = tmp_path / "var/lib/dpkg/updates"
    updates.mkdir(parents=True)
    (updates / "tmp.i").touch()
    assert _apt.interrupted(str(tmp_path)) == []
    (updates / "0003").touch()
    assert _apt.interrupted(str(tmp_path)) == [{"name": "dpkg", "version": None, "state": "interrupted"}]


class Root:
    """A file system with a genuine apt and a repository of one index: a simulation looks at no package."""

    def __init__(self, root):
        self.root = root
        for folder in ("var/lib/dpkg/updates", "var/lib/dpkg/info", "etc/apt/preferences.d", "var/cache/apt/archives/partial", "repo"):
            (root / folder).mkdir(parents=True)
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)
        (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{root}/repo ./\n")
        self._status, self._index = [], []
        self._write()

    def _write(self):
        (self.root / "var/lib/dpkg/status").write_text("\n".join(self._status))
        (self.root / "repo/Packages").write_text("\n".join(self._index))

    @staticmethod
    def _fields(name, version, **fields):
        lines = [f"{key.replace('_', '-')}: {value}" for key, value in {"Installed-Size": "2048", **fields}.items()]
        text = "\n".join(lines)
        return f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Ubuntu <x@example.org>\n{text}\nDescription: x\n"

    def offer(self, name, version, **fields):
        self._index.append(self._fields(name, version, Size=1048576, Filename=f"./{name}_{version}.deb", SHA256="0" * 64, **fields))

    def install(self, name, version, state="install ok installed", **fields):
        self._status.append(self._fields(name, version, Status=state, **fields))

    def ask(self, **query):
        self._write()
        options = [f"Dir={self.root}", f"Dir::State::status={self.root}/var/lib/dpkg/status", "APT::Sandbox::User=root"]
        subprocess.run(["apt-get", *(f"-o{one}" for one in options), "-qq", "update"], check=True, capture_output=True, timeout=60)
        return _apt.ask(Query(**query), str(self.root), 60.0)


def branch(root, number, version, kind="-server", **later):
    """Offer what Ubuntu has of a branch."""
    version = f"{version}-0ubuntu0.24.04.1"
    offer = later.get("offer", root.offer)
    offer(f"libnvidia-compute-{number}{kind}", version, Conflicts="libnvidia-compute", Provides="libnvidia-compute")
    offer(f"nvidia-kernel-common-{number}{kind}", version)
    offer(f"nvidia-firmware-{number}{kind}-{version.partition('-')[0]}", version)
    for flavour in ("", "-open"):
        offer(
            f"nvidia-dkms-{number}{kind}{flavour}",
            version,
            Depends=f"nvidia-kernel-common-{number}{kind} (= {version}), dkms",
            Conflicts="nvidia-dkms-kernel",
            Provides="nvidia-dkms-kernel",
        )
        offer(f"nvidia-headless-no-dkms-{number}{kind}{flavour}", version, Depends=f"libnvidia-compute-{number}{kind} (= {version})")
    offer(f"nvidia-utils-{number}{kind}", version, Depends=f"libnvidia-compute-{number}{kind} (= {version})")


def alternative(number, kind="-server", flavour="-open"):
    return [f"nvidia-headless-no-dkms-{number}{kind}{flavour}", f"nvidia-dkms-{number}{kind}{flavour}", f"nvidia-utils-{number}{kind}"]


PATTERNS = ["nvidia-headless-no-dkms-*", "nvidia-dkms-*"]
needs_apt = pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-query")), reason="needs apt")


@pytest.fixture
def ubuntu(tmp_path):
    root = Root(tmp_path / "root")
    branch(root, 580, "580.95.05")
    branch(root, 580, "580.178.04")
    branch(root, 595, "595.91.07")
    for flavour in ("", "-open"):
        name = f"nvidia-headless-no-dkms-535-server{flavour}"
        root.offer(name, "535.309.01-0ubuntu0.24.04.2", Depends=f"nvidia-headless-no-dkms-580-server{flavour}")
        name = f"nvidia-dkms-535-server{flavour}"
        root.offer(name, "535.309.01-0ubuntu0.24.04.2", Depends=f"nvidia-dkms-580-server{flavour}")
    root.offer("nvidia-utils-535-server", "535.309.01-0ubuntu0.24.04.2", Depends="nvidia-utils-580-server")
    root.offer("dkms", "3.0.11-1")
    root.offer("linux-headers-6.8.0-50-generic", "6.8.0-50.51")
    root.offer("nvidia-fabricmanager-580", "580.178.04-0ubuntu0.24.04.1")
    root.offer("nvidia-driver-pinning-580.178.04", "580.178.04-1")
    return root


def versions(told):
    return {entry["name"]: (entry["from"], entry["to"]) for entry in told["install"]}


@needs_apt
def test_the_newest_of_a_branch_with_all_that_goes_with_it(ubuntu):
    told = ubuntu.ask(
        branch="580",
        alternatives=[alternative(580)],
        also={
            "headers 6.8.0-50-generic": ["linux-headers-6.8.0-50-generic"],
            "fabric manager": ["nvidia-fabricmanager-580"],
            "pinning": ["nvidia-driver-pinning-{version}", "nvidia-driver-pinning-{branch}"],
            "nothing": ["nosuch"],
        },
        patterns=PATTERNS,
    )
    assert told["error"] is None
    assert (told["choice"], told["version"]) == (0, "580.178.04")
    # Names of branch 535 are there and only lead to 580.
    assert told["available"] == {"595": ["595.91.07"], "580": ["580.178.04", "580.95.05"]}
    assert told["also"] == {
        "headers 6.8.0-50-generic": "linux-headers-6.8.0-50-generic",
        "fabric manager": "nvidia-fabricmanager-580",
        "pinning": "nvidia-driver-pinning-580.178.04",
        "nothing": None,
    }
    wanted = {*alternative(580), "libnvidia-compute-580-server", "nvidia-kernel-common-580-server", "dkms"}
    assert set(versions(told)) == {*wanted, "linux-headers-6.8.0-50-generic", "nvidia-fabricmanager-580"}
    assert told["remove"] == []
    assert (told["download_mib"], told["needed_mib"]) == (8, 16)
    assert told["lists_at"]
    assert told["sources"][0]["suites"] == ["./"]


@needs_apt
def test_an_exact_version_and_what_is_not_there_in_it(ubuntu):
    told = ubuntu.ask(version="580.95.05", alternatives=[alternative(580)], also={"fabric manager": ["nvidia-fabricmanager-580"]})
    assert told["version"] == "580.95.05"
    assert {to.partition("-")[0] for _from, to in versions(told).values()} == {"580.95.05", "3.0.11"}
    assert told["also"] == {"fabric manager": None}


@needs_apt
def test_a_name_that_leads_to_another_branch(ubuntu):
    told = ubuntu.ask(branch="535", alternatives=[alternative(535)])
    assert (told["choice"], told["version"], told["install"]) == (None, "580.178.04", [])
    assert told["error"] == "nvidia-headless-no-dkms-535-server-open leads to driver 580.178.04, not to branch 535."


@needs_apt
@pytest.mark.parametrize(
    ("query", "error"),
    [
        (
            {"branch": "590", "alternatives": [alternative(590)]},
            "nvidia-headless-no-dkms-590-server-open is in no package source of this host.",
        ),
        (
            {"version": "580.1.2", "alternatives": [alternative(580)]},
            "nvidia-headless-no-dkms-580-server-open is there as 580.178.04, 580.95.05 only, not as 580.1.2.",
        ),
        ({"branch": "580"}, "No packages were named that would make the driver."),
    ],
)
def test_what_is_not_to_be_had(ubuntu, query, error):
    told = ubuntu.ask(**query)
    assert (told["choice"], told["version"], told["error"]) == (None, None, error)


@needs_apt
def test_a_dependency_that_is_missing_is_told_and_the_next_set_is_taken(ubuntu):
    ubuntu.offer("nvidia-dkms-580-broken", "580.178.04-0ubuntu0.24.04.1", Depends="libnosuch (>= 2)")
    told = ubuntu.ask(branch="580", alternatives=[["nvidia-dkms-580-broken"]])
    assert "nvidia-dkms-580-broken : Depends: libnosuch (>= 2)" in told["error"]
    told = ubuntu.ask(branch="580", alternatives=[["nvidia-dkms-580-broken"], alternative(580)])
    assert (told["choice"], told["error"]) == (1, None)


@pytest.fixture
def upgraded(ubuntu):
    """A host that has branch 580 in its older version."""
    branch(ubuntu, 580, "580.95.05", offer=ubuntu.install)
    ubuntu._status = [text for text in ubuntu._status if "nvidia-dkms-580-server-open\n" not in text and "-server-open\n" not in text]
    ubuntu.install("dkms", "3.0.11-1")
    ubuntu.install("nvidia-modprobe", "550.54.14-1")
    return ubuntu


@needs_apt
def test_all_that_is_installed_of_a_driver_goes_to_the_version(upgraded):
    told = upgraded.ask(version="580.178.04", alternatives=[alternative(580, flavour="")])
    assert told["error"] is None
    names = {*alternative(580, flavour=""), "libnvidia-compute-580-server", "nvidia-kernel-common-580-server"}
    assert set(versions(told)) == names
    assert {to for _from, to in versions(told).values()} == {"580.178.04-0ubuntu0.24.04.1"}
    # The firmware has the version in its name.
    assert told["remove"] == [{"name": "nvidia-firmware-580-server-580.95.05", "from": "580.95.05-0ubuntu0.24.04.1"}]
    assert told["needed_mib"] == -2


@needs_apt
@pytest.mark.parametrize("replaces", [True, False])
def test_another_branch_takes_the_place_of_the_installed_one(upgraded, replaces):
    if replaces:
        upgraded._index = [
            text.replace("Conflicts: ", "Replaces: libnvidia-compute, nvidia-dkms-kernel\nConflicts: ") for text in upgraded._index
        ]
    told = upgraded.ask(branch="595", alternatives=[alternative(595)])
    assert (told["choice"], told["version"]) == (0, "595.91.07")
    removed = {entry["name"] for entry in told["remove"]}
    assert {"libnvidia-compute-580-server", "nvidia-dkms-580-server", "nvidia-kernel-common-580-server"} <= removed
    assert not {"nvidia-modprobe", "dkms"} & removed
    assert {name for name, (before, _to) in versions(told).items() if before is None} == {
        *alternative(595),
        "libnvidia-compute-595-server",
        "nvidia-kernel-common-595-server",
    }


@needs_apt
def test_the_other_flavour_of_modules_goes(upgraded):
    told = upgraded.ask(version="580.95.05", alternatives=[alternative(580)])
    assert told["error"] is None
    assert "nvidia-dkms-580-server" in {entry["name"] for entry in told["remove"]}


@needs_apt
def test_rules_of_others_and_our_own_do_not_count(upgraded):
    preferences = upgraded.root / "etc/apt/preferences.d"
    (preferences / "foreign.pref").write_text("Package: *nvidia*\nPin: version 580.95.05*\nPin-Priority: 1001\n")
    (preferences / "difyops-nvidia-driver.pref").write_text("Package: *\nPin: release *\nPin-Priority: -1\n")
    upgraded._status = [text.replace("install ok installed", "hold ok installed") for text in upgraded._status]
    told = upgraded.ask(version="580.178.04", alternatives=[alternative(580, flavour="")])
    assert (told["choice"], told["version"], told["error"]) == (0, "580.178.04", None)


@needs_apt
def test_preferences_of_the_question_count(ubuntu):
    rule = "Package: dkms\nPin: release *\nPin-Priority: -1\n"
    told = ubuntu.ask(branch="580", alternatives=[alternative(580)], preferences=rule)
    assert told["choice"] is None
    assert "dkms" in told["error"]


@needs_apt
def test_preferences_of_an_installed_pinning_package_do_not_count_where_another_is_to_replace_it(ubuntu):
    path = "etc/apt/preferences.d/nvidia-driver-pinning"
    (ubuntu.root / path).write_text("Package: dkms\nPin: release *\nPin-Priority: -1\n")
    (ubuntu.root / "var/lib/dpkg/info/nvidia-driver-pinning-595.list").write_text(f"/.\n/etc\n/{path}\n")
    assert ubuntu.ask(branch="580", alternatives=[alternative(580)])["choice"] is None
    assert ubuntu.ask(branch="580", alternatives=[alternative(580)], also={"pinning": ["nosuch"]})["choice"] == 0


@needs_apt
def test_broken_packages(ubuntu):
    ubuntu.install("nvidia-dkms-580-server", "580.95.05-0ubuntu0.24.04.1", state="install ok half-configured", Depends="dkms")
    ubuntu.install("dkms", "3.0.11-1")
    ubuntu.install("gone", "1", state="deinstall ok config-files")
    told = ubuntu.ask(branch="580", alternatives=[alternative(580, flavour="")])
    assert told["broken"] == [{"name": "nvidia-dkms-580-server", "version": "580.95.05-0ubuntu0.24.04.1", "state": "half-configured"}]
    assert told["choice"] == 0


@needs_apt
def test_removal_takes_the_driver_and_what_it_brought_and_nothing_else(upgraded):
    upgraded.install("linux-headers-6.8.0-50-generic", "6.8.0-50.51")
    upgraded.install("gcc", "13")
    upgraded.install("build-essential", "12", Depends="gcc")
    upgraded.install("nvtop", "3", Depends="libnvidia-compute-580-server | libnvidia-ml.so.1")
    state = upgraded.root / "var/lib/difyops/nvidia_driver"
    state.mkdir(parents=True)
    (state / "brought.json").write_text('{"schema": 1, "packages": ["dkms", "gcc", "linux-headers-6.8.0-50-generic", "never-there", 7]}')
    told = upgraded.ask(state="absent")
    assert told["error"] is None
    removed = {entry["name"] for entry in told["remove"]}
    assert {"dkms", "linux-headers-6.8.0-50-generic", "nvidia-dkms-580-server", "nvidia-modprobe", "nvidia-utils-580-server"} <= removed
    assert not {"gcc", "build-essential", "nvtop", "libnvidia-compute-580-server"} & removed
    assert told["brought"] == ["dkms", "gcc", "linux-headers-6.8.0-50-generic", "never-there"]
    assert told["needed_mib"] < 0


@needs_apt
def test_a_driver_that_something_needs_stays(upgraded):
    upgraded.install("simulation-suite", "3", Depends="nvidia-dkms-580-server")
    told = upgraded.ask(state="absent")
    assert told["remove"] == []
    assert told["error"].startswith("nvidia-dkms-580-server is needed by simulation-suite, which the driver did not bring.")


@needs_apt
def test_nothing_to_remove(ubuntu):
    told = ubuntu.ask(state="absent")
    assert (told["remove"], told["error"], told["download_mib"]) == ([], None, 0)
    state = ubuntu.root / "var/lib/difyops/nvidia_driver"
    state.mkdir(parents=True)
    (state / "brought.json").write_text("{")
    assert "brought.json cannot be read" in ubuntu.ask(state="absent")["error"]


def test_without_apt(tmp_path, monkeypatch):
    monkeypatch.setattr(_apt._command, "find", lambda name: None)
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    told = _apt.ask(Query(branch="580", alternatives=[["a"]]), str(tmp_path), 5.0)
    assert told["error"]
    assert told["choice"] is None
    assert set(told) == set(_package_query.answer("/", "apt", Query()))


def test_packages_that_tell_no_version_do_not_decide():
    prebuilt = [_packages.Package("linux-modules-nvidia-580-server-open-generic", "6.8.0-60.63+1", "Ubuntu", broken=False)]
    changes = [Change("libnvidia-compute-580-server", None, "580.178.04-0ubuntu1"), Change("nvidia-firmware-580-server", None, "1")]
    assert _package_query.outcome(prebuilt, changes) == "580.178.04"
    assert _package_query.outcome(prebuilt, []) is None


RUNNING, NEXT = "6.8.0-50-generic", "6.8.0-60-generic"
STEM = "linux-modules-nvidia-580-server-open"
FOR_OLD, FOR_NEW = {RUNNING: "6.8.0-50.51", NEXT: "6.8.0-60.63"}, {RUNNING: "6.8.0-50.51+1", NEXT: "6.8.0-60.63+2"}


def prebuilt(offer, version, kernels, meta, flavour="-open"):
    """Offer modules as Ubuntu has them: those of each kernel for a range of versions, and a metapackage for those of one."""
    stem = f"linux-modules-nvidia-580-server{flavour}"
    for kernel, own in kernels.items():
        common = f"nvidia-kernel-common-580-server (<= {version}-1), nvidia-kernel-common-580-server (>= {version})"
        image = f"linux-image-{kernel} | linux-image-unsigned-{kernel}"
        offer(f"{stem}-{kernel}", own, Depends=f"linux-objects-nvidia-580-server{flavour}-{kernel} (= {own}), {image}, {common}")
        offer(f"linux-objects-nvidia-580-server{flavour}-{kernel}", own)
        if kernel == meta:
            offer(f"{stem}-generic", own, Depends=f"{stem}-{kernel} (= {own})")


@pytest.fixture
def signed(ubuntu):
    """What Ubuntu has of prebuilt modules for two versions of a driver, the newer of which has them for both kernels too."""
    for kernel in (RUNNING, NEXT):
        ubuntu.install(f"linux-image-{kernel}", "6.8.0")
    prebuilt(ubuntu.offer, "580.95.05", FOR_OLD, NEXT)
    prebuilt(ubuntu.offer, "580.178.04", FOR_NEW, NEXT)
    return ubuntu


SIGNED = [f"{STEM}-{RUNNING}", f"{STEM}-{NEXT}", f"{STEM}-generic", "nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"]


@needs_apt
@pytest.mark.parametrize(
    ("asked", "version", "kernels"),
    [
        ({"branch": "580"}, "580.178.04", FOR_NEW),
        ({"version": "580.178.04"}, "580.178.04", FOR_NEW),
        ({"version": "580.95.05"}, "580.95.05", FOR_OLD),
    ],
)
def test_prebuilt_modules_are_those_of_the_driver(signed, asked, version, kernels):
    told = signed.ask(**asked, alternatives=[SIGNED, alternative(580)])
    assert (told["choice"], told["version"], told["error"]) == (0, version, None)
    found = versions(told)
    for kernel, own in kernels.items():
        assert found[f"{STEM}-{kernel}"] == found[f"linux-objects-nvidia-580-server-open-{kernel}"] == (None, own)
    assert found[f"{STEM}-generic"] == (None, kernels[NEXT])
    assert found["nvidia-kernel-common-580-server"] == (None, f"{version}-0ubuntu0.24.04.1")


def real_run(root, told):
    """Install by the role's way what was told, and return what is installed then: apt's own word for every version."""
    options = [f"-oDir={root.root}", f"-oDir::State::status={root.root}/var/lib/dpkg/status", "--no-install-recommends"]
    names = [f"{entry['name']}={entry['to']}" for entry in told["install"]]
    command = ["apt-get", *options, "--simulate", "--allow-downgrades", "--allow-change-held-packages", "install", *names]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return {change.name: (change.before, change.after) for change in _apt.parse_changes(done.stdout)}


@needs_apt
def test_apt_itself_takes_what_was_told_without_rules_of_anybody(signed):
    told = signed.ask(version="580.95.05", alternatives=[SIGNED])
    assert real_run(signed, told) == versions(told)


@needs_apt
def test_without_modules_for_the_driver_they_are_built_on_the_host(ubuntu):
    ubuntu.install(f"linux-image-{NEXT}", "6.8.0")
    prebuilt(ubuntu.offer, "580.178.04", {NEXT: FOR_NEW[NEXT]}, NEXT)
    sets = [[f"{STEM}-{NEXT}", *SIGNED[3:]], alternative(580)]
    assert ubuntu.ask(version="580.95.05", alternatives=sets)["choice"] == 1
    # Where no version was named, the older driver comes rather than none.
    prebuilt(ubuntu.offer, "580.95.05", {RUNNING: FOR_OLD[RUNNING]}, RUNNING)
    ubuntu.install(f"linux-image-{RUNNING}", "6.8.0")
    told = ubuntu.ask(branch="580", alternatives=[[f"{STEM}-{RUNNING}", *SIGNED[3:]]])
    assert (told["choice"], told["version"]) == (0, "580.95.05")


@needs_apt
def test_a_metapackage_decides_on_the_modules_that_are_named_beside_it(signed):
    # Newer modules of the same driver, to which no metapackage leads yet.
    prebuilt(signed.offer, "580.95.05", {NEXT: "6.8.0-60.63+1"}, None)
    told = signed.ask(version="580.95.05", alternatives=[SIGNED])
    assert versions(told)[f"{STEM}-{NEXT}"] == versions(told)[f"{STEM}-generic"] == (None, FOR_OLD[NEXT])
    told = signed.ask(version="580.95.05", alternatives=[[name for name in SIGNED if name != f"{STEM}-generic"]])
    assert versions(told)[f"{STEM}-{NEXT}"] == (None, "6.8.0-60.63+1")


def provisioned(root, version, kernels):
    """Install a driver with prebuilt modules as the role leaves it: everything held but the modules."""
    full, held = f"{version}-0ubuntu0.24.04.1", "hold ok installed"
    source = "nvidia-kernel-source-580-server-open"
    prebuilt(root.install, version, kernels, NEXT)
    library = {"Conflicts": "libnvidia-compute", "Provides": "libnvidia-compute", "state": held}
    root.install("libnvidia-compute-580-server", full, **library)
    root.install("nvidia-kernel-common-580-server", full, state=held)
    root.install(source, full, state=held)
    needs = f"libnvidia-compute-580-server (= {full})"
    root.install("nvidia-headless-no-dkms-580-server-open", full, state=held, Depends=needs)
    root.install("nvidia-utils-580-server", full, state=held, Depends=needs)
    for other in ("580.95.05", "580.178.04"):
        root.offer(source, f"{other}-0ubuntu0.24.04.1")


@needs_apt
@pytest.mark.parametrize(("there", "target"), [("580.95.05", "580.178.04"), ("580.178.04", "580.95.05")])
def test_prebuilt_modules_change_with_the_driver_also_of_kernels_that_were_not_asked_for(signed, there, target):
    before, after = (FOR_OLD, FOR_NEW) if there == "580.95.05" else (FOR_NEW, FOR_OLD)
    provisioned(signed, there, before)
    told = signed.ask(version=target, alternatives=[[f"{STEM}-{NEXT}", f"{STEM}-generic", *SIGNED[3:]]])
    assert (told["choice"], told["error"], told["remove"]) == (0, None, [])
    for kernel in (RUNNING, NEXT):
        assert versions(told)[f"{STEM}-{kernel}"] == (before[kernel], after[kernel])
    assert versions(told)["nvidia-kernel-source-580-server-open"] == (f"{there}-0ubuntu0.24.04.1", f"{target}-0ubuntu0.24.04.1")
    assert real_run(signed, told) == versions(told)


@needs_apt
def test_nothing_moves_where_everything_is_there(signed):
    provisioned(signed, "580.95.05", FOR_OLD)
    told = signed.ask(version="580.95.05", alternatives=[SIGNED])
    assert (told["choice"], told["install"], told["remove"]) == (0, [], [])


def finder(records, compares=lambda version, operator, other: True):
    by_name = {}
    for name, version, needed in records:
        by_name.setdefault(name, []).append(_apt.Record(name, version, needed, 0, 0))
    apt = _apt.Apt("/", 5.0)
    apt.compares = compares
    return _apt.Prebuilt(apt, lambda name: by_name.get(name, []))


def test_prebuilt_modules_that_need_themselves_are_not_taken():
    one, other = f"{STEM}-{NEXT}", f"linux-objects-nvidia-580-{NEXT}"
    assert finder([(one, "1", other), (other, "1", one)]).versions([one], "580.95.05") == {}


TEXTS = st.sampled_from([f"{STEM}-{NEXT}", f"{STEM}-generic", "nvidia-kernel-common-580", "nosuch", "(= 1)", "(<= 580)", "(<", ",", "|"])
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([f"{STEM}-{NEXT}", f"{STEM}-generic", "nvidia-kernel-common-580"]),
        st.sampled_from(["1", "6.8.0-60.63", "580.95.05-1"]),
        st.lists(TEXTS, max_size=6).map("".join),
    ),
    max_size=8,
)


@given(RECORDS, st.booleans())
def test_no_archive_breaks_the_search_for_prebuilt_modules(records, met):
    found = finder(records, lambda version, operator, other: met).versions([f"{STEM}-{NEXT}", f"{STEM}-generic", "nosuch"], "580.95.05")
    assert all(any((name, version) == record[:2] for record in records) for name, version in found.items())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a (>= 1:2~3-4), b:any (<< 5) | c", [[("a", ">=", "1:2~3-4")], [("b", "<<", "5"), ("c", None, None)]]),
        ("a [amd64] (= 1)", [[("a", None, None)]]),
        ("a(=1)", [[("a", "=", "1")]]),
        (" , ", []),
    ],
)
def test_relations(text, told):
    assert _apt.relations(text) == told
