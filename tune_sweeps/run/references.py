"""Measure the players that a task's students are compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.evaluation import evaluate
from rllib_plugins.tasks import Task
from rllib_plugins.yardsticks import EPISODES, trivial_players, untrained_returns
from tune_sweeps.tracking.reader import ORACLE, UNTRAINED


def reference_returns(task: Task, *, oracle: bool) -> dict[str, float]:
    """Return the mean returns of the task's trivial players, of untrained networks and, where wished, of its oracle.

    Args:
        task: The task.
        oracle: Whether the oracle plays, which may take a solver's time.
    """
    returns = {player.name: player.evaluation.return_mean for player in trivial_players(task)}
    returns[UNTRAINED] = float(untrained_returns(task).mean())
    if oracle:

        def policy(observations: NDArray[np.float32]) -> NDArray[np.float64]:
            found = task.oracle_batch(observations)
            assert found is not None, f"task '{task.name}' has no oracle"
            return found

        returns[ORACLE] = evaluate(task, policy, episodes=EPISODES, seed=0).return_mean
    task.close()
    return returns
