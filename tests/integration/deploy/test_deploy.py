# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees on a deployed fleet: cpu-1 (nothing simulated), a10-535 and t4-470 (simulated GPUs)."""
from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Run, Site

HOSTS = ("cpu-1", "a10-535", "t4-470")
HOME = "/opt/dify-gpu"
BUDGET = 6


@pytest.fixture(scope="module")
def second(site: Site) -> Run:
    """Return a run on the fleet as it is: deployed already."""
    return site.play()


def api(site: Site, path: str, body: dict[str, Any] | None, *, key: bool = True, host: str = "cpu-1") -> tuple[int, Any]:
    """Call the service on *host* with its own key, which stays on the host, and return status and JSON answer."""
    auth = f'-H "Authorization: Bearer $(. {HOME}/secrets/api_key.env && echo $API_KEY)"' if key else ""
    data = f"-H 'Content-Type: application/json' --data '{json.dumps(body)}'" if body is not None else ""
    out = site.command(host, f"curl -sS -w '\\n%{{http_code}}' {auth} {data} http://127.0.0.1:8000{path}")
    text, status = out.rsplit("\n", 1)
    return int(status), json.loads(text)


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other)) / (math.hypot(*one) * math.hypot(*other))


def site_with(site: Site, hosts: dict[str, dict[str, Any]], *args: str, **variables: Any) -> Run:
    """Run with host variables added to the fleet's own inventory."""
    return site.play("-i", str(site.inventory_with(hosts)), *args, **variables)


# --- the second run -------------------------------------------------------------------------------------------------

def test_second_run_changes_nothing(second: Run) -> None:
    assert second.rc == 0, second.output
    for host in HOSTS:
        recap = second.recap(host)
        assert recap["changed"] == 0 and recap["failed"] == 0, second.output


@pytest.mark.parametrize("host", HOSTS)
def test_second_run_is_cheap(second: Run, host: str) -> None:
    assert 0 < second.module_executions(host) <= BUDGET


@pytest.mark.parametrize(
    ("host", "variant", "overall"), [("cpu-1", "cpu", "cpu"), ("a10-535", "cuda12.6", "proven"), ("t4-470", "cuda11.8", "proven")]
)
def test_each_host_got_the_image_that_fits(second: Run, host: str, variant: str, overall: str) -> None:
    record = second.records[host]
    assert record["plan"]["image"]["variant"] == variant
    assert record["verdict"]["overall"] == overall


@pytest.mark.parametrize("host", ["a10-535", "t4-470"])
def test_simulated_hosts_are_called_simulated(second: Run, host: str) -> None:
    row = next(line for line in second.output.splitlines() if line.strip().startswith(host) and "cuda" in line)
    assert "(simulated)" in row


def test_every_link_is_proven_on_the_gpu_hosts(second: Run) -> None:
    for host in ("a10-535", "t4-470"):
        links = {link["link"]: link["status"] for link in second.records[host]["verdict"]["links"]}
        assert [name for name, status in links.items() if status != "ok" and name != "speed"] == []


# --- the real service on cpu-1 --------------------------------------------------------------------------------------

def test_related_sentences_are_nearer(site: Site) -> None:
    status, answer = api(site, "/v1/embeddings", {
        "model": "all-MiniLM-L6-v2",
        "input": ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The central bank raised its rates."],
    })
    assert status == 200, answer
    cat, kitten, bank = (item["embedding"] for item in answer["data"])
    assert len(cat) == 384
    assert cosine(cat, kitten) > cosine(cat, bank) + 0.2


def test_without_a_key_there_is_no_answer(site: Site) -> None:
    assert api(site, "/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": "x"}, key=False)[0] == 401


def test_rerank_is_refused_with_a_sentence_when_no_reranker_is_configured(site: Site) -> None:
    status, answer = api(site, "/v1/rerank", {"model": "any", "query": "q", "documents": ["a", "b"]})
    assert 400 <= status < 500
    assert "reranker" in answer["error"]["message"]


