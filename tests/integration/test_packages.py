"""One constraints file serves both vLLM builds: each set of packages that is installed somewhere resolves with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.resolve import CASES, Case, Resolved, pins, requirements, resolve

ROOT = Path(__file__).parents[2]
UNREACHABLE = re.compile(r"failed to fetch|connection|dns|timed out|offline", re.IGNORECASE)


@pytest.fixture(scope="module")
def resolved() -> dict[Case, Resolved]:
    """All sets under the committed pins, by name and Python's version."""
    asked = {case: requirements(case.name) for case in CASES}
    return resolve(asked, (ROOT / "constraints.txt").read_text().splitlines())


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_every_set_resolves(case: Case, resolved: dict[Case, Resolved]) -> None:
    found = resolved[case]
    if UNREACHABLE.search(found.complaint):
        pytest.skip("no package index is reachable")
    if found.lacks_cpu_torch:
        pytest.skip("the index lacks torch's CPU build, which `make setup` then takes from PyTorch's own")
    assert not found.complaint
    loose = found.versions.items() - pins((ROOT / "constraints.txt").read_text()).items()
    assert loose == set(), "every package is pinned"


def test_a_wheel_is_a_working_tutor_without_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    copy = tmp_path / "source"
    for package in ("tutor_service", "rllib_plugins", "tune_sweeps"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([*build, str(copy)], check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "HOME": str(tmp_path)}
    start = "import tune_sweeps, tune_sweeps.cli; print(tune_sweeps.__file__); tune_sweeps.cli.main()"
    for arguments, said in (("presets", "laptop54"), ("tutors", "smollm2"), ("tasks", "connect_four")):
        command = [sys.executable, "-c", start, arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(str(tmp_path / "installed"))
        assert said in result.stdout
