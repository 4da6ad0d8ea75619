# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that hold things together that are said in two places. Each prints `file:line: sentence` for what does not agree."""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tree
import yaml

ROOT = tree.REPOSITORY
CODE = re.compile(r"\bDG\d{3}\b")
# "DG700 to DG799" tells whose numbers these are and names no code.
CODE_RANGE = re.compile(r"\bDG\d{3} to DG\d{3}\b")


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # not a text file
    yield from enumerate(text.splitlines(), 1)


def _files(pattern: str) -> list[str]:
    return [name for name in tree.repository_files() if re.search(pattern, name) and (ROOT / name).is_file()]


def roles() -> Iterator[str]:
    """defaults/main.yml and meta/argument_specs.yml of a role name the same variables, with the same defaults."""
    for role in sorted({Path(name).parts[1] for name in _files(r"^roles/[^/]+/")}):
        specs_path, defaults_path = f"roles/{role}/meta/argument_specs.yml", f"roles/{role}/defaults/main.yml"
        for path in (specs_path, defaults_path, f"roles/{role}/README.md"):
            if not (ROOT / path).is_file():
                yield f"{path}:1: the file is missing"
        if not (ROOT / specs_path).is_file() or not (ROOT / defaults_path).is_file():
            continue
        options: dict[str, dict[str, Any]] = {}
        for entry in _yaml(ROOT / specs_path)["argument_specs"].values():
            options.update(entry.get("options") or {})
        yield from _compare_role(role, options, _yaml(ROOT / defaults_path), specs_path, defaults_path)


def _compare_role(role: str, options: dict[str, Any], defaults: dict[str, Any], specs_path: str, defaults_path: str) -> Iterator[str]:
    for name in sorted(defaults.keys() - options.keys()):
        yield f"{specs_path}:1: {name} is in defaults/main.yml and not described here"
    for name, option in options.items():
        if not name.startswith(f"{role}_"):
            yield f"{specs_path}:1: {name} does not start with the name of the role"
        if name in defaults:
            if option.get("required"):
                yield f"{specs_path}:1: {name} is required and has a default in defaults/main.yml"
            elif "default" in option and option["default"] != defaults[name]:
                yield f"{specs_path}:1: {name} has the default {option['default']!r} here and {defaults[name]!r} in defaults/main.yml"
        elif not option.get("required"):
            yield f"{defaults_path}:1: {name} is optional in meta/argument_specs.yml and has no default here"


def metadata() -> Iterator[str]:
    """Galaxy's metadata agree with the requirements, the modules and the archive."""
    galaxy = _yaml(ROOT / "galaxy.yml")
    required = {entry["name"]: entry["version"] for entry in _yaml(ROOT / "requirements.yml")["collections"]}
    if galaxy["dependencies"] != required:
        yield f"requirements.yml:1: it says {required}, galaxy.yml says {galaxy['dependencies']}"
    group = set(_yaml(ROOT / "meta/runtime.yml")["action_groups"]["gpu"])
    modules = {Path(name).stem for name in _files(r"^plugins/modules/[^_/][^/]*\.py$")}
    for name in sorted(group ^ modules):
        yield f"meta/runtime.yml:1: the action group gpu and plugins/modules do not agree about {name}"
    for name in _files(r"^tests/sanity/ignore-"):
        if (ROOT / name).read_text(encoding="utf-8").strip():
            yield f"{name}:1: ignore files stay empty; mend the cause"
    yield from _archive(galaxy)


def _archive(galaxy: dict[str, Any]) -> Iterator[str]:
    path = ROOT / f".build/dist/difyops-gpu-{galaxy['version']}.tar.gz"
    if not path.is_file():
        yield f"galaxy.yml:1: there is no {path.relative_to(ROOT)}; make setup builds it"
        return
    with tarfile.open(path) as archive:
        names = {member.name for member in archive if member.isfile()}
    wanted = set(_files(r"^(plugins|roles|playbooks|meta|docs)/|^(README\.md|LICENSE|CHANGELOG\.md|requirements\.(txt|yml)|bindep\.txt)$"))
    for name in sorted(wanted - names):
        yield f"galaxy.yml:1: {name} is not in the archive"
    extra = names - wanted - {"MANIFEST.json", "FILES.json", "changelogs/config.yaml", "changelogs/changelog.yaml"}
    for name in sorted(extra):
        yield f"galaxy.yml:1: {name} is in the archive; add it to build_ignore"


