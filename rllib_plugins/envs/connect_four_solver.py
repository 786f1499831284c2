"""Perfect play in Connect Four: bitbully's scores, computed once per position and process."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from rllib_plugins.envs.connect_four_board import NUM_CELLS, TOP, WIDTH
from tutor_service.errors import UserError


@cache
def _solver() -> tuple[Any, Any]:
    try:
        import bitbully.bitbully_core as core
        from bitbully_databases import BitBullyDatabases
    except ImportError as error:
        raise UserError(
            f"perfect play in Connect Four needs the package 'bitbully' ({error}). "
            "Install it with `pip install 'llm-tutors[solver]'` (AGPL-3.0), or choose another opponent."
        ) from error
    return core.BitBullyCore(BitBullyDatabases.get_database_path("default")), core.BoardCore


@lru_cache(maxsize=1_000_000)
def scores(mine: int, theirs: int) -> tuple[int | None, ...]:
    """Return the score of each column for the player of ``mine``, who is to move; None where the column is full.

    Positive: wins with perfect play, the higher the sooner. 0: a draw. Negative: loses, the lower the sooner. A
    position that the solver's opening book does not cover may take it a second (12 or 13 stones), later ones
    milliseconds.

    Args:
        mine: Stones of the player to move, as bits; neither player has won yet.
        theirs: Stones of the other.
    """
    solver, board_class = _solver()
    occupied = mine | theirs
    board = board_class()
    board.setRawState(occupied, mine, NUM_CELLS - occupied.bit_count())
    values = solver.scoreMoves(board)
    return tuple(None if occupied & TOP[column] else int(values[column]) for column in range(WIDTH))


def best_columns(mine: int, theirs: int) -> list[int]:
    """Return the columns of the highest score: fastest win, else a draw, else slowest loss."""
    values = scores(mine, theirs)
    best = max(value for value in values if value is not None)
    return [column for column, value in enumerate(values) if value == best]
