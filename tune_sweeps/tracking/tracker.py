"""Fill MLflow from the journal: an experiment, a parent run per sweep, a child run per trial.

Each point arrives once. A thread of its own reads the journal, so that a slow or absent MLflow costs trials nothing;
whatever has not arrived yet is still in the journal.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from rllib_plugins import metrics
from tune_sweeps.definition.grid import Trial
from tune_sweeps.tracking.journal import Journal, Status, TrialJournal
from tune_sweeps.tracking.mlflow_client import make_client, open_experiment, search_runs
from tune_sweeps.tracking.prepared_view import put_view

logger = logging.getLogger(__name__)

TAG_SWEEP = "llm_tutors.sweep"
TAG_SWEEP_ID = "llm_tutors.sweep_id"
TAG_TRIAL = "llm_tutors.trial"
TAG_ERROR = "llm_tutors.error"
TAG_PARENT = "mlflow.parentRunId"
WALL_S = "wall_s"
REFERENCES_FOLDER = "references"
CONFIG_ARTIFACT = "sweep.yaml"
DOUBTS_ARTIFACT, OWN_PLAY_ARTIFACT = "doubts.json", "own_play.json"
STUDENT_ARTIFACT = "student.yaml"
POLICY_ARTIFACT = "policy"

_LOGGED = frozenset(metrics.ALL)
_BATCH = 900
_PERIOD_S = 1.0
_LONGEST_PAUSE_S = 15.0
_RUN_STATUS: dict[Status, str] = {"pending": "SCHEDULED", "running": "RUNNING", "done": "FINISHED", "failed": "FAILED"}


@dataclass
class _Child:
    """A trial's run, and how much of the journal it holds."""

    run_id: str
    sent: int = 0
    status: str = "RUNNING"


class PolicyKeeper(Protocol):
    """Find the policy that a finished trial leaves."""

    def folder(self, journal: TrialJournal) -> AbstractContextManager[Path | None]:
        """Have the folder that plays a finished trial's best policy within a ``with`` block; None: it left none."""

    def kept(self, journal: TrialJournal) -> None:
        """Learn that MLflow has it."""


@dataclass(frozen=True)
class TrackedSweep:
    """A sweep as MLflow is told of it.

    Attributes:
        name: Name of the sweep and of its experiment.
        sweep_id: Identifies the sweep: runs are found again by it, never made twice.
        config_yaml: The sweep's configuration, an artifact of the parent run.
        trials: The trials, by key.
        tags: Tags of all runs.
        trial_tags: Further tags, by trial key.
        artifact_location: Where artifacts of a new experiment go; None: as the server decides.
    """

    name: str
    sweep_id: str
    config_yaml: str
    trials: Mapping[str, Trial]
    tags: Mapping[str, str]
    trial_tags: Mapping[str, Mapping[str, str]]
    artifact_location: str | None


