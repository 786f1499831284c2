"""Advise by an LLM: turn a state into a question in words, and its answer into what a student follows.

*Reading* is pure: a tutor's raw distribution over the labels, divided by its prior (``calibration``), sharpened or
flattened (``temperature``), and then drawn from or reduced to its best guess (``advice``). Students, ``tutor ask``,
``tutor grade`` and ``tutor audition`` read by the same functions, live answers and recorded ones alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rllib_plugins.advising.advisor import AdviceBatch, Advisor, legal_mask
from rllib_plugins.array_types import Bools, Floats, Floats32
from rllib_plugins.evaluation import mask_policy, sample_actions
from rllib_plugins.metrics import Source
from rllib_plugins.tasks.base import Task
from tutor_service.client import TutorClient
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.prompts.layout import EMPTY_STATE
from tutor_service.schema import Advice, AdviceRequest

PROBE_STATES = 64
"""Most states that batch calibration averages over."""
LEAST_ANSWERS = 2
"""Fewest answers that a mean over states is taken of."""

_PROBE_STEPS, _PROBE_POOL = 1_024, 256
_RANDOM_SHARES = (0.0, 0.1, 0.3)
_TINY = 1e-12
_PROBES: dict[tuple[type[Task], str], Floats32] = {}


class Reading(NamedTuple):
    """Say how a tutor's distribution is read: fields of its file.

    Attributes:
        calibration: ``none``; ``empty``: divide by the distribution that it shows for an empty state (contextual
            calibration, Zhao et al. 2021, arXiv 2102.09690, with a diagonal matrix); ``batch``: divide by its mean
            over a probe of the task's states (batch calibration, Zhou et al. 2023, arXiv 2309.17249).
        advice: ``best``: follow the likeliest action. ``sampled``: draw from the distribution.
        temperature: Below 1 sharpens the calibrated distribution, above 1 flattens it.
    """

    calibration: Literal["none", "empty", "batch"] = "none"
    advice: Literal["best", "sampled"] = "best"
    temperature: float = 1.0

    @classmethod
    def of(cls, tutor: TutorConfig) -> Reading:
        """Take the fields of a tutor."""
        return cls(tutor.calibration, tutor.advice, tutor.temperature)

    @property
    def words(self) -> str:
        """Return the reading on one line, as a tutor file says it."""
        return f"read by calibration: {self.calibration}, temperature: {self.temperature:g}, advice: {self.advice}"


class ReadRows(NamedTuple):
    """Hold what was read, ``(n, num_actions)`` each; NaN rows where there was no answer.

    Attributes:
        opinions: Calibrated, tempered distributions.
        followed: What students draw from.
    """

    opinions: Floats
    followed: Floats


def calibrated(rows: Floats, legal: Bools, prior: Floats | None, temperature: float = 1.0) -> Floats:
    """Return what a tutor means by its raw distributions: p' ∝ (p / prior)^(1/T) over the legal actions.

    Args:
        rows: ``(n, num_actions)``, 0 on illegal actions; NaN rows, which are no advice, stay NaN.
        legal: ``(n, num_actions)``.
        prior: ``(num_actions,)`` to divide by; None: nothing.
        temperature: T > 0.
    """
    if prior is None and temperature == 1.0:
        return rows
    scores = np.log(np.maximum(rows, _TINY))
    if prior is not None:
        scores = scores - np.log(np.maximum(prior, _TINY))
    scores = np.where(legal, scores / temperature, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def best_guess(rows: Floats) -> Floats:
    """Put all probability on the likeliest action, in equal parts on several; NaN rows stay NaN."""
    top = rows >= rows.max(axis=1, keepdims=True) - 1e-9
    return np.where(np.isnan(rows), np.nan, top / np.maximum(top.sum(axis=1, keepdims=True), 1))


def mean_where_legal(rows: Floats, legal: Bools) -> Floats:
    """Return each action's mean over the answered states in which it is legal, ``(num_actions,)``.

    An action that is legal in none of them gets the mean of the others: nothing is known of the tutor's taste for it.

    Args:
        rows: ``(n, num_actions)``, NaN where there is no answer.
        legal: ``(n, num_actions)``.
    """
    counted = legal & np.isfinite(rows)
    counts = counted.sum(axis=0)
    means = np.where(counted, rows, 0.0).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts, means, means[counts > 0].mean() if counts.any() else np.nan)


def probe_states(task: Task) -> Floats32:
    """Return the states that batch calibration averages over, ``(at most PROBE_STATES, obs_dim)``.

    They are distinct states with a choice that simple players meet, a fixed draw of them: the same in every process,
    which plays for them once.

    Raises:
        UserError: There are fewer than two.
    """
    key = type(task), repr(sorted(task.env_kwargs.items()))
    if key not in _PROBES:
        _PROBES[key] = _find_probe_states(task)
    return _PROBES[key]


def _find_probe_states(task: Task) -> Floats32:
    pool: dict[bytes, Floats32] = {}
    for state, legal in simple_play(task):
        if legal.sum() > 1:
            pool.setdefault(state.tobytes(), state)
            if len(pool) == min(_PROBE_POOL, task.num_states or _PROBE_POOL):
                break
    if len(pool) < LEAST_ANSWERS:
        raise UserError(
            f"calibration 'batch' averages over states of task '{task.name}' in which there is a choice, and simple "
            f"players met {len(pool)}: set the tutor's calibration to none or empty."
        )
    states = np.stack(list(pool.values()))
    chosen = np.random.default_rng(0).permutation(len(states))[:PROBE_STATES]
    return states[np.sort(chosen)]


def simple_play(task: Task) -> Iterator[tuple[Floats32, Bools]]:
    """Yield the states ``(obs_dim,)`` that simple players meet, with their legal actions ``(num_actions,)``.

    The players, seeded, are the task's trivial players and uniform choice, each with several shares of random actions.
    An oracle is none of them: where it needs a package that is not everywhere, states would differ.
    """
    rng = np.random.default_rng(0)
    players = [*task.trivial_players().values(), task.uniform_policy]
    num_envs = len(players) * len(_RANDOM_SHARES)
    turns, shares = np.arange(num_envs) % len(players), np.repeat(_RANDOM_SHARES, len(players))
    with task.borrow_vec(num_envs, seed=0) as envs:
        states, _ = envs.reset(seed=0)
        for _ in range(_PROBE_STEPS):
            yield from zip(np.array(states), legal_mask(task, states), strict=True)
            probabilities = task.uniform_policy(states)
            for number, player in enumerate(players):
                mine = (turns == number) & (rng.random(num_envs) >= shares)
                probabilities[mine] = mask_policy(task, states, player(states))[mine]
            states, *_ = envs.step(sample_actions(probabilities, rng))


def question(task: Task, state: Floats32, legal: Bools) -> AdviceRequest:
    """Return the question about one flat observation ``(obs_dim,)`` with its mask ``(num_actions,)``."""
    labels = tuple(label for label, allowed in zip(task.actions, legal, strict=True) if allowed)
    return AdviceRequest(task.rules, task.describe(task.raw_observation(state)), labels, task.synonyms_of(labels))


def raw_rows(answers: Sequence[Advice | None], legal: Bools) -> Floats:
    """Return answers over the legal actions as rows over all actions, ``(n, num_actions)``; NaN where there is none."""
    rows = np.full(legal.shape, np.nan)
    for row, mask, answer in zip(rows, legal, answers, strict=True):
        if answer is not None:
            given = np.asarray(answer.probabilities)
            row[:] = 0.0
            row[mask] = given / given.sum()
    return rows


def read(answers: Sequence[Advice | None], legal: Bools, reading: Reading, prior: Floats | None) -> ReadRows:
    """Read a tutor's answers: the one way from raw advice to what a student follows.

    Args:
        answers: ``n``; None where there is none.
        legal: ``(n, num_actions)`` the actions that each is about.
        reading: How.
        prior: ``(num_actions,)`` of ``Prior.mean``; None under calibration ``none``.
    """
    return read_rows(raw_rows(answers, legal), legal, reading, prior)


def read_rows(rows: Floats, legal: Bools, reading: Reading, prior: Floats | None) -> ReadRows:
    """Read a tutor's raw distributions ``(n, num_actions)`` as ``read`` does its answers."""
    opinions = calibrated(rows, legal, prior, reading.temperature)
    return ReadRows(opinions, best_guess(opinions) if reading.advice == "best" else opinions)


