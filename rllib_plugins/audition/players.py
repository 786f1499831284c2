"""Turns a tutor's answers into players of a task: asks about each state once, and reads the answer in several ways.

Knows tasks and the words of advice; must not know how a tutor is reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import legal_mask
from rllib_plugins.advising.llm import (
    LEAST_ANSWERS,
    best_guess,
    calibrated,
    mean_where_legal,
    probe_states,
    question,
    raw_rows,
)
from rllib_plugins.audition.ways import Way
from rllib_plugins.tasks.base import Policy, Task
from tutor_service.prompts.layout import EMPTY_STATE
from tutor_service.schema import Advice, AdviceRequest

Floats = NDArray[np.float64]
Observations = NDArray[np.float32]

Ask: TypeAlias = Callable[[list[AdviceRequest]], Sequence[Advice | None]]
"""A tutor: one answer per request, None where there is none."""


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
        self._priors: dict[str, Floats | None] = {"none": None}

    def rows(self, observations: Observations) -> Floats:
        """Return raw distributions ``(n, num_actions)``; NaN where the tutor gave none."""
        keys = [row.tobytes() for row in observations]
        unknown = {key: row for row, key in enumerate(keys) if key not in self._by_bytes}
        if unknown:
            fresh = observations[list(unknown.values())]
            self._by_bytes |= dict(zip(unknown, self._evaluate(fresh), strict=True))
        return np.array([self._by_bytes[key] for key in keys])

    def prior(self, calibration: str) -> Floats | None:
        """Return what a calibration divides by, ``(num_actions,)``; None where it divides by nothing.

        Raises:
            LookupError: The tutor says nothing to the states that it takes.
        """
        if calibration not in self._priors:
            self._priors[calibration] = self._empty() if calibration == "empty" else self._batch()
        return self._priors[calibration]

    def policy(self, way: Way, temperature: float = 1.0) -> Policy:
        """Return the player that follows the tutor; where it gave no advice, the player acts at random."""
        prior = self.prior(way.calibration)
        known: dict[bytes, Floats] = {}

        def play(observations: Observations) -> Floats:
            keys = [row.tobytes() for row in observations]
            unknown = {key: row for row, key in enumerate(keys) if key not in known}
            if unknown:
                fresh = observations[list(unknown.values())]
                legal = legal_mask(self.task, fresh)
                read = read_rows(self.rows(fresh), legal, prior, temperature, best=way.advice == "best")
                known.update(zip(unknown, read, strict=True))
            return np.array([known[key] for key in keys])

        return play

    def _evaluate(self, observations: Observations) -> Floats:
        legal = legal_mask(self.task, observations)
        rows = np.where(legal.sum(axis=1, keepdims=True) == 1, legal, np.nan)
        asked = np.flatnonzero(legal.sum(axis=1) > 1)
        requests = [question(self.task, observations[row], legal[row]) for row in asked]
        questions = [(request.state, request.actions) for request in requests]
        self._put(questions)
        rows[asked] = raw_rows([self._by_words[question] for question in questions], legal[asked])
        return rows

    def _put(self, questions: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Ask what was not asked yet, all in one list."""
        new = [question for question in dict.fromkeys(questions) if question not in self._by_words]
        if not new:
            return
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

    def _empty(self) -> Floats:
        asked = (EMPTY_STATE, self.task.actions)
        self._put([asked])
        everything = np.ones((1, self.task.num_actions), dtype=bool)
        return _checked_mean(raw_rows([self._by_words[asked]], everything), everything, 1, "an empty state")

    def _batch(self) -> Floats:
        observations = probe_states(self.task)
        legal = legal_mask(self.task, observations)
        return _checked_mean(self.rows(observations), legal, LEAST_ANSWERS, "the probe's states")


def _checked_mean(rows: Floats, legal: NDArray[np.bool_], least: int, what: str) -> Floats:
    if np.isfinite(rows).all(axis=1).sum() < least:
        raise LookupError(f"the tutor gave no advice for {what}")
    return mean_where_legal(rows, legal)


def read_rows(rows: Floats, legal: NDArray[np.bool_], prior: Floats | None, temperature: float, best: bool) -> Floats:
    """Return what a student follows, ``(n, num_actions)``: calibrated, tempered, then drawn from or its best guess.

    Args:
        rows: Raw distributions ``(n, num_actions)``; NaN rows become uniform over the legal actions.
        legal: ``(n, num_actions)``.
        prior: ``(num_actions,)`` to divide by; None: nothing.
        temperature: Below 1 sharpens.
        best: Put everything on the likeliest action.
    """
    read = calibrated(rows, legal, prior, temperature)
    uniform = legal / legal.sum(axis=1, keepdims=True)
    return np.where(np.isnan(read), uniform, best_guess(read) if best else read)
