# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated hosts of the driver tests, the playbook that provisions them, and what a test says about a run of it."""
from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from diagnosis.lab import ANSI, PLUGINS, REPO, STUB, Fleet, Host, Run

from .families import FINGERPRINT, STUBS_ONLY

PLAYBOOK = REPO / "playbooks/provision_hosts.yml"
PLAN, FACTS, REPORT = "difyops.gpu.gpu_plan", "difyops.gpu.nvidia_facts", "difyops.gpu.gpu_report"
BACKUP = "difyops.gpu.nvidia_driver_backup"
COUNTER = REPO / "tests/tools/callback_plugins"
# Hosts in containers reboot in seconds, and keep their boot_id.
REBOOTING = {
    "nvidia_driver_boot_time_command": "awk '{print $22}' /proc/1/stat",
    "nvidia_driver_reboot_test_command": "systemctl is-system-running --wait | grep -qE 'running|degraded'",
    "nvidia_driver_reboot_delay": 0,
}
CONSENT = {"reboot": "if_needed"}
STATE = "/var/lib/difyops"
# Of a host that a driver was installed on and removed from, all this must be as before. Caches of the package managers and of
# ld.so, backup copies of the user database, and what the engine outside writes at every start say nothing of it. Accounts are listed
# by name: Debian's packages leave theirs, so that no file comes to belong to somebody else's number.
SNAPSHOT = r"""
echo '== packages'
dpkg-query --show --showformat '${Package}:${Architecture} ${Version} ${db:Status-Abbrev}\n' 2> /dev/null | sort
if command -v rpm > /dev/null; then rpm --query --all 2> /dev/null | sort; fi
echo '== manual'
if command -v apt-mark > /dev/null; then apt-mark showmanual | sort; fi
echo '== held'
if command -v apt-mark > /dev/null; then apt-mark showhold | sort; fi
if [ -d /etc/dnf/plugins ]; then grep -hv '^ *#' /etc/dnf/plugins/versionlock.list 2> /dev/null | grep . | sort || true; fi
echo '== files'
find /etc -xdev \( -name '*-' -o -name ld.so.cache -o -name .pwd.lock -o -name versionlock.list -o -path /etc/dnf/modules.d \
    -o -path /etc/passwd -o -path /etc/shadow -o -path /etc/group -o -path /etc/gshadow \
    -o -path /etc/simgpu -o -path /etc/hosts -o -path /etc/hostname -o -path /etc/resolv.conf \) -prune \
    -o -type f -printf '%p %m ' -exec sha256sum {} \; -o -type l -printf '%p %l\n' | sed -E 's/ ([0-9a-f]{64})  .*/ \1/' | sort
echo '== accounts'
cut -d: -f1,3,6,7 /etc/passwd | grep -v '^nvpd:' | sort
cut -d: -f1,3,4 /etc/group | grep -v '^nvpd:' | sort
echo '== streams'
# A stream that was reset leaves a file that says nothing.
grep -h -B4 '^state=.' /etc/dnf/modules.d/*.module 2> /dev/null || true
echo '== units'
systemctl list-unit-files --no-legend --no-pager --plain | awk '{print $1, $2}' | sort
echo '== modules'
find /lib/modules -name 'nvidia*' | sort
echo '== state'
find /var/lib/difyops 2> /dev/null | sort || true
"""
# Beside those: what check mode leaves alone too, and a removal does not bring back.
LISTS = r"""
echo '== lists'
find /var/lib/apt/lists -type f -size +0 2> /dev/null | sort || true
echo '== loaded'
cat /sys/module/nvidia/version 2> /dev/null || true
awk '{print $22}' /proc/1/stat
"""


