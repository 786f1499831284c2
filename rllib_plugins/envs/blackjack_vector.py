"""Gymnasium's Blackjack as array code: the same game (``natural=False, sab=False``), thousands of hands a step.

It draws the outcome of the dealer's play from its exact distribution instead of card by card, which no observation or
reward can tell apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.envs import blackjack_odds as odds
from rllib_plugins.envs.vector import ArrayVectorEnv, Rows


class BlackjackVectorEnv(ArrayVectorEnv):
    """A vector of ``Blackjack-v1``; its batch of observations is (sums, dealer's cards, usable aces)."""

    def __init__(self, num_envs: int) -> None:
        """Make ``num_envs`` tables."""
        space = spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)))
        super().__init__(num_envs, space, spaces.Discrete(2))
        self._total = np.zeros(num_envs, dtype=np.int64)
        self._dealer = np.zeros(num_envs, dtype=np.int64)
        self._ace = np.zeros(num_envs, dtype=np.int64)
        self._win, self._lose = odds.stick_outcomes()

    def _cards(self, shape: int | tuple[int, int]) -> NDArray[np.int64]:
        return np.minimum(self.rng.integers(1, 14, size=shape), 10)

    def _start(self, rows: NDArray[np.int64]) -> None:
        first, second, dealer = self._cards((3, len(rows)))
        self._ace[rows] = (first == 1) | (second == 1)
        self._total[rows] = first + second + 10 * self._ace[rows]
        self._dealer[rows] = dealer

    def _advance(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        sticks = actions == odds.STICK
        luck = self.rng.random(self.num_envs)
        win = self._win[self._total, self._dealer - 1]
        lose = self._lose[self._total, self._dealer - 1]
        outcome = (luck < win) * 1.0 - (luck >= 1.0 - lose)
        card = self._cards(self.num_envs) * ~sticks
        new_ace = (card == 1) & (self._ace == 0) & (self._total + 11 <= 21)
        total = self._total + card + 10 * new_ace
        self._ace |= new_ace
        spent_ace = (total > 21) & (self._ace == 1)
        self._total = total - 10 * spent_ace
        self._ace[spent_ace] = 0
        bust = self._total > 21
        rewards = np.where(sticks, outcome, 0.0 - bust)
        return rewards, sticks | bust, np.zeros(self.num_envs, dtype=bool)

    def _observe(self, rows: Rows) -> Any:
        return tuple(np.array(part[rows]) for part in (self._total, self._dealer, self._ace))
