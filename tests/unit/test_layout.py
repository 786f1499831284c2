"""Light modules stay light, so that commands answer at once; which package imports which, the linter holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "vllm", "mlflow", "transformers", "matplotlib", "pandas")

LIGHT = (
    *("tutor_service.tutor_files", "tutor_service.schema", "tutor_service.client"),
    *("rllib_plugins.config", "tune_sweeps.cli.app"),
)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    listing = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(listing.stdout.split()) & set(HEAVY)
