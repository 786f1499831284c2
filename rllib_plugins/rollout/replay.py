"""A replay buffer of transitions in arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.rollout.arrays import NO_MASKS, NO_ROWS, RolloutArrays, flat
from rllib_plugins.rollout.ring import ArrayRing


class Transitions(NamedTuple):
    """Holds transitions, each array ``(batch_size, ...)``.

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

    def add(self, rollout: RolloutArrays, start: int, stop: int) -> None:
        """Take the vector steps ``start`` to ``stop`` of a rollout."""
        assert rollout.next_observations is not None
        self._write(
            {
                "observations": flat(rollout.observations[start:stop]),
                "next_observations": flat(rollout.next_observations[start:stop]),
                "actions": flat(rollout.actions[start:stop]),
                "rewards": flat(rollout.rewards[start:stop]),
                "terminated": flat(rollout.terminated[start:stop]),
                "consulted": flat(rollout.consulted[start:stop]),
            }
        )

    def sample(self, batch_size: int) -> Transitions:
        """Draw transitions uniformly, with replacement; masks of legal actions are the caller's to add."""
        return Transitions(**self._draw(batch_size))
