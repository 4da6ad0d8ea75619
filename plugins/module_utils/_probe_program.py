# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpu_verify runs inside the container: the GPU chain from the device files to a computed matrix product.

The source of this file is fed to the container's own Python on standard input, followed by one call of main(). So it
uses the standard library only, runs on Python 3.8 and newer, writes no file, needs no root, and reports every stage as
one line on standard output the moment it begins and ends: a run that hangs still says where.

The proof ends with the stage "done". What comes after it is worth knowing and decides nothing: the CUDA libraries that
are in use, which processes of the container use the GPU, and the other GPU runtimes of the image.

This is private to difyops.gpu.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import importlib
import importlib.util
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from typing import Any, Callable

MARKER = "@@dg-probe@@ "
# Ends a run that was asked to look for PyTorch in this interpreter and has not found it.
RC_NO_TORCH = 43
# Ends a run in which a stage took too long.
RC_TIMEOUT = 44

TEXT_LIMIT = 600
SEED = 20261122
# Rows of the square matrices: large enough for a GPU to be faster, small enough for a nearly full one and a slow CPU.
SIZE = 512
ROUNDS = 2
# Largest difference allowed, as a share of the largest element of the product. Measured with standard normal factors of
# 256 and 1024 rows: float32 in another order of summation 1.3e-6, TensorFloat-32 3.0e-4, half precision 5.7e-4; a wrong kernel
# or broken memory is near 1. So 1e-4 passes every honest float32, with room for its rounding, and nothing else.
TOLERANCE = 1e-4

# The rate of the GPU is measured with growing matrices, since a small product cannot keep a large GPU busy. It stops
# growing when one product takes this long, in seconds, so that a slow GPU costs little as well.
RATE_SIZES = (1024, 2048, 4096)
RATE_ENOUGH_S = 0.02
RATE_ROUNDS = 3
MIB = 2**20

# A runtime of the image gets at most this many seconds for its check, and none is begun with less than the least.
EXTRA_LIMIT_S = 45.0
EXTRA_LEAST_S = 5.0
EXTRAS = ("onnxruntime", "tensorrt")

# Attributes of cuDeviceGetAttribute (cuda.h).
_ATTRIBUTE_CLOCK_RATE = 13  # kHz, the highest that the device is meant to reach
_ATTRIBUTE_MULTIPROCESSORS = 16
_ATTRIBUTE_COMPUTE_MODE = 20
_ATTRIBUTE_CAPABILITY_MAJOR = 75
_ATTRIBUTE_CAPABILITY_MINOR = 76
_COMPUTE_MODES = {0: "default", 2: "prohibited", 3: "exclusive_process"}

_VISIBILITY = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


class Reporter:
    """Writes the progress lines and remembers which stage is running."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self.stage = "start"

    def line(self, **fields: Any) -> None:
        # A line break first: a library may have left half a line of its own on standard output.
        self._write(f"\n{MARKER}{json.dumps(fields)}\n".encode())

    def run(self, stage: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run one stage; whatever it raises becomes its ``error``, so that the next stage gets its turn."""
        self.stage = stage
        self.line(stage=stage, event="begin")
        started = time.monotonic()
        try:
            data = work()
        except Exception as error:
            data = {"error": describe(error)}
        data["ms"] = int((time.monotonic() - started) * 1000)
        self.line(stage=stage, event="end", data=data)
        return data


def write_all(data: bytes) -> None:
    """Write to standard output at once and unbuffered, so that a process that is killed has said what it knew."""
    while data:
        data = data[os.write(1, data) :]


def describe(error: BaseException) -> str:
    """Return an exception as one short line."""
    return shorten(f"{type(error).__name__}: {error}")


