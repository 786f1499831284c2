"""Perfect play in Connect Four beside the solver bitbully: the same scores, and no more time for a game.

Games are played at random, by the greedy player and by best moves. Both solvers say the best columns at each move, in
turn game by game; both forget what they know of positions before the first game of a kind. Time is the process's own:
little disturbed by other work on the machine, which meets both alike. Then the scores of all columns, the best columns
and the results are held against bitbully's in positions of every number of stones.

bitbully (AGPL-3.0) is no part of what is installed: `pip install -e '.[cross-check]'`.

Run ``.venv/bin/python -m benchmarks.connect_four_solver`` (``--quick``: fewer positions and games; ``--sample FILE``
writes some positions and bitbully's scores, which the quick tests read).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Benchmark, alternate, benchmark_parser, sized

MEASURES = (
    "rllib_plugins/envs/connect_four_book.py",
    "rllib_plugins/envs/connect_four_search.py",
    "rllib_plugins/envs/connect_four_solver.py",
)
STYLES = ("random", "greedy", "perfect")
"""How both sides play in the games that are timed."""
OPENING_STONES = 16
HARD_STONES = range(12, 16)
"""Where the book has just ended and both solvers take longest: fewer positions are compared."""

Scores = tuple[int | None, ...]


class Position(NamedTuple):
    """Stones as bits, the player's to move first."""

    mine: int
    theirs: int

    @property
    def num_stones(self) -> int:
        """Number of stones on the board."""
        return (self.mine | self.theirs).bit_count()


class Bitbully:
    """The peer, with its opening book of 12 stones; it says the scores of all columns, and nothing less."""

    def __init__(self) -> None:
        import bitbully.bitbully_core as core
        from bitbully_databases import BitBullyDatabases

        self._board = core.BoardCore
        self._solver = core.BitBullyCore(BitBullyDatabases.get_database_path("default"))

    def scores(self, position: Position) -> Scores:
        """Return the score of each column; None where it is full."""
        from rllib_plugins.envs.connect_four_board import NUM_CELLS, TOP

        occupied = position.mine | position.theirs
        board = self._board()
        board.setRawState(occupied, position.mine, NUM_CELLS - position.num_stones)
        values = self._solver.scoreMoves(board)
        return tuple(None if occupied & top else int(value) for top, value in zip(TOP, values, strict=True))

    def best_columns(self, position: Position) -> tuple[int, ...]:
        """Return the columns of the highest score."""
        return best(self.scores(position))

    def forget(self) -> None:
        """Forget what earlier searches found."""
        self._solver.resetTranspositionTable()


def best(scores: Scores) -> tuple[int, ...]:
    """Return the columns of the highest score."""
    highest = max(score for score in scores if score is not None)
    return tuple(column for column, score in enumerate(scores) if score == highest)


def our_best_columns(position: Position) -> tuple[int, ...]:
    """Return our solver's best columns; what it keeps of earlier answers is not asked."""
    from rllib_plugins.envs.connect_four_solver import best_columns

    return best_columns.__wrapped__(*position)


def game(style: str, seed: int) -> Iterator[Position]:
    """Play a game against itself; yield the positions in which somebody is to move.

    Args:
        style: One of `STYLES`, or ``late``: at random in the opening, then best moves, which makes games long.
        seed: Of the moves.
    """
    import numpy as np

    from rllib_plugins.envs import connect_four_board as bits
    from rllib_plugins.envs.connect_four_opponents import GreedyOpponent, PerfectOpponent, RandomOpponent
    from rllib_plugins.envs.random_blocks import Luck

    luck = Luck(np.random.default_rng(seed))
    players = {"random": RandomOpponent(), "greedy": GreedyOpponent(), "perfect": PerfectOpponent(0.0)}
    opening = players["random" if style == "late" else style]
    rest = players["perfect" if style == "late" else style]
    mine = theirs = 0
    while not bits.won(theirs) and (mine | theirs) != bits.FULL:
        yield Position(mine, theirs)
        player = opening if (mine | theirs).bit_count() < OPENING_STONES else rest
        column = player.move(mine, theirs, luck)
        mine, theirs = theirs, mine | (bits.landing(mine | theirs) & bits.COLUMN[column])


