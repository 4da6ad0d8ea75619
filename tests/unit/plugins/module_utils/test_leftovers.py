# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _command
from ansible_collections.difyops.gpu.plugins.module_utils._observer import Leftovers


@pytest.fixture
def root(tmp_path):
    (tmp_path / "run" / "user" / str(os.geteuid())).mkdir(parents=True)
    return tmp_path


def note(root):
    [path] = root.glob("run/**/nvml")
    return path


def myself():
    return _command.Process(os.getpid(), _command.start_time(os.getpid()))


def test_nothing_is_left_at_first(root):
    assert Leftovers(str(root)).living("nvml") is None


def test_a_living_process_is_remembered_across_runs(root):
    assert Leftovers(str(root)).remember("nvml", myself())
    assert Leftovers(str(root)).living("nvml") == myself()
    assert Leftovers(str(root)).living("nvidia-smi") is None


def test_the_directory_belongs_to_one_user_only(root):
    Leftovers(str(root)).remember("nvml", myself())
    assert note(root).parent.stat().st_mode & 0o777 == 0o700


def test_a_process_that_has_ended_is_forgotten(root):
    Leftovers(str(root)).remember("nvml", _command.Process(2**22 + 1, 1))
    path = note(root)
    assert Leftovers(str(root)).living("nvml") is None
    assert not path.exists()


def test_another_process_with_the_same_number_does_not_count(root):
    Leftovers(str(root)).remember("nvml", _command.Process(os.getpid(), 1))
    assert Leftovers(str(root)).living("nvml") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", '["x", 1]', "[null, 1]", "[[], {}]", "7", "[4194305, null]"])
def test_a_broken_note_is_no_note(root, text):
    Leftovers(str(root)).remember("nvml", myself())
    note(root).write_text(text)
    assert Leftovers(str(root)).living("nvml") is None


def test_a_directory_that_others_may_write_is_not_trusted(root):
    Leftovers(str(root)).remember("nvml", myself())
    note(root).parent.chmod(0o777)
    assert Leftovers(str(root)).living("nvml") is None
    assert not Leftovers(str(root)).remember("nvml", myself())


def test_a_link_in_place_of_the_directory_is_not_followed(root, tmp_path):
    Leftovers(str(root)).remember("nvml", myself())
    directory = note(root).parent
    elsewhere = tmp_path / "elsewhere"
    directory.rename(elsewhere)
    directory.symlink_to(elsewhere)
    assert Leftovers(str(root)).living("nvml") is None


def test_no_place_for_a_note(tmp_path):
    assert not Leftovers(str(tmp_path / "absent")).remember("nvml", myself())


def test_a_note_is_plain_data(root):
    Leftovers(str(root)).remember("nvml", myself())
    assert json.loads(note(root).read_text()) == [myself().pid, myself().start_time]
