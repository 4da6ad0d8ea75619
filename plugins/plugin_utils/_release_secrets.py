# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets of a release: which variables hold one, which public defaults must never be deployed, and which ones nobody knows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose_text
from ansible_collections.difyops.gpu.plugins.plugin_utils._release import Release

LETTERS, BASE64URL32 = "letters", "base64url32"
# The admin's password is kept with the other secrets, and is no variable of Dify.
ADMIN_PASSWORD = "ADMIN_PASSWORD"  # noqa: S105  a name


@dataclass(frozen=True)
class Secret:
    """One secret: `also` has the variables that hold the same value, `length` is in characters."""

    name: str
    also: tuple[str, ...] = ()
    length: int = 40
    kind: str = LETTERS

    def as_dict(self, known: frozenset[str]) -> dict[str, Any]:
        """Return the form that dify_env takes, with those of `also` that the release knows."""
        also = [name for name in self.also if name in known]
        return {"name": self.name, "kind": self.kind, "length": self.length, "also": also, "in_env": True}


# Names are upstream's. Letters and digits are safe everywhere: in URLs, in shell commands of the compose project, and in SQL.
TABLE = (
    Secret("SECRET_KEY", length=64),
    # Upstream takes no more than 30 characters.
    Secret("INIT_PASSWORD", length=24),
    Secret("DB_PASSWORD", ("POSTGRES_PASSWORD", "MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD")),
    Secret("REDIS_PASSWORD"),
    Secret("SANDBOX_API_KEY", ("CODE_EXECUTION_API_KEY",)),
    Secret("PLUGIN_DAEMON_KEY", length=64),
    Secret("PLUGIN_DIFY_INNER_API_KEY", ("INNER_API_KEY_FOR_PLUGIN", "DIFY_INNER_API_KEY"), length=64),
    Secret("DIFY_AGENT_SERVER_SECRET_KEY", kind=BASE64URL32, length=43),
    Secret("DIFY_AGENT_API_TOKEN", length=64),
    Secret("DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN", length=64),
    # Of the vector stores that the compose project can run, where both sides read the value from these variables.
    Secret("WEAVIATE_API_KEY", ("WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS",)),
    Secret("QDRANT_API_KEY"),
    Secret("PGVECTOR_PASSWORD", ("PGVECTOR_POSTGRES_PASSWORD", "PGVECTO_RS_PASSWORD")),
    Secret("CHROMA_SERVER_AUTHN_CREDENTIALS", ("CHROMA_AUTH_CREDENTIALS",)),
    Secret("OCEANBASE_VECTOR_PASSWORD", ("OCEANBASE_PASSWORD",)),
    Secret("ELASTICSEARCH_PASSWORD", ("ELASTIC_PASSWORD",)),
    Secret("VASTBASE_PASSWORD", ("VB_PASSWORD",), length=24),
    Secret("OPENGAUSS_PASSWORD", length=24),
)
# Variables whose value is an address with one of the secrets in it.
_URLS = {"CELERY_BROKER_URL": ("REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_HOST", "REDIS_PORT")}
# Credentials of what runs elsewhere, at a provider that the operator chooses: what upstream has for them opens nothing here.
_ELSEWHERE = re.compile(
    r"(?:S3|ARCHIVE_STORAGE|AZURE|GOOGLE|ALIYUN|ALIBABACLOUD|TENCENT|OCI|HUAWEI|VOLCENGINE|BAIDU|SUPABASE|ANALYTICDB|HOLOGRES|TIDB"
    r"|RELYT|VIKINGDB|LINDORM|UPSTASH|TABLESTORE|CLICKZETTA|LOGSTORE|NOTION|RESEND|SMTP|SENDGRID|SENTRY|UNSTRUCTURED|E2B|AWS)_.*"
)
# Of vector stores that run only with a profile of their own: where it is not chosen, they guard nothing.
_STORES = re.compile(r"(?:MINIO|MILVUS|OPENSEARCH|ORACLE|COUCHBASE|MATRIXONE|IRIS|MYSCALE|PGVECTO_RS|KIBANA)_.*")
_LOOKS_SECRET = re.compile(r".*(?:PASSWORD|PASSWD|PWD|SECRET|SECRET_KEY|API_KEY|TOKEN|_KEY|CREDENTIALS|INNER_KEY)")
# Names that end like a secret and hold none.
_NO_SECRET = re.compile(r".*(?:_TOKEN_EXPIRY.*|_MAX_TOKENS?|PUBLIC_KEY|_FILENAME|CERT_KEY|_PREFIX|SSL_KEY|TLS_CLIENT_KEY|ACCESS_KEY_ID)")
_PLACEHOLDER = re.compile(r"(?i)(?:your[-_ ].*|xxx+|<.*>|change[-_]?me.*|none|null|true|false|\d{1,5}|/.*)")


