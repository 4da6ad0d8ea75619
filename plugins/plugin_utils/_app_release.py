# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a release with the site's settings: the variables of its `.env`, its services, its databases, its override."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.parse import urlsplit

from ansible_collections.difyops.gpu.plugins.plugin_utils import _app_override, _app_services, _plan_codes
from ansible_collections.difyops.gpu.plugins.plugin_utils._app_options import Settings, option
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import Block

PART = "app"
CERTIFICATE, KEY = "dify.crt", "dify.key"
_URL_KEYS = (
    "CONSOLE_API_URL",
    "CONSOLE_WEB_URL",
    "SERVICE_API_URL",
    "APP_API_URL",
    "APP_WEB_URL",
    "FILES_URL",
    "TRIGGER_URL",
    "WEB_API_CORS_ALLOW_ORIGINS",
    "CONSOLE_CORS_ALLOW_ORIGINS",
)
# Variables that have an option of the role, which says so in its sentence.
_THE_PLANS = {
    "EXPOSE_NGINX_PORT": "http_port",
    "EXPOSE_NGINX_SSL_PORT": "https_port",
    "NGINX_HTTPS_ENABLED": "tls_certificate",
    "NGINX_SSL_CERT_FILENAME": "tls_certificate",
    "NGINX_SSL_CERT_KEY_FILENAME": "tls_key",
    "COMPOSE_PROJECT_NAME": "project",
}


@dataclass(frozen=True)
class Release:
    """A release as it is in its archive. `interpolate` puts variables into one text, by compose's rules; `raw` is its compose project."""

    version: str
    layout: str
    sha256: str
    compose_sha256: str
    compose_min: str
    raw: Mapping[str, Any]
    env_example: Mapping[str, str]
    known: frozenset[str]
    interpolate: Callable[[str, Mapping[str, str]], str]
    secrets: Sequence[Mapping[str, Any]] = ()
    derived: Mapping[str, str] = field(default_factory=dict)
    forbidden: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unknown_secrets: Sequence[str] = ()

    @property
    def secret_names(self) -> frozenset[str]:
        """Names of all variables that hold a secret."""
        also = {str(name) for item in self.secrets for name in item.get("also") or ()}
        return frozenset({str(item["name"]) for item in self.secrets} | also | set(self.derived))


@dataclass(frozen=True)
class Wanted:
    """A release with the site's settings. `variables` has a mark in the place of each secret."""

    release: Release
    settings: Settings
    env: Mapping[str, str]
    variables: Mapping[str, str]
    document: Mapping[str, Any]
    services: Sequence[_app_services.Service]
    override: _app_override.Override
    profiles: Sequence[str]
    built: Sequence[str] = ()

    @functools.cached_property
    def images(self) -> dict[str, list[str]]:
        """Services by the reference of the image that they are deployed with."""
        found: dict[str, list[str]] = {}
        for service in self.services:
            found.setdefault(self.image(service), []).append(service.name)
        return found

    def image(self, service: _app_services.Service) -> str:
        """Return the reference of the image that a service is deployed with."""
        return _app_override.image_of(service.image, self.settings)


def combine(release: Release, settings: Settings) -> Wanted:
    """Return the release with the site's settings."""
    env = _env(release, settings)
    variables = _variables(release, env)
    document = _interpolated(release.raw, release, variables)
    profiles = [name.strip() for name in variables.get("COMPOSE_PROFILES", "").split(",") if name.strip()]
    services = _app_services.read(document, release.raw, profiles)
    built = _app_services.without_image(document, profiles)
    shown = {name: value for name, value in variables.items() if name not in release.secret_names}
    return Wanted(release, settings, env, variables, document, services, _app_override.render(services, settings, shown), profiles, built)


