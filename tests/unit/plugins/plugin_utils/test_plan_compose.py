# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compose project: what it says, that it is the same every time, and that no text of an operator changes its meaning."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose
from hypothesis import given
from hypothesis import strategies as st

ALL = ("nvidia.com/gpu=all",)


def project(service=None, reference="difyops/dify-gpu:v1", devices=ALL, **image):
    text, config = _compose.render(service or _compose.Service(), _compose.Image(reference, **image), {"org.difyops.variant": "x"}, devices)
    return text, yaml.safe_load(text), config


def test_the_service():
    text, document, config = project()
    assert text.startswith("# Managed by difyops.gpu") and text.endswith("\n")
    assert document["name"] == "dify-gpu" and list(document["services"]) == ["dify-gpu"]
    service = document["services"]["dify-gpu"]
    assert service["image"] == "difyops/dify-gpu:v1" and service["pull_policy"] == "never" and service["restart"] == "unless-stopped"
    assert service["env_file"] == ["/opt/dify-gpu/secrets/api_key.env"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["labels"] == {"org.difyops.variant": "x", "org.difyops.config": config}
    assert service["volumes"] == [{"type": "volume", "source": "data", "target": "/data"}] and document["volumes"] == {"data": {}}


def test_gpu_devices_by_cdi_in_gpu_mode_only():
    devices = project()[1]["services"]["dify-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"], "capabilities": ["gpu"]}]
    assert project()[1]["services"]["dify-gpu"]["environment"] == {"EXPECT_GPU": "1"}
    two = project(devices=["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=0:1"])[1]["services"]["dify-gpu"]
    assert two["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=0:1"]
    without = project(devices=())[1]["services"]["dify-gpu"]
    assert "deploy" not in without and without["environment"] == {"EXPECT_GPU": "0"}


def test_models_from_the_host_are_read_only_and_never_made():
    service = project(_compose.Service(models_dir="/srv/models"))[1]["services"]["dify-gpu"]
    assert service["volumes"][1] == {
        "type": "bind",
        "source": "/srv/models",
        "target": "/models",
        "read_only": True,
        "bind": {"create_host_path": False},
    }


@pytest.mark.parametrize("address, port", [("192.0.2.10", "192.0.2.10:8000:8000"), ("::1", "[::1]:8000:8000")])
def test_where_it_is_published(address, port):
    assert project(_compose.Service(bind_address=address))[1]["services"]["dify-gpu"]["ports"] == [port]


def test_the_health_check_really_asks_the_server():
    probe = project()[1]["services"]["dify-gpu"]["healthcheck"]["test"]
    assert probe[:3] == ["CMD", "python3", "-c"]
    compile(probe[3], "probe", "exec")
    assert "http://127.0.0.1:8000/health" in probe[3] and "ProxyHandler({})" in probe[3]


def test_the_time_that_a_start_may_take():
    assert project()[1]["services"]["dify-gpu"]["healthcheck"]["start_period"] == "300s"
    assert project(_compose.Service(health_timeout=900))[1]["services"]["dify-gpu"]["healthcheck"]["start_period"] == "900s"


def test_an_image_of_a_site_listens_and_answers_where_it_likes():
    service = project(port=8080, health="/healthz?full=1")[1]["services"]["dify-gpu"]
    assert service["ports"] == ["127.0.0.1:8000:8080"]
    probe = service["healthcheck"]["test"][3]
    compile(probe, "probe", "exec")
    assert "'http://127.0.0.1:8080/healthz?full=1'" in probe
    without = project(health=None)[1]["services"]["dify-gpu"]
    assert "healthcheck" not in without and without["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("value", ["1e-5", "0o17", "12", "1.5", "+1", ".inf", "0x1f", "true", "null", "~", "yes", "", "2026-11-22", "1:30"])
def test_no_text_is_read_as_a_number_or_a_boolean(value):
    text = project(_compose.Service(environment={"A": value}))[0]
    assert f"      A: '{value}'\n" in text


def test_the_config_label_follows_every_setting():
    settings = [
        _compose.Service(),
        _compose.Service(port=1),
        _compose.Service(name="b"),
        _compose.Service(home="/srv/x"),
        _compose.Service(models_dir="/m"),
        _compose.Service(environment={"A": "1"}),
        _compose.Service(bind_address="192.0.2.10"),
        _compose.Service(project="p"),
        _compose.Service(health_timeout=301),
    ]
    images = [{"devices": ()}, {"devices": ("nvidia.com/gpu=0",)}, {"reference": "difyops/dify-gpu:v2"}]
    images += [{"port": 8080}, {"health": "/"}, {"health": None}]
    configs = [project(service)[2] for service in settings] + [project(**image)[2] for image in images]
    assert len(set(configs)) == len(configs)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"])), max_size=4
    )
)
def test_every_environment_arrives_as_it_was_given(environment):
    service = _compose.Service(environment=environment)
    text, document, _config = project(service)
    assert project(_compose.Service(environment=dict(reversed(environment.items()))))[0] == text
    read = document["services"]["dify-gpu"]["environment"]
    # Compose takes $$ for a dollar sign and everything else as it is.
    assert {name: value.replace("$$", "$") for name, value in read.items()} == {"EXPECT_GPU": "1", **environment}
    assert all("$" not in value.replace("$$", "") for value in read.values())


def test_a_container_gets_its_gpus_from_nvidias_runtime_where_there_is_no_cdi():
    devices = ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"]
    text, _config = _compose.render(_compose.Service(environment={"A": "b"}), _compose.Image("x:1"), {}, devices, by_runtime=True)
    service = yaml.safe_load(text)["services"]["dify-gpu"]
    assert service["runtime"] == "nvidia" and "deploy" not in service
    assert service["environment"] == {
        "A": "b",
        "EXPECT_GPU": "1",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2",
    }
    alone = _compose.render(_compose.Service(), _compose.Image("x:1"), {}, [], by_runtime=True)
    assert alone == _compose.render(_compose.Service(), _compose.Image("x:1"), {}, [])
