# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""STAND-IN for the console API of Dify's api: the few paths that this collection uses, with what Dify enforces on them.

The gate of INIT_PASSWORD with one session for gate and setup, one setup, passwords in base64, a login by cookies with a CSRF header,
credentials that are texts only, a call of the model server before they are kept, hidden credentials, plugins that take a moment to install.
Only the standard library.
"""

from __future__ import annotations

import base64
import binascii
import http.cookies
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

API = "/console/api"
WORKSPACE = f"{API}/workspaces/current"
HIDDEN = "[__HIDDEN__]"
# Until then an installation is on its way.
INSTALL_S = 1.0
PATHS = {"text-embedding": ("/embeddings", {"input": ["ping"]}), "rerank": ("/rerank", {"query": "ping", "documents": ["ping", "pong"]})}

CallModel = Callable[[str, dict[str, str], dict[str, Any]], "tuple[int | None, str]"]


class Documents(Protocol):
    """Where the state is kept."""

    def load(self, name: str) -> Any:
        ...

    def save(self, name: str, document: Any) -> None:
        ...


class Memory:
    """State that ends with the program."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    def load(self, name: str) -> Any:
        return json.loads(self._kept[name]) if name in self._kept else None

    def save(self, name: str, document: Any) -> None:
        self._kept[name] = json.dumps(document)


