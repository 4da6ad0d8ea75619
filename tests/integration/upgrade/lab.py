# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Six simulated hosts with driver 535 behind a real HAProxy, requests that go through it, and what a test says about an upgrade."""
from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from diagnosis.lab import ANSI, REPO, Fleet, Run
from driver.families import STUBS_ONLY
from driver.lab import REBOOTING, Controller

DEPLOY, UPGRADE = REPO / "playbooks/deploy_dify.yml", REPO / "playbooks/upgrade_drivers.yml"
REPORT = "difyops.gpu.gpu_report"
HOSTS = ("g1", "g2", "g3", "g4", "g5", "g6")
# Two have all of Debian's lists, which every call of apt reads through; the others those of the stub repositories only, and dpkg-repack.
FULL = ("g1", "g3")
REPACK = """
mkdir -p /srv/repack/partial
apt-get -qq --yes --no-install-recommends --reinstall --download-only -o Dir::Cache::archives=/srv/repack install dpkg-repack > /dev/null
tar -C /srv/repack -c .
rm -r /srv/repack
"""
OLD, OLD_VARIANT = "535.274.02", "cuda12.6"
KEY = "ForTheTestsOfUpgrades0"
JOURNAL, FAILED = "/var/lib/difyops/upgrade/journal.json", "/var/lib/difyops/upgrade/failed.json"
SERVER = "http://localhost:8099"
HOOKS = REPO / "playbooks/hooks"
# GPUs that break with the newer driver only: it is the boot that breaks them, after the module is loaded and before Docker starts.
BREAKS_WITH_580 = """[Unit]
After=simgpu.service
Before=docker.service
[Service]
Type=oneshot
ExecStart=sed -i /^cu_init_error/d /etc/simgpu/profile
ExecStart=sh -c 'if grep -q ^580 /sys/module/nvidia/version; then echo cu_init_error=999 >> /etc/simgpu/profile; fi'
[Install]
WantedBy=multi-user.target
"""
# A host that reboots may come back with the address that another one had: Docker's name server knows which is whose.
BALANCER = """global
    stats socket /run/haproxy/admin.sock mode 660 level admin
resolvers docker
    nameserver docker 127.0.0.11:53
    hold valid 1s
    hold nx 1h
    hold timeout 1h
    hold refused 1h
    hold other 1h
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
    timeout check 5s
frontend site
    bind *:80
    default_backend dify
backend dify
    option httpchk GET /health
    default-server inter 500ms fall 3 rise 1 check resolvers docker resolve-prefer ipv4 init-addr libc,none
{servers}
"""


# Asks the balancer through its socket.
ASKS = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); "
    "s.sendall(sys.argv[1].encode() + bytes([10])); print(s.makefile().read())"
)


