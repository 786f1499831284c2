"""Keep what happened to each trial on disk: the truth that a sweep resumes from and that MLflow is filled from.

One journal of JSON lines for all trials, in the order in which things happened, appended to by the driver alone. A line
that was cut short by a kill or a full disk is dropped when the journal is read or written next; what a reader saw stays
true.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tune_sweeps.storage.segments import Segments

logger = logging.getLogger(__name__)

Status = Literal["pending", "running", "done", "failed"]

EVAL = "eval/return_mean"
"""Metric that results are read from: mean return of the greedy student with its tutor off."""


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation of a trial.

    Attributes:
        step: Env steps that the student had sampled.
        time_ms: When it was reported, in Unix milliseconds.
        wall_s: Seconds that the trial had computed for, over all its attempts.
        metrics: By the names of ``rllib_plugins.metrics``; numbers that are not finite are left out.
    """

    step: int
    time_ms: int
    wall_s: float
    metrics: dict[str, float]


class Saved(NamedTuple):
    """One checkpoint.

    Attributes:
        step: Env steps that the student had sampled.
        path: Its folder.
        score: The greedy return at that step; None where it was not evaluated then.
    """

    step: int
    path: str
    score: float | None


class TrialJournal:
    """One trial's part of the journal.

    Attributes:
        key: The trial's key.
        status: How far the trial is. A trial that was cut short is ``running`` until it is started again.
        points: Those of its evaluations that are kept in memory, by ascending step; the last one is among them.
        num_points: How many evaluations it has, those included that are on disk alone.
        best: Its best greedy return so far; None before the first.
        checkpoints: Its checkpoints, oldest first; some of them may have been removed since.
        attempts: How often it was started.
        started_ms: When it was first started, in Unix milliseconds; None before that.
        error: Why it failed last; empty when it did not.
        places: Where in the journal each of its evaluations lies; those not on disk yet are not among them.
    """

    def __init__(self, key: str, journal: Journal) -> None:
        self.key = key
        self.status: Status = "pending"
        self.points: list[Point] = []
        self.num_points = 0
        self.best: float | None = None
        self.checkpoints: list[Saved] = []
        self.attempts = 0
        self.started_ms: int | None = None
        self.error = ""
        self.places = array("Q")
        self._journal = journal

    def start(self) -> None:
        """Note that the trial begins, or begins again."""
        self._journal.append(self, {"event": "start"}, sync=False)

    def result(self, step: int, wall_s: float, metrics: Mapping[str, float]) -> bool:
        """Keep an evaluation, unless it is one that a restored trial repeats.

        Returns:
            Whether it was new.
        """
        if self.points and step <= self.points[-1].step:
            return False
        known = {name: float(value) for name, value in metrics.items() if _is_finite(value)}
        wall = (self.points[-1].wall_s if self.points else 0.0) + wall_s
        self._journal.append(
            self, {"event": "result", "step": int(step), "wall_s": round(wall, 3), "metrics": known}, sync=False
        )
        return True

    def checkpoint(self, step: int, path: str) -> None:
        """Note a complete checkpoint; all results before it reach the disk with it."""
        self._journal.append(self, {"event": "checkpoint", "step": int(step), "path": path}, sync=True)

    def done(self) -> None:
        """Note that the trial is finished, for good."""
        self._journal.append(self, {"event": "done"}, sync=True)

    def failed(self, error: str) -> None:
        """Note that the trial failed more often than it may."""
        self._journal.append(self, {"event": "failed", "error": error}, sync=True)

    def last_checkpoint(self, is_there: Callable[[str], bool]) -> str | None:
        """Return the newest checkpoint that is still there."""
        return next((saved.path for saved in reversed(self.checkpoints) if is_there(saved.path)), None)

    def best_checkpoint(self, is_there: Callable[[str], bool]) -> str | None:
        """Return the checkpoint, of those still there, whose greedy return was best."""
        scored = [(saved.score, saved.step, saved.path) for saved in self.checkpoints if saved.score is not None]
        return next((path for *_, path in sorted(scored, reverse=True) if is_there(path)), None)

    def points_from(self, first: int) -> list[Point]:
        """Return its evaluations from one on, counted from 0; those that were let go are read from the disk."""
        with self._journal.lock:
            in_memory = self.num_points - len(self.points)
            kept = self.points[max(0, first - in_memory) :]
            places = self.places[first:in_memory]
        return [*self._journal.points_at(places), *kept] if places else kept

    def let_go(self, first: int) -> None:
        """Forget evaluations before one, counted from 0, that are on disk and of which nobody needs to know any more.

        The last one stays: a trial's next evaluation is compared with it.
        """
        with self._journal.lock:
            in_memory = self.num_points - len(self.points)
            due = min(first, len(self.places), self.num_points - 1) - in_memory
            del self.points[: max(0, due)]

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take over what an entry says."""
        match event["event"]:
            case "start":
                self.attempts += 1
                self.started_ms = self.started_ms or event["time_ms"]
                self.status, self.error = "running", ""
            case "result":
                point = _point(event)
                self.points.append(point)
                self.num_points += 1
                if (value := point.metrics.get(EVAL)) is not None:
                    self.best = value if self.best is None else max(self.best, value)
            case "checkpoint":
                at = next((point for point in reversed(self.points) if point.step == event["step"]), None)
                self.checkpoints.append(Saved(event["step"], event["path"], at.metrics.get(EVAL) if at else None))
            case "done":
                self.status = "done"
            case "failed":
                self.status, self.error = "failed", event["error"]


class _Due(NamedTuple):
    """An entry that is not on disk yet."""

    trial: TrialJournal
    line: bytes
    is_result: bool


class Journal:
    """All trials of a sweep.

    Args:
        folder: Where the journal lies; made at the first entry.
        keys: The trials' keys; None: of those that it knows. What it knows of others is left alone.

    Attributes:
        trials: The trials, by key.
        lock: Held while a trial changes.
        blocked: Why the last attempt to write failed; empty when it did not. What is due is kept and tried again.
    """

    def __init__(self, folder: Path, keys: Iterable[str] | None = None) -> None:
        self.lock = threading.Lock()
        self.trials = {key: TrialJournal(key, self) for key in keys or ()}
        self.blocked = ""
        self._segments = Segments(folder)
        self._due: list[_Due] = []
        self._load(every_trial=keys is None)

    def __getitem__(self, key: str) -> TrialJournal:
        return self.trials[key]

    @property
    def newest(self) -> Path:
        """The file that the last entry is in."""
        return self._segments.newest

    def count(self, status: Status) -> int:
        """Count the trials of a status."""
        return sum(trial.status == status for trial in self.trials.values())

    def missing(self) -> list[str]:
        """List the trials that are not finished, in the grid's order; failed ones are among them."""
        return [key for key, trial in self.trials.items() if trial.status != "done"]

    def append(self, trial: TrialJournal, event: dict[str, Any], sync: bool) -> None:
        """Apply an entry and write it; ``sync``: it has reached the disk when this returns, where the disk takes it."""
        event = {"trial": trial.key, "time_ms": int(time.time() * 1000), **event}
        line = json.dumps(event, ensure_ascii=False).encode()
        with self.lock:
            trial.apply(event)
            self._due.append(_Due(trial, line, event["event"] == "result"))
            self._write(sync)

    def points_at(self, places: Iterable[int]) -> list[Point]:
        """Read evaluations."""
        return [_point(json.loads(line)) for line in self._segments.at(places)]

    def flush(self) -> bool:
        """Try again to write what could not be written; return whether all of it is on disk."""
        with self.lock:
            self._write(sync=True)
            return not self._due

    def close(self) -> None:
        """Close the file; an entry opens it again."""
        with self.lock:
            self._segments.close()

    def _write(self, sync: bool) -> None:
        """Write what is due. A disk that is full must stop no trial: it is tried again later."""
        try:
            places = self._segments.append([due.line for due in self._due], sync)
        except OSError as error:
            self.blocked = error.strerror or str(error)
            return
        for due, place in zip(self._due, places, strict=True):
            if due.is_result:
                due.trial.places.append(place)
        self._due.clear()
        self.blocked = ""

    def _load(self, every_trial: bool) -> None:
        unreadable = 0
        for place, line in self._segments.read():
            try:
                event = json.loads(line)
                key = event["trial"]
                if every_trial and key not in self.trials:
                    self.trials[key] = TrialJournal(key, self)
                if (trial := self.trials.get(key)) is None:
                    continue
                trial.apply(event)
            except (ValueError, KeyError, TypeError):
                unreadable += 1
                continue
            if event["event"] == "result":
                trial.places.append(place)
            elif event["event"] == "done":
                trial.let_go(trial.num_points)
        if unreadable:
            logger.warning("%d lines of the journal in %s are damaged: left out", unreadable, self.newest.parent)


def last_points(file: Path) -> dict[str, Point]:
    """Return the last evaluation of each trial that ends in a file of a journal."""
    points: dict[str, Point] = {}
    ended = {}
    for line in file.read_bytes().splitlines():
        try:
            event = json.loads(line)
            if event["event"] == "result":
                points[event["trial"]] = _point(event)
            elif event["event"] == "done" and event["trial"] in points:
                ended[event["trial"]] = points[event["trial"]]
        except (ValueError, KeyError, TypeError):
            continue
    return ended


def _point(event: Mapping[str, Any]) -> Point:
    return Point(event["step"], event["time_ms"], event["wall_s"], dict(event["metrics"]))


def _is_finite(value: Any) -> bool:
    try:
        return abs(float(value)) < float("inf")
    except (TypeError, ValueError):
        return False
