# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong between the engine and the container: each test breaks one thing on a simulated host."""
from __future__ import annotations

import json

import pytest

from .lab import CONTAINER, SECOND_GPU, VARIANT, Host, install_toolkit, legacy

produces = pytest.mark.produces
DAEMON = "/etc/docker/daemon.json"
SPEC = "/var/run/cdi/nvidia.yaml"
FEATURES = {"features": {"cdi": True}}
# A container whose server does not matter.
IDLE = "sleep infinity"


def configure(host: Host, reload: bool = False, **settings: object) -> None:
    """Give Docker another configuration, by a restart or (what it takes over at run time) by a reload. A restart ends the containers."""
    verb = "reload" if reload else "restart"
    host.sh(f"cp -p {DAEMON} {DAEMON}.good")
    host.undo_container()
    host.undo(f"mv {DAEMON}.good {DAEMON}; systemctl reset-failed docker.service docker.socket; systemctl {verb} docker")
    write_config(host, json.dumps(settings), verb)


def write_config(host: Host, text: str, verb: str | None) -> None:
    # Several restarts within seconds are more than systemd allows by itself.
    command = f"systemctl reset-failed docker.service docker.socket; systemctl {verb} docker" if verb else "true"
    host.sh(f"cat > {DAEMON} <<'END'\n{text}\nEND\n{command}")


# --- the engine -----------------------------------------------------------------------------------------------------


@produces("DG201", "DG721")
def test_engine_is_stopped(host: Host) -> None:
    host.undo_container()
    host.undo("systemctl start docker.socket docker.service")
    host.sh("systemctl stop docker.service docker.socket")
    found = host.check()
    found.breaks("engine", "DG201", "systemctl start docker", also=("toolkit",))
    found.warns("DG201")
    found.blocks("DG721")
    assert found.facts["engine"]["running"] is False


@produces("DG202", "DG217", "DG724")
def test_cdi_is_switched_off(diag: Host) -> None:
    configure(diag, features={"cdi": False})
    diag.sh(f"docker start {CONTAINER} || true")
    found = diag.check()
    found.breaks("toolkit", "DG202", '{"features": {"cdi": true}}', seen="CDI is off", also=("engine",))
    found.warns("DG217", "CDI", "nvidia runtime")
    found.blocks("DG724", "cdi")
    assert found.facts["engine"]["cdi_enabled"] is False


@produces("DG216")
def test_configuration_file_is_broken(diag: Host) -> None:
    diag.sh(f"cp -p {DAEMON} {DAEMON}.good")
    diag.undo(f"mv {DAEMON}.good {DAEMON}")
    write_config(diag, '{"features": {"cdi": true}', None)
    found = diag.check(**VARIANT)
    assert found.verdict["overall"] == "proven", "the engine runs on with what it read at its start"
    found.warns("DG216", DAEMON)
    found.verdict_warns("DG216", DAEMON)


@produces("DG216")
def test_engine_does_not_start_with_a_broken_file(diag: Host) -> None:
    configure(diag, **FEATURES)
    diag.undo("systemctl reset-failed docker.service docker.socket; systemctl start docker.socket || true")
    diag.sh("systemctl stop docker.service docker.socket")
    write_config(diag, '{"features": {"cdi": true}', None)
    diag.sh("systemctl start docker 2> /dev/null || true")
    diag.check().breaks("engine", "DG216", "dockerd --validate", seen=DAEMON, also=("toolkit",))


# --- the toolkit and its specifications -----------------------------------------------------------------------------


@produces("DG212")
def test_toolkit_is_not_installed(diag: Host) -> None:
    diag.profile("cdi=no")
    found = diag.check()
    found.breaks("toolkit", "DG212", "nvidia-container-toolkit", "1.19.1", seen="no package of the toolkit", also=("cuda",))
    found.warns("DG212")


@produces("DG213", "DG751")
def test_toolkit_is_unsafe(diag: Host) -> None:
    install_toolkit(diag, "1.17.8-1")
    found = diag.check(**VARIANT)
    assert found.verdict["overall"] == "proven"
    found.verdict_warns("DG213", "1.17.8", "1.19.1")
    found.plan_warns("DG751", "1.17.8")


@produces("DG214", "DG759")
def test_specification_is_out_of_date(cli: Host) -> None:
    cli.profile(*SECOND_GPU, "cdi=keep")
    found = cli.check(gpu_count=1)
    found.warns("DG214", SPEC)
    found.verdict_warns("DG214", SPEC)
    found.plan_warns("DG759", SPEC)


@produces("DG215")
def test_specification_cannot_be_read(cli: Host) -> None:
    cli.sh("mkdir -p /etc/cdi; echo 'kind: [nvidia.com/gpu' > /etc/cdi/half.yaml")
    cli.undo("rm /etc/cdi/half.yaml")
    found = cli.check(**VARIANT)
    found.warns("DG215", "/etc/cdi/half.yaml")
    found.verdict_warns("DG215", "/etc/cdi/half.yaml")


@produces("DG218")
def test_device_is_defined_twice(diag: Host) -> None:
    diag.sh(f"mkdir -p /etc/cdi; cp {SPEC} /etc/cdi/old.yaml")
    diag.undo("rm /etc/cdi/old.yaml")
    found = diag.check(**VARIANT)
    found.warns("DG218", "/etc/cdi/old.yaml")
    found.verdict_warns("DG218", "/etc/cdi/old.yaml")


