# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs a container was given: by every way that there is, and judged on no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _links_given, _verdict
from ansible_collections.difyops.gpu.plugins.module_utils._chain import Evidence, Expected
from ansible_collections.difyops.gpu.plugins.module_utils._probe import ProbeReport
from hypothesis import given, settings
from hypothesis import strategies as st

DEVICE = {"name": "NVIDIA A10", "compute_capability": "8.6", "compute_mode": "default"}
ILL = {"lost": "DG111", "reset_required": "DG112", "error": "DG108"}


def uuid(number: int) -> str:
    return f"GPU-{number:08x}-aaaa-bbbb-cccc-{number:012x}"


def gpu(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "pci_address": f"0000:{number + 1:02x}:00.0",
        "bound_driver": "nvidia",
        "index": number,
        "uuid": uuid(number),
        "name": "NVIDIA A10",
        "health": "ok",
        "processes": [],
        "mig": {"current": False, "pending": False, "devices": []},
        **fields,
    }


def divided(number: int, parts: int = 2) -> dict[str, Any]:
    devices = [{"index": part, "uuid": f"MIG-{number:04x}{part:04x}-aaaa-bbbb-cccc-0123456789ab"} for part in range(parts)]
    return gpu(number, mig={"current": True, "pending": True, "devices": devices})


