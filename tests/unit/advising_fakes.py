"""Scripted advisors for tests: distributions looked up by the first number of the observation."""

from __future__ import annotations

import numpy as np

from rllib_plugins.advising.advisor import AdviceBatch, Source


class TableAdvisor:
    """Advises ``table[int(observation[0])]``.

    Args:
        table: ``(num_states, num_actions)`` distributions; a row of NaN is missed.
        at_hand: Whether ``known`` shows them.
        source: Where asked rows come from.
        invalid: Invalid answers per call.
        tokens: Tokens per call.
    """

    def __init__(self, table, *, at_hand: bool, source: Source = Source.MODEL, invalid: int = 0, tokens: int = 0):
        self.table = np.asarray(table, dtype=np.float64)
        self.at_hand = at_hand
        self.source = source
        self.invalid = invalid
        self.tokens = tokens
        self.num_asked = 0

    def _rows(self, observations):
        return self.table[observations[:, 0].astype(int)]

    def known(self, observations):
        rows = self._rows(observations)
        return rows if self.at_hand else np.full_like(rows, np.nan)

    def ask(self, observations):
        rows = self._rows(observations)
        self.num_asked += len(rows)
        source = np.where(np.isnan(rows).any(axis=1), Source.MISSED, self.source).astype(np.int8)
        return AdviceBatch(rows, source, self.invalid, 12.0, self.tokens)


class LearningAdvisor(TableAdvisor):
    """Like ``TableAdvisor``, and what was asked once is at hand from then on."""

    def __init__(self, table):
        super().__init__(table, at_hand=False)
        self.seen: set[int] = set()

    def known(self, observations):
        rows = self._rows(observations).copy()
        rows[[int(state) not in self.seen for state in observations[:, 0]]] = np.nan
        return rows

    def ask(self, observations):
        states = observations[:, 0].astype(int)
        batch = super().ask(observations)
        batch.source = np.array([Source.STORE if s in self.seen else Source.MODEL for s in states], dtype=np.int8)
        self.seen.update(states.tolist())
        return batch


def states(*numbers: int) -> np.ndarray:
    """Observations ``(n, 1)`` of the numbered states."""
    return np.array(numbers, dtype=np.float32)[:, None]