@produces("DG203", "DG725")
def test_no_cdi_specification(diag: Host) -> None:
    install_toolkit(diag, "1.19.1-1")
    diag.sh(f"mv {SPEC} /var/tmp/nvidia.yaml")
    diag.undo(f"mv /var/tmp/nvidia.yaml {SPEC}")
    found = diag.check()
    # The container that runs keeps its GPU, the next one would get none.
    assert found.verdict["overall"] == "proven"
    found.verdict_warns("DG203", "no specification")
    found.blocks("DG725", "nvidia-ctk cdi generate")


# --- the container --------------------------------------------------------------------------------------------------


@produces("DG204")
def test_container_is_not_there(cli: Host) -> None:
    cli.check("no-such-container").breaks("engine", "DG204", "gpu_verify")


@pytest.mark.parametrize(
    ("command", "seen"),
    [("docker stop --time 1 it", "exited"), ("docker kill it", "exit status 137"), ("docker pause it", "paused")],
)
@produces("DG205")
def test_container_does_not_run(diag: Host, command: str, seen: str) -> None:
    diag.start("it", command=IDLE)
    diag.sh(command)
    diag.check("it").breaks("engine", "DG205", "docker logs it", seen=seen)


@produces("DG205")
def test_container_keeps_ending(cli: Host) -> None:
    cli.start("it", "--restart always", command="sh -c 'exit 3'")
    # The engine waits twice as long after each end: by now far longer than the modules take to look.
    state = "{{.State.Status}} {{ge .RestartCount 7}}"
    cli.sh(f"until [ \"$(docker inspect --format '{state}' it)\" = 'restarting true' ]; do sleep 0.1; done")
    cli.check("it").breaks("engine", "DG205", "docker logs it", seen="restarting (exit status 3)")


@produces("DG206")
def test_container_is_unhealthy(diag: Host) -> None:
    check = "--health-cmd 'echo the model is not there; false' --health-interval 1s --health-retries 1 --health-start-period 1ms"
    diag.start("it", check, command=IDLE)
    diag.sh("until [ $(docker inspect --format '{{.State.Health.Status}}' it) = unhealthy ]; do sleep 0.2; done")
    diag.check("it", health=True).breaks("engine", "DG206", "docker logs it", seen="the model is not there")


@produces("DG207")
def test_container_does_not_become_healthy(diag: Host) -> None:
    diag.start("it", "--health-cmd false --health-interval 1s --health-start-period 10m", command=IDLE)
    diag.check("it", health=True, health_timeout_s=2).breaks("engine", "DG207", "health_timeout_s", seen="still starting")


@produces("DG208")
def test_image_has_no_python(host: Host) -> None:
    image = host.build("nopython", "FROM standin:cuda12.6\nUSER 0\nRUN rm -f /usr/bin/python3* /usr/local/bin/python*\nUSER 10001")
    host.start("it", image=image, command=IDLE)
    host.check("it").breaks("device", "DG208", "option python", overall="unproven")


@produces("DG209")
def test_probe_cannot_be_started(diag: Host) -> None:
    wrapper = "#!/bin/sh\\necho this interpreter is for the service only\\nexit 1\\n"
    lines = f"USER 0\nRUN printf '{wrapper}' > /usr/local/bin/python3 && chmod 755 /usr/local/bin/python3\nUSER 10001"
    diag.start("it", image=diag.build("refuses", f"FROM standin:cuda12.6\n{lines}"), command=IDLE)
    diag.check("it", python=["python3"]).breaks("device", "DG209", "docker exec it true", "for the service only", overall="unproven")


@produces("DG210")
def test_container_was_started_without_a_gpu(cli: Host) -> None:
    cli.start("it", gpu=False, command=IDLE)
    cli.check("it").breaks("toolkit", "DG210", "devices: [nvidia.com/gpu=all]", also=("device", "cuda"))


# --- NVIDIA's runtime, the way before CDI ---------------------------------------------------------------------------

RUNTIMES = {name: {"path": "/usr/sbin/runc"} for name in ("nvidia", "other")}


def with_runtimes(host: Host, *names: str) -> None:
    """Wait until the engine has taken over these of them and no other: a reload is over before its work is."""
    known = "docker info --format '{{range $name, $runtime := .Runtimes}}{{println $name}}{{end}}' | grep -xE 'nvidia|other' | xargs"
    host.sh(f"for try in $(seq 100); do [ \"$({known})\" != '{' '.join(names)}' ] || exit 0; sleep 0.1; done; {known}; exit 1")


@produces("DG211")
def test_nvidia_runtime_is_gone(diag: Host) -> None:
    configure(diag, reload=True, runtimes=RUNTIMES, **FEATURES)
    with_runtimes(diag, "nvidia", "other")
    diag.start("it", "--runtime nvidia", *legacy(diag), gpu=False, command=IDLE)
    before = diag.check("it").verdict
    assert before["overall"] == "proven"
    assert "runtime nvidia" in next(link["seen"] for link in before["links"] if link["link"] == "toolkit")
    write_config(diag, json.dumps({**FEATURES, "runtimes": {"other": RUNTIMES["other"]}}), "reload")
    with_runtimes(diag, "other")
    # The container was given its GPU before, and still computes with it: what a new one would not get is worth a warning.
    after = diag.check("it")
    assert after.verdict["overall"] == "proven"
    after.verdict_warns("DG211", "other")


@produces("DG302")
def test_runtime_lost_its_device_rules(diag: Host) -> None:
    # The nodes mounted and not granted: what a container of the runtime is left with when its rules are made anew without the GPU.
    configure(diag, reload=True, runtimes=RUNTIMES, **FEATURES)
    with_runtimes(diag, "nvidia", "other")
    diag.start("it", "--runtime nvidia", *(option.replace("--device ", "--volume ") for option in legacy(diag)), gpu=False, command=IDLE)
    diag.check("it").breaks("device", "DG302", "recreate the container", "CDI", seen="EPERM", also=("cuda",))
