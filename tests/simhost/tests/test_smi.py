# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated nvidia-smi: fields, formats, sentences and exit codes by driver branch."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import SIMHOST, Machine

CSV = "--format=csv,noheader,nounits"
FIELDS = re.findall(r'\{"([^"]+)", "[^"]+", ([^}]+)\}', (SIMHOST / "simgpu/smi_fields.h").read_text(encoding="ascii"))


def fields_of(branch: str) -> list[str]:
    return [name for name, branches in FIELDS if f"SMI_{branch}" in branches]


def test_list(machine: Machine) -> None:
    machine.set("a10-535")
    listed = machine.smi("-L")
    assert listed.returncode == 0
    assert listed.stdout == "GPU 0: NVIDIA A10 (simulated) (UUID: GPU-a1000000-5350-4274-8002-000000000001)\n"


@pytest.mark.parametrize("option", [[], ["--version"]])
def test_says_that_it_is_simulated(machine: Machine, option: list[str]) -> None:
    machine.set("t4-470")
    shown = machine.smi(*option)
    assert shown.returncode == 0
    assert "SIMULATED" in shown.stdout
    assert "470.256.02" in shown.stdout
    assert re.search(r"CUDA Version *: *11\.4", shown.stdout)


def test_values(machine: Machine) -> None:
    machine.set("a10-535")
    fields = "index,name,driver_version,pci.bus_id,memory.total,compute_cap,ecc.mode.current,mig.mode.current,persistence_mode,compute_mode"
    values = machine.smi(f"--query-gpu={fields}", CSV)
    assert values.returncode == 0
    assert values.stdout == ("0, NVIDIA A10 (simulated), 535.274.02, 00000000:3B:00.0, 23028, 8.6, Enabled, [N/A], Enabled, Default\n")


def test_header_and_units(machine: Machine) -> None:
    machine.set("t4-470")
    assert machine.smi("--query-gpu=name,memory.total", "--format=csv").stdout == (
        "name, memory.total [MiB]\nTesla T4 (simulated), 15109 MiB\n"
    )


@pytest.mark.parametrize(("profile", "field"), [("t4-470", "compute_cap"), ("t4-470", "cuda_version"), ("a10-535", "cuda_version")])
def test_fields_that_the_branch_does_not_know(machine: Machine, profile: str, field: str) -> None:
    machine.set(profile)
    refused = machine.smi(f"--query-gpu=name,{field}", CSV)
    assert refused.returncode == 2
    assert refused.stdout.startswith(f'Field "{field}" is not a valid field to query.\n')


@pytest.mark.parametrize(("profile", "branch", "count"), [("t4-470", "470", 115), ("l4-580", "580", 214)])
def test_every_field_of_the_branch_is_accepted(machine: Machine, profile: str, branch: str, count: int) -> None:
    machine.set(profile)
    assert len(re.findall(r"^\"", machine.smi("--help-query-gpu").stdout, re.MULTILINE)) == count
    fields = fields_of(branch)
    for start in range(0, len(fields), 100):
        part = fields[start : start + 100]
        answer = machine.smi(f"--query-gpu={','.join(part)}", CSV)
        assert answer.returncode == 0, answer.stdout
        assert answer.stdout.count(",") == len(part) - 1


def test_no_module(machine: Machine) -> None:
    machine.set("a10-535", loaded=None)
    for arguments in ([], ["-L"], ["--query-gpu=name", CSV]):
        failed = machine.smi(*arguments)
        assert failed.returncode == 9
        assert "couldn't communicate with the NVIDIA driver" in failed.stdout


def test_mismatch(machine: Machine) -> None:
    machine.set("a10-535", loaded="535.161.08")
    failed = machine.smi("--query-gpu=name", CSV)
    assert failed.returncode == 18
    assert failed.stdout == "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.274\n"


def test_no_library(machine: Machine, tmp_path) -> None:
    machine.set("a10-535")
    alone = shutil.copy(machine.libraries / "nvidia-smi", tmp_path)
    failed = machine.run(str(alone), "-L", LD_LIBRARY_PATH=str(tmp_path))
    assert failed.returncode == 12
    assert "couldn't find libnvidia-ml.so" in failed.stdout


def test_a_lost_gpu_is_in_the_words_and_not_in_the_exit_code(machine: Machine) -> None:
    machine.set("a10-535", "gpu.0.error=15")
    lost = machine.smi("--query-gpu=index,name,memory.total", CSV)
    assert (lost.returncode, lost.stdout) == (0, "0, [GPU is lost], [GPU is lost]\n")


def test_a_gpu_that_gives_no_handle(machine: Machine) -> None:
    machine.set("a10-535", "gpu.0.error=15", "gpu.0.error_at=handle")
    lost = machine.smi("--query-gpu=name", CSV)
    assert lost.returncode == 15
    assert lost.stdout.startswith("Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.")


def test_bad_arguments(machine: Machine) -> None:
    machine.set("a10-535")
    assert machine.smi("--query-gpu=name").returncode == 2
    assert machine.smi("--nonsense").returncode == 2


