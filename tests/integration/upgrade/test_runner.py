# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook without ansible-playbook: by ansible-runner in two slices, as a controller does it, and from an execution environment."""
from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from diagnosis.lab import REPO, key_file

from .lab import Site

BIN = Path(sys.executable).parent
# The base that simhost has made for its hosts: Debian 12 with Python.
IMAGE, BASE = "difyops-simulated/execution-environment:1", "difyops-simhost/python"
DEFINITION = REPO / "docs/execution-environment"
# What its head says of Debian.
ARGUMENTS = {
    "PKGMGR": "/usr/bin/apt-get",
    "PYCMD": "/usr/bin/python3",
    "PYPKG": "python3 python3-pip python3-venv",
    "PKGMGR_PRESERVE_CACHE": "always",
    "ANSIBLE_GALAXY_CLI_COLLECTION_OPTS": "--offline",
}
SLICES = ("g5", "g6")


def job(site: Site, folder: Path, host: str, inside: str = "", **variables: Any) -> Path:
    """Return the private data directory of a job for one host; `inside` is where a container sees it."""
    for name in ("inventory", "env", "project"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(REPO / "tests/simhost/standin-image", folder / "project/standin-image")
    inventory = json.loads(site._inventory([host], None).read_text(encoding="utf-8"))
    inventory["all"]["children"]["dify_gpu"]["vars"].pop("ansible_ssh_private_key_file")
    inventory["all"]["children"]["dify_gpu"]["hosts"][host]["dify_image_context"] = f"{inside or folder}/project/standin-image"
    (folder / "inventory/hosts.json").write_text(json.dumps(inventory))
    shutil.copy(key_file(), folder / "env/ssh_key")
    (folder / "env/ssh_key").chmod(0o600)
    report = f"{inside or folder}/report.jsonl"
    (folder / "env/extravars").write_text(json.dumps({"nvidia_driver_branch": "580", "upgrade_report_path": report, **variables}))
    return folder


def run(site: Site, folder: Path, host: str, *arguments: str) -> str:
    """Run the playbook in a slice that has this host, and return what it printed."""
    argv = [str(BIN / "ansible-runner"), "run", str(folder), "--playbook", "difyops.gpu.upgrade_drivers", "--ident", "job"]
    argv += ["--limit", host, *arguments]
    ours = ("ANSIBLE_CONFIG", "ANSIBLE_CALLBACKS_ENABLED", "ANSIBLE_CALLBACK_PLUGINS", "TASK_RESULTS_FILE")
    environment = {name: value for name, value in site.environment(folder / "results.jsonl").items() if name not in ours}
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    artifacts = folder / "artifacts/job"
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-3000:]}"
    assert (artifacts / "rc").read_text() == "0" and list((artifacts / "job_events").glob("*.json"))
    return done.stdout


def test_the_records_of_two_slices_are_joined(site: Site, tmp_path: Path) -> None:
    lines = ""
    for number, host in enumerate(SLICES):
        folder = job(site, tmp_path / host, host, awx_job_id=100 + number)
        run(site, folder, host, "--cmdline=--check")
        lines += (folder / "report.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in lines.splitlines()]
    assert [(record["host"], record["run"]) for record in records] == [(host, str(100 + number)) for number, host in enumerate(SLICES)]
    assert {record["result"] for record in records} <= {"checked", "unchanged"}, records
    # Each slice has a canary of its own.
    assert all(record["wave"] in ("canary", "resume") for record in records if record["result"] == "checked")


def archive(folder: Path, target: Path) -> None:
    """Pack an installed collection as an archive for ansible-galaxy. What pip left out of it is taken out of its list of files."""
    files = json.loads((folder / "FILES.json").read_text(encoding="utf-8"))
    files["files"] = [entry for entry in files["files"] if (folder / entry["name"]).exists()]
    content = json.dumps(files).encode()
    manifest = json.loads((folder / "MANIFEST.json").read_text(encoding="utf-8"))
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(content).hexdigest()
    with tarfile.open(target, "w:gz") as tar:
        for name, data in (("MANIFEST.json", json.dumps(manifest).encode()), ("FILES.json", content)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for entry in files["files"]:
            if entry["name"] != ".":
                tar.add(folder / entry["name"], entry["name"], recursive=False)


@pytest.fixture(scope="module")
def environment(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the image of an execution environment, built from the definition of the collection on a base that was made here."""
    folder = tmp_path_factory.mktemp("execution-environment")
    shutil.copy(DEFINITION / "execution-environment.yml", folder)
    (folder / "collections").mkdir()
    installed = Path(site.collections.rpartition(":")[2]) / "ansible_collections"
    names = ["difyops/gpu", "community/docker", "community/general", "community/library_inventory_filtering_v1"]
    for name in names:
        archive(installed / name, folder / f"collections/{name.replace('/', '-')}.tar.gz")
    wanted = [{"name": f"collections/{name.replace('/', '-')}.tar.gz", "type": "file"} for name in names]
    (folder / "requirements.yml").write_text(json.dumps({"collections": wanted}))
    argv = [str(BIN / "ansible-builder"), "build", "--container-runtime", "docker", "--tag", IMAGE, "-v", "3"]
    listed = subprocess.run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", BASE], check=True, capture_output=True, text=True)
    arguments = {**ARGUMENTS, "EE_BASE_IMAGE": listed.stdout.split()[0]}
    argv += [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-3000:]}"
    return IMAGE


def test_it_runs_from_an_execution_environment(site: Site, environment: str, tmp_path: Path) -> None:
    host = SLICES[1]
    folder = job(site, tmp_path / "job", host, "/runner", nvidia_driver_branch="auto", nvidia_driver_policy="keep")
    isolated = ["--process-isolation", "--process-isolation-executable", "docker", "--container-image", environment]
    output = run(site, folder, host, *isolated, "--container-option=--network=host")
    record = json.loads((folder / "report.jsonl").read_text(encoding="utf-8"))
    assert (record["host"], record["result"]) == (host, "unchanged"), output[-6000:]
    assert record["from"] == site.loaded(host), record
