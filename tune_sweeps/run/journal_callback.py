"""Carry what Tune reports into the journal. Runs in the driver, between trials: nothing here may be slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from rllib_plugins import metrics
from tune_sweeps.run.progress import Progress
from tune_sweeps.run.trial import TRIAL
from tune_sweeps.tracking.journal import EVAL, Journal

_ERROR_LINES = 12


class JournalCallback(Callback):
    """Write each result, checkpoint and end of a trial to the journal.

    Args:
        journal: The journal.
        progress: What the view shows.
        changed: Called after each entry.
        say: Takes a line for the user about a trial that ended.
        save: Called with the journal's file once it names a new checkpoint: Tune deletes the one before next.
        max_failures: How often a trial may fail and go on.
    """

    def __init__(
        self,
        journal: Journal,
        progress: Progress,
        changed: Callable[[], None],
        say: Callable[[str], None],
        save: Callable[[Path], None],
        max_failures: int,
    ) -> None:
        self._journal = journal
        self._progress = progress
        self._changed = changed
        self._say = say
        self._save = save
        self._max_failures = max_failures
        self._starts = Counter[str]()
        self._failures = Counter[str]()
        self._given_up: set[str] = set()

    def take_given_up(self) -> set[str]:
        """Return the keys of trials that Tune has given up although they may fail once more, and forget them.

        Where a process is out of reach, each call to it fails by itself: one of training and one of saving. Tune starts
        the trial again for the first failure, and ends it for the second, since it does not run just then.
        """
        given_up, self._given_up = self._given_up, set()
        return given_up

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the copy that Tune keeps on disk without a journal to write to."""
        return Callback, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial runs, for the first time or after a failure."""
        key = trial_key(trial)
        self._starts[key] += 1
        self._journal[key].start()
        self._progress.begin(key)
        self._changed()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep an evaluation, unless a restored trial repeats it."""
        key = trial_key(trial)
        values = {name: result[name] for name in metrics.ALL if name in result}
        wall_s = float(result.get("time_this_iter_s", 0.0))
        if self._journal[key].result(int(result[metrics.STEP_AXIS]), wall_s, values):
            self._progress.advance(key, wall_s)
            self._changed()

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """Note a checkpoint that is complete and in its place."""
        step = trial.last_result.get(metrics.STEP_AXIS)
        if step is not None:
            self._journal[trial_key(trial)].checkpoint(int(step), checkpoint.path)
            self._save(self._journal.newest)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial is finished; one that was stopped stays open."""
        key = trial_key(trial)
        self._progress.end(key)
        points = self._journal[key].points
        if not points or points[-1].step < self._progress.trials[key].student.num_env_steps:
            return
        self._journal[key].done()
        value = points[-1].metrics.get(EVAL, float("nan"))
        self._say(f"done    {self._progress.trials[key].label}: greedy return {value:.3f}")
        self._changed()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed more often than it may."""
        key = trial_key(trial)
        error = _last_words(trial)
        self._progress.end(key)
        self._failures[key] = max(self._failures[key] + 1, self._starts[key])  # each start before the last one failed
        if self._failures[key] <= self._max_failures:
            self._given_up.add(key)
            return
        self._journal[key].failed(error)
        self._say(
            f"failed  {self._progress.trials[key].label}: {error.splitlines()[-1] if error else 'no reason given'}"
        )
        self._changed()


def trial_key(trial: Any) -> str:
    """Return the key of the sweep's trial that one of Tune's trials runs."""
    return str(trial.config[TRIAL]["key"])


def _last_words(trial: Any) -> str:
    """Read the end of a trial's error, in the driver's own folder: ``trial.get_error`` reads a later copy."""
    try:
        error = Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        error = ""
    lines = [line for line in error.splitlines() if line.strip()]
    return "\n".join(lines[-_ERROR_LINES:])
