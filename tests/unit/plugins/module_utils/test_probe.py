# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe as it is sent: the very program text in a Python of its own; and the reading of what it says."""

from __future__ import annotations

import ast
import ctypes
import errno
import hashlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _extras, _probe, _probe_extras, _probe_program
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Case, Evidence, Expected
from ansible_collections.difyops.gpu.plugins.module_utils._docker import DockerTimeout
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "probe"
MARKER = _probe_program.MARKER
# A short alphabet: what splits lines, what JSON is made of, and letters; all of Unicode takes seconds to set up.
TEXT = "ab0 @{}[]\":,\\\n\r\x0b\x1c\x85\u2028é"


def run_probe(
    gpu: bool = True,
    timeout_s: float = 20,
    require_torch: bool = False,
    fake_torch: dict[str, Any] | None = None,
    fake_extra: dict[str, Any] | None = None,
) -> _probe.ProbeReport:
    """Feed the probe to this machine's Python, with no writable place and no torch but the fake one."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    if fake_torch is not None:
        environment.update(PYTHONPATH=str(FIXTURES / "site"), FAKE_TORCH=json.dumps(fake_torch))
    if fake_extra is not None:
        paths = [*filter(None, [environment.get("PYTHONPATH")]), str(FIXTURES / "extras")]
        environment.update(PYTHONPATH=os.pathsep.join(paths), FAKE_EXTRA=json.dumps(fake_extra))
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-"],
        input=_probe.program(gpu, timeout_s, require_torch),
        env=environment,
        capture_output=True,
        cwd="/",
        check=False,
        timeout=60,
    )
    report = _probe.parse(done.stdout)
    report.rc, report.last_words = done.returncode, _probe.last_words(done.stderr)
    return report


# -- the program ---------------------------------------------------------------------------------------------------


def test_the_program_is_one_file_of_the_standard_library_for_python_3_8() -> None:
    source = _probe.program(True, 5, False).decode() + inspect.getsource(_probe_extras)
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert imported <= set(sys.stdlib_module_names)


def test_what_is_sent_stays_small() -> None:
    """It travels to every container that is verified; engines take it on standard input."""
    assert len(_probe.program(True, 5, False)) < 48_000
    assert b"onnx_model" not in _probe.program(False, 5, False)


def test_without_torch_and_gpu_every_stage_still_reports() -> None:
    report = run_probe()
    assert (report.rc, report.done, report.running) == (0, True, None)
    assert list(report.stages) == ["python", "nodes", "libcuda", "torch", "processes"]
    assert report.stages["python"]["torch_found"] is False
    paths = [node["path"] for node in report.stages["nodes"]["nodes"]]
    assert paths[:2] == ["/dev/nvidiactl", "/dev/nvidia-uvm"]
    assert "torch" in report.stages["torch"]["error"]


def test_without_torch_the_search_for_it_ends_at_once() -> None:
    report = run_probe(require_torch=True)
    assert report.rc == _probe_program.RC_NO_TORCH
    assert list(report.stages) == ["python"]


def test_a_good_gpu_computes_the_right_product() -> None:
    report = run_probe(fake_torch={"count": 2})
    assert report.done
    assert report.stages["torch"]["version"] == "2.14.1+cu126"
    assert report.stages["torch_cuda"]["archs"] == ["sm_80", "sm_86"]
    assert report.stages["torch_cuda"]["devices"][1] == {
        "index": 1,
        "name": "Fake GPU 1",
        "compute_capability": "8.6",
    }
    kernels = report.kernels()
    assert [kernel["index"] for kernel in kernels] == [0, 1]
    for kernel in kernels:
        assert kernel["right"] is True
        assert kernel["relative_error"] == 0
        assert kernel["memory_free_mib"] == 20480
        assert kernel["gpu_ms"] >= 0 and kernel["cpu_ms"] > 0
        assert kernel["device"] == f"cuda:{kernel['index']}"
    assert list(report.stages)[-2:] == ["libraries", "processes"]


def test_the_rate_is_that_of_the_largest_product_that_is_quick_enough() -> None:
    rate = run_probe(fake_torch={"event_ms": 4.0}).kernels()[0]["rate"]
    assert rate == {"size": 4096, "ms": 4.0, "gflops": 34359.7}


def test_a_rate_that_cannot_be_measured_does_not_hurt_the_proof() -> None:
    report = run_probe(fake_torch={"raise": {"rate": "CUDA out of memory"}})
    kernel = report.kernels()[0]
    assert (kernel["right"], kernel["rate"]) == (True, {"error": "RuntimeError: CUDA out of memory"})
    assert "error" not in kernel
    assert report.done


def test_a_product_that_was_computed_elsewhere_says_where() -> None:
    assert run_probe(fake_torch={"computes_on": "cpu"}).kernels()[0]["device"] == "cpu"


@pytest.mark.parametrize("wrong", [True, "nan"])
def test_a_wrong_product_is_seen(wrong: object) -> None:
    kernel = run_probe(fake_torch={"wrong": wrong}).kernels()[0]
    assert kernel["right"] is False
    assert kernel["relative_error"] == "nan" or kernel["relative_error"] > _probe_program.TOLERANCE


@pytest.mark.parametrize(
    ("place", "message", "kind"),
    [
        ("to", "CUDA out of memory. Tried to allocate 4.00 MiB", "memory"),
        ("context", "CUDA error: out of memory", "memory"),
        ("kernel", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", "memory"),
        ("context", "CUDA error: all CUDA-capable devices are busy or unavailable", "busy"),
        ("kernel", "CUDA error: no kernel image is available for execution on the device", "no_code"),
        ("kernel", "CUDA error: the provided PTX was compiled with an unsupported toolchain.", "ptx"),
        ("kernel", "CUDA error: an illegal memory access was encountered", "error"),
    ],
)
def test_errors_of_the_computation_are_told_apart(place: str, message: str, kind: str) -> None:
    report = run_probe(fake_torch={"raise": {place: message}})
    kernel = report.kernels()[0]
    assert kernel["kind"] == kind
    assert message in kernel["error"]
    assert report.done, "an error of one stage does not end the probe"


def test_cuda_that_is_not_available_is_reported_with_what_pytorch_says() -> None:
    too_old = "The NVIDIA driver on your system is too old (found version 11040)."
    report = run_probe(fake_torch={"available": False, "warning": too_old, "raise": {"init": too_old}})
    state = report.stages["torch_cuda"]
    assert state["available"] is False
    assert state["warnings"] == [too_old]
    assert state["reason"] == f"RuntimeError: {too_old}"
    assert report.kernels() == []


def test_an_import_that_fails_is_told_apart_from_no_torch() -> None:
    report = run_probe(fake_torch={"import_error": "libcudart.so.12: cannot open shared object file"})
    assert report.torch_found
    assert report.stages["torch"]["error"].startswith("ImportError: libcudart.so.12")


@pytest.mark.parametrize(("place", "stage"), [("import", "torch"), ("is_available", "torch_cuda"), ("kernel", "kernel 0")])
def test_a_hang_ends_in_time_and_says_where(place: str, stage: str) -> None:
    report = run_probe(timeout_s=4, fake_torch={"hang": place})
    assert (report.rc, report.timed_out, report.running) == (_probe_program.RC_TIMEOUT, True, stage)
    assert stage not in report.stages
    assert "nodes" in report.stages


def test_a_crash_says_where() -> None:
    report = run_probe(fake_torch={"die": "kernel"})
    assert (report.done, report.timed_out, report.running) == (False, False, "kernel 0")
    assert report.rc is not None and report.rc < 0


def test_cpu_mode_touches_no_cuda() -> None:
    report = run_probe(gpu=False, fake_torch={"cuda": None, "available": False, "version": "2.14.1+cpu"})
    assert list(report.stages) == ["python", "nodes", "torch", "torch_cuda", "cpu"]
    product = report.stages["cpu"]
    assert product["right"] is True
    assert product["relative_error"] < 1e-6
    assert product["device"] == "cpu"


# -- the driver API, with a library made of Python ---------------------------------------------------------------------


class FakeLibrary:
    """libcuda as far as ctypes can tell; a missing function raises AttributeError like a missing symbol."""

    def __init__(self, **functions: Any) -> None:
        for name, function in functions.items():

            def stub(*arguments: Any, function: Any = function) -> int:
                return int(function(*arguments))

            setattr(self, name, stub)


def give(**values: Any) -> Any:
    """A function that writes a value through its first argument and returns 0."""

    def function(pointer: Any, *_rest: Any) -> int:
        pointer._obj.value = values["value"]
        return int(values.get("code", 0))

    return function


def fake_driver(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> _probe_program.Driver:
    monkeypatch.setattr(_probe_program.ctypes, "CDLL", lambda name: FakeLibrary(**functions))
    return _probe_program.Driver()


def test_devices_are_listed_with_what_the_driver_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = {13: 1695000, 16: 72, 20: 3, 75: 8, 76: 6}

    def attribute(pointer: Any, number: Any, _device: Any) -> int:
        pointer._obj.value = attributes[number.value]
        return 0

    def name(buffer: Any, _length: Any, _device: Any) -> int:
        buffer.value = b"NVIDIA A10"
        return 0

    def uuid(pointer: Any, _device: Any) -> int:
        for n in range(16):
            pointer._obj[n] = n
        return 0

    driver = fake_driver(
        monkeypatch,
        cuDriverGetVersion=give(value=12020),
        cuDeviceGetCount=give(value=1),
        cuDeviceGet=give(value=0),
        cuDeviceGetAttribute=attribute,
        cuDeviceGetName=name,
        cuDeviceGetUuid=uuid,
    )
    assert _probe_program.list_devices(driver) == {
        "version_code": 0,
        "cuda_version": "12.2",
        "count_code": 0,
        "count": 1,
        "devices": [
            {
                "index": 0,
                "name": "NVIDIA A10",
                "uuid": "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f",
                "compute_capability": "8.6",
                "compute_mode": "exclusive_process",
                "multiprocessors": 72,
                "clock_khz": 1695000,
            }
        ],
    }


def test_an_old_library_without_the_newer_functions_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = fake_driver(
        monkeypatch,
        cuInit=lambda flags: 100,
        cuDriverGetVersion=give(value=0),
        cuDeviceGetCount=give(value=0),
    )
    assert _probe_program.init_driver(driver) == {"code": 100, "name": None}
    assert _probe_program.list_devices(driver)["cuda_version"] is None


def test_error_names_come_from_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def error_name(code: Any, pointer: Any) -> int:
        assert code.value == 803
        pointer._obj.value = b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        return 0

    driver = fake_driver(monkeypatch, cuInit=lambda flags: 803, cuGetErrorName=error_name)
    assert _probe_program.init_driver(driver) == {"code": 803, "name": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ("libcuda.so.1: cannot open shared object file: No such file or directory", True),
        ("/usr/lib/libcuda.so.1: file too short", False),
    ],
)
def test_a_missing_library_is_told_apart_from_a_broken_one(
    monkeypatch: pytest.MonkeyPatch, message: str, missing: bool
) -> None:
    def refuse(name: str) -> None:
        raise OSError(message)

    monkeypatch.setattr(_probe_program.ctypes, "CDLL", refuse)
    holder: list[_probe_program.Driver] = []
    assert _probe_program.load_driver(holder) == {"error": message, "missing": missing}
    assert holder == []


def test_device_files_that_are_missing_closed_and_open(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidiactl", "nvidia0", "nvidia10", "nvidia2", "nvidia-modeset"):
        (tmp_path / name).touch()
    really_open = os.open

    def open_some(path: str, *rest: Any) -> int:
        if path.endswith("nvidia2"):
            raise OSError(errno.EPERM, "Operation not permitted")
        return really_open(path, *rest)

    monkeypatch.setattr(_probe_program.os, "open", open_some)
    nodes = _probe_program.look_at_nodes(str(tmp_path))["nodes"]
    seen = {os.path.basename(node["path"]): (node["present"], node["errno"]) for node in nodes}
    assert list(seen) == ["nvidiactl", "nvidia-uvm", "nvidia0", "nvidia2", "nvidia10"]
    assert seen["nvidia-uvm"] == (False, None)
    assert seen["nvidia2"] == (True, "EPERM")
    assert seen["nvidiactl"] == seen["nvidia10"] == (True, None)


def test_the_path_of_a_loaded_library_is_found() -> None:
    ctypes.CDLL(None)
    path = _probe_program.loaded_path("libc")
    assert path is not None and os.path.exists(path)
    assert _probe_program.loaded_path("libnosuchlibrary") is None


def test_cuda_libraries_are_found_among_all_that_is_mapped(tmp_path: pathlib.Path) -> None:
    site = "/opt/venv/lib/python3.12/site-packages"
    mapped = [
        f"{site}/nvidia/cublas/lib/libcublas.so.12",
        f"{site}/nvidia/cublas/lib/libcublasLt.so.12",
        f"{site}/torch/lib/libcudart-d0da41ae.so.11.0",
        "/usr/local/cuda-11.8/lib64/libnvrtc.so.11.2",
        f"{site}/nvidia/cusparse/lib/libcusparse.so.12",  # counts by itself
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/tmp/a b/libcudart.so.13 (deleted)",
    ]
    lines = [f"7f00-7f01 r-xp 00000000 08:01 42    {path}\n" for path in mapped for _part in range(2)]
    (tmp_path / "maps").write_text("".join([*lines, "7fff-8000 rw-p 00000000 00:00 0   [stack]\n", "7fff-8000 rw-p 00000000 00:00 0\n"]))
    found = [(library["name"], library["major"]) for library in _probe_program.cuda_libraries(str(tmp_path / "maps"))]
    assert sorted(found) == [("cublas", 12), ("cublasLt", 12), ("cudart", 11), ("cudart", 13), ("nvrtc", 11)]
    assert _probe_program.cuda_libraries(str(tmp_path / "none")) == []


def process(root: pathlib.Path, pid: int, *files: str, maps: str = "") -> None:
    (root / str(pid) / "fd").mkdir(parents=True)
    for number, path in enumerate(files):
        (root / str(pid) / "fd" / str(number)).symlink_to(path)
    (root / str(pid) / "maps").write_text(maps)


def test_processes_that_use_the_gpu_are_counted(tmp_path: pathlib.Path) -> None:
    process(tmp_path, 1, "/dev/null", "/dev/nvidia-modeset", "/dev/nvidiactl")
    process(tmp_path, 7, "/dev/null", "/dev/nvidia0")
    process(tmp_path, 8, "/dev/nvidia-uvm")
    process(tmp_path, 9, maps="7f00-7f01 r-xp 0 08:01 42 /usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01\n")
    process(tmp_path, os.getpid(), "/dev/nvidia0")  # the probe itself
    (tmp_path / "11").mkdir()  # ended just now
    (tmp_path / "self").mkdir()
    assert _probe_program.look_at_processes(str(tmp_path)) == {"seen": 4, "hidden": 0, "using": 3}


def test_processes_of_others_are_hidden(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(tmp_path, 1)

    def refuse(path: str) -> bool:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(_probe_program, "uses_gpu", refuse)
    assert _probe_program.look_at_processes(str(tmp_path), 0.0) == {"seen": 0, "hidden": 1, "using": 0}


@pytest.mark.parametrize("later", [FileNotFoundError, ProcessLookupError, None])
def test_a_process_that_could_not_be_looked_at_for_a_moment_is_not_hidden(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, later: type[OSError] | None
) -> None:
    """The command of a health check is nobody's while the engine begins it, and gone soon after."""
    process(tmp_path, 1)
    process(tmp_path, 7)
    looks: list[str] = []

    def look(path: str) -> bool:
        looks.append(path)
        if path.endswith("/1"):
            return True
        if looks.count(path) == 1:
            raise PermissionError(13, "Permission denied", path)
        if later is not None:
            raise later(2, "gone", path)
        return False

    monkeypatch.setattr(_probe_program, "uses_gpu", look)
    assert _probe_program.look_at_processes(str(tmp_path), 0.0) == {"seen": 1 if later else 2, "hidden": 0, "using": 1}
    assert len(looks) == 3


