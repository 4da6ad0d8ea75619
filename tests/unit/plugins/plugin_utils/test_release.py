# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release is read from its archive, and what is none is told by a code and a sentence."""

from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _release
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.app_scenarios import archive_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COMPOSE = "services:\n  api:\n    image: langgenius/dify-api:9.9.9\n"
TOP = "dify-9.9.9"


@pytest.fixture
def packed(tmp_path):
    """Write an archive with these files, or entries of tar, and return its path."""

    def pack(files, entries=(), name="r.tar.gz"):
        path = tmp_path / name
        with tarfile.open(path, "w:gz") as archive:
            for member, text in files.items():
                info = tarfile.TarInfo(member)
                data = text if isinstance(text, bytes) else text.encode()
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            for info in entries:
                archive.addfile(info)
        return str(path)

    return pack


def whole(**changed):
    """Return the files of a small release."""
    files = {"docker-compose.yaml": COMPOSE, ".env.example": "COMPOSE_PROFILES=${STORE:-weaviate},x\nA=1\n", **changed}
    return {f"{TOP}/docker/{name}": text for name, text in files.items() if text is not None}


def refused(path, code, *words, version=""):
    with pytest.raises(_release.ReleaseError) as error:
        _release.read(path, version)
    told = str(error.value)
    assert error.value.code == code, told
    assert told.endswith(".") and "\n" not in told
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    ("version", "layout", "compose"),
    [("1.14.2", "env", "2.20.0"), ("1.16.1", "envs", "2.24.0"), ("1.17.1", "envs", "2.24.0"), ("1.18.0", "envs", "2.35.0")],
)
def test_a_release_in_upstreams_shape_is_read(version, layout, compose, tmp_path):
    path = archive_file(version, tmp_path)
    release = _release.read(path, version)
    assert (release.version, release.layout, release.compose_min) == (version, layout, compose)
    assert bool(release.envs) == (layout == "envs")
    assert release.profiles[:2] == ("weaviate", "postgresql")
    assert {"DB_PASSWORD", "EXPOSE_NGINX_PORT", "REDIS_PASSWORD", "VECTOR_STORE"} <= release.known
    assert list(release.env_example)[:2] == ["CONSOLE_API_URL", "CONSOLE_WEB_URL"]
    assert release.compose["services"]["api"]["image"] == f"langgenius/dify-api:{version}"
    assert release is _release.read(path)
    assert len(release.sha256) == len(release.compose_sha256) == 64


def test_another_version_than_expected_is_told(tmp_path):
    refused(archive_file("1.17.1", tmp_path), "DG902", "1.17.1", "1.18.0", version="1.18.0")


def test_a_changed_archive_is_read_again(packed):
    path = packed(whole())
    first = _release.read(path)
    packed(whole(**{".env.example": "A=2\nB=3\n"}))
    os.utime(path, ns=(1, 1))
    assert _release.read(path).env_example == {"A": "2", "B": "3"} != first.env_example


@pytest.mark.parametrize("name", ["9.0.0-no-compose", "9.0.1-cut", "9.0.2-leads-out"])
def test_broken_archives_are_told(name, tmp_path):
    refused(archive_file(name, tmp_path), "DG902", str(tmp_path))


def test_what_is_no_file_is_told(tmp_path):
    refused(str(tmp_path / "none.tar.gz"), "DG901", "none.tar.gz")
    refused(str(tmp_path), "DG902", "it is no file")


# The parameters have names: what gzip writes holds the hour, and each process of a parallel run has to collect the same tests.
NO_ARCHIVES = {
    "empty": b"",
    "page": b"<html>404</html>",
    "gzip-empty": gzip.compress(b""),
    "gzip-text": gzip.compress(b"no tar"),
    "gzip-zeros": gzip.compress(b"\0" * 2048),
}


@pytest.mark.parametrize("content", list(NO_ARCHIVES.values()), ids=list(NO_ARCHIVES))
def test_what_is_no_archive_is_told(content, tmp_path):
    path = tmp_path / "r.tar.gz"
    path.write_bytes(content)
    refused(str(path), "DG902")


