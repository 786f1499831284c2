"""Grade a tutor: draw states, ask, and fill the report card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rllib_plugins.advising.advisor import Advisor, legal_mask
from rllib_plugins.advising.llm import Prior, Reading, best_guess, calibrated
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.grading import card as scores
from rllib_plugins.grading.card import LabelShare, ReportCard, SituationGrade
from rllib_plugins.grading.states import visited_states
from rllib_plugins.tasks.base import Task
from rllib_plugins.yardsticks import trivial_players
from tutor_service.schema import Advice, AdviceRequest, Ask

TRIVIAL_EPISODES, TRIVIAL_STEPS = 200, 4_000
"""Episodes per trivial player, and the env steps they may take where environments are stepped one after the other."""


AS_IT_IS = Reading()
"""Raw distributions."""


class _Read(NamedTuple):
    """A tutor, and how it is asked and read."""

    ask: Ask
    reading: Reading

    def opinions(self, sample: _Sample, *answers: Floats) -> list[Floats]:
        """Return what the tutor means by raw distributions ``(n, num_actions)``."""
        prior = None
        if any(np.isfinite(rows).any() for rows in answers):
            wanted = Prior.of(sample.task, self.reading.calibration)
            prior = wanted.mean(self.ask(wanted.questions)) if wanted else None
        return [calibrated(rows, sample.legal, prior, self.reading.temperature) for rows in answers]


class _Sample(NamedTuple):
    """States ``(n, obs_dim)`` of a card, how often visited ``(n,)``, and legal actions ``(n, num_actions)``."""

    task: Task
    states: Floats32
    visits: Ints
    legal: Bools

    def at(self, rows: Any) -> _Sample:
        return _Sample(self.task, self.states[rows], self.visits[rows], self.legal[rows])

    def mean(self, figures: Floats) -> float:
        return scores.weighted_mean(figures, self.visits)

    def observations(self) -> list[object]:
        return [self.task.raw_observation(state) for state in self.states]


def grade(
    task: Task,
    tutor: Ask | Advisor,
    *,
    reading: Reading = AS_IT_IS,
    num_states: int = 300,
    seed: int = 0,
    name: str = "the tutor",
) -> ReportCard:
    """Grade a tutor on states that students visit.

    Example:
        >>> from rllib_plugins.reference_tutors import OracleAdvisor
        >>> from rllib_plugins.tasks import load_task
        >>> task = load_task("blackjack")
        >>> card = grade(task, OracleAdvisor(task), num_states=100, name="oracle")
        >>> card.agreement, card.constant_action, card.beats_constant
        (1.0, 'stick', True)

    Args:
        task: The task to advise on.
        tutor: A function from a list of requests to answers, e.g. ``TutorClient.advise``: it is asked twice, the
            second time with the labels in another order. Or an Advisor, a scripted reference for instance: it is asked
            once, and order, legal mass and cost stay unknown.
        reading: How a function's raw answers are read. The card judges the calibrated distribution and its best guess.
        num_states: Visits to grade; equal states are asked about once.
        seed: Seed that draws the states and the orders.
        name: The tutor's name, for the card.
    """
    states, visits = visited_states(task, num_states, seed)
    sample = _Sample(task, states, visits, legal_mask(task, states))
    trivial = trivial_players(task, episodes=TRIVIAL_EPISODES, max_steps=TRIVIAL_STEPS, seed=seed)[0]
    card = ReportCard(
        *(task.name, name, int(visits.sum()), len(states), 0.0),
        trivial=trivial.evaluation.return_mean,
        trivial_player=trivial.name,
    )
    if callable(tutor):
        answers, card = _ask_twice(sample, _Read(tutor, reading), seed, card)
    else:
        answers = tutor.ask(states).probabilities
    answered = np.isfinite(answers).all(axis=1)
    card = replace(card, answered=float(visits[answered].sum() / visits.sum()))
    return _against_oracle(sample.at(answered), card, answers[answered]) if answered.any() else card


def _ask_twice(sample: _Sample, tutor: _Read, seed: int, card: ReportCard) -> tuple[Floats, ReportCard]:
    rng = np.random.default_rng([seed, 1])
    orders = [np.flatnonzero(mask) for mask in sample.legal]
    others = [_another_order(order, rng) for order in orders]
    texts = [sample.task.describe(observation) for observation in sample.observations()]

    def answers_in(chosen: list[Ints]) -> tuple[Sequence[Advice | None], Floats]:
        """Ask with the labels in these orders; rows over all actions ``(n, num_actions)``, NaN where no answer came."""
        actions = [tuple(sample.task.actions[action] for action in order) for order in chosen]
        task, ask = sample.task, tutor.ask
        advice = ask(
            [
                AdviceRequest(task.rules, text, labels, task.synonyms_of(labels))
                for text, labels in zip(texts, actions, strict=True)
            ]
        )
        rows = np.full(sample.legal.shape, np.nan)
        for row, answer, order in zip(rows, advice, chosen, strict=True):
            if answer is not None:
                row[:] = 0.0
                row[order] = answer.probabilities
        return advice, rows

    advice, rows = answers_in(orders)
    _, other_rows = answers_in(others)
    rows, other_rows = tutor.opinions(sample, rows, other_rows)
    given = [answer for answer in advice if answer is not None]
    if given:
        answered = sample.at(np.array([answer is not None for answer in advice]))
        mass = np.array([answer.legal_mass for answer in given])
        computed = [answer for answer in given if answer.source == "model"]
        card = replace(
            card,
            legal_mass=answered.mean(mass),
            legal_mass_min=float(mass.min()),
            from_store=1.0 - len(computed) / len(given),
            latency_ms=float(np.mean([answer.latency_ms for answer in computed])) if computed else None,
            tokens=float(np.mean([answer.tokens for answer in computed])) if computed else None,
        )
    both = np.isfinite(rows).all(axis=1) & np.isfinite(other_rows).all(axis=1)
    if both.any():
        first, second, twice = rows[both], other_rows[both], sample.at(both)
        fair = 1.0 / twice.legal.sum(axis=1)
        on_first = np.array([(rows[i, orders[i][0]] + other_rows[i, others[i][0]]) / 2 for i in np.flatnonzero(both)])
        same = (best_guess(first) * best_guess(second)).sum(axis=1) > 0
        card = replace(
            card,
            order_sensitivity=twice.mean(np.abs(first - second).sum(axis=1) / 2),
            order_flips=twice.mean(1.0 - same),
            first_label_excess=twice.mean(on_first - fair),
        )
    return rows, card


def _another_order(order: Ints, rng: np.random.Generator) -> Ints:
    """Return a random order that names another action first."""
    while True:
        other = rng.permutation(order)
        if other[0] != order[0]:
            return other


def _against_oracle(sample: _Sample, card: ReportCard, answers: Floats) -> ReportCard:
    task = sample.task
    mean_answer = np.average(answers, axis=0, weights=sample.visits).tolist()
    oracle = task.oracle_batch(sample.states)
    if oracle is None:
        labels = (LabelShare(label, p, None) for label, p in zip(task.actions, mean_answer, strict=True))
        return replace(card, labels=tuple(labels))
    mean_oracle = np.average(oracle, axis=0, weights=sample.visits).tolist()
    guess = best_guess(answers)
    agreed = scores.agreements(guess, oracle)
    constants = scores.constant_policies(sample.legal)
    constant_agreed = scores.agreements(constants, oracle)
    best = int(np.average(constant_agreed, axis=1, weights=sample.visits).argmax())
    low, high = scores.advantage_interval(agreed - constant_agreed[best], sample.visits)
    observations = sample.observations()
    rows = [task.action_values(observation) for observation in observations]
    values = None if any(row is None for row in rows) else np.array(rows, dtype=np.float64)
    lost = None if values is None else scores.regrets(guess, values)
    shares = (LabelShare(*share) for share in zip(task.actions, mean_answer, mean_oracle, strict=True))
    card = replace(
        card,
        agreement=sample.mean(agreed),
        agreement_sampled=sample.mean(scores.agreements(answers, oracle)),
        constant_action=task.actions[best],
        constant_agreement=sample.mean(constant_agreed[best]),
        advantage_low=low,
        advantage_high=high,
        situations=_by_situation(sample, agreed, constant_agreed[best], lost),
        labels=tuple(shares),
        label_bias=float(np.abs(np.subtract(mean_answer, mean_oracle)).sum() / 2),
    )
    if values is None or lost is None:
        return card
    uniform = sample.legal / sample.legal.sum(axis=1, keepdims=True)
    return replace(
        card,
        regret=sample.mean(lost),
        regret_sampled=sample.mean(scores.regrets(answers, values)),
        constant_regret=float(np.average(scores.regrets(constants, values), axis=1, weights=sample.visits).min()),
        random_regret=sample.mean(scores.regrets(uniform, values)),
    )


def _by_situation(
    sample: _Sample, agreed: Floats, constant_agreed: Floats, lost: Floats | None
) -> tuple[SituationGrade, ...]:
    names = np.array([sample.task.situation(observation) for observation in sample.observations()])
    grades = []
    for name in sorted(set(names.tolist())):
        rows = names == name
        part = sample.at(rows)
        grades.append(
            SituationGrade(
                name,
                float(part.visits.sum() / sample.visits.sum()),
                part.mean(agreed[rows]),
                part.mean(constant_agreed[rows]),
                None if lost is None else part.mean(lost[rows]),
            )
        )
    return tuple(sorted(grades, key=lambda item: -item.share))
