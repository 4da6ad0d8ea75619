# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of variables of a release and its secrets: what is made, what is kept, what is refused."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _dify_env, _dotenv
from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PUBLIC = "difyai123456"
TEMPLATE = f"""\
# Title
SECRET_KEY=
DB_PASSWORD={PUBLIC}
REDIS_HOST=redis
REDIS_PORT=6379
REDIS_USERNAME=
REDIS_PASSWORD={PUBLIC}
CELERY_BROKER_URL=redis://:{PUBLIC}@redis:6379/1
SANDBOX_API_KEY=dify-sandbox
CODE_EXECUTION_API_KEY=dify-sandbox
AGENT_KEY=MDEy
LOG_LEVEL=INFO # kept
"""
SPECS = [
    {"name": "SECRET_KEY", "length": 64},
    {"name": "DB_PASSWORD"},
    {"name": "REDIS_PASSWORD"},
    {"name": "SANDBOX_API_KEY", "also": ["CODE_EXECUTION_API_KEY"]},
    {"name": "AGENT_KEY", "kind": "base64url32"},
    {"name": "ADMIN_PASSWORD", "length": 24, "in_env": False},
]
MADE = sorted(spec["name"] for spec in SPECS)
DERIVED = {"CELERY_BROKER_URL": "redis://{REDIS_USERNAME}:{REDIS_PASSWORD}@{REDIS_HOST}:{REDIS_PORT}/1"}


def digest(value):
    return hashlib.sha256(value.encode()).hexdigest()


FORBIDDEN = {"DB_PASSWORD": [digest(PUBLIC)], "SANDBOX_API_KEY": [digest("dify-sandbox")]}


