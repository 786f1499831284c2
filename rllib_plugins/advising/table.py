"""Distributions by observation, in one array: the fastest thing that can be asked. Knows numbers only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.row_index import CAPACITY, RowIndex, as_rows, fitted


class DistributionTable:
    """Action distributions of the observations that were asked about so far.

    An observation is known by the bits of its float32 numbers.

    Args:
        num_actions: Length of a distribution.
        capacity: Most observations that are kept; the oldest goes first.

    Attributes:
        arrays: The distributions ``(num_slots, num_actions)`` by slot, NaN in slot ``UNKNOWN``, and the index to them,
            as ``kernels`` takes them; to be read only.
    """

    def __init__(self, num_actions: int, capacity: int = CAPACITY) -> None:
        self._index = RowIndex(capacity)
        self._rows = np.full((1, num_actions), np.nan)
        self.arrays = (self._rows, *self._index.arrays)

    def __len__(self) -> int:
        return len(self._index)

    def find(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Slot of each row of ``(n, obs_dim)``; ``UNKNOWN`` where there is none."""
        return self._index.find(as_rows(observations))

    def rows(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """The distributions in ``slots`` as a new array ``(n, num_actions)``; NaN rows for ``UNKNOWN``."""
        return self._rows[slots]

    def put(self, observations: NDArray[np.float32], distributions: NDArray[np.float64]) -> None:
        """Keeps a distribution ``(n, num_actions)`` for each of ``(n, obs_dim)``, in place of what was kept."""
        observations = as_rows(observations)
        for observation, distribution in zip(observations, distributions, strict=True):
            if self._index.reserve(observation[None]):
                self._rows = fitted(self._rows, self._index, np.nan)
                self.arrays = (self._rows, *self._index.arrays)
            self._rows[self._index.claim(observation)] = distribution

    def get_state(self) -> dict[str, Any]:
        """The known observations ``(num_known, obs_dim)``, oldest first, and their distributions."""
        slots = self._index.by_age()
        return {"observations": self._index.observations(slots), "rows": self._rows[slots]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Adds the entries of a ``get_state``."""
        self.put(state["observations"], state["rows"])