def test_pytorch_that_refuses_its_cudnn_is_told() -> None:
    def version() -> int:
        raise RuntimeError("cuDNN version incompatibility")

    torch = types.SimpleNamespace(backends=types.SimpleNamespace(cudnn=types.SimpleNamespace(version=version)))
    assert _probe_program.look_at_libraries(torch)["cudnn_error"] == "RuntimeError: cuDNN version incompatibility"
    for other in (types.SimpleNamespace(), types.SimpleNamespace(backends=types.SimpleNamespace(cudnn=types.SimpleNamespace()))):
        assert _probe_program.look_at_libraries(other)["cudnn_error"] is None


# -- other runtimes of the image -----------------------------------------------------------------------------------------

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
GOOD_ONNX = {"providers": PROVIDERS, "used": PROVIDERS, "right": True}


def extras(**fake: Any) -> dict[str, dict[str, Any]]:
    report = run_probe(fake_torch={}, fake_extra=fake)
    assert report.done and report.rc == 0
    return report.extras()


def test_other_runtimes_are_checked_after_the_proof() -> None:
    report = run_probe(fake_torch={}, fake_extra={})
    assert list(report.stages)[-2:] == ["extra onnxruntime", "extra tensorrt"]
    onnx, tensorrt = report.extras()["onnxruntime"], report.extras()["tensorrt"]
    assert {key: onnx[key] for key in GOOD_ONNX} == GOOD_ONNX
    assert onnx["version"] == "1.99.0" and "with_torch" not in onnx
    assert (tensorrt["version"], tensorrt["runtime"], tensorrt["builder"]) == ("10.99.0", True, True)
    assert report.kernels()[0]["right"] is True