def test_health_says_cpu(site: Site) -> None:
    status, answer = api(site, "/health", None, key=False)
    assert status == 200 and answer["mode"] == "cpu" and not answer.get("simulated")


# --- secrets --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("host", HOSTS)
def test_the_key_is_kept_from_others(site: Site, second: Run, host: str) -> None:
    assert site.command(host, f"stat -c %a:%U {HOME}/secrets/api_key.env {HOME}/secrets").split() == ["600:root", "700:root"]
    key = site.command(host, f"cat {HOME}/secrets/api_key.env").split("=", 1)[1].strip()
    assert re.fullmatch(r"[A-Za-z0-9]{48}", key)
    assert key not in second.output + second.log
    assert site.command(host, f"grep -c {key} {HOME}/compose.yaml || true").strip() == "0"


def test_a_given_key_is_taken_and_shown_nowhere(site: Site) -> None:
    key = "GivenByTheOperator1" * 2 + "abcdefghij"
    run = site.play("--limit", "a10-535", "-vvv", "--diff", "-e", f"@{site.secret_file(dify_gpu_api_key=key)}")
    assert run.rc == 0, run.output
    assert run.recap("a10-535")["changed"] > 0
    assert key not in run.output + run.log
    assert key in site.command("a10-535", "docker exec dify-gpu-dify-gpu-1 env")
    # Without it the next run leaves the key that is there.
    assert site.play("--limit", "a10-535").recap("a10-535")["changed"] == 0


def test_a_key_that_others_can_read_is_repaired(site: Site) -> None:
    site.command("a10-535", f"chmod 0644 {HOME}/secrets/api_key.env; chmod 0755 {HOME}/secrets")
    run = site.play("--limit", "a10-535")
    assert run.rc == 0 and "0644" in run.output, run.output
    assert site.command("a10-535", f"stat -c %a {HOME}/secrets/api_key.env {HOME}/secrets").split() == ["600", "700"]
    assert site.play("--limit", "a10-535").recap("a10-535")["changed"] == 0


# --- the wrong image ------------------------------------------------------------------------------------------------

def state(site: Site, host: str) -> str:
    """Return what a run that touches nothing must leave alone: containers, images, files with their times."""
    return site.command(host, "docker ps -a --no-trunc --format '{{.ID}} {{.Image}} {{.State}}'; docker image ls -q | sort -u; "
                              f"find {HOME} -type f -printf '%p %T@ %s\\n' | sort")


def test_a_wrong_variant_is_blocked_and_touches_nothing(site: Site) -> None:
    before = state(site, "t4-470")
    run = site_with(site, {"t4-470": {"dify_image_variant": "cuda12.6"}})
    assert run.rc != 0
    assert run.records["t4-470"]["plan"]["status"] == "blocked"
    assert "525.60.13" in run.output, "the reason names the driver that CUDA 12 needs"
    assert state(site, "t4-470") == before
    for host in ("cpu-1", "a10-535"):
        assert run.recap(host)["failed"] == 0


def test_a_forced_wrong_variant_fails_its_proof_and_the_service_comes_back(site: Site) -> None:
    before = site.command("t4-470", "docker ps --format '{{.Image}}'")
    run = site_with(site, {"t4-470": {"dify_image_variant": "cuda12.6", "dify_image_force": True}})
    assert run.rc != 0
    record = run.records["t4-470"]
    assert record["verdict"]["overall"] == "failed"
    assert record["verdict"]["code"] == "DG404", record["verdict"]
    assert record["outcome"]["status"] == "restored"
    assert "DG404" in run.output
    assert site.command("t4-470", "docker ps --format '{{.Image}}'") == before
    for host in ("cpu-1", "a10-535"):
        assert run.recap(host)["failed"] == 0


