# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated hosts of the diagnosis tests, the real modules run on them through Ansible, and what a test says about the outcome."""
from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[3]
SIMHOST = REPO / "tests/simhost/simhost"
PLUGINS = Path(__file__).resolve().parent / "callback_plugins"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
PROFILE = "a10-535"
# The container that is proven before and after every test, and what it is.
CONTAINER = "dify"
VARIANT = {"variant": "cuda12.6", "torch": "2.14.1", "cuda": "12.6"}
SM = "5.0 6.0 7.0 7.5 8.0 8.6 9.0"
# Every key of the profile's GPU: without any of them there is no GPU, and the driver is loaded all the same.
GPU_KEYS = (
    "pci", "name", "device_id", "subsystem_vendor", "subsystem_device", "class", "uuid", "serial", "vbios", "architecture",
    "compute_capability", "multiprocessors", "clock_khz", "memory_mib", "memory_reserved_mib", "persistence", "compute_mode", "ecc", "mig",
)
# Another GPU beside the one of the profile, of the same kind.
SECOND_GPU = (
    "gpu.1.pci=0000:af:00.0", "gpu.1.name=NVIDIA A10 (simulated)", "gpu.1.device_id=0x2236", "gpu.1.subsystem_vendor=0x10de",
    "gpu.1.subsystem_device=0x1482", "gpu.1.class=0x030200", "gpu.1.uuid=GPU-a1000000-5350-4274-8002-000000000002", "gpu.1.architecture=7",
    "gpu.1.compute_capability=8.6", "gpu.1.multiprocessors=72", "gpu.1.clock_khz=1695000", "gpu.1.memory_mib=23028", "gpu.1.compute_mode=0",
)
HOST_LINKS = ("pci", "bound", "driver", "nvml", "toolkit", "engine")


