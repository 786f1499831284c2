"""The packages depend on one another in one direction, and light modules stay light. Held in fresh processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "vllm", "mlflow", "transformers", "matplotlib", "pandas")


def modules_after_import(module: str) -> set[str]:
    """Top-level names and our own modules that importing ``module`` loads in a fresh interpreter."""
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    listing = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(listing.split())


@pytest.mark.parametrize(
    "module",
    ["tutor_service.config", "tutor_service.schema", "tutor_service.client", "rllib_plugins.config", "tune_sweeps.cli"],
)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    assert not modules_after_import(module) & set(HEAVY)


@pytest.mark.parametrize("module", ["tutor_service.app", "tutor_service.client", "tutor_service.store"])
def test_the_tutor_service_knows_no_environment(module: str) -> None:
    loaded = modules_after_import(module)
    assert "gymnasium" not in loaded
    assert not {name for name in loaded if name.split(".")[0] in {"rllib_plugins", "tune_sweeps"}}


@pytest.mark.parametrize("module", ["rllib_plugins.trial", "rllib_plugins.advising.core", "rllib_plugins.tasks"])
def test_students_know_no_sweep_and_no_engine(module: str) -> None:
    loaded = modules_after_import(module)
    assert not {name for name in loaded if name.split(".")[0] in {"tune_sweeps", "vllm"}}
    assert "tutor_service.app" not in loaded
