"""Bring one trial's run in MLflow up to its journal: made once, each point there once, ended when the trial ends.

Several threads may each bring another trial up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import yaml

from rllib_plugins import metrics
from tune_sweeps.definition.config import UNTUTORED
from tune_sweeps.definition.grid import Trial
from tune_sweeps.tracking.journal import Journal, Point, Status, TrialJournal
from tune_sweeps.tracking.mlflow_client import search_runs

TAG_SWEEP_ID = "llm_tutors.sweep_id"
TAG_TRIAL = "llm_tutors.trial"
TAG_ERROR = "llm_tutors.error"
TAG_PARENT = "mlflow.parentRunId"
WALL_S = "wall_s"
STUDENT_ARTIFACT = "student.yaml"
POLICY_ARTIFACT = "policy"

_LOGGED = frozenset(metrics.ALL)
_BATCH = 900
_RUN_STATUS: dict[Status, str] = {"pending": "SCHEDULED", "running": "RUNNING", "done": "FINISHED", "failed": "FAILED"}


class PolicyKeeper(Protocol):
    """Find the policy that a finished trial leaves."""

    def folder(self, journal: TrialJournal) -> AbstractContextManager[Path | None]:
        """Have the folder that plays a finished trial's best policy within a ``with`` block; None: it left none."""

    def kept(self, journal: TrialJournal) -> None:
        """Learn that MLflow has it."""


@dataclass
class Child:
    """A trial's run, and how much of the journal it holds.

    Attributes:
        run_id: MLflow's id; empty where a request to make the run was cut off.
        sent: Points that it holds.
        status: MLflow's status.
        artifact_uri: Folder of its artifacts, for which MLflow's client would ask the server.
        described: Whether its parameters say which trial it is of.
        doubtful: Whether it may hold more or less than that: it is looked up before anything is sent.
    """

    run_id: str
    sent: int = 0
    status: str = "RUNNING"
    artifact_uri: str = ""
    described: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class SweepRun:
    """Where the runs of a sweep's trials belong.

    Attributes:
        client: MLflow's client.
        experiment_id: The experiment.
        parent_id: The sweep's own run.
        tags: Tags of all runs.
        trial_tags: Further tags, by trial key.
    """

    client: Any
    experiment_id: str
    parent_id: str
    tags: Mapping[str, str]
    trial_tags: Mapping[str, Mapping[str, str]]


