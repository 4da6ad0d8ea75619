# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import sys

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _cdi
from hypothesis import given
from hypothesis import strategies as st

# In the form that nvidia-ctk cdi generate writes.
GENERATED = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-uvm
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - name: not a device name
      path: /dev/dri/card1
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""
BY_HAND = """\
# ours
cdiVersion: "0.6.0"
kind: 'nvidia.com/gpu'   # the usual one

devices:
  - name: 0
    containerEdits:
      deviceNodes:
        - path: /dev/nvidia0
  -   name: "all"  # every one
      containerEdits: {}
containerEdits:
  env:
    - name: x
"""


@pytest.fixture(params=["with yaml", "without yaml"])
def _yaml(request, monkeypatch):
    if request.param == "without yaml":
        monkeypatch.setitem(sys.modules, "yaml", None)
    else:
        pytest.importorskip("yaml")


@pytest.mark.usefixtures("_yaml")
@pytest.mark.parametrize(
    ("text", "devices"),
    [(GENERATED, ["0", "GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002", "all"]), (BY_HAND, ["0", "all"])],
)
def test_yaml(text, devices):
    assert _cdi.parse(text) == ("nvidia.com/gpu", devices)


def test_json():
    text = json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0", "containerEdits": {}}]}, indent=2)
    assert _cdi.parse(text) == ("nvidia.com/gpu", ["0"])


@pytest.mark.usefixtures("_yaml")
@pytest.mark.parametrize("text", ["", "devices: []\n", "- a\n- b\n", "just words", "{", '{"kind": 1}', '{"kind": "a/b", "devices": {}}'])
def test_what_is_no_specification(text):
    with pytest.raises(_cdi.SpecError, match=r"\.$"):
        _cdi.parse(text)


@pytest.mark.parametrize("text", ["kind: [", "kind: a/b\ndevices: 3\n", "a: &a [*a]", "\tkind: x", "{" * 100_000])
def test_what_is_no_yaml_either(text):
    pytest.importorskip("yaml")
    with pytest.raises(_cdi.SpecError):
        _cdi.parse(text)


@given(st.text())
def test_no_text_breaks_the_readers(text):
    for reader in (_cdi.parse, _cdi.scan):
        try:
            kind, names = reader(text)
        except _cdi.SpecError:
            continue
        assert isinstance(kind, str)
        assert all(isinstance(name, str) for name in names)
    _cdi.runtime_mode(text)


@given(st.lists(st.sampled_from(["kind:", " a/b", "devices:", "- ", "  ", "name: ", '"', "'", "#", "\n", "x", "{", "["])).map("".join))
def test_no_mixture_breaks_the_readers(text):
    test_no_text_breaks_the_readers.hypothesis.inner_test(text)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,20}", fullmatch=True).filter(lambda name: not name.endswith(":"))


@given(st.lists(names, max_size=5), st.integers(0, 4), st.sampled_from(["", '"', "'"]), st.booleans())
def test_names_come_back_as_they_were_written(devices, indent, quote, name_first):
    lines = ["kind: nvidia.com/gpu", "devices:" if devices else "devices: []"]
    for device in devices:
        name = f"name: {quote}{device}{quote}"
        edits = "containerEdits:"
        first, second = (name, edits) if name_first else (edits, name)
        inner = "    deviceNodes:\n" + " " * indent + "    - path: /dev/nvidia0"
        lines += [" " * indent + "- " + first]
        if not name_first:
            lines += [" " * indent + inner]
        lines += [" " * indent + "  " + second]
        if name_first:
            lines += [" " * indent + inner]
    assert _cdi.scan("\n".join(lines) + "\n") == ("nvidia.com/gpu", devices)


def write(root, path, content):
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_specifications_of_a_host(tmp_path):
    write(tmp_path, "/var/run/cdi/nvidia.yaml", GENERATED)
    write(tmp_path, "/etc/cdi/ours.yaml", BY_HAND)
    write(tmp_path, "/etc/cdi/broken.json", "{")
    write(tmp_path, "/etc/cdi/bytes.yaml", b"\xff\xfe\xff")
    write(tmp_path, "/etc/cdi/README", "not a specification")
    specs = {spec["path"]: spec for spec in _cdi.specs(str(tmp_path), _cdi.DIRECTORIES, "535.247.01")}
    assert list(specs) == ["/etc/cdi/broken.json", "/etc/cdi/bytes.yaml", "/etc/cdi/ours.yaml", "/var/run/cdi/nvidia.yaml"]
    assert specs["/var/run/cdi/nvidia.yaml"] == {
        "path": "/var/run/cdi/nvidia.yaml",
        "kind": "nvidia.com/gpu",
        "devices": ["0", "GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002", "all"],
        "driver_version": "535.247.01",
        "stale": False,
        "reasons": [],
        "error": None,
    }
    assert (specs["/etc/cdi/ours.yaml"]["driver_version"], specs["/etc/cdi/ours.yaml"]["stale"]) == (None, None)
    assert specs["/etc/cdi/broken.json"]["error"].startswith("/etc/cdi/broken.json is not a CDI specification: broken JSON")
    assert specs["/etc/cdi/bytes.yaml"]["kind"] is None
    assert "is not a CDI specification" in specs["/etc/cdi/bytes.yaml"]["error"]


@pytest.mark.parametrize(("loaded", "stale"), [("550.163.01", True), ("535.247.01", False), (None, None)])
def test_a_specification_for_another_driver(tmp_path, loaded, stale):
    write(tmp_path, "/etc/cdi/nvidia.yaml", GENERATED)
    [spec] = _cdi.specs(str(tmp_path), _cdi.DIRECTORIES, loaded)
    assert spec["stale"] is stale
    assert bool(spec["reasons"]) is bool(stale)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ('[nvidia-container-runtime]\nlog-level = "info"\nmode = "auto"\n', "auto"),
        ("[nvidia-container-runtime]\n  mode = 'cdi' # now\n", "cdi"),
        ('[nvidia-container-runtime]\n#mode = "auto"\n', None),
        ('[nvidia-container-runtime.modes.legacy]\nmode = "x"\n', None),
        ('mode = "x"\n', None),
        ("", None),
    ],
)
def test_mode_of_the_runtime(text, mode):
    assert _cdi.runtime_mode(text) == mode
