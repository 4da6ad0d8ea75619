# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import struct
import tempfile

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _model_files
from hypothesis import given
from hypothesis import strategies as st


def weights(path, data=b"\0" * 16):
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights(tmp_path / "model.safetensors")
    return tmp_path


def reason(path):
    found = _model_files.look(str(path))
    assert found["exists"] and found["complete"] is (found["reason"] is None)
    return found["reason"]


def test_a_whole_model(model):
    weights(model / "2_Dense" / "model.safetensors")
    assert reason(model) is None


def test_nothing_there(tmp_path):
    expected = {"exists": False, "complete": False, "reason": "is not there"}
    assert _model_files.look(str(tmp_path / "x")) == expected
    (tmp_path / "file").write_text("")
    assert _model_files.look(str(tmp_path / "file" / "x")) == expected
    assert reason(tmp_path / "file") == "is not a directory"


def test_a_path_that_cannot_be_examined():
    assert _model_files.look("/a\0b")["exists"] is None
    found = _model_files.look("/" + "x" * 300)
    assert found["complete"] is None and found["reason"].startswith("cannot be examined: ")


def test_no_configuration(model):
    (model / "config.json").unlink()
    assert reason(model) == "has no config.json"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_broken_configuration(model, content):
    (model / "config.json").write_bytes(content)
    assert reason(model) == "has a config.json that is not a JSON object"


def test_pickled_weights_only(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert reason(model) == "has no safetensors weights"


@pytest.mark.parametrize("data", [b"", b"\0" * 15, b"\0" * 17])
def test_weights_of_another_length(model, data):
    weights(model / "model.safetensors", data)
    assert reason(model) == "has model.safetensors, which is not a whole safetensors file"


def test_a_model_in_parts(model):
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}}))
    assert reason(model) == "lacks model-2.safetensors"
    weights(model / "model-2.safetensors")
    assert reason(model) is None
    (model / "model-1.safetensors").unlink()
    (model / "model-2.safetensors").rename(model / "other.safetensors")
    assert reason(model) == "lacks model-1.safetensors and 1 more of 2 parts"
    index.write_text("{}")
    assert reason(model) == "has a model.safetensors.index.json that does not say which parts there are"


def test_a_file_that_cannot_be_read(model, monkeypatch):
    def refuse(_path, _mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_model_files, "open", refuse, raising=False)
    assert _model_files.look(str(model)) == {"exists": True, "complete": None, "reason": "cannot be examined: Permission denied"}


@given(configuration=st.binary(max_size=30), content=st.binary(max_size=60), index=st.binary(max_size=40), pack=st.booleans())
def test_no_content_raises(configuration, content, index, pack):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "config.json").write_bytes(configuration if not pack else b"{}")
        (path / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content if pack else content)
        (path / "model.safetensors.index.json").write_bytes(index)
        found = _model_files.look(os.fspath(path))
    assert set(found) == {"exists", "complete", "reason"} and found["complete"] is (found["reason"] is None)


@given(
    header=st.dictionaries(
        st.text(max_size=3),
        st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)),
        max_size=3,
    ),
    offsets=st.lists(st.none() | st.integers() | st.text(max_size=2), max_size=3),
)
def test_no_header_raises(header, offsets):
    document = json.dumps({**header, "w": {"data_offsets": offsets}}).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "config.json").write_text("{}")
        (path / "model.safetensors").write_bytes(struct.pack("<Q", len(document)) + document)
        assert _model_files.look(folder)["complete"] in (True, False)
