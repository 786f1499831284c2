"""What a tutor has advised so far, as arrays. Knows nothing of learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.ring import ArrayRing

CAPACITY = 8_192
"""Advised steps kept; the oldest give way."""


_NO_MASKS = np.empty((0, 0, 0), dtype=bool)
_NO_PLACES = np.empty((0, 0), dtype=bool)


@compiled
def _remember(
    start: int,
    stop: int,
    consulted: NDArray[np.bool_],
    observations: NDArray[np.float32],
    advice: NDArray[np.float32],
    legal: NDArray[np.bool_],
    kept_observations: NDArray[np.float32],
    kept_advice: NDArray[np.float32],
    kept_legal: NDArray[np.bool_],
    first: int,
) -> int:
    """Copies the advised ones of vector steps to the places from ``first`` on in the ring; how many they are."""
    num_new = 0
    for t in range(start, stop):
        for env in range(consulted.shape[1]):
            if consulted[t, env]:
                place = (first + num_new) % len(kept_observations)
                kept_observations[place] = observations[t, env]
                kept_advice[place] = advice[t, env]
                if len(kept_legal):
                    kept_legal[place] = legal[t, env]
                num_new += 1
    return num_new


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


class AdviceMemory(ArrayRing):
    """The latest advised steps of a trial.

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
        arrays: dict[str, NDArray[Any]] = {
            "observations": np.zeros((capacity, obs_dim), np.float32),
            "advice": np.zeros((capacity, num_actions), np.float32),
        }
        if with_masks:
            arrays["legal"] = np.zeros((capacity, num_actions), bool)
        super().__init__(arrays, seed)

    def add(self, rollout: RolloutArrays, start: int = 0, stop: int | None = None) -> int:
        """Takes the advised steps among the vector steps ``start`` to ``stop`` of a rollout; returns their number."""
        assert rollout.advice is not None
        num_new = _remember(
            start,
            rollout.num_steps if stop is None else stop,
            rollout.consulted,
            rollout.observations,
            rollout.advice,
            _NO_MASKS if rollout.legal is None else rollout.legal,
            self._arrays["observations"],
            self._arrays["advice"],
            self._arrays.get("legal", _NO_PLACES),
            self._next,
        )
        self._advance(num_new)
        return num_new

    def sample(self, batch_size: int) -> AdviceSample:
        """Draws steps uniformly, with replacement."""
        _, drawn = self._draw(batch_size)
        return AdviceSample(drawn["observations"], drawn["advice"], drawn.get("legal"))
