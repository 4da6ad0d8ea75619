# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a host: each test breaks one thing on a simulated host, and the modules must say which."""
from __future__ import annotations

import pytest

from .lab import GPU_KEYS, STUB, VARIANT, Host, install_toolkit, legacy

produces = pytest.mark.produces


# --- the bus and who has the GPU ------------------------------------------------------------------------------------


# What cannot work either while the module is not loaded: its CDI specification is gone, and CUDA finds nothing.
NOT_LOADED = ("toolkit", "cuda")


@produces("DG101", "DG717")
def test_no_gpu_on_the_bus(diag: Host) -> None:
    diag.profile(*(f"gpu.0.{key}=" for key in GPU_KEYS))
    found = diag.check()
    found.breaks("pci", "DG101", "lspci -d 10de:", also=("toolkit", "device", "cuda"))
    found.blocks("DG717", "driver")


@produces("DG710")
def test_no_gpu_and_no_driver(diag: Host) -> None:
    diag.profile(*(f"gpu.0.{key}=" for key in GPU_KEYS), "load=no")
    found = diag.check(plan={"cpu_fallback": "never"})
    assert found.verdict["code"] == "DG101"
    found.blocks("DG710", "inventory")


@produces("DG102")
def test_fewer_gpus_than_expected(diag: Host) -> None:
    found = diag.check(gpu_count=2)
    found.breaks("pci", "DG102", "fallen off", seen="1 (NVIDIA A10 (simulated) at 0000:3b:00.0)", also=("cuda", "torch", "kernel"))


@pytest.mark.parametrize("driver", ["nouveau", "nova_core"])
@produces("DG103")
def test_gpu_is_held_by_the_kernels_own_driver(diag: Host, driver: str) -> None:
    diag.profile(f"bound_driver={driver}", "load=no")
    found = diag.check()
    found.breaks("bound", "DG103", f"blacklist {driver}", seen=driver, also=NOT_LOADED)
    found.warns("DG103", driver, "0000:3b:00.0")


@produces("DG104", "DG753")
def test_gpu_is_handed_to_a_virtual_machine(diag: Host) -> None:
    diag.profile("bound_driver=vfio-pci", "load=no")
    found = diag.check()
    found.breaks("bound", "DG104", "0000:3b:00.0", "vfio-pci", seen="vfio-pci", also=NOT_LOADED)
    found.plan_warns("DG753", "0000:3b:00.0")


# --- the driver -----------------------------------------------------------------------------------------------------


@produces("DG106", "DG711")
def test_driver_is_installed_and_not_loaded(host: Host) -> None:
    host.profile("load=no")
    found = host.check()
    found.breaks("bound", "DG106", "modprobe nvidia", "535.274.02 is installed", also=NOT_LOADED)
    found.warns("DG106", "0000:3b:00.0")
    found.blocks("DG711")
    assert found.facts["driver"]["installed"]["version"] == "535.274.02"


@produces("DG106")
def test_no_driver_is_installed(diag: Host) -> None:
    diag.reload("dpkg --purge $(dpkg-query --show --showformat '${Package} ' '*nvidia*')")
    found = diag.check()
    found.breaks("bound", "DG106", "install NVIDIA's driver", also=NOT_LOADED)
    assert found.facts["driver"]["installed"] is None


@produces("DG107", "DG712")
def test_driver_was_upgraded_and_the_host_not_rebooted(host: Host) -> None:
    host.sh("python3 /usr/lib/simgpu/simgpu_stub.py 535.288.01 nvidia-tesla-535")
    host.undo("python3 /usr/lib/simgpu/simgpu_stub.py 535.274.02 nvidia-tesla-535")
    found = host.check()
    found.breaks("driver", "DG107", "reboot", "pin the driver packages", seen="535.274.02 loaded")
    found.warns("DG107", "535.274.02", "535.288.01")
    found.blocks("DG712", "reboot")
    assert found.facts["driver"]["mismatch"] is True


