# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the SIMULATED container toolkit gives a container its GPU: the runtime around runc, and the hooks that runc calls.

Two ways, as in life. In the modes cdi and jit-cdi the runtime writes devices, their rules and mounts into the container's specification,
so that whoever makes the cgroup knows them. In the mode legacy a hook does it behind everybody's back when the container is made: it allows
the devices in the cgroup itself, and whoever sets that cgroup's rules anew takes them away again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import time
from typing import Any

import simgpu_toolkit
from simgpu_toolkit import ToolkitError

DEVICES = "NVIDIA_VISIBLE_DEVICES"
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
DEFAULT_CAPABILITIES = "utility,compute"
RUNTIMES = ("runc", "crun")
JIT_SINCE = (1, 18, 0)
CGROUP_1 = "/sys/fs/cgroup/devices"
# Set in the environment of the hook where the specification has the rules of the devices already.
ALLOWED = "SIMGPU_DEVICES_ALLOWED"


def mode() -> str:
    """The mode in the toolkit's configuration."""
    if not os.path.exists(simgpu_toolkit.CONFIG):
        return "auto"
    with open(simgpu_toolkit.CONFIG, encoding="utf-8") as file:
        text = file.read()
    section = re.search(r"(?ms)^\s*\[nvidia-container-runtime\](.*?)(?:^\s*\[|\Z)", text)
    found = re.search(r"""(?m)^\s*mode\s*=\s*["']([^"']+)["']""", section[1]) if section else None
    return found[1] if found else "auto"


def environment(spec: dict[str, Any]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in (spec.get("process") or {}).get("env") or []]
    return {name: value for name, _equals, value in pairs}


def wanted(spec: dict[str, Any]) -> list[str]:
    """The devices that a container asks for by its environment. `none` is the driver without a GPU in life, and nothing here."""
    value = environment(spec).get(DEVICES, "")
    return [] if value in ("", "void", "none") else [name for name in value.split(",") if name]


def resolved_mode(version: str, names: list[str]) -> str:
    """The mode that counts for a container."""
    asked = mode()
    if asked != "auto":
        return asked
    if all("=" in name for name in names):
        return "cdi"
    return "jit-cdi" if simgpu_toolkit.numbers(version) >= JIT_SINCE else "legacy"


def nodes_of(names: list[str], document: dict[str, Any]) -> list[str]:
    """The device nodes of the named devices, and those that every container gets. Raises ToolkitError for a name that is none."""
    devices = {device["name"]: device["containerEdits"]["deviceNodes"] for device in document["devices"]}
    plain = [name.rpartition("=")[2] for name in names]
    for name in plain:
        if name not in devices:
            raise ToolkitError(f"device error: {name}: unknown device")
    entries = [*document["containerEdits"]["deviceNodes"], *(entry for name in plain for entry in devices[name])]
    return list(dict.fromkeys(entry["path"] for entry in entries))


def number(path: str) -> tuple[int, int]:
    """Major and minor number of a device node."""
    info = os.stat(path)
    if not stat.S_ISCHR(info.st_mode):
        raise ToolkitError(f"{path} is no device node")
    return os.major(info.st_rdev), os.minor(info.st_rdev)


# --- the runtime ----------------------------------------------------------------------------------------------------------


def allow(spec: dict[str, Any], paths: list[str]) -> None:
    """Adds the rules of devices to a container's specification."""
    rules = spec.setdefault("linux", {}).setdefault("resources", {}).setdefault("devices", [])
    for major, minor in dict.fromkeys(number(path) for path in paths):
        rules.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rw"})