def sections(printed: str) -> dict[str, list[str]]:
    """Return the lines of each section of a snapshot."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if line.startswith("== "):
            found[line[3:]] = []
        else:
            found[next(reversed(found))].append(line)
    return found


def same(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    """Assert that two snapshots are equal, or say what is more and what is less."""
    more = {section: sorted(set(after[section]) - set(lines)) for section, lines in before.items()}
    less = {section: sorted(set(lines) - set(after[section])) for section, lines in before.items()}
    assert before == after, json.dumps({"more": more, "less": less}, indent=1)


@dataclass(frozen=True)
class Provision:
    """One run of the playbook, as one host saw it."""

    run: Run
    host: str
    modules: list[str]

    @property
    def output(self) -> str:
        return self.run.output

    @property
    def record(self) -> dict[str, Any]:
        """What the report at the end says of the host: result, before, after, message, code, remedy ..."""
        # deploy_dify has a report of Dify itself beside, which is skipped without hosts of it.
        reports = [one.result["records"] for one in self.run.results if one.action == REPORT and "records" in one.result]
        assert reports, f"there is no report:\n{self.output}"
        found = [record for record in reports[-1] if record["host"] == self.host]
        assert found, f"{self.host} is not in the report:\n{self.output}"
        return found[0]

    @property
    def plans(self) -> list[dict[str, Any]]:
        """The documents ``gpu_driver`` in the order in which they were decided."""
        told = [one.result.get("driver") for one in self.run.results if one.action == PLAN and one.host == self.host]
        return [plan for plan in told if plan]

    @property
    def plan(self) -> dict[str, Any]:
        """The last document ``gpu_driver``."""
        assert self.plans, f"no plan of {self.host}:\n{self.output}"
        return self.plans[-1]

    @property
    def facts(self) -> dict[str, Any]:
        """What was observed last."""
        told = [one.result for one in self.run.results if one.action == FACTS and one.host == self.host and one.status == "ok"]
        assert told, f"{self.host} was not observed:\n{self.output}"
        return dict(told[-1]["ansible_facts"]["nvidia"])

    @property
    def changed(self) -> int:
        """How many tasks changed something, by the recap."""
        line = re.search(rf"^{re.escape(self.host)}\s+:.*changed=(\d+)", self.output, re.MULTILINE)
        assert line, f"no recap of {self.host}:\n{self.output}"
        return int(line.group(1))

    def task(self, words: str) -> list[str]:
        """Return how the tasks ended whose names have these words."""
        return [one.status for one in self.run.results if one.host == self.host and words in one.task]

    def ends(self, result: str, *words: str, code: str | None = None) -> Self:
        """Assert how the run ended on this host, and words of its sentence or its remedy."""
        record = self.record
        told = f"{json.dumps({key: value for key, value in record.items() if isinstance(value, (str, bool))})}\n{self.output[-6000:]}"
        assert record["result"] == result, told
        assert code is None or record["code"] == code, told
        text = f"{record['message'] or ''} {record['remedy'] or ''}"
        assert all(word in text for word in words), told
        assert "\n" not in text and "Traceback" not in self.output, told
        return self

    def refuses(self, code: str, *words: str) -> Self:
        """Assert that the run was blocked for this one reason, said why and what to do in these words, and changed nothing."""
        self.ends("blocked", *words, code=code)
        assert [entry["code"] for entry in self.plan["blocked"]] == [code], self.plan["blocked"]
        assert self.plan["status"] == "blocked" and self.changed == 0, self.output
        assert self.run.rc != 0
        return self

    def warns(self, code: str, *words: str) -> Self:
        """Assert a warning of the first plan with these words."""
        found = " ".join(one["message"] for one in self.plans[0]["warnings"] if one["code"] == code)
        assert found and all(word in found for word in words), self.plans[0]["warnings"]
        return self


class DriverFleet(Fleet):
    """The fleet, and the playbook that provisions it.

    Attributes:
        always: variables of every host.
    """

    always: ClassVar[dict[str, Any]] = {"provision_parts": ["driver"]}

    def provision(
        self, hosts: dict[str, dict[str, Any]], *arguments: str, playbook: Path = PLAYBOOK, timeout_s: float = 900
    ) -> dict[str, Provision]:
        """Run the playbook on some hosts, each with its own variables, and return what each of them saw.

        A host that is not of the fleet is one more name for the host that its variables name by their ``ansible_port``.
        """
        inventory, counted = self._inventory(hosts), self._file("modules", "jsonl")
        run = self.ansible(
            playbook, "--limit", ",".join(hosts), *arguments, inventory=inventory, timeout_s=timeout_s, **self._counting(counted)
        )
        lines = [json.loads(line) for line in counted.read_text(encoding="utf-8").splitlines()] if counted.exists() else []
        return {name: Provision(run, name, [one["module"] for one in lines if one["host"] == name]) for name in hosts}

    def _inventory(self, hosts: dict[str, dict[str, Any]]) -> Path:
        return self.inventory(**{name: {**REBOOTING, **self.always, **variables} for name, variables in hosts.items()})

    @staticmethod
    def _counting(counted: Path) -> dict[str, str]:
        return {
            "ANSIBLE_CALLBACKS_ENABLED": "task_results,module_counter",
            "ANSIBLE_CALLBACK_PLUGINS": f"{PLUGINS}{os.pathsep}{COUNTER}",
            "MODULE_COUNTER_FILE": str(counted),
        }

    def start(self, hosts: dict[str, dict[str, Any]], *arguments: str) -> Controller:
        """Start the playbook on some hosts, and return the controller while it works."""
        results = self._file("results", "jsonl")
        argv = ["ansible-playbook", "-i", str(self._inventory(hosts)), "--limit", ",".join(hosts), *arguments, str(PLAYBOOK)]
        return Controller(argv, self.environment(results, PYTHONUNBUFFERED="1"))


class Controller:
    """A run of the playbook that a test does not only wait for."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            argv, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._lines: list[str] = []
        # Read all the time, or the program would wait for its reader.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            self._lines.extend(stream)

    @property
    def output(self) -> str:
        return ANSI.sub("", "".join(self._lines))

    def kill(self) -> None:
        """Kill it, workers and all, as a power cut of the controller does; it must still be at work."""
        assert self._process.poll() is None, f"it had ended already:\n{self.output}"
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._reader.join(10)

    def wait(self, timeout_s: float = 300) -> int:
        """Wait until it ends by itself, and return its exit status."""
        status = self._process.wait(timeout_s)
        self._reader.join(10)
        return status


