"""Have a tutor play in every way of asking and reading it, and find the way that is worth most.

Owns what is played beside it: random play, the task's trivial players and its oracle. Knows tasks; must not know how a
tutor is reached, nor MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from rllib_plugins.advising.llm import TooFewAnswers
from rllib_plugins.audition.players import Answers
from rllib_plugins.audition.race import Race, Score, Standing, run_race
from rllib_plugins.audition.ways import Asking, Way
from rllib_plugins.audition.worth import KnownPlay, Play, worth_following
from rllib_plugins.evaluation import evaluate, oracle_policy
from rllib_plugins.seeds import derive_seed
from rllib_plugins.tasks.base import Policy, Task
from tutor_service.errors import UserError

RANDOM = "random"
ORACLE = "oracle"
_STEPS_WANTED = 5_000
_FEWEST, _MOST = 100, 500
_LENGTH_EPISODES = 20
_NUM_ENVS = 16
"""Environments that play at once where they are no array code: so many states may be asked about in one list."""

_VERDICTS = {
    True: "is worth following",
    False: "is not worth following",
    None: "may be worth following, which its students would find out,",
}


@dataclass(frozen=True)
class Audition:
    """Hold what playing a tutor showed, also while it goes on.

    Attributes:
        task: Name of the task.
        tutor: Name of the tutor.
        race: The ways, the best first.
        references: Random play, the task's trivial players and the oracle where there is one, by name.
        constants: Names of those that always answer the same.
        answers: By asking, what it took and how much of it was answered.
        left_out: Ways that could not be tried, with the reason.
        is_limit: Whether no player is known to do clearly better than the oracle.
    """

    task: str
    tutor: str
    race: Race[Way]
    references: Mapping[str, Score]
    constants: frozenset[str]
    answers: Mapping[Asking, Answers]
    left_out: Mapping[Way, str] = field(default_factory=dict)
    is_limit: bool = False

    @property
    def best(self) -> Standing[Way]:
        """Return the way that is worth most."""
        return self.race.best

    @property
    def trivial(self) -> tuple[str, Score]:
        """Return the best player that knows nothing of the task: random play or a constant answer."""
        names = [name for name in self.references if name == RANDOM or name in self.constants]
        best = max(names, key=lambda name: self.references[name].mean)
        return best, self.references[best]

    @property
    def worth_following(self) -> bool | None:
        """Return whether a sweep's students would follow the best way; None: their own draws would decide."""
        score = self.best.score
        best = max(reference.mean for reference in self.references.values())
        known = KnownPlay(self.trivial[1].mean, best, is_limit=self.is_limit)
        return worth_following(Play(score.mean, score.standard_error, score.std), known)

    @property
    def share_of_oracle(self) -> float | None:
        """Return how far from random play to the oracle the best way comes; None without an oracle."""
        if ORACLE not in self.references:
            return None
        low, high = self.references[RANDOM].mean, self.references[ORACLE].mean
        return (self.best.score.mean - low) / (high - low) if high > low else None

    @property
    def verdict(self) -> str:
        """Return the result in one plain sentence."""
        name, trivial = self.trivial
        score = self.best.score
        low, high = score.interval()
        figures = (
            f"followed as '{self.best.player.words}' it returns {score.mean:.3g} [{low:.3g}, {high:.3g}], random play "
            f"{self.references[RANDOM].mean:.3g}" + (f", {name} {trivial.mean:.3g}" if name != RANDOM else "")
        )
        worth = _VERDICTS[self.worth_following]
        return f"{self.tutor} {worth} on {self.task}: {figures}."

    def to_metrics(self) -> dict[str, float]:
        """Return the figures by name, ``audition/…``, for a tracker."""
        score = self.best.score
        low, high = score.interval()
        numbers = {
            "audition/return_mean": score.mean,
            "audition/return_low": low,
            "audition/return_high": high,
            "audition/episodes": float(self.race.episodes),
            "audition/episodes_share": self.race.episodes / self.race.full,
            "audition/model_evaluations": float(sum(answers.cost.evaluations for answers in self.answers.values())),
        }
        if self.worth_following is not None:
            numbers["audition/worth_following"] = float(self.worth_following)
        if self.share_of_oracle is not None:
            numbers["audition/share_of_oracle"] = self.share_of_oracle
        return numbers | {f"audition/reference/{_plain(name)}": ref.mean for name, ref in self.references.items()}


