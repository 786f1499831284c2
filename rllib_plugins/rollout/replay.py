"""A replay buffer of transitions in arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import NO_MASKS, NO_REWARDS, NO_ROWS, RolloutArrays
from rllib_plugins.rollout.ring import ArrayRing


class Transitions(NamedTuple):
    """Hold transitions, each array ``(batch_size, ...)``.

    Attributes:
        observations: ``(B, obs_dim)`` float32.
        next_observations: ``(B, obs_dim)`` float32, before any reset.
        actions: ``(B,)`` int64.
        rewards: ``(B,)`` float32.
        terminated: ``(B,)`` bool.
        consulted: ``(B,)`` bool: the action was the tutor's.
        legal: ``(B, A)`` masks of the observations, or ``NO_MASKS``.
        next_legal: ``(B, A)`` masks of the next observations, or ``NO_MASKS``.
        imitation: ``(B, A)``: Σ_a imitation·log softmax(Q/T)(a) is what imitation maximises; or ``NO_ROWS``.
    """

    observations: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    consulted: NDArray[np.bool_]
    legal: NDArray[np.bool_] = NO_MASKS
    next_legal: NDArray[np.bool_] = NO_MASKS
    imitation: NDArray[np.float32] = NO_ROWS


class Kept(NamedTuple):
    """Hold the arrays of a replay buffer, a row per transition, or those of a rollout, ``(T, N, ...)``."""

    observations: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    consulted: NDArray[np.bool_]


class Drawn(NamedTuple):
    """Say which transitions of a buffer make a batch, and hold what is not kept with them; see ``Transitions``.

    Attributes:
        kept: The buffer's arrays.
        places: ``(B,)`` rows of them.
        legal: Masks of the batch.
        next_legal: Likewise.
        imitation: What imitation maximises in the batch.
        rewards: ``(B,)`` what is added to the rewards that are kept, or ``NO_REWARDS``.
    """

    kept: Kept
    places: NDArray[np.int64]
    legal: NDArray[np.bool_] = NO_MASKS
    next_legal: NDArray[np.bool_] = NO_MASKS
    imitation: NDArray[np.float32] = NO_ROWS
    rewards: NDArray[np.float32] = NO_REWARDS


@compiled
def gather(drawn: Drawn) -> Transitions:
    """Copy the transitions of a batch."""
    kept, size = drawn.kept, len(drawn.places)
    observations = np.empty((size, kept.observations.shape[1]), np.float32)
    next_observations = np.empty_like(observations)
    actions, rewards = np.empty(size, np.int64), np.empty(size, np.float32)
    terminated, consulted = np.empty(size, np.bool_), np.empty(size, np.bool_)
    for row in range(size):
        place = drawn.places[row]
        for i in range(observations.shape[1]):
            observations[row, i] = kept.observations[place, i]
            next_observations[row, i] = kept.next_observations[place, i]
        actions[row], rewards[row] = kept.actions[place], kept.rewards[place]
        if len(drawn.rewards):
            rewards[row] += drawn.rewards[row]
        terminated[row], consulted[row] = kept.terminated[place], kept.consulted[place]
    return Transitions(
        observations,
        next_observations,
        actions,
        rewards,
        terminated,
        consulted,
        drawn.legal,
        drawn.next_legal,
        drawn.imitation,
    )


@compiled
def _add(kept: Kept, steps: Kept, start: int, stop: int, place: int) -> int:
    """Write vector steps ``start`` to ``stop`` of a rollout from row ``place`` on; return the row after the last."""
    capacity = len(kept.actions)
    for t in range(start, stop):
        for env in range(steps.actions.shape[1]):
            for i in range(kept.observations.shape[1]):
                kept.observations[place, i] = steps.observations[t, env, i]
                kept.next_observations[place, i] = steps.next_observations[t, env, i]
            kept.actions[place], kept.rewards[place] = steps.actions[t, env], steps.rewards[t, env]
            kept.terminated[place], kept.consulted[place] = steps.terminated[t, env], steps.consulted[t, env]
            place = place + 1 if place + 1 < capacity else 0
    return place


class ArrayReplayBuffer(ArrayRing):
    """Uniform experience replay (Mnih et al. 2015) on preallocated arrays.

    Args:
        capacity: Transitions kept; the oldest give way.
        obs_dim: Length of a flat observation.
        seed: Seed of the draws.
    """

    def __init__(self, capacity: int, obs_dim: int, seed: int) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "observations": np.zeros((capacity, obs_dim), np.float32),
            "next_observations": np.zeros((capacity, obs_dim), np.float32),
            "actions": np.zeros(capacity, np.int64),
            "rewards": np.zeros(capacity, np.float32),
            "terminated": np.zeros(capacity, bool),
            "consulted": np.zeros(capacity, bool),
        }
        super().__init__(arrays, seed)
        self._kept = Kept(**arrays)

    def add(self, rollout: RolloutArrays, start: int, stop: int) -> None:
        """Take the vector steps ``start`` to ``stop`` of a rollout."""
        assert rollout.next_observations is not None
        steps = Kept(
            rollout.observations,
            rollout.next_observations,
            rollout.actions,
            rollout.rewards,
            rollout.terminated,
            rollout.consulted,
        )
        self._next = _add(self._kept, steps, start, stop, self._next)
        self._size = min(self._size + (stop - start) * rollout.num_envs, self.capacity)

    def draw(self, batch_size: int) -> Drawn:
        """Draw transitions uniformly, with replacement; masks of legal actions are the caller's to add."""
        return Drawn(self._kept, self._rng.integers(self._size, size=batch_size))
