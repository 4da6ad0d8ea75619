# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan's codes that the state of a host produces; those of its options and of a whole fleet have unit tests."""
from __future__ import annotations

import pytest

from .lab import GPU_KEYS, SECOND_GPU, Host

produces = pytest.mark.produces
PLUGINS = "/usr/libexec/docker/cli-plugins"
NO_GPU = tuple(f"gpu.0.{key}=" for key in GPU_KEYS)


# --- which image fits -----------------------------------------------------------------------------------------------


@produces("DG708")
def test_good_host(cli: Host) -> None:
    found = cli.plan()
    assert found.plan["image"]["variant"] == "cuda12.6" and found.plan["blocked"] == []
    found.rejects("cuda11.8", "DG708")


@produces("DG701", "DG703")
def test_driver_is_too_old_for_every_variant(cli: Host) -> None:
    cli.profile("driver_version=440.118.02")
    found = cli.plan()
    found.blocks("DG701")
    found.rejects("cuda11.8", "DG703", "450.80.02")


@produces("DG704")
def test_gpu_is_too_old_for_the_newer_variants(cli: Host) -> None:
    cli.profile(profile="v100-580")
    cli.plan().rejects("cuda13.0", "DG704", "7.0")


@produces("DG707")
def test_nobody_knows_the_gpu(cli: Host) -> None:
    cli.profile("gpu.0.device_id=0xfff0")
    cli.sh("mv /usr/bin/nvidia-smi /var/tmp/nvidia-smi.away")
    cli.undo("mv /var/tmp/nvidia-smi.away /usr/bin/nvidia-smi")
    cli.plan().rejects("cuda12.6", "DG707")


@produces("DG702")
def test_variant_asked_for_does_not_fit(cli: Host) -> None:
    cli.plan(variant="cuda13.0").blocks("DG702", "580.65.06")


@produces("DG706", "DG760")
def test_forward_compatibility(cli: Host) -> None:
    options = {"variant": "cuda13.0", "catalog": [{"name": "cuda13.0", "features": ["cuda_compat"]}]}
    cli.plan(**options).rejects("cuda13.0", "DG706")
    found = cli.plan(**options, forward_compatibility=True)
    assert found.plan["image"]["support"] == "forward"
    found.plan_warns("DG760")


@produces("DG709")
def test_cuda_is_asked_for_where_there_is_no_gpu(cli: Host) -> None:
    cli.profile(*NO_GPU, "driver_version=")
    found = cli.plan(variant="cuda12.6")
    found.rejects("cuda12.6", "DG709")
    found.blocks("DG709")


# --- GPUs that cannot be used ---------------------------------------------------------------------------------------


@produces("DG718")
def test_one_of_two_gpus_is_lost(cli: Host) -> None:
    cli.profile(*SECOND_GPU, "gpu.1.error=15")
    cli.plan().blocks("DG718", "0000:af:00.0", "lost")


@produces("DG728")
def test_gpu_that_was_asked_for_is_gone(cli: Host) -> None:
    cli.plan(gpus=["0", "0000:af:00.0"]).blocks("DG728", "0000:af:00.0")


@produces("DG729")
def test_specification_lacks_a_gpu_that_was_asked_for(cli: Host) -> None:
    cli.profile(*SECOND_GPU, "cdi=keep")
    cli.plan(gpus=["0000:af:00.0"]).blocks("DG729", "nvidia-ctk cdi generate")


@produces("DG756")
def test_host_serves_on_the_cpu_by_consent(cli: Host) -> None:
    cli.profile("load=no")
    found = cli.plan(cpu_fallback="when_gpu_unusable")
    assert found.plan["mode"] == "degraded"
    found.plan_warns("DG756")


@produces("DG762")
def test_driver_without_a_gpu(cli: Host) -> None:
    cli.profile(*NO_GPU, "load=no")
    found = cli.plan()
    assert found.plan["mode"] == "cpu"
    found.plan_warns("DG762")


# --- the engine -----------------------------------------------------------------------------------------------------


@produces("DG720", "DG726")
def test_there_is_no_docker(cli: Host) -> None:
    cli.undo_container()
    cli.undo("rm -f /usr/bin/podman; mv /var/tmp/away/dockerd /usr/sbin/; mv /var/tmp/away/docker /usr/bin/; rmdir /var/tmp/away; "
             "systemctl start docker.socket docker.service")
    cli.sh("systemctl stop docker.service docker.socket; rm -f /run/docker.sock")
    cli.sh("mkdir -p /var/tmp/away; mv /usr/sbin/dockerd /usr/bin/docker /var/tmp/away")
    cli.plan().blocks("DG720")
    cli.sh("printf '#!/bin/sh\\necho podman version 5.4.2\\n' > /usr/bin/podman; chmod 755 /usr/bin/podman")
    cli.plan().blocks("DG726", "podman")


@produces("DG722")
def test_compose_is_missing(cli: Host) -> None:
    cli.sh(f"mv {PLUGINS}/docker-compose /var/tmp/docker-compose")
    cli.undo(f"mv /var/tmp/docker-compose {PLUGINS}/docker-compose")
    cli.plan().blocks("DG722")


@produces("DG723")
def test_compose_is_too_old(cli: Host) -> None:
    cli.sh(f"mv {PLUGINS}/docker-compose /var/tmp/docker-compose")
    cli.undo(f"mv -f /var/tmp/docker-compose {PLUGINS}/docker-compose")
    # Docker asks a plugin for its metadata before it runs it.
    metadata = '{"SchemaVersion": "0.1.0", "Vendor": "simulated", "Version": "2.6.0"}'
    old = f"#!/bin/sh\\n[ \"$1\" = docker-cli-plugin-metadata ] && echo \\047{metadata}\\047 || echo 2.6.0\\n"
    cli.sh(f"printf '{old}' > {PLUGINS}/docker-compose; chmod 755 {PLUGINS}/docker-compose")
    cli.plan().blocks("DG723", "2.6.0")


# --- worth knowing --------------------------------------------------------------------------------------------------


@produces("DG750")
def test_branch_of_the_driver_has_ended(cli: Host) -> None:
    cli.profile(profile="t4-515")
    cli.plan().plan_warns("DG750", "515")


@produces("DG764")
def test_secure_boot_may_refuse_the_next_kernels_module(cli: Host) -> None:
    cli.profile("secure_boot=1", "kernels=6.99.1-difyops,running")
    cli.plan().plan_warns("DG764", "6.99.1-difyops")


@produces("DG765")
def test_driver_is_held_by_nothing(cli: Host) -> None:
    cli.plan(driver={"version": "535.274.02"}).plan_warns("DG765", "535.274.02")


@produces("DG763")
def test_torch_of_the_image_gets_no_newer_release(cli: Host) -> None:
    cli.profile(profile="t4-470")
    cli.plan().plan_warns("DG763")
