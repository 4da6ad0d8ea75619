# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import errno
import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _daemon_config
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.sampled_from(["features", "cdi", "runtimes", "nvidia"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3)
ABSENT = st.lists(st.lists(KEYS, min_size=1, max_size=3), max_size=3)
PROXY = "http://me:hunter2@proxy.example.org:3128"


def found(text, path="/etc/docker/daemon.json"):
    return _daemon_config.File(path, path, text.encode() if isinstance(text, str) else text)


def edited(text, settings=None, absent=(), replace=False):
    return _daemon_config.edit(found(text), *_daemon_config.wishes(settings or {}, absent), replace)


def merged(there, settings):
    result = copy.deepcopy(there)
    for key, wanted in settings.items():
        both = isinstance(wanted, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], wanted) if both else copy.deepcopy(wanted)
    return result


@given(OBJECTS | st.none(), OBJECTS, ABSENT)
def test_settings_are_merged_absent_goes_and_twice_is_once(there, settings, absent):
    text = None if there is None else json.dumps(there, indent=4)
    try:
        once = edited(text, settings, absent)
    except ValueError as error:
        assert "is in settings and in absent" in str(error)
        return
    content = json.loads(once.after or "{}")
    assert merged(content, settings) == content
    for path in absent:
        node = content
        for key in path[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        assert not isinstance(node, dict) or path[-1] not in node
    if not absent:
        assert content == merged(there or {}, settings)
    assert (once.before == once.after) == (not once.changes)
    again = edited(once.after, settings, absent)
    assert (again.before, again.changes) == (once.after, [])
    assert (_daemon_config.needs(once) == "none") == (not once.changes)


@pytest.mark.parametrize(
    ("settings", "absent", "words"),
    [
        ({"a": {"b": 1}}, [["a"]], "a is in settings and in absent"),
        ({"a": {"b": 1}}, [["a", "b"]], "a.b is in settings and in absent"),
        ({"a": {}}, [["a"]], "a is in settings and in absent"),
        ({}, [[]], "absent has an empty path"),
        ({"a": float("inf")}, [], "no infinite numbers"),
        (json.loads('{"a":' * 200 + "1" + "}" * 200), [], "at most 100 levels deep"),
        (json.loads('{"a":' + "[" * 200 + "]" * 200 + "}"), [], "at most 100 levels deep"),
    ],
)
def test_wishes_that_cannot_be(settings, absent, words):
    with pytest.raises(ValueError, match=r"\.\Z") as caught:
        _daemon_config.wishes(settings, absent)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "\n", "{}", "\ufeff{}"])
def test_nothing_wanted_is_nothing_done(text):
    done = edited(text, {}, [["runtimes", "nvidia"]])
    assert done.before == done.after
    assert done.changes == []


@pytest.mark.parametrize(("text", "after"), [(None, "{{{}}}\n"), ("", "{{{}}}\n"), ("\r\n", "{{{}}}\r\n"), ("\ufeff", "\ufeff{{{}}}\n")])
def test_an_empty_file_is_an_empty_object(text, after):
    newline = "\r\n" if "\r\n" in after else "\n"
    assert edited(text, {"debug": True}).after == after.format(f'{newline}  "debug": true{newline}')


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{\n  // on\n  "debug": true}', "line 2, column 3: there is a comment"),
        (b"[]", "line 1, column 1: it holds a value that is no JSON object"),
        (b'{"label": "\xe9"}', "byte 12 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "byte 1 is not UTF-8"),
        (b'{"a":' * 10_000, "nested deeper than 100 levels"),
    ],
)
def test_a_broken_file_is_refused_or_replaced_by_consent(raw, words):
    with pytest.raises(_daemon_config.Problem) as caught:
        edited(raw, {"debug": True})
    assert str(caught.value).startswith("DG807: /etc/docker/daemon.json cannot be read: ")
    assert words in str(caught.value)
    done = edited(raw, {"debug": True}, replace=True)
    assert (done.before, json.loads(done.after)) == (None, {"debug": True})
    assert _daemon_config.needs(done) == "restart"
    shown = _daemon_config.difference(found(raw), done)
    assert shown["before"] == f"(a file of {len(raw)} bytes that is not valid, not shown since it may hold secrets)\n"


def test_a_key_that_is_there_twice_is_refused_even_where_replacing_is_allowed():
    text = '{"features": {"cdi": true}, "features": {}}'
    with pytest.raises(_daemon_config.Problem, match=r"\ADG807: .*features is there more than once, at line 1, column 2 and line 1"):
        edited(text, {"features": {"cdi": True}}, replace=True)
    assert edited(text, {"debug": True}).after == text[:-1] + ', "debug": true}'


