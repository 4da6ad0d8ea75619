# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIMULATED programs of the NVIDIA container toolkit, which its stub packages call: simgpu_toolkit.py VERSION PROGRAM [ARGUMENT ...].

nvidia-ctk (cdi generate, cdi list, config), nvidia-cdi-hook, nvidia-container-runtime, nvidia-container-runtime-hook, nvidia-container-cli.
They behave as documented where the collection or its tests look, and say that they are simulated where they do not. What a container is
given is the simulated GPU of simgpu_cdi; how it is given is real (simgpu_inject.py).
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import sys
from typing import Any, NoReturn

import simgpu_cdi
import simgpu_profile

CONFIG = "/etc/nvidia-container-runtime/config.toml"
SPEC_DIRS = ("/etc/cdi", "/var/run/cdi")
LOADED = "/run/simgpu/module/loaded"
HOOK = "/usr/bin/nvidia-cdi-hook"
NO_GIDS = "no-additional-gids-for-device-nodes"
# The first version whose specifications name additional groups (a third party's notes; nobody here has seen its release notes), and the
# first with the refresh units, whose environment the program reads.
GIDS_SINCE, ENVIRONMENT_SINCE = (1, 19, 1), (1, 18, 0)
VIDEO_GROUP = 44
NVML_ERRORS = {
    "9": "Driver Not Loaded",
    "12": "ERROR_LIBRARY_NOT_FOUND",
    "15": "GPU is lost",
    "18": "Driver/library version mismatch",
    "999": "Unknown Error",
}
STRATEGIES = {"index": r"\d+(:\d+)?", "uuid": r"(GPU|MIG)-.*"}
CONFIG_TEXT = """\
# SIMULATED by tests/simhost: the defaults of the container toolkit, as far as the stand-ins read them.
disable-require = false
supported-driver-capabilities = "compat32,compute,display,graphics,ngx,utility,video"

[nvidia-container-cli]
load-kmods = true

[nvidia-container-runtime]
log-level = "info"
mode = "auto"
runtimes = ["runc", "crun"]

[nvidia-container-runtime-hook]
skip-mode-detection = false
"""


class ToolkitError(Exception):
    """What the program ends with, in its own words."""


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def log(level: str, text: str) -> None:
    print(f'level={level} msg="{text}" (SIMULATED)', file=sys.stderr)


# --- the driver as NVML shows it -----------------------------------------------------------------------------------------


def loaded_version() -> str | None:
    """The version of the loaded module; None without one."""
    if not os.path.exists(LOADED):
        return None
    return simgpu_profile.read(LOADED).get("driver_version")


def nvml() -> tuple[dict[str, str], str]:
    """The profile and the driver's version. Raises ToolkitError where NVML's start fails."""
    installed, profile = simgpu_profile.installed_version(), simgpu_profile.now()
    error = None
    if installed is None:
        error = "12"
    elif profile.get("nvml_init_error"):
        error = profile["nvml_init_error"]
    elif loaded_version() is None:
        error = "9"
    elif loaded_version() != installed:
        error = "18"
    if error or installed is None:
        raise ToolkitError(f"failed to initialize NVML: {NVML_ERRORS.get(str(error), f'error {error}')}")
    return profile, installed


# --- the specification ---------------------------------------------------------------------------------------------------


def mount(path: str) -> dict[str, Any]:
    return {"hostPath": path, "containerPath": path, "options": ["ro", "nosuid", "nodev", "bind"]}


def libraries(version: str) -> dict[str, str]:
    """The libraries of the driver, by the name that programs load them by."""
    return {
        f"{simgpu_profile.LIBRARY_DIR}/{stem}.so.1": f"{simgpu_profile.LIBRARY_DIR}/{stem}.so.{version}"
        for stem in ("libcuda", "libnvidia-ml")
    }


def named(nodes: dict[str, list[str]], strategies: list[str]) -> dict[str, list[str]]:
    """The devices by the names of the wanted strategies; `all` is not one of them."""
    found = {}
    for strategy in strategies:
        kind = "index" if strategy == "type-index" else strategy
        for name, paths in nodes.items():
            if re.fullmatch(STRATEGIES[kind], name):
                found[name if kind == strategy else f"{'mig' if ':' in name else 'gpu'}{name}"] = paths
    return found


def hooks(version: str) -> list[dict[str, Any]]:
    """What an engine calls before a container starts: links to the libraries, and the cache of the linker."""
    links = [word for link, path in libraries(version).items() for word in ("--link", f"{os.path.basename(path)}::{link}")]
    return [
        {"hookName": "createContainer", "path": HOOK, "args": ["nvidia-cdi-hook", "create-symlinks", *links]},
        {
            "hookName": "createContainer",
            "path": HOOK,
            "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", simgpu_profile.LIBRARY_DIR],
        },
    ]


