"""Measure how fast trials were in earlier sweeps, from their journals."""

from __future__ import annotations

from pathlib import Path

from rllib_plugins.algorithms.registry import ALGORITHMS
from tune_sweeps.run.workspace import JOURNAL
from tune_sweeps.tracking.journal import last_points

_NEWEST = 20
"""Files of journals that are read, each of at most a quarter of a megabyte."""


def known_speeds(results: Path) -> dict[str, float]:
    """Return env steps per second of one trial, by algorithm, over the newest finished trials of a results folder."""
    steps: dict[str, float] = {}
    seconds: dict[str, float] = {}
    files = sorted(results.glob(f"*/{JOURNAL}/*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for file in files[:_NEWEST]:
        for key, point in last_points(file).items():
            algorithm = key.partition("-")[0]
            if algorithm in ALGORITHMS:
                steps[algorithm] = steps.get(algorithm, 0.0) + point.step
                seconds[algorithm] = seconds.get(algorithm, 0.0) + point.wall_s
    return {name: steps[name] / seconds[name] for name in steps if seconds[name] > 0 and steps[name] > 0}
