# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

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


# In the form that a person may write, and an engine reads.
FLOW = """\
kind: nvidia.com/gpu
devices:
  - {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}
"""


@pytest.mark.parametrize(
    ("text", "devices"),
    [(GENERATED, ["0", "GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002", "all"]), (BY_HAND, ["0", "all"])],
)
def test_yaml(text, devices):
    assert _cdi.parse(text) == ("nvidia.com/gpu", devices)


@pytest.mark.parametrize(
    "text", [FLOW, "kind: a/b\ndevices: [{name: x}]\n", "kind: a/b\ndevices: *others\n", "kind: a/b\ndevices:\n- *x\n"]
)
def test_yaml_that_is_not_read_is_said_to_be(text):
    with pytest.raises(_cdi.SpecError, match="not in block style"):
        _cdi.parse(text)


def test_flow_style_below_a_device_does_not_matter():
    edits = "  containerEdits:\n    deviceNodes:\n    - {path: /dev/x}\n    mounts:\n    - options: [ro, bind]\n"
    text = f"kind: a/b\ndevices:\n- name: x\n{edits}"
    assert _cdi.parse(text) == ("a/b", ["x"])


def test_json():
    text = json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0", "containerEdits": {}}]}, indent=2)
    assert _cdi.parse(text) == ("nvidia.com/gpu", ["0"])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "devices: []\n",
            "- a\n- b\n",
            "just words",
            "{",
            '{"kind": 1}',
            '{"kind": "a/b", "devices": {"x": 1}}',
            "kind: [",
            "{" * 100_000,
        ),
        *(
            '{"kind": "a/b", "devices": 7}',
            '{"kind": "a/b", "devices": [7]}',
            "kind: a/b\ndevices: 3\n",
            "a: &a [*a]",
            "\tkind: x",
            "[]",
            "{}",
        ),
    ],
)
def test_what_is_no_specification(text):
    with pytest.raises(_cdi.SpecError, match=r"\.$"):
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


UUID = "GPU-0bc41c22-8a4f-11ef-9cd2-0242ac120002"
GPU = {
    "class": "0x030200",
    "bound_driver": "nvidia",
    "index": 0,
    "uuid": UUID,
    "mig": {"current": False, "pending": False, "devices": []},
}
OTHER = {**GPU, "index": 1, "uuid": "GPU-other"}
NOW = _cdi.Now("535.247.01", [GPU])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A host that has what GENERATED names, seen by root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for path in (
        "/dev/nvidia0",
        "/dev/nvidia-uvm",
        "/dev/dri/card1",
        "/usr/bin/nvidia-cdi-hook",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01",
    ):
        write(tmp_path, path, "")
    return tmp_path


def reasons(root, now=NOW, text=GENERATED):
    write(root, "/etc/cdi/nvidia.yaml", text)
    [spec] = _cdi.specs(str(root), _cdi.DIRECTORIES, now)
    assert spec["stale"] is bool(spec["reasons"])
    return spec["reasons"]


def test_specifications_of_a_host(root):
    write(root, "/var/run/cdi/nvidia.yaml", GENERATED)
    write(root, "/etc/cdi/ours.yaml", BY_HAND)
    write(root, "/etc/cdi/broken.json", "{")
    write(root, "/etc/cdi/bytes.yaml", b"\xff\xfe\xff")
    write(root, "/etc/cdi/README", "not a specification")
    specs = {spec["path"]: spec for spec in _cdi.specs(str(root), _cdi.DIRECTORIES, NOW)}
    assert list(specs) == ["/etc/cdi/broken.json", "/etc/cdi/bytes.yaml", "/etc/cdi/ours.yaml", "/var/run/cdi/nvidia.yaml"]
    assert specs["/var/run/cdi/nvidia.yaml"] == {
        "path": "/var/run/cdi/nvidia.yaml",
        "kind": "nvidia.com/gpu",
        "devices": ["0", UUID, "all"],
        "driver_version": "535.247.01",
        "stale": False,
        "reasons": [],
        "shadowed": [],
        "error": None,
    }
    assert (specs["/etc/cdi/ours.yaml"]["driver_version"], specs["/etc/cdi/ours.yaml"]["stale"]) == (None, None)
    assert specs["/etc/cdi/broken.json"]["error"].startswith("/etc/cdi/broken.json is not a CDI specification: broken JSON")
    assert specs["/etc/cdi/bytes.yaml"]["kind"] is None
    assert "is not a CDI specification" in specs["/etc/cdi/bytes.yaml"]["error"]


def test_another_driver_is_loaded(root):
    assert reasons(root, NOW._replace(driver="550.163.01")) == ["made for driver 535.247.01, loaded is 550.163.01"]


