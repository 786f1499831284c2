"""Every benchmark runs in its smallest form, so that none is broken while its result says that all bars are met."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import ray

from rllib_plugins.trial import ensure_ray

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\nMEASURES = " in path.read_text())
ONLY_LOADED = {"fault_drill", "imperfect_games", "imperfect_grid", "laptop54", "refusals", "tutor_throughput"}
"""Need long for what other tests of a cluster, of the real LLM, of ``imperfect_tutors`` or of ``demo`` start too: they
only have to load."""

OF_A_PACKAGE_APART = {"connect_four_solver": "bitbully"}
"""Measure beside a peer whose licence keeps it out of what is installed."""

WITH_A_RAY_OF_ITS_OWN = {"store"}
SMOKED = sorted(set(NAMES) - ONLY_LOADED, key=lambda name: (name in WITH_A_RAY_OF_ITS_OWN, name))


@pytest.fixture(scope="module", autouse=True)
def _no_ray_is_left() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.mark.parametrize("name", SMOKED)
def test_its_smallest_form_measures_all_that_the_result_holds(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, whose packages and Ray they share."""
    if name in OF_A_PACKAGE_APART:
        pytest.importorskip(OF_A_PACKAGE_APART[name])
    if name in WITH_A_RAY_OF_ITS_OWN:
        ray.shutdown()
    else:
        ensure_ray(2)
    monkeypatch.setattr(sys, "argv", [name, "--smoke"])
    status = import_module(f"benchmarks.{name}").main()
    said = capsys.readouterr().out
    assert status == 0, said
    summary = json.loads(said.splitlines()[-1])
    assert summary["benchmark"] == name
    assert summary["checks"]


def test_they_are_run_as_modules() -> None:
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{name}", "--help"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in NAMES
    }
    for name, process in running.items():
        said, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
        assert "--smoke" in said, name
