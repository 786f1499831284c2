"""A replay buffer of arrays: a ring that is written in blocks and sampled by index. Knows nothing of learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.ring import ArrayRing


@dataclass(slots=True)
class ReplayBatch:
    """Transitions, each array ``(batch_size, ...)``.

    Attributes:
        observations: ``(B, obs_dim)`` float32.
        next_observations: ``(B, obs_dim)`` float32, before any reset.
        actions: ``(B,)`` int64.
        rewards: ``(B,)`` float32.
        terminated: ``(B,)`` bool.
        consulted: ``(B,)`` bool: the action was the tutor's.
        indices: ``(B,)`` places in the buffer.
    """

    observations: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    consulted: NDArray[np.bool_]
    indices: NDArray[np.int64]


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
        """Takes the vector steps ``start`` to ``stop`` of a rollout."""
        block = {name: rollout.flat(name, start, stop) for name in self._arrays}
        num_new = len(block["rewards"])  # type: ignore[arg-type]
        first = min(num_new, self.capacity - self._next)
        for name, array in self._arrays.items():
            values = block[name]
            assert values is not None
            array[self._next : self._next + first] = values[:first]
            if first < num_new:
                array[: num_new - first] = values[first : first + self.capacity]
        self._advance(num_new)

    def sample(self, batch_size: int) -> ReplayBatch:
        """Draws transitions uniformly, with replacement."""
        indices, drawn = self._draw(batch_size)
        return ReplayBatch(**drawn, indices=indices)
