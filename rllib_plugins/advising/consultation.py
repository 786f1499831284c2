"""One vector step of asking: coins, reuse and questions. Knows advice and stored actions, not the student's policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import Advisor, Source
from rllib_plugins.advising.behaviour import FloatArray, IntArray, sample, usable_rows
from rllib_plugins.advising.reuse import NOTHING, AdviceDictionary
from rllib_plugins.advising.rules import AdvisingRule

BoolArray = NDArray[np.bool_]


@dataclass(slots=True)
class Plan:
    """What was decided before any advice is asked for.

    Attributes:
        gate: ``(n,)`` probability of heads; 0 where the advice budget ran out within the step.
        heads: ``(n,)`` the coins.
        stored: ``(n,)`` action that reuse holds ready for the state, on heads or tails alike, else ``NOTHING``.
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
    stored = np.full(len(gate), NOTHING)
    if remaining is not None and heads.sum() > remaining:
        over = heads.cumsum() - heads >= remaining
        gate = np.where(over, 0.0, gate)
        heads &= ~over
    if keys is not None:
        q_rows = [None] * len(gate) if q_values is None else q_values.tolist()
        rows = zip(keys, (gate > 0.0).tolist(), heads.tolist(), reuse_draws.tolist(), q_rows, strict=True)
        for row, (key, is_open, is_heads, draw, q_row) in enumerate(rows):
            if is_open and (action := dictionary.peek(key, draw, q_row)) != NOTHING:
                stored[row] = action
                if is_heads:
                    dictionary.reuse(key, q_row)
    return Plan(gate, heads, stored)


@dataclass(slots=True)
class Answers:
    """Fresh advice of one vector step; a row per asked state.

    Attributes:
        rows: ``(m,)`` rows of the vector step that were asked about.
        probabilities: ``(m, num_actions)`` the tutor's distributions.
        answered: ``(m,)`` whether usable advice came.
        followed: ``(m,)`` whether the advising rule lets it be followed.
        actions: ``(m,)`` an action drawn where followed, else ``NOTHING``.
        from_store: Answered rows that had been evaluated before.
        from_model: Answered rows for which the LLM was evaluated.
        invalid: Unusable answers, the tutor's own count and distributions that were none.
        latency_ms: Milliseconds of the call; 0 where none was needed.
    """

    rows: IntArray
    probabilities: FloatArray
    answered: BoolArray
    followed: BoolArray
    actions: IntArray
    from_store: int
    from_model: int
    invalid: int
    latency_ms: float


def ask(
    advisor: Advisor,
    rule: AdvisingRule,
    rows: IntArray,
    observations: NDArray[np.float32],
    legal: BoolArray | None,
    draws: FloatArray,
) -> Answers:
    """Asks about some rows of a vector step, in one call, and draws the advised actions.

    Advice that is NaN, no distribution or illegal in its state is dropped; only the second and third count as invalid.

    Args:
        advisor: The tutor.
        rule: The advising rule.
        rows: ``(m,)`` which rows, at least one.
        observations: ``(n, obs_dim)``.
        legal: ``(n, num_actions)`` or None.
        draws: ``(n,)`` uniform draws.
    """
    batch = advisor.ask(observations[rows])
    answered = usable_rows(batch.probabilities, None if legal is None else legal[rows])
    followed = answered & rule.on_advice(batch.probabilities) if rule.reads_advice else answered
    actions = np.full(len(rows), NOTHING)
    if followed.all():
        actions = sample(batch.probabilities, draws[rows])
    elif followed.any():
        actions[followed] = sample(batch.probabilities[followed], draws[rows[followed]])
    dropped = ~answered & (batch.source != Source.MISSED)
    return Answers(
        rows=rows,
        probabilities=batch.probabilities,
        answered=answered,
        followed=followed,
        actions=actions,
        from_store=int((answered & (batch.source == Source.STORE)).sum()),
        from_model=int((answered & (batch.source == Source.MODEL)).sum()),
        invalid=batch.invalid + int(dropped.sum()),
        latency_ms=batch.latency_ms,
    )
