"""Connect Four: bitboards against plain loops, opponents against what they promise, the vector against PettingZoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.envs import connect_four_board as bits
from rllib_plugins.envs import connect_four_search as search
from rllib_plugins.envs import connect_four_solver as solver
from rllib_plugins.envs.connect_four import ConnectFourEnv
from rllib_plugins.envs.connect_four_book import MISSING, book_score, open_book
from rllib_plugins.envs.connect_four_opponents import GreedyOpponent, PerfectOpponent, RandomOpponent, choose
from rllib_plugins.envs.connect_four_vector import ConnectFourVectorEnv
from rllib_plugins.envs.random_blocks import Luck
from tests.unit.connect_four_peer import Peer, replay_single, replay_vector
from tutor_service.errors import UserError

games = st.lists(st.integers(0, 6), max_size=42)


def play(columns: list[int]) -> tuple[list[list[int]], int, int]:
    """Plays legal moves in turn until somebody wins: the cells (rows from the top), and both players' bits."""
    cells = [[0] * 7 for _ in range(6)]
    stones = [0, 0]
    for column in columns:
        if any(has_line(cells, player) for player in (1, 2)) or cells[0][column]:
            continue
        player = sum(cell != 0 for row in cells for cell in row) % 2
        row = max(row for row in range(6) if not cells[row][column])
        cells[row][column] = player + 1
        stones[player] |= int(bits.CELL_BITS[row, column])
    return cells, stones[0], stones[1]


def has_line(cells: list[list[int]], player: int) -> bool:
    for row in range(6):
        for column in range(7):
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                line = [(row + i * down, column + i * right) for i in range(4)]
                inside = all(0 <= r < 6 and 0 <= c < 7 for r, c in line)
                if inside and all(cells[r][c] == player for r, c in line):
                    return True
    return False


@settings(max_examples=60, deadline=None)
@given(games)
def test_bits_say_what_loops_say(columns: list[int]) -> None:
    cells, first, second = play(columns)
    for player, stones in ((1, first), (2, second)):
        assert bits.won(stones) == has_line(cells, player)
        assert bits.won_batch(np.array([stones])).tolist() == [has_line(cells, player)]
    assert bits.open_columns(first | second) == [column for column in range(7) if not cells[0][column]]
    planes = bits.planes(np.array([first]), np.array([second]))[0]
    assert np.array_equal(planes[0] + 2 * planes[1], cells)
    assert bits.stones(planes).tolist() == [first, second]
    if not bits.won(first) and not bits.won(second):
        for player, stones in ((1, first), (2, second)):
            threats = bits.fours(stones) & bits.landing(first | second)
            for column in bits.open_columns(first | second):
                row = max(row for row in range(6) if not cells[row][column])
                cells[row][column] = player
                assert bool(threats & bits.COLUMN[column]) == has_line(cells, player)
                cells[row][column] = 0


def test_games_follow_pettingzoo_move_by_move() -> None:
    peer = Peer()
    for opponent in ("random", "greedy"):
        replay_single(peer, ConnectFourEnv(opponent=opponent), num_games=25, seed=0)
        replay_vector(peer, ConnectFourVectorEnv(16, opponent=opponent), num_games=25, seed=0)


def test_greedy_wins_else_blocks() -> None:
    greedy, luck = GreedyOpponent(), Luck(np.random.default_rng(0))
    _, mine, theirs = play([0, 6, 0, 6, 0, 6])  # both have three upright; X moves
    assert {greedy.move(mine, theirs, luck) for _ in range(20)} == {0}
    _, mine, theirs = play([0, 6, 1, 6, 3, 6])
    assert {greedy.move(mine, theirs, luck) for _ in range(20)} == {2}  # X has 0 1 _ 3
    _, mine, theirs = play([0, 6, 0, 6, 3, 6])  # X has no four; O threatens column 6
    assert {greedy.move(mine, theirs, luck) for _ in range(20)} == {6}
    moves = greedy.moves(np.full(50, mine), np.full(50, theirs), np.random.default_rng(0))
    assert set(moves.tolist()) == {6}
    _, mine, theirs = play([0, 6, 0, 6, 0, 6])
    moves = greedy.moves(np.full(50, mine), np.full(50, theirs), np.random.default_rng(0))
    assert set(moves.tolist()) == {0}
    assert {greedy.move(0, 0, luck) for _ in range(200)} == set(range(7))


def test_single_and_vector_opponents_choose_alike() -> None:
    _, mine, theirs = play([3, 3, 3, 3, 3, 3, 0, 1])
    for opponent in (RandomOpponent(), GreedyOpponent(), PerfectOpponent(0.3)):
        luck = Luck(np.random.default_rng(1))
        ones = np.bincount([opponent.move(mine, theirs, luck) for _ in range(4_000)], minlength=7)
        many = np.bincount(
            opponent.moves(np.full(4_000, mine), np.full(4_000, theirs), np.random.default_rng(2)), minlength=7
        )
        assert np.abs(ones - many).max() < 5 * np.sqrt(4_000 * 0.5)
        assert ones[3] == many[3] == 0
        assert ((ones > 0) == (many > 0)).all()


