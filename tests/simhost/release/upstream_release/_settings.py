# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a release: names and public defaults are upstream's (a selection, with everything that is a secret)."""

from __future__ import annotations

# Where a default is public, a deployment must not have it.
PASSWORD = "difyai123456"  # noqa: S105  public
PLUGIN_KEY = "lYkiYYT6owG+71oLerGzA7GXCgOT++6ovaezWAjpCjf+Sjc3ZtU+qUEi"
INNER_KEY = "QaHbTe77CtuXmsfyhR7+vRjI/+XbV1AaFy691iy+kGDv2Jvy0/eAh8Y1"
WEAVIATE_KEY = "WVF5YThaHlkYwhGUSmCRgsX3tD5ngdN8pkih"
SIGNING_KEY = "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U"
AGENT_TOKEN = "dify-agent-run-token-for-dev-only"  # noqa: S105  public
AGENT_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
SANDBOX_KEY = "dify-sandbox"

ADDRESSES = {
    "CONSOLE_API_URL": "", "CONSOLE_WEB_URL": "", "SERVICE_API_URL": "", "TRIGGER_URL": "http://localhost", "APP_API_URL": "",
    "APP_WEB_URL": "", "FILES_URL": "", "INTERNAL_FILES_URL": "", "ENDPOINT_URL_TEMPLATE": "http://localhost/e/{hook_id}",
    "NEXT_PUBLIC_SOCKET_URL": "ws://localhost",
}
SERVER = {
    "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LOG_LEVEL": "INFO", "LOG_FILE": "/app/logs/server.log",
    "LOG_DATEFORMAT": "%Y-%m-%d %H:%M:%S", "DEBUG": "false", "INIT_PASSWORD": "", "DEPLOY_ENV": "PRODUCTION",
    "CHECK_UPDATE_URL": "https://updates.dify.ai", "MIGRATION_ENABLED": "true", "FILES_ACCESS_TIMEOUT": "300",
    "DIFY_BIND_ADDRESS": "0.0.0.0", "DIFY_PORT": "5001", "SERVER_WORKER_AMOUNT": "1", "SERVER_WORKER_CLASS": "gevent",
    "CELERY_WORKER_AMOUNT": "4", "GUNICORN_TIMEOUT": "360",
}
DATABASE = {
    "DB_TYPE": "postgresql", "DB_USERNAME": "postgres", "DB_PASSWORD": PASSWORD, "DB_HOST": "db_postgres", "DB_PORT": "5432",
    "DB_DATABASE": "dify", "SQLALCHEMY_POOL_SIZE": "30", "POSTGRES_MAX_CONNECTIONS": "100", "POSTGRES_SHARED_BUFFERS": "128MB",
    "POSTGRES_WORK_MEM": "4MB", "POSTGRES_MAINTENANCE_WORK_MEM": "64MB", "POSTGRES_EFFECTIVE_CACHE_SIZE": "4096MB",
    "POSTGRES_STATEMENT_TIMEOUT": "0", "POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT": "0",
}
CACHE = {
    "REDIS_HOST": "redis", "REDIS_PORT": "6379", "REDIS_USERNAME": "", "REDIS_PASSWORD": PASSWORD, "REDIS_USE_SSL": "false",
    "REDIS_DB": "0", "CELERY_BROKER_URL": f"redis://:{PASSWORD}@redis:6379/1", "CELERY_BACKEND": "redis", "BROKER_USE_SSL": "false",
}
CORS = {"WEB_API_CORS_ALLOW_ORIGINS": "*", "CONSOLE_CORS_ALLOW_ORIGINS": "*", "COOKIE_DOMAIN": "", "NEXT_PUBLIC_COOKIE_DOMAIN": ""}
FILES = {"STORAGE_TYPE": "opendal", "OPENDAL_SCHEME": "fs", "OPENDAL_FS_ROOT": "storage"}
# Of stores that do not run here: keys of others' services, and of databases in other profiles.
OTHER_STORES = {
    "S3_REGION": "us-east-1", "S3_BUCKET_NAME": "difyai", "S3_ACCESS_KEY": "", "S3_SECRET_KEY": "", "AZURE_BLOB_ACCOUNT_NAME": "difyai",
    "AZURE_BLOB_ACCOUNT_KEY": "difyai", "ALIYUN_OSS_ACCESS_KEY": "your-access-key", "ALIYUN_OSS_SECRET_KEY": "your-secret-key",
    "TENCENT_COS_SECRET_KEY": "your-secret-key", "OCI_SECRET_KEY": "your-secret-key", "SUPABASE_API_KEY": "your-access-key",
    "QDRANT_URL": "http://qdrant:6333", "QDRANT_API_KEY": PASSWORD, "PGVECTOR_HOST": "pgvector", "PGVECTOR_USER": "postgres",
    "PGVECTOR_PASSWORD": PASSWORD, "OCEANBASE_VECTOR_PASSWORD": PASSWORD, "OPENSEARCH_PASSWORD": "admin", "TIDB_ON_QDRANT_API_KEY": "dify",
    "COUCHBASE_PASSWORD": "password", "MATRIXONE_PASSWORD": "111", "RESEND_API_KEY": "your-resend-api-key", "SMTP_PASSWORD": "",
}
VECTORS = {
    "VECTOR_STORE": "weaviate", "VECTOR_INDEX_NAME_PREFIX": "Vector_index", "WEAVIATE_ENDPOINT": "http://weaviate:8080",
    "WEAVIATE_API_KEY": WEAVIATE_KEY, "WEAVIATE_GRPC_ENDPOINT": "grpc://weaviate:50051", "WEAVIATE_TOKENIZATION": "word",
}
WEAVIATE = {
    "WEAVIATE_PERSISTENCE_DATA_PATH": "/var/lib/weaviate", "WEAVIATE_QUERY_DEFAULTS_LIMIT": "25",
    "WEAVIATE_AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false", "WEAVIATE_DEFAULT_VECTORIZER_MODULE": "none",
    "WEAVIATE_CLUSTER_HOSTNAME": "node1", "WEAVIATE_AUTHENTICATION_APIKEY_ENABLED": "true",
    "WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS": WEAVIATE_KEY, "WEAVIATE_AUTHENTICATION_APIKEY_USERS": "hello@dify.ai",
    "WEAVIATE_AUTHORIZATION_ADMINLIST_ENABLED": "true", "WEAVIATE_AUTHORIZATION_ADMINLIST_USERS": "hello@dify.ai",
    "WEAVIATE_DISABLE_TELEMETRY": "false",
}
SANDBOX = {
    "CODE_EXECUTION_ENDPOINT": "http://sandbox:8194", "CODE_EXECUTION_API_KEY": SANDBOX_KEY, "SANDBOX_API_KEY": SANDBOX_KEY,
    "SANDBOX_GIN_MODE": "release", "SANDBOX_WORKER_TIMEOUT": "15", "SANDBOX_ENABLE_NETWORK": "true",
    "SANDBOX_HTTP_PROXY": "http://ssrf_proxy:3128", "SANDBOX_HTTPS_PROXY": "http://ssrf_proxy:3128", "SANDBOX_PORT": "8194",
}
SSRF = {
    "SSRF_PROXY_HTTP_URL": "http://ssrf_proxy:3128", "SSRF_PROXY_HTTPS_URL": "http://ssrf_proxy:3128", "SSRF_HTTP_PORT": "3128",
    "SSRF_COREDUMP_DIR": "/var/spool/squid", "SSRF_REVERSE_PROXY_PORT": "8194", "SSRF_SANDBOX_HOST": "sandbox",
}
PLUGINS = {
    "DB_PLUGIN_DATABASE": "dify_plugin", "EXPOSE_PLUGIN_DAEMON_PORT": "5002", "PLUGIN_DAEMON_PORT": "5002", "PLUGIN_DAEMON_KEY": PLUGIN_KEY,
    "PLUGIN_DAEMON_URL": "http://plugin_daemon:5002", "PLUGIN_MAX_PACKAGE_SIZE": "52428800", "PLUGIN_DEBUGGING_HOST": "0.0.0.0",
    "PLUGIN_DEBUGGING_PORT": "5003", "EXPOSE_PLUGIN_DEBUGGING_HOST": "localhost", "EXPOSE_PLUGIN_DEBUGGING_PORT": "5003",
    "PLUGIN_DIFY_INNER_API_KEY": INNER_KEY, "PLUGIN_DIFY_INNER_API_URL": "http://api:5001", "MARKETPLACE_ENABLED": "true",
    "MARKETPLACE_API_URL": "https://marketplace.dify.ai", "FORCE_VERIFYING_SIGNATURE": "true", "PIP_MIRROR_URL": "",
    "PLUGIN_STORAGE_TYPE": "local", "PLUGIN_STORAGE_LOCAL_ROOT": "/app/storage", "PLUGIN_WORKING_PATH": "/app/storage/cwd",
}
AGENT = {
    "AGENT_BACKEND_BASE_URL": "http://agent_backend:5050", "DIFY_AGENT_SERVER_SECRET_KEY": AGENT_KEY, "DIFY_AGENT_API_TOKEN": AGENT_TOKEN,
    "DIFY_AGENT_RUNTIME_BACKEND": "local", "DIFY_AGENT_LOCAL_SANDBOX_ENDPOINT": "http://local_sandbox:5004",
    "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN": "",
}
NGINX = {
    "NGINX_SERVER_NAME": "_", "NGINX_HTTPS_ENABLED": "false", "NGINX_PORT": "80", "NGINX_SSL_PORT": "443",
    "NGINX_SSL_CERT_FILENAME": "dify.crt", "NGINX_SSL_CERT_KEY_FILENAME": "dify.key", "NGINX_SSL_PROTOCOLS": "TLSv1.2 TLSv1.3",
    "NGINX_WORKER_PROCESSES": "auto", "NGINX_CLIENT_MAX_BODY_SIZE": "100M", "NGINX_KEEPALIVE_TIMEOUT": "65",
    "NGINX_PROXY_READ_TIMEOUT": "3600s", "NGINX_PROXY_SEND_TIMEOUT": "3600s", "NGINX_ENABLE_CERTBOT_CHALLENGE": "false",
    "EXPOSE_NGINX_PORT": "80", "EXPOSE_NGINX_SSL_PORT": "443",
}
TITLES = {
    "Addresses": ADDRESSES, "Server": SERVER, "Database": DATABASE, "Cache and queue": CACHE, "Origins": CORS, "Files": FILES,
    "Other stores": OTHER_STORES, "Vector store": VECTORS, "Weaviate": WEAVIATE, "Code sandbox": SANDBOX, "Outgoing requests": SSRF,
    "Plugins": PLUGINS, "Agent": AGENT, "Proxy": NGINX,
}
# What the slim .env.example of the newer layout leaves to the files in envs/.
OPTIONAL = ("Other stores", "Weaviate", "Files")
DROPPED = {"1.17.2": ("DEBUG",)}
ADDED = {"1.17.1": {"PLUGIN_MODEL_PROVIDERS_CACHE_TTL": "86400"}, "1.18.0": {"DIFY_AGENT_RUN_TIMEOUT_SECONDS": "3600"}}


def settings(version: str, *, envs: bool) -> dict[str, dict[str, str]]:
    """Return the settings of a release by the titles of their sections."""
    found = {title: dict(section) for title, section in TITLES.items() if envs or title != "Agent"}
    if envs:
        # Since 1.15 a key is made at the first start and kept in the storage.
        found["Server"]["SECRET_KEY"] = ""
        found["Proxy"]["COMPOSE_PROFILES"] = "${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql},collaboration"
    else:
        found["Server"]["SECRET_KEY"] = SIGNING_KEY
        found["Proxy"]["COMPOSE_PROFILES"] = "${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql}"
    for of, more in ADDED.items():
        if _number(of) <= _number(version):
            found["Server"].update(more)
    for of, names in DROPPED.items():
        if _number(of) <= _number(version):
            for name in names:
                del found["Server"][name]
    return found


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def env_text(sections: dict[str, dict[str, str]]) -> str:
    """Return a file of settings with its titles."""
    lines: list[str] = []
    for title, values in sections.items():
        lines += ["# " + "-" * 30, f"# {title}", "# " + "-" * 30, ""]
        for name, value in values.items():
            lines += [f"{name}={value}"]
        lines.append("")
    return "\n".join(lines)
