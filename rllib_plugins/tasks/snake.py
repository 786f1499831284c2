"""Snake in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import rllib_plugins.envs  # noqa: F401 - registers the environment
from rllib_plugins.envs.snake_rules import FEATURE_TABLE, SnakeRules
from rllib_plugins.envs.snake_vector import SnakeVectorEnv
from rllib_plugins.tasks.base import Policy, Task
from rllib_plugins.tasks.snake_oracle import FEATURE_ACTIONS, TO_THE_FOOD, feature_rows, safe_actions
from tutor_service.errors import UserError, unknown_name

_GAME = (
    "You steer a snake on a board of {size} by {size} cells. Each step you choose left, straight or right, relative "
    "to the snake's heading, and the snake moves one cell that way. Reaching the food pays {food:g} and makes the "
    "snake one cell longer; new food then appears on a random free cell. Running into a wall or into the snake's own "
    "body pays {death:g} and ends the game."
)
_FEATURES = (
    " You are told which of the three neighbouring cells are deadly, and where the food is as seen from the snake's "
    "head."
)
_GRID = (
    " The board is shown row by row from the top: @ is the head, o the body, t the end of the tail, which moves on "
    "with each step, * the food, a dot a free cell."
)
NUM_DECISIONS = 64
"""Feature vectors that a game can show while it goes on: 8 of the 72 have the food in the head's own cell."""

_HEADINGS = {(-1, 0): "up", (0, 1): "right", (1, 0): "down", (0, -1): "left"}


class SnakeTask(Task):
    """Snake with three actions relative to its heading.

    Options are the environment's: ``observation`` (``features``, the default: 72 observations; or ``grid``), ``size``,
    ``start_length``, ``starvation_limit``, ``reward_food``, ``reward_death``, ``reward_step``.
    """

    name = "snake"
    env_id = "LLMTutors/Snake-v0"
    oracle_is_best = True
    actions = ("left", "straight", "right")
    num_env_steps = 100_000
    hint = (
        "Turn left if the food is to the left, turn right if it is to the right, else go straight; never choose a "
        "direction that is deadly."
    )
    synonyms = {"straight": ("forward", "ahead")}  # noqa: RUF012 - never changed in place

    def __init__(self, **options: Any) -> None:
        """Take the environment's arguments.

        Raises:
            UserError: An argument is unknown or out of range.
        """
        super().__init__(**options)
        try:
            rules = self._game = SnakeRules(**self.env_kwargs)
        except TypeError as error:
            valid = [field.name for field in fields(SnakeRules)]
            for option in options:
                if option not in valid:
                    raise unknown_name("option of task 'snake'", option, valid) from error
            raise UserError(f"task 'snake' with options {options}: {error}.") from error
        self.rules = _GAME.format(size=rules.size, food=rules.reward_food, death=rules.reward_death)
        if rules.reward_step:
            self.rules += f" Every other step pays {rules.reward_step:g}."
        self.rules += _FEATURES if self._is_features else _GRID
        self.num_states = NUM_DECISIONS if self._is_features else None
        self.episode_steps = 5 * rules.num_cells
        self._oracle_table = np.eye(3)[["LSR".index(letter) for letter in FEATURE_ACTIONS]]

    @property
    def _is_features(self) -> bool:
        return self._game.observation == "features"

    def describe(self, observation: Any) -> str:
        """Return the neighbouring cells and the food's direction, or the board as a picture."""
        return self._describe_features(observation) if self._is_features else self._describe_grid(observation)

    def oracle(self, observation: Any) -> NDArray[np.float64]:
        """Return the best function of ``features`` that was found, or the safe path over ``grid``."""
        probabilities = np.zeros(3)
        if self._is_features:
            self._check_features(observation)
            probabilities[:] = self._oracle_table[feature_rows(np.asarray(observation))]
            return probabilities
        good = safe_actions(self._game.size, *self._body_and_food(observation)) or [0, 1, 2]
        probabilities[good] = 1.0 / len(good)
        return probabilities

    def oracle_batch(self, observations: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Return the oracle for flat observations ``(n, obs_dim)``; a table look-up for ``features``."""
        if not self._is_features:
            return super().oracle_batch(observations)
        if not np.isfinite(observations).all():
            raise UserError("observations of task 'snake' hold NaN or infinity.")
        return self._oracle_table[feature_rows(observations)]

    def situation(self, observation: Any) -> str:
        """Return how many neighbouring cells are deadly (``features``), or how much of the board is full (``grid``)."""
        if self._is_features:
            return f"{int(np.sum(observation[:3]))} of 3 neighbours deadly"
        share = np.count_nonzero(observation[0]) / self._game.num_cells
        return "fills " + ("up to a quarter" if share <= 0.25 else "up to half" if share <= 0.5 else "over half")

    def trivial_players(self) -> Mapping[str, Policy]:
        """Return the constant actions, and for ``features`` running to the food where that is not deadly."""
        return {**super().trivial_players(), **({"to the food": self._to_the_food} if self._is_features else {})}

    def _to_the_food(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.eye(3)[TO_THE_FOOD[feature_rows(observations)]]

    def make_native_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make the game as array code."""
        return SnakeVectorEnv(num_envs, **self.env_kwargs)

    def encode_batch(self, observations: Any) -> NDArray[np.float32]:
        """Return features or planes as ``(n, obs_dim)``."""
        return observations.reshape(len(observations), -1).astype(np.float32)

    def _describe_features(self, features: Any) -> str:
        self._check_features(features)
        left, ahead, right, food_ahead, food_side = (int(value) for value in features)
        deadly = [name for name, is_deadly in zip(self.actions, (left, ahead, right), strict=True) if is_deadly]
        along = ("behind", "", "ahead")[food_ahead + 1]
        across = ("to the left", "", "to the right")[food_side + 1]
        where = " and ".join(part for part in (along, across) if part) or "nowhere"
        return f"Deadly: {', '.join(deadly) or 'none'}. Food: {where}."

    def _check_features(self, features: Any) -> None:
        low, high = FEATURE_TABLE[0], FEATURE_TABLE[-1]
        if len(features) != len(low) or not all(
            a <= value <= b for a, value, b in zip(low, features, high, strict=True)
        ):
            raise UserError(f"observation {features} of task 'snake': expected 5 numbers from {low} to {high}.")

    def _describe_grid(self, planes: Any) -> str:
        size = self._game.size
        body, food = self._body_and_food(planes)
        signs = ["."] * (size * size)
        for cell in body:
            signs[cell] = "o"
        signs[body[0]], signs[body[-1]] = "t", "@"
        if food >= 0:
            signs[food] = "*"
        (row, column), (neck_row, neck_column) = divmod(body[-1], size), divmod(body[-2], size)
        picture = "\n".join("".join(signs[i : i + size]) for i in range(0, size * size, size))
        return f"Heading: {_HEADINGS[row - neck_row, column - neck_column]}.\n{picture}"

    def _body_and_food(self, planes: Any) -> tuple[list[int], int]:
        """Return the cells of the body from tail to head, and of the food (−1: none), out of the grid observation."""
        flat = np.asarray(planes, dtype=np.float32).reshape(3, -1)
        values = flat[0]
        cells = np.flatnonzero(values)
        body = cells[values[cells].argsort()].tolist()
        foods = np.flatnonzero(flat[2])
        if flat.shape[1] != self._game.num_cells or len(body) < 2 or len(foods) > 1 or not np.isfinite(flat).all():
            raise UserError(f"observation of task 'snake' is no board of size {self._game.size}: {planes!r}.")
        return body, int(foods[0]) if len(foods) else -1