def positions_of_all_depths(num_positions: int) -> list[Position]:
    """Return that many distinct positions or more, of each number of stones about as many as of any other.

    One game of ten is of best moves alone.
    """
    per_depth = num_positions // 25  # there are few positions of up to three stones, and few games fill the board
    found: dict[Position, None] = {}
    of_depth: Counter[int] = Counter()
    seed = 0
    while len(found) < num_positions:
        for style in ("random", "greedy", "late", *(["perfect"] if seed % 10 == 0 else [])):
            for position in game(style, seed):
                most = per_depth // 5 + 1 if position.num_stones in HARD_STONES else per_depth
                if position not in found and of_depth[position.num_stones] < most:
                    found[position] = None
                    of_depth[position.num_stones] += 1
        seed += 1
    return list(found)


def compare(positions: list[Position], bitbully: Bitbully, benchmark: Benchmark) -> None:
    """Hold our scores, best columns and results against bitbully's."""
    from rllib_plugins.envs import connect_four_solver as ours

    differing: Counter[str] = Counter()
    for position in positions:
        scores = bitbully.scores(position)
        results = tuple(None if score is None else (score > 0) - (score < 0) for score in scores)
        differing["scores"] += ours.scores(*position) != scores
        differing["best_columns"] += our_best_columns(position) != best(scores)
        differing["results"] += ours.results(*position) != results
    of_depth = Counter(position.num_stones for position in positions)
    benchmark.record("positions_by_stones", [of_depth[num_stones] for num_stones in range(42)])
    for what, number in differing.items():
        benchmark.check(f"positions_of_other_{what}", number, bar=0, higher_is_better=False)


def seconds(answer: Callable[[Position], Any], positions: list[Position]) -> float:
    """Return the process's own time for the answers at each move of a game."""
    first = time.process_time()
    for position in positions:
        answer(position)
    return time.process_time() - first


def first_answer_s(statement: str) -> float:
    """Return the time of a fresh process that loads a solver and asks it for the empty board."""
    first = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - first


def write_sample(path: Path, bitbully: Bitbully) -> None:
    """Write positions of all depths, a line each: both players' stones as bits, then the score of each column."""
    lines = []
    for position in positions_of_all_depths(180):
        scores = ("-" if score is None else str(score) for score in bitbully.scores(position))
        lines.append(f"{position.mine} {position.theirs} {' '.join(scores)}\n")
    path.write_text("".join(lines), encoding="utf-8")


def main() -> int:
    """Measures, checks and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--sample", type=Path, help="write positions and bitbully's scores to this file, and end")
    args = parser.parse_args()
    try:
        bitbully = Bitbully()
    except ImportError:
        parser.error("bitbully is not installed: .venv/bin/python -m uv pip install -e '.[cross-check]'")
    if args.sample:
        write_sample(args.sample, bitbully)
        return 0

    from rllib_plugins.envs.connect_four_solver import forget

    benchmark = Benchmark("connect_four_solver")
    our_best_columns(Position(0, 0))
    starts = {
        "ours": "from rllib_plugins.envs.connect_four_solver import best_columns; best_columns(0, 0)",
        "bitbully": "from benchmarks.connect_four_solver import Bitbully, Position; Bitbully().scores(Position(0, 0))",
    }
    repetitions = sized(args, full=5, quick=2, smoke=1)
    first = alternate({name: lambda code=code: first_answer_s(code) for name, code in starts.items()}, repetitions)
    benchmark.record("first_answer_s", first)
    num_games = sized(args, full=40, quick=3, smoke=1)
    for style in STYLES:
        taken: dict[str, list[float]] = {"ours": [], "bitbully": []}
        games = [list(game(style, 1_000_000 + seed)) for seed in range(num_games)]
        forget()
        bitbully.forget()
        for seed, positions in enumerate(games):
            turn = [("ours", our_best_columns), ("bitbully", bitbully.best_columns)]
            for name, answer in turn if seed % 2 else reversed(turn):
                taken[name].append(seconds(answer, positions))
        benchmark.record(f"{style}_s_per_game", taken)
        ours, theirs = (statistics.fmean(taken[name]) for name in ("ours", "bitbully"))
        benchmark.record(f"{style}_mean_s_per_game", {"ours": ours, "bitbully": theirs})
        benchmark.check(f"{style}_time_over_bitbullys", ours / theirs, bar=1, higher_is_better=False)
    num_positions = sized(args, full=10_000, quick=400, smoke=60)
    compare(positions_of_all_depths(num_positions), bitbully, benchmark)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
