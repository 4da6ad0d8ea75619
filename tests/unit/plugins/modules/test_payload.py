# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import amalgamate
import pytest

ROOT = Path(__file__).parents[4]
LIMIT = 40_960


# A process of its own, since ansible-core finds collections in its own way, once per process.
MEASURE = """
import inspect, json, sys
from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_loader
from ansible.template import Templar

init_plugin_loader([sys.argv[1]])
sizes = []
for name in sys.argv[2:]:
    context = module_loader.find_plugin_with_context(name)
    arguments = {
        "module_name": context.resolved_fqcn,
        "module_path": context.plugin_resolved_path,
        "module_args": {},
        "templar": Templar(DataLoader()),
        "task_vars": {"ansible_python_interpreter": "/usr/bin/python3"},
        "module_compression": "ZIP_DEFLATED",
    }
    parameters = inspect.signature(module_common.modify_module).parameters.values()
    unknown = [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD and one.name not in arguments]
    if unknown:
        sys.exit(f"unknown arguments: {unknown}")
    built = module_common.modify_module(**arguments)
    sizes.append(len(built.b_module_data if hasattr(built, "b_module_data") else built[0]))
print(json.dumps(sizes))
"""


def test_what_travels_to_a_host_is_small():
    command = [sys.executable, "-c", MEASURE, str(ROOT.parents[2]), "ansible.builtin.ping", "difyops.gpu.nvidia_facts"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""})
    if "unknown arguments" in done.stderr:
        pytest.skip(f"this ansible-core builds modules from more than is known here: {done.stderr}")
    ping, facts = json.loads(done.stdout)
    assert ping > 50_000  # the measure itself: a whole module with what it imports
    assert 10_000 < facts - ping <= LIMIT


def test_what_travels_is_made_of_the_parts_as_they_are_now():
    written = ast.parse(amalgamate.TARGET.read_text(encoding="utf-8"))
    made = ast.parse(amalgamate.HEADER + ast.unparse(amalgamate.amalgam()))
    assert ast.dump(written) == ast.dump(made), "run: python tests/tools/amalgamate.py"


def test_what_travels_has_every_part():
    assert list(amalgamate.parts())[-1] == "_nvidia"
    whole = importlib.import_module(f"{amalgamate.PACKAGE}._nvidia_facts")
    for name in amalgamate.parts():
        part = importlib.import_module(f"{amalgamate.PACKAGE}.{name}")
        own = [key for key, value in vars(part).items() if getattr(value, "__module__", None) == part.__name__]
        assert own, name
        assert all(hasattr(whole, f"{name.strip('_')}_{key}") for key in own)


def renamed(source, monkeypatch, tmp_path):
    (tmp_path / "_other.py").write_text("LIMIT = 1\ndef error(text):\n    return f'other {text}'\n")
    (tmp_path / "_nvidia.py").write_text(
        f"from {amalgamate.PACKAGE} import _other\nfrom {amalgamate.PACKAGE}._other import LIMIT\n{source}"
    )
    monkeypatch.setattr(amalgamate, "FOLDER", tmp_path)
    names = {}
    exec(compile(amalgamate.amalgam(), "amalgam", "exec"), names)  # noqa: S102  what is tested is what this makes
    return names


SOURCES = {
    "a name of another part": ("def run():\n    return _other.error(LIMIT)\n", "other 1"),
    "a local name that hides one": ("def error():\n    return 1\ndef run():\n    error = 2\n    return error\n", 2),
    "a caught error that hides one": (
        "def error():\n    return 1\ndef run():\n    try:\n        1 / 0\n    except ZeroDivisionError as error:\n"
        "        return _other.error(type(error).__name__)\n",
        "other ZeroDivisionError",
    ),
    "an argument that hides one": ("def text():\n    return 1\ndef run(text=LIMIT):\n    return text\n", 1),
    "a loop within an expression": ("X = [1]\ndef run():\n    return [X for X in (LIMIT, 2)] + [x for x in X]\n", [1, 2, 1]),
    "a field that is called like a function": (
        "from dataclasses import dataclass\ndef size():\n    return 3\n@dataclass\nclass Box:\n    size: int = LIMIT\n"
        "    def twice(self):\n        return self.size + size()\ndef run():\n    return Box().twice()\n",
        4,
    ),
    "a function within a function": ("def run():\n    def error():\n        return LIMIT\n    return error()\n", 1),
    "a function without a name": ("def run():\n    return (lambda LIMIT, y=LIMIT: (LIMIT, y))(5)\n", (5, 1)),
    "a text of many lines": (f"TEXT = 'x{'yz' * 200}'\ndef run():\n    return len(f'{{TEXT}}')\n", 401),
}


@pytest.mark.parametrize("case", SOURCES)
def test_names_keep_their_meaning(case, monkeypatch, tmp_path):
    source, result = SOURCES[case]
    assert renamed(source, monkeypatch, tmp_path)["nvidia_run"]() == result


def test_nothing_is_too_long_for_a_line():
    assert max(map(len, amalgamate.TARGET.read_text(encoding="utf-8").splitlines())) <= 160
