"""Search of Connect Four: whether a position is worth more than a bound, and its exact score.

A score counts the stones that the winner has left: 0 is a draw, ``22 − k`` a win with one's ``k``-th stone, and a loss
is the negative of the other's win. Everything is asked of `exceeds`, a null-window negamax: it needs only "more than
``bound``, or not", so one good reply refutes a move. It knows

- the opening book at 12 stones, where the search of an opening position ends;
- a table of bounds on positions that were searched before, asked for all replies before one is searched;
- which moves do not lose at once, and an order for them: those that leave the most cells to win in come first.

The search keeps its own stack, since a recursive function would be handed every array again at every node.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled, inlined
from rllib_plugins.envs import connect_four_board as bits
from rllib_plugins.envs.connect_four_book import BOOK_STONES, MISSING, book_score

_NUM_CELLS, _ALL_BOTTOM, _FULL = bits.NUM_CELLS, bits.ALL_BOTTOM, bits.FULL
_FROM_CENTRE = tuple(bits.COLUMN[column] for column in (3, 2, 4, 1, 5, 0, 6))

MINE, THEIRS, THREATS, BOUND, NUM_MOVES, NUM_TRIED = range(6)
MOVES, THREATS_AFTER, RANKS = 6, 13, 20
NO, YES, UNKNOWN = 0, 1, 2

_KEY_BITS, _BUCKET_BITS, _FIELD_BITS = 61, 20, 6
_REST_BITS, _VALUE_BITS = _KEY_BITS - _BUCKET_BITS, 3 * _FIELD_BITS
_KEY_MASK, _REST_MASK, _FIELD_MASK = (1 << _KEY_BITS) - 1, (1 << _REST_BITS) - 1, (1 << _FIELD_BITS) - 1
_MIXER = 0x9E3779B97F4A7C15 & _KEY_MASK
_ZERO = 22
"""What is added to a bound so that it is stored as a positive number."""
_LINES_FROM = 20
"""Stones from which it is asked whether any line of four is left; before that the answer is nearly always yes."""

_fours = inlined(bits.fours)
_won = inlined(bits.won)


class Search(NamedTuple):
    """What a search works on: arrays that are allocated once per process.

    Attributes:
        book: The opening book's bytes.
        table: What is known of positions, ``(2 ** 20, 2)``. A position's key names its row; an entry is one number: the
            rest of the key, the number of stones, the lower and the upper bound of the score.
        frames: The stack, a row of `MINE` and the like per depth, ``(42, 28)``.
    """

    book: NDArray[np.uint8]
    table: NDArray[np.int64]
    frames: NDArray[np.int64]


def make_search(book: NDArray[np.uint8]) -> Search:
    """Return a search that knows nothing but an opening book, given as its bytes."""
    frames = np.zeros((_NUM_CELLS, RANKS + bits.WIDTH), np.int64)
    return Search(book, np.zeros((1 << _BUCKET_BITS, 2), np.int64), frames)


@inlined
def count(stones: int) -> int:
    """Return the number of bits that are set."""
    two, four, eight = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
    sums = np.uint64(stones)
    sums -= (sums >> np.uint64(1)) & two
    sums = (sums & four) + ((sums >> np.uint64(2)) & four)
    sums = (sums + (sums >> np.uint64(4))) & eight
    return int(np.int64((sums * np.uint64(0x0101010101010101)) >> np.uint64(56)))


@inlined
def safe_moves(occupied: int, threats: int) -> int:
    """Return the cells that can be taken without losing to the other's next stone, given what wins for the other."""
    landing = (occupied + _ALL_BOTTOM) & _FULL
    forced = landing & threats
    if forced & (forced - 1):
        return 0
    return (forced if forced else landing) & ~(threats >> 1)


