"""Probabilities of actions: how they are drawn, and what the behaviour policy μ gives them. Pure functions.

Heads, with probability g (the gate), the tutor acts; tails, the student's own distribution π̃ does. Two estimators of
log μ(a|s) of an executed action are right, and which one is used is decided before the coin, without the action:

* mixture: μ(a) = g·π_T(a) + (1 − g)·π̃(a), where the tutor's distribution (or the stored action) is at hand anyway;
* conditional on the coin: μ(a) = π_T(a) on heads and π̃(a) on tails, where π_T would have to be asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

PROBABILITY_FLOOR = 1e-12
"""Least probability whose logarithm is taken: log 1e-12 = −27.6 stands for "the student would never do this"."""


def sample(probabilities: FloatArray, uniforms: FloatArray) -> IntArray:
    """Draws one action per row by inverting the cumulative distribution; never one of probability 0.

    Args:
        probabilities: ``(n, num_actions)``; rows need not sum to exactly 1. A row of NaN gives a meaningless action.
        uniforms: ``(n,)`` in [0, 1).

    Returns:
        ``(n,)`` actions.
    """
    cumulative = probabilities.cumsum(axis=1)
    return np.asarray((cumulative > uniforms[:, None] * cumulative[:, -1:]).argmax(axis=1))


def floored_logp(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """log of probabilities that may be 0, of any shape, floored at ``PROBABILITY_FLOOR``."""
    return np.log(np.maximum(probabilities, PROBABILITY_FLOOR), dtype=np.float64).astype(np.float32)


def usable_rows(advice: FloatArray, legal: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Rows that are distributions over legal actions: no NaN, nothing negative, legal mass 1 within 1e-4; ``(n,)``."""
    mass = np.add.reduce(advice if legal is None else np.where(legal, advice, 0.0), axis=1)
    return (np.abs(mass - 1.0) <= 1e-4) & (np.minimum.reduce(advice, axis=1) >= 0.0)


def greedy_actions(policy: FloatArray, legal: NDArray[np.bool_] | None, q_values: FloatArray | None) -> IntArray:
    """A value student's greedy action per row: the legal arg max of Q, or of ``policy`` where Q is not given."""
    if q_values is None:
        return np.asarray(policy.argmax(axis=1))
    values = q_values if legal is None else np.where(legal, q_values, -np.inf)
    return np.asarray(values.argmax(axis=1))


def exploring_tails(
    policy: FloatArray,
    greedy: IntArray,
    legal: NDArray[np.bool_] | None,
    *,
    probability: float,
    random_share: float,
    engaged: FloatArray | float,
) -> FloatArray:
    """A value student's own distribution beside a tutor whose P takes the place of the student's ε-schedule.

    With P the probability of exploring, s the random share and e how far the tutor is engaged (trust, 0 where the
    rule says no), behaviour is e·[P(1 − s)·π_T + P·s·U + (1 − P)·greedy] + (1 − e)·policy, where U is uniform over
    legal actions and ``policy`` the untutored student's ε-greedy distribution. At e = 1, s = 0 it is the paper's form,
    where the tutor takes the place of random exploration; at e = 0 it is the untutored student.

    Returns:
        What remains when the coin (of probability g = e·P(1 − s)) shows tails, normalised, ``(n, num_actions)``.
    """
    mass = 1.0 - engaged * (probability * (1.0 - random_share))
    empty = np.asarray(mass <= 1e-12)
    if empty.any():  # g = 1: tails never shows, but has to be a distribution
        engaged, mass = np.where(empty, 0.0, engaged), np.where(empty, 1.0, mass)
    engaged = engaged / mass  # from here on the parts are divided by the mass of what remains
    alone = 1.0 / mass - engaged
    random_part = engaged * (probability * random_share)
    if not isinstance(engaged, float):
        alone, random_part = np.asarray(alone)[..., None], np.asarray(random_part)[..., None]
    tails = policy * alone
    tails += random_part / policy.shape[1] if legal is None else _spread(random_part, legal)
    tails[np.arange(len(policy)), greedy] += engaged * (1.0 - probability)
    return tails


def _spread(mass: FloatArray | float, legal: NDArray[np.bool_]) -> FloatArray:
    """Mass over the legal actions in equal parts, ``(n, num_actions)``."""
    return np.where(legal, mass / legal.sum(axis=1, keepdims=True), 0.0)
