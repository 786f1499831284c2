"""A ring of arrays that are written in blocks and drawn from at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ArrayRing:
    """Keep entries in preallocated arrays, one row each; the oldest give way.

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

    def put(self, block: Mapping[str, NDArray[Any]]) -> int:
        """Take new entries, ``(num_new, ...)`` by the names of the arrays; return their number."""
        num_new = len(next(iter(block.values())))
        first = max(0, num_new - self.capacity)  # of these, none would stay
        start = (self._next + first) % self.capacity
        up_to_end = min(num_new - first, self.capacity - start)
        for name, array in self._arrays.items():
            array[start : start + up_to_end] = block[name][first : first + up_to_end]
            array[: num_new - first - up_to_end] = block[name][first + up_to_end :]
        self._next = (self._next + num_new) % self.capacity
        self._size = min(self._size + num_new, self.capacity)
        return num_new

    def _draw(self, batch_size: int) -> dict[str, NDArray[Any]]:
        """Draw entries uniformly, with replacement: ``(batch_size, ...)`` by name."""
        places = self._rng.integers(self._size, size=batch_size)
        return {name: array[places] for name, array in self._arrays.items()}

    def get_state(self) -> dict[str, Any]:
        """Return the filled part of the arrays, the place of the next entry and the random state."""
        arrays = {name: array[: self._size].copy() for name, array in self._arrays.items()}
        return {"arrays": arrays, "next": self._next, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        for name, values in state["arrays"].items():
            self._size = len(values)
            self._arrays[name][: self._size] = values
        self._next = state["next"]
        self._rng.bit_generator.state = state["rng"]