@produces("DG122", "DG758")
def test_another_kernel_module_is_installed_than_is_loaded(diag: Host) -> None:
    stub = STUB.format(postinst=":") + "stub nvidia-tesla-535-kernel-dkms 535.288.01-1\n"
    diag.reload(stub + "dpkg --install --force-depends /tmp/nvidia-tesla-535-kernel-dkms.deb > /dev/null 2>&1\nrm /tmp/*.deb")
    diag.start("it", command="sleep infinity")
    found = diag.check("it", **VARIANT)
    assert found.verdict["overall"] == "proven", "it works until the next boot"
    found.warns("DG122", "535.288.01", "535.274.02")
    found.verdict_warns("DG122")
    found.plan_warns("DG758", "535.288.01")


@produces("DG105")
def test_driver_is_loaded_and_has_refused_the_gpu(diag: Host) -> None:
    diag.reload("true")
    diag.sh("rm /sys/bus/pci/devices/0000:3b:00.0/driver")
    found = diag.check()
    found.breaks("bound", "DG105", "journalctl -k -g NVRM", seen="no driver", also=("toolkit", "cuda"))
    found.warns("DG105", "0000:3b:00.0")


# --- the next boot --------------------------------------------------------------------------------------------------


@produces("DG118", "DG757")
def test_next_kernel_has_no_module(diag: Host) -> None:
    diag.profile("kernels=6.99.1-difyops,running", "next_kernel_module=no")
    diag.start("it", command="sleep infinity")
    found = diag.check("it", **VARIANT)
    assert found.verdict["overall"] == "proven", "it works until the next boot"
    assert found.facts["host"]["kernel"]["next"] == "6.99.1-difyops"
    found.warns("DG118", "6.99.1-difyops")
    found.verdict_warns("DG118")
    found.plan_warns("DG757", "6.99.1-difyops")


@produces("DG119", "DG769")
def test_reboot_is_pending(diag: Host) -> None:
    diag.sh("touch /run/reboot-required; echo linux-image-amd64 > /run/reboot-required.pkgs")
    diag.undo("rm -f /run/reboot-required /run/reboot-required.pkgs")
    found = diag.check()
    found.warns("DG119", "linux-image-amd64")
    found.verdict_warns("DG119")
    found.plan_warns("DG769")


# --- NVSwitches and MIG ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # One of another version than the driver's ends at its start.
    ("manager", "words"),
    [("fabric_manager=", "not installed"), ("fabric_manager=stopped", "not run"), ("fabric_manager=580.65.06", "not run")],
)
@produces("DG117", "DG767", "DG315")
def test_fabric_manager_does_not_serve_the_nvswitches(diag: Host, manager: str, words: str) -> None:
    diag.profile(manager, profile="h100x8-580")
    diag.start("it", command="sleep infinity")
    found = diag.check("it")
    found.breaks("cuda", "DG315", "nvidia-fabricmanager", seen="cuInit 802")
    found.warns("DG117", words)
    found.plan_warns("DG767")


@produces("DG120", "DG317")
def test_mig_mode_is_on_and_there_is_no_mig_device(host: Host) -> None:
    host.profile(*(f"gpu.0.mig_device.{slot}=" for slot in range(3)), profile="a100-mig-550")
    # By CDI no container starts, since there is no device for it.
    host.start("it", *legacy(host), gpu=False, command="sleep infinity")
    found = host.check("it")
    found.warns("DG120", "0000:07:00.0")
    found.breaks("cuda", "DG317", "MIG")


@produces("DG121", "DG768")
def test_change_of_mig_mode_is_pending(host: Host) -> None:
    host.profile("gpu.0.mig=0", "gpu.0.mig_pending=1", profile="a100-mig-550")
    host.start("it", command="sleep infinity")
    found = host.check("it")
    found.warns("DG121", "0000:07:00.0")
    found.plan_warns("DG768", "0000:07:00.0")


# --- NVML -----------------------------------------------------------------------------------------------------------


