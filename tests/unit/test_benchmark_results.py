"""Committed results say what they measure and of which revision."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks.freshness import measured_paths
from benchmarks.harness import RESULTS, command

ROOT = RESULTS.parents[1]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_names_its_revision_and_its_benchmark_what_it_measures(path: Path) -> None:
    result = json.loads(path.read_text())
    assert len(result["versions"]["commit"]) == 12
    assert not re.search(r"[\s=']/", result["command"]), "a folder of the machine that it was measured on"
    paths = measured_paths(result["benchmark"].removesuffix("_soak"))
    assert paths
    assert all((ROOT / name).exists() for name in paths)


def test_a_command_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--seed", "0", "--folder", "/some/where/drill", "--output=/tmp/a.json", "benchmarks/b.json"]
    monkeypatch.setattr(sys, "argv", ["/some/where/benchmarks/fault_drill.py", *arguments])
    shown = "python -m benchmarks.fault_drill --seed 0 --folder drill --output=a.json benchmarks/b.json"
    assert command() == shown
