# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the upstream release, the playbook that deploys it, and what a test says about a run and about what runs then.

Simulated: the GPU, Dify's images (stand-ins, see tests/simhost/README.md), and the release (in upstream's shape, made here). Real: the
collection, Ansible, Docker and compose, PostgreSQL, Redis, nginx, the registry.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnosis import lab as diagnosis_lab
from diagnosis.lab import REPO, Fleet, Run

sys.path.insert(0, str(REPO / "tests/simhost/release"))
import upstream_release

PLAYBOOK = REPO / "playbooks/deploy_dify.yml"
ROLLBACK = REPO / "playbooks/rollback_dify.yml"
HOME, PROJECT, BACKUPS = "/opt/dify", "dify", "/var/backups/dify"
REGISTRY, LOGIN_REGISTRY = "localhost:5000/mirror", "localhost:5001/mirror"
ADMIN = {"email": "admin@example.org", "name": "Admin"}
MODEL, RERANKER = "simulated-embedding", "simulated-reranker"
# What a release publishes as a default for everybody to read: no deployment may have one of them.
DEFAULT_SECRETS = {
    "DB_PASSWORD, REDIS_PASSWORD, QDRANT_API_KEY": "difyai123456",
    "SECRET_KEY": "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U",
    "SANDBOX_API_KEY, CODE_EXECUTION_API_KEY": "dify-sandbox",
    "PLUGIN_DAEMON_KEY": "lYkiYYT6owG+71oLerGzA7GXCgOT++6ovaezWAjpCjf+Sjc3ZtU+qUEi",
    "PLUGIN_DIFY_INNER_API_KEY": "QaHbTe77CtuXmsfyhR7+vRjI/+XbV1AaFy691iy+kGDv2Jvy0/eAh8Y1",
    "DIFY_AGENT_SERVER_SECRET_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
    "DIFY_AGENT_API_TOKEN": "dify-agent-run-token-for-dev-only",
    "WEAVIATE_API_KEY": "WVF5YThaHlkYwhGUSmCRgsX3tD5ngdN8pkih",
}
# What a run that is refused, or in check mode, must leave alone.
SNAPSHOT = rf"""
echo '== containers'
docker ps --all --quiet --no-trunc \
    | xargs --no-run-if-empty docker inspect --format '{{{{.Name}}}} {{{{.Id}}}} {{{{.State.StartedAt}}}}' | sort
echo '== images'
docker image ls --all --no-trunc --format '{{{{.Repository}}}}:{{{{.Tag}}}} {{{{.ID}}}}' | sort
echo '== networks and volumes'
docker network ls --format '{{{{.Name}}}}' | sort; docker volume ls --format '{{{{.Name}}}}' | sort
echo '== files'
find {HOME} {BACKUPS} -path {HOME}/volumes -prune -o -printf '%p %m %u %s %T@\n' 2> /dev/null | sort || true
"""


def archive(folder: Path, version: str) -> Path:
    """Return the archive of a release, whole or broken, made when it is not there."""
    target = folder / upstream_release.name_of(version)
    if not target.exists():
        make = upstream_release.broken if version in upstream_release.BROKEN else upstream_release.make
        target.write_bytes(make(version))
    return target