def _env(release: Release, settings: Settings) -> dict[str, str]:
    """Return the settings that go into `.env`. For addresses of the site the operator's own value counts."""
    ours = dict.fromkeys(_URL_KEYS, settings.url) if settings.url else {}
    if settings.url:
        parts = urlsplit(settings.url)
        ours["NEXT_PUBLIC_SOCKET_URL"] = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
        ours["ENDPOINT_URL_TEMPLATE"] = f"{settings.url}/e/{{hook_id}}"
    fixed = {"EXPOSE_NGINX_PORT": str(settings.http_port), "EXPOSE_NGINX_SSL_PORT": str(settings.https_port)}
    fixed["NGINX_HTTPS_ENABLED"] = "true" if settings.tls else "false"
    if settings.tls:
        fixed.update(NGINX_SSL_CERT_FILENAME=CERTIFICATE, NGINX_SSL_CERT_KEY_FILENAME=KEY)
    own = {key: value for key, value in settings.env.items() if key not in release.secret_names}
    known = {key: value for key, value in {**ours, **fixed}.items() if key in release.known}
    return dict(sorted({**known, **own, **{key: value for key, value in fixed.items() if key in release.known}}.items()))


def _variables(release: Release, env: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    secret = release.secret_names
    for name, text in {**release.env_example, **env}.items():
        # A secret is in no image, port or profile; where it was, the mark would show.
        found[name] = f"<{name}>" if name in secret else text if name in env else release.interpolate(text, found)
    return {**found, **{name: f"<{name}>" for name in secret}}


def _interpolated(value: Any, release: Release, variables: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return release.interpolate(value, variables) if "$" in value else value
    if isinstance(value, Mapping):
        return {key: _interpolated(item, release, variables) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_interpolated(item, release, variables) for item in value]
    return value


def databases(wanted: Wanted) -> list[dict[str, str]]:
    """Return the PostgreSQL databases that a service of the project holds."""
    service = next((item for item in wanted.services if item.kind == _app_services.DATABASE), None)
    if service is None or _app_services.base_name(service.image) != "postgres":
        return []
    variables = {**_app_services.environment(service.definition), **wanted.variables}
    user = variables.get("DB_USERNAME") or variables.get("POSTGRES_USER") or "postgres"
    names = [variables.get("DB_DATABASE") or variables.get("POSTGRES_DB") or "dify", variables.get("DB_PLUGIN_DATABASE") or "dify_plugin"]
    return [{"name": name, "service": service.name, "user": user} for name in dict.fromkeys(names)]


def trouble(wanted: Wanted, settings: Settings) -> list[Block]:
    """Return what of the settings does not go with the release."""
    found = []
    services = {item.name for item in wanted.services}
    strangers = sorted(set(settings.resources) - services)
    if strangers:
        told = f"{option('resources')} names {', '.join(strangers)}, which this release does not run."
        found.append(_block(_plan_codes.APP_OPTION, told))
    secret = sorted(set(settings.env) & wanted.release.secret_names)
    if secret:
        told = f"{option('env')} has {', '.join(secret)}, which hold secrets; they belong in dify_secrets."
        found.append(_block(_plan_codes.APP_DEFAULT_KEPT, told))
    for name, by in _THE_PLANS.items():
        if name in settings.env:
            found.append(_block(_plan_codes.APP_OPTION, f"{option('env')} has {name}, which {option(by)} sets; leave it out."))
    if "COMPOSE_FILE" in settings.env:
        told = f"{option('env')} has COMPOSE_FILE, with which compose would not find the override; leave it out."
        found.append(_block(_plan_codes.APP_OPTION, told))
    if not any(item.kind == _app_services.API for item in wanted.services):
        found.append(_block(_plan_codes.APP_UNKNOWN, "No service of the release runs the image dify-api, so it is no Dify that is known."))
    if not any(item.kind == _app_services.PROXY and item.ports for item in wanted.services):
        found.append(_block(_plan_codes.APP_UNKNOWN, "No service of the release is a proxy that publishes the site's port."))
    if wanted.built:
        told = f"{', '.join(wanted.built)} would have to be built, since the release names no image; choose other profiles."
        found.append(_block(_plan_codes.APP_UNKNOWN, told))
    found += [_block(_plan_codes.APP_UNKNOWN, sentence) for sentence in _database_trouble(wanted)]
    return found


def _database_trouble(wanted: Wanted) -> list[str]:
    held = [item for item in wanted.services if item.kind == _app_services.DATABASE]
    if held and not databases(wanted):
        return [f"The database {held[0].name} is {held[0].image}, which cannot be backed up here; only PostgreSQL can."]
    host = wanted.variables.get("DB_HOST", "")
    if not held:
        return [f"No service of the project holds the database (DB_HOST is {host or 'not set'}); one elsewhere cannot be backed up here."]
    return []


def _block(code: str, message: str) -> Block:
    return Block(PART, code, message)
