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
from rllib_plugins.audition.ways import Way
from rllib_plugins.grading.states import visited_states
from rllib_plugins.tasks.base import Policy, Task
from tutor_service.prompts.prompt import EMPTY_STATE
from tutor_service.schema import Advice, AdviceRequest

Floats = NDArray[np.float64]
Observations = NDArray[np.float32]

Ask: TypeAlias = Callable[[list[AdviceRequest]], Sequence[Advice | None]]
"""A tutor: one answer per request, None where there is none."""

PROBE_STATES = 64
_PROBE_VISITS = 2_000
_TINY = 1e-12


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
        notes: Text behind the task's rules; empty: none.
        on_ask: Called after every list of questions.
    """

    def __init__(self, task: Task, ask: Ask, notes: str = "", on_ask: Callable[[], None] = lambda: None) -> None:
        self.task = task
        self.cost = Cost()
        self._ask = ask
        self._on_ask = on_ask
        self._rules = f"{task.rules}\n\n{notes}" if notes else task.rules
        self._by_words: dict[tuple[str, tuple[str, ...]], Floats] = {}
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

    def _evaluate(self, observations: Observations) -> list[Floats]:
        legal = legal_mask(self.task, observations)
        questions = [
            (
                self.task.describe(self.task.raw_observation(row)),
                tuple(label for label, allowed in zip(self.task.actions, mask, strict=True) if allowed),
            )
            for row, mask in zip(observations, legal, strict=True)
        ]
        self._put([question for question in questions if len(question[1]) > 1])
        rows = []
        for question, mask in zip(questions, legal, strict=True):
            if len(question[1]) == 1:
                rows.append(mask.astype(np.float64))
                continue
            row = np.full(self.task.num_actions, np.nan)
            given = self._by_words[question]
            if np.isfinite(given).all():
                row[:] = 0.0
                row[mask] = given
            rows.append(row)
        return rows

    def _put(self, questions: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Ask what was not asked yet, all in one list."""
        new = [question for question in dict.fromkeys(questions) if question not in self._by_words]
        if not new:
            return
        started = time.perf_counter()
        advice = self._ask([AdviceRequest(self._rules, state, labels) for state, labels in new])
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
        for question, answer in zip(new, advice, strict=True):
            self._by_words[question] = (
                np.full(len(question[1]), np.nan) if answer is None else np.array(answer.probabilities)
            )
        self._on_ask()

    def _empty(self) -> Floats:
        question = (EMPTY_STATE, self.task.actions)
        self._put([question])
        return self._checked(self._by_words[question], "an empty state")

    def _batch(self) -> Floats:
        observations = probe_states(self.task)
        rows, legal = self.rows(observations), legal_mask(self.task, observations)
        return self._checked(mean_where_legal(rows, legal), "the probe's states")

    def _checked(self, prior: Floats, what: str) -> Floats:
        if not np.isfinite(prior).all():
            raise LookupError(f"the tutor gave no advice for {what}")
        return prior


def probe_states(task: Task) -> Observations:
    """Return the states that batch calibration averages over: fixed, seeded, at most ``PROBE_STATES``."""
    states, _ = visited_states(task, _PROBE_VISITS, seed=0)
    chosen = np.random.default_rng(0).permutation(len(states))[:PROBE_STATES]
    return states[np.sort(chosen)]


def mean_where_legal(rows: Floats, legal: NDArray[np.bool_]) -> Floats:
    """Return each action's mean over the answered states in which it is legal; NaN for one that never is.

    Args:
        rows: ``(n, num_actions)``, NaN where there is no answer.
        legal: ``(n, num_actions)``.
    """
    counted = legal & np.isfinite(rows)
    counts = counted.sum(axis=0)
    return np.where(counts, np.where(counted, rows, 0.0).sum(axis=0) / np.maximum(counts, 1), np.nan)


def read_rows(rows: Floats, legal: NDArray[np.bool_], prior: Floats | None, temperature: float, best: bool) -> Floats:
    """Return what a student follows, ``(n, num_actions)``: calibrated, tempered, then drawn from or its best guess.

    Args:
        rows: Raw distributions ``(n, num_actions)``; NaN rows become uniform over the legal actions.
        legal: ``(n, num_actions)``.
        prior: ``(num_actions,)`` to divide by; None: nothing.
        temperature: Below 1 sharpens.
        best: Put everything on the likeliest action.
    """
    missed = ~np.isfinite(rows).all(axis=1, keepdims=True)
    scores = np.log(np.maximum(np.where(missed, 1.0, rows), _TINY))
    if prior is not None:
        scores = np.where(missed, scores, scores - np.log(np.maximum(prior, _TINY)))
    scores = np.where(legal, scores / temperature, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    if best:
        chosen = np.eye(rows.shape[1])[weights.argmax(axis=1)]
        weights = np.where(missed, weights, chosen)
    return weights / weights.sum(axis=1, keepdims=True)