@dataclass(frozen=True)
class Secrets:
    """What dify_env and the plan need of a release.

    Attributes:
        secrets: name, kind, length, also and in_env of each.
        derived: templates by name, with names of other variables in braces.
        forbidden: digests (sha256) of public defaults, by name.
        unknown: names that look like a secret of a service that runs, with a public default, and that are not in the table.
    """

    secrets: tuple[Mapping[str, Any], ...]
    derived: Mapping[str, str] = field(default_factory=dict)
    forbidden: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def of(release: Release, profiles: Iterable[str] | None = None) -> Secrets:
    """Return the secrets of a release. `profiles` are the chosen ones, None for those of its `.env.example`."""
    known, defaults = release.known, public_defaults(release)
    items = [secret.as_dict(known) for secret in TABLE if secret.name in known]
    admin = {"name": ADMIN_PASSWORD, "kind": LETTERS, "length": 24, "also": [], "in_env": False}
    derived = {name: template for name, template in _derived(release, defaults).items() if name in known}
    names = [name for item in items for name in (item["name"], *item["also"])] + [*derived]
    forbidden = {name: tuple(sorted(_digest(value) for value in defaults[name])) for name in names if defaults.get(name)}
    chosen = release.profiles if profiles is None else tuple(profiles)
    return Secrets((*items, admin), derived, forbidden, _unknown(release, defaults, set(names), chosen))


def public_defaults(release: Release) -> dict[str, set[str]]:
    """Return the values that a release has for its variables, by name: those of all its files and compose's defaults; no empty ones."""
    found: dict[str, set[str]] = {}
    for file in (release.env_example, *release.envs.values()):
        for name, text in file.items():
            found.setdefault(name, set()).add(_plain(text, release))
    for item in release.references:
        if item.operator in ("-", ":-"):
            found.setdefault(item.name, set()).add(_plain(item.word, release))
    return {name: values - {""} for name, values in found.items() if values - {""}}


def _plain(text: str, release: Release) -> str:
    try:
        return _compose_text.interpolate(text, release.defaults)
    except _compose_text.InterpolationError:
        return text


def _derived(release: Release, defaults: Mapping[str, set[str]]) -> dict[str, str]:
    """Return templates: the address that the release has, with the names of the variables in the place of their public values."""
    found = {}
    for name, (user, password, host, port) in _URLS.items():
        for value in sorted(defaults.get(name, ())):
            try:
                parts = urlsplit(value)
                held, number = parts.password or "", parts.port
            except ValueError:
                continue
            if not parts.scheme or held not in defaults.get(password, {held}) or not held:
                continue
            account = f"{{{user}}}" if user in release.known and not parts.username else parts.username or ""
            place = f"{{{host}}}" if parts.hostname in defaults.get(host, ()) else parts.hostname or ""
            number_text = f"{{{port}}}" if str(number) in defaults.get(port, ()) else str(number or "")
            colon = ":" if number_text else ""
            query = f"?{parts.query}" if parts.query else ""
            found[name] = f"{parts.scheme}://{account}:{{{password}}}@{place}{colon}{number_text}{parts.path}{query}"
    return found


def _unknown(release: Release, defaults: Mapping[str, set[str]], names: set[str], profiles: Iterable[str]) -> tuple[str, ...]:
    """Return the names that look like a secret with a public default on a service that runs."""
    used = _used(release, set(profiles))
    found = set()
    for name, values in defaults.items():
        real = [value for value in values if not _PLACEHOLDER.fullmatch(value) and "://" not in value]
        if name in names or name not in used or not real or not looks_secret(name) or _ELSEWHERE.fullmatch(name):
            continue
        # Every service of Dify itself is handed the variables of every store; only the store's own service makes them matter.
        if not _STORES.fullmatch(name) or name in _used(release, set(profiles), of_dify=False):
            found.add(name)
    return tuple(sorted(found))


def looks_secret(name: str) -> bool:
    """Whether the name of a variable looks as if it held a secret."""
    return bool(_LOOKS_SECRET.fullmatch(name)) and not _NO_SECRET.fullmatch(name)


def _used(release: Release, profiles: set[str], of_dify: bool = True) -> set[str]:
    """Return the variables of the services that run, with what `.env` hands to them as a whole."""
    found: set[str] = set()
    for service in release.compose["services"].values():
        wanted = service.get("profiles") or []
        if wanted and not profiles & {str(item) for item in wanted}:
            continue
        if not of_dify and "/dify-" in str(service.get("image")):
            continue
        texts: list[str] = []
        _texts(service, texts)
        found |= {item.name for text in texts for item in _compose_text.references(text)}
        if of_dify and service.get("env_file"):
            found |= set(release.env_example)
    return found


def _texts(value: object, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            _texts(item, found)
    elif isinstance(value, list):
        for item in value:
            _texts(item, found)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8")).hexdigest()