def test_without_a_gpu_no_other_runtime_is_checked() -> None:
    assert run_probe(gpu=False, fake_torch={"cuda": None, "available": False}, fake_extra={}).extras() == {}


def test_a_build_without_the_provider() -> None:
    onnx = extras(providers=["CPUExecutionProvider"])["onnxruntime"]
    assert onnx["providers"] == ["CPUExecutionProvider"] and "used" not in onnx


def test_a_silent_fallback_is_seen_with_its_reason() -> None:
    onnx = extras(libraries_missing=True)["onnxruntime"]
    assert onnx["used"] == ["CPUExecutionProvider"] and "right" not in onnx
    assert onnx["words"] == "libcublasLt.so.13: cannot open shared object file"


def test_libraries_that_come_with_pytorch_count() -> None:
    onnx = extras(libraries_missing=True, torch_brings_them=True)["onnxruntime"]
    assert (onnx["right"], onnx["with_torch"]) == (True, True)


def test_nodes_that_are_placed_on_the_cpu_are_seen() -> None:
    assert "assigned to the default CPU EP" in extras(placed_on_cpu=True)["onnxruntime"]["refused"]


def test_a_wrong_product_of_another_runtime_is_seen() -> None:
    assert extras(wrong=True)["onnxruntime"]["right"] is False


