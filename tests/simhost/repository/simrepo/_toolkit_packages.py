# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four packages of the NVIDIA container toolkit, for apt and dnf.

Names, relations, units and what the scripts do: NVIDIA's public packaging (nvidia-container-toolkit: packaging/, deployments/systemd). From
memory: the relations of 1.17, which name the other packages from a version on and not exactly, so that versions can come apart; and the
first version with the units in the system's own folder.
"""

from __future__ import annotations

from simrepo import _contents
from simrepo._package import Package

MAKER = "NVIDIA CORPORATION"
NAMES = ("libnvidia-container1", "libnvidia-container-tools", "nvidia-container-toolkit-base", "nvidia-container-toolkit")
VERSIONS = ("1.17.8", "1.18.2", "1.19.0", "1.19.1", "1.20.1")
# What the incomplete mirror does not have.
MISSING = ("libnvidia-container1", "1.20.1")
# The first versions in which the packages are tied to each other, and in which the units are in the system's own folder.
LOCKSTEP, UNITS_OF_SYSTEM = (1, 18), (1, 20)
UNIT, PATH_UNIT = "nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"
ENVIRONMENT = "/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"
CONFIG = "/etc/nvidia-container-runtime/config.toml"
SERVICE_TEXT = f"""\
# SIMULATED by tests/simhost: the unit is as documented, the program that it starts is a stand-in.
[Unit]
Description=Refresh NVIDIA CDI specification file (SIMULATED)
ConditionPathExists=|/usr/bin/nvidia-smi
ConditionPathExists=|/usr/sbin/nvidia-smi
ConditionPathExists=/usr/bin/nvidia-ctk
After=multi-user.target

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml
EnvironmentFile=-{ENVIRONMENT}
ExecCondition=/usr/bin/grep -qE '/(nvidia|nvidia-current)\\\\.ko' /lib/modules/%v/modules.dep
ExecStart=/usr/bin/nvidia-ctk cdi generate
CapabilityBoundingSet=CAP_SYS_MODULE CAP_SYS_ADMIN CAP_MKNOD

[Install]
WantedBy=multi-user.target
"""
PATH_TEXT = """\
[Unit]
Description=Refresh the CDI specification when kernel modules are installed or removed (SIMULATED)

[Path]
PathChanged=/lib/modules/%v/modules.dep
PathChanged=/lib/modules/%v/modules.dep.bin

