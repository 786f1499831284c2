"""Snake as array code: the game of ``SnakeEnv`` on thousands of boards at once.

Every cell holds the time at which it becomes free, so that moving a snake writes one number per board: a snake of
length L at time t enters a cell that frees itself at t + L, and its tail is the cell that is free at t + 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.envs.snake_rules import FEATURE_TABLE, SnakeRules
from rllib_plugins.envs.vector import ArrayVectorEnv, Rows

_WALL = np.int32(2**30)


class SnakeVectorEnv(ArrayVectorEnv):
    """A vector of ``SnakeEnv``; observations ``(num_envs, 5)`` int8 or ``(num_envs, 3, size, size)`` float32."""

    def __init__(self, num_envs: int, **arguments: Any) -> None:
        """Make ``num_envs`` boards; the other arguments are those of ``SnakeEnv``."""
        rules = self.rules = SnakeRules(**arguments)
        super().__init__(num_envs, rules.observation_space(), spaces.Discrete(3), render_fps=8)
        self._deltas = np.array(rules.deltas)
        self._near = np.array([[rules.deltas[h - 1], rules.deltas[h], rules.deltas[h - 3]] for h in range(4)])
        self._starts = np.array(
            [
                rules.start_body(heading, along, across)
                for heading in range(4)
                for along in range(rules.size - rules.start_length + 1)
                for across in range(rules.size)
            ]
        )
        self._start_headings = np.repeat(np.arange(4), len(self._starts) // 4)
        self._empty = np.full(rules.width**2, _WALL)
        self._empty[rules.inner_cells] = 0
        self._food_codes = rules.food_codes.reshape(-1)
        self._base = np.arange(num_envs) * rules.width**2
        self._frees = np.zeros((num_envs, rules.width**2), dtype=np.int32)
        self._time = np.zeros(num_envs, dtype=np.int32)
        self._length = np.zeros(num_envs, dtype=np.int32)
        self._hunger = np.zeros(num_envs, dtype=np.int32)
        self._head = np.zeros(num_envs, dtype=np.int64)
        self._heading = np.zeros(num_envs, dtype=np.int64)
        self._food = np.zeros(num_envs, dtype=np.int64)

    def _start(self, rows: NDArray[np.int64]) -> None:
        start = self.rng.integers(len(self._starts), size=len(rows))
        bodies = self._starts[start]
        self._frees[rows] = self._empty
        self._frees[rows[:, None], bodies] = np.arange(1, bodies.shape[1] + 1)
        self._head[rows] = bodies[:, -1]
        self._heading[rows] = self._start_headings[start]
        self._time[rows] = 0
        self._hunger[rows] = 0
        self._length[rows] = bodies.shape[1]
        self._place_food(rows)

    def _place_food(self, rows: NDArray[np.int64]) -> None:
        """Put food on a free cell of each board in ``rows``, each as likely; 0 where the board is full."""
        cells = self.rules.inner_cells
        rank = (self._frees[rows[:, None], cells] <= self._time[rows, None]).cumsum(axis=1)
        wanted = (self.rng.random(len(rows)) * rank[:, -1]).astype(np.int64) + 1
        self._food[rows] = np.where(rank[:, -1] > 0, cells[(rank >= wanted[:, None]).argmax(axis=1)], 0)

    def _advance(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        rules = self.rules
        heading = (self._heading + actions - 1) & 3
        cell = self._head + self._deltas[heading]
        place = self._base + cell
        frees = self._frees.reshape(-1)
        now = self._time + 1
        here = frees[place]
        dead = here > now
        eats = cell == self._food
        eaters = np.flatnonzero(eats)
        if len(eaters):
            boards = self._frees[eaters]
            boards += (boards > self._time[eaters, None]) & (boards < _WALL)
            self._frees[eaters] = boards
            self._length[eaters] += 1
        frees[place] = np.where(dead, here, now + self._length)
        self._head = np.where(dead, self._head, cell)
        self._heading = np.where(dead, self._heading, heading)
        self._time = np.where(dead, self._time, now)
        self._hunger += 1
        self._hunger[eaters] = 0
        if len(eaters):
            self._place_food(eaters)
        rewards = np.where(dead, rules.reward_death, np.where(eats, rules.reward_food, rules.reward_step))
        terminated = dead | (self._length == rules.num_cells)
        return rewards, terminated, (self._hunger >= rules.hunger_limit) & ~terminated

    def _observe(self, rows: Rows) -> NDArray[Any]:
        return self._features(rows) if self.rules.observation == "features" else self._grid(rows)

    def _features(self, rows: Rows) -> NDArray[np.int8]:
        head, heading = self._head[rows], self._heading[rows]
        near = self._base[rows, None] + head[:, None] + self._near[heading]
        deadly = self._frees.reshape(-1)[near] > self._time[rows, None] + 1
        area = self.rules.width**2
        code = self._food_codes[(heading * area + head) * area + self._food[rows]]
        return FEATURE_TABLE[deadly @ np.array([36, 18, 9]) + code]

    def _grid(self, rows: Rows) -> NDArray[np.float32]:
        size, cells = self.rules.size, self.rules.inner_cells
        left = self._frees[rows][:, cells] - self._time[rows, None]
        planes = np.zeros((len(left), 3, len(cells)), dtype=np.float32)
        np.divide(np.maximum(left, 0), self._length[rows, None], out=planes[:, 0], casting="unsafe", dtype=np.float32)
        planes[:, 1] = cells == self._head[rows, None]
        planes[:, 2] = cells == self._food[rows, None]
        return planes.reshape(-1, 3, size, size)

    def _info(self) -> dict[str, Any]:
        return {"length": self._length.copy(), "_length": np.ones(self.num_envs, dtype=bool)}
