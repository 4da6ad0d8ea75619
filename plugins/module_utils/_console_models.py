# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of a provider in Dify: the plugin that knows it, the models with their credentials, and those that Dify uses when none is named.

Paths and fields were read in upstream's api/controllers/console/workspace (models, plugin) and core/entities/provider_configuration:
credentials are `{model, model_type, credentials, name?, credential_id?}` (POST 201, PUT 200); `validate` takes no `credential_id`, so it
tries what it is sent and not what is kept; a name stands once for a model, also of credentials whose model was taken out of the list,
so none is sent and Dify makes one; a POST for a model that is listed keeps credentials without using them.

This is private to difyops.gpu.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ansible_collections.difyops.gpu.plugins.module_utils._console import (
    REFUSED,
    Answer,
    Console,
    ConsoleError,
    multipart,
    other_than,
)

WORKSPACE = "/console/api/workspaces/current"
PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
# What the plugin asks for beside address and key, where the operator names nothing: texts, as all of them.
CREDENTIALS = {
    "text-embedding": {"context_size": "512", "max_chunks": "32"},
    "rerank": {"context_size": "512"},
}
INSTALL_S = 600
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Model:
    """One model of a model server. `type` is Dify's word: text-embedding or rerank."""

    model: str
    type: str
    endpoint_url: str
    credentials: Mapping[str, str] = field(default_factory=dict)

    def wanted(self, key: str) -> dict[str, str]:
        """Return all credentials, every one a text."""
        own = {str(name): str(value) for name, value in self.credentials.items()}
        return {**CREDENTIALS.get(self.type, {}), "endpoint_url": self.endpoint_url, "api_key": key, **own}


def digest(models: Sequence[Model], provider: str, key: str) -> str:
    """Return what tells a registration from another one: by the key too, which Dify shows nobody."""
    document = {"provider": provider, "models": sorted(([one.model, one.type, one.wanted(key)] for one in models), key=str)}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8")).hexdigest()


def of_provider(console: Console, provider: str) -> dict[tuple[str, str], str]:
    """Return the status of the models of a provider by name and type; empty where Dify does not know the provider."""
    path = f"{WORKSPACE}/model-providers/{provider}/models"
    answer = console.ask("GET", path)
    if answer.status in (400, 404) and "daemon" not in answer.reason:
        return {}
    listed = console.done("GET", path, answer, "the models of a provider").get("data")
    if not isinstance(listed, list):
        raise console.other("GET", path, answer, "data with a list of models")
    found = {}
    for one in listed:
        if isinstance(one, dict) and isinstance(one.get("model"), str):
            found[one["model"], str(one.get("model_type"))] = str(one.get("status"))
    return found


def plugin_of(provider: str) -> str:
    """Return the plugin of a provider: langgenius/openai_api_compatible of langgenius/openai_api_compatible/openai_api_compatible."""
    return provider.rpartition("/")[0]


def installed(console: Console, plugin: str) -> str | None:
    """Return the unique identifier of an installed plugin, None where it is not."""
    path = f"{WORKSPACE}/plugin/list?page=1&page_size=256"
    listed = console.get(path, "the installed plugins").get("plugins")
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and one.get("plugin_id") == plugin:
            return str(one.get("plugin_unique_identifier"))
    return None


def install(console: Console, plugin: str, package: str | None, deadline_s: float = INSTALL_S) -> str:
    """Install a plugin from a package on this host, or the newest of the marketplace. Returns its unique identifier.

    Raises:
        ConsoleError: the package cannot be read, or the plugin cannot be installed.
    """
    if package:
        identifier, path = _uploaded(console, package), f"{WORKSPACE}/plugin/install/pkg"
    else:
        identifier, path = _newest(console, plugin), f"{WORKSPACE}/plugin/install/marketplace"
    told = console.send("POST", path, {"plugin_unique_identifiers": [identifier]}, "the task of an installation")
    if not told.get("all_installed"):
        _wait(console, str(told.get("task_id")), plugin, deadline_s)
    return identifier


