"""What a tutor has advised so far, as arrays. Knows nothing of learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.rollout.arrays import RolloutArrays

CAPACITY = 8_192
"""Advised steps kept; the oldest give way."""


@dataclass(slots=True)
class AdviceSample:
    """Advised steps.

    Attributes:
        observations: ``(B, obs_dim)`` float32.
        advice: ``(B, A)`` float32, what to imitate.
        legal: ``(B, A)`` bool; None where every action is always legal.
    """

    observations: NDArray[np.float32]
    advice: NDArray[np.float32]
    legal: NDArray[np.bool_] | None


class AdviceMemory:
    """The latest advised steps of a trial: a ring on preallocated arrays, sampled uniformly.

    Args:
        obs_dim: Length of a flat observation.
        num_actions: Actions A.
        with_masks: Whether masks of legal actions are kept.
        seed: Seed of the draws.
        capacity: Advised steps kept.
    """

    def __init__(
        self, obs_dim: int, num_actions: int, *, with_masks: bool, seed: int, capacity: int = CAPACITY
    ) -> None:
        self._capacity = capacity
        self._num_added = 0
        self._rng = np.random.default_rng(seed)
        self._arrays: dict[str, NDArray[Any]] = {
            "observations": np.zeros((capacity, obs_dim), np.float32),
            "advice": np.zeros((capacity, num_actions), np.float32),
        }
        if with_masks:
            self._arrays["legal"] = np.zeros((capacity, num_actions), bool)

    def __len__(self) -> int:
        return min(self._num_added, self._capacity)

    def add(self, rollout: RolloutArrays, start: int = 0, stop: int | None = None) -> int:
        """Takes the advised steps among the vector steps ``start`` to ``stop`` of a rollout; returns their number."""
        rows = np.flatnonzero(rollout.consulted[start:stop])
        kept = rows[-self._capacity :]
        places = (self._num_added + np.arange(len(rows) - len(kept), len(rows))) % self._capacity
        for name, array in self._arrays.items():
            values = rollout.flat(name, start, stop)
            assert values is not None
            array[places] = values[kept]
        self._num_added += len(rows)
        return len(rows)

    def sample(self, batch_size: int) -> AdviceSample:
        """Draws steps uniformly, with replacement."""
        indices = self._rng.integers(len(self), size=batch_size)
        drawn = {name: array[indices] for name, array in self._arrays.items()}
        return AdviceSample(drawn["observations"], drawn["advice"], drawn.get("legal"))

    def get_state(self) -> dict[str, Any]:
        """The filled part of the arrays and the random state."""
        arrays = {name: array[: len(self)].copy() for name, array in self._arrays.items()}
        return {"arrays": arrays, "num_added": self._num_added, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes a ``get_state``."""
        self._num_added = state["num_added"]
        for name, values in state["arrays"].items():
            self._arrays[name][: len(values)] = values
        self._rng.bit_generator.state = state["rng"]