class MlflowTracker:
    """Keep MLflow up with the journal.

    Args:
        uri: Tracking URI.
        sweep: The sweep.
        journal: What happened to its trials.
        keep_policy: Finds the policy that a finished trial leaves, an artifact of its run; None: none is kept.
    """

    def __init__(
        self, uri: str, sweep: TrackedSweep, journal: Journal, keep_policy: PolicyKeeper | None = None
    ) -> None:
        self.uri = uri
        self._sweep = sweep
        self._journal = journal
        self._tags = {TAG_SWEEP: sweep.name, TAG_SWEEP_ID: sweep.sweep_id, **sweep.tags}
        self._keep_policy = keep_policy
        self._client: Any = None
        self._experiment_id = ""
        self.parent_id = ""
        self._children: dict[str, _Child] = {}
        self._references: dict[str, dict[str, float]] = {}
        self._references_sent: set[str] = set()
        self._jsons: dict[str, dict[str, Any]] = {}
        self._files: list[tuple[Path, str]] = []
        self._doubtful = True
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self.away_since: float | None = None

    def start(self) -> None:
        """Connect and follow the journal in the background."""
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look at the journal soon: something happened."""
        self._wake.set()

    def set_references(self, task: str, returns: dict[str, float]) -> None:
        """Keep the returns of a task's reference players with the parent run, where the report finds them."""
        self._references[task] = returns
        self.wake()

    def keep_json(self, name: str, content: dict[str, Any]) -> None:
        """Keep what is known of the sweep's tutors with the parent run, where the report finds it.

        Args:
            name: The artifact's file name.
            content: What JSON can hold.
        """
        self._jsons[name] = content
        self.wake()

    def keep_file(self, path: Path, folder: str) -> None:
        """Keep a file with the parent run, in a folder of its artifacts."""
        self._files.append((path, folder))
        self.wake()

    def knows_references(self, task: str) -> bool:
        """Say whether the references of a task are known here or were found in MLflow."""
        return task in self._references or _file_name(task) in self._references_sent

    def finish(self, status: str, timeout_s: float) -> bool:
        """Send what is left, and end the parent run.

        Args:
            status: MLflow's status of the parent run: FINISHED, FAILED or KILLED.
            timeout_s: Most seconds to wait for MLflow.

        Returns:
            Whether everything has arrived. If not, it is still in the journal.
        """
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.sync()
                self._client.set_terminated(self.parent_id, status)
                for child in self._children.values():
                    if child.status == "RUNNING" and status == "KILLED":
                        self._client.set_terminated(child.run_id, "KILLED")
                return True
            except Exception as error:
                self._failed(error)
                if time.monotonic() > deadline:
                    return False
                time.sleep(_PERIOD_S)

    def sync(self) -> None:
        """Bring MLflow up to the journal, in one pass; raise whatever MLflow raises."""
        if self._doubtful:
            self._connect()
        for task, returns in list(self._references.items()):
            if _file_name(task) not in self._references_sent:
                kept = {"task": task, "returns": returns}
                self._client.log_dict(self.parent_id, kept, f"{REFERENCES_FOLDER}/{_file_name(task)}")
                self._references_sent.add(_file_name(task))
        for name, content in list(self._jsons.items()):
            self._client.log_dict(self.parent_id, content, name)
            if self._jsons.get(name) is content:
                del self._jsons[name]
        for key, journal in self._journal.trials.items():
            if journal.status != "pending":
                self._sync_trial(key, journal)
        while self._files:
            path, folder = self._files[0]
            self._client.log_artifact(self.parent_id, str(path), folder)
            self._files.pop(0)
        self.away_since = None

    def _sync_trial(self, key: str, journal: TrialJournal) -> None:
        status = journal.status  # before the points: a trial that ends meanwhile is ended in the next pass
        child = self._children.get(key) or self._make_child(key)
        points = journal.points[child.sent :]
        if points:
            self._log_points(child, points)
            child.sent += len(points)
        wanted = _RUN_STATUS[status]
        if child.status != wanted and child.sent == len(journal.points):
            if status == "failed":
                self._client.set_tag(child.run_id, TAG_ERROR, journal.error[:5000])
            if status == "done" and self._keep_policy is not None:
                with self._keep_policy.folder(journal) as folder:
                    if folder is not None:
                        self._client.log_artifacts(child.run_id, str(folder), POLICY_ARTIFACT)
                if folder is not None:
                    self._keep_policy.kept(journal)
            end = journal.points[-1].time_ms if journal.points and status == "done" else None
            if wanted == "RUNNING":
                self._client.update_run(child.run_id, status=wanted)
            else:
                self._client.set_terminated(child.run_id, wanted, end)
            child.status = wanted

    def _log_points(self, child: _Child, points: Sequence[Any]) -> None:
        from mlflow.entities import Metric

        batch: list[Any] = []
        for point in points:
            entries = {name: value for name, value in point.metrics.items() if name in _LOGGED}
            entries[WALL_S] = point.wall_s
            if len(batch) + len(entries) > _BATCH:
                self._client.log_batch(child.run_id, metrics=batch)
                batch = []
            batch += [Metric(name, value, point.time_ms, point.step) for name, value in entries.items()]
        self._client.log_batch(child.run_id, metrics=batch)

    def _connect(self) -> None:
        """Find or make the experiment and the parent run, and look up what MLflow holds of each trial."""
        client = self._client = self._client or make_client(self.uri)
        name = self._sweep.name
        self._experiment_id = open_experiment(client, name, self._sweep.artifact_location)
        runs = search_runs(client, self._experiment_id, f"tags.`{TAG_SWEEP_ID}` = '{self._sweep.sweep_id}'")
        parents = [run for run in runs if TAG_TRIAL not in run.data.tags]
        if parents:
            self.parent_id = parents[0].info.run_id
            client.update_run(self.parent_id, status="RUNNING")
            known = client.list_artifacts(self.parent_id, REFERENCES_FOLDER)
            self._references_sent |= {item.path.rpartition("/")[2] for item in known}
        else:
            run = client.create_run(self._experiment_id, run_name=name, tags=self._tags)
            self.parent_id = run.info.run_id
        put_view(
            client, self._experiment_id, self.parent_id, {trial.cell.task for trial in self._sweep.trials.values()}
        )
        client.log_text(self.parent_id, self._sweep.config_yaml, CONFIG_ARTIFACT)  # seeds may have been added
        self._children = {}
        for run in runs:
            key = run.data.tags.get(TAG_TRIAL)
            if key in self._sweep.trials:
                child = _Child(run.info.run_id, status=run.info.status)
                if "algorithm" not in run.data.params:
                    self._describe(child, self._sweep.trials[key])
                child.sent = self._points_sent(run, self._journal[key])
                self._children[key] = child
        self._doubtful = False

    def _points_sent(self, run: Any, journal: TrialJournal) -> int:
        """Count the journal's points that MLflow holds, whole, of a run.

        A point is sent as one batch, which a server may have kept in part when it went away: the last point counts
        as sent only when all of its numbers are there.
        """
        if WALL_S not in run.data.metrics:
            return 0
        history = self._client.get_metric_history(run.info.run_id, WALL_S)
        last = max(entry.step for entry in history)
        sent = sum(point.step <= last for point in journal.points)
        if sent and run.info.status != "FINISHED" and not self._is_whole(run, journal.points[sent - 1]):
            sent -= 1
        return sent

    def _is_whole(self, run: Any, point: Any) -> bool:
        return all(
            any(entry.step == point.step for entry in self._client.get_metric_history(run.info.run_id, name))
            for name in point.metrics
            if name in _LOGGED
        )

    def _make_child(self, key: str) -> _Child:
        trial = self._sweep.trials[key]
        tags = {**self._tags, TAG_TRIAL: key, TAG_PARENT: self.parent_id, **self._sweep.trial_tags.get(key, {})}
        self._doubtful = True  # until the answer is here, the run may or may not have been made
        run = self._client.create_run(
            self._experiment_id, start_time=self._journal[key].started_ms, run_name=trial.label, tags=tags
        )
        child = _Child(run.info.run_id)
        self._describe(child, trial)
        self._children[key] = child
        self._doubtful = False
        return child

    def _describe(self, child: _Child, trial: Trial) -> None:
        from mlflow.entities import Param

        cell = trial.cell
        student = yaml.safe_dump(trial.student.model_dump(mode="json"), sort_keys=False)
        self._client.log_text(child.run_id, student, STUDENT_ARTIFACT)
        params = {
            "algorithm": cell.algorithm,
            "tutor": cell.tutor,
            "task": cell.task,
            "reuse": {True: "on", False: "off", None: "none"}[cell.reuse],
            "seed": str(trial.seed),
        }
        self._client.log_batch(child.run_id, params=[Param(name, value) for name, value in params.items()])

    def _follow(self) -> None:
        pause = _PERIOD_S
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.sync()
                pause = _PERIOD_S
            except Exception as error:
                self._failed(error)
                pause = min(_LONGEST_PAUSE_S, pause * 2)
            self._stop.wait(pause)
            if pause == _PERIOD_S:
                self._wake.wait(30.0)

    def _failed(self, error: Exception) -> None:
        """Look up again what MLflow holds before anything is sent: it is away, or refused."""
        self._doubtful = True
        if self.away_since is None:
            self.away_since = time.monotonic()
            logger.warning("MLflow at %s failed; what it misses is kept and sent later: %s", self.uri, error)


def _file_name(task: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", task) + ".json"