def test_a_run_that_was_killed_before_the_proof_is_finished_by_the_next(site: Site) -> None:
    site.interrupted("Prove that the GPU is used", "--limit", "t4-470", dify_image_variant="cuda12.6", dify_image_force=True)
    assert "cuda12.6" in site.command("t4-470", "docker ps --format '{{.Image}}'"), "the wrong image runs, unproven"
    run = site.play("--limit", "t4-470", dify_image_variant="cuda12.6", dify_image_force=True)
    assert run.records["t4-470"]["verdict"]["code"] == "DG404"
    assert run.records["t4-470"]["outcome"]["status"] == "restored"
    assert "cuda11.8" in site.command("t4-470", "docker ps --format '{{.Image}} {{.Status}}' | grep healthy")


def test_when_going_back_fails_too_nothing_pretends_to_work(site: Site) -> None:
    site.command("t4-470", "docker images --format '{{.Repository}}:{{.Tag}}' | grep ':proven-' | xargs docker rmi")
    run = site.play("--limit", "t4-470", dify_image_variant="cuda12.6", dify_image_force=True)
    record = run.records["t4-470"]
    assert record["outcome"]["status"] == "restore_failed"
    assert record["verdict"]["code"] == "DG404" and "No such image" in record["message"], record["message"]
    assert site.command("t4-470", "docker ps -q") == "", "the service that failed its proof was stopped"
    assert site.play("--limit", "t4-470").records["t4-470"]["verdict"]["overall"] == "proven"


def test_after_it_the_fleet_is_as_it_was(site: Site) -> None:
    run = site.play()
    assert run.rc == 0, run.output
    assert [run.recap(host)["changed"] for host in HOSTS] == [0, 0, 0], run.output


# --- images from a registry -----------------------------------------------------------------------------------------

REGISTRY = "localhost:5000"
REGISTRY_CONFIG = "version: 0.1\\nstorage: {filesystem: {rootdirectory: /var/lib/e2e-registry}}\\nhttp: {addr: 127.0.0.1:5000}\\n"


@pytest.fixture
def registry(site: Site) -> Iterator[str]:
    """Run a registry on a10-535 that holds the image of that host, and return the image's digest."""
    reference = f"{REGISTRY}/ai/dify-gpu:web-server-cuda12.6-v0.1.0"
    site.command("a10-535", f"printf '{REGISTRY_CONFIG}' > /run/e2e-registry.yml; systemctl reset-failed e2e-registry 2> /dev/null; "
                            "systemd-run --quiet --unit e2e-registry docker-registry serve /run/e2e-registry.yml")
    try:
        site.command("a10-535", f"for i in $(seq 30); do curl -fsS http://{REGISTRY}/v2/ > /dev/null && break; sleep 1; done; "
                                f"docker tag difyops/dify-gpu:web-server-cuda12.6-v0.1.0 {reference} && docker push -q {reference}")
        digest = site.command("a10-535", f"docker image inspect --format '{{{{index .RepoDigests 0}}}}' {reference}").strip().split("@")[1]
        site.command("a10-535", f"docker rmi {reference}")
        yield digest
    finally:
        site.command("a10-535", "systemctl stop e2e-registry; rm -rf /var/lib/e2e-registry /run/e2e-registry.yml")


def test_an_image_is_pulled_from_the_registry_by_its_digest(site: Site, registry: str) -> None:
    entry = {"name": "cuda12.6", "source": "pull", "image": f"{REGISTRY}/ai/dify-gpu:web-server-cuda12.6-v0.1.0", "digest": registry}
    run = site_with(site, {"a10-535": {"dify_image_catalog": [entry]}}, "--limit", "a10-535")
    assert run.rc == 0, run.output
    assert run.records["a10-535"]["plan"]["parts"]["image"]["action"] == "pull"
    assert run.records["a10-535"]["verdict"]["overall"] == "proven"
    assert registry in site.command("a10-535", "docker ps --no-trunc --format '{{.Image}}'")
    # What was proven by its digest is what a failed proof goes back to.
    wrong = site_with(site, {"a10-535": {"dify_image_catalog": [entry], "dify_gpu_port": 22}}, "--limit", "a10-535")
    assert wrong.records["a10-535"]["outcome"]["status"] == "restored", wrong.output
    assert registry in site.command("a10-535", "docker ps --no-trunc --format '{{.Image}} {{.Status}}' | grep healthy")
    back = site.play("--limit", "a10-535")
    assert back.rc == 0, back.output
    assert back.records["a10-535"]["image"] == "difyops/dify-gpu:web-server-cuda12.6-v0.1.0"


