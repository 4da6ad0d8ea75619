# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in of Dify's console on a port of this machine, and a SIMULATED model server that asks for its key by HTTP."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "simhost/dify-standin/console.py"
PLUGIN = "langgenius/openai_api_compatible"
EMAIL, PASSWORD, GATE = "admin@example.org", "canary-Passw0rd-nobody-sees", "canary-gate-of-the-1st-visit"
KEY, NEW_KEY = "canary-key-one-of-the-server", "canary-2nd-after-the-rotation"
SECRETS = (PASSWORD, GATE, KEY, NEW_KEY)


def load():
    """Return the stand-in as a module of its own, so that no test changes it for another one."""
    spec = importlib.util.spec_from_file_location("console_standin", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.INSTALL_S = 0.0
    return module


def serve(handler):
    """Return a server that runs until the program ends, and its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


class ModelServer:
    """SIMULATED: answers those who have its key; to others it says what they brought, as some servers do."""

    def __init__(self):
        self.key, self.asked = KEY, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                brought = self.headers.get("Authorization", "")
                outer.asked.append(self.path)
                good = brought == f"Bearer {outer.key}"
                data = json.dumps({"data": []} if good else {"error": f"wrong key: {brought}"}).encode()
                self.send_response(200 if good else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_arguments):
                pass

        self.server, self.url = serve(Handler)


def call(url, headers, document):
    """Ask a model server as the plugin daemon does."""
    data = json.dumps(document).encode()
    request = urllib.request.Request(url, data=data, headers={**headers, "Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return None, str(error)


class Dify:
    """The stand-in on a port, with its page at / and everything it was asked."""

    def __init__(self, version="1.17.1", init_password=GATE):
        program = load()
        self.documents, self.asked = program.Memory(), []
        answering = program.handler(documents=self.documents, call_model=call, version=version, init_password=init_password)
        outer = self

        class Handler(answering):
            def do_GET(self):
                outer.asked.append(("GET", self.path))
                if self.path != "/":
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self):
                outer.asked.append(("POST", self.path))
                super().do_POST()

            def do_PUT(self):
                outer.asked.append(("PUT", self.path))
                super().do_PUT()

        self.server, self.url = serve(Handler)

    @property
    def kept(self):
        """Return the keys that Dify has, by type of model."""
        return {one["model_type"]: one["credentials"]["api_key"] for one in self.documents.load("models") or []}
