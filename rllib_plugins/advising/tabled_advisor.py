"""What all advisors share: answers are kept by observation, and each distinct one is evaluated once.

Owns the accounting of sources. It must not know where answers come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import AdviceBatch, Source
from rllib_plugins.advising.behaviour import usable_rows
from rllib_plugins.advising.table import UNKNOWN, DistributionTable, keys_of
from rllib_plugins.tasks.base import Task


class TabledAdvisor:
    """An advisor that keeps every answer by observation; a subclass says how to evaluate what is not kept.

    Args:
        task: The task that is advised on.
        kept_source: What a kept answer counts as.

    Attributes:
        known_source: The same, as a number: the exploration core counts what is known by it, without asking again.
    """

    def __init__(self, task: Task, kept_source: Source) -> None:
        self.task = task
        self.num_actions = len(task.actions)
        self.known_source = int(kept_source)
        self._table = DistributionTable(self.num_actions)

    def known(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distributions that were asked for before, ``(n, num_actions)``; NaN rows where there are none."""
        return self._table.rows(self._table.find(observations))

    def ask(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Advice for flat observations ``(n, obs_dim)``; what is not known is evaluated, each distinct one once."""
        slots = self._table.find(observations)
        probabilities = self._table.rows(slots)
        source = np.full(len(slots), self.known_source, dtype=np.int8)
        if UNKNOWN not in slots:
            return AdviceBatch(probabilities, source, 0, 0.0)
        keys = keys_of(observations)
        unknown: dict[bytes, list[int]] = {}
        for row, slot in enumerate(slots):
            if slot == UNKNOWN:
                unknown.setdefault(keys[row], []).append(row)
        distinct = observations[[rows[0] for rows in unknown.values()]]
        fresh = self.evaluate(distinct)
        keep = usable_rows(fresh.probabilities, self.task.legal_batch(distinct))
        for index, (key, rows) in enumerate(unknown.items()):
            source[rows] = Source.MISSED
            if fresh.source[index] != Source.MISSED:
                if keep[index]:
                    self._table.put(key, fresh.probabilities[index])
                probabilities[rows] = fresh.probabilities[index]
                source[rows] = self.known_source
                source[rows[0]] = fresh.source[index]
        return AdviceBatch(probabilities, source, fresh.invalid, fresh.latency_ms, fresh.tokens)

    def get_state(self) -> dict[str, Any]:
        """What is known: which estimator of μ a step uses depends on it, so a restored trial has to know it again."""
        return self._table.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``."""
        self._table.set_state(state)

    def evaluate(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Advice for distinct observations that are not kept yet."""
        raise NotImplementedError


def legal_mask(task: Task, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Legal actions of flat observations ``(n, obs_dim)``, as ``(n, num_actions)``."""
    mask = task.legal_batch(observations)
    return np.ones((len(observations), len(task.actions)), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
