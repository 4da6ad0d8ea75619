# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of drivers and what became of them, as an operator reads them."""

from __future__ import annotations

import textwrap
from typing import Any

import driver_scenarios as scenarios
import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _provision_text, _text
from driver_scenarios import answer, facts, plan, settings, settled
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st


def record(host: str, document: dict[str, Any] | None, outcome: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    known = {"in_play": True, "check": False, **changed}
    facts_now = {"gpu_driver": document} if document else {}
    return _provision_text.build_record(host, facts_now, {"driver": outcome} if outcome else None, time="now", **known)


def printed(*records: dict[str, Any], check: bool = False) -> str:
    return _provision_text.render_plan(list(records), check)


def golden(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def upgrade() -> dict[str, Any]:
    """An upgrade on Ubuntu for which a container is stopped."""
    names = ["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server", "nvidia-compute-utils-580-server"]
    host = scenarios.with_driver(facts(), "580.65.06", names, "-0ubuntu1")
    host["engine"]["gpu_containers"] = [
        {"id": "c0ffee", "name": "dify-gpu-dify-gpu-1", "image": "x", "how": "cdi", "devices": ["nvidia.com/gpu=all"]}
    ]
    host["driver"]["installed"]["pins"] = [{"kind": "hold", "name": name, "value": None, "path": None} for name in names]
    host["driver"]["managed"] = {"/etc/apt/preferences.d/difyops-nvidia-driver.pref": {"sha256": "x", "mode": "0644"}}
    wanted = settings(version="580.95.05", busy="drain", drain_containers=["dify-gpu-*"])
    query = plan(host, wanted)["query"]
    changes = [{"name": name, "from": "580.65.06-0ubuntu1", "to": "580.95.05-0ubuntu1"} for name in names]
    changes += [{"name": f"libnvidia-extra{number}", "from": None, "to": "580.95.05-0ubuntu1"} for number in range(9)]
    return plan(
        host, wanted, answer(query, "580.95.05", install=changes, remove=[{"name": "nvidia-firmware-580-server-580.65.06", "from": "1"}])
    )


def test_an_upgrade() -> None:
    assert printed(record("u24-1", upgrade()), record("u24-2", upgrade()), record("u24-3", upgrade())) == golden(
        """
        PROVISIONING of 3 hosts: 3 to change

        u24-[1:3]: change
          driver      upgrade 580.65.06 -> 580.95.05 (asked for by driver.version (nvidia_driver_version), with the open kernel
                      modules)
          from        the distribution; open kernel modules, prebuilt
          packages    12 packages come or change; 300 MiB to load: nvidia-headless-no-dkms-580-server-open 580.65.06-0ubuntu1 ->
                      580.95.05-0ubuntu1, nvidia-utils-580-server 580.65.06-0ubuntu1 -> 580.95.05-0ubuntu1,
                      nvidia-compute-utils-580-server 580.65.06-0ubuntu1 -> 580.95.05-0ubuntu1, libnvidia-extra0
                      580.95.05-0ubuntu1 and 8 more
          removed     1 package: nvidia-firmware-580-server-580.65.06
          pins        every package is held; /etc/apt/preferences.d/difyops-nvidia-driver.pref,
                      /etc/apt/apt.conf.d/52difyops-nvidia-driver
          files       /etc/modprobe.d/difyops-nvidia-driver.conf; the initramfs is made anew
          services    nvidia-persistenced, started at boot
          in use      by container dify-gpu-dify-gpu-1 (nvidia.com/gpu=all)
          stops       dify-gpu-dify-gpu-1, started again afterwards
          then        the host is REBOOTED: driver 580.95.05 takes the place of the loaded 580.65.06
        """
    )


def test_a_bare_host_in_check_mode_says_what_is_not_known_yet() -> None:
    repository = {"url": "https://mirror.example/cuda", "fingerprint": scenarios.KEY_FINGERPRINT}
    host, wanted = facts("rocky", "9.5"), settings(branch="580", repository=repository)
    document = plan(host, wanted, answer(plan(host, wanted)["query"]))
    assert printed(record("el9", document, check=True), check=True) == golden(
        f"""
        PROVISIONING of 1 host: 1 would change (checked, not applied)

        el9: change
          driver      install 580.*, exact version after the repository is added (asked for by driver.branch
                      (nvidia_driver_branch), with the open kernel modules)
          from        NVIDIA's repository; open kernel modules
          repository  /etc/yum.repos.d/difyops-nvidia-driver.repo is written, with the key
                      {scenarios.KEY_FINGERPRINT} from https://mirror.example/cuda/D42D0685.pub
          then        the driver is loaded, without a reboot; where that fails, the host is REBOOTED

        WARNINGS
          DG788 driver 580.* is wanted; whether and in which version it can be had is known after the repository is added;
                {document["warnings"][0]["message"].split("; ", 2)[2]} [el9]
        """
    )


def test_a_removal_and_hosts_on_which_nothing_is_to_be_done() -> None:
    host = scenarios.with_driver(facts("rocky", "9.5"), "580.95.05", ["nvidia-driver-cuda"], "-1.el9", origin="nvidia")
    host["driver"]["managed"] = {"/etc/yum.repos.d/difyops-nvidia-driver.repo": {"sha256": "x"}}
    host["driver"]["installed"]["pins"] = [
        {"kind": "versionlock", "name": "nvidia-driver-cuda", "value": "3:580.95.05-1.el9.*", "path": None}
    ]
    gone = plan(host, settings(state="absent"), answer(remove=[{"name": "nvidia-driver-cuda", "from": "580.95.05-1.el9"}]))
    text = printed(record("b", gone), record("a", plan(facts(), settings(state="absent"))))
    assert text == golden(
        """
        PROVISIONING of 2 hosts: 1 unchanged, 1 to change

        b: change
          driver      remove 580.95.05 (driver.state (nvidia_driver_state) is absent)
          removed     1 package: nvidia-driver-cuda
          pins        1 package released first
          files       /etc/yum.repos.d/difyops-nvidia-driver.repo goes
          then        the host is REBOOTED: driver 580.95.05 is loaded and is to be removed

        a: nothing to change
          driver      none (no driver is installed, and driver.state (nvidia_driver_state) is absent)
        """
    )


def test_what_is_in_the_way_is_told_with_its_remedy() -> None:
    text = printed(record("sles", plan(facts("sles", "15.6"), settings())), record("gone", None, in_play=False))
    assert "PROVISIONING of 2 hosts: 1 BLOCKED, 1 unreachable" in text
    assert "sles: BLOCKED, nothing is touched\n  blocked     DG773 no driver is changed on SLES 15.6 on x86_64" in text
    assert "              -> install the driver by other means" in text
    assert text.endswith("gone: no plan: the host did not answer in this run")


def test_what_goes_is_named_to_the_last_package() -> None:
    names = [f"nvidia-firmware-580-server-580.{number}.01" for number in range(70, 79)]
    document = upgrade()
    document["packages"]["remove"] = [{"name": name, "from": "1"} for name in names]
    text = printed(record("a", document))
    assert "9 packages: " in text and all(name in text for name in names)


@pytest.mark.parametrize("given", [{"state": "unmanaged"}, {"version": "595.71.05", "reboot": "never"}])
def test_containers_that_are_started_beside_nothing_else_are_named(given: dict[str, str]) -> None:
    host = scenarios.with_driver(facts(), "580.95.05", ["nvidia-utils-580-server"], "-0ubuntu1")
    assert "starts" not in printed(record("a", plan(host, settings(**given))))
    host["driver"]["journal"] = {"schema": 1, "phase": "drain", "containers": [{"id": "c0ffee", "name": "ollama"}]}
    assert "  starts      ollama, which an interrupted run stopped" in printed(record("a", plan(host, settings(**given))))


def test_a_downgrade_is_called_one() -> None:
    host = scenarios.with_driver(facts(), "580.105.08", ["nvidia-utils-580-server"], "-0ubuntu1")
    assert "downgrade 580.105.08 -> 580.95.05" in printed(record("a", settled(host, settings(version="580.95.05"), "580.95.05")))


def test_every_line_fits_a_terminal() -> None:
    text = printed(record("u24-1", upgrade()), record("sles", plan(facts("sles", "15.6"), settings())))
    assert [line for line in text.splitlines() if len(line) > 120] == []


def outcome(
    status: str, before: str | None = None, after: str | None = None, message: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"status": status, "before": before, "after": after, "message": message, "code": code}


BLOCK = {"code": "DG776", "message": "the GPUs are in use by container x", "remedy": "stop what is named"}
IN_USE = {"status": "blocked", "blocked": [BLOCK]}
OUTCOMES = [
    record("a", None, outcome("unchanged", "580.95.05", "580.95.05", "580.95.05 is what is wanted")),
    record("b", None, outcome("changed", "535.288.01", "580.95.05", "asked for by driver.branch")),
    record("c", None, outcome("reboot_required", None, "580.95.05", "nouveau has the GPU; reboot to load driver 580.95.05", "DG791")),
    record("d", IN_USE, outcome("blocked", "535.288.01", "535.288.01", "the GPUs are in use by container x", "DG776")),
    record("e", None, outcome("failed", "535.288.01", None, "dpkg ended with 1: no space left on device", "DG793")),
    record("f", None, outcome("unreachable", message="Connection timed out")),
]


def test_the_table_of_what_became_of_drivers() -> None:
    text = _provision_text.render_outcome(OUTCOMES, False, lambda text, _result: text)
    head, _blank, *table = text.splitlines()[:9]
    assert head == "PROVISIONING of 6 hosts: 1 unchanged, 1 changed, 1 REBOOT REQUIRED, 1 BLOCKED, 1 FAILED, 1 unreachable"
    assert (
        table
        == golden(
            """
        HOST  DRIVER                   RESULT           WHY
        a     580.95.05                unchanged        580.95.05 is what is wanted
        b     535.288.01 -> 580.95.05  changed          asked for by driver.branch
        c     none -> 580.95.05        REBOOT REQUIRED  DG791 nouveau has the GPU; reboot to load driver 580.95.05
        d     535.288.01               BLOCKED          DG776 the GPUs are in use by container x
        e     535.288.01               FAILED           DG793 dpkg ended with 1: no space left on device
        f     -                        unreachable      Connection timed out
        """
        ).splitlines()
    )
    assert "d: BLOCKED DG776: the GPUs are in use by container x\n    -> stop what is named" in text
    assert text.count("    -> ") == 1, "what the role says of a failure or a missing reboot has what to do in its sentence"
    assert "a: " not in text


def test_colours_do_not_move_the_columns() -> None:
    painted = _provision_text.render_outcome(OUTCOMES, False, lambda text, result: f"<{result}>{text}</>")
    bare = painted.replace("</>", "")
    for result in ("unchanged", "changed", "reboot_required", "blocked", "failed", "unreachable"):
        bare = bare.replace(f"<{result}>", "")
    assert bare == _provision_text.render_outcome(OUTCOMES, False, lambda text, _result: text)


def test_who_has_to_be_looked_after() -> None:
    assert [entry["host"] for entry in OUTCOMES if not entry["ok"]] == ["d", "e", "f"]
    assert _text.summarize(OUTCOMES, _provision_text.RESULTS)["reboot_required"] == 1


@pytest.mark.parametrize(
    ("status", "told", "in_play", "check", "result"),
    [
        ("ok", None, True, False, "unchanged"),
        ("change", None, True, False, "planned"),
        ("change", None, True, True, "checked"),
        ("change", "changed", True, True, "checked"),
        ("change", "changed", True, False, "changed"),
        ("blocked", None, True, False, "blocked"),
        ("change", None, False, False, "failed"),
        (None, None, False, False, "unreachable"),
        (None, None, True, False, "not_run"),
        (None, "nonsense", True, False, "not_run"),
    ],
)
def test_results(status: str | None, told: str | None, in_play: bool, check: bool, result: str) -> None:
    document = {"status": status} if status else None
    assert record("a", document, {"status": told} if told else None, in_play=in_play, check=check)["result"] == result


def test_a_record_has_no_content_of_files() -> None:
    found = record("a", upgrade())
    assert "content" not in str(found)
    assert "query" not in found["plan"]["driver"]
    assert found["plan"]["driver"]["pins"]["files"]["/etc/apt/preferences.d/difyops-nvidia-driver.pref"]["sha256"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
documents = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys([*upgrade()], anything), "status": st.sampled_from(["ok", "change", "blocked"]) | anything}
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(documents, documents | st.none())
def test_bad_documents_never_raise(document: dict[str, Any], told: dict[str, Any] | None) -> None:
    found = [record("a", document, told), record("b", None, told, in_play=False)]
    assert _provision_text.render_plan(found, True).startswith("PROVISIONING of 2 hosts")
    assert _provision_text.render_outcome(found, False, lambda text, _result: text)
