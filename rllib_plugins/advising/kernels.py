"""Hold the explorer's machine code: coins, reuse, who acts, how probable it was. Numbers and arrays only.

What Python calls takes the records below as plain tuples and names their fields at once: a named tuple that crosses
into compiled code costs more than the look-up of a state.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.reuse import Shipped
from rllib_plugins.advising.table import NOTHING, Stored, Tutor
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.compiled import compiled
from rllib_plugins.row_index import UNKNOWN, claim, slot_of

NO_LIMIT = -1
"""In place of the consultations that are left."""
OWN_DRAW, COIN, REUSE_DRAW, TUTOR_DRAW = range(4)
"""Rows of the uniform draws of a vector step."""
BEHAVIOUR, POLICY = range(2)
"""Rows of the probabilities of executed actions: μ(a|s) and π_old(a|s)."""
HEADS, ELIGIBLE, CONSULTED = range(3)
"""Rows of the flags of a step."""

OFF, BUDGET, DECAY, Q_CHANGE, OWN = (int(rule) for rule in Shipped)

VISIT = np.dtype(
    [
        ("gate", np.float64),  # probability of heads; 0 once the budget ran out
        ("slot", np.int64),  # row of the tutor's distributions
        ("ready", np.int64),  # action that reuse holds ready, on heads and tails alike, or NOTHING
        ("open", np.bool_),  # input: the advising rule opens the gate
        ("ignored", np.bool_),  # input: the advising rule does not follow the advice that is had
        ("heads", np.bool_),  # the coin
        ("at_hand", np.bool_),  # the tutor's distribution was there before the coin
        ("fresh", np.bool_),  # the action was drawn from the tutor's distribution
    ],
    align=True,
)
"""What is found out about one environment in a vector step."""


class Coin(NamedTuple):
    """What a vector step of n environments is thrown with.

    Attributes:
        gate: Probability of heads.
        remaining: Consultations left in the advice budget, or ``NO_LIMIT``.
        draws: ``(4, n)`` uniform draws, see ``OWN_DRAW``.
    """

    gate: float
    remaining: int
    draws: Floats


class Student(NamedTuple):
    """What n students see, and what they would do.

    Attributes:
        observations: ``(n, obs_dim)`` float32.
        policy: ``(n, num_actions)`` the untutored student's distribution.
        tails: ``(n, num_actions)`` what the student does beside a tutor; it leaves out the share of exploring that the
            tutor would have done, so that a student left alone on heads falls back to ``policy``.
        q_values: ``(n, num_actions)`` what a value student's greedy action maximises; empty: ``policy``.
        legal: ``(n, num_actions)``; empty: all actions are.
    """

    observations: Floats32
    policy: Floats
    tails: Floats
    q_values: Floats
    legal: Bools


class Options(NamedTuple):
    """What does not change over a trial, except ``is_untrained``.

    Attributes:
        value_based: The student is a value student.
        is_untrained: Compare its advice with its random actions too.
        whole_advice: Imitate the tutor's whole distribution where the action was drawn from it.
        counts_same: Count the consulted environments in which the student would have drawn the same.
        reads_advice: The advising rule reads advice.
    """

    value_based: bool
    is_untrained: bool
    whole_advice: bool
    counts_same: bool
    reads_advice: bool


class Output(NamedTuple):
    """Where a vector step is written to.

    Attributes:
        t: Vector step of the arrays.
        actions: ``(T, n)`` executed.
        probabilities: ``(2, T, n)``, see ``BEHAVIOUR``.
        flags: ``(3, T, n)``, see ``HEADS``.
        advice: ``(T, n, num_actions)`` imitation targets.
    """

    t: int
    actions: Ints
    probabilities: NDArray[Any]
    flags: Bools
    advice: Floats32


class Settled(NamedTuple):
    """What a vector step amounted to.

    Attributes:
        is_sound: All distributions were valid.
        num_reused: Environments whose action was a stored one.
        num_fresh: Whose action was drawn from the tutor's distribution.
        num_known: That needed the tutor's distribution and knew it.
        num_same: Consulted ones in which the student would have drawn the same.
        agreement: Sum over the consulted ones of the probability that the student would have done the same.
    """

    is_sound: bool
    num_reused: int
    num_fresh: int
    num_known: int
    num_same: int
    agreement: float


Plain: TypeAlias = tuple[Any, ...]
"""The fields of a record."""
PlainTotals: TypeAlias = tuple[bool, int, int, int, int, float]
"""Those of ``Settled``."""


@compiled
def draw(probabilities: Floats, uniform: float) -> int:
    """Draw an action of ``(num_actions,)`` by inverting the cumulative distribution; never one of probability 0.

    The probabilities need not sum to exactly 1; of NaN the action is meaningless.
    """
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
def act_alone(policy: Floats, own_draws: Floats, t: int, actions: Ints, probabilities: NDArray[Any]) -> bool:
    """Act without a tutor, into step ``t`` of the outputs; returns False where a distribution is invalid."""
    is_sound = True
    for row in range(len(policy)):
        action = draw(policy[row], own_draws[row])
        probability = policy[row, action]
        is_sound = is_sound and probability > 0.0
        actions[t, row] = action
        probabilities[BEHAVIOUR, t, row] = probabilities[POLICY, t, row] = probability
    return is_sound


@compiled
def explore_beside(
    student: Plain,
    visits: NDArray[Any],
    engagement: float,
    probability: float,
    random_share: float,
) -> None:
    """Write the tails of a value student beside a tutor whose P takes the place of the student's ε-schedule.

    With P the probability of exploring, s the random share and e how far the tutor is engaged (trust, 0 where the
    rule says no), behaviour is e·[P(1 − s)·π_T + P·s·U + (1 − P)·greedy] + (1 − e)·policy, where U is uniform over
    legal actions and ``policy`` the untutored student's ε-greedy distribution. At e = 1, s = 0 it is the paper's form,
    where the tutor takes the place of random exploration; at e = 0 it is the untutored student. What remains when the
    coin (of probability g = e·P(1 − s)) shows tails, normalised, is written into ``student.tails``.
    """
    named = Student(*student)
    for row in range(len(named.policy)):
        engaged = engagement if visits[row].open else 0.0
        mass = 1.0 - engaged * (probability * (1.0 - random_share))
        if mass <= 1e-12:  # g = 1: tails never shows, but has to be a distribution
            engaged, mass = 0.0, 1.0
        engaged /= mass  # from here on the parts are divided by the mass of what remains
        num_legal = named.policy.shape[1]
        if len(named.legal):
            num_legal = named.legal[row].sum()
        for action in range(named.policy.shape[1]):
            named.tails[row, action] = named.policy[row, action] * (1.0 / mass - engaged)
            if len(named.legal) == 0 or named.legal[row, action]:
                named.tails[row, action] += engaged * (probability * random_share) / num_legal
        named.tails[row, _greedy_action(named, row)] += engaged * (1.0 - probability)


@compiled
def _serves(stored: Stored, slot: int, uniform: float, q: float) -> bool:
    """Whether a stored action serves a visit, if the coin says heads."""
    memory = stored.memories[slot]
    if stored.rule == BUDGET:
        return memory > 0.0
    if stored.rule == DECAY:
        return uniform < memory
    return math.isnan(memory) or math.isnan(q) or q - memory >= stored.option


@compiled
def _memory_after(stored: Stored, slot: int, q: float) -> float:
    """Memory of a stored action that has served."""
    if stored.rule == BUDGET:
        return stored.memories[slot] - 1.0
    if stored.rule == DECAY:
        return stored.option * stored.memories[slot]
    return q


@compiled
def _plan(coin: Coin, student: Student, tutor: Tutor, stored: Stored, visits: NDArray[Any]) -> int:
    """Throw the coins and look up what is known and what is stored; return how many have to be asked about.

    The order matters: what an environment finds follows from the coins of those before it, never from its own, so
    budgets are kept exactly and each action's probability is that given everything before it. Advice that is asked for
    in this step is stored when the step ends.
    """
    words = student.observations.view(np.uint32)
    num_heads = num_to_ask = 0
    for row in range(len(visits)):
        visit = visits[row]
        visit.gate = coin.gate if visit.open and not 0 <= coin.remaining <= num_heads else 0.0
        visit.heads = coin.draws[COIN, row] < visit.gate
        num_heads += visit.heads
        visit.slot = slot_of(words[row], tutor.rows, tutor.buckets)
        visit.at_hand = not math.isnan(tutor.distributions[visit.slot, 0])
        visit.ready = NOTHING
        if visit.gate > 0.0 and OFF < stored.rule < OWN:
            slot = slot_of(words[row], stored.rows, stored.buckets)
            if slot != UNKNOWN:
                action, q = stored.actions[slot], math.nan
                if stored.rule == Q_CHANGE and len(student.q_values):
                    q = student.q_values[row, action]
                if _serves(stored, slot, coin.draws[REUSE_DRAW, row], q):
                    visit.ready = action
                    if visit.heads:
                        stored.memories[slot] = _memory_after(stored, slot, q)
        if visit.heads and visit.ready == NOTHING and not visit.at_hand:
            num_to_ask += 1
    return num_to_ask


@compiled
def _greedy(scores: Floats, legal: Bools, row: int) -> int:
    """Return the first legal action of the highest score; ``legal`` may be empty."""
    best, highest = 0, -math.inf
    for action in range(scores.shape[1]):
        score = scores[row, action] if len(legal) == 0 or legal[row, action] else -math.inf
        if math.isnan(score):
            return action
        if score > highest:
            best, highest = action, score
    return best


@compiled
def _greedy_action(student: Student, row: int) -> int:
    """Return a value student's greedy action, read off its policy where Q-values are not given."""
    if len(student.q_values):
        return _greedy(student.q_values, student.legal, row)
    return _greedy(student.policy, student.legal, row)


