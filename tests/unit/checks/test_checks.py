# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks themselves: each must see what it is there for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import consistency
import count_modules
import install_collections
import pytest
import run_all
import sanity
import tree

PYTHONS = {"3.9": Path("/usr/bin/python3.9"), "3.13": Path("/usr/bin/python3.13")}


def judge(*lines: str, status: int = 0) -> sanity.Result:
    return sanity.judge("2.19", "\n".join(lines), status, PYTHONS, 1.0)


def test_sanity_without_findings_is_counted() -> None:
    result = judge('Running sanity test "compile" on Python 3.9', 'Running sanity test "pylint"')
    assert (result.tests, result.failed, result.problems) == (2, 0, [])


@pytest.mark.parametrize(
    "warning",
    [
        'WARNING: Skipping sanity test "import" on Python 3.10 because it could not be found.',
        'WARNING: Skipping sanity test "pylint" on Python 3.13 due to missing virtual environment support.',
        "WARNING: Skipping validate-modules collection version checks since no collection version was found.",
        'WARNING: Required program "shellcheck" not found.',
    ],
)
def test_a_sanity_test_that_was_left_out_is_a_failure(warning: str) -> None:
    result = judge('Running sanity test "compile" on Python 3.9', warning)
    assert result.failed == 1
    assert result.problems[0].startswith("left out: ")


def test_a_python_that_is_not_packaged_everywhere_is_named_instead() -> None:
    result = judge('Running sanity test "shebang"', 'WARNING: Skipping sanity test "import" on Python 3.14 because it could not be found.')
    assert (result.failed, result.not_checked) == (0, ["3.14"])


def test_it_is_a_failure_where_that_python_is_installed() -> None:
    line = 'WARNING: Skipping sanity test "import" on Python 3.14 because it could not be found.'
    result = sanity.judge("2.20", f'Running sanity test "shebang"\n{line}', 0, {**PYTHONS, "3.14": Path("/usr/bin/python3.14")}, 1.0)
    assert result.failed == 1


def test_sanity_findings_are_counted_by_test_and_shown() -> None:
    result = judge(
        'Running sanity test "pep8"',
        'Running sanity test "pylint"',
        "ERROR: Found 2 pep8 issue(s) which need to be resolved:",
        "ERROR: plugins/x.py:1:1: E501: line too long",
        "ERROR: plugins/x.py:2:1: E501: line too long",
        "FATAL: The 1 sanity test(s) listed below (out of 2) failed. See error output above for details.",
        "pep8",
        status=1,
    )
    assert result.failed == 1
    assert "ERROR: plugins/x.py:2:1: E501: line too long" in result.problems


@pytest.mark.parametrize(("lines", "status"), [((), 0), (("WARNING: All targets skipped.",), 0), (("Traceback", "KeyError: 1"), 1)])
def test_sanity_that_ran_nothing_is_a_failure(lines: tuple[str, ...], status: int) -> None:
    assert judge(*lines, status=status).failed >= 1


def test_a_core_without_a_python_for_it_fails_with_a_sentence() -> None:
    with pytest.raises(sanity.SanityError, match=r"ansible-core 2\.16 needs Python 3\.10 or 3\.11 or 3\.12; this machine has 3\.9, 3\.13"):
        sanity.prepare("2.16", sanity.CORES["2.16"], PYTHONS)


def test_only_the_listed_requirement_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "venv/lib/python3.13/site-packages/ansible_test/_data/requirements"
    folder.mkdir(parents=True)
    path = folder / "sanity.pylint.txt"
    path.write_text("astroid==4.0.4\ndill @ https://example.org/dill.zip#sha256=0\npylint==4.0.8\n")
    sanity._replace_requirements(tmp_path, sanity.CORES["2.22"])
    assert path.read_text() == "astroid==4.0.4\ndill==0.4.1\npylint==4.0.8\n"


