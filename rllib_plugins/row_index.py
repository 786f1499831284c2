"""Find the slot of a state in arrays by slot: a hash table that machine code looks into.

A state is known by the bits of its flat float32 observation.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.array_types import Floats32, Ints
from rllib_plugins.compiled import compiled

UNKNOWN = 0
"""Slot of an observation that is in no index."""
_FIRST_ROWS = 64
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)

Words: TypeAlias = NDArray[np.uint32]
Array = TypeVar("Array", bound=NDArray[Any])


def as_rows(observations: NDArray[Any]) -> Floats32:
    """Return ``(n, obs_dim)`` as compiled code takes them: float32, C-contiguous."""
    return np.ascontiguousarray(observations, dtype=np.float32)


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
        rows: ``(num_rows, obs_dim)`` the bits of each known observation; slot 0 is ``UNKNOWN``.
        buckets: ``(num_buckets,)`` slots by hash, a power of two of them, with linear probing; at least half are
            ``UNKNOWN``.
        counts: ``(2,)`` how many slots are in use, and which was given away last.
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