def facts(gpus: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = [str(one["index"]) for one in gpus] + [str(one["uuid"]) for one in gpus] + ["all"]
    return {
        "gpus": list(gpus),
        "driver": {"loaded": {"version": "580.95.05"}, "cuda_version": "13.0", "mismatch": False},
        "nvml": {"source": "nvml", "error": None},
        "toolkit": {"version": "1.19.1", "cdi": {"specs": [{"path": "/etc/cdi/n.yaml", "kind": "nvidia.com/gpu", "devices": names}]}},
        "engine": {"runtimes": ["runc"], "cdi_enabled": True},
        "warnings": [],
    }


def container(env: Sequence[str] = (), **host: Any) -> dict[str, Any]:
    return {
        "Id": "c0ffee",
        "Name": "/it",
        "Config": {"Image": "x", "Env": list(env)},
        "State": {"Status": "running", "Running": True},
        "HostConfig": {"Runtime": "runc", **host},
    }


def cdi(*names: str) -> dict[str, Any]:
    return container(DeviceRequests=[{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={name}" for name in names]}])


def gpus_option(env: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
    return container(env, DeviceRequests=[{"Driver": "", "Capabilities": [["gpu"]], **fields}])


def by_runtime(visible: str | None, name: str = "nvidia") -> dict[str, Any]:
    return container(["PATH=/bin", *([] if visible is None else [f"NVIDIA_VISIBLE_DEVICES={visible}"])], Runtime=name)


def nodes(*numbers: int) -> dict[str, Any]:
    paths = ["/dev/nvidiactl", "/dev/nvidia-uvm", *(f"/dev/nvidia{number}" for number in numbers)]
    return container(Devices=[{"PathOnHost": path} for path in paths])


def probe(gpus: Sequence[dict[str, Any]], computes: bool = True) -> ProbeReport:
    """A probe to which CUDA shows exactly these GPUs, and which computes right products on all of them, or does not compute."""
    devices = [{**DEVICE, "index": n, "uuid": one["uuid"]} for n, one in enumerate(gpus)]
    paths = ["/dev/nvidiactl", "/dev/nvidia-uvm", *(f"/dev/nvidia{one['index']}" for one in gpus)]
    stages: dict[str, dict[str, Any]] = {
        "python": {"torch_found": True, "environment": {}},
        "nodes": {"nodes": [{"path": path, "present": True, "errno": None} for path in paths]},
        "libcuda": {"path": "/x/libcuda.so.1"},
        "cuinit": {"code": 0 if gpus else 100},
        "devices": {"cuda_version": "13.0", "count": len(gpus), "devices": devices},
        "torch": {"version": "2.14.1+cu130", "cuda": "13.0"},
        "torch_cuda": {"available": bool(gpus), "count": len(gpus), "archs": ["sm_86"], "devices": devices},
    }
    for n in range(len(gpus) if computes else 0):
        stages[f"kernel {n}"] = {"index": n, "right": True, "relative_error": 1e-6, "device": f"cuda:{n}"}
    return ProbeReport(stages=stages, done=True, rc=0)


def evidence(gpus: Sequence[dict[str, Any]], document: dict[str, Any] | None, seen: Sequence[dict[str, Any]] | None = None) -> Evidence:
    report = None if seen is None else probe(seen)
    return Evidence(facts=facts(gpus), container_name="it", container=document, probe=report)


def judge(gpus: Sequence[dict[str, Any]], document: dict[str, Any], seen: Sequence[dict[str, Any]], **expected: Any) -> dict[str, Any]:
    return _verdict.judge(Expected(**expected), evidence(gpus, document, seen))


FOUR = [gpu(number) for number in range(4)]
MIXED = [gpu(0), divided(1), gpu(2)]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (cdi("all"), [0, 1, 2, 3]),
        (cdi("1"), [1]),
        (cdi("3", "1"), [1, 3]),
        (cdi("1", uuid(1), "1"), [1]),  # one GPU under several names
        (cdi("gpu2"), [2]),
        (cdi(uuid(2)), [2]),
        (cdi("1", "all"), [0, 1, 2, 3]),
        (container(DeviceRequests=[{"Driver": "cdi", "DeviceIDs": ["runtime.nvidia.com/gpu=3"]}]), [3]),
        (container(Runtime="nvidia", Annotations={"cdi.k8s.io/x": "nvidia.com/gpu=0,nvidia.com/gpu=2"}), [0, 2]),
        (gpus_option(Count=-1), [0, 1, 2, 3]),
        (gpus_option(Count=1), [0]),
        (gpus_option(Count=3), [0, 1, 2]),
        (gpus_option(Count=0, DeviceIDs=["2"]), [2]),
        (gpus_option(DeviceIDs=["2", uuid(2), uuid(0)]), [0, 2]),
        (container(DeviceRequests=[{"Driver": "nvidia", "Count": 2, "Capabilities": [["compute"]]}]), [0, 1]),
        (gpus_option(["NVIDIA_VISIBLE_DEVICES=all"], Count=1), [0]),  # the image's own wish does not count then
        (by_runtime("all"), [0, 1, 2, 3]),
        (by_runtime("all", "nvidia-cdi"), [0, 1, 2, 3]),
        (by_runtime("1"), [1]),
        (by_runtime("0, 3"), [0, 3]),
        (by_runtime(f"{uuid(3)},{uuid(1)}"), [1, 3]),
        (by_runtime(uuid(3)[:12]), [3]),
        (by_runtime("nvidia.com/gpu=2"), [2]),
        (nodes(0), [0]),
        (nodes(1, 2), [1, 2]),
        (container(Privileged=True), [0, 1, 2, 3]),
        ({**cdi("0"), "HostConfig": {**cdi("0")["HostConfig"], "Devices": [{"PathOnHost": "/dev/nvidia2"}]}}, [0, 2]),
    ],
)
def test_every_way_to_name_a_gpu(document: dict[str, Any], expected: list[int]) -> None:
    found = _links_given.given(evidence(FOUR, document))
    assert [one["index"] for one in found.gpus] == expected
    assert (found.count, found.certain) == (len(expected), True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", [1]),  # numbers count the container's GPUs
        ("1,0", [1, 3]),
        ("1,1", [3]),
        ("0,7,1", [1]),  # nothing counts after the first that is not there
        (uuid(3), [3]),
        (uuid(3)[:13], [3]),
        (f"{uuid(1)},-1,{uuid(3)}", [1]),
    ],
)
def test_cuda_visible_devices_cuts_the_list(text: str, expected: list[int]) -> None:
    document = cdi("1", "3")
    document["Config"]["Env"] = [f"CUDA_VISIBLE_DEVICES={text}"]
    found = _links_given.given(evidence(FOUR, document))
    assert ([one["index"] for one in found.gpus], found.count) == (expected, len(expected))


@pytest.mark.parametrize("text", ["", "-1", "9", "none"])
def test_gpus_that_are_hidden_are_still_expected(text: str) -> None:
    document = cdi("1", "3")
    document["Config"]["Env"] = [f"CUDA_VISIBLE_DEVICES={text}"]
    assert _links_given.given(evidence(FOUR, document)).count == 2
    report = probe([FOUR[1], FOUR[3]])
    report.stages.update(cuinit={"code": 100}, devices={"count": 0}, torch_cuda={"available": False})
    verdict = _verdict.judge(Expected(), Evidence(facts=facts(FOUR), container_name="it", container=document, probe=report))
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG311")


def test_the_driver_itself_knows_which_gpu_is_its_first() -> None:
    """CUDA counts the fastest first, so that number 0 may be the host's GPU 3."""
    document = cdi("1", "3")
    document["Config"]["Env"] = ["CUDA_VISIBLE_DEVICES=0"]
    assert [one["index"] for one in _links_given.given(evidence(FOUR, document, [FOUR[3]])).gpus] == [3]


@pytest.mark.parametrize(
    ("document", "places"),
    [
        (cdi("1:0"), [1]),
        (cdi("mig1:0", "mig1:1"), [1]),
        (cdi(MIXED[1]["mig"]["devices"][1]["uuid"]), [1]),
        (by_runtime("1:1"), [1]),
        (by_runtime(f"MIG-{uuid(1)}/1/0"), [1]),
        (by_runtime("MIG-ffffffff-0000"), []),
        (cdi("all"), [0, 1, 2]),
        (gpus_option(DeviceIDs=["1:0"]), [1]),
    ],
)
def test_cuda_uses_one_mig_device_whatever_it_was_given(document: dict[str, Any], places: list[int]) -> None:
    found = _links_given.given(evidence(MIXED, document))
    assert found.count == 1
    assert ([one["index"] for one in found.gpus] if found.certain else []) == places


def test_full_gpus_beside_one_in_mig_mode_count_as_they_are() -> None:
    found = _links_given.given(evidence(MIXED, cdi("0", "2")))
    assert ([one["index"] for one in found.gpus], found.count) == ([0, 2], 2)


def test_a_mig_device_that_an_ordinary_user_cannot_see_is_that_of_the_gpu_in_mig_mode() -> None:
    found = _links_given.given(evidence([gpu(0), divided(1, parts=0)], by_runtime("MIG-12345678-0000")))
    assert [one["index"] for one in found.gpus] == [1]


@pytest.mark.parametrize(
    "document", [container(), by_runtime(None), by_runtime("void"), by_runtime("none"), cdi("broken"), gpus_option(Count=0)]
)
def test_where_nothing_tells_one_gpu_is_expected(document: dict[str, Any]) -> None:
    found = _links_given.given(evidence(FOUR, document))
    assert (found.count, found.certain, len(found.gpus)) == (1, False, 4)
    assert [one["index"] for one in _links_given.given(evidence(FOUR, document, [FOUR[2]])).gpus] == [2]


def test_a_variable_counts_only_for_the_runtime_that_heeds_it() -> None:
    document = container(["NVIDIA_VISIBLE_DEVICES=all"])
    assert not _links_given.given(evidence(FOUR, document)).certain


def test_a_gpu_that_is_gone_is_still_expected() -> None:
    verdict = judge(FOUR[:1], gpus_option(Count=2), FOUR[:1])
    assert (verdict["overall"], verdict["code"]) == ("failed", "DG102")


def test_gpus_of_virtual_machines_and_other_drivers_are_not_given() -> None:
    host = [gpu(0), gpu(9, bound_driver="vfio-pci", index=None, uuid=None), gpu(1)]
    found = _links_given.given(evidence(host, cdi("all")))
    assert ([one["index"] for one in found.gpus], found.count) == ([0, 1], 2)


# -- the verdict -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("health", "code"), ILL.items())
@pytest.mark.parametrize("document", [cdi("0"), cdi(uuid(0)), gpus_option(Count=1), by_runtime("0"), nodes(0)])
def test_an_ill_gpu_that_the_container_does_without_is_a_warning(document: dict[str, Any], health: str, code: str) -> None:
    """A GPU that was left out must not take back a good deployment."""
    host = [gpu(0), gpu(1, health=health, uuid=None)]
    host_facts = {**facts(host), "engine": {"runtimes": ["nvidia", "runc"], "cdi_enabled": True}}
    for expected in (Expected(gpu_count=1), Expected()):
        verdict = _verdict.judge(expected, Evidence(facts=host_facts, container_name="it", container=document, probe=probe(host[:1])))
        assert (verdict["overall"], verdict["code"]) == ("proven", None)
        assert [warning["code"] for warning in verdict["warnings"]] == [code]
        assert "0000:02:00.0" in verdict["warnings"][0]["message"]
        told = {"code": code, "message": "The driver says so of the GPU at 0000:02:00.0."}
        warned = {**host_facts, "warnings": [told]}
        verdict = _verdict.judge(expected, Evidence(facts=warned, container_name="it", container=document, probe=probe(host[:1])))
        assert verdict["warnings"] == [told]


@pytest.mark.parametrize(("health", "code"), ILL.items())
@pytest.mark.parametrize("document", [cdi("1"), cdi("all"), cdi(uuid(1)), gpus_option(Count=2), by_runtime("1"), nodes(1)])
def test_an_ill_gpu_that_the_container_was_given_is_a_failure(document: dict[str, Any], health: str, code: str) -> None:
    host = [gpu(0), gpu(1, health=health, uuid=None, index=None)]
    verdict = judge(host, document, host[:1])
    assert verdict["overall"] == "failed"
    assert next(link["code"] for link in verdict["links"] if link["link"] == "nvml") == code


@pytest.mark.parametrize(("driver", "codes"), [("nouveau", ["DG103"]), ("nova_core", ["DG103"]), (None, ["DG105"]), ("vfio-pci", [])])
@pytest.mark.parametrize("document", [cdi("0"), cdi("all"), gpus_option(Count=1)])
def test_a_gpu_that_nvidias_driver_does_not_hold_is_not_needed(driver: str | None, codes: list[str], document: dict[str, Any]) -> None:
    host = [gpu(0), gpu(1, bound_driver=driver, index=None, uuid=None, **{"class": "0x030200"})]
    verdict = judge(host, document, host[:1])
    assert (verdict["overall"], [warning["code"] for warning in verdict["warnings"]]) == ("proven", codes)


def test_a_closed_file_of_another_gpu_is_no_fault_of_a_privileged_container() -> None:
    document = {**container(["NVIDIA_VISIBLE_DEVICES=0"], Runtime="nvidia", Privileged=True)}
    report = probe(FOUR[:1])
    report.stages["nodes"]["nodes"].append({"path": "/dev/nvidia1", "present": True, "errno": "EIO", "error": "no"})
    host = [gpu(0), gpu(1, health="lost")]
    verdict = _verdict.judge(Expected(), Evidence(facts=facts(host), container_name="it", container=document, probe=report))
    assert next(link for link in verdict["links"] if link["link"] == "device")["status"] == "ok"
    report.stages.update(cuinit={"code": 999}, devices={"count": 0}, torch_cuda={"available": False})
    verdict = _verdict.judge(Expected(), Evidence(facts=facts(host), container_name="it", container=document, probe=report))
    assert next(link for link in verdict["links"] if link["link"] == "device")["status"] == "ok", "it is not the cause either"
    assert verdict["overall"] == "failed"


@pytest.mark.parametrize(
    ("document", "places"),
    [
        (gpus_option(Count=1), [0]),
        (gpus_option(DeviceIDs=["2"]), [2]),
        (by_runtime("1"), [1]),
        (nodes(0), [0]),
        (cdi("1", "1"), [1]),
        ({**cdi("all"), "Config": {"Env": ["CUDA_VISIBLE_DEVICES=0"]}}, [0]),
    ],
)
def test_a_healthy_container_with_a_part_of_the_gpus_is_proven(document: dict[str, Any], places: list[int]) -> None:
    host_facts = facts(FOUR)
    host_facts["engine"]["runtimes"] = ["nvidia", "runc"]
    seen = probe([FOUR[place] for place in places])
    verdict = _verdict.judge(Expected(), Evidence(facts=host_facts, container_name="it", container=document, probe=seen))
    assert (verdict["overall"], verdict["code"], verdict["warnings"]) == ("proven", None, [])
    assert verdict["expected"]["gpu_count"] == len(places)


def _some(data: st.DataObject, values: Sequence[Any]) -> list[Any]:
    return data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))