def document(
    profile: dict[str, str], driver: str, strategies: list[str] | None = None, gids: bool = False, every: bool = True, hook: bool = True
) -> dict[str, Any]:
    """A specification for the GPUs that the driver has. gids: devices name an additional group; every: with the device `all`."""
    mine = [gpu for gpu in simgpu_profile.gpus(profile) if simgpu_profile.driver_of(gpu, profile, driver) == "nvidia"]
    nodes = simgpu_cdi.device_nodes(mine)
    devices = named(nodes, strategies or ["index", "uuid"])
    if every and "all" in nodes:
        devices["all"] = nodes["all"]
    extra = {"additionalGids": [VIDEO_GROUP]} if gids else {}
    paths = [*libraries(driver).values(), "/usr/bin/nvidia-smi", "/etc/simgpu", "/run/simgpu/module"]
    common: dict[str, Any] = {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [{"path": f"/dev/{name}"} for name in ("nvidiactl", *simgpu_cdi.CUDA_DEVICES)],
        **({"hooks": hooks(driver)} if hook else {}),
        "mounts": [mount(path) for path in paths],
    }
    return {
        "cdiVersion": "0.7.0" if gids else "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            {"name": name, "containerEdits": {"deviceNodes": [{"path": path} for path in found], **extra}}
            for name, found in devices.items()
        ],
        "containerEdits": common,
    }


def yaml(value: Any, indent: str = "") -> str:
    """Block style, as nvidia-ctk writes it."""
    if isinstance(value, dict):
        return "".join(f"{indent}{key}:{_below(item, indent)}" for key, item in value.items())
    lines = []
    for item in value:
        if isinstance(item, dict):
            text = yaml(item, indent + "  ")
            lines.append(f"{indent}- {text[len(indent) + 2 :]}")
        else:
            lines.append(f"{indent}- {_scalar(item)}\n")
    return "".join(lines)


def _below(item: Any, indent: str) -> str:
    if isinstance(item, (dict, list)):
        return f"\n{yaml(item, indent + '    ')}" if item else " []\n"
    return f" {_scalar(item)}\n"


def _scalar(item: Any) -> str:
    plain = isinstance(item, int) or re.fullmatch(r"[A-Za-z/-][\w./=-]*|\d+\.\d+\.\d+", item)
    return str(item) if plain else json.dumps(item)


def written(spec: dict[str, Any], form: str) -> str:
    return json.dumps(spec, indent=2) + "\n" if form == "json" else f"---\n# SIMULATED GPU of tests/simhost\n{yaml(spec)}"