def test_a_runtime_that_crashes_does_not_hurt_the_proof() -> None:
    onnx = extras(die=True)["onnxruntime"]
    assert onnx["error"] == "ended with status -6: its last words"


def test_a_runtime_that_hangs_is_ended_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EXTRA", '{"hang": true}')
    monkeypatch.setenv("PYTHONPATH", str(FIXTURES / "extras"))
    answer = _probe_program.probe_extra("onnxruntime", inspect.getsource(_probe_extras), 5.5)
    assert answer == {"error": "no answer within 6 seconds", "ended": "timeout"}


def test_without_time_nothing_is_begun() -> None:
    assert _probe_program.probe_extra("onnxruntime", "", 4.0) == {"skipped": "no time was left for it"}


def test_tensorrt_without_a_builder() -> None:
    tensorrt = extras(no_builder=True)["tensorrt"]
    assert tensorrt["error"].startswith("TypeError: pybind11::init()")


def test_a_folder_that_an_uninstalled_package_left_is_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leftover_of_a_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not _probe_program.has_package("leftover_of_a_package")
    assert not _probe_program.has_package("no_such_package_at_all")
    assert _probe_program.has_package("json")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("onnxruntime-1.32.0-cpu", "DG410", "AzureExecutionProvider, CPUExecutionProvider"),
        (
            "onnxruntime-gpu-1.31.1-no-cuda",
            "DG411",
            "libcublasLt.so.13: cannot open shared object file: No such file or directory; it needs cuDNN 9.* and CUDA 13.*",
        ),
    ],
)
def test_answers_of_real_runtimes_are_read_and_judged(name: str, code: str, words: str) -> None:
    recorded = [FIXTURES / "recorded" / f"{name}.{stream}" for stream in ("stdout", "stderr")]
    stdout, stderr = (path.read_bytes() if path.exists() else b"" for path in recorded)
    data = _probe_program.read_extra(stdout, stderr, 0)
    report = _probe.ProbeReport(stages={"extra onnxruntime": data}, done=True)
    [extra] = _extras.judge_extras(Case(Expected(), Evidence(facts={}, container_name="x", probe=report)))
    assert (extra.code, extra.version) == (code, data["version"])
    assert words in extra.seen


