"""Grades a tutor: draws states, asks, and fills the report card. It must not know how a tutor is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.grading import card as scores
from rllib_plugins.grading.card import Floats, ReportCard, SituationGrade
from rllib_plugins.grading.states import visited_states
from rllib_plugins.tasks.base import Task
from tutor_service.schema import Advice, AdviceRequest

Ask: TypeAlias = Callable[[list[AdviceRequest]], Sequence[Advice | None]]
"""A tutor: one answer per request, None where there is none."""


def grade(
    task: Task, tutor: Ask | Advisor, *, num_states: int = 300, seed: int = 0, name: str = "the tutor"
) -> ReportCard:
    """Grades a tutor on states that students visit.

    Args:
        task: The task to advise on.
        tutor: A function from a list of requests to answers, such as ``TutorClient.advise``: it is asked twice, the
            second time with the labels in another order. Or an Advisor, a scripted reference for instance: it is asked
            once, and order, legal mass and cost stay unknown.
        num_states: Visits to grade; equal states are asked about once.
        seed: Draws the states and the orders.
        name: The tutor's name, for the card.
    """
    states, visits = visited_states(task, num_states, seed)
    legal = task.legal_batch(states)
    if legal is None:
        legal = np.ones((len(states), task.num_actions), dtype=bool)
    blank = ReportCard(task.name, name, int(visits.sum()), len(states), 0.0)
    if callable(tutor):
        answers, card = _ask_twice(task, tutor, states, legal, visits, seed, blank)
    else:
        answers, card = tutor.ask(states).probabilities, blank
    answered = np.isfinite(answers).all(axis=1)
    card = replace(card, answered=float(visits[answered].sum() / visits.sum()))
    if not answered.any():
        return card
    return _against_oracle(task, card, states[answered], visits[answered], legal[answered], answers[answered])


def _requests(task: Task, states: NDArray[np.float32], orders: list[NDArray[np.int64]]) -> list[AdviceRequest]:
    texts = [task.describe(task.unflatten(state)) for state in states]
    return [
        AdviceRequest(task.rules, text, tuple(task.actions[action] for action in order))
        for text, order in zip(texts, orders, strict=True)
    ]


def _scatter(answers: Sequence[Advice | None], orders: list[NDArray[np.int64]], num_actions: int) -> Floats:
    """Answers as rows over all actions, ``(n, num_actions)``; NaN where there is none."""
    rows = np.full((len(answers), num_actions), np.nan)
    for row, answer, order in zip(rows, answers, orders, strict=True):
        if answer is not None:
            row[:] = 0.0
            row[order] = answer.probabilities
    return rows


def _ask_twice(
    task: Task,
    ask: Ask,
    states: NDArray[np.float32],
    legal: NDArray[np.bool_],
    visits: NDArray[np.int64],
    seed: int,
    card: ReportCard,
) -> tuple[Floats, ReportCard]:
    rng = np.random.default_rng([seed, 1])
    orders = [np.flatnonzero(mask) for mask in legal]
    others = [_another_order(order, rng) for order in orders]
    advice = ask(_requests(task, states, orders))
    rows = _scatter(advice, orders, task.num_actions)
    other_rows = _scatter(ask(_requests(task, states, others)), others, task.num_actions)
    given = [(answer, count) for answer, count in zip(advice, visits, strict=True) if answer is not None]
    if given:
        counts = np.array([count for _, count in given])
        mass = np.array([answer.legal_mass for answer, _ in given])
        computed = [answer for answer, _ in given if answer.source == "model"]
        card = replace(
            card,
            legal_mass=scores.weighted_mean(mass, counts),
            legal_mass_min=float(mass.min()),
            from_store=1.0 - len(computed) / len(given),
            latency_ms=float(np.mean([answer.latency_ms for answer in computed])) if computed else None,
            tokens=float(np.mean([answer.tokens for answer in computed])) if computed else None,
        )
    both = np.isfinite(rows).all(axis=1) & np.isfinite(other_rows).all(axis=1)
    if both.any():
        first, second, counts = rows[both], other_rows[both], visits[both]
        fair = 1.0 / legal[both].sum(axis=1)
        on_first = np.array([(rows[i, orders[i][0]] + other_rows[i, others[i][0]]) / 2 for i in np.flatnonzero(both)])
        same = (scores.greedy(first) * scores.greedy(second)).sum(axis=1) > 0
        card = replace(
            card,
            order_sensitivity=scores.weighted_mean(np.abs(first - second).sum(axis=1) / 2, counts),
            order_flips=scores.weighted_mean(1.0 - same, counts),
            first_label_excess=scores.weighted_mean(on_first - fair, counts),
        )
    return rows, card


def _another_order(order: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order that names another action first."""
    while True:
        other = rng.permutation(order)
        if other[0] != order[0]:
            return other


