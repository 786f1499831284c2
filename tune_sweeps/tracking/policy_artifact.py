"""Keep the best policy of a trial as an artifact of its run, fetch it and load it again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from rllib_plugins.config import StudentConfig
from tune_sweeps.storage.checkpoints import Checkpoints
from tune_sweeps.tracking.child_runs import POLICY_ARTIFACT, STUDENT_ARTIFACT
from tune_sweeps.tracking.journal import EVAL, TrialJournal
from tune_sweeps.tracking.reader import find_trials
from tutor_service.errors import UserError, unknown_name

MODULE = Path("learner_group", "learner", "rl_module", "default_policy")
"""Where RLlib keeps a policy's network within an algorithm's checkpoint."""


class Fetched(NamedTuple):
    """A policy that was brought here.

    Attributes:
        student: The trial's student.
        path: The policy's folder.
        label: The trial, for a person.
    """

    student: StudentConfig
    path: Path
    label: str


class BestPolicies:
    """Find the best policy among a finished trial's checkpoints, and remove these once it is kept elsewhere.

    A finished trial is never continued, and checkpoints with a replay buffer are large.

    Args:
        checkpoints: Those of the sweep.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def folder(self, journal: TrialJournal) -> AbstractContextManager[Path | None]:
        """Have the part that plays of the checkpoint whose evaluation was best, within a ``with`` block."""
        best = journal.best_checkpoint(self._checkpoints.has)
        return self._checkpoints.folder(f"{best}/algorithm/{MODULE.as_posix()}") if best else nullcontext()

    def kept(self, journal: TrialJournal) -> None:
        """Remove the trial's checkpoints."""
        for saved in journal.checkpoints:
            self._checkpoints.remove(saved.path)


@contextmanager
def fetched_policy(uri: str, sweep: str, key: str | None) -> Iterator[Fetched]:
    """Have the policy of a trial here within a ``with`` block.

    Args:
        uri: Tracking URI.
        sweep: Name of the sweep.
        key: The trial's key; None: the one with the best greedy return at its end.

    Raises:
        UserError: No such sweep or trial, or the trial has no policy (it has not finished).
    """
    client, runs = find_trials(uri, sweep)
    if key is not None and key not in runs:
        raise unknown_name(f"trial of sweep '{sweep}'", key, runs)
    if key is None:
        finished = {name: run for name, run in runs.items() if run.info.status == "FINISHED"}
        if not finished:
            raise UserError(f"no trial of sweep '{sweep}' is finished yet: there is no policy to play.")
        key = max(finished, key=lambda name: finished[name].data.metrics.get(EVAL, -np.inf))
    run_id = runs[key].info.run_id
    with tempfile.TemporaryDirectory(prefix="llm-tutors-", ignore_cleanup_errors=True) as folder:
        fields = Path(client.download_artifacts(run_id, STUDENT_ARTIFACT, folder)).read_text(encoding="utf-8")
        student = StudentConfig.model_validate(yaml.safe_load(fields))
        if not client.list_artifacts(run_id, POLICY_ARTIFACT):
            raise UserError(f"trial '{key}' of sweep '{sweep}' has no policy: it has not finished.")
        path = Path(client.download_artifacts(run_id, POLICY_ARTIFACT, folder))
        yield Fetched(student, path, runs[key].info.run_name)


def load_policy(student: StudentConfig, folder: Path) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """Return the task and the greedy policy of a student, from observations ``(n, obs_dim)`` to one-hot rows.

    Args:
        student: The trial.
        folder: Its policy.
    """
    from rllib_plugins.trial import build_algorithm, ensure_ray

    ensure_ray()
    algorithm = build_algorithm(student.model_copy(update={"tutor": "none"}))
    algorithm.restore_from_path(folder, component=str(MODULE))
    return algorithm.task, algorithm.greedy_policy