def test_secrets_are_shown_nowhere():
    options = {"splunk-token": "hunter2", "tag": "x"}
    text = json.dumps({"proxies": {"https-proxy": PROXY}, "log-opts": options, "labels": ["api_key=hunter2"]})
    done = edited(text, {"log-opts": {"splunk-token": "hunter3"}, "proxies": {"http-proxy": PROXY}}, [["labels"]])
    assert "hunter3" in done.after and done.after.count("hunter2") == 2
    shown = _daemon_config.difference(found(text), done)
    assert "hunter" not in json.dumps([done.changes, shown])
    assert '"tag": "x"' in shown["before"] and "proxy.example.org" in shown["after"]
    assert done.changes[0] == {"key": ["log-opts", "splunk-token"], "before": "********", "after": "********"}
    assert _daemon_config.secrets(done.after) == {"hunter3", PROXY}


@pytest.mark.parametrize(
    ("text", "settings", "absent", "restart"),
    [
        ("{}", {"features": {"cdi": True}}, [], "restart"),
        ("{}", {"features": {"buildkit": True}}, [], "reload"),
        ("{}", {"live-restore": True}, [], "reload"),
        ("{}", {"runtimes": {"nvidia": {"path": "x"}}}, [], "reload"),
        ("{}", {"runtimes": {"nvidia": {"path": "x"}}, "data-root": "/srv"}, [], "restart"),
        ('{"runtimes": {"nvidia": {"path": "x"}, "crun": {"path": "y"}}}', {}, [["runtimes", "nvidia"]], "reload"),
        # A reload keeps the runtimes that the engine knows where the file no longer names any.
        ('{"runtimes": {"nvidia": {"path": "x"}}}', {}, [["runtimes", "nvidia"]], "restart"),
        ('{"live-restore": true}', {}, [["live-restore"]], "restart"),
        ('{"max-concurrent-downloads": 5}', {}, [["max-concurrent-downloads"]], "reload"),
        ('{"debug": true}', {"debug": True}, [["labels"]], "none"),
    ],
)
def test_what_a_change_needs(text, settings, absent, restart):
    assert _daemon_config.needs(edited(text, settings, absent)) == restart


# --- asking the engine --------------------------------------------------------------------------------------------------

SERVICE = (
    "ExecStart={{ path={0} ; argv[]={0} -H fd:// $DOCKER_OPTS --tag=${{TAG}} $NEVER $$x ; ignore_errors=no ; start_time=[n/a] }}\n"
    'Environment=TAG=one "DOCKER_OPTS=--from=environment"\n'
    "EnvironmentFiles={1} (ignore_errors=yes)\nEnvironmentFiles=/never (ignore_errors=yes)\n"
)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A stand-in for dockerd and systemctl; dockerd writes down how it was called and which file it was shown."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def program(name, script):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
        return programs / name

    def made(says="exit 0", service=SERVICE):
        note = f'for a; do echo "$a" >> {tmp_path}/called; case "$a" in --config-file=*) c="${{a#*=}}";; esac; done'
        dockerd = program("dockerd", f"{note}\n{says}")
        (tmp_path / "defaults").write_text("# a comment\nDOCKER_OPTS=\"--label a=b --log-opt 'x y'\"\n")
        told = service.format(dockerd, tmp_path / "defaults")
        program("systemctl", f"cat <<'END'\n{told}END\n")
        return tmp_path

    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return made


def ask(folder, text="{}", path="/etc/docker/daemon.json"):
    return _daemon_config.validate(text, path, str(folder))


def test_the_engine_is_asked_with_the_options_of_its_service(engine):
    folder = engine('grep -q hello "$c" || exit 1')
    assert ask(folder, '{"labels": ["hello"]}') == (True, None)
    called = (folder / "called").read_text().splitlines()
    assert called[:-2] == ["-H", "fd://", "--label", "a=b", "--log-opt", "x y", "--tag=one", "$x"]
    assert called[-2].startswith("--config-file=") and called[-1] == "--validate"
    # What it was shown may hold secrets.
    assert not os.path.exists(called[-2].partition("=")[2])


def test_an_engine_that_refuses_is_quoted_without_secrets(engine):
    folder = engine(
        'echo "unable to configure the Docker daemon with file $c: the following: x: (from file: map[hunter2])" >&2; exit 1'
    )
    with pytest.raises(_daemon_config.Problem) as caught:
        ask(folder, '{"log-opts": {"splunk-token": "hunter2"}}')
    assert str(caught.value) == (
        "DG808: Docker refuses the new /etc/docker/daemon.json, which is not written: the following: x: (from file: map[********])."
    )


def test_secrets_among_the_options_are_not_quoted(engine):
    service = SERVICE.replace("$DOCKER_OPTS", "--log-opt splunk-token=hunter2")
    folder = engine('echo "conflict: (from flag: map[splunk-token:hunter2])" >&2; exit 1', service)
    with pytest.raises(_daemon_config.Problem, match="DG808") as caught:
        ask(folder)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ('echo "Status: unknown flag: --validate" >&2; exit 125', None),
        ("kill -SEGV $$", "Docker could not be asked whether it takes the new /etc/docker/daemon.json: "),
    ],
)
def test_an_engine_that_cannot_tell(engine, says, words):
    validated, warning = ask(engine(says))
    assert validated is False
    assert (warning or "").startswith(words or "") and (warning is None) == (words is None)


def test_without_an_engine_nobody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(_daemon_config._command, "find", lambda *_names: None)
    assert ask(tmp_path) == (False, None)


