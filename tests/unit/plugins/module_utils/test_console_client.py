# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of Dify's console against a stand-in over HTTP, and against servers that answer anything."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _console, _console_models
from ansible_collections.difyops.gpu.plugins.module_utils._console import Answer, Console, ConsoleError
from ansible_collections.difyops.gpu.tests.unit.plugins.module_utils import console_standin as standin
from hypothesis import given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("data", "plugins", "task", "task_id", "status", "result", "model", "provider", "versions", "unique_identifier", "step", "message")
# Documents that have the fields which are read, with values of any shape in them.
NEARLY = st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["success", "failed", "error", "finished"]), max_size=6)
MODEL = _console_models.Model("m", "text-embedding", "http://dify-gpu:8000/v1")


class Anything(Console):
    """A console whose answers are made up."""

    def __init__(self, *answers):
        super().__init__("http://127.0.0.1", tries=1)
        self.answers = list(answers)

    def ask(self, _method, _path, _body=None, data=None, content_type=""):
        status, document = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Answer(status, document, json.dumps(document), {}, tuple(self.secrets))


USES = {
    "setup": lambda console: console.setup_step(),
    "login": lambda console: console.login("a@example.org", "pass word"),
    "models": lambda console: _console_models.of_provider(console, _console_models.PROVIDER),
    "installed": lambda console: _console_models.installed(console, standin.PLUGIN),
    "install": lambda console: _console_models.install(console, standin.PLUGIN, None, 0.0),
    "package": lambda console: _console_models.install(console, standin.PLUGIN, __file__, 0.0),
    "save": lambda console: _console_models.save(console, _console_models.PROVIDER, MODEL, "key", known=True),
    "validate": lambda console: _console_models.validate(console, _console_models.PROVIDER, MODEL, "key"),
    "default": lambda console: _console_models.default_of(console, "rerank"),
    "defaults": lambda console: _console_models.set_defaults(console, _console_models.PROVIDER, [MODEL]),
}


@pytest.mark.parametrize("use", USES)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([200, 201, 204, 302, 400, 401, 404, 500]), JSON | NEARLY), min_size=1, max_size=4))
def test_answers_of_any_shape_end_in_a_sentence(use, answers):
    _console_models._PAUSE_S, before = 0.0, _console_models._PAUSE_S
    try:
        USES[use](Anything(*answers))
    except ConsoleError as error:
        assert str(error) and "\n" not in str(error) and error.code in ("DG920", "DG921")
    finally:
        _console_models._PAUSE_S = before


class Line:
    """A server that answers each connection with the same bytes; None: it takes the request and says nothing."""

    def __init__(self, answer):
        self.answer, self.connections = answer, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            connection, _address = self.socket.accept()
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        connection.recv(65536)
        if self.answer is None:
            time.sleep(2)
        else:
            connection.sendall(self.answer)
        connection.close()


def visitor(url, **more):
    return Console(url, **{"tries": 3, "pause_s": 0.0, "timeout_s": 0.3, **more})


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"hello there\r\n\r\n", "DG923"),
        (b"", "DG923"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "DG923"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "DG923"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100000, "DG920"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x01", "DG920"),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n", "DG920"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", "DG920"),
    ],
)
def test_what_is_no_answer_of_dify_is_a_sentence(answer, code):
    with pytest.raises(ConsoleError) as caught:
        visitor(Line(answer).url).setup_step()
    assert caught.value.code == code
    assert "/console/api/setup" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "http://[::1", "http://a b/", "http://127.0.0.1:99999999", "http://"])
def test_an_address_that_is_none_is_a_sentence(url):
    with pytest.raises(ConsoleError, match="does not answer"):
        visitor(url).setup_step()


def test_what_may_have_been_done_is_not_sent_twice():
    for answer in (None, b""):
        line = Line(answer)
        with pytest.raises(ConsoleError):
            visitor(line.url).send("POST", "/console/api/setup", {})
        assert line.connections == 1


def test_a_broken_line_is_asked_again_and_a_slow_server_is_not():
    broken, slow = Line(b""), Line(None)
    for line, connections in ((broken, 3), (slow, 1)):
        with pytest.raises(ConsoleError):
            visitor(line.url).get("/console/api/setup")
        assert line.connections == connections


def test_a_server_that_starts_a_moment_later_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConsoleError, match="refused"):
        visitor(f"http://127.0.0.1:{port}").send("POST", "/x", {})

    def late():
        time.sleep(0.3)
        with socket.create_server(("127.0.0.1", port)) as server:
            connection, _address = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    threading.Thread(target=late, daemon=True).start()
    assert visitor(f"http://127.0.0.1:{port}", tries=40, pause_s=0.05).send("POST", "/x", {}) == {}


