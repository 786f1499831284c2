"""Who plays against the student in Connect Four."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.envs import connect_four_board as bits
from rllib_plugins.envs.connect_four_solver import best_columns
from rllib_plugins.envs.random_blocks import Luck
from tutor_service.errors import UserError, unknown_name

OPPONENTS = ("random", "greedy", "perfect")
_COLUMNS = np.array(bits.COLUMN)


class Opponent(ABC):
    """A player that answers positions in which it is to move and nobody has won."""

    @abstractmethod
    def move(self, mine: int, theirs: int, luck: Luck) -> int:
        """Return a column that is not full.

        Args:
            mine: The opponent's own stones, as bits.
            theirs: The student's stones.
            luck: Source of its random choices.
        """

    @abstractmethod
    def moves(self, mine: NDArray[np.int64], theirs: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return ``move`` for boards ``(n,)``."""


class RandomOpponent(Opponent):
    """Any column that is not full, each as likely."""

    def move(self, mine: int, theirs: int, luck: Luck) -> int:
        """Return a random column."""
        columns = bits.open_columns(mine | theirs)
        return columns[luck.below(len(columns))]

    def moves(self, mine: NDArray[np.int64], theirs: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return random columns."""
        return choose(bits.open_columns_batch(mine | theirs), rng)


class GreedyOpponent(Opponent):
    """Wins where it can in one move, else blocks the student's win in one move, else plays at random."""

    def move(self, mine: int, theirs: int, luck: Luck) -> int:
        """Return a winning column, a blocking one, or a random one; random among several."""
        occupied = mine | theirs
        landing = bits.landing(occupied)
        for target in (bits.fours(mine) & landing, bits.fours(theirs) & landing):
            if target:
                columns = [column for column in range(bits.WIDTH) if target & bits.COLUMN[column]]
                return columns[luck.below(len(columns))]
        columns = bits.open_columns(occupied)
        return columns[luck.below(len(columns))]

    def moves(self, mine: NDArray[np.int64], theirs: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return winning columns, blocking ones, or random ones."""
        occupied = mine | theirs
        landing = bits.landing(occupied)
        wins, blocks = bits.fours(mine) & landing, bits.fours(theirs) & landing
        target = np.where(wins != 0, wins, blocks)
        allowed = (target[:, None] & _COLUMNS) != 0
        return choose(np.where((target != 0)[:, None], allowed, bits.open_columns_batch(occupied)), rng)


class PerfectOpponent(Opponent):
    """Play a best column by the solver; with probability ``error_rate`` a random one instead."""

    def __init__(self, error_rate: float) -> None:
        """Set the error rate.

        Args:
            error_rate: Share of moves that are random, 0 to 1.
        """
        self._error_rate = error_rate

    def move(self, mine: int, theirs: int, luck: Luck) -> int:
        """Return a best column or, in error, any."""
        in_error = luck.uniform() < self._error_rate
        columns = bits.open_columns(mine | theirs) if in_error else best_columns(mine, theirs)
        return columns[luck.below(len(columns))]

    def moves(self, mine: NDArray[np.int64], theirs: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return best columns or, in error, any; the solver is asked one board at a time."""
        luck = Luck(rng)
        pairs = zip(mine.tolist(), theirs.tolist(), strict=True)
        return np.array([self.move(own, other, luck) for own, other in pairs], dtype=np.int64)


def make_opponent(name: str, error_rate: float) -> Opponent:
    """Return an opponent by name.

    Raises:
        UserError: An unknown name, or an error rate outside 0 to 1 or given to an opponent that has none.
    """
    if name not in OPPONENTS:
        raise unknown_name("opponent", name, OPPONENTS)
    if not 0 <= error_rate <= 1:
        raise UserError(f"error_rate = {error_rate}: must be between 0 and 1.")
    if name == "perfect":
        return PerfectOpponent(error_rate)
    if error_rate:
        raise UserError(f"error_rate = {error_rate}: only opponent 'perfect' has one, and opponent is '{name}'.")
    return RandomOpponent() if name == "random" else GreedyOpponent()


def choose(allowed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return one allowed column per row of ``(n, 7)``, each as likely; every row must allow one."""
    rank = allowed.cumsum(axis=1)
    wanted = (rng.random(len(allowed)) * rank[:, -1]).astype(np.int64) + 1
    return (rank >= wanted[:, None]).argmax(axis=1)
