"""Keep what happened to each trial on disk: the truth that a sweep resumes from and that MLflow is filled from.

One file of JSON lines per trial, appended to by the driver alone. A line that was cut short by a kill or a full disk is
dropped when the file is read or written next; what a reader saw stays true.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
    """One trial's file.

    Attributes:
        status: How far the trial is. A trial that was cut short is ``running`` until it is started again.
        points: Those of its evaluations that are kept in memory, by ascending step; the last one is among them.
        num_points: How many evaluations it has, those included that are on disk alone.
        best: Its best greedy return so far; None before the first.
        checkpoints: Its checkpoints, oldest first; some of them may have been removed since.
        attempts: How often it was started.
        started_ms: When it was first started, in Unix milliseconds; None before that.
        error: Why it failed last; empty when it did not.
        unwritten: Lines that are not on disk yet; where the disk is full, they are tried again.
        blocked: Why the last attempt to write them failed; empty when it did not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status: Status = "pending"
        self.points: list[Point] = []
        self.num_points = 0
        self.best: float | None = None
        self.checkpoints: list[Saved] = []
        self.attempts = 0
        self.started_ms: int | None = None
        self.error = ""
        self.unwritten: list[str] = []
        self.blocked = ""
        self._size = 0
        self._lock = threading.Lock()
        self._load()

    def start(self) -> None:
        """Note that the trial begins, or begins again."""
        self._append({"event": "start"}, sync=False)

    def result(self, step: int, wall_s: float, metrics: Mapping[str, float]) -> bool:
        """Keep an evaluation, unless it is one that a restored trial repeats.

        Returns:
            Whether it was new.
        """
        if self.points and step <= self.points[-1].step:
            return False
        known = {name: float(value) for name, value in metrics.items() if _is_finite(value)}
        wall = (self.points[-1].wall_s if self.points else 0.0) + wall_s
        self._append({"event": "result", "step": int(step), "wall_s": round(wall, 3), "metrics": known}, sync=False)
        return True

    def checkpoint(self, step: int, path: str) -> None:
        """Note a complete checkpoint; all results before it reach the disk with it."""
        self._append({"event": "checkpoint", "step": int(step), "path": path}, sync=True)

    def done(self) -> None:
        """Note that the trial is finished, for good."""
        self._append({"event": "done"}, sync=True)

    def failed(self, error: str) -> None:
        """Note that the trial failed more often than it may."""
        self._append({"event": "failed", "error": error}, sync=True)

    def last_checkpoint(self, is_there: Callable[[str], bool]) -> str | None:
        """Return the newest checkpoint that is still there."""
        return next((saved.path for saved in reversed(self.checkpoints) if is_there(saved.path)), None)

    def best_checkpoint(self, is_there: Callable[[str], bool]) -> str | None:
        """Return the checkpoint, of those still there, whose greedy return was best."""
        scored = [(saved.score, saved.step, saved.path) for saved in self.checkpoints if saved.score is not None]
        return next((path for *_, path in sorted(scored, reverse=True) if is_there(path)), None)

    def points_from(self, first: int) -> list[Point]:
        """Return its evaluations from one on, counted from 0; those that were let go are read from the disk."""
        with self._lock:
            in_memory = self.num_points - len(self.points)
            if first >= in_memory:
                return self.points[first - in_memory :]
            return [*self._on_disk()[first:in_memory], *self.points]

    def let_go(self, first: int) -> None:
        """Forget evaluations before one, counted from 0, that are on disk and of which nobody needs to know any more.

        The last one stays: a trial's next evaluation is compared with it.
        """
        with self._lock:
            if not self.unwritten:
                in_memory = self.num_points - len(self.points)
                del self.points[: max(0, min(first - in_memory, len(self.points) - 1))]

    def _append(self, event: dict[str, Any], sync: bool) -> None:
        event = {"time_ms": int(time.time() * 1000), **event}
        with self._lock:
            self._apply(event)
            self.unwritten.append(json.dumps(event, ensure_ascii=False))
            self._flush(sync)

    def flush(self) -> bool:
        """Try again to write what could not be written; return whether all of it is on disk."""
        with self._lock:
            if self.unwritten:
                self._flush(sync=True)
            return not self.unwritten

    def _flush(self, sync: bool) -> None:
        """Write what is due. A disk that is full must stop no other trial: it is tried again later."""
        try:
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(("\n".join(self.unwritten) + "\n").encode())
                file.flush()
                if sync:
                    os.fsync(file.fileno())
                self._size = file.tell()
            self.unwritten.clear()
            self.blocked = ""
        except OSError as error:
            self.blocked = error.strerror or str(error)

    def _load(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        for line in content.splitlines(keepends=True):
            try:
                event = json.loads(line)
                if not line.endswith(b"\n"):
                    break
                self._apply(event)
            except (ValueError, KeyError, TypeError):
                break
            self._size += len(line)
        if self.status == "done":
            self.let_go(self.num_points)

    def _on_disk(self) -> list[Point]:
        """Read the evaluations in the file."""
        with self.path.open("rb") as file:
            events = (json.loads(line) for line in file.read(self._size).splitlines())
            return [_point(event) for event in events if event["event"] == "result"]

    def _apply(self, event: Mapping[str, Any]) -> None:
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


class Journal:
    """All trials of a sweep.

    Args:
        folder: Where their files lie; made when missing.
        keys: The trials' keys.
    """

    def __init__(self, folder: Path, keys: Iterable[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.trials = {key: TrialJournal(folder / f"{key}.jsonl") for key in keys}

    def __getitem__(self, key: str) -> TrialJournal:
        return self.trials[key]

    def count(self, status: Status) -> int:
        """Count the trials of a status."""
        return sum(trial.status == status for trial in self.trials.values())

    def flush(self) -> bool:
        """Try again to write what could not be written; return whether all of it is on disk."""
        flushed = [trial.flush() for trial in self.trials.values()]
        return all(flushed)

    def blocked(self) -> str:
        """Say why results cannot be written at the moment; nothing when they can."""
        return next((trial.blocked for trial in self.trials.values() if trial.blocked), "")

    def missing(self) -> list[str]:
        """List the trials that are not finished, in the grid's order; failed ones are among them."""
        return [key for key, trial in self.trials.items() if trial.status != "done"]


def _point(event: Mapping[str, Any]) -> Point:
    return Point(event["step"], event["time_ms"], event["wall_s"], dict(event["metrics"]))


def _is_finite(value: Any) -> bool:
    try:
        return abs(float(value)) < float("inf")
    except (TypeError, ValueError):
        return False
