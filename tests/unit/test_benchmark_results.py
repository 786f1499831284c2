"""Committed results say what they measure and of which revision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.freshness import measured_paths
from benchmarks.harness import RESULTS

ROOT = RESULTS.parents[1]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_names_its_revision_and_its_benchmark_what_it_measures(path: Path) -> None:
    result = json.loads(path.read_text())
    assert len(result["versions"]["commit"]) == 12
    paths = measured_paths(result["benchmark"].removesuffix("_soak"))
    assert paths
    assert all((ROOT / name).exists() for name in paths)
