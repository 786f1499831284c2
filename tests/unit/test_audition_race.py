"""Races between players: what they cost, whom they pick, what they say meanwhile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.audition.race import SHARE, Race, Score, rounds, run_race


class Arena:
    """Plays episodes whose returns are normal around a mean per player; the same luck for all in a round."""

    def __init__(self, means: list[float], std: float, seed: int = 0) -> None:
        self.means, self.std, self.seed = means, std, seed
        self.played = [0] * len(means)
        self.turns: list[tuple[int, int]] = []

    def __call__(self, player: int, episodes: int, turn: int) -> Score:
        self.played[player] += episodes
        self.turns.append((player, turn))
        returns = np.random.default_rng([self.seed, player, turn]).normal(self.means[player], self.std, episodes)
        return Score(float(returns.mean()), float(returns.std()), episodes)


@given(
    means=st.lists(st.floats(-10, 10), min_size=1, max_size=40),
    full=st.integers(200, 2_000),
    std=st.floats(0, 10),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_a_race_costs_a_third_at_most_and_counts_right(means: list[float], full: int, std: float, seed: int) -> None:
    arena = Arena(means, std, seed)
    race = run_race(range(len(means)), arena, full)
    assert race.episodes == sum(arena.played) and race.full == len(means) * full
    assert race.episodes <= race.planned <= race.full
    if len(means) > 1:
        assert race.episodes <= SHARE * race.full
    assert max(arena.played) <= full
    assert {standing.player for standing in race.standings} == set(range(len(means)))
    assert [standing.dropped is None for standing in race.standings] == [True] + [False] * (len(means) - 1)
    for standing in race.standings:
        assert standing.score.episodes == arena.played[standing.player]


@pytest.mark.parametrize("num_ways", [4, 8, 16, 24])
def test_the_winner_is_worth_nine_tenths_of_the_best(num_ways: int) -> None:
    """Returns like Snake's: most ways near nothing, few good ones, an episode's spread as large as the best mean."""
    shares = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        means = [float(mean) for mean in np.where(rng.random(num_ways) < 0.6, 0.0, rng.uniform(0, 9, num_ways))]
        best = max(means)
        if best > 1:
            race = run_race(range(num_ways), Arena(means, 5.0, seed), 400)
            shares.append(means[race.best.player] / best)
    assert np.mean(np.array(shares) >= 0.9) >= 0.9 and np.mean(shares) >= 0.97


def test_all_players_of_a_round_meet_the_same_episodes() -> None:
    arena = Arena([0, 1, 2, 3, 4], 1.0)
    run_race(range(5), arena, 300)
    assert {player for player, turn in arena.turns if turn == 0} == set(range(5))
    assert len([player for player, turn in arena.turns if turn == 1]) <= 3


def test_one_player_plays_in_full() -> None:
    arena = Arena([1.0], 1.0)
    race = run_race([0], arena, 250)
    assert arena.played == [250] and race.planned == race.full == 250


def test_clear_losers_leave_early_and_the_winner_plays_what_they_save() -> None:
    arena = Arena([0.0, 0.0, 0.0, 100.0], 1.0)
    race = run_race(range(4), arena, 300)
    assert race.best.player == 3 and arena.played[3] > 200
    assert all(standing.dropped == 1 for standing in race.standings[1:])


def test_an_exact_return_is_not_played_again() -> None:
    turns: list[int] = []

    def exact(player: int, episodes: int, turn: int) -> Score:
        turns.append(player)
        return Score(float(player), 1.0, 0, exact=True)

    race = run_race(range(6), exact, 1_000)
    assert sorted(turns) == list(range(6)) and race.best.player == 5 and race.episodes == 0


def test_the_state_is_told_after_every_turn() -> None:
    states: list[Race[int]] = []
    race = run_race(range(4), Arena([0, 1, 2, 3], 0.1), 200, states.append)
    assert states[-1] == race
    assert [state.episodes for state in states] == sorted(state.episodes for state in states)


def test_too_few_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="10 episodes are too few to race 12 players"):
        run_race(range(12), Arena([0.0] * 12, 1.0), 10)


@given(parts=st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=20), min_size=1, max_size=5))
def test_joined_scores_are_those_of_all_episodes(parts: list[list[float]]) -> None:
    score, *others = (Score(float(np.mean(part)), float(np.std(part)), len(part)) for part in parts)
    for other in others:
        score = score.joined(other)
    everything = np.concatenate(parts)
    assert score.episodes == len(everything)
    assert math.isclose(score.mean, everything.mean(), abs_tol=1e-9)
    assert math.isclose(score.std, everything.std(), abs_tol=1e-6)


@given(num_players=st.integers(2, 64), full=st.integers(100, 5_000))
def test_the_plan_of_rounds_keeps_within_the_share(num_players: int, full: int) -> None:
    plan = rounds(num_players, full)
    left, spent = num_players, 0
    for episodes in plan:
        spent += left * episodes
        left = math.ceil(left / 2)
    assert spent <= SHARE * num_players * full and plan[0] > 0