@dataclass(frozen=True)
class Deployment:
    """One run of the playbook, as one host saw it."""

    run: Run
    host: str
    modules: tuple[str, ...]
    log: str

    @property
    def output(self) -> str:
        return self.run.output

    @property
    def shown(self) -> str:
        """Everything that the run left for others to read: what it printed, and its log."""
        return self.run.output + self.log

    @property
    def changed(self) -> int:
        """How many tasks say that they changed something on this host."""
        return self._recap("changed")

    @property
    def failed(self) -> int:
        return self._recap("failed")

    def _recap(self, name: str) -> int:
        line = re.search(rf"^{re.escape(self.host)}\s+: (.*)$", self.output, re.MULTILINE)
        assert line, f"no recap of {self.host}:\n{self.output}"
        return int(dict(re.findall(r"(\w+)=(\d+)", line[1]))[name])

    def fact(self, name: str) -> Any:
        """Return a host variable or fact as the run left it."""
        told = [one.result.get("ansible_facts") or {} for one in self.run.results if one.host == self.host]
        found = [facts[name] for facts in told if name in facts]
        assert found, f"nothing set {name} on {self.host}:\n{self.output}"
        return found[-1]

    @property
    def plan(self) -> dict[str, Any]:
        return dict(self.fact("dify_plan"))

    @property
    def verdict(self) -> dict[str, Any]:
        return dict(self.fact("dify_verdict"))

    @property
    def outcome(self) -> dict[str, Any]:
        return dict(self.fact("dify_app_outcome"))

    def ok(self) -> Deployment:
        """Assert that the run ended well for this host."""
        assert self.run.rc == 0 and self.failed == 0, self.output
        return self

    def proven(self) -> Deployment:
        """Assert that the run ended well and each link of what was deployed is proven."""
        self.ok()
        links = {one["link"]: one["status"] for one in self.verdict["links"]}
        assert self.verdict["overall"] == "proven" and set(links.values()) == {"ok"}, json.dumps(self.verdict, indent=1)
        return self

    def blocked(self, code: str, *words: str) -> Deployment:
        """Assert that this reason was in the way, in these words and in one sentence, and that nothing was changed."""
        assert self.run.rc != 0 and self.changed == 0, self.output
        assert "Traceback" not in self.output, self.output
        found = [one for one in self.plan["blocked"] if one["code"] == code]
        assert self.plan["status"] == "blocked" and found, json.dumps(self.plan["blocked"], indent=1)
        return self._says(f"{found[0]['message']} {found[0]['remedy']}", words)

    def fails(self, code: str, *words: str) -> Deployment:
        """Assert that the run ended red with this code and these words in its message."""
        assert self.run.rc != 0, self.output
        assert "Traceback" not in self.output, self.output
        assert self.outcome["code"] == code, json.dumps(self.outcome, indent=1)
        return self._says(str(self.outcome["message"]), words)

    def warned(self, code: str, *words: str) -> Deployment:
        """Assert a warning of the plan."""
        found = [one["message"] for one in self.plan["warnings"] if one["code"] == code]
        assert found, self.plan["warnings"]
        return self._says(" ".join(found), words)

    def _says(self, text: str, words: tuple[str, ...]) -> Deployment:
        assert all(word in text for word in words), text
        assert "\n" not in text, text
        return self


