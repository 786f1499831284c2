"""Decayed sums, in machine code, over steps in which a student drew its action at random and the advice is known."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg.cython_lapack  # noqa: F401  # compiled code calls it
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ALL, DISPUTED, INFORMED = range(3)
"""Rows of ``Sums.scores``."""
OVERLAP, LEFT = range(2)
"""Entries of ``Sums.spreads``."""
AGREED, SEEN = range(2)
"""Entries of ``Sums.choices``."""
_RELATIVE_CUT = 1e-6


class Draws(NamedTuple):
    """Hold steps in which a student drew its action at random and the advice is known.

    Attributes:
        observations: ``(n, obs_dim)``.
        policy: ``(n, A)``: the probabilities that the student drew its actions by.
        actions: ``(n,)``: the actions that it drew.
        advised: ``(n,)``: the advised actions.
        advantages: ``(n,)``: of the executed actions, not standardised, in units of return.
    """

    observations: NDArray[np.float32]
    policy: Floats
    actions: Ints
    advised: Ints
    advantages: Floats

    def where(self, mask: NDArray[np.bool_]) -> Draws:
        """Return the steps of a mask ``(n,)``."""
        observations, policy, actions, advised, advantages = self
        return Draws(observations[mask], policy[mask], actions[mask], advised[mask], advantages[mask])


class Sums(NamedTuple):
    """Hold sums over steps in which each counts half after ``half_life`` more.

    With 1[a = k] − m_k, the surprise of action k in a step, and t − m that of the advised one.

    Attributes:
        scores: ``(3, 2)``: Σx and Σx² of the scores of all steps, of those where the advised action is not the most
            likely one (0 elsewhere), and of what no habit explains.
        spreads: ``(2,)``: Σ m(1 − m) of the advised actions, and Σ of the square of what no habit explains of t − m.
        choices: ``(2,)``: the numbers of steps where the advised action is the most likely one, and of all.
        surprises: ``(A, A)``: Σ of products of surprises.
        with_treatment: ``(A,)``: Σ of surprises times t − m.
        with_advantage: ``(A,)``: Σ of surprises times advantages.
    """

    scores: Floats
    spreads: Floats
    choices: Floats
    surprises: Floats
    with_treatment: Floats
    with_advantage: Floats

    @classmethod
    def of(cls, num_actions: int) -> Sums:
        """Return the sums over no steps."""
        return cls(
            np.zeros((3, 2)),
            np.zeros(2),
            np.zeros(2),
            np.zeros((num_actions, num_actions)),
            np.zeros(num_actions),
            np.zeros(num_actions),
        )


@compiled
def add_scores(totals: Floats, values: Floats, half_life: float) -> None:
    """Add values ``(n,)``, the oldest first, to decayed Σx and Σx², ``(2,)``, however they are cut into calls.

    With an infinite half-life nothing decays.
    """
    decay = 0.5 ** (1.0 / half_life)
    total, squares = totals[0], totals[1]
    for value in values:
        total = total * decay + value
        squares = squares * decay * decay + value * value
    totals[0], totals[1] = total, squares


@compiled
def _inverse_sizes(sizes: Floats) -> Floats:
    """Return the inverse of eigenvalues, and 0 of those that are 0: the surprises of a step sum to 0."""
    cut = _RELATIVE_CUT * np.abs(sizes).max()
    inverse = np.zeros_like(sizes)
    for i in range(len(sizes)):
        if abs(sizes[i]) > cut:
            inverse[i] = 1.0 / sizes[i]
    return inverse


@compiled
def _without_habit(
    inverse: Floats, directions: Floats, with_values: Floats, surprise: Floats, values: Floats
) -> Floats:
    """Return what a least-squares fit of ``values`` ``(n,)`` on the surprises leaves of them.

    ``inverse`` and ``directions`` are the pseudo-inverse of the products of surprises, by its eigenvectors.
    """
    weights = np.dot(directions, inverse * np.dot(directions.T, with_values))
    return values - np.dot(surprise, weights)


@compiled
def add_steps(sums: Sums, policy: Floats, actions: Ints, advised: Ints, advantages: Floats, half_life: float) -> Floats:
    """Add steps, the oldest first, and return t − m of each, ``(n,)``; the arguments are those of ``Draws``.

    A habit predicts an advantage by which action was drawn alone, whatever the state: A ≈ Σ_k b_k (1[a = k] − m_k). A
    student finds out by itself, within a few updates, which action is best on average, so advice is worth what it adds
    to that; advice that is the same in every state adds nothing.
    """
    num_steps, num_actions = policy.shape
    treatment, disputed = np.empty(num_steps), np.empty(num_steps)
    surprise = np.empty((num_steps, num_actions))
    decay, overlap = 0.5 ** (1.0 / half_life), sums.spreads[OVERLAP]
    for step in range(num_steps):
        best = 0
        for action in range(num_actions):
            surprise[step, action] = (1.0 if actions[step] == action else 0.0) - policy[step, action]
            if policy[step, action] > policy[step, best]:
                best = action
        propensity = policy[step, advised[step]]
        treatment[step] = surprise[step, advised[step]]
        disputed[step] = treatment[step] * advantages[step] if best != advised[step] else 0.0
        sums.choices[AGREED] = sums.choices[AGREED] * decay + (best == advised[step])
        sums.choices[SEEN] = sums.choices[SEEN] * decay + 1.0
        overlap = overlap * decay + propensity * (1.0 - propensity)
    sums.spreads[OVERLAP] = overlap
    add_scores(sums.scores[ALL], treatment * advantages, half_life)
    add_scores(sums.scores[DISPUTED], disputed, half_life)
    block_decay = 0.5 ** (num_steps / half_life)
    sums.surprises[:] = sums.surprises * block_decay + np.dot(surprise.T, surprise)
    sums.with_treatment[:] = sums.with_treatment * block_decay + np.dot(surprise.T, treatment)
    sums.with_advantage[:] = sums.with_advantage * block_decay + np.dot(surprise.T, advantages)
    sizes, directions = np.linalg.eigh(sums.surprises)
    inverse = _inverse_sizes(sizes)
    informed = _without_habit(inverse, directions, sums.with_treatment, surprise, treatment)
    unexplained = _without_habit(inverse, directions, sums.with_advantage, surprise, advantages)
    add_scores(sums.scores[INFORMED], informed * unexplained, half_life)
    left = sums.spreads[LEFT]
    for value in informed:
        left = left * decay + value * value
    sums.spreads[LEFT] = left
    return treatment


def z_of(totals: Floats) -> float:
    """Return Σx/√Σx² of decayed sums ``(2,)``: whether the mean is above 0; 0 before anything varied.

    The sum normalises itself, so rare or skewed outcomes weigh as much as they vary.
    """
    return float(totals[0] / math.sqrt(totals[1])) if totals[1] > 1e-200 else 0.0
