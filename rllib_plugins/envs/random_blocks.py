"""Random numbers for single environments, drawn in blocks: one draw from a numpy generator costs more than a step."""

from __future__ import annotations

import numpy as np

BLOCK = 256


class Luck:
    """A stream of uniform numbers in [0, 1) from a generator; equal generators give equal streams."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def uniform(self) -> float:
        """Return the next number."""
        if not self._block:
            self._block = self._rng.random(BLOCK).tolist()
        return self._block.pop()

    def below(self, n: int) -> int:
        """Return an integer in 0 … n − 1, each as likely."""
        return int(self.uniform() * n)