def test_nobody_knows_whether_it_is_stale_without_a_driver(root):
    write(root, "/etc/cdi/nvidia.yaml", GENERATED)
    [spec] = _cdi.specs(str(root), _cdi.DIRECTORIES, _cdi.Now(None, []))
    assert (spec["stale"], spec["reasons"]) == (None, [])


def test_the_driver_was_removed(root):
    (root / "usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01").unlink()
    assert reasons(root, _cdi.Now(None, [])) == ["names /usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01, which is not there"]


def test_a_gpu_was_added(root):
    write(root, "/dev/nvidia1", "")
    write(root, "/dev/nvidia-modeset", "")
    assert reasons(root, NOW._replace(gpus=[GPU, OTHER])) == ["lacks /dev/nvidia1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"bound_driver": "vfio-pci", "uuid": None, "mig": None, "index": None},
        {"bound_driver": None, "uuid": None, "mig": None, "index": None},
        # nvidia-ctk leaves out a GPU in MIG mode that has no parts.
        {"mig": {"current": True, "pending": True, "devices": []}},
    ],
)
def test_the_device_file_of_a_gpu_that_no_specification_has(root, changes):
    write(root, "/dev/nvidia1", "")
    assert reasons(root, NOW._replace(gpus=[GPU, {**OTHER, **changes}])) == []


def test_a_lost_gpu_has_no_name_to_be_missed_by(root):
    text = GENERATED.replace('name: "0"', "name: GPU-other")
    lost = {**OTHER, "uuid": None, "index": None, "mig": None}
    assert reasons(root, NOW._replace(gpus=[GPU, lost]), text) == []
    assert reasons(root, NOW._replace(gpus=[GPU, OTHER]), text) == []
    assert reasons(root, NOW._replace(gpus=[GPU, {**OTHER, "uuid": "GPU-third"}]), text) == [
        "names the device GPU-other, which is not there"
    ]


