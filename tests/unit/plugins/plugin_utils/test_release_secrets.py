# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets of a release: which are made, which defaults are public, and which nobody knows."""

from __future__ import annotations

import hashlib

import pytest
import yaml
from ansible_collections.difyops.gpu.plugins.plugin_utils import _release, _release_secrets
from ansible_collections.difyops.gpu.tests.unit.plugins.plugin_utils.app_scenarios import archive_file

VERSIONS = ("1.14.2", "1.16.1", "1.17.1", "1.18.0")
MORE = {"DIFY_AGENT_SERVER_SECRET_KEY", "DIFY_AGENT_API_TOKEN", "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN"}
ALWAYS = {
    "SECRET_KEY",
    "INIT_PASSWORD",
    "DB_PASSWORD",
    "REDIS_PASSWORD",
    "SANDBOX_API_KEY",
    "PLUGIN_DAEMON_KEY",
    "PLUGIN_DIFY_INNER_API_KEY",
    "WEAVIATE_API_KEY",
    "QDRANT_API_KEY",
    "PGVECTOR_PASSWORD",
    "OCEANBASE_VECTOR_PASSWORD",
    "ADMIN_PASSWORD",
}


def release(env="", compose=None, envs=None):
    """Return a release made by hand."""
    from ansible_collections.difyops.gpu.plugins.module_utils import _dotenv

    text = compose or "services:\n  api:\n    image: langgenius/dify-api:1\n    env_file: .env\n"
    files = {name: _dotenv.values(content) for name, content in (envs or {}).items()}
    return _release.Release("1.17.1", "envs", "0", text, yaml.safe_load(text), _dotenv.values(env), files, "2.24.0")


def digest(value):
    return hashlib.sha256(value.encode()).hexdigest()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_secret_that_the_release_has_is_made(version, tmp_path):
    found = _release_secrets.of(_release.read(archive_file(version, tmp_path)))
    names = {item["name"]: item for item in found.secrets}
    assert set(names) == ALWAYS | {"ELASTICSEARCH_PASSWORD"} & set(names) | (MORE if version != "1.14.2" else set())
    assert names["SANDBOX_API_KEY"]["also"] == ["CODE_EXECUTION_API_KEY"]
    assert names["WEAVIATE_API_KEY"]["also"] == ["WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS"]
    assert names["INIT_PASSWORD"]["length"] <= 30
    assert [name for name, item in names.items() if not item["in_env"]] == ["ADMIN_PASSWORD"]
    assert found.derived == {"CELERY_BROKER_URL": "redis://{REDIS_USERNAME}:{REDIS_PASSWORD}@{REDIS_HOST}:{REDIS_PORT}/1"}
    assert found.unknown == ()
    for name in ("DB_PASSWORD", "REDIS_PASSWORD", "QDRANT_API_KEY"):
        assert digest("difyai123456") in found.forbidden[name]
    for name in ("SANDBOX_API_KEY", "CODE_EXECUTION_API_KEY"):
        assert digest("dify-sandbox") in found.forbidden[name]
    assert digest("redis://:difyai123456@redis:6379/1") in found.forbidden["CELERY_BROKER_URL"]
    assert not any(digest("") in digests for digests in found.forbidden.values())


def test_defaults_of_every_place_are_public():
    compose = "services:\n  redis:\n    image: redis:6\n    command: redis-server --requirepass ${REDIS_PASSWORD:-${OLD:-of-compose}}\n"
    found = _release_secrets.of(release("REDIS_PASSWORD=of-file\n", compose, {"envs/a.env.example": 'REDIS_PASSWORD="of envs"\n'}))
    assert set(found.forbidden["REDIS_PASSWORD"]) == {digest("of-file"), digest("of-compose"), digest("of envs")}


@pytest.mark.parametrize(
    ("env", "template"),
    [
        ("CELERY_BROKER_URL=redis://:p@redis:6379/1\nREDIS_PASSWORD=p\n", "redis://:{REDIS_PASSWORD}@redis:6379/1"),
        (
            "REDIS_PASSWORD=p\nREDIS_HOST=redis\nREDIS_PORT=6379\nCELERY_BROKER_URL=redis://:${REDIS_PASSWORD}@${REDIS_HOST}:6379/1\n",
            "redis://:{REDIS_PASSWORD}@{REDIS_HOST}:{REDIS_PORT}/1",
        ),
        ("CELERY_BROKER_URL=rediss://me:p@cache/2?a=b\nREDIS_PASSWORD=p\n", "rediss://me:{REDIS_PASSWORD}@cache/2?a=b"),
        ("CELERY_BROKER_URL=redis://redis:6379/1\nREDIS_PASSWORD=p\n", None),
        ("CELERY_BROKER_URL=redis://:other@redis:6379/1\nREDIS_PASSWORD=p\n", None),
        ("CELERY_BROKER_URL=redis://:p@[redis:x/1\nREDIS_PASSWORD=p\n", None),
    ],
)
def test_an_address_with_a_secret_is_made_of_its_parts(env, template):
    assert _release_secrets.of(release(env)).derived.get("CELERY_BROKER_URL") == template


def test_secrets_that_nobody_knows_are_named():
    env = (
        "NEW_SERVICE_TOKEN=public-token\nOTHER_API_KEY=\nS3_SECRET_KEY=minio\nALIYUN_OSS_SECRET_KEY=your-secret-key\nX_API_KEY=your-key\n"
        "RESET_PASSWORD_TOKEN_EXPIRY_MINUTES=5\nPROMPT_GENERATION_MAX_TOKENS=512\nNGINX_SSL_CERT_KEY_FILENAME=dify.key\nDB_PASSWORD=x\n"
    )
    assert _release_secrets.of(release(env)).unknown == ("NEW_SERVICE_TOKEN",)


def test_a_secret_counts_where_its_service_runs():
    compose = (
        "services:\n  api:\n    image: langgenius/dify-api:1\n    environment:\n      K: ${MINIO_SECRET_KEY:-minioadmin}\n"
        "  minio:\n    image: minio/minio:1\n    profiles: [milvus]\n    environment:\n      K: ${MINIO_SECRET_KEY:-minioadmin}\n"
        "  odd:\n    image: odd:1\n    profiles: [odd]\n    environment:\n      K: ${ODD_PASSWORD:-odd}\n"
    )
    made = release("", compose)
    assert _release_secrets.of(made).unknown == ()
    assert _release_secrets.of(made, ["milvus"]).unknown == ("MINIO_SECRET_KEY",)
    assert _release_secrets.of(made, ["odd"]).unknown == ("ODD_PASSWORD",)
