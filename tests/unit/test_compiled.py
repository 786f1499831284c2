"""Where machine code is kept, and when it is made anew."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Writes modules into a folder, and imports the last one of them as a new process would."""

    def _load(folder: str, **sources: str) -> Any:
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it is told from other bytecode by the second alone
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        (tmp_path / folder).mkdir(exist_ok=True)
        module._digest_of_file.cache_clear()
        importlib.invalidate_caches()
        for name, source in sources.items():
            (tmp_path / folder / f"{name}.py").write_text(source)
            sys.modules.pop(name, None)
        return importlib.import_module(list(sources)[-1])

    yield _load
    for name in ("constants", "callee", "caller"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("how", ["compiled", "inlined"])
def test_code_is_made_anew_where_a_function_that_it_calls_has_changed(load: Callable[..., Any], how: str):
    """The compiler alone would see a change to the caller's file only."""
    for factor in (3.0, 5.0):
        callee = CALLEE.replace("FACTOR", str(factor)).replace("compiled\n", f"{how}\n")
        loaded = load("here", callee=callee, caller=CALLER)
        assert loaded.twice(1.0) == factor**2


def test_code_is_made_anew_where_a_number_of_another_module_has_changed(load: Callable[..., Any]):
    for factor in (3.0, 5.0):
        callee = f"from constants import FACTOR\n{CALLEE}"
        assert load("here", constants=f"FACTOR = {factor}\n", callee=callee).scale(1.0) == factor


def test_code_is_found_by_another_copy_of_its_source(load: Callable[..., Any]):
    hits = []
    for folder in ("here", "there"):
        scale = load(folder, callee=CALLEE.replace("FACTOR", "3.0")).scale
        assert scale(1.0) == 3.0
        hits.append(sum(scale.stats.cache_hits.values()))
    assert hits == [0, 1]


def test_code_of_a_module_that_was_moved_into_a_package_is_made_anew(load: Callable[..., Any], tmp_path: Path):
    source = CALLEE.replace("FACTOR", "3.0") + "\n\n@compiled\ndef twice(x):\n    return scale(scale(x))\n"
    assert load("here", callee=source).twice(1.0) == 9.0
    sys.modules.pop("callee")
    (tmp_path / "here" / "rooms").mkdir()
    (tmp_path / "here" / "callee.py").rename(tmp_path / "here" / "rooms" / "callee.py")
    importlib.invalidate_caches()
    moved = importlib.import_module("rooms.callee")
    assert moved.twice(1.0) == 9.0
    assert not moved.twice.stats.cache_hits
