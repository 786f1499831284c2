"""Keep the tutor's distributions and the stored actions by state, in arrays that machine code looks into.

A state is known by the bits of its flat float32 observation.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.reuse import ReuseRule, Shipped
from rllib_plugins.array_types import Floats, Floats32, Ints
from rllib_plugins.compiled import compiled

CAPACITY = 250_000
UNKNOWN = 0
"""Slot of an observation that is in no index."""
NOTHING = -1
"""In place of an action: nothing stored serves."""
_FIRST_ROWS = 64
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)

Words: TypeAlias = NDArray[np.uint32]
Array = TypeVar("Array", bound=NDArray[Any])


def as_rows(observations: NDArray[Any]) -> Floats32:
    """Return ``(n, obs_dim)`` as this module and ``kernels`` take them: float32, C-contiguous."""
    return np.ascontiguousarray(observations, dtype=np.float32)


class Tutor(NamedTuple):
    """What is known of a tutor's advice.

    Attributes:
        distributions: ``(num_slots, num_actions)``; NaN in slot ``UNKNOWN``.
        rows: Of the index of states, see ``Stored``.
        buckets: Likewise.
    """

    distributions: Floats
    rows: Words
    buckets: Ints


class Stored(NamedTuple):
    """The stored actions, and when they serve again.

    Attributes:
        rows: ``(num_slots, obs_dim)`` the bits of each known observation.
        buckets: ``(num_buckets,)`` slots by hash, a power of two of them, with linear probing; at least half are
            ``UNKNOWN``.
        counts: ``(2,)`` how many slots are in use, and which was given away last.
        actions: ``(num_slots,)``.
        memories: ``(num_slots,)`` what the reuse rule knows of each: a budget, a probability or a Q-value.
        rule: Number of the reuse rule; ``OWN`` is not run here.
        option: λ of ``DECAY``, or the least change of ``Q_CHANGE``.
        fresh: Memory of a fresh entry.
    """

    rows: Words
    buckets: Ints
    counts: Ints
    actions: Ints
    memories: Floats
    rule: int
    option: float
    fresh: float


@compiled
def _home(words: Words, num_buckets: int) -> int:
    """Return where the search for a row begins."""
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
def slot_of(words: Words, rows: Words, buckets: Ints) -> int:
    """Return the slot of an observation, ``UNKNOWN`` where it has none."""
    bucket = _home(words, len(buckets))
    while True:
        slot = buckets[bucket]
        if slot == UNKNOWN or _same(rows[slot], words):
            return slot
        bucket = (bucket + 1) & (len(buckets) - 1)


@compiled
def _forget(forgotten: int, rows: Words, buckets: Ints) -> None:
    """Empty a slot's bucket and move up those that were pushed past it."""
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
    """Make a row known that is not yet."""
    bucket = _home(rows[slot], len(buckets))
    while buckets[bucket] != UNKNOWN:
        bucket = (bucket + 1) & (len(buckets) - 1)
    buckets[bucket] = slot


@compiled
def claim(words: Words, rows: Words, buckets: Ints, counts: Ints) -> int:
    """Return the slot of an observation: its own, a new one, or once ``rows`` are full that of the oldest."""
    slot = slot_of(words, rows, buckets)
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
def claim_each(observations: Floats32, rows: Words, buckets: Ints, counts: Ints, slots: Ints) -> None:
    """Claim a slot for each observation ``(n, obs_dim)``, in order, into ``slots`` ``(n,)``."""
    words = observations.view(np.uint32)
    for row in range(len(words)):
        slots[row] = claim(words[row], rows, buckets, counts)


@compiled
def find(observations: Floats32, rows: Words, buckets: Ints, slots: Ints) -> None:
    """Write the slot of each observation ``(n, obs_dim)`` into ``slots`` ``(n,)``."""
    words = observations.view(np.uint32)
    for row in range(len(words)):
        slots[row] = slot_of(words[row], rows, buckets)


