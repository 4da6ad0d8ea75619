# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret that everybody can read is deployed, and none that was made or given is shown to anybody."""
from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

from .lab import ADMIN, DEFAULT_SECRETS, HOME, App, Deployment

CANARIES = {
    "DB_PASSWORD": "Canary1databasePassword",
    "PLUGIN_DAEMON_KEY": "Canary2pluginDaemonKey",
    "ADMIN_PASSWORD": "Canary3admin42",
    # Upstream has it in the command of a container, which Docker tells of.
    "REDIS_PASSWORD": "Canary4redisPassword",
}


def test_no_public_default_in_any_container(both: App, deployed: Deployment) -> None:
    deployed.ok()
    for service, one in both.containers().items():
        text = json.dumps([one["Config"].get(key) for key in ("Env", "Cmd", "Entrypoint", "Healthcheck")])
        found = [name for name, value in DEFAULT_SECRETS.items() if re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", text)]
        # Where a name is wanted and no secret: "dify-sandbox" is an image, too.
        assert found == [], f"{service}: {found}"


def test_no_public_default_in_what_was_configured(both: App, deployed: Deployment) -> None:
    deployed.ok()
    text = both.sh(f"cat {HOME}/current/.env {HOME}/current/docker-compose.override.yaml {HOME}/secrets/dify.env")
    values = {line.partition("=")[2].strip("'\"") for line in text.splitlines()}
    assert [name for name, value in DEFAULT_SECRETS.items() if value in values] == []
    assert "difyai123456" not in text and DEFAULT_SECRETS["WEAVIATE_API_KEY"] not in text


def test_compose_itself_sees_no_public_default(both: App, deployed: Deployment) -> None:
    """What compose makes of release, override and .env for the services that run."""
    deployed.ok()
    model = json.loads(both.sh(f"cd {HOME}/current && docker compose config --format json"))
    for service, one in model["services"].items():
        text = json.dumps({key: one.get(key) for key in ("environment", "command", "healthcheck")})
        found = [name for name, value in DEFAULT_SECRETS.items() if f'"{value}"' in text or f":{value}@" in text or f" {value}" in text]
        assert found == [], f"{service}: {found}"


def test_the_services_would_not_work_with_another_secret(both: App, deployed: Deployment) -> None:
    """The stand-ins check what they are given, so that a secret that only one side has would have shown."""
    deployed.ok()
    environment, secrets = both.environments(), both.secrets()
    assert environment["api"]["PLUGIN_DAEMON_KEY"] == environment["plugin_daemon"]["SERVER_KEY"] == secrets["PLUGIN_DAEMON_KEY"]
    assert environment["api"]["CODE_EXECUTION_API_KEY"] == environment["sandbox"]["API_KEY"]
    assert environment["api"]["WEAVIATE_API_KEY"] == environment["weaviate"]["AUTHENTICATION_APIKEY_ALLOWED_KEYS"]
    assert environment["api"]["INNER_API_KEY_FOR_PLUGIN"] == environment["plugin_daemon"]["DIFY_INNER_API_KEY"]
    assert f":{secrets['REDIS_PASSWORD']}@" in environment["api"]["CELERY_BROKER_URL"]


def test_files_with_secrets_are_for_root_only(both: App, deployed: Deployment) -> None:
    deployed.ok()
    modes = both.sh(f"stat -c %a:%U {HOME}/secrets {HOME}/secrets/dify.env {HOME}/current/.env").split()
    assert modes == ["700:root", "600:root", "600:root"]
    for name, value in both.secrets().items():
        if len(value) > 8:
            found = both.sh(f"grep -rlF -e '{value}' {HOME} --exclude-dir=volumes | xargs --no-run-if-empty stat -c '%a %n'").splitlines()
            assert [line for line in found if not line.startswith("600 ")] == [], name


def test_no_secret_of_the_first_run_was_shown(both: App, deployed: Deployment) -> None:
    shown = [name for name, value in both.secrets().items() if len(value) > 8 and value in deployed.shown]
    assert shown == []


def test_a_canary_never_appears(app: App) -> None:
    """Given secrets are nowhere in what is printed, logged, or shown of processes, with everything turned up."""
    given = {name: value for name, value in CANARIES.items() if name != "ADMIN_PASSWORD"}
    with ThreadPoolExecutor(1) as pool:
        admin = {**ADMIN, "password": CANARIES["ADMIN_PASSWORD"]}
        running = pool.submit(app.deploy, "-vvv", "--diff", dify_secrets=given, dify_admin=admin)
        seen = ""
        while not running.done():
            # Of processes on the host itself: those in containers are the release's own business.
            seen += app.sh("ps -eo pid,args | grep -v 'redis-server\\|redis-cli' || true")
            time.sleep(0.2)
        run = running.result()
    run.ok()
    for name, value in CANARIES.items():
        assert value not in run.shown, f"{name} is in the output"
        assert value not in seen, f"{name} is in a process list"
        found = f"grep -rlF '{value}' /opt /etc /tmp /var/log /var/tmp /root 2> /dev/null"
        readable = app.sh(f"{found} | xargs --no-run-if-empty stat -c '%a %n' || true")
        assert [line for line in readable.splitlines() if not line.startswith(("600 ", "400 "))] == [], readable
    assert app.secrets()["DB_PASSWORD"] == CANARIES["DB_PASSWORD"]
    # Without them the next run leaves what is there.
    assert app.deploy().ok().changed == 0