def test_mig_devices_that_an_ordinary_user_may_not_see(root, monkeypatch):
    by_number = GENERATED.replace('name: "0"', 'name: "0:0"')
    assert reasons(root, with_mig(), by_number) == ["names the device 0:0, which is not there"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert reasons(root, with_mig(), by_number) == []
    by_both = by_number.replace(f"name: {UUID}", 'name: "0:1"')
    assert reasons(root, with_mig("MIG-a"), by_both) == []
    assert reasons(root, with_mig(), by_number.replace(UUID, "GPU-gone")) == ["names the device GPU-gone, which is not there"]


@pytest.mark.parametrize("mig", [None, {"current": True, "pending": True, "devices": None}])
def test_mig_devices_that_nobody_could_list(root, mig):
    by_number = GENERATED.replace('name: "0"', 'name: "0:0"')
    assert reasons(root, NOW._replace(gpus=[{**GPU, "mig": mig}]), by_number) == []


def test_names_by_type_and_number(root):
    by_type = GENERATED.replace('name: "0"', 'name: "mig0:0"')
    assert reasons(root, with_mig("MIG-a"), by_type) == []
    assert reasons(root, with_mig("MIG-a", "MIG-b"), by_type) == ["lacks the MIG device 0:1"]
    assert reasons(root, text=by_type) == ["names the device mig0:0, which is not there"]
    assert reasons(root, text=GENERATED.replace('name: "0"', "name: gpu0")) == []


def test_a_specification_of_chosen_devices_need_not_be_complete(root):
    write(root, "/dev/nvidia1", "")
    assert reasons(root, text=GENERATED.replace("name: all", "name: mine")) == []


def test_a_gpu_was_removed(root):
    (root / "dev/nvidia0").unlink()
    assert reasons(root, NOW._replace(gpus=[])) == ["names /dev/nvidia0, which is not there"]


def test_another_gpu_is_in_its_place(root):
    assert reasons(root, NOW._replace(gpus=[{**GPU, "uuid": "GPU-other"}])) == [f"names the device {UUID}, which is not there"]


def with_mig(*uuids):
    devices = [{"index": index, "uuid": uuid} for index, uuid in enumerate(uuids)]
    return NOW._replace(gpus=[{**GPU, "mig": {"current": True, "pending": True, "devices": devices}}])


def test_mig_devices_were_made_or_removed_since(root):
    assert reasons(root, with_mig("MIG-a", "MIG-b")) == ["lacks the MIG device 0:0", "lacks the MIG device 0:1"]
    by_number = GENERATED.replace('name: "0"', 'name: "0:0"')
    assert reasons(root, with_mig("MIG-a"), by_number) == []
    assert reasons(root, with_mig("MIG-a", "MIG-b"), by_number) == ["lacks the MIG device 0:1"]
    assert reasons(root, text=by_number) == ["names the device 0:0, which is not there"]
    by_uuid = GENERATED.replace('name: "0"', "name: MIG-a")
    assert reasons(root, with_mig("MIG-a"), by_uuid) == []
    assert reasons(root, with_mig("MIG-b"), by_uuid) == ["names the device MIG-a, which is not there", "lacks the MIG device 0:0"]


def test_specifications_of_others_are_not_judged(root):
    write(
        root,
        "/etc/cdi/other.yaml",
        "kind: example.com/net\ndevices:\n- name: GPU-none\n  containerEdits:\n    deviceNodes:\n    - path: /dev/none\n",
    )
    [spec] = _cdi.specs(str(root), _cdi.DIRECTORIES, NOW)
    assert (spec["stale"], spec["reasons"]) == (None, [])


def shadows(root, directories=_cdi.DIRECTORIES):
    return {spec["path"]: spec["shadowed"] for spec in _cdi.specs(str(root), directories, NOW)}


def test_the_last_directory_has_priority(root):
    write(root, "/etc/cdi/nvidia.yaml", GENERATED)
    write(root, "/var/run/cdi/nvidia.yaml", BY_HAND)
    write(root, "/var/run/cdi/other.yaml", "kind: example.com/gpu\ndevices:\n- name: 0\n")
    assert shadows(root) == {"/etc/cdi/nvidia.yaml": ["0", "all"], "/var/run/cdi/nvidia.yaml": [], "/var/run/cdi/other.yaml": []}


def test_two_files_of_one_directory_are_in_conflict(root):
    write(root, "/etc/cdi/a.yaml", GENERATED)
    write(root, "/etc/cdi/b.yaml", BY_HAND)
    assert shadows(root) == {"/etc/cdi/a.yaml": ["0", "all"], "/etc/cdi/b.yaml": ["0", "all"]}


def test_two_names_of_one_directory_are_one(root):
    write(root, "/run/cdi/nvidia.yaml", GENERATED)
    (root / "var").mkdir()
    (root / "var/run").symlink_to("../run")
    assert shadows(root, ["/run/cdi", "/var/run/cdi"]) == {"/run/cdi/nvidia.yaml": []}


texts = st.text() | st.sampled_from([GENERATED, BY_HAND, FLOW, "{}"])
gpus = st.fixed_dictionaries(
    {
        "class": st.sampled_from(["0x030200", None]),
        "bound_driver": st.sampled_from(["nvidia", "vfio-pci", None]),
        "index": st.none() | st.integers(0, 9),
        "uuid": st.none() | st.sampled_from(["GPU-1", UUID]),
        "mig": st.none()
        | st.fixed_dictionaries(
            {
                "current": st.sampled_from([True, False, None]),
                "devices": st.none()
                | st.lists(st.fixed_dictionaries({"index": st.integers(0, 6), "uuid": st.sampled_from(["MIG-a", "MIG-b", None])})),
            }
        ),
    }
)


@given(text=texts, driver=st.none() | st.just("535.247.01"), gpus=st.lists(gpus, max_size=3))
def test_no_specification_breaks_the_comparison(tmp_path_factory, text, driver, gpus):
    root = tmp_path_factory.getbasetemp() / "any"
    write(root, "/etc/cdi/any.yaml", text.encode("utf-8", "surrogatepass"))
    [spec] = _cdi.specs(str(root), _cdi.DIRECTORIES, _cdi.Now(driver, gpus))
    assert spec["stale"] in (None, True, False)
    assert (spec["stale"] is True) is bool(spec["reasons"])


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ('[nvidia-container-runtime]\nlog-level = "info"\nmode = "auto"\n', "auto"),
        ("[nvidia-container-runtime]\n  mode = 'cdi' # now\n", "cdi"),
        ('[nvidia-container-runtime]\n#mode = "auto"\n', None),
        ('[nvidia-container-runtime]\nruntimes = ["docker-runc", "runc"]\nmode = "auto"\n', "auto"),
        ('[nvidia-container-runtime]\nruntimes = [\n  "runc",\n]\nmode = "cdi"\n\n[nvidia-container-cli]\nmode = "x"\n', "cdi"),
        ('[nvidia-container-runtime]\n[nvidia-ctk]\nmode = "x"\n', None),
        ('[nvidia-container-runtime.modes.legacy]\nmode = "x"\n', None),
        ('mode = "x"\n', None),
        ("", None),
    ],
)
def test_mode_of_the_runtime(text, mode):
    assert _cdi.runtime_mode(text) == mode
