# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _packages
from ansible_collections.difyops.gpu.plugins.module_utils._packages import Package
from hypothesis import given
from hypothesis import strategies as st


def package(name, version="580.105.08-1ubuntu1", source="nvidia-graphics-drivers"):
    return Package(name, version, "NVIDIA", broken=False, source=source)


DEB = [package("nvidia-dkms-580-open"), package("libnvidia-compute-580"), package("nvidia-open-580", source="cuda-drivers")]
RPM = [package(name, "580.105.08-1.el9", "") for name in ("kmod-nvidia-open-dkms", "nvidia-driver-cuda-libs", "nvidia-open")]
OTHERS = [package("nvidia-container-toolkit", "1.19.1-1", "nvidia-container-toolkit"), package("nvidia-settings", "510.47.03-0ubuntu1")]


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def installed(family, held):
    return [package._replace(held=package.name in held) for package in (*OTHERS, *(DEB if family == "debian" else RPM))]


def rules(root, family="debian", held=()):
    return _packages.pins(_packages.rules(str(root), family), _packages.parts(installed(family, held)))


def pinned(root, family="debian", held=()):
    packages = installed(family, held)
    found = rules(root, family, held)
    told = _packages.driver(packages, found)
    assert told["pins"] == found
    assert told["pinned"] is _packages.pinned(packages, found)
    return told["pinned"]


def test_nothing_is_pinned(tmp_path):
    for family in ("debian", "rhel", None):
        assert rules(tmp_path, family) == []
        assert pinned(tmp_path, family) is False


def test_holds_count_when_every_package_has_one(tmp_path):
    names = [package.name for package in DEB]
    assert rules(tmp_path, held=[*names, "nvidia-container-toolkit", "bash"]) == [
        {"kind": "hold", "name": name, "value": None, "path": None} for name in sorted(names)
    ]
    assert pinned(tmp_path, held=names)
    assert not pinned(tmp_path, held=names[:-1])


def test_prebuilt_modules_need_no_rule_of_their_own():
    hold = [{"kind": "hold", "name": "libnvidia-compute-580-server", "value": None, "path": None}]
    names = ("linux-modules-nvidia-580-server-open-generic", "linux-objects-nvidia-580-server-open-6.8.0-50-generic")
    modules = [_packages.Package(name, "6.8.0-50.51+1", "Ubuntu", broken=False) for name in names]
    library = _packages.Package("libnvidia-compute-580-server", "580.95.05-0ubuntu1", "Ubuntu", broken=False)
    assert _packages.pinned([*modules, library], hold)
    assert not _packages.pinned([*modules, library], [])
    assert not _packages.pinned(modules, hold)


SOURCES = "src:*nvidia*:any src:cuda-drivers:any src:cuda-compat:any"


# NVIDIA's packages nvidia-driver-pinning-580 and nvidia-driver-pinning-580.105.08 differ in the version only.
@pytest.mark.parametrize(
    ("names", "pin", "priority", "found", "held"),
    [
        (SOURCES, "version 580.105.08*", 1000, 2, True),
        (SOURCES, "version 580.*", 1000, 2, False),
        ("*nvidia*", "version 580.105.08-1ubuntu1", 990, 1, True),
        ("/nvidia/", r"version /580\.105/", 1001, 1, True),
        ("//:any", r"version /580\.105/", 1001, 1, True),
        ("nvidia-dkms-580-open libnvidia-compute-580", "version 580.105.08-1ubuntu1", 1001, 2, False),
        ("*nvidia*", "version 580.105.08*", 989, 0, False),
        ("*nvidia*", "release o=NVIDIA", 1001, 0, False),
        ("*nvidia*", "origin example.org", -1, 1, False),
        ("*", "origin example.org", -1, 1, False),
        ("*", "version 580.105.08*", 1001, 0, False),
        ("*nvidia*", "version 580.105.08*", -1, 1, False),
        ("nvidia-container*", "version 1.19.1-1", 1001, 0, False),
        ("/[/", "version 580.105.08*", 1001, 0, False),
    ],
)
def test_preferences(tmp_path, names, pin, priority, found, held):
    write(tmp_path, "etc/apt/preferences.d/pin.pref", f"Explanation: x\nPackage: {names}\nPin: {pin}\nPin-Priority: {priority}\n")
    told = rules(tmp_path)
    assert len(told) == found
    for rule in told:
        assert (rule["kind"], rule["path"]) == ("preference", "/etc/apt/preferences.d/pin.pref")
        assert rule["value"] == f"{pin}, priority {priority}"
    assert pinned(tmp_path) is held


