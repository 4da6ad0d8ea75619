# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that a deployed Dify works: link by link from its containers to an embedding that its model server computed.

This is private to difyops.gpu.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.difyops.gpu.plugins.module_utils import _console, _console_models, _docker, _tls

NOT_READY, DEFAULT_KEPT, WRONG_CERTIFICATE = "DG914", "DG913", "DG919"
REMEDIES = {
    NOT_READY: "look at its log (docker compose logs in the release's folder), mend what it names, and run the same playbook again",
    DEFAULT_KEPT: "run deploy_dify: it replaces what is public; then make the containers anew",
    WRONG_CERTIFICATE: "look at the proxy's log (docker compose logs in the release's folder), restart it, and run the same playbook again",
    _console.API_CHANGED: "see docs/dify.md for the releases that were tried, and tell us of this one",
    _console.REFUSED: "see that the model server runs and that its key is the one that is registered, and run the same playbook again",
    _console.UNKNOWN_KEY: "give the key of the model server (dify_gpu_api_key), or deploy the model server first",
    _console.NO_SITE: "see that the proxy runs and that its port is reached from here",
}
_OK, _FAILED, _SKIPPED = "ok", "failed", "skipped"


@dataclass(frozen=True)
class Wanted:
    """What is to be proven. An empty `email`: nobody logs in; `password` and `key` are asked for when they are needed."""

    project: str
    services: Sequence[Mapping[str, Any]]
    version: str | None
    forbidden: Mapping[str, Sequence[str]]
    email: str
    password: Callable[[], str]
    provider: str
    models: Sequence[_console_models.Model]
    key: Callable[[], str]
    # Digest of what was registered last; None: nobody wrote it down, so Dify's own list has to do.
    registered: str | None = None
    tls: _tls.Endpoint | None = None


@dataclass(frozen=True)
class Link:
    """One link of the chain, as in the verdict."""

    link: str
    status: str
    expected: str
    seen: str
    code: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "link": self.link, "status": self.status, "expected": self.expected, "seen": self.seen,
            "code": self.code, "remedy": REMEDIES.get(self.code or ""),
        }


Containers = Callable[[str], list[dict[str, Any]]]


def prove(wanted: Wanted, console: _console.Console, containers: Containers | None = None) -> dict[str, Any]:
    """Return the verdict: the document `dify_verdict` of docs/contracts.md."""
    began, at = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    documents, problem = _containers(wanted.project, containers or (lambda project: _docker.connect(15.0).containers(project)))
    links = [_running(wanted, documents, problem), *_site(wanted, console), _secrets(wanted, documents, problem)]
    links += _connected(wanted, console) + _secured(wanted)
    order = ("containers", "web", "tls", "api", "secrets", "setup", "provider", "embedding", "rerank")
    links.sort(key=lambda link: order.index(link.link))
    bad = next((link for link in links if link.status == _FAILED), None)
    unsure = next((link for link in links if link.status == _SKIPPED and link.code), None)
    told = bad or unsure
    good = f"{wanted.version or 'Dify'} answers" + (f", and {len(wanted.models)} models compute" if wanted.models else "")
    return {
        "schema": 1,
        "overall": "failed" if bad else "unproven" if unsure else "proven",
        "summary": f"{told.link}: expected {told.expected}, seen {told.seen}" if told else good,
        "code": told.code if told else None,
        "remedy": REMEDIES.get(told.code or "") if told else None,
        "links": [link.as_dict() for link in links],
        "warnings": [],
        "checked_at": at,
        "duration_ms": round((time.monotonic() - began) * 1000),
    }


def _containers(project: str, ask: Containers) -> tuple[list[dict[str, Any]], str | None]:
    try:
        return ask(project), None
    except (_docker.DockerUnavailable, _docker.DockerError) as error:
        return [], str(error)


def _running(wanted: Wanted, documents: Sequence[Mapping[str, Any]], problem: str | None) -> Link:
    expected = f"{len(wanted.services)} services as planned"
    if not wanted.services:
        return Link("containers", _SKIPPED, "nothing of this host", "Dify runs elsewhere")
    if problem:
        return Link("containers", _FAILED, expected, problem, NOT_READY)
    found = [sentence for service in wanted.services for sentence in _wrong(service, documents)]
    if found:
        return Link("containers", _FAILED, expected, "; ".join(found), NOT_READY)
    return Link("containers", _OK, expected, "all of them")


