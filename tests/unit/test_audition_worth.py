"""Which tutors are worth following, by what they reach themselves."""

from __future__ import annotations

import pytest

from examples.frozen_lake import FrozenLakeTask
from rllib_plugins.audition.worth import KnownPlay, Play, known_play, plays_best, worth_following
from rllib_plugins.tasks import load_task
from rllib_plugins.tasks.base import Task
from rllib_plugins.tasks.snake import SnakeTask

KNOWN = KnownPlay(ignorant=10.0, best=40.0)
LIMITED = KNOWN._replace(is_limit=True)


def played(mean: float, se: float = 0.5, std: float = 3.0) -> Play:
    return Play(mean, se, std)


@pytest.mark.parametrize(
    ("tutor", "known", "verdict"),
    [
        (played(21.0), KNOWN, True),
        (played(19.5), KNOWN, None),
        (played(18.0), KNOWN, False),
        (played(10.0), KNOWN, False),
        (played(-5.0), KNOWN, False),
        (played(21.0, std=12.0), KNOWN, None),
        (played(39.5, std=60.0), KNOWN, None),
        (played(39.5, std=60.0), LIMITED, True),
        (played(39.5, se=1.5, std=60.0), LIMITED, None),
        (played(12.0, se=5.0), KNOWN, None),
        (played(14.0), KnownPlay(10.0, 10.0), True),
        (played(11.0, se=0.1), KnownPlay(10.0, 10.0), None),
        (played(11.0, se=0.0), KnownPlay(10.0, 10.0), None),
        (played(10.0, se=0.0), KnownPlay(10.0, 10.0), False),
    ],
    ids=[
        "a third of the way",
        "less, within its error",
        "clearly less",
        "no better than who knows nothing",
        "worse",
        "an episode does not tell",
        "nor does it where better players may be",
        "and need not, near the best there can be",
        "not near enough, by two standard errors",
        "too few episodes",
        "nobody better is known",
        "nor is an episode enough",
        "however well it is known",
        "and it knows nothing",
    ],
)
def test_a_tutor_is_followed_by_how_far_its_own_play_goes(tutor, known, verdict):
    assert worth_following(tutor, known) is verdict


@pytest.mark.parametrize(
    ("tutor", "known", "verdict"),
    [
        (played(40.0), LIMITED, True),
        (played(39.2), LIMITED, True),
        (played(39.0), LIMITED, False),
        (played(40.0, se=1.6), LIMITED, False),
        (played(40.0), KNOWN, False),
        (played(10.0), KnownPlay(10.0, 10.0, is_limit=True), False),
    ],
    ids=["the best", "nearly", "not quite", "too few episodes", "better players may be", "no way"],
)
def test_a_tutor_plays_as_well_as_can_be_only_where_that_is_known(tutor, known, verdict):
    assert plays_best(tutor, known) is verdict


def test_heuristics_and_the_oracle_count_as_known_and_constants_as_ignorant():
    blackjack = known_play(load_task("blackjack"), episodes=4, seed=0)
    assert blackjack.ignorant == pytest.approx(-0.186, abs=2e-3)  # always to stick; "stick at 17" is at -0.079
    assert blackjack.best == pytest.approx(-0.0466, abs=1e-3) and blackjack.is_limit
    cart_pole = known_play(load_task("cart_pole"), episodes=4, seed=0)
    assert 15.0 < cart_pole.ignorant < 30.0 and cart_pole.best == 500.0  # random play


def test_an_oracle_is_no_limit_unless_its_author_says_so():
    assert not known_play(FrozenLakeTask(), episodes=4, seed=0).is_limit
    assert known_play(SnakeTask(), episodes=4, seed=0).is_limit


class SnakeWithoutOracle(SnakeTask):
    oracle = Task.oracle
    oracle_batch = Task.oracle_batch


def test_the_best_heuristic_is_the_best_known_where_there_is_no_oracle():
    known = known_play(SnakeWithoutOracle(), episodes=4, seed=0)
    assert -0.3 < known.ignorant < 0.0 and 10.0 < known.best < 13.0 and not known.is_limit  # "to the food"
