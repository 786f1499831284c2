"""A ring of arrays that are written in order and drawn from at random. Knows nothing of what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ArrayRing:
    """Entries in preallocated arrays, one row each; the oldest give way. A subclass writes them, and then advances.

    Args:
        arrays: By name, of one length: the capacity.
        seed: Seed of the draws.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], seed: int) -> None:
        self.capacity = len(next(iter(arrays.values())))
        self._arrays = arrays
        self._size = 0
        self._next = 0
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self._size

    def _advance(self, num_new: int) -> None:
        """Counts entries that were written from ``_next`` on, round the end."""
        self._next = (self._next + num_new) % self.capacity
        self._size = min(self._size + num_new, self.capacity)

    def _draw(self, batch_size: int) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Places ``(batch_size,)``, uniform with replacement, and what is there, by name."""
        indices = self._rng.integers(self._size, size=batch_size)
        return indices, {name: array[indices] for name, array in self._arrays.items()}

    def get_state(self) -> dict[str, Any]:
        """The filled part of the arrays, the place of the next entry and the random state."""
        arrays = {name: array[: self._size].copy() for name, array in self._arrays.items()}
        return {"arrays": arrays, "next": self._next, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes a ``get_state``."""
        for name, values in state["arrays"].items():
            self._size = len(values)
            self._arrays[name][: self._size] = values
        self._next = state["next"]
        self._rng.bit_generator.state = state["rng"]
