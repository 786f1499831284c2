"""The opening book of Connect Four: the result of every position of 12 stones, from the package bitbully-databases.

Its file lists positions in which the player to move cannot win at once, five bytes each, in ascending order: the
position as a signed number of four bytes, big-endian, then the result. Of a position and its mirror image it has one.

- The position is written in bits, column by column from the left and from the bottom up: ``10`` for a stone of the
  player to move, ``11`` for one of the other, ``0`` at the end of a column; a last ``0`` fills the four bytes.
- The result is 0 for a draw, ``100 − n`` where the player to move wins with the n-th stone from here, its negative
  where the other does.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from bitbully_databases import BitBullyDatabases
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.envs.connect_four_board import HEIGHT, STRIDE, WIDTH

BOOK_STONES = 12
MISSING = -100

_ENTRY_BYTES = 5
_COLUMNS = tuple(STRIDE * column for column in range(WIDTH))
_MIRRORED = _COLUMNS[::-1]


def open_book() -> NDArray[np.uint8]:
    """Return the book's bytes, mapped from its file: processes share them, and what is not read is not loaded."""
    with Path(BitBullyDatabases.get_database_path("12-ply-dist")).open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


@compiled
def book_score(mine: int, theirs: int, book: NDArray[np.uint8]) -> int:
    """Return the score of a position of 12 stones; MISSING where the player to move can win at once."""
    result = _find(_position(mine, theirs, _COLUMNS), book)
    if result == MISSING:
        result = _find(_position(mine, theirs, _MIRRORED), book)
    if result == MISSING or result == 0:
        return result
    stones_at_end = BOOK_STONES + 100 - abs(result)
    left = WIDTH * HEIGHT // 2 + 1 - (stones_at_end + 1) // 2
    return left if result > 0 else -left


@compiled
def _position(mine: int, theirs: int, columns: tuple[int, ...]) -> int:
    """Return the number that stands for a position, its columns taken in an order of their first bits."""
    number = 0
    for first in columns:
        for cell in range(first, first + HEIGHT):
            if (mine >> cell) & 1:
                number = number << 2 | 2
            elif (theirs >> cell) & 1:
                number = number << 2 | 3
            else:
                break
        number <<= 1
    number <<= 1
    return number - (1 << 32) if number >= 1 << 31 else number


@compiled
def _find(position: int, book: NDArray[np.uint8]) -> int:
    """Return the result that the book has for a position, else MISSING."""
    low, high = 0, len(book) // _ENTRY_BYTES
    while low < high:
        middle = (low + high) // 2
        at = middle * _ENTRY_BYTES
        found = np.int64(book[at]) << 24 | np.int64(book[at + 1]) << 16
        found |= np.int64(book[at + 2]) << 8 | np.int64(book[at + 3])
        if found >= 1 << 31:
            found -= 1 << 32
        if found == position:
            result = int(np.int64(book[at + 4]))
            return result - 256 if result > 127 else result
        if found < position:
            low = middle + 1
        else:
            high = middle
    return MISSING
