"""Where machine code is kept, and when it is made anew."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from rllib_plugins import compiled as module
from rllib_plugins.compiled import cache_folder, compiled


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))


def test_code_is_kept_in_the_users_folder(tmp_path: Path):
    assert cache_folder("d") == tmp_path / "home" / "compiled" / "d"


def test_numbas_own_setting_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "given"))
    assert cache_folder("d") == tmp_path / "given" / "d"


def test_where_the_users_folder_cannot_be_made_code_is_kept_among_the_temporary_files(tmp_path: Path):
    (tmp_path / "home").write_text("in the way")
    folder = cache_folder("d")
    assert folder == tmp_path / "temporary" / f"llm-tutors-{os.getuid()}" / "d"
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_temporary_folder_that_is_a_link_is_not_trusted(tmp_path: Path):
    (tmp_path / "home").write_text("in the way")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / f"llm-tutors-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    assert cache_folder("d") is None


def double(x: float) -> float:
    return 2.0 * x


def test_without_any_folder_a_process_compiles_for_itself(tmp_path: Path):
    (tmp_path / "home").write_text("in the way")
    (tmp_path / "temporary").write_text("in the way")
    assert compiled(double)(1.5) == 3.0


def test_division_by_zero_is_numpys():
    def divide(a: float, b: float) -> float:
        return a / b

    assert np.isinf(compiled(divide)(1.0, 0.0))


CALLEE = "from rllib_plugins.compiled import compiled\n\n\n@compiled\ndef scale(x):\n    return FACTOR * x\n"
CALLER = """from callee import scale

from rllib_plugins.compiled import compiled


@compiled
def twice(x):
    return scale(scale(x))
"""


def test_code_is_made_anew_where_a_function_that_it_calls_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The compiler alone would see a change to the caller's file only."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "caller.py").write_text(CALLER)
    for factor in (3.0, 5.0):
        (tmp_path / "callee.py").write_text(CALLEE.replace("FACTOR", str(factor)))
        module._digest_of_file.cache_clear()
        importlib.invalidate_caches()
        for name in ("callee", "caller"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        assert importlib.import_module("caller").twice(1.0) == factor**2
    for name in ("callee", "caller"):
        monkeypatch.delitem(sys.modules, name)