STANZA = "# a comment\nPackage: *nvidia*\nPin: version 580.105.08*\nPin-Priority: 1001\n"
# Names of files, and whether apt reads them.
FILES = {
    "nvidia": True,
    "nvidia.pref": True,
    "90_nvidia-580.pref": True,
    "nvidia-driver-pinning-580.105.08": False,
    "nvidia.bak": False,
    "nvidia.pref~": False,
    "nvidia.pref.dpkg-old": False,
    ".nvidia.pref": False,
    "nvidia driver.pref": False,
    "a.b.pref": True,
}
apt = pytest.mark.skipif(shutil.which("apt-cache") is None, reason="needs apt")


def priorities(root, packages=None):
    """Ask the genuine apt for the priority of each installed version."""
    packages = packages or DEB
    blocks = (
        f"Package: {p.name}\nStatus: install ok installed\nArchitecture: amd64\nSource: {p.source}\nVersion: {p.version}\nDescription: x\n"
        for p in packages
    )
    write(root, "var/lib/dpkg/status", "\n".join(blocks))
    for directory in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt/preferences.d", "etc/apt/apt.conf.d"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "etc/apt/sources.list").touch()
    options = [f"Dir={root}", f"Dir::State::status={root}/var/lib/dpkg/status", "APT::Architecture=amd64"]
    command = ["apt-cache", *(f"-o{option}" for option in options), "policy", *(p.name for p in packages)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).stdout
    return dict(re.findall(r"(?m)^(\S+):\n(?:  .*\n)*? \*\*\* \S+ (-?[0-9]+)$", said))


@apt
@pytest.mark.parametrize(("name", "read"), FILES.items())
def test_the_genuine_apt_reads_the_same_files(tmp_path, name, read):
    write(tmp_path, f"etc/apt/preferences.d/{name}", STANZA)
    assert set(priorities(tmp_path).values()) == {"1001" if read else "100"}
    assert bool(rules(tmp_path)) is read


NAMES = [
    SOURCES,
    "*nvidia*",
    "*NVIDIA*",
    "nvidia-dkms-580-open",
    "nvidia-dkms-580",
    "nvidia-dkms-580-open:amd64 nvidia-open-580:any",
    "libnvidia-* nvidia-open-???",
    "/nvidia/",
    "/^nvidia-.*-open$/",
    "/^NVIDIA/",
    "/^nvidia/:any src:cuda-drivers",
    "src:nvidia-graphics-drivers",
    "src:/nvidia/",
    "[ln]*-580",
    "*",
    "//:any",
]


@apt
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("priority", [1001, -1])
def test_the_genuine_apt_matches_the_same_packages(tmp_path, names, priority):
    write(tmp_path, "etc/apt/preferences", STANZA.replace("*nvidia*", names).replace("1001", str(priority)))
    theirs = {name for name, told in priorities(tmp_path).items() if told == str(priority)}
    ours = {package.name for package in DEB for rule in rules(tmp_path) if _packages.matches(rule["name"], package)}
    assert ours == theirs