def edited(spec: dict[str, Any], names: list[str], document: dict[str, Any]) -> None:
    """Writes what a CDI specification says into a container's specification."""
    paths = nodes_of(names, document)
    devices = spec.setdefault("linux", {}).setdefault("devices", [])
    for path in paths:
        major, minor = number(path)
        devices.append({"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0})
    allow(spec, paths)
    common = document["containerEdits"]
    for mount in common["mounts"]:
        spec.setdefault("mounts", []).append(
            {"destination": mount["containerPath"], "type": "bind", "source": mount["hostPath"], "options": mount["options"]}
        )
    for hook in common.get("hooks", []):
        spec.setdefault("hooks", {}).setdefault(hook["hookName"], []).append({"path": hook["path"], "args": hook["args"]})
    others = [entry for entry in spec["process"]["env"] if not entry.startswith(f"{DEVICES}=")]
    spec["process"]["env"] = [*others, *common["env"]]


def injected(version: str, spec: dict[str, Any]) -> bool:
    """Changes a container's specification as the mode wants; whether it did."""
    names = wanted(spec)
    if not names:
        return False
    how = resolved_mode(version, names)
    if how == "legacy":
        hook: dict[str, Any] = {"path": "/usr/bin/nvidia-container-runtime-hook", "args": ["nvidia-container-runtime-hook", "prestart"]}
        if not os.path.isdir(CGROUP_1):
            # The rules of cgroup 2 are a program, which the genuine hook replaces and this one cannot.
            profile, driver = simgpu_toolkit.nvml()
            allow(spec, nodes_of(names, simgpu_toolkit.document(profile, driver)))
            hook["env"] = [f"{ALLOWED}=1"]
        spec.setdefault("hooks", {}).setdefault("prestart", []).append(hook)
        return True
    if how == "cdi":
        found = simgpu_toolkit.registry()
        missing = [name for name in names if (name if "=" in name else f"nvidia.com/gpu={name}") not in found]
        if missing:
            raise ToolkitError(f"failed to inject CDI devices: unresolvable CDI devices {', '.join(missing)}")
    profile, driver = simgpu_toolkit.nvml()
    edited(spec, names, simgpu_toolkit.document(profile, driver))
    return True


def option(arguments: list[str], *names: str) -> str | None:
    """The value of an option, written as one word or as two."""
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else arguments[place + 1] if place + 1 < len(arguments) else None
    return None


def runtime(version: str, arguments: list[str]) -> None:
    """nvidia-container-runtime: changes the specification of a container that is to be made, and becomes runc."""
    if arguments[:1] == ["--version"]:
        print(f"NVIDIA Container Runtime version {version}\ncommit: SIMULATED by tests/simhost", flush=True)
    if "create" in arguments:
        file = os.path.join(option(arguments, "--bundle", "-b") or os.getcwd(), "config.json")
        try:
            with open(file, encoding="utf-8") as source:
                spec = json.load(source)
            if injected(version, spec):
                simgpu_toolkit.put(file, json.dumps(spec))
        except (ToolkitError, OSError) as error:
            # Whoever called reads the reason there.
            with open(option(arguments, "--log") or os.devnull, "a", encoding="utf-8") as out:
                moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                out.write(json.dumps({"level": "error", "msg": f"{error} (SIMULATED)", "time": moment}) + "\n")
            raise
    for name in RUNTIMES:
        for folder in os.environ.get("PATH", os.defpath).split(":"):
            if os.access(f"{folder}/{name}", os.X_OK):
                os.execv(f"{folder}/{name}", [name, *arguments])  # noqa: S606  no shell: the words go on as they are
    raise ToolkitError(f"no runtime binary found from candidate list: {' '.join(RUNTIMES)}")


# --- hooks ----------------------------------------------------------------------------------------------------------------


def container() -> tuple[dict[str, Any], str, int]:
    """Specification, root folder and process of the container whose state the runtime gives on stdin."""
    state = json.load(sys.stdin)
    with open(os.path.join(state["bundle"], "config.json"), encoding="utf-8") as file:
        spec = json.load(file)
    return spec, os.path.join(state["bundle"], spec["root"]["path"]), int(state.get("pid") or 0)


def cdi_hook(version: str, arguments: list[str]) -> None:
    """nvidia-cdi-hook: links in the container, and the cache of its linker."""
    if arguments[:1] in (["--version"], ["-v"]):
        print(f"NVIDIA CDI Hook version {version}\ncommit: SIMULATED by tests/simhost")
        return
    _spec, root, _pid = container()
    if arguments[:1] == ["create-symlinks"]:
        for flag, value in zip(arguments[1::2], arguments[2::2]):
            target, _colons, link = value.partition("::")
            path = root + link
            if flag == "--link" and os.path.realpath(os.path.dirname(path)).startswith(os.path.realpath(root)):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if os.path.lexists(path):
                    os.unlink(path)
                os.symlink(target, path)
    elif arguments[:1] == ["update-ldcache"]:
        # An image without a linker's configuration has no use for a cache.
        if os.path.isdir(f"{root}/etc"):
            subprocess.run(["/sbin/ldconfig", "-r", root], check=False, capture_output=True)
    else:
        raise ToolkitError(f"the SIMULATED nvidia-cdi-hook has no `{' '.join(arguments)}`")


def given_by_hook(root: str, paths: list[str], driver: str, capabilities: set[str]) -> str:
    """The shell commands that put devices and files into a container's root folder."""
    lines = []
    for path in paths:
        major, minor = number(path)
        target = shlex.quote(root + path)
        lines.append(f"mkdir -p {shlex.quote(os.path.dirname(root + path))}; rm -f {target}; mknod -m 666 {target} c {major} {minor}")
    links = simgpu_toolkit.libraries(driver)
    parts = {"compute": ["libcuda"], "utility": ["libnvidia-ml"]}
    stems = [stem for part, found in parts.items() if part in capabilities or "all" in capabilities for stem in found]
    chosen = {link: path for link, path in links.items() if any(f"/{stem}." in link for stem in stems)}
    files = [*chosen.values(), *(["/usr/bin/nvidia-smi"] if "libnvidia-ml" in stems else [])]
    for path in files:
        target = shlex.quote(root + path)
        folder = shlex.quote(os.path.dirname(root + path))
        lines.append(f"mkdir -p {folder}; : > {target}; mount --bind {path} {target}; mount -o remount,bind,ro {target}")
    for path in ("/etc/simgpu", "/run/simgpu/module"):
        target = shlex.quote(root + path)
        lines.append(f"mkdir -p {target}; mount --bind {path} {target}; mount -o remount,bind,ro {target}")
    lines += [f"ln -sfn {os.path.basename(path)} {shlex.quote(root + link)}" for link, path in chosen.items()]
    return "\n".join(lines)


def allow_in_cgroup(pid: int, paths: list[str]) -> None:
    """Allows the devices in the cgroup of a process, which nobody else is told."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as lines:
        place = next(line.rstrip("\n").split(":", 2)[2] for line in lines if "devices" in line.split(":")[1].split(","))
    # Where the hierarchy is mounted from further down, the part above is not in its paths (as /usr/local/sbin/runc does it).
    with open("/proc/self/mountinfo", encoding="ascii", errors="replace") as lines:
        roots = [fields[3] for fields in map(str.split, lines) if fields[4] == CGROUP_1]
    place = place[len(roots[-1]) :] if roots and roots[-1] != "/" and place.startswith(f"{roots[-1]}/") else place
    for major, minor in dict.fromkeys(number(path) for path in paths):
        with open(f"{CGROUP_1}{place}/devices.allow", "w", encoding="ascii") as file:
            file.write(f"c {major}:{minor} rw\n")


def runtime_hook(version: str, arguments: list[str]) -> None:
    """nvidia-container-runtime-hook: the legacy way to give a container its GPU. Docker calls it for --gpus, the runtime in its mode."""
    if "prestart" not in arguments:
        if "--version" in arguments:
            print(f"NVIDIA Container Runtime Hook version {version}\ncommit: SIMULATED by tests/simhost")
        return
    spec, root, pid = container()
    names = wanted(spec)
    if not names:
        return
    if mode() not in ("auto", "legacy"):
        raise ToolkitError(
            f"the hook is called directly, as by docker --gpus, which the mode {mode()} does not allow: use the runtime nvidia"
        )
    try:
        profile, driver = simgpu_toolkit.nvml()
    except ToolkitError as error:
        raise ToolkitError(f"nvidia-container-cli: initialization error: {error}") from None
    paths = nodes_of(names, simgpu_toolkit.document(profile, driver))
    asked = environment(spec).get(CAPABILITIES) or DEFAULT_CAPABILITIES
    commands = given_by_hook(root, paths, driver, set(asked.split(",")))
    enter = ["/usr/bin/nsenter", f"--mount=/proc/{pid}/ns/mnt", "/bin/sh", "-euc", commands]
    done = subprocess.run(enter, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ToolkitError(f"nvidia-container-cli: mount error: {done.stderr.strip()}")
    if not os.environ.get(ALLOWED):
        allow_in_cgroup(pid, paths)