@pytest.mark.parametrize("stdout", [b"", b"@@dg-extra@@ [1]\n", b"@@dg-extra@@ {", b"\xff"])
def test_an_answer_that_cannot_be_read_is_an_error(stdout: bytes) -> None:
    assert _probe_program.read_extra(stdout, b"", 1)["error"] == "ended with status 1: no output"


def test_the_model_is_the_one_that_the_real_runtime_reads() -> None:
    """The bytes that onnxruntime 1.32.0 loaded, ran on the CPU and computed the right product with, when this was written."""
    assert hashlib.sha256(_probe_extras.onnx_model()).hexdigest() == "46ed80c2ce75473e5998f03fc77453b689449a5554656c5a9bd48e0c71058578"


@given(st.text(TEXT))
def test_what_is_reported_is_one_short_line(text: str) -> None:
    line = _probe_program.shorten(text)
    assert len(line) <= _probe_program.TEXT_LIMIT
    assert len(line.splitlines()) <= 1


# -- reading the answer ------------------------------------------------------------------------------------------------

STAGES = ("python", "nodes", "libcuda", "cuinit", "devices", "torch", "torch_cuda", "kernel 0")
DATA = st.dictionaries(st.text(TEXT, max_size=6), st.none() | st.integers() | st.text(TEXT, max_size=20), max_size=4)


