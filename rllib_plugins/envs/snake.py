"""Snake, one board at a time, in plain Python integers: small numpy calls would cost more than the game."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_plugins.envs.random_blocks import Luck
from rllib_plugins.envs.snake_rules import FEATURE_TABLE, SnakeRules
from tutor_service.errors import UserError

_CELL_PIXELS = 16
_BACKGROUND, _BODY, _HEAD, _FOOD = (24, 26, 31), (106, 176, 76), (186, 220, 88), (235, 77, 75)
_FEATURES = list(FEATURE_TABLE)


class SnakeEnv(gym.Env[NDArray[Any], int]):
    """Snake on a square board.

    ## Description
    A snake moves one cell per step and may turn. It grows by one cell when it eats the food; new food then appears on
    a random free cell. It dies when it runs into the wall or into its own body; the cell that its tail leaves in the
    same step is free.

    ## Action Space
    ``Discrete(3)``: 0 turn left, 1 go straight, 2 turn right, relative to the heading; each then moves one cell.

    ## Observation Space
    * ``features``: ``Box(int8, (5,))``: whether the cell on the left, ahead and on the right is deadly (0, 1); whether
      the food lies ahead (1), level (0) or behind (−1); whether it lies to the right (1), in line (0) or to the left
      (−1). Only 72 such observations exist.
    * ``grid``: ``Box(0, 1, (3, size, size), float32)``: the body, where the i-th of L cells counted from the tail is
      i/L, so that its order shows; the head; the food.

    ## Starting State
    A straight snake of ``start_length`` cells, its place and heading random, and food on a random free cell.

    ## Rewards
    Sparse by default: ``reward_food`` = 1 for eating, ``reward_death`` = −1 for dying, ``reward_step`` = 0 else.

    ## Episode End
    Terminates when the snake dies, or when it fills the board. Truncates after ``starvation_limit`` env steps without
    food (default 2·size²).

    ## Information
    ``length``: cells of the snake.

    ## Arguments
    ``size``, ``start_length``, ``starvation_limit``, ``reward_food``, ``reward_death``, ``reward_step``,
    ``observation``: see ``SnakeRules``. ``render_mode``: ``ansi`` or ``rgb_array``.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **arguments: Any) -> None:
        rules = self.rules = SnakeRules(**arguments)
        self.render_mode = render_mode
        self.action_space = gym.spaces.Discrete(3)
        self.observation_space = rules.observation_space()
        self._turns = tuple(tuple((heading + action - 1) % 4 for action in range(3)) for heading in range(4))
        self._deltas = rules.deltas
        self._food_codes = rules.food_codes.tolist()
        self._cells: list[int] = rules.inner_cells.tolist()
        self._limit = rules.hunger_limit
        self._has_features = rules.observation == "features"
        self._luck: Luck | None = None
        self._over = True
        self._body: deque[int] = deque()
        self._blocked: list[bool] = []
        self._head = self._heading = self._food = self._hunger = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        if self._luck is None or seed is not None:
            self._luck = Luck(self.np_random)
        rules, luck = self.rules, self._luck
        self._heading = luck.below(4)
        along = luck.below(rules.size - rules.start_length + 1)
        self._body = deque(rules.start_body(self._heading, along, luck.below(rules.size)))
        self._head = self._body[-1]
        self._blocked = [True] * rules.width**2
        for cell in self._cells:
            self._blocked[cell] = False
        for cell in self._body:
            self._blocked[cell] = True
        self._food = self._free_cell(luck)
        self._hunger = 0
        self._over = False
        return self._observe(), {"length": len(self._body)}

    def step(self, action: int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Turn and move one cell.

        Raises:
            UserError: The action is out of range, or no episode is on.
        """
        if self._over or self._luck is None:
            raise UserError("step() while no episode is on. Call reset() first.")
        if not 0 <= action <= 2:
            raise UserError(f"action {action}: must be 0 (left), 1 (straight) or 2 (right).")
        rules, body, blocked = self.rules, self._body, self._blocked
        heading = self._turns[self._heading][action]
        cell = self._head + self._deltas[heading]
        if blocked[cell] and cell != body[0]:
            self._over = True
            return self._observe(), rules.reward_death, True, False, {"length": len(body)}
        self._heading = heading
        self._head = cell
        reward = rules.reward_step
        if cell == self._food:
            reward = rules.reward_food
            self._hunger = 0
            body.append(cell)
            blocked[cell] = True
            self._over = len(body) == rules.num_cells
            self._food = 0 if self._over else self._free_cell(self._luck)
            return self._observe(), reward, self._over, False, {"length": len(body)}
        blocked[body.popleft()] = False
        body.append(cell)
        blocked[cell] = True
        self._hunger += 1
        self._over = self._hunger >= self._limit
        return self._observe(), reward, False, self._over, {"length": len(body)}

    def render(self) -> str | NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the board as text (``@`` head, ``o`` body, ``*`` food) or as an RGB image."""
        if self.render_mode == "ansi":
            signs = ["."] * self.rules.width**2
            for cell in self._body:
                signs[cell] = "o"
            signs[self._head], signs[self._food] = "@", "*"
            rows = [signs[cell : cell + self.rules.size] for cell in self._cells[:: self.rules.size]]
            return "\n".join("".join(row) for row in rows) + "\n"
        if self.render_mode == "rgb_array":
            return self._draw()
        return None

    def _free_cell(self, luck: Luck) -> int:
        blocked = self._blocked
        if 2 * len(self._body) < len(self._cells):
            while blocked[cell := self._cells[luck.below(len(self._cells))]]:
                pass
            return cell
        free = [cell for cell in self._cells if not blocked[cell]]
        return free[luck.below(len(free))]

    def _observe(self) -> NDArray[Any]:
        if not self._has_features:
            return self._grid()
        head, heading, deltas, blocked, tail = self._head, self._heading, self._deltas, self._blocked, self._body[0]
        left = head + deltas[heading - 1]
        ahead = head + deltas[heading]
        right = head + deltas[heading - 3]
        code = self._food_codes[heading][head][self._food]
        if blocked[left] and left != tail:
            code += 36
        if blocked[ahead] and ahead != tail:
            code += 18
        if blocked[right] and right != tail:
            code += 9
        return _FEATURES[code].copy()

    def _grid(self) -> NDArray[np.float32]:
        size, length = self.rules.size, len(self._body)
        planes = np.zeros((3, self.rules.width**2), dtype=np.float32)
        planes[0, list(self._body)] = np.arange(1, length + 1, dtype=np.float32) / np.float32(length)
        planes[1, self._head] = 1.0
        if self._food:
            planes[2, self._food] = 1.0
        return planes.reshape(3, size + 2, size + 2)[:, 1:-1, 1:-1].copy()

    def _draw(self) -> NDArray[np.uint8]:
        width = self.rules.width
        colours = np.empty((width**2, 3), dtype=np.uint8)
        colours[:] = _BACKGROUND
        colours[list(self._body)] = _BODY
        colours[self._head] = _HEAD
        if self._food:
            colours[self._food] = _FOOD
        tiles = colours.reshape(width, width, 3)[1:-1, 1:-1]
        image = tiles.repeat(_CELL_PIXELS, axis=0).repeat(_CELL_PIXELS, axis=1)
        image[::_CELL_PIXELS] = image[:, ::_CELL_PIXELS] = 0
        return image
