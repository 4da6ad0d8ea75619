# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way the chain is known to break, each against the link and the code it must come out with."""

from __future__ import annotations

import copy
from typing import Any, Callable

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _chain, _diagnosis, _links_speed, _links_torch, _verdict
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Evidence, Expected
from ansible_collections.difyops.gpu.plugins.module_utils._probe import ProbeReport
from hypothesis import given, settings
from hypothesis import strategies as st

A10 = Expected(mode="gpu", variant="cuda12.6", cuda="12.6", torch="2.14.1")
CPU = Expected(mode="cpu", variant="cpu", torch="2.14.1")

GPU = {
    "pci_address": "0000:00:05.0",
    "bound_driver": "nvidia",
    "index": 0,
    "name": "NVIDIA A10",
    "compute_mode": "default",
    "memory_used_mib": 0,
    "health": "ok",
    "processes": [],
    "mig": {"current": False, "pending": False, "devices": []},
}


TOOLKIT = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
# An A10 as the driver API describes it: 31.2 TFLOPS in theory.
A10_DEVICE = {"name": "NVIDIA A10", "compute_capability": "8.6", "compute_mode": "default", "multiprocessors": 72, "clock_khz": 1695000}


def good_facts(gpus: int = 1) -> dict[str, Any]:
    return {
        "schema": 1,
        "host": {"secure_boot": None},
        "gpus": [{**GPU, "index": n, "pci_address": f"0000:00:{5 + n:02x}.0"} for n in range(gpus)],
        "driver": {
            "loaded": {"version": "535.247.01", "flavour": "proprietary"},
            "installed": {"version": "535.247.01"},
            "cuda_version": "12.2",
            "mismatch": False,
        },
        "nvml": {"source": "nvml", "error": None},
        "toolkit": {
            "version": "1.19.1",
            "packages": dict.fromkeys(TOOLKIT, "1.19.1-1"),
            "cdi": {"specs": [{"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": ["0", "all"]}]},
        },
        "engine": {"runtimes": ["runc"], "cdi_enabled": True},
        "warnings": [],
    }


def good_container(*devices: str) -> dict[str, Any]:
    return {
        "Id": "c0ffee",
        "Name": "/dify-gpu-image-1",
        "Image": "sha256:beef",
        "Config": {"Image": "difyops/dify-gpu:web-server-cuda12.6-v0.1.0"},
        "State": {"Status": "running", "Running": True, "Health": {"Status": "healthy"}},
        "HostConfig": {
            "Runtime": "runc",
            "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": list(devices) or ["nvidia.com/gpu=all"]}],
        },
    }


def good_stages(gpus: int = 1) -> dict[str, dict[str, Any]]:
    nodes = ["/dev/nvidiactl", "/dev/nvidia-uvm", *(f"/dev/nvidia{n}" for n in range(gpus))]
    devices = [{"index": n, **A10_DEVICE} for n in range(gpus)]
    stages: dict[str, dict[str, Any]] = {
        "python": {"executable": "/usr/bin/python3", "version": "3.12.1", "torch_found": True, "environment": {}},
        "nodes": {"nodes": [{"path": path, "present": True, "errno": None, "error": None} for path in nodes]},
        "libcuda": {"path": "/usr/lib/x86_64-linux-gnu/libcuda.so.535.247.01"},
        "cuinit": {"code": 0, "name": "CUDA_SUCCESS"},
        "devices": {"cuda_version": "12.2", "count": gpus, "devices": devices},
        "torch": {"version": "2.14.1+cu126", "cuda": "12.6", "hip": None},
        "torch_cuda": {
            "available": True,
            "warnings": [],
            "reason": None,
            "count": gpus,
            "archs": ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"],
            "devices": copy.deepcopy(devices),
        },
    }
    for n in range(gpus):
        stages[f"kernel {n}"] = {
            "index": n,
            "relative_error": 2.4e-6,
            "tolerance": 1e-4,
            "right": True,
            "device": f"cuda:{n}",
            "gpu_ms": 0.31,
            "cpu_ms": 21.0,
            "rate": {"size": 4096, "ms": 7.6, "gflops": 18083.0},
        }
    stages["libraries"] = {"libraries": [library("libcublas.so.12", 12)], "cudnn": 91900, "cudnn_error": None}
    stages["processes"] = {"seen": 2, "hidden": 0, "using": 1}
    return stages


def library(name: str, major: int) -> dict[str, Any]:
    return {"name": name.partition(".")[0][3:], "major": major, "path": f"/opt/venv/lib/python3.12/site-packages/nvidia/lib/{name}"}


def report(stages: dict[str, dict[str, Any]], **fields: Any) -> ProbeReport:
    return ProbeReport(stages=stages, **{"done": True, "rc": 0, **fields})


class Scene:
    """A host whose chain is good; each test breaks one thing."""

    def __init__(self, gpus: int = 1) -> None:
        self.expected = A10
        self.facts = good_facts(gpus)
        self.container: dict[str, Any] | None = good_container()
        self.stages = good_stages(gpus)
        self.extra: dict[str, Any] = {}
        self.probe_fields: dict[str, Any] = {}
        self.probed = True

    def judge(self) -> dict[str, Any]:
        probe = report(self.stages, **self.probe_fields) if self.probed else None
        evidence = Evidence(
            facts=self.facts, container_name="dify-gpu-image-1", container=self.container, probe=probe, **self.extra
        )
        return _verdict.judge(self.expected, evidence, duration_ms=7, checked_at="2026-11-22T14:05:00Z")

    def stop_at(self, stage: str) -> None:
        """The probe began this stage, and neither it nor a later one ended."""
        names = list(self.stages)
        for name in names[names.index(stage) :]:
            del self.stages[name]
        self.probe_fields = {"running": stage, "done": False}


