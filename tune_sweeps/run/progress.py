"""Keep count of a running sweep: its speed, its end, its best trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tune_sweeps.definition.grid import Trial
from tune_sweeps.tracking.journal import Journal


@dataclass
class Progress:
    """Follow a sweep's trials.

    Attributes:
        trials: Its trials, by key.
        journal: What happened to them.
        running: By key of each trial that runs now, the env steps at its last evaluation.
    """

    trials: Mapping[str, Trial]
    journal: Journal
    running: dict[str, int] = field(default_factory=dict)
    _speed: dict[str, tuple[float, float]] = field(default_factory=dict)

    def begin(self, key: str) -> None:
        """Note that a trial runs."""
        self.running[key] = self._step(key)

    def advance(self, key: str, wall_s: float) -> None:
        """Note that a trial has reported an evaluation, after ``wall_s`` seconds of computing."""
        if key not in self.running:
            return
        algorithm, step = self.trials[key].cell.algorithm, self._step(key)
        steps, seconds = self._speed.get(algorithm, (0.0, 0.0))
        self._speed[algorithm] = (steps + step - self.running[key], seconds + wall_s)
        self.running[key] = step

    def end(self, key: str) -> None:
        """Note that a trial runs no longer."""
        self.running.pop(key, None)

    def fraction(self, key: str) -> float:
        """Return the share of a trial's env steps that is done, in [0, 1]."""
        return min(1.0, self._step(key) / self.trials[key].student.num_env_steps)

    def eta_s(self, concurrent: int) -> float | None:
        """Estimate the seconds until the sweep ends, from the speed of its trials so far; None before any is known.

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
        """Return the best greedy return so far and its trial's label, by task."""
        best: dict[str, tuple[float, str]] = {}
        for key, trial in self.trials.items():
            value = self.journal[key].best
            if value is not None and value > best.get(trial.cell.task, (float("-inf"), ""))[0]:
                best[trial.cell.task] = (value, trial.label)
        return best

    def advice(self) -> dict[str, float]:
        """Return totals of the advice counters over all trials, by the short names of ``rllib_plugins.metrics``."""
        totals = dict.fromkeys(("consultations", "store_hits", "model_evaluations", "missed"), 0.0)
        for journal in self.journal.trials.values():
            if journal.points:
                for name in totals:
                    totals[name] += journal.points[-1].metrics.get(f"advice/{name}", 0.0)
        return totals

    def _step(self, key: str) -> int:
        points = self.journal[key].points
        return points[-1].step if points else 0
