"""Connect Four in words, with a perfect oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import rllib_plugins.envs  # noqa: F401 - registers the environment
from rllib_plugins.envs import connect_four_board as bits
from rllib_plugins.envs.connect_four_solver import best_columns, results
from rllib_plugins.envs.connect_four_vector import ConnectFourVectorEnv
from rllib_plugins.tasks.base import Policy, Task
from tutor_service.errors import UserError

_BEGUN = 12
_LATE = 26


class ConnectFourTask(Task):
    """Connect Four against a scripted opponent. The student sees 84 numbers: its stones, then the opponent's.

    Options are the environment's: ``opponent``, ``error_rate``, ``first``.
    """

    name = "connect_four"
    env_id = "LLMTutors/ConnectFour-v0"
    oracle_is_best = True
    rules = (
        "You play Connect Four as X against O on a board of 7 columns and 6 rows. Players take turns; a stone dropped "
        "into a column falls to its lowest free cell. Who first has four stones in a row, horizontally, vertically or "
        "diagonally, wins; a full board is a draw. A win pays 1, a loss -1. The board is shown row by row from the "
        "top, columns 1 to 7 from left to right, empty rows left out, a dot for an empty cell. It is your turn: choose "
        "the column to drop your stone into."
    )
    actions = ("1", "2", "3", "4", "5", "6", "7")
    hint = "Win at once if you can, else block the opponent's three in a row, else prefer the middle columns."
    num_env_steps = 100_000
    episode_steps = 12

    def describe(self, observation: Any) -> str:
        """Return the board, X for the student; empty rows at the top are left out."""
        planes = np.asarray(observation)
        cells = (planes[0] + 2 * planes[1]).astype(np.int8).tobytes()
        rows = [cells[i : i + bits.WIDTH].translate(_LETTERS).decode() for i in range(0, len(cells), bits.WIDTH)]
        if len(rows) != bits.HEIGHT or "?" in "".join(rows):
            raise _not_a_board(observation)
        filled = [row for row in rows if row != _EMPTY_ROW]
        return "The board:\n" + "\n".join(filled) if filled else "The board is empty."

    def legal(self, observation: Any) -> NDArray[np.bool_]:
        """Return the columns that are not full."""
        return np.asarray(observation)[:, 0].max(axis=0) < 0.5

    def oracle(self, observation: Any) -> NDArray[np.float64]:
        """Return uniform probabilities over the solver's best columns: fastest win, else a draw, else slowest loss."""
        probabilities = np.zeros(bits.WIDTH)
        best = best_columns(*_position(observation))
        probabilities[list(best)] = 1.0 / len(best)
        return probabilities

    def action_values(self, observation: Any) -> NDArray[np.float64]:
        """Return each column's result under perfect play after it: 1 win, 0 draw, −1 loss, NaN where it is full."""
        return np.array([np.nan if result is None else result for result in results(*_position(observation))])

    def situation(self, observation: Any) -> str:
        """Return whether a four is to be had or to be stopped at once, else the stage of the game."""
        mine, theirs = _position(observation)
        landing = bits.landing(mine | theirs)
        if bits.fours(mine) & landing:
            return "can win at once"
        if bits.fours(theirs) & landing:
            return "must block"
        stones = (mine | theirs).bit_count()
        return "opening" if stones < _BEGUN else "middle game" if stones < _LATE else "end game"

    def legal_batch(self, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return the columns that are not full, ``(n, 7)``."""
        return observations.reshape(-1, 2, bits.HEIGHT, bits.WIDTH)[:, :, 0].max(axis=1) < 0.5

    @property
    def known_random_return(self) -> float | None:
        """0 against the random opponent, who is the same player."""
        options = {"opponent": "greedy", "first": "random", **self.env_kwargs}
        return 0.0 if options["opponent"] == options["first"] == "random" else None

    def trivial_players(self) -> Mapping[str, Policy]:
        """Return the constant actions, and winning or blocking in one move, else dropping nearest the middle."""
        return {**super().trivial_players(), "win, block, else the middle": self._win_or_block}

    def _win_or_block(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        mine, theirs = bits.stones(observations.reshape(-1, 2, bits.HEIGHT, bits.WIDTH)).T
        landing = bits.landing(mine | theirs)
        ranking = np.array([1, 2, 3, 4, 3, 2, 1]) * self.legal_batch(observations)
        for gain, cells in ((10, bits.fours(theirs) & landing), (100, bits.fours(mine) & landing)):
            ranking += gain * ((cells[:, None] & np.array(bits.COLUMN)) != 0)
        return np.eye(bits.WIDTH)[ranking.argmax(axis=1)]

    def make_native_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make the game as array code."""
        return ConnectFourVectorEnv(num_envs, **self.env_kwargs)

    def encode_batch(self, observations: Any) -> NDArray[np.float32]:
        """Return planes ``(n, 2, 6, 7)`` as ``(n, 84)``."""
        return observations.reshape(len(observations), -1).astype(np.float32)


_EMPTY_ROW = "." * bits.WIDTH
_LETTERS = bytes([*b".XO", *b"?" * 253])


def _position(observation: Any) -> tuple[int, int]:
    planes = np.asarray(observation)
    if planes.shape != (2, bits.HEIGHT, bits.WIDTH) or not np.isin(planes, (0, 1)).all() or planes.all(axis=0).any():
        raise _not_a_board(observation)
    mine, theirs = bits.stones(planes).tolist()
    return mine, theirs


def _not_a_board(observation: Any) -> UserError:
    return UserError(
        "observation of task 'connect_four' is no board: expected (2, 6, 7) of 0 and 1 with at most one stone per "
        f"cell, got {np.asarray(observation)!r}."
    )