def whole_output(stages: list[tuple[str, dict[str, Any]]]) -> bytes:
    written: list[bytes] = []
    reporter = _probe_program.Reporter(written.append)
    for name, data in stages:
        reporter.run(name, lambda data=data: dict(data))  # type: ignore[misc]
    reporter.line(stage="done", event="end", data={})
    return b"".join(written)


RECORDS = st.lists(st.tuples(st.sampled_from(STAGES), DATA), unique_by=lambda record: record[0], max_size=8)


@given(RECORDS, st.lists(st.text(TEXT.replace("@", "")), max_size=9), st.binary(max_size=30))
def test_lines_are_found_between_garbage(records: Any, garbage: list[str], tail: bytes) -> None:
    lines = whole_output(records).split(b"\n")
    noisy = b""
    for position, line in enumerate(lines):
        noisy += line + b"\n"
        if position < len(garbage):
            noisy += garbage[position].encode()  # no line end: the probe's own one must do
    report = _probe.parse(noisy + tail.replace(b"@", b""))
    assert list(report.stages) == [name for name, _data in records]
    for name, data in records:
        assert {key: report.stages[name][key] for key in data if key != "ms"} == {
            key: value for key, value in data.items() if key != "ms"
        }
    assert report.done


@given(RECORDS.filter(bool), st.data())
def test_a_cut_off_answer_is_read_as_far_as_it_goes(records: Any, data: Any) -> None:
    output = whole_output(records)
    report = _probe.parse(output[: data.draw(st.integers(0, len(output)))])
    names = [name for name, _data in records]
    assert list(report.stages) == names[: len(report.stages)]
    assert report.running is None or report.running == names[len(report.stages)]