# --- the oldest ansible-core ----------------------------------------------------------------------------------------

def test_the_oldest_core_deploys_proves_and_then_changes_nothing(oldest: Site, site: Site) -> None:
    run = oldest.play(dify_gpu_environment={"LOG_LEVEL": "debug"})
    assert run.rc == 0, run.output
    assert all(run.recap(host)["changed"] > 0 for host in HOSTS)
    again = oldest.play(dify_gpu_environment={"LOG_LEVEL": "debug"})
    assert again.rc == 0, again.output
    assert [again.recap(host)["changed"] for host in HOSTS] == [0, 0, 0], again.output
    assert [again.records[host]["verdict"]["overall"] for host in HOSTS] == ["cpu", "proven", "proven"]
    assert site.play().rc == 0


# --- bad input ------------------------------------------------------------------------------------------------------

BAD_INPUT = {
    "an unknown variant": ({"dify_image_variant": "cuda99.9"}, r"cuda99\.9"),
    "a catalog with :latest": ({"dify_image_catalog": [{"name": "cuda12.6", "image": "registry.example.org/dify-gpu:latest"}]}, r":latest"),
    "a registry that is not there": (
        {"dify_image_catalog": [{"name": "cuda12.6", "source": "pull", "image": "127.0.0.1:9/dify-gpu:web-server-cuda12.6-v9.9.9"}]},
        r"127\.0\.0\.1:9",
    ),
    "a wheelhouse that is not there": ({"dify_image_version": "9.9.9", "dify_image_wheelhouse": "/nowhere"}, r"/nowhere"),
    "an API key that cannot be carried": ({"dify_gpu_api_key": "no$good"}, r"dify_gpu_api_key has to be"),
    "an unreachable host": ({"ansible_port": 9}, r"Connection refused"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_sentence(site: Site, case: str) -> None:
    variables, expected = BAD_INPUT[case]
    before = state(site, "a10-535")
    run = site_with(site, {"a10-535": variables}, "--limit", "a10-535,cpu-1")
    assert run.rc != 0
    assert "Traceback" not in run.output and "no$good" not in run.output + run.log
    sentence = run.records["a10-535"]["message"]
    assert re.search(expected, sentence) and "\n" not in sentence, sentence
    assert state(site, "a10-535") == before
    assert run.recap("cpu-1")["failed"] == 0


def test_a_build_that_fails_on_the_only_host_is_reported(site: Site) -> None:
    run = site.play("--limit", "a10-535", dify_image_version="9.9.9", dify_image_base="127.0.0.1:9/no-such-base:1")
    assert run.rc != 0
    assert "127.0.0.1:9/no-such-base:1" in run.records["a10-535"]["message"]
    assert "RESULT for 1 host: 1 FAILED" in run.output


# --- check mode -----------------------------------------------------------------------------------------------------

def test_check_mode_tells_a_coming_change_and_makes_none(site: Site) -> None:
    before = state(site, "cpu-1")
    run = site_with(site, {"cpu-1": {"dify_gpu_environment": {"MAX_BATCH": "7"}}}, "--check", "--diff", "--limit", "cpu-1")
    assert run.rc == 0, run.output
    assert re.search(r"^\+.*MAX_BATCH.*7", run.output, re.MULTILINE), run.output
    assert state(site, "cpu-1") == before