class Site(Fleet):
    """The fleet, the archives on the controller, and the playbooks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.archives = self.scratch / "archives"
        self.archives.mkdir(exist_ok=True)

    def variables(self, name: str, **wishes: Any) -> dict[str, Any]:
        """Return the variables of one host: small, offline, from the registry on the host itself."""
        version = str(wishes.get("dify_version", "1.17.1"))
        found: dict[str, Any] = {
            "dify_version": version,
            "dify_archive_cache": str(self.scratch / "cache"),
            "dify_url": f"http://127.0.0.1:{self.raw['hosts'][name]['publish']['web']}",
            "dify_registry": REGISTRY,
            "dify_admin": ADMIN,
            "dify_start_timeout": 180,
            "dify_plugin_package": str(self.plugin_package()),
            "dify_env": {"POSTGRES_SHARED_BUFFERS": "32MB", "POSTGRES_MAX_CONNECTIONS": "60"},
        }
        if version in (*upstream_release.RELEASES, *upstream_release.BROKEN):
            # rollback_dify chooses the version by itself: the path has to follow it.
            archive(self.archives, version)
            found["dify_archive"] = f"{self.archives}/dify-{{{{ dify_version }}}}.tar.gz"
        return {**found, **wishes}

    def gpu_variables(self, **wishes: Any) -> dict[str, Any]:
        """Return the variables of the image service on a host with a simulated GPU: a stand-in that makes its answers up."""
        return {
            "dify_image_context": str(REPO / "tests/simhost/standin-image"),
            "dify_image_base": "difyops-demo/simulated-cuda-base:1",
            "nvidia_container_toolkit_state": "unmanaged",
            "dify_gpu_environment": {"SIMULATED_ANSWERS": "1"},
            "dify_gpu_embedding_model": MODEL,
            "dify_gpu_rerank_model": RERANKER,
            **wishes,
        }

    def plugin_package(self) -> Path:
        """Return a file that stands for the plugin's package: the stand-in keeps it and does not look inside."""
        path = self.scratch / "langgenius-openai_api_compatible.difypkg"
        if not path.exists():
            path.write_bytes(b"PK\x05\x06" + bytes(18))
        return path

    def deploy(
        self, hosts: dict[str, dict[str, Any]], *arguments: str, gpu: tuple[str, ...] = (), playbook: Path = PLAYBOOK,
        timeout_s: float = 900,
    ) -> dict[str, Deployment]:
        """Run the playbook on app hosts (with their wishes), some of them with the image service beside."""
        inventory = self._groups({name: self.variables(name, **wishes) for name, wishes in hosts.items()}, gpu)
        log, modules = self._file("ansible", "log"), self._file("modules", "jsonl")
        callbacks = f"{diagnosis_lab.PLUGINS}:{REPO / 'tests/tools/callback_plugins'}"
        run = self.ansible(
            playbook, *arguments, inventory=inventory, timeout_s=timeout_s, ANSIBLE_LOG_PATH=str(log), ANSIBLE_LOG_VERBOSITY="5",
            ANSIBLE_CALLBACKS_ENABLED="task_results,module_counter", ANSIBLE_CALLBACK_PLUGINS=callbacks, MODULE_COUNTER_FILE=str(modules),
        )
        sent = [json.loads(line) for line in modules.read_text().splitlines()] if modules.exists() else []
        text = log.read_text(errors="replace") if log.exists() else ""
        counted = {name: tuple(str(one.get("module")) for one in sent if one["host"] == name) for name in hosts}
        return {name: Deployment(run, name, counted[name], text) for name in hosts}

    def kill_at(self, app: App, phase: str, wishes: dict[str, Any], timeout_s: float = 600) -> None:
        """Run the playbook and kill it, workers and all, as soon as the journal on the host says that this phase has begun."""
        gpu = (app.name,) if app.gpu else ()
        inventory = self._groups({app.name: self.variables(app.name, **wishes)}, gpu)
        argv = ["ansible-playbook", "-i", str(inventory), str(PLAYBOOK)]
        with self._file("killed", "log").open("wb") as output:
            process = subprocess.Popen(
                argv, cwd=REPO, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env=self.environment(self._file("results", "jsonl")),
            )
        deadline = time.monotonic() + timeout_s
        while process.poll() is None and app.phase() != phase and time.monotonic() < deadline:
            time.sleep(0.2)
        ended = process.poll()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        assert ended is None, f"the run ended with {ended} before the phase {phase} had begun"
        # What was started on the host may go on for a moment, as after a lost connection.
        time.sleep(1)

    def _groups(self, hosts: dict[str, dict[str, Any]], gpu: tuple[str, ...]) -> Path:
        """Return an inventory with the groups dify_app and dify_gpu, secrets and all, that only its owner can read."""
        entries = {name: {"ansible_port": self.raw["hosts"][name]["publish"]["ssh"], **variables} for name, variables in hosts.items()}
        for name in gpu:
            entries[name].update(self.gpu_variables(), **{key: value for key, value in hosts[name].items() if key.startswith("dify_gpu_")})
        plain = json.loads(self.inventory().read_text())["all"]["children"]["dify_gpu"]["vars"]
        groups = {"dify_app": {"hosts": entries}, "dify_gpu": {"hosts": {name: {} for name in gpu}}}
        path = self._file("groups", "json")
        path.touch(mode=0o600)
        path.write_text(json.dumps({"all": {"children": groups, "vars": plain}}))
        return path


