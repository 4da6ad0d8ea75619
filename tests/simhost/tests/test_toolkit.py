# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SIMULATED container toolkit: its packages, those of engines, and what its programs do, without Docker, runc and root."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import simgpu_boot
import simgpu_cdi
import simgpu_inject
import simgpu_profile
import simgpu_reset
import simgpu_toolkit
import yaml
from conftest import PROFILES, SIMHOST
from simhostlib import _common, _fleet, _hosts
from simrepo import _deb, _engine_packages, _package, _rpm, _toolkit_packages

ENGINE = _engine_packages.Genuine(
    {"docker.io": "26.1.5", "docker-compose": "2.26.1", "docker-buildx": "0.13.1", "containerd": "1.7.24", "runc": "1.1.15"},
    {unit: f"ExecStart=/usr/sbin/dockerd {unit}\n" for pair in _engine_packages.SERVICES.values() for unit in pair},
)
VERSION, DRIVER = "1.19.1", "535.274.02"


# --- packages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["deb", "rpm"])
@pytest.mark.parametrize("version", _toolkit_packages.VERSIONS)
def test_the_four_packages_need_each_other(version: str, form: str) -> None:
    packages = {package.name: package for package in _toolkit_packages.packages(version, form)}
    assert set(packages) == set(_toolkit_packages.NAMES)
    needs = [need for package in packages.values() for need in package.depends]
    assert len(needs) == 3
    assert {need.partition(" ")[0] for need in needs} <= set(packages)
    exact = [need for need in needs if ">=" not in need]
    # Before 1.18 only the base was tied to its version, so that versions can come apart.
    assert len(exact) == (1 if version == "1.17.8" else 3)
    assert all(f"{version}-1" in need for need in needs)


def test_the_incomplete_mirror_lacks_one_package_of_one_version() -> None:
    for form in ("deb", "rpm"):
        whole = {(p.name, p.version) for group in _toolkit_packages.everything(form) for p in group}
        rest = {(p.name, p.version) for group in _toolkit_packages.everything(form, _toolkit_packages.MISSING) for p in group}
        assert len(whole) == 4 * len(_toolkit_packages.VERSIONS)
        assert whole - rest == {("libnvidia-container1", "1.20.1-1")}


def base(version: str, form: str = "deb") -> _package.Package:
    return next(package for package in _toolkit_packages.packages(version, form) if package.name.endswith("-base"))


@pytest.mark.parametrize(
    ("version", "folder"),
    [("1.17.8", None), ("1.18.2", "/etc/systemd/system"), ("1.19.1", "/etc/systemd/system"), ("1.20.1", "/usr/lib/systemd/system")],
)
def test_refresh_units_came_with_a_version(version: str, folder: str | None) -> None:
    package = base(version)
    units = {path for path in package.files if path.endswith((".service", ".path"))}
    assert units == ({f"{folder}/nvidia-cdi-refresh.service", f"{folder}/nvidia-cdi-refresh.path"} if folder else set())
    assert (_toolkit_packages.ENVIRONMENT in package.config) is bool(folder)
    assert ("reenable" in package.configured) is bool(folder)


