# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saving the packages of a driver: where each is had from, what counts as saved, and what is said where one is missing."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command, _driver_backup
from ansible_collections.difyops.gpu.plugins.module_utils._driver_backup import Apt, Dnf, Problem, remove, save

LIBCUDA = {"name": "libcuda1", "version": "535.261.03-1"}
MODULE = {"name": "nvidia-kernel-dkms", "version": "1:535.261.03-1"}
# As apt-cache and dpkg-query of Debian 12 answer.
ARCHIVE = """\
Package: libcuda1
Source: nvidia-graphics-drivers
Version: 535.261.03-1
Architecture: amd64
Description: NVIDIA CUDA Driver Library
 More words.
Filename: pool/non-free/n/nvidia-graphics-drivers/libcuda1_535.261.03-1_amd64.deb
Size: 4096

Package: nvidia-kernel-dkms
Version: 1:550.163.01-1
Architecture: amd64
Filename: pool/non-free/n/nvidia-graphics-drivers/nvidia-kernel-dkms_550.163.01-1_amd64.deb
Size: 9000

Package: nvidia-kernel-dkms
Status: install ok installed
Version: 1:535.261.03-1
Architecture: amd64
"""


class Programs:
    """What stands for the programs of a Debian host: a package file is its name, version and architecture, in three lines."""

    def __init__(self, archive=ARCHIVE, repack=True):
        self.archive, self.repack, self.ran = archive, repack, []

    def __call__(self, argv, folder):
        self.ran.append(list(argv))
        out = getattr(self, argv[0].replace("-", "_"))(list(argv), folder)
        return _command.Result(0 if out is not None else 1, (out or "").encode(), b"" if out is not None else b"E: it went wrong\n")

    def dpkg_query(self, argv, folder):
        known = {"libcuda1": "535.261.03-1\tamd64\t12", "nvidia-kernel-dkms": "1:535.261.03-1\tamd64\t100"}
        return "".join(f"{name}\t{known[name]}\tinstalled\n" for name in argv[3:] if name in known)

    def apt_cache(self, argv, folder):
        if argv[-1] == "dpkg-repack":
            return "Package: dpkg-repack\nFilename: pool/d.deb\n" if self.repack else ""
        return self.archive

    def apt_get(self, argv, folder):
        for spec in argv[3:]:
            name, _colon, rest = spec.partition(":")
            architecture, _equals, version = rest.partition("=")
            self.write(folder, name, version, architecture)
        return ""

    def dpkg_repack(self, argv, folder):
        name, _colon, architecture = argv[1].partition(":")
        self.write(folder, name, "1:535.261.03-1", architecture)
        return ""

    @staticmethod
    def write(folder, name, version, architecture):
        with open(os.path.join(folder, f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"), "w") as file:
            file.write(f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n")

    @staticmethod
    def dpkg_deb(argv, folder):
        with open(argv[2]) as file:
            text = file.read()
        return text if text.startswith("Package: ") else None


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "upgrade" / "packages")


@pytest.fixture(autouse=True)
def no_dpkg_repack(monkeypatch):
    monkeypatch.setattr(_command, "find", lambda name, search=(): None)


def how(answer):
    return {one["name"]: one["how"] for one in answer["packages"]}


def test_each_is_had_from_where_it_is(place, tmp_path):
    programs = Programs()
    answer = save(Apt(programs, str(tmp_path)), [LIBCUDA, MODULE], place, True, True)
    assert how(answer) == {"libcuda1": "download", "nvidia-kernel-dkms": "repack"}
    assert answer["bring"] == ["dpkg-repack"] and answer["complete"] and answer["changed"]
    assert not os.path.exists(place), "check mode has written something"


def test_what_is_saved_stays_and_what_is_broken_is_had_again(place, tmp_path):
    first = save(Apt(Programs(), str(tmp_path)), [LIBCUDA, MODULE], place, True, False)
    assert first["complete"] and first["missing"] == [] and first["msg"] == ""
    assert {one["file"] for one in first["packages"]} <= set(os.listdir(place))
    programs = Programs()
    again = save(Apt(programs, str(tmp_path)), [LIBCUDA, MODULE], place, True, False)
    assert not again["changed"] and set(how(again).values()) == {"saved"}
    assert [argv[0] for argv in programs.ran] == ["dpkg-query", "apt-cache"] or [argv[0] for argv in programs.ran] == ["dpkg-query"]
    with open(os.path.join(place, "libcuda1_535.261.03-1_amd64.deb"), "w") as file:
        file.write("cut off")
    third = save(Apt(Programs(), str(tmp_path)), [LIBCUDA, MODULE], place, True, False)
    assert third["changed"] and how(third) == {"libcuda1": "download", "nvidia-kernel-dkms": "saved"} and third["complete"]


def test_the_cache_comes_first(place, tmp_path):
    cache = tmp_path / "var/cache/apt/archives"
    cache.mkdir(parents=True)
    Programs.write(str(cache), "nvidia-kernel-dkms", "1:535.261.03-1", "amd64")
    answer = save(Apt(Programs(), str(tmp_path)), [LIBCUDA, MODULE], place, True, False)
    assert how(answer) == {"libcuda1": "download", "nvidia-kernel-dkms": "cache"} and answer["complete"]


def test_a_file_of_another_version_does_not_count(place, tmp_path):
    class Older(Programs):
        def apt_get(self, argv, folder):
            self.write(folder, "libcuda1", "535.1.1-1", "amd64")
            return ""

    answer = save(Apt(Older(), str(tmp_path)), [LIBCUDA], place, True, False)
    assert not answer["complete"] and answer["missing"] == ["libcuda1"] and how(answer) == {"libcuda1": None}
    assert os.listdir(place) == ["index.json"]


def test_what_cannot_be_had_is_said(place, tmp_path):
    answer = save(Apt(Programs(archive="", repack=False), str(tmp_path)), [LIBCUDA, MODULE], place, True, True)
    assert not answer["complete"] and answer["missing"] == ["libcuda1", "nvidia-kernel-dkms"]
    assert "apt-get update" in answer["msg"] and answer["msg"].startswith("libcuda1, nvidia-kernel-dkms: ")
    answer = save(Apt(Programs(archive=""), str(tmp_path)), [LIBCUDA], place, False, True)
    assert "is not to make it anew" in answer["msg"]


def test_a_version_that_is_not_installed_is_missing(place, tmp_path):
    answer = save(Apt(Programs(), str(tmp_path)), [{"name": "libcuda1", "version": "470.1-1"}], place, True, True)
    assert answer["missing"] == ["libcuda1"] and not answer["changed"]


def test_a_full_disk_is_said_before_anything_is_written(place, tmp_path, monkeypatch):
    real = os.statvfs(str(tmp_path))
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((real.f_bsize, 4096, *real[2:4], 10, *real[5:10])))
    with pytest.raises(Problem, match="not enough room"):
        save(Apt(Programs(), str(tmp_path)), [LIBCUDA], place, True, False)
    assert not os.path.exists(place)


class RpmPrograms(Programs):
    def rpm(self, argv, folder):
        if "--package" in argv:
            with open(argv[-1]) as file:
                return file.read()
        return "nvidia-driver-cuda\t580.95.05-1.el9\tx86_64\t1000\npackage libother is not installed\n"

    def dnf(self, argv, folder):
        if "repoquery" in argv:
            return "nvidia-driver-cuda\t580.95.05-1.el9\tx86_64\t700\n"
        if "--help" in argv:
            return "usage"
        for spec in argv[6:]:
            with open(os.path.join(folder, f"{spec}.rpm"), "w") as file:
                file.write("nvidia-driver-cuda\t580.95.05-1.el9\tx86_64\t1000\n")
        return ""


def test_with_dnf(place, tmp_path):
    wanted = [{"name": "nvidia-driver-cuda", "version": "580.95.05-1.el9"}]
    answer = save(Dnf(RpmPrograms(), str(tmp_path)), wanted, place, True, False)
    assert how(answer) == {"nvidia-driver-cuda": "download"} and answer["complete"] and answer["bring"] == []
    with open(os.path.join(place, "index.json")) as file:
        assert [one["file"] for one in json.load(file)["packages"]] == ["nvidia-driver-cuda-580.95.05-1.el9.x86_64.rpm"]


def test_a_folder_of_somebody_else_is_not_taken_away(tmp_path):
    assert remove(str(tmp_path / "none"), False) is False
    (tmp_path / "index.json").write_text("{}")
    (tmp_path / "a.deb").write_text("")
    assert remove(str(tmp_path), True) is True and tmp_path.exists()
    (tmp_path / "letter.txt").write_text("")
    with pytest.raises(Problem, match=r"letter\.txt"):
        remove(str(tmp_path), False)
    (tmp_path / "letter.txt").unlink()
    assert remove(str(tmp_path), False) is True and not tmp_path.exists()


@pytest.mark.parametrize("content", ["", "[", "[]", '{"packages": 1}', '{"packages": [{"name": 1}]}', '{"packages": [{}]}', "\udcff"])
def test_an_index_that_cannot_be_read_counts_for_nothing(place, tmp_path, content):
    os.makedirs(place)
    with open(os.path.join(place, "index.json"), "w", errors="surrogateescape") as file:
        file.write(content)
    assert how(save(Apt(Programs(), str(tmp_path)), [LIBCUDA], place, True, True)) == {"libcuda1": "download"}


def test_other_package_managers_are_refused():
    with pytest.raises(Problem, match="neither apt nor dnf"):
        _driver_backup.manager_of(None, Programs())
