"""What all tiers share: one thread a process, time for property tests, and who runs with whom on one worker."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tutor_service.paths import home

ROOT = Path(__file__).parents[1]

settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
settings.load_profile("untimed")

os.environ.setdefault("NUMBA_CACHE_DIR", str(home() / "compiled"))  # many tests set a home of their own
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several workers share the machine; read where NumPy is imported


class FilesThatShareFixtures(LoadFileScheduling):
    """Keep a file on one worker of several, and all files of a folder that has fixtures of its own."""

    def _split_scope(self, nodeid: str) -> str:
        return str(_shares_fixtures(ROOT / nodeid.partition("::")[0]))


@pytest.hookimpl(optionalhook=True)  # without xdist there is none
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesThatShareFixtures:
    return FilesThatShareFixtures(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders that share fixtures, which take longest."""
    items.sort(key=lambda item: _shares_fixtures(item.path).is_file())


def pytest_collection_finish() -> None:
    """Spare the tests' garbage collections what was imported and collected: it stays until the end."""
    gc.collect()
    gc.freeze()


def _shares_fixtures(path: Path) -> Path:
    return path.parent if path.parent != ROOT / "tests" and (path.parent / "conftest.py").exists() else path
