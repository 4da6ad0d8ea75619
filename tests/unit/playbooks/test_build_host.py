# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role dify_image with one host that builds for all: who builds, who pushes, and who gets a copy.

The plan, the role and Ansible are real; the hosts are this machine under several names, and docker is SIMULATED by a small program that
keeps its images in a folder for each host and writes down what it was told.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.plan_documents import without_gpu

COLLECTION = pathlib.Path(__file__).parents[3]
PLAYBOOK = pathlib.Path(sys.executable).parent / "ansible-playbook"
EMPTY = {"files": {}, "secrets": {}, "images": {}, "containers": [], "error": None}
REFERENCE = "registry.example.org/dify-gpu:web-server-cpu-v0.1.0"

DOCKER = r"""
import json, os, pathlib, sys
home, host, arguments = pathlib.Path(os.environ["SIM_HOME"]), os.environ["SIM_HOST"], sys.argv[1:]
mine, registry = home / host, home / "registry"
while arguments and arguments[0].startswith("--"):
    arguments = arguments[2:]
name = lambda reference: reference.replace("/", "_")
def end(text="", status=0):
    print(text, file=sys.stderr if status else sys.stdout)
    sys.exit(status)
what = arguments[0]
if what == "version":
    end(json.dumps({"Client": {"Version": "27.0.0", "ApiVersion": "1.47"}, "Server": {"Version": "27.0.0", "ApiVersion": "1.47"}}))
if what == "info":
    end(json.dumps({"ClientInfo": {"Plugins": [{"Name": "buildx", "Version": "v0.20.0", "Path": "/x"}]}}))
if arguments[:2] == ["image", "inspect"]:
    image = mine / name(arguments[-1])
    if not image.exists():
        end("No such image", 1)
    end(image.read_text() if "--format" in arguments else json.dumps([{"Id": "sha256:1"}]))
if arguments[:2] == ["image", "ls"]:
    end()
with (home / "log").open("a") as log:
    log.write(f"{host} {what}\n")
if what == "buildx":
    if (home / "broken").exists():
        end("ERROR: failed to solve: no space left on device", 1)
    tag = arguments[arguments.index("--tag") + 1]
    (mine / name(tag)).write_text(next(value for value in arguments if value.startswith("RECIPE_DIGEST=")).partition("=")[2])
elif what == "push":
    if (home / "closed").exists():
        end("denied: requested access to the resource is denied", 1)
    (registry / name(arguments[-1])).write_text((mine / name(arguments[-1])).read_text())
elif what == "pull":
    (mine / name(arguments[-1])).write_text((registry / name(arguments[-1])).read_text())
elif what == "save":
    pathlib.Path(arguments[2]).write_text(json.dumps([arguments[3], (mine / name(arguments[3])).read_text()]))
elif what == "load":
    reference, content = json.loads(pathlib.Path(arguments[-1]).read_text())
    (mine / name(reference)).write_text(content)
else:
    end(f"not simulated: {arguments}", 1)
"""


