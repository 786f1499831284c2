"""Decide whether a tutor is worth following, by its own play beside players that need no tutor."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from rllib_plugins.evaluation import evaluate, oracle_policy
from rllib_plugins.tasks.base import Task
from rllib_plugins.yardsticks import trivial_players

WORTH_SHARE = 1 / 3
"""Share of the way from the best player that knows nothing to the best at hand from which on a tutor is followed."""
BEST_SHARE, SURE_SHARE = 0.97, 0.9
"""Shares of that way, where nothing is known to lie beyond, from which on a tutor plays about as well as can be: by its
mean return, and by two standard errors less. A student that follows it to the end gives up no more than the rest."""
TRIVIAL_EPISODES, TRIVIAL_STEPS = 200, 5_000
"""Episodes per player, and the env steps that they may take where environments are stepped one after the other."""


class Play(NamedTuple):
    """Say how somebody plays.

    Attributes:
        mean: Mean return of an episode.
        standard_error: Of that; 0 where it is exact.
        std: Standard deviation of an episode's return.
    """

    mean: float
    standard_error: float
    std: float


class KnownPlay(NamedTuple):
    """Say how well a task is played before anybody learns it.

    Attributes:
        ignorant: Mean return of the best player that knows nothing of the task: random play, or one action always.
        best: Mean return of the best player at hand: those, the task's one-line heuristics and its oracle.
        is_limit: Whether that is an oracle that no player is known to do clearly better than.
    """

    ignorant: float
    best: float
    is_limit: bool = False


def known_play(task: Task, *, episodes: int, seed: int) -> KnownPlay:
    """Have the players of a task that are no tutors play it.

    Args:
        task: The task.
        episodes: Episodes of the oracle, where there is one and no exact evaluation.
        seed: Of the episodes.
    """
    players = trivial_players(task, episodes=TRIVIAL_EPISODES, max_steps=TRIVIAL_STEPS, seed=seed)
    returns = {player.name: player.evaluation.return_mean for player in players}
    ignorant = max(returns[name] for name in ("random", *task.constant_players()))
    best = max(returns.values())
    if task.has_oracle:
        best = max(best, evaluate(task, partial(oracle_policy, task), episodes=episodes, seed=seed).return_mean)
    return KnownPlay(ignorant, best, task.has_oracle and task.oracle_is_best)


def worth_following(played: Play, known: KnownPlay) -> bool | None:
    """Say by a tutor's own play whether it is to be followed: True, False, or None where the play does not tell.

    True: it goes ``WORTH_SHARE`` of the way from the best player that knows nothing to the best one at hand, and leads
    the former by more than the spread of an episode's return. With a smaller lead, a student's returns could not tell
    in time whether it has reached its tutor's level, which matters nothing behind a tutor that plays about as well as
    can be. False: even two standard errors more would not take it so far.

    Args:
        played: The tutor's play.
        known: What is known of the task.
    """
    whole, lead = max(known.best, played.mean) - known.ignorant, played.mean - known.ignorant
    if lead + 2.0 * played.standard_error < WORTH_SHARE * whole or whole <= 0.0:
        return False
    return True if plays_best(played, known) or lead >= max(WORTH_SHARE * whole, played.std) else None


def plays_best(played: Play, known: KnownPlay) -> bool:
    """Say whether a tutor plays about as well as can be; False where nobody is known to."""
    if not known.is_limit or known.best <= known.ignorant:
        return False
    whole = known.best - known.ignorant
    share = (played.mean - known.ignorant) / whole
    return share >= BEST_SHARE and share - 2.0 * played.standard_error / whole >= SURE_SHARE
