"""Vector steps of a student that acts by itself, in machine code: forward pass, draw and record in one call each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rllib_plugins.advising.kernels import BEHAVIOUR, POLICY, draw
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.mlp import Network, Workspace, both_heads, dueling

_NO_STEPS = np.empty((0, 0, 0), np.float32)
_NO_LEGAL = np.empty((0, 0, 0), dtype=bool)


class Actor(NamedTuple):
    """Say what a student acts by.

    Attributes:
        network: Actor and critic, or the online Q-network.
        workspace: For one row per environment.
        value_based: The student is ε-greedy on Q-values; else it draws by softmax.
        draws: ``(T, n)`` uniform draws, one per action.
        epsilons: ``(T,)`` of a value student.
    """

    network: Network
    workspace: Workspace
    value_based: bool
    draws: Floats
    epsilons: Floats


class Steps(NamedTuple):
    """Hold the arrays of a rollout that a student fills which acts by itself; see ``RolloutArrays``.

    ``next_observations`` and ``legal`` have no vector steps where a rollout goes without them.
    """

    observations: Floats32
    next_observations: Floats32
    actions: Ints
    rewards: Floats32
    terminated: Bools
    truncated: Bools
    values: Floats32
    probabilities: Floats32
    logits: Floats32
    legal: Bools

    @classmethod
    def of(cls, rollout: RolloutArrays) -> Steps:
        """Return the arrays of a rollout."""
        return cls(
            rollout.observations,
            _NO_STEPS if rollout.next_observations is None else rollout.next_observations,
            rollout.actions,
            rollout.rewards,
            rollout.terminated,
            rollout.truncated,
            rollout.values,
            rollout.probabilities,
            rollout.logits,
            _NO_LEGAL if rollout.legal is None else rollout.legal,
        )


class Episodes(NamedTuple):
    """Sum up returns.

    Attributes:
        running: ``(n,)`` returns of the running episodes.
        finished: ``(2,)`` sum of the returns of the episodes that ended, and their number.
    """

    running: Floats
    finished: Floats


@compiled
def softmax(logits: Floats32, legal: Bools, row: int, out: Floats) -> None:
    """Write the probabilities of a row of logits into ``out`` ``(A,)``, 0 on illegal actions; ``legal`` may be empty.

    Where no action is legal they are NaN.
    """
    highest, total = -math.inf, 0.0
    for action in range(len(out)):
        out[action] = logits[row, action] if len(legal) == 0 or legal[row, action] else -math.inf
        if not out[action] <= highest:  # NaN stays
            highest = out[action]
    for action in range(len(out)):
        out[action] = math.exp(out[action] - highest)
        total += out[action]
    for action in range(len(out)):
        out[action] /= total


@compiled
def explore(q_values: Floats32, legal: Bools, row: int, epsilon: float, out: Floats) -> np.float32:
    """Write the ε-greedy probabilities of a row of Q-values into ``out`` ``(A,)``; ``legal`` may be empty.

    Returns:
        The highest Q-value of a legal action; where none is (a finished game) of any.
    """
    num_legal = 0
    for action in range(len(out)):
        num_legal += len(legal) == 0 or legal[row, action]
    best, first, highest = 0, True, q_values[row, 0]
    for action in range(len(out)):
        if num_legal == 0 or len(legal) == 0 or legal[row, action]:
            value = q_values[row, action]
            if first or value > highest or (math.isnan(value) and not math.isnan(highest)):
                best, first, highest = action, False, value
    best = best if num_legal else 0
    for action in range(len(out)):
        out[action] = 1.0 - epsilon if action == best else 0.0
        if len(legal) == 0 or legal[row, action]:
            out[action] += epsilon / num_legal
    return highest


@compiled
def act(actor: Actor, steps: Steps, t: int, observations: Floats32, legal: Bools) -> bool:
    """Act in every environment and write that into vector step ``t``.

    Args:
        actor: What the student acts by.
        steps: Output.
        t: Vector step.
        observations: ``(n, obs_dim)``.
        legal: ``(n, A)``; empty: all actions are.

    Returns:
        Whether all distributions were valid.
    """
    if actor.value_based:
        scores = dueling(actor.network, observations, actor.workspace)
        state_values = scores
    else:
        scores, state_values = both_heads(actor.network, observations, actor.workspace)
    is_sound, policy = True, np.empty(scores.shape[1])
    for row in range(len(scores)):
        if actor.value_based:
            steps.values[t, row] = explore(scores, legal, row, actor.epsilons[t], policy)
        else:
            softmax(scores, legal, row, policy)
            steps.values[t, row] = state_values[row, 0]
        action = draw(policy, actor.draws[t, row])
        is_sound = is_sound and policy[action] > 0.0
        steps.actions[t, row] = action
        steps.probabilities[BEHAVIOUR, t, row] = steps.probabilities[POLICY, t, row] = policy[action]
        for other in range(len(policy)):
            steps.logits[t, row, other] = scores[row, other]
        for i in range(observations.shape[1]):
            steps.observations[t, row, i] = observations[row, i]
    if len(steps.legal):
        steps.legal[t] = legal
    return is_sound


@compiled
def note(steps: Steps, t: int, following: Floats32, final: Floats32, rewards: Any, episodes: Episodes) -> int:
    """Write what vector step ``t`` led to, whose ends of episodes are written already.

    Args:
        steps: Output.
        t: Vector step.
        following: ``(n, obs_dim)`` what is seen next.
        final: ``(n, obs_dim)`` the same before any reset, where an episode ended.
        rewards: ``(n,)``.
        episodes: Output.

    Returns:
        The number of episodes that were cut off.
    """
    num_cut, total = 0, 0.0
    for row in range(len(rewards)):
        ended = steps.terminated[t, row] or steps.truncated[t, row]
        steps.rewards[t, row] = rewards[row]
        episodes.running[row] += rewards[row]
        if ended:
            total += episodes.running[row]
            episodes.finished[1] += 1.0
            episodes.running[row] = 0.0
            num_cut += not steps.terminated[t, row]
        if len(steps.next_observations):
            for i in range(following.shape[1]):
                steps.next_observations[t, row, i] = final[row, i] if ended else following[row, i]
    episodes.finished[0] += total
    return num_cut
