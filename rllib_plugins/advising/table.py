"""Distributions by observation, in one array: the fastest thing that can be asked. Knows bytes and numbers only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 0
"""Slot of an observation that is not in the table; its row is NaN."""

_FIRST_ROWS = 1024


class DistributionTable:
    """Action distributions of the observations that were asked about so far.

    An observation is known by its float32 bytes. A lookup of a vector step is one dictionary access per environment
    and one gather from a growing array.

    Args:
        num_actions: Length of a distribution.
        capacity: Most observations that are kept; the oldest goes first.
    """

    def __init__(self, num_actions: int, capacity: int = 250_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity = {capacity}: must be at least 1")
        self._capacity = capacity
        self._slots: dict[bytes, int] = {}
        self._keys: list[bytes | None] = [None]
        self._rows = np.full((min(capacity, _FIRST_ROWS) + 1, num_actions), np.nan)
        self._oldest = UNKNOWN

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, observations: NDArray[np.float32]) -> list[int]:
        """Slot of each row of ``(n, obs_dim)``; ``UNKNOWN`` where there is none."""
        get = self._slots.get
        return [get(key, UNKNOWN) for key in keys_of(observations)]

    def rows(self, slots: list[int]) -> NDArray[np.float64]:
        """The distributions in ``slots`` as a new array ``(n, num_actions)``; NaN rows for ``UNKNOWN``."""
        return self._rows.take(slots, axis=0)

    def put(self, key: bytes, distribution: NDArray[np.float64]) -> None:
        """Keeps ``(num_actions,)`` for the observation with these bytes (see ``keys_of``)."""
        slot = self._slots.get(key) or self._free_slot()
        self._rows[slot] = distribution
        self._slots[key] = slot
        self._keys[slot] = key

    def get_state(self) -> dict[str, Any]:
        """The known observations' bytes, oldest slot first, with their distributions ``(num_known, num_actions)``."""
        slots = [slot for slot, key in enumerate(self._keys) if key is not None]
        return {"keys": [self._keys[slot] for slot in slots], "rows": self._rows[slots]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Adds the entries of a ``get_state``."""
        for key, row in zip(state["keys"], state["rows"], strict=True):
            self.put(key, row)

    def _free_slot(self) -> int:
        if len(self._keys) <= self._capacity:
            slot = len(self._keys)
            self._keys.append(None)
            if slot >= len(self._rows):
                grown = np.full((min(2 * len(self._rows), self._capacity + 1), self._rows.shape[1]), np.nan)
                grown[: len(self._rows)] = self._rows
                self._rows = grown
            return slot
        self._oldest = self._oldest % self._capacity + 1
        old_key = self._keys[self._oldest]
        if old_key is not None:
            del self._slots[old_key]
        return self._oldest


def keys_of(observations: NDArray[np.float32]) -> list[bytes]:
    """The bytes of each row of ``(n, obs_dim)`` as float32."""
    flat = observations if observations.dtype == np.float32 else observations.astype(np.float32)
    data = flat.tobytes()
    width = 4 * flat.shape[1]
    return [data[start : start + width] for start in range(0, len(data), width)]