@compiled
def _settle(
    student: Student, distributions: Floats, draws: Floats, options: Options, visits: NDArray[Any], out: Output
) -> PlainTotals:
    """Draw the executed actions and write them out, and into ``visits`` which are fresh.

    μ is a mixture where the tutor's part was known before the coin was thrown, else conditional on the coin, which
    is the mixture at a gate of 1 on heads with advice and of 0 otherwise.
    """
    is_sound = True
    num_reused = num_fresh = num_known = num_same = 0
    agreement, t = 0.0, out.t
    for row in range(len(visits)):
        visit = visits[row]
        slot, is_heads, was_at_hand = visit.slot, visit.heads, visit.at_hand
        is_ready = visit.ready != NOTHING
        reused = is_heads and is_ready
        is_fresh = is_heads and not is_ready and not math.isnan(distributions[slot, 0]) and not visit.ignored
        visit.fresh = is_fresh
        advised = is_fresh or reused
        own = student.policy[row] if is_heads and not advised else student.tails[row]
        if reused:
            action = visit.ready
            num_reused += 1
        elif is_fresh:
            action = draw(distributions[slot], draws[TUTOR_DRAW, row])
            num_fresh += 1
        else:
            action = draw(own, draws[OWN_DRAW, row])
        if is_heads and not is_ready and was_at_hand:
            num_known += 1

        foreseen = is_ready or was_at_hand
        weight = visit.gate if foreseen else (1.0 if advised else 0.0)
        from_tutor = 0.0
        if is_ready:
            from_tutor = 1.0 if visit.ready == action else 0.0
        elif weight > 0.0:
            from_tutor = distributions[slot, action]
        probability = weight * from_tutor + (1.0 - weight) * own[action]
        is_sound = is_sound and probability > 0.0

        comparable = 0.0 < visit.gate < 1.0 and (advised or not is_heads) and (foreseen or not options.reads_advice)
        would_do = student.policy[row, action]
        if options.value_based:
            would_do = 1.0 if _greedy_action(student, row) == action else 0.0
            comparable = comparable and (advised or would_do > 0.0 or options.is_untrained)
        out.actions[t, row] = action
        out.probabilities[BEHAVIOUR, t, row] = probability
        out.probabilities[POLICY, t, row] = student.policy[row, action]
        out.flags[HEADS, t, row], out.flags[CONSULTED, t, row] = is_heads, advised
        out.flags[ELIGIBLE, t, row] = comparable
        whole = is_fresh and options.whole_advice
        for other in range(student.policy.shape[1]):
            out.advice[t, row, other] = distributions[slot, other] if whole else 0.0
        if advised:
            agreement += would_do
            if not whole:
                out.advice[t, row, action] = 1.0
            if options.counts_same and draw(own, draws[OWN_DRAW, row]) == action:
                num_same += 1
    return is_sound, num_reused, num_fresh, num_known, num_same, agreement


