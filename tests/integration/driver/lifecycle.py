# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a driver on one host, in tests that follow each other: each begins where the one before has ended."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from .families import Family
from .lab import BACKUP, CONSENT, FACTS, DriverFleet, DriverHost, Provision, same


@dataclass
class Life:
    """One family's host, what it was at first, and how far its life has come."""

    family: Family
    host: DriverHost
    bare: dict[str, list[str]]
    wishes: dict[str, object] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    saved: dict[str, Any] = field(default_factory=dict)

    def provision(self, *arguments: str, **wishes: object) -> Provision:
        """Run the playbook with other wishes than before, which stay."""
        self.wishes = wishes
        return self.host.provision(*arguments, **wishes)

    def has(self, version: str) -> None:
        """Assert that this driver is installed and loaded, and nothing of another one is left."""
        packages = self.host.packages(self.family.watch)
        assert packages and all(version in one for one in packages.values()), packages
        if self.family.loads:
            assert self.host.loaded() == version

    def shows_before_it_does(self) -> None:
        """Assert that check mode on the bare host ends well, tells what would come and changes nothing."""
        before = self.host.snapshot(lists=True)
        run = self.host.check(**self.family.first, **CONSENT)
        assert run.run.rc == 0, run.output
        assert (run.plan["status"], run.plan["action"], run.plan["from"]) == ("change", "install", None)
        for words in self.family.foretold:
            assert words in run.output, run.output
        same(before, self.host.snapshot(lists=True))

    def is_installed(self) -> None:
        """Assert that an exact version is installed, loaded where that can be, and kept."""
        run = self.provision(version=self.family.old, **CONSENT).ends(self.family.settled)
        assert run.run.rc == 0, run.output
        self.has(self.family.old)

    def is_left_alone(self) -> None:
        """Assert that a second run changes nothing, and executes no module beyond that which observes."""
        run = self.host.provision(**self.wishes).ends("unchanged")
        assert (run.changed, run.run.rc) == (0, 0), run.output
        assert run.modules == [FACTS], run.modules
        driver = run.facts["driver"]
        assert driver["installed"]["version"] == self.family.old and driver["installed"]["pinned"] is True, driver["installed"]
        assert (driver["journal"], driver["broken"]) == (None, []) and driver["mismatch"] is not True, driver
        assert run.plan["action"] == "none", run.plan["reason"]

    def stays(self) -> None:
        """Assert that a whole upgrade, which would take a newer driver without the pin, leaves it as it is."""
        before = self.host.packages(self.family.watch)
        self.host.sh(self.family.would_upgrade)
        told = self.host.sh(self.family.upgrade)
        assert self.host.packages(self.family.watch) == before, told

    def is_saved(self) -> None:
        """Assert that every package of the present driver is put aside on the host, and remember what there was."""
        self.saved = self.host.facts()["driver"]["installed"]
        assert self.saved["version"] == self.family.second, self.saved
        run = self.host.role("save")
        assert run.of(BACKUP)["complete"] is True, run.output

    def comes_back(self) -> None:
        """Assert that what was saved is there again, loaded and kept as before, and nothing of the other driver is left."""
        streams = [pin for pin in self.saved["pins"] if pin["kind"] == "module_stream"]
        source = "nvidia" if self.saved["origin"] == "nvidia" else "distribution"
        told = {name: self.saved[name] for name in ("version", "flavour", "pinned", "pins", "packages")}
        told |= {"source": source, "streams": streams}
        self.host.role("rollback", nvidia_driver_former=told)
        self.has(self.family.second)
        now = self.host.facts()["driver"]
        assert now["installed"] == self.saved and now["broken"] == [] and now["journal"] is None, (now, self.saved)
        self.host.fleet.play(self.host.name, {BACKUP: {"state": "absent"}})

    def is_removed(self) -> None:
        """Assert that after the removal all is as it was before the driver, and that another run has nothing to do."""
        self.provision(state="absent", **CONSENT).ends("changed")
        same(self.bare, self.host.snapshot())
        assert self.host.loaded() is None
        again = self.host.provision(**self.wishes).ends("unchanged")
        assert again.changed == 0 and again.modules == [FACTS]


def begin(fleet: DriverFleet, family: Family) -> Iterator[Life]:
    """Yield the life of a family's driver at its beginning, on a host that is bare, and make it bare in the end."""
    host = DriverHost(fleet, family.host, **family.wishes)
    host.bare()
    host.sh(family.prepare)
    yield Life(family, host, host.snapshot())
    host.bare()


def go_on(started: Life, request: pytest.FixtureRequest) -> Iterator[Life]:
    """Yield the life as far as the tests before have brought it; where one of them failed, fail."""
    if started.steps:
        pytest.fail(f"{started.steps[0]} had failed before, and this test begins where it should have ended", pytrace=False)
    yield started
    report = getattr(request.node, "report", None)
    if report is None or not report.passed:
        started.steps.append(request.node.name)
