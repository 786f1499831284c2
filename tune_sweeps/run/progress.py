"""What the user sees of a running sweep: pure bookkeeping of its trials. Knows neither Ray nor terminals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tune_sweeps.definition.grid import Trial
from tune_sweeps.tracking.journal import EVAL, Journal


@dataclass
class Running:
    """A trial that runs now: what it had done when it started here, and since when it runs."""

    first_step: int
    since: float
    last_step: int
    last_time: float


@dataclass
class Progress:
    """How far a sweep is.

    Attributes:
        trials: Its trials, by key.
        journal: What happened to them.
        note: What goes on beside trials.
    """

    trials: Mapping[str, Trial]
    journal: Journal
    note: str = ""
    started: float = field(default_factory=time.monotonic)
    running: dict[str, Running] = field(default_factory=dict)
    _speed: dict[str, tuple[float, float]] = field(default_factory=dict)

    def begin(self, key: str) -> None:
        """A trial runs."""
        step = self._step(key)
        now = time.monotonic()
        self.running[key] = Running(step, now, step, now)

    def advance(self, key: str, wall_s: float) -> None:
        """A trial has reported an evaluation, after ``wall_s`` seconds of computing."""
        entry = self.running.get(key)
        if entry is None:
            return
        step = self._step(key)
        steps, seconds = self._speed.get(self.trials[key].cell.algorithm, (0.0, 0.0))
        self._speed[self.trials[key].cell.algorithm] = (steps + step - entry.last_step, seconds + wall_s)
        entry.last_step, entry.last_time = step, time.monotonic()

    def end(self, key: str) -> None:
        """A trial runs no longer."""
        self.running.pop(key, None)

    def fraction(self, key: str) -> float:
        """Share of a trial's env steps that is done, in [0, 1]."""
        return min(1.0, self._step(key) / self.trials[key].student.num_env_steps)

    def eta_s(self, concurrent: int) -> float | None:
        """Seconds until the sweep ends, from the speed of its trials so far; None before any is known.

        Args:
            concurrent: Trials that run at once.
        """
        known = [pair for pair in self._speed.values() if pair[0] > 0 and pair[1] > 0]
        if not known:
            return None
        overall = sum(steps for steps, _ in known) / sum(seconds for _, seconds in known)
        remaining = []
        for key, trial in self.trials.items():
            if self.journal[key].status in {"done", "failed"}:
                continue
            steps, seconds = self._speed.get(trial.cell.algorithm, (0.0, 0.0))
            speed = steps / seconds if steps > 0 and seconds > 0 else overall
            remaining.append((trial.student.num_env_steps - self._step(key)) / speed)
        return max(sum(remaining) / concurrent, max(remaining)) if remaining else 0.0

    def best(self) -> dict[str, tuple[float, str]]:
        """By task, the best greedy return so far and the trial's label."""
        best: dict[str, tuple[float, str]] = {}
        for key, trial in self.trials.items():
            points = self.journal[key].points
            values = [point.metrics[EVAL] for point in points if EVAL in point.metrics]
            if values and max(values) > best.get(trial.cell.task, (float("-inf"), ""))[0]:
                best[trial.cell.task] = (max(values), trial.label)
        return best

    def advice(self) -> dict[str, float]:
        """Totals of the advice counters over all trials, by the short names of ``rllib_plugins.metrics``."""
        totals = dict.fromkeys(("consultations", "store_hits", "model_evaluations", "missed"), 0.0)
        for journal in self.journal.trials.values():
            if journal.points:
                for name in totals:
                    totals[name] += journal.points[-1].metrics.get(f"advice/{name}", 0.0)
        return totals

    def _step(self, key: str) -> int:
        points = self.journal[key].points
        return points[-1].step if points else 0
