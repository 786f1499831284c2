"""Perfect play in Connect Four, computed once per position and process.

Its machine code is loaded when perfect play is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from rllib_plugins.envs import connect_four_board as bits

if TYPE_CHECKING:
    from rllib_plugins.envs.connect_four_search import Search

_NUM_KEPT = 1_000_000


@lru_cache(maxsize=_NUM_KEPT)
def best_columns(mine: int, theirs: int) -> tuple[int, ...]:
    """Return the columns of the highest score: fastest win, else a draw, else slowest loss.

    Args:
        mine: Stones of the player to move, as bits; neither player has won yet.
        theirs: Stones of the other.
    """
    from rllib_plugins.envs.connect_four_search import best_cells

    best = best_cells(mine, theirs, _search())
    return tuple(column for column in range(bits.WIDTH) if best & bits.COLUMN[column])


@lru_cache(maxsize=_NUM_KEPT)
def results(mine: int, theirs: int) -> tuple[int | None, ...]:
    """Return each column's result under perfect play after it: 1 win, 0 draw, −1 loss, None where it is full."""
    from rllib_plugins.envs.connect_four_search import result

    return _by_column(mine, theirs, 1, result)


def scores(mine: int, theirs: int) -> tuple[int | None, ...]:
    """Return the score of each column for the player of ``mine``, who is to move; None where the column is full.

    Positive: wins with perfect play, the higher the sooner. 0: a draw. Negative: loses, the lower the sooner. This
    takes longer than `best_columns` and `results`, which play and grading ask for.
    """
    from rllib_plugins.envs.connect_four_search import score, win_score

    return _by_column(mine, theirs, win_score((mine | theirs).bit_count()), score)


def forget() -> None:
    """Forget all answers, and what the search learned from them, so that the next ones can be timed."""
    best_columns.cache_clear()
    results.cache_clear()
    _search.cache_clear()


def _by_column(mine: int, theirs: int, win: int, worth: Callable[[int, int, Search], int]) -> tuple[int | None, ...]:
    occupied = mine | theirs
    found: list[int | None] = []
    for column in bits.COLUMN:
        move = bits.landing(occupied) & column
        if not move:
            found.append(None)
        elif bits.won(mine | move):
            found.append(win)
        else:
            found.append(-worth(theirs, mine | move, _search()))
    return tuple(found)


@cache
def _search() -> Search:
    from rllib_plugins.envs.connect_four_book import open_book
    from rllib_plugins.envs.connect_four_search import make_search

    return make_search(open_book())
