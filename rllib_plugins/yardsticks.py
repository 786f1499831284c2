"""Play what a student's return is measured against: trivial players and networks that have learnt nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.evaluation import Evaluation, affordable_episodes, evaluate
from rllib_plugins.policies import greedy
from rllib_plugins.tasks.base import Policy, Task

EPISODES, LEAST_EPISODES = 500, 5
"""Episodes per player, and the fewest where environments are stepped one after the other."""

TRIVIAL_STEPS, UNTRAINED_STEPS = 20_000, 5_000
"""Env steps per trivial player and per untrained network, where environments are stepped one after the other."""

_HIDDEN = (64, 64)


class Yardstick(NamedTuple):
    """A player and what it reaches.

    Attributes:
        name: E.g. ``always 'stick'``, ``random`` or ``oracle``.
        evaluation: Its return.
    """

    name: str
    evaluation: Evaluation


def trivial_players(
    task: Task, *, episodes: int = EPISODES, max_steps: int = TRIVIAL_STEPS, seed: int = 0
) -> list[Yardstick]:
    """Return random play and the task's own trivial players with their returns, best first.

    A student that does not beat the first of them has learnt nothing that a line of code could not do.

    Example:
        >>> from rllib_plugins.tasks import load_task
        >>> best = trivial_players(load_task("blackjack"))[0]
        >>> best.name, round(best.evaluation.return_mean, 3)
        ('stick at 17', -0.079)
    """
    players = {"random": task.uniform_policy, **task.trivial_players()}
    episodes = affordable_episodes(task, episodes, max_steps, LEAST_EPISODES)
    found = [Yardstick(name, evaluate(task, player, episodes=episodes, seed=seed)) for name, player in players.items()]
    return sorted(found, key=lambda yardstick: -yardstick.evaluation.return_mean)


def untrained_returns(
    task: Task, *, num_policies: int = 20, episodes: int = EPISODES, seed: int = 0
) -> NDArray[np.float64]:
    """Return the mean returns of greedy networks with random weights, ``(num_policies,)``.

    They are R₀'s companion: evaluation is greedy, and an untrained network's greedy policy may be far better than
    random play, or worse. The networks are those of the students (two tanh layers of 64 units), with the weights
    uniform within ±1/√inputs as torch draws them.
    """
    episodes = affordable_episodes(task, episodes, UNTRAINED_STEPS, LEAST_EPISODES)
    streams = np.random.SeedSequence(seed).spawn(num_policies)
    return np.array(
        [
            evaluate(
                task, _untrained_policy(task, np.random.default_rng(stream)), episodes=episodes, seed=seed + i
            ).return_mean
            for i, stream in enumerate(streams)
        ]
    )


def _untrained_policy(task: Task, rng: np.random.Generator) -> Policy:
    sizes = (task.observation_space.shape[0], *_HIDDEN, task.num_actions)
    layers = []
    for inputs, outputs in pairwise(sizes):
        bound = 1.0 / np.sqrt(inputs)
        layers.append((rng.uniform(-bound, bound, (inputs, outputs)), rng.uniform(-bound, bound, outputs)))

    def policy(observations: NDArray[np.float32]) -> NDArray[np.float64]:
        hidden = observations.astype(np.float64)
        for weights, biases in layers[:-1]:
            hidden = np.tanh(hidden @ weights + biases)
        return greedy(hidden @ layers[-1][0] + layers[-1][1], task.legal_batch(observations))

    return policy