class Load:
    """Requests through the balancer, one after the other in each of some threads, until the block ends."""

    def __init__(self, port: int, threads: int = 1) -> None:
        self.answered, self.problems = 0, []  # type: ignore[var-annotated]
        self._port, self._stop = port, threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _one in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_ignored: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self) -> None:
        body = json.dumps({"model": "simulated", "input": ["a sentence"]})
        while not self._stop.wait(0.1):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
            try:
                headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
                connection.request("POST", "/v1/embeddings", body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.problems.append(f"{time.strftime('%H:%M:%S')} {answer.status} {text[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"{time.strftime('%H:%M:%S')} {error!r}")
            finally:
                connection.close()


class Upgrade:
    """One run of the playbook, and what its report says."""

    def __init__(self, run: Run, file: Path) -> None:
        self.run, self.output, self.rc = run, run.output, run.rc
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.records = {record["host"]: record for record in map(json.loads, lines)}

    def ends(self, host: str, result: str, *words: str, **values: Any) -> dict[str, Any]:
        """Assert how the run ended on a host: the result, words of its sentence, and values of its record."""
        assert host in self.records, f"{host} is not in the report:\n{self.output[-6000:]}"
        record = dict(self.records[host])
        told = f"{json.dumps({key: value for key, value in record.items() if key != 'plan'}, indent=1)}\n{self.output[-9000:]}"
        assert record["result"] == result, told
        assert {key: record[key] for key in values} == values, told
        assert all(word in f"{record['message']} {record['remedy'] or ''}" for word in words), told
        assert "Traceback" not in self.output, self.output
        assert (self.rc == 0) == all(one["ok"] for one in self.records.values()), told
        return record


class Site(Fleet):
    """The fleet, its balancer, and the playbook."""

    @property
    def port(self) -> int:
        """The balancer's port on this machine."""
        return int(self.raw["hosts"]["lb"]["publish"]["web"])

    # the hosts

    def container(self, host: str) -> str:
        return f"{self.raw['prefix']}-{host}"

    def sh(self, host: str, script: str, timeout_s: float = 180) -> str:
        """Run a shell script on a host as root, and return what it printed."""
        argv = ["docker", "exec", "-i", self.container(host), "sh", "-e"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout_s, input=script)
        assert done.returncode == 0, f"{host}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def variables(self, **more: Any) -> dict[str, Any]:
        """Return the variables of a host: the stub of NVIDIA's repository, the consents, the stand-in image, the balancer."""
        repository = {"url": f"{SERVER}/nvidia/debian13/x86_64/", "key": f"{SERVER}/key.asc", "fingerprint": self.fingerprint}
        return {
            **REBOOTING,
            "nvidia_driver_source": "nvidia",
            "nvidia_driver_repository": repository,
            "nvidia_driver_reboot": "if_needed",
            "nvidia_driver_busy": "drain",
            "nvidia_driver_drain_containers": ["dify-gpu-*"],
            "nvidia_container_toolkit_state": "unmanaged",
            "dify_image_context": str(REPO / "tests/simhost/standin-image"),
            "dify_image_base": "difyops-demo/simulated-cuda-base:1",
            "dify_gpu_environment": {"SIMULATED_ANSWERS": "1"},
            "dify_gpu_bind_address": "0.0.0.0",
            "dify_gpu_api_key": KEY,
            # Of one that never gets healthy, this is how long it takes to be seen.
            "dify_gpu_health_timeout": 30,
            "upgrade_out_tasks": str(HOOKS / "haproxy_out.yml"),
            "upgrade_back_tasks": str(HOOKS / "haproxy_back.yml"),
            "upgrade_haproxy_host": "lb",
            "upgrade_haproxy_backend": "dify",
            **more,
        }

    @property
    def fingerprint(self) -> str:
        if not hasattr(self, "_fingerprint"):
            self._fingerprint = self.sh("g1", "cat /srv/simrepo/fingerprint")
        return self._fingerprint

    def begin(self) -> None:
        """Start the balancer, and the service on every host, also where both were before."""
        for host in FULL:
            self.sh(host, "apt-get -qq update")
        repack = subprocess.run(["docker", "exec", self.container(FULL[0]), "sh", "-ec", REPACK], check=True, capture_output=True).stdout
        for host in sorted(set(HOSTS) - set(FULL)):
            unpack = ["docker", "exec", "-i", self.container(host), "tar", "-C", "/srv", "-x", "--one-top-level=repack"]
            subprocess.run(unpack, check=True, input=repack)
            self.sh(host, f"dpkg --install /srv/repack/*.deb > /dev/null; rm -r /srv/repack\n{STUBS_ONLY}")
        self.old(*HOSTS)
        servers = "\n".join(f"    server {host} {self.container(host)}:8000" for host in HOSTS)
        install = "apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install haproxy nginx-light"
        self.sh("lb", f"which haproxy > /dev/null || {{ {install}; systemctl disable --quiet --now nginx; }}", 300)
        self.sh("lb", f"cat > /etc/haproxy/haproxy.cfg <<'END'\n{BALANCER.format(servers=servers)}END\nsystemctl restart haproxy")
        self.until(lambda: set(self.states().values()) == {"UP"}, "every server is up in the balancer")

    def old(self, *hosts: str) -> None:
        """Bring hosts to driver 535 and the image for it, with nothing of a former upgrade."""
        for host in hosts:
            self.sh(host, """
                systemctl disable --quiet breaks.service 2> /dev/null || true
                apt-mark showhold | xargs --no-run-if-empty apt-mark unhold > /dev/null
                rm -rf /etc/systemd/system/breaks.service* /var/lib/difyops /etc/apt/*/*difyops*
                # Other libraries come under the containers, which would keep those that are gone.
                docker ps --quiet --all | xargs --no-run-if-empty docker rm --force > /dev/null
            """)
            self.simhost("profile", host, "a10-535", "package_prefix=nvidia")
        # The driver is the profile's.
        arguments = ["--limit", ",".join(hosts), "--extra-vars", json.dumps({"provision_parts": ["toolkit"]})]
        run = self.ansible(DEPLOY, *arguments, inventory=self._inventory(hosts, None), timeout_s=600)
        assert run.rc == 0, run.output
        balanced = self.sh("lb", "ls /run/haproxy/admin.sock 2> /dev/null || true")
        for host in hosts if balanced else ():
            self._asks(f"set server dify/{host} state ready")

    def states(self) -> dict[str, str]:
        """Return what the balancer says of its servers."""
        rows = [line.split(",") for line in self._asks("show stat").splitlines()]
        return {row[1]: row[17] for row in rows if len(row) > 17 and row[0] == "dify" and row[1] in HOSTS}

    def _asks(self, command: str) -> str:
        return self.sh("lb", f'python3 -c "{ASKS}" "{command}"')

    @staticmethod
    def until(condition: Any, words: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"never came true: {words}"
            time.sleep(0.2)

    def loaded(self, host: str) -> str:
        """Return the version of the loaded driver."""
        return self.sh(host, "cat /sys/module/nvidia/version")

    def serves(self, host: str) -> None:
        """Assert that the balancer has a host, or has it as soon as it has counted the good answers after one that was late."""
        self.until(lambda: self.states()[host] == "UP", f"{host} serves")

    def settled(self, host: str, branch: str) -> None:
        """Assert that a host has a driver of this branch, serves, and nothing of an upgrade is left but the mark of one that failed."""
        assert self.loaded(host).startswith(f"{branch}."), self.loaded(host)
        self.serves(host)
        left = self.sh(host, f"cd {Path(JOURNAL).parent} 2> /dev/null || exit 0; find . -name '*.deb' -o -name journal.json")
        assert left == "", left

    # the playbook

    def upgrade(
        self, hosts: Sequence[str], *arguments: str, branch: str = "580", each: dict[str, dict[str, Any]] | None = None, **variables: Any
    ) -> Upgrade:
        """Upgrade hosts, with variables of all and of each."""
        report = self._file("report", "jsonl")
        run = self.ansible(*self._asked(hosts, arguments, report, branch, variables), inventory=self._inventory(hosts, each), timeout_s=900)
        return Upgrade(run, report)

    def _inventory(self, hosts: Sequence[str], each: dict[str, dict[str, Any]] | None) -> Path:
        return self.inventory(**{host: self.variables(**(each or {}).get(host, {})) for host in hosts})

    @staticmethod
    def _asked(hosts: Sequence[str], arguments: Sequence[str], report: Path, branch: str, variables: dict[str, Any]) -> list[Any]:
        always = {"nvidia_driver_branch": branch, "upgrade_report_path": str(report), "upgrade_max_unavailable": "100%"}
        extra = json.dumps({**always, **variables})
        return [UPGRADE, "--limit", ",".join(hosts), "--extra-vars", extra, *arguments]

    def kill(self, host: str, condition: str, each: dict[str, Any] | None = None, **variables: Any) -> None:
        """Start an upgrade of a host, and kill the controller as soon as a shell condition holds there."""
        playbook, *arguments = self._asked([host], (), self._file("report", "jsonl"), "580", variables)
        inventory = self._inventory([host], {host: each or {}})
        command = ["ansible-playbook", "-i", str(inventory), *arguments, str(playbook)]
        controller = Controller(command, self.environment(self._file("results", "jsonl"), PYTHONUNBUFFERED="1"))
        # The host reboots in between, so this asks anew each time.
        asking = f"for try in $(seq 50); do if {condition}; then exit; fi; sleep 0.05; done; exit 1"
        argv = ["docker", "exec", self.container(host), "sh", "-c", asking]
        deadline = time.monotonic() + 400
        try:
            while subprocess.run(argv, check=False, capture_output=True).returncode != 0:
                assert time.monotonic() < deadline, f"never came true: {condition}\n{controller.output}"
                assert controller._process.poll() is None, f"ended before: {condition}\n{controller.output}"
        finally:
            # Also where the test has failed: nobody else may work on this host.
            if controller._process.poll() is None:
                controller.kill()

    def text(self, output: str) -> str:
        """Return output on one line, as sentences are looked for in it."""
        return re.sub(r"\s+", " ", ANSI.sub("", output))


def phase(name: str) -> str:
    """Return the condition that the journal of the upgrade is in this phase."""
    return f"""grep -q '"phase": *"{name}"' {JOURNAL}"""