def test_a_proxy_of_the_environment_has_no_part_in_it(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert visitor(standin.Dify().url, timeout_s=10).setup_step() == "not_started"


def test_the_prefix_of_https_is_understood():
    cookies = b"Set-Cookie: __Host-csrf_token=tok; Path=/; Secure\r\nSet-Cookie: __Host-access_token=acc; Path=/; Secure; HttpOnly\r\n"
    line = Line(b"HTTP/1.1 200 OK\r\n" + cookies + b"Content-Length: 20\r\n\r\n" + b'{"result":"success"}')
    console = visitor(line.url)
    console.login("a@example.org", "pass-w0rd")
    assert console._cookie("csrf_token") == "tok"
    assert console.cookies == {"__Host-csrf_token": "tok", "__Host-access_token": "acc"}


@pytest.fixture
def dify():
    made = standin.Dify()
    console = visitor(made.url, timeout_s=10)
    console.send("POST", "/console/api/init", {"password": standin.GATE})
    console.send("POST", "/console/api/setup", {"email": standin.EMAIL, "name": "admin", "password": standin.PASSWORD})
    return made


def test_a_wrong_password_is_called_so_and_sent_once(dify):
    before = len(dify.asked)
    with pytest.raises(ConsoleError, match="Invalid email or password"):
        visitor(dify.url, timeout_s=10).login(standin.EMAIL, "canary-wr0ng-one")
    assert len(dify.asked) == before + 1


def test_an_older_release_gets_the_password_as_it_is():
    asked = []

    class Older(Console):
        def ask(self, _method, _path, body=None, data=None, content_type=""):
            asked.append(body["password"])
            if asked[-1] != "pass-w0rd":
                return Answer(401, {"message": "Invalid email or password."}, "", {"x-version": "1.9.2"})
            self.cookies.update({"access_token": "a"})
            return Answer(200, {"result": "success"}, "", {})

    Older("http://127.0.0.1").login("a@example.org", "pass-w0rd")
    assert asked == [base64.b64encode(b"pass-w0rd").decode(), "pass-w0rd"]


def test_nobody_comes_in_without_the_header_of_the_csrf_token(dify):
    console = visitor(dify.url, timeout_s=10)
    console.login(standin.EMAIL, standin.PASSWORD)
    assert _console_models.installed(console, standin.PLUGIN) is None
    console.cookies.update({"csrf_token": "another"})
    with pytest.raises(ConsoleError, match="401"):
        _console_models.installed(console, standin.PLUGIN)


SECRET = st.text(st.characters(codec="ascii", min_codepoint=33), min_size=6, max_size=40)


@given(st.text(max_size=60), SECRET, st.text(max_size=60), st.integers(0, 34), st.integers(6, 40))
def test_no_piece_of_a_secret_is_left(before, secret, after, start, size):
    piece = secret[start : start + size]
    shown = _console.without(before + piece + after, [secret])
    if len(piece) >= 6:
        assert piece not in shown.replace("***", "\0")
    assert _console.without("plain words", ["0123456789"]) == "plain words"


@given(st.text(max_size=200), st.lists(st.text(max_size=12), max_size=3))
def test_taking_secrets_out_never_raises(text, secrets):
    assert isinstance(_console.without(text, secrets), str)


@pytest.mark.parametrize("status", [400, 401, 403, 422, 500])
@pytest.mark.parametrize("use", ["login", "save", "validate", "other"])
def test_what_dify_says_back_of_a_request_is_not_repeated(use, status):
    canary = "canary-Secret.of~this=test"
    pydantic = f"1 validation error input_value={{'model': 'm', 'api_key': '{canary[:12]}...{canary[-9:]}'}}, input={canary!r}"

    class Echo(Console):
        def ask(self, _method, _path, body=None, data=None, content_type=""):
            document = {"message": f"{pydantic} {json.dumps(body)}"}
            return Answer(status, document, json.dumps(document), {}, tuple(self.secrets))

    console = Echo("http://127.0.0.1")
    with pytest.raises(ConsoleError) as caught:
        if use == "login":
            console.login("a@example.org", canary)
        elif use == "save":
            _console_models.save(console, _console_models.PROVIDER, MODEL, canary, known=False)
        elif use == "validate":
            raise ConsoleError("DG921", str(_console_models.validate(console, _console_models.PROVIDER, MODEL, canary)))
        else:
            console.hide(canary)
            console.send("POST", "/x", {"password": canary})
    encoded = base64.b64encode(canary.encode()).decode()
    for hidden in (canary, encoded):
        assert not [piece for piece in (hidden[at : at + 6] for at in range(len(hidden) - 5)) if piece in str(caught.value)]
    assert "***" in str(caught.value)


def test_a_registration_is_told_by_key_models_and_settings():
    one = _console_models.digest([MODEL], "p", "key")
    others = (
        _console_models.digest([MODEL], "p", "key2"),
        _console_models.digest([MODEL], "q", "key"),
        _console_models.digest([_console_models.Model("m", "text-embedding", "http://other/v1")], "p", "key"),
        _console_models.digest([_console_models.Model("m", "text-embedding", MODEL.endpoint_url, {"max_chunks": "8"})], "p", "key"),
    )
    assert len({one, *others}) == 5
    second = _console_models.Model("r", "rerank", "http://dify-gpu:8000/v1")
    assert _console_models.digest([MODEL, second], "p", "k") == _console_models.digest([second, MODEL], "p", "k")


def test_all_credentials_are_texts():
    wanted = _console_models.Model("m", "rerank", "http://x/v1", {"context_size": 8192, "flag": True}).wanted("k")
    assert all(isinstance(value, str) for value in wanted.values())
    assert wanted["context_size"] == "8192"
