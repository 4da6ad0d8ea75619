# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where drivers come from: the systems that can be changed, the choice of a source, and the repositories."""

from __future__ import annotations

import driver_scenarios as scenarios
import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_source, _host
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Settings
from hypothesis import given
from hypothesis import strategies as st

NVIDIA_URL = "https://developer.download.nvidia.com/compute/cuda/repos"
DEB = "EB693B3035CD5710E231E123A4B469963BF863CC"
RPM = "610C7B14E068A878070DA4E99CD0A493D42D0685"


def host(system: str, version: str, architecture: str = "x86_64", origin: str | None = None) -> _host.Host:
    facts = scenarios.facts(system, version)
    facts["host"]["architecture"] = architecture
    facts["driver"]["installed"] = {"version": "580.95.05", "origin": origin} if origin else None
    return _host.read(facts)


@pytest.mark.parametrize(
    ("system", "version", "architecture", "url", "key", "fingerprint"),
    [
        ("debian", "12", "x86_64", "debian12/x86_64", "3bf863cc.pub", DEB),
        ("debian", "13", "aarch64", "debian13/sbsa", "8793F200.pub", "02182E60104FCDC26EAE1B8597A5D4CB8793F200"),
        ("ubuntu", "22.04", "x86_64", "ubuntu2204/x86_64", "3bf863cc.pub", DEB),
        ("ubuntu", "24.04", "aarch64", "ubuntu2404/sbsa", "3bf863cc.pub", DEB),
        ("ubuntu", "26.04", "x86_64", "ubuntu2604/x86_64", "3bf863cc.pub", None),
        ("rocky", "9.5", "x86_64", "rhel9/x86_64", "D42D0685.pub", RPM),
        ("rocky", "10.0", "x86_64", "rhel10/x86_64", "CDF6BA43.pub", None),
        ("amzn", "2023", "aarch64", "amzn2023/sbsa", "D42D0685.pub", RPM),
    ],
)
def test_targets_and_nvidias_repositories(
    system: str, version: str, architecture: str, url: str, key: str, fingerprint: str | None
) -> None:
    here = host(system, version, architecture)
    assert _driver_source.refusal(here) is None
    found = _driver_source.repository(here, Settings(), "nvidia")
    assert found == (f"{NVIDIA_URL}/{url}/", "/", "", f"{NVIDIA_URL}/{url}/{key}", fingerprint)


@pytest.mark.parametrize(
    ("system", "version", "architecture"),
    [
        ("rocky", "8.10", "x86_64"),
        ("sles", "15.6", "x86_64"),
        ("debian", "11", "x86_64"),
        ("ubuntu", "24.10", "x86_64"),
        ("debian", "13", "riscv64"),
    ],
)
def test_other_systems_are_refused_in_one_sentence(system: str, version: str, architecture: str) -> None:
    block = _driver_source.refusal(host(system, version, architecture))
    assert block is not None
    assert block.code == "DG773"
    assert f"{scenarios.NAMES[system]} {version} on {architecture}" in block.message
    assert "Ubuntu 22.04, 24.04 and 26.04" in block.message


def test_the_host_of_virtual_gpus_is_left_alone() -> None:
    facts = scenarios.facts()
    facts["host"]["vgpu"] = True
    block = _driver_source.refusal(_host.read(facts))
    assert block is not None
    assert block.code == "DG785"


@pytest.mark.parametrize(
    ("system", "version", "branch", "origin", "source"),
    [
        ("ubuntu", "24.04", 580, None, "distribution"),
        # A branch that Ubuntu has not is still asked of Ubuntu, which tells what it has.
        ("ubuntu", "24.04", 550, None, "distribution"),
        ("ubuntu", "24.04", 580, "nvidia", "nvidia"),
        ("debian", "13", 550, None, "distribution"),
        ("debian", "13", 580, None, "nvidia"),
        ("debian", "13", 580, "debian", "nvidia"),
        ("debian", "12", 535, "debian", "distribution"),
        ("rocky", "9.5", 580, None, "nvidia"),
        ("amzn", "2023", 580, "nvidia", "nvidia"),
    ],
)
def test_the_source_that_auto_means(system: str, version: str, branch: int, origin: str | None, source: str) -> None:
    assert _driver_source.choose(host(system, version, origin=origin), Settings(), branch, "open") == source


def test_a_source_that_is_named_counts() -> None:
    assert _driver_source.choose(host("ubuntu", "24.04"), Settings(source="nvidia"), 580, "open") == "nvidia"
    assert _driver_source.choose(host("debian", "13"), Settings(source="distribution"), 580, "open") == "distribution"


def test_the_family_of_rhel_has_no_driver_of_its_own() -> None:
    block = _driver_source.unavailable(host("rocky", "9.5"), "distribution")
    assert block is not None
    assert (block.code, block.by_wish) == ("DG773", True)
    assert "Rocky Linux 9.5 on x86_64 has no NVIDIA driver of its own" in block.message
    assert _driver_source.unavailable(host("rocky", "9.5"), "nvidia") is None
    assert _driver_source.unavailable(host("debian", "13"), "distribution") is None


def test_offered_branches() -> None:
    assert _driver_source.offered(host("debian", "12"), "distribution") == {470, 535}
    assert _driver_source.offered(host("ubuntu", "26.04"), "distribution") == {580, 595, 615}
    assert _driver_source.offered(host("rocky", "9.5"), "distribution") == frozenset()
    assert _driver_source.offered(host("debian", "12"), "nvidia") is None


def test_a_mirror_of_nvidias_repository_has_nvidias_key_unless_another_is_named() -> None:
    wanted = scenarios.settings(repository={"url": "https://mirror.example/cuda"})
    found = _driver_source.repository(host("debian", "12"), wanted, "nvidia")
    assert found == ("https://mirror.example/cuda/", "/", "", "https://mirror.example/cuda/3bf863cc.pub", DEB)
    wanted = scenarios.settings(repository={"url": "https://mirror.example/cuda", "key": "/etc/keys/ours.asc", "suite": "noble"})
    found = _driver_source.repository(host("ubuntu", "24.04"), wanted, "nvidia")
    assert found == ("https://mirror.example/cuda/", "noble", "main", "/etc/keys/ours.asc", None)


def test_a_mirror_of_the_distribution() -> None:
    wanted = scenarios.settings(repository={"url": "https://mirror.example/debian"})
    found = _driver_source.repository(host("debian", "13"), wanted, "distribution")
    assert found == ("https://mirror.example/debian", "trixie", "contrib non-free non-free-firmware", "", None)
    assert _driver_source.repository(host("debian", "13"), Settings(), "distribution") is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
)


@given(anything, anything, anything)
def test_bad_facts_never_raise(system: object, architecture: object, driver: object) -> None:
    here = _host.read({"host": {"os": system, "architecture": architecture}, "driver": driver})
    _driver_source.refusal(here)
    assert _driver_source.choose(here, Settings(), 580, None) in ("distribution", "nvidia")
    _driver_source.offered(here, "distribution")
    _driver_source.repository(here, Settings(), "nvidia")