class RowIndex:
    """Slots 1, 2, 3, … of distinct observations: a hash table in arrays.

    The owner keeps arrays by slot, as long as ``rows``, and fits them (``fitted``) after each ``reserve``.

    Args:
        capacity: Most observations that are kept; the oldest gives its slot away.

    Attributes:
        rows: ``(num_rows, obs_dim)`` uint32; slot 0 is ``UNKNOWN``.
        buckets: ``(num_buckets,)``, see ``Stored``.
        counts: ``(2,)``, see ``Stored``.
        capacity: As given.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity = {capacity}: must be at least 1")
        self.capacity = capacity
        self.rows = np.empty((1, 0), dtype=np.uint32)
        self.buckets = np.zeros(1, dtype=np.int64)
        self.counts = np.zeros(2, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.counts[0])

    @property
    def num_free(self) -> int:
        """Count the new observations that fit in before ``reserve`` has to be called."""
        return sys.maxsize if len(self.rows) > self.capacity else len(self.rows) - 1 - len(self)

    def find(self, observations: Floats32) -> Ints:
        """Return the slot of each row of ``(n, obs_dim)``, C-contiguous; ``UNKNOWN`` where there is none."""
        slots = np.empty(len(observations), dtype=np.int64)
        find(observations, self.rows, self.buckets, slots)
        return slots

    def reserve(self, observations: Floats32) -> bool:
        """Make rows free for those of ``(n, obs_dim)``; return whether ``rows`` had to grow.

        Raises:
            ValueError: Others of another length are known.
        """
        num_new, width = observations.shape
        num_rows = min(int(self.counts[0]) + num_new, self.capacity) + 1
        if num_rows <= len(self.rows) and width == self.rows.shape[1]:
            return False
        if len(self) and width != self.rows.shape[1]:
            raise ValueError(f"observations of {width} numbers among those of {self.rows.shape[1]}")
        num_rows = min(max(num_rows, 2 * len(self.rows), _FIRST_ROWS), self.capacity + 1)
        rows = np.empty((num_rows, width), dtype=np.uint32)
        buckets = np.zeros(1 << (2 * num_rows - 1).bit_length(), dtype=np.int64)
        for slot in range(1, len(self) + 1):
            rows[slot] = self.rows[slot]
            enter(slot, rows, buckets)
        self.rows, self.buckets = rows, buckets
        return True

    def claim(self, observation: Floats32) -> int:
        """Return the slot of ``(obs_dim,)``, for which a row is free: its own, a new one, or that of the oldest."""
        return claim(observation.view(np.uint32), self.rows, self.buckets, self.counts)

    def claim_each(self, observations: Floats32) -> Ints:
        """Return the slots of ``(n, obs_dim)``, for which rows are free, as ``claim`` does one after the other."""
        slots = np.empty(len(observations), dtype=np.int64)
        claim_each(observations, self.rows, self.buckets, self.counts, slots)
        return slots

    def by_age(self) -> Ints:
        """Return the slots in use, oldest first."""
        return np.roll(np.arange(1, len(self) + 1), -int(self.counts[1]))

    def observations(self, slots: Ints) -> Floats32:
        """Return the observations in ``slots``, ``(n, obs_dim)``."""
        return self.rows[slots].view(np.float32)

    def fitted(self, array: Array, fill: float) -> Array:
        """Return an array by slot at the length of ``rows``: a longer copy with ``fill`` at the end."""
        grown = np.full((len(self.rows), *array.shape[1:]), fill, dtype=array.dtype)
        grown[: len(array)] = array
        return grown  # type: ignore[return-value]


class DistributionTable:
    """Action distributions of the observations that were asked about so far.

    Args:
        num_actions: Length of a distribution.
        capacity: Most observations that are kept; the oldest goes first.

    Attributes:
        tutor: The fields of ``Tutor``; to be read only.
    """

    def __init__(self, num_actions: int, capacity: int = CAPACITY) -> None:
        self._num_actions, self._capacity = num_actions, capacity
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._index = RowIndex(self._capacity)
        self._rows = np.full((1, self._num_actions), np.nan)
        self._gather()

    def _gather(self) -> None:
        self.tutor: tuple[Any, ...] = tuple(Tutor(self._rows, self._index.rows, self._index.buckets))

    def __len__(self) -> int:
        return len(self._index)

    def look_up(self, observations: Floats32) -> Floats:
        """Return the distributions of ``(n, obs_dim)`` as a new array ``(n, num_actions)``; NaN where not known."""
        return self._rows[self._index.find(as_rows(observations))]

    def put(self, observations: Floats32, distributions: Floats) -> None:
        """Keep a distribution ``(n, num_actions)`` for each of ``(n, obs_dim)``, in place of what was kept."""
        observations = as_rows(observations)
        if not len(observations):
            return
        if self._index.reserve(observations):
            self._rows = self._index.fitted(self._rows, np.nan)
            self._gather()
        self._rows[self._index.claim_each(observations)] = distributions

    def get_state(self) -> dict[str, Any]:
        """Return the known observations ``(num_known, obs_dim)``, oldest first, and their distributions."""
        slots = self._index.by_age()
        return {"observations": self._index.observations(slots), "rows": self._rows[slots]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Add the entries of a ``get_state``."""
        self.put(state["observations"], state["rows"])


