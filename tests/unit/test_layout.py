"""The packages depend on one another in one direction, and light modules stay light. Held in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

HEAVY = ("torch", "ray", "vllm", "mlflow", "transformers", "matplotlib", "pandas")


LIGHT = (
    *("tutor_service.tutor_files", "tutor_service.schema", "tutor_service.client"),
    *("rllib_plugins.config", "tune_sweeps.cli.app"),
)
SERVICE = ("tutor_service.serving", "tutor_service.client", "tutor_service.store")
STUDENTS = ("rllib_plugins.trial", "rllib_plugins.advising.explorer", "rllib_plugins.tasks")


@pytest.fixture(scope="module")
def modules_after_import() -> Callable[[str], set[str]]:
    """Top-level names and our own modules that importing a module loads in a fresh interpreter; all start at once."""
    code = "import sys, {}; print('\\n'.join(sys.modules))"
    interpreters = {
        module: subprocess.Popen([sys.executable, "-c", code.format(module)], stdout=subprocess.PIPE, text=True)
        for module in sorted({*LIGHT, *SERVICE, *STUDENTS})
    }
    listings = {module: process.communicate()[0] for module, process in interpreters.items()}

    def loaded(module: str) -> set[str]:
        assert interpreters[module].returncode == 0, f"{module} cannot be imported"
        return set(listings[module].split())

    return loaded


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str, modules_after_import: Callable[[str], set[str]]) -> None:
    assert not modules_after_import(module) & set(HEAVY)


@pytest.mark.parametrize("module", SERVICE)
def test_the_tutor_service_knows_no_environment(module: str, modules_after_import: Callable[[str], set[str]]) -> None:
    loaded = modules_after_import(module)
    assert "gymnasium" not in loaded
    assert not {name for name in loaded if name.split(".")[0] in {"rllib_plugins", "tune_sweeps"}}


@pytest.mark.parametrize("module", STUDENTS)
def test_students_know_no_sweep_and_no_engine(module: str, modules_after_import: Callable[[str], set[str]]) -> None:
    loaded = modules_after_import(module)
    assert not {name for name in loaded if name.split(".")[0] in {"tune_sweeps", "vllm"}}
    assert "tutor_service.serving" not in loaded
