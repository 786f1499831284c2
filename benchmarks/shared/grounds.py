"""Where the learning benchmarks compare students: tasks that an untutored student needs long for, and their tutors.

An untutored student takes at least twenty evaluation intervals to the threshold on each of them. FrozenLake is none of
them: on its 8 by 8 map untutored PPO and DQN saw no reward in 30,000 env steps, so that there is no threshold, and its
4 by 4 map PPO learnt in a tenth of that. Neither is Snake seen as a grid, of which untutored PPO and A2C learnt next to
nothing in 30,000 env steps. All this was tried on a tuning seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.algorithms.registry import ALGORITHMS
from rllib_plugins.hyperparameters import default_hyperparameters
from rllib_plugins.tasks.connect_four import ConnectFourTask

RULE = "win, block, else the middle"


class RuledConnectFour(ConnectFourTask):
    """Is Connect Four with a one-line rule as its oracle: win at once, else block, else play nearest the middle.

    The perfect oracle is out of reach of hundreds of trials: some positions take its solver a second.
    """

    oracle_is_best = False

    def oracle_batch(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the rule says of flat observations ``(n, 84)``, as ``(n, 7)``."""
        return np.asarray(self.trivial_players()[RULE](observations))


class Ground(NamedTuple):
    """Is one place of comparison.

    Attributes:
        task: By name or as ``module:Class``; its oracle tutors.
        options: The task's.
        num_env_steps: Env steps of a trial.
        interval: Env steps between evaluations.
        episodes: Episodes per evaluation, where it is not exact.
        tutor_rule: The trivial player that tutors, where one does: the way to the threshold begins at the best of the
            others, since students are to come near their tutor and need not pass it.
        hyperparameters: By algorithm, what its students have beside the task's defaults.
    """

    task: str
    options: Mapping[str, Any]
    num_env_steps: int
    interval: int
    episodes: int
    tutor_rule: str = ""
    hyperparameters: Mapping[str, Mapping[str, Any]] = {}

    def trivial_returns(self) -> dict[str, float]:
        """Return what players that learn nothing reach, by name: constants, one-line rules, untrained networks."""
        from rllib_plugins.tasks import load_task
        from tune_sweeps.run.references import reference_returns

        return reference_returns(load_task(self.task, **self.options), oracle=False)


GROUNDS = {
    "blackjack": Ground("blackjack", {}, 20_000, interval=50, episodes=1),
    "snake_8x8": Ground(
        "snake", {"size": 8}, 30_000, interval=250, episodes=20, hyperparameters={"a2c": {"gamma": 0.95}}
    ),
    "connect_four_greedy": Ground(
        "benchmarks.shared.grounds:RuledConnectFour",
        {"opponent": "greedy"},
        40_000,
        interval=400,
        episodes=200,
        tutor_rule=RULE,
        hyperparameters={algorithm: default_hyperparameters(algorithm, "connect_four") for algorithm in ALGORITHMS},
    ),
}
"""By name. A2C's hyperparameters on Snake were chosen untutored, on tuning seeds, among four."""