class Lab:
    """Hosts builder, one and two."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        for name in ("registry", "bin", "context", "work", "tmp"):
            (home / name).mkdir()
        (home / "context/Dockerfile").write_text("FROM scratch\n")
        (home / "ansible.cfg").write_text("[defaults]\n")
        (home / "bin/docker.py").write_text(DOCKER)
        self.script(home / "bin/docker", f'exec "{sys.executable}" "{home}/bin/docker.py" "$@"')
        hosts = {}
        for name in ("builder", "one", "two", "localhost"):
            (home / name).mkdir()
            line = f'SIM_HOME="{home}" SIM_HOST={name} PATH="{home}/bin:$PATH" exec "{sys.executable}" "$@"'
            hosts[name] = {"ansible_connection": "local", "ansible_python_interpreter": str(self.script(home / f"bin/python-{name}", line))}
        (home / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts}}))

    @staticmethod
    def script(path: pathlib.Path, line: str) -> pathlib.Path:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path

    def run(self, targets: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        wishes = {"image_build_host": "builder", "image_push": False, **options}
        plan = {
            "nvidia": without_gpu(),
            "dify": EMPTY,
            "apply": ["image", "service"],
            "image_context": str(self.home / "context"),
            "image_repository": REFERENCE.partition(":")[0],
            **wishes,
        }
        variables = {
            "dify_image_context": str(self.home / "context"),
            "dify_image_build_dir": str(self.home / "work"),
            "dify_image_push": wishes["image_push"],
        }
        play = {
            "hosts": targets,
            "gather_facts": False,
            "vars": variables,
            "tasks": [{"difyops.gpu.gpu_plan": plan}, {"import_role": {"name": "difyops.gpu.dify_image"}}],
        }
        (self.home / "play.yml").write_text(json.dumps([play]))
        paths = [str(COLLECTION.parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(filter(None, paths)),
            "ANSIBLE_CONFIG": str(self.home / "ansible.cfg"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "TMPDIR": str(self.home / "tmp"),
        }
        command = [str(PLAYBOOK), "-i", str(self.home / "inventory.json"), str(self.home / "play.yml")]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)

    def log(self) -> list[str]:
        path = self.home / "log"
        return path.read_text().splitlines() if path.exists() else []

    def has(self, host: str) -> bool:
        return (self.home / host / REFERENCE.replace("/", "_")).exists()

    def leftovers(self) -> list[str]:
        return [path.name for folder in ("work", "tmp") for path in (self.home / folder).glob("dify-gpu-image-*")]


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> Lab:
    return Lab(tmp_path)


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not PLAYBOOK.exists(), reason="needs ansible-playbook beside this Python")
class TestBuildHost:
    def test_it_is_built_once_and_copied(self, lab: Lab) -> None:
        succeeded(lab.run(["one", "two"]))
        assert sorted(lab.log()) == ["builder buildx", "builder save", "one load", "two load"]
        assert lab.has("one") and lab.has("two")
        assert lab.leftovers() == []

    def test_the_build_host_may_be_one_of_those_that_need_it(self, lab: Lab) -> None:
        succeeded(lab.run(["one", "builder", "two"]))
        assert sorted(lab.log()) == ["builder buildx", "builder save", "one load", "two load"]

    def test_what_the_build_host_has_is_not_built_again(self, lab: Lab) -> None:
        succeeded(lab.run(["one"]))
        succeeded(lab.run(["two"]))
        assert lab.log().count("builder buildx") == 1
        (lab.home / "context/Dockerfile").write_text("FROM scratch\nLABEL other=1\n")
        succeeded(lab.run(["two"]))
        assert lab.log().count("builder buildx") == 2, "another recipe is another image"

    def test_it_is_pushed_and_pulled(self, lab: Lab) -> None:
        succeeded(lab.run(["one", "builder", "two"], image_push=True))
        assert lab.log()[:2] == ["builder buildx", "builder push"]
        assert sorted(lab.log()[2:]) == ["one pull", "two pull"]
        assert lab.has("one") and lab.has("two")

    def test_a_build_on_the_controller(self, lab: Lab) -> None:
        succeeded(lab.run(["one", "two"], image_build_host="localhost"))
        assert sorted(lab.log()) == ["localhost buildx", "localhost save", "one load", "two load"]

    def test_without_a_build_host_each_builds_its_own(self, lab: Lab) -> None:
        succeeded(lab.run(["one", "two"], image_build_host=""))
        assert sorted(lab.log()) == ["one buildx", "two buildx"]

    @pytest.mark.parametrize(
        ("file", "push", "words"), [("broken", False, "was not built: the disk is full"), ("closed", True, "was not pushed:")]
    )
    def test_a_failure_is_one_sentence_and_nobody_gets_half(self, lab: Lab, file: str, push: bool, words: str) -> None:
        (lab.home / file).write_text("")
        done = lab.run(["one", "two"], image_push=push)
        output = " ".join(done.stdout.split())
        assert done.returncode != 0
        assert words in output and "one (build host builder):" in output
        assert "two: registry.example.org/dify-gpu:web-server-cpu-v0.1.0 was not brought: builder did not get it ready" in output
        assert not lab.has("one") and not lab.has("two") and lab.leftovers() == []

    def test_a_build_host_that_nobody_knows_is_refused(self, lab: Lab) -> None:
        done = lab.run(["one"], image_build_host="nobody")
        assert done.returncode != 0 and "the inventory has no such host" in " ".join(done.stdout.split())
        assert lab.log() == []
