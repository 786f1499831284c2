"""Set-up finds an interpreter that fits, and says what to do where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import bootstrap


def interpreter(folder: Path, name: str, status: int) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_the_newest_interpreter_that_can_make_an_environment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter(tmp_path, "python3.13", 127)  # a version manager's stand-in for a version that is switched off
    fits = interpreter(tmp_path, "python3.12", 0)
    interpreter(tmp_path, "python3.11", 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bootstrap.fitting_interpreter() == str(fits)


def test_no_interpreter_is_an_error_that_names_the_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    with pytest.raises(bootstrap.SetupError, match=r"Python 3\.11, 3\.12, 3\.13 is needed.*make PYTHON="):
        bootstrap.use_fitting_interpreter()


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_a_machine_that_vllm_has_no_package_for_is_told_what_works(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(bootstrap.SetupError, match="make setup ENGINE=none"):
        bootstrap.check_machine(engine)
    bootstrap.check_machine("none")
