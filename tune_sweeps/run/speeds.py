"""Measure how fast trials were in earlier sweeps, from their journals."""

from __future__ import annotations

from pathlib import Path

from rllib_plugins.config import ALGORITHMS
from tune_sweeps.tracking.journal import TrialJournal

_NEWEST = 200


def known_speeds(results: Path) -> dict[str, float]:
    """Return env steps per second of one trial, by algorithm, over the newest finished trials of a results folder."""
    steps: dict[str, float] = {}
    seconds: dict[str, float] = {}
    files = sorted(results.glob("*/trials/*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[:_NEWEST]:
        algorithm = path.name.partition("-")[0]
        trial = TrialJournal(path)
        if algorithm in ALGORITHMS and trial.status == "done" and trial.points:
            steps[algorithm] = steps.get(algorithm, 0.0) + trial.points[-1].step
            seconds[algorithm] = seconds.get(algorithm, 0.0) + trial.points[-1].wall_s
    return {name: steps[name] / seconds[name] for name in steps if seconds[name] > 0 and steps[name] > 0}