def _wrong(service: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with a service, as clauses."""
    name = str(service.get("name"))
    mine = [one for one in documents if _service(one) == name]
    mine = [one for one in mine if _labels(one).get("com.docker.compose.oneoff") != "True"]
    if not mine:
        return [f"{name} has no container"]
    found = []
    for document in mine:
        state, image = _mapping(document.get("State")), _mapping(document.get("Config")).get("Image")
        health = _mapping(state.get("Health")).get("Status")
        if image != service.get("image"):
            found.append(f"{name} has the image {image} in place of {service.get('image')}")
        if service.get("one_shot"):
            if state.get("Status") == "exited" and state.get("ExitCode") not in (0, None):
                found.append(f"{name} ended with {state.get('ExitCode')}")
        elif state.get("Status") != "running":
            found.append(f"{name} is {state.get('Status')}")
        elif health not in (None, "healthy"):
            found.append(f"{name} is {health}")
    return found


def _site(wanted: Wanted, console: _console.Console) -> list[Link]:
    address = console.host_header or console.url
    try:
        page = console.ask("GET", "/")
    except _console.ConsoleError as error:
        return [
            Link("web", _FAILED, f"{address} answers", str(error), error.code),
            Link("api", _SKIPPED, "the API answers", "nothing answers"),
        ]
    web = Link("web", _OK, f"{address} answers", str(page.status))
    if page.status >= 400:
        web = Link("web", _FAILED, f"{address} answers", f"{page.status}: {page.reason}", _console.NO_SITE)
    return [web, _api(wanted, console)]


def _secured(wanted: Wanted) -> list[Link]:
    """Return the link of TLS; without a certificate of the site there is none."""
    if wanted.tls is None:
        return []
    expected = f"port {wanted.tls.port} serves the certificate of the site"
    told = _tls.compare(wanted.tls)
    return [Link("tls", _FAILED, expected, told, WRONG_CERTIFICATE) if told else Link("tls", _OK, expected, "that one")]


def _api(wanted: Wanted, console: _console.Console) -> Link:
    """The API tells its release in a header of each answer."""
    expected = f"the API of {wanted.version}" if wanted.version else "the API answers"
    try:
        answer = console.ask("GET", "/console/api/setup")
    except _console.ConsoleError as error:
        return Link("api", _FAILED, expected, str(error), error.code)
    if not answer.good:
        return Link("api", _FAILED, expected, f"{answer.status}: {answer.reason}", _console.NO_SITE)
    version = answer.headers.get("x-version")
    if version and wanted.version and version != wanted.version:
        return Link("api", _FAILED, expected, f"that of {version}", NOT_READY)
    return Link("api", _OK, expected, f"that of {version}" if version else "it answers, and does not tell its release")


def _secrets(wanted: Wanted, documents: Sequence[Mapping[str, Any]], problem: str | None) -> Link:
    expected = "no secret that is public"
    if not wanted.forbidden or not wanted.services:
        return Link("secrets", _SKIPPED, expected, "nothing to compare with")
    if problem:
        return Link("secrets", _SKIPPED, expected, problem)
    found = sorted({f"{_service(one)} has {name}" for one in documents for name in _public(one, wanted.forbidden)})
    if found:
        return Link("secrets", _FAILED, expected, f"{'; '.join(found)} with a default that everybody knows", DEFAULT_KEPT)
    return Link("secrets", _OK, expected, "none")


def _public(document: Mapping[str, Any], forbidden: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of the variables of a container whose value is a public default."""
    found = []
    lines = _mapping(document.get("Config")).get("Env")
    for line in lines if isinstance(lines, list) else []:
        name, _equals, value = str(line).partition("=")
        digests = forbidden.get(name)
        public = digests if isinstance(digests, (list, tuple)) else ()
        if value and hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest() in public:
            found.append(name)
    return found


def _connected(wanted: Wanted, console: _console.Console) -> list[Link]:
    """Return the links from the account to the model server."""
    links = [
        Link("setup", _SKIPPED, "an account", "nobody is to log in"),
        Link("provider", _SKIPPED, "models that are registered", "there are none"),
        *(_unasked(model_type) for model_type in ("text-embedding", "rerank")),
    ]
    if not wanted.email:
        return links
    try:
        step = console.setup_step()
        if step != "finished":
            links[0] = Link("setup", _FAILED, "an account", "Dify is not set up", _console.API_CHANGED)
            return links
        console.login(wanted.email, wanted.password())
    except _console.ConsoleError as error:
        links[0] = Link("setup", _FAILED, "an account that can log in", str(error), error.code)
        return links
    links[0] = Link("setup", _OK, "an account that can log in", wanted.email)
    if not wanted.models:
        return links
    links[1] = _provider(wanted, console)
    if links[1].status == _OK:
        links[2:] = [_computed(wanted, console, model_type) for model_type in ("text-embedding", "rerank")]
    return links


def _name(model_type: str) -> str:
    return "embedding" if model_type == "text-embedding" else "rerank"


def _unasked(model_type: str) -> Link:
    return Link(_name(model_type), _SKIPPED, "the model server computes", "no such model is registered")


def _provider(wanted: Wanted, console: _console.Console) -> Link:
    expected = f"{len(wanted.models)} active models of {wanted.provider}"
    try:
        there = _console_models.of_provider(console, wanted.provider)
        other = wanted.registered and wanted.registered != _console_models.digest(wanted.models, wanted.provider, wanted.key())
    except _console.ConsoleError as error:
        return Link("provider", _FAILED, expected, str(error), error.code)
    found = []
    for model in wanted.models:
        status = there.get((model.model, model.type))
        if status not in ("active", "None"):
            found.append(f"{model.model} ({model.type}) is {status or 'not there'}")
    if found:
        return Link("provider", _FAILED, expected, "; ".join(found), _console.REFUSED)
    if other:
        # Dify shows its keys to nobody and tries those that it is sent: without this a new key would look good while Dify has the old one.
        return Link("provider", _FAILED, expected, "they were registered with another API key or other settings", _console.REFUSED)
    return Link("provider", _OK, expected, "all of them")


def _computed(wanted: Wanted, console: _console.Console, model_type: str) -> Link:
    """Dify calls the model server once for each model, as it does when a person saves one."""
    models = [model for model in wanted.models if model.type == model_type]
    if not models:
        return _unasked(model_type)
    expected = f"the model server computes for {', '.join(model.model for model in models)}"
    for model in models:
        try:
            problem = _console_models.validate(console, wanted.provider, model, wanted.key())
        except _console.ConsoleError as error:
            return Link(_name(model_type), _FAILED, expected, str(error), error.code)
        if problem:
            return Link(_name(model_type), _FAILED, expected, f"{model.endpoint_url}: {problem}", _console.REFUSED)
    return Link(_name(model_type), _OK, expected, "Dify's own call of it succeeded")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _service(document: Mapping[str, Any]) -> object:
    return _labels(document).get("com.docker.compose.service")


def _labels(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(_mapping(document.get("Config")).get("Labels"))