def key_file() -> Path:
    """Return the SSH key of all simulated hosts, where simhost keeps it."""
    cache = os.environ.get("SIMHOST_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "difyops-simhost/id_ed25519"


def collections_path() -> str:
    """Return where Ansible finds the collection of this working tree, and the collections that it depends on."""
    if given := os.environ.get("ANSIBLE_COLLECTIONS_PATH"):
        return given
    if REPO.parts[-3:] == ("ansible_collections", "difyops", "gpu"):
        return str(REPO.parents[2])
    sys.path.insert(0, str(REPO / "tests/checks"))
    import tree

    tree.mirror()
    return f"{tree.COLLECTIONS}{os.pathsep}{tree.INSTALLED}"


@dataclass(frozen=True)
class TaskResult:
    """How one task ended on one host, seconds after it began on the first."""

    host: str
    task: str
    action: str
    status: str
    seconds: float
    result: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One ansible-playbook run. Times in seconds."""

    rc: int
    output: str
    seconds: float
    results: list[TaskResult]

    def of(self, action: str, host: str | None = None) -> dict[str, Any]:
        """Return the result of the last task with this action."""
        found = [one for one in self.results if one.action == action and host in (None, one.host)]
        assert found, f"no result of {action}:\n{self.output}"
        return found[-1].result


@dataclass
class Fleet:
    """A fleet of simulated hosts that is up."""

    file: Path
    scratch: Path
    raw: dict[str, Any] = field(init=False)
    collections: str = field(init=False)

    def __post_init__(self) -> None:
        self.raw = json.loads(self.file.read_text(encoding="utf-8"))
        self.collections = collections_path()

    def simhost(self, command: str, *arguments: str, timeout_s: float = 600) -> str:
        """Run one of simhost's commands on this fleet and return what it printed."""
        argv = [str(SIMHOST), command, "--fleet", str(self.file), *arguments]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"{shlex.join(argv)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def inventory(self, **hosts: dict[str, Any]) -> Path:
        """Return an inventory with all hosts of the fleet, and with other variables or other hosts beside them."""
        entries: dict[str, dict[str, Any]] = {name: {"ansible_port": host["publish"]["ssh"]} for name, host in self.raw["hosts"].items()}
        for name, variables in hosts.items():
            entries[name.replace("_", "-")] = {**entries.get(name.replace("_", "-"), {}), **variables}
        common = {
            "ansible_host": "127.0.0.1",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(key_file()),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        }
        path = self._file("inventory", "json")
        path.write_text(json.dumps({"all": {"children": {"dify_gpu": {"hosts": entries, "vars": common}}}}))
        return path

    def _file(self, stem: str, suffix: str) -> Path:
        return self.scratch / f"{stem}-{len(list(self.scratch.iterdir()))}.{suffix}"

    def environment(self, results: Path, **extra: str) -> dict[str, str]:
        """Return the environment of an Ansible run, without what a surrounding run put there."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
            "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": self.collections,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACKS_ENABLED": "task_results",
            "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS),
            "TASK_RESULTS_FILE": str(results),
            **extra,
        }

    def ansible(self, playbook: Path | str, *arguments: str, inventory: Path | None = None, timeout_s: float = 300, **extra: str) -> Run:
        """Run a playbook with ``ansible-playbook``; ``extra`` goes into its environment. Whatever its outcome, it is returned."""
        results = self._file("results", "jsonl")
        argv = ["ansible-playbook", "-i", str(inventory or self.inventory()), *arguments, str(playbook)]
        started = time.monotonic()
        done = subprocess.run(
            argv, cwd=REPO, check=False, capture_output=True, text=True, timeout=timeout_s, env=self.environment(results, **extra)
        )
        seconds = time.monotonic() - started
        lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
        return Run(done.returncode, ANSI.sub("", done.stdout + done.stderr), seconds, [TaskResult(**json.loads(line)) for line in lines])

    def play(self, hosts: str, *tasks: dict[str, Any], arguments: Iterable[str] = (), **keywords: Any) -> Run:
        """Run tasks on hosts, with keywords of a play (become, gather_facts, ...)."""
        playbook = self._file("playbook", "json")
        inventory = keywords.pop("inventory", None)
        environment = keywords.pop("environ", {})
        play = {"name": "Test", "hosts": hosts, "gather_facts": False, **keywords, "tasks": list(tasks)}
        playbook.write_text(json.dumps([play]))
        return self.ansible(playbook, *arguments, inventory=inventory, **environment)


@dataclass
class Outcome:
    """What the modules said of one host in one state: facts, plan and verdict. Each assertion notes the code that it has seen."""

    facts: dict[str, Any]
    plan: dict[str, Any]
    verdict: dict[str, Any]
    seen: set[str]

    def breaks(self, link: str, code: str, *remedy: str, seen: str = "", overall: str = "failed", also: Iterable[str] = ()) -> None:
        """Assert that the verdict names this link and code as its reason, that the remedy has these words, and that nothing else is broken.

        ``also`` are links that the same cause breaks as well.
        """
        links = {one["link"]: one for one in self.verdict["links"]}
        told = json.dumps([{key: value for key, value in one.items() if value} for one in links.values()], indent=1)
        assert (self.verdict["overall"], self.verdict["code"]) == (overall, code), told
        assert links[link]["code"] == code, told
        assert links[link]["status"] == ("failed" if overall == "failed" else "skipped"), told
        assert seen in links[link]["seen"], told
        for words in remedy:
            assert words in self.verdict["remedy"], self.verdict["remedy"]
        others = {name for name, one in links.items() if one["code"] and name != link} - set(also)
        assert not others, f"broken as well: {sorted(others)}\n{told}"
        before = HOST_LINKS[: HOST_LINKS.index(link)] if link in HOST_LINKS else HOST_LINKS
        assert all(links[name]["status"] == "ok" for name in before if name not in also), told
        self.seen.add(code)

    def warns(self, code: str, *words: str) -> None:
        """Assert a warning of the facts with these words."""
        self._warned(self.facts["warnings"], code, words)

    def verdict_warns(self, code: str, *words: str) -> None:
        """Assert a warning of the verdict with these words."""
        self._warned(self.verdict.get("warnings") or [], code, words)

    def plan_warns(self, code: str, *words: str) -> None:
        """Assert a warning of the plan with these words."""
        self._warned(self.plan["warnings"], code, words)

    def blocks(self, code: str, *words: str) -> None:
        """Assert that the plan is blocked for this reason, and does nothing."""
        assert self.plan["status"] == "blocked", self.plan["status"]
        assert {part["action"] for part in self.plan["parts"].values()} <= {"none", "blocked"}
        found = [entry for entry in self.plan["blocked"] if entry["code"] == code]
        assert found, self.plan["blocked"]
        text = f"{found[0]['message']} {found[0]['remedy']}"
        assert all(word in text for word in words), text
        self.seen.add(code)

    def rejects(self, variant: str, code: str, *words: str) -> None:
        """Assert that the plan rejected this variant for this reason."""
        found = [entry for entry in self.plan["rejected"] if entry["variant"] == variant]
        assert found and found[0]["code"] == code, self.plan["rejected"]
        assert all(word in found[0]["reason"] for word in words), found
        self.seen.add(code)

    def _warned(self, warnings: list[dict[str, str]], code: str, words: Iterable[str]) -> None:
        found = [one["message"] for one in warnings if one["code"] == code]
        assert found, warnings
        assert all(word in " ".join(found) for word in words), found
        self.seen.add(code)


def legacy(host: Host) -> list[str]:
    """Return the options of ``docker run`` that give a container its GPU without CDI, as NVIDIA's runtime does from within."""
    nodes = [f"--device {node}:{node}" for node in host._sh("ls /dev/nvidiactl /dev/nvidia-uvm* /dev/nvidia[0-9]*").split()]
    files = ["/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/run/simgpu/module", "/etc/simgpu"]
    return nodes + [f"--volume {file}:{file}:ro" for file in files]


# A package with nothing in it, under the name and version of a real one; its description says so.
STUB = """
stub() {{ # name version
    mkdir -p /tmp/stub-$1/DEBIAN
    printf '%s\\n' "Package: $1" "Version: $2" 'Architecture: amd64' 'Maintainer: the difyops.gpu authors <nobody@localhost>' \\
        'Description: SIMULATED, empty' > /tmp/stub-$1/DEBIAN/control
    {postinst}
    dpkg-deb -Znone --root-owner-group --build /tmp/stub-$1 /tmp/$1.deb > /dev/null
    rm -r /tmp/stub-$1
}}
"""
TOOLKIT = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")


def install_toolkit(host: Host, version: str, container1: str | None = None) -> None:
    """Install stubs of the toolkit's four packages, the last one in another version when wanted."""
    versions = [version] * 3 + [container1 or version]
    calls = "\n".join(f"stub {name} {one}" for name, one in zip(TOOLKIT, versions))
    host.sh(f"{STUB.format(postinst=':')}\n{calls}\ndpkg --install /tmp/*.deb > /dev/null\nrm /tmp/*.deb")
    host.undo(f"dpkg --purge {' '.join(TOOLKIT)} > /dev/null")


def _attempt(undo: Callable[[], object]) -> str | None:
    """Return what went wrong, if anything did."""
    try:
        undo()
    except (AssertionError, subprocess.SubprocessError) as problem:
        return str(problem)
    return None


class Host:
    """One simulated host, a way to break it, and the way back."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name
        self.container = f"{fleet.raw['prefix']}-{name}"
        self.seen: set[str] = set()
        self._undo: list[Callable[[], object]] = []
        self._reloaded = False
        # Whether something of the host itself was changed since it was last proven; containers of a test's own do not count.
        self.touched = True

    # what a test does to it

    def sh(self, script: str) -> str:
        """Run a shell script on the host as root, and return what it printed. What it changes is the test's to undo."""
        self.touched = True
        return self._sh(script)

    def _sh(self, script: str, timeout_s: float = 600) -> str:
        argv = ["docker", "exec", "-i", self.container, "sh", "-e"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout_s, input=script)
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def undo(self, script: str) -> None:
        """Have a shell script run when the test is over; the last one is run first."""
        self._undo.append(lambda: self._sh(script))

    def undo_container(self) -> None:
        """Have the proven container made anew when the test is over."""
        self._undo.append(lambda: self.start(CONTAINER))

    def profile(self, *overrides: str, profile: str = PROFILE) -> None:
        """Give the host another profile, or its own with faults, as ``key=value``. The simulated module is loaded anew."""
        self._reloading()
        self.fleet.simhost("profile", self.name, profile, *overrides)

    def reload(self, script: str) -> None:
        """Run a shell script, then load the simulated module anew, as a reboot does."""
        self._reloading()
        self.sh(f"{script}\nsystemctl restart simgpu.service")

    def _reloading(self) -> None:
        self.touched = True
        if not self._reloaded:
            self._undo.append(self._own_profile)
        self._reloaded = True

    def _own_profile(self) -> None:
        self.fleet.simhost("profile", self.name, PROFILE)
        self.start(CONTAINER)

    def fault(self, *pairs: str) -> None:
        """Set keys of the profile that what runs follows at once: faults of the driver, which leave the module loaded."""
        keep = "/etc/simgpu/profile.good"
        self.sh(f"cp /etc/simgpu/profile {keep}")
        # In place, since containers have the file mounted.
        self.undo(f"cat {keep} > /etc/simgpu/profile; rm {keep}")
        keys = "|".join(re.escape(pair.partition("=")[0]) for pair in pairs)
        lines = "\n".join(pairs)
        self.sh(f"{{ grep -vE '^({keys})=' {keep}; cat <<'END'\n{lines}\nEND\n}} > /tmp/profile; cat /tmp/profile > /etc/simgpu/profile")

    def start(self, name: str, *options: str, image: str = "standin:cuda12.6", gpu: bool = True, command: str = "") -> str:
        """Start a container (a former one of this name goes) and return its id. All but the proven one are removed after the test."""
        if name != CONTAINER:
            self.undo(f"docker rm --force --volumes {name}")
        device = "--device nvidia.com/gpu=all" if gpu else ""
        started = self._sh(
            f"docker rm --force --volumes {name} > /dev/null 2>&1 || true\n"
            f"docker run --detach --name {name} --env API_KEY=a-key-of-the-diagnosis-tests {device} {' '.join(options)} {image} {command}"
        ).strip()
        if name == CONTAINER:
            # Under load the engine may take a moment until it lets a program in.
            self._sh(f"for try in $(seq 50); do docker exec {name} true && exit; sleep 0.3; done; exit 1")
        return started

    def user(self, name: str) -> str:
        """Make a user who may log in and nothing else, and return the name. The test over, nobody of this name is left."""
        self.sh(f"useradd --create-home {name}; install -d -o {name} -m 700 /home/{name}/.ssh; "
                f"install -o {name} -m 600 ~root/.ssh/authorized_keys /home/{name}/.ssh/authorized_keys")
        # The user's processes take a moment to end, and may be followed by the last ones of the session.
        again = f"pkill -KILL -u {name} || true; userdel --remove {name} 2> /dev/null && exit; sleep 0.2"
        self.undo(f"for try in $(seq 50); do {again}; done; exit 1")
        return name

    def build(self, tag: str, dockerfile: str) -> str:
        """Build an image from a few lines, kept for the session, and return its reference."""
        self._sh(f"docker image inspect {tag} > /dev/null 2>&1 || docker build --quiet --tag {tag} - <<'END'\n{dockerfile}\nEND")
        return tag

    def standin(self, tag: str, **arguments: str) -> str:
        """Build a stand-in image with other build arguments, kept for the session, and return its reference."""
        defaults = {"VARIANT": tag, "TORCH_VERSION": VARIANT["torch"], "CUDA_VERSION": VARIANT["cuda"], "SM_LIST": SM}
        defaults["IMAGE_VERSION"] = "0.1.0"
        words = " ".join(f"--build-arg {shlex.quote(f'{key}={value}')}" for key, value in {**defaults, **arguments}.items())
        reference = f"standin:{tag}"
        if self._sh(f"docker image inspect {reference} > /dev/null 2>&1 && echo there || true").strip() == "there":
            return reference
        packed = subprocess.run(["tar", "-C", str(REPO / "tests/simhost/standin-image"), "-c", "."], check=True, capture_output=True).stdout
        build = f"docker build --quiet --tag {reference} {words} -"
        argv = ["docker", "exec", "-i", self.container, "sh", "-c", build]
        done = subprocess.run(argv, check=False, capture_output=True, input=packed)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return reference

    # what the modules say of it

    def check(
        self, container: str = CONTAINER, *, facts: dict[str, Any] | None = None, plan: dict[str, Any] | None = None,
        play: dict[str, Any] | None = None, **verify: Any,
    ) -> Outcome:
        """Observe, plan and verify through Ansible, and return all three. Keywords are options of the modules."""
        options = {"health": False, "timeout_s": 30, "container": container, "facts": "{{ ansible_facts['nvidia'] }}", **verify}
        run = self.fleet.play(
            self.name,
            {"name": "Observe", "difyops.gpu.nvidia_facts": facts or {}},
            {"name": "Decide", "difyops.gpu.gpu_plan": {"dify": {}, "apply": ["image", "service"], **(plan or {})}},
            {"name": "Prove", "difyops.gpu.gpu_verify": options},
            **(play or {}),
        )
        assert run.rc == 0, run.output
        documents = [run.of(f"difyops.gpu.{action}")["ansible_facts"][name] for action, name in (
            ("nvidia_facts", "nvidia"), ("gpu_plan", "gpu_plan"), ("gpu_verify", "gpu_verdict"))]
        return Outcome(*documents, seen=self.seen)

    def plan(self, **options: Any) -> Outcome:
        """Observe and plan through Ansible. Keywords are options of the plan."""
        decide = {"dify": {}, "apply": ["image", "service"], **options}
        run = self.fleet.play(self.name, {"difyops.gpu.nvidia_facts": {}}, {"difyops.gpu.gpu_plan": decide})
        assert run.rc == 0, run.output
        facts, plan = (run.of(f"difyops.gpu.{action}")["ansible_facts"] for action in ("nvidia_facts", "gpu_plan"))
        return Outcome(facts["nvidia"], plan["gpu_plan"], verdict={}, seen=self.seen)

    def good(self) -> None:
        """Assert that the host is as it should be; where nothing of it was touched, it is as it was when that was asserted last."""
        if not self.touched:
            return
        run = self.fleet.play(self.name, {"difyops.gpu.gpu_verify": {"health": False, "container": CONTAINER, **VARIANT}})
        verdict = run.of("difyops.gpu.gpu_verify")["ansible_facts"]["gpu_verdict"]
        self.touched = False
        assert verdict["overall"] == "proven", json.dumps([link for link in verdict["links"] if link["code"]], indent=1)

    # the way back

    def heal(self) -> None:
        """Undo what the test did, in reverse; all of it, even when a part fails."""
        problems = [problem for problem in map(_attempt, reversed(self._undo)) if problem]
        self._undo.clear()
        self._reloaded = False
        assert not problems, "\n".join(problems)

    def prepare(self) -> None:
        """Bring a host that is up into its good state: its own profile, the image, the container."""
        self.standin("cuda12.6")
        self.start(CONTAINER)

    def renew(self) -> None:
        """Make the host anew, after a test that left it broken: one failure must not hide the others."""
        self._undo.clear()
        self._reloaded = False
        self.touched = True
        self.fleet.simhost("down", self.name)
        self.fleet.simhost("up", self.name)
        self.prepare()
