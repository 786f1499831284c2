"""Connect Four for one student, whose opponent answers inside the step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.envs import connect_four_board as bits
from rllib_plugins.envs.connect_four_opponents import make_opponent
from rllib_plugins.envs.random_blocks import Luck
from tutor_service.errors import UserError, unknown_name

FIRST = ("random", "student", "opponent")
_CELL_PIXELS = 32
_COLOURS = np.array([[240, 240, 240], [214, 69, 65], [244, 208, 63]], dtype=np.uint8)  # empty, student, opponent
_FRAME_COLOUR = np.array([41, 98, 155], dtype=np.uint8)


class ConnectFourEnv(gym.Env[NDArray[np.int8], int]):
    """Connect Four against a scripted opponent.

    ## Description
    Two players drop stones in turn into the seven columns of an upright board with six rows; a stone falls to the
    lowest free cell. Who first has four in a line, horizontally, vertically or diagonally, wins. A full board without
    a line is a draw. One step is the student's move and, unless it ended the game, the opponent's answer.

    ## Action Space
    ``Discrete(7)``: the column, 0 left to 6 right. A full column is illegal.

    ## Observation Space
    ``Box(0, 1, (2, 6, 7), int8)``: the student's stones and the opponent's, top row first. It is always the student's
    turn, and the student's view does not depend on who began.

    ## Starting State
    An empty board, or one with the opponent's first stone. With ``first="random"`` either is as likely, by the seed.

    ## Rewards
    1 for a win, −1 for a loss, 0 for a draw and for every step before the end.

    ## Episode End
    Terminates with a win, a loss or a draw. Never truncates.

    ## Information
    ``action_mask``: int8 ``(7,)``, 1 where a column is not full; all 0 after the end of a full board.

    ## Arguments
    * ``opponent``: ``greedy`` (wins in one move, else blocks the student's win in one move, else random); ``random``;
      ``perfect`` (by the solver).
    * ``error_rate``: share of random moves of the ``perfect`` opponent, 0 to 1.
    * ``first``: who begins: ``random``, ``student`` or ``opponent``.
    * ``render_mode``: ``ansi`` or ``rgb_array``.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self,
        opponent: str = "greedy",
        error_rate: float = 0.0,
        first: str = "random",
        render_mode: str | None = None,
    ) -> None:
        check_first(first)
        self._opponent = make_opponent(opponent, error_rate)
        self._first = first
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(bits.WIDTH)
        self.observation_space = spaces.Box(0, 1, (2, bits.HEIGHT, bits.WIDTH), dtype=np.int8)
        self._luck: Luck | None = None
        self._over = True
        self._clear()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Start a game; the opponent's first stone is on the board where it begins."""
        super().reset(seed=seed)
        if self._luck is None or seed is not None:
            self._luck = Luck(self.np_random)
        self._clear()
        self._over = False
        begins = self._luck.uniform() < 0.5 if self._first == "random" else self._first == "opponent"
        if begins:
            self._drop(self._opponent.move(0, 0, self._luck), 1)
        return self._planes.copy(), {"action_mask": self._mask.copy()}

    def step(self, action: int) -> tuple[NDArray[np.int8], float, bool, bool, dict[str, Any]]:
        """Drop the student's stone and then the opponent's.

        Raises:
            UserError: The action is out of range, the column is full, or the game is over.
        """
        if self._over or self._luck is None:
            raise UserError("step() while no game is on. Call reset() first.")
        if not 0 <= action < bits.WIDTH:
            raise UserError(f"action {action}: must be a column, 0 to {bits.WIDTH - 1}.")
        if self._stones[0] & bits.TOP[action] or self._stones[1] & bits.TOP[action]:
            raise UserError(
                f"action {action}: column {action} is full; open are {bits.open_columns(sum(self._stones))}. "
                "Choose by info['action_mask']."
            )
        reward = 0.0
        if self._drop(int(action), 0):
            reward, self._over = 1.0, True
        elif self._is_full():
            self._over = True
        else:
            reply = self._opponent.move(self._stones[1], self._stones[0], self._luck)
            if self._drop(reply, 1):
                reward, self._over = -1.0, True
            elif self._is_full():
                self._over = True
        return self._planes.copy(), reward, self._over, False, {"action_mask": self._mask.copy()}

    def render(self) -> str | NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the board as text (X student, O opponent) or as an RGB image ``(192, 224, 3)``."""
        cells = self._planes[0] + 2 * self._planes[1]
        if self.render_mode == "ansi":
            return "\n".join("".join(".XO"[cell] for cell in row) for row in cells) + "\n1234567\n"
        if self.render_mode == "rgb_array":
            return _draw(cells)
        return None

    def _clear(self) -> None:
        self._stones = [0, 0]
        self._planes = np.zeros((2, bits.HEIGHT, bits.WIDTH), dtype=np.int8)
        self._mask = np.ones(bits.WIDTH, dtype=np.int8)

    def _is_full(self) -> bool:
        return self._stones[0] | self._stones[1] == bits.FULL

    def _drop(self, column: int, player: int) -> bool:
        """Drop a stone; True if it wins."""
        occupied = self._stones[0] | self._stones[1]
        cell = (occupied + bits.BOTTOM[column]) & bits.COLUMN[column]
        self._stones[player] |= cell
        row = cell.bit_length() - 1 - bits.STRIDE * column
        self._planes[player, bits.HEIGHT - 1 - row, column] = 1
        if row == bits.HEIGHT - 1:
            self._mask[column] = 0
        return bits.won(self._stones[player])


def check_first(first: str) -> None:
    """Refuse an unknown value of ``first``.

    Raises:
        UserError: It is none of ``FIRST``.
    """
    if first not in FIRST:
        raise unknown_name("first player", first, FIRST)


def _draw(cells: NDArray[np.int8]) -> NDArray[np.uint8]:
    image = np.empty((bits.HEIGHT * _CELL_PIXELS, bits.WIDTH * _CELL_PIXELS, 3), dtype=np.uint8)
    image[:] = _FRAME_COLOUR
    offset = np.arange(_CELL_PIXELS) - (_CELL_PIXELS - 1) / 2
    disc = offset[:, None] ** 2 + offset**2 <= (0.42 * _CELL_PIXELS) ** 2
    for row in range(bits.HEIGHT):
        for column in range(bits.WIDTH):
            tile = image[row * _CELL_PIXELS :, column * _CELL_PIXELS :][:_CELL_PIXELS, :_CELL_PIXELS]
            tile[disc] = _COLOURS[cells[row, column]]
    return image
