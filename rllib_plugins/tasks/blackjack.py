"""Blackjack in words. Gymnasium's ``Blackjack-v1`` without natural bonus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.envs import blackjack_odds as odds
from rllib_plugins.envs.blackjack_vector import BlackjackVectorEnv
from rllib_plugins.tasks.base import Policy, Task
from tutor_service.errors import UserError


class BlackjackTask(Task):
    """Blackjack: 280 decision states, an exact oracle and an exact evaluation.

    The student sees three numbers: its sum, the dealer's card with an ace as 11 (where it belongs: it is the
    dealer's best card), and whether it holds a usable ace, each scaled to about [-1, 1].
    """

    name = "blackjack"
    env_id = "Blackjack-v1"
    oracle_is_best = True
    env_kwargs = {"natural": False, "sab": False}  # noqa: RUF012
    rules = (
        "You play Blackjack against a dealer. Cards 2 to 10 count their number, jack, queen and king count 10, an ace "
        "counts 11 as long as the total stays within 21 (a usable ace), else 1. Cards come from an endless deck. "
        "You see your total and one of the dealer's two cards. hit: you draw a card; with a total above 21 you lose at "
        "once. stick: you stop; then the dealer draws until reaching 17 or more, and loses with a total above 21; "
        "otherwise the higher total wins and equal totals are a draw. A win pays 1, a loss costs 1, a draw pays 0."
    )
    hint = "Stick on 17 or more, hit on 11 or less, and in between hit only where the dealer shows 7 or higher."
    actions = ("stick", "hit")
    num_env_steps = 40_000
    num_states = odds.NUM_STATES

    def __init__(self, **options: Any) -> None:
        """Refuse options: other rules would be another game than the one that the tutor is told.

        Raises:
            UserError: An option was given.
        """
        if options:
            raise UserError(f"task 'blackjack' takes no options, got {options}: natural=False and sab=False are fixed.")
        super().__init__()
        states = odds.states()
        self._states = np.array([self.encode(tuple(state)) for state in states])
        best = odds.optimal_action_values()
        self._values = np.full((32, 11, 2, 2), np.nan)
        for (total, card, ace), values in zip(states, best.reshape(-1, 2), strict=True):
            self._values[total, card, ace] = values

    def describe(self, observation: Any) -> str:
        """Return the state in words."""
        total, card, ace = _checked(observation)
        return (
            f"Your total: {total} ({'with a' if ace else 'no'} usable ace). "
            f"The dealer shows: {'ace' if card == 1 else card}."
        )

    def oracle(self, observation: Any) -> NDArray[np.float64]:
        """Return basic strategy, by exact dynamic programming."""
        return _greedy(self.action_values(observation))

    def action_values(self, observation: Any) -> NDArray[np.float64]:
        """Return Q* of stick and hit; with a sum above 21 both are the loss that it was."""
        values = self._values[_checked(observation)]
        return np.where(np.isnan(values), -1.0, values)

    def situation(self, observation: Any) -> str:
        """Return the kind of hand against the kind of dealer's card."""
        total, card, ace = _checked(observation)
        if ace:
            hand = "soft 12-17" if total <= 17 else "soft 18-21"
        else:
            hand = "hard 4-11" if total <= 11 else "hard 12-16" if total <= 16 else "hard 17-21"
        return f"{hand} vs {'2-6' if 2 <= card <= 6 else '7-ace'}"

    def flat_space(self) -> spaces.Box:
        """Return three numbers; the sum goes up to the 31 that a bust can reach."""
        return spaces.Box(self.encode((0, 2, 0)).clip(max=-1), self.encode((31, 1, 1)), dtype=np.float32)

    def encode(self, observation: Any) -> NDArray[np.float32]:
        """Return (sum, card, ace) as ((sum − 13)/8, (card − 6.5)/4.5 with an ace as 11, ±1)."""
        total, card, ace = observation
        return np.array([(total - 13) / 8, ((11 if card == 1 else card) - 6.5) / 4.5, 2 * ace - 1], dtype=np.float32)

    def encode_batch(self, observations: Any) -> NDArray[np.float32]:
        """Return ``encode`` for the vector environment's (sums, cards, aces)."""
        total, card, ace = observations
        flat = np.empty((len(total), 3), dtype=np.float32)
        flat[:, 0] = (total - 13) / 8
        flat[:, 1] = (np.where(card == 1, 11, card) - 6.5) / 4.5
        flat[:, 2] = 2 * ace - 1
        return flat

    def unflatten(self, flat: NDArray[np.float32]) -> tuple[int, int, int]:
        """Return the (sum, card, ace) of a flat observation."""
        total, card, ace = (float(x) for x in flat)
        dealer = round(card * 4.5 + 6.5)
        return round(total * 8 + 13), 1 if dealer == 11 else dealer, round((ace + 1) / 2)

    def oracle_batch(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return basic strategy for flat observations ``(n, 3)``."""
        raw = np.asarray(observations, dtype=np.float64)
        if not np.isfinite(raw).all():
            row = int(np.flatnonzero(~np.isfinite(raw).all(axis=1))[0])
            raise UserError(f"observations of task 'blackjack': row {row} holds NaN or infinity.")
        dealer = np.rint(raw[:, 1] * 4.5 + 6.5).astype(int)
        total = np.rint(raw[:, 0] * 8 + 13).astype(int)
        values = self._values[total, np.where(dealer == 11, 1, dealer), np.rint((raw[:, 2] + 1) / 2).astype(int)]
        return _greedy(np.nan_to_num(values, nan=-1.0))

    def trivial_players(self) -> Mapping[str, Policy]:
        """Return the constant actions, and the rule of thumb that every player knows."""
        return {**super().trivial_players(), "stick at 17": self._stick_at_17}

    def _stick_at_17(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.eye(2)[(observations[:, 0] * 8 + 13 < 16.5).astype(np.int64)]

    def make_native_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make the game as array code."""
        return BlackjackVectorEnv(num_envs)

    def exact_return(self, policy: Policy) -> tuple[float, float]:
        """Return the exact mean and standard deviation of the return: one policy call on the 280 decision states."""
        probabilities = np.asarray(policy(self._states), dtype=np.float64)
        return odds.policy_return(probabilities[:, odds.HIT].reshape(len(odds.HANDS), 10))


def _greedy(values: NDArray[np.float64]) -> NDArray[np.float64]:
    best = values >= values.max(axis=-1, keepdims=True) - 1e-12
    return best / best.sum(axis=-1, keepdims=True)


def _checked(observation: Any) -> tuple[int, int, int]:
    total, card, ace = observation
    if not (0 <= total <= 31 and 1 <= card <= 10 and 0 <= ace <= 1):  # false for NaN too
        raise UserError(
            f"observation {observation} of task 'blackjack' is no hand: expected a sum of 0 to 31, "
            "a dealer's card of 1 to 10 and a usable ace of 0 or 1."
        )
    return int(total), int(card), int(ace)