@given(st.binary() | st.lists(st.text(TEXT)).map(lambda parts: (MARKER + MARKER.join(parts)).encode()))
def test_no_output_is_a_traceback(output: bytes) -> None:
    report = _probe.parse(output)
    assert all(isinstance(data, dict) for data in report.stages.values())


@pytest.mark.parametrize(
    "text", ["[1]", "{}", '{"stage": 3}', '{"stage": "x", "event": "end", "data": 4}', "[" * 100_000, '{"stage": "x"']
)
def test_a_damaged_line_is_passed_over(text: str) -> None:
    report = _probe.parse(f"{MARKER}{text}\n".encode())
    assert not report.answered


# -- choosing the interpreter ------------------------------------------------------------------------------------------


class FakeEngine:
    """A container whose interpreters answer as told: with torch, without, or not at all."""

    def __init__(self, **pythons: str) -> None:
        self.pythons = pythons
        self.asked: list[tuple[str, bool]] = []

    def exec(self, container: str, argv: Any, stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        assert container == "box"
        assert argv[1:] == ["-B", "-"]
        required = b'"require_torch": true' in stdin
        name = argv[0].rpartition("/")[2]
        self.asked.append((argv[0], required))
        kind = self.pythons.get(name)
        if kind is None:
            return 127, b"", f'exec: "{name}": executable file not found in $PATH'.encode()
        if kind == "stuck":
            error = DockerTimeout("too slow")
            error.stdout = f'{MARKER}{{"stage": "cuinit", "event": "begin"}}'.encode()  # type: ignore[attr-defined]
            raise error
        output = whole_output([("python", {"torch_found": kind == "torch", "executable": argv[0]})])
        if required and kind != "torch":
            return _probe_program.RC_NO_TORCH, output.partition(b'"done"')[0], b""
        return 0, output, b""


PYTHONS = ("python3", "python", "/opt/venv/bin/python9")


def test_the_interpreter_with_torch_is_preferred() -> None:
    engine = FakeEngine(python3="plain", python9="torch")
    report = _probe.run(engine, "box", PYTHONS, gpu=True, timeout_s=5)
    assert report.stages["python"]["executable"] == "/opt/venv/bin/python9"
    assert engine.asked == [("python3", True), ("python", True), ("/opt/venv/bin/python9", True)]


def test_the_usual_case_costs_one_call() -> None:
    engine = FakeEngine(python3="torch", python="torch")
    assert _probe.run(engine, "box", PYTHONS, gpu=True, timeout_s=5).done
    assert engine.asked == [("python3", True)]


def test_without_torch_the_first_interpreter_that_works_still_reports_the_rest() -> None:
    engine = FakeEngine(python="plain", python9="plain")
    report = _probe.run(engine, "box", PYTHONS, gpu=True, timeout_s=5)
    assert report.done and not report.torch_found
    assert engine.asked[-1] == ("python", False)


def test_no_interpreter_at_all() -> None:
    report = _probe.run(FakeEngine(), "box", PYTHONS, gpu=True, timeout_s=5)
    assert not report.answered
    assert _probe.could_not_start(report)
    assert "not found" in report.last_words


@pytest.mark.parametrize(
    ("rc", "words", "missing"),
    [
        (127, 'OCI runtime exec failed: unable to start container process: exec: "python3": executable file not found in $PATH', True),
        (126, 'OCI runtime exec failed: stat /opt/venv/bin/python: no such file or directory: unknown', True),
        (127, "", True),
        (126, "OCI runtime exec failed: unable to start container process: error adding pid 512 to cgroups: unknown", False),
        (1, "python3: not found", False),
    ],
)
def test_an_interpreter_that_is_missing_is_told_from_an_engine_that_fails(rc: int, words: str, missing: bool) -> None:
    report = _probe.ProbeReport()
    report.rc, report.last_words = rc, words
    assert _probe.could_not_start(report) is missing


def test_a_probe_that_cannot_even_end_itself_says_where_it_hangs() -> None:
    report = _probe.run(FakeEngine(python3="stuck"), "box", PYTHONS, gpu=True, timeout_s=5)
    assert (report.timed_out, report.running, report.rc) == (True, "cuinit", None)
