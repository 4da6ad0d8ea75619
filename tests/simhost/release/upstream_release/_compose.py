# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compose file of a release, as text: anchors, comments, profiles and conditions are part of its shape."""

from __future__ import annotations

from upstream_release._settings import AGENT_KEY, AGENT_TOKEN, INNER_KEY, PASSWORD, PLUGIN_KEY, SANDBOX_KEY, WEAVIATE_KEY, settings

ENV_FILES = (
    "core-services/shared", "core-services/{service}", "databases/db-postgres", "databases/redis", "vectorstores/weaviate", "security",
)
# As in upstream, YAML makes a carriage return of `\r` in its double quotes.
ENTRYPOINT = (
    "cp /docker-entrypoint-mount.sh /docker-entrypoint.sh && sed -i 's/\\r$$//' /docker-entrypoint.sh"
    " && chmod +x /docker-entrypoint.sh && /docker-entrypoint.sh"
)
WEBSOCKET = {"SERVER_WORKER_CLASS": "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"}
DATABASES = ("db_postgres", "db_mysql")
API = """\
    depends_on:
      init_permissions:
        condition: service_completed_successfully
{databases}
      redis:
        condition: {redis}
"""
STORAGE = """\
    volumes:
      - ./volumes/app/storage:/app/api/storage
"""
API_CHECK = """\
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:5001/health"]
      interval: {interval}
      timeout: 5s
      retries: {retries}
      start_period: 30s
"""
WORKER_CHECK = """\
    healthcheck:
      test: ["CMD-SHELL", "celery -A celery_healthcheck.celery inspect ping"]
      interval: ${COMPOSE_WORKER_HEALTHCHECK_INTERVAL:-30s}
      timeout: ${COMPOSE_WORKER_HEALTHCHECK_TIMEOUT:-30s}
      retries: 3
      start_period: 60s
      disable: ${COMPOSE_WORKER_HEALTHCHECK_DISABLED:-true}
"""
BOTH_NETWORKS = """\
    networks:
      - ssrf_proxy_network
      - default
"""
INIT = """\
  # Once: whose the storage is.
  init_permissions:
    image: busybox:latest
    command:
      - sh
      - -c
      - |
        FLAG_FILE="/app/api/storage/.init_permissions"
        if [ -f "$${FLAG_FILE}" ]; then
          echo "done before"
          exit 0
        fi
        chown -R 1001:1001 /app/api/storage && touch "$${FLAG_FILE}"
        echo "done"
    volumes:
      - ./volumes/app/storage:/app/api/storage
    restart: "no"
"""
STATE = """\
  db_postgres:
    image: postgres:15-alpine
    profiles:
      - postgresql
    restart: always
    environment:
      POSTGRES_USER: ${DB_USERNAME:-postgres}
      POSTGRES_PASSWORD: ${DB_PASSWORD:-@PASSWORD@}
      POSTGRES_DB: ${DB_DATABASE:-dify}
      PGDATA: ${PGDATA:-/var/lib/postgresql/data/pgdata}
    command: >
      postgres -c 'max_connections=${POSTGRES_MAX_CONNECTIONS:-100}'
               -c 'shared_buffers=${POSTGRES_SHARED_BUFFERS:-128MB}'
               -c 'work_mem=${POSTGRES_WORK_MEM:-4MB}'
               -c 'maintenance_work_mem=${POSTGRES_MAINTENANCE_WORK_MEM:-64MB}'
               -c 'effective_cache_size=${POSTGRES_EFFECTIVE_CACHE_SIZE:-4096MB}'
               -c 'statement_timeout=${POSTGRES_STATEMENT_TIMEOUT:-0}'
               -c 'idle_in_transaction_session_timeout=${POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT:-0}'
    volumes:
      - ./volumes/db/data:/var/lib/postgresql/data
    healthcheck:
      test:
        [
          "CMD",
          "pg_isready",
          "-h",
          "db_postgres",
          "-U",
          "${DB_USERNAME:-postgres}",
          "-d",
          "${DB_DATABASE:-dify}",
        ]
      interval: 1s
      timeout: 3s
      retries: 60

  db_mysql:
    image: mysql:8.0
    profiles:
      - mysql
    restart: always
    environment:
      MYSQL_ROOT_PASSWORD: ${DB_PASSWORD:-@PASSWORD@}
      MYSQL_DATABASE: ${DB_DATABASE:-dify}
    volumes:
      - ${MYSQL_HOST_VOLUME:-./volumes/mysql/data}:/var/lib/mysql
    healthcheck:
      test: ["CMD", "mysqladmin", "ping", "-u", "root", "-p${DB_PASSWORD:-@PASSWORD@}"]
      interval: 1s
      timeout: 3s
      retries: 30

  redis:
    image: redis:6-alpine
    restart: always
    environment:
      REDISCLI_AUTH: ${REDIS_PASSWORD:-@PASSWORD@}
    volumes:
      - ./volumes/redis/data:/data
    command: redis-server --requirepass ${REDIS_PASSWORD:-@PASSWORD@}
    healthcheck:
      test:
        [
          "CMD-SHELL",
          "redis-cli -a ${REDIS_PASSWORD:-@PASSWORD@} ping | grep -q PONG",
        ]
@QUICK@"""
SANDBOX = """\
  sandbox:
    image: langgenius/dify-sandbox:@SANDBOX@
    restart: always
    environment:
      API_KEY: ${SANDBOX_API_KEY:-@SANDBOX_KEY@}
      GIN_MODE: ${SANDBOX_GIN_MODE:-release}
      WORKER_TIMEOUT: ${SANDBOX_WORKER_TIMEOUT:-15}
      ENABLE_NETWORK: ${SANDBOX_ENABLE_NETWORK:-true}
      HTTP_PROXY: ${SANDBOX_HTTP_PROXY:-http://ssrf_proxy:3128}
      HTTPS_PROXY: ${SANDBOX_HTTPS_PROXY:-http://ssrf_proxy:3128}
      SANDBOX_PORT: ${SANDBOX_PORT:-8194}
    volumes:
      - ./volumes/sandbox/dependencies:/dependencies
      - ./volumes/sandbox/conf:/conf
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:8194/health"]
@QUICK@    networks:
      - ssrf_proxy_network
"""
PLUGIN_DAEMON = """\
  plugin_daemon:
    image: langgenius/dify-plugin-daemon:@DAEMON@-local
    restart: always
@ENV@      DB_DATABASE: ${DB_PLUGIN_DATABASE:-dify_plugin}
      DB_SSL_MODE: ${DB_SSL_MODE:-disable}
      SERVER_PORT: ${PLUGIN_DAEMON_PORT:-5002}
      SERVER_KEY: ${PLUGIN_DAEMON_KEY:-@PLUGIN_KEY@}
      MAX_PLUGIN_PACKAGE_SIZE: ${PLUGIN_MAX_PACKAGE_SIZE:-52428800}
      DIFY_INNER_API_URL: ${PLUGIN_DIFY_INNER_API_URL:-http://api:5001}
      DIFY_INNER_API_KEY: ${PLUGIN_DIFY_INNER_API_KEY:-@INNER_KEY@}
      PLUGIN_REMOTE_INSTALLING_HOST: ${PLUGIN_DEBUGGING_HOST:-0.0.0.0}
      PLUGIN_REMOTE_INSTALLING_PORT: ${PLUGIN_DEBUGGING_PORT:-5003}
      PLUGIN_STORAGE_LOCAL_ROOT: ${PLUGIN_STORAGE_LOCAL_ROOT:-/app/storage}
    ports:
      - "${EXPOSE_PLUGIN_DEBUGGING_PORT:-5003}:${PLUGIN_DEBUGGING_PORT:-5003}"
    volumes:
      - ./volumes/plugin_daemon:/app/storage
    depends_on:
@DATABASES@
"""
PROXY = """\
  ssrf_proxy:
    image: ubuntu/squid:latest
    restart: always
    volumes:
      - ./ssrf_proxy/squid.conf.template:/etc/squid/squid.conf.template
      - ./ssrf_proxy/docker-entrypoint.sh:/docker-entrypoint-mount.sh
    entrypoint:
      [
        "sh",
        "-c",
        "@ENTRYPOINT@",
      ]
    environment:
      HTTP_PORT: ${SSRF_HTTP_PORT:-3128}
      COREDUMP_DIR: ${SSRF_COREDUMP_DIR:-/var/spool/squid}
      REVERSE_PROXY_PORT: ${SSRF_REVERSE_PROXY_PORT:-8194}
      SANDBOX_HOST: ${SSRF_SANDBOX_HOST:-sandbox}
      SANDBOX_PORT: ${SANDBOX_PORT:-8194}
    networks:
      - ssrf_proxy_network
      - default
"""
AGENT = """\
  agent_backend:
    image: langgenius/dify-agent-backend:@VERSION@
    restart: always
@ENV@      DIFY_AGENT_API_TOKEN: ${DIFY_AGENT_API_TOKEN:-@AGENT_TOKEN@}
      DIFY_AGENT_SERVER_SECRET_KEY: ${DIFY_AGENT_SERVER_SECRET_KEY:-@AGENT_KEY@}
      DIFY_AGENT_REDIS_URL: redis://:${REDIS_PASSWORD:-@PASSWORD@}@${REDIS_HOST:-redis}:${REDIS_PORT:-6379}/2
      DIFY_AGENT_PLUGIN_DAEMON_URL: ${PLUGIN_DAEMON_URL:-http://plugin_daemon:5002}
      DIFY_AGENT_PLUGIN_DAEMON_API_KEY: ${PLUGIN_DAEMON_KEY:-@PLUGIN_KEY@}
      DIFY_AGENT_INNER_API_URL: ${PLUGIN_DIFY_INNER_API_URL:-http://api:5001}
      DIFY_AGENT_INNER_API_KEY: ${PLUGIN_DIFY_INNER_API_KEY:-@INNER_KEY@}
      DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN: ${DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN:-}
    depends_on:
      redis:
        condition: service_healthy
      plugin_daemon:
        condition: service_started
      local_sandbox:
        condition: service_started
    networks:
      - default
      - agent_sandbox_network

  local_sandbox:
    image: langgenius/dify-agent-local-sandbox:@VERSION@
    restart: always
    environment:
      SHELLCTL_AUTH_TOKEN: ${DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN:-}
      HTTP_PROXY: http://agent_ssrf_proxy:3128
      HTTPS_PROXY: http://agent_ssrf_proxy:3128
    volumes:
      - dify_local_sandbox_home:/home/dify
    networks:
      - agent_sandbox_network
      - local_sandbox_proxy_network

  agent_ssrf_proxy:
    image: ubuntu/squid:latest
    restart: always
    volumes:
      - ./ssrf_proxy/squid-agent.conf.template:/etc/squid/squid.conf.template
      - ./ssrf_proxy/docker-entrypoint.sh:/docker-entrypoint-mount.sh
    entrypoint:
      [
        "sh",
        "-c",
        "@ENTRYPOINT@",
      ]
    environment:
      HTTP_PORT: ${SSRF_HTTP_PORT:-3128}
    networks:
      - default
      - local_sandbox_proxy_network
"""
SITE = """\
  nginx:
    image: nginx:latest
    restart: always
    volumes:
      - ./nginx/nginx.conf.template:/etc/nginx/nginx.conf.template
      - ./nginx/proxy.conf.template:/etc/nginx/proxy.conf.template
      - ./nginx/https.conf.template:/etc/nginx/https.conf.template
      - ./nginx/conf.d:/etc/nginx/conf.d
      - ./nginx/docker-entrypoint.sh:/docker-entrypoint-mount.sh
      - ./nginx/ssl:/etc/ssl
      - ./volumes/certbot/conf/live:/etc/letsencrypt/live
      - ./volumes/certbot/conf:/etc/letsencrypt
      - ./volumes/certbot/www:/var/www/html
    entrypoint:
      [
        "sh",
        "-c",
        "@ENTRYPOINT@",
      ]
    environment:
      NGINX_SERVER_NAME: ${NGINX_SERVER_NAME:-_}
      NGINX_HTTPS_ENABLED: ${NGINX_HTTPS_ENABLED:-false}
      NGINX_SSL_PORT: ${NGINX_SSL_PORT:-443}
      NGINX_PORT: ${NGINX_PORT:-80}
      NGINX_SSL_CERT_FILENAME: ${NGINX_SSL_CERT_FILENAME:-dify.crt}
      NGINX_SSL_CERT_KEY_FILENAME: ${NGINX_SSL_CERT_KEY_FILENAME:-dify.key}
      NGINX_SSL_PROTOCOLS: ${NGINX_SSL_PROTOCOLS:-TLSv1.2 TLSv1.3}
      NGINX_WORKER_PROCESSES: ${NGINX_WORKER_PROCESSES:-auto}
      NGINX_CLIENT_MAX_BODY_SIZE: ${NGINX_CLIENT_MAX_BODY_SIZE:-100M}
      NGINX_KEEPALIVE_TIMEOUT: ${NGINX_KEEPALIVE_TIMEOUT:-65}
      NGINX_PROXY_READ_TIMEOUT: ${NGINX_PROXY_READ_TIMEOUT:-3600s}
      NGINX_PROXY_SEND_TIMEOUT: ${NGINX_PROXY_SEND_TIMEOUT:-3600s}
      NGINX_ENABLE_CERTBOT_CHALLENGE: ${NGINX_ENABLE_CERTBOT_CHALLENGE:-false}
      CERTBOT_DOMAIN: ${CERTBOT_DOMAIN:-}
    depends_on:
      - api
      - web
    ports:
      - "${EXPOSE_NGINX_PORT:-80}:${NGINX_PORT:-80}"
      - "${EXPOSE_NGINX_SSL_PORT:-443}:${NGINX_SSL_PORT:-443}"

  certbot:
    image: certbot/certbot
    profiles:
      - certbot
    volumes:
      - ./volumes/certbot/conf:/etc/letsencrypt
      - ./volumes/certbot/www:/var/www/html
    environment:
      - CERTBOT_EMAIL=${CERTBOT_EMAIL}
      - CERTBOT_DOMAIN=${CERTBOT_DOMAIN}
    command: ["tail", "-f", "/dev/null"]
"""
VECTOR_STORES = """\
  weaviate:
    image: semitechnologies/weaviate:1.27.0
    profiles:
      - weaviate
    restart: always
    volumes:
      - ./volumes/weaviate:/var/lib/weaviate
    environment:
      PERSISTENCE_DATA_PATH: ${WEAVIATE_PERSISTENCE_DATA_PATH:-/var/lib/weaviate}
      QUERY_DEFAULTS_LIMIT: ${WEAVIATE_QUERY_DEFAULTS_LIMIT:-25}
      AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED: ${WEAVIATE_AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED:-false}
      DEFAULT_VECTORIZER_MODULE: ${WEAVIATE_DEFAULT_VECTORIZER_MODULE:-none}
      CLUSTER_HOSTNAME: ${WEAVIATE_CLUSTER_HOSTNAME:-node1}
      AUTHENTICATION_APIKEY_ENABLED: ${WEAVIATE_AUTHENTICATION_APIKEY_ENABLED:-true}
      AUTHENTICATION_APIKEY_ALLOWED_KEYS: ${WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS:-@WEAVIATE_KEY@}
      AUTHENTICATION_APIKEY_USERS: ${WEAVIATE_AUTHENTICATION_APIKEY_USERS:-hello@dify.ai}
      AUTHORIZATION_ADMINLIST_ENABLED: ${WEAVIATE_AUTHORIZATION_ADMINLIST_ENABLED:-true}
      AUTHORIZATION_ADMINLIST_USERS: ${WEAVIATE_AUTHORIZATION_ADMINLIST_USERS:-hello@dify.ai}
      DISABLE_TELEMETRY: ${WEAVIATE_DISABLE_TELEMETRY:-false}

  qdrant:
    image: langgenius/qdrant:v1.8.3
    profiles:
      - qdrant
    restart: always
    volumes:
      - ./volumes/qdrant:/qdrant/storage
    environment:
      QDRANT_API_KEY: ${QDRANT_API_KEY:-@PASSWORD@}

  pgvector:
    image: pgvector/pgvector:pg16
    profiles:
      - pgvector
    restart: always
    environment:
      POSTGRES_PASSWORD: ${PGVECTOR_POSTGRES_PASSWORD:-@PASSWORD@}
      POSTGRES_DB: ${PGVECTOR_POSTGRES_DB:-dify}
    volumes:
      - ./volumes/pgvector/data:/var/lib/postgresql/data
    healthcheck:
      test: ["CMD", "pg_isready"]
      interval: 1s
      timeout: 3s
      retries: 30

  couchbase-server:
    build: ./couchbase-server
    profiles:
      - couchbase
    restart: always
    environment:
      - COUCHBASE_ADMINISTRATOR_PASSWORD=${COUCHBASE_PASSWORD:-password}
    volumes:
      - ./volumes/couchbase/data:/opt/couchbase/var/lib/couchbase/data

  elasticsearch:
    image: docker.elastic.co/elasticsearch/elasticsearch:8.14.3
    container_name: elasticsearch
    profiles:
      - elasticsearch
    restart: always
    environment:
      ELASTIC_PASSWORD: ${ELASTICSEARCH_PASSWORD:-elastic}
    volumes:
      - dify_es01_data:/usr/share/elasticsearch/data
    ports:
      - ${ELASTICSEARCH_PORT:-9200}:9200
"""
# Between two looks of Docker lies this long in the stand-ins' own checks; upstream's are slower, and tests would only wait.
QUICK = """\
      interval: 2s
      timeout: 3s
      retries: 30
"""