FORMS = {
    "two stanzas": "Package: bash\nPin: version 1\nPin-Priority: 1001\n\n" + STANZA,
    "line with white space between": "Package: bash\nPin: version 1\nPin-Priority: 1001\n \n" + STANZA,
    "continued line": "Package: bash\n *nvidia*\nPin: version 580.105.08*\nPin-Priority: 1001\n",
    "comment inside": STANZA.replace("Pin:", "# why\nPin:"),
    "other case": "package: *nvidia*\nPIN: version 580.105.08*\npin-priority: 1001\n",
    "no priority": STANZA.replace("Pin-Priority: 1001", ""),
    "zero": STANZA.replace("1001", "0"),
    "plus": STANZA.replace("1001", "+1001"),
    "spaces": STANZA.replace(": ", ":   "),
}


@apt
@pytest.mark.parametrize("form", FORMS)
def test_the_genuine_apt_reads_the_same_stanzas(tmp_path, form):
    write(tmp_path, "etc/apt/preferences", FORMS[form])
    try:
        theirs = "1001" in priorities(tmp_path).values()
    except subprocess.CalledProcessError:
        theirs = False  # apt refuses to work with such a file
    assert bool(rules(tmp_path)) is theirs


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('Unattended-Upgrade::Package-Blacklist {\n    // "libc6";\n    "nvidia-";\n    "libnvidia";\n};\n', ["nvidia-", "libnvidia"]),
        ('Unattended-Upgrade::Package-Blacklist:: "libnvidia-compute-[0-9]+$";\n', ["libnvidia-compute-[0-9]+$"]),
        ('Unattended-Upgrade {\n  Package-Blacklist { ".*-open"; "["; };\n};\n', [".*-open"]),
        ('Unattended-Upgrade::Package-Blacklist { "dkms"; };\n', []),
        ('Unattended-Upgrade::Package-Whitelist { "nvidia"; };\n', []),
        ('#Unattended-Upgrade::Package-Blacklist:: "nvidia";\n', []),
    ],
)
def test_blocklist_of_unattended_upgrades_pins_nothing(tmp_path, text, names):
    path = "/etc/apt/apt.conf.d/50unattended-upgrades"
    write(tmp_path, path[1:], text)
    assert rules(tmp_path) == [{"kind": "blocklist", "name": name, "value": None, "path": path} for name in names]
    assert pinned(tmp_path) is False


# The form in which dnf versionlock add writes them.
LOCKS = "# Added lock on Mon Oct  5 2026\n" + "".join(f"{package.name}-3:580.105.08-1.el9.*\n" for package in RPM)


@pytest.mark.parametrize(
    ("text", "found", "held"),
    [
        (LOCKS, 3, True),
        (LOCKS.replace("nvidia-open-3:", "bash-0:"), 2, False),
        (LOCKS.replace("580.105.08-1.el9.*", "535.1.2-1.el9.*"), 3, True),
        ("*nvidia*-3:580.*\n", 1, False),
        ("*nvidia*580*\n", 1, False),
        ("*nvidia*580.105*\n", 1, False),
        ("!kmod-nvidia-open-dkms-3:595.91.07-1.el9.*\n", 1, False),
        ("kmod-nvidia-open-dkms\n", 1, False),
        ("# nvidia-open-3:580.105.08-1.el9.*\n", 0, False),
    ],
)
def test_locks_of_dnf_4(tmp_path, text, found, held):
    write(tmp_path, "etc/dnf/plugins/versionlock.list", text)
    assert len(rules(tmp_path, "rhel")) == found
    assert pinned(tmp_path, "rhel") is held


def test_a_lock_of_dnf_4_in_detail(tmp_path):
    path = "/etc/dnf/plugins/versionlock.list"
    write(tmp_path, path[1:], "nvidia-open-3:580.105.08-1.el9.*\n!nvidia-open-3:595.91.07-1.el9.*\n")
    assert rules(tmp_path, "rhel") == [
        {"kind": "versionlock", "name": "nvidia-open", "value": "3:580.105.08-1.el9.*", "path": path},
        {"kind": "versionlock", "name": "nvidia-open", "value": "!3:595.91.07-1.el9.*", "path": path},
    ]