def shorten(text: str) -> str:
    """Return text on one line, at most TEXT_LIMIT characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 3] + "..."


def look_at_python() -> dict[str, Any]:
    """Which interpreter this is, and whether it has a package named torch (without importing it)."""
    try:
        found = importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        found = False
    return {
        "executable": sys.executable,
        "version": platform.python_version(),
        "torch_found": found,
        "environment": {name: shorten(os.environ[name]) for name in _VISIBILITY if name in os.environ},
        "uid": os.getuid(),
    }


def look_at_nodes(root: str = "/dev") -> dict[str, Any]:
    """Which device files are there, and whether each can be opened."""
    paths = [os.path.join(root, name) for name in ("nvidiactl", "nvidia-uvm")]
    gpus = (path for path in glob.glob(os.path.join(root, "nvidia*")) if re.search(r"/nvidia\d+$", path))
    return {"nodes": [look_at_node(path) for path in paths + sorted(gpus, key=lambda path: (len(path), path))]}


def look_at_node(path: str) -> dict[str, Any]:
    node: dict[str, Any] = {"path": path, "present": os.path.lexists(path), "errno": None, "error": None}
    if node["present"]:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            node["errno"] = errno.errorcode.get(error.errno or 0, str(error.errno))
            node["error"] = shorten(os.strerror(error.errno or 0))
    return node


class Driver:
    """The few functions of the CUDA driver API that are needed, by ctypes."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")

    def call(self, name: str, *arguments: Any) -> int:
        function = getattr(self.library, name)
        function.restype = ctypes.c_int
        return int(function(*arguments))

    def error_name(self, code: int) -> str | None:
        text = ctypes.c_char_p()
        try:
            self.call("cuGetErrorName", ctypes.c_int(code), ctypes.byref(text))
        except AttributeError:
            return None
        name = text.value
        return None if name is None else name.decode("ascii", "replace")

    def attribute(self, attribute: int, device: int) -> int | None:
        value = ctypes.c_int(-1)
        try:
            code = self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), ctypes.c_int(device))
        except AttributeError:
            return None
        return value.value if code == 0 else None

    def uuid(self, device: int) -> str | None:
        # The _v2 function gives a MIG instance its own identity; drivers before 470 have only the first one.
        for name in ("cuDeviceGetUuid_v2", "cuDeviceGetUuid"):
            raw = (ctypes.c_ubyte * 16)()
            try:
                code = self.call(name, ctypes.byref(raw), ctypes.c_int(device))
            except AttributeError:
                continue
            if code == 0:
                digits = bytes(raw).hex()
                return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return None

    def name(self, device: int) -> str | None:
        text = ctypes.create_string_buffer(256)
        code = self.call("cuDeviceGetName", text, ctypes.c_int(256), ctypes.c_int(device))
        return text.value.decode("utf-8", "replace") if code == 0 else None


def load_driver(holder: list[Driver]) -> dict[str, Any]:
    """Load libcuda.so.1 and say from where."""
    try:
        holder.append(Driver())
    except OSError as error:
        # The loader's words are the only way to tell a library that is not there from one that does not load.
        missing = "libcuda.so.1: cannot open shared object file: No such file" in str(error)
        return {"error": shorten(str(error)), "missing": missing}
    return {"path": loaded_path("libcuda.so")}