def _uploaded(console: Console, package: str) -> str:
    try:
        with open(package, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ConsoleError(REFUSED, f"The package of the plugin cannot be read: {error.strerror}: {package}.") from error
    path = f"{WORKSPACE}/plugin/upload/pkg"
    data, content_type = multipart("pkg", os.path.basename(package), content)
    told = console.done("POST", path, console.ask("POST", path, data=data, content_type=content_type), "the identifier of the package")
    return _identifier(path, told.get("unique_identifier"))


def _newest(console: Console, plugin: str) -> str:
    path = f"{WORKSPACE}/plugin/list/latest-versions"
    answer = console.ask("POST", path, {"plugin_ids": [plugin]})
    versions = answer.document.get("versions") if answer.good and isinstance(answer.document, dict) else None
    one = versions.get(plugin) if isinstance(versions, dict) else None
    if not isinstance(one, dict):
        message = f"The plugin {plugin} cannot be had from the marketplace ({answer.reason or answer.status})."
        raise ConsoleError(REFUSED, f"{message} Set dify_plugin_package to its package, and run the same playbook again.")
    return _identifier(path, one.get("unique_identifier"))


def _identifier(path: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise other_than("POST", path, "unique_identifier", "none")
    return value


def _wait(console: Console, task: str, plugin: str, deadline_s: float) -> None:
    until = time.monotonic() + deadline_s
    while True:
        path = f"{WORKSPACE}/plugin/tasks/{_quoted(task)}"
        answer = console.ask("GET", path)
        told = console.done("GET", path, answer, "a task").get("task")
        status = told.get("status") if isinstance(told, dict) else None
        if status == "success":
            return
        if status == "failed" and isinstance(told, dict):
            parts = told.get("plugins")
            words = [str(one.get("message", "")) for one in parts if isinstance(one, dict)] if isinstance(parts, list) else []
            why = answer.quoted(" ".join(words)) or "Dify does not say why"
            raise ConsoleError(REFUSED, f"The plugin {plugin} cannot be installed: {why}.")
        if time.monotonic() > until:
            raise ConsoleError(REFUSED, f"The plugin {plugin} was not installed within {deadline_s:g} s; Dify says {status}.")
        time.sleep(_PAUSE_S)


def save(console: Console, provider: str, model: Model, key: str, known: bool) -> None:
    """Add a model or give it other credentials. Dify calls the model server before it keeps them.

    Raises:
        ConsoleError: refused, with the words of Dify or of the model server.
    """
    path = f"{WORKSPACE}/model-providers/{provider}/models/credentials"
    console.hide(key)
    body: dict[str, Any] = {"model": model.model, "model_type": model.type, "credentials": model.wanted(key)}
    method = "POST"
    if known:
        told = console.ask("GET", f"{path}?model={_quoted(model.model)}&model_type={model.type}")
        document = told.document if isinstance(told.document, dict) else {}
        identifier = document.get("current_credential_id")
        if identifier:
            method, body = "PUT", {**body, "credential_id": identifier}
    _accepted(console, method, path, console.ask(method, path, body), model)


def validate(console: Console, provider: str, model: Model, key: str) -> str | None:
    """Have Dify call the model server once. Returns why that does not work, None where it does."""
    path = f"{WORKSPACE}/model-providers/{provider}/models/credentials/validate"
    console.hide(key)
    answer = console.ask("POST", path, {"model": model.model, "model_type": model.type, "credentials": model.wanted(key)})
    told = answer.document if isinstance(answer.document, dict) else {}
    if answer.good and told.get("result") == "success":
        return None
    if answer.good and told.get("result") != "error":
        raise console.other("POST", path, answer, "result success or error")
    return answer.reason or str(answer.status)


def _accepted(console: Console, method: str, path: str, answer: Answer, model: Model) -> None:
    if answer.status in (400, 403, 422, 500):
        sentence = f"Dify refuses the model {model.model} ({model.type}) of {model.endpoint_url}: {answer.reason.rstrip('.')}."
        raise ConsoleError(REFUSED, f"{sentence} See that the model server answers there with this key, and run the same playbook again.")
    console.done(method, path, answer, "that the credentials were kept")


def default_of(console: Console, model_type: str) -> tuple[str, str] | None:
    """Return provider and name of the model that Dify uses where none is named, None where there is none."""
    data = console.get(f"{WORKSPACE}/default-model?model_type={model_type}", "the default model").get("data")
    if not isinstance(data, dict) or not data.get("model"):
        return None
    provider = data.get("provider")
    return str(provider.get("provider") if isinstance(provider, dict) else provider), str(data["model"])


def set_defaults(console: Console, provider: str, models: Sequence[Model]) -> None:
    """Make models those that Dify uses where none is named."""
    settings = [{"model_type": one.type, "provider": provider, "model": one.model} for one in models]
    console.send("POST", f"{WORKSPACE}/default-model", {"model_settings": settings}, "that they were kept")


def _quoted(text: str) -> str:
    return quote(text, safe="")