def test_the_perfect_opponent_is_perfect_but_for_its_errors() -> None:
    luck = Luck(np.random.default_rng(0))
    assert {PerfectOpponent(0.0).move(0, 0, luck) for _ in range(50)} == {3}  # the centre wins for who begins
    moves = np.bincount([PerfectOpponent(0.5).move(0, 0, luck) for _ in range(2_000)], minlength=7) / 2_000
    assert abs(moves[3] - (0.5 + 0.5 / 7)) < 0.05 and moves.min() > 0.03


def test_solver_scores_have_the_signs_of_results() -> None:
    _, mine, theirs = play([0, 6, 0, 6, 0, 6])
    scores = solver.scores(mine, theirs)
    assert scores[0] == max(score for score in scores if score is not None) > 0
    _, mine, theirs = play([0, 6, 0, 6, 3, 6])
    scores = solver.scores(mine, theirs)
    assert solver.best_columns(mine, theirs) == (6,) or max(s for s in scores if s is not None) < 0
    _, mine, theirs = play([3] * 6)
    assert solver.scores(mine, theirs)[3] is None
    assert solver.scores(0, 0) == (-2, -1, 0, 1, 0, -1, -2)  # published: only the centre column wins


def known_scores() -> list[tuple[int, int, tuple[int | None, ...]]]:
    """Positions of every number of stones with bitbully's scores: both players' bits, then a score per column."""
    lines = (Path(__file__).parent / "data" / "connect_four_scores.txt").read_text().splitlines()
    rows = (line.split() for line in lines)
    return [(int(row[0]), int(row[1]), tuple(None if s == "-" else int(s) for s in row[2:])) for row in rows]


def test_solver_knows_the_scores_at_every_stage_of_a_game() -> None:
    positions = known_scores()
    assert {(mine | theirs).bit_count() for mine, theirs, _ in positions} >= set(range(41))
    for mine, theirs, scores in positions:
        best = max(score for score in scores if score is not None)
        assert solver.scores(mine, theirs) == scores
        assert solver.best_columns(mine, theirs) == tuple(c for c, score in enumerate(scores) if score == best)
        assert solver.results(mine, theirs) == tuple(s if s is None else (s > 0) - (s < 0) for s in scores)


def test_the_book_says_what_a_search_without_it_finds() -> None:
    """Held in positions of 12 stones that one of the players soon wins, which a search decides at once."""
    book, bare = open_book(), search.make_search(np.zeros(0, np.uint8))
    rng, num_checked = np.random.default_rng(0), 0
    while num_checked < 10:
        _, mine, theirs = play(rng.integers(7, size=12).tolist())
        if (mine | theirs).bit_count() < 12 or bits.won(mine) or bits.won(theirs):
            continue
        score = book_score(mine, theirs, book)
        assert (score == MISSING) == bool(bits.fours(mine) & bits.landing(mine | theirs))
        if score == MISSING or abs(score) < 13:
            continue
        assert not search.exceeds(mine, theirs, score, bare)
        assert search.exceeds(mine, theirs, score - 1, bare)
        num_checked += 1


def test_solver_answers_the_same_after_it_has_forgotten() -> None:
    _, mine, theirs = play([3, 3, 3, 3, 3, 1, 0, 0, 6, 6, 6, 5, 5, 4, 4, 4])
    before = solver.best_columns(mine, theirs), solver.scores(mine, theirs)
    solver.forget()
    assert (solver.best_columns(mine, theirs), solver.scores(mine, theirs)) == before


def test_who_begins_is_as_asked() -> None:
    for first, stones in (("student", {0}), ("opponent", {1}), ("random", {0, 1})):
        env = ConnectFourEnv(first=first)
        assert {int(env.reset(seed=seed)[0].sum()) for seed in range(30)} == stones
        observations, _ = ConnectFourVectorEnv(200, first=first).reset(seed=0)
        assert {int(planes.sum()) for planes in observations} == stones
        assert observations[:, 0].sum() == 0


def test_a_full_column_is_refused_by_name() -> None:
    env = ConnectFourEnv(first="student")
    for seed in range(100):
        _, info = env.reset(seed=seed)
        terminated = False
        while info["action_mask"][2] and not terminated:
            _, _, terminated, _, info = env.step(2)
        if not terminated:
            break
    with pytest.raises(UserError, match=r"column 2 is full; open are \[.*action_mask"):
        env.step(2)
    envs = ConnectFourVectorEnv(64, first="student")
    envs.reset(seed=0)
    with pytest.raises(UserError, match=r"action 2 in environment \d+: the column is full"):
        for _ in range(200):
            envs.step(np.full(64, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"opponent": "gready"}, "unknown opponent 'gready'. Did you mean 'greedy'.*greedy, perfect, random"),
        ({"opponent": "perfect", "error_rate": 1.5}, "error_rate = 1.5"),
        ({"opponent": "random", "error_rate": 0.5}, "only opponent 'perfect'"),
        ({"first": "me"}, "unknown first player 'me'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ConnectFourEnv(**arguments)
    with pytest.raises(UserError, match=message):
        ConnectFourVectorEnv(2, **arguments)


def test_choose_takes_allowed_columns_evenly() -> None:
    allowed = np.tile([True, False, True, False, False, True, False], (9_000, 1))
    counts = np.bincount(choose(allowed, np.random.default_rng(0)), minlength=7)
    assert counts[[1, 3, 4, 6]].sum() == 0
    assert np.abs(counts[[0, 2, 5]] - 3_000).max() < 200
