"""Connect Four in bits: where stones can fall, and who has won.

A player's stones are one integer. Bit ``9·column + row`` is the cell of that column (0 left) and row (0 bottom); rows 6
to 8 stay empty and keep lines from wrapping into the next column. Everything here is written in shifts and masks, so it
works on Python integers, on int64 arrays and in machine code alike.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, STRIDE = 7, 6, 9
NUM_CELLS = WIDTH * HEIGHT
LINE_STEPS = (1, STRIDE, STRIDE - 1, STRIDE + 1)
"""Bit distance between neighbours: vertical, horizontal, and the two diagonals."""

BOTTOM = tuple(1 << (STRIDE * column) for column in range(WIDTH))
TOP = tuple(bottom << (HEIGHT - 1) for bottom in BOTTOM)
COLUMN = tuple(bottom * (2**HEIGHT - 1) for bottom in BOTTOM)
ALL_BOTTOM, FULL = sum(BOTTOM), sum(COLUMN)

CELL_BITS = np.array(
    [[1 << (STRIDE * column + row) for column in range(WIDTH)] for row in reversed(range(HEIGHT))], dtype=np.int64
)
"""Bit of every cell, ``(6, 7)``, top row first: the order in which boards are shown."""

Stones = TypeVar("Stones", int, NDArray[np.int64])


def won(stones: int) -> bool:
    """Return whether four of a player's stones are in line."""
    for step in LINE_STEPS:
        pairs = stones & (stones >> step)
        if pairs & (pairs >> 2 * step):
            return True
    return False


def won_batch(stones: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return ``won`` for an array of boards of any shape."""
    lines = np.zeros_like(stones)
    for step in LINE_STEPS:
        pairs = stones & (stones >> step)
        lines |= pairs & (pairs >> 2 * step)
    return lines != 0


def landing(occupied: Stones) -> Stones:
    """Return the cell above the stones of every column: one bit per column, also above a full one."""
    return occupied + ALL_BOTTOM


def fours(stones: Stones) -> Stones:
    """Return the cells that would complete a line of four; they may be taken or hang in the air.

    Threes with a gap are found by pairing a neighbouring two with the single stone beyond the empty cell.
    """
    cells = (stones << 1) & (stones << 2) & (stones << 3)
    for step in LINE_STEPS[1:]:
        up, down = stones << step, stones >> step
        up_pair, down_pair = up & (stones << 2 * step), down & (stones >> 2 * step)
        cells |= up_pair & (stones << 3 * step) | up_pair & down | up & down_pair | down_pair & (stones >> 3 * step)
    return cells & FULL


def open_columns(occupied: int) -> list[int]:
    """Return the columns that are not full."""
    return [column for column in range(WIDTH) if not occupied & TOP[column]]


def open_columns_batch(occupied: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the mask of the columns that are not full, ``(n, 7)`` for ``(n,)`` boards."""
    return (occupied[:, None] & np.array(TOP)) == 0


def planes(mine: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return boards as planes ``(n, 2, 6, 7)``: own stones and the other's, top row first."""
    both = np.stack([mine, theirs], axis=1)[:, :, None, None]
    return ((both & CELL_BITS) != 0).view(np.int8)


def stones(plane: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the bits of planes ``(…, 6, 7)``: the inverse of ``planes``, ``(…)``."""
    return np.where(np.asarray(plane) > 0.5, CELL_BITS, 0).sum(axis=(-2, -1))