class TooFewAnswers(UserError):
    """Report that a tutor has too little to say for its calibration.

    Args:
        reason: What it was asked and answered.

    Attributes:
        reason: As given; the message says what to do, too.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: set its calibration to none.")
        self.reason = reason


class Prior(NamedTuple):
    """Say what a calibration asks a tutor, before it is divided by the answers.

    Attributes:
        questions: One per state.
        legal: ``(n, num_actions)`` of these states.
        least: Fewest answers that will do.
    """

    questions: list[AdviceRequest]
    legal: Bools
    least: int

    @classmethod
    def of(cls, task: Task, calibration: str) -> Prior | None:
        """Return what a calibration takes; None for ``none``.

        Raises:
            UserError: The task has too few states for it.
        """
        if calibration == "none":
            return None
        if calibration == "empty":
            everything = np.ones((1, task.num_actions), dtype=bool)
            labels = task.actions
            return cls([AdviceRequest(task.rules, EMPTY_STATE, labels, task.synonyms_of(labels))], everything, 1)
        states = probe_states(task)
        legal = legal_mask(task, states)
        pairs = zip(states, legal, strict=True)
        return cls([question(task, state, mask) for state, mask in pairs], legal, LEAST_ANSWERS)

    def mean(self, answers: Sequence[Advice | None]) -> Floats:
        """Return what a distribution is divided by, ``(num_actions,)``.

        Raises:
            TooFewAnswers: The tutor has too little to say.
        """
        num_answers = sum(answer is not None for answer in answers)
        if num_answers < self.least:
            raise TooFewAnswers(
                f"the tutor's calibration asks about {len(answers)} state(s), of which it answered {num_answers}; "
                f"{self.least} are needed"
            )
        return mean_where_legal(raw_rows(answers, self.legal), self.legal)


class Reader:
    """Read one tutor's answers about one task.

    Args:
        task: The task.
        reading: How.
        client: Whom to ask for what calibration takes; its answers are kept like any others.

    Attributes:
        tokens: Tokens that the model processed for the calibration.
    """

    def __init__(self, task: Task, reading: Reading, client: TutorClient) -> None:
        self.reading = reading
        self.tokens = 0
        self._task = task
        self._client = client
        self._wanted: Prior | None = None
        self._prior: Floats | None = None

    def is_ready(self) -> bool:
        """Return whether the prior is known; ask for it if not. False: the tutor does not answer at the moment.

        Raises:
            UserError: The tutor answers, and has too little to say for its calibration.
        """
        if self.reading.calibration == "none" or self._prior is not None:
            return True
        self._wanted = self._wanted or Prior.of(self._task, self.reading.calibration)
        assert self._wanted is not None
        refused = self._client.stats.refused
        answers = self._client.advise(self._wanted.questions)
        self.tokens += sum(answer.tokens for answer in answers if answer is not None)
        if answers.count(None) > self._client.stats.refused - refused:
            return False  # a mean over what happened to be answered would be another one in the next trial
        self._prior = self._wanted.mean(answers)
        return True

    def read(self, answers: Sequence[Advice | None], legal: Bools) -> ReadRows:
        """Read answers, once ``is_ready``; see ``read``."""
        return read(answers, legal, self.reading, self._prior)


class LLMAdvisor(Advisor):
    """An LLM. It is shown the legal actions only; a state with one legal action is not asked about (SCRIPT).

    Args:
        task: The task that is advised on: its rules, words and legal actions make the questions.
        client: The tutor.
        reading: How its answers are read.
    """

    def __init__(self, task: Task, client: TutorClient, reading: Reading) -> None:
        super().__init__(task, Source.STORE, keeps_opinions=reading.advice == "best")
        self.client = client
        self.reader = Reader(task, reading, client)

    def evaluate(self, observations: Floats32) -> AdviceBatch:
        """Ask the tutor about all of them in one call."""
        legal = legal_mask(self.task, observations)
        source = np.full(len(observations), Source.MISSED, dtype=np.int8)
        opinions = np.full(legal.shape, np.nan)
        choices = legal.sum(axis=1)
        forced = np.flatnonzero(choices == 1)
        opinions[forced] = legal[forced]
        source[forced] = Source.SCRIPT
        batch = AdviceBatch(opinions.copy(), source, opinions=opinions)
        asked = np.flatnonzero(choices > 1)
        if not asked.size:
            return batch
        started, before = time.perf_counter(), self.reader.tokens
        if self.reader.is_ready():
            questions = [question(self.task, observations[row], legal[row]) for row in asked]
            answers = self.client.advise(questions)
            opinions[asked], batch.probabilities[asked] = self.reader.read(answers, legal[asked])
            for row, advice in zip(asked, answers, strict=True):
                if advice is not None:
                    source[row] = Source.MODEL if advice.source == "model" else Source.STORE
                    batch.tokens += advice.tokens
                    batch.invalid += advice.invalid if advice.source == "model" else 0
        batch.tokens += self.reader.tokens - before
        batch.latency_ms = 1e3 * (time.perf_counter() - started)
        return batch