@compiled
def exceeds(mine: int, theirs: int, bound: int, search: Search) -> bool:
    """Return whether the score of the player of ``mine``, who is to move and cannot win at once, is above a bound."""
    frames = search.frames
    depth = 0
    frames[0, MINE], frames[0, THEIRS], frames[0, THREATS], frames[0, BOUND] = mine, theirs, _fours(theirs), bound
    while True:
        verdict = _open(depth, search)
        while verdict != UNKNOWN:
            if depth == 0:
                return verdict == YES
            depth -= 1
            if verdict == NO or frames[depth, NUM_TRIED] == frames[depth, NUM_MOVES]:
                verdict = YES if verdict == NO else NO
                _store(depth, verdict, search)
            else:
                verdict = UNKNOWN
        tried = frames[depth, NUM_TRIED]
        frames[depth, NUM_TRIED] = tried + 1
        frames[depth + 1, MINE] = frames[depth, THEIRS]
        frames[depth + 1, THEIRS] = frames[depth, MINE] | frames[depth, MOVES + tried]
        frames[depth + 1, THREATS] = frames[depth, THREATS_AFTER + tried]
        frames[depth + 1, BOUND] = -frames[depth, BOUND] - 1
        depth += 1


@inlined
def _open(depth: int, search: Search) -> int:
    """Return the verdict on the position at a depth, or UNKNOWN with its moves made ready."""
    frames = search.frames
    mine, theirs, bound = frames[depth, MINE], frames[depth, THEIRS], frames[depth, BOUND]
    occupied = mine | theirs
    num_stones = count(occupied)
    moves = safe_moves(occupied, frames[depth, THREATS])
    if moves == 0:
        return YES if least_score(num_stones) > bound else NO
    if num_stones >= _NUM_CELLS - 2:
        return YES if bound < 0 else NO
    if num_stones == BOOK_STONES:
        score = book_score(mine, theirs, search.book)
        if score != MISSING:
            return YES if score > bound else NO
    low, high = _bounds(_key(mine, occupied), num_stones, search.table)
    if low > bound:
        return YES
    if high <= bound:
        return NO
    if num_stones >= _LINES_FROM:
        if bound >= 0:
            if not _won(mine | (_FULL & ~occupied)):
                return NO
        elif not _won(theirs | (_FULL & ~occupied)):
            return YES
    return _make_ready(depth, moves, num_stones, search)


@inlined
def _make_ready(depth: int, moves: int, num_stones: int, search: Search) -> int:
    """Sort the moves of a position, the most promising first; return a verdict if one of them is known to suffice,
    or if none is left, else UNKNOWN."""
    frames = search.frames
    mine, theirs, bound = frames[depth, MINE], frames[depth, THEIRS], frames[depth, BOUND]
    occupied = mine | theirs
    num_moves = 0
    for column in _FROM_CENTRE:
        move = moves & column
        if move == 0:
            continue
        after = occupied | move
        threats = _fours(mine | move) & ~after
        if safe_moves(after, threats) == 0:
            return YES
        low, high = _bounds(_key(theirs, after), num_stones + 1, search.table)
        if high <= -bound - 1:
            return YES
        if low > -bound - 1:
            continue
        rank = 2 * count(threats) - (1 if threats & (after + _ALL_BOTTOM) else 0)
        place = num_moves
        while place > 0 and frames[depth, RANKS + place - 1] < rank:
            frames[depth, RANKS + place] = frames[depth, RANKS + place - 1]
            frames[depth, MOVES + place] = frames[depth, MOVES + place - 1]
            frames[depth, THREATS_AFTER + place] = frames[depth, THREATS_AFTER + place - 1]
            place -= 1
        frames[depth, RANKS + place] = rank
        frames[depth, MOVES + place] = move
        frames[depth, THREATS_AFTER + place] = threats
        num_moves += 1
    if num_moves == 0:
        return NO
    frames[depth, NUM_MOVES], frames[depth, NUM_TRIED] = num_moves, 0
    return UNKNOWN


@inlined
def win_score(num_stones: int) -> int:
    """Return the score of winning with the next stone."""
    return (_NUM_CELLS + 1 - num_stones) // 2


