# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option `driver` of gpu_plan: what it may say, and one sentence for each mistake."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _driver_settings
from ansible_collections.difyops.gpu.plugins.plugin_utils._driver_settings import Repository, Settings, parse
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError
from hypothesis import given
from hypothesis import strategies as st

KEY = "EB693B3035CD5710E231E123A4B469963BF863CC"


def test_nothing_means_the_defaults():
    empty = {name: "" for name in _driver_settings.NAMES if name not in ("repository", "packages", "drain_containers", "persistence")}
    nothing = dict.fromkeys(_driver_settings.NAMES)
    assert parse(None) == parse({}) == parse(empty) == parse(nothing) == Settings()
    assert all(getattr(Settings(), name) == choices[0] for name, choices in _driver_settings.CHOICES.items())
    assert set(_driver_settings.NAMES) == {field.name for field in dataclasses.fields(Settings)}


def test_everything_can_be_said():
    given_repository = {"url": "https://mirror.example.org/nvidia", "suite": "./", "components": "", "key": "files/key.asc"}
    found = parse(
        {
            "state": "present",
            "policy": "upgrade",
            "branch": 580,
            "version": "580.95.05",
            "flavour": "open",
            "repository": {**given_repository, "fingerprint": " ".join(KEY[start : start + 4] for start in range(0, 40, 4)).lower()},
            "packages": ["nvidia-driver-580-server-open", "nvidia-driver-580-server-open"],
            "persistence": "no",
            "busy": "drain",
            "drain_containers": "dify-*, ollama",
            "reboot": "if_needed",
        }
    )
    assert (found.branch, found.version, found.asked, found.persistence) == (580, "580.95.05", 580, False)
    assert found.repository == Repository(**given_repository, fingerprint=KEY)
    assert (found.packages, found.drain_containers) == (("nvidia-driver-580-server-open",), ("dify-*", "ollama"))


@pytest.mark.parametrize(
    "options, way",
    [
        ({}, "install"),
        ({"branch": "580"}, "upgrade"),
        ({"version": "580.95.05"}, "upgrade"),
        ({"branch": "580", "policy": "install"}, "install"),
        ({"branch": "auto", "policy": "upgrade"}, "upgrade"),
        ({"branch": "580", "policy": "keep"}, "keep"),
        ({"branch": "580", "policy": "upgrade", "state": "unmanaged"}, "keep"),
    ],
)
def test_the_policy_that_counts(options, way):
    assert parse(options).way == way


@pytest.mark.parametrize(
    "options, sentence",
    [
        ("580", "driver must be a dictionary of settings; found '580'."),
        ({"brnch": "580"}, "driver has brnch, which is none of its settings: branch, busy, channel,"),
        ({"policy": "latest"}, "driver.policy (nvidia_driver_policy) must be one of auto, keep, install, upgrade; found 'latest'."),
        ({"reboot": True}, "driver.reboot (nvidia_driver_reboot) must be one of never, if_needed; found True."),
        ({"branch": "newest"}, "driver.branch (nvidia_driver_branch) must be a driver branch such as '580', or auto; found 'newest'."),
        ({"branch": 580.1}, "driver.branch (nvidia_driver_branch) must be a driver branch such as '580', or auto; found 580.1."),
        ({"branch": True}, "driver.branch (nvidia_driver_branch) must be a driver branch"),
        ({"version": "580"}, "driver.version (nvidia_driver_version) must be a complete driver version such as '580.95.05'; found '580'."),
        ({"version": 580.1}, "driver.version (nvidia_driver_version) must be quoted in YAML, since it is no number; found 580.1."),
        ({"branch": 535, "version": "580.95.05"}, "580.95.05 is not of driver.branch (nvidia_driver_branch) 535; give one of them."),
        ({"packages": ["nvidia-driver=580"]}, "must list names of packages, without versions; found 'nvidia-driver=580'."),
        ({"packages": {"a": 1}}, "driver.packages (nvidia_driver_packages) must be a list of names; found {'a': 1}."),
        ({"busy": "drain", "drain_containers": [1]}, "must be a list of names; found 1 in it."),
        ({"drain_containers": ["*"]}, "driver.busy (nvidia_driver_busy) is refuse; set it to drain, or take the names away."),
        ({"persistence": "perhaps"}, "driver.persistence (nvidia_driver_persistence) must be true or false; found 'perhaps'."),
        ({"repository": "https://x"}, "driver.repository (nvidia_driver_repository) must be a dictionary with url, suite"),
        ({"repository": {"uri": "x"}}, "has uri, which is none of its keys: url, suite, components, key, fingerprint."),
        ({"repository": {"url": "mirror"}}, "url must begin with https://, http:// or file://; found 'mirror'."),
        ({"repository": {"url": "https://a b"}}, "url must begin with"),
        ({"repository": {"suite": "noble main"}}, "suite must be one word"),
        ({"repository": {"suite": "noble\nTrusted: yes"}}, "suite must be one line of text"),
        ({"repository": {"fingerprint": "3bf863cc"}}, "fingerprint must be the 40 hexadecimal digits of an OpenPGP key"),
        ({"repository": {"url": "https://bob:hunter2@mirror.example.org"}}, "url has credentials"),
        ({"repository": {"key": "https://hunter2@mirror.example.org/k"}}, "key has credentials"),
        ({"repository": {"url": "ftp://bob:hunter2@mirror.example.org"}}, "url has credentials"),
        ({"repository": "https://bob:hunter2@mirror.example.org"}, "must be a dictionary with url"),
    ],
)
def test_one_sentence_for_each_mistake(options, sentence):
    with pytest.raises(WishError) as caught:
        parse(options)
    message = str(caught.value)
    assert sentence in message and "\n" not in message and message.endswith(".") and "hunter2" not in message


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
OPTIONS = st.dictionaries(
    st.sampled_from(_driver_settings.NAMES) | st.text(max_size=3),
    JUNK | st.sampled_from(sorted({choice for choices in _driver_settings.CHOICES.values() for choice in choices})),
    max_size=5,
)


@given(OPTIONS | JUNK)
def test_whatever_is_said_gives_settings_or_one_sentence(options):
    try:
        found = parse(options)
    except WishError as exc:
        assert "\n" not in str(exc)
        return
    assert all(getattr(found, name) in choices for name, choices in _driver_settings.CHOICES.items())
    assert found.version is None or found.asked == int(found.version.split(".")[0])
