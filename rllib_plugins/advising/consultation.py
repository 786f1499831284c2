"""Asking the tutor: what it has at hand, and what it says when asked. Knows neither coins nor the student's policy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import Advisor, Source
from rllib_plugins.advising.behaviour import BoolArray, FloatArray, IntArray, usable_rows
from rllib_plugins.advising.counters import AdviceCounters
from rllib_plugins.advising.kernels import Tutor, find
from rllib_plugins.advising.rules import AdvisingRule

_NO_INDEX = (np.empty((0, 0), dtype=np.uint32), np.empty(0, dtype=np.int64))

MISSED, MODEL, STORE, SCRIPT = (int(source) for source in Source)  # looking up enum members costs more than counting


def look_up(advisor: Advisor, observations: NDArray[np.float32], legal: BoolArray | None) -> Tutor:
    """What a tutor without a ``DistributionTable`` has at hand.

    An advisor that keeps accounts (``known_source``) keeps distributions over legal actions only; others are checked.

    Args:
        advisor: The tutor.
        observations: ``(n, obs_dim)``.
        legal: ``(n, num_actions)`` or None.
    """
    known = advisor.known(observations)
    if getattr(advisor, "known_source", None) is None:
        known = np.where(usable_rows(known, legal)[:, None], known, np.nan)
    return known, *_NO_INDEX


def judge(
    rule: AdvisingRule,
    policy: FloatArray,
    legal: BoolArray | None,
    q_values: FloatArray | None,
    observations: NDArray[np.float32],
    tutor: Tutor,
) -> BoolArray:
    """Where the rule opens the gate, and where it does not follow what is at hand, ``(2, n)``.

    Raises:
        ValueError: A mask of another shape.
    """
    judged = np.zeros((2, len(policy)), dtype=bool)
    worthwhile = rule.on_state(policy, legal, q_values)
    if worthwhile is not None and worthwhile.shape != (len(policy),):
        raise ValueError(f"{type(rule).__name__}'s mask of states: {worthwhile.shape}, expected ({len(policy)},)")
    judged[0] = True if worthwhile is None else worthwhile
    if rule.reads_advice:
        known = _distributions(observations, tutor)
        judged[1] = ~rule.on_advice(known)
        judged[0] &= np.isnan(known[:, 0]) | ~judged[1]
    return judged


def ask(
    advisor: Advisor,
    to_ask: IntArray,
    known: FloatArray,
    observations: NDArray[np.float32],
    legal: BoolArray | None,
    counters: AdviceCounters,
) -> float:
    """Gets the tutor's distribution for some rows of a vector step, in one call, and counts where from.

    Advice that is NaN, no distribution, or illegal in its state is dropped; the last two count as invalid.

    Args:
        advisor: The tutor.
        to_ask: Row numbers, at least one.
        known: ``(n, num_actions)`` what is at hand; what is not is written into it, NaN where nothing usable came.
        observations: ``(n, obs_dim)``.
        legal: ``(n, num_actions)`` or None.
        counters: Where to count.

    Returns:
        Milliseconds that the call took.
    """
    batch = advisor.ask(observations[to_ask])
    usable = usable_rows(batch.probabilities, None if legal is None else legal[to_ask])
    was_at_hand = ~np.isnan(known[to_ask, 0])
    source = np.where(was_at_hand & ~usable, STORE, batch.source)  # what is at hand cannot be missed
    counters.invalid += batch.invalid + int(np.count_nonzero(~usable & (source != MISSED) & ~was_at_hand))
    counters.tokens += batch.tokens
    gained = usable & ~was_at_hand
    known[to_ask[gained]] = batch.probabilities[gained]
    usable |= was_at_hand
    counters.missed += len(usable) - int(np.count_nonzero(usable))
    for kind in (MODEL, STORE, SCRIPT):
        counters.add_source(kind, int(np.count_nonzero(usable & (source == kind))))
    return batch.latency_ms


def _distributions(observations: NDArray[np.float32], tutor: Tutor) -> FloatArray:
    """What the tutor has at hand for each of ``(n, obs_dim)``, ``(n, num_actions)``; NaN where nothing."""
    distributions, rows, buckets = tutor
    if not len(buckets):
        return distributions
    slots = np.empty(len(observations), dtype=np.int64)
    find(observations, rows, buckets, slots)
    return distributions[slots]
