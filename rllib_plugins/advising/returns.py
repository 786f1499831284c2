"""The randomised comparison where values are not known: what return followed heads, and what followed tails.

Owns the steps of running episodes. Return-to-go minus its mean is an unbiased stand-in for the advantage: both groups
come from the same states, so what the state itself is worth cancels; it only costs precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_STEPS = 256
"""Compared steps that are handed on together."""

Evidence = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]


class ReturnComparison:
    """Collects steps until their episodes end.

    Args:
        gamma: Discount in [0, 1].
    """

    def __init__(self, gamma: float):
        self._gamma = gamma
        self._running: dict[str, list[list[float]]] = {}
        self._finished: list[tuple[float, float, float]] = []

    def add_decisions(self, episodes: list[str], heads: NDArray[np.bool_], eligible: NDArray[np.bool_]) -> None:
        """Who acted in a step of these episodes, ``(n,)`` each; the reward is yet to come."""
        for episode, is_heads, is_eligible in zip(episodes, heads.tolist(), eligible.tolist(), strict=True):
            self._running.setdefault(episode, []).append([float(is_heads), float(is_eligible), 0.0])

    def add_rewards(self, episodes: list[str], rewards: NDArray[np.float64], ended: NDArray[np.bool_]) -> None:
        """Rewards of the last step, ``(n,)``; closes the episodes that ended and forgets those that are gone."""
        self._running = {episode: self._running[episode] for episode in episodes if episode in self._running}
        for episode, reward, is_over in zip(episodes, rewards.tolist(), ended.tolist(), strict=True):
            steps = self._running.get(episode)
            if not steps:
                continue
            steps[-1][2] = reward
            if is_over:
                self._close(self._running.pop(episode))

    def take(self) -> Evidence | None:
        """Centred returns, heads and eligible of ``MIN_STEPS`` or more steps, ``(n,)`` each; None: too few yet."""
        if len(self._finished) < MIN_STEPS:
            return None
        returns, heads, eligible = np.array(self._finished).T
        self._finished = []
        return returns - returns.mean(), heads > 0.5, eligible > 0.5

    def _close(self, steps: list[list[float]]) -> None:
        following, closed = 0.0, []
        for heads, eligible, reward in reversed(steps):
            following = reward + self._gamma * following
            closed.append((following, heads, eligible))
        self._finished.extend(reversed(closed))

    def get_state(self) -> dict[str, Any]:
        """Finished steps; running episodes do not outlive the EnvRunner."""
        return {"finished": list(self._finished)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``."""
        self._finished = list(state["finished"])
        self._running = {}
