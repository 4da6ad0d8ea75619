# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with PyTorch and its computation: each test runs an image that is broken in one place, or breaks the simulated GPU."""
from __future__ import annotations

import pytest

from .lab import SECOND_GPU, VARIANT, Host

produces = pytest.mark.produces
IDLE = "sleep infinity"
TORCH = "/usr/lib/python3/dist-packages/torch"


def patched(host: Host, tag: str, *lines: str) -> str:
    """Build the stand-in image with a change in its PyTorch, and return its reference."""
    steps = "\n".join(f"RUN {line}" for line in lines)
    return host.build(tag, f"FROM standin:cuda12.6\nUSER 0\n{steps}\nUSER 10001")


def append(file: str, *code: str) -> str:
    """Return the shell command that adds lines of Python to a file of the stand-in's PyTorch."""
    text = "\\n".join(code)
    return f"printf '{text}\\n' >> {TORCH}/{file}"


# --- PyTorch --------------------------------------------------------------------------------------------------------


@produces("DG401")
def test_image_has_no_pytorch(cli: Host) -> None:
    cli.start("it", image="difyops-demo/simulated-cuda-base:1", command=IDLE)
    cli.check("it").breaks("torch", "DG401", "image with PyTorch")


@produces("DG402")
def test_pytorch_cannot_be_imported(cli: Host) -> None:
    code = 'raise ImportError("cannot import name _C from partially initialized module torch")'
    image = patched(cli, "import", append("__init__.py", code))
    cli.start("it", image=image, command=IDLE)
    cli.check("it").breaks("torch", "DG402", "partially initialized")


@produces("DG403")
def test_pytorch_is_built_for_the_cpu(cli: Host) -> None:
    cli.start("it", image=cli.standin("cpu", CUDA_VERSION="", SM_LIST=""), command=IDLE)
    cli.check("it").breaks("torch", "DG403", "wrong wheel index", seen="2.14.1+cpu")


@produces("DG404", "DG703")
def test_driver_is_too_old_for_the_image(host: Host) -> None:
    host.start("it", image=host.standin("cuda13.0", CUDA_VERSION="13.0", SM_LIST="7.5 8.0 8.6"), command=IDLE)
    found = host.check("it")
    found.breaks("torch", "DG404", "up to CUDA 12.9", "driver 535.274.02", "580.65.06 for CUDA 13.0", seen="is_available() False")
    found.rejects("cuda13.0", "DG703", "580.65.06")


@produces("DG405")
def test_pytorch_finds_cuda_unavailable(cli: Host) -> None:
    reason = "CUDA unknown error: libraries of two toolkits"
    code = ("def is_available():", "    return False", "def init():", f'    raise RuntimeError("{reason}")')
    cli.start("it", image=patched(cli, "unavailable", append("cuda.py", *code)), command=IDLE)
    cli.check("it").breaks("torch", "DG405", "libraries of two toolkits")


@produces("DG406")
def test_image_has_no_code_for_the_gpu(cli: Host) -> None:
    cli.start("it", image=cli.standin("turing", SM_LIST="7.5"), command=IDLE)
    cli.check("it").breaks("torch", "DG406", "compute capability 8.6", "this one has sm_75", also=("kernel",))


@pytest.mark.parametrize(
    ("planned", "words"), [({"cuda": "12.8", "variant": "cuda12.8"}, "variant cuda12.8"), ({"torch": "2.7.1"}, "torch 2.7.1")]
)
@produces("DG407")
def test_image_is_not_the_planned_one(cli: Host, planned: dict[str, str], words: str) -> None:
    cli.check(**{**VARIANT, **planned}).breaks("torch", "DG407", words, seen="torch 2.14.1+cu126, CUDA 12.6")


@pytest.mark.parametrize("mode", ["cpu", "degraded"])
@produces("DG408")
def test_cuda_is_in_use_where_the_cpu_was_planned(cli: Host, mode: str) -> None:
    verdict = cli.check(mode=mode)
    assert (verdict.verdict["overall"], verdict.verdict["code"]) == ("failed", "DG408")
    assert "take the GPU away" in verdict.verdict["remedy"]
    verdict.seen.add("DG408")


@produces("DG409")
def test_pytorch_sees_fewer_gpus_than_the_driver(cli: Host) -> None:
    cli.profile(*SECOND_GPU)
    cli.start("it", image=patched(cli, "onegpu", append("cuda.py", "def device_count():", "    return 1")), command=IDLE)
    cli.check("it").breaks("torch", "DG409", "CUDA_VISIBLE_DEVICES", seen="1 GPU", also=("kernel",))