@inlined
def least_score(num_stones: int) -> int:
    """Return the score of losing to the other's next stone, the player to move having still to place one."""
    return -((_NUM_CELLS - num_stones) // 2)


@inlined
def _key(mine: int, occupied: int) -> int:
    """Return a number below 2 ** 61 that no other position has, its high bits mixed."""
    return ((occupied + _ALL_BOTTOM + mine) * _MIXER) & _KEY_MASK


@inlined
def _bounds(key: int, num_stones: int, table: NDArray[np.int64]) -> tuple[int, int]:
    """Return the least and the greatest score that a position can have, as far as the table knows; nobody can win or
    lose at once."""
    bucket, rest = key >> _REST_BITS, key & _REST_MASK
    entry = table[bucket, 0]
    if entry >> _VALUE_BITS != rest:
        entry = table[bucket, 1]
    if entry >> _VALUE_BITS == rest and entry != 0:
        return ((entry >> _FIELD_BITS) & _FIELD_MASK) - _ZERO, (entry & _FIELD_MASK) - _ZERO
    return least_score(num_stones + 2), win_score(num_stones + 2)


@inlined
def _store(depth: int, verdict: int, search: Search) -> None:
    """Tighten the table's bounds on the position at a depth.

    A bucket's first place is for the position of fewer stones, which took longer to search; the second for the latest.
    """
    mine, bound = search.frames[depth, MINE], search.frames[depth, BOUND]
    occupied = mine | search.frames[depth, THEIRS]
    key, num_stones, table = _key(mine, occupied), count(occupied), search.table
    low, high = _bounds(key, num_stones, table)
    if verdict == YES:
        low = max(low, bound + 1)
    else:
        high = min(high, bound)
    bucket, rest = key >> _REST_BITS, key & _REST_MASK
    entry = rest << _VALUE_BITS | num_stones << 2 * _FIELD_BITS | (low + _ZERO) << _FIELD_BITS | (high + _ZERO)
    first = table[bucket, 0]
    if first == 0 or first >> _VALUE_BITS == rest:
        table[bucket, 0] = entry
    elif (first >> 2 * _FIELD_BITS) & _FIELD_MASK >= num_stones:
        table[bucket, 1] = first
        table[bucket, 0] = entry
    else:
        table[bucket, 1] = entry


def score(mine: int, theirs: int, search: Search) -> int:
    """Return the score of a position that nobody has won, for the player of ``mine``, who is to move."""
    occupied = mine | theirs
    num_stones = occupied.bit_count()
    if bits.fours(mine) & bits.landing(occupied):
        return win_score(num_stones)
    if num_stones == BOOK_STONES:
        known = book_score(mine, theirs, search.book)
        if known != MISSING:
            return known
    low, high = least_score(num_stones), win_score(num_stones + 2)
    while low < high:
        bound = (low + high) // 2
        bound = min(bound, -(-low // 2)) if bound <= 0 else max(bound, high // 2)  # quick ends are soon found
        if exceeds(mine, theirs, bound, search):
            low = bound + 1
        else:
            high = bound
    return low


def best_cells(mine: int, theirs: int, search: Search) -> int:
    """Return the cells of the highest score; the other cells' scores are not found out."""
    landing = bits.landing(mine | theirs) & bits.FULL
    wins = bits.fours(mine) & landing
    if wins:
        return wins
    moves = safe_moves(mine | theirs, bits.fours(theirs))
    if moves == 0:
        return landing  # all lose to the next stone
    if moves & (moves - 1) == 0:
        return moves
    highest = score(mine, theirs, search)
    return sum(
        moves & column
        for column in _FROM_CENTRE
        if moves & column and not exceeds(theirs, mine | moves & column, -highest, search)
    )


def result(mine: int, theirs: int, search: Search) -> int:
    """Return the sign of ``score``, which takes two questions at most."""
    if bits.fours(mine) & bits.landing(mine | theirs) or exceeds(mine, theirs, 0, search):
        return 1
    return 0 if exceeds(mine, theirs, -1, search) else -1