def test_an_upgrade_keeps_what_an_administrator_wrote() -> None:
    content = _deb.deb(base(VERSION))
    start, end = content.index(b"control.tar.gz") + 60, content.index(b"data.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(content[start:end]), mode="r:gz") as tar:
        files = tar.extractfile("./conffiles").read().decode().splitlines()  # type: ignore[union-attr]
        assert "./conffiles" not in tarfile_names(_deb.deb(base("1.17.8")))
    assert _toolkit_packages.ENVIRONMENT in files


def tarfile_names(content: bytes) -> list[str]:
    start, end = content.index(b"control.tar.gz") + 60, content.index(b"data.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(content[start:end]), mode="r:gz") as tar:
        return tar.getnames()


def test_rpm_keeps_it_too(tmp_path: Path) -> None:
    _preamble, body = _rpm._section(base(VERSION, "rpm"), tmp_path)
    assert f"%config(noreplace) %attr(0644, root, root) {_toolkit_packages.ENVIRONMENT}" in body
    assert "%dir /etc/nvidia-container-toolkit" in body


def engine_packages() -> list[_package.Package]:
    docker = [
        p for form, end in (("deb", "~debian.13~trixie"), ("rpm", ".el9")) for p in _engine_packages.docker_repository(ENGINE, form, end)
    ]
    return [*docker, *_engine_packages.ubuntu_archive(ENGINE, "24.04"), *_engine_packages.amazon_base(ENGINE)]


def test_packages_of_engines_have_debians_programs() -> None:
    links = {target for package in engine_packages() for target in package.links.values()}
    assert links == {f"{_engine_packages.STORE}/{name}" for name in _engine_packages.PROGRAMS}
    for package in engine_packages():
        paths = [*package.links, *package.files]
        assert len(paths) == len(set(paths))
    unit = next(p for p in engine_packages() if p.name == "docker-ce").files["/usr/lib/systemd/system/docker.service"][0]
    assert unit.startswith(b"ExecStart=/usr/bin/dockerd")


@pytest.mark.parametrize(
    ("name", "form", "version"),
    [
        ("docker-ce", "deb", "5:26.1.5-1~debian.13~trixie"),
        ("docker-ce", "rpm", "3:26.1.5-1.el9"),
        ("docker-ce-cli", "rpm", "1:26.1.5-1.el9"),
    ],
)
def test_versions_of_dockers_packages(name: str, form: str, version: str) -> None:
    end = {"deb": "~debian.13~trixie", "rpm": ".el9"}[form]
    packages = {package.name: package for package in _engine_packages.docker_repository(ENGINE, form, end)}
    assert packages[name].version == version
    assert set(packages) == {"docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"}


def test_upstream_versions() -> None:
    assert _engine_packages.upstream("26.1.5+dfsg1-9+deb13u1") == "26.1.5"
    assert _engine_packages.upstream("1:1.7.24~ds1-6") == "1.7.24"


def test_every_stub_says_what_it_is() -> None:
    everything = [p for form in ("deb", "rpm") for group in _toolkit_packages.everything(form) for p in group]
    for package in [*everything, *engine_packages(), *_toolkit_packages.ubuntu_universe("26.04")]:
        assert "\nDescription: SIMULATED " in _deb.control(package)
        for path, (content, mode) in package.files.items():
            assert mode == 0o644 or b"SIMULATED" in content, path


# --- programs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with a driver and two GPUs that can be told apart."""
    text = (SIMHOST / "profiles/h100x8-550.profile").read_text(encoding="utf-8")
    (tmp_path / "profile").write_text(text, encoding="utf-8")
    (tmp_path / "loaded").write_text(f"driver_version={DRIVER}\n", encoding="ascii")
    monkeypatch.setattr(simgpu_profile, "PROFILE", str(tmp_path / "profile"))
    monkeypatch.setattr(simgpu_profile, "RIVALS_GONE", str(tmp_path / "absent"))
    monkeypatch.setattr(simgpu_profile, "installed_version", lambda: DRIVER)
    monkeypatch.setattr(simgpu_toolkit, "LOADED", str(tmp_path / "loaded"))
    monkeypatch.setattr(simgpu_toolkit, "CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setattr(simgpu_toolkit, "SPEC_DIRS", (str(tmp_path / "etc"), str(tmp_path / "run")))
    monkeypatch.setattr(simgpu_inject, "number", lambda path: (10, 229))
    for name in list(simgpu_toolkit.os.environ):
        if name.startswith("NVIDIA_"):
            monkeypatch.delenv(name)
    return tmp_path


def run(*words: str, version: str = VERSION, program: str = "nvidia-ctk") -> int:
    return simgpu_toolkit.main(version, program, list(words))


def generated(path: Path) -> dict[str, Any]:
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert path.stat().st_mode & 0o777 == 0o644
    return spec


@pytest.mark.parametrize("profile", PROFILES)
def test_a_specification_has_the_devices_of_the_host(host: Path, profile: str) -> None:
    pairs = simgpu_profile.read(str(SIMHOST / "profiles" / f"{profile}.profile"))
    (host / "profile").write_text("".join(f"{key}={value}\n" for key, value in pairs.items()), encoding="utf-8")
    assert run("cdi", "generate", f"--output={host / 'run/nvidia.yaml'}") == 0
    spec = generated(host / "run/nvidia.yaml")
    nodes = {device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in spec["devices"]}
    assert nodes == simgpu_cdi.device_nodes(simgpu_profile.gpus(pairs))
    assert spec["kind"] == "nvidia.com/gpu"
    assert list(nodes)[-1] == "all"
    text = (host / "run/nvidia.yaml").read_text(encoding="utf-8")
    assert f"libcuda.so.{DRIVER}" in text
    assert spec == yaml.safe_load(simgpu_toolkit.written(spec, "json"))


@pytest.mark.parametrize(
    ("version", "arguments", "environment", "schema", "gids"),
    [
        ("1.17.8", [], {}, "0.5.0", False),
        ("1.19.1", [], {}, "0.7.0", True),
        ("1.19.1", ["--feature-flag", "no-additional-gids-for-device-nodes"], {}, "0.5.0", False),
        ("1.19.1", [], {"NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS": "other, no-additional-gids-for-device-nodes"}, "0.5.0", False),
        ("1.19.1", [], {"NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS": "other"}, "0.7.0", True),
    ],
)
def test_feature_flags(
    host: Path, monkeypatch: pytest.MonkeyPatch, version: str, arguments: list[str], environment: dict[str, str], schema: str, gids: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run("cdi", "generate", "--output", str(host / "run/nvidia.yaml"), *arguments, version=version) == 0
    spec = generated(host / "run/nvidia.yaml")
    assert spec["cdiVersion"] == schema
    assert all(("additionalGids" in device["containerEdits"]) is gids for device in spec["devices"])


def test_the_environment_names_the_file_since_there_is_a_unit(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", str(host / "run/nvidia.yaml"))
    assert run("cdi", "generate", version="1.17.8") == 0
    assert not (host / "run/nvidia.yaml").exists()
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "nvidia.com/gpu"
    assert run("cdi", "generate") == 0
    assert (host / "run/nvidia.yaml").exists()
    assert run("cdi", "generate", "--output", str(host / "etc/other.json"), "--device-name-strategy", "index", "--no-all-device") == 0
    assert [device["name"] for device in json.loads((host / "etc/other.json").read_text(encoding="utf-8"))["devices"]] == list("01234567")


@pytest.mark.parametrize(
    ("installed", "loaded", "fault", "words"),
    [
        (None, None, "", "ERROR_LIBRARY_NOT_FOUND"),
        (DRIVER, None, "", "Driver Not Loaded"),
        (DRIVER, "580.95.05", "", "Driver/library version mismatch"),
        (DRIVER, DRIVER, "nvml_init_error=999\n", "Unknown Error"),
    ],
)
def test_without_a_driver_there_is_no_specification(
    host: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    installed: str | None,
    loaded: str | None,
    fault: str,
    words: str,
) -> None:
    monkeypatch.setattr(simgpu_profile, "installed_version", lambda: installed)
    (host / "loaded").unlink()
    if loaded:
        (host / "loaded").write_text(f"driver_version={loaded}\n", encoding="ascii")
    with open(host / "profile", "a", encoding="utf-8") as profile:
        profile.write(fault)
    assert run("cdi", "generate", "--output", str(host / "run/nvidia.yaml")) == 1
    assert f"failed to initialize NVML: {words}" in capsys.readouterr().err
    assert not (host / "run/nvidia.yaml").exists()


def listed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert run("cdi", "list") == 0
    return capsys.readouterr().out.split()


def test_the_list_is_what_engines_would_find(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == []
    run("cdi", "generate", "--output", str(host / "run/nvidia.yaml"))
    names = listed(capsys)
    assert len(names) == 17
    assert "nvidia.com/gpu=all" in names
    # In another folder a second one adds nothing; in the same folder both define nothing.
    run("cdi", "generate", "--output", str(host / "etc/nvidia.yaml"))
    assert listed(capsys) == names
    run("cdi", "generate", "--output", str(host / "run/second.json"), "--device-name-strategy=index")
    assert "nvidia.com/gpu=all" not in listed(capsys)
    (host / "run/second.json").unlink()
    (host / "run/broken.json").write_text("{", encoding="ascii")
    assert listed(capsys) == names
    (host / "run/broken.json").unlink()
    (host / "run/nvidia.yaml").write_text(simgpu_cdi.spec(simgpu_profile.gpus(simgpu_profile.now()), DRIVER), encoding="ascii")
    assert listed(capsys) == names


def test_other_words(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith(f"NVIDIA Container Toolkit CLI version {VERSION}\n")
    assert run("cdi", "generate", "--colour") == 1
    assert run("runtime", "configure") == 1
    assert "SIMULATED" in capsys.readouterr().err
    assert run("--quiet", "config", "--config-file", str(host / "config.toml"), "--in-place") == 0
    assert simgpu_inject.mode() == "auto"
    (host / "config.toml").write_text('[nvidia-container-runtime]\nmode = "legacy"\n', encoding="ascii")
    run("--quiet", "config", "--config-file", str(host / "config.toml"), "--in-place")
    assert simgpu_inject.mode() == "legacy"


# --- injection ----------------------------------------------------------------------------------------------------------


def container(**environment: str) -> dict[str, Any]:
    return {
        "process": {"env": ["PATH=/bin", *(f"{name}={value}" for name, value in environment.items())]},
        "root": {"path": "rootfs"},
        "mounts": [],
    }


@pytest.mark.parametrize("value", ["", "void", "none"])
def test_who_asks_for_no_gpu_gets_none(host: Path, value: str) -> None:
    spec = container(NVIDIA_VISIBLE_DEVICES=value)
    before = copy.deepcopy(spec)
    assert not simgpu_inject.injected(VERSION, spec)
    assert spec == before


def test_the_runtime_tells_the_cgroup_since_118(host: Path) -> None:
    spec = container(NVIDIA_VISIBLE_DEVICES="1")
    assert simgpu_inject.injected("1.18.2", spec)
    nodes = [device["path"] for device in spec["linux"]["devices"]]
    assert "/dev/nvidia1" in nodes
    assert "/dev/nvidia0" not in nodes
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    assert f"/usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER}" in [mount["destination"] for mount in spec["mounts"]]
    assert [hook["args"][1] for hook in spec["hooks"]["createContainer"]] == ["create-symlinks", "update-ldcache"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in spec["process"]["env"]
    assert "NVIDIA_VISIBLE_DEVICES=1" not in spec["process"]["env"]


@pytest.mark.parametrize("cgroup", [1, 2])
def test_the_legacy_way_leaves_it_to_a_hook(host: Path, monkeypatch: pytest.MonkeyPatch, cgroup: int) -> None:
    monkeypatch.setattr(simgpu_inject, "CGROUP_1", str(host) if cgroup == 1 else str(host / "absent"))
    spec = container(NVIDIA_VISIBLE_DEVICES="all")
    assert simgpu_inject.injected("1.17.8", spec)
    assert [hook["path"] for hook in spec["hooks"]["prestart"]] == ["/usr/bin/nvidia-container-runtime-hook"]
    assert spec["mounts"] == []
    # Only the rules of cgroup 1 can be changed by a hook here.
    assert ("linux" in spec) is (cgroup == 2)


def test_a_mode_that_is_configured_counts(host: Path) -> None:
    (host / "config.toml").write_text('[nvidia-container-runtime]\nmode = "cdi"\n', encoding="ascii")
    with pytest.raises(simgpu_toolkit.ToolkitError, match=r"unresolvable CDI devices 0"):
        simgpu_inject.injected("1.17.8", container(NVIDIA_VISIBLE_DEVICES="0"))
    run("cdi", "generate", "--output", str(host / "run/nvidia.yaml"))
    assert simgpu_inject.injected("1.17.8", container(NVIDIA_VISIBLE_DEVICES="0"))
    assert simgpu_inject.resolved_mode("1.17.8", ["nvidia.com/gpu=0"]) == "cdi"


def test_a_device_that_is_none(host: Path) -> None:
    with pytest.raises(simgpu_toolkit.ToolkitError, match="GPU-x: unknown device"):
        simgpu_inject.injected(VERSION, container(NVIDIA_VISIBLE_DEVICES="GPU-x"))


def test_runc_is_called_with_the_changed_specification(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "bin").mkdir()
    (host / "bin/runc").write_text("", encoding="ascii")
    (host / "bin/runc").chmod(0o755)
    monkeypatch.setenv("PATH", str(host / "bin"))
    called: list[list[str]] = []

    def replaced(path: str, words: list[str]) -> None:
        called.append(words)
        raise SystemExit

    monkeypatch.setattr(simgpu_inject.os, "execv", replaced)
    words = ["--root", "/run/x", "--log", str(host / "log"), "create", "--bundle", str(host), "--pid-file", "p", "id"]
    (host / "config.json").write_text(json.dumps(container(NVIDIA_VISIBLE_DEVICES="all")), encoding="ascii")
    with pytest.raises(SystemExit):
        run(*words, program="nvidia-container-runtime")
    assert called == [["runc", *words]]
    assert json.loads((host / "config.json").read_text(encoding="ascii"))["linux"]["devices"]
    # Without a driver the container is not made, and the caller can read why.
    (host / "config.json").write_text(json.dumps(container(NVIDIA_VISIBLE_DEVICES="all")), encoding="ascii")
    (host / "loaded").unlink()
    assert run(*words, program="nvidia-container-runtime") == 1
    assert "Driver Not Loaded" in json.loads((host / "log").read_text(encoding="ascii"))["msg"]
    assert len(called) == 1


@pytest.mark.parametrize(
    ("capabilities", "cuda", "smi"),
    [("utility", False, True), ("compute", True, False), ("all", True, True), ("compute,utility", True, True)],
)
def test_the_hook_gives_what_the_capabilities_say(host: Path, capabilities: str, cuda: bool, smi: bool) -> None:
    text = simgpu_inject.given_by_hook("/root fs", ["/dev/nvidia0"], DRIVER, set(capabilities.split(",")))
    assert "mknod -m 666 '/root fs/dev/nvidia0' c 10 229" in text
    assert (f"libcuda.so.{DRIVER}" in text) is cuda
    assert ("nvidia-smi" in text) is smi
    assert subprocess.run(["sh", "-n"], input=text, check=False, text=True).returncode == 0


def test_the_hook_makes_links_in_the_container(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "config.json").write_text(json.dumps(container()), encoding="ascii")
    state = json.dumps({"bundle": str(host), "pid": 1})
    monkeypatch.setattr(simgpu_inject.sys, "stdin", io.StringIO(state))
    assert run("create-symlinks", "--link", "libcuda.so.535::/usr/lib/libcuda.so.1", program="nvidia-cdi-hook") == 0
    assert (host / "rootfs/usr/lib/libcuda.so.1").readlink() == Path("libcuda.so.535")
    monkeypatch.setattr(simgpu_inject.sys, "stdin", io.StringIO(state))
    assert run("create-symlinks", "--link", "x::/../../escaped", program="nvidia-cdi-hook") == 0
    assert not (host.parent / "escaped").is_symlink()


def test_docker_calls_the_hook_only_where_the_mode_allows(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "config.json").write_text(json.dumps(container(NVIDIA_VISIBLE_DEVICES="all")), encoding="ascii")
    (host / "config.toml").write_text('[nvidia-container-runtime]\nmode = "cdi"\n', encoding="ascii")
    monkeypatch.setattr(simgpu_inject.sys, "stdin", io.StringIO(json.dumps({"bundle": str(host), "pid": 1})))
    assert run("prestart", program="nvidia-container-runtime-hook") == 1
    assert "use the runtime nvidia" in capsys.readouterr().err


# --- hosts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("toolkit", [False, True])
def test_the_boot_leaves_specifications_to_the_toolkit(host: Path, monkeypatch: pytest.MonkeyPatch, toolkit: bool) -> None:
    monkeypatch.setattr(simgpu_boot, "TOOLKIT", str(host / ("profile" if toolkit else "absent")))
    monkeypatch.setattr(simgpu_cdi, "PATH", str(host / "run/nvidia.yaml"))
    calls: list[dict[str, str]] = []
    monkeypatch.setattr(simgpu_cdi, "generate", calls.append)
    simgpu_boot.describe_devices({}, DRIVER)
    assert len(calls) == (0 if toolkit else 1)
    (host / "run").mkdir()
    (host / "run/nvidia.yaml").touch()
    simgpu_boot.describe_devices({}, None)
    assert (host / "run/nvidia.yaml").exists() is toolkit


def fleet(tmp_path: Path, **keys: object) -> _fleet.Host:
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps({"prefix": "p", "hosts": {"h": {"publish": {"ssh": 1}, **keys}}}), encoding="ascii")
    return _fleet.load(path).hosts["h"]


def test_hosts_without_an_engine(tmp_path: Path) -> None:
    assert fleet(tmp_path).engine
    assert not fleet(tmp_path, os="debian12").engine
    bare = fleet(tmp_path, engine=False, images=["cuda"])
    assert not bare.engine
    assert bare.images == ["cuda"]
    with pytest.raises(_common.SimhostError, match="`engine` of host h is true or false"):
        fleet(tmp_path, engine="podman")
    assert "docker.io" in " ".join(_hosts.WITHOUT_ENGINE)


@pytest.fixture
def reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Folders of a host for its reset, and what it would call."""
    calls: list[tuple[str, ...]] = []
    for name, place in (("ENGINE", "engine"), ("ENGINE_CONFIG", "docker/daemon.json"), ("DROP_INS", "drop-ins")):
        monkeypatch.setattr(simgpu_reset, name, str(tmp_path / place))
    monkeypatch.setattr(simgpu_reset, "quietly", lambda *words: calls.append(words))
    monkeypatch.setattr(simgpu_reset, "apt_get", lambda *words: calls.append(("apt-get", *words)))
    monkeypatch.setattr(simgpu_reset.subprocess, "run", lambda words, **options: subprocess.CompletedProcess(words, 0))
    monkeypatch.setattr(simgpu_reset.shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/daemon.json").write_text("{}", encoding="ascii")
    (tmp_path / "engine/packages").write_text("docker.io runc\n", encoding="ascii")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/daemon.json").write_text("{}", encoding="ascii")
    return calls


def test_a_reset_gives_the_engine_its_first_configuration(tmp_path: Path, reset: list[tuple[str, ...]]) -> None:
    (tmp_path / "docker/daemon.json").write_text("{broken", encoding="ascii")
    simgpu_reset.configure_engine()
    assert (tmp_path / "docker/daemon.json").read_text(encoding="ascii") == "{}"
    assert ("systemctl", "restart", "docker.service") in reset
    reset.clear()
    simgpu_reset.configure_engine()
    assert ("systemctl", "restart", "docker.service") not in reset
    (tmp_path / "drop-ins").mkdir()
    simgpu_reset.configure_engine()
    assert ("systemctl", "restart", "docker.service") in reset
    assert not (tmp_path / "drop-ins").exists()


@pytest.mark.parametrize(
    ("states", "installs"),
    [
        ({"docker.io": "installed", "runc": "installed"}, False),
        ({"runc": "installed"}, True),
        ({"docker.io": "config-files", "runc": "installed"}, True),
    ],
)
def test_a_reset_brings_the_first_engine_back(
    monkeypatch: pytest.MonkeyPatch, reset: list[tuple[str, ...]], states: dict[str, str], installs: bool
) -> None:
    monkeypatch.setattr(simgpu_reset, "states", lambda *names: states)
    simgpu_reset.reset_engine(hook=not installs)
    assert (("apt-get", "install", "--no-install-recommends", "docker.io", "runc") in reset) is installs
    # Without the hook that it knew an engine has to start anew.
    assert (("systemctl", "restart", "docker.service") in reset) is not installs


def test_a_reset_takes_away_an_engine_that_was_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reset: list[tuple[str, ...]]
) -> None:
    (tmp_path / "engine/packages").unlink()
    (tmp_path / "engine/daemon.json").unlink()
    (tmp_path / "engine").rmdir()
    data = tmp_path / "data"
    (data / "overlay2").mkdir(parents=True)
    (data / "engine-id").touch()
    monkeypatch.setattr(simgpu_reset, "ENGINE_DATA", str(data))
    monkeypatch.setattr(simgpu_reset, "ENGINE_FOLDERS", (str(tmp_path / "docker"),))
    monkeypatch.setattr(simgpu_reset, "states", lambda *names: {"docker.io": "installed", "runc": "config-files"})
    simgpu_reset.reset_engine(hook=False)
    assert ("apt-get", "purge", "docker.io", "runc") in reset
    assert list(data.iterdir()) == []
