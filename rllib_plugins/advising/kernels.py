"""The exploration core's machine code: looking states up, coins and reuse, who acts. Numbers and arrays only.

It is one module because the compiler's cache of a function does not notice changes to functions in other files.

An index of states is three arrays: ``rows`` ``(num_rows, obs_dim)``, the bits of each known observation; ``buckets``,
a power of two of row numbers (slots) by hash, with linear probing and at least half of them ``UNKNOWN``; ``counts``,
how many slots are in use and which was given away last.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Words: TypeAlias = NDArray[np.uint32]

Tutor: TypeAlias = tuple[Floats, Words, Ints]
"""Distributions ``(m, num_actions)``, NaN where there is none, and ``rows`` and ``buckets`` of the index that leads to
them; with no buckets, they are those of the n environments in order."""
Stored: TypeAlias = tuple[Words, Ints, Ints, Ints, Floats]
"""``rows``, ``buckets`` and ``counts`` of an index, and by slot the stored actions and their memories."""
Reuse: TypeAlias = tuple[int, float, float]
"""Number of the reuse rule; λ of ``DECAY`` or the least change of ``Q_CHANGE``; memory of a fresh entry."""
Found: TypeAlias = tuple[Floats, Ints]
"""``(n,)`` the probability of heads, 0 once the budget ran out; ``(5, n)`` the action that reuse holds ready, on heads
and tails alike, or ``NOTHING``, the row of the tutor's distributions, and, 1 or 0, the coin, whether the tutor's
distribution was at hand before it, and whether the action was drawn from it."""
Out: TypeAlias = tuple[Ints, NDArray[Any], Bools, NDArray[np.float32]]
"""``Decisions``' arrays, in their order."""
Options: TypeAlias = tuple[bool, bool, bool, bool, bool]
Settled: TypeAlias = tuple[bool, int, int, int, int, float]
"""Whether all distributions were such; environments whose action was a stored one; whose action was drawn from the
tutor; that needed the tutor's distribution and had it at hand; in which the student would have drawn the same; the sum
over consulted ones of the probability that the student would have done the same."""

UNKNOWN = 0
"""Slot of an observation that is in no index."""
NOTHING = -1
"""In place of an action: nothing stored serves."""
NO_LIMIT = -1
"""In place of the consultations that are left."""
OFF, BUDGET, DECAY, Q_CHANGE, OWN = range(5)
"""Reuse rules that are compiled, by number, and any other."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def room(n: int) -> Found:
    """For a vector step of n environments."""
    return np.zeros(n), np.zeros((5, n), dtype=np.int64)


@compiled
def _home(words: Words, num_buckets: int) -> int:
    """Where the search for a row begins."""
    mixed = np.uint64(0)
    for word in words:
        mixed = (mixed ^ np.uint64(word)) * _MULTIPLIER
        mixed ^= mixed >> _HALF
    home: int = np.int64(mixed & np.uint64(num_buckets - 1))  # type: ignore[assignment]  # compiled, both are one
    return home


@compiled
def _same(first: Words, second: Words) -> bool:
    same = len(first) == len(second)
    for i in range(min(len(first), len(second))):
        same = same and first[i] == second[i]
    return same


@compiled
def _slot_of(words: Words, rows: Words, buckets: Ints) -> int:
    bucket = _home(words, len(buckets))
    while True:
        slot = buckets[bucket]
        if slot == UNKNOWN or _same(rows[slot], words):
            return slot
        bucket = (bucket + 1) & (len(buckets) - 1)


@compiled
def _forget(forgotten: int, rows: Words, buckets: Ints) -> None:
    """Empties a slot's bucket and moves up those that were pushed past it."""
    last = len(buckets) - 1
    hole = _home(rows[forgotten], len(buckets))
    while buckets[hole] != forgotten:
        hole = (hole + 1) & last
    bucket = hole
    while True:
        bucket = (bucket + 1) & last
        slot = buckets[bucket]
        if slot == UNKNOWN:
            break
        if ((bucket - _home(rows[slot], len(buckets))) & last) >= ((bucket - hole) & last):
            buckets[hole] = slot
            hole = bucket
    buckets[hole] = UNKNOWN