def _spelled(data: st.DataObject, one: dict[str, Any]) -> str:
    if one["mig"]["current"]:
        part = data.draw(st.sampled_from(one["mig"]["devices"]))
        return str(data.draw(st.sampled_from((f"{one['index']}:{part['index']}", f"mig{one['index']}:{part['index']}", part["uuid"]))))
    return str(data.draw(st.sampled_from((str(one["index"]), f"gpu{one['index']}", one["uuid"]))))


def _configured(data: st.DataObject, host: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw a container's configuration, and which GPUs it gives."""
    way = data.draw(st.sampled_from(("cdi", "ids", "count", "runtime", "nodes", "privileged")))
    if way == "privileged":
        return container(Privileged=True), host
    if way == "count":
        count = data.draw(st.integers(-1, len(host)).filter(bool))
        return gpus_option(Count=count), host if count < 0 else host[:count]
    chosen, names = host, ["all"]
    if way == "nodes" or data.draw(st.booleans()):
        chosen = _some(data, host)
        names = [_spelled(data, one) for one in chosen]
    document = {
        "cdi": lambda: cdi(*names),
        "ids": lambda: gpus_option(DeviceIDs=names),
        "runtime": lambda: by_runtime(",".join(names), data.draw(st.sampled_from(("nvidia", "nvidia-cdi")))),
        "nodes": lambda: nodes(*(one["index"] for one in chosen)),
    }[way]()
    return document, _among(host, chosen)


def _among(host: list[dict[str, Any]], chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The GPUs that were chosen, each once and in the host's order."""
    return [one for one in host if any(one is other for other in chosen)]


def _shown(data: st.DataObject, document: dict[str, Any], chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw a CUDA_VISIBLE_DEVICES or none, and return what CUDA shows then; of MIG devices it shows one."""
    if parts := [one for one in chosen if one["mig"]["current"]]:
        return parts[:1]
    if data.draw(st.booleans()):
        return chosen
    places = _some(data, range(len(chosen)))
    spelled = [str(place) if data.draw(st.booleans()) else chosen[place]["uuid"] for place in places]
    document["Config"]["Env"].append(f"CUDA_VISIBLE_DEVICES={','.join(spelled)}")
    return [chosen[place] for place in sorted(set(places))]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_container_that_computes_on_what_it_was_given_never_fails(data: st.DataObject) -> None:
    """Whatever the configuration: right products on exactly the GPUs given are a proof, and no product is none."""
    divided_or_not = data.draw(st.lists(st.sampled_from((False, False, True)), min_size=1, max_size=5))
    host = [divided(n) if is_divided else gpu(n) for n, is_divided in enumerate(divided_or_not)]
    document, chosen = _configured(data, host)
    shown = _shown(data, document, chosen)
    for one in host:
        if not _among([one], chosen):
            one["health"] = data.draw(st.sampled_from(("ok", *ILL)))
    host_facts = facts(host)
    host_facts["engine"] = {"runtimes": data.draw(st.sampled_from((["runc"], ["nvidia", "runc"]))), "cdi_enabled": data.draw(st.booleans())}
    host_facts["toolkit"]["cdi"]["specs"] *= data.draw(st.integers(0, 1))
    ill = {ILL[one["health"]] for one in host if one["health"] != "ok"}
    for computes in (True, False):
        report = probe(shown, computes)
        verdict = _verdict.judge(Expected(), Evidence(facts=host_facts, container_name="it", container=document, probe=report))
        assert (verdict["overall"] == "proven") is computes, verdict
        assert not computes or ill <= {warning["code"] for warning in verdict["warnings"]}


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.sampled_from(("all", "0", "1:0", "GPU-0000", "MIG-", "nvidia.com/gpu=1", "x=y")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(("Driver", "DeviceIDs", "Count", "Capabilities", "PathOnHost", "uuid", "mig", "devices", "current", "index")), inner
    ),
    max_leaves=10,
)
HOST = st.dictionaries(st.sampled_from(("DeviceRequests", "Runtime", "Devices", "Privileged", "Annotations")), ANY)


@settings(max_examples=300)
@given(st.fixed_dictionaries({}, optional={"HostConfig": HOST | ANY, "Config": st.dictionaries(st.just("Env"), ANY) | ANY}), st.lists(ANY))
def test_no_configuration_is_a_traceback(document: dict[str, Any], gpus: list[Any]) -> None:
    found = _links_given.given(Evidence(facts={"gpus": gpus}, container_name="it", container=document))
    assert found.count >= 1
    assert all(any(one is known for known in gpus) for one in found.gpus)
