# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Made by tests/tools/amalgamate.py from _nvidia.py and all that it imports. Do not edit."""
# pylint: disable=ansible-bad-function
# ruff: noqa

from __future__ import annotations
import contextlib
import csv
import ctypes
import fnmatch
import glob
import hashlib
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, IO, NamedTuple, Optional, Union

sysfs_SOURCE = "sysfs"
sysfs_NVIDIA = "0x10de"
sysfs__VERSION = re.compile("\\b([0-9]{3}\\.[0-9]{1,3}(?:\\.[0-9]{1,3})?)\\b")
sysfs_Facts = dict[str, Any]


def sysfs_read(root: str, *parts: str) -> str | None:
    try:
        with open(os.path.join(root, *parts), encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return None


def sysfs_listing(root: str, *parts: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(root, *parts)))
    except OSError:
        return []


def sysfs_devices(root: str, kind: str) -> list[tuple[str, str]]:
    directory = os.path.join(root, "sys/bus/pci/devices")
    places = [(address, os.path.join(directory, address)) for address in sysfs_listing(directory)]
    return [
        (name, place)
        for name, place in places
        if sysfs_read(place, "vendor") == sysfs_NVIDIA and (sysfs_read(place, "class") or "").startswith(kind)
    ]


def sysfs_gpus(root: str) -> list[sysfs_Facts]:
    return [
        {
            "pci_address": address.lower(),
            "vendor_id": sysfs_NVIDIA,
            "device_id": sysfs_read(device, "device"),
            "subsystem_vendor_id": sysfs_read(device, "subsystem_vendor"),
            "subsystem_device_id": sysfs_read(device, "subsystem_device"),
            "class": sysfs_read(device, "class"),
            "bound_driver": os.path.basename(os.readlink(link)) if os.path.islink(link) else None,
        }
        for address, device in sysfs_devices(root, "0x03")
        for link in [os.path.join(device, "driver")]
    ]


def sysfs_nodes(root: str) -> list[str]:
    return [f"/dev/{name}" for name in sysfs_listing(root, "dev") if re.fullmatch("nvidia[0-9]+", name)]


def sysfs_openers(root: str) -> list[int]:
    return [pid for pid in sorted((int(name) for name in sysfs_listing(root, "proc") if name.isdigit())) if sysfs__has_gpu_open(root, pid)]


def sysfs__has_gpu_open(root: str, pid: int) -> bool:
    directory = os.path.join(root, "proc", str(pid), "fd")
    for name in sysfs_listing(directory):
        with contextlib.suppress(OSError):
            if re.fullmatch("/dev/nvidia([0-9]+|-uvm)", os.readlink(os.path.join(directory, name))):
                return True
    return False


def sysfs_module_loaded(root: str, name: str) -> bool:
    return os.path.isdir(os.path.join(root, "sys/module", name))


def sysfs_loaded_driver(root: str) -> sysfs_Facts | None:
    text = sysfs_read(root, "proc/driver/nvidia/version")
    version, flavour = sysfs_parse_version(text or "")
    version = sysfs_read(root, "sys/module/nvidia/version") or version
    return None if text is None and (not sysfs_module_loaded(root, "nvidia")) else {"version": version, "flavour": flavour}


def sysfs_parse_version(text: str) -> tuple[str | None, str | None]:
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), "")
    version = sysfs__VERSION.search(line)
    flavour = "open" if "Open Kernel Module" in line else "proprietary" if "Kernel Module" in line else None
    return (version[1] if version else None, flavour)


def sysfs_names(root: str) -> dict[str, sysfs_Facts]:
    directory = os.path.join(root, "proc/driver/nvidia/gpus")
    return {
        address.lower(): sysfs_parse_information(sysfs_read(directory, address, "information") or "")
        for address in sysfs_listing(directory)
    }


def sysfs_parse_information(text: str) -> sysfs_Facts:
    lines = dict((line.split(":", 1) for line in text.splitlines() if ":" in line))
    uuid = lines.get("GPU UUID", "").strip()
    return {"name": lines.get("Model", "").strip() or None, "uuid": uuid if uuid and "?" not in uuid else None}


cdi_DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
cdi__LIBRARY = re.compile("/lib(?:nvidia-ml|cuda)\\.so\\.([0-9]{3}\\.[0-9]{1,3}(?:\\.[0-9]{1,3})?)\\b")
cdi__HOST_PATH = re.compile("\\b(?:hostPath|path)[\"']?\\s*:\\s*[\"']?(/[^\"'\\s,}#]+)")
cdi__FLOW = "its devices are not in block style, the only style of YAML that is read here."
cdi__KIND = re.compile("[\\w.-]+/[\\w.-]+")


class cdi_SpecError(Exception):
    pass


class cdi_Now(NamedTuple):
    driver: str | None
    gpus: Sequence[sysfs_Facts]


def cdi_specs(root: str, directories: Sequence[str], now: cdi_Now) -> list[sysfs_Facts]:
    found = []
    seen = set()
    for directory in directories:
        place = os.path.realpath(os.path.join(root, directory.lstrip("/")))
        if place not in seen:
            found += [
                cdi__spec(root, os.path.join(directory, name), now) for name in sysfs_listing(place) if name.endswith((".json", ".yaml"))
            ]
        seen.add(place)
    for number, spec in enumerate(found):
        here = os.path.dirname(spec["path"])
        rivals = [other for other in found[:number] if os.path.dirname(other["path"]) == here] + found[number + 1 :]
        taken = {device for other in rivals if other["kind"] == spec["kind"] for device in other["devices"]}
        spec["shadowed"] = [device for device in spec["devices"] if device in taken]
    return found


def cdi__spec(root: str, path: str, now: cdi_Now) -> sysfs_Facts:
    nothing: sysfs_Facts = dict.fromkeys(("kind", "driver_version", "stale", "error"))
    facts = {"path": path, **nothing, "devices": [], "reasons": [], "shadowed": []}
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8") as file:
            text = file.read(4 * 1024 * 1024)
        facts["kind"], facts["devices"] = cdi_parse(text)
    except OSError as error:
        facts["error"] = f"{path} cannot be read: {error.strerror}."
    except (cdi_SpecError, UnicodeDecodeError) as error:
        facts["error"] = f"{path} is not a CDI specification: {error}"
    else:
        if facts["kind"].startswith("nvidia.com/"):
            library = cdi__LIBRARY.search(text)
            facts["driver_version"] = library and library[1]
            facts["reasons"] = cdi_differences(root, text, facts, now)
            facts["stale"] = bool(facts["reasons"]) if facts["reasons"] or (now.driver and library) else None
    return facts


def cdi_differences(root: str, text: str, facts: sysfs_Facts, now: cdi_Now) -> list[str]:
    reasons = []
    made_for, devices = (facts["driver_version"], facts["devices"])
    if made_for and now.driver and (made_for != now.driver):
        reasons.append(f"made for driver {made_for}, loaded is {now.driver}")
    paths = dict.fromkeys(cdi__HOST_PATH.findall(text))
    reasons += [f"names {path}, which is not there" for path in paths if not os.path.lexists(os.path.join(root, path.lstrip("/")))][:3]
    ours = [gpu for gpu in now.gpus if gpu["bound_driver"] == "nvidia" or gpu["class"] is None]
    nodes = sysfs_nodes(root)
    whole = [gpu for gpu in ours if not (gpu["mig"] or {}).get("current") or gpu["mig"]["devices"]]
    if "all" in devices and sum((node in paths for node in nodes)) < len(whole):
        reasons += [f"lacks {node}" for node in nodes if node not in paths]
    if all((gpu["uuid"] for gpu in ours)):
        reasons += cdi__names_that_differ(devices, ours)
    return reasons


def cdi__names_that_differ(devices: Sequence[str], gpus: Sequence[sysfs_Facts]) -> list[str]:
    known = {gpu["uuid"] for gpu in gpus}
    parts = []
    for gpu in gpus:
        for part in (gpu["mig"] or {}).get("devices") or []:
            pair = f"{gpu['index']}:{part['index']}"
            parts.append((pair, {pair, f"mig{pair}", part["uuid"]}))
            known |= parts[-1][1]
    telling = ["GPU-"]
    if not any((gpu["mig"] is None or gpu["mig"]["devices"] is None or (gpu["mig"]["current"] and os.geteuid()) for gpu in gpus)):
        telling += ["MIG-", "(mig)?[0-9]+:[0-9]+$"]
    named = [name for name in devices if re.match("|".join(telling), name)] if gpus else []
    return [
        *(f"names the device {name}, which is not there" for name in named if name not in known),
        *(f"lacks the MIG device {pair}" for pair, names in parts if "all" in devices and (not names.intersection(devices))),
    ]


def cdi_parse(text: str) -> tuple[str, list[str]]:
    if text.lstrip().startswith("{"):
        try:
            document: Any = json.loads(text)
            kind, names = (str(document.get("kind")), [str(device["name"]) for device in document.get("devices") or []])
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            raise cdi_SpecError(f"broken JSON ({error}).") from error
    else:
        kind, names = cdi_scan(text)
    if not cdi__KIND.fullmatch(kind):
        raise cdi_SpecError("it names no kind.")
    return (kind, names)


def cdi_scan(text: str) -> tuple[str, list[str]]:
    kind, names, inside, item, column = ("", [], False, -1, -1)
    for line in text.splitlines():
        match = re.match("^( *)((?:- +)?)([A-Za-z]+):(?: +(.*?))?\\s*$", line)
        if not match:
            flow = re.match("^( *)- +[{&*\\[!]", line)
            if inside and flow and (item in (-1, len(flow[1]))):
                raise cdi_SpecError(cdi__FLOW)
            continue
        indent, key_column = (len(match[1]), len(match[1]) + len(match[2]))
        value = cdi__scalar(match[4])
        if key_column == 0:
            inside, item = (match[3] == "devices", -1)
            if match[3] == "kind":
                kind = value
            elif inside and value not in ("", "[]"):
                raise cdi_SpecError(cdi__FLOW)
        elif inside:
            if match[2] and item in (-1, indent):
                item, column = (indent, key_column)
            if key_column == column and match[3] == "name":
                names.append(value)
    return (kind, [name for name in names if name])


def cdi__scalar(text: str | None) -> str:
    match = re.match("^(?:\"([^\"]*)\"|'([^']*)'|([^#]*?))\\s*(?:#.*)?$", text or "")
    return next((group for group in match.groups() if group is not None), "") if match else ""


def cdi_runtime_mode(text: str) -> str | None:
    section = re.search("^\\s*\\[nvidia-container-runtime\\](.*?)(?:^\\s*\\[|\\Z)", text, re.MULTILINE | re.DOTALL)
    mode = re.search("^\\s*mode\\s*=\\s*[\"']([^\"']+)[\"']", section[1], re.MULTILINE) if section else None
    return mode and mode[1]


command_KILL_GRACE_S = 1.0
command_OUTPUT_LIMIT = 8 * 1024 * 1024
command__SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True)
class command_Process:
    pid: int
    start_time: int


@dataclass(frozen=True)
class command_Result:
    rc: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    survivor: command_Process | None = None

    @property
    def out(self) -> str:
        return self.stdout.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        return self.stderr.decode("utf-8", "replace")


class command_CannotStart(Exception):
    pass


class command__Forked:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._rc: int | None = None

    def poll(self) -> int | None:
        if self._rc is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._rc = -1
            else:
                self._rc = os.waitstatus_to_exitcode(status) if pid else None
        return self._rc


command__Child = Union["subprocess.Popen[bytes]", command__Forked]


class command_Running:
    def __init__(self, child: command__Child, outputs: Sequence[IO[bytes]], timeout_s: float) -> None:
        self._child, self._outputs = (child, outputs)
        self._deadline = time.monotonic() + timeout_s

    def result(self) -> command_Result:
        late = False
        while (
            self._child.poll() is None
            and (not late)
            and all((os.fstat(file.fileno()).st_size <= command_OUTPUT_LIMIT for file in self._outputs))
        ):
            late = time.monotonic() >= self._deadline
            time.sleep(0.002)
        late = late and self._child.poll() is None
        survivor = command__kill(self._child)
        said = []
        for file in self._outputs:
            with file:
                said.append(os.pread(file.fileno(), command_OUTPUT_LIMIT, 0))
        return command_Result(None if late else self._child.poll(), said[0], b"".join(said[1:]), late, survivor)