def test_there_is_an_empty_ignore_file_for_every_core() -> None:
    assert {path.stem for path in (tree.REPOSITORY / "tests/sanity").glob("ignore-*.txt")} == {f"ignore-{core}" for core in sanity.CORES}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository in place of this one."""
    root = tmp_path / "clone"
    (root / "docs").mkdir(parents=True)
    (root / ".gitignore").write_text("/ignored\n")
    (root / "ignored").write_text("x")
    (root / "README.md").write_text("# One page\n\nsee [that](docs/page.md#an-entry)\n")
    (root / "docs/page.md").write_text("## An entry\n")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    monkeypatch.setattr(tree, "REPOSITORY", root)
    monkeypatch.setattr(consistency, "ROOT", root)
    return root


def test_the_copy_follows_the_working_tree(repository: Path, tmp_path: Path) -> None:
    copy = tree.mirror(tmp_path / "copy")
    assert not (copy / "ignored").exists()
    (repository / "docs/page.md").unlink()
    (repository / "README.md").write_text("changed")
    tree.mirror(copy)
    assert sorted(path.name for path in copy.iterdir()) == [".git", ".gitignore", "README.md"]
    assert (copy / "README.md").read_text() == "changed"


def test_links_that_lead_somewhere_are_fine(repository: Path) -> None:
    assert list(consistency.links()) == []


@pytest.mark.parametrize(
    ("link", "sentence"),
    [("docs/gone.md", "leads nowhere"), ("docs/page.md#other", "leads to no heading"), ("#none", "leads to no heading")],
)
def test_broken_links_are_seen(repository: Path, link: str, sentence: str) -> None:
    (repository / "README.md").write_text(f"# One page\n\n[x]({link})\n```\n[not](a-link)\n```\n")
    assert list(consistency.links()) == [f"README.md:3: the link {link} {sentence}"]


def test_codes_and_their_page_must_agree(repository: Path) -> None:
    (repository / "plugins").mkdir()
    (repository / "plugins/x.py").write_text("# DG100 to DG199\nONE = 'DG101'\nTWO = 'DG102'\n")
    parts = "**How it shows:** x\n\n**Confirm by hand:** y\n\n**What to do:** z\n"
    (repository / "docs/diagnosis.md").write_text(f"## DG101: one\n\n{parts}\nsee DG102\n\n## DG103: three\n\n{parts}")
    assert list(consistency.codes()) == [
        "plugins/x.py:3: DG102 has no heading in docs/diagnosis.md",
        "docs/diagnosis.md:11: nothing in plugins, roles or playbooks gives DG103",
    ]


def test_every_entry_of_a_code_has_its_parts_in_order(repository: Path) -> None:
    (repository / "plugins").mkdir()
    (repository / "plugins/x.py").write_text("CODES = 'DG101 DG102 DG103 DG701 DG702'\n")
    shows, confirm, todo = "**How it shows:** x\n\n", "**Confirm by hand:** y\n\n", "**What to do:** z\n\n"
    texts = {"DG101": shows + confirm + todo, "DG102": shows + todo, "DG103": confirm + shows + todo}
    texts |= {"DG701": shows + todo, "DG702": shows + "**What to do:**\n\n"}
    (repository / "docs/diagnosis.md").write_text("".join(f"### {code} title\n\n{text}" for code, text in texts.items()))
    found = [re.search(r"DG\d{3}", line) for line in consistency.codes()]
    assert [match[0] for match in found if match] == ["DG102", "DG103", "DG702"]


def test_a_registry_and_a_path_of_the_machine_are_seen(repository: Path) -> None:
    (repository / "docs/page.md").write_text("ok\nfrom " + "py" + f"pi.org\nin {repository}/x\n")
    assert [line.split(": ")[0] for line in consistency.names()] == ["docs/page.md:2", "docs/page.md:3"]


def test_role_variables_must_agree() -> None:
    options = {"r_a": {"default": 1}, "r_b": {"required": True}, "r_c": {}, "other": {"required": True}}
    found = list(consistency._compare_role("r", options, {"r_a": 2, "r_d": None}, "specs", "defaults"))
    assert found == [
        "specs:1: r_d is in defaults/main.yml and not described here",
        "specs:1: r_a has the default 1 here and 2 in defaults/main.yml",
        "defaults:1: r_c is optional in meta/argument_specs.yml and has no default here",
        "specs:1: other does not start with the name of the role",
    ]


def test_junit_reports_are_added_up(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    bad = '<testcase classname="t.a" name="x[1]"><failure message="assert 1 == 2&#10;  more">the trace</failure></testcase>'
    worse = '<testcase classname="t.a" name="y"><error message="gone"/></testcase><testcase classname="t.a" name="z"/>'
    suites = f'<testsuite tests="5" failures="1" errors="1" skipped="1">{bad}{worse}</testsuite><testsuite tests="2" skipped="0"/>'
    report.write_text(f"<testsuites>{suites}</testsuites>")
    failures = ["t.a::x[1]: assert 1 == 2 more", "t.a::y: gone"]
    assert run_all._junit(report) == run_all.Count(passed=4, failed=2, skipped=1, failures=failures)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["true"], run_all.Count(1)),
        (["false"], run_all.Count(failed=1, failures=["step: ended with 1"])),
        (["/nowhere/to/be/found"], run_all.Count(failed=1, failures=["step: No such file or directory: /nowhere/to/be/found"])),
    ],
    ids=["well", "badly", "not at all"],
)
def test_a_step_counts_by_how_its_program_ended(
    command: list[str], expected: run_all.Count, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_all, "LOGS", tmp_path)
    assert run_all.run_step("stage", run_all.Step("step", command, cwd=tmp_path)) == expected


def test_a_program_that_fails_around_passing_tests_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_all, "LOGS", tmp_path)
    report = tmp_path / "count.json"
    step = run_all.Step("step", ["bash", "-c", f"echo '{{\"passed\": 3}}' > {report}; exit 1"], cwd=tmp_path, report=report)
    assert run_all.run_step("stage", step) == run_all.Count(passed=3, failed=1, failures=["step: ended with 1"])


def test_the_last_lines_name_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run_all, "LOGS", tmp_path)
    monkeypatch.setattr(run_all, "STAGES", {"one": lambda: [run_all.Step("a step", ["false"], cwd=tmp_path)], "two": list})
    monkeypatch.setattr("sys.argv", ["run_all.py"])
    assert run_all.main() == 1
    assert capsys.readouterr().out.splitlines()[-2:-1] == ["failed: a step: ended with 1"]


def test_module_executions_are_counted_by_host(tmp_path: Path) -> None:
    path = tmp_path / "executions"
    records = [("a", "ansible.legacy.setup"), ("a", "difyops.gpu.nvidia_facts"), ("b", "setup"), ("b", "ansible.builtin.setup")]
    path.write_text("".join(json.dumps({"host": host, "module": module}) + "\n" for host, module in records))
    assert count_modules.count(path) == {"a": {"setup": 1, "difyops.gpu.nvidia_facts": 1}, "b": {"setup": 2}}


def test_collections_are_unpacked_with_what_they_need(tmp_path: Path) -> None:
    wheel, site = tmp_path / "ansible-1-py3-none-any.whl", tmp_path / "site"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, needs in {"a.one": {"b.two": "*"}, "b.two": {}, "c.three": {}}.items():
            path = f"ansible_collections/{name.replace('.', '/')}/MANIFEST.json"
            archive.writestr(path, json.dumps({"collection_info": {"dependencies": needs}}))
    assert install_collections.unpack(wheel, ["a.one"], site) == ["a.one", "b.two"]
    assert sorted(path.parent.name for path in site.rglob("MANIFEST.json")) == ["one", "two"]
    with pytest.raises(KeyError, match=r"d\.four"):
        install_collections.unpack(wheel, ["d.four"], site)


def test_interpreters_that_uv_fetched_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"3.{sys.version_info.minor}"
    folder = tmp_path / f"cpython-{version}.1-linux-x86_64-gnu/bin"
    folder.mkdir(parents=True)
    (folder / f"python{version}").symlink_to(sys.executable)
    for name in ("3.9", "3.10"):  # one that cannot run, and one that says another version
        (folder / f"python{name}").write_text("#!/bin/sh\necho 3.9\n" if name == "3.10" else "#!/bin/sh\nexit 1\n")
        (folder / f"python{name}").chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setattr(sanity, "FETCHED", tmp_path)
    assert sanity.find_pythons() == {version: Path(sys.executable).resolve()}


@pytest.mark.parametrize(
    ("script", "expected"),
    [("exit 0", None), ("exit 3", "uv ended with 3"), ("echo no; echo way >&2; exit 1", "no way")],
)
def test_uv_tells_why_it_failed(script: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uv").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert sanity.fetch_pythons(["3.9"]) == expected