def toml(name, *conditions):
    text = f'[[packages]]\nname = "{name}"\ncomment = "Added by \'versionlock add\' command"\n'
    return text + "".join(f'[[packages.conditions]]\nkey = "evr"\ncomparator = "{sign}"\nvalue = "{value}"\n' for sign, value in conditions)


@pytest.mark.parametrize(
    ("text", "values", "held"),
    [
        ("".join(toml(package.name, ("=", "3:580.105.08-1.el9")) for package in RPM), ["3:580.105.08-1.el9"] * 3, True),
        (toml("*nvidia*", ("=", "3:580.105.08-1.el9")), ["3:580.105.08-1.el9"], True),
        (toml("*nvidia*", (">=", "3:580"), ("<", "3:581")), [">= 3:580 and < 3:581"], False),
        (toml("nvidia-open", ("!=", "3:580.105.08-1.el9")), ["!= 3:580.105.08-1.el9"], False),
        (toml("bash", ("=", "0:5.2.15-5")), [], False),
    ],
)
def test_locks_of_dnf_5(tmp_path, text, values, held):
    write(tmp_path, "etc/dnf/versionlock.toml", f'version = "1.0"\n\n{text}')
    found = rules(tmp_path, "rhel")
    assert [rule["value"] for rule in found] == values
    assert pinned(tmp_path, "rhel") is held


@pytest.mark.parametrize(
    ("path", "text", "told", "held"),
    [
        ("etc/dnf/dnf.conf", "[main]\ngpgcheck=1\nexclude=*nvidia* kernel*\n", [("*nvidia*", None)], True),
        ("etc/dnf/dnf.conf", "[main]\nexcludepkgs = bash,\n  kmod-*,nvidia-*\nbest=True\n", [("kmod-*", None), ("nvidia-*", None)], True),
        ("etc/dnf/dnf.conf", "[main]\nexclude=nvidia-driver-cuda-libs-595.* bash\n", [("nvidia-driver-cuda-libs", "595.*")], False),
        ("etc/yum.repos.d/epel.repo", "[epel]\nname=x\nexclude=*nvidia*\n[epel-debug]\nname=y\n", [("*nvidia*", "epel")], False),
        ("etc/dnf/dnf.conf", "exclude=*nvidia*\n[main\n", [], False),
    ],
)
def test_what_dnf_excludes(tmp_path, path, text, told, held):
    write(tmp_path, path, text)
    found = rules(tmp_path, "rhel")
    assert [(rule["kind"], rule["path"]) for rule in found] == [("exclude", f"/{path}")] * len(told)
    assert [(rule["name"], rule["value"]) for rule in found] == told
    assert pinned(tmp_path, "rhel") is held


@pytest.mark.parametrize(("state", "value"), [("enabled", "580-open"), ("disabled", "disabled"), ("", None)])
def test_a_module_stream_pins_the_branch_only(tmp_path, state, value):
    path = "/etc/dnf/modules.d/nvidia-driver.module"
    write(tmp_path, path[1:], f"[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate={state}\n")
    write(tmp_path, "etc/dnf/modules.d/php.module", "[php]\nname=php\nstream=8.2\nprofiles=\nstate=enabled\n")
    expected = {"kind": "module_stream", "name": "nvidia-driver", "value": value, "path": path}
    assert rules(tmp_path, "rhel") == ([expected] if value else [])
    assert pinned(tmp_path, "rhel") is False


def test_files_that_are_something_else(tmp_path):
    for path in ("etc/apt/preferences", "etc/dnf/dnf.conf", "etc/dnf/versionlock.toml", "etc/dnf/modules.d/nvidia-driver.module"):
        (tmp_path / path).mkdir(parents=True)
    write(tmp_path, "etc/yum.repos.d", "a file")
    assert rules(tmp_path) == rules(tmp_path, "rhel") == []


