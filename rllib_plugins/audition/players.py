"""Turn a tutor's answers into players of a task: ask about each state once, and read the answer in several ways.

Knows tasks and the words of advice; must not know how a tutor is reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rllib_plugins.advising.advisor import legal_mask
from rllib_plugins.advising.llm import Prior, Reading, question, raw_rows, read_rows
from rllib_plugins.array_types import Bools, Floats, Floats32
from rllib_plugins.audition.ways import Way
from rllib_plugins.tasks.base import Policy, Task
from tutor_service.schema import Advice, AdviceRequest, Ask


@dataclass(slots=True)
class Cost:
    """Count what the answers to one asking took.

    Attributes:
        states: Distinct states asked about.
        missed: Of these, without an answer.
        evaluations: Answers that the model computed now; the others were stored or recorded.
        tokens: Tokens that the model processed.
        seconds: Time spent waiting for answers.
        legal_mass: Mean mass on the legal labels.
    """

    states: int = 0
    missed: int = 0
    evaluations: int = 0
    tokens: int = 0
    seconds: float = 0.0
    legal_mass: float = float("nan")


class Answers:
    """What one tutor, asked in one way, says about the states of a task; each distinct one is asked about once.

    Args:
        task: The task.
        ask: The tutor.
        rules: What the tutor reads before a state; None: the task's rules.
        on_ask: Called after every list of questions.
    """

    def __init__(
        self, task: Task, ask: Ask, rules: str | None = None, on_ask: Callable[[], None] = lambda: None
    ) -> None:
        self.task = task
        self.cost = Cost()
        self._ask = ask
        self._on_ask = on_ask
        self._rules = rules or task.rules
        self._by_words: dict[tuple[str, tuple[str, ...]], Advice | None] = {}
        self._by_bytes: dict[bytes, Floats] = {}
        self._priors: dict[str, Floats | None] = {}

    def rows(self, observations: Floats32) -> Floats:
        """Return raw distributions ``(n, num_actions)``; NaN where the tutor gave none."""
        return _remembered(self._by_bytes, observations, self._evaluate)

    def prior(self, calibration: str) -> Floats | None:
        """Return what a calibration divides by, ``(num_actions,)``; None where it divides by nothing.

        Raises:
            UserError: The tutor says too little to the states that it takes, or the task has too few.
        """
        if calibration not in self._priors:
            wanted = Prior.of(self.task, calibration)
            self._priors[calibration] = None if wanted is None else wanted.mean(self._told(wanted.questions))
        return self._priors[calibration]

    def policy(self, way: Way, temperature: float = 1.0) -> Policy:
        """Return the player that follows the tutor; where it gave no advice, the player acts at random."""
        prior, reading = self.prior(way.calibration), Reading(way.calibration, way.advice, temperature)
        known: dict[bytes, Floats] = {}

        def read(observations: Floats32) -> Floats:
            return drawn_from(self.rows(observations), legal_mask(self.task, observations), reading, prior)

        return lambda observations: _remembered(known, observations, read)

    def _evaluate(self, observations: Floats32) -> Floats:
        legal = legal_mask(self.task, observations)
        rows = np.where(legal.sum(axis=1, keepdims=True) == 1, legal, np.nan)
        asked = np.flatnonzero(legal.sum(axis=1) > 1)
        told = self._told([question(self.task, observations[row], legal[row]) for row in asked])
        rows[asked] = raw_rows(told, legal[asked])
        return rows

    def _told(self, requests: Sequence[AdviceRequest]) -> list[Advice | None]:
        """Return what the tutor says to questions; under its own rules, whatever theirs are."""
        questions = [(request.state, request.actions) for request in requests]
        new = [question for question in dict.fromkeys(questions) if question not in self._by_words]
        if new:
            self._put(new)
        return [self._by_words[question] for question in questions]

    def _put(self, new: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Ask questions that were not asked yet, all in one list."""
        started = time.perf_counter()
        advice = self._ask(
            [AdviceRequest(self._rules, state, labels, self.task.synonyms_of(labels)) for state, labels in new]
        )
        cost = self.cost
        cost.seconds += time.perf_counter() - started
        had = [answer for answer in advice if answer is not None]
        if had:
            before = cost.states - cost.missed
            mass = sum(answer.legal_mass for answer in had)
            cost.legal_mass = (mass + (before * cost.legal_mass if before else 0.0)) / (before + len(had))
        cost.states += len(new)
        cost.missed += len(new) - len(had)
        cost.evaluations += sum(answer.source == "model" for answer in had)
        cost.tokens += sum(answer.tokens for answer in had)
        self._by_words |= dict(zip(new, advice, strict=True))
        self._on_ask()


def _remembered(known: dict[bytes, Floats], observations: Floats32, find: Callable[[Floats32], Floats]) -> Floats:
    """Return a row for each observation, ``(n, num_actions)``; a distinct one is found once and kept in ``known``."""
    keys = [row.tobytes() for row in observations]
    unknown = {key: row for row, key in enumerate(keys) if key not in known}
    if unknown:
        known |= dict(zip(unknown, find(observations[list(unknown.values())]), strict=True))
    return np.array([known[key] for key in keys])


def drawn_from(rows: Floats, legal: Bools, reading: Reading, prior: Floats | None) -> Floats:
    """Return what a player draws from, ``(n, num_actions)``: what a student follows; without advice, at random.

    Args:
        rows: Raw distributions ``(n, num_actions)``; NaN rows become uniform over the legal actions.
        legal: ``(n, num_actions)``.
        reading: How they are read.
        prior: ``(num_actions,)`` to divide by; None: nothing.
    """
    followed = read_rows(rows, legal, reading, prior).followed
    return np.where(np.isnan(followed), legal / legal.sum(axis=1, keepdims=True), followed)