class App:
    """One app host: what runs on it, what lies on it, and the way back to a bare one."""

    def __init__(self, site: Site, name: str, *, gpu: bool = False) -> None:
        self.site, self.name, self.gpu = site, name, gpu
        self.container = f"{site.raw['prefix']}-{name}"
        self.web_port = int(site.raw["hosts"][name]["publish"]["web"])
        self.https_port = int(site.raw["hosts"][name]["publish"]["https"])

    def deploy(self, *arguments: str, playbook: Path = PLAYBOOK, **wishes: Any) -> Deployment:
        """Run the playbook on this host only."""
        gpu = (self.name,) if self.gpu else ()
        return self.site.deploy({self.name: wishes}, *arguments, gpu=gpu, playbook=playbook)[self.name]

    def sh(self, script: str, timeout_s: float = 180) -> str:
        """Run a shell script on the host as root and return what it printed."""
        argv = ["docker", "exec", "-i", self.container, "sh", "-e"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout_s, input=script)
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def state(self) -> str:
        """Return what a run that is refused must leave alone."""
        return self.sh(SNAPSHOT)

    def bare(self) -> None:
        """Take away all of Dify and of the image service: containers, images, networks, volumes, files."""
        self.sh(
            "docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes > /dev/null\n"
            "docker network prune --force > /dev/null; docker volume prune --all --force > /dev/null\n"
            "docker image ls --quiet --filter label=org.opencontainers.image.description='STAND-IN for tests: no part of Dify is in it' "
            "| sort -u | xargs --no-run-if-empty docker image rm --force > /dev/null\n"
            f"rm -rf {HOME} {BACKUPS} /opt/dify-gpu"
        )

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what Docker knows of the project's containers, by service."""
        listed = f"docker ps --all --quiet --filter label=com.docker.compose.project={PROJECT}"
        text = self.sh(f"{listed} | xargs --no-run-if-empty docker inspect")
        found = json.loads(text or "[]")
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def environments(self) -> dict[str, dict[str, str]]:
        """Return the environment of each container, by service."""
        return {
            service: dict(entry.partition("=")[::2] for entry in one["Config"]["Env"]) for service, one in self.containers().items()
        }

    def secrets(self) -> dict[str, str]:
        """Return the secrets that the host keeps."""
        lines = self.sh(f"cat {HOME}/secrets/dify.env").splitlines()
        return dict(line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#"))

    def get(self, path: str = "/", *, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Ask the site as a browser outside does. Returns status and text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.web_port}{path}", headers=headers or {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def sql(self, statement: str, database: str = "dify") -> list[str]:
        """Return the rows of a statement as the database prints them."""
        command = f"docker exec -i {PROJECT}-db_postgres-1 psql -U postgres -d {database} -At -c {shlex.quote(statement)}"
        return self.sh(command).splitlines()

    def api_health(self) -> dict[str, Any]:
        """Return what the api answers at /health, asked inside its container."""
        return dict(json.loads(self.sh(f"docker exec {PROJECT}-api-1 curl -fsS http://localhost:5001/health")))

    def phase(self) -> str | None:
        """Return the phase of the journal, None where there is none."""
        text = self.sh(f"cat {HOME}/journal.json 2> /dev/null || true")
        try:
            return str(json.loads(text)["phase"])
        except (ValueError, KeyError):
            return None

    def say(self, text: str) -> None:
        """Leave a row that only this test has, under the name that the release at hand knows the column by."""
        columns = self.sql("SELECT column_name FROM information_schema.columns WHERE table_name = 'standin_messages'")
        statement = "INSERT INTO standin_messages ({}) VALUES ('{}')"
        self.sql(statement.format("body" if "body" in columns else "text", text))

    def said(self, text: str) -> bool:
        """Whether that row is there."""
        return any(text in row for row in self.sql("SELECT * FROM standin_messages"))

    def version(self) -> str:
        """Return the release that runs and that `current` leads to."""
        running = str(self.api_health()["version"])
        assert self.sh(f"readlink -f {HOME}/current").strip() == f"{HOME}/releases/{running}/docker"
        return running

    def fault(self, *faults: str) -> None:
        """Set faults of the stand-ins, as ``<version>:<fault>``; none takes them away."""
        folder = f"{HOME}/volumes/app/storage"
        self.sh(f"mkdir -p {folder}; printf '%s\\n' {shlex.join(faults or ('# none',))} > {folder}/standin-faults")

    def worked(self) -> tuple[int, int, int]:
        """Return the highest number that the worker left in the database, the storage and the vector store.

        They are the same only in data of one point of time at which nothing was written; a worker that runs is halted meanwhile.
        """
        self.sh("docker pause dify-worker-1 > /dev/null")
        try:
            return self._worked()
        finally:
            self.sh("docker unpause dify-worker-1 > /dev/null")

    def _worked(self) -> tuple[int, int, int]:
        highest = "ls {} 2> /dev/null | sort -n | tail -1"
        database = int(self.sql("SELECT coalesce(max(number), 0) FROM standin_work")[0])
        files = self.sh(highest.format(f"{HOME}/volumes/app/storage/standin_work")).strip()
        vectors = self.sh(highest.format(f"{HOME}/volumes/weaviate/standin")).strip()
        return database, int(files or 0), int(vectors or 0)

    def served(self, endpoint: str) -> int:
        """Return how many requests the image service has answered."""
        text = self.sh("docker exec dify-gpu-dify-gpu-1 python3 -c \"import urllib.request as u; "
                       "print(u.urlopen('http://localhost:8000/metrics').read().decode())\"")
        found = re.findall(rf'^dify_gpu_requests_total{{endpoint="{endpoint}",status="200"}} (\d+)', text, re.MULTILINE)
        return int(found[0]) if found else 0


def sha256(path: Path) -> str:
    """Return the checksum of a file as the variables of the role have it."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
