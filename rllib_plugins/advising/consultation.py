"""One vector step of asking: coins, reuse and questions. Knows advice and stored actions, not the student's policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import Advisor, Source
from rllib_plugins.advising.behaviour import FloatArray, IntArray, usable_rows
from rllib_plugins.advising.counters import AdviceCounters
from rllib_plugins.advising.reuse import NOTHING, AdviceDictionary

BoolArray = NDArray[np.bool_]

MISSED, MODEL, STORE, SCRIPT = (int(source) for source in Source)  # looking up enum members costs more than counting

NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class Plan:
    """What was decided before any advice is asked for.

    Attributes:
        gate: ``(n,)`` probability of heads; 0 where the advice budget ran out within the step.
        heads: ``(n,)`` the coins.
        stored: ``(n,)`` action that reuse holds ready for the state, on heads and tails alike, else ``NOTHING``.
    """

    gate: FloatArray
    heads: BoolArray
    stored: IntArray


def plan_step(
    gate: FloatArray,
    coins: FloatArray,
    reuse_draws: FloatArray,
    keys: list[bytes] | None,
    dictionary: AdviceDictionary,
    q_values: FloatArray | None,
    remaining: int | None,
) -> Plan:
    """Throws the coins and looks up what is stored, environment by environment.

    The order matters: what an environment finds follows from the coins of those before it, never from its own, so
    budgets are kept exactly and each action's probability is that given everything before it. Advice that is asked for
    in this step is stored when the step ends.

    Args:
        gate: ``(n,)`` probability of heads.
        coins: ``(n,)`` uniform draws.
        reuse_draws: ``(n,)`` uniform draws for reuse rules that are random.
        keys: A key per state; None: nothing is ever stored.
        dictionary: The trial's stored actions; reuses are recorded in it.
        q_values: ``(n, num_actions)`` where the reuse rule needs them.
        remaining: Consultations left in the advice budget; None: unlimited.
    """
    heads = coins < gate
    if remaining is not None and np.count_nonzero(heads) > remaining:
        spent = heads.cumsum() - heads >= remaining
        gate = np.where(spent, 0.0, gate)
        heads &= ~spent
    if keys is None:
        return Plan(gate, heads, np.full(len(gate), NOTHING))
    q_rows = None if q_values is None else q_values.tolist()
    stored = dictionary.serve(keys, (gate > 0.0).tolist(), heads.tolist(), reuse_draws.tolist(), q_rows)
    return Plan(gate, heads, np.array(stored, dtype=np.int64))


def rows_at_hand(advisor: Advisor, known: FloatArray, legal: BoolArray | None) -> BoolArray:
    """Rows of ``advisor.known``'s ``known`` that can be used, ``(n,)``.

    An advisor that keeps accounts (``known_source``) keeps distributions over legal actions only; others are checked.
    """
    if getattr(advisor, "known_source", None) is None:
        return usable_rows(known, legal)
    return np.asarray(known[:, 0] == known[:, 0])


def rows_to_ask(advisor: Advisor, plan: Plan, at_hand: BoolArray) -> IntArray:
    """Row numbers that the tutor has to be asked about.

    An advisor that says where ``known`` rows come from, by an attribute ``known_source``, is asked about the others
    only; one that does not keeps its accounts by being asked.
    """
    needed = plan.heads
    if getattr(advisor, "known_source", None) is not None:
        needed = needed > at_hand
        if not np.count_nonzero(needed):
            return NO_ROWS
    return (needed & (plan.stored == NOTHING)).nonzero()[0]


def ask(
    advisor: Advisor,
    to_ask: IntArray,
    at_hand: BoolArray,
    known: FloatArray,
    observations: NDArray[np.float32],
    legal: BoolArray | None,
    counters: AdviceCounters,
) -> tuple[FloatArray, BoolArray, float]:
    """Gets the tutor's distribution for some rows of a vector step, in one call, and counts where from.

    Advice that is NaN, no distribution, or illegal in its state is dropped; the last two count as invalid.

    Args:
        advisor: The tutor.
        to_ask: Row numbers, at least one.
        at_hand: ``(n,)`` rows of ``known`` that are usable.
        known: ``(n, num_actions)`` from ``advisor.known``.
        observations: ``(n, obs_dim)``.
        legal: ``(n, num_actions)`` or None.
        counters: Where to count.

    Returns:
        Distributions ``(n, num_actions)``, meaningful only where the next says so; ``(n,)`` rows with a usable one, at
        hand or asked; milliseconds that the call took.
    """
    batch = advisor.ask(observations[to_ask])
    usable = usable_rows(batch.probabilities, None if legal is None else legal[to_ask])
    was_at_hand = at_hand[to_ask]
    source = np.where(was_at_hand & ~usable, STORE, batch.source)  # what is at hand cannot be missed
    counters.invalid += batch.invalid + int(np.count_nonzero(~usable & (source != MISSED) & ~was_at_hand))
    counters.tokens += batch.tokens
    usable |= was_at_hand
    counters.missed += len(usable) - int(np.count_nonzero(usable))
    for kind in (MODEL, STORE, SCRIPT):
        counters.add_source(kind, int(np.count_nonzero(usable & (source == kind))))
    if was_at_hand.all():
        return known, at_hand, batch.latency_ms
    distributions, has_one = known.copy(), at_hand.copy()
    distributions[to_ask[~was_at_hand]] = batch.probabilities[~was_at_hand]
    has_one[to_ask] = usable
    return distributions, has_one, batch.latency_ms
