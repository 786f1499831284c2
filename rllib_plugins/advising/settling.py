"""The end of a vector step: which actions are executed, and how probable they were. Numbers only, compiled.

Everything that was decided before the coins is given; row by row this draws the actions and does the book-keeping that
would else be dozens of small array operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.behaviour import FloatArray, IntArray
from rllib_plugins.advising.reuse import NOTHING
from rllib_plugins.compiled import compiled

BoolArray = NDArray[np.bool_]

NOT_GREEDY = np.empty(0, dtype=np.int64)
"""In place of greedy actions: the student samples."""


class Settled(NamedTuple):
    """What became of a vector step; the arrays are those of ``Decision``.

    Attributes:
        actions: ``(n,)`` executed.
        behaviour: ``(n,)`` μ of the executed actions; 0 or NaN only where a distribution was none.
        policy: ``(n,)`` π_old of the executed actions.
        eligible: ``(n,)`` part of the randomised comparison.
        consulted: ``(n,)`` advice was executed.
        advice: ``(n, num_actions)`` imitation targets.
        fresh_rows: Rows whose action was drawn from the tutor.
        num_reused: Rows whose action was a stored one.
        num_known: Rows that needed the tutor's distribution and had it at hand.
        num_same: Consulted rows on which the student would have drawn the same; counted only if asked for.
        agreement: Sum over consulted rows of the probability that the student would have done the same.
    """

    actions: IntArray
    behaviour: FloatArray
    policy: FloatArray
    eligible: BoolArray
    consulted: BoolArray
    advice: NDArray[np.float32]
    fresh_rows: IntArray
    num_reused: int
    num_known: int
    num_same: int
    agreement: float


@compiled
def draw(probabilities: FloatArray, uniform: float) -> int:
    """One action by inverting the cumulative distribution, ``(num_actions,)``: a row of ``behaviour.sample``."""
    total = 0.0
    for probability in probabilities:
        total += probability
    cumulative = 0.0
    for action in range(len(probabilities)):
        cumulative += probabilities[action]
        if cumulative > uniform * total:
            return action
    return 0


@compiled
def settle(
    policy: FloatArray,
    tails: FloatArray,
    tutor: FloatArray,
    gate: FloatArray,
    heads: BoolArray,
    stored: IntArray,
    at_hand: BoolArray,
    followed: BoolArray,
    own_draws: FloatArray,
    advice_draws: FloatArray,
    greedy: IntArray,
    whole_advice: bool,
    reads_advice: bool,
    counts_same: bool,
) -> Settled:
    """Draws the executed actions of a vector step of n environments.

    μ is a mixture where the tutor's part was at hand before the coin was thrown, else conditional on the coin, which
    is the mixture at a gate of 1 on heads with advice and of 0 otherwise.

    Args:
        policy: ``(n, num_actions)`` the untutored student's distribution.
        tails: ``(n, num_actions)`` what the student does beside a tutor; it leaves out the share of exploring that the
            tutor would have done, so that a student left alone on heads falls back to ``policy``.
        tutor: ``(n, num_actions)`` the tutor's distribution where it is at hand or was asked for.
        gate: ``(n,)`` probability of heads.
        heads: ``(n,)`` coins.
        stored: ``(n,)`` action that reuse holds ready, or ``NOTHING``.
        at_hand: ``(n,)`` whether the tutor's distribution was at hand before the coins.
        followed: ``(n,)`` whether there is a distribution and the rule follows it.
        own_draws: ``(n,)`` uniform draws for the student's actions.
        advice_draws: ``(n,)`` uniform draws for the tutor's.
        greedy: ``(n,)`` greedy actions of a value student, or ``NOT_GREEDY``.
        whole_advice: Imitate the tutor's whole distribution where it was drawn from.
        reads_advice: Whether the gate depends on the advice, so that rows without it at hand are not comparable.
        counts_same: Count ``num_same``.
    """
    n, num_actions = policy.shape
    actions, fresh_rows = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    behaviour, executed_policy = np.empty(n), np.empty(n)
    eligible, consulted = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.bool_)
    advice = np.zeros((n, num_actions), dtype=np.float32)
    num_fresh = num_reused = num_known = num_same = 0
    agreement = 0.0
    for row in range(n):
        is_stored = stored[row] != NOTHING
        reused = heads[row] and is_stored
        fresh = heads[row] and not is_stored and followed[row]
        advised = fresh or reused
        own = policy[row] if heads[row] and not advised else tails[row]
        if reused:
            action = stored[row]
            num_reused += 1
        elif fresh:
            action = draw(tutor[row], advice_draws[row])
            fresh_rows[num_fresh] = row
            num_fresh += 1
        else:
            action = draw(own, own_draws[row])
        if heads[row] and not is_stored and at_hand[row]:
            num_known += 1

        foreseen = is_stored or at_hand[row]
        weight = gate[row] if foreseen else (1.0 if advised else 0.0)
        from_tutor = 0.0
        if is_stored:
            from_tutor = 1.0 if stored[row] == action else 0.0
        elif weight > 0.0:
            from_tutor = tutor[row, action]
        behaviour[row] = weight * from_tutor + (1.0 - weight) * own[action]
        actions[row], executed_policy[row], consulted[row] = action, policy[row, action], advised

        comparable = 0.0 < gate[row] < 1.0 and (advised or not heads[row]) and (foreseen or not reads_advice)
        would_do = policy[row, action]
        if len(greedy):
            would_do = 1.0 if greedy[row] == action else 0.0
            comparable = comparable and (advised or would_do > 0.0)
        eligible[row] = comparable
        if advised:
            agreement += would_do
            advice[row, action] = 1.0
            if fresh and whole_advice:
                advice[row] = tutor[row]
            if counts_same and draw(own, own_draws[row]) == action:
                num_same += 1
    return Settled(
        actions,
        behaviour,
        executed_policy,
        eligible,
        consulted,
        advice,
        fresh_rows[:num_fresh],
        num_reused,
        num_known,
        num_same,
        agreement,
    )