def _environment(version: str, *, envs: bool, service: str, mode: str | None, more: dict[str, str]) -> str:
    """Return where a service of the API's kind has its settings from."""
    lines: list[str] = []
    if envs:
        lines.append("    env_file:")
        for path in ENV_FILES:
            lines += [f"      - path: ./envs/{path.format(service=service)}.env", "        required: false"]
        lines += ["      - path: ./.env", "        required: true", "    environment:"]
    else:
        lines += ["    environment:", "      <<: *shared-api-worker-env"]
    own = {**({"MODE": mode} if mode else {}), **more}
    return "\n".join([*lines, *(f"      {name}: {value}" for name, value in own.items())]) + "\n"


def compose(version: str, daemon: str, sandbox: str, *, envs: bool) -> str:
    """Return docker-compose.yaml of a release."""
    needs = "\n".join(f"      {name}:\n        condition: service_healthy\n        required: false" for name in DATABASES)
    inner = {"INNER_API_KEY_FOR_PLUGIN": f"${{PLUGIN_DIFY_INNER_API_KEY:-{INNER_KEY}}}"}
    if envs:
        inner["AGENT_BACKEND_API_TOKEN"] = f"${{DIFY_AGENT_API_TOKEN:-{AGENT_TOKEN}}}"
    kinds = [("api", "api", "api"), ("worker", "worker", "worker"), ("worker_beat", "worker-beat", "beat")]
    kinds += [("api_websocket", "api", "api")] if envs else []
    depends = API.format(databases=needs, redis="service_started")
    check = API_CHECK.format(interval="2s", retries=30)
    parts = []
    for name, file, mode in kinds:
        part = f"  {name}:\n    image: langgenius/dify-api:{version}\n    restart: always\n"
        part += "    profiles:\n      - collaboration\n" if name == "api_websocket" else ""
        more = {**inner, **(WEBSOCKET if name == "api_websocket" else {})}
        part += _environment(version, envs=envs, service=file, mode=mode, more=more) + depends
        part += "" if name in ("worker_beat", "api_websocket") and not envs else STORAGE
        part += check if name == "api" else WORKER_CHECK if mode != "api" else ""
        parts.append(part + BOTH_NETWORKS)
    web = f"  web:\n    image: langgenius/dify-web:{version}\n    restart: always\n    environment:\n"
    web += "".join(f"      {name}: ${{{name}:-}}\n" for name in ("CONSOLE_API_URL", "APP_API_URL", "NEXT_PUBLIC_COOKIE_DOMAIN"))
    web += "      NEXT_PUBLIC_SOCKET_URL: ${NEXT_PUBLIC_SOCKET_URL:-ws://localhost}\n"
    daemon_text = PLUGIN_DAEMON.replace("@ENV@", _environment(version, envs=envs, service="plugin-daemon", mode=None, more={}))
    all_parts = [INIT, *parts, web, STATE, SANDBOX, daemon_text.replace("@DATABASES@", needs), PROXY]
    if envs:
        all_parts.append(AGENT.replace("@ENV@", _environment(version, envs=True, service="dify-agent", mode=None, more={})))
    text = _head(version, envs=envs) + "services:\n" + "\n".join([*all_parts, SITE, VECTOR_STORES]) + _tail(envs=envs)
    marks = {
        "PASSWORD": PASSWORD, "PLUGIN_KEY": PLUGIN_KEY, "INNER_KEY": INNER_KEY, "WEAVIATE_KEY": WEAVIATE_KEY, "SANDBOX_KEY": SANDBOX_KEY,
        "AGENT_TOKEN": AGENT_TOKEN, "AGENT_KEY": AGENT_KEY, "VERSION": version, "DAEMON": daemon, "SANDBOX": sandbox, "QUICK": QUICK,
        "ENTRYPOINT": ENTRYPOINT,
    }
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", value)
    return text


def _head(version: str, *, envs: bool) -> str:
    if envs:
        return "# A release in upstream's shape, made for tests.\n\n"
    lines = ["# A release in upstream's shape, made for tests.", "", "x-shared-env: &shared-api-worker-env"]
    for values in settings(version, envs=False).values():
        lines += [f"  {name}: ${{{name}:-{value}}}" for name, value in values.items() if name != "COMPOSE_PROFILES"]
    return "\n".join(lines) + "\n\n"


def _tail(*, envs: bool) -> str:
    networks = ["ssrf_proxy_network"] + (["agent_sandbox_network", "local_sandbox_proxy_network"] if envs else [])
    text = "\nnetworks:\n" + "".join(f"  {name}:\n    driver: bridge\n    internal: true\n" for name in networks)
    volumes = ["dify_es01_data"] + (["dify_local_sandbox_home"] if envs else [])
    return text + "\nvolumes:\n" + "".join(f"  {name}:\n" for name in volumes)