def test_list_with_mig_devices(machine: Machine) -> None:
    machine.set("a100-mig-550")
    assert machine.smi("-L").stdout.splitlines() == [
        "GPU 0: NVIDIA A100-SXM4-40GB (simulated) (UUID: GPU-a1004000-5500-4000-8000-000000000001)",
        "  MIG 3g.20gb     Device  0: (UUID: MIG-a1004000-0002-5550-8000-000000000001)",
        "  MIG 1g.5gb      Device  1: (UUID: MIG-a1004000-0009-5550-8000-000000000002)",
        "  MIG 1g.5gb      Device  2: (UUID: MIG-a1004000-0010-5550-8000-000000000003)",
    ]


def test_old_libraries_have_no_newer_memory_query(machine: Machine) -> None:
    machine.set("t4-470")
    assert machine.smi("--query-gpu=memory.total,memory.used", CSV).stdout == "15109, 0\n"


@pytest.mark.parametrize("profile", ["a10-535", "t4-470"])
def test_processes(machine: Machine, profile: str) -> None:
    pairs = machine.set(profile, f"gpu.0.process.0={os.getpid()},4096", "gpu.0.process.1=999999999,na", "gpu.0.process.2=1,5,graphics")
    fields = "pid,process_name,gpu_uuid,used_memory"
    name = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    listed = machine.smi(f"--query-compute-apps={fields}", CSV)
    assert listed.returncode == 0
    assert listed.stdout.splitlines() == [
        f"{os.getpid()}, {name}, {pairs['gpu.0.uuid']}, 4096",
        f"999999999, [Not Found], {pairs['gpu.0.uuid']}, [N/A]",
    ]
    whole = machine.smi("--query-compute-apps=pid,used_gpu_memory", "--format=csv").stdout.splitlines()
    assert whole[:2] == ["pid, used_gpu_memory [MiB]", f"{os.getpid()}, 4096 MiB"]


def test_no_processes_is_no_line(machine: Machine) -> None:
    machine.set("a10-535")
    listed = machine.smi("--query-compute-apps=pid", CSV)
    assert (listed.returncode, listed.stdout) == (0, "")
    assert machine.smi("--query-compute-apps=pid,nonsense", CSV).stdout.startswith('Field "nonsense" is not a valid field to query.')


@pytest.mark.parametrize(
    ("profile", "fields", "manager", "row"),
    [
        ("h100x8-580", "fabric.state,fabric.status,gpu_recovery_action", True, "Completed, Success, None"),
        ("h100x8-580", "fabric.state,fabric.status,gpu_recovery_action", False, "In Progress, [N/A], None"),
        ("h100x8-550", "fabric.state,fabric.status", True, "Completed, Success"),
        ("a10-535", "fabric.state,fabric.status", True, "N/A, [N/A]"),
        ("a10-615", "kmd_version,compute_cap,gpu_recovery_action", True, "615.71.09, 8.6, None"),
        ("a100-mig-550", "mig.mode.current,mig.mode.pending,utilization.gpu", True, "Enabled, Enabled, [N/A]"),
    ],
)
def test_newer_fields(machine: Machine, profile: str, fields: str, manager: bool, row: str) -> None:
    machine.set(profile, fabric_manager=manager)
    assert machine.smi(f"--query-gpu={fields}", CSV, "-i", "0").stdout == row + "\n"


@pytest.mark.parametrize(("action", "word"), [(1, "Reset"), (2, "Reboot"), (3, "Drain P2P"), (4, "Drain and Reset")])
def test_recovery_action(machine: Machine, action: int, word: str) -> None:
    machine.set("l4-580", f"gpu.0.recovery_action={action}")
    assert machine.smi("--query-gpu=gpu_recovery_action", CSV).stdout == word + "\n"


def test_recovery_action_is_not_known_before_565(machine: Machine) -> None:
    machine.set("h100x8-550")
    assert machine.smi("--query-gpu=gpu_recovery_action", CSV).stdout.startswith('Field "gpu_recovery_action" is not a valid field')


def test_xml(machine: Machine) -> None:
    machine.set("a100-mig-550", f"gpu.0.process.0={os.getpid()},300,compute,9,0", "gpu.0.process.1=1,20,graphics")
    answer = machine.smi("-q", "-x")
    assert answer.returncode == 0
    log = ElementTree.fromstring(answer.stdout)  # noqa: S314  of the program beside this file
    gpu = log.find("gpu")
    assert (log.findtext("driver_version"), log.findtext("cuda_version"), log.findtext("attached_gpus")) == ("550.163.01", "12.4", "1")
    assert gpu.get("id") == "00000000:07:00.0"
    assert gpu.findtext("mig_mode/current_mig") == "Enabled"
    devices = [
        [device.findtext(tag) for tag in ("index", "gpu_instance_id", "fb_memory_usage/total", "fb_memory_usage/used")]
        for device in gpu.iter("mig_device")
    ]
    assert devices == [["0", "2", "19968 MiB", "0 MiB"], ["1", "9", "4864 MiB", "300 MiB"], ["2", "10", "4864 MiB", "0 MiB"]]
    processes = [[info.findtext(tag) for tag in ("pid", "type", "used_memory")] for info in gpu.iter("process_info")]
    assert processes == [[str(os.getpid()), "C", "300 MiB"], ["1", "G", "20 MiB"]]


@pytest.mark.parametrize("arguments", [["-q"], ["-x"], ["-q", "-x", "--query-gpu=name"]])
def test_only_the_xml_of_everything(machine: Machine, arguments: list[str]) -> None:
    machine.set("a10-535")
    assert machine.smi(*arguments).returncode == 2
