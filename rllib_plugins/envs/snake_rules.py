"""What the single and the vector Snake share: arguments, geometry and the compact features.

Boards are kept with a wall around them: cell ``(row, column)`` has number ``(row + 1)·(size + 2) + column + 1``.
Headings are 0 up, 1 right, 2 down, 3 left; actions 0 left, 1 straight, 2 right, relative to the heading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from tutor_service.errors import UserError, unknown_name

LEFT, STRAIGHT, RIGHT = 0, 1, 2
OBSERVATIONS = ("features", "grid")

FEATURE_TABLE = np.array(
    [
        (left, ahead, right, food_ahead, food_side)
        for left in (0, 1)
        for ahead in (0, 1)
        for right in (0, 1)
        for food_ahead in (-1, 0, 1)
        for food_side in (-1, 0, 1)
    ],
    dtype=np.int8,
)
"""All 72 feature vectors; row ``36·left + 18·ahead + 9·right + food code``, food code ``3·(ahead + 1) + side + 1``."""


@dataclass(frozen=True)
class SnakeRules:
    """The arguments of Snake, checked.

    Attributes:
        size: Cells per side of the square board.
        start_length: Cells of the snake at the start; at least 2, so that its heading shows.
        starvation_limit: Env steps without food after which an episode is truncated; None: 2·size².
        reward_food: Reward of eating.
        reward_death: Reward of running into the wall or the body.
        reward_step: Reward of every step that is neither.
        observation: ``features`` or ``grid``.

    Raises:
        UserError: A board too small for the snake, a limit below 1, an unknown observation, or a reward that is no
            number.
    """

    size: int = 6
    start_length: int = 3
    starvation_limit: int | None = None
    reward_food: float = 1.0
    reward_death: float = -1.0
    reward_step: float = 0.0
    observation: str = "features"

    def __post_init__(self) -> None:
        if self.observation not in OBSERVATIONS:
            raise unknown_name("observation", str(self.observation), OBSERVATIONS)
        if not isinstance(self.size, int) or self.size < 3:
            raise UserError(f"size = {self.size!r}: the board needs at least 3 cells per side.")
        if not isinstance(self.start_length, int) or self.start_length < 2:
            raise UserError(f"start_length = {self.start_length!r}: must be at least 2, so that the heading shows.")
        if self.start_length > self.size:
            raise UserError(
                f"start_length = {self.start_length}: the board is too small, a straight snake of this length needs "
                f"size >= {self.start_length}, got size = {self.size}."
            )
        if self.starvation_limit is not None and self.starvation_limit < 1:
            raise UserError(f"starvation_limit = {self.starvation_limit}: must be at least 1 env step.")
        for field in ("reward_food", "reward_death", "reward_step"):
            if not np.isfinite(getattr(self, field)):
                raise UserError(f"{field} = {getattr(self, field)}: must be a finite number.")

    @property
    def num_cells(self) -> int:
        """Cells of the board."""
        return self.size * self.size

    @property
    def width(self) -> int:
        """Cells per side with the wall."""
        return self.size + 2

    @property
    def hunger_limit(self) -> int:
        """Env steps without food after which an episode is truncated."""
        return 2 * self.num_cells if self.starvation_limit is None else self.starvation_limit

    @cached_property
    def deltas(self) -> tuple[int, int, int, int]:
        """Change of the cell number by a step up, right, down, left."""
        return (-self.width, 1, self.width, -1)

    @cached_property
    def inner_cells(self) -> NDArray[np.int64]:
        """Cell numbers of the board, ``(size²,)``, row by row."""
        rows, columns = np.divmod(np.arange(self.num_cells), self.size)
        return (rows + 1) * self.width + columns + 1

    @cached_property
    def food_codes(self) -> NDArray[np.int8]:
        """Where the food is, seen from the head: ``[heading, head, food]`` → ``3·(ahead + 1) + side + 1``.

        Ahead and side (right is positive) are the signs −1, 0, 1 of the distance along and across the heading. Food
        number 0 (a wall) stands for no food.
        """
        cells = np.arange(self.width**2)
        rows, columns = cells // self.width, cells % self.width
        down = np.sign(rows[None, :] - rows[:, None])
        right = np.sign(columns[None, :] - columns[:, None])
        ahead = np.stack([-down, right, down, -right])
        side = np.stack([right, down, -right, -down])
        codes = 3 * (ahead + 1) + side + 1
        codes[:, :, 0] = 4
        return codes.astype(np.int8)

    def observation_space(self) -> spaces.Box:
        """Return the space of the chosen observation."""
        if self.observation == "features":
            low, high = FEATURE_TABLE.min(axis=0), FEATURE_TABLE.max(axis=0)
            return spaces.Box(low, high, dtype=np.int8)
        return spaces.Box(0.0, 1.0, (3, self.size, self.size), dtype=np.float32)

    def start_body(self, heading: int, along: int, across: int) -> list[int]:
        """Return the cell numbers of a straight snake, tail first.

        Args:
            heading: 0 to 3.
            along: Where the tail is on the axis of the heading, 0 to size − start_length, counted in its direction.
            across: Row or column of the snake, 0 to size − 1.
        """
        first = along if heading in (1, 2) else self.size - 1 - along
        row, column = (first, across) if heading in (0, 2) else (across, first)
        tail = (row + 1) * self.width + column + 1
        return [tail + i * self.deltas[heading] for i in range(self.start_length)]
