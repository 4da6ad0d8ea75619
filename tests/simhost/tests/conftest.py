# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated libraries, built once per run against a folder of their own: no root, no container, no GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SIMHOST = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SIMHOST), str(SIMHOST / "host-image/files/usr/lib/simgpu"), str(SIMHOST / "repository"), str(SIMHOST / "release")]

PROFILES = sorted(path.stem for path in (SIMHOST / "profiles").glob("*.profile"))


@dataclass(frozen=True)
class Machine:
    """A pretended machine: a profile, a loaded module, device nodes; programs run in it by LD_LIBRARY_PATH."""

    root: Path

    @property
    def libraries(self) -> Path:
        return self.root / "out"

    def set(self, profile: str, *overrides: str, loaded: str | None = "", fabric_manager: bool = True) -> dict[str, str]:
        """Puts a profile in place, with some keys otherwise. loaded: the module's version; "" the profile's, None no module."""
        import simgpu_cdi
        import simgpu_profile
        from simhostlib import _fleet

        text = (SIMHOST / "profiles" / f"{profile}.profile").read_text(encoding="utf-8")
        (self.root / "profile").write_text(_fleet.with_overrides(text, list(overrides)), encoding="utf-8")
        pairs = simgpu_profile.read(str(self.root / "profile"))
        self._install(pairs["driver_version"])
        (self.root / "fabric").write_text(f"fabric_manager={pairs['driver_version']}\n" if fabric_manager else "", encoding="ascii")
        (self.root / "loaded").unlink(missing_ok=True)
        if loaded is not None:
            (self.root / "loaded").write_text(f"driver_version={loaded or pairs['driver_version']}\n", encoding="ascii")
        shutil.rmtree(self.root / "dev", ignore_errors=True)
        (self.root / "dev").mkdir()
        for node in ["/dev/nvidiactl", *simgpu_cdi.device_nodes(simgpu_profile.gpus(pairs)).get("all", [])]:
            path = self.root / node[1:]
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return pairs

    def _install(self, version: str) -> None:
        """The library of that branch: without the functions that came later."""
        import simgpu_profile

        built = (self.root / "built/libnvidia-ml.so.1").read_bytes()
        # Beside the old one and then over it: a process may still have that mapped.
        (self.root / "new").write_bytes(simgpu_profile.without_newer(built, version))
        (self.root / "new").replace(self.libraries / "libnvidia-ml.so.1")

    def run(self, *command: str, timeout: float = 20, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a program that finds the simulated libraries."""
        whole = {**os.environ, "LD_LIBRARY_PATH": str(self.libraries), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        return subprocess.run(command, check=False, env=whole, capture_output=True, text=True, timeout=timeout)

    def python(self, program: str, timeout: float = 20, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", program, timeout=timeout, **environment)

    def smi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.libraries / "nvidia-smi"), *arguments)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    made = Machine(tmp_path_factory.mktemp("simgpu"))
    made.libraries.mkdir()
    paths = {name.upper(): made.root / name for name in ("profile", "loaded", "fabric", "dev")}
    defines = " ".join(f"-DSIMGPU_{name}='\"{path}\"'" for name, path in paths.items())
    # -O0: the libraries are tiny, and the tests should be quick.
    command = ["make", "-C", str(SIMHOST / "simgpu"), f"OUT={made.libraries}", "CFLAGS=-O0", f"DEFINES={defines}"]
    subprocess.run(command, check=True, capture_output=True)
    shutil.copytree(made.libraries, made.root / "built")
    return made