def link_of(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    return next(link for link in verdict["links"] if link["link"] == name)


def statuses(verdict: dict[str, Any]) -> dict[str, str]:
    return {link["link"]: link["status"] for link in verdict["links"]}


def test_a_good_chain_is_proven() -> None:
    verdict = Scene().judge()
    assert verdict["overall"] == "proven"
    assert (verdict["code"], verdict["remedy"]) == (None, None)
    assert verdict["summary"] == "matrix product on NVIDIA A10 agrees with the CPU"
    assert set(statuses(verdict).values()) == {"ok"}
    assert verdict["expected"] == {
        "mode": "gpu",
        "variant": "cuda12.6",
        "cuda": "12.6",
        "torch": "2.14.1",
        "gpu_count": 1,
    }
    assert verdict["container"] == {
        "name": "dify-gpu-image-1",
        "id": "c0ffee",
        "image": "difyops/dify-gpu:web-server-cuda12.6-v0.1.0",
        "image_id": "sha256:beef",
    }
    assert verdict["duration_ms"] == 7
    assert link_of(verdict, "pci")["seen"] == "1 (NVIDIA A10 at 0000:00:05.0)"


def test_the_document_has_every_key_and_all_eleven_links_in_order() -> None:
    verdict = Scene().judge()
    assert list(verdict) == [
        "schema",
        "overall",
        "summary",
        "code",
        "remedy",
        "expected",
        "container",
        "links",
        "extras",
        "warnings",
        "checked_at",
        "duration_ms",
    ]
    assert (verdict["extras"], verdict["warnings"], verdict["checked_at"]) == ([], [], "2026-11-22T14:05:00Z")
    names = ["pci", "bound", "driver", "nvml", "toolkit", "engine", "device", "cuda", "torch", "kernel", "speed"]
    assert [link["link"] for link in verdict["links"]] == names
    for link in verdict["links"]:
        assert list(link) == ["link", "status", "expected", "seen", "code", "remedy"]


def test_a_wrong_image_on_driver_470_is_a_driver_too_old() -> None:
    """cuInit works, PyTorch of CUDA 12.6 silently falls back: the case this project exists for."""
    scene = Scene()
    scene.facts["driver"].update(
        loaded={"version": "470.256.02", "flavour": "proprietary"}, cuda_version="11.4", installed=None
    )
    scene.stages["devices"]["cuda_version"] = "11.4"
    scene.stages["torch_cuda"] = {"available": False, "count": 0, "archs": [], "devices": [], "warnings": []}
    del scene.stages["kernel 0"]
    verdict = scene.judge()
    assert verdict["overall"] == "failed"
    assert verdict["code"] == "DG404"
    assert [name for name, status in statuses(verdict).items() if status == "failed"] == ["torch"]
    assert "CUDA 11.8, the highest that driver 470.256.02 serves" in verdict["remedy"]
    assert "525.60.13 for CUDA 12.6" in verdict["remedy"]
    assert statuses(verdict)["kernel"] == "skipped"


def test_a_wrong_image_is_named_even_while_it_is_unhealthy() -> None:
    scene = Scene()
    scene.stages["devices"]["cuda_version"] = "11.4"
    scene.stages["torch_cuda"] = {"available": False}
    del scene.stages["kernel 0"]
    assert scene.container is not None
    scene.container["State"]["Health"]["Status"] = "unhealthy"
    assert scene.judge()["code"] == "DG404"


# Each: what is broken, how, and the one link, code and overall that must follow.
def _gpus(*drivers: str | None) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.facts["gpus"] = [{**GPU, "bound_driver": driver} for driver in drivers]

    return change


def _fact(*path: str, value: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        place = scene.facts
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def _stage(name: str, **fields: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.stages[name].update(fields)

    return change


def _only(stage: str, **fields: Any) -> Callable[[Scene], None]:
    """This stage says so, and nothing after it was reached except PyTorch's import."""

    def change(scene: Scene) -> None:
        scene.stages[stage] = fields
        later = list(scene.stages)
        for other in later[later.index(stage) + 1 :]:
            if other.startswith("kernel") or other in ("cuinit", "devices"):
                del scene.stages[other]
        if "torch_cuda" in scene.stages:
            scene.stages["torch_cuda"] = {"available": False, "reason": "RuntimeError: no", "warnings": []}

    return change


def _node(path: str, **fields: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        for node in scene.stages["nodes"]["nodes"]:
            if node["path"] == path:
                node.update(fields)
        _only("cuinit", code=100, name="CUDA_ERROR_NO_DEVICE")(scene)

    return change


def _kernel(kind: str, **fields: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.stages["kernel 0"] = {"index": 0, "error": "RuntimeError: CUDA error", "kind": kind, **fields}

    return change


def _mode(mode: str, then: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.stages["devices"]["devices"][0]["compute_mode"] = mode
        then(scene)

    return change


def _state(**fields: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        assert scene.container is not None
        scene.container["State"].update(fields)
        if fields.get("Running") is False:
            scene.probed = False

    return change


def _no_container(scene: Scene) -> None:
    scene.container, scene.probed = None, False


def _engine_down(scene: Scene) -> None:
    _no_container(scene)
    scene.extra["engine_error"] = "The container engine does not answer: connection refused."


def _exec_refused(scene: Scene) -> None:
    scene.probed = False
    scene.extra["exec_error"] = "The container engine refused: no space left on device."


def _silent(rc: int | None, **fields: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.stages = {}
        scene.probe_fields = {"done": False, "rc": rc, **fields}

    return change


def _stopped(stage: str, **fields: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.stop_at(stage)
        scene.probe_fields.update(fields)

    return change


def _requests(*requests: Any, **host: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        assert scene.container is not None
        scene.container["HostConfig"] = {"Runtime": "runc", "DeviceRequests": list(requests), **host}

    return change


def _no_toolkit(scene: Scene) -> None:
    scene.facts["toolkit"].update(version=None, packages=dict.fromkeys(TOOLKIT), cdi={"specs": []})


def _spec(**fields: Any) -> Callable[[Scene], None]:
    """The only specification is so, and the container asks for a device that it does not describe."""

    def change(scene: Scene) -> None:
        scene.facts["toolkit"]["cdi"]["specs"][0].update(fields)
        scene.container = good_container("nvidia.com/gpu=0:0")

    return change


def _no_way_to_a_gpu(scene: Scene) -> None:
    _no_container(scene)
    _no_toolkit(scene)
    scene.facts["engine"]["cdi_enabled"] = False


def _broken_daemon_json(scene: Scene) -> None:
    _engine_down(scene)
    scene.facts["engine"]["daemon_config"] = {"path": "/etc/docker/daemon.json", "error": "line 3: not valid JSON."}


def _mig(devices: list[Any], then: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.facts["gpus"][0]["mig"] = {"current": True, "pending": True, "devices": devices}
        then(scene)

    return change


def _both(*changes: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        for each in changes:
            each(scene)

    return change


def _foreign(*libraries: dict[str, Any]) -> Callable[[Scene], None]:
    return _stage("libraries", libraries=list(libraries))


def _without_gpu(change: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """So it is, and CUDA in the container finds no GPU."""
    return _both(change, _only("cuinit", code=100, name="CUDA_ERROR_NO_DEVICE"))


TIMEOUT = {"code": None, "name": "TIMEOUT", "message": "no answer"}
MISMATCH = {"code": 18, "name": "NVML_ERROR_LIB_RM_VERSION_MISMATCH"}
CASES: list[tuple[str, Callable[[Scene], None], str, str, str]] = [
    ("no GPU", _gpus(), "pci", "DG101", "failed"),
    ("nouveau", _gpus("nouveau"), "bound", "DG103", "failed"),
    ("nova", _gpus("nova_core"), "bound", "DG103", "failed"),
    ("vfio", _gpus("vfio-pci"), "bound", "DG104", "failed"),
    ("refused by the driver", _gpus(None), "bound", "DG105", "failed"),
    ("nvml code", _fact("nvml", value={"source": "sysfs", "error": {"code": 15, "name": "LOST"}}), "nvml", "DG108", "failed"),
    ("nvml hangs", _fact("nvml", value={"source": "sysfs", "error": TIMEOUT}), "nvml", "DG109", "failed"),
    ("no nvml", _fact("nvml", value={"source": "sysfs", "error": None}), "nvml", "DG110", "unproven"),
    ("no library", _fact("nvml", value={"source": "sysfs", "error": {"code": 12}}), "nvml", "DG110", "unproven"),
    ("mismatch 18", _fact("nvml", value={"source": "sysfs", "error": MISMATCH}), "driver", "DG107", "failed"),
    ("mismatch fact", _fact("driver", "mismatch", value=True), "driver", "DG107", "failed"),
    ("lost", _fact("gpus", value=[{**GPU, "health": "lost"}]), "nvml", "DG111", "failed"),
    ("reset", _fact("gpus", value=[{**GPU, "health": "reset_required"}]), "nvml", "DG112", "failed"),
    ("engine down", _engine_down, "engine", "DG201", "failed"),
    ("cdi off", _without_gpu(_fact("engine", "cdi_enabled", value=False)), "toolkit", "DG202", "failed"),
    ("no spec", _without_gpu(_fact("toolkit", "cdi", "specs", value=[])), "toolkit", "DG203", "failed"),
    ("no spec, no toolkit", _without_gpu(_no_toolkit), "toolkit", "DG212", "failed"),
    ("stale spec", _without_gpu(_spec(stale=True, reasons=["there is a MIG device now"])), "toolkit", "DG214", "failed"),
    ("unreadable spec", _without_gpu(_spec(error="not valid YAML")), "toolkit", "DG215", "failed"),
    ("engine down for its file", _broken_daemon_json, "engine", "DG216", "failed"),
    ("no way to a GPU", _no_way_to_a_gpu, "toolkit", "DG217", "failed"),
    ("no container", _no_container, "engine", "DG204", "failed"),
    ("ended", _state(Status="exited", Running=False, ExitCode=1), "engine", "DG205", "failed"),
    ("restarting", _state(Status="restarting", Running=True), "engine", "DG205", "failed"),
    ("unhealthy", _state(Health={"Status": "unhealthy"}), "engine", "DG206", "failed"),
    ("starting", _state(Health={"Status": "starting"}), "engine", "DG207", "failed"),
    ("no python", _silent(127), "device", "DG208", "unproven"),
    ("python crashes", _silent(1, last_words="Fatal Python error"), "device", "DG209", "unproven"),
    ("exec refused", _exec_refused, "engine", "DG209", "unproven"),
    ("never began", _silent(None, timed_out=True), "device", "DG506", "unproven"),
    ("no gpu asked for", _without_gpu(_requests()), "toolkit", "DG210", "failed"),
    ("runtime unknown", _without_gpu(_requests(Runtime="nvidia")), "toolkit", "DG211", "failed"),
    ("node missing", _node("/dev/nvidia0", present=False), "device", "DG301", "failed"),
    ("revoked", _node("/dev/nvidiactl", errno="EPERM", error="no"), "device", "DG302", "failed"),
    ("mode", _node("/dev/nvidia0", errno="EACCES", error="no"), "device", "DG303", "failed"),
    ("dead node", _node("/dev/nvidia0", errno="ENXIO", error="no"), "device", "DG303", "failed"),
    ("no libcuda", _only("libcuda", error="no such file", missing=True), "cuda", "DG304", "failed"),
    ("bad libcuda", _only("libcuda", error="wrong ELF class", missing=False), "cuda", "DG305", "failed"),
    ("cuInit 3", _only("cuinit", code=3, name="CUDA_ERROR_NOT_INITIALIZED"), "cuda", "DG310", "failed"),
    ("cuInit raises", _only("cuinit", error="AttributeError: cuInit"), "cuda", "DG310", "failed"),
    ("cuInit 100", _only("cuinit", code=100, name=None), "cuda", "DG311", "failed"),
    ("cuInit 803", _only("cuinit", code=803, name=None), "cuda", "DG312", "failed"),
    ("cuInit 804", _only("cuinit", code=804, name=None), "cuda", "DG313", "failed"),
    ("cuInit 999", _only("cuinit", code=999, name=None), "cuda", "DG314", "failed"),
    ("cuInit 802", _only("cuinit", code=802, name=None), "cuda", "DG315", "failed"),
    ("cuInit 34", _only("cuinit", code=34, name=None), "cuda", "DG316", "failed"),
    ("MIG without devices", _mig([], _only("cuinit", code=100, name=None)), "cuda", "DG317", "failed"),
    ("MIG devices not given", _mig([{"index": 0}], _only("cuinit", code=100, name=None)), "cuda", "DG317", "failed"),
    ("MIG and no GPU", _mig([], _only("devices", cuda_version="12.2", count=0, devices=[])), "cuda", "DG317", "failed"),
    ("no devices", _only("devices", cuda_version="12.2", count=0, devices=[]), "cuda", "DG320", "failed"),
    ("import fails", _stage("torch", error="ImportError: libgomp.so.1: cannot open shared object file"), "torch", "DG402", "failed"),
    ("no cudart", _stage("torch", error="ImportError: libcudart.so.12: cannot open shared object file"), "torch", "DG414", "failed"),
    ("other cublas", _stage("torch", error="OSError: /x/libcublas.so.12: undefined symbol: cublasLtX"), "torch", "DG414", "failed"),
    (
        "mixed, unavailable",
        _both(_only("torch_cuda", available=False, reason="RuntimeError: x", warnings=[]), _foreign(library("libcudart.so.11.0", 11))),
        "torch",
        "DG414",
        "failed",
    ),
    ("mixed, kernel fails", _both(_kernel("error"), _foreign(library("libcublas.so.11", 11))), "kernel", "DG414", "failed"),
    ("cpu build", _stage("torch", cuda=None), "torch", "DG403", "failed"),
    ("rocm build", _stage("torch", cuda=None, hip="6.2"), "torch", "DG403", "failed"),
    ("unavailable", _only("torch_cuda", available=False, reason="RuntimeError: x", warnings=[]), "torch", "DG405", "failed"),
    ("no code", _stage("torch_cuda", archs=["sm_90", "compute_90"]), "torch", "DG406", "failed"),
    ("other cuda", _stage("torch", cuda="12.4"), "torch", "DG407", "failed"),
    ("other torch", _stage("torch", version="2.7.1+cu126"), "torch", "DG407", "failed"),
    ("fewer", _stage("torch_cuda", count=0), "torch", "DG409", "failed"),
    ("launch", _kernel("error"), "kernel", "DG501", "failed"),
    ("wrong result", _stage("kernel 0", right=False, relative_error=0.7), "kernel", "DG502", "failed"),
    ("not a number", _stage("kernel 0", right=False, relative_error="nan"), "kernel", "DG502", "failed"),
    ("silently on the CPU", _stage("kernel 0", device="cpu"), "kernel", "DG511", "failed"),
    ("memory", _kernel("memory", memory_free_mib=12), "kernel", "DG503", "unproven"),
    ("exclusive", _mode("exclusive_process", _kernel("busy")), "kernel", "DG504", "unproven"),
    ("prohibited", _mode("prohibited", _kernel("busy")), "kernel", "DG505", "failed"),
    ("busy for no reason", _kernel("busy"), "kernel", "DG501", "failed"),
    ("no image", _kernel("no_code"), "kernel", "DG406", "failed"),
    ("ptx", _kernel("ptx"), "kernel", "DG509", "failed"),
    ("nodes hang", _stopped("nodes", timed_out=True), "device", "DG506", "failed"),
    ("cuInit hangs", _stopped("cuinit", timed_out=True), "cuda", "DG506", "failed"),
    ("kernel hangs", _stopped("kernel 0", timed_out=True), "kernel", "DG506", "failed"),
    ("import too slow", _stopped("torch", timed_out=True), "torch", "DG506", "unproven"),
    ("killed", _stopped("torch", rc=137), "torch", "DG507", "failed"),
    ("crashed", _stopped("cuinit", rc=139, last_words="Segmentation fault"), "cuda", "DG507", "failed"),
]


@pytest.mark.parametrize(("change", "link", "code", "overall"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_what_is_broken_is_found_at_its_link(change: Callable[[Scene], None], link: str, code: str, overall: str) -> None:
    scene = Scene()
    change(scene)
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == (overall, code)
    found = link_of(verdict, link)
    assert found["code"] == code
    assert found["status"] == ("failed" if overall == "failed" else "skipped")
    assert verdict["remedy"] == found["remedy"]
    assert found["remedy"]
    for text in (found["remedy"], verdict["summary"], found["seen"]):
        assert "\n" not in text
    assert "<" not in found["remedy"], "a value of the remedy was not filled in"
    assert _diagnosis.DIAGNOSES[code].title in verdict["summary"]


def _facts_warn(code: str) -> Callable[[Scene], None]:
    return _fact("warnings", value=[{"code": code, "message": "as the facts say"}])


def _extra(name: str, **data: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.stages[f"extra {name}"] = data

    return change


def _settled(change: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def both(scene: Scene) -> None:
        scene.extra["settled"] = True
        change(scene)

    return both


GPU_AND_CPU = ["CUDAExecutionProvider", "CPUExecutionProvider"]
# Each: what is so, and the one warning that must follow from it. The host stays proven.
WARNED: list[tuple[str, Callable[[Scene], None], str]] = [
    *((f"facts {code}", _facts_warn(code), code) for code in ("DG113", "DG115", "DG117", "DG118", "DG119", "DG120", "DG121", "DG122")),
    *((f"facts {code}", _facts_warn(code), code) for code in ("DG212", "DG215", "DG216", "DG218")),
    ("unsafe toolkit", _fact("toolkit", "version", value="1.17.4"), "DG213"),
    ("stale and still working", lambda scene: scene.facts["toolkit"]["cdi"]["specs"][0].update(stale=True), "DG214"),
    ("cdi off, and still working", _fact("engine", "cdi_enabled", value=False), "DG202"),
    ("no spec, and still working", _fact("toolkit", "cdi", "specs", value=[]), "DG203"),
    ("given in another way", _requests(), "DG210"),
    ("runtime gone, and still working", _requests(Runtime="nvidia"), "DG211"),
    ("toolkit gone, and still working", _no_toolkit, "DG212"),
    ("spec unreadable, and still working", _spec(error="not valid YAML"), "DG215"),
    ("slower than the CPU", _stage("kernel 0", gpu_ms=40.0, cpu_ms=20.0), "DG601"),
    ("far below its class", _stage("kernel 0", rate={"gflops": 3100.0}), "DG602"),
    ("no provider", _extra("onnxruntime", version="1.32.0", providers=["CPUExecutionProvider"]), "DG410"),
    ("fell back", _extra("onnxruntime", version="1.31.1", providers=GPU_AND_CPU, used=["CPUExecutionProvider"]), "DG411"),
    ("placed on the CPU", _extra("onnxruntime", providers=GPU_AND_CPU, used=GPU_AND_CPU, refused="Fail: assigned to the CPU EP"), "DG411"),
    ("no import", _extra("onnxruntime", error="ImportError: numpy"), "DG413"),
    ("crashed", _extra("onnxruntime", error="ended with status -11: no output", ended=-11), "DG413"),
    ("wrong product", _extra("onnxruntime", providers=GPU_AND_CPU, used=GPU_AND_CPU, right=False), "DG413"),
    ("no builder", _extra("tensorrt", version="10.9", runtime=True, error="TypeError: nullptr"), "DG412"),
    ("mixed and right", _foreign(library("libcublas.so.12", 12), library("libcublas.so.11", 11)), "DG414"),
    ("other cuDNN", _stage("libraries", cudnn_error="RuntimeError: cuDNN version incompatibility"), "DG414"),
    ("service without GPU", _settled(_stage("processes", using=0)), "DG512"),
]


@pytest.mark.parametrize(("change", "code"), [case[1:] for case in WARNED], ids=[case[0] for case in WARNED])
def test_what_should_be_known_is_a_warning_and_decides_nothing(change: Callable[[Scene], None], code: str) -> None:
    scene = Scene()
    change(scene)
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("proven", None)
    assert [warning["code"] for warning in verdict["warnings"]] == [code]
    assert verdict["warnings"][0]["message"].endswith((".", "incompatibility", "say"))
    for extra in verdict["extras"]:
        assert list(extra) == ["name", "version", "status", "expected", "seen", "code", "remedy"]
        assert (extra["status"], extra["code"]) == ("failed", code)
        assert extra["remedy"] and "<" not in extra["remedy"]


def test_every_code_of_the_table_can_come_out() -> None:
    """A code that nothing can produce is a promise that nobody keeps."""
    of_the_facts_only = {"DG114", "DG116"}
    elsewhere = {"DG102", "DG106", "DG401", "DG404", "DG408", "DG508", "DG510"}  # tests of their own in this file
    assert {case[3] for case in CASES} | {case[2] for case in WARNED} | elsewhere | of_the_facts_only == set(_diagnosis.DIAGNOSES)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory", "DG414"),
        ("OSError: libcublas.so.11: cannot open shared object file: No such file or directory", "DG414"),
        ("ImportError: /x/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12", "DG414"),
        ("ImportError: /x/torch/lib/libtorch_cuda.so: undefined symbol: ncclCommRegister", "DG414"),
        ("OSError: /x/libcudnn.so.9: version `libcudnn.so.9' not found", "DG414"),
        ("ImportError: libcurl.so.4: cannot open shared object file: No such file or directory", "DG402"),
        ("OSError: /x/_C.so: undefined symbol: _ZN3c106detail14torchCheckFailEPKcS2_jRKSs", "DG402"),
        ("ModuleNotFoundError: No module named 'numpy'", "DG402"),
        ("OSError: libc10.so: undefined symbol: currentStream", "DG402"),
    ],
)
def test_an_import_that_lacks_a_cuda_library_is_told_from_other_failures(error: str, code: str) -> None:
    scene = Scene()
    scene.stages["torch"]["error"] = error
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("failed", code)
    assert error in verdict["remedy"]


def test_driver_not_loaded_says_what_to_do_about_it() -> None:
    scene = Scene()
    scene.facts["gpus"] = [{**GPU, "bound_driver": None}]
    scene.facts["driver"].update(loaded=None, installed=None)
    verdict = scene.judge()
    assert verdict["code"] == "DG106"
    assert "install NVIDIA's driver" in verdict["remedy"]
    scene.facts["driver"]["installed"] = {"version": "535.247.01"}
    assert "modprobe nvidia (driver 535.247.01 is installed)" in scene.judge()["remedy"]
    scene.facts["host"]["secure_boot"] = True
    assert "Secure Boot is on" in scene.judge()["remedy"]
    scene.facts["gpus"] = [GPU]
    assert scene.judge()["code"] == "DG106"


def test_fewer_gpus_on_the_bus_than_expected() -> None:
    scene = Scene()
    scene.expected = Expected(mode="gpu", gpu_count=2)
    verdict = scene.judge()
    assert verdict["code"] == "DG102"
    assert link_of(verdict, "bound")["status"] == "skipped"


def test_a_gpu_left_to_a_virtual_machine_is_not_expected_in_the_container() -> None:
    scene = Scene()
    scene.facts["gpus"].append({**GPU, "bound_driver": "vfio-pci", "index": None})
    verdict = scene.judge()
    assert verdict["overall"] == "proven"
    assert link_of(verdict, "bound")["seen"] == "nvidia, vfio-pci"


def test_all_bound_gpus_are_expected_when_the_container_asks_for_all() -> None:
    scene = Scene(gpus=2)
    assert scene.judge()["expected"]["gpu_count"] == 2
    assert scene.judge()["summary"] == "matrix product on 2 x NVIDIA A10 agrees with the CPU"
    scene.stages["devices"]["count"] = 1
    assert scene.judge()["code"] == "DG320"


def test_only_the_gpus_that_the_container_names_are_expected() -> None:
    scene = Scene(gpus=1)
    scene.facts = good_facts(gpus=4)
    scene.container = good_container("nvidia.com/gpu=0")
    verdict = scene.judge()
    assert (verdict["overall"], verdict["expected"]["gpu_count"]) == ("proven", 1)
    scene.container = good_container("nvidia.com/gpu=7")
    _only("cuinit", code=100, name=None)(scene)
    assert scene.judge()["code"] == "DG203"


def test_mig_counts_as_one() -> None:
    scene = Scene(gpus=1)
    scene.facts = good_facts(gpus=4)
    scene.facts["gpus"][0]["mig"] = {"current": True}
    assert scene.judge()["overall"] == "proven"


def test_one_broken_gpu_of_two_is_not_proven() -> None:
    scene = Scene(gpus=2)
    scene.stages["kernel 1"] = {"index": 1, "error": "OutOfMemoryError: x", "kind": "memory", "memory_free_mib": 3}
    assert scene.judge()["overall"] == "unproven"
    scene.stages["kernel 0"]["right"] = False
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG502")


def test_no_torch_in_any_interpreter() -> None:
    scene = Scene()
    scene.stages["python"]["torch_found"] = False
    scene.stages["torch"] = {"error": "ModuleNotFoundError: No module named 'torch'"}
    for name in ("torch_cuda", "kernel 0"):
        del scene.stages[name]
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG401")


@pytest.mark.parametrize(
    "host_config",
    [
        {"Runtime": "nvidia"},
        {"DeviceRequests": [{"Driver": "nvidia", "Capabilities": [["gpu"]]}]},
        {"DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]], "Count": -1}]},
    ],
)
def test_the_nvidia_runtime_is_a_way_to_a_gpu_too(host_config: dict[str, Any]) -> None:
    scene = Scene()
    assert scene.container is not None
    scene.container["HostConfig"] = host_config
    scene.facts["engine"]["runtimes"] = ["nvidia", "runc"]
    scene.facts["toolkit"]["cdi"]["specs"] = []
    assert scene.judge()["overall"] == "proven"


@pytest.mark.parametrize(
    "host_config", [{"Privileged": True}, {"Devices": [{"PathOnHost": "/dev/nvidia0"}]}], ids=["privileged", "by hand"]
)
def test_device_files_given_without_a_toolkit(host_config: dict[str, Any]) -> None:
    scene = Scene()
    assert scene.container is not None
    scene.container["HostConfig"] = host_config
    verdict = scene.judge()
    assert verdict["overall"] == "proven"
    assert "no toolkit involved" in link_of(verdict, "toolkit")["seen"]


def test_a_missing_device_file_that_cuda_does_not_need_is_no_fault() -> None:
    scene = Scene()
    scene.stages["nodes"]["nodes"][1]["present"] = False
    assert scene.judge()["overall"] == "proven"


def test_a_spec_in_error_does_not_count() -> None:
    scene = Scene()
    _without_gpu(_fact("toolkit", "cdi", "specs", value=[{"path": "/etc/cdi/nvidia.yaml", "error": "not readable"}]))(scene)
    verdict = scene.judge()
    assert verdict["code"] == "DG215"
    assert "/etc/cdi/nvidia.yaml cannot be read: not readable" in verdict["summary"]


def test_without_a_health_check_a_running_container_is_enough() -> None:
    scene = Scene()
    assert scene.container is not None
    del scene.container["State"]["Health"]
    verdict = scene.judge()
    assert verdict["overall"] == "proven"
    assert "no health check" in link_of(verdict, "engine")["seen"]


def test_health_can_be_left_out() -> None:
    scene = Scene()
    scene.extra["health_wanted"] = False
    assert scene.container is not None
    scene.container["State"]["Health"]["Status"] = "unhealthy"
    assert scene.judge()["overall"] == "proven"


def test_a_slow_gpu_is_still_proven_but_named() -> None:
    scene = Scene()
    scene.stages["kernel 0"].update(gpu_ms=40.0, cpu_ms=20.0)
    verdict = scene.judge()
    assert verdict["overall"] == "proven"
    assert link_of(verdict, "speed")["status"] == "failed"
    assert link_of(verdict, "speed")["code"] == "DG601"
    assert verdict["code"] is None


def test_speed_is_judged_on_an_idle_gpu_only() -> None:
    scene = Scene()
    scene.stages["kernel 0"].update(gpu_ms=40.0, cpu_ms=20.0)
    scene.facts["gpus"][0]["processes"] = [{"pid": 1, "container": None}, {"pid": 2, "container": {"id": "c0ffee"}}]
    verdict = scene.judge()
    link = link_of(verdict, "speed")
    assert (link["status"], link["code"], verdict["warnings"]) == ("skipped", None, [])
    times, rate = "40 ms against 20 ms on the CPU (0.5 times as fast)", "18.1 TFLOPS, 58% of the theoretical 31.2"
    assert link["seen"].startswith(f"GPU 0: {times}, {rate}; not judged")
    assert link["seen"].endswith("because 2 processes used the GPU")
    scene.facts["gpus"][0]["processes"] = []
    assert link_of(scene.judge(), "speed")["code"] == "DG601"


def test_a_service_under_load_is_not_called_slow() -> None:
    scene = Scene()
    scene.stages["kernel 0"]["rate"] = {"gflops": 12.0}
    scene.facts["gpus"][0]["processes"] = [{"pid": 2, "container": {"id": "c0ff"}}]  # its own process
    verdict = scene.judge()
    assert (link_of(verdict, "speed")["status"], verdict["warnings"]) == ("skipped", [])
    assert "because 1 process used the GPU" in link_of(verdict, "speed")["seen"]


@pytest.mark.parametrize("processes", [None, "nobody knows"])
def test_speed_is_not_judged_where_nobody_knows_what_else_runs(processes: Any) -> None:
    scene = Scene()
    scene.stages["kernel 0"]["rate"] = {"gflops": 12.0}
    scene.facts["gpus"][0]["processes"] = processes
    link = link_of(scene.judge(), "speed")
    assert (link["status"], link["code"]) == ("skipped", None)
    assert "the host does not say what else runs on it" in link["seen"]


@pytest.mark.parametrize(
    ("device", "rate", "status"),
    [
        ({}, {"gflops": 3125.0}, "ok"),  # a tenth is enough
        ({}, {"gflops": 3123.0}, "failed"),
        ({}, {"error": "OutOfMemoryError: x"}, "ok"),
        ({}, None, "ok"),
        ({"clock_khz": 0}, {"gflops": 1.0}, "ok"),  # what is not known is not judged
        ({"multiprocessors": None}, {"gflops": 1.0}, "ok"),
        ({"compute_capability": "13.0"}, {"gflops": 1.0}, "ok"),
        ({"compute_capability": None}, {"gflops": 1.0}, "ok"),
        ({}, {"gflops": float("nan")}, "ok"),
    ],
)
def test_the_rate_is_compared_with_the_class(device: dict[str, Any], rate: Any, status: str) -> None:
    scene = Scene()
    scene.stages["devices"]["devices"][0].update(device)
    scene.stages["kernel 0"]["rate"] = rate
    verdict = scene.judge()
    assert (verdict["overall"], link_of(verdict, "speed")["status"]) == ("proven", status)


@pytest.mark.parametrize(
    ("capability", "multiprocessors", "clock_khz", "tflops"),
    [
        # Multiprocessors, boost clock and FP32 rate as in NVIDIA's data sheets.
        ("6.1", 20, 1480000, 7.6),  # Tesla P4: 5.5 at its base clock
        ("7.0", 80, 1530000, 15.7),  # Tesla V100 SXM2
        ("7.5", 40, 1590000, 8.1),  # T4
        ("8.0", 108, 1410000, 19.5),  # A100
        ("8.6", 72, 1695000, 31.2),  # A10
        ("8.9", 142, 2520000, 91.6),  # L40S
        ("9.0", 132, 1980000, 66.9),  # H100 SXM
    ],
)
def test_the_theoretical_rate_is_that_of_the_data_sheet(capability: str, multiprocessors: int, clock_khz: int, tflops: float) -> None:
    device = {"compute_capability": capability, "multiprocessors": multiprocessors, "clock_khz": clock_khz}
    assert _links_speed.peak_gflops(device) == pytest.approx(tflops * 1000, rel=0.01)


def test_the_gpu_of_a_container_is_found_on_the_host_by_its_uuid() -> None:
    """Device 0 of the container is GPU 1 of the host, and it is GPU 0 that somebody else uses."""
    scene = Scene()
    scene.facts = good_facts(gpus=2)
    scene.container = good_container("nvidia.com/gpu=1")
    scene.facts["toolkit"]["cdi"]["specs"][0]["devices"] = ["0", "1", "all"]
    scene.facts["gpus"][0].update(uuid="GPU-aaaa", processes=[{"pid": 1}])
    scene.facts["gpus"][1].update(uuid="GPU-bbbb")
    scene.stages["devices"]["devices"][0]["uuid"] = "GPU-bbbb"
    scene.stages["kernel 0"]["rate"] = {"gflops": 12.0}
    assert link_of(scene.judge(), "speed")["code"] == "DG602"
    scene.stages["devices"]["devices"][0]["uuid"] = "GPU-aaaa"
    assert link_of(scene.judge(), "speed")["code"] is None
    scene.facts["gpus"][0]["mig"]["devices"] = [{"uuid": "MIG-cccc"}]
    scene.stages["devices"]["devices"][0]["uuid"] = "GPU-cccc"  # what the driver API puts before the digits of an instance
    assert link_of(scene.judge(), "speed")["code"] is None
    scene.stages["devices"]["devices"][0]["uuid"] = "GPU-dddd"
    assert "does not say" in link_of(scene.judge(), "speed")["seen"]


FABRIC = {"installed": True, "version": "535.247.01", "running": True, "matches_driver": True, "needed": True}


@pytest.mark.parametrize(
    ("manager", "fabric", "seen", "remedy"),
    [
        ({**FABRIC, "installed": False}, None, "is not installed", "install nvidia-fabricmanager in version 535.247.01"),
        ({**FABRIC, "version": "5.1", "matches_driver": False}, None, "manager 5.1 beside driver 535.247.01", "to version 535.247.01"),
        ({**FABRIC, "running": False}, None, "is not running", "systemctl enable --now nvidia-fabricmanager"),
        (FABRIC, {"state": "in_progress", "status": 0}, "still being set up", "wait a minute"),
        (FABRIC, {"state": "completed", "status": 0}, "do not say why", "nvidia-smi -q"),
        (None, None, "do not say why", "nvidia-fabricmanager 535.247.01"),
    ],
)
def test_cuinit_802_says_what_is_wrong_with_the_fabric_manager(manager: Any, fabric: Any, seen: str, remedy: str) -> None:
    scene = Scene()
    scene.facts["driver"]["fabric_manager"] = manager
    scene.facts["gpus"][0]["fabric"] = fabric
    _only("cuinit", code=802, name="CUDA_ERROR_SYSTEM_NOT_READY")(scene)
    verdict = scene.judge()
    assert verdict["code"] == "DG315"
    assert seen in verdict["summary"]
    assert remedy in verdict["remedy"]


@pytest.mark.parametrize(("devices", "action"), [([], "make MIG devices"), ([{"index": 0}], "give the container a MIG device")])
def test_mig_says_whether_devices_are_missing_or_not_given(devices: list[Any], action: str) -> None:
    scene = Scene()
    _mig(devices, _only("cuinit", code=100, name=None))(scene)
    assert action in scene.judge()["remedy"]


@pytest.mark.parametrize(("value", "words"), [("", "is empty"), ("-1", "is -1")])
def test_hidden_gpus_are_named_by_the_variable_that_hides_them(value: str, words: str) -> None:
    scene = Scene()
    scene.stages["python"]["environment"] = {"CUDA_VISIBLE_DEVICES": value}
    _mig([], _only("cuinit", code=100, name=None))(scene)
    verdict = scene.judge()
    assert verdict["code"] == "DG311"
    assert f"CUDA_VISIBLE_DEVICES {words}" in verdict["summary"]


def test_a_toolkit_nobody_could_look_for_is_not_called_missing() -> None:
    scene = Scene()
    _without_gpu(_no_toolkit)(scene)
    scene.facts["warnings"] = [{"code": "DG114", "message": "dpkg-query failed"}]
    assert scene.judge()["code"] == "DG203"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (_extra("onnxruntime", version="1.31.1", providers=GPU_AND_CPU, used=GPU_AND_CPU, right=True, words="a warning"), "ok"),
        (_extra("onnxruntime", providers=GPU_AND_CPU, used=GPU_AND_CPU, right=True, with_torch=True), "ok"),
        (_extra("onnxruntime", skipped="no time was left for it"), "skipped"),
        (_extra("onnxruntime", error="RuntimeException: CUDA failure 2: out of memory"), "skipped"),
        (_extra("tensorrt", version="10.9", runtime=True, builder=True), "ok"),
        (_extra("tensorrt", version="10.9", error="RuntimeError: CUDA-capable device(s) is/are busy or unavailable"), "skipped"),
    ],
)
def test_other_runtimes_that_are_well_or_could_not_be_tested_warn_of_nothing(change: Callable[[Scene], None], status: str) -> None:
    scene = Scene()
    change(scene)
    verdict = scene.judge()
    assert [(extra["status"], extra["code"], extra["remedy"]) for extra in verdict["extras"]] == [(status, None, None)]
    assert (verdict["warnings"], verdict["overall"]) == ([], "proven")


def test_a_runtime_that_needs_pytorch_first_says_so() -> None:
    scene = Scene()
    _extra("onnxruntime", providers=GPU_AND_CPU, used=GPU_AND_CPU, right=True, with_torch=True)(scene)
    assert "only after PyTorch was imported" in scene.judge()["extras"][0]["seen"]


def test_a_fallback_of_onnx_runtime_says_what_the_loader_said() -> None:
    scene = Scene()
    words = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    _extra("onnxruntime", version="1.31.1", providers=GPU_AND_CPU, used=["CPUExecutionProvider"], words=words)(scene)
    extra = scene.judge()["extras"][0]
    assert words in extra["seen"] and words in extra["remedy"]


def test_a_broken_chain_keeps_its_code_and_the_other_runtimes_add_none() -> None:
    scene = Scene()
    scene.stages["kernel 0"]["right"] = False
    _extra("onnxruntime", error="ImportError: x")(scene)
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG502")
    assert [warning["code"] for warning in verdict["warnings"]] == ["DG413"]


@pytest.mark.parametrize(
    ("settled", "processes"),
    [
        (False, {"seen": 2, "hidden": 0, "using": 0}),  # it may not have begun yet
        (True, {"seen": 2, "hidden": 1, "using": 0}),  # it may be the hidden one
        (True, {"seen": 0, "hidden": 0, "using": 0}),
        (True, {"error": "PermissionError: x"}),
        (True, {}),
    ],
)
def test_a_service_is_not_accused_on_a_guess(settled: bool, processes: dict[str, Any]) -> None:
    scene = Scene()
    scene.extra["settled"] = settled
    scene.stages["processes"] = processes
    assert scene.judge()["warnings"] == []


def test_a_warning_that_a_link_has_already_is_not_repeated() -> None:
    scene = Scene()
    _without_gpu(_spec(stale=True, reasons=["x"]))(scene)
    verdict = scene.judge()
    assert verdict["code"] == "DG214"
    assert verdict["warnings"] == []


def test_the_facts_say_it_better_when_they_say_it() -> None:
    scene = Scene()
    scene.facts["toolkit"]["cdi"]["specs"][0]["stale"] = True
    scene.facts["warnings"] = [{"code": "DG214", "message": "/etc/cdi/nvidia.yaml names driver 470."}, {"code": "DG104", "message": "vfio"}]
    assert scene.judge()["warnings"] == [{"code": "DG214", "message": "/etc/cdi/nvidia.yaml names driver 470."}]


@pytest.mark.parametrize("runtimes", [["runc"], ["nvidia", "runc"]])
@pytest.mark.parametrize("request_", [{"Driver": "", "Count": -1}, {"Driver": "nvidia", "DeviceIDs": ["0"]}, {"Count": 1}])
def test_what_was_started_with_gpus_needs_no_runtime(request_: dict[str, Any], runtimes: list[str]) -> None:
    scene = Scene()
    _requests({**request_, "Capabilities": [["gpu"]]})(scene)
    scene.facts["engine"].update(runtimes=runtimes, cdi_enabled=False)
    scene.facts["toolkit"]["cdi"]["specs"] = []
    verdict = scene.judge()
    assert (verdict["overall"], verdict["warnings"]) == ("proven", [])
    _only("cuinit", code=100, name=None)(scene)  # nor is it the runtime's fault when CUDA finds nothing
    assert scene.judge()["code"] == "DG311"


@pytest.mark.parametrize("name", ["nvidia", "nvidia-cdi", "nvidia-legacy", "nvidia-experimental"])
def test_every_runtime_of_nvidia_counts(name: str) -> None:
    scene = Scene()
    _requests(Runtime=name)(scene)
    scene.facts["engine"]["runtimes"] = [name, "runc"]
    verdict = scene.judge()
    assert (verdict["overall"], verdict["warnings"]) == ("proven", [])
    assert link_of(verdict, "toolkit")["seen"] == f"runtime {name}, toolkit 1.19.1"
    scene.container = None
    assert link_of(scene.judge(), "toolkit")["seen"] == f"runtime {name}"


def test_a_runtime_of_another_name_is_not_the_one() -> None:
    scene = Scene()
    scene.facts["engine"]["runtimes"] = ["nvidia", "runc"]
    _without_gpu(_requests(Runtime="nvidia-cdi"))(scene)
    assert scene.judge()["code"] == "DG211"


def test_the_runtime_that_is_told_to_give_nothing_gives_nothing() -> None:
    scene = Scene()
    scene.facts["engine"]["runtimes"] = ["nvidia", "runc"]
    _without_gpu(_requests(Runtime="nvidia"))(scene)
    assert scene.container is not None
    scene.container["Config"]["Env"] = ["NVIDIA_VISIBLE_DEVICES=void"]
    verdict = scene.judge()
    assert verdict["code"] == "DG210"
    assert "NVIDIA_VISIBLE_DEVICES is void" in verdict["summary"]


@pytest.mark.parametrize("kinds", [["runtime.nvidia.com/gpu"], ["nvidia.com/gpu", "runtime.nvidia.com/gpu"]])
def test_what_the_runtime_describes_itself_needs_no_file(kinds: list[str]) -> None:
    scene = Scene()
    scene.container = good_container(*(f"{kind}=0" for kind in kinds))
    scene.facts["engine"]["runtimes"] = ["nvidia", "runc"]
    if len(kinds) == 1:
        scene.facts["toolkit"]["cdi"]["specs"] = []
    verdict = scene.judge()
    assert (verdict["overall"], verdict["warnings"]) == ("proven", [])


def test_a_toolkit_finding_that_the_computation_refutes_is_seen_and_told() -> None:
    scene = Scene()
    scene.facts["toolkit"]["cdi"]["specs"] = []
    verdict = scene.judge()
    link = link_of(verdict, "toolkit")
    assert (link["status"], link["code"], link["remedy"]) == ("ok", None, None)
    assert link["seen"] == "no specification for nvidia.com/gpu; the container computes on the GPU all the same"
    message = "No CDI specification describes the GPU: no specification for nvidia.com/gpu."
    assert verdict["warnings"] == [{"code": "DG203", "message": message}]


def test_the_toolkits_own_hook_serves_an_engine_without_cdi_and_runtime() -> None:
    scene = Scene()
    _no_container(scene)
    scene.facts["engine"]["cdi_enabled"] = False
    assert link_of(scene.judge(), "toolkit")["status"] == "ok"
    assert "--gpus" in link_of(scene.judge(), "toolkit")["seen"]


def cpu_scene(mode: str = "cpu") -> Scene:
    scene = Scene()
    scene.expected = Expected(mode=mode, variant="cpu", torch="2.14.1")
    scene.facts["gpus"] = [] if mode == "cpu" else [GPU]
    scene.container = {**good_container(), "HostConfig": {}}
    scene.stages = {
        "python": scene.stages["python"],
        "nodes": {"nodes": [{"path": "/dev/nvidiactl", "present": False}]},
        "torch": {"version": "2.14.1+cpu", "cuda": None, "hip": None},
        "torch_cuda": {"available": False, "reason": "AssertionError: Torch not compiled with CUDA enabled"},
        "cpu": {"right": True, "relative_error": 1e-7, "tolerance": 1e-4, "device": "cpu", "cpu_ms": 1.0},
    }
    return scene


def test_cpu_mode_is_called_cpu_and_nothing_better() -> None:
    verdict = cpu_scene().judge()
    assert (verdict["overall"], verdict["code"]) == ("cpu", None)
    assert statuses(verdict) == {
        **dict.fromkeys(("pci", "bound", "driver", "nvml", "toolkit", "device", "cuda", "speed"), "skipped"),
        **dict.fromkeys(("engine", "torch", "kernel"), "ok"),
    }
    assert verdict["expected"]["gpu_count"] == 0
    assert "without a GPU, as planned" in verdict["summary"]


def test_degraded_mode_is_marked() -> None:
    verdict = cpu_scene("degraded").judge()
    assert (verdict["overall"], verdict["code"]) == ("degraded", None)
    assert verdict["summary"].startswith("DEGRADED")
    assert link_of(verdict, "pci")["seen"].startswith("1 NVIDIA GPU, not used")


@pytest.mark.parametrize(
    ("stage", "data", "link", "code", "overall"),
    [
        ("torch_cuda", {"available": True}, "torch", "DG408", "failed"),
        ("torch", {"version": "2.7.1+cpu", "cuda": None}, "torch", "DG407", "failed"),
        ("torch", {"error": "ImportError: libgomp"}, "torch", "DG402", "failed"),
        ("cpu", {"error": "RuntimeError: illegal instruction"}, "kernel", "DG508", "failed"),
        ("cpu", {"right": False, "relative_error": 0.5}, "kernel", "DG508", "failed"),
    ],
)
def test_cpu_mode_fails_at_its_link(stage: str, data: dict[str, Any], link: str, code: str, overall: str) -> None:
    scene = cpu_scene()
    scene.stages[stage] = data
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == (overall, code)
    assert link_of(verdict, link)["code"] == code


@pytest.mark.parametrize(
    ("change", "code", "overall"),
    [
        (_silent(127), "DG208", "unproven"),
        (_stopped("torch", timed_out=True), "DG506", "unproven"),
        (_stopped("nodes", timed_out=True), "DG506", "failed"),
        (_stopped("cpu", rc=132, timed_out=False), "DG507", "failed"),
        (_no_container, "DG204", "failed"),
    ],
)
def test_cpu_mode_without_a_whole_probe(change: Callable[[Scene], None], code: str, overall: str) -> None:
    scene = cpu_scene()
    change(scene)
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == (overall, code)


@pytest.mark.parametrize(
    ("archs", "capability", "torch_cuda", "driver_cuda", "runs"),
    [
        (["sm_80"], "8.6", "12.6", "12.2", True),
        (["sm_86"], "8.0", "12.6", "12.6", False),
        (["sm_75"], "8.6", "12.6", "12.6", False),
        (["sm_75", "compute_75"], "8.6", "12.6", "12.6", True),
        (["sm_75", "compute_75"], "8.6", "12.6", "12.2", False),  # no JIT on an older driver
        (["compute_120"], "7.0", "13.0", "13.0", False),
        (["sm_120"], "12.1", "13.0", "13.0", True),
        (["sm_90a"], "9.0", "12.6", "12.6", True),
        (["sm_100a"], "10.3", "13.0", "13.0", False),
        (["sm_100f"], "10.3", "13.0", "13.0", True),
        (["sm_100f"], "12.0", "13.0", "13.0", False),
        (["compute_90a"], "10.0", "12.8", "13.0", False),
        ([], "8.6", "12.6", "12.6", False),
        (["gfx90a"], "8.6", "12.6", "12.6", False),
        (["sm_80"], "None", "12.6", "12.6", True),
    ],
)
def test_which_code_runs_on_which_gpu(
    archs: list[str], capability: str, torch_cuda: str, driver_cuda: str, runs: bool
) -> None:
    assert _links_torch.runs_on(archs, capability, torch_cuda, driver_cuda) is runs


@pytest.mark.parametrize(
    ("served", "highest"), [("11.4", "11.8"), ("12.2", "12.9"), ("13.0", "13.x"), ("10.2", "10.2"), (None, "unknown"), ("", "unknown")]
)
def test_the_highest_cuda_of_a_driver(served: str | None, highest: str) -> None:
    assert _links_torch.highest_cuda(served) == highest


# A short alphabet: what splits lines, what JSON is made of, and letters; all of Unicode takes seconds to set up.
TEXT = "ab0 @{}[]\":,\\\n\r\x0b\x1c\x85\u2028é"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(TEXT, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXT, max_size=8), inner, max_size=3),
    max_leaves=8,
)
STAGE_NAMES = ("python", "nodes", "libcuda", "cuinit", "devices", "torch", "torch_cuda", "kernel 0", "cpu")
FACT_NAMES = ("host", "gpus", "driver", "nvml", "toolkit", "engine")


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(FACT_NAMES), JSON),
    st.dictionaries(st.sampled_from(STAGE_NAMES), st.dictionaries(st.text(TEXT, max_size=8), JSON, max_size=3)),
    st.sampled_from(("gpu", "cpu", "degraded")),
    st.none() | st.sampled_from(STAGE_NAMES),
)
def test_nothing_malformed_is_ever_proven_or_a_traceback(
    facts: dict[str, Any], stages: dict[str, dict[str, Any]], mode: str, running: str | None
) -> None:
    scene = Scene()
    scene.expected = Expected(mode=mode)
    scene.facts, scene.stages = facts, stages
    scene.probe_fields = {"running": running, "done": running is None}
    verdict = scene.judge()
    assert verdict["overall"] in ("unproven", "failed")
    assert verdict["code"] in _diagnosis.DIAGNOSES


@given(st.sampled_from(STAGE_NAMES[:-1]), st.sampled_from(("gone", "empty")), st.booleans())
def test_a_stage_that_is_missing_keeps_a_host_from_being_proven(stage: str, how: str, done: bool) -> None:
    scene = Scene()
    if how == "gone":
        del scene.stages[stage]
    else:
        scene.stages[stage] = {}
    scene.probe_fields = {"done": done}
    if done and (stage == "python" or (stage, how) == ("libcuda", "empty")):
        assert scene.judge()["overall"] == "proven"  # says nothing about the chain
    else:
        verdict = scene.judge()
        assert verdict["overall"] in ("unproven", "failed")
        assert verdict["code"]


@pytest.mark.parametrize(("stage", "link"), [("nodes", "device"), ("libcuda", "cuda"), ("torch", "torch"), ("kernel 0", "kernel")])
def test_a_cut_report_is_unproven(stage: str, link: str) -> None:
    scene = Scene()
    del scene.stages[stage]
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG510")
    assert link_of(verdict, link)["code"] == "DG510"


@pytest.mark.parametrize(("gpus", "last"), [(2, "kernel 0"), (2, "kernel 1"), (1, "kernel 0"), (8, "kernel 6")])
def test_a_probe_that_ended_between_two_stages_proves_nothing(gpus: int, last: str) -> None:
    """Killed when a result was out and the next stage had not begun: no stage is running, and none of them failed."""
    scene = Scene(gpus)
    names = list(scene.stages)
    for name in names[names.index(last) + 1 :]:
        del scene.stages[name]
    scene.probe_fields = {"done": False, "rc": 137}
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG510")
    assert link_of(verdict, "kernel")["status"] == "skipped"
    assert link_of(verdict, "speed")["status"] == "skipped"


@pytest.mark.parametrize("lost", [0, 1])
def test_every_gpu_that_is_wanted_must_have_computed(lost: int) -> None:
    scene = Scene(gpus=2)
    del scene.stages[f"kernel {lost}"]
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG510")
    assert link_of(verdict, "kernel")["seen"] == "the probe reported a product on 1 of 2 GPUs"


def test_every_gpu_that_is_visible_must_have_computed() -> None:
    scene = Scene(gpus=2)
    scene.expected = Expected(mode="gpu", gpu_count=1)
    assert scene.judge()["overall"] == "proven"
    del scene.stages["kernel 1"]
    assert scene.judge()["code"] == "DG510"


def test_an_absurd_number_of_gpus_is_only_a_number() -> None:
    scene = Scene()
    scene.stages["torch_cuda"]["count"] = 10**15
    assert scene.judge()["code"] == "DG510"


def test_the_same_gpu_twice_is_one() -> None:
    scene = Scene(gpus=2)
    scene.stages["kernel 1"]["index"] = 0
    assert scene.judge()["code"] == "DG510"


def test_a_wrong_product_counts_though_others_are_missing() -> None:
    scene = Scene(gpus=2)
    del scene.stages["kernel 1"]
    scene.stages["kernel 0"]["right"] = False
    assert scene.judge()["code"] == "DG502"


@pytest.mark.parametrize(
    ("last", "link"),
    [("nodes", "cuda"), ("libcuda", "cuda"), ("cuinit", "cuda"), ("devices", "torch"), ("torch", "torch"), ("torch_cuda", "kernel")],
)
def test_the_link_where_a_report_breaks_off_is_untested_and_not_blamed(last: str, link: str) -> None:
    scene = Scene()
    names = list(scene.stages)
    for name in names[names.index(last) + 1 :]:
        del scene.stages[name]
    scene.probe_fields = {"done": False, "rc": 137}
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG510")
    assert link_of(verdict, link)["code"] == "DG510"
    assert "failed" not in statuses(verdict).values()


@pytest.mark.parametrize("mode", ["cpu", "degraded"])
def test_cpu_mode_wants_the_whole_report_too(mode: str) -> None:
    scene = cpu_scene(mode)
    scene.probe_fields = {"done": False, "rc": 137}
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG510")
    assert link_of(verdict, "kernel")["status"] == "skipped"


@pytest.mark.parametrize("answer", [None, {}, {"error": "RuntimeError: boom"}, {"available": None}])
def test_cpu_mode_must_know_that_cuda_is_not_in_use(answer: dict[str, Any] | None) -> None:
    scene = cpu_scene()
    if answer is None:
        del scene.stages["torch_cuda"]
    else:
        scene.stages["torch_cuda"] = answer
    verdict = scene.judge()
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG510")
    assert link_of(verdict, "torch")["code"] == "DG510"


@pytest.mark.parametrize(
    ("log", "seen"),
    [
        ([{"Output": "old"}, {"Output": "Traceback\n  File x\nOSError: no model\n\n"}], "running, unhealthy: OSError: no model"),
        ([{"Output": "a\x1b[31mb\tc"}], "running, unhealthy: a [31mb c"),
        ([{"Output": "x" * 500}], "running, unhealthy: " + "x" * 197 + "..."),
        ([{"Output": "y" * 200}], "running, unhealthy: " + "y" * 200),
        ([{"Output": " \n"}], "running, unhealthy"),
        ([{"Output": None}], "running, unhealthy"),
        ([], "running, unhealthy"),
        (None, "running, unhealthy"),
        ("nonsense", "running, unhealthy"),
    ],
)
def test_an_unhealthy_container_says_what_its_check_said(log: Any, seen: str) -> None:
    scene = Scene()
    assert scene.container is not None
    scene.container["State"]["Health"] = {"Status": "unhealthy", "Log": log}
    verdict = scene.judge()
    assert verdict["code"] == "DG206"
    assert link_of(verdict, "engine")["seen"] == seen
    assert verdict["summary"].endswith(seen)


# -- whatever is handed in --------------------------------------------------------------------------------------------

WORDS = st.sampled_from(("", "nvidia", "all", "12.6", "cuda:0", "DG214", "x"))
LEAF = st.none() | st.booleans() | st.integers(-3, 1100) | st.floats() | WORDS


def anything(*keys: str) -> st.SearchStrategy[Any]:
    """Documents that use the keys which the judges look at."""
    return st.recursive(
        LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=5), max_leaves=12
    )


FACTS = anything(
    "gpus", "driver", "nvml", "toolkit", "engine", "warnings", "cdi", "specs", "devices", "packages", "version", "mig", "current", "uuid",
    "processes", "container", "loaded", "mismatch", "fabric_manager", "fabric", "state", "stale", "reasons", "path", "error", "code",
    "kind", "health", "index", "bound_driver", "runtimes", "cdi_enabled", "daemon_config",
)  # fmt: skip
STAGE = anything(
    "code", "count", "devices", "index", "compute_capability", "multiprocessors", "clock_khz", "uuid", "libraries", "major", "path",
    "nodes", "present", "errno", "error", "kind", "right", "rate", "gflops", "gpu_ms", "cpu_ms", "device", "archs", "available", "cuda",
    "version", "providers", "used", "words", "skipped", "seen", "hidden", "using", "cudnn_error", "warnings", "environment",
    "runtime", "builder",
)  # fmt: skip
NAMES = [*good_stages(), "cpu", "extra onnxruntime", "extra tensorrt", "extra other"]


def test_a_toolkit_that_is_refuted_excuses_no_gap_in_the_report() -> None:
    """The probe computed, so the toolkit is no broken link; then that it told nothing of the device files is a gap of its own."""
    scene = Scene()
    scene.facts["toolkit"] = None
    scene.stages["nodes"] = {}
    verdict = scene.judge()
    links = {link["link"]: (link["status"], link["code"]) for link in verdict["links"]}
    assert (links["toolkit"], links["kernel"], links["device"]) == (("ok", None), ("ok", None), ("skipped", "DG510"))
    assert (verdict["overall"], verdict["code"]) == ("unproven", "DG510")


@settings(max_examples=300)
@given(st.data())
def test_no_evidence_is_a_traceback_and_the_overall_follows_from_the_links(data: st.DataObject) -> None:
    """A good scene in which some parts are replaced by anything at all: broken facts must not raise, nor pass for a proof."""
    scene = Scene(gpus=data.draw(st.integers(1, 2)))
    mode, count = data.draw(st.sampled_from(("gpu", "cpu", "degraded"))), data.draw(st.none() | st.integers(1, 3))
    scene.expected = Expected(mode=mode, gpu_count=count)
    for key in data.draw(st.sets(st.sampled_from(sorted(scene.facts)))):
        scene.facts[key] = data.draw(FACTS)
    for name in data.draw(st.sets(st.sampled_from(NAMES))):
        replaced = data.draw(STAGE)
        if isinstance(replaced, dict):  # the reader lets nothing else through
            scene.stages[name] = {**(scene.stages.get(name, {}) if data.draw(st.booleans()) else {}), **replaced}
    if data.draw(st.booleans()):
        scene.container = data.draw(st.none() | st.just({}) | st.just({"State": "x", "HostConfig": 3}))
    scene.extra["settled"] = data.draw(st.booleans())
    scene.probe_fields["done"] = data.draw(st.booleans())
    verdict = scene.judge()
    links = [link for link in verdict["links"] if link["link"] != "speed"]
    assert [link["link"] for link in verdict["links"]] == list(_chain.LINKS)
    broken = [link for link in links if link["status"] == "failed"]
    untested = [link for link in links if link["status"] == "skipped" and link["code"]]
    assert (verdict["overall"] == "failed") == bool(broken)
    assert (verdict["overall"] == "unproven") == bool(untested and not broken)
    assert verdict["code"] == next((link["code"] for link in broken or untested), None)
    if verdict["overall"] == "proven":
        assert all(link["status"] == "ok" for link in links)
    for entry in [*verdict["links"], *verdict["extras"]]:
        assert (entry["code"] is None) == (entry["remedy"] is None)
        assert entry["code"] is None or entry["code"] in _diagnosis.DIAGNOSES
    for warning in verdict["warnings"]:
        assert warning["code"] in _diagnosis.DIAGNOSES and isinstance(warning["message"], str)