def loaded_path(prefix: str) -> str | None:
    """Return the file from which this process has mapped a library, None when it cannot be told."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                path = line.rstrip("\n").partition("/")[2]
                if os.path.basename(path).startswith(prefix):
                    return "/" + path
    except OSError:
        pass
    return None


def init_driver(driver: Driver) -> dict[str, Any]:
    """Call cuInit, the step at which a broken driver refuses, or hangs."""
    code = driver.call("cuInit", ctypes.c_uint(0))
    return {"code": code, "name": driver.error_name(code)}


def list_devices(driver: Driver) -> dict[str, Any]:
    """The CUDA version that the driver serves, and its devices."""
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    data: dict[str, Any] = {
        "version_code": driver.call("cuDriverGetVersion", ctypes.byref(version)),
        "cuda_version": f"{version.value // 1000}.{version.value % 1000 // 10}" if version.value else None,
        "count_code": driver.call("cuDeviceGetCount", ctypes.byref(count)),
        "count": count.value,
        "devices": [],
    }
    for ordinal in range(count.value):
        device = ctypes.c_int(0)
        if driver.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal)) != 0:
            continue
        major = driver.attribute(_ATTRIBUTE_CAPABILITY_MAJOR, device.value)
        minor = driver.attribute(_ATTRIBUTE_CAPABILITY_MINOR, device.value)
        mode = driver.attribute(_ATTRIBUTE_COMPUTE_MODE, device.value)
        data["devices"].append(
            {
                "index": ordinal,
                "name": driver.name(device.value),
                "uuid": driver.uuid(device.value),
                "compute_capability": None if major is None or minor is None else f"{major}.{minor}",
                "compute_mode": None if mode is None else _COMPUTE_MODES.get(mode, str(mode)),
                "multiprocessors": driver.attribute(_ATTRIBUTE_MULTIPROCESSORS, device.value),
                "clock_khz": driver.attribute(_ATTRIBUTE_CLOCK_RATE, device.value),
            }
        )
    return data


def import_torch(holder: list[Any]) -> dict[str, Any]:
    """Import PyTorch and say what was built."""
    torch = importlib.import_module("torch")
    holder.append(torch)
    version = getattr(torch, "version", None)
    return {
        "version": str(getattr(torch, "__version__", "")) or None,
        "cuda": getattr(version, "cuda", None),
        "hip": getattr(version, "hip", None),
        "path": getattr(torch, "__file__", None),
        "libraries": cuda_libraries(),
    }


# The libraries whose major version is that of CUDA itself; cuFFT, cuSPARSE and cuDNN count by themselves. Wheels put a
# digest into some names, as in libcudart-d0da41ae.so.11.0.
_CUDA_LIBRARY = re.compile(r"lib(cudart|cublas|cublasLt|nvrtc)(?:-[0-9a-f]{8})?\.so\.(\d+)")


def cuda_libraries(maps: str = "/proc/self/maps") -> list[dict[str, Any]]:
    """The CUDA libraries that this process has mapped, each with the major version of CUDA that it belongs to."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError), open(maps, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            path = "/" + line.rstrip("\n").partition("/")[2]
            match = _CUDA_LIBRARY.match(os.path.basename(path))
            if match:
                found[path] = {"name": match.group(1), "major": int(match.group(2)), "path": shorten(path)}
    return [found[path] for path in sorted(found)]


def look_at_libraries(torch: Any) -> dict[str, Any]:
    """The CUDA libraries after the computation has loaded what it needs, and what PyTorch says about its cuDNN."""
    data: dict[str, Any] = {"libraries": cuda_libraries(), "cudnn": None, "cudnn_error": None}
    cudnn: Any = getattr(getattr(torch, "backends", None), "cudnn", None)
    if hasattr(cudnn, "version"):
        try:
            data["cudnn"] = cudnn.version()  # PyTorch compares it with the one it was built with, and raises
        except Exception as error:
            data["cudnn_error"] = describe(error)
    return data


def look_at_processes(root: str = "/proc", again_s: float = 0.2) -> dict[str, Any]:
    """How many other processes of the container there are, and how many of them have the GPU in use.

    What may not be looked at is looked at once more: the command of a health check, while it begins or ends, is gone by then.
    """
    data = {"seen": 0, "hidden": 0, "using": 0}
    names = [name for name in os.listdir(root) if name.isdigit() and int(name) != os.getpid()]
    hidden = _count_processes(root, names, data)
    if hidden:
        time.sleep(again_s)
        hidden = _count_processes(root, hidden, data)
    data["hidden"] = len(hidden)
    return data


