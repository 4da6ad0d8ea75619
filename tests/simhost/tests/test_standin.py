# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in torch follows CUDA's rules about drivers, architectures, PTX, memory and devices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SIMHOST, Machine

IMAGE = SIMHOST / "standin-image"
ALL_12_6 = "5.0 6.0 7.0 7.5 8.0 8.6 9.0"
TOO_OLD, NO_KERNEL, TOOLCHAIN, NO_GPU = "too old", "no kernel image", "unsupported toolchain", "No CUDA GPUs"
PRODUCT = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    seen = {"version": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available()}
    try:
        torch.cuda.init()
        a = torch.randn(32, 32).to("cuda")
        seen["close"] = torch.allclose((a @ a).cpu(), a.cpu() @ a.cpu(), rtol=1e-3, atol=1e-4)
    except (RuntimeError, AssertionError) as error:
        seen["error"] = str(error)
seen["warnings"] = [str(w.message) for w in caught]
print(json.dumps(seen))
"""


def describe(torch: str, cuda: str, sm: str, ptx: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(IMAGE / "build/describe.py"), "--torch", torch, "--cuda", cuda, "--sm", sm, "--ptx", ptx]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture
def image(tmp_path: Path):
    """A built image, as far as Python sees it: the folder for PYTHONPATH."""

    def make(cuda: str, sm: str = ALL_12_6, ptx: str = "", torch: str = "2.14.1") -> str:
        shutil.copytree(IMAGE, tmp_path, dirs_exist_ok=True)
        described = describe(torch, cuda, sm, ptx)
        assert described.returncode == 0, described.stderr
        (tmp_path / "torch/version.py").write_text(described.stdout, encoding="utf-8")
        return str(tmp_path)

    return make


def python_path(first: str) -> str:
    """PYTHONPATH with one more folder in front."""
    return os.pathsep.join([first, *filter(None, [os.environ.get("PYTHONPATH")])])


def ask(machine: Machine, path: str, program: str = PRODUCT, **environment: str) -> dict:
    answer = machine.python(program, PYTHONPATH=python_path(path), **environment)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.parametrize(
    ("profile", "cuda", "sm", "ptx", "error"),
    [
        ("a10-535", "12.6", ALL_12_6, "", None),
        ("a10-535", "12.8", "8.6", "", None),  # minor-version compatibility: compiled code of a newer minor release
        ("a10-535", "11.8", "8.0", "", None),  # backward compatibility; the same major, a lower minor
        ("a10-535", "12.6", "8.9 9.0", "", NO_KERNEL),  # above the GPU
        ("a10-535", "12.6", "7.5", "", NO_KERNEL),  # another major
        ("a10-535", "12.1", "7.5", "8.0", None),  # PTX at or below the GPU, toolkit not above the driver
        ("a10-535", "12.6", "7.5", "8.0", TOOLCHAIN),  # PTX of a toolkit newer than the driver
        ("a10-535", "12.1", "7.5", "9.0", NO_KERNEL),  # PTX above the GPU
        ("a10-535", "12.6", "8.6a", "", None),
        ("a10-535", "12.6", "8.0a", "", NO_KERNEL),  # suffix a: that very GPU only
        ("a10-535", "12.6", "8.0f", "", None),
        ("t4-470", "11.8", ALL_12_6, "", None),
        ("t4-470", "11.8", "8.0 9.0", "", NO_KERNEL),
        ("t4-470", "11.8", "8.0", "7.0", TOOLCHAIN),
        ("t4-470", "12.6", ALL_12_6, "", TOO_OLD),
        ("a10-535", "13.0", "8.6", "", TOO_OLD),
    ],
)
def test_rule(machine: Machine, image, profile: str, cuda: str, sm: str, ptx: str, error: str | None) -> None:
    machine.set(profile)
    seen = ask(machine, image(cuda, sm, ptx))
    assert seen["version"] == f"2.14.1+cu{cuda.replace('.', '')}"
    assert seen["cuda"] == cuda
    assert seen["available"] is (error != TOO_OLD)
    assert any(TOO_OLD in warning for warning in seen["warnings"]) is (error == TOO_OLD)
    if error is None:
        assert seen.get("close") is True, seen
    else:
        assert error in seen["error"]


@pytest.mark.parametrize(
    ("loaded", "extra", "warns", "error"),
    [
        (None, [], False, NO_GPU),
        ("", ["gpu.0.error=15"], False, NO_GPU),
        ("535.161.08", [], True, "Error 803: system has unsupported display driver"),
        ("", ["cu_init_error=802"], True, "Error 802: system not yet initialized"),
        ("", ["gpu.0.compute_mode=2"], None, "busy or unavailable"),
        ("", ["gpu.0.compute_mode=3", "gpu.0.process.0=1,100"], None, "busy or unavailable"),
        ("", ["gpu.0.memory_used_mib=22516"], None, "CUDA out of memory"),
        ("", ["gpu.0.process.0=1,22516"], None, "CUDA out of memory"),
        ("", ["cu_init_error=34"], True, "Error 34: CUDA driver is a stub library"),
        ("", ["cu_init_error=804"], True, "Error 804: forward compatibility was attempted on non supported HW"),
        ("", ["cu_init_error=999"], True, "Error 999: unknown error"),
    ],
)
def test_broken_drivers(machine: Machine, image, loaded: str | None, extra: list[str], warns: bool | None, error: str) -> None:
    machine.set("a10-535", *extra, loaded=loaded)
    seen = ask(machine, image("12.6"))
    assert seen["available"] is (warns is None)
    assert bool(seen["warnings"]) is bool(warns)
    assert error in seen["error"]


def test_no_library(machine: Machine, image, tmp_path: Path) -> None:
    seen = ask(machine, image("12.6"), LD_LIBRARY_PATH=str(tmp_path / "nothing"))
    assert (seen["available"], seen["warnings"]) == (False, [])
    assert "Found no NVIDIA driver" in seen["error"]


def test_cpu_build(machine: Machine, image) -> None:
    machine.set("a10-535")
    seen = ask(machine, image(""))
    assert (seen["version"], seen["cuda"], seen["available"]) == ("2.14.1+cpu", None, False)
    assert seen["error"] == "Torch not compiled with CUDA enabled"


DETAILS = """
import json, torch
def refuses(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
torch.manual_seed(1); one = torch.randn(256, 256)
torch.manual_seed(1); two = torch.randn(256, 256)
there = one.to("cuda:0")
free_before, total = torch.cuda.mem_get_info(0)
big = torch.zeros(1024, 1024, device="cuda")
free_with, _ = torch.cuda.mem_get_info()
del big
free_after, _ = torch.cuda.mem_get_info("cuda:0")
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record(); there @ there; end.record(); torch.cuda.synchronize()
product = there @ there
print(json.dumps({
    "seeded": torch.equal(one, two), "dtype": str(one.dtype), "archs": torch.cuda.get_arch_list(), "name": torch.cuda.get_device_name(0),
    "cc": torch.cuda.get_device_capability("cuda:0"), "count": torch.cuda.device_count(), "taken": free_before - free_with,
    "given_back": free_before - free_after, "ms": start.elapsed_time(end), "mixed": refuses(lambda: there @ one),
    "numpy": refuses(there.numpy), "ordinal": refuses(lambda: one.to("cuda:3")), "on": str(product.device),
    "error": (product.cpu() - one @ one).abs().max().item(), "half": str(there.half().dtype), "row": len(one[0].tolist()),
    "simulated": torch.__simulated__ and "SIMULATED" in torch.__doc__,
}))
"""


def test_details(machine: Machine, image) -> None:
    machine.set("a10-535")
    seen = ask(machine, image("12.6"), DETAILS)
    assert seen["seeded"] is True
    assert seen["dtype"] == "torch.float32"
    assert seen["archs"] == ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
    assert (seen["name"], seen["cc"], seen["count"]) == ("NVIDIA A10 (simulated)", [8, 6], 1)
    assert (seen["taken"], seen["given_back"]) == (4 << 20, 0)
    assert 0 < seen["ms"] < 1
    assert (seen["mixed"], seen["numpy"], seen["ordinal"]) == ("RuntimeError", "TypeError", "RuntimeError")
    assert seen["on"] == "cuda:0"
    assert 0 <= seen["error"] < 1e-3
    assert (seen["half"], seen["row"], seen["simulated"]) == ("torch.float16", 256, True)


@pytest.mark.parametrize(
    ("torch", "cuda", "sm"), [("", "12.6", "8.6"), ("latest", "12.6", "8.6"), ("2.14.1", "cu126", "8.6"), ("2.14.1", "12.6", "sm_86")]
)
def test_bad_build_arguments_stop_the_build(torch: str, cuda: str, sm: str) -> None:
    refused = describe(torch, cuda, sm, "")
    assert refused.returncode == 1
    assert refused.stderr.startswith("stand-in build: ")
    assert "Traceback" not in refused.stderr


SPEED = """
import json, torch
a = torch.ones(512, 512, device="cuda")
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record(); a @ a; end.record(); torch.cuda.synchronize()
print(json.dumps(start.elapsed_time(end)))
"""


def test_a_slow_gpu_is_slow_and_nothing_else_tells(machine: Machine, image) -> None:
    path = image("12.6")
    machine.set("a10-535")
    usual = ask(machine, path, SPEED)
    machine.set("a10-535", "gpu.0.slow_factor=50")
    assert 10 < ask(machine, path, SPEED) / usual < 50
    machine.set("a10-535", "gpu.0.slow_factor=50")
    properties = "import json, torch; print(json.dumps(torch.cuda.get_device_properties(0).multi_processor_count))"
    assert ask(machine, path, properties) == 72


def test_the_first_mig_device(machine: Machine, image) -> None:
    machine.set("a100-mig-550")
    name = "import json, torch; print(json.dumps([torch.cuda.device_count(), torch.cuda.get_device_name(0)]))"
    assert ask(machine, image("12.6"), name) == [1, "NVIDIA A100-SXM4-40GB (simulated) MIG 3g.20gb"]
