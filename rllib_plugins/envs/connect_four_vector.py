"""Connect Four as array code: the game of ``ConnectFourEnv`` on thousands of boards at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.envs import connect_four_board as bits
from rllib_plugins.envs.connect_four import check_first
from rllib_plugins.envs.connect_four_opponents import make_opponent
from rllib_plugins.envs.vector import ArrayVectorEnv, Rows
from tutor_service.errors import UserError

_BOTTOMS = np.array(bits.BOTTOM)
_COLUMNS = np.array(bits.COLUMN)
_TOPS = np.array(bits.TOP)


class ConnectFourVectorEnv(ArrayVectorEnv):
    """A vector of ``ConnectFourEnv``; observations ``(num_envs, 2, 6, 7)`` int8."""

    def __init__(self, num_envs: int, opponent: str = "greedy", error_rate: float = 0.0, first: str = "random") -> None:
        """Make ``num_envs`` boards; the other arguments are those of ``ConnectFourEnv``."""
        check_first(first)
        space = spaces.Box(0, 1, (2, bits.HEIGHT, bits.WIDTH), dtype=np.int8)
        super().__init__(num_envs, space, spaces.Discrete(bits.WIDTH))
        self._opponent = make_opponent(opponent, error_rate)
        self._first = first
        self._mine = np.zeros(num_envs, dtype=np.int64)
        self._theirs = np.zeros(num_envs, dtype=np.int64)

    def _start(self, rows: NDArray[np.int64]) -> None:
        self._mine[rows] = 0
        self._theirs[rows] = 0
        if self._first == "random":
            rows = rows[self.rng.random(len(rows)) < 0.5]
        elif self._first == "student":
            return
        self._reply(rows)

    def _reply(self, rows: NDArray[np.int64]) -> None:
        """Make the opponent's move in ``rows``."""
        if len(rows):
            mine, theirs = self._theirs[rows], self._mine[rows]
            self._theirs[rows] = mine | _cell(mine | theirs, self._opponent.moves(mine, theirs, self.rng))

    def _advance(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        full = ((self._mine | self._theirs) & _TOPS[actions]) != 0
        if full.any():
            i = int(full.argmax())
            columns = bits.open_columns(int(self._mine[i] | self._theirs[i]))
            raise UserError(f"action {actions[i]} in environment {i}: the column is full; open are {columns}.")
        self._mine |= _cell(self._mine | self._theirs, actions)
        win = bits.won_batch(self._mine)
        self._reply(np.flatnonzero(~win & ((self._mine | self._theirs) != bits.FULL)))
        loss = bits.won_batch(self._theirs)
        ended = win | loss | ((self._mine | self._theirs) == bits.FULL)
        return win.astype(np.float64) - loss, ended, np.zeros(self.num_envs, dtype=bool)

    def _observe(self, rows: Rows) -> NDArray[np.int8]:
        return bits.planes(self._mine[rows], self._theirs[rows])

    def _info(self) -> dict[str, Any]:
        mask = bits.open_columns_batch(self._mine | self._theirs).view(np.int8)
        return {"action_mask": mask, "_action_mask": np.ones(self.num_envs, dtype=bool)}


def _cell(occupied: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    return (occupied + _BOTTOMS[columns]) & _COLUMNS[columns]