class ChildRuns:
    """The runs of a sweep's trials.

    Args:
        sweep: Where they belong.
        trials: The trials, by key.
        journal: What happened to them.
        keep_policy: Finds the policy that a finished trial leaves, an artifact of its run; None: none is kept.
    """

    def __init__(
        self, sweep: SweepRun, trials: Mapping[str, Trial], journal: Journal, keep_policy: PolicyKeeper | None
    ) -> None:
        self._sweep = sweep
        self._client = sweep.client
        self._trials = trials
        self._journal = journal
        self._keep_policy = keep_policy
        self._children: dict[str, Child] = {}

    def find(self, runs: Iterable[Any]) -> None:
        """Learn which runs MLflow has; what each holds is looked up when something is to be sent to it."""
        for run in runs:
            key = run.data.tags.get(TAG_TRIAL)
            if key not in self._trials:
                continue
            journal = self._journal[key]
            whole = run.info.status == "FINISHED" and journal.status == "done"  # ended only once all points are there
            self._children[key] = Child(
                run.info.run_id,
                journal.num_points if whole else 0,
                run.info.status,
                run.info.artifact_uri,
                described=whole,
                doubtful=not whole,
            )

    def due(self) -> list[str]:
        """List the trials of which MLflow lacks something."""
        return [key for key, journal in self._journal.trials.items() if self._is_due(key, journal)]

    def behind_since_ms(self) -> int | None:
        """Return when the oldest point that MLflow lacks was reported, in Unix milliseconds; None where it has all."""
        times = []
        for key in self.due():
            child = self._children.get(key)
            times += [point.time_ms for point in self._journal[key].points_from(child.sent if child else 0)[:1]]
        return min(times, default=None)

    def running(self) -> list[str]:
        """List the ids of the runs that MLflow shows as running."""
        return [child.run_id for child in self._children.values() if child.status == "RUNNING" and child.run_id]

    def bring_up(self, key: str) -> None:
        """Send what MLflow lacks of a trial; raise whatever MLflow raises, and look up what it holds the next time."""
        journal = self._journal[key]
        child = self._children.setdefault(key, Child("", doubtful=False))
        try:
            self._bring_up(key, child, journal)
        except BaseException:
            child.doubtful = True
            raise
        journal.let_go(child.sent)

    def _is_due(self, key: str, journal: TrialJournal) -> bool:
        if journal.status == "pending":
            return False
        child = self._children.get(key)
        return child is None or child.sent < journal.num_points or child.status != _RUN_STATUS[journal.status]

    def _bring_up(self, key: str, child: Child, journal: TrialJournal) -> None:
        status = journal.status  # before the points: a trial that ends meanwhile is ended in the next pass
        if child.doubtful:
            self._look_up(key, child, journal)
        if not child.run_id:
            self._make(key, child)
        points = journal.points_from(child.sent)
        if points or not child.described:
            self._log(child, [] if child.described else _parameters(self._trials[key]), points)
            child.described = True
            child.sent += len(points)
        wanted = _RUN_STATUS[status]
        if child.status == wanted or child.sent != journal.num_points:
            return
        if status == "failed":
            self._client.set_tag(child.run_id, TAG_ERROR, journal.error[:5000])
        if status == "done" and self._keep_policy is not None:
            self._log_policy(child, journal, self._keep_policy)
        end = journal.points[-1].time_ms if journal.points and status == "done" else None
        if wanted == "RUNNING":
            self._client.update_run(child.run_id, status=wanted)
        else:
            self._client.set_terminated(child.run_id, wanted, end)
        child.status = wanted

    def _log_policy(self, child: Child, journal: TrialJournal, keeper: PolicyKeeper) -> None:
        with keeper.folder(journal) as folder:
            if folder is not None:
                self._artifacts(child).log_artifacts(str(folder), POLICY_ARTIFACT)
        if folder is not None:
            keeper.kept(journal)

    def _look_up(self, key: str, child: Child, journal: TrialJournal) -> None:
        """Learn what MLflow holds of a trial, where a request was cut off or another driver sent it.

        A run that somebody deleted is none: it takes nothing more.
        """
        run = self._client.get_run(child.run_id) if child.run_id else None
        if run is None or run.info.lifecycle_stage == "deleted":
            query = f"tags.`{TAG_SWEEP_ID}` = '{self._sweep.tags[TAG_SWEEP_ID]}' and tags.`{TAG_TRIAL}` = '{key}'"
            run = next(iter(search_runs(self._client, self._sweep.experiment_id, query)), None)
        if run is None:
            child.run_id, child.sent, child.status, child.artifact_uri = "", 0, "RUNNING", ""
            child.described = child.doubtful = False
            return
        child.run_id, child.status, child.artifact_uri = run.info.run_id, run.info.status, run.info.artifact_uri
        child.described = "algorithm" in run.data.params
        if not child.described:
            self._log_student(child, self._trials[key])
        child.sent = self._points_sent(run, journal)
        child.doubtful = False

    def _points_sent(self, run: Any, journal: TrialJournal) -> int:
        """Count the journal's points that MLflow holds, whole, of a run.

        A point is sent as one batch, which a server may have kept in part when it went away: the last point counts
        as sent only when all of its numbers are there.
        """
        if WALL_S not in run.data.metrics:
            return 0
        history = self._client.get_metric_history(run.info.run_id, WALL_S)
        last = max(entry.step for entry in history)
        points = journal.points_from(0)
        sent = sum(point.step <= last for point in points)
        if sent and run.info.status != "FINISHED" and not self._is_whole(run, points[sent - 1]):
            sent -= 1
        return sent

    def _is_whole(self, run: Any, point: Point) -> bool:
        return all(
            any(entry.step == point.step for entry in self._client.get_metric_history(run.info.run_id, name))
            for name in point.metrics
            if name in _LOGGED
        )

    def _make(self, key: str, child: Child) -> None:
        trial, sweep = self._trials[key], self._sweep
        tags = {**sweep.tags, TAG_TRIAL: key, TAG_PARENT: sweep.parent_id, **sweep.trial_tags.get(key, {})}
        run = self._client.create_run(
            sweep.experiment_id, start_time=self._journal[key].started_ms, run_name=trial.label, tags=tags
        )
        child.run_id, child.artifact_uri = run.info.run_id, run.info.artifact_uri
        self._log_student(child, trial)

    def _log_student(self, child: Child, trial: Trial) -> None:
        student = yaml.safe_dump(trial.student.model_dump(mode="json"), sort_keys=False)
        with TemporaryDirectory() as folder:
            file = Path(folder) / STUDENT_ARTIFACT
            file.write_text(student, encoding="utf-8")
            self._artifacts(child).log_artifact(str(file))

    def _artifacts(self, child: Child) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri as of_its_workspace

        server = self._client.tracking_uri
        return get_artifact_repository(of_its_workspace(child.artifact_uri, server), tracking_uri=server)

    def _log(self, child: Child, parameters: Sequence[Any], points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        params, batch = list(parameters), list[Any]()
        for point in points:
            entries = {name: value for name, value in point.metrics.items() if name in _LOGGED}
            entries[WALL_S] = point.wall_s
            if len(batch) + len(entries) > _BATCH:
                self._client.log_batch(child.run_id, metrics=batch, params=params)
                params, batch = [], []
            batch += [Metric(name, value, point.time_ms, point.step) for name, value in entries.items()]
        self._client.log_batch(child.run_id, metrics=batch, params=params)


def _parameters(trial: Trial) -> list[Any]:
    from mlflow.entities import Param

    cell = trial.cell
    params = {
        "algorithm": cell.algorithm,
        "tutor": cell.tutor,
        "task": cell.task,
        "use": cell.use or UNTUTORED,
        "reuse": {True: "on", False: "off", None: "none"}[cell.reuse],
        "seed": str(trial.seed),
    }
    return [Param(name, value) for name, value in params.items()]