def _count_processes(root: str, names: list[str], data: dict[str, int]) -> list[str]:
    """Count processes, and return those that may not be looked at."""
    hidden = []
    for name in names:
        try:
            using = uses_gpu(os.path.join(root, name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended just now
        except OSError:
            hidden.append(name)
            continue
        data["seen"] += 1
        data["using"] += using
    return hidden


def uses_gpu(process: str) -> bool:
    """Whether a process has a device file of a GPU open, or libcuda mapped. Raises OSError when it may not be looked at."""
    folder = os.path.join(process, "fd")
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if re.match(r"/dev/nvidia(\d|-uvm$)", os.readlink(os.path.join(folder, number))):
                return True
    with open(os.path.join(process, "maps"), encoding="utf-8", errors="replace") as maps:
        return any("/libcuda.so" in line for line in maps)


def ask_torch(torch: Any) -> dict[str, Any]:
    """Whether PyTorch can use CUDA, what it says about it, and for which GPUs it was compiled."""
    data: dict[str, Any] = {"available": False, "warnings": [], "reason": None, "count": 0, "archs": [], "devices": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data["available"] = bool(torch.cuda.is_available())
        if not data["available"]:
            data["reason"] = why_unavailable(torch)
    data["warnings"] = [shorten(str(warning.message)) for warning in caught][:5]
    if data["available"]:
        data["count"] = int(torch.cuda.device_count())
        data["archs"] = [str(arch) for arch in torch.cuda.get_arch_list()]
        for index in range(data["count"]):
            major, minor = torch.cuda.get_device_capability(index)
            data["devices"].append(
                {
                    "index": index,
                    "name": str(torch.cuda.get_device_name(index)),
                    "compute_capability": f"{major}.{minor}",
                }
            )
    return data


def why_unavailable(torch: Any) -> str | None:
    """is_available() only says no; initializing on purpose makes PyTorch give the reason."""
    try:
        torch.cuda.init()
    except AttributeError:
        return None
    except Exception as error:
        return describe(error)
    return None


def multiply_on_gpu(torch: Any, index: int) -> dict[str, Any]:
    """Compute a matrix product on one GPU, compare it with the CPU's, and time both."""
    data: dict[str, Any] = {"index": index, "memory_free_mib": None, "memory_total_mib": None}
    try:
        torch.cuda.set_device(index)
        free, total = torch.cuda.mem_get_info(index)
        data.update(memory_free_mib=free // 2**20, memory_total_mib=total // 2**20)
        with torch.no_grad():
            data.update(compare_product(torch, f"cuda:{index}"))
    except Exception as error:
        data.update(error=describe(error), kind=kind_of(error))
        return data
    if "gpu_ms" not in data:
        return data
    try:
        with torch.no_grad():
            data["rate"] = measure_rate(torch, f"cuda:{index}", free)
    except Exception as error:
        data["rate"] = {"error": describe(error)}  # the product was right all the same
    return data


def compare_product(torch: Any, device: str) -> dict[str, Any]:
    """One product of two seeded matrices on both sides."""
    torch.manual_seed(SEED)
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    expected, first_ms = timed_product(left, right)
    left_there, right_there = left.to(device), right.to(device)
    product = left_there @ right_there
    place = str(getattr(product, "device", device))
    if not place.startswith("cuda"):
        return {"size": SIZE, "device": place, "right": False}  # mixing it with what is on the GPU would only raise
    # The product itself runs in a library of its own; the difference taken on the GPU runs PyTorch's own kernels too.
    there = float((product - expected.to(device)).abs().max().item())
    here = float((product.cpu() - expected).abs().max().item())
    scale = float(expected.abs().max().item())
    error = max(there, here) / scale if scale > 0 else math.inf
    return {
        "size": SIZE,
        "relative_error": error if math.isfinite(error) else str(error),
        "tolerance": TOLERANCE,
        "right": bool(error <= TOLERANCE),  # False also for NaN
        "device": place,
        "gpu_ms": time_on_gpu(torch, device, left_there, right_there),
        # The better of two: the CPU gets the benefit of the doubt.
        "cpu_ms": min(first_ms, timed_product(left, right)[1]),
    }


def measure_rate(torch: Any, device: str, free: int) -> dict[str, Any]:
    """Measure how many float32 operations a second the GPU does in matrix products, in units of 10^9."""
    data: dict[str, Any] = {"size": None, "ms": None, "gflops": None}
    for size in RATE_SIZES:
        if 4 * 3 * size * size > free // 2:
            break  # never at the cost of the service beside
        left = torch.randn(size, size, device=device)
        left @ left  # loads the code for this size, and wakes the clocks
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        times = [time_on_gpu(torch, device, left, left, rounds=1) for _round in range(RATE_ROUNDS)]
        taken = (time.perf_counter() - started) / RATE_ROUNDS
        median = statistics.median(times)
        if median > 0:
            data = {"size": size, "ms": median, "gflops": round(2 * size**3 / median / 1e6, 1)}
        if taken > RATE_ENOUGH_S:
            break
    return data


def time_on_gpu(torch: Any, device: str, left: Any, right: Any, rounds: int = ROUNDS) -> float:
    """Milliseconds of one product on the GPU, by the GPU's own clock; the caller has run one already (warm-up)."""
    torch.cuda.synchronize(device)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _round in range(rounds):
        left @ right
    end.record()
    torch.cuda.synchronize(device)
    return round(float(start.elapsed_time(end)) / rounds, 4)


def timed_product(left: Any, right: Any) -> tuple[Any, float]:
    """A product on the CPU, and how many milliseconds it took."""
    started = time.perf_counter()
    product = left @ right
    return product, round((time.perf_counter() - started) * 1000, 4)


def kind_of(error: BaseException) -> str:
    """Sort what a computation raised: the same exception class stands for very different causes."""
    text = str(error).lower()
    if type(error).__name__ == "OutOfMemoryError" or "out of memory" in text or "alloc_failed" in text:
        return "memory"
    if "busy or unavailable" in text:
        return "busy"
    if "no kernel image" in text:
        return "no_code"
    if "unsupported toolchain" in text or "unsupported ptx" in text:
        return "ptx"
    return "error"


def multiply_on_cpu(torch: Any) -> dict[str, Any]:
    """Compare a product on the CPU with the same sums in plain Python, at a few places."""
    torch.manual_seed(SEED)
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    with torch.no_grad():
        product, cpu_ms = timed_product(left, right)
    worst = 0.0
    for row, column in ((0, 0), (1, SIZE - 1), (SIZE - 1, 2), (SIZE // 2, SIZE // 3)):
        exact = math.fsum(a * b for a, b in zip(left[row].tolist(), right[:, column].tolist()))
        worst = max(worst, abs(float(product[row, column].item()) - exact))
    error = worst / math.sqrt(SIZE)  # the typical element of such a product
    return {
        "size": SIZE,
        "relative_error": error if math.isfinite(error) else str(error),
        "tolerance": TOLERANCE,
        "right": bool(error <= TOLERANCE),
        "cpu_ms": cpu_ms,
        "device": str(getattr(product, "device", "cpu")),
    }


def prepare_torch(torch: Any) -> None:
    """Ask for plain float32, since TensorFloat-32 would differ from the CPU more than a sound GPU may."""
    with contextlib.suppress(AttributeError, RuntimeError):  # builds without the switch do not use TensorFloat-32
        torch.backends.cuda.matmul.allow_tf32 = False


def probe_driver(report: Reporter) -> None:
    """The CUDA driver API, without PyTorch."""
    holder: list[Driver] = []
    report.run("libcuda", lambda: load_driver(holder))
    if not holder:
        return
    if report.run("cuinit", lambda: init_driver(holder[0])).get("code") == 0:
        report.run("devices", lambda: list_devices(holder[0]))


def probe_torch(report: Reporter, gpu: bool, holder: list[Any]) -> None:
    """PyTorch, and a computation on every GPU or on the CPU. ``holder`` gets the package, when it can be imported."""
    report.run("torch", lambda: import_torch(holder))
    if not holder:
        return
    torch = holder[0]
    prepare_torch(torch)
    cuda = report.run("torch_cuda", lambda: ask_torch(torch))
    if not gpu:
        report.run("cpu", lambda: multiply_on_cpu(torch))
    elif cuda.get("available"):
        for index in range(int(cuda.get("count", 0))):
            report.run(f"kernel {index}", lambda index=index: multiply_on_gpu(torch, index))  # type: ignore[misc]


def probe_extra(name: str, source: str, seconds: float) -> dict[str, Any]:
    """Check another GPU runtime of the image in a process of its own; once more with PyTorch imported when it fell back."""
    limit = min(EXTRA_LIMIT_S, seconds)
    if limit < EXTRA_LEAST_S or not sys.executable:
        return {"skipped": "no time was left for it" if sys.executable else "the interpreter does not know its own path"}
    started = time.monotonic()
    data = run_extra(name, source, limit, with_torch=False)
    limit -= time.monotonic() - started
    fell_back = bool(data.get("error")) or ("used" in data and "right" not in data)
    if fell_back and not data.get("ended") and limit >= EXTRA_LEAST_S:
        again = run_extra(name, source, limit, with_torch=True)
        if not again.get("error") and ("right" in again or "builder" in again):
            return {**again, "with_torch": True}
    return data


def run_extra(name: str, source: str, limit_s: float, with_torch: bool) -> dict[str, Any]:
    """Run one check to its end or to the end of its time, and return what it said."""
    config = json.dumps({"name": name, "with_torch": with_torch, "limit_s": limit_s})
    program = f"{source}\n\nimport sys\nsys.exit(main({config!r}))\n".encode()
    pipe = subprocess.PIPE
    child = subprocess.Popen(  # pylint: disable=ansible-bad-function
        [sys.executable, "-B", "-"], stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        stdout, stderr = child.communicate(program, timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        # A process that waits inside the kernel cannot be ended: it is left behind, not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=2)
        return {"error": f"no answer within {limit_s:.0f} seconds", "ended": "timeout"}
    return read_extra(stdout, stderr, child.returncode)


def read_extra(stdout: bytes, stderr: bytes, status: int) -> dict[str, Any]:
    """Return what a check said; an answer that did not come becomes an ``error`` with the last words."""
    words = reason_in(stderr.decode("utf-8", "replace"))
    answer = stdout.decode("utf-8", "replace").rpartition("@@dg-extra@@ ")[2].partition("\n")[0]
    try:
        data = json.loads(answer)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return {"error": f"ended with status {status}: {words or 'no output'}", "ended": status}
    return {**data, "words": words}


def reason_in(text: str) -> str:
    """Return why a library could not be used, out of what it printed: the loader's words, or else its last ones."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    loader, needed = re.search(r"with error: ([^\n]+)", plain), re.search(r"Require (cuDNN \S+ and CUDA [\d.*]*\*)", plain)
    if loader is None:
        return " ".join(plain.split())[-TEXT_LIMIT // 2 :]
    return shorten(loader.group(1) + (f"; it needs {needed.group(1)}" if needed else ""))


def has_package(name: str) -> bool:
    """Whether a package can be found, without importing it; a folder that an uninstalled one left behind is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def probe_rest(report: Reporter, torch: Any, extras: str, ends_at: float) -> None:
    """What is worth knowing beside the proof. ``ends_at``: when the time is over, by the monotonic clock."""
    if torch is not None:
        report.run("libraries", lambda: look_at_libraries(torch))
    report.run("processes", look_at_processes)
    for name in EXTRAS if extras else ():
        if has_package(name):
            report.run(f"extra {name}", lambda name=name: probe_extra(name, extras, ends_at - time.monotonic() - 2))  # type: ignore[misc]


def watch(report: Reporter, timeout_s: float) -> None:
    """End this process when the time is over, since nobody outside may be able to."""

    def expire() -> None:
        report.line(stage=report.stage, event="timeout", data={"seconds": timeout_s})
        os._exit(RC_TIMEOUT)

    timer = threading.Timer(timeout_s, expire)
    timer.daemon = True
    timer.start()
    # A library that hangs while it holds Python's lock stops the timer as well; the kernel's alarm needs no lock.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(timeout_s) + 3)


def main(config: str, extras: str = "") -> int:
    """Run the probe.

    ``config`` is a JSON object with gpu, timeout_s and require_torch; ``extras`` the program that checks one other
    runtime, empty when none is to be checked.
    """
    settings = json.loads(config)
    ends_at = time.monotonic() + float(settings["timeout_s"])
    report = Reporter(write_all)
    # Before any CUDA library is loaded: no JIT cache is written, and no environment variable turns TensorFloat-32 on.
    os.environ["CUDA_CACHE_DISABLE"] = "1"
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    watch(report, float(settings["timeout_s"]))
    python = report.run("python", look_at_python)
    if settings["require_torch"] and not python.get("torch_found"):
        return RC_NO_TORCH
    report.run("nodes", look_at_nodes)
    if settings["gpu"]:
        probe_driver(report)
    holder: list[Any] = []
    probe_torch(report, bool(settings["gpu"]), holder)
    report.line(stage="done", event="end", data={})
    if settings["gpu"]:
        probe_rest(report, holder[0] if holder else None, extras, ends_at)
    return 0
