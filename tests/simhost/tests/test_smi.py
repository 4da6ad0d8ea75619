# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated nvidia-smi: fields, formats, sentences and exit codes by driver branch."""

from __future__ import annotations

import re
import shutil

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


@pytest.mark.parametrize(("profile", "branch", "count"), [("t4-470", "470", 115), ("a10-535", "580", 214)])
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