class DriverHost(Host):
    """One host that gets drivers, and its way back to what it was."""

    fleet: DriverFleet

    def __init__(self, fleet: DriverFleet, name: str, **always: Any) -> None:
        super().__init__(fleet, name)
        self.always = always
        self.own = fleet.raw["hosts"][name]["profile"]

    # what the role does to it

    def variables(self, **wishes: Any) -> dict[str, Any]:
        """Return the variables of the role for some wishes, over those that the host always has."""
        found = {f"nvidia_driver_{name}": value for name, value in {**self.always, **wishes}.items()}
        repository = found.get("nvidia_driver_repository")
        if repository and repository.get("fingerprint") == FINGERPRINT:
            found["nvidia_driver_repository"] = {**repository, "fingerprint": self._sh("cat /srv/simrepo/fingerprint").strip()}
        return found

    def provision(self, *arguments: str, **wishes: Any) -> Provision:
        """Run the playbook on this host. Wishes are the role's variables, without ``nvidia_driver_``."""
        self.touched = True
        return self.fleet.provision({self.name: self.variables(**wishes)}, *arguments)[self.name]

    def role(self, entry: str, **variables: Any) -> Run:
        """Run one entry point of the role on this host, with the consents to reboot, and remember that it was touched."""
        self.touched = True
        include = {"ansible.builtin.include_role": {"name": "difyops.gpu.nvidia_driver", "tasks_from": entry}}
        inventory = self.fleet._inventory({self.name: self.variables(**CONSENT)})
        run = self.fleet.play(self.name, {**include, "vars": variables}, inventory=inventory)
        assert run.rc == 0, run.output
        return run

    def check(self, **wishes: Any) -> Provision:  # type: ignore[override]
        """Run the playbook in check mode, with differences."""
        return self.provision("--check", "--diff", **wishes)

    def interrupted(self, when: str, then: str = "", **wishes: Any) -> None:
        """Kill the controller as soon as a shell condition holds on the host; `then` is run on the host after that."""
        self.touched = True
        controller = self.fleet.start({self.name: self.variables(**wishes)})
        try:
            self._sh(f"for try in $(seq 4000); do if {when}; then exit; fi; sleep 0.03; done; exit 1", timeout_s=200)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{controller.output}") from None
        controller.kill()
        if then:
            self._sh(then)

    # what it is

    def snapshot(self, *, lists: bool = False) -> dict[str, list[str]]:
        """Return what a removal must bring back; with `lists` also what check mode must leave alone."""
        return sections(self._sh(SNAPSHOT + (LISTS if lists else "")))

    def loaded(self) -> str | None:
        """Return the version of the loaded driver, as the kernel tells it."""
        return self._sh("cat /sys/module/nvidia/version 2> /dev/null || true").strip() or None

    def boot(self) -> str:
        """Return what differs after a reboot."""
        return self._sh("awk '{print $22}' /proc/1/stat").strip()

    def packages(self, pattern: str = "nvidia|libcuda") -> dict[str, str]:
        """Return the versions of the installed packages whose names match, by name."""
        # An Enterprise Linux-like host is Debian below: what dnf brings is in rpm's database only.
        query = """
            if [ -e /etc/redhat-release ] || [ -e /etc/system-release ]; then rpm -qa --queryformat '%{NAME} %{VERSION}-%{RELEASE} ii\\n'
            else dpkg-query --show --showformat '${Package} ${Version} ${db:Status-Abbrev}\\n'; fi
        """
        rows = [line.split() for line in self._sh(query).splitlines()]
        return {name: version for name, version, status in rows if status.endswith("i") and re.search(pattern, name)}

    def facts(self) -> dict[str, Any]:
        """Return what the module observes."""
        run = self.fleet.play(self.name, {FACTS: {}})
        assert run.rc == 0, run.output
        return dict(run.of(FACTS)["ansible_facts"]["nvidia"])

    def settled(self, version: str | None) -> dict[str, Any]:
        """Assert by the facts that this driver is installed, loaded and kept, and nothing is left of any run. Returns the facts of it."""
        driver = dict(self.facts()["driver"])
        loaded, installed = driver["loaded"] or {}, driver["installed"] or {}
        assert (loaded.get("version"), installed.get("version")) == (version, version), (loaded, installed)
        assert version is None or installed["pinned"] is True, installed["pins"]
        assert (driver["journal"], driver["broken"]) == (None, []) and driver["mismatch"] is not True, driver
        return driver

    def reboot(self) -> None:
        """Reboot it from outside, as an operator does."""
        self.fleet.simhost("reboot", self.name)

    def bare(self) -> None:
        """Make it what it was at first: a GPU, no driver, nothing of the role. Of the repositories it has the stubs only."""
        self._undo.clear()
        self.fleet.simhost("reset", self.name)
        # A daemon without a driver has failed, and the host would count as degraded.
        self.sh(f"systemctl reset-failed\n{STUBS_ONLY}")

    def cards(self, *overrides: str, profile: str | None = None) -> None:
        """Give the bare host other GPUs, or its own with keys of the profile otherwise, until the test ends."""
        self.profile("driver_version=", "driver_flavour=", *overrides, profile=profile or self.own)

    def _own_profile(self) -> None:
        self.fleet.simhost("reset", self.name)

    # what others do to it

    def publish(self, version: str, *names: str) -> None:
        """Have a repository offer empty packages of these names in a newer version, as an update of the distribution does."""
        stubs = "\n".join(f"stub {name} {version}; mv /tmp/{name}.deb /srv/newer/" for name in names)
        listing = (
            'for deb in *.deb; do dpkg-deb --field "$deb"; echo "Filename: ./$deb"; echo "Size: $(stat -c %s "$deb")"; '
            'echo "SHA256: $(sha256sum < "$deb" | cut -c -64)"; echo; done > Packages'
        )
        source = "echo 'deb [trusted=yes] file:///srv/newer ./' > /etc/apt/sources.list.d/newer.list"
        self.sh(f"mkdir -p /srv/newer\n{STUB.format(postinst=':')}\n{stubs}\ncd /srv/newer\n{listing}\n{source}")
        self.undo("rm -rf /srv/newer /etc/apt/sources.list.d/newer.list")

    def half_installed(self, name: str) -> None:
        """Have a package whose script fails when it is configured."""
        script = r"printf '#!/bin/sh\nexit 1\n' > /tmp/stub-$1/DEBIAN/postinst; chmod 755 /tmp/stub-$1/DEBIAN/postinst"
        self.sh(f"{STUB.format(postinst=script)}\nstub {name} 1.0\n! dpkg --install /tmp/{name}.deb > /dev/null 2>&1\nrm /tmp/{name}.deb")
        self.undo(f"dpkg --purge {name} > /dev/null")

    def without(self, *names: str) -> None:
        """Have the stub of Ubuntu's archive, which is the only source of the host, lack these packages."""
        own = "/etc/apt/sources.list.d/simhost.sources"
        self.sh(rf"""
            . /etc/os-release
            folder=dists/$VERSION_CODENAME/restricted/binary-amd64
            mkdir -p /srv/less/$folder
            ln -sfn /srv/simrepo/ubuntu/pool /srv/less/pool
            awk -v RS= -v ORS='\n\n' '!/(^|\n)Package: ({'|'.join(names)})\n/' \
                /srv/simrepo/ubuntu/$folder/Packages > /srv/less/$folder/Packages
            mv {own} /var/cache/simhost.sources
            printf 'Types: deb\nURIs: file:///srv/less/\nSuites: %s\nComponents: restricted\nTrusted: yes\n' $VERSION_CODENAME > {own}
            apt-get -qq update
        """)
        self.undo(f"mv /var/cache/simhost.sources {own}; rm -r /srv/less; apt-get -qq update")

    def upgraded_by_hand(self, old: str, new: str) -> None:
        """Have an administrator who does not know of the role install another version of every package of the driver."""
        # The version of prebuilt modules is the kernel's: what they depend on tells which driver they are of.
        self.sh(rf"""
            export DEBIAN_FRONTEND=noninteractive
            apt-get -qq update
            query='${{db:Status-Status}} ${{Package}} ${{Version}}\n'
            for name in $(dpkg-query --show --showformat "$query" | awk '$1 == "installed" && index($3, "{old}-") == 1 {{print $2}}'); do
                version=$(apt-cache madison $name | awk 'index($3, "{new}-") == 1 {{print $3; exit}}')
                if [ -n "$version" ]; then wanted="$wanted $name=$version"; fi
            done
            kernel=$(dpkg-query --show --showformat '${{Package}}\n' "linux-modules-nvidia-*-$(uname -r)" 2> /dev/null || true)
            for version in $(apt-cache madison $kernel | awk '{{print $3}}'); do
                if apt-cache show "$kernel=$version" | grep -q ">= {new})"; then wanted="$wanted $kernel=$version"; fi
            done
            apt-get -qq --yes --allow-downgrades --allow-change-held-packages -o Dir::Etc::PreferencesParts=/dev/null install $wanted
        """)

    def background(self, unit: str, command: str) -> None:
        """Have a command run on the host beside the test; it is stopped at the end."""
        self.sh(f"systemd-run --quiet --collect --unit {unit} bash -c {shlex.quote(command)}")
        self.undo(f"systemctl stop {unit} 2> /dev/null || true")

    def waits_for(self, condition: str, seconds: float = 20) -> None:
        """Wait until a shell condition holds on the host."""
        deadline = time.monotonic() + seconds
        while self._sh(f"if {condition}; then echo yes; fi").strip() != "yes":
            assert time.monotonic() < deadline, f"{self.name}: never came true: {condition}"
            time.sleep(0.2)
