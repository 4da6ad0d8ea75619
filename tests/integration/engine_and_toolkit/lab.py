# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated hosts of the tests of engine and toolkit, the playbook that provisions them, and what a test says about a run of it."""
from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from diagnosis.lab import SM, VARIANT
from driver import lab as driver_lab
from driver.families import ASIDE, SOURCES, STUBS_ONLY, WITHOUT_LISTS
from driver.lab import PLAN, PLAYBOOK, DriverFleet, DriverHost, sections

from .families import FINGERPRINT, FOUR, Family

# The kernel has two ways to keep a container from a device: a file that can be written (1), a program that can only be replaced (2).
CGROUP_1 = Path("/sys/fs/cgroup/devices").is_dir()
VERIFY = "difyops.gpu.gpu_verify"
DAEMON_JSON = "/etc/docker/daemon.json"
SPEC, OLD_SPEC = "/var/run/cdi/nvidia.yaml", "/etc/cdi/nvidia.yaml"
STATE = "/var/lib/difyops"
IDLE = "sleep infinity"
RESTART = "systemctl reset-failed docker.service; systemctl restart docker.service"
PREFIXES = {"driver": "nvidia_driver", "engine": "container_engine", "toolkit": "nvidia_container_toolkit"}
# The one mechanism of both families of images: a container that is started with these has its GPU from NVIDIA's runtime.
LEGACY = ("--runtime nvidia", "--env NVIDIA_VISIBLE_DEVICES=all", "--env NVIDIA_DRIVER_CAPABILITIES=compute,utility")
# What a run that is refused, or in check mode, must leave alone, beside files and packages: no restart of the engine or of a container.
RUNNING = r"""
echo '== engine'
systemctl show docker.service --property=ActiveState,MainPID,NRestarts
if command -v docker > /dev/null; then
    docker ps --all --quiet --no-trunc \
        | xargs --no-run-if-empty docker inspect --format '{{.Name}} {{.Id}} {{.State.Running}} {{.State.StartedAt}}' | sort
fi
echo '== specifications'
find /etc/cdi /var/run/cdi -type f -printf '%p %T@\n' 2> /dev/null | sort || true
"""


@dataclass(frozen=True)
class Provision(driver_lab.Provision):
    """One run of the playbook, as one host saw it; a document is the full plan of a part."""

    def documents(self, part: str) -> list[dict[str, Any]]:
        """Return the documents ``gpu_<part>`` in the order in which they were decided."""
        told = [one.result.get(part) for one in self.run.results if one.action == PLAN and one.host == self.host]
        return [document for document in told if document]

    def first(self, part: str) -> dict[str, Any]:
        """Return what was decided for a part before anything of it was done."""
        found = self.documents(part)
        assert found, f"no plan of the {part} of {self.host}:\n{self.output}"
        return found[0]

    def last(self, part: str) -> dict[str, Any]:
        """Return what was decided for a part at last, which is what was done."""
        self.first(part)
        return self.documents(part)[-1]

    @property
    def outcome(self) -> dict[str, Any]:
        """The host variable ``provision_outcome``, as the playbook left it."""
        told = [one.result.get("ansible_facts") or {} for one in self.run.results if one.host == self.host and one.status == "ok"]
        found = [facts["provision_outcome"] for facts in told if "provision_outcome" in facts]
        assert found, f"no outcome of {self.host}:\n{self.output}"
        return dict(found[-1])

    def quiet(self) -> Self:
        """Assert that nothing was changed, and no module executed beyond the one that observes."""
        self.ends("unchanged")
        assert (self.changed, self.run.rc) == (0, 0), self.output
        assert self.modules == [driver_lab.FACTS], self.modules
        return self

    def blocked(self, part: str, code: str, *words: str) -> Self:
        """Assert that a part was blocked for this one reason, said why and what to do in these words, and nothing was changed."""
        self.ends("blocked", *words, code=code)
        document = self.last(part)
        assert document["status"] == "blocked" and [one["code"] for one in document["blocked"]] == [code], document["blocked"]
        assert self.changed == 0 and self.run.rc != 0, self.output
        return self

    def warned(self, part: str, code: str, *words: str) -> Self:
        """Assert a warning of the first plan of a part with these words."""
        found = " ".join(one["message"] for one in self.first(part)["warnings"] if one["code"] == code)
        assert found and all(word in found for word in words), self.first(part)["warnings"]
        return self


class PlatformFleet(DriverFleet):
    """The fleet, and the playbook that provisions it."""

    always: ClassVar[dict[str, Any]] = {}

    def provision(  # type: ignore[override]
        self, hosts: dict[str, dict[str, Any]], *arguments: str, playbook: Path = PLAYBOOK, timeout_s: float = 900
    ) -> dict[str, Provision]:
        """Run the playbook on some hosts, as with drivers."""
        runs = super().provision(hosts, *arguments, playbook=playbook, timeout_s=timeout_s)
        return {name: Provision(run.run, run.host, run.modules) for name, run in runs.items()}