@compiled
def enter(slot: int, rows: Words, buckets: Ints) -> None:
    """Makes a row known that is not yet."""
    bucket = _home(rows[slot], len(buckets))
    while buckets[bucket] != UNKNOWN:
        bucket = (bucket + 1) & (len(buckets) - 1)
    buckets[bucket] = slot


@compiled
def claim(words: Words, rows: Words, buckets: Ints, counts: Ints) -> int:
    """The slot of an observation: its own, a new one, or once ``rows`` are full that of the oldest."""
    slot = _slot_of(words, rows, buckets)
    if slot != UNKNOWN:
        return slot
    if counts[0] + 1 < len(rows):
        counts[0] += 1
        slot = counts[0]
    else:
        slot = counts[1] % counts[0] + 1
        counts[1] = slot
        _forget(slot, rows, buckets)
    rows[slot] = words
    enter(slot, rows, buckets)
    return slot


@compiled
def find(observations: NDArray[np.float32], rows: Words, buckets: Ints, slots: Ints) -> None:
    """Writes the slot of each observation ``(n, obs_dim)`` into ``slots`` ``(n,)``."""
    words = observations.view(np.uint32)
    for row in range(len(words)):
        slots[row] = _slot_of(words[row], rows, buckets)


@compiled
def draw(probabilities: Floats, uniform: float) -> int:
    """One action of ``(num_actions,)`` by inverting the cumulative distribution; never one of probability 0.

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
    """A vector step without a tutor, into step ``t`` of the outputs; False where a distribution was none."""
    is_sound = True
    for row in range(len(policy)):
        action = draw(policy[row], own_draws[row])
        probability = policy[row, action]
        is_sound = is_sound and probability > 0.0
        actions[t, row] = action
        probabilities[0, t, row] = probabilities[1, t, row] = probability
    return is_sound


@compiled
def _serves(rule: int, option: float, memory: float, uniform: float, q: float) -> bool:
    """``ReuseRule.usable`` of the compiled rules."""
    if rule == BUDGET:
        return memory > 0.0
    if rule == DECAY:
        return uniform < memory
    return math.isnan(memory) or math.isnan(q) or q - memory >= option


@compiled
def _memory_after(rule: int, option: float, memory: float, q: float) -> float:
    """``ReuseRule.reused`` of the compiled rules."""
    if rule == BUDGET:
        return memory - 1.0
    if rule == DECAY:
        return option * memory
    return q


@compiled
def plan(
    gate: float,
    remaining: int,
    draws: Floats,
    observations: NDArray[np.float32],
    tutor: Tutor,
    asks_always: bool,
    stored: Stored,
    reuse: Reuse,
    q_values: Floats,
    judged: Bools,
    found: Found,
) -> int:
    """Throws the coins of a vector step of n environments and looks up what is at hand and what is stored.

    The order matters: what an environment finds follows from the coins of those before it, never from its own, so
    budgets are kept exactly and each action's probability is that given everything before it. Advice that is asked for
    in this step is stored when the step ends.

    Args:
        gate: Probability of heads.
        remaining: Consultations left in the advice budget, or ``NO_LIMIT``.
        draws: ``(4, n)`` uniform draws: of the student's actions, of the coins, of reuse, of the tutor's actions.
        observations: ``(n, obs_dim)``.
        tutor: What the tutor has at hand.
        asks_always: Whether the tutor is asked about that, too.
        stored: The stored actions.
        reuse: The reuse rule; ``OWN`` finds nothing here.
        q_values: ``(n, num_actions)``, or empty.
        judged: ``(2, n)`` where the advising rule opens the gate at all, and where it does not follow what is at hand;
            empty: it opens it everywhere and follows everything.
        found: Output.

    Returns:
        In how many environments the tutor has to be asked.
    """
    distributions, tutor_rows, tutor_buckets = tutor
    rows, buckets, _, stored_actions, memories = stored
    rule, option, _ = reuse
    gates, (ready, slots, heads, at_hand, _) = found[0], _rows_of(found)
    words = observations.view(np.uint32)
    num_heads = num_to_ask = 0
    for row in range(len(gates)):
        is_open = (len(judged) == 0 or judged[0, row]) and not 0 <= remaining <= num_heads
        gates[row] = gate if is_open else 0.0
        heads[row] = draws[1, row] < gates[row]
        num_heads += heads[row]
        slots[row] = _slot_of(words[row], tutor_rows, tutor_buckets) if len(tutor_buckets) else row
        at_hand[row] = not math.isnan(distributions[slots[row], 0])
        ready[row] = NOTHING
        if gates[row] > 0.0 and OFF < rule < OWN:
            slot = _slot_of(words[row], rows, buckets)
            if slot != UNKNOWN:
                q = q_values[row, stored_actions[slot]] if rule == Q_CHANGE and len(q_values) else math.nan
                if _serves(rule, option, memories[slot], draws[2, row], q):
                    ready[row] = stored_actions[slot]
                    if heads[row]:
                        memories[slot] = _memory_after(rule, option, memories[slot], q)
        if heads[row] and ready[row] == NOTHING and (asks_always or not at_hand[row]):
            num_to_ask += 1
    return num_to_ask


@compiled
def _rows_of(found: Found) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    rows = found[1]
    return rows[0], rows[1], rows[2], rows[3], rows[4]


@compiled
def _greedy(scores: Floats, legal: Bools, row: int) -> int:
    """The first legal action of the highest score; ``legal`` may be empty."""
    best, highest = 0, -math.inf
    for action in range(scores.shape[1]):
        score = scores[row, action] if len(legal) == 0 or legal[row, action] else -math.inf
        if math.isnan(score):
            return action
        if score > highest:
            best, highest = action, score
    return best


@compiled
def settle(
    policy: Floats,
    tails: Floats,
    q_values: Floats,
    legal: Bools,
    draws: Floats,
    distributions: Floats,
    judged: Bools,
    options: Options,
    found: Found,
    t: int,
    out: Out,
) -> Settled:
    """Draws the executed actions of a vector step of n environments, into vector step ``t`` of the outputs.

    μ is a mixture where the tutor's part was at hand before the coin was thrown, else conditional on the coin, which
    is the mixture at a gate of 1 on heads with advice and of 0 otherwise.

    Args:
        policy: ``(n, num_actions)`` the untutored student's distribution.
        tails: ``(n, num_actions)`` what the student does beside a tutor; it leaves out the share of exploring that the
            tutor would have done, so that a student left alone on heads falls back to ``policy``.
        q_values: ``plan``'s: what a value student's greedy action maximises, or if empty ``policy``.
        legal: ``(n, num_actions)``; empty: all actions are.
        draws: ``plan``'s.
        distributions: ``(m, num_actions)`` the tutor's, at hand or asked for; NaN where there is none.
        judged: ``plan``'s, and what the advising rule does not follow of what was asked for.
        options: The student is a value student; compare its advice with its random actions too; imitate the tutor's
            whole distribution where it was drawn from; count the consulted environments in which the student would
            have drawn the same; the advising rule reads advice.
        found: ``plan``'s, which ``fresh`` is written into.
        t: Vector step of the outputs.
        out: Output.
    """
    gates, (ready, slots, heads, at_hand, fresh) = found[0], _rows_of(found)
    actions, probabilities, flags, advice = out
    value_based, is_untrained, whole_advice, counts_same, reads_advice = options
    is_sound = True
    num_reused = num_fresh = num_known = num_same = 0
    agreement = 0.0
    for row in range(len(policy)):
        slot, is_ready = slots[row], ready[row] != NOTHING
        followed = not math.isnan(distributions[slot, 0]) and (len(judged) == 0 or not judged[1, row])
        is_heads, was_at_hand = heads[row] != 0, at_hand[row] != 0
        reused = is_heads and is_ready
        is_fresh = is_heads and not is_ready and followed
        fresh[row] = is_fresh
        advised = is_fresh or reused
        own = policy[row] if is_heads and not advised else tails[row]
        if reused:
            action = ready[row]
            num_reused += 1
        elif is_fresh:
            action = draw(distributions[slot], draws[3, row])
            num_fresh += 1
        else:
            action = draw(own, draws[0, row])
        if is_heads and not is_ready and was_at_hand:
            num_known += 1

        foreseen = is_ready or was_at_hand
        weight = gates[row] if foreseen else (1.0 if advised else 0.0)
        from_tutor = 0.0
        if is_ready:
            from_tutor = 1.0 if ready[row] == action else 0.0
        elif weight > 0.0:
            from_tutor = distributions[slot, action]
        probability = weight * from_tutor + (1.0 - weight) * own[action]
        is_sound = is_sound and probability > 0.0

        comparable = 0.0 < gates[row] < 1.0 and (advised or not is_heads) and (foreseen or not reads_advice)
        would_do = policy[row, action]
        if value_based:
            greedy = _greedy(q_values, legal, row) if len(q_values) else _greedy(policy, legal, row)
            would_do = 1.0 if greedy == action else 0.0
            comparable = comparable and (advised or would_do > 0.0 or is_untrained)
        actions[t, row] = action
        probabilities[0, t, row], probabilities[1, t, row] = probability, policy[row, action]
        flags[0, t, row], flags[1, t, row], flags[2, t, row] = is_heads, comparable, advised
        whole = is_fresh and whole_advice
        for other in range(policy.shape[1]):
            advice[t, row, other] = distributions[slot, other] if whole else 0.0
        if advised:
            agreement += would_do
            if not whole:
                advice[t, row, action] = 1.0
            if counts_same and draw(own, draws[0, row]) == action:
                num_same += 1
    return is_sound, num_reused, num_fresh, num_known, num_same, agreement


@compiled
def store(
    observations: NDArray[np.float32],
    q_values: Floats,
    stored: Stored,
    reuse: Reuse,
    found: Found,
    t: int,
    out: Out,
) -> None:
    """Keeps the freshly advised actions of a vector step, in place of what was stored.

    Args:
        observations: ``(n, obs_dim)``.
        q_values: ``plan``'s.
        stored: The stored actions; ``rows`` have room for n more, or the oldest give way.
        reuse: The reuse rule; ``OWN`` stores nothing here.
        found: ``settle``'s.
        t: Vector step of ``out``.
        out: ``settle``'s.
    """
    rows, buckets, counts, stored_actions, memories = stored
    rule, _, first = reuse
    words, fresh, actions = observations.view(np.uint32), found[1][4], out[0]
    for row in range(len(fresh)):
        if fresh[row] and OFF < rule < OWN:
            slot, action = claim(words[row], rows, buckets, counts), actions[t, row]
            stored_actions[slot] = action
            memories[slot] = q_values[row, action] if rule == Q_CHANGE and len(q_values) else first


@compiled
def decide(
    gate: float,
    remaining: int,
    draws: Floats,
    observations: NDArray[np.float32],
    tutor: Tutor,
    asks_always: bool,
    stored: Stored,
    reuse: Reuse,
    policy: Floats,
    tails: Floats,
    q_values: Floats,
    legal: Bools,
    judged: Bools,
    options: Options,
    found: Found,
    t: int,
    out: Out,
) -> tuple[bool, Settled]:
    """A whole vector step: ``plan`` and, if nobody has to be asked, ``settle`` and ``store``, whose arguments it takes.

    Returns:
        Whether all is done, and if so ``settle``'s result. If not, the caller asks and goes on: the call into compiled
        code costs more than what it does.
    """
    if plan(gate, remaining, draws, observations, tutor, asks_always, stored, reuse, q_values, judged, found):
        return False, (True, 0, 0, 0, 0, 0.0)
    if reuse[0] == OWN:
        return False, (True, 0, 0, 0, 0, 0.0)
    settled = settle(policy, tails, q_values, legal, draws, tutor[0], judged, options, found, t, out)
    if settled[2]:
        store(observations, q_values, stored, reuse, found, t, out)
    return True, settled
