"""Every benchmark runs in its smallest form, so that none is broken while its result says that all bars are met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "add_arguments(parser)" in path.read_text())
NAMES.remove("harness")
OF_A_CLUSTER = {"fault_drill", "refusals", "tutor_throughput"}
"""Need minutes for what other tests of a cluster, and of the real LLM, start too: they only have to load."""


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_A_CLUSTER])
def test_its_smallest_form_measures_all_that_the_result_holds(name: str) -> None:
    done = run(name, "--smoke")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["benchmark"] == name
    assert summary["checks"]


@pytest.mark.parametrize("name", sorted(OF_A_CLUSTER))
def test_it_loads(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--smoke" in done.stdout
