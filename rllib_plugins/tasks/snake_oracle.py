"""Reference players of Snake: a safe path over the grid, and the best function of the features.

On boards of even size the safe path is a Hamiltonian cycle with short cuts: as long as the body lies in the cycle's
order from tail to head, a step that jumps ahead on the cycle, but neither past the tail nor past the food, keeps that
order, so that the snake can never be trapped. Each step picks, among the 16 images of one cycle under the symmetries of
the square and both directions, the cycle and the jump that leave the least way to the food. That least way shrinks with
every step, so each food is reached within size² steps and the board gets filled.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.envs.snake_rules import FEATURE_TABLE, LEFT, RIGHT, STRAIGHT


def safe_actions(size: int, body: list[int], food: int) -> list[int]:
    """Return the actions that the safe player takes, each as good; empty where every action is deadly.

    Args:
        size: Cells per side.
        body: Cells ``row·size + column`` from tail to head, at least 2.
        food: Cell of the food; −1: none.
    """
    moves = legal_moves(size, body)
    if not moves or food < 0:
        return sorted(moves)
    planned = _by_cycle(size, body, food, moves)
    return planned if planned else _by_search(size, body, food, moves)


def legal_moves(size: int, body: list[int]) -> dict[int, int]:
    """Return the actions that are not deadly, with the cell that each leads to."""
    head, neck = body[-1], body[-2]
    row, column = divmod(head, size)
    step_row, step_column = row - neck // size, column - neck % size
    steps = {
        LEFT: (-step_column, step_row),
        STRAIGHT: (step_row, step_column),
        RIGHT: (step_column, -step_row),
    }
    blocked = set(body[1:])
    moves = {}
    for action, (down, right) in steps.items():
        to_row, to_column = row + down, column + right
        cell = to_row * size + to_column
        if 0 <= to_row < size and 0 <= to_column < size and cell not in blocked:
            moves[action] = cell
    return moves


@lru_cache(maxsize=16)
def cycle_positions(size: int) -> NDArray[np.int64]:
    """Return the position of every cell on each of 16 cycles, ``(16, size²)``; odd sizes have none: ``(0, size²)``."""
    if size % 2:
        return np.zeros((0, size * size), dtype=np.int64)
    path = [(0, column) for column in range(size)]
    for row in range(1, size):
        columns = range(1, size)
        path += [(row, column) for column in (reversed(columns) if row % 2 else columns)]
    path += [(row, 0) for row in range(size - 1, 0, -1)]
    order = np.zeros((size, size), dtype=np.int64)
    for position, cell in enumerate(path):
        order[cell] = position
    images = [np.rot90(turned, quarter) for turned in (order, order.T) for quarter in range(4)]
    forward = np.array([image.reshape(-1) for image in images])
    return np.concatenate([forward, -forward % (size * size)])


def _by_cycle(size: int, body: list[int], food: int, moves: dict[int, int]) -> list[int]:
    """Return the moves with the least way to the food on the cycles that the body follows; none without these."""
    positions = cycle_positions(size)
    num_cells = size * size
    along = (positions[:, body] - positions[:, body[:1]]) % num_cells
    cycles = positions[(np.diff(along, axis=1) > 0).all(axis=1)]
    if not len(cycles):
        return []
    head = cycles[:, body[-1]]
    to_tail = (cycles[:, body[0]] - head) % num_cells
    to_food = (cycles[:, food] - head) % num_cells
    best_way = num_cells
    best: list[int] = []
    for action, cell in moves.items():
        jump = (cycles[:, cell] - head) % num_cells
        ways = (to_food - jump)[(jump <= to_tail) & (jump <= to_food)]
        if len(ways):
            way = int(ways.min())
            if way < best_way:
                best_way, best = way, []
            if way == best_way:
                best.append(action)
    return best


def _by_search(size: int, body: list[int], food: int, moves: dict[int, int]) -> list[int]:
    """Return the move along the shortest way to the food that keeps the tail in reach; else the longest to the tail."""
    path = _shortest_path(size, body, food)
    if path:
        eaten = [*body, *path][len(path) - 1 :]
        if len(eaten) == size * size or _shortest_path(size, eaten, eaten[0]):
            return [action for action, cell in moves.items() if cell == path[0]]
    ways = {}
    for action, cell in moves.items():
        moved = [*body[1:], cell]
        way = _shortest_path(size, moved, moved[0])
        if way:
            ways[action] = len(way)
    if not ways:
        return sorted(moves)
    return [action for action, way in ways.items() if way == max(ways.values())]


def _shortest_path(size: int, body: list[int], goal: int) -> list[int]:
    """Return the cells from beside the head to the goal, past a body that draws its tail in; none where no way leads.

    The i-th cell from the tail is free from step i + 1 on; the tail as a goal is reached at its old place.
    """
    frees = {cell: i + 1 for i, cell in enumerate(body)}
    came_from = {body[-1]: -1}
    frontier = deque([(body[-1], 0)])
    while frontier:
        cell, steps = frontier.popleft()
        row, column = divmod(cell, size)
        for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1)):
            if not (0 <= row + down < size and 0 <= column + right < size):
                continue
            beside = (row + down) * size + column + right
            if beside in came_from or frees.get(beside, 0) > steps + 1:
                continue
            came_from[beside] = cell
            if beside == goal:
                path = [goal]
                while came_from[path[-1]] != body[-1]:
                    path.append(came_from[path[-1]])
                return path[::-1]
            frontier.append((beside, steps + 1))
    return []


FEATURE_ACTIONS = "SLLLRLLSLLSLLSLLSLRRRRLRLLLLLLLLLLLLSSRRSRSSRSSSSSSSSSRRRRRRRRRSRSSLSSSS"
"""L, S or R for each row of ``FEATURE_TABLE``: what ``tools/snake_search.py`` found."""


def feature_rows(features: NDArray[np.floating] | NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the rows of ``FEATURE_TABLE`` that hold these features ``(…, 5)``."""
    return np.rint(features @ np.array([36, 18, 9, 3, 1]) + 4).astype(np.int64)


def _to_the_food() -> NDArray[np.int64]:
    table = []
    for left, ahead, right, food_ahead, food_side in FEATURE_TABLE.tolist():
        wishes = [STRAIGHT] if food_ahead > 0 else []
        wishes += {-1: [LEFT], 0: [LEFT, RIGHT] if food_ahead < 0 else [], 1: [RIGHT]}[food_side]
        wishes += [STRAIGHT, LEFT, RIGHT]
        deadly = {LEFT: left, STRAIGHT: ahead, RIGHT: right}
        table.append(next((action for action in wishes if not deadly[action]), STRAIGHT))
    return np.array(table)


TO_THE_FOOD = _to_the_food()
"""Action for each row of ``FEATURE_TABLE`` ``(72,)`` that leads to the food where that is not deadly."""