class Candidate(NamedTuple):
    """Hold a tutor that is tried.

    Attributes:
        name: Its name.
        answers: What it says, by asking.
        temperature: Its field ``temperature``.
    """

    name: str
    answers: Mapping[Asking, Answers]
    temperature: float = 1.0


def audition(
    task: Task,
    ways: Sequence[Way],
    tutor: Candidate,
    *,
    episodes: int | None = None,
    seed: int = 0,
    on_change: Callable[[Audition], None] = lambda state: None,
) -> Audition:
    """Play a tutor in every way, dropping the losers early.

    Args:
        task: What is played.
        ways: Ways to try; those whose calibration has no answers to go by are left out.
        tutor: Who plays.
        episodes: Episodes that say enough about one way; None: by the length of an episode of random play.
        seed: Seeds the episodes, the same for all ways.
        on_change: Takes the state whenever it changed.

    Raises:
        UserError: The tutor gave no advice at all, or there are too few episodes for so many ways.
    """
    full = episodes or enough_episodes(task)
    references = play_references(task, full, seed)
    constants = frozenset(task.constant_players())
    policies: dict[Way, Policy] = {}
    left_out: dict[Way, str] = {}
    for way in ways:
        try:
            policies[way] = tutor.answers[way.asking].policy(way, tutor.temperature)
        except TooFewAnswers as error:
            left_out[way] = error.reason

    def state(race: Race[Way]) -> Audition:
        is_limit = ORACLE in references and task.oracle_is_best
        return Audition(task.name, tutor.name, race, references, constants, tutor.answers, left_out, is_limit)

    def play(way: Way, number: int, turn: int) -> Score:
        return play_episodes(task, policies[way], number, derive_seed(seed, turn))

    if not policies:
        reasons = "; ".join(set(left_out.values()))
        raise UserError(f"tutor '{tutor.name}' gave no advice on task '{task.name}': {reasons}.")
    try:
        race = run_race(list(policies), play, full, lambda race: on_change(state(race)))
    except ValueError as error:
        raise UserError(f"episodes = {full}: {error}. Give more, or fewer ways.") from error
    if all(answered.cost.missed == answered.cost.states for answered in tutor.answers.values()):
        raise UserError(f"tutor '{tutor.name}' gave no advice at all on task '{task.name}'.")
    return state(race)


@dataclass(frozen=True)
class Played:
    """Hold what one player returns, beside the references.

    Attributes:
        name: Name of the player.
        score: Its return.
        references: Random play, the task's trivial players and the oracle where there is one, by name.
    """

    name: str
    score: Score
    references: Mapping[str, Score]

    def to_metrics(self) -> dict[str, float]:
        """Return the figures by name, ``return/…``, for a tracker."""
        low, high = self.score.interval()
        numbers = {"return/followed": self.score.mean, "return/followed_low": low, "return/followed_high": high}
        return numbers | {f"return/{_plain(name)}": score.mean for name, score in self.references.items()}


def play_beside(task: Task, policy: Policy, name: str, seed: int = 0) -> Played:
    """Play one player and the references, all the same episodes."""
    episodes = enough_episodes(task)
    score = play_episodes(task, policy, episodes, derive_seed(seed, 0))
    return Played(name, score, play_references(task, episodes, seed))


def play_references(task: Task, episodes: int, seed: int) -> dict[str, Score]:
    """Return the returns of random play, the task's trivial players and its oracle."""
    players: dict[str, Policy] = {RANDOM: task.uniform_policy, **task.trivial_players()}
    if task.has_oracle:
        players[ORACLE] = partial(oracle_policy, task)
    return {name: play_episodes(task, policy, episodes, derive_seed(seed, 0)) for name, policy in players.items()}


def play_episodes(task: Task, policy: Policy, episodes: int, seed: int) -> Score:
    """Return a policy's return over so many episodes; exact where the task allows."""
    found = evaluate(task, policy, episodes=episodes, seed=seed, num_envs=_NUM_ENVS)
    return Score(found.return_mean, found.return_std, found.num_episodes, found.exact)


def enough_episodes(task: Task) -> int:
    """Return how many episodes say enough about one player: some 5,000 env steps of random play, 100 to 500."""
    found = evaluate(task, task.uniform_policy, episodes=_LENGTH_EPISODES, seed=0)
    if found.exact:
        return _MOST
    return int(np.clip(_STEPS_WANTED * found.num_episodes / found.num_env_steps, _FEWEST, _MOST))


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name).strip("_")
