# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write plugins/module_utils/_nvidia_facts.py: what nvidia_facts consists of, as one file without comments.

The module travels to every host of a fleet, and its parts are read by people. So the parts stay as they are, and what travels
is made from them: in one file the words that all parts share are compressed once, and docstrings stay at home. In it a name of
a part carries the name of the part: ``_engine.ask`` is ``engine_ask``.

    python tests/tools/amalgamate.py            # write it, after a part has changed (a unit test tells)
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "plugins" / "module_utils"
TARGET = FOLDER / "_nvidia_facts.py"
ENTRY = "_nvidia"
PACKAGE = "ansible_collections.difyops.gpu.plugins.module_utils"
LONGEST_TEXT = 100
HEADER = '''\
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Made by tests/tools/amalgamate.py from _nvidia.py and all that it imports. Do not edit."""
# pylint: disable=ansible-bad-function
# ruff: noqa

'''

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def parts(name: str = ENTRY, found: dict[str, ast.Module] | None = None) -> dict[str, ast.Module]:
    """Return the part of that name and all that it imports, each after those it imports itself."""
    found = {} if found is None else found
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    for imported in _imports(tree):
        for alias in imported.names:
            below = alias.name if imported.module == PACKAGE else str(imported.module).rpartition(".")[2]
            if below not in found:
                parts(below, found)
    found[name] = tree
    return found


def _imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    return (node for node in tree.body if isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE))


def _targets(node: ast.AST) -> set[str]:
    """Return the names that a statement or an expression binds in its own scope."""
    bound: set[str] = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(child.name)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            bound.add(child.id)
        elif not isinstance(child, (ast.Lambda, *_COMPREHENSIONS)):
            if isinstance(child, ast.ExceptHandler) and child.name:
                bound.add(child.name)
            bound |= _targets(child)
    return bound


class _Rename(ast.NodeTransformer):
    """Gives the top-level names of one part, and those that it takes from others, the names of the one file."""

    def __init__(self, part: str, tree: ast.Module) -> None:
        self._names = {name: f"{part.strip('_')}_{name}" for name in _targets(tree)}
        self._modules: set[str] = set()
        self._local: list[set[str]] = []
        for imported in _imports(tree):
            for alias in imported.names:
                assert alias.asname is None, f"{part}: {alias.name} is imported under another name"
                if imported.module == PACKAGE:
                    self._modules.add(alias.name)
                else:
                    self._names[alias.name] = f"{str(imported.module).rpartition('.')[2].strip('_')}_{alias.name}"

    def _is_local(self, name: str) -> bool:
        return any(name in names for names in self._local)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._names and not self._is_local(node.id):
            node.id = self._names[node.id]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        # Lines have an end, also where the part has written a long text in several pieces.
        if isinstance(node.value, str) and len(node.value) > LONGEST_TEXT:
            pieces = [node.value[start : start + LONGEST_TEXT] for start in range(0, len(node.value), LONGEST_TEXT)]
            return functools.reduce(lambda left, right: ast.BinOp(left, ast.Add(), right), map(ast.Constant, pieces))
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        node.values = [self.visit(value) if isinstance(value, ast.FormattedValue) else value for value in node.values]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        value = node.value
        if isinstance(value, ast.Name) and value.id in self._modules and not self._is_local(value.id):
            return ast.Name(f"{value.id.strip('_')}_{node.attr}", node.ctx)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list]
        if not self._local:
            node.name = self._names[node.name]
        return self._scope(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return self._scope(node)

    def _scope(self, node: ast.FunctionDef | ast.Lambda) -> ast.AST:
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *(one for one in (given.vararg, given.kwarg) if one)]
        for argument in every:
            if argument.annotation:
                argument.annotation = self.visit(argument.annotation)
        given.defaults = [self.visit(default) for default in given.defaults]
        given.kw_defaults = [default and self.visit(default) for default in given.kw_defaults]
        if isinstance(node, ast.FunctionDef):
            node.returns = node.returns and self.visit(node.returns)
        self._local.append({argument.arg for argument in every} | _targets(node))
        if isinstance(node, ast.FunctionDef):
            node.body = [self.visit(statement) for statement in node.body]
        else:
            node.body = self.visit(node.body)
        self._local.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        assert not self._local, f"{node.name} is a class within a function"
        node.name = self._names[node.name]
        # Fields and methods keep their names, and are no names to the code within the methods.
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                statement.decorator_list = [self.visit(decorator) for decorator in statement.decorator_list]
                self._scope(statement)
            elif isinstance(statement, ast.AnnAssign):
                statement.annotation = self.visit(statement.annotation)
                statement.value = statement.value and self.visit(statement.value)
            else:
                assert isinstance(statement, (ast.Expr, ast.Pass)), f"{node.name}: no way is known to rename {ast.unparse(statement)}"
        node.bases = [self.visit(base) for base in node.bases]
        node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list]
        return node

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> ast.AST:
        self._local.append({name for generator in node.generators for name in _targets(generator)})
        self.generic_visit(node)
        self._local.pop()
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def _without_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def amalgam() -> ast.Module:
    """Return the one file as a tree."""
    plain: set[str] = set()
    chosen: dict[str, set[str]] = {}
    body: list[ast.stmt] = []
    for name, tree in parts().items():
        rename = _Rename(name, tree)
        _without_docstrings(tree)
        for statement in tree.body:
            if isinstance(statement, ast.Import):
                plain.update(alias.name for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom):
                if statement.module != "__future__" and not str(statement.module).startswith(PACKAGE):
                    chosen.setdefault(str(statement.module), set()).update(alias.name for alias in statement.names)
            else:
                body.append(rename.visit(statement))
    imports: list[ast.stmt] = [ast.ImportFrom("__future__", [ast.alias("annotations")], 0)]
    imports += [ast.Import([ast.alias(name)]) for name in sorted(plain)]
    imports += [ast.ImportFrom(module, [ast.alias(name) for name in sorted(names)], 0) for module, names in sorted(chosen.items())]
    return ast.fix_missing_locations(ast.Module([*imports, *body], []))


def text() -> str:
    """Return the one file, formatted."""
    formatter = [str(Path(sys.executable).parent / "ruff"), "format", "--quiet", "--line-length=140", "--stdin-filename", TARGET.name, "-"]
    return subprocess.run(formatter, input=HEADER + ast.unparse(amalgam()), text=True, capture_output=True, check=True).stdout


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"{TARGET} has {TARGET.stat().st_size} bytes.")