@produces("DG414")
def test_pytorch_finds_the_libraries_of_another_cuda(cli: Host) -> None:
    code = 'raise ImportError("libcudart.so.11.0: cannot open shared object file: No such file or directory")'
    cli.start("it", image=patched(cli, "mixed", append("__init__.py", code)), command=IDLE)
    cli.check("it").breaks("torch", "DG414", "LD_LIBRARY_PATH", "libcudart.so.11.0")


# --- other runtimes: stand-ins with the functions that the probe asks -----------------------------------------------

PACKAGES = "/usr/lib/python3/dist-packages"
ONNXRUNTIME = """
__version__ = "1.20.1"
class SessionOptions:
    def add_session_config_entry(self, key, value): pass
def get_available_providers(): return {available}
class InferenceSession:
    def __init__(self, model, options=None, providers=None): pass
    def get_providers(self): return {used}
    def run(self, names, feeds): return [feeds["x"] @ feeds["x"]]
"""
BROKEN = 'raise ImportError("libcublasLt.so.12: cannot open shared object file")'
BOTH = '["CUDAExecutionProvider", "CPUExecutionProvider"]'
CPU = '["CPUExecutionProvider"]'
TENSORRT = """
__version__ = "10.3.0"
class Logger:
    ERROR = 2
    def __init__(self, level): pass
class Runtime:
    def __init__(self, logger): raise RuntimeError("CUDA initialization failure with error: 35")
Builder = Runtime
"""


def onnxruntime(available: str, used: str) -> str:
    """Return the source of a stand-in that has some providers and uses others."""
    return ONNXRUNTIME.format(available=available, used=used)


@pytest.mark.parametrize(
    ("name", "source", "code", "words"),
    [
        pytest.param("onnxruntime", onnxruntime(available=CPU, used=CPU), "DG410", "CPUExecutionProvider", marks=produces("DG410")),
        pytest.param("onnxruntime", onnxruntime(available=BOTH, used=CPU), "DG411", "CPUExecutionProvider", marks=produces("DG411")),
        pytest.param("tensorrt", TENSORRT, "DG412", "error: 35", marks=produces("DG412")),
        pytest.param("onnxruntime", BROKEN, "DG413", "libcublasLt.so.12", marks=produces("DG413")),
    ],
    ids=["no-provider", "fell-back", "tensorrt", "onnxruntime"],
)
def test_another_runtime_cannot_use_the_gpu(cli: Host, name: str, source: str, code: str, words: str) -> None:
    text = source.strip().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    image = patched(cli, code.lower(), f'mkdir {PACKAGES}/{name} && printf "{text}\\n" > {PACKAGES}/{name}/__init__.py')
    cli.start("it", image=image, command=IDLE)
    found = cli.check("it")
    assert found.verdict["overall"] == "proven", found.verdict["links"]
    extra = next(one for one in found.verdict["extras"] if one["name"] == name)
    assert (extra["status"], extra["code"]) == ("failed", code), extra
    assert extra["remedy"] and words in extra["seen"], extra
    found.verdict_warns(code)


def test_another_runtime_works(cli: Host) -> None:
    text = onnxruntime(available=BOTH, used=BOTH).strip().replace('"', '\\"').replace("\n", "\\n")
    image = patched(cli, "onnx", f'mkdir {PACKAGES}/onnxruntime && printf "{text}\\n" > {PACKAGES}/onnxruntime/__init__.py')
    cli.start("it", image=image, command=IDLE)
    found = cli.check("it")
    (extra,) = found.verdict["extras"]
    assert (extra["name"], extra["version"], extra["status"], extra["code"]) == ("onnxruntime", "1.20.1", "ok", None)


# --- the computation ------------------------------------------------------------------------------------------------

GPU_PRODUCT = (
    "_matmul = Tensor.__matmul__",
    "def _broken(self, other):",
    "    product = _matmul(self, other)",
    "    {}",
    "    return product",
    "Tensor.__matmul__ = _broken",
)


def product(statement: str) -> str:
    """Return the shell command that puts a statement into the stand-in's matrix product, after the computation."""
    return append("_tensor.py", *(line.format(statement) for line in GPU_PRODUCT))


@produces("DG501")
def test_computation_ends_with_an_error(cli: Host) -> None:
    statement = 'if self.is_cuda: raise RuntimeError("CUDA error: an illegal memory access was encountered")'
    cli.start("it", image=patched(cli, "faulty", product(statement)), command=IDLE)
    cli.check("it").breaks("kernel", "DG501", "illegal memory access", "Xid")


@produces("DG502")
def test_gpu_computes_wrong_results(cli: Host) -> None:
    cli.start("it", image=patched(cli, "wrong", product("if self.is_cuda: product._array[7, 7] += 1")), command=IDLE)
    cli.check("it").breaks("kernel", "DG502", "out of service", seen="allowed 1.0e-04")