@pytest.mark.parametrize("service", ["", "ExecStart={{ path=/opt/wrapper ; argv[]=/opt/wrapper --x ; ignore_errors=no }}\n"])
def test_without_its_service_dockerd_is_asked_as_it_is(engine, service):
    folder = engine(service=service)
    assert ask(folder) == (True, None)
    assert len((folder / "called").read_text().splitlines()) == 2


@pytest.mark.parametrize("option", ["--config-file=/srv/docker.json", "--config-file /srv/docker.json"])
def test_a_service_that_reads_another_file_is_told(engine, option):
    folder = engine(service=SERVICE.replace("$DOCKER_OPTS", option))
    assert (ask(folder)[1] or "").startswith("docker.service reads /srv/docker.json, not /etc/docker/daemon.json: ")
    assert ask(folder, path="/srv/docker.json") == (True, None)


# --- writing -------------------------------------------------------------------------------------------------------------


NEW, NEWER = '{"new": 1}', '{"newer": 1}'


@pytest.fixture
def place(tmp_path):
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker" / "daemon.json"


def test_a_new_file_gets_its_folder_and_a_mode(tmp_path):
    path = tmp_path / "new" / "docker" / "daemon.json"
    assert _daemon_config.write(_daemon_config.read(str(path)), "{}\n", backup=True) is None
    assert path.read_text() == "{}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.unlink()
    _daemon_config.write(_daemon_config.read(str(path)), json.dumps({"proxies": {"http-proxy": PROXY}}), backup=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["daemon.json"]


def test_mode_and_attributes_stay_and_the_old_file_is_kept(place):
    place.write_text("old")
    place.chmod(0o640)
    try:
        os.setxattr(place, "user.label", b"it")
        attributes = True
    except OSError:
        attributes = False
    kept = _daemon_config.write(_daemon_config.read(str(place)), NEW, backup=False)
    assert kept is None
    kept = _daemon_config.write(_daemon_config.read(str(place)), NEWER, backup=True)
    assert (place.read_text(), Path(kept).read_text()) == (NEWER, NEW)
    for path in (place, kept):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
        assert not attributes or os.getxattr(path, "user.label") == b"it"
    assert set(os.listdir(place.parent)) == {"daemon.json", os.path.basename(kept)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(place):
    place.write_text("{}")
    os.chown(place, 12, 34)
    kept = _daemon_config.write(_daemon_config.read(str(place)), NEW, backup=True)
    for path in (place, kept):
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (12, 34)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(place, tmp_path, there):
    target = tmp_path / "site.json"
    if there:
        target.write_text("{}")
    place.symlink_to(target)
    kept = _daemon_config.write(_daemon_config.read(str(place)), NEW, backup=True)
    assert place.is_symlink() and target.read_text() == NEW
    assert os.listdir(place.parent) == ["daemon.json"]
    assert (kept or "").startswith(f"{target}." if there else "")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Path.mkdir, "a directory was found"),
        (lambda path: path.symlink_to(path.name), "a link that leads in a circle was found"),
        (lambda path: path.symlink_to("/dev/null"), "a device or pipe (/dev/null) was found"),
        (os.mkfifo, "a device or pipe"),
    ],
)
def test_what_is_no_file_is_refused(place, made, words):
    made(place)
    with pytest.raises(_daemon_config.Problem) as caught:
        _daemon_config.read(str(place))
    assert caught.value.code == "DG807" and words in str(caught.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "there is no space left on its file system; free some. It is as it was."),
        (errno.EDQUOT, "the quota on its file system is used up"),
        (errno.EROFS, "its file system is read-only"),
        (errno.EACCES, "permission is denied; become root"),
        (errno.EPERM, "lsattr"),
        (errno.EBUSY, "it is mounted by itself"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize(("call", "time"), [("fsync", 1), ("fsync", 2), ("rename", 1), ("rename", 2), ("chown", 1), ("makedirs", 1)])
def test_whatever_goes_wrong_in_writing_the_old_file_stays_alone(place, monkeypatch, number, words, call, time):
    place.write_text("old")
    file = _daemon_config.read(str(place))
    genuine, calls = getattr(os, call), []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == time:
            raise OSError(number, os.strerror(number))
        return genuine(*arguments, **options)

    monkeypatch.setattr(_daemon_config.os, call, failing)
    with pytest.raises(_daemon_config.Problem) as caught:
        _daemon_config.write(file, NEW, backup=True)
    assert str(caught.value).startswith(f"DG820: {place} cannot be written: ") and words in str(caught.value)
    assert len(calls) >= time
    assert (place.read_text(), os.listdir(place.parent)) == ("old", ["daemon.json"])


def test_what_somebody_else_changed_in_the_meantime_is_not_overwritten(place):
    place.write_text("old")
    file = _daemon_config.read(str(place))
    place.write_text("theirs")
    with pytest.raises(_daemon_config.Problem, match=r"\ADG820: .* somebody else changed it in the meantime"):
        _daemon_config.write(file, NEW, backup=True)
    assert (place.read_text(), os.listdir(place.parent)) == ("theirs", ["daemon.json"])
