"""The quick tier under other Pythons: which are found, and what is said of those that are not or that fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import bootstrap, pythons


def program(path: Path, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pyenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path / "pyenv" / "versions"


def test_a_version_that_is_switched_off_in_pyenv_is_found(tmp_path: Path, pyenv: Path):
    program(tmp_path / "bin" / "python3.12", 127)  # the stand-in that pyenv puts on the PATH
    installed = program(pyenv / "3.12.1" / "bin" / "python3.12")
    assert pythons.interpreter((3, 12)) == installed
    assert pythons.interpreter((3, 13)) is None


def test_the_path_goes_before_pyenv(tmp_path: Path, pyenv: Path):
    first = program(tmp_path / "bin" / "python3.12")
    program(pyenv / "3.12.1" / "bin" / "python3.12")
    assert pythons.interpreter((3, 12)) == first


def test_this_version_is_not_run_again_a_missing_one_is_named_and_a_failure_is_the_status(
    pyenv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    others = [version for version in bootstrap.FITTING if version != sys.version_info[:2]]
    for version in bootstrap.FITTING:
        if version != others[-1]:
            program(pyenv / "some" / "bin" / f"python{bootstrap.dotted(version)}")
    ran: list[str] = []

    def fails(path: Path) -> int:
        ran.append(path.name)
        raise bootstrap.SetupError("no torch")

    monkeypatch.setattr(pythons, "run_quick_tier", fails)
    assert pythons.main() == 1
    assert ran == [f"python{bootstrap.dotted(version)}" for version in others[:-1]]
    told = capsys.readouterr()
    assert f"Python {bootstrap.dotted(others[-1])} is not installed here" in told.out
    assert "no torch" in told.err and f"failed under Python {bootstrap.dotted(others[0])}" in told.err


def test_nothing_else_installed_is_no_failure(pyenv: Path):
    assert pythons.main() == 0