def names() -> Iterator[str]:
    """No file names a package registry or a path of the machine it was written on: the project must work with any mirror."""
    hosts = [("pypi", "org"), ("pythonhosted", "org"), ("deb", "debian", "org"), ("registry", "npmjs", "org"), ("archive", "ubuntu", "com")]
    forbidden = {".".join(host): "a package registry" for host in hosts}
    forbidden |= {f"{path}/": "a path of this machine" for path in _machine_paths()}
    pattern = re.compile("|".join(re.escape(text) for text in forbidden))
    for name in tree.repository_files():
        for number, line in _lines(ROOT / name) if (ROOT / name).is_file() else ():
            found = pattern.search(line)
            if found:
                yield f"{name}:{number}: {found[0]} is {forbidden[found[0]]}"


def _machine_paths() -> Iterator[Path]:
    system = {"", "root", "home", "tmp", "opt", "srv", "usr", "var", "src", "builds"}
    for path in (ROOT, ROOT.parent, Path.home()):
        # Plain system folders may be named: the home of root inside a container is one.
        if len(path.parts) > 2 or path.name not in system:
            yield path


def links() -> Iterator[str]:
    """Every relative link in a Markdown file leads to a file, and its anchor to a heading."""
    for name in _files(r"\.md$"):
        fenced = False
        for number, line in _lines(ROOT / name):
            fenced ^= line.lstrip().startswith("```")
            if fenced:
                continue
            for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
                problem = None if re.match(r"[a-z]+:", target) else _broken(ROOT / name, target)
                if problem:
                    yield f"{name}:{number}: {problem}"


def _broken(source: Path, target: str) -> str | None:
    path, _hash, anchor = target.partition("#")
    destination = (source.parent / path).resolve() if path else source
    if not destination.exists():
        return f"the link {target} leads nowhere"
    if anchor and destination.suffix == ".md" and anchor not in _anchors(destination):
        return f"the link {target} leads to no heading"
    return None


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    slugs = {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a (?:id|name)="([^"]+)"', path.read_text(encoding="utf-8")))


def codes() -> Iterator[str]:
    """Every diagnosis code of the product has a heading in docs/diagnosis.md, and every heading a use."""
    page = ROOT / "docs/diagnosis.md"
    if not page.is_file():
        yield "docs/diagnosis.md:1: the file is missing"
        return
    documented = {code: number for number, line in _lines(page) if line.startswith("#") for code in CODE.findall(line)}
    used: dict[str, str] = {}
    for name in _files(r"^(plugins|roles|playbooks)/"):
        for number, line in _lines(ROOT / name):
            for code in CODE.findall(CODE_RANGE.sub("", line)):
                used.setdefault(code, f"{name}:{number}")
    for code in sorted(used.keys() - documented.keys()):
        yield f"{used[code]}: {code} has no heading in docs/diagnosis.md"
    for code in sorted(documented.keys() - used.keys()):
        yield f"docs/diagnosis.md:{documented[code]}: nothing in plugins, roles or playbooks gives {code}"
    yield from _code_parts(page)


# What an entry of docs/diagnosis.md has. The codes of the plan (DG7xx) are seen in the plan itself: nothing is to be confirmed.
CODE_PARTS = ("How it shows", "Confirm by hand", "What to do")


def _code_parts(page: Path) -> Iterator[str]:
    """Every entry has its parts, in their order."""
    for entry in re.finditer(r"(?ms)^#+ (DG\d{3})\b(.*?)(?=^#|\Z)", page.read_text(encoding="utf-8")):
        number = page.read_text(encoding="utf-8")[: entry.start()].count("\n") + 1
        wanted = [part for part in CODE_PARTS if part != "Confirm by hand" or not entry[1].startswith("DG7")]
        found = [part for part in re.findall(r"(?m)^\*\*([^*]+):\*\* \S", entry[2]) if part in wanted]
        if found != wanted:
            yield f"docs/diagnosis.md:{number}: {entry[1]} has not the parts {', '.join(wanted)}, in this order"


CHECKS: dict[str, Callable[[], Iterator[str]]] = {check.__name__: check for check in (roles, metadata, names, links, codes)}


def main() -> int:
    """Run the checks named on the command line."""
    unknown = [name for name in sys.argv[1:] if name not in CHECKS]
    if unknown or not sys.argv[1:]:
        print(f"Give one or more of {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    problems = [problem for name in sys.argv[1:] for problem in CHECKS[name]()]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