class Host:
    """A folder with a release, and dify_env on it."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "release/.env"
        self.path.parent.mkdir()
        self.template = folder / "release/.env.example"
        self.template.write_text(TEMPLATE)
        self.secrets = folder / "home/secrets/dify.env"

    def options(self, **more):
        return {
            "path": str(self.path),
            "template": str(self.template),
            "secrets_file": str(self.secrets),
            "secrets": SPECS,
            "derived": DERIVED,
            "forbidden": FORBIDDEN,
            "settings": {},
            "given": {},
            **more,
        }

    def plan(self, **more):
        wanted = _dify_env.wish(self.options(**more))
        return wanted, _dify_env.plan(wanted)

    def apply(self, **more):
        wanted, outcome = self.plan(**more)
        _dify_env.write(wanted, outcome, True)
        return outcome

    def env(self):
        return {key: _compose_text.interpolate(text, {}) for key, text in _dotenv.values(self.path.read_text()).items()}

    def kept(self):
        return dict(line.split("=", 1) for line in self.secrets.read_text().splitlines() if "=" in line)

    def preview(self, **more):
        return _dify_env.preview(self.options(**more))


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def refused(host, code, *words, **more):
    before = host.path.read_text() if host.path.exists() else None
    with pytest.raises(_dify_env.Problem) as error:
        host.apply(**more)
    told = str(error.value)
    assert error.value.code == code and told.startswith(f"{code}: ")
    assert told.endswith(".") and "\n" not in told
    for word in words:
        assert word in told
    for value in (more.get("given") or {}).values():
        assert not value or str(value) not in told
    assert (host.path.read_text() if host.path.exists() else None) == before
    assert host.preview(**more)["error"] == told


def test_a_first_run_makes_every_secret_and_keeps_it(host):
    outcome = host.apply(settings={"LOG_LEVEL": "DEBUG", "NEW": "it's $5"})
    assert list(outcome.secrets.generated) == MADE
    env, kept = host.env(), host.kept()
    assert PUBLIC not in host.path.read_text() and "dify-sandbox" not in host.path.read_text()
    assert env["LOG_LEVEL"] == "DEBUG" and env["NEW"] == "it's $5"
    assert env["CELERY_BROKER_URL"] == f"redis://:{env['REDIS_PASSWORD']}@redis:6379/1"
    assert env["SANDBOX_API_KEY"] == env["CODE_EXECUTION_API_KEY"] == kept["SANDBOX_API_KEY"]
    assert len({kept[name] for name in MADE}) == len(MADE)
    assert re.fullmatch(r"[A-Za-z0-9]{64}", env["SECRET_KEY"]) and re.fullmatch(r"[A-Za-z0-9]{40}", env["DB_PASSWORD"])
    assert len(base64.urlsafe_b64decode(env["AGENT_KEY"] + "=")) == 32 and len(env["AGENT_KEY"]) == 43
    assert "ADMIN_PASSWORD" in kept and "ADMIN_PASSWORD" not in env
    assert "LOG_LEVEL=DEBUG # kept\n" in host.path.read_text()
    assert [oct(path.stat().st_mode & 0o777) for path in (host.path, host.secrets, host.secrets.parent)] == ["0o600", "0o600", "0o700"]


def test_a_second_run_changes_nothing(host):
    host.apply(settings={"A": "1"})
    files = host.path.read_bytes(), host.secrets.read_bytes()
    wanted, outcome = host.plan(settings={"A": "1"})
    assert (outcome.added, outcome.changed, outcome.removed, outcome.secrets.generated) == ([], [], [], [])
    assert _dify_env.write(wanted, outcome, True) is None
    assert (host.path.read_bytes(), host.secrets.read_bytes()) == files
    assert sorted(os.listdir(host.path.parent)) == [".env", ".env.example"]


def test_another_release_gets_the_same_secrets(host):
    host.apply()
    before = host.env()
    host.path.unlink()
    host.template.write_text(TEMPLATE + "ADDED=1\n")
    host.apply()
    assert host.env() == {**before, "ADDED": "1"}


def test_an_interrupted_run_loses_no_secret(host, monkeypatch):
    real = _dify_env._replace

    def fails(path, text, mode):
        if path == str(host.path):
            raise KeyboardInterrupt
        real(path, text, mode)

    monkeypatch.setattr(_dify_env, "_replace", fails)
    with pytest.raises(KeyboardInterrupt):
        host.apply()
    monkeypatch.undo()
    kept = host.kept()
    assert not host.apply().secrets.generated
    assert host.kept() == kept and host.env()["DB_PASSWORD"] == kept["DB_PASSWORD"]


def test_a_given_secret_replaces_the_one_that_is_there(host):
    host.apply()
    chosen = {"REDIS_PASSWORD": "given-1", "CODE_EXECUTION_API_KEY": "both", "S3_SECRET_KEY": "a b'c"}
    outcome = host.apply(given={**chosen, "ADMIN_PASSWORD": " x# "})
    env = host.env()
    assert chosen.items() <= env.items() and {"ADMIN_PASSWORD": " x# "}.items() <= host.kept().items()
    assert env["CELERY_BROKER_URL"] == "redis://:given-1@redis:6379/1"
    assert env["SANDBOX_API_KEY"] == env["CODE_EXECUTION_API_KEY"]
    assert "CELERY_BROKER_URL" in outcome.changed and "S3_SECRET_KEY" in outcome.added
    assert not host.apply().secrets.generated
    assert host.env()["REDIS_PASSWORD"] == env["REDIS_PASSWORD"] and "S3_SECRET_KEY" not in host.env()


def test_what_is_given_with_another_value_is_told_beforehand(host):
    host.apply(given={"DB_PASSWORD": "given-1"})
    assert host.preview(given={"DB_PASSWORD": "given-1"})["replaces"] == []
    others = {"DB_PASSWORD": "given-2", "REDIS_PASSWORD": "given-3", "S3_SECRET_KEY": "new"}
    assert host.preview(given=others)["replaces"] == ["DB_PASSWORD", "REDIS_PASSWORD"]
    assert host.preview()["replaces"] == []


def test_an_empty_given_secret_counts_as_not_given(host):
    host.apply(given={"DB_PASSWORD": "", "ADMIN_PASSWORD": ""})
    kept = host.kept()
    assert len(kept["DB_PASSWORD"]) == 40 and len(kept["ADMIN_PASSWORD"]) == 24


def test_an_address_follows_its_parts_and_gives_way_to_one_that_is_given(host):
    place = {"REDIS_HOST": "cache.example.org", "REDIS_PORT": "6380", "REDIS_USERNAME": "me@x"}
    host.apply(settings=place, given={"REDIS_PASSWORD": "p~1"})
    assert host.env()["CELERY_BROKER_URL"] == "redis://me%40x:p~1@cache.example.org:6380/1"
    own = "sentinel://:p@a:1/1;sentinel://:p@b:1/1"
    host.apply(given={"CELERY_BROKER_URL": own})
    assert host.env()["CELERY_BROKER_URL"] == own


def test_public_defaults_are_replaced_where_they_are_found(host):
    host.path.write_text(f"DB_PASSWORD={PUBLIC}\nREDIS_PASSWORD='my-own'\nSANDBOX_API_KEY=dify-sandbox\nCODE_EXECUTION_API_KEY=dify-sandbox\nOLD=1\n")
    found = host.preview()
    assert found["defaults"] == ["CODE_EXECUTION_API_KEY", "DB_PASSWORD", "SANDBOX_API_KEY"]
    assert found["changes"]["removed"] == ["OLD"] and "DB_PASSWORD" in found["generates"] and "REDIS_PASSWORD" not in found["generates"]
    outcome = host.apply()
    assert {"REDIS_PASSWORD": "my-own"}.items() <= host.env().items(), "what the databases were made with is kept"
    assert host.env()["DB_PASSWORD"] not in (PUBLIC, "") and "DB_PASSWORD" in outcome.secrets.defaults
    nothing = {"added": [], "changed": [], "removed": []}
    assert host.preview() == {"changes": nothing, "generates": [], "replaces": [], "defaults": [], "error": None}


def test_a_key_that_dify_made_itself_is_left_to_it(host):
    host.path.write_text("SECRET_KEY=\n")
    assert "SECRET_KEY" not in host.apply().secrets.generated
    assert host.env()["SECRET_KEY"] == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"DB_PASSWORD": PUBLIC}, ["DB_PASSWORD", "public"]),
        ({"REDIS_PASSWORD": PUBLIC}, ["REDIS_PASSWORD", "public"]),
        ({"CODE_EXECUTION_API_KEY": "dify-sandbox"}, ["CODE_EXECUTION_API_KEY", "public"]),
        ({"MORE_KEY": PUBLIC}, ["MORE_KEY", "public"]),
        ({"DB_PASSWORD": "p@ss/word"}, ["DB_PASSWORD", "URLs"]),
        ({"REDIS_PASSWORD": "a b"}, ["REDIS_PASSWORD"]),
        ({"REDIS_PASSWORD": "grün"}, ["REDIS_PASSWORD"]),
        ({"SECRET_KEY": "a'b;c"}, ["SECRET_KEY", "commands"]),
        ({"SECRET_KEY": "two\nlines"}, ["SECRET_KEY", "line break"]),
        ({"ADMIN_PASSWORD": "two\nlines"}, ["ADMIN_PASSWORD", "line break"]),
        ({"AGENT_KEY": "tooshort"}, ["AGENT_KEY", "43"]),
        ({"SANDBOX_API_KEY": "abcd", "CODE_EXECUTION_API_KEY": "efgh"}, ["SANDBOX_API_KEY", "different"]),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_and_not_shown(host, given, words):
    refused(host, "DG913", *words, given=given)
    host.apply()
    refused(host, "DG913", *words, given=given)


def test_the_password_of_the_first_page_is_no_longer_than_dify_takes(host):
    specs = [{"name": "INIT_PASSWORD", "length": 24}]
    refused(host, "DG913", "30", secrets=specs, given={"INIT_PASSWORD": "x" * 31})
    host.apply(secrets=specs, given={"INIT_PASSWORD": "x" * 30})


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"settings": {"A": "two\nlines"}}, "DG922", ["A in settings", "line break"]),
        ({"settings": {"A": {"b": 1}}}, "DG922", ["A in settings", "text"]),
        ({"settings": {"no name": "1"}}, "DG922", ["no name"]),
        ({"settings": {"REDIS_PASSWORD": "x"}}, "DG913", ["REDIS_PASSWORD", "dify_secrets"]),
        ({"settings": {"CODE_EXECUTION_API_KEY": "x"}}, "DG913", ["CODE_EXECUTION_API_KEY"]),
        ({"settings": {"CELERY_BROKER_URL": "x"}}, "DG913", ["CELERY_BROKER_URL"]),
        ({"secrets": [{"kind": "odd", "name": "A"}]}, "DG922", ["no secret"]),
        ({"secrets": [{"name": "A", "length": 3}]}, "DG922", ["length"]),
        ({"forbidden": []}, None, []),
        ({"forbidden": ["x"]}, "DG922", ["forbidden"]),
    ],
)
def test_options_that_cannot_be_used_are_refused(host, options, code, words):
    if code is None:
        host.apply(**options)
    else:
        refused(host, code, *words, **options)


def test_a_missing_template_is_told_and_the_plan_is_there_all_the_same(host):
    host.template.unlink()
    found = host.preview()
    assert found["error"] is None and found["generates"] == MADE and found["changes"]["added"] == []
    with pytest.raises(_dify_env.Problem, match=r"DG902: .*unpacked first"):
        host.apply()
    assert not host.secrets.exists()


def test_a_broken_template_is_told(host):
    host.template.write_text("A='open\n")
    refused(host, "DG902", "ine 1")


def test_secrets_that_cannot_be_read_are_never_made_anew(host):
    host.apply()
    host.secrets.write_text("DB_PASSWORD=x\nthis is no line of it\n")
    refused(host, "DG913", "line 2")
    host.secrets.unlink()
    host.secrets.mkdir()
    refused(host, "DG913", str(host.secrets))


def test_own_lines_in_the_file_of_secrets_stay(host):
    host.apply()
    host.secrets.write_text("# mine\n\nOWN=left=alone\n" + host.secrets.read_text())
    host.apply(given={"DB_PASSWORD": "new-one"})
    assert host.secrets.read_text().startswith("# mine\n\nOWN=left=alone\n")
    assert {"DB_PASSWORD": "new-one", "OWN": "left=alone"}.items() <= host.kept().items()
    assert "OWN" not in host.env()


def test_files_that_others_can_read_are_closed(host):
    host.apply()
    for path in (host.path, host.secrets):
        path.chmod(0o644)
        assert _dify_env.open_to_others(str(path)) == 0o644
    host.apply()
    assert _dify_env.open_to_others(str(host.path)) is None is _dify_env.open_to_others(str(host.secrets))


@pytest.mark.parametrize(("number", "code", "word"), [(errno.ENOSPC, "DG906", "the disk is full"), (errno.EROFS, "DG922", "read-only")])
def test_a_file_that_cannot_be_written_is_as_it_was(host, monkeypatch, number, code, word):
    host.apply()
    env = host.path.read_text()

    def full(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_dify_env.os, "fsync", full)
    with pytest.raises(_dify_env.Problem, match=f"{code}: .*{word}"):
        host.apply(settings={"A": "1"})
    assert host.path.read_text() == env and sorted(os.listdir(host.path.parent)) == [".env", ".env.example"]


def test_a_broken_file_that_is_there_is_replaced_with_a_warning_and_a_backup(host):
    host.path.write_text("A='open\n")
    wanted, outcome = host.plan()
    assert len(outcome.warnings) == 1
    kept = _dify_env.write(wanted, outcome, True)
    with open(kept) as file:
        assert file.read() == "A='open\n"
    assert os.stat(kept).st_mode & 0o777 == 0o600


def test_the_difference_shows_settings_and_no_secret(host):
    host.apply(settings={"LOG_LEVEL": "DEBUG"})
    wanted, outcome = host.plan(settings={"LOG_LEVEL": "INFO"}, given={"DB_PASSWORD": "canary-secret", "MORE_KEY": "canary-more"})
    shown = _dify_env.difference(wanted, outcome)
    assert "LOG_LEVEL=DEBUG\n" in shown["before"] and "LOG_LEVEL=INFO\n" in shown["after"]
    assert "DB_PASSWORD=(not shown)\n" in shown["before"] and "DB_PASSWORD=(not shown), new\n" in shown["after"]
    assert "canary" not in str(shown) and not any(value in str(shown) for value in host.kept().values())


NAMES = st.sampled_from([spec["name"] for spec in SPECS] + ["CODE_EXECUTION_API_KEY", "CELERY_BROKER_URL", "MORE", "LOG_LEVEL", "é", ""])
FIXED = st.sampled_from([PUBLIC, "dify-sandbox", "fine-1"])
VALUES = st.one_of(st.text(max_size=12), FIXED, st.none(), st.booleans(), st.integers(), st.lists(st.text()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(chosen=st.dictionaries(NAMES, VALUES, max_size=3), kept=st.dictionaries(NAMES, VALUES, max_size=3))
def test_whatever_is_given_the_secrets_hold_or_it_is_refused(tmp_path_factory, chosen, kept):
    host = Host(tmp_path_factory.mktemp("host"))
    host.apply()
    before = host.kept()
    try:
        host.apply(settings=chosen, given=kept)
    except _dify_env.Problem as problem:
        assert problem.code in ("DG913", "DG922")
        assert host.kept() == before
        return
    env, after = host.env(), host.kept()
    assert env["SANDBOX_API_KEY"] == env["CODE_EXECUTION_API_KEY"]
    for spec in SPECS:
        names = [spec["name"], *spec.get("also", [])]
        assert after[spec["name"]] != PUBLIC
        if all(kept.get(name) in (None, "") for name in names):
            assert after[spec["name"]] == before[spec["name"]]
    assert host.preview(settings=chosen, given=kept)["changes"] == {"added": [], "changed": [], "removed": []}


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6))
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=2), max_leaves=4)
OPTIONS = st.sampled_from(["settings", "secrets", "derived", "given", "forbidden"])


@settings(deadline=None)
@given(options=st.dictionaries(OPTIONS, st.one_of(ANY, st.dictionaries(NAMES, ANY))))
def test_a_preview_never_raises(options):
    found = _dify_env.preview(options)
    assert set(found) == {"changes", "generates", "replaces", "defaults", "error"}
