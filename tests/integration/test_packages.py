"""One constraints file serves both vLLM builds: each set of packages that is installed somewhere resolves with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tools.bootstrap import FITTING, index_options

ROOT = Path(__file__).parents[2]
SETS = {
    "make setup": ["cpu", "solver", "dev"],
    "make setup ENGINE=gpu": ["gpu", "solver", "dev"],
    "make setup ENGINE=none": ["solver", "dev"],
    "docker cpu": ["cpu", "cluster"],
    "docker gpu": ["gpu", "cluster"],
    "docker mlflow": ["mlflow-server"],
}
UNREACHABLE = re.compile(r"failed to fetch|connection|dns|timed out|offline", re.IGNORECASE)


CASES = [
    (name, f"{major}.{minor}") for name in SETS for major, minor in (FITTING if "make" in name else FITTING[:1])
]  # the images are of one Python


class Resolved(NamedTuple):
    """What the resolver said of a set of packages."""

    status: int
    complaint: str
    packages: set[str]


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Resolved]:
    """All sets by name and Python's version; they mostly wait for the index, and wait together."""
    folder, environ = tmp_path_factory.mktemp("resolved"), {**os.environ, **index_options(Path(sys.executable))}
    running = {}
    for number, (name, python) in enumerate(CASES):
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        command += ["--python-version", python, "--constraints", "constraints.txt", "-o", str(folder / f"{number}.txt")]
        command += [f"--extra={extra}" for extra in SETS[name]]
        if "cpu" in SETS[name]:
            command += ["--override", "tools/uv-overrides.txt"]
        process = subprocess.Popen(
            [*command, "pyproject.toml"],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        running[name, python] = (process, folder / f"{number}.txt")
    found = {}
    for case, (process, path) in running.items():
        complaint = process.communicate(timeout=300)[1]
        packages = set() if process.returncode else set(path.read_text().splitlines())
        found[case] = Resolved(process.returncode, complaint, packages)
    return found


@pytest.mark.parametrize(("name", "python"), CASES)
def test_every_set_resolves(name: str, python: str, resolved: dict[tuple[str, str], Resolved]) -> None:
    found = resolved[name, python]
    if found.status and UNREACHABLE.search(found.complaint):
        pytest.skip("no package index is reachable")
    if found.status and "torch==2.13.0+cpu" in found.complaint:
        pytest.skip("the index lacks torch's CPU build, which `make setup` then takes from PyTorch's own")
    assert found.status == 0, found.complaint
    pinned = set((ROOT / "constraints.txt").read_text().splitlines())
    loose = {line for line in found.packages - pinned if line.replace("+cpu", "") not in pinned}
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
