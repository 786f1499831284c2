"""Tutors for tests: distributions looked up by the first number of the observation."""

from __future__ import annotations

import numpy as np

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.metrics import Source
from rllib_plugins.tasks import Task


class Numbered(Task):
    """States 0, 1, 2, … that are their own observations.

    Args:
        num_actions: Size of the action space.
        legal: ``(num_states, num_actions)``; None: all actions are legal.
    """

    name = "numbered"

    def __init__(self, num_actions: int, legal=None):
        super().__init__()
        self.actions = tuple("abcdefg"[:num_actions])
        self._legal = legal

    def legal_batch(self, observations):
        return None if self._legal is None else self._legal[observations[:, 0].astype(int)]


class TableAdvisor(Advisor):
    """Advises ``rows[int(observation[0])]``.

    Args:
        rows: ``(num_states, num_actions)`` distributions; a row of NaN is missed.
        at_hand: Everything is known before it is asked for.
        keeps: What was asked for is at hand from then on.
        source: Where asked rows come from.
        invalid: Invalid answers per call.
        tokens: Tokens per call.
        legal: ``(num_states, num_actions)``; None: all actions are legal.
    """

    def __init__(
        self,
        rows,
        *,
        at_hand: bool = False,
        keeps: bool = False,
        source: Source = Source.MODEL,
        invalid: int = 0,
        tokens: int = 0,
        legal=None,
    ):
        self.rows = np.asarray(rows, dtype=np.float64)
        super().__init__(
            Numbered(self.rows.shape[1], legal), Source.SCRIPT if source == Source.SCRIPT else Source.STORE
        )
        self.keeps = keeps or at_hand
        self.source, self.invalid, self.tokens = source, invalid, tokens
        self.num_asked = 0
        if at_hand:
            self.table.put(states(*range(len(self.rows))), self.rows)

    def evaluate(self, observations):
        rows = self.rows[observations[:, 0].astype(int)]
        source = np.where(np.isnan(rows).any(axis=1), Source.MISSED, self.source).astype(np.int8)
        return AdviceBatch(rows, source, self.invalid, 12.0, self.tokens)

    def ask(self, observations):
        self.num_asked += len(observations)
        batch = super().ask(observations)
        if not self.keeps:
            self.table.clear()
        return batch


def states(*numbers: int) -> np.ndarray:
    """Observations ``(n, 1)`` of the numbered states."""
    return np.array(numbers, dtype=np.float32)[:, None]
