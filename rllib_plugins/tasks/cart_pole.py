"""CartPole in words: which way the pole leans and turns. Gymnasium's ``CartPole-v1``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.tasks.base import Policy, Task
from rllib_plugins.tasks.cart_pole_vector import CartPoleVectorEnv
from rllib_plugins.tasks.flat import FlatVectorEnv
from tutor_service.errors import UserError

_UPRIGHT_RAD = 0.01
_STILL_RAD_PER_S = 0.1
_FAST_RAD_PER_S = 0.6
_BALANCE = np.array([0.1, 0.3, 3.0, 1.0])
"""Weights of position (m), speed (m/s), angle (rad) and angular speed (rad/s): to the right where their sum is."""


class CartPoleTask(Task):
    """CartPole with two actions, described by how the pole leans and turns: 15 different texts.

    A student sees all four numbers; the words leave out the cart's own place and speed. Options are the environment's.
    """

    name = "cart_pole"
    env_id = "CartPole-v1"
    oracle_is_best = True
    actions = ("left", "right")
    num_env_steps = 40_000
    episode_steps = 500
    num_states = 15
    rules = (
        "A pole stands on a cart that rolls on a track. Each step you push the cart left or right. Every step that the "
        "pole stays upright pays 1; the game ends when the pole leans more than 12 degrees or the cart leaves the "
        "track. You are told how the pole leans and turns."
    )
    hint = "Push the cart to the side to which the pole is falling, so that it comes under the pole again."

    def describe(self, observation: Any) -> str:
        """Return how the pole leans and turns."""
        _, _, angle, speed = (float(number) for number in observation)
        lean = _side(angle, _UPRIGHT_RAD, "leans to the {}", "is upright")
        turn = _side(speed, _STILL_RAD_PER_S, "turns to the {}", "is still")
        return f"The pole {lean} and {turn}{' fast' if abs(speed) > _FAST_RAD_PER_S else ''}."

    @property
    def _is_plain(self) -> bool:
        """Whether the game is ``CartPole-v1`` as it comes, seen as it is: no options, no subclass that changes it."""
        return type(self) is CartPoleTask and not self.env_kwargs

    def make_vec(self, num_envs: int, seed: int) -> FlatVectorEnv:
        """Make array code that plays the same episodes as environments in turn, or these where the game is changed."""
        if num_envs < 1 or not self._is_plain:
            return super().make_vec(num_envs, seed)
        return CartPoleVectorEnv(num_envs, self.observation_space, seed)

    @contextmanager
    def borrow_vec(self, num_envs: int, seed: int) -> Iterator[FlatVectorEnv]:
        """Lend a vector of environments; one of array code costs nothing to make."""
        if self._is_plain:
            yield self.make_vec(num_envs, seed)
            return
        with super().borrow_vec(num_envs, seed) as envs:
            yield envs

    def oracle(self, observation: Any) -> NDArray[np.float64]:
        """Return the push of a linear rule that balances the pole for all 500 steps."""
        return np.eye(2)[int(np.asarray(observation, dtype=np.float64) @ _BALANCE > 0)]

    def oracle_batch(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the oracle's pushes for flat observations ``(n, 4)``.

        Raises:
            UserError: A number is NaN or infinite.
        """
        if not np.isfinite(observations).all():
            raise UserError("observations of task 'cart_pole' hold NaN or infinity.")
        return np.eye(2)[(observations.astype(np.float64) @ _BALANCE > 0).astype(np.int64)]

    def trivial_players(self) -> Mapping[str, Policy]:
        """Return the constant pushes, and the push to the side that the pole leans to."""
        return {**super().trivial_players(), "to where it leans": _to_where_it_leans}

    def situation(self, observation: Any) -> str:
        """Return whether the pole turns away from where it leans, and so is rising, or is falling."""
        angle, speed = float(observation[2]), float(observation[3])
        return "the pole is falling" if angle * speed > 0 else "the pole is rising"


def _side(number: float, still: float, words: str, middle: str) -> str:
    return middle if abs(number) <= still else words.format("right" if number > 0 else "left")


def _to_where_it_leans(observations: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.eye(2)[(observations[:, 2] > 0).astype(np.int64)]
