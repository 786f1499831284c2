"""What all advisors share: answers are kept by observation, and each distinct one is evaluated once.

Owns the accounting of sources. It must not know where answers come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import AdviceBatch, Source
from rllib_plugins.advising.behaviour import usable_rows
from rllib_plugins.advising.kernels import UNKNOWN
from rllib_plugins.advising.table import DistributionTable
from rllib_plugins.tasks.base import Task


class TabledAdvisor:
    """An advisor that keeps every answer by observation; a subclass says how to evaluate what is not kept.

    Args:
        task: The task that is advised on.
        kept_source: What a kept answer counts as.

    Attributes:
        known_source: The same, as a number: the exploration core counts what is known by it, without asking again.
        table: What is known: the exploration core looks it up there.
    """

    def __init__(self, task: Task, kept_source: Source) -> None:
        self.task = task
        self.num_actions = len(task.actions)
        self.known_source = int(kept_source)
        self.table = DistributionTable(self.num_actions)

    def known(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distributions that were asked for before, ``(n, num_actions)``; NaN rows where there are none."""
        return self.table.rows(self.table.find(observations))

    def ask(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Advice for flat observations ``(n, obs_dim)``; what is not known is evaluated, each distinct one once."""
        slots = self.table.find(observations)
        probabilities = self.table.rows(slots)
        source = np.full(len(slots), self.known_source, dtype=np.int8)
        unknown: dict[bytes, list[int]] = {}
        for row in np.flatnonzero(slots == UNKNOWN).tolist():
            unknown.setdefault(observations[row].tobytes(), []).append(row)
        if not unknown:
            return AdviceBatch(probabilities, source, 0, 0.0)
        distinct = observations[[rows[0] for rows in unknown.values()]]
        fresh = self.evaluate(distinct)
        had = fresh.source != Source.MISSED
        keep = had & usable_rows(fresh.probabilities, self.task.legal_batch(distinct))
        self.table.put(distinct[keep], fresh.probabilities[keep])
        for index, rows in enumerate(unknown.values()):
            source[rows] = Source.MISSED
            if had[index]:
                probabilities[rows] = fresh.probabilities[index]
                source[rows] = self.known_source
                source[rows[0]] = fresh.source[index]
        return AdviceBatch(probabilities, source, fresh.invalid, fresh.latency_ms, fresh.tokens)

    def get_state(self) -> dict[str, Any]:
        """What is known: which estimator of μ a step uses depends on it, so a restored trial has to know it again."""
        return self.table.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``."""
        self.table.set_state(state)

    def evaluate(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Advice for distinct observations that are not kept yet."""
        raise NotImplementedError


def legal_mask(task: Task, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Legal actions of flat observations ``(n, obs_dim)``, as ``(n, num_actions)``."""
    mask = task.legal_batch(observations)
    return np.ones((len(observations), len(task.actions)), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
