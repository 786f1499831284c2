"""Find the best of several players by few episodes: sequential halving. Pure; knows neither tutors nor tasks.

All players are given a share of the episodes that playing each of them in full would take. The episodes are split
evenly over the rounds, and within a round evenly over the players that are left; after each round the better half stays
(Karnin, Koren and Somekh 2013, Almost optimal exploration in multi-armed bandits). A player that is clearly behind the
leader goes earlier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

PlayerT = TypeVar("PlayerT", bound=Hashable)

SHARE = 1 / 3
"""Largest share of the cost of playing every player in full."""

CLEARLY = 3.0
"""Standard errors of the difference from which a player counts as clearly behind."""

MIN_EPISODES = 4


@dataclass(frozen=True, slots=True)
class Score:
    """Hold the return of one player.

    Attributes:
        mean: Mean episode return.
        std: Standard deviation of an episode's return.
        episodes: Episodes played; 0 where the return was computed exactly.
        exact: Whether it was computed, and no episode can make it more certain.
    """

    mean: float
    std: float
    episodes: int
    exact: bool = False

    @property
    def standard_error(self) -> float:
        """Return the standard error of the mean; 0 where it is exact, infinite where one episode says nothing of it."""
        if self.exact:
            return 0.0
        return self.std / math.sqrt(self.episodes) if self.episodes > 1 else math.inf

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Return the ends of the normal interval of the mean, by default of 95 %."""
        return self.mean - z * self.standard_error, self.mean + z * self.standard_error

    def joined(self, other: Score) -> Score:
        """Return the score over the episodes of both."""
        if self.exact or other.exact:
            return self if self.exact else other
        total = self.episodes + other.episodes
        mean = (self.episodes * self.mean + other.episodes * other.mean) / total
        square = sum(part.episodes * (part.std**2 + (part.mean - mean) ** 2) for part in (self, other)) / total
        return Score(mean, math.sqrt(square), total)


@dataclass(frozen=True, slots=True)
class Standing(Generic[PlayerT]):
    """Say how far a player has come.

    Attributes:
        player: Who.
        score: Over the episodes that it played.
        dropped: Round after which it was dropped, counted from 1; None: it is still in the race, or won it.
    """

    player: PlayerT
    score: Score
    dropped: int | None


@dataclass(frozen=True, slots=True)
class Race(Generic[PlayerT]):
    """Hold the state of a race: all players, the best first.

    Attributes:
        standings: Those still in the race before those dropped, each by mean return.
        episodes: Episodes played so far.
        planned: Episodes that the race takes at most.
        full: Episodes that playing every player in full would take.
    """

    standings: tuple[Standing[PlayerT], ...]
    episodes: int
    planned: int
    full: int

    @property
    def best(self) -> Standing[PlayerT]:
        """Return the leader, at the end the winner."""
        return self.standings[0]


def rounds(num_players: int, full_episodes: int, share: float = SHARE) -> list[int]:
    """Return how many episodes each player that is left plays in each round; the last round is the winner's alone.

    What early drops save goes to the winner in the end.

    Args:
        num_players: Players at the start.
        full_episodes: Episodes that say enough about one player.
        share: Largest share of ``num_players · full_episodes`` to spend. One player always plays in full.
    """
    left = [num_players]
    while left[-1] > 1:
        left.append(math.ceil(left[-1] / 2))
    budget = share * num_players * full_episodes if num_players > 1 else full_episodes
    part = budget / len(left)
    plan, played = [], 0
    for players in left:
        episodes = min(int(part / players), full_episodes - played)
        plan.append(episodes)
        played += episodes
    return plan


def run_race(
    players: Sequence[PlayerT],
    play: Callable[[PlayerT, int, int], Score],
    full_episodes: int,
    on_change: Callable[[Race[PlayerT]], None] = lambda race: None,
    share: float = SHARE,
) -> Race[PlayerT]:
    """Race players against one another.

    Args:
        players: Distinct, at least one.
        play: Takes a player, the number of episodes and the number of the round, from 0; all players of a round are to
            meet the same episodes.
        full_episodes: Episodes that say enough about one player.
        on_change: Takes the state after every player's turn.
        share: See ``rounds``.

    Raises:
        ValueError: There are too few episodes for every player to play ``MIN_EPISODES`` in the first round.
    """
    plan = rounds(len(players), full_episodes, share)
    if plan[0] < min(MIN_EPISODES, full_episodes):
        raise ValueError(f"{full_episodes} episodes are too few to race {len(players)} players")
    scores: dict[PlayerT, Score] = {}
    dropped: dict[PlayerT, int] = {}
    left = list(players)
    full = len(players) * full_episodes
    planned = min(full, int(share * full)) if len(players) > 1 else full

    def state() -> Race[PlayerT]:
        order = sorted(scores, key=lambda player: (-dropped.get(player, len(plan) + 1), -scores[player].mean))
        standings = tuple(Standing(player, scores[player], dropped.get(player)) for player in order)
        return Race(standings, sum(score.episodes for score in scores.values()), planned, full)

    for number, episodes in enumerate(plan):
        for player in left:
            if episodes and not (player in scores and scores[player].exact):
                score = play(player, episodes, number)
                scores[player] = scores[player].joined(score) if player in scores else score
                on_change(state())
        if len(left) == 1:
            continue
        left.sort(key=lambda player: -scores[player].mean)
        leader = scores[left[0]]
        stay = [player for player in left[: math.ceil(len(left) / 2)] if not _clearly_behind(scores[player], leader)]
        dropped |= dict.fromkeys(set(left) - set(stay), number + 1)
        left = stay
    winner = left[0]
    spent = sum(score.episodes for score in scores.values())
    rest = min(full_episodes - scores[winner].episodes, planned - spent)
    if rest > 0 and not scores[winner].exact:
        scores[winner] = scores[winner].joined(play(winner, rest, len(plan)))
    final = state()
    on_change(final)
    return final


def _clearly_behind(score: Score, leader: Score) -> bool:
    error = math.hypot(score.standard_error, leader.standard_error)
    return leader.mean - score.mean > CLEARLY * error