def command_find(name: str, search: Sequence[str] = ()) -> str | None:
    places = search or [*os.environ.get("PATH", "").split(os.pathsep), *command__SYSTEM_PATH]
    return shutil.which(name, path=os.pathsep.join(filter(None, places)))


def command_start_time(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def command_start(argv: Sequence[str], timeout_s: float, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> command_Running:
    with contextlib.ExitStack() as files:
        try:
            data, *outputs = (files.enter_context(tempfile.TemporaryFile()) for _file in range(3))
            data.write(stdin)
            data.seek(0)
            child = subprocess.Popen(
                list(argv),
                stdin=data,
                stdout=outputs[0],
                stderr=outputs[1],
                env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **(env or {})},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise command_CannotStart(f"{argv[0]} cannot be started: {error}.") from error
        files.pop_all()
    data.close()
    return command_Running(child, outputs, timeout_s)


def command_run(argv: Sequence[str], timeout_s: float, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> command_Result:
    return command_start(argv, timeout_s, stdin, env).result()


def command_call(function: Callable[[], Any], timeout_s: float) -> command_Result:
    with contextlib.ExitStack() as files:
        try:
            answer = files.enter_context(tempfile.TemporaryFile())
            pid = os.fork()
        except OSError as error:
            raise command_CannotStart(f"A child process cannot be started: {error}.") from error
        if pid == 0:
            command__serve(function, answer.fileno())
        files.pop_all()
    return command_Running(command__Forked(pid), [answer], timeout_s).result()


def command__serve(function: Callable[[], Any], writer: int) -> None:
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.closerange(3, writer)
        os.closerange(writer + 1, min(os.sysconf("SC_OPEN_MAX"), 65536))
        with open(writer, "w", encoding="ascii") as file:
            json.dump(function(), file)
        status = 0
    finally:
        os._exit(status)


def command__kill(child: command__Child) -> command_Process | None:
    if child.poll() is not None:
        return None
    born = command_start_time(child.pid)
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + command_KILL_GRACE_S
    while child.poll() is None:
        if time.monotonic() >= deadline:
            return command_Process(child.pid, born or 0)
        time.sleep(0.01)
    return None


engine_DAEMON_CONFIG = "/etc/docker/daemon.json"
engine_MASK = "********"
engine__SOCKET = "/var/run/docker.sock"
engine__PLUGINS = [
    "~/.docker/cli-plugins",
    *(f"/usr/{place}/docker/cli-plugins" for place in ("local/lib", "local/libexec", "lib", "libexec")),
]
engine__VERSION = re.compile("\\bv?([0-9]+(?:\\.[0-9]+)+)")
engine__CONTAINER_ID = re.compile("[0-9a-f]{64}")
engine__SECRET_NAME = re.compile("passw|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key", re.IGNORECASE)
engine__USER_IN_URL = re.compile("([A-Za-z][A-Za-z0-9+.-]*://)\\S+@")


class engine_NoAnswer(Exception):
    pass


def engine_ask(root: str, timeout_s: float) -> Callable[[], tuple[sysfs_Facts, dict[str, str]]]:
    plugins = {
        name: engine__start(command_find(f"docker-{name}", [os.path.expanduser(place) for place in engine__PLUGINS]))
        for name in ("compose", "buildx")
    }
    podman = engine__start(command_find("podman"), "--version")
    return lambda: engine__facts(
        root, engine_Client(root, timeout_s), {name: engine__version(plugin) for name, plugin in plugins.items()}, engine__version(podman)
    )


def engine__start(program: str | None, argument: str = "docker-cli-plugin-metadata") -> command_Running | None:
    try:
        return command_start([program, argument], 15.0) if program else None
    except command_CannotStart:
        return None


def engine__version(running: command_Running | None) -> str | None:
    text = running.result().out if running else ""
    return engine_first_version(text.rpartition('"Version"')[2])


def engine_first_version(text: str) -> str | None:
    match = engine__VERSION.search(text)
    return match[1] if match else None


def engine__facts(
    root: str, client: engine_Client, plugins: dict[str, str | None], podman: str | None
) -> tuple[sysfs_Facts, dict[str, str]]:
    facts: sysfs_Facts = {
        **dict.fromkeys(("name", "version", "error", "compose_version", "buildx_version", "default_runtime", "cdi_enabled")),
        **dict.fromkeys(("cgroup_driver", "cgroup_version", "live_restore", "containers", "gpu_containers")),
        "running": False,
        "runtimes": [],
        "cdi_spec_dirs": [],
        "podman_version": podman,
        "daemon_config": engine_daemon_config(root),
    }
    names: dict[str, str] = {}
    try:
        info = engine_answered(client.get("info"))
        facts.update(engine_describe(info))
        documents = [client.get(f"containers/{entry['Id']}/json") for entry in client.get("containers/json")]
        running = [document for document in documents if document]
        every = [engine_container(document) for document in running]
        names = {one["id"]: one["name"] for one in every}
        nvidia = {name for name, runtime in info["Runtimes"].items() if "nvidia" in f"{name} {runtime}"}
        facts["gpu_containers"] = [
            grant for grant in (engine_granted(document, nvidia, sysfs_nodes(root)) for document in running) if grant
        ]
        facts["containers"] = every
    except engine_NoAnswer as error:
        if not (facts["running"] or engine__is_there(root, error)):
            facts.update({f"{name}_version": version for name, version in plugins.items()})
            return ({**facts, **({"name": "podman", "version": podman, "running": True} if podman else {})}, names)
        facts.update(name="docker", error=str(error))
    except (AttributeError, KeyError, TypeError) as error:
        facts.update(name="docker", error=f"The container engine answered in a form that is not known ({error!r}).")
    facts.update({f"{name}_version": version for name, version in plugins.items()})
    return (facts, names)


def engine__is_there(root: str, error: engine_NoAnswer) -> bool:
    stale = isinstance(error.__cause__, ConnectionRefusedError)
    hints = ("snap/docker", "etc/systemd/system/docker.service", *(() if stale else (engine__SOCKET.lstrip("/"),)))
    return bool(command_find("dockerd")) or any((os.path.exists(os.path.join(root, hint)) for hint in hints))


def engine_answered(info: dict[str, Any]) -> dict[str, Any]:
    if info.get("ServerErrors"):
        raise engine_NoAnswer(f"The container engine does not answer: {'; '.join(map(str, info['ServerErrors']))[:400].rstrip('.')}.")
    return info


def engine_describe(info: dict[str, Any]) -> sysfs_Facts:
    directories = [str(directory) for directory in info.get("CDISpecDirs") or []]
    return {
        "name": "docker",
        "version": engine_first_version(str(info.get("ServerVersion", ""))),
        "running": True,
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime") or None,
        "cdi_enabled": bool(directories),
        "cdi_spec_dirs": directories,
        "cgroup_driver": info.get("CgroupDriver") or None,
        "cgroup_version": info.get("CgroupVersion") or None,
        "live_restore": info.get("LiveRestoreEnabled"),
    }


class engine_Client:
    def __init__(self, root: str, timeout_s: float) -> None:
        host = os.environ.get("DOCKER_HOST") or f"unix://{os.path.join(root, engine__SOCKET.lstrip('/'))}"
        self._socket = host[7:] if host.startswith("unix://") else None
        self._limit = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def get(self, path: str) -> Any:
        try:
            status, body = self._over_socket(path) if self._socket else self._by_command(path)
            answer = json.loads(body or b"null")
        except PermissionError as error:
            raise engine_NoAnswer("The container engine cannot be asked: permission to its socket is denied; become root.") from error
        except socket.timeout as error:
            raise engine_NoAnswer(f"The container engine did not answer within {self._limit:g} seconds.") from error
        except (OSError, ValueError, command_CannotStart) as error:
            reason = f"{self._socket}: {error.strerror}" if isinstance(error, OSError) else " ".join(str(error).split())
            raise engine_NoAnswer(f"The container engine does not answer: {reason[:400].rstrip('.')}.") from error
        if status == 404:
            return None
        if status != 200:
            raise engine_NoAnswer(f"The container engine refused: {answer}.")
        return answer

    def _over_socket(self, path: str) -> tuple[int, bytes]:
        received = bytearray()
        with socket.socket(socket.AF_UNIX) as connection:
            self._hurry(connection)
            connection.connect(str(self._socket))
            connection.sendall(f"GET /{path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            while True:
                self._hurry(connection)
                chunk = connection.recv(65536)
                if not chunk:
                    break
                received += chunk
        head, _blank, body = bytes(received).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1."):
            raise ValueError("what listens at its socket speaks no HTTP")
        return (int(head[9:12]), body)

    def _hurry(self, connection: socket.socket) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout
        connection.settimeout(left)

    def _by_command(self, path: str) -> tuple[int, bytes]:
        asked = {"info": ["info"], "containers/json": ["ps", "--no-trunc"]}.get(path) or ["inspect", path.split("/")[1]]
        result = command_run(["docker", *asked, "--format", "{{json .}}"], max(0.1, self._deadline - time.monotonic()))
        if result.timed_out:
            raise socket.timeout
        if re.search("no such (object|container)", result.err, re.IGNORECASE):
            return (404, b"")
        if result.rc:
            raise ValueError(result.err or result.out)
        if asked[0] != "ps":
            return (200, result.stdout)
        return (
            200,
            b"["
            + b",".join((b'{"Id":' + json.dumps(json.loads(line)["ID"]).encode() + b"}" for line in result.stdout.splitlines()))
            + b"]",
        )


def engine_container(document: dict[str, Any]) -> sysfs_Facts:
    config, host = (document.get("Config") or {}, document.get("HostConfig") or {})
    return {
        "id": document["Id"],
        "name": document["Name"].lstrip("/"),
        "image": config.get("Image"),
        "restart_policy": (host.get("RestartPolicy") or {}).get("Name") or "no",
        "auto_remove": host.get("AutoRemove"),
        "project": (config.get("Labels") or {}).get("com.docker.compose.project"),
    }


def engine_granted(document: dict[str, Any], nvidia_runtimes: set[str], nodes: list[str]) -> sysfs_Facts | None:
    config, host = (document.get("Config") or {}, document.get("HostConfig") or {})
    requests = host.get("DeviceRequests") or []
    environment = dict((entry.partition("=")[::2] for entry in config.get("Env") or []))
    visible = environment.get("NVIDIA_VISIBLE_DEVICES", "") if host.get("Runtime") in nvidia_runtimes else ""
    ways = {
        "cdi": [
            name for request in requests if request.get("Driver") == "cdi" for name in request.get("DeviceIDs") or [] if "nvidia" in name
        ],
        "request": [
            name
            for request in requests
            if any(("gpu" in capabilities for capabilities in request.get("Capabilities") or []))
            for name in request.get("DeviceIDs") or ["all" if request.get("Count") == -1 else f"count={request.get('Count')}"]
        ],
        "runtime": [] if visible in ("void", "none", "") else visible.split(","),
        "device": [device["PathOnHost"] for device in host.get("Devices") or [] if re.match("/dev/nvidia[0-9]", device["PathOnHost"])],
        "privileged": nodes if host.get("Privileged") else [],
    }
    for how, devices in ways.items():
        if devices:
            known = engine_container(document)
            return {**{key: known[key] for key in ("id", "name", "image", "auto_remove")}, "how": how, "devices": devices}
    return None


def engine_container_of(cgroups: str, names: dict[str, str], own: str = "") -> sysfs_Facts | None:
    ids = [found for found in engine__CONTAINER_ID.findall(cgroups)[::-1] if found not in own]
    found = next((found for found in ids if found in names), ids[0] if ids else None)
    return {"id": found, "name": names.get(found)} if found else None


def engine_daemon_config(root: str) -> sysfs_Facts:
    result: sysfs_Facts = {"path": engine_DAEMON_CONFIG, "exists": False, "content": {}, "sha256": None, "error": None}
    try:
        with open(os.path.join(root, engine_DAEMON_CONFIG.lstrip("/")), "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return result
    except OSError as error:
        return {**result, "exists": True, "error": f"{engine_DAEMON_CONFIG} cannot be read: {error.strerror}."}
    result.update(exists=True, sha256=hashlib.sha256(raw).hexdigest())
    try:
        content = json.loads(raw) if raw.strip() else {}
        if isinstance(content, dict):
            return {**result, "content": engine_mask(content)}
        problem = "it holds no JSON object"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    return {**result, "error": f"{engine_DAEMON_CONFIG} is not valid: {problem}. Docker does not start with it; correct it."}


def engine_mask(value: Any, secret: bool = False) -> Any:
    if isinstance(value, dict):
        return {key: engine_mask(item, secret or bool(engine__SECRET_NAME.search(str(key)))) for key, item in value.items()}
    if isinstance(value, list):
        return [engine_mask(item, secret) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if secret:
        return engine_MASK
    if not isinstance(value, str):
        return value
    key, sign, _rest = value.partition("=")
    if sign and engine__SECRET_NAME.search(key):
        return f"{key}={engine_MASK}"
    return engine__USER_IN_URL.sub(f"\\g<1>{engine_MASK}@", value)


observer_Facts = sysfs_Facts
observer_DRIVER_NOT_LOADED = 9
observer_LIBRARY_NOT_FOUND = 12
observer_GPU_IS_LOST = 15
observer_RESET_REQUIRED = 16
observer_VERSION_MISMATCH = 18
observer_GPU_NOT_FOUND = 28
observer_ERROR_UNKNOWN = 999
observer_ERROR_NAMES = {
    4: "NO_PERMISSION",
    9: "DRIVER_NOT_LOADED",
    12: "LIBRARY_NOT_FOUND",
    15: "GPU_IS_LOST",
    16: "RESET_REQUIRED",
    17: "OPERATING_SYSTEM",
    18: "LIB_RM_VERSION_MISMATCH",
    28: "GPU_NOT_FOUND",
    999: "UNKNOWN",
}
observer__FIRST_CAPABILITIES = {
    (3, 0): "kepler",
    (5, 0): "maxwell",
    (6, 0): "pascal",
    (7, 0): "volta",
    (7, 5): "turing",
    (8, 0): "ampere",
    (8, 9): "ada",
    (9, 0): "hopper",
    (10, 0): "blackwell",
    (10, 7): "rubin",
    (10, 8): "blackwell",
}


@dataclass
class observer_Observation:
    source: str
    ok: bool
    message: str | None = None
    error: observer_Facts | None = None
    driver_version: str | None = None
    cuda_version: str | None = None
    gpus: dict[str, observer_Facts] = field(default_factory=dict)
    hung: bool = False


def observer_error(code: int | None, message: str, name: str | None = None) -> observer_Facts:
    return {"code": code, "name": name or f"NVML_ERROR_{observer_ERROR_NAMES.get(code or 0, code)}", "message": message}


def observer_health_of(code: int | None) -> str:
    return {None: "ok", observer_GPU_IS_LOST: "lost", observer_RESET_REQUIRED: "reset_required"}.get(code, "error")


def observer_architecture_of(capability: str | None) -> str | None:
    match = re.fullmatch("([0-9]{1,4})\\.([0-9]{1,4})", capability or "")
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    return next((name for start, name in reversed(observer__FIRST_CAPABILITIES.items()) if version >= start), None)


def observer_pci_address(text: str) -> str | None:
    match = re.fullmatch("(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}:[0-9a-fA-F]{2}\\.[0-7])", text.strip())
    return f"{int(match[1] or '0', 16):04x}:{match[2]}".lower() if match else None


def observer_switches(current: object, pending: object) -> observer_Facts:
    return {"current": None if current is None else bool(current), "pending": None if pending is None else bool(pending)}


def observer_mig_device(
    index: int | None, name: str | None, uuid: str | None, profile: str | None, memory_mib: int | None
) -> observer_Facts:
    return {"index": index, "name": name, "uuid": uuid, "profile": profile, "memory_total_mib": memory_mib}


class observer_Leftovers:
    def __init__(self, root: str = "/") -> None:
        user = os.geteuid()
        self._directory = os.path.join(root, "run", f"user/{user}" if user else "", "difyops-gpu")

    def living(self, name: str) -> command_Process | None:
        path = os.path.join(self._directory, name)
        try:
            with open(path, encoding="utf-8") as file:
                process = command_Process(*json.load(file))
        except (OSError, ValueError, TypeError):
            return None
        if not self._is_ours():
            return None
        if process.start_time and command_start_time(process.pid) == process.start_time:
            return process
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None

    def remember(self, name: str, process: command_Process) -> bool:
        path = os.path.join(self._directory, name)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory, 448)
            if not self._is_ours():
                return False
            with open(path + ".new", "w", encoding="utf-8") as file:
                json.dump((process.pid, process.start_time), file)
            os.replace(path + ".new", path)
        except OSError:
            return False
        return True

    def _is_ours(self) -> bool:
        try:
            status = os.lstat(self._directory)
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and (not status.st_mode & 18)


class observer_Guard:
    def __init__(self, source: str, leftovers: observer_Leftovers, timeout_s: float) -> None:
        self.source = source
        self._leftovers = leftovers
        self._timeout_s = timeout_s

    def call(self, function: Callable[[], observer_Facts]) -> observer_Facts | observer_Observation:
        result = self._ask(lambda: command_call(function, self._timeout_s))
        if isinstance(result, observer_Observation):
            return result
        try:
            answer = json.loads(result.stdout)
        except ValueError:
            end = f"signal {-result.rc}" if result.rc and result.rc < 0 else f"exit status {result.rc}"
            return self._failed(f"The child process that asked {self.source} ended with {end} and no answer.", "CRASHED")
        return answer if isinstance(answer, dict) else {}

    def run(self, *argv: str) -> command_Result | observer_Observation:
        return self._ask(lambda: command_run(argv, self._timeout_s))

    def _ask(self, question: Callable[[], command_Result]) -> command_Result | observer_Observation:
        left = self._leftovers.living(self.source)
        story = f"an earlier query (process {left.pid}) still hangs in the driver" if left else ""
        if not left:
            try:
                result = question()
            except command_CannotStart as failure:
                return observer_Observation(self.source, ok=False, message=str(failure))
            if not result.timed_out:
                return result
            story = f"no answer within {self._timeout_s:g} seconds"
            if result.survivor:
                story += f"; the query (process {result.survivor.pid}) cannot be killed and was left behind"
                if not self._leftovers.remember(self.source, result.survivor):
                    story += ", and no note of it could be kept"
        return self._failed(f"The NVIDIA driver hangs: {story}. Read the kernel log for NVRM and Xid, then reboot this host.", "TIMEOUT")

    def _failed(self, message: str, name: str) -> observer_Observation:
        return observer_Observation(self.source, False, message, observer_error(None, message, name), hung=name == "TIMEOUT")


def observer_kernel(guard: observer_Guard, root: str) -> observer_Observation:
    answer = guard.call(lambda: sysfs_names(root)) if os.path.isdir(os.path.join(root, "proc/driver/nvidia")) else {}
    return answer if isinstance(answer, observer_Observation) else observer_Observation(sysfs_SOURCE, ok=True, gpus=answer)


packages_TOOLKIT = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
packages__TIMEOUT_S = 30.0
packages__DPKG = "${db:Status-Status}\\t${Package}\\t${Version}\\t${Maintainer}\\t${db:Status-Want}\\t${source:Package}\\n"
packages__RPM = "installed\\t%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{VENDOR}\\n"
packages__PATTERNS = (
    *("*nvidia*", "libcuda1", "libcudadebugger1", "libnvcuvid1", "libnvoptix1", "libnvsdm*", "nvlsm", "nvlink5*", "cuda-drivers*"),
    *("docker*", "moby-*", "containerd*", "runc"),
)
packages__KERNEL = re.compile(
    "^(nvidia-(\\w+-)*kernel-(\\w+-)*(dkms|source)|nvidia-dkms(-.+)?|dkms-nvidia(-.+)?|a?kmod-nvidia(-.+)?|"
    + "nvidia-kernel-source(-.+)?|linux-modules-nvidia-[0-9].+)$"
)
packages__LIBRARY = re.compile(
    "^(libcuda1|libnvidia-compute(-.+)?|(lib)?nvidia-[\\w-]*cuda1|nvidia-driver-cuda-libs|xorg-x11-drv-nvi" + "dia-cuda-libs)$"
)
packages__META = re.compile(
    "^(nvidia-driver(-\\d+)?(-server)?(-open)?|nvidia-tesla(-\\d+)?-driver|nvidia-legacy-\\d+xx-driver|nvidi"
    + "a-open(-\\d+)?|cuda-drivers(-\\d+)?|nvidia-headless-.+|xorg-x11-drv-nvidia)$"
)
packages__PART = re.compile(
    "^(?!.*-dev(-|$)|nvidia-driver-(assistant|pinning))(lib(cuda1|cudadebugger1|nvcuvid1|nvoptix1|nvsdm(-"
    + ".+)?)|libnvidia-(?!container|egl-(wayland|gbm|x)).+|lib(egl|gles|gl1|glx)-nvidia.+|nvidia-(alternati"
    + "ve|compute-utils|cuda-mps|driver|egl|fabric-?manager|firmware|headless|imex|kernel|kmod|legacy|libop"
    + "encl1|libXNVCtrl|modprobe|open|opencl-common|opencl-icd|persistenced|powerd|smi|suspend-common|tesla"
    + "|utils|vdpau-driver|vulkan)(-.+)?|(xserver-xorg-video|xorg-x11|xorg-x11-drv|linux-objects|linux-sign"
    + "atures)-nvidia(-.+)?|firmware-nvidia-(.+-)?gsp|nvlsm|nvlink5(-.+)?|cuda-drivers(-.+)?)$"
)
packages__ENGINE = re.compile(
    "^(docker(\\.io|-(ce|cli|engine)(-.+)?|-(buildx|compose|model|scan|app)(-(plugin|v2))?)?|moby-(engine|"
    + "cli|buildx|compose|containerd|runc)|containerd(\\.io)?|runc)$"
)
packages__ENGINES = {"docker-ce": "docker", "docker.io": "distribution", "docker": "distribution"}
packages__PREBUILT = re.compile("linux-(modules|objects|signatures)-nvidia-")
packages__ORIGINS = {"rpm fusion": "rpmfusion", "debian": "debian", "ubuntu": "ubuntu", "nvidia": "nvidia", "negativo17": "negativo17"}
packages__HOLDS = {"hold": "", "preference": "version .*\\d\\\\?\\.\\d.* priority \\d", "versionlock": "[^!<>]*\\d\\.\\d", "exclude": "$"}
packages_Rule = tuple[str, str, Optional[str]]
packages_Rules = list[tuple[str, str, Optional[str], Optional[str]]]


class packages_Package(NamedTuple):
    name: str
    version: str
    maker: str
    broken: bool
    held: bool = False
    source: str = ""
    state: str = ""


class packages_PackagesUnknown(Exception):
    pass


def packages_ask(root: str, family: str | None, search: Sequence[str] = ()) -> Callable[[], list[packages_Package]]:
    database = os.path.join(root, "var/lib/dpkg")
    managers = {
        "dpkg-query": [f"--admindir={database}", "--show", f"--showformat={packages__DPKG}"],
        "rpm": ["--root", os.path.abspath(root), "--query", "--all", f"--queryformat={packages__RPM}"],
    }
    for name in sorted(managers, reverse=family == "rhel"):
        program = command_find(name, search)
        if program and (name == "rpm" or os.path.exists(os.path.join(database, "status"))):
            try:
                running = command_start([program, *managers[name], *packages__PATTERNS], packages__TIMEOUT_S)
            except command_CannotStart as error:
                raise packages_PackagesUnknown(str(error)) from error
            return lambda: packages__answer(name, running.result(), (0,) if name == "rpm" else (0, 1))
    raise packages_PackagesUnknown("Neither dpkg-query nor rpm is on this host, so nobody knows what is installed.")


def packages__answer(name: str, result: command_Result, well: Sequence[int]) -> list[packages_Package]:
    if result.timed_out:
        raise packages_PackagesUnknown(f"{name} did not answer within {packages__TIMEOUT_S:g} seconds.")
    if result.rc not in well:
        raise packages_PackagesUnknown(f"{name} failed: {' '.join(result.err.split())[:200]}")
    return packages_parse(result.out)


def packages_parse(text: str) -> list[packages_Package]:
    packages = set()
    for line in text.splitlines():
        state, name, version, maker, want, source = [*line.split("\t"), "", "", "", "", ""][:6]
        if name and version and (state not in ("not-installed", "config-files")):
            packages.add(
                packages_Package(name, version, maker, state not in ("installed", "triggers-pending"), want == "hold", source, state)
            )
    return sorted(packages)


def packages_upstream(version: str) -> str | None:
    match = re.match("(?:\\d+:)?(\\d+(?:\\.\\d+)+)", version)
    return match[1] if match else None


def packages_driver_packages(packages: Iterable[packages_Package]) -> list[packages_Package]:
    known = list(packages)
    return [
        package for pattern in (packages__KERNEL, packages__LIBRARY, packages__META) for package in known if pattern.match(package.name)
    ]


def packages_is_kernel(name: str) -> bool:
    return packages__KERNEL.match(name) is not None


def packages_is_prebuilt(name: str) -> bool:
    return packages__PREBUILT.match(name) is not None


def packages_is_part(name: str) -> bool:
    return any((pattern.match(name) for pattern in (packages__KERNEL, packages__LIBRARY, packages__META, packages__PART)))


def packages_is_engine(package: packages_Package) -> bool:
    return packages__ENGINE.match(package.name) is not None and (not (package.name == "docker" and package.source))


def packages_parts(packages: Iterable[packages_Package]) -> list[packages_Package]:
    return sorted((package for package in packages if packages_is_part(package.name)))


def packages_driver_version(version: str | None) -> str | None:
    found = packages_upstream(version or "") or ""
    return found if re.fullmatch("[0-9]{3}(\\.[0-9]{1,3}){1,2}", found) else None


def packages_told_version(packages: Iterable[packages_Package], surely: bool = False) -> str | None:
    known = list(packages)
    for kind in (packages__KERNEL, packages__LIBRARY) if surely else (packages__KERNEL, packages__LIBRARY, packages__META):
        versions = filter(None, (packages_driver_version(package.version) for package in known if kind.match(package.name)))
        newest = max(versions, key=lambda version: [int(number) for number in version.split(".")], default=None)
        if newest:
            return newest
    return None


def packages_broken(packages: Iterable[packages_Package]) -> list[observer_Facts]:
    known = sorted(packages)
    versions: dict[str, set[str]] = {}
    for package in known:
        versions.setdefault(package.name, set()).add(package.version)
    states = [(package, package.state if package.broken else "duplicate" if len(versions[package.name]) > 1 else "") for package in known]
    return [{"name": package.name, "version": package.version, "state": state} for package, state in states if state or package.broken]


def packages_driver(packages: Iterable[packages_Package], pins: Sequence[observer_Facts] = ()) -> observer_Facts | None:
    every = list(packages)
    known = packages_driver_packages(every)
    carriers = next(
        filter(None, ([package for package in known if kind.match(package.name)] for kind in (packages__KERNEL, packages__META))), None
    )
    if not carriers:
        return None
    return {
        "version": packages_told_version(known),
        "flavour": "open" if any(("open" in package.name.split("-") for package in carriers)) else "proprietary",
        "origin": next((origin for package in known for key, origin in packages__ORIGINS.items() if key in package.maker.lower()), None),
        "packages": [{"name": package.name, "version": package.version} for package in packages_parts(every)],
        "pinned": packages_pinned(every, pins),
        "pins": list(pins),
    }


def packages_pinned(packages: Iterable[packages_Package], pins: Sequence[observer_Facts]) -> bool:
    return packages_kept([package for package in packages_parts(packages) if not packages_is_prebuilt(package.name)], pins)


def packages_kept(known: Sequence[packages_Package], pins: Sequence[observer_Facts]) -> bool:
    holding = [pin["name"] for pin in pins if re.match(packages__HOLDS.get(pin["kind"], "$."), pin["value"] or "")]
    return bool(known) and all((any((packages_matches(name, package) for name in holding)) for package in known))


def packages_matches(pattern: str, package: packages_Package) -> bool:
    pattern, name = (re.sub("(?<=.):\\w+$", "", pattern), package.name)
    if pattern.startswith("src:"):
        pattern, name = (pattern[4:], package.source)
    if pattern[:1] != "/":
        return fnmatch.fnmatchcase(name, pattern.lower())
    try:
        return re.search(pattern[1:].rstrip("/"), name, re.IGNORECASE) is not None
    except re.error:
        return False


def packages_toolkit(packages: Iterable[packages_Package], found: packages_Rules) -> observer_Facts:
    known = [package for package in packages if package.name in packages_TOOLKIT]
    found = [rule for rule in found if not (rule[0] == "preference" and re.match("version [^0-9]*[0-9]{3}\\b", rule[2] or ""))]
    versions = {package.name: package.version for package in known}
    present = list(map(packages_upstream, filter(None, map(versions.get, packages_TOOLKIT))))
    holding = packages_pins(found, known)
    return {
        "packages": {name: versions.get(name) for name in packages_TOOLKIT},
        "version": present[0] if present else None,
        "lockstep": len(set(present)) == 1 if present else None,
        "pinned": packages_kept(known, holding) if known else None,
        "pins": holding,
        "broken": packages_broken(known),
    }


def packages_engine(packages: Iterable[packages_Package], found: packages_Rules) -> observer_Facts:
    known = [package for package in packages if packages_is_engine(package)]
    return {
        "packages": [{"name": package.name, "version": package.version} for package in known],
        "origin": next((packages__ENGINES[package.name] for package in known if package.name in packages__ENGINES), None),
        "pins": packages_pins(found, known),
        "broken": packages_broken(known),
    }


def packages_rules(root: str, family: str | None) -> packages_Rules:
    return [
        (*rule, f"/{directory}/{file}")
        for directory, pattern, told in (packages__DNF if family == "rhel" else packages__APT)
        for file in sysfs_listing(root, directory)
        if re.fullmatch(pattern, file)
        for rule in told(sysfs_read(root, directory, file) or "")
    ]


def packages_pins(found: packages_Rules, known: Sequence[packages_Package]) -> list[observer_Facts]:
    every: packages_Rules = [("hold", package.name, None, None) for package in known if package.held]
    mine = dict.fromkeys((rule for rule in [*every, *found] if any((packages__concerns(rule[0], rule[1], package) for package in known))))
    return [dict(zip(("kind", "name", "value", "path"), rule)) for rule in mine]


def packages__concerns(kind: str, name: str, package: packages_Package) -> bool:
    if kind == "blocklist":
        with contextlib.suppress(re.error):
            return re.match(name, package.name) is not None
        return False
    if kind == "module_stream":
        return packages_is_part(package.name)
    whole = package._replace(name=f"{package.name}-{package.version}")
    return any((packages_matches(name, form) for form in (package, whole)))


def packages_preferences(text: str) -> Iterator[packages_Rule]:
    for stanza in re.split("\\n[ \\t]*\\n", re.sub("(?m)^#.*\\n?", "", text)):
        fields = {key.lower(): value for key, value in re.findall("(?m)^([\\w-]+)[ \\t]*:[ \\t]*(.*(?:\\n[ \\t].*)*)", stanza)}
        pin = " ".join(fields.get("pin", "").split())
        number = re.match("[+-]?[0-9]{1,5}", fields.get("pin-priority", ""))
        priority = int(number[0]) if number else 0
        version = pin.startswith("version ")
        for name in fields.get("package", "").split():
            if (pin and priority < 0 or (version and priority >= 990)) and (not (version and name == "*")):
                yield ("preference", name, f"{pin}, priority {priority}")


def packages_blocklist(text: str) -> Iterator[packages_Rule]:
    text = re.sub("(?m)^\\s*(//|#).*", "", text)
    for entries in re.findall('(?i)\\bPackage-Blacklist\\s*(?:::)?\\s*("[^"]*"|\\{[^}]*)', text):
        yield from (("blocklist", name, None) for name in re.findall('"([^"\\n]+)"', entries))


def packages_versionlock(text: str) -> Iterator[packages_Rule]:
    for avoid, pattern in re.findall("(?m)^\\s*(!?)([^#!\\s]+)", text):
        name, version = packages__split(pattern)
        yield ("versionlock", name, f"!{version or '*'}" if avoid else version)


def packages_versionlock5(text: str) -> Iterator[packages_Rule]:
    for block in text.split("[[packages]]")[1:]:
        fields = re.findall("(?m)^\\s*(name|comparator|value)\\s*=\\s*[\"']([^\"'\\n]*)", block)
        signs, values = ([value for key, value in fields if key == wanted] for wanted in ("comparator", "value"))
        value = " and ".join((value if sign == "=" else f"{sign} {value}" for sign, value in zip(signs, values)))
        yield from (("versionlock", name, value) for key, name in fields if key == "name")


def packages_excludes(text: str) -> Iterator[packages_Rule]:
    for section, fields in packages__sections(text):
        for pattern in re.findall("[^\\s,]+", f"{fields.get('exclude', '')},{fields.get('excludepkgs', '')}"):
            name, version = packages__split(pattern)
            yield ("exclude", name, version if section == "main" else section)


def packages_streams(text: str) -> Iterator[packages_Rule]:
    for name, fields in packages__sections(text):
        if fields.get("state") in ("enabled", "disabled"):
            yield ("module_stream", name, fields.get("stream") if fields["state"] == "enabled" else "disabled")


def packages__split(pattern: str) -> tuple[str, str | None]:
    match = re.fullmatch("(.+?)-((?:[0-9]+:)?[0-9]+[.*].*)", pattern)
    return (match[1], match[2]) if match else (pattern, None)


def packages__sections(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for section, body in re.findall("(?m)^\\[(.+)\\](.*(?:\\n(?!\\[).*)*)", text):
        yield (section, dict(re.findall("(?m)^(\\w+)[ \\t]*=[ \\t]*(.*(?:\\n[ \\t].*)*)", body)))


packages__APT = (
    ("etc/apt", "preferences", packages_preferences),
    ("etc/apt/preferences.d", "[\\w:-]+|[\\w:-][\\w:.-]*\\.pref", packages_preferences),
    ("etc/apt/apt.conf.d", "[\\w:-]+|[\\w:-][\\w:.-]*\\.conf", packages_blocklist),
)
packages__DNF = (
    ("etc/dnf/plugins", "versionlock\\.list", packages_versionlock),
    ("etc/dnf", "versionlock\\.toml", packages_versionlock5),
    ("etc/dnf", "dnf\\.conf", packages_excludes),
    ("etc/yum.repos.d", ".+\\.repo", packages_excludes),
    ("etc/dnf/modules.d", ".*nvidia.*\\.module", packages_streams),
)
host__SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
host__TRUSTED = re.compile("MokListRT[0-9]*-605dab50-e046-4300-abb6-3dd810dd8b23|db-d719b2cb-3d3a-4596-a3bc-dad00e67656f")
host__DKMS_KEY, host__UBUNTU_KEY = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")
host__FAMILIES = {"debian": "debian", "ubuntu": "debian", "rhel": "rhel", "fedora": "rhel", "centos": "rhel"}
host__MODULE = re.compile("nvidia(-current|-tesla(-\\d+)?|-legacy-\\d+xx)?(-open)?\\.ko(\\.(xz|zst|gz))?")
host__PLACES = ("updates", "extra", "weak-updates", "kernel/nvidia*", "kernel/drivers/video")
host__FLAVOURS = {"NVIDIA": "proprietary", "Dual MIT/GPL": "open"}
host__UNITS = {
    "nvidia-fabricmanager.service": "nvidia-fabric-?manager(-\\d+)?",
    "nvidia-persistenced.service": "nvidia-persistenced|nvidia-compute-utils(-\\d+(-server)?)?",
}
host__OTHERS = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service", "docker.service")
host__REFRESH_SETTINGS = "etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"
host__AT_BOOT = ("enabled", "static", "alias", "indirect", "generated")


def host_facts(root: str) -> observer_Facts:
    system = os.uname()
    following = host_next_kernel(root)
    told = host_distribution(sysfs_read(root, "etc/os-release") or sysfs_read(root, "usr/lib/os-release") or "")
    return {
        "os": told,
        "architecture": system.machine,
        "kernel": {"running": system.release, "next": following, "headers": host_headers(root, (system.release, following))},
        "secure_boot": host_secure_boot(root),
        "dkms_key": host_dkms_key(root, told["id"]),
        "vgpu": sysfs_module_loaded(root, "nvidia_vgpu_vfio"),
        "virtualization": host__virtualization(),
        "nouveau_loaded": sysfs_module_loaded(root, "nouveau"),
        "nova_core_loaded": sysfs_module_loaded(root, "nova_core"),
        "nvswitches": len(sysfs_devices(root, "0x0680")),
    }


def host_distribution(text: str) -> observer_Facts:
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if sign and (not key.startswith("#")):
            try:
                values[key] = " ".join(shlex.split(value))
            except ValueError:
                continue
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    return {
        "id": values.get("ID") or None,
        "version": values.get("VERSION_ID") or None,
        "family": next((host__FAMILIES[name] for name in names if name in host__FAMILIES), None),
        "name": values.get("PRETTY_NAME") or None,
    }


def host_secure_boot(root: str) -> bool | None:
    if "efi" not in sysfs_listing(root, "sys/firmware"):
        return False if sysfs_listing(root, "sys/firmware") else None
    try:
        with open(os.path.join(root, "sys/firmware/efi/efivars", host__SECURE_BOOT), "rb") as file:
            variable = file.read(5)
    except OSError:
        return None
    return variable[4] == 1 if len(variable) == 5 else None


def host_headers(root: str, kernels: Iterable[str | None]) -> list[str]:
    found = []
    for kernel in filter(None, dict.fromkeys(kernels)):
        tree = os.path.join(root, "lib/modules", kernel, "build")
        with contextlib.suppress(OSError):
            tree = os.path.join(root, os.readlink(tree).lstrip("/")) if os.readlink(tree)[:1] == "/" else tree
        if os.path.exists(os.path.join(tree, "Makefile")):
            found.append(kernel)
    return found


def host_dkms_key(root: str, distribution_id: str | None) -> observer_Facts | None:
    settings = [os.path.join("etc/dkms/framework.conf.d", name) for name in sysfs_listing(root, "etc/dkms/framework.conf.d")]
    text = "\n".join((sysfs_read(root, name) or "" for name in ("etc/dkms/framework.conf", *settings)))
    named = re.findall("(?m)^[ \\t]*mok_certificate=[\"']?(/[^\"'\\s$]+)", text)[-1:]
    usual = (host__UBUNTU_KEY, host__DKMS_KEY) if distribution_id == "ubuntu" else (host__DKMS_KEY, host__UBUNTU_KEY)
    for path in named or usual:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            try:
                with open(os.path.join(root, path.lstrip("/")), "rb") as file:
                    certificate = file.read(65536)
            except PermissionError:
                certificate = b""
            return {"path": path, "enrolled": host__trusted(root, certificate) if certificate else None}
    return None


def host__trusted(root: str, certificate: bytes) -> bool | None:
    place = os.path.join(root, "sys/firmware/efi/efivars")
    paths = [os.path.join(place, name) for name in sysfs_listing(place) if host__TRUSTED.fullmatch(name)]
    try:
        with contextlib.ExitStack() as files:
            lists = [files.enter_context(open(path, "rb")).read() for path in paths]
    except OSError:
        return None
    return any((certificate in content for content in lists)) if lists else None


def host__virtualization() -> str | None:
    program = command_find("systemd-detect-virt")
    with contextlib.suppress(command_CannotStart):
        return command_run([program], 5.0).out.strip() or None if program else None
    return None


class host_Entry(NamedTuple):
    names: list[str]
    kernels: list[str]
    entries: list[Any]


def host_next_kernel(root: str) -> str | None:
    homes = ["boot/grub", "boot/grub2", *glob.glob(os.path.join(root, "boot/efi/EFI/*"))]
    environment = dict((line for home in homes for line in re.findall("(?m)^(\\w+)=(.+)", sysfs_read(root, home, "grubenv") or "")))
    text = sysfs_read(root, "boot/grub2/grub.cfg") or sysfs_read(root, "boot/grub/grub.cfg")
    entries = host_menu(text or "")
    defaults = re.findall("set default=[\"']?([^\"'\\n]*)", text or "")
    if text is None or "blscfg" in text:
        places = (os.path.join(root, place, "loader") for place in ("boot", "efi", "boot/efi"))
        entries = next(filter(None, map(host__loader, places)), []) + entries
    once = environment.get("next_entry") if text is None or "${next_entry}" in defaults else None
    default = next((value for value in reversed(defaults) if value != "${next_entry}"), "${saved_entry}")
    default = once or (environment.get("saved_entry", "") if default == "${saved_entry}" else default)
    return host_chosen(entries, default) if entries else host__settled(root, environment)


def host_menu(text: str) -> list[host_Entry]:
    stack = [host_Entry([], [], [])]
    for line in text.splitlines():
        word = (line.split() or [""])[0]
        if word in ("menuentry", "submenu", "function"):
            entry = host_Entry([one or two for one, two in re.findall("'([^']*)'|\\\"([^\\\"]*)\\\"", line)], [], [])
            if word != "function":
                stack[-1].entries.append(entry)
            stack.append(entry)
        elif word == "}":
            stack = stack[:-1] or stack
        elif word.startswith("linux"):
            stack[-1].kernels.extend(re.findall("/vmlinu[xz]-(\\S+)", line))
    return stack[0].entries


def host_chosen(entries: list[host_Entry], default: str) -> str | None:
    first, _sign, rest = default.partition(">")
    for number, entry in enumerate(entries):
        if first in (str(number), *entry.names):
            return host_chosen(entry.entries, rest) if rest else next(iter(entry.kernels), None)
    return next(iter(entries[0].kernels), None) if entries else None


def host__loader(directory: str) -> list[host_Entry]:
    found = []
    for name in sysfs_listing(directory, "entries"):
        fields = dict(re.findall("(?m)^(title|version)\\s+(.*\\S)", sysfs_read(directory, "entries", name) or ""))
        if "version" in fields:
            found.append(host_Entry([name.rpartition(".")[0], fields.get("title", "")], [fields["version"]], []))
    found.sort(key=lambda entry: host_version_key(entry.names[0]), reverse=True)
    wanted = re.findall("(?m)^default\\s+(\\S+)", sysfs_read(directory, "loader.conf") or "")
    return sorted(found, key=lambda entry: not any((fnmatch.fnmatchcase(f"{entry.names[0]}.conf", pattern) for pattern in wanted)))


def host__settled(root: str, environment: dict[str, str]) -> str | None:
    names = "\n".join(sysfs_listing(root, "boot"))
    kernels = sorted(re.findall("(?m)^vmlinu[xz]-(.+)(?<!~)(?<!\\.old)(?<!\\.dpkg-new)$", names), key=host_version_key, reverse=True)
    text = sysfs_read(root, "etc/default/grub")
    if text is None:
        return None
    default = (re.findall("(?m)^GRUB_DEFAULT=[\\\"']?([^\\\"'\\n]*)", text) or ["0"])[-1]
    default = environment.get("next_entry") or (environment.get("saved_entry", "?") if default == "saved" else default)
    return next((kernel for kernel in kernels if default == "0" or kernel in default), None)


def host_version_key(version: str) -> list[tuple[bool, int, str]]:
    return [(bool(number), int(number or 0), word) for number, word in re.findall("([0-9]+)|([A-Za-z]+)", version)]


def host_ask_modules(root: str, kernels: Iterable[str | None], timeout: float) -> Callable[[], dict[str, observer_Facts | None]]:
    files = {kernel: host__file(os.path.join(root, "lib/modules", kernel)) for kernel in kernels if kernel}
    program = command_find("modinfo")
    running = None
    with contextlib.suppress(command_CannotStart):
        running = command_start([program, *filter(None, files.values())], timeout) if program and any(files.values()) else None

    def answer() -> dict[str, observer_Facts | None]:
        told = host_parse_modinfo(running.result().out if running else "")
        facts: observer_Facts = dict.fromkeys(("version", "flavour", "signer"))
        return {
            kernel: {**facts, **told.get(file, {}), "path": "/" + os.path.relpath(file, root)} if file else None
            for kernel, file in files.items()
        }

    return answer


def host__file(directory: str) -> str | None:
    paths = (os.path.join(directory, name) for name in host__names(directory) if host__MODULE.fullmatch(os.path.basename(name)))
    return next(filter(os.path.isfile, paths), None)


def host__names(directory: str) -> Iterator[str]:
    with contextlib.suppress(OSError), open(os.path.join(directory, "modules.dep"), encoding="utf-8", errors="replace") as file:
        yield from (line.partition(":")[0] for line in file if "nvidia" in line)
    for place in host__PLACES:
        yield from glob.iglob(os.path.join(glob.escape(directory), place, "**", "nvidia*"), recursive=True)


def host_parse_modinfo(text: str) -> dict[str, observer_Facts]:
    files: dict[str, observer_Facts] = {}
    facts: observer_Facts = {}
    for key, value in re.findall("(?m)^(filename|version|license|signer):[ \\t]*(.*\\S)", text):
        if key == "filename":
            facts = files.setdefault(value, {})
        elif key == "license":
            facts["flavour"] = host__FLAVOURS.get(value)
        else:
            facts[key] = value
    return files


def host_ask_units(timeout: float) -> Callable[[], dict[str, observer_Facts]]:
    program = command_find("systemctl")
    with contextlib.suppress(command_CannotStart):
        if program:
            running = command_start(
                [program, "show", "--property=Id,LoadState,ActiveState,UnitFileState", *host__UNITS, *host__OTHERS], timeout
            )
            return lambda: host_parse_units(running.result().out)
    return dict


def host_parse_units(text: str) -> dict[str, observer_Facts]:
    blocks = (dict(re.findall("(?m)^(\\w+)=(.*)", block)) for block in text.split("\n\n"))
    return {block["Id"]: block for block in blocks if "Id" in block}


def host_services(
    packages: Sequence[packages_Package], driver_version: str | None, nvswitches: int, units: dict[str, observer_Facts]
) -> tuple[observer_Facts, observer_Facts]:
    found = []
    for unit, pattern in host__UNITS.items():
        version = next((package.version for package in packages if re.fullmatch(pattern, package.name)), None)
        state = units.get(unit, {})
        installed = version is not None or state.get("LoadState") == "loaded"
        running = state.get("ActiveState") == "active" if units else None
        enabled = state.get("UnitFileState") in host__AT_BOOT if units else None
        found.append((packages_upstream(version or ""), {"installed": installed, "running": running, "enabled": enabled}))
    (version, manager), (_version, persistenced) = found
    same = version == driver_version if version and driver_version else None
    return ({**manager, "version": version, "matches_driver": same, "needed": nvswitches > 0}, persistenced)


def host_unit(root: str, units: dict[str, observer_Facts], name: str) -> observer_Facts | None:
    state = units.get(name, {})
    if state.get("LoadState", "not-found") == "not-found":
        return None
    late = state.get("UnitFileState") == "disabled" and glob.glob(os.path.join(glob.escape(root), "etc/systemd/system/*.wants", name))
    return {"enabled": state.get("UnitFileState") in host__AT_BOOT or bool(late), "active": state.get("ActiveState") == "active"}


def host_refresh(root: str, units: dict[str, observer_Facts]) -> observer_Facts | None:
    path, service = (host_unit(root, units, name) for name in host__OTHERS[:2])
    if not (path or service):
        return None
    flags = re.findall(
        "(?m)^\\s*NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=[\\\"']?([^\\\"'\\n]*)", sysfs_read(root, host__REFRESH_SETTINGS) or ""
    )
    return {
        "path_enabled": bool(path and path["enabled"]),
        "path_active": bool(path and path["active"]),
        "service_enabled": bool(service and service["enabled"]),
        "feature_flags": re.findall("[^\\s,]+", flags[-1]) if flags else [],
    }


def host_reboot(
    root: str,
    family: str | None,
    kernel: observer_Facts,
    loaded: observer_Facts | None,
    installed: observer_Facts | None,
    gpus: Iterable[observer_Facts],
) -> tuple[bool | None, list[str]]:
    reasons = []
    names: list[str] = []
    if os.path.exists(os.path.join(root, "run/reboot-required")):
        names = sorted(set((sysfs_read(root, "run/reboot-required.pkgs") or "").split()))
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        reasons.append(f"The package manager asks for a reboot ({shown or 'it names no package'}).")
    following, running = (kernel["next"], kernel["running"])
    if following and following != running:
        newer = family == "rhel" and host_version_key(following) > host_version_key(running)
        if newer or any((re.match("linux-(image|base|generic)", name) for name in names)):
            reasons.append(f"Kernel {following} boots next; {running} is running.")
    versions = [part["version"] for part in (installed, loaded) if part and part["version"]]
    if len(set(versions)) == 2:
        reasons.append(f"Driver {versions[0]} is installed; {versions[1]} is loaded until the next boot.")
    others = [gpu for gpu in gpus if installed and gpu["bound_driver"] in ("nouveau", "nova_core", "nova-core")]
    reasons += [f"{gpu['bound_driver']} holds the GPU at {gpu['pci_address']}; NVIDIA's driver gets it at the next boot." for gpu in others]
    known = reasons or following or len(versions) == 2 or (family == "debian" and os.path.isdir(os.path.join(root, "run")))
    return (bool(reasons) if known else None, reasons)


managed_DRIVER, managed_ENGINE, managed_TOOLKIT = ("nvidia_driver", "container_engine", "nvidia_container_toolkit")
managed_UPGRADE = "upgrade"
managed__SOURCE = (
    "/etc/apt/sources.list.d/difyops-{}.sources",
    "/etc/apt/keyrings/difyops-{}.asc",
    "/etc/apt/preferences.d/difyops-{}.pref",
    "/etc/yum.repos.d/difyops-{}.repo",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-difyops-{}",
)
managed__NAMES = {managed_DRIVER: "nvidia-driver", managed_ENGINE: "docker", managed_TOOLKIT: "nvidia-container-toolkit"}
managed_FILES = {role: [path.format(name) for path in managed__SOURCE] for role, name in managed__NAMES.items()}
managed_FILES[managed_DRIVER] += ["/etc/apt/apt.conf.d/52difyops-nvidia-driver", "/etc/modprobe.d/difyops-nvidia-driver.conf"]
managed_SPECIFICATION = "/etc/cdi/nvidia.yaml"
managed_MARK = b"# Made by role nvidia_container_toolkit of collection difyops.gpu.\n"
managed_RULES = "/var/lib/difyops/nvidia_container_toolkit/rules"
managed_FILES[managed_TOOLKIT] += [managed_SPECIFICATION, managed_RULES]


def managed_files(root: str, role: str) -> sysfs_Facts:
    found: sysfs_Facts = {}
    for path in managed_FILES[role]:
        place = os.path.join(root, path.lstrip("/"))
        with contextlib.suppress(OSError):
            mode = os.stat(place).st_mode & 4095
            content = None
            with contextlib.suppress(OSError), open(place, "rb") as file:
                content = file.read()
            if path == managed_SPECIFICATION and (not (content or b"").startswith(managed_MARK)):
                continue
            found[path] = {"sha256": None if content is None else hashlib.sha256(content).hexdigest(), "mode": f"{mode:04o}"}
    return found


def managed_document(root: str, role: str, name: str = "journal.json") -> sysfs_Facts | None:
    path = f"/var/lib/difyops/{role}/{name}"
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8") as file:
            content: Any = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        return {"error": f"{path} cannot be read: {error}."}
    return content if isinstance(content, dict) else {"error": f"{path} is no JSON object."}


def managed_upgrade(root: str) -> sysfs_Facts | None:
    found: sysfs_Facts = {name: managed_document(root, managed_UPGRADE, f"{name}.json") for name in ("journal", "failed")}
    return found if any(found.values()) else None


nvml_SOURCE = "nvml"
nvml__ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
nvml__COMPUTE_MODES = {0: "default", 1: "exclusive_process", 2: "prohibited", 3: "exclusive_process"}
nvml__FABRIC_STATES = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}
nvml__RECOVERY_ACTIONS = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "recover_imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}
nvml__RECOVERY_ACTION_FIELD = 230
nvml__MIB = 1024 * 1024


def nvml__import() -> Any:
    return importlib.import_module("pynvml")


def nvml_observe(guard: observer_Guard, addresses: Sequence[str], load: Callable[[], Any] = nvml__import) -> observer_Observation:
    answer = guard.call(lambda: nvml_collect(load, addresses))
    if isinstance(answer, observer_Observation):
        return answer
    failure = answer.pop("error", None)
    absent = answer.pop("absent", None) or (failure and failure["message"])
    return observer_Observation(nvml_SOURCE, not absent, absent, failure, **answer)


def nvml_collect(load: Callable[[], Any], addresses: Sequence[str]) -> observer_Facts:
    try:
        library = load()
    except Exception as problem:
        return {"absent": f"The Python module pynvml (package nvidia-ml-py) cannot be imported: {problem}"}
    try:
        library.nvmlInit()
    except library.NVMLError as problem:
        code = int(problem.value)
        names = (name for name, value in vars(library).items() if name.startswith("NVML_ERROR_") and value == code)
        return {"error": observer_error(code, str(problem), next(names, None))}
    session = nvml__Session(library)
    number = session.ask("nvmlSystemGetCudaDriverVersion_v2") or session.ask("nvmlSystemGetCudaDriverVersion")
    return {
        "driver_version": session.text("nvmlSystemGetDriverVersion"),
        "cuda_version": f"{number // 1000}.{number % 1000 // 10}" if number else None,
        "gpus": session.gpus(addresses),
    }


def nvml__mib(count: int | None) -> int | None:
    return None if count is None else count // nvml__MIB


class nvml__Session:
    def __init__(self, library: Any) -> None:
        self._library = library
        self._fault: int | None = None

    def ask(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._library, name)(*arguments)
        except self._library.NVMLError as problem:
            if problem.value in (observer_GPU_IS_LOST, observer_RESET_REQUIRED):
                self._fault = int(problem.value)
        except Exception:
            return None
        return None

    def text(self, name: str, *arguments: Any) -> str | None:
        value = self.ask(name, *arguments)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def gpus(self, addresses: Sequence[str]) -> dict[str, observer_Facts]:
        found: dict[str, observer_Facts] = {}
        count = self.ask("nvmlDeviceGetCount") or 0
        for index in range(count):
            self._fault = None
            handle = self.ask("nvmlDeviceGetHandleByIndex", index)
            if handle is not None:
                address, facts = self._gpu(handle, index)
                if address is None and count == len(addresses):
                    address = addresses[index]
                if address:
                    found[address] = facts
        for address in addresses:
            if address not in found:
                found[address] = {"health": observer_health_of(self._refusal(address))}
        return found

    def _refusal(self, address: str) -> int:
        try:
            self._library.nvmlDeviceGetHandleByPciBusId(address.encode())
        except self._library.NVMLError as problem:
            return int(problem.value)
        return observer_ERROR_UNKNOWN

    def _gpu(self, handle: Any, index: int) -> tuple[str | None, observer_Facts]:
        pci = self.ask("nvmlDeviceGetPciInfo", handle)
        bus_id = getattr(pci, "busId", "") or ""
        capability = ".".join(map(str, self.ask("nvmlDeviceGetCudaComputeCapability", handle) or ())) or None
        newer = getattr(self._library, "nvmlMemory_v2", None)
        memory = self.ask("nvmlDeviceGetMemoryInfo", handle, newer) or self.ask("nvmlDeviceGetMemoryInfo", handle)
        mig = observer_switches(*(self.ask("nvmlDeviceGetMigMode", handle) or (None, None)))
        values = self.ask("nvmlDeviceGetFieldValues", handle, [nvml__RECOVERY_ACTION_FIELD])
        facts: observer_Facts = {
            "index": index,
            "name": self.text("nvmlDeviceGetName", handle),
            "uuid": self.text("nvmlDeviceGetUUID", handle),
            "architecture": nvml__ARCHITECTURES.get(self.ask("nvmlDeviceGetArchitecture", handle)) or observer_architecture_of(capability),
            "compute_capability": capability,
            "memory_total_mib": nvml__mib(memory and memory.total),
            "memory_used_mib": nvml__mib(memory and memory.used),
            "compute_mode": nvml__COMPUTE_MODES.get(self.ask("nvmlDeviceGetComputeMode", handle)),
            "persistence_mode": observer_switches(self.ask("nvmlDeviceGetPersistenceMode", handle), None)["current"],
            "ecc": observer_switches(*(self.ask("nvmlDeviceGetEccMode", handle) or (None, None))),
            "mig": {**mig, "devices": self._mig_devices(handle) if mig["current"] else []},
            "fabric": self._fabric(handle),
            "recovery_action": nvml__RECOVERY_ACTIONS.get(values[0].value.uiVal) if values and (not values[0].nvmlReturn) else None,
            "processes": self._processes(handle),
            "pci": nvml__ids(pci),
        }
        facts["health"] = observer_health_of(self._fault)
        return (observer_pci_address(bus_id.decode() if isinstance(bus_id, bytes) else bus_id), facts)

    def _mig_devices(self, handle: Any) -> list[observer_Facts] | None:
        found = []
        slots = self.ask("nvmlDeviceGetMaxMigDeviceCount", handle)
        if slots is None:
            return None
        for slot in range(slots):
            device = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, slot)
            if device is not None:
                name, memory = (self.text("nvmlDeviceGetName", device), self.ask("nvmlDeviceGetMemoryInfo", device))
                profile = (name or "").partition(" MIG ")[2] or None
                found.append(
                    observer_mig_device(slot, name, self.text("nvmlDeviceGetUUID", device), profile, nvml__mib(memory and memory.total))
                )
        return found

    def _fabric(self, handle: Any) -> observer_Facts | None:
        for version in ("V", ""):
            structure = getattr(self._library, f"c_nvmlGpuFabricInfo{version}_t", None)
            info = structure and structure()
            if info is not None and self.ask(f"nvmlDeviceGetGpuFabricInfo{version}", handle, ctypes.byref(info)) is not None:
                return {"state": nvml__FABRIC_STATES.get(info.state), "status": info.status}
        return None

    def _processes(self, handle: Any) -> list[observer_Facts] | None:
        found: list[observer_Facts] = []
        for kind in ("Compute", "Graphics"):
            processes = None
            for version in ("", "_v2"):
                processes = self.ask(f"nvmlDeviceGet{kind}RunningProcesses{version}", handle) if processes is None else processes
            if processes is None and kind == "Compute":
                return None
            found += [{"pid": one.pid, "type": kind.lower(), "memory_mib": nvml__mib(one.usedGpuMemory)} for one in processes or ()]
        return found


def nvml__ids(pci: Any) -> observer_Facts | None:
    if pci is None:
        return None
    return {
        f"{prefix}{kind}_id": f"0x{number >> shift & 65535:04x}"
        for prefix, number in (("", int(pci.pciDeviceId)), ("subsystem_", int(pci.pciSubSystemId)))
        for kind, shift in (("vendor", 0), ("device", 16))
    }


smi_SOURCE = "nvidia-smi"
smi_FIELDS = (
    "pci.bus_id",
    "index",
    "name",
    "uuid",
    "driver_version",
    "memory.total",
    "memory.used",
    "compute_mode",
    "persistence_mode",
    "ecc.mode.current",
    "ecc.mode.pending",
    "mig.mode.current",
    "mig.mode.pending",
    "compute_cap",
    "fabric.state",
    "fabric.status",
    "gpu_recovery_action",
)
smi__SINCE = {"compute_cap": 510, "fabric.state": 535, "fabric.status": 535, "gpu_recovery_action": 565, "kmd_version": 615}
smi__SUCCESSORS = {"driver_version": "kmd_version"}
smi__FORM = "--format=csv,noheader,nounits"
smi__UNKNOWN_FIELD = re.compile('Field "([^"]+)" is not a valid field')
smi__NO_HANDLE = re.compile("device handle for GPU\\s*([0-9A-Fa-f][0-9A-Fa-f:.]*): (.+)")
smi__CUDA_VERSION = re.compile("(?:^CUDA Version\\s*: *|<cuda_version>)([0-9]+\\.[0-9]+)", re.MULTILINE)
smi__MIG_MEMORY = re.compile(
    "<mig_device>\\s*<index>([0-9]+)</index>(?:(?!</?mig_device>).)*?<fb_memory_usage>\\s*<total>([0-9]+) M" + "iB", re.DOTALL
)
smi__LISTED = re.compile("^(?:GPU [0-9]+:|\\s+MIG (\\S+)\\s+Device\\s+([0-9]+):).*\\(UUID: ([^)]+)\\)", re.MULTILINE)
smi__SWITCH = {"enabled": True, "disabled": False}
smi__ACTIONS = {"reset": "gpu_reset", "reboot": "node_reboot"}
smi__SENTENCES = {
    "couldn't communicate with the NVIDIA driver": 9,
    "couldn't find libnvidia-ml": 12,
    "Driver/library version mismatch": 18,
    "Insufficient Permissions": 4,
    "/dev/nvidia* files are readable": 4,
    "blocked by the operating system": 17,
    "GPU is lost": 15,
    "GPU requires reset": 16,
    "GPU reset must occur": 16,
    "No devices were found": 28,
    "Unknown Error": 999,
}
smi_Asked = Union[command_Result, observer_Observation]


def smi_observe(guard: observer_Guard, addresses: Sequence[str], branch: int = 0, search: Sequence[str] = ()) -> observer_Observation:
    program = command_find("nvidia-smi", search)
    if program is None:
        return observer_Observation(smi_SOURCE, ok=False, message="The command nvidia-smi is not on this host.")

    def ask(*arguments: str) -> smi_Asked:
        return guard.run(program, *arguments)

    fields = [name for name in smi_FIELDS if not branch or branch >= smi__SINCE.get(name, 0)]
    if branch >= smi__SINCE["kmd_version"]:
        fields = smi_without(fields, "driver_version")
    while fields:
        result = ask("--query-gpu=" + ",".join(fields), smi__FORM)
        if isinstance(result, observer_Observation):
            return result
        unknown = smi__UNKNOWN_FIELD.search(result.out + result.err)
        if not unknown or unknown[1] not in fields:
            return smi__understand(result, fields, addresses, ask)
        fields = smi_without(fields, unknown[1])
    return observer_Observation(smi_SOURCE, ok=False, message="nvidia-smi knows none of the fields that were asked for.")


def smi_without(fields: Sequence[str], unknown: str) -> list[str]:
    successor = smi__SUCCESSORS.get(unknown)
    return [successor or name if name == unknown else name for name in fields if name != unknown or successor]


def smi__understand(
    result: command_Result, fields: Sequence[str], addresses: Sequence[str], ask: Callable[..., smi_Asked]
) -> observer_Observation:

    def address_of(place: str) -> str:
        return observer_pci_address(place) or next((address for index, address in enumerate(addresses) if str(index) == place), "")

    rows, driver_version = smi_parse_rows(result.out, fields)
    gpus = {address_of(place): gpu for place, gpu in rows.items()}
    for place, code in smi_parse_refusals(result.out + "\n" + result.err):
        gpus.setdefault(address_of(place), {"health": observer_health_of(code)})
    gpus.pop("", None)
    if not gpus:
        failure = smi_parse_failure(result)
        if failure["code"] == observer_GPU_NOT_FOUND and (not addresses):
            return observer_Observation(smi_SOURCE, ok=True, cuda_version=smi__cuda_version(ask))
        return observer_Observation(smi_SOURCE, False, failure["message"], failure)
    apps = ask("--query-compute-apps=gpu_uuid,pid,used_memory", smi__FORM)
    processes = smi_parse_processes(apps.out) if isinstance(apps, command_Result) and apps.rc == 0 else None
    divided = any(((gpu.get("mig") or {}).get("current") for gpu in gpus.values()))
    listed = smi__said(ask("--list-gpus")) if divided else ""
    everything = smi__said(ask("-q", "-x")) if listed else ""
    parts, sizes = (smi_parse_mig_devices(listed), smi_parse_mig_memory(everything))
    for address, gpu in gpus.items():
        if gpu.get("uuid"):
            gpu["processes"] = None if processes is None else processes.get(gpu["uuid"], [])
            if gpu["mig"]["current"]:
                gpu["mig"]["devices"] = parts.get(gpu["uuid"])
            for part in gpu["mig"]["devices"] or ():
                part["memory_total_mib"] = sizes.get((address, part["index"]))
    return observer_Observation(
        smi_SOURCE,
        ok=True,
        driver_version=driver_version,
        cuda_version=smi__cuda_version(ask, everything),
        gpus={**{address: {"health": "error"} for address in addresses}, **gpus},
    )


def smi__said(result: smi_Asked) -> str:
    return result.out if isinstance(result, command_Result) else ""


def smi__cuda_version(ask: Callable[..., smi_Asked], everything: str = "") -> str | None:
    known = smi__CUDA_VERSION.search(everything)
    if known:
        return known[1]
    for arguments in (("--version",), ("-q", "-x")):
        result = ask(*arguments)
        found = None if isinstance(result, observer_Observation) else smi__CUDA_VERSION.search(result.out)
        if found or isinstance(result, observer_Observation):
            return found and found[1]
    return None


def smi__rows(text: str, fields: Sequence[str]) -> list[dict[str, str]]:
    rows = (next(csv.reader([line], skipinitialspace=True, strict=False), []) for line in text.splitlines())
    return [dict(zip(fields, (value.strip() for value in row))) for row in rows if len(row) == len(fields)]


def smi_parse_rows(text: str, fields: Sequence[str]) -> tuple[dict[str, observer_Facts], str | None]:
    gpus: dict[str, observer_Facts] = {}
    driver_version = None
    for row in smi__rows(text, fields):
        place = observer_pci_address(row.get("pci.bus_id", "")) or row.get("index", "")
        if ":" in place or place.isdecimal():
            gpus[place] = smi__gpu(row)
            driver_version = driver_version or smi__value(row.get("driver_version") or row.get("kmd_version"))
    return (gpus, driver_version)


def smi__gpu(row: dict[str, str]) -> observer_Facts:
    values = {name: smi__value(text) for name, text in row.items()}
    words = {name: re.sub("[ _]+", "_", text or "").lower() for name, text in values.items()}
    capability, status = (values.get("compute_cap"), values.get("fabric.status"))
    state, action = (words.get("fabric.state"), words.get("gpu_recovery_action", ""))

    def switches(name: str) -> observer_Facts:
        return observer_switches(*(smi__SWITCH.get(words.get(f"{name}.mode.{when}", "")) for when in ("current", "pending")))

    return {
        "index": smi__number(row.get("index")),
        "name": values.get("name"),
        "uuid": values.get("uuid"),
        "architecture": observer_architecture_of(capability),
        "compute_capability": capability,
        "memory_total_mib": smi__number(row.get("memory.total")),
        "memory_used_mib": smi__number(row.get("memory.used")),
        "compute_mode": words.get("compute_mode", "").replace("_thread", "_process") or None,
        "persistence_mode": smi__SWITCH.get(words.get("persistence_mode", "")),
        "ecc": switches("ecc"),
        "mig": {**switches("mig"), "devices": []},
        "fabric": {"state": state, "status": 0 if status == "Success" else smi__code(status or "")} if state else None,
        "recovery_action": smi__ACTIONS.get(action, action) or None,
        "health": smi__health(row),
    }


def smi__value(text: str | None) -> str | None:
    return None if not text or text.startswith("[") or text == "N/A" else text


def smi__number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,12}", text) else None


def smi__health(row: dict[str, str]) -> str:
    codes = {smi__code(value) for value in row.values() if value.startswith("[")}
    nameless = observer_ERROR_UNKNOWN if row.get("name", "").startswith("[Unknown Error") else None
    return observer_health_of(next((code for code in (observer_GPU_IS_LOST, observer_RESET_REQUIRED) if code in codes), nameless))


def smi__code(text: str) -> int | None:
    return next((code for sentence, code in smi__SENTENCES.items() if sentence in text), None)


def smi_parse_processes(text: str) -> dict[str, list[observer_Facts]]:
    found: dict[str, list[observer_Facts]] = {}
    for row in smi__rows(text, ("uuid", "pid", "memory")):
        pid = smi__number(row["pid"])
        if pid:
            found.setdefault(row["uuid"], []).append({"pid": pid, "type": "compute", "memory_mib": smi__number(row["memory"])})
    return found


def smi_parse_mig_devices(text: str) -> dict[str, list[observer_Facts]]:
    found: dict[str, list[observer_Facts]] = {}
    parent = ""
    for profile, index, uuid in smi__LISTED.findall(text):
        parent = parent if profile else uuid
        parts = found.setdefault(parent, [])
        if profile:
            parts.append(observer_mig_device(smi__number(index), f"MIG {profile}", uuid, profile, None))
    return found


def smi_parse_mig_memory(text: str) -> dict[tuple[str | None, int], int]:
    gpus = [part.partition('"') for part in text.split('<gpu id="')[1:]]
    return {
        (observer_pci_address(place), int(index)): int(memory)
        for place, _quote, rest in gpus
        for index, memory in smi__MIG_MEMORY.findall(rest)
    }


def smi_parse_refusals(text: str) -> list[tuple[str, int]]:
    return [(place, smi__code(reason) or observer_ERROR_UNKNOWN) for place, reason in smi__NO_HANDLE.findall(text)]


def smi_parse_failure(result: command_Result) -> observer_Facts:
    text = " ".join((result.out + " " + result.err).split())
    code = smi__code(text) or (result.rc if result.rc in observer_ERROR_NAMES else observer_ERROR_UNKNOWN)
    return observer_error(code, text[:300] or f"nvidia-smi said nothing and ended with exit status {result.rc}.")


nvidia_SCHEMA = 1
nvidia_Complaints = list[tuple[str, Optional[str]]]
nvidia__DRIVER_KNOWS = (
    "index",
    "name",
    "uuid",
    "architecture",
    "compute_capability",
    "memory_total_mib",
    "memory_used_mib",
    "compute_mode",
    "persistence_mode",
    "ecc",
    "mig",
    "fabric",
    "recovery_action",
    "health",
    "processes",
)
nvidia__OTHER_DRIVERS = {"nouveau", "nova_core", "nova-core"}
nvidia__DAEMONS = {"nvidia-persiste", "nv-fabricmanage", "nv-hostengine"}


def nvidia_gather(root: str, timeout_s: float) -> observer_Facts:
    host = host_facts(root)
    family = host["os"]["family"]
    warnings: list[observer_Facts] = []
    packages_said = nvidia__ask_packages(root, family)
    units = host_ask_units(timeout_s)
    modules = host_ask_modules(root, (host["kernel"]["running"], host["kernel"]["next"]), timeout_s)
    engine_said = engine_ask(root, timeout_s)
    pci = sysfs_gpus(root)
    loaded = sysfs_loaded_driver(root)
    observations = nvidia_observe(nvidia__sources(root, pci, loaded, timeout_s))
    best = observations[-1]
    error = next((observation.error for observation in observations if observation.error), None)
    answered = best.ok and best.source != sysfs_SOURCE
    packages = nvidia__told(packages_said, warnings)
    engine, names = engine_said()
    gpus = nvidia_merge(pci, best)
    for gpu in gpus:
        gpu["processes"] = gpu["processes"] and [nvidia__process(root, process, names) for process in gpu["processes"]]
    rules = packages_rules(root, family)
    installed = packages_driver(packages, packages_pins(rules, packages_parts(packages)))
    version = (loaded or {}).get("version")
    known_modules = modules()
    reboot_required, reasons = host_reboot(root, family, host["kernel"], loaded, installed, gpus)
    known_units = units()
    fabric_manager, persistenced = host_services(packages, version, host["nvswitches"], known_units)
    directories = engine["cdi_spec_dirs"] or list(cdi_DIRECTORIES)
    facts = {
        "schema": nvidia_SCHEMA,
        "host": host,
        "gpus": gpus,
        "driver": {
            "loaded": loaded,
            "installed": installed,
            "cuda_version": best.cuda_version,
            "branch": version.split(".")[0] if version else None,
            "mismatch": True if error and error["code"] == observer_VERSION_MISMATCH else False if answered else None,
            "modules": known_modules,
            "next_kernel_has_module": host["kernel"]["next"] and known_modules.get(host["kernel"]["next"]) is not None,
            "reboot_required": reboot_required,
            "reboot_reasons": reasons,
            "fabric_manager": fabric_manager,
            "persistenced": persistenced,
            "users": nvidia__users(root, loaded, names),
            "broken": packages_broken(packages_parts(packages)),
            "managed": managed_files(root, managed_DRIVER),
            "journal": managed_document(root, managed_DRIVER),
            "upgrade": managed_upgrade(root),
        },
        "nvml": {
            "source": best.source,
            "error": None if answered else error,
            "attempts": [{key: getattr(observation, key) for key in ("source", "ok", "message")} for observation in observations],
        },
        "toolkit": {
            **packages_toolkit(packages, rules),
            "managed": managed_files(root, managed_TOOLKIT),
            "refresh": host_refresh(root, known_units),
            "mode": cdi_runtime_mode(sysfs_read(root, "etc/nvidia-container-runtime/config.toml") or ""),
            "cdi": {"directories": directories, "specs": cdi_specs(root, directories, cdi_Now(version, gpus))},
        },
        "engine": {
            **engine,
            **packages_engine(packages, rules),
            "service": host_unit(root, known_units, "docker.service"),
            "managed": managed_files(root, managed_ENGINE),
            "journal": managed_document(root, managed_ENGINE),
        },
        "warnings": warnings,
    }
    return {**facts, "warnings": warnings + nvidia_complaints(facts)}


def nvidia__sources(
    root: str, pci: Sequence[observer_Facts], loaded: observer_Facts | None, timeout_s: float
) -> list[tuple[str, Callable[[], observer_Observation]]]:
    leftovers = observer_Leftovers(root)
    nvml, smi, sysfs = (observer_Guard(source, leftovers, timeout_s) for source in (nvml_SOURCE, smi_SOURCE, sysfs_SOURCE))
    kernel = (sysfs.source, lambda: observer_kernel(sysfs, root))
    waiting = [gpu for gpu in pci if gpu["bound_driver"] != "vfio-pci"]
    if not (waiting or loaded or os.path.exists(os.path.join(root, "dev/dxg"))):
        return [kernel]
    bound = [gpu["pci_address"] for gpu in pci if gpu["bound_driver"] == "nvidia"]
    branch = ((loaded or {}).get("version") or "0").split(".")[0]
    return [(nvml.source, lambda: nvml_observe(nvml, bound)), (smi.source, lambda: smi_observe(smi, bound, int(branch))), kernel]


def nvidia_observe(sources: Iterable[tuple[str, Callable[[], observer_Observation]]]) -> list[observer_Observation]:
    observations: list[observer_Observation] = []
    hung = None
    for source, ask in sources:
        observation = observer_Observation(source, ok=False, message=f"Not asked, since {hung} did not come back.") if hung else ask()
        observations.append(observation)
        hung = source if observation.hung else hung
        if observation.ok:
            break
    return observations


def nvidia_merge(pci: Sequence[observer_Facts], best: observer_Observation) -> list[observer_Facts]:
    places = {gpu["pci_address"]: gpu for gpu in pci}
    for address, known in sorted(best.gpus.items()) if best.source != sysfs_SOURCE else ():
        ids = known.get("pci") or dict.fromkeys(("vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id"))
        places.setdefault(address, {"pci_address": address, **ids, "class": None, "bound_driver": None})
    return [{**place, **{key: best.gpus.get(address, {}).get(key) for key in nvidia__DRIVER_KNOWS}} for address, place in places.items()]


def nvidia__process(root: str, process: observer_Facts, names: dict[str, str]) -> observer_Facts:
    place = f"proc/{process['pid']}"
    container = engine_container_of(sysfs_read(root, place, "cgroup") or "", names, sysfs_read(root, "proc/1/cgroup") or "")
    return {**process, "name": sysfs_read(root, place, "comm"), "container": container}


def nvidia__users(root: str, loaded: observer_Facts | None, names: dict[str, str]) -> list[observer_Facts] | None:
    if loaded is None or os.geteuid():
        return None
    users = [nvidia__process(root, {"pid": pid}, names) for pid in sysfs_openers(root)]
    return [user for user in users if user["name"] not in nvidia__DAEMONS]


def nvidia__ask_packages(root: str, family: str | None) -> Callable[[], list[packages_Package]]:
    try:
        return packages_ask(root, family)
    except packages_PackagesUnknown as error:
        reason = str(error)

    def fail() -> list[packages_Package]:
        raise packages_PackagesUnknown(reason)

    return fail


def nvidia__told(packages_said: Callable[[], list[packages_Package]], warnings: list[observer_Facts]) -> list[packages_Package]:
    try:
        packages = packages_said()
    except packages_PackagesUnknown as error:
        warnings.append({"code": "DG114", "message": str(error)})
        return []
    broken = packages_broken(packages)
    if broken:
        names = dict.fromkeys((package["name"] for package in broken))
        command = "dnf remove --duplicates" if all((package["state"] == "duplicate" for package in broken)) else "dpkg --configure -a"
        message = f"The installation of {', '.join(names)} was not finished; run {command} and read why."
        warnings.append({"code": "DG113", "message": message})
    return packages


def nvidia__at(facts: Any, *way: str) -> Any:
    for key in way:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts


def nvidia__text(facts: Any, *way: str) -> str:
    found = nvidia__at(facts, *way)
    return found if isinstance(found, str) else ""


def nvidia__list(facts: Any, *way: str) -> list[Any]:
    found = nvidia__at(facts, *way)
    return found if isinstance(found, list) else []


def nvidia__dicts(facts: Any, *way: str) -> list[observer_Facts]:
    return [entry for entry in nvidia__list(facts, *way) if isinstance(entry, dict)]


def nvidia_complaints(facts: observer_Facts) -> list[observer_Facts]:
    error, configuration = (nvidia__text(facts, "engine", "error"), nvidia__at(facts, "engine", "daemon_config"))
    found = [
        *(complaint for gpu in nvidia__dicts(facts, "gpus") for complaint in nvidia__gpu_complaints(gpu, facts)),
        *nvidia__nvml_complaints(facts),
        *nvidia__driver_complaints(facts),
        *nvidia__container_complaints(facts),
        ("DG201", None if os.geteuid() and "permission" in error else error),
        ("DG216", None if os.geteuid() and (not nvidia__text(configuration, "sha256")) else nvidia__text(configuration, "error")),
        ("DG116", "Facts were gathered without root, so those that only root may read are null." if os.geteuid() else None),
    ]
    return [{"code": code, "message": message} for code, message in found if message]


def nvidia__is_driven(gpu: observer_Facts) -> bool:
    return nvidia__at(gpu, "bound_driver") == "nvidia" or nvidia__at(gpu, "class") is None


def nvidia__gpu_complaints(gpu: observer_Facts, facts: observer_Facts) -> nvidia_Complaints:
    address, driver, health = (nvidia__at(gpu, "pci_address"), nvidia__at(gpu, "bound_driver"), nvidia__at(gpu, "health"))
    if health == "lost":
        return [("DG111", f"The driver has lost the GPU at {address}.")]
    if health == "reset_required":
        return [("DG112", f"The GPU at {address} needs a reset before it can be used again.")]
    if health == "error":
        return [("DG108", f"The driver cannot talk to the GPU at {address}.")]
    if str(driver) in nvidia__OTHER_DRIVERS:
        return [("DG103", f"The GPU at {address} is held by {driver}, so NVIDIA's driver cannot have it.")]
    if nvidia__is_driven(gpu):
        found: nvidia_Complaints = []
        current, pending = (nvidia__at(gpu, "mig", "current"), nvidia__at(gpu, "mig", "pending"))
        if current and nvidia__at(gpu, "mig", "devices") == [] and (not os.geteuid()):
            found.append(("DG120", f"The GPU at {address} is in MIG mode and has no MIG device, so nothing can use it."))
        if current is not pending:
            found.append(("DG121", f"MIG mode of the GPU at {address} will be {('on' if pending else 'off')} after its next reset."))
        return found
    if driver is not None:
        return [("DG104", f"The GPU at {address} is handed to {driver}.")]
    if nvidia__at(facts, "driver", "loaded"):
        version = nvidia__at(facts, "driver", "loaded", "version")
        return [("DG105", f"NVIDIA's driver {version} is loaded and does not drive the GPU at {address}.")]
    return [("DG106", f"No driver is loaded for the GPU at {address}.")]


def nvidia__nvml_complaints(facts: observer_Facts) -> nvidia_Complaints:
    error, loaded = (nvidia__at(facts, "nvml", "error"), nvidia__at(facts, "driver", "loaded"))
    code, name, message = (nvidia__at(error, key) for key in ("code", "name", "message"))
    if error is None:
        if loaded and nvidia__at(facts, "nvml", "source") == sysfs_SOURCE:
            return [("DG110", "A driver is loaded, and neither pynvml nor nvidia-smi is there to ask it.")]
        return []
    if name == "TIMEOUT":
        return [("DG109", nvidia__text(error, "message") or "The NVIDIA driver hangs.")]
    if code == observer_VERSION_MISMATCH:
        installed, version = (nvidia__at(facts, "driver", "installed", "version"), nvidia__at(loaded, "version"))
        library = f" ({installed} is installed)" if installed and installed != version else ""
        return [("DG107", f"The loaded driver ({version}) and the driver's library differ{library}.")]
    if not loaded and code in (observer_DRIVER_NOT_LOADED, observer_LIBRARY_NOT_FOUND):
        return []
    return [("DG108", f"{name}: {message}")]


def nvidia__driver_complaints(facts: observer_Facts) -> nvidia_Complaints:
    driver = nvidia__at(facts, "driver")
    manager = {key: nvidia__at(driver, "fabric_manager", key) for key in ("needed", "installed", "running", "matches_driver", "version")}
    installed, loaded = (nvidia__text(driver, "installed", "version"), nvidia__text(driver, "loaded", "version"))
    found: nvidia_Complaints = []
    if manager["needed"]:
        trouble = "is not installed" if not manager["installed"] else "does not run" if manager["running"] is False else None
        if trouble is None and manager["matches_driver"] is False:
            trouble = f"is of version {manager['version']}, the loaded driver of {loaded or 'an unknown one'}"
        found.append(("DG117", trouble and f"This host has NVSwitches, and their fabric manager {trouble}."))
    if (installed or loaded) and nvidia__at(driver, "next_kernel_has_module") is False:
        following = nvidia__at(facts, "host", "kernel", "next")
        found.append(("DG118", f"Kernel {following} boots next, and no NVIDIA module is there for it."))
    if nvidia__at(driver, "reboot_required"):
        found.append(("DG119", f"A reboot is pending: {' '.join(map(str, nvidia__list(driver, 'reboot_reasons')))}"))
    if installed and loaded and (installed != loaded) and (not nvidia__at(driver, "mismatch")):
        found.append(("DG122", f"Driver {installed} is installed, {loaded} is loaded until the next reboot."))
    return found


def nvidia__container_complaints(facts: observer_Facts) -> nvidia_Complaints:
    engine, specs = (nvidia__at(facts, "engine"), nvidia__dicts(facts, "toolkit", "cdi", "specs"))
    driven = any(map(nvidia__is_driven, nvidia__dicts(facts, "gpus")))
    runtime = any(("nvidia" in str(name) for name in nvidia__list(engine, "runtimes")))
    packages = nvidia__at(facts, "toolkit", "packages")
    versions = {name: version for name, version in packages.items() if version} if isinstance(packages, dict) else {}
    known = not any((warning.get("code") == "DG114" for warning in nvidia__dicts(facts, "warnings")))
    found: nvidia_Complaints = []
    hook = versions.get("nvidia-container-toolkit") or command_find("nvidia-container-runtime-hook")
    ours = any((nvidia__text(spec, "kind").startswith("nvidia.com/") for spec in specs))
    if driven and known and (not (versions or hook or runtime or ours)):
        found.append(("DG212", "The NVIDIA container toolkit is not installed, so containers cannot be given the GPU."))
    docker = nvidia__at(engine, "running") and nvidia__at(engine, "name") == "docker"
    if driven and docker and (not (runtime or nvidia__at(engine, "cdi_enabled") or hook)):
        found.append(
            ("DG217", "Docker gives GPUs to containers neither by CDI nor by the nvidia runtime, and finds no hook for --gp" + "us.")
        )
    if nvidia__at(facts, "toolkit", "lockstep") is False:
        told = ", ".join((f"{name} {version}" for name, version in versions.items()))
        found.append(("DG115", f"The packages of the container toolkit are of different versions: {told}."))
    for spec in specs:
        path, shadowed = (nvidia__at(spec, "path"), ", ".join(map(str, nvidia__list(spec, "shadowed"))))
        found.append(("DG215", nvidia__text(spec, "error")))
        if nvidia__at(spec, "stale"):
            found.append(("DG214", f"{path} is out of date: {'; '.join(map(str, nvidia__list(spec, 'reasons')))}."))
        if shadowed:
            found.append(("DG218", f"{path} is not used for {shadowed}: another CDI specification defines the same."))
    return found