def _against_oracle(
    task: Task,
    card: ReportCard,
    states: NDArray[np.float32],
    visits: NDArray[np.int64],
    legal: NDArray[np.bool_],
    answers: Floats,
) -> ReportCard:
    mean_answer = np.average(answers, axis=0, weights=visits)
    oracle = task.oracle_batch(states)
    if oracle is None:
        labels = [(label, float(p), None) for label, p in zip(task.actions, mean_answer, strict=True)]
        return replace(card, labels=tuple(labels))
    mean_oracle = np.average(oracle, axis=0, weights=visits)
    guess = scores.greedy(answers)
    agreed = scores.agreements(guess, oracle)
    constants = scores.constant_policies(legal)
    constant_agreed = scores.agreements(constants, oracle)
    best = int(np.average(constant_agreed, axis=1, weights=visits).argmax())
    low, high = scores.advantage_interval(agreed - constant_agreed[best], visits)
    values = _action_values(task, states)
    lost = None if values is None else scores.regrets(guess, values)
    card = replace(
        card,
        agreement=scores.weighted_mean(agreed, visits),
        agreement_sampled=scores.weighted_mean(scores.agreements(answers, oracle), visits),
        constant_action=task.actions[best],
        constant_agreement=scores.weighted_mean(constant_agreed[best], visits),
        advantage_low=low,
        advantage_high=high,
        situations=_by_situation(task, states, visits, agreed, constant_agreed[best], lost),
        labels=tuple(
            (label, float(ours), float(theirs))
            for label, ours, theirs in zip(task.actions, mean_answer, mean_oracle, strict=True)
        ),
        label_bias=float(np.abs(mean_answer - mean_oracle).sum() / 2),
    )
    if values is None or lost is None:
        return card
    uniform = legal / legal.sum(axis=1, keepdims=True)
    return replace(
        card,
        regret=scores.weighted_mean(lost, visits),
        regret_sampled=scores.weighted_mean(scores.regrets(answers, values), visits),
        constant_regret=float(np.average(scores.regrets(constants, values), axis=1, weights=visits).min()),
        random_regret=scores.weighted_mean(scores.regrets(uniform, values), visits),
    )


def _action_values(task: Task, states: NDArray[np.float32]) -> Floats | None:
    rows = [task.action_values(task.unflatten(state)) for state in states]
    return None if any(row is None for row in rows) else np.array(rows, dtype=np.float64)


def _by_situation(
    task: Task,
    states: NDArray[np.float32],
    visits: NDArray[np.int64],
    agreed: Floats,
    constant_agreed: Floats,
    lost: Floats | None,
) -> tuple[SituationGrade, ...]:
    names = np.array([task.situation(task.unflatten(state)) for state in states])
    grades = []
    for name in sorted(set(names.tolist())):
        rows = names == name
        counts = visits[rows]
        grades.append(
            SituationGrade(
                name,
                float(counts.sum() / visits.sum()),
                scores.weighted_mean(agreed[rows], counts),
                scores.weighted_mean(constant_agreed[rows], counts),
                None if lost is None else scores.weighted_mean(lost[rows], counts),
            )
        )
    return tuple(sorted(grades, key=lambda item: -item.share))