@produces("DG503")
def test_gpu_memory_is_full(cli: Host) -> None:
    cli.fault("gpu.0.memory_used_mib=22516")
    cli.check().breaks("kernel", "DG503", "nvidia-smi", seen="MiB free", overall="unproven")


@produces("DG504")
def test_gpu_is_exclusive_and_taken(cli: Host) -> None:
    # Exclusive to one process, and the service in the container is that one.
    cli.fault("gpu.0.compute_mode=3", "gpu.0.process.0=dify_gpu_standin,400")
    cli.check().breaks("kernel", "DG504", "while the service is stopped", seen="busy or unavailable", overall="unproven")


@produces("DG505")
def test_computing_is_prohibited(cli: Host) -> None:
    cli.fault("gpu.0.compute_mode=2")
    cli.check().breaks("kernel", "DG505", "nvidia-smi -i 0 -c DEFAULT")


@produces("DG506")
def test_probe_hangs_in_the_driver(host: Host) -> None:
    host.fault("hang=cu_init")
    host.check(timeout_s=15).breaks("cuda", "DG506", "the driver hangs", seen="timed out in stage cuinit")


@produces("DG506")
def test_import_of_pytorch_takes_too_long(cli: Host) -> None:
    cli.start("it", image=patched(cli, "slow", append("__init__.py", "import time", "time.sleep(60)")), command=IDLE)
    cli.check("it", timeout_s=15).breaks("torch", "DG506", "raise timeout_s", seen="timed out in stage torch", overall="unproven")


@produces("DG507")
def test_probe_is_killed_for_memory(cli: Host) -> None:
    image = patched(cli, "hungry", append("__init__.py", "_hoard = bytearray(400 * 2**20)"))
    cli.start("it", "--memory 128m --memory-swap 128m", image=image, command=IDLE)
    cli.check("it").breaks("torch", "DG507", "memory limit", seen="status 137")


@produces("DG508")
def test_cpu_computes_wrong_results(cli: Host) -> None:
    without_cuda = f'sed -i "s/^cuda = .*/cuda = None/" {TORCH}/version.py'
    image = patched(cli, "cpuwrong", product("product._array[:] += 1"), without_cuda)
    cli.start("it", image=image, gpu=False, command=IDLE)
    verdict = cli.check("it", mode="degraded")
    assert (verdict.verdict["overall"], verdict.verdict["code"]) == ("failed", "DG508")
    assert "processor" in verdict.verdict["remedy"]
    verdict.seen.add("DG508")


@produces("DG510")
def test_report_of_the_probe_is_cut(cli: Host) -> None:
    wrapper = "#!/bin/sh\\n/usr/bin/python3 \"$@\" | grep --line-buffered -v kernel\\n"
    image = patched(cli, "filter", f"printf '{wrapper}' > /usr/local/bin/python3", "chmod 755 /usr/local/bin/python3")
    cli.start("it", image=image, command=IDLE)
    cli.check("it").breaks("kernel", "DG510", "docker exec", overall="unproven")


@produces("DG511")
def test_computation_runs_silently_on_the_cpu(cli: Host) -> None:
    code = ("Tensor.to = lambda self, *wanted, **options: self", "Tensor.cpu = lambda self: self")
    cli.start("it", image=patched(cli, "silent", append("_tensor.py", *code)), command=IDLE)
    cli.check("it").breaks("kernel", "DG511", seen="computed on cpu")


@produces("DG512")
def test_service_does_not_use_the_gpu(cli: Host) -> None:
    # Once it is healthy nobody looks again: a check that is about to start is a process that cannot be looked at.
    cli.start("it", "--health-cmd true --health-interval 1h --health-start-period 1h --health-start-interval 1s", command=IDLE)
    cli.sh("until [ $(docker inspect --format '{{.State.Health.Status}}' it) = healthy ]; do sleep 0.1; done")
    found = cli.check("it", health=True)
    assert found.verdict["overall"] == "proven"
    found.verdict_warns("DG512")


# --- speed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "code", "words"),
    [pytest.param(1000000, "DG601", "clocks", marks=produces("DG601")), pytest.param(30, "DG602", "nvidia-smi", marks=produces("DG602"))],
)
def test_gpu_is_slow(cli: Host, factor: int, code: str, words: str) -> None:
    cli.fault(f"gpu.0.slow_factor={factor}")
    found = cli.check()
    assert found.verdict["overall"] == "proven"
    link = next(link for link in found.verdict["links"] if link["link"] == "speed")
    assert (link["status"], link["code"]) == ("failed", code), link
    assert words in link["remedy"]
    found.verdict_warns(code)