def put(path: str, text: str) -> None:
    """Writes a file that nobody sees by half."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path + ".part", "w", encoding="utf-8") as out:
        out.write(text)
    os.chmod(path + ".part", 0o644)
    os.replace(path + ".part", path)


# --- which devices engines find -------------------------------------------------------------------------------------------


def devices_of(path: str) -> list[str]:
    """The qualified names of the devices in a specification; of YAML only the block style."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if text.lstrip().startswith("{"):
        spec = json.loads(text)
        return [f"{spec['kind']}={device['name']}" for device in spec.get("devices") or []]
    kind = re.search(r"(?m)^kind:\s*(\S+)", text)
    section = re.search(r"(?ms)^devices:\s*\n(.*?)(?=^[A-Za-z]|\Z)", text)
    first = re.search(r"(?m)^( *)- name:", section[1]) if section else None
    if not kind or not section or not first:
        return []
    names = re.findall(rf"(?m)^{first[1]}- name:\s*(\S+)", section[1])
    plain = [name.strip("\"'") for name in names]
    return [f"{kind[1]}={name}" for name in plain]


def registry() -> list[str]:
    """What is found in all folders: of two files of one folder that define the same, neither counts."""
    found: set[str] = set()
    for folder in SPEC_DIRS:
        here: dict[str, int] = {}
        for path in sorted(glob.glob(f"{folder}/*.json") + glob.glob(f"{folder}/*.yaml")):
            try:
                devices = devices_of(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log("warning", f"{path}: {error}")
                continue
            for name in devices:
                here[name] = here.get(name, 0) + 1
        found -= {name for name, times in here.items() if times > 1}
        found |= {name for name, times in here.items() if times == 1}
    return sorted(found)


# --- nvidia-ctk -----------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ToolkitError(f"Incorrect Usage: {message}")


def _generate_options(version: str, arguments: list[str]) -> argparse.Namespace:
    """The options of `cdi generate`: an argument comes before the environment, which is read from 1.18 on."""

    def environment(name: str, default: str = "") -> str:
        return os.environ.get(name, default) if numbers(version) >= ENVIRONMENT_SINCE else default

    def words(name: str) -> list[str]:
        return [word.strip() for word in environment(name).split(",") if word.strip()]

    parser = Parser(prog="nvidia-ctk cdi generate", add_help=False, allow_abbrev=False)
    parser.add_argument("--output", default=environment("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH"))
    parser.add_argument("--format", choices=("yaml", "json"), default=environment("NVIDIA_CTK_CDI_GENERATE_OUTPUT_FORMAT") or None)
    parser.add_argument("--mode", "--discovery-mode", choices=("auto", "nvml"), default="auto")
    parser.add_argument("--device-name-strategy", action="append", choices=(*STRATEGIES, "type-index"))
    parser.add_argument("--feature-flag", "--feature-flags", action="append")
    parser.add_argument("--disable-hook", "--disable-hooks", action="append")
    parser.add_argument("--nvidia-cdi-hook-path", "--nvidia-ctk-path")
    parser.add_argument("--no-all-device", action="store_true")
    options = parser.parse_args(arguments)
    options.device_name_strategy = options.device_name_strategy or words("NVIDIA_CTK_CDI_GENERATE_DEVICE_NAME_STRATEGIES")
    options.feature_flag = options.feature_flag or words("NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS")
    options.disable_hook = options.disable_hook or words("NVIDIA_CTK_CDI_GENERATE_DISABLED_HOOKS")
    return options


def generate(version: str, arguments: list[str]) -> None:
    options = _generate_options(version, arguments)
    try:
        profile, driver = nvml()
    except ToolkitError as error:
        raise ToolkitError(f"failed to generate CDI spec: failed to create device CDI specs: {error}") from None
    gids = numbers(version) >= GIDS_SINCE and NO_GIDS not in options.feature_flag
    spec = document(profile, driver, options.device_name_strategy, gids, not options.no_all_device, "all" not in options.disable_hook)
    form = options.format or ("json" if options.output.endswith(".json") else "yaml")
    log("info", f"Generated CDI spec with version {spec['cdiVersion']}")
    if options.output:
        put(options.output, written(spec, form))
    else:
        sys.stdout.write(written(spec, form))


def configure(arguments: list[str]) -> None:
    """`nvidia-ctk config`: the defaults; a file that is there stays as it is."""
    parser = Parser(prog="nvidia-ctk config", add_help=False, allow_abbrev=False)
    parser.add_argument("--config-file", "--config", default=CONFIG)
    parser.add_argument("--in-place", "-i", action="store_true")
    options = parser.parse_args(arguments)
    there = os.path.exists(options.config_file)
    if not options.in_place:
        with open(options.config_file, encoding="utf-8") if there else open(os.devnull, encoding="utf-8") as file:
            sys.stdout.write(file.read() or CONFIG_TEXT)
    elif not there:
        put(options.config_file, CONFIG_TEXT)


def ctk(version: str, arguments: list[str]) -> None:
    while arguments and arguments[0] in ("--quiet", "-q", "--debug", "-d"):
        arguments = arguments[1:]
    command = arguments[:2]
    if command[:1] in (["--version"], ["-v"]):
        print(f"NVIDIA Container Toolkit CLI version {version}\ncommit: SIMULATED by tests/simhost")
    elif command == ["cdi", "generate"]:
        generate(version, arguments[2:])
    elif command == ["cdi", "list"]:
        found = registry()
        log("info", f"Found {len(found)} CDI devices")
        print("".join(f"{name}\n" for name in found), end="")
    elif command[:1] == ["config"]:
        configure(arguments[1:])
    else:
        raise ToolkitError(f"the SIMULATED nvidia-ctk has no `{' '.join(arguments)}`")


def cli(version: str, arguments: list[str]) -> None:
    """nvidia-container-cli, which here only tells."""
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"cli-version: {version}\nbuild: SIMULATED by tests/simhost")
    elif arguments[:1] == ["info"]:
        profile, driver = nvml()
        print(f"NVRM version:   {driver}")
        for index, gpu in enumerate(simgpu_profile.gpus(profile)):
            print(f"\nDevice Index:   {index}\nModel:          {gpu['name']}\nGPU UUID:       {gpu['uuid']}")
    else:
        raise ToolkitError(f"the SIMULATED nvidia-container-cli has no `{' '.join(arguments)}`")


def main(version: str, program: str, arguments: list[str]) -> int:
    import simgpu_inject

    programs = {
        "nvidia-ctk": ctk,
        "nvidia-container-cli": cli,
        "nvidia-cdi-hook": simgpu_inject.cdi_hook,
        "nvidia-container-runtime": simgpu_inject.runtime,
        "nvidia-container-runtime-hook": simgpu_inject.runtime_hook,
    }
    try:
        programs[program](version, arguments)
    except (ToolkitError, OSError) as error:
        print(f'level=error msg="{error}" (SIMULATED)', file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # As the module that simgpu_inject knows, so that both mean the same error.
    import simgpu_toolkit

    sys.exit(simgpu_toolkit.main(sys.argv[1], sys.argv[2], sys.argv[3:]))
