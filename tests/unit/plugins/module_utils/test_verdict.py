# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way the chain is known to break, each against the link and the code it must come out with."""

from __future__ import annotations

import copy
from typing import Any, Callable

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _diagnosis, _links_container, _verdict
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
    "processes": None,
    "mig": {"current": False, "pending": False, "devices": []},
}


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
            "cdi": {"specs": [{"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": ["0", "all"]}]},
        },
        "engine": {"runtimes": ["runc"], "cdi_enabled": True},
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
    devices = [
        {"index": n, "name": "NVIDIA A10", "compute_capability": "8.6", "compute_mode": "default"} for n in range(gpus)
    ]
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
            "gpu_ms": 0.31,
            "cpu_ms": 21.0,
        }
    return stages


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
        return _verdict.judge(self.expected, evidence, duration_ms=7)

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
        "duration_ms",
    ]
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
    ("cdi off", _fact("engine", "cdi_enabled", value=False), "toolkit", "DG202", "failed"),
    ("no spec", _fact("toolkit", "cdi", "specs", value=[]), "toolkit", "DG203", "failed"),
    ("no container", _no_container, "engine", "DG204", "failed"),
    ("ended", _state(Status="exited", Running=False, ExitCode=1), "engine", "DG205", "failed"),
    ("restarting", _state(Status="restarting", Running=True), "engine", "DG205", "failed"),
    ("unhealthy", _state(Health={"Status": "unhealthy"}), "engine", "DG206", "failed"),
    ("starting", _state(Health={"Status": "starting"}), "engine", "DG207", "failed"),
    ("no python", _silent(127), "device", "DG208", "unproven"),
    ("python crashes", _silent(1, last_words="Fatal Python error"), "device", "DG209", "unproven"),
    ("exec refused", _exec_refused, "engine", "DG209", "unproven"),
    ("never began", _silent(None, timed_out=True), "device", "DG506", "unproven"),
    ("no gpu asked for", _requests(), "toolkit", "DG210", "failed"),
    ("runtime unknown", _requests(Runtime="nvidia"), "toolkit", "DG211", "failed"),
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
    ("no devices", _only("devices", cuda_version="12.2", count=0, devices=[]), "cuda", "DG320", "failed"),
    ("import fails", _stage("torch", error="ImportError: libcudart"), "torch", "DG402", "failed"),
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


def test_every_code_of_the_table_can_come_out() -> None:
    """A code that nothing can produce is a promise that nobody keeps."""
    observed = {"DG113", "DG114", "DG115", "DG116"}  # warnings of nvidia_facts, no verdict
    elsewhere = {"DG102", "DG106", "DG401", "DG404", "DG408", "DG508", "DG510", "DG601"}  # tests of their own in this file
    assert {case[3] for case in CASES} | elsewhere | observed == set(_diagnosis.DIAGNOSES)


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
    scene.facts["toolkit"]["cdi"]["specs"][0]["error"] = "not readable"
    assert scene.judge()["code"] == "DG203"


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
    scene.facts["gpus"][0]["processes"] = [{"pid": 1}]
    link = link_of(scene.judge(), "speed")
    assert (link["status"], link["code"]) == ("skipped", None)
    assert link["seen"].startswith("GPU 0: 40 ms against 20 ms on the CPU (0.5 times as fast); not judged")
    assert "1 process(es) used the GPU" in link["seen"]


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
    assert _links_container.runs_on(archs, capability, torch_cuda, driver_cuda) is runs


@pytest.mark.parametrize(
    ("served", "highest"), [("11.4", "11.8"), ("12.2", "12.9"), ("13.0", "13.x"), ("10.2", "10.2"), (None, "unknown"), ("", "unknown")]
)
def test_the_highest_cuda_of_a_driver(served: str | None, highest: str) -> None:
    assert _links_container.highest_cuda(served) == highest


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
