"""Draw the states that a tutor is graded on: those that students of every skill visit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import legal_mask
from rllib_plugins.evaluation import mask_policy, sample_actions
from rllib_plugins.tasks.base import Task
from tutor_service.errors import UserError

NUM_ENVS = 16
"""Players where the environments are array code."""

NUM_TURNS_ENVS = 4
"""Players where they are stepped one after the other."""

MAX_STEPS = 1_024


class VisitedStates(NamedTuple):
    """Distinct flat observations ``(n, obs_dim)`` and how often each was visited ``(n,)``."""

    states: NDArray[np.float32]
    visits: NDArray[np.int64]


def visited_states(task: Task, num_states: int, seed: int) -> VisitedStates:
    """Draw states that students visit.

    The players, from one that is all random to one that is the oracle, share the visits: player i of n plays at random
    with probability 1 − i/(n − 1), as a student does on its way to competence. Without an oracle all play at random.
    They play until each has ended an episode and there are at least twice as many visits as asked for.
    ``num_states`` of these are drawn with equal chances; states with a single legal action, in which there is nothing
    to advise, are left out.

    Args:
        task: The task.
        num_states: Visits to draw; their sum.
        seed: Seeds the environments and the draws.

    Raises:
        UserError: ``num_states`` is below 1, or no visited state has a choice.
    """
    if num_states < 1:
        raise UserError(f"num_states = {num_states}: must be at least 1.")
    num_envs = NUM_ENVS if task.is_native else NUM_TURNS_ENVS
    rng = np.random.default_rng([seed, 2])  # not the environments' own stream
    skill = np.linspace(0.0, 1.0, num_envs)
    visits: list[NDArray[np.float32]] = []
    num_visits = 0
    unfinished = np.ones(num_envs, dtype=bool)
    with task.borrow_vec(num_envs, seed) as envs:
        observations, _ = envs.reset(seed=seed)
        for _ in range(MAX_STEPS + 2 * num_states // num_envs):
            visits.append(observations[legal_mask(task, observations).sum(axis=1) > 1])
            probabilities = task.uniform_policy(observations)
            expert = np.flatnonzero(rng.random(num_envs) < skill)
            advice = task.oracle_batch(observations[expert]) if len(expert) else None
            if advice is not None:
                probabilities[expert] = mask_policy(task, observations[expert], advice)
            observations, _, terminated, truncated, _ = envs.step(sample_actions(probabilities, rng))
            unfinished &= ~(terminated | truncated)
            num_visits += len(visits[-1])
            if not unfinished.any() and num_visits >= 2 * num_states:
                break
    pool = np.concatenate(visits)
    if not len(pool):
        raise UserError(f"task '{task.name}': no visited state has more than one legal action: nothing to grade.")
    drawn = pool[rng.integers(len(pool), size=num_states)]
    return VisitedStates(*np.unique(drawn, axis=0, return_counts=True))