class Refused(Exception):  # noqa: N818  the stand-in's answer
    """An answer that is not 2xx."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Console:
    """What the console knows and does."""

    def __init__(self, documents: Documents, call_model: CallModel, version: str, init_password: str) -> None:
        self.documents, self.call_model, self.version, self.init_password = documents, call_model, version, init_password
        self.lock = threading.Lock()
        self.sessions: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []

    def load(self, name: str, nothing: Any) -> Any:
        found = self.documents.load(name)
        return nothing if found is None else found

    # setup and login

    def gate(self, _query: dict[str, str], _body: Any, session: dict[str, Any]) -> Any:
        done = not self.init_password or session.get("gate") or self.load("account", None)
        return {"status": "finished" if done else "not_started"}

    def pass_gate(self, _query: dict[str, str], body: Any, session: dict[str, Any]) -> Any:
        if self.load("account", None):
            raise Refused(403, "already_setup", "Dify has been successfully installed.")
        if body.get("password") != self.init_password:
            raise Refused(401, "init_validate_failed", "Init password validation failed.")
        session["gate"] = True
        return {"result": "success"}

    def step(self, _query: dict[str, str], _body: Any, _session: dict[str, Any]) -> Any:
        return {"step": "finished" if self.load("account", None) else "not_started", "setup_at": None}

    def setup(self, _query: dict[str, str], body: Any, session: dict[str, Any]) -> Any:
        if self.load("account", None):
            raise Refused(403, "already_setup", "Dify has been successfully installed.")
        if self.init_password and not session.get("gate"):
            raise Refused(401, "not_init_validated", "Init validation has not been completed yet.")
        if not all(isinstance(body.get(name), str) and body[name] for name in ("email", "name", "password")):
            raise Refused(400, "invalid_param", "email, name and password are required.")
        if len(body["password"]) < 8 or body["password"].isalpha() or body["password"].isdigit():
            raise Refused(400, "invalid_param", "Password must contain letters and numbers, and the length must be greater than 8.")
        self.documents.save("account", {"email": body["email"], "password": body["password"]})
        return {"result": "success"}

    def login(self, _query: dict[str, str], body: Any, session: dict[str, Any]) -> Any:
        account = self.load("account", None)
        if not account:
            raise Refused(403, "not_setup", "Dify has not been initialized and installed yet.")
        try:
            password = base64.b64decode(str(body.get("password")), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise Refused(401, "authentication_failed", "Invalid encrypted data") from None
        if (body.get("email"), password) != (account["email"], account["password"]):
            raise Refused(401, "authentication_failed", "Invalid email or password.")
        session.update(access=secrets.token_hex(8), csrf=secrets.token_hex(8))
        return {"result": "success"}

    # plugins and models

    def plugins(self, _query: dict[str, str], _body: Any, _session: dict[str, Any]) -> Any:
        found = [{"plugin_id": name, "plugin_unique_identifier": one["identifier"]} for name, one in self._installed().items()]
        return {"plugins": found, "total": len(found)}

    def _installed(self) -> dict[str, Any]:
        return {name: one for name, one in self.load("plugins", {}).items() if one["at"] + INSTALL_S <= time.time()}

    def upload(self, _query: dict[str, str], body: Any, _session: dict[str, Any]) -> Any:
        if not isinstance(body, bytes) or b'name="pkg"' not in body:
            raise Refused(400, "invalid_param", "no package of a plugin")
        return {"unique_identifier": "langgenius/openai_api_compatible:0.0.27@standin", "manifest": {}}

    def versions(self, _query: dict[str, str], _body: Any, _session: dict[str, Any]) -> Any:
        raise Refused(400, "invalid_param", "Failed to reach the marketplace")

    def install(self, _query: dict[str, str], body: Any, _session: dict[str, Any]) -> Any:
        identifiers = body.get("plugin_unique_identifiers") or []
        if not identifiers:
            raise Refused(400, "invalid_param", "plugin_unique_identifiers is required")
        plugins = self.load("plugins", {})
        for identifier in identifiers:
            plugins.setdefault(identifier.partition(":")[0], {"identifier": identifier, "at": time.time()})
        self.documents.save("plugins", plugins)
        return {"all_installed": False, "task_id": "task-1"}

    def task(self, _query: dict[str, str], _body: Any, _session: dict[str, Any]) -> Any:
        done = len(self._installed()) == len(self.load("plugins", {}))
        return {"task": {"id": "task-1", "status": "success" if done else "running", "plugins": []}}

    def _known(self, provider: str) -> None:
        if provider.rpartition("/")[0] not in self._installed():
            raise Refused(400, "invalid_param", f"provider {provider} does not exist.")

    def models(self, provider: str) -> Any:
        self._known(provider)
        data = [{"model": one["model"], "model_type": one["model_type"], "status": "active"} for one in self.load("models", [])]
        return {"data": data}

    def credentials(self, query: dict[str, str]) -> Any:
        one = self._model(query.get("model", ""), query.get("model_type", ""))
        if one is None:
            return {"credentials": {}, "current_credential_id": None, "available_credentials": []}
        shown = {name: HIDDEN if name == "api_key" else value for name, value in one["credentials"].items()}
        return {"credentials": shown, "current_credential_id": one["id"], "available_credentials": [{"credential_id": one["id"]}]}

    def _model(self, model: str, model_type: str) -> Any:
        return next((one for one in self.load("models", []) if (one["model"], one["model_type"]) == (model, model_type)), None)

    def keep(self, provider: str, body: Any, update: bool) -> Any:
        self._known(provider)
        former = self._model(body.get("model", ""), body.get("model_type", ""))
        if update and (former is None or body.get("credential_id") != former["id"]):
            raise Refused(404, "not_found", "Credential record not found.")
        if update and body.get("credential_id") is None:
            raise Refused(400, "invalid_param", "1 validation error for ParserUpdateCredential: credential_id Field required")
        name = body.get("name")
        if name is not None and (not isinstance(name, str) or len(name) > 30):
            raise Refused(400, "invalid_param", f"1 validation error: name [input_value={body!r}]")
        taken = f"{body.get('model')} {body.get('model_type')} {name}"
        if not update and name and taken in self.load("names", []):
            raise Refused(400, "invalid_param", f"Model credential with name '{name}' already exists for {body.get('model')}.")
        credentials = self._checked(body, former)
        self.documents.save("names", [*self.load("names", []), *([taken] if name else [])])
        one = {"id": former["id"] if former else secrets.token_hex(8), "model": body["model"], "model_type": body["model_type"]}
        one["credentials"] = credentials
        others = [each for each in self.load("models", []) if (each["model"], each["model_type"]) != (one["model"], one["model_type"])]
        self.documents.save("models", [*others, one])
        return {"result": "success"}

    def validate(self, provider: str, body: Any) -> Any:
        self._known(provider)
        try:
            self._checked(body, self._model(body.get("model", ""), body.get("model_type", "")))
        except Refused as problem:
            return {"result": "error", "error": str(problem)}
        return {"result": "success"}

    def _checked(self, body: Any, former: Any) -> dict[str, str]:
        """Return the credentials, for which the model server answers."""
        credentials = body.get("credentials")
        if not isinstance(credentials, dict) or not all(isinstance(value, str) for value in credentials.values()):
            raise Refused(400, "invalid_param", "All credential values should be strings")
        if body.get("model_type") not in PATHS:
            raise Refused(400, "invalid_param", "model_type is not known")
        kept = former["credentials"] if former else {}
        credentials = {name: kept.get(name, value) if value == HIDDEN else value for name, value in credentials.items()}
        path, document = PATHS[body["model_type"]]
        self.calls.append(path)
        headers = {"Authorization": f"Bearer {credentials.get('api_key', '')}"}
        url = credentials.get("endpoint_url", "").rstrip("/") + path
        status, text = self.call_model(url, headers, {"model": body["model"], **document})
        if status != 200:
            raise Refused(400, "invalid_param", f"Credentials validation failed: {status}: {text[:300]}")
        return credentials

    def default(self, query: dict[str, str], _body: Any, _session: dict[str, Any]) -> Any:
        found = self.load("defaults", {}).get(query.get("model_type", ""))
        return {"data": {"model": found["model"], "provider": {"provider": found["provider"]}} if found else None}

    def set_default(self, _query: dict[str, str], body: Any, _session: dict[str, Any]) -> Any:
        defaults = self.load("defaults", {})
        for one in body.get("model_settings") or []:
            if self._model(one.get("model", ""), one.get("model_type", "")) is None:
                raise Refused(400, "invalid_param", f"Model {one.get('model')} is not there")
            defaults[one["model_type"]] = {"model": one["model"], "provider": one["provider"]}
        self.documents.save("defaults", defaults)
        return {"result": "success"}


OPEN = {
    ("GET", f"{API}/init"): Console.gate, ("POST", f"{API}/init"): Console.pass_gate, ("GET", f"{API}/setup"): Console.step,
    ("POST", f"{API}/setup"): Console.setup, ("POST", f"{API}/login"): Console.login,
}
KNOWN_ONLY = {
    ("GET", f"{WORKSPACE}/plugin/list"): Console.plugins, ("POST", f"{WORKSPACE}/plugin/upload/pkg"): Console.upload,
    ("POST", f"{WORKSPACE}/plugin/list/latest-versions"): Console.versions, ("POST", f"{WORKSPACE}/plugin/install/pkg"): Console.install,
    ("POST", f"{WORKSPACE}/plugin/install/marketplace"): Console.install, ("GET", f"{WORKSPACE}/plugin/tasks/task-1"): Console.task,
    ("GET", f"{WORKSPACE}/default-model"): Console.default, ("POST", f"{WORKSPACE}/default-model"): Console.set_default,
}


def answer(console: Console, method: str, path: str, body: Any, session: dict[str, Any]) -> Any:
    """Return the document for a request. Raises Refused."""
    parts = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if (method, parts.path) in OPEN:
        return OPEN[method, parts.path](console, query, body, session)
    if not session.get("logged_in"):
        raise Refused(401, "unauthorized", "Unauthorized.")
    if (method, parts.path) in KNOWN_ONLY:
        return KNOWN_ONLY[method, parts.path](console, query, body, session)
    return _of_provider(console, method, unquote(parts.path), query, body)


def _of_provider(console: Console, method: str, path: str, query: dict[str, str], body: Any) -> Any:
    provider, _models, rest = path.removeprefix(f"{WORKSPACE}/model-providers/").partition("/models")
    if not path.startswith(f"{WORKSPACE}/model-providers/") or not _models:
        raise Refused(404, "not_found", "The stand-in does not have this.")
    if (method, rest) == ("GET", ""):
        return console.models(provider)
    if (method, rest) == ("GET", "/credentials"):
        return console.credentials(query)
    if (method, rest) in (("POST", "/credentials"), ("PUT", "/credentials")):
        return console.keep(provider, body, method == "PUT")
    if (method, rest) == ("POST", "/credentials/validate"):
        return console.validate(provider, body)
    raise Refused(404, "not_found", "The stand-in does not have this.")


def handler(*, documents: Documents, call_model: CallModel, version: str, init_password: str) -> type[BaseHTTPRequestHandler]:  # noqa: C901  one class
    """Return the class that answers requests."""
    console = Console(documents, call_model, version, init_password)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _cookies(self) -> dict[str, str]:
            return {name: one.value for name, one in http.cookies.SimpleCookie(self.headers.get("Cookie", "")).items()}

        def _session(self, cookies: dict[str, str]) -> tuple[str, dict[str, Any]]:
            name = cookies.get("session") or secrets.token_hex(8)
            session = console.sessions.setdefault(name, {})
            tokens = (cookies.get("access_token"), cookies.get("csrf_token"), self.headers.get("X-CSRF-Token"))
            known = session.get("access")
            session["logged_in"] = bool(known) and tokens == (known, session["csrf"], session["csrf"])
            return name, session

        def _body(self) -> Any:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Type", "").startswith("multipart/"):
                return data
            document = json.loads(data or b"{}")
            if not isinstance(document, dict):
                raise Refused(400, "invalid_param", "an object is expected")
            return document

        def _answer(self) -> None:
            with console.lock:
                name, session = self._session(self._cookies())
                try:
                    made = self.command == "POST" and (self.path == f"{API}/setup" or self.path.endswith("/models/credentials"))
                    status, document = 201 if made else 200, answer(console, self.command, self.path, self._body(), session)
                except ValueError:
                    status, document = 400, {"code": "bad_request", "message": "no JSON", "status": 400}
                except Refused as problem:
                    status, document = problem.status, {"code": problem.code, "message": str(problem), "status": problem.status}
                cookies = {"session": name}
                if self.path == f"{API}/login" and status == 200:
                    cookies.update(access_token=session["access"], refresh_token=secrets.token_hex(8), csrf_token=session["csrf"])
            data = json.dumps(document).encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Version", console.version)
            for key, value in cookies.items():
                self.send_header("Set-Cookie", f"{key}={value}; Path=/; HttpOnly; SameSite=Lax")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  name of http.server
            """Say nothing."""

    return Handler