[Install]
WantedBy=multi-user.target
"""
ENVIRONMENT_TEXT = """\
# SIMULATED by tests/simhost. Variables for `nvidia-ctk cdi generate`, as nvidia-cdi-refresh.service calls it:
# NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml
"""


def series(version: str) -> tuple[int, int]:
    """(1, 19) of 1.19.1."""
    major, minor, *_rest = version.split(".")
    return int(major), int(minor)


def program(name: str, version: str) -> tuple[bytes, int]:
    """A program of the toolkit: what it does is on the simulated host."""
    text = (
        "#!/bin/sh\n# SIMULATED by tests/simhost.\n"
        f"tool={_contents.HOST}/simgpu_toolkit.py\n"
        '[ -e "$tool" ] || { echo "SIMULATED: nothing on this host simulates a GPU." >&2; exit 1; }\n'
        f'exec python3 "$tool" {version} {name} "$@"\n'
    )
    return text.encode(), 0o755


def _refresh_units(version: str) -> tuple[dict[str, tuple[bytes, int]], list[str]]:
    """The files of the refresh units, and those of them that are configuration."""
    if series(version) < LOCKSTEP:
        return {}, []
    folder = "/usr/lib/systemd/system" if series(version) >= UNITS_OF_SYSTEM else "/etc/systemd/system"
    files = {
        f"{folder}/{UNIT}": (SERVICE_TEXT.encode(), 0o644),
        f"{folder}/{PATH_UNIT}": (PATH_TEXT.encode(), 0o644),
        ENVIRONMENT: (ENVIRONMENT_TEXT.encode(), 0o644),
    }
    return files, [path for path in files if path.startswith("/etc/")]


def _base(version: str, full: str, form: str) -> Package:
    """The runtime, nvidia-ctk, the hook of CDI specifications, and the units that refresh the specification."""
    names = ("nvidia-ctk", "nvidia-container-runtime", "nvidia-cdi-hook")
    files, config = _refresh_units(version)
    programs = {f"/usr/bin/{name}": program(name, version) for name in names}
    tool = f"{_contents.HOST}/simgpu_toolkit.py"
    steps = [f"if [ -e {tool} ]; then /usr/bin/nvidia-ctk --quiet config --config-file={CONFIG} --in-place; fi"]
    last = {"deb": '"$1" = remove', "rpm": '"$1" = 0'}[form]
    removing = removed = ""
    if files:
        if series(version) >= UNITS_OF_SYSTEM:
            # Those of versions before would come first: for dpkg they are configuration, and rpm takes them away only after this.
            steps.append(f"rm -f /etc/systemd/system/{UNIT} /etc/systemd/system/{PATH_UNIT}")
        steps.append(
            "case $(systemctl is-system-running 2> /dev/null) in\nrunning | degraded)\n"
            f"systemctl daemon-reload\nsystemctl --quiet reenable {PATH_UNIT} {UNIT}\n"
            f"systemctl start {PATH_UNIT} || :\nsystemctl restart {UNIT} || echo 'The CDI specification could not be made.' >&2\n;;\nesac"
        )
        removing = f"if [ {last} ]; then systemctl --quiet disable --now {PATH_UNIT} {UNIT} || :; fi"
        removed = "systemctl daemon-reload || :"
    made = Package("nvidia-container-toolkit-base", full, f"container toolkit {version}, its programs", MAKER, installed_kib=22000)
    return made.but(
        files={**programs, **files},
        config=config,
        configured="\n".join(steps),
        removing=removing,
        removed=removed,
        provides=["nvidia-container-runtime"],
    )


def packages(version: str, form: str) -> list[Package]:
    """The four packages of one version; form: deb or rpm."""
    full = f"{version}-1"
    tied = series(version) >= LOCKSTEP

    def need(name: str, exact: bool = tied) -> str:
        relation = f"{'=' if exact else '>='} {full}"
        return f"{name} ({relation})" if form == "deb" else f"{name} {relation}"

    note = f"SIMULATED by tests/simhost: there is no library in this package, version {version}.\n"
    library = Package("libnvidia-container1", full, f"container library {version}", MAKER, source="libnvidia-container", installed_kib=2900)
    tools = Package("libnvidia-container-tools", full, f"container library {version}, nvidia-container-cli", MAKER, installed_kib=60)
    hook = Package("nvidia-container-toolkit", full, f"container toolkit {version}, hook for --gpus", MAKER, installed_kib=4700)
    return [
        library.but(files={"/usr/share/doc/libnvidia-container1/README": (note.encode(), 0o644)}),
        tools.but(
            source="libnvidia-container",
            depends=[need("libnvidia-container1")],
            files={"/usr/bin/nvidia-container-cli": program("nvidia-container-cli", version)},
        ),
        _base(version, full, form),
        hook.but(
            depends=[need("libnvidia-container-tools"), need("nvidia-container-toolkit-base", True)],
            files={"/usr/bin/nvidia-container-runtime-hook": program("nvidia-container-runtime-hook", version)},
            links={"/usr/bin/nvidia-container-toolkit": "nvidia-container-runtime-hook"},
        ),
    ]


def everything(form: str, missing: tuple[str, str] | None = None) -> list[list[Package]]:
    """The packages of every version, in groups to build; without the one (name, version) that is missing."""
    groups = [packages(version, form) for version in VERSIONS]
    return [
        [package for package in group if not missing or (package.name, package.version) != (missing[0], f"{missing[1]}-1")]
        for group in groups
    ]


def ubuntu_universe(release: str) -> list[Package]:
    """What Ubuntu 26.04 has of its own: two of the four names, which can come before NVIDIA's."""
    full = f"1.19.0-0ubuntu1~{release}.1"
    first, second, *_rest = packages("1.19.0", "deb")
    maker = "Ubuntu Developers"
    return [first.but(version=full, maker=maker), second.but(version=full, maker=maker, depends=[f"libnvidia-container1 (= {full})"])]