@pytest.mark.parametrize(
    ("files", "word"),
    [
        (whole(**{"docker-compose.yaml": None}), "docker/docker-compose.yaml"),
        (whole(**{".env.example": None}), "docker/.env.example"),
        (whole(**{"docker-compose.yaml": "services: [\n"}), "no valid YAML in line"),
        (whole(**{"docker-compose.yaml": "- a\n"}), "no services"),
        (whole(**{"docker-compose.yaml": b"\xff\xfe"}), "UTF-8"),
        ({"main/docker/docker-compose.yaml": COMPOSE}, "its folder is main"),
        ({"dify-main/docker/docker-compose.yaml": COMPOSE}, "its folder is dify-main"),
        ({**whole(), "other/x": ""}, "more than one folder"),
        ({**whole(), f"{TOP}/../x": ""}, "leads out"),
        ({**whole(), "/etc/cron.d/x": ""}, "leads out"),
    ],
)
def test_what_is_no_release_is_told(files, word, packed):
    refused(packed(files), "DG902", word)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"include: [a.yaml]\n{COMPOSE}", "includes"),
        (f"{COMPOSE}    extends: {{service: x}}\n", "extends"),
        ("services:\n  api: text\n", "api is no mapping"),
        (f"{COMPOSE}    command: echo ${{A/x/y}}\n", "${A"),
    ],
)
def test_what_nobody_can_handle_is_told(text, word, packed):
    refused(packed(whole(**{"docker-compose.yaml": text})), "DG904", word)
    refused(packed(whole(**{".env.example": "A='open\n"})), "DG904", ".env.example", "ine 1")


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "entry",
    [
        link("docker/x", "/etc/passwd"),
        link("docker/x", "../../x"),
        link("docker/x", "../api"),
        link("docker/x", "../etc/passwd", tarfile.LNKTYPE),
        link("docker/x", "", tarfile.CHRTYPE),
        link("docker/x", "", tarfile.FIFOTYPE),
    ],
)
def test_links_that_lead_out_and_devices_are_refused(entry, packed):
    refused(packed(whole(), [entry]), "DG902", "docker/x")


def test_links_within_the_folder_and_those_that_are_not_unpacked_are_none_of_our_business(packed):
    hard = link("docker/h", f"{TOP}/docker/.env.example", tarfile.LNKTYPE)
    kept = [link("docker/x", "nginx/y"), hard, link("api/CLAUDE.md", "../../../x")]
    assert _release.read(packed(whole(), kept)).version == "9.9.9"


def test_a_file_that_is_too_large_is_refused(packed, monkeypatch):
    monkeypatch.setattr(_release, "_FILE_MAX", 10)
    refused(packed(whole()), "DG902", "MiB")


def test_an_archive_that_unpacks_to_too_much_is_refused(packed, monkeypatch):
    monkeypatch.setattr(_release, "_UNPACKED_MAX", 1000)
    refused(packed({**whole(), f"{TOP}/zeros": b"\0" * 5000}), "DG902", "more than")
    monkeypatch.setattr(_release, "_ARCHIVE_MAX", 10)
    refused(packed(whole(), name="other.tar.gz"), "DG902", "MiB")


def test_composes_own_tags_and_literal_dollars_are_read(packed):
    text = f"{COMPOSE}    ports: !reset []\n    command: !override [a$$b]\n    x-day: 2026-01-01\n"
    release = _release.read(packed(whole(**{"docker-compose.yaml": text, ".env.example": "A='$X'\nB=${A}\n"})))
    assert release.compose["services"]["api"]["x-day"] == "2026-01-01"
    assert release.defaults == {"A": "$X", "B": "$X"}
    assert release.profiles == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(noise=st.binary(max_size=200), at=st.integers(0, 400))
def test_a_damaged_archive_never_raises_anything_else(noise, at, packed):
    path = packed(whole(), name="noise.tar.gz")
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(noise)
    os.utime(path, ns=(hash((noise, at)) % 10**15,) * 2)
    try:
        assert _release.read(path).version
    except _release.ReleaseError as error:
        assert error.code in ("DG902", "DG904")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(text=st.text(max_size=80))
def test_any_compose_text_is_read_or_refused(text, packed):
    path = packed(whole(**{"docker-compose.yaml": f"{COMPOSE}x-more: {text}\n".encode("utf-8", "replace")}))
    os.utime(path, ns=(hash(text) % 10**15,) * 2)
    try:
        _release.read(path)
    except _release.ReleaseError as error:
        assert error.code in ("DG902", "DG904")