class PlatformHost(DriverHost):
    """One host that gets an engine and a toolkit, and its way back to what it was."""

    fleet: PlatformFleet

    def __init__(self, fleet: PlatformFleet, family: Family) -> None:
        super().__init__(fleet, family.host)
        self.family = family
        self._fingerprint: str | None = None

    # what the roles do to it

    def variables(self, **wishes: Any) -> dict[str, Any]:
        """Return the variables of the roles for some wishes: ``engine_x``, ``toolkit_x``, ``driver_x``; others stay as they are."""
        always = {f"driver_{name}": value for name, value in self.family.driver.items()}
        found = {}
        for name, value in {**always, "toolkit_repository": self.family.repository, **wishes}.items():
            part, option = name.partition("_")[::2]
            found[f"{PREFIXES[part]}_{option}" if part in PREFIXES else name] = value
        return {name: self._signed(value) for name, value in found.items()}

    def _signed(self, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("fingerprint") != FINGERPRINT:
            return value
        if self._fingerprint is None:
            self._fingerprint = self._sh("cat /srv/simrepo/fingerprint").strip()
        return {**value, "fingerprint": self._fingerprint}

    def provision(self, *arguments: str, **wishes: Any) -> Provision:
        """Run the playbook on this host."""
        run = super().provision(*arguments, **wishes)
        assert isinstance(run, Provision)
        return run

    def check(self, **wishes: Any) -> Provision:  # type: ignore[override]
        """Run the playbook in check mode, with differences."""
        return self.provision("--check", "--diff", **wishes)

    # what it is

    def whole(self) -> dict[str, list[str]]:
        """Return what a run that is refused must leave alone: packages, files, units, the engine, its containers, specifications."""
        return sections(self._sh(driver_lab.SNAPSHOT + driver_lab.LISTS + RUNNING))

    def toolkit(self) -> dict[str, str]:
        """Return the upstream versions of the toolkit's installed packages, by name."""
        found = self.packages("^(" + "|".join(FOUR) + ")$")
        return {name: version.partition("-")[0] for name, version in found.items()}

    def has_toolkit(self, version: str) -> dict[str, Any]:
        """Assert that all four packages are there in one version and kept, and nothing is left of any run. Returns the facts."""
        assert self.toolkit() == dict.fromkeys(FOUR, version)
        facts = self.facts()
        toolkit = facts["toolkit"]
        assert (toolkit["version"], toolkit["lockstep"], toolkit["pinned"], toolkit["broken"]) == (version, True, True, []), toolkit
        assert facts["engine"]["journal"] is None, facts["engine"]["journal"]
        return facts

    def described(self) -> dict[str, Any]:
        """Assert that the GPUs are described by one good CDI specification, and return it."""
        specs = self.facts()["toolkit"]["cdi"]["specs"]
        assert len(specs) == 1 and specs[0]["stale"] is False and specs[0]["error"] is None, specs
        return dict(specs[0])

    def daemon_json(self) -> str:
        """Return Docker's configuration file to the letter."""
        return self._sh(f"cat {DAEMON_JSON}")

    def state(self, container: str) -> tuple[str, bool, str]:
        """Return id, whether it runs, and the start time of a container."""
        name, running, started = self._sh(
            f"docker inspect --format '{{{{.Id}}}} {{{{.State.Running}}}} {{{{.State.StartedAt}}}}' {container}"
        ).split()
        return name, running == "true", started

    def verdict(self, container: str = "dify") -> dict[str, Any]:
        """Return what the module that proves says of a container."""
        run = self.fleet.play(self.name, {VERIFY: {"health": False, "container": container, "mode": "gpu"}})
        return dict(run.of(VERIFY)["ansible_facts"]["gpu_verdict"])

    def proven(self, container: str = "dify") -> None:
        """Assert that a matrix product is computed in the container on the simulated GPU."""
        verdict = self.verdict(container)
        assert verdict["overall"] == "proven", json.dumps([link for link in verdict["links"] if link["code"]], indent=1)

    def standin_image(self) -> None:
        """Have the stand-in for the Dify CUDA image in the engine, which may have come after the host."""
        self.fleet.simhost("up", self.name)
        self.standin("cuda12.6", SM_LIST=SM, TORCH_VERSION=VARIANT["torch"])

    def bare(self) -> None:
        """Make it what it was at first. One without an engine gets it from Debian itself."""
        if self.family.engine:
            super().bare()
            return
        self._undo.clear()
        self.fleet.simhost("reset", self.name)
        # Lists of the stubs alone would say that Debian has no engine; a fresh host has none.
        self.sh(f"systemctl reset-failed\nif [ -e {ASIDE} ]; then mv {ASIDE} {SOURCES}; fi\n{WITHOUT_LISTS}")

    def stubs_only(self) -> None:
        """Put Debian's own sources aside, so that apt does not look through all of Debian again and again."""
        self.sh(STUBS_ONLY)

    def _own_profile(self) -> None:
        self._profile(self.own)
        # The daemon ends with the driver's modules, and the next run would have something to do.
        self._sh("systemctl restart nvidia-cdi-refresh.service; systemctl start nvidia-persistenced.service")

    def _profile(self, name: str, *overrides: str) -> None:
        self.fleet.simhost("profile", self.name, name, "driver_version=", "driver_flavour=", "cdi=no", *overrides)

    # what others do to it

    def undo_with(self, undo: Callable[[], object]) -> None:
        """Have this called when the test is over."""
        self._undo.append(undo)

    def profile(self, *overrides: str, profile: str | None = None) -> None:  # type: ignore[override]
        """Give the host other GPUs until the test ends. The driver stays, and no CDI specification is made but by the toolkit."""
        self._reloading()
        self._profile(profile or self.own, *overrides)

    def wrote(self, text: str) -> None:
        """Have an operator write Docker's configuration file, to the letter, without telling Docker."""
        self.sh(f"mkdir -p /etc/docker; printf %s {shlex.quote(text)} > {DAEMON_JSON}")

    def configured(self, text: str) -> None:
        """Have an operator write Docker's configuration file and restart Docker."""
        self.wrote(text)
        self.sh(RESTART)

    def transactions(self) -> list[str]:
        """Return a line for each transaction so far that changed a package of the toolkit."""
        return self._sh(self.family.transactions).splitlines()
