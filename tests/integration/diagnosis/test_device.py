# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with the device and the CUDA driver API in a container: each test breaks one thing on a simulated host."""
from __future__ import annotations

from pathlib import Path

import pytest

from .lab import SECOND_GPU, Host, legacy

produces = pytest.mark.produces
IDLE = "sleep infinity"
# A container that was just started may take a moment until the engine lets a program in.
LETS_IN = "until docker exec it true; do sleep 0.1; done"
SPEC = "/var/run/cdi/nvidia.yaml"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so"
# The kernel has two ways to keep a container from a device: a file that can be written (1), a program that can only be replaced (2).
CGROUP_1 = Path("/sys/fs/cgroup/devices").is_dir()


# --- device files ---------------------------------------------------------------------------------------------------


@produces("DG301")
def test_device_file_is_missing(cli: Host) -> None:
    cli.start("it", command=IDLE)
    cli.sh(f"{LETS_IN}; docker exec --user 0 it rm /dev/nvidia0")
    cli.check("it").breaks("device", "DG301", "nvidia-modprobe -u -c 0", seen="/dev/nvidia<number>", also=("cuda",))


@pytest.mark.skipif(not CGROUP_1, reason="the device rules of cgroup 2 are a program that nobody but its owner can change")
@produces("DG302")
def test_access_is_revoked_while_the_container_runs(diag: Host) -> None:
    container = diag.start("it", command=IDLE)
    assert diag.check("it").verdict["overall"] == "proven"
    diag.sh(f"echo c $(cat /etc/simgpu/device) rwm > /sys/fs/cgroup/devices/docker/{container}/devices.deny")
    diag.check("it").breaks("device", "DG302", "recreate the container", seen="EPERM (Operation not permitted)", also=("cuda",))


@produces("DG303")
def test_device_file_may_not_be_opened_by_this_user(diag: Host) -> None:
    diag.start("it", command=IDLE)
    diag.sh(f"{LETS_IN}; docker exec --user 0 it chmod 600 /dev/nvidia0")
    diag.check("it").breaks("device", "DG303", "/dev/nvidia0", "mode", seen="EACCES", also=("cuda",))


# --- the library ----------------------------------------------------------------------------------------------------


def without(host: Host, pattern: str, *more: str) -> None:
    """Start a container from a CDI specification of its own, from which mounts were taken, and describe it beside the good one."""
    host.undo("rm -f /etc/cdi/broken.yaml")
    host.sh(
        # Each mount is three lines: where from, where to, how.
        "mkdir -p /etc/cdi\n"
        f"sed -e '/hostPath: .*{pattern}/,+2d' -e 's/name: \"all\"/name: \"broken\"/' -e 's/name: \"\\([0-9]\\)\"/name: \"broken-\\1\"/' "
        f"{SPEC} > /etc/cdi/broken.yaml\n"
        "! grep -q 'name: \"all\"' /etc/cdi/broken.yaml"
    )
    host.start("it", "--device nvidia.com/gpu=broken", *more, gpu=False, command=IDLE)


@produces("DG304")
def test_libcuda_is_missing(cli: Host) -> None:
    without(cli, "libcuda")
    cli.check("it").breaks("cuda", "DG304", "libcuda", "recreate the container")


@produces("DG305")
def test_libcuda_cannot_be_loaded(diag: Host) -> None:
    without(diag, "libcuda", f"--volume /etc/services:{LIBRARY}.1:ro")
    diag.check("it").breaks("cuda", "DG305", "invalid ELF header")


# --- cuInit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        pytest.param("DG310", 3, "CUDA_ERROR_NOT_INITIALIZED", marks=produces("DG310")),
        pytest.param("DG313", 804, "a variant whose CUDA the driver serves", marks=produces("DG313")),
        pytest.param("DG314", 999, "modprobe nvidia-uvm", marks=produces("DG314")),
        pytest.param("DG315", 802, "nvidia-fabricmanager", marks=produces("DG315")),
        pytest.param("DG316", 34, "LD_LIBRARY_PATH", marks=produces("DG316")),
        pytest.param("DG312", 803, "recreate the container", marks=produces("DG312")),
    ],
)
def test_cuinit_fails(diag: Host, code: str, error: int, words: str) -> None:
    diag.fault(f"cu_init_error={error}")
    diag.check().breaks("cuda", code, words, seen=f"cuInit {error}")


@produces("DG311")
def test_cuda_is_shown_no_gpu(cli: Host) -> None:
    cli.start("it", "--env CUDA_VISIBLE_DEVICES=", command=IDLE)
    cli.check("it").breaks("cuda", "DG311", "CUDA_VISIBLE_DEVICES", seen="cuInit 100")


@produces("DG317", "DG766")
def test_container_has_no_mig_device(diag: Host) -> None:
    diag.profile(profile="a100-mig-550")
    diag.start("good", command=IDLE)
    good = diag.check("good")
    assert good.verdict["overall"] == "proven" and good.verdict["expected"]["gpu_count"] == 1
    good.plan_warns("DG766")
    # The GPU's own file and none of a MIG device: a container from the time before the GPU was split.
    diag.start("it", *legacy(diag), gpu=False, command=IDLE)
    diag.check("it").breaks("cuda", "DG317", "MIG")


@produces("DG320")
def test_cuda_sees_fewer_gpus_than_expected(diag: Host) -> None:
    diag.profile(*SECOND_GPU)
    diag.start("both", command=IDLE)
    assert diag.check("both").verdict["expected"]["gpu_count"] == 2
    diag.start("it", "--env CUDA_VISIBLE_DEVICES=0", command=IDLE)
    # It asks for one GPU and has one; the other is missing only where two were planned.
    assert diag.check("it").verdict["overall"] == "proven"
    diag.check("it", gpu_count=2).breaks("cuda", "DG320", "CUDA_VISIBLE_DEVICES (here: 0)", seen="1 GPU", also=("torch", "kernel"))