PARSERS = [_packages.preferences, _packages.blocklist, _packages.versionlock, _packages.versionlock5, _packages.excludes, _packages.streams]
WORDS = st.sampled_from(
    ["Package:", "Pin:", "version", "Pin-Priority:", "1001", "\n", "\n\n", "[main]", "exclude=", *'"{*/!', "[[packages]]"]
)


@given(st.text() | st.lists(WORDS | st.text(max_size=3)).map(" ".join))
def test_no_text_breaks_a_parser(text):
    for parse in PARSERS:
        for kind, name, value in parse(text):
            assert name
            for form in DEB:
                _packages.matches(name, form)
            _packages.pinned(DEB, [{"kind": kind, "name": name, "value": value}])


def toolkit(root, family="debian", held=(), names=_packages.TOOLKIT):
    packages = [package(name, "1.19.1-1", name)._replace(held=name in held) for name in names]
    return _packages.toolkit(packages, _packages.rules(str(root), family))


def test_the_four_packages_of_the_toolkit_are_pinned_by_holds_or_by_a_preference(tmp_path):
    assert (toolkit(tmp_path)["pinned"], toolkit(tmp_path)["pins"]) == (False, [])
    assert toolkit(tmp_path, held=_packages.TOOLKIT)["pinned"] is True
    assert toolkit(tmp_path, held=_packages.TOOLKIT[1:])["pinned"] is False
    path = "etc/apt/preferences.d/difyops-nvidia-container-toolkit.pref"
    write(tmp_path, path, f"Package: {' '.join(_packages.TOOLKIT)}\nPin: version 1.19.1-*\nPin-Priority: 1001\n")
    told = toolkit(tmp_path)
    assert told["pinned"] is True
    assert told["pins"][0] == {
        "kind": "preference",
        "name": "nvidia-container-toolkit",
        "value": "version 1.19.1-*, priority 1001",
        "path": f"/{path}",
    }
    assert toolkit(tmp_path, names=())["pinned"] is None


def test_locks_of_the_toolkit_are_not_those_of_the_driver(tmp_path):
    write(tmp_path, "etc/dnf/plugins/versionlock.list", "".join(f"{name}-0:1.19.1-1.*\n" for name in _packages.TOOLKIT))
    write(tmp_path, "etc/dnf/modules.d/nvidia-driver.module", "[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nstate=enabled\n")
    told = toolkit(tmp_path, "rhel")
    assert told["pinned"] is True
    assert {pin["kind"] for pin in told["pins"]} == {"versionlock"}
    assert {pin["kind"] for pin in rules(tmp_path, "rhel")} == {"module_stream"}


NAME = st.from_regex(r"[a-z][a-z0-9.+*-]{0,12}", fullmatch=True)


@given(st.lists(st.tuples(st.lists(NAME, min_size=1, max_size=3), st.integers(990, 32767) | st.integers(-32768, -1)), max_size=4))
def test_preferences_come_back_as_they_were_written(stanzas):
    text = "\n".join(f"Package: {' '.join(names)}\nPin: version 1.*\nPin-Priority: {number}\n" for names, number in stanzas)
    expected = [("preference", name, f"version 1.*, priority {number}") for names, number in stanzas for name in names if name != "*"]
    assert list(_packages.preferences(text)) == expected


NEVRA = st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,2}-[0-9]{1,2}\.el9", fullmatch=True)
PLAIN = st.from_regex(r"[a-z][a-z]{0,5}(-[a-z]{1,5}|-[0-9]{1,3}){0,3}", fullmatch=True)


@given(st.lists(st.tuples(PLAIN, st.integers(0, 9), NEVRA, st.booleans()), max_size=5))
def test_locks_come_back_as_they_were_written(locks):
    text = "".join(f"{'!' * avoid}{name}-{epoch}:{version}.*\n" for name, epoch, version, avoid in locks)
    expected = [("versionlock", name, f"{'!' * avoid}{epoch}:{version}.*") for name, epoch, version, avoid in locks]
    assert list(_packages.versionlock(text)) == expected
