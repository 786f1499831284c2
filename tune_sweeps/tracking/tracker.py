"""Fill MLflow from the journal: an experiment, a parent run per sweep, a child run per trial.

Each point arrives once. A thread of its own reads the journal, so that a slow or absent MLflow costs trials nothing;
whatever has not arrived yet is still in the journal.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_sweeps.definition.grid import Trial
from tune_sweeps.tracking.child_runs import TAG_SWEEP_ID, TAG_TRIAL, ChildRuns, PolicyKeeper, SweepRun
from tune_sweeps.tracking.journal import Journal
from tune_sweeps.tracking.mlflow_client import (
    database_file,
    is_gone,
    is_refusal,
    make_client,
    open_experiment,
    search_runs,
)
from tune_sweeps.tracking.prepared_view import put_view

logger = logging.getLogger(__name__)

TAG_SWEEP = "llm_tutors.sweep"
REFERENCES_FOLDER = "references"
CONFIG_ARTIFACT = "sweep.yaml"
DOUBTS_ARTIFACT, OWN_PLAY_ARTIFACT = "doubts.json", "own_play.json"
THREADS = 8
"""Trials that are sent to a server at once. A database file is written by one thread."""

_PERIOD_S = 1.0
_LONGEST_PAUSE_S = 15.0


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
        self._keep_policy = keep_policy
        self._client: Any = None
        self.parent_id = ""
        self._children: ChildRuns | None = None
        self._jsons: dict[str, dict[str, Any]] = {}
        self._files: list[tuple[Path, str]] = []
        self._references_found: set[str] = set()
        self._jsons_sent: dict[str, dict[str, Any]] = {}
        self._num_files_sent = 0
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
        self.keep_json(_references_artifact(task), {"task": task, "returns": returns})

    def keep_json(self, name: str, content: dict[str, Any]) -> None:
        """Keep what is known of the sweep with the parent run, where the report finds it.

        Args:
            name: The artifact's path.
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
        artifact = _references_artifact(task)
        return artifact in self._jsons or artifact in self._references_found

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
                for run_id in self._children.running() if self._children and status == "KILLED" else []:
                    self._client.set_terminated(run_id, "KILLED")
                return True
            except Exception as error:
                self._failed(error)
                if time.monotonic() > deadline:
                    return False
                time.sleep(_PERIOD_S)

    def behind_s(self) -> float:
        """Return how many seconds ago the oldest point that MLflow lacks was reported; 0 where it has all."""
        since = self._children.behind_since_ms() if self._children is not None else None
        return max(0.0, time.time() - since / 1000) if since is not None else 0.0

    def sync(self) -> None:
        """Bring MLflow up to the journal, in one pass; raise whatever MLflow raises first."""
        children = self._children = self._children or self._connect()
        for name, content in list(self._jsons.items()):
            if self._jsons_sent.get(name) is not content and name not in self._references_found:
                self._client.log_dict(self.parent_id, content, name)
                self._jsons_sent[name] = content
        for path, folder in self._files[self._num_files_sent :]:
            self._client.log_artifact(self.parent_id, str(path), folder)
            self._num_files_sent += 1
        self._bring_up(children)
        self.away_since = None

    def _bring_up(self, children: ChildRuns) -> None:
        """Send what is due, several trials at once.

        After the first failure nothing more is begun, except where MLflow refused what it was sent of one trial alone.
        """
        failed: list[Exception] = []
        refused: list[Exception] = []

        def send(key: str) -> None:
            if failed:
                return
            try:
                children.bring_up(key)
            except Exception as error:
                (refused if is_refusal(error) and not is_gone(error) else failed).append(error)

        with ThreadPoolExecutor(THREADS if database_file(self.uri) is None else 1) as pool:
            list(pool.map(send, children.due()))
        if failed or refused:
            raise (failed or refused)[0]

    def _connect(self) -> ChildRuns:
        """Find or make the experiment and the parent run, and find the runs of trials."""
        client = self._client = self._client or make_client(self.uri)
        sweep = self._sweep
        tags = {TAG_SWEEP: sweep.name, TAG_SWEEP_ID: sweep.sweep_id, **sweep.tags}
        experiment_id = open_experiment(client, sweep.name, sweep.artifact_location)
        runs = search_runs(client, experiment_id, f"tags.`{TAG_SWEEP_ID}` = '{sweep.sweep_id}'")
        parents = [run for run in runs if TAG_TRIAL not in run.data.tags]
        if parents:
            self.parent_id = parents[0].info.run_id
            client.update_run(self.parent_id, status="RUNNING")
            known = client.list_artifacts(self.parent_id, REFERENCES_FOLDER)
            self._references_found = {item.path for item in known}
        else:
            self.parent_id = client.create_run(experiment_id, run_name=sweep.name, tags=tags).info.run_id
            self._references_found.clear()
            self._jsons_sent.clear()
            self._num_files_sent = 0
        put_view(client, experiment_id, self.parent_id, {trial.cell.task for trial in sweep.trials.values()})
        client.log_text(self.parent_id, sweep.config_yaml, CONFIG_ARTIFACT)  # seeds may have been added
        where = SweepRun(client, experiment_id, self.parent_id, tags, sweep.trial_tags)
        children = ChildRuns(where, sweep.trials, self._journal, self._keep_policy)
        children.find(runs)
        return children

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
        """Go on later: MLflow is away, or refuses. What was being sent is looked up then."""
        if is_refusal(error):  # the database is another one than before, or somebody deleted the sweep's runs
            self._children = None
        if self.away_since is None:
            self.away_since = time.monotonic()
            logger.warning("MLflow at %s failed; what it misses is kept and sent later: %s", self.uri, error)


def _references_artifact(task: str) -> str:
    return f"{REFERENCES_FOLDER}/{re.sub(r'[^A-Za-z0-9._-]', '_', task)}.json"