@produces("DG108", "DG713")
def test_nvml_reports_an_error(host: Host) -> None:
    host.fault("nvml_init_error=999")
    found = host.check()
    found.breaks("nvml", "DG108", "nvidia-smi", "NVRM|Xid", seen="NVML_ERROR_UNKNOWN")
    found.warns("DG108", "NVML_ERROR_UNKNOWN")
    found.blocks("DG713")


@pytest.mark.parametrize("where", ["nvml_init", "nvml_query"])
@produces("DG109", "DG713")
def test_nvml_does_not_answer(host: Host, where: str) -> None:
    host.fault(f"hang={where}")
    found = host.check(facts={"timeout": 5})
    found.breaks("nvml", "DG109", "reboot the host", seen="no answer in time")
    found.warns("DG109")
    found.blocks("DG713")
    assert found.facts["nvml"]["error"] == {**found.facts["nvml"]["error"], "code": None, "name": "TIMEOUT"}


@produces("DG110")
def test_nobody_can_ask_nvml(cli: Host) -> None:
    cli.sh("mv /usr/bin/nvidia-smi /var/tmp/nvidia-smi.away")
    cli.undo("mv /var/tmp/nvidia-smi.away /usr/bin/nvidia-smi")
    found = cli.check()
    found.breaks("nvml", "DG110", "nvidia-smi", overall="unproven")
    found.warns("DG110", "pynvml", "nvidia-smi")


@produces("DG111", "DG714")
def test_gpu_is_lost(host: Host) -> None:
    host.fault("gpu.0.error=15")
    found = host.check()
    found.breaks("nvml", "DG111", "0000:3b:00.0", "reboot the host", seen="lost", also=("cuda",))
    found.warns("DG111", "0000:3b:00.0")
    found.blocks("DG714", "lost")


@produces("DG112", "DG714")
def test_gpu_needs_a_reset(host: Host) -> None:
    host.fault("gpu.0.error=16")
    found = host.check()
    found.breaks("nvml", "DG112", "nvidia-smi --gpu-reset -i 0000:3b:00.0", seen="reset_required", also=("cuda",))
    found.warns("DG112", "0000:3b:00.0")
    found.blocks("DG714", "reset")


# --- packages and rights --------------------------------------------------------------------------------------------

@produces("DG113")
def test_package_installation_was_interrupted(cli: Host) -> None:
    cli.sh(STUB.format(postinst=":") + "stub nvidia-persistenced 535.274.02-1\ndpkg --unpack /tmp/nvidia-persistenced.deb\nrm /tmp/*.deb")
    cli.undo("dpkg --purge nvidia-persistenced")
    cli.check().warns("DG113", "nvidia-persistenced", "dpkg --configure -a")


@produces("DG114")
def test_package_database_cannot_be_read(diag: Host) -> None:
    answer = "#!/bin/sh\\necho error: database is locked >&2\\nexit 2\\n"
    diag.sh(f"cd /usr/bin; mv dpkg-query dpkg-query.away; printf '{answer}' > dpkg-query; chmod 755 dpkg-query")
    diag.undo("mv /usr/bin/dpkg-query.away /usr/bin/dpkg-query")
    found = diag.check()
    found.warns("DG114", "database is locked")
    assert found.facts["driver"]["installed"] is None


@produces("DG115", "DG752")
def test_toolkit_packages_are_of_two_versions(diag: Host) -> None:
    install_toolkit(diag, "1.19.1-1", container1="1.17.8-1")
    found = diag.check()
    found.warns("DG115", "1.19.1-1", "1.17.8-1")
    found.plan_warns("DG752")
    assert found.facts["toolkit"]["lockstep"] is False


@produces("DG116")
def test_facts_are_gathered_without_root(diag: Host) -> None:
    found = diag.check(play={"vars": {"ansible_user": diag.user("watcher")}})
    found.warns("DG116", "without root")
    assert found.facts["gpus"][0]["name"] == "NVIDIA A10 (simulated)"