class StoredActions:
    """Advised actions and their memories by state: what reuse serves from.

    The rules of this package run in ``kernels``, a user's own rule here (``serve`` and ``store``).

    Args:
        rule: When a stored action serves again.
        capacity: Most states that are remembered; the oldest gives way, as if it had never been advised.

    Attributes:
        stored: The fields of ``Stored``.
        num_free: At least so many new states fit in.
        runs_here: The rule is a user's own.
    """

    def __init__(self, rule: ReuseRule, capacity: int = CAPACITY):
        self._rule = rule
        self._numbers = rule.numbers()
        self.runs_here = self._numbers.rule == Shipped.OWN
        self._clear(capacity)

    def _clear(self, capacity: int) -> None:
        self._index = RowIndex(capacity)
        self._actions, self._memories = np.full(1, NOTHING, dtype=np.int64), np.full(1, math.nan)
        self.num_free = sys.maxsize if self._numbers.rule == Shipped.OFF else 0
        self._gather()

    def _gather(self) -> None:
        index = self._index
        rule, option, fresh = int(self._numbers.rule), self._numbers.option, self._numbers.fresh
        arrays = index.rows, index.buckets, index.counts, self._actions, self._memories
        self.stored = tuple(Stored(*arrays, rule, option, fresh))

    def reserve(self, observations: Floats32) -> None:
        """Make rows free for the actions of a vector step."""
        if self._index.reserve(observations):
            self._actions = self._index.fitted(self._actions, NOTHING)
            self._memories = self._index.fitted(self._memories, math.nan)
            self._gather()
        self.num_free = self._index.num_free

    def serve(self, observations: Floats32, q_values: Floats, draws: Floats, visits: NDArray[Any]) -> None:
        """Find the stored action that serves each visit under a user's own rule; it is used up on heads only.

        Visits are taken in order. What one finds follows from those before it, never from its own coin.

        Args:
            observations: ``(n, obs_dim)``.
            q_values: ``(n, num_actions)``, or empty where the student has none.
            draws: ``(n,)`` uniform numbers in [0, 1): the visits' own.
            visits: ``kernels.decide``'s, to which this adds.
        """
        for row, slot in enumerate(self._index.find(observations).tolist()):
            action, visit = int(self._actions[slot]), visits[row]
            if visit["gate"] <= 0.0 or action == NOTHING:
                continue
            memory, q = float(self._memories[slot]), _q(q_values, row, action)
            if self._rule.usable(memory, float(draws[row]), q):
                visit["ready"] = action
                if visit["heads"]:
                    self._keep(slot, action, self._rule.reused(memory, q))

    def store(self, observations: Floats32, q_values: Floats, visits: NDArray[Any], actions: Ints) -> None:
        """Keep freshly advised actions under a user's own rule, in place of what was stored.

        Args:
            observations: ``(n, obs_dim)``, for which rows are free.
            q_values: As for ``serve``.
            visits: ``kernels.finish``'s.
            actions: ``(n,)`` executed.
        """
        for row in visits["fresh"].nonzero()[0].tolist():
            action = int(actions[row])
            memory = self._rule.stored(_q(q_values, row, action))
            self._keep(self._index.claim(observations[row]), action, memory)

    def _keep(self, slot: int, action: int, memory: float | None) -> None:
        self._actions[slot], self._memories[slot] = (NOTHING, math.nan) if memory is None else (action, memory)

    def get_state(self) -> dict[str, Any]:
        """Return observations ``(num_entries, obs_dim)``, actions and memories, oldest entry first."""
        slots = self._index.by_age()
        return {
            "observations": self._index.observations(slots),
            "actions": self._actions[slots],
            "memories": self._memories[slots],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._clear(self._index.capacity)
        self.put(state)

    def put(self, state: dict[str, Any]) -> None:
        """Keep the entries of a ``get_state``, each in place of what was stored for its state."""
        observations = as_rows(state["observations"])
        if observations.shape[1]:
            self.reserve(observations)
            slots = self._index.claim_each(observations)
            self._actions[slots], self._memories[slots] = state["actions"], state["memories"]
            self.num_free = self._index.num_free


def _q(q_values: Floats, row: int, action: int) -> float:
    return float(q_values[row, action]) if len(q_values) else math.nan