@compiled
def _store(student: Student, stored: Stored, visits: NDArray[Any], out: Output) -> None:
    """Keep the freshly advised actions, in place of what was stored."""
    words = student.observations.view(np.uint32)
    for row in range(len(visits)):
        if visits[row].fresh and OFF < stored.rule < OWN:
            action = out.actions[out.t, row]
            slot = claim(words[row], stored.rows, stored.buckets, stored.counts)
            stored.actions[slot], stored.memories[slot] = action, stored.fresh
            if stored.rule == Q_CHANGE and len(student.q_values):
                stored.memories[slot] = student.q_values[row, action]


@compiled
def decide(
    coin: Plain,
    student: Plain,
    tutor: Plain,
    stored: Plain,
    options: Plain,
    visits: NDArray[Any],
    out: Plain,
) -> tuple[bool, PlainTotals]:
    """Run a vector step, unless somebody has to be asked or the reuse rule is the user's own: then its first half.

    The first half finds out about ``visits``; the caller completes them and calls ``finish``. One call into compiled
    code costs more than what it does.

    Args:
        coin: ``Coin``.
        student: ``Student``.
        tutor: ``Tutor``.
        stored: ``Stored``, of which n more ``rows`` are free, or the oldest give way.
        options: ``Options``.
        visits: ``(n,)`` of ``VISIT``, with its inputs; output.
        out: ``Output``.

    Returns:
        Whether all is done, and if so ``Settled``.
    """
    thrown, seen, advised = Coin(*coin), Student(*student), Tutor(*tutor)
    kept, written = Stored(*stored), Output(*out)
    if _plan(thrown, seen, advised, kept, visits) or kept.rule == OWN:
        return False, (True, 0, 0, 0, 0, 0.0)
    settled = _settle(seen, advised.distributions, thrown.draws, Options(*options), visits, written)
    _store(seen, kept, visits, written)
    return True, settled


@compiled
def finish(
    draws: Floats,
    student: Plain,
    distributions: Floats,
    stored: Plain,
    options: Plain,
    visits: NDArray[Any],
    out: Plain,
) -> PlainTotals:
    """Run the second half of ``decide``, with the tutor's ``distributions`` ``(m, num_actions)``; NaN: no advice.

    Returns:
        ``Settled``.
    """
    seen, written = Student(*student), Output(*out)
    settled = _settle(seen, distributions, draws, Options(*options), visits, written)
    _store(seen, Stored(*stored), visits, written)
    return settled
