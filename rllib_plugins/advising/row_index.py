"""Numbers for observations: a hash table in arrays, for compiled code to look into. Knows bits only."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising import kernels
from rllib_plugins.advising.kernels import claim, enter, find

CAPACITY = 250_000
_FIRST_ROWS = 64

Array = TypeVar("Array", bound=NDArray[Any])


class RowIndex:
    """Slots 1, 2, 3, … of distinct observations, by the bits of their float32 numbers.

    The owner keeps arrays by slot, as long as ``rows``, and fits them (``fitted``) after each ``reserve``.

    Args:
        capacity: Most observations that are kept; the oldest gives its slot away.

    Attributes:
        rows: ``(num_rows, obs_dim)`` uint32; slot 0 is ``UNKNOWN``.
        buckets: ``(num_buckets,)``, see ``kernels``.
        counts: ``(2,)``, see ``kernels``.
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
    def arrays(self) -> tuple[kernels.Words, kernels.Ints]:
        """``rows`` and ``buckets``."""
        return self.rows, self.buckets

    @property
    def room(self) -> int:
        """How many new observations fit in before ``reserve`` has to be called."""
        return sys.maxsize if len(self.rows) > self.capacity else len(self.rows) - 1 - len(self)

    def find(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Slot of each row of ``(n, obs_dim)``, C-contiguous; ``UNKNOWN`` where there is none."""
        slots = np.empty(len(observations), dtype=np.int64)
        find(observations, self.rows, self.buckets, slots)
        return slots

    def reserve(self, observations: NDArray[np.float32]) -> bool:
        """Makes room for rows like those of ``(n, obs_dim)``; whether ``rows`` had to grow.

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

    def claim(self, observation: NDArray[np.float32]) -> int:
        """The slot of ``(obs_dim,)``, for which there is room: its own, a new one, or that of the oldest."""
        return claim(observation.view(np.uint32), self.rows, self.buckets, self.counts)

    def by_age(self) -> NDArray[np.int64]:
        """The slots in use, oldest first."""
        return np.roll(np.arange(1, len(self) + 1), -int(self.counts[1]))

    def observations(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """The observations in ``slots``, ``(n, obs_dim)``."""
        return self.rows[slots].view(np.float32)


def fitted(array: Array, index: RowIndex, fill: float) -> Array:
    """An array by slot at the length of ``index.rows``: a longer copy with ``fill`` at the end."""
    grown = np.full((len(index.rows), *array.shape[1:]), fill, dtype=array.dtype)
    grown[: len(array)] = array
    return grown  # type: ignore[return-value]


def as_rows(observations: NDArray[Any]) -> NDArray[np.float32]:
    """``(n, obs_dim)`` as this module and ``kernels`` take them: float32, C-contiguous."""
    return np.ascontiguousarray(observations, dtype=np.float32)
